"""How fast a death is seen, and a deadlock, and how long a pause may be before it is taken for a death.

Real processes with CURVE. Agents are killed with kill -9 on loopback, one after the other and each started again.
Hosts vanish and pause in network namespaces of their own, with everything dropped and nothing reset; where there can
be none (no root, no nftables) those figures are left out and the reason is told on standard error. The deadlocks are
those of `hbagent.demo.victim` under a node's agent: two native threads, each with the mutex that the other one wants.

All processes of a machine share its clocks. The leader's verdict carries the nanosecond at which it was made; the
hook reads the clock before anything else, so what its interpreter takes to start is part of the figure.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq

from hbagent.core.messages import AnswerPage, Query
from hbagent.core.records import Event
from hbagent.core.states import Cause, Health, Kind
from hbagent.demo.datacenter import Datacenter, Plan, wait_until
from hbagent.transport import sockets, teller
from hbagent.wire import codec
from hbagent.wire.pages import AnswerAssembly

from .hosts import Apart, missing

KILLS = 100
VANISHED = 40
PAUSES = 4
DEADLOCKS = 20
#: In seconds: the marks of an application must move within this, so nobody can know of its deadlock before.
WINDOW_SECONDS = 2.0
#: A leader may ask so much at once as about 25 vanished hosts need, and refills slowly. So that no host pays for those
#: before it, a leader sees no more than this.
BATCH = 20
NODES = 8
#: Beats a second at which hosts vanish.
RATES = (1, 5)
START_SECONDS = 60.0
#: Far beyond any verdict: what is not told by then is not told.
TOLD_SECONDS = 15.0
ANSWER_MS = 1000
#: An agent that was admitted has its echo port tried within a fifth of a second.
PROVED_SECONDS = 0.6
#: Pauses are tried from here on, in steps.
PAUSE_FIRST = 0.3
PAUSE_STEP = 0.05
#: A pause that nobody took for a death at this length is long enough for the table.
PAUSE_LAST = 3.0
#: What `date` and the shell take is in the figure; the line says when it began, and then what it was told.
_HOOK = "#!/bin/sh\nbegun=$(date +%s%N)\ntold=$(cat)\nprintf '%s %s\\n' \"$begun\" \"$told\" >>'{}'\n"


class Told(NamedTuple):
    """One run of the hook."""

    begun_ns: int
    node: str
    kind: str
    cause: str | None
    #: Applications and probes that were called DEADLOCKED.
    deadlocked: tuple[str, ...] = ()


class Watched:
    """A datacenter of one rack, and what its hook was told."""

    def __init__(self, datacenter: Datacenter) -> None:
        self.datacenter = datacenter
        self._file = datacenter.directory / "told"
        self._offset = 0
        self._context: sockets.Context = zmq.Context()
        self._asked = 0
        self.told: list[Told] = []

    def close(self) -> None:
        """Ask no more."""
        self._context.term()

    def start(self) -> None:
        """Write the files, start everything, and wait until all nodes are alive. Raises RuntimeError if not."""
        self.datacenter.write()
        (self.datacenter.directory / "etc" / "hook").write_text(_HOOK.format(self._file))
        self.datacenter.start()
        self.alive(self.datacenter.nodes_of("rack1"), START_SECONDS)

    def alive(self, names: tuple[str, ...], seconds: float = TOLD_SECONDS) -> None:
        """Wait until these are alive, for the leader and for the root, and the leader has tried how to reach them."""
        wanted = {node_of(name) for name in names}
        if not wait_until(lambda: wanted <= self._alive("rack1-leader1") & self._alive("root"), seconds):
            raise RuntimeError(f"not alive within {seconds} s: {', '.join(sorted(wanted - self._alive('root')))}")
        time.sleep(PROVED_SECONDS)

    def age_s(self, name: str) -> float:
        """Seconds since the leader heard a node."""
        return next((row["age_s"] for row in self._rows("rack1-leader1") if row["node"] == node_of(name)), 0.0) or 0.0

    def knows(self, name: str, app: str) -> bool:
        """Whether the root has an application of a node."""
        node = next((row for row in self._rows("root") if row["node"] == node_of(name)), {})
        return any(row["name"] == app for row in node.get("apps", ()))

    def wait_for(
        self, name: str, kind: Kind, since: int, seconds: float = TOLD_SECONDS, deadlocked: str = ""
    ) -> Told | None:
        """The hook's first run about a node, or an application of it, that began after `since`; None when there was
        none."""
        found: list[Told] = []

        def wanted(told: Told) -> bool:
            about = told.node == node_of(name) and told.kind == kind and told.begun_ns >= since
            return about and (not deadlocked or deadlocked in told.deadlocked)

        def look() -> bool:
            self._read()
            found[:] = filter(wanted, self.told)
            return bool(found)

        # 5 ms: often enough to go on soon, too seldom to be felt by what is measured.
        return found[0] if wait_until(look, seconds, step=0.005) else None

    def events(self) -> list[Event]:
        """The root's history. The root must have ended."""
        store = self.datacenter.directory / "state" / "root" / "history.sqlite"
        with contextlib.closing(sqlite3.connect(store)) as connection:
            rows = connection.execute("SELECT body FROM events ORDER BY sequence").fetchall()
        return [msgspec.json.decode(body, type=Event) for (body,) in rows]

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            for line in whole.splitlines():
                begun, _, text = line.partition(b" ")
                document = msgspec.json.decode(text)
                changes = (document["evidence"] or {}).get("changes", ())
                stuck = tuple(row["name"] for row in changes if row["after"] == Health.DEADLOCKED.value)
                self.told.append(Told(int(begun), document["node"], document["kind"], document["cause"], stuck))

    def _alive(self, of: str) -> set[str]:
        return {row["node"] for row in self._rows(of) if row["liveness"] == "ALIVE" and row["age_s"] is not None}

    def _rows(self, of: str) -> list[dict[str, Any]]:
        """The nodes in the answer to `status`; none when nobody answers."""
        file = self.datacenter.directory / "run" / f"{of}.sock"
        if not file.exists():
            return []
        self._asked += 1
        assembly = AnswerAssembly(self._asked)
        with contextlib.closing(sockets.query_dealer(self._context, f"ipc://{file}")) as socket:
            socket.send(codec.encode(Query(id=assembly.id, what="status")), zmq.NOBLOCK)
            while socket.poll(ANSWER_MS):
                page = codec.decode(socket.recv_multipart()[-1])
                document = assembly.add(page) if isinstance(page, AnswerPage) else None
                if document is not None:
                    return list(msgspec.json.decode(document)["nodes"])
        return []


