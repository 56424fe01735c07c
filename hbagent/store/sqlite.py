"""The root's memory in an SQLite file: the store for whoever has not asked for another one.

The write-ahead log is synced at each commit (`synchronous=FULL`; with NORMAL a power loss may take back commits that
leaders were already told of). When anything in the file is damaged, the whole file is set aside and every sound row
of it is moved into a new one: one way for all kinds of damage, and the evidence is kept (`store.salvage`).

A file of an older version is brought up when it is opened (`store.versions`); one of a newer version is set aside.

Two connections of one process share their locks, which the kernel drops when any descriptor of the file is closed. So
a file is looked at by its descriptor only while neither the history nor its reader has it open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hbagent.core.records import Restored

from . import failpoint
from .claim import Claim, ClaimedError
from .durable import sync_directory
from .history import DamagedError, History, HistoryError, Reader
from .quarantine import is_usable, set_aside
from .retention import EVENTS_MAX, RUNS_OVER_MAX
from .salvage import NOT_DAMAGE, SQLITE_ERRORS, Salvage
from .tables import Table
from .versions import APPLICATION_ID, SCHEMAS, VERSION, bring_up, create

#: How long a lock of somebody else (an operator with the sqlite3 shell) is waited for.
BUSY_S = 2.0
#: The same for a reader, which has somebody else to ask.
READER_BUSY_S = 0.1
#: Of the file, what a reader keeps in memory. It is asked seldom.
READER_CACHE = 512 << 10
#: Files that SQLite keeps beside its own.
COMPANIONS = ("-wal", "-shm", "-journal")


class SqliteDatabase:
    """A connection to a file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row that a statement finds."""
        return self.connection.execute(statement, values).fetchall()

    def each(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same, without all of them in memory at once."""
        yield from self.connection.execute(statement, values)

    def run(self, statement: str, values: Sequence[Any]) -> None:
        """Run a statement that finds nothing."""
        self.connection.execute(statement, values)

    def remove(self, table: Table, columns: tuple[str, ...], values: Sequence[tuple[Any, ...]]) -> None:
        """Delete the rows that have one of `values` in these columns."""
        where = " AND ".join(f"{column} = ?" for column in columns)
        self.connection.executemany(f"DELETE FROM {table.name} WHERE {where}", values)

    def put(self, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows in place of those with the same key."""
        marks = ", ".join("?" * len(table.all_columns))
        self.connection.executemany(f"INSERT OR REPLACE INTO {table.name}({table.columns_sql}) VALUES ({marks})", rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done within, or, after an exception, none."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            # Taken back on the same connection: the next commit then writes the same pages of the log anew. A new
            # connection would read them back from the kernel's memory and believe in pages whose sync has failed.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise


class SqliteHistory(History):
    """The store at `path`. Nothing is touched before `restore`; the directory is made when it is missing.

    `retention_ns` is the age at which events go; 0 for none.
    """

    def __init__(
        self,
        path: Path,
        events_max: int = EVENTS_MAX,
        runs_over_max: int = RUNS_OVER_MAX,
        retention_ns: int = 0,
    ) -> None:
        super().__init__(events_max, runs_over_max, retention_ns)
        self.path = path
        self._claim = Claim(path)
        self._open_database: SqliteDatabase | None = None
        #: Other connections are kept out.
        self._alone = False
        self._salvage = Salvage(path, COMPANIONS)
        self._reader = SqliteReader(path)

    def restore(self) -> Restored:
        self._disconnect()
        self.problems = []
        with self._reported(), self._reader.away():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim.take()
            self._salvage.finish()
            self._clear_place()
            try:
                restored = self._start()
            except DamagedError as damage:
                self._disconnect()
                self.problems.append(self._repaired(damage))
                restored = self._start()
            if not self._alone:
                self._reader.let(_identity(self.path))
            return msgspec.structs.replace(restored, problems=tuple(self.problems))

    def close(self) -> None:
        # The last one to close puts the log away, so that is the one that may write.
        with contextlib.suppress(HistoryError), self._reader.away():
            pass
        self._disconnect()
        self._claim.release()

    def reader(self) -> SqliteReader:
        return self._reader

    @contextlib.contextmanager
    def _database(self) -> Iterator[SqliteDatabase]:
        if self._open_database is None:
            self.restore()
        with self._reported():
            assert self._open_database is not None
            yield self._open_database

    # ---- opening -----------------------------------------------------------------------------------------

    def _start(self) -> Restored:
        self._alone = False
        with judged():
            try:
                self._open_database = _open(self.path)
            except sqlite3.OperationalError as error:
                if "disk" not in str(error):
                    raise
                # A full disk has no room for the index of the log, which other programs would need to read along.
                self._open_database = _open(self.path, alone=True)
                self._alone = True
            return self._read(self._open_database)

    def _clear_place(self) -> None:
        for suffix in ("", *COMPANIONS):
            place = self.path.with_name(self.path.name + suffix)
            if not is_usable(place):
                aside = set_aside(place)
                self.problems.append(f"{place} was not a regular file; set aside as {aside.name}")

    def _repaired(self, damage: DamagedError) -> str:
        """Move what is sound into a new file; returns what was done, in a sentence."""
        draft = self._salvage.draft()
        failpoint.hit("history-salvage-begin")
        target = _open(draft)
        try:
            kept = 0
            if damage.readable:
                with contextlib.closing(connect(self.path)) as source, target.transaction():
                    kept = self._salvage.move_rows(source, target)
            failpoint.hit("history-salvage-filled")
            # One file without a log: a rename moves all of it. Closing would do the same, but say nothing if it failed.
            target.connection.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.connection.close()
        aside = self._salvage.exchange()
        return f"{self.path} was damaged: {damage}; {kept} rows kept, the old file set aside as {aside}"

    # ---- failures ----------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        if self._open_database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._open_database.connection.close()
            self._open_database = None

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror or error}") from error
        except ClaimedError as error:
            raise HistoryError(f"{self.path}: {error}") from error
        except DamagedError as error:
            raise HistoryError(f"{self.path}: {error}") from error
        except SQLITE_ERRORS as error:
            # The class itself is SQLite's word for a damaged file; a full disk or a lock is a subclass. That, or a
            # transaction that cannot be taken back, is left to the next call, which opens the file anew.
            damaged = type(error) in (sqlite3.DatabaseError, UnicodeDecodeError)
            if damaged or (self._open_database and self._open_database.connection.in_transaction):
                self._disconnect()
            raise HistoryError(f"{self.path}: {error}") from error


class SqliteReader(Reader):
    """A connection beside that of a `SqliteHistory`, to the very file that it has open.

    The history says when that may be read. It keeps the reader away while it opens or exchanges the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Held by whoever asks, and while the reader is kept away.
        self._turn = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._open_database: SqliteDatabase | None = None

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=READER_BUSY_S):
            raise HistoryError(f"{self.path}: it is being opened")
        try:
            database = self._opened()
            database.connection.execute("BEGIN")
            try:
                yield
            finally:
                database.connection.execute("ROLLBACK")
        except (*SQLITE_ERRORS, OSError) as error:
            self._disconnect()
            raise HistoryError(f"{self.path}: {error}") from error
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _database(self) -> Iterator[SqliteDatabase]:
        assert self._open_database is not None
        yield self._open_database

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """In another thread: nobody reads, and nobody will before `let`. Raises HistoryError when one does too long."""
        if not self._turn.acquire(timeout=BUSY_S):
            raise HistoryError(f"{self.path}: somebody is still reading it")
        try:
            self._file = None
            self._disconnect()
            yield
        finally:
            self._turn.release()

    def let(self, file: tuple[int, int]) -> None:
        """While it is kept away: it may read this file from now on."""
        self._file = file

    def _opened(self) -> SqliteDatabase:
        """The connection, which is made when there is none. Raises HistoryError, sqlite3.Error, OSError."""
        if self._file is None:
            raise HistoryError(f"{self.path}: it is not open to others")
        if self._open_database is None:
            connection = connect(self.path, reading=True)
            self._open_database = SqliteDatabase(connection)
            connection.execute("PRAGMA query_only=1")
            connection.execute(f"PRAGMA cache_size=-{READER_CACHE >> 10}")
            # An operator may have put another file there, which the history does not write.
            if _identity(self.path) != self._file:
                self._disconnect()
                raise HistoryError(f"{self.path}: it is another file than the one in use")
        return self._open_database

    def _disconnect(self) -> None:
        database, self._open_database = self._open_database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.connection.close()


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one of the same name. Raises OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def plain_text(text: bytes) -> str:
    """A text of the file: a flipped bit in it must not hide the sound rows behind it."""
    return text.decode(errors="replace")


