"""Disks that keep what was synced and lose the rest.

A write takes effect when its time is up, in the order of writing. A crash before that leaves what a real disk may
leave: some of the waiting writes, in order, and of the next one a part (`Journal`) or nothing (`Store`, for a
transaction is whole or absent). Entries go through bytes, as they would in a file.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from hbagent.core.records import (
    Batch,
    Conviction,
    Event,
    HookRun,
    Incident,
    Mark,
    NodeState,
    Restored,
    RunState,
    Silence,
    Tally,
    Trouble,
)
from hbagent.core.states import Axis, IncidentState

#: A sync takes this long; the slow one is a disk with other work to do.
SYNC_NS = (500_000, 12_000_000)
SLOW_SYNC_NS = (200_000_000, 900_000_000)


class Disk:
    """Writes on their way, in order."""

    __slots__ = ("_done_at", "failed_at", "failing", "slow", "troubled", "waiting")

    def __init__(self) -> None:
        self._done_at = 0
        #: (token, what) that have not been synced.
        self.waiting: list[tuple[int, Any]] = []
        self.failing = False
        #: When a write last failed; 0 when none did.
        self.failed_at = 0
        self.slow = False
        #: When it failed or was slow; end FAR while it does.
        self.troubled: list[list[int]] = []

    def write(self, token: int, what: Any, at: int, rng: random.Random) -> int:
        """Begin to write; returns when it will be synced."""
        self.waiting.append((token, what))
        low, high = SLOW_SYNC_NS if self.slow else SYNC_NS
        self._done_at = max(self._done_at, at) + rng.randrange(low, high)
        return self._done_at

    def sync(self, token: int) -> Any:
        """The oldest write is on the disk; returns what it was, None for one that a crash has taken."""
        if not self.waiting or self.waiting[0][0] != token:
            return None
        _, what = self.waiting.pop(0)
        self.keep(what)
        return what

    def discard(self, token: int, at: int) -> bool:
        """The oldest write failed; False when a crash had taken it before."""
        if not self.waiting or self.waiting[0][0] != token:
            return False
        self.failed_at = at
        self.waiting.pop(0)
        return True

    def crash(self, rng: random.Random) -> list[Any]:
        """The process ends: decide what of the waiting writes the disk has; returns those that are whole."""
        whole = rng.randrange(len(self.waiting) + 1)
        kept = [what for _, what in self.waiting[:whole]]
        for what in kept:
            self.keep(what)
        if whole < len(self.waiting):
            self.tear(self.waiting[whole][1], rng)
        self.waiting.clear()
        return kept

    def keep(self, what: Any) -> None:
        """Put `what` on the disk."""
        raise NotImplementedError

    def tear(self, what: Any, rng: random.Random) -> None:
        """A crash in the middle of writing `what`."""


class Journal(Disk):
    """A leader's journal: Keep appends, Rewrite replaces all."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[bytes] = []

    def keep(self, what: tuple[bool, tuple[dict[str, Any], ...]]) -> None:
        replace, entries = what
        encoded = [msgspec.msgpack.encode(entry) for entry in entries]
        if replace:
            self._entries = encoded
        else:
            self._entries.extend(encoded)

    def tear(self, what: tuple[bool, tuple[dict[str, Any], ...]], rng: random.Random) -> None:
        replace, entries = what
        if not replace:
            self.keep((False, entries[: rng.randrange(len(entries) + 1)]))

    def load(self) -> list[dict[str, Any]]:
        """Every entry that was kept, oldest first."""
        return [msgspec.msgpack.decode(entry) for entry in self._entries]

    def __len__(self) -> int:
        return len(self._entries)


class Store(Disk):
    """The root's history, with the meaning of `hbagent.store.history`."""

    __slots__ = (
        "convictions",
        "events",
        "incidents",
        "marks",
        "nodes",
        "runs",
        "silences",
        "tallies",
        "troubles",
    )

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.nodes: dict[str, NodeState] = {}
        self.marks: dict[tuple[str, int], Mark] = {}
        self.runs: dict[str, HookRun] = {}
        self.convictions: dict[str, Conviction] = {}
        self.tallies: dict[int, Tally] = {}
        self.troubles: dict[tuple[str, Axis], Trouble] = {}
        self.incidents: dict[str, Incident] = {}
        self.silences: dict[str, Silence] = {}

    def keep(self, what: Batch) -> None:
        self.events.extend(what.events)
        self.nodes.update((state.node, state) for state in what.nodes)
        self.marks.update(((mark.leader, mark.slot), mark) for mark in what.marks)
        self.runs.update((run.run_id, run) for run in what.runs)
        for node in what.forgotten:
            self.nodes.pop(node, None)
        self.convictions.update((conviction.event_id, conviction) for conviction in what.convictions)
        for event_id in what.folded:
            self.convictions.pop(event_id, None)
        if what.tally is not None:
            for life in what.tally.replaces:
                self.tallies.pop(life, None)
            self.tallies[what.tally.life] = what.tally
        self.troubles.update(((trouble.subject, trouble.axis), trouble) for trouble in what.troubles)
        for key in what.ended:
            self.troubles.pop(key, None)
        self.incidents.update((incident.incident_id, incident) for incident in what.incidents)
        self.silences.update((silence.silence_id, silence) for silence in what.silences)

    def load(self) -> Restored:
        """What a root's start finds."""
        named = {told.run_id for trouble in self.troubles.values() for told in trouble.told.values()}
        runs = [
            run for run in self.runs.values() if run.state in (RunState.PENDING, RunState.HELD) or run.run_id in named
        ]
        open_ones = [one for one in self.incidents.values() if one.state is not IncidentState.RESOLVED]
        return Restored(
            nodes=tuple(self.nodes.values()),
            marks=tuple(sorted(self.marks.values(), key=lambda mark: (mark.leader, mark.life))),
            runs=tuple(sorted(runs, key=lambda run: (run.queued, run.run_id))),
            troubles=tuple(self.troubles.values()),
            incidents=tuple(sorted(open_ones, key=lambda one: int(one.incident_id[1:]))),
            silences=tuple(sorted(self.silences.values(), key=lambda one: int(one.silence_id[1:]))),
            convictions=tuple(sorted(self.convictions.values(), key=lambda conviction: conviction.at_wall_ns)),
            tallies=tuple(self.tallies.values()),
            newest_sequence=max((event.sequence for event in self.events), default=0),
        )
