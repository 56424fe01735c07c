"""Rows F30 to F33: floods of connections and messages, a spoiled network, and helpers of the loop that stand still."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from hbagent.cli.query import Asker, Target
from hbagent.core.units import SECOND
from hbagent.demo.datacenter import Plan
from hbagent.transport import sockets
from hbagent.transport.monitor import LinkEvent, Monitor
from hbagent.transport.sockets import HANDSHAKE_MIN_MS, MESSAGE_SIZE_MAX, Context, beat_publisher
from tests.conftest import Figures
from tests.e2e.chaos import Proxy
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, Row, ids, node_of
from tests.e2e.flooded import DESCRIPTORS
from tests.e2e.intruder import beat
from tests.e2e.patient import PATIENT
from tests.e2e.test_intruders import knock, refusals
from tests.transport.doors import caller, new_keys

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.timeout(180)]

INTERVAL = 0.2
RECONNECT_SECONDS = 0.3
LEADER, DISTANT, NEAR, OTHER = "rack1-leader1", "rack1-node1", "rack1-node2", "rack1-node3"
PLAN = Plan(
    racks=1,
    nodes=3,
    interval="200ms",
    reconnect=("100ms", f"{RECONNECT_SECONDS * 1000:.0f}ms"),
    leader_tables=PATIENT,
)
#: Against hanging: what was measured is in the figures.
GAP_SECONDS = 4.0
#: libzmq itself closes after this what says nothing.
HANDSHAKE_DEFAULT_SECONDS = 30.0
#: What is spoiled is the same in each run.
SEED = 32


class Network:
    """Both connections of one agent, through proxies."""

    def __init__(self, publish: Proxy, control: Proxy) -> None:
        self.proxies = (publish, control)

    @property
    def connections(self) -> int:
        return sum(len(proxy.recorded) for proxy in self.proxies)

    def reset(self) -> None:
        for proxy in self.proxies:
            proxy.reset()

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.holding.clear()
            proxy.holding_back.clear()
            proxy.delay_seconds = 0.0
            proxy.spoil = bytes


@pytest.fixture(scope="module")
def far(build: Build) -> Iterator[tuple[Fleet, Network]]:
    """A datacenter in which `DISTANT` calls its leader through a network that can be hurt."""
    fleet = build(PLAN)
    fleet.write()
    text = fleet.config(DISTANT).read_text()
    with contextlib.ExitStack() as stack:
        proxies = []
        for port in ("publish", "control"):
            address = fleet.setting(LEADER, port)
            proxies.append(stack.enter_context(Proxy(int(address.rpartition(":")[2]))))
            text = text.replace(address, f"tcp://127.0.0.1:{proxies[-1].port}")
        fleet.config(DISTANT).write_text(text)
        fleet.start()
        fleet.settle()
        yield fleet, Network(*proxies)
        fleet.stop()


@pytest.fixture(scope="module")
def fleet(far: tuple[Fleet, Network]) -> Fleet:
    return far[0]


@pytest.fixture
def network(far: tuple[Fleet, Network], healed: None) -> Iterator[Network]:
    """The network, well again before the datacenter is to be."""
    yield far[1]
    far[1].heal()


class Watch:
    """The ages of one node's newest beat at the leader, over a connection that was there before the trouble."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._node = node_of(name)
        self._asker = Asker(Target(endpoint=f"ipc://{fleet.directory}/run/{LEADER}.sock"), 5 * SECOND)
        self.rows: list[Row] = []

    def __enter__(self) -> Watch:
        self._asker.__enter__()
        self.look()
        return self

    def __exit__(self, *error: Any) -> None:
        self._asker.__exit__(*error)

    def look(self) -> Row:
        rows = self._asker.ask("status")["nodes"]
        self.rows.append(next(row for row in rows if row["node"] == self._node))
        return self.rows[-1]

    def look_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(0.005)

    @property
    def gap(self) -> float:
        """The longest that a beat was late."""
        return max(0.0, *(float(row["age_s"]) - INTERVAL for row in self.rows))


def descriptors(fleet: Fleet) -> int:
    return len(os.listdir(f"/proc/{fleet.processes[LEADER].pid}/fd"))


