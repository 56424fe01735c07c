"""The root as a process: two bound sockets for its leaders, a store, hooks, a query socket.

The store has one worker, because SQLite wants one writer and the order of transactions is the order of promises.
Each hook run has a thread of its own that does nothing but wait for its process; the core says how many at once.
"""

from __future__ import annotations

import functools
import random
import threading
import time
from pathlib import Path

import msgspec
import zmq

from hbagent.core.effects import Answer, Fetch, Happened, Note, Persist, RunHook, Send
from hbagent.core.messages import HookFinished, KeepFailed, Kept, Reconfigured
from hbagent.core.root import RootCore
from hbagent.core.units import SECOND
from hbagent.core.wallclock import rfc3339
from hbagent.hooks import runner
from hbagent.store.history import History, HistoryError
from hbagent.transport import sockets
from hbagent.transport.allow import Role
from hbagent.transport.keys import load_secret
from hbagent.transport.zap import ZapServer

from .agent import reloaded
from .allowed import Allowed
from .control import ControlRouter
from .driver import Driver
from .intake import Intake
from .logs import Log
from .questions import Questions
from .sdnotify import Notifier
from .settings import ConfigError, Problem, RootSettings, load_root
from .worker import Worker

DOMAIN = "leaders"
ALLOW_EVERY_NS = SECOND


class Root:
    """The root process. `run` returns when it was told to end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._settings = settings = self._load(path)
        self._log = Log("root", settings.logging.level, settings.logging.format)
        self._notifier = Notifier()
        self._rng = random.Random()
        keys = None if settings.security.plain or settings.security.key is None else load_secret(settings.security.key)
        leaders = dict.fromkeys(leader for rack in settings.core.racks for leader in rack.leaders)
        self._allowed = Allowed(settings.security, Role.LEADER, leaders)
        self._history = History(settings.state_dir / "history.sqlite")
        restored = self._history.restore()
        for problem in restored.problems:
            self._log.write("error", "store-damaged", {"problem": problem})
        self.core = RootCore(settings.core, self._rng, time.monotonic_ns(), restored)
        self._driver = Driver(
            self.core,
            {
                Send: self._send,
                Persist: self._persist,
                RunHook: self._run_hook,
                Answer: self._answer,
                Fetch: self._fetch,
                Note: self._log.note,
                Happened: self._happened,
            },
            self._notifier,
        )
        self._driver.status = self._status
        self._driver.on_reload = self._reload
        self._worker = Worker("store", self._failed)
        self._context: sockets.Context = zmq.Context()
        host = sockets.Host(keys=keys, domain=DOMAIN, peers_expected=2 * len(leaders))
        self._zap = ZapServer(
            self._context, self._allowed.list, {DOMAIN: Role.LEADER}, plain=keys is None, note=self._noted
        )
        senders = self._allowed.senders
        intake = sockets.intake_subscriber(self._context, host, settings.publish)
        self._intake = Intake(intake, self._driver.feed, senders)
        router = sockets.control_router(self._context, host, settings.control)
        self._router = ControlRouter(router, self._driver.feed, senders)
        self._questions = Questions(sockets.query_router(self._context, settings.query), self._driver.feed)
        for port in (self._intake, self._router, self._questions):
            self._driver.add(port)

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until told to end."""
        self._driver.catch_signals()
        config = self._settings.core
        fields = {"name": config.name, "racks": len(config.racks), "version": config.version}
        self._log.write("info", "started", fields)
        self._look_at_allowed()
        self._notifier.ready(self._status())
        try:
            self._driver.run()
        finally:
            self._close()

    def _close(self) -> None:
        for port in (self._intake, self._router, self._questions):
            port.source.close(linger=100)
        self._zap.stop()
        self._worker.stop(1.0)
        self._history.close()
        self._context.term()
        self._driver.close()
        self._log.close()

    # ---- effects -----------------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        self._router.send(effect.peer, effect.message)

    def _persist(self, effect: Persist) -> None:
        if not self._worker.submit(functools.partial(self._commit, effect)):
            self._driver.post(KeepFailed(effect.token, "the store's worker is stuck"))

    def _commit(self, effect: Persist) -> None:
        """In the store's thread."""
        try:
            self._history.commit(effect.batch)
        except HistoryError as error:
            self._driver.post(KeepFailed(effect.token, str(error)))
        else:
            self._driver.post(Kept(effect.token))

    def _fetch(self, effect: Fetch) -> None:
        if not self._worker.submit(functools.partial(self._read, effect)):
            self._questions.answer(Answer(effect.asker, effect.id, None, "the store's worker is stuck"))

    def _read(self, effect: Fetch) -> None:
        """In the store's thread."""
        try:
            events = self._history.events(effect.limit, effect.after, effect.node)
        except HistoryError as error:
            answer = Answer(effect.asker, effect.id, None, str(error))
        else:
            shown = [event_view(event) for event in events]
            view = msgspec.structs.replace(effect.view, events=shown) if effect.view is not None else None
            answer = Answer(effect.asker, effect.id, view if view is not None else {"schema": 1, "events": shown})
        self._driver.mailbox.post(functools.partial(self._questions.answer, answer))

    def _run_hook(self, effect: RunHook) -> None:
        threading.Thread(target=self._wait_for_hook, args=(effect,), name=f"hook {effect.hook}", daemon=True).start()

    def _wait_for_hook(self, effect: RunHook) -> None:
        """In a thread of its own."""
        refusal = runner.check(effect.argv)
        if refusal:
            result = HookFinished(run_id=effect.run_id, exit_code=None, error=f"not started: {refusal}")
        else:
            kind = str(msgspec.json.decode(effect.input).get("kind", ""))
            extra = {"HBAGENT_EVENT_ID": effect.run_id.removesuffix(f"-{effect.hook}"), "HBAGENT_KIND": kind}
            result = runner.run(effect.argv, effect.input, effect.timeout_ns, extra, effect.run_id)
        self._driver.post(result)

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
        if self._allowed.refresh(self._allow_list_refused, force):
            senders = self._allowed.senders
            self._zap.replace(self._allowed.list)
            self._intake.senders = senders
            self._router.replace_senders(senders)
            self._log.write("info", "allow-list", {"keys": len(senders)})

    def _allow_list_refused(self, problem: str) -> None:
        self._log.write("error", "allow-list-refused", {"problem": problem})

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

    def _reload(self) -> None:
        reloaded(self._path, self._load, self._log, self._apply)
        self._refresh_allowed(force=True)

    def _apply(self, settings: RootSettings) -> None:
        old, self._settings = self._settings, settings
        self._log.set_level(settings.logging.level)
        for what in ("publish", "control", "query", "state_dir", "security"):
            if getattr(old, what) != getattr(settings, what):
                self._log.write("warning", "needs-restart", {"setting": what})
        self._driver.feed("", Reconfigured(settings.core))

    def _status(self) -> str:
        held = sum(leader.lease.held for leader in self.core.leaders.values())
        return f"{held} of {len(self.core.leaders)} leaders hold their lease, {len(self.core.nodes)} nodes known"


def event_view(event: dict[str, object]) -> dict[str, object]:
    """An event of the history as a console is shown it."""
    at = event.pop("at_wall_ns", 0)
    shown: dict[str, object] = {"at": rfc3339(at if isinstance(at, int) else 0)}
    for axis in ("liveness", "health"):
        shown[axis] = {"from": event.pop(f"{axis}_from", None), "to": event.pop(f"{axis}_to", None)}
    return {**event, **shown}
