"""A trouble in the words of Alertmanager: labels, which say what it is, and annotations, which tell of it.

Two alerts with equal labels are one alert to Alertmanager, whatever else they say. So a label is what stays the same
while the trouble does: who, where, what, why. Sentences, ids and numbers are annotations. A trouble that becomes
another one (SUSPECT to DEAD, a cause that is known better) is another alert; `core.sinks` ends the old one.

Rules and inhibitions of other people name these labels, so their meaning never changes.
"""

from __future__ import annotations

import re

import msgspec

from .records import Event, Trouble
from .states import NODE_AXES, Axis, Cause, Health, Kind
from .wallclock import rfc3339

#: Longest annotation: two sentences of evidence; a notification on a phone shows less.
ANNOTATION_MAX = 1000
#: Members of a summary that are named in the description.
NAMED_MAX = 10
#: What Alertmanager takes as the name of a label.
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

_ALERT_NAMES = {
    Kind.NODE_SUSPECT: "HbagentHostSuspect",
    Kind.NODE_DEAD: "HbagentHostDown",
    Kind.NODE_AWAY: "HbagentHostAway",
    Kind.RACK_DARK: "HbagentRackDown",
    Kind.LEADER_LOST: "HbagentLeaderLost",
    Kind.ROOT_ISOLATED: "HbagentRootIsolated",
}
_FLAPPING = {
    Axis.LIVENESS: "HbagentHostFlapping",
    Axis.HEALTH: "HbagentHostFlapping",
    Axis.DRILL: "HbagentHostFlapping",
    Axis.RACK: "HbagentRackFlapping",
    Axis.LEADER: "HbagentLeaderFlapping",
    Axis.ROOT: "HbagentRootFlapping",
}
#: The name of the one alert that always fires.
WATCHDOG = "HbagentWatchdog"
#: A dead agent on a living host is a ticket, and no reason to wake anybody.
_HOST_LIVES = (Cause.PROCESS_EXIT, Cause.PROCESS_FROZEN)
_CRITICAL_KINDS = (Kind.NODE_DEAD, Kind.RACK_DARK, Kind.LEADER_LOST, Kind.ROOT_ISOLATED)
_CRITICAL_HEALTH = (Health.DEADLOCKED, Health.CRITICAL, Health.STALLED)

_SUMMARIES = {
    Kind.NODE_SUSPECT: "is suspected",
    Kind.NODE_DEAD: "is down",
    Kind.NODE_AWAY: "has left and stays away",
    Kind.RACK_DARK: "is dark",
    Kind.LEADER_LOST: "is lost",
    Kind.ROOT_ISOLATED: "hears no leader",
}


class AlertText(msgspec.Struct, frozen=True):
    """One alert without its times."""

    labels: dict[str, str]
    annotations: dict[str, str]


def alert_of(trouble: Trouble, event: Event | None = None) -> AlertText:
    """The alert that tells of `trouble`; `event` is the one that is told, when it is at hand."""
    labels = {
        "alertname": _name_of(trouble.kind, trouble.health),
        "severity": _severity(trouble),
        "rack": trouble.rack,
        "cause": trouble.cause.value if trouble.cause is not None else "",
        "drill": "true" if trouble.drill else "",
        **_subject(trouble.subject, trouble.axis),
    }
    return AlertText(_sound(labels), _annotations(trouble, event))


def flapping(subject: str, axis: Axis, rack: str, event_id: str) -> AlertText:
    """The alert that `subject` changes too often to tell of each change."""
    labels = {"alertname": _FLAPPING[axis], "severity": "warning", "rack": rack, **_subject(subject, axis)}
    if axis in NODE_AXES:
        labels["axis"] = axis.value
    annotations = {
        "summary": f"{subject} changes too often",
        "description": f"Each change of its {axis.value} is told no more, until it stays as it is.",
        "event_id": event_id,
        "runbook": _runbook(subject, axis, rack),
    }
    return AlertText(_sound(labels), {name: text for name, value in annotations.items() if (text := line(value))})


