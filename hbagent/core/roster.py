"""The members of one leader, and the judgement of silence.

A verdict is made when something was heard (`unusual`, `proved`), when nothing was (`expire`), and when evidence about a
silent node came in (`weigh`). All return `Change`s; the leader numbers them, keeps them and sends them. The order of
states is that of `states.NEXT`.

Between "late" and "suspect" lies the doubt, in which `core.inquiry` asks. What it finds decides the cause, and the
cause decides how long silence is borne: a proved end none at all, a host without a sign an interval and half a second,
a stopped process half a minute, a node that others hear for ever. With no second path there is only the clock.

Silence counts only while this observer was listening. For SUSPECT its own lag since the node was last heard is added
to the deadline (at most 3 s); for DEAD all of it; and after a stall of the loop nobody is judged before one interval
of good hearing has passed.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterable

import msgspec

from .config import LeaderConfig
from .detector import make_detector
from .doubt import Doubt
from .gate import Gate
from .inquiry import Inquiry, Proof
from .member import AGED_NS, Member
from .messages import Evidence
from .observer import CREDIT_MAX_NS, OwnLag
from .order import Verdict
from .patience import Patience
from .states import Cause, Health, Kind, Liveness, Path
from .units import MILLISECOND, SECOND, show_duration
from .wheel import Wheel

#: Until a node tells its interval.
INTERVAL_ASSUMED_NS = SECOND
#: An interval outside this is not believed: 10 ms floods, ten minutes watches nothing.
INTERVAL_MIN_NS = 10_000_000
INTERVAL_MAX_NS = 600 * SECOND
#: Beats that look old and arrive spaced as they were sent, so many in a row, are no backlog: the sender's clock stood
#: still while its host slept. A backlog arrives in one burst. Should a network hold each of them up by as much, then
#: a death is seen so much later: with the last of them.
OLD_RUN_MAX = 3
#: Two incarnations are told apart from a restart when the retired one beats again after this share of an interval.
DUPLICATE_SPACING = 2
#: Without a verdict, and yet something is heard; when that ends too, silence is judged as usual.
_UNCLEAR = (Cause.DUPLICATE_ID, Cause.INCOMPATIBLE, Cause.RACK_DARK)
#: A doubled identity is forgotten after this many intervals without the retired one.
DUPLICATE_HOLD = 10
#: A silent node about which too little was asked is looked at again after this.
ASKED_AGAIN_NS = 100 * MILLISECOND
#: A node whose cause is known, or whose rack is dark, is looked at again after this, also when nothing comes in.
LOOK_AGAIN_NS = SECOND // 4
#: Whoever is still silent when his dark rack has come back is asked anew so long before he may be suspected.
ASK_ANEW_NS = SECOND
#: A node that answered so often in a row, while not one beat came, lives and is cut off in part.
ANSWERS_ALONE = 5
#: Causes told of one suspicion: a network that wavers must not tell without end.
TOLD_MAX = 6

_PATH_TEXT = {Path.CONTROL: "its control connection", Path.UDP: "its echo port, UDP", Path.TCP: "its echo port, TCP"}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict that differs from the one before, or a restart of a node that stays alive."""

    member: Member
    kind: Kind
    before: Liveness
    after: Liveness
    cause: Cause | None
    evidence: Evidence
    #: Of a health-changed: the node's health before, and number of the report that tells of it.
    health_before: Health | None = None
    report: int = 0


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

    def __init__(self, config: LeaderConfig, lag: OwnLag, now: int, rng: random.Random | None = None) -> None:
        self._config = config
        self._lag = lag
        self._started = now
        self._patience = Patience(config, lag)
        self._gates: dict[str, Gate] = {}
        #: The root cannot be reached: then silence of all may be this observer's own.
        self.alone = False
        #: Racks that are dark, and since when.
        self._dark: dict[str, int] = {}
        #: Silent members of each rack, as counted in this look, and racks that were looked at whether they are dark.
        self._silent: dict[str, int] = {}
        self._looked: dict[str, None] = {}
        #: How many members of each rack are called dark.
        self._darkness: dict[str, int] = {}
        self._wheel: Wheel[Member] = Wheel()
        self.members: dict[str, Member] = {}
        #: `Member.beat` of each node: the intake's short way to the table.
        self.takers: dict[str, Callable[..., bool]] = {}
        #: Whoever is in doubt is asked about here.
        self.inquiry = Inquiry(config, rng if rng is not None else random.Random(0), self.members)
        for nodes in config.racks.values():
            for node in nodes:
                self.add(node, now)

    # ---- membership --------------------------------------------------------------------------------------

    def add(self, node: str, now: int) -> Member:
        """Expect `node`; it is UNKNOWN(never-seen) until heard."""
        member = Member(node, make_detector(self._config.detector, self._lag.since), INTERVAL_ASSUMED_NS, now)
        member.fresh_ns = INTERVAL_ASSUMED_NS + self._config.detector.margin_ns
        self.members[node] = member
        self.takers[node] = member.beat
        if member.rack not in self._gates:
            config = self._config
            self._gates[member.rack] = Gate(config.gate_share, config.gate_min, config.gate_hold_ns)
        return member

    def remove(self, node: str, now: int) -> None:
        """Expect `node` no longer."""
        self.takers.pop(node, None)
        member = self.members.pop(node, None)
        if member is not None:
            member.queued_for = -1
            gate = self._gates[member.rack]
            gate.watched -= self._counts(member)
            self._darkness[member.rack] = self._darkness.get(member.rack, 0) - (member.cause is Cause.RACK_DARK)
            if member.doubt is not None:
                self.inquiry.end(member)
                gate.heard(node, now)

    def reconfigure(self, config: LeaderConfig) -> None:
        """Judge by other settings from now on; a detector of another kind starts without a memory."""
        old, self._config = self._config, config
        self._patience.config = config
        self.inquiry.reconfigure(config)
        for rack in [rack for rack in self._dark if rack not in config.racks]:
            del self._dark[rack]
        for member in self.members.values():
            member.fresh_ns = member.interval_ns + config.detector.margin_ns
            if config.detector != old.detector:
                member.detector = make_detector(config.detector, self._lag.since)

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
        gate = self._gates[member.rack]
        gate.watched -= self._counts(member)
        member.liveness = liveness
        member.cause = cause if cause is not None or liveness is Liveness.ALIVE else Cause.SILENCE
        if incarnation is not None:
            member.order.restore(incarnation, sequence, member.order.retired)
        self._adopt_interval(member, interval_ns)
        if liveness is Liveness.SUSPECT or cause is Cause.RACK_DARK:
            member.liveness = Liveness.ALIVE
            member.cause = None
        # It finds its way back some time in the next seconds, and says neither by that when it comes nor by that when
        # it does not whether its rack is silent.
        member.recalled = True
        if member.liveness is Liveness.ALIVE or member.cause in _UNCLEAR:
            member.silent_from = now
            member.suspect_at = now + self._patience.dead_after(member) - self._patience.silence_allowed(member)
            self._queue(member, member.suspect_at - member.detector.lead_ns)

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
        # Also of a beat that is too old to prove life: they go with the sequence.
        member.progress, member.digest = progress, digest
        restarted = verdict is Verdict.RESTART
        if other_clock:
            member.retired_at = None
            member.detector.reset()
            member.forget_offsets()
        if leaving:
            return self._left(member, now)
        age = member.age_of(now - sent_ns, now)
        if age <= AGED_NS:
            member.old_run = 0
        elif not other_clock and self._slept(member, sent_ns, age, now):
            age = 0
        if age > member.fresh_ns and not other_clock:
            # It clears nothing, but when it was sent its node was alive.
            member.silent_from = max(member.silent_from, now - age)
            return Heard.OLD
        if member.cause is Cause.PROCESS_EXIT and not other_clock and now - max(age, 0) <= member.since:
            # What a process had sent is delivered by its host's kernel, also after the process has ended.
            return Heard.OLD
        self._adopt_interval(member, interval_ns)
        member.answers = 0
        doubt = member.doubt
        # Beats have a connection of their own: the last one may arrive after the kernel told that the other is gone.
        last_words = doubt is not None and doubt.closed and not other_clock and now - max(age, 0) <= doubt.closed_at
        if doubt is not None and not last_words:
            self.inquiry.cleared += member.liveness is Liveness.ALIVE
            self._clear(member, now)
        member.judge_from = 0
        self._heard_again(member, now)
        age = max(0, min(age, member.fresh_ns))
        silent_ns = now - member.heard_at if member.heard_at is not None else None
        member.heard_at = member.silent_from = now - age
        member.incompatible = False
        member.left_at = None
        member.loop_gap_now = max(member.loop_gap_now, loop_gap_ns)
        member.suspect_at = member.detector.beat(sent_ns, due_in_ns, interval_ns, now)
        self._queue(member, member.suspect_at - member.detector.lead_ns)
        if now < member.duplicate_until or last_words:
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
            member.cause = None
            return Heard.TAKEN
        else:
            kind = Kind.NODE_JOINED
            text = "first beat" if member.cause is Cause.NEVER_SEEN else "beats again"
        if silent_ns is not None and before is not Liveness.ALIVE:
            text += f" after {show_duration(silent_ns)} of silence"
        return self._change(member, kind, Liveness.ALIVE, None, text, silent_ns, now)

    def _slept(self, member: Member, sent_ns: int, age: int, now: int) -> bool:
        """True when a beat that looks old is the latest of several that arrive as they were sent: the sender's clock
        stood still, for as long as they look older than they are."""
        arrived, sent = now - member.old_arrived_at, sent_ns - member.old_sent_ns
        member.old_run = member.old_run + 1 if member.old_run and arrived >= sent // 2 else 1
        member.old_arrived_at, member.old_sent_ns, member.old_age_ns = now, sent_ns, age
        if member.old_run < OLD_RUN_MAX:
            return False
        member.forget_offsets()
        member.age_of(now - sent_ns, now)
        member.detector.reset()
        return True

    def _left(self, member: Member, now: int) -> Change | Heard:
        if member.liveness is Liveness.LEFT:
            return Heard.TAKEN
        self._clear(member, now)
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
        member.suspect_at = max(member.suspect_at, now + self._patience.dead_after(member))
        if member.cause is Cause.DUPLICATE_ID:
            return Heard.RETIRED
        text = "two agents beat with this node's key: its key was copied to a second host"
        return self._change(member, Kind.NODE_UNKNOWN, Liveness.UNKNOWN, Cause.DUPLICATE_ID, text, None, now)

    def incompatible(self, member: Member, detail: str, now: int) -> Change | None:
        """The node speaks a protocol that this leader cannot read: no verdict is possible, and it is not dead."""
        member.incompatible = True
        self._clear(member, now)
        member.silent_from = now
        member.suspect_at = now + self._patience.dead_after(member)
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
        self._silent.clear()
        self._looked.clear()
        for member in self._wheel.due(now):
            if member.queued_for < 0 or member.queued_for > now:
                continue
            member.queued_for = 0
            if member.liveness is Liveness.ALIVE or member.cause in _UNCLEAR:
                yield from self._look(member, now)
            elif member.liveness is Liveness.SUSPECT:
                yield from self._maybe_dead(member, now)

    def disconnected(self, member: Member, now: int) -> None:
        """The kernel closed the node's control connection: ask at once. It convicts nobody by itself."""
        if not self._watches(member) or member.heard_at is None:
            return
        if member.doubt is None:
            doubt = self._doubt(member, now)
            self.inquiry.closed(member, doubt, now)
            self.inquiry.begin(member, doubt, now)
            self._queue(member, max(now, member.suspect_at))
        else:
            self.inquiry.closed(member, member.doubt, now)

    def hears_nobody(self) -> bool:
        """True when every watched node of some rack is silent."""
        return any(gate.late_count >= gate.watched > 0 for gate in self._gates.values())

    def mute(self, node: str, now: int) -> None:
        """A neighbour did not report back about another node: is it well itself?"""
        member = self.members.get(node)
        if member is not None and member.liveness is Liveness.ALIVE and member.doubt is None:
            self.inquiry.begin(member, self._doubt(member, now), now)
            self._queue(member, max(now, member.suspect_at))

    def proved(self, proof: Proof, now: int) -> Change | None:
        """The node answered a question: it lived when that was asked."""
        member = proof.member
        if member.doubt is None or proof.incarnation != member.order.incarnation:
            return None
        # Kept beside `silent_from`: a beat may still come that was sent before.
        member.answered_at = max(member.answered_at, proof.at)
        silent_ns = None if member.heard_at is None else now - member.heard_at
        asked_ns = now - proof.at
        if asked_ns > member.interval_ns:
            # It lived then, but has been silent since; the clock of its silence starts there.
            member.silent_from = max(member.silent_from, proof.at)
            return None
        if member.old_run and member.old_age_ns > member.fresh_ns:
            # Its beats come and look old, while it answers at once: its clock stood still.
            member.forget_offsets()
            member.detector.reset()
        if member.liveness is Liveness.ALIVE:
            self.inquiry.cleared += 1
        text = f"answered after {show_duration(asked_ns)} by {_PATH_TEXT[proof.path]}"
        member.doubt.step(now, text)
        self._clear(member, now)
        self._heard_again(member, now)
        member.heard_at = member.silent_from = max(proof.at, member.silent_from)
        # Never heard in this life of the leader, the detector knows of no beat that could be missing.
        known = silent_ns is not None
        member.suspect_at = (
            member.detector.answered(member.interval_ns, now) if known else now + self._patience.silence_allowed(member)
        )
        self._queue(member, member.suspect_at - member.detector.lead_ns)
        member.answers += 1
        if member.liveness is Liveness.ALIVE:
            if member.answers >= ANSWERS_ALONE:
                member.cause = Cause.LINK_CUT
            return None
        if member.cause in (Cause.DUPLICATE_ID, Cause.INCOMPATIBLE):
            return None
        member.late += member.liveness is Liveness.SUSPECT
        kind = Kind.NODE_JOINED if member.liveness is Liveness.UNKNOWN else Kind.NODE_RECOVERED
        if silent_ns is not None:
            text += f", after {show_duration(silent_ns)} of silence"
        return self._change(member, kind, Liveness.ALIVE, None, text, silent_ns, now)

    def weigh(self, member: Member, now: int) -> Iterable[Change]:
        """There is new evidence about a node in doubt."""
        doubt = member.doubt
        if doubt is None or not self._watches(member):
            return
        cause = doubt.cause(self._patience.fresh(member))
        if cause is Cause.PROCESS_EXIT:
            text = (
                f"its connection was closed and its host refuses port {member.echo_port}, where this life of it"
                " answered before: the agent has ended"
            )
            yield self._dead(member, cause, text, now)
        elif member.liveness is Liveness.SUSPECT:
            if cause is not member.cause and doubt.told < TOLD_MAX:
                yield self._suspect(member, cause, now, None)
            self._queue(member, now)

    # ---- doubt -------------------------------------------------------------------------------------------

    def _look(self, member: Member, now: int) -> Iterable[Change]:
        """A node that counts as alive is late."""
        credit = self._lag.since(member.silent_from)
        if member.heard_at is not None:
            credit = min(CREDIT_MAX_NS, credit)
        at = max(member.suspect_at + credit, self._lag.hold_until, member.judge_from)
        if member.doubt is None:
            doubt_at = at - member.detector.lead_ns
            if now < doubt_at:
                self._queue(member, doubt_at)
                return
            self.inquiry.begin(member, self._doubt(member, now), now)
        doubt = member.doubt
        assert doubt is not None
        anew_at = member.judge_from - ASK_ANEW_NS
        if member.judge_from and doubt.started_at < anew_at <= now:
            self.inquiry.ask_anew(member, doubt, now)
        if self._patience.may_be_gone(member, doubt):
            # Whoever was asked on paths that work need not be given the margin, which is for beats alone.
            at = min(at, max(self._patience.gone_at(member), self._lag.hold_until, member.judge_from))
        if self._config.detector.mistakes_per_day:
            # Nor may a margin that was learned put off what an operator has set.
            at = min(at, max(self._patience.silence_at(member), self._lag.hold_until, member.judge_from))
        if self._config.doubt:
            # After a burst of lateness the doubt may begin late; there is no suspicion without a chance to answer.
            at = max(at, doubt.started_at + self._config.pings * self._config.ping_spacing_ns)
        if now < at:
            signless_at = self._patience.signless_at(member)
            self._queue(member, min(at, signless_at if now < signless_at else now + ASKED_AGAIN_NS))
            return
        gate = self._gates[member.rack]
        held = gate.hold_until(now, member.interval_ns)
        dark = self._dark.get(member.rack)
        cause = doubt.cause(self._patience.fresh(member))
        if held or (dark is not None and cause is Cause.SILENCE):
            gone_at = self._patience.gone_at(member)
            if now >= gone_at:
                yield from self._darken(member.rack, now)
            if member.cause is Cause.RACK_DARK:
                self._queue(member, now + LOOK_AGAIN_NS)
                return
            if held or now < gone_at:
                self._queue(member, min(held or gone_at, gone_at) if now < gone_at else held)
                return
        yield self._suspect(member, cause, now, credit)
        self._queue(member, min(self._patience.gone_at(member), self._patience.silence_at(member)))

    def _doubt(self, member: Member, now: int) -> Doubt:
        self._count_in(member)
        doubt = member.doubt = Doubt(now, member.silent_from)
        if member.heard_at is not None:
            doubt.step(member.silent_from, f"beat {member.order.sequence} sent, the last that came")
            expected_at = member.suspect_at - member.detector.allowed_ns
            if expected_at <= now:
                doubt.step(expected_at, "the next was expected")
        self._gates[member.rack].late(member.name, now)
        return doubt

    def _clear(self, member: Member, now: int) -> None:
        """The node is heard, or judged for good: nothing is left to find out."""
        if member.doubt is None:
            return
        self.inquiry.end(member)
        member.doubt = None
        self._gates[member.rack].heard(member.name, now)

    def _suspect(self, member: Member, cause: Cause, now: int, credit: int | None) -> Change:
        doubt = member.doubt
        assert doubt is not None
        doubt.told += 1
        silent = now - member.silent_from
        if cause is Cause.PROCESS_FROZEN:
            text = f"no beat for {show_duration(silent)}; its kernel acknowledges questions, its agent does not answer"
        elif cause is Cause.LINK_CUT:
            text = f"no beat for {show_duration(silent)} here, but {doubt.elsewhere} has proof that it lives"
        elif member.heard_at is None:
            listened = show_duration(now - self._started)
            text = f"known alive before this leader's start and not heard in the {listened} since"
        else:
            text = (
                f"no beat for {show_duration(silent)}; one was due every {show_duration(member.interval_ns)}"
                f" and may be {show_duration(member.detector.allowed_ns)} late"
            )
        return self._change(member, Kind.NODE_SUSPECT, Liveness.SUSPECT, cause, text, silent, now, credit)

    # ---- death -------------------------------------------------------------------------------------------

    def _maybe_dead(self, member: Member, now: int) -> Iterable[Change]:
        doubt = member.doubt
        assert doubt is not None
        cause = doubt.cause(self._patience.fresh(member))
        if cause is not member.cause and doubt.told < TOLD_MAX:
            yield self._suspect(member, cause, now, None)
        if cause is Cause.LINK_CUT:
            self._queue(member, now + LOOK_AGAIN_NS)
            return
        if cause is Cause.PROCESS_FROZEN:
            at = member.silent_from + self._config.dead_after_ns + self._lag.since(member.silent_from)
            if now < at:
                self._queue(member, min(at, now + LOOK_AGAIN_NS))
                return
            text = f"its kernel acknowledges, its agent has not answered for {show_duration(now - member.silent_from)}"
            yield self._dead(member, cause, text, now)
            return
        yield from self._maybe_silent(member, doubt, now)

    def _maybe_silent(self, member: Member, doubt: Doubt, now: int) -> Iterable[Change]:
        """Nobody has a sign of the node any more."""
        gone_at, silence_at = self._patience.gone_at(member), self._patience.silence_at(member)
        at = max(self._lag.hold_until, min(gone_at, silence_at), doubt.judge_from)
        gone = now >= gone_at and self._patience.may_be_gone(member, doubt)
        if doubt.neighbours and not doubt.replies and now < gone_at + member.interval_ns:
            # Neighbours that do not even report back are perhaps in the same trouble; they are being asked.
            gone = False
        if now < at or not (gone or now >= silence_at):
            self._queue(member, at if now < at else min(silence_at, now + ASKED_AGAIN_NS))
            return
        gate = self._gates[member.rack]
        if self.alone and gate.late_count >= gate.watched:
            self._queue(member, now + LOOK_AGAIN_NS)
            return
        held = gate.hold_until(now, member.interval_ns)
        yield from self._darken(member.rack, now)
        if member.liveness is not Liveness.SUSPECT:
            self._queue(member, now + LOOK_AGAIN_NS)
            return
        held = held or gate.brake(self._silent_in(member.rack, now), now, self._patience.silence_allowed(member))
        if held:
            self._queue(member, held)
            return
        silent = show_duration(now - member.silent_from)
        if gone:
            signless = show_duration(now - self._patience.last_sign(member))
            text = (
                f"nothing on any path for {signless}: no beat, no acknowledgement by its kernel, no answer to"
                f" {doubt.unanswered} questions from here and {doubt.helpers} through others"
            )
            yield self._dead(member, Cause.HOST_GONE, text, now)
            return
        text = f"no beat for {silent}, {show_duration(self._patience.dead_after(member))} are allowed"
        if self._config.doubt:
            text += f"; {self._patience.why_silence(member, doubt)}"
        yield self._dead(member, Cause.SILENCE, text, now)

    def _dead(self, member: Member, cause: Cause, text: str, now: int) -> Change:
        silent, credit = now - member.silent_from, self._lag.since(member.silent_from)
        if member.rack in self._silent and cause in (Cause.SILENCE, Cause.HOST_GONE):
            # It is watched no longer either: those who are left must not look like more of the rack than they are.
            self._silent[member.rack] -= 1
        change = self._change(member, Kind.NODE_DEAD, Liveness.DEAD, cause, text, silent, now, credit)
        self._clear(member, now)
        return change

    # ---- the rack ----------------------------------------------------------------------------------------

    def dark_ns(self, rack: str, now: int) -> int | None:
        """For how long `rack` has been dark; None when it is not."""
        since = self._dark.get(rack)
        return None if since is None else now - since

    def _darken(self, rack: str, now: int) -> Iterable[Change]:
        """Most of the rack has been silent for so long that each would be called dead: it is the rack. With them go
        those who are missed by now: their last beats came a little later in the same interval."""
        if rack in self._looked:
            # A rack of thousands falls silent in one look: to go through all of it for each was seconds.
            return
        self._looked[rack] = None
        silent = self._silent_in(rack, now)
        watched = self._gates[rack].watched
        if rack not in self._dark:
            if silent < self._config.gate_min or silent < self._config.dark_share * watched:
                return
            self._dark[rack] = now
        members = [self.members[node] for node in self._config.racks[rack]]
        going = [member for member in members if self._is_silent(member, now) or self._is_missed(member, now)]
        text = f"{len(going)} of {watched} nodes of {rack} have fallen silent together"
        for member in going:
            if member.cause is not Cause.RACK_DARK:
                silent_ns = now - member.silent_from
                yield self._change(member, Kind.NODE_UNKNOWN, Liveness.UNKNOWN, Cause.RACK_DARK, text, silent_ns, now)
                self._queue(member, now + LOOK_AGAIN_NS)

    def _lighten(self, rack: str, now: int) -> None:
        """Somebody of a dark rack was heard. Who is not gets time to find its way back, and is asked anew before it is
        judged alone."""
        if rack not in self._dark or self._darkness[rack] >= self._config.dark_share * self._gates[rack].watched:
            return
        del self._dark[rack]
        members = [self.members[node] for node in self._config.racks[rack]]
        for member in (member for member in members if member.cause is Cause.RACK_DARK):
            member.judge_from = now + self._config.gate_hold_ns
            self._queue(member, member.judge_from - ASK_ANEW_NS)

    def _silent_in(self, rack: str, now: int) -> int:
        """How many of the rack would be called dead by silence now; counted once a look."""
        count = self._silent.get(rack)
        if count is None:
            nodes = self._config.racks.get(rack, ())
            count = self._silent[rack] = sum(self._is_silent(self.members[node], now) for node in nodes)
        return count

    def _is_silent(self, member: Member, now: int) -> bool:
        doubt = member.doubt
        if doubt is None or not self._watches(member):
            return False
        return doubt.cause(self._patience.fresh(member)) is Cause.SILENCE and now >= self._patience.gone_at(member)

    def _is_missed(self, member: Member, now: int) -> bool:
        """True for a node in doubt that had its chance to answer, and of which nobody has a sign."""
        doubt = member.doubt
        if doubt is None or not self._watches(member) or now < self._lag.hold_until:
            return False
        asked_ns = self._config.pings * self._config.ping_spacing_ns
        return doubt.cause(self._patience.fresh(member)) is Cause.SILENCE and now >= doubt.started_at + asked_ns

    def _counts(self, member: Member) -> bool:
        """True for a node that is one of its rack: of those that are watched, who may be missed."""
        return self._watches(member) and not member.recalled

    def _count_in(self, member: Member) -> None:
        """A node that an earlier life knew has been heard, or is missed by now."""
        if member.recalled:
            member.recalled = False
            self._gates[member.rack].watched += self._watches(member)

    def _heard_again(self, member: Member, now: int) -> None:
        """It is heard for the first time in this life: of more who live, fewer are silent."""
        if member.recalled:
            self._count_in(member)
            self._lighten(member.rack, now)

    def _watches(self, member: Member) -> bool:
        """True for a node whose silence is news."""
        return member.liveness in (Liveness.ALIVE, Liveness.SUSPECT) or member.cause is Cause.RACK_DARK

    def _queue(self, member: Member, at: int) -> None:
        """Look at `member` at `at`, unless it is looked at before then anyway."""
        # 0 and less mean something else in `queued_for`.
        at = max(at, 1)
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
            steps=member.doubt.story() if member.doubt is not None else (),
        )
        before = member.liveness
        self._count_in(member)
        gate = self._gates[member.rack]
        gate.watched -= self._watches(member)
        was_dark = member.cause is Cause.RACK_DARK
        member.liveness = after
        member.cause = cause
        gate.watched += self._watches(member)
        dark = cause is Cause.RACK_DARK
        self._darkness[member.rack] = self._darkness.get(member.rack, 0) + dark - was_dark
        member.verdict = evidence
        if before is not after:
            member.since = now
        if was_dark and not dark:
            self._lighten(member.rack, now)
        return Change(member=member, kind=kind, before=before, after=after, cause=cause, evidence=evidence)
