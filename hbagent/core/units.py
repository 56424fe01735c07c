"""Time as integer nanoseconds: exact sums over a window, honest equality in tests, bit-for-bit replay.

Every duration and instant in the core is an `int` of nanoseconds; a name that holds one ends in `_ns` or is
called `now`. Only the edges speak seconds.
"""

from __future__ import annotations

import re

NANOSECOND = 1
MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"ns": NANOSECOND, "us": MICROSECOND, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
# 18 digits are 30 years of nanoseconds; more would overflow a float or take Python's limit on digits.
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ns|us|ms|s|m|h|d)")


def seconds(value: float) -> int:
    """Nanoseconds in `value` seconds, rounded to the nearest."""
    return round(value * SECOND)


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration as written in a config file: "250ms", "1s", "1.5s", "2h", "1h30m".

    Raises ValueError when the text is not a sequence of number-and-unit.
    """
    stripped = text.strip()
    total = 0.0
    exact = 0
    end = 0
    for match in _DURATION.finditer(stripped):
        if match.start() != end:
            break
        number, unit = match.groups()
        if "." in number:
            total += float(number) * _UNITS[unit]
        else:
            exact += int(number) * _UNITS[unit]
        end = match.end()
    if end == 0 or end != len(stripped):
        raise ValueError(
            f'{text!r} is not a duration; write a number and a unit (ns us ms s m h d), as in "250ms" or "1h30m"'
        )
    return exact + round(total)


def show_duration(value_ns: int) -> str:
    """A duration for people: "85us", "12ms", "1.2s", "3m05s", "2h10m", "4d06h"."""
    sign = "-" if value_ns < 0 else ""
    value = abs(value_ns)
    if value < MILLISECOND:
        return f"{sign}{value // MICROSECOND}us"
    if value < SECOND:
        return f"{sign}{value // MILLISECOND}ms"
    if value < MINUTE:
        return f"{sign}{value / SECOND:.1f}s"
    if value < HOUR:
        return f"{sign}{value // MINUTE}m{value % MINUTE // SECOND:02d}s"
    if value < DAY:
        return f"{sign}{value // HOUR}h{value % HOUR // MINUTE:02d}m"
    return f"{sign}{value // DAY}d{value % DAY // HOUR:02d}h"
