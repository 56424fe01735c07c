"""Relays: a few tries, one answer each, always in time, and never more than few at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.echo import request
from hbagent.core.effects import Ask, Effect, Send
from hbagent.core.messages import RELAY_TIME_NS, Answered, Relay, Relayed
from hbagent.core.relays import RELAYS_MAX, RELAYS_PER_SECOND, TRIES_MAX, TRY_AGAIN_NS, Relays
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND
from tests.build import LEADER, LEADER2, T

REQUEST = request(b"k" * 32, b"n" * 12)
ANSWER = b"a" * 48


def relay(number: int = 1, data: bytes = REQUEST) -> Relay:
    return Relay(number=number, address="10.0.0.2", port=7103, request=data)


def asked(effects: Any) -> list[int]:
    return [effect.number for effect in effects if isinstance(effect, Ask)]


def told(effects: Any) -> list[tuple[str, int, str]]:
    found = [e for e in effects if isinstance(e, Send) and isinstance(e.message, Relayed)]
    return [(e.peer, e.message.number, e.message.outcome.value) for e in found if isinstance(e.message, Relayed)]


def back(number: int, outcome: Outcome, data: bytes = b"") -> Answered:
    return Answered(peer=LEADER, number=number, path=Path.UDP, outcome=outcome, data=data)


def test_what_a_leader_sends_goes_out_as_it_is_and_what_comes_back_goes_back() -> None:
    relays = Relays()
    (ask,) = relays.relay(LEADER, relay(7), 0)
    assert ask == Ask(LEADER, 1, Path.UDP, "10.0.0.2", 7103, REQUEST)
    (send,) = relays.answered(back(1, Outcome.ANSWERED, ANSWER))
    assert send == Send(LEADER, Relayed(number=7, outcome=Outcome.ANSWERED, answer=ANSWER))
    assert relays.deadline() is None
    assert relays.wake(T(1)) == []


def test_it_is_sent_three_times_and_the_first_answer_counts() -> None:
    relays = Relays()
    effects: list[Effect] = [*relays.relay(LEADER, relay(), 0)]
    assert relays.wake(TRY_AGAIN_NS - 1) == []
    for _ in range(TRIES_MAX - 1):
        at = relays.deadline()
        assert at is not None
        effects += relays.wake(at)
    assert asked(effects) == [1, 2, 3]
    assert relays.deadline() == RELAY_TIME_NS
    assert told(relays.answered(back(2, Outcome.ANSWERED, ANSWER))) == [(LEADER, 1, "answered")]
    assert relays.answered(back(3, Outcome.ANSWERED, ANSWER)) == (), "it has been told"
    assert relays.answered(back(1, Outcome.SILENT)) == ()


def test_a_closed_port_is_told_at_once() -> None:
    relays = Relays()
    relays.relay(LEADER, relay(), 0)
    assert told(relays.answered(back(1, Outcome.REFUSED))) == [(LEADER, 1, "refused")]


def test_silence_is_told_in_time() -> None:
    relays = Relays()
    relays.relay(LEADER, relay(), T(5))
    effects: list[Effect] = []
    at = relays.deadline()
    while at is not None:
        newest = at
        effects += relays.wake(at)
        at = relays.deadline()
    assert told(effects) == [(LEADER, 1, "silent")]
    assert newest == T(5) + RELAY_TIME_NS


def test_what_could_never_be_sent_is_told_as_such_and_one_that_could_is_waited_for() -> None:
    relays = Relays()
    relays.relay(LEADER, relay(1), 0)
    assert relays.answered(back(1, Outcome.UNSENT)) == (), "there are two more tries"
    relays.wake(TRY_AGAIN_NS)
    relays.answered(back(2, Outcome.UNSENT))
    relays.wake(2 * TRY_AGAIN_NS)
    assert told(relays.answered(back(3, Outcome.UNSENT))) == [(LEADER, 1, "unsent")]

    relays.relay(LEADER, relay(2), T(1))
    relays.answered(back(4, Outcome.SILENT))
    relays.wake(T(1) + TRY_AGAIN_NS)
    relays.answered(back(5, Outcome.UNSENT))
    relays.wake(T(1) + 2 * TRY_AGAIN_NS)
    assert told(relays.answered(back(6, Outcome.UNSENT))) == [(LEADER, 2, "silent")]


def test_a_question_that_is_under_way_is_waited_for_when_the_last_could_not_be_sent() -> None:
    relays = Relays()
    relays.relay(LEADER, relay(), 0)
    relays.wake(TRY_AGAIN_NS)
    relays.wake(2 * TRY_AGAIN_NS)
    assert relays.answered(back(3, Outcome.UNSENT)) == ()
    assert told(relays.answered(back(1, Outcome.ANSWERED, ANSWER))) == [(LEADER, 1, "answered")]


def test_few_at_once() -> None:
    relays = Relays()
    for number in range(RELAYS_MAX):
        assert asked(relays.relay(LEADER, relay(number), 0))
    assert told(relays.relay(LEADER2, relay(99), 0)) == [(LEADER2, 99, "unsent")]
    relays.answered(back(1, Outcome.REFUSED))
    assert asked(relays.relay(LEADER2, relay(99), 0))


def test_few_a_second() -> None:
    relays = Relays()
    taken = 0
    for number in range(2000):
        effects = relays.relay(LEADER, relay(number), number * MILLISECOND)
        for own in asked(effects):
            taken += 1
            relays.answered(back(own, Outcome.REFUSED))
    assert taken == pytest.approx(3 * RELAYS_PER_SECOND, abs=1), "a second's worth at once, and two seconds'"


def test_nothing_but_an_echo_request_leaves() -> None:
    assert told(Relays().relay(LEADER, relay(1, b"\0" * 48), 0)) == [(LEADER, 1, "unsent")]


def test_one_that_leaves_answers_what_it_owes_and_takes_no_more() -> None:
    relays = Relays()
    relays.relay(LEADER, relay(1), 0)
    relays.relay(LEADER2, relay(1), 0)
    assert told(relays.end()) == [(LEADER, 1, "unsent"), (LEADER2, 1, "unsent")]
    assert told(relays.relay(LEADER, relay(2), 0)) == [(LEADER, 2, "unsent")]
    assert relays.deadline() is None


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from([*Outcome, None])), max_size=80))
def test_whatever_happens_each_is_answered_exactly_once_and_in_time(steps: list[tuple[int, Outcome | None]]) -> None:
    relays = Relays()
    now = number = 0
    begun: dict[int, int] = {}
    under_way: list[int] = []
    answers: dict[int, int] = {}

    def take(effects: Any) -> None:
        under_way.extend(asked(effects))
        for _, answered, _ in told(effects):
            assert answered not in answers
            answers[answered] = now
            assert now <= begun[answered] + RELAY_TIME_NS

    def until(end: int) -> None:
        nonlocal now
        while (at := relays.deadline()) is not None and at <= end:
            now = max(now, at)
            take(relays.wake(now))
        now = max(now, end)

    for wait_ms, outcome in steps:
        until(now + wait_ms * MILLISECOND)
        if outcome is None or not under_way:
            number += 1
            begun[number] = now
            take(relays.relay(LEADER, relay(number), now))
        else:
            take(relays.answered(back(under_way.pop(0), outcome)))
        assert sum(number not in answers for number in begun) <= RELAYS_MAX
    until(now + SECOND)
    assert answers.keys() == begun.keys()
