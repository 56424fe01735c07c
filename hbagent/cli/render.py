"""Answers as text: pure functions from an answer and a `Screen` to lines.

Meaning is in a word and a symbol; colour only repeats it. On a screen of some height what is well is folded away
first, so that what is wrong stays on it; on a pipe every rack and node has its line, so that `grep` finds it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from hbagent.core.names import short_of
from hbagent.core.states import Health, Liveness, RackState
from hbagent.core.units import show_duration

from .answers import (
    TROUBLES,
    Row,
    bad_parts,
    culprit,
    data_age_s,
    health_of,
    known,
    liveness_of,
    moment_before,
    number,
    row,
    rows,
    seconds_between,
    state_of,
    troubled,
    word,
)
from .grid import Cell, Column, Grid, Screen, clean, cut, paint
from .incidents import few, incident_lines, marks_text, texts
from .pieces import TONES_OF, age, clock, is_told, state_cell

#: Data older than this is marked: a leader tells its state each second and loses its lease after five.
STALE_S = 5.0
#: Lines that are kept for racks, and for problems, however small the screen is.
LINES_MIN = 3
#: Lines on a screen about leaders, store and hooks: when a whole site goes dark they all say the same.
WARNINGS_MAX = 4
#: A part's name in a table of events, whose columns the longest one widens.
PART_MAX = 24
#: A probe's figures on its line: the others are in the JSON.
MEASURES_MAX = 6

_VERDICTS = {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}


# ---- documents -----------------------------------------------------------------------------------------------


def as_json(document: Any) -> str:
    """A document for programs, indented. Everything beyond ASCII is escaped, for it may end up on a terminal."""
    return json.dumps(document, indent=2)


def as_json_line(document: Any) -> str:
    """The same on one line."""
    return json.dumps(document, separators=(",", ":"))


# ---- status --------------------------------------------------------------------------------------------------


def status_lines(
    document: Row, code: int, screen: Screen, wide: bool = False, nodes: Sequence[Row] | None = None
) -> list[str]:
    """The whole answer to "what is wrong?": verdict, incidents, racks, then problems with the worst first, or other
    `nodes`."""
    head = [*_verdict_lines(document, code, screen), *_about_lines(document, screen)]
    racks = rows(document, "racks")
    problems = [node for node, _ in troubled(document)] if nodes is None else nodes
    room = None if screen.height is None else screen.height - len(head) - 1
    incidents = rows(document, "incidents")
    if incidents:
        at = word(row(document, "root"), "at")
        least = (2 + LINES_MIN) * ((len(racks) > 0) + (len(problems) > 0))
        share = None if room is None else max(LINES_MIN, min(room // 3, room - 2 - least))
        burning = ["", *incident_lines(incidents, at, screen, wide, share)]
        head += burning
        room = None if room is None else room - len(burning)
    rack_room, problem_room = _shares(room, len(racks), len(problems))
    lines = head
    if racks:
        lines = [*lines, "", *_rack_lines(racks, screen, wide, rack_room)]
    if problems:
        lines = [*lines, "", *_problem_lines(problems, document, screen, wide, problem_room)]
    return lines


def _shares(room: int | None, racks: int, problems: int) -> tuple[int | None, int | None]:
    """Lines for the rows of each of the two tables. Both have a blank line and titles above them."""
    if room is None:
        return None, None
    room -= 2 * (racks > 0) + 2 * (problems > 0)
    if racks + problems <= room:
        return None, None
    for_racks = max(LINES_MIN, min(racks, room // 3 if problems else room), room - problems)
    return for_racks, max(LINES_MIN, room - min(racks, for_racks))


def _verdict_lines(document: Row, code: int, screen: Screen) -> list[str]:
    verdict = _VERDICTS[code]
    text = f"{state_cell(verdict, screen).text}: {_summary(document, screen)}"
    lines = textwrap.wrap(text, screen.width, subsequent_indent="  ") if screen.width else [text]
    return [paint(line, TONES_OF[verdict], screen) for line in lines]


def _summary(document: Row, screen: Screen) -> str:
    """ "1 of 8 nodes DEAD, 1 SUSPECT; 1 of 2 racks DEGRADED; 1 of 2 leaders DEAD"."""
    total, racks = known(document), rows(document, "racks")
    counts = dict.fromkeys(TROUBLES, 0)
    for _, trouble in troubled(document):
        counts[trouble] += 1
    parts = [_counted(counts, total, "node") or _all_well(total)]
    states = dict.fromkeys((state.value for state in reversed(RackState)), 0)
    for rack in racks:
        states[state_of(rack)] += 1
    del states[RackState.OK.value]
    parts.append(_counted(states, len(racks), "rack"))
    leaders = {word(leader, "leader"): word(leader, "state") for rack in racks for leader in rows(rack, "leaders")}
    fallen = [state for state in leaders.values() if state != Liveness.ALIVE.value]
    parts.append(_counted({state: fallen.count(state) for state in fallen}, len(leaders), "leader"))
    return clean("; ".join(filter(None, parts)), screen)


def _all_well(total: int) -> str:
    if total < 2:
        return "the one node is ALIVE" if total else "no node is known"
    return f"all {total} nodes ALIVE"


def _counted(counts: dict[str, int], total: int, noun: str) -> str:
    """ "2 of 8 nodes DEAD, 1 SUSPECT"; "" when nothing was counted."""
    found = [(count, what) for what, count in counts.items() if count]
    if not found:
        return ""
    (first, what), *others = found
    return ", ".join(
        [f"{first} of {total} {noun}{'s' * (total != 1)} {what}", *(f"{count} {other}" for count, other in others)]
    )


def data_age(document: Row) -> tuple[str, bool]:
    """How old what the answerer knows is, in words, and whether that is too old to be believed."""
    racks = rows(document, "racks")
    heard = [value for rack in racks if (value := data_age_s(rack)) is not None]
    oldest = max(heard, default=None)
    told = f"data at most {age(oldest)} old" if oldest is not None else "no data yet"
    stale = oldest is None or oldest > STALE_S
    if oldest is not None and stale:
        told += " (STALE)"
    if len(heard) < len(racks) and heard:
        told += f", none from {len(racks) - len(heard)} of {len(racks)} racks"
    return told, stale or len(heard) < len(racks)


def age_line(document: Row, screen: Screen) -> list[str]:
    """Below a table on a screen: how old it is. A pipe gets the table alone (see `ticks.Ageing`)."""
    return [] if screen.width is None else [paint(cut(f"  {data_age(document)[0]}", screen), "dim", screen)]


def _about_lines(document: Row, screen: Screen) -> list[str]:
    """Who answers, how old what it knows is, and what it says of itself."""
    root, racks = row(document, "root"), rows(document, "racks")
    role = clean(word(root, "role") or "root", screen)
    told, _ = data_age(document)
    who = f"{role} {clean(word(root, 'name'), screen)} {clean(word(root, 'version'), screen)}".rstrip()
    text = f"  {told}; {who}, up {age(number(root, 'uptime_s'), '?')}, {clean(word(root, 'at'), screen)}"
    lines = [paint(cut(text, screen), "dim", screen)]
    return [*lines, *_warning_lines(root, racks, screen)]


def _warning_lines(root: Row, racks: Sequence[Row], screen: Screen) -> list[str]:
    said = []
    if root.get("isolated") is True:
        said.append(f"{word(root, 'name')} hears none of its leaders: it is cut off, or all of them are")
    if word(root, "degraded"):
        said.append(f"{word(root, 'name')} is degraded: {word(root, 'degraded')}")
    dead, waiting = number(root, "hooks_dead") or 0, number(root, "hooks_waiting") or 0
    if dead:
        said.append(f"{dead:.0f} hook runs were given up, {waiting:.0f} wait")
    leaders = {word(leader, "leader"): leader for rack in racks for leader in rows(rack, "leaders")}
    for name, leader in leaders.items():
        if word(leader, "state") not in (Liveness.ALIVE.value, ""):
            heard = number(leader, "age_s")
            since = "never heard" if heard is None else f"last heard {age(heard)} ago"
            why = f" ({word(leader, 'cause')})" if word(leader, "cause") else ""
            said.append(f"leader {name} is {word(leader, 'state')}{why}, {since}")
        if word(leader, "degraded") and name != word(root, "name"):
            said.append(f"leader {name} is degraded: {word(leader, 'degraded')}")
    if screen.height is not None and len(said) > WARNINGS_MAX:
        said[WARNINGS_MAX - 1 :] = [f"and {len(said) - WARNINGS_MAX + 1} more of this kind: hbagent racks -o wide"]
    return [paint(cut(f"  ! {clean(text, screen)}", screen), "warn", screen) for text in said]


# ---- racks ---------------------------------------------------------------------------------------------------

_RACK_COLUMNS = (
    Column("RACK"),
    Column("STATE"),
    Column("ALIVE", 1, right=True),
    Column("SUSPECT", right=True),
    Column("DEAD", right=True),
    Column("LEFT", 4, right=True),
    Column("UNKNOWN", right=True),
    Column("LEADERS", 3),
    Column("AGE", 2, right=True),
)
_RACK_WIDE = (Column("EACH LEADER", 5, cut=True),)


def racks_grid(screen: Screen, wide: bool = False) -> Grid:
    """An empty table of racks, for `rack_cells`."""
    return Grid((*_RACK_COLUMNS, *(_RACK_WIDE if wide else ())), screen)


def rack_cells(rack: Row, screen: Screen, wide: bool = False) -> list[Cell]:
    """One rack as a line of its table."""
    counts = row(rack, "counts")
    leaders = rows(rack, "leaders")
    alive = sum(word(leader, "state") == Liveness.ALIVE.value for leader in leaders)
    old = data_age_s(rack)
    cells = [
        Cell(clean(word(rack, "rack"), screen) or "-"),
        state_cell(state_of(rack), screen),
        *(_count_cell(counts, liveness) for liveness in ("ALIVE", "SUSPECT", "DEAD", "LEFT", "UNKNOWN")),
        Cell(f"{alive}/{len(leaders)}", "" if alive == len(leaders) else "warn"),
        Cell(age(old), "warn" if old is None or old > STALE_S else ""),
    ]
    if wide:
        cells.append(Cell("; ".join(_leader_text(leader, screen) for leader in leaders) or "-"))
    return cells


def _count_cell(counts: Row, liveness: str) -> Cell:
    count = number(counts, liveness) or 0
    tone = TONES_OF[liveness] if count and liveness != "ALIVE" else "dim" if not count else ""
    return Cell(f"{count:.0f}", tone)


def _leader_text(leader: Row, screen: Screen) -> str:
    lag = number(leader, "lag_max_ms")
    parts = [
        word(leader, "leader"),
        word(leader, "state"),
        age(number(leader, "age_s")),
        f"up {age(number(leader, 'uptime_s'), '?')}",
        f"lag {'?' if lag is None else age(lag / 1000)}",
        f"outbox {number(leader, 'outbox') or 0:.0f}",
        *(f"{what} {count:.0f}" for what in ("doubts", "stalls") if (count := number(leader, what))),
        *([f"suspended {age(slept)}"] if (slept := number(leader, "suspended_s")) else []),
        *(f"{reason}={count}" for reason, count in row(leader, "refused").items()),
        *([f"version {version}"] if (version := word(leader, "version")) else []),
    ]
    return clean(" ".join(parts), screen)


def _rack_lines(racks: Sequence[Row], screen: Screen, wide: bool, room: int | None) -> list[str]:
    if room is None or len(racks) <= room:
        return racks_grid(screen, wide).lines([rack_cells(rack, screen, wide) for rack in racks])
    worst_first = sorted(racks, key=lambda rack: state_of(rack) == RackState.OK.value)
    shown, folded = worst_first[: room - 1], worst_first[room - 1 :]
    lines = racks_grid(screen, wide).lines([rack_cells(rack, screen, wide) for rack in shown])
    words = "all OK" if state_of(folded[0]) == RackState.OK.value else "not all OK"
    return [*lines, f"and {len(folded)} more, {words}: hbagent racks"]


# ---- nodes ---------------------------------------------------------------------------------------------------

_NODE_COLUMNS = (
    Column("NODE"),
    Column("LIVENESS"),
    Column("HEALTH"),
    Column("CAUSE", 1),
    Column("AGE", 2, right=True),
    Column("SINCE", 3),
)
_NODE_WIDE = (
    Column("LOST", 6, right=True),
    Column("LATE", 7, right=True),
    Column("OBSERVERS", 4),
    Column("APPS, PROBES", 5),
    Column("HOST", 8),
    Column("VERSION", 9),
)


def nodes_grid(screen: Screen, wide: bool = False) -> Grid:
    """An empty table of nodes, for `node_cells`."""
    return Grid((*_NODE_COLUMNS, *(_NODE_WIDE if wide else ())), screen)


def node_cells(node: Row, now: str, screen: Screen, wide: bool = False) -> list[Cell]:
    """One node as a line of its table; `now` is the wall time of the answer. Where its health is what is wrong, cause
    and time are those of the part that makes it so."""
    worst = culprit(node)
    since = word(node, "since") if worst is None else moment_before(now, number(worst[1], "since_s"))
    cells = [
        Cell(clean(word(node, "node"), screen) or "-"),
        state_cell(liveness_of(node), screen),
        _health_cell(node, screen),
        Cell(clean(_cause_text(node, worst, wide), screen) or "-"),
        Cell(age(number(node, "age_s"))),
        Cell(clean(since, screen) if wide and is_told(since) else clock(since, now, screen)),
    ]
    if wide:
        cells += [
            Cell(f"{number(node, 'lost') or 0:.0f}"),
            Cell(f"{number(node, 'late') or 0:.0f}"),
            Cell(", ".join(_observer_text(observer, screen) for observer in rows(node, "observers")) or "-"),
            Cell(_parts_text(node, screen)),
            Cell(_facts_text(row(node, "facts"))),
            Cell(clean(word(node, "version"), screen) or "-"),
        ]
    return cells


def _cause_text(node: Row, worst: tuple[str, Row] | None, wide: bool) -> str:
    """ "host-gone", "app web", "silence (flapping, covered)"."""
    cause, marks = word(node, "cause") or _part_name(worst), marks_text(node, wide)
    return f"{cause} ({marks})".lstrip() if marks else cause


def _health_cell(node: Row, screen: Screen) -> Cell:
    """A node's health; an OK of one that nobody reaches is the last that was known, and not shown as good."""
    reached = liveness_of(node) in (Liveness.ALIVE.value, Liveness.SUSPECT.value)
    health = health_of(node)
    return state_cell(health, screen) if reached or health != Health.OK.value else Cell("- OK", "away")


