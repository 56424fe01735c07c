"""Who gets no further than the greeting is told of, with where he calls from, over real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from hbagent.role import strangers as strangers_module
from hbagent.role.driver import Driver
from hbagent.role.strangers import BROKEN_OFF, NOTES_PER_MINUTE, OFTEN, REMEMBERED_MAX, Strangers
from hbagent.transport.keys import KeyPair
from hbagent.transport.monitor import ARRIVALS, Link, LinkEvent, Monitor
from hbagent.transport.sockets import Context, Target, beat_publisher, connect, control_dealer
from tests.role.parts import Lines
from tests.role.test_driver import turn_until
from tests.transport.doors import Door, OpenDoor, caller, enrolled, new_keys

#: Where a caller on this host comes from.
LOOPBACK = "127.0.0.1"
NODE, OTHER = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")


class Watched:
    """A door whose strangers are told of."""

    def __init__(self, door: Door, driver: Driver, lines: Lines) -> None:
        self.door, self.lines, self.counts = door, lines, dict[str, int]()
        self.strangers = Strangers(driver, self.counts, lines, plain=door.keys is None)
        sockets = {"publish": door.intake, "control": door.control}
        self.monitor = Monitor(sockets, self.strangers.told, ARRIVALS)

    @property
    def told(self) -> list[tuple[object, object]]:
        """Lines with an address: of some connections nobody can say where they came from."""
        lines = self.lines.of("handshake-failed")
        return [(line["reason"], line["address"]) for line in lines if line["address"]]


@pytest.fixture
def make(open_door: OpenDoor, driver: Driver, lines: Lines) -> Iterator[object]:
    made: list[Watched] = []

    def one(plain: bool) -> Watched:
        made.append(Watched(open_door(enrolled(NODE), plain=plain), driver, lines))
        return made[-1]

    yield one
    for watched in made:
        watched.monitor.stop()


def call(context: Context, watched: Watched, keys: KeyPair | None, key: str) -> None:
    """A beat and a word of an agent, as often as libzmq tries."""
    for target, make in ((watched.door.publish, beat_publisher), (watched.door.control_target, control_dealer)):
        who = caller(keys, NODE.name)
        connect(make(context, who, ()), who, Target(target.endpoint, key))


@pytest.mark.parametrize(
    ("plain", "remedy"),
    [
        (False, "it says plain = true, and this side has a key: say it on both sides or on none"),
        (True, "it has a key, and this side says plain = true: say it on both sides or on none"),
    ],
)
def test_who_speaks_in_the_other_mode_is_told_of_with_address_and_remedy(
    make: Any, context: Context, driver: Driver, plain: bool, remedy: str
) -> None:
    watched = make(plain)

    callers = 0

    def found() -> list[dict[str, Any]]:
        # Who of the two finds out first is a matter of luck, only that one knows why, and a caller stops then.
        nonlocal callers
        if sum(watched.counts.values()) >= 2 * callers:
            call(context, watched, NODE if plain else None, OTHER.public if plain else "")
            callers += 1
        lines = watched.lines.of("handshake-failed")
        return [line for line in lines if line["reason"] == "other-mode" and line["address"]]

    assert turn_until(driver, found)
    assert found() == [{"address": LOOPBACK, "reason": "other-mode", "remedy": remedy}]
    assert set(watched.counts) <= {"other-mode", BROKEN_OFF}


def test_who_has_another_public_key_for_this_side_is_told_of_once_and_counted_always(
    make: Any, context: Context, driver: Driver
) -> None:
    watched = make(False)

    call(context, watched, NODE, OTHER.public)

    assert turn_until(driver, lambda: watched.counts.get("other-public-key", 0) > 10 and watched.told)
    assert watched.told == [("other-public-key", LOOPBACK)]


def test_who_speaks_no_zmtp_is_told_of(make: Any, driver: Driver) -> None:
    watched = make(False)
    host, _, port = watched.door.publish.endpoint.removeprefix("tcp://").rpartition(":")

    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"GSSAPI".ljust(20, b"\0") + bytes(32)

    def knock() -> object:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(greeting)
            while connection.recv(4096):
                pass
        return watched.told

    assert turn_until(driver, knock)
    assert watched.told[-1] == ("other-mode", LOOPBACK)


def test_who_is_admitted_is_no_stranger(make: Any, context: Context, driver: Driver) -> None:
    watched = make(False)
    who = caller(NODE)
    control = control_dealer(context, who, ())
    connect(control, who, watched.door.control_target)
    control.send(b"hello")
    assert turn_until(driver, lambda: watched.door.control.poll(0))

    call(context, watched, NODE, OTHER.public)

    assert turn_until(driver, lambda: watched.told)
    assert set(watched.counts) == {"other-public-key"}


# ---- bounds ----------------------------------------------------------------------------------------------------


class Told:
    """Strangers whose connections come from where a test says."""

    def __init__(self, driver: Driver, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver, self.lines, self.counts = driver, lines, dict[str, int]()
        self.now = 1
        monkeypatch.setattr(strangers_module, "_address", lambda fd: f"10.0.{fd >> 8}.{fd & 255}")
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now)
        self.strangers = Strangers(driver, self.counts, lines, plain=False)

    def fails(self, fd: int, event: LinkEvent, value: int = 0) -> None:
        for link in (
            Link("control", LinkEvent.ACCEPTED, "", fd),
            Link("control", event, "", value),
            Link("control", LinkEvent.LOST, "", fd),
        ):
            self.strangers.told(link)

    def said(self) -> int:
        for call in self.driver.mailbox.take():
            call()
        return len(self.lines.of("handshake-failed"))


@pytest.fixture
def told(driver: Driver, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(driver, lines, monkeypatch)


def test_a_flood_from_many_addresses_is_counted_and_costs_so_many_lines_and_so_much_memory(told: Told) -> None:
    for number in range(3 * REMEMBERED_MAX):
        told.fails(number, LinkEvent.MISUNDERSTOOD, zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
        told.fails(number, LinkEvent.BROKEN_OFF)
    assert told.said() == NOTES_PER_MINUTE
    assert told.counts == {"other-public-key": 3 * REMEMBERED_MAX, BROKEN_OFF: 3 * REMEMBERED_MAX}
    strangers = told.strangers
    assert len(strangers._noted) <= REMEMBERED_MAX and len(strangers._broken) <= REMEMBERED_MAX
    assert not strangers._addresses and not strangers._wrong


def test_who_hangs_up_once_is_nobodys_business_and_who_goes_on_is_told_of_once(told: Told) -> None:
    for _ in range(2):
        told.fails(1, LinkEvent.BROKEN_OFF)
    assert told.said() == 0
    for _ in range(10):
        told.fails(1, LinkEvent.BROKEN_OFF)
    assert told.said() == 1
    told.now += strangers_module.NOTE_AGAIN_NS
    told.fails(1, LinkEvent.BROKEN_OFF)
    assert told.said() == 1
    told.fails(1, LinkEvent.BROKEN_OFF)
    told.fails(1, LinkEvent.BROKEN_OFF)
    assert told.said() == 2


def test_of_whom_nobody_can_say_where_he_calls_from_it_is_told_when_nobody_else_it_may_be_was(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_nowhere() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(strangers_module, "_address", lambda fd: "")
            told.fails(1, LinkEvent.MISUNDERSTOOD, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)

    from_nowhere()
    from_nowhere()
    assert told.said() == 0
    told.fails(2, LinkEvent.MISUNDERSTOOD, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
    from_nowhere()
    assert told.said() == 1
    for _ in range(OFTEN):
        told.fails(2, LinkEvent.BROKEN_OFF)
    assert told.said() == 1
    told.now += strangers_module.NOTE_AGAIN_NS
    for _ in range(OFTEN):
        from_nowhere()
    assert told.said() == 2
    assert [line["address"] for line in told.lines.of("handshake-failed")] == ["10.0.0.2", ""]


def test_a_connection_that_simply_ends_is_no_failure(told: Told) -> None:
    told.strangers.told(Link("control", LinkEvent.ACCEPTED, "", 5))
    told.strangers.told(Link("control", LinkEvent.LOST, "", 5))
    assert (told.said(), told.counts) == (0, {})
