"""The agent as a process: its sockets, its prober beside it, and the driver that turns `AgentCore`.

Each leader of the rack is called with a PUB for beats, one for reports and a DEALER for the control path (`calls`).
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
from hbagent.transport.echo import EchoResponder
from hbagent.transport.keys import KeyPair, load_secret
from hbagent.wire import beat as beat_wire
from hbagent.wire import codec
from hbagent.wire.pages import fit_report

from .calls import Calls
from .driver import Driver
from .logs import Log
from .probehalf import ProbeHalf
from .reload import Reload, needs_restart
from .sdnotify import Notifier
from .settings import AgentSettings, load_agent
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
        publishers = {_BEATS: sockets.beat_publisher, _REPORTS: sockets.report_publisher}
        self._leaders = Calls(
            self._context,
            self._caller,
            self._driver,
            self._rng,
            self._log.write,
            heard=self._heard,
            accepts=CONTROL,
            linked=self._linked,
            publishers={
                kind: functools.partial(make, self._context, self._caller, ()) for kind, make in publishers.items()
            },
            admits=lambda message: isinstance(message, Admission) and message.accepted,
        )
        self._leaders.use(settings.leaders)

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
        # What was said last (a farewell) may still be on its way to the kernel.
        self._leaders.close(linger_ms=100)
        if self._echo is not None:
            self._echo.close()
        self._context.term()
        if self._asking is not None:
            self._asking.close()
        self._effort.close()
        self._driver.close()
        self._notifier.close()
        self._log.close()

    # ---- questions ---------------------------------------------------------------------------------------

    def _heard(self, leader: str, message: object) -> None:
        """On the control path. An account is of the present, and not of up to two seconds ago."""
        if isinstance(message, AccountWanted):
            self._tell_effort()
        self._driver.feed(leader, message)

    def _linked(self, leader: str, up: bool, refused: bool, moved: bool) -> None:
        self._driver.feed("", Linked(leader, up, refused, moved))

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
        self._leaders.publish(_BEATS, functools.partial(beat_wire.encode, effect.beat))

    def _publish(self, effect: Publish) -> None:
        report = effect.message
        assert isinstance(report, Report)
        self._leaders.publish(_REPORTS, functools.partial(codec.encode, fit_report(report)))

    def _send(self, effect: Send) -> None:
        self._leaders.send(effect.peer, effect.message)

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
        self._leaders.use(settings.leaders)
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
        return f"beating to {len(self._leaders)} leaders, admitted by {admitted}, sequence {self.core.sequence}"


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


def _keys(settings: AgentSettings) -> KeyPair | None:
    if settings.security.plain or settings.security.key is None:
        return None
    return load_secret(settings.security.key, settings.core.node)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
