"""`hbagent events export`: the history as lines of JSON or CSV, oldest first, for whoever wants to keep or count it.

It reads the store itself, in pages, so a history of any length goes through in a few megabytes, and the root is not
asked. A line of JSON has the form of a hook's input, as `hbagent events -o jsonl` writes it.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from hbagent.core.records import Event
from hbagent.core.units import parse_duration
from hbagent.core.views import event_view
from hbagent.core.wallclock import rfc3339
from hbagent.store.archive import open_archive
from hbagent.store.history import HistoryError
from hbagent.store.opening import StoreUnavailableError

from . import EXIT_UNAVAILABLE, EXIT_USAGE, query, rootfile
from .grid import Screen, clean
from .render import as_json_line

COLUMNS = (
    *("event_id", "sequence", "at", "kind", "node", "rack", "leader", "liveness_from", "liveness_to", "health_from"),
    *("health_to", "cause", "host", "incident", "notices", "text"),
)
#: What a spreadsheet takes for a formula when a cell begins with it.
_FORMULA = ("=", "+", "-", "@")
_ASCII = Screen(unicode=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `events export`."""
    rootfile.add_argument(parser)
    times = 'RFC 3339 in UTC, as 2026-11-30 or 2026-11-30T18:00, or how long ago, as 24h or "90d"'
    parser.add_argument("--since", metavar="TIME", type=moment, default=0, help=f"only from then on: {times}")
    parser.add_argument("--until", metavar="TIME", type=moment, default=2**62, help="only before then")
    parser.add_argument(
        "-o", "--output", dest="form", choices=("jsonl", "csv"), default="jsonl", help="form (default jsonl)"
    )


def moment(text: str) -> int:
    """A time as Unix ns."""
    try:
        return time.time_ns() - parse_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.datetime.fromisoformat(text.removesuffix("Z"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a time as 2026-11-30T18:00 nor how long ago") from error
    at = at.replace(tzinfo=datetime.timezone.utc) if at.tzinfo is None else at
    return int(at.timestamp() * 1000) * 1_000_000


def run(args: argparse.Namespace) -> int:
    """Write them to standard output; returns the exit code."""
    try:
        settings = rootfile.settings_of(args)
        with open_archive(settings.store, settings.state_dir) as archive:
            write = _csv_writer() if args.form == "csv" else _write_json
            for event in archive.events(args.since, args.until):
                write(event)
    except (query.NoTarget, ValueError) as error:
        query.say(str(error))
        return EXIT_USAGE
    except (HistoryError, StoreUnavailableError) as error:
        query.say(str(error))
        return EXIT_UNAVAILABLE
    return 0


def _write_json(event: Event) -> None:
    print(as_json_line(event_view(msgspec.to_builtins(event))))


def _csv_writer() -> Callable[[Event], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    return lambda event: writer.writerow([_cell(value) for value in _values(event)])


def _values(event: Event) -> list[Any]:
    plain = msgspec.to_builtins(event)
    plain["at"] = rfc3339(event.at_wall_ns)
    plain["text"] = event.evidence.text if event.evidence is not None else ""
    return [plain[name] for name in COLUMNS]


def _cell(value: Any) -> Any:
    """A value that neither a terminal nor a spreadsheet obeys: what nodes say stands in here."""
    if not isinstance(value, str):
        return value
    text = clean(value, _ASCII)
    return f"'{text}" if text.startswith(_FORMULA) else text
