"""What every store promises: what was written is there, nothing else ever appears, and the ledger balances."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest

from hbagent.core.records import MARKS_MAX, Batch, Event, Mark, Restored, RunState, Told
from hbagent.core.states import Axis, IncidentState, Liveness
from hbagent.core.units import SECOND
from hbagent.store.history import EVENTS_READ_MAX, VERDICTS_PER_RACK_MAX, HistoryError
from tests.store.conftest import Open
from tests.store.holding import held_up
from tests.store.samples import (
    balanced,
    batch,
    conviction,
    event,
    incident,
    mark,
    restored_of,
    run,
    sequences,
    silence,
    state,
    tally,
    trouble,
    unsent,
)

# ---- what is kept ----------------------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was_written(open_store: Open) -> None:
    history = open_store()
    assert history.restore() == Restored()
    for number in (1, 2, 3):
        history.commit(batch(number))
    assert balanced(history)
    assert open_store().restore() == restored_of([1, 2, 3])


def test_each_of_the_newest_lives_of_a_leader_keeps_its_mark(open_store: Open) -> None:
    history = open_store()
    marks = [Mark(leader="dc1/rack1-leader1", epoch=2**63 - life, number=7, life=life) for life in range(MARKS_MAX + 2)]
    for one in marks:
        history.commit(Batch(marks=(one,)))
    newest = msgspec.structs.replace(marks[-1], number=8)
    other = Mark(leader="dc1/rack1-leader2", epoch=5, number=1)
    history.commit(Batch(marks=(newest, other)))
    assert open_store().restore().marks == (*marks[2:-1], newest, other)


def test_the_newest_state_of_a_node_leader_or_run_replaces_the_older(open_store: Open) -> None:
    history = open_store()
    history.commit(batch(1))
    left = msgspec.structs.replace(state(1), liveness=Liveness.LEFT)
    again = run(1, attempt=3, error="exit 1")
    history.commit(Batch(nodes=(left,), marks=(mark(7),), runs=(again,)))
    restored = open_store().restore()
    assert (restored.nodes, restored.marks) == ((left,), (mark(7),))
    assert restored.runs == (unsent(1, RunState.HELD, "mail"), again)


def test_a_forgotten_node_is_gone_and_its_events_stay(open_store: Open) -> None:
    history = open_store()
    history.commit(batch(1))
    history.commit(Batch(forgotten=(state(1).node, "dc1/rack1/nobody")))
    assert sequences(history.events(10)) == [1]
    assert open_store().restore().nodes == ()


def test_runs_that_are_over_are_not_owed_any_more(open_store: Open) -> None:
    runs = (run(3), run(1), run(2, RunState.DONE), run(4, RunState.DEAD), unsent(5))
    open_store().commit(Batch(runs=runs))
    assert open_store().restore().runs == (run(1), run(3))


def test_a_run_that_a_trouble_names_comes_back_whatever_it_is(open_store: Open) -> None:
    runs = (unsent(1), unsent(2), run(3, RunState.DEAD), unsent(4))
    troubles = (trouble(1, "event-1-page"), trouble(3, "event-3-page"), trouble(4, "event-9-page"))
    open_store().commit(Batch(runs=runs, troubles=troubles))
    assert open_store().restore().runs == (unsent(1), run(3, RunState.DEAD))


def test_a_letter_that_was_given_up_comes_back_while_what_it_tells_of_burns(open_store: Open) -> None:
    letters = [run(number, RunState.DEAD, subject=f"dc1/rack1/node{number}") for number in (1, 2)]
    summary = run(7, RunState.DEAD, subject="dc1/rack1", axis=None)
    told = {"page": Told(sent=True, via=summary.event_id)}
    troubles = (trouble(1), msgspec.structs.replace(trouble(3), told=told))
    over = msgspec.structs.replace(trouble(2), over=True)
    open_store().commit(Batch(runs=(*letters, summary, run(8, RunState.DEAD, subject="dc1/rack2")), troubles=troubles))
    assert open_store().restore().runs == (letters[0], summary)
    open_store().commit(Batch(troubles=(over,)))
    assert open_store().restore().runs == (letters[0], summary)


def test_a_trouble_that_is_over_is_gone(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(troubles=(trouble(1), trouble(2))))
    history.commit(Batch(ended=((trouble(1).subject, Axis.LIVENESS), (trouble(2).subject, Axis.HEALTH))))
    assert open_store().restore().troubles == (trouble(2),)


def test_incidents_that_are_not_resolved_come_back_in_their_order(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(incidents=tuple(incident(number) for number in (10, 9, 2, 100))))
    history.commit(Batch(incidents=(incident(9, IncidentState.RESOLVED), incident(10, IncidentState.ACKNOWLEDGED))))
    restored = open_store().restore().incidents
    assert [one.incident_id for one in restored] == ["i2", "i10", "i100"]


def test_silences_come_back_in_their_order(open_store: Open) -> None:
    open_store().commit(Batch(silences=tuple(silence(number) for number in (10, 9, 2))))
    assert [one.silence_id for one in open_store().restore().silences] == ["s2", "s9", "s10"]


def test_writing_a_batch_again_changes_nothing(open_store: Open) -> None:
    history = open_store()
    history.commit(batch(1))
    history.commit(batch(1))
    assert len(history.events(10)) == 1
    assert balanced(history)
    assert open_store().restore() == restored_of([1])


def test_a_batch_is_written_wholly_or_not_at_all(open_store: Open) -> None:
    history = open_store()
    with pytest.raises((OverflowError, HistoryError)):
        history.commit(Batch(events=(event(1),), nodes=(state(1),), runs=(run(1, queued=2**70),)))
    history.commit(Batch(marks=(mark(1),)))
    assert open_store().restore() == Restored(marks=(mark(1),))


# ---- the ledger of notifications -------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [RunState.HELD, RunState.PENDING])
def test_a_notification_is_in_one_place_whatever_becomes_of_it(open_store: Open, begun: RunState) -> None:
    history = open_store()
    history.commit(Batch(events=(event(1),), runs=(run(1, begun),)))
    for into in (
        RunState.SUPPRESSED,
        RunState.PENDING,
        RunState.HELD,
        RunState.DONE,
        RunState.SUPPRESSED,
        RunState.DEAD,
    ):
        history.commit(Batch(runs=(run(1, into),)))
        assert balanced(history)
        assert [found["state"] for found in history.runs_of("event-1")] == [into.value]


def test_a_notification_too_many_or_too_few_is_found(open_store: Open) -> None:
    history = open_store()
    events = (event(1, notices=1), event(2, notices=2), event(3, notices=0), event(4, notices=0))
    history.commit(Batch(events=events, runs=(unsent(1), unsent(2), run(3))))
    assert history.balance() == [
        "event-2 (node-dead) has 2 notices and 1 rows",
        "event-3 (node-dead) has 0 notices and 1 rows",
    ]


def test_the_words_of_what_was_told_are_not_kept(open_store: Open) -> None:
    history = open_store()
    told, waits = run(1, RunState.DONE), unsent(2)
    troubles = (trouble(1, told.run_id), trouble(2, waits.run_id))
    history.commit(Batch(runs=(told, waits), troubles=troubles))
    assert open_store().restore().runs == (msgspec.structs.replace(told, input=b""), waits)


def test_what_was_not_sent_is_told_with_its_reason_newest_first(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(events=(event(1), event(2), event(3))))
    held = unsent(2, RunState.HELD, subject="dc1/rack1/node2", incident="i1")
    history.commit(Batch(runs=(unsent(1), held, unsent(3), run(4))))
    everything = history.unsent()
    assert [row["event_id"] for row in everything] == ["event-3", "event-2", "event-1"]
    assert everything[0] == {
        "run_id": "event-3-page",
        "event_id": "event-3",
        "kind": "node-dead",
        "cause": None,
        "at_wall_ns": 3_000_000_000,
        "subject": "dc1/rack1/node1",
        "axis": "liveness",
        "incident": "i3",
        "receiver": "page",
        "state": "suppressed",
        "reason": "silence",
        "ref": "s1",
        "due_wall_ns": 0,
        "attempt": 0,
        "error": "",
        "text": "silent for 2.5s",
    }
    assert [row["event_id"] for row in history.unsent(node="dc1/rack1/node1")] == ["event-3", "event-1"]
    assert [row["event_id"] for row in history.unsent(incident="i1")] == ["event-2", "event-1"]
    assert [row["state"] for row in history.unsent(node="dc1/rack1/node2")] == ["held"]
    assert len(history.unsent(limit=1)) == 1
    assert history.unsent(node="dc1/rack1/node") == history.unsent(incident="i") == history.unsent(limit=0) == []


def test_dead_letters_are_told_and_given_back(open_store: Open) -> None:
    history = open_store()
    dead = [run(number, RunState.DEAD, error="exit 1", attempt=5) for number in (1, 2, 3)]
    history.commit(Batch(events=(event(2),), runs=(*dead, run(4), run(5, RunState.DONE))))
    letters = history.dead_letters(2)
    assert [(row["event_id"], row["error"], row["attempt"]) for row in letters] == [
        ("event-3", "exit 1", 5),
        ("event-2", "exit 1", 5),
    ]
    assert letters[1]["text"] == "silent for 2.5s"
    assert history.given_up() == tuple(dead)
    assert history.given_up(limit=1) == (dead[0],)
    assert history.given_up("event-2-page") == (dead[1],)
    assert history.given_up("event-4-page") == history.given_up("event-2") == ()


def test_dead_letters_about_what_has_passed_cost_a_start_no_memory(open_store: Open) -> None:
    history = open_store()
    document = b"x" * 2_500
    passed = [run(number, RunState.DEAD, subject="dc1/rack1/well", input=document) for number in range(2, 6_002)]
    burning = run(1, RunState.DEAD)
    history.commit(Batch(runs=(burning, *passed), troubles=(trouble(1),)))
    history = open_store()
    tracemalloc.start()
    try:
        restored = history.restore()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert restored.runs == (burning,)
    assert peak < len(passed) * len(document) * 3 / 4, "they never stand in memory all at once"


def test_incidents_are_read_newest_first_also_when_they_are_over(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(incidents=(incident(2), incident(10, IncidentState.RESOLVED), incident(3))))
    assert [row["incident_id"] for row in history.incidents()] == ["i10", "i3", "i2"]
    assert history.incidents(1) == [msgspec.to_builtins(incident(10, IncidentState.RESOLVED))]


# ---- reading ---------------------------------------------------------------------------------------------------


def test_events_are_read_newest_first_and_filtered(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(events=tuple(event(number, f"dc1/rack1/node{number % 2}") for number in range(1, 9))))
    assert sequences(history.events(3)) == [8, 7, 6]
    assert sequences(history.events(10, after=5)) == [8, 7, 6]
    assert sequences(history.events(10, node="dc1/rack1/node1")) == [7, 5, 3, 1]
    assert sequences(history.events(2, after=1, node="dc1/rack1/node1")) == [7, 5]
    assert history.events(10, node="dc1/rack1/node") == []
    assert history.events(0) == history.events(-1) == []


def test_events_are_read_in_pages_oldest_first(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(events=tuple(event(number) for number in (1, 2, 5, 9))))
    assert [one.sequence for one in history.page(0, 3)] == [1, 2, 5]
    assert history.page(5, 3) == [event(9)]
    assert history.page(9, 3) == history.page(0, 0) == []


def test_the_notifications_of_one_event_are_read(open_store: Open) -> None:
    runs = [
        run(1, RunState.DONE),
        run(1, RunState.DEAD, "ticket"),
        unsent(1, hook="mail"),
        run(10),
    ]
    history = open_store()
    history.commit(Batch(runs=tuple(runs)))
    assert [(row["hook"], row["state"], row["reason"]) for row in history.runs_of("event-1")] == [
        ("mail", "suppressed", "silence"),
        ("page", "done", None),
        ("ticket", "dead", None),
    ]
    assert history.runs_of("event") == history.runs_of("") == history.runs_of("event-1'--") == []
    assert "input" not in history.runs_of("event-10")[0]


def test_an_event_is_read_as_plain_values(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(events=(event(1),)))
    found = history.events(1)[0]
    assert found == msgspec.to_builtins(event(1))
    assert (found["kind"], found["liveness_to"], found["cause"]) == ("node-dead", "DEAD", "silence")
    assert msgspec.convert(found, Event) == event(1)


@pytest.mark.slow
def test_no_reading_is_unbounded(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(events=tuple(event(number, evidence=None) for number in range(1, EVENTS_READ_MAX + 11))))
    assert len(history.events(10**9)) == len(history.page(0, 10**9)) == EVENTS_READ_MAX


# ---- a reader beside it ----------------------------------------------------------------------------------------


def test_a_reader_finds_what_is_committed_while_the_next_commit_is_under_way(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = open_store()
    history.commit(batch(1))
    reader = history.reader()
    # More than a database keeps in memory.
    storm = Batch(events=tuple(event(number) for number in range(2, 3_000)), marks=(mark(2),))
    with held_up(history, storm, monkeypatch) as commit:
        for _ in range(2):
            with reader.moment():
                assert sequences(reader.events(10)) == [1]
                assert [row["run_id"] for row in reader.runs_of("event-1")] == ["event-1-mail", "event-1-page"]
        assert commit.is_alive()
    with reader.moment():
        assert sequences(reader.events(2)) == [2_999, 2_998], "what is committed is found at once"


def test_a_reader_answers_as_of_one_moment(open_store: Open) -> None:
    history = open_store()
    history.commit(batch(1))
    reader = history.reader()
    with reader.moment():
        assert sequences(reader.events(10)) == [1]
        # The notification that waits moves to another table.
        history.commit(Batch(events=(event(2, notices=0),), runs=(run(1, hook="mail", state=RunState.DONE),)))
        assert sequences(reader.events(10)) == [1]
        assert [row["state"] for row in reader.runs_of("event-1")] == ["held", "pending"]
    with reader.moment():
        assert sequences(reader.events(10)) == [2, 1]
        assert [row["state"] for row in reader.runs_of("event-1")] == ["done", "pending"]


def test_a_reader_reads_only_while_the_history_is_open(open_store: Open) -> None:
    history = open_store()
    reader = history.reader()
    for _ in range(2):
        history.close()
        with pytest.raises(HistoryError, match="it is not open"), reader.moment():
            pass
        history.commit(batch(1))
        with reader.moment():
            assert sequences(reader.events(10)) == [1]


def test_a_reader_cannot_write(open_store: Open) -> None:
    history = open_store()
    history.commit(batch(1))
    reader = history.reader()
    with pytest.raises(HistoryError, match=r"read-?only"), reader.moment(), reader._database() as database:
        database.run("DELETE FROM events WHERE sequence = ?", (1,))
    with reader.moment():
        assert sequences(reader.events(10)) == [1], "and goes on"


# ---- verdicts --------------------------------------------------------------------------------------------------


def verdict(number: int, rack: int, liveness: Liveness = Liveness.DEAD, **fields: bool) -> Event:
    name = f"dc1/rack{rack}"
    return event(number, f"{name}/node1", notices=0, rack=name, liveness_to=liveness, **fields)


def test_the_newest_verdicts_of_a_quiet_rack_outlive_the_events_of_a_noisy_one(open_store: Open) -> None:
    history = open_store(events_max=50)
    history.commit(Batch(events=(verdict(1, 1, Liveness.SUSPECT), verdict(2, 1), verdict(3, 1, Liveness.ALIVE))))
    for number in range(4, 400, 4):
        history.commit(Batch(events=tuple(verdict(each, 2) for each in range(number, number + 4))))
    assert sequences(history.events(1000, node="dc1/rack1/node1")) == [2, 1], "what is no verdict is gone"
    noisy = sequences(history.events(1000, node="dc1/rack2/node1"))
    assert noisy == list(range(399, 399 - VERDICTS_PER_RACK_MAX, -1))
    assert sequences(history.events(1, node="dc1/rack1/node1")) == [2]
    assert sequences(history.events(1000, after=1, node="dc1/rack1/node1")) == [2]


def test_a_verdict_that_is_told_late_takes_the_place_of_none(open_store: Open) -> None:
    history = open_store(events_max=1)
    history.commit(Batch(events=(verdict(1, 1), verdict(2, 1, late=True))))
    history.commit(Batch(events=(verdict(3, 1), verdict(4, 2))))
    assert sequences(history.events(10, node="dc1/rack1/node1")) == [3, 1]


# ---- the book of accuracy --------------------------------------------------------------------------------------


def test_a_conviction_that_is_folded_is_in_the_tally_alone(open_store: Open) -> None:
    history = open_store()
    history.commit(batch(1))
    history.commit(batch(2))
    wrong = msgspec.structs.replace(conviction(2), back_after_ns=SECOND, reason="its loop stood still")
    history.commit(Batch(convictions=(wrong,), folded=("event-1",), tally=tally(9)))
    restored = open_store().restore()
    assert (restored.convictions, restored.tallies) == ((wrong,), (tally(9),))


def test_a_life_that_took_over_a_tally_replaces_it_and_one_that_could_not_read_it_does_not(open_store: Open) -> None:
    history = open_store()
    history.commit(Batch(tally=tally(5, life=1)))
    history.commit(Batch(tally=tally(2, life=2)))
    history = open_store()
    assert history.restore().tallies == (tally(5, life=1), tally(2, life=2))
    heir = msgspec.structs.replace(tally(8, life=3), replaces=(1, 2, 3))
    history.commit(Batch(tally=heir))
    history.commit(Batch(tally=heir))
    assert open_store().restore().tallies == (heir,)
