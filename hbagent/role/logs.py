"""Where the daemons' log lines go: standard error, by way of a thread, so that no full pipe can stop a beat.

A reader that stalls (a journal that is being rotated, a terminal that was scrolled) fills the pipe and would block
the writer; here it fills a bounded queue, and what does not fit is counted and told once there is room again. The
thread writes to the descriptor itself: a Python stream has a lock, and a thread that is stuck with it in its hands
keeps the whole process from ending.

Text lines are `TIME LEVEL ROLE what key=value ...`, or `<N>ROLE what key=value ...` when the journal reads them and
knows the time itself (sd-daemon(3)). Everything that came from outside is escaped: a newline in a host's name makes
no second line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loguru import logger

from hbagent.core.effects import Note

if TYPE_CHECKING:
    from loguru import Message

#: Lines that wait for a slow reader, about 2 MB: a verdict about each node of a large leader at once.
QUEUE_MAX = 10_000
_SYSLOG = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:+@%*<>[],")


class Log:
    """Writes notes to one descriptor. Make one in a process."""

    def __init__(self, role: str, level: str, form: str, fd: int = 2, environment: Mapping[str, str] = os.environ):
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_MAX)
        self._dropped = 0
        self._told = 0
        self._unwritten = 0
        self._role = role
        self._form = form
        self._journal = _is_journal(fd, environment)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        self.set_level(level)

    @property
    def dropped(self) -> int:
        """Lines that were not written: the queue was full, or the descriptor broken."""
        return self._dropped + self._unwritten

    def set_level(self, level: str) -> None:
        """Write this level and those above: debug, info, warning, error."""
        logger.remove()
        logger.add(self._take, level=level.upper(), format="{message}", backtrace=False, diagnose=False, catch=False)

    def note(self, note: Note) -> None:
        """Write what a core noted."""
        self.write(note.level, note.what, note.fields)

    def write(self, level: str, what: str, fields: Mapping[str, Any]) -> None:
        """Write one line: `what` is a stable word, `fields` its values. Never waits."""
        logger.bind(fields=fields).log(level.upper(), what)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most `timeout_s`."""
        until = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=timeout_s)
            self._thread.join(max(0.0, until - time.monotonic()))

    def _take(self, message: Message) -> None:
        record = message.record
        line = self._line(
            record["time"].timestamp(), record["level"].name, record["message"], record["extra"].get("fields", {})
        )
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _line(self, at: float, level: str, what: str, fields: Mapping[str, Any]) -> str:
        prefix = f"<{_SYSLOG.get(level, 5)}>" if self._journal else ""
        seconds, milliseconds = divmod(int(at * 1000), 1000)
        if self._form == "json":
            stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"
            head = {"at": stamp, "level": level.lower(), "role": self._role, "what": what}
            # The head twice: first for the order of the keys, and last because no field may pass for it.
            return prefix + json.dumps({**head, **fields, **head}, default=str)
        text = " ".join([self._role, what, *(f"{key}={_value(value)}" for key, value in fields.items())])
        if self._journal:
            return prefix + text
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(seconds))}.{milliseconds:03d}"
        return f"{stamp} {level:<7} {text}"

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped = self.dropped
            if dropped > self._told:
                fields = {"count": dropped - self._told}
                line = f"{self._line(time.time(), 'WARNING', 'log-lines-dropped', fields)}\n{line}"
            if self._put(f"{line}\n".encode()):
                self._told = dropped
            else:
                self._unwritten += 1

    def _put(self, data: bytes) -> bool:
        """Write all of it, however long that takes; False when the descriptor does not take it at all."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Somebody who shares the terminal made it non-blocking.
                select.select((), (self._fd,), ())
            except OSError:
                return False
        return True


def _is_journal(fd: int, environment: Mapping[str, str]) -> bool:
    """True when systemd's journal reads `fd`: the variable names its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _value(value: Any) -> str:
    """One value of a text line: as it is when it is plain, else quoted and escaped."""
    text = ",".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
