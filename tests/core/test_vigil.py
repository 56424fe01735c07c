from __future__ import annotations

from typing import Any

import msgspec

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.member import Member
from hbagent.core.messages import Report
from hbagent.core.states import Health, Liveness
from hbagent.core.units import SECOND
from hbagent.core.vigil import known_health, look
from tests.build import INCARNATION, NODE

WINDOW_S = 10


def watched(**fields: Any) -> Member:
    """A node that is heard and has a prober; its mark has just moved."""
    member = Member(NODE, make_detector(DetectorConfig(), lambda instant: 0), SECOND, 0)
    member.order.judge(INCARNATION, 1)
    member.order.sequence = 1
    member.report = Report(incarnation=INCARNATION, number=1, window_ns=WINDOW_S * SECOND)
    member.progress, member.heard_at = 7, 0
    for name, value in fields.items():
        setattr(member, name, value)
    assert not look(member)
    return member


def beats_until_told(member: Member, longest: int = 60, step: int = 1) -> int | None:
    """After how many more beats with the same mark it is told; looked at after each, or after every `step`."""
    for beats in range(step, longest + 1, step):
        member.order.sequence += step
        if look(member):
            return beats
    return None


def test_a_mark_that_stands_still_while_beats_come_is_told_once_after_its_window() -> None:
    member = watched()
    assert beats_until_told(member) == WINDOW_S
    assert member.stalled
    assert beats_until_told(member) is None


def test_one_that_moves_is_not() -> None:
    member = watched()
    for _ in range(60):
        member.progress += 1
        assert not look(member)
        assert beats_until_told(member, WINDOW_S - 1) is None


def test_it_is_well_again_as_soon_as_it_moves() -> None:
    member = watched()
    beats_until_told(member)
    member.progress += 1
    assert look(member)
    assert not member.stalled
    assert beats_until_told(member) == WINDOW_S


def test_a_new_incarnation_begins_anew_whatever_its_mark() -> None:
    member = watched()
    beats_until_told(member)
    member.order.judge(INCARNATION + 1, 1)
    member.order.sequence = 1
    assert look(member)
    assert not member.stalled


def test_while_no_beat_comes_nothing_is_known_of_the_mark() -> None:
    member = watched()
    assert beats_until_told(member, WINDOW_S - 1) is None
    for _ in range(1000):
        assert not look(member)
    assert beats_until_told(member) == 1


def test_beats_that_were_lost_count_as_sent() -> None:
    assert beats_until_told(watched(), step=6) == 12


def test_slow_beats_need_longer_and_fast_ones_as_long() -> None:
    assert beats_until_told(watched(interval_ns=8 * SECOND)) == 3
    assert beats_until_told(watched(interval_ns=SECOND // 4)) == 4 * WINDOW_S


def test_what_an_earlier_life_of_the_leader_knew_is_no_beat() -> None:
    member = watched(heard_at=None)
    assert beats_until_told(member) is None
    member.heard_at = 0
    member.order.sequence += 1000
    assert not look(member)
    assert beats_until_told(member) == WINDOW_S


def test_a_goodbye_on_the_control_path_brings_a_sequence_and_no_mark() -> None:
    member = watched(liveness=Liveness.LEFT)
    assert beats_until_told(member) is None


def test_a_node_without_a_prober_is_not_watched() -> None:
    report = Report(incarnation=INCARNATION, number=1)
    assert beats_until_told(watched(report=report)) is None
    assert beats_until_told(watched(report=None)) is None


def test_nor_one_that_was_told_to_run_none_any_more() -> None:
    member = watched()
    beats_until_told(member)
    assert member.report is not None
    member.report = msgspec.structs.replace(member.report, window_ns=0)
    assert look(member)
    assert not member.stalled


def test_a_leader_that_has_not_seen_the_mark_move_does_not_say_that_the_node_is_well() -> None:
    member = watched(health=Health.OK)
    assert known_health(member) is Health.UNKNOWN
    assert beats_until_told(member, 3) is None
    assert known_health(member) is Health.UNKNOWN
    member.progress += 1
    assert not look(member)
    assert known_health(member) is Health.OK
    member.order.sequence += 1
    assert not look(member)
    assert known_health(member) is Health.OK


def test_one_that_has_seen_it_stand_for_its_window_says_so() -> None:
    member = watched(health=Health.STALLED)
    assert known_health(member) is Health.UNKNOWN
    beats_until_told(member)
    assert known_health(member) is Health.STALLED


def test_what_is_worse_than_a_stalled_prober_needs_no_mark() -> None:
    assert known_health(watched(health=Health.DEADLOCKED)) is Health.DEADLOCKED
    assert known_health(watched(health=Health.CRITICAL)) is Health.CRITICAL


def test_where_no_mark_is_to_be_expected_the_report_is_all_there_is() -> None:
    report = Report(incarnation=INCARNATION, number=1)
    assert known_health(watched(health=Health.WARNING, report=report)) is Health.WARNING


def test_a_leader_that_has_not_got_the_newest_report_does_not_say_what_is_in_the_one_before() -> None:
    member = watched(health=Health.CRITICAL, mark_judged=True)
    assert known_health(member) is Health.CRITICAL
    member.digest = 77
    assert known_health(member) is Health.UNKNOWN
    assert member.report is not None
    member.report = msgspec.structs.replace(member.report, digest=77)
    assert known_health(member) is Health.CRITICAL


def test_an_agent_that_was_started_again_has_a_prober_that_was_too() -> None:
    member = watched(health=Health.OK)
    member.order.judge(INCARNATION + 1, 1)
    member.order.sequence = 1
    assert not look(member)
    assert known_health(member) is Health.OK
