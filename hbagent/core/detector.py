"""When silence becomes suspicious.

Think of a train that has run every minute all morning. Nobody on the platform asks "how probable is this delay?";
one asks "when will it be later than it has ever any reason to be?", and looks at the clock once, at that moment. So a
detector answers each beat with one number, the instant at which the silence that follows turns suspicious, and
between two beats there is nothing to compute and nothing to sweep.

Three complications make the rules differ:

- A beat proves life at the moment it was *sent*. A rule that counts from the arrival pays for each late beat twice
  (`fixed`, `phi`); a rule that counts from the sender's own schedule does not (`adaptive`).
- Lateness comes in bursts: a beat that was late makes the next one likely late, and a pause that is over says little.
- A lost beat is one whole interval of silence. No passive rule can tell it from a death, so a margin shorter than the
  interval suspects on each loss; that is for asking to clear, not for waiting.

A suspicion computed from the deviation of arrivals (`phi`) reacts to one long pause by being slow for the whole length
of its window: it is offered because people know it, and it is not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .adaptive import Adaptive
from .config import DetectorConfig
from .fixed import Fixed
from .phi import Phi


class Detector(Protocol):
    """The expectation of one sender's next beat. O(1) a beat; never raises."""

    @property
    def name(self) -> str:
        """The word for it in a config file and in evidence."""

    @property
    def allowed_ns(self) -> int:
        """How far behind the moment the next beat is expected the last deadline lies; for evidence."""

    @property
    def margin_ns(self) -> int:
        """What a beat may be late beyond the delay that is expected of it; for views."""

    @property
    def lead_ns(self) -> int:
        """How long before the last deadline the doubt begins, 0 or more: doubt_at = suspect_at - lead_ns.

        Asking costs a few packets and is right most of the time after a lost beat, so it begins as soon as only one
        living beat in a thousand would be later; suspecting costs trust and waits out the margin.
        """

    def beat(self, sent_mono_ns: int, due_in_ns: int, interval_ns: int, now: int) -> int:
        """A fresh beat arrived; returns the instant, on the clock of `now`, from which silence is suspicious.

        `sent_mono_ns` is on the sender's own clock, `due_in_ns` counts from it. The caller passes only fresh beats,
        in the order of their sequence.
        """

    def answered(self, interval_ns: int, now: int) -> int:
        """The sender answered a question at `now`; returns the new instant from which silence is suspicious.

        What is missing was lost on the way. The next beat is waited for, or the one after it when doubt about the next
        would have begun already.
        """

    def forgive(self, silent_ns: int) -> None:
        """The node has accounted for a silence of `silent_ns` that ended just now: learn no lateness from it."""

    def reset(self) -> None:
        """Forget what was learned: the sender is another incarnation."""

    def remember(self) -> list[int]:
        """What was learned about the node and outlives observer and incarnation, in a few numbers; may be empty."""

    def recall(self, numbers: Sequence[int]) -> None:
        """Go on from what `remember` gave. Never raises: numbers that make no sense are left aside."""


#: The words that `DetectorConfig.kind` may hold.
KINDS = (Adaptive.name, Phi.name, Fixed.name)


def make_detector(config: DetectorConfig, own_lag: Callable[[int], int] | None = None) -> Detector:
    """A new detector for one sender. Raises ValueError when `config.kind` is not one of `KINDS`.

    `own_lag` says for how long the observer itself did not listen since an instant (`OwnLag.since`).
    """
    if config.kind == Adaptive.name:
        margins = (config.margin_ns, config.mistakes_per_day, config.margin_min_ns, config.margin_max_ns)
        return Adaptive(*margins, own_lag)
    if config.kind == Fixed.name:
        return Fixed(config.margin_ns)
    if config.kind == Phi.name:
        return Phi(config.phi_threshold, config.window_samples, config.deviation_min_ns, config.pause_ns)
    raise ValueError(f"detector kind {config.kind!r} is not one of {', '.join(KINDS)}")
