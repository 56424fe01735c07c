"""The whole command line as plain data, read from its parsers: what completions and manual pages are written from.

It loads every command, so only what writes about all of them uses it.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from . import COMMANDS, Parser
from .answers import STATES


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One option, or one value that stands without a word."""

    #: "-o", "--output"; none for a value without.
    words: tuple[str, ...]
    #: As it is called in a usage line; "" for an option that takes no value.
    value: str
    help: str
    choices: tuple[str, ...] = ()
    #: What may stand there: file, node, or "" for anything.
    kind: str = ""
    required: bool = False
    #: It may come again.
    many: bool = False


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command, or one below another."""

    #: "status"; "keys init".
    name: str
    line: str
    epilog: str
    options: tuple[Argument, ...]
    values: tuple[Argument, ...]
    below: tuple[Command, ...] = ()
    #: What stands after "--" is another program's.
    takes_rest: bool = False


def commands() -> tuple[Command, ...]:
    """Every command, in the order of the help."""
    return tuple(_loaded(*entry) for entry in COMMANDS)


def _loaded(name: str, module_name: str, line: str) -> Command:
    module = importlib.import_module(module_name)
    parser = Parser(prog=f"hbagent {name}", description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
    module.add_arguments(parser)
    return _command(name, line, parser, getattr(module, "TAKES_REST", False))


def _command(name: str, line: str, parser: argparse.ArgumentParser, takes_rest: bool) -> Command:
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    plain = [action for action in shown if not isinstance(action, argparse._SubParsersAction)]
    arguments = [_argument(parser, action) for action in plain]
    return Command(
        name=name,
        line=line,
        epilog=parser.epilog or "",
        options=tuple(argument for argument in arguments if argument.words),
        values=tuple(argument for argument in arguments if not argument.words),
        below=tuple(_below(name, shown)),
        takes_rest=takes_rest,
    )


def _below(name: str, actions: Sequence[argparse.Action]) -> Iterator[Command]:
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for word, parser in action.choices.items():
                yield _command(f"{name} {word}", lines.get(word, ""), parser, False)


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    takes = action.nargs != 0
    value = action.metavar if isinstance(action.metavar, str) else (action.dest.upper() if takes else "")
    choices = tuple(str(choice) for choice in action.choices) if action.choices is not None else ()
    if value == "STATE,...":
        choices = STATES
    kind = "node" if value == "NODE" else "file" if action.type is Path or value in ("FILE", "DIR", "PATH") else ""
    formatter = parser._get_formatter()
    return Argument(
        words=tuple(action.option_strings),
        value=value if takes else "",
        help=formatter._expand_help(action) if action.help else "",
        choices=choices,
        kind=kind,
        required=action.required,
        many=action.nargs in ("*", "+") or isinstance(action, (argparse._AppendAction, argparse._ExtendAction)),
    )
