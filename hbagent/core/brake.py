"""How many notifications one receiver gets one by one, of one node, of one rack and of everything.

Whoever is told of two hundred things in a minute is told of none. Each limit counts what was sent within a window that
slides: what was refused does not count, so a storm that goes on lets a few through in each window, and the rest is the
affair of a summary.
"""

from __future__ import annotations

from collections import deque

from .config import BrakeConfig


class Brake:
    """The counts of all receivers. Holds what was admitted within the window, at most `all_max` of each receiver."""

    __slots__ = ("_config", "_receivers")

    def __init__(self, config: BrakeConfig) -> None:
        self._config = config
        self._receivers: dict[str, _Sent] = {}

    def use(self, config: BrakeConfig) -> None:
        """Other limits; what was sent still counts."""
        self._config = config

    def admit(self, receiver: str, subject: str, rack: str, now: int) -> str:
        """ "" when one more about `subject` may be sent now, which is counted then; else the limit that is reached:
        "node", "rack" or "all". `rack` is "" for what is about no rack."""
        sent = self._receivers.setdefault(receiver, _Sent())
        sent.forget(now - self._config.window_ns)
        if sent.subjects.get(subject, 0) >= self._config.node_max:
            return "node"
        if rack and sent.racks.get(rack, 0) >= self._config.rack_max:
            return "rack"
        if len(sent.order) >= self._config.all_max:
            return "all"
        sent.add(subject, rack, now)
        return ""


class _Sent:
    """What one receiver was sent within the window, oldest first, and how often of whom."""

    __slots__ = ("order", "racks", "subjects")

    def __init__(self) -> None:
        self.order: deque[tuple[int, str, str]] = deque()
        self.subjects: dict[str, int] = {}
        self.racks: dict[str, int] = {}

    def add(self, subject: str, rack: str, now: int) -> None:
        self.order.append((now, subject, rack))
        self.subjects[subject] = self.subjects.get(subject, 0) + 1
        self.racks[rack] = self.racks.get(rack, 0) + 1

    def forget(self, until: int) -> None:
        """Drop what was sent at `until` or before."""
        while self.order and self.order[0][0] <= until:
            _, subject, rack = self.order.popleft()
            for counts, name in ((self.subjects, subject), (self.racks, rack)):
                counts[name] -= 1
                if not counts[name]:
                    del counts[name]
