"""`hbagent ack INCIDENT`: somebody looks after it. What is no worse is told no more until it is over."""

from __future__ import annotations

import argparse
import re

from . import query, terminal
from .answers import number, row, word
from .grid import clean
from .incidents import few, texts
from .render import as_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "incident", metavar="INCIDENT", type=incident_id, help="as in i17; hbagent incidents lists them"
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="what is being done about it")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def incident_id(text: str) -> str:
    """The name of an incident, as an argument."""
    if not is_incident(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no incident as in i17; see: hbagent incidents")
    return text


def is_incident(text: str) -> bool:
    """True for what the root calls an incident."""
    return re.fullmatch(r"i[0-9]{1,18}", text) is not None


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.order("ack", target=args.incident, reason=args.reason))
    if args.output == "json":
        print(as_json(document))
        return 0
    incident = row(document, "incident")
    burning, about = number(incident, "burning") or 0, word(incident, "rack")
    cause = word(incident, "cause") or word(incident, "kind")
    members = few(texts(incident, "members"))
    text = f"{word(incident, 'incident')} is acknowledged: {burning:.0f} burning of {about} ({cause}): {members}"
    print(clean(text, terminal.screen(args)))
    return 0
