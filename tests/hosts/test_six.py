"""The same datacenter once more, over IPv6 alone: deployed, watched, hurt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.deployment import BOUND_S, LEADERS, SLOWER, Deployment
from tests.hosts.lab import wait_until


@pytest.fixture(scope="module")
def six(bare: Deployment) -> Iterator[Deployment]:
    """The hosts of the lab, called at their IPv6 addresses; IPv4 is switched off between them."""
    bare.six = True
    bare.lab.in_switch("sysctl", "-qw", "net.ipv4.ip_forward=0")
    try:
        deployed = bare.play("site")
        assert deployed.code == 0, deployed.output[-5000:]
        bare.wait_alive()
        yield bare
    finally:
        bare.six = False
        bare.lab.in_switch("sysctl", "-qw", "net.ipv4.ip_forward=1")


def test_every_connection_is_over_ipv6(six: Deployment) -> None:
    for host in six.lab.hosts:
        lines = host.shell("ss -Htn state established '( sport >= :5700 and sport <= :5739 )'").splitlines()
        # Three of each agent with a leader; of each leader two with the root.
        assert bool(lines) == (host.number in (1, *LEADERS)), (host.name, lines)
        assert all("fd77:" in line and " 10." not in line for line in lines), lines


def test_a_killed_agent_and_a_host_without_power_are_told_with_their_causes(six: Deployment) -> None:
    killed, gone = six.host(4), six.host(6)
    six.wait_told()
    before = len(six.told())
    with killed.changed_unit("hbagent-agent", SLOWER):
        killed.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", "hbagent-agent")
        gone.power_off()
        assert wait_until(lambda: six.states().get(six.node(gone)) == ("DEAD", "host-gone"), BOUND_S), six.states()
        assert wait_until(lambda: len([one for one in six.told()[before:] if one["kind"] == "node-dead"]) == 2, BOUND_S)
    deaths = {one["node"]: one["cause"] for one in six.told()[before:] if one["kind"] == "node-dead"}
    assert deaths == {six.node(killed): "process-exit", six.node(gone): "host-gone"}
    six.lab.heal()
    gone.boot()
    six.lab.wait_booted(gone)
    six.wait_alive(90)
