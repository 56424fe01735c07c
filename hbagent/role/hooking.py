"""The hook runner: the process in which hooks are started, and of which nobody minds what becomes of it.

It knows nothing but one order, `RunHook`, and one answer. Each run has a hand, a process that is the subreaper of all
that the hook starts, so that runs are told apart however they leave their sessions and parents. What a hand that was
killed leaves comes to this process, which ends it; and what this process leaves comes to the root.

It ends with the link to its root and takes everything with it. It ignores SIGTERM, which systemd sends to every process
of a service: the root is told to end, and tells it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hbagent.core.dispatch import PLACES_MAX
from hbagent.core.effects import Effect, RunHook
from hbagent.core.hooktest import TESTS_MAX
from hbagent.core.messages import HookFinished
from hbagent.core.units import MILLISECOND, MINUTE, SECOND
from hbagent.hooks import runner
from hbagent.offspring import reaper
from hbagent.offspring.hands import TIMED_OUT, Hands, Job, Outcome

from .driver import Driver
from .handsport import HandsPort
from .link import HookOrder, Line, Link
from .sdnotify import Notifier

#: Hooks at once: all that the root starts of its queue, and the tests by hand. A run that found no hand would wait with
#: its time limit running.
RUNS_MAX = PLACES_MAX + TESTS_MAX
#: Results that wait for a root that is stopped: all of these runs with all that they printed.
RESULTS_WAITING_MAX = 8 << 20
#: How often the tasks of this user are counted anew, for the limit of what hooks may add to them.
COUNT_EVERY_NS = MINUTE


class HookRunner:
    """The hook runner, given its end of the link; `run` returns when that has ended."""

    def __init__(self, fd: int) -> None:
        self._driver = Driver(self, {}, Notifier({}), self._tell, select.poll())
        self._link = Link(
            fd, HookOrder, self._driver, self._ordered, lambda reason: self._driver.stop(), RESULTS_WAITING_MAX
        )
        self._driver.add(self._link)
        self._tasks_max = runner.tasks_allowed()
        self._hands = Hands({"hook": Job(self._perform, RunHook, HookFinished)}, RUNS_MAX, nice=0)
        self._driver.add(HandsPort(self._hands, self._finish))
        self._runs: dict[int, RunHook] = {}
        self._begun = 0

    def run(self) -> None:
        """Run hooks until the link ends."""
        with contextlib.suppress(OSError):
            reaper.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.geteuid() != 0:
            self._driver.call_every(COUNT_EVERY_NS, self._count)
        try:
            self._driver.run()
        finally:
            self._hands.close()
            self._link.close()
            self._driver.close()

    # ---- as the driver's core ----------------------------------------------------------------------------

    def receive(self, sender: str, message: object, now: int) -> Iterable[Effect]:
        """Nothing is decided here."""
        return ()

    def wake(self, now: int) -> Iterable[Effect]:
        """Look after the hands."""
        self._finish(self._hands.wake(now))
        return ()

    def deadline(self) -> int | None:
        """That of the hands."""
        return self._hands.deadline()

    # ---- runs --------------------------------------------------------------------------------------------

    def _ordered(self, order: RunHook) -> None:
        self._begun += 1
        self._runs[self._begun] = order
        now = time.monotonic_ns()
        # While a process of the last run is stuck in the kernel, the hook is not started once more.
        self._hands.start(self._begun, "hook", order, order.timeout_ns + runner.SLACK_NS, now, key=order.hook)

    def _perform(self, order: RunHook, files: Sequence[int]) -> HookFinished:
        """In a hand, which has the limits of when it was forked."""
        return runner.perform(order, self._tasks_max)

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            result = finished(self._runs.pop(outcome.number), outcome)
            if not self._link.send(result):
                # The root waits for it; one that hears that this process has ended waits no longer.
                self._driver.stop()

    def _count(self) -> None:
        self._tasks_max = runner.tasks_allowed()

    def _tell(self, level: str, what: str, fields: Mapping[str, object]) -> None:
        self._link.send(Line(level, what, dict(fields)))


def run_once(order: RunHook) -> HookFinished:
    """Run one hook as a hook runner would, and wait for it. All other children of this process are ended."""
    reaper.become_subreaper()
    hands = Hands({"hook": Job(lambda order, _: runner.perform(order, None), RunHook, HookFinished)}, 1, nice=0)
    try:
        hands.start(1, "hook", order, order.timeout_ns + runner.SLACK_NS, time.monotonic_ns())
        outcomes = hands.wake(time.monotonic_ns())
        while not outcomes:
            at = hands.deadline()
            wait_ns = SECOND if at is None else max(0, at - time.monotonic_ns())
            select.select([hands], [], [], (wait_ns + MILLISECOND) / SECOND)
            outcomes = hands.ready(time.monotonic_ns()) or hands.wake(time.monotonic_ns())
    finally:
        hands.close()
    return finished(order, outcomes[0])


def finished(order: RunHook, outcome: Outcome) -> HookFinished:
    """What came of a run, from what came of its hand."""
    result = outcome.value
    if not isinstance(result, HookFinished):
        error = "timeout" if outcome.failure == TIMED_OUT else f"not run: {outcome.text}"
        return HookFinished(run_id=order.run_id, exit_code=None, error=error, duration_ns=outcome.duration_ns)
    if outcome.abandoned and result.error:
        # One that ended well has, also when it left what nobody can end.
        left = f"{result.error}; {outcome.abandoned} of its processes do not die"
        return msgspec.structs.replace(result, error=left)
    return result
