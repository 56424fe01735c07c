"""The agent as a process: its sockets, its one worker, and the driver that turns `AgentCore`.

Beats and reports each have a PUB to all leaders of the rack; each leader has a DEALER for the control path. A leader
that refuses this agent's key is called again with a growing wait: libzmq itself would never try again.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from hbagent.core.agent import AgentCore
from hbagent.core.effects import Note, Publish, PublishBeat, Send, TakeFacts
from hbagent.core.messages import FactsTaken, Linked, Reconfigured, Report
from hbagent.core.units import MILLISECOND
from hbagent.probes import facts
from hbagent.transport import sockets
from hbagent.transport.backoff import Backoff
from hbagent.transport.echo import EchoResponder
from hbagent.transport.keys import KeyPair, load_secret
from hbagent.transport.monitor import Link, LinkEvent, Monitor
from hbagent.wire import beat as beat_wire
from hbagent.wire import codec
from hbagent.wire.pages import fit_report

from .control import ControlDealer
from .driver import Driver
from .logs import Log
from .sdnotify import Notifier
from .settings import AgentSettings, Endpoint, load_agent
from .worker import Worker

_BEATS, _REPORTS = "beats", "reports"


class Agent:
    """One agent process. `run` returns when it has left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._settings = load_agent(path)
        settings = self._settings
        self._log = Log("agent", settings.logging.level, settings.logging.format)
        self._notifier = Notifier()
        self._rng = random.Random()
        self._context: sockets.Context = zmq.Context()
        self._echo = self._open_echo(settings)
        config = msgspec.structs.replace(
            settings.core, echo_port=self._echo.port if self._echo is not None else 0, boot_id=_boot_id()
        )
        self.core = AgentCore(config, self._rng, time.monotonic_ns())
        self._driver = Driver(
            self.core,
            {
                PublishBeat: self._publish_beat,
                Publish: self._publish,
                Send: self._send,
                TakeFacts: self._take_facts,
                Note: self._log.note,
            },
            self._notifier,
        )
        self._driver.status = self._status
        self._driver.on_reload = self._reload
        self._facts_state: facts.State | None = None
        self._worker = Worker("facts", self._failed)
        low, high = settings.reconnect_ns
        self._caller = sockets.Caller(
            name=config.node,
            keys=_keys(settings),
            reconnect_ms=self._rng.randint(low, high) // MILLISECOND,
        )
        self._beats = sockets.beat_publisher(self._context, self._caller, ())
        self._reports = sockets.report_publisher(self._context, self._caller, ())
        self._dealers: dict[str, ControlDealer] = {}
        self._monitors: list[Monitor] = []
        self._endpoints: dict[str, Endpoint] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._publishers_refused = Backoff(self._rng)
        self._watch({_BEATS: self._beats, _REPORTS: self._reports})
        for leader in settings.leaders:
            self._add_leader(leader)

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Beat until told to leave."""
        self._driver.catch_signals()
        if self._echo is not None:
            self._driver.add(EchoPort(self._echo, self.core, self._driver))
        config = self._settings.core
        leaders = ",".join(leader.name for leader in self._settings.leaders)
        self._log.write("info", "started", {"node": config.node, "leaders": leaders, "version": config.version})
        self._notifier.ready(self._status())
        try:
            self._driver.run()
        finally:
            self._close()

    def _close(self) -> None:
        for monitor in self._monitors:
            monitor.stop()
        for socket in (self._beats, self._reports, *(dealer.source for dealer in self._dealers.values())):
            # What was said last (a farewell) may still be on its way to the kernel.
            socket.close(linger=100)
        if self._echo is not None:
            self._echo.close()
        self._context.term()
        self._driver.close()
        self._log.close()

    # ---- leaders -----------------------------------------------------------------------------------------

    def _add_leader(self, leader: Endpoint) -> None:
        self._endpoints[leader.name] = leader
        self._backoffs[leader.name] = Backoff(self._rng)
        socket = sockets.control_dealer(self._context, self._caller, ())
        self._watch({leader.name: socket})
        dealer = ControlDealer(socket, leader.name, self._driver.feed)
        self._dealers[leader.name] = dealer
        self._driver.add(dealer)
        sockets.connect(socket, self._caller, sockets.Target(leader.control, leader.public_key))
        target = sockets.Target(leader.publish, leader.public_key)
        sockets.connect(self._beats, self._caller, target)
        sockets.connect(self._reports, self._caller, target)

    def _watch(self, watched: dict[str, sockets.Socket]) -> None:
        self._monitors.append(Monitor(watched, self._link_changed))

    def _link_changed(self, link: Link) -> None:
        """In the monitor's thread: the loop decides."""
        self._driver.mailbox.post(functools.partial(self._on_link, link))

    def _on_link(self, link: Link) -> None:
        if link.event is LinkEvent.REFUSED:
            self._refused(link.socket)
        if link.socket in (_BEATS, _REPORTS):
            return
        if link.event is LinkEvent.UP:
            self._backoffs[link.socket].admitted()
        refused = link.event is LinkEvent.REFUSED
        self._driver.feed("", Linked(link.socket, link.event is LinkEvent.UP, refused))

    def _refused(self, label: str) -> None:
        now = time.monotonic_ns()
        backoff = self._publishers_refused if label in (_BEATS, _REPORTS) else self._backoffs[label]
        if backoff.retry_at is None:
            wait_ns = backoff.refused(now) - now
            self._driver.call_later(now + wait_ns, functools.partial(self._knock_again, label, backoff))

    def _knock_again(self, label: str, backoff: Backoff) -> None:
        """Call again those that refused us."""
        if not backoff.due(time.monotonic_ns()):
            return
        if label in self._endpoints:
            leader = self._endpoints[label]
            socket = self._dealers[label].source
            sockets.reconnect(socket, self._caller, sockets.Target(leader.control, leader.public_key))
            return
        # A monitor tells which address refused, not which leader; calling those that did not refuse costs them one
        # handshake.
        for leader in self._endpoints.values():
            target = sockets.Target(leader.publish, leader.public_key)
            sockets.reconnect(self._beats, self._caller, target)
            sockets.reconnect(self._reports, self._caller, target)

    # ---- effects -----------------------------------------------------------------------------------------

    def _publish_beat(self, effect: PublishBeat) -> None:
        self._beats.send(beat_wire.encode(effect.beat), zmq.NOBLOCK)

    def _publish(self, effect: Publish) -> None:
        report = effect.message
        assert isinstance(report, Report)
        self._reports.send(codec.encode(fit_report(report)), zmq.NOBLOCK)

    def _send(self, effect: Send) -> None:
        dealer = self._dealers.get(effect.peer)
        if dealer is not None:
            dealer.send(effect.message)

    def _take_facts(self, effect: TakeFacts) -> None:
        self._worker.submit(self._read_facts)

    def _read_facts(self) -> None:
        """In the worker's thread."""
        taken, self._facts_state = facts.take(self._facts_state)
        self._driver.post(FactsTaken(taken))

    def _failed(self, error: BaseException) -> None:
        note = Note("error", "facts-failed", {"error": repr(error)})
        self._driver.mailbox.post(functools.partial(self._log.note, note))

    # ---- the echo responder ------------------------------------------------------------------------------

    def _open_echo(self, settings: AgentSettings) -> EchoResponder | None:
        if not settings.echo_bind:
            return None
        return EchoResponder(settings.echo_bind, settings.echo_port, time.monotonic_ns())

    # ---- reload ------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        reloaded(self._path, load_agent, self._log, self._apply)

    def _apply(self, settings: AgentSettings) -> None:
        old = self._settings
        for leader in settings.leaders:
            known = self._endpoints.get(leader.name)
            if known is None:
                self._add_leader(leader)
            elif known != leader:
                self._remove_leader(known)
                self._add_leader(leader)
        names = {leader.name for leader in settings.leaders}
        for gone in [leader for name, leader in self._endpoints.items() if name not in names]:
            self._remove_leader(gone)
        self._settings = settings
        self._log.set_level(settings.logging.level)
        config = msgspec.structs.replace(
            settings.core, node=old.core.node, echo_port=self.core.config.echo_port, boot_id=self.core.config.boot_id
        )
        self._driver.feed("", Reconfigured(config))
        for what in ("security", "echo_bind", "echo_port", "reconnect_ns"):
            if getattr(old, what) != getattr(settings, what):
                self._log.write("warning", "needs-restart", {"setting": what})
        if old.core.node != settings.core.node:
            self._log.write("warning", "needs-restart", {"setting": "node"})

    def _remove_leader(self, leader: Endpoint) -> None:
        dealer = self._dealers.pop(leader.name)
        self._driver.remove(dealer)
        dealer.source.disable_monitor()
        dealer.source.close(linger=0)
        for socket in (self._beats, self._reports):
            sockets.disconnect(socket, sockets.Target(leader.publish))
        del self._endpoints[leader.name], self._backoffs[leader.name]

    def _status(self) -> str:
        admitted = len(self.core.admitted_by)
        return f"beating to {len(self._endpoints)} leaders, admitted by {admitted}, sequence {self.core.sequence}"


