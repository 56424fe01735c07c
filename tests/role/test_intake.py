"""Frames of authenticated peers, through real CURVE sockets: who sent it, whether that still counts, what it is."""

from __future__ import annotations

import itertools
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
import zmq

from hbagent.core import messages as m
from hbagent.core.effects import Effect, Note
from hbagent.core.messages import Beat, Refused, Report
from hbagent.role import intake as intake_module
from hbagent.role.intake import Intake
from hbagent.transport.allow import Role
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyPair
from hbagent.transport.monitor import Link, LinkEvent
from hbagent.transport.sockets import Context, Socket, report_publisher
from hbagent.wire import beat as beat_wire
from hbagent.wire import codec
from hbagent.wire.version import FRAME_SIZE_MAX, MAGIC, MAJOR, MINOR
from tests.role.parts import until
from tests.transport.doors import Door, OpenDoor, Watch, caller, enrolled, new_keys
from tests.wire import samples

NODE1, NODE2 = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")
#: What a caller sends until its connection carries; counted nowhere.
KNOCK = b"kno"
LAST_KNOCK = b"kn"


class Desk:
    """Where an intake's findings are laid: beats, messages, refusals, in the order of their arrival."""

    def __init__(self, door: Door, **options: Any) -> None:
        self.beats: list[tuple[Any, ...]] = []
        self.fed: list[tuple[str, object]] = []
        self.refused: list[Refused] = []
        self.performed: list[tuple[Effect, str]] = []
        self.defects: list[tuple[str, BaseException, str]] = []
        self.knocks: Counter[str] = Counter()
        self.last_knocks: Counter[str] = Counter()
        self.effects: tuple[Effect, ...] = ()
        options.setdefault("beat", self._beat)
        self.intake = Intake(
            door.intake,
            self._feed,
            door.zap._allow.senders(Role.AGENT),
            options.pop("beat"),
            lambda effects, sender: self.performed.extend((effect, sender) for effect in effects),
            accepts=options.pop("accepts", (Report,)),
            defect=lambda where, error, sender: self.defects.append((where, error, sender)),
            connections=Connections(),
            **options,
        )

    def _beat(self, *numbers: Any) -> Iterable[Effect]:
        self.beats.append(numbers)
        return self.effects

    def _feed(self, sender: str, message: object) -> None:
        if isinstance(message, Refused):
            if message.detail == f"{len(KNOCK)} bytes are less than a head":
                self.knocks[message.sender] += 1
            elif message.detail == f"{len(LAST_KNOCK)} bytes are less than a head":
                self.last_knocks[message.sender] += 1
            else:
                self.refused.append(message)
        else:
            self.fed.append((sender, message))

    def drain_until(self, condition: Callable[[], object]) -> bool:
        """Drain until the condition holds; False when it does not within the bound."""

        def drained() -> object:
            self.intake.drain()
            return condition()

        return until(drained)

    def knocked(self, socket: Socket, name: str) -> bool:
        """Send until something arrives."""
        before = self.knocks[name]

        def knock() -> bool:
            socket.send(KNOCK)
            return self.knocks[name] > before

        # What is still under way would be counted as something else later on: the last one is told apart.
        if not self.drain_until(knock):
            return False
        socket.send(LAST_KNOCK)
        return self.drain_until(lambda: self.last_knocks[name])

    def reasons(self) -> Counter[str]:
        return Counter(refused.reason for refused in self.refused)


def connected(desk: Desk, context: Context, door: Door, keys: KeyPair) -> Socket:
    """A publisher of `keys` whose frames arrive."""
    socket = report_publisher(context, caller(keys), [door.publish], 10_000)
    assert desk.knocked(socket, keys.name)
    return socket


def beat(sequence: int, **changes: Any) -> bytes:
    values = {"incarnation": 7, "sent_mono_ns": 5_000, "due_in_ns": 1_000_000, "interval_ns": 2_000_000, **changes}
    return beat_wire.encode(Beat(sequence=sequence, **values))


@pytest.fixture
def door(open_door: OpenDoor) -> Door:
    return open_door(enrolled(NODE1, NODE2))


