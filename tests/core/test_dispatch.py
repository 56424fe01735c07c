"""Dispatch: in order per node, a few at once, tried again, and at last put aside. Nothing owed is ever lost."""

from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.config import HookConfig
from hbagent.core.dispatch import LINE_KEPT_MAX, OUTPUT_KEPT_MAX, PLACES_MAX, Dispatch, revived
from hbagent.core.effects import RunHook
from hbagent.core.hooktest import TESTS_MAX
from hbagent.core.records import HookRun, RunState
from hbagent.core.states import Kind
from hbagent.role.hooking import RUNS_MAX
from tests.build import NODE, NODE2, WALL_NS, T, ended, hook, run

RETRIES = (T(1), T(5))


def make(concurrency: int = 2, limit: int = 100, hooks: tuple[HookConfig, ...] = (hook("page"),)) -> Dispatch:
    return Dispatch(hooks, concurrency, RETRIES, limit)


def ids(started: tuple[RunHook, ...]) -> list[str]:
    return [order.run_id for order in started]


def test_a_run_starts_with_the_command_and_time_limit_of_its_hook_and_knows_its_attempt() -> None:
    dispatch = make(hooks=(hook("page", timeout_ns=T(7)),))
    dispatch.add(run(1, input=b'{"event_id":"e-1","attempt":0}'), 0)
    (order,) = dispatch.ready(0)
    assert (order.argv, order.timeout_ns) == (("/hooks/page",), T(7))
    assert msgspec.json.decode(order.input) == {"event_id": "e-1", "attempt": 1}
    assert dispatch.ready(T(100)) == (), "it runs"


