"""What hands leave behind: children of this process that are no hands, and have to go.

In a subreaper whoever loses its parent below becomes a child. Each of them is killed with all below it, and asked for
its end until it has one. One that does not die is stuck in the kernel: it is counted and named, killed and looked at
again each second, for it ends when the disk does answer, and must not stay as a zombie then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from hbagent.core.units import MILLISECOND, SECOND

from . import reaper

#: Between two looks at those who are dying, and at those who do not.
SOON_NS = 10 * MILLISECOND
AGAIN_NS = SECOND


class Stuck(msgspec.Struct, frozen=True):
    """A process that does not die of SIGKILL."""

    pid: int
    #: Name of its program.
    command: str
    #: Key of the job that it belongs to; "" when that is not known.
    key: str
    since_ns: int


class _Stray(msgspec.Struct):
    key: str
    since: int
    stuck: bool = False


class Strays:
    """Ends whoever is a child of this process and no hand. In a process that is no subreaper nobody comes to it."""

    def __init__(self) -> None:
        self._strays: dict[int, _Stray] = {}
        #: Those who were killed, or do not die, and the key of their job.
        self._keys: dict[int, str] = {}
        self._patience = reaper.Patience(0)
        self._gone = 0
        self._due: int | None = None
        #: Since the start.
        self.abandonments = 0

    def name(self, pids: Iterable[int], key: str) -> None:
        """Remember whose job these processes are, should they turn up here."""
        self._keys |= dict.fromkeys(pids, key)

    def abandon(self, pid: int, key: str, now: int) -> None:
        """Take over a hand that does not die."""
        self._strays[pid] = _Stray(key, now, stuck=True)
        self.abandonments += 1
        self._due = now + AGAIN_NS

    def deadline(self) -> int | None:
        """When to call `tidy` again."""
        return self._due

    def tidy(self, hands: Iterable[int], now: int) -> None:
        """Kill and reap every child but `hands`."""
        spared = dict.fromkeys(hands)
        found = [pid for pid in reaper.children(os.getpid()) if pid not in spared] if reaper.is_subreaper() else []
        present = {**dict.fromkeys(found), **self._strays}
        alive = [pid for pid in present if reaper.reap(pid) is None]
        self._gone += len(present) - len(alive)
        self._strays = {pid: self._strays[pid] for pid in alive if pid in self._strays}
        new = [pid for pid in alive if pid not in self._strays]
        if new:
            # Who was not seen before came of one who was.
            key = self._keys.get(new[0], "")
            self._keys = {**dict.fromkeys(reaper.fell(new), key), **self._keys}
            # One that has ended since it was seen was not there to be felled.
            self._strays |= {pid: _Stray(self._keys.get(pid, key), now) for pid in new}
            self._patience, self._gone = reaper.Patience(now), 0
        dying = {pid: stray for pid, stray in self._strays.items() if not stray.stuck}
        if dying and self._patience.is_over(self._gone, now, self._keys):
            for stray in dying.values():
                stray.stuck = True
            self.abandonments += len(dying)
            dying = {}
        if self._strays and not dying:
            # Somebody below one of them may have been missed, and nobody else comes to him while his parent is stuck.
            reaper.fell(self._strays)
        # Who ended between the two looks has left its own children here.
        again = dying or len(alive) < len(present)
        self._due = now + SOON_NS if again else now + AGAIN_NS if self._strays else None
        if not self._strays:
            self._keys.clear()

    def __len__(self) -> int:
        """Processes that do not die, now."""
        return sum(stray.stuck for stray in self._strays.values())

    def stuck(self, now: int) -> tuple[Stuck, ...]:
        """Who does not die, and for how long."""
        return tuple(
            Stuck(pid, reaper.command(pid), stray.key, now - stray.since)
            for pid, stray in self._strays.items()
            if stray.stuck
        )

    def pids(self) -> list[int]:
        """All of them, the dying as well."""
        return list(self._strays)