@contextlib.contextmanager
def idle(fleet: Fleet, count: int) -> Iterator[list[socket.socket]]:
    """So many connections to the leader's ports that say nothing."""
    ports = [int(fleet.setting(LEADER, port).rpartition(":")[2]) for port in ("publish", "control")]
    held: list[socket.socket] = []
    try:
        for number in range(count):
            held.append(socket.create_connection(("127.0.0.1", ports[number % 2]), 5.0))
        yield held
    finally:
        for each in held:
            each.close()


# ---- F30: connections ------------------------------------------------------------------------------------


def test_a_thousand_idle_connections_are_closed_in_time_and_nobody_waits(fleet: Fleet, figures: Figures) -> None:
    mark, before = fleet.newest(), descriptors(fleet)
    with Watch(fleet, NEAR) as watch:
        begun = time.monotonic()
        with idle(fleet, 1_000):
            fleet.until(lambda: descriptors(fleet) >= before + 950, "all are taken")
            watch.look_for(3.0)
            fleet.until(lambda: watch.look() and descriptors(fleet) <= before + 20, "closed again", 60.0)
            took = time.monotonic() - begun
    figures(
        "F30",
        f"1,000 idle connections: legit beat at most {watch.gap * 1000:.0f} ms late (100 ms), closed after "
        f"{took:.1f} s (at most {HANDSHAKE_MIN_MS / 1000 + 1:.0f} s)",
    )
    assert watch.gap < GAP_SECONDS
    assert took < HANDSHAKE_DEFAULT_SECONDS - 5
    assert ids(fleet.events(mark)) == []


def test_a_leader_without_descriptors_hears_and_judges(fleet: Fleet, figures: Figures) -> None:
    pid = fleet.processes[LEADER].pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    mark = fleet.newest()
    with Watch(fleet, NEAR) as watch:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
        try:
            with idle(fleet, 2 * DESCRIPTORS):
                fleet.until(lambda: descriptors(fleet) >= DESCRIPTORS - 2, "none is left")
                watch.look_for(3.0)
                fleet.kill(OTHER)
                begun = time.monotonic()
                fleet.until(lambda: watch.look() and fleet.liveness(OTHER) == "DEAD", "a death is told")
                told = time.monotonic() - begun
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        begun = time.monotonic()
        fleet.start([OTHER])
        fleet.until(lambda: watch.look() and fleet.liveness(OTHER) == "ALIVE", "it admits again", 30.0)
        back = time.monotonic() - begun
    figures(
        "F30",
        f"no descriptor left: legit beat at most {watch.gap * 1000:.0f} ms late (100 ms), a death told after "
        f"{told:.2f} s, admitted again after {back:.1f} s (at most {HANDSHAKE_MIN_MS / 1000 + 1:.0f} s)",
    )
    assert watch.gap < GAP_SECONDS
    assert {row["node"] for row in fleet.events(mark)} == {node_of(OTHER)}


# ---- F31: messages ---------------------------------------------------------------------------------------


def test_an_oversized_frame_costs_its_sender_the_connection(fleet: Fleet, figures: Figures) -> None:
    mark = fleet.newest()
    refused = refusals(fleet)
    lost = threading.Event()
    with knock(fleet, LEADER, OTHER) as giant:
        assert giant.is_admitted()
        monitor = Monitor({"": giant.socket}, lambda link: lost.set(), (LinkEvent.LOST,))
        giant.say(bytes(MESSAGE_SIZE_MAX + 1))
        assert lost.wait(30.0), "it is still connected"
        monitor.stop()
    assert refusals(fleet) == refused, "it was heard"
    assert ids(fleet.events(mark)) == []
    figures("F31", f"a frame of {MESSAGE_SIZE_MAX + 1} bytes: disconnected, not heard")


def test_a_flood_under_one_key_costs_the_others_nothing(fleet: Fleet, figures: Figures) -> None:
    fleet.end(OTHER)
    fleet.until_liveness(OTHER, "LEFT")
    mark, before = fleet.newest(), fleet.refused("noisy", LEADER)
    enough = threading.Event()
    with knock(fleet, LEADER, OTHER) as noisy, Watch(fleet, NEAR) as watch:
        assert noisy.is_admitted()

        def flood() -> None:
            sequence = 0
            while not enough.is_set():
                sequence += 1
                noisy.say(beat(5, sequence, INTERVAL))

        thread = threading.Thread(target=flood)
        thread.start()
        watch.look_for(4.0)
        enough.set()
        thread.join()
        said = noisy.said
    fleet.until(lambda: all_taken_in(fleet), "what the kernel still had of it is taken in", 45.0)
    fleet.start([OTHER])
    fleet.until(lambda: len(fleet.events(mark, "node-restarted")) == 2, "the flood and the node itself after it")
    counted = fleet.refused("noisy", LEADER) - before
    figures(
        "F31",
        f"an admitted key says {said / 4:.0f} beats a second: {counted} refused noisy, others' beats at most "
        f"{watch.gap * 1000:.0f} ms late",
    )
    assert counted > 100
    assert watch.gap < GAP_SECONDS
    assert {row["node"] for row in fleet.events(mark)} <= {node_of(OTHER)}


