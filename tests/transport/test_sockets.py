"""Who gets through, over real sockets: the doors of a leader, and callers good and bad."""

from __future__ import annotations

import contextlib
import grp
import itertools
import os
import socket as bsd
import stat
import struct
import tempfile
from pathlib import Path

import pytest
import zmq

from hbagent.transport import sockets
from hbagent.transport.allow import AllowList, Role
from hbagent.transport.keys import KeyPair
from hbagent.transport.sockets import (
    Caller,
    Context,
    EndpointError,
    Host,
    Target,
    beat_publisher,
    connect,
    control_dealer,
    disconnect,
    intake_subscriber,
    operator_dealer,
    operator_router,
    query_dealer,
    query_router,
    reconnect,
    report_publisher,
)
from tests.loopback import OWN
from tests.transport.doors import ANY_PORT, OpenDoor, caller, enrolled, new_keys, publish_until, until

NODE = "t/r/n1"


def test_an_enrolled_agent_is_heard_under_its_own_key(open_door: OpenDoor, context: Context) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    beats = beat_publisher(context, caller(keys), [door.publish])
    assert publish_until(beats, door.drain)
    user_id, body = door.received[0]
    assert (user_id, body) == (keys.public, b"beat")
    assert enrolled(keys).senders(Role.AGENT)[user_id] == NODE


def test_one_conflating_publisher_reaches_two_leaders_with_different_keys(
    open_door: OpenDoor, context: Context
) -> None:
    keys = new_keys(NODE)
    first, second = open_door(enrolled(keys)), open_door(enrolled(keys))
    assert first.keys != second.keys
    beats = beat_publisher(context, caller(keys), [first.publish, second.publish])
    assert publish_until(beats, lambda: first.drain() and second.drain())


def test_a_restarted_leader_is_reached_again_under_its_own_key(open_door: OpenDoor, context: Context) -> None:
    keys, first_keys = new_keys(NODE), new_keys("t/leader1")
    first, second = open_door(enrolled(keys), keys=first_keys), open_door(enrolled(keys))
    endpoint = first.publish.endpoint
    beats = beat_publisher(context, caller(keys), [first.publish, second.publish])
    assert publish_until(beats, lambda: first.drain() and second.drain())
    first.close()
    # The last server key set on the socket is the second leader's; the first connection still has its own.
    again = open_door(enrolled(keys), keys=first_keys, endpoint=endpoint)
    assert publish_until(beats, again.drain)


def stranger(_: KeyPair, target: Target) -> tuple[Caller, Target]:
    return caller(new_keys(NODE)), target


def stolen_public_key(keys: KeyPair, target: Target) -> tuple[Caller, Target]:
    other = new_keys(NODE)
    return caller(KeyPair(name=NODE, public=keys.public, secret=other.secret)), target


def wrong_server_key(keys: KeyPair, target: Target) -> tuple[Caller, Target]:
    return caller(keys), Target(target.endpoint, new_keys("t/leader").public)


def no_curve(_: KeyPair, target: Target) -> tuple[Caller, Target]:
    return caller(None, NODE), target


@pytest.mark.parametrize("bad", [stranger, stolen_public_key, wrong_server_key, no_curve])
def test_nothing_of_a_bad_caller_gets_through(bad: object, open_door: OpenDoor, context: Context) -> None:
    assert callable(bad)
    keys, witness = new_keys(NODE), new_keys("t/r/witness")
    door = open_door(enrolled(keys, witness))
    wrong_caller, wrong_target = bad(keys, door.publish)
    intruder = beat_publisher(context, wrong_caller, [wrong_target])
    intruder_control = control_dealer(
        context, wrong_caller, [Target(door.control_target.endpoint, wrong_target.server_key)]
    )
    good = beat_publisher(context, caller(witness), [door.publish])

    def knock() -> bool:
        intruder.send(b"forged")
        with contextlib.suppress(zmq.Again):
            intruder_control.send(b"forged", zmq.NOBLOCK)
        return len(door.drain()) >= 50

    # The witness's fifty beats are the bound on how long the intruder is given.
    assert publish_until(good, knock)
    assert {user_id for user_id, _ in door.received} == {witness.public}
    assert door.control.poll(0) == 0


def test_a_bare_peer_without_any_security_gets_nothing_through(open_door: OpenDoor, context: Context) -> None:
    witness = new_keys("t/r/witness")
    door = open_door(enrolled(witness))
    bare = context.socket(zmq.PUB)
    bare.connect(door.publish.endpoint)
    good = beat_publisher(context, caller(witness), [door.publish])

    def knock() -> bool:
        bare.send(b"forged")
        return len(door.drain()) >= 50

    assert publish_until(good, knock)
    assert {body for _, body in door.received} == {b"beat"}


