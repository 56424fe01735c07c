"""The outbox: in order, again until acknowledged, bounded, and never a transition acknowledged that was not."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.messages import Transition, Transitions
from hbagent.core.outbox import BATCH_MAX, Outbox
from hbagent.core.states import Kind
from tests.build import RACK, transition

OLD, NEW = 900, 17


def make(number: int, node: int = 1) -> Transition:
    return transition(number, node=f"{RACK}/node{node}")


def numbers(messages: tuple[Transitions, ...]) -> list[tuple[int, int, list[int]]]:
    """(epoch, after, numbers) of each message."""
    return [(m.epoch, m.after, [item.number for item in m.items]) for m in messages]


def filled(count: int, limit: int = 100) -> Outbox:
    outbox = Outbox(limit)
    for number in range(1, count + 1):
        outbox.add(NEW, make(number))
    return outbox


def test_what_is_not_acknowledged_is_taken_once_and_after_a_rewind_again() -> None:
    outbox = filled(3)
    assert numbers(outbox.take()) == [(NEW, 0, [1, 2, 3])]
    assert outbox.take() == ()
    outbox.add(NEW, make(4))
    assert numbers(outbox.take()) == [(NEW, 3, [4])], "says which came before it"
    outbox.acknowledge(NEW, 2)
    outbox.rewind()
    assert numbers(outbox.take()) == [(NEW, 2, [3, 4])]


def test_it_waits_for_the_root_while_something_is_on_its_way() -> None:
    outbox = filled(2)
    assert not outbox.waiting()
    outbox.take()
    assert outbox.waiting()
    outbox.acknowledge(NEW, 2)
    assert (outbox.waiting(), len(outbox)) == (False, 0)


def test_a_long_box_travels_in_messages_that_follow_on_one_another() -> None:
    first, second, third = filled(2 * BATCH_MAX + 1, limit=1000).take()
    assert (first.after, second.after, third.after) == (0, BATCH_MAX, 2 * BATCH_MAX)
    assert [len(m.items) for m in (first, second, third)] == [BATCH_MAX, BATCH_MAX, 1]
    assert {m.base for m in (first, second, third)} == {1}


def test_transitions_of_an_earlier_life_come_first_under_their_own_numbers() -> None:
    outbox = Outbox(100)
    outbox.add(OLD, make(41))
    outbox.add(OLD, make(42))
    outbox.add(NEW, make(1))
    assert numbers(outbox.take()) == [(OLD, 40, [41, 42]), (NEW, 0, [1])]


def test_an_acknowledgement_of_this_life_leaves_an_earlier_one_in_the_box() -> None:
    outbox = Outbox(100)
    outbox.add(OLD, make(41))
    outbox.take()
    outbox.add(NEW, make(1))
    outbox.take()
    assert outbox.acknowledge(NEW, 1)
    assert [(epoch, t.number) for epoch, t in outbox.entries()] == [(OLD, 41)]
    assert outbox.waiting()
    outbox.rewind()
    assert numbers(outbox.take()) == [(OLD, 40, [41])]


def test_an_acknowledgement_of_nothing_that_is_here_changes_nothing() -> None:
    outbox = filled(2)
    assert not outbox.acknowledge(OLD, 10)
    assert not outbox.acknowledge(NEW, 0)
    assert len(outbox) == 2


def test_a_full_box_folds_the_oldest_of_a_node_that_has_a_newer_one_and_says_so() -> None:
    outbox = Outbox(3)
    for number, node in ((1, 1), (2, 2), (3, 2), (4, 3)):
        outbox.add(NEW, make(number, node))
    assert [t.number for _, t in outbox.entries()] == [1, 3, 4]
    (message,) = outbox.take()
    assert message.dropped == 1


def test_news_of_a_nodes_health_do_not_fold_away_whether_it_lives() -> None:
    outbox = Outbox(3)
    for number in (1, 2, 3):
        kind = Kind.NODE_DEAD if number == 1 else Kind.HEALTH_CHANGED
        outbox.add(NEW, msgspec.structs.replace(make(number), kind=kind))
    outbox.add(NEW, make(4, node=2))
    assert [transition.number for _, transition in outbox.entries()] == [1, 3, 4]


def test_a_full_box_looks_for_what_it_folds_once_in_a_while() -> None:
    outbox, limit = Outbox(800), 800
    folded = []
    for number in range(1, 3 * limit):
        before = outbox.dropped
        outbox.add(NEW, make(number, number % 50))
        if outbox.dropped > before:
            folded.append(outbox.dropped - before)
    assert {*folded} == {100}
    newest = {transition.node: transition.number for _, transition in outbox.entries()}
    assert sorted(newest.values()) == list(range(3 * limit - 50, 3 * limit)), "the newest of each is there"


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60), st.integers(1, 12))
def test_what_is_counted_is_what_is_there(steps: list[tuple[int, bool]], limit: int) -> None:
    outbox = Outbox(limit)
    for number, (node, acknowledge) in enumerate(steps, 1):
        outbox.add(NEW, make(number, node))
        outbox.take()
        if acknowledge:
            outbox.acknowledge(NEW, number - 2)
        entries = [transition.node for _, transition in outbox.entries()]
        assert outbox._counts == {(node, False): entries.count(node) for node in entries}
        assert len(entries) <= limit


def test_a_full_box_in_which_every_node_has_but_one_loses_the_very_oldest() -> None:
    outbox = Outbox(2)
    for number in (1, 2, 3):
        outbox.add(NEW, make(number, node=number))
    assert [t.number for _, t in outbox.entries()] == [2, 3]


class NaiveBox:
    """The rules without any cleverness: a list of [epoch, transition, was it taken]."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entries: list[list[object]] = []

    def add(self, epoch: int, added: Transition) -> None:
        if len(self.entries) >= self.limit:
            nodes = [entry[1].node for entry in self.entries]  # type: ignore[attr-defined]
            doubled = [index for index, node in enumerate(nodes) if node in nodes[index + 1 :]]
            del self.entries[doubled[0] if doubled else 0]
        self.entries.append([epoch, added, False])

    def acknowledge(self, epoch: int, number: int) -> None:
        self.entries = [e for e in self.entries if e[0] != epoch or e[1].number > number]  # type: ignore[attr-defined]

    def take(self) -> list[tuple[object, int]]:
        taken = [(e[0], e[1].number) for e in self.entries if not e[2]]  # type: ignore[attr-defined]
        self.rewind(True)
        return taken

    def rewind(self, taken: bool = False) -> None:
        for entry in self.entries:
            entry[2] = taken


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4)),
        st.tuples(st.just("ack"), st.integers(0, 30)),
        st.sampled_from([("take", 0), ("rewind", 0), ("restart", 0)]),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 8))