def node_of(name: str) -> str:
    """ "demo/rack1/node1" of "rack1-node1"."""
    return f"demo/{name.replace('-', '/')}"


def measure(
    kills: int = KILLS, vanished: int = VANISHED, pauses: int = PAUSES, nodes: int = NODES, deadlocks: int = DEADLOCKS
) -> dict[str, float]:
    """All figures of `hbagent bench detect`."""
    figures = crashes(kills, nodes) | standstills(deadlocks)
    obstacle = missing()
    if obstacle:
        print(f"no vanished hosts and no pauses: {obstacle}", file=sys.stderr)
        return figures
    for rate in RATES:
        figures |= absences(rate, vanished, pauses, nodes)
    figures["vanish_p99_s"] = max(figures[f"vanish_{rate}_per_s_p99_s"] for rate in RATES)
    return figures


def crashes(kills: int, nodes: int) -> dict[str, float]:
    """kill -9 of one agent after the other, on loopback, each started again."""
    with tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory:
        datacenter = Datacenter(Path(directory), Plan(racks=1, nodes=nodes, interval="1s"))
        with datacenter, contextlib.closing(Watched(datacenter)) as watched:
            watched.start()
            killed: list[tuple[int, Told]] = []
            for name in itertools.islice(itertools.cycle(datacenter.nodes_of("rack1")), kills):
                at = time.time_ns()
                datacenter.signal(name, signal.SIGKILL)
                told = watched.wait_for(name, Kind.NODE_DEAD, at)
                datacenter.processes[name].wait()
                if told is not None:
                    killed.append((at, told))
                datacenter.start([name])
                watched.alive((name,))
            datacenter.stop()
            events = [event for event in watched.events() if event.kind is Kind.NODE_DEAD]
    at_leader = [_verdict_at(events, told.node, at) - at for at, told in killed]
    at_hook = [told.begun_ns - at for at, told in killed]
    return {
        "crash_leader_p50_ms": _milliseconds(at_leader, 0.5),
        "crash_leader_p99_ms": _milliseconds(at_leader, 0.99),
        "crash_leader_max_ms": _milliseconds(at_leader, 1.0),
        "crash_hook_p50_ms": _milliseconds(at_hook, 0.5),
        "crash_hook_p99_ms": _milliseconds(at_hook, 0.99),
        "crashes": kills,
        "crashes_told": len(killed),
        "crashes_called_process_exit": sum(told.cause == Cause.PROCESS_EXIT.value for _, told in killed),
    }


