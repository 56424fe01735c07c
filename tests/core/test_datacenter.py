"""Who there is, and who may speak for whom."""

from __future__ import annotations

import random

import pytest

from hbagent.core.config import RackConfig, RootConfig
from hbagent.core.datacenter import FORGET_NS, Datacenter
from hbagent.core.effects import Answer
from hbagent.core.messages import LeaderStats, Query, Reconfigured, WallTime
from hbagent.core.records import NodeState, Restored
from hbagent.core.root import RootCore
from hbagent.core.states import Cause, Liveness
from hbagent.core.views import StatusView
from hbagent.core.wallclock import rfc3339
from tests.build import EPOCH, LEADER, LEADER2, NODE, NODE2, RACK, WALL_NS, T, root_config, root_core, row, summary

RACK2 = "dc1/rack2"
BOTH = (LEADER, LEADER2)


def config(**racks: tuple[str, ...]) -> RootConfig:
    return root_config(racks=tuple(RackConfig(name=f"dc1/{rack}", leaders=names) for rack, names in racks.items()))


def described(datacenter: Datacenter, now: int, *leaders: str, node: str = NODE) -> None:
    """These leaders hold their lease and tell that the node lives."""
    for name in leaders:
        datacenter.leaders[name].lease.renew(EPOCH, now)
        record = datacenter.record(node, RACK)
        assert record is not None
        record.seen_by(name, now).believe(row(), EPOCH, now)
        record.told = Liveness.ALIVE


def test_a_leader_may_lead_several_racks_and_speaks_for_no_other() -> None:
    datacenter = Datacenter(config(rack1=(LEADER,), rack2=BOTH, rack3=(LEADER2,)), 0)
    leader = datacenter.leader_of(LEADER, RACK)
    assert leader is not None and leader.racks == (RACK, RACK2)
    assert datacenter.leader_of(LEADER, RACK2) is leader
    assert datacenter.leader_of(LEADER, "dc1/rack3") is None
    assert datacenter.leader_of("dc1/rack9-leader1") is None


def test_other_racks_take_effect_and_what_stays_keeps_its_lease_and_its_nodes() -> None:
    datacenter = Datacenter(config(rack1=BOTH, rack2=(LEADER,)), 0)
    described(datacenter, T(1), *BOTH)
    kept = datacenter.leaders[LEADER]
    datacenter.record(f"{RACK2}/node1", RACK2)
    gone = datacenter.reconfigure(config(rack1=(LEADER,), rack4=(LEADER, "dc1/new")), T(2))
    assert gone == [LEADER2, f"{RACK2}/node1"]
    assert datacenter.leaders[LEADER] is kept and kept.lease.held
    assert kept.racks == (RACK, "dc1/rack4")
    assert list(datacenter.leaders) == [LEADER, "dc1/new"]
    assert datacenter.racks == {RACK: (LEADER,), "dc1/rack4": (LEADER, "dc1/new")}
    assert list(datacenter.nodes) == [NODE]
    assert list(datacenter.nodes[NODE].seen) == [LEADER]
    assert list(datacenter.rack_nodes) == [RACK, "dc1/rack4"]
    assert not datacenter.leaders["dc1/new"].lease.lapsed(T(2) + T(10) - 1), "a new leader has its grace from now"


def test_a_node_is_recorded_once_and_forgotten_wholly() -> None:
    datacenter = Datacenter(config(rack1=(LEADER,)), 0)
    record = datacenter.record(NODE, RACK)
    assert record is not None and datacenter.record(NODE, RACK) is record
    datacenter.forget(record)
    assert (datacenter.nodes, datacenter.rack_nodes) == ({}, {RACK: []})
    assert datacenter.record(NODE, RACK) is not record


def test_a_full_rack_takes_no_new_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hbagent.core.datacenter.NODES_MAX", 1)
    datacenter = Datacenter(config(rack1=(LEADER,)), 0)
    assert datacenter.record(NODE, RACK) is not None
    assert datacenter.record(NODE2, RACK) is None
    assert datacenter.record(NODE, RACK) is not None


def test_a_node_is_expected_no_longer_when_no_leader_has_described_it_for_long_enough_to_be_sure() -> None:
    datacenter = Datacenter(config(rack1=BOTH), 0)
    described(datacenter, T(1), *BOTH)
    described(datacenter, T(1), LEADER, node=NODE2)
    described(datacenter, T(20), LEADER2)
    assert datacenter.unexpected(T(1) + FORGET_NS - 1) == []
    assert [record.name for record in datacenter.unexpected(T(1) + FORGET_NS)] == [NODE2]
    datacenter.leaders[LEADER2].lease.drop()
    assert datacenter.unexpected(T(1) + FORGET_NS) == [], "one who may know is lost"
    datacenter.leaders[LEADER2].lease.renew(EPOCH, T(30))
    assert datacenter.unexpected(T(30) + FORGET_NS - 1) == [], "and has to be listened to first"


def listing(*nodes: str) -> RootConfig:
    """One rack whose nodes the root's own config names."""
    return root_config(racks=(RackConfig(name=RACK, leaders=(LEADER,), nodes=nodes),))


