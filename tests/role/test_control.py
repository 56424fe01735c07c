"""The control path through real CURVE sockets: who spoke, whom to answer, and what does not belong there."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

from hbagent.core import messages as m
from hbagent.core.config import LeaderConfig
from hbagent.core.effects import Send
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import Admission, Disconnected, Farewell, Hello, Located, Refused
from hbagent.core.states import Outcome
from hbagent.core.units import MILLISECOND
from hbagent.role import agent, leader, peers, root
from hbagent.role import control as control_module
from hbagent.role.control import ControlDealer, ControlRouter, Losses
from hbagent.role.driver import Driver
from hbagent.transport.allow import Role
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyPair
from hbagent.transport.monitor import Link, LinkEvent
from hbagent.transport.sockets import CONTROL_QUEUE_MAX, Context, Host, Target, connect, control_dealer, control_router
from hbagent.wire import codec
from hbagent.wire.version import MAGIC, MAJOR, MINOR, MINOR_ASSUMED
from tests.build import transition
from tests.role.parts import SmallCore, until
from tests.role.test_driver import turn_until
from tests.transport.doors import Door, OpenDoor, Watch, caller, enrolled, new_keys
from tests.wire import samples

NODE1, NODE2 = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")
LEADER = "demo/rack1-leader1"
HELLO = Hello(incarnation=1, interval_ns=1_000_000, version="1.0.0", reads=MINOR)
WELCOME = Admission(accepted=True, epoch=5, reads=MINOR)


class Ends:
    """A router, its dealers, and what each was given."""

    def __init__(self, door: Door, context: Context, locate: bool = False) -> None:
        self.door = door
        self.context = context
        self.heard: list[tuple[str, object]] = []
        self.everything: list[tuple[str, object]] = []
        senders = door.zap._allow.senders(Role.AGENT)
        self.connections = Connections()
        self.router = ControlRouter(
            door.control,
            self._hear,
            senders,
            leader.CONTROL,
            connections=self.connections,
            locate=locate,
        )
        self.told: list[tuple[str, object]] = []

    def _hear(self, name: str, message: object) -> None:
        self.heard.append((name, message))
        self.everything.append((name, message))

    def call(self, keys: KeyPair) -> ControlDealer:
        socket = control_dealer(self.context, caller(keys), [self.door.control_target])
        return ControlDealer(socket, LEADER, lambda name, message: self.told.append((name, message)), agent.CONTROL)

    def until(self, condition: Callable[[], object], *dealers: ControlDealer) -> bool:
        """Drain both ends until the condition holds."""

        def drained() -> object:
            self.router.drain()
            for dealer in dealers:
                dealer.drain()
            return condition()

        return until(drained)

    def greet(self, dealer: ControlDealer) -> None:
        """Say hello until it arrives: a DEALER that is not connected yet drops it."""
        before = len(self.heard)

        def said() -> bool:
            dealer.send(HELLO)
            return len(self.heard) > before

        assert self.until(said)
        # What was said in vain may still be on its way, and comes before this.
        last = Farewell(incarnation=1, sequence=1)
        dealer.send(last)
        assert self.until(lambda: self.heard[-1][1] == last)
        self.heard.clear()

    def refusals(self) -> list[Refused]:
        return [message for _, message in self.heard if isinstance(message, Refused)]


@pytest.fixture
def ends(open_door: OpenDoor, context: Context) -> Ends:
    return Ends(open_door(enrolled(NODE1, NODE2)), context)


@pytest.fixture
def node1(ends: Ends) -> ControlDealer:
    dealer = ends.call(NODE1)
    ends.greet(dealer)
    return dealer


def test_a_hello_arrives_under_the_name_of_its_key_and_is_answered(ends: Ends, node1: ControlDealer) -> None:
    node2 = ends.call(NODE2)
    ends.greet(node2)
    node1.send(HELLO)
    assert ends.until(lambda: (NODE1.name, HELLO) in ends.heard)
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: ends.told, node1, node2)
    assert ends.told == [(LEADER, WELCOME)]
    assert not node2.drain()
    assert ends.router.unsent == 0


def test_the_answer_goes_to_where_the_key_was_heard_last(ends: Ends, node1: ControlDealer) -> None:
    again = ends.call(NODE1)
    ends.greet(again)
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: ends.told, again)
    assert node1.drain() == 0


def test_a_revoked_key_is_neither_heard_nor_answered_and_its_connection_ends(
    ends: Ends, node1: ControlDealer, watch: Watch
) -> None:
    links: list[Link] = []
    watch({"node1": node1.source}, links.append)
    ends.router.replace_senders(enrolled(NODE2).senders(Role.AGENT))
    assert until(lambda: any(link.event is LinkEvent.LOST for link in links)), "without a word from it"
    ends.router.send(NODE1.name, WELCOME)
    assert ends.router.unsent == 1


def test_a_sender_whom_the_list_does_not_know_is_cut_off_at_its_first_word(
    open_door: OpenDoor, context: Context, watch: Watch
) -> None:
    ends = Ends(open_door(enrolled(NODE1, NODE2)), context)
    node1, node2 = ends.call(NODE1), ends.call(NODE2)
    ends.greet(node1)
    ends.router.replace_senders(enrolled(NODE1).senders(Role.AGENT))
    links: list[Link] = []
    watch({"node1": node1.source, "node2": node2.source}, links.append)

    def said() -> bool:
        node2.send(HELLO)
        return any(link.event is LinkEvent.LOST for link in links)

    assert ends.until(said)
    assert {link.socket for link in links if link.event is LinkEvent.LOST} == {"node2"}
    assert {(refused.sender, refused.reason) for refused in ends.refusals()} == {("", "unknown-sender")}
    node1.send(HELLO)
    assert ends.until(lambda: (NODE1.name, HELLO) in ends.heard)


def test_the_connection_of_an_old_key_is_not_answered_in_the_place_of_the_new(ends: Ends, node1: ControlDealer) -> None:
    ends.router.replace_senders(enrolled(new_keys(NODE1.name), NODE2).senders(Role.AGENT))
    ends.router.send(NODE1.name, WELCOME)
    assert ends.router.unsent == 1


def test_a_key_that_stays_is_answered_after_a_reload(ends: Ends, node1: ControlDealer) -> None:
    ends.router.replace_senders(enrolled(NODE1).senders(Role.AGENT))
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: ends.told, node1)


def test_what_does_not_belong_there_is_refused_and_counted(ends: Ends, node1: ControlDealer) -> None:
    others = [message for message in samples.MESSAGES.values() if type(message) not in leader.CONTROL]
    # It would not be sent at all what the leader may not know.
    node1.minor = MINOR
    for message in others:
        node1.send(message)
    assert ends.until(lambda: len(ends.heard) == len(others))
    assert {(refused.sender, refused.reason) for refused in ends.refusals()} == {(NODE1.name, "unexpected-type")}
    assert len(ends.refusals()) == len(others)


def test_garbage_and_parts_are_refused_and_the_next_message_is_heard(ends: Ends, node1: ControlDealer) -> None:
    frame = codec.encode(HELLO)
    node1.source.send(b"")
    node1.source.send(os.urandom(1_000))
    node1.source.send(MAGIC + bytes([MAJOR + 1]) + frame[3:])
    node1.source.send(frame[:4] + b"\x7f" + frame[5:])
    node1.source.send_multipart([frame, frame])
    node1.source.send_multipart([frame] * 50)
    node1.send(HELLO)
    assert ends.until(lambda: (NODE1.name, HELLO) in ends.heard)
    reasons = [refused.reason for refused in ends.refusals()]
    assert reasons == ["malformed", "malformed", "incompatible", "unknown-type", "malformed", "malformed"]
    assert {refused.sender for refused in ends.refusals()} == {NODE1.name}
    assert {name for name, message in ends.heard if isinstance(message, Refused)} <= {"", NODE1.name}


def test_an_agent_believes_its_leader_no_more_than_it_must(ends: Ends, node1: ControlDealer) -> None:
    for message in samples.MESSAGES.values():
        ends.router.send(NODE1.name, message)
    route = ends.router._routes[NODE1.name].id
    ends.door.control.send_multipart([route, b"garbage"])
    ends.door.control.send_multipart([route, codec.encode(WELCOME), b"parts"])
    expected = len(samples.MESSAGES) + 2
    assert ends.until(lambda: len(ends.told) == expected, node1)
    taken = {type(message) for _, message in ends.told if not isinstance(message, Refused)}
    assert taken == set(agent.CONTROL)
    refused = [message for _, message in ends.told if isinstance(message, Refused)]
    assert {one.sender for one in refused} == {LEADER}
    assert {one.reason for one in refused} == {"unexpected-type", "malformed"}
    assert [one.detail for one in refused][-1] == "not one frame"


def test_sending_to_nobody_is_counted_and_never_waits(ends: Ends, node1: ControlDealer, context: Context) -> None:
    # Who waited for somebody to come would wait for ever.
    ends.router.send("demo/rack1/node9", WELCOME)
    lonely = control_dealer(context, caller(NODE2), [])
    dealer = ControlDealer(lonely, LEADER, lambda name, message: None, ())
    for _ in range(10):
        dealer.send(HELLO)
    assert (ends.router.unsent, dealer.unsent) == (1, 10)
    node1.source.close(linger=0)

    def noticed() -> bool:
        ends.router.send(NODE1.name, WELCOME)
        return ends.router.unsent > 1

    assert ends.until(noticed)
    assert NODE1.name not in ends.router._routes


def test_a_peer_that_does_not_read_costs_what_it_is_sent_and_no_waiting(ends: Ends, node1: ControlDealer) -> None:
    long = Admission(accepted=False, epoch=1, reason="x" * 256, reads=MINOR)

    def full() -> bool:
        for _ in range(10 * CONTROL_QUEUE_MAX):
            ends.router.send(NODE1.name, long)
        return ends.router.unsent > 0

    assert until(full)
    assert NODE1.name in ends.router._routes, "full is not gone"


def test_one_draining_takes_no_more_than_its_bound(
    ends: Ends, node1: ControlDealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "DRAIN_MAX", 10)
    counts: list[int] = []

    def drained() -> bool:
        # More come than are taken, so that there are too many sooner or later, however slowly they arrive.
        for sequence in range(1, 41):
            node1.send(Farewell(incarnation=1, sequence=sequence))
        counts.append(ends.router.drain())
        return max(counts) >= 10

    assert until(drained)
    assert max(counts) == 10


def test_the_longest_refusal_of_a_leader_can_be_read_by_an_agent() -> None:
    racks: dict[str, tuple[str, ...]] = {f"demo/rack{number}": () for number in range(100)}
    core = LeaderCore(LeaderConfig(name=LEADER, racks=racks), random.Random(1), 0)
    sent = [effect.message for effect in core.receive(NODE1.name, HELLO, 1) if isinstance(effect, Send)]
    (refusal,) = [message for message in sent if isinstance(message, Admission)]
    assert not refusal.accepted
    assert codec.decode(codec.encode(refusal)) == refusal


def test_every_message_of_the_wire_is_taken_at_some_door() -> None:
    """A message that no door takes would be refused everywhere, and nobody would notice before production."""
    leaders = (leader.PUBLISHED, leader.CONTROL, leader.FROM_ROOT, peers.QUESTIONS, peers.ANSWERS)
    doors: tuple[tuple[type, ...], ...] = (agent.CONTROL, *leaders, root.PUBLISHED, root.CONTROL)
    taken = {kind for door in doors for kind in door}
    assert taken == {*codec.TYPES.values()} - {m.Query, m.Order, m.AnswerPage}


# ---- what the kernel knows of the peers --------------------------------------------------------------------


def test_an_address_is_told_before_the_first_message_and_not_again(open_door: OpenDoor, context: Context) -> None:
    ends = Ends(open_door(enrolled(NODE1)), context, locate=True)
    ends.greet(ends.call(NODE1))
    assert ends.everything[:2] == [("", Located(NODE1.name, "127.0.0.1")), (NODE1.name, HELLO)]
    ends.greet(ends.call(NODE1))
    assert [message for _, message in ends.everything if isinstance(message, Located)] == [
        Located(NODE1.name, "127.0.0.1")
    ]


def test_another_address_is_told_before_what_is_said_from_there(open_door: OpenDoor, context: Context) -> None:
    ends = Ends(open_door(enrolled(NODE1)), context, locate=True)
    ends.greet(ends.call(NODE1))
    target = ends.door.control_target
    elsewhere = control_dealer(context, caller(NODE1), [])
    # libzmq: source address ; destination
    connect(
        elsewhere,
        caller(NODE1),
        Target(target.endpoint.replace("tcp://", "tcp://127.0.0.77:0;"), target.server_key),
    )
    ends.everything.clear()
    ends.greet(ControlDealer(elsewhere, LEADER, lambda name, message: None, ()))
    assert ends.everything[0] == ("", Located(NODE1.name, "127.0.0.77"))


def test_who_may_not_speak_any_more_has_no_address_until_it_may_again(open_door: OpenDoor, context: Context) -> None:
    ends = Ends(open_door(enrolled(NODE1, NODE2)), context, locate=True)
    node1 = ends.call(NODE1)
    ends.greet(node1)
    ends.greet(ends.call(NODE2))
    ends.everything.clear()
    senders = ends.router.senders
    ends.router.replace_senders(enrolled(NODE2).senders(Role.AGENT))
    assert ends.everything == [("", Located(NODE1.name, ""))]
    ends.router.replace_senders(senders)
    ends.everything.clear()
    ends.greet(node1)
    assert ends.everything[0] == ("", Located(NODE1.name, "127.0.0.1"))


def test_a_sender_may_have_kinds_of_its_own(ends: Ends, node1: ControlDealer) -> None:
    senders = ends.door.zap._allow.senders(Role.AGENT)
    ends.router.replace_senders(senders, {NODE2.name: (m.HeardWanted,)})
    node2 = ends.call(NODE2)
    question = samples.MESSAGES["heard-wanted"]

    def asked() -> bool:
        node2.send(question)
        return (NODE2.name, question) in ends.heard

    assert ends.until(asked)
    node2.send(HELLO)
    node1.send(question)
    node1.send(HELLO)
    assert ends.until(lambda: (NODE1.name, HELLO) in ends.heard and len(ends.refusals()) == 2)
    assert {(one.sender, one.detail) for one in ends.refusals()} == {
        (NODE2.name, "Hello"),
        (NODE1.name, "HeardWanted"),
    }


def test_a_route_that_libzmq_gives_up_ends_the_connection_too(ends: Ends, node1: ControlDealer) -> None:
    """What was heard may have waited so long that the number is another connection's by now."""
    with live_connection() as (near, _):
        ends.connections.note(NODE1.name, near.fileno())
        watched = ends.connections.watch(NODE1.name)
        assert watched is not None
        assert watched.look() is None
        node1.source.close(linger=0)

        def noticed() -> bool:
            ends.router.send(NODE1.name, WELCOME)
            return ends.router.unsent > 0

        assert ends.until(noticed)
        assert watched.look() is Outcome.CLOSED


