"""The first steps of a process that a daemon has started beside itself: `role.companion` is the other side of it."""

from __future__ import annotations

import os
import signal

#: Descriptors that something in the daemon may have left open to its children; a process has no more by default.
DESCRIPTORS_MAX = 4096
_PR_SET_PDEATHSIG = 1


def take_link() -> int:
    """The link to the daemon, which is descriptor 0, moved to where no child looks for its standard input."""
    os.closerange(3, DESCRIPTORS_MAX)
    link = os.dup(0)
    os.set_inheritable(link, False)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    return link


def go_on_when_daemon_dies() -> None:
    """One that somebody has stopped would outlive its daemon for ever; one that runs sees the link end anyway.

    Not SIGKILL: it has hands to end.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
