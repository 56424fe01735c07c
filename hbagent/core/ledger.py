"""What the root owes its disk: one batch on the way, and the next one filling up meanwhile.

Think of a clerk who posts one bundle at a time and signs nothing before the receipt is back. While a bundle is on its
way, what happens is laid on the next one, newest state over older; so a slow disk makes bundles larger, not their
number. A bundle that came back undelivered is posted again as it was, for whoever waits for it waits for all of it.

A disk that fails suspends the promise (`degraded`), not the alarms: hook runs that could not be written are begun from
memory, and when they reach the disk at last, they are not begun once more.
"""

from __future__ import annotations

from .effects import Persist
from .records import Batch, Event, HookRun, Mark, NodeState, RunState
from .units import SECOND

#: After a failed transaction the store is tried again after this.
RETRY_NS = SECOND


class Ledger:
    """Everything that is to be written, and what became of it."""

    def __init__(self) -> None:
        #: "" or why what is told now may not be on disk.
        self.degraded = ""
        self._token = 0
        self._in_flight: Batch | None = None
        self._retry_at: int | None = None
        #: Runs that were begun before they were on disk, by id.
        self._begun: dict[str, HookRun] = {}
        self._events: list[Event] = []
        self._nodes: dict[str, NodeState] = {}
        self._marks: dict[tuple[str, int], Mark] = {}
        self._runs: dict[str, HookRun] = {}
        self._forgotten: list[str] = []

    # ---- filling the next batch --------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        """One more line of history."""
        self._events.append(event)

    def node(self, state: NodeState) -> None:
        """The newest state of a node, or of a leader."""
        self._nodes[state.node] = state

    def mark(self, mark: Mark) -> None:
        """How far a leader's transitions are taken in."""
        self._marks[mark.leader, mark.epoch] = mark

    def run(self, run: HookRun) -> None:
        """A hook run as it now stands."""
        self._runs[run.run_id] = run

    def forget(self, node: str) -> None:
        """A node is expected no longer: its state goes, its events stay."""
        self._nodes.pop(node, None)
        self._forgotten.append(node)

    # ---- writing -----------------------------------------------------------------------------------------

    def write(self) -> Persist | None:
        """Send the next batch on its way, when none is and there is something in it."""
        waiting = self._events or self._nodes or self._marks or self._runs or self._forgotten
        if self._in_flight is not None or not waiting:
            return None
        self._in_flight = Batch(
            events=tuple(self._events),
            nodes=tuple(self._nodes.values()),
            marks=tuple(self._marks.values()),
            runs=tuple(self._runs.values()),
            forgotten=tuple(self._forgotten),
        )
        self._events, self._nodes, self._marks, self._runs, self._forgotten = [], {}, {}, {}, []
        return self._post(self._in_flight)

    def kept(self, token: int) -> Batch | None:
        """A batch is on disk: returns it; None when this is not the one under way."""
        if token != self._token:
            return None
        batch, self._in_flight = self._in_flight, None
        self.degraded = ""
        return batch

    def failed(self, token: int, reason: str, now: int) -> bool:
        """A batch could not be written and is tried again soon; False when this is not the one under way."""
        if self._in_flight is None or token != self._token:
            return False
        self.degraded = f"store: {reason}"
        self._retry_at = now + RETRY_NS
        return True

    def retry(self, now: int) -> Persist | None:
        """Some time after a failure: the same batch once more."""
        if self._in_flight is None or self._retry_at is None or now < self._retry_at:
            return None
        self._retry_at = None
        return self._post(self._in_flight)

    def deadline(self) -> int | None:
        """When `retry` has something to do."""
        return self._retry_at

    def _post(self, batch: Batch) -> Persist:
        self._token += 1
        return Persist(self._token, batch)

    # ---- hook runs ---------------------------------------------------------------------------------------

    def due(self, batch: Batch) -> list[HookRun]:
        """Runs to begin now that `batch` is on disk."""
        return [run for run in _new(batch) if self._begun.pop(run.run_id, None) is None]

    def begin_from_memory(self) -> list[HookRun]:
        """Runs to begin although the disk has not got them."""
        runs = [run for run in _new(self._in_flight) if run.run_id not in self._begun]
        self._begun.update((run.run_id, run) for run in runs)
        return runs


def _new(batch: Batch | None) -> list[HookRun]:
    """The runs of `batch` that were never begun."""
    runs = batch.runs if batch is not None else ()
    return [run for run in runs if run.state is RunState.PENDING and run.attempt == 0]
