"""The book of verdicts over real processes: who was called dead and goes on was not, and says why it was silent."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, node_of

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(120)]

STOPPED, KILLED = "rack1-node1", "rack1-node2"
#: How long a stopped process is borne; half a minute by default.
DEAD_AFTER = 2.0


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(Plan(racks=1, nodes=4, leader_lines=(f'dead_after = "{DEAD_AFTER:.0f}s"',)))
    made.wake_up()
    return made


def accuracy(fleet: Fleet) -> dict[str, Any]:
    """What `hbagent accuracy -o json` prints, as a document."""
    command = [sys.executable, "-m", "hbagent", "accuracy", "--config", str(fleet.config("root")), "-o", "json"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=os.environ.copy())
    assert done.returncode == 0, done.stderr.decode()
    document: dict[str, Any] = msgspec.json.decode(done.stdout)
    return document


def test_a_stopped_agent_that_was_called_dead_and_goes_on_is_a_wrong_verdict_with_its_reason(
    fleet: Fleet, figures: Figures
) -> None:
    assert accuracy(fleet)["all"]["verdicts"] == 0
    with fleet.frozen(STOPPED):
        took = fleet.until(lambda: fleet.state(STOPPED) == ("DEAD", "process-frozen"), "dead")
        before = accuracy(fleet)
        assert (before["all"]["verdicts"], before["all"]["wrong"], before["mistakes"]) == (1, 0, [])
    fleet.until_liveness(STOPPED, "ALIVE")
    fleet.until(lambda: [m for m in accuracy(fleet)["mistakes"] if m["reason"]], "the reason")
    document = accuracy(fleet)
    (mistake,) = document["mistakes"]
    assert (mistake["node"], mistake["cause"]) == (node_of(STOPPED), "process-frozen")
    assert mistake["reason"].startswith("stopped: its process stood still"), mistake
    assert 0 < mistake["back_after_s"] < 100
    (frozen,) = document["causes"]
    assert (frozen["cause"], frozen["verdicts"], frozen["wrong"]) == ("process-frozen", 1, 1)
    assert frozen["detection_p50_ms"] is None, "how fast a wrong verdict came is nothing to be proud of"
    assert document["since"] < mistake["at"] < document["at"]
    figures("F06", f"DEAD after {took:.2f} s, wrong by the book: {mistake['reason']}")
    fleet.settle()

    fleet.kill(KILLED)
    fleet.until_liveness(KILLED, "DEAD")
    fleet.start([KILLED])
    fleet.settle()
    document = accuracy(fleet)
    assert (document["all"]["verdicts"], document["all"]["wrong"]) == (2, 1), "who really ended was called dead rightly"
    assert document["since"] < mistake["at"], "what was written meanwhile began no later"
