from __future__ import annotations

import pytest

from hbagent.core.config import LeaderConfig
from hbagent.core.observer import OwnLag
from hbagent.core.roster import Change, Heard, Roster
from hbagent.core.states import Cause, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND

RACK = "dc1/rack1"
NODE = f"{RACK}/node1"


def make_roster(lag: OwnLag | None = None) -> Roster:
    config = LeaderConfig(name="dc1/rack1-leader1", racks={RACK: (NODE,)})
    return Roster(config, lag or OwnLag(), 0)


def hear(
    roster: Roster, sequence: int, now: int, interval: int = SECOND, incarnation: int = 7
) -> Change | Heard | None:
    member = roster.members[NODE]
    if member.beat(incarnation, sequence, now, interval, interval, 0, 0, 0, now):
        return None
    return roster.unusual(member, incarnation, sequence, now, interval, interval, 0, 0, 0, False, now)


def verdicts(roster: Roster, begin: int, end: int) -> list[tuple[int, Kind]]:
    """Judge every 10 ms, and say what was found when."""
    found = []
    for now in range(begin, end, 10 * MILLISECOND):
        found += [(now, change.kind) for change in roster.expire(now)]
    return found


def test_silence_is_suspect_after_an_interval_and_the_margin_and_dead_after_five() -> None:
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    (suspect_at, suspect), (dead_at, dead) = verdicts(roster, 10 * SECOND, 20 * SECOND)
    assert (suspect, dead) == (Kind.NODE_SUSPECT, Kind.NODE_DEAD)
    assert 11_150 * MILLISECOND <= suspect_at <= 11_170 * MILLISECOND
    assert 15 * SECOND <= dead_at <= 15_020 * MILLISECOND


def test_a_node_known_alive_that_an_observer_never_hears_is_dead_after_the_grace() -> None:
    roster = make_roster()
    roster.recall(NODE, Liveness.ALIVE, None, 7, 100, SECOND, 0)
    (suspect_at, _), (dead_at, _) = verdicts(roster, 0, 40 * SECOND)
    assert 25 * SECOND <= suspect_at <= 25_020 * MILLISECOND
    assert 30 * SECOND <= dead_at <= 30_020 * MILLISECOND


def test_the_grace_of_a_node_known_alive_does_not_run_while_the_observer_stands_still() -> None:
    lag = OwnLag()
    roster = make_roster(lag)
    roster.recall(NODE, Liveness.ALIVE, None, 7, 100, SECOND, 0)
    lag.tick(5 * SECOND, 35 * SECOND)
    (suspect_at, _), (dead_at, _) = verdicts(roster, 35 * SECOND, 80 * SECOND)
    assert suspect_at >= 55 * SECOND
    assert 60 * SECOND <= dead_at <= 60_020 * MILLISECOND


def test_a_slow_node_known_alive_has_its_own_intervals_to_be_heard() -> None:
    roster = make_roster()
    roster.recall(NODE, Liveness.ALIVE, None, 7, 100, 60 * SECOND, 0)
    (_, suspect), (dead_at, dead) = verdicts(roster, 0, 400 * SECOND)
    assert (suspect, dead) == (Kind.NODE_SUSPECT, Kind.NODE_DEAD)
    assert 300 * SECOND <= dead_at <= 301 * SECOND


def test_a_node_without_a_verdict_is_judged_again_after_a_restart() -> None:
    roster = make_roster()
    roster.recall(NODE, Liveness.UNKNOWN, Cause.DUPLICATE_ID, 7, 100, SECOND, 0)
    assert [kind for _, kind in verdicts(roster, 0, 40 * SECOND)] == [Kind.NODE_SUSPECT, Kind.NODE_DEAD]


def test_a_node_known_dead_stays_dead_until_it_is_heard() -> None:
    roster = make_roster()
    roster.recall(NODE, Liveness.DEAD, Cause.SILENCE, 7, 100, SECOND, 0)
    assert verdicts(roster, 0, 60 * SECOND) == []
    heard = hear(roster, 101, 60 * SECOND)
    assert isinstance(heard, Change) and heard.kind is Kind.NODE_RECOVERED