def _observer_text(observer: Row, screen: Screen) -> str:
    """ "rack1-leader1:ALIVE/250ms"; in brackets when it has no right to speak."""
    leader = short_of(word(observer, "leader"))
    text = clean(f"{leader}:{word(observer, 'liveness')}/{age(number(observer, 'age_s'))}", screen)
    return text if observer.get("speaks", True) else f"({text})"


def _part_name(part: tuple[str, Row] | None) -> str:
    """ "app web"."""
    return "" if part is None else f"{part[0]} {word(part[1], 'name')}".rstrip()


def _parts_text(node: Row, screen: Screen) -> str:
    """ "web=DEADLOCKED, disk=WARNING"; "4 OK, 1 failing" when nothing is bad, or not yet."""
    bad = [f"{word(part, 'name')}={health_of(part)}" for _, part in bad_parts(node)]
    if bad:
        return clean(", ".join(bad), screen)
    parts = [*rows(node, "apps"), *rows(node, "probes")]
    soft = sum(bool(word(part, "soft")) for part in parts)
    return (f"{len(parts)} OK" if parts else "-") + (f", {soft} failing" if soft else "")


def _facts_text(facts: Row) -> str:
    shown = (("cpu", "cpu_percent", "%"), ("mem", "memory_used_percent", "%"), ("load", "load_1m", ""))
    parts = [f"{name} {value:.4g}{unit}" for name, key, unit in shown if (value := number(facts, key)) is not None]
    return ", ".join(parts) or "-"


