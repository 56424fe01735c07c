"""A reader who applies every change has what the root shows, whatever it was that changed."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hbagent.core.config import RackConfig
from hbagent.core.messages import NodeReport, ProbeResult, Query, RackReports, Reconfigured, Report, Transitions
from hbagent.core.names import short_of
from hbagent.core.rootviews import brief_view, cells_view, status_view
from hbagent.core.states import Cause, Health, Liveness
from hbagent.core.views import Cell, CellsView, StatusView
from tests.build import EPOCH, INCARNATION, T, became, root_config, root_core, row, summary, transition, transitions

RACKS = ("dc1/r1", "dc1/r2")


class Site:
    """Two racks of three nodes; `dc1/r2` has two leaders."""

    def __init__(self, nodes: int = 3, racks: tuple[str, ...] = RACKS) -> None:
        self.nodes = nodes
        self.racks = tuple(
            RackConfig(name=rack, leaders=(f"{rack}-l1", f"{rack}-l2") if rack.endswith("2") else (f"{rack}-l1",))
            for rack in racks
        )
        self.config = root_config(racks=self.racks)
        self.core = root_core(racks=self.racks)
        self.now = 0
        self.quiet: dict[str, None] = {}
        self.markings: dict[str, tuple[str, bool]] = {}
        self._numbers: dict[str, int] = {}
        self._transitions: dict[str, int] = {}
        self._reports = 0

    def leaders(self) -> list[str]:
        return [leader for rack in self.racks for leader in rack.leaders]

    def run(self, length_ns: int) -> None:
        """Time passes, with a summary of each leader that is not quiet each second."""
        end = self.now + length_ns
        while self.now < end:
            due = self.core.deadline()
            self.now = min(end, self.now + T(1), max(self.now, due if due is not None else end))
            self.core.wake(self.now)
            if self.now % T(1) == 0:
                self.summarise()

    def summarise(self) -> None:
        for leader in self.leaders():
            if leader not in self.quiet:
                rows = [row(f"n{number}", version=0) for number in range(self.nodes)]
                number = self._numbers[leader] = self._numbers.get(leader, 0) + 1
                fields: dict[str, Any] = {"rack": leader[:-3], "newest": self._transitions.get(leader, 0)}
                said = summary(number, *rows, **fields)
                if number == 1:
                    self.core.receive(leader, said, self.now)
                self.core.receive(
                    leader, msgspec.structs.replace(said, nodes=() if number > 1 else said.nodes), self.now
                )

    def tell(self, leader: str, after: Liveness, node: str, **fields: int) -> None:
        """A verdict of this leader."""
        number = self._transitions[leader] = self._transitions.get(leader, 0) + 1
        fields = {"sequence": 10 + number, **fields}
        item = transition(number, after, Liveness.SUSPECT, f"{leader[:-3]}/{node}", **fields)
        self.core.receive(leader, Transitions(epoch=EPOCH, base=1, after=number - 1, items=(item,)), self.now)

    def sicken(self, leader: str, health: Health, node: str) -> None:
        """A report of the node, and the leader's word on it."""
        self._reports += 1
        probe = ProbeResult(name="disk", health=health, text=f"{self._reports} % full")
        said = Report(incarnation=INCARNATION, number=self._reports, health=health, probes=(probe,))
        reports = (NodeReport(node=node, report=said),)
        self.core.receive(leader, RackReports(rack=leader[:-3], epoch=EPOCH, reports=reports), self.now)
        number = self._transitions[leader] = self._transitions.get(leader, 0) + 1
        item = became(number, health, report=self._reports, node=f"{leader[:-3]}/{node}")
        self.core.receive(leader, transitions(item, base=1), self.now)

    def ask(self, after: int = 0, life: str = "") -> CellsView:
        query = Query(id=1, what="cells", after=after, life=life)
        return cells_view(self.core, self.config, query, self.now, dict(self.markings), [], [])


class Reader:
    """Somebody who asks for changes only."""

    def __init__(self) -> None:
        self.life = ""
        self.version = 0
        self.board: dict[str, Cell] = {}

    def ask(self, site: Site) -> CellsView:
        view = site.ask(self.version, self.life)
        if view.whole:
            self.board.clear()
        self.board.update((cell.node, cell) for cell in view.cells)
        for node in view.gone:
            del self.board[node]
        self.life, self.version = view.life, view.version
        return view


def ageless(cells: list[Cell]) -> dict[str, Cell]:
    return {cell.node: msgspec.structs.replace(cell, age_s=None) for cell in cells}


def verify(site: Site, reader: Reader) -> None:
    """What the reader has is what is there: by a new reader's word, and by that of `hbagent status`."""
    reader.ask(site)
    board, everything = ageless(list(reader.board.values())), site.ask()
    assert everything.whole
    assert board == ageless(everything.cells)
    status = status_view(site.core, site.config, site.now)
    shown = {node.node: (node.liveness, node.cause, node.health, node.since) for node in status.nodes}
    assert {cell.node: (cell.liveness, cell.cause, cell.health, cell.since) for cell in board.values()} == shown
    assert everything.racks == status.racks
    verify_brief(site, status)
    assert {node: (cell.covered, cell.flapping) for node, cell in board.items() if cell.covered or cell.flapping} == {
        node: marking for node, marking in site.markings.items() if node in board
    }


