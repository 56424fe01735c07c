"""`hbagent replay RECORDING...`: what a detector would have made of recorded beats.

For choosing a detector and its margin by figures from one's own network instead of by a guess.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import sys
from pathlib import Path

from hbagent.cli import EXIT_USAGE
from hbagent.core.config import DetectorConfig
from hbagent.core.detector import KINDS
from hbagent.core.units import SECOND, parse_duration, show_duration
from hbagent.sim.recording import Recording, RecordingError, Way, deliver, read_recording
from hbagent.sim.replay import Asking, Deadlines, Figures, replay

#: A file is not a recording (EX_DATAERR).
EXIT_DATA = 65
#: The deadlines could not be written (EX_IOERR).
EXIT_IO = 74

#: A quiet LAN: measured medians of ZeroMQ over Ethernet lie between 0.15 and 0.3 ms.
_DELAY = "250us"

_EPILOG = """\
A recording is a CSV file, gzipped or not, with one of these first lines:
  seq,sent_s,arrived_s            one sender; an empty arrival is a lost beat
  node,seq,sent_s,arrived_s       a rack; rows of node "tick" are the observer's own ticks: planned, ran
  seq,send_begin_s,send_end_s     one sender's emission; the way is made up by --delay, --loss and --seed
With --margin the margin is that. Without, adaptive learns it from each node's lateness for --mistakes-per-day; to see
whether it keeps its word, let it learn from the first half and count the second: --learn 0.5.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `replay`."""
    default = DetectorConfig()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("recordings", metavar="RECORDING", nargs="+", type=Path, help="what is pooled into the figures")
    parser.add_argument("--interval", type=_interval, required=True, help="the senders' interval, as 100ms")
    parser.add_argument("--detector", choices=KINDS, default=default.kind, help="default: %(default)s")
    parser.add_argument("--margin", type=_duration, help=f"adaptive, fixed; {show_duration(default.margin_ns)}")
    parser.add_argument(
        "--mistakes-per-day",
        metavar="RATE",
        type=_rate_wanted,
        help=f"adaptive: wrong suspicions of one node that are accepted; default: {default.mistakes_per_day:g};"
        " --margin then is what it starts with",
    )
    parser.add_argument(
        "--learn", metavar="SHARE", type=_part, help="count only what follows this share of the recording"
    )
    parser.add_argument("--doubt", action="store_true", help="ask whoever is late before suspecting, as a leader does")
    parser.add_argument("--phi", metavar="THRESHOLD", type=_threshold, help=f"phi; default: {default.phi_threshold:g}")
    parser.add_argument("--delay", type=_duration, help=f"median delay of the made-up way; default: {_DELAY}")
    parser.add_argument("--loss", type=_share, help="share of beats lost on the made-up way; default: 0")
    parser.add_argument("--seed", type=int, help="the made-up way is the same for the same seed; default: 0")
    parser.add_argument("--deadlines", metavar="OUT.csv", type=Path, help="write node,seq,suspect_at_s of each arrival")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Replay and print the figures. Returns 0, or `EXIT_USAGE`, `EXIT_DATA` or `EXIT_IO` with the reason on stderr."""
    try:
        config = _config(args)
        recordings = [_delivered(args, path, i) for i, path in enumerate(args.recordings)]
        figures = _replayed(args, recordings, config)
    except argparse.ArgumentTypeError as error:
        return _refuse(EXIT_USAGE, str(error))
    except RecordingError as error:
        return _refuse(EXIT_DATA, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _refuse(EXIT_IO, f"{args.deadlines}: {error.strerror}")
    print(_json(config, args.interval, figures) if args.output == "json" else _table(config, args.interval, figures))
    return 0


def _refuse(code: int, message: str) -> int:
    print(f"hbagent: {message}", file=sys.stderr)
    return code


def _config(args: argparse.Namespace) -> DetectorConfig:
    default = DetectorConfig()
    if args.phi is not None and args.detector != "phi":
        raise argparse.ArgumentTypeError(f"--phi is for --detector phi, not {args.detector}")
    if args.margin is not None and args.detector == "phi":
        raise argparse.ArgumentTypeError("--margin is for --detector adaptive or fixed, not phi")
    mistakes_per_day: float | None = args.mistakes_per_day
    if mistakes_per_day is not None and args.detector != "adaptive":
        raise argparse.ArgumentTypeError(f"--mistakes-per-day is for --detector adaptive, not {args.detector}")
    if mistakes_per_day is None:
        mistakes_per_day = default.mistakes_per_day if args.margin is None else 0.0
    return DetectorConfig(
        kind=args.detector,
        margin_ns=default.margin_ns if args.margin is None else args.margin,
        mistakes_per_day=mistakes_per_day,
        phi_threshold=default.phi_threshold if args.phi is None else args.phi,
    )


def _delivered(args: argparse.Namespace, path: Path, number: int) -> Recording:
    recording = read_recording(path)
    if recording.emissions:
        # Each sender has a way of its own.
        return deliver(recording, Way(_delay(args), args.loss or 0.0, f"{args.seed or 0}:{number}"))
    for option in ("delay", "loss", "seed", "doubt"):
        given = getattr(args, option)
        if given is not None and given is not False:
            raise argparse.ArgumentTypeError(f"{path}: --{option} is for a recording of emissions; here beats arrived")
    return recording


def _delay(args: argparse.Namespace) -> int:
    return parse_duration(_DELAY) if args.delay is None else int(args.delay)


def _replayed(args: argparse.Namespace, recordings: list[Recording], config: DetectorConfig) -> Figures:
    with contextlib.ExitStack() as stack:
        deadlines: Deadlines | None = None
        if args.deadlines is not None:
            if any(_same(args.deadlines, path) for path in args.recordings):
                raise argparse.ArgumentTypeError(f"--deadlines would overwrite the recording {args.deadlines}")
            file = stack.enter_context(open(args.deadlines, "w", encoding="utf-8", newline=""))
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("node", "seq", "suspect_at_s"))

            def deadlines(node: str, sequence: int, suspect_at: int) -> None:
                writer.writerow((node, sequence, _seconds(suspect_at)))

        asking = Asking(_delay(args), args.loss or 0.0, str(args.seed or 0)) if args.doubt else None
        learn_share = args.learn or 0.0
        return replay(recordings, config, args.interval, deadlines=deadlines, learn_share=learn_share, asking=asking)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _seconds(instant: int) -> str:
    # All nine digits: a float would lose the last of them after eleven days.
    whole, rest = divmod(abs(instant), SECOND)
    return f"{'-' if instant < 0 else ''}{whole}.{rest:09d}"