def _problem_lines(nodes: Sequence[Row], document: Row, screen: Screen, wide: bool, room: int | None) -> list[str]:
    now = word(row(document, "root"), "at")
    shown = nodes if room is None or len(nodes) <= room else nodes[: room - 1]
    lines = nodes_grid(screen, wide).lines([node_cells(node, now, screen, wide) for node in shown])
    folded = len(nodes) - len(shown)
    return [*lines, f"and {folded} more: hbagent nodes"] if folded else lines


# ---- events --------------------------------------------------------------------------------------------------

_EVENT_COLUMNS = (
    Column("AT"),
    Column("KIND"),
    Column("ABOUT"),
    Column("CHANGE", 2),
    Column("CAUSE", 1),
    Column("WHY", cut=True),
)
#: A screen narrower than this shows events without their year and milliseconds.
_FULL_TIME_WIDTH = 100


def events_grid(screen: Screen) -> Grid:
    """An empty table of events, for `event_cells`."""
    return Grid(_EVENT_COLUMNS, screen)


def event_cells(event: Row, screen: Screen) -> list[Cell]:
    """One event, as the contract writes it, as a line of its table."""
    kind = word(event, "kind")
    about = word(event, "node") or word(event, "leader") or word(event, "rack") or "-"
    evidence = word(row(event, "evidence"), "text")
    late = "(told late) " if event.get("late") else ""
    account = word(event, "account")
    if account:
        evidence += f"; by its own account: {account}"
    at = clean(word(event, "at"), screen)
    if screen.width is not None and screen.width < _FULL_TIME_WIDTH and seconds_between(at, at) is not None:
        at = f"{at[5:10]} {at[11:19]}Z"
    return [
        Cell(at),
        Cell(clean(kind, screen), _event_tone(event)),
        Cell(clean(about, screen)),
        Cell(_change_text(event, screen)),
        Cell(clean(word(event, "cause"), screen) or "-"),
        Cell(clean(late + evidence, screen)),
    ]


