"""Processes by name, pidfile, command line and unit: real ones, hidden ones, dead ones, and files that lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.checks import ProcessCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes import processes
from hbagent.probes.check import run
from hbagent.probes.outcome import Deadline
from hbagent.probes.processes import Process, everyone, parse_stat

LONG_NS = 20 * SECOND
#: What the kernel writes, of a program with a name that is meant to deceive.
STAT = (
    b"4242 (a) S 1 (b) R 4241 4242 4242 0 -1 4194304 500 0 0 0 70 30 0 0 20 0 1 0 123456 10000000 256 "
    b"18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


def look(**fields: object) -> CheckFinished:
    return run(ProcessCheck(**fields), LONG_NS)  # type: ignore[arg-type]


def until(condition: Callable[[], bool], bound_s: float = 30) -> None:
    end = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


def state_of(pid: int) -> str:
    return parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).state


def ticks_of(pid: int) -> int:
    return parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).ticks


@contextmanager
def sleeping(directory: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this name that sleeps."""
    program = directory / name
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    process = subprocess.Popen([str(program), *(arguments or ["60"])])
    try:
        # The name is the new program's a moment before its command line is.
        until(lambda: str(program).encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        until(lambda: parse_stat(Path(f"/proc/{process.pid}/stat").read_bytes()).name == name[:15])
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_process_is_found_by_its_exact_name(tmp_path: Path) -> None:
    with sleeping(tmp_path, "hbt-alpha") as process:
        found = look(process="hbt-alpha")
        assert look(process="hbt-alph").health is Health.CRITICAL
    assert found.health is Health.OK
    assert f"(process {process.pid})" in found.text
    assert {measure.label: measure.unit for measure in found.measures} == {"count": "", "rss": "B"}
    gone = look(process="hbt-alpha")
    assert gone.health is Health.CRITICAL
    assert gone.text == "0 running of hbt-alpha, 1 wanted"


def test_a_name_longer_than_the_kernel_keeps_is_found_and_told_from_another(tmp_path: Path) -> None:
    with sleeping(tmp_path, "hbt-long-name-one"):
        assert look(process="hbt-long-name-one").health is Health.OK
        assert look(process="hbt-long-name-two").health is Health.CRITICAL


def test_a_process_is_found_by_its_command_line(tmp_path: Path) -> None:
    with sleeping(tmp_path, "hbt-cmd", "61", "62"):
        assert look(cmdline=r"hbt-cmd 61 6[0-9]$").health is Health.OK
        assert look(cmdline=r"hbt-cmd 63").health is Health.CRITICAL


def test_too_few_and_too_many_are_critical(tmp_path: Path) -> None:
    with sleeping(tmp_path, "hbt-two"), sleeping(tmp_path / "..", "hbt-two-b"):
        assert look(cmdline="hbt-two", least=2, most=2).health is Health.OK
        few = look(cmdline="hbt-two", least=3)
        many = look(cmdline="hbt-two", most=1)
    assert few.health is Health.CRITICAL and "2 running of hbt-two, 3 wanted" in few.text
    assert many.health is Health.CRITICAL and "at most 1 wanted" in many.text


def test_the_dead_do_not_run_and_the_stopped_are_a_warning(tmp_path: Path) -> None:
    with sleeping(tmp_path, "hbt-state") as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: state_of(process.pid) == "T")
        stopped = look(process="hbt-state")
        process.kill()
        until(lambda: state_of(process.pid) == "Z")
        dead = look(process="hbt-state")
        (tmp_path / "pid").write_text(str(process.pid))
        dead_by_file = look(pidfile=str(tmp_path / "pid"))
    assert stopped.health is Health.WARNING and "stopped" in stopped.text
    assert dead.health is Health.CRITICAL
    assert dead_by_file.health is Health.CRITICAL and "zombie" in dead_by_file.text


def test_processor_time_is_of_what_was_there_in_both_runs() -> None:
    check = ProcessCheck(cmdline="hbt-burner")
    burner = subprocess.Popen([sys.executable, "-c", "'hbt-burner'\nwhile True: pass"])
    try:
        until(lambda: run(check, LONG_NS).health is Health.OK)
        first = run(check, LONG_NS)
        begun = ticks_of(burner.pid)
        until(lambda: ticks_of(burner.pid) > begun + 30)
        second = run(check, LONG_NS, first.memory)
        measures = {measure.label: measure.value for measure in second.measures}
        # How much of a processor it got is not ours to say.
        assert measures["cpu"] is not None and 0 < measures["cpu"] <= 130
        strange = run(check, LONG_NS, {"ticks": {}, "at_ns": 1})
        assert "cpu" not in {measure.label for measure in strange.measures}
    finally:
        burner.kill()
        burner.wait()


def test_a_pidfile_names_a_living_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text(f"{os.getpid()}\n")
    result = look(pidfile=str(file))
    assert result.health is Health.OK
    assert f"(process {os.getpid()})" in result.text


