"""One examination of one process: look, wait a second, look again, and say what it is doing.

Between the two looks there is time for whoever collects evidence by reads that stop nobody (`between`), and after the
verdict for those that do (`last`). A look is a sandwich: the state of every thread, then the words of the locks they
wait in, then once more the state of those that seem locked out. It reads nothing else on the way, so that little time
passes between the slices; counters and names of places come after it.

Every read here may hang for good, so the caller is a process that can be left behind: one of the prober's hands, or
the child of `apart.run`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from hbagent.core.diagnosis import (
    Look,
    Surroundings,
    ThreadLook,
    Verdict,
    classify,
    movements,
    unknown,
)
from hbagent.core.proof import (
    APART_NS,
    Edge,
    Proof,
    Sighting,
    Snapshot,
    cycles_of,
    edges_of,
    futex_of,
    is_across,
    sighting,
    suspects_of,
)
from hbagent.core.states import Stall

from . import groups, procfs, symbols
from .words import Places, Words

#: Threads that are looked at: 2,000 take 130 ms a look, and a longer one is torn by whoever moves meanwhile.
THREADS_MAX: Final = 4096
#: Threads that are told of, those in trouble first: 64 are 10 kB of JSON.
ROWS_MAX: Final = 64
#: Locks whose names are looked up.
NAMES_MAX: Final = 16
#: Lines about connections that wait to be accepted.
QUEUES_MAX: Final = 4

#: Files of the GNU C library, under the names of releases before and after 2.34.
_LIBC = re.compile(r"(?:libc\.so\.6|libpthread\.so\.0|(?:libc|libpthread)-2\.([0-9]+)\.so)\Z")
#: The end of glibc's function `syscall` on x86-64, up to where a thread goes on. Whoever waits there has a lock of his
#: own making, with words of their own meaning: std::atomic of C++, the mutexes of Rust and abseil.
_BY_HAND: Final = bytes.fromhex("4d89c84c8b4c24080f05")
_MUSL = re.compile(r"(?:ld-musl-|libc\.musl-)")
#: Since this release of glibc 2 a rwlock is laid out as `core.proof` knows it.
_RWLOCK_RELEASE: Final = 25
#: What a 64-bit process has above, its stack at least, and a 32-bit one nothing.
_FOUR_GIB: Final = 1 << 32


class LookRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What one look cost and found."""

    duration_ns: int
    #: Part of it from the first state that was read to the last: the sandwich.
    proof_ns: int
    threads: int
    cycles: int
    raced: int


class ThreadRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One thread, and what it did between the looks."""

    tid: int
    name: str
    state: str
    wchan: str = ""
    #: The whole line of `syscall`.
    call: str = ""
    #: The kernel has not switched to it or from it between the looks.
    still: bool = False
    switches: int = 0
    ran_ns: int = 0
    #: Ready to run, without a processor.
    delayed_ns: int = 0
    #: What it waits for, where that has an owner: kind, address, thread id.
    lock: str = ""
    address: str = ""
    owner: int = 0


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that an examination found."""

    pid: int
    verdict: Stall
    #: One sentence.
    text: str
    details: tuple[str, ...] = ()
    proof: Proof | None = None
    #: Why no deadlock could be proved in any case; "" when one could have been.
    no_proof: str = ""
    name: str = ""
    #: In clock ticks since the host began.
    start: int = 0
    #: A probe, a mark or the caller said that nothing moves.
    stuck: bool = False
    threads_total: int = 0
    threads: tuple[ThreadRow, ...] = ()
    looks: tuple[LookRow, ...] = ()
    #: What its control groups say: path, frozen, throttled_ns, pressure.
    group: dict[str, Any] = {}
    #: Listening sockets with connections that nobody has accepted.
    queues: tuple[str, ...] = ()


