"""Incidents: one life per trouble of a rack, from the first subject that it hits to the last one that it leaves.

Forty hosts of a rack that die of one cause are one incident with forty members, not forty. A trouble joins the open
incident of its rack, axis and topic, or opens one; with its last member the incident is resolved. Somebody who
acknowledges it says "I know": a new member, or one that gets worse, makes it fire again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .ledger import Ledger
from .records import MEMBERS_TOLD_MAX, Incident, Trouble
from .states import Axis, IncidentState

#: Rack, axis, topic, whether of a drill.
_Group = tuple[str, Axis, str, bool]
_Key = tuple[str, Axis]


class Incidents:
    """Those that are not resolved, in the order in which they were opened."""

    def __init__(self, ledger: Ledger, incidents: Iterable[Incident] = ()) -> None:
        self._ledger = ledger
        self.open: dict[str, Incident] = {incident.incident_id: incident for incident in incidents}
        self._acknowledged = sum(map(_known, self.open.values()))
        self._members: dict[str, dict[_Key, None]] = {name: {} for name in self.open}
        self._groups: dict[_Group, str] = {_group_of(incident): name for name, incident in self.open.items()}

    def restore(self, troubles: Iterable[Trouble]) -> None:
        """Take up the members that an earlier life knew; what was left without any is resolved."""
        for trouble in troubles:
            if not trouble.over and trouble.incident in self.open:
                self._members[trouble.incident][trouble.subject, trouble.axis] = None
        for name in [name for name, members in self._members.items() if not members]:
            self._resolve(name, self.open[name].opened_wall_ns)

    def join(self, trouble: Trouble, topic: str, number: int, text: str) -> str:
        """Take a trouble in; returns the id of its incident. `number` is that of the event that tells it."""
        group = (trouble.rack, trouble.axis, topic, trouble.drill)
        name = self._groups.get(group)
        if name is None:
            name = f"i{number}"
            self._groups[group] = name
            self._members[name] = {}
            self.open[name] = Incident(
                incident_id=name,
                state=IncidentState.FIRING,
                axis=trouble.axis,
                rack=trouble.rack,
                kind=trouble.kind,
                cause=trouble.cause,
                topic=topic,
                opened_wall_ns=trouble.at_wall_ns,
                drill=trouble.drill,
            )
        incident = self.open[name]
        self._members[name][trouble.subject, trouble.axis] = None
        members = incident.members
        if trouble.subject not in members and len(members) < MEMBERS_TOLD_MAX:
            members = (*members, trouble.subject)
        self._change(
            incident,
            state=IncidentState.FIRING,
            count=incident.count + 1,
            members=members,
            text=text,
            kind=trouble.kind,
        )
        return name

    def worse(self, name: str, text: str) -> None:
        """A member of it is worse than before: whoever acknowledged it did not know this."""
        incident = self.open.get(name)
        if incident is not None:
            self._change(incident, state=IncidentState.FIRING, text=text)

    def leave(self, name: str, key: _Key, now_wall_ns: int) -> None:
        """The trouble of one member is over."""
        members = self._members.get(name)
        if members is None or key not in members:
            return
        del members[key]
        if not members:
            self._resolve(name, now_wall_ns)

    def acknowledge(self, name: str, by: str, comment: str, now_wall_ns: int) -> Incident | None:
        """Somebody knows of it; returns it as it now stands, None when there is no such incident, or no more."""
        incident = self.open.get(name)
        if incident is None:
            return None
        return self._change(
            incident, state=IncidentState.ACKNOWLEDGED, acked_by=by, acked_wall_ns=now_wall_ns, comment=comment
        )

    def is_acknowledged(self, name: str) -> bool:
        """True while somebody has said that he knows of all of it."""
        incident = self.open.get(name)
        return incident is not None and incident.state is IncidentState.ACKNOWLEDGED

    def acknowledged(self) -> int:
        """How many somebody has said that he knows of."""
        return self._acknowledged

    def members(self, name: str) -> Iterable[_Key]:
        """The keys of its troubles that are not over, the oldest first."""
        return self._members.get(name, {})

    def _resolve(self, name: str, now_wall_ns: int) -> None:
        incident = self._change(self.open[name], state=IncidentState.RESOLVED, resolved_wall_ns=now_wall_ns)
        del self.open[name]
        del self._members[name]
        del self._groups[_group_of(incident)]

    def _change(self, incident: Incident, **fields: object) -> Incident:
        changed = msgspec.structs.replace(incident, **fields)
        self._acknowledged += _known(changed) - _known(incident)
        self.open[changed.incident_id] = changed
        self._ledger.incident(changed)
        return changed


def _known(incident: Incident) -> int:
    return incident.state is IncidentState.ACKNOWLEDGED


def _group_of(incident: Incident) -> _Group:
    return (incident.rack, incident.axis, incident.topic, incident.drill)
