"""What a companion leaves behind is ended, also what comes to light only as another ends."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from hbagent.offspring import reaper
from hbagent.role.companion import Family, _sweep
from tests.offspring.owning import apart


class Late(Family):
    """A family whose list was read just before the first of it ended and left its child here."""

    def __init__(self, ended: int) -> None:
        super().__init__()
        self._ended = [ended]

    def orphans(self) -> list[int]:
        seen, self._ended = self._ended, []
        return seen or super().orphans()


def child(ends: bool) -> int:
    pid = os.fork()
    if pid == 0:
        _be_child(ends)
    return pid


def _be_child(ends: bool) -> NoReturn:
    if not ends:
        signal.alarm(30)
        signal.pause()
    os._exit(0)


def test_a_sweep_ends_with_nobody_left_and_not_with_everybody_seen_waited_for() -> None:
    def swept() -> list[int]:
        reaper.become_subreaper()
        ended, _ = child(ends=True), child(ends=False)
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        _sweep(Late(ended))
        return reaper.children(os.getpid())

    assert apart(swept) == []
