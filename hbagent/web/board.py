"""What the first page shows, folded from answers to `cells`: and what of it an answer has changed. Pure.

The core sends the cells that changed and, each time, all racks, incidents and silences. A page is told less: a rack, a
table or the headline is sent again only when it would read differently. What grows by itself (ages) is therefore shown
as the time it began, and only where it is trouble in whole seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec

from hbagent.core.names import rack_of, short_of
from hbagent.core.states import Liveness
from hbagent.core.views import Cell, CellsView, IncidentView, LeaderView, RackView, RootView, SilenceView

from .looks import LOOK, LOOKS, RANK, WELL, look_of, marked, tone_of, verdict_of
from .markup import Item, Table, clean, node_path

#: Rows of each table; who has more trouble than that reads the grid. A tick that changes a table sends it whole.
ROWS_MAX = 100
#: Leaders that are all well are named up to here.
LEADERS_SHOWN = 20
#: Members of an incident that are named.
MEMBERS_SHOWN = 5
#: A leader that has been silent for longer than two of its summaries is shown with the time.
SILENT_S = 2.5


class Spot(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One node of the grid as a page has it."""

    node: str
    look: str
    #: What is read when it is pointed at.
    title: str
    #: "covered", "flapping", both or none: classes of the style sheet.
    marks: str = ""


