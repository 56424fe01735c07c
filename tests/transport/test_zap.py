"""The doorkeeper's answers, and its part in a reload; who gets through over real sockets is in test_sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from hbagent.transport.allow import AllowList, Role
from hbagent.transport.keys import raw_key
from hbagent.transport.sockets import Context, Socket, beat_publisher
from hbagent.transport.zap import NOTES_PER_MINUTE, ZAP_ENDPOINT, ZapServer
from tests.transport.doors import Domains, OpenDoor, caller, enrolled, new_keys, publish_until, until

AGENT = new_keys("t/r/n1")
LEADER = new_keys("t/leader2")
DOMAINS: Domains = {"agents": Role.AGENT, "control": (Role.AGENT, Role.LEADER)}


class Desk:
    """A doorkeeper, asked as libzmq asks it."""

    def __init__(self, context: Context, *, plain: bool = False) -> None:
        self.notes: list[dict[str, object]] = []
        allow = enrolled(AGENT).allow(Role.LEADER, LEADER.name, LEADER.public)
        if plain:
            allow = AllowList.named(Role.AGENT, [AGENT.name])
        self.zap = ZapServer(context, allow, DOMAINS, plain=plain, note=lambda what, fields: self.notes.append(fields))
        self._asker: Socket = context.socket(zmq.REQ)
        self._asker.connect(ZAP_ENDPOINT)

    def ask(self, *credentials: bytes, mechanism: bytes = b"CURVE", domain: bytes = b"agents") -> list[bytes]:
        return self.ask_raw([b"1.0", b"7", domain, b"127.0.0.1", b"", mechanism, *credentials])

    def ask_raw(self, frames: list[bytes]) -> list[bytes]:
        self._asker.send_multipart(frames)
        assert self._asker.poll(30_000)
        return self._asker.recv_multipart()


@pytest.fixture
def desk(context: Context) -> Iterator[Desk]:
    made = Desk(context)
    yield made
    made.zap.stop()


def raw(key: str) -> bytes:
    found = raw_key(key)
    assert found is not None
    return found


def test_a_known_key_is_admitted_with_its_key_as_user_id(desk: Desk) -> None:
    assert desk.ask(raw(AGENT.public)) == [b"1.0", b"7", b"200", b"OK", AGENT.public.encode(), b""]
    assert desk.zap.counts == {"admitted": 1}


def test_a_domain_may_admit_two_roles_and_another_beside_it_one(desk: Desk) -> None:
    for keys in (AGENT, LEADER):
        assert desk.ask(raw(keys.public), domain=b"control")[2:5] == [b"200", b"OK", keys.public.encode()]
    assert desk.ask(raw(new_keys("t/leader3").public), domain=b"control")[3] == b"unknown-key"
    assert desk.ask(raw(LEADER.public))[3] == b"wrong-role"


@pytest.mark.parametrize(
    ("credentials", "mechanism", "domain", "reason"),
    [
        ([raw(new_keys("t/r/n9").public)], b"CURVE", b"agents", b"unknown-key"),
        ([raw(LEADER.public)], b"CURVE", b"agents", b"wrong-role"),
        ([raw(AGENT.public)], b"CURVE", b"leaders", b"unknown-domain"),
        ([raw(AGENT.public)], b"CURVE", b"", b"unknown-domain"),
        ([], b"NULL", b"agents", b"no-curve"),
        ([AGENT.name.encode(), b""], b"PLAIN", b"agents", b"no-curve"),
        ([AGENT.public.encode(), b""], b"PLAIN", b"agents", b"no-curve"),
        ([b"short"], b"CURVE", b"agents", b"unknown-key"),
        ([], b"CURVE", b"agents", b"no-curve"),
    ],
)
def test_anything_else_is_refused_for_good_and_counted_by_reason(
    credentials: list[bytes], mechanism: bytes, domain: bytes, reason: bytes, desk: Desk
) -> None:
    assert desk.ask(*credentials, mechanism=mechanism, domain=domain) == [b"1.0", b"7", b"400", reason, b"", b""]
    assert desk.zap.counts == {reason.decode(): 1}
    assert desk.notes[0]["reason"] == reason.decode()


@pytest.mark.parametrize(
    "frames", [[b""], [b"1.0"], [b"1.0", b"7", b"agents"], [b"9.9", b"7", b"a", b"b", b"c", b"CURVE"]]
)
def test_a_malformed_request_is_answered_and_the_doorkeeper_lives_on(frames: list[bytes], desk: Desk) -> None:
    assert desk.ask_raw(frames)[2] == b"400"
    assert desk.ask(raw(AGENT.public))[2] == b"200"


def test_plain_mode_admits_expected_names_only(context: Context) -> None:
    desk = Desk(context, plain=True)
    assert desk.ask(AGENT.name.encode(), b"x", mechanism=b"PLAIN")[2:5] == [b"200", b"OK", AGENT.name.encode()]
    assert desk.ask(b"t/r/other", b"x", mechanism=b"PLAIN")[2] == b"400"
    assert desk.ask(b"\xff\xfe", b"x", mechanism=b"PLAIN")[2] == b"400"
    assert desk.ask(mechanism=b"NULL")[2] == b"400"
    desk.zap.stop()


def test_a_reload_decides_from_the_next_handshake_on(desk: Desk) -> None:
    newcomer = new_keys("t/r/n2")
    assert desk.ask(raw(newcomer.public))[2] == b"400"
    desk.zap.replace(enrolled(newcomer))
    assert desk.ask(raw(newcomer.public))[2] == b"200"
    assert desk.ask(raw(AGENT.public))[2] == b"400"


def test_refusals_are_told_a_few_times_a_minute_and_counted_always(desk: Desk) -> None:
    for _ in range(5 * NOTES_PER_MINUTE):
        desk.ask(b"k" * 32)
    assert len(desk.notes) == NOTES_PER_MINUTE
    assert desk.zap.counts == {"unknown-key": 5 * NOTES_PER_MINUTE}
    assert desk.notes[0]["address"] == "127.0.0.1"


def test_a_note_that_fails_does_not_end_the_doorkeeper(context: Context) -> None:
    def fail(what: str, fields: dict[str, object]) -> None:
        raise RuntimeError("the log is full")

    asker = context.socket(zmq.REQ)
    zap = ZapServer(context, enrolled(AGENT), {"agents": Role.AGENT}, note=fail)
    asker.connect(ZAP_ENDPOINT)
    for _ in range(2):
        asker.send_multipart([b"1.0", b"7", b"agents", b"", b"", b"CURVE", b"k" * 32])
        assert asker.poll(30_000)
        assert asker.recv_multipart()[2] == b"400"
    assert zap.alive
    zap.stop()


def test_it_ends_when_told_and_with_its_context() -> None:
    context: Context = zmq.Context()
    told = ZapServer(context, AllowList(), {})
    told.stop()
    told.stop()
    assert not told.alive
    # Many times, because the name was once free again only when another thread had come by.
    for _ in range(50):
        again = ZapServer(context, AllowList(), {})
        assert again.alive
        again.stop()
    context.term()


def test_an_agent_enrolled_later_is_let_in_without_a_restart_of_the_leader(
    open_door: OpenDoor, context: Context
) -> None:
    keys = new_keys("t/r/n2")
    door = open_door(AllowList())
    early = beat_publisher(context, caller(keys), [door.publish])
    assert publish_until(early, lambda: door.zap.counts.get("unknown-key"))
    door.zap.replace(enrolled(keys))
    later = beat_publisher(context, caller(keys), [door.publish])
    assert publish_until(later, door.drain)


def test_a_hundred_handshakes_at_once_are_all_answered(open_door: OpenDoor, context: Context) -> None:
    good, bad = new_keys("t/r/n1"), new_keys("t/r/n2")
    door = open_door(enrolled(good))
    knocking = [beat_publisher(context, caller(keys), [door.publish]) for keys in (good, bad) for _ in range(50)]
    assert until(lambda: sum(door.zap.counts.values()) >= len(knocking))
    assert door.zap.counts == {"admitted": 50, "unknown-key": 50}