class EchoPort:
    """The echo responder as a port. What it answers is taken from the core at that moment."""

    def __init__(self, responder: EchoResponder, core: AgentCore, driver: Driver) -> None:
        self.source = responder.fileno()
        self._responder = responder
        self._core = core
        self._driver = driver
        self._timer_set = False

    def drain(self) -> int:
        """Answer what waits, up to the responder's own bounds."""
        self._responder.use_keys(self._core.echo_keys)
        self._responder.tell(self._core.incarnation, self._core.sequence)
        self._responder.ready(time.monotonic_ns())
        self._set_timer()
        return 0

    def _set_timer(self) -> None:
        at = self._responder.deadline()
        if at is not None and not self._timer_set:
            self._timer_set = True
            self._driver.call_later(at, self._wake)

    def _wake(self) -> None:
        self._timer_set = False
        self._responder.wake(time.monotonic_ns())
        self._set_timer()


def reloaded(path: Path, load: Callable[[Path], object], log: Log, apply: Callable[..., None]) -> None:
    """Read a config file again; a bad one is told, problem by problem, and changes nothing."""
    from .settings import ConfigError

    try:
        settings = load(path)
    except ConfigError as error:
        for problem in error.problems:
            log.write("error", "config-refused", {"problem": str(problem)})
        return
    try:
        apply(settings)
    except Exception as error:
        log.write("error", "reload-failed", {"error": repr(error)})
        return
    log.write("info", "reloaded", {"file": str(path)})


def _keys(settings: AgentSettings) -> KeyPair | None:
    if settings.security.plain or settings.security.key is None:
        return None
    return load_secret(settings.security.key)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
