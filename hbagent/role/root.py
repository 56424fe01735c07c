"""The root as a process: two bound sockets for its leaders, a store, hooks, a query socket.

The store has one worker, because SQLite wants one writer and the order of transactions is the order of promises; who
asks about history does not wait for a long transaction (`readingroom`).
Hooks run below a process of their own (`hookhalf`), which nothing here depends on; the core says how many at once.

A store that cannot be opened when the root starts does not keep it from watching: it starts without an earlier life,
says `degraded`, runs hooks from memory, and writes as soon as the disk lets it.
"""

from __future__ import annotations

import functools
import random
import time
from pathlib import Path

import msgspec
import zmq

from hbagent import __version__
from hbagent.core.config import RootConfig
from hbagent.core.effects import Answer, Fetch, Happened, Note, Persist, PostAlerts, Revive, RunHook, Send, Witness
from hbagent.core.messages import (
    DrillBegun,
    EvidencePage,
    Pong,
    RackReports,
    RackSummary,
    Reconfigured,
    Revived,
    Transitions,
)
from hbagent.core.records import Batch, Restored
from hbagent.core.root import RootCore
from hbagent.core.rootmetrics import RootMetrics
from hbagent.hooks import runner
from hbagent.store.claim import ClaimedError
from hbagent.store.history import History, HistoryError
from hbagent.store.opening import StoreUnavailableError, open_history
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.connections import Connections
from hbagent.transport.monitor import LinkEvent, Monitor
from hbagent.transport.poster import Poster
from hbagent.transport.zap import ZapServer

from .allowed import LOOK_EVERY_NS, Allowed
from .asking import Asking
from .control import ControlRouter, Losses
from .doors import Doors, Place, places
from .driver import Driver
from .heap import give_large_back
from .hookhalf import HookHalf
from .intake import Intake
from .keeper import Keeper
from .logs import Log
from .numbering import Numbering
from .questions import Desks, Questions
from .readingroom import ReadingRoom
from .reload import Reload, needs_restart
from .sdnotify import Notifier
from .selfstat import process_facts
from .settings import ConfigError, Problem, RootSettings, load_root
from .visitors import Door, Local, Operators, Users
from .worker import Worker

DOMAIN, OPERATORS_DOMAIN = "leaders", "operators"
DOMAINS = {DOMAIN: Role.LEADER, OPERATORS_DOMAIN: Role.OPERATOR}
#: Operators who connect at once, for the time that a handshake may take.
OPERATORS_EXPECTED = 100
#: What leaders publish, and what they say on the control path.
PUBLISHED = (RackSummary, RackReports)
#: A leader's first summaries come here too: they take its lease before its transitions are told.
CONTROL = (Transitions, RackSummary, Pong, EvidencePage, DrillBegun)


