"""One node as HTML: what it is now, who sees it how, what runs on it, why it is judged so, and what happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hbagent.core.messages import Measure
from hbagent.core.states import Kind
from hbagent.core.units import seconds, show_duration
from hbagent.core.views import AppView, Cell, ExplainView, NodeView, ProbeView

from .board import moment
from .looks import LOOK, look_of, marked, tone_of
from .markup import Item, Table, clean, escape, table_html
from .page import OLD_S, crumbs, page

#: Rows of each table, and lines of one proof: what is more is in the JSON.
ROWS_MAX = 200
LINES_MAX = 40
MEASURES_MAX = 6

_TIMELINE = ("When", "What", "From", "To", "Cause", "Told by", "About it")
_OBSERVERS = ("Leader", "Liveness", "Cause", "Last sign of life", "Speaks")
_PROBES = ("Probe", "Kind", "Health", "For", "Age", "Text", "Measures")
_MARKS = ("Progress mark", "Count", "Queued", "Age", "Must move within")


def node_page(view: ExplainView, at: str, base: str, position: str, age_s: float) -> bytes:
    """The page of one node; `at` is the root's time of the answer, `age_s` how old that is."""
    node = view.node
    cell = Cell(node.node, node.liveness, node.cause, node.health, node.since, node.age_s)
    look = LOOK[look_of(cell)]
    parts = [
        f'<header>{crumbs(node.node, base)}<h1><span id="verdict" class="{look.tone}">{look.symbol} {escape(look.word)}'
        f"</span> {escape(node.node)}</h1>\n{_age(at, age_s)}</header>\n<main>\n",
        _now(node, at, base),
        _section("Seen by", table_html("observers", _OBSERVERS, _observers(node), base)),
        _apps(node.apps, base),
        _section("Probes", table_html("probes", _PROBES, _probes(node.probes), base)),
        _why(view.story),
        _section("What happened", table_html("events", _TIMELINE, _timeline(view.events, at), base)),
        _facts(node),
        f'</main>\n<footer>This page only shows. <a href="{escape(base)}api/v1/node/{escape(node.node)}">The same as '
        "JSON</a></footer>\n",
    ]
    title = f"{look.symbol} {node.node}"
    return page(title, "".join(parts), base=base, kind="node", position=position, old=age_s > OLD_S, about=node.node)