def test_a_node_that_the_config_names_is_never_seen_until_a_leader_tells_of_it() -> None:
    core = root_core(racks=listing("node1", "node2").racks)
    shown = {name: core.shown(record) for name, record in core.nodes.items()}
    assert {(one.liveness, one.cause) for one in shown.values()} == {(Liveness.UNKNOWN, Cause.NEVER_SEEN)}
    assert list(shown) == [NODE, NODE2]
    core = RootCore(listing("node1", "node2"), random.Random(1), 0)
    core.receive("", WallTime(WALL_NS), 0)
    (answer,) = core.receive("\1asker", Query(id=1, what="status"), T(1))
    assert isinstance(answer, Answer) and isinstance(answer.view, StatusView)
    assert [(node.node, node.cause, node.since) for node in answer.view.nodes] == [
        (node, "never-seen", rfc3339(WALL_NS)) for node in (NODE, NODE2)
    ]
    core.cells.look(core.datacenter, {})
    assert core.cells.troubled() == [NODE, NODE2]
    core.receive(LEADER, summary(1, row("node1"), row("node3")), T(2))
    assert core.shown(core.nodes[NODE]).liveness is Liveness.ALIVE
    assert core.shown(core.nodes[NODE2]).cause is Cause.NEVER_SEEN
    assert core.shown(core.nodes[f"{RACK}/node3"]).liveness is Liveness.ALIVE, "leaders judge by their own lists"


def test_a_node_that_the_config_names_is_expected_for_as_long_as_it_stands_there() -> None:
    datacenter = Datacenter(listing("node1", "node2"), 0)
    datacenter.expect_nodes(listing("node1", "node2"), 0)
    datacenter.leaders[LEADER].lease.renew(EPOCH, T(1))
    assert datacenter.unexpected(T(1) + FORGET_NS) == []
    assert datacenter.reconfigure(listing("node2", "node3"), T(2)) == []
    datacenter.expect_nodes(listing("node2", "node3"), 0)
    assert [record.name for record in datacenter.unexpected(T(1) + FORGET_NS)] == [NODE]
    assert f"{RACK}/node3" in datacenter.nodes


def test_a_node_that_is_gone_for_good_does_not_come_back_by_the_config() -> None:
    gone = NodeState(node=NODE, rack=RACK, liveness=Liveness.LEFT, forgotten=True)
    core = root_core(racks=listing("node1", "node2").racks, restored=Restored(nodes=(gone,)))
    assert list(core.nodes) == [NODE2]
    core.receive("", Reconfigured(listing("node1", "node2")), T(1))
    assert list(core.nodes) == [NODE2]
    core.receive(LEADER, summary(1, row("node1")), T(2))
    assert core.shown(core.nodes[NODE]).liveness is Liveness.ALIVE


def test_only_who_holds_a_lease_observes() -> None:
    datacenter = Datacenter(config(rack1=BOTH), 0)
    described(datacenter, T(1), *BOTH)
    record = datacenter.nodes[NODE]
    assert [seen.leader for seen in datacenter.observers(record)] == [LEADER, LEADER2]
    datacenter.leaders[LEADER].lease.drop()
    assert [seen.leader for seen in datacenter.observers(record)] == [LEADER2]
    assert datacenter.shown(record).liveness is Liveness.ALIVE
    datacenter.leaders[LEADER2].lease.drop()
    shown = datacenter.shown(record)
    assert (shown.liveness, shown.cause) == (Liveness.UNKNOWN, Cause.LEADER_LOST)


def test_a_rack_has_listened_for_as_long_as_the_youngest_of_its_leaders() -> None:
    datacenter = Datacenter(config(rack1=BOTH), 0)
    for name, uptime in ((LEADER, 50), (LEADER2, 7)):
        datacenter.leaders[name].stats = LeaderStats(uptime_ns=T(uptime))
    assert datacenter.listened_ns(RACK) == T(7)


def test_a_rack_whose_leaders_are_all_silent_for_one_reason_is_silent_for_that() -> None:
    datacenter = Datacenter(config(rack1=BOTH), 0)
    described(datacenter, T(1), *BOTH)
    record = datacenter.nodes[NODE]
    for name in BOTH:
        datacenter.leaders[name].lease.drop()
        datacenter.leaders[name].cause = Cause.OBSERVER_STALLED
    assert datacenter.shown(record).cause is Cause.OBSERVER_STALLED
    datacenter.leaders[LEADER].cause = Cause.ROOT_ISOLATED
    assert datacenter.shown(record).cause is Cause.LEADER_LOST, "they do not agree"
    datacenter.leaders[LEADER2].lease.renew(EPOCH, T(2))
    datacenter.nodes[NODE].seen[LEADER2].heard_at = None
    datacenter.nodes[NODE].seen[LEADER2].version = 0
    assert datacenter.shown(record).cause is Cause.ROOT_ISOLATED, "of those who may know"


def test_a_dark_rack_that_is_taken_out_of_the_config_is_forgotten_with_its_trouble() -> None:
    datacenter = Datacenter(config(rack1=(LEADER,), rack2=(LEADER2,)), 0)
    datacenter.rack_records[RACK2].dark = True
    assert datacenter.reconfigure(config(rack1=(LEADER,)), T(1)) == [LEADER2, RACK2]
    assert list(datacenter.rack_records) == [RACK]