def test_the_runs_of_one_node_are_one_at_a_time_and_in_order() -> None:
    dispatch = make()
    for number in (1, 2, 3):
        dispatch.add(run(number), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page"]
    dispatch.finished(ended("e-1-page"), T(1), WALL_NS)
    assert ids(dispatch.ready(T(1))) == ["e-2-page"]


def test_nodes_do_not_wait_for_one_another_but_for_a_place() -> None:
    dispatch = make(concurrency=2)
    for number in (1, 2, 3):
        dispatch.add(run(number, node=f"dc1/rack1/node{number}"), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page", "e-2-page"]
    assert dispatch.deadline() is None, "all places are taken"
    dispatch.finished(ended("e-2-page"), T(1), WALL_NS)
    assert dispatch.deadline() == 0
    assert ids(dispatch.ready(T(1))) == ["e-3-page"]


def test_two_hooks_of_one_node_do_not_wait_for_one_another() -> None:
    dispatch = make(hooks=(hook("page"), hook("log")))
    dispatch.add(run(1), 0)
    dispatch.add(run(1, run_id="e-1-log", hook="log"), 0)
    assert sorted(ids(dispatch.ready(0))) == ["e-1-log", "e-1-page"]


def test_events_about_no_node_do_not_wait_for_one_another() -> None:
    dispatch = make()
    dispatch.add(run(1, node=""), 0)
    dispatch.add(run(2, node=""), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page", "e-2-page"]


def test_a_node_of_which_much_is_told_does_not_go_before_others_again_and_again() -> None:
    dispatch = make(concurrency=1)
    dispatch.add(run(1), 0)
    dispatch.add(run(2), 0)
    dispatch.add(run(3, node=NODE2), T(1))
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page"), T(2), WALL_NS)
    assert ids(dispatch.ready(T(2))) == ["e-3-page"]


def test_a_failed_run_is_tried_again_after_each_wait_and_then_put_aside() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.add(run(2), 0)
    now = 0
    for attempt, wait in enumerate(RETRIES, 1):
        assert ids(dispatch.ready(now)) == ["e-1-page"]
        again = dispatch.finished(ended("e-1-page", 3), now, WALL_NS)
        assert again is not None and (again.state, again.attempt) == (RunState.PENDING, attempt)
        assert again.due_wall_ns == WALL_NS + wait
        assert dispatch.deadline() == now + wait
        assert dispatch.ready(now + wait - 1) == (), "nor does the next of its node overtake it"
        now += wait
    dispatch.ready(now)
    over = dispatch.finished(ended("e-1-page", 3), now, WALL_NS)
    assert over is not None and (over.state, over.attempt, over.error) == (RunState.DEAD, 3, "exit 3")
    assert (dispatch.dead, dispatch.waiting) == (1, 1)
    assert ids(dispatch.ready(now)) == ["e-2-page"]


def test_a_run_that_was_killed_in_time_has_failed_whatever_its_exit_status() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.ready(0)
    again = dispatch.finished(ended("e-1-page", 0, "timeout"), 0, WALL_NS)
    assert again is not None and (again.state, again.error) == (RunState.PENDING, "timeout")


def test_a_run_that_ends_well_is_done_and_its_earlier_failure_forgotten() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page", 3), 0, WALL_NS)
    dispatch.ready(T(1))
    done = dispatch.finished(ended("e-1-page"), T(2), WALL_NS)
    assert done is not None and (done.state, done.attempt, done.error) == (RunState.DONE, 2, "")
    assert dispatch.waiting == 0


def test_the_end_of_a_process_that_is_not_running_changes_nothing() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    assert dispatch.finished(ended("e-1-page"), 0, WALL_NS) is None
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page"), 0, WALL_NS)
    assert dispatch.finished(ended("e-1-page"), 0, WALL_NS) is None


def test_a_run_is_not_started_before_it_is_due() -> None:
    dispatch = make()
    dispatch.add(run(1), T(5))
    assert (dispatch.ready(T(5) - 1), dispatch.deadline()) == ((), T(5))
    assert ids(dispatch.ready(T(5))) == ["e-1-page"]


def test_a_run_of_a_hook_that_is_not_in_the_config_is_put_aside() -> None:
    dispatch = make()
    (given_up,) = dispatch.add(run(1, hook="gone"), 0)
    assert (given_up.state, given_up.error) == (RunState.DEAD, "this hook is not in the config any more")
    assert dispatch.waiting == 0


def test_a_waiting_run_outlives_its_hook_in_the_config() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.reconfigure((), 2, RETRIES, 100)
    assert [order.argv for order in dispatch.ready(0)] == [("/hooks/page",)]


def test_a_new_config_counts_at_once() -> None:
    dispatch = make(concurrency=1)
    dispatch.add(run(1), 0)
    dispatch.add(run(2, node=NODE2), 0)
    assert len(dispatch.ready(0)) == 1
    dispatch.reconfigure((hook("page"),), 2, (), 100)
    assert ids(dispatch.ready(0)) == ["e-2-page"]
    over = dispatch.finished(ended("e-2-page", 1), 0, WALL_NS)
    assert over is not None and over.state is RunState.DEAD, "no retries any more"


def test_when_too_many_wait_the_oldest_of_the_node_that_has_not_started_makes_room() -> None:
    dispatch = make(concurrency=1, limit=3)
    dispatch.add(run(1), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page"]
    dispatch.add(run(2), 0)
    dispatch.add(run(3), 0)
    (given_up,) = dispatch.add(run(4), 0)
    assert (given_up.run_id, given_up.state) == ("e-2-page", RunState.DEAD)
    assert (dispatch.waiting, dispatch.folded) == (3, 1)
    for running, following in (("e-1-page", "e-3-page"), ("e-3-page", "e-4-page")):
        dispatch.finished(ended(running), 0, WALL_NS)
        assert ids(dispatch.ready(0)) == [following]


def test_when_too_many_wait_and_none_of_the_node_does_the_new_run_is_put_aside() -> None:
    dispatch = make(concurrency=1, limit=1)
    dispatch.add(run(1), 0)
    (given_up,) = dispatch.add(run(2, node=NODE2), 0)
    assert (given_up.run_id, given_up.state) == ("e-2-page", RunState.DEAD)
    dispatch.ready(0)
    (given_up,) = dispatch.add(run(3, node=NODE), 0)
    assert given_up.run_id == "e-3-page", "a run that has started makes no room"


def test_a_run_waiting_for_its_retry_may_make_room() -> None:
    dispatch = make(limit=1)
    dispatch.add(run(1), 0)
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page", 1), 0, WALL_NS)
    (given_up,) = dispatch.add(run(2), 0)
    assert given_up.run_id == "e-1-page"
    assert ids(dispatch.ready(0)) == ["e-2-page"]
    assert dispatch.ready(T(10)) == (), "the retry is gone with its run"


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 12))
def test_whatever_happens_order_and_number_hold_and_nothing_is_lost(seed: int, concurrency: int, limit: int) -> None:
    rng = random.Random(seed)
    dispatch = make(concurrency, limit)
    now = 0
    open_runs: dict[str, HookRun] = {}
    running: dict[str, str] = {}
    newest_started: dict[str, int] = {}
    ending: dict[str, RunState] = {}

    def take_over(runs: tuple[HookRun, ...]) -> None:
        for given_up in runs:
            del open_runs[given_up.run_id]
            assert given_up.run_id not in running
            ending[given_up.run_id] = given_up.state

    def start() -> None:
        for order in dispatch.ready(now):
            started = open_runs[order.run_id]
            assert started.node not in running.values(), "one at a time for a node"
            assert started.queued >= newest_started.get(started.node, 0), "in order"
            newest_started[started.node] = started.queued
            running[order.run_id] = started.node
        assert len(running) <= concurrency

    def finish(run_id: str, exit_code: int) -> None:
        del running[run_id]
        ended_run = dispatch.finished(ended(run_id, exit_code), now, WALL_NS + now)
        assert ended_run is not None
        if ended_run.state is not RunState.PENDING:
            del open_runs[run_id]
            ending[run_id] = ended_run.state

    owed = 0
    for _ in range(80):
        if rng.random() < 0.5:
            owed += 1
            added = run(owed, node=f"dc1/rack1/node{rng.randrange(4)}")
            open_runs[added.run_id] = added
            take_over(dispatch.add(added, now))
        start()
        if running and rng.random() < 0.5:
            finish(rng.choice(list(running)), rng.choice((0, 0, 1)))
        now += rng.randrange(T(2))
        assert dispatch.waiting == len(open_runs) <= limit
    while open_runs:
        start()
        if running:
            finish(next(iter(running)), 0)
        else:
            due = dispatch.deadline()
            assert due is not None
            now = max(now, due)
    assert len(ending) == owed


# ---- summaries stand in line for everybody of whom they tell ---------------------------------------------


def summary(number: int, *members: str, node: str = "", **fields: Any) -> HookRun:
    return run(number, node=node or f"e-{number}", kind=Kind.SUMMARY, members=members, **fields)


def told(dispatch: Dispatch, failing: dict[str, int]) -> list[str]:
    """Events in the order in which the receiver took them, or they were given up; it fails so often at first."""
    failing = dict(failing)
    heard, now = [], 0
    while (due := dispatch.deadline()) is not None:
        now = max(now, due)
        started = ids(dispatch.ready(now))
        # The newest ends first: what overtakes is seen.
        for run_id in reversed(started):
            event = run_id.removesuffix("-page")
            failing[event] = failing.get(event, 0) - 1
            over = dispatch.finished(ended(run_id, int(failing[event] >= 0)), now, WALL_NS + now)
            assert over is not None
            if over.state is not RunState.PENDING:
                heard.append(event)
    assert dispatch.waiting == 0, "nothing waits for ever"
    assert dispatch._queues == {}, "what is over takes no memory"
    return heard


def test_nobody_hears_of_a_member_in_the_wrong_order_around_a_summary_whatever_fails() -> None:
    for failing in itertools.product((0, 1, 3), repeat=4):
        dispatch = make(concurrency=4)
        dispatch.add(run(1, node=NODE), 0)
        dispatch.add(summary(2, NODE, NODE2), 0)
        dispatch.add(run(3, node=NODE), 0)
        dispatch.add(run(4, node=NODE2), 0)
        heard = told(dispatch, {f"e-{number}": times for number, times in enumerate(failing, 1)})
        assert heard[:2] == ["e-1", "e-2"], failing
        assert sorted(heard[2:]) == ["e-3", "e-4"], failing


def test_a_summary_waits_for_each_of_its_members_and_they_for_it() -> None:
    dispatch = make(concurrency=4)
    dispatch.add(run(1, node=NODE), 0)
    dispatch.add(run(2, node=NODE2), 0)
    dispatch.add(summary(3, NODE, NODE2), 0)
    dispatch.add(run(4, node=NODE2), 0)
    dispatch.add(run(5, node="dc1/rack1/other"), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page", "e-2-page", "e-5-page"], "who is not told of does not wait"
    dispatch.finished(ended("e-2-page"), T(1), WALL_NS)
    assert dispatch.ready(T(1)) == (), "nor does what follows overtake the summary that waits for another"
    dispatch.finished(ended("e-1-page"), T(2), WALL_NS)
    assert ids(dispatch.ready(T(2))) == ["e-3-page"]
    dispatch.finished(ended("e-3-page", 1), T(3), WALL_NS)
    assert (dispatch.ready(T(3)), dispatch.deadline()) == ((), T(4)), "it is tried again before anybody goes on"
    assert ids(dispatch.ready(T(4))) == ["e-3-page"]
    dispatch.finished(ended("e-3-page"), T(5), WALL_NS)
    assert ids(dispatch.ready(T(5))) == ["e-4-page"]


def test_summaries_that_share_a_member_are_told_one_after_the_other_and_others_beside_them() -> None:
    a, b, c, d = (f"dc1/rack1/{name}" for name in "abcd")
    dispatch = make(concurrency=4)
    dispatch.add(summary(1, a, b), 0)
    dispatch.add(summary(2, b, c), 0)
    dispatch.add(summary(3, c, d), 0)
    dispatch.add(summary(4, d), 0)
    dispatch.add(run(5, node=a), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page"]
    dispatch.finished(ended("e-1-page"), 0, WALL_NS)
    assert ids(dispatch.ready(0)) == ["e-2-page", "e-5-page"]
    for number in (2, 3):
        dispatch.finished(ended(f"e-{number}-page"), 0, WALL_NS)
        assert ids(dispatch.ready(0)) == [f"e-{number + 1}-page"]


def test_the_end_of_a_summary_comes_after_it_also_where_they_share_no_member() -> None:
    dispatch = make(concurrency=4)
    dispatch.add(summary(1, NODE), 0)
    dispatch.add(summary(2, NODE2, node="e-1"), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page"]


def test_a_summary_of_one_hook_does_not_wait_for_another_hook() -> None:
    dispatch = make(hooks=(hook("page"), hook("log")))
    dispatch.add(run(1, hook="log", run_id="e-1-log"), 0)
    dispatch.add(summary(2, NODE, NODE2), 0)
    assert sorted(ids(dispatch.ready(0))) == ["e-1-log", "e-2-page"]


def test_a_member_that_is_named_twice_or_is_what_the_summary_is_known_by_counts_once() -> None:
    dispatch = make()
    dispatch.add(summary(1, NODE, NODE2, NODE, node=NODE2), 0)
    dispatch.add(run(2, node=NODE), 0)
    assert told(dispatch, {"e-1": 1}) == ["e-1", "e-2"]


def test_a_summary_is_not_started_before_it_is_due_also_when_the_way_is_free_earlier() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.add(summary(2, NODE), T(5))
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page"), T(1), WALL_NS)
    assert (dispatch.ready(T(5) - 1), dispatch.deadline()) == ((), T(5))
    assert ids(dispatch.ready(T(5))) == ["e-2-page"]


def test_a_summary_counts_as_one_run() -> None:
    dispatch = make()
    dispatch.add(summary(1, NODE, NODE2), 0)
    dispatch.add(run(2, node=NODE2), 0)

    def counts() -> list[int]:
        (row,) = dispatch.view()["hooks"]
        return [dispatch.waiting, *(row[key] for key in ("waiting", "running", "done", "failed", "dead"))]

    assert counts() == [2, 2, 0, 0, 0, 0]
    dispatch.ready(0)
    assert counts() == [2, 1, 1, 0, 0, 0]
    dispatch.finished(ended("e-1-page", 1), 0, WALL_NS)
    assert counts() == [2, 2, 0, 0, 1, 0]
    dispatch.ready(T(1))
    dispatch.finished(ended("e-1-page"), T(1), WALL_NS)
    assert counts() == [1, 1, 0, 1, 1, 0]


def test_a_summary_makes_no_room_for_news_of_one_of_its_members() -> None:
    dispatch = make(limit=2)
    dispatch.add(summary(1, NODE, NODE2), 0)
    dispatch.add(run(2, node=NODE), 0)
    (given_up,) = dispatch.add(run(3, node=NODE), 0)
    assert given_up.run_id == "e-2-page", "it is the oldest that tells of nobody else"
    (given_up,) = dispatch.add(run(4, node=NODE2), 0)
    assert given_up.run_id == "e-4-page"
    assert told(dispatch, {}) == ["e-1", "e-3"]


def test_what_tells_only_of_members_makes_room_for_a_summary_and_leaves_no_trace() -> None:
    dispatch = make(limit=3)
    dispatch.add(summary(1, NODE, NODE2), 0)
    dispatch.add(run(2, node="dc1/rack1/other"), 0)
    dispatch.add(run(3, node=NODE2), 0)
    (given_up,) = dispatch.add(summary(4, NODE2, "dc1/rack1/third"), 0)
    assert (given_up.run_id, given_up.state, dispatch.waiting) == ("e-3-page", RunState.DEAD, 3)
    (given_up,) = dispatch.add(summary(5, NODE2, NODE), 0)
    assert (given_up.run_id, dispatch.waiting, dispatch.folded) == ("e-1-page", 3, 2)
    assert ids(dispatch.ready(0)) == ["e-2-page", "e-4-page"], "a summary that made room holds up nobody"
    dispatch.finished(ended("e-2-page"), 0, WALL_NS)
    assert dispatch.ready(0) == ()
    dispatch.finished(ended("e-4-page"), 0, WALL_NS)
    assert told(dispatch, {}) == ["e-5"]


def test_a_summary_makes_room_from_between_others_and_they_close_up() -> None:
    dispatch = make(limit=3)
    dispatch.add(run(1, node=NODE), 0)
    assert ids(dispatch.ready(0)) == ["e-1-page"]
    dispatch.add(summary(2, NODE, NODE2), 0)
    dispatch.add(run(3, node="dc1/rack1/other"), 0)
    (given_up,) = dispatch.add(summary(4, NODE, NODE2), 0)
    assert given_up.run_id == "e-2-page"
    assert ids(dispatch.ready(0)) == ["e-3-page"], "the newer one waits for what runs"
    dispatch.finished(ended("e-1-page"), 0, WALL_NS)
    assert ids(dispatch.ready(0)) == ["e-4-page"]


def test_a_waiting_summary_outlives_its_hook_in_the_config_and_keeps_its_place() -> None:
    dispatch = make(concurrency=4)
    dispatch.add(run(1), 0)
    dispatch.add(summary(2, NODE, NODE2), 0)
    dispatch.add(run(3, node=NODE2), 0)
    dispatch.reconfigure((hook("log"),), 4, RETRIES, 1)
    assert told(dispatch, {"e-1": 1}) == ["e-1", "e-2", "e-3"]


def test_ten_thousand_members_cost_each_its_own_place_and_no_more() -> None:
    dispatch = make(concurrency=4)
    members = [f"dc1/rack{number // 40}/node{number}" for number in range(10_000)]
    for number in (1, 2, 3):
        dispatch.add(summary(number, *members), 0)
    dispatch.add(run(4, node=members[-1]), 0)
    assert told(dispatch, {"e-1": 1}) == ["e-1", "e-2", "e-3", "e-4"]


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from((3, 6, 1000)))
def test_of_everybody_all_is_told_in_the_order_in_which_it_was_owed(seed: int, concurrency: int, limit: int) -> None:
    rng = random.Random(seed)
    names = [f"dc1/rack1/node{number}" for number in range(5)]
    dispatch = make(concurrency, limit, (hook("page"), hook("log")))
    now = 0
    #: Those that are not over, in the order in which they were owed.
    owed: dict[str, HookRun] = {}
    running: dict[str, None] = {}
    over: dict[str, HookRun] = {}

    def about(one: HookRun) -> set[tuple[str, str]]:
        return {(one.hook, name) for name in (one.node, *one.members)}

    def earlier(one: HookRun) -> list[HookRun]:
        before = itertools.takewhile(lambda other: other.run_id != one.run_id, owed.values())
        return [other for other in before if about(other) & about(one)]

    def start() -> None:
        for order in dispatch.ready(now):
            assert earlier(owed[order.run_id]) == [], "it is the oldest of everybody of whom it tells"
            running[order.run_id] = None

    def finish(run_id: str, exit_code: int) -> None:
        del running[run_id]
        as_it_is = dispatch.finished(ended(run_id, exit_code), now, WALL_NS + now)
        assert as_it_is is not None
        if as_it_is.state is not RunState.PENDING:
            assert earlier(owed[run_id]) == [], "in order"
            del owed[run_id]
            over[run_id] = as_it_is

    for number in range(1, 40):
        name = rng.choice(("page", "page", "log"))
        if rng.random() < 0.4:
            members = rng.sample(names, rng.randint(1, len(names)))
            node = rng.choice((f"e-{number}", f"e-{rng.randint(1, number)}"))
            added = summary(number, *members, node=node, hook=name, run_id=f"e-{number}-{name}")
        else:
            added = run(number, node=rng.choice(names), hook=name, run_id=f"e-{number}-{name}")
        owed[added.run_id] = added
        for given_up in dispatch.add(added, now):
            assert given_up.run_id not in running and given_up.state is RunState.DEAD
            assert set(given_up.members) <= {added.node, *added.members}, "nothing is folded into other news"
            over[given_up.run_id] = given_up
            del owed[given_up.run_id]
        if rng.random() < 0.7:
            start()
        while running and rng.random() < 0.5:
            finish(rng.choice(list(running)), rng.choice((0, 0, 1)))
        now += rng.randrange(T(1))
        assert dispatch.waiting == len(owed) <= limit
        for row in dispatch.view()["hooks"]:
            assert row["waiting"] + row["running"] == sum(one.hook == row["hook"] for one in owed.values())
    while owed:
        start()
        if running:
            finish(rng.choice(list(running)), rng.choice((0, 1)))
        else:
            due = dispatch.deadline()
            assert due is not None, "nothing waits for ever"
            now = max(now, due)
    assert len(over) == 39
    assert dispatch._queues == {}
    for one in over.values():
        assert one.state is RunState.DONE or one.attempt == len(RETRIES) + 1 or "waiting" in one.error
    if limit == 1000:
        assert dispatch.folded == 0


# ---- nobody holds up the others --------------------------------------------------------------------------


@pytest.mark.parametrize("others", [(), ("page",), ("page", "log"), ("page", "log", "chat", "mail", "fence")])
def test_each_hook_may_have_as_many_places_as_if_it_were_the_only_one(others: tuple[str, ...]) -> None:
    dispatch = make(concurrency=4, hooks=tuple(hook(name) for name in ("slow", *others)))
    for number in range(1, 9):
        dispatch.add(run(number, node=f"dc1/rack1/node{number}", hook="slow", run_id=f"e-{number}-slow"), 0)
    assert ids(dispatch.ready(0)) == [f"e-{number}-slow" for number in range(1, 5)]
    for number, name in enumerate(others, 10):
        dispatch.add(run(number, node="dc1/rack1/node1", hook=name, run_id=f"e-{number}-{name}"), 0)
    assert ids(dispatch.ready(0)) == sorted(f"e-{number}-{name}" for number, name in enumerate(others, 10))


def test_a_hook_that_hangs_leaves_a_place_to_each_of_the_others() -> None:
    dispatch = make(concurrency=2, hooks=(hook("slow"), hook("page"), hook("log")))
    for number in range(1, 9):
        dispatch.add(run(number, node=f"dc1/rack1/node{number}", hook="slow", run_id=f"e-{number}-slow"), 0)
    assert ids(dispatch.ready(0)) == ["e-1-slow", "e-2-slow"]
    assert dispatch.deadline() is None, "what waits may not start yet"
    dispatch.add(run(9), 0)
    dispatch.add(run(9, run_id="e-9-log", hook="log"), 0)
    assert ids(dispatch.ready(0)) == ["e-9-log", "e-9-page"]
    dispatch.finished(ended("e-1-slow"), T(1), WALL_NS)
    assert ids(dispatch.ready(T(1))) == ["e-3-slow"]


def test_two_hooks_that_hang_leave_a_place_to_the_third() -> None:
    names = ("a", "b", "c")
    dispatch = make(concurrency=2, hooks=tuple(hook(name) for name in names))
    for number, name in enumerate(("a", "a", "a", "b", "b", "c", "c"), 1):
        dispatch.add(run(number, node=f"dc1/rack1/node{number}", hook=name, run_id=f"{number}-{name}"), 0)
    assert ids(dispatch.ready(0)) == ["1-a", "2-a", "4-b", "6-c"]
    dispatch.finished(ended("1-a"), 0, WALL_NS)
    assert ids(dispatch.ready(0)) == ["3-a"], "the place that was spare still is"


def test_a_hook_that_is_gone_from_the_config_tells_what_it_owes_beside_the_others() -> None:
    dispatch = make(concurrency=1)
    dispatch.add(run(1), 0)
    dispatch.reconfigure((hook("log"),), 1, RETRIES, 100)
    dispatch.add(run(2, hook="log", run_id="e-2-log"), 0)
    assert sorted(ids(dispatch.ready(0))) == ["e-1-page", "e-2-log"]


def test_no_more_runs_are_under_way_than_the_runner_has_hands_for_and_each_hook_has_its_place() -> None:
    names = [f"hook{number}" for number in range(20)]
    dispatch = make(concurrency=64, limit=10_000, hooks=tuple(hook(name) for name in names))
    runs = iter(range(10_000))
    for name in names[:-1]:
        for number in itertools.islice(runs, 70):
            dispatch.add(run(number, node=f"dc1/rack1/node{number}", hook=name, run_id=f"{number}-{name}"), 0)

    started = dispatch.ready(0)

    assert len(started) == PLACES_MAX - 1, "one is left to the hook that has nothing to tell"
    assert {order.hook for order in started} == set(names[:-1])
    dispatch.add(run(next(runs), hook=names[-1], run_id="last"), 0)
    assert ids(dispatch.ready(0)) == ["last"]
    assert (dispatch.places, dispatch.deadline()) == (PLACES_MAX, None)
    assert RUNS_MAX == PLACES_MAX + TESTS_MAX


def test_more_hooks_than_there_are_places_are_all_told_one_after_the_other() -> None:
    names = [f"hook{number:03}" for number in range(PLACES_MAX + 10)]
    dispatch = make(concurrency=4, limit=10_000, hooks=tuple(hook(name) for name in names))
    for number, name in enumerate(names):
        dispatch.add(run(number, hook=name, run_id=name), 0)
    first = ids(dispatch.ready(0))
    assert len(first) == PLACES_MAX
    for run_id in first:
        dispatch.finished(ended(run_id), 0, WALL_NS)
    assert sorted([*first, *ids(dispatch.ready(0))]) == names


# ---- what came of them -----------------------------------------------------------------------------------


def test_the_error_of_a_failed_run_ends_with_the_last_line_that_it_printed() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.ready(0)
    said = msgspec.structs.replace(ended("e-1-page", 1), output=b"trying\nno route \xff to host\n\n")
    again = dispatch.finished(said, 0, WALL_NS)
    assert again is not None and again.error == "exit 1: no route � to host"
    dispatch.ready(T(1))
    again = dispatch.finished(msgspec.structs.replace(ended("e-1-page", 1), output=b"x" * 70_000), 0, WALL_NS)
    assert again is not None and len(again.error) == len("exit 1: ") + LINE_KEPT_MAX


def test_what_a_run_printed_is_no_error_when_it_ended_well() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.ready(0)
    done = dispatch.finished(msgspec.structs.replace(ended("e-1-page"), output=b"sent\n"), 0, WALL_NS)
    assert done is not None and (done.state, done.error) == (RunState.DONE, "")


def test_each_hook_is_shown_with_what_came_of_its_runs() -> None:
    dispatch = make(concurrency=1, hooks=(hook("page", hold_ns=T(10)), hook("log")))
    for number in (1, 2, 3):
        dispatch.add(run(number, node=f"dc1/rack1/node{number}"), 0)
    dispatch.ready(0)
    said = msgspec.structs.replace(ended("e-1-page", 3), output=b"x" * 5000 + b"end", duration_ns=1_500_000)
    dispatch.finished(said, 0, WALL_NS)
    page, log = dispatch.view()["hooks"]
    assert (page["hook"], page["hold_s"], page["configured"]) == ("page", 10.0, True)
    assert page["on"][:2] == ["node-dead", "node-recovered"]
    assert [page[key] for key in ("waiting", "running", "done", "failed", "dead")] == [3, 0, 0, 1, 0]
    assert page["last"]["error"].startswith("exit 3: xxx")
    assert (page["last"]["event_id"], page["last"]["took_ms"]) == ("e-1", 1.5)
    assert page["last"]["output"].endswith("end") and len(page["last"]["output"]) == OUTPUT_KEPT_MAX
    assert (log["hook"], log["waiting"], log["last"]) == ("log", 0, None)


def test_runs_that_end_well_and_runs_that_are_given_up_are_counted() -> None:
    dispatch = make(concurrency=1)
    dispatch.add(run(1), 0)
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page"), 0, WALL_NS)
    dispatch.add(run(2), 0)
    for now in (0, T(1), T(6)):
        dispatch.ready(now)
        dispatch.finished(ended("e-2-page", 1), now, WALL_NS)
    (row,) = dispatch.view()["hooks"]
    assert [row[key] for key in ("waiting", "running", "done", "failed", "dead")] == [0, 0, 1, 3, 1]
    assert row["last"]["error"] == "exit 1"


def test_a_hook_that_left_the_config_is_shown_while_something_of_it_waits() -> None:
    dispatch = make()
    dispatch.add(run(1), 0)
    dispatch.reconfigure((hook("log"),), 2, RETRIES, 100)
    assert [(row["hook"], row["configured"]) for row in dispatch.view()["hooks"]] == [("log", True), ("page", False)]
    dispatch.ready(0)
    dispatch.finished(ended("e-1-page"), 0, WALL_NS)
    assert [row["hook"] for row in dispatch.view()["hooks"]] == ["log"]


def test_a_run_that_was_given_up_can_be_owed_again() -> None:
    dispatch = make()
    dead = run(1, state=RunState.DEAD, attempt=5, error="exit 1")
    again = revived(dead, WALL_NS)
    assert (again.state, again.attempt, again.error, again.event_id) == (RunState.PENDING, 0, "", "e-1")
    assert dispatch.add(again, 0) == ()
    (order,) = dispatch.ready(0)
    assert msgspec.json.decode(order.input)["attempt"] == 1
