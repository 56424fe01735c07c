"""The hook runner as a program: `python -m hbagent.role.hookrunner [ROOT]`, with the link to its root as descriptor 0.

What a process of its own needs is set up here, before `hooking` is loaded and its loop runs. ROOT is for those who look
at a list of processes.
"""

from __future__ import annotations

import sys

from .beside import go_on_when_daemon_dies, take_link
from .light import without


def main() -> int:
    """Run until the link or a signal says to end; 0. Whatever else ends it is a traceback and 1."""
    link = take_link()
    with without("typing_extensions"):
        from . import hooking
    go_on_when_daemon_dies()
    hooking.HookRunner(link).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
