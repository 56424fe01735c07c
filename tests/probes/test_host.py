"""The host's measures: on this real host, on a /proc that a test writes, and on filesystems that really break."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.checks import HostCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes import host
from hbagent.probes.check import run
from hbagent.probes.host import (
    HELD_NS,
    MEASURES,
    clock_offset,
    clock_synchronised,
    parse_meminfo,
    parse_pressure,
    parse_vmstat,
)

LONG_NS = 20 * SECOND
MEMINFO = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {free} kB\nSwapTotal: {swap} kB\nSwapFree: {left} kB\n"
PRESSURE = "some avg10=0.00 avg60={some} avg300=0.24 total=3705490159\nfull avg10=0.00 avg60={full} avg300=0 total=0\n"


def look(proc: Path, what: str, memory: dict[str, Any] | None = None, **fields: Any) -> CheckFinished:
    return host.look(HostCheck(what=what, **fields), LONG_NS, memory or {}, str(proc))


def write(proc: Path, **contents: str) -> Path:
    """Files of a /proc; `__` in a name is a slash and `_` stays."""
    for name, content in contents.items():
        file = proc / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return proc


def meminfo(total: int = 1000, free: int = 500, swap: int = 0, left: int = 0) -> str:
    return MEMINFO.format(total=total, free=free, swap=swap, left=left)


def test_every_measure_is_well_on_this_host_or_leaves_itself_out() -> None:
    for what in MEASURES:
        result = run(HostCheck(what=what), LONG_NS)
        assert result.applies or what in ("swap", "units", "psi-cpu", "psi-memory", "psi-io", "oom", "readonly"), what
        if result.applies:
            assert result.health is not Health.UNKNOWN, (what, result.text)
            assert result.measures and result.text


def test_an_unknown_measure_is_unknown_and_the_known_are_named() -> None:
    result = run(HostCheck(what="dsk"), LONG_NS)
    assert result.health is Health.UNKNOWN
    assert "no measure is called 'dsk'; there are disk, inodes" in result.text


# ---- memory, load, pressure ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "health"), [(500, "OK"), (81, "OK"), (80, "WARNING"), (31, "WARNING"), (30, "CRITICAL"), (0, "CRITICAL")]
)
def test_memory_is_judged_by_what_is_available(tmp_path: Path, free: int, health: str) -> None:
    result = look(write(tmp_path, meminfo=meminfo(free=free)), "memory")
    assert result.health.value == health
    assert result.measures[0].value == pytest.approx(100 - free / 10)
    assert (result.measures[0].warning, result.measures[0].critical) == ("92", "97")


def test_thresholds_of_the_check_go_before_the_defaults(tmp_path: Path) -> None:
    proc = write(tmp_path, meminfo=meminfo(free=500))
    assert look(proc, "memory", warning=40.0).health is Health.WARNING
    assert look(proc, "memory", warning=40.0, critical=50.0).health is Health.CRITICAL


def test_full_swap_alone_is_a_warning_and_no_swap_is_nothing(tmp_path: Path) -> None:
    assert look(write(tmp_path, meminfo=meminfo(swap=100, left=0)), "swap").health is Health.WARNING
    assert look(write(tmp_path, meminfo=meminfo(swap=100, left=60)), "swap").health is Health.OK
    none = look(write(tmp_path, meminfo=meminfo()), "swap")
    assert not none.applies and none.text == "this host has no swap"


def test_load_is_for_each_processor(tmp_path: Path) -> None:
    processors = os.cpu_count() or 1
    for load, health in ((3, "OK"), (5, "WARNING"), (20, "CRITICAL")):
        proc = write(tmp_path, loadavg=f"0.00 {load * processors}.00 0.00 1/100 4242\n")
        assert look(proc, "load").health.value == health


@pytest.mark.parametrize(
    ("what", "some", "full", "health"),
    [
        ("psi-cpu", 94, 0, "OK"),
        ("psi-cpu", 96, 0, "WARNING"),
        ("psi-memory", 90, 9, "OK"),
        ("psi-memory", 90, 11, "WARNING"),
        ("psi-memory", 90, 41, "CRITICAL"),
        ("psi-io", 99, 80, "OK"),
        ("psi-io", 99, 99, "CRITICAL"),
    ],
)
def test_pressure_is_judged_by_what_hurts(tmp_path: Path, what: str, some: int, full: int, health: str) -> None:
    write(tmp_path, **{f"pressure__{what[4:]}": PRESSURE.format(some=some, full=full)})
    assert look(tmp_path, what).health.value == health


def test_a_kernel_without_pressure_is_told_from_one_that_is_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look(tmp_path, "psi-io")
    assert not look(write(tmp_path, meminfo=meminfo()), "psi-io").applies


# ---- what happens at one moment --------------------------------------------------------------------------


def test_a_kill_counts_for_ten_minutes(tmp_path: Path) -> None:
    first = look(write(tmp_path, vmstat="oom_kill 5\n"), "oom")
    assert first.health is Health.OK
    killed = look(write(tmp_path, vmstat="oom_kill 7\n"), "oom", first.memory)
    assert killed.health is Health.WARNING
    assert killed.text == "2 processes killed for want of memory in the last 10m00s"
    later = look(tmp_path, "oom", killed.memory)
    assert later.health is Health.WARNING
    more = look(write(tmp_path, vmstat="oom_kill 8\n"), "oom", later.memory)
    assert more.measures[0].value == 3
    over = look(tmp_path, "oom", {**more.memory, "until_ns": more.memory["until_ns"] - HELD_NS})
    assert over.health is Health.OK


def test_a_counter_that_began_anew_is_no_kill(tmp_path: Path) -> None:
    result = look(write(tmp_path, vmstat="oom_kill 2\n"), "oom", {"kills": 9})
    assert result.health is Health.OK and result.measures[0].value == 0
    assert not look(write(tmp_path, vmstat="nr_free 2\n"), "oom").applies


def test_a_clock_that_was_set_counts_for_ten_minutes() -> None:
    first = run(HostCheck(what="clock"), LONG_NS)
    assert first.health is Health.OK and first.measures[0].value == 0
    # What is remembered is of an hour ago on the wall, and of now since the boot.
    jumped = run(
        HostCheck(what="clock"), LONG_NS, {**first.memory, "offset_ns": first.memory["offset_ns"] - 3600 * SECOND}
    )
    assert jumped.health is Health.WARNING
    assert jumped.text.startswith("the clock was set by 3600.0 s in the last 10m00s")
    assert run(HostCheck(what="clock"), LONG_NS, jumped.memory).health is Health.WARNING


def test_slewing_is_no_step() -> None:
    offset, now = clock_offset()
    # 500 ppm for an hour are 1.8 s.
    memory = {"offset_ns": offset - 18 * SECOND // 10, "at_ns": now - 3600 * SECOND}
    result = run(HostCheck(what="clock"), LONG_NS, memory)
    assert result.health is Health.OK and result.measures[0].value == 0


def test_a_clock_that_never_was_synchronised_is_told_and_one_that_lost_it_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert clock_synchronised() in (True, False, None)
    monkeypatch.setattr(host, "clock_synchronised", lambda: False)
    never = run(HostCheck(what="clock"), LONG_NS)
    assert never.health is Health.OK and "not synchronised" in never.text
    lost = run(HostCheck(what="clock"), LONG_NS, {"synchronised": True})
    assert lost.health is Health.WARNING and "no longer synchronised" in lost.text
    assert run(HostCheck(what="clock"), LONG_NS, lost.memory).health is Health.WARNING


def test_two_clocks_read_together_agree() -> None:
    # Each reading lies between the largest and the smallest that a machine which stood still in between could tell.
    for _ in range(20):
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        before, (offset, now), after = time.time_ns(), clock_offset(), time.time_ns()
        end = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert before - end <= offset <= after - boot
        assert boot <= now <= end


# ---- tables of the kernel --------------------------------------------------------------------------------


def test_open_files_and_threads_are_shares_of_what_is_allowed(tmp_path: Path) -> None:
    write(tmp_path, sys__fs__file_nr="")
    (tmp_path / "sys/fs/file-nr").write_text("900\t0\t1000\n")
    assert look(tmp_path, "fds").health is Health.WARNING
    write(tmp_path, loadavg="0 0 0 3/960 77\n", sys__kernel__pid_max="32768\n")
    (tmp_path / "sys/kernel/threads-max").write_text("1000\n")
    result = look(tmp_path, "pids")
    assert result.health is Health.CRITICAL
    assert result.text == "960 of 1000 threads (96.0 %)"


def test_no_systemd_leaves_failed_units_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hbagent.probes import units

    monkeypatch.setattr(units, "BOOTED", str(tmp_path / "none"))
    assert not run(HostCheck(what="units"), LONG_NS).applies


def test_failed_units_are_named_and_a_silent_systemctl_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hbagent.probes import units

    monkeypatch.setattr(units, "BOOTED", str(tmp_path))
    monkeypatch.setattr(units, "SYSTEMCTL", str(tmp_path / "systemctl"))
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho 'a.service loaded failed failed A'\n")
    program.chmod(0o755)
    result = run(HostCheck(what="units"), LONG_NS)
    assert result.health is Health.WARNING and result.text == "1 failed unit: a.service"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert run(HostCheck(what="units"), LONG_NS).health is Health.UNKNOWN


# ---- filesystems -----------------------------------------------------------------------------------------


def mounted(proc: Path, *lines: str) -> Path:
    """A /proc in which both process 1 and this one have these mounts."""
    table = "".join(f"{number} 0 {line}\n" for number, line in enumerate(lines))
    return write(proc, **{"1__mountinfo": table, "self__mountinfo": table})


def test_the_use_of_a_disk_is_what_df_shows() -> None:
    result = run(HostCheck(what="disk", mounts=("/",)), LONG_NS)
    df = subprocess.run(["df", "--output=pcent", "/"], capture_output=True, text=True, check=True)
    # df rounds up.
    assert result.measures[0].value == pytest.approx(int(df.stdout.split()[-1].rstrip("%")) - 0.5, abs=0.6)
    assert result.measures[0].label == "/"


def test_a_disk_with_much_room_is_not_full_whatever_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ROOM_BYTES", 0)
    monkeypatch.setitem(MEASURES, "disk", host.Measured(host.disk, "%", 0, 0))
    assert run(HostCheck(what="disk"), LONG_NS).health is Health.OK
    # Who names a threshold means it.
    assert run(HostCheck(what="disk", warning=0.0), LONG_NS).health is Health.CRITICAL
    monkeypatch.setattr(host, "ROOM_BYTES", 1 << 60)
    assert run(HostCheck(what="disk"), LONG_NS).health is Health.CRITICAL


def test_a_mount_that_was_asked_for_and_is_missing_is_critical(tmp_path: Path) -> None:
    proc = mounted(tmp_path, "8:1 / / rw - ext4 /dev/a rw")
    for what in ("disk", "inodes", "readonly"):
        result = look(proc, what, mounts=("/data",))
        assert result.health is Health.CRITICAL
        assert result.text == "nothing is mounted at /data"


def test_a_filesystem_that_cannot_be_written_is_not_full(tmp_path: Path) -> None:
    proc = mounted(tmp_path, "8:1 / / rw - ext4 /dev/a rw", "8:2 / /dev/shm ro - ext4 /dev/b ro")
    for what in ("disk", "inodes"):
        assert [measure.label for measure in look(proc, what).measures] == ["/"]


def test_a_filesystem_that_the_sandbox_hides_is_named_and_not_asked(tmp_path: Path) -> None:
    theirs = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /home rw - ext4 /dev/b rw\n"
    ours = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /home rw - tmpfs tmpfs rw\n"
    write(tmp_path, **{"1__mountinfo": theirs, "self__mountinfo": ours})
    result = look(tmp_path, "disk")
    assert [measure.label for measure in result.measures] == ["/"]
    assert result.text.endswith("; not seen from the agent's sandbox: /home")
    assert look(tmp_path, "disk", mounts=("/home",)).health is Health.UNKNOWN


def test_the_worst_is_told_first_and_all_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(task: host.Task) -> host.Reading:
        return host.Reading(tuple(host.Found(f"/{n}", n, f"/{n} is {n} % full") for n in (10, 99, 91, 92, 93, 96)))

    monkeypatch.setitem(MEASURES, "disk", host.Measured(read, "%", 90, 95))
    result = look(tmp_path, "disk")
    assert result.health is Health.CRITICAL
    assert result.text == "/99 is 99 % full; /96 is 96 % full; /93 is 93 % full; and 2 more"
    assert [measure.label for measure in result.measures] == ["/99", "/96", "/93", "/92", "/91", "/10"]


def test_a_filesystem_that_became_read_only_is_a_warning_and_one_that_broke_is_critical(tmp_path: Path) -> None:
    writable = look(mounted(tmp_path, "8:1 / / rw - ext4 /dev/a rw"), "readonly")
    assert writable.health is Health.OK
    remounted = look(mounted(tmp_path, "8:1 / / ro - ext4 /dev/a ro"), "readonly", writable.memory)
    assert remounted.health is Health.WARNING and "was writable and is read-only" in remounted.text
    assert look(tmp_path, "readonly", remounted.memory).health is Health.WARNING
    assert look(tmp_path, "readonly").health is Health.OK
    another = look(mounted(tmp_path, "8:9 / / ro - ext4 /dev/b ro"), "readonly", writable.memory)
    assert another.health is Health.OK
    broken = look(mounted(tmp_path, "8:1 / / rw - ext4 /dev/a ro,errors=remount-ro"), "readonly")
    assert broken.health is Health.CRITICAL and "turned read-only after an error" in broken.text


def test_what_is_meant_to_be_read_only_is_none_of_our_business(tmp_path: Path) -> None:
    proc = mounted(
        tmp_path,
        "8:1 / / ro,relatime - ext4 /dev/a rw",
        "7:1 / /snap/x rw - squashfs /dev/loop1 ro",
        "11:0 / /media/cd rw - iso9660 /dev/sr0 ro",
        "8:3 / /usr ro - erofs /dev/c ro",
        "0:40 / /mnt rw - nfs4 server:/x ro",
    )
    assert look(proc, "readonly").health is Health.OK


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("mkfs.ext4", "mount", "unshare")
def test_a_real_filesystem_that_breaks_is_found(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "mnt"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    code = f"""
import os, sys
from hbagent.core.checks import HostCheck
from hbagent.core.units import SECOND
from hbagent.probes import host, mounts
check = HostCheck(what="readonly", mounts=({str(place)!r},))
# Process 1 lives in another namespace and does not have this mount.
mounts.host_mounts = lambda proc: mounts.parse(mounts.read("/proc/self/mountinfo"))
before = host.look(check, SECOND, {{}})
[source] = [mount.source for mount in mounts.host_mounts("") if mount.path == {str(place)!r}]
with open("/sys/fs/ext4/" + os.path.basename(source) + "/trigger_fs_error", "w") as file:
    file.write("test")
