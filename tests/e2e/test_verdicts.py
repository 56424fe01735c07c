"""What a verdict must not be talked out of, and what it must not claim.

A process that was killed during a cut has beats on the way; a stopped one has a kernel that goes on acknowledging; a
host behind a firewall has no second path at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import BuildLab
from tests.e2e.fleet import ids
from tests.e2e.lab import CONNECTIONS, NEEDS, Lab, can_freeze
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.timeout(180), *NEEDS]

#: How long a frozen process is borne here; thirty seconds by default.
DEAD_AFTER = 10.0
NODE, SHUT, SILENT = "rack1-node1", "rack1-node5", "rack1-node6"
LEADER = "rack1-leader1"


@pytest.fixture(scope="module")
def lab(build_lab: BuildLab) -> Lab:
    lines = (f'dead_after = "{DEAD_AFTER:.0f}s"',)
    made = build_lab(Plan(racks=1, nodes=6, interval="200ms", leader_lines=lines, leader_tables=PATIENT))
    made.write()
    port = made.setting(SHUT, "port")
    made.switch.mute(SHUT, f"th dport {port}")
    made.walled = frozenset([SHUT])
    config = made.config(SILENT)
    config.write_text(config.read_text().replace("[echo]", "[echo]\nenabled = false"))
    made.start()
    made.settle()
    return made


def test_late_beats_of_a_process_that_was_killed_in_a_cut_revive_nobody(lab: Lab, figures: Figures) -> None:
    mark = lab.newest()
    with lab.isolated(NODE):
        # Beats go on into the buffers of its kernel, which delivers them when it can.
        time.sleep(1.0)
        lab.kill(NODE)
        lab.until_liveness(NODE, "DEAD")
        time.sleep(1.0)
    until = time.monotonic() + 4.0
    while time.monotonic() < until:
        assert lab.liveness(NODE) == "DEAD"
        time.sleep(0.05)
    assert ids(lab.events(mark, "node-recovered", "node-restarted")) == []
    assert len(lab.events(mark, "node-dead")) == 1
    stale = lab.refused("stale", LEADER)
    figures("late", f"killed inside a cut: DEAD for 4 s after the heal, {stale} stale beats")
    lab.start([NODE])
    lab.until(lambda: lab.events(mark, "node-restarted"), "it is back")


@pytest.mark.parametrize("how", ["SIGSTOP", "cgroup"])
def test_a_stopped_process_stays_frozen_however_often_it_is_asked(lab: Lab, figures: Figures, how: str) -> None:
    if how == "cgroup" and not can_freeze():
        pytest.skip("no cgroup can be frozen here")
    stop: Callable[[str], AbstractContextManager[None]] = lab.frozen if how == "SIGSTOP" else lab.in_freezer
    mark = lab.newest()
    begun = time.monotonic()
    with stop(NODE):
        took = lab.until(lambda: lab.state(NODE) == ("SUSPECT", "process-frozen"), "process-frozen")
        # Its last beat may be older than that, when it was not scheduled before.
        state = lab.state(NODE)
        while time.monotonic() - begun < DEAD_AFTER - 2.0:
            assert state == ("SUSPECT", "process-frozen")
            time.sleep(0.1)
            state = lab.state(NODE)
        lab.until(lambda: lab.state(NODE) == ("DEAD", "process-frozen"), "DEAD after its time")
        dead = time.monotonic() - begun
    back = lab.until_liveness(NODE, "ALIVE")
    figures("frozen", f"{how}: process-frozen after {took:.2f} s, DEAD after {dead:.2f} s, ALIVE {back:.2f} s later")
    (death,) = lab.events(mark, "node-dead")
    assert death["evidence"]["silent_ns"] >= DEAD_AFTER * 1e9
    assert {row["node"] for row in lab.events(mark)} == {lab.nodes[NODE]}


@pytest.mark.parametrize("name", [SHUT, SILENT], ids=["firewall", "echo-off"])
def test_without_a_second_path_only_silence_is_claimed(lab: Lab, figures: Figures, name: str) -> None:
    mark = lab.newest()
    begun = time.monotonic()
    lab.kill(name)
    lab.until_liveness(name, "DEAD")
    dead = time.monotonic() - begun
    lab.start([name])
    lab.settle()
    figures("silence", f"kill -9 of {name}, which answers no echo: DEAD(silence) after {dead:.2f} s")
    assert {row["cause"] for row in lab.events(mark, "node-suspect", "node-dead")} == {"silence"}
    (death,) = lab.events(mark, "node-dead")
    assert death["evidence"]["silent_ns"] >= 2.5e9, "DEAD before its time"


def test_four_hosts_that_lost_their_power_leave_no_connection_behind(lab: Lab, figures: Figures) -> None:
    victims = tuple(name for name in lab.agents if name not in (SHUT, SILENT))
    mark = lab.newest()
    lab.until(lambda: lab.connections(LEADER, *victims) == CONNECTIONS * len(victims), "each is connected")
    before = lab.descriptors(LEADER)
    begun = time.monotonic()
    lab.lose_power(*victims)
    # Idle for ten seconds, then three probes, five seconds apart.
    lab.until(lambda: lab.connections(LEADER, *victims) == 0, "the kernel gave them up", 60.0)
    took = time.monotonic() - begun
    lab.until(lambda: lab.descriptors(LEADER) <= before - CONNECTIONS * len(victims), "so did the leader")
    figures("power", f"4 power losses: no connection left after {took:.1f} s")
    assert sum(row["kind"] == "node-dead" for row in lab.events(mark)) in (0, len(victims)), "dark, or all of them"
    lab.power_up(*victims)
    lab.settle()
    lab.until(lambda: lab.descriptors(LEADER) <= before + 2, "no connection is left behind")
