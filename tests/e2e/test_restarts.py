"""A stuck unit is restarted when its config says so: after its evidence was taken, and the root knows both.

What stands in for systemd is this test: a program of that name in the agent's PATH writes down what it was asked, and
the test does it.
"""

from __future__ import annotations

import json
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
    table = '[[app]]\nname = "web"\nunit = "web.service"\nrestart = true\n'
    config.write_text(config.read_text() + table)
    made.variables[NODE] = {"PATH": f"{calls.parent}:/usr/bin:/bin"}
    made.start()
    made.settle()
    return made


def test_a_deadlocked_unit_is_restarted_with_its_evidence_kept(fleet: Fleet, calls: Path) -> None:
    begun = fleet.newest()
    victim = Victim(fleet, NODE, "web")
    fleet.until(lambda: app_of(fleet, NODE, "web").get("pid"), "the application is known", START_SECONDS)
    victim.deadlock()
    fleet.until(lambda: "restart" in calls.read_text(), "systemd is asked", 20)
    assert calls.read_text().split()[-1] == "web.service"
    # Its evidence was there before anybody touched it.
    shelf = fleet.directory / "state" / NODE / "evidence"
    (bundle,) = (json.loads(file.read_text()) for file in shelf.glob("*web*.json"))
    assert "clerk-buy" in json.dumps(bundle) and "clerk-sell" in json.dumps(bundle)
    victim.kill()
    again = Victim(fleet, NODE, "web")
    try:
        fleet.until(lambda: app_is(fleet, NODE, "web", "OK"), "it is well again")
        fleet.until(lambda: len(changes(fleet, "web", begun)) >= 2, "both are told")
        assert changes(fleet, "web", begun)[0] == ("OK", "DEADLOCKED")
        assert fleet.lines(NODE, "restarting-unit", "web.service") and fleet.lines(NODE, "restarted-unit")
        again.deadlock()
        fleet.until(lambda: app_is(fleet, NODE, "web", "DEADLOCKED"), "it is stuck again", 20)
        assert calls.read_text().count("restart") == 1, "not again within half a minute"
    finally:
        again.end()
