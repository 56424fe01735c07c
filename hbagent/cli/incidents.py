"""Incidents and silences as text: what burns, who knows of it, and what nobody is told of. Pure.

An incident's line says how far it is somebody's business: it fires, somebody has acknowledged it, a silence covers all
of it, or another incident explains it. Whatever an operator wrote passes `clean` as what a node sent does.
"""

from __future__ import annotations

from collections.abc import Sequence

from hbagent.core.units import seconds, show_duration

from .answers import Row, number, rows, word
from .grid import Cell, Column, Grid, Screen, clean, cut
from .pieces import age, clock, state_cell

#: Names of silences after a node, and of members after an incident; beyond they are counted.
NAMES_MAX = 3


def texts(document: Row, key: str) -> list[str]:
    """The texts in the list under `key`."""
    found = document.get(key)
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def few(names: Sequence[str]) -> str:
    """ "s1, s2, s3 and 4 more"."""
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def marks_text(node: Row, wide: bool = True) -> str:
    """What a node's line adds to its state: "flapping, covered by s3"; "" for nothing. Which silences cover it is
    left out where there is no room for that."""
    covered = texts(node, "covered_by")
    marks = ["flapping"] if node.get("flapping") is True else []
    marks += ["drill"] if word(node, "health_beside_drill") else []
    return ", ".join(marks + ([f"covered by {few(covered)}" if wide else "covered"] if covered else []))


# ---- incidents -----------------------------------------------------------------------------------------------

_INCIDENT_COLUMNS = (
    Column("INCIDENT"),
    Column("STATE"),
    Column("ABOUT"),
    Column("CAUSE", 1),
    Column("BURNING", right=True),
    Column("AGE", 2, right=True),
    Column("NOTE", 3, cut=True),
)
_INCIDENT_WIDE = (Column("OPENED", 4), Column("MEMBERS", 5), Column("WHY", 6, cut=True))


def incidents_grid(screen: Screen, wide: bool = False) -> Grid:
    """An empty table of incidents, for `incident_cells`."""
    return Grid((*_INCIDENT_COLUMNS, *(_INCIDENT_WIDE if wide else ())), screen)


def incident_cells(incident: Row, now: str, screen: Screen, wide: bool = False) -> list[Cell]:
    """One incident as a line of its table; `now` is the wall time of the answer."""
    burning, count = number(incident, "burning") or 0, number(incident, "count") or 0
    members = texts(incident, "members")
    about = word(incident, "rack") or (members[0] if members else "")
    cells = [
        Cell(clean(word(incident, "incident"), screen) or "-"),
        state_cell(incident_state(incident), screen),
        Cell(clean(f"{about} {word(incident, 'axis')}".strip(), screen) or "-"),
        Cell(clean(word(incident, "cause") or word(incident, "kind"), screen) or "-"),
        Cell(f"{burning:.0f}/{count:.0f}"),
        Cell(age(number(incident, "age_s"), "-")),
        Cell(clean(note_text(incident), screen)),
    ]
    if wide:
        cells += [
            Cell(clock(word(incident, "opened"), now, screen)),
            Cell(clean(few(members), screen) or "-"),
            Cell(clean(word(incident, "text"), screen)),
        ]
    return cells


def incident_state(incident: Row) -> str:
    """Where an incident stands, in a word: its state, or what keeps it from being told."""
    state = word(incident, "state")
    if state == "firing" and texts(incident, "silenced_by"):
        return "silenced"
    if state == "firing" and word(incident, "inhibited_by"):
        return "inhibited"
    return state or "firing"


def note_text(incident: Row) -> str:
    """Who has it, what covers it, what explains it."""
    acked_by, comment = word(incident, "acked_by"), word(incident, "comment")
    silenced, parent = texts(incident, "silenced_by"), word(incident, "inhibited_by")
    notes = [
        f"by {acked_by}" + (f": {comment}" if comment else "") if acked_by else "",
        f"covered by {few(silenced)}" if silenced else "",
        f"explained by {parent}" if parent else "",
        "drill" if incident.get("drill") is True else "",
    ]
    return "; ".join(filter(None, notes))


