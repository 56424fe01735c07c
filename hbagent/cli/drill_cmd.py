"""`hbagent drill deadlock|freeze|crash`: would anybody be told?

A harmless program is started under an agent and really gets stuck. What must happen then is watched from the root,
stage by stage, until a hook has run; the first stage that does not come in its time is named. Without `--node` it runs
on this host, beside its agent; with it the root has it started there, where that agent's config allows drills. A drill
that is under way there is waited for.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from hbagent.core.drill import LENGTH_NS, OUTCOMES, PREFIX, UNDER_WAY, VERDICT_NS, WARM_UP_NS, WINDOW_NS
from hbagent.core.names import is_node
from hbagent.core.states import Health, Kind, Liveness
from hbagent.core.units import SECOND
from hbagent.transport.teller import address_of, settle

from . import query, terminal
from .answers import Row, liveness_of, row, rows, word
from .grid import Screen, clean
from .render import as_json

#: A stage did not come in its time.
EXIT_BROKEN = 2
#: Others have drills under way, so nothing was tried and nothing is known.
EXIT_BUSY = 3
#: The agent's prober answers a datagram within milliseconds.
PROBER_S = 2.0
#: So long a drill that is under way is waited for, and asked about: one of another operator may come first.
WAIT_S = 2 * LENGTH_NS / SECOND
WAIT_AGAIN_S = 2.0
#: From the hand-over to the hook's end: hooks start within milliseconds, and may take a while for what they do.
HOOK_S = 10.0
#: A report travels at once; a summary each second repairs what was lost.
REPORT_S = 3.0
#: Between two looks at the root.
LOOK_S = 0.05


class Stage(msgspec.Struct, frozen=True):
    """One step of the way from the program to the hook."""

    stage: str
    ok: bool
    #: Since the drill was started, in seconds.
    after_s: float
    text: str


class Broken(Exception):
    """A stage did not come; `stage` is its name, the text says what was seen instead and what to look at."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage


