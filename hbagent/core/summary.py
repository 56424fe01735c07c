"""One event in place of many: how many, of what, where, and who is worst off."""

from __future__ import annotations

from collections.abc import Sequence

from .chronicle import Chronicle
from .messages import Evidence
from .notice import changes_of, part_of
from .records import MEMBERS_TOLD_MAX, Event, HookRun, Trouble
from .states import Cause, Kind, Liveness

#: Names in the sentence; `Event.members` has more.
NAMES_MAX = 10
_WORDS = {
    Kind.NODE_DEAD: "DEAD",
    Kind.NODE_SUSPECT: "SUSPECT",
    Kind.HEALTH_CHANGED: "not well",
    Kind.RACK_DARK: "dark",
    Kind.LEADER_LOST: "lost",
}
#: How a trouble ended, where that is not well.
_ENDS = {Kind.NODE_LEFT: "gone on purpose"}


def topic_of(event: Event) -> str:
    """What the members of one incident have in common with the subject of this event."""
    if event.kind is Kind.HEALTH_CHANGED:
        changes = changes_of(event)
        return part_of(changes[0]) if changes else ""
    if event.kind is Kind.NODE_DEAD:
        return event.cause.value if event.cause is not None else ""
    return event.node or event.leader or event.rack


def summary_of(
    chronicle: Chronicle, runs: Sequence[HookRun], troubles: Sequence[Trouble | None], at_wall_ns: int
) -> Event:
    """The summary that stands for `runs`, which go to one receiver and are all ends, or none is."""
    end = runs[0].end
    racks = list(dict.fromkeys(run.rack for run in runs))
    causes = list(dict.fromkeys(run.cause for run in runs))
    kinds = list(dict.fromkeys(run.kind for run in runs))
    incidents = list(dict.fromkeys(run.incident for run in runs))
    members = list(dict.fromkeys(run.subject for run in runs))
    dead = kinds == [Kind.NODE_DEAD]
    return chronicle.make(
        Kind.SUMMARY,
        at_wall_ns,
        rack=racks[0] if len(racks) == 1 else "",
        liveness_to=Liveness.ALIVE if end else Liveness.DEAD if dead else None,
        cause=causes[0] if len(causes) == 1 and not end else None,
        evidence=Evidence(text=_sentence(runs, members, racks, end)),
        count=len(members),
        members=tuple(members[:MEMBERS_TOLD_MAX]),
        incident=incidents[0] if len(incidents) == 1 else "",
        notices=1,
    )


def _sentence(runs: Sequence[HookRun], members: list[str], racks: list[str], end: bool) -> str:
    where = f"of rack {racks[0]}" if len(racks) == 1 and racks[0] else f"in {len(racks)} racks"
    names = ", ".join(members[:NAMES_MAX])
    if len(members) > NAMES_MAX:
        names += f" and {len(members) - NAMES_MAX} more"
    # Somebody of whom two things are told counts once, with the first.
    firsts = list({run.subject: run for run in reversed(runs)}.values())[::-1]
    words = _ENDS if end else _WORDS
    other = "well again" if end else "in trouble"
    what = _tally([words.get(run.kind, other) if run.kind else "" for run in firsts])
    causes = "" if end else _tally([run.cause.value for run in firsts if isinstance(run.cause, Cause)])
    worst = ""
    if len(racks) > 1:
        worst = f"; most of them in {_tally([run.rack for run in firsts], 3)}"
    return f"{len(members)} {where}: {what}{f' ({causes})' if causes else ''}: {names}{worst}"


def _tally(words: Sequence[str], most: int = 5) -> str:
    """ "host-gone 30, silence 7": the most frequent first; one alone without its number."""
    counts: dict[str, int] = {}
    for word in words:
        if word:
            counts[word] = counts.get(word, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{word} {count}" for word, count in ranked[:most])
