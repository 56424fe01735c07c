"""Does a log go on, and does it hold lines that it should not?

Each run reads what was added since the last one and remembers where it stopped: which file that was, by its number on
the filesystem and the sum of its first bytes, and the position. So it survives what is done to logs: renamed and
begun anew (the rest of the old file is read first, where it still lies beside the new one), copied and cut, or
overwritten. The first run begins at the end: what stands there already is nobody's news.

A line that should not be there counts for a while (`hold`), or it would be forgotten before anybody has believed it.
A regular expression may take for ever on a bad line; that is why this runs where it can be killed.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from hbagent.core.checks import LogCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import SECOND, show_duration

from . import mounts
from .outcome import Deadline, clean, counted, finished

#: Bytes read in one run; beyond, the oldest are skipped and counted. At 10 s a run this is 100 kB/s.
READ_MAX = 1 << 20
#: Characters of a line that are searched: longer ones are binary or a dump, and slow.
LINE_MAX = 8192
#: Bytes at the beginning that tell one file from another one of the same number.
HEAD = 256
#: Names beside the log among which the old file is looked for after a rotation.
BESIDE_MAX = 1000


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered from run to run."""

    inode: int = 0
    device: int = 0
    offset: int = 0
    #: Checksum of the first `head_length` bytes.
    head: int = 0
    head_length: int = 0
    #: Monotonic time when a line that counts was last seen; and until when which bad line counts.
    seen_ns: int = 0
    warning_until_ns: int = 0
    critical_until_ns: int = 0
    warning_line: str = ""
    critical_line: str = ""
    skipped: int = 0


