"""The root's config file, for commands that go to its store and not to the root: they work while it is down, too."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hbagent.role.settings import RootSettings, load_root

from .query import CONFIG_VARIABLE, DEFAULT_CONFIGS, NoTarget


def add_argument(parser: argparse.ArgumentParser) -> None:
    """--config."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS,
        help=f"root.toml (else ${CONFIG_VARIABLE}, else {DEFAULT_CONFIGS[0]}); run it on the root's host",
    )


def settings_of(args: argparse.Namespace) -> RootSettings:
    """The settings of the root that is meant. Raises NoTarget, ConfigError."""
    path = getattr(args, "config", None) or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIGS[0]
    if not os.path.lexists(path):
        raise NoTarget(f"there is no {path}; name the root's file with --config FILE, on the root's host")
    return load_root(path)
