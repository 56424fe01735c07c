"""What systemctl prints, and what it means; and a systemctl that fails, hangs or is missing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.checks import UnitCheck
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes import units
from hbagent.probes.outcome import Deadline
from hbagent.probes.units import Unanswered, checked_name, failed_units, judge, look, parse, restart

RUNNING = """\
Type=notify
MainPID=612
NRestarts=0
Result=success
ExecMainStatus=0
LoadState=loaded
ActiveState=active
SubState=running
MemoryCurrent=4194304
NeedDaemonReload=no
"""


def told(**changes: str) -> dict[str, str]:
    return {**parse(RUNNING), **changes}


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that a test writes, found before any other."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program = tmp_path / "systemctl"
    program.touch(mode=0o755)
    return program


def test_a_running_unit_is_ok_with_its_numbers() -> None:
    result = judge("a.service", told(), {})
    assert result.health is Health.OK
    assert result.text == "a.service is active (running), 4 MiB"
    assert {measure.label: measure.value for measure in result.measures} == {"restarts": 0, "memory": 4194304}


@pytest.mark.parametrize(
    ("changes", "health", "words"),
    [
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "3"}, "CRITICAL", "exit-code 3"),
        ({"ActiveState": "failed", "SubState": "failed", "Result": "watchdog"}, "CRITICAL", "watchdog"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "CRITICAL", "inactive (dead)"),
        ({"ActiveState": "inactive", "SubState": "dead", "Type": "oneshot"}, "OK", "inactive (dead)"),
        ({"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"}, "CRITICAL", "auto-restart"),
        ({"ActiveState": "activating", "SubState": "start"}, "WARNING", "activating (start)"),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, "WARNING", "stop-sigterm"),
        ({"ActiveState": "reloading", "SubState": "reload"}, "OK", "reloading"),
        ({"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}, "CRITICAL", "does not exist"),
        ({"LoadState": "masked", "ActiveState": "inactive", "SubState": "dead"}, "CRITICAL", "is masked"),
        ({"ActiveState": "brand-new", "SubState": "x"}, "CRITICAL", "brand-new"),
    ],
)  # fmt: skip
def test_what_each_state_means(changes: dict[str, str], health: str, words: str) -> None:
    result = judge("a.service", told(**changes), {})
    assert result.health.value == health
    assert words in result.text


def test_a_unit_that_is_started_again_and_again_is_a_warning_though_it_runs() -> None:
    first = judge("a.service", told(NRestarts="7"), {})
    assert first.health is Health.OK
    again = judge("a.service", told(NRestarts="9"), first.memory)
    assert again.health is Health.WARNING
    assert "restarted 2 times since the last look" in again.text
    assert judge("a.service", told(NRestarts="9"), again.memory).health is Health.OK
    # Somebody restarted it by hand: the counter begins anew.
    assert judge("a.service", told(NRestarts="0"), again.memory).health is Health.OK


def test_what_is_not_counted_is_no_number() -> None:
    for text in ("[not set]", "18446744073709551615", ""):
        result = judge("a.service", told(MemoryCurrent=text, NRestarts=text), {})
        assert result.health is Health.OK
        assert result.measures == ()


@given(st.text())
def test_any_text_is_a_state_that_is_not_good(text: str) -> None:
    assert judge("a.service", parse(text), {}).health is not Health.OK


def test_without_systemd_nothing_is_said(tmp_path: Path) -> None:
    result = look(UnitCheck(unit="a"), SECOND, {}, str(tmp_path / "none"))
    assert result.health is Health.UNKNOWN
    assert result.text == "systemd does not run on this host"


def test_systemctl_is_asked_by_arguments_and_in_english(systemctl: Path, tmp_path: Path) -> None:
    systemctl.write_text(f'#!/bin/sh\necho "$LC_ALL $*" >{tmp_path}/asked\ncat <<.\n{RUNNING}.\n')
    result = look(UnitCheck(unit="a"), 20 * SECOND, {}, str(tmp_path))
    assert result.health is Health.OK
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("C --no-pager show --property=LoadState,")
    assert asked.endswith(" -- a.service\n")


def test_a_systemctl_that_fails_hangs_or_is_missing_is_unknown(
    systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl.write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2; exit 1\n")
    failed = look(UnitCheck(unit="a"), 20 * SECOND, {"restarts": 1}, str(tmp_path))
    assert failed.health is Health.UNKNOWN
    assert failed.text == "systemctl show: Failed to connect to bus"
    assert failed.memory == {"restarts": 1}
    systemctl.write_text("#!/bin/sh\nexec sleep 60\n")
    hung = look(UnitCheck(unit="a"), SECOND // 2, {}, str(tmp_path))
    assert hung.health is Health.UNKNOWN and "did not end within 500ms" in hung.text
    monkeypatch.setattr(units, "SYSTEMCTL", "no-such-systemctl")
    assert look(UnitCheck(unit="a"), 20 * SECOND, {}, str(tmp_path)).text == "there is no systemctl on this host"


def test_failed_units_are_named(systemctl: Path) -> None:
    systemctl.write_text("#!/bin/sh\necho 'a.service loaded failed failed A\nb.mount not-found failed failed B'\n")
    assert failed_units(Deadline(20 * SECOND)) == ["a.service", "b.mount"]
    systemctl.write_text("#!/bin/sh\nexit 4\n")
    with pytest.raises(Unanswered, match="exit 4"):
        failed_units(Deadline(20 * SECOND))


def test_a_restart_says_why_it_failed(systemctl: Path, tmp_path: Path) -> None:
    systemctl.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/asked\n')
    assert restart("a") == ""
    assert (tmp_path / "asked").read_text() == "--no-pager restart --no-ask-password -- a.service\n"
    systemctl.write_text("#!/bin/sh\necho 'Access denied' >&2; exit 4\n")
    assert restart("a") == "systemctl restart: Access denied"
    systemctl.write_text("#!/bin/sh\nexec sleep 60\n")
    assert "did not end within 300ms" in restart("a", 3 * SECOND // 10)


@pytest.mark.parametrize("name", ["", "a b", "a;b", "../x.service", "x" * 300, "$(x)"])
def test_what_no_unit_can_be_called_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError):
        checked_name(name)
    assert "no name of a unit" in restart(name)


# ---- how a process of a unit has ended --------------------------------------------------------------------

ENDED = {
    "ActiveState": "inactive",
    "SubState": "dead",
    "Result": "success",
    "MainPID": "0",
    "NRestarts": "0",
    "ExecMainStatus": "0",
    "ExecMainPID": "4242",
    "ExecMainStartTimestampMonotonic": "1",
}
RUNS = {"ActiveState": "active", "SubState": "running"}
#: Started after whatever there is.
YOUNG = {"ExecMainPID": "4343", "MainPID": "4343", "ExecMainStartTimestampMonotonic": str(1 << 60)}


@pytest.mark.parametrize(
    ("changes", "stopped", "text"),
    [
        ({}, True, ""),
        ({"ActiveState": "deactivating", "SubState": "stop-post"}, True, ""),
        ({"ActiveState": "failed", "Result": "core-dump", "ExecMainStatus": "11"}, False, "core-dump 11"),
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "3"}, False, "exit-code 3"),
        ({"ActiveState": "failed", "Result": "timeout"}, False, "has failed: timeout"),
        ({"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"}, False, "signal"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, True, ""),
        ({**RUNS, **YOUNG}, True, ""),
        ({**RUNS, **YOUNG, "ActiveState": "activating", "SubState": "start"}, True, ""),
        ({**RUNS, **YOUNG, "NRestarts": "1"}, None, ""),
        ({**RUNS, "ExecMainPID": "1", "MainPID": "1"}, None, ""),
        ({**RUNS, "MainPID": "4242"}, None, ""),
        ({"ActiveState": ""}, None, ""),
        ({"Result": ""}, None, ""),
    ],
)  # fmt: skip
def test_what_systemd_says_of_the_end_of_a_process(changes: dict[str, str], stopped: bool | None, text: str) -> None:
    found, why = units.judge_end("a.service", {**ENDED, **changes}, 4242, 1)
    assert found is stopped
    assert text in why and bool(why) == (stopped is False)


def test_a_worker_of_a_unit_that_runs_on_was_not_stopped_with_it() -> None:
    begun = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // (SECOND // os.sysconf("SC_CLK_TCK"))
    older = {**ENDED, **RUNS, "ExecMainPID": "1", "ExecMainStartTimestampMonotonic": "1"}
    assert units.judge_end("a.service", older, 4242, begun) == (None, "")
    assert units.judge_end("a.service", older, 4242, 0) == (None, ""), "nobody knows when it began"


def shown(changes: dict[str, str]) -> str:
    return "\n".join(f"{key}={value}" for key, value in {**ENDED, **changes}.items())


def test_systemd_is_asked_again_while_it_does_not_know_of_the_end(systemctl: Path, tmp_path: Path) -> None:
    (tmp_path / "before").write_text(shown({**RUNS, "MainPID": "4242"}))
    (tmp_path / "after").write_text(shown({"Result": "signal", "ActiveState": "failed", "ExecMainStatus": "9"}))
    systemctl.write_text(
        f"#!/bin/sh\ncd {tmp_path}\nif /bin/test -e asked; then /bin/cat after; else : > asked; /bin/cat before; fi\n"
    )
    assert units.ending("a", 4242, 1, 60 * SECOND) == (False, "its process is gone, and a.service has failed: signal 9")


@pytest.mark.parametrize("says", ["exit 1", "/bin/sleep 600", "exit 0", "echo nonsense"])
def test_a_systemd_that_does_not_answer_says_nothing_of_an_end(systemctl: Path, says: str) -> None:
    systemctl.write_text(f"#!/bin/sh\n{says}\n")
    assert units.ending("a", 4242, 1, SECOND) == (None, "")
    assert units.ending("no name", 4242, 1, SECOND) == (None, "")
    systemctl.write_text(f"#!/bin/sh\n/bin/cat <<'.'\n{shown({**RUNS, 'MainPID': '4242'})}\n.\n")
    assert units.ending("a", 4242, 1, SECOND // 4) == (None, ""), "it says that it runs until the time is over"
