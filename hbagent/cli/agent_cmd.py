"""`hbagent agent --config FILE`: run the agent in the foreground until SIGTERM."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_CONFIG = "/etc/hbagent/agent.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `hbagent agent`."""
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=Path(DEFAULT_CONFIG), help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Run the agent; 0 when it ended cleanly, 64 for a bad config, 69 when what it needs is not there."""
    from .daemon import run_daemon

    return run_daemon("agent", args.config)
