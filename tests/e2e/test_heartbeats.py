"""Why no socket here has ZMTP heartbeats: with them a subscriber that stalled ends, or never catches up.

The three subscribers are run side by side, each under 3,000 messages in 3 s and a stall of 9 s. When a newer libzmq
turns the first of them green, decision 13 of ARCHITECTURE.md may be looked at again.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from hbagent.transport.sockets import Context, Target, beat_publisher
from tests.conftest import Figures
from tests.e2e.stalling import SILENCE_MS, STALL_SECONDS
from tests.transport.doors import caller, new_keys

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

MESSAGES = 3_000
PACE_SECONDS = 0.001
END_SECONDS = STALL_SECONDS + 10 * SILENCE_MS / 1000

Outcome = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    """Exit status and last line of each subscriber, by how it was made."""
    keys = new_keys("demo/rack1/node1")
    context: Context = zmq.Context()
    called = context.socket(zmq.PUB)
    called.bind("tcp://127.0.0.1:*")
    address = called.getsockopt_string(zmq.LAST_ENDPOINT)
    command = [sys.executable, "-m", "tests.e2e.stalling"]
    processes = {
        how: subprocess.Popen([*command, how, keys.public, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for how in ("shipped", "heartbeats", "calling")
    }
    try:
        publishers = [called]
        for how, process in processes.items():
            assert process.stdout is not None
            where = json.loads(process.stdout.readline())
            if how != "calling":
                target = Target(where["endpoint"], where["key"])
                publishers.append(beat_publisher(context, caller(keys), [target]))
        time.sleep(0.5)
        for number in range(MESSAGES):
            for publisher in publishers:
                publisher.send(b"%d" % number, zmq.NOBLOCK)
            time.sleep(PACE_SECONDS)
        found = {}
        for how, process in processes.items():
            output, _ = process.communicate(timeout=END_SECONDS)
            found[how] = process.returncode, json.loads(output or b"{}")
        yield found
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
        context.destroy(linger=0)


def test_the_shipped_intake_lives_through_a_stall_and_has_the_latest(
    outcomes: dict[str, Outcome], figures: Figures
) -> None:
    status, heard = outcomes["shipped"]
    assert status == 0
    assert heard["last"] == str(MESSAGES - 1)
    figures("V1", f"shipped: after a stall of {STALL_SECONDS:.0f} s {heard['count']} of {MESSAGES}, and the latest")


def test_with_heartbeats_a_subscriber_that_calls_aborts(outcomes: dict[str, Outcome], figures: Figures) -> None:
    assert outcomes["calling"][0] == -signal.SIGABRT
    figures("V1", f"ZMTP heartbeats, a calling SUB of libzmq {zmq.zmq_version()}: aborted")


def test_with_heartbeats_a_bound_intake_has_lost_its_agents(outcomes: dict[str, Outcome], figures: Figures) -> None:
    """It throws a connection away because it did not read itself, and what was sent since with it."""
    status, heard = outcomes["heartbeats"]
    assert (status, heard.get("last")) != (0, str(MESSAGES - 1))
    figures("V1", f"ZMTP heartbeats, the same intake: exit {status}, {heard or 'nothing'}")
