"""Who is no hand goes. Each case runs in a subreaper of its own."""

from __future__ import annotations

import os
import signal
import time

import pytest

from hbagent.core.units import SECOND
from hbagent.offspring import reaper
from hbagent.offspring.strays import AGAIN_NS, SOON_NS, Strays
from tests.offspring.owning import apart, freezer
from tests.offspring.test_reaper import below, child, until


def tidy_until_gone(strays: Strays, hands: list[int]) -> None:
    def gone() -> bool:
        strays.tidy(hands, time.monotonic_ns())
        return strays.deadline() is None

    until(gone)


def test_every_child_but_the_hands_is_ended_and_reaped() -> None:
    def run() -> list[object]:
        hand, *others = child(), child(), child(lambda: os._exit(0)), child(child)
        strays = Strays()
        now = time.monotonic_ns()
        strays.tidy([hand], now)
        soon = strays.deadline() in (now + SOON_NS, None)
        tidy_until_gone(strays, [hand])
        told = [reaper.children(os.getpid()) == [hand], len(strays), strays.abandonments, soon]
        reaper.clear()
        return [*told, [pid for pid in others if os.path.exists(f"/proc/{pid}")]]

    assert apart(run) == [True, 0, 0, True, []]


def test_who_was_reaped_may_have_left_a_child_here_so_it_looks_again() -> None:
    def run() -> list[object]:
        ended = child(lambda: os._exit(0))
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        strays = Strays()
        now = time.monotonic_ns()
        strays.tidy([], now)
        again = strays.deadline() == now + SOON_NS
        tidy_until_gone(strays, [])
        return [again]

    assert apart(run) == [True]


def test_where_nobody_can_come_to_it_the_children_of_others_are_left_alone() -> None:
    pid = child()
    try:
        strays = Strays()
        strays.tidy([], time.monotonic_ns())
        assert strays.deadline() is None
        assert not reaper.is_dead(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.root
def test_who_does_not_die_is_named_with_its_job_until_it_does() -> None:
    with freezer() as group:

        def run() -> list[object]:
            top = child()
            (group / "tasks").write_text(str(top))
            (group / "freezer.state").write_text("FROZEN")
            until(lambda: "FROZEN" in (group / "freezer.state").read_text())
            strays = Strays()
            strays.name([top], "disk")
            now = time.monotonic_ns()
            strays.tidy([], now)
            before = len(strays)
            strays.tidy([], now + reaper.GRACE_NS // 2)
            strays.tidy([], now + reaper.GRACE_NS)
            (stuck,) = strays.stuck(now + SECOND)
            told = [stuck.pid == top, stuck.key, stuck.since_ns, bool(stuck.command)]
            due = strays.deadline() == now + reaper.GRACE_NS + AGAIN_NS
            (group / "freezer.state").write_text("THAWED")
            tidy_until_gone(strays, [])
            return [before, told, due, strays.abandonments, len(strays), os.path.exists(f"/proc/{top}")]

        assert apart(run) == [0, [True, "disk", SECOND, True], True, 1, 0, False]


def test_an_abandoned_hand_and_all_below_it_are_killed_once_more_and_reaped_when_they_die_at_last() -> None:
    def run() -> list[object]:
        pid = child(child)
        until(lambda: below(pid))
        family = [pid, *below(pid)]
        strays = Strays()
        strays.abandon(pid, "disk", 0)
        before = [len(strays), strays.deadline() == AGAIN_NS, strays.pids() == [pid]]
        strays.tidy([], AGAIN_NS)
        tidy_until_gone(strays, [])
        return [*before, len(strays), strays.abandonments, [pid for pid in family if os.path.exists(f"/proc/{pid}")]]

    assert apart(run) == [1, True, True, 0, 1, []]