def test_a_key_of_the_wrong_role_gets_nothing_through(open_door: OpenDoor, context: Context) -> None:
    leader, operator, agent = new_keys("t/leader2"), new_keys("alice"), new_keys(NODE)
    allow = enrolled(agent).allow(Role.LEADER, leader.name, leader.public)
    door = open_door(allow.allow(Role.OPERATOR, operator.name, operator.public))
    wrong = [beat_publisher(context, caller(keys), [door.publish]) for keys in (leader, operator)]
    good = beat_publisher(context, caller(agent), [door.publish])

    def knock() -> bool:
        for socket in wrong:
            socket.send(b"forged")
        return len(door.drain()) >= 50

    assert publish_until(good, knock)
    assert {user_id for user_id, _ in door.received} == {agent.public}
    assert until(lambda: door.zap.counts.get("wrong-role", 0) == 2)


def test_nobody_gets_in_while_there_is_no_doorkeeper(open_door: OpenDoor, context: Context) -> None:
    early, late = new_keys("t/r/n1"), new_keys("t/r/n2")
    door = open_door(enrolled(early, late))
    established = beat_publisher(context, caller(early), [door.publish])
    assert publish_until(established, door.drain)
    door.zap.stop()
    assert not door.zap.alive
    newcomer = beat_publisher(context, caller(late), [door.publish])

    def knock() -> bool:
        newcomer.send(b"beat")
        return len(door.drain()) >= 50

    assert publish_until(established, knock)
    assert {user_id for user_id, _ in door.received} == {early.public}


def test_a_revoked_key_on_a_living_connection_is_no_longer_among_the_senders(
    open_door: OpenDoor, context: Context
) -> None:
    old, new = new_keys(NODE), new_keys(NODE)
    allow = enrolled(old, new)
    door = open_door(allow)
    beats = beat_publisher(context, caller(old), [door.publish])
    assert publish_until(beats, door.drain)
    allow = allow.revoke(NODE, old.public)
    door.zap.replace(allow)
    door.received.clear()
    # libzmq keeps the connection; the intake drops each message, although the node's new key is still welcome.
    assert publish_until(beats, door.drain)
    senders = allow.senders(Role.AGENT)
    assert not any(user_id in senders for user_id, _ in door.received)
    assert list(senders.values()) == [NODE]


def test_a_frame_beyond_the_limit_never_arrives_and_one_at_the_limit_does(
    open_door: OpenDoor, context: Context
) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    reports = report_publisher(context, caller(keys), [door.publish])
    largest = b"x" * (64 * 1024)

    def send_both() -> bool:
        reports.send(largest)
        reports.send(largest + b"x" * 1024)
        return len(door.drain()) >= 3

    assert until(send_both)
    assert {len(body) for _, body in door.received} == {len(largest)}


def test_garbage_on_the_port_becomes_no_message(open_door: OpenDoor, context: Context) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    port = int(door.publish.endpoint.rpartition(":")[2])
    # A ZMTP 1.0 frame, which has no handshake at all, and plain noise.
    for garbage in (struct.pack("!BB", 1, 0) + b"\x05\x00evil" * 20, bytes(range(256)) * 8):
        with bsd.create_connection((OWN, port)) as raw:
            raw.sendall(garbage)
    beats = beat_publisher(context, caller(keys), [door.publish])
    assert publish_until(beats, lambda: len(door.drain()) >= 20)
    assert {body for _, body in door.received} == {b"beat"}


def test_the_control_path_answers_the_authenticated_sender(open_door: OpenDoor, context: Context) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    control = control_dealer(context, caller(keys), [door.control_target])
    assert until(lambda: control.poll(0, zmq.POLLOUT))
    control.send(b"hello", zmq.NOBLOCK)
    assert door.control.poll(30_000)
    route, body = door.control.recv_multipart(copy=False)
    assert (body.bytes, body.get("User-Id")) == (b"hello", keys.public)
    door.control.send_multipart([route.bytes, b"welcome"], zmq.NOBLOCK)
    assert control.poll(30_000)
    assert control.recv() == b"welcome"


