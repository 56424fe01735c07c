"""Real hosts lose their power, their cable, their agent, their leader, or stand still: the root says which it was.

Each is told once, and once more when it is over. Who asks for suspicions as well is told of one before a death by
silence, and of nothing else where only that is known.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hosts.deployment import BOUND_S, SLOWER, Deployment
from tests.hosts.lab import Host, wait_until

#: In rack a, with two leaders and three neighbours; alone with its leader in rack b.
LONELY, NEIGHBOUR = 6, 4

Told = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def healed(fleet: Deployment) -> Iterator[None]:
    """All is well again, and nothing waits to be told, when the next test begins."""
    fleet.wait_told()
    yield
    fleet.lab.heal()
    fleet.lab.wait_booted(*(host for host in fleet.lab.hosts if not host.init and _boot(host)), *fleet.lab.hosts)
    fleet.wait_alive(90)


def _boot(host: Host) -> bool:
    host.boot()
    return True


def told_of(fleet: Deployment, subject: str, before: int) -> Told:
    """What the hook was told of a node, a leader or a rack since then."""
    return [one for one in fleet.told()[before:] if subject in (one["node"], one["rack"], one.get("subject"))]


def kinds_of(fleet: Deployment, host: Host, before: int) -> list[str]:
    """The kinds of what the hook was told of it since then, but for suspicions."""
    kinds = [one["kind"] for one in told_of(fleet, fleet.node(host), before)]
    return [kind for kind in kinds if kind != "node-suspect"]


def verdict(
    fleet: Deployment, host: Host, kind: str, expected: tuple[str, str], hurt: Callable[[], object]
) -> list[tuple[str, str | None, str]]:
    """Hurt it; wait for the verdict at the root and for the hook. What the hook was told of it: kind, cause, host."""
    before = len(fleet.told())
    node = fleet.node(host)
    hurt()
    assert wait_until(lambda: fleet.states().get(node) == expected, BOUND_S), fleet.states()
    assert wait_until(lambda: any(one["kind"] == kind for one in told_of(fleet, node, before)), BOUND_S)
    told = [(one["kind"], one["cause"], one["host"]) for one in told_of(fleet, node, before)]
    return told if kind == "node-suspect" else [one for one in told if one[0] != "node-suspect"]


@pytest.mark.parametrize("number", [NEIGHBOUR, LONELY])
def test_a_host_that_loses_its_power_is_gone_and_back_when_it_has_booted(fleet: Deployment, number: int) -> None:
    host = fleet.host(number)
    before = len(fleet.told())
    told = verdict(fleet, host, "node-dead", ("DEAD", "host-gone"), host.power_off)
    assert told == [("node-dead", "host-gone", "down")]
    fleet.lab.heal()
    host.boot()
    fleet.lab.wait_booted(host)
    fleet.wait_alive(60)
    assert wait_until(lambda: kinds_of(fleet, host, before) == ["node-dead", "node-restarted"], BOUND_S)


def test_a_pulled_cable_is_a_host_that_is_gone_and_the_same_process_when_it_is_plugged_in(fleet: Deployment) -> None:
    host = fleet.host(NEIGHBOUR)
    before = len(fleet.told())
    told = verdict(fleet, host, "node-dead", ("DEAD", "host-gone"), host.pull_cable)
    assert told == [("node-dead", "host-gone", "down")]
    host.plug_cable()
    fleet.wait_alive()
    assert wait_until(lambda: kinds_of(fleet, host, before) == ["node-dead", "node-recovered"], BOUND_S)


def test_a_frozen_host_is_frozen_and_not_gone(fleet: Deployment) -> None:
    host = fleet.host(NEIGHBOUR)
    before = len(fleet.told())
    with contextlib.ExitStack() as cold:
        told = verdict(
            fleet, host, "node-suspect", ("SUSPECT", "process-frozen"), lambda: cold.enter_context(host.frozen())
        )
        assert told == [("node-suspect", "process-frozen", "up")]
    fleet.wait_alive()
    assert "node-dead" not in kinds_of(fleet, host, before)


def test_a_killed_agent_is_told_with_its_host_up_and_systemd_brings_it_back(fleet: Deployment) -> None:
    host = fleet.host(NEIGHBOUR)
    before = len(fleet.told())
    with host.changed_unit("hbagent-agent", SLOWER):
        host.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", "hbagent-agent")
        both = ["node-dead", "node-restarted"]
        assert wait_until(lambda: kinds_of(fleet, host, before) == both, BOUND_S), fleet.told()[before:]
    (dead,) = (one for one in told_of(fleet, fleet.node(host), before) if one["kind"] == "node-dead")
    assert (dead["cause"], dead["host"]) == ("process-exit", "up")
    fleet.wait_alive()


def test_a_killed_leader_that_systemd_brings_back_at_once_is_no_alarm(fleet: Deployment) -> None:
    host = fleet.host(5)
    with fleet.quiet() as seen:
        killed = time.monotonic()
        host.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", "hbagent-leader")

        def heard() -> bool:
            """The root hears one that was started since."""
            rows = {row["leader"]: row for rack in fleet.ask("status")["racks"] for row in rack["leaders"]}
            row = rows[f"{fleet.rack_of(host)}-{host.name}"]
            age = row["uptime_s"]
            return row["state"] == "ALIVE" and age is not None and age < time.monotonic() - killed

        assert wait_until(heard, BOUND_S), fleet.ask("status")
        fleet.wait_alive()
    assert (seen.alarms, seen.departures) == ([], [])


def test_a_leader_that_stays_away_is_told_once_and_its_nodes_are_not_called_dead(fleet: Deployment) -> None:
    host = fleet.host(5)
    nodes = {fleet.node(fleet.host(5)), fleet.node(fleet.host(6))}
    before = len(fleet.told())
    with contextlib.ExitStack() as after, host.changed_unit("hbagent-leader", "Restart=no"):
        after.callback(host.run, "systemctl", "start", "hbagent-leader")
        host.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", "hbagent-leader")
        away = ("UNKNOWN", "leader-lost")
        assert wait_until(lambda: all(fleet.states().get(node) == away for node in nodes), BOUND_S), fleet.states()
        assert wait_until(lambda: len(fleet.told()) > before, BOUND_S)
        assert [(one["kind"], one["cause"]) for one in fleet.told()[before:]] == [("leader-lost", "leader-lost")]
    fleet.wait_alive()
    assert wait_until(lambda: len(fleet.told()) >= before + 2, BOUND_S)
    assert [one["kind"] for one in fleet.told()[before:]] == ["leader-lost", "leader-recovered"]


def test_a_leader_host_without_power_takes_nobody_with_it(fleet: Deployment) -> None:
    host = fleet.host(3)
    others = {node for node, other in fleet.nodes().items() if other is not host}
    before = len(fleet.told())
    with fleet.quiet() as seen:
        told = verdict(fleet, host, "node-dead", ("DEAD", "host-gone"), host.power_off)
        assert told == [("node-dead", "host-gone", "down")]
        assert wait_until(lambda: any(one["kind"] == "leader-lost" for one in fleet.told()[before:]), BOUND_S)
    assert {node for _, node, _ in seen.departures} & others == set()
    assert sorted(kind for kind, _, _ in seen.alarms if kind != "node-suspect") == ["leader-lost", "node-dead"]
