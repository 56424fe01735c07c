"""The roster's rules, told by what an agent does: it dies, restarts, has a double, repeats itself, says goodbye."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.config import DetectorConfig
from hbagent.core.observer import OwnLag
from hbagent.core.order import Verdict
from hbagent.core.roster import DUPLICATE_HOLD, INTERVAL_MAX_NS, INTERVAL_MIN_NS, Change, Heard, Roster
from hbagent.core.states import NEXT, Cause, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.core.wheel import SLOT_SHIFT
from tests.build import INCARNATION, NODE, NODE2, T, leader_config

ALIVE, SUSPECT, DEAD, LEFT, UNKNOWN = (
    Liveness.ALIVE,
    Liveness.SUSPECT,
    Liveness.DEAD,
    Liveness.LEFT,
    Liveness.UNKNOWN,
)
#: The agent's clock is off by this.
OFFSET = T(987)
MARGIN = DetectorConfig().margin_ns
#: Silence that ends in DEAD at one beat a second.
DEAD_AFTER = T(5)


class Watch:
    """A roster that is woken whenever it wants, and everything it said."""

    def __init__(self, lag: OwnLag | None = None) -> None:
        self.lag = lag or OwnLag()
        self.roster = Roster(leader_config(), self.lag, 0)
        self.member = self.roster.members[NODE]
        self.now = 0
        self.changes: list[tuple[int, Change]] = []

    def until(self, now: int) -> None:
        while True:
            deadline = self.roster.deadline()
            if deadline is None or deadline > now:
                break
            self.now = max(self.now, deadline)
            self.changes += [(self.now, change) for change in self.roster.expire(self.now)]
        self.now = now

    def beat(
        self,
        sequence: int,
        now: float,
        *,
        delay: float = 0.001,
        incarnation: int = INCARNATION,
        interval: int = SECOND,
        due_in: int | None = None,
        leaving: bool = False,
    ) -> Change | Heard | None:
        """A beat that arrives at `now`, `delay` seconds after it was sent; None for an ordinary one."""
        self.until(T(now))
        sent = T(now) - T(delay) + OFFSET
        due = interval if due_in is None else due_in
        if not leaving and self.member.beat(incarnation, sequence, sent, due, interval, 0, 0, 0, T(now)):
            return None
        heard = self.roster.unusual(self.member, incarnation, sequence, sent, due, interval, 0, 0, 0, leaving, T(now))
        if isinstance(heard, Change):
            self.changes.append((T(now), heard))
        return heard

    def lives(self, begin: int, end: int, incarnation: int = INCARNATION, first: int = 1) -> None:
        """One beat a second from `begin` up to, not including, `end`."""
        for second in range(begin, end):
            self.beat(first + second - begin, second, incarnation=incarnation)

    @property
    def kinds(self) -> list[Kind]:
        return [change.kind for _, change in self.changes]


# ---- dying -----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.4]), st.sampled_from([250, 1000, 3000]))
def test_no_one_is_dead_who_is_heard_and_everyone_is_who_is_not(seed: int, loss: float, interval_ms: int) -> None:
    """A naive model beside it: when was the newest beat that has arrived sent, and is that long enough ago?"""
    rng = random.Random(seed)
    interval = interval_ms * MILLISECOND
    dead_after = max(5 * interval, T(2.5))
    watch = Watch()
    arrivals: list[tuple[float, float, int, int]] = []
    at, incarnation, sequence = 1.0, 1, 0
    for _ in range(60):
        if rng.random() < 0.05:
            incarnation, sequence = incarnation + 1, 0
            at += rng.choice([0.01, 1.0, 20.0])
        if rng.random() < 0.05:
            at += rng.choice([2.0, 10.0])
        sequence += 1
        at += interval_ms / 1000
        if rng.random() >= loss:
            arrivals.append((at + rng.choice([0.001, 0.002, 0.1]), at, incarnation, sequence))
    newest = 0
    for arrived, sent, life, number in sorted(arrivals):
        watch.until(T(arrived))
        watch.beat(number, arrived, delay=arrived - sent, incarnation=life, interval=interval, due_in=interval)
    end = T(max(a[0] for a in arrivals))
    watch.until(end + dead_after + T(0.2))

    fresh = iter(sorted(arrivals))
    upcoming = next(fresh, None)
    state = UNKNOWN
    for now, change in watch.changes:
        while upcoming is not None and T(upcoming[0]) <= now:
            newest = max(newest, T(upcoming[1]))
            upcoming = next(fresh, None)
        assert change.before is state
        assert change.after in NEXT[state] or (change.after is state is ALIVE and change.kind is Kind.NODE_RESTARTED)
        state = change.after
        if state is SUSPECT:
            assert now >= newest + interval + MARGIN
        if state is DEAD:
            assert now >= newest + dead_after
    assert state is DEAD, "the last beat was long ago"
    died = watch.changes[-1][0]
    assert died <= end + dead_after + (1 << SLOT_SHIFT) + MILLISECOND


def test_dead_comes_after_suspect_and_each_once() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.until(T(3600))
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_SUSPECT, Kind.NODE_DEAD]
    suspected, died = watch.changes[1][0], watch.changes[2][0]
    assert T(10) + SECOND + MARGIN <= suspected <= T(10) + SECOND + MARGIN + 3 * MILLISECOND
    assert T(10) + DEAD_AFTER - MILLISECOND <= died <= T(10) + DEAD_AFTER + 3 * MILLISECOND
    evidence = watch.changes[2][1].evidence
    assert (evidence.incarnation, evidence.sequence, evidence.detector) == (INCARNATION, 10, "adaptive")
    assert evidence.silent_ns is not None and evidence.silent_ns >= DEAD_AFTER - MILLISECOND


def test_a_fast_agent_is_not_dead_before_two_and_a_half_seconds() -> None:
    watch = Watch()
    for number in range(1, 40):
        watch.beat(number, number / 10, interval=T(0.1))
    watch.until(T(20))
    died = watch.changes[-1][0]
    assert watch.kinds[-1] is Kind.NODE_DEAD
    assert T(3.9) + T(2.5) - MILLISECOND <= died <= T(3.9) + T(2.5) + 3 * MILLISECOND


def test_a_late_beat_clears_a_suspicion_and_is_counted() -> None:
    watch = Watch()
    watch.lives(1, 11)
    back = watch.beat(11, 12.5)
    assert isinstance(back, Change) and (back.kind, back.before) == (Kind.NODE_RECOVERED, SUSPECT)
    assert watch.member.late == 1


def test_nobody_is_judged_while_a_stalled_observer_listens_again() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.lag.tick(T(10.5), T(15))
    watch.lag.hold(T(16.5))
    watch.until(T(16.49))
    assert watch.kinds == [Kind.NODE_JOINED]
    watch.until(T(17))
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_SUSPECT]


def test_nobody_is_called_dead_before_a_stalled_observer_has_listened_again() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.until(T(14.9))
    watch.lag.tick(T(14.9), T(16.9))
    watch.lag.hold(T(18.05))
    watch.until(T(18.04))
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_SUSPECT]
    watch.until(T(18.1))
    assert watch.kinds[-1] is Kind.NODE_DEAD


def test_the_observers_own_lag_is_added_to_a_death() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.lag.tick(T(11), T(15))
    watch.until(T(30))
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_SUSPECT, Kind.NODE_DEAD]
    assert T(19) - MILLISECOND <= watch.changes[-1][0] <= T(19) + 3 * MILLISECOND


# ---- F02: a restart --------------------------------------------------------------------------------------


def test_an_agent_that_is_killed_and_started_at_once_is_restarted_and_neither_suspect_nor_dead() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.lives(11, 60, incarnation=5)
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_RESTARTED]
    restarted = watch.changes[1][1]
    assert (restarted.before, restarted.after, restarted.cause) == (ALIVE, ALIVE, None)


def test_what_was_learned_of_one_life_delays_no_suspicion_of_the_next() -> None:
    watch = Watch()
    watch.lives(1, 11)
    for second in range(11, 15):
        # This life's clock is ahead of the other's by less than an interval.
        watch.beat(second - 10, second, incarnation=5, delay=-0.8)
    watch.until(T(20))
    suspected = next(at for at, change in watch.changes if change.after is SUSPECT)
    assert suspected <= T(14) + SECOND + MARGIN + 3 * MILLISECOND


def test_an_agent_that_comes_back_from_the_dead_in_a_new_life_is_restarted() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.lives(40, 50, incarnation=5)
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_SUSPECT, Kind.NODE_DEAD, Kind.NODE_RESTARTED]


@pytest.mark.parametrize("behind", [-3600.0, 3600.0])
def test_a_new_life_may_run_on_another_clock(behind: float) -> None:
    watch = Watch()
    watch.lives(1, 11)
    for second in range(11, 20):
        watch.beat(second - 10, second, incarnation=5, delay=behind)
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_RESTARTED]
    assert watch.member.heard_at == T(19)


# ---- F18: two agents with one key ------------------------------------------------------------------------


def doubles(watch: Watch, begin: int, end: int) -> None:
    """Two agents with the same key, each beating once a second."""
    for second in range(begin, end):
        watch.beat(second, second, incarnation=5)
        watch.beat(second, second + 0.4, incarnation=6)


def test_two_agents_with_one_key_are_one_event_within_three_intervals_and_no_flapping() -> None:
    watch = Watch()
    doubles(watch, 1, 60)
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_RESTARTED, Kind.NODE_UNKNOWN]
    told, verdict = watch.changes[-1]
    assert (verdict.after, verdict.cause) == (UNKNOWN, Cause.DUPLICATE_ID)
    assert told <= T(1) + 3 * SECOND


@pytest.mark.parametrize("left", [5, 6])
def test_when_one_of_two_agents_ends_the_other_is_taken_for_the_node(left: int) -> None:
    watch = Watch()
    doubles(watch, 1, 20)
    for second in range(20, 60):
        watch.beat(second, second + (0.0 if left == 5 else 0.4), incarnation=left)
    assert watch.member.liveness is ALIVE
    assert watch.member.order.incarnation == left


def test_when_both_agents_end_the_node_is_dead() -> None:
    watch = Watch()
    doubles(watch, 1, 20)
    watch.until(T(60))
    assert watch.kinds[-2:] == [Kind.NODE_SUSPECT, Kind.NODE_DEAD]


def test_a_straggler_of_the_life_before_is_no_double() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.beat(1, 11, incarnation=5)
    assert watch.beat(11, 11.2, incarnation=INCARNATION) is Heard.RETIRED
    assert watch.beat(12, 11.3, incarnation=INCARNATION) is Heard.RETIRED
    assert watch.member.liveness is ALIVE


def test_two_stragglers_that_have_nothing_to_do_with_one_another_are_no_double() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.beat(1, 11, incarnation=5)
    watch.beat(11, 11.2, incarnation=INCARNATION)
    later = 11 + DUPLICATE_HOLD + 1
    watch.lives(12, later + 1, incarnation=5, first=2)
    assert watch.beat(12, later + 0.2, incarnation=INCARNATION) is Heard.RETIRED
    assert watch.member.liveness is ALIVE


def test_a_straggler_at_each_of_two_restarts_is_no_double() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.beat(1, 11, incarnation=5)
    watch.beat(11, 11.2, incarnation=INCARNATION)
    later = 11 + DUPLICATE_HOLD + 1
    watch.lives(12, later, incarnation=5, first=2)
    watch.beat(1, later, incarnation=6)
    assert watch.beat(99, later + 0.2, incarnation=5) is Heard.RETIRED
    assert watch.member.liveness is ALIVE


# ---- F19: what comes again -------------------------------------------------------------------------------


def test_what_was_heard_before_changes_nothing_however_often_it_comes() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.beat(1, 11, incarnation=5)
    watch.lives(12, 20, incarnation=5, first=2)
    member = watch.member
    before = (member.order.incarnation, member.order.sequence, member.heard_at, member.beats, watch.kinds)
    assert watch.beat(9, 19.1, incarnation=5) is Heard.DUPLICATE
    assert watch.beat(3, 19.1, incarnation=5) is Heard.STALE
    assert watch.beat(10, 19.1, incarnation=INCARNATION) is Heard.RETIRED
    assert (member.order.incarnation, member.order.sequence, member.heard_at, member.beats, watch.kinds) == before


def test_recorded_beats_played_to_a_dead_node_do_not_raise_it() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.until(T(30))
    for number in range(1, 11):
        assert watch.beat(number, 30 + number / 100) in (Heard.STALE, Heard.DUPLICATE)
    assert watch.member.liveness is DEAD


def test_beats_that_a_cut_held_up_do_not_raise_a_dead_node() -> None:
    watch = Watch()
    watch.lives(1, 11)
    for number in range(11, 14):
        watch.beat(number, 30 + number / 1000, delay=30 - number)
    assert watch.member.liveness is DEAD


# ---- F28: another protocol -------------------------------------------------------------------------------


def test_a_node_that_speaks_another_protocol_is_unknown_and_never_dead_while_it_speaks() -> None:
    watch = Watch()
    watch.lives(1, 11)
    for second in range(11, 60):
        watch.until(T(second))
        change = watch.roster.incompatible(watch.member, "major 2", T(second))
        assert (change is not None) is (second == 11), "told once"
    assert (watch.member.liveness, watch.member.cause) == (UNKNOWN, Cause.INCOMPATIBLE)
    watch.until(T(120))
    assert watch.member.liveness is DEAD, "and judged as usual when it falls silent"


def test_a_node_that_speaks_this_protocol_again_is_alive() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.roster.incompatible(watch.member, "major 2", T(11))
    back = watch.beat(11, 12)
    assert isinstance(back, Change) and (back.kind, back.after) == (Kind.NODE_JOINED, ALIVE)


# ---- goodbye ---------------------------------------------------------------------------------------------


def test_a_node_that_says_goodbye_has_left_and_is_not_judged() -> None:
    watch = Watch()
    watch.lives(1, 11)
    left = watch.beat(11, 10.5, leaving=True)
    assert isinstance(left, Change) and (left.kind, left.cause) == (Kind.NODE_LEFT, Cause.LEFT)
    assert watch.roster.farewell(watch.member, INCARNATION, 11, T(10.6)) is Heard.TAKEN
    watch.until(T(3600))
    assert watch.kinds == [Kind.NODE_JOINED, Kind.NODE_LEFT]


def test_a_farewell_alone_is_enough() -> None:
    watch = Watch()
    watch.lives(1, 11)
    left = watch.roster.farewell(watch.member, INCARNATION, 11, T(10.5))
    assert isinstance(left, Change) and left.after is LEFT
    assert watch.beat(11, 10.6, leaving=True) is Heard.DUPLICATE


def test_a_farewell_of_a_life_before_is_stale() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.lives(11, 20, incarnation=5)
    assert watch.roster.farewell(watch.member, INCARNATION, 99, T(20)) is Heard.STALE
    assert watch.member.liveness is ALIVE


def test_a_farewell_of_a_life_of_which_no_beat_has_come_is_a_goodbye() -> None:
    watch = Watch()
    watch.lives(1, 11)
    left = watch.roster.farewell(watch.member, 5, 1, T(10.5))
    assert isinstance(left, Change) and left.after is LEFT
    assert watch.member.order.judge(INCARNATION, 12) is Verdict.RETIRED


def test_a_node_that_left_and_is_back_has_joined() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.beat(11, 10.5, leaving=True)
    back = watch.beat(1, 500, incarnation=5)
    assert isinstance(back, Change) and back.after is ALIVE
    watch.until(T(510))
    assert watch.member.liveness is DEAD, "and is judged again"


# ---- what an agent may not say ---------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [0, INTERVAL_MIN_NS - 1, INTERVAL_MAX_NS + 1])
def test_an_interval_that_floods_or_watches_nothing_is_refused(interval: int) -> None:
    watch = Watch()
    assert watch.beat(1, 1, interval=interval) is Heard.REFUSED
    assert watch.member.heard_at is None


def test_a_node_that_beats_too_often_is_refused_until_the_next_count() -> None:
    watch = Watch()
    watch.lives(1, 4)
    watch.member.beats_limit = watch.member.beats
    assert watch.beat(4, 4) is Heard.NOISY
    assert watch.member.order.sequence == 3


def test_an_interval_that_changes_counts_from_the_beat_that_says_so() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.beat(11, 11, interval=T(10))
    watch.until(T(20))
    assert watch.kinds == [Kind.NODE_JOINED]
    watch.until(T(70))
    assert watch.changes[-1][1].after is DEAD
    assert T(61) - MILLISECOND <= watch.changes[-1][0] <= T(61) + 3 * MILLISECOND


# ---- membership ------------------------------------------------------------------------------------------


def test_a_node_that_is_expected_no_longer_is_not_judged() -> None:
    watch = Watch()
    watch.lives(1, 11)
    watch.roster.remove(NODE, watch.now)
    watch.until(T(60))
    assert watch.kinds == [Kind.NODE_JOINED]
    assert list(watch.roster.members) == [NODE2]


def test_other_settings_count_from_the_next_judgement_on() -> None:
    watch = Watch()
    watch.lives(1, 11)
    config = leader_config(detector=DetectorConfig(margin_ns=T(2)), dead_after_intervals=20)
    watch.roster.reconfigure(config)
    assert watch.member.fresh_ns == SECOND + T(2)
    watch.beat(11, 11)
    watch.until(T(60))
    (_, suspected), (_, died) = ((at, change) for at, change in watch.changes[1:])
    assert (suspected.after, died.after) == (SUSPECT, DEAD)
    assert watch.changes[1][0] >= T(11) + SECOND + T(2)
    assert T(31) - MILLISECOND <= watch.changes[2][0] <= T(31) + 3 * MILLISECOND


def test_a_reload_that_leaves_the_detector_alone_keeps_what_it_has_learned() -> None:
    watch = Watch()
    detector = watch.member.detector
    watch.roster.reconfigure(msgspec.structs.replace(leader_config(), dead_after_intervals=9))
    assert watch.member.detector is detector


def test_a_node_that_had_left_before_the_leaders_restart_has_left() -> None:
    watch = Watch()
    watch.roster.recall(NODE, LEFT, Cause.LEFT, INCARNATION, 11, SECOND, 0)
    watch.until(T(600))
    assert (watch.kinds, watch.member.liveness) == ([], LEFT)


def test_what_is_recalled_of_a_node_that_is_expected_no_longer_is_nothing() -> None:
    watch = Watch()
    watch.roster.recall("dc1/rack1/gone", ALIVE, None, INCARNATION, 11, SECOND, 0)
    watch.until(T(600))
    assert watch.kinds == []
