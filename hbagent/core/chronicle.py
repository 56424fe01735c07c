"""What happened becomes an event: it gets a number and an id.

The id is what a receiver drops duplicates by. It is made of random bits of this life of the root and the event's
number, so it is never given out twice, whatever becomes of the store. A number alone means something only within one
store: a lost one begins again at 1.
"""

from __future__ import annotations

from typing import Any

from .notice import host_of
from .records import Event
from .states import Kind


class Chronicle:
    """Gives out events."""

    def __init__(self, life: int) -> None:
        self._life = life
        #: Number of the newest event.
        self.newest = 0
        self._beats = 0

    def make(self, kind: Kind, at_wall_ns: int, **fields: Any) -> Event:
        """The next event, with these fields of `records.Event`."""
        self.newest += 1
        return self._event(kind, at_wall_ns, self.newest, f"{self._life:08x}-{self.newest}", **fields)

    def watchdog(self, at_wall_ns: int) -> Event:
        """A sign of life of the alarm path: no line of history, so it takes no number of one."""
        self._beats += 1
        return self._event(Kind.WATCHDOG, at_wall_ns, self.newest, f"{self._life:08x}-w{self._beats}")

    @staticmethod
    def _event(kind: Kind, at_wall_ns: int, sequence: int, event_id: str, **fields: Any) -> Event:
        return Event(
            event_id=event_id,
            sequence=sequence,
            kind=kind,
            at_wall_ns=at_wall_ns,
            host=host_of(fields.get("liveness_to"), fields.get("cause")),
            **fields,
        )
