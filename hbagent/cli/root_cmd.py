"""`hbagent root --config FILE`: run the root in the foreground until SIGTERM."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_CONFIG = "/etc/hbagent/root.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `hbagent root`."""
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=Path(DEFAULT_CONFIG), help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Run the root; 0 when it ended cleanly, 64 for a bad config, 69 when what it needs is not there."""
    from .daemon import run_daemon

    return run_daemon("root", args.config)
