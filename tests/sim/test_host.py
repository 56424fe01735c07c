"""Host: clocks that disagree, and agree with themselves."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.units import DAY, SECOND
from hbagent.sim.host import DRIFT_PPM, Host


@given(st.integers(0, 10_000), st.integers(0, DAY))
def test_a_hosts_clock_has_reached_a_deadline_when_the_host_is_woken_for_it_and_not_before(seed: int, at: int) -> None:
    host = Host("node1", "agent", None, random.Random(seed))
    deadline = host.local(at)
    woken = host.virtual(deadline)
    assert host.local(woken) >= deadline
    assert 0 <= woken - at <= 5


def test_no_two_hosts_clocks_agree() -> None:
    rng = random.Random(1)
    hosts = [Host(f"node{n}", "agent", None, rng) for n in range(20)]
    assert len({host.local(0) for host in hosts}) == 20
    for host in hosts:
        ran = host.local(1000 * SECOND) - host.local(0)
        assert abs(ran - 1000 * SECOND) <= 1000 * SECOND * DRIFT_PPM // 1_000_000
