"""Whose turn it is: hook runs in order per node, a few at once, tried again, and at last put aside.

A run is owed from the moment its event is on disk until a process ended with status 0 or the last retry failed. This
file only says which run may start now; the processes are the driver's, the disk is the store's.
"""

from __future__ import annotations

import heapq
from collections import deque

import msgspec

from .config import HookConfig
from .effects import RunHook
from .messages import HookFinished
from .records import HookRun, RunState

Key = tuple[str, str]


class Dispatch:
    """Waiting and running hook runs."""

    def __init__(
        self, hooks: tuple[HookConfig, ...], concurrency: int, retries_ns: tuple[int, ...], limit: int
    ) -> None:
        self._hooks = {hook.name: hook for hook in hooks}
        self._concurrency = concurrency
        self._retries_ns = retries_ns
        self._limit = limit
        self._queues: dict[Key, deque[HookRun]] = {}
        #: Heads of queues that are not running: (due, order, key).
        self._heads: list[tuple[int, int, Key]] = []
        self._running: dict[str, Key] = {}
        self.waiting = 0
        self.folded = 0
        self.dead = 0

    def reconfigure(
        self, hooks: tuple[HookConfig, ...], concurrency: int, retries_ns: tuple[int, ...], limit: int
    ) -> None:
        """Go on with other settings. A waiting run of a hook that is gone keeps the command it was owed to."""
        self._hooks |= {hook.name: hook for hook in hooks}
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
        self.waiting += 1
        if len(queue) == 1:
            heapq.heappush(self._heads, (due, run.queued, key))
        return given_up

    def ready(self, now: int) -> tuple[RunHook, ...]:
        """Start these: due, next of their node, and within the number that may run at once."""
        starting = []
        while self._heads and self._heads[0][0] <= now and len(self._running) < self._concurrency:
            _, _, key = heapq.heappop(self._heads)
            run = self._queues[key][0]
            hook = self._hooks[run.hook]
            self._running[run.run_id] = key
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
        """A process ended; returns the run as it now stands, None for one that was not running."""
        key = self._running.pop(result.run_id, None)
        if key is None:
            return None
        queue = self._queues[key]
        run = msgspec.structs.replace(queue[0], attempt=queue[0].attempt + 1, error=result.error)
        wait = None
        if result.exit_code == 0 and not result.error:
            run = msgspec.structs.replace(run, state=RunState.DONE)
        elif run.attempt <= len(self._retries_ns):
            wait = self._retries_ns[run.attempt - 1]
            run = msgspec.structs.replace(run, due_wall_ns=now_wall_ns + wait)
        else:
            run = self._give_up(run, result.error or f"exit {result.exit_code}")
        if wait is not None:
            queue[0] = run
            heapq.heappush(self._heads, (now + wait, run.queued, key))
            return run
        queue.popleft()
        self.waiting -= 1
        if queue:
            heapq.heappush(self._heads, (now, queue[0].queued, key))
        else:
            del self._queues[key]
        return run

    def deadline(self) -> int | None:
        """When a waiting run comes due; None while all places are taken or nothing waits."""
        if len(self._running) >= self._concurrency or not self._heads:
            return None
        return self._heads[0][0]

    def _is_running(self, key: Key) -> bool:
        return key in self._running.values()

    def _fold(self, key: Key, queue: deque[HookRun]) -> HookRun:
        """Make room: give up the oldest run of this node that has not started; a newer one tells the newer state."""
        index = 1 if self._is_running(key) else 0
        run = queue[index]
        del queue[index]
        self.waiting -= 1
        self.folded += 1
        if index == 0:
            self._heads = [head for head in self._heads if head[2] != key]
            heapq.heapify(self._heads)
            if queue:
                heapq.heappush(self._heads, (0, queue[0].queued, key))
        return self._give_up(run, "folded into a newer run of the same node: too many were waiting")

    def _give_up(self, run: HookRun, error: str) -> HookRun:
        self.dead += 1
        return msgspec.structs.replace(run, state=RunState.DEAD, error=error)


def _with_attempt(document: bytes, attempt: int) -> bytes:
    body = msgspec.json.decode(document)
    body["attempt"] = attempt
    return msgspec.json.encode(body)