def test_a_routing_id_of_the_callers_choosing_does_not_change_who_it_is(open_door: OpenDoor, context: Context) -> None:
    victim, thief = new_keys("t/r/victim"), new_keys("t/r/thief")
    door = open_door(enrolled(victim, thief))
    control = sockets.control_dealer(context, caller(thief), [door.control_target])
    control.setsockopt(zmq.ROUTING_ID, victim.public.encode())
    reconnect(control, caller(thief), door.control_target)
    assert until(lambda: control.poll(0, zmq.POLLOUT))
    control.send(b"I am the victim", zmq.NOBLOCK)
    assert door.control.poll(30_000)
    _, body = door.control.recv_multipart(copy=False)
    assert body.get("User-Id") == thief.public


def test_sending_to_a_peer_that_has_gone_is_an_error_not_silence(open_door: OpenDoor) -> None:
    door = open_door(AllowList())
    with pytest.raises(zmq.ZMQError) as caught:
        door.control.send_multipart([b"nobody", b"hello"], zmq.NOBLOCK)
    assert caught.value.errno == zmq.EHOSTUNREACH


def test_a_dealer_that_is_not_connected_does_not_queue(context: Context) -> None:
    with bsd.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = Target(f"tcp://127.0.0.1:{closed.getsockname()[1]}", new_keys("t/leader").public)
        control = control_dealer(context, caller(new_keys(NODE)), [target])
        with pytest.raises(zmq.Again):
            control.send(b"hello", zmq.NOBLOCK)


def test_what_was_published_while_a_leader_was_away_is_not_delivered_later(
    open_door: OpenDoor, context: Context
) -> None:
    keys, leader_keys = new_keys(NODE), new_keys("t/leader")
    door = open_door(enrolled(keys), keys=leader_keys)
    target = door.publish
    reports = report_publisher(context, caller(keys), [target])
    assert publish_until(reports, door.drain)
    door.close()
    for _ in range(200):
        reports.send(b"stale")
    again = open_door(enrolled(keys), keys=leader_keys, endpoint=target.endpoint)
    assert publish_until(reports, again.drain)
    assert {body for _, body in again.received} == {b"beat"}


# ---- plain mode --------------------------------------------------------------------------------------------


def test_plain_mode_on_loopback_takes_a_caller_at_its_word_if_the_name_is_expected(
    open_door: OpenDoor, context: Context
) -> None:
    door = open_door(AllowList.named(Role.AGENT, [NODE]), plain=True)
    unexpected = beat_publisher(context, caller(None, "t/r/other"), [door.publish])
    beats = beat_publisher(context, caller(None, NODE), [door.publish])

    def knock() -> bool:
        unexpected.send(b"forged")
        return len(door.drain()) >= 20

    assert publish_until(beats, knock)
    assert set(door.received) == {(NODE, b"beat")}


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://10.0.0.1:5701",
        "tcp://localhost:5701",
        "tcp://*:5701",
        "tcp://0.0.0.0:5701",
        "tcp://lo:5701",
        "tcp://127.0.0.1.example:5701",
        "tcp://127.0.0.999:5701",
        "tcp://127.0.0.1:5701;10.0.0.1:5701",
        "udp://127.0.0.1:5701",
    ],
)
def test_plain_mode_is_refused_anywhere_else(endpoint: str, context: Context) -> None:
    with pytest.raises(EndpointError, match="plain text is allowed only on loopback"):
        beat_publisher(context, caller(None, NODE), [Target(endpoint)])
    with pytest.raises(EndpointError, match="plain text is allowed only on loopback"):
        intake_subscriber(context, Host(keys=None, domain="agents", peers_expected=1), endpoint)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5701", "tcp://127.8.9.10:*", "tcp://[::1]:1", "ipc:///run/x"])
def test_loopback_and_ipc_are_local(endpoint: str) -> None:
    assert sockets.is_local(endpoint)


def test_calling_without_the_leaders_public_key_is_refused(context: Context) -> None:
    with pytest.raises(EndpointError, match="needs the public key"):
        control_dealer(context, caller(new_keys(NODE)), [Target("tcp://127.0.0.1:5702")])


def test_an_unknown_transport_is_refused(context: Context) -> None:
    keys = new_keys(NODE)
    with pytest.raises(EndpointError, match="tcp:// or ipc://"):
        beat_publisher(context, caller(keys), [Target("pgm://eth0;239.0.0.1:5555", keys.public)])


def test_a_port_that_is_taken_is_named(open_door: OpenDoor, context: Context) -> None:
    door = open_door(AllowList())
    host = Host(keys=new_keys("t/leader"), domain="agents", peers_expected=1)
    with pytest.raises(EndpointError, match=f"{door.publish.endpoint}: Address already in use"):
        intake_subscriber(context, host, door.publish.endpoint)


