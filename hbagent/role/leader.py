"""The leader as a process: two bound sockets for its agents, two calling ones to the root, a journal, a query socket.

Everything that agents publish comes in at one SUB, in the loop's own thread, because nothing may stand between a
beat and the table. Handshakes are decided in the doorkeeper's thread, connection events read in the monitor's,
the journal written in a worker.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from pathlib import Path
from typing import Any

import zmq

from hbagent.core.effects import Answer, Happened, Keep, Note, Publish, Rewrite, Send
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import KeepFailed, Kept, Linked, RackReports, RackSummary, Reconfigured, Transitions
from hbagent.core.units import SECOND
from hbagent.store.journal import Journal, JournalError
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.backoff import Backoff
from hbagent.transport.keys import load_secret
from hbagent.transport.monitor import Link, LinkEvent, Monitor
from hbagent.transport.zap import ZapServer
from hbagent.wire import codec
from hbagent.wire.pages import report_pages, summary_pages, transition_pages

from .agent import reloaded
from .allowed import Allowed
from .control import ControlDealer, ControlRouter
from .driver import Driver
from .intake import Intake
from .logs import Log
from .questions import Questions
from .sdnotify import Notifier
from .settings import LeaderSettings, load_leader
from .worker import Worker

DOMAIN = "agents"
#: The link to the root is drawn from this, as agents' are from their config: a root that restarts is met by all.
RECONNECT_MS = (500, 1500)
#: Summaries that wait for the root: a rack of 10,000 is some 40 pages.
SUMMARY_QUEUE_MAX = 256
ALLOW_EVERY_NS = SECOND


class Leader:
    """One leader process. `run` returns when it was told to end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._settings = settings = load_leader(path)
        self._log = Log("leader", settings.logging.level, settings.logging.format)
        self._notifier = Notifier()
        self._rng = rng = random.Random()
        keys = None if settings.security.plain or settings.security.key is None else load_secret(settings.security.key)
        members = [node for nodes in settings.core.racks.values() for node in nodes]
        self._allowed = Allowed(settings.security, Role.AGENT, members)
        self._journal = Journal(settings.state_dir / "journal")
        kept = self._journal.load()
        for problem in self._journal.problems:
            self._log.write("error", "journal-damaged", {"problem": problem})
        self.core = LeaderCore(settings.core, rng, time.monotonic_ns(), kept)
        self._driver = Driver(
            self.core,
            {
                Publish: self._publish,
                Send: self._send,
                Keep: functools.partial(self._write, self._journal.append),
                Rewrite: functools.partial(self._write, self._journal.rewrite),
                Answer: self._answer,
                Note: self._log.note,
                Happened: self._happened,
            },
            self._notifier,
        )
        self._driver.status = self._status
        self._driver.on_reload = self._reload
        self._worker = Worker("journal", self._failed)
        self._context: sockets.Context = zmq.Context()
        host = sockets.Host(keys=keys, domain=DOMAIN, peers_expected=2 * len(members))
        self._zap = ZapServer(
            self._context, self._allowed.list, {DOMAIN: Role.AGENT}, plain=keys is None, note=self._noted
        )
        senders = self._allowed.senders
        self._intake = Intake(
            sockets.intake_subscriber(self._context, host, settings.publish),
            self._driver.feed,
            senders,
            self.core.beat,
            self._driver.perform,
            self.core.roster.takers,
        )
        router = sockets.control_router(self._context, host, settings.control)
        self._router = ControlRouter(router, self._driver.feed, senders)
        self._questions = Questions(sockets.query_router(self._context, settings.query), self._driver.feed)
        for port in (self._intake, self._router, self._questions):
            self._driver.add(port)
        self._caller = sockets.Caller(name=settings.core.name, keys=keys, reconnect_ms=rng.randint(*RECONNECT_MS))
        self._summaries = sockets.report_publisher(self._context, self._caller, (), SUMMARY_QUEUE_MAX)
        dealer = sockets.control_dealer(self._context, self._caller, ())
        self._root = ControlDealer(dealer, settings.root.name, self._driver.feed)
        self._driver.add(self._root)
        self._backoff = Backoff(rng)
        self._monitor = Monitor({"root": dealer, "summaries": self._summaries}, self._link_changed)
        self._connect_root()

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Judge until told to end."""
        self._driver.catch_signals()
        config = self._settings.core
        fields = {"name": config.name, "racks": ",".join(config.racks), "version": config.version}
        self._log.write("info", "started", fields)
        self._look_at_allowed()
        self._notifier.ready(self._status())
        try:
            self._driver.run()
        finally:
            self._close()

    def _close(self) -> None:
        self._monitor.stop()
        for port in (self._intake, self._router, self._questions, self._root):
            # A farewell's acknowledgement may still be on its way to the kernel.
            port.source.close(linger=100)
        self._summaries.close()
        self._zap.stop()
        self._worker.stop(1.0)
        self._journal.close()
        self._context.term()
        self._driver.close()
        self._log.close()

    # ---- the link to the root ----------------------------------------------------------------------------

    def _targets(self) -> tuple[sockets.Target, sockets.Target]:
        root = self._settings.root
        return sockets.Target(root.control, root.public_key), sockets.Target(root.publish, root.public_key)

    def _connect_root(self) -> None:
        control, publish = self._targets()
        sockets.connect(self._root.source, self._caller, control)
        sockets.connect(self._summaries, self._caller, publish)

    def _link_changed(self, link: Link) -> None:
        """In the monitor's thread: the loop decides."""
        self._driver.mailbox.post(functools.partial(self._on_link, link))

    def _on_link(self, link: Link) -> None:
        now = time.monotonic_ns()
        refused = link.event is LinkEvent.REFUSED
        if refused and self._backoff.retry_at is None:
            self._driver.call_later(self._backoff.refused(now), self._knock_again)
        if link.socket != "root":
            return
        if link.event is LinkEvent.UP:
            self._backoff.admitted()
        self._driver.feed("", Linked(self._settings.root.name, link.event is LinkEvent.UP, refused))

    def _knock_again(self) -> None:
        if self._backoff.due(time.monotonic_ns()):
            control, publish = self._targets()
            sockets.reconnect(self._root.source, self._caller, control)
            sockets.reconnect(self._summaries, self._caller, publish)

    # ---- effects -----------------------------------------------------------------------------------------

    def _publish(self, effect: Publish) -> None:
        message = effect.message
        pages: tuple[Any, ...]
        if isinstance(message, RackSummary):
            pages = summary_pages(message)
        else:
            assert isinstance(message, RackReports)
            pages = report_pages(message)
        for page in pages:
            with contextlib.suppress(zmq.Again):
                self._summaries.send(codec.encode(page), zmq.NOBLOCK)

    def _send(self, effect: Send) -> None:
        if effect.peer != self._settings.root.name:
            self._router.send(effect.peer, effect.message)
            return
        assert isinstance(effect.message, Transitions)
        for page in transition_pages(effect.message):
            self._root.send(page)

    def _write(self, write: Any, effect: Keep | Rewrite) -> None:
        if not self._worker.submit(functools.partial(self._write_now, write, effect)):
            self._driver.post(KeepFailed(effect.token, "the journal's worker is stuck"))

    def _write_now(self, write: Any, effect: Keep | Rewrite) -> None:
        """In the worker's thread."""
        try:
            write(effect.entries)
        except JournalError as error:
            self._driver.post(KeepFailed(effect.token, str(error)))
        else:
            self._driver.post(Kept(effect.token))

    def _answer(self, effect: Answer) -> None:
        self._questions.answer(effect)

    def _happened(self, effect: Happened) -> None:
        cause = effect.cause.value if effect.cause is not None else "none"
        fields = {"node": effect.node, "from": effect.before, "to": effect.after, "cause": cause}
        self._log.write("info", effect.kind.value, fields)

    def _noted(self, what: str, fields: dict[str, object]) -> None:
        """In the doorkeeper's thread."""
        note = Note("warning", what, fields)
        self._driver.mailbox.post(functools.partial(self._log.note, note))

    def _failed(self, error: BaseException) -> None:
        note = Note("error", "worker-failed", {"error": repr(error)})
        self._driver.mailbox.post(functools.partial(self._log.note, note))

    # ---- who may speak -----------------------------------------------------------------------------------

    def _look_at_allowed(self) -> None:
        self._refresh_allowed()
        if not self._zap.alive:
            self._log.write("error", "doorkeeper-ended", {"consequence": "no new connection is admitted"})
        self._driver.call_later(time.monotonic_ns() + ALLOW_EVERY_NS, self._look_at_allowed)

    def _refresh_allowed(self, force: bool = False) -> None:
        if self._allowed.refresh(
            lambda problem: self._log.write("error", "allow-list-refused", {"problem": problem}), force
        ):
            senders = self._allowed.senders
            self._zap.replace(self._allowed.list)
            self._intake.senders = senders
            self._router.replace_senders(senders)
            self._log.write("info", "allow-list", {"keys": len(senders)})

    def _allow_list_refused(self, problem: str) -> None:
        self._log.write("error", "allow-list-refused", {"problem": problem})

    # ---- reload ------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        reloaded(self._path, load_leader, self._log, self._apply)
        self._refresh_allowed(force=True)

    def _apply(self, settings: LeaderSettings) -> None:
        old, self._settings = self._settings, settings
        self._log.set_level(settings.logging.level)
        for what in ("publish", "control", "query", "state_dir", "security", "root"):
            if getattr(old, what) != getattr(settings, what):
                self._log.write("warning", "needs-restart", {"setting": what})
        self._driver.feed("", Reconfigured(settings.core))

    def _status(self) -> str:
        members = self.core.roster.members.values()
        alive = sum(member.liveness.value == "ALIVE" for member in members)
        return f"{alive} of {len(members)} nodes alive"