def _event_tone(event: Row) -> str:
    return TONES_OF.get(_change_of(event)[2], "")


def _change_of(event: Row) -> tuple[str, str, str]:
    """What an event tells of, before and after; of a part, by its name, when the node's health is as it was."""
    if word(event, "kind") != "health-changed":
        axis = row(event, "liveness")
        return "", word(axis, "from"), word(axis, "to")
    axis = row(event, "health")
    changes = rows(row(event, "evidence"), "changes")
    if changes and word(axis, "from") == word(axis, "to"):
        return word(changes[0], "name"), word(changes[0], "before"), word(changes[0], "after")
    return "", word(axis, "from"), word(axis, "to")


def _change_text(event: Row, screen: Screen) -> str:
    part, before, after = _change_of(event)
    if not before and not after:
        return "-"
    arrow = "→" if screen.unicode else "->"
    if len(part) > PART_MAX:
        end = "…" if screen.unicode else "..."
        part = part[: PART_MAX - len(end)] + end
    name = f"{part}: " if part else ""
    return f"{clean(name, screen)}{clean(before, screen) or '?'} {arrow} {clean(after, screen) or '?'}"


# ---- explain -------------------------------------------------------------------------------------------------


def explain_lines(document: Row, screen: Screen, now: str = "") -> list[str]:
    """Why a node is in its state, for a reader who has a minute: state, who observes, verdicts, last events."""
    node, rack = row(document, "node"), row(document, "rack")
    lines = [*_state_lines(node, rack, screen, now)]
    observers = rows(node, "observers")
    lines += ["", paint("Who observes", "bold", screen)]
    lines += [f"  {_observer_line(observer, screen)}" for observer in observers] or ["  nobody has heard of it"]
    apps = rows(node, "apps")
    if apps:
        lines += ["", paint("Applications", "bold", screen)]
        for app in apps:
            lines += [f"  {line}" for line in _app_lines(app, word(node, "node"), screen)]
    probes = rows(node, "probes")
    if probes:
        lines += ["", paint("Probes", "bold", screen), *(f"  {_probe_line(probe, screen)}" for probe in probes)]
    story = rows(document, "story")
    if story:
        lines += ["", paint("Verdicts, newest first", "bold", screen)]
        # Of a root these are the last words of each leader, of a leader its verdicts: then the newest in full.
        newest = next((verdict for verdict in story if _steps(verdict)), None)
        for verdict in story:
            lines += _story_lines(verdict, screen, verdict is newest or not word(verdict, "at"))
    events = rows(document, "events")
    if events:
        lines += ["", paint("Events, newest first", "bold", screen)]
        # One verdict in full: the newest whose story no observer has told above.
        told = [_steps(verdict) for verdict in story]
        full = next((event for event in events if _steps(event) and _steps(event) not in told), None)
        for event in events:
            lines += [f"  {line}" for line in _event_lines(event, screen, event is full)]
    return lines


