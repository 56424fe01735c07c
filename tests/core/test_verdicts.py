"""Who may speak for a node at the root, and what is shown when nobody may."""

from __future__ import annotations

import random

import msgspec
import pytest

from hbagent.core.datacenter import FORGET_NS, NODES_MAX
from hbagent.core.effects import Happened, Persist
from hbagent.core.messages import Evidence, Kept, Reconfigured, WallTime
from hbagent.core.records import NodeState, Restored
from hbagent.core.root import RootCore
from hbagent.core.states import Cause, Health, Kind, Liveness
from hbagent.core.units import DAY, SECOND
from tests.build import (
    EPOCH,
    INCARNATION,
    LEADER,
    LEADER2,
    NODE,
    NODE2,
    RACK,
    WALL_NS,
    hook,
    root_config,
    root_core,
    row,
    summary,
    transition,
    transitions,
)
from tests.playbook import Playbook

ALIVE, SUSPECT, DEAD, LEFT, UNKNOWN = (
    Liveness.ALIVE,
    Liveness.SUSPECT,
    Liveness.DEAD,
    Liveness.LEFT,
    Liveness.UNKNOWN,
)
QUIET = ("persist", "ack", "note", "witness", "send")
BOTH = (LEADER, LEADER2)


class Rack:
    """A root and the summaries that its leaders send it each second; transitions are sent by hand."""

    def __init__(self, core: RootCore) -> None:
        self.core = core
        self.book = Playbook(core, quiet=QUIET)
        self.rows: dict[str, tuple[object, ...]] = {}
        self.newest: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self._number = 0
        self.uptime = 100.0

    def seconds(self, count: int, *leaders: str) -> list[str]:
        """`count` seconds in which these leaders are heard; returns what was told, as "kind node"."""
        begun = len(self.book.effects)
        for _ in range(count):
            self._number += 1
            self.uptime += 1
            for leader in leaders:
                rows = self.rows.get(leader, (row(),))
                told = summary(
                    self._number,
                    *rows,  # type: ignore[arg-type]
                    newest=self.newest.get(leader, 1),
                    uptime_s=self.uptime,
                    epoch=self.epochs.get(leader, EPOCH),
                )
                self.book = self.book >> (leader, told)
            self.book = self.book >> 1.0
        return self.told(begun)

    def tell(self, leader: str, *items: object) -> list[str]:
        """Transitions of a leader."""
        begun = len(self.book.effects)
        self.book = self.book >> (leader, transitions(*items))  # type: ignore[arg-type]
        return self.told(begun)

    def told(self, begun: int = 0) -> list[str]:
        found = [effect for effect in self.book.effects[begun:] if isinstance(effect, Happened)]
        return [f"{effect.kind.value} {effect.node.rpartition('/')[2]}" for effect in found]

    def shown(self, node: str = NODE) -> tuple[Liveness, Cause | None]:
        merged = self.core.shown(self.core.nodes[node])
        return merged.liveness, merged.cause


def rack(*leaders: str, **settings: object) -> Rack:
    """A rack whose leaders all hear node1."""
    core = root_core(hook("page"), leaders=leaders or (LEADER,), **settings)  # type: ignore[arg-type]
    rack = Rack(core)
    rack.seconds(1, *core.leaders)
    for leader in core.leaders:
        rack.tell(leader, transition(1))
    rack.seconds(1, *core.leaders)
    assert rack.told() == ["node-joined node1"]
    return rack


# ---- a leader that falls silent --------------------------------------------------------------------------


def test_a_silent_leader_is_one_event_and_its_nodes_are_unknown_but_nobody_is_called_dead() -> None:
    one = rack()
    assert one.seconds(60) == ["leader-lost rack1-leader1"]
    assert one.shown() == (UNKNOWN, Cause.LEADER_LOST)


def test_a_leader_that_is_back_is_told_and_its_nodes_are_what_they_were() -> None:
    one = rack()
    one.seconds(20)
    assert one.seconds(3, LEADER) == ["leader-recovered rack1-leader1"]
    assert one.shown() == (ALIVE, None)


