"""`hbagent accuracy`: how often a node was called dead that was not, and how fast the dead were found, by cause."""

from __future__ import annotations

import argparse

from . import query, terminal
from .answers import Row, number, row, rows, seconds_between, word
from .grid import Cell, Column, Grid, Screen, clean
from .pieces import age
from .render import as_json

#: Node-hours below which no rate is told: one mistake in an hour would read as 8,766 in a year.
_ENOUGH_HOURS = 24.0

_COLUMNS = (
    Column("CAUSE"),
    Column("DEAD", right=True),
    Column("WRONG", right=True),
    Column("WRONG/NODE-YEAR", right=True),
    Column("P50", right=True),
    Column("P99", right=True),
)
_MISTAKE_COLUMNS = (Column("AT"), Column("NODE"), Column("CAUSE", 1), Column("BACK AFTER", 2), Column("WHY", cut=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.ask("accuracy"))
    print(as_json(document) if args.output == "json" else "\n".join(accuracy_lines(document, terminal.screen(args))))
    return 0


def accuracy_lines(document: Row, screen: Screen) -> list[str]:
    """The book of verdicts for a reader: what it rests on, a line for each cause, the newest mistakes."""
    hours, years = number(document, "node_hours") or 0.0, number(document, "node_years") or 0.0
    watched = f"{hours:.1f} node-hours ({years:.4f} node-years)"
    length = seconds_between(word(document, "since"), word(document, "at"))
    since = f" in {age(length)}, since {clean(word(document, 'since'), screen)}" if length else ""
    lines = [f"living nodes were watched for {watched}{since}", ""]
    causes = (*rows(document, "causes"), row(document, "all"))
    enough = hours >= _ENOUGH_HOURS
    lines += Grid(_COLUMNS, screen).lines([_cause_cells(cause, enough, screen) for cause in causes])
    lines += ["", "P50, P99: from the last proof of life to the verdict, of verdicts that were right"]
    if not enough:
        lines.append(f"WRONG/NODE-YEAR: told once {_ENOUGH_HOURS:.0f} node-hours were watched")
    mistakes = rows(document, "mistakes")
    if mistakes:
        lines += ["", "Called dead, and back in the same life; newest first"]
        lines += Grid(_MISTAKE_COLUMNS, screen).lines([_mistake_cells(mistake, screen) for mistake in mistakes])
    return lines


def _cause_cells(cause: Row, enough: bool, screen: Screen) -> list[Cell]:
    rate, wrong = number(cause, "false_positives_per_node_year"), number(cause, "wrong") or 0
    return [
        Cell(clean(word(cause, "cause"), screen) or "-"),
        Cell(f"{number(cause, 'verdicts') or 0:.0f}"),
        Cell(f"{wrong:.0f}", "warn" if wrong else ""),
        Cell(f"{rate:.4g}" if enough and rate is not None else "-"),
        Cell(_milliseconds(number(cause, "detection_p50_ms"))),
        Cell(_milliseconds(number(cause, "detection_p99_ms"))),
    ]


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}ms"


def _mistake_cells(mistake: Row, screen: Screen) -> list[Cell]:
    return [
        Cell(clean(word(mistake, "at"), screen) or "-"),
        Cell(clean(word(mistake, "node"), screen) or "-"),
        Cell(clean(word(mistake, "cause"), screen) or "-"),
        Cell(age(number(mistake, "back_after_s"))),
        Cell(clean(word(mistake, "reason"), screen) or "-"),
    ]
