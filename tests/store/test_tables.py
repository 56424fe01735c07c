"""A row that is not what was written is nothing at all."""

from __future__ import annotations

from typing import Any

import pytest

from hbagent.core.records import RunState
from hbagent.store import tables
from hbagent.store.tables import TABLES, Table, is_over, is_unsent, number_of, record_of, row_of
from tests.store.samples import conviction, event, incident, mark, run, silence, state, tally, trouble, unsent

SAMPLES: dict[str, Any] = {
    "events": event(1),
    "nodes": state(1),
    "marks": mark(1),
    "hook_runs": run(1),
    "unsent": unsent(1),
    "verdicts": event(1),
    "convictions": conviction(1),
    "tallies": tally(),
    "troubles": trouble(1),
    "incidents": incident(1),
    "silences": silence(1),
}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(table.name))
def test_a_record_comes_back_from_its_row_and_no_other(table: Table) -> None:
    record = SAMPLES[table.name]
    row = row_of(table, record)
    assert len(row) == len(table.all_columns)
    assert record_of(table, row) == record
    for at, value in enumerate(row):
        changed = value + 1 if isinstance(value, int) else value + (b" " if isinstance(value, bytes) else " ")
        assert record_of(table, (*row[:at], changed, *row[at + 1 :])) is None, table.all_columns[at]
        assert record_of(table, (*row[:at], None, *row[at + 1 :])) is None


def test_a_sound_row_of_another_kind_is_no_record() -> None:
    body = b'{"event_id":17}'
    row = (1, "event-1", "", 0, body, tables.checksum((1, "event-1", "", 0), body))
    assert tables.is_sound(row)
    assert record_of(tables.EVENTS, row) is None


def test_each_state_of_a_notification_has_one_place() -> None:
    assert [state for state in RunState if is_unsent(run(1, state))] == [RunState.HELD, RunState.SUPPRESSED]
    assert [state for state in RunState if not is_over(run(1, state))] == [RunState.HELD, RunState.PENDING]


@pytest.mark.parametrize(
    ("name", "number"), [("i17", 17), ("s1", 1), ("", 0), ("i", 0), ("i-3", 0), ("i" + "9" * 30, 0), ("event-7", 0)]
)
def test_the_number_of_an_id(name: str, number: int) -> None:
    assert number_of(name) == number