@pytest.fixture
def desk(door: Door) -> Desk:
    return Desk(door)


@pytest.fixture
def node1(desk: Desk, context: Context, door: Door) -> Socket:
    return connected(desk, context, door, NODE1)


def test_a_beat_is_numbers_with_the_name_of_its_key(desk: Desk, context: Context, door: Door, node1: Socket) -> None:
    node2 = connected(desk, context, door, NODE2)
    node1.send(beat(41, loop_gap_ns=3_000, progress=9, health_digest=8))
    assert desk.drain_until(lambda: len(desk.beats) == 1)
    node2.send(beat(1, leaving=True))
    assert desk.drain_until(lambda: len(desk.beats) == 2)
    *first, arrived = desk.beats[0]
    assert first == ["demo/rack1/node1", 7, 41, 5_000, 1_000_000, 2_000_000, 3_000, 9, 8, False]
    *second, arrived_later = desk.beats[1]
    assert second == ["demo/rack1/node2", 7, 1, 5_000, 1_000_000, 2_000_000, 0, 0, 0, True]
    assert arrived < arrived_later


def test_what_a_beat_brings_about_is_performed_on_its_senders_account(desk: Desk, node1: Socket) -> None:
    desk.effects = (Note("info", "joined"),)
    node1.send(beat(1))
    assert desk.drain_until(lambda: desk.performed)
    assert desk.performed == [(Note("info", "joined"), NODE1.name)]


def test_a_taker_is_asked_first_and_never_about_a_farewell(door: Door, context: Context) -> None:
    taken: list[int] = []

    def take(incarnation: int, sequence: int, *rest: int) -> bool:
        taken.append(sequence)
        return sequence != 2

    desk = Desk(door, takers={NODE1.name: take})
    socket = connected(desk, context, door, NODE1)
    for frame in (beat(1), beat(2), beat(3, leaving=True)):
        socket.send(frame)
    assert desk.drain_until(lambda: len(desk.beats) == 2)
    assert taken == [1, 2]
    assert [numbers[2] for numbers in desk.beats] == [2, 3]


def test_a_report_goes_on_with_its_senders_name(desk: Desk, node1: Socket) -> None:
    node1.send(codec.encode(samples.REPORT))
    assert desk.drain_until(lambda: desk.fed)
    assert desk.fed == [(NODE1.name, samples.REPORT)]


# ---- who -------------------------------------------------------------------------------------------------


def test_a_revoked_keys_connection_delivers_nothing_more_and_is_cut(
    desk: Desk, context: Context, door: Door, node1: Socket, watch: Watch
) -> None:
    links: list[Link] = []
    watch({"node1": node1}, links.append)
    node2 = connected(desk, context, door, NODE2)
    node1.send(beat(1))
    assert desk.drain_until(lambda: desk.beats)
    desk.intake.senders = enrolled(NODE2).senders(Role.AGENT)
    for sequence in range(2, 52):
        node1.send(beat(sequence))
        node1.send(codec.encode(samples.REPORT))
    assert desk.drain_until(lambda: any(link.event is LinkEvent.LOST for link in links))
    assert set(desk.reasons()) == {"unknown-sender"}
    assert len(desk.beats) == 1
    assert desk.fed == []
    assert {refused.sender for refused in desk.refused} == {""}
    node2.send(beat(1))
    assert desk.drain_until(lambda: len(desk.beats) == 2), "the others go on"


def test_a_key_that_is_enrolled_again_is_heard_again_once_it_calls_again(
    desk: Desk, node1: Socket, watch: Watch
) -> None:
    senders = desk.intake.senders
    links: list[Link] = []
    watch({"node1": node1}, links.append)
    desk.intake.senders = {}
    node1.send(beat(1))
    assert desk.drain_until(lambda: desk.refused)
    assert until(lambda: links), "its connection was cut"
    assert links[0].event is LinkEvent.LOST
    desk.intake.senders = senders

    def beats() -> bool:
        node1.send(beat(2))
        return bool(desk.beats)

    assert desk.drain_until(beats)
    assert {numbers[2] for numbers in desk.beats} == {2}


