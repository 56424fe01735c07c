"""The first page as it leaves the server: readable without a script, and escaped throughout."""

from __future__ import annotations

from hbagent.core.states import Liveness
from hbagent.web.board import Board
from hbagent.web.looks import LOOKS
from hbagent.web.page import index_page, sorry_page
from tests.web.parts import HOSTILE, cell, incident, leader, rack, root, silence, view
from tests.web.test_markup import Reader


def page(board: Board, age_s: float = 0.0) -> str:
    return index_page(board, "abc-1", age_s).decode()


def shown(said: object = None) -> Board:
    board = Board()
    board.take(said or view(cell("dc/r1/n1"), cell("dc/r1/n2", "DEAD", cause="host-gone")))  # type: ignore[arg-type]
    return board


def test_every_node_is_a_link_with_a_symbol_and_words() -> None:
    made = page(shown())
    assert (
        '<a class="cell good" href="node/dc/r1/n1" data-node="dc/r1/n1" title="dc/r1/n1: ALIVE and OK" '
        'aria-label="dc/r1/n1: ALIVE and OK">✓</a>' in made
    )
    assert '<a class="cell bad" href="node/dc/r1/n2"' in made
    assert "✗ DEAD" in made
    assert "<title>✗ CRITICAL dc/root</title>" in made


def test_the_legend_names_and_counts_every_look() -> None:
    made = page(shown())
    for look in LOOKS:
        assert f'data-look="{look.key}">{look.symbol}</span> {look.word} <b data-count="{look.key}">' in made
    assert '<b data-count="dead">1</b>' in made


def test_nothing_is_inline_and_everything_is_of_this_server() -> None:
    made = page(shown())
    assert "<style" not in made
    assert " style=" not in made
    assert " on" not in made.replace(" one", "").replace(" only", "").replace(" once", "")
    assert made.count("<script") == 1
    assert "://" not in made


def test_without_a_script_it_reads_itself_anew() -> None:
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in page(shown())


def test_old_data_has_no_colour_and_says_so() -> None:
    fresh, old = page(shown()), page(shown(), 12.4)
    assert 'class="alarm" hidden' in fresh
    assert 'class="old"' not in fresh
    assert " class=old>" in old
    assert 'class="alarm">What is shown here is old' in old
    assert "12 s old" in old


def test_whatever_anybody_wrote_is_text() -> None:
    odd = cell("dc/r1/n1", "DEAD", cause=HOSTILE, text=HOSTILE)
    bad = leader(HOSTILE, Liveness.DEAD.value, degraded=HOSTILE)
    board = shown(
        view(
            odd,
            root=root(name=HOSTILE, degraded=HOSTILE, version=HOSTILE),
            racks=[rack(leaders=[bad])],
            incidents=[incident(text=HOSTILE, members=[HOSTILE])],
            silences=[silence(reason=HOSTILE)],
        )
    )
    read = Reader(page(board))
    assert read.tags.count("script") == 1
    assert "\x1b" not in "".join(read.texts)
    assert any("<script>alert(1)</script>" in text for text in read.texts)
    plain = Reader(page(shown(view(cell("dc/r1/n1", "DEAD"), incidents=[incident()], silences=[silence()]))))
    assert {*read.tags} == {*plain.tags, "li"}


def test_a_page_that_is_not_there_says_why_and_where_to_go() -> None:
    made = sorry_page("No <such> node", HOSTILE, "../../").decode()
    assert "<h1>No &lt;such&gt; node</h1>" in made
    assert '<a href="../../">All racks</a>' in made
    assert Reader(made).tags.count("script") == 1
