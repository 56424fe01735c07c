"""The root's memory: the events, who was told of them and why others were not, and what must outlive the process.

What `commit` returned for survives kill -9 and power loss. This file says what is written and read, in SQL that SQLite
and PostgreSQL understand alike; `store.sqlite` and `store.postgres` say where, and what becomes of damage and failure.

The ledger of notifications balances: an event says how many it has (`Event.notices`), and the rows of `hook_runs` and
`unsent` that name it are so many, at any time, for a batch is written as one. `store.retention` keeps it so.

One worker thread owns a `History`. Writing the same batch again is harmless, so after a `HistoryError` the owner just
tries again later. A damage found while running is healed by that next try. Another thread may own its `reader`, which
sees what was committed while the owner still writes.
"""

from __future__ import annotations

import abc
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from hbagent.core.records import Batch, Event, HookRun, Restored, RunState
from hbagent.core.states import Liveness

from . import failpoint
from .retention import PRUNE_MAX, Retention
from .tables import (
    CONVICTIONS,
    EVENTS,
    INCIDENTS,
    MARKS,
    NODES,
    RUNS,
    SILENCES,
    TALLIES,
    TROUBLES,
    UNSENT,
    VERDICTS,
    Table,
    is_sound,
    is_unsent,
    number_of,
    record_of,
    row_of,
)

#: Verdicts kept of each rack, whatever else becomes of the events: a rack that has long been quiet beside one that is
#: not can still be explained. At 3 kB each this is 30 MB for a hundred racks.
VERDICTS_PER_RACK_MAX = 100
#: Rows handed out at most by one call: about 7 MB of JSON.
EVENTS_READ_MAX = 10_000
#: Rows that are encoded and handed to the database in one go. The interpreter is free for the root's loop in between.
CHUNK_ROWS = 500


class HistoryError(Exception):
    """The store could not be read or written; the message names the store and the reason."""