def incident_lines(
    incidents: Sequence[Row], now: str, screen: Screen, wide: bool = False, room: int | None = None
) -> list[str]:
    """A table of incidents under its titles, of `room` lines beside the titles."""
    shown = incidents if room is None or len(incidents) <= room else incidents[: room - 1]
    lines = incidents_grid(screen, wide).lines([incident_cells(each, now, screen, wide) for each in shown])
    folded = len(incidents) - len(shown)
    return [*lines, f"and {folded} more: hbagent incidents"] if folded else lines


# ---- silences ------------------------------------------------------------------------------------------------

_SILENCE_COLUMNS = (
    Column("SILENCE"),
    Column("STATE"),
    Column("COVERS"),
    Column("NOW", 2, right=True),
    Column("UNTIL", 1),
    Column("BY", 3),
    Column("REASON", cut=True),
)
#: Columns that a list of names leaves to what else is to be known of a silence.
_BESIDE_COVERS = 50


def silences_grid(screen: Screen) -> Grid:
    """An empty table of silences, for `silence_cells`."""
    return Grid(_SILENCE_COLUMNS, screen)


def silence_cells(silence: Row, now: str, screen: Screen) -> list[Cell]:
    """One silence or maintenance as a line of its table; `now` is the present wall time."""
    reason = "maintenance: " if silence.get("maintenance") is True else ""
    return [
        Cell(clean(word(silence, "silence"), screen) or "-"),
        state_cell(word(silence, "state"), screen),
        Cell(cut(clean(matcher_text(silence), screen), screen, _BESIDE_COVERS)),
        Cell(f"{number(silence, 'covers') or 0:.0f}"),
        Cell(until_text(silence, now, screen)),
        Cell(clean(word(silence, "author"), screen) or "-"),
        Cell(clean(reason + word(silence, "reason"), screen)),
    ]


def matcher_text(silence: Row) -> str:
    """ "rack r12, cause host-gone or silence"."""
    parts = [
        f"{what} {' or '.join(texts(silence, key))}"
        for what, key in (("node", "nodes"), ("rack", "racks"), ("cause", "causes"), ("kind", "kinds"))
        if texts(silence, key)
    ]
    return ", ".join(parts) or "everything"


def until_text(silence: Row, now: str, screen: Screen) -> str:
    """When it ends, and of one that recurs also when it is in force."""
    state, ends = word(silence, "state"), clock(word(silence, "ends"), now, screen)
    if state == "ended":
        ended_by = word(silence, "ended_by")
        return clean(f"{ends} (ended by {ended_by})" if ended_by else ends, screen)
    following = clock(word(silence, "next"), now, screen)
    if word(silence, "every"):
        length = show_duration(seconds(number(silence, "length_s") or 0))
        turn = f"until {following}" if state == "active" else f"next {following}"
        return clean(f"{ends}, {word(silence, 'every')} for {length}, {turn}", screen)
    if state == "pending":
        return f"{ends}, from {following}"
    return following if word(silence, "next") else ends


def silence_sentence(silence: Row, now: str, screen: Screen) -> str:
    """One silence in a sentence: "silence s3 on rack r12 until 14:00:00Z, by ops: new switch"."""
    what = "maintenance" if silence.get("maintenance") is True else "silence"
    head = clean(f"{what} {word(silence, 'silence')} on {matcher_text(silence)}", screen)
    tail = clean(f"by {word(silence, 'author') or '?'}: {word(silence, 'reason')}", screen)
    return f"{head} until {until_text(silence, now, screen)}, {tail}"


def silence_note(document: Row, screen: Screen) -> str:
    """What is to be said of a silence that was just begun: that nothing is called so; "" for nothing."""
    note = word(document, "note")
    return clean(f"{note}; it covers what comes and is called so", screen) if note else ""


def silences_of(document: Row) -> dict[str, Row]:
    """The silences of an answer by their id."""
    return {word(silence, "silence"): silence for silence in rows(document, "silences")}
