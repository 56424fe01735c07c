"""The members of one leader, and the judgement of silence.

A verdict is made in two places only: `unusual` (something was heard) and `expire` (nothing was heard). Both return
`Change`s; the leader numbers them, keeps them and sends them. The order of states is that of `states.NEXT`.

Silence counts only while this observer was listening. For SUSPECT its own lag since the node was last heard is added
to the deadline (at most 3 s); for DEAD all of it; and after a stall of the loop nobody is judged before one interval
of good hearing has passed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

import msgspec

from .config import LeaderConfig
from .detector import make_detector
from .member import Member
from .messages import Evidence
from .observer import CREDIT_MAX_NS, OwnLag
from .order import Verdict
from .states import Cause, Kind, Liveness
from .units import SECOND, show_duration
from .wheel import Wheel

#: Until a node tells its interval.
INTERVAL_ASSUMED_NS = SECOND
#: An interval outside this is not believed: 10 ms floods, ten minutes watches nothing.
INTERVAL_MIN_NS = 10_000_000
INTERVAL_MAX_NS = 600 * SECOND
#: Beats that arrive old but spaced as they were sent, so many in a row, are no backlog: the sender's clock stood
#: still while its host slept. A backlog arrives in one burst.
OLD_RUN_MAX = 3
#: Two incarnations are told apart from a restart when the retired one beats again after this share of an interval.
DUPLICATE_SPACING = 2
#: Without a verdict, and yet something is heard; when that ends too, silence is judged as usual.
_UNCLEAR = (Cause.DUPLICATE_ID, Cause.INCOMPATIBLE)
#: A doubled identity is forgotten after this many intervals without the retired one.
DUPLICATE_HOLD = 10


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict that differs from the one before, or a restart of a node that stays alive."""

    member: Member
    kind: Kind
    before: Liveness
    after: Liveness
    cause: Cause | None
    evidence: Evidence


