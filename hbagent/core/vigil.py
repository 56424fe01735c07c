"""Whether the half of an agent that looks at things still does: its mark rides in the beats, and must move.

Looked at once a second for each node, so a beat costs nothing more. Two beats with the same mark prove that it has not
moved between them. How long that was is counted in beats that the agent sent meanwhile, also those that were lost: an
agent that was stopped, or whose host slept, has sent none, and a prober that was stopped with it is not stuck.
"""

from __future__ import annotations

from .health import worse
from .member import Member
from .states import Health, Liveness

#: A mark rides in every beat: one that comes with three of them unmoved is not just unlucky.
BEATS_MIN = 3


def look(member: Member) -> bool:
    """Judge by the beats that have come since the last look; True when `member.stalled` has changed."""
    report = member.report
    if report is None or member.heard_at is None or member.liveness is Liveness.LEFT:
        # What an earlier life of this leader knew of it says nothing of its mark, and no more does its goodbye.
        return False
    order = member.order
    if not report.window_ns or member.progress != member.mark or order.incarnation != member.mark_of:
        # The first mark of this leader's life may be that of a prober which has not moved for an hour.
        member.mark_judged = member.mark_judged or not report.window_ns or member.mark_of is not None
        member.mark, member.mark_of = member.progress, order.incarnation
        member.mark_sequence = order.sequence
        stalled = False
    else:
        stood_ns = (order.sequence - member.mark_sequence) * member.interval_ns
        stalled = stood_ns >= max(report.window_ns, BEATS_MIN * member.interval_ns)
        member.mark_judged = member.mark_judged or stalled
    if stalled is member.stalled:
        return False
    member.stalled = stalled
    return True


def known_health(member: Member) -> Health:
    """A node's health as far as this life of the leader may say it; UNKNOWN is no word at all.

    A leader to which the mark has neither moved nor stood for its window cannot know that the node is any better than a
    stalled prober makes it: an earlier life, or another leader, may have told that it stands still, and that is not
    over by a restart. And one that has not got the report of which the newest beat speaks knows that it is behind.
    """
    if member.report is not None and member.report.digest != member.digest:
        return Health.UNKNOWN
    if member.mark_judged or worse(member.health, Health.STALLED) is not Health.STALLED:
        return member.health
    return Health.UNKNOWN
