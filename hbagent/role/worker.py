"""A thread for what may take time: a disk, `/proc`, a hook. The loop hands it jobs and never waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

#: Jobs that wait for one worker. Each core has at most a handful under way; a worker stuck on a dead disk must not
#: collect them without end.
JOBS_MAX = 1_000


class Worker:
    """Runs jobs one after the other, in order.

    A job must not raise; what escapes it is told to `failed`, from this thread, and the next job goes on.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(JOBS_MAX)
        self._failed = failed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> bool:
        """Run `job` after those before it; False when too many wait."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            return False
        return True

    def stop(self, timeout_s: float) -> bool:
        """Finish what waits and end; False when that took longer than `timeout_s`, and the thread is left behind."""
        try:
            self._jobs.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._failed(error)
