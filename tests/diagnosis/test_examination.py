"""An examination with all that belongs to it, on real programs: the proof, the evidence, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hbagent.core.effects import Examine
from hbagent.core.messages import DETAILS_MAX
from hbagent.core.proof import Link, Proof
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.demo.datacenter import wait_until
from hbagent.diagnosis import circumstances, examination, procfs, stacks
from hbagent.diagnosis.bundle import BUNDLE_MAX
from hbagent.diagnosis.examination import examine, investigate, may_look, with_its_word
from hbagent.diagnosis.examine import Findings, ThreadRow
from hbagent.diagnosis.helper import Request
from hbagent.store.evidence import Shelf
from tests.diagnosis.victim import CROSSED, locked_out, victim, waiting
from tests.e2e.victims.kinds import OTHERS, Ward

needs_gcc = pytest.mark.needs("gcc")
#: Until two threads that have met wait for one another.
SETTLE_S = 30


def order(pid: int, **given: Any) -> Examine:
    return Examine(run=3, app="billing", pid=pid, why="mark worker stands still", **given)


@needs_gcc
@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_a_bundle_names_both_threads_both_futexes_and_both_locks(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "evidence", 5, 3600 * SECOND)
    with victim(tmp_path, CROSSED, "-g") as pid:
        assert wait_until(lambda: locked_out(pid), SETTLE_S)
        begun = time.monotonic_ns()
        examined = examine(order(pid), "", (), shelf.put)
        took_ns = time.monotonic_ns() - begun
        addresses = {waiting(pid, name)[0][1] for name in ("teller", "guard")}
    assert (examined.run, examined.stall, examined.error, examined.pause_ns) == (3, Stall.DEADLOCKED, "", 0)
    name, body = shelf.read("billing")
    assert name == examined.bundle
    assert len(body) <= BUNDLE_MAX
    told = json.loads(body)
    assert (told["verdict"], told["text"], told["app"], told["why"]) == (
        "DEADLOCKED",
        examined.text,
        "billing",
        "mark worker stands still",
    )
    cycle = told["proof"]["cycle"]
    assert {link["name"] for link in cycle} == {"teller", "guard"}
    assert {link["address"] for link in cycle} == addresses
    assert {link["symbol"].split()[0] for link in cycle} == {"till", "safe"}
    assert [row["tid"] for row in told["threads"][:2]] == [link["tid"] for link in cycle]
    assert told["process"]["program"] == str(tmp_path / "victim")
    assert 0 < told["took_ns"] < took_ns
    assert told["left_out"] == [] or os.geteuid() != 0


@needs_gcc
@pytest.mark.slow
def test_a_target_that_is_killed_in_the_middle_is_told_as_such(tmp_path: Path) -> None:
    for delay_s in (0.0, 0.02, 0.3, 1.0):
        with victim(tmp_path, CROSSED) as pid:
            killer = threading.Timer(delay_s, os.kill, (pid, signal.SIGKILL))
            killer.start()
            examined = examine(order(pid), "", (), None)
            killer.join()
        # What is killed late enough may have been proved before.
        assert examined.stall in (Stall.UNKNOWN, Stall.DEADLOCKED)
        assert examined.text


def test_a_process_that_is_gone_or_another_by_now_is_unknown() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    assert examine(order(process.pid), "", (), None).stall is Stall.UNKNOWN
    assert examine(order(os.getpid(), start=1), "", (), None).stall is Stall.UNKNOWN


@pytest.mark.root
@pytest.mark.slow
@needs_gcc
def test_a_read_that_nothing_ends_holds_up_nobody(tmp_path: Path) -> None:
    (kind,) = [kind for kind in OTHERS if kind.name == "disk-dead-file"]
    with Ward(tmp_path).victim(kind) as ill:
        file = f"/proc/{ill.pid}/root{tmp_path}/{kind.name}-0/file"

        def read(_: procfs.Process) -> str:
            with open(file, "rb") as opened:
                os.pread(opened.fileno(), 4096, 0)
            return "read"

        told = circumstances.tell(
            ill.pid,
            0,
            3 * SECOND,
            (("limits", circumstances.limits), ("dead", read), ("host", circumstances.host)),
        )
        assert "limits" in told.sections
        assert told.left_out[0].startswith("dead, host: it hangs in the kernel and was left behind")
        whole = investigate(Request(pid=ill.pid, stuck=True))
        assert whole["verdict"] == Stall.IO_BLOCKED
        assert whole["pause_ns"] == 0
    _collect()


def _collect() -> None:
    """The child that was left behind can end now; nobody else asks for it."""

    def gone() -> bool:
        try:
            return os.waitpid(-1, os.WNOHANG) == (0, 0)
        except ChildProcessError:
            return True

    assert wait_until(gone, SETTLE_S)


def test_looks_that_hang_leave_what_is_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "ALL_NS", 200 * MILLISECOND)
    monkeypatch.setattr(examination, "TELL_NS", 20 * SECOND)
    monkeypatch.setattr(examination, "look_twice", lambda *_, **__: signal.pause())
    whole = investigate(Request(pid=os.getpid(), app="billing"))
    assert whole["verdict"] == "UNKNOWN"
    assert whole["text"].startswith("looking at it failed: no answer within 200 ms")
    assert whole["process"]["name"]


@pytest.mark.slow
@needs_gcc
def test_a_stopped_process_is_not_stopped_again(tmp_path: Path) -> None:
    with victim(tmp_path, CROSSED) as pid:
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda: state(pid) == "T", SETTLE_S)
        whole = investigate(Request(pid=pid, stuck=True))
        assert whole["verdict"] == Stall.PAUSED
        assert state(pid) == "T"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("verdict", "state", "may"),
    [
        (Stall.LOCK_WAIT, "S", True),
        # A frozen group and a dead filesystem may show state S.
        (Stall.PAUSED, "S", False),
        (Stall.IO_BLOCKED, "S", False),
        (Stall.LOCK_WAIT, "D", False),
        (Stall.LOCK_WAIT, "t", False),
    ],
)
def test_what_cannot_run_is_not_stopped(verdict: Stall, state: str, may: bool) -> None:
    rows = (ThreadRow(tid=7, name="a", state="S"), ThreadRow(tid=8, name="b", state=state))
    assert examination._can_be_stopped(Findings(pid=7, verdict=verdict, text="", threads=rows)) is may
    assert not examination._can_be_stopped(Findings(pid=7, verdict=verdict, text=""))


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_stacks_that_the_application_handed_over_come_first() -> None:
    fd = os.memfd_create("stacks")
    os.write(
        fd, b'mark worker has stood\nThread 0x00007f1 (most recent call first):\n  File "/x/pay.py", line 7 in pay\n'
    )
    kept: list[bytes] = []

    def keep(app: str, body: bytes) -> str:
        kept.append(body)
        return app

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert wait_until(lambda: "sleep" in Path(f"/proc/{process.pid}/wchan").read_text(), SETTLE_S)
        examined = examine(order(process.pid), "", (fd,), keep)
        process.kill()
    os.close(fd)
    told = json.loads(kept[0])
    assert (told["stacks"][0]["by"], told["stacks"][0]["frames"]) == ("faulthandler", ["pay (pay.py:7)"])
    assert told["said"] == ["mark worker has stood"]
    assert examined.bundle == "billing"
    if stacks.find_py_spy():
        assert [row["by"] for row in told["stacks"]] == ["faulthandler", "py-spy"]


def test_evidence_that_cannot_be_kept_leaves_the_verdict() -> None:
    def keep(app: str, body: bytes) -> str:
        raise OSError(28, "No space left on device")

    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    examined = examine(order(process.pid), "", (), keep)
    assert (examined.stall, examined.bundle) == (Stall.UNKNOWN, "")
    assert "No space left" in examined.error


def test_a_helper_that_is_not_there_is_told_and_we_look_ourselves(
    monkeypatch: pytest.MonkeyPatch, socket_dir: Path
) -> None:
    monkeypatch.setattr(examination, "may_look", lambda pid: False)
    whole = examination.investigate_with(Request(pid=os.getpid(), start=1), f"{socket_dir}/none")
    assert whole["verdict"] == "UNKNOWN"
    assert any("the helper: " in line and "No such file" in line for line in whole["left_out"])


def test_we_may_look_at_ourselves() -> None:
    assert may_look(os.getpid())


@pytest.mark.root
def test_nobody_may_not_look_at_root() -> None:
    code = "import os, sys; from hbagent.diagnosis.examination import may_look; os.setuid(65534); \
sys.exit(may_look(os.getppid()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=30).returncode == 0


def test_a_word_of_a_runtime_counts_where_nothing_was_proved() -> None:
    link = Link(tid=1, name="a", kind="Java monitor", address="0x1", owner=1, owner_name="a", symbol="0x1 (a Lock)")
    source = stacks.Stacks(by="jvm", proof=Proof(cycle=(link,) * 100, assumes=stacks.JVM_ASSUMES))
    waits = Findings(pid=7, verdict=Stall.LOCK_WAIT, text="it waits")
    told = with_its_word(waits, source)
    assert (told.verdict, told.proof) == (Stall.DEADLOCKED, source.proof)
    assert told.text == "the JVM says that 100 of its threads wait for one another in a cycle"
    assert (
        told.details[0]
        == "thread a (1) holds Java monitor 0x1 (a Lock) and waits for Java monitor 0x1 (a Lock) held by a (1)"
    )
    assert len(told.details) <= DETAILS_MAX
    proved = Findings(pid=7, verdict=Stall.DEADLOCKED, text="proved")
    assert with_its_word(proved, source) is proved
    assert with_its_word(waits, stacks.Stacks(by="py-spy")) is waits
