"""A notify socket that listens while a test runs real programs against it."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hbagent.core.messages import Notified
from hbagent.transport.notify import NotifySocket

#: Longer than anything here takes on a busy machine.
BOUND_S = 15.0


def wait_for(condition: Callable[[], bool], bound_s: float = BOUND_S) -> bool:
    """Wait until it holds; False when it does not within the bound."""
    end = time.monotonic() + bound_s
    never = threading.Event()
    while not condition():
        if time.monotonic() >= end:
            return False
        never.wait(0.01)
    return True


class Listener:
    """Reads in a thread of its own, so that a test may wait for a program that waits for a barrier."""

    def __init__(self, address: Path | str) -> None:
        self.address = str(address)
        self.socket = NotifySocket(self.address, time.monotonic_ns())
        self.heard: list[Notified] = []
        self._ours, self._theirs = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            at = self.socket.deadline()
            bound = 1.0 if at is None else max(0.0, (at - time.monotonic_ns()) / 1e9)
            ready, _, _ = select.select([self.socket.fileno(), self._ours], [], [], bound)
            if self._ours in ready:
                return
            self.socket.wake(time.monotonic_ns())
            self.heard += self.socket.read(time.monotonic_ns())

    def said(self, key: str) -> list[str]:
        """Every value of a key, in the order of arrival."""
        return [value for notified in list(self.heard) for name, value in notified.fields if name == key]

    def until(self, condition: Callable[[], bool], bound_s: float = BOUND_S) -> bool:
        """Wait until it holds."""
        return wait_for(condition, bound_s)

    def close(self) -> None:
        """Listen no longer."""
        os.write(self._theirs, b"x")
        self._thread.join(BOUND_S)
        self.socket.close()
        os.close(self._ours)
        os.close(self._theirs)
