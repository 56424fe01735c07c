"""Lists, the grid and their cursors, without any terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.cli.grid import Cell, Screen
from hbagent.console.lines import Line, Target, columns, fitted, plain, sign, spans, wrapped
from hbagent.console.model import Fleet
from hbagent.console.panes import Page, Problems, tail
from hbagent.console.racks import RackGrid
from tests.console.telling import answer, cell, large, rack, troubled

UNICODE, ASCII = Screen(), Screen(unicode=False)


def fleet(document: dict[str, object] | None = None) -> Fleet:
    one = Fleet()
    one.take(document if document is not None else troubled(), 100.0)
    return one


def grid(one: Fleet, screen: Screen = UNICODE) -> RackGrid:
    made = RackGrid(screen)
    made.site = one.site()
    made.show(one.by_rack())
    return made


def lines(listing: RackGrid | Problems, width: int) -> list[str]:
    return [plain(listing.line(at, width)).rstrip() for at in range(listing.count(width))]


# ---- lines -----------------------------------------------------------------------------------------------


def test_a_painted_line_is_taken_apart() -> None:
    assert spans("a \x1b[1;31mDEAD\x1b[0m b") == [Cell("a "), Cell("DEAD", "bad"), Cell(" b")]
    assert spans("") == []


@given(st.text(st.sampled_from("ab  \n"), max_size=60).map(lambda text: " ".join(text.split())), st.integers(4, 20))
def test_wrapping_loses_no_word_and_keeps_to_the_width(text: str, width: int) -> None:
    parts = wrapped([Cell(text, "bold")], width)
    assert all(len(plain(part)) <= width for part in parts)
    assert "".join("".join(plain(part).split()) for part in parts) == "".join(text.split())


def test_what_does_not_fit_ends_in_an_ellipsis() -> None:
    assert plain(fitted([Cell("abc"), Cell("defgh")], 6, UNICODE)) == "abcde…"
    assert plain(fitted([Cell("abcdefgh")], 6, ASCII)) == "abc..."
    assert plain(fitted([Cell("abc")], 3, UNICODE)) == "abc"
    assert len(plain(fitted([Cell("abcdefgh")], 1, ASCII))) == 1


def test_columns_are_cut_each_to_its_own_width_and_left_out_at_none() -> None:
    cells = (Cell("a"), Cell("bcdef"), Cell("g"))
    assert plain(columns(cells, (3, 4, 2), UNICODE)) == "a   bcd… g "
    assert plain(columns(cells, (3, 0, 2), UNICODE)) == "a   g "


def test_a_long_name_keeps_its_end() -> None:
    assert tail("dc1/rack07/host12", 9, UNICODE) == "…7/host12"
    assert tail("dc1/rack07/host12", 9, ASCII) == "...host12"
    assert tail("host12", 9, ASCII) == "host12"


def test_every_trouble_has_a_sign_of_its_own_without_colour() -> None:
    for screen in (UNICODE, ASCII):
        states = {host.state: sign(host, screen).text for host in fleet()}
        assert len(set(states.values())) == len(states) == 8
        assert all(len(text) == 1 for text in states.values())
    assert all(sign(host, ASCII).text.isascii() for host in fleet())


# ---- the grid --------------------------------------------------------------------------------------------


def test_each_rack_has_its_name_and_a_cell_a_host() -> None:
    assert lines(grid(fleet()), 40) == [
        "▶!rack1 ✗!D✓✓✓✓✓✓≠✓✓",
        "  rack3 ✓✓✓✓✓✓C✓✓✓✓✓",
        "  rack2 ✓✓✓W-✓✓✓✓✓✓✓",
    ]


def test_a_rack_that_is_wider_than_the_pane_goes_on_below() -> None:
    assert lines(grid(fleet(), ASCII), 16)[:4] == [
        ">!rack1 x!D+++++",
        "        +%++",
        "  rack3 ++++++C+",
        "        ++++",
    ]


def test_an_old_rack_is_marked_and_loses_its_colours() -> None:
    made = grid(fleet())
    made.old = frozenset({"demo/rack3"})
    assert lines(made, 40)[1].startswith(" ~rack3")
    assert {piece.tone for piece in made.line(1, 40) if "C" in piece.text} == {"dim"}


def test_the_cursor_goes_from_cell_to_cell_and_from_rack_to_rack() -> None:
    made = grid(fleet())
    made.move(3, 0, 16)
    assert made.target() == Target("node", "demo/rack1/node3")
    made.move(0, 1, 16)
    assert made.target() == Target("node", "demo/rack1/node11")
    made.move(0, 1, 16)
    assert made.target() == Target("node", "demo/rack3/node3")
    made.move(-100, 0, 16)
    assert made.target() == Target("rack", "demo/rack3")
    made.move(0, 1, 16)
    assert made.target() == Target("rack", "demo/rack2")
    made.move(0, 1000, 16)
    assert made.cursor(16) < made.count(16)
    made.move(0, -1000, 16)
    assert made.target() == Target("rack", "demo/rack1")


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), max_size=20), st.integers(5, 60))
def test_no_way_leads_out_of_the_grid(moves: list[tuple[int, int]], width: int) -> None:
    made = grid(fleet())
    for across, down in moves:
        made.move(across, down, width)
        assert 0 <= made.cursor(width) < made.count(width)
        assert made.target() is not None
        made.line(made.cursor(width), width)


def test_the_cursor_stays_on_its_host_when_racks_change_places() -> None:
    one = fleet()
    made = grid(one)
    assert made.choose(Target("node", "demo/rack2/node7"))
    one.take(answer([cell("demo/rack2/node1", "DEAD")], [rack("demo/rack2", "DARK")], 2, whole=False), 101.0)
    made.show(one.by_rack())
    assert made.target() == Target("node", "demo/rack2/node7")
    assert made.cursor(40) == 0
    # Its host is gone: it stays in the grid.
    one.take(answer([], [rack("demo/rack2", "DARK")], 3, whole=False, gone=["demo/rack2/node7"]), 102.0)
    made.show(one.by_rack())
    assert made.target() is not None
    assert not made.choose(Target("node", "demo/rack2/node7"))


def test_a_grid_without_racks_has_nothing_to_choose() -> None:
    made = RackGrid(UNICODE)
    made.move(1, 1, 40)
    assert (made.count(40), made.target(), made.cursor(40)) == (0, None, 0)


def test_a_large_grid_has_every_host_once() -> None:
    made = grid(fleet(large()))
    cells = "".join(line[10:] for line in lines(made, 50))
    assert cells.count("✓") == 10_000


# ---- lists -----------------------------------------------------------------------------------------------


def problems(one: Fleet) -> Problems:
    made = Problems(UNICODE)
    made.site, made.total, made.now = one.site(), len(one.problems()), 100.0
    made.show(one.problems())
    return made


def test_the_cursor_follows_its_host_but_stays_at_the_top_until_it_is_moved() -> None:
    one = fleet()
    made = problems(one)
    assert made.target() == Target("node", "demo/rack1/node1")
    one.take(answer([cell("demo/rack1/a", "DEAD")], [], 2, whole=False), 101.0)
    made.show(one.problems())
    assert made.target() == Target("node", "demo/rack1/a")
    made.move(0, 2, 80)
    chosen = made.target()
    one.take(answer([cell("demo/rack1/b", "DEAD")], [], 3, whole=False), 102.0)
    made.show(one.problems())
    assert made.target() == chosen
    made.show([])
    assert made.target() is None
    assert plain(made.line(0, 80)).strip() == "none that the filter lets through"


@pytest.mark.parametrize("width", [10, 30, 47, 80, 120, 200])
def test_a_problem_keeps_to_the_width_and_says_its_state(width: int) -> None:
    made = problems(fleet())
    for at in range(made.count(width)):
        assert len(plain(made.line(at, width))) <= width
    if width >= 47:
        assert "✗ DEAD" in plain(made.line(0, width))
        assert "process-exit" in plain(made.line(0, width))


def test_an_empty_list_is_no_good_news_before_anything_was_heard() -> None:
    made = Problems(UNICODE)
    made.told = False
    assert plain(made.line(0, 80)).strip() == "nothing is known"


def test_a_page_keeps_its_place_when_its_text_changes() -> None:
    page = Page(UNICODE, "x")
    page.show([Line([Cell(str(at))]) for at in range(9)])
    page.move(0, 5, 80)
    page.show([Line([Cell(f"new {at}")]) for at in range(9)])
    assert page.cursor(80) == 5
    page.show([])
    assert page.cursor(80) == 0
