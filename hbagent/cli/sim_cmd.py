"""`hbagent sim`: a datacenter in one process, with the production cores, seeded faults and an independent checker.

The same line gives the same run, to the nanosecond; a run in which an invariant broke prints the line that repeats it.
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from hbagent.cli import EXIT_DEFECT, EXIT_USAGE
from hbagent.sim.faults import CATALOG
from hbagent.sim.run import Percentiles, Result, simulate
from hbagent.sim.scenario import Scenario

#: Violations shown in a table; json has more.
_SHOWN_MAX = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `sim`."""
    default = Scenario()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "faults:\n" + "\n".join(
        f"  {name:<16}{(fault.__doc__ or '').splitlines()[0]}" for name, fault in CATALOG.items()
    )
    parser.add_argument("--hosts", metavar="N", type=int, default=default.hosts, help="default: %(default)s")
    parser.add_argument("--racks", metavar="R", type=int, default=default.racks, help="default: %(default)s")
    parser.add_argument(
        "--leaders", metavar="L", type=int, default=default.leaders, help="to a rack; default: %(default)s"
    )
    parser.add_argument(
        "--seconds", metavar="S", type=int, default=default.seconds, help="virtual; default: %(default)s"
    )
    parser.add_argument("--seed", metavar="K", type=int, default=default.seed, help="default: %(default)s")
    parser.add_argument("--loss", metavar="P", type=float, default=0.0, help="share of frames lost; default: 0")
    parser.add_argument(
        "--fault", metavar="NAME", action="append", choices=tuple(CATALOG), default=[], help="see below"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Simulate and print.

    Returns 0; `EXIT_DEFECT` when an invariant broke, for then the cores are wrong, or the checker is; `EXIT_USAGE`
    for what cannot be run.
    """
    scenario = Scenario(
        hosts=args.hosts,
        racks=args.racks,
        leaders=args.leaders,
        seconds=args.seconds,
        seed=args.seed,
        loss=args.loss,
        faults=tuple(args.fault),
    )
    problem = scenario.problem()
    if problem:
        print(f"hbagent: {problem}", file=sys.stderr)
        return EXIT_USAGE
    result = simulate(scenario)
    print(msgspec.json.encode(result).decode() if args.output == "json" else table(result))
    if result.ok:
        return 0
    print(f"hbagent: {result.violation_count} violations; to see them again: {result.command}", file=sys.stderr)
    return EXIT_DEFECT


def table(result: Result) -> str:
    """The result for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in result.kinds.items()) or "none"
    lines = [
        ("run", result.command),
        ("trace", result.trace),
        ("speed", f"{result.seconds} s in {result.elapsed_s:.2f} s, {result.speed:.1f} times real time"),
        ("beats", f"{result.beats} taken in; {result.frames_lost} of {result.frames_sent} lossy frames lost"),
        ("events at root", kinds),
        ("hook runs", str(result.hook_runs)),
        ("stops", str(result.stops)),
        ("SUSPECT after", _spread(result.suspect_s)),
        ("DEAD after", _spread(result.dead_s)),
        ("DEAD at root after", _spread(result.dead_at_root_s)),
        ("violations", str(result.violation_count)),
    ]
    text = [f"{name:<19}{value}" for name, value in lines]
    text.extend(f"  {violation}" for violation in result.violations[:_SHOWN_MAX])
    return "\n".join(text)


def _spread(times: Percentiles) -> str:
    if times.p50 is None:
        return "none"
    return f"p50 {times.p50:.3f} s, p99 {times.p99:.3f} s, largest {times.max:.3f} s of {times.count}"
