"""Rows F28 and F29: what another version says, and what nobody means."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet, ids
from tests.e2e.intruder import UNKNOWN_TYPE, beat, of_next_major
from tests.e2e.test_intruders import knock

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("healed"), pytest.mark.paired, pytest.mark.timeout(120)]

INTERVAL = 0.2
#: The shortest silence that ends in DEAD.
DEAD_AFTER = 2.5
LEADER = "rack1-leader1"
VECTORS = Path(__file__).resolve().parent.parent / "wire" / "vectors"
PLAN = Plan(racks=1, nodes=3, interval="200ms")
#: How long each kind of garbage comes in, and how many connections it takes to prove anything, of each port.
FLOOD_SECONDS = 3.0
FLOOD_MIN = 50
#: What a node that is only late is refused for.
LATE = ("old", "stale")
#: The garbage is the same in each run.
SEED = 29


@pytest.fixture(scope="module")
def fleet(build: Build) -> Fleet:
    made = build(PLAN)
    made.wake_up()
    return made


def vector(name: str) -> bytes:
    """A frame that another version sends, from the vectors of the wire."""
    lines = (VECTORS / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line.partition("#")[0] for line in lines))


# ---- F28: other versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["LEFT", "DEAD", "ALIVE"])
def test_a_node_of_the_next_major_is_incompatible_and_never_dead(fleet: Fleet, figures: Figures, before: str) -> None:
    """Whatever became of the agent before it: it has said goodbye, was killed and is told dead, or dies meanwhile."""
    name = "rack1-node1"
    counted = fleet.refused("incompatible", LEADER)
    if before == "LEFT":
        fleet.end(name)
    elif before == "DEAD":
        fleet.kill(name)
    fleet.until_liveness(name, before)
    mark = fleet.newest()
    with knock(fleet, LEADER, name) as newer:
        assert newer.is_admitted()
        if before == "ALIVE":
            fleet.signal(name, signal.SIGSTOP)
        until = time.monotonic() + 2 * DEAD_AFTER
        sequence = 0
        while time.monotonic() < until:
            sequence += 1
            newer.say(of_next_major(beat(5, sequence, INTERVAL)))
            time.sleep(INTERVAL)
            if before == "ALIVE" and sequence == 5:
                fleet.kill(name)
        assert fleet.state(name) == ("UNKNOWN", "incompatible")
        fleet.until(lambda: fleet.refused("incompatible", LEADER) - counted >= newer.said, "all counted")
        assert fleet.refused("incompatible", LEADER) - counted == newer.said
        figures(
            "F28", f"beats of the next major: sent {newer.said}, counted {newer.said}, the node UNKNOWN(incompatible)"
        )
        assert not fleet.events(mark, "node-dead")
    # When that falls silent too, silence is silence.
    fleet.until_liveness(name, "DEAD")
    fleet.start([name])
    fleet.until_liveness(name, "ALIVE")


def test_what_a_newer_minor_adds_is_ignored_or_counted(fleet: Fleet, figures: Figures) -> None:
    name = "rack1-node2"
    mark = fleet.newest()
    before = {reason: fleet.refused(reason, LEADER) for reason in ("unknown-type", "malformed", "incompatible")}
    with knock(fleet, LEADER, name) as newer, knock(fleet, LEADER, name, "control") as control:
        assert newer.is_admitted()
        for _ in range(10):
            newer.say(vector("x-newer-type"), UNKNOWN_TYPE)
            control.say(vector("x-newer-hello-with-unknown-fields"), vector("x-newer-type"))
        fleet.until(lambda: fleet.refused("unknown-type", LEADER) - before["unknown-type"] >= 30, "all counted")
        fleet.until(lambda: control.socket.poll(0), "the hello with unknown fields is answered")
    assert fleet.refused("unknown-type", LEADER) - before["unknown-type"] == 30
    assert fleet.refused("malformed", LEADER) == before["malformed"]
    assert fleet.refused("incompatible", LEADER) == before["incompatible"]
    assert ids(fleet.lasting(mark)) == []
    figures("F28", "types of a newer minor: sent 30, counted 30; unknown fields ignored")


# ---- F29: garbage ----------------------------------------------------------------------------------------


def noise(rng: random.Random) -> Iterator[bytes]:
    """Bytes of any kind."""
    yield rng.randbytes(rng.choice((1, 10, 100, 1_000, 60_000)))


def mangled(rng: random.Random) -> Iterator[bytes]:
    """A ZMTP 3 conversation in which something is wrong: greeting, mechanism, commands, sizes."""
    mechanism = rng.choice((b"NULL", b"CURVE", b"PLAIN", b"GSSAPI", rng.randbytes(20)))[:20].ljust(20, b"\0")
    greeting = bytearray(b"\xff" + bytes(8) + b"\x7f\x03" + bytes([rng.randrange(3)]) + mechanism + bytes(32))
    if rng.random() < 0.3:
        greeting[rng.randrange(len(greeting))] ^= 1 << rng.randrange(8)
    yield bytes(greeting[: rng.choice((10, 11, 12, 64, 64, 64))])
    for _ in range(rng.randrange(1, 5)):
        name = rng.choice((b"HELLO", b"WELCOME", b"INITIATE", b"READY", b"MESSAGE", b"SUBSCRIBE", b"PING"))
        body = bytes([len(name)]) + name + rng.randbytes(rng.choice((0, 8, 194, 300)))
        if rng.random() < 0.3:
            # A size that nothing follows.
            yield b"\x06" + struct.pack(">Q", rng.choice((2**63 - 1, 2**32, 65_537))) + body
        elif len(body) < 256:
            yield b"\x04" + bytes([len(body)]) + body
        else:
            yield b"\x06" + struct.pack(">Q", len(body)) + body


def flood(
    port: int, kind: Callable[[random.Random], Iterator[bytes]], counts: dict[int, int], enough: threading.Event
) -> None:
    """Connect, say something, hang up, again and again; how many connections that were is in `counts`."""
    rng = random.Random(SEED)
    held: list[socket.socket] = []
    while not enough.is_set():
        counts[port] += 1
        with contextlib.suppress(OSError):
            caller = socket.create_connection(("127.0.0.1", port), 1.0)
            caller.settimeout(0.05)
            held.append(caller)
            for piece in kind(rng):
                caller.sendall(piece)
            if rng.random() < 0.2:
                caller.recv(256)
        # Some stay open, as those of a slow attacker do.
        while len(held) > 50:
            held.pop(rng.randrange(len(held))).close()
    for caller in held:
        caller.close()


def not_late(fleet: Fleet, of: str) -> dict[str, int]:
    """What was refused for another reason than its age, by reason."""
    return {reason: count for reason, count in fleet.refusals(of).items() if reason not in LATE}


@pytest.mark.parametrize("kind", [noise, mangled])
@pytest.mark.parametrize("at_", [LEADER, "root"])
def test_garbage_on_the_ports_is_nobodys_message(
    fleet: Fleet, figures: Figures, at_: str, kind: Callable[[random.Random], Iterator[bytes]]
) -> None:
    mark = fleet.newest()
    refused, rss = not_late(fleet, at_), fleet.rss_bytes(at_)
    enough = threading.Event()
    ports = [int(fleet.setting(at_, port).rpartition(":")[2]) for port in ("publish", "control")]
    counts = dict.fromkeys(ports, 0)
    threads = [threading.Thread(target=flood, args=(port, kind, counts, enough)) for port in ports]
    for thread in threads:
        thread.start()
    ages: list[float] = []
    until = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < until or (min(counts.values()) <= FLOOD_MIN and time.monotonic() < until + 30.0):
        age = fleet.row("rack1-node3", LEADER).get("age_s")
        ages += [] if age is None else [age]
    enough.set()
    for thread in threads:
        thread.join()
    heard = sum(after < before for before, after in itertools.pairwise(ages))
    gap, grown = max(ages) - INTERVAL, fleet.rss_bytes(at_) - rss
    figures(
        "F29",
        f"{kind.__name__} at {at_}: {sum(counts.values())} connections, 0 messages, legit beat at most"
        f" {gap * 1000:.0f} ms late (250 ms) and heard {heard} times, RSS +{grown / 2**20:.1f} MiB",
    )
    assert not_late(fleet, at_) == refused, "it was taken for messages"
    assert min(counts.values()) > FLOOD_MIN, "too little to prove anything"
    # Fifteen beats; a machine that stands still for a second hears fewer.
    assert heard >= 3, "a legitimate node was not heard meanwhile"
    assert grown < 32 * 2**20
    assert not fleet.events(mark, "node-dead", "leader-lost")
