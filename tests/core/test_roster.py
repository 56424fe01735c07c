from __future__ import annotations

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
