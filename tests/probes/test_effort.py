"""The counters of a process's trouble: real ones of this kernel, and files as other kernels write them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.core.messages import Effort
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.probes import effort
from hbagent.probes.effort import EffortMeter
from hbagent.probes.processes import parse_stat
from tests.descriptors import descriptors
from tests.quotas import quota
from tests.reporting import wait_for

#: A process that makes a meter at its first line, and tells its counters at each further one.
_TELLER = """
import sys
from hbagent.probes.effort import EffortMeter
meter = sys.stdin.readline() and EffortMeter()
print("made", flush=True)
for line in sys.stdin:
    if line == "spin\\n":
        end = __import__("time").thread_time() + 0.2
        while __import__("time").thread_time() < end: pass
    told = meter.read()
    print(told.run_delay_ns, told.throttled_ns, told.suspended_ns, flush=True)
"""
_SPINNER = "print(flush=True)\nwhile True: pass"


class Teller:
    """A process whose counters can be asked for."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TELLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def read(self, line: str = "read") -> Effort:
        return Effort(*map(int, self.ask(line).split()))


@pytest.fixture
def start() -> Iterator[Callable[[], Teller]]:
    """Starts tellers that end with the test."""
    tellers: list[Teller] = []

    def make() -> Teller:
        tellers.append(Teller())
        return tellers[-1]

    yield make
    for teller in tellers:
        teller.process.kill()
        teller.process.communicate()


