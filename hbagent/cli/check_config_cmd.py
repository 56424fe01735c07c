"""`hbagent check-config FILE...`: tells every mistake in config files, without touching anything that runs.

Only the files themselves are read, so a config can be checked on another host than its own. What they name (keys,
allow-list, hooks) is looked at by `hbagent doctor`, on the host that has it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hbagent.cli import EXIT_USAGE
from hbagent.role.settings import (
    AgentSettings,
    AnySettings,
    ConfigError,
    LeaderSettings,
    OperatorSettings,
    RootSettings,
    load_any,
)

from .advice import advice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `check-config`."""
    parser.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="config file of an agent, leader, root or operator"
    )
    parser.epilog = "Keys, allow-list and hooks that a file names are looked at by: hbagent doctor --config FILE"


def run(args: argparse.Namespace) -> int:
    """Check each file. Returns 0 when all can be used, else `EXIT_USAGE`; what is wrong or odd is on standard error."""
    code = 0
    for file in args.files:
        try:
            settings = load_any(file)
        except ConfigError as error:
            print(error, file=sys.stderr)
            code = EXIT_USAGE
        else:
            print(f"{file}: ok ({owner(settings)})")
            for hook in settings.core.hooks if isinstance(settings, RootSettings) else ():
                for text in advice(hook):
                    print(f'{file}: warning: hook "{hook.name}": {text}', file=sys.stderr)
    return code


def owner(settings: AnySettings) -> str:
    """Whose settings these are: "leader dc1/rack07-leader1"."""
    if isinstance(settings, OperatorSettings):
        return f"operator of {settings.connect}"
    if isinstance(settings, AgentSettings):
        return f"agent {settings.core.node}"
    role = "leader" if isinstance(settings, LeaderSettings) else "root"
    return f"{role} {settings.core.name}"
