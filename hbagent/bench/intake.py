"""What an authenticated beat costs a leader, beside a loop that only receives it and reads who sent it.

Both loops run in one process on one socket, in alternating windows, so that both see the same connections, the same
machine and the same other load. CPU time is that of the whole process: libzmq's I/O thread with its decryption too.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import zmq

from hbagent.core.config import LeaderConfig
from hbagent.core.effects import Effect, Keep, Publish, Rewrite
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import Kept, RackReports, RackSummary
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.role.driver import TURN_NS, Driver
from hbagent.role.intake import Intake
from hbagent.role.sdnotify import Notifier
from hbagent.transport import sockets
from hbagent.transport.allow import AllowList, Peer, Role
from hbagent.transport.keys import KeyPair
from hbagent.transport.zap import ZapServer
from hbagent.wire import codec
from hbagent.wire.pages import report_pages, summary_pages

CONNECTIONS = 1_000
#: A flood comes from fewer: what is measured is the loop, not how many connections' memory fits into a cache.
FLOOD_CONNECTIONS = 100
PACED_RATE = 10_000
WINDOWS = 9
WINDOW_SECONDS = 1.0
#: Unmeasured, at the start of each window: the other loop's backlog is worked off and lags are forgiven.
SETTLE_SECONDS = 0.3
CONNECT_SECONDS = 60.0
_RACKS = 25


class Bench:
    """A leader's intake with a thousand senders."""

    def __init__(self, connections: int = CONNECTIONS) -> None:
        names = [f"bench/rack{n % _RACKS}/node{n}" for n in range(connections)]
        self._pairs = [zmq.curve_keypair() for _ in names]
        public, secret = zmq.curve_keypair()
        self._server_key = public.decode()
        keys = KeyPair(name="bench/leader", public=public.decode(), secret=secret.decode())
        allow = AllowList(
            Peer(Role.AGENT, name, public.decode()) for name, (public, _) in zip(names, self._pairs, strict=True)
        )
        racks: dict[str, tuple[str, ...]] = {}
        for name in names:
            rack = name.rpartition("/")[0]
            racks[rack] = (*racks.get(rack, ()), name)
        # The bound on noisy nodes is lifted: most of a flood would be refused, which is cheaper than taking it in.
        config = LeaderConfig(name="bench/leader", racks=racks, noisy_factor=1_000_000)
        self._core = LeaderCore(config, random.Random(1), time.monotonic_ns())
        performers: dict[type, Callable[[Any], None]] = dict.fromkeys(get_args(Effect), _ignore)
        performers[Publish] = self._publish
        performers[Keep] = performers[Rewrite] = self._keep
        self._driver = Driver(self._core, performers, Notifier({}))
        self._context: sockets.Context = zmq.Context()
        self._context.max_sockets = 4_000
        self._zap = ZapServer(self._context, allow, {"agents": Role.AGENT})
        host = sockets.Host(keys=keys, domain="agents", peers_expected=connections)
        self._socket = sockets.intake_subscriber(self._context, host, "tcp://127.0.0.1:*")
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        senders = allow.senders(Role.AGENT)
        core, driver = self._core, self._driver
        self._intake = Intake(self._socket, driver.feed, senders, core.beat, driver.perform, core.roster.takers)
        self._driver.add(self._intake)
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hbagent.bench.senders"], stdin=subprocess.PIPE, text=True
        )
        document = {
            "endpoint": endpoint,
            "server_key": self._server_key,
            "interval_us": 0,
            "keys": [(a.decode(), b.decode()) for a, b in self._pairs],
        }
        self._document = document

    def _publish(self, effect: Publish) -> None:
        """Encode as production does; the root's socket is not part of this figure."""
        message = effect.message
        pages = summary_pages(message) if isinstance(message, RackSummary) else ()
        if isinstance(message, RackReports):
            pages = report_pages(message)  # type: ignore[assignment]
        for page in pages:
            codec.encode(page)

    def _keep(self, effect: Keep | Rewrite) -> None:
        self._driver.post(Kept(effect.token))

    def start(self, interval_ns: int) -> None:
        """Connect all senders; they announce `interval_ns`."""
        self._document["interval_us"] = interval_ns // 1000
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._document) + "\n")
        self._process.stdin.flush()

    def order(self, line: str) -> None:
        """Tell the senders what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def heard(self) -> int:
        """Nodes that are ALIVE."""
        return sum(member.heard_at is not None for member in self._core.roster.members.values())

    def bare(self, seconds: float, pause_s: float = 0.0) -> int:
        """Only receive, and read who sent it."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        receive = self._socket.recv
        until = time.monotonic() + seconds
        count = 0
        while time.monotonic() < until:
            for _ in poller.poll(20):
                try:
                    for _ in range(2000):
                        receive(zmq.NOBLOCK, False).get(b"User-Id")
                        count += 1
                except zmq.Again:
                    pass
            if pause_s:
                time.sleep(pause_s)
        return count

    def bare_in_turns(self, seconds: float) -> int:
        """The same with the driver's pause after each turn, to show how much of the difference that pause makes."""
        return self.bare(seconds, TURN_NS / SECOND)

    def full(self, seconds: float) -> int:
        """The leader's own loop."""
        before = sum(member.beats for member in self._core.roster.members.values())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._driver.turn()
        return sum(member.beats for member in self._core.roster.members.values()) - before

    def close(self) -> None:
        """End the senders and close everything."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._socket.close()
        self._zap.stop()
        self._context.term()
        self._driver.close()


def _ignore(effect: Any) -> None:
    """An effect that is not part of the figure."""


def _cost(loop: Callable[[float], int], seconds: float) -> tuple[float, float]:
    """Microseconds of CPU a beat, and beats a second, of one window."""
    loop(SETTLE_SECONDS)
    cpu, started = _cpu(), time.monotonic()
    count = loop(seconds)
    return (_cpu() - cpu) * 1e6 / max(1, count), count / (time.monotonic() - started)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(windows: int = WINDOWS, seconds: float = WINDOW_SECONDS) -> dict[str, float]:
    """All figures of `hbagent bench intake`. Raises RuntimeError when the senders do not all connect."""
    paced = _measure(f"pace {PACED_RATE}", 100 * MILLISECOND, CONNECTIONS, windows, seconds)
    # Kernel buffers hold seconds of a flood, and a beat is fresh for an interval: so the interval is long.
    flood = _measure("flood", 60 * SECOND, FLOOD_CONNECTIONS, windows, seconds)
    return {
        **{name: round(value, 3) for name, value in flood.items()},
        **{f"{name}_paced": round(value, 3) for name, value in paced.items()},
        "core_percent_10k": round(paced["beat_us"] * PACED_RATE / 1e6 * 100, 2),
        "connections": FLOOD_CONNECTIONS,
        "connections_paced": CONNECTIONS,
    }


def _measure(order: str, interval_ns: int, connections: int, windows: int, seconds: float) -> dict[str, float]:
    bench = Bench(connections)
    try:
        bench.start(interval_ns)
        bench.order("pace 2000")
        until = time.monotonic() + CONNECT_SECONDS
        while bench.heard() < connections:
            if time.monotonic() > until:
                raise RuntimeError(f"{bench.heard()} of {connections} senders connected in {CONNECT_SECONDS:.0f} s")
            bench.full(0.1)
        bench.order(order)
        loops = (bench.bare, bench.full, bench.bare_in_turns)
        rounds = [[_cost(loop, seconds) for loop in loops] for _ in range(windows)]
    finally:
        bench.close()
    return {
        "ratio": statistics.median(full[0] / bare[0] for bare, full, _ in rounds),
        "ratio_in_turns": statistics.median(full[0] / in_turns[0] for _, full, in_turns in rounds),
        "beat_us": statistics.median(full[0] for _, full, _ in rounds),
        "bare_us": statistics.median(bare[0] for bare, _, _ in rounds),
        "beats_per_s": statistics.median(full[1] for _, full, _ in rounds),
        "bare_beats_per_s": statistics.median(bare[1] for bare, _, _ in rounds),
    }
