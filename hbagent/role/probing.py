"""The prober's loop: `ProberCore`, its hands, the notify socket, and the link to the agent.

It does nothing itself that could hang: checks, facts, examinations and the disk are jobs for hands, which it forks and
which it can kill. It must therefore stay single-threaded, and what it has in memory every hand has too: no ZeroMQ, no
psutil, no log. What it has to say it says to its agent; when the link to that one ends, it ends, with all its hands.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hbagent.core.config import ProberConfig
from hbagent.core.effects import (
    AskUnit,
    Drop,
    Effect,
    Examine,
    LookForBundles,
    Note,
    Recall,
    Remember,
    RestartUnit,
    RunCheck,
    StartDrill,
    TakeFacts,
    Tell,
    Watch,
)
from hbagent.core.messages import (
    Acted,
    BundlesGone,
    CheckFinished,
    Examined,
    FactsTaken,
    HostFacts,
    ProcessGone,
    Recalled,
    Reconfigured,
    Remembered,
    UnitAnswered,
    Vitals,
    WallTime,
)
from hbagent.core.prober import ProberCore
from hbagent.core.states import Health, Stall
from hbagent.core.units import SECOND
from hbagent.offspring import reaper
from hbagent.offspring.hands import TIMED_OUT, Hands, Outcome
from hbagent.transport.notify import NotifyPort, NotifySocket
from hbagent.transport.senders import Senders

from . import jobs
from .driver import Driver
from .handsport import HandsPort
from .link import Line, Link, Order, Word
from .sdnotify import Notifier

#: Hands at once: as many checks as a config may ask for, and the others: facts, what is remembered, the metrics, which
#: bundles are there, two examinations, four bundles to be read, four units that take their time to restart, and four to
#: ask systemd about processes that have ended. They are made when needed.
HANDS_MAX = 64 + 18
#: Processes of which the end is watched, a descriptor each: twice as many as there can be applications.
WATCHED_MAX = 512
#: A process that the kernel cannot watch for us is looked at this often.
LOOK_NS = SECOND
#: A notify socket that could not be had is tried again this often: its last owner may still be dying.
LISTEN_AGAIN_NS = 5 * SECOND
#: What the notify socket refused is told this often, when there is more of it.
TELL_REFUSED_NS = 60 * SECOND

Done = Callable[[Outcome], None]


class Prober:
    """One prober process. `run` returns when it has to end; `fd` is the link, and owned from now on."""

    def __init__(self, fd: int) -> None:
        self._config = ProberConfig()
        self._core: ProberCore | None = None
        self._driver = Driver(
            self,
            {
                RunCheck: self._run_check,
                TakeFacts: self._take_facts,
                Examine: self._examine,
                Watch: self._watch,
                Drop: self._drop,
                LookForBundles: self._look_for_bundles,
                Remember: self._remember,
                RestartUnit: self._restart_unit,
                AskUnit: self._ask_unit,
                Tell: self._say,
                Note: self._note,
            },
            Notifier({}),
            self._tell,
            select.poll(),
        )
        self._driver.on_terminate = self._driver.stop
        self._refused: dict[str, int] = {}
        self._driver.call_every(TELL_REFUSED_NS, self._tell_refused)
        self._link = Link(fd, Order, self._driver, self._ordered, self._unlinked)
        self._driver.add(self._link)
        self._hands: Hands | None = None
        self._jobs: dict[int, Done] = {}
        self._jobs_made = 0
        self._facts_next = jobs.FactsOrder()
        #: Metrics are being written, and what is to be written next; why it failed last.
        self._exporting = False
        self._export_next: Vitals | None = None
        self._export_error = ""
        self._notify: NotifySocket | None = None
        self._notify_port: NotifyPort | None = None
        self._listening_to = ""
        self._watched: dict[int, _Watched] = {}
        self._senders = Senders()

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Probe until the link ends, or SIGTERM."""
        with contextlib.suppress(OSError):
            reaper.become_subreaper()
        self._driver.catch_signals()
        # Ctrl-C at a terminal is for the agent.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._driver.run()
        finally:
            self._close()

    def _close(self) -> None:
        # Its name first: who reports from here on is told so by its kernel.
        self._listen_no_more()
        if self._hands is not None:
            self._hands.close()
        self._link.close()
        self._driver.close()

    # ---- as the driver's core ----------------------------------------------------------------------------

    def receive(self, sender: str, message: Any, now: int) -> Iterable[Effect]:
        """Pass it on; before the agent has said what is wanted there is nothing to decide."""
        return self._core.receive(sender, message, now) if self._core is not None else ()

    def wake(self, now: int) -> Iterable[Effect]:
        """Hands first: what they have done by now is known before anything is judged."""
        if self._hands is not None:
            self._finish(self._hands.wake(now))
        return self._core.wake(now) if self._core is not None else ()

    def deadline(self) -> int | None:
        """The earlier of the core's and the hands'."""
        at = self._core.deadline() if self._core is not None else None
        hands_at = self._hands.deadline() if self._hands is not None else None
        if at is None or hands_at is None:
            return at if hands_at is None else hands_at
        return min(at, hands_at)

    # ---- the agent ---------------------------------------------------------------------------------------

    def _ordered(self, order: Any) -> None:
        if isinstance(order, Recall):
            self._recall(order)
        elif isinstance(order, StartDrill):
            self._start_drill(order)
        elif self._core is None:
            self._begin(order.config)
        else:
            self._config = order.config
            self._listen()
            self._driver.feed("", Reconfigured(order.config))

    def _unlinked(self, reason: str) -> None:
        self._driver.stop()

    def _begin(self, config: ProberConfig) -> None:
        self._config = config
        self._hands = Hands(jobs.JOBS, HANDS_MAX)
        self._driver.add(HandsPort(self._hands, self._finish))
        self._core = ProberCore(config, random.Random(), time.monotonic_ns())
        self._listen()
        # What is remembered has wall times in it.
        self._driver.feed("", WallTime(time.time_ns()))
        if config.state_dir:
            self._job("restore", self._place(), self._restored)
        else:
            self._driver.feed("", Remembered())

    def _place(self) -> jobs.Place:
        config = self._config
        return jobs.Place(
            state_dir=config.state_dir,
            bundles_max=config.bundles_max,
            bundles_age_ns=config.bundles_age_ns,
            helper=config.helper,
        )

    def _tell_refused(self) -> None:
        counts = self._notify.refused() if self._notify is not None else {}
        if counts and counts != self._refused:
            self._tell("warning", "notify-refused", counts)
        self._refused = counts

    def _tell(self, level: str, what: str, fields: Mapping[str, object]) -> None:
        self._link.send(Line(level, what, dict(fields)))

    def _note(self, note: Note) -> None:
        self._tell(note.level, note.what, note.fields)

    def _say(self, effect: Tell) -> None:
        message: Word = effect.message
        try:
            self._link.send(message)
        except ValueError:
            if not isinstance(message, Vitals):
                raise
            # Thousands of measures; verdicts are never left out.
            bare = tuple(msgspec.structs.replace(probe, measures=()) for probe in message.probes)
            self._link.send(msgspec.structs.replace(message, probes=bare))
        if isinstance(message, Vitals) and self._config.textfile:
            self._export_next = message
            self._export()

    # ---- jobs --------------------------------------------------------------------------------------------

    def _job(self, job: str, order: Any, done: Done, key: str = "", files: Sequence[int] = ()) -> None:
        """Have a hand do a job, and `done` called with what came of it."""
        assert self._hands is not None
        self._jobs_made += 1
        self._jobs[self._jobs_made] = done
        self._hands.start(
            self._jobs_made, job, order, jobs.limit_ns(job, order), time.monotonic_ns(), key=key, files=files
        )

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            done = self._jobs.pop(outcome.number)
            self._driver.soon(functools.partial(done, outcome))

    def _run_check(self, effect: RunCheck) -> None:
        self._job("check", effect, functools.partial(self._checked, effect), key=effect.name)

    def _checked(self, effect: RunCheck, outcome: Outcome) -> None:
        finished = outcome.value
        if not isinstance(finished, CheckFinished):
            finished = CheckFinished(
                run=effect.run,
                health=Health.UNKNOWN,
                text=outcome.text,
                memory=effect.memory,
                timed_out=outcome.failure == TIMED_OUT,
                duration_ns=outcome.duration_ns,
            )
        abandoned = finished.abandoned + outcome.abandoned
        self._driver.feed("", msgspec.structs.replace(finished, run=effect.run, abandoned=abandoned))

    def _take_facts(self, effect: TakeFacts) -> None:
        self._job("facts", self._facts_next, self._facts_taken, key="facts")

    def _facts_taken(self, outcome: Outcome) -> None:
        read = outcome.value
        if isinstance(read, jobs.FactsRead):
            self._facts_next = read.next
            self._driver.feed("", FactsTaken(read.facts))
        else:
            self._driver.feed("", FactsTaken(HostFacts(errors=(f"facts: {outcome.text}"[:200],))))

    def _export(self) -> None:
        """Write the newest metrics, one file at a time: a disk that hangs is asked again when its hand was killed."""
        if self._exporting or self._export_next is None:
            return
        vitals, self._export_next, self._exporting = self._export_next, None, True
        order = jobs.ExportOrder(vitals, self._config.textfile, self._config.node)
        self._job("export", order, self._exported, key="export")

    def _exported(self, outcome: Outcome) -> None:
        self._exporting = False
        error = outcome.text if outcome.failure else ""
        if error and error != self._export_error:
            self._tell("error", "textfile-not-written", {"path": self._config.textfile, "error": error})
        self._export_error = error
        self._export()

    def _examine(self, effect: Examine) -> None:
        fd = self._notify.stacks(effect.stacks) if self._notify is not None and effect.stacks else None
        order = jobs.ExamineOrder(effect, self._place())
        files = (fd,) if fd is not None else ()
        self._job("examine", order, functools.partial(self._examined, effect), f"examine {effect.app}", files)

    def _examined(self, effect: Examine, outcome: Outcome) -> None:
        examined = outcome.value
        if not isinstance(examined, Examined):
            examined = Examined(run=effect.run, stall=Stall.UNKNOWN, error=outcome.text)
        self._driver.feed("", msgspec.structs.replace(examined, run=effect.run))

    def _look_for_bundles(self, effect: LookForBundles) -> None:
        self._job("gone", jobs.LookOrder(effect, self._place()), self._looked_for, key="gone")

    def _looked_for(self, outcome: Outcome) -> None:
        # A disk that gives no answer has lost nothing yet.
        gone = outcome.value if isinstance(outcome.value, BundlesGone) else BundlesGone()
        self._driver.feed("", gone)

    def _remember(self, effect: Remember) -> None:
        self._job("remember", jobs.RememberOrder(effect, self._place()), self._remembered, key="remember")

    def _remembered(self, outcome: Outcome) -> None:
        if outcome.failure:
            self._tell("error", "state-not-kept", {"error": outcome.text, "directory": self._config.state_dir})

    def _restored(self, outcome: Outcome) -> None:
        remembered = outcome.value
        if not isinstance(remembered, Remembered):
            self._tell("error", "state-not-read", {"error": outcome.text, "directory": self._config.state_dir})
            remembered = Remembered()
        self._driver.feed("", msgspec.structs.replace(remembered, alive=self._alive(remembered.state)))

    def _alive(self, state: Mapping[str, Any]) -> dict[int, int]:
        """Processes that are named in a state and still live, with their start time."""
        apps = state.get("apps")
        kept = apps.values() if isinstance(apps, dict) else ()
        pids = [app.get("pid") for app in kept if isinstance(app, dict)]
        started = {pid: self._senders.start(pid) for pid in pids if isinstance(pid, int) and pid > 0}
        return {pid: start for pid, start in started.items() if start}

    def _restart_unit(self, effect: RestartUnit) -> None:
        self._job("restart", effect, functools.partial(self._restarted, effect))

    def _restarted(self, effect: RestartUnit, outcome: Outcome) -> None:
        acted = outcome.value
        if not isinstance(acted, Acted):
            acted = Acted(run=effect.run, error=outcome.text)
        self._driver.feed("", msgspec.structs.replace(acted, run=effect.run))

    def _ask_unit(self, effect: AskUnit) -> None:
        self._job("ending", effect, functools.partial(self._unit_answered, effect))

    def _unit_answered(self, effect: AskUnit, outcome: Outcome) -> None:
        answered = outcome.value
        if not isinstance(answered, UnitAnswered):
            answered = UnitAnswered(run=effect.run)
        self._driver.feed("", msgspec.structs.replace(answered, run=effect.run))

    def _recall(self, order: Recall) -> None:
        if self._core is None:
            self._recalled(order, Outcome(number=0, job="recall", text="the prober is not configured yet"))
        else:
            self._job("recall", jobs.RecallOrder(order, self._place()), functools.partial(self._recalled, order))

    def _recalled(self, order: Recall, outcome: Outcome) -> None:
        recalled = outcome.value
        if not isinstance(recalled, Recalled):
            recalled = Recalled(number=order.number, error=outcome.text)
        self._link.send(msgspec.structs.replace(recalled, number=order.number))

    def _start_drill(self, order: StartDrill) -> None:
        if self._core is None or self._notify is None:
            self._tell("error", "drill-not-started", {"reason": "nothing listens where applications report"})
        else:
            self._job("drill", jobs.DrillOrder(order, self._config.notify), self._drilled)

    def _drilled(self, outcome: Outcome) -> None:
        if outcome.failure:
            self._tell("error", "drill-failed", {"reason": outcome.text})

    # ---- applications ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Be where applications report, or try again later."""
        path = self._config.notify
        if path == self._listening_to and (self._notify is not None or not path):
            return
        self._listen_no_more()
        self._listening_to = path
        if path:
            self._try_to_listen(path, first=True)

    def _try_to_listen(self, path: str, first: bool) -> None:
        if path != self._listening_to or self._notify is not None:
            return
        try:
            self._notify = NotifySocket(path, time.monotonic_ns(), self._senders)
        except OSError as error:
            if first:
                fields = {"path": path, "error": error.strerror or repr(error)}
                self._tell("error", "notify-unavailable", fields)
            again = functools.partial(self._try_to_listen, path, first=False)
            self._driver.call_later(time.monotonic_ns() + LISTEN_AGAIN_NS, again)
            return
        self._notify_port = NotifyPort(self._notify, functools.partial(self._driver.feed, ""), self._driver.call_later)
        self._driver.add(self._notify_port)

    def _listen_no_more(self) -> None:
        if self._notify is not None and self._notify_port is not None:
            self._driver.remove(self._notify_port)
            self._notify.close()
        self._notify = self._notify_port = None

    def _drop(self, effect: Drop) -> None:
        if self._notify is not None:
            self._notify.drop(effect.stacks)

    def _watch(self, effect: Watch) -> None:
        known = self._watched.get(effect.pid)
        if known is not None and known.start == effect.start:
            return
        if known is not None or len(self._watched) >= WATCHED_MAX:
            # The id has another owner by now, or whoever was watched longest gives its place.
            self._unwatch(effect.pid if known is not None else next(iter(self._watched)))
        try:
            pidfd = os.pidfd_open(effect.pid)
        except ProcessLookupError:
            self._driver.soon(functools.partial(self._driver.feed, "", ProcessGone(effect.pid)))
            return
        except OSError:
            # A kernel before 5.3, a sandbox, or no descriptor left.
            self._look_again(effect)
            return
        # Looked at after it was opened: whose it is does not change any more.
        watched = self._watched[effect.pid] = _Watched(pidfd, effect.start, functools.partial(self._gone, effect.pid))
        self._driver.add(watched)
        if not self._lives(effect):
            self._driver.soon(watched.drain)

    def _lives(self, effect: Watch) -> bool:
        start = self._senders.start(effect.pid)
        return start != 0 and effect.start in (0, start)

    def _look_again(self, effect: Watch) -> None:
        if self._lives(effect):
            self._driver.call_later(time.monotonic_ns() + LOOK_NS, functools.partial(self._look_again, effect))
        else:
            self._driver.soon(functools.partial(self._driver.feed, "", ProcessGone(effect.pid)))

    def _gone(self, pid: int) -> None:
        self._unwatch(pid)
        self._driver.feed("", ProcessGone(pid))

    def _unwatch(self, pid: int) -> None:
        watched = self._watched.pop(pid, None)
        if watched is not None:
            self._driver.remove(watched)
            os.close(watched.source)


class _Watched:
    """The end of a process as a port."""

    def __init__(self, pidfd: int, start: int, gone: Callable[[], None]) -> None:
        self.source = pidfd
        self.start = start
        self._gone = gone

    def drain(self) -> int:
        """It becomes readable once, at its end."""
        self._gone()
        return 1