def test_frames_without_an_authenticated_key_are_nobodys() -> None:
    context: Context = zmq.Context()
    receiver: Socket = context.socket(zmq.SUB)
    receiver.subscribe(b"")
    sender: Socket = context.socket(zmq.XPUB)
    receiver.bind("inproc://no-key")
    sender.connect("inproc://no-key")
    fed: list[object] = []
    intake = Intake(receiver, lambda name, message: fed.append(message), {"": "demo/rack1/node1"})
    try:
        # A bound SUB subscribes only when its own thread looks at it.
        assert until(lambda: receiver.poll(0) or sender.poll(0))
        sender.send(beat(1))
        sender.send(b"garbage")
        assert until(lambda: intake.drain() >= 0 and len(fed) == 2)
        assert fed == [Refused("", "unknown-sender"), Refused("", "unknown-sender")]
    finally:
        context.destroy(linger=0)


# ---- what ------------------------------------------------------------------------------------------------


def test_messages_of_other_peoples_are_refused_by_kind(desk: Desk, node1: Socket) -> None:
    """An agent is no console and no leader: a core has handlers for these, so the door must not let them through."""
    others = [message for message in samples.MESSAGES.values() if not isinstance(message, Report)]
    assert {type(message) for message in others} >= {m.Query, m.RackSummary, m.Transitions, m.TransitionsAck, m.Hello}
    for message in others:
        node1.send(codec.encode(message))
    assert desk.drain_until(lambda: desk.reasons()["unexpected-type"] == len(others))
    assert desk.fed == []
    assert {refused.sender for refused in desk.refused} == {NODE1.name}
    assert sorted(refused.detail for refused in desk.refused) == sorted(type(message).__name__ for message in others)


def test_a_door_without_beats_refuses_them(door: Door, context: Context) -> None:
    desk = Desk(door, beat=None)
    socket = connected(desk, context, door, NODE1)
    socket.send(beat(1))
    socket.send(beat(1)[:3] + bytes([MINOR + 1]) + beat(1)[4:] + b"more")
    assert desk.drain_until(lambda: len(desk.refused) == 2)
    assert desk.refused == [Refused(NODE1.name, "unexpected-type", "Beat")] * 2


def malformed_beats() -> list[bytes]:
    good = beat(5)
    fields = list(beat_wire.LAYOUT.unpack(good))
    frames = [good[:-1], good + b"x", good[:20]]
    for index, value in ((3, 0), (3, 2**63), (4, 2**63), (6, 0)):
        frames.append(beat_wire.LAYOUT.pack(*(value if at == index else field for at, field in enumerate(fields))))
    return frames


def test_every_odd_beat_is_refused_and_counted(desk: Desk, node1: Socket) -> None:
    frames = malformed_beats()
    for frame in frames:
        node1.send(frame)
    assert desk.drain_until(lambda: len(desk.refused) == len(frames))
    assert desk.beats == []
    assert desk.reasons() == {"malformed": len(frames)}


def test_garbage_of_every_size_is_refused_and_counted(desk: Desk, node1: Socket) -> None:
    sizes = [0, 1, 4, 6, 49, 50, 51, 64, 65, 1_000, FRAME_SIZE_MAX]
    for size in sizes:
        node1.send(os.urandom(size))
        node1.send((MAGIC + bytes([MAJOR, MINOR, 0x14]) + os.urandom(FRAME_SIZE_MAX))[:size])
    node1.send(codec.encode(samples.REPORT)[:-1])
    assert desk.drain_until(lambda: len(desk.refused) == 2 * len(sizes) + 1)
    assert desk.beats == []
    assert desk.fed == []
    assert set(desk.reasons()) <= {"malformed", "unknown-type", "incompatible"}
    assert desk.defects == []
    node1.send(beat(1))
    assert desk.drain_until(lambda: desk.beats), "the connection lives"


