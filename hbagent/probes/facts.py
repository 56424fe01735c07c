"""What a host says of itself: processors, load, memory, disks, pressure, uptime.

Each fact is read on its own. One that cannot be read is None and leaves a line in `errors`, and the others are told
all the same: a host whose `/proc` is half hidden by a sandbox still has a load. Nothing is guessed, and nothing here
raises. A fact that this kernel simply does not offer (pressure before Linux 4.20, or switched off) is None without
a line.

Only filesystems on local devices are asked, and `/`: `statvfs` on a dead network mount never returns. Call `take`
in a worker all the same, for a dying disk can block it too.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec
import psutil

from hbagent.core.messages import Disk, HostFacts

PRESSURE = "/proc/pressure"

#: A container host may mount hundreds; the first by path are told, which has `/` among them. About 4 KB a report.
DISKS_MAX = 32
#: Lines of `errors`, and characters of each: enough to tell what is wrong, little enough to ride in every report.
ERRORS_MAX = 16
ERROR_LENGTH_MAX = 200
#: Images that cannot be written and are therefore always 100 % full.
IMAGES = ("squashfs", "erofs", "iso9660", "udf", "cramfs")

T = TypeVar("T")


class State(msgspec.Struct, frozen=True, gc=False):
    """Processor time at one reading; `cpu_percent` is what happened between two."""

    busy_s: float | None = None
    total_s: float | None = None


def take(previous: State | None = None, pressure: str = PRESSURE) -> tuple[HostFacts, State]:
    """Read all facts. `previous` is the state that the last call returned; without it `cpu_percent` is None."""
    errors: list[str] = []
    processors = reading("cpu", errors, cpu_times) or State()
    load = reading("load", errors, psutil.getloadavg)
    memory = reading("memory", errors, psutil.virtual_memory)
    swap = reading("swap", errors, psutil.swap_memory)
    system = reading("kernel", errors, os.uname)
    facts = HostFacts(
        cpu_count=reading("cpu count", errors, psutil.cpu_count),
        cpu_percent=cpu_percent(previous, processors),
        load_1m=round(load[0], 2) if load else None,
        memory_total_bytes=memory.total if memory else None,
        memory_used_percent=round(memory.percent, 1) if memory else None,
        swap_used_percent=round(swap.percent, 1) if swap else None,
        disks=disks(errors),
        psi_cpu=reading("cpu pressure", errors, partial(some_avg10, f"{pressure}/cpu")),
        psi_memory=reading("memory pressure", errors, partial(some_avg10, f"{pressure}/memory")),
        psi_io=reading("io pressure", errors, partial(some_avg10, f"{pressure}/io")),
        uptime_s=reading("uptime", errors, lambda: int(time.clock_gettime(time.CLOCK_BOOTTIME))),
        hostname=system.nodename if system else "",
        kernel=system.release if system else "",
        errors=tuple(errors[:ERRORS_MAX]),
    )
    return facts, processors


def reading(what: str, errors: list[str], read: Callable[[], T]) -> T | None:
    """What `read` returns, or None and a line in `errors` when it raises anything."""
    try:
        return read()
    except Exception as error:
        errors.append(f"{what}: {type(error).__name__}: {error}"[:ERROR_LENGTH_MAX])
        return None


def cpu_times() -> State:
    """Seconds that all processors together were busy, and altogether, since the host started.

    Waiting for a disk is idle; time stolen by a hypervisor is busy. Guest time is part of user time already.
    """
    times = psutil.cpu_times()
    total = sum(times) - times.guest - times.guest_nice
    return State(total - times.idle - times.iowait, total)


def cpu_percent(before: State | None, after: State) -> float | None:
    """Share of all processors' time between two readings in which they were busy; None when not both are known."""
    if before is None or None in (before.busy_s, before.total_s, after.busy_s, after.total_s):
        return None
    passed = (after.total_s or 0.0) - (before.total_s or 0.0)
    if passed <= 0:
        return None
    # The kernel's idle and iowait counters may step back a little, so a share may fall outside.
    share = ((after.busy_s or 0.0) - (before.busy_s or 0.0)) / passed
    return round(100 * min(1.0, max(0.0, share)), 1)


def disks(errors: list[str]) -> tuple[Disk, ...]:
    """Filesystems on local devices, one for each device, by path. One that cannot be asked is a line in `errors`."""
    mounts: dict[str, str] = {}
    for partition in reading("disks", errors, psutil.disk_partitions) or ():
        # A device mounted at several places is told once, at the shortest path; the others are bind mounts.
        if partition.fstype not in IMAGES:
            known = mounts.get(partition.device, partition.mountpoint)
            mounts[partition.device] = min(known, partition.mountpoint, key=len)
    # The root of a container lies on no device.
    chosen = sorted({"/": None, **dict.fromkeys(mounts.values())})[:DISKS_MAX]
    asked = [reading(f"disk {mount}", errors, partial(disk, mount)) for mount in chosen]
    return tuple(told for told in asked if told)


def disk(mount: str) -> Disk:
    """Size and use of the filesystem at `mount`; the use is of what an ordinary user may fill, as `df` shows it."""
    usage = psutil.disk_usage(mount)
    return Disk(mount=mount, total_bytes=usage.total, used_percent=round(usage.percent, 1))


def some_avg10(path: str) -> float | None:
    """Per cent of the last 10 s in which some task waited (kernel documentation, accounting/psi); None without PSI.

    Raises ValueError when the file reads otherwise than the kernel documents it.
    """
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # booted with psi=0
            return None
        raise
    if not first.startswith(b"some avg10="):
        raise ValueError(f"{path} starts with {first[:40]!r}")
    return float(first.split(b" ")[1].partition(b"=")[2])
