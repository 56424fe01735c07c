"""Whose turn it is: hook runs in order per node, a few at once, tried again, and at last put aside.

A run is owed from the moment its event is on disk until a process ended with status 0 or the last retry failed. This
file only says which run may start now; the processes are the driver's, the disk is the store's.

A run stands in a queue of its hook for each name that it tells of: one for most, all its members for a summary. It
starts when it is the first in all of them and leaves all of them when it is over, so nobody hears of a node in another
order than things were told. It joins all of them at once, hence the oldest run of a hook is always the first
everywhere, and no two ever wait for one another.

A hook that hangs holds up its own runs and nobody else's. So there is a place more for each hook beside the first, no
hook has more than `concurrency`, and none takes a second one that would leave another hook without any. The places of
all are bounded by what the hook runner has hands for: a run that waited there would wait with its time limit running.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
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

#: Runs under way at once, whatever a config asks for: the 64 that one may ask for, and one for each of four more hooks.
#: With more hooks than that one has fewer than it may; with more than this, one that hangs may hold up another.
PLACES_MAX = 68
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


class _Owed:
    """A run that is not over, in its queues."""

    __slots__ = ("behind", "due", "keys", "run")

    def __init__(self, run: HookRun, due: int) -> None:
        self.run = run
        self.due = due
        #: The queue that it is known by, then those of its members.
        self.keys: tuple[Key, ...] = ((run.hook, run.node or run.event_id),)
        if run.members:
            self.keys = tuple(dict.fromkeys((*self.keys, *((run.hook, member) for member in run.members))))
        #: In how many of them another one is first.
        self.behind = 0

    def tells_only_of(self, keys: Mapping[Key, object]) -> bool:
        """True if it stands in one of the queues `keys`, and nobody of whom it tells has another one."""
        return all((self.run.hook, member) in keys for member in self.run.members)


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
        #: Nearly all hold one run: a list of one takes 88 bytes, a deque 760, and a summary may have 10,000 members.
        self._queues: dict[Key, list[_Owed]] = {}
        #: Runs that are first in all of their queues and not running, by hook: (due, order, first key).
        self._heads: dict[str, list[tuple[int, int, Key]]] = {}
        self._running: dict[str, _Owed] = {}
        #: Every run that is not over.
        self._owed: set[str] = set()
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
        if run.run_id in self._owed:
            return ()
        owed = _Owed(run, due)
        given_up: tuple[HookRun, ...] = ()
        if self.waiting >= self._limit:
            older = self._foldable(owed)
            if older is None:
                return (self._give_up(run, f"more than {self._limit} hook runs were waiting"),)
            given_up = (self._fold(older),)
        for key in owed.keys:
            queue = self._queues.setdefault(key, [])
            if queue:
                owed.behind += 1
            queue.append(owed)
        self._owed.add(run.run_id)
        self._count(run.hook, 1)
        if not owed.behind:
            self._wait(owed)
        return given_up

    def ready(self, now: int) -> tuple[RunHook, ...]:
        """Start these: due, next of all of whom they tell, and within the number that may run at once."""
        starting = []
        while len(self._running) < self.places:
            first = min((heads[0] for heads in self._open()), default=None)
            if first is None or first[0] > now:
                break
            key = first[2]
            heapq.heappop(self._heads[key[0]])
            owed = self._queues[key][0]
            run = owed.run
            hook = self._hooks[run.hook]
            self._running[run.run_id] = owed
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
        owed = self._running.pop(result.run_id, None)
        if owed is None:
            return None
        score = self._scores[owed.run.hook]
        score.running -= 1
        run = msgspec.structs.replace(owed.run, attempt=owed.run.attempt + 1, error=_why(result))
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
            owed.run, owed.due = run, now + wait
            self._wait(owed)
            return run
        self._leave(owed, now)
        return run

    def deadline(self) -> int | None:
        """When a waiting run comes due; None while all places are taken or nothing waits."""
        if len(self._running) >= self.places:
            return None
        return min((heads[0][0] for heads in self._open()), default=None)

    def view(self) -> dict[str, Any]:
        """Each hook and how it does, as a console is shown it; counts are since the start."""
        return {"schema": SCHEMA, "hooks": [self._row(name) for name in self._names()]}

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

    @property
    def places(self) -> int:
        """How many runs may be under way at once, of all hooks together."""
        return min(self._concurrency + max(0, len(self._names()) - 1), PLACES_MAX)

    def _names(self) -> list[str]:
        """The hooks of the config, and those that are gone from it and still have something to tell."""
        return [*self._configured, *self._gone()]

    def _gone(self) -> list[str]:
        return [name for name, score in self._scores.items() if score.waiting and name not in self._configured]

    def _open(self) -> list[list[tuple[int, int, Key]]]:
        """Queues of hooks of which one more run may start, as far as the hooks are concerned."""
        idle = [name for name in self._names() if not self._scores[name].running]
        spare = self.places - len(self._running) - len(idle)
        return [
            heads
            for name, heads in self._heads.items()
            if heads and (name in idle or (spare > 0 and self._scores[name].running < self._concurrency))
        ]

    def _wait(self, owed: _Owed) -> None:
        heads = self._heads.setdefault(owed.run.hook, [])
        heapq.heappush(heads, (owed.due, owed.run.queued, owed.keys[0]))

    def _count(self, hook: str, change: int) -> None:
        self.waiting += change
        self._scores[hook].waiting += change

    def _leave(self, owed: _Owed, now: int) -> None:
        """It is over: whoever is first everywhere by that may start from `now` on."""
        self._owed.discard(owed.run.run_id)
        self._count(owed.run.hook, -1)
        for key in owed.keys:
            queue = self._queues[key]
            place = queue.index(owed)
            del queue[place]
            if not queue:
                del self._queues[key]
            elif place == 0:
                following = queue[0]
                following.behind -= 1
                if not following.behind:
                    following.due = max(following.due, now)
                    self._wait(following)

    def _foldable(self, newer: _Owed) -> _Owed | None:
        """What may make room for `newer`: the oldest of a queue that has not started and tells of nobody else."""
        keys = dict.fromkeys(newer.keys)
        refused: dict[str, None] = {}
        for key in newer.keys:
            for owed in self._queues.get(key, ()):
                run_id = owed.run.run_id
                if run_id in self._running or run_id in refused:
                    continue
                if owed.tells_only_of(keys):
                    return owed
                refused[run_id] = None
        return None

    def _fold(self, owed: _Owed) -> HookRun:
        """Make room: give up a run that has not started; a newer one tells the newer state of all that it tells of."""
        self.folded += 1
        if not owed.behind:
            heads = self._heads[owed.run.hook]
            heads[:] = [head for head in heads if head[2] != owed.keys[0]]
            heapq.heapify(heads)
        self._leave(owed, 0)
        return self._give_up(owed.run, "folded into a newer run of the same node: too many were waiting")

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