def test_a_frame_over_the_limit_costs_its_sender_the_connection_and_nobody_else_anything(
    desk: Desk, context: Context, door: Door, node1: Socket
) -> None:
    node2 = connected(desk, context, door, NODE2)
    node1.send(bytes(FRAME_SIZE_MAX + 1_000))
    node2.send(beat(1))
    assert desk.drain_until(lambda: desk.beats)
    assert desk.knocked(node1, NODE1.name), "it comes back by itself"
    assert [numbers[0] for numbers in desk.beats] == [NODE2.name]
    assert desk.fed == []


def test_the_parts_of_a_message_stand_each_for_itself(desk: Desk, node1: Socket) -> None:
    node1.send_multipart([beat(1), b"demo/rack1/node2 says hello", beat(2)])
    assert desk.drain_until(lambda: len(desk.beats) == 2 and desk.refused)
    assert [numbers[:3] for numbers in desk.beats] == [(NODE1.name, 7, 1), (NODE1.name, 7, 2)]
    assert desk.reasons() == {"malformed": 1}
    assert {refused.sender for refused in desk.refused} == {NODE1.name}


def test_other_versions_are_told_apart(desk: Desk, node1: Socket) -> None:
    good = beat(5)
    node1.send(MAGIC + bytes([MAJOR + 1, 0, 0x01]) + good[5:])
    node1.send(MAGIC + bytes([MAJOR, MINOR + 1, 0x7F]) + b"whatever")
    node1.send(MAGIC + bytes([MAJOR, MINOR + 1, 0x01]) + good[5:] + struct.pack("!I", 17))
    report = codec.encode(samples.REPORT)
    body = {**msgspec.msgpack.decode(report[5:]), "of_a_later_minor": [1, 2]}
    node1.send(report[:3] + bytes([MINOR + 1]) + report[4:5] + msgspec.msgpack.encode(body))
    assert desk.drain_until(lambda: desk.fed)
    assert [(refused.sender, refused.reason) for refused in desk.refused] == [
        (NODE1.name, "incompatible"),
        (NODE1.name, "unknown-type"),
    ]
    assert f"protocol {MAJOR + 1}.0" in desk.refused[0].detail
    assert [numbers[2] for numbers in desk.beats] == [5], "a longer beat of a later minor is a beat"
    assert desk.fed == [(NODE1.name, samples.REPORT)]


# ---- bounds and defects ----------------------------------------------------------------------------------


def test_one_draining_takes_no_more_than_its_bound(desk: Desk, node1: Socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "DRAIN_MAX", 100)
    sequences = itertools.count(1)
    counts: list[int] = []

    def drained() -> bool:
        # More come than are taken, so that there are too many sooner or later, however slowly they arrive.
        for sequence in itertools.islice(sequences, 350):
            node1.send(beat(sequence))
        counts.append(desk.intake.drain())
        return max(counts) >= 100

    assert until(drained)
    assert max(counts) == 100
    sent = next(sequences) - 1
    assert desk.drain_until(lambda: len(desk.beats) == sent)
    assert [numbers[2] for numbers in desk.beats] == list(range(1, sent + 1))
    assert desk.intake.drain() == 0


def test_a_core_that_raises_at_one_frame_gets_all_others(door: Door, context: Context) -> None:
    seen: list[int] = []

    def fussy(name: str, incarnation: int, sequence: int, *rest: Any) -> Iterable[Effect]:
        if sequence % 2:
            raise LookupError(sequence)
        seen.append(sequence)
        return ()

    desk = Desk(door, beat=fussy)
    socket = connected(desk, context, door, NODE1)
    for sequence in range(1, 11):
        socket.send(beat(sequence))
    assert desk.drain_until(lambda: len(seen) == 5 and len(desk.defects) == 5)
    assert seen == [2, 4, 6, 8, 10]
    assert {(where, sender) for where, _, sender in desk.defects} == {("frame", NODE1.name)}


def test_a_socket_that_is_broken_is_no_peers_fault(desk: Desk, door: Door) -> None:
    door.intake.close()
    with pytest.raises(zmq.ZMQError):
        desk.intake.drain()
    assert desk.defects == []
