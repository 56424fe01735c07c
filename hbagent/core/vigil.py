"""Whether the half of an agent that looks at things still does: its mark rides in the beats, and must move.

Looked at once a second for each node, so a beat costs nothing more. Time counts only while the node is plainly
heard, and at most a second of it for each look: what this leader, the network or the whole host has lost is nobody's
standstill.
"""

from __future__ import annotations

from .member import Member
from .units import SECOND

#: A mark rides in every beat: one that comes with three of them unmoved is not just unlucky.
BEATS_MIN = 3


def look(member: Member, elapsed_ns: int) -> bool:
    """So much time has passed since the last look; True when `member.stalled` has changed."""
    report = member.report
    if report is None:
        return False
    incarnation = member.order.incarnation
    if not report.window_ns or member.progress != member.mark or incarnation != member.mark_of:
        member.mark, member.mark_of = member.progress, incarnation
        member.stood_ns = 0
        stalled = False
    else:
        # Known alive from an earlier life of this leader is not heard.
        if member.cause is None and member.doubt is None and member.heard_at is not None:
            member.stood_ns += min(elapsed_ns, SECOND)
        stalled = member.stalled or member.stood_ns >= max(report.window_ns, BEATS_MIN * member.interval_ns)
    if stalled is member.stalled:
        return False
    member.stalled = stalled
    return True