after = host.look(check, SECOND, before.memory)
print(before.health.value, after.health.value, after.text)
"""
    script = f'mount -o loop,errors=remount-ro {image} {place} && "$@"; status=$?; umount {place}; exit $status'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("OK CRITICAL ")
    assert "was turned read-only after an error" in done.stdout


# ---- every parser of the kernel's text -------------------------------------------------------------------

KERNEL = {
    "meminfo": meminfo(swap=100, left=50),
    "loadavg": "0.52 0.58 0.59 3/602 4242\n",
    "vmstat": "nr_free_pages 1\noom_kill 3\n",
    "pressure/cpu": PRESSURE.format(some=1.5, full=0),
    "pressure/memory": PRESSURE.format(some=1.5, full=0),
    "pressure/io": PRESSURE.format(some=1.5, full=0),
    "sys/fs/file-nr": "900\t0\t1000000\n",
    "sys/kernel/pid_max": "32768\n",
    "sys/kernel/threads-max": "100000\n",
    "1/mountinfo": "1 0 8:1 / / rw - ext4 /dev/a rw\n",
}


@given(name=st.sampled_from(sorted(KERNEL)), place=st.integers(0, 200), noise=st.binary(max_size=12), cut=st.booleans())
def test_a_kernel_that_writes_otherwise_is_unknown_or_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: int, noise: bytes, cut: bool
) -> None:
    proc = tmp_path_factory.mktemp("proc")
    for path, content in KERNEL.items():
        data = content.encode()
        if path == name:
            data = data[:place] + noise + (b"" if cut else data[place:])
        (proc / path).parent.mkdir(parents=True, exist_ok=True)
        (proc / path).write_bytes(data)
    for what in ("memory", "swap", "load", "psi-cpu", "psi-memory", "psi-io", "oom", "fds", "pids", "readonly", "disk"):
        try:
            look(proc, what)
        except (ValueError, IndexError, KeyError, OSError, OverflowError):
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_figures_or_a_value_error(data: bytes) -> None:
    parse_meminfo(data)
    parse_vmstat(data)
    try:
        assert set(parse_pressure(data)) >= {"some", "full"}
    except ValueError:
        return


@pytest.mark.parametrize("what", sorted(set(MEASURES) - {"units", "clock"}))
def test_an_empty_proc_is_never_good(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host.look
    monkeypatch.setattr(host, "look", lambda check, timeout_ns, memory: real(check, timeout_ns, memory, str(tmp_path)))
    result = run(HostCheck(what=what), LONG_NS)
    assert result.health is Health.UNKNOWN
    assert result.applies