def _steps(verdict: Row) -> list[Row]:
    return rows(row(verdict, "evidence"), "steps")


def _step_lines(verdict: Row, screen: Screen) -> list[str]:
    """The story of a verdict, one step a line, in milliseconds since the last proof of life."""
    steps = _steps(verdict)
    times = [f"{number(step, 'after_ms') or 0:.1f}" for step in steps]
    width = max(map(len, times), default=0)
    return [
        f"    {time.rjust(width)} ms  {clean(word(step, 'text'), screen)}"
        for time, step in zip(times, steps, strict=True)
    ]


def _state_lines(node: Row, rack: Row, screen: Screen, now: str) -> list[str]:
    liveness = state_cell(liveness_of(node), screen)
    cause = clean(word(node, "cause"), screen)
    since = word(node, "since")
    text = f"{clean(word(node, 'node'), screen)} is {paint(*liveness, screen)}{f' ({cause})' if cause else ''}"
    if is_told(since):
        ago = seconds_between(since, now)
        text += f" since {clean(since, screen)}{f', {age(ago)} ago' if ago is not None else ''}"
    heard = number(node, "age_s")
    proof = "no proof of life yet" if heard is None else f"last proof of life {age(heard)} ago"
    counts = f"{number(node, 'lost') or 0:.0f} beats lost, {number(node, 'late') or 0:.0f} late"
    alive = number(row(rack, "counts"), "ALIVE") or 0
    total = sum(number(row(rack, "counts"), liveness.value) or 0 for liveness in Liveness)
    facts = _facts_text(row(node, "facts"))
    lines = [
        text,
        f"  health {_health_cell(node, screen).text}; {proof}; {counts}",
        f"  rack {clean(word(rack, 'rack'), screen)} is {state_cell(state_of(rack), screen).text}, "
        f"{alive:.0f} of {total:.0f} nodes ALIVE",
    ]
    lines += [] if facts == "-" else [f"  host: {facts}"]
    marks = "; ".join(filter(None, (few(texts(node, "incidents")), marks_text(node))))
    return [*lines, f"  {clean(marks, screen)}: hbagent why-silent tells who was told"] if marks else lines


