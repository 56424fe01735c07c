"""What a leader's next life knows: what each node was, and what the root has not got. Whatever it reads."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.config import DetectorConfig
from hbagent.core.effects import Keep, Publish, Rewrite
from hbagent.core.memory import RETRY_NS, SLACK, Entry, Known, Memory, acknowledged_entry, verdict_entry
from hbagent.core.messages import Evidence
from hbagent.core.observer import OwnLag
from hbagent.core.outbox import Outbox
from hbagent.core.roster import Roster
from hbagent.core.states import Cause, Liveness
from hbagent.core.units import SECOND
from tests.build import NODE, NODE2, T, beat, give, leader_config, leader_core, transition
from tests.playbook import Playbook

OLD, NEW = 900, 17
ALIVE, SUSPECT, DEAD = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD


def make(*nodes: str) -> tuple[Memory, Outbox, Roster]:
    roster = Roster(leader_config(*nodes), OwnLag(), 0)
    outbox = Outbox(100, NEW)
    return Memory(roster.members, outbox), outbox, roster


def restored(*entries: Entry) -> tuple[dict[str, Known], Outbox, int]:
    memory, outbox, _ = make()
    recalled = memory.restore(entries)
    known, damaged = recalled.nodes, recalled.damaged
    return known, outbox, damaged


def test_a_verdict_is_what_its_node_was_and_waits_for_the_root() -> None:
    first = transition(1, sequence=5)
    second = transition(2, DEAD, ALIVE, sequence=9, evidence=Evidence(text="silent", interval_ns=T(0.25)))
    known, outbox, damaged = restored(verdict_entry(OLD, first), verdict_entry(OLD, second))
    assert known == {NODE: Known(DEAD, Cause.SILENCE, first.incarnation, 9, T(0.25))}
    assert outbox.entries() == ((OLD, first), (OLD, second))
    assert damaged == 0


def test_what_the_root_has_got_is_not_sent_again_and_yet_known() -> None:
    entries = (verdict_entry(OLD, transition(1)), verdict_entry(OLD, transition(2, DEAD, ALIVE)))
    known, outbox, _ = restored(*entries, acknowledged_entry(OLD, 1))
    assert [t.number for _, t in outbox.entries()] == [2]
    assert known[NODE].liveness is DEAD


def test_writing_all_anew_keeps_everything_that_counts() -> None:
    memory, outbox, roster = make()
    roster.recall(NODE, ALIVE, None, 7, 30, T(0.25), 0)
    outbox.add(OLD, transition(4, DEAD, ALIVE, node=NODE2))
    outbox.add(NEW, transition(1, DEAD, SUSPECT))
    order = memory.rewrite()
    assert isinstance(order, Rewrite)
    known, again, damaged = restored(*order.entries)
    assert again.entries() == outbox.entries()
    assert known[NODE] == Known(ALIVE, None, 7, 30, T(0.25)), "the state is newer than a verdict that still waits"
    assert known[NODE2].liveness is DEAD
    assert damaged == 0


def test_a_node_that_was_never_seen_is_not_remembered() -> None:
    memory, _, _ = make()
    order = memory.rewrite()
    assert isinstance(order, Rewrite) and order.entries == ()


def test_entries_are_appended_until_much_of_the_journal_no_longer_counts() -> None:
    memory, _, _ = make()
    entry = acknowledged_entry(NEW, 1)
    written: list[Any] = [memory.keep([entry]) for _ in range(SLACK + 10)]
    kinds = [type(order) for order in written]
    assert kinds.count(Rewrite) == 1
    assert kinds.index(Rewrite) >= SLACK
    assert kinds[-1] is Keep, "and after that again"
    assert [order.token for order in written] == list(range(1, len(written) + 1))


def test_a_disk_that_fails_is_said_once_shown_and_answered_by_writing_all_anew() -> None:
    memory, _, _ = make()
    assert memory.failed("no space", T(1))
    assert not memory.failed("no space", T(2))
    assert memory.degraded == "journal: no space"
    assert memory.retry(T(2) + RETRY_NS - 1) is None
    assert isinstance(memory.retry(T(2) + RETRY_NS), Rewrite)
    assert memory.retry(T(100)) is None
    assert memory.kept()
    assert (memory.kept(), memory.degraded) == (False, "")


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.sampled_from(["k", "e", "t", "n", "m", "l", "c", "i", "s", "v", "x"])


@settings(max_examples=30)
@given(st.lists(st.dictionaries(KEYS, st.one_of(JUNK, st.sampled_from(["t", "a", "n", "ALIVE"]))), max_size=10))
def test_whatever_a_journal_holds_a_leader_starts(entries: list[Entry]) -> None:
    good = verdict_entry(OLD, transition(1))
    known, outbox, _ = restored(good, *entries)
    assert NODE in known
    assert len(outbox) <= 1
    book = Playbook(leader_core(kept=[*entries, good]))
    book.wait(T(2))
    assert any(isinstance(effect, Publish) for effect in book.effects)


@given(st.integers(0, 2**32))
def test_a_damaged_entry_costs_itself_alone(seed: int) -> None:
    rng = random.Random(seed)
    entries = [verdict_entry(OLD, transition(number, node=f"dc1/rack1/node{number}")) for number in range(1, 6)]
    victim = rng.randrange(5)
    entries[victim].pop(rng.choice(["e", "t", "k"]))
    known, outbox, damaged = restored(*entries)
    assert (len(known), len(outbox), damaged) == (4, 4, 1)


@pytest.mark.parametrize("interval_ns", [0, -1, 10**18])
def test_an_interval_that_no_agent_may_have_is_not_believed(interval_ns: int) -> None:
    known, _, _ = restored({"k": "n", "m": NODE, "l": "ALIVE", "c": None, "i": 7, "s": 3, "v": interval_ns})
    assert known[NODE].interval_ns == SECOND


def test_an_interval_that_was_never_told_is_taken_for_a_second() -> None:
    known, _, _ = restored({"k": "n", "m": NODE, "l": "ALIVE", "c": None, "i": 7, "s": 3})
    assert known[NODE].interval_ns == SECOND


def test_what_a_detector_learned_of_a_node_outlives_the_leader() -> None:
    first = leader_core("node1", detector=DetectorConfig(mistakes_per_day=24_000.0))
    for number in range(1, 400):
        late = 40_000_000 if number % 10 == 0 else 0
        give(
            first,
            beat(number, interval_ns=T(0.1), due_in_ns=T(0.1), sent_mono_ns=T(0.1 * number)),
            T(0.1 * number) + late,
        )
    learned = first.roster.members[NODE].detector
    assert learned.remember()
    order = first.memory.rewrite()
    assert isinstance(order, Rewrite)
    again = leader_core("node1", kept=order.entries, detector=DetectorConfig(mistakes_per_day=24_000.0))
    assert again.roster.members[NODE].detector.remember() == learned.remember()
