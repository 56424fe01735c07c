"""Text on its way into a page: what a node wrote stays text, whatever it is. Pure.

Two dangers, two steps. `clean` takes what a reader's eyes would obey (control and format characters, a change of the
direction of writing, ten thousand of anything), also out of what goes to a page as JSON; `escape` takes what an HTML
parser would obey. A script of this page sets text only, never markup.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

#: Longest text of one cell of a table; what is longer is a defect or an attempt to flood the page.
TEXT_LENGTH_MAX = 500
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def clean(text: str) -> str:
    """`text` on one line, cut, with escapes for what is not printable."""
    if len(text) > TEXT_LENGTH_MAX:
        text = text[: TEXT_LENGTH_MAX - 1] + "…"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _shown(character) for character in text)


def _shown(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(text: str) -> str:
    """`text` cleaned, for HTML between tags and inside quoted attributes."""
    return clean(text).translate(_MARKUP)


def node_path(node: str) -> str:
    """Where a node's page is, from the first page."""
    return f"node/{quote(node)}"


class Item(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One cell of a table: a text, its tone (a class of the style sheet), and what it leads to."""

    text: str
    tone: str = ""
    #: From the first page.
    link: str = ""


class Table(msgspec.Struct, frozen=True, gc=False):
    """Rows under a heading, for the first page and, as JSON, for the script that keeps it up to date."""

    rows: list[list[Item]]
    #: What stands below them: how many are not shown, or that there are none.
    note: str = ""


def rows_html(table: Table, base: str = "") -> str:
    """The rows of a table; `base` leads from this page to the first one."""
    return "".join(f"<tr>{''.join(_item_html(item, base) for item in row)}</tr>\n" for row in table.rows)


def _item_html(item: Item, base: str) -> str:
    text = escape(item.text)
    if item.link:
        text = f'<a href="{escape(base + item.link)}">{text}</a>'
    return f'<td class="{escape(item.tone)}">{text}</td>' if item.tone else f"<td>{text}</td>"


def table_html(name: str, columns: tuple[str, ...], table: Table, base: str = "") -> str:
    """A whole table and the note below it. The script finds them by `name`."""
    titles = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    hidden = "" if table.rows else " hidden"
    return (
        f'<table id="{name}"{hidden}><thead><tr>{titles}</tr></thead>\n<tbody>{rows_html(table, base)}</tbody></table>'
        f'<p class="note" id="{name}-note">{escape(table.note)}</p>\n'
    )
