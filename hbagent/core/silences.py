"""Silences and maintenances: what nobody is told of, until when, why, and who said so.

A silence is a matcher and one window of wall time, or one that comes again and again ("sun 02:00" for two hours, UTC)
until the silence ends. Each has an end, a year away at most. Forgotten silences are how an alarm is lost.

The wall clock may lie, and two rules keep a step of it from making a silence endless. A window that is open when the
clock steps back is moved back with the clock, so that it stays open for as long as was asked for; and a window that
was opened or passed once is never opened again. So a clock that steps forward may end a silence early, and somebody
is told too much; no clock makes one last longer than it was asked for, by more than the time between two looks at it.

So one that was in force before a restart is not in force after it while the clock says a time before its beginning: it
comes back with the time, for what is left of it then. Nothing on disk says how much of it was left, since nothing is
written while a silence runs, and each life that went by the clock anew would open it for longer: on a host that has no
battery for its clock and restarts again and again, for ever. That too much is told until then is the price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import msgspec

from .matcher import Place, check, fits_matter
from .messages import Order
from .records import Matcher, Silence
from .units import DAY, HOUR, MINUTE, show_duration
from .views import SilenceView, seconds_of
from .wallclock import rfc3339

#: Silences that have not ended.
SILENCES_MAX = 1000
#: Silences that have ended and are still shown, the newest.
ENDED_MAX = 1000
#: Longest time from now to the end of a silence: a leap year.
SILENCE_MAX_NS = 366 * DAY
#: Characters of a reason: a few sentences.
REASON_MAX = 500
#: Nodes and racks of which is remembered what fits them; beyond, all are looked up anew.
PLACES_MAX = 25_000

#: Silences that have ended and are still compared, before all are compared anew.
ENDED_KEPT = 100

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EVERY = re.compile(r"(daily|[a-z]{3}(?:,[a-z]{3}){0,6}) ([0-9]{2}):([0-9]{2})")
_NEVER = -(1 << 62)


class Every:
    """The times at which a silence recurs, UTC. Raises ValueError for a text that names none."""

    __slots__ = ("_days", "_of_day_ns", "gap_min_ns", "text")

    def __init__(self, text: str) -> None:
        found = _EVERY.fullmatch(text)
        days = found[1].split(",") if found else []
        if days == ["daily"]:
            days = list(WEEKDAYS)
        if found is None or int(found[2]) > 23 or int(found[3]) > 59 or any(day not in WEEKDAYS for day in days):
            raise ValueError(
                f'{text!r} is no time to recur at; write "daily 02:00", "sun 02:00" or "mon,thu 22:30" (UTC)'
            )
        self.text = text
        self._days = tuple(day in days for day in WEEKDAYS)
        self._of_day_ns = int(found[2]) * HOUR + int(found[3]) * MINUTE
        chosen = [i for i in range(14) if self._days[i % 7]]
        #: The shortest time from one to the next.
        self.gap_min_ns = min(b - a for a, b in pairwise(chosen)) * DAY

    def latest(self, now_wall: int) -> int:
        """The last of these times that is not after `now_wall`."""
        day = (now_wall - self._of_day_ns) // DAY
        return next(at for at in range(day, day - 7, -1) if self._on(at)) * DAY + self._of_day_ns

    def after(self, wall_ns: int) -> int:
        """The first of these times that is after `wall_ns`."""
        day = (wall_ns - self._of_day_ns) // DAY + 1
        return next(at for at in range(day, day + 7) if self._on(at)) * DAY + self._of_day_ns

    def _on(self, day: int) -> bool:
        # Day 0, 1970-01-01, was a Thursday.
        return self._days[(day + 3) % 7]


class _Entry:
    """One silence that has not ended, and its window."""

    __slots__ = ("_every", "_length_ns", "_opened", "closes", "place", "silence")

    def __init__(self, silence: Silence) -> None:
        self.silence = silence
        self.place = Place(silence.matcher)
        self._every = Every(silence.every) if silence.every else None
        self._length_ns = silence.length_ns if silence.every else silence.ends_wall_ns - silence.begins_wall_ns
        #: When the newest window that was opened or passed should have begun, and when it closes.
        self._opened = _NEVER
        self.closes = _NEVER

    def look(self, now_wall: int, back_ns: int) -> None:
        """Take in that it is `now_wall`, and that the clock stepped back by `back_ns`, 0 for not at all."""
        self.closes -= back_ns
        silence = self.silence
        newest = min(now_wall, silence.ends_wall_ns - 1)
        begins = self._every.latest(newest) if self._every else silence.begins_wall_ns
        if (
            begins > self._opened
            and silence.begins_wall_ns <= now_wall
            and begins + self._length_ns > silence.begins_wall_ns
        ):
            self._opened = begins
            self.closes = min(begins + self._length_ns, silence.ends_wall_ns)

    def opens(self, now_wall: int) -> int | None:
        """When its next window opens; None when there is none any more."""
        silence = self.silence
        if self._every is None:
            return silence.begins_wall_ns if self._opened == _NEVER else None
        # One that is open already when the silence begins counts from there.
        since = now_wall if silence.begins_wall_ns <= now_wall else silence.begins_wall_ns - self._length_ns
        begins = max(self._every.after(max(since, self._opened)), silence.begins_wall_ns)
        return begins if begins < silence.ends_wall_ns else None


class Silences:
    """All silences. `now_wall` is what the root's wall clock says at this moment, Unix ns, and never when something
    happened: every method takes it in, and what is less than before is a step of the clock."""

    __slots__ = ("_changes_at", "_closed", "_ended", "_made", "_number", "_open", "_places", "_racks", "_wall")

    def __init__(self, restored: tuple[Silence, ...] = ()) -> None:
        self._open: dict[str, _Entry] = {}
        #: Oldest end first, as far as this life saw them end.
        self._ended: dict[str, Silence] = {}
        #: Ids whose window has closed and who has not been asked about since. At first all that was restored: what
        #: closed while nobody looked.
        self._closed: dict[str, None] = {}
        self._number = 0
        for silence in restored:
            self._number = max(self._number, int(silence.silence_id[1:]))
            if silence.ended_by:
                self._ended[silence.silence_id] = silence
            else:
                self._open[silence.silence_id] = _Entry(silence)
            self._closed[silence.silence_id] = None
        self._wall = 0
        #: Nothing opens or closes before this unless the clock steps back; None: nothing ever does.
        self._changes_at: int | None = 0
        #: Those that have not ended and some that have, in the order in which they were made; and by node and rack
        #: how many of them were compared, and those of them that fit. So a new silence is compared once with each.
        self._made: list[_Entry] = list(self._open.values())
        self._places: dict[tuple[str, str], tuple[int, tuple[_Entry, ...]]] = {}
        self._racks: dict[str, tuple[int, tuple[_Entry, ...]]] = {}

    # ---- orders ----

    def add(self, order: Order, by: str, now_wall: int) -> Silence:
        """Begin what an operator orders. Raises ValueError, a sentence for people, and then nothing has changed."""
        self._look(now_wall)
        if not now_wall:
            raise ValueError("the time is not known yet; ask again in a moment")
        if len(self._open) >= SILENCES_MAX:
            raise ValueError(f"there are {SILENCES_MAX} silences that have not ended; end some first")
        matcher = Matcher(node=order.nodes, rack=order.racks, cause=order.causes, kind=order.kinds)
        check(matcher)
        reason = order.reason.strip()
        if not reason:
            raise ValueError("say why, for whoever wonders why nobody was told")
        if len(reason) > REASON_MAX:
            raise ValueError(f"the reason has {len(reason)} characters; {REASON_MAX} are allowed")
        begins = max(order.begins_wall_ns, now_wall)
        ends = order.ends_wall_ns
        if order.every:
            _check_recurring(order)
        elif order.length_ns:
            if ends:
                raise ValueError("say either for how long or until when, not both")
            ends = (order.begins_wall_ns or now_wall) + order.length_ns
        if not ends:
            raise ValueError("it has no end; say for how long or until when")
        if ends <= begins:
            raise ValueError(f"it would end at {rfc3339(ends)}, before it begins at {rfc3339(begins)}")
        if ends - now_wall > SILENCE_MAX_NS:
            raise ValueError(f"it would end in {show_duration(ends - now_wall)}; a year is the most")
        silence = Silence(
            silence_id=f"s{self._number + 1}",
            matcher=matcher,
            begins_wall_ns=begins,
            ends_wall_ns=ends,
            reason=reason,
            author=by,
            maintenance=order.maintenance,
            every=order.every,
            length_ns=order.length_ns if order.every else 0,
            created_wall_ns=now_wall,
        )
        entry = _Entry(silence)
        if entry.opens(now_wall) is None:
            raise ValueError(f"{order.every!r} does not come before it ends at {rfc3339(ends)}")
        self._number += 1
        self._open[silence.silence_id] = entry
        self._made.append(entry)
        self._look_anew()
        return silence

    def end(self, silence_id: str, by: str, now_wall: int) -> Silence:
        """End one before its time. Raises KeyError for one that is not known, ValueError for one that has ended."""
        self._look(now_wall)
        if silence_id in self._ended:
            raise ValueError(f"{silence_id} has ended already")
        entry = self._open.get(silence_id)
        if entry is None:
            raise KeyError(f"no silence {silence_id!r} is known; see: hbagent silences")
        silence = msgspec.structs.replace(entry.silence, ended_by=by, ends_wall_ns=now_wall)
        if entry.closes > now_wall:
            self._closed[silence_id] = None
        self._retire(entry, silence)
        self._look_anew()
        return silence

    # ---- questions ----

    def covering(self, now_wall: int, *, node: str, rack: str, cause: str, kind: str) -> Silence | None:
        """What covers this now: a maintenance before a silence, then what stays longest. "" for no node, rack, cause
        or kind, which no glob fits."""
        all_of_them = self.all_covering(now_wall, node=node, rack=rack, cause=cause, kind=kind)
        return all_of_them[0] if all_of_them else None

    def all_covering(self, now_wall: int, *, node: str, rack: str, cause: str, kind: str) -> tuple[Silence, ...]:
        """All that covers this now, in the order of `covering`."""
        self._look(now_wall)
        entries = [
            entry
            for entry in self._fitting(node, rack)
            if entry.closes > now_wall and fits_matter(entry.silence.matcher, cause, kind)
        ]
        entries.sort(key=lambda entry: (not entry.silence.maintenance, -entry.closes))
        return tuple(entry.silence for entry in entries)

    def next_change(self, now_wall: int) -> int | None:
        """When the next window opens or closes; None when none ever does."""
        self._look(now_wall)
        return self._changes_at

    def ended(self, now_wall: int) -> list[str]:
        """Ids whose window has closed since the last call, and which are not open now. The first call names all that
        was restored and is not open, for it may have closed while nobody looked."""
        self._look(now_wall)
        closed = [each for each in self._closed if each not in self._open or self._open[each].closes <= now_wall]
        self._closed.clear()
        return closed

    def any(self) -> bool:
        """True while there is one that has not ended."""
        return bool(self._open)

    def get(self, silence_id: str) -> Silence | None:
        """One by its id; None when it is not known, or known no more."""
        entry = self._open.get(silence_id)
        return self._ended.get(silence_id) if entry is None else entry.silence

    def all(self) -> tuple[Silence, ...]:
        """Those that have not ended, in the order in which they were made, then those that have, newest first."""
        return (*(entry.silence for entry in self._open.values()), *reversed(self._ended.values()))

    def view(self, silence: Silence, now_wall: int, covers: int) -> SilenceView:
        """One as a console is shown it. `covers` is how many troubles it covers now."""
        self._look(now_wall)
        entry = self._open.get(silence.silence_id)
        active = entry is not None and entry.closes > now_wall
        following = None if entry is None else entry.closes if active else entry.opens(now_wall)
        once_ns = max(silence.ends_wall_ns - silence.begins_wall_ns, 0)
        return SilenceView(
            silence=silence.silence_id,
            maintenance=silence.maintenance,
            state="ended" if entry is None else "active" if active else "pending",
            nodes=list(silence.matcher.node),
            racks=list(silence.matcher.rack),
            causes=list(silence.matcher.cause),
            kinds=list(silence.matcher.kind),
            begins=rfc3339(silence.begins_wall_ns),
            ends=rfc3339(silence.ends_wall_ns),
            next=None if following is None else rfc3339(following),
            every=silence.every,
            length_s=seconds_of(silence.length_ns if silence.every else once_ns) or 0.0,
            reason=silence.reason,
            author=silence.author,
            ended_by=silence.ended_by,
            covers=covers,
        )

    # ---- inside ----

    def _fitting(self, node: str, rack: str) -> tuple[_Entry, ...]:
        compared, entries = self._places.get((node, rack), (0, ()))
        if compared == len(self._made):
            return entries
        fitting = []
        for entry in self._fitting_rack(rack, compared):
            for hint in entry.place.hints:
                if hint in node:
                    if entry.place.fits_node(node):
                        fitting.append(entry)
                    break
        entries += tuple(fitting)
        if len(self._places) >= PLACES_MAX:
            self._places.clear()
        self._places[node, rack] = len(self._made), entries
        return entries

    def _fitting_rack(self, rack: str, since: int) -> Iterable[_Entry]:
        """Of those made after the first `since`, the ones that may fit a node of a rack; most are about another one."""
        if since:
            return [entry for entry in self._made[since:] if entry.place.fits_rack(rack)]
        compared, entries = self._racks.get(rack, (0, ()))
        if compared < len(self._made):
            entries += tuple(entry for entry in self._made[compared:] if entry.place.fits_rack(rack))
            if len(self._racks) >= PLACES_MAX:
                self._racks.clear()
            self._racks[rack] = len(self._made), entries
        return entries

    def _look(self, now_wall: int) -> None:
        before, self._wall = self._wall, now_wall
        back_ns = max(before - now_wall, 0)
        if not back_ns and (self._changes_at is None or now_wall < self._changes_at):
            return
        over = []
        for silence_id, entry in self._open.items():
            was_open = entry.closes > before
            entry.look(now_wall, back_ns)
            if entry.closes > now_wall:
                continue
            if was_open:
                self._closed[silence_id] = None
            if entry.opens(now_wall) is None:
                over.append(entry)
        for entry in over:
            self._retire(entry, entry.silence)
        changes = [
            at
            for entry in self._open.values()
            for at in (entry.closes if entry.closes > now_wall else entry.opens(now_wall),)
            if at is not None
        ]
        self._changes_at = min(changes, default=None)

    def _retire(self, entry: _Entry, silence: Silence) -> None:
        entry.closes = _NEVER
        del self._open[silence.silence_id]
        self._ended[silence.silence_id] = silence
        while len(self._ended) > ENDED_MAX:
            self._ended.pop(next(iter(self._ended)))
        if len(self._made) > 2 * len(self._open) + ENDED_KEPT:
            self._made = list(self._open.values())
            self._places.clear()
            self._racks.clear()

    def _look_anew(self) -> None:
        """Orders have changed what there is."""
        self._changes_at = 0
        self._look(self._wall)


def _check_recurring(order: Order) -> None:
    if order.length_ns <= 0:
        raise ValueError("say for how long it is in force each time")
    if not order.ends_wall_ns:
        raise ValueError("it has no end; say until when it recurs")
    gap_ns = Every(order.every).gap_min_ns
    if order.length_ns > gap_ns:
        each = show_duration(order.length_ns)
        raise ValueError(f"{each} each time is longer than from one time to the next, {show_duration(gap_ns)}")
