"""The first page as HTML, whole and readable without a script: what `board` holds, in the order in which it is read.

Verdict, incidents, nodes with trouble, then the grid, then leaders and silences. A script (`static/live.js`) changes
the same elements afterwards; it finds them by id and by `data-` attributes, and knows no words of its own but those
about its own connection.
"""

from __future__ import annotations

from hbagent.core.names import rack_of, short_of

from .board import Board, Plate, Spot
from .looks import LOOK, LOOKS
from .markup import Table, escape, node_path, table_html

#: Without a script the page is read anew this often; a person who looks at it sees nothing sooner.
REFRESH_S = 10
#: Data older than this is shown without any colour: five ticks.
OLD_S = 2.5

INCIDENTS = ("Incident", "State", "What", "Rack", "Burning", "Who", "Since", "About it")
PROBLEMS = ("Worst", "Node", "Liveness", "Health", "Cause", "Since", "About it")
LEADERS = ("Leader", "State", "Racks", "Version", "About it")
SILENCES = ("Id", "Kind", "State", "Covers", "When", "By", "Reason", "Troubles now")


def page(title: str, body: str, *, base: str, kind: str, position: str, old: bool, about: str = "") -> bytes:
    """A whole document. `base` leads to the first page; `position` is where its data stands in the feed."""
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        f'<link rel="stylesheet" href="{base}style.css">\n'
        f'<link rel="icon" href="{base}icon.svg" type="image/svg+xml">\n'
        f'<noscript><meta http-equiv="refresh" content="{REFRESH_S}"></noscript>\n'
        f'<script src="{base}live.js" defer></script>\n</head>\n'
        f'<body data-base="{base}" data-kind="{escape(kind)}" data-position="{escape(position)}" '
        f'data-about="{escape(about)}"{" class=old" if old else ""}>\n{body}</body>\n</html>\n'
    )
    return text.encode("utf-8", "replace")


def index_page(board: Board, position: str, age_s: float) -> bytes:
    """The first page; `age_s` is how old the board is."""
    assert board.root is not None
    old = age_s > OLD_S
    headline = board.headline
    warnings = "".join(f"<li>{escape(text)}</li>" for text in headline.warnings)
    parts = [
        f'<header><h1><span id="verdict" class="{headline.tone}">{escape(headline.verdict)}</span> '
        f'<span id="name">{escape(board.root.name)}</span></h1>\n<p id="text">{escape(headline.text)}</p>\n'
        f"{_age_html(board.root.at, age_s)}"
        f'<ul id="warnings" class="bad">{warnings}</ul></header>\n<main>\n',
        _section("Incidents", _box(table_html("incidents", INCIDENTS, _table(board, "incidents")))),
        _section("Nodes with trouble", _box(table_html("problems", PROBLEMS, _table(board, "problems")))),
        '<section id="racks"><h2>Racks</h2>\n',
        _legend(board.shown_counts()),
        '<div class="racks">\n',
        *(_rack_html(plate, board.spots[name]) for name, plate in board.plates.items()),
        "</div></section>\n",
        _section("Leaders", table_html("leaders", LEADERS, _table(board, "leaders"))),
        _section("Silences and maintenance", table_html("silences", SILENCES, _table(board, "silences"))),
        f"</main>\n<footer>hbagent {escape(board.root.version)}. This page only shows. "
        '<a href="api/v1/status">The same as JSON</a></footer>\n',
    ]
    title = f"{headline.verdict} {board.root.name}"
    return page(title, "".join(parts), base="", kind="index", position=position, old=old)


def sorry_page(title: str, text: str, base: str) -> bytes:
    """A page that says why there is none."""
    body = (
        f"<header><h1>{escape(title)}</h1></header>\n<main><p>{escape(text)}</p>\n"
        f'<p><a href="{base or "./"}">All racks</a></p></main>\n'
    )
    return page(title, body, base=base, kind="sorry", position="", old=True)


def _age_html(at: str, age_s: float) -> str:
    """When the data was taken; the script goes on counting in the second span."""
    said = f"{age_s:.0f} s old" if age_s > OLD_S else ""
    return (
        f'<p class="age">As of <time id="at">{escape(at)}</time> <span id="age" role="status">{said}</span>'
        f'<noscript>; this page reads itself anew every {REFRESH_S} s</noscript></p>\n<p id="alarm" class="alarm"'
        f"{'' if age_s > OLD_S else ' hidden'}>What is shown here is old: it says nothing about now.</p>\n"
    )


def _table(board: Board, name: str) -> Table:
    return board.tables.get(name, Table([]))


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{title}</h2>\n{inside}</section>\n"


def _box(inside: str) -> str:
    """Scrolled by itself; the keyboard reaches it too."""
    return f'<div class="box" tabindex="0">{inside}</div>\n'


def _legend(counts: dict[str, int]) -> str:
    items = "".join(
        f'<li><span class="cell {look.tone}" data-look="{look.key}">{look.symbol}</span> {escape(look.word)} '
        f'<b data-count="{look.key}">{counts[look.key]:,}</b></li>'
        for look in LOOKS
    )
    marks = (
        '<li><span class="cell good covered">✓</span> silenced or in maintenance</li>'
        '<li><span class="cell good flapping">✓</span> flapping</li>'
    )
    return f'<ul class="legend" aria-label="Legend">{items}{marks}</ul>\n'


def _rack_html(plate: Plate, spots: dict[str, Spot]) -> str:
    cells = "".join(_cell_html(spot) for spot in spots.values())
    return (
        f'<article class="rack" data-rack="{escape(plate.rack)}"><h3>{escape(plate.rack)} '
        f'<span class="state {plate.tone}">{escape(plate.state)}</span></h3>\n'
        f'<p class="nodes">{escape(plate.nodes)}</p><div class="cells">{cells}</div>\n'
        f'<p class="leaders">{escape(plate.leaders)}</p></article>\n'
    )


def _cell_html(spot: Spot) -> str:
    look = LOOK[spot.look]
    marks = f" {spot.marks}" if spot.marks else ""
    title = escape(spot.title)
    return (
        f'<a class="cell {look.tone}{marks}" href="{escape(node_path(spot.node))}" '
        f'data-node="{escape(spot.node)}" title="{title}" aria-label="{title}">{look.symbol}</a>'
    )


def crumbs(node: str, base: str) -> str:
    """The way back from a node's page."""
    names = f"{escape(rack_of(node))} / {escape(short_of(node))}"
    return f'<p class="crumbs"><a href="{base or "./"}">All racks</a> / {names}</p>\n'
