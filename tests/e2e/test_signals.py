"""Row F34: SIGTERM, SIGINT and SIGHUP of each role."""

from __future__ import annotations

import signal
import time

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.paired, pytest.mark.timeout(120)]

#: Longer than a silent node is borne.
LONG = 3.0
LEADER, AGENT = "rack1-leader1", "rack1-node1"
PLAN = Plan(
    racks=1,
    nodes=3,
    # At shorter ones a machine that keeps a thread from running for half a second has its process leave out a beat.
    interval="1s",
    leader_lines=('dead_after_min = "2500ms"', "dead_after_intervals = 2"),
    leader_tables=PATIENT,
    # A daemon that is started again may take seconds to be there.
    root_lines=('lease = "30s"',),
)
each_role = pytest.mark.parametrize("name", ["root", LEADER, AGENT])
ending = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


def reload(fleet: Fleet, name: str) -> None:
    """SIGHUP, and wait until the config is taken."""
    skip = len(fleet.log(name))
    fleet.signal(name, signal.SIGHUP)
    fleet.until(lambda: fleet.lines(name, "reloaded", skip=skip), "it is reloaded")


@each_role
@ending
def test_a_daemon_that_is_told_to_end_ends_cleanly_and_nobody_dies(
    fleet: Fleet, figures: Figures, name: str, number: signal.Signals
) -> None:
    mark, skip = fleet.newest(), len(fleet.log(name))
    status, took = fleet.end(name, number)
    figures("F34", f"{number.name} of {name}: ended after {took:.2f} s (within 2 s)")
    assert status == 0
    assert not fleet.lines(name, "Traceback", skip=skip)
    if name == AGENT:
        fleet.until_liveness(name, "LEFT")
        time.sleep(LONG)
        assert fleet.state(name) == ("LEFT", "left")
        assert ids(fleet.events(mark)) == ["demo/rack1/node1 node-left left"]
        fleet.until(lambda: list(fleet.hook_runs(mark).values()) == [1], "the hook is told once")
    else:
        time.sleep(0.5)
    fleet.start([name])
    fleet.settle()
    assert not fleet.events(mark, "node-dead", "node-suspect", "leader-lost")


@each_role
def test_a_reload_loses_nothing(fleet: Fleet, figures: Figures, name: str) -> None:
    mark = fleet.newest()
    lost = {node: fleet.row(node, LEADER)["lost"] for node in fleet.agents}
    for _ in range(5):
        reload(fleet, name)
    time.sleep(LONG)
    assert {node: fleet.row(node, LEADER)["lost"] for node in fleet.agents} == lost
    assert ids(fleet.events(mark)) == []
    figures("F34", f"5 reloads of {name}: beats lost 0, events 0")


@each_role
def test_a_bad_config_is_refused_whole_and_the_old_one_stays(fleet: Fleet, name: str) -> None:
    mark, skip = fleet.newest(), len(fleet.log(name))
    file = fleet.config(name)
    good = file.read_text()
    role = "agent" if name == AGENT else "leader" if name == LEADER else "root"
    file.write_text(good.replace(f"[{role}]", f'[{role}]\ntiemout = "1s"\nnname = 3', 1))
    try:
        fleet.signal(name, signal.SIGHUP)
        fleet.until(lambda: len(fleet.lines(name, "config-refused", skip=skip)) == 2, "both mistakes are told")
        time.sleep(LONG)
        fleet.settle()
    finally:
        file.write_text(good)
    reload(fleet, name)
    assert ids(fleet.events(mark)) == []


def test_another_interval_is_taken_over_without_a_restart(fleet: Fleet) -> None:
    mark = fleet.newest()
    file = fleet.config(AGENT)
    good = file.read_text()
    try:
        for interval in ("200ms", "2s"):
            file.write_text(good.replace('interval = "1s"', f'interval = "{interval}"'))
            reload(fleet, AGENT)
            time.sleep(LONG)
    finally:
        file.write_text(good)
        reload(fleet, AGENT)
    time.sleep(LONG)
    assert ids(fleet.events(mark)) == []
