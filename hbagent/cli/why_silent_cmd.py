"""`hbagent why-silent NODE|INCIDENT`: why was I not told?

Each notification about it that was not sent, with its one reason and the silence, incident or summary behind that;
and what would keep the next one back.
"""

from __future__ import annotations

import argparse
import time

from hbagent.core.names import is_node, is_part, is_rack
from hbagent.core.wallclock import rfc3339

from . import query, terminal
from .ack_cmd import is_incident
from .answers import rows, word
from .explain_cmd import full_name
from .incidents import silences_of
from .render import as_json
from .unsent import unsent_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "about",
        metavar="NODE|INCIDENT",
        type=_about,
        help="as in dc1/rack07/host12, or its last part if unique; as in i17; or a rack as in dc1/rack07",
    )
    parser.add_argument("--limit", metavar="N", type=_limit, default=50, help="at most the newest N (default 50)")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def _about(text: str) -> str:
    if not (is_incident(text) or is_node(text) or is_rack(text) or is_part(text)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a node as in dc1/rack07/host12 nor an incident as in i17"
        )
    return text


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to 10000")
    return int(text)


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    if is_incident(args.about):
        answer = asker.ask("why-silent", incident=args.about, limit=args.limit)
    elif is_rack(args.about):
        answer = asker.ask("why-silent", rack=args.about, limit=args.limit)
    else:
        answer = asker.ask("why-silent", node=full_name(args.about, asker), limit=args.limit)
    document = query.as_row(asker, answer)
    if args.output == "json":
        print(as_json(document))
        return 0
    # Who silenced it, and why, is in no row of the ledger.
    silences = {}
    if any(word(each, "reason") in ("silence", "maintenance") for each in rows(document, "unsent")):
        silences = silences_of(query.as_row(asker, asker.ask("silences")))
    print("\n".join(unsent_lines(document, silences, rfc3339(time.time_ns()), terminal.screen(args))))
    return 0
