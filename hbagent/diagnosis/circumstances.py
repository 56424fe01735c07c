"""What stands around a stuck process: what it has open, what it is allowed, who waits for it, how its host fares.

Nothing here decides anything, and nothing stops the process. It is what a person asks for after "it hangs", read before
a restart destroys it. The sections are told one by one, what matters most and waits for nobody first, so that a read
that hangs costs what comes after it and nothing else.

Arguments and environment may hold secrets: of the arguments only the number is told, the environment is never read.
"""

from __future__ import annotations

import mmap
import os
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from hbagent.core.units import MILLISECOND

from . import apart, procfs
from .procfs import ProcError, Process
from .stacks import clean, runtime_of

#: Everything that is told of a process before it is cut down to a bundle.
TOLD_MAX = 1 << 20
#: Descriptors whose targets are read: a proxy has a hundred thousand.
FILES_MAX = 512
#: Lines of `net/tcp` are 150 bytes: 14,000 connections, in about 20 ms.
SOCKETS_SIZE_MAX = 2 << 20
SOCKETS_MAX = 256
#: Threads whose kernel stacks are read, 20 us each.
KERNEL_STACKS_MAX = 256
LOCKS_MAX = 64
ARGUMENTS_SIZE_MAX = 2 << 20

_STATUS = (
    *("Umask", "TracerPid", "Uid", "Gid", "FDSize", "VmPeak", "VmSize", "VmLck", "VmRSS", "RssAnon", "RssFile"),
    *("RssShmem", "VmSwap", "CoreDumping", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapEff"),
    *("NoNewPrivs", "Seccomp", "Cpus_allowed_list"),
)
#: Files of a control group that are told whole, by controller of version 1; all of them lie in one place in version 2.
_GROUP = {
    "cpu": ("cpu.stat", "cpu.max", "cpu.weight", "cpu.pressure", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "memory": (
        *("memory.current", "memory.max", "memory.high", "memory.swap.current", "memory.events", "memory.pressure"),
        *("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt"),
    ),
    "blkio": ("io.pressure", "io.max"),
    "pids": ("pids.current", "pids.max"),
    "freezer": ("cgroup.events", "cgroup.freeze", "freezer.state"),
}
_TCP_STATES = (
    *("ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSE", "CLOSE-WAIT"),
    *("LAST-ACK", "LISTEN", "CLOSING", "NEW-SYN-RECEIVED"),
)
_HEAD = struct.Struct("<I")

#: A section: what it is called, and what reads it.
Section = tuple[str, Callable[[Process], Any]]


class Told(msgspec.Struct):
    """What was told of a process, by section."""

    sections: dict[str, Any] = {}
    #: A line for each section that is missing.
    left_out: list[str] = []


def tell(pid: int, start: int, timeout_ns: int, sections: Iterable[Section] | None = None) -> Told:
    """Read all sections of a process in a process of its own, which is given up at the deadline; what it has told
    until then is kept. Never raises, and returns 0.2 s after the deadline at the latest.

    `start`: field 22 of its `stat`, so that nobody else is told of; 0: not known.
    """
    sections = tuple(SECTIONS if sections is None else sections)
    with mmap.mmap(-1, TOLD_MAX) as told:
        begun_ns = time.monotonic_ns()
        outcome = apart.run(lambda: _write(pid, start, sections, told), timeout_ns)
        answer = _read(told)
    missing = [name for name, _ in sections if name not in answer.sections and not _explained(name, answer.left_out)]
    if missing:
        after = (time.monotonic_ns() - begun_ns) // MILLISECOND
        answer.left_out.append(f"{', '.join(missing)}: {outcome.error or 'it ended'} ({after} ms)")
    return answer


def _explained(name: str, left_out: list[str]) -> bool:
    return any(line.startswith(f"{name}: ") for line in left_out)


def _write(pid: int, start: int, sections: Iterable[Section], told: mmap.mmap) -> bytes:
    """In the child: write each section into shared memory as soon as it is known."""
    at = 0
    with Process(pid) as process:
        if start and procfs.stat(process.read("stat")).start != start:
            raise procfs.Gone("it ended")
        for name, read in sections:
            try:
                entry = msgspec.json.encode([name, read(process), ""])
            except (ProcError, OSError, ValueError, KeyError, IndexError) as error:
                entry = msgspec.json.encode([name, None, clean(str(error) or type(error).__name__)])
            end = at + _HEAD.size + len(entry)
            if end + _HEAD.size > len(told):
                entry = msgspec.json.encode([name, None, f"{len(entry)} bytes are too much"])
                end = at + _HEAD.size + len(entry)
            told[at + _HEAD.size : end] = entry
            # The length last: what has none was not finished.
            told[at : at + _HEAD.size] = _HEAD.pack(len(entry))
            at = end
    return b""


def _read(told: mmap.mmap) -> Told:
    answer, at = Told(), 0
    while at + _HEAD.size <= len(told):
        (length,) = _HEAD.unpack_from(told, at)
        if not length:
            break
        at += _HEAD.size
        name, value, error = msgspec.json.decode(told[at : at + length])
        at += length
        if error:
            answer.left_out.append(f"{name}: {error}")
        else:
            answer.sections[name] = value
    return answer


# ---- the process -----------------------------------------------------------------------------------------


def process(target: Process) -> dict[str, Any]:
    """Who it is: program, owner, parent, age."""
    stat = procfs.stat(target.read("stat"))
    ticks = os.sysconf("SC_CLK_TCK")
    status = fields(target.read("status"))
    return {
        "name": clean(stat.name),
        "program": clean(_link(target, "exe")),
        "parent": stat.parent,
        "age_s": round(max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - stat.start / ticks), 1),
        "cpu_s": round(stat.ticks / ticks, 2),
        "status": {name: clean(status[name]) for name in _STATUS if name in status},
        "oom_score": int(target.read("oom_score")),
        "namespaces": _namespaces(target),
    }


def fields(data: bytes) -> dict[str, str]:
    """Lines "Name:  value" as a table."""
    pairs = (line.partition(":") for line in _lines(data))
    return {name: " ".join(value.split()) for name, colon, value in pairs if colon}


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").splitlines()


def _link(target: Process, name: str) -> str:
    try:
        return os.readlink(f"{procfs.PROC}/{target.pid}/{name}")
    except OSError:
        return ""


def _namespaces(target: Process) -> list[str]:
    """Kinds of namespaces in which it is apart from us: a container has most of them."""
    kinds = ("mnt", "net", "pid", "user", "uts", "ipc")
    found = ((kind, _link(target, f"ns/{kind}"), _own_namespace(kind)) for kind in kinds)
    return [kind for kind, its, ours in found if its and its != ours]


def _own_namespace(kind: str) -> str:
    return os.readlink(f"{procfs.PROC}/self/ns/{kind}")


def limits(target: Process) -> dict[str, str]:
    """Its limits, soft and hard, without those that are unlimited."""
    found = {}
    for line in _lines(target.read("limits"))[1:]:
        values = line[26:].split()
        if len(values) >= 2 and values[0] != "unlimited":
            soft, hard = values[:2]
            found[clean(line[:26])] = soft if soft == hard else f"{soft} of {hard}"
    return found


def io(target: Process) -> dict[str, int]:
    """What it has read and written so far."""
    return {name: int(value) for name, value in fields(target.read("io")).items() if value.isdigit()}


def kernel_stacks(target: Process) -> dict[str, list[str]]:
    """Where in the kernel each thread is; only for whoever has CAP_SYS_ADMIN."""
    found = {}
    for tid in target.tids()[:KERNEL_STACKS_MAX]:
        try:
            frames = procfs.stack(target.read_thread(tid, "stack"))
        except procfs.Gone:
            continue
        if frames:
            found[str(tid)] = [clean(frame) for frame in frames[:16]]
    return found


def arguments(target: Process) -> int:
    """How many arguments it was started with. Waits for locks of its memory."""
    return target.read("cmdline", ARGUMENTS_SIZE_MAX).count(b"\0")


def runtime(target: Process) -> str:
    """What runs the program: python, jvm or "". Waits for locks of its memory."""
    return runtime_of(target.pid)


# ---- its control group -----------------------------------------------------------------------------------


def group(target: Process) -> dict[str, Any]:
    """Its control group: quota and throttling, memory, pressure, freezer."""
    paths = procfs.cgroup(target.read("cgroup"))
    mounts = procfs.mountinfo(procfs.read_file(f"{procfs.PROC}/self/mountinfo", procfs.MOUNTINFO_SIZE_MAX))
    told: dict[str, Any] = {"paths": {name: clean(path) for name, path in paths.items() if path != "/"}}
    for controller, names in _GROUP.items():
        for place in _places(controller, paths, mounts):
            for name in names:
                value = _group_file(f"{place}/{name}")
                if value:
                    told[name] = value
    return told


def _places(controller: str, paths: dict[str, str], mounts: list[procfs.Mount]) -> Iterator[str]:
    """Directories of the group in which files of a controller may lie."""
    for mount in mounts:
        if mount.type == "cgroup2" and "" in paths:
            path = paths[""]
        elif mount.type == "cgroup" and controller in paths and controller in mount.options.split(","):
            path = paths[controller]
        else:
            continue
        root = mount.root.rstrip("/")
        if (path == root or path.startswith(f"{root}/")) and ".." not in path.split("/"):
            yield (mount.point + path[len(root) :]).rstrip("/")


def _group_file(path: str) -> str:
    try:
        data = procfs.read_file(path)
    except ProcError:
        return ""
    return clean("; ".join(_lines(data)), 400)


# ---- what it has open ------------------------------------------------------------------------------------


def files(target: Process) -> dict[str, Any]:
    """Its descriptors by kind, and what they lead to. Only the links are read: to follow one could hang."""
    base = f"{procfs.PROC}/{target.pid}/fd"
    try:
        numbers = sorted(map(int, os.listdir(base)))
    except OSError as error:
        raise procfs.Denied(f"fd: {error.strerror}") from None
    kinds: Counter[str] = Counter()
    some: list[str] = []
    for number in numbers[:FILES_MAX]:
        try:
            path = os.readlink(f"{base}/{number}")
        except OSError:  # closed meanwhile
            continue
        kind = _kind(path)
        kinds[kind] += 1
        if kind not in ("socket", "pipe"):
            some.append(f"{number} {clean(path)}")
    return {"count": len(numbers), "looked_at": min(len(numbers), FILES_MAX), "kinds": dict(kinds), "files": some}


def _kind(path: str) -> str:
    if path.startswith("/"):
        return "deleted file" if path.endswith(" (deleted)") else "device" if path.startswith("/dev/") else "file"
    return path.partition(":")[0]


def sockets(target: Process) -> dict[str, Any]:
    """Its sockets: who listens and how many wait to be accepted, who is connected and what is queued, in bytes."""
    inodes = target.sockets()
    told: list[dict[str, Any]] = []
    cut = False
    for name in ("tcp", "tcp6"):
        try:
            data = target.read(f"net/{name}", SOCKETS_SIZE_MAX)
        except procfs.Gone:  # a host without IPv6
            continue
        cut = cut or len(data) >= SOCKETS_SIZE_MAX
        told += connections(data, inodes)
    data = target.read("net/unix", SOCKETS_SIZE_MAX)
    told += unix_sockets(data, inodes)
    told.sort(key=lambda row: (row["state"] != "LISTEN", -row["received"] - row["unsent"], row["fd"]))
    return {
        "count": len(inodes),
        "states": dict(Counter(row["state"] for row in told)),
        "sockets": told[:SOCKETS_MAX],
        "complete": not cut and len(data) < SOCKETS_SIZE_MAX,
    }


def connections(data: bytes, inodes: dict[int, int]) -> Iterator[dict[str, Any]]:
    """Lines of `net/tcp` or `net/tcp6` whose inode is among `inodes` (inode -> descriptor).

    Of a socket that listens, `received` is the number of connections that nobody has accepted.
    """
    for line in data.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 10 or not parts[9].isdigit() or int(parts[9]) not in inodes:
            continue
        try:
            state = int(parts[3], 16) - 1
            unsent, _, received = parts[4].partition(b":")
            row = {
                "fd": inodes[int(parts[9])],
                "state": _TCP_STATES[state] if 0 <= state < len(_TCP_STATES) else "?",
                "local": _endpoint(parts[1]),
                "remote": _endpoint(parts[2]),
                "received": int(received, 16),
                "unsent": int(unsent, 16),
            }
        except (ValueError, struct.error, OSError):
            continue
        yield row


def _endpoint(text: bytes) -> str:
    host, _, port = text.partition(b":")
    return f"{_address(bytes.fromhex(host.decode('ascii')))}:{int(port, 16)}"


def _address(data: bytes) -> str:
    """Of an address as words in the order of this host's bytes."""
    count = len(data) // 4
    whole = struct.pack(f"!{count}I", *struct.unpack(f"={count}I", data))
    return socket.inet_ntop(socket.AF_INET, whole) if count == 1 else f"[{socket.inet_ntop(socket.AF_INET6, whole)}]"


def unix_sockets(data: bytes, inodes: dict[int, int]) -> Iterator[dict[str, Any]]:
    """Lines of `net/unix` whose inode is among `inodes`, those with a name: the others are pairs and their ends."""
    for line in data.splitlines()[1:]:
        parts = line.split(None, 7)
        if len(parts) < 8 or not parts[6].isdigit() or int(parts[6]) not in inodes:
            continue
        listens = parts[3] == b"00010000"
        yield {
            "fd": inodes[int(parts[6])],
            "state": "LISTEN" if listens else "UNIX",
            "local": clean(parts[7].decode(errors="replace")),
            "remote": "",
            "received": 0,
            "unsent": 0,
        }


def locks(target: Process) -> list[str]:
    """Its locks on files, and those that it waits for (`->`), as `/proc/locks` tells them."""
    data = procfs.read_file(f"{procfs.PROC}/locks", SOCKETS_SIZE_MAX)
    pattern = re.compile(rf"\b(?:READ|WRITE|RW) +{target.pid} ")
    return [clean(line) for line in _lines(data) if pattern.search(line)][:LOCKS_MAX]


# ---- its host --------------------------------------------------------------------------------------------


def host(_: Process) -> dict[str, Any]:
    """Load, pressure and memory of the host."""
    memory = fields(procfs.read_file(f"{procfs.PROC}/meminfo"))
    told: dict[str, Any] = {
        "load": clean(procfs.read_file(f"{procfs.PROC}/loadavg").decode(errors="replace")),
        "processors": os.cpu_count(),
        "memory": {name: memory[name] for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Dirty")},
    }
    for name in ("cpu", "memory", "io"):
        try:
            told[f"{name}_pressure"] = procfs.pressure(procfs.read_file(f"{procfs.PROC}/pressure/{name}"))
        except ProcError:
            continue
    return told


#: What is told, in order: what explains most and cannot hang comes first.
SECTIONS: tuple[Section, ...] = (
    ("process", process),
    ("group", group),
    ("limits", limits),
    ("sockets", sockets),
    ("files", files),
    ("locks", locks),
    ("host", host),
    ("io", io),
    ("kernel_stacks", kernel_stacks),
    ("arguments", arguments),
    ("runtime", runtime),
)
