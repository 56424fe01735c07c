"""How much of the past is kept, and that what goes, goes whole.

An event and its notifications (rows of `hook_runs` and `unsent`) are one set. A set goes as one, so for each event that
is kept, the number of its rows is `Event.notices`. A set goes when its event is not among the newest `events_max`, or
is older than the age limit, or when one of its rows that are over is not among the newest `runs_over_max` of its state.
A set never goes while something is owed or waits, or while a trouble that is not over names a notification of it: that
one is told when what keeps it back ends.

Rows without an event are those of the watchdog, which is no line of history, and of events that a failing disk has
lost; a few of them are kept.

A wall clock that jumps forward must not delete the history. The age limit goes by a time that advances with the
kernel's own clock; when the wall clock runs away from it, it is believed after a day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hbagent.core.records import Batch, RunState, Trouble
from hbagent.core.states import IncidentState
from hbagent.core.units import DAY, HOUR, MINUTE

from . import failpoint
from .tables import EVENTS, RUNS, UNSENT, is_over

if TYPE_CHECKING:
    from .history import Database

#: Events kept; the oldest go first. At about 700 bytes each this is 70 MB.
EVENTS_MAX = 100_000
#: Notifications kept after they are over, of each state: a storm of 10,000 nodes told to five receivers, and back. One
#: takes 400 bytes when it was told, and 1.5 kB when it was not.
RUNS_OVER_MAX = 100_000
#: Sets deleted at most in one commit, so that a lowered limit does not stop the worker for seconds.
PRUNE_MAX = 1_000
#: Rows written until it is looked again whether something has to go: counting takes 5 ms.
SLACK_MAX = 1_000
#: Nothing is looked for longer than this, so that a quiet root deletes too.
LOOK_NS = HOUR
#: Resolved incidents, and silences that have ended, that are kept.
RESOLVED_MAX = 1_000
ENDED_MAX = 1_000
#: Rows without an event that are kept of each state.
ORPHANS_MAX = 1_000
#: Sets that are passed over, because they may not go, in the search for others.
PASSED_OVER_MAX = 50_000
#: The wall clock may run away from the kernel's by this much from one look to the next...
DRIFT_NS = 5 * MINUTE
#: ...and is believed again after this: somebody had a day to see what the time is.
DOUBT_NS = DAY

#: Events of which nothing is owed and nothing waits.
_FREE = (
    "NOT EXISTS (SELECT 1 FROM hook_runs r WHERE r.event_id = {0}.event_id AND r.state = 'pending')"
    " AND NOT EXISTS (SELECT 1 FROM unsent u WHERE u.event_id = {0}.event_id AND u.state = 'held')"
)
_OLDEST_EVENTS = f"SELECT e.event_id, e.at FROM events e WHERE {_FREE.format('e')} ORDER BY e.sequence LIMIT ? OFFSET ?"
_TABLE_OF_STATE = {RunState.DONE: "hook_runs", RunState.DEAD: "hook_runs", RunState.SUPPRESSED: "unsent"}


def boottime() -> int:
    """The kernel's clock in ns, which also advances while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Age:
    """The wall time that deletions go by."""

    def __init__(self, clock: Callable[[], int] = boottime) -> None:
        self._clock = clock
        self._wall = 0
        self._seen_at = 0
        #: Until when the wall clock is not believed, by the kernel's clock.
        self._doubt_until = 0

    def begin(self, newest_wall_ns: int) -> None:
        """Start after the newest event: a clock that is far beyond it may be wrong, or the root was off for long."""
        self._wall, self._seen_at = newest_wall_ns, self._clock()
        self._doubt_until = 0

    def tell(self, wall_ns: int) -> int:
        """Learn the wall time; returns the time to go by."""
        now = self._clock()
        expected = self._wall + now - self._seen_at
        if self._wall and wall_ns > expected + DRIFT_NS:
            self._doubt_until = self._doubt_until or now + DOUBT_NS
            if now < self._doubt_until:
                return expected
        self._doubt_until = 0
        self._wall, self._seen_at = wall_ns, now
        return wall_ns


