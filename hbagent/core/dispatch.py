"""Whose turn it is: hook runs in order per node, a few at once, tried again, and at last put aside.

A run is owed from the moment its event is on disk until a process ended with status 0 or the last retry failed. This
file only says which run may start now; the processes are the driver's, the disk is the store's.

A hook that hangs holds up its own runs and nobody else's: no hook may have all the places, as long as there are others
that would have none.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import msgspec

from .config import HookConfig
from .effects import RunHook
from .messages import HookFinished
from .records import HookRun, RunState
from .units import MILLISECOND, SECOND
from .views import SCHEMA
from .wallclock import rfc3339

Key = tuple[str, str]

#: What a hook printed, as it is kept of its last run for whoever asks: the end says what went wrong.
OUTPUT_KEPT_MAX = 4096
#: The last line of it stands beside the error of a failed run, and goes to disk with it.
LINE_KEPT_MAX = 200


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """How the newest run of a hook that has ended did."""

    at_wall_ns: int
    event_id: str
    error: str
    output: str
    took_ns: int


class Score(msgspec.Struct, kw_only=True):
    """What came of the runs of one hook since the start."""

    waiting: int = 0
    running: int = 0
    #: Runs that ended well, attempts that failed, runs that were given up.
    done: int = 0
    failed: int = 0
    dead: int = 0
    last: Last | None = None


class Dispatch:
    """Waiting and running hook runs."""

    def __init__(
        self, hooks: tuple[HookConfig, ...], concurrency: int, retries_ns: tuple[int, ...], limit: int
    ) -> None:
        self._hooks = {hook.name: hook for hook in hooks}
        #: Those in the config that is in force.
        self._configured = tuple(self._hooks)
        self._concurrency = concurrency
        self._retries_ns = retries_ns
        self._limit = limit
        self._queues: dict[Key, deque[HookRun]] = {}
        #: Heads of queues that are not running, by hook: (due, order, key).
        self._heads: dict[str, list[tuple[int, int, Key]]] = {}
        self._running: dict[str, Key] = {}
        self._scores = {hook.name: Score() for hook in hooks}
        self.waiting = 0
        self.folded = 0
        self.dead = 0

    def reconfigure(
        self, hooks: tuple[HookConfig, ...], concurrency: int, retries_ns: tuple[int, ...], limit: int
    ) -> None:
        """Go on with other settings. A waiting run of a hook that is gone keeps the command it was owed to."""
        self._hooks |= {hook.name: hook for hook in hooks}
        self._configured = tuple(hook.name for hook in hooks)
        for name in self._configured:
            self._scores.setdefault(name, Score())
        self._concurrency = concurrency
        self._retries_ns = retries_ns
        self._limit = limit

    def add(self, run: HookRun, due: int) -> tuple[HookRun, ...]:
        """Owe `run`, from the monotonic instant `due` on; returns runs that are given up instead, as they now are."""
        if run.hook not in self._hooks:
            return (self._give_up(run, "this hook is not in the config any more"),)
        key = (run.hook, run.node or run.event_id)
        queue = self._queues.get(key)
        given_up: tuple[HookRun, ...] = ()
        if self.waiting >= self._limit:
            if queue is None or (len(queue) == 1 and self._is_running(key)):
                return (self._give_up(run, f"more than {self._limit} hook runs were waiting"),)
            given_up = (self._fold(key, queue),)
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(run)
        self._count(run.hook, 1)
        if len(queue) == 1:
            self._wait(due, run.queued, key)
        return given_up

    def ready(self, now: int) -> tuple[RunHook, ...]:
        """Start these: due, next of their node, and within the number that may run at once."""
        starting = []
        while len(self._running) < self._concurrency:
            first = min((heads[0] for heads in self._open()), default=None)
            if first is None or first[0] > now:
                break
            key = first[2]
            heapq.heappop(self._heads[key[0]])
            run = self._queues[key][0]
            hook = self._hooks[run.hook]
            self._running[run.run_id] = key
            self._scores[run.hook].running += 1
            starting.append(
                RunHook(
                    run_id=run.run_id,
                    hook=run.hook,
                    argv=hook.argv,
                    timeout_ns=hook.timeout_ns,
                    input=_with_attempt(run.input, run.attempt + 1),
                )
            )
        return tuple(starting)

    def finished(self, result: HookFinished, now: int, now_wall_ns: int) -> HookRun | None:
        """A process ended; returns the run as it now stands, None for one that was not running.

        The error of a failed one ends with the last line that it printed.
        """
        key = self._running.pop(result.run_id, None)
        if key is None:
            return None
        queue = self._queues[key]
        score = self._scores[key[0]]
        score.running -= 1
        run = msgspec.structs.replace(queue[0], attempt=queue[0].attempt + 1, error=_why(result))
        score.last = Last(
            at_wall_ns=now_wall_ns,
            event_id=run.event_id,
            error=run.error,
            output=result.output[-OUTPUT_KEPT_MAX:].decode("utf-8", "replace"),
            took_ns=result.duration_ns,
        )
        wait = None
        if not run.error:
            score.done += 1
            run = msgspec.structs.replace(run, state=RunState.DONE)
        elif run.attempt <= len(self._retries_ns):
            score.failed += 1
            wait = self._retries_ns[run.attempt - 1]
            run = msgspec.structs.replace(run, due_wall_ns=now_wall_ns + wait)
        else:
            score.failed += 1
            run = self._give_up(run, run.error)
        if wait is not None:
            queue[0] = run
            self._wait(now + wait, run.queued, key)
            return run
        queue.popleft()
        self._count(run.hook, -1)
        if queue:
            self._wait(now, queue[0].queued, key)
        else:
            del self._queues[key]
        return run

    def deadline(self) -> int | None:
        """When a waiting run comes due; None while all places are taken or nothing waits."""
        if len(self._running) >= self._concurrency:
            return None
        return min((heads[0][0] for heads in self._open()), default=None)

    def view(self) -> dict[str, Any]:
        """Each hook and how it does, as a console is shown it; counts are since the start."""
        gone = [name for name, score in self._scores.items() if score.waiting and name not in self._configured]
        return {"schema": SCHEMA, "hooks": [self._row(name) for name in (*self._configured, *gone)]}

    def _row(self, name: str) -> dict[str, Any]:
        hook, score = self._hooks[name], self._scores[name]
        last = score.last
        return {
            "hook": name,
            "configured": name in self._configured,
            "command": list(hook.argv),
            "on": [kind.value for kind in hook.on],
            "hold_s": hook.hold_ns / SECOND,
            "timeout_s": hook.timeout_ns / SECOND,
            "waiting": score.waiting - score.running,
            "running": score.running,
            "done": score.done,
            "failed": score.failed,
            "dead": score.dead,
            "last": None
            if last is None
            else {
                "at": rfc3339(last.at_wall_ns),
                "event_id": last.event_id,
                "error": last.error,
                "output": last.output,
                "took_ms": round(last.took_ns / MILLISECOND, 3),
            },
        }

    def _open(self) -> list[list[tuple[int, int, Key]]]:
        """Queues of hooks of which one more run may start, as far as the hook is concerned."""
        others = max(0, len(self._configured) - 1)
        share = max(1, self._concurrency - others)
        return [heads for name, heads in self._heads.items() if heads and self._scores[name].running < share]

    def _wait(self, due: int, order: int, key: Key) -> None:
        heapq.heappush(self._heads.setdefault(key[0], []), (due, order, key))

    def _count(self, hook: str, change: int) -> None:
        self.waiting += change
        self._scores[hook].waiting += change

    def _is_running(self, key: Key) -> bool:
        return key in self._running.values()

    def _fold(self, key: Key, queue: deque[HookRun]) -> HookRun:
        """Make room: give up the oldest run of this node that has not started; a newer one tells the newer state."""
        index = 1 if self._is_running(key) else 0
        run = queue[index]
        del queue[index]
        self._count(run.hook, -1)
        self.folded += 1
        if index == 0:
            heads = self._heads[run.hook] = [head for head in self._heads[run.hook] if head[2] != key]
            heapq.heapify(heads)
            if queue:
                self._wait(0, queue[0].queued, key)
        return self._give_up(run, "folded into a newer run of the same node: too many were waiting")

    def _give_up(self, run: HookRun, error: str) -> HookRun:
        self.dead += 1
        score = self._scores.get(run.hook)
        if score is not None:
            score.dead += 1
        return msgspec.structs.replace(run, state=RunState.DEAD, error=error)


def revived(run: HookRun, now_wall_ns: int) -> HookRun:
    """A run that was given up, owed once more with all its attempts; the event is the same, and so is its id."""
    return msgspec.structs.replace(run, state=RunState.PENDING, attempt=0, due_wall_ns=now_wall_ns, error="")


def _why(result: HookFinished) -> str:
    """Why a process counts as failed; "" when it does not."""
    if result.exit_code == 0 and not result.error:
        return ""
    error = result.error or f"exit {result.exit_code}"
    said = result.output.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    return f"{error}: {last[:LINE_KEPT_MAX]}" if last else error


def _with_attempt(document: bytes, attempt: int) -> bytes:
    body = msgspec.json.decode(document)
    body["attempt"] = attempt
    return msgspec.json.encode(body)
