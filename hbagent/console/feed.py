"""Asking for the console, in threads of its own, so that a daemon that is slow or gone never holds up a key press.

Two threads, for two tempers: one asks for changes each second, over and over; the other runs errands, one by one: a
node's story, a bundle that its host must send first, an order. Each has its own connection, for a connection may be
used by one thread only.

Whom to ask is a list: the first who answers is asked. While it is not the first of all, that one is tried again now
and then, so a root that comes back takes over from the leader that stood in for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from hbagent.cli.answers import Row, number, word
from hbagent.cli.query import Asker, Denied, NoTarget, Target, Unanswered

#: Leaders tell their state once a second; asking more often shows nothing new.
PERIOD_S = 1.0
#: While somebody else stands in, the first is tried again this often: trying one that hangs costs a timeout, and that
#: must be small against the age at which data counts as old.
RETRY_S = 10.0
#: Who quits does not wait for a daemon that hangs; its answer is left to nobody.
CLOSE_S = 0.3
#: Errands that may wait; whoever presses keys faster than a daemon answers loses the oldest wish.
ERRANDS_MAX = 8

#: What came of asking: an answer, or why there is none.
Told = Callable[[Row | None, str], None]
Errand = Callable[[Asker], Any]


class Feed:
    """Asks until it is closed. `told` and what an errand tells are called in the threads of the feed."""

    def __init__(self, targets: Sequence[Target], timeout_ns: int, told: Told) -> None:
        self._targets = list(targets)
        self._timeout_ns = timeout_ns
        self._told = told
        #: Which of the targets answers; they are tried in their order.
        self._at = 0
        self._closing = threading.Event()
        self._now = threading.Event()
        self._errands: queue.Queue[tuple[Errand, Told, int] | None] = queue.Queue(ERRANDS_MAX)
        self._threads = [
            threading.Thread(target=self._watch, name="console-feed", daemon=True),
            threading.Thread(target=self._run_errands, name="console-errands", daemon=True),
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End; what is still asked for is given up."""
        self._closing.set()
        self._now.set()
        self._put(None)
        for thread in self._threads:
            thread.join(CLOSE_S)

    def ask_now(self) -> None:
        """Do not wait for the next second."""
        self._now.set()

    def run(self, errand: Errand, told: Told, patience_ns: int = 0) -> None:
        """Have one thing asked; `told` hears what came of it. What must come from afar needs more patience."""
        self._put((errand, told, max(self._timeout_ns, patience_ns)))

    def _put(self, item: tuple[Errand, Told, int] | None) -> None:
        while True:
            try:
                self._errands.put_nowait(item)
                return
            except queue.Full:
                try:
                    dropped = self._errands.get_nowait()
                except queue.Empty:
                    continue
                if dropped is not None:
                    dropped[1](None, "too much was asked for at once")

    # ---- changes -----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        line = _Line()
        life, version = "", 0
        retry_at = 0.0
        while not self._closing.is_set():
            self._now.clear()
            order = list(range(len(self._targets)))
            if self._at and time.monotonic() < retry_at:
                order.insert(0, order.pop(self._at))
            elif self._at:
                retry_at = time.monotonic() + RETRY_S
            said: list[str] = []
            for at in order:
                try:
                    # Another daemon knows no version of this life, and tells everything.
                    answer = line.to(self._targets[at], self._timeout_ns).ask("cells", after=version, life=life)
                except (Unanswered, Denied, NoTarget) as error:
                    said.append(str(error))
                    line.hang_up()
                    continue
                if isinstance(answer, dict):
                    self._at = at
                    life, version = word(answer, "life"), int(number(answer, "version") or 0)
                    self._told(answer, "")
                    break
                said.append("the answer is not an object")
            else:
                # Of several who do not answer, the one who was asked first is named.
                self._told(None, said[0])
            self._now.wait(PERIOD_S)
        line.hang_up()

    # ---- errands -----------------------------------------------------------------------------------------

    def _run_errands(self) -> None:
        line = _Line()
        while (item := self._errands.get()) is not None and not self._closing.is_set():
            errand, told, timeout_ns = item
            try:
                answer = errand(line.to(self._targets[self._at], timeout_ns))
            except (Unanswered, Denied, NoTarget) as error:
                line.hang_up()
                told(None, str(error))
                continue
            told(answer if isinstance(answer, dict) else {}, "")
        line.hang_up()


class _Line:
    """At most one connection, to whoever was wanted last."""

    def __init__(self) -> None:
        self._asker: Asker | None = None
        self._timeout_ns = 0

    def to(self, target: Target, timeout_ns: int) -> Asker:
        """A connection to a target that waits so long. Raises NoTarget."""
        if self._asker is None or self._asker.target != target or self._timeout_ns != timeout_ns:
            self.hang_up()
            self._asker, self._timeout_ns = Asker(target, timeout_ns), timeout_ns
        return self._asker

    def hang_up(self) -> None:
        """Give the connection up; what was asked on it is lost."""
        if self._asker is not None:
            self._asker.close()
            self._asker = None
