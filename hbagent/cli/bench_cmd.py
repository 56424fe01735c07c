"""`hbagent bench NAME`: measure this machine; every figure with its unit in its name."""

from __future__ import annotations

import argparse
import importlib

import msgspec

#: Each bench and, for `--quick`, its shorter run: what a test can afford.
_BENCHES: dict[str, tuple[str, dict[str, float]]] = {
    "intake": ("what a beat costs a leader, beside a loop that only receives it", {"windows": 3, "seconds": 0.5}),
    "agent": (
        "what an agent and its prober cost, and how evenly it beats beside 200 probes",
        {"agents": 2, "seconds": 5, "windows": 1, "window_seconds": 2},
    ),
    "detect": (
        "how fast a crash, a deadlock, and a host that vanished, is seen",
        {"kills": 4, "vanished": 1, "pauses": 0, "nodes": 4, "deadlocks": 2},
    ),
    "diagnose": (
        "how fast a deadlock is found, what that costs the process, and whether it is ever wrong",
        {"looks": 20, "windows": 2, "racing_seconds": 0.5},
    ),
    "fanout": ("what a tick of the status page costs with a hundred browsers", {"windows": 2, "ticks": 10}),
    "root": (
        "how fast a root of 10,000 nodes answers, bears that all of them change, and starts a hook",
        {"racks": 10, "nodes": 50, "runs": 1, "asked": 4, "hooks": 4},
    ),
    "sim": ("how fast a datacenter is simulated", {"hosts": 1_000, "racks": 25, "seconds": 20}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `hbagent bench`."""
    lines = "; ".join(f"{name}: {line}" for name, (line, _) in _BENCHES.items())
    parser.add_argument("bench", choices=tuple(_BENCHES), metavar="NAME", help=lines)
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works; do not quote it")
    parser.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="default: table")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0."""
    module = importlib.import_module(f"hbagent.bench.{args.bench}")
    figures: dict[str, float] = module.measure(**_BENCHES[args.bench][1]) if args.quick else module.measure()
    if args.output == "json":
        print(msgspec.json.encode({"bench": args.bench, "figures": figures}).decode())
        return 0
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>12,.3f}".rstrip("0").rstrip("."))
    return 0
