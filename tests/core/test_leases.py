from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

from hbagent.core.config import RackConfig, RootConfig
from hbagent.core.effects import Effects, Happened
from hbagent.core.messages import NodeRow, RackSummary
from hbagent.core.root import RootCore
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND

LEADER = "dc1/rack1-leader1"
RACK = "dc1/rack1"
NODE = "dc1/rack1/node1"


def make_root() -> RootCore:
    config = RootConfig(name="dc1/root", racks=(RackConfig(name=RACK, leaders=(LEADER,)),))
    return RootCore(config, random.Random(1), 0)


def summary(number: int, liveness: Liveness = Liveness.ALIVE, *, epoch: int = 1, sequence: int = 0) -> RackSummary:
    row = NodeRow(
        node="node1",
        liveness=liveness,
        cause=None if liveness is Liveness.ALIVE else Cause.SILENCE,
        age_ns=0,
        incarnation=7,
        sequence=sequence or number,
    )
    return RackSummary(rack=RACK, epoch=epoch, number=number, newest=0, nodes=(row,))


def kinds(effects: Effects) -> list[Kind]:
    return [effect.kind for effect in effects if isinstance(effect, Happened)]


def let_pass(root: RootCore, begin: int, end: int) -> list[Kind]:
    """Wake the root whenever it wants, and say what happened."""
    happened: list[Kind] = []
    now = begin
    for _ in range(10_000):
        deadline = root.deadline()
        assert deadline is not None
        if deadline > end:
            return happened
        now = max(now, deadline)
        happened += kinds(root.wake(now))
    raise AssertionError("the root turns in place")


def hear(root: RootCore, messages: Iterable[RackSummary], now: int) -> list[Kind]:
    return [kind for message in messages for kind in kinds(root.receive(LEADER, message, now))]


def test_a_leader_that_falls_silent_is_lost_when_its_lease_ends_and_its_nodes_are_unknown() -> None:
    root = make_root()
    hear(root, [summary(1)], SECOND)
    assert let_pass(root, SECOND, 6 * SECOND - 1) == []
    assert let_pass(root, 6 * SECOND - 1, 7 * SECOND) == [Kind.LEADER_LOST]
    shown = root.shown(root.nodes[NODE])
    assert (shown.liveness, shown.cause) == (Liveness.UNKNOWN, Cause.LEADER_LOST)


def test_a_summary_that_comes_twice_renews_no_lease() -> None:
    root = make_root()
    hear(root, [summary(1), summary(2)], SECOND)
    hear(root, [summary(2), summary(1)], 4 * SECOND)
    assert let_pass(root, 4 * SECOND, 7 * SECOND) == [Kind.LEADER_LOST]
    assert root.refused == {"duplicate": 1, "stale": 1}


def test_a_summary_that_was_overtaken_moves_no_sequence_back() -> None:
    root = make_root()
    hear(root, [summary(1, sequence=10), summary(3, sequence=12), summary(2, sequence=11)], SECOND)
    assert root.nodes[NODE].seen[LEADER].sequence == 12


def test_the_pages_of_one_summary_are_all_taken() -> None:
    root = make_root()
    rows = [NodeRow(node=f"n{page}", liveness=Liveness.ALIVE) for page in range(3)]
    pages = [msgspec.structs.replace(summary(1), page=page, pages=3, nodes=(row,)) for page, row in enumerate(rows)]
    hear(root, pages, SECOND)
    assert list(root.nodes) == [f"{RACK}/n0", f"{RACK}/n1", f"{RACK}/n2"]


def test_a_summary_of_a_leaders_earlier_life_raises_no_dead_node() -> None:
    root = make_root()
    hear(root, [summary(1, epoch=1)], SECOND)
    hear(root, [summary(1, Liveness.DEAD, epoch=2)], 2 * SECOND)
    assert root.shown(root.nodes[NODE]).liveness is Liveness.DEAD
    hear(root, [summary(2, Liveness.ALIVE, epoch=1)], 2 * SECOND + 1)
    assert root.shown(root.nodes[NODE]).liveness is Liveness.DEAD
    assert root.leaders[LEADER].lease.epoch == 2


def test_a_root_that_stood_still_gives_its_leaders_that_time() -> None:
    root = make_root()
    hear(root, [summary(1)], SECOND)
    let_pass(root, SECOND, 2 * SECOND)
    # Its machine was suspended: it was not woken, and nothing was heard.
    resumed = 10 * SECOND
    assert kinds(root.wake(resumed)) == []
    assert let_pass(root, resumed, resumed + 3 * SECOND) == []
    assert let_pass(root, resumed + 3 * SECOND, resumed + 5 * SECOND) == [Kind.LEADER_LOST]


def test_a_lease_renewed_after_the_root_stood_still_is_no_longer_than_others() -> None:
    root = make_root()
    hear(root, [summary(1)], SECOND)
    let_pass(root, SECOND, 2 * SECOND)
    resumed = 10 * SECOND
    hear(root, [summary(2)], resumed)
    root.wake(resumed)
    assert let_pass(root, resumed, resumed + 5 * SECOND + 10 * MILLISECOND) == [Kind.LEADER_LOST]
