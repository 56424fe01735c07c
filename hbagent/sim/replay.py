"""Recorded beats through the production detectors: how fast a death is seen, and how often a living node is suspected.

The same `Order`, `Detector` and `OwnLag` as in a leader, driven by the times in a file. The two figures that matter
pull against each other, so neither means anything alone:

- *Detection time*: were this beat the last, how long after it was sent would the node be suspected? `suspect_at` less
  the sending time: right after a beat is the worst moment to die. Over all beats; one that was lost left the deadline
  of the beat before it, and one that came after its successor is left out, for the last beat has none.
- *Mistakes*: suspicions that a later beat cleared, per hour of one node. *Query accuracy* is the share of time in which
  a node, asked about at random, was not wrongly suspected (Chen, Toueg and Aguilera, 2002).

A rack's recording shows when its observer did not run, by its own ticks. Then the observer's guards apply: nobody is
judged between the moment a tick was due and the moment it ran (what is waiting is read first), and the time that the
loop was away is added to the deadline of whoever was last heard before its end.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hbagent.core.config import DetectorConfig
from hbagent.core.detector import make_detector
from hbagent.core.observer import OwnLag
from hbagent.core.order import Order, Verdict
from hbagent.core.units import HOUR, MILLISECOND

from .recording import TICK, Event, Loss, Recording

#: Called for each beat that arrived with its node, sequence and the deadline that stands after it.
Deadlines = Callable[[str, int, int], None]

#: The incarnation of every recorded sender: a recording holds one life of each.
_INCARNATION = 1


class Figures(NamedTuple):
    """What a replay measured. None where nothing was there to measure."""

    detection_time_mean_ms: float | None
    detection_time_p99_ms: float | None
    mistakes_per_node_hour: float | None
    query_accuracy: float | None
    node_hours: float
    nodes: int
    #: Beats sent, as far as the recording tells; `lost` of them never arrived.
    beats: int
    lost: int
    mistakes: int


class _Watch:
    """One sender as the observer sees it."""

    __slots__ = (
        "deadlines",
        "detector",
        "first",
        "heard_at",
        "mistaken_ns",
        "mistakes",
        "order",
        "suspect_at",
        "suspected_at",
    )

    def __init__(self, config: DetectorConfig) -> None:
        self.detector = make_detector(config)
        self.order = Order()
        self.first: int | None = None
        self.heard_at = 0
        self.suspect_at = 0
        self.suspected_at: int | None = None
        self.mistakes = 0
        self.mistaken_ns = 0
        #: Sequence and deadline of each beat that was news: the sequence never falls.
        self.deadlines: list[tuple[int, int]] = []

    def hear(self, event: Event, interval_ns: int) -> bool:
        """Take in a beat; returns whether it was news, which clears a suspicion and moves the deadline."""
        if self.order.judge(_INCARNATION, event.sequence) is not Verdict.FRESH:
            return False
        if self.first is None:
            self.first = event.at
        if self.suspected_at is not None:
            self.mistakes += 1
            self.mistaken_ns += event.at - self.suspected_at
            self.suspected_at = None
        self.heard_at = event.at
        self.suspect_at = self.detector.beat(event.sent, interval_ns, interval_ns, event.at)
        self.deadlines.append((event.sequence, self.suspect_at))
        return True

    def detection_time(self, loss: Loss) -> int | None:
        """Detection time had the sender died after a beat that was lost; None when none before it was heard."""
        before = bisect.bisect_left(self.deadlines, (loss.sequence,))
        if before == 0:
            return None
        # A sender that was suspected already is detected at once.
        return max(self.deadlines[before - 1][1] - loss.sent, 0)


class _Observer:
    """The observer of one recording: its watches, their deadlines, and its own lag."""

    def __init__(self, config: DetectorConfig, interval_ns: int, guarded: bool) -> None:
        self._config = config
        self._interval_ns = interval_ns
        self._guarded = guarded
        self._lag = OwnLag()
        self._heap: list[tuple[int, int, _Watch, int]] = []
        self._pushed = 0
        self.watches: dict[str, _Watch] = {}
        self.detection_times: list[int] = []

    def play(self, events: Sequence[Event], deadlines: Deadlines | None) -> None:
        """Go through the events in order. What happens after the last is not known, so nobody is judged there."""
        if not self._guarded:
            events = [event for event in events if event.node != TICK]
        awake = _awake_until(events)
        before = 0
        for i, event in enumerate(events):
            self._judge(before, min(event.at, awake[i]))
            before = event.at
            if event.node == TICK:
                self._lag.tick(event.sent, event.at)
            else:
                self._hear(event, deadlines)

    def lose(self, losses: Iterable[Loss]) -> None:
        """Take account of the beats that never came, after `play`."""
        for loss in losses:
            watch = self.watches.get(loss.node)
            time = watch.detection_time(loss) if watch is not None else None
            if time is not None:
                self.detection_times.append(time)

    def _hear(self, event: Event, deadlines: Deadlines | None) -> None:
        watch = self.watches.get(event.node)
        if watch is None:
            watch = self.watches[event.node] = _Watch(self._config)
        if watch.hear(event, self._interval_ns):
            self.detection_times.append(watch.suspect_at - event.sent)
            self._push(watch.suspect_at, watch)
        if deadlines is not None:
            deadlines(event.node, event.sequence, watch.suspect_at)

    def _judge(self, since: int, until: int) -> None:
        """Suspect whoever is due before `until`, having been able to judge from `since` on."""
        heap = self._heap
        while heap and heap[0][0] < until:
            at, _, watch, suspect_at = heapq.heappop(heap)
            if suspect_at != watch.suspect_at:
                continue
            due = suspect_at + self._lag.since(watch.heard_at)
            if due > at:
                self._push(due, watch)
            else:
                watch.suspected_at = max(at, since)

    def _push(self, at: int, watch: _Watch) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at, self._pushed, watch, watch.suspect_at))


def replay(
    recordings: Iterable[Recording],
    config: DetectorConfig,
    interval_ns: int,
    *,
    deadlines: Deadlines | None = None,
    guarded: bool = True,
) -> Figures:
    """Feed recordings, each with an observer of its own, to the detector of `config`, and pool what it did.

    Emissions must have been delivered before (`recording.deliver`). Without `guarded`, the observer's ticks are left
    out, and it judges as if it had always run.
    """
    observers: list[_Observer] = []
    beats = lost = 0
    for recording in recordings:
        observer = _Observer(config, interval_ns, guarded)
        observer.play(recording.events, deadlines)
        observer.lose(recording.losses)
        observers.append(observer)
        beats += len(recording.losses) + sum(event.node != TICK for event in recording.events)
        lost += len(recording.losses)
    watches = [watch for observer in observers for watch in observer.watches.values()]
    times = sorted(time for observer in observers for time in observer.detection_times)
    return _figures(watches, times, beats, lost)


def _awake_until(events: Sequence[Event]) -> list[int]:
    """For each event, until when the observer was surely running before it: the time planned for its next tick."""
    awake = [0] * len(events)
    planned = 2**63
    for i in range(len(events) - 1, -1, -1):
        if events[i].node == TICK:
            planned = events[i].sent
        awake[i] = planned
    return awake


def _figures(watches: Sequence[_Watch], times: Sequence[int], beats: int, lost: int) -> Figures:
    watched_ns = sum(watch.heard_at - watch.first for watch in watches if watch.first is not None)
    mistakes = sum(watch.mistakes for watch in watches)
    mistaken_ns = sum(watch.mistaken_ns for watch in watches)
    return Figures(
        detection_time_mean_ms=sum(times) / len(times) / MILLISECOND if times else None,
        # The smallest time that at least 99 of 100 do not exceed.
        detection_time_p99_ms=times[(99 * len(times) + 99) // 100 - 1] / MILLISECOND if times else None,
        mistakes_per_node_hour=mistakes * HOUR / watched_ns if watched_ns else None,
        query_accuracy=1 - mistaken_ns / watched_ns if watched_ns else None,
        node_hours=watched_ns / HOUR,
        nodes=len(watches),
        beats=beats,
        lost=lost,
        mistakes=mistakes,
    )