class Subject:
    """The process under examination, and what does not change about it. Raises `procfs.ProcError`."""

    def __init__(self, pid: int, start: int = 0, proc: str = procfs.PROC) -> None:
        self.pid = pid
        self.process = procfs.Process(pid, proc)
        try:
            stat = procfs.stat(self.process.read("stat"))
            if start and stat.start != start:
                raise procfs.Gone("it has ended, and its id was given to another process")
            self.name, self.start = stat.name, stat.start
            self.mounts = _mounts(self.process, proc)
            self.places = Places(self.mounts)
            self.groups = groups.Groups(self.process, self.mounts)
        except BaseException:
            self.process.close()
            raise

    def close(self) -> None:
        """Let go of the process. Harmless when repeated."""
        self.process.close()

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def examine(
    pid: int,
    *,
    stuck: bool = False,
    start: int = 0,
    between: Callable[[Subject, Look], None] | None = None,
    last: Callable[[Subject, Findings], None] | None = None,
    apart_ns: int = APART_NS,
) -> Findings:
    """Examine a process; takes `apart_ns` and some milliseconds. Never raises for what the process or host does.

    `stuck`: a probe or mark says that nothing moves. `start`: field 22 of its `stat`, so that nobody else is looked
    at. `between` is called after the first look, and has `apart_ns` for reads that do not stop the process; `last`
    after the verdict, for reads that do. What these raise is theirs, and passes through.
    """
    try:
        subject = Subject(pid, start)
    except procfs.ProcError as error:
        return Findings(pid=pid, verdict=Stall.UNKNOWN, text=_absence(pid, error), stuck=stuck)
    with subject:
        findings = _examined(subject, stuck, between, apart_ns)
        if last is not None:
            last(subject, findings)
    return findings


def _absence(pid: int, error: procfs.ProcError) -> str:
    if isinstance(error, procfs.Gone) and not str(error).startswith("it has"):
        if not os.path.isdir(f"{procfs.PROC}/1"):
            return f"process {pid} is not visible; this host hides processes of other users"
        return f"there is no process {pid}"
    return f"process {pid} cannot be looked at: {error}"


def _examined(
    subject: Subject, stuck: bool, between: Callable[[Subject, Look], None] | None, apart_ns: int
) -> Findings:
    rows: list[LookRow] = []
    try:
        first = look(subject, rows)
        if between is not None:
            between(subject, first)
        _wait_until(first.sighting.ended_ns + apart_ns)
        second = look(subject, rows)
    except procfs.ProcError as error:
        text = "it ended while it was looked at" if isinstance(error, procfs.Gone) else f"it cannot be read: {error}"
        return _findings(subject, stuck, unknown(text), rows)
    around = _surroundings(subject, first, second)
    return _findings(subject, stuck, classify(first, second, stuck, around), rows, first, second, around.queues)


def _wait_until(instant_ns: int) -> None:
    while (left_ns := instant_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)


def _mounts(process: procfs.Process, proc: str) -> list[procfs.Mount]:
    """Mounts that we see, and those that the process sees: what it maps may lie on either."""
    found = procfs.mountinfo(procfs.read_file(f"{proc}/self/mountinfo", procfs.MOUNTINFO_SIZE_MAX))
    try:
        known = {mount.device for mount in found}
        theirs = procfs.mountinfo(process.read("mountinfo", procfs.MOUNTINFO_SIZE_MAX))
        # Their paths mean nothing here, their devices do.
        found += [msgspec.structs.replace(mount, point="") for mount in theirs if mount.device not in known]
    except procfs.ProcError:
        pass
    return found


# ---- one look ------------------------------------------------------------------------------------------------


def look(subject: Subject, rows: list[LookRow] | None = None) -> Look:
    """Look at a process once. Raises `procfs.ProcError` when it is gone or nothing of it can be read."""
    process = subject.process
    begun_ns = time.monotonic_ns()
    tids = process.tids()
    taken, denied = _snapshots(process, tids[:THREADS_MAX])
    edges, no_proof = _edges(subject, taken)
    again, _ = _snapshots(process, suspects_of(taken, edges))
    ended_ns = time.monotonic_ns()
    found = sighting(taken, again, edges, begun_ns, ended_ns, whole=len(tids) <= THREADS_MAX)
    threads = tuple(_with_counters(process, snapshot) for snapshot in taken.values())
    if not threads:
        raise procfs.Gone("it has no threads any more")
    group = subject.groups
    result = Look(
        sighting=found,
        threads=threads,
        threads_total=len(tids),
        frozen=group.frozen(),
        throttled_ns=group.throttled_ns(),
        denied=denied,
        no_proof=no_proof or denied,
    )
    if rows is not None:
        rows.append(
            LookRow(
                duration_ns=time.monotonic_ns() - begun_ns,
                proof_ns=ended_ns - begun_ns,
                threads=len(threads),
                cycles=len(found.cycles),
                raced=found.raced,
            )
        )
    return result


