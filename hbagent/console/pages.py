"""The pages behind the overview: a rack, an incident, a node, an evidence bundle, the silences, the keys. Pure.

Each is a function from what is known to lines, wrapped to a width, of which some lead on. What a page cannot tell it
says in words, so an empty page never looks like good news.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hbagent.cli.answers import Row, number, row, rows, seconds_between, word
from hbagent.cli.dossier import bundle_lines
from hbagent.cli.grid import Cell, Screen, clean
from hbagent.cli.pieces import age, clock, state_cell
from hbagent.cli.render import explain_lines, rack_cells, racks_grid
from hbagent.core.states import Health, IncidentState, Liveness
from hbagent.core.units import show_duration

from .lines import Line, Target, columns, legend, spans, word_of, wrapped
from .model import Fleet, Host, Rack
from .panes import incident_word, tail, why

KEYS = (
    ("arrows, h j k l", "move; PgUp, PgDn, Home, End too"),
    ("Tab, Shift+Tab", "the next pane, the one before"),
    ("Enter", "look closer: rack, node, incident, evidence"),
    ("Esc, Backspace", "back"),
    ("/", "filter: words of a name, state, cause or text; * and ? in names; empty for all"),
    (": or g", "jump to a node by name, or a part of it"),
    ("o", "problems in another order"),
    ("s", "silence what is chosen"),
    ("m", "maintenance for what is chosen"),
    ("a", "acknowledge the incident that is chosen, or of the node that is"),
    ("u", "end the silence that is chosen (on the page of silences)"),
    ("S", "silences and maintenances"),
    ("e", "evidence of the node's applications"),
    ("r", "ask now"),
    ("q", "quit"),
)


def _text(text: str, tone: str = "") -> Line:
    return Line([Cell(text, tone)])


def _section(title: str) -> list[Line]:
    return [_text(""), _text(title, "bold")]


def _told(lines: Iterable[str], width: int) -> list[Line]:
    """Painted lines, wrapped."""
    return [Line(piece) for line in lines for piece in wrapped(spans(line), width)]


def help_lines(width: int, screen: Screen) -> list[Line]:
    """The keys, and what each sign means."""
    wide = max(len(key) for key, _ in KEYS) + 2
    lines = [_text("Keys", "bold")]
    for key, what in KEYS:
        lines += [Line(piece) for piece in wrapped([Cell(f"  {key.ljust(wide)}"), Cell(what)], width)]
    lines += [*_section("Signs of the grid"), *map(Line, legend(screen))]
    note = (
        "What is old is grey, and the line at the top says how old it is. A host in grey is silenced or its rack old."
    )
    return [*lines, _text(""), *(Line(piece) for piece in wrapped([Cell(note, "dim")], width))]


# ---- rack ----------------------------------------------------------------------------------------------------


def rack_lines(fleet: Fleet, rack: Rack, width: int, screen: Screen) -> list[Line]:
    """A rack: its state in numbers, its leaders, its hosts with the worst first."""
    at = word(fleet.root, "at")
    grid = racks_grid(Screen(colour=True, unicode=screen.unicode, width=width))
    lines = _told(grid.lines([rack_cells(rack.row, grid.screen)]), width)
    lines += _section("Leaders")
    leaders = [_leader_text(leader, screen) for leader in rows(rack.row, "leaders")]
    lines += [Line(piece) for pieces in leaders for piece in wrapped(pieces, width)] or [_text("  none is known")]
    lines += _section("Hosts, the worst first")
    hosts = sorted(rack.ordered(), key=lambda host: host.trouble)
    return lines + [Line(_host_cells(host, at, width, screen), Target("node", host.name)) for host in hosts]


def _leader_text(leader: Row, screen: Screen) -> list[Cell]:
    state = state_cell(word(leader, "state") or "UNKNOWN", screen)
    heard = number(leader, "age_s")
    parts = [
        "never heard" if heard is None else f"heard {age(heard)} ago",
        f"up {age(number(leader, 'uptime_s'), '?')}",
        word(leader, "version"),
        word(leader, "cause"),
        word(leader, "degraded"),
    ]
    said = clean(", ".join(filter(None, parts)), screen)
    return [Cell(f"  {clean(word(leader, 'leader'), screen)}: "), state, Cell(f", {said}")]


def _host_cells(host: Host, at: str, width: int, screen: Screen) -> list[Cell]:
    name = min(max(12, width // 3), 40)
    cells = (
        Cell(tail(clean(host.short, screen), name, screen)),
        word_of(host, screen),
        Cell(clock(host.since, at, screen)),
        Cell(clean(why(host), screen)),
    )
    return columns(cells, (name, 14, 9, max(0, width - name - 14 - 9 - 4)), screen)


# ---- incident ------------------------------------------------------------------------------------------------


def incident_lines(incident: Row, at: str, width: int, screen: Screen) -> list[Line]:
    """An incident: where it stands, who knows of it, whom it has hit."""
    burning, count = number(incident, "burning") or 0, number(incident, "count") or 0
    about = [word(incident, "rack"), word(incident, "axis"), word(incident, "cause")]
    head = f"{word(incident, 'incident')}: {', '.join(filter(None, about))}"
    said = [
        f"  {word(incident, 'text')}" if word(incident, "text") else "",
        f"  {burning:.0f} of {count:.0f} still burn; open for {age(number(incident, 'age_s'), '?')}, "
        f"since {word(incident, 'opened')}",
        f"  resolved {word(incident, 'resolved')}" if word(incident, "resolved") else "",
        f"  a drill: {word(incident, 'kind')}" if incident.get("drill") is True else "",
        _acknowledged(incident),
        f"  silenced by {', '.join(_words(incident, 'silenced_by'))}" if _words(incident, "silenced_by") else "",
    ]
    lines = [Line([Cell(clean(head, screen), "bold"), Cell("  "), incident_word(incident, screen)])]
    lines += [Line(piece) for text in said if text for piece in wrapped([Cell(clean(text, screen))], width)]
    inhibited = word(incident, "inhibited_by")
    if inhibited:
        lines.append(Line([Cell(clean(f"  explained by {inhibited}", screen))], Target("incident", inhibited)))
    members = _words(incident, "members")
    if members:
        lines += _section("Still burning")
        lines += [Line([Cell(f"  {clean(name, screen)}")], _place(name)) for name in members]
        if burning > len(members):
            lines.append(_text(f"  and {burning - len(members):.0f} more", "dim"))
    return lines


def _acknowledged(incident: Row) -> str:
    if not word(incident, "acked_by"):
        if word(incident, "state") == IncidentState.FIRING.value:
            return '  nobody has acknowledged it; "a" does'
        return ""
    comment = f": {word(incident, 'comment')}" if word(incident, "comment") else ""
    return f"  acknowledged by {word(incident, 'acked_by')}{comment}"


def _place(name: str) -> Target:
    return Target("node" if name.count("/") == 2 else "rack", name)


def _words(document: Any, key: str) -> list[str]:
    found = document.get(key) if isinstance(document, dict) else None
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


# ---- silences ------------------------------------------------------------------------------------------------


def silence_lines(fleet: Fleet, width: int, screen: Screen) -> list[Line]:
    """Every silence and maintenance that is not over: what it covers, until when, and who wants it."""
    lines = [_text("Silences and maintenances", "bold")]
    current = [one for one in fleet.silences if word(one, "state") != "ended"]
    for one in current:
        kind = "maintenance" if one.get("maintenance") is True else "silence"
        state = word(one, "state")
        fits = [
            f"{key[:-1]} {' '.join(_words(one, key))}" for key in ("nodes", "racks", "causes", "kinds") if one.get(key)
        ]
        until = word(one, "next") or word(one, "ends")
        left = seconds_between(word(fleet.root, "at"), until)
        when = f"until {clock(until, word(fleet.root, 'at'), screen)}" if state == "active" else f"from {until}"
        every = f", {word(one, 'every')}" if word(one, "every") else ""
        head = f"{word(one, 'silence')} {kind} {state} {when}{f' ({age(left)})' if left and left > 0 else ''}{every}"
        target = Target("silence", word(one, "silence"))
        lines.append(Line([Cell(f"  {clean(head, screen)}", "warn" if state == "active" else "dim")], target))
        covers = f"covers {number(one, 'covers') or 0:.0f} now"
        why = f"    {'; '.join(fits) or 'everything'}; {covers}; {word(one, 'author')}: {word(one, 'reason')}"
        lines += [Line(piece, target) for piece in wrapped([Cell(clean(why, screen))], width)]
    return lines if current else [*lines, _text("  there is none")]


# ---- node ----------------------------------------------------------------------------------------------------


def node_lines(document: Row, fleet: Fleet, width: int, screen: Screen) -> list[Line]:
    """A node: its beats, who said what of it, its applications and probes, and its timeline."""
    node = row(document, "node")
    coloured = Screen(colour=True, unicode=screen.unicode)
    first, *others = explain_lines(document, coloured, word(fleet.root, "at"))
    lines = _told([first], width)
    lines += [Line(piece) for piece in wrapped([Cell(clean(_beats_text(document), screen))], width)]
    covered = _words(node, "covered_by")
    if covered:
        lines.append(_text(f"  silenced by {clean(', '.join(covered), screen)}", "warn"))
    if node.get("flapping") is True:
        lines.append(_text("  flapping: it changes so often that nobody is told of each change", "warn"))
    for name in _words(node, "incidents"):
        lines.append(Line([Cell(f"  incident {clean(name, screen)}", "warn")], Target("incident", name)))
    for app in rows(node, "apps"):
        if word(app, "bundle"):
            text = f"  evidence of {word(app, 'name')} ({word(app, 'stall') or 'looked at'})"
            lines.append(
                Line([Cell(clean(text, screen), "warn")], Target("bundle", word(app, "bundle"), word(app, "name")))
            )
    lines += _told(others, width)
    if not rows(document, "events"):
        lines += [_text(""), _text("No events: only a root keeps them", "dim")]
    return lines


def _beats_text(document: Row) -> str:
    """Age, lost, late and margin: by the newest evidence, what the detector allowed."""
    node = row(document, "node")
    proofs = [row(story, "evidence") for story in (*rows(document, "story"), *rows(document, "events"))]
    proof = next((proof for proof in proofs if number(proof, "interval_ns")), {})
    heard = number(node, "age_s")
    parts = [
        "no beat yet" if heard is None else f"newest {age(heard)} ago",
        f"{number(node, 'lost') or 0:.0f} lost",
        f"{number(node, 'late') or 0:.0f} late",
    ]
    interval, allowed = number(proof, "interval_ns"), number(proof, "allowed_ns")
    if interval:
        parts.append(f"one due every {show_duration(int(interval))}")
    if allowed:
        parts.append(f"margin {show_duration(int(allowed))} when it was last in doubt")
    return f"  beats: {', '.join(parts)}"


def bundles_of(document: Row) -> list[Target]:
    """The evidence bundles of a node's applications, those in trouble first."""
    apps = [app for app in rows(row(document, "node"), "apps") if word(app, "bundle")]
    apps.sort(key=lambda app: word(app, "health") == Health.OK.value)
    return [Target("bundle", word(app, "bundle"), word(app, "name")) for app in apps]


def brief_lines(host: Host, why: str, fleet: Fleet, width: int, screen: Screen) -> list[Line]:
    """A node while its story is asked for, or when nobody tells it: what its cell says."""
    cause = f" ({clean(host.cause, screen)})" if host.cause else ""
    lines = [Line([Cell(f"{clean(host.name, screen)} is "), word_of(host, screen), Cell(cause)])]
    if host.liveness != Liveness.ALIVE.value or host.cause:
        lines.append(_text(f"  since {clock(host.since, word(fleet.root, 'at'), screen)}"))
    if host.text:
        lines += [Line(piece) for piece in wrapped([Cell(f"  {clean(host.text, screen)}")], width)]
    return [*lines, _text(""), *(Line(piece) for piece in wrapped([Cell(clean(why, screen), "dim")], width))]


def evidence_lines(document: Row, width: int, screen: Screen) -> list[Line]:
    """An evidence bundle."""
    return _told(bundle_lines(document, Screen(colour=True, unicode=screen.unicode)), width)
