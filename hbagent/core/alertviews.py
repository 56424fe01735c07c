"""What people are shown of alerting: incidents, silences, and why nobody was told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .health import RANK
from .messages import Query
from .records import Incident, Silence, Trouble
from .states import NODE_AXES, Axis, IncidentState, Liveness
from .views import SCHEMA, IncidentView, SilenceView, seconds_of
from .wallclock import rfc3339

if TYPE_CHECKING:
    from .root import RootCore

#: Members of an incident that are named in a list of incidents.
MEMBERS_SHOWN_MAX = 20
#: Worst first: what stands for many before what stands for one.
_RANK = {Axis.ROOT: 0, Axis.RACK: 1, Axis.LEADER: 2, Axis.LIVENESS: 3, Axis.HEALTH: 4, Axis.DRILL: 5}


def incident_views(root: RootCore, now: int) -> list[IncidentView]:
    """Incidents that are not resolved: what nobody has seen yet first, then the worst first, then the oldest."""
    alerts = root.alerts
    shown = sorted(
        alerts.incidents.open.values(),
        key=lambda one: (
            one.state is IncidentState.ACKNOWLEDGED,
            _RANK[one.axis],
            min((_health_rank(alerts.troubles[key]) for key in alerts.incidents.members(one.incident_id)), default=0),
            one.opened_wall_ns,
        ),
    )
    return [incident_view(root, incident, now) for incident in shown]


def _health_rank(trouble: Trouble) -> int:
    return RANK[trouble.health] if trouble.axis is Axis.HEALTH and trouble.health is not None else 0


def incident_view(root: RootCore, incident: Incident, now: int) -> IncidentView:
    """One incident."""
    alerts = root.alerts
    troubles = [alerts.troubles[key] for key in alerts.incidents.members(incident.incident_id)]
    covering = [alerts.objections.covering(trouble, now) for trouble in troubles]
    silenced = covering and all(one is not None for one in covering)
    parent = alerts.objections.parent(troubles[0]) if troubles else None
    return IncidentView(
        incident=incident.incident_id,
        state=incident.state.value,
        axis=incident.axis.value,
        kind=incident.kind.value,
        rack=incident.rack,
        cause=incident.cause.value if incident.cause is not None else None,
        opened=rfc3339(incident.opened_wall_ns),
        resolved=rfc3339(incident.resolved_wall_ns) if incident.resolved_wall_ns else None,
        age_s=seconds_of(max(0, root.wall.at(now) - incident.opened_wall_ns)) or 0.0,
        burning=len(troubles),
        count=incident.count,
        members=[trouble.subject for trouble in troubles[:MEMBERS_SHOWN_MAX]] or list(incident.members),
        text=incident.text,
        acked_by=incident.acked_by,
        comment=incident.comment,
        silenced_by=list(dict.fromkeys(one.silence_id for one in covering if one is not None)) if silenced else [],
        inhibited_by=(parent.incident or parent.subject) if parent is not None else "",
        drill=incident.drill,
    )


def silence_views(root: RootCore, now: int) -> list[SilenceView]:
    """Silences and maintenances, also those that have ended not long ago; the newest first."""
    wall, covers = root.wall.at(now), _covers(root, now)
    silences = root.alerts.objections.silences
    return [silences.view(one, wall, covers.get(one.silence_id, 0)) for one in reversed(silences.all())]


def silence_view(root: RootCore, silence: Silence, now: int) -> SilenceView:
    """One silence, and how much of what burns it covers."""
    covers = _covers(root, now).get(silence.silence_id, 0)
    return root.alerts.objections.silences.view(silence, root.wall.at(now), covers)


def _covers(root: RootCore, now: int) -> dict[str, int]:
    """How many troubles that burn each silence covers, gone through once for all of them."""
    covers: dict[str, int] = {}
    for trouble in root.alerts.troubles.values():
        for one in () if trouble.over else root.alerts.objections.all_covering(trouble, now):
            covers[one.silence_id] = covers.get(one.silence_id, 0) + 1
    return covers


def node_marks(root: RootCore, node: str, rack: str, now: int) -> tuple[list[str], list[str], bool]:
    """Of one node: its open incidents, the silences and maintenances that cover it now, whether it flaps."""
    alerts = root.alerts
    if not alerts.troubles and not alerts.objections.silences.any():
        return [], [], False
    troubles = [alerts.troubles.get((node, axis)) for axis in NODE_AXES]
    burning = [trouble for trouble in troubles if trouble is not None]
    place = alerts.objections.silences.all_covering(root.wall.at(now), node=node, rack=rack, cause="", kind="")
    covering = [one.silence_id for one in place]
    for trouble in burning:
        covering.extend(one.silence_id for one in alerts.objections.all_covering(trouble, now))
    return (
        list(dict.fromkeys(trouble.incident for trouble in burning if trouble.incident and not trouble.over)),
        list(dict.fromkeys(covering)),
        any(trouble.flapping for trouble in burning),
    )


def markings(root: RootCore, now: int) -> dict[str, tuple[str, bool]]:
    """Of each node that anything covers, or that flaps: "silence", "maintenance" or "", and whether it flaps."""
    alerts, wall = root.alerts, root.wall.at(now)
    marks: dict[str, tuple[str, bool]] = {}
    if alerts.objections.silences.any():
        for rack, records in root.rack_nodes.items():
            for record in records:
                covering = alerts.objections.silences.covering(wall, node=record.name, rack=rack, cause="", kind="")
                if covering is not None:
                    marks[record.name] = ("maintenance" if covering.maintenance else "silence", False)
    for (subject, axis), trouble in alerts.troubles.items():
        if axis not in NODE_AXES or (trouble.over and not trouble.flapping):
            continue
        covered = marks.get(subject, ("", False))[0]
        if not covered and not trouble.over:
            silence = alerts.objections.covering(trouble, now)
            covered = "" if silence is None else "maintenance" if silence.maintenance else "silence"
        flaps = bool(trouble.flapping) or marks.get(subject, ("", False))[1]
        if covered or flaps:
            marks[subject] = (covered, flaps)
    return marks


def unsent_view(root: RootCore, query: Query, now: int) -> dict[str, Any]:
    """Why nobody is told of a node or of an incident: what objects now. The store adds what was not sent."""
    alerts = root.alerts
    keys: Iterable[tuple[str, Axis]]
    if query.incident:
        keys = alerts.incidents.members(query.incident)
    else:
        keys = [(query.node or query.rack, axis) for axis in Axis]
    troubles = [trouble for key in keys if (trouble := alerts.troubles.get(key)) is not None]
    wall = root.wall.at(now)
    covering: list[Silence] = []
    for trouble in troubles:
        covering.extend(alerts.objections.all_covering(trouble, now))
    record = root.nodes.get(query.node)
    if record is not None:
        covering.extend(
            alerts.objections.silences.all_covering(wall, node=record.name, rack=record.rack, cause="", kind="")
        )
    parents = [parent for trouble in troubles if (parent := alerts.objections.parent(trouble)) is not None]
    return {
        "schema": SCHEMA,
        "node": query.node or None,
        "rack": query.rack or None,
        "incident": query.incident or None,
        "liveness": root.shown(record).liveness if record is not None else Liveness.UNKNOWN,
        "burning": [
            {
                "subject": trouble.subject,
                "axis": trouble.axis,
                "kind": trouble.kind,
                "cause": trouble.cause,
                "incident": trouble.incident or None,
                "since": rfc3339(trouble.since_wall_ns),
                "text": trouble.text,
                "told": sorted(name for name, told in trouble.told.items() if told.sent),
            }
            for trouble in troubles
            if not trouble.over
        ],
        "covered_by": [
            silence_view(root, one, now) for one in {silence.silence_id: silence for silence in covering}.values()
        ],
        "inhibited_by": list(dict.fromkeys(parent.incident or parent.subject for parent in parents)),
        "flapping": any(trouble.flapping for trouble in troubles),
        "acknowledged": [
            name
            for name in dict.fromkeys(trouble.incident for trouble in troubles)
            if alerts.incidents.is_acknowledged(name)
        ],
    }