class Plate(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The head of a rack."""

    rack: str
    state: str
    tone: str
    #: Its nodes in numbers, and its leaders.
    nodes: str
    leaders: str


class Headline(msgspec.Struct, frozen=True):
    """The first line of the page and what stands right below it."""

    verdict: str
    tone: str
    text: str
    #: What is wrong with the root itself, a sentence each.
    warnings: list[str]


class Board:
    """The newest of everything; empty until the first `take`."""

    def __init__(self) -> None:
        self.life = ""
        self.version = 0
        self.root: RootView | None = None
        self.headline = Headline("UNKNOWN", "unknown", "nothing is known yet", [])
        self.cells: dict[str, Cell] = {}
        #: By rack, then by node, in the order of the page.
        self.spots: dict[str, dict[str, Spot]] = {}
        self.plates: dict[str, Plate] = {}
        self.racks: list[RackView] = []
        self.tables: dict[str, Table] = {}
        self.counts: Counter[str] = Counter()

    def take(self, view: CellsView) -> tuple[bool, dict[str, Any]]:
        """Fold an answer in; returns whether the page must be made anew, and what it is to be told otherwise."""
        whole = view.whole or view.life != self.life or [rack.rack for rack in view.racks] != [*self.plates]
        if view.whole:
            self.cells.clear()
            self.counts.clear()
            self.spots.clear()
        self.life, self.version, self.root, self.racks = view.life, view.version, view.root, view.racks
        changed = [self._put(cell) for cell in view.cells]
        for node in view.gone:
            self._remove(node)
        if view.whole:
            self._sort()
        for rack in view.racks:
            self.spots.setdefault(rack.rack, {})
        told: dict[str, Any] = {"at": view.root.at}
        plates = {rack.rack: _plate(rack) for rack in view.racks}
        told["racks"] = [plate for name, plate in plates.items() if plate != self.plates.get(name)]
        self.plates = plates
        told["cells"], told["gone"] = changed, view.gone
        headline = self._headline(view)
        if headline != self.headline:
            self.headline = told["headline"] = headline
        tables = {
            "incidents": incidents_table(view.incidents, view.root.at),
            "problems": self._problems(view.root.at),
            "leaders": leaders_table(view.racks),
            "silences": silences_table(view.silences, view.root.at),
        }
        told["tables"] = {name: table for name, table in tables.items() if table != self.tables.get(name)}
        self.tables = tables
        if changed or view.gone:
            told["counts"] = self.shown_counts()
        return whole, told

    def whole(self) -> dict[str, Any]:
        """Everything, in the form of what `take` returns."""
        assert self.root is not None
        return {
            "at": self.root.at,
            "headline": self.headline,
            "racks": [*self.plates.values()],
            "cells": [spot for rack in self.plates for spot in self.spots[rack].values()],
            "gone": [],
            "tables": self.tables,
            "counts": self.shown_counts(),
        }

    def shown_counts(self) -> dict[str, int]:
        """Nodes by look, every look present."""
        return {look.key: self.counts[look.key] for look in LOOKS}

    # ---- cells -------------------------------------------------------------------------------------------

    def _put(self, cell: Cell) -> Spot:
        rack = self.spots.setdefault(rack_of(cell.node), {})
        old = rack.get(cell.node)
        if old is not None:
            self.counts[old.look] -= 1
        spot = rack[cell.node] = _spot(cell)
        self.cells[cell.node] = cell
        self.counts[spot.look] += 1
        return spot

    def _remove(self, node: str) -> None:
        spot = self.spots.get(rack_of(node), {}).pop(node, None)
        if spot is not None:
            self.counts[spot.look] -= 1
        self.cells.pop(node, None)

    def _sort(self) -> None:
        for rack, spots in self.spots.items():
            self.spots[rack] = {node: spots[node] for node in sorted(spots, key=_by_number)}

    # ---- the rest of the page ----------------------------------------------------------------------------

    def _headline(self, view: CellsView) -> Headline:
        states = Counter(rack.state.value for rack in view.racks)
        verdict, tone = verdict_of(self.counts, states)
        bad = [
            f"{self.counts[look.key]:,} {look.word}" for look in LOOKS if self.counts[look.key] and look.key != "alive"
        ]
        racks = [f"{count:,} rack{'s' * (count != 1)} {state}" for state, count in states.items() if state != "OK"]
        silent = {leader.leader for rack in view.racks for leader in rack.leaders if leader.state is not Liveness.ALIVE}
        leaders = [f"{len(silent):,} leader{'s' * (len(silent) != 1)} silent"] if silent else []
        wrong = ", ".join([*bad, *racks, *leaders])
        text = f"{len(self.cells):,} nodes in {len(view.racks):,} racks: {wrong or 'all is well'}"
        return Headline(f"{marked_verdict(verdict, tone)}", tone, text, _warnings(view.root))

    def _problems(self, now: str) -> Table:
        spots = [spot for spots in self.spots.values() for spot in spots.values() if spot.look not in WELL]
        spots.sort(key=lambda spot: (RANK[spot.look], self.cells[spot.node].since))
        rows = []
        for spot in spots[:ROWS_MAX]:
            cell, look = self.cells[spot.node], LOOK[spot.look]
            rows.append(
                [
                    Item(f"{look.symbol} {look.word}", look.tone),
                    Item(cell.node, "", node_path(cell.node)),
                    Item(cell.liveness.value, tone_of(cell.liveness.value)),
                    Item(cell.health.value, tone_of(cell.health.value)),
                    Item(clean(cell.cause or "")),
                    Item(moment(cell.since, now)),
                    Item(clean(_with_marks(cell))),
                ]
            )
        return Table(rows, _note(len(spots), "Nothing is wrong with any node."))


def _spot(cell: Cell) -> Spot:
    look = look_of(cell)
    title = f"{cell.node}: {LOOK[look].word}"
    if look != "alive":
        title = f"{cell.node}: {cell.liveness.value}, {cell.health.value}"
        title += f", {cell.cause}" if cell.cause else ""
        title += f", since {cell.since}"
    text = _with_marks(cell)
    marks = " ".join(word for word, on in (("covered", cell.covered), ("flapping", cell.flapping)) if on)
    return Spot(cell.node, look, clean(f"{title}. {text}" if text else title), marks)


def _with_marks(cell: Cell) -> str:
    words = [f"({cell.covered})"] if cell.covered else []
    return " ".join([*words, *(("(flapping)",) if cell.flapping else ()), *((cell.text,) if cell.text else ())])


def _plate(rack: RackView) -> Plate:
    state = rack.state.value
    counts = [f"{count:,} {word}" for word, count in rack.counts.items() if count]
    leaders = ", ".join(
        f"{short_of(leader.leader)} {leader.cause or leader.state.value}{_silence(leader)}" for leader in rack.leaders
    )
    return Plate(clean(rack.rack), marked(state), tone_of(state), ", ".join(counts) or "no nodes", clean(leaders))


def _silence(leader: LeaderView) -> str:
    """For how long a leader has been silent, where that is too long; "" otherwise, and when it never spoke.

    In coarse steps: an exact age would be another text in each tick.
    """
    age_s = leader.age_s
    if age_s is None or age_s < SILENT_S:
        return ""
    for unit, step_s, least_s in (("h", 3600, 7200), ("min", 60, 120), ("s", 5, 5)):
        if age_s >= least_s:
            return f", silent for {int(age_s // step_s) * (5 if unit == 's' else 1)} {unit}"
    return ", silent"


def marked_verdict(verdict: str, tone: str) -> str:
    """A verdict with its symbol."""
    return f"{ {'good': '✓', 'warn': '!', 'bad': '✗'}.get(tone, '?') } {verdict}"


def _warnings(root: RootView) -> list[str]:
    said = []
    if root.isolated:
        said.append("The root hears no leader at all: nothing is known of any node.")
    if root.degraded:
        said.append(f"The store fails, so a crash may repeat notifications or lose events: {root.degraded}")
    if root.hooks_dead:
        said.append(f"{root.hooks_dead:,} notifications were given up after all retries: hbagent hooks list")
    return [clean(text) for text in said]


def incidents_table(incidents: list[IncidentView], now: str) -> Table:
    """Incidents as rows, in the order of the answer."""
    rows = []
    for incident in incidents[:ROWS_MAX]:
        tone = {"firing": "bad", "acknowledged": "warn"}.get(incident.state, "good")
        shown = ", ".join(incident.members[:MEMBERS_SHOWN])
        rest = incident.burning - min(len(incident.members), MEMBERS_SHOWN)
        about = [f"acknowledged by {incident.acked_by}: {incident.comment}"] if incident.acked_by else []
        about += [f"silenced by {', '.join(incident.silenced_by)}"] if incident.silenced_by else []
        about += [f"explained by {incident.inhibited_by}"] if incident.inhibited_by else []
        about += ["a drill"] if incident.drill else []
        symbol = {"bad": "✗", "warn": "!"}.get(tone, "✓")
        rows.append(
            [
                Item(clean(incident.incident)),
                Item(f"{symbol} {clean(incident.state)}", tone),
                Item(clean(f"{incident.kind}{f' ({incident.cause})' if incident.cause else ''}")),
                Item(clean(incident.rack)),
                Item(f"{incident.burning:,} of {incident.count:,}"),
                Item(clean(f"{shown}{f' and {rest:,} more' if rest > 0 else ''}")),
                Item(moment(incident.opened, now)),
                Item(clean("; ".join([*([incident.text] if incident.text else []), *about]))),
            ]
        )
    return Table(rows, _note(len(incidents), "No incident is open."))


def leaders_table(racks: list[RackView]) -> Table:
    """Leaders as rows: all of a few, else those with which something is wrong."""
    leaders = {leader.leader: leader for rack in racks for leader in rack.leaders}
    led = Counter(leader.leader for rack in racks for leader in rack.leaders)
    wrong = [leader for leader in leaders.values() if leader.state is not Liveness.ALIVE or leader.degraded]
    shown = [*leaders.values()] if len(leaders) <= LEADERS_SHOWN else wrong[:ROWS_MAX]
    rows = [
        [
            Item(clean(leader.leader)),
            Item(marked(leader.state.value), tone_of(leader.state.value)),
            Item(f"{led[leader.leader]:,}"),
            Item(clean(leader.version)),
            Item(clean("; ".join(filter(None, (leader.cause or "", _silence(leader)[2:], leader.degraded))))),
        ]
        for leader in shown
    ]
    held = sum(leader.state is Liveness.ALIVE for leader in leaders.values())
    return Table(rows, f"{held:,} of {len(leaders):,} leaders hold their lease.")


def silences_table(silences: list[SilenceView], now: str) -> Table:
    """Silences and maintenances that have not ended, as rows."""
    there = [silence for silence in silences if silence.state != "ended"]
    rows = []
    for silence in there[:ROWS_MAX]:
        words = (("node", silence.nodes), ("rack", silence.racks), ("cause", silence.causes), ("kind", silence.kinds))
        fits = "; ".join(f"{name} {', '.join(globs)}" for name, globs in words if globs)
        when = f"{moment(silence.begins, now)} to {moment(silence.ends, now)}"
        rows.append(
            [
                Item(clean(silence.silence)),
                Item("maintenance" if silence.maintenance else "silence"),
                Item(clean(silence.state)),
                Item(clean(fits or "everything")),
                Item(clean(f"{silence.every}, until {moment(silence.ends, now)}" if silence.every else when)),
                Item(clean(silence.author)),
                Item(clean(silence.reason)),
                Item(f"{silence.covers:,}"),
            ]
        )
    return Table(rows, _note(len(there), "Nothing is silenced."))


def moment(at: str, now: str) -> str:
    """An RFC 3339 time as short as it can be told on the day of `now`: "12:00:03Z"; "-" for one that is not known."""
    if not at or at.startswith("1970-01-01T00:00:00"):
        return "-"
    return f"{at[11:19]}Z" if at[:10] == now[:10] else clean(f"{at[:10]} {at[11:16]}Z")


def _note(count: int, nothing: str) -> str:
    if not count:
        return nothing
    return f"and {count - ROWS_MAX:,} more" if count > ROWS_MAX else ""


_DIGITS = re.compile(r"(\d{1,18})")


def _by_number(node: str) -> list[Any]:
    """node2 before node10."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _DIGITS.split(node)]
