"""The accrual rule: suspicion as a level, phi, that rises with silence, and the silence at which it tips.

phi = 1 means "were arrivals normal, one silence in ten would be this long", phi = 8 one in 10^8. They are not normal:
on the real emission times of 100 ms senders a nominal 10^-8 was 69 mistakes per node-hour, for pauses have a far
heavier tail. Take phi as a dial without a scale, and see `detector` for why it is not the default.

The level is Hayashibara's (SRDS 2004), with the normal distribution's tail in the logistic form that Akka ships,

    tail(y) = 1 / (1 + exp(y · (1.5976 + 0.070566 · y²)))        y = (elapsed - mean) / deviation

which is monotone in the elapsed time. So a threshold is one number of deviations, found once by inverting the cubic,
and a deadline is `mean + that · deviation`: no level is ever computed to judge.

Written down as it stands, the formula raises in Python at both tails (log of 0 from 40 deviations on, overflow of exp
below -25). As -log10(tail) = ln(1 + exp(z)) / ln 10, which is z / ln 10 for a large z, it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .adaptive import SLACK_MIN_NS, put_off
from .window import Window

_LINEAR = 1.5976
_CUBIC = 0.070566
_LN10 = math.log(10.0)
#: Beyond this many deviations phi stands still: 7·10^16 is past any threshold, and sums stay finite.
DEVIATIONS_MAX = 1_000_000
#: Levels a threshold may have. Below, the deadline would lie before the mean arrival by more than the mean itself
#: usually is; above, phi stands still.
THRESHOLD_MIN = 1e-12
THRESHOLD_MAX = 1e15
#: The level at which doubt begins: were arrivals normal, one beat in a thousand.
DOUBT_LEVEL = 3.0


def phi(elapsed_ns: int, mean_ns: int, deviation_ns: int) -> float:
    """Level of suspicion after `elapsed_ns` of silence; finite, never negative, and never falls (but for rounding).

    A deviation below 1 ns is taken as 1 ns.
    """
    deviation = max(deviation_ns, 1)
    bound = DEVIATIONS_MAX * deviation
    y = min(max(elapsed_ns - mean_ns, -bound), bound) / deviation
    z = y * (_LINEAR + _CUBIC * y * y)
    return (max(z, 0.0) + math.log1p(math.exp(-abs(z)))) / _LN10


def deviations_at(threshold: float) -> float:
    """How many deviations past the mean phi reaches `threshold`; 5.226 for 8. Negative below phi = 0.301.

    Thresholds outside `THRESHOLD_MIN` and `THRESHOLD_MAX` are taken as these; one that is no number as the largest.
    """
    level = min(max(threshold, THRESHOLD_MIN), THRESHOLD_MAX) if threshold == threshold else THRESHOLD_MAX
    grown = level * _LN10
    # ln(exp(grown) - 1), which neither overflows for a large level nor cancels for a small one.
    z = grown + math.log(-math.expm1(-grown))
    # The real root of y³ + p·y = q.
    p = _LINEAR / _CUBIC
    q = z / _CUBIC
    root = math.sqrt(p / 3.0)
    return 2.0 * root * math.sinh(math.asinh(q / (2.0 * root**3)) / 3.0)


#: `DOUBT_LEVEL` in deviations: 3.09 of a true normal.
_DOUBT_DEVIATIONS = deviations_at(DOUBT_LEVEL)


def elapsed_at(threshold: float, mean_ns: int, deviation_ns: int) -> int:
    """The silence, in nanoseconds, at which phi reaches `threshold`: the inverse of `phi`, to the nanosecond."""
    return mean_ns + _scaled(deviations_at(threshold), max(deviation_ns, 1))


def _scaled(deviations: float, deviation_ns: int) -> int:
    # A ratio of integers: a float product would overflow for a deviation past 10^308 and round one past 2^53.
    numerator, denominator = deviations.as_integer_ratio()
    return -(-numerator * deviation_ns // denominator)


class Phi:
    """suspect_at = arrival + mean + pause + deviations(threshold) · deviation, over a window of arrivals."""

    __slots__ = (
        "_deadline",
        "_deviation_min_ns",
        "_deviations",
        "_interval_ns",
        "_last",
        "_pause_ns",
        "_suspect_at",
        "_window",
        "allowed_ns",
        "lead_ns",
    )

    name: Final = "phi"

    def __init__(self, threshold: float, window_samples: int, deviation_min_ns: int, pause_ns: int) -> None:
        """Raises ValueError when `window_samples` is below 2."""
        self._deviations = deviations_at(threshold)
        self._window = Window(window_samples)
        self._deviation_min_ns = deviation_min_ns
        self._pause_ns = pause_ns
        self._interval_ns = 0
        self._last = 0
        self._suspect_at = 0
        #: `_suspect_at`, or later by what answers put it off.
        self._deadline = 0
        #: How far behind the mean arrival the last deadline lies.
        self.allowed_ns = 0
        #: How long before suspicion the doubt begins.
        self.lead_ns = 0

    @property
    def margin_ns(self) -> int:
        """What an arrival may lie behind the mean one: a multiple of the deviation, and the pause."""
        return self.allowed_ns

    def beat(self, sent_mono_ns: int, due_in_ns: int, interval_ns: int, now: int) -> int:
        """A fresh beat arrived; returns when silence is suspicious. The sender's clock is not looked at."""
        window = self._window
        if not len(window) or interval_ns != self._interval_ns:
            self._start(interval_ns)
        elif now < self._suspect_at:
            # A gap that raised suspicion is an outage; as a sample it would make the next one harder to see.
            window.append(now - self._last)
        self._last = now
        seen = window.deviation_ns
        self.allowed_ns = self._pause_ns + int(self._deviations * max(seen, self._deviation_min_ns))
        # Asking is cheap: neither the pause nor the least deviation, which keep verdicts calm, put it off.
        self.lead_ns = max(0, self.allowed_ns - max(SLACK_MIN_NS, int(_DOUBT_DEVIATIONS * seen)))
        self._suspect_at = self._deadline = now + window.mean_ns + self.allowed_ns
        return self._suspect_at

    def answered(self, interval_ns: int, now: int) -> int:
        """The sender answered at `now`: what is missing was lost on the way. Returns when silence is suspicious."""
        # The window goes by `_suspect_at`: a gap that was only explained by asking is an outage to it.
        self._deadline += put_off(self._deadline - self.lead_ns, interval_ns, now)
        return self._deadline

    def forgive(self, silent_ns: int) -> None:
        """Nothing was learned."""

    def reset(self) -> None:
        """Forget the arrivals."""
        self._window.clear()

    def remember(self) -> list[int]:
        """Nothing: a window of arrivals is filled in minutes."""
        return []

    def recall(self, numbers: Sequence[int]) -> None:
        """Nothing."""

    def _start(self, interval_ns: int) -> None:
        """Begin with two samples whose mean is the announced interval and whose deviation is a quarter of it."""
        self._interval_ns = interval_ns
        self._window.clear()
        quarter = interval_ns // 4
        self._window.append(interval_ns - quarter)
        self._window.append(interval_ns + quarter)