def test_an_old_beat_clears_no_suspicion_and_yet_shows_when_the_node_was_alive() -> None:
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    # Sent at 11 and 12 s, held up on the way, read at 14 s.
    assert verdicts(roster, 10 * SECOND, 14 * SECOND)
    member = roster.members[NODE]
    for sequence in (11, 12):
        sent = sequence * SECOND
        assert roster.unusual(member, 7, sequence, sent, SECOND, SECOND, 0, 0, 0, False, 14 * SECOND) is Heard.OLD
    ((dead_at, _),) = verdicts(roster, 14 * SECOND, 20 * SECOND)
    assert 17 * SECOND <= dead_at <= 17_020 * MILLISECOND


def test_a_goodbye_that_was_long_under_way_is_a_goodbye() -> None:
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    member = roster.members[NODE]
    sent = 10_500 * MILLISECOND
    heard = roster.unusual(member, 7, 11, sent, SECOND, SECOND, 0, 0, 0, True, sent + 3 * SECOND)
    assert isinstance(heard, Change) and heard.after is Liveness.LEFT


def test_a_node_whose_clock_stood_still_for_less_than_it_takes_to_die_is_not_called_dead() -> None:
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    # Its machine was paused from 10 s on for 3.9 s, and its clock with it: it sends on as if nothing had been.
    asleep = 3_900 * MILLISECOND
    member = roster.members[NODE]
    found = verdicts(roster, 10 * SECOND, 11 * SECOND + asleep)
    for sequence in (11, 12, 13):
        now = sequence * SECOND + asleep
        if not member.beat(7, sequence, sequence * SECOND, SECOND, SECOND, 0, 0, 0, now):
            roster.unusual(member, 7, sequence, sequence * SECOND, SECOND, SECOND, 0, 0, 0, False, now)
        found += verdicts(roster, now, now + SECOND)
    assert [kind for _, kind in found] == [Kind.NODE_SUSPECT]
    assert member.liveness is Liveness.ALIVE


def short_sleep(asleep: int, beats: int) -> tuple[Roster, int]:
    """A roster, and the time: a machine and its clock were paused from 10 s on, and so many beats came since."""
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    member, now = roster.members[NODE], 0
    for sequence in range(11, 11 + beats):
        now = sequence * SECOND + asleep
        verdicts(roster, now - SECOND, now)
        if not member.beat(7, sequence, sequence * SECOND, SECOND, SECOND, 0, 0, 0, now):
            roster.unusual(member, 7, sequence, sequence * SECOND, SECOND, SECOND, 0, 0, 0, False, now)
    return roster, now


