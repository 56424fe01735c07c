"""The brake on the one thing that a prober may do to a host: have systemd restart a unit.

A restart that does not help is a crash loop with a monitor in it. So a unit is restarted a few times within a window
and then no more, until whole windows have passed without one; giving up is said once and loudly.
"""

from __future__ import annotations


class Restarts:
    """When which unit was restarted."""

    def __init__(self, restarts_max: int, window_ns: int) -> None:
        self.restarts_max = restarts_max
        self.window_ns = window_ns
        self._made: dict[str, list[int]] = {}
        self._given_up: dict[str, bool] = {}

    def may(self, unit: str, now: int) -> bool:
        """True when the unit may be restarted now, which is then counted."""
        made = [at for at in self._made.get(unit, ()) if at > now - self.window_ns]
        self._made[unit] = made
        if len(made) >= self.restarts_max:
            return False
        made.append(now)
        self._given_up[unit] = False
        return True

    def give_up(self, unit: str) -> bool:
        """True when this is the first time since the last restart that the unit is given up."""
        first = not self._given_up.get(unit, False)
        self._given_up[unit] = True
        return first

    def count(self, unit: str) -> int:
        """Restarts of the unit within the window that ended with the last question."""
        return len(self._made.get(unit, ()))

    def keep(self, now: int) -> dict[str, list[int]]:
        """How long ago each restart was, by unit."""
        return {unit: [now - at for at in made if at > now - self.window_ns] for unit, made in self._made.items()}

    def restore(self, kept: object, now: int) -> None:
        """Count what an earlier life restarted; what makes no sense is passed over."""
        if not isinstance(kept, dict):
            return
        for unit, ages in kept.items():
            if isinstance(unit, str) and isinstance(ages, list):
                whole = [age for age in ages if isinstance(age, int) and age >= 0]
                self._made[unit] = sorted(now - age for age in whole[-self.restarts_max :])