def standstills(deadlocks: int) -> dict[str, float]:
    """One application after the other that deadlocks: from there to the hook at the root, beyond its window."""
    took = []
    with tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory:
        datacenter = Datacenter(Path(directory), Plan(racks=1, nodes=2, interval="1s"))
        with datacenter, contextlib.closing(Watched(datacenter)) as watched:
            watched.start()
            for number, name in enumerate(itertools.islice(itertools.cycle(datacenter.nodes_of("rack1")), deadlocks)):
                app = f"bench-{number}"
                with _victim(watched, datacenter, name, app) as victim:
                    victim.send_signal(signal.SIGUSR1)
                    _line(victim, "DEADLOCK")
                    at = time.time_ns()
                    told = watched.wait_for(name, Kind.HEALTH_CHANGED, at, deadlocked=app)
                if told is not None:
                    took.append(told.begun_ns - at - round(WINDOW_SECONDS * 1e9))
    return {
        "deadlock_root_p50_s": _seconds(took, 0.5),
        "deadlock_root_p99_s": _seconds(took, 0.99),
        "deadlocks": deadlocks,
        "deadlocks_told": len(took),
    }


@contextlib.contextmanager
def _victim(watched: Watched, datacenter: Datacenter, name: str, app: str) -> Iterator[subprocess.Popen[str]]:
    """A program under a node's agent that can be told to deadlock, and that the root knows; forgotten at the end."""
    notify = str(datacenter.notify_socket(name))
    command = [sys.executable, "-m", "hbagent.demo.victim", "--app", app, "--window", f"{WINDOW_SECONDS:g}"]
    environment = {**os.environ, "NOTIFY_SOCKET": notify}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as victim:
        try:
            _line(victim, "READY")
            if not wait_until(lambda: watched.knows(name, app), START_SECONDS):
                raise RuntimeError(f"the root was not told of {app} within {START_SECONDS} s")
            yield victim
        finally:
            victim.kill()
    teller.send(notify, teller.lines([f"X_HBAGENT_APP={app}", "X_HBAGENT_FORGET=1"]), TOLD_SECONDS)
    wait_until(lambda: not watched.knows(name, app), TOLD_SECONDS)


def _line(victim: subprocess.Popen[str], begins: str) -> None:
    """Wait for a line of the victim. Raises RuntimeError when another one comes, or none."""
    assert victim.stdout is not None
    line = victim.stdout.readline()
    if not line.startswith(begins):
        raise RuntimeError(f"the victim said {line!r} and not {begins}")


