"""What happened becomes an event: it gets a number and an id, a line in the ledger, and a run for each hook it is for.

The id is what a receiver drops duplicates by. It is made of random bits of this life of the root and the event's
number, so it is never given out twice, whatever becomes of the store. A number alone means something only within one
store: a lost one begins again at 1.
"""

from __future__ import annotations

from typing import Any

from .config import HookConfig
from .ledger import Ledger
from .notice import host_of, notices
from .records import Event
from .states import Kind


class Chronicle:
    """Gives out events."""

    def __init__(self, ledger: Ledger, hooks: tuple[HookConfig, ...], life: int) -> None:
        self._ledger = ledger
        self._life = life
        #: Who may want to be told.
        self.hooks = hooks
        #: Number of the newest event.
        self.newest = 0

    def add(self, kind: Kind, at_wall_ns: int, was_open: str = "", **fields: Any) -> Event:
        """Tell an event, with these fields of `records.Event`; `was_open` is the trouble of its node until now."""
        self.newest += 1
        event = Event(
            event_id=f"{self._life:08x}-{self.newest}",
            sequence=self.newest,
            kind=kind,
            at_wall_ns=at_wall_ns,
            host=host_of(fields.get("liveness_to"), fields.get("cause")),
            **fields,
        )
        self._ledger.event(event)
        for run in notices(self.hooks, event, was_open):
            self._ledger.run(run)
        return event
