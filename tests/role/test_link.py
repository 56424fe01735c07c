"""The link between an agent and its prober: all of it arrives, nothing of it grows, and nonsense ends it."""

from __future__ import annotations

import functools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hbagent.core.checks import ExecCheck
from hbagent.core.config import ProbeConfig, ProberConfig
from hbagent.core.effects import Recall
from hbagent.core.messages import Mark, ProbeResult, Recalled, Vitals
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.role import driver as driver_module
from hbagent.role.driver import Driver
from hbagent.role.link import (
    FLUSH_MIN_NS,
    FRAME_MAX,
    LINES_WAITING_MAX,
    WAITING_MAX,
    Configure,
    Line,
    Link,
    Order,
    Word,
)
from tests.role.parts import until


def turn_until(driver: Driver, condition: Callable[[], object]) -> bool:
    def turned() -> object:
        driver.turn()
        return condition()

    return until(turned)


class End:
    """One end of a link, and what it heard."""

    def __init__(self, fd: int, messages: Any, driver: Driver) -> None:
        self.heard: list[Any] = []
        self.ended: list[str] = []
        self.link = Link(fd, messages, driver, self.heard.append, self.ended.append)
        driver.add(self.link)


class Pair:
    """Both ends, turned by one driver."""

    def __init__(self, driver: Driver) -> None:
        agent, prober = socket.socketpair()
        self.driver = driver
        self.agent = End(agent.detach(), Word, driver)
        self.prober = End(prober.detach(), Order, driver)

    def until(self, condition: Callable[[], object]) -> bool:
        return turn_until(self.driver, condition)


@pytest.fixture
def pair(driver: Driver) -> Iterator[Pair]:
    """Agent and prober."""
    made = Pair(driver)
    yield made
    made.agent.link.close()
    made.prober.link.close()


@pytest.fixture
def alone(driver: Driver) -> Iterator[tuple[End, socket.socket]]:
    """An agent's end, and a socket that the test reads and writes."""
    ours, theirs = socket.socketpair()
    end = End(ours.detach(), Word, driver)
    yield end, theirs
    end.link.close()
    theirs.close()


def vitals(number: int, probes: int = 1) -> Vitals:
    rows = tuple(ProbeResult(name=f"{number}-{at}", health=Health.OK, text="x" * 300) for at in range(probes))
    return Vitals(health=Health.OK, probes=rows)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_what_either_side_says_arrives_as_it_was_and_in_order(pair: Pair) -> None:
    check = ExecCheck(argv=("/bin/true",))
    orders: list[Order] = [
        Configure(ProberConfig(probes=(ProbeConfig(name="p", check=check),))),
        Recall(7, "web", "b"),
    ]
    words: list[Word] = [
        Mark(1),
        Vitals(health=Health.CRITICAL, probes=(ProbeResult(name="p", health=Health.CRITICAL, text="ä"),)),
        Recalled(number=7, body=os.urandom(64 * 1024)),
        Line("warning", "check-abandoned", {"probe": "p", "processes": 2, "to": Health.OK}),
    ]
    for order in orders:
        assert pair.agent.link.send(order)
    for word in words:
        assert pair.prober.link.send(word)
    assert pair.until(lambda: len(pair.prober.heard) == 2 and len(pair.agent.heard) == 4)
    assert pair.prober.heard == orders
    assert pair.agent.heard == words
    assert not pair.agent.ended


def test_a_word_larger_than_the_kernels_buffer_arrives_whole(pair: Pair) -> None:
    large = vitals(1, 2000)
    assert pair.prober.link.send(large)
    assert pair.until(lambda: pair.agent.heard)
    assert pair.agent.heard == [large]


def test_a_message_that_no_frame_holds_is_the_senders_defect(pair: Pair) -> None:
    with pytest.raises(ValueError, match="a frame has 1,048,576 at most"):
        pair.prober.link.send(vitals(1, 4000))


def test_a_reader_that_comes_back_finds_the_newest_and_not_all(pair: Pair) -> None:
    pair.driver.remove(pair.agent.link)
    for number in range(1, 400):
        pair.prober.link.send(vitals(number, 100))
        pair.prober.link.send(Mark(number))
    pair.driver.add(pair.agent.link)
    assert pair.until(lambda: Mark(399) in pair.agent.heard)
    told = [word for word in pair.agent.heard if isinstance(word, Vitals)]
    assert told[-1] == vitals(399, 100)
    assert len(told) < 20
    assert not pair.prober.link.dropped, "what is newer takes the place of what is older"


