"""When leaders fall silent together, it is the root that was cut off.

One leader whose lease lapsed is lost. If all of them are late, the likelier cause sits at the root: then the first
lapse is told a little later, so that the others can follow it or contradict it. All lapsed: one event about the root.
One is heard: whoever lapsed was lost by himself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .leaderrecord import LeaderRecord, Standing


class Lapses(NamedTuple):
    """What is to be told of leaders whose lease has lapsed."""

    #: Each of these is lost by itself.
    lost: list[LeaderRecord]
    #: All of these fell silent because of the root.
    isolated: list[LeaderRecord]


def decide(leaders: Iterable[LeaderRecord], lease_ns: int, now: int) -> Lapses:
    """Tell leaders that are lost from a root that is isolated. Who is in neither list has to wait.

    Only leaders of which nothing was told count; at least two of them, of at least two racks.
    """
    counted = [leader for leader in leaders if leader.standing not in (Standing.LOST, Standing.ISOLATED)]
    lapsed = [leader for leader in counted if leader.standing is Standing.LAPSED]
    racks = {rack: None for leader in counted for rack in leader.racks}
    if not lapsed or len(counted) < 2 or len(racks) < 2:
        return Lapses(lapsed, [])
    others = [leader for leader in counted if leader.standing is not Standing.LAPSED]
    if not others:
        return Lapses([], lapsed)
    if all(late(leader, lease_ns, now) for leader in others):
        return Lapses([leader for leader in lapsed if now >= patience_ends(leader, lease_ns)], [])
    return Lapses(lapsed, [])


def late(leader: LeaderRecord, lease_ns: int, now: int) -> bool:
    """True when more than half of a lease is over without a summary, or none ever came."""
    return leader.standing is Standing.WAITED or now >= leader.lease.expires_at - lease_ns // 2


def patience_ends(leader: LeaderRecord, lease_ns: int) -> int:
    """Until when a lapsed leader may wait for the others."""
    return leader.lapsed_at + lease_ns // 2