def test_whoever_has_the_number_of_a_connection_now_tells_that_its_peer_is_gone(ends: Ends) -> None:
    """As if node1 had called when node2's connection had just been closed, and were heard before that was told."""
    node1 = ends.call(NODE1)
    ends.greet(node1)
    (fd,) = ends.connections._names
    with live_connection() as (near, _):
        ends.connections.note(NODE2.name, near.fileno())
        earlier = ends.connections._of[NODE2.name]
    earlier.fd = fd
    ends.connections._names[fd] = NODE2.name
    ends.router._routes.clear()
    ends.everything.clear()
    ends.greet(node1)
    assert ends.everything[:2] == [("", Disconnected(NODE2.name)), (NODE1.name, HELLO)]


def test_an_ipv4_peer_of_an_ipv6_socket_has_its_own_address(open_door: OpenDoor, context: Context) -> None:
    door = open_door(enrolled(NODE1))
    host = Host(keys=door.keys, domain="agents", peers_expected=1)
    door.control.close()
    door.control = control_router(door.context, host, "tcp://[::ffff:127.0.0.1]:*")
    port = door.control_target.endpoint.rsplit(":", 1)[1]
    ends = Ends(door, context, locate=True)
    dealer = control_dealer(context, caller(NODE1), [Target(f"tcp://127.0.0.1:{port}", door.control_target.server_key)])
    ends.greet(ControlDealer(dealer, LEADER, lambda name, message: None, ()))
    assert ends.everything[0] == ("", Located(NODE1.name, "127.0.0.1"))


