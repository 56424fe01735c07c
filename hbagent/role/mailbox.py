"""How a worker's result gets into the loop: a bounded queue and one descriptor that the loop polls.

Any thread may post. The loop is woken once for however many are waiting.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

#: News that waits for the loop. Monitors tell a few events a connection: ten thousand connections that come back at
#: once fit.
MAILBOX_MAX = 65_536


class Mailbox:
    """Calls that other threads want the loop's thread to make."""

    def __init__(self, limit: int = MAILBOX_MAX) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._limit = limit
        self._wake_fd, self._signal_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A descriptor that is closed while a worker writes to it may be somebody else's by then.
        self._closing = threading.Lock()
        self._closed = False
        #: Calls refused because the mailbox was full.
        self.dropped = 0

    def fileno(self) -> int:
        """The descriptor that becomes readable when something waits."""
        return self._wake_fd

    def post(self, call: Callable[[], object], owed: bool = False) -> bool:
        """Have the loop make `call`; False, and counted, when too many wait. Thread-safe.

        What is `owed`, the outcome of a job that the loop itself gave, is never refused: a core would wait for it
        for ever, and there are no more of those than jobs.
        """
        if len(self._calls) >= self._limit and not owed:
            self.dropped += 1
            return False
        self._calls.append(call)
        with self._closing:
            # A full pipe has woken the loop already; a closed one has no loop any more.
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._signal_fd, b"\0")
        return True

    def take(self) -> list[Callable[[], object]]:
        """The calls that wait now, in order; the loop's thread makes them."""
        # Emptied before looking: what is posted from here on wakes the loop again.
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_fd, 65_536)) == 65_536:
                pass
        return [self._calls.popleft() for _ in range(len(self._calls))]

    def close(self) -> None:
        """Close the descriptors; what still waits is forgotten. Harmless when repeated."""
        with self._closing:
            if not self._closed:
                self._closed = True
                os.close(self._wake_fd)
                os.close(self._signal_fd)
