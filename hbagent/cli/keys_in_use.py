"""`hbagent keys in-use`: who still uses the present key of a leader or root that serves the next one too.

Asked before the present key is taken away: whoever uses it then finds nobody any more. Exit 0 means that nobody does.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from hbagent.core.units import MILLISECOND, SECOND
from hbagent.transport.keys import fingerprint

from . import query, terminal
from .answers import Row
from .grid import clean
from .render import as_json

WHAT = "keys"
EXIT_SOMEBODY = 1
#: Between two questions while somebody is waited for.
AGAIN_NS = 500 * MILLISECOND


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `keys in-use`."""
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("text", "json"))
    parser.add_argument(
        "--wait", metavar="TIME", type=query.timeout_ns, default=0, help="wait this long until nobody does (up to 5m)"
    )
    parser.epilog = (
        "Exit 0: nobody uses the present key, or it is not being changed. 1: somebody does. 3: nobody answers."
    )


def run(args: argparse.Namespace) -> int:
    """Ask until nobody is left, or the time is up."""
    until = time.monotonic_ns() + args.wait
    while True:
        code = _ask(args, last=time.monotonic_ns() + AGAIN_NS >= until)
        if code is not None:
            return code
        time.sleep(AGAIN_NS / SECOND)


def _ask(args: argparse.Namespace, last: bool) -> int | None:
    """The exit code, and what was answered is shown; None when it is worth asking again."""
    try:
        with query.Asker(query.target_of(args), args.timeout) as asker:
            found = query.as_row(asker, asker.ask(WHAT))
    except (query.NoTarget, query.Denied, query.Unanswered) as error:
        if not last and isinstance(error, query.Unanswered):
            return None
        query.say(str(error))
        return query.EXIT_UNREACHABLE
    count = _count(found.get("old"))
    if count and not last:
        return None
    if args.output == "json":
        print(as_json(found))
    else:
        print(clean(_sentence(found, count), terminal.screen(args)))
    return EXIT_SOMEBODY if count else 0


def _count(old: Any) -> int:
    """How many use the present key."""
    count = old.get("peers") if isinstance(old, dict) else 0
    return count if isinstance(count, int) else 0


def _sentence(found: Row, count: int) -> str:
    new = found.get("new")
    new = new if isinstance(new, dict) else {}
    if not found.get("rotating"):
        return f"no key is being changed; {_key(new)} is in use"
    old = found["old"]
    moved = f"{_count(new)} use {_key(new)} alone"
    if not count:
        return f"nobody uses {_key(old)} any more; {moved}"
    names = old.get("names")
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"{count} still use {_key(old)}: {', '.join(names)}{more}; {moved}"


def _key(of: Row) -> str:
    key, place = of.get("key"), of.get("publish")
    known = f"key {fingerprint(key)}" if isinstance(key, str) else "no key"
    return f"{known} at {place}" if isinstance(place, str) else known
