"""A copy of a history file that is whole, taken while the root writes.

SQLite copies one moment of the file, the log included; a plain `cp` would not. The copy is written under another name,
synced, opened and looked through, every row of it, and only then gets its name: what has it is a good backup.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import msgspec

from . import failpoint
from .archive import open_file, reported
from .durable import sync_directory
from .history import DamagedError, HistoryError, unbalanced
from .sqlite import SqliteDatabase, examine
from .tables import TABLES, is_sound


class Backup(msgspec.Struct, frozen=True):
    """What was found in a copy."""

    #: Rows by table.
    rows: dict[str, int]
    #: The newest event's number and time.
    newest_sequence: int
    newest_wall_ns: int
    #: Sentences for people: what is not as it should be, and was not in the original either.
    problems: tuple[str, ...] = ()


def back_up(source: Path, target: Path) -> Backup:
    """Copy the history file `source` to `target`, where nothing may be yet. Raises HistoryError."""
    draft = target.with_name(target.name + ".draft")
    with reported(str(target)):
        if os.path.lexists(target):
            raise HistoryError(f"{target}: there is something already")
        # For its owner alone, as the original; the draft of a backup that was broken off is written over.
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        with (
            reported(f"{source} to {target}"),
            contextlib.closing(open_file(source)) as live,
            contextlib.closing(sqlite3.connect(draft)) as copy,
        ):
            # In one step: a copy in several begins anew whenever the root writes.
            live.backup(copy)
            # One file without a log.
            copy.execute("PRAGMA journal_mode=DELETE")
        failpoint.hit("backup-written")
        found = verify(draft)
        with reported(str(target)):
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            # Not a rename: that would write over what came there meanwhile.
            os.link(draft, target)
            sync_directory(target.parent)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)
    return found


def verify(path: Path) -> Backup:
    """Look through a history file that nobody writes. Raises HistoryError for one that a root would not take."""
    problems = []
    rows = {}
    with reported(str(path)), contextlib.closing(open_file(path)) as connection:
        try:
            examine(connection)
        except DamagedError as error:
            raise HistoryError(f"{path}: {error}") from error
        database = SqliteDatabase(connection)
        for table in TABLES:
            rows[table.name] = damaged = 0
            for row in database.each(f"SELECT {table.columns_sql} FROM {table.name}"):
                rows[table.name] += 1
                damaged += not is_sound(row)
            if damaged:
                problems.append(f"{damaged} rows of {table.name} do not match their checksum")
        problems += unbalanced(database)
        newest = database.rows("SELECT sequence, at FROM events ORDER BY sequence DESC LIMIT 1")
    sequence, at = newest[0] if newest else (0, 0)
    return Backup(rows, sequence, at, tuple(problems))
