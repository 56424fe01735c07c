from __future__ import annotations

from typing import Any

import pytest

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.member import Member
from hbagent.core.messages import AppRow, Report
from hbagent.core.roster import Change
from hbagent.core.states import AppState, Health, Kind, Liveness
from hbagent.core.units import SECOND
from hbagent.core.weighing import is_there, look_at, weigh
from tests.build import INCARNATION, NODE

OK, CRITICAL = Health.OK, Health.CRITICAL


def report(number: int, health: Health, **fields: Any) -> Report:
    web = AppRow(name="web", health=health, state=AppState.READY)
    return Report(incarnation=INCARNATION, number=number, health=health, apps=(web,), **fields)


def heard() -> Member:
    """A node that is heard and whose first report was weighed."""
    member = Member(NODE, make_detector(DetectorConfig(), lambda instant: 0), SECOND, 0)
    member.order.judge(INCARNATION, 1)
    member.liveness, member.cause, member.heard_at = Liveness.ALIVE, None, 0
    member.report = report(1, OK, window_ns=10 * SECOND)
    assert list(weigh(member)) == [], "it is compared with nothing"
    return member


def gist(changes: list[Change]) -> list[tuple[Any, ...]]:
    return [(one.kind, one.health_before, one.report, one.before is one.after) for one in changes]


def test_what_a_report_says_otherwise_is_one_change_of_health_and_none_of_liveness() -> None:
    member = heard()
    member.report = report(2, CRITICAL)
    assert gist(list(weigh(member))) == [(Kind.HEALTH_CHANGED, OK, 2, True)]
    assert member.health is CRITICAL
    assert list(weigh(member)) == []


@pytest.mark.parametrize("liveness", list(Liveness))
def test_only_who_is_heard_is_weighed(liveness: Liveness) -> None:
    member = heard()
    member.liveness = liveness
    member.report = report(2, CRITICAL)
    assert bool(list(weigh(member))) is is_there(member) is (liveness in (Liveness.ALIVE, Liveness.SUSPECT))
    member.liveness = Liveness.ALIVE
    assert bool(list(look_at([member]))) is (liveness not in (Liveness.ALIVE, Liveness.SUSPECT))
    assert member.health is CRITICAL


def test_a_second_without_news_says_nothing() -> None:
    members = [heard(), heard()]
    assert list(look_at(members)) == []
    members[1].report = report(2, CRITICAL)
    assert [one.member for one in look_at(members)] == [members[1]]
    assert list(look_at(members)) == []


def test_a_mark_that_stands_still_is_told_with_how_long_it_has() -> None:
    member = heard()
    member.order.sequence += 12
    (change,) = look_at([member])
    assert change.evidence.text == "agent prober is STALLED: its mark has not moved for 12.0s while the agent beats"
    member.progress += 1
    (change,) = look_at([member])
    assert (change.health_before, member.health) == (Health.STALLED, OK)
