"""A leader's metrics: its racks in numbers, what it heard, and how it does; no host by name."""

from __future__ import annotations

from hbagent.core.exposition import ProcessFacts
from hbagent.core.leader import LeaderCore
from hbagent.core.leadermetrics import LeaderMetrics
from hbagent.core.messages import Refused
from tests.build import LEADER, NODE, RACK, T, beat, give, leader_core
from tests.scraped import Scraped

FACTS = ProcessFacts(resident_bytes=1 << 24)


def heard(*sequences: int, incarnation: int = 1, leader: LeaderCore | None = None) -> LeaderCore:
    """A leader that has heard these beats of the first of its two nodes."""
    core = leader or leader_core()
    for sequence in sequences:
        give(core, beat(sequence, incarnation=incarnation), T(sequence))
    return core


def scrape(metrics: LeaderMetrics, now: int) -> Scraped:
    plain = Scraped(metrics.render(now, FACTS))
    assert Scraped(metrics.render(now, FACTS, openmetrics=True), True).samples == plain.samples
    return plain


def test_a_rack_is_told_in_numbers_and_no_host_by_name() -> None:
    found = scrape(LeaderMetrics(heard(1, 2, 3)), T(3))
    assert found.of("hbagent_build_info", role="leader", name=LEADER)
    assert found.value("hbagent_leader_hosts", rack=RACK, state="ALIVE") == 1
    assert found.value("hbagent_leader_hosts", rack=RACK, state="UNKNOWN") == 1
    assert found.value("hbagent_leader_hosts_by_health", rack=RACK, state="UNKNOWN") == 2
    assert found.value("hbagent_leader_rack_dark", rack=RACK) == 0
    assert found.value("hbagent_heartbeats_received_total") == 3
    assert found.value("process_resident_memory_bytes") == 1 << 24
    assert not any(NODE in dict(labels).values() for _, labels in found.samples)


def test_what_was_missed_is_summed_over_the_lives_of_agents() -> None:
    metrics = LeaderMetrics(core := heard(1, 2, 5))
    assert scrape(metrics, T(5)).value("hbagent_heartbeats_missed_total", rack=RACK) == 2
    heard(6, 8, incarnation=2, leader=core)
    assert scrape(metrics, T(8)).value("hbagent_heartbeats_missed_total", rack=RACK) == 3


def test_a_host_in_doubt_is_counted() -> None:
    core = heard(*range(1, 10))
    now = T(9)
    while (due := core.deadline()) is not None and due < T(10.3):
        now = max(now, due)
        core.wake(now)
    found = scrape(LeaderMetrics(core), now)
    assert found.value("hbagent_leader_hosts_in_doubt", rack=RACK) == 1
    assert found.value("hbagent_doubts_total") == 1


def test_refusals_are_told_by_reason() -> None:
    core = leader_core()
    core.receive("", Refused("x", "malformed"), T(1))
    assert scrape(LeaderMetrics(core), T(1)).value("hbagent_refused_total", reason="malformed") == 1