@pytest.mark.parametrize("content", ["", "abc", "-1", "0", "99999999999999999999", "\x00\xff"])
def test_a_pidfile_without_an_id_is_critical(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pid"
    file.write_text(content)
    result = look(pidfile=str(file))
    assert result.health is Health.CRITICAL
    assert "holds no process id" in result.text


def test_a_missing_pidfile_and_a_dead_process_are_critical(tmp_path: Path) -> None:
    assert "does not exist" in look(pidfile=str(tmp_path / "none")).text
    process = subprocess.Popen(["true"])
    process.wait()
    file = tmp_path / "pid"
    file.write_text(str(process.pid))
    result = look(pidfile=str(file))
    assert result.health is Health.CRITICAL and "is not running" in result.text


def test_a_pidfile_older_than_the_process_of_that_id_is_stale(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text(str(os.getpid()))
    # However long these tests have run.
    before = psutil.Process().create_time() - 3600
    os.utime(file, (before, before))
    result = look(pidfile=str(file))
    assert result.health is Health.CRITICAL
    assert "stale" in result.text


def test_a_file_older_than_the_boot_tells_nothing_where_a_boot_empties_the_directory() -> None:
    file = Path(f"/dev/shm/hbagent-test-{os.getpid()}")
    file.write_text(str(os.getpid()))
    try:
        os.utime(file, (1, 1))
        assert look(pidfile=str(file)).health is Health.OK
    finally:
        file.unlink()


def test_a_unit_is_found_by_its_control_group(tmp_path: Path) -> None:
    groups = {1: "0::/init.scope", 7: "0::/system.slice/nginx.service", 8: "3:cpu:/\n0::/system.slice/nginx.service/x"}
    for pid, group in groups.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes(STAT.replace(b"4242", str(pid).encode(), 1))
        (tmp_path / str(pid) / "cgroup").write_text(group + "\n")
    (tmp_path / "9").mkdir()
    result = processes.look(ProcessCheck(unit="nginx"), LONG_NS, {}, str(tmp_path))
    assert {measure.label: measure.value for measure in result.measures}["count"] == 2
    assert processes.look(ProcessCheck(unit="other"), LONG_NS, {}, str(tmp_path)).health is Health.CRITICAL


def test_those_stuck_in_the_kernel_are_looked_at_last_and_only_when_needed(tmp_path: Path) -> None:
    asked = []
    for pid, state in ((1, b"S"), (5, b"D"), (6, b"S")):
        (tmp_path / str(pid)).mkdir()
        data = STAT.replace(b"4242", str(pid).encode(), 1).replace(b") R ", b") " + state + b" ")
        (tmp_path / str(pid) / "stat").write_bytes(data)

    def chosen(process: Process) -> bool:
        asked.append(process.pid)
        return process.pid > 1

    deadline = Deadline(LONG_NS)
    assert [process.pid for process in processes.find(chosen, deadline, 1, str(tmp_path))] == [6]
    assert asked == [1, 6]
    assert [process.pid for process in processes.find(chosen, deadline, 2, str(tmp_path))] == [6, 5]


def test_this_process_does_not_find_itself() -> None:
    assert os.getpid() not in [process.pid for process in everyone()]
    assert os.getppid() in [process.pid for process in everyone()]


@pytest.mark.root
@pytest.mark.needs("unshare", "mount")
def test_where_others_are_hidden_nothing_is_said_of_them(tmp_path: Path) -> None:
    code = """
import os, sys
from hbagent.core.checks import ProcessCheck
from hbagent.probes import processes
from hbagent.core.units import SECOND
open(sys.argv[1] + "/pid", "w").write(str(os.getppid()))
os.chmod(sys.argv[1], 0o755)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for check in (ProcessCheck(process="init"), ProcessCheck(pidfile=sys.argv[1] + "/pid")):
    try:
        result = processes.look(check, 20 * SECOND, {}, sys.argv[1] + "/proc")
        print(result.health.value, result.text)
    except OSError as error:
        print("UNKNOWN", error)
"""
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as directory:
        Path(directory, "proc").mkdir()
        # The mount goes with the namespace.
        script = f'mount -t proc -o hidepid=2 proc {directory}/proc && exec "$@"'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", code, directory],
            capture_output=True,
            text=True,
            check=True,
        )
    first, second = done.stdout.splitlines()
    assert first.startswith("UNKNOWN other users' processes are hidden")
    assert second.startswith("UNKNOWN process ") and "hidden from the agent" in second


def test_a_name_with_brackets_and_blanks_is_read_as_the_kernel_means_it() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    assert parse_stat(STAT) == Process(4242, "a) S 1 (b", "R", 100, 123456, 256 * page)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_process_or_a_value_error(data: bytes) -> None:
    try:
        parse_stat(data)
    except ValueError:
        return


@given(st.integers(0, len(STAT)), st.binary(max_size=8))
def test_a_damaged_line_is_a_process_or_a_value_error(place: int, noise: bytes) -> None:
    try:
        parse_stat(STAT[:place] + noise + STAT[place:])
    except ValueError:
        return
