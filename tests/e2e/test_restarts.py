"""A stuck unit is restarted when its config says so: after its evidence was taken, and the root knows both.

What stands in for systemd is this test: a program of that name in the agent's PATH writes down what it was asked, and
the test does it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan
from tests.e2e.conftest import Build
from tests.e2e.fleet import START_SECONDS, Fleet
from tests.e2e.test_health import Victim, app_is, app_of, changes

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(180)]

NODE = "rack1-node1"


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was asked of systemctl, a line each."""
    directory = tmp_path_factory.mktemp("bin")
    program = directory / "systemctl"
    program.write_text(f"#!/bin/sh\necho \"$@\" >>'{directory}/calls'\n")
    program.chmod(0o755)
    (directory / "calls").touch()
    return directory / "calls"


@pytest.fixture(scope="module")
def fleet(build: Build, calls: Path) -> Fleet:
    """One node, which may restart the unit of its application."""
    made = build(Plan(racks=1, nodes=1))
    made.write()
    config = made.config(NODE)
    # The victims are of no unit.
    table = f'[[app]]\nname = "web"\nunit = "web.service"\nusers = [{os.getuid()}]\nrestart = true\n'
    config.write_text(config.read_text() + table)
    made.variables[NODE] = {"PATH": f"{calls.parent}:/usr/bin:/bin"}
    made.start()
    made.settle()
    return made


def restarts(calls: Path) -> list[str]:
    """What systemctl was asked to restart."""
    return [line for line in calls.read_text().splitlines() if "restart" in line.split()]


def test_a_deadlocked_unit_is_restarted_with_its_evidence_kept(fleet: Fleet, calls: Path) -> None:
    begun = fleet.newest()
    victim = Victim(fleet, NODE, "web")
    fleet.until(lambda: app_of(fleet, NODE, "web").get("pid"), "the application is known", START_SECONDS)
    victim.deadlock()
    fleet.until(lambda: restarts(calls), "systemd is asked", 60)
    # Not again within half a minute: it has been that long when this was so long ago.
    asked = time.monotonic()
    assert restarts(calls)[0].split()[-1] == "web.service"
    # Its evidence was there before anybody touched it; later it is looked at once more.
    shelf = fleet.directory / "state" / NODE / "evidence"
    bundle = json.loads(min(shelf.glob("*web*.json"), key=lambda file: file.stat().st_mtime_ns).read_text())
    assert "clerk-buy" in json.dumps(bundle) and "clerk-sell" in json.dumps(bundle)
    victim.kill()
    again = Victim(fleet, NODE, "web")
    try:
        fleet.until(lambda: app_is(fleet, NODE, "web", "OK"), "it is well again")
        fleet.until(lambda: changes(fleet, NODE, "web", begun)[-1:] == ["OK"], "both are told")
        # Where the proof takes longer than three seconds it is called STALLED until then.
        told = [health for health in changes(fleet, NODE, "web", begun) if health != "STALLED"]
        assert told[:2] == ["OK", "DEADLOCKED"]
        for words in (("restarting-unit", "web.service"), ("restarted-unit",)):
            fleet.until(lambda words=words: fleet.lines(NODE, *words), "it is logged")  # type: ignore[misc]
        again.deadlock()
        fleet.until(lambda: app_is(fleet, NODE, "web", "DEADLOCKED"), "it is stuck again", 60)
        assert len(restarts(calls)) == 1 or time.monotonic() - asked > 25, "not again within half a minute"
    finally:
        again.end()
