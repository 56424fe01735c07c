"""A reader who applies every change has what the leader shows."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.effects import Answer
from hbagent.core.leader import LeaderCore
from hbagent.core.leaderviews import brief_view, status_view
from hbagent.core.messages import ProbeResult, Query, Reconfigured, Report, WallTime
from hbagent.core.states import Health, Liveness
from hbagent.core.units import HOUR
from hbagent.core.views import Cell, CellsView
from tests.build import INCARNATION, RACK, WALL_NS, T, beat, give, leader_config, leader_core
from tests.playbook import Playbook

NODES = ("n0", "n1", "n2", "n3")


class Watched:
    """A leader of four nodes, and somebody who asks it for changes only."""

    def __init__(self) -> None:
        self.core: LeaderCore = leader_core(*NODES)
        self.config = leader_config(*NODES)
        self.book = Playbook(self.core)
        self.sequence = 0
        self.life = ""
        self.version = 0
        self.board: dict[str, Cell] = {}

    def pass_on(self, seconds: int, *beating: str) -> None:
        for _ in range(seconds):
            self.book.wait(T(1))
            self.sequence += 1
            for node in beating:
                self.book.take(give(self.core, beat(self.sequence), self.book.now, f"{RACK}/{node}"))

    def answer(self, after: int = 0, life: str = "") -> CellsView:
        effects = self.core.receive("x", Query(id=1, what="cells", after=after, life=life), self.book.now)
        (answer,) = (effect for effect in effects if isinstance(effect, Answer))
        assert isinstance(answer.view, CellsView)
        return answer.view

    def ask(self) -> CellsView:
        view = self.answer(self.version, self.life)
        if view.whole:
            self.board.clear()
        self.board.update((cell.node, msgspec.structs.replace(cell, age_s=None)) for cell in view.cells)
        for node in view.gone:
            del self.board[node]
        self.life, self.version = view.life, view.version
        return view

    def verify(self) -> None:
        self.ask()
        everything = self.answer()
        assert self.board == {cell.node: msgspec.structs.replace(cell, age_s=None) for cell in everything.cells}
        status = status_view(self.core, self.config, self.book.now)
        shown = {node.node: (node.liveness, node.cause, node.health, node.since, node.age_s) for node in status.nodes}
        assert {c.node: (c.liveness, c.cause, c.health, c.since, c.age_s) for c in everything.cells} == shown
        assert everything.racks == status.racks
        brief = brief_view(self.core, self.config, self.book.now)
        assert brief.nodes == [
            node
            for node in status.nodes
            if (node.liveness, node.health, node.cause) != (Liveness.ALIVE, Health.OK, None)
        ]


def test_a_leader_tells_changes_in_the_roots_stead() -> None:
    watched = Watched()
    watched.pass_on(3, *NODES)
    first = watched.ask()
    assert (first.whole, first.root.role, len(first.cells)) == (True, "leader", 4)
    assert watched.ask().cells == []
    watched.pass_on(6, *NODES[1:])
    view = watched.ask()
    assert [(cell.node, cell.liveness, cell.age_s) for cell in view.cells] == [(f"{RACK}/n0", Liveness.DEAD, 6.0)]
    assert (view.whole, view.incidents, view.silences) == (False, [], [])


def test_a_step_of_the_wall_clock_moves_the_times_that_are_shown() -> None:
    watched = Watched()
    watched.pass_on(3, *NODES)
    watched.verify()
    watched.core.receive("", WallTime(WALL_NS + watched.book.now + HOUR), watched.book.now)
    assert len(watched.ask().cells) == 4
    watched.verify()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("beats"), st.integers(1, 7), st.lists(st.sampled_from(NODES), unique=True)),
        st.tuples(st.just("report"), st.sampled_from(NODES), st.sampled_from(list(Health))),
        st.tuples(st.just("leaves"), st.sampled_from(NODES)),
        st.tuples(st.just("nodes"), st.lists(st.sampled_from(NODES), unique=True, min_size=1)),
    ),
    max_size=10,
)


@settings(max_examples=60)
@given(STEPS)
def test_a_reader_who_applies_every_change_has_what_is_shown(steps: list[tuple[Any, ...]]) -> None:
    watched = Watched()
    watched.verify()
    reports = 0
    for step in steps:
        now = watched.book.now
        match step:
            case ("beats", seconds, nodes):
                watched.pass_on(seconds, *nodes)
            case ("report", node, health):
                reports += 1
                probe = ProbeResult(name="disk", health=health, text=f"{reports}")
                said = Report(incarnation=INCARNATION, number=reports, health=health, probes=(probe,))
                watched.core.receive(f"{RACK}/{node}", said, now)
            case ("leaves", node):
                watched.sequence += 1
                give(watched.core, beat(watched.sequence, leaving=True), now, f"{RACK}/{node}")
            case ("nodes", nodes):
                watched.config = leader_config(*nodes)
                watched.core.receive("", Reconfigured(watched.config), now)
        watched.verify()