def look(check: LogCheck, timeout_ns: int, memory: dict[str, Any]) -> CheckFinished:
    """Read what is new."""
    deadline = Deadline(timeout_ns)
    patterns = {name: re.compile(getattr(check, name)) for name in ("match", "warning", "critical")}
    now = time.monotonic_ns()
    place = _remembered(memory, now)
    hidden = mounts.hidden(check.path)
    if hidden:
        return finished(Health.UNKNOWN, hidden, memory=memory)
    try:
        fd = os.open(check.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        # Between the two steps of a rotation it is away for a moment.
        missing = Health.CRITICAL if check.silence_ns else Health.UNKNOWN
        return finished(missing, f"{check.path} does not exist", memory=memory)
    with open(fd, "rb", buffering=0) as file:
        found = os.fstat(fd)
        if place is None:
            place = _begin(fd, found, check, now)
        pieces = []
        skipped = 0
        if (found.st_ino, found.st_dev) != (place.inode, place.device):
            rest, lost = _rest_of_old(check.path, place)
            pieces.append(rest)
            skipped += lost
            place = msgspec.structs.replace(place, inode=found.st_ino, device=found.st_dev, offset=0)
        elif found.st_size < place.offset or _head(fd, place.head_length) != place.head:
            place = msgspec.structs.replace(place, offset=0)
        data, offset, lost = _read_lines(file.fileno(), place.offset)
        pieces.append(data)
        skipped += lost
        length = min(HEAD, found.st_size)
        place = msgspec.structs.replace(
            place, offset=offset, head=_head(fd, length), head_length=length, skipped=place.skipped + skipped
        )
    counts = {"lines": 0, "match": 0, "warning": 0, "critical": 0}
    lines = {"warning": place.warning_line, "critical": place.critical_line}
    behind = 0
    for line in _lines(pieces):
        counts["lines"] += 1
        if deadline.passed():
            behind += 1
            continue
        for name, pattern in patterns.items():
            if pattern.pattern and pattern.search(line):
                counts[name] += 1
                if name in lines:
                    lines[name] = clean(line, 160)
    counting = counts["match"] if check.match else counts["lines"]
    until = now + check.hold_ns
    place = msgspec.structs.replace(
        place,
        seen_ns=now if counting else place.seen_ns,
        warning_until_ns=until if counts["warning"] else place.warning_until_ns,
        critical_until_ns=until if counts["critical"] else place.critical_until_ns,
        warning_line=lines["warning"],
        critical_line=lines["critical"],
    )
    return _judge(check, place, counts, skipped, behind, now)


def _judge(check: LogCheck, place: Place, counts: dict[str, int], skipped: int, behind: int, now: int) -> CheckFinished:
    silent_ns = max(0, now - place.seen_ns)
    measures = [
        Measure(label="lines", value=counts["lines"], least=0),
        Measure(label="skipped", value=place.skipped, unit="B", least=0),
    ]
    for name in ("match", "warning", "critical"):
        if getattr(check, name):
            measures.append(Measure(label=name, value=counts[name], least=0))
    if check.silence_ns:
        critical = f"{check.silence_ns / SECOND:g}"
        measures.append(Measure(label="silent", value=round(silent_ns / SECOND, 3), unit="s", critical=critical))
    what = "matching line" if check.match else "line"
    if now < place.critical_until_ns:
        health, text = Health.CRITICAL, f"{check.path}: {place.critical_line}"
    elif check.silence_ns and silent_ns >= check.silence_ns:
        health, text = Health.CRITICAL, f"{check.path}: no {what} for {show_duration(silent_ns)}"
    elif now < place.warning_until_ns:
        health, text = Health.WARNING, f"{check.path}: {place.warning_line}"
    else:
        health, text = Health.OK, f"{check.path}: {counted(counts['lines'], 'new line')}"
    if skipped:
        text += f"; {skipped} bytes skipped"
    if behind:
        text += f"; no time for {counted(behind, 'line')}"
        health = Health.UNKNOWN if health is Health.OK else health
    return finished(health, text, measures, msgspec.to_builtins(place))


def _remembered(memory: dict[str, Any], now: int) -> Place | None:
    try:
        place = msgspec.convert(memory, Place) if memory else None
    except msgspec.ValidationError:
        return None
    # Times of before the last boot mean nothing now.
    return None if place and place.seen_ns > now else place


def _begin(fd: int, found: os.stat_result, check: LogCheck, now: int) -> Place:
    """The first run: at the end of the file, as old as its content."""
    age_ns = 0 if check.match else max(0, time.time_ns() - found.st_mtime_ns)
    length = min(HEAD, found.st_size)
    end = found.st_size
    # An unfinished line is read when it is finished.
    tail = os.pread(fd, min(end, LINE_MAX), end - min(end, LINE_MAX))
    end -= len(tail) - (tail.rfind(b"\n") + 1) if b"\n" in tail else 0
    return Place(
        inode=found.st_ino,
        device=found.st_dev,
        offset=end,
        head=_head(fd, length),
        head_length=length,
        seen_ns=now - age_ns,
    )


def _head(fd: int, length: int) -> int:
    return zlib.crc32(os.pread(fd, length, 0))


def _rest_of_old(path: str, place: Place) -> tuple[bytes, int]:
    """What was added to the file before it was renamed, when it still lies beside its successor."""
    directory, name = os.path.split(path)
    beside = 0
    with os.scandir(directory or ".") as entries:
        for entry in entries:
            if entry.name.startswith(name) and entry.name != name:
                beside += 1
                if beside > BESIDE_MAX:
                    break
                if entry.inode() == place.inode and entry.is_file(follow_symlinks=False):
                    return _read_old(entry.path, place)
    return b"", 0


def _read_old(path: str, place: Place) -> tuple[bytes, int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # gone in between, or its permissions were taken away
        return b"", 0
    with open(fd, "rb", buffering=0):
        if os.fstat(fd).st_dev != place.device or _head(fd, place.head_length) != place.head:
            return b"", 0
        data, _, skipped = _read_lines(fd, place.offset, whole=True)
        return data, skipped


def _read_lines(fd: int, offset: int, whole: bool = False) -> tuple[bytes, int, int]:
    """Whole lines from `offset` on, where they end, and how many bytes were skipped.

    With `whole` a last line that nobody will finish is taken as it is.
    """
    size = os.fstat(fd).st_size
    begin = max(offset, size - READ_MAX)
    data = os.pread(fd, max(0, size - begin), begin)
    if begin > offset:
        first = data.find(b"\n") + 1
        begin, data = begin + first, data[first:]
    end = data.rfind(b"\n") + 1
    if whole or (end == 0 and len(data) >= LINE_MAX):
        end = len(data)
    return data[:end], begin + end, begin - offset


def _lines(pieces: list[bytes]) -> Iterator[str]:
    for piece in pieces:
        for line in piece.splitlines():
            yield line[:LINE_MAX].decode(errors="replace")
