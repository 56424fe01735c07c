"""What a life that began without its store writes replaces nothing that was there."""

from __future__ import annotations

from hbagent.core.records import Batch, Restored
from hbagent.role.numbering import Numbering
from tests.store.samples import event, incident, run, silence, trouble, unsent


def test_numbers_go_on_after_those_on_disk_wherever_one_names_another() -> None:
    numbering = Numbering(Restored(newest_sequence=1000, silences=(silence(7), silence(3))))
    batch = Batch(
        events=(event(2),),
        runs=(unsent(2), unsent(2, hook="mail", ref="i2"), run(2, ref="event-1")),
        troubles=(trouble(2),),
        incidents=(incident(2),),
        silences=(silence(1),),
    )
    written = numbering.batch(batch)
    assert [(one.sequence, one.event_id, one.incident) for one in written.events] == [(1002, "event-2", "i1002")]
    assert [(one.queued, one.incident, one.ref) for one in written.runs] == [
        (1002, "i1002", "s8"),
        (1002, "i1002", "i1002"),
        (1002, "i1002", "event-1"),
    ]
    assert [one.run_id for one in written.runs] == [one.run_id for one in batch.runs]
    assert [one.incident for one in written.troubles] == ["i1002"]
    assert [one.incident_id for one in written.incidents] == ["i1002"]
    assert [one.silence_id for one in written.silences] == ["s8"]


def test_a_life_that_could_read_its_store_changes_nothing() -> None:
    batch = Batch(events=(event(2),), runs=(run(2),))
    assert Numbering(Restored()).batch(batch) is batch
