"""How fast a deadlock is found, what looking at it costs the process that is looked at, and whether it is ever wrong.

Three parts. A victim (`hbagent.demo.victim`) that is really deadlocked, alone and among a hundred threads, is looked at
many times. A busy server is examined in every other window, and its answers are timed in all of them: the two kinds of
window see the same machine. Programs that race for locks and are never deadlocked (`racing.c`) are looked at as often
as there is time for; gcc makes them, and where it is missing those figures are left out and standard error says so.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hbagent.core.proof import Edge, Sighting, agreed
from hbagent.core.units import MILLISECOND
from hbagent.diagnosis import bundle, procfs
from hbagent.diagnosis.examination import investigate
from hbagent.diagnosis.examine import Subject, look
from hbagent.diagnosis.helper import Request

from .shop import ANSWER_SIZE, REQUEST, WORKERS

LOOKS = 200
BUNDLES = 10
#: Of a window with and one without.
WINDOWS = 12
#: Each takes a second and a little.
EXAMINATIONS = 2
#: Of each program that races.
RACING_SECONDS = 10.0
READY_SECONDS = 20.0
#: Threads that only wait, so that there are a hundred with the two clerks and the main thread.
CROWD = 97
#: Kinds of `racing.c` in which a thread waits for a mutex that it holds itself, and is let go by another.
GUARDED = ("semaphore", "rare-semaphore", "gate-beside-work", "gate-beside-pipe")
#: And those with locks that several processes have; only root can arrange them.
SHARED = ("shared-mutex", "two-containers")
RACING = ("crossing", "backing-off", "condition", "parked", "handing-on", "writers", "joining", *GUARDED, *SHARED)


def measure(
    looks: int = LOOKS,
    windows: int = WINDOWS,
    racing_seconds: float = RACING_SECONDS,
) -> dict[str, float]:
    """All figures of `hbagent bench diagnose`. Raises RuntimeError when a program does not come up."""
    figures: dict[str, float] = {}
    for threads, idle in ((2, 0), (100, CROWD)):
        with deadlocked(idle) as pid:
            figures |= _looks_at(pid, looks, f"cycle_{threads}_threads")
            if idle:
                figures |= _bundles_of(pid)
    figures |= _server(windows)
    return {name: round(value, 4) for name, value in {**figures, **_racing(racing_seconds)}.items()}


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program, from the line in which it says READY until the end of the block."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str], word: str) -> str:
    """The rest of the next line, which begins with `word`. Raises RuntimeError when there is none in time."""
    assert process.stdout is not None
    line = process.stdout.readline() if select.select([process.stdout], [], [], READY_SECONDS)[0] else ""
    if not line.startswith(word):
        raise RuntimeError(f"{process.args!r} says {line!r} instead of {word}")
    return line[len(word) :].strip()


# ---- how fast a cycle is found -----------------------------------------------------------------------------


@contextlib.contextmanager
def deadlocked(idle: int) -> Iterator[int]:
    """Process id of a victim that is deadlocked, with `idle` further threads."""
    with _running([sys.executable, "-m", "hbagent.demo.victim", "--idle", str(idle)]) as process:
        _line(process, "READY")
        process.send_signal(signal.SIGUSR1)
        _line(process, "DEADLOCK")
        until = time.monotonic() + READY_SECONDS
        with Subject(process.pid) as subject:
            while not look(subject).sighting.cycles:
                if time.monotonic() > until:
                    raise RuntimeError("the victim does not deadlock")
        yield process.pid


def _looks_at(pid: int, looks: int, name: str) -> dict[str, float]:
    """Milliseconds of one look, with finding the process; and how often the cycle was not seen."""
    times, missed = [], 0
    for _ in range(looks):
        begun = time.perf_counter()
        with Subject(pid) as subject:
            seen = look(subject)
        times.append((time.perf_counter() - begun) * 1e3)
        missed += len(seen.sighting.cycles) != 1
    return {f"{name}_ms": statistics.median(times), f"{name}_p99_ms": _p99(times), f"{name}_missed": missed}


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


class Evidence(NamedTuple):
    """What an examination with its bundle came to, done as the prober has it done."""

    size: int
    #: All the work, without the wait between the looks.
    took_ns: int
    #: For how long the process was stopped.
    pause_ns: int


def evidence(pid: int) -> Evidence:
    """Examine a process of which a probe says that nothing moves. Call it in a process with one thread."""
    document = investigate(Request(pid=pid, stuck=True, app="bench"))
    return Evidence(len(bundle.fit(document)), document["took_ns"], document["pause_ns"])


def _bundles_of(pid: int) -> dict[str, float]:
    collected = [evidence(pid) for _ in range(BUNDLES)]
    return {
        "bundle_ms": statistics.median(each.took_ns for each in collected) / MILLISECOND,
        "bundle_max_ms": max(each.took_ns for each in collected) / MILLISECOND,
        "bundle_bytes": max(each.size for each in collected),
    }


# ---- what it costs the process that is looked at -----------------------------------------------------------


class Examiner:
    """A process of its own that examines when it is told to."""

    def __init__(self, pid: int) -> None:
        self._ours, theirs = socket.socketpair()
        self._child = os.fork()
        if self._child == 0:
            self._ours.close()
            try:
                while theirs.recv(1):
                    pause_ns = max(evidence(pid).pause_ns for _ in range(EXAMINATIONS))
                    theirs.sendall(pause_ns.to_bytes(8, "big"))
            finally:
                os._exit(0)
        theirs.close()

    def begin(self) -> None:
        """Examine `EXAMINATIONS` times; `is_done` says when that is over."""
        self._ours.sendall(b".")

    def is_done(self) -> bool:
        """True once after each `begin`, when there is an answer."""
        return bool(select.select([self._ours], [], [], 0)[0])

    def pause_ns(self) -> int:
        """For how long the process was stopped, at most. Raises RuntimeError when the examiner has ended."""
        answer = self._ours.recv(8)
        if len(answer) != 8:
            raise RuntimeError("the examiner has ended")
        return int.from_bytes(answer, "big")

    def close(self) -> None:
        """End it."""
        self._ours.close()
        os.waitpid(self._child, 0)


class Customers:
    """As many connections as the server has threads; each asks as soon as it has its answer."""

    def __init__(self, port: int) -> None:
        self._connections = {}
        self._poll = select.epoll()
        for _ in range(WORKERS):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)

    def ask(self, enough: Callable[[], bool]) -> list[float]:
        """Milliseconds of each answer, until it is enough and the last has come."""
        times: list[float] = []
        asked = {number: self._ask(connection) for number, connection in self._connections.items()}
        while asked:
            for number, _ in self._poll.poll():
                if len(self._connections[number].recv(ANSWER_SIZE)) < ANSWER_SIZE:
                    raise RuntimeError("the server has ended")
                times.append((time.perf_counter() - asked.pop(number)) * 1e3)
                if not enough():
                    asked[number] = self._ask(self._connections[number])
        return times

    def _ask(self, connection: socket.socket) -> float:
        connection.sendall(REQUEST)
        return time.perf_counter()

    def close(self) -> None:
        """Leave."""
        for connection in self._connections.values():
            connection.close()
        self._poll.close()


def _server(windows: int) -> dict[str, float]:
    with _running([sys.executable, "-m", "hbagent.bench.shop"]) as process:
        port = int(_line(process, "READY"))
        examiner = Examiner(process.pid)
        customers = Customers(port)
        try:
            pairs, counts, pause_ns = [], 0, 0
            for _ in range(windows):
                begun = time.monotonic()
                examiner.begin()
                examined = customers.ask(examiner.is_done)
                pause_ns = max(pause_ns, examiner.pause_ns())
                seconds = time.monotonic() - begun
                until = time.monotonic() + seconds
                alone = customers.ask(lambda until=until: time.monotonic() >= until)  # type: ignore[misc]
                pairs.append((_p99(alone), _p99(examined)))
                counts += len(alone) + len(examined)
        finally:
            customers.close()
            examiner.close()
    return {
        "server_p99_ms": statistics.median(alone for alone, _ in pairs),
        "server_p99_examined_ms": statistics.median(examined for _, examined in pairs),
        "server_p99_ratio": statistics.median(examined / alone for alone, examined in pairs),
        "server_pause_ms": pause_ns / MILLISECOND,
        "server_answers": counts,
    }


# ---- whether it is ever wrong ------------------------------------------------------------------------------


def _racing(seconds: float) -> dict[str, float]:
    if shutil.which("gcc") is None:
        print("racing programs: left out, for gcc is not here", file=sys.stderr)
        return {}
    totals = {"false_deadlocked": 0, "racing_looks": 0, "racing_crossed": 0, "racing_torn": 0}
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "racing")
        source = Path(__file__).with_name("racing.c")
        subprocess.run(["gcc", "-O1", "-pthread", "-o", program, source], check=True)
        kinds = RACING if os.geteuid() == 0 else [kind for kind in RACING if kind not in SHARED]
        for kind in kinds:
            with _running([str(program), kind]) as process:
                named = _line(process, "READY")
                for name, value in _raced(int(named or process.pid), seconds).items():
                    totals[name] += value
    return dict(totals)


def _raced(pid: int, seconds: float) -> dict[str, int]:
    """Looks at a healthy program for so long, as if a probe said that nothing moves: how many; in how many some threads
    seemed to wait for one another, with none of them moving; how often they did, but one moved; and how often two looks
    proved it."""
    first_seen: dict[Any, Sighting] = {}
    looks = crossed = torn = proved = 0
    until = time.monotonic() + seconds
    with Subject(pid) as subject:
        while time.monotonic() < until:
            try:
                seen = look(subject).sighting
            except procfs.Gone:
                raise RuntimeError("a racing program has ended") from None
            looks += 1
            torn += seen.raced
            crossed += any(len(cycle) > 1 for cycle in seen.cycles)
            if seen.cycles:
                # Only looks that saw the same, with the same counters, can agree.
                earlier = first_seen.setdefault(_key(seen), seen)
                proved += bool(agreed(earlier, seen, stuck=True))
    return {"racing_looks": looks, "racing_torn": torn, "racing_crossed": crossed, "false_deadlocked": proved}


def _key(seen: Sighting) -> tuple[tuple[tuple[Edge, ...], ...], tuple[tuple[int, tuple[int, int]], ...]]:
    return seen.cycles, tuple(seen.switches.items())
