"""`hbagent hooks list|test|dead|retry`: how the hooks do, whether one works, and what could not be told.

A test sends one hook an event that never happened, marked `"test": true`, on the way that real ones take; with
`--local` this process runs the hook itself, for a config that no root has taken over yet.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from hbagent.core.hooktest import HookTests, outcome
from hbagent.core.states import Kind
from hbagent.core.units import MINUTE
from hbagent.core.wallclock import rfc3339

from . import EXIT_USAGE, query, terminal
from .answers import Row, number, row, rows, word
from .grid import Cell, Column, Grid, Screen, clean, cut, paint
from .pieces import age, clock
from .render import as_json, as_json_line

#: Exit code when the hook that was tested failed.
FAILED = 2
#: Lines that a tested hook printed, on a terminal; the JSON has all.
LINES_SHOWN_MAX = 40
#: A hook has up to an hour; whoever waits longer says so.
TEST_TIMEOUT_NS = MINUTE
_NAMES = tuple(kind.value for kind in Kind)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    listing = actions.add_parser("list", help="each hook, what waits for it and what came of it")
    query.add_arguments(listing)
    terminal.add_output_arguments(listing, ("table", "json", "jsonl", "name"))
    test = actions.add_parser("test", help="send one hook an event that never happened, marked as a test")
    test.add_argument("name", metavar="NAME", help="as the root's config names it")
    test.add_argument("--kind", metavar="KIND", choices=_NAMES, help="of the event; else the first that it asks for")
    test.add_argument("--local", action="store_true", help="run it from here and not by the root that runs")
    query.add_arguments(test)
    test.set_defaults(timeout=TEST_TIMEOUT_NS)
    terminal.add_output_arguments(test, ("table", "json"))
    dead = actions.add_parser("dead", help="what was given up after the last retry")
    dead.add_argument("--limit", metavar="N", type=_limit, default=50, help="at most the newest N (default 50)")
    query.add_arguments(dead)
    terminal.add_output_arguments(dead, ("table", "json", "jsonl", "name"))
    retry = actions.add_parser("retry", help="tell again what was given up")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("letter", metavar="RUN", nargs="?", help="one, as hbagent hooks dead names it")
    which.add_argument("--all", action="store_true", help="all that were given up")
    query.add_arguments(retry)
    terminal.add_output_arguments(retry, ("table", "json"))


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to 10000")
    return int(text)


def run(args: argparse.Namespace) -> int:
    if args.action == "test" and args.local:
        return _test_here(args)
    action = {"list": _list, "test": _test, "dead": _dead, "retry": _retry}[args.action]
    return query.answered(args, lambda asker: action(args, asker))


# ---- list ------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.ask("hooks"))
    screen = terminal.screen(args)
    if args.output == "json":
        print(as_json(document))
        return 0
    for line in hook_lines(document, rfc3339(time.time_ns()), args.output, screen):
        print(line)
    return 0


def hook_lines(document: Row, now: str, form: str, screen: Screen) -> list[str]:
    """The answer to "how do the hooks do?"."""
    hooks = rows(document, "hooks")
    if form == "jsonl":
        return [as_json_line(hook) for hook in hooks]
    if form == "name":
        return [clean(word(hook, "hook"), screen) for hook in hooks]
    if not hooks:
        return ["no hook is configured"]
    columns = (
        Column("HOOK"),
        Column("LAST"),
        Column("WAITING", right=True),
        Column("RUNNING", rank=2, right=True),
        Column("DONE", rank=3, right=True),
        Column("FAILED", rank=1, right=True),
        Column("DEAD", right=True),
        Column("AT", rank=2),
        Column("SAID", rank=1, cut=True),
    )
    return Grid(columns, screen).lines([_hook_cells(hook, now, screen) for hook in hooks])


def _hook_cells(hook: Row, now: str, screen: Screen) -> list[Cell]:
    last = row(hook, "last")
    error = word(last, "error")
    mark = _mark(not error, screen) if last else Cell("-")
    dead = _count(hook, "dead")
    said = error or (word(last, "output").strip().splitlines() or [""])[-1]
    gone = "" if hook.get("configured", True) else " (not in the config)"
    return [
        Cell(clean(word(hook, "hook"), screen) + gone),
        mark,
        Cell(_count(hook, "waiting")),
        Cell(_count(hook, "running")),
        Cell(_count(hook, "done")),
        Cell(_count(hook, "failed"), "warn" if _count(hook, "failed") != "0" else ""),
        Cell(dead, "bad" if dead != "0" else ""),
        Cell(clock(word(last, "at"), now, screen)),
        Cell(clean(said, screen)),
    ]


def _mark(ok: bool, screen: Screen) -> Cell:
    if ok:
        return Cell("✓ ok" if screen.unicode else "+ ok", "good")
    return Cell("✗ failed" if screen.unicode else "x failed", "bad")


def _count(hook: Row, key: str) -> str:
    return str(int(number(hook, key) or 0))


# ---- test ------------------------------------------------------------------------------------------------


def _test(args: argparse.Namespace, asker: query.Asker) -> int:
    kinds = (args.kind,) if args.kind else ()
    document = query.as_row(asker, asker.order("hook-test", target=args.name, kinds=kinds))
    return _show_test(args, document)


def _test_here(args: argparse.Namespace) -> int:
    from hbagent.role.hooking import run_once
    from hbagent.role.settings import load_root

    path = args.config or Path(os.environ.get(query.CONFIG_VARIABLE) or query.DEFAULT_CONFIGS[0])
    hooks = {hook.name: hook for hook in load_root(path).core.hooks}
    hook = hooks.get(args.name)
    if hook is None:
        query.say(f"{path} has no hook {args.name!r}; there are: {', '.join(hooks) or 'none'}")
        return EXIT_USAGE
    order = HookTests().begin(b"", 0, hook, time.time_ns(), Kind(args.kind) if args.kind else None)
    return _show_test(args, outcome(order, run_once(order)))


def _show_test(args: argparse.Namespace, document: Row) -> int:
    if args.output == "json":
        print(as_json(document))
    else:
        print("\n".join(trial_lines(document, terminal.screen(args))))
    return 0 if document.get("ok") is True else FAILED


def trial_lines(document: Row, screen: Screen) -> list[str]:
    """What came of a test."""
    ok = document.get("ok") is True
    took = number(document, "took_ms")
    mark, tone = _mark(ok, screen)
    kind = clean(word(row(document, "sent"), "kind"), screen)
    name = clean(word(document, "hook"), screen)
    head = f"{paint(mark, tone, screen)}  {name}: a test of kind {kind} took {age(took / 1000 if took else 0.0)}"
    if not ok:
        head += f": {clean(word(document, 'error'), screen)}"
    said = word(document, "output").splitlines()
    lines = [f"  {cut(clean(line, screen), screen, 2)}" for line in said[:LINES_SHOWN_MAX]]
    if len(said) > LINES_SHOWN_MAX or document.get("truncated") is True:
        lines.append("  (there is more; with -o json all that was kept is shown)")
    return [head, *lines]


# ---- dead letters ----------------------------------------------------------------------------------------


def _dead(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.ask("dead-letters", limit=args.limit))
    if args.output == "json":
        print(as_json(document))
        return 0
    for line in dead_lines(document, rfc3339(time.time_ns()), args.output, terminal.screen(args)):
        print(line)
    return 0


def dead_lines(document: Row, now: str, form: str, screen: Screen) -> list[str]:
    """What was given up, newest first."""
    letters = rows(document, "dead_letters")
    if form == "jsonl":
        return [as_json_line(letter) for letter in letters]
    if form == "name":
        return [clean(word(letter, "run_id"), screen) for letter in letters]
    if not letters:
        return ["nothing was given up"]
    columns = (
        Column("RUN"),
        Column("HOOK", rank=2),
        Column("AT", rank=3),
        Column("KIND", rank=1),
        Column("ABOUT", rank=1),
        Column("TRIED", rank=4, right=True),
        Column("ERROR", cut=True),
    )
    table = [
        [
            Cell(clean(word(letter, "run_id"), screen)),
            Cell(clean(word(letter, "receiver"), screen)),
            Cell(clock(word(letter, "at"), now, screen)),
            Cell(clean(word(letter, "kind"), screen)),
            Cell(clean(word(letter, "subject"), screen)),
            Cell(_count(letter, "attempt")),
            Cell(clean(word(letter, "error"), screen), "bad"),
        ]
        for letter in letters
    ]
    return Grid(columns, screen).lines(table)


def _retry(args: argparse.Namespace, asker: query.Asker) -> int:
    document = query.as_row(asker, asker.order("hook-retry", target=args.letter or ""))
    retried = [str(run_id) for run_id in document.get("retried") or ()]
    if args.output == "json":
        print(as_json(document))
    elif retried:
        screen = terminal.screen(args)
        print("\n".join(f"owed again: {clean(run_id, screen)}" for run_id in retried))
    over = [str(run_id) for run_id in document.get("over") or ()]
    if over and args.output != "json":
        ways = "hbagent hooks retry RUN tells one all the same"
        print(f"not told again, for what they tell of has passed: {len(over)} ({ways})")
    if not retried and args.letter:
        query.say(f"no run {args.letter!r} was given up; see: hbagent hooks dead")
        return EXIT_USAGE
    if not retried and not over and args.output != "json":
        print("nothing was given up")
    return 0
