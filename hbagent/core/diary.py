"""What an agent remembers of its own running, so that it can say afterwards why it was not heard.

A page for each second or so: how late the loop was, how long it waited for a CPU, how long its control group was
throttled, how long its host was suspended, how many beats it sent. Older pages are folded two into one, and those
again, so that a page is never longer than about a seventh of its age: the last seconds are kept by the second, the
last minutes by a quarter of a minute, and the whole life in outline.

Pages are in the agent's own clock, which stands still while the host is suspended; whoever asks counted that time. So
looking back, a page is as long as it lasted and as the host slept meanwhile.
"""

from __future__ import annotations

import msgspec

from .messages import Effort

#: Pages that were folded equally often, and how often: 64 pages are 12 kB and half an hour. What is older is one page.
PAGES_OF_LEVEL_MAX = 8
LEVELS_MAX = 8


class Page(msgspec.Struct, gc=False):
    """Some time of an agent's life: how much of what was in it. All but `beats` in nanoseconds."""

    length_ns: int = 0
    gap_max_ns: int = 0
    gap_ns: int = 0
    run_delay_ns: int = 0
    throttled_ns: int = 0
    suspended_ns: int = 0
    beats: int = 0
    #: Made of several: where in it something was is not known any more.
    folded: bool = False

    def add(self, other: Page) -> None:
        """Take `other` in."""
        self.length_ns += other.length_ns
        self.gap_max_ns = max(self.gap_max_ns, other.gap_max_ns)
        self.gap_ns += other.gap_ns
        self.run_delay_ns += other.run_delay_ns
        self.throttled_ns += other.throttled_ns
        self.suspended_ns += other.suspended_ns
        self.beats += other.beats

    def newest(self, length_ns: int) -> Page:
        """What of it falls into its last `length_ns`, by the clock of who was awake all the while.

        A suspension is taken to lie in there, for it is what is asked about. Of a single page the rest is, too, as
        far as there is room; of a folded one it is spread evenly.
        """
        suspended = min(self.suspended_ns, length_ns)
        length = min(self.length_ns, length_ns - suspended)
        whole = max(1, self.length_ns)

        def part(amount: int) -> int:
            return min(length, amount * length // whole if self.folded else amount)

        return Page(
            length_ns=length,
            gap_max_ns=min(self.gap_max_ns, length),
            gap_ns=part(self.gap_ns),
            run_delay_ns=part(self.run_delay_ns),
            throttled_ns=part(self.throttled_ns),
            suspended_ns=suspended,
            beats=(2 * self.beats * length + whole) // (2 * whole),
        )


class Diary:
    """The pages of one agent."""

    __slots__ = ("_counted_ns", "_effort", "_levels", "_page", "_since", "_suspended_ns", "_told_ns")

    def __init__(self, now: int) -> None:
        #: By how often they were folded, the oldest page of each first.
        self._levels: list[list[Page]] = [[] for _ in range(LEVELS_MAX)]
        self._page = Page()
        self._since = now
        self._effort: Effort | None = None
        #: Suspension of this life: as told each time, as counted by `Effort`, and what stands on the pages.
        self._told_ns = self._counted_ns = self._suspended_ns = 0

    def beat(self, gap_ns: int) -> None:
        """A beat was handed to the socket, so much later than it was due."""
        page = self._page
        page.beats += 1
        page.gap_ns += gap_ns
        if gap_ns > page.gap_max_ns:
            page.gap_max_ns = gap_ns

    def suspended(self, length_ns: int) -> None:
        """The host was suspended until just now."""
        self._told_ns += length_ns
        self._slept()

    def effort(self, effort: Effort) -> None:
        """The counters of this process, as they are now."""
        before, self._effort = self._effort, effort
        if before is None:
            return
        page = self._page
        # A counter that goes back belongs to another control group, or was unreadable for once.
        page.run_delay_ns += max(0, effort.run_delay_ns - before.run_delay_ns)
        page.throttled_ns += max(0, effort.throttled_ns - before.throttled_ns)
        self._counted_ns += max(0, effort.suspended_ns - before.suspended_ns)
        self._slept()

    def turn(self, now: int) -> None:
        """Begin another page."""
        self._page.length_ns = now - self._since
        self._keep(self._page, 0)
        self._page, self._since = Page(), now

    def back(self, since_ns: int, now: int, late_ns: int = 0) -> Page:
        """The last `since_ns` on one page: shorter when this life is. `late_ns`: how overdue the next beat is."""
        current = msgspec.structs.replace(self._page, length_ns=now - self._since)
        current.gap_ns += late_ns
        current.gap_max_ns = max(current.gap_max_ns, late_ns)
        found = Page()
        for page in (current, *(page for pages in self._levels for page in reversed(pages))):
            rest = since_ns - found.length_ns - found.suspended_ns
            if page.length_ns + page.suspended_ns > rest:
                found.add(page.newest(rest))
                break
            found.add(page)
        return found

    def _slept(self) -> None:
        """The same suspension is told and counted, in either order, and a short one is only counted."""
        total = max(self._told_ns, self._counted_ns)
        self._page.suspended_ns += total - self._suspended_ns
        self._suspended_ns = total

    def _keep(self, page: Page, level: int) -> None:
        pages = self._levels[level]
        pages.append(page)
        if len(pages) <= PAGES_OF_LEVEL_MAX:
            return
        oldest = pages.pop(0)
        oldest.add(pages.pop(0))
        oldest.folded = True
        if level + 1 < LEVELS_MAX:
            self._keep(oldest, level + 1)
        else:
            pages.insert(0, oldest)
