"""A node that is back says why it was silent: what was done to it is what it says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hbagent.demo.datacenter import Plan
from tests.e2e.fleet import Fleet, node_of
from tests.quotas import quota
from tests.role.conftest import Build, build

__all__ = ["build"]

pytestmark = [pytest.mark.e2e, pytest.mark.paired]

LEADER, NODE = "rack1-leader1", "rack1-node1"


@pytest.fixture
def fleet(build: Build) -> Iterator[Fleet]:
    """A rack of four."""
    made = build(Plan(racks=1, nodes=4))
    made.write()
    yield made


def accounts(fleet: Fleet, begins: str) -> list[dict[str, Any]]:
    """The evidence of each account of the node that the root has got and that begins so."""
    told = [row["evidence"] for row in fleet.events(0, "node-accounted") if row["node"] == node_of(NODE)]
    return [evidence for evidence in told if evidence["text"].startswith(begins)]


def all_alive(fleet: Fleet) -> None:
    for name in fleet.agents:
        fleet.until_liveness(name, "ALIVE", 30)


def test_a_node_that_was_stopped_for_three_seconds_says_so_at_the_root(fleet: Fleet) -> None:
    fleet.start()
    all_alive(fleet)
    with fleet.frozen(NODE):
        fleet.until(lambda: fleet.state(NODE) == ("SUSPECT", "process-frozen"), "found stopped")
        threading.Event().wait(3.0)
    fleet.until(lambda: accounts(fleet, "stopped: its process stood still"), "the account")
    # A machine that stood still for a moment may have made it tell of that as well.
    told = max((each["account"] for each in accounts(fleet, "")), key=lambda account: account["loop_gap_max_ns"])
    assert told["loop_gap_max_ns"] > 2_500_000_000
    assert told["run_delay_ns"] < told["loop_gap_max_ns"] // 2
    assert not fleet.lines(LEADER, "node-dead")


def test_a_node_whose_quota_was_used_up_says_so_at_the_root(fleet: Fleet) -> None:
    with quota() as group:
        fleet.start()
        # The agent looks for its group once, at its start.
        group.hold(fleet.processes[NODE].pid)
        all_alive(fleet)
        group.limit(1_000, 1_000_000)
        fleet.until(lambda: fleet.liveness(NODE) == "SUSPECT", "missed", 30)
        threading.Event().wait(3.0)
    fleet.until_liveness(NODE, "ALIVE", 30)
    fleet.until(lambda: accounts(fleet, "throttled:"), "the account")
