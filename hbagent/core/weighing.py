"""What is known of a node's health against what was told of it: by its reports, and by the mark of its prober.

It has nothing to do with whether the node lives; but what a node says that nobody hears waits until somebody does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .changes import PROBER, bad_parts, compare, sentence, told, worst_first
from .health import worse
from .member import Member
from .messages import Evidence, HealthChange
from .roster import Change
from .states import Health, Kind, Liveness
from .units import show_duration
from .vigil import look


def is_there(member: Member) -> bool:
    """True for a node that is heard, or was a moment ago."""
    return member.liveness in (Liveness.ALIVE, Liveness.SUSPECT)


def look_at(members: Iterable[Member]) -> Iterator[Change]:
    """Once a second: whose prober stands still, whose moves again, and who is back with other news of either."""
    for member in members:
        untold = member.parts is not None and member.stalled is not (PROBER in member.parts)
        if look(member) or untold or member.weighed is not member.report:
            yield from weigh(member)


def weigh(member: Member) -> Iterator[Change]:
    """Compare the newest report, and the mark, with what was told."""
    report = member.report
    if report is None or (member.parts is not None and not is_there(member)):
        return
    member.weighed = report
    look(member)
    parts, health = bad_parts(report), report.health
    if member.stalled:
        parts[PROBER], health = Health.STALLED, worse(health, Health.STALLED)
    known, before = member.parts, member.health
    member.parts, member.health = parts, health
    if known is None or (parts == known and health is before):
        # The first report is compared with nothing: the root goes by the rows of the summaries.
        return
    changes = compare(known, report)
    if member.stalled is not (PROBER in known):
        changes = worst_first((*changes, _of_prober(member)))
    evidence = Evidence(
        text=sentence(changes, before, health),
        incarnation=report.incarnation,
        sequence=member.order.sequence,
        interval_ns=member.interval_ns,
        changes=told(changes),
    )
    yield Change(
        member=member,
        kind=Kind.HEALTH_CHANGED,
        before=member.liveness,
        after=member.liveness,
        cause=member.cause,
        evidence=evidence,
        health_before=before,
        report=report.number,
    )


def _of_prober(member: Member) -> HealthChange:
    subject, name = PROBER
    before, after = (Health.OK, Health.STALLED) if member.stalled else (Health.STALLED, Health.OK)
    text = ""
    if member.stalled:
        beats = member.order.sequence - member.mark_sequence
        text = f"its mark has not moved for {show_duration(beats * member.interval_ns)} while the agent beats"
    return HealthChange(subject=subject, name=name, before=before, after=after, text=text)
