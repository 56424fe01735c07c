"""What an agent costs its host, and how evenly it beats.

Real agents with the default host facts beat once a second to a real socket, with CURVE. Beside them a bare
interpreter that imports what the agent imports (pyzmq, psutil, tomli, loguru) and does nothing.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zmq

from hbagent.core.messages import Beat
from hbagent.demo.datacenter import Datacenter, Plan
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.allow import load as load_allow
from hbagent.transport.keys import load_secret
from hbagent.transport.zap import ZapServer
from hbagent.wire import beat as beat_wire

AGENTS = 4
SECONDS = 40.0
#: Start-up, first facts and admission are not the steady state.
SETTLE_SECONDS = 5.0
_BARE = "import zmq, psutil, tomli, loguru, sys; print(flush=True); sys.stdin.read()"


def measure(agents: int = AGENTS, seconds: float = SECONDS) -> dict[str, float]:
    """All figures of `hbagent bench agent`."""
    with tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory:
        # Started once without counting, so that the byte code lies on disk as it does on a host.
        datacenter = Datacenter(Path(directory), Plan(racks=1, nodes=agents, interval="1s"))
        datacenter.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        datacenter.write()
        with datacenter:
            listener = _Listener(datacenter)
            try:
                nodes = datacenter.nodes_of("rack1")
                datacenter.start(nodes[:1])
                listener.listen(SETTLE_SECONDS)
                datacenter.stop()
                datacenter.start(nodes)
                pids = [datacenter.processes[node].pid for node in nodes]
                listener.listen(SETTLE_SECONDS)
                listener.beats.clear()
                before = [_cpu_seconds(pid) for pid in pids]
                started = time.monotonic()
                listener.listen(seconds)
                elapsed = time.monotonic() - started
                used = [_cpu_seconds(pid) - cpu for pid, cpu in zip(pids, before, strict=True)]
                resident = [_resident_kib(pid) for pid in pids]
            finally:
                listener.close()
    bare = _bare_kib()
    jitter = sorted(listener.jitter_ns())
    return {
        "rss_mib": round(statistics.median(resident) / 1024, 2),
        "bare_rss_mib": round(bare / 1024, 2),
        "rss_ratio": round(statistics.median(resident) / bare, 3),
        "cpu_percent": round(statistics.median(used) / elapsed * 100, 3),
        "jitter_p50_ms": round(_quantile(jitter, 0.5) / 1e6, 3),
        "jitter_p99_ms": round(_quantile(jitter, 0.99) / 1e6, 3),
        "jitter_max_ms": round(jitter[-1] / 1e6, 3) if jitter else -1.0,
        "beats": len(jitter),
        "agents": agents,
        "seconds": round(elapsed, 1),
    }


class _Listener:
    """A leader's socket, and nothing behind it."""

    def __init__(self, datacenter: Datacenter) -> None:
        etc = datacenter.directory / "etc"
        config = datacenter.config("rack1-leader1").read_text()
        endpoint = next(line.split('"')[1] for line in config.splitlines() if line.startswith("publish"))
        keys = load_secret(datacenter.directory / "keys" / "demo.rack1-leader1.key")
        self._context: sockets.Context = zmq.Context()
        self._zap = ZapServer(self._context, load_allow(etc / "rack1-allow.toml"), {"agents": Role.AGENT})
        host = sockets.Host(keys=keys, domain="agents", peers_expected=100)
        self._socket = sockets.intake_subscriber(self._context, host, endpoint)
        self.beats: dict[int, list[Beat]] = {}

    def listen(self, seconds: float) -> None:
        """Collect beats by incarnation."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._socket.poll(int(left * 1000) + 1):
                message = beat_wire.decode(self._socket.recv()[: beat_wire.BEAT_SIZE_MAX])
                if isinstance(message, Beat):
                    self.beats.setdefault(message.incarnation, []).append(message)

    def jitter_ns(self) -> list[int]:
        """How far each gap between two beats, by the sender's clock, is from the interval."""
        return [
            abs(after.sent_mono_ns - before.sent_mono_ns - after.interval_ns)
            for beats in self.beats.values()
            for before, after in itertools.pairwise(beats)
            if after.sequence == before.sequence + 1
        ]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._zap.stop()
        self._context.term()


def _quantile(values: list[int], share: float) -> int:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_kib() -> int:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        return _resident_kib(process.pid)
    finally:
        process.communicate()
