"""The console itself: where the panes stand, what each key does, and what is asked for when.

It holds the trail of places, from all racks down to an evidence bundle; Esc goes one back. What an answer says goes
into the `Fleet`, what is shown comes out of the panes and pages; here both meet textual.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.message import Message

from hbagent.cli.answers import Row, row, word
from hbagent.cli.grid import Cell, Screen, clean
from hbagent.cli.incidents import silence_note, silence_sentence
from hbagent.cli.pieces import age
from hbagent.cli.query import Asker
from hbagent.core.bundles import BUNDLE_TIME_NS
from hbagent.core.names import rack_of, short_of
from hbagent.core.states import RackState
from hbagent.core.units import SECOND, parse_duration

from .lines import Line, Spans, Target, fitted, plain, tone_of, word_of
from .model import Fleet
from .pages import (
    brief_lines,
    bundles_of,
    evidence_lines,
    help_lines,
    incident_lines,
    node_lines,
    rack_lines,
    silence_lines,
)
from .panes import Incidents, Listing, Page, Problems, why
from .racks import RackGrid
from .widgets import Bar, Dialog, Pane

#: The line with the age is drawn anew this often.
TICK_S = 0.5
#: A node's story is asked for again this often while it is looked at.
STORY_S = 2.0
#: How long a line about what came of an order stays.
SAID_S = 8.0
#: What a silence lasts unless somebody says otherwise.
SILENCE_DEFAULT = "2h"

_KEYS = "Enter open  Esc back  / filter  : jump  s silence  a acknowledge  ? help  q end"


class Source(Protocol):
    """Whom the console asks; `feed.Feed` is one."""

    def start(self) -> None:
        """Begin to tell."""

    def close(self) -> None:
        """End."""

    def ask_now(self) -> None:
        """Tell at once."""

    def run(
        self, errand: Callable[[Asker], Any], told: Callable[[Row | None, str], None], patience_ns: int = 0
    ) -> None:
        """Ask one thing."""


class _Place(msgspec.Struct):
    """One place of the trail, and what was answered about it."""

    target: Target
    page: Page
    document: Row | None = None
    #: Why there is none.
    why: str = ""
    asked_at: float = 0.0
    waits: bool = False


class _Told(Message):
    """Something was answered, or nobody answered."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act


