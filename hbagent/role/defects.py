"""Exceptions that nobody expected: each is told and counted, costs only the message that met it, and too many end it.

A loop that dies of one odd message is a rack that nobody watches; so the driver goes on. But a core that raises at
every turn watches nobody either, and looks alive while it does: then the process has to end, because whoever started
it starts it again, with a clean memory.

A peer that has found a message which raises must not be able to end the process with it: what one peer's messages
cost counts only `COUNTED_A_SENDER` times. Ten exceptions of the process's own, or those of many peers, are no
peer's doing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hbagent.core.units import MINUTE

#: More than so many in a minute, and the process ends.
DEFECTS_MAX = 10
#: Of the messages of one sender only so many in a minute count.
COUNTED_A_SENDER = 3
#: Lines with a traceback are long; the same place is told once in this time, the rest is only counted.
TELL_EVERY_NS = MINUTE
#: Places of which it is known when they were told last. Places are lines of this program, so they are few.
PLACES_MAX = 1_000

Tell = Callable[[str, str, dict[str, object]], None]


class Hopeless(Exception):
    """The loop cannot do its work; the process should end and be started again. The text says why."""


class Defects:
    """Tells, counts and judges. `tell(level, what, fields)` writes a log line."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        #: (when, sender) of those of the last minute that count.
        self._counted: deque[tuple[int, str]] = deque(maxlen=4 * DEFECTS_MAX)
        self._told: dict[tuple[str, str], int] = {}
        #: All since the start.
        self.count = 0

    def book(self, where: str, sender: str, error: BaseException, now: int) -> None:
        """One exception met at `where`, on account of `sender` ("" for the process itself)."""
        self.count += 1
        while self._counted and now - self._counted[0][0] >= MINUTE:
            self._counted.popleft()
        if not sender or sum(name == sender for _, name in self._counted) < COUNTED_A_SENDER:
            self._counted.append((now, sender))
        line = _line_of(error)
        if now < self._told.get((where, line), 0):
            return
        if len(self._told) > PLACES_MAX:
            self._told.clear()
        self._told[where, line] = now + TELL_EVERY_NS
        fields = {"where": where, "sender": sender or "self", "error": repr(error)[:500], "line": line}
        self._tell("error", "defect", {**fields, "count": self.count, "traceback": _traceback(error)})

    def hopeless(self) -> bool:
        """True when the process should end."""
        return len(self._counted) > DEFECTS_MAX


def _line_of(error: BaseException) -> str:
    """Where it was raised: "leader.py:151"."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None:
        return type(error).__name__
    return f"{at.tb_frame.f_code.co_filename.rpartition('/')[2]}:{at.tb_lineno}"


def _traceback(error: BaseException) -> str:
    import traceback  # with its own imports a part of a megabyte that no process needs until now

    return "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-12))[-4000:]