def verify_brief(site: Site, status: StatusView) -> None:
    """In brief, nodes of which there is something to tell are told in full, and the others are counted."""
    brief = brief_view(site.core, site.config, site.now, dict(site.markings))
    assert (brief.root, brief.racks, brief.incidents) == (status.root, status.racks, status.incidents)
    assert sum(count for rack in brief.racks for count in rack.counts.values()) == len(status.nodes)
    assert brief.nodes == [
        node
        for node in status.nodes
        if (node.liveness, node.health, node.cause) != (Liveness.ALIVE, Health.OK, None) or node.node in site.markings
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("quiet"), st.integers(0, 2)),
        st.tuples(st.just("tell"), st.integers(0, 2), st.sampled_from(list(Liveness)), st.integers(0, 2)),
        st.tuples(st.just("sicken"), st.integers(0, 2), st.sampled_from(list(Health)), st.integers(0, 2)),
        st.tuples(st.just("mark"), st.integers(0, 2), st.sampled_from(["", "silence", "maintenance"]), st.booleans()),
        st.tuples(st.just("racks"), st.integers(1, 2)),
        st.tuples(st.just("skip")),
    ),
    max_size=12,
)


# A rack is taken out of the config while one of its nodes is in doubt between two leaders.
@example([("tell", 1, Liveness.DEAD, 0), ("wait", 1), ("racks", 1), ("wait", 1)])
@settings(max_examples=60)
@given(STEPS)
def test_a_reader_who_applies_every_change_has_what_is_shown(steps: list[tuple[Any, ...]]) -> None:
    site, reader = Site(), Reader()
    site.run(T(1))
    verify(site, reader)
    skipping = False
    for step in steps:
        leaders = site.leaders()
        match step:
            case ("wait", length):
                site.run(T(length))
            case ("quiet", number):
                leader = leaders[number % len(leaders)]
                if leader in site.quiet:
                    del site.quiet[leader]
                else:
                    site.quiet[leader] = None
            case ("tell", number, liveness, node):
                site.tell(leaders[number % len(leaders)], liveness, f"n{node}")
            case ("sicken", number, health, node):
                site.sicken(leaders[number % len(leaders)], health, f"n{node}")
            case ("mark", number, covered, flapping):
                marking = (covered, flapping)
                site.markings[f"dc1/r1/n{number}"] = marking
                if marking == ("", False):
                    del site.markings[f"dc1/r1/n{number}"]
            case ("racks", count):
                site.racks = Site().racks[:count]
                site.config = root_config(racks=site.racks)
                site.core.receive("", Reconfigured(site.config), site.now)
        skipping = step == ("skip",)
        if not skipping:
            verify(site, reader)


def test_a_lease_that_lapses_hides_its_rack_without_any_verdict() -> None:
    site, reader = Site(), Reader()
    site.run(T(2))
    verify(site, reader)
    assert {cell.liveness for cell in reader.board.values()} == {Liveness.ALIVE}
    site.quiet["dc1/r1-l1"] = None
    site.run(T(20))
    view = reader.ask(site)
    assert {(cell.node[:6], cell.liveness, cell.cause) for cell in view.cells} == {
        ("dc1/r1", Liveness.UNKNOWN, Cause.LEADER_LOST.value)
    }
    assert not view.whole


def test_where_nothing_changes_nothing_is_said() -> None:
    site, reader = Site(), Reader()
    site.run(T(2))
    reader.ask(site)
    site.run(T(5))
    assert reader.ask(site).cells == []


def test_a_report_that_says_the_same_is_no_change() -> None:
    site, reader = Site(), Reader()
    site.run(T(2))
    site.sicken("dc1/r1-l1", Health.OK, "n1")
    reader.ask(site)
    site.sicken("dc1/r1-l1", Health.OK, "n1")
    assert reader.ask(site).cells == []
    site.sicken("dc1/r1-l1", Health.CRITICAL, "n1")
    assert [(short_of(cell.node), cell.text) for cell in reader.ask(site).cells] == [("n1", "disk: 3 % full")]
    site.sicken("dc1/r1-l1", Health.CRITICAL, "n1")
    assert [(short_of(cell.node), cell.text) for cell in reader.ask(site).cells] == [("n1", "disk: 4 % full")]


def test_a_verdict_at_the_instant_of_the_one_before_is_a_change() -> None:
    site, reader = Site(), Reader()
    site.run(T(2))
    site.tell("dc1/r1-l1", Liveness.SUSPECT, "n1", at_wall_ns=1)
    verify(site, reader)
    site.tell("dc1/r1-l1", Liveness.DEAD, "n1", at_wall_ns=1)
    assert [cell.liveness for cell in reader.ask(site).cells] == [Liveness.DEAD]


def test_a_health_that_is_told_without_a_report_is_a_change() -> None:
    site, reader = Site(), Reader()
    site.run(T(2))
    reader.ask(site)
    site.core.receive("dc1/r1-l1", transitions(became(1, Health.CRITICAL, node="dc1/r1/n1")), site.now)
    assert [(cell.health, cell.text) for cell in reader.ask(site).cells] == [(Health.CRITICAL, "")]


def test_ages_are_those_of_the_answer() -> None:
    site = Site()
    site.run(T(2))
    before = {cell.node: cell.age_s for cell in site.ask().cells}
    site.now += T(1)
    assert {cell.node: round((cell.age_s or 0) - 1, 3) for cell in site.ask().cells} == before


@pytest.mark.slow
def test_a_tick_of_ten_thousand_nodes_costs_a_fraction_of_telling_them_all() -> None:
    site = Site(nodes=1_000, racks=tuple(f"dc1/r{number}" for number in range(10)))
    site.run(T(2))
    whole, took = [], []
    # The least of several, for a machine may stand still in one of them.
    for _ in range(5):
        reader = Reader()
        begun = time.process_time_ns()
        assert len(reader.ask(site).cells) == 10_000
        whole.append(time.process_time_ns() - begun)
    for _ in range(20):
        begun = time.process_time_ns()
        reader.ask(site)
        took.append(time.process_time_ns() - begun)
    assert min(took) < min(whole) / 5
