"""Who is told of an event, and in which words.

A hook chooses kinds of events. The one rule beside that: who was told of a trouble is told of its end, whichever kind
the end has, and nobody is told of the end of a trouble that he never heard of.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .config import HookConfig
from .drill import is_drill
from .records import Event, HookRun
from .states import Cause, Kind, Liveness
from .views import SCHEMA, evidence_view
from .wallclock import rfc3339

#: Causes that prove that the host's kernel runs.
_UP = (Cause.PROCESS_EXIT, Cause.PROCESS_FROZEN, Cause.LINK_CUT)
_OF_RACKS = (Kind.RACK_DARK, Kind.RACK_RECOVERED)


def host_of(liveness: Liveness | None, cause: Cause | None) -> str:
    """What is known of a node's host: up, down or unknown. Nobody power-cycles a host for a dead agent on it."""
    if liveness is Liveness.ALIVE or cause in _UP:
        return "up"
    return "down" if cause is Cause.HOST_GONE else "unknown"


def notices(hooks: tuple[HookConfig, ...], event: Event, was_open: str) -> list[HookRun]:
    """One run for each hook that is told of `event`; `was_open` is the trouble of its node until now."""
    told = [hook for hook in hooks if _wants(hook, event, was_open)]
    if not told:
        return []
    document = msgspec.json.encode(_input(event))
    return [
        HookRun(
            run_id=f"{event.event_id}-{hook.name}",
            event_id=event.event_id,
            hook=hook.name,
            node=_queue_of(event),
            due_wall_ns=event.at_wall_ns,
            input=document,
            queued=event.sequence,
        )
        for hook in told
    ]


def _queue_of(event: Event) -> str:
    """Whose runs this one is in order with: those of its node, leader or rack, or those of the root itself."""
    if event.kind in _OF_RACKS:
        return event.rack
    return event.node or event.leader or "root"


def _wants(hook: HookConfig, event: Event, was_open: str) -> bool:
    """True when `hook` is told of `event`.

    The end of a trouble is told to whoever was told of its beginning: a recovery to hooks that had the SUSPECT or
    the DEAD, also when the node came back by a restart, or was only cut off while it left. What is withheld is
    history, but for such an end: whoever had the SUSPECT of a node that then went dark with its rack has its end.
    """
    if event.kind in (Kind.NODE_JOINED, Kind.NODE_ACCOUNTED) or event.late or (_of_drill(event) and not hook.drills):
        return False
    begun = {Kind(kind) for kind in was_open.split(",") if kind}
    told = bool(begun.intersection(hook.on))
    if event.withheld and not (told and event.liveness_to in (Liveness.ALIVE, Liveness.LEFT)):
        return False
    listens_to_trouble = Kind.NODE_DEAD in hook.on or Kind.NODE_SUSPECT in hook.on
    if event.kind is Kind.NODE_RECOVERED:
        return Kind.NODE_RECOVERED in hook.on and (told or not listens_to_trouble)
    if event.kind is Kind.LEADER_RECOVERED and was_open:
        return Kind.LEADER_RECOVERED in hook.on and told
    if event.kind in (Kind.NODE_RESTARTED, Kind.NODE_LEFT):
        return event.kind in hook.on or (told and Kind.NODE_RECOVERED in hook.on)
    return event.kind in hook.on


def _of_drill(event: Event) -> bool:
    """True for what is told of drills alone."""
    changes = event.evidence.changes if event.evidence is not None else ()
    return bool(changes) and all(is_drill(change.name) for change in changes)


def _input(event: Event) -> dict[str, Any]:
    """The document for a hook's standard input. Other people's scripts read it: keys are added, never changed."""
    return {
        "schema": SCHEMA,
        "event_id": event.event_id,
        "attempt": 0,
        "kind": event.kind.value,
        "at": rfc3339(event.at_wall_ns),
        "node": event.node or None,
        "rack": event.rack or None,
        "leader": event.leader or None,
        "liveness": {"from": event.liveness_from, "to": event.liveness_to},
        "health": {"from": event.health_from, "to": event.health_to},
        "cause": event.cause,
        "host": event.host,
        "drill": _of_drill(event),
        "evidence": evidence_view(event.evidence) if event.evidence is not None else {},
    }
