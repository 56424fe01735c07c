"""Host facts, on this real host and on one whose /proc has gone bad."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from hbagent.probes import facts
from hbagent.probes.facts import State, cpu_percent, some_avg10, take

HEAVY = ("asyncio", "ssl", "http", "urllib.request", "multiprocessing", "sqlite3", "loguru", "zmq", "email", "logging")


@pytest.fixture
def bad_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that psutil takes for /proc."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path


def mount(proc: Path, mountpoints: list[str]) -> None:
    """Make `proc` tell of these filesystems, as the kernel writes them."""
    mountpoints = [mountpoint.replace(" ", r"\040") for mountpoint in mountpoints]
    (proc / "filesystems").write_text("\text4\n")
    (proc / "self").mkdir()
    lines = [f"/dev/v{number} {mountpoint} ext4 rw 0 0\n" for number, mountpoint in enumerate(mountpoints)]
    (proc / "self" / "mounts").write_text("".join(lines))


def test_a_healthy_host_tells_everything() -> None:
    told, state = take()
    assert told.errors == ()
    assert told.cpu_count == os.cpu_count()
    assert told.memory_total_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert told.memory_used_percent is not None and 0 < told.memory_used_percent < 100
    assert told.load_1m is not None and told.load_1m >= 0
    assert told.hostname == os.uname().nodename
    assert told.kernel == os.uname().release
    assert "/" in [disk.mount for disk in told.disks]
    assert all(disk.total_bytes > 0 and 0 <= disk.used_percent <= 100 for disk in told.disks)
    assert told.cpu_percent is None
    assert state.total_s


def test_uptime_counts_from_the_boot() -> None:
    def uptime() -> float:
        return float(Path("/proc/uptime").read_text().split()[0])

    before = uptime()
    told, _ = take()
    assert told.uptime_s is not None
    assert before - 1 <= told.uptime_s <= uptime() + 1


def test_a_root_without_a_device_is_told_all_the_same(bad_proc: Path) -> None:
    (bad_proc / "filesystems").write_text("nodev\toverlay\n")
    (bad_proc / "self").mkdir()
    (bad_proc / "self" / "mounts").write_text("overlay / overlay rw 0 0\n")
    told, _ = take()
    assert [disk.mount for disk in told.disks] == ["/"]


def test_network_mounts_images_and_bind_mounts_are_not_asked(bad_proc: Path) -> None:
    (bad_proc / "filesystems").write_text("nodev\tnfs\n\text4\n\tsquashfs\n")
    (bad_proc / "self").mkdir()
    (bad_proc / "self" / "mounts").write_text(
        "/dev/vda / ext4 rw 0 0\n/dev/vda /etc ext4 rw 0 0\nnas:/all /mnt nfs rw 0 0\n/dev/loop0 /usr squashfs ro 0 0\n"
    )
    told, _ = take()
    assert [disk.mount for disk in told.disks] == ["/"]
    assert not any("disk" in error for error in told.errors)


def test_a_filesystem_that_cannot_be_asked_is_an_error_and_not_a_full_disk(bad_proc: Path) -> None:
    mount(bad_proc, ["/no-such-directory"])
    told, _ = take()
    assert [disk.mount for disk in told.disks] == ["/"]
    assert any(error.startswith("disk /no-such-directory: FileNotFoundError") for error in told.errors)


def test_hundreds_of_mounts_stay_bounded_and_the_root_is_among_them(bad_proc: Path) -> None:
    there = [bad_proc / f"{number:03}{'x' * 150}" for number in range(500)]
    for directory in there:
        directory.mkdir()
    mount(bad_proc, [str(directory) for directory in there])
    told, _ = take()
    assert len(told.disks) == facts.DISKS_MAX
    assert told.disks[0].mount == "/"
    assert len(msgspec.msgpack.encode(told)) < 16 * 1024


def test_hundreds_of_errors_stay_bounded(bad_proc: Path) -> None:
    mount(bad_proc, [f"/{'x' * 1000}/{number}" for number in range(500)])
    told, _ = take()
    assert len(told.errors) == facts.ERRORS_MAX
    assert len(msgspec.msgpack.encode(told)) < 8 * 1024


def test_without_proc_each_fact_is_none_with_its_reason_and_nothing_raises(bad_proc: Path) -> None:
    told, state = take(take()[1])
    assert told.cpu_percent is None
    assert told.memory_total_bytes is None and told.memory_used_percent is None and told.swap_used_percent is None
    assert state == State()
    for fact in ("cpu", "memory", "swap", "disks"):
        assert any(error.startswith(f"{fact}: FileNotFoundError") for error in told.errors), fact
    assert told.load_1m is not None and told.uptime_s is not None


def test_garbage_in_proc_is_none_with_its_reason(bad_proc: Path) -> None:
    (bad_proc / "stat").write_text("cpu what is this\n")
    (bad_proc / "meminfo").write_text("MemTotal: many kB\n")
    told, _ = take()
    assert told.cpu_percent is None and told.memory_total_bytes is None
    assert any(error.startswith("cpu: ") for error in told.errors)
    assert any(error.startswith("memory: ") for error in told.errors)


def test_a_busy_processor_is_seen_between_two_readings() -> None:
    begin = time.monotonic()
    _, before = take()
    burnt = time.process_time()
    while time.process_time() - burnt < 0.3:
        pass
    told, _ = take(before)
    share = 100 * 0.3 / (time.monotonic() - begin) / (os.cpu_count() or 1)
    assert told.cpu_percent is not None
    assert told.cpu_percent >= share / 2


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (State(10.0, 100.0), State(15.0, 110.0), 50.0),
        (State(10.0, 100.0), State(9.9, 110.0), 0.0),
        (State(10.0, 100.0), State(21.0, 110.0), 100.0),
        (State(10.0, 100.0), State(10.0, 100.0), None),
        (State(10.0, 100.0), State(5.0, 90.0), None),
        (State(), State(5.0, 90.0), None),
        (State(10.0, 100.0), State(), None),
        (None, State(5.0, 90.0), None),
    ],
)
def test_the_busy_share_is_bounded_or_unknown(before: State | None, after: State, expected: float | None) -> None:
    assert cpu_percent(before, after) == expected


@pytest.mark.skipif(not os.path.exists("/proc/pressure/cpu"), reason="needs a kernel with pressure stall information")
def test_pressure_is_read_from_the_kernel() -> None:
    told, _ = take()
    for share in (told.psi_cpu, told.psi_memory, told.psi_io):
        assert share is not None and 0 <= share <= 100


def test_a_kernel_without_pressure_is_no_error(tmp_path: Path) -> None:
    told, _ = take(pressure=str(tmp_path))
    assert (told.psi_cpu, told.psi_memory, told.psi_io) == (None, None, None)
    assert told.errors == ()


def test_a_pressure_file_is_read_as_the_kernel_documents_it(tmp_path: Path) -> None:
    file = tmp_path / "cpu"
    file.write_text(
        "some avg10=12.34 avg60=2.00 avg300=0.10 total=999\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    )
    assert some_avg10(str(file)) == 12.34


@pytest.mark.parametrize("text", ["", "full avg10=0.00 avg60=0.00", "some avg10=many avg60=0.00", "\0\0\0"])
def test_a_pressure_file_of_another_shape_is_an_error_and_no_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu").write_text(text)
    told, _ = take(pressure=str(tmp_path))
    assert told.psi_cpu is None
    assert len(told.errors) == 1 and told.errors[0].startswith("cpu pressure: ValueError")


def test_reading_facts_loads_nothing_heavy() -> None:
    script = f"import sys, hbagent.probes.facts as f; f.take(); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_reading_facts_again_and_again_takes_no_memory() -> None:
    # In a process of its own: the peak of this one may be far above what it has now.
    script = """
from hbagent.probes.facts import take
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
state = take()[1]
for _ in range(50):
    state = take(state)[1]
before = peak()
for _ in range(500):
    state = take(state)[1]
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) < 512, "KiB"
