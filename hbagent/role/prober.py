"""The prober as a program: `python -m hbagent.role.prober [NODE]`, with the link to its agent as descriptor 0.

What a process of its own needs is set up here, before `probing` is loaded and its loop runs. NODE is for those who
look at a list of processes.
"""

from __future__ import annotations

import os
import signal
import sys

from .light import without

#: Descriptors that something in the agent may have left open to its children; a process has no more by default.
DESCRIPTORS_MAX = 4096
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run until the link or a signal says to end; 0. Whatever else ends it is a traceback and 1."""
    os.closerange(3, DESCRIPTORS_MAX)
    # The link must not be where a child looks for its standard input.
    link = os.dup(0)
    os.set_inheritable(link, False)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    with without("typing_extensions"):
        from . import probing
    _go_on_when_agent_dies()
    probing.Prober(link).run()
    return 0


def _go_on_when_agent_dies() -> None:
    """A prober that somebody has stopped would outlive its agent for ever; one that runs sees the link end anyway.

    Not SIGKILL: it has hands to end.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
