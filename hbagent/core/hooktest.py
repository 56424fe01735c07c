"""Trying a hook: an event that never happened, marked as a test, goes the way of every other, to one hook alone.

It says `"test": true`, and is about nodes that no datacenter has, so that nobody acts on it. It is no line of history,
is not tried again, and what came of it goes to whoever asked.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .config import HookConfig
from .effects import Answer, RunHook
from .messages import Evidence, HookFinished
from .notice import content
from .records import Event
from .states import Cause, Health, Kind, Liveness
from .units import MILLISECOND
from .views import SCHEMA

#: Tests under way: one operator at one console; each has a process for as long as the hook's time limit.
TESTS_MAX = 4
#: What a run of a test is called, and no other run.
PREFIX = "test-"

_RACK = "test/rack1"
_NODE, _LEADER = f"{_RACK}/node1", f"{_RACK}-leader1"
_ENDS = (Kind.NODE_RECOVERED, Kind.NODE_RESTARTED, Kind.NODE_STEADY)


def sample(hook: HookConfig, kind: Kind | None, now_wall_ns: int, event_id: str = "test") -> bytes:
    """The JSON document of an event of this kind that never happened; None: the first kind that the hook asks for."""
    if kind is None:
        kind = hook.on[0] if hook.on else Kind.NODE_DEAD
    text = "A test of this hook by hand; nothing has happened."
    about: dict[str, Any] = {"node": _NODE, "rack": _RACK}
    if kind in (Kind.RACK_DARK, Kind.RACK_RECOVERED):
        about = {"rack": _RACK, "cause": Cause.RACK_DARK if kind is Kind.RACK_DARK else None}
    elif kind in (Kind.LEADER_LOST, Kind.LEADER_RECOVERED):
        about = {"leader": _LEADER, "cause": Cause.LEADER_LOST if kind is Kind.LEADER_LOST else None}
    elif kind in (Kind.ROOT_ISOLATED, Kind.WATCHDOG):
        about = {"cause": Cause.ROOT_ISOLATED if kind is Kind.ROOT_ISOLATED else None}
    elif kind is Kind.SUMMARY:
        about = {"rack": _RACK, "count": 2, "members": (_NODE, f"{_RACK}/node2")}
    elif kind is Kind.HEALTH_CHANGED:
        about |= {"health_from": Health.OK, "health_to": Health.CRITICAL, "liveness_to": Liveness.ALIVE, "host": "up"}
    elif kind is Kind.NODE_DEAD:
        # The host lives: nobody power-cycles it even without having read that this is a test.
        about |= {"liveness_from": Liveness.ALIVE, "liveness_to": Liveness.DEAD, "host": "up"}
        about |= {"cause": Cause.PROCESS_EXIT, "observers": ((_LEADER, Liveness.DEAD, Cause.PROCESS_EXIT),)}
    elif kind is Kind.NODE_SUSPECT:
        about |= {"liveness_from": Liveness.ALIVE, "liveness_to": Liveness.SUSPECT, "cause": Cause.SILENCE}
    elif kind in _ENDS:
        about |= {"liveness_from": Liveness.DEAD, "liveness_to": Liveness.ALIVE, "host": "up"}
    elif kind is Kind.NODE_LEFT:
        about |= {"liveness_from": Liveness.ALIVE, "liveness_to": Liveness.LEFT, "cause": Cause.LEFT}
    event = Event(
        event_id=event_id, sequence=0, kind=kind, at_wall_ns=now_wall_ns, evidence=Evidence(text=text), **about
    )
    return msgspec.json.encode({**content(event), "attempt": 1, "test": True})


class HookTests:
    """Tests of hooks under way, and who waits for each."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[bytes, int, RunHook]] = {}
        self._begun = 0

    def begin(self, asker: bytes, id: int, hook: HookConfig, now_wall_ns: int, kind: Kind | None = None) -> RunHook:
        """Run `hook` on a sample. Raises ValueError, with a sentence, when too many tests are under way."""
        if len(self._waiting) >= TESTS_MAX:
            raise ValueError(f"{TESTS_MAX} tests of hooks are under way; ask again when one has ended")
        self._begun += 1
        run_id = f"{PREFIX}{self._begun}"
        # Receivers drop what they have had under the same id, also from an earlier life of the root.
        document = sample(hook, kind, now_wall_ns, f"{run_id}-{now_wall_ns // MILLISECOND}")
        order = RunHook(run_id=run_id, hook=hook.name, argv=hook.argv, timeout_ns=hook.timeout_ns, input=document)
        self._waiting[run_id] = (asker, id, order)
        return order

    def finished(self, result: HookFinished) -> Answer | None:
        """A process ended: the answer to whoever asked for it, or None when it was no test."""
        known = self._waiting.pop(result.run_id, None)
        if known is None:
            return None
        asker, id, order = known
        return Answer(asker, id, outcome(order, result))


def outcome(order: RunHook, result: HookFinished) -> dict[str, Any]:
    """What came of a test, as whoever asked for it is shown it."""
    return {
        "schema": SCHEMA,
        "hook": order.hook,
        "command": list(order.argv),
        "ok": result.exit_code == 0 and not result.error,
        "exit_code": result.exit_code,
        "error": result.error,
        "took_ms": round(result.duration_ns / MILLISECOND, 3),
        "output": result.output.decode("utf-8", "replace"),
        "truncated": result.truncated,
        "sent": msgspec.json.decode(order.input),
    }