def _age(at: str, age_s: float) -> str:
    hidden = "" if age_s > OLD_S else " hidden"
    return (
        f'<p class="age">As of <time id="at">{escape(at)}</time> <span id="age" role="status"></span></p>\n'
        f'<p id="alarm" class="alarm"{hidden}>What is shown here is old: it says nothing about now.</p>\n'
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{title}</h2>\n{inside}</section>\n"


def _now(node: NodeView, at: str, base: str) -> str:
    rows = [
        ("Liveness", marked(node.liveness.value), tone_of(node.liveness.value)),
        ("Health", marked_health(node.health.value), tone_of(node.health.value)),
        ("Cause", node.cause or "-", ""),
        ("Since", moment(node.since, at), ""),
        ("Last sign of life", _ago(node.age_s), ""),
        ("Beats lost, late", f"{node.lost:,}, {node.late:,}", ""),
        ("Incidents", ", ".join(node.incidents) or "none", ""),
    ]
    if node.covered_by:
        rows.append(("Silenced by", ", ".join(node.covered_by), ""))
    if node.flapping:
        rows.append(("Flapping", "yes: one start and one end are told in place of each change", "warn"))
    items = "".join(f'<dt>{name}</dt><dd class="{tone}">{escape(text)}</dd>' for name, text, tone in rows)
    return f'<section><h2>Now</h2>\n<dl class="now">{items}</dl></section>\n'


def marked_health(health: str) -> str:
    """A health's word with a symbol: "✓ OK"."""
    return f"{ {'good': '✓', 'warn': '!', 'bad': '✗'}.get(tone_of(health), '?') } {health}"


def _observers(node: NodeView) -> Table:
    rows = [
        [
            Item(clean(seen.leader)),
            Item(marked(seen.liveness.value), tone_of(seen.liveness.value)),
            Item(clean(seen.cause or "")),
            Item(_ago(seen.age_s)),
            Item("yes" if seen.speaks else "no: it lost its lease, or has not heard this node"),
        ]
        for seen in node.observers
    ]
    return Table(rows, "" if rows else "No leader has told anything of this node.")


def _probes(probes: Sequence[ProbeView]) -> Table:
    rows = [
        [
            Item(clean(probe.name)),
            Item(clean(probe.kind)),
            Item(marked_health(probe.health.value), tone_of(probe.health.value)),
            Item(_for(probe.since_s)),
            Item(_for(probe.age_s)),
            Item(clean(f"{_soft(probe)}{probe.text}")),
            Item(clean(_measures(probe.measures))),
        ]
        for probe in probes[:ROWS_MAX]
    ]
    return Table(rows, _note(len(probes), "No probe has told anything yet."))


def _soft(probe: ProbeView) -> str:
    return f"({probe.soft.value}, {probe.attempts} times in a row) " if probe.soft is not None else ""


def _measures(measures: Sequence[Measure]) -> str:
    told = [f"{row.label} {row.value:.6g}{row.unit}" for row in measures[:MEASURES_MAX] if row.value is not None]
    return ", ".join(told) + (" …" if len(measures) > MEASURES_MAX else "")


def _apps(apps: Sequence[AppView], base: str) -> str:
    return "".join(_app(number, app, base) for number, app in enumerate(apps[:ROWS_MAX]))


def _app(number: int, app: AppView, base: str) -> str:
    health = app.health.value
    said = [
        f"{app.state.value}{f', {app.stall.value}' if app.stall else ''}, for {_for(app.since_s)}, pid {app.pid}",
        app.text,
        f"it says: {app.status}" if app.status else "",
        f"evidence: hbagent evidence ... --bundle {app.bundle}" if app.bundle else "",
    ]
    lines = "".join(f"<p>{escape(line)}</p>" for line in said if line)
    marks = [
        [
            Item(clean(mark.name)),
            Item(f"{mark.count:,}"),
            Item("-" if mark.queued is None else f"{mark.queued:,}"),
            Item(_for(mark.age_s)),
            Item(_for(mark.window_s)),
        ]
        for mark in app.marks[:ROWS_MAX]
    ]
    return (
        f'<section><h2>Application {escape(app.name)} <span class="state {tone_of(health)}">'
        f"{escape(marked_health(health))}</span></h2>\n{lines}{_lines('Seen in the process', app.details)}"
        f"{table_html(f'marks-{number}', _MARKS, Table(marks), base) if marks else ''}</section>\n"
    )


def _lines(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    shown = "\n".join(escape(line) for line in lines[:LINES_MAX])
    return f"<details><summary>{title}</summary><pre>{shown}</pre></details>\n"


def _why(story: Iterable[dict[str, Any]]) -> str:
    told = []
    for verdict in [*story][:ROWS_MAX]:
        by = str(verdict.get("leader") or verdict.get("at") or "")
        to = verdict.get("liveness")
        if isinstance(to, dict):
            to = to.get("to")
        cause = f", {verdict['cause']}" if verdict.get("cause") else ""
        evidence = verdict.get("evidence") or {}
        text = str(evidence.get("text") or "nothing more is known")
        account = f" It says of its silence: {verdict['account']}" if verdict.get("account") else ""
        steps = [
            f"{step.get('after_ms', 0):>10.3f} ms  {step.get('text', '')}"
            for step in evidence.get("steps") or ()
            if isinstance(step, dict)
        ]
        told.append(
            f'<h3>{escape(by)}: <span class="{tone_of(str(to))}">{escape(str(to))}</span>{escape(cause)}</h3>'
            f"<p>{escape(text + account)}</p>{_lines('Step by step, since the last proof of life', steps)}"
        )
    return _section("Why", "".join(told) or "<p>No leader has judged it.</p>")


def _timeline(events: Iterable[dict[str, Any]], at: str) -> Table:
    events = [*events]
    rows = []
    for event in events[:ROWS_MAX]:
        change = event.get("health" if event.get("kind") == Kind.HEALTH_CHANGED.value else "liveness") or {}
        before, after = str(change.get("from") or ""), str(change.get("to") or "")
        text = [str((event.get("evidence") or {}).get("text") or "")]
        text += [f"told to nobody: {event['withheld']}"] if event.get("withheld") else []
        text += ["a drill"] if event.get("drill") else []
        rows.append(
            [
                Item(moment(str(event.get("at") or ""), at)),
                Item(clean(str(event.get("kind") or ""))),
                Item(clean(before), tone_of(before) if before else ""),
                Item(clean(after), tone_of(after) if after else ""),
                Item(clean(str(event.get("cause") or ""))),
                Item(clean(str(event.get("leader") or ""))),
                Item(clean("; ".join(filter(None, text)))),
            ]
        )
    return Table(rows, _note(len(events), "Nothing has happened to it."))


def _facts(node: NodeView) -> str:
    facts = node.facts
    if facts is None:
        return ""
    shown: list[tuple[str, str]] = [
        ("Host name", facts.hostname),
        ("Kernel", facts.kernel),
        ("Up for", _for(facts.uptime_s)),
        ("CPUs", "" if facts.cpu_count is None else str(facts.cpu_count)),
        ("CPU used", _percent(facts.cpu_percent)),
        ("Load, 1 min", "" if facts.load_1m is None else f"{facts.load_1m:.2f}"),
        ("Memory used", _percent(facts.memory_used_percent)),
        ("Swap used", _percent(facts.swap_used_percent)),
        ("Waiting for CPU, memory, I/O", ", ".join(map(_percent, (facts.psi_cpu, facts.psi_memory, facts.psi_io)))),
        ("Could not be read", "; ".join(facts.errors)),
        ("Taken", f"{_for(node.facts_age_s)} ago"),
    ]
    items = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in shown if text and text != ", , ")
    return f'<section><h2>Host</h2>\n<dl class="now">{items}</dl></section>\n'


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


def _for(value_s: float | None) -> str:
    return "-" if value_s is None else show_duration(seconds(value_s))


def _ago(value_s: float | None) -> str:
    return "never" if value_s is None else f"{show_duration(seconds(value_s))} ago"


def _note(count: int, nothing: str) -> str:
    if not count:
        return nothing
    return f"and {count - ROWS_MAX:,} more" if count > ROWS_MAX else ""
