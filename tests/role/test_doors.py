"""Two pairs of ports with two keys: who comes in where, whom an answer finds, and who still uses the first key."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from hbagent.core.effects import Answer
from hbagent.core.messages import Admission, Disconnected, Hello, Query
from hbagent.demo.datacenter import free_ports
from hbagent.role import doors as doors_module
from hbagent.role.control import ControlDealer, ControlRouter, Losses
from hbagent.role.doors import Doors, Place, places
from hbagent.role.driver import Driver
from hbagent.role.intake import Intake
from hbagent.role.settings.load import read_leader
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyFileError, KeyPair, generate
from hbagent.transport.monitor import LinkEvent, Monitor
from hbagent.transport.sockets import Context, Host, Target
from hbagent.transport.zap import ZapServer
from hbagent.wire import codec
from hbagent.wire.version import MINOR
from tests.role.parts import SmallCore, own_address
from tests.role.settings.test_load import LEADER
from tests.role.settings.test_rotation import ROTATION
from tests.role.test_driver import turn_until
from tests.transport.doors import caller, enrolled, new_keys

NODES = NODE1, NODE2 = new_keys("demo/rack1/node1"), new_keys("demo/rack1/node2")
PRESENT, COMING = new_keys("demo/rack1-leader1"), new_keys("demo/rack1-leader1")
HELLO = Hello(incarnation=1, interval_ns=1_000_000, version="1.0.0")
WELCOME = Admission(accepted=True, epoch=5, reads=MINOR)


class House:
    """A leader with two pairs of ports, and those who call it."""

    def __init__(self, driver: Driver, core: SmallCore, context: Context) -> None:
        self.driver, self.core, self._context = driver, core, context
        self._own: Context = zmq.Context()
        self._zap = ZapServer(self._own, enrolled(*NODES), {"agents": Role.AGENT})
        ports = [f"tcp://{own_address()}:{port}" for port in free_ports(4)]
        self.places = [Place(PRESENT, *ports[:2]), Place(COMING, *ports[2:])]
        self.connections = Connections()
        self.doors = Doors(driver, self.connections, self.places)
        senders = enrolled(*NODES).senders(Role.AGENT)
        for place in self.places:
            host = Host(keys=place.keys, domain="agents", peers_expected=4)
            intake = Intake(
                sockets.intake_subscriber(self._own, host, place.publish),
                self.doors.listening(driver.feed),
                senders,
                accepts=(Hello,),
                connections=self.connections,
            )
            router = ControlRouter(
                sockets.control_router(self._own, host, place.control),
                driver.feed,
                senders,
                (Hello,),
                connections=self.connections,
                beside=self.doors.first,
            )
            self.doors.add(intake, router)
        self._monitor = Monitor(self.doors.routers, Losses(self.connections, driver).told, (LinkEvent.LOST,))
        for port in self.doors:
            driver.add(port)
        self.told: list[object] = []
        self._numbers = itertools.count(2)

    def close(self) -> None:
        self._monitor.stop()
        for port in self.doors:
            self.driver.remove(port)
            port.source.close()
        self._zap.stop()
        self._own.term()

    def call(self, keys: KeyPair, at: int) -> ControlDealer:
        """A control connection to one of the pairs, once something was heard on it."""
        place = self.places[at]
        assert place.keys is not None
        target = Target(place.control, place.keys.public)
        socket = sockets.control_dealer(self._context, caller(keys), [target])
        dealer = ControlDealer(socket, "leader", lambda name, message: self.told.append((at, message)), (Admission,))
        self.say(dealer)
        return dealer

    def say(self, dealer: ControlDealer) -> None:
        """Say something new until it is heard."""
        self.heard_of(dealer.send)

    def heard_of(self, say: Callable[[Hello], object]) -> None:
        first, last = (msgspec.structs.replace(HELLO, incarnation=next(self._numbers)) for _ in range(2))

        def said() -> bool:
            say(first)
            return self._has_heard(first)

        assert turn_until(self.driver, said)
        # What was said in vain, as it seemed, comes before this.
        say(last)
        assert turn_until(self.driver, lambda: self._has_heard(last))

    def _has_heard(self, word: Hello) -> bool:
        return any(heard.incarnation == word.incarnation for heard in self.core.messages(Hello))

    def publish(self, keys: KeyPair, at: int) -> None:
        place = self.places[at]
        assert place.keys is not None
        target = Target(place.publish, place.keys.public)
        socket = sockets.report_publisher(self._context, caller(keys), [target])
        self.heard_of(lambda word: socket.send(codec.encode(word)))
        socket.close()

    def used(self) -> tuple[list[str], int]:
        usage = self.doors.usage()
        assert usage is not None
        return usage.old, usage.new


@pytest.fixture
def house(driver: Driver, core: SmallCore, context: Context) -> Iterator[House]:
    made = House(driver, core, context)
    yield made
    made.close()


def test_both_keys_are_served_and_an_answer_goes_to_where_a_peer_was_heard_last(house: House) -> None:
    first = house.call(NODE1, 0)
    second = house.call(NODE1, 1)
    house.doors.send(NODE1.name, WELCOME)
    assert turn_until(house.driver, lambda: second.drain() or house.told)
    assert house.told == [(1, WELCOME)]
    assert first.drain() == 0


def test_what_was_still_on_its_way_brings_nobody_back_to_the_first_door(house: House) -> None:
    first = house.call(NODE1, 0)
    second = house.call(NODE1, 1)
    house.say(first)
    assert house.used() == ([], 1)
    first.source.close(linger=0)
    house.say(second)
    assert house.core.messages(Disconnected) == [], "who moved is not taken for one whose process ended"


def test_whose_new_connection_is_gone_is_back_at_the_first_door(house: House) -> None:
    first = house.call(NODE1, 0)
    house.call(NODE1, 1).source.close(linger=0)
    assert turn_until(house.driver, lambda: not house.connections.lives(NODE1.name))
    house.say(first)
    assert house.used() == ([NODE1.name], 0)


def test_who_uses_which_key_is_known_until_they_are_gone(house: House) -> None:
    assert house.used() == ([], 0)
    first = house.call(NODE1, 0)
    second = house.call(NODE2, 1)
    assert house.used() == ([NODE1.name], 1)
    house.publish(NODE2, 0)
    assert house.used() == ([NODE1.name, NODE2.name], 0), "its reports still come by the present key"
    house.publish(NODE2, 1)
    assert house.used() == ([NODE1.name], 1)
    for dealer in (first, second):
        dealer.source.close(linger=0)
    assert turn_until(house.driver, lambda: house.used() == ([], 1))
    assert house.doors.counts() == (0, 1)


def test_who_only_publishes_is_counted_for_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.publish(NODE1, 0)
    assert house.used() == ([NODE1.name], 0)
    monkeypatch.setattr(doors_module, "RECENT_NS", 0)
    assert house.used() == ([], 0)


def test_a_question_about_keys_is_answered_here_and_any_other_is_the_cores(house: House) -> None:
    house.call(NODE1, 0)
    answers: list[Answer] = []
    house.doors.asked(answers.append, "\x01ada", Query(id=7, what="keys"))
    house.doors.asked(answers.append, "\x01ada", Query(id=8, what="status"))
    (answer,) = answers
    assert (answer.asker, answer.id) == (b"\x01ada", 7)
    old, new = ({"key": at.keys.public, "publish": at.publish, "control": at.control} for at in house.places if at.keys)
    wanted = {"old": {**old, "peers": 1, "names": [NODE1.name]}, "new": {**new, "peers": 0}, "rotating": True}
    assert answer.view == wanted
    assert house.core.messages(Query) == [Query(id=8, what="status")]


def test_one_key_is_nothing_to_count(driver: Driver) -> None:
    place = Place(PRESENT, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    doors = Doors(driver, Connections(), [place])
    assert doors.usage() is None and doors.counts() is None
    assert doors.view()["rotating"] is False
    takers: dict[str, Callable[..., bool]] = {}
    assert doors.listening(driver.feed) == driver.feed
    assert doors.taking(takers) is takers, "a beat costs no more than ever"


def test_beats_are_noted_and_left_to_who_takes_them(driver: Driver) -> None:
    at = [Place(keys, f"tcp://127.0.0.1:{port}", "tcp://127.0.0.1:9") for port, keys in ((1, PRESENT), (2, COMING))]
    doors = Doors(driver, Connections(), at)
    takers = {NODE1.name: lambda *numbers: True}
    noting = doors.taking(takers)
    assert noting.get(NODE1.name) is takers[NODE1.name]
    assert noting.get(NODE2.name) is None
    assert [*noting] == [NODE1.name] and len(noting) == 1 and noting[NODE1.name] is takers[NODE1.name]
    assert {name: door for name, (door, _) in doors._published.items()} == {NODE1.name: 0, NODE2.name: 0}


@pytest.mark.parametrize(
    ("name", "says"),
    [("dc1/rack1-leader1", ""), ("dc1/rack1-leader2", "is that of dc1/rack1-leader2"), ("same", "is the present one")],
)
def test_the_next_key_is_another_of_the_same_name(tmp_path: Path, name: str, says: str) -> None:
    present = generate("dc1/rack1-leader1", tmp_path / "present")
    next_directory = tmp_path / ("present" if name == "same" else "next")
    generate(present.name if name == "same" else name, next_directory)
    (tmp_path / "leader.key").write_bytes((tmp_path / "present" / "dc1.rack1-leader1.key").read_bytes())
    (tmp_path / "leader.key").chmod(0o600)
    file = next(next_directory.glob("*.key"))
    text = LEADER + ROTATION.replace("next.key", str(file))
    settings = read_leader(tmp_path / "leader.toml", text)
    with pytest.raises(KeyFileError, match=says) if says else contextlib.nullcontext():
        first, second = places(settings)
        assert first == Place(present, "tcp://*:5701", "tcp://*:5702")
        assert second.keys is not None and second.keys.public != present.public
        assert (second.publish, second.control) == ("tcp://*:5721", "tcp://*:5722")
    assert len(places(msgspec.structs.replace(settings, rotation=None))) == 1
