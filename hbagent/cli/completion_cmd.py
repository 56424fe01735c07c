"""`hbagent completion SHELL`: the file that teaches a shell the words of hbagent."""

from __future__ import annotations

import argparse

from .completion import SHELLS, script
from .tree import commands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="for which shell")
    parser.epilog = (
        'bash: source <(hbagent completion bash); zsh: the same, or as _hbagent in a directory of "$fpath"; '
        "fish: hbagent completion fish >~/.config/fish/completions/hbagent.fish. Node names come from what hbagent "
        "status, nodes and console showed last on a terminal."
    )


def run(args: argparse.Namespace) -> int:
    print(script(args.shell, commands()), end="")
    return 0
