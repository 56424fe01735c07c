from __future__ import annotations

from hbagent.core.lease import Lease
from tests.build import EPOCH, LEADER, T


def make(grace: float = 10) -> Lease:
    return Lease(LEADER, T(5), T(grace))


def test_a_leader_that_was_never_heard_has_the_grace() -> None:
    lease = make()
    assert not lease.held
    assert (lease.lapsed(T(10) - 1), lease.lapsed(T(10))) == (False, True)


def test_each_summary_renews_the_lease_for_its_length() -> None:
    lease = make()
    for second in (1, 4, 8):
        lease.renew(EPOCH, T(second))
    assert (lease.lapsed(T(13) - 1), lease.lapsed(T(13))) == (False, True)
    assert lease.renewed_at == T(8)


def test_a_lease_is_new_to_a_leader_that_had_none_and_to_another_life_of_it() -> None:
    lease = make()
    assert lease.renew(EPOCH, T(1))
    assert not lease.renew(EPOCH, T(2))
    assert lease.renew(EPOCH + 1, T(3))
    lease.drop()
    assert not lease.held
    assert lease.renew(EPOCH + 1, T(20))


def test_time_in_which_the_observer_did_not_listen_is_added_for_those_heard_before_it() -> None:
    lease = make()
    lease.renew(EPOCH, T(1))
    lease.extend(T(3), since=T(2))
    assert (lease.lapsed(T(9) - 1), lease.lapsed(T(9))) == (False, True)
    lease.renew(EPOCH, T(8))
    lease.extend(T(3), since=T(2))
    assert lease.lapsed(T(13))


def test_the_grace_of_a_leader_that_was_never_heard_is_extended_too() -> None:
    lease = make()
    lease.extend(T(3), since=T(2))
    assert (lease.lapsed(T(13) - 1), lease.lapsed(T(13))) == (False, True)
