"""How a worker's result gets into the loop: a bounded queue and one descriptor that the loop polls.

Any thread may post. The loop is woken once for however many are waiting.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable

#: Results that wait for the loop. Workers hold one job each, monitors tell a few events a connection: ten thousand
#: connections that come back at once fit.
MAILBOX_MAX = 65_536


class Mailbox:
    """Calls that other threads want the loop's thread to make."""

    def __init__(self, limit: int = MAILBOX_MAX) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._limit = limit
        self._wake_fd, self._signal_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        #: Calls refused because the mailbox was full.
        self.dropped = 0

    def fileno(self) -> int:
        """The descriptor that becomes readable when something waits."""
        return self._wake_fd

    def post(self, call: Callable[[], None]) -> bool:
        """Have the loop make `call`; False, and counted, when too many wait. Thread-safe."""
        if len(self._calls) >= self._limit:
            self.dropped += 1
            return False
        self._calls.append(call)
        # A full pipe has woken the loop already; a closed one has no loop any more.
        with contextlib.suppress(OSError):
            os.write(self._signal_fd, b"\0")
        return True

    def drain(self) -> int:
        """Make the calls that wait now, in order; returns how many there were. In the loop's thread only."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_fd, 65_536)) == 65_536:
                pass
        count = len(self._calls)
        for _ in range(count):
            self._calls.popleft()()
        return count

    def close(self) -> None:
        """Close the descriptors; what still waits is forgotten."""
        for fd in (self._wake_fd, self._signal_fd):
            with contextlib.suppress(OSError):
                os.close(fd)
