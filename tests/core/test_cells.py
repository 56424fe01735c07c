"""Whoever takes in every change has what is there; who missed too much is given all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.cells import TEXT_LENGTH_MAX, Cells, health_line
from hbagent.core.messages import AppRow, ProbeResult, Query, Report
from hbagent.core.states import AppState, Health, Liveness
from hbagent.core.views import Cell
from tests.build import INCARNATION

ALIVE, DEAD = Liveness.ALIVE, Liveness.DEAD


def cell(node: str, liveness: Liveness = ALIVE) -> Cell:
    return Cell(node, liveness, None, Health.OK, "", None)


def ask(after: int = 0, life: str = "") -> Query:
    return Query(id=1, what="cells", after=after, life=life)


def age_s(node: str) -> float | None:
    return 2.5


def test_a_reader_who_knows_nothing_is_given_everything_with_its_age() -> None:
    cells = Cells(7)
    cells.put(cell("a"))
    cells.put(cell("b"))
    delta = cells.since(ask(), age_s)
    assert (delta.whole, [(one.node, one.age_s) for one in delta.cells]) == (True, [("a", 2.5), ("b", 2.5)])


def test_a_reader_who_comes_back_is_given_what_changed() -> None:
    cells = Cells(7)
    for node in "abc":
        cells.put(cell(node))
    known = cells.version
    cells.put(cell("a", DEAD))
    cells.remove("b")
    delta = cells.since(ask(known, cells.life), age_s)
    assert (delta.whole, [one.node for one in delta.cells], delta.gone) == (False, ["a"], ["b"])
    assert cells.since(ask(cells.version, cells.life), age_s).cells == []


def test_a_node_that_is_back_is_not_gone() -> None:
    cells = Cells(7)
    cells.put(cell("a"))
    known = cells.version
    cells.remove("a")
    cells.put(cell("a", DEAD))
    delta = cells.since(ask(known, cells.life), age_s)
    assert ([one.liveness for one in delta.cells], delta.gone) == ([DEAD], [])


def test_a_version_of_another_life_or_from_the_future_means_nothing() -> None:
    cells = Cells(7)
    cells.put(cell("a"))
    assert cells.since(ask(1, Cells(8).life), age_s).whole
    assert cells.since(ask(2, cells.life), age_s).whole


def test_a_reader_who_missed_more_leavings_than_are_remembered_is_given_everything() -> None:
    cells = Cells(7, gone_max=2)
    for node in "abcd":
        cells.put(cell(node))
    known = cells.version
    for node in "ab":
        cells.remove(node)
    assert cells.since(ask(known, cells.life), age_s).gone == ["a", "b"]
    cells.remove("c")
    assert cells.since(ask(known, cells.life), age_s).whole
    assert cells.since(ask(known + 1, cells.life), age_s).gone == ["b", "c"]


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from([ALIVE, DEAD, None]), st.integers(0, 3)), max_size=40
)


@given(CHANGES)
def test_readers_who_ask_now_and_then_have_what_is_there(changes: list[tuple[str, Liveness | None, int]]) -> None:
    cells = Cells(7, gone_max=3)
    boards: list[dict[str, Cell]] = [{}, {}]
    known = [0, 0]
    for node, liveness, reader in changes:
        if liveness is None:
            cells.remove(node)
        else:
            cells.put(cell(node, liveness))
        if reader < len(boards):
            delta = cells.since(ask(known[reader], cells.life if known[reader] else ""), lambda node: None)
            if delta.whole:
                boards[reader].clear()
            boards[reader].update((one.node, one) for one in delta.cells)
            for gone in delta.gone:
                boards[reader].pop(gone, None)
            known[reader] = cells.version
            everything = cells.since(ask(), lambda node: None)
            assert boards[reader] == {one.node: one for one in everything.cells}


# ---- the worst in a line ---------------------------------------------------------------------------------


def report(health: Health, *probes: ProbeResult, apps: tuple[AppRow, ...] = ()) -> Report:
    return Report(incarnation=INCARNATION, number=1, health=health, probes=probes, apps=apps)


def probe(name: str, health: Health, text: str = "") -> ProbeResult:
    return ProbeResult(name=name, health=health, text=text)


def test_the_worst_part_is_named() -> None:
    shop = AppRow(name="shop", health=Health.DEADLOCKED, state=AppState.STUCK, text="two threads wait for each other")
    said = report(Health.DEADLOCKED, probe("disk", Health.WARNING, "91 %"), probe("cpu", Health.OK), apps=(shop,))
    assert health_line(Health.DEADLOCKED, ALIVE, said) == "shop: two threads wait for each other"
    assert health_line(Health.WARNING, ALIVE, report(Health.WARNING, probe("disk", Health.WARNING))) == "disk: WARNING"


def test_of_a_node_that_is_well_or_that_nobody_reaches_nothing_is_said() -> None:
    bad = report(Health.CRITICAL, probe("disk", Health.CRITICAL, "full"))
    assert health_line(Health.OK, ALIVE, bad) == ""
    assert health_line(Health.CRITICAL, DEAD, bad) == ""
    assert health_line(Health.CRITICAL, ALIVE, None) == ""
    assert health_line(Health.CRITICAL, ALIVE, report(Health.OK)) == ""


def test_a_report_that_looks_better_than_its_node_is_that_of_a_prober_that_does_not_move() -> None:
    assert "prober" in health_line(Health.STALLED, ALIVE, report(Health.OK, probe("disk", Health.WARNING)))
    assert health_line(Health.STALLED, ALIVE, report(Health.OK, probe("web", Health.STALLED, "hangs"))) == "web: hangs"


def test_a_long_text_is_cut() -> None:
    line = health_line(Health.CRITICAL, ALIVE, report(Health.CRITICAL, probe("disk", Health.CRITICAL, "x" * 9_000)))
    assert (len(line), line[-1]) == (TEXT_LENGTH_MAX, "…")
