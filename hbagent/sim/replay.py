"""Recorded beats through the production detectors: how fast a death is seen, and how often a living node is suspected.

The same `Order`, `Detector`, `OwnLag` and `Gate` as in a leader, driven by the times in a file. The two figures that
matter pull against each other, so neither means anything alone:

- *Detection time*: were this beat the last, how long after it was sent would the node be suspected? `suspect_at` less
  the sending time: right after a beat is the worst moment to die. Over all beats; one that was lost left the deadline
  of the beat before it, and one that came after its successor is left out, for the last beat has none.
- *Mistakes*: suspicions that were cleared later, per hour of one node. *Query accuracy* is the share of time in which
  a node, asked about at random, was not wrongly suspected (Chen, Toueg and Aguilera, 2002).

A rack's recording shows when its observer did not run, by its own ticks. Then the observer's guards apply: nobody is
judged between the moment a tick was due and the moment it ran (what is waiting is read first), the time that the loop
was away is added to the deadline of whoever was last heard before its end, after a long stall one interval is listened
to first, and while many are late together the gate holds.

With `Asking`, a sender in doubt is asked as a leader asks: over the same made-up way as its beats, and it answers when
it runs. It does not run from the moment a beat was due to the moment at which the call to send it returned. Neighbours
and other leaders are not asked: a recording has none.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from hbagent.core.config import DetectorConfig, LeaderConfig
from hbagent.core.detector import make_detector
from hbagent.core.gate import Gate
from hbagent.core.member import Member
from hbagent.core.observer import CREDIT_MAX_NS, PAUSE_MIN_NS, OwnLag
from hbagent.core.order import Order, Verdict
from hbagent.core.units import HOUR, MILLISECOND

from .recording import TICK, Event, Loss, Recording, Way

#: Called for each beat that arrived with its node, sequence and the deadline that stands after it.
Deadlines = Callable[[str, int, int], None]

#: The incarnation of every recorded sender: a recording holds one life of each.
_INCARNATION = 1
#: Later than any instant of a recording.
_FAR = 1 << 63
#: The policy as it ships.
_LEADER = LeaderConfig(name="replay", racks={})


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
    #: Mean over the nodes at the end.
    margin_mean_ms: float | None = None
    #: Questions asked, and how many that is for each beat that was sent.
    pings: int = 0
    extra_messages_share: float | None = None


class Asking(NamedTuple):
    """Ask whoever is in doubt, over a way made up for each recording."""

    delay_ns: int
    loss: float
    seed: str
    pings: int = _LEADER.pings
    spacing_ns: int = _LEADER.ping_spacing_ns


class _Watch:
    """One sender as the observer sees it."""

    __slots__ = (
        "deadlines",
        "detector",
        "doubt",
        "first",
        "heard_at",
        "member",
        "mistaken_ns",
        "mistakes",
        "name",
        "order",
        "queued_for",
        "silent_from",
        "suspect_at",
        "suspected_at",
    )

    def __init__(self, name: str, config: DetectorConfig, interval_ns: int) -> None:
        self.name = name
        self.detector = make_detector(config)
        self.order = Order()
        self.member = Member(name, self.detector, interval_ns, 0)
        self.first: int | None = None
        self.heard_at = 0
        #: The last proof of life.
        self.silent_from = 0
        self.suspect_at = 0
        #: When it is looked at again.
        self.queued_for: int | None = None
        #: When doubt began.
        self.doubt: int | None = None
        self.suspected_at: int | None = None
        self.mistakes = 0
        self.mistaken_ns = 0
        #: Sequence of each beat that was news, or the newest at an answer; when the answer was given, None for a beat;
        #: and the deadline from then on. Neither the sequence nor, for one sequence, the time ever falls.
        self.deadlines: list[tuple[int, int, int]] = []

    def clear(self, now: int, counted_from: int) -> None:
        """Life was proved: a suspicion was a mistake."""
        self.doubt = None
        if self.suspected_at is None:
            return
        if now >= counted_from:
            self.mistakes += 1
            self.mistaken_ns += now - max(self.suspected_at, counted_from)
        self.suspected_at = None

    def detection_time(self, loss: Loss) -> int | None:
        """Detection time had the sender died after a beat that was lost; None when none before it was heard."""
        before = bisect.bisect_left(self.deadlines, (loss.sequence,)) - 1
        # An answer given after this beat was sent was not given by a sender that had died with it.
        while before >= 0 and self.deadlines[before][1] > loss.sent:
            before -= 1
        # A sender that was suspected already is detected at once.
        return max(self.deadlines[before][2] - loss.sent, 0) if before >= 0 else None


class _Sender:
    """When the sender of a recording runs, and its way to the observer and back."""

    def __init__(self, recording: Recording, interval_ns: int, asking: Asking, number: int) -> None:
        self._way = Way(asking.delay_ns, asking.loss, f"{asking.seed}:{number}:asked")
        self._ends = [emission.end for emission in recording.emissions]
        self._dues = [emission.begin + interval_ns for emission in recording.emissions]

    def answers(self, asked_at: int) -> tuple[int, int] | None:
        """When a question asked at `asked_at` is answered and when the answer arrives; None when either is lost."""
        there, back = self._way.travel(), self._way.travel()
        if there is None or back is None:
            return None
        at = asked_at + there
        # The first call to send that returns after the question came: it is answered then, or at once before it is due.
        following = bisect.bisect_left(self._ends, at)
        if following == len(self._ends):
            return None
        if following and at > self._dues[following - 1]:
            at = self._ends[following]
        return at, at + back


class _Observer:
    """The observer of one recording: its watches, their deadlines, its own lag and the rack's gate."""

    def __init__(self, config: DetectorConfig, interval_ns: int, guarded: bool, counted_from: int) -> None:
        self._config = config
        self._interval_ns = interval_ns
        self._guarded = guarded
        self._counted_from = counted_from
        self._lag = OwnLag()
        self._gate = Gate(_LEADER.gate_share, _LEADER.gate_min, _LEADER.gate_hold_ns)
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._ticked_at = -_FAR
        self._asking: tuple[Asking, _Sender] | None = None
        self.watches: dict[str, _Watch] = {}
        self.detection_times: list[int] = []
        self.pings = 0

    def ask(self, asking: Asking, sender: _Sender) -> None:
        """Ask the one sender of this recording when it is in doubt."""
        self._asking = asking, sender

    def play(self, events: Sequence[Event], deadlines: Deadlines | None) -> None:
        """Go through the events in order. What happens after the last is not known, so nobody is judged there."""
        if not self._guarded:
            events = [event for event in events if event.node != TICK]
        awake = _awake_until(events)
        before = 0
        for i, event in enumerate(events):
            self._work(before, min(event.at, awake[i]))
            before = event.at
            if event.node == TICK:
                self._tick(event.sent, event.at)
            else:
                self._hear(event, deadlines)

    def lose(self, losses: Iterable[Loss]) -> None:
        """Take account of the beats that never came, after `play`."""
        for loss in losses:
            watch = self.watches.get(loss.node)
            time = watch.detection_time(loss) if watch is not None and loss.sent >= self._counted_from else None
            if time is not None:
                self.detection_times.append(time)

    def _tick(self, planned: int, now: int) -> None:
        # A recorder may make up for ticks that it missed. Their time is away only once.
        planned, self._ticked_at = max(planned, self._ticked_at), now
        if self._lag.tick(planned, now) > max(PAUSE_MIN_NS, self._interval_ns // 2):
            self._lag.hold(now + self._interval_ns + self._config.margin_ns)

    def _hear(self, event: Event, deadlines: Deadlines | None) -> None:
        watch = self.watches.get(event.node)
        if watch is None:
            watch = self.watches[event.node] = _Watch(event.node, self._config, self._interval_ns)
            self._gate.watched += 1
        now, interval_ns = event.at, self._interval_ns
        if watch.order.judge(_INCARNATION, event.sequence) is Verdict.FRESH:
            self._clear(watch, now)
            watch.heard_at = now
            # As `Member.beat` reckons: life is proved at the time of sending, as far as offsets tell it.
            watch.silent_from = now - watch.member.age_of(now - event.sent, now)
            watch.suspect_at = watch.detector.beat(event.sent, interval_ns, interval_ns, now)
            watch.deadlines.append((event.sequence, -_FAR, watch.suspect_at))
            if now >= self._counted_from:
                watch.first = now if watch.first is None else watch.first
                self.detection_times.append(watch.suspect_at - event.sent)
            self._queue(watch, watch.suspect_at - watch.detector.lead_ns)
        if deadlines is not None:
            deadlines(event.node, event.sequence, watch.suspect_at)

    def _clear(self, watch: _Watch, now: int) -> None:
        if watch.doubt is not None:
            self._gate.heard(watch.name, now)
            watch.clear(now, self._counted_from)

    # ---- what comes due ------------------------------------------------------------------------------------

    def _push(self, at: int, do: Callable[..., None], *what: Any) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at, self._pushed, do, what))

    def _work(self, since: int, until: int) -> None:
        """Do what comes due before `until`, having been able to do it from `since` on."""
        heap = self._heap
        while heap and heap[0][0] < until:
            at, _, do, what = heapq.heappop(heap)
            do(*what, at, max(at, since))

    def _queue(self, watch: _Watch, at: int) -> None:
        """Look at a sender at `at`, unless it is looked at before then anyway."""
        if watch.queued_for is None or at < watch.queued_for:
            watch.queued_for = at
            self._push(at, self._look, watch)

    def _look(self, watch: _Watch, queued_for: int, now: int) -> None:
        """`Roster` judges in this order: doubt, own lag, gate."""
        if watch.queued_for != queued_for:
            return
        watch.queued_for = None
        if watch.suspected_at is not None:
            return
        credit = min(CREDIT_MAX_NS, self._lag.since(watch.silent_from))
        at = max(watch.suspect_at + credit, self._lag.hold_until)
        if watch.doubt is None:
            doubt_at = at - watch.detector.lead_ns
            if now < doubt_at:
                self._queue(watch, doubt_at)
                return
            watch.doubt = now
            self._gate.late(watch.name, now)
            if self._asking is not None:
                self._ping(watch, now, 0, now, now)
        held = self._gate.hold_until(now, self._interval_ns) if now >= at and self._guarded else 0
        if now < at or held:
            self._queue(watch, held or at)
        else:
            watch.suspected_at = now

    def _ping(self, watch: _Watch, doubt: int, number: int, at: int, now: int) -> None:
        """One round of questions. The first goes out on two paths at once, as `Inquiry` does."""
        assert self._asking is not None
        asking, sender = self._asking
        if watch.doubt != doubt:
            return
        for _ in range(1 if number else 2):
            self.pings += now >= self._counted_from
            answer = sender.answers(now)
            if answer is not None:
                self._push(answer[1], self._answered, watch, doubt, now, answer[0])
        if number + 1 < asking.pings:
            self._push(now + asking.spacing_ns, self._ping, watch, doubt, number + 1)

    def _answered(self, watch: _Watch, doubt: int, asked_at: int, answered_at: int, at: int, now: int) -> None:
        """As `Roster.proved` does."""
        if watch.doubt != doubt:
            return
        watch.silent_from = max(watch.silent_from, asked_at)
        if now - asked_at > self._interval_ns:
            return
        self._clear(watch, now)
        watch.suspect_at = watch.detector.answered(self._interval_ns, now)
        watch.deadlines.append((watch.order.sequence, answered_at, watch.suspect_at))
        self._queue(watch, watch.suspect_at - watch.detector.lead_ns)


