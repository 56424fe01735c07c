"""A prober beside an agent: it is started again, killed and buried, and none of that waits or leaves anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.checks import ExecCheck
from hbagent.core.config import ProbeConfig, ProberConfig
from hbagent.core.units import SECOND
from hbagent.offspring import reaper
from hbagent.role.companion import environment
from tests.e2e.fleet import Fleet
from tests.role.parts import until
from tests.role.test_agent import hears, lost

NODE, LEADER = "rack1-node1", "rack1-leader1"
#: Leaves its session and its parent, and stays.
DEMON = "setsid sh -c 'setsid sleep 4711 & sleep 4711' & sleep 4711"


class Tended:
    """A tender, what it said, and the processes below it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.role.tender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": "/nowhere"},
        )
        self.said: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._rest = b""

    def do(self, word: str, **fields: Any) -> dict[str, Any]:
        """Have it obey; what it said of that."""
        assert self.process.stdin is not None
        before = len(self.of("obeyed"))
        self.process.stdin.write(msgspec.json.encode({"do": word, **fields}) + b"\n")
        self.process.stdin.flush()
        assert until(lambda: len(self.of("obeyed")) > before)
        return self.of("obeyed")[-1]

    def of(self, what: str) -> list[dict[str, Any]]:
        """Everything of one kind that it said until now."""
        assert self.process.stdout is not None
        *lines, self._rest = (self._rest + (self.process.stdout.read() or b"")).split(b"\n")
        self.said += [json.loads(line) for line in lines]
        return [said for said in self.said if said["what"] == what]

    def reasons(self) -> list[str]:
        """Why each prober ended."""
        return [said["message"]["reason"] for said in self.of("ProberEnded")]

    def start(self, config: ProberConfig | None = None) -> int:
        """Start a prober and wait until its loop goes round; its process id."""
        self.do("configure", config=config or ProberConfig())
        marks = len(self.of("Mark"))
        self.do("start")
        assert until(lambda: len(self.of("Mark")) > marks)
        return int(self.do("nothing")["pid"])

    def end(self) -> None:
        family = below(self.process.pid)
        self.process.kill()
        self.process.communicate()
        for pid in family:
            reaper.fell([pid])


def below(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for child in reaper.children(pid):
        found += [child, *below(child)]
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if not reaper.is_dead(pid)]


@pytest.fixture
def tended() -> Iterator[Tended]:
    """A tender without a prober yet."""
    made = Tended()
    yield made
    made.end()


@pytest.fixture
def busy() -> ProberConfig:
    """Probes that start what does not want to end."""
    hanging = ExecCheck(argv=("/bin/sh", "-c", DEMON))
    return ProberConfig(probes=(ProbeConfig(name="hangs", check=hanging, interval_ns=SECOND, timeout_ns=90 * SECOND),))


def sleepers(pid: int) -> list[int]:
    return [one for one in below(pid) if reaper.command(one) == "sleep"]


def test_what_a_prober_tells_reaches_the_core(tended: Tended) -> None:
    tended.start()
    assert until(lambda: any(said["message"]["facts"] for said in tended.of("Vitals")))
    tended.do("recall", number=7)
    assert until(lambda: tended.of("Recalled"))
    assert tended.of("Recalled")[0]["message"]["error"] == "no evidence is kept: state_dir is not set"
    assert not tended.of("ProberEnded")


def test_a_prober_that_is_killed_is_told_and_leaves_nobody(tended: Tended, busy: ProberConfig) -> None:
    pid = tended.start(busy)
    assert until(lambda: len(sleepers(pid)) == 3)
    family = below(pid)
    os.kill(pid, signal.SIGKILL)
    assert until(tended.reasons)
    assert tended.reasons() == ["signal 9"]
    assert not alive(family)
    assert until(lambda: not below(tended.process.pid)), "and no zombie"
    assert tended.start() != pid


def test_a_prober_that_is_stuck_is_killed_with_all_its_hands(tended: Tended, busy: ProberConfig) -> None:
    pid = tended.start(busy)
    assert until(lambda: len(sleepers(pid)) == 3)
    family = below(pid)
    os.kill(pid, signal.SIGSTOP)
    tended.do("kill")
    assert until(tended.reasons)
    assert tended.reasons() == ["killed"]
    assert not alive([pid, *family])
    tended.start()


@pytest.mark.parametrize("number", [0, signal.SIGKILL])
def test_without_its_agent_a_prober_ends_with_all_its_hands(tended: Tended, busy: ProberConfig, number: int) -> None:
    pid = tended.start(busy)
    assert until(lambda: len(sleepers(pid)) == 3)
    family = [pid, *below(pid)]
    if number:
        tended.process.send_signal(number)
    else:
        tended.do("close")
    assert until(lambda: not alive(family)), "which sleep for an hour by themselves"


def test_a_prober_that_was_stopped_does_not_outlive_its_agent(tended: Tended) -> None:
    pid = tended.start()
    family = [pid, *below(pid)]
    os.kill(pid, signal.SIGSTOP)
    tended.process.kill()
    assert until(lambda: not alive(family))


