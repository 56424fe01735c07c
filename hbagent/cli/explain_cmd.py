"""`hbagent explain NODE`: why a node is in its state, with the beats, deadlines and observers behind the verdict."""

from __future__ import annotations

import argparse
import time

from hbagent.core.names import is_node, is_part, short_of
from hbagent.core.wallclock import rfc3339
from hbagent.role.settings.problems import did_you_mean

from . import query, terminal
from .answers import rows, word
from .render import as_json, explain_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_node_argument(parser)
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def add_node_argument(parser: argparse.ArgumentParser) -> None:
    """The node that a command is about."""
    parser.add_argument(
        "node",
        metavar="NODE",
        type=_node,
        help="as in dc1/rack07/host12; or its last part, if unique",
    )


def _node(text: str) -> str:
    if not is_node(text) and not is_part(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a node's name as in dc1/rack07/host12")
    return text


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.ask("explain", node=full_name(args.node, asker)))
    if args.output == "json":
        print(as_json(document))
    else:
        # Asked on one host, so this is the clock that the times in the answer were read from.
        now = rfc3339(time.time_ns())
        print("\n".join(explain_lines(document, terminal.screen(args), now)))
    return 0


def full_name(name: str, asker: query.Asker) -> str:
    """A node's full name from that or its last part. Raises as `Asker.ask`, Denied when it names none, or several."""
    if is_node(name):
        return name
    known = [word(node, "node") for node in rows(query.status(asker), "nodes")]
    hits = [node for node in known if short_of(node) == name]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise query.Denied(f"{name} could be {', '.join(hits[:10])}; write the full name")
    raise query.Denied(f"no node {name!r}{did_you_mean(name, map(short_of, known))}; see: hbagent nodes")
