"""The leader as a process: its list of who may speak, its disk, its config, its doorkeeper, and how it ends."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent import __version__
from hbagent.demo.datacenter import Plan
from hbagent.store.journal import Journal
from tests.e2e.fleet import Fleet, node_of
from tests.role.conftest import Build
from tests.role.parts import Systemd, until
from tests.role.test_agent import WATCHDOG_USEC, hears, lost
from tests.role.test_start import replace

pytestmark = [pytest.mark.e2e, pytest.mark.paired]

LEADER, NODE, OTHER = "rack1-leader1", "rack1-node1", "rack1-node2"


@pytest.fixture
def fleet(build: Build) -> Iterator[Fleet]:
    """A leader that hears two agents; no root."""
    made = build(Plan(racks=1, nodes=2))
    made.write()
    made.start([LEADER, NODE, OTHER])
    all_alive(made)
    yield made


def all_alive(fleet: Fleet, seconds: float = 30.0) -> None:
    for node in (NODE, OTHER):
        fleet.until_liveness(node, "ALIVE", seconds, of=LEADER)


def answers(fleet: Fleet) -> int:
    """How many times SIGHUP was answered."""
    return len(fleet.lines(LEADER, "reloaded")) + len(fleet.lines(LEADER, "config-refused"))


def degraded(fleet: Fleet) -> str:
    status = fleet.ask("status", LEADER)
    return str(status["root"]["degraded"]) if status is not None else "no answer"


@contextlib.contextmanager
def full_disk(fleet: Fleet, name: str) -> Iterator[None]:
    """No file of this process may grow any more."""
    pid = fleet.processes[name].pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_it_says_what_it_is(fleet: Fleet) -> None:
    (line,) = fleet.lines(LEADER, "started")
    for word in ("name=demo/rack1-leader1", "racks=demo/rack1", "nodes=2", f"version={__version__}"):
        assert word in line
    assert fleet.setting(LEADER, "publish") in line
    status = fleet.ask("status", LEADER)
    assert status is not None
    assert status["root"]["version"] == __version__


def test_it_ends_and_remembers_what_it_knew(fleet: Fleet) -> None:
    code, _ = fleet.end(LEADER)
    assert code == 0
    journal = Journal(fleet.directory / "state" / LEADER / "journal")
    known = {entry["m"]: entry["l"] for entry in journal.load() if entry["k"] == "n"}
    journal.close()
    assert known == {"demo/rack1/node1": "ALIVE", "demo/rack1/node2": "ALIVE"}
    assert journal.problems == []


def test_a_revoked_key_is_cut_without_a_signal_and_the_others_go_on(fleet: Fleet) -> None:
    keys = fleet.keys(NODE)
    fleet.edit_allowed(lambda allow: allow.revoke(keys.name))
    fleet.until(lambda: fleet.lines(LEADER, "allow-list keys=1"), "the list is taken over")
    fleet.until(lambda: fleet.refused("unknown-sender", LEADER), "its next beat is refused, and cuts its connection")
    # Its process answers at the echo port, and that is nobody's business any more.
    fleet.until_liveness(NODE, "DEAD", of=LEADER)
    fleet.until_liveness(OTHER, "ALIVE", of=LEADER)
    assert not fleet.lines(LEADER, "node-dead", node_of(OTHER))


def test_a_broken_allow_list_is_told_and_everybody_stays(fleet: Fleet) -> None:
    text = fleet.allow_file().read_text()
    fleet.allow_file().write_text("[agents")
    fleet.until(lambda: fleet.lines(LEADER, "allow-list-refused"), "refused")
    fleet.allow_file().write_text(text)
    fleet.until(lambda: fleet.lines(LEADER, "allow-list keys=2"), "taken over")
    all_alive(fleet)
    assert fleet.refused("unknown-sender", LEADER) == 0
    assert not fleet.lines(LEADER, "node-dead")


def test_reloading_loses_no_message_and_a_bad_config_changes_nothing(fleet: Fleet) -> None:
    before = [lost(fleet, node) for node in (NODE, OTHER)]
    good = fleet.config(LEADER).read_text()
    for number in range(10):
        fleet.config(LEADER).write_text(good if number % 2 else good + "[[rak]]\n")
        fleet.signal(LEADER, signal.SIGHUP)
        assert until(lambda: answers(fleet) > number)  # noqa: B023
    assert len(fleet.lines(LEADER, "reloaded")) == 5
    assert 'unknown section \\"rak\\"' in fleet.lines(LEADER, "config-refused")[0]
    hears(fleet)
    assert [lost(fleet, node) for node in (NODE, OTHER)] == before
    assert not fleet.lines(LEADER, "node-dead")
    assert len(fleet.lines(LEADER, "node-joined")) == 2


def test_nodes_come_and_go_with_the_config(fleet: Fleet) -> None:
    replace(fleet, LEADER, r"^nodes = .*", 'nodes = ["node1", "node3"]')
    fleet.signal(LEADER, signal.SIGHUP)
    fleet.until(lambda: set(fleet.states(LEADER)) == {"demo/rack1/node1", "demo/rack1/node3"}, "other nodes")
    fleet.until_liveness(NODE, "ALIVE", of=LEADER)
    assert not fleet.lines(LEADER, "node-dead")
    fleet.until(lambda: fleet.refused("unexpected-node", LEADER), "the other is refused")


def test_what_needs_a_restart_is_said(fleet: Fleet) -> None:
    replace(fleet, LEADER, r'^state_dir = "(.*)"', r'state_dir = "\1-other"')
    fleet.signal(LEADER, signal.SIGHUP)
    fleet.until(lambda: fleet.lines(LEADER, "needs-restart", "setting=state_dir"), "said")


# ---- the disk --------------------------------------------------------------------------------------------


def test_a_full_disk_is_shown_stops_no_verdict_and_heals_by_itself(fleet: Fleet) -> None:
    assert degraded(fleet) == ""
    with full_disk(fleet, LEADER):
        fleet.kill(NODE)
        fleet.until(lambda: "File too large" in degraded(fleet), "degraded")
        fleet.until_liveness(NODE, "DEAD", of=LEADER)
        fleet.until_liveness(OTHER, "ALIVE", of=LEADER)
    fleet.until(lambda: degraded(fleet) == "", "healed")
    fleet.end(LEADER)
    journal = Journal(fleet.directory / "state" / LEADER / "journal")
    known = {entry["m"]: entry["l"] for entry in journal.load() if entry["k"] == "n"}
    journal.close()
    assert known == {"demo/rack1/node1": "DEAD", "demo/rack1/node2": "ALIVE"}


def test_a_state_directory_that_is_not_there_is_shown_and_stops_nothing(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=2))
    fleet.write()
    state = fleet.directory / "state" / LEADER
    state.write_text("in the way")
    fleet.start([LEADER, NODE, OTHER])
    all_alive(fleet)
    assert "File exists" in degraded(fleet)
    assert fleet.lines(LEADER, "journal-failed")
    fleet.kill(NODE)
    fleet.until_liveness(NODE, "DEAD", of=LEADER)
    state.unlink()
    fleet.until(lambda: degraded(fleet) == "", "healed")
    assert fleet.lines(LEADER, "journal-works-again")
    fleet.end(LEADER)
    journal = Journal(state / "journal")
    assert {entry["m"] for entry in journal.load() if entry["k"] == "n"} == {"demo/rack1/node1", "demo/rack1/node2"}
    journal.close()


#: A daemon whose syncs do not return while a file exists.
HANGING = """
import os, sys, time
from hbagent.cli import main
flag = sys.argv[1]
def hanging(sync):
    def wait(fd):
        while os.path.exists(flag): time.sleep(0.01)
        sync(fd)
    return wait