def all_taken_in(fleet: Fleet) -> bool:
    """Nothing more is counted, in several looks: a leader that stood still for one was at work in the others."""
    counts = [fleet.refused("noisy", LEADER)]
    for _ in range(4):
        time.sleep(2 * INTERVAL)
        counts.append(fleet.refused("noisy", LEADER))
    return len(set(counts)) == 1


# ---- F32: the network ------------------------------------------------------------------------------------


def flipped() -> Callable[[bytes], bytes]:
    """One piece in three has a wrong bit."""
    rng = random.Random(SEED)

    def spoil(data: bytes) -> bytes:
        if not data or rng.random() > 1 / 3:
            return data
        wrong = bytearray(data)
        wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
        return bytes(wrong)

    return spoil


def doubled() -> Callable[[bytes], bytes]:
    """One piece in three comes twice."""
    rng = random.Random(SEED)
    return lambda data: data * 2 if rng.random() < 1 / 3 else data


@pytest.mark.parametrize("kind", [flipped, doubled])
def test_what_the_network_spoils_is_nobodys_message(
    fleet: Fleet, network: Network, figures: Figures, kind: Callable[[], Callable[[bytes], bytes]]
) -> None:
    mark, before, connections = fleet.newest(), refusals(fleet), network.connections
    for proxy in network.proxies:
        proxy.spoil = kind()
    time.sleep(3.0)
    fleet.until(lambda: network.connections - connections >= 3, "some are broken: else it proves nothing")
    broken = network.connections - connections
    network.heal()
    # A spoiled length may have the leader wait for the rest of a long frame; that takes as long as it takes.
    network.reset()
    fleet.settle()
    assert refusals(fleet) == before
    kinds = [row["kind"] for row in fleet.events(mark)]
    assert "node-restarted" not in kinds
    assert {row["node"] for row in fleet.events(mark) if row["kind"] == "node-dead"} <= {node_of(DISTANT)}
    figures("F32", f"{kind.__name__}: {broken} connections broken, 0 messages accepted, events {kinds or 'none'}")


def test_a_storm_of_resets_kills_nobody(fleet: Fleet, network: Network, figures: Figures) -> None:
    mark, connections = fleet.newest(), network.connections
    with Watch(fleet, DISTANT) as watch:
        for _ in range(20):
            network.reset()
            time.sleep(0.1)
        begun = time.monotonic()
        fleet.until(lambda: heard_since(watch, begun), "a beat of a new connection")
        gap = time.monotonic() - begun
    fleet.settle()
    resets = network.connections - connections
    at_most = 2 * RECONNECT_SECONDS + 0.2 + INTERVAL
    kinds = [row["kind"] for row in fleet.events(mark)]
    figures(
        "F32", f"{resets} connections reset in 2 s: heard again after {gap:.2f} s (at most {at_most:.1f} s), {kinds}"
    )
    assert not {"node-dead", "node-restarted"} & {*kinds}


def heard_since(watch: Watch, begun: float) -> bool:
    asked = time.monotonic()
    return bool(watch.look()["age_s"] < asked - begun)


def test_a_network_that_becomes_slow_kills_nobody(fleet: Fleet, network: Network, figures: Figures) -> None:
    mark = fleet.newest()
    for proxy in network.proxies:
        proxy.delay_seconds = 0.2
    time.sleep(4.0)
    assert fleet.liveness(DISTANT) == "ALIVE"
    kinds = [row["kind"] for row in fleet.events(mark)]
    figures("F32", f"200 ms more each way from one beat to the next: {kinds or 'no event'}")
    assert not {"node-dead", "node-restarted"} & {*kinds}


