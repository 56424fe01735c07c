"""`hbagent import nrpe FILE`: what another monitoring runs on this host, as probes for the agent's file.

The tables go to standard output, to be appended to agent.toml; what could not be turned into one is said on standard
error with its file and line, and makes the exit code 1. Each table is read as the agent itself would before it is
printed, so what is printed is valid. Nothing is run.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hbagent.cli import EXIT_USAGE
from hbagent.core.names import is_part
from hbagent.probes import defaults
from hbagent.role.settings import ConfigError
from hbagent.role.settings.load import read_agent

from .nrpe import Command, Config, Unfit, read, words_of
from .query import say

#: A scheduler asks each five minutes or so; a probe costs a process, and a minute is soon enough for such checks.
INTERVAL_S = 60
#: How long a plugin may take where NRPE does not say: what `check_nrpe` waits for.
TIMEOUT_S = 10
#: Where a program that is named without its directory is looked for, as NRPE's shell would.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAME_LENGTH_MAX = 64

#: The rest of an agent's file, so that a table can be read.
_AROUND = """\
[agent]
node = "dc/rack/host"
[security]
plain = true
[[leader]]
name = "dc/leader"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""


class Probes:
    """The tables that a config was turned into, and what was said on the way."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names: dict[str, Command] = {}
        self.tables: list[str] = []
        #: What could not be turned, and what was, but should be looked at; a line each.
        self.failed: list[str] = [f"{at}: {text}" for at, text in config.problems]
        self.noted: list[str] = []
        for command in config.commands.values():
            try:
                self.tables.append(self._table(command))
            except Unfit as reason:
                self.failed.append(f"{command.at}: command[{command.name}]: {reason}")
        self.failed += _problems("".join(self.tables))

    def _table(self, command: Command) -> str:
        """Raises Unfit."""
        variables, argv = words_of(f"{self._config.prefix} {command.line}".strip())
        comments = [f"# {_one_line(str(command.at))}"]
        argv = _with_whole_path(argv)
        if Path(argv[0]).name == "sudo":
            argv = argv if "-n" in argv[1:2] else [argv[0], "-n", *argv[1:]]
            comments.append("# sudo gains nothing in the agent's sandbox (NoNewPrivileges); see deploy/README.md.")
            self.noted.append(f"{command.at}: command[{command.name}]: sudo gains nothing in the agent's sandbox")
        table = "\n".join([*comments, "[[probe]]", *self._lines(self._name(command), argv, variables), ""])
        problems = _problems(table)
        if problems:
            raise Unfit("; ".join(problems))
        return table

    def _lines(self, name: str, argv: Sequence[str], variables: Mapping[str, str]) -> Iterator[str]:
        timeout_s = self._config.timeout_s if self._config.timeout_s is not None else TIMEOUT_S
        yield f"name = {_quoted(name)}"
        yield 'kind = "exec"'
        yield f"command = [{', '.join(map(_quoted, argv))}]"
        if variables:
            yield f"env = {{ {', '.join(f'{key} = {_quoted(value)}' for key, value in variables.items())} }}"
        yield f'interval = "{INTERVAL_S if timeout_s < INTERVAL_S else 5 * timeout_s}s"'
        yield f'timeout = "{timeout_s}s"'

    def _name(self, command: Command) -> str:
        """Its name as one that a probe may have. Raises Unfit."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", command.name)[:_NAME_LENGTH_MAX].strip("._-")
        if not is_part(name):
            raise Unfit("no name for a probe can be made of this one")
        other = self._names.setdefault(name, command)
        if other is not command:
            raise Unfit(f"would have the name {name!r}, like command[{other.name}] at {other.at}")
        if name != command.name:
            self.noted.append(f"{command.at}: command[{command.name}] is now called {name}")
        if name in defaults.NAMES:
            self.noted.append(f"{command.at}: command[{command.name}] takes the place of hbagent's own probe {name}")
        return name


def _problems(tables: str) -> list[str]:
    """What an agent would say of them."""
    try:
        read_agent(Path("agent.toml"), _AROUND + tables)
    except ConfigError as error:
        return [problem.text for problem in error.problems]
    return []


def _with_whole_path(argv: Sequence[str]) -> list[str]:
    """Raises Unfit for a program that cannot be found."""
    program = argv[0]
    if program.startswith("/"):
        return [*argv]
    found = None if "/" in program else shutil.which(program, path=SEARCH_PATH)
    if found is None:
        raise Unfit(f"{program!r} is no absolute path, and no program of that name is on this host")
    return [found, *argv[1:]]


def _quoted(text: str) -> str:
    """A TOML string."""
    # JSON's are the same but for what it leaves as it is: DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `import`."""
    words = parser.add_subparsers(metavar="nrpe", required=True, dest="word")
    nrpe = words.add_parser("nrpe", allow_abbrev=False, help="the commands of an nrpe.cfg as probes")
    nrpe.add_argument("file", metavar="FILE", type=Path, help="nrpe.cfg; what it includes is read too")
    nrpe.epilog = "Append what is printed to agent.toml. Exit code 1 when something could not be turned into a probe."


def run(args: argparse.Namespace) -> int:
    """Print the tables. Returns 0, 1 when something is missing among them, `EXIT_USAGE` for a file that cannot be
    read."""
    try:
        config = read(args.file)
    except OSError as error:
        say(f"{args.file}: {error.strerror or error}")
        return EXIT_USAGE
    probes = Probes(config)
    print(f"# Commands of {_one_line(str(args.file))}: append them to agent.toml, and try each with hbagent probe run.")
    for table in probes.tables:
        print()
        print(table, end="")
    for text in (*probes.noted, *probes.failed):
        say(text)
    if not probes.tables and not probes.failed:
        say(f"{args.file}: has no command[...]")
        return 1
    if probes.failed:
        print(f"hbagent: {len(probes.failed)} could not be turned, {len(probes.tables)} could", file=sys.stderr)
    return 1 if probes.failed else 0
