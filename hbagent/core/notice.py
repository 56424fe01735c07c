"""What an event says to a receiver, and to whom: pure words, no memory.

A receiver (a hook or a sink) chooses kinds of events. The one rule beside that: who was told of a trouble is told of
its end, whichever kind the end has, and nobody is told of the end of a trouble that he never heard of. Whether it is
told now, later or not at all is another question: `core.alerts`.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Any, Union

import msgspec

from .config import HookConfig, SinkConfig
from .drill import is_drill
from .health import RANK
from .messages import CHANGES_MAX, HealthChange
from .records import Event, Told, Trouble
from .states import HEALTH_ORDER, Axis, Cause, Health, Kind, Liveness
from .views import SCHEMA, evidence_view
from .wallclock import rfc3339

Receiver = Union[HookConfig, SinkConfig]
#: Leaders, and what each says of a node.
Observers = tuple[tuple[str, Liveness, Union[Cause, None]], ...]

#: The subject of what is told of the root itself.
ROOT = "root"
#: Causes that prove that the host's kernel runs.
_UP = (Cause.PROCESS_EXIT, Cause.PROCESS_FROZEN, Cause.LINK_CUT)
AXES = {
    Kind.HEALTH_CHANGED: Axis.HEALTH,
    Kind.RACK_DARK: Axis.RACK,
    Kind.RACK_RECOVERED: Axis.RACK,
    Kind.LEADER_LOST: Axis.LEADER,
    Kind.LEADER_RECOVERED: Axis.LEADER,
    Kind.ROOT_ISOLATED: Axis.ROOT,
}
BEGINNINGS = (Kind.NODE_SUSPECT, Kind.NODE_DEAD, Kind.NODE_AWAY, Kind.RACK_DARK, Kind.LEADER_LOST, Kind.ROOT_ISOLATED)
_ENDS = (Kind.NODE_RECOVERED, Kind.NODE_RESTARTED, Kind.NODE_LEFT, Kind.RACK_RECOVERED, Kind.LEADER_RECOVERED)
#: Told for their own sake as well: somebody who asks for them wants to know of each.
_NEWS_TOO = (Kind.NODE_RESTARTED, Kind.NODE_LEFT)
#: Kinds of which only history is told, and those that are told in a way of their own.
_NEVER = (Kind.NODE_JOINED, Kind.NODE_ACCOUNTED, Kind.WATCHDOG, Kind.SUMMARY)


class Phase(enum.Enum):
    """What an event is to the trouble of its subject."""

    #: It begins, or is another one now.
    BURNS = "burns"
    ENDS = "ends"
    #: Neither.
    NEWS = "news"


class Asked(enum.Enum):
    """Whether a receiver is to be told of an event."""

    NO = "no"
    YES = "yes"
    #: He asks for this kind, and it is the end of what he was never told of.
    NEVER_TOLD = "never-told"


def host_of(liveness: Liveness | None, cause: Cause | None) -> str:
    """What is known of a node's host: up, down or unknown. Nobody power-cycles a host for a dead agent on it."""
    if liveness is Liveness.ALIVE or cause in _UP:
        return "up"
    return "down" if cause is Cause.HOST_GONE else "unknown"


def subject_of(event: Event) -> str:
    """Whom an event is about: what is told of one subject keeps its order."""
    if event.kind in (Kind.RACK_DARK, Kind.RACK_RECOVERED):
        return event.rack
    return event.node or event.leader or ROOT


def axis_of(event: Event) -> Axis:
    """On which axis an event lies. That the root's leaders are heard again has the kind of a leader, and no leader."""
    axis = event.axis or AXES.get(event.kind, Axis.LIVENESS)
    if axis is Axis.HEALTH and of_drill(event):
        return Axis.DRILL
    return Axis.ROOT if axis is Axis.LEADER and not event.leader else axis


def phase_of(event: Event) -> Phase:
    """What an event is to the trouble of its subject on its axis."""
    if event.kind is Kind.HEALTH_CHANGED:
        over = event.health_to is Health.OK
        if of_drill(event) and event.evidence is not None:
            over = all(change.after is Health.OK for change in event.evidence.changes)
        return Phase.ENDS if over else Phase.BURNS
    if event.kind in BEGINNINGS:
        return Phase.BURNS
    return Phase.ENDS if event.kind in _ENDS else Phase.NEWS


def severity(kind: Kind, health: Health | None) -> int:
    """How bad a trouble is, to be compared with others on its axis only."""
    if kind is Kind.HEALTH_CHANGED and health is not None:
        return len(HEALTH_ORDER) - HEALTH_ORDER.index(health)
    return 1 if kind in (Kind.NODE_SUSPECT, Kind.NODE_AWAY) else 2