# ---- options -----------------------------------------------------------------------------------------------


def test_no_socket_uses_zmtp_heartbeats_waits_at_close_or_takes_giant_frames(
    open_door: OpenDoor, context: Context, socket_dir: Path
) -> None:
    door = open_door(AllowList())
    who = caller(new_keys(NODE))
    query = f"ipc://{socket_dir}/q"
    made = [
        door.intake,
        door.control,
        query_router(context, query),
        query_dealer(context, query),
        beat_publisher(context, who, [door.publish]),
        report_publisher(context, who, [door.publish]),
        control_dealer(context, who, [door.control_target]),
    ]
    for socket in made:
        assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 0
        assert socket.getsockopt(zmq.LINGER) == 0
        assert socket.getsockopt(zmq.MAXMSGSIZE) == sockets.MESSAGE_SIZE_MAX
    for socket in [*made[:2], *made[4:]]:
        # Both are needed: a lost host that something is on its way to is found by the one, any other by the other.
        assert socket.getsockopt(zmq.TCP_MAXRT) == (20_000 if socket in made[:2] else 3_000)
        idle, interval, count = zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT
        assert [socket.getsockopt(option) for option in (zmq.TCP_KEEPALIVE, idle, interval, count)] == [1, 10, 5, 3]
    for socket in made[4:]:
        assert socket.getsockopt(zmq.RECONNECT_IVL_MAX) == 0
        assert socket.getsockopt(zmq.IMMEDIATE) == 1
        assert socket.getsockopt(zmq.CONNECT_TIMEOUT) == 2_000
    assert [socket.getsockopt(zmq.CONFLATE) for socket in made[4:]] == [1, 0, 0]
    for socket in made[:2]:
        assert socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1


def test_the_handshake_time_grows_with_the_rack(context: Context) -> None:
    host = Host(keys=new_keys("t/leader"), domain="agents", peers_expected=10_000)
    big = intake_subscriber(context, host, ANY_PORT)
    assert big.getsockopt(zmq.HANDSHAKE_IVL) == 30_000


def test_this_libzmq_is_safe() -> None:
    sockets.require_libzmq()


def test_an_old_libzmq_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "LIBZMQ_MIN", (99, 0, 0))
    with pytest.raises(RuntimeError, match=r"99\.0\.0 is the oldest safe one"):
        sockets.require_libzmq()


# ---- query socket ------------------------------------------------------------------------------------------


def test_a_console_asks_over_a_socket_that_only_owner_and_group_may_open(context: Context, socket_dir: Path) -> None:
    endpoint = f"ipc://{socket_dir}/q"
    router = query_router(context, endpoint)
    assert stat.S_IMODE((socket_dir / "q").stat().st_mode) == 0o660
    dealer = query_dealer(context, endpoint)
    dealer.send(b"status")
    assert router.poll(30_000)
    route, body = router.recv_multipart()
    router.send_multipart([route, b"fine: " + body])
    assert dealer.poll(30_000)
    assert dealer.recv() == b"fine: status"


def test_the_kernel_says_who_asks_over_a_unix_socket(context: Context, socket_dir: Path) -> None:
    router = query_router(context, f"ipc://{socket_dir}/q")
    dealer = query_dealer(context, f"ipc://{socket_dir}/q")
    dealer.send(b"status")
    assert router.poll(30_000)
    frame = router.recv_multipart(copy=False)[-1]
    assert str(frame.get("Peer-Address")).endswith(f":{os.getuid()}:{os.getgid()}:{os.getpid()}")


def test_a_query_socket_is_given_to_a_group(context: Context, socket_dir: Path) -> None:
    mine = grp.getgrgid(os.getegid())
    query_router(context, f"ipc://{socket_dir}/q", mine.gr_name)
    assert (socket_dir / "q").stat().st_gid == mine.gr_gid
    with pytest.raises(EndpointError, match="there is no group 'nobodys-own' on this host"):
        query_router(context, f"ipc://{socket_dir}/other", "nobodys-own")
    assert not (socket_dir / "other").exists()


@pytest.mark.root
def test_a_query_socket_is_given_to_any_group_by_root_and_by_others_only_to_their_own(context: Context) -> None:
    other = next(group for group in grp.getgrall() if group.gr_gid not in (os.getegid(), *os.getgroups()))
    # A directory that another user gets to, which those of pytest are not.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        query_router(context, f"ipc://{place}/q", other.gr_name)
        assert os.stat(f"{place}/q").st_gid == other.gr_gid
        os.seteuid(65534)
        try:
            with pytest.raises(EndpointError, match=f"given to the group {other.gr_name}: .*must be a member"):
                query_router(context, f"ipc://{place}/theirs", other.gr_name)
        finally:
            os.seteuid(0)


