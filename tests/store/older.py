"""Files as programs of older versions left them: their statements and their rows, written down once for all."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tests.store.samples import conviction, event, mark, run, state, tally

STATEMENTS_1 = (
    "CREATE TABLE events(sequence INTEGER PRIMARY KEY, node TEXT, body BLOB, crc INTEGER)",
    "CREATE INDEX events_by_node ON events(node, sequence)",
    "CREATE TABLE nodes(node TEXT PRIMARY KEY, body BLOB, crc INTEGER) WITHOUT ROWID",
    "CREATE TABLE marks(leader TEXT, slot INTEGER, body BLOB, crc INTEGER, PRIMARY KEY(leader, slot)) WITHOUT ROWID",
    "CREATE TABLE hook_runs(run_id TEXT PRIMARY KEY, state TEXT, queued INTEGER, body BLOB, crc INTEGER) WITHOUT ROWID",
    "CREATE INDEX hook_runs_by_state ON hook_runs(state, queued)",
)
STATEMENTS_2 = (
    "CREATE TABLE verdicts(sequence INTEGER PRIMARY KEY, rack TEXT, node TEXT, body BLOB, crc INTEGER)",
    "CREATE INDEX verdicts_by_rack ON verdicts(rack, sequence)",
    "CREATE INDEX verdicts_by_node ON verdicts(node, sequence)",
    "CREATE TABLE convictions(event_id TEXT PRIMARY KEY, at INTEGER, body BLOB, crc INTEGER) WITHOUT ROWID",
    "CREATE TABLE tallies(life INTEGER PRIMARY KEY, body BLOB, crc INTEGER)",
)
#: What older programs knew of an event and a hook run.
_EVENT = ("event_id", "sequence", "kind", "at_wall_ns", "node", "rack", "leader", "liveness_from", "liveness_to")
_EVENT_TOO = ("health_from", "health_to", "cause", "host", "evidence", "late", "withheld")
_RUN = ("run_id", "event_id", "hook", "node", "attempt", "state", "due_wall_ns", "input", "error", "queued")


def write(path: Path, version: int, numbers: Iterable[int]) -> None:
    """Leave a file of version 1 or 2 with the event, node, mark, run... of each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    for statement in (*STATEMENTS_1, *(STATEMENTS_2 if version == 2 else ())):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={0x48424147}")
    connection.execute(f"PRAGMA user_version={version}")
    for number in numbers:
        _put(connection, "events", (number, "dc1/rack1/node1"), _fields(event(number), (*_EVENT, *_EVENT_TOO)))
        _put(connection, "nodes", (state(number).node,), msgspec.to_builtins(state(number)))
        _put(connection, "marks", (mark(number).leader, 0), msgspec.to_builtins(mark(number)))
        _put(connection, "hook_runs", (run(number).run_id, "pending", number), _fields(run(number), _RUN))
        if version == 2:
            at = conviction(number).at_wall_ns
            told = _fields(event(number), (*_EVENT, *_EVENT_TOO))
            _put(connection, "verdicts", (number, "dc1/rack1", "dc1/rack1/node1"), told)
            _put(connection, "convictions", (f"event-{number}", at), msgspec.to_builtins(conviction(number)))
            _put(connection, "tallies", (tally().life,), msgspec.to_builtins(tally(number)))
    connection.close()


def _fields(record: Any, names: tuple[str, ...]) -> dict[str, Any]:
    plain = msgspec.to_builtins(record)
    return {name: plain[name] for name in names}


def _put(connection: sqlite3.Connection, table: str, columns: tuple[Any, ...], plain: dict[str, Any]) -> None:
    body = msgspec.json.encode(plain)
    crc = zlib.crc32(body, zlib.crc32(repr(columns).encode()))
    marks = ", ".join("?" * (len(columns) + 2))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*columns, body, crc))