def replay(
    recordings: Iterable[Recording],
    config: DetectorConfig,
    interval_ns: int,
    *,
    deadlines: Deadlines | None = None,
    guarded: bool = True,
    learn_share: float = 0.0,
    asking: Asking | None = None,
) -> Figures:
    """Feed recordings, each with an observer of its own, to the detector of `config`, and pool what it did.

    Emissions must have been delivered before (`recording.deliver`). Without `guarded` it is an observer that does not
    doubt itself: the ticks are left out, and nobody's silence excuses another's. The first `learn_share` of each
    recording is only learned from: no figure but `beats` and `lost` counts it. `asking` needs recordings of emissions.
    """
    observers: list[_Observer] = []
    beats = lost = 0
    for number, recording in enumerate(recordings):
        events = recording.events
        counted_from = -_FAR
        if events and learn_share > 0:
            counted_from = events[0].at + round(learn_share * (events[-1].at - events[0].at))
        observer = _Observer(config, interval_ns, guarded, counted_from)
        if asking is not None:
            observer.ask(asking, _Sender(recording, interval_ns, asking, number))
        observer.play(events, deadlines)
        observer.lose(recording.losses)
        observers.append(observer)
        beats += len(recording.losses) + sum(event.node != TICK for event in events)
        lost += len(recording.losses)
    return _figures(observers, beats, lost, round(beats * (1 - learn_share)))


def _awake_until(events: Sequence[Event]) -> list[int]:
    """For each event, until when the observer was surely running before it: the time planned for its next tick."""
    awake = [0] * len(events)
    planned = _FAR
    for i in range(len(events) - 1, -1, -1):
        if events[i].node == TICK:
            planned = events[i].sent
        awake[i] = planned
    return awake


def _figures(observers: Sequence[_Observer], beats: int, lost: int, beats_counted: int) -> Figures:
    watches = [watch for observer in observers for watch in observer.watches.values()]
    times = sorted(time for observer in observers for time in observer.detection_times)
    watched_ns = sum(watch.heard_at - watch.first for watch in watches if watch.first is not None)
    mistakes = sum(watch.mistakes for watch in watches)
    mistaken_ns = sum(watch.mistaken_ns for watch in watches)
    margins = [watch.detector.margin_ns for watch in watches]
    pings = sum(observer.pings for observer in observers)
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
        margin_mean_ms=sum(margins) / len(margins) / MILLISECOND if margins else None,
        pings=pings,
        extra_messages_share=pings / beats_counted if beats_counted and times else None,
    )