def _snapshots(process: procfs.Process, tids: Sequence[int]) -> tuple[dict[int, Snapshot], str]:
    """The states of threads, without those that ended, and why some system call could not be seen ("": all were)."""
    found: dict[int, Snapshot] = {}
    denied = ""
    for tid in tids:
        try:
            status = procfs.status(process.read_thread(tid, "status"))
        except procfs.Gone:
            continue
        call = ""
        if not denied:
            try:
                call = procfs.syscall(process.read_thread(tid, "syscall"))
            except procfs.Gone:
                # Also a kernel that was built without this file.
                call = ""
            except procfs.Denied:
                denied = "reading it needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
            except procfs.ProcError as error:
                denied = str(error)
        found[tid] = Snapshot(tid, status.inner, status.name, status.state, status.switches, call)
    return found, denied


def _with_counters(process: procfs.Process, snapshot: Snapshot) -> ThreadLook:
    ran_ns = delayed_ns = None
    wchan = ""
    try:
        ran_ns, delayed_ns = procfs.schedstat(process.read_thread(snapshot.tid, "schedstat"))
    except procfs.ProcError:
        ran_ns = delayed_ns = None
    if snapshot.state != "R":
        try:
            wchan = procfs.wchan(process.read_thread(snapshot.tid, "wchan"))
        except procfs.ProcError:
            wchan = ""
    return ThreadLook(snapshot, ran_ns, delayed_ns, wchan)


def _edges(subject: Subject, taken: Mapping[int, Snapshot]) -> tuple[dict[int, Edge], str]:
    """The edges among the threads of a look, and why there can be none ("": there can)."""
    machine = os.uname().machine
    if machine != "x86_64":
        return {}, f"no proof on {machine}: lock owners are read on x86-64 with glibc only"
    if not any(futex_of(snapshot.call) for snapshot in taken.values()):
        return {}, ""
    try:
        mappings = procfs.maps(subject.process.read("maps", procfs.MAPS_SIZE_MAX))
        no_proof, code, release = _library(mappings)
        if no_proof:
            return {}, no_proof
        with Words(subject.process, mappings, subject.places) as words:

            def in_libc(pc: int) -> bool:
                return any(start <= pc < end for start, end in code) and not _is_by_hand(words, pc)

            rwlocks = release is None or release >= _RWLOCK_RELEASE
            edges = edges_of(list(taken.values()), words.read, words.is_own, in_libc, rwlocks)
            refused = [path for path in words.refused.values() if path]
            rings = any(len(cycle) > 1 for cycle in cycles_of(edges))
            across = not rings and _waits_across(taken.values(), edges, words, in_libc)
    except procfs.Gone:
        raise
    except procfs.ProcError as error:
        return {}, f"no proof: {error}"
    if refused and not edges:
        return edges, f"no proof: {os.path.basename(refused[0])} lies on a filesystem that might never answer"
    if across:
        return edges, "no proof across processes: what is waited for lies in memory that others may share"
    return edges, ""


def _waits_across(
    threads: Iterable[Snapshot], edges: Mapping[int, Edge], words: Words, in_libc: Callable[[int], bool]
) -> bool:
    """True when a thread waits, without an edge, for what another process may hold."""
    for thread in threads:
        futex = futex_of(thread.call) if thread.state == "S" and thread.tid not in edges else None
        if futex is not None and not futex.timed and in_libc(futex.pc) and is_across(futex, words.read, words.is_own):
            return True
    return False


def _is_by_hand(words: Words, pc: int) -> bool:
    """True for a place in glibc that is no lock of glibc; also for one that cannot be read."""
    before = words.read(pc - len(_BY_HAND), len(_BY_HAND))
    return len(before) < len(_BY_HAND) or before == _BY_HAND