@contextlib.contextmanager
def live_connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as far,
        listener.accept()[0] as near,
    ):
        yield near, far


class Peer:
    """A real process that holds a connection, and reads whatever comes."""

    SOURCE = """
import sys, time, zmq
from hbagent.core.messages import Hello
from hbagent.transport.keys import KeyPair
from hbagent.transport.sockets import Caller, Target, control_dealer
from hbagent.wire import codec
name, public, secret, endpoint, server_key = sys.argv[1:]
keys = KeyPair(name=name, public=public, secret=secret)
caller = Caller(name=name, keys=keys, reconnect_ms=50)
dealer = control_dealer(zmq.Context(), caller, [Target(endpoint, server_key)])
assert dealer.poll(20_000, zmq.POLLOUT)
dealer.send(codec.encode(Hello(incarnation=1, interval_ns=10**9, version="1")))
while True:
    dealer.recv()
"""

    def __init__(self, keys: KeyPair, target: Target) -> None:
        words = [keys.name, keys.public, keys.secret, target.endpoint, target.server_key]
        self.process = subprocess.Popen([sys.executable, "-c", self.SOURCE, *words])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Desk:
    """A driver with a bound control socket, and everything that watches its connections."""

    def __init__(self, driver: Driver, core: SmallCore, door: Door, watch: Watch) -> None:
        self.driver = driver
        self.core = core
        self.door = door
        self.connections = Connections()
        senders = door.zap._allow.senders(Role.AGENT)
        router = ControlRouter(door.control, driver.feed, senders, leader.CONTROL, connections=self.connections)
        driver.add(router)
        self.losses = Losses(self.connections, driver)
        self.told: list[Link] = []
        watch({"control": door.control}, self._tell, (LinkEvent.LOST,))

    def _tell(self, link: Link) -> None:
        self.losses.told(link)
        self.told.append(link)

    def turn_until(self, condition: Callable[[], object]) -> bool:
        return turn_until(self.driver, condition)

    def hear(self, peer: str) -> bool:
        """Until that peer has said hello."""
        return self.turn_until(lambda: any(sender == peer for sender, _ in self.core.story))


