"""A real Prometheus scrapes a real root and leader, raises alarms by the shipped rules, and hosts write their own."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan, held_ports, wait_until
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet
from tests.e2e.watchers import PROMETHEUS, Prometheus
from tests.scraped import Scraped

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.needs(PROMETHEUS), pytest.mark.timeout(120)]

NODE = {"host": "demo/rack1/node1", "rack": "demo/rack1"}


@pytest.fixture(scope="module")
def leaders_port() -> Iterator[int]:
    with held_ports(1) as (port,):
        yield port


@pytest.fixture(scope="module")
def fleet(build: Build, leaders_port: int) -> Fleet:
    table = f'[web]\nlisten = "127.0.0.1:{leaders_port}"\n'
    made = build(Plan(racks=1, nodes=2, page=True, leader_tables=table, prober_lines=('facts_interval = "1s"',)))
    made.write()
    for name in made.agents:
        with made.config(name).open("a") as file:
            file.write(f'\n[metrics]\ntextfile = "{made.directory}/run/{name}.prom"\n')
    made.start()
    made.settle()
    return made


@pytest.fixture(scope="module")
def prometheus(fleet: Fleet, leaders_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = [fleet.page.removeprefix("http://").rstrip("/"), f"127.0.0.1:{leaders_port}"]
    with held_ports(1) as (port,):
        made = Prometheus(tmp_path_factory.mktemp("prometheus") / "data", port, targets)
        made.start()
        yield made
        made.kill()


def errors(prometheus: Prometheus) -> list[str]:
    """What the last scrape of each target complained of, "" for nothing."""
    return [target["lastError"] for target in prometheus.get("/api/v1/targets")["data"]["activeTargets"]]


def roles(prometheus: Prometheus) -> set[str]:
    return {labels["role"] for labels, _ in prometheus.values("hbagent_build_info")}


def received(prometheus: Prometheus) -> list[float]:
    return [value for _, value in prometheus.values("hbagent_heartbeats_received_total")]


def test_root_and_leader_are_scraped_without_complaint(fleet: Fleet, prometheus: Prometheus) -> None:
    """A scrape of a busy machine that took longer than a second is followed by another."""
    assert wait_until(lambda: [value for _, value in prometheus.values("up")] == [1, 1], 20), prometheus.values("up")
    assert wait_until(lambda: len(prometheus.values("hbagent_host_up == 1")) == 2, 20)
    assert wait_until(lambda: errors(prometheus) == ["", ""], 20), errors(prometheus)
    assert wait_until(lambda: roles(prometheus) == {"root", "leader"}, 20), roles(prometheus)
    assert wait_until(lambda: [value > 0 for value in received(prometheus)] == [True], 20), received(prometheus)


def test_both_formats_hold_the_same(fleet: Fleet, leaders_port: int) -> None:
    for url in (fleet.page, f"http://127.0.0.1:{leaders_port}/"):
        request = urllib.request.Request(f"{url}metrics", headers={"Accept": "application/openmetrics-text"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            other = Scraped(answer.read(), openmetrics=True)
        # Later, for what is counted once is counted for ever.
        with urllib.request.urlopen(f"{url}metrics", timeout=30) as answer:
            plain = Scraped(answer.read())
        assert set(other.samples) - set(plain.samples) == set()
        assert plain.value("process_resident_memory_bytes") > 1 << 20


def test_a_killed_agent_raises_the_alarm_by_the_shipped_rules(fleet: Fleet, prometheus: Prometheus) -> None:
    fleet.kill("rack1-node1")
    fires = 'ALERTS{alertname="HbagentHostDown",alertstate="firing"}'
    until = time.monotonic() + 30
    while not (found := prometheus.values(fires)):
        assert time.monotonic() < until, prometheus.values("hbagent_host_liveness")
        time.sleep(0.2)
    assert len(found) == 1
    assert found[0][0].items() >= {**NODE, "cause": "process-exit", "severity": "warning"}.items()
    assert wait_until(lambda: [value for _, value in prometheus.values("hbagent_host_up")].count(0) == 1, 20)
    deaths = "sum(hbagent_detection_latency_seconds_count)"
    assert wait_until(lambda: [value for _, value in prometheus.values(deaths)] == [1], 20), prometheus.values(deaths)
    fleet.start(["rack1-node1"])
    assert wait_until(lambda: not prometheus.values(fires), 30)
    fleet.settle()


def test_every_host_writes_a_file_for_node_exporter_and_goes_on(fleet: Fleet) -> None:
    fleet.settle()
    for name, node in fleet.nodes.items():
        path = Path(fleet.directory, "run", f"{name}.prom")
        assert wait_until(path.exists, 20), fleet.lines(name, "textfile")
        # Its prober may just have been started again, and not have looked at anything yet.
        assert wait_until(lambda path=path: Scraped(path.read_bytes()).labels("hbagent_probe_status"), 30)  # type: ignore[misc]
        first = path.stat().st_mtime_ns
        found = Scraped(path.read_bytes())
        assert found.value("hbagent_node_info", node=node) == 1
        assert found.labels("hbagent_probe_status")
        assert path.stat().st_mode & 0o777 == 0o644
        assert wait_until(lambda path=path, first=first: path.stat().st_mtime_ns > first, 20)  # type: ignore[misc]
