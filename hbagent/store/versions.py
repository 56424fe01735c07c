"""What files of this and of older versions look like, and how an old one becomes a new one.

1: events, node states, marks, hook runs. 2: also verdicts that outlive the events, convictions and tallies. 3: events
are found by their id and have a time; notifications that are not sent, troubles, incidents and silences.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import msgspec

from hbagent.core.records import Event, HookRun

from .history import DamagedError, keep_verdicts
from .tables import (
    CONVICTIONS,
    EVENTS,
    INCIDENTS,
    MARKS,
    NODES,
    RUNS,
    SILENCES,
    TABLES,
    TALLIES,
    TROUBLES,
    UNSENT,
    VERDICTS,
    Table,
    record_of,
    row_of,
)

if TYPE_CHECKING:
    from .sqlite import SqliteDatabase

#: "HBAG": tells this program's files from any other SQLite file.
APPLICATION_ID = 0x48424147
VERSION = 3

#: Names of the types. The primary keys are the tables' own trees, so no second copy of a key can disagree.
_TYPES: dict[type, str] = {int: "INTEGER", str: "TEXT", bytes: "BLOB"}
_TAIL = " WITHOUT ROWID"

EVENTS_2 = Table(
    "events",
    {"sequence": int, "node": str},
    1,
    lambda event: (event.sequence, event.node),
    Event,
    (("node", "sequence"),),
)
RUNS_2 = Table(
    "hook_runs",
    {"run_id": str, "state": str, "queued": int},
    1,
    lambda run: (run.run_id, run.state.value, run.queued),
    HookRun,
    (("state", "queued"),),
)
_ADDED_IN_2 = (VERDICTS, CONVICTIONS, TALLIES)
_ADDED_IN_3 = (UNSENT, TROUBLES, INCIDENTS, SILENCES)
#: The runs come first: `Conversion` counts them.
_TABLES_1 = (RUNS_2, EVENTS_2, NODES, MARKS)
#: The tables of each version.
TABLES_OF: dict[int, tuple[Table, ...]] = {1: _TABLES_1, 2: (*_TABLES_1, *_ADDED_IN_2), VERSION: TABLES}
#: Rows that are copied in one go.
_COPIED_ROWS = 1_000


def statements(table: Table) -> tuple[str, ...]:
    """What makes a table."""
    return table.ddl(_TYPES, _TAIL)


SCHEMAS = {
    version: frozenset(statement for table in tables for statement in statements(table))
    for version, tables in TABLES_OF.items()
}


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of this version."""
    _make(connection, TABLES)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={VERSION}")


def bring_up(database: SqliteDatabase, version: int) -> None:
    """Make a sound file of an older version one of this version. Raises DamagedError for a row that is not sound.

    Verdicts of version 1 are found among its events. What was told by an older program counts as all that there was
    to tell, so the ledger of what it left balances.
    """
    connection = database.connection
    if version == 1:
        _make(connection, _ADDED_IN_2)
    for old in (EVENTS_2, RUNS_2):
        for columns in old.indexes:
            connection.execute(f"DROP INDEX {old.name}_by_{columns[0]}")
        connection.execute(f"ALTER TABLE {old.name} RENAME TO old_{old.name}")
    _make(connection, (EVENTS, RUNS, *_ADDED_IN_3))
    conversion = Conversion()
    for old in (RUNS_2, EVENTS_2):
        rows = connection.execute(f"SELECT {old.columns_sql} FROM old_{old.name}")
        while some := rows.fetchmany(_COPIED_ROWS):
            made = [conversion.row(old, row) for row in some]
            if None in made:
                raise DamagedError(f"{made.count(None)} rows of {old.name} do not match their checksum")
            database.put(conversion.table(old), [row for row in made if row is not None])
            if version == 1 and old is EVENTS_2:
                keep_verdicts(database, [event for row in some if (event := record_of(old, row)) is not None])
    for old in (EVENTS_2, RUNS_2):
        connection.execute(f"DROP TABLE old_{old.name}")
    connection.execute(f"PRAGMA user_version={VERSION}")


class Conversion:
    """Turns the rows of a file of any version into rows of this one; the old runs before the old events."""

    def __init__(self) -> None:
        #: Ids of runs, by event.
        self._runs: dict[str, dict[str, None]] = {}

    @staticmethod
    def table(old: Table) -> Table:
        """Where the rows of a table belong."""
        return {id(EVENTS_2): EVENTS, id(RUNS_2): RUNS}.get(id(old), old)

    def row(self, old: Table, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A row of the table `old` as a row of `table(old)`; None when it is damaged."""
        record = record_of(old, row)
        if record is None or old is self.table(old):
            return None if record is None else row
        if old is RUNS_2:
            self._runs.setdefault(record.event_id, {})[record.run_id] = None
            return row_of(RUNS, record)
        return row_of(EVENTS, msgspec.structs.replace(record, notices=len(self._runs.get(record.event_id, ()))))


def _make(connection: sqlite3.Connection, tables: tuple[Table, ...]) -> None:
    for table in tables:
        for statement in statements(table):
            connection.execute(statement)