def watchdog(life: int) -> AlertText:
    """The alert that always fires: whoever does not get it knows that alarms do not reach him either."""
    annotations = {
        "summary": "the alarm path of hbagent works",
        "description": "It always fires. Send it to something outside that raises the alarm when it stops.",
        "event_id": f"{life:08x}-watchdog",
    }
    return AlertText(_sound({"alertname": WATCHDOG, "severity": "none"}), annotations)


def _subject(subject: str, axis: Axis) -> dict[str, str]:
    """The label that names whom it is about. There is one root."""
    names = {Axis.LIVENESS: "host", Axis.HEALTH: "host", Axis.DRILL: "host", Axis.RACK: "rack", Axis.LEADER: "leader"}
    return {names[axis]: subject} if axis in names else {}


def _name_of(kind: Kind, health: Health | None) -> str:
    if kind is Kind.HEALTH_CHANGED:
        return f"HbagentHealth{(health or Health.UNKNOWN).value.capitalize()}"
    return _ALERT_NAMES.get(kind) or "Hbagent" + kind.value.title().replace("-", "")


def _severity(trouble: Trouble) -> str:
    kind = trouble.kind
    if kind is Kind.HEALTH_CHANGED:
        return "critical" if trouble.health in _CRITICAL_HEALTH else "warning"
    if kind is Kind.NODE_DEAD and trouble.cause in _HOST_LIVES:
        return "warning"
    return "critical" if kind in _CRITICAL_KINDS else "warning"


def _annotations(trouble: Trouble, event: Event | None) -> dict[str, str]:
    kind = trouble.kind
    what = _SUMMARIES.get(kind, kind.value.replace("-", " "))
    if kind is Kind.HEALTH_CHANGED and trouble.health is not None:
        what = f"is {trouble.health.value}"
    cause = f" ({trouble.cause.value})" if trouble.cause is not None else ""
    texts = {
        "summary": f"{trouble.subject} {what}{cause}",
        "description": _description(trouble, event),
        "event_id": event.event_id if event is not None else trouble.event_id,
        "incident": trouble.incident,
        "host_state": event.host if event is not None and trouble.axis is Axis.LIVENESS else "",
        "since": rfc3339(trouble.since_wall_ns) if trouble.since_wall_ns else "",
        "runbook": _runbook(trouble.subject, trouble.axis, trouble.rack),
    }
    return {name: text for name, value in texts.items() if (text := line(value))}


def _description(trouble: Trouble, event: Event | None) -> str:
    text = trouble.text
    if event is None:
        return text
    if event.evidence is not None:
        text = event.evidence.text or text
    if event.members:
        more = f" and {len(event.members) - NAMED_MAX} more" if len(event.members) > NAMED_MAX else ""
        text = f"{text} [{', '.join(event.members[:NAMED_MAX])}{more}]"
    return text


def _runbook(subject: str, axis: Axis, rack: str) -> str:
    """What to type to know more."""
    if axis in NODE_AXES:
        return f"hbagent explain {subject}"
    return f"hbagent incidents; hbagent racks --rack {rack}" if rack else "hbagent incidents"


def _sound(labels: dict[str, str]) -> dict[str, str]:
    """Labels that Alertmanager takes: it refuses what has no good name, and takes an alert that has no name at all.

    Raises ValueError when there is no `alertname`, which is a defect here.
    """
    if not labels.get("alertname"):
        raise ValueError("an alert without a name")
    return {
        name: text for name, value in sorted(labels.items()) if _LABEL_NAME.fullmatch(name) and (text := line(value))
    }


def line(text: str) -> str:
    """One line for people: nothing that a terminal or a mail would act on, and no more than `ANNOTATION_MAX`."""
    # Surrogates are not text, and no JSON can hold them.
    kept = "".join(char if char.isprintable() else " " for char in text[: 2 * ANNOTATION_MAX])
    short = " ".join(kept.split())
    return short if len(short) <= ANNOTATION_MAX else short[: ANNOTATION_MAX - 1] + "…"
