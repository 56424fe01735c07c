"""`hbagent silence`: tell nobody of something for a while, and say why.

What it covers is named by globs: `*` is any text, `?` one character, `[ab]` one of these; without a slash they are
compared with the last part of a name. A silence covers absence too: a node that falls silent under it wakes nobody,
and is told of at once if it is still gone when the silence ends. All times are UTC.
"""

from __future__ import annotations

import argparse
import datetime
import time
from typing import Any

from hbagent.core.units import SECOND, parse_duration
from hbagent.core.wallclock import rfc3339

from . import EXIT_USAGE, query, terminal
from .answers import number, row, word
from .incidents import silence_note, silence_sentence
from .render import as_json

#: What a silence may be about, in the short form: "silence rack r12 r13".
ABOUT = {"node": "nodes", "rack": "racks", "cause": "causes", "kind": "kinds"}
_EXAMPLES = """examples:
  hbagent {0} rack r12 --for 2h --reason "new switch"
  hbagent {0} node 'web*' db1 --until 18:00 --reason "kernel update"
  hbagent {0} --rack r12 --cause host-gone --for 30m --reason "power test"
  hbagent {0} --node 'backup*' --every "sun 02:00" --for 3h --until 2027-06-30 --reason "weekly reboot"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_window_arguments(parser, "silence")


def add_window_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """The options of a silence or a maintenance."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES.format(command)
    parser.add_argument("about", nargs="*", metavar="WHAT GLOB", help="node, rack, cause or kind, and what to cover")
    for what, plural in ABOUT.items():
        parser.add_argument(
            f"--{what}", dest=plural, metavar="GLOB", action="append", default=[], help=f"cover {plural} that fit"
        )
    parser.add_argument(
        "--for", dest="length_ns", metavar="TIME", type=_length, default=0, help="how long: 30m, 2h, 3d"
    )
    parser.add_argument("--until", metavar="TIME", help="18:00, 2026-11-30 or 2026-11-30T18:00 (UTC)")
    parser.add_argument("--begin", metavar="TIME", help="later than now, written as --until is")
    parser.add_argument(
        "--every", metavar="WHEN", default="", help='again and again until then: "daily 02:00", "mon,thu 22:30" (UTC)'
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for whoever wonders")
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def _length(text: str) -> int:
    try:
        length_ns = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    # Beyond, the root says what the most is; a longer number would not travel.
    if not SECOND <= length_ns < 2**62:
        raise argparse.ArgumentTypeError(f"{text!r} must be from 1s to a year")
    return length_ns


def run(args: argparse.Namespace) -> int:
    return order(args, maintenance=False)


def order(args: argparse.Namespace, *, maintenance: bool) -> int:
    """Have the root begin it, and say what it did; returns the exit code."""
    try:
        fields = order_fields(args, time.time_ns())
    except ValueError as error:
        query.say(str(error))
        return EXIT_USAGE
    return query.answered(args, lambda asker: _show(args, asker, {**fields, "maintenance": maintenance}))


def order_fields(args: argparse.Namespace, now_wall: int) -> dict[str, Any]:
    """The fields of `core.messages.Order`. Raises ValueError, a sentence for people, for what means nothing."""
    globs: dict[str, list[str]] = {plural: list(getattr(args, plural)) for plural in ABOUT.values()}
    about = ""
    for at, text in enumerate(args.about):
        if at == 0:
            if text not in ABOUT:
                raise ValueError(f"{text!r}: name what to cover as in: rack {text}")
            about = ABOUT[text]
        else:
            globs[about].append(text)
    if about and len(args.about) == 1:
        raise ValueError(f"which {args.about[0]}?")
    if not any(globs.values()):
        raise ValueError("say what to cover, as in: rack r12, or --node 'web*'")
    if not args.reason.strip():
        raise ValueError("say why with --reason, for whoever wonders why nobody was told")
    if not args.length_ns and not args.until:
        raise ValueError("say how long with --for 2h, or until when with --until TIME")
    if args.every and not (args.length_ns and args.until):
        raise ValueError("what recurs has a length with --for, each time, and an end with --until")
    if args.length_ns and args.until and not args.every:
        raise ValueError("say either --for or --until")
    begins = parse_time(args.begin, now_wall) if args.begin else 0
    return {
        **{plural: tuple(globs[plural]) for plural in globs},
        "reason": args.reason,
        "length_ns": args.length_ns,
        "begins_wall_ns": begins,
        "ends_wall_ns": parse_time(args.until, begins or now_wall) if args.until else 0,
        "every": args.every,
    }


def parse_time(text: str, now_wall: int) -> int:
    """Unix ns of a time that people write, UTC: a time of day is the next such one after `now_wall`; a date alone is
    its beginning. Raises ValueError."""
    now = datetime.datetime.fromtimestamp(now_wall // SECOND, datetime.timezone.utc)
    try:
        if len(text) <= 5:
            hour, minute = text.split(":")
            at = now.replace(hour=int(hour), minute=int(minute), second=0)
            at += datetime.timedelta(days=1) if at <= now else datetime.timedelta()
        else:
            at = datetime.datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
            at = at if at.tzinfo is not None else at.replace(tzinfo=datetime.timezone.utc)
        seconds = int(at.timestamp())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; write 18:00, 2026-11-30 or 2026-11-30T18:00 (UTC)") from None
    if seconds <= 0 or seconds * SECOND >= 2**63:
        raise ValueError(f"{text!r} is no time that a silence could have")
    return seconds * SECOND


def _show(args: argparse.Namespace, asker: query.Asker, fields: dict[str, Any]) -> int:
    document = query.as_row(asker, asker.order("silence", **fields))
    if args.output == "json":
        print(as_json(document))
        return 0
    silence = row(document, "silence")
    screen = terminal.screen(args)
    print(silence_sentence(silence, rfc3339(time.time_ns()), screen))
    note = silence_note(document, screen)
    if note:
        print(note)
    covers = number(silence, "covers") or 0
    if covers:
        print(f"it covers {covers:.0f} that burn{'s' * (covers == 1)} now")
    if word(silence, "state") != "ended":
        print(f"end it before its time with: hbagent unsilence {word(silence, 'silence')}")
    return 0
