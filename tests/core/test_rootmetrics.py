"""The root's metrics: every host once, nothing said of what nobody knows, and nothing that a node says breaks them."""

from __future__ import annotations

import random
import time

import pytest

from hbagent.core import rootmetrics
from hbagent.core.config import RackConfig, SinkConfig
from hbagent.core.drill import PREFIX
from hbagent.core.effects import Effect, Persist, RunHook
from hbagent.core.exposition import ProcessFacts
from hbagent.core.messages import AppRow, KeepFailed, Kept, NodeReport, Posted, ProbeResult, RackReports, Report
from hbagent.core.records import Conviction, Restored, Tally
from hbagent.core.root import RootCore
from hbagent.core.rootmetrics import RootMetrics
from hbagent.core.rootviews import status_view
from hbagent.core.states import AppState, Cause, Health, Liveness
from tests.build import (
    EPOCH,
    INCARNATION,
    LEADER,
    LEADER2,
    NODE,
    NODE2,
    RACK,
    WALL_NS,
    T,
    became,
    ended,
    hook,
    part,
    root_core,
    row,
    summary,
    transition,
    transitions,
)
from tests.scraped import Scraped

FACTS = ProcessFacts(commit_s=0.002, reads=(5, 2))
HOST = {"host": NODE, "rack": RACK}
HOST2 = {"host": NODE2, "rack": RACK}


def scrape(core: RootCore, now: int, hosts: str = "all") -> Scraped:
    metrics = RootMetrics(core, hosts)
    plain = Scraped(metrics.render(now, FACTS))
    assert Scraped(metrics.render(now, FACTS, openmetrics=True), True).samples == plain.samples
    return plain


def with_two_nodes(**settings: object) -> RootCore:
    """A root that has heard of a node that lives and of one that is dead."""
    core = root_core(hook(), **settings)  # type: ignore[arg-type]
    core.receive(LEADER, summary(1, newest=2), T(1))
    dead = transition(2, Liveness.DEAD, Liveness.ALIVE, NODE2, cause=Cause.HOST_GONE)
    core.receive(LEADER, transitions(transition(1), dead), T(1))
    alive = became(3, Health.OK, Health.UNKNOWN)
    core.receive(LEADER, transitions(alive), T(1))
    core.receive(LEADER, summary(2, row("node1", lost=3, late=2, age_ns=0), newest=3), T(1))
    core.wake(T(1))
    return core


def settle(core: RootCore, now: int) -> list[Effect]:
    """Everything that the core orders now; its store works."""
    effects = [*core.receive("", Kept(1), now), *core.wake(now)]
    for effect in effects:
        if isinstance(effect, Persist):
            effects += core.receive("", Kept(effect.token), now)
    return effects


def reports(*parts: Report, node: str = "node1") -> RackReports:
    return RackReports(rack=RACK, epoch=EPOCH, reports=tuple(NodeReport(node=node, report=part) for part in parts))


@pytest.mark.parametrize(
    ("real", "drilled"), [(Health.OK, True), (Health.WARNING, True), (Health.CRITICAL, False), (Health.STALLED, False)]
)
def test_a_host_that_is_bad_for_a_drill_alone_is_marked(real: Health, drilled: bool) -> None:
    core = with_two_nodes()
    drill = part(f"{PREFIX}ab12cd", Health.DEADLOCKED)
    disk = part("disk", real, subject="probe")
    told = (drill, disk) if real is not Health.OK else (drill,)
    core.receive(LEADER, transitions(became(4, Health.DEADLOCKED, Health.OK, *told)), T(2))
    found = scrape(core, T(2))
    assert found.of("hbagent_host_health", host=NODE) == [{**HOST, "state": "DEADLOCKED"}]
    assert found.of("hbagent_host_drill") == ([HOST] if drilled else [])
    (shown,) = [node for node in status_view(core, core.config, T(2)).nodes if node.node == NODE]
    assert (shown.health, shown.health_beside_drill) == (Health.DEADLOCKED, real)