@pytest.fixture
def desk(driver: Driver, core: SmallCore, open_door: OpenDoor, watch: Watch) -> Desk:
    return Desk(driver, core, open_door(enrolled(NODE1, NODE2)), watch)


@pytest.fixture
def start_peer() -> Iterator[Callable[[KeyPair, Target], Peer]]:
    """Starts processes that are killed after the test."""
    started: list[Peer] = []

    def start(keys: KeyPair, target: Target) -> Peer:
        started.append(Peer(keys, target))
        return started[-1]

    yield start
    for peer in started:
        peer.end()


def test_a_killed_process_is_told_of_under_its_name_and_no_other(
    desk: Desk, start_peer: Callable[[KeyPair, Target], Peer]
) -> None:
    peers = [start_peer(keys, desk.door.control_target) for keys in (NODE1, NODE2)]
    assert desk.hear(NODE1.name)
    assert desk.hear(NODE2.name)
    peers[0].process.kill()
    assert desk.turn_until(lambda: desk.core.messages(Disconnected))
    assert desk.core.messages(Disconnected) == [Disconnected(NODE1.name)]
    peers[1].process.kill()
    assert desk.turn_until(lambda: len(desk.core.messages(Disconnected)) == 2)
    assert desk.core.messages(Disconnected)[1] == Disconnected(NODE2.name)


