"""Keeping a prober going."""

from __future__ import annotations

from hbagent.core.config import AgentConfig
from hbagent.core.effects import Effect, KillProber, StartProber
from hbagent.core.messages import Mark, ProberEnded
from hbagent.core.tending import RESTART_MAX_NS, RESTART_MIN_NS, Tending
from hbagent.core.units import SECOND
from tests.build import LEADER, NODE

CONFIG = AgentConfig(node=NODE, leaders=(LEADER,), prober_patience_ns=30 * SECOND)


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def test_it_is_started_once_and_at_once() -> None:
    tending = Tending(CONFIG, 0)
    assert kinds(tending.wake(0)) == [StartProber]
    assert tending.wake(SECOND) == []


def test_the_wait_doubles_up_to_a_minute_and_is_short_again_after_a_minute_of_marks() -> None:
    tending, now, waits = Tending(CONFIG, 0), 0, []
    for _ in range(8):
        tending.wake(now)
        tending.ended_by(ProberEnded("exit status 1"), now)
        at = tending.deadline()
        assert at is not None
        waits.append(at - now)
        now = at
    assert waits[:3] == [RESTART_MIN_NS, 2 * RESTART_MIN_NS, 4 * RESTART_MIN_NS]
    assert waits[-2:] == [RESTART_MAX_NS, RESTART_MAX_NS]
    tending.wake(now)
    for count in range(1, 62):
        tending.mark(Mark(count), now)
    tending.ended_by(ProberEnded("signal 9"), now)
    assert tending.deadline() == now + RESTART_MIN_NS


def test_a_mark_that_repeats_itself_is_no_movement() -> None:
    tending = Tending(CONFIG, 0)
    tending.wake(0)
    for at in range(40):
        tending.mark(Mark(1), at * SECOND)
    assert tending.moved == 1
    assert KillProber in kinds(tending.wake(30 * SECOND))


def test_the_time_that_the_agent_did_not_run_is_forgiven() -> None:
    tending = Tending(CONFIG, 0)
    tending.wake(0)
    tending.forgive(60 * SECOND)
    assert tending.wake(60 * SECOND) == []


def test_without_a_prober_there_is_nothing_to_tend() -> None:
    tending = Tending(AgentConfig(node=NODE, leaders=(LEADER,), prober=False), 0)
    assert tending.deadline() is None and tending.wake(0) == []
