"""Programs that are stuck, look stuck or are well, and what is to be said of each.

Every kind is made on purpose, so what is right of it is known. Sources lie beside this file, the healthy ones that
race in `hbagent/bench/racing.c`; gcc builds them once for a test run.

`stuck` is what is right when a probe or a mark says that nothing moves; where nobody could say that, for it moves, it
is empty. Waiting for a condition is IDLE and burning CPU is RUNNING as long as nobody says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from hbagent.core.states import Stall
from hbagent.demo.datacenter import wait_until

SOURCES = Path(__file__).parent
RACING = SOURCES.parents[2] / "hbagent" / "bench" / "racing.c"
READY_SECONDS = 20.0
#: A disk thaws, an image is made, a group is left.
END_SECONDS = 20.0
#: What the sources make, apart from the interpreter's.
PROGRAMS = ("stuck", "server", "racing")
_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child")
#: Of a period of 100 ms.
QUOTA_MS = 20

D, LW, BUSY, STARVED = Stall.DEADLOCKED, Stall.LOCK_WAIT, Stall.BUSY_LOOP, Stall.STARVED
IO, PAUSED, IDLE, SLOW, RUNNING = Stall.IO_BLOCKED, Stall.PAUSED, Stall.IDLE, Stall.SLOW, Stall.RUNNING

_FREEZERS = {
    "freezer": (Path("/sys/fs/cgroup/freezer"), "freezer.state", "FROZEN", "THAWED"),
    "freezer-v2": (Path("/sys/fs/cgroup/unified"), "cgroup.freeze", "1", "0"),
    "freezer-v2-only": (Path("/sys/fs/cgroup"), "cgroup.freeze", "1", "0"),
}
_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", f"{QUOTA_MS}000"),
    (Path("/sys/fs/cgroup"), "cpu.max", f"{QUOTA_MS}000 100000"),
)

#: What is done to a program once it is ready, and undone at its end.
Hurt = Callable[[int], contextlib.AbstractContextManager[object]]


class Kind(NamedTuple):
    """One program, and what is right to say of it."""

    name: str
    argv: tuple[str, ...]
    #: Right while nobody says that nothing moves.
    plain: tuple[Stall, ...]
    #: Right when a probe or mark says so; empty: nobody would.
    stuck: tuple[Stall, ...] = ()
    #: Threads that lock one another out; they are called ring-0, ring-1, ...
    ring: int = 0
    #: It burns CPU, so few of them run at a time.
    heavy: bool = False
    #: It is healthy and tells how far it has come, but may stand still for two looks.
    seldom: bool = False
    #: True once what is to be seen can be seen.
    settled: Callable[[int], bool] = lambda pid: True
    hurt: Hurt = lambda pid: contextlib.nullcontext()
    #: Only root can arrange it.
    root: bool = False


class Victim(NamedTuple):
    """One that runs."""

    kind: Kind
    pid: int
    process: subprocess.Popen[bytes]

    def ring(self) -> frozenset[int]:
        """The threads that lock one another out, by what the program itself called them."""
        return frozenset(int(task.name) for task in _tasks(self.pid) if _name(task).startswith("ring-"))

    def standstill(self) -> bool:
        """True when a program that tells how far it has come has not come further in what it told so far."""
        assert self.process.stdout is not None
        if self.kind.seldom:
            return False
        os.set_blocking(self.process.stdout.fileno(), False)
        told = [int(count) for count in re.findall(rb"(?:MOVED|SERVED) (\d+)", self.process.stdout.read() or b"")]
        return len(told) > 1 and told[0] == told[-1]


# ---- what can be seen of a program -------------------------------------------------------------------------


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _name(task: Path) -> str:
    """ "" of a thread that has ended."""
    try:
        return (task / "comm").read_text()
    except OSError:
        return ""


def state(pid: int) -> str:
    """One letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _ring_waits(pid: int) -> bool:
    """All threads of the ring are asleep in a futex call that has no time limit (x86-64)."""
    ring = [task for task in _tasks(pid) if _name(task).startswith("ring-")]
    calls = [(task / "syscall").read_text().split() for task in ring]
    return bool(calls) and all(len(call) == 9 and call[0] == "202" and call[4] == "0x0" for call in calls)


def _all_wait(pid: int) -> bool:
    """All threads are asleep in a futex call (x86-64)."""
    calls = [(task / "syscall").read_text().split() for task in _tasks(pid)]
    return all(call[0] == "202" for call in calls)


def _is(letters: str) -> Callable[[int], bool]:
    return lambda pid: state(pid) in letters


def _waits_in(words: str) -> Callable[[int], bool]:
    """A regular expression for the place in the kernel where the main thread waits."""
    return lambda pid: re.search(words, Path(f"/proc/{pid}/wchan").read_text()) is not None


