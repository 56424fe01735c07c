"""Disks: what was synced stays, what was not may go, and nothing else happens."""

from __future__ import annotations

import random

from hbagent.core.records import Batch, Event, HookRun, Mark, RunState
from hbagent.core.states import Kind
from hbagent.sim.disk import Journal, Store


def entry(number: int) -> dict[str, int]:
    return {"n": number}


def test_entries_are_on_the_journal_once_they_are_synced() -> None:
    journal = Journal()
    assert journal.write(1, (False, (entry(1),)), 0, random.Random(1)) > 0
    assert journal.load() == []
    assert journal.sync(1) is not None
    assert journal.load() == [entry(1)]
    journal.write(2, (True, (entry(2), entry(3))), 0, random.Random(1))
    journal.sync(2)
    assert journal.load() == [entry(2), entry(3)]


def test_writes_are_synced_in_the_order_in_which_they_were_made() -> None:
    journal = Journal()
    rng = random.Random(1)
    times = [journal.write(token, (False, (entry(token),)), 0, rng) for token in range(20)]
    assert times == sorted(times)


def test_a_crash_leaves_a_beginning_of_what_was_being_written_and_nothing_else() -> None:
    kept = {0: 0}
    for seed in range(200):
        journal = Journal()
        for token in range(4):
            journal.write(token, (False, (entry(2 * token), entry(2 * token + 1))), 0, random.Random(seed))
        journal.crash(random.Random(seed))
        entries = journal.load()
        assert entries == [entry(number) for number in range(len(entries))]
        assert journal.sync(0) is None
        kept[len(entries)] = kept.get(len(entries), 0) + 1
    assert sorted(kept) == list(range(9)), "every length was seen"


def test_a_crash_leaves_a_whole_rewrite_or_none() -> None:
    for seed in range(50):
        journal = Journal()
        journal.write(1, (False, (entry(1),)), 0, random.Random(seed))
        journal.sync(1)
        journal.write(2, (True, (entry(2), entry(3))), 0, random.Random(seed))
        journal.crash(random.Random(seed))
        assert journal.load() in ([entry(1)], [entry(2), entry(3)])


def test_a_write_that_failed_is_not_on_the_disk() -> None:
    journal = Journal()
    journal.write(1, (False, (entry(1),)), 0, random.Random(1))
    assert journal.discard(1, 5)
    assert journal.sync(1) is None and journal.load() == [] and journal.failed_at == 5


def test_a_store_hands_back_what_a_history_would() -> None:
    store = Store()
    done = HookRun(run_id="1-pager", event_id="1", hook="pager", state=RunState.DONE, queued=1)
    owed = [HookRun(run_id=f"{n}-pager", event_id=str(n), hook="pager", queued=n) for n in (3, 2)]
    event = Event(event_id="e-7", sequence=7, kind=Kind.NODE_DEAD, at_wall_ns=0)
    marks = tuple(Mark(leader="l", epoch=epoch, number=5, life=life) for life, epoch in enumerate((91, 17)))
    store.write(1, Batch(events=(event,), marks=marks, runs=(done, *owed)), 0, random.Random(1))
    store.sync(1)
    restored = store.load()
    assert restored.newest_sequence == 7
    assert [run.run_id for run in restored.runs] == ["2-pager", "3-pager"]
    assert [mark.epoch for mark in restored.marks] == [91, 17]
