"""Is the host itself in trouble: disks, memory, pressure, processes, clock?

Each measure is a function that reads a few small files of the kernel and returns what it found: the worst place first,
and a number for each. `MEASURES` says from which value on that is trouble; the defaults are meant for hosts of which
nothing is known, so they speak late rather than often. A host without the thing (no swap, no systemd, a kernel
without pressure figures) has no such measure: `applies` is False.

What happens between two runs (a process killed for want of memory, a clock that jumped) counts for `HELD_NS` after it
was seen: the next run finds nothing, and it should not be gone before somebody has looked.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from hbagent.core.checks import HostCheck
from hbagent.core.health import RANK, worst
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import MINUTE, SECOND, show_duration

from . import mounts
from .outcome import Deadline, absent, counted, finished, judge, named, read, show_bytes

PROC = "/proc"
#: Numbers of one result: as many filesystems as `facts.DISKS_MAX` tells of.
PLACES_MAX = 32
#: How long something that happened at one moment counts.
HELD_NS = 10 * MINUTE
#: A filesystem with so much room is not full, whatever the percentage. Only for the default thresholds.
ROOM_BYTES = 100 << 30
#: What the kernel slews a clock by at most (ntp_adjtime(3): 500 ppm), with as much again for two clocks read in turn.
SLEW = 1e-3
#: Bits of `struct timex.status` and states of the clock (adjtimex(2)).
STA_UNSYNC = 0x40
TIME_ERROR = 5


class Found(msgspec.Struct, frozen=True, gc=False):
    """One number of a measure."""

    label: str
    value: float
    #: What to say when this is the worst: "/var is 97 % full".
    text: str
    #: Has room whatever the share is; default thresholds do not count.
    roomy: bool = False
    #: What it is, whatever the thresholds say.
    forced: Health | None = None


class Reading(msgspec.Struct, frozen=True):
    """What a measure found, worst or not; `places` is empty when there is nothing to look at."""

    places: tuple[Found, ...]
    memory: dict[str, Any] = {}
    #: Said at the end of the text.
    note: str = ""
    #: Why nothing can be said: the result is UNKNOWN.
    unknown: str = ""
    #: Further numbers, without a judgement.
    more: tuple[Measure, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """What a measure is read for: where, until when, and what the last run left behind."""

    check: HostCheck
    memory: dict[str, Any]
    proc: str
    deadline: Deadline


class Measured(msgspec.Struct, frozen=True):
    """One kind of trouble: how it is read, its unit, and from which value on it is trouble."""

    read: Callable[[Task], Reading]
    unit: str
    warning: float | None
    critical: float | None
    #: Why there may be nothing to look at.
    nothing: str = ""


def look(check: HostCheck, timeout_ns: int, memory: dict[str, Any], proc: str = PROC) -> CheckFinished:
    """Read one measure and judge it."""
    measured = MEASURES.get(check.what)
    if measured is None:
        return finished(Health.UNKNOWN, f"no measure is called {check.what!r}; there are {', '.join(MEASURES)}")
    reading = measured.read(Task(check, memory, proc, Deadline(timeout_ns)))
    if reading.unknown:
        return finished(Health.UNKNOWN, reading.unknown, memory=memory)
    if not reading.places:
        return absent(measured.nothing or f"this host has no {check.what}")
    warning = measured.warning if check.warning is None else check.warning
    critical = measured.critical if check.critical is None else check.critical
    configured = check.warning is not None or check.critical is not None
    judged = []
    for place in reading.places:
        health = place.forced or judge(place.value, warning, critical)
        judged.append((Health.OK if place.roomy and not configured else health, place))
    judged.sort(key=lambda pair: (RANK[pair[0]], -pair[1].value))
    bad = [place for health, place in judged if health is not Health.OK]
    text = "; ".join(place.text for place in bad[:3]) or judged[0][1].text
    if len(bad) > 3:
        text += f"; and {len(bad) - 3} more"
    measures = [
        Measure(
            label=place.label,
            value=round(place.value, 3),
            unit=measured.unit,
            warning="" if warning is None else f"{warning:g}",
            critical="" if critical is None else f"{critical:g}",
            least=0,
        )
        for _, place in judged[:PLACES_MAX]
    ]
    health = worst(health for health, _ in judged)
    return finished(health, text + reading.note, [*measures, *reading.more], reading.memory)


# ---- filesystems -----------------------------------------------------------------------------------------


def _chosen(task: Task) -> tuple[list[mounts.Mount], list[Found]]:
    """The mounts that a check is about, and what is to be said of those that are missing."""
    table = mounts.host_mounts(task.proc)
    if not task.check.mounts:
        return mounts.on_devices(table), []
    chosen, missing = [], []
    for path in task.check.mounts:
        found = mounts.holding(os.path.normpath(path), table)
        if found is None or found.path != os.path.normpath(path):
            missing.append(Found(path, 0, f"nothing is mounted at {path}", forced=Health.CRITICAL))
        else:
            chosen.append(found)
    return chosen, missing


def disk(task: Task) -> Reading:
    """Use of each filesystem by what an ordinary user may fill, as `df` shows it."""

    def used(mount: mounts.Mount, told: os.statvfs_result) -> Found | None:
        taken, free = (told.f_blocks - told.f_bfree) * told.f_frsize, told.f_bavail * told.f_frsize
        if taken + free <= 0:
            return None
        percent = 100 * taken / (taken + free)
        text = f"{mount.path} is {percent:.1f} % full, {show_bytes(free)} free"
        return Found(mount.path, percent, text, roomy=free >= ROOM_BYTES)

    return _filesystems(task, used)


def inodes(task: Task) -> Reading:
    """Use of the files that each filesystem can hold; some make them as they need them, and have no limit."""

    def used(mount: mounts.Mount, told: os.statvfs_result) -> Found | None:
        taken = told.f_files - told.f_ffree
        if told.f_files <= 0 or taken + told.f_favail <= 0:
            return None
        percent = 100 * taken / (taken + told.f_favail)
        return Found(mount.path, percent, f"{mount.path} has {percent:.1f} % of its inodes used")

    return _filesystems(task, used)


def _filesystems(task: Task, used: Callable[[mounts.Mount, os.statvfs_result], Found | None]) -> Reading:
    chosen, places = _chosen(task)
    unseen = []
    for mount in chosen:
        if "ro" in mount.super_options and not mounts.broken(mount):
            continue
        # The mount at this path in our own namespace may be another filesystem, which would answer for it.
        if mounts.hidden(mount.path, task.proc):
            unseen.append(mount.path)
            continue
        try:
            found = used(mount, os.statvfs(mount.path))
        except (PermissionError, FileNotFoundError):
            unseen.append(mount.path)
            continue
        if found:
            places.append(found)
    note = f"; not seen from the agent's sandbox: {named(unseen)}" if unseen else ""
    unknown = note.lstrip("; ") if unseen and (not places or task.check.mounts) else ""
    return Reading(tuple(places), note=note, unknown=unknown)


def readonly(task: Task) -> Reading:
    """Filesystems that the kernel turned read-only; and those that were writable and are not, which may be meant."""
    chosen, places = _chosen(task)
    before = task.memory.get("writable")
    writable = {}
    for mount in chosen:
        if mounts.broken(mount):
            text = f"{mount.path} ({mount.source}) was turned read-only after an error"
            places.append(Found(mount.path, 1, text))
            continue
        if "ro" not in mount.super_options:
            writable[mount.path] = mount.device
        elif isinstance(before, dict) and before.get(mount.path) == mount.device:
            # Somebody may have done it on purpose: it stays a WARNING until the agent starts anew.
            writable[mount.path] = mount.device
            text = f"{mount.path} ({mount.source}) was writable and is read-only"
            places.append(Found(mount.path, 1, text, forced=Health.WARNING))
            continue
        places.append(Found(mount.path, 0, "no filesystem was turned read-only"))
    return Reading(tuple(places), {"writable": dict(list(writable.items())[:PLACES_MAX])})


# ---- memory, load, pressure ------------------------------------------------------------------------------


def parse_meminfo(data: bytes) -> dict[str, int]:
    """Bytes by name, of the lines that are in kB."""
    lines = (line.split() for line in data.decode("ascii", "replace").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[1].isdigit()}


def memory_used(task: Task) -> Reading:
    """Memory that could not be had without swapping: what the kernel does not call available."""
    told = parse_meminfo(read(f"{task.proc}/meminfo"))
    if not told.get("MemTotal") or "MemAvailable" not in told:
        raise ValueError("meminfo has no MemTotal or no MemAvailable")
    free = told["MemAvailable"]
    percent = 100 * (1 - free / told["MemTotal"])
    text = f"{percent:.1f} % of {show_bytes(told['MemTotal'])} used, {show_bytes(free)} available"
    return Reading((Found("memory", percent, text),))


def swap(task: Task) -> Reading:
    """Swap space in use."""
    told = parse_meminfo(read(f"{task.proc}/meminfo"))
    if "SwapTotal" not in told or "SwapFree" not in told:
        raise ValueError("meminfo has no SwapTotal or no SwapFree")
    if not told["SwapTotal"]:
        return Reading(())
    percent = 100 * (1 - told["SwapFree"] / told["SwapTotal"])
    return Reading((Found("swap", percent, f"{percent:.1f} % of {show_bytes(told['SwapTotal'])} swap used"),))


def load(task: Task) -> Reading:
    """Average number of tasks that run or cannot be interrupted, over 5 minutes, for each processor."""
    words = read(f"{task.proc}/loadavg", 128).split()
    processors = os.cpu_count() or 1
    value = float(words[1]) / processors
    return Reading((Found("load", value, f"load {value:.2f} for each of {processors} processors (5 minutes)"),))


def pressure(kind: str, share: str) -> Callable[[Task], Reading]:
    """How to read one pressure figure: `share` is "some" (a task waited) or "full" (all of them did)."""

    def take(task: Task) -> Reading:
        try:
            told = parse_pressure(read(f"{task.proc}/pressure/{kind}", 512))
        except FileNotFoundError:
            # A sandbox that hides all of this kind is no old kernel (ProcSubset=pid): this raises then.
            os.stat(f"{task.proc}/meminfo")
            return Reading(())
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # booted with psi=0
                return Reading(())
            raise
        value = told[share]
        who = "some task" if share == "some" else "every task"
        return Reading((Found(f"psi-{kind}", value, f"{who} waited for {kind} in {value:.1f} % of the last minute"),))

    return take


def parse_pressure(data: bytes) -> dict[str, float]:
    """Per cent of the last minute, for "some" and "full" (kernel documentation, accounting/psi). Raises ValueError."""
    told = {}
    for line in data.decode("ascii", "replace").splitlines():
        words = line.split()
        values = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        if not words or "avg60" not in values:
            raise ValueError(f"a pressure file reads {data[:60]!r}")
        told[words[0]] = float(values["avg60"])
    if "some" not in told:
        raise ValueError(f"a pressure file reads {data[:60]!r}")
    # Kernels before 5.13 have no line "full" for the processor.
    return {"full": 0.0, **told}


def oom(task: Task) -> Reading:
    """Processes that the kernel killed for want of memory, lately."""
    kills = parse_vmstat(read(f"{task.proc}/vmstat")).get("oom_kill")
    if kills is None:
        return Reading(())
    before = task.memory.get("kills")
    new = kills - before if isinstance(before, int) and kills >= before else 0
    count, held = _held(task.memory, new)
    text = (
        f"{counted(int(count), 'process', 'processes')} killed for want of memory in the last {show_duration(HELD_NS)}"
    )
    return Reading(
        (Found("kills", count, text if count else "no process was killed for want of memory"),),
        {
            "kills": kills,
            **held,
        },
    )


def parse_vmstat(data: bytes) -> dict[str, int]:
    """Counters by name."""
    pairs = (line.split() for line in data.decode("ascii", "replace").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _held(memory: dict[str, Any], new: float) -> tuple[float, dict[str, Any]]:
    """What was seen lately, with what is new, and how to remember it."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    value, until = memory.get("held", 0.0), memory.get("until_ns", 0)
    if not now < until <= now + HELD_NS:
        value = 0.0
    if new:
        value, until = value + new, now + HELD_NS
    return value, {"held": value, "until_ns": until}


