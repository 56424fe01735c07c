"""What a life of the root wrote that could not read its store when it began, numbered after what was there.

Such a life numbers its events, incidents and silences from 1. With those numbers they would replace the oldest ones on
disk, so everything that is written gets the next free ones instead, wherever one names another. Until the root is
started again, what is read from the store therefore has other numbers than what the root itself shows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hbagent.core.records import Batch, Restored


class Numbering:
    """Added to the numbers of a life."""

    def __init__(self, before: Restored) -> None:
        self._events = before.newest_sequence
        self._silences = max((_number(silence.silence_id) for silence in before.silences), default=0)

    def batch(self, batch: Batch) -> Batch:
        """A batch with the numbers it has on disk."""
        if not self._events and not self._silences:
            return batch
        replace = msgspec.structs.replace
        return replace(
            batch,
            events=tuple(
                replace(event, sequence=event.sequence + self._events, incident=self._name(event.incident))
                for event in batch.events
            ),
            runs=tuple(
                replace(
                    run, queued=run.queued + self._events, incident=self._name(run.incident), ref=self._name(run.ref)
                )
                for run in batch.runs
            ),
            troubles=self._renamed(batch.troubles, "incident"),
            incidents=self._renamed(batch.incidents, "incident_id"),
            silences=self._renamed(batch.silences, "silence_id"),
        )

    def _renamed(self, records: tuple[Any, ...], field: str) -> tuple[Any, ...]:
        return tuple(
            msgspec.structs.replace(record, **{field: self._name(getattr(record, field))}) for record in records
        )

    def _name(self, name: str) -> str:
        """The id of an incident or a silence as it is on disk; anything else as it is."""
        if not name[1:].isdecimal() or name[0] not in "is":
            return name
        return f"{name[0]}{_number(name) + (self._events if name[0] == 'i' else self._silences)}"


def _number(name: str) -> int:
    return int(name[1:])
