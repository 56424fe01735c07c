"""The root's side of its hook runner: every run that is ordered comes back once, whatever becomes of the runner.

A runner that ends takes its runs with it. They come back as failed, so the core tries them again, and another runner is
started; soon at first, later each time. One that is stuck is found out by a run that should long be over, and killed.
"""

from __future__ import annotations

import time
from typing import Any

from hbagent.core.effects import RunHook
from hbagent.core.messages import HookFinished
from hbagent.core.units import MILLISECOND, SECOND, show_duration
from hbagent.hooks.runner import SLACK_NS

from .companion import Companion
from .defects import Tell
from .driver import Driver
from .link import HookWord, Line

#: Before a runner that ended is started again: what killed one may have been aimed at one, and one that cannot run
#: costs next to nothing.
RESTART_MIN_NS = 100 * MILLISECOND
RESTART_MAX_NS = 30 * SECOND
#: A runner that lived this long has proved that it can.
PROVED_NS = 10 * SECOND
#: Beyond a run's time limit and all that a runner itself waits for.
OVERDUE_NS = SLACK_NS + 5 * SECOND
#: How often that is looked for.
LOOK_NS = SECOND
_LEVELS = ("debug", "info", "warning", "error")


class HookHalf:
    """The hook runner as its root sees it; performs `RunHook`."""

    def __init__(self, driver: Driver, root: str, tell: Tell) -> None:
        self._driver = driver
        self._tell = tell
        self._runner = Companion(driver, ("hbagent.role.hookrunner", root), HookWord, self._heard, self._ended)
        #: Runs that have not come back, and when they should have at the latest.
        self._runs: dict[str, tuple[RunHook, int]] = {}
        #: Those of them that wait for a runner.
        self._held: list[RunHook] = []
        self._started_at = 0
        self._pause_ns = RESTART_MIN_NS
        self._planned = False
        self._closed = False
        self._driver.call_every(LOOK_NS, self._look)

    @property
    def pid(self) -> int | None:
        """The runner's process; None while there is none."""
        return self._runner.pid

    def prepare(self) -> None:
        """Have a runner before there is a hook to run, for its start takes a tenth of a second."""
        if self._runner.absent and not self._planned:
            self._start()

    def run(self, effect: RunHook) -> None:
        """Start one hook; `HookFinished` follows, whenever that is. Never waits."""
        self._runs[effect.run_id] = (effect, time.monotonic_ns() + effect.timeout_ns + OVERDUE_NS)
        if self._runner.running:
            self._send(effect)
        else:
            self._held.append(effect)
            self.prepare()

    def close(self) -> None:
        """End the runner and everything that it started. The loop is over by now."""
        self._closed = True
        self._runner.close()

    # ---- the runner --------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._planned = False
        if self._closed:
            return
        self._started_at = time.monotonic_ns()
        self._runner.start()
        if self._runner.running:
            held, self._held = self._held, []
            for effect in held:
                self._send(effect)

    def _send(self, effect: RunHook) -> None:
        try:
            why = "" if self._runner.send(effect) else "the hook runner does not read"
        except ValueError as error:
            why = str(error)
        if why:
            self._finish(HookFinished(run_id=effect.run_id, exit_code=None, error=f"not started: {why}"))

    def _heard(self, word: Any) -> None:
        if isinstance(word, Line):
            self._tell(word.level if word.level in _LEVELS else "warning", word.what, dict(word.fields))
        else:
            self._finish(word)

    def _finish(self, result: HookFinished) -> None:
        if self._runs.pop(result.run_id, None) is not None:
            # Not at once: the core may be in the middle of the order that has failed.
            self._driver.soon(lambda: self._driver.feed("", result))

    def _ended(self, reason: str) -> None:
        if self._closed:
            return
        if time.monotonic_ns() - self._started_at >= PROVED_NS:
            self._pause_ns = RESTART_MIN_NS
        fields = {"reason": reason or "it ended", "runs": len(self._runs), "again_in": show_duration(self._pause_ns)}
        self._tell("error", "hook-runner-ended", fields)
        self._planned = True
        self._driver.call_later(time.monotonic_ns() + self._pause_ns, self._start)
        self._pause_ns = min(2 * self._pause_ns, RESTART_MAX_NS)
        held = {effect.run_id for effect in self._held}
        for run_id in [run_id for run_id in self._runs if run_id not in held]:
            self._finish(HookFinished(run_id=run_id, exit_code=None, error=f"the hook runner ended: {reason}"))

    def _look(self) -> None:
        """For a runner that is stuck: it answers no more, or was stopped by somebody."""
        now = time.monotonic_ns()
        overdue = [effect for effect, until in self._runs.values() if until <= now]
        for effect in [effect for effect in overdue if effect in self._held]:
            self._held.remove(effect)
            overdue.remove(effect)
            error = "not started: there is no hook runner"
            self._finish(HookFinished(run_id=effect.run_id, exit_code=None, error=error))
        if overdue:
            self._tell("error", "hook-runner-stuck", {"runs": len(overdue)})
            self._runner.kill()