def test_a_node_that_died_while_its_leader_was_silent_is_told_when_the_leader_is_back() -> None:
    one = rack()
    one.seconds(20)
    one.rows[LEADER] = (row("node1", DEAD, version=3),)
    one.newest[LEADER] = 3
    one.seconds(1, LEADER)
    assert one.tell(LEADER, transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT)) == [
        "node-suspect node1",
        "node-dead node1",
    ]
    assert one.shown() == (DEAD, Cause.SILENCE)


def test_a_leader_that_was_never_heard_is_lost_after_the_grace_and_told_once() -> None:
    one = Rack(root_core())
    assert one.seconds(9) == []
    assert one.seconds(60) == ["leader-lost rack1-leader1"]


def test_while_another_leader_of_the_rack_speaks_for_a_node_it_is_what_that_one_says() -> None:
    two = rack(*BOTH)
    assert two.seconds(10, LEADER2) == ["leader-lost rack1-leader1"]
    assert two.shown() == (ALIVE, None)
    assert two.tell(LEADER2, transition(2, SUSPECT, ALIVE)) == ["node-suspect node1"]


def test_a_leader_that_never_heard_a_node_does_not_speak_for_it_when_the_other_is_lost() -> None:
    two = rack(*BOTH)
    never = row("node2", UNKNOWN, age_ns=None, version=0, incarnation=None, sequence=None)
    two.rows[LEADER] = (row(), row("node2", version=2))
    two.rows[LEADER2] = (row(), never)
    two.newest[LEADER] = 2
    two.tell(LEADER, transition(2, node=NODE2))
    assert two.seconds(40, *BOTH) == []
    assert two.seconds(60, LEADER2) == ["leader-lost rack1-leader1"]
    assert two.shown(NODE2) == (UNKNOWN, Cause.LEADER_LOST), "and neither dead nor green"
    assert two.shown() == (ALIVE, None)


# ---- two leaders -----------------------------------------------------------------------------------------


def test_two_leaders_that_see_the_same_make_one_event() -> None:
    two = rack(*BOTH)
    suspect, dead = transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT)
    assert two.tell(LEADER, suspect) == []
    assert two.shown() == (ALIVE, Cause.LINK_CUT)
    assert two.tell(LEADER2, suspect) == ["node-suspect node1"]
    assert two.tell(LEADER, dead) == ["node-dead node1"]
    assert two.tell(LEADER2, dead) == []
    assert two.tell(LEADER, transition(4, ALIVE, DEAD, sequence=11)) == ["node-recovered node1"]
    assert two.tell(LEADER2, transition(4, ALIVE, DEAD, sequence=12)) == []


@pytest.mark.parametrize("first", [0, 1])
def test_two_leaders_that_see_the_same_restart_make_one_event(first: int) -> None:
    two = rack(*BOTH)
    restart = transition(2, ALIVE, ALIVE, kind=Kind.NODE_RESTARTED, incarnation=8, sequence=1)
    assert two.tell(BOTH[first], restart) == ["node-restarted node1"]
    assert two.seconds(1, BOTH[1 - first]) == []
    assert two.tell(BOTH[1 - first], restart) == []


def test_a_dead_of_one_leader_is_contradicted_only_by_a_later_beat_of_the_other() -> None:
    two = rack(*BOTH)
    two.tell(LEADER, transition(2, SUSPECT, ALIVE, sequence=20), transition(3, DEAD, SUSPECT, sequence=20))
    assert two.seconds(1, LEADER2) == ["node-dead node1"], "the other last heard number 10"
    two.rows[LEADER2] = (row(sequence=21),)
    assert two.seconds(1, LEADER2) == ["node-recovered node1"]
    assert two.shown() == (ALIVE, Cause.LINK_CUT)