def parts_of(known: Mapping[str, int], event: Event) -> dict[str, int]:
    """What is not well in a trouble of health once `event` has been told, each part with the worst that it was since it
    broke; `known` is what was not well before. Empty on the other axes."""
    if event.kind is not Kind.HEALTH_CHANGED or event.health_to is None:
        return {}
    changes = changes_of(event)
    # An event names no more than this: of the others nobody knows here, and rather is one told twice than never.
    parts = dict(known) if len(changes) < CHANGES_MAX else {}
    if changes:
        parts.pop("", None)
    for change in changes:
        if change.after is Health.OK:
            parts.pop(part_of(change), None)
        else:
            level = severity(event.kind, change.after)
            parts[part_of(change)] = max(level, parts.get(part_of(change), 0))
    if not changes:
        parts[""] = max(severity(event.kind, event.health_to), parts.get("", 0))
    return parts


def bad_parts_in(input: bytes) -> dict[str, int]:
    """What the document of a change of health says is not well, part by part, as `parts_of` has it."""
    said: dict[str, Any] = msgspec.json.decode(input)
    changes = [(f"{one['subject']} {one['name']}", Health(one["after"])) for one in said["evidence"].get("changes", ())]
    found = changes or [("", Health(said["health"]["to"]))]
    return {part: severity(Kind.HEALTH_CHANGED, health) for part, health in found if health is not Health.OK}


def parts_before(event: Event) -> dict[str, int]:
    """What was not well before `event`, as far as it says."""
    bad = [change for change in changes_of(event) if change.before is not Health.OK]
    return {part_of(change): severity(event.kind, change.before) for change in bad}


def worsened(event: Event) -> tuple[str, ...]:
    """The parts of a node's health of which `event` tells that they are worse than before."""
    return tuple(part_of(change) for change in changes_of(event) if RANK[change.after] < RANK[change.before])


def changes_of(event: Event) -> tuple[HealthChange, ...]:
    """The parts of a node's health that `event` says have changed."""
    return event.evidence.changes if event.evidence is not None else ()


def part_of(change: HealthChange) -> str:
    """A part of a node's health in words: "app web"."""
    return f"{change.subject} {change.name}"


def is_news(trouble: Trouble, told: Told, but: Collection[str] = ()) -> bool:
    """True when something in `trouble` is worse than what a receiver was told of it, the parts of `but` aside."""
    # An older release kept no parts of what was told.
    if trouble.parts and (told.parts or not told.sent):
        return any(level > told.parts.get(part, 0) for part, level in trouble.parts.items() if part not in but)
    return severity(trouble.kind, trouble.health) > told.level


def asks(receiver: Receiver, event: Event, told: bool, known: bool = True) -> Asked:
    """Whether `receiver` is to be told of `event`.

    `told`: he was told that the trouble on this axis burns. `known`: there was one.
    """
    on = receiver.on
    if event.kind in _NEVER or (of_drill(event) and not receiver.drills):
        return Asked.NO
    if phase_of(event) is not Phase.ENDS:
        return Asked.YES if event.kind in on else Asked.NO
    if event.kind in _NEWS_TOO:
        return Asked.YES if event.kind in on or (told and Kind.NODE_RECOVERED in on) else Asked.NO
    if event.kind not in on:
        return Asked.NO
    axis = axis_of(event)
    if told or (axis is Axis.HEALTH and not known):
        return Asked.YES
    if axis is Axis.DRILL:
        return Asked.NEVER_TOLD
    listens = any(AXES.get(kind, Axis.LIVENESS) is axis for kind in on if kind in (*BEGINNINGS, Kind.HEALTH_CHANGED))
    if axis is Axis.ROOT and not listens:
        return Asked.NO
    return Asked.NEVER_TOLD if listens else Asked.YES


def of_drill(event: Event) -> bool:
    """True for what is told of drills alone."""
    if event.axis is Axis.DRILL:
        return True
    changes = changes_of(event)
    return bool(changes) and all(is_drill(change.name) for change in changes)


def document(event: Event) -> bytes:
    """The JSON document of an event for a hook's standard input.

    Other people's scripts read it: keys are added, never changed.
    """
    return msgspec.json.encode(content(event))


def content(event: Event) -> dict[str, Any]:
    """The same before it is encoded."""
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
        "incident": event.incident or None,
        "drill": of_drill(event),
        "test": False,
        "count": event.count,
        "members": list(event.members),
        "observers": _observers(event.observers),
        "evidence": evidence_view(event.evidence) if event.evidence is not None else {},
    }


def with_observers(document: bytes, observers: Observers) -> bytes:
    """A document that says what the leaders say now."""
    return msgspec.json.encode({**msgspec.json.decode(document), "observers": _observers(observers)})


def _observers(observers: Observers) -> list[dict[str, Any]]:
    return [{"leader": leader, "liveness": liveness, "cause": cause} for leader, liveness, cause in observers]