class Database(Protocol):
    """A connection, as far as the two kinds of store have it in common. Statements have "?" for each value."""

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row that a statement finds."""

    def each(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same, without all of them in memory at once."""

    def run(self, statement: str, values: Sequence[Any]) -> None:
        """Run a statement that finds nothing."""

    def remove(self, table: Table, columns: tuple[str, ...], values: Sequence[tuple[Any, ...]]) -> None:
        """Delete the rows that have one of `values` in these columns."""

    def put(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        """Write rows in place of those with the same key."""

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """All of what is done within, or, after an exception, none."""


class DamagedError(Exception):
    """The store is not what was written."""

    def __init__(self, what: str, readable: bool = True) -> None:
        super().__init__(what)
        #: False when rows of it may mean something else than they seem to.
        self.readable = readable


class Reading(abc.ABC):
    """What may be asked of a store."""

    @abc.abstractmethod
    def _database(self) -> contextlib.AbstractContextManager[Database]:
        """The open store, which is opened when it is not. What fails within is raised as HistoryError."""

    def events(self, limit: int, after: int = 0, node: str = "") -> list[dict[str, Any]]:
        """Events with a sequence above `after`, newest first, at most `limit`; of one node when `node` is given.

        Of a node there are also those verdicts that outlived the other events of their time. Damaged rows are left
        out. Raises HistoryError.
        """
        limit = _limited(limit)
        where, values = ("sequence > ? AND node = ?", (after, node)) if node else ("sequence > ?", (after,))
        found: dict[int, Event] = {}
        for table in (EVENTS, VERDICTS) if node else (EVENTS,):
            for event in self._found(table, f"{where} ORDER BY sequence DESC LIMIT ?", (*values, limit)):
                found[event.sequence] = event
        newest = sorted(found.values(), key=lambda event: event.sequence, reverse=True)[:limit]
        return [msgspec.to_builtins(event) for event in newest]

    def page(self, after: int, limit: int) -> list[Event]:
        """Events with a sequence above `after`, oldest first, at most `limit`. Raises HistoryError."""
        found: list[Event] = self._found(EVENTS, "sequence > ? ORDER BY sequence LIMIT ?", (after, _limited(limit)))
        return found

    def runs_of(self, event_id: str) -> list[dict[str, Any]]:
        """What became of the notifications of an event, without what they say. Raises HistoryError."""
        runs = [
            run for table in (RUNS, UNSENT) for run in self._found(table, "event_id = ? ORDER BY run_id", (event_id,))
        ]
        return [
            {
                "run_id": run.run_id,
                "hook": run.hook,
                "state": run.state.value,
                "attempt": run.attempt,
                "error": run.error,
                "reason": run.reason.value if run.reason is not None else None,
                "ref": run.ref,
            }
            for run in sorted(runs, key=lambda run: run.run_id)
        ]

    def unsent(self, node: str = "", incident: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Notifications that wait or are not sent, newest first, at most `limit`, each with why.

        Of `incident` when that is given, else of the node, rack, leader or root `node`, else all. Raises HistoryError.
        """
        limit = _limited(limit)
        newest = "ORDER BY queued DESC, run_id LIMIT ?"
        if incident:
            runs = self._found(UNSENT, f"incident = ? {newest}", (incident, limit))
        elif node:
            runs = self._found(UNSENT, f"subject = ? {newest}", (node, limit))
        else:
            states = (RunState.HELD, RunState.SUPPRESSED)
            found = [self._found(UNSENT, f"state = ? {newest}", (state.value, limit)) for state in states]
            runs = sorted((run for part in found for run in part), key=lambda run: (-run.queued, run.run_id))[:limit]
        return self._told(runs)

    def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        """Notifications that were given up, newest first, at most `limit`. Raises HistoryError."""
        found = self._found(RUNS, "state = 'dead' ORDER BY queued DESC, run_id LIMIT ?", (_limited(limit),))
        return self._told(found)

    def given_up(self, run_id: str = "", limit: int = EVENTS_READ_MAX) -> tuple[HookRun, ...]:
        """The notification `run_id`, when it was given up, or all such, oldest first. Raises HistoryError."""
        if run_id:
            return tuple(self._found(RUNS, "run_id = ? AND state = 'dead'", (run_id,)))
        return tuple(self._found(RUNS, "state = 'dead' ORDER BY queued, run_id LIMIT ?", (_limited(limit),)))

    def incidents(self, limit: int = 100) -> list[dict[str, Any]]:
        """Incidents, also those that are resolved, newest first, at most `limit`. Raises HistoryError."""
        found = self._found(INCIDENTS, "1 = 1 ORDER BY number DESC LIMIT ?", (_limited(limit),))
        return [msgspec.to_builtins(incident) for incident in found]

    def has_incident(self, incident: str) -> bool:
        """True for an incident that is kept, resolved or not. Raises HistoryError."""
        return bool(self._found(INCIDENTS, "incident_id = ?", (incident,)))

    def _told(self, runs: Sequence[HookRun]) -> list[dict[str, Any]]:
        """Notifications as a console is told them, with the words of their events."""
        texts: dict[str, str] = {}
        with self._database() as database:
            for event_id in {run.event_id: None for run in runs}:
                select = f"SELECT {EVENTS.columns_sql} FROM events WHERE event_id = ?"
                for row in database.rows(select, (event_id,)):
                    event = record_of(EVENTS, row)
                    if event is not None and event.evidence is not None:
                        texts[event_id] = event.evidence.text
        return [
            {
                "run_id": run.run_id,
                "event_id": run.event_id,
                "kind": run.kind.value if run.kind is not None else None,
                "cause": run.cause.value if run.cause is not None else None,
                "at_wall_ns": run.at_wall_ns,
                "subject": run.subject or run.node,
                "axis": run.axis.value if run.axis is not None else None,
                "incident": run.incident,
                "receiver": run.hook,
                "state": run.state.value,
                "reason": run.reason.value if run.reason is not None else None,
                "ref": run.ref,
                "due_wall_ns": run.due_wall_ns,
                "attempt": run.attempt,
                "error": run.error,
                "text": texts.get(run.event_id, ""),
            }
            for run in runs
        ]

    def _found(self, table: Table, condition: str, values: Sequence[Any]) -> list[Any]:
        """The sound records of the rows that meet a condition."""
        with self._database() as database:
            rows = database.rows(f"SELECT {table.columns_sql} FROM {table.name} WHERE {condition}", values)
        return [record for row in rows if (record := record_of(table, row)) is not None]


class Reader(Reading):
    """A connection that cannot write. It repairs nothing: whoever gets a HistoryError asks the history itself."""

    @abc.abstractmethod
    def moment(self) -> contextlib.AbstractContextManager[None]:
        """All that is asked within is answered as of one moment, after all that was committed before it.

        A notification that moves from one table to another is otherwise in neither. Nothing may be asked outside of
        it. Raises HistoryError, also when the history is not open, or not open to others.
        """


class History(Reading):
    """A store. Nothing is touched before `restore`."""

    def __init__(self, events_max: int, runs_over_max: int, retention_ns: int) -> None:
        #: What the last opening found wrong, one sentence for people each. Every method opens the store anew after a
        #: damage or a lost connection, so this may change under the owner's hands.
        self.problems: list[str] = []
        self._retention = Retention(events_max, runs_over_max, retention_ns)

    @abc.abstractmethod
    def restore(self) -> Restored:
        """Open the store and return what is kept. Content never makes it raise; see `Restored.problems`.

        Raises HistoryError when the store cannot be read or written, or when another process uses it; the cause is
        then a ClaimedError.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close the store and let another process use it."""

    @abc.abstractmethod
    def reader(self) -> Reader:
        """A second way to what is committed, for one other thread; the same one each time. It ends with `close`."""

    # ---- writing -----------------------------------------------------------------------------------------

    def commit(self, batch: Batch, now_wall_ns: int = 0) -> None:
        """Write a batch in one transaction; when it returns, all of it is on disk.

        `now_wall_ns` is what the age limit goes by; 0 when nobody knows the time. Raises HistoryError; then none of
        the batch is kept, or, when only the last sync failed, perhaps all of it.
        """
        with self._database() as database:
            failpoint.hit("history-commit-begin")
            with database.transaction():
                self._write(database, batch)
                self._retention.prune(database, batch, now_wall_ns)
                failpoint.hit("history-commit-filled")
            failpoint.hit("history-commit-done")
            self._retention.wrote(batch)

    def _write(self, database: Database, batch: Batch) -> None:
        put(database, EVENTS, batch.events)
        put(database, NODES, batch.nodes)
        put(database, MARKS, batch.marks)
        self._write_runs(database, batch.runs)
        database.remove(NODES, ("node",), [(node,) for node in batch.forgotten])
        put(database, CONVICTIONS, batch.convictions)
        database.remove(CONVICTIONS, ("event_id",), [(gone,) for gone in batch.folded])
        if batch.tally is not None:
            put(database, TALLIES, (batch.tally,))
            replaced = [(life,) for life in batch.tally.replaces if life != batch.tally.life]
            database.remove(TALLIES, ("life",), replaced)
        put(database, TROUBLES, batch.troubles)
        database.remove(TROUBLES, ("subject", "axis"), [(subject, axis.value) for subject, axis in batch.ended])
        put(database, INCIDENTS, batch.incidents)
        put(database, SILENCES, batch.silences)
        keep_verdicts(database, batch.events)

    @staticmethod
    def _write_runs(database: Database, runs: Iterable[HookRun]) -> None:
        """Write notifications, each into the table of its state, and nowhere else."""
        parted: dict[bool, list[HookRun]] = {True: [], False: []}
        for run in {run.run_id: run for run in runs}.values():
            # Nobody needs the words again that were told, and they are most of the row.
            kept = msgspec.structs.replace(run, input=b"") if run.state is RunState.DONE else run
            parted[is_unsent(run)].append(kept)
        for table, other, unsent in ((RUNS, UNSENT, False), (UNSENT, RUNS, True)):
            moved = [(run.run_id,) for run in parted[unsent]]
            database.remove(other, ("run_id",), moved)
            put(database, table, parted[unsent])

    # ---- reading: for whoever checks ---------------------------------------------------------------------

    def balance(self) -> list[str]:
        """Where the ledger does not balance: a sentence for each event whose notifications are not all accounted for.

        Reads everything. Raises HistoryError.
        """
        with self._database() as database:
            return unbalanced(database)

    # ---- starting ----------------------------------------------------------------------------------------

    def _read(self, database: Database) -> Restored:
        """What a start finds. Raises DamagedError when a row that matters is not what was written."""
        troubles = _all_records(database, TROUBLES)
        burning = {(trouble.subject, trouble.axis) for trouble in troubles if not trouble.over}
        summaries = {told.via for trouble in troubles for told in trouble.told.values() if told.via}

        def matters(run: HookRun) -> bool:
            # A dead letter about what has passed is told again by nobody but people.
            return run.state is not RunState.DEAD or (run.subject, run.axis) in burning or run.event_id in summaries

        owed = _all_records(database, RUNS, RunState.PENDING.value, RunState.DEAD.value, keep=matters)
        held = _all_records(database, UNSENT, RunState.HELD.value)
        runs: dict[str, HookRun] = {run.run_id: run for run in (*owed, *held)}
        named = {told.run_id: None for trouble in troubles for told in trouble.told.values() if told.run_id}
        for run_id in named:
            for table in (UNSENT, RUNS) if run_id not in runs else ():
                select = f"SELECT {table.columns_sql} FROM {table.name} WHERE run_id = ?"
                found = (record_of(table, row) for row in database.rows(select, (run_id,)))
                runs.update((run.run_id, run) for run in found if run is not None)
        newest = database.rows(f"SELECT {EVENTS.columns_sql} FROM events ORDER BY sequence DESC LIMIT 1")
        if newest and not is_sound(newest[0]):
            raise DamagedError("1 rows of events do not match their checksum")
        self._retention.begin(troubles, newest[0][3] if newest else 0)
        incidents = _all_records(database, INCIDENTS, 0)
        return Restored(
            nodes=tuple(_all_records(database, NODES)),
            marks=tuple(sorted(_all_records(database, MARKS), key=lambda mark: (mark.leader, mark.life))),
            runs=tuple(sorted(runs.values(), key=lambda run: (run.queued, run.run_id))),
            troubles=tuple(troubles),
            incidents=tuple(sorted(incidents, key=lambda one: number_of(one.incident_id))),
            silences=tuple(sorted(_all_records(database, SILENCES), key=lambda one: number_of(one.silence_id))),
            convictions=tuple(
                sorted(_all_records(database, CONVICTIONS), key=lambda one: (one.at_wall_ns, one.event_id))
            ),
            tallies=tuple(_all_records(database, TALLIES)),
            newest_sequence=newest[0][0] if newest else 0,
        )


def put(database: Database, table: Table, records: Sequence[Any]) -> None:
    """Write records in place of those with the same key."""
    for begin in range(0, len(records), CHUNK_ROWS):
        database.put(table, [row_of(table, record) for record in records[begin : begin + CHUNK_ROWS]])
        if begin + CHUNK_ROWS >= len(records):
            failpoint.hit(f"history-wrote-{table.name}")


def keep_verdicts(database: Database, events: Iterable[Event]) -> None:
    """Keep the newest verdicts of each rack apart from the events."""
    newest: dict[str, deque[Event]] = {}
    for event in events:
        if event.liveness_to in (Liveness.SUSPECT, Liveness.DEAD) and not event.late:
            newest.setdefault(event.rack, deque(maxlen=VERDICTS_PER_RACK_MAX)).append(event)
    put(database, VERDICTS, [event for verdicts in newest.values() for event in verdicts])
    for rack in newest:
        database.run(
            "DELETE FROM verdicts WHERE sequence IN"
            " (SELECT sequence FROM verdicts WHERE rack = ? ORDER BY sequence DESC LIMIT ? OFFSET ?)",
            (rack, PRUNE_MAX, VERDICTS_PER_RACK_MAX),
        )


def unbalanced(database: Database) -> list[str]:
    """A sentence for each event whose notifications are not all accounted for, or more than once."""
    wrong: list[str] = []
    counted: dict[str, int] = {}
    for table in (RUNS, UNSENT):
        for event_id, count in database.each(f"SELECT event_id, count(*) FROM {table.name} GROUP BY event_id"):
            counted[event_id] = counted.get(event_id, 0) + count
    twice = database.rows("SELECT run_id FROM hook_runs WHERE run_id IN (SELECT run_id FROM unsent)")
    wrong.extend(f"{run_id} is told and not told" for (run_id,) in twice)
    for row in database.each(f"SELECT {EVENTS.columns_sql} FROM events ORDER BY sequence"):
        event = record_of(EVENTS, row)
        if event is not None and event.notices != counted.get(event.event_id, 0):
            found = counted.get(event.event_id, 0)
            wrong.append(f"{event.event_id} ({event.kind.value}) has {event.notices} notices and {found} rows")
    return wrong


def _all_records(
    database: Database, table: Table, *wanted: Any, keep: Callable[[Any], bool] = lambda record: True
) -> list[Any]:
    """Every record of a table, or those whose third column is `wanted`; of these the ones to `keep`.

    Rows that are not wanted are looked at too: an owed notification must not vanish behind a flipped bit of its state.
    What is not kept is let go of row by row: there may be 100,000 of them. Raises DamagedError if any row is damaged.
    """
    found, damaged = [], 0
    for row in database.each(f"SELECT {table.columns_sql} FROM {table.name}"):
        if wanted and row[2] not in wanted:
            damaged += not is_sound(row)
            continue
        record = record_of(table, row)
        if record is None:
            damaged += 1
        elif keep(record):
            found.append(record)
    if damaged:
        raise DamagedError(f"{damaged} rows of {table.name} do not match their checksum")
    return found


def _limited(limit: int) -> int:
    return max(0, min(limit, EVENTS_READ_MAX))
