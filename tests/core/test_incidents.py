from __future__ import annotations

from typing import Any

from hbagent.core.incidents import Incidents
from hbagent.core.ledger import Ledger
from hbagent.core.records import MEMBERS_TOLD_MAX, Incident, Trouble
from hbagent.core.states import Axis, Cause, IncidentState, Kind
from tests.build import RACK


def trouble(name: str = "n1", **fields: Any) -> Trouble:
    values: dict[str, Any] = {"axis": Axis.LIVENESS, "kind": Kind.NODE_DEAD, "cause": Cause.SILENCE, "incident": ""}
    return Trouble(**{"subject": f"{RACK}/{name}", "rack": RACK, "at_wall_ns": 5, **values, **fields})


def key(name: str) -> tuple[str, Axis]:
    return (f"{RACK}/{name}", Axis.LIVENESS)


def written(ledger: Ledger) -> dict[str, Incident]:
    order = ledger.write(0)
    return {} if order is None else {one.incident_id: one for one in order.batch.incidents}


def test_who_has_the_same_rack_axis_and_topic_joins() -> None:
    incidents = Incidents(Ledger())
    assert incidents.join(trouble("n1"), "silence", 7, "first") == "i7"
    assert incidents.join(trouble("n2"), "silence", 8, "second") == "i7"
    assert incidents.join(trouble("n3"), "host-gone", 9, "") == "i9"
    assert incidents.join(trouble("n4", drill=True), "silence", 10, "") == "i10", "a drill is not the real thing"
    assert (incidents.open["i7"].count, incidents.open["i7"].text) == (2, "second")
    assert list(incidents.members("i7")) == [key("n1"), key("n2")]


def test_the_last_member_that_leaves_resolves_it_and_the_next_one_opens_another() -> None:
    ledger = Ledger()
    incidents = Incidents(ledger)
    for name in ("n1", "n2"):
        incidents.join(trouble(name), "silence", 7, "")
    incidents.leave("i7", key("n1"), 10)
    assert "i7" in incidents.open
    incidents.leave("i7", key("n2"), 20)
    incidents.leave("i7", key("n2"), 30)
    assert incidents.open == {}
    resolved = written(ledger)["i7"]
    assert (resolved.state, resolved.resolved_wall_ns) == (IncidentState.RESOLVED, 20)
    assert incidents.join(trouble("n1"), "silence", 30, "") == "i30"


def test_who_acknowledges_knows_of_the_members_there_are() -> None:
    incidents = Incidents(Ledger())
    incidents.join(trouble("n1"), "silence", 7, "")
    acked = incidents.acknowledge("i7", "ada", "on it", 50)
    assert acked is not None and (acked.acked_by, acked.comment, acked.acked_wall_ns) == ("ada", "on it", 50)
    assert incidents.is_acknowledged("i7")
    incidents.join(trouble("n2"), "silence", 8, "")
    assert not incidents.is_acknowledged("i7")
    incidents.acknowledge("i7", "ada", "", 60)
    incidents.worse("i7", "now dead")
    assert not incidents.is_acknowledged("i7")


def test_nobody_acknowledges_what_is_not_open() -> None:
    incidents = Incidents(Ledger())
    assert incidents.acknowledge("i1", "ada", "", 0) is None
    incidents.worse("i1", "nothing")
    assert not incidents.is_acknowledged("i1")


def test_so_many_members_are_named_and_all_are_counted() -> None:
    incidents = Incidents(Ledger())
    for number in range(MEMBERS_TOLD_MAX + 5):
        incidents.join(trouble(f"n{number}"), "silence", 7, "")
    assert (incidents.open["i7"].count, len(incidents.open["i7"].members)) == (MEMBERS_TOLD_MAX + 5, MEMBERS_TOLD_MAX)


def test_a_next_life_takes_members_up_and_resolves_what_has_none() -> None:
    ledger = Ledger()
    first = Incidents(ledger)
    first.join(trouble("n1"), "silence", 7, "")
    first.join(trouble("n2"), "host-gone", 8, "")
    kept = tuple(written(ledger).values())
    again = Ledger()
    second = Incidents(again, kept)
    second.restore([trouble("n1", incident="i7"), trouble("n3", incident="i99")])
    assert list(second.open) == ["i7"]
    assert written(again)["i8"].state is IncidentState.RESOLVED
    assert second.join(trouble("n4"), "silence", 12, "") == "i7", "it goes on"