# ---- what is done to a program -----------------------------------------------------------------------------


@contextlib.contextmanager
def _group(parent: Path, pid: int) -> Iterator[Path]:
    """A control group with one process."""
    directory = parent / f"hbagent-{os.getpid()}-{pid}"
    directory.mkdir()
    try:
        (directory / "cgroup.procs").write_text(str(pid))
        yield directory
    finally:
        with contextlib.suppress(OSError):
            (parent / "cgroup.procs").write_text(str(pid))
        assert wait_until(lambda: _removed(directory), END_SECONDS), f"{directory} is left"


def _removed(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


def _freezer(name: str) -> Hurt:
    parent, file, on, off = _FREEZERS[name]

    @contextlib.contextmanager
    def freeze(pid: int) -> Iterator[None]:
        with _group(parent, pid) as directory:
            (directory / file).write_text(on)
            try:
                yield
            finally:
                (directory / file).write_text(off)

    return freeze


@contextlib.contextmanager
def _quota(pid: int) -> Iterator[None]:
    parent, file, value = next(quota for quota in _QUOTAS if _usable(*quota[:2]))
    with _group(parent, pid) as directory:
        (directory / file).write_text(value)
        # Whoever is throttled for the first time has had a whole share before.
        time.sleep(0.3)
        yield


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: state(pid) == "T", END_SECONDS)
    yield
    os.kill(pid, signal.SIGCONT)


def _usable(parent: Path, file: str) -> bool:
    directory = parent / f"hbagent-{os.getpid()}-look"
    try:
        directory.mkdir()
    except OSError:
        return False
    try:
        return (directory / file).exists()
    finally:
        directory.rmdir()


# ---- the kinds ---------------------------------------------------------------------------------------------


def _ring(name: str, size: int, plain: tuple[Stall, ...] = (D,), heavy: bool = False) -> Kind:
    return Kind(name, ("stuck", name), plain, (D,), ring=size, heavy=heavy, settled=_ring_waits)


def _python(name: str, plain: tuple[Stall, ...], stuck: tuple[Stall, ...] = (), heavy: bool = False) -> Kind:
    return Kind(f"python-{name}", (sys.executable, str(SOURCES / "interpreter.py"), name), plain, stuck, heavy=heavy)


def _disk(name: str, settled: Callable[[int], bool], plain: tuple[Stall, ...], stuck: tuple[Stall, ...]) -> Kind:
    argv = (sys.executable, str(SOURCES / "disk.py"), name)
    return Kind(f"disk-{name}", argv, plain, stuck, settled=settled, root=True)


def _racing(
    name: str,
    *plain: Stall,
    stuck: tuple[Stall, ...] = (),
    heavy: bool = False,
    seldom: bool = False,
    root: bool = False,
) -> Kind:
    return Kind(name, ("racing", name), plain, stuck, heavy=heavy, seldom=seldom, root=root)