def written(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def metered(directory: Path) -> EffortMeter:
    """A meter of the files in a directory."""
    return EffortMeter(str(directory / "schedstat"), str(directory / "cgroup"), str(directory / "fs"))


# ---- this kernel -----------------------------------------------------------------------------------------


def test_this_host_has_counters_that_never_go_back() -> None:
    meter = EffortMeter()
    before = meter.read()
    for _ in range(1000):
        now = meter.read()
        assert now.run_delay_ns >= before.run_delay_ns
        assert now.throttled_ns >= before.throttled_ns
        assert now.suspended_ns >= before.suspended_ns
        before = now
    assert before.suspended_ns < 10 * MILLISECOND, "nobody suspended this host meanwhile"
    meter.close()


def test_a_preemption_as_it_is_made_is_no_suspension_ever_after(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([3 * SECOND])
    monkeypatch.setattr(effort, "_slept_ns", lambda: next(told, 4 * SECOND))
    meter = EffortMeter()
    assert meter.read().suspended_ns == 0
    meter.close()


def test_the_delay_is_that_of_the_thread_that_reads() -> None:
    with open("/proc/thread-self/schedstat") as file:
        least = int(file.read().split()[1])
    meter = EffortMeter()
    told = meter.read().run_delay_ns
    with open("/proc/thread-self/schedstat") as file:
        assert least <= told <= int(file.read().split()[1])
    meter.close()


def test_a_process_that_shares_its_processor_waits_for_it(start: Callable[[], Teller]) -> None:
    cpu = min(os.sched_getaffinity(0))
    teller = start()
    spinner = subprocess.Popen([sys.executable, "-c", _SPINNER], stdout=subprocess.PIPE)
    try:
        for process in (teller.process, spinner):
            os.sched_setaffinity(process.pid, {cpu})
        assert spinner.stdout is not None and spinner.stdout.readline() == b"\n"
        teller.ask("make")
        before = teller.read()
        # It uses 200 ms of a processor, and so does the other.
        assert teller.read("spin").run_delay_ns - before.run_delay_ns > 50 * MILLISECOND
    finally:
        spinner.kill()
        spinner.communicate()


def test_a_process_that_was_stopped_did_not_wait_for_a_processor(start: Callable[[], Teller]) -> None:
    teller = start()
    teller.ask("make")
    before, begun = teller.read(), time.monotonic_ns()
    os.kill(teller.process.pid, signal.SIGSTOP)
    assert wait_for(lambda: parse_stat(Path(f"/proc/{teller.process.pid}/stat").read_bytes()).state == "T")
    stopped = time.monotonic_ns()
    threading.Event().wait(0.5)
    stopped = time.monotonic_ns() - stopped
    os.kill(teller.process.pid, signal.SIGCONT)
    after, length = teller.read(), time.monotonic_ns() - begun
    assert stopped >= SECOND // 2
    # On a busy host it may have waited for all of the rest.
    assert after.run_delay_ns - before.run_delay_ns <= length - stopped
    assert after.throttled_ns == before.throttled_ns


@pytest.mark.slow
def test_a_process_whose_quota_is_used_up_is_throttled(start: Callable[[], Teller]) -> None:
    teller = start()
    with quota() as group:
        group.limit(20_000, 100_000)
        group.hold(teller.process.pid)
        teller.ask("make")
        before = teller.read()
        after = teller.read("spin")
    throttled = after.throttled_ns - before.throttled_ns
    # 200 ms of work at a fifth of a processor take a second; who has less of it anyway is not held back as long.
    assert throttled > 100 * MILLISECOND
    assert after.run_delay_ns - before.run_delay_ns > throttled // 2, "the kernel counts it as waiting, too"


# ---- other kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "throttled_ns"),
    [
        # version 2, and with the groups above
        ({"cgroup": "0::/a/b\n", "fs/a/b/cpu.stat": "usage_usec 9\nnr_throttled 3\nthrottled_usec 70\n"}, 70_000),
        (
            {
                "cgroup": "0::/a\n",
                "fs/a/cpu.stat": "throttled_usec 70\n",
                "fs/a/cpu.stat.local": "throttled_usec 90\n",
            },
            90_000,
        ),
        # version 1, where controllers are mounted together or one by one
        ({"cgroup": "4:cpu,cpuacct:/a\n", "fs/cpu,cpuacct/a/cpu.stat": "nr_periods 1\nthrottled_time 5000\n"}, 5000),
        ({"cgroup": "9:name=systemd:/\n1:cpu:/a\n0::/\n", "fs/cpu/a/cpu.stat": "throttled_time 5000\n"}, 5000),
        # inside a container: the path is the host's, the mount is its own
        ({"cgroup": "0::/docker/1234\n", "fs/cpu.stat": "throttled_usec 70\n"}, 70_000),
        # without the controller
        ({"cgroup": "0::/a\n", "fs/a/cpu.stat": "usage_usec 9\nuser_usec 9\n"}, 0),
        ({"cgroup": "0::/a\n"}, 0),
        ({"cgroup": "7:memory:/a\n", "fs/memory/a/cpu.stat": "throttled_time 5000\n"}, 0),
        ({"cgroup": "nonsense\n\n0::\n:::::"}, 0),
        ({"cgroup": "0::/a\n", "fs/a/cpu.stat": "throttled_usec many\nxthrottled_usec 5\n"}, 0),
        ({}, 0),
    ],
)
def test_throttling_is_found_where_the_kernel_tells_it(
    tmp_path: Path, files: dict[str, str], throttled_ns: int
) -> None:
    meter = metered(written(tmp_path, files))
    assert meter.read().throttled_ns == throttled_ns
    meter.close()


@pytest.mark.parametrize(("text", "delay"), [("5 17 3\n", 17), ("5\n", 0), ("", 0), ("a b c\n", 0), (None, 0)])
def test_a_delay_that_cannot_be_read_is_none(tmp_path: Path, text: str | None, delay: int) -> None:
    meter = metered(written(tmp_path, {} if text is None else {"schedstat": text}))
    assert meter.read().run_delay_ns == delay
    meter.close()


def test_the_files_are_read_anew_each_time_and_no_descriptor_is_left(tmp_path: Path) -> None:
    before = descriptors()
    files = {"schedstat": "1 10 1\n", "cgroup": "0::/a\n", "fs/a/cpu.stat": "throttled_usec 1\n"}
    meter = metered(written(tmp_path, files))
    assert (meter.read().run_delay_ns, meter.read().throttled_ns) == (10, 1000)
    written(tmp_path, {"schedstat": "1 20 1\n", "fs/a/cpu.stat": "throttled_usec 2\n"})
    assert (meter.read().run_delay_ns, meter.read().throttled_ns) == (20, 2000)
    meter.close()
    meter.close()
    assert (meter.read().run_delay_ns, meter.read().throttled_ns) == (0, 0)
    assert descriptors() <= before
