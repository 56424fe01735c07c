"""Whatever a node writes stays text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from hbagent.web.markup import TEXT_LENGTH_MAX, Item, Table, clean, escape, node_path, table_html
from tests.web.parts import HOSTILE


class Reader(HTMLParser):
    """Tags and texts of a document, as a browser would have them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_control_character_is_shown_and_a_flood_is_cut() -> None:
    shown = clean(HOSTILE)
    assert shown.startswith("<script>alert(1)</script>\"'&\\x1b[31m\\x0a\\u202exxx")
    assert len(clean("x" * 10_000)) == TEXT_LENGTH_MAX
    assert clean("ünï 漢字 ✓") == "ünï 漢字 ✓"
    assert clean("\U000e0041") == "\\U000e0041"


def test_markup_is_shown_as_it_was_written() -> None:
    assert escape("<b a='1'>&\"") == "&lt;b a=&#39;1&#39;&gt;&amp;&quot;"


@given(st.text(max_size=200))
def test_no_text_becomes_a_tag_or_leaves_its_attribute(text: str) -> None:
    table = Table([[Item(text, text, text), Item(text)]], text)
    read = Reader(table_html("t", (text,), table))
    assert read.tags == ["table", "thead", "tr", "th", "tbody", "tr", "td", "a", "td", "p"] or not text
    assert all(link == clean(text) for link in read.links)


def test_an_empty_table_is_hidden_and_its_note_is_not() -> None:
    made = table_html("t", ("A",), Table([], "Nothing."))
    assert '<table id="t" hidden>' in made
    assert '<p class="note" id="t-note">Nothing.</p>' in made


def test_a_link_starts_where_the_page_says() -> None:
    made = table_html("t", ("A",), Table([[Item("n1", "", node_path("dc/r1/n 1"))]]), "../../")
    assert Reader(made).links == ["../../node/dc/r1/n%201"]
