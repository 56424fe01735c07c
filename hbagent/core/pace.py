"""How often one application is examined, and which evidence of it must stay.

An examination takes two seconds of a hand, may stop the process for a moment and leaves a bundle, so an application
that gets stuck each second, or stays stuck for a week, must not have one each time. While it stays in what it was found
in the pauses grow; whatever it does, within `WINDOW_NS` it is examined `EXAMINED_MAX` times and no more.

The newest bundle about it is what reports name, and the first one of a trouble is the one that tells how it came:
these two no other bundle makes room of.
"""

from __future__ import annotations

from collections import deque

from .units import HOUR, MINUTE, SECOND

#: The second examination of a trouble comes soon: the first may have met a busy host, or the beginning of it all.
SOON_NS = 30 * SECOND
#: Then so long after the one before, and each time twice as long, while it is found in the same.
AGAIN_NS = 5 * MINUTE
AGAIN_MAX_NS = HOUR
#: Examinations of one application within any such window: two each time that it is restarted, and some.
EXAMINED_MAX = 12
WINDOW_NS = 10 * MINUTE


class Pace:
    """When one application may be examined, and has been."""

    __slots__ = ("_made", "_pause_ns", "_said_at", "first", "gone", "newest")

    def __init__(self) -> None:
        #: When it was examined last, oldest first.
        self._made: deque[int] = deque(maxlen=EXAMINED_MAX)
        self._pause_ns = 0
        self._said_at: int | None = None
        #: Names of the newest bundle about it, and of the first of the trouble that it is in; "" for none.
        self.newest = ""
        self.first = ""
        #: What was the newest one and is not there any more; "" while it is.
        self.gone = ""

    def earliest(self, now: int) -> int:
        """When it may be examined next."""
        if len(self._made) < EXAMINED_MAX:
            return now
        return max(now, self._made[0] + WINDOW_NS)

    def begun(self, now: int) -> None:
        """It is being examined."""
        self._made.append(now)

    def after(self, first: bool, same: bool, now: int) -> int:
        """When it is examined again, after the `first` examination of a trouble, or a later one that found the same."""
        if first:
            self._pause_ns = 0
            return max(now + SOON_NS, self.earliest(now))
        self._pause_ns = min(2 * self._pause_ns, AGAIN_MAX_NS) if same and self._pause_ns else AGAIN_NS
        return max(now + self._pause_ns, self.earliest(now))

    def put_off(self, at: int | None, now: int) -> bool:
        """True once for each time `at` that an examination had to be put off to."""
        if at is None or at <= now or at != self.earliest(now) or at == self._said_at:
            return False
        self._said_at = at
        return True

    def kept(self, bundle: str, stuck: bool) -> None:
        """An examination left this bundle, "" for none; of one that is still `stuck` it may be the first."""
        if not bundle:
            return
        self.newest, self.gone = bundle, ""
        if stuck and not self.first:
            self.first = bundle

    def over(self) -> None:
        """The trouble is over."""
        self.first = ""
        self._pause_ns = 0

    def named(self) -> tuple[int, ...]:
        """Numbers of the bundles that must stay."""
        return tuple(number for name in dict.fromkeys((self.newest, self.first)) if (number := number_of(name)))

    def lost(self, numbers: frozenset[int]) -> None:
        """These bundles are not there any more."""
        if number_of(self.newest) in numbers:
            self.newest, self.gone = "", self.newest
        if number_of(self.first) in numbers:
            self.first = ""

    def lines(self) -> tuple[str, ...]:
        """What is to be said of its evidence beside the name of the newest."""
        if self.gone:
            return (f"its evidence {self.gone} is gone from its host: it was deleted there, or damaged",)
        if self.first not in ("", self.newest):
            return (f"evidence of its beginning: {self.first}",)
        return ()


def number_of(bundle: str) -> int:
    """The number that the name of a bundle begins with; 0 when it has none."""
    number = bundle.partition("-")[0]
    return int(number) if number.isascii() and number.isdecimal() and len(number) <= 12 else 0
