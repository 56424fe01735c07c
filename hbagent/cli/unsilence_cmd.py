"""`hbagent unsilence ID`: end a silence or a maintenance before its time. What still burns of it is told at once."""

from __future__ import annotations

import argparse
import re

from . import query, terminal
from .answers import row, word
from .grid import clean
from .incidents import matcher_text
from .render import as_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("silence", metavar="ID", type=_id, help="as in s3; hbagent silences lists them")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def _id(text: str) -> str:
    if not re.fullmatch(r"s[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no silence as in s3; see: hbagent silences")
    return text


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.order("unsilence", target=args.silence))
    if args.output == "json":
        print(as_json(document))
    else:
        silence = row(document, "silence")
        what = "maintenance" if silence.get("maintenance") is True else "silence"
        text = f"ended: {what} {word(silence, 'silence')} on {matcher_text(silence)}: {word(silence, 'reason')}"
        print(clean(text, terminal.screen(args)))
    return 0
