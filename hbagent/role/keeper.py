"""What a core wants kept: written by a worker, answered by `Kept` or `KeepFailed`, each once and in time.

A disk that refuses says so. One that hangs says nothing, and nobody would learn that the promise is suspended. So a
write without an answer counts as failed after a while, and while the worker hangs on it, later ones fail at once
instead of piling up behind it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from hbagent.core.messages import KeepFailed, Kept
from hbagent.core.units import SECOND, show_duration

from .driver import Driver
from .worker import Worker

#: A write takes milliseconds, on a busy disk up to a second or two.
PATIENCE_NS = 5 * SECOND


class Keeper:
    """Writes for one core. A write raises `error` for a disk that refuses; anything else is a defect.

    `patience_ns` is how long an answer may take; None for a core that looks after that itself.
    """

    def __init__(
        self, driver: Driver, worker: Worker, error: type[Exception], patience_ns: int | None = PATIENCE_NS
    ) -> None:
        self._driver = driver
        self._worker = worker
        self._error = error
        self._patience_ns = patience_ns
        #: Writes that the worker has not answered, by token, in order: since when, and whether the core still waits.
        self._pending: dict[int, tuple[int, bool]] = {}
        self._timer_set = False

    def write(self, token: int, job: Callable[[], object]) -> None:
        """In the loop's thread: have the worker run `job`; the core is told under `token` how it ended."""
        now = time.monotonic_ns()
        since = self._stuck_since(now)
        if since is not None:
            self._fail(token, f"the disk has not answered for {show_duration(now - since)}")
        elif not self._worker.submit(functools.partial(self._run, token, job)):
            self._fail(token, "too many writes wait for the disk")
        else:
            self._pending[token] = (now, True)
            self._set_timer()

    def _run(self, token: int, job: Callable[[], object]) -> None:
        """In the worker's thread."""
        reason = ""
        try:
            job()
        except self._error as error:
            reason = str(error)
        except Exception as error:
            reason = f"a defect: {error!r}"
            self._driver.mailbox.post(functools.partial(self._driver.defect, "keep", error), owed=True)
        self._driver.mailbox.post(functools.partial(self._done, token, reason), owed=True)

    def _done(self, token: int, reason: str) -> None:
        _, awaited = self._pending.pop(token)
        if not awaited:
            return
        self._driver.feed("", KeepFailed(token, reason) if reason else Kept(token))

    def _fail(self, token: int, reason: str) -> None:
        # As news, not at once: the core is still giving orders.
        self._driver.post(KeepFailed(token, reason))

    def _stuck_since(self, now: int) -> int | None:
        since, _ = next(iter(self._pending.values()), (now, True))
        return since if self._patience_ns is not None and now - since >= self._patience_ns else None

    def _set_timer(self) -> None:
        awaited = next((since for since, awaited in self._pending.values() if awaited), None)
        if awaited is not None and self._patience_ns is not None and not self._timer_set:
            self._timer_set = True
            self._driver.call_later(awaited + self._patience_ns, self._look)

    def _look(self) -> None:
        """Tell the core of writes that take too long."""
        self._timer_set = False
        now = time.monotonic_ns()
        since = self._stuck_since(now)
        for token, (begun, awaited) in list(self._pending.items()):
            if since is not None and awaited:
                self._pending[token] = (begun, False)
                self._fail(token, f"the disk has not answered for {show_duration(now - since)}")
        self._set_timer()
