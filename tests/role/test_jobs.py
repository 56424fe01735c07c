"""Each job does what its order says when a hand does it, and nothing heavy is loaded before one is asked for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbagent.core.checks import ExecCheck, FileCheck
from hbagent.core.effects import Examine, LookForBundles, Recall, Remember, RestartUnit, RunCheck
from hbagent.core.messages import DETAILS_MAX, BundlesGone, CheckFinished, Examined, Recalled, Remembered
from hbagent.core.states import Health, Stall
from hbagent.core.units import HOUR, SECOND
from hbagent.offspring.hands import Hands, Outcome
from hbagent.role.jobs import (
    ALLOWANCE_NS,
    JOBS,
    ExamineOrder,
    FactsOrder,
    FactsRead,
    LookOrder,
    Place,
    RecallOrder,
    RememberOrder,
    limit_ns,
)
from hbagent.store.evidence import BUNDLE_MAX, Shelf
from tests.offspring.owning import outcomes


@pytest.fixture
def hands() -> Iterator[Hands]:
    made = Hands(JOBS, 2)
    yield made
    made.close()


def do(hands: Hands, job: str, order: Any) -> Outcome:
    hands.start(1, job, order, limit_ns(job, order), time.monotonic_ns())
    (outcome,) = outcomes(hands, 1)
    assert outcome.failure == "", outcome.text
    return outcome


def run_check(hands: Hands, check: Any, memory: dict[str, Any] | None = None) -> CheckFinished:
    order = RunCheck(run=7, name="probe", check=check, timeout_ns=10 * SECOND, memory=memory or {})
    finished: CheckFinished = do(hands, "check", order).value
    assert finished.run == 7
    return finished


def test_a_program_and_a_native_check_are_looked_at(hands: Hands) -> None:
    finished = run_check(hands, ExecCheck(argv=("/bin/sh", "-c", "echo 'fine | a=1'; exit 1")))
    assert (finished.health, finished.text, len(finished.measures)) == (Health.WARNING, "fine", 1)
    assert run_check(hands, FileCheck(path="/etc/passwd")).health == Health.OK
    assert run_check(hands, FileCheck(path="/nonexistent/x")).health == Health.CRITICAL


def test_facts_are_read_and_the_second_time_tell_of_the_time_between(hands: Hands) -> None:
    first = do(hands, "facts", FactsOrder()).value
    assert isinstance(first, FactsRead)
    assert first.facts.cpu_count and first.facts.cpu_percent is None
    again = do(hands, "facts", first.next).value
    assert again.next.total_s >= first.next.total_s


def test_what_is_remembered_is_restored(hands: Hands, tmp_path: Path) -> None:
    place = Place(state_dir=str(tmp_path / "state"))
    assert do(hands, "restore", place).value == Remembered()
    states: list[dict[str, Any]] = [{"jobs": {"backup": [1, 2]}}, {"jobs": {}, "ü": None}]
    for state in states:
        do(hands, "remember", RememberOrder(Remember(state), place))
        assert do(hands, "restore", place).value == Remembered(state=state)
    assert os.listdir(place.state_dir) == ["prober.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_memory_is_set_aside(hands: Hands, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prober.json").write_bytes(content)
    assert do(hands, "restore", Place(state_dir=str(tmp_path))).value == Remembered()
    assert [name.startswith("prober.json.corrupt-") for name in os.listdir(tmp_path)] == [True]


def test_what_is_no_file_is_set_aside_too(hands: Hands, tmp_path: Path) -> None:
    (tmp_path / "prober.json").mkdir()
    assert do(hands, "restore", Place(state_dir=str(tmp_path))).value == Remembered()
    do(hands, "remember", RememberOrder(Remember({"a": 1}), Place(state_dir=str(tmp_path))))
    assert do(hands, "restore", Place(state_dir=str(tmp_path))).value == Remembered(state={"a": 1})


def test_a_bundle_is_recalled_also_the_largest(hands: Hands, tmp_path: Path) -> None:
    place = Place(state_dir=str(tmp_path), bundles_age_ns=SECOND)
    body = b'"' + b"x" * (BUNDLE_MAX - 2) + b'"'
    name = Shelf(tmp_path / "evidence", 20, SECOND).put("billing", body)
    assert do(hands, "recall", RecallOrder(Recall(3, "billing"), place)).value == Recalled(number=3, body=body)
    assert do(hands, "recall", RecallOrder(Recall(4, bundle=name), place)).value == Recalled(number=4, body=body)
    assert (
        "no evidence about 'other' is kept here"
        in do(hands, "recall", RecallOrder(Recall(5, "other"), place)).value.error
    )
    assert "state_dir is not set" in do(hands, "recall", RecallOrder(Recall(6), Place())).value.error


def test_an_examination_spares_the_bundles_that_it_is_told_of_and_others_are_missed(
    hands: Hands, tmp_path: Path
) -> None:
    place = Place(state_dir=str(tmp_path), bundles_max=1, bundles_age_ns=HOUR)
    shelf = Shelf(tmp_path / "evidence", 20, HOUR)
    spared, _ = shelf.put("shop", b"1"), shelf.put("shop", b"2")
    order = Examine(run=5, app="guest", pid=2**22 - 1, spared=(1,))
    found = do(hands, "examine", ExamineOrder(order, place)).value
    assert [kept.name for kept in shelf.list()] == [found.bundle, spared]
    looked = do(hands, "gone", LookOrder(LookForBundles((1, 2, 3)), place)).value
    assert looked == BundlesGone((2,))
    assert do(hands, "gone", LookOrder(LookForBundles((1,)), Place())).value == BundlesGone()


def test_a_process_that_is_gone_is_examined_without_an_exception(hands: Hands, tmp_path: Path) -> None:
    order = ExamineOrder(Examine(run=5, app="a", pid=2**22 - 1), Place(state_dir=str(tmp_path)))
    found = do(hands, "examine", order).value
    assert (found.run, found.stall) == (5, Stall.UNKNOWN)
    assert found.text or found.error


@pytest.mark.slow
@pytest.mark.paired
def test_evidence_that_cannot_be_kept_is_told_with_what_was_found(hands: Hands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = Place(state_dir=str(tmp_path / "file"))
    found = do(hands, "examine", ExamineOrder(Examine(run=5, app="a", pid=os.getpid()), place)).value
    assert (found.stall is not Stall.UNKNOWN, found.bundle) == (True, "")
    assert "could not be kept: " in found.error and "Not a directory" in found.error
    assert found.details[-1] == found.error
    assert len(found.details) <= DETAILS_MAX


def test_a_unit_that_does_not_exist_is_not_restarted(hands: Hands) -> None:
    acted = do(hands, "restart", RestartUnit(run=9, unit="hbagent-does-not-exist.service")).value
    assert acted.run == 9
    assert acted.error


def test_a_check_has_its_time_limit_and_an_allowance() -> None:
    order = RunCheck(run=1, name="a", check=FileCheck(path="/"), timeout_ns=3 * SECOND)
    assert limit_ns("check", order) == 3 * SECOND + ALLOWANCE_NS
    assert all(limit_ns(job, None) >= SECOND for job in JOBS)


def test_nothing_heavy_is_loaded_with_the_registry() -> None:
    heavy = "psutil zmq loguru ssl asyncio hashlib subprocess http pathlib logging"
    # Of Python 3.10, what msgspec imports brings subprocess along.
    script = (
        "import sys, msgspec; before = set(sys.modules); import hbagent.role.jobs;"
        f"print([name for name in {heavy.split()} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", SETUP + script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


#: Without `site`, whose path files load what they like.
SETUP = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}; "


def examined(hands: Hands, **fields: Any) -> Examined:
    order = ExamineOrder(Examine(run=5, app="web", pid=0, **fields), Place())
    found: Examined = do(hands, "examine", order).value
    assert found.run == 5
    return found


@pytest.mark.slow
@pytest.mark.paired
def test_the_process_of_an_application_is_found_by_its_pidfile(hands: Hands, tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        pidfile = tmp_path / "web.pid"
        pidfile.write_text(f"{child.pid}\n")
        found = examined(hands, pidfile=str(pidfile))
        assert found.stall is Stall.LOCK_WAIT or found.stall is Stall.IDLE, found
    finally:
        child.kill()
        child.wait()
    gone = examined(hands, pidfile=str(pidfile))
    assert gone.stall is Stall.UNKNOWN and "is not running" in gone.error


@pytest.mark.slow
@pytest.mark.paired
def test_the_process_of_an_application_is_found_by_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["sleep", "60"])
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\necho MainPID={child.pid}; echo ActiveState=active\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with contextlib.closing(Hands(JOBS, 1)) as hands:
        assert examined(hands, unit="web.service").error == ""
        program.write_text("#!/bin/sh\necho MainPID=0; echo ActiveState=failed\n")
        assert "web.service has no main process; it is failed" in examined(hands, unit="web.service").error
    child.kill()
    child.wait()
