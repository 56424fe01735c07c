"""Row F26: the files that logs are written to are rotated, cut and deleted under processes that write to them.

Daemons write to standard error and to no file of their own, so whoever rotates has two ways: to rename the file and
go on with it, or to copy and cut it. A process that is told to reopen its log (SIGHUP) reads its config again.
"""

from __future__ import annotations

import shutil
import signal

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(120)]

LEADER, NODE = "rack1-leader1", "rack1-node1"
#: Of the leader's loop, against hanging. The row demands 100 ms of an idle machine.
LAG_MAX_MS = 5_000.0


def rename(fleet: Fleet, number: int) -> str:
    """Rename, and have the process reopen: it goes on with the renamed file."""
    log = fleet.directory / "log" / f"{LEADER}.log"
    kept = log.with_suffix(f".{number}")
    log.rename(kept)
    before = kept.read_text().count(" reloaded")
    fleet.signal(LEADER, signal.SIGHUP)
    fleet.until(lambda: kept.read_text().count(" reloaded") > before, "read again")
    kept.rename(log)
    return ""


def copy_and_cut(fleet: Fleet, number: int) -> str:
    """Copy the file and cut it: what is written between the two is lost."""
    log = fleet.directory / "log" / f"{LEADER}.log"
    text = log.read_text()
    with log.open("r+") as file:
        file.truncate(0)
    return text


def delete(fleet: Fleet, number: int) -> str:
    """Delete the whole directory: what is written from now on is nowhere, and nobody minds."""
    text = fleet.log(LEADER)
    shutil.rmtree(fleet.directory / "log")
    (fleet.directory / "log").mkdir()
    return text


def test_logs_that_are_rotated_lose_a_line_at_most_and_hold_nobody_up(build: Build, figures: Figures) -> None:
    fleet = build(Plan(racks=1, nodes=3, interval="200ms"))
    fleet.wake_up()
    mark, text = fleet.newest(), ""
    rotations = (rename, copy_and_cut, copy_and_cut, rename)
    for number, rotate in enumerate(rotations):
        fleet.kill(NODE)
        text += rotate(fleet, number)
        fleet.until_liveness(NODE, "DEAD")
        fleet.start([NODE])
        fleet.settle()
    text += fleet.log(LEADER)
    decided = sum(f"node-dead node={fleet.nodes[NODE]}" in line for line in text.splitlines())
    deaths = len(fleet.events(mark, "node-dead"))
    assert deaths == len(rotations)
    assert decided >= deaths - rotations.count(copy_and_cut)
    delete(fleet, len(rotations))
    fleet.kill(NODE)
    fleet.until_liveness(NODE, "DEAD")
    fleet.start([NODE])
    fleet.settle()
    status = fleet.ask("status", LEADER)
    assert status is not None
    lag = status["racks"][0]["leaders"][0]["lag_max_ms"]
    figures(
        "F26", f"{len(rotations)} rotations and a deleted directory: {deaths - decided} lines lost, {lag:.0f} ms late"
    )
    assert lag < LAG_MAX_MS
    assert fleet.processes[LEADER].poll() is None