def _observer_line(observer: Row, screen: Screen) -> str:
    state = state_cell(word(observer, "liveness") or "UNKNOWN", screen)
    cause = clean(word(observer, "cause"), screen)
    heard = number(observer, "age_s")
    proof = "never heard it in its own life" if heard is None else f"heard it {age(heard)} ago"
    silent = "" if observer.get("speaks", True) else "; has no say now"
    name = clean(word(observer, "leader"), screen)
    return f"{name}: {paint(*state, screen)}{f' ({cause})' if cause else ''}, {proof}{silent}"


def _app_lines(app: Row, node: str, screen: Screen) -> Iterable[str]:
    """One application: what is the matter with it, what proves it, and where there is more."""
    bad = health_of(app) != Health.OK.value
    yield _part_line(app, word(app, "state"), screen)
    if word(app, "status"):
        yield f'  it says of itself: "{clean(word(app, "status"), screen)}"'
    for mark in rows(app, "marks") if bad else ():
        queued = number(mark, "queued")
        text = f"mark {word(mark, 'name')} at {number(mark, 'count') or 0:.0f}, moved {age(number(mark, 'age_s'))} ago"
        text += f", {queued:.0f} queued" if queued is not None else ""
        yield f"  {clean(text, screen)}, must move within {age(number(mark, 'window_s'), '?')}"
    stall = word(app, "stall")
    pid = number(app, "pid") or 0
    if stall and bad:
        yield f"  process {pid:.0f} was found {clean(stall, screen)}"
        details = app.get("details")
        for line in details if isinstance(details, list) else ():
            yield f"    {clean(str(line), screen)}"
    if word(app, "bundle") and bad:
        yield f"  evidence: hbagent evidence {clean(node, screen)} --bundle {clean(word(app, 'bundle'), screen)}"


def _probe_line(probe: Row, screen: Screen) -> str:
    about = ", ".join(filter(None, (word(probe, "kind"), f"of {word(probe, 'app')}" if word(probe, "app") else "")))
    line = _part_line(probe, about, screen)
    every = rows(probe, "measures")
    measures = [_measure_text(measure) for measure in every[:MEASURES_MAX]]
    if len(every) > MEASURES_MAX:
        measures.append(f"and {len(every) - MEASURES_MAX} more")
    return line + (f" [{clean(', '.join(measures), screen)}]" if measures else "")


def _measure_text(measure: Row) -> str:
    value = number(measure, "value")
    shown = "unknown" if value is None else f"{value:g}{word(measure, 'unit')}"
    return f"{word(measure, 'label')} {shown}"


