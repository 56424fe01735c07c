"""What is different in a node's newest report, part by part, and how people are told.

A part is a probe, an application, or the agent's own prober; what nobody reports is no trouble. So a part that appears
well, or of which nothing is heard any more while it was well, is no change; one that was bad and is gone has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from .drill import is_drill
from .health import RANK, worst
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


class Told(NamedTuple):
    """What people are told together."""

    before: Health
    after: Health
    changes: tuple[HealthChange, ...]


def apart(changes: tuple[HealthChange, ...], before: Health, after: Health, parts: Parts) -> tuple[Told, ...]:
    """The same changes of a node's health, those of drills by themselves; `parts` is what is not OK by now.

    A drill makes its node as bad as is meant to be told: that is no trouble of the node, and must not hide the end of
    one either. So what is told of the rest is the health that the node would have without it.
    """
    if not any(is_drill(change.name) for change in changes) and not any(is_drill(name) for _, name in parts):
        return (Told(before, after, changes),)
    found = []
    real = tuple(change for change in changes if not is_drill(change.name))
    drills = tuple(change for change in changes if is_drill(change.name))
    if real or not drills:
        were = {**parts, **{(change.subject, change.name): change.before for change in changes}}
        told = Told(_without_drills(before, were), _without_drills(after, parts), real)
        if real or told.before is not told.after:
            found.append(told)
    if drills:
        found.append(Told(before, after, drills))
    return tuple(found)


def beside_drills(health: Health, parts: Parts) -> Health | None:
    """What the health of a node would be without the drill that is under way there; None when there is none, or it
    makes nothing worse. `parts` is what is not OK."""
    if not any(is_drill(name) for _, name in parts):
        return None
    without = _without_drills(health, parts)
    return without if without is not health else None


def _without_drills(health: Health, parts: Parts) -> Health:
    # A node that weighs its parts may be better than the worst of them.
    others = worst(other for (_, name), other in parts.items() if not is_drill(name))
    return max(health, others, key=RANK.__getitem__)


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
