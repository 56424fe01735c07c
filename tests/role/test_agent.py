"""The agent as a process: it beats whatever becomes of the rest, leaves with a goodbye, and takes over its config."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from hbagent import __version__
from hbagent.demo.datacenter import Plan
from hbagent.transport.allow import Role
from tests.e2e.fleet import Fleet, Row
from tests.role.conftest import Build
from tests.role.parts import Systemd, until
from tests.role.test_start import replace

pytestmark = [pytest.mark.e2e, pytest.mark.paired]

LEADER, NODE = "rack1-leader1", "rack1-node1"
#: The kernel keeps ten datagrams for a reader that stands still: so few come in half a minute.
WATCHDOG_USEC = "16000000"


@pytest.fixture
def fleet(build: Build) -> Iterator[Fleet]:
    """A leader and an agent that it hears."""
    made = build(Plan(racks=1, nodes=1))
    made.write()
    made.start([LEADER, NODE])
    made.until_liveness(NODE, "ALIVE", 30, of=LEADER)
    yield made


def lost(fleet: Fleet, node: str) -> int:
    """How many beats of a node did not arrive."""
    rows: list[Row] = []

    def told() -> Row:
        rows.append(fleet.row(node, of=LEADER))
        return rows[-1]

    assert until(told), "its leader answers"
    return int(rows[-1]["lost"])


def hears(fleet: Fleet) -> None:
    """Wait for a beat that is younger than this call."""
    begun = time.monotonic()

    def heard() -> bool:
        age = fleet.row(NODE, of=LEADER).get("age_s")
        return age is not None and age < time.monotonic() - begun

    assert until(heard)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_is_a_goodbye_and_a_clean_end(fleet: Fleet, number: int) -> None:
    before = len(fleet.log(LEADER))
    code, _ = fleet.end(NODE, number)
    assert code == 0
    fleet.until_liveness(NODE, "LEFT", of=LEADER)
    assert fleet.lines(NODE, "terminating")
    assert fleet.lines(NODE, "left unacknowledged=none")
    assert not fleet.lines(LEADER, "node-suspect", skip=before)
    assert not fleet.lines(LEADER, "node-dead")


def test_without_a_leader_it_leaves_too(fleet: Fleet) -> None:
    fleet.kill(LEADER)
    code, _ = fleet.end(NODE)
    assert code == 0
    assert fleet.lines(NODE, f"left unacknowledged=demo/{LEADER}")


def test_it_says_what_it_is(fleet: Fleet) -> None:
    (line,) = fleet.lines(NODE, "started")
    assert "node=demo/rack1/node1" in line
    assert f"leaders=demo/{LEADER}" in line
    assert f"version={__version__}" in line
    fleet.until(lambda: fleet.lines(NODE, "admitted", f"leader=demo/{LEADER}"), "it says who admitted it")


def test_a_good_config_is_taken_over_and_no_beat_is_lost(fleet: Fleet) -> None:
    replace(fleet, NODE, "^interval = .*", 'interval = "100ms"')
    before = lost(fleet, NODE)
    for _ in range(5):
        fleet.signal(NODE, signal.SIGHUP)
    fleet.until(lambda: fleet.lines(NODE, "reloaded"), "reloaded")
    hears(fleet)
    assert lost(fleet, NODE) == before
    assert not fleet.lines(LEADER, "node-restarted"), "it is the same life"


def test_a_bad_config_is_told_and_the_old_one_stays(fleet: Fleet) -> None:
    replace(fleet, NODE, "^interval = .*", 'intervall = "1s"')
    fleet.signal(NODE, signal.SIGHUP)
    fleet.until(lambda: fleet.lines(NODE, "config-refused"), "refused")
    assert 'did you mean \\"interval\\"' in fleet.lines(NODE, "config-refused")[0]
    hears(fleet)
    assert fleet.processes[NODE].poll() is None
    assert not fleet.lines(NODE, "reloaded")


def test_a_leader_that_the_config_adds_is_beaten_to_and_one_that_it_drops_is_left(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=1, leaders=2))
    fleet.write()
    both = fleet.config(NODE).read_text()
    first = both[: both.rindex("[[leader]]")]
    fleet.config(NODE).write_text(first)
    fleet.start([LEADER, "rack1-leader2", NODE])
    fleet.until_liveness(NODE, "ALIVE", 30, of=LEADER)
    assert fleet.liveness(NODE, of="rack1-leader2") == "UNKNOWN"
    fleet.config(NODE).write_text(both)
    fleet.signal(NODE, signal.SIGHUP)
    fleet.until_liveness(NODE, "ALIVE", of="rack1-leader2")
    fleet.config(NODE).write_text(first)
    fleet.signal(NODE, signal.SIGHUP)
    # The other leader hears it, and says so.
    fleet.until(lambda: fleet.state(NODE, of="rack1-leader2") == ("SUSPECT", "link-cut"), "not heard there any more")
    hears(fleet)
    assert not fleet.lines(NODE, "defect")


def test_a_key_that_is_enrolled_later_joins_without_a_restart(fleet: Fleet) -> None:
    keys = fleet.keys(NODE)
    fleet.edit_allowed(lambda allow: allow.revoke(keys.name))
    fleet.until_liveness(NODE, "DEAD", of=LEADER)
    fleet.end(NODE)
    fleet.start([NODE])
    fleet.until(lambda: fleet.lines(NODE, "leader-refused-our-key"), "refused")
    fleet.edit_allowed(lambda allow: allow.allow(Role.AGENT, keys.name, keys.public))
    fleet.until_liveness(NODE, "ALIVE", 15, of=LEADER)
    assert len(fleet.lines(NODE, "started")) == 2, "by itself"


def test_an_echo_port_that_is_taken_costs_the_echo_and_no_beat(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=1))
    fleet.write()
    port = int(re.findall(r"^port = (\d+)", fleet.config(NODE).read_text(), re.MULTILINE)[0])
    with socket.create_server(("127.0.0.1", port)):
        fleet.start([LEADER, NODE])
        fleet.until_liveness(NODE, "ALIVE", 30, of=LEADER)
    (line,) = fleet.lines(NODE, "echo-unavailable")
    assert f"127.0.0.1:{port}" in line
    assert "Address already in use" in line


def test_a_reader_of_its_log_that_stalls_stops_no_beat_and_no_goodbye(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=1))
    fleet.write()
    replace(fleet, NODE, r"^\[network\]", '[log]\nlevel = "debug"\n[network]')
    fleet.start([LEADER])
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x" * 65_536)
    fleet.processes[NODE] = subprocess.Popen(fleet.command(NODE), stderr=write_fd, env=fleet.environment)
    try:
        fleet.until_liveness(NODE, "ALIVE", 30, of=LEADER)
        code, _ = fleet.end(NODE)
        assert code == 0
        fleet.until_liveness(NODE, "LEFT", of=LEADER)
    finally:
        os.close(read_fd)
        os.close(write_fd)


def test_systemd_hears_that_it_is_ready_alive_reloading_and_stopping(fleet: Fleet, systemd: Systemd) -> None:
    fleet.end(NODE)
    fleet.variables[NODE] = {**systemd.environment, "WATCHDOG_USEC": WATCHDOG_USEC}
    fleet.start([NODE])
    heard: list[str] = []

    def hear(word: str) -> bool:
        heard.extend(systemd.heard())
        return any(word in text for text in heard)

    assert until(lambda: hear("READY=1"))
    assert heard[0].startswith("READY=1\nSTATUS=beating to 1 leaders")
    assert until(lambda: hear("WATCHDOG=1"))
    heard.clear()
    fleet.signal(NODE, signal.SIGHUP)
    assert until(lambda: hear("RELOADING=1") and hear("READY=1"))
    fleet.end(NODE)
    assert hear("STOPPING=1")


def test_without_keys_it_works_on_loopback_when_all_sides_ask_for_it(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=1))
    fleet.write()
    for name in ("root", LEADER, NODE):
        replace(fleet, name, r"^key = .*", "plain = true")
    fleet.start(["root", LEADER, NODE])
    fleet.until_liveness(NODE, "ALIVE", 30)


def test_one_side_alone_cannot_choose_plain_text(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=1))
    fleet.write()
    enciphered = fleet.config(NODE).read_text()
    replace(fleet, NODE, r"^key = .*", "plain = true")
    fleet.start([LEADER, NODE])
    fleet.until(lambda: fleet.lines(NODE, "started"), "started")
    fleet.until(lambda: fleet.ask("status", LEADER), "the leader answers")
    assert not until(lambda: fleet.liveness(NODE, of=LEADER) == "ALIVE", 3)
    fleet.config(NODE).write_text(enciphered)
    fleet.restart(NODE)
    fleet.until_liveness(NODE, "ALIVE", 30, of=LEADER)
