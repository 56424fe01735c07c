"""`hbagent probe run NAME` runs one probe of this host's agent once, as its prober would; `probe list` lists them.

The agent need not run, and does not learn of it. The run has a disposable process as in the prober, so a probe that
hangs, forks or burns ends with this command and not later. Exit code of `run`: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN,
as Nagios plugins have it.
"""

from __future__ import annotations

import argparse
import random
import select
import sys
import time
from pathlib import Path

import msgspec

from hbagent.core.config import ProbeConfig
from hbagent.core.effects import RunCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.probe import Probe
from hbagent.core.states import Health
from hbagent.core.units import MILLISECOND, SECOND, show_duration
from hbagent.role.settings import load_agent
from hbagent.role.settings.problems import did_you_mean

from . import EXIT_USAGE, terminal
from .agent_cmd import DEFAULT_CONFIG
from .grid import Cell, Column, Grid, Screen, clean, paint
from .render import as_json

_CODES = {Health.OK: 0, Health.WARNING: 1, Health.CRITICAL: 2, Health.UNKNOWN: 3}
_TONES = {Health.OK: "good", Health.WARNING: "warn", Health.CRITICAL: "bad", Health.UNKNOWN: "unknown"}
_COLUMNS = (
    Column("PROBE"),
    Column("KIND"),
    Column("EVERY", rank=2, right=True),
    Column("TIMEOUT", rank=3, right=True),
    Column("APP", rank=1),
    Column("WHAT", rank=4, cut=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`run NAME` and `list`."""
    actions = parser.add_subparsers(metavar="run|list", required=True, dest="action")
    run_one = actions.add_parser("run", help="run a probe once and say what it finds", allow_abbrev=False)
    run_one.add_argument("name", metavar="NAME", help="the probe, as in the agent's file")
    run_one.epilog = "Exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."
    for action in (run_one, actions.add_parser("list", help="list the probes of this host", allow_abbrev=False)):
        action.add_argument(
            "--config", metavar="FILE", type=Path, default=Path(DEFAULT_CONFIG), help="default: %(default)s"
        )
        terminal.add_output_arguments(action, ("table", "json"))


def run(args: argparse.Namespace) -> int:
    """Run or list. Raises ConfigError for a bad file."""
    probes = {probe.name: probe for probe in load_agent(args.config).prober.probes}
    if args.action == "list":
        print("\n".join(_listed(list(probes.values()), args.output, terminal.screen(args))))
        return 0
    config = probes.get(args.name)
    if config is None:
        hint = did_you_mean(args.name, probes) or "; hbagent probe list tells which there are"
        print(f"hbagent: {args.config} has no probe {args.name!r}{hint}", file=sys.stderr)
        return EXIT_USAGE
    found = run_once(config)
    if args.output == "json":
        print(as_json({"schema": 1, "probe": found.document()}))
    else:
        print("\n".join(found.lines(terminal.screen(args))))
    return _CODES[found.health]


class Found:
    """What one run of a probe came to."""

    def __init__(self, config: ProbeConfig, finished: CheckFinished) -> None:
        now = time.monotonic_ns()
        # Once is enough here, and there is something to tell also where the prober would leave it out.
        trusting = msgspec.structs.replace(config, rise=1, fall=1, start_grace_ns=0, default=False)
        probe = Probe(trusting, random.Random(), now)
        probe.finish(finished, now)
        row = probe.row(now)
        assert row is not None
        self._row = row
        self._finished = finished
        self.health = row.health

    def document(self) -> dict[str, object]:
        """For programs."""
        row, finished = self._row, self._finished
        return {
            "name": row.name,
            "kind": row.kind,
            "health": row.health.value,
            "text": row.text,
            "applies": finished.applies,
            "timed_out": finished.timed_out,
            "abandoned": finished.abandoned,
            "duration_s": round(finished.duration_ns / SECOND, 6),
            "app": row.app,
            "measures": [msgspec.to_builtins(measure) for measure in row.measures],
        }

    def lines(self, screen: Screen) -> list[str]:
        """For people."""
        row, finished = self._row, self._finished
        state = paint(row.health.value, _TONES[row.health], screen)
        lines = [f"{state}  {row.name} ({row.kind}): {clean(row.text, screen)}"]
        if not finished.applies:
            lines.append("  there is nothing that it could look at: as a default probe it is left out")
        if finished.abandoned:
            lines.append(f"  {finished.abandoned} processes do not die: they are stuck in the kernel")
        table = [
            [Cell(clean(text, screen)) for text in (measure.label, _number(measure.value), measure.unit)]
            + [Cell(clean(text, screen)) for text in (measure.warning, measure.critical)]
            for measure in row.measures
        ]
        if table:
            columns = ("MEASURE", "VALUE", "UNIT", "WARNING", "CRITICAL")
            grid = Grid([Column(title, right=title == "VALUE") for title in columns], screen)
            lines += [f"  {line}" for line in grid.lines(table)]
        return [*lines, f"  took {show_duration(finished.duration_ns)}"]


def run_once(config: ProbeConfig) -> Found:
    """Run the probe in a process of its own, which is gone afterwards with all that it started."""
    from hbagent.offspring import reaper
    from hbagent.offspring.hands import Hands
    from hbagent.role.jobs import JOBS, limit_ns

    order = RunCheck(run=1, name=config.name, check=config.check, timeout_ns=config.timeout_ns)
    reaper.become_subreaper()
    hands = Hands(JOBS, 1)
    try:
        now = time.monotonic_ns()
        hands.start(1, "check", order, limit_ns("check", order), now)
        outcomes = hands.wake(now)
        while not outcomes:
            at = hands.deadline()
            wait_ns = SECOND if at is None else max(0, at - time.monotonic_ns())
            select.select([hands], [], [], (wait_ns + MILLISECOND) / SECOND)
            outcomes = hands.ready(time.monotonic_ns()) or hands.wake(time.monotonic_ns())
    finally:
        hands.close()
    outcome = outcomes[0]
    finished = outcome.value
    if not isinstance(finished, CheckFinished):
        finished = CheckFinished(
            run=1,
            health=Health.UNKNOWN,
            text=outcome.text,
            timed_out=outcome.failure == "timed-out",
            abandoned=outcome.abandoned,
            duration_ns=outcome.duration_ns,
        )
    return Found(config, finished)


def _listed(probes: list[ProbeConfig], form: str, screen: Screen) -> list[str]:
    if form == "json":
        documents = [
            {
                "name": probe.name,
                "kind": _kind(probe),
                "default": probe.default,
                "interval_s": probe.interval_ns / SECOND,
                "timeout_s": probe.timeout_ns / SECOND,
                "app": probe.app,
                "check": msgspec.to_builtins(probe.check),
            }
            for probe in probes
        ]
        return [as_json({"schema": 1, "probes": documents})]
    table = [
        [
            Cell(probe.name),
            Cell(_kind(probe)),
            Cell(show_duration(probe.interval_ns)),
            Cell(show_duration(probe.timeout_ns)),
            Cell(probe.app or "-"),
            Cell(clean(_what(probe), screen)),
        ]
        for probe in probes
    ]
    return Grid(_COLUMNS, screen).lines(table)


def _kind(probe: ProbeConfig) -> str:
    return str(probe.check.__struct_config__.tag)


def _what(probe: ProbeConfig) -> str:
    """What it looks at, in one line: all that is written of it and is not the default."""
    told = msgspec.to_builtins(probe.check)
    usual = {field.name: field.default for field in msgspec.structs.fields(probe.check)}
    parts = []
    for name, value in told.items():
        if name != "type" and value not in (usual.get(name), {}):
            shown = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            parts.append(shown if name in ("argv", "url", "path", "what", "unit") else f"{name}={shown}")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
