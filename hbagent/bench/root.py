"""What a root of 10,000 nodes takes to say how they are, to bear that all of them change, and to start a hook.

The root is the real program with its store, its hooks and its page; a hundred leaders in another process tell it of a
hundred nodes each, over real connections with real keys. `status_s` is the whole of `hbagent status` as a shell sees
it, and `status_answer_ms` the root's part of that. What is asked is timed from the question to the last byte of the
answer, so a root that is busy counts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from hbagent.core.messages import AnswerPage, Query
from hbagent.demo.datacenter import free_ports
from hbagent.store.opening import FILE_NAME
from hbagent.transport import sockets
from hbagent.transport.allow import AllowList, Role, save
from hbagent.transport.keys import generate
from hbagent.wire import codec
from hbagent.wire.pages import AnswerAssembly

RACKS, NODES = 100, 100
#: `hbagent status` is run so often, and so often everything else is asked.
RUNS, ASKED = 5, 40
#: Deaths whose hooks are timed, one after the other.
HOOKS = 100
STORM_SECONDS = 1.0
CONNECT_SECONDS = 60.0
SETTLE_SECONDS = 60.0
ANSWER_MS = 20_000
_QUERIES = ("ping", "cells", "incidents", "events", "status")


class Asker:
    """Somebody at the query socket. Raises TimeoutError when nobody answers."""

    def __init__(self, endpoint: str) -> None:
        self._context: sockets.Context = zmq.Context()
        self._socket = sockets.query_dealer(self._context, endpoint)
        self._asked = 0

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def ask(self, what: str, **fields: Any) -> Any:
        """The answer to one query, read as a console reads it."""
        self._asked += 1
        self._socket.send(codec.encode(Query(id=self._asked, what=what, **fields)))
        assembly = AnswerAssembly(self._asked)
        while self._socket.poll(ANSWER_MS):
            page = codec.decode(self._socket.recv())
            if isinstance(page, AnswerPage) and page.id == self._asked:
                document = assembly.add(page)
                if document is not None:
                    return msgspec.json.decode(document)
        raise TimeoutError(f"no answer to {what}")


class Bench:
    """A root process and its leaders."""

    def __init__(self, directory: Path, racks: int, nodes: int) -> None:
        self.directory = directory
        self.racks, self.nodes = racks, nodes
        self._publish, self._control, self._page = free_ports(3)
        self.marks = directory / "hooks"
        self.config = directory / "root.toml"
        names = [f"dc1/rack{number:03}" for number in range(racks)]
        allow = AllowList()
        self._leaders = []
        for rack in names:
            public, secret = (key.decode() for key in zmq.curve_keypair())
            allow = allow.allow(Role.LEADER, f"{rack}-leader1", public)
            self._leaders.append({"name": f"{rack}-leader1", "rack": rack, "public": public, "secret": secret})
        save(directory / "allow.toml", allow)
        self._server_key = generate("dc1/root", directory).public
        hook = directory / "hook"
        hook.write_text(f"#!/bin/sh\ndate +%s%N >>{self.marks}\n")
        hook.chmod(0o700)
        self._write(brake=False)
        self._root = self._start("root", "--config", str(self.config))
        self._told = subprocess.Popen(
            [sys.executable, "-m", "hbagent.bench.leaders"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        document = {
            "publish": f"tcp://127.0.0.1:{self._publish}",
            "control": f"tcp://127.0.0.1:{self._control}",
            "server_key": self._server_key,
            "nodes": nodes,
            "leaders": self._leaders,
        }
        self.order(json.dumps(document))

    def _write(self, brake: bool) -> None:
        racks = "\n".join(
            f'[[rack]]\nname = "{entry["rack"]}"\nleaders = ["{entry["name"]}"]' for entry in self._leaders
        )
        lifted = "" if brake else "[brake]\nwindow = '100ms'\nnode_max = 1000\nrack_max = 1000\nall_max = 10000\n"
        self.config.write_text(
            f'[root]\nname = "dc1/root"\npublish = "tcp://127.0.0.1:{self._publish}"\n'
            f'control = "tcp://127.0.0.1:{self._control}"\nquery = "ipc://{self.directory}/root.sock"\n'
            f'state_dir = "{self.directory}/state"\n[security]\nkey = "dc1.root.key"\nallow = "allow.toml"\n'
            f'[web]\nlisten = "127.0.0.1:{self._page}"\n{lifted}{racks}\n'
            f'[[hook]]\nname = "mark"\ncommand = ["{self.directory}/hook"]\non = ["node-dead"]\n'
        )

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        (self.directory / "state").mkdir(mode=0o700, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            command = [sys.executable, "-m", "hbagent", *words]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def order(self, line: str) -> None:
        """Tell the leaders what to do."""
        assert self._told.stdin is not None
        self._told.stdin.write(line + "\n")
        self._told.stdin.flush()

    def told_at(self) -> int:
        """When they did; Unix ns."""
        assert self._told.stdout is not None
        return int(self._told.stdout.readline().split()[1])

    def restart(self) -> None:
        """Another life of the root, whose brake is as shipped."""
        self._end_root()
        self._write(brake=True)
        self._root = self._start("root", "--config", str(self.config))

    def _end_root(self) -> None:
        self._root.terminate()
        try:
            self._root.wait(20)
        except subprocess.TimeoutExpired:
            self._root.kill()
            self._root.wait()

    def asker(self) -> Asker:
        """Somebody who asks the root."""
        return Asker(f"ipc://{self.directory}/root.sock")

    def wait(self, what: str, condition: Callable[[], object], seconds: float = CONNECT_SECONDS) -> float:
        """Seconds until it is so. Raises RuntimeError when it never is."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                log = (self.directory / "log").read_text(errors="replace")[-1500:]
                raise RuntimeError(f"{what}: not within {seconds:.0f} s\n{log}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def living(self) -> int:
        """Nodes that the root calls ALIVE."""
        if not (self.directory / "root.sock").exists():
            return 0
        with self.asker() as asker:
            view = asker.ask("cells", life="none")
        return sum(rack["counts"]["ALIVE"] for rack in view["racks"])

    def rss_mib(self) -> float:
        """Memory of the root that is resident."""
        status = Path(f"/proc/{self._root.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu_s(self) -> float:
        """CPU time that the root's process has used."""
        fields = Path(f"/proc/{self._root.pid}/schedstat").read_text().split()
        times = [int(path.read_text().split()[0]) for path in Path(f"/proc/{self._root.pid}/task").glob("*/schedstat")]
        return (sum(times) or int(fields[0])) / 1e9

    def stored(self) -> int:
        """Events in the store."""
        file = self.directory / "state" / FILE_NAME
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5.0)) as store:
            return int(store.execute("SELECT count(*) FROM events").fetchone()[0])

    def marked(self, before: int = 0) -> int:
        """Bytes that hooks have written, beyond the first `before`."""
        return self.marks.stat().st_size - before if self.marks.exists() else 0

    def close(self) -> None:
        """End everything."""
        self._end_root()
        assert self._told.stdin is not None and self._told.stdout is not None
        self._told.stdin.close()
        self._told.wait(10)
        self._told.stdout.close()

    # ---- figures -----------------------------------------------------------------------------------------

    def page(self, path: str) -> bytes:
        """What the root's page has there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._page}{path}", timeout=20) as answer:
            body: bytes = answer.read()
        return body

    def status_s(self) -> float:
        """Seconds that `hbagent status` takes."""
        command = [sys.executable, "-m", "hbagent", "status", "--config", str(self.config)]
        begun = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False, env={**os.environ, "COLUMNS": "80"})
        return time.monotonic() - begun


class _Storm(threading.Thread):
    """Asks one question after the other while everything changes; remembers the slowest answer."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(name="asker")
        self._bench = bench
        self._over = threading.Event()
        self.slowest: dict[str, float] = dict.fromkeys(_QUERIES, 0.0)

    def run(self) -> None:
        """Until `stop`."""
        known: dict[str, Any] = {"life": "none", "version": 0}
        while not self._over.is_set():
            for what in _QUERIES:
                more = {"after": known["version"], "life": known["life"]} if what == "cells" else {}
                begun = time.monotonic()
                with self._bench.asker() as asker:
                    answer = asker.ask(what, **more)
                self.slowest[what] = max(self.slowest[what], time.monotonic() - begun)
                if what == "cells":
                    known = answer
                time.sleep(0.02)

    def stop(self) -> float:
        """Seconds that the slowest answer took."""
        self._over.set()
        self.join()
        return max(self.slowest.values())


