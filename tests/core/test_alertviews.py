from __future__ import annotations

from typing import Any

from hbagent.core.alertviews import incident_views, markings, node_marks, silence_views, unsent_view
from hbagent.core.messages import Order, Query
from hbagent.core.root import RootCore
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.core.units import SECOND
from tests.build import LEADER, NODE, NODE2, RACK, WALL_NS, hook, root_core, row, summary, transition, transitions

DEAD = Liveness.DEAD


def root(**settings: Any) -> RootCore:
    """Two nodes, of which the first is dead."""
    core = root_core(hook("page"), **settings)
    core.receive(LEADER, summary(1, row("node1"), row("node2")), 0)
    core.receive(LEADER, transitions(transition(1), transition(2, node=NODE2)), 1)
    core.receive(LEADER, transitions(transition(3, DEAD, Liveness.ALIVE)), 2)
    return core


def silence(core: RootCore, **globs: Any) -> str:
    values: dict[str, Any] = {"reason": "swap", "length_ns": 60 * SECOND, **globs}
    made = core.alerts.objections.silences.add(Order(id=1, what="silence", **values), "ada", WALL_NS + 10)
    core.alerts.silences_changed(10)
    return made.silence_id


def test_an_incident_is_shown_with_whom_it_hits_and_what_covers_all_of_it() -> None:
    core = root()
    (shown,) = incident_views(core, 10)
    assert (shown.state, shown.axis, shown.rack, shown.cause) == ("firing", "liveness", RACK, "silence")
    assert (shown.burning, shown.count, shown.members, shown.silenced_by) == (1, 1, [NODE], [])
    name = silence(core, nodes=(NODE,))
    assert incident_views(core, 10)[0].silenced_by == [name]
    core.receive(LEADER, transitions(transition(4, DEAD, Liveness.ALIVE, node=NODE2)), 20)
    (shown,) = incident_views(core, 20)
    assert (shown.burning, shown.silenced_by) == (2, []), "one of them is covered, the incident is not"


def test_what_stands_for_many_comes_first_and_what_somebody_looks_after_last() -> None:
    core = root()
    core.alerts.tell(core.chronicle.make(Kind.RACK_DARK, WALL_NS, rack=RACK, leader=LEADER, cause=Cause.RACK_DARK), 30)
    rack, node = incident_views(core, 30)
    assert (rack.axis, node.axis, node.inhibited_by) == ("rack", "liveness", rack.incident)
    core.alerts.incidents.acknowledge(rack.incident, "ada", "", 0)
    assert [shown.axis for shown in incident_views(core, 30)] == ["liveness", "rack"]


def test_a_silence_is_shown_with_how_much_of_what_burns_it_covers() -> None:
    core = root()
    idle, busy = silence(core, nodes=("dc1/rack9/*",)), silence(core, racks=(RACK,))
    assert [(shown.silence, shown.covers) for shown in silence_views(core, 10)] == [(busy, 1), (idle, 0)]


def test_nodes_are_marked_with_what_covers_them_whether_they_burn_or_not() -> None:
    core = root()
    assert markings(core, 10) == {}
    assert node_marks(core, NODE, RACK, 10)[1:] == ([], False)
    name = silence(core, racks=(RACK,), maintenance=True)
    assert markings(core, 10) == {NODE: ("maintenance", False), NODE2: ("maintenance", False)}
    incidents, covered, flapping = node_marks(core, NODE, RACK, 10)
    assert (len(incidents), covered, flapping) == (1, [name], False)
    assert node_marks(core, NODE2, RACK, 10) == ([], [name], False)


def test_why_nobody_is_told_names_everything_that_objects_now() -> None:
    core = root()
    name = silence(core, nodes=(NODE,))
    view = unsent_view(core, Query(id=1, what="why-silent", node=NODE), 10)
    assert [one["subject"] for one in view["burning"]] == [NODE]
    assert [one.silence for one in view["covered_by"]] == [name]
    assert (view["flapping"], view["inhibited_by"], view["acknowledged"]) == (False, [], [])
    incident = view["burning"][0]["incident"]
    core.alerts.incidents.acknowledge(incident, "ada", "", 0)
    view = unsent_view(core, Query(id=1, what="why-silent", incident=incident), 10)
    assert (view["incident"], view["acknowledged"]) == (incident, [incident])