def test_every_history_is_that_of_a_naive_list(steps: list[tuple[str, int]], limit: int) -> None:
    outbox, naive = Outbox(limit), NaiveBox(limit)
    epoch, number = 1, 0
    for what, value in steps:
        if what == "add":
            number += 1
            outbox.add(epoch, make(number, value))
            naive.add(epoch, make(number, value))
        elif what == "ack":
            # Now and then of the life before this one.
            acked = epoch - value % 2
            outbox.acknowledge(acked, value // 2)
            naive.acknowledge(acked, value // 2)
        elif what == "take":
            assert [(m.epoch, item.number) for m in outbox.take() for item in m.items] == naive.take()
        elif what == "rewind":
            outbox.rewind()
            naive.rewind()
        else:
            epoch, number = epoch + 1, 0
        assert list(outbox.entries()) == [(e[0], e[1]) for e in naive.entries]
        assert outbox.waiting() == any(e[2] for e in naive.entries)
        assert len(outbox) <= limit


@given(st.integers(0, 2**32), st.integers(4, 40))
def test_over_a_line_that_loses_both_ways_everything_arrives_once_and_in_order(seed: int, limit: int) -> None:
    """The root's rule in five lines: take in what follows on, acknowledge the newest of it."""
    rng = random.Random(seed)
    outbox, dropped = Outbox(limit), 0
    marks: dict[int, int] = {}
    got: list[tuple[int, int]] = []

    def deliver(message: Transitions, acknowledge: bool) -> None:
        mark = max(marks.get(message.epoch, 0), message.base - 1)
        if message.after > mark:
            return
        got.extend((message.epoch, t.number) for t in message.items if t.number > mark)
        marks[message.epoch] = max(mark, message.items[-1].number)
        if acknowledge:
            outbox.acknowledge(message.epoch, marks[message.epoch])

    made = []
    epoch, number = OLD, 0
    for step in range(60):
        if step == 30:
            # Another life: nothing but the entries is left of this one.
            kept = outbox.entries()
            dropped += outbox.dropped
            outbox = Outbox(limit)
            for kept_epoch, kept_transition in kept:
                outbox.add(kept_epoch, kept_transition)
            epoch, number = NEW, 0
        if rng.random() < 0.6:
            number += 1
            made.append((epoch, number))
            outbox.add(epoch, make(number, rng.randrange(4)))
        if rng.random() < 0.2:
            outbox.rewind()
        for message in outbox.take():
            if rng.random() < 0.6:
                deliver(message, rng.random() < 0.6)
    outbox.rewind()
    for message in outbox.take():
        deliver(message, True)
    assert len(outbox) == 0
    assert sorted(got, key=made.index) == sorted(set(got), key=made.index), "once"
    for life in (OLD, NEW):
        assert [n for e, n in got if e == life] == sorted(n for e, n in got if e == life), "in order"
    assert len(made) - len(got) <= dropped + outbox.dropped, "and nothing is lost that was not counted"


def test_a_message_survives_being_encoded() -> None:
    (message,) = filled(3).take()
    assert msgspec.convert(msgspec.to_builtins(message), Transitions) == message
