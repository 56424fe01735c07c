"""What a companion leaves behind is ended, also what comes to light only as another ends."""

from __future__ import annotations

import os
import signal
from typing import NoReturn
from unittest import mock

from hbagent.offspring import reaper
from hbagent.role.companion import Family, _bury, _sweep
from tests.offspring.owning import apart


class Late(Family):
    """A family whose list was read just before the first of it ended and left its child here."""

    def __init__(self, ended: int) -> None:
        super().__init__()
        self._ended = [ended]

    def orphans(self) -> list[int]:
        seen, self._ended = self._ended, []
        return seen or super().orphans()


def child(ends: bool, after_s: float = 30.0) -> int:
    pid = os.fork()
    if pid == 0:
        _be_child(ends, after_s)
    return pid


def _be_child(ends: bool, after_s: float) -> NoReturn:
    if not ends:
        # Not the one by which a test's own time is limited.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, after_s)
        signal.pause()
    os._exit(0)


def test_one_that_dies_some_time_after_it_was_killed_is_seen_off_with_all_that_it_left() -> None:
    """Whoever dies needs a processor for that, and locks of the kernel."""

    def seen_off() -> tuple[str, list[int]]:
        reaper.become_subreaper()
        family, fell = Family(), reaper.fell
        killed, _ = child(ends=False, after_s=0.7), child(ends=False)
        family.add(killed)
        with mock.patch.object(reaper, "fell", lambda pids: 0 if killed in pids else fell(pids)):
            how = _bury(killed, 0.0, family)
        return how, reaper.children(os.getpid())

    assert apart(seen_off) == ["killed", []]


def test_a_sweep_ends_with_nobody_left_and_not_with_everybody_seen_waited_for() -> None:
    def swept() -> list[int]:
        reaper.become_subreaper()
        ended, _ = child(ends=True), child(ends=False)
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        _sweep(Late(ended))
        return reaper.children(os.getpid())

    assert apart(swept) == []
