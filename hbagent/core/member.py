"""One monitored node as one leader sees it.

Two ways in. `beat` is the road that a hundred million beats a day take: a living node's next beat, fresh, from the
incarnation that is known. It decides nothing and allocates nothing. Whatever is not that (a first beat, a restart, a
beat of a suspect, an old one, a goodbye) is left untouched for `Roster.unusual`.

A beat proves life at the time it was *sent*, which no common clock tells. But the smallest difference between
arrival and sending in the last minute was that of a beat that hardly waited, so whatever a beat has above that
smallest difference is time it spent on the way: its age. A process killed during a 2 s cut of its network was seen
to deliver beats 3.3 s old when the cut ended; by their age they prove nothing.
"""

from __future__ import annotations

from .changes import Parts
from .detector import Detector
from .doubt import Doubt
from .messages import Evidence, Report
from .order import Order
from .states import Cause, Health, Liveness
from .units import SECOND

#: The smallest offset is that of the last half to whole minute: clocks of two hosts drift 100 ppm at worst,
#: 6 ms a minute.
FLOOR_TURN_NS = 30 * SECOND
#: A beat that looks older than this is looked at more closely: its sender's clock may have stood still.
AGED_NS = SECOND // 10
_FAR = 1 << 63


class Member:
    """State of one node; changed only by its `Roster`, and by `beat`."""

    __slots__ = (
        "address",
        "agent_version",
        "answered_at",
        "answers",
        "ask_at",
        "beats",
        "beats_limit",
        "cause",
        "check_at",
        "check_wait_ns",
        "detector",
        "digest",
        "doubt",
        "duplicate_until",
        "echo_key",
        "echo_port",
        "floor_before",
        "floor_now",
        "floor_turn",
        "fresh_ns",
        "health",
        "heard_at",
        "incompatible",
        "interval_ns",
        "judge_from",
        "late",
        "left_at",
        "liveness",
        "loop_gap_before",
        "loop_gap_now",
        "mark",
        "mark_judged",
        "mark_of",
        "mark_sequence",
        "name",
        "old_age_ns",
        "old_arrived_at",
        "old_run",
        "old_sent_ns",
        "order",
        "parts",
        "progress",
        "questions",
        "queued_for",
        "rack",
        "recalled",
        "report",
        "report_at",
        "retired_at",
        "short",
        "silent_from",
        "since",
        "stalled",
        "suspect_at",
        "tcp_proved",
        "udp_proved",
        "verdict",
        "version",
        "weighed",
    )

    def __init__(self, name: str, detector: Detector, interval_ns: int, now: int) -> None:
        self.name = name
        self.rack, _, self.short = name.rpartition("/")
        self.order = Order()
        self.detector = detector
        self.liveness = Liveness.UNKNOWN
        self.cause: Cause | None = Cause.NEVER_SEEN
        self.health = Health.UNKNOWN
        self.since = now
        #: Number of the transition that made the present liveness; 0 when this life of the leader made none.
        self.version = 0
        #: Last proof of life on the leader's clock; None until the node was heard in this life of the leader.
        self.heard_at: int | None = None
        #: An earlier life of the leader knew it to live, and this one has neither heard nor missed it yet.
        self.recalled = False
        #: When silence began that ends in DEAD: the last proof of life, or the leader's start.
        self.silent_from = now
        self.interval_ns = interval_ns
        #: A beat older than this on arrival proves nothing.
        self.fresh_ns = interval_ns
        self.suspect_at = 0
        #: The instant for which this member waits in the wheel; 0 when it does not.
        self.queued_for = 0
        self.floor_now = _FAR
        self.floor_before = _FAR
        self.floor_turn = 0
        self.old_run = 0
        self.old_age_ns = 0
        self.old_arrived_at = 0
        self.old_sent_ns = 0
        self.loop_gap_now = 0
        self.loop_gap_before = 0
        self.late = 0
        self.beats = 0
        #: `beats` may not pass this before the next count; keeps one noisy node from costing more than its share.
        self.beats_limit = _FAR
        self.progress = 0
        #: Health digest of the newest beat: that of the report which the agent sent last.
        self.digest = 0
        self.left_at: int | None = None
        self.retired_at: int | None = None
        self.duplicate_until = 0
        self.incompatible = False
        #: That its agent runs, as it says in its greeting; "" until it greets this life of the leader.
        self.agent_version = ""
        self.report: Report | None = None
        self.report_at = 0
        #: The report that was last compared with what was told of its health, and which parts were told as not OK;
        #: None before the first report.
        self.weighed: Report | None = None
        self.parts: Parts | None = None
        #: The mark in its beats when it was last seen to move, and of which beat (`core.vigil`).
        self.mark = 0
        self.mark_of: int | None = None
        self.mark_sequence = 0
        #: It has moved, or stood for its window, in this life of the leader.
        self.mark_judged = False
        #: The agent's own prober does not move.
        self.stalled = False
        #: What is being found out about its silence; None while it is heard.
        self.doubt: Doubt | None = None
        #: No suspicion before this: it was silent together with its rack, which has come back.
        self.judge_from = 0
        #: Times in a row that it answered while no beat of it came.
        self.answers = 0
        # Where and with which key it is asked (`core.inquiry`).
        self.address = ""
        self.echo_port = 0
        self.echo_key = b""
        #: Incarnation that answered there last, by each protocol; None when none did.
        self.tcp_proved: int | None = None
        self.udp_proved: int | None = None
        #: When the newest question that it answered was asked: a sign of its life like any other.
        self.answered_at = 0
        #: Numbers of the questions under way, when the next is asked, and when the echo path is tried again.
        self.questions: list[int] = []
        self.ask_at = 0
        self.check_at = 0
        self.check_wait_ns = 0
        self.verdict: Evidence | None = None

    def beat(
        self,
        incarnation: int,
        sequence: int,
        sent_ns: int,
        due_in_ns: int,
        interval_ns: int,
        loop_gap_ns: int,
        progress: int,
        digest: int,
        now: int,
    ) -> bool:
        """Take an ordinary beat; False, and nothing changed, when it is not one."""
        order = self.order
        if (
            # Only a plain ALIVE has no cause.
            self.cause is not None
            or incarnation != order.incarnation
            or sequence <= order.sequence
            or interval_ns != self.interval_ns
            or due_in_ns > interval_ns
            or self.heard_at is None
            or self.doubt is not None
            or self.beats >= self.beats_limit
        ):
            return False
        # `age_of`, written out: a call is a tenth of this road.
        offset = now - sent_ns
        if now >= self.floor_turn or offset < self.floor_now:
            age = self.age_of(offset, now)
        else:
            age = offset - (self.floor_now if self.floor_now < self.floor_before else self.floor_before)
        if age > AGED_NS:
            return False
        if sequence != order.sequence + 1:
            order.lost += sequence - order.sequence - 1
        order.sequence = sequence
        self.beats += 1
        self.old_run = 0
        self.heard_at = self.silent_from = now - age
        self.suspect_at = self.detector.beat(sent_ns, due_in_ns, interval_ns, now)
        self.progress = progress
        self.digest = digest
        if loop_gap_ns > self.loop_gap_now:
            self.loop_gap_now = loop_gap_ns
        return True

    def age_of(self, offset: int, now: int) -> int:
        """Time that a beat with `offset` (arrival less sending) spent on the way, beyond the least of a minute."""
        if now >= self.floor_turn:
            self.floor_turn = now + FLOOR_TURN_NS
            self.floor_before = self.floor_now
            self.floor_now = offset
            self.loop_gap_before, self.loop_gap_now = self.loop_gap_now, 0
        elif offset < self.floor_now:
            self.floor_now = offset
        floor = self.floor_now if self.floor_now < self.floor_before else self.floor_before
        return offset - floor

    @property
    def echo_proved(self) -> bool:
        """True when the echo port answered this leader in the node's present incarnation."""
        incarnation = self.order.incarnation
        return incarnation is not None and incarnation in (self.tcp_proved, self.udp_proved)

    def forget_offsets(self) -> None:
        """Another clock sends from now on: a new incarnation, or a host that slept."""
        self.floor_now = self.floor_before = _FAR
        self.floor_turn = 0
        self.old_run = 0

    @property
    def loop_gap_ns(self) -> int:
        """Largest loop gap that the agent reported in the last half to whole minute."""
        return max(self.loop_gap_now, self.loop_gap_before)
