"""How often the verdicts were right: each DEAD that was told is booked, and booked again when its node comes back.

Think of a doctor who keeps a list of everybody he pronounced dead and strikes through who walks in later. A verdict is
wrong when the same incarnation comes back; a new one proves that the old was gone. How often that happens means
something only beside the time for which living nodes were watched, so that time is summed up as well.

The newest verdicts are kept one by one, for percentiles and for a reader who wants to know which; older ones are sums.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .records import Conviction, Restored, Tally
from .states import Cause
from .units import DAY, MINUTE

#: Verdicts kept one by one. A p99 of 10,000 rests on a hundred of them; at about 250 bytes each this is 2.5 MB.
CONVICTIONS_MAX = 10_000
#: Time watched is written this often; as much of it is lost in a crash.
WRITE_NS = 5 * MINUTE
#: What false positives are told per.
NODE_YEAR_NS = 365 * DAY + DAY // 4


class Accuracy:
    """The book of verdicts of one life of the root. What is to be written waits in it until `written` is called."""

    def __init__(self, life: int, restored: Restored | None = None) -> None:
        restored = restored or Restored()
        self._life = life
        self._replaces = tuple(tally.life for tally in restored.tallies)
        self._convictions: dict[str, Conviction] = {}
        #: The newest verdict about each node of which one is kept.
        self._newest: dict[str, str] = {}
        self._told: dict[str, int] = {}
        self._wrong: dict[str, int] = {}
        #: Time that nodes were watched, summed over the nodes.
        self.watched_ns = 0
        self.since_wall_ns = 0
        for tally in restored.tallies:
            self._take_over(tally)
        for conviction in restored.convictions:
            self._keep(conviction)

    def _take_over(self, tally: Tally) -> None:
        self.watched_ns += tally.watched_ns
        if tally.since_wall_ns and (not self.since_wall_ns or tally.since_wall_ns < self.since_wall_ns):
            self.since_wall_ns = tally.since_wall_ns
        for mine, theirs in ((self._told, tally.told), (self._wrong, tally.wrong)):
            for cause, count in theirs.items():
                mine[cause] = mine.get(cause, 0) + count

    # ---- booking -----------------------------------------------------------------------------------------

    def watch(self, length_ns: int) -> None:
        """A living node was watched for this long."""
        self.watched_ns += length_ns

    def convict(self, conviction: Conviction) -> list[str]:
        """A node was called dead; returns the ids of older verdicts that are summed up from now on."""
        self._keep(conviction)
        folded = []
        while len(self._convictions) > CONVICTIONS_MAX:
            oldest = self._convictions.pop(next(iter(self._convictions)))
            if self._newest.get(oldest.node) == oldest.event_id:
                del self._newest[oldest.node]
            cause = oldest.cause.value
            self._told[cause] = self._told.get(cause, 0) + 1
            self._wrong[cause] = self._wrong.get(cause, 0) + oldest.wrong
            folded.append(oldest.event_id)
        return folded

    def back(self, node: str, incarnation: int | None, at_wall_ns: int) -> Conviction | None:
        """A node lives that was called dead: returns the newest verdict about it when that was wrong."""
        conviction = self._latest(node)
        if conviction is None or conviction.wrong or incarnation is None or conviction.incarnation != incarnation:
            return None
        return self._change(conviction, back_after_ns=max(0, at_wall_ns - conviction.at_wall_ns))

    def account(self, node: str, incarnation: int | None, reason: str) -> Conviction | None:
        """A node says why it was silent: returns the newest verdict about it when that was wrong and has no reason."""
        conviction = self._latest(node)
        if conviction is None or not conviction.wrong or conviction.reason or conviction.incarnation != incarnation:
            return None
        return self._change(conviction, reason=reason)

    def tally(self) -> Tally:
        """Everything but the verdicts that are kept one by one."""
        return Tally(
            life=self._life,
            replaces=self._replaces,
            watched_ns=self.watched_ns,
            since_wall_ns=self.since_wall_ns,
            told=dict(self._told),
            wrong=dict(self._wrong),
        )

    def _latest(self, node: str) -> Conviction | None:
        event_id = self._newest.get(node)
        return None if event_id is None else self._convictions[event_id]

    def _keep(self, conviction: Conviction) -> None:
        self._convictions[conviction.event_id] = conviction
        self._newest[conviction.node] = conviction.event_id

    def _change(self, conviction: Conviction, **fields: object) -> Conviction:
        changed = msgspec.structs.replace(conviction, **fields)
        self._convictions[changed.event_id] = changed
        return changed

    # ---- reading -----------------------------------------------------------------------------------------

    @property
    def kept(self) -> int:
        """Verdicts kept one by one."""
        return len(self._convictions)

    def causes(self) -> list[Cause]:
        """Causes of which there was a verdict, in the order of `Cause`."""
        present = {conviction.cause.value: None for conviction in self._convictions.values()} | dict.fromkeys(
            self._told
        )
        return [cause for cause in Cause if cause.value in present]

    def told(self, cause: Cause | None = None) -> int:
        """Verdicts told, of one cause or of all."""
        return self._summed(self._told, cause) + sum(1 for _ in self._of(cause))

    def wrong(self, cause: Cause | None = None) -> int:
        """Verdicts that turned out wrong, of one cause or of all."""
        return self._summed(self._wrong, cause) + sum(conviction.wrong for conviction in self._of(cause))

    def detections(self, cause: Cause | None = None) -> list[int]:
        """Detection times of the verdicts that are kept and were right, shortest first."""
        return sorted(c.detection_ns for c in self._of(cause) if c.detection_ns is not None and not c.wrong)

    def after(self, event_id: str) -> list[Conviction]:
        """Verdicts told after that of `event_id`, oldest first, as far as they are kept; "": all that are."""
        newer = []
        for conviction in reversed(self._convictions.values()):
            if conviction.event_id == event_id:
                break
            newer.append(conviction)
        return newer[::-1]

    def mistakes(self, limit: int) -> list[Conviction]:
        """The newest verdicts that turned out wrong, newest first."""
        wrong = [conviction for conviction in reversed(self._convictions.values()) if conviction.wrong]
        return wrong[:limit]

    def per_node_year(self, count: int) -> float | None:
        """`count` per node-year watched; None when nothing was."""
        return count * NODE_YEAR_NS / self.watched_ns if self.watched_ns else None

    def _of(self, cause: Cause | None) -> Iterable[Conviction]:
        return (c for c in self._convictions.values() if cause is None or c.cause is cause)

    @staticmethod
    def _summed(counts: dict[str, int], cause: Cause | None) -> int:
        return sum(counts.values()) if cause is None else counts.get(cause.value, 0)


def percentile(values: list[int], percent: int) -> int | None:
    """The smallest of `values`, sorted, that is not exceeded by `percent` per cent of them (nearest rank)."""
    return values[max(0, -(-len(values) * percent // 100) - 1)] if values else None