def connect(path: Path, *, reading: bool = False) -> sqlite3.Connection:
    """A connection to whatever is at `path`; when it is for reading, it cannot write and gives up soon."""
    place = f"{path.absolute().as_uri()}?mode=ro" if reading else path
    busy_s = READER_BUSY_S if reading else BUSY_S
    # The owner is one thread at a time, not always the same one: a driver closes what its worker opened.
    connection = sqlite3.connect(place, uri=reading, timeout=busy_s, isolation_level=None, check_same_thread=False)
    connection.text_factory = plain_text
    return connection


@contextlib.contextmanager
def judged() -> Iterator[None]:
    """Turn what SQLite says of a damaged file into DamagedError."""
    try:
        yield
    except SQLITE_ERRORS as error:
        if str(error).startswith(NOT_DAMAGE):
            raise
        raise DamagedError(f"SQLite says: {error!s:.200}") from error


def _open(path: Path, *, alone: bool = False) -> SqliteDatabase:
    """A connection to the sound file at `path`, which is made when it is missing. Raises DamagedError.

    With `alone`, no other program can read the file meanwhile, and a full disk does not stop the reading.
    """
    # SQLite would make the file readable for everybody, and would name every failure alike.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        head = os.pread(fd, 20, 0)
    finally:
        os.close(fd)
    # Read and write version: with any other, SQLite reads the file but refuses the first write.
    if len(head) == 20 and head[18:] not in (b"\1\1", b"\2\2"):
        raise DamagedError("its header is not that of an SQLite file")
    connection = connect(path)
    try:
        if alone:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        examine(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # A log that once grew large does not keep its size for ever.
        connection.execute("PRAGMA journal_size_limit=4194304")
        database = SqliteDatabase(connection)
        if not connection.execute("PRAGMA application_id").fetchone()[0]:
            with database.transaction():
                create(connection)
            sync_directory(path.parent)
            failpoint.hit("history-created")
        elif (version := connection.execute("PRAGMA user_version").fetchone()[0]) < VERSION:
            with database.transaction():
                bring_up(database, version)
                failpoint.hit("history-upgrade-filled")
            failpoint.hit("history-upgrade-done")
    except BaseException:
        connection.close()
        raise
    return database


def examine(connection: sqlite3.Connection) -> int:
    """The version of a file; 0 of an empty one. Raises DamagedError unless it is whole and of a known version."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    schema = {row[0] for row in connection.execute("SELECT sql FROM sqlite_master")}
    if not application and not version and not schema:
        return 0
    if application != APPLICATION_ID:
        raise DamagedError("it is not a file of this program")
    if version not in SCHEMAS:
        raise DamagedError(f"it has version {version}, not {VERSION}", readable=False)
    if schema != SCHEMAS[version]:
        raise DamagedError("its tables are not those of this program")
    verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if verdict != "ok":
        raise DamagedError(f"SQLite finds: {verdict!r:.200}")
    return version