os.fsync, os.fdatasync = hanging(os.fsync), hanging(os.fdatasync)
raise SystemExit(main(sys.argv[2:]))
"""


class HangingDisk(Fleet):
    """Its leader's disk hangs while `flag` exists."""

    @property
    def flag(self) -> Path:
        return self.directory / "hang"

    def command(self, name: str) -> list[str]:
        command = super().command(name)
        return command if name != LEADER else [sys.executable, "-c", HANGING, str(self.flag), *command[3:]]


@pytest.fixture
def hanging(socket_dir: Path) -> Iterator[HangingDisk]:
    made = HangingDisk(socket_dir / "dc", Plan(racks=1, nodes=2))
    with made:
        made.write()
        made.start([LEADER, NODE, OTHER])
        all_alive(made)
        made.flag.touch()
        yield made


def test_a_disk_that_hangs_is_shown_stops_no_verdict_and_heals_by_itself(hanging: HangingDisk) -> None:
    hanging.kill(NODE)
    hanging.until_liveness(NODE, "DEAD", of=LEADER)
    hanging.until(lambda: "has not answered" in degraded(hanging), "degraded", 20)
    hanging.until_liveness(OTHER, "ALIVE", of=LEADER)
    hanging.flag.unlink()
    hanging.until(lambda: degraded(hanging) == "", "healed")
    assert not hanging.lines(LEADER, "defect")


def test_a_disk_that_hangs_does_not_hold_up_the_end(hanging: HangingDisk) -> None:
    hanging.kill(NODE)
    hanging.until_liveness(NODE, "DEAD", of=LEADER)
    code, _ = hanging.end(LEADER)
    assert code == 0


# ---- when it cannot go on --------------------------------------------------------------------------------


def test_systemd_hears_of_it_all(fleet: Fleet, systemd: Systemd) -> None:
    fleet.end(LEADER)
    fleet.variables[LEADER] = {**systemd.environment, "WATCHDOG_USEC": WATCHDOG_USEC}
    fleet.start([LEADER])
    heard: list[str] = []

    def hear(word: str) -> bool:
        heard.extend(systemd.heard())
        return any(word in text for text in heard)

    assert until(lambda: hear("READY=1\nSTATUS="))
    assert until(lambda: hear("WATCHDOG=1"))
    assert until(lambda: hear("STATUS=2 of 2 nodes alive"))
    fleet.end(LEADER)
    assert hear("STOPPING=1")