class Busy(Exception):
    """The drill was not begun because of others; the text says of which."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("drill", choices=tuple(OUTCOMES), help="what is to happen to the program")
    parser.add_argument("--node", metavar="NODE", type=_node, help="run it there (default: on this host)")
    parser.add_argument(
        "--notify",
        metavar="PATH",
        help="socket of this host's agent (default: $HBAGENT_NOTIFY, /run/hbagent/notify)",
    )
    parser.add_argument(
        "--no-wait", dest="wait", action="store_false", help="do not wait for the drill that is under way there"
    )
    query.add_arguments(parser)
    terminal.add_output_arguments(parser, ("table", "json"))


def _node(text: str) -> str:
    if not is_node(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a full name as in dc1/rack07/host12")
    return text


def run(args: argparse.Namespace) -> int:
    return query.answered(args, lambda asker: _run(args, asker))


def _run(args: argparse.Namespace, asker: query.Asker) -> int:
    screen = terminal.screen(args)

    def waits(text: str) -> None:
        print(f"waiting: {clean(text, screen)}", file=sys.stdout if args.output == "table" else sys.stderr, flush=True)

    notify = args.notify or address_of(os.environ)
    drill = Drill(args.drill, args.node, notify, asker, waits if args.wait else None)
    stages: list[Stage] = []
    busy = ""
    try:
        for stage in drill.stages():
            stages.append(stage)
            if args.output == "table":
                print(_line(stage, screen), flush=True)
    except Busy as error:
        busy = str(error)
    ok = None if busy else stages[-1].ok
    if args.output == "json":
        told = msgspec.to_builtins(stages)
        about = {"schema": 1, "drill": args.drill, "node": drill.node or None, "ok": ok}
        print(as_json({**about, **({"busy": busy} if busy else {}), "stages": told}))
    elif busy:
        print(f"not tried: {clean(busy, screen)}")
    elif not ok:
        print(f"broken at: {stages[-1].stage}")
    return EXIT_BUSY if busy else 0 if ok else EXIT_BROKEN


def _line(stage: Stage, screen: Screen) -> str:
    mark = ("✓" if stage.ok else "✗") if screen.unicode else ("ok" if stage.ok else "!!")
    return f"{stage.after_s:7.2f} s  {mark} {stage.stage:<8}  {clean(stage.text, screen)}"


class Drill:
    """One drill, from its start to its end."""

    def __init__(
        self, kind: str, node: str | None, notify: str, asker: query.Asker, waits: Callable[[str], None] | None = None
    ) -> None:
        """`waits` is told once why it waits; None: it does not."""
        self.node = node or ""
        self._kind = kind
        self._notify = notify
        self._asker = asker
        self._waits = waits
        self._remote = node is not None
        self._app = f"{PREFIX}{secrets.token_hex(3)}"
        self._begun = time.monotonic()
        self._event: Row = {}
        self._program: subprocess.Popen[bytes] | None = None

    def stages(self) -> Iterator[Stage]:
        """Each stage as it comes; the last one says how it ended. Raises Busy."""
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("agent", self._look_at_agent),
            ("prober", self._start),
            ("report", self._wait_for_report),
            ("verdict", self._wait_for_verdict),
            ("event", self._wait_for_event),
            ("hook", self._wait_for_hook),
        )
        try:
            for name, step in steps:
                try:
                    text = step()
                except Broken as broken:
                    yield Stage(broken.stage, False, self._after(), str(broken))
                    return
                yield Stage(name, True, self._after(), text)
        finally:
            self._end()

    def _after(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    # ---- the stages --------------------------------------------------------------------------------------

    def _look_at_agent(self) -> str:
        status = query.status(self._asker)
        if not self._remote:
            return f"the {self._asker.target.role or 'root'} answers; the program runs on this host"
        found = next((node for node in rows(status, "nodes") if word(node, "node") == self.node), None)
        if found is None:
            raise Broken("agent", f"nobody knows the node {self.node}; see: hbagent nodes")
        if liveness_of(found) != Liveness.ALIVE.value:
            cause = word(found, "cause")
            text = (
                f"{self.node} is {liveness_of(found)}{f' ({cause})' if cause else ''}; see: hbagent explain {self.node}"
            )
            raise Broken("leader" if cause in ("leader-lost", "observer-stalled") else "agent", text)
        return f"{self.node} is ALIVE"

    def _start(self) -> str:
        self._begun = time.monotonic()
        if self._remote:
            try:
                self._order()
            except query.Denied as error:
                # Whoever did not answer in time is named first.
                leaders = [word(leader, "leader") for leader in rows(self._rack_row(), "leaders")]
                stage = "leader" if any(str(error).startswith(f"{leader} ") for leader in leaders) else "agent"
                raise Broken(stage, str(error)) from error
            return f"{self._app} was started on {self.node}"
        try:
            taken = settle(self._notify, PROBER_S)
        except OSError as error:
            text = f"{self._notify}: {error.strerror or error}; does the agent run here, with its prober?"
            raise Broken("agent", text) from error
        if not taken:
            text = f"nobody takes what arrives at {self._notify} (waited {PROBER_S:g} s): the agent's prober is stuck"
            raise Broken("prober", text)
        self._program = subprocess.Popen(
            [
                *(sys.executable, "-m", "hbagent.demo.victim", "--drill", self._kind, "--app", self._app),
                *("--after", f"{WARM_UP_NS / SECOND:g}", "--for", f"{LENGTH_NS / SECOND:g}"),
                *("--window", f"{WINDOW_NS / SECOND:g}"),
            ],
            env={**os.environ, "NOTIFY_SOCKET": self._notify},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        return f"{self._app} was started, process {self._program.pid}"

    def _order(self) -> None:
        """Have the root begin it, once no other is under way. Raises Denied, Busy."""
        asked_at, told = self._begun, False
        while True:
            self._begun = time.monotonic()
            try:
                self._asker.ask("drill", node=self.node, drill=self._kind, app=self._app)
                return
            except query.Denied as error:
                if UNDER_WAY not in str(error):
                    raise
                if self._waits is None:
                    raise Busy(str(error)) from error
                if self._begun - asked_at >= WAIT_S:
                    raise Busy(f"{error}; waited {WAIT_S:g} s") from error
                if not told:
                    self._waits(str(error))
                told = True
            time.sleep(WAIT_AGAIN_S)

    def _wait_for_report(self) -> str:
        app = self._wait(WARM_UP_NS / SECOND, self._find)
        if app is None:
            if self._remote:
                text = f"{self.node} told nothing of {self._app} within {WARM_UP_NS // SECOND} s"
                raise Broken("report", f"{text}; see the agent's log there, and: hbagent explain {self.node}")
            text = f"the root was told nothing of {self._app} within {WARM_UP_NS // SECOND} s"
            raise Broken("report", f"{text}; is this host's agent one of its nodes? See: hbagent nodes, hbagent doctor")
        return f"the root knows it on {self.node}, {word(app, 'state')}"

    def _wait_for_verdict(self) -> str:
        wanted, stall = OUTCOMES[self._kind]
        stuck_at = WARM_UP_NS + (0 if self._kind == "crash" else WINDOW_NS)
        until_s = (stuck_at + VERDICT_NS) / SECOND - (time.monotonic() - self._begun) + REPORT_S
        app = self._wait(until_s, lambda: self._find(lambda app: word(app, "health") == wanted.value))
        if app is None:
            found = self._find()
            if found is None:
                raise Broken("report", f"{self._app} is not known to the root any more")
            if word(found, "health") != Health.OK.value:
                text = f"it is {word(found, 'health')} and not {wanted.value}: {word(found, 'text')}"
                raise Broken("verdict", f"{text}; see: hbagent doctor, on {self.node}")
            agent = self._node_row()
            text = f"{self.node} still says {word(found, 'state')}, and the node is {liveness_of(agent)}"
            raise Broken("prober", f"{text}; see the agent's log there")
        if stall is not None and word(app, "stall") != stall.value:
            raise Broken("verdict", f"it was found {word(app, 'stall')} and not {stall.value}: {word(app, 'text')}")
        return f"{wanted.value}: {word(app, 'text')}"

    def _wait_for_event(self) -> str:
        def told() -> Row | None:
            events = rows(query.as_row(self._asker, self._asker.ask("events", node=self.node, limit=100)), "events")
            for event in events:
                if word(event, "kind") == Kind.HEALTH_CHANGED.value and self._is_about(event):
                    return event
            return None

        event = self._wait(REPORT_S, told)
        if event is None:
            raise Broken("event", f"no health-changed of {self._app} in the history of the root; see: hbagent events")
        self._event = event
        return f"health-changed {word(event, 'event_id')}"

    def _is_about(self, event: Row) -> bool:
        wanted = OUTCOMES[self._kind][0].value
        changes = rows(row(event, "evidence"), "changes")
        return any(word(change, "name") == self._app and word(change, "after") == wanted for change in changes)

    def _wait_for_hook(self) -> str:
        seen: list[Row] = []

        def done() -> Row | None:
            answer = query.as_row(self._asker, self._asker.ask("runs", event=word(self._event, "event_id")))
            seen[:] = rows(answer, "runs")
            return next((run for run in seen if word(run, "state") == "done"), None)

        run = self._wait(HOOK_S, done)
        if run is not None:
            return f"hook {word(run, 'hook')} ran"
        if not seen:
            raise Broken("hook", 'no hook is told of a drill: give one on = ["health-changed", ...] in root.toml')
        failed = ", ".join(f"{word(one, 'hook')} is {word(one, 'state')}" for one in seen)
        raise Broken("hook", f"no hook ran to its end within {HOOK_S:g} s: {failed}; see the root's log")

    # ---- looking -----------------------------------------------------------------------------------------

    def _wait(self, length_s: float, look: Callable[[], Row | None]) -> Row | None:
        """What `look` finds, as soon as it does; None when the time is over."""
        until = time.monotonic() + length_s
        while True:
            found = look()
            if found is not None or time.monotonic() >= until:
                return found
            time.sleep(LOOK_S)

    def _find(self, wanted: Callable[[Row], bool] = lambda app: True) -> Row | None:
        """The line of the program at the root; the node that it is on is known from then on."""
        for node in rows(query.status(self._asker), "nodes"):
            for app in rows(node, "apps"):
                if word(app, "name") == self._app and wanted(app):
                    self.node = word(node, "node")
                    return app
        return None

    def _node_row(self) -> Row:
        nodes = rows(query.status(self._asker), "nodes")
        return next((node for node in nodes if word(node, "node") == self.node), {})

    def _rack_row(self) -> Row:
        racks = rows(query.status(self._asker), "racks")
        return next((rack for rack in racks if self.node.startswith(f"{word(rack, 'rack')}/")), {})

    def _end(self) -> None:
        """Have the program end and be forgotten; one on another host does so by itself."""
        if self._program is None:
            return
        self._program.terminate()
        try:
            self._program.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
