"""The default rule: the sender's own schedule, plus the delay that is expected, plus a margin.

Each beat says when it was sent and when the next is due, on the sender's clock. Arrival minus sending is the delay of
that beat plus the distance between the two clocks, a number of any size that hardly changes; so it may be averaged
without ever knowing the distance. The next beat is expected one such delay after it is due:

    expected   = sent + due_in + mean of 1000 delays + what is left of a burst
    doubt_at   = expected + slack        one beat in a thousand comes later; asking is cheap
    suspect_at = expected + margin       as many a day as are accepted come later; see `tail`

There is no variance in it on purpose: one long pause inflates a deviation for a thousand beats.

How much is left of a burst is the one thing in which networks differ. Where delays are independent of one another, a
late beat says nothing about the next one, and allowing for it only costs time; where a route is congested or a host
swaps, the next one is as late. (Chen's detector is the first rule, the two-window detector of Tomsic et al., IPDPS
2015, the second; each loses 2 to 13 % to the other on the other's ground.) So the rule watches whether late beats
come together more often than chance would have them, and allows for the last and a quick mean to that degree. A
lateness of an interval and more, a stall and not a jitter, is allowed for in full.

Two things are not delay and must not be averaged as if they were:

- A pause (a stalled observer finds sixty old beats in its queue) would lift the mean for a thousand beats. So beyond
  one interval above the mean a beat counts as one interval.
- A step of a clock (a suspended machine's monotonic clock stands still) moves all delays for good. Downwards, the old
  mean would blind the detector for as long as the step was; no delay can fall that far, so one beat is enough to start
  again. Upwards, a run of them is.

Most beats are neither late nor early: `beat` checks that with one comparison for each, and moves the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .tail import Tail
from .units import MICROSECOND, MILLISECOND, SECOND

#: The long mean is the true mean of the first thousand beats, then moves by a thousandth of the difference a beat.
#: Detectors in the literature and in Akka and Cassandra use a window of 1000.
MEAN_BEATS = 1000
#: What is left of a burst moves by a fifth of the difference: after ten beats a tenth of it is left.
QUICK_BEATS = 5
#: So many beats in a row, each more than an interval above the mean, are a new level and not a pause. A pause of
#: fewer intervals than this leaves the mean as it was.
LEVEL_BEATS = 8
#: A delay that one beat in so many exceeds is late enough to be the beginning of a burst.
BURST_BEATS = 32
#: Late beats at most so many beats apart came together.
TOGETHER_BEATS = 2
#: Whether they do is the mean over about so many late beats: two thousand beats in all.
TOGETHER_MEMORY = 64
#: Weights are counted in these.
WHOLE = 1024
#: The last delay and a burst's rest are allowed for to the degree to which late beats come together, and to a quarter
#: at least, which costs a third of a per cent on independent delays.
WEIGHT_MIN = WHOLE // 4
#: When more than half of the late beats come together, each delay tells of the next: all of it is allowed for, and
#: that of beats which are not late as well.
TOGETHER_MANY = WHOLE // 2
#: Nothing smaller is the beginning of a burst: 100 us is what a loop takes to read what is waiting.
BURST_MIN_NS = 100 * MICROSECOND
#: Doubt begins so long after a beat was expected: more than what an idle host's scheduler adds to a beat.
SLACK_MIN_NS = 8 * MILLISECOND
#: And so much longer as is needed for one living beat in so many to be doubted.
SLACK_BEATS = 1000
#: But no more than this part of the margin: doubt needs time before the verdict, to ask, and to count who else is
#: late. At a margin of 40 ms on a contended rack, slack up to the margin costs twice as many mistakes as this.
SLACK_SHARE = 4
_NEVER = -(1 << 200)


def put_off(doubt_at: int, interval_ns: int, now: int) -> int:
    """How far a deadline moves when the sender answers at `now`: by whole intervals, until doubt lies after `now`."""
    return interval_ns * (1 + max(0, now - doubt_at) // max(interval_ns, 1))


class Adaptive:
    """See the module's formula. State is a dozen integers and, with `mistakes_per_day`, the marks of a `Tail`."""

    __slots__ = (
        "_above",
        "_burst_at",
        "_burst_ns",
        "_count",
        "_doubt_at",
        "_late_beat_at",
        "_left",
        "_margin_max_ns",
        "_margin_min_ns",
        "_mean",
        "_newest_mark",
        "_own_lag",
        "_rest",
        "_slack_ns",
        "_slow_at",
        "_start_ns",
        "_tail",
        "_together",
        "_weight",
        "allowed_ns",
        "lead_ns",
        "margin_ns",
    )

    name: Final = "adaptive"

    def __init__(
        self,
        margin_ns: int,
        mistakes_per_day: float = 0.0,
        margin_min_ns: int = 20 * MILLISECOND,
        margin_max_ns: int = 3 * SECOND,
        own_lag: Callable[[int], int] | None = None,
    ) -> None:
        """`own_lag` says for how long the observer itself did not listen since an instant."""
        self._own_lag = own_lag
        #: The last lateness that was learned, until it is accounted for.
        self._newest_mark = 0
        self._start_ns = margin_ns
        self._margin_min_ns = margin_min_ns
        self._margin_max_ns = max(margin_min_ns, margin_max_ns)
        #: None when the margin stays as it is.
        self._tail = Tail(mistakes_per_day) if mistakes_per_day > 0 else None
        #: What a beat may be late beyond its expected delay.
        self.margin_ns = margin_ns
        #: How far behind the moment the next beat is due and its mean delay the last deadline lies.
        self.allowed_ns = margin_ns
        self._slack_ns = SLACK_MIN_NS
        #: How long before suspicion the doubt begins.
        self.lead_ns = 0
        self._slow_at = 0
        #: A delay so far above the mean begins a burst...
        self._burst_ns = MILLISECOND
        #: ...and what `beat` compares with: below everything before the first beat, and in a run of late ones.
        self._burst_at = _NEVER
        #: A quick mean of what delays were above the long one, in and after a burst.
        self._left = 0
        #: How much of it is allowed for; 0 when no burst is near.
        self._weight = 0
        self._together = WHOLE * TOGETHER_BEATS // BURST_BEATS
        self._late_beat_at = 0
        self._count = 0
        self._mean = 0
        #: What the division that made the mean left over, so that the mean never drifts.
        self._rest = 0
        #: Beats in a row that were more than an interval above the mean.
        self._above = 0
        self._doubt_at = 0
        self._set_margin(margin_ns)

    def beat(self, sent_mono_ns: int, due_in_ns: int, interval_ns: int, now: int) -> int:
        """A fresh beat arrived; returns when silence is suspicious."""
        mean = self._mean
        delay = now - sent_mono_ns
        excess = delay - mean
        if excess > self._burst_at or now > self._doubt_at or excess < -interval_ns:
            return self._unusual(sent_mono_ns, due_in_ns, interval_ns, now)
        count = self._count
        if count < MEAN_BEATS:
            count += 1
            self._count = count
        excess += self._rest
        mean += excess // count
        self._rest = excess % count
        self._mean = mean
        doubt_at = sent_mono_ns + due_in_ns + mean + self._slack_ns
        if self._weight:
            doubt_at += self._after_burst(delay - mean)
        self._doubt_at = doubt_at
        return doubt_at + self.lead_ns

    def answered(self, interval_ns: int, now: int) -> int:
        """The sender answered at `now`: what is missing was lost on the way. Returns when silence is suspicious."""
        if now > self._doubt_at:
            # Without the answer it would have been this late, and no later.
            self._learn(now - self._doubt_at + self._slack_ns, now)
        self._doubt_at += put_off(self._doubt_at, interval_ns, now)
        return self._doubt_at + self.lead_ns

    def forgive(self, silent_ns: int) -> None:
        """The node has accounted for a silence of `silent_ns`: it stood still, and its beats were not late."""
        if self._tail is not None and 0 < self._newest_mark <= silent_ns:
            self._tail.drop(self._newest_mark)
            self._newest_mark = 0
            self._learn_margin(self._doubt_at)

    def reset(self) -> None:
        """Another incarnation may run on another clock: forget the delays. Lateness is the node's, and is kept."""
        self._count = 0
        self._burst_at = _NEVER

    def remember(self) -> list[int]:
        """What was learned of the node, for its next life or that of this observer."""
        return [] if self._tail is None else self._tail.dump(self._doubt_at)

    def recall(self, numbers: Sequence[int]) -> None:
        """Go on from what `remember` gave; anything else is left aside."""
        if self._tail is not None and self._tail.load(numbers, self._doubt_at):
            self._learn_margin(self._doubt_at)

    # ---- the road of few beats ----------------------------------------------------------------------------

    def _unusual(self, sent_mono_ns: int, due_in_ns: int, interval_ns: int, now: int) -> int:
        """A first beat, a late or an early one, or one after these."""
        delay = now - sent_mono_ns
        if not self._count:
            if self._tail is not None:
                self._tail.watch(now, self._doubt_at)
        elif now > self._doubt_at:
            self._late(now, interval_ns)
        if not self._count or not -interval_ns <= delay - self._mean <= interval_ns:
            excess = self._far(delay, interval_ns)
        else:
            self._above = 0
            excess = delay - self._mean
        if excess > self._burst_ns:
            self._burst(now, interval_ns)
        mean = self._mean
        self._left += (excess - self._left) // QUICK_BEATS
        allowed = self._allowed(delay - mean, interval_ns)
        count = min(self._count + 1, MEAN_BEATS)
        self._count = count
        excess += self._rest
        self._mean = mean + excess // count
        self._rest = excess % count
        self._burst_at = _NEVER if self._above else self._burst_ns
        self.allowed_ns = allowed + self.margin_ns
        self._doubt_at = sent_mono_ns + due_in_ns + self._mean + allowed + self._slack_ns
        return self._doubt_at + self.lead_ns

    def _after_burst(self, excess: int) -> int:
        """What an ordinary beat is allowed beyond the mean delay: something is left of a burst, or one is always on."""
        left = self._left
        left += (excess - left) // QUICK_BEATS
        self._left = left
        if self._weight == WHOLE:
            allowed = excess if excess > left else left
            if allowed < 0:
                allowed = 0
        elif left > self._burst_ns // 4:
            allowed = left * self._weight // WHOLE
        else:
            self._weight = allowed = 0
        self.allowed_ns = allowed + self.margin_ns
        return allowed

    def _far(self, delay: int, interval_ns: int) -> int:
        """Decide about a delay far from the mean: start again from it, or count it as one interval too late."""
        if self._count and delay > self._mean:
            self._above += 1
            if self._above < LEVEL_BEATS:
                return interval_ns
        self._above = 0
        self._count = 0
        self._mean = delay
        self._left = 0
        self._rest = 0
        return 0

    def _burst(self, now: int, interval_ns: int) -> None:
        """A late beat: learn whether they come together, and how late one in `BURST_BEATS` is."""
        apart = (now - self._late_beat_at) // max(interval_ns, 1)
        self._late_beat_at = now
        together = WHOLE if apart <= TOGETHER_BEATS else 0
        self._together += (together - self._together) // TOGETHER_MEMORY
        # Up by a sixteenth; down by as much for every `BURST_BEATS` since the last.
        burst_ns = self._burst_ns * 17 * BURST_BEATS // (16 * BURST_BEATS + max(apart, 0))
        self._burst_ns = max(BURST_MIN_NS, burst_ns)

    def _allowed(self, excess: int, interval_ns: int) -> int:
        """What of the last delay's excess over the mean, or of a burst's, the next beat is given."""
        self._weight = max(WEIGHT_MIN, self._together) if self._together <= TOGETHER_MANY else WHOLE
        worst = max(excess, self._left)
        if worst <= 0:
            return 0
        return min(worst, max(worst * self._weight // WHOLE, worst * worst // max(interval_ns, 1)))

    # ---- lateness ------------------------------------------------------------------------------------------

    def _late(self, now: int, interval_ns: int) -> None:
        """A beat came after doubt had begun: learn slack and margin."""
        lateness = now - self._doubt_at + self._slack_ns
        if self._own_lag is not None:
            lateness -= self._own_lag(self._doubt_at)
            if lateness <= self._slack_ns:
                return
        # Half an interval and more is a lost beat or an outage. No slack is to hide these: asking is for them.
        if lateness < interval_ns // 2:
            apart = (now - self._slow_at) // max(interval_ns, 1) if self._slow_at else SLACK_BEATS
            step = SLACK_BEATS - min(apart, 4 * SLACK_BEATS)
            slack = self._slack_ns + self._slack_ns * step // (4 * SLACK_BEATS)
            self._slack_ns = max(SLACK_MIN_NS, min(slack, interval_ns // 2))
            self._slow_at = now
        self._learn(lateness, now)

    def _learn(self, lateness_ns: int, now: int) -> None:
        """Something proved life so long after it was expected."""
        tail = self._tail
        # No margin may cover an outage beyond the largest, so one must not lift the margin for the days that follow.
        if tail is not None and tail.floor_ns < lateness_ns <= self._margin_max_ns:
            tail.add(lateness_ns, now)
            self._newest_mark = lateness_ns
        self._learn_margin(now)

    def _learn_margin(self, now: int) -> None:
        margin_ns = self.margin_ns
        if self._tail is not None:
            margin_ns = self._tail.margin_ns(now, self._start_ns)
            margin_ns = max(self._margin_min_ns, min(margin_ns, self._margin_max_ns))
        self._set_margin(margin_ns)

    def _set_margin(self, margin_ns: int) -> None:
        self.margin_ns = margin_ns
        self._slack_ns = min(self._slack_ns, max(SLACK_MIN_NS, margin_ns // SLACK_SHARE), margin_ns)
        self.lead_ns = margin_ns - self._slack_ns
