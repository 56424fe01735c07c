"""The root's memory in a PostgreSQL database: for whoever wants it on a server, beside other data, or kept for years.

The tables are those of the SQLite file, checksums and all, in the schema "hbagent" (or in the one that the address
names by `options=-csearch_path=...`). One root writes: it holds an advisory lock for as long as its connection lives,
and it writes by that very connection, so a root that has lost its right cannot write.

A server may hang where a file fails. Nothing here waits for longer than `PATIENCE_S`: the server is asked to give up a
statement that takes long, and when it does not even do that, the connection is cut from this side. A lost connection
is a `HistoryError`, as a full disk is; the next call opens another one.

Questions may come by a second connection, which has no such lock and cannot write.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import conninfo, sql

from hbagent.core.records import Restored

from .claim import ClaimedError
from .history import DamagedError, History, HistoryError, Reader
from .retention import EVENTS_MAX, RUNS_OVER_MAX
from .tables import TABLES, Table, is_sound
from .versions import APPLICATION_ID, VERSION

SCHEMA = "hbagent"
#: A server that does not take a connection in this time is away.
CONNECT_S = 5
#: A statement may take this long. A commit takes milliseconds, the reading at a start a second.
STATEMENT_S = 10
#: For another root's lock, which a killed one's connection holds until the server has noticed.
LOCK_S = 3
#: The same for a reader, which has somebody else to ask.
READER_LOCK_MS = 100
#: A call that has taken this long is cut off from this side.
PATIENCE_S = 15.0
#: Damaged rows that are kept apart for whoever wants to see them.
DAMAGED_MAX = 1_000

#: Collation "C" orders as SQLite does, whatever the server's language.
_TYPES: dict[type, str] = {int: "BIGINT", str: 'TEXT COLLATE "C"', bytes: "BYTEA"}
_ARRAYS = {int: "BIGINT[]", str: "TEXT[]", bytes: "BYTEA[]"}
_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": CONNECT_S,
    "application_name": "hbagent root",
    "target_session_attrs": "read-write",
    # A server that lost its power is noticed within half a minute.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SETTINGS = {
    "statement_timeout": f"{STATEMENT_S}s",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_S}s",
    # So that the lock of a root whose host is gone does not outlive it for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


class PostgresDatabase:
    """A connection to a server."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row that a statement finds."""
        return self.connection.execute(_own(statement), values).fetchall()

    def each(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same, without all of them in memory at once."""
        with self.connection.transaction(), self.connection.cursor("each") as cursor:
            cursor.itersize = 1_000
            yield from cursor.execute(_own(statement), values)

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that finds nothing."""
        self.connection.execute(_own(statement), values)

    def remove(self, table: Table, columns: tuple[str, ...], values: Sequence[tuple[Any, ...]]) -> None:
        """Delete the rows that have one of `values` in these columns."""
        if not values:
            return
        arrays = ", ".join(f"%s::{_ARRAYS[table.columns[column]]}" for column in columns)
        where = " AND ".join(f"{table.name}.{column} = gone.{column}" for column in columns)
        statement = f"DELETE FROM {table.name} USING unnest({arrays}) AS gone({', '.join(columns)}) WHERE {where}"
        self.connection.execute(_own(statement), [list(column) for column in zip(*values, strict=True)])

    def put(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        """Write rows in place of those with the same key."""
        # One statement may not write a row twice; the last one counts.
        distinct = {row[: table.key]: row for row in rows}
        if not distinct:
            return
        types = (*table.columns.values(), bytes, int)
        arrays = ", ".join(f"%b::{_ARRAYS[kind]}" for kind in types)
        changed = ", ".join(f"{name} = excluded.{name}" for name in table.all_columns[table.key :])
        statement = (
            f"INSERT INTO {table.name}({table.columns_sql}) SELECT * FROM unnest({arrays})"
            f" ON CONFLICT ({', '.join(table.key_columns)}) DO UPDATE SET {changed}"
        )
        self.connection.execute(_own(statement), [list(column) for column in zip(*distinct.values(), strict=True)])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done within, or, after an exception, none."""
        with self.connection.transaction():
            yield


class Line:
    """A connection that is made when it is needed, lost, and cut off when a call takes too long."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        #: For people: where it is, and no secret.
        self.name = name_of(parameters)
        self._open_database: PostgresDatabase | None = None
        #: The connection's socket once more, to cut it while a call waits.
        self._wire: socket.socket | None = None

    def _dial(self) -> PostgresDatabase:
        """A connection with our settings, to our schema. Raises psycopg.Error."""
        connection = connect(self._parameters)
        try:
            # While a call waits it can be cut only by its socket, and only by a copy that nobody else closes.
            self._wire = socket.socket(fileno=socket.dup(connection.fileno()))
            database = PostgresDatabase(connection)
            for setting, value in _SETTINGS.items():
                database.rows("SELECT set_config(?, ?, false)", (setting, value))
            if "search_path" not in str(self._parameters.get("options", "")):
                database.run(f"SET search_path = {SCHEMA}")
        except BaseException:
            connection.close()
            raise
        return database

    def _disconnect(self) -> None:
        database, self._open_database = self._open_database, None
        wire, self._wire = self._wire, None
        if database is not None:
            with contextlib.suppress(psycopg.Error):
                database.connection.close()
        if wire is not None:
            wire.close()

    def _cut(self) -> None:
        """In a timer's thread: a call has waited for too long."""
        wire = self._wire
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        timer = threading.Timer(PATIENCE_S, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except ClaimedError as error:
            self._disconnect()
            raise HistoryError(f"{self.name}: {error}") from error
        except DamagedError as error:
            self._disconnect()
            raise HistoryError(f"{self.name}: {error}") from error
        except (psycopg.Error, OSError) as error:
            database = self._open_database
            if database is None or database.connection.broken or database.connection.info.transaction_status:
                self._disconnect()
            # Without the cause: a traceback would show what this sentence leaves out.
            raise HistoryError(f"{self.name}: {sentence(error, self._parameters)}") from None
        finally:
            timer.cancel()


class PostgresHistory(Line, History):
    """The store at the address `url`. Nothing is touched before `restore`. Raises ValueError for what is no address."""

    def __init__(
        self,
        url: str,
        events_max: int = EVENTS_MAX,
        runs_over_max: int = RUNS_OVER_MAX,
        retention_ns: int = 0,
    ) -> None:
        Line.__init__(self, parameters(url))
        History.__init__(self, events_max, runs_over_max, retention_ns)
        self._reader = PostgresReader(self._parameters)

    def restore(self) -> Restored:
        with self._reported():
            self._disconnect()
            self._reader.away()
            self.problems = []
            self._open_database = database = self._connected()
            try:
                restored = self._read(database)
            except DamagedError as damage:
                count = _set_aside(database)
                self.problems.append(f"{self.name} was damaged: {damage}; {count} rows set aside in {SCHEMA}.damaged")
                restored = self._read(database)
            self._reader.let()
            return msgspec.structs.replace(restored, problems=tuple(self.problems))

    def close(self) -> None:
        self._reader.away()
        self._disconnect()

    def reader(self) -> PostgresReader:
        return self._reader

    @contextlib.contextmanager
    def _database(self) -> Iterator[PostgresDatabase]:
        if self._open_database is None:
            self.restore()
        with self._reported():
            assert self._open_database is not None
            yield self._open_database

    # ---- opening -----------------------------------------------------------------------------------------

    def _connected(self) -> PostgresDatabase:
        """A connection of its own that holds the claim, with the tables made. Raises psycopg.Error, ClaimedError."""
        database = self._dial()
        try:
            if database.rows("SHOW synchronous_commit") == [("off",)]:
                database.run("SET synchronous_commit = on")
            if database.rows("SHOW fsync") == [("off",)]:
                self.problems.append(f"{self.name}: fsync is off, so a power loss may damage what is kept")
            ours = "search_path" not in str(self._parameters.get("options", ""))
            if ours and not database.rows("SELECT 1 FROM pg_namespace WHERE nspname = ?", (SCHEMA,)):
                database.run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            _claim(database)
            self._prepare(database)
        except BaseException:
            database.connection.close()
            raise
        return database

    def _prepare(self, database: PostgresDatabase) -> None:
        """Make the tables of an empty schema. Raises DamagedError for those of another version."""
        with database.transaction():
            if database.rows("SELECT to_regclass('store_version')") == [(None,)]:
                for table in TABLES:
                    for statement in table.ddl(_TYPES):
                        database.run(statement)
                database.run("CREATE TABLE damaged(seen TIMESTAMPTZ DEFAULT now(), place TEXT, content TEXT)")
                database.run("CREATE TABLE store_version(version BIGINT)")
                database.run("INSERT INTO store_version VALUES (?)", (VERSION,))
        found = database.rows("SELECT version FROM store_version")
        if found != [(VERSION,)]:
            raise DamagedError(f"it has version {', '.join(str(row[0]) for row in found)}, not {VERSION}")


class PostgresReader(Line, Reader):
    """A connection beside that of a `PostgresHistory`, which says when there is something to read."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__({**parameters, "application_name": "hbagent root reader"})
        self._allowed = False
        #: Held by whoever asks.
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        with self._turn, self._reported():
            if not self._allowed:
                self._disconnect()
                raise HistoryError(f"{self.name}: it is not open")
            if self._open_database is None:
                self._open_database = database = self._dial()
                database.rows("SELECT set_config('lock_timeout', ?, false)", (f"{READER_LOCK_MS}ms",))
                database.connection.read_only = True
                database.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with self._open_database.transaction():
                yield

    @contextlib.contextmanager
    def _database(self) -> Iterator[PostgresDatabase]:
        assert self._open_database is not None
        yield self._open_database

    def away(self) -> None:
        """In another thread: what is asked from now on is refused until `let`. What is being asked goes on."""
        self._allowed = False
        if self._turn.acquire(blocking=False):
            self._disconnect()
            self._turn.release()

    def let(self) -> None:
        """In another thread: what is asked from now on is answered."""
        self._allowed = True


@contextlib.contextmanager
def reading(url: str) -> Iterator[tuple[str, PostgresDatabase]]:
    """A store for whoever only reads: its name and a connection that cannot write. Raises HistoryError, ValueError."""
    values = {**parameters(url), "application_name": "hbagent reader", "target_session_attrs": "any"}
    name = name_of(values)
    try:
        with contextlib.closing(connect(values)) as connection:
            database = PostgresDatabase(connection)
            database.run("SET default_transaction_read_only = on")
            if "search_path" not in str(values.get("options", "")):
                database.run(f"SET search_path = {SCHEMA}")
            database.rows("SELECT set_config('statement_timeout', ?, false)", (f"{STATEMENT_S}s",))
            found = database.rows("SELECT version FROM store_version")
            if found != [(VERSION,)]:
                raise HistoryError(f"{name}: it has not version {VERSION}; a root of this version makes it so")
            yield name, database
    except psycopg.Error as error:
        raise HistoryError(f"{name}: {sentence(error, values)}") from None


def parameters(url: str) -> dict[str, Any]:
    """What an address says, completed. Raises ValueError, which tells nothing of what is in it."""
    try:
        found = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        found = {"port": "?"}
    # A password with a slash in it would be half a port, and be told as one.
    if not str(found.get("port") or "0").replace(",", "").isdecimal():
        raise ValueError("store: this is no PostgreSQL address; want postgresql://USER@HOST:PORT/DATABASE")
    return {**_DEFAULTS, **found}


def name_of(values: dict[str, Any]) -> str:
    """Where a store is, for people; no password."""
    host = values.get("hostaddr") or values.get("host") or ""
    port = f":{values['port']}" if values.get("port") else ""
    service = f"?service={values['service']}" if values.get("service") else ""
    return f"postgresql://{host}{port}/{values.get('dbname', '')}{service}"


def sentence(error: Exception, values: dict[str, Any]) -> str:
    """What went wrong, in a line, and no password whatever the server has repeated."""
    text = " ".join(str(error).split())
    for secret in (values.get("password"), values.get("sslpassword")):
        if secret:
            text = text.replace(str(secret), "***")
    return f"{text or type(error).__name__:.400}"


def connect(values: dict[str, Any]) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection of which each statement is a transaction of its own. Raises psycopg.Error."""
    return psycopg.connect(conninfo.make_conninfo("", **values), autocommit=True)


def _claim(database: PostgresDatabase) -> None:
    """Take the right to write, which ends with the connection. Raises ClaimedError."""
    try:
        database.rows("SELECT pg_advisory_lock(?::int, hashtext(current_schema()))", (APPLICATION_ID,))
    except psycopg.errors.LockNotAvailable as error:
        raise ClaimedError("another root uses this store") from error


def _set_aside(database: PostgresDatabase) -> int:
    """Move every damaged row into the table `damaged`; returns how many there were."""
    count = 0
    with database.transaction():
        for table in TABLES:
            unsound = [
                row for row in database.each(f"SELECT {table.columns_sql} FROM {table.name}") if not is_sound(row)
            ]
            for row in unsound[:DAMAGED_MAX]:
                database.run("INSERT INTO damaged(place, content) VALUES (?, ?)", (table.name, repr(row)))
            database.remove(table, table.key_columns, [row[: table.key] for row in unsound])
            count += len(unsound)
    return count


def _own(statement: str) -> sql.SQL:
    """A statement with the marks of psycopg for its values. Every statement is a constant of this program."""
    return sql.SQL(statement.replace("?", "%s"))
