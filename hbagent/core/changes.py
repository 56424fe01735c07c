"""What is different in a node's newest report, part by part, and how people are told.

A part is a probe, an application, or the agent's own prober; what nobody reports is no trouble. So a part that appears
well, or of which nothing is heard any more while it was well, is no change; one that was bad and is gone has ended.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .health import RANK
from .messages import CHANGES_MAX, AppRow, HealthChange, ProbeResult, Report
from .states import Health

#: The agent's own prober, of which its leader speaks.
PROBER = ("agent", "prober")
#: The text of one part in a change: a sentence. The report has all of it.
TEXT_MAX = 300

#: Subject and name of a part, to its hard state. Parts that are OK are left out.
Parts = dict[tuple[str, str], Health]


def bad_parts(report: Report) -> Parts:
    """The parts of a report that are not OK."""
    parts: Parts = {("app", row.name): row.health for row in report.apps if row.health is not Health.OK}
    parts.update((("probe", row.name), row.health) for row in report.probes if row.health is not Health.OK)
    return parts


def compare(before: Parts, report: Report) -> tuple[HealthChange, ...]:
    """What `report` says otherwise than `before`, the worst first. `before` may hold the prober, which stays."""
    found = []
    rows: dict[tuple[str, str], AppRow | ProbeResult] = {("app", row.name): row for row in report.apps}
    rows.update((("probe", row.name), row) for row in report.probes)
    for part, row in rows.items():
        was = before.get(part, Health.OK)
        if row.health is not was:
            found.append(_change(part, was, row))
    for part, was in before.items():
        if part not in rows and part != PROBER:
            text = "it is not reported any more"
            found.append(HealthChange(subject=part[0], name=part[1], before=was, after=Health.OK, text=text))
    return worst_first(found)


def _change(part: tuple[str, str], was: Health, row: AppRow | ProbeResult) -> HealthChange:
    subject, name = part
    text = row.text[:TEXT_MAX]
    if isinstance(row, ProbeResult):
        return HealthChange(subject=subject, name=name, before=was, after=row.health, text=text)
    return HealthChange(
        subject=subject,
        name=name,
        before=was,
        after=row.health,
        text=text,
        stall=row.stall,
        bundle=row.bundle,
        details=row.details,
    )


def worst_first(changes: Iterable[HealthChange]) -> tuple[HealthChange, ...]:
    """What is worst now first; among what is well again, what was worst."""
    return tuple(sorted(changes, key=lambda c: (RANK[c.after], RANK[c.before], c.subject, c.name)))


def told(changes: tuple[HealthChange, ...]) -> tuple[HealthChange, ...]:
    """As many as are told of, with the proof of the worst only."""
    return tuple(
        msgspec.structs.replace(change, details=()) if rank and change.details else change
        for rank, change in enumerate(changes[:CHANGES_MAX])
    )


def sentence(changes: tuple[HealthChange, ...], before: Health, after: Health) -> str:
    """One sentence for people, of the worst change: "app web is DEADLOCKED: thread worker-1 holds ..."."""
    if not changes:
        return f"its health is {after.value}, and was {before.value}"
    first = changes[0]
    if first.after is Health.OK:
        text = f"{first.subject} {first.name} is OK again, and was {first.before.value}"
    else:
        text = f"{first.subject} {first.name} is {first.after.value}"
    if first.text:
        text += f": {first.text}"
    return f"{text}; and {len(changes) - 1} more changed" if len(changes) > 1 else text