def test_a_leader_that_has_just_started_vetoes_nothing() -> None:
    two = rack(*BOTH)
    two.seconds(10, LEADER)
    two.rows[LEADER2] = (row("node1", ALIVE, age_ns=None, version=0),)
    two.epochs[LEADER2] = 0xE2
    two.seconds(1, LEADER2)
    assert two.tell(LEADER, transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT)) == [
        "node-suspect node1",
        "node-dead node1",
    ]


# ---- summaries -------------------------------------------------------------------------------------------


def test_a_transition_that_is_lost_is_repaired_by_a_summary_after_some_patience_and_then_only_history() -> None:
    one = rack()
    one.rows[LEADER] = (row("node1", DEAD, version=3),)
    one.newest[LEADER] = 3
    assert one.seconds(2, LEADER) == []
    assert one.seconds(1, LEADER) == ["node-dead node1"]
    assert one.tell(LEADER, transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT)) == []
    one.book = one.book >> Kept(1) >> Kept(2)
    late = [e for effect in one.book.effects if isinstance(effect, Persist) for e in effect.batch.events if e.late]
    assert [event.kind for event in late] == [Kind.NODE_SUSPECT, Kind.NODE_DEAD]


def test_a_summary_that_the_root_has_all_transitions_of_is_believed_at_once() -> None:
    core = root_core(restored=Restored(nodes=(NodeState(node=NODE, rack=RACK, liveness=ALIVE),)))
    one = Rack(core)
    one.rows[LEADER] = (row("node1", DEAD, version=3),)
    one.newest[LEADER] = 0
    assert one.seconds(1, LEADER) == ["node-dead node1"]


def test_a_summary_older_than_the_transitions_moves_nothing_back() -> None:
    one = rack()
    one.tell(LEADER, transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT))
    assert one.seconds(3, LEADER) == []
    assert one.shown() == (DEAD, Cause.SILENCE)


def test_a_node_known_alive_that_no_leader_hears_long_after_its_start_is_dead_and_the_event_says_why() -> None:
    core = root_core(hook("page"), restored=Restored(nodes=(NodeState(node=NODE, rack=RACK, liveness=ALIVE),)))
    one = Rack(core)
    one.uptime = 0
    one.rows[LEADER] = (row("node1", UNKNOWN, age_ns=None, version=0, incarnation=None, sequence=None),)
    one.newest[LEADER] = 0
    assert one.seconds(31, LEADER) == []
    assert one.shown() == (ALIVE, None)
    assert one.seconds(2, LEADER) == ["node-dead node1"]
    (dead,) = one.book.newest(Persist).batch.events
    assert isinstance(dead.evidence, Evidence)
    assert dead.evidence.text == "known alive, and no leader of its rack has heard it since its start 33.0s ago"


def test_a_leader_that_has_just_started_calls_nobody_dead_whom_it_has_not_heard_yet() -> None:
    one = rack()
    one.seconds(60, LEADER)
    one.epochs[LEADER], one.newest[LEADER], one.uptime = 0xE2, 0, 0
    one.rows[LEADER] = (row("node1", UNKNOWN, age_ns=None, version=0, incarnation=None, sequence=None),)
    assert one.seconds(31, LEADER) == []
    assert one.shown() == (ALIVE, None)
    assert one.seconds(2, LEADER) == ["node-dead node1"]


def test_a_node_whose_first_word_is_in_another_protocol_is_shown_incompatible() -> None:
    one = Rack(root_core())
    one.seconds(1, LEADER)
    strange = transition(1, UNKNOWN, UNKNOWN, cause=Cause.INCOMPATIBLE)
    assert one.tell(LEADER, strange) == ["node-unknown node1"]
    assert one.shown() == (UNKNOWN, Cause.INCOMPATIBLE)


def test_a_node_that_nobody_ever_heard_is_never_dead() -> None:
    one = rack()
    one.rows[LEADER] = (row(), row("node2", UNKNOWN, age_ns=None, version=0, incarnation=None, sequence=None))
    assert one.seconds(120, LEADER) == []
    assert one.shown(NODE2) == (UNKNOWN, Cause.NEVER_SEEN)