class Root:
    """The root process. `run` returns when it was told to end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._settings = settings = self._load(path)
        self._log = Log("root", settings.logging.level, settings.logging.format)
        self._notifier = Notifier()
        self._rng = random.Random()
        doors = places(settings)
        keys = doors[0].keys
        leaders = dict.fromkeys(leader for rack in settings.core.racks for leader in rack.leaders)
        self._allowed = Allowed(settings.security, Role.LEADER, leaders, self._log.write, operators=settings.operators)
        self._history = self._open_store()
        restored, failure = self._restore()
        self._restored = not failure
        #: Added to the core's numbers: what the store already had when it could be opened only later.
        self._numbering = Numbering(Restored())
        #: How long the newest transaction took.
        self._commit_s: float | None = None
        self.core = RootCore(_core_config(settings), self._rng, time.monotonic_ns(), restored)
        self._driver = Driver(
            self.core,
            {
                Send: self._send,
                Persist: self._persist,
                RunHook: lambda effect: self._hooks.run(effect),
                Answer: self._answer,
                Fetch: lambda effect: self._room.fetch(effect),
                Revive: self._revive,
                Note: self._log.note,
                Happened: self._happened,
                Witness: lambda effect: self._asking.witness(effect),
                PostAlerts: lambda effect: self._poster.post(effect),
            },
            self._notifier,
            self._log.write,
        )
        self._poster = Poster(self._driver.post)
        self._connections = Connections()
        self._asking = Asking(self._driver, self._connections)
        self._hooks = HookHalf(self._driver, settings.core.name, self._log.write)
        self._driver.status = self._status
        self._driver.on_reload = self._start_reload
        self._worker = Worker("store", self._failed)
        # The core itself has patience with a store that hangs: it sends one batch at a time.
        self._keeper = Keeper(self._driver, self._worker, HistoryError, None)
        self._room = ReadingRoom(self._driver, self._worker, self._history, self._answer, self._failed)
        self._files = Worker("files", self._failed)
        self._reload = Reload(path, self._load, self._apply, self._driver, self._log.write)
        self._allowed.on_change = self._use_allowed
        if failure:
            # The first batch will fail as well, and then the status says so until one succeeds.
            self._log.write("error", "store-failed", {"reason": failure})
        self._context: sockets.Context = zmq.Context()
        self._plain = keys is None
        self._zap = self._doorkeeper()
        self._doors = Doors(self._driver, self._connections, doors)
        for place in doors:
            self._open_door(place, 2 * len(leaders))
        losses = Losses(self._connections, self._driver)
        self._monitor = Monitor(self._doors.routers, losses.told, (LinkEvent.LOST,))
        self._desks = Desks()
        users = Local(Users(self._files, self._driver))
        self._operators = Operators(self._connections, self._driver.feed)
        self._operators.use(self._allowed.operators)
        self._consoles: list[Questions] = []
        self._open(sockets.query_router(self._context, settings.query, settings.group), users)
        if settings.operators_port:
            host = sockets.Host(keys=keys, domain=OPERATORS_DOMAIN, peers_expected=OPERATORS_EXPECTED)
            self._open(sockets.operator_router(self._context, host, settings.operators_port), self._operators)
        self._ports: tuple[Intake | ControlRouter | Questions, ...] = (*self._doors, *self._consoles)
        for port in self._ports:
            self._driver.add(port)
        self._metrics = RootMetrics(self.core, settings.metric_hosts)
        self._web = None
        if settings.web is not None:
            from .web import Web  # 2 MiB that a root without a page does not load

            self._web = Web(settings.web, self._driver, self._log.write, pages=True, metrics=self._measure)
            self._desks.add(self._web.mark, self._web.answer)

    def _open_door(self, place: Place, peers: int) -> None:
        host = sockets.Host(keys=place.keys, domain=DOMAIN, peers_expected=peers)
        intake = Intake(
            sockets.intake_subscriber(self._context, host, place.publish),
            self._doors.listening(self._driver.feed),
            self._allowed.senders,
            accepts=PUBLISHED,
            defect=self._driver.defect,
            connections=self._connections,
        )
        router = ControlRouter(
            sockets.control_router(self._context, host, place.control),
            self._driver.feed,
            self._allowed.senders,
            CONTROL,
            connections=self._connections,
            beside=self._doors.first,
        )
        self._doors.add(intake, router)

    def _open(self, socket: sockets.Socket, door: Door) -> None:
        """Take questions in at one more socket."""
        asked = functools.partial(self._doors.asked, self._desks.answer)
        questions = Questions(socket, asked, door, self._log.write)
        self._consoles.append(questions)
        self._desks.add(questions.mark, questions.answer)

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until told to end."""
        give_large_back()
        self._driver.catch_signals()
        settings = self._settings
        fields = {
            "name": settings.core.name,
            "racks": len(settings.core.racks),
            "leaders": len(self.core.leaders),
            "hooks": ",".join(hook.name for hook in settings.core.hooks) or "none",
            "publish": settings.publish,
            "control": settings.control,
            "operators": settings.operators_port or "none",
            "version": __version__,
        }
        self._log.write("info", "started", fields)
        self._driver.call_every(LOOK_EVERY_NS, self._look)
        self._prepare_hooks()
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
        self._poster.stop()
        self._monitor.stop()
        self._asking.close()
        for port in self._ports:
            port.source.close(linger=100)
        self._zap.stop()
        self._hooks.close()
        self._worker.stop(1.0)
        self._room.stop(1.0)
        self._history.close()
        self._context.term()
        self._driver.close()
        self._notifier.close()
        self._log.close()

    # ---- effects -----------------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        self._doors.send(effect.peer, effect.message)

    def _persist(self, effect: Persist) -> None:
        self._keeper.write(effect.token, functools.partial(self._commit, effect.batch))

    def _commit(self, batch: Batch) -> None:
        """In the store's thread. Raises HistoryError."""
        if not self._restored:
            try:
                late, failure = self._restore()
            except RuntimeError as error:
                raise HistoryError(str(error)) from error
            if failure:
                raise HistoryError(failure)
            self._restored = True
            self._numbering = Numbering(late)
        begun = time.monotonic()
        self._history.commit(self._numbering.batch(batch), time.time_ns())
        self._commit_s = round(time.monotonic() - begun, 6)

    def _open_store(self) -> History:
        """The store that the settings name. Raises RuntimeError when that cannot be."""
        settings = self._settings
        try:
            return open_history(settings.store, settings.state_dir, settings.retention_ns)
        except (StoreUnavailableError, ValueError) as error:
            raise RuntimeError(str(error)) from error

    def _restore(self) -> tuple[Restored, str]:
        """What an earlier life has kept, and why it could not be read. Raises RuntimeError when another life lives."""
        try:
            restored = self._history.restore()
        except HistoryError as error:
            if isinstance(error.__cause__, ClaimedError):
                raise RuntimeError(f"{error}; is another root running?") from error
            return Restored(), str(error)
        for problem in restored.problems:
            self._log.write("error", "store-damaged", {"problem": problem})
        return restored, ""

    def _revive(self, effect: Revive) -> None:
        if not self._worker.submit(functools.partial(self._find_given_up, effect)):
            self._driver.post(Revived(effect.asker, effect.id, error="the store is busy; ask again in a moment"))

    def _find_given_up(self, effect: Revive) -> None:
        """In the store's thread."""
        try:
            runs = self._history.given_up(effect.run_id)
            found = Revived(effect.asker, effect.id, runs, named=bool(effect.run_id))
        except HistoryError as error:
            found = Revived(effect.asker, effect.id, error=str(error))
        self._driver.post(found)

    def _prepare_hooks(self) -> None:
        if self._settings.core.hooks:
            self._hooks.prepare()

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

    def _measure(self, openmetrics: bool) -> bytes:
        """What Prometheus is told."""
        facts = process_facts(
            commit_s=self._commit_s,
            reads=(self._room.by_worker, self._room.by_reader),
            defects=self._driver.defects.count,
            rotation=self._doors.counts(),
        )
        return self._metrics.render(time.monotonic_ns(), facts, openmetrics)

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
        senders = self._allowed.senders
        self._zap.replace(self._allowed.list)
        self._doors.use(senders, senders)
        self._operators.use(self._allowed.operators)

    # ---- reload ------------------------------------------------------------------------------------------

    @staticmethod
    def _load(path: Path) -> RootSettings:
        """The settings, once every hook may be run. Raises ConfigError."""
        settings = load_root(path)
        problems = [
            Problem(file=str(path), line=0, where=f'hook "{hook.name}"', text=refusal)
            for hook in settings.core.hooks
            if (refusal := runner.check(hook.argv))
        ]
        if problems:
            raise ConfigError(problems)
        return settings

    def _start_reload(self) -> None:
        self._allowed.look(self._files, self._driver.mailbox.post, force=True)
        self._reload.start(self._files)

    def _apply(self, settings: RootSettings) -> None:
        old, self._settings = self._settings, settings
        self._log.set_level(settings.logging.level)
        started_with = (
            "publish",
            "control",
            "query",
            "group",
            "operators_port",
            "state_dir",
            "store",
            "retention_ns",
            "security",
            "rotation",
            "web",
        )
        needs_restart(old, settings, started_with, self._log.write)
        self._prepare_hooks()
        self._metrics.use(settings.metric_hosts)
        self._driver.feed("", Reconfigured(_core_config(settings)))
        self._allowed.use_names(dict.fromkeys(name for rack in settings.core.racks for name in rack.leaders))
        self._allowed.use_operators(settings.operators)

    def _status(self) -> str:
        held = sum(leader.lease.held for leader in self.core.leaders.values())
        return f"{held} of {len(self.core.leaders)} leaders hold their lease, {len(self.core.nodes)} nodes known"


def _core_config(settings: RootSettings) -> RootConfig:
    return msgspec.structs.replace(settings.core, version=__version__)
