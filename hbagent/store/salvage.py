"""How the sound rows of a damaged SQLite file get into a new one, wherever a crash stops it.

The new file is filled under another name and gets its final name `.salvaged` only when it is complete. From then on a
start finishes the exchange; before, it begins the salvage anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import failpoint
from .durable import sync_directory
from .quarantine import is_usable, set_aside
from .tables import TABLES, Table
from .versions import TABLES_OF, VERSION, Conversion

if TYPE_CHECKING:
    from .sqlite import SqliteDatabase

#: SQLite's words for what the file cannot be blamed for. Anything else at opening is damage.
NOT_DAMAGE = (
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
    "interrupted",
    "out of memory",
)
#: What SQLite raises. Its message may quote a damaged schema, which Python then fails to decode.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
#: Rows that are written in one go.
_MOVED_ROWS = 500


class Salvage:
    """The exchange of the file at `path`; `companions` are the endings of the files that belong to it."""

    def __init__(self, path: Path, companions: tuple[str, ...]) -> None:
        self._path = path
        self._companions = companions
        self._draft = path.with_name(path.name + ".draft")
        self._salvaged = path.with_name(path.name + ".salvaged")

    def draft(self) -> Path:
        """Where to write the new file: nothing is there any more."""
        for suffix in ("", *self._companions):
            leftover = self._draft.with_name(self._draft.name + suffix)
            if not is_usable(leftover):
                set_aside(leftover)
            elif os.path.lexists(leftover):
                os.unlink(leftover)
        return self._draft

    def exchange(self) -> str:
        """The draft is complete: put it in the place of the damaged file; returns the new name of that one."""
        os.rename(self._draft, self._salvaged)
        sync_directory(self._path.parent)
        failpoint.hit("history-salvage-ready")
        return self.finish()

    def finish(self) -> str:
        """Finish an exchange that a crash has stopped; returns the new name of the damaged file, "" when none was."""
        if not os.path.lexists(self._salvaged):
            return ""
        aside = set_aside(self._path, self._companions)
        failpoint.hit("history-salvage-cleared")
        os.rename(self._salvaged, self._path)
        sync_directory(self._path.parent)
        failpoint.hit("history-salvage-done")
        return aside.name

    @staticmethod
    def move_rows(source: sqlite3.Connection, target: SqliteDatabase) -> int:
        """Copy every sound row of `source`, whatever its version; returns how many rows `target` then has."""
        conversion = Conversion()
        for table in TABLES_OF[_version(source)]:
            rows = []
            for row in _rows_from_both_ends(source, table):
                if (made := conversion.row(table, row)) is not None:
                    rows.append(made)
                if len(rows) >= _MOVED_ROWS:
                    target.put(conversion.table(table), rows)
                    rows.clear()
            target.put(conversion.table(table), rows)
        return sum(int(target.rows(f"SELECT count(*) FROM {table.name}")[0][0]) for table in TABLES)


def _version(source: sqlite3.Connection) -> int:
    """The version of a file, by what its table of events has: its number may be what is damaged."""
    try:
        columns = [row[1] for row in source.execute("PRAGMA table_info(events)")]
    except SQLITE_ERRORS:
        return VERSION
    return 2 if columns and "event_id" not in columns else VERSION


def _rows_from_both_ends(source: sqlite3.Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """Rows read from both ends, since a damaged page ends a reading; some may come twice."""
    for direction in ("ASC", "DESC"):
        try:
            yield from source.execute(
                f"SELECT {table.columns_sql} FROM {table.name} NOT INDEXED"
                f" ORDER BY {next(iter(table.columns))} {direction}"
            )
            break
        except SQLITE_ERRORS as error:
            if str(error).startswith(NOT_DAMAGE):
                raise
