"""What a row is: key columns, the record as JSON, and a CRC-32 over both. The same in SQLite and in PostgreSQL.

A database notices a damaged page, but not a flipped bit inside a value, and a flipped bit must not become a node that
never was. So nothing comes back unless its checksum holds. The columns are there to find rows by; what they say is
said again inside of the record, and it is the record that is believed.

A notification is a row of `hook_runs` when it is owed or was told, and of `unsent` while it waits or when it is not
told at all: questions about the two are asked by different people.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from hbagent.core.records import (
    Conviction,
    Event,
    HookRun,
    Incident,
    Mark,
    NodeState,
    RunState,
    Silence,
    Tally,
    Trouble,
)
from hbagent.core.states import IncidentState


class Table(NamedTuple):
    """One kind of record on disk."""

    name: str
    #: Columns and their types, int or str; the first `key` of them tell rows apart.
    columns: dict[str, type]
    key: int
    #: The record's values for `columns`.
    values: Callable[[Any], tuple[Any, ...]]
    record: Any
    #: Columns that rows are found by, in order.
    indexes: tuple[tuple[str, ...], ...] = ()

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that tell rows apart."""
        return tuple(self.columns)[: self.key]

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Every column, in the order of a row."""
        return (*self.columns, "body", "crc")

    @property
    def columns_sql(self) -> str:
        """The same as SQL."""
        return ", ".join(self.all_columns)

    def ddl(self, types: dict[type, str], tail: str = "") -> tuple[str, ...]:
        """Statements that make the table, with the names of a database for int, str and bytes.

        `tail` ends the statement of a table whose key is no single number.
        """
        single = self.key_columns[0] if self.key == 1 else None
        parts = [
            f"{name} {types[kind]}" + (" PRIMARY KEY" if name == single else "") for name, kind in self.columns.items()
        ]
        parts += [f"body {types[bytes]}", f"crc {types[int]}"]
        if single is None:
            parts.append(f"PRIMARY KEY({', '.join(self.key_columns)})")
        by_number = single is not None and self.columns[single] is int
        statements = [f"CREATE TABLE {self.name}({', '.join(parts)}){'' if by_number else tail}"]
        for columns in self.indexes:
            statements.append(f"CREATE INDEX {self.name}_by_{columns[0]} ON {self.name}({', '.join(columns)})")
        return tuple(statements)


def number_of(name: str) -> int:
    """17 of "i17", the id of an incident or a silence; 0 of anything else."""
    return int(name[1:]) if name[1:].isdecimal() and len(name) < 19 else 0


def is_over(run: HookRun) -> bool:
    """True when nothing more will become of a notification, unless somebody asks for it."""
    return run.state in (RunState.DONE, RunState.DEAD, RunState.SUPPRESSED)


def is_unsent(run: HookRun) -> bool:
    """True for a notification that belongs into `unsent`."""
    return run.state in (RunState.HELD, RunState.SUPPRESSED)


EVENTS = Table(
    "events",
    {"sequence": int, "event_id": str, "node": str, "at": int},
    1,
    lambda event: (event.sequence, event.event_id, event.node, event.at_wall_ns),
    Event,
    (("node", "sequence"), ("event_id",)),
)
NODES = Table("nodes", {"node": str}, 1, lambda state: (state.node,), NodeState)
MARKS = Table("marks", {"leader": str, "slot": int}, 2, lambda mark: (mark.leader, mark.slot), Mark)
RUNS = Table(
    "hook_runs",
    {"run_id": str, "event_id": str, "state": str, "queued": int},
    1,
    lambda run: (run.run_id, run.event_id, run.state.value, run.queued),
    HookRun,
    (("state", "queued"), ("event_id", "state")),
)
UNSENT = Table(
    "unsent",
    {"run_id": str, "event_id": str, "state": str, "queued": int, "subject": str, "incident": str},
    1,
    lambda run: (run.run_id, run.event_id, run.state.value, run.queued, run.subject or run.node, run.incident),
    HookRun,
    (("state", "queued"), ("event_id", "state"), ("subject", "queued"), ("incident", "queued")),
)
#: Events once more, of the kind that has to be explained: the newest of each rack.
VERDICTS = Table(
    "verdicts",
    {"sequence": int, "rack": str, "node": str},
    1,
    lambda event: (event.sequence, event.rack, event.node),
    Event,
    (("rack", "sequence"), ("node", "sequence")),
)
CONVICTIONS = Table(
    "convictions",
    {"event_id": str, "at": int},
    1,
    lambda conviction: (conviction.event_id, conviction.at_wall_ns),
    Conviction,
)
TALLIES = Table("tallies", {"life": int}, 1, lambda tally: (tally.life,), Tally)
TROUBLES = Table(
    "troubles",
    {"subject": str, "axis": str},
    2,
    lambda trouble: (trouble.subject, trouble.axis.value),
    Trouble,
)
INCIDENTS = Table(
    "incidents",
    {"incident_id": str, "number": int, "resolved": int},
    1,
    lambda incident: (
        incident.incident_id,
        number_of(incident.incident_id),
        int(incident.state is IncidentState.RESOLVED),
    ),
    Incident,
    (("resolved", "number"), ("number",)),
)
#: `ends` is 0 for one that was ended before its time.
SILENCES = Table(
    "silences",
    {"silence_id": str, "number": int, "ends": int},
    1,
    lambda silence: (
        silence.silence_id,
        number_of(silence.silence_id),
        0 if silence.ended_by else silence.ends_wall_ns,
    ),
    Silence,
)
TABLES = (
    *(EVENTS, NODES, MARKS, RUNS, UNSENT, VERDICTS, CONVICTIONS, TALLIES),
    *(TROUBLES, INCIDENTS, SILENCES),
)
TABLE_OF_RUN = {True: UNSENT, False: RUNS}


def checksum(columns: tuple[Any, ...], body: bytes) -> int:
    """What the last column of a row with these columns holds."""
    return zlib.crc32(body, zlib.crc32(repr(columns).encode()))


def row_of(table: Table, record: Any) -> tuple[Any, ...]:
    """The row of a record."""
    columns = table.values(record)
    body = msgspec.json.encode(record)
    return (*columns, body, checksum(columns, body))


def is_sound(row: tuple[Any, ...]) -> bool:
    """True when a row is what was written."""
    *columns, body, crc = row
    return isinstance(body, bytes) and crc == checksum(tuple(columns), body)


def record_of(table: Table, row: tuple[Any, ...]) -> Any | None:
    """The record of a row; None when the row is damaged."""
    if not is_sound(row):
        return None
    try:
        return msgspec.json.decode(row[-2], type=table.record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
