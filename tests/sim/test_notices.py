"""Nobody is told too much or too little, whatever goes wrong; and each row of that is red without what it protects."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hbagent.core.alerts import Alerts
from hbagent.core.brake import Brake
from hbagent.core.effects import PostAlerts
from hbagent.core.ledger import Ledger
from hbagent.core.notice import Receiver
from hbagent.core.objections import Objection, Objections
from hbagent.core.records import HookRun, RunState, Told, Trouble
from hbagent.core.sinks import Sinks
from hbagent.core.states import Reason
from hbagent.core.units import SECOND
from hbagent.core.waiting import Waiting
from hbagent.sim.run import play
from hbagent.sim.scenario import Scenario
from hbagent.sim.world import World

SEEDS = 12
#: Seeds that every change is tried with.
SEEDS_MANY = int(os.environ.get("HBAGENT_SEEDS", "40")) // 2
TROUBLES = (
    ("operators",),
    ("flapping", "root-restart"),
    ("operators", "rack-dark", "root-restart"),
    ("rack-back", "app-stuck", "agent-crash", "hook-failure"),
    ("operators", "disk-trouble"),
    ("operators", "leader-restart"),
)

Off = Callable[[pytest.MonkeyPatch], None]


def played(seed: int, *faults: str) -> World:
    world = World(Scenario(seed=seed, faults=faults, leaders=1 + seed % 2))
    play(world)
    return world


def red(row: str, seed: int, *faults: str) -> list[str]:
    return [line for line in played(seed, *faults).checker.violations if line.startswith(f"{row}:")]


@pytest.mark.parametrize("faults", TROUBLES, ids="+".join)
def test_every_notification_has_one_outcome_and_a_reason_that_was_so(faults: tuple[str, ...]) -> None:
    for seed in range(2):
        world = played(seed, *faults)
        assert world.checker.violations == []
        rows = world.checker.notices.rows()
        assert {run.state for run in rows} >= {RunState.DONE, RunState.SUPPRESSED}
        assert world.checker.notices.pagers.posts > 10


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("faults", TROUBLES, ids="+".join)
def test_every_notification_has_one_outcome_for_many_seeds(faults: tuple[str, ...]) -> None:
    for seed in (2, *range(100, 100 + SEEDS_MANY)):
        world = played(seed, *faults)
        assert world.checker.violations == [], f"{world.scenario.command()} --leaders {world.scenario.leaders}"


def unwritten_refusals(patch: pytest.MonkeyPatch) -> None:
    """What is not sent leaves no row."""
    write = Ledger.run

    def run(self: Ledger, run: HookRun) -> None:
        if run.state is not RunState.SUPPRESSED:
            write(self, run)

    patch.setattr(Ledger, "run", run)


def no_reasons(patch: pytest.MonkeyPatch) -> None:
    """Silences refuse, also where there is none."""
    patch.setattr(
        Objections, "covering", lambda self, trouble, now: self.silences.all()[0] if self.silences.all() else None
    )


def no_memory_of_telling(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hbagent.core.alerts.Told", lambda **fields: Told(**{**fields, "sent": False}))


def deaf_alertmanagers(patch: pytest.MonkeyPatch) -> None:
    """Ends are not posted."""
    patch.setattr(Sinks, "resolve", lambda self, *what: None)


def no_silences(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Objections, "covering", lambda self, trouble, now: None)


def no_parents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Objections, "parent", lambda self, trouble: None)


def nobody_looks_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Alerts, "_look_again", lambda self, now: None)


def holds_never_end(patch: pytest.MonkeyPatch) -> None:
    to_telling = Objections.to_telling

    def forever(
        self: Objections, waiting: Waiting, receiver: Receiver, trouble: Trouble, now: int, at: int | None = None
    ) -> Objection | None:
        if receiver.hold_ns:
            return Objection(Reason.HOLD, "", now + SECOND)
        return to_telling(self, waiting, receiver, trouble, now, at)

    patch.setattr(Objections, "to_telling", forever)


def brake_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Brake, "admit", lambda self, receiver, subject, rack, now: "all")


def early_runs(patch: pytest.MonkeyPatch) -> None:
    """A run begins with the receipt of any batch that it is in."""
    patch.setattr(Ledger, "due", lambda self, batch: [run for run in batch.runs if run.state is not RunState.DONE])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("off", "row", "faults"),
    [
        (unwritten_refusals, "ledger", ("operators",)),
        (no_reasons, "ledger", ("operators",)),
        (no_memory_of_telling, "pairs", ("agent-crash",)),
        (deaf_alertmanagers, "pairs", ("agent-crash",)),
        (no_silences, "covered", ("operators",)),
        (no_parents, "covered", ("rack-dark",)),
        (nobody_looks_again, "told", ("operators",)),
        (holds_never_end, "held", ("agent-crash",)),
        (brake_on, "at-once", ("agent-crash",)),
        (early_runs, "durable", ("agent-crash",)),
    ],
)
def test_without_the_guard_the_row_turns_red(
    off: Off, row: str, faults: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    off(monkeypatch)
    seed = next((seed for seed in range(SEEDS) if red(row, seed, *faults)), None)
    assert seed is not None
    monkeypatch.undo()
    assert not red(row, seed, *faults)


def test_an_alertmanager_forgets_what_it_does_not_hear_of() -> None:
    world = played(1, "agent-crash")
    pagers = world.checker.notices.pagers
    pagers.failures = 1.0
    assert pagers.take(0, PostAlerts(sink="alerts", url="http://one:9093", token=1, body=b"[]"))
    assert not pagers.active("http://one:9093", world.now + 3_600_000_000_000)