def test_without_a_drill_no_host_is_marked() -> None:
    core = with_two_nodes()
    core.receive(LEADER, transitions(became(4, Health.DEADLOCKED, Health.OK)), T(2))
    assert not scrape(core, T(2)).of("hbagent_host_drill")


def test_a_living_and_a_dead_host_are_told_with_all_that_is_known() -> None:
    found = scrape(with_two_nodes(), T(2))
    assert (found.value("hbagent_host_up", **HOST), found.value("hbagent_host_up", **HOST2)) == (1, 0)
    assert found.of("hbagent_host_liveness", host=NODE) == [{**HOST, "state": "ALIVE"}]
    assert found.of("hbagent_host_liveness", host=NODE2) == [{**HOST2, "state": "DEAD", "cause": "host-gone"}]
    assert found.of("hbagent_host_health", host=NODE2) == [{**HOST2, "state": "UNKNOWN"}]
    assert found.value("hbagent_host_last_heartbeat_timestamp_seconds", **HOST) == (WALL_NS + T(1)) / 1e9
    assert found.value("hbagent_host_heartbeats_missed_total", **HOST) == 3
    assert found.value("hbagent_host_heartbeats_late_total", **HOST) == 2
    assert found.value("hbagent_hosts", rack=RACK, state="ALIVE") == 1
    assert found.value("hbagent_hosts", rack=RACK, state="DEAD") == 1
    assert found.value("hbagent_rack_state", rack=RACK, state="DEGRADED") == 1
    assert found.value("hbagent_racks", state="DEGRADED") == 1


def test_what_changes_is_told_anew_and_what_is_gone_is_told_no_more() -> None:
    core = with_two_nodes()
    metrics = RootMetrics(core)
    before = Scraped(metrics.render(T(1), FACTS))
    back = transition(4, Liveness.ALIVE, Liveness.DEAD, NODE2)
    core.receive(LEADER, transitions(back), T(2))
    core.receive(LEADER, summary(3, row("node1", lost=4), row("node2", version=4), newest=4), T(2))
    after = Scraped(metrics.render(T(2), FACTS))
    assert (before.value("hbagent_host_up", **HOST2), after.value("hbagent_host_up", **HOST2)) == (0, 1)
    assert after.value("hbagent_host_heartbeats_missed_total", **HOST) == 4
    core.datacenter.forget(core.nodes[NODE2])
    assert not Scraped(metrics.render(T(2), FACTS)).of("hbagent_host_up", host=NODE2)


def test_a_host_of_which_nobody_knows_is_neither_up_nor_down() -> None:
    core = with_two_nodes()
    for at in range(2, 30):
        core.wake(T(at))
    found = scrape(core, T(30))
    assert found.of("hbagent_host_up", host=NODE) == []
    assert found.of("hbagent_host_liveness", host=NODE) == [{**HOST, "state": "UNKNOWN", "cause": "leader-lost"}]
    assert found.value("hbagent_leader_up", leader=LEADER) == 0


def test_of_two_leaders_the_one_that_heard_it_last_counts() -> None:
    core = root_core(leaders=(LEADER, LEADER2))
    core.receive(LEADER, summary(1, row("node1", lost=1, age_ns=T(0.5), version=0)), T(1))
    core.receive(LEADER2, summary(1, row("node1", lost=9, age_ns=T(0.1), version=0)), T(1))
    found = scrape(core, T(1))
    assert found.value("hbagent_host_heartbeats_missed_total", **HOST) == 9
    assert found.value("hbagent_host_last_heartbeat_timestamp_seconds", **HOST) == (WALL_NS + T(0.9)) / 1e9