#: Locked out for good: the proof must be there, and name the threads.
DEADLOCKS = (
    _ring("two", 2),
    _ring("three", 3),
    _ring("robust", 2),
    _ring("pi", 2),
    _ring("recursive", 2),
    _ring("rwlock", 2),
    _ring("mixed", 2),
    _ring("join", 2),
    _ring("among", 2),
    _ring("beside-work", 2, heavy=True),
    # In a container the words of the locks hold the ids that threads have inside.
    Kind("contained", (*_CONTAINER, "stuck", "two"), (D,), (D,), ring=2, settled=_ring_waits, root=True),
    # A thread that waits for itself is no proof by itself: somebody else may be about to let it go, if there is one.
    Kind("self", ("stuck", "self"), (IDLE,), (D,), ring=1, settled=_all_wait),
    Kind("self-alone", ("stuck", "self-alone"), (IDLE,), (D,), ring=1, settled=_all_wait),
)
#: Stuck without an owner that could be read.
WAITS = (
    Kind("crossed-pi", ("stuck", "crossed-pi"), (IDLE,), (LW,), settled=_ring_waits),
    Kind("read-held", ("stuck", "read-held"), (IDLE,), (LW,), settled=_ring_waits),
    Kind("no-signal", ("stuck", "no-signal"), (IDLE,), (LW,)),
    Kind("forked", ("stuck", "forked"), (IDLE,), (LW,), settled=_waits_in("futex")),
    # The main thread could unlock it.
    Kind("self-watched", ("stuck", "self-watched"), (IDLE,), (LW,), settled=_ring_waits),
    Kind("lost-wakeup", ("stuck", "lost-wakeup"), (IDLE,), (LW,)),
    _python("locks", (IDLE,), (LW,)),
    # Those who want the interpreter's lock ask again every 5 ms, which looks like little work.
    _python("sleeping-c", (IDLE, RUNNING), (LW,)),
)
#: Stuck, or held back, in another way.
OTHERS = (
    Kind("spin", ("stuck", "spin"), (RUNNING,), (BUSY,), heavy=True),
    Kind("spin-two", ("stuck", "spin-two"), (RUNNING,), (BUSY,), heavy=True),
    _python("regex", (RUNNING,), (BUSY,), heavy=True),
    Kind("quota", ("stuck", "spin"), (STARVED,), (STARVED,), heavy=True, hurt=_quota, root=True),
    Kind("stopped", ("stuck", "two"), (PAUSED,), (PAUSED,), hurt=_stopped),
    Kind("stopped-spin", ("stuck", "spin"), (PAUSED,), (PAUSED,), hurt=_stopped),
    _disk("dead-file", _waits_in("request_wait_answer|fuse|folio"), (IO,), (IO,)),
    # Whether the word still has its value cannot be read, so this is a wait of which nobody knows for what.
    _disk("dead-word", lambda pid: True, (IDLE,), (LW,)),
    _disk("frozen", _is("D"), (IO,), (IO,)),
)
#: Well, and able to fool whoever looks carelessly. What is stuck for a look may be IDLE for it.
HEALTHY = (
    _racing("crossing", RUNNING, heavy=True),
    _racing("writers", RUNNING, heavy=True),
    _racing("handing-on", RUNNING, heavy=True),
    _racing("joining", RUNNING, heavy=True),
    _racing("backing-off", RUNNING, IDLE),
    _racing("condition", RUNNING, IDLE),
    # Nobody would call them stuck; but if somebody did, they must still not be DEADLOCKED.
    _racing("parked", IDLE, stuck=(LW,), seldom=True),
    _racing("semaphore", RUNNING, IDLE, stuck=(LW, SLOW)),
    _racing("rare-semaphore", IDLE, stuck=(LW,), seldom=True),
    _racing("gate-beside-work", RUNNING, stuck=(BUSY,), heavy=True),
    _racing("gate-beside-pipe", IDLE, stuck=(LW,), seldom=True),
    _racing("shared-mutex", IDLE, stuck=(LW,), seldom=True, root=True),
    _racing("two-containers", IDLE, stuck=(LW,), seldom=True, root=True),
    Kind("idle-server", ("server", "idle"), (IDLE,), (IDLE,)),
    _python("idle", (IDLE,), (IDLE,)),
    Kind("busy-server", ("server", "busy"), (RUNNING,), heavy=True),
)


def kinds() -> tuple[Kind, ...]:
    """All that this machine can have."""
    frozen = tuple(
        Kind(name, ("stuck", "two"), (PAUSED,), (PAUSED,), hurt=_freezer(name), root=True)
        for name, (parent, file, _, _) in _FREEZERS.items()
        if os.geteuid() != 0 or _usable(parent, file)
    )
    return (*DEADLOCKS, *WAITS, *OTHERS, *frozen, *HEALTHY)


# ---- starting and ending them ------------------------------------------------------------------------------


class Ward:
    """Builds the programs into a directory, and runs them. Several threads may ask it for a victim; each of these
    must outlive the victim, which ends with the thread that started it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for source in (SOURCES / "stuck.c", SOURCES / "server.c", RACING):
            flags = ("-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
            subprocess.run(["gcc", *flags, "-o", directory / source.stem, source], check=True)

    @contextlib.contextmanager
    def victim(self, kind: Kind, number: int = 0) -> Iterator[Victim]:
        """One program that is as its kind says, until the end of the block."""
        argv = [str(self._directory / word) if word in PROGRAMS else word for word in kind.argv]
        on_disk = kind.name.startswith("disk-")
        if on_disk:
            argv.append(str(self._directory / f"{kind.name}-{number}"))
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        try:
            ready = _line(process)
            assert ready.startswith(b"READY"), f"{kind.name}: {ready!r}"
            pid = int(ready.split()[1]) if len(ready.split()) > 1 else process.pid
            if argv[0] == _CONTAINER[0]:
                pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
            assert wait_until(lambda: kind.settled(pid), READY_SECONDS), f"{kind.name} does not settle"
            with kind.hurt(pid):
                yield Victim(kind, pid, process)
        finally:
            # Its input ends. One that must clear up ends by itself; a killed one would leave a frozen disk.
            process.communicate(timeout=END_SECONDS) if on_disk else _end(process)


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    line = b""
    until = time.monotonic() + READY_SECONDS
    while not line.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            break
        byte = process.stdout.read(1)
        if not byte:
            break
        line += byte
    return line


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=END_SECONDS)
