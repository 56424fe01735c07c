"""`hbagent maintenance`: a silence that is planned work, and is called so wherever it is shown.

It takes the same words as `hbagent silence`, and is ended with `hbagent unsilence`.
"""

from __future__ import annotations

import argparse

from . import silence_cmd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    silence_cmd.add_window_arguments(parser, "maintenance")


def run(args: argparse.Namespace) -> int:
    return silence_cmd.order(args, maintenance=True)
