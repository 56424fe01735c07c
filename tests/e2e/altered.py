"""Runs a daemon with one of its guards taken out: `python -m tests.e2e.altered GUARD agent|leader|root --config FILE`.

A row that stays green without the guard it is about proves nothing. So each of these is started once in the place of
a real daemon, and the row must turn red.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from hbagent.cli import main


def doorkeepers_nerves() -> None:
    """The thread that admits connections ends when it meets an unknown key."""
    from hbagent.transport.zap import ZapServer

    judge = ZapServer._judge

    def judge_and_end(self: ZapServer, request: list[bytes]) -> object:
        outcome, peer = judge(self, request)
        if peer is None:
            raise SystemExit
        return outcome, peer

    ZapServer._judge = judge_and_end  # type: ignore[assignment, method-assign]


def doorkeeper() -> None:
    """The same, and nobody notices."""
    from hbagent.transport.zap import ZapServer

    doorkeepers_nerves()
    ZapServer.alive = True  # type: ignore[assignment, method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    guard.__name__.replace("_", "-"): guard for guard in (doorkeepers_nerves, doorkeeper)
}


if __name__ == "__main__":
    GUARDS[sys.argv[1]]()
    raise SystemExit(main(sys.argv[2:]))