# ---- systemd, clock, tables of the kernel ----------------------------------------------------------------


def failed_units(task: Task) -> Reading:
    """Units in the state failed."""
    from . import units

    if not os.path.isdir(units.BOOTED):
        return Reading(())
    try:
        names = units.failed_units(task.deadline)
    except units.Unanswered as error:
        return Reading((), unknown=str(error))
    text = f"{counted(len(names), 'failed unit')}: {named(names)}" if names else "no unit failed"
    return Reading((Found("failed", len(names), text),))


def clock(task: Task) -> Reading:
    """Steps of the wall clock, in seconds, lately; and whether the kernel calls it synchronised."""
    offset_ns, now_ns = clock_offset()
    before, at_ns = task.memory.get("offset_ns"), task.memory.get("at_ns")
    step = 0.0
    if isinstance(before, int) and isinstance(at_ns, int) and at_ns < now_ns:
        moved = abs(offset_ns - before) / SECOND
        step = max(0.0, moved - SLEW * (now_ns - at_ns) / SECOND)
        # A tenth is what a daemon corrects at once (ntpd: 128 ms); two clocks read in turn differ by far less.
        step = step if step >= 0.1 else 0.0
    jumped, held = _held(task.memory, step)
    kept = {"offset_ns": offset_ns, "at_ns": now_ns, **held}
    text = f"the clock was set by {jumped:.1f} s in the last {show_duration(HELD_NS)}" if jumped else "no step"
    lost, more, note = False, [], ""
    synchronised = clock_synchronised()
    if synchronised is not None:
        more.append(Measure(label="synchronised", value=int(synchronised)))
        note = "" if synchronised else "; not synchronised"
        # Many hosts never are, and get by; one that was and is not any more has lost something.
        kept["synchronised"] = bool(synchronised or task.memory.get("synchronised"))
        lost = kept["synchronised"] and not synchronised
        note = "; no longer synchronised" if lost else note
    place = Found("step", jumped, text, forced=Health.WARNING if lost else None)
    return Reading((place,), kept, note, more=tuple(more))


