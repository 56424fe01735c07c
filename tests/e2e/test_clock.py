"""Row F13: the wall clock of a running daemon steps by an hour forwards and a day back. Only what is shown moves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids, node_of

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.timeout(120), pytest.mark.needs("gcc")]

INTERVAL = 0.2
#: The shortest silence that ends in DEAD.
DEAD_AFTER = 2.5
HOUR, DAY = 3600, 86400


@pytest.fixture(scope="module")
def fleet(build: Build, clock_shim: Path) -> Fleet:
    # Only silence decides: a proved end would come at once, and show nothing of deadlines.
    silence = "[doubt]\nenabled = false\n"
    made = build(Plan(racks=1, nodes=3, interval="200ms", leader_tables=silence))
    for name in made.names:
        made.variables[name] = {"LD_PRELOAD": str(clock_shim), "CLOCK_OFFSET_FILE": str(clock_of(made, name))}
    made.wake_up()
    return made


def clock_of(fleet: Fleet, name: str) -> Path:
    """The file with the offset of a process's wall clock."""
    return fleet.directory / f"{name}.clock"


@pytest.mark.parametrize("step", [HOUR, -DAY], ids=["an-hour-on", "a-day-back"])
@pytest.mark.parametrize("name", ["root", "rack1-leader1", "rack1-node1"])
def test_a_step_of_the_wall_clock_moves_no_deadline(fleet: Fleet, figures: Figures, name: str, step: int) -> None:
    mark, skip = fleet.newest(), len(fleet.log(name))
    clock_of(fleet, name).write_text(str(step))
    fleet.until(lambda: fleet.lines(name, "wall-jump", skip=skip), "the step is logged")
    # The one whose clock stepped and one whose clock did not.
    killed = ("rack1-node1", "rack1-node2")
    begun = time.monotonic()
    for node in killed:
        fleet.kill(node)
    fleet.until(lambda: {fleet.state(node) for node in killed} == {("DEAD", "silence")}, "both DEAD")
    dead = time.monotonic() - begun
    figures("F13", f"{name} {step:+d} s: kill -9 to DEAD {dead:.2f} s (within {DEAD_AFTER + 0.5} s)")
    assert dead > DEAD_AFTER - INTERVAL - 0.1, "DEAD before its time"
    fleet.start(killed)
    fleet.settle()
    told = ids(fleet.lasting(mark))
    assert sorted(told) == sorted(
        f"{node_of(node)} {what}" for node in killed for what in ("node-dead silence", "node-restarted")
    )
    assert len(fleet.lines(name, "wall-jump", skip=skip)) == 1, "one step is one line"
    clock_of(fleet, name).write_text("0")
    if name != "rack1-node1":
        fleet.until(lambda: len(fleet.lines(name, "wall-jump", skip=skip)) == 2, "the step back is logged")
