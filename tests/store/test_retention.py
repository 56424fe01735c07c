"""What goes, goes whole: the ledger balances whatever is deleted, and a clock that is wrong deletes nothing."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.core.records import Batch, Event, HookRun, RunState
from hbagent.core.states import Axis, IncidentState
from hbagent.core.units import DAY, HOUR, SECOND
from hbagent.store import retention as retention_module
from hbagent.store.failpoint import EXIT_STATUS
from hbagent.store.history import History
from hbagent.store.retention import DOUBT_NS, DRIFT_NS, ENDED_MAX, RESOLVED_MAX, Age
from hbagent.store.sqlite import SqliteHistory
from tests.store.conftest import Open
from tests.store.samples import balanced, event, incident, restore, run, sequences, silence, trouble, unsent

ROOT = Path(__file__).parents[2]


def kept(history: History) -> list[int]:
    return sequences(history.events(1000))[::-1]


def states(history: History, number: int) -> list[str]:
    return [row["state"] for row in history.runs_of(f"event-{number}")]


# ---- how many --------------------------------------------------------------------------------------------------


def test_the_oldest_events_make_room_and_their_notifications_go_with_them(open_store: Open) -> None:
    history = open_store(events_max=10)
    for number in range(1, 31):
        runs = (run(number, RunState.DONE), unsent(number, hook="mail"))
        history.commit(Batch(events=(event(number, notices=2),), runs=runs))
        assert balanced(history)
    assert kept(history) == list(range(21, 31))
    assert states(history, 20) == []
    assert states(history, 21) == ["suppressed", "done"]


@pytest.mark.parametrize("state", [RunState.DONE, RunState.DEAD, RunState.SUPPRESSED])
def test_notifications_that_are_over_make_room_and_take_their_event_along(open_store: Open, state: RunState) -> None:
    history = open_store(runs_over_max=5)
    for number in range(1, 21):
        history.commit(Batch(events=(event(number),), runs=(run(number, state),)))
        assert balanced(history)
    history.commit(Batch(events=(event(21, notices=0),)))
    assert kept(history) == [16, 17, 18, 19, 20, 21]


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.HELD])
def test_what_is_owed_or_waits_keeps_its_event(open_store: Open, state: RunState) -> None:
    history = open_store(events_max=5, runs_over_max=5)
    history.commit(Batch(events=(event(1, notices=2),), runs=(run(1, state), run(1, RunState.DONE, "mail"))))
    for number in range(2, 20):
        history.commit(Batch(events=(event(number),), runs=(run(number, RunState.DONE),)))
        assert balanced(history)
    assert kept(history) == [1, 16, 17, 18, 19]
    assert states(history, 1) == ["done", state.value]
    history.commit(Batch(runs=(run(1, RunState.DONE),)))
    history.commit(Batch(events=(event(20, notices=0),)))
    assert balanced(history)
    assert 1 not in kept(history)


def test_what_a_trouble_names_stays_until_it_is_over(open_store: Open) -> None:
    history = open_store(events_max=3, runs_over_max=3)
    history.commit(Batch(events=(event(1),), runs=(unsent(1),), troubles=(trouble(1, "event-1-page"),)))
    for number in range(2, 10):
        history.commit(Batch(events=(event(number),), runs=(unsent(number),)))
    assert kept(history) == [1, 8, 9]
    history = open_store(events_max=3, runs_over_max=3)
    history.commit(Batch(events=(event(10),), runs=(unsent(10),)))
    assert kept(history) == [1, 9, 10], "also by a trouble of an earlier life"
    assert unsent(1) in open_store(events_max=3, runs_over_max=3).restore().runs
    history = open_store(events_max=3, runs_over_max=3)
    history.commit(Batch(ended=((trouble(1).subject, Axis.LIVENESS),)))
    history.commit(Batch(events=(event(11),), runs=(unsent(11),)))
    assert kept(history) == [9, 10, 11]
    assert balanced(history)


def test_more_than_may_go_at_once_goes_with_the_next_commits(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "PRUNE_MAX", 10)
    history = open_store(events_max=5)
    history.commit(Batch(events=tuple(event(number, notices=0) for number in range(1, 36))))
    left = []
    while len(kept(history)) > 5:
        left.append(len(kept(history)))
        history.commit(Batch(marks=()))
    assert left == [25, 15]


def test_many_that_may_not_go_do_not_hide_those_that_may(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "PRUNE_MAX", 3)
    history = open_store(events_max=9, runs_over_max=9)
    numbers = range(1, 9)
    troubles = tuple(trouble(number, f"event-{number}-page") for number in numbers)
    history.commit(Batch(events=tuple(map(event, numbers)), runs=tuple(map(unsent, numbers)), troubles=troubles))
    for number in range(9, 16):
        history.commit(Batch(events=(event(number),), runs=(unsent(number),)))
    assert kept(history) == [*numbers, 15]
    assert balanced(history)


def test_only_a_few_notifications_without_an_event_are_kept(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "ORPHANS_MAX", 3)
    history = open_store(events_max=200, runs_over_max=200)
    history.commit(Batch(events=(event(1),), runs=(run(1, RunState.DONE),)))
    for number in range(2, 10):
        history.commit(Batch(runs=(run(number, RunState.DONE), run(100 + number))))
        history.commit(Batch(events=(event(200 + number, notices=0),)))
    assert states(history, 1) == ["done"]
    assert [number for number in range(2, 10) if states(history, number)] == [7, 8, 9]
    assert all(states(history, 100 + number) == ["pending"] for number in range(2, 10)), "what is owed is owed"


def test_a_notification_without_an_event_stays_while_another_is_owed_or_a_trouble_names_it(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "ORPHANS_MAX", 1)
    history = open_store(events_max=200, runs_over_max=200)
    owed = (run(1, RunState.DONE), run(1, RunState.PENDING, "mail"))
    history.commit(Batch(runs=(*owed, unsent(2)), troubles=(trouble(2, "event-2-page"),)))
    for number in range(3, 8):
        history.commit(Batch(runs=(run(number, RunState.DONE), unsent(100 + number))))
        history.commit(Batch(events=(event(200 + number, notices=0), event(300 + number, notices=0))))
    assert states(history, 1) == ["pending", "done"]
    assert states(history, 2) == ["suppressed"]
    assert [number for number in range(3, 8) if states(history, number)] == [7]


def test_a_few_incidents_and_silences_that_are_over_are_kept(open_store: Open) -> None:
    history = open_store()
    history.commit(
        Batch(incidents=(incident(1), *(incident(n, IncidentState.RESOLVED) for n in range(2, RESOLVED_MAX + 12))))
    )
    ended = [silence(n, ends_wall_ns=HOUR) for n in range(2, ENDED_MAX + 7)]
    early = [silence(n, ended_by="uid 1000") for n in range(ENDED_MAX + 7, ENDED_MAX + 12)]
    history.commit(Batch(silences=(silence(1), *ended, *early)), now_wall_ns=DAY)
    found = [row["incident_id"] for row in history.incidents(10_000)]
    assert (len(found), found[-2:]) == (RESOLVED_MAX + 1, ["i12", "i1"])
    silences = [one.silence_id for one in open_store().restore().silences]
    assert (len(silences), silences[:2]) == (ENDED_MAX + 1, ["s1", "s12"])


# ---- how old ---------------------------------------------------------------------------------------------------


def test_events_beyond_the_age_go_with_their_notifications(open_store: Open) -> None:
    history = open_store(retention_ns=10 * DAY)
    for number in range(1, 21):
        one = event(number, at_wall_ns=number * DAY)
        history.commit(Batch(events=(one,), runs=(unsent(number),)))
    history.commit(Batch(marks=()), now_wall_ns=19 * DAY)
    assert kept(open_store()) == list(range(1, 21)), "nobody has looked yet"
    history = open_store(retention_ns=10 * DAY)
    history.commit(Batch(marks=()), now_wall_ns=4000 * DAY)
    assert kept(history) == list(range(11, 21)), "as old as the newest event says"
    assert balanced(history)


def test_without_an_age_limit_or_a_clock_nothing_is_too_old(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(events=(event(1, at_wall_ns=DAY, notices=0),)), now_wall_ns=1000 * DAY)
    assert kept(history) == [1]
    history = open_store(retention_ns=DAY)
    history.commit(Batch(marks=()))
    assert kept(history) == [1]


class Clock:
    """The kernel's clock, by hand."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


