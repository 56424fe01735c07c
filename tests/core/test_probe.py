"""One probe: its schedule and its line in a report."""

from __future__ import annotations

import random
from typing import Any

from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.probe import ABSENT_FACTOR, FIRST_NS, Probe
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from tests.probing import probe as probe_config

OK, CRIT = Health.OK, Health.CRITICAL


def new(**settings: Any) -> Probe:
    return Probe(probe_config(**settings), random.Random(1), 0)


def run(probe: Probe, health: Health = OK, now: int = 0, **fields: object) -> bool:
    order = probe.start(1)
    assert probe.run == order.run == 1
    return probe.finish(CheckFinished(run=1, health=health, **fields), now)  # type: ignore[arg-type]


def test_the_first_run_comes_within_ten_seconds_however_long_the_interval_is() -> None:
    dues = [Probe(probe_config(interval_ns=3600 * SECOND), random.Random(seed), 0).due_at for seed in range(50)]
    assert min(dues) >= 0 and max(dues) < FIRST_NS


def test_it_has_no_line_until_its_hard_state_is_known() -> None:
    probe = new()
    assert probe.row(0) is None
    assert not run(probe, CRIT) and probe.row(0) is None
    assert not run(probe, CRIT) and run(probe, CRIT)
    row = probe.row(SECOND)
    assert row is not None and (row.health, row.age_ns, row.kind, row.soft) == (CRIT, SECOND, "unit", None)


def test_what_disagrees_with_the_hard_state_is_shown_as_soft() -> None:
    probe = new(app="web")
    run(probe)
    run(probe, CRIT, text="refused", measures=(Measure(label="time", value=0.5),))
    row = probe.row(0)
    assert row is not None and (row.health, row.soft, row.attempts, row.app) == (OK, CRIT, 1, "web")
    assert (row.text, row.measures) == ("refused", (Measure(label="time", value=0.5),))


def test_within_the_start_grace_a_probe_that_never_was_good_fails_for_free() -> None:
    probe = new(start_grace_ns=60 * SECOND)
    for at in range(0, 59, 2):
        assert not run(probe, CRIT, at * SECOND)
    assert [run(probe, CRIT, at * SECOND) for at in (60, 62, 64)] == [False, False, True]


def test_it_is_silent_when_it_is_believed_that_nothing_answers() -> None:
    probe = new()
    for _ in range(2):
        run(probe, CRIT, timed_out=True)
        assert not probe.silent
    run(probe, CRIT, timed_out=True)
    assert probe.silent
    run(probe, CRIT, text="connection refused")
    assert not probe.silent


def test_a_default_probe_with_nothing_to_look_at_looks_again_much_later_and_then_counts() -> None:
    probe = new(default=True)
    run(probe)
    assert run(probe, applies=False), "its line goes"
    assert probe.row(0) is None and probe.due_at == ABSENT_FACTOR * probe.config.interval_ns
    assert run(probe) and probe.row(0) is not None
