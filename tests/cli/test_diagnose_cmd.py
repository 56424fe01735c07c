"""`hbagent diagnose`: what it prints, and what its exit code says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from hbagent.cli import EXIT_USAGE, diagnose_cmd, main
from hbagent.cli.diagnose_cmd import document, table_lines
from hbagent.cli.grid import Screen
from hbagent.core.proof import Link, Proof
from hbagent.core.states import Stall
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.diagnosis.examine import Findings, LookRow, ThreadRow

PROOF = Proof(
    cycle=(
        Link(tid=8, name="a", kind="mutex", address="0x10", owner=9, owner_name="b", symbol="till (in bank)"),
        Link(tid=9, name="b", kind="mutex", address="0x20", owner=8, owner_name="a"),
    ),
    apart_ns=SECOND,
)


def findings(stall: Stall = Stall.DEADLOCKED, proof: Proof | None = PROOF) -> Findings:
    return Findings(
        pid=7,
        verdict=stall,
        text="2 threads wait for one another",
        details=("thread a (8) holds mutex 0x20",),
        proof=proof,
        name="ba\x1b[31mnk",
        threads_total=30,
        threads=(ThreadRow(tid=8, name="a", state="S", lock="mutex", address="0x10", owner=9, ran_ns=MILLISECOND),),
        looks=(LookRow(duration_ns=5 * MILLISECOND, proof_ns=MILLISECOND, threads=30, cycles=1, raced=0),),
    )


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.paired
def test_a_sleeping_process_is_idle(sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(sleeper.pid), "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["verdict"], told["proof"], told["pid"]) == (1, "IDLE", None, sleeper.pid)
    assert [thread["tid"] for thread in told["threads"]] == [sleeper.pid]


def test_a_process_that_is_not_there_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert main(["diagnose", str(child.pid)]) == 3
    assert capsys.readouterr().out.startswith("UNKNOWN: ")


def test_without_a_process_it_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose"]) == EXIT_USAGE
    assert "PID" in capsys.readouterr().err


@pytest.mark.parametrize("pid", ["x", "0", "-1", "", "99999999999", "٣", "1.5", str(diagnose_cmd.PID_MAX + 1)])
def test_what_is_no_process_id_is_a_usage_error(pid: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--", pid]) == EXIT_USAGE
    assert "is no process id" in capsys.readouterr().err


@pytest.mark.parametrize("stall", list(Stall))
def test_every_verdict_has_an_exit_code(stall: Stall, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {**msgspec.to_builtins(findings(stall)), "stacks": []}
    monkeypatch.setattr(diagnose_cmd, "investigate", lambda request: whole)
    bad = (Stall.DEADLOCKED, Stall.LOCK_WAIT, Stall.BUSY_LOOP, Stall.IO_BLOCKED, Stall.PAUSED)
    expected = 2 if stall in bad else 1 if stall in (Stall.STARVED, Stall.SLOW) else 3 if stall is Stall.UNKNOWN else 0
    assert main(["diagnose", "7"]) == expected


def test_a_proof_is_told_to_programs() -> None:
    told = json.loads(json.dumps(document(findings())))
    assert told["verdict"] == "DEADLOCKED"
    assert [link["owner"] for link in told["proof"]["cycle"]] == [9, 8]
    assert told["proof"]["assumes"][0] == "only the thread that owns a lock unlocks it"
    assert told["proof"]["apart_ms"] == 1000.0
    assert told["threads"][0]["waits_for"] == {"kind": "mutex", "address": "0x10", "owner": 9}
    assert told["looks"][0]["duration_ms"] == 5.0


def test_the_table_names_threads_locks_and_what_is_assumed() -> None:
    lines = table_lines(findings(), Screen())
    assert lines[0].startswith("DEADLOCKED: process 7 (ba\\x1b[31mnk): 2 threads")
    assert "  thread a (8) holds mutex 0x20" in lines
    assert any(line.startswith("  assumed: only the thread") for line in lines)
    assert any("mutex 0x10 of 9" in line for line in lines)
    assert lines[-1] == "and 29 more threads"


def test_the_table_fits_a_narrow_screen() -> None:
    lines = table_lines(findings(), Screen(width=40))
    assert all(len(line) <= 40 for line in lines[lines.index("") + 1 : -1])
