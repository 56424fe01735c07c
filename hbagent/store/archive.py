"""The history for whoever only reads: beside a root that runs, or without one.

An archive takes no claim and changes nothing, so it may be opened by an operator while the root writes. It reads in
pages, each a short query of its own: a reader that takes an hour must not hold up the root's housekeeping for an hour.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hbagent.core.records import Event

from .history import Database, HistoryError
from .opening import StoreUnavailableError, file_of, is_server
from .quarantine import is_usable
from .sqlite import BUSY_S, SqliteDatabase, plain_text
from .tables import EVENTS, record_of
from .versions import APPLICATION_ID, VERSION

#: Events read by one query: 2 MB.
PAGE_ROWS = 1_000
#: No event is later than this.
_END_NS = 2**63 - 1


class Archive:
    """A store that is read. Use it in a `with`; `name` says to people where it is."""

    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self.database = database

    def events(self, since_wall_ns: int = 0, until_wall_ns: int = _END_NS) -> Iterator[Event]:
        """Events of a time, the end not included, in the order in which they were told. Damaged rows are left out.

        Raises HistoryError.
        """
        after = -1
        condition = "sequence > ? AND at >= ? AND at < ? ORDER BY sequence LIMIT ?"
        select = f"SELECT {EVENTS.columns_sql} FROM events WHERE {condition}"
        while True:
            with reported(self.name):
                rows = self.database.rows(select, (after, since_wall_ns, until_wall_ns, PAGE_ROWS))
            for row in rows:
                event = record_of(EVENTS, row)
                if event is not None:
                    yield event
            if len(rows) < PAGE_ROWS:
                return
            after = rows[-1][0]


@contextlib.contextmanager
def open_archive(store: str, state_dir: Path) -> Iterator[Archive]:
    """The store that a setting names, to be read. Raises HistoryError, StoreUnavailableError, ValueError."""
    if is_server(store):
        try:
            from .postgres import reading
        except ImportError as error:
            raise StoreUnavailableError("this store needs psycopg: install hbagent[postgres]") from error
        with reading(store) as (name, database):
            yield Archive(name, database)
        return
    path = file_of(store, state_dir)
    with reported(str(path)), contextlib.closing(open_file(path)) as connection:
        yield Archive(str(path), SqliteDatabase(connection))


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to a file of this version that cannot write. Raises HistoryError, sqlite3.Error, OSError."""
    # SQLite would not say why it cannot be opened.
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    if not is_usable(path):
        raise HistoryError(f"{path}: it is no regular file")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, isolation_level=None)
    connection.text_factory = plain_text
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise HistoryError(f"{path}: it is not a file of this program")
        if version != VERSION:
            raise HistoryError(f"{path}: it has version {version}, not {VERSION}; a root of this version brings it up")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def reported(name: str) -> Iterator[None]:
    """Turn what a file may do into HistoryError."""
    try:
        yield
    except BrokenPipeError:  # of whoever reads what is made of it
        raise
    except OSError as error:
        raise HistoryError(f"{name}: {error.strerror or error}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise HistoryError(f"{name}: {error}") from error
