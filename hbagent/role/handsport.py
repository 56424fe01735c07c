"""Hands as a port of the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from hbagent.offspring.hands import Hands, Outcome


class HandsPort:
    """`finish` gets what they have done; they are woken at their deadline by the core of whoever owns them."""

    def __init__(self, hands: Hands, finish: Callable[[Iterable[Outcome]], None]) -> None:
        self.source = hands.fileno()
        self._hands = hands
        self._finish = finish

    def drain(self) -> int:
        """Take in what they have done; there are a handful of them."""
        outcomes = self._hands.ready(time.monotonic_ns())
        self._finish(outcomes)
        return len(outcomes)