@pytest.mark.parametrize("direction", ["holding", "holding_back"])
def test_one_direction_that_stalls_kills_nobody(
    fleet: Fleet, network: Network, figures: Figures, direction: str
) -> None:
    """What the agent says does not arrive, or what the leader says: the echo answers all the while."""
    mark = fleet.newest()
    for proxy in network.proxies:
        getattr(proxy, direction).set()
    time.sleep(4.0)
    seen = fleet.state(DISTANT, LEADER)
    network.heal()
    fleet.settle()
    kinds = [row["kind"] for row in fleet.events(mark)]
    figures("F32", f"{direction} for 4 s: the leader says {seen}, {kinds or 'no event'}")
    assert not {"node-dead", "node-restarted"} & {*kinds}


# ---- F33: what stands still ------------------------------------------------------------------------------


def test_a_worker_that_hangs_holds_up_no_beat_and_no_verdict(fleet: Fleet, figures: Figures) -> None:
    """The allow-list becomes a pipe into which nobody writes: whoever opens it waits."""
    mark, file = fleet.newest(), fleet.allow_file()
    kept = file.with_suffix(".kept")
    with Watch(fleet, NEAR) as watch:
        os.rename(file, kept)
        os.mkfifo(file, 0o600)
        try:
            watch.look_for(1.5)
            fleet.kill(OTHER)
            fleet.until(lambda: watch.look() and fleet.liveness(OTHER) == "DEAD", "a death is told")
            fleet.until(lambda: poured(file, kept), "the worker reads it")
        finally:
            os.rename(kept, file)
    figures("F33", f"the worker that reads files hangs: legit beat at most {watch.gap * 1000:.0f} ms late")
    assert watch.gap < GAP_SECONDS
    assert {row["node"] for row in fleet.events(mark)} == {node_of(OTHER)}


def poured(pipe: Path, kept: Path) -> bool:
    """Write it into the pipe if somebody reads there."""
    try:
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with open(writer, "w") as file:
        file.write(kept.read_text())
    return True


FLOOD_SECONDS = 8.0


def flooded(how: str) -> dict[str, float]:
    """What a leader's doors heard while accepting failed again and again: see `tests.e2e.flooded`."""
    keys = new_keys("demo/rack1/node1")
    command = [sys.executable, "-m", "tests.e2e.flooded", how, keys.public, str(FLOOD_SECONDS)]
    context: Context = zmq.Context()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            where = json.loads(process.stdout.readline())
            beats = beat_publisher(context, caller(keys), [sockets.Target(where["endpoint"], where["key"])])
            ready = False
            waiting: list[socket.socket] = []
            until = time.monotonic() + FLOOD_SECONDS + 30.0
            while process.poll() is None and time.monotonic() < until:
                beats.send(b"beat", zmq.NOBLOCK)
                time.sleep(0.01)
                if not ready and select_readable(process.stdout.fileno()):
                    ready = bool(process.stdout.readline())
                    host, _, port = where["endpoint"].removeprefix("tcp://").rpartition(":")
                    waiting += [socket.create_connection((host, int(port)), 30.0) for _ in range(3)]
            for each in waiting:
                each.close()
            return dict(json.loads(process.stdout.readline() or b"{}"))
        finally:
            process.kill()
            context.destroy(linger=0)


def select_readable(descriptor: int) -> bool:
    poller = zmq.Poller()
    poller.register(descriptor, zmq.POLLIN)
    return bool(poller.poll(0))


def test_accepts_that_fail_by_the_thousand_do_not_touch_the_intake(figures: Figures) -> None:
    shipped, counted = flooded("shipped"), flooded("every-event")
    figures(
        "F33",
        f"{counted['attempts']:.0f} accepts fail a second: a beat each 10 ms comes at most {shipped['gap'] * 1000:.0f} "
        f"ms late",
    )
    assert shipped["messages"] > 20 * FLOOD_SECONDS
    assert shipped["gap"] < GAP_SECONDS
    assert counted["attempts"] > 1_000, "too little to prove anything"


def test_a_monitor_of_all_that_nobody_reads_makes_the_intake_deaf(figures: Figures) -> None:
    """Why a leader's monitor asks for a few events only, and has a thread that does nothing else."""
    unread = flooded("unread")
    figures("F33", f"the same, told to a monitor that nobody reads: deaf after {unread['messages']} messages")
    assert unread["gap"] >= GAP_SECONDS