def test_a_node_that_its_leaders_expect_no_longer_is_forgotten_and_not_shown_green() -> None:
    one = rack()
    one.rows[LEADER] = (row(), row("node2", version=2))
    one.newest[LEADER] = 2
    one.tell(LEADER, transition(2, node=NODE2))
    one.seconds(3, LEADER)
    one.book = one.book >> Kept(1) >> Kept(2)
    one.rows[LEADER] = (row(),)
    one.seconds(FORGET_NS // 10**9 + 2, LEADER)
    assert list(one.core.nodes) == [NODE]
    assert one.book.newest(Persist).batch.forgotten == (NODE2,)


def test_a_node_of_a_leader_that_is_silent_is_not_forgotten() -> None:
    one = rack()
    one.seconds(FORGET_NS // 10**9 + 20)
    assert list(one.core.nodes) == [NODE]
    assert one.seconds(3, LEADER) == ["leader-recovered rack1-leader1"]


def test_an_observer_that_has_not_heard_a_node_says_nothing_of_its_health() -> None:
    two = rack(*BOTH)
    two.rows[LEADER] = (row(health=Health.OK),)
    two.rows[LEADER2] = (row(age_ns=None, version=0, health=Health.UNKNOWN),)
    two.seconds(2, *BOTH)
    assert two.core.nodes[NODE].health is Health.OK


def test_a_rack_that_is_full_takes_no_more_nodes_and_keeps_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hbagent.core.datacenter.NODES_MAX", 2)
    one = rack()
    one.rows[LEADER] = (row(), row("node2"), row("node3"))
    one.seconds(1, LEADER)
    one.tell(LEADER, transition(2, node=f"{RACK}/node4"))
    assert list(one.core.nodes) == [NODE, NODE2]
    assert one.core.refused == {"too-many-nodes": 2}
    assert one.core.leaders[LEADER].lease.held
    assert NODES_MAX == 20_000


def test_a_leader_that_is_taken_out_of_the_config_speaks_no_more() -> None:
    two = rack(*BOTH)
    two.tell(LEADER2, transition(2, SUSPECT, ALIVE), transition(3, DEAD, SUSPECT))
    two.book = two.book >> Reconfigured(root_config(leaders=(LEADER,)))
    two.seconds(1, LEADER)
    assert two.shown() == (ALIVE, None)
    assert list(two.core.nodes[NODE].seen) == [LEADER]
    assert two.core.nodes[NODE].incarnation == INCARNATION


@pytest.mark.parametrize(("age_s", "told"), [(8, False), (0, True)])
def test_a_verdict_that_waited_for_the_root_is_no_news_beside_what_another_leader_has_heard_since(
    age_s: int, told: bool
) -> None:
    two = rack(*BOTH)
    two.seconds(3, *BOTH)
    two.rows[LEADER2] = (row(incarnation=INCARNATION + 1, sequence=1),)
    two.seconds(3, LEADER2)
    stale = transition(2, DEAD, ALIVE, sequence=10, cause=Cause.PROCESS_EXIT, at_mono_ns=5 * SECOND)
    sent = msgspec.structs.replace(transitions(stale), present=EPOCH, sent_mono_ns=(5 + age_s) * SECOND)
    begun = len(two.book.effects)
    two.book = two.book >> (LEADER, sent)
    kinds = [effect.kind for effect in two.book.effects[begun:] if isinstance(effect, Happened)]
    assert (Kind.NODE_DEAD in kinds) is told


# ---- who said goodbye ------------------------------------------------------------------------------------


def away_at(one: Rack, *leaders: str) -> list[tuple[str, int]]:
    """Who is told to be away, and in which second of the conversation, over twenty seconds."""
    told: list[tuple[str, int]] = []
    for _ in range(20):
        begun = len(one.book.effects)
        one.seconds(1, *leaders)
        one.book = one.book >> Kept(sum(isinstance(effect, Persist) for effect in one.book.effects))
        batches = [effect.batch for effect in one.book.effects[begun:] if isinstance(effect, Persist)]
        events = [event for batch in batches for event in batch.events if event.kind is Kind.NODE_AWAY]
        told.extend((event.node.rpartition("/")[2], one.book.now // SECOND) for event in events)
    return told


def leaving(one: Rack, *stamps_ns: int) -> None:
    """node1, node2, ... say goodbye one after the other, a second apart, to leaders with such wall clocks."""
    names = [f"node{number}" for number in range(1, 1 + len(stamps_ns))]
    one.rows[LEADER] = tuple(row(name, LEFT, version=2) for name in names)
    one.newest[LEADER] = 1 + len(names)
    for number, (name, at) in enumerate(zip(names, stamps_ns, strict=True), start=2):
        one.tell(LEADER, transition(number, LEFT, ALIVE, node=f"{RACK}/{name}", at_wall_ns=at))
        one.seconds(1, LEADER)


@pytest.mark.parametrize("skew_ns", [-365 * DAY, -8 * SECOND, 0, 8 * SECOND, 365 * DAY])
def test_how_long_a_node_is_away_is_counted_from_when_the_root_heard_its_goodbye(skew_ns: int) -> None:
    one = rack(left_warn_after_ns=10 * SECOND)
    leaving(one, WALL_NS + 2 * SECOND + skew_ns)
    assert away_at(one, LEADER) == [("node1", 12)], "ten seconds after second 2"


def test_one_wrong_clock_keeps_nobody_else_from_being_told_away() -> None:
    one = rack(left_warn_after_ns=10 * SECOND)
    leaving(one, WALL_NS + 365 * DAY, WALL_NS, WALL_NS - 365 * DAY)
    assert away_at(one, LEADER) == [("node1", 12), ("node2", 13), ("node3", 14)]


@pytest.mark.parametrize("step_ns", [-365 * DAY, 365 * DAY])
def test_a_step_of_the_roots_own_clock_makes_no_goodbye_older_or_younger(step_ns: int) -> None:
    one = rack(left_warn_after_ns=10 * SECOND)
    leaving(one, WALL_NS + 2 * SECOND)
    one.book = one.book >> WallTime(WALL_NS + step_ns)
    assert away_at(one, LEADER) == [("node1", 12)]


@pytest.mark.parametrize(("ago_ns", "told"), [(-365 * DAY, 10), (0, 10), (6 * SECOND, 4), (365 * DAY, 1)])
def test_after_a_restart_of_the_root_a_goodbye_counts_from_when_it_was_heard_and_from_now_at_the_latest(
    ago_ns: int, told: int
) -> None:
    nodes = (
        NodeState(node=NODE2, rack=RACK, liveness=LEFT, since_wall_ns=WALL_NS + DAY),
        NodeState(node=NODE, rack=RACK, liveness=LEFT, since_wall_ns=WALL_NS - ago_ns),
    )
    one = Rack(root_core(restored=Restored(nodes=nodes), left_warn_after_ns=10 * SECOND))
    one.rows[LEADER] = (row("node1", LEFT), row("node2", LEFT))
    one.newest[LEADER] = 0
    assert [each for each in away_at(one, LEADER) if each[0] == "node1"] == [("node1", told)]


def test_a_restarted_root_waits_for_the_time_and_goes_by_what_it_kept_itself() -> None:
    first = rack(left_warn_after_ns=10 * SECOND)
    leaving(first, WALL_NS - 365 * DAY)
    kept = first.core.nodes[NODE].state()
    core = RootCore(root_config(left_warn_after_ns=10 * SECOND), random.Random(1), 0, Restored(nodes=(kept,)))
    one = Rack(core)
    one.rows[LEADER], one.newest[LEADER] = (row("node1", LEFT),), 0
    assert away_at(one, LEADER) == []
    one.book = one.book >> WallTime(WALL_NS + 5 * SECOND)
    assert away_at(one, LEADER) == [("node1", 27)], "three seconds had passed, and seven more do"
