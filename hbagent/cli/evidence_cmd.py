"""`hbagent evidence NODE`: what was seen of a stuck application on its host, fetched from there."""

from __future__ import annotations

import argparse

from hbagent.core.bundles import BUNDLE_TIME_NS
from hbagent.core.units import SECOND

from . import explain_cmd, query, terminal
from .dossier import bundle_lines
from .render import as_json

#: The daemon gives up first, and says why.
TIMEOUT_NS = BUNDLE_TIME_NS + 2 * SECOND


def add_arguments(parser: argparse.ArgumentParser) -> None:
    explain_cmd.add_node_argument(parser)
    parser.add_argument("--app", metavar="NAME", default="", help="the newest bundle about this application")
    parser.add_argument("--bundle", metavar="ID", default="", help="this bundle, as status and explain name it")
    query.add_arguments(parser)
    parser.set_defaults(timeout=TIMEOUT_NS)
    terminal.add_output_arguments(parser, ("table", "json"))


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _show(args, asker))


def _show(args: argparse.Namespace, asker: query.Asker) -> int:
    node = explain_cmd.full_name(args.node, asker)
    try:
        document = query.as_row(asker, asker.ask("evidence", node=node, app=args.app, bundle=args.bundle))
    except query.Denied as error:
        # What the node itself answers does not name it.
        raise query.Denied(str(error) if node in str(error) else f"{node}: {error}") from error
    print(as_json(document) if args.output == "json" else "\n".join(bundle_lines(document, terminal.screen(args))))
    return 0