def test_parts_that_are_not_ok_are_told_and_the_others_are_not() -> None:
    core = with_two_nodes()
    probes = (ProbeResult(name="disk", health=Health.CRITICAL), ProbeResult(name="load", health=Health.OK))
    apps = (AppRow(name="web", health=Health.DEADLOCKED, state=AppState.STUCK),)
    core.receive(LEADER, reports(Report(incarnation=INCARNATION, number=1, probes=probes, apps=apps)), T(1))
    metrics = RootMetrics(core)
    found = Scraped(metrics.render(T(2), FACTS))
    assert found.labels("hbagent_host_probe_status") == [{**HOST, "probe": "disk", "state": "CRITICAL"}]
    assert found.labels("hbagent_host_app_health") == [{**HOST, "app": "web", "state": "DEADLOCKED"}]
    core.receive(LEADER, reports(Report(incarnation=INCARNATION, number=2, probes=probes[1:])), T(2))
    assert Scraped(metrics.render(T(2), FACTS)).labels("hbagent_host_probe_status") == []
    core.receive(LEADER, reports(Report(incarnation=INCARNATION, number=3, probes=probes[:1])), T(2))
    assert len(Scraped(metrics.render(T(2), FACTS)).labels("hbagent_host_probe_status")) == 1


def test_names_that_a_node_gives_can_break_nothing() -> None:
    core = with_two_nodes()
    names = ['a"} 1\n# EOF\nhbagent_isolated 1', "\x1b[31m", "x" * 10_000, "x" * 10_001, "\\", "\ud800"]
    probes = tuple(ProbeResult(name=name, health=Health.UNKNOWN) for name in names)
    core.receive(LEADER, reports(Report(incarnation=INCARNATION, number=1, probes=probes)), T(1))
    found = scrape(core, T(2))
    told = [labels["probe"] for labels in found.labels("hbagent_host_probe_status")]
    assert 'a"} 1 # EOF hbagent_isolated 1' in told and "x" * rootmetrics.PART_NAME_MAX in told
    assert len(told) == len(names) - 1, "two that are cut to one name are one"
    assert found.value("hbagent_isolated") == 0


def test_a_host_with_a_thousand_broken_probes_has_so_many_samples() -> None:
    core = with_two_nodes()
    probes = tuple(ProbeResult(name=f"p{n}", health=Health.WARNING) for n in range(1000))
    probes = (*probes, ProbeResult(name="worst", health=Health.CRITICAL))
    core.receive(LEADER, reports(Report(incarnation=INCARNATION, number=1, probes=probes)), T(1))
    told = scrape(core, T(2)).labels("hbagent_host_probe_status")
    assert len(told) == rootmetrics.PARTS_MAX and any(labels["probe"] == "worst" for labels in told)


def test_hosts_can_be_left_out_but_are_always_counted() -> None:
    core = with_two_nodes()
    for hosts, expected in (("problems", [NODE2]), ("none", [])):
        found = scrape(core, T(2), hosts)
        assert [labels["host"] for labels in found.labels("hbagent_host_liveness")] == expected
        assert found.value("hbagent_hosts", rack=RACK, state="ALIVE") == 1
    metrics = RootMetrics(core, "none")
    metrics.render(T(2), FACTS)
    metrics.use("all")
    assert len(Scraped(metrics.render(T(2), FACTS)).labels("hbagent_host_liveness")) == 2


def test_detections_of_this_life_are_counted_once_and_verdicts_of_all_lives() -> None:
    old = Conviction(event_id="6-1", node=NODE, cause=Cause.SILENCE, at_wall_ns=1, detection_ns=T(3))
    restored = Restored(convictions=(old,), tallies=(Tally(life=6, told={"silence": 10}, wrong={"silence": 1}),))
    core = root_core(restored=restored)
    metrics = RootMetrics(core)
    assert metrics.render(T(0), FACTS).count(b"hbagent_detection_latency_seconds_bucket") == 0
    for number, seconds in enumerate((0.02, 1.4, 1.4)):
        core.accuracy.convict(
            Conviction(event_id=f"7-{number}", node=NODE2, cause=Cause.HOST_GONE, at_wall_ns=2, detection_ns=T(seconds))
        )
        found = Scraped(metrics.render(T(number), FACTS))
    name = "hbagent_detection_latency_seconds"
    assert found.value(f"{name}_count", cause="host-gone") == 3
    assert found.value(f"{name}_bucket", cause="host-gone", le="0.025") == 1
    assert found.value("hbagent_verdicts_total", cause="silence") == 11
    assert found.value("hbagent_verdicts_total", cause="host-gone") == 3
    assert found.value("hbagent_verdicts_wrong_total", cause="silence") == 1