def test_what_nobody_reads_takes_no_more_than_its_bound(pair: Pair) -> None:
    pair.driver.remove(pair.agent.link)
    for number in range(200):
        pair.prober.link.send(Recalled(number=number, body=bytes(64 * 1024)))
    for number in range(10 * LINES_WAITING_MAX):
        pair.prober.link.send(Line("info", "x", {"n": number}))
    assert pair.prober.link.send(Mark(1)), "there is always room for a mark"
    assert pair.prober.link.dropped > 100
    pair.driver.add(pair.agent.link)
    assert pair.until(lambda: Mark(1) in pair.agent.heard)
    size = sum(len(word.body) for word in pair.agent.heard if isinstance(word, Recalled))
    assert size < 2 * WAITING_MAX
    assert sum(isinstance(word, Line) for word in pair.agent.heard) <= LINES_WAITING_MAX


def test_a_frame_that_comes_byte_by_byte_is_one_message(alone: tuple[End, socket.socket], driver: Driver) -> None:
    end, theirs = alone
    for byte in frame(b"\x82\xa4type\xa4mark\xa5count\x05"):
        theirs.send(bytes([byte]))
        driver.turn()
    assert end.heard == [Mark(5)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\xff\xff", "a frame of 4,294,967,295 bytes"),
        ((FRAME_MAX + 1).to_bytes(4, "big"), "a frame of 1,048,577 bytes"),
        (frame(b"\xc1"), "not readable: "),
        (frame(b""), "not readable: "),
        (frame(b"\x81\xa4type\xa9configure"), "not readable: "),
        (frame(b"\x91" * 100_000), "not readable: "),
    ],
)
def test_what_cannot_be_read_ends_the_link_and_says_why(
    alone: tuple[End, socket.socket], driver: Driver, data: bytes, reason: str
) -> None:
    end, theirs = alone
    theirs.sendall(frame(b"\x82\xa4type\xa4mark\xa5count\x01") + data + frame(b"\x82\xa4type\xa4mark\xa5count\x02"))
    assert turn_until(driver, lambda: end.ended)
    assert end.heard == [Mark(1)], "what came before counts, what comes after does not"
    assert len(end.ended) == 1
    assert end.ended[0].startswith(reason)
    assert not end.link.send(Recall(1)), "it says no more"


def test_no_bytes_at_all_raise(driver: Driver) -> None:
    seed = random.Random(4)
    for _ in range(300):
        ours, theirs = socket.socketpair()
        end = End(ours.detach(), Word, driver)
        data = seed.randbytes(seed.randrange(200))
        theirs.sendall(frame(data) if seed.random() < 0.7 else data)
        theirs.close()
        assert turn_until(driver, functools.partial(len, end.ended))
    assert driver.defects.count == 0


def test_the_last_words_before_the_end_are_heard(alone: tuple[End, socket.socket], driver: Driver) -> None:
    end, theirs = alone
    theirs.sendall(frame(b"\x82\xa4type\xa4mark\xa5count\x09"))
    theirs.close()
    assert turn_until(driver, lambda: end.ended)
    assert (end.heard, end.ended) == ([Mark(9)], ["closed"])


def test_writing_to_who_is_gone_neither_raises_nor_waits(alone: tuple[End, socket.socket], driver: Driver) -> None:
    end, theirs = alone
    theirs.close()
    for _ in range(3):
        end.link.send(Recall(1))
    assert turn_until(driver, lambda: end.ended)
    assert driver.defects.count == 0


def test_a_stopped_reader_costs_a_loop_no_rest(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "IDLE_NS", 300 * SECOND)
    pair.driver.remove(pair.agent.link)
    # The first does not wait.
    pair.driver.turn()
    begun = time.monotonic_ns()
    for number in range(10):
        pair.prober.link.send(Recalled(number=number, body=bytes(64 * 1024)))
    for _ in range(7):
        pair.driver.turn()
    assert time.monotonic_ns() - begun >= sum(FLUSH_MIN_NS << times for times in range(7)), "each turn is a longer rest"
