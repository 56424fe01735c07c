from __future__ import annotations

from hbagent.core.messages import Mark
from hbagent.core.states import Health, Stall
from hbagent.core.units import SECOND
from hbagent.sim.host import FAR
from hbagent.sim.prober import FACTS, Prober


def test_a_mark_moves_once_a_second_and_is_told_once() -> None:
    prober = Prober()
    assert prober.mark(0) is None
    prober.start(5 * SECOND)
    assert prober.mark(5 * SECOND) == Mark(1)
    assert prober.mark(6 * SECOND - 1) is None
    assert prober.mark(9 * SECOND) == Mark(5)


def test_one_that_is_held_tells_no_mark_and_the_truth_of_it_is_kept() -> None:
    prober = Prober()
    prober.start(0)
    prober.hold(10)
    prober.hold(11)
    prober.release(20)
    assert prober.mark(30 * SECOND) is None
    assert prober.stuck_spans == [[10, FAR]]
    prober.release(40)
    assert prober.mark(30 * SECOND) == Mark(31)
    assert prober.stuck_spans == [[10, 40]]


def test_a_new_process_is_not_stuck_in_what_held_the_old_one() -> None:
    prober = Prober()
    prober.start(0)
    prober.hold(10)
    prober.end(20)
    prober.hold(21)
    prober.start(30)
    prober.release(40)
    assert prober.mark(50) == Mark(1)
    assert (prober.stuck_spans, prober.life) == ([[10, 20]], 2)


def test_it_tells_the_health_of_its_application_as_that_of_its_host() -> None:
    prober = Prober()
    assert prober.vitals(FACTS[0]).health is Health.OK
    prober.app = Health.DEADLOCKED
    vitals = prober.vitals(FACTS[1])
    assert (vitals.health, vitals.facts) == (Health.DEADLOCKED, FACTS[1])
    assert [(app.health, app.stall) for app in vitals.apps] == [(Health.DEADLOCKED, Stall.DEADLOCKED)]
