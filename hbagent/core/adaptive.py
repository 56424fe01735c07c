"""The default rule: the sender's own schedule, plus the lateness seen so far, plus a margin.

Each beat says when it was sent and when the next is due, on the sender's clock. Arrival minus sending is the delay of
that beat plus the distance between the two clocks, a number of any size that hardly changes; so it may be averaged
without ever knowing the distance. The next beat is expected one such delay after it is due, and the largest of three
views of the delay is allowed: the long mean, the last one (a burst is still on), and a quick mean (it has just ended).

    suspect_at = sent + due_in + max(mean of 1000, last, quick mean) + margin

After the two-window detector of Tomsic et al. (IPDPS 2015), with sending times in the place of a presumed schedule:
a sender that slips its schedule makes a presumed one 9 to 13 times slower on real traces. There is no variance in it
on purpose: one long pause inflates a deviation for a thousand beats.

Two things are not delay and must not be averaged as if they were:

- A pause (a stalled observer finds sixty old beats in its queue) would lift the means for a thousand beats. So beyond
  one interval above the mean a beat counts as one interval.
- A step of a clock (a suspended machine's monotonic clock stands still) moves all delays for good. Downwards, the old
  mean would blind the detector for as long as the step was; no delay can fall that far, so one beat is enough to start
  again. Upwards, a run of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .units import MILLISECOND

#: The long mean is the true mean of the first thousand beats, then moves by a thousandth of the difference a beat.
#: Detectors in the literature and in Akka and Cassandra use a window of 1000.
MEAN_BEATS = 1000
#: The quick mean moves by a fifth of the difference: after ten beats a tenth of a burst is left.
QUICK_BEATS = 5
#: So many beats in a row, each more than an interval above the mean, are a new level and not a pause. A pause of
#: fewer intervals than this leaves the mean as it was.
LEVEL_BEATS = 8
#: Doubt begins so long after a beat was expected: more than what an idle host's scheduler adds to a beat.
SLACK_MIN_NS = 8 * MILLISECOND


class Adaptive:
    """suspect_at = sent + due + largest view of the delay + margin. State is five integers, whatever the history."""

    __slots__ = ("_above", "_count", "_mean", "_quick", "_rest", "allowed_ns", "lead_ns", "margin_ns")

    name: Final = "adaptive"

    def __init__(self, margin_ns: int) -> None:
        #: What a beat may be late beyond its expected delay.
        self.margin_ns = margin_ns
        #: How long before suspicion the doubt begins.
        self.lead_ns = max(0, margin_ns - SLACK_MIN_NS)
        #: How far behind the moment the next beat is expected the last deadline lies.
        self.allowed_ns = margin_ns
        self._count = 0
        self._mean = 0
        #: What the division that made the mean left over, so that the mean never drifts.
        self._rest = 0
        self._quick = 0
        #: Beats in a row that were more than an interval above the mean.
        self._above = 0

    def beat(self, sent_mono_ns: int, due_in_ns: int, interval_ns: int, now: int) -> int:
        """A fresh beat arrived; returns when silence is suspicious."""
        delay = now - sent_mono_ns
        mean = self._mean
        excess = delay - mean
        count = self._count
        if count and -interval_ns <= excess <= interval_ns:
            self._above = 0
            quick = self._quick + (delay - self._quick) // QUICK_BEATS
        else:
            excess = self._unusual(delay, interval_ns)
            mean = self._mean
            count = self._count
            quick = self._quick + (mean + excess - self._quick) // QUICK_BEATS
        self._quick = quick
        if count < MEAN_BEATS:
            count += 1
            self._count = count
        excess += self._rest
        mean += excess // count
        self._rest = excess % count
        self._mean = mean
        worst = delay if delay > quick else quick
        if mean > worst:
            worst = mean
        worst += self.margin_ns
        self.allowed_ns = worst - mean
        return sent_mono_ns + due_in_ns + worst

    def reset(self) -> None:
        """Forget what was learned: another incarnation may run on another clock."""
        self._count = 0

    def remember(self) -> list[int]:
        """What was learned of the node, for its next life or that of this observer."""
        return []

    def recall(self, numbers: Sequence[int]) -> None:
        """Go on from what `remember` gave; anything else is left aside."""

    def _unusual(self, delay: int, interval_ns: int) -> int:
        """Decide about a delay far from the mean: start again from it, or count it as one interval too late."""
        if self._count and delay > self._mean:
            self._above += 1
            if self._above < LEVEL_BEATS:
                return interval_ns
        self._above = 0
        self._count = 0
        self._mean = self._quick = delay
        self._rest = 0
        return 0
