"""What is read in the store to answer a question, put together with what the core knew when it was asked."""

from __future__ import annotations

from typing import Any

import msgspec

from hbagent.core.effects import Fetch
from hbagent.core.records import Incident
from hbagent.core.states import IncidentState
from hbagent.core.views import SCHEMA, IncidentView, events_view, seconds_of
from hbagent.core.wallclock import rfc3339
from hbagent.store.history import Reading


class UnknownError(Exception):
    """Of what was asked about nothing is known; a sentence for people."""


def answer_of(history: Reading, fetch: Fetch) -> object:
    """The view that answers a fetch. Raises HistoryError, UnknownError."""
    if fetch.what == "unsent":
        found = history.unsent(fetch.node, fetch.incident, fetch.limit)
        # One that burns may not be written yet.
        if fetch.incident and not (found or fetch.view["burning"] or history.has_incident(fetch.incident)):
            raise UnknownError(f"no incident {fetch.incident!r} is known, or no more; see: hbagent incidents --all")
        return {**fetch.view, "unsent": [_notification(row) for row in found]}
    if fetch.what == "dead-letters":
        return {**fetch.view, "dead_letters": [_notification(row) for row in history.dead_letters(fetch.limit)]}
    if fetch.what == "incidents":
        past = [msgspec.convert(row, Incident) for row in history.incidents(fetch.limit)]
        resolved = [_resolved(incident) for incident in past if incident.state is IncidentState.RESOLVED]
        return {**fetch.view, "incidents": [*fetch.view["incidents"], *resolved]}
    if fetch.event:
        return {"schema": SCHEMA, "runs": history.runs_of(fetch.event)}
    events = events_view(history.events(fetch.limit, fetch.after, fetch.node))
    if fetch.view is not None:
        return msgspec.structs.replace(fetch.view, events=events)
    return {"schema": SCHEMA, "events": events}


def _notification(row: dict[str, Any]) -> dict[str, Any]:
    """A notification with its times as people are shown them."""
    shown = {name: value for name, value in row.items() if not name.endswith("_wall_ns")}
    return {**shown, "at": rfc3339(row["at_wall_ns"]), "due": rfc3339(row["due_wall_ns"])}


def _resolved(incident: Incident) -> IncidentView:
    """One that is over; `age_s` is how long it burned."""
    return IncidentView(
        incident=incident.incident_id,
        state=incident.state.value,
        axis=incident.axis.value,
        kind=incident.kind.value,
        rack=incident.rack,
        cause=incident.cause.value if incident.cause is not None else None,
        opened=rfc3339(incident.opened_wall_ns),
        resolved=rfc3339(incident.resolved_wall_ns),
        age_s=seconds_of(max(incident.resolved_wall_ns - incident.opened_wall_ns, 0)) or 0.0,
        burning=0,
        count=incident.count,
        members=list(incident.members),
        text=incident.text,
        acked_by=incident.acked_by,
        comment=incident.comment,
        silenced_by=[],
        inhibited_by="",
        drill=incident.drill,
    )