def _json(config: DetectorConfig, interval_ns: int, figures: Figures) -> str:
    return json.dumps({"schema": 1, **_settings(config, interval_ns), **figures._asdict()})


def _settings(config: DetectorConfig, interval_ns: int) -> dict[str, object]:
    settings: dict[str, object] = {"detector": config.kind, "interval_ms": interval_ns / 1e6}
    if config.kind == "phi":
        return {**settings, "phi": config.phi_threshold}
    settings["margin_ms"] = config.margin_ns / 1e6
    return settings if config.kind == "fixed" else {**settings, "mistakes_per_day": config.mistakes_per_day}


def _table(config: DetectorConfig, interval_ns: int, figures: Figures) -> str:
    knob = f"phi {config.phi_threshold:g}" if config.kind == "phi" else f"margin {show_duration(config.margin_ns)}"
    if config.kind == "adaptive" and config.mistakes_per_day:
        learned = _ms(figures.margin_mean_ms)
        knob = f"margin learned for {config.mistakes_per_day:g} mistakes a day, at the end {learned} on average"
    accuracy = "-" if figures.query_accuracy is None else f"{figures.query_accuracy:.6f}"
    rows = (
        ("detector", f"{config.kind}, {knob}, interval {show_duration(interval_ns)}"),
        ("watched", f"{figures.node_hours:.3f} node-hours of {figures.nodes} nodes"),
        ("beats", f"{figures.beats}, {figures.lost} of them lost"),
        ("detection time", f"mean {_ms(figures.detection_time_mean_ms)}, p99 {_ms(figures.detection_time_p99_ms)}"),
        ("mistakes", f"{figures.mistakes}, {_rate(figures.mistakes_per_node_hour)} per node-hour"),
        ("query accuracy", accuracy),
        *(
            (("pings", f"{figures.pings}, {figures.extra_messages_share or 0:.3%} of the beats"),)
            if figures.pings
            else ()
        ),
    )
    return "\n".join(f"{label:<16}{value}" for label, value in rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _interval(text: str) -> int:
    interval_ns = _duration(text)
    if interval_ns == 0:
        raise argparse.ArgumentTypeError("an interval is longer than nothing")
    return interval_ns


def _rate_wanted(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0; 1 is usual, and with 0 the margin stays as it is")
    return value


def _part(text: str) -> float:
    value = _share(text)
    if value == 1:
        raise argparse.ArgumentTypeError(f"{text} leaves nothing to count")
    return value


def _threshold(text: str) -> float:
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0; 8 is usual")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value
