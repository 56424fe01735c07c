"""`hbagent doctor`: looks at what daemons of this host need, and says of each thing whether it is well and what to do.

Exit code: 2 when something fails, 1 when something deserves a look, else 0. Without a config file it looks at every
daemon that has one in the default place.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from hbagent.role.settings import ConfigError, OperatorSettings, RootSettings, load_any

from . import terminal
from .checks import (
    BY_HAND,
    FAIL,
    OK,
    WARN,
    Finding,
    daemon_findings,
    host_findings,
    name_of,
    out_of_sight,
    role_of,
)
from .grid import Screen, clean, paint
from .operator_checks import operator_findings, port_findings
from .query import CONFIG_VARIABLE
from .render import as_json

DEFAULT_CONFIGS = tuple(Path("/etc/hbagent", f"{role}.toml") for role in ("root", "leader", "agent"))
_TONES = {OK: "good", WARN: "warn", FAIL: "bad"}
_EXIT_CODES = {OK: 0, WARN: 1, FAIL: 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit code: 2 when something fails, 1 when something deserves a look, else 0."
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        action="append",
        help=f"config file of an agent, leader or root; may be repeated (else ${CONFIG_VARIABLE}, else what is in "
        f"{DEFAULT_CONFIGS[0].parent})",
    )
    terminal.add_output_arguments(parser, ("table", "json"))


def run(args: argparse.Namespace) -> int:
    findings: list[Finding] = []
    shape = terminal.screen(args)
    for finding in examine(configs(args.config, os.environ)):
        findings.append(finding)
        if args.output == "table":
            # Each as soon as it is known: a host that does not answer takes seconds.
            print("\n".join(finding_lines(finding, shape)), flush=True)
    if args.output == "json":
        print(as_json({"schema": 1, "findings": msgspec.to_builtins(findings)}))
    return max(_EXIT_CODES[finding.grade] for finding in findings)


def configs(given: Iterable[Path] | None, environment: Mapping[str, str]) -> list[Path]:
    """The files to look at: those given, or that of the environment, or those in the default place."""
    if given:
        return list(given)
    if environment.get(CONFIG_VARIABLE):
        return [Path(environment[CONFIG_VARIABLE])]
    return [path for path in DEFAULT_CONFIGS if os.path.lexists(path)]


def examine(files: Iterable[Path]) -> Iterator[Finding]:
    """Every finding about this host and the daemons of these files."""
    yield from host_findings()
    files = list(files)
    if not files:
        places = DEFAULT_CONFIGS[0].parent
        yield Finding(WARN, "config", f"no config file in {places}: name one with --config FILE to have it looked at")
    for file in files:
        if out_of_sight(file):
            text = f"{file}: not readable by this user, nor is its daemon looked at; as root: {BY_HAND} hbagent doctor"
            yield Finding(WARN, "config", text)
            continue
        try:
            settings = load_any(file)
        except ConfigError as error:
            for problem in error.problems:
                yield Finding(FAIL, "config", f"{problem}: mend it; hbagent check-config {file} tells when it is right")
            continue
        if isinstance(settings, OperatorSettings):
            yield Finding(OK, "config", f"{file}: operator of {settings.connect}")
            yield from operator_findings(settings, file)
            continue
        yield Finding(OK, "config", f"{file}: {role_of(settings)} {name_of(settings)}")
        yield from daemon_findings(settings, file)
        if isinstance(settings, RootSettings):
            yield from port_findings(settings)


def finding_lines(finding: Finding, screen: Screen) -> list[str]:
    """A finding as text: its grade, what was looked at, and what to do, wrapped to the screen."""
    text = clean(finding.text, screen)
    head = f"{finding.grade:<4}  {finding.what:<10}  "
    lines = [text]
    if screen.width is not None:
        import textwrap

        room = max(20, screen.width - len(head))
        lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    painted = paint(f"{finding.grade:<4}", _TONES[finding.grade], screen) + head[4:]
    return [(painted if at == 0 else " " * len(head)) + line for at, line in enumerate(lines)]