class Retention:
    """Deletes what is too old or too much, a little with each commit."""

    def __init__(
        self, events_max: int, runs_over_max: int, retention_ns: int, clock: Callable[[], int] = boottime
    ) -> None:
        self._events_max = events_max
        self._runs_over_max = runs_over_max
        self._retention_ns = retention_ns
        self._age = Age(clock)
        self._clock = clock
        self._slack = max(1, min(SLACK_MAX, min(events_max, runs_over_max) // 100))
        #: Rows written since it was last looked, and when that was; a look that found enough for two is repeated.
        self._rows = 0
        self._looked_at = 0
        self._again = True
        #: Events that open troubles name, by trouble, and how often.
        self._named: dict[tuple[str, str], tuple[str, ...]] = {}
        self._names: dict[str, int] = {}

    def begin(self, troubles: Iterable[Trouble], newest_wall_ns: int) -> None:
        """Start with what is on disk."""
        self._named.clear()
        self._names.clear()
        self._again = True
        self._age.begin(newest_wall_ns)
        for trouble in troubles:
            self._name(trouble)

    def wrote(self, batch: Batch) -> None:
        """A batch is on disk."""
        for trouble in batch.troubles:
            self._name(trouble)
        for subject, axis in batch.ended:
            self._unname((subject, axis.value))

    def prune(self, database: Database, batch: Batch, now_wall_ns: int) -> None:
        """Within the transaction of `batch`, after it was written: delete what has to go."""
        if any(incident.state is IncidentState.RESOLVED for incident in batch.incidents):
            _keep_newest(database, "incidents", "incident_id", "resolved = 1", (), RESOLVED_MAX)
        now_wall_ns = self._age.tell(now_wall_ns) if now_wall_ns else 0
        if batch.silences:
            _keep_newest(database, "silences", "silence_id", "ends <= ?", (now_wall_ns,), ENDED_MAX)
        self._rows += len(batch.events) + sum(map(is_over, batch.runs))
        now = self._clock()
        if not self._again and self._rows < self._slack and now < self._looked_at + LOOK_NS:
            return
        self._rows, self._looked_at, self._again = 0, now, False
        keep = set(self._names)
        # Also what this very batch names.
        keep.update(event_id for trouble in batch.troubles for event_id in _events_of(trouble))
        going = dict.fromkeys(self._old(database, now_wall_ns, keep))
        for state in _TABLE_OF_STATE:
            if len(going) < PRUNE_MAX:
                going.update(dict.fromkeys(self._over(database, state, keep, PRUNE_MAX - len(going))))
        self._again = len(going) >= PRUNE_MAX
        gone = [(event_id,) for event_id in going]
        for table in (EVENTS, RUNS, UNSENT):
            database.remove(table, ("event_id",), gone)
            if gone:
                failpoint.hit("history-pruned")

    def _old(self, database: Database, now_wall_ns: int, keep: set[str]) -> list[str]:
        """Events that are beyond the number kept, or beyond the age, oldest first."""
        ((count,),) = database.rows("SELECT count(*) FROM events")
        excess = count - self._events_max
        oldest = now_wall_ns - self._retention_ns if now_wall_ns and self._retention_ns else 0
        found: list[str] = []
        if excess <= 0:
            first = database.rows("SELECT at FROM events ORDER BY sequence LIMIT 1")
            if not first or first[0][0] >= oldest:
                return found
        for offset in range(0, PASSED_OVER_MAX, PRUNE_MAX):
            page = database.rows(_OLDEST_EVENTS, (PRUNE_MAX, offset))
            for event_id, at in page:
                if len(found) >= max(0, excess) and at >= oldest:
                    return found
                if event_id not in keep:
                    found.append(event_id)
                if len(found) >= PRUNE_MAX:
                    return found
            if len(page) < PRUNE_MAX:
                break
        return found

    def _over(self, database: Database, state: RunState, keep: set[str], most: int) -> list[str]:
        """Events of rows that are beyond the number kept of their state, oldest first."""
        table = _TABLE_OF_STATE[state]
        ((count,),) = database.rows(f"SELECT count(*) FROM {table} WHERE state = ?", (state.value,))
        excess = count - self._runs_over_max
        orphans = (
            f"SELECT t.event_id FROM {table} t WHERE t.state = ? AND {_FREE.format('t')} AND NOT EXISTS"
            " (SELECT 1 FROM events e WHERE e.event_id = t.event_id) ORDER BY t.queued DESC LIMIT ? OFFSET ?"
        )
        most_orphans = min(ORPHANS_MAX, self._runs_over_max)
        found: list[str] = []
        if count > most_orphans:
            rows = database.rows(orphans, (state.value, most, most_orphans))
            found = [event_id for (event_id,) in rows if event_id not in keep]
        select = (
            f"SELECT t.event_id FROM {table} t WHERE t.state = ? AND {_FREE.format('t')}"
            " ORDER BY t.queued LIMIT ? OFFSET ?"
        )
        passed = 0
        while len(found) < min(most, excess) and passed < PASSED_OVER_MAX:
            page = database.rows(select, (state.value, min(most, excess), passed))
            found += [row[0] for row in page if row[0] not in keep]
            if len(page) < min(most, excess):
                break
            passed += len(page)
        return found[:most]

    def _name(self, trouble: Trouble) -> None:
        key = (trouble.subject, trouble.axis.value)
        self._unname(key)
        events = _events_of(trouble)
        if events:
            self._named[key] = events
            for event_id in events:
                self._names[event_id] = self._names.get(event_id, 0) + 1

    def _unname(self, key: tuple[str, str]) -> None:
        for event_id in self._named.pop(key, ()):
            self._names[event_id] -= 1
            if not self._names[event_id]:
                del self._names[event_id]


def _events_of(trouble: Trouble) -> tuple[str, ...]:
    """Of which events the notifications are that a trouble names: a `run_id` is event and receiver."""
    return tuple(told.run_id.removesuffix(f"-{name}") for name, told in trouble.told.items() if told.run_id)


def _keep_newest(database: Database, table: str, key: str, condition: str, values: tuple[Any, ...], most: int) -> None:
    database.run(
        f"DELETE FROM {table} WHERE {key} IN"
        f" (SELECT {key} FROM {table} WHERE {condition} ORDER BY number DESC LIMIT ? OFFSET ?)",
        (*values, PRUNE_MAX, most),
    )
