"""`hbagent check-config FILE...`: tells every mistake in config files, without touching anything that runs.

Only the files themselves are read, so a config can be checked on another host than its own. What they name (keys,
allow-list, hooks) is looked at by `hbagent doctor`, on the host that has it. But where `CREDENTIALS_DIRECTORY` says
where systemd's copies of keys would lie, as it does in a unit, those keys are looked at too.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
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
from hbagent.transport import keys

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
            problems = list(credential_problems(settings))
            for problem in problems:
                print(f"{file}: {problem}", file=sys.stderr)
                code = EXIT_USAGE
            if not problems:
                print(f"{file}: ok ({owner(settings)})")
            for hook in settings.core.hooks if isinstance(settings, RootSettings) else ():
                for text in advice(hook):
                    print(f'{file}: warning: hook "{hook.name}": {text}', file=sys.stderr)
    return code


def credential_problems(settings: AnySettings) -> Iterator[str]:
    """What is wrong with keys that systemd hands to the unit, where the environment says where they lie."""
    if isinstance(settings, OperatorSettings) or not os.environ.get(keys.CREDENTIALS_VARIABLE):
        return
    name = settings.core.node if isinstance(settings, AgentSettings) else settings.core.name
    rotation = None if isinstance(settings, AgentSettings) else settings.rotation
    for section, key in (("security", settings.security.key), ("rotation", rotation.key if rotation else None)):
        if key is None or not str(key).startswith(keys.CREDENTIAL):
            continue
        try:
            pair = keys.load_secret(key)
        except keys.KeyFileError as error:
            yield f"[{section}]: key: {error}"
        else:
            if pair.name != name:
                yield f"[{section}]: key: {key} is the key of {pair.name}, not of {name}"


def owner(settings: AnySettings) -> str:
    """Whose settings these are: "leader dc1/rack07-leader1"."""
    if isinstance(settings, OperatorSettings):
        return f"operator of {settings.connect}"
    if isinstance(settings, AgentSettings):
        return f"agent {settings.core.node}"
    role = "leader" if isinstance(settings, LeaderSettings) else "root"
    return f"{role} {settings.core.name}"
