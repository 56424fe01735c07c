"""Records with a number, as the root would have them written, and batches of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from hbagent.core.messages import Evidence
from hbagent.core.records import (
    Batch,
    Conviction,
    Event,
    HookRun,
    Incident,
    Mark,
    Matcher,
    NodeState,
    Restored,
    RunState,
    Silence,
    Tally,
    Told,
    Trouble,
)
from hbagent.core.states import Axis, Cause, Health, IncidentState, Kind, Liveness, Reason
from hbagent.core.units import HOUR, SECOND
from hbagent.store.history import History
from hbagent.store.sqlite import SqliteHistory


def event(number: int, node: str = "dc1/rack1/node1", notices: int = 1, **fields: Any) -> Event:
    values = {
        "event_id": f"event-{number}",
        "sequence": number,
        "kind": Kind.NODE_DEAD,
        "at_wall_ns": number * SECOND,
        "node": node,
        "rack": "dc1/rack1",
        "liveness_from": Liveness.SUSPECT,
        "liveness_to": Liveness.DEAD,
        "cause": Cause.SILENCE,
        "evidence": Evidence(text="silent for 2.5s", incarnation=2**64 - 1, silent_ns=2_500_000_000),
        "incident": f"i{number}",
        "notices": notices,
    }
    return Event(**{**values, **fields})


def state(number: int) -> NodeState:
    return NodeState(
        node=f"dc1/rack1/node{number}",
        rack="dc1/rack1",
        liveness=Liveness.DEAD,
        cause=Cause.SILENCE,
        health=Health.OK,
        since_wall_ns=number * SECOND,
        incarnation=2**64 - number,
        sequence=number,
        open="node-dead",
    )


def mark(number: int) -> Mark:
    return Mark(leader="dc1/rack1-leader1", epoch=2**63 + 5, number=number)


def run(number: int, state: RunState = RunState.PENDING, hook: str = "page", **fields: Any) -> HookRun:
    values = {
        "run_id": f"event-{number}-{hook}",
        "event_id": f"event-{number}",
        "hook": hook,
        "node": "dc1/rack1/node1",
        "subject": "dc1/rack1/node1",
        "axis": Axis.LIVENESS,
        "kind": Kind.NODE_DEAD,
        "incident": f"i{number}",
        "at_wall_ns": number * SECOND,
        "state": state,
        "input": b'{"schema":1,"text":"\xc3\xbc\\n"}',
        "queued": number,
    }
    return HookRun(**{**values, **fields})


def unsent(number: int, state: RunState = RunState.SUPPRESSED, hook: str = "page", **fields: Any) -> HookRun:
    return run(number, state, hook, **{"reason": Reason.SILENCE, "ref": "s1", **fields})


def trouble(number: int, run_id: str = "") -> Trouble:
    return Trouble(
        subject=f"dc1/rack1/node{number}",
        axis=Axis.LIVENESS,
        rack="dc1/rack1",
        incident=f"i{number}",
        kind=Kind.NODE_DEAD,
        cause=Cause.SILENCE,
        event_id=f"event-{number}",
        told={"page": Told(sent=not run_id, run_id=run_id)},
    )


def incident(number: int, state: IncidentState = IncidentState.FIRING) -> Incident:
    return Incident(
        incident_id=f"i{number}",
        state=state,
        axis=Axis.LIVENESS,
        rack="dc1/rack1",
        kind=Kind.NODE_DEAD,
        opened_wall_ns=number * SECOND,
        count=1,
        members=("dc1/rack1/node1",),
    )


def silence(number: int, ends_wall_ns: int = 2**62, ended_by: str = "") -> Silence:
    return Silence(
        silence_id=f"s{number}",
        matcher=Matcher(node=("dc1/rack1/*",)),
        begins_wall_ns=HOUR,
        ends_wall_ns=ends_wall_ns,
        reason="new power supplies",
        author="uid 1000",
        ended_by=ended_by,
    )


def conviction(number: int) -> Conviction:
    return Conviction(
        event_id=f"event-{number}",
        node="dc1/rack1/node1",
        cause=Cause.PROCESS_EXIT,
        at_wall_ns=number * SECOND,
        detection_ns=3_000_000,
        incarnation=2**64 - number,
    )


def tally(number: int = 1, life: int = 2**32 - 1) -> Tally:
    return Tally(life=life, watched_ns=number * SECOND, told={"silence": number}, wrong={"silence": 1})


def batch(number: int) -> Batch:
    """One of everything, with two notifications: one that is owed and one that waits."""
    return Batch(
        events=(event(number, notices=2),),
        nodes=(state(number),),
        marks=(mark(number),),
        runs=(run(number), unsent(number, RunState.HELD, "mail")),
        convictions=(conviction(number),),
        tally=tally(number),
        troubles=(trouble(number),),
        incidents=(incident(number),),
        silences=(silence(number),),
    )


def restored_of(numbers: Iterable[int]) -> Restored:
    """What a start finds of the batches with these numbers."""
    numbers = list(numbers)
    return Restored(
        nodes=tuple(sorted(map(state, numbers), key=lambda one: one.node)),
        marks=(mark(numbers[-1]),),
        runs=tuple(made for n in numbers for made in (unsent(n, RunState.HELD, "mail"), run(n))),
        troubles=tuple(sorted(map(trouble, numbers), key=lambda one: one.subject)),
        incidents=tuple(map(incident, numbers)),
        silences=tuple(map(silence, numbers)),
        convictions=tuple(map(conviction, numbers)),
        tallies=(tally(numbers[-1]),),
        newest_sequence=numbers[-1],
    )


def fill(path: Path, numbers: Iterable[int]) -> None:
    """Write the batches with these numbers into the file."""
    history = SqliteHistory(path)
    history.restore()
    for number in numbers:
        history.commit(batch(number))
    history.close()


def restore(path: Path) -> Restored:
    """What a start finds in the file."""
    history = SqliteHistory(path)
    restored = history.restore()
    history.close()
    return restored


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def without_problems(restored: Restored) -> Restored:
    return msgspec.structs.replace(restored, problems=())


def balanced(history: History) -> bool:
    """True when every notification is accounted for; what is not stands in the failed assertion."""
    assert history.balance() == []
    return True


def sequences(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence"] for event in events]
