"""A thread for what may take time: a disk, `/proc`, a config file. The loop hands it jobs and never waits for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

#: Jobs that wait for one worker. Each core has at most a handful under way; a worker stuck on a dead disk must not
#: collect them without end.
JOBS_MAX = 1_000


class Worker:
    """Runs jobs one after the other, in order.

    A job must not raise; what escapes it is told to `failed`, from this thread, and the next job goes on.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None], jobs_max: int = JOBS_MAX) -> None:
        self._jobs: queue.Queue[Callable[[], object] | None] = queue.Queue(jobs_max)
        self._failed = failed
        self._since: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], object]) -> bool:
        """Run `job` after those before it; False when too many wait. Never waits."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    @property
    def since(self) -> int | None:
        """When the job under way was begun, on the monotonic clock; None while there is none."""
        return self._since

    def stop(self, timeout_s: float) -> bool:
        """Finish what waits and end; False when that took longer than `timeout_s`, and the thread is left behind."""
        until = time.monotonic() + timeout_s
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._since = time.monotonic_ns()
            try:
                job()
            except Exception as error:
                self._failed(error)
            self._since = None