def absences(rate: int, vanished: int, pauses: int, nodes: int) -> dict[str, float]:
    """Hosts that vanish, and hosts that only pause, at `rate` beats a second."""
    told: list[tuple[int, Told]] = []
    for done in range(0, vanished, BATCH):
        with _apart(rate, nodes) as (datacenter, watched):
            told += _vanished(watched, datacenter, min(BATCH, vanished - done), random.Random(rate + done), 1.0 / rate)
    took = [each.begun_ns - at for at, each in told]
    figures: dict[str, float] = {
        f"vanish_{rate}_per_s_p50_s": _seconds(took, 0.5),
        f"vanish_{rate}_per_s_p99_s": _seconds(took, 0.99),
        f"vanish_{rate}_per_s_runs": vanished,
        f"vanish_{rate}_per_s_called_host_gone": sum(each.cause == Cause.HOST_GONE.value for _, each in told),
    }
    if pauses:
        with _apart(rate, nodes) as (datacenter, watched):
            shortest = _shortest_misjudged(watched, datacenter, 1.0 / rate, pauses)
        if shortest is not None:
            figures[f"pause_misjudged_{rate}_per_s_s"] = shortest
    return figures


@contextlib.contextmanager
def _apart(rate: int, nodes: int) -> Iterator[tuple[Apart, Watched]]:
    """A datacenter on hosts of its own, that runs."""
    plan = Plan(racks=1, nodes=nodes, interval=f"{1000 // rate}ms")
    with (
        tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory,
        Apart(Path(directory), plan) as datacenter,
        contextlib.closing(Watched(datacenter)) as watched,
    ):
        watched.start()
        yield datacenter, watched


def _vanished(
    watched: Watched, datacenter: Apart, count: int, rng: random.Random, interval: float
) -> list[tuple[int, Told]]:
    """Let one host after the other vanish for a while; when, and what was told."""
    found = []
    for name in itertools.islice(itertools.cycle(datacenter.nodes_of("rack1")), count):
        # Nobody knows when in its interval a host vanishes.
        time.sleep(rng.uniform(0.0, interval))
        at = time.time_ns()
        with datacenter.isolated(name):
            told = watched.wait_for(name, Kind.NODE_DEAD, at)
        if told is not None:
            found.append((at, told))
        watched.wait_for(name, Kind.NODE_RECOVERED, at)
    return found


def _shortest_misjudged(watched: Watched, datacenter: Apart, interval: float, tries: int) -> float | None:
    """The shortest pause that made a node DEAD, in seconds; None when none did up to `PAUSE_LAST`.

    Each begins where it hurts most: just before a beat is due, when the last sign of life is an interval old.
    """
    names = itertools.cycle(datacenter.nodes_of("rack1"))
    length = PAUSE_FIRST
    while length <= PAUSE_LAST:
        for name in itertools.islice(names, tries):
            # A node that waits for its next beat is looked at until that is near.
            wait_until(lambda name=name: 0.85 <= watched.age_s(name) / interval <= 0.97, 5 * interval, step=0.005)  # type: ignore[misc]
            at = time.time_ns()
            with datacenter.paused(name):
                time.sleep(length)
            told = watched.wait_for(name, Kind.NODE_DEAD, at, seconds=interval + 0.5)
            watched.alive((name,))
            if told is not None:
                return round(length, 3)
        length += PAUSE_STEP
    return None


def _verdict_at(events: list[Event], node: str, at: int) -> int:
    """When the leader first called a node dead after the wall-clock instant `at`."""
    return min(event.at_wall_ns for event in events if event.node == node and event.at_wall_ns >= at)


def _milliseconds(values: list[int], share: float) -> float:
    return round(_quantile(values, share) / 1e6, 3)


def _seconds(values: list[int], share: float) -> float:
    return round(_quantile(values, share) / 1e9, 3)


def _quantile(values: list[int], share: float) -> int:
    """The smallest value that so large a share is not above. Raises ValueError when there are none."""
    if not values:
        raise ValueError("nothing was told")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