def test_a_wall_clock_that_jumps_ahead_is_believed_after_a_day() -> None:
    clock = Clock()
    age = Age(clock)
    assert age.tell(100 * DAY) == 100 * DAY, "there was no other word"
    clock.now += HOUR
    assert age.tell(100 * DAY + HOUR + DRIFT_NS) == 100 * DAY + HOUR + DRIFT_NS
    clock.now += HOUR
    believed = 100 * DAY + 2 * HOUR + DRIFT_NS
    assert age.tell(4000 * DAY) == believed
    clock.now += DOUBT_NS - 1
    assert age.tell(4001 * DAY) == believed + DOUBT_NS - 1
    clock.now += 1
    assert age.tell(4001 * DAY) == 4001 * DAY


def test_a_wall_clock_that_comes_back_is_believed_at_once() -> None:
    clock = Clock()
    age = Age(clock)
    age.begin(100 * DAY)
    clock.now += SECOND
    assert age.tell(4000 * DAY) == 100 * DAY + SECOND
    assert age.tell(100 * DAY + SECOND) == 100 * DAY + SECOND
    clock.now += DAY
    assert age.tell(4000 * DAY) == 101 * DAY + SECOND, "and doubted anew"
    assert age.tell(99 * DAY) == 99 * DAY


# ---- whatever happens ------------------------------------------------------------------------------------------


