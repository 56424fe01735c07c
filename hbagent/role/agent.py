"""The agent as a process: its sockets, its prober beside it, and the driver that turns `AgentCore`.

Beats and reports each have a PUB to all leaders of the rack; each leader has a DEALER for the control path. A leader
that refuses this agent's key is called again with a growing wait: libzmq itself would never try again.
"""

from __future__ import annotations

import functools
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from hbagent import __version__
from hbagent.core.agent import AgentCore
from hbagent.core.config import AgentConfig
from hbagent.core.effects import Ask, KillProber, Note, Publish, PublishBeat, Recall, Send, StartDrill, StartProber
from hbagent.core.messages import (
    AccountWanted,
    Admission,
    DrillWanted,
    EvidenceWanted,
    FarewellAck,
    Linked,
    Ping,
    Reconfigured,
    Relay,
    Report,
    ReportWanted,
)
from hbagent.core.units import MILLISECOND, show_duration
from hbagent.probes.effort import EffortMeter
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
from .probehalf import ProbeHalf
from .reload import Reload, needs_restart
from .sdnotify import Notifier
from .settings import AgentSettings, Endpoint, load_agent
from .worker import Worker

if TYPE_CHECKING:
    from .asking import Asking

_BEATS, _REPORTS = "beats", "reports"
#: What a leader says on the control path.
CONTROL = (Admission, FarewellAck, ReportWanted, Ping, Relay, AccountWanted, EvidenceWanted, DrillWanted)


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
        self._boot_id = _boot_id()
        config = self._core_config(settings)
        self.core = AgentCore(config, self._rng, time.monotonic_ns())
        self._driver = Driver(
            self.core,
            {
                PublishBeat: self._publish_beat,
                Publish: self._publish,
                Send: self._send,
                StartProber: lambda effect: self._prober.start(effect),
                KillProber: lambda effect: self._prober.kill(effect),
                Recall: lambda effect: self._prober.recall(effect),
                StartDrill: lambda effect: self._prober.start_drill(effect),
                Ask: self._ask,
                Note: self._log.note,
            },
            self._notifier,
            self._log.write,
        )
        self._prober = ProbeHalf(self._driver, settings.prober, config.node, self._log.write)
        self._driver.status = self._status
        self._driver.on_reload = self._start_reload
        self._effort = EffortMeter()
        self._driver.on_wall = self._tell_effort
        self._asking: Asking | None = None
        self._reload = Reload(path, load_agent, self._apply, self._driver, self._log.write)
        self._files: Worker | None = None
        low, high = settings.reconnect_ns
        self._caller = sockets.Caller(
            name=config.node,
            keys=_keys(settings),
            reconnect_ms=self._rng.randint(low, high) // MILLISECOND,
        )
        self._beats = sockets.beat_publisher(self._context, self._caller, ())
        self._reports = sockets.report_publisher(self._context, self._caller, ())
        self._dealers: dict[str, ControlDealer] = {}
        self._endpoints: dict[str, Endpoint] = {}
        #: One for each connection that was ever refused: socket and endpoint.
        self._backoffs: dict[tuple[str, str], Backoff] = {}
        self._monitors = {"": Monitor({_BEATS: self._beats, _REPORTS: self._reports}, self._link_changed)}
        for leader in settings.leaders:
            self._add_leader(leader)

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Beat until told to leave."""
        self._driver.catch_signals()
        if self._echo is not None:
            self._driver.add(EchoPort(self._echo, self.core, self._driver))
        config = self.core.config
        fields = {
            "node": config.node,
            "leaders": ",".join(config.leaders),
            "interval": show_duration(config.interval_ns),
            "echo_port": config.echo_port,
            "version": config.version,
        }
        self._log.write("info", "started", fields)
        self._notifier.ready(self._status())
        try:
            self._driver.run()
        finally:
            self._close()

    def _close(self) -> None:
        self._prober.close()
        for monitor in self._monitors.values():
            monitor.stop()
        for socket in (self._beats, self._reports, *(dealer.source for dealer in self._dealers.values())):
            # What was said last (a farewell) may still be on its way to the kernel.
            socket.close(linger=100)
        if self._echo is not None:
            self._echo.close()
        self._context.term()
        if self._asking is not None:
            self._asking.close()
        self._effort.close()
        self._driver.close()
        self._notifier.close()
        self._log.close()

    # ---- leaders -----------------------------------------------------------------------------------------

    def _add_leader(self, leader: Endpoint) -> None:
        self._endpoints[leader.name] = leader
        socket = sockets.control_dealer(self._context, self._caller, ())
        self._monitors[leader.name] = Monitor({leader.name: socket}, self._link_changed)
        dealer = ControlDealer(socket, leader.name, self._heard, CONTROL)
        self._dealers[leader.name] = dealer
        self._driver.add(dealer)
        sockets.connect(socket, self._caller, sockets.Target(leader.control, leader.public_key))
        target = sockets.Target(leader.publish, leader.public_key)
        sockets.connect(self._beats, self._caller, target)
        sockets.connect(self._reports, self._caller, target)

    def _remove_leader(self, leader: Endpoint) -> None:
        del self._endpoints[leader.name]
        for key in [key for key in self._backoffs if key in _connections(leader)]:
            del self._backoffs[key]
        self._monitors.pop(leader.name).stop()
        dealer = self._dealers.pop(leader.name)
        self._driver.remove(dealer)
        dealer.source.close(linger=0)
        for socket in (self._beats, self._reports):
            sockets.disconnect(socket, sockets.Target(leader.publish))

    def _link_changed(self, link: Link) -> None:
        """In the monitor's thread: the loop decides."""
        self._driver.mailbox.post(functools.partial(self._on_link, link))

    def _on_link(self, link: Link) -> None:
        refused = link.event is LinkEvent.REFUSED
        for leader in self._meant(link):
            key = (link.socket, leader.control if link.socket == leader.name else leader.publish)
            if link.event is LinkEvent.UP:
                self._backoffs.pop(key, None)
            elif refused:
                self._refused(key, leader)
        if link.socket in self._dealers:
            self._driver.feed("", Linked(link.socket, link.event is LinkEvent.UP, refused))

    def _meant(self, link: Link) -> list[Endpoint]:
        """Whose connection it is. An event may name the address that a host's name stands for, which is nobody's:
        then those that this socket calls are all meant, and calling one that did not refuse costs it one handshake."""
        leaders = list(self._endpoints.values())
        if link.socket not in (_BEATS, _REPORTS):
            return [leader for leader in leaders if leader.name == link.socket]
        named = [leader for leader in leaders if leader.publish == link.endpoint]
        return named or (leaders if link.event is LinkEvent.REFUSED else [])

    def _refused(self, key: tuple[str, str], leader: Endpoint) -> None:
        """libzmq gives up a connection that was refused; call again in a while."""
        backoff = self._backoffs.setdefault(key, Backoff(self._rng))
        if backoff.retry_at is None:
            at = backoff.refused(time.monotonic_ns())
            self._driver.call_later(at, functools.partial(self._knock_again, key, leader, backoff))

    def _knock_again(self, key: tuple[str, str], leader: Endpoint, backoff: Backoff) -> None:
        # A leader that a reload has removed or changed since is not called under its old address.
        if self._backoffs.get(key) is not backoff or not backoff.due(time.monotonic_ns()):
            return
        label, endpoint = key
        own = {_BEATS: self._beats, _REPORTS: self._reports}
        socket = own[label] if label in own else self._dealers[label].source
        sockets.reconnect(socket, self._caller, sockets.Target(endpoint, leader.public_key))

    # ---- questions ---------------------------------------------------------------------------------------

    def _heard(self, leader: str, message: object) -> None:
        """On the control path. An account is of the present, and not of up to two seconds ago."""
        if isinstance(message, AccountWanted):
            self._tell_effort()
        self._driver.feed(leader, message)

    def _tell_effort(self) -> None:
        self._driver.feed("", self._effort.read())

    def _ask(self, effect: Ask) -> None:
        if self._asking is None:
            # Most agents are never asked about a neighbour, and this is a twentieth of a megabyte.
            from .asking import Asking

            self._asking = Asking(self._driver)
        self._asking.ask(effect)

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

    def _failed(self, error: BaseException) -> None:
        """In a worker's thread."""
        self._driver.mailbox.post(functools.partial(self._driver.defect, "worker", error), owed=True)

    # ---- the echo responder ------------------------------------------------------------------------------

    def _open_echo(self, settings: AgentSettings) -> EchoResponder | None:
        """The echo is evidence beside the beats: an agent that cannot have its port beats without it, and says so."""
        if not settings.echo_bind:
            return None
        try:
            return EchoResponder(settings.echo_bind, settings.echo_port, time.monotonic_ns())
        except OSError as error:
            fields = {"address": f"{settings.echo_bind}:{settings.echo_port}", "error": error.strerror or repr(error)}
            self._log.write("error", "echo-unavailable", fields)
            return None

    # ---- reload ------------------------------------------------------------------------------------------

    def _start_reload(self) -> None:
        # Most agents never read their file again, and a thread is a tenth of a megabyte.
        self._files = self._files or Worker("files", self._failed)
        self._reload.start(self._files)

    def _apply(self, settings: AgentSettings) -> None:
        old, self._settings = self._settings, settings
        wanted = {leader.name: leader for leader in settings.leaders}
        for leader in [known for known in self._endpoints.values() if wanted.get(known.name) != known]:
            self._remove_leader(leader)
        for leader in settings.leaders:
            if leader.name not in self._endpoints:
                self._add_leader(leader)
        self._log.set_level(settings.logging.level)
        # A node of another name is another node: its key and its incarnation are not this one's.
        node = self.core.config.node
        self._driver.feed("", Reconfigured(msgspec.structs.replace(self._core_config(settings), node=node)))
        self._prober.reconfigure(settings.prober, settings.core.prober)
        needs_restart(old, settings, ("security", "echo_bind", "echo_port", "reconnect_ns"), self._log.write)
        needs_restart(self.core.config, settings.core, ("node",), self._log.write)

    def _core_config(self, settings: AgentSettings) -> AgentConfig:
        port = self._echo.port if self._echo is not None else 0
        return msgspec.structs.replace(settings.core, echo_port=port, boot_id=self._boot_id, version=__version__)

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


def _connections(leader: Endpoint) -> tuple[tuple[str, str], ...]:
    return ((leader.name, leader.control), (_BEATS, leader.publish), (_REPORTS, leader.publish))


def _keys(settings: AgentSettings) -> KeyPair | None:
    if settings.security.plain or settings.security.key is None:
        return None
    return load_secret(settings.security.key)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