def _part_line(part: Row, about: str, screen: Screen) -> str:
    """ "disk (host): ! WARNING for 1m30s: 93% used"; with what the newest run said while that is not yet believed."""
    name = clean(f"{word(part, 'name')}{f' ({about})' if about else ''}", screen)
    line = f"{name}: {paint(*state_cell(health_of(part), screen), screen)}"
    since = number(part, "since_s")
    if since is not None:
        line += f" for {age(since)}"
    soft, attempts = word(part, "soft"), number(part, "attempts") or 0
    if soft:
        line += f", but {clean(soft, screen)} {attempts:.0f} time{'s' * (attempts != 1)} in a row"
    text = clean(word(part, "text"), screen)
    return f"{line}: {text}" if text else line


def _story_lines(verdict: Row, screen: Screen, full: bool) -> list[str]:
    """One verdict: of a leader with the change and its evidence in numbers, of the root as each leader's last word."""
    leader = clean(word(verdict, "leader"), screen)
    cause = clean(word(verdict, "cause"), screen)
    said = f" ({cause})" if cause else ""
    if word(verdict, "at"):
        change = _change_text({"kind": word(verdict, "kind"), **verdict}, screen)
        head = f"{clean(word(verdict, 'at'), screen)}  {leader}: {change}{said}"
    else:
        head = f"{leader}: {clean(word(verdict, 'liveness'), screen)}{said} for {age(number(verdict, 'for_s'), '?')}"
    evidence = verdict.get("evidence")
    text = evidence if isinstance(evidence, str) else word(evidence, "text")
    account = clean(word(verdict, "account"), screen)
    lines = [
        f"  {head}",
        f"    {clean(text, screen)}" if text else "",
        _numbers_line(evidence, screen),
        *(f"  {line}" for line in _part_changes(evidence, screen)),
        *(_step_lines(verdict, screen) if full else ()),
        f"    its last silence, by its own account: {account}" if account else "",
    ]
    return [line for line in lines if line]


def _event_lines(event: Row, screen: Screen, full: bool = False) -> Iterable[str]:
    evidence = row(event, "evidence")
    cause = clean(word(event, "cause"), screen)
    change = _change_text(event, screen)
    head = f"{clean(word(event, 'at'), screen)}  {clean(word(event, 'kind'), screen)}"
    by = clean(word(event, "leader"), screen)
    change = "" if change == "-" else f"  {change}"
    yield f"{head}{change}{f' ({cause})' if cause else ''}{f', told by {by}' if by else ''}"
    text = clean(word(evidence, "text"), screen)
    if text:
        yield f"  {text}"
    yield from _part_changes(evidence, screen)
    numbers = _numbers_line(evidence, screen)
    if numbers:
        yield numbers[2:]
    if full:
        yield from (line[2:] for line in _step_lines(event, screen))
    account = clean(word(event, "account"), screen)
    if account:
        yield f"  by its own account: {account}"


def _part_changes(evidence: Any, screen: Screen) -> Iterable[str]:
    """Of a change of health, part by part, with the proof of the worst."""
    arrow = "→" if screen.unicode else "->"
    for change in rows(evidence, "changes"):
        part = f"{word(change, 'subject')} {word(change, 'name')}"
        moved = f"{word(change, 'before')} {arrow} {word(change, 'after')}"
        yield f"    {clean(part, screen)}: {clean(moved, screen)}"
        details = change.get("details")
        for line in details if isinstance(details, list) else ():
            yield f"      {clean(str(line), screen)}"


def _numbers_line(evidence: Any, screen: Screen) -> str:
    """Beats, deadline and detector of a piece of evidence, on one line; "" when it has no numbers."""
    parts = []
    for key, text in _NUMBERS:
        value_ns = number(evidence, key)
        if value_ns:
            parts.append(text.format(show_duration(int(value_ns))))
    sequence = number(evidence, "sequence")
    if sequence is not None:
        parts.append(f"newest beat {sequence:.0f}")
    detector = clean(word(evidence, "detector"), screen)
    if detector:
        parts.append(f"detector {detector}")
    return f"    {', '.join(parts)}" if parts else ""


_NUMBERS = (
    ("silent_ns", "silent {}"),
    ("interval_ns", "a beat due every {}"),
    ("allowed_ns", "allowed {} late"),
    ("lag_credit_ns", "own lag {} added"),
)