def _library(mappings: Sequence[procfs.Mapping]) -> tuple[str, list[tuple[int, int]], int | None]:
    """Why the locks of a process cannot be read, or where the code of its glibc lies, and which release it is."""
    if mappings and all(mapping.end <= _FOUR_GIB for mapping in mappings):
        return "no proof for a 32-bit process", [], None
    code = []
    release = None
    for mapping in mappings:
        name = os.path.basename(mapping.path.removesuffix(" (deleted)"))
        if _MUSL.match(name):
            return "no proof with musl: its locks do not name their owner", [], None
        known = _LIBC.match(name)
        if known and "x" in mapping.permissions:
            code.append((mapping.start, mapping.end))
            release = int(known[1]) if known[1] else release
    if not code:
        return "no proof without glibc as a shared library", [], None
    return "", code, release


# ---- around the looks ----------------------------------------------------------------------------------------


def _surroundings(subject: Subject, first: Look, second: Look) -> Surroundings:
    return Surroundings(
        processors=_processors(subject),
        arch=_arch(subject),
        symbols=_symbols(subject, second.sighting),
        queues=_queues(subject),
    )


def _processors(subject: Subject) -> int:
    try:
        return len(os.sched_getaffinity(subject.pid))
    except OSError:
        return os.cpu_count() or 1


def _arch(subject: Subject) -> str:
    machine = os.uname().machine
    if machine != "x86_64":
        return machine
    try:
        mappings = procfs.maps(subject.process.read("maps", procfs.MAPS_SIZE_MAX))
    except procfs.ProcError:
        return machine
    return "i386" if mappings and all(mapping.end <= _FOUR_GIB for mapping in mappings) else machine


def _symbols(subject: Subject, seen: Sighting) -> dict[int, str]:
    edges = [edge for cycle in seen.cycles for edge in cycle] or list(seen.edges.values())
    addresses = [edge.address for edge in edges if edge.kind != "join"][:NAMES_MAX]
    if not addresses:
        return {}
    try:
        mappings = procfs.maps(subject.process.read("maps", procfs.MAPS_SIZE_MAX))
    except procfs.ProcError:
        return {}
    return symbols.names_of(addresses, mappings, subject.places)


def _queues(subject: Subject) -> tuple[str, ...]:
    """Listening TCP sockets of the process on which connections wait."""
    try:
        mine = subject.process.sockets()
        if not mine:
            return ()
        found = []
        for name in ("net/tcp", "net/tcp6"):
            for listener in procfs.listeners(subject.process.read(name, procfs.SOCKETS_SIZE_MAX)):
                if listener.inode in mine and listener.waiting:
                    where = f"{listener.address}:{listener.port}"
                    found.append(f"connections that wait to be accepted on {where}: {listener.waiting}")
    except procfs.ProcError:
        return ()
    return tuple(found[:QUEUES_MAX])


def _findings(
    subject: Subject,
    stuck: bool,
    verdict: Verdict,
    rows: Sequence[LookRow],
    first: Look | None = None,
    second: Look | None = None,
    queues: tuple[str, ...] = (),
) -> Findings:
    told = _thread_rows(first, second, verdict.proof) if first and second else []
    return Findings(
        pid=subject.pid,
        verdict=verdict.stall,
        text=verdict.text,
        details=verdict.details,
        proof=verdict.proof,
        no_proof=second.no_proof if second else "",
        name=subject.name,
        start=subject.start,
        stuck=stuck,
        threads_total=second.threads_total if second else 0,
        threads=tuple(told[:ROWS_MAX]),
        looks=tuple(rows),
        group=subject.groups.facts(),
        queues=queues,
    )


def _thread_rows(first: Look, second: Look, proof: Proof | None) -> list[ThreadRow]:
    """A row for each thread: those of the proof first, then who waits for somebody, then who ran most."""
    edges = second.sighting.edges
    ring = {link.tid: at for at, link in enumerate(proof.cycle)} if proof else {}
    found = []
    for movement in movements(first, second):
        now = movement.now
        edge = edges.get(now.tid)
        found.append(
            ThreadRow(
                tid=now.tid,
                name=now.name,
                state=now.state,
                wchan=movement.wchan,
                call=now.call,
                still=movement.still,
                switches=movement.switches,
                ran_ns=movement.ran_ns,
                delayed_ns=movement.delayed_ns,
                lock=edge.kind if edge else "",
                address=hex(edge.address) if edge else "",
                owner=edge.owner if edge else 0,
            )
        )
    return sorted(found, key=lambda row: (ring.get(row.tid, len(ring)), not row.lock, -row.ran_ns, row.tid))