def test_what_became_of_notifications_is_told_by_receiver() -> None:
    sink = SinkConfig(name="am", urls=("http://127.0.0.1:9093", "http://127.0.0.1:9094"))
    core = with_two_nodes(sinks=(sink,))
    effects = settle(core, T(2))
    started, *_ = [effect.run_id for effect in effects if isinstance(effect, RunHook)]
    core.receive("", ended(started, 1), T(3))
    one, two = sink.urls
    core.receive("", Posted(sink="am", url=one, token=1), T(3))
    core.receive("", Posted(sink="am", url=two, token=2, error="refused"), T(3))
    found = scrape(core, T(3))
    assert found.value("hbagent_notifications_total", receiver="page", outcome="failed") == 1
    assert found.value("hbagent_notifications_total", receiver="am", outcome="done") == 2
    assert found.value("hbagent_notifications_total", receiver="am", outcome="failed") == 1
    assert found.value("hbagent_alertmanager_alerts", receiver="am") == 1
    assert found.value("hbagent_alertmanager_up", receiver="am", url=one) == 1
    assert found.value("hbagent_alertmanager_up", receiver="am", url=two) == 0
    assert found.value("hbagent_incidents", axis="liveness", state="firing") == 1
    assert found.value("hbagent_troubles", axis="liveness") == 1


def test_the_root_tells_of_itself() -> None:
    core = with_two_nodes()
    for token in range(10):
        core.receive("", KeepFailed(token, "disk full"), T(2))
    core.receive("stranger", summary(1), T(2))
    found = scrape(core, T(3))
    assert found.value("hbagent_store_degraded") == 1
    assert found.value("hbagent_store_commit_seconds") == 0.002
    assert found.value("hbagent_store_reads_total", by="worker") == 5
    assert found.value("hbagent_store_reads_total", by="reader") == 2
    assert found.value("hbagent_refused_total", reason="forged-rack") >= 1
    assert found.value("hbagent_leader_last_heard_timestamp_seconds", leader=LEADER) == (WALL_NS + T(1)) / 1e9


def test_before_the_wall_clock_is_told_nothing_has_a_time() -> None:
    core = RootCore(with_two_nodes().config, random.Random(1), 0)
    core.receive(LEADER, summary(1, row("node1", version=0)), T(1))
    assert "hbagent_host_last_heartbeat_timestamp_seconds" not in scrape(core, T(1)).names


def test_ten_thousand_hosts_are_told_in_time() -> None:
    """A bound that a slow machine keeps as well; it takes a fifteenth of it."""
    racks = tuple(RackConfig(name=f"dc1/r{n}", leaders=(f"dc1/l{n}",)) for n in range(250))
    core = root_core(racks=racks)
    for n in range(250):
        rows = [row(f"n{node}", version=0) for node in range(40)]
        core.receive(f"dc1/l{n}", summary(1, *rows, rack=f"dc1/r{n}"), T(1))
    core.wake(T(1))
    metrics = RootMetrics(core)
    took = []
    for at in range(4):
        begun = time.process_time()
        body = metrics.render(T(1.1 + at / 10), FACTS)
        took.append(time.process_time() - begun)
    assert body.count(b"hbagent_host_last_heartbeat_timestamp_seconds{") == 10_000
    assert min(took) < 0.5, took
