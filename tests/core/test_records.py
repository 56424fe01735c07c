from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hbagent.core.messages import Evidence
from hbagent.core.records import Event, HookRun, Mark, NodeState, RunState
from hbagent.core.states import Cause, Health, Kind, Liveness

RECORDS: list[Any] = [
    Event(
        event_id="e1",
        sequence=7,
        kind=Kind.NODE_DEAD,
        at_wall_ns=1_700_000_000_000_000_000,
        node="dc1/rack1/node1",
        liveness_from=Liveness.SUSPECT,
        liveness_to=Liveness.DEAD,
        health_from=Health.OK,
        health_to=Health.OK,
        cause=Cause.SILENCE,
        evidence=Evidence(text="silent", incarnation=2**64 - 1),
    ),
    Event(event_id="e2", sequence=8, kind=Kind.LEADER_LOST, at_wall_ns=0, leader="dc1/rack1-leader1"),
    NodeState(node="dc1/rack1/node1", rack="dc1/rack1", liveness=Liveness.DEAD, incarnation=2**64 - 1),
    Mark(leader="dc1/rack1-leader1", epoch=2**64 - 1, number=3),
    HookRun(run_id="r1", event_id="e1", hook="page", state=RunState.DEAD, input=b"\x00\xff{}", error="exit 1"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_its_encoding(record: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


def test_a_record_of_an_older_program_gets_the_defaults() -> None:
    older = b'{"run_id":"r1","event_id":"e1","hook":"page"}'
    assert msgspec.json.decode(older, type=HookRun) == HookRun(run_id="r1", event_id="e1", hook="page")


def test_a_record_of_a_newer_program_is_read_without_what_is_new() -> None:
    newer = b'{"leader":"dc1/rack1-leader1","epoch":1,"number":2,"colour":"green"}'
    assert msgspec.json.decode(newer, type=Mark) == Mark(leader="dc1/rack1-leader1", epoch=1, number=2)
