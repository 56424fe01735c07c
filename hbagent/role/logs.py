"""Where the daemons' log lines go: standard error, by way of a thread, so that no full pipe can stop a beat.

A reader that stalls (a journal that is being rotated, a terminal that was scrolled) fills the pipe and would block
the writer; here it fills a bounded queue, and what does not fit is counted and told once there is room again.

Text lines are `LEVEL what key=value ...`; the level is given as `<N>` when systemd reads them (sd-daemon(3)).
Everything that came from outside is escaped: a newline in a host's name makes no second line.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

from hbagent.core.effects import Note

if TYPE_CHECKING:
    from loguru import Message

#: Lines that wait for a slow reader: about 200 KB.
QUEUE_MAX = 1_000
_SYSLOG = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3}


class Log:
    """Writes notes to one stream. Make one in a process."""

    def __init__(self, role: str, level: str, form: str, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_MAX)
        self.dropped = 0
        self._role = role
        self._form = form
        self._systemd = "JOURNAL_STREAM" in os.environ
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Write this level and those above: debug, info, warning, error."""
        logger.remove()
        logger.add(self._take, level=level.upper(), format="{message}", backtrace=False, diagnose=False, catch=True)

    def note(self, note: Note) -> None:
        """Write what a core noted."""
        self.write(note.level, note.what, note.fields)

    def write(self, level: str, what: str, fields: dict[str, Any]) -> None:
        """Write one line: `what` is a stable word, `fields` its values."""
        logger.bind(what=what, fields=fields).log(level.upper(), what)

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most `timeout_s`."""
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _take(self, message: Message) -> None:
        record = message.record
        fields = record["extra"].get("fields", {})
        try:
            self._lines.put_nowait(
                self._line(record["time"].astimezone(), record["level"].name, record["message"], fields)
            )
        except queue.Full:
            self.dropped += 1

    def _line(self, time: Any, level: str, what: str, fields: dict[str, Any]) -> str:
        if self._form == "json":
            document = {"at": time.isoformat(timespec="milliseconds"), "level": level.lower(), "role": self._role}
            return json.dumps({**document, "what": what, **fields}, default=str)
        text = " ".join([what, *(f"{key}={_value(value)}" for key, value in fields.items())])
        if self._systemd:
            return f"<{_SYSLOG.get(level, 5)}>{text}"
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S')}.{time.microsecond // 1000:03d} {level:<7} {self._role} {text}"

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if self.dropped:
                dropped, self.dropped = self.dropped, 0
                line = f"{line}\nlog-lines-dropped count={dropped}"
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self.dropped += 1


def _value(value: Any) -> str:
    """One value of a text line: as it is when it is plain, else quoted and escaped."""
    text = str(value)
    if text and all(c.isalnum() or c in "_-./:+@%*<>[]," for c in text) and text.isascii():
        return text
    return json.dumps(text)
