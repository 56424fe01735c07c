"""Soft and hard: how many runs of a probe it takes to believe what it says.

One failed run is no failure: a plugin may meet a full connection table, a loaded host, a restart. So a hard state
changes for the worse after `fall` failed runs in a row and for the better after `rise` good ones; until then the
newest word is soft, shown as such, and the probe runs more often. From bad to bad there is nothing to wait for.
"""

from __future__ import annotations

from .states import Health


class Standing:
    """The hard state of one probe, and how far the next one has come."""

    __slots__ = ("attempts", "health", "since", "soft")

    def __init__(self, now: int) -> None:
        #: Hard state; None until it is known.
        self.health: Health | None = None
        #: What the last runs said, when that is not the hard state.
        self.soft: Health | None = None
        self.attempts = 0
        self.since = now

    def take(self, found: Health, now: int, *, rise: int, fall: int, patient: bool = False) -> bool:
        """A run has ended; True when the hard state changed. While `patient`, what never was good may fail for free."""
        if found is self.health:
            self._settle()
            return False
        good = found is Health.OK
        if self.health is None and good:
            return self._become(found, now)
        if self.health is None and patient:
            self.soft, self.attempts = found, 0
            return False
        if not good and self.health not in (None, Health.OK):
            return self._become(found, now)
        # Runs that fail differently are failed runs all the same.
        self.soft, self.attempts = found, self.attempts + 1
        return self.attempts >= (rise if good else fall) and self._become(found, now)

    def restore(self, health: Health, since: int) -> None:
        """Go on from what was known in an earlier life."""
        self.health, self.since = health, since

    def _settle(self) -> None:
        self.soft, self.attempts = None, 0

    def _become(self, health: Health, now: int) -> bool:
        self.health, self.since = health, now
        self._settle()
        return True
