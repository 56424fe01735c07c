from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.doubt import Doubt
from hbagent.core.member import Member
from hbagent.core.messages import Report
from hbagent.core.states import Cause, Liveness
from hbagent.core.units import MINUTE, SECOND
from hbagent.core.vigil import look
from tests.build import INCARNATION, NODE

WINDOW_S = 10


def watched(**fields: Any) -> Member:
    """A node that is heard and has a prober; its mark has just moved."""
    member = Member(NODE, make_detector(DetectorConfig(), lambda instant: 0), SECOND, 0)
    member.liveness, member.cause = Liveness.ALIVE, None
    member.order.judge(INCARNATION, 1)
    member.report = Report(incarnation=INCARNATION, number=1, window_ns=WINDOW_S * SECOND)
    member.progress, member.heard_at = 7, 0
    for name, value in fields.items():
        setattr(member, name, value)
    assert not look(member, SECOND)
    return member


def seconds_until_told(member: Member, longest: int = 60, elapsed_ns: int = SECOND) -> int | None:
    return next((second for second in range(1, longest + 1) if look(member, elapsed_ns)), None)


def test_a_mark_that_stands_still_while_beats_come_is_told_once_after_its_window() -> None:
    member = watched()
    assert seconds_until_told(member) == WINDOW_S
    assert member.stalled
    assert seconds_until_told(member) is None


def test_one_that_moves_is_not() -> None:
    member = watched()
    for _ in range(60):
        member.progress += 1
        assert not look(member, SECOND)
        assert seconds_until_told(member, WINDOW_S - 1) is None


def test_it_is_well_again_as_soon_as_it_moves() -> None:
    member = watched()
    seconds_until_told(member)
    member.progress += 1
    assert look(member, SECOND)
    assert not member.stalled
    assert seconds_until_told(member) == WINDOW_S


def test_a_new_incarnation_begins_anew_whatever_its_mark() -> None:
    member = watched()
    seconds_until_told(member)
    member.order.judge(INCARNATION + 1, 1)
    assert look(member, SECOND)
    assert not member.stalled


@pytest.mark.parametrize(
    "silent",
    [
        {"doubt": Doubt(0, 0)},
        {"cause": Cause.SILENCE, "liveness": Liveness.SUSPECT},
        {"cause": Cause.LINK_CUT},
        {"heard_at": None},
        {"cause": Cause.NEVER_SEEN, "liveness": Liveness.UNKNOWN},
    ],
    ids=lambda silent: "+".join(silent),
)
def test_time_in_which_the_node_is_not_plainly_heard_does_not_count(silent: dict[str, Any]) -> None:
    member = watched()
    assert seconds_until_told(member, WINDOW_S - 1) is None
    for name, value in silent.items():
        setattr(member, name, value)
    assert seconds_until_told(member) is None
    member.doubt, member.cause, member.liveness, member.heard_at = None, None, Liveness.ALIVE, 0
    assert seconds_until_told(member) == 1


def test_a_pause_of_the_leader_counts_for_no_more_than_a_second() -> None:
    assert seconds_until_told(watched(), elapsed_ns=MINUTE) == WINDOW_S


def test_slow_beats_need_longer() -> None:
    assert seconds_until_told(watched(interval_ns=8 * SECOND)) == 24


def test_a_node_without_a_prober_is_not_watched() -> None:
    report = Report(incarnation=INCARNATION, number=1)
    assert seconds_until_told(watched(report=report)) is None
    assert seconds_until_told(watched(report=None)) is None


def test_nor_one_that_was_told_to_run_none_any_more() -> None:
    member = watched()
    seconds_until_told(member)
    assert member.report is not None
    member.report = msgspec.structs.replace(member.report, window_ns=0)
    assert look(member, SECOND)
    assert not member.stalled
