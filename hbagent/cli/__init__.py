"""The command line: `hbagent COMMAND ...`. One command a module, loaded only when it is the one that was asked for.

So `hbagent --help` stays fast, and a daemon carries nothing of the commands that it is not. Each module
`cli/<word>_cmd.py` has `add_arguments(parser)` and `run(args) -> int`; with `TAKES_REST`, what stands after "--" comes
as `args.rest`.

Exit codes 0 to 3 belong to the commands (`hbagent status` answers with them); whatever went wrong with the call
itself is 64 or above, so that a typo in a script can never be taken for a rack on fire.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from hbagent import __version__

#: Wrong arguments or a wrong config file (EX_USAGE).
EXIT_USAGE = 64
#: The command is not in this installation (EX_UNAVAILABLE).
EXIT_UNAVAILABLE = 69
#: A defect of hbagent (EX_SOFTWARE); Python's own 1 would read as a warning.
EXIT_DEFECT = 70
#: Ended by Ctrl-C, and by a reader that went away (128 + SIGINT, 128 + SIGPIPE), as shells count it.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

#: Each command: its word, its module and its line in the help.
COMMANDS = (
    ("agent", "hbagent.cli.agent_cmd", "run the agent of a host"),
    ("leader", "hbagent.cli.leader_cmd", "run the leader of one or more racks"),
    ("root", "hbagent.cli.root_cmd", "run the root"),
    ("demo", "hbagent.cli.demo_cmd", "run a whole datacenter on this host"),
    ("status", "hbagent.cli.status_cmd", "what is wrong now; the exit code says how bad"),
    ("console", "hbagent.console.console_cmd", "watch everything on a full screen, and act on it"),
    ("nodes", "hbagent.cli.nodes_cmd", "list the nodes"),
    ("racks", "hbagent.cli.racks_cmd", "list the racks"),
    ("events", "hbagent.cli.events_cmd", "list what happened"),
    ("explain", "hbagent.cli.explain_cmd", "why a node is in its state"),
    ("incidents", "hbagent.cli.incidents_cmd", "list what burns, the worst first"),
    ("ack", "hbagent.cli.ack_cmd", "say that somebody looks after an incident"),
    ("silence", "hbagent.cli.silence_cmd", "tell nobody of something for a while"),
    ("maintenance", "hbagent.cli.maintenance_cmd", "the same for planned work"),
    ("silences", "hbagent.cli.silences_cmd", "list what nobody is told of"),
    ("unsilence", "hbagent.cli.unsilence_cmd", "end a silence or a maintenance"),
    ("why-silent", "hbagent.cli.why_silent_cmd", "why nobody was told of a node or an incident"),
    ("hooks", "hbagent.cli.hooks_cmd", "how the hooks do, and what could not be told"),
    ("forget", "hbagent.cli.forget_cmd", "stop to wait for a node that is gone for good"),
    ("evidence", "hbagent.cli.evidence_cmd", "what was seen of a stuck application on its host"),
    ("accuracy", "hbagent.cli.accuracy_cmd", "how often verdicts were right, and how fast"),
    ("diagnose", "hbagent.cli.diagnose_cmd", "what a process is doing, and whether it is deadlocked"),
    ("check-config", "hbagent.cli.check_config_cmd", "tell every mistake in a config file"),
    ("keys", "hbagent.cli.keys_cmd", "make, show and revoke keys"),
    ("run-app", "hbagent.cli.run_app_cmd", "run a program so that the agent knows it"),
    ("notify", "hbagent.cli.notify_cmd", "tell the agent how a script is doing"),
    ("probe", "hbagent.cli.probe_cmd", "run a probe of this host once, or list them"),
    ("import", "hbagent.cli.import_cmd", "turn another monitoring's checks into probes"),
    ("drill", "hbagent.cli.drill_cmd", "have a program get stuck, and see who is told"),
    ("backup", "hbagent.cli.backup_cmd", "copy the root's history while it goes on"),
    ("doctor", "hbagent.cli.doctor_cmd", "check what this host permits and reaches"),
    ("completion", "hbagent.cli.completion_cmd", "teach a shell the words of hbagent"),
    ("sim", "hbagent.cli.sim_cmd", "run the cores in a simulated datacenter"),
    ("replay", "hbagent.cli.replay_cmd", "feed recorded beats to a detector"),
    ("bench", "hbagent.cli.bench_cmd", "measure this machine"),
)


_PURPOSE = "Says within seconds that a host died, and why."
_EPILOG = 'Each command tells more with "hbagent COMMAND --help".'


class Parser(argparse.ArgumentParser):
    """Ends usage errors with `EXIT_USAGE`: argparse's own 2 would read as "something is dead"."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. `argv` is without the program's name; None takes it from the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: help, version or a usage error
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return EXIT_BROKEN_PIPE
    except Exception as error:
        return _failed(error)


def _run(arguments: list[str]) -> int:
    parser = Parser(prog="hbagent", description=_PURPOSE, epilog=_EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"hbagent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    # No option before the command takes a value, so the first word that is no option is the command.
    asked = next((word for word in arguments if not word.startswith("-")), "")
    rest: list[str] | None = None
    for name, module_name, line in COMMANDS:
        command = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
        if name == asked:
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError as error:
                parser.exit(EXIT_UNAVAILABLE, f"hbagent: {name} needs {error.name}, which is not installed\n")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            if getattr(module, "TAKES_REST", False) and "--" in arguments:
                # Another program's words: argparse would take every "--" out of them.
                at = arguments.index("--")
                arguments, rest = arguments[:at], arguments[at + 1 :]
    if asked and asked not in commands.choices:
        parser.error(f'no command "{asked}"{_did_you_mean(asked)}')
    args = parser.parse_args(arguments, argparse.Namespace(rest=rest))
    return int(args.run(args))


def _did_you_mean(word: str) -> str:
    import difflib  # only for a typo

    near = difflib.get_close_matches(word[:40], [name for name, _, _ in COMMANDS], n=1)
    return f', did you mean "{near[0]}"?' if near else '; "hbagent --help" lists them'


def _failed(error: Exception) -> int:
    # A command that met one of these has loaded its module already; any other error has cost more than this import.
    from hbagent.role.settings import ConfigError

    if isinstance(error, ConfigError):
        print("\n".join(f"hbagent: {problem}" for problem in error.problems), file=sys.stderr)
        return EXIT_USAGE
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)
    return EXIT_DEFECT


def _drop_output() -> None:
    """Point standard output at nothing, or the interpreter complains when it flushes on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