def test_a_program_that_cannot_be_started_is_told(tended: Tended) -> None:
    tended.do("python", path="/nowhere/python")
    tended.do("start")
    assert until(tended.reasons)
    assert tended.reasons() == ["not started: No such file or directory"]
    assert tended.do("nothing")["pid"] is None


def test_one_that_ends_at_once_is_told_with_its_exit_status(tended: Tended) -> None:
    tended.do("python", path="/bin/false")
    tended.do("start")
    assert until(tended.reasons)
    assert tended.reasons() == ["exit 1"]


def test_a_start_that_hangs_holds_nothing_up_and_is_not_joined_by_another(tended: Tended, tmp_path: Path) -> None:
    # Opening a pipe that nobody writes to waits for ever: so the interpreter of this script is never found out.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\nread x <{pipe}\nexit 3\n")
    slow.chmod(0o700)
    tended.do("python", path=str(slow))
    tended.do("start")
    assert until(lambda: tended.do("nothing")["pid"])
    tended.do("kill")
    assert until(tended.reasons)
    assert tended.reasons() == ["killed"]


def test_nonsense_on_the_link_ends_a_prober(tended: Tended, tmp_path: Path) -> None:
    mad = tmp_path / "mad"
    mad.write_text("#!/bin/sh\nprintf 'this is no frame' >&0\nexec sleep 4711\n")
    mad.chmod(0o700)
    tended.do("python", path=str(mad))
    tended.do("start")
    assert until(tended.reasons)
    assert tended.reasons() == ["a frame of 1,952,999,795 bytes"]
    assert until(lambda: not below(tended.process.pid))


def test_a_bundle_is_refused_while_there_is_no_prober(tended: Tended) -> None:
    tended.do("recall", number=3)
    assert until(lambda: tended.of("Recalled"))
    assert tended.of("Recalled")[0]["message"] == {
        "type": "recalled",
        "number": 3,
        "body": "",
        "error": "the prober is not running",
    }


def test_other_settings_reach_a_prober_that_runs_and_without_being_wanted_it_ends(tended: Tended) -> None:
    pid = tended.start()
    probe = ProbeConfig(name="new", check=ExecCheck(argv=("/bin/true",)), interval_ns=SECOND, timeout_ns=SECOND // 2)
    tended.do("configure", config=ProberConfig(probes=(probe,), facts_interval_ns=SECOND))
    assert until(lambda: any(said["message"]["probes"] for said in tended.of("Vitals")))
    assert tended.do("nothing")["pid"] == pid, "the same process"
    tended.do("configure", config=ProberConfig(), wanted=False)
    assert until(tended.reasons)
    assert tended.reasons() == ["not wanted any more"]


def test_a_prober_finds_nothing_of_systemds_in_its_environment() -> None:
    given = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "PYTHONPATH": "lib:/abs", "SECRET": "s", "TZ": "UTC"}
    assert environment(given) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{os.path.abspath('lib')}:/abs",
        "TZ": "UTC",
    }


# ---- beside a real agent ---------------------------------------------------------------------------------


@pytest.fixture
def fleet(build: Callable[..., Fleet]) -> Iterator[Fleet]:
    """A leader, an agent, and its prober."""
    from hbagent.demo.datacenter import Plan

    made = build(Plan(racks=1, nodes=1))
    made.write()
    made.start([LEADER, NODE])
    made.until_liveness(NODE, "ALIVE", 30, of=LEADER)
    made.until(lambda: prober_of(made), "it has a prober")
    yield made


def prober_of(fleet: Fleet) -> int:
    found = reaper.children(fleet.processes[NODE].pid)
    return found[0] if found else 0


@pytest.mark.e2e
@pytest.mark.paired
def test_an_agent_starts_its_prober_again_and_no_beat_is_lost(fleet: Fleet) -> None:
    before = lost(fleet, NODE)
    first = prober_of(fleet)
    os.kill(first, signal.SIGKILL)
    fleet.until(lambda: fleet.lines(NODE, "prober-ended", "signal 9"), "told")
    fleet.until(lambda: prober_of(fleet) not in (0, first), "another runs")
    hears(fleet)
    assert lost(fleet, NODE) == before
    assert not fleet.lines(LEADER, "node-dead")


@pytest.mark.e2e
@pytest.mark.paired
def test_a_stopped_prober_costs_no_beat(fleet: Fleet) -> None:
    pid = prober_of(fleet)
    os.kill(pid, signal.SIGSTOP)
    before = lost(fleet, NODE)
    for _ in range(10):
        hears(fleet)
    assert lost(fleet, NODE) == before
    assert not fleet.lines(LEADER, "node-dead")
    code, _ = fleet.end(NODE)
    assert code == 0
    assert reaper.is_dead(pid)


@pytest.mark.e2e
@pytest.mark.paired
def test_a_killed_agent_leaves_neither_prober_nor_hands(fleet: Fleet) -> None:
    family = below(fleet.processes[NODE].pid)
    assert family
    fleet.kill(NODE)
    assert until(lambda: not alive(family))
