"""Recorded heartbeats: what was sent, what arrived and when, read from a CSV file.

Three shapes, told apart by their first line:

    seq,sent_s,arrived_s              one sender; an empty arrival is a lost beat
    node,seq,sent_s,arrived_s         one rack at one observer; rows of node "tick" are the observer's own ticks, with
                                      the time planned and the time it ran
    seq,send_begin_s,send_end_s       one sender's emission only; the way is made up by `deliver`

A file may be gzipped. The senders' and the observer's clocks need not agree.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from hbagent.core.units import seconds

#: The node that stands for the observer itself.
TICK = "tick"
#: Rows of one recording; a rack of 32 at ten beats a second for eight hours. Each takes about 200 bytes in memory.
ROWS_MAX = 10_000_000
#: Longest time in a file: 31 years, in which a float still tells microseconds apart.
_TIME_MAX_S = 1e9
#: Shape of the made-up delay: the deviation of its logarithm. A third of the beats take more than 1.24 times the
#: median, one in a thousand 4.7 times.
DELAY_SIGMA = 0.5


class RecordingError(Exception):
    """A file is not a recording; the message names the file, the line and what is wrong."""


class Event(NamedTuple):
    """A beat that arrived, or a tick of the observer that ran at `at` and was planned for `sent`."""

    at: int
    node: str
    sequence: int
    sent: int


class Emission(NamedTuple):
    """A beat as its sender saw it: the call to send began and returned."""

    sequence: int
    begin: int
    end: int


class Loss(NamedTuple):
    """A beat that was sent and never arrived."""

    node: str
    sequence: int
    sent: int


class Recording(NamedTuple):
    """One file: `events` in the order of `at` with `losses`, or `emissions` in the order of sending, or both."""

    name: str
    events: list[Event]
    losses: list[Loss]
    emissions: list[Emission]


def read_recording(path: Path) -> Recording:
    """Read a recording. Raises RecordingError when it cannot be read or has a line that makes no sense."""
    try:
        with open(path, "rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            plain = gzip.GzipFile(fileobj=raw) if zipped else raw
            with io.TextIOWrapper(plain, encoding="utf-8", newline="") as lines:
                return _parse(path, lines)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordingError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


class Way:
    """A made-up way: lognormal delay of median `delay_ns`, independent loss. The same seed gives the same journeys."""

    __slots__ = ("_loss", "_mu", "_rng")

    def __init__(self, delay_ns: int, loss: float, seed: str) -> None:
        self._rng = random.Random(seed)
        self._mu = math.log(delay_ns) if delay_ns else None
        self._loss = loss

    def travel(self) -> int | None:
        """How long the next journey takes, in nanoseconds; None when what is sent is lost."""
        delay = round(self._rng.lognormvariate(self._mu, DELAY_SIGMA)) if self._mu is not None else 0
        return None if self._rng.random() < self._loss else delay


def deliver(recording: Recording, way: Way) -> Recording:
    """Send the emissions over a made-up way, on which no beat overtakes another.

    A beat leaves when its call to send returns: a sender that stalls inside the call has said nothing yet.
    """
    events: list[Event] = []
    losses: list[Loss] = []
    newest = recording.emissions[0].begin if recording.emissions else 0
    for sequence, begin, end in recording.emissions:
        delay = way.travel()
        if delay is None:
            losses.append(Loss(recording.name, sequence, begin))
            continue
        newest = max(newest, end + delay)
        events.append(Event(newest, recording.name, sequence, begin))
    return Recording(recording.name, events, losses, recording.emissions)


def _parse(path: Path, lines: IO[str]) -> Recording:
    rows = csv.reader(lines)
    stem = path.name.partition(".")[0]
    name = stem if stem != TICK else path.name
    try:
        header = next(rows, [])
        if header == ["seq", "send_begin_s", "send_end_s"]:
            return Recording(name, [], [], _emissions(_rows(rows, 3)))
        if header == ["seq", "sent_s", "arrived_s"]:
            return _arrivals(name, ([name, *row] for row in _rows(rows, 3)))
        if header == ["node", "seq", "sent_s", "arrived_s"]:
            return _arrivals(name, _rows(rows, 4))
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not a text file") from error
    except (ValueError, csv.Error) as error:
        raise RecordingError(f"{path}:{rows.line_num}: {error}") from error
    raise RecordingError(
        f"{path}:1: columns {','.join(header)[:80]!r}; a recording has seq,sent_s,arrived_s or"
        " node,seq,sent_s,arrived_s or seq,send_begin_s,send_end_s"
    )


def _arrivals(name: str, rows: Iterator[list[str]]) -> Recording:
    events: list[Event] = []
    losses: list[Loss] = []
    for node, sequence, sent, arrived in rows:
        number, sent_ns = _sequence(sequence), _time(sent)
        if arrived:
            events.append(Event(_time(arrived), node, number, sent_ns))
        else:
            losses.append(Loss(node, number, sent_ns))
    # Stable: beats of one instant stay in the order in which they were read.
    events.sort(key=_when)
    return Recording(name, events, losses, [])


def _when(event: Event) -> int:
    return event.at


def _emissions(rows: Iterator[list[str]]) -> list[Emission]:
    emissions: list[Emission] = []
    for sequence, begin, end in rows:
        emission = Emission(_sequence(sequence), _time(begin), _time(end))
        if emission.end < emission.begin:
            raise ValueError(f"the call to send returned at {end} before it began at {begin}")
        if emissions and emission.begin < emissions[-1].end:
            raise ValueError(f"sent at {begin} before the call of the beat before it returned")
        emissions.append(emission)
    return emissions


def _rows(rows: Iterator[list[str]], columns: int) -> Iterator[list[str]]:
    for number, row in enumerate(rows):
        if len(row) != columns:
            raise ValueError(f"{len(row)} columns where there should be {columns}")
        if number >= ROWS_MAX:
            raise ValueError(f"more than {ROWS_MAX} rows")
        yield row


def _sequence(text: str) -> int:
    # As long as an unsigned 64-bit number; Python itself would take thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"sequence {text[:40]!r} is not a whole number")
    return int(text)


def _time(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"time {text[:40]!r} is not a number of seconds") from None
    if not abs(value) <= _TIME_MAX_S:
        raise ValueError(f"time {text[:40]!r} is more than 31 years from zero")
    return seconds(value)