@pytest.mark.parametrize("asleep_ms", [200, 500, 900, 1100])
def test_a_node_that_slept_for_less_than_an_interval_is_as_old_as_its_beats_from_the_third_on(asleep_ms: int) -> None:
    roster, now = short_sleep(asleep_ms * MILLISECOND, beats=3)
    member = roster.members[NODE]
    assert member.liveness is Liveness.ALIVE
    assert member.heard_at == member.silent_from == now
    # It ends now: neither suspected nor dead sooner than any other.
    assert [(at - now) // (100 * MILLISECOND) for at, _ in verdicts(roster, now, now + 10 * SECOND)] == [11, 50]


def test_one_late_beat_and_another_are_no_other_clock() -> None:
    roster, now = short_sleep(900 * MILLISECOND, beats=2)
    member = roster.members[NODE]
    assert member.heard_at == now - 900 * MILLISECOND
    # The next is not: those two had been under way for long.
    hear(roster, 13, 13 * SECOND + 910 * MILLISECOND)
    assert member.heard_at == 13 * SECOND + 910 * MILLISECOND


def test_beats_that_a_network_had_held_and_that_come_all_at_once_are_no_other_clock() -> None:
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    member = roster.members[NODE]
    arrival = 11_900 * MILLISECOND
    for number, sent in enumerate((11_000, 11_250, 11_500, 11_600), 11):
        roster.unusual(member, 7, number, sent * MILLISECOND, SECOND, SECOND, 0, 0, 0, False, arrival + number)
    assert member.heard_at is not None and member.heard_at < 11_700 * MILLISECOND


def test_a_dead_nodes_last_beats_that_arrive_late_all_at_once_put_its_death_off_by_an_interval_at_most() -> None:
    roster = make_roster()
    for second in range(1, 11):
        hear(roster, second, second * SECOND)
    member = roster.members[NODE]
    arrival = 14_900 * MILLISECOND
    found = verdicts(roster, 10 * SECOND, arrival)
    for sequence in (11, 12, 13):
        roster.unusual(member, 7, sequence, sequence * SECOND, SECOND, SECOND, 0, 0, 0, False, arrival + sequence)
    found += verdicts(roster, arrival, 25 * SECOND)
    assert [kind for _, kind in found] == [Kind.NODE_SUSPECT, Kind.NODE_DEAD]
    assert 18 * SECOND <= found[-1][0] <= 18_020 * MILLISECOND


# ---- a rack after a restart of its leader ----------------------------------------------------------------

EIGHT = tuple(f"{RACK}/node{number}" for number in range(1, 9))


class After:
    """A rack after a restart of its leader: all of it was alive before, and some of it has been heard since."""

    def __init__(self, *heard: str) -> None:
        self.roster = Roster(LeaderConfig(name="dc1/rack1-leader1", racks={RACK: EIGHT}), OwnLag(), 0)
        self.now = 0
        self.found: list[tuple[int, str, Liveness, Cause | None]] = []
        for node in EIGHT:
            self.roster.recall(node, Liveness.ALIVE, None, 7, 100, SECOND, 0)
        for second in (1, 2, 3):
            self.hear(second, *heard)

    def hear(self, second: int, *nodes: str) -> None:
        self.until(second)
        for node in nodes:
            member = self.roster.members[node]
            numbers = (7, 100 + second, self.now, SECOND, SECOND, 0, 0, 0)
            if not member.beat(*numbers, self.now):
                change = self.roster.unusual(member, *numbers, False, self.now)
                self.note(change)

    def until(self, second: float) -> None:
        while self.now < second * SECOND:
            self.now += 10 * MILLISECOND
            for change in self.roster.expire(self.now):
                self.note(change)

    def note(self, change: Change | Heard) -> None:
        if isinstance(change, Change):
            self.found.append((self.now, change.member.short, change.after, change.cause))

    def told(self, node: str) -> list[tuple[Liveness, Cause | None]]:
        short = node.rpartition("/")[2]
        return [(after, cause) for _, name, after, cause in self.found if name == short]


def test_a_rack_that_goes_dark_when_half_of_it_was_heard_by_a_leader_just_started_is_dark() -> None:
    after = After(*EIGHT[:4])
    after.until(20)
    for node in EIGHT[:4]:
        assert after.told(node)[-1] == (Liveness.UNKNOWN, Cause.RACK_DARK)
    assert all(liveness is not Liveness.DEAD for _, _, liveness, _ in after.found)
    # The others could come back to this leader until now: they are part of it, and make it no lighter.
    seen = []
    while after.now < 40 * SECOND:
        after.until(after.now / SECOND + 1)
        seen.append(after.roster.dark_ns(RACK, after.now) is not None)
    assert all(seen)
    assert {after.told(node)[-1] for node in EIGHT} == {(Liveness.UNKNOWN, Cause.RACK_DARK)}


def test_three_that_fall_silent_while_the_others_are_yet_to_be_heard_are_judged_alone_once_they_are() -> None:
    after = After(*EIGHT[:3])
    after.until(12)
    assert {after.told(node)[-1] for node in EIGHT[:3]} == {(Liveness.UNKNOWN, Cause.RACK_DARK)}
    for second in range(13, 40):
        after.hear(second, *EIGHT[3:])
    assert {after.told(node)[-1] for node in EIGHT[:3]} == {(Liveness.DEAD, Cause.SILENCE)}
    assert not any(after.told(node) for node in EIGHT[3:])


def test_a_rack_of_which_nothing_is_heard_after_a_restart_of_its_leader_is_dark_when_its_time_is_over() -> None:
    after = After()
    after.until(24)
    assert after.found == []
    after.until(40)
    assert {after.told(node)[-1] for node in EIGHT} == {(Liveness.UNKNOWN, Cause.RACK_DARK)}
    assert not any(liveness is Liveness.DEAD for _, _, liveness, _ in after.found)


def test_what_was_recalled_and_is_forgotten_counts_for_nothing() -> None:
    after = After(EIGHT[0])
    for node in EIGHT:
        after.roster.remove(node, after.now)
    assert after.roster._gates[RACK].watched == 0
