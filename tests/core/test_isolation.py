"""Leaders that fall silent: each by itself, or the root."""

from __future__ import annotations

from hbagent.core.isolation import decide, patience_ends
from hbagent.core.leaderrecord import LeaderRecord, Standing
from hbagent.core.lease import Lease
from tests.build import EPOCH, T

LEASE = T(5)
HELD, LAPSED, LOST, WAITED = Standing.HELD, Standing.LAPSED, Standing.LOST, Standing.WAITED


def leader(rack: str, standing: Standing, heard: float = 0, number: int = 1) -> LeaderRecord:
    """A leader of `rack` whose newest summary came at `heard` seconds."""
    lease = Lease(f"{rack}-leader{number}", LEASE, T(10))
    record = LeaderRecord(lease.holder, (rack,), lease)
    if standing is not WAITED:
        lease.renew(EPOCH, T(heard))
    record.standing = standing
    record.lapsed_at = T(heard) + LEASE
    return record


def decided(now: float, *leaders: LeaderRecord) -> tuple[list[str], list[str]]:
    lapses = decide(leaders, LEASE, T(now))
    return [one.name for one in lapses.lost], [one.name for one in lapses.isolated]


def test_a_leader_that_is_silent_while_others_are_heard_is_lost_at_once() -> None:
    assert decided(5, leader("r1", LAPSED), leader("r2", HELD, 4)) == (["r1-leader1"], [])


def test_while_all_the_others_are_late_the_first_lapse_waits_for_half_a_lease() -> None:
    first, second = leader("r1", LAPSED), leader("r2", HELD, 0.9)
    assert decided(5, first, second) == ([], [])
    assert patience_ends(first, LEASE) == T(7.5)
    assert decided(7.5, first, leader("r2", HELD, 3)) == (["r1-leader1"], [])


def test_one_that_is_heard_meanwhile_leaves_the_first_lost_by_itself() -> None:
    assert decided(5.5, leader("r1", LAPSED), leader("r2", HELD, 5.4)) == (["r1-leader1"], [])
    late, heard = leader("r3", HELD, 0.9), leader("r2", HELD, 5.4)
    assert decided(5.5, leader("r1", LAPSED), late, heard) == (["r1-leader1"], [])


def test_leases_that_all_lapse_are_the_root() -> None:
    assert decided(6, leader("r1", LAPSED), leader("r2", LAPSED, 0.9)) == ([], ["r1-leader1", "r2-leader1"])


def test_leaders_of_one_rack_do_not_make_the_root_isolated() -> None:
    both = leader("r1", LAPSED), leader("r1", LAPSED, number=2)
    assert decided(6, *both) == (["r1-leader1", "r1-leader2"], [])


def test_one_leader_of_two_racks_does_not_make_the_root_isolated() -> None:
    one = leader("r1", LAPSED)
    one.racks = ("r1", "r2")
    assert decided(6, one) == (["r1-leader1"], [])


def test_who_was_lost_before_is_no_witness() -> None:
    assert decided(6, leader("r1", LAPSED), leader("r2", LOST)) == (["r1-leader1"], [])
    three = leader("r1", LAPSED), leader("r2", LAPSED), leader("r3", LOST)
    assert decided(6, *three) == ([], ["r1-leader1", "r2-leader1"])


def test_one_that_is_in_its_grace_may_still_be_heard() -> None:
    assert decided(6, leader("r1", LAPSED), leader("r2", WAITED)) == ([], [])


def test_without_a_lapse_there_is_nothing_to_tell() -> None:
    assert decided(6, leader("r1", HELD), leader("r2", HELD)) == ([], [])
    assert decided(6) == ([], [])
