"""Reads what a Nagios plugin prints. Nothing here raises, whatever that is.

    DISK WARNING - free space: / 78797 MiB | /=26318MB;24000;25000;0;27000
    / is 92 % full
    /boot is 3 % full | /boot=13MB;400;450;0;500
    'C:\\ %'=92%;80;95

The first line is `text | performance data`. The lines after it are long text, until one has a bar; what follows that
is performance data to the end. Each item of it is `label=value[unit];[warning];[critical];[least];[most]`, what is
missing at the end may be missing, a label may be quoted and then holds anything, with `''` for a quote. Thresholds
are ranges, see `breaches`. Real plugins bend all of this: an item that cannot be understood is skipped and counted,
and the others are read.

Written from the Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and "Threshold and Ranges".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import msgspec

from hbagent.core.messages import Measure

from .outcome import clean

#: Measures of one run; beyond, they are counted. A host with 64 disks has as many.
MEASURES_MAX = 64
#: Characters of a label, of a unit and of a range: a path, "minutes", and two numbers.
LABEL_LENGTH_MAX = 128
UNIT_LENGTH_MAX = 16
RANGE_LENGTH_MAX = 64

#: What terminals take for commands: ECMA-48 control sequences, strings up to their end or that of the line, and
#: two-character escapes.
_COMMANDS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)|\x9b[0-?]*[ -/]*[@-~]?"
)
_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_VALUE = re.compile(rf"({_NUMBER})(.*)", re.DOTALL)
#: A quoted label, or one up to the equals sign; whatever follows up to the next blank.
_ITEM = re.compile(r"\s*(?:'((?:[^']|'')*)'|([^\s='][^\s=]*))=(\S*)")
_BROKEN = re.compile(r"\s*\S+")
_RANGE = re.compile(rf"(@?)(?:(~|{_NUMBER})?:)?({_NUMBER})?")


class Said(msgspec.Struct, frozen=True):
    """What a plugin said."""

    #: The first line, cleaned; "" when there is none.
    text: str = ""
    #: The lines after it, cleaned.
    details: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    #: Items of performance data that could not be understood, or were too many.
    skipped: int = 0


def parse(output: str) -> Said:
    """Take the output of a plugin apart."""
    plain = _COMMANDS.sub("", output)
    lines = plain.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n ").split("\n")
    first, _, data = lines[0].partition("|")
    details: list[str] = []
    for place, line in enumerate(lines[1:], 1):
        text, bar, more = line.partition("|")
        if clean(text):
            details.append(clean(text))
        if bar:
            data = "\n".join([data, more, *lines[place + 1 :]])
            break
    measures, skipped = _measures(data)
    return Said(clean(first), tuple(details), measures, skipped)


def _measures(data: str) -> tuple[tuple[Measure, ...], int]:
    measures: list[Measure] = []
    skipped = 0
    for label, rest in _items(data):
        measure = _measure(label, rest) if len(measures) < MEASURES_MAX else None
        if measure is None:
            skipped += 1
        else:
            measures.append(measure)
    return tuple(measures), skipped


def _items(data: str) -> Iterator[tuple[str, str]]:
    """Label and the rest of each item; no label for what is none."""
    place = 0
    while True:
        match = _ITEM.match(data, place)
        if match:
            quoted, plain, rest = match.groups()
            yield (plain if quoted is None else quoted.replace("''", "'")), rest
        else:
            match = _BROKEN.match(data, place)
            if not match:
                return
            yield "", ""
        place = match.end()


def _measure(label: str, rest: str) -> Measure | None:
    name = clean(label, LABEL_LENGTH_MAX)
    value_text, *parts = rest.split(";")
    value = _VALUE.fullmatch(value_text)
    if not name or (value is None and value_text != "U"):
        return None
    number = float(value[1]) if value else None
    unit = value[2] if value else ""
    if number is not None and not math.isfinite(number):
        return None
    # A unit with a digit or a sign in it is a number that went wrong: "1,5" or "2026-01-01".
    if len(unit) > UNIT_LENGTH_MAX or unit != clean(unit) or any(char in "0123456789+-.,:=" for char in unit):
        return None
    warning, critical, least, most = [*parts, "", "", "", ""][:4]
    return Measure(
        label=name,
        value=number,
        unit=unit,
        warning=_range(warning, unit),
        critical=_range(critical, unit),
        least=_bound(least, unit),
        most=_bound(most, unit),
    )


def _range(text: str, unit: str) -> str:
    """A range as it was written, without the unit that some plugins add; "" for what is none."""
    bare = text.replace(unit, "") if unit else text
    return bare if is_range(bare) else ""


def _bound(text: str, unit: str) -> float | None:
    match = _VALUE.fullmatch(text)
    if not match or match[2] not in ("", unit):
        return None
    number = float(match[1])
    return number if math.isfinite(number) else None


# ---- ranges --------------------------------------------------------------------------------------------------


def is_range(text: str) -> bool:
    """Whether this is a range as `breaches` takes it."""
    try:
        _ends(text)
    except ValueError:
        return False
    return True


def breaches(threshold: str, value: float) -> bool:
    """Whether a value is one to alert of.

    "10": below 0 or above 10; "10:": below 10; "~:10": above 10; "10:20": outside; "@10:20": inside, the ends
    included. "" is never breached. Raises ValueError for what is no range.
    """
    if not threshold:
        return False
    inside, low, high = _ends(threshold)
    return (low <= value <= high) == inside


def _ends(text: str) -> tuple[bool, float, float]:
    match = _RANGE.fullmatch(text)
    if not match or not text.strip("@") or len(text) > RANGE_LENGTH_MAX:
        raise ValueError(f'{text!r} is not a range; write "10", "10:", "~:10", "10:20" or "@10:20"')
    at, start, end = match.groups()
    low = 0.0 if start is None else -math.inf if start == "~" else float(start)
    high = math.inf if end is None else float(end)
    if low > high:
        raise ValueError(f"{text!r} is not a range: it ends before it begins")
    return bool(at), low, high