def measure(
    racks: int = RACKS, nodes: int = NODES, runs: int = RUNS, asked: int = ASKED, hooks: int = HOOKS
) -> dict[str, float]:
    """All figures of `hbagent bench root`. Raises RuntimeError when the leaders are not all heard."""
    with tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory:
        bench = Bench(Path(directory), racks, nodes)
        try:
            figures = _measure(bench, runs, asked, hooks)
        finally:
            bench.close()
    return {name: round(value, 4) for name, value in figures.items()}


def _measure(bench: Bench, runs: int, asked: int, hooks: int) -> dict[str, float]:
    total = bench.racks * bench.nodes
    bench.wait("all nodes alive", lambda: bench.living() == total)
    time.sleep(3.0)
    figures: dict[str, float] = {"nodes": total, "racks": bench.racks}
    begun, idle = time.monotonic(), bench.cpu_s()
    time.sleep(3.0)
    idle = (bench.cpu_s() - idle) / (time.monotonic() - begun)
    figures["idle_core_percent"] = 100 * idle
    figures["status_s"] = statistics.median(bench.status_s() for _ in range(runs))
    with bench.asker() as asker:
        figures["status_answer_ms"] = _median_ms(lambda: asker.ask("status", brief=True), asked)
        figures["status_whole_ms"] = _median_ms(lambda: asker.ask("status"), max(3, asked // 4))
        known: dict[str, Any] = asker.ask("cells", life="none")

        def tick() -> None:
            known.update(asker.ask("cells", after=known["version"], life=known["life"]))

        figures["cells_whole_ms"] = _median_ms(lambda: asker.ask("cells", life="none"), max(3, asked // 4))
        figures["cells_tick_ms"] = _median_ms(tick, asked)
        figures["cells_tick_cpu_ms"] = _cpu_ms(bench, tick, asked, idle)
    figures["metrics_ms"] = _median_ms(lambda: bench.page("/metrics"), max(3, asked // 4))
    figures["metrics_cpu_ms"] = _cpu_ms(bench, lambda: bench.page("/metrics"), max(3, asked // 4), idle)
    figures["rss_mib"] = bench.rss_mib()
    figures |= _hooks(bench, hooks)
    bench.order("calm 1")
    bench.told_at()
    bench.restart()
    bench.wait("all nodes alive again", lambda: bench.living() == total)
    return figures | _storm(bench, total)


def _median_ms(action: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        begun = time.monotonic()
        action()
        times.append(time.monotonic() - begun)
    return statistics.median(times) * 1e3


def _cpu_ms(bench: Bench, action: Callable[[], object], count: int, idle: float) -> float:
    """Milliseconds of the root's CPU, of all its threads, that it takes each time; without what it uses anyway."""
    begun, cpu = time.monotonic(), bench.cpu_s()
    for _ in range(count):
        action()
    spent = bench.cpu_s() - cpu - idle * (time.monotonic() - begun)
    return max(0.0, spent) / count * 1e3


def _hooks(bench: Bench, count: int) -> dict[str, float]:
    """From the moment at which a leader tells of a death to the first line of its hook, one after the other."""
    took = []
    for number in range(count):
        before = bench.marked()
        bench.order(f"end {number % bench.racks} {number // bench.racks}")
        told_at = bench.told_at()
        bench.wait("a hook", functools.partial(bench.marked, before), 10)
        took.append(int(bench.marks.read_text().split()[-1]) - told_at)
        time.sleep(0.05)
    took.sort()
    return {
        "hook_start_p50_ms": statistics.median(took) / 1e6,
        "hook_start_p99_ms": took[min(len(took) - 1, int(0.99 * len(took)))] / 1e6,
    }


def _storm(bench: Bench, total: int) -> dict[str, float]:
    before = bench.stored()
    asker = _Storm(bench)
    asker.start()
    time.sleep(1.0)
    begun = time.monotonic()
    bench.order(f"storm {STORM_SECONDS}")
    try:
        settled = bench.wait("a storm on disk", lambda: bench.stored() >= before + total, SETTLE_SECONDS)
        bench.told_at()
        sent = time.monotonic() - begun
        time.sleep(2.0)
    finally:
        slowest = asker.stop()
    return {
        "storm_sent_s": sent,
        "storm_settled_s": settled,
        "storm_query_max_s": slowest,
        **{f"storm_{what}_max_s": value for what, value in asker.slowest.items()},
        "storm_rss_mib": bench.rss_mib(),
        "storm_hooks": len(bench.marks.read_text().split()),
    }