class Heard(enum.Enum):
    """What became of an unusual beat that changed no verdict; the value is the counter's name."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    STALE = "stale"
    OLD = "old"
    RETIRED = "retired"
    NOISY = "noisy"
    REFUSED = "malformed"


class Roster:
    """All nodes that one leader watches."""

    def __init__(self, config: LeaderConfig, lag: OwnLag, now: int) -> None:
        self._config = config
        self._lag = lag
        self._started = now
        self._wheel: Wheel[Member] = Wheel()
        self.members: dict[str, Member] = {}
        #: `Member.beat` of each node: the intake's short way to the table.
        self.takers: dict[str, Callable[..., bool]] = {}
        for nodes in config.racks.values():
            for node in nodes:
                self.add(node, now)

    # ---- membership --------------------------------------------------------------------------------------

    def add(self, node: str, now: int) -> Member:
        """Expect `node`; it is UNKNOWN(never-seen) until heard."""
        member = Member(node, make_detector(self._config.detector), INTERVAL_ASSUMED_NS, now)
        member.fresh_ns = INTERVAL_ASSUMED_NS + self._config.detector.margin_ns
        self.members[node] = member
        self.takers[node] = member.beat
        return member

    def remove(self, node: str) -> None:
        """Expect `node` no longer."""
        self.takers.pop(node, None)
        member = self.members.pop(node, None)
        if member is not None:
            member.queued_for = -1

    def reconfigure(self, config: LeaderConfig) -> None:
        """Judge by other settings from now on; a detector of another kind starts without a memory."""
        old, self._config = self._config, config
        for member in self.members.values():
            member.fresh_ns = member.interval_ns + config.detector.margin_ns
            if config.detector != old.detector:
                member.detector = make_detector(config.detector)

    def recall(
        self,
        node: str,
        liveness: Liveness,
        cause: Cause | None,
        incarnation: int | None,
        sequence: int,
        interval_ns: int,
        now: int,
    ) -> None:
        """Take up what an earlier life of this leader knew of `node`.

        A node that was alive gets `join_grace` from now, in which this observer really listens, to be heard; then
        silence has lasted long enough to be told, so that a death during the leader's restart is not lost.
        """
        member = self.members.get(node)
        if member is None:
            return
        member.liveness = liveness
        member.cause = cause
        if incarnation is not None:
            member.order.restore(incarnation, sequence, member.order.retired)
        self._adopt_interval(member, interval_ns)
        if liveness is Liveness.SUSPECT:
            member.liveness = Liveness.ALIVE
            member.cause = None
        if member.liveness is Liveness.ALIVE or member.cause in _UNCLEAR:
            member.silent_from = now
            member.suspect_at = now + self._dead_after(member) - self._silence_allowed(member)
            self._queue(member, member.suspect_at)

    # ---- something was heard -----------------------------------------------------------------------------

    def unusual(
        self,
        member: Member,
        incarnation: int,
        sequence: int,
        sent_ns: int,
        due_in_ns: int,
        interval_ns: int,
        loop_gap_ns: int,
        progress: int,
        digest: int,
        leaving: bool,
        now: int,
    ) -> Change | Heard:
        """Judge a beat that `Member.beat` left alone."""
        if member.beats >= member.beats_limit:
            return Heard.NOISY
        if not INTERVAL_MIN_NS <= interval_ns <= INTERVAL_MAX_NS or due_in_ns < 0:
            return Heard.REFUSED
        # Its own word for when it is due may not put off suspicion for longer than its interval.
        due_in_ns = min(due_in_ns, interval_ns)
        verdict = member.order.judge(incarnation, sequence)
        if verdict is Verdict.DUPLICATE:
            return Heard.DUPLICATE
        if verdict is Verdict.STALE:
            return Heard.STALE
        other_clock = verdict in (Verdict.RESTART, Verdict.RETIRED)
        if verdict is Verdict.RETIRED:
            retired = self._retired_beats(member, incarnation, sequence, now)
            if retired is not None:
                return retired
        member.beats += 1
        restarted = verdict is Verdict.RESTART
        if other_clock:
            member.retired_at = None
            member.detector.reset()
            member.forget_offsets()
        if leaving:
            return self._left(member, now)
        age = member.age_of(now - sent_ns, now)
        if age > member.fresh_ns and not other_clock and not self._slept(member, sent_ns, now):
            # It clears nothing, but when it was sent its node was alive.
            member.silent_from = max(member.silent_from, now - age)
            return Heard.OLD
        self._adopt_interval(member, interval_ns)
        age = max(0, min(age, member.fresh_ns))
        silent_ns = now - member.heard_at if member.heard_at is not None else None
        member.heard_at = member.silent_from = now - age
        member.incompatible = False
        member.left_at = None
        member.progress = progress
        member.digest = digest
        member.loop_gap_now = max(member.loop_gap_now, loop_gap_ns)
        member.suspect_at = member.detector.beat(sent_ns, due_in_ns, interval_ns, now)
        self._queue(member, member.suspect_at)
        if now < member.duplicate_until:
            return Heard.TAKEN
        return self._alive(member, restarted, silent_ns, now)

    def _adopt_interval(self, member: Member, interval_ns: int) -> None:
        if interval_ns != member.interval_ns:
            member.interval_ns = interval_ns
            member.fresh_ns = interval_ns + self._config.detector.margin_ns

    def _alive(self, member: Member, restarted: bool, silent_ns: int | None, now: int) -> Change | Heard:
        before = member.liveness
        if before is Liveness.SUSPECT:
            member.late += 1
        if restarted:
            kind, text = Kind.NODE_RESTARTED, "beats with a new incarnation: the agent was started again"
        elif before in (Liveness.SUSPECT, Liveness.DEAD):
            kind, text = Kind.NODE_RECOVERED, "beats again with the same incarnation"
        elif before is Liveness.ALIVE:
            return Heard.TAKEN
        else:
            kind = Kind.NODE_JOINED
            text = "first beat" if member.cause is Cause.NEVER_SEEN else "beats again"
        if silent_ns is not None and before is not Liveness.ALIVE:
            text += f" after {show_duration(silent_ns)} of silence"
        return self._change(member, kind, Liveness.ALIVE, None, text, silent_ns, now)

    def _slept(self, member: Member, sent_ns: int, now: int) -> bool:
        """True when an old beat is the latest of several that arrive as they were sent: the sender's clock stood."""
        arrived, sent = now - member.old_arrived_at, sent_ns - member.old_sent_ns
        member.old_run = member.old_run + 1 if member.old_run and arrived >= sent // 2 else 1
        member.old_arrived_at, member.old_sent_ns = now, sent_ns
        if member.old_run < OLD_RUN_MAX:
            return False
        member.forget_offsets()
        member.age_of(now - sent_ns, now)
        member.detector.reset()
        return True

    def _left(self, member: Member, now: int) -> Change | Heard:
        if member.liveness is Liveness.LEFT:
            return Heard.TAKEN
        member.heard_at = now
        member.left_at = now
        return self._change(member, Kind.NODE_LEFT, Liveness.LEFT, Cause.LEFT, "said goodbye", None, now)

    def farewell(self, member: Member, incarnation: int, sequence: int, now: int) -> Change | Heard:
        """The node said goodbye on the control path."""
        # An incarnation never met is one that was started and ended before a beat of it came.
        if member.order.judge(incarnation, sequence) is Verdict.RETIRED:
            return Heard.STALE
        return self._left(member, now)

    def _retired_beats(self, member: Member, incarnation: int, sequence: int, now: int) -> Change | Heard | None:
        """A retired incarnation was heard after its successor. Once may be a straggler; soon again is a second agent.

        None: its successor has been silent for so long that this is the only agent left, and its beat is news.
        """
        before, member.retired_at = member.retired_at, now
        hold = DUPLICATE_HOLD * member.interval_ns
        if before is None or now - before > hold:
            return Heard.RETIRED
        if now - before < member.interval_ns // DUPLICATE_SPACING:
            member.retired_at = before
            return Heard.RETIRED
        if member.cause is Cause.DUPLICATE_ID and (member.heard_at is None or now - member.heard_at > hold):
            order = member.order
            assert order.incarnation is not None
            order.restore(incarnation, sequence, (*order.retired, order.incarnation))
            member.duplicate_until = now
            return None
        member.duplicate_until = now + hold
        # One of the two is heard, so this is no silence.
        member.suspect_at = max(member.suspect_at, now + self._dead_after(member))
        if member.cause is Cause.DUPLICATE_ID:
            return Heard.RETIRED
        text = "two agents beat with this node's key: its key was copied to a second host"
        return self._change(member, Kind.NODE_UNKNOWN, Liveness.UNKNOWN, Cause.DUPLICATE_ID, text, None, now)

    def incompatible(self, member: Member, detail: str, now: int) -> Change | None:
        """The node speaks a protocol that this leader cannot read: no verdict is possible, and it is not dead."""
        member.incompatible = True
        member.silent_from = now
        member.suspect_at = now + self._dead_after(member)
        self._queue(member, member.suspect_at)
        if member.cause is Cause.INCOMPATIBLE:
            return None
        return self._change(
            member,
            Kind.NODE_UNKNOWN,
            Liveness.UNKNOWN,
            Cause.INCOMPATIBLE,
            f"speaks another protocol: {detail}",
            None,
            now,
        )

    # ---- nothing was heard -------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """When `expire` has something to look at."""
        return self._wheel.deadline()

    def expire(self, now: int) -> Iterable[Change]:
        """Judge everybody whose deadline has come. Sockets must have been drained before."""
        for member in self._wheel.due(now):
            if member.queued_for < 0 or member.queued_for > now:
                continue
            member.queued_for = 0
            if member.liveness is Liveness.ALIVE or member.cause in _UNCLEAR:
                yield from self._maybe_suspect(member, now)
            elif member.liveness is Liveness.SUSPECT:
                yield from self._maybe_dead(member, now)

    def _maybe_suspect(self, member: Member, now: int) -> Iterable[Change]:
        credit = self._lag.since(member.silent_from)
        if member.heard_at is not None:
            credit = min(CREDIT_MAX_NS, credit)
        at = max(member.suspect_at + credit, self._lag.hold_until)
        if now < at:
            self._queue(member, at)
            return
        silent = now - member.silent_from
        text = (
            f"no beat for {show_duration(silent)}; one was due every {show_duration(member.interval_ns)}"
            f" and may be {show_duration(member.detector.allowed_ns)} late"
        )
        if member.heard_at is None:
            listened = show_duration(now - self._started)
            text = f"known alive before this leader's start and not heard in the {listened} since"
        yield self._change(member, Kind.NODE_SUSPECT, Liveness.SUSPECT, Cause.SILENCE, text, silent, now, credit)
        self._queue(member, self._dead_at(member))

    def _maybe_dead(self, member: Member, now: int) -> Iterable[Change]:
        at = max(self._dead_at(member), self._lag.hold_until)
        if now < at:
            self._queue(member, at)
            return
        silent = now - member.silent_from
        credit = self._lag.since(member.silent_from)
        text = f"no beat for {show_duration(silent)}, {show_duration(self._dead_after(member))} are allowed"
        yield self._change(member, Kind.NODE_DEAD, Liveness.DEAD, Cause.SILENCE, text, silent, now, credit)

    def _silence_allowed(self, member: Member) -> int:
        return max(self._config.dead_after_intervals * member.interval_ns, self._config.dead_after_min_ns)

    def _dead_after(self, member: Member) -> int:
        """Silence that ends in DEAD: a node not yet heard in this life also gets the time to find this observer."""
        allowed = self._silence_allowed(member)
        return allowed if member.heard_at is not None else max(allowed, self._config.join_grace_ns)

    def _dead_at(self, member: Member) -> int:
        silence_ends = member.silent_from + self._dead_after(member) + self._lag.since(member.silent_from)
        return max(silence_ends, member.suspect_at)

    def _queue(self, member: Member, at: int) -> None:
        """Look at `member` at `at`, unless it is looked at before then anyway."""
        if member.queued_for == 0 or at < member.queued_for:
            member.queued_for = at
            self._wheel.add(member, at)

    # ---- the verdict -------------------------------------------------------------------------------------

    def _change(
        self,
        member: Member,
        kind: Kind,
        after: Liveness,
        cause: Cause | None,
        text: str,
        silent_ns: int | None,
        now: int,
        credit_ns: int | None = None,
    ) -> Change:
        evidence = Evidence(
            text=text,
            incarnation=member.order.incarnation,
            sequence=member.order.sequence,
            silent_ns=silent_ns,
            interval_ns=member.interval_ns,
            allowed_ns=member.detector.allowed_ns,
            lag_credit_ns=credit_ns,
            detector=member.detector.name,
            lost=member.order.lost,
            late=member.late,
        )
        before = member.liveness
        member.liveness = after
        member.cause = cause
        member.verdict = evidence
        if before is not after:
            member.since = now
        return Change(member=member, kind=kind, before=before, after=after, cause=cause, evidence=evidence)
