"""The wall clock as a guest: told from outside, used for display only, and watched for steps.

A core knows one clock, the monotonic `now` it is handed. To write "at 12:00:03.250Z" it keeps the offset between the
two and moves it when it is told of the wall time. A step (NTP at boot, an operator, a lying VM) changes what is
displayed from then on and nothing else.
"""

from __future__ import annotations

from .units import DAY, HOUR, MILLISECOND, MINUTE, SECOND

#: A change of the offset above this is a step; slewing moves it by 500 ppm at most, half a millisecond a second.
STEP_NS = SECOND


class WallClock:
    """Maps monotonic nanoseconds to Unix nanoseconds."""

    __slots__ = ("_offset", "steps")

    def __init__(self) -> None:
        self._offset: int | None = None
        self.steps = 0

    def tell(self, wall_ns: int, now: int) -> int:
        """Learn the wall time; returns the step in nanoseconds, 0 when there was none."""
        offset = wall_ns - now
        before = self._offset
        self._offset = offset
        if before is None or abs(offset - before) < STEP_NS:
            return 0
        self.steps += 1
        return offset - before

    def at(self, now: int) -> int:
        """Unix nanoseconds at the monotonic instant `now`; 0 before the wall clock was told."""
        return 0 if self._offset is None else now + self._offset


def rfc3339(wall_ns: int) -> str:
    """ "2026-11-21T12:00:03.250Z" of Unix nanoseconds: UTC, milliseconds, always the same width."""
    days, rest = divmod(wall_ns, DAY)
    year, month, day = _civil(days)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    secs, rest = divmod(rest, SECOND)
    return f"{year:04d}-{month:02d}-{day:02d}T{hours:02d}:{minutes:02d}:{secs:02d}.{rest // MILLISECOND:03d}Z"


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month, day of a day number (0 is 1970-01-01), by counting from 1 March in cycles of 400 years."""
    days += 719_468
    era, of_era = divmod(days, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_index = (5 * of_year + 2) // 153
    day = of_year - (153 * month_index + 2) // 5 + 1
    month = month_index + 3 if month_index < 10 else month_index - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    return year, month, day
