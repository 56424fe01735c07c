"""The leader as a process: two bound sockets for its agents, two calling ones to the root, a journal, a query socket.

Everything that agents publish comes in at one SUB, in the loop's own thread, because nothing may stand between a
beat and the table. Handshakes are decided in the doorkeeper's thread, connection events read in the monitors',
the journal written in one worker, config and allow-list read in another.

A journal that cannot be read when the leader starts does not keep it from watching: it starts without an earlier
life, says `degraded`, and writes as soon as the disk lets it.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from hbagent import __version__
from hbagent.core.config import LeaderConfig
from hbagent.core.effects import Answer, Ask, Happened, Keep, Note, Publish, Rewrite, Send, Witness
from hbagent.core.leader import LeaderCore
from hbagent.core.leadermetrics import LeaderMetrics
from hbagent.core.messages import (
    Account,
    DrillBegun,
    DrillWanted,
    EvidencePage,
    EvidenceWanted,
    Farewell,
    HeardWanted,
    Hello,
    KeepFailed,
    Linked,
    Ping,
    Pong,
    RackReports,
    RackSummary,
    Reconfigured,
    Relayed,
    Report,
    Transitions,
    TransitionsAck,
    Welcome,
    WireMessage,
)
from hbagent.store.claim import ClaimedError
from hbagent.store.journal import Journal, JournalError
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.connections import Connections
from hbagent.transport.monitor import LinkEvent, Monitor
from hbagent.transport.zap import ZapServer
from hbagent.wire import codec
from hbagent.wire.pages import report_pages, summary_pages, transition_pages

from .allowed import LOOK_EVERY_NS, Allowed
from .asking import Asking
from .calls import Calls
from .control import ControlRouter, Losses
from .doors import Doors, Place, places
from .driver import Driver
from .intake import Intake
from .keeper import Keeper
from .logs import Log
from .peers import QUESTIONS, Peers, user_ids
from .questions import Desks, Questions
from .reload import Reload, needs_restart
from .sdnotify import Notifier
from .selfstat import process_facts
from .settings import LeaderSettings, load_leader
from .worker import Worker

#: Agents alone publish; the control path is open to the other leaders of the racks as well.
DOMAIN, CONTROL_DOMAIN = "agents", "control"
DOMAINS = {DOMAIN: (Role.AGENT,), CONTROL_DOMAIN: (Role.AGENT, Role.LEADER)}
#: What agents publish beside beats, what they say on the control path, and what the root says there.
PUBLISHED = (Report,)
CONTROL = (Hello, Farewell, Pong, Relayed, Account, EvidencePage, DrillBegun)
FROM_ROOT = (TransitionsAck, Ping, EvidenceWanted, DrillWanted, Welcome)
#: The link to the root is drawn from this, as agents' are from their config: a root that restarts is met by all.
RECONNECT_MS = (500, 1500)
SUMMARIES = "summaries"
#: Summaries that wait for the root: a rack of 10,000 is some 40 pages.
SUMMARY_QUEUE_MAX = 256


class Leader:
    """One leader process. `run` returns when it was told to end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._settings = settings = load_leader(path)
        self._log = Log("leader", settings.logging.level, settings.logging.format)
        self._notifier = Notifier()
        self._rng = rng = random.Random()
        doors = places(settings)
        keys = doors[0].keys
        members = [node for nodes in settings.core.racks.values() for node in nodes]
        self._allowed = Allowed(settings.security, Role.AGENT, members, self._log.write, user_ids(settings.peers))
        self._journal = Journal(settings.state_dir / "journal")
        kept, failure = self._load_journal()
        self._journal_loaded = not failure
        #: Whom this life reports to; a root of another name needs a restart.
        self._root_name = settings.root.name
        self.core = LeaderCore(self._core_config(settings), rng, time.monotonic_ns(), kept)
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
                Witness: lambda effect: self._asking.witness(effect),
                Ask: lambda effect: self._asking.ask(effect),
            },
            self._notifier,
            self._log.write,
        )
        self._connections = Connections()
        self._asking = Asking(self._driver, self._connections)
        if failure:
            self._driver.post(KeepFailed(0, failure))
        self._driver.status = self._status
        self._driver.on_late = lambda now: self._driver.perform(self.core.lagged(now))
        self._driver.on_reload = self._start_reload
        self._worker = Worker("journal", self._failed)
        self._keeper = Keeper(self._driver, self._worker, JournalError)
        self._files = Worker("files", self._failed)
        self._reload = Reload(path, load_leader, self._apply, self._driver, self._log.write)
        self._allowed.on_change = self._use_allowed
        self._context: sockets.Context = zmq.Context()
        self._plain = keys is None
        self._zap = self._doorkeeper()
        self._doors = Doors(self._driver, self._connections, doors)
        for place in doors:
            self._open_door(place, 2 * len(members))
        losses = Losses(self._connections, self._driver)
        self._losses_monitor = Monitor(self._doors.routers, losses.told, (LinkEvent.LOST,))
        self._desks = Desks()
        self._questions = Questions(
            sockets.query_router(self._context, settings.query, settings.group),
            functools.partial(self._doors.asked, self._desks.answer),
        )
        for port in (*self._doors, self._questions):
            self._driver.add(port)
        self._desks.add(self._questions.mark, self._questions.answer)
        self._metrics = LeaderMetrics(self.core)
        self._web = None
        if settings.web is not None:
            from .web import Web  # 2 MiB that a leader which serves nobody does not load

            self._web = Web(settings.web, self._driver, self._log.write, pages=False, metrics=self._measure)
            self._desks.add(self._web.mark, self._web.answer)
        self._caller = sockets.Caller(name=settings.core.name, keys=keys, reconnect_ms=rng.randint(*RECONNECT_MS))
        self._root = Calls(
            self._context,
            self._caller,
            self._driver,
            rng,
            self._log.write,
            heard=self._driver.feed,
            accepts=FROM_ROOT,
            linked=self._linked,
            publishers={
                SUMMARIES: lambda: sockets.report_publisher(self._context, self._caller, (), SUMMARY_QUEUE_MAX)
            },
        )
        self._peers = Peers(self._context, self._caller, self._driver, rng, self._log.write)
        self._peers.use(settings.peers)
        self._root.use([settings.root])

    def _open_door(self, place: Place, peers: int) -> None:
        host = sockets.Host(keys=place.keys, domain=DOMAIN, peers_expected=peers)
        intake = Intake(
            sockets.intake_subscriber(self._context, host, place.publish),
            self._doors.listening(self._driver.feed),
            self._allowed.senders,
            self.core.beat,
            self._driver.perform,
            self._doors.taking(self.core.roster.takers),
            accepts=PUBLISHED,
            defect=self._driver.defect,
            connections=self._connections,
        )
        control_host = msgspec.structs.replace(host, domain=CONTROL_DOMAIN)
        router = ControlRouter(
            sockets.control_router(self._context, control_host, place.control),
            self._driver.feed,
            self._allowed.senders_and_peers,
            CONTROL,
            self._questions_of_peers(),
            connections=self._connections,
            locate=True,
            beside=self._doors.first,
        )
        self._doors.add(intake, router)

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Judge until told to end."""
        self._driver.catch_signals()
        settings = self._settings
        fields = {
            "name": settings.core.name,
            "racks": ",".join(settings.core.racks),
            "nodes": len(self.core.roster.members),
            "publish": settings.publish,
            "control": settings.control,
            "version": __version__,
        }
        self._log.write("info", "started", fields)
        self._driver.call_every(LOOK_EVERY_NS, self._look)
        self._notifier.ready(self._status())
        if self._web is not None:
            self._web.start()
        try:
            self._driver.run()
        finally:
            self._close()

    def _close(self) -> None:
        if self._web is not None:
            self._web.stop()
        self._peers.close()
        self._losses_monitor.stop()
        self._asking.close()
        for port in (*self._doors, self._questions):
            # A farewell's acknowledgement may still be on its way to the kernel.
            port.source.close(linger=100)
        self._root.close(linger_ms=100)
        self._zap.stop()
        self._worker.stop(1.0)
        self._journal.close()
        self._context.term()
        self._driver.close()
        self._notifier.close()
        self._log.close()

    def _measure(self, openmetrics: bool) -> bytes:
        """What Prometheus is told."""
        facts = process_facts(defects=self._driver.defects.count, rotation=self._doors.counts())
        return self._metrics.render(time.monotonic_ns(), facts, openmetrics)

    def _linked(self, root: str, up: bool, refused: bool, moved: bool) -> None:
        self._driver.feed("", Linked(root, up, refused, moved))

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
            self._root.publish(SUMMARIES, functools.partial(codec.encode, page))

    def _send(self, effect: Send) -> None:
        if isinstance(effect.message, HeardWanted):
            self._peers.send(effect.peer, effect.message)
            return
        if effect.peer != self._root_name:
            self._doors.send(effect.peer, effect.message)
            return
        message = effect.message
        pages: tuple[WireMessage, ...] = (message,)
        if isinstance(message, Transitions):
            pages = transition_pages(message)
        elif isinstance(message, RackSummary):
            pages = summary_pages(message)
        for page in pages:
            self._root.send(self._root_name, page)

    def _write(self, write: Callable[[Any], None], effect: Keep | Rewrite) -> None:
        self._keeper.write(effect.token, functools.partial(self._write_now, write, effect))

    def _write_now(self, write: Callable[[Any], None], effect: Keep | Rewrite) -> None:
        """In the worker's thread. Raises JournalError."""
        if not self._journal_loaded:
            missed, failure = self._load_journal()
            if failure:
                raise JournalError(failure)
            self._journal_loaded = True
            # Too late to be taken up: the nodes have been judged anew, and summaries told the root of them.
            if missed:
                self._log.write("warning", "journal-came-late", {"entries_left_out": len(missed)})
        write(effect.entries)

    def _load_journal(self) -> tuple[list[dict[str, Any]], str]:
        """What an earlier life has kept, and why it could not be read. Raises RuntimeError when another life lives."""
        try:
            kept = self._journal.load()
        except JournalError as error:
            if isinstance(error.__cause__, ClaimedError):
                raise RuntimeError(f"{error}; is another leader running?") from error
            return [], str(error)
        for problem in self._journal.problems:
            self._log.write("error", "journal-damaged", {"problem": problem})
        return kept, ""

    def _answer(self, effect: Answer) -> None:
        self._desks.answer(effect)

    def _happened(self, effect: Happened) -> None:
        cause = effect.cause.value if effect.cause is not None else "none"
        fields = {"node": effect.node, "from": effect.before, "to": effect.after, "cause": cause}
        self._log.write("info", effect.kind.value, fields)

    def _noted(self, what: str, fields: dict[str, object]) -> None:
        """In the doorkeeper's thread."""
        note = Note("warning", what, fields)
        self._driver.mailbox.post(functools.partial(self._log.note, note))

    def _failed(self, error: BaseException) -> None:
        """In a worker's thread."""
        self._driver.mailbox.post(functools.partial(self._driver.defect, "worker", error), owed=True)

    # ---- who may speak -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """At the allow-list, and at who decides by it."""
        self._allowed.look(self._files, self._driver.mailbox.post)
        if not self._zap.alive:
            self._log.write(
                "error", "doorkeeper-ended", {"consequence": "nobody was admitted; another takes its place"}
            )
            self._zap.stop()
            self._zap = self._doorkeeper()
            self._driver.defect("doorkeeper", RuntimeError("the doorkeeper's thread has ended"))

    def _doorkeeper(self) -> ZapServer:
        return ZapServer(self._context, self._allowed.list, DOMAINS, plain=self._plain, note=self._noted)

    def _use_allowed(self) -> None:
        self._zap.replace(self._allowed.list)
        self._doors.use(self._allowed.senders, self._allowed.senders_and_peers, self._questions_of_peers())

    def _questions_of_peers(self) -> dict[str, tuple[type, ...]]:
        return dict.fromkeys((peer.name for peer in self._settings.peers), QUESTIONS)

    # ---- reload ------------------------------------------------------------------------------------------

    def _start_reload(self) -> None:
        self._allowed.look(self._files, self._driver.mailbox.post, force=True)
        self._reload.start(self._files)

    def _apply(self, settings: LeaderSettings) -> None:
        old, self._settings = self._settings, settings
        self._log.set_level(settings.logging.level)
        started_with = ("publish", "control", "query", "group", "state_dir", "security", "rotation", "web")
        needs_restart(old, settings, started_with, self._log.write)
        if settings.root.name == self._root_name:
            self._root.use([settings.root])
        else:
            self._log.write("warning", "needs-restart", {"setting": "root"})
        self._driver.feed("", Reconfigured(self._core_config(settings)))
        self._allowed.use_peers(user_ids(settings.peers))
        self._allowed.use_names(node for nodes in settings.core.racks.values() for node in nodes)
        self._peers.use(settings.peers)

    def _core_config(self, settings: LeaderSettings) -> LeaderConfig:
        return msgspec.structs.replace(settings.core, root=self._root_name, version=__version__)

    def _status(self) -> str:
        members = self.core.roster.members.values()
        alive = sum(member.liveness.value == "ALIVE" for member in members)
        return f"{alive} of {len(members)} nodes alive"
