"""`hbagent demo`: a whole datacenter on this host, to look at, to break, and to learn from."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hbagent.core.units import MILLISECOND
from hbagent.demo.datacenter import SHOP, Datacenter, Plan, wait_until
from hbagent.transport.sockets import EndpointError

from . import EXIT_UNAVAILABLE, answers, query, render, terminal

#: Redrawn this often: often enough to see SUSPECT come before DEAD.
REDRAW_SECONDS = 0.5
#: Eleven Python processes on two busy cores took 4 s.
START_SECONDS = 30.0
RACKS_MAX, NODES_MAX, LEADERS_MAX = 50, 200, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `hbagent demo`."""
    parser.add_argument("--racks", type=_count(RACKS_MAX), default=2, metavar="N", help="racks (default 2)")
    parser.add_argument(
        "--nodes", type=_count(NODES_MAX), default=4, metavar="N", help="nodes of each rack (default 4)"
    )
    parser.add_argument(
        "--leaders", type=_count(LEADERS_MAX), default=1, metavar="N", help="leaders of each rack (default 1)"
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where its files go (default: a new one in /tmp)")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself after this long")
    parser.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="final status as")
    terminal.add_arguments(parser)


def _count(most: int) -> Any:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {most}")
        return int(text)

    return read


def run(args: argparse.Namespace) -> int:
    """Run it until Ctrl-C, or for as long as asked; 0, or 69 when it could not be started."""
    directory = args.dir if args.dir is not None else Path(tempfile.mkdtemp(prefix="hbagent-demo-"))
    plan = Plan(
        racks=args.racks,
        nodes=args.nodes,
        leaders=args.leaders,
        shop=True,
        page=True,
        agent_lines=("drills = true",),
    )
    datacenter = Datacenter(directory, plan)
    try:
        datacenter.write()
    except (OSError, RuntimeError, EndpointError) as error:
        print(f"hbagent: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    with datacenter:
        datacenter.start()
        return _Show(datacenter, args).run()


class _Show:
    """What the demo prints."""

    def __init__(self, datacenter: Datacenter, args: argparse.Namespace) -> None:
        self._datacenter = datacenter
        self._seconds: float | None = args.seconds
        self._json = args.output == "json"
        self._screen = terminal.screen(args)
        self._live = sys.stdout.isatty() and not self._json
        self._target = query.Target(
            endpoint=f"ipc://{datacenter.directory}/run/root.sock", role="root", config=datacenter.config("root")
        )

    def run(self) -> int:
        """From the first process to the last line."""
        started = time.monotonic()
        self._say(self._introduction())
        if not wait_until(self._root_answers, START_SECONDS):
            log = self._datacenter.directory / "log" / "root.log"
            print(f"hbagent: the root did not answer within {START_SECONDS:.0f} s; see {log}", file=sys.stderr)
            return EXIT_UNAVAILABLE
        shown: list[str] = []
        until = started + self._seconds if self._seconds is not None else float("inf")
        try:
            while time.monotonic() < until:
                shown = self._draw(shown)
                time.sleep(max(0.0, min(REDRAW_SECONDS, until - time.monotonic())))
        except KeyboardInterrupt:
            self._say(["", "ending what was started..."])
        self._final()
        return 0

    def _introduction(self) -> list[str]:
        directory, plan = self._datacenter.directory, self._datacenter.plan
        run, hooks = shlex.quote(f"{directory}/run"), shlex.quote(str(self._datacenter.hooks_file))
        config = shlex.quote(str(self._datacenter.config("root")))
        return [
            f"{len(self._datacenter.names)} processes in {directory}: a root, {plan.racks} racks of {plan.nodes} nodes "
            f"with {plan.leaders} leader(s) each",
            f"the status page: {self._datacenter.page}",
            "from another shell:",
            f"  kill -9 $(cat {run}/rack1-node1.pid)     kill an agent",
            f"  kill -USR1 $(cat {run}/{SHOP}.pid)     have an application of that node deadlock",
            f"  {_program()} explain demo/rack1/node1 --config {config}     why it is in its state",
            f"  cat {hooks}     what the hook was told",
            "Ctrl-C ends it all.",
            "",
        ]

    def _root_answers(self) -> bool:
        return self._status() is not None

    def _status(self) -> Any:
        try:
            with query.Asker(self._target, 500 * MILLISECOND) as asker:
                return asker.ask("status")
        except (query.Unanswered, query.NoTarget, query.Denied):
            return None

    def _draw(self, shown: list[str]) -> list[str]:
        """The table again where it stands on a terminal; elsewhere only when a state in it changed."""
        if self._json:
            return shown
        document = self._status()
        if document is None:
            lines = ["the root does not answer"]
        else:
            lines = render.status_lines(document, answers.exit_code(document), self._screen)
        if self._live:
            up = f"\x1b[{len(shown)}A" if shown else ""
            sys.stdout.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
            extra = len(shown) - len(lines)
            if extra > 0:
                sys.stdout.write("\x1b[2K\n" * extra + f"\x1b[{extra}A")
            sys.stdout.flush()
            return lines
        state = _states(document)
        if state != shown:
            self._say([*lines, ""])
        return state

    def _final(self) -> None:
        document = self._status()
        if document is None:
            print("hbagent: the root does not answer", file=sys.stderr)
        elif self._json:
            print(render.as_json(document))
        else:
            self._say(render.status_lines(document, answers.exit_code(document), self._screen))

    def _say(self, lines: list[str]) -> None:
        if not self._json:
            print("\n".join(lines), flush=True)


def _program() -> str:
    """How the reader can call this program from another shell."""
    if shutil.which("hbagent"):
        return "hbagent"
    called = Path(sys.argv[0]).absolute()
    return shlex.quote(str(called)) if called.name == "hbagent" else f"{shlex.quote(sys.executable)} -m hbagent"


def _states(document: Any) -> list[str]:
    """What makes a table worth printing again."""
    if document is None:
        return ["unreachable"]
    nodes = [
        f"{n.get('node')} {n.get('liveness')} {n.get('health')} {n.get('cause')}" for n in document.get("nodes", [])
    ]
    return [*(f"{rack.get('rack')} {rack.get('state')}" for rack in document.get("racks", [])), *nodes]
