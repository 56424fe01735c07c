"""What a check hands back, and the time that it may take for it.

A check is a plain function that blocks: `check(what, timeout_ns, memory) -> CheckFinished`. It runs in a process of
its own, which is killed at the time limit; a check that notices by itself that time is short raises `OutOfTime` just
before, because it can say what it was waiting for and the one who kills it cannot.

Rules for all checks: what is looked at and found bad is CRITICAL or WARNING; what cannot be looked at from here is
UNKNOWN with the reason, never OK. `check.run` turns every exception into UNKNOWN.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import Any

from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import MILLISECOND, SECOND

#: Characters of a result's text: about three lines of a console; it rides in every report.
TEXT_LENGTH_MAX = 300
#: Things named in one text; the others are counted.
NAMED_MAX = 5
#: How much earlier than it would be killed a check gives up by itself: a tenth of its time, and never more than this.
RESERVE_NS = 200 * MILLISECOND
#: Errors of this host, or of what the agent may do on it: they say nothing about what was looked at.
OWN_TROUBLE = (
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
    *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT),
)


class OutOfTime(Exception):
    """The time limit of a check came first; the text says what it was waiting for, and not for how long: who reads it
    is told that first."""


class Deadline:
    """When a check has to give up by itself, and how much of its time it has used."""

    def __init__(self, timeout_ns: int) -> None:
        self.timeout_ns = timeout_ns
        self._begin_ns = time.monotonic_ns()
        self._end_ns = self._begin_ns + timeout_ns - min(timeout_ns // 10, RESERVE_NS)

    def elapsed_s(self) -> float:
        """Seconds since the check began."""
        return (time.monotonic_ns() - self._begin_ns) / SECOND

    def left_s(self, waiting: str) -> float:
        """Seconds left, more than 0. Raises OutOfTime, which says `waiting`, when there are none."""
        left_ns = self._end_ns - time.monotonic_ns()
        if left_ns <= 0:
            raise self.over(waiting)
        return left_ns / SECOND

    def passed(self) -> bool:
        """No time is left."""
        return time.monotonic_ns() >= self._end_ns

    def over(self, waiting: str) -> OutOfTime:
        """What to raise when the time ended during `waiting`."""
        return OutOfTime(waiting)


def finished(
    health: Health, text: str, measures: Sequence[Measure] = (), memory: dict[str, Any] | None = None
) -> CheckFinished:
    """The result of a check; who ran it fills in which run it was."""
    return CheckFinished(run=0, health=health, text=clean(text), measures=tuple(measures), memory=memory or {})


def absent(text: str) -> CheckFinished:
    """The result of a check that has nothing to look at on this host."""
    return CheckFinished(run=0, health=Health.UNKNOWN, text=clean(text), applies=False)


def failed(error: OSError, text: str) -> CheckFinished:
    """The result of something that could not be reached: UNKNOWN when the reason lies with us, else CRITICAL."""
    health = Health.UNKNOWN if error.errno in OWN_TROUBLE else Health.CRITICAL
    return finished(health, f"{text}: {reason(error)}")


def reason(error: OSError) -> str:
    """What went wrong, without the number and the file name that `str` adds."""
    return error.strerror or str(error) or type(error).__name__


def clean(text: str, length: int = TEXT_LENGTH_MAX) -> str:
    """One line that a terminal can show: nothing that moves the cursor, and at most `length` characters."""
    # Cut first: the text may be what somebody sent.
    cut = text[: 4 * length]
    line = " ".join("".join(char if char.isprintable() else " " for char in cut).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def judge(value: float, warning: float | None, critical: float | None) -> Health:
    """Which threshold `value` has reached; None is never reached."""
    if critical is not None and value >= critical:
        return Health.CRITICAL
    if warning is not None and value >= warning:
        return Health.WARNING
    return Health.OK


def counted(count: int, one: str, many: str = "") -> str:
    """ "1 line", "2 lines", "3 processes" (where `many` says how)."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def read(path: str, limit: int = 1 << 20) -> bytes:
    """A file of the kernel's, at most `limit` bytes of it. Raises OSError."""
    chunks = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while limit > 0 and (chunk := os.read(fd, min(limit, 1 << 16))):
            chunks.append(chunk)
            limit -= len(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks)


def show_bytes(value: float) -> str:
    """An amount of memory for people: "512 B", "1.5 MiB", "20 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"
