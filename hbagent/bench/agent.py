"""What an agent and its prober cost their host, and how evenly the agent beats, whatever is probed beside it.

Real agents with the default probes beat once a second to a real socket, with CURVE. Beside them a bare interpreter
that imports what the agent's libraries are (pyzmq, psutil, tomli, loguru) and does nothing.

Then one agent beats twenty times a second, and is told by turns to probe nothing, two hundred things every ten
seconds, and two hundred things of which some hang, fork, flood and burn.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import zmq

from hbagent.core.messages import Beat
from hbagent.demo.datacenter import Datacenter, Plan
from hbagent.offspring import reaper
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
PROBES = 200
#: Windows of each kind of probing, by turns.
WINDOWS = 3
WINDOW_SECONDS = 12.0
#: Beats of those windows: the shortest interval, for as many samples as can be had.
BEAT = "50ms"
#: After a reload; the first runs of all probes are spread over ten seconds, and two hundred hands over one.
RELOAD_SECONDS = 3.0
#: Told apart from every other process of the host by this.
_NAP = "3607"
_NASTY = (
    f"sleep {_NAP}",
    f"trap '' TERM; while :; do sleep {_NAP}; done",
    f"setsid sh -c 'sleep {_NAP} & sleep {_NAP}' & sleep {_NAP}",
    f"for i in 1 2 3 4 5 6 7 8 9; do (sleep {_NAP} & sleep {_NAP} &) done; sleep {_NAP}",
    "yes",
    "while :; do :; done",
    "kill -STOP $$",
)
_BARE = "import zmq, psutil, tomli, loguru, sys; print(flush=True); sys.stdin.read()"


def measure(
    agents: int = AGENTS, seconds: float = SECONDS, windows: int = WINDOWS, window_seconds: float = WINDOW_SECONDS
) -> dict[str, float]:
    """All figures of `hbagent bench agent`."""
    return {**_at_rest(agents, seconds), **_with_probes(windows, window_seconds)}


# ---- at rest ---------------------------------------------------------------------------------------------


def _at_rest(agents: int, seconds: float) -> dict[str, float]:
    plan = Plan(racks=1, nodes=agents, interval="1s", prober_lines=("defaults = true",))
    with tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory:
        # Started once without counting, so that the byte code lies on disk as it does on a host.
        datacenter = Datacenter(Path(directory), plan)
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
                # All default probes have run once by then.
                listener.listen(2 * SETTLE_SECONDS)
                probers = [pid for agent in pids for pid in reaper.children(agent)]
                listener.beats.clear()
                before = [_cpu_seconds(pid) for pid in (*pids, *probers)]
                hands_before = sum(map(_cpu_of_hands, probers))
                started = time.monotonic()
                listener.listen(seconds)
                elapsed = time.monotonic() - started
                used = [_cpu_seconds(pid) - cpu for pid, cpu in zip((*pids, *probers), before, strict=True)]
                hands_used = sum(map(_cpu_of_hands, probers)) - hands_before
                resident = [_resident_kib(pid) for pid in pids]
                resident_probers = [_resident_kib(pid) for pid in probers]
                hands = [hand for prober in probers for hand in reaper.children(prober)]
                resident_hands = [_resident_kib(hand) for hand in hands]
                shared = [_proportional_kib(pid) for pid in (*probers, *hands)]
            finally:
                listener.close()
    bare = _bare_kib()
    jitter = sorted(listener.jitter_ns())
    return {
        "rss_mib": round(statistics.median(resident) / 1024, 2),
        "bare_rss_mib": round(bare / 1024, 2),
        "rss_ratio": round(statistics.median(resident) / bare, 3),
        "prober_rss_mib": round(statistics.median(resident_probers) / 1024, 2),
        "hand_rss_mib": round(statistics.median(resident_hands or [0]) / 1024, 2),
        "hands": round(len(hands) / len(probers), 2),
        "prober_and_hands_pss_mib": round(sum(shared) / len(probers) / 1024, 2),
        "cpu_percent": round(statistics.median(used[:agents]) / elapsed * 100, 3),
        "prober_cpu_percent": round(statistics.median(used[agents:]) / elapsed * 100, 3),
        "hands_cpu_percent": round(hands_used / len(probers) / elapsed * 100, 3),
        "jitter_p50_ms": round(_quantile(jitter, 0.5) / 1e6, 3),
        "jitter_p99_ms": round(_quantile(jitter, 0.99) / 1e6, 3),
        "jitter_max_ms": round(jitter[-1] / 1e6, 3) if jitter else -1.0,
        "beats": len(jitter),
        "agents": agents,
        "seconds": round(elapsed, 1),
    }


# ---- beside two hundred probes ---------------------------------------------------------------------------


def _with_probes(windows: int, seconds: float) -> dict[str, float]:
    jitter: dict[str, list[int]] = {"none": [], "many": [], "nasty": []}
    with tempfile.TemporaryDirectory(prefix="hbagent-bench-") as directory:
        datacenter = Datacenter(Path(directory), Plan(racks=1, nodes=1, interval=BEAT))
        datacenter.write()
        (node,) = datacenter.nodes_of("rack1")
        bare = datacenter.config(node).read_text()
        tables = {"none": "", "many": _probes(0), "nasty": _probes(PROBES // 10)}
        with datacenter:
            listener = _Listener(datacenter)
            try:
                datacenter.start([node])
                listener.listen(SETTLE_SECONDS)
                for _ in range(windows):
                    for kind, found in jitter.items():
                        datacenter.config(node).write_text(bare + tables[kind])
                        datacenter.signal(node, signal.SIGHUP)
                        listener.listen(RELOAD_SECONDS)
                        listener.beats.clear()
                        listener.listen(seconds)
                        found += listener.jitter_ns()
            finally:
                listener.close()
    p99_ms = {kind: _quantile(sorted(found), 0.99) / 1e6 for kind, found in jitter.items()}
    return {
        "jitter_p99_ms_no_probes": round(p99_ms["none"], 3),
        "jitter_p99_ms_200_probes": round(p99_ms["many"], 3),
        "jitter_p99_ms_200_nasty_probes": round(p99_ms["nasty"], 3),
        "jitter_p99_ratio_200_probes": round(p99_ms["many"] / max(p99_ms["none"], 1e-3), 2),
        "jitter_p99_ratio_200_nasty_probes": round(p99_ms["nasty"] / max(p99_ms["none"], 1e-3), 2),
        "processes_left_behind": _left_behind(),
        "beats_a_window": round(len(jitter["none"]) / windows),
    }


def _probes(nasty: int) -> str:
    """Tables of two hundred probes, so many of which are nasty."""
    tables = []
    for number in range(PROBES):
        if number < nasty:
            what = f'kind = "exec"\ncommand = ["/bin/sh", "-c", "{_NASTY[number % len(_NASTY)]}"]\ntimeout = "2s"'
        elif number % 4 == 0:
            what = 'kind = "file"\npath = "/proc/uptime"'
        elif number % 4 == 1:
            what = 'kind = "host"\nmeasure = "memory"'
        else:
            what = 'kind = "exec"\ncommand = ["/bin/echo", "fine"]'
        tables.append(f'[[probe]]\nname = "p{number}"\n{what}\n')
    return "".join(tables)


def _left_behind() -> int:
    count = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            count += _NAP.encode() in Path("/proc", name, "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
    return count


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


def _proportional_kib(pid: int) -> int:
    """Memory of a process, with what it shares divided by those who share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def _cpu_seconds(pid: int, of_children: bool = False) -> float:
    """What a process has used, with those of its children that it has waited for, and these with theirs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if of_children else 13])) / os.sysconf("SC_CLK_TCK")


def _cpu_of_hands(prober: int) -> float:
    """What all hands of a prober have used so far, and all that they have started."""
    alive = sum(_cpu_seconds(hand, of_children=True) for hand in reaper.children(prober))
    return alive + _cpu_seconds(prober, of_children=True) - _cpu_seconds(prober)


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