class Console(App[None]):
    """The application. `source` is made with what is to be called for each answer to "cells"; `seen` is told the names
    of all nodes now and then."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #head, #crumbs, #said, #keys { height: 1; }
    #overview, #page { height: 1fr; }
    #racks { width: 2fr; margin-right: 1; }
    #right { width: 3fr; }
    #problems { height: 2fr; }
    #incidents { height: 1fr; }
    #page { display: none; }
    Dialog { align: center middle; background: transparent; }
    #dialog { width: 76; max-width: 100%; height: auto; border: round ansi_default; padding: 0 1; }
    .ascii #dialog { border: ascii ansi_default; }
    #dialog Static { background: ansi_default; color: ansi_default; }
    #dialog Input { background: ansi_default; color: ansi_default; text-style: underline; }
    #dialog .title { text-style: bold; }
    #dialog .hint { text-style: dim; }
    #dialog #wrong { text-style: bold; }
    """
    # All with priority: they are then obeyed in the order in which they are typed, and "down, s" never silences what
    # was chosen before.
    BINDINGS = [
        Binding(keys, action, show=False, priority=True)
        for keys, action in (
            ("ctrl+c,ctrl+q", "end"),
            ("q", "quit"),
            ("tab", "focus_next"),
            ("shift+tab", "focus_previous"),
            ("question_mark", "help"),
            ("slash", "filter"),
            ("colon,g", "jump"),
            ("escape,backspace", "leave"),
            ("o", "order"),
            ("s", "silence(False)"),
            ("m", "silence(True)"),
            ("a", "acknowledge"),
            ("u", "unsilence"),
            ("S", "silences"),
            ("e", "evidence"),
            ("r", "ask_now"),
        )
    ]

    def __init__(
        self,
        source: Callable[[Callable[[Row | None, str], None]], Source],
        screen: Screen,
        clock: Callable[[], float] = time.monotonic,
        seen: Callable[[Iterable[str]], None] = lambda names: None,
    ) -> None:
        super().__init__(ansi_color=True)
        self.fleet = Fleet()
        self.shown = screen
        self._clock = clock
        self._seen = seen
        self._source = source(self._heard)
        self._grid = RackGrid(screen)
        self._problems = Problems(screen)
        self._incidents = Incidents(screen)
        self._bars = {name: Bar(screen, name) for name in ("head", "crumbs", "said", "keys")}
        self._panes = {name: Pane(listing, screen, name) for name, listing in self._overview().items()}
        self._page = Pane(Page(screen, ""), screen, "page")
        self._both = Horizontal(id="overview")
        self._trail: list[_Place] = []
        self._said: Spans = []
        self._said_at = 0.0
        self._drawn = (-1, "")

    def compose(self) -> ComposeResult:
        """Two lines above, the panes, two lines below."""
        yield self._bars["head"]
        yield self._bars["crumbs"]
        with self._both:
            yield self._panes["racks"]
            with Vertical(id="right"):
                yield self._panes["problems"]
                yield self._panes["incidents"]
        yield self._page
        yield self._bars["said"]
        yield self._bars["keys"]

    def on_mount(self) -> None:
        """Begin to ask."""
        self._bars["keys"].say([Cell(f" {_KEYS}", "dim")])
        self._panes["problems"].focus()
        self._draw()
        self.set_interval(TICK_S, self._tick)
        self._source.start()

    def on_unmount(self) -> None:
        """Ask no more."""
        self._source.close()

    # ---- what is answered --------------------------------------------------------------------------------

    def _heard(self, answer: Row | None, why: str) -> None:
        """In a thread of the source."""
        self.post_message(_Told(lambda: self.take(answer, why)))

    def on__told(self, message: _Told) -> None:
        """In the thread of the console."""
        message.act()

    def take(self, answer: Row | None, why: str = "") -> None:
        """An answer to "cells", or why there is none."""
        if not self.screen_stack:
            return
        if answer is None:
            self.fleet.lost = why
        else:
            self.fleet.take(answer, self._clock())
            if answer.get("whole"):
                self._seen(self.fleet.hosts)
        self._draw()

    def _tick(self) -> None:
        if not self.screen_stack:
            return  # it is being taken down
        self._ask_for_place()
        self._draw_bars()
        if self.fleet.stale(self._clock()) != self._drawn[1]:
            self._draw()

    # ---- drawing -----------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Hand the panes what changed."""
        fleet, now = self.fleet, self._clock()
        stale = fleet.stale(now)
        if fleet.changes != self._drawn[0]:
            self._grid.site = self._problems.site = fleet.site()
            self._grid.show(fleet.by_rack())
            self._incidents.show(fleet.open_incidents())
            problems = fleet.problems()
            self._problems.show(problems)
            self._problems.longest = max((len(host.name) for host in problems), default=0) - len(fleet.site())
            self._problems.sort = fleet.sort
            self._problems.total = sum(fleet.counts().values())
        self._drawn = (fleet.changes, stale)
        self._grid.old = frozenset(rack.name for rack in fleet.racks.values() if fleet.is_old(rack, now))
        self._problems.told = self._incidents.told = fleet.answered is not None
        # What stands still ages no more.
        self._problems.now = now if not stale else (fleet.answered or now)
        self._problems.at = word(fleet.root, "at")
        if self._trail:
            self._draw_place(self._trail[-1], bool(stale))
        else:
            for name, listing in self._overview().items():
                self._panes[name].show(listing, bool(stale))
        self._draw_bars()

    def _overview(self) -> dict[str, Listing]:
        return {"racks": self._grid, "problems": self._problems, "incidents": self._incidents}

    def _draw_place(self, place: _Place, stale: bool) -> None:
        pane = self._page
        place.page.show(self._lines_of(place, max(20, self.size.width - 1)))
        pane.show(place.page, stale)

    def _lines_of(self, place: _Place, width: int) -> list[Line]:
        fleet, screen = self.fleet, self.shown
        kind, name, _ = place.target
        if kind == "help":
            return help_lines(width, screen)
        if kind == "silences":
            return silence_lines(fleet, width, screen)
        if kind == "rack" and name in fleet.racks:
            return rack_lines(fleet, fleet.racks[name], width, screen)
        incident = fleet.incident(name) if kind == "incident" else None
        if incident is not None:
            return incident_lines(incident, word(fleet.root, "at"), width, screen)
        if kind == "node" and place.document is not None:
            return node_lines(place.document, fleet, width, screen)
        if kind == "bundle" and place.document is not None:
            return evidence_lines(place.document, width, screen)
        why = place.why or ("it is asked for" if kind in ("node", "bundle") else "it is known no more")
        if kind == "node" and name in fleet.hosts:
            return brief_lines(fleet.hosts[name], why, fleet, width, screen)
        return [Line([Cell(clean(why, screen), "dim")])]

    def _draw_bars(self) -> None:
        width = self.size.width
        now = self._clock()
        self._bars["head"].say(self._head(now, width))
        self._bars["crumbs"].say(self._crumbs(width))
        if self._said and now - self._said_at < SAID_S:
            self._bars["said"].say(self._said)
        else:
            self._bars["said"].say(self._chosen(width))

    def _head(self, now: float, width: int) -> Spans:
        """What is wrong, and how old that is; when it is old, that first."""
        fleet, screen = self.fleet, self.shown
        old = fleet.age_s(now)
        stale = fleet.stale(now)
        told = f"data {age(old)} old" if old is not None else "no data"
        few = fleet.old_racks(now)
        if few and not stale:
            told += f", {few} rack{'s' * (few != 1)} older"
        if stale:
            text = f" {'NO DATA' if old is None else f'OLD DATA, {age(old)} old'}: {clean(stale, screen)} "
            return fitted([Cell(text, "alarm")], width, screen)
        counts = fleet.counts()
        parts: Spans = []
        for trouble, count in counts.items():
            parts += [Cell(", " if parts else " "), Cell(f"{count} {trouble}", tone_of(trouble))]
        total = len(fleet.hosts)
        parts.append(Cell(f" of {total} nodes" if parts else f" all {total} nodes ALIVE", "" if parts else "good"))
        bad = [
            rack for rack in fleet.racks.values() if rack.state not in (RackState.OK.value, RackState.DEGRADED.value)
        ]
        if bad:
            parts.append(Cell(f"; {len(bad)} of {len(fleet.racks)} racks {bad[0].state}", "bad"))
        left = fitted(parts, max(0, width - len(told) - 2), screen)
        return [*left, Cell(" " * (width - len(plain(left)) - len(told) - 1)), Cell(told, "dim")]

    def _crumbs(self, width: int) -> Spans:
        """Where one is, who answers, and what is filtered."""
        screen = self.shown
        arrow = " › " if screen.unicode else " > "
        names = ["all racks", *(clean(_crumb(place.target), screen) for place in self._trail)]
        root = self.fleet.root
        who = f"{word(root, 'role')} {word(root, 'name')}".strip()
        stands_in = " stands in" if word(root, "role") == "leader" else ""
        left = fitted([Cell(f" {arrow.join(names)}", "bold")], width, screen)
        filtered = f"  filter: {clean(self.fleet.filter, screen)}" if self.fleet.filter else ""
        right = f"{clean(who, screen)}{stands_in} "
        room = width - len(plain(left)) - len(right)
        middle = fitted([Cell(filtered, "warn")], max(0, room), screen)
        return fitted([*left, *middle, Cell(" " * (room - len(plain(middle)))), Cell(right, "dim")], width, screen)

    def _chosen(self, width: int) -> Spans:
        """In words what the cursor stands on: a cell of the grid has no name."""
        target = self._target()
        if target is None:
            return []
        host = self.fleet.hosts.get(target.name) if target.kind == "node" else None
        if host is not None:
            name, rest = clean(host.name, self.shown), clean(why(host), self.shown)
            told = "" if rest == "-" else f": {rest}"
            return fitted([Cell(f" {name} "), word_of(host, self.shown), Cell(told)], width, self.shown)
        if target.kind not in ("node", "rack", "incident", "silence"):
            return []
        rack = self.fleet.racks.get(target.name) if target.kind == "rack" else None
        state = f" is {rack.state}" if rack is not None else ""
        return fitted([Cell(f" {target.kind} {clean(target.name, self.shown)}{state}")], width, self.shown)

    def say(self, text: str, tone: str = "") -> None:
        """Show a line for some seconds."""
        self._said = fitted([Cell(f" {clean(text, self.shown)}", tone)], self.size.width, self.shown)
        self._said_at = self._clock()
        self._draw_bars()

    # ---- places ------------------------------------------------------------------------------------------

    def go(self, target: Target) -> None:
        """Look closer."""
        if self._trail and self._trail[-1].target == target:
            return
        self._trail.append(_Place(target, Page(self.shown, target.name if target.kind == "node" else _crumb(target))))
        self._arrive()

    def action_leave(self) -> None:
        """One place back; at the overview, the filter goes."""
        if self._trail:
            self._trail.pop()
            self._arrive()
        elif self.fleet.filter:
            self.fleet.narrow("")
            self._draw()

    def _arrive(self) -> None:
        away = bool(self._trail)
        page = self._page
        self._both.display, page.display = not away, away
        (page if away else self._panes["problems"]).focus()
        self._ask_for_place()
        self._drawn = (-1, self._drawn[1])
        self._draw()

    def _target(self) -> Target | None:
        """What is chosen; on a page, what the page is about unless its line leads on."""
        focused = self.focused
        chosen = focused.listing.target() if isinstance(focused, Pane) else None
        return chosen or (self._trail[-1].target if self._trail else None)

    def _ask_for_place(self) -> None:
        """Have the story of the node told again, or a bundle fetched."""
        if not self._trail:
            return
        place = self._trail[-1]
        kind, name, app = place.target
        again = kind == "node" and self._clock() - place.asked_at >= STORY_S
        if kind not in ("node", "bundle") or place.waits or (place.asked_at and not again):
            return
        place.waits, place.asked_at = True, self._clock()

        def errand(asker: Asker) -> Any:
            if kind == "node":
                return asker.ask("explain", node=name)
            node, _, bundle = name.rpartition(" ")
            return asker.ask("evidence", node=node, app=app, bundle=bundle)

        def told(answer: Row | None, why: str) -> None:
            place.waits = False
            if answer is not None:
                place.document = answer
            place.why = why
            if self._trail and self._trail[-1] is place:
                self._draw()

        patience_ns = BUNDLE_TIME_NS + 2 * SECOND if kind == "bundle" else 0
        self._source.run(errand, lambda answer, why: self._post(lambda: told(answer, why)), patience_ns)

    def _post(self, act: Callable[[], None]) -> None:
        self.post_message(_Told(act))

    def on_pane_opened(self, message: Pane.Opened) -> None:
        """Enter."""
        target = message.target
        if target.kind == "bundle" and self._trail:
            target = Target("bundle", f"{self._trail[-1].target.name} {target.name}", target.app)
        if target.kind != "silence":
            self.go(target)

    def on_pane_moved(self) -> None:
        """The line below tells what is chosen."""
        self._said = []
        self._draw_bars()

    def on_resize(self, event: events.Resize) -> None:
        """Pages are wrapped to the width."""
        self._drawn = (-1, self._drawn[1])
        self.call_after_refresh(self._draw)

    # ---- keys --------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a dialog is open, keys are letters of its texts."""
        return action == "end" or not isinstance(self.screen, Dialog)

    def action_end(self) -> None:
        """Quit, from anywhere."""
        self.exit()

    def action_help(self) -> None:
        """The keys."""
        self.go(Target("help", "help"))

    def action_silences(self) -> None:
        """Silences and maintenances."""
        self.go(Target("silences", "silences"))

    def action_ask_now(self) -> None:
        """Do not wait for the next second."""
        self._source.ask_now()

    def action_order(self) -> None:
        """Problems in another order."""
        self.fleet.sort_next()
        self._draw()

    def action_evidence(self) -> None:
        """The newest bundle of the node that is looked at."""
        place = self._trail[-1] if self._trail else None
        found = bundles_of(place.document) if place is not None and place.document is not None else []
        if place is None or place.target.kind != "node" or not found:
            self.say("there is no evidence here; open a node with a stuck application first", "warn")
            return
        self.go(Target("bundle", f"{place.target.name} {found[0].name}", found[0].app))

    async def action_filter(self) -> None:
        """Show less."""
        before = self.fleet.filter

        def narrow(text: str) -> None:
            self.fleet.narrow(text)
            self._draw()

        def done(values: list[str] | None) -> None:
            narrow(before if values is None else values[0])

        await self._dialog("Filter", [("words of a name, state, cause or text", before)], done, changed=narrow)

    async def action_jump(self) -> None:
        """Go to a node."""

        def wrong(values: list[str]) -> str:
            return "" if self.fleet.find(values[0]) else "no node is called that"

        def done(values: list[str] | None) -> None:
            if values is not None:
                name = self.fleet.find(values[0])
                self._grid.choose(Target("node", name))
                self.go(Target("node", name))

        await self._dialog("Jump", [("a node's name, or a part of it", "")], done, wrong)

    async def action_silence(self, maintenance: bool) -> None:
        """Be told nothing of what is chosen, for a time and a reason."""
        target = self._target()
        about = self._matchers(target) if target is not None else {}
        if not about:
            self.say("choose a node, rack or incident first", "warn")
            return
        noun = "Maintenance" if maintenance else "Silence"
        what = ", ".join(f"{key[:-1]} {clean(' '.join(globs), self.shown)}" for key, globs in about.items())

        def wrong(values: list[str]) -> str:
            try:
                lasts = parse_duration(values[0])
            except ValueError as error:
                return str(error)
            if lasts <= 0:
                return "it must last some time, as in 30m or 2h"
            return "" if values[1] else "say why, for whoever wonders later"

        def done(values: list[str] | None) -> None:
            if values is not None:
                length, reason = parse_duration(values[0]), values[1]
                self._order("silence", reason=reason, maintenance=maintenance, length_ns=length, **about)

        fields = [("for how long", SILENCE_DEFAULT), ("reason", "")]
        await self._dialog(f"{noun} for {what}", fields, done, wrong)

    def _matchers(self, target: Target) -> dict[str, tuple[str, ...]]:
        if target.kind == "node":
            return {"nodes": (target.name,)}
        if target.kind == "rack":
            return {"racks": (target.name,)}
        incident = self.fleet.incident(target.name) if target.kind == "incident" else None
        if incident is None or not word(incident, "rack"):
            return {}
        cause = word(incident, "cause")
        return {"racks": (word(incident, "rack"),), **({"causes": (cause,)} if cause else {})}

    def action_unsilence(self) -> None:
        """End a silence."""
        target = self._target()
        if target is None or target.kind != "silence":
            self.say("choose a silence first: S lists them", "warn")
            return
        self._order("unsilence", target=target.name)

    async def action_acknowledge(self) -> None:
        """Say that somebody knows."""
        name = self._incident_of(self._target())
        if not name:
            self.say("there is no incident to acknowledge here", "warn")
            return

        def wrong(values: list[str]) -> str:
            return "" if values[0] else "say what is being done, for whoever wonders later"

        def done(values: list[str] | None) -> None:
            if values is not None:
                self._order("ack", target=name, reason=values[0])

        await self._dialog(f"Acknowledge {clean(name, self.shown)}", [("comment", "")], done, wrong)

    def _incident_of(self, target: Target | None) -> str:
        if target is None:
            return ""
        if target.kind == "incident":
            return target.name
        for incident in self.fleet.incidents:
            members = incident.get("members")
            if isinstance(members, list) and target.name in members:
                return word(incident, "incident")
        rack = rack_of(target.name) if target.kind == "node" else target.name
        return next((word(one, "incident") for one in self.fleet.incidents if word(one, "rack") == rack), "")

    def _order(self, what: str, **fields: Any) -> None:
        def told(answer: Row | None, why: str) -> None:
            if answer is None:
                self.say(why, "bad")
            else:
                said = _done(what, answer, word(self.fleet.root, "at"), self.shown)
                note = silence_note(answer, self.shown)
                self.say(f"{note} ({said})" if note else said, "warn" if note else "good")
            self._source.ask_now()

        self.say(f"{what} is sent")
        self._source.run(
            lambda asker: asker.order(what, **fields), lambda answer, why: self._post(lambda: told(answer, why))
        )

    async def _dialog(
        self,
        title: str,
        fields: list[tuple[str, str]],
        done: Callable[[list[str] | None], None],
        wrong: Callable[[list[str]], str] = lambda values: "",
        changed: Callable[[str], None] | None = None,
    ) -> None:
        # Keys that are typed ahead wait until it is there.
        await self.push_screen(Dialog(title, fields, not self.shown.unicode, wrong, changed), done)


def _crumb(target: Target) -> str:
    if target.kind == "bundle":
        return f"evidence of {target.app or 'its applications'}"
    return short_of(target.name) if target.kind == "node" else target.name


def _done(what: str, answer: Row, at: str, screen: Screen) -> str:
    """What an order came to, in words."""
    silence, incident = row(answer, "silence"), row(answer, "incident")
    if silence:
        return f"ended: {word(silence, 'silence')}" if what == "unsilence" else silence_sentence(silence, at, screen)
    return f"{word(incident, 'incident')} is acknowledged" if incident else f"{what}: done"
