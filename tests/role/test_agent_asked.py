"""The agent when it is asked: by ping, about a neighbour, and about its own silence."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from hbagent.core.account import reason
from hbagent.core.messages import RELAY_TIME_NS, Account, AccountWanted, Farewell, Ping, Pong
from hbagent.core.states import Outcome
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.demo.datacenter import Plan
from tests.e2e.fleet import Fleet, node_of
from tests.quotas import quota
from tests.role.conftest import Build
from tests.role.inquirer import Inquirer
from tests.role.parts import until

pytestmark = pytest.mark.e2e

LEADER, NODE, OTHER = "rack1-leader1", "rack1-node1", "rack1-node2"
INTERVAL_NS = 250 * MILLISECOND


@pytest.fixture
def fleet(build: Build) -> Fleet:
    """Two agents; where their leader should be, nobody is yet."""
    made = build(Plan(racks=1, nodes=2))
    made.write()
    return made


@pytest.fixture
def inquirer(fleet: Fleet) -> Iterator[Inquirer]:
    """In the leader's place; both agents have been admitted."""
    made = Inquirer(fleet, LEADER)
    try:
        fleet.start([NODE, OTHER])
        made.admit(NODE)
        made.admit(OTHER)
        yield made
    finally:
        made.close()


def account(inquirer: Inquirer, since_ns: int, number: int = 1) -> Account:
    inquirer.send(NODE, AccountWanted(number=number, since_ns=since_ns))
    told = inquirer.hear(Account, NODE)
    assert told.number == number
    return told


def passed(seconds: float) -> None:
    """Let so much time pass: what is tested is what happens in it."""
    threading.Event().wait(seconds)


def test_a_ping_is_answered_from_the_loop_at_once(inquirer: Inquirer) -> None:
    incarnation = inquirer.hellos[node_of(NODE)].incarnation
    sequences: list[int] = []
    for number in range(50):
        inquirer.send(NODE, Ping(number=number))
        pong = inquirer.hear(Pong, NODE)
        assert (pong.number, pong.incarnation) == (number, incarnation)
        sequences.append(pong.sequence)
    assert sequences == sorted(sequences)
    assert len(set(sequences)) < 25, "it does not wait for the next beat"
    assert until(lambda: _sequence(inquirer) > sequences[-1]), "it is the sequence of the newest beat"


def _sequence(inquirer: Inquirer) -> int:
    inquirer.send(NODE, Ping(number=99))
    return inquirer.hear(Pong, NODE).sequence


def answered(inquirer: Inquirer, numbers: Iterator[int]) -> tuple[int, int]:
    """What an agent brings back of its neighbour, who may stand still for a moment."""
    answers: list[tuple[int, int]] = []

    def asked() -> bool:
        told, answer = inquirer.relayed(NODE, OTHER, next(numbers))
        if told.outcome is Outcome.ANSWERED:
            assert answer is not None, "one that it could not have made"
            answers.append(answer)
        return bool(answers)

    assert until(asked)
    return answers[0]


def test_an_agent_asks_about_its_neighbour_and_brings_an_answer_that_it_could_not_have_made(inquirer: Inquirer) -> None:
    numbers = itertools.count(7)
    for _ in range(30):
        assert answered(inquirer, numbers)[0] == inquirer.hellos[node_of(OTHER)].incarnation


def test_an_agent_says_of_its_neighbour_that_nobody_listens_there(inquirer: Inquirer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.setblocking(False)
        port = taken.getsockname()[1]
        numbers = itertools.count(1)
        most = 0

        def asked() -> bool:
            nonlocal most
            begun = time.monotonic_ns()
            told, _ = inquirer.relayed(NODE, OTHER, next(numbers), port)
            assert told.outcome is Outcome.SILENT
            assert time.monotonic_ns() - begun >= RELAY_TIME_NS
            askers = senders(taken)
            assert len(set(askers)) == len(askers), "each time from another socket"
            most = max(most, len(askers))
            return most >= 3

        # An agent that stands still has no time for more than one.
        assert until(asked)
        assert most == 3
        # From now on it hears nobody but itself, and its port is nobody else's.
        taken.connect(taken.getsockname())
        assert inquirer.relayed(NODE, OTHER, next(numbers), port)[0].outcome is Outcome.REFUSED


def senders(socket: socket.socket) -> list[object]:
    """Who sent what has come until now."""
    found = []
    while True:
        try:
            found.append(socket.recvfrom(100)[1])
        except BlockingIOError:
            return found


def test_a_stopped_neighbour_is_silent_and_answers_when_it_goes_on(fleet: Fleet, inquirer: Inquirer) -> None:
    with fleet.frozen(OTHER):
        told, _ = inquirer.relayed(NODE, OTHER, 1)
        assert told.outcome is Outcome.SILENT
    answered(inquirer, itertools.count(2))


def test_relays_leave_no_descriptor_behind(fleet: Fleet, inquirer: Inquirer) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{fleet.processes[NODE].pid}/fd"))

    inquirer.relayed(NODE, OTHER, 1)
    before = descriptors()
    for number in range(2, 30):
        inquirer.relayed(NODE, OTHER, number)
    # Its prober may have come meanwhile, with a link and a descriptor of its process.
    assert until(lambda: descriptors() <= before + 5)


def test_an_agent_that_was_stopped_says_so(fleet: Fleet, inquirer: Inquirer) -> None:
    passed(1.0)
    begun = time.monotonic_ns()
    with fleet.frozen(NODE):
        passed(2.0)
    inquirer.send(NODE, Ping(number=1))
    inquirer.hear(Pong, NODE)
    silent = time.monotonic_ns() - begun
    told = account(inquirer, silent)
    word, text = reason(told, silent, INTERVAL_NS)
    assert word == "stopped", text
    assert told.loop_gap_max_ns > 1.6 * SECOND
    assert told.run_delay_ns < told.loop_gap_ns // 2
    assert told.covered_ns == silent


def test_an_agent_that_ran_all_the_while_says_so(inquirer: Inquirer) -> None:
    found: list[str] = []

    def ran() -> bool:
        passed(2.0)
        told = account(inquirer, 2 * SECOND)
        found.append(reason(told, 2 * SECOND, INTERVAL_NS)[0])
        return 5 <= told.beats <= 10 and found[-1] == "network"

    # Or it did not run all the while.
    assert until(ran), found


def test_an_agent_whose_quota_is_used_up_says_so(build: Build) -> None:
    fleet = build(Plan(racks=1, nodes=1))
    fleet.write()
    inquirer = Inquirer(fleet, LEADER)
    try:
        with quota() as group:
            fleet.start([NODE])
            # A meter looks for its group when it is made, so the agent is there from the beginning.
            group.hold(fleet.processes[NODE].pid)
            inquirer.admit(NODE)
            group.limit(1_000, 1_000_000)
            passed(5.0)
        told = account(inquirer, 5 * SECOND)
    finally:
        inquirer.close()
    assert told.loop_gap_ns > SECOND
    word, text = reason(told, told.loop_gap_ns + INTERVAL_NS, INTERVAL_NS)
    assert word == "throttled", text


def test_an_agent_that_leaves_says_goodbye_to_who_asks(fleet: Fleet, inquirer: Inquirer) -> None:
    fleet.signal(NODE, signal.SIGTERM)
    assert inquirer.hear(Farewell, NODE).incarnation == inquirer.hellos[node_of(NODE)].incarnation