def test_who_connects_and_hangs_up_without_a_name_costs_the_loop_nothing(
    desk: Desk, start_peer: Callable[[KeyPair, Target], Peer]
) -> None:
    peer = start_peer(NODE1, desk.door.control_target)
    assert desk.hear(NODE1.name)
    address, port = desk.door.control_target.endpoint.removeprefix("tcp://").split(":")
    for _ in range(300):
        socket.create_connection((address, int(port)), timeout=30).close()
    assert until(lambda: len(desk.told) >= 300)
    assert desk.driver.mailbox.take() == []
    peer.process.kill()
    assert desk.turn_until(lambda: desk.core.messages(Disconnected))
    assert desk.core.messages(Disconnected) == [Disconnected(NODE1.name)]


def test_a_loss_that_is_told_a_thousand_times_is_handed_over_once(desk: Desk, context: Context) -> None:
    dealer = control_dealer(context, caller(NODE1), [desk.door.control_target])
    assert dealer.poll(20_000, zmq.POLLOUT)
    dealer.send(codec.encode(HELLO))
    assert desk.hear(NODE1.name)
    (fd,) = desk.connections._names
    for _ in range(1_000):
        desk.losses.told(Link("control", LinkEvent.LOST, "", fd))
    assert len(desk.driver.mailbox.take()) == 1
    # It lives, whatever was told: a number that came back is not the connection that ended.
    desk.losses._look()
    assert not desk.core.messages(Disconnected)


