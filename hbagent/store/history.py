"""The root's memory: an SQLite file with the events, and the state that must outlive the root's process.

What `commit` returned for survives kill -9 and power loss: the write-ahead log is synced at each commit
(`synchronous=FULL`; with NORMAL a power loss may take back commits that leaders were already told of).

A row is its key columns, the record as JSON, and a CRC-32 over both. SQLite notices a damaged page structure, but
not a flipped bit inside a value, and a flipped bit must not become a node that never was. So nothing comes back
unless its checksum holds. When anything is damaged, the whole file is set aside and every sound row of it is moved
into a new one: one way for all kinds of damage, and the evidence is kept.

One worker thread owns a `History`. Writing the same batch again is harmless, so after a `HistoryError` the owner just
tries again later. A damage found while running is healed by that next try.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hbagent.core.records import Batch, Conviction, Event, HookRun, Mark, NodeState, Restored, RunState, Tally
from hbagent.core.states import Liveness

from . import failpoint
from .claim import Claim, ClaimedError
from .durable import sync_directory
from .quarantine import is_usable, set_aside

#: "HBAG": tells this program's files from any other SQLite file.
APPLICATION_ID = 0x48424147
VERSION = 2

#: Events kept; the oldest go first. At about 700 bytes each this is 70 MB.
EVENTS_MAX = 100_000
#: Verdicts kept of each rack, whatever else becomes of the events: a rack that has long been quiet beside one that is
#: not can still be explained. At 3 kB each this is 30 MB for a hundred racks.
VERDICTS_PER_RACK_MAX = 100
#: Hook runs kept after they are over, of each of the two states: enough to answer "was I told?" for weeks.
RUNS_OVER_MAX = 10_000
#: Rows deleted at most in one commit, so that a lowered limit does not stop the worker for seconds.
PRUNE_MAX = 1_000
#: Events handed out at most by one call: about 7 MB of JSON.
EVENTS_READ_MAX = 10_000
#: How long a lock of somebody else (an operator with the sqlite3 shell) is waited for.
BUSY_S = 2.0

#: Files that SQLite keeps beside its own.
COMPANIONS = ("-wal", "-shm", "-journal")

#: SQLite's words for what the file cannot be blamed for. Anything else at opening is damage.
_NOT_DAMAGE = (
    "database is locked",
    "database table is locked",
    "database or disk is full",
    "disk I/O error",
    "unable to open database file",
    "interrupted",
    "out of memory",
)

#: What SQLite raises. Its message may quote a damaged schema, which Python then fails to decode.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)


class HistoryError(Exception):
    """The store could not be read or written; the message names the file and the reason."""


class _Damaged(Exception):
    """The file is not what was written."""

    def __init__(self, what: str, readable: bool = True) -> None:
        super().__init__(what)
        #: False when rows of it may mean something else than they seem to.
        self.readable = readable


class _Table(NamedTuple):
    name: str
    #: Key columns, in the order of `values`.
    columns: tuple[str, ...]
    #: The record's values for `columns`.
    values: Callable[[Any], tuple[Any, ...]]
    record: Any
    ddl: tuple[str, ...]

    @property
    def columns_sql(self) -> str:
        return ", ".join((*self.columns, "body", "crc"))


# The primary keys are the tables' own trees (rowid or WITHOUT ROWID), so no second copy of a key can disagree.
_EVENTS = _Table(
    "events",
    ("sequence", "node"),
    lambda event: (event.sequence, event.node),
    Event,
    (
        "CREATE TABLE events(sequence INTEGER PRIMARY KEY, node TEXT, body BLOB, crc INTEGER)",
        "CREATE INDEX events_by_node ON events(node, sequence)",
    ),
)
_NODES = _Table(
    "nodes",
    ("node",),
    lambda state: (state.node,),
    NodeState,
    ("CREATE TABLE nodes(node TEXT PRIMARY KEY, body BLOB, crc INTEGER) WITHOUT ROWID",),
)
_MARKS = _Table(
    "marks",
    ("leader", "slot"),
    lambda mark: (mark.leader, mark.slot),
    Mark,
    ("CREATE TABLE marks(leader TEXT, slot INTEGER, body BLOB, crc INTEGER, PRIMARY KEY(leader, slot)) WITHOUT ROWID",),
)
_RUNS = _Table(
    "hook_runs",
    ("run_id", "state", "queued"),
    lambda run: (run.run_id, run.state.value, run.queued),
    HookRun,
    (
        "CREATE TABLE hook_runs(run_id TEXT PRIMARY KEY, state TEXT, queued INTEGER, body BLOB, crc INTEGER)"
        " WITHOUT ROWID",
        "CREATE INDEX hook_runs_by_state ON hook_runs(state, queued)",
    ),
)
#: Events once more, of the kind that has to be explained: the newest of each rack.
_VERDICTS = _Table(
    "verdicts",
    ("sequence", "rack", "node"),
    lambda event: (event.sequence, event.rack, event.node),
    Event,
    (
        "CREATE TABLE verdicts(sequence INTEGER PRIMARY KEY, rack TEXT, node TEXT, body BLOB, crc INTEGER)",
        "CREATE INDEX verdicts_by_rack ON verdicts(rack, sequence)",
        "CREATE INDEX verdicts_by_node ON verdicts(node, sequence)",
    ),
)
_CONVICTIONS = _Table(
    "convictions",
    ("event_id", "at"),
    lambda conviction: (conviction.event_id, conviction.at_wall_ns),
    Conviction,
    ("CREATE TABLE convictions(event_id TEXT PRIMARY KEY, at INTEGER, body BLOB, crc INTEGER) WITHOUT ROWID",),
)
_TALLIES = _Table(
    "tallies",
    ("life",),
    lambda tally: (tally.life,),
    Tally,
    ("CREATE TABLE tallies(life INTEGER PRIMARY KEY, body BLOB, crc INTEGER)",),
)
#: What each version of the file has; a file of an older one gets the tables that it lacks.
_TABLES_1 = (_EVENTS, _NODES, _MARKS, _RUNS)
_TABLES_2 = (_VERDICTS, _CONVICTIONS, _TALLIES)
_TABLES = (*_TABLES_1, *_TABLES_2)
_SCHEMAS = {
    1: frozenset(statement for table in _TABLES_1 for statement in table.ddl),
    VERSION: frozenset(statement for table in _TABLES for statement in table.ddl),
}


def _crc(columns: tuple[Any, ...], body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(repr(columns).encode()))


def _row(table: _Table, record: Any) -> tuple[Any, ...]:
    columns = table.values(record)
    body = msgspec.json.encode(record)
    return (*columns, body, _crc(columns, body))


def _record(table: _Table, row: tuple[Any, ...]) -> Any | None:
    """The record of a row; None when the row is damaged."""
    *columns, body, crc = row
    if not isinstance(body, bytes) or crc != _crc(tuple(columns), body):
        return None
    try:
        return msgspec.json.decode(body, type=table.record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_verdict(event: Event) -> bool:
    return event.liveness_to in (Liveness.SUSPECT, Liveness.DEAD) and not event.late


def _insert(connection: sqlite3.Connection, table: _Table, rows: Iterable[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * (len(table.columns) + 2))
    connection.executemany(f"INSERT OR REPLACE INTO {table.name}({table.columns_sql}) VALUES ({marks})", rows)


class History:
    """The store at `path`. Nothing is touched before `restore`; the directory is made when it is missing."""

    def __init__(self, path: Path, events_max: int = EVENTS_MAX, runs_over_max: int = RUNS_OVER_MAX) -> None:
        self.path = path
        #: What the last opening found wrong, one sentence for people each. `commit` and `events` open the store anew
        #: after damage, so this may change under the owner's hands.
        self.problems: list[str] = []
        self._events_max = events_max
        self._runs_over_max = runs_over_max
        self._salvaged = path.with_name(path.name + ".salvaged")
        self._claim = Claim(path)
        self._connection: sqlite3.Connection | None = None

    def restore(self) -> Restored:
        """Open the store and return what is kept. Content never makes it raise; see `Restored.problems`.

        Raises HistoryError when the disk or the permissions do not let it read or write, or when another process
        uses the store.
        """
        self._disconnect()
        self.problems = []
        with self._reported():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim.take()
            self._finish_salvage()
            self._clear_place()
            try:
                restored = self._start()
            except _Damaged as damage:
                self._disconnect()
                self._salvage(damage)
                restored = self._start()
            return msgspec.structs.replace(restored, problems=tuple(self.problems))

    def commit(self, batch: Batch) -> None:
        """Write a batch in one transaction; when it returns, all of it is on disk.

        Raises HistoryError; then none of it is kept, or, when only the last sync failed, perhaps all of it.
        """
        if self._connection is None:
            self.restore()
        with self._reported():
            assert self._connection is not None
            failpoint.hit("history-commit-begin")
            with self._transaction(self._connection) as connection:
                self._write(connection, batch)
                failpoint.hit("history-commit-filled")
            failpoint.hit("history-commit-done")

    def events(self, limit: int, after: int = 0, node: str = "") -> list[dict[str, Any]]:
        """Events with a sequence above `after`, newest first, at most `limit`; of one node when `node` is given.

        Of a node there are also those verdicts that outlived the other events of their time. Damaged rows are left
        out. Raises HistoryError.
        """
        if self._connection is None:
            self.restore()
        limit = max(0, min(limit, EVENTS_READ_MAX))
        where, values = ("sequence > ? AND node = ?", (after, node)) if node else ("sequence > ?", (after,))
        found: dict[int, Event] = {}
        with self._reported():
            assert self._connection is not None
            for table in (_EVENTS, _VERDICTS) if node else (_EVENTS,):
                select = f"SELECT {table.columns_sql} FROM {table.name} WHERE {where} ORDER BY sequence DESC LIMIT ?"
                for row in self._connection.execute(select, (*values, limit)).fetchall():
                    event = _record(table, row)
                    if event is not None:
                        found[event.sequence] = event
        newest = sorted(found.values(), key=lambda event: event.sequence, reverse=True)[:limit]
        return [msgspec.to_builtins(event) for event in newest]

    def runs_of(self, event_id: str) -> list[dict[str, Any]]:
        """What became of the hook runs of an event, without what they were told. Raises HistoryError."""
        if self._connection is None:
            self.restore()
        with self._reported():
            assert self._connection is not None
            # The runs of an event begin with its id and a "-"; "." is the next character.
            rows = self._connection.execute(
                f"{_select(_RUNS)} WHERE run_id > ? AND run_id < ? ORDER BY run_id", (f"{event_id}-", f"{event_id}.")
            ).fetchall()
        runs: list[HookRun] = list(filter(None, (_record(_RUNS, row) for row in rows)))
        return [
            {
                "run_id": run.run_id,
                "hook": run.hook,
                "state": run.state.value,
                "attempt": run.attempt,
                "error": run.error,
            }
            for run in runs
            if run.event_id == event_id
        ]

    def close(self) -> None:
        """Close the file and let another process use it."""
        self._disconnect()
        self._claim.release()

    # ---- writing -----------------------------------------------------------------------------------------

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        _insert(connection, _EVENTS, (_row(_EVENTS, event) for event in batch.events))
        _insert(connection, _NODES, (_row(_NODES, state) for state in batch.nodes))
        _insert(connection, _MARKS, (_row(_MARKS, mark) for mark in batch.marks))
        _insert(connection, _RUNS, (_row(_RUNS, run) for run in batch.runs))
        connection.executemany("DELETE FROM nodes WHERE node = ?", ((node,) for node in batch.forgotten))
        _insert(connection, _CONVICTIONS, (_row(_CONVICTIONS, conviction) for conviction in batch.convictions))
        connection.executemany("DELETE FROM convictions WHERE event_id = ?", ((gone,) for gone in batch.folded))
        if batch.tally is not None:
            _insert(connection, _TALLIES, (_row(_TALLIES, batch.tally),))
            replaced = ((life,) for life in batch.tally.replaces if life != batch.tally.life)
            connection.executemany("DELETE FROM tallies WHERE life = ?", replaced)
        self._keep_verdicts(connection, batch.events)
        if batch.events:
            newest = max(event.sequence for event in batch.events)
            connection.execute(
                "DELETE FROM events WHERE sequence IN"
                " (SELECT sequence FROM events WHERE sequence <= ? ORDER BY sequence LIMIT ?)",
                (newest - self._events_max, PRUNE_MAX),
            )
        for state in {run.state: None for run in batch.runs if run.state is not RunState.PENDING}:
            connection.execute(
                "DELETE FROM hook_runs WHERE run_id IN"
                " (SELECT run_id FROM hook_runs WHERE state = ? ORDER BY queued DESC LIMIT ? OFFSET ?)",
                (state.value, PRUNE_MAX, self._runs_over_max),
            )

    @staticmethod
    def _keep_verdicts(connection: sqlite3.Connection, events: Iterable[Event]) -> None:
        newest: dict[str, deque[Event]] = {}
        for event in events:
            if _is_verdict(event):
                newest.setdefault(event.rack, deque(maxlen=VERDICTS_PER_RACK_MAX)).append(event)
        for verdicts in newest.values():
            _insert(connection, _VERDICTS, (_row(_VERDICTS, event) for event in verdicts))
        connection.executemany(
            "DELETE FROM verdicts WHERE sequence IN"
            " (SELECT sequence FROM verdicts WHERE rack = ? ORDER BY sequence DESC LIMIT ? OFFSET ?)",
            ((rack, PRUNE_MAX, VERDICTS_PER_RACK_MAX) for rack in newest),
        )

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # Taken back on the same connection: the next commit then writes the same pages of the log anew. A new
            # connection would read them back from the kernel's memory and believe in pages whose sync has failed.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # ---- opening -----------------------------------------------------------------------------------------

    def _start(self) -> Restored:
        with self._judged():
            try:
                self._connection = self._open(self.path)
            except sqlite3.OperationalError as error:
                if "disk" not in str(error):
                    raise
                # A full disk has no room for the index of the log, which other programs would need to read along.
                self._connection = self._open(self.path, alone=True)
            return self._read(self._connection)

    def _open(self, path: Path, *, alone: bool = False) -> sqlite3.Connection:
        """A connection to the sound file at `path`, which is made when it is missing. Raises _Damaged.

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
            raise _Damaged("its header is not that of an SQLite file")
        connection = self._connect(path)
        try:
            if alone:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._examine(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            # A log that once grew large does not keep its size for ever.
            connection.execute("PRAGMA journal_size_limit=4194304")
            if not connection.execute("PRAGMA application_id").fetchone()[0]:
                self._create(connection)
                sync_directory(path.parent)
                failpoint.hit("history-created")
            elif connection.execute("PRAGMA user_version").fetchone()[0] < VERSION:
                self._bring_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        # The owner is one thread at a time, not always the same one: a driver closes what its worker opened.
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        # A flipped bit in a text must not hide the sound rows behind it.
        connection.text_factory = lambda text: text.decode(errors="replace")
        return connection

    @staticmethod
    def _examine(connection: sqlite3.Connection) -> None:
        """Raise _Damaged unless the file is empty, or whole and of this version."""
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        schema = {row[0] for row in connection.execute("SELECT sql FROM sqlite_master")}
        if not application and not version and not schema:
            return
        if application != APPLICATION_ID:
            raise _Damaged("it is not a file of this program")
        if version not in _SCHEMAS:
            raise _Damaged(f"it has version {version}, not {VERSION}", readable=False)
        if schema != _SCHEMAS[version]:
            raise _Damaged("its tables are not those of this program")
        verdict = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _Damaged(f"SQLite finds: {verdict!r:.200}")

    def _create(self, connection: sqlite3.Connection) -> None:
        with self._transaction(connection):
            for table in _TABLES:
                for statement in table.ddl:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={VERSION}")

    def _bring_up(self, connection: sqlite3.Connection) -> None:
        """Give a file of version 1 what it lacks; its verdicts are found among its events."""
        with self._transaction(connection):
            for table in _TABLES_2:
                for statement in table.ddl:
                    connection.execute(statement)
            rows = connection.execute(f"{_select(_EVENTS)} ORDER BY sequence")
            events = (event for row in rows if (event := _record(_EVENTS, row)) is not None)
            self._keep_verdicts(connection, events)
            connection.execute(f"PRAGMA user_version={VERSION}")

    def _read(self, connection: sqlite3.Connection) -> Restored:
        def records(table: _Table, tail: str = "") -> list[Any]:
            found = [_record(table, row) for row in connection.execute(_select(table) + tail)]
            damaged = found.count(None)
            if damaged:
                raise _Damaged(f"{damaged} rows of {table.name} do not match their checksum")
            return found

        newest = records(_EVENTS, " ORDER BY sequence DESC LIMIT 1")
        runs = [run for run in records(_RUNS) if run.state is RunState.PENDING]
        return Restored(
            nodes=tuple(records(_NODES)),
            marks=tuple(sorted(records(_MARKS), key=lambda mark: (mark.leader, mark.life))),
            runs=tuple(sorted(runs, key=lambda run: (run.queued, run.run_id))),
            convictions=tuple(sorted(records(_CONVICTIONS), key=lambda one: (one.at_wall_ns, one.event_id))),
            tallies=tuple(records(_TALLIES)),
            newest_sequence=newest[0].sequence if newest else 0,
        )

    def _clear_place(self) -> None:
        for suffix in ("", *COMPANIONS):
            place = self.path.with_name(self.path.name + suffix)
            if not is_usable(place):
                aside = set_aside(place)
                self.problems.append(f"{place} was not a regular file; set aside as {aside.name}")

    # ---- salvage -----------------------------------------------------------------------------------------
    #
    # The new file is filled under another name and gets its final name `.salvaged` only when it is complete. From
    # then on a start finishes the exchange, wherever a crash stopped it; before, it begins the salvage anew.

    def _salvage(self, damage: _Damaged) -> None:
        draft = self.path.with_name(self.path.name + ".draft")
        self._discard(draft)
        failpoint.hit("history-salvage-begin")
        target = self._open(draft)
        try:
            kept = self._move_rows(target) if damage.readable else 0
            failpoint.hit("history-salvage-filled")
            # One file without a log: a rename moves all of it. Closing would do the same, but say nothing if it failed.
            target.execute("PRAGMA journal_mode=DELETE")
        finally:
            target.close()
        os.rename(draft, self._salvaged)
        sync_directory(self.path.parent)
        failpoint.hit("history-salvage-ready")
        aside = self._finish_salvage()
        self.problems.append(f"{self.path} was damaged: {damage}; {kept} rows kept, the old file set aside as {aside}")

    def _finish_salvage(self) -> str:
        if not os.path.lexists(self._salvaged):
            return ""
        aside = set_aside(self.path, COMPANIONS)
        failpoint.hit("history-salvage-cleared")
        os.rename(self._salvaged, self.path)
        sync_directory(self.path.parent)
        failpoint.hit("history-salvage-done")
        return aside.name

    def _move_rows(self, target: sqlite3.Connection) -> int:
        with contextlib.closing(self._connect(self.path)) as source, self._transaction(target):
            for table in _TABLES:
                _insert(target, table, self._sound_rows(source, table))
            return sum(target.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0] for table in _TABLES)

    @staticmethod
    def _sound_rows(source: sqlite3.Connection, table: _Table) -> Iterator[tuple[Any, ...]]:
        """Rows whose checksum holds, read from both ends, since a damaged page ends a reading."""
        for direction in ("ASC", "DESC"):
            try:
                for row in source.execute(f"{_select(table)} ORDER BY {table.columns[0]} {direction}"):
                    if _record(table, row) is not None:
                        yield row
                break
            except _SQLITE_ERRORS as error:
                if str(error).startswith(_NOT_DAMAGE):
                    raise

    def _discard(self, place: Path) -> None:
        for suffix in ("", *COMPANIONS):
            leftover = place.with_name(place.name + suffix)
            if not is_usable(leftover):
                set_aside(leftover)
            elif os.path.lexists(leftover):
                os.unlink(leftover)

    # ---- failures ----------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        """Turn what SQLite says of a damaged file into _Damaged."""
        try:
            yield
        except _SQLITE_ERRORS as error:
            if str(error).startswith(_NOT_DAMAGE):
                raise
            raise _Damaged(f"SQLite says: {error!s:.200}") from error

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror or error}") from error
        except ClaimedError as error:
            raise HistoryError(f"{self.path}: {error}") from error
        except _Damaged as error:
            raise HistoryError(f"{self.path}: {error}") from error
        except _SQLITE_ERRORS as error:
            # The class itself is SQLite's word for a damaged file; a full disk or a lock is a subclass. That, or a
            # transaction that cannot be taken back, is left to the next call, which opens the file anew.
            damaged = type(error) in (sqlite3.DatabaseError, UnicodeDecodeError)
            if damaged or (self._connection and self._connection.in_transaction):
                self._disconnect()
            raise HistoryError(f"{self.path}: {error}") from error


def _select(table: _Table) -> str:
    return f"SELECT {table.columns_sql} FROM {table.name} NOT INDEXED"
