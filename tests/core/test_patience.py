from __future__ import annotations

from typing import Any

import pytest

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.doubt import Doubt
from hbagent.core.member import Member
from hbagent.core.observer import OwnLag
from hbagent.core.patience import ASKED_MIN, Patience
from hbagent.core.units import SECOND
from tests.build import INCARNATION, NODE, T, leader_config


def silent(since: float = 10.0) -> tuple[Member, Doubt]:
    """A node that beat once a second until `since`, and whose echo answered in this life of it."""
    member = Member(NODE, make_detector(DetectorConfig()), SECOND, 0)
    member.order.judge(INCARNATION, 10)
    member.heard_at = member.silent_from = T(since)
    member.suspect_at = T(since + 1.15)
    member.tcp_proved = INCARNATION
    member.doubt = Doubt(T(since + 1.01), T(since))
    member.doubt.unanswered = ASKED_MIN
    member.doubt.confirmed = 1
    return member, member.doubt


def patience(**settings: Any) -> Patience:
    return Patience(leader_config("node1", **settings), OwnLag())


def test_a_host_without_a_sign_has_an_interval_and_half_a_second() -> None:
    member, _ = silent(10.0)
    assert patience().gone_at(member) == T(11.5)
    assert patience(host_gone_slack_ns=T(2)).gone_at(member) == T(13)


def test_a_later_sign_from_anybody_counts() -> None:
    member, doubt = silent(10.0)
    doubt.acked(T(11.2))
    assert patience().gone_at(member) == T(12.7)
    doubt.heard_elsewhere("node2", T(12.0))
    assert patience().gone_at(member) == T(13.5)
    assert patience().silence_at(member) == T(17.0)


def test_mere_silence_has_five_intervals_and_never_less_than_two_and_a_half_seconds() -> None:
    member, _ = silent(10.0)
    assert patience().silence_at(member) == T(15)
    member.interval_ns = T(0.1)
    assert patience().silence_at(member) == T(12.5)


def test_a_node_not_heard_in_this_life_of_the_leader_has_the_time_to_find_it() -> None:
    member, _ = silent(10.0)
    member.heard_at = None
    assert patience().silence_at(member) == T(40)


def test_own_lag_is_added_to_every_bound() -> None:
    member, _ = silent(10.0)
    lag = OwnLag()
    lag.tick(T(10.5), T(11.5))
    slow = Patience(leader_config("node1"), lag)
    assert (slow.gone_at(member), slow.silence_at(member)) == (T(12.5), T(16))


def test_a_margin_that_was_set_counts_and_one_that_was_learned_does_not() -> None:
    member, _ = silent(10.0)
    member.suspect_at = T(14)
    assert patience(detector=DetectorConfig(mistakes_per_day=0)).gone_at(member) == T(14)
    assert patience().gone_at(member) == T(11.5)


def test_who_is_back_with_its_rack_is_judged_no_sooner_than_an_interval_after_its_grace() -> None:
    member, _ = silent(10.0)
    member.judge_from = T(20)
    assert patience().gone_at(member) == T(21)


@pytest.mark.parametrize("spoil", ["path", "closed", "asked", "unheard", "alone"])
def test_a_host_is_called_gone_only_after_enough_questions_on_a_path_that_worked(spoil: str) -> None:
    member, doubt = silent()
    assert patience().may_be_gone(member, doubt)
    if spoil == "path":
        member.tcp_proved = member.udp_proved = INCARNATION + 1
    elif spoil == "closed":
        doubt.closed = True
    elif spoil == "asked":
        doubt.unanswered = ASKED_MIN - 1
    elif spoil == "alone":
        doubt.confirmed = 0
    else:
        member.heard_at = None
    assert not patience().may_be_gone(member, doubt)
    assert patience().why_silence(member, doubt)


def test_udp_is_a_path_as_well() -> None:
    member, doubt = silent()
    member.tcp_proved, member.udp_proved = None, INCARNATION
    assert patience().may_be_gone(member, doubt)