def test_an_operator_is_known_by_their_key_and_gets_an_answer(open_door: OpenDoor, context: Context) -> None:
    alice, node = new_keys("alice"), new_keys(NODE)
    allow = AllowList().allow(Role.OPERATOR, "alice", alice.public).allow(Role.AGENT, NODE, node.public)
    door = open_door(allow, domains={"agents": Role.AGENT, "operators": Role.OPERATOR})
    host = Host(keys=door.keys, domain="operators", peers_expected=4)
    port = operator_router(door.context, host, ANY_PORT)
    endpoint = port.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    target = Target(endpoint.rstrip(b"\0").decode(), door.keys.public if door.keys else "")
    consoles = [operator_dealer(context, caller(keys)) for keys in (alice, node, new_keys("eve"))]
    for console in consoles:
        connect(console, caller(alice if console is consoles[0] else node), target)
    assert consoles[0].poll(30_000, zmq.POLLOUT)
    consoles[0].send(b"status")
    assert port.poll(30_000)
    route, frame = port.recv_multipart(copy=False)
    assert (frame.get("User-Id"), frame.bytes) == (alice.public, b"status")
    port.send_multipart([route, b"fine"])
    assert consoles[0].poll(30_000)
    assert not any(console.poll(0, zmq.POLLOUT) for console in consoles[1:]), "neither a node's key nor none"
    assert until(lambda: {note["reason"] for note in door.notes} == {"wrong-role", "unknown-key"})
    port.close()


def test_a_stale_query_socket_is_replaced(context: Context, socket_dir: Path) -> None:
    with bsd.socket(bsd.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_dir / "q"))
    router = query_router(context, f"ipc://{socket_dir}/q")
    dealer = query_dealer(context, f"ipc://{socket_dir}/q")
    dealer.send(b"ping")
    assert router.poll(30_000)


def test_a_living_query_socket_is_not_taken_over(context: Context, socket_dir: Path) -> None:
    with bsd.socket(bsd.AF_UNIX) as living:
        living.bind(str(socket_dir / "q"))
        living.listen()
        with pytest.raises(EndpointError, match="something listens there already"):
            query_router(context, f"ipc://{socket_dir}/q")


def test_a_file_in_the_way_of_the_query_socket_is_not_removed(context: Context, socket_dir: Path) -> None:
    (socket_dir / "q").write_text("precious")
    with pytest.raises(EndpointError, match="exists and is not a socket"):
        query_router(context, f"ipc://{socket_dir}/q")
    assert (socket_dir / "q").read_text() == "precious"


@pytest.mark.parametrize(
    "endpoint", ["ipc://@abstract", "ipc://relative/q", "tcp://127.0.0.1:1", "ipc:///" + "x" * 120]
)
def test_a_query_endpoint_is_an_absolute_path_that_fits(endpoint: str, context: Context) -> None:
    with pytest.raises(EndpointError):
        query_router(context, endpoint)
    with pytest.raises(EndpointError):
        query_dealer(context, endpoint)


def test_a_later_target_can_be_added(open_door: OpenDoor, context: Context) -> None:
    keys = new_keys(NODE)
    first, second = open_door(enrolled(keys)), open_door(enrolled(keys))
    beats = beat_publisher(context, caller(keys), [first.publish])
    connect(beats, caller(keys), second.publish)
    assert publish_until(beats, lambda: first.drain() and second.drain())


def test_a_target_can_be_dropped_and_the_other_keeps_its_beats(open_door: OpenDoor, context: Context) -> None:
    keys = new_keys(NODE)
    first, second = open_door(enrolled(keys)), open_door(enrolled(keys))
    beats = beat_publisher(context, caller(keys), [first.publish, second.publish])
    assert publish_until(beats, lambda: first.drain() and second.drain())
    disconnect(beats, first.publish)
    disconnect(beats, first.publish)
    numbers = itertools.count()

    def only_the_other_hears() -> bool:
        beats.send(str(next(numbers)).encode())
        # What was on its way when the call ended may still come.
        latest = max((int(body) for _, body in first.drain() if body.isdigit()), default=-1)
        return sum(body.isdigit() and int(body) > latest for _, body in second.drain()) >= 20

    assert until(only_the_other_hears)