def clock_offset() -> tuple[int, int]:
    """How far the wall clock is ahead of the time since the boot, suspended time included, and that time; in ns."""
    tries = []
    for _ in range(3):
        begin = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        end = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # The one that was not interrupted in between.
        tries.append((end - begin, wall - (begin + end) // 2, end))
    _, offset, now = min(tries)
    return offset, now


def clock_synchronised() -> bool | None:
    """What `adjtimex(2)` says, which anybody may ask; None when it cannot be asked."""
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # struct timex: `modes` (0: only ask) at the beginning; `status` behind modes, offset, freq, maxerror and esterror,
    # each of the size of a long. It has 208 bytes on 64 bits; nobody has more than this.
    room = ctypes.create_string_buffer(512)
    state = call(room)
    if state < 0:
        return None
    word = ctypes.sizeof(ctypes.c_long)
    status = int.from_bytes(room.raw[5 * word : 5 * word + 4], sys.byteorder)
    return state != TIME_ERROR and not status & STA_UNSYNC


def fds(task: Task) -> Reading:
    """Open files of the whole host, of what the kernel allows."""
    words = read(f"{task.proc}/sys/fs/file-nr", 128).split()
    used, most = int(words[0]), int(words[2])
    return Reading((_share("fds", used, most, "open files"),))


def pids(task: Task) -> Reading:
    """Threads of the whole host, of what the kernel allows: process ids, or threads."""
    _, _, threads = read(f"{task.proc}/loadavg", 128).split()[3].partition(b"/")
    limits = [int(read(f"{task.proc}/sys/kernel/{name}", 32)) for name in ("pid_max", "threads-max")]
    return Reading((_share("pids", int(threads), min(limits), "threads"),))


def _share(label: str, used: int, most: int, what: str) -> Found:
    if most <= 0:
        raise ValueError(f"the kernel allows {most} {what}")
    percent = 100 * used / most
    return Found(label, percent, f"{used} of {most} {what} ({percent:.1f} %)")


#: Why each value: what it means when it is reached, and what healthy hosts were seen to have.
MEASURES: dict[str, Measured] = {
    # Most filesystems slow down above nine tenths; root's reserve of 5 % is not counted in.
    "disk": Measured(disk, "%", 90, 95),
    "inodes": Measured(inodes, "%", 90, 95),
    # Databases are set up to use nine tenths; what is left above this is a second of allocation.
    "memory": Measured(memory_used, "%", 92, 97),
    # Full swap alone is no trouble: pressure tells what it costs.
    "swap": Measured(swap, "%", 90, None, "this host has no swap"),
    # Builds run at two or three; a dead NFS server makes it hundreds.
    "load": Measured(load, "", 4, 16),
    # A host that is used to the full has 50 to 80 of it and is well.
    "psi-cpu": Measured(pressure("cpu", "some"), "%", 95, None, "this kernel has no pressure figures"),
    # systemd-oomd begins to kill at 60 within 30 s.
    "psi-memory": Measured(pressure("memory", "full"), "%", 10, 40, "this kernel has no pressure figures"),
    # A backup on one slow disk has 80; a disk that has died has 100.
    "psi-io": Measured(pressure("io", "full"), "%", 85, 98, "this kernel has no pressure figures"),
    "oom": Measured(oom, "c", 1, None, "this kernel does not count what it kills"),
    "readonly": Measured(readonly, "", 1, 1, "this host has no filesystem of its own"),
    "units": Measured(failed_units, "", 1, None, "systemd does not run on this host"),
    # More than a leap second.
    "clock": Measured(clock, "s", 1.5, None),
    "fds": Measured(fds, "%", 80, 95),
    "pids": Measured(pids, "%", 80, 95),
}
