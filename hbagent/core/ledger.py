"""What the root owes its disk: one batch on the way, and the next one filling up meanwhile.

Think of a clerk who posts one bundle at a time and signs nothing before the receipt is back. While a bundle is on its
way, what happens is laid on the next one, newest state over older; so a slow disk makes bundles larger, not their
number. A bundle that came back undelivered is posted again as it was, for whoever waits for it waits for all of it.

A disk that fails, or does not answer, suspends the promise (`degraded`), not the alarms: hook runs that could not be
written are begun from memory, and when they reach the disk at last, they are not begun once more.
"""

from __future__ import annotations

from collections import deque

from .effects import Persist
from .records import (
    Batch,
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
from .states import Axis
from .units import SECOND, show_duration

#: After a failed transaction the store is tried again after this.
RETRY_NS = SECOND
#: A transaction takes milliseconds, on a busy disk up to a second. One that takes longer holds up no alarm.
PATIENCE_NS = 3 * SECOND
#: Lines of history that wait for a disk that fails: the oldest are lost first. At about 1 kB each this is 20 MB.
EVENTS_MAX = 20_000
#: Hook runs that wait to be written, likewise.
RUNS_MAX = 20_000


class Ledger:
    """Everything that is to be written, and what became of it."""

    def __init__(self, events_max: int = EVENTS_MAX, runs_max: int = RUNS_MAX) -> None:
        self._events_max = events_max
        self._runs_max = runs_max
        self._trouble = ""
        #: Events that no disk will ever have.
        self.lost = 0
        self._token = 0
        self._in_flight: Batch | None = None
        self._posted_at = 0
        self._retry_at: int | None = None
        #: Runs that were never begun, by id.
        self._owed: dict[str, HookRun] = {}
        self._events: deque[Event] = deque()
        self._nodes: dict[str, NodeState] = {}
        self._marks: dict[tuple[str, int], Mark] = {}
        self._runs: dict[str, HookRun] = {}
        self._forgotten: dict[str, None] = {}
        self._convictions: dict[str, Conviction] = {}
        #: Never more than were on disk or on their way when it began to fail: the others are not written at all.
        self._folded: dict[str, None] = {}
        self._tally: Tally | None = None
        self._troubles: dict[tuple[str, Axis], Trouble] = {}
        self._ended: dict[tuple[str, Axis], None] = {}
        self._incidents: dict[str, Incident] = {}
        self._silences: dict[str, Silence] = {}

    @property
    def degraded(self) -> str:
        """ "" or why what is told now may not be on disk."""
        if not self._trouble:
            return ""
        return f"store: {self._trouble}" + (f"; {self.lost} events lost" if self.lost else "")

    # ---- filling the next batch --------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        """One more line of history."""
        if len(self._events) >= self._events_max:
            self._events.popleft()
            self.lost += 1
            self._trouble = self._trouble or "too slow"
        self._events.append(event)

    def node(self, state: NodeState) -> None:
        """The newest state of a node, or of a leader."""
        self._forgotten.pop(state.node, None)
        self._nodes[state.node] = state

    def mark(self, mark: Mark) -> None:
        """How far a leader's transitions are taken in."""
        self._marks[mark.leader, mark.epoch] = mark

    def run(self, run: HookRun) -> None:
        """A hook run as it now stands."""
        if run.state is RunState.PENDING and run.attempt == 0:
            self._owed[run.run_id] = run
        self._runs.pop(run.run_id, None)
        if len(self._runs) >= self._runs_max:
            over = (run_id for run_id, other in self._runs.items() if other.state is not RunState.PENDING)
            del self._runs[next(over, next(iter(self._runs)))]
            self._trouble = self._trouble or "too slow"
        self._runs[run.run_id] = run

    def forget(self, node: str) -> None:
        """A node is expected no longer: its state goes, its events stay."""
        self._nodes.pop(node, None)
        self._forgotten[node] = None

    def conviction(self, conviction: Conviction) -> None:
        """A verdict about a death, as it now stands."""
        self._convictions[conviction.event_id] = conviction

    def fold(self, event_id: str) -> None:
        """A verdict is kept in the tally alone from now on."""
        if self._convictions.pop(event_id, None) is None or self._in_flight is not None:
            self._folded[event_id] = None

    def trouble(self, trouble: Trouble) -> None:
        """A trouble, and what each receiver was told of it, as it now stands."""
        key = (trouble.subject, trouble.axis)
        self._ended.pop(key, None)
        self._troubles[key] = trouble

    def over(self, subject: str, axis: Axis) -> None:
        """A trouble is over, and nothing is left to be told of it."""
        self._troubles.pop((subject, axis), None)
        self._ended[subject, axis] = None

    def incident(self, incident: Incident) -> None:
        """An incident as it now stands."""
        self._incidents[incident.incident_id] = incident

    def silence(self, silence: Silence) -> None:
        """A silence as it now stands."""
        self._silences[silence.silence_id] = silence

    def tally(self, tally: Tally) -> None:
        """The newest count of what is not kept one by one."""
        self._tally = tally

    # ---- writing -----------------------------------------------------------------------------------------

    def write(self, now: int) -> Persist | None:
        """Send the next batch on its way, when none is and there is something in it."""
        filled = (
            self._events,
            self._nodes,
            self._marks,
            self._runs,
            self._forgotten,
            self._convictions,
            self._folded,
            self._troubles,
            self._ended,
            self._incidents,
            self._silences,
        )
        if self._in_flight is not None or not (any(filled) or self._tally is not None):
            return None
        self._in_flight = Batch(
            events=tuple(self._events),
            nodes=tuple(self._nodes.values()),
            marks=tuple(self._marks.values()),
            runs=tuple(self._runs.values()),
            forgotten=tuple(self._forgotten),
            convictions=tuple(self._convictions.values()),
            folded=tuple(self._folded),
            tally=self._tally,
            troubles=tuple(self._troubles.values()),
            ended=tuple(self._ended),
            incidents=tuple(self._incidents.values()),
            silences=tuple(self._silences.values()),
        )
        for container in filled:
            container.clear()
        self._tally = None
        return self._post(self._in_flight, now)

    def kept(self, token: int) -> Batch | None:
        """A batch is on disk: returns it; None when this is not the one under way."""
        if token != self._token:
            return None
        batch, self._in_flight = self._in_flight, None
        self._trouble = ""
        self.lost = 0
        return batch

    def failed(self, token: int, reason: str, now: int) -> bool:
        """A batch could not be written and is tried again soon; False when this is not the one under way."""
        if self._in_flight is None or token != self._token:
            return False
        self._trouble = reason
        self._retry_at = now + RETRY_NS
        return True

    def retry(self, now: int) -> Persist | None:
        """Some time after a failure: the same batch once more."""
        if self._in_flight is None or self._retry_at is None or now < self._retry_at:
            return None
        self._retry_at = None
        return self._post(self._in_flight, now)

    def stuck(self, now: int) -> bool:
        """True once when the disk has not answered in time; its answer still counts when it comes."""
        if self._in_flight is None or self._trouble or now < self._posted_at + PATIENCE_NS:
            return False
        self._trouble = f"no answer for {show_duration(now - self._posted_at)}"
        return True

    def deadline(self) -> int | None:
        """When `retry` or `stuck` has something to do."""
        if self._in_flight is None or self._trouble:
            return self._retry_at
        return self._posted_at + PATIENCE_NS

    def _post(self, batch: Batch, now: int) -> Persist:
        self._posted_at = now
        self._token += 1
        return Persist(self._token, batch)

    # ---- hook runs ---------------------------------------------------------------------------------------

    def due(self, batch: Batch) -> list[HookRun]:
        """Runs to begin now that `batch` is on disk. Of one that is owed since, the disk may have an older state."""
        kept = (run for run in batch.runs if run.state is RunState.PENDING)
        return [run for run in kept if self._owed.pop(run.run_id, None) is not None]

    def due_from_memory(self) -> list[HookRun]:
        """Runs to begin although the disk has not got them, because it fails."""
        if not self._trouble:
            return []
        runs = list(self._owed.values())
        self._owed.clear()
        return runs