@pytest.mark.parametrize("looks", [1, 3])
def test_a_connection_that_is_closed_a_moment_after_it_was_told_is_gone(
    desk: Desk, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libzmq tells of it first, and its thread may have to wait for a processor before it closes."""
    seen: list[int] = []
    gone = desk.connections.gone

    def look(fd: int) -> str | None:
        seen.append(fd)
        return gone(fd)

    monkeypatch.setattr(desk.connections, "gone", look)
    with live_connection() as (near, _):
        fd = near.fileno()
        desk.connections.note(NODE1.name, fd)
        desk.losses.told(Link("control", LinkEvent.LOST, "", fd))
        assert desk.turn_until(lambda: len(seen) == looks)
        assert not desk.core.messages(Disconnected)
        near.close()
        assert desk.turn_until(lambda: desk.core.messages(Disconnected))


def test_a_connection_that_lives_on_is_not_looked_at_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "CLOSED_WITHIN_NS", 40 * MILLISECOND)
    with live_connection() as (near, _):
        desk.connections.note(NODE1.name, near.fileno())
        desk.losses.told(Link("control", LinkEvent.LOST, "", near.fileno()))
        assert desk.turn_until(lambda: desk.driver._timers)
        assert desk.turn_until(lambda: not desk.driver._timers)
        assert not desk.core.messages(Disconnected)


def test_verdicts_are_counted_one_by_one_so_that_a_storm_of_them_holds_nobody_up(
    ends: Ends, node1: ControlDealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.router.replace_senders(ends.router.senders, {NODE1.name: (m.Transitions, Hello)})
    monkeypatch.setattr(control_module, "DRAIN_MAX", 10)
    for number in range(4):
        items = tuple(transition(number * 5 + k + 1) for k in range(5))
        node1.send(m.Transitions(epoch=1, base=1, after=number * 5, items=items))
    taken: list[tuple[int, int]] = []

    def drained() -> bool:
        before = len(ends.heard)
        taken.append((ends.router.drain(), len(ends.heard) - before))
        return len(ends.heard) == 4

    assert until(drained)
    assert {count for count in taken if count[1]} <= {(5, 1), (10, 2)}


# ---- which minor is spoken -------------------------------------------------------------------------------


def say(ends: Ends, dealer: ControlDealer, message: m.WireMessage, minor: int) -> None:
    """As it is, at that minor: to `send` it would introduce this version."""
    ends.heard.clear()
    dealer.source.send(codec.encode(message, minor))
    assert ends.until(lambda: (NODE1.name, message) in ends.heard)


def test_both_ends_speak_the_minor_before_their_own_until_the_other_has_said_what_it_reads(
    ends: Ends,
) -> None:
    node1 = ends.call(NODE1)
    assert (node1.minor, ends.router.minor_of(NODE1.name)) == (MINOR_ASSUMED, MINOR_ASSUMED)
    ends.greet(node1)
    assert ends.router.minor_of(NODE1.name) == MINOR
    assert node1.minor == MINOR_ASSUMED
    ends.router.send(NODE1.name, WELCOME)
    assert ends.until(lambda: WELCOME in [message for _, message in ends.told], node1)
    assert node1.minor == MINOR
    node1.lost()
    assert node1.minor == MINOR_ASSUMED


@pytest.mark.parametrize("minor", [0, MINOR - 1, MINOR])
def test_who_announces_nothing_is_spoken_to_in_the_minor_of_its_head(
    ends: Ends, node1: ControlDealer, minor: int
) -> None:
    say(ends, node1, msgspec.structs.replace(HELLO, reads=0), minor)
    assert ends.router.minor_of(NODE1.name) == minor


def test_what_a_newer_peer_reads_is_no_more_than_we_can_write(ends: Ends, node1: ControlDealer) -> None:
    say(ends, node1, msgspec.structs.replace(HELLO, reads=MINOR + 9), MINOR)
    assert ends.router.minor_of(NODE1.name) == MINOR


def test_another_connection_of_a_peer_has_to_announce_anew(ends: Ends, node1: ControlDealer) -> None:
    again = ends.call(NODE1)
    assert again.source.poll(20_000, zmq.POLLOUT)
    again.send(Farewell(incarnation=1, sequence=7))
    assert ends.until(lambda: (NODE1.name, Farewell(incarnation=1, sequence=7)) in ends.heard)
    assert ends.router.minor_of(NODE1.name) == MINOR_ASSUMED


def test_what_a_peer_may_not_know_is_withheld_and_counted(ends: Ends, node1: ControlDealer) -> None:
    ends.router.send(NODE1.name, m.Welcome(reads=MINOR))
    assert ends.router.withheld == 0
    say(ends, node1, msgspec.structs.replace(HELLO, reads=0), MINOR - 1)
    ends.router.send(NODE1.name, m.Welcome(reads=MINOR))
    assert (ends.router.withheld, ends.router.unsent) == (1, 0)
    unsent = node1.unsent
    node1.send(m.Welcome(reads=MINOR))
    assert (node1.withheld, node1.unsent) == (1, unsent)