def churn(history: History, rng: random.Random, steps: int) -> None:
    """Events and what becomes of their notifications, in any order, with commits that are repeated."""
    open_runs: dict[str, HookRun] = {}
    number = history.restore().newest_sequence
    for _ in range(steps):
        events: list[Event] = []
        runs: dict[str, HookRun] = {}
        for _ in range(rng.randrange(4)):
            number += 1
            hooks = rng.sample(["page", "mail", "chat"], rng.randrange(4))
            events.append(event(number, notices=len(hooks)))
            made = [run(number, rng.choice(list(RunState)), hook) for hook in hooks]
            runs.update((one.run_id, one) for one in made)
        for one in rng.sample(list(open_runs.values()), min(len(open_runs), rng.randrange(5))):
            changed = run(one.queued, rng.choice(list(RunState)), one.hook)
            runs[changed.run_id] = changed
        batch = Batch(events=tuple(events), runs=tuple(runs.values()))
        for _ in range(rng.choice((1, 1, 2))):
            history.commit(batch)
        for one in runs.values():
            open_runs.pop(one.run_id, None)
            if one.state in (RunState.PENDING, RunState.HELD):
                open_runs[one.run_id] = one


def test_the_ledger_balances_whatever_happens(open_store: Open) -> None:
    rng = random.Random(7)
    history = open_store(events_max=30, runs_over_max=12)
    for _ in range(20):
        churn(history, rng, 10)
        assert balanced(history)
    assert len(kept(history)) > 20


CHURN = """
import random, sys
from pathlib import Path
from tests.store.test_retention import SqliteHistory, churn
churn(SqliteHistory(Path(sys.argv[1]), events_max=20, runs_over_max=10), random.Random(int(sys.argv[2])), 60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["history-pruned", "history-wrote-unsent", "history-wrote-hook_runs"])
def test_the_ledger_balances_after_a_crash(path: Path, point: str) -> None:
    for seed in range(6):
        ended = subprocess.run(
            [sys.executable, "-c", CHURN, str(path), str(seed)],
            env={"PATH": "/usr/bin:/bin", "HBAGENT_FAILPOINT": f"{point}:{3 + 5 * seed}"},
            cwd=ROOT,
            check=False,
        )
        assert ended.returncode in (0, EXIT_STATUS)
        restore(path)
        history = SqliteHistory(path)
        assert balanced(history)
        history.close()
    assert ended.returncode == EXIT_STATUS
