"""LeaderCore: beats in, verdicts out.

Its roster judges; this file numbers the verdicts, keeps them in a journal, sends them to the root until they are
acknowledged, and tells the full state of each rack once a second. The journal serves two things at once: what the
root has not got yet, and what this leader knew of its nodes, should it be started again.

A transition is sent and written to the journal at the same moment, not one after the other. If the process dies in
between, either the root has it, or nobody has and the next life of this leader reaches the same verdict from the
kept state; the epoch in front of its number keeps the two apart. So a slow disk delays no alarm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec

from . import drills
from .accounts import Accounts
from .bundles import Bundle, Bundles, bundle_of, too_many
from .config import LeaderConfig
from .effects import Answer, Effect, Effects, Exit, Happened, Note, Publish, Send
from .inquiry import Proof
from .leadercells import LeaderCells
from .leaderviews import brief_view, cells_view, explain_view, status_view
from .member import Member
from .memory import Entry, Memory, acknowledged_entry, verdict_entry
from .messages import (
    Account,
    Admission,
    Answered,
    Disconnected,
    DrillBegun,
    DrillWanted,
    EvidencePage,
    EvidenceWanted,
    Farewell,
    FarewellAck,
    HeardWanted,
    Hello,
    KeepFailed,
    Kept,
    LastHeard,
    LeaderStats,
    Linked,
    Located,
    NodeReport,
    NodeRow,
    Ping,
    Pong,
    Query,
    RackReports,
    RackSummary,
    Reconfigured,
    Refused,
    Relayed,
    Report,
    ReportWanted,
    Suspended,
    Terminate,
    Transition,
    TransitionsAck,
    WallTime,
)
from .observer import PAUSE_MIN_NS, OwnLag
from .outbox import Outbox
from .refusals import Refusals
from .roster import Change, Heard, Roster
from .states import Kind, Liveness
from .units import MINUTE, SECOND, show_duration
from .views import EvidenceView
from .vigil import known_health
from .wallclock import WallClock
from .weighing import is_there, look_at, weigh

#: Verdicts remembered per node for `explain`, and as many changes of its health.
STORY_LENGTH = 10
#: What was learned of each node's lateness is written down this often, and when the leader ends.
REMEMBER_NS = 10 * MINUTE
#: Why an agent is not admitted, for its log. The wire refuses more than 256 characters.
REASON_LENGTH_MAX = 250
#: Transitions that say nothing of whether a node lives.
_OF_OTHER_AXES = (Kind.NODE_ACCOUNTED, Kind.HEALTH_CHANGED)


class LeaderCore:
    """One rack leader. Call `wake` no later than `deadline`, after all sockets have been drained."""

    def __init__(self, config: LeaderConfig, rng: random.Random, now: int, kept: Iterable[Entry] = ()) -> None:
        self._config = config
        self._rng = rng
        self.started = now
        self.epoch = rng.getrandbits(63)
        self._number = 0
        self.wall = WallClock()
        self._lag = OwnLag()
        self.roster = Roster(config, self._lag, now, rng)
        self.inquiry = self.roster.inquiry
        self._members = self.roster.members
        self._outbox = Outbox(config.outbox_max, self.epoch)
        self.memory = Memory(self._members, self._outbox)
        self._resend_at: int | None = None
        self._tick_at = now + config.tick_ns
        self._count_at = self._allow_at = now
        self._summary_number = 0
        self._summarized_at = now
        racks = list(config.racks)
        step = config.summary_interval_ns // max(1, len(racks))
        self._summary_at = {rack: now + step * index for index, rack in enumerate(racks)}
        self._summary_next = now
        self._reports_due: dict[str, dict[str, int]] = {rack: {} for rack in racks}
        self._reports_all_at = dict.fromkeys(racks, now + config.report_interval_ns)
        self._accounts = Accounts(self._members)
        self._remember_at = now + REMEMBER_NS
        #: Evidence bundles under way from agents.
        self._bundles = Bundles(self.epoch)
        self._drills = drills.Drills(self.epoch, drills.LEADER_TIME_NS)
        self._beats_seen = 0
        self._stalls = 0
        self._suspended_ns = 0
        self._stories: dict[str, list[Transition]] = {}
        self.cells = LeaderCells(self.epoch)
        self.beats = 0
        self._refusals = Refusals()
        #: What was refused, by reason.
        self.refused = self._refusals.counts
        self._root_linked = False
        self._done = False
        self._first: list[Effect] = []
        self._restore(kept, now)

    # ---- the crank ---------------------------------------------------------------------------------------

    def beat(
        self,
        sender: str,
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
    ) -> Effects:
        """One beat of the authenticated `sender`; the fields of `messages.Beat`, not yet made an object."""
        member = self._members.get(sender)
        if member is None:
            return self._refuse(sender, "unexpected-node", now)
        if not leaving and member.beat(
            incarnation, sequence, sent_ns, due_in_ns, interval_ns, loop_gap_ns, progress, digest, now
        ):
            return ()
        if member.beats >= member.beats_limit and now >= self._allow_at:
            # This loop stood still, and what waited meanwhile is no flood; the newest of it shows who is alive.
            self._allow_beats(now)
        outcome = self.roster.unusual(
            member, incarnation, sequence, sent_ns, due_in_ns, interval_ns, loop_gap_ns, progress, digest, leaving, now
        )
        if isinstance(outcome, Change):
            return self._tell((outcome,), now)
        return () if outcome is Heard.TAKEN else self._refuse(sender, outcome.value, now)

    def receive(self, sender: str, message: object, now: int) -> Effects:
        """Something else arrived from the authenticated `sender`, or from the driver itself ("")."""
        handler = self._HANDLERS.get(type(message))
        if handler is None:
            return self._refuse(sender, "unexpected-type", now)
        effects: Effects = handler(self, sender, message, now)
        return (*effects, *self.inquiry.take()) if self.inquiry.effects else effects

    def wake(self, now: int) -> Effects:
        """The deadline came, and all sockets have been drained."""
        if self._done:
            return ()
        effects: list[Effect] = self._first
        self._first = []
        if now >= self._tick_at:
            self._tick(now, effects)
        judged = self.roster.deadline()
        if judged is not None and now >= judged:
            effects.extend(self._tell(self.roster.expire(now), now))
        asking = self.inquiry.deadline()
        if asking is not None and now >= asking:
            for node in self.inquiry.wake(now):
                self.roster.mute(node, now)
        effects.extend(self.inquiry.take())
        if now >= self._summary_next:
            self._summaries(now, effects)
        if self._resend_at is not None and now >= self._resend_at:
            self._resend_at = None
            self._outbox.rewind()
            effects.extend(self._send_outbox(now))
        again = self.memory.retry(now)
        if again is not None:
            effects.append(again)
        if self._bundles.under_way:
            effects.extend(map(self._fetched, self._bundles.expired(now)))
        if self._drills.under_way:
            late = self._drills.expired(now)
            effects.extend(self._drill_answer(errand, drills.unanswered(errand)) for errand in late)
        return tuple(effects)

    def deadline(self) -> int | None:
        """When `wake` wants to be called."""
        if self._done:
            return None
        at = min(self._tick_at, self._summary_next)
        judged = self.roster.deadline()
        if judged is not None and judged < at:
            at = judged
        asking = self.inquiry.deadline()
        if asking is not None and asking < at:
            at = asking
        if self._resend_at is not None and self._resend_at < at:
            at = self._resend_at
        if self._bundles.under_way or self._drills.under_way:
            given_up = (self._bundles.deadline(), self._drills.deadline())
            at = min([at, *(due for due in given_up if due is not None)])
        return at

    def lagged(self, now: int) -> Effects:
        """The loop comes back from a pause, and nothing is drained yet: what waits there is not late by itself."""
        effects: list[Effect] = []
        if now - self._tick_at > PAUSE_MIN_NS:
            self._tick(now, effects)
        return tuple(effects)

    # ---- own lag -----------------------------------------------------------------------------------------

    def _tick(self, now: int, effects: list[Effect]) -> None:
        lag = self._lag.tick(self._tick_at, now)
        self._tick_at = now + self._config.tick_ns
        longest = self._longest() if lag > PAUSE_MIN_NS else 0
        if longest and lag > longest // 2:
            self._stalls += 1
            self._lag.hold(now + longest + self._config.detector.margin_ns)
            effects.append(
                Note("warning", "stalled", {"lag": show_duration(lag), "judging_in": show_duration(longest)})
            )

    def _longest(self) -> int:
        return max((member.interval_ns for member in self._members.values()), default=SECOND)

    def _suspended(self, sender: str, message: Suspended, now: int) -> Effects:
        """This host was suspended. No lag shows it, and yet nobody could be heard: connections may be gone as well."""
        self._suspended_ns += message.suspended_ns
        self._lag.hold(now + self._longest() + self._config.detector.margin_ns)
        return (Note("warning", "suspended", {"for": show_duration(message.suspended_ns)}),)

    # ---- asking ------------------------------------------------------------------------------------------

    def _located(self, sender: str, located: Located, now: int) -> Effects:
        member = self._members.get(located.peer)
        if member is not None and member.address != located.address:
            member.address = located.address
            member.tcp_proved = member.udp_proved = None
        return ()

    def _disconnected(self, sender: str, lost: Disconnected, now: int) -> Effects:
        member = self._members.get(lost.peer)
        if member is not None:
            self.roster.disconnected(member, now)
        return ()

    def _answered(self, sender: str, answered: Answered, now: int) -> Effects:
        proof = self.inquiry.answered(answered, now)
        if proof is not None:
            return self._proved(proof, now)
        member = self._members.get(answered.peer)
        return self._tell(self.roster.weigh(member, now), now) if member is not None else ()

    def _pong(self, sender: str, pong: Pong, now: int) -> Effects:
        proof = self.inquiry.pong(sender, pong)
        return self._proved(proof, now) if proof is not None else ()

    def _proved(self, proof: Proof, now: int) -> Effects:
        change = self.roster.proved(proof, now)
        return self._tell((change,), now) if change is not None else ()

    def _relayed(self, sender: str, relayed: Relayed, now: int) -> Effects:
        member = self.inquiry.relayed(sender, relayed, now)
        return self._tell(self.roster.weigh(member, now), now) if member is not None else ()

    def _last_heard(self, sender: str, heard: LastHeard, now: int) -> Effects:
        if sender not in self._config.peers:
            return self._refuse(sender, "forged-id", now)
        member = self.inquiry.last_heard(sender, heard, now)
        return self._tell(self.roster.weigh(member, now), now) if member is not None else ()

    def _heard_wanted(self, sender: str, wanted: HeardWanted, now: int) -> Effects:
        if sender not in self._config.peers:
            return self._refuse(sender, "forged-id", now)
        member = self._members.get(wanted.node)
        if member is None or member.heard_at is None:
            return (Send(sender, LastHeard(number=wanted.number, node=wanted.node)),)
        heard = LastHeard(
            number=wanted.number,
            node=wanted.node,
            age_ns=now - member.heard_at,
            incarnation=member.order.incarnation,
            sequence=member.order.sequence,
        )
        return (Send(sender, heard),)

    def _ping(self, sender: str, ping: Ping, now: int) -> Effects:
        """The root asks whether this loop still turns."""
        if sender != self._config.root:
            return self._refuse(sender, "forged-id", now)
        return (Send(sender, Pong(number=ping.number, incarnation=self.epoch, sequence=0)),)

    # ---- accounts ----------------------------------------------------------------------------------------

    def _account(self, sender: str, account: Account, now: int) -> Effects:
        change = self._accounts.take(sender, account)
        return self._tell((change,), now) if change is not None else ()

    # ---- verdicts ----------------------------------------------------------------------------------------

    def _tell(self, changes: Iterable[Change], now: int) -> Effects:
        effects: list[Effect] = []
        entries: list[Entry] = []
        news = tuple(changes)
        for change in news:
            transition = self._transition(change, now)
            self._accounts.want(change)
            self._outbox.add(self.epoch, transition)
            entries.append(verdict_entry(self.epoch, transition))
            self._remember(transition)
            effects.append(_happened(transition))
        if not entries:
            return ()
        effects.append(self.memory.keep(entries))
        effects.extend(self._send_outbox(now))
        if any(change.kind is Kind.NODE_RECOVERED for change in news):
            effects.extend(self._accounts.ask())
        return tuple(effects)

    def _remember(self, transition: Transition) -> None:
        """For `explain`. A probe that wavers must not push out why the node was called dead."""
        story = self._stories.setdefault(transition.node, [])
        story.append(transition)
        axis = transition.kind is Kind.HEALTH_CHANGED
        same = [at for at, old in enumerate(story) if (old.kind is Kind.HEALTH_CHANGED) is axis]
        if len(same) > STORY_LENGTH:
            del story[same[0]]

    def _transition(self, change: Change, now: int) -> Transition:
        member = change.member
        self._number += 1
        if change.kind not in _OF_OTHER_AXES:
            member.version = self._number
        return Transition(
            number=self._number,
            node=member.name,
            kind=change.kind,
            before=change.before,
            after=change.after,
            cause=change.cause,
            evidence=change.evidence,
            incarnation=member.order.incarnation,
            sequence=member.order.sequence,
            at_wall_ns=self.wall.at(now),
            at_mono_ns=now,
            health_before=member.health if change.health_before is None else change.health_before,
            health_after=member.health,
            report=change.report,
        )

    def _send_outbox(self, now: int) -> Effects:
        if not self._root_linked:
            return ()
        messages = self._outbox.take()
        if messages or self._outbox.waiting():
            self._resend_at = self._resend_at or now + self._config.resend_ns
        # After a pause of this process its lease may be over, and the next summary not be sent yet.
        paused = messages and now - self._summarized_at > 2 * self._config.summary_interval_ns
        first = self._summaries_first(now) if paused else []
        sent = (msgspec.structs.replace(message, sent_mono_ns=now) for message in messages)
        return (*first, *(Send(self._config.root, message) for message in sent))

    def _summaries_first(self, now: int) -> list[Send]:
        """The root hears nobody without a lease, and summaries, which take it, have a connection of their own: on this
        one they come before all else."""
        return [Send(self._config.root, self._next_summary(rack, now)) for rack in self._config.racks]

    def _acknowledged(self, sender: str, ack: TransitionsAck, now: int) -> Effects:
        if sender != self._config.root:
            return self._refuse(sender, "forged-id", now)
        if not self._outbox.acknowledge(ack.epoch, ack.number):
            return ()
        self._resend_at = now + self._config.resend_ns if self._outbox.waiting() else None
        return (self.memory.keep([acknowledged_entry(ack.epoch, ack.number)]),)

    def _linked(self, sender: str, link: Linked, now: int) -> Effects:
        if link.peer != self._config.root:
            return ()
        was, self._root_linked = self._root_linked, link.up
        if link.up and self.roster.alone and self.roster.hears_nobody():
            # Cut off together with its root, perhaps: what the nodes say by now comes first.
            self._lag.hold(now + self._longest() + self._config.detector.margin_ns)
        self.roster.alone = not link.up
        if link.refused:
            return (Note("error", "root-refused-our-key", {"root": link.peer}),)
        if not link.up:
            self._resend_at = None
            return (Note("warning", "root-link-lost", {"root": link.peer}),) if was else ()
        self._outbox.rewind()
        # It may be another life of the root, which has none of the reports.
        soon = now + self._config.summary_interval_ns
        self._reports_all_at = {rack: min(at, soon) for rack, at in self._reports_all_at.items()}
        note = Note("info", "root-linked", {"root": link.peer})
        return (note, *self._summaries_first(now), *self._send_outbox(now))

    # ---- journal -----------------------------------------------------------------------------------------

    def _restore(self, kept: Iterable[Entry], now: int) -> None:
        """Take up an earlier life: what each node was, and what the root has not acknowledged."""
        recalled = self.memory.restore(kept)
        if recalled.damaged:
            self.refused["kept"] = recalled.damaged
        for node, history in recalled.histories.items():
            if node in self._members:
                self._members[node].detector.recall(history)
        for node, state in recalled.nodes.items():
            self.roster.recall(
                node, state.liveness, state.cause, state.incarnation, state.sequence, state.interval_ns, now
            )
        self._first.append(self.memory.rewrite())

    def _kept(self, sender: str, kept: Kept, now: int) -> Effects:
        return (Note("info", "journal-works-again", {}),) if self.memory.kept() else ()

    def _keep_failed(self, sender: str, failed: KeepFailed, now: int) -> Effects:
        first = self.memory.failed(failed.reason, now)
        return (Note("error", "journal-failed", {"reason": failed.reason}),) if first else ()

    # ---- summaries ---------------------------------------------------------------------------------------

    def _summaries(self, now: int, effects: list[Effect]) -> None:
        config = self._config
        if now >= self._count_at:
            self._count_at = now + SECOND
            self._allow_beats(now)
            effects.extend(self._missing_reports())
            effects.extend(self._tell(look_at(self._members.values()), now))
            effects.extend(self._accounts.ask())
            beats = sum(member.beats for member in self._members.values())
            self.inquiry.refill(beats - self._beats_seen)
            self._beats_seen = beats
        if now >= self._remember_at:
            self._remember_at = now + REMEMBER_NS
            effects.append(self.memory.rewrite())
        for rack, at in self._summary_at.items():
            if now < at:
                continue
            self._summary_at[rack] = max(at + config.summary_interval_ns, now)
            effects.append(Publish(self._next_summary(rack, now)))
            reports = self._reports(rack, now)
            if reports is not None:
                effects.append(Publish(reports))
        self._summary_next = min(self._summary_at.values(), default=now + config.summary_interval_ns)

    def _allow_beats(self, now: int) -> None:
        """Once a second: each node may send so many beats until the next, and as many for each second missed."""
        factor = self._config.noisy_factor
        times = 1 + max(0, now - self._allow_at) // SECOND
        self._allow_at = now + SECOND
        for member in self._members.values():
            member.beats_limit = member.beats + times * max(20, factor * SECOND // member.interval_ns)

    def _missing_reports(self) -> Iterable[Send]:
        """Ask living nodes whose newest report did not arrive: their beats carry its digest."""
        for member in self._members.values():
            have = member.report.digest if member.report is not None else 0
            if member.digest != have and member.liveness is Liveness.ALIVE:
                yield Send(member.name, ReportWanted(have=have))

    def _next_summary(self, rack: str, now: int) -> RackSummary:
        self._summary_number += 1
        self._summarized_at = now
        return RackSummary(
            rack=rack,
            epoch=self.epoch,
            number=self._summary_number,
            newest=self._number,
            nodes=tuple(self._row(self._members[node], now) for node in self._config.racks[rack]),
            stats=self.stats(now),
            dark_ns=self.roster.dark_ns(rack, now),
        )

    def _row(self, member: Member, now: int) -> NodeRow:
        heard_at, weighed = member.heard_at, member.weighed
        sequence = member.order.sequence
        if member.liveness is Liveness.DEAD and member.verdict is not None:
            # What trickles in too late to prove anything must not outweigh what another leader has heard meanwhile.
            sequence = member.verdict.sequence or 0
        return NodeRow(
            node=member.short,
            liveness=member.liveness,
            cause=member.cause,
            health=known_health(member),
            since_ns=now - member.since,
            age_ns=None if heard_at is None else now - heard_at,
            incarnation=member.order.incarnation,
            sequence=sequence,
            version=member.version,
            lost=member.order.lost,
            late=member.late,
            loop_gap_ns=member.loop_gap_ns,
            margin_ns=member.detector.margin_ns,
            report=weighed.number if weighed is not None and weighed.incarnation == member.order.incarnation else 0,
        )

    @property
    def config(self) -> LeaderConfig:
        """The settings that are in force."""
        return self._config

    @property
    def folded(self) -> int:
        """Verdicts that this life has folded away, for the root was away and its outbox was full."""
        return self._outbox.dropped

    def stats(self, now: int) -> LeaderStats:
        """This leader's account of itself."""
        return LeaderStats(
            uptime_ns=now - self.started,
            lag_max_ns=self._lag.lag_max_ns,
            beats=sum(member.beats for member in self._members.values()),
            refused=dict(self.refused),
            doubts=self.inquiry.doubts,
            asked=self.inquiry.asked,
            cleared=self.inquiry.cleared,
            stalls=self._stalls,
            suspended_ns=self._suspended_ns,
            outbox=len(self._outbox),
            degraded=self.memory.degraded,
            version=self._config.version,
        )

    def _reports(self, rack: str, now: int) -> RackReports | None:
        due = self._reports_due[rack]
        if now >= self._reports_all_at[rack]:
            self._reports_all_at[rack] = now + self._config.report_interval_ns
            due.update((node, 0) for node in self._config.racks[rack])
        reports = []
        for node in due:
            member = self._members.get(node)
            if member is not None and member.report is not None:
                age_ns = now - member.report_at
                reports.append(
                    NodeReport(node=member.short, report=member.report, age_ns=age_ns, version=member.agent_version)
                )
        due.clear()
        return RackReports(rack=rack, epoch=self.epoch, reports=tuple(reports)) if reports else None

    # ---- what agents say beside beats --------------------------------------------------------------------

    def _report(self, sender: str, report: Report, now: int) -> Effects:
        member = self._members.get(sender)
        if member is None:
            return self._refuse(sender, "unexpected-node", now)
        if member.order.incarnation is not None and report.incarnation in member.order.retired:
            return self._refuse(sender, "stale", now)
        old = member.report
        if old is not None and old.incarnation == report.incarnation and report.number < old.number:
            return self._refuse(sender, "stale", now)
        member.report = report
        member.report_at = now
        self._reports_due[member.rack][sender] = 0
        return self._tell(weigh(member), now)

    # ---- evidence ----------------------------------------------------------------------------------------

    def _evidence_wanted(self, sender: str, wanted: EvidenceWanted, now: int) -> Effects:
        """The root wants a bundle of a node."""
        if sender != self._config.root:
            return self._refuse(sender, "forged-id", now)
        return self._ask_evidence(sender, wanted.number, wanted, now)

    def _ask_evidence(self, asker: str, number: int, wanted: EvidenceWanted, now: int) -> Effects:
        error = self._why_not(wanted.node)
        fetch = None if error else self._bundles.begin(wanted.node, wanted.node, asker, number, now)
        if fetch is None:
            return (self._no_evidence(asker, number, wanted.node, error or too_many()),)
        fetch.wanted = asker != self._config.root
        return (Send(wanted.node, msgspec.structs.replace(wanted, number=fetch.number)),)

    def _why_not(self, node: str) -> str:
        """Why a node cannot be asked for evidence; "" when it can."""
        member = self._members.get(node)
        if member is None:
            return f"no node {node!r} in {', '.join(self._config.racks)}"
        if not is_there(member):
            return f"{node} is {member.liveness.value}: it cannot be asked"
        return ""

    def _evidence_page(self, sender: str, page: EvidencePage, now: int) -> Effects:
        fetch = self._bundles.take(sender, page)
        if fetch is None:
            return self._refuse(sender, "unasked", now)
        if fetch.error:
            return (self._fetched(fetch),)
        if fetch.asker == self._config.root:
            return (Send(fetch.asker, msgspec.structs.replace(page, number=fetch.query)),)
        return (self._fetched(fetch),) if page.last else ()

    def _fetched(self, fetch: Bundle) -> Effect:
        """A fetch is over."""
        if fetch.error:
            return self._no_evidence(fetch.asker, fetch.query, fetch.node, fetch.error)
        bundle, error = bundle_of(fetch)
        if bundle is None:
            return self._no_evidence(fetch.asker, fetch.query, fetch.node, error)
        view = EvidenceView(node=fetch.node, leader=self._config.name, size_bytes=fetch.size, bundle=bundle)
        return Answer(fetch.asker.encode("latin-1"), fetch.query, view)

    def _no_evidence(self, asker: str, number: int, node: str, error: str) -> Effect:
        error = error[:REASON_LENGTH_MAX]
        if asker == self._config.root:
            return Send(asker, EvidencePage(number=number, node=node, page=0, last=True, error=error))
        return Answer(asker.encode("latin-1"), number, None, error)

    # ---- drills ------------------------------------------------------------------------------------------

    def _drill_wanted(self, sender: str, wanted: DrillWanted, now: int) -> Effects:
        """The root has a drill begun on a node."""
        if sender != self._config.root:
            return self._refuse(sender, "forged-id", now)
        error = self._why_not(wanted.node)
        number = None if error else self._drills.begin(wanted.node, wanted.node, sender, wanted.number, now)
        if number is None:
            reason = (error or drills.too_many())[:REASON_LENGTH_MAX]
            return (Send(sender, DrillBegun(number=wanted.number, node=wanted.node, error=reason)),)
        return (Send(wanted.node, msgspec.structs.replace(wanted, number=number)),)

    def _drill_begun(self, sender: str, begun: DrillBegun, now: int) -> Effects:
        errand = self._drills.take(sender, begun)
        if errand is None:
            return self._refuse(sender, "unasked", now)
        return (self._drill_answer(errand, begun.error),)

    @staticmethod
    def _drill_answer(errand: drills.Errand, error: str) -> Send:
        begun = DrillBegun(number=errand.query, node=errand.node, error=error[:REASON_LENGTH_MAX])
        return Send(errand.asker, begun)

    def _hello(self, sender: str, hello: Hello, now: int) -> Effects:
        if sender not in self._members:
            racks = ", ".join(self._config.racks)
            reason = f"{sender} is not expected here; this leader leads {racks or 'no rack'}"
            refusal = Admission(accepted=False, epoch=self.epoch, reason=reason[:REASON_LENGTH_MAX])
            return (*self._refuse(sender, "unexpected-node", now), Send(sender, refusal))
        member = self._members[sender]
        if hello.version != member.agent_version:
            member.agent_version = hello.version
            # It travels with the report.
            self._reports_due[member.rack][sender] = 0
        if not member.echo_key:
            member.echo_key = self._rng.getrandbits(256).to_bytes(32, "big")
        if hello.echo_port != member.echo_port or hello.incarnation not in (member.tcp_proved, member.udp_proved):
            if hello.echo_port != member.echo_port:
                # Another port: that the old one answered says nothing of a refusal there.
                member.tcp_proved = member.udp_proved = None
            member.echo_port = hello.echo_port
            self.inquiry.check_soon(member, now)
        return (Send(sender, Admission(accepted=True, epoch=self.epoch, echo_key=member.echo_key)),)

    def _farewell(self, sender: str, farewell: Farewell, now: int) -> Effects:
        member = self._members.get(sender)
        if member is None:
            return self._refuse(sender, "unexpected-node", now)
        outcome = self.roster.farewell(member, farewell.incarnation, farewell.sequence, now)
        ack = Send(sender, FarewellAck(incarnation=farewell.incarnation))
        if isinstance(outcome, Change):
            return (*self._tell((outcome,), now), ack)
        return (ack,)

    def _refused(self, sender: str, refused: Refused, now: int) -> Effects:
        effects = self._refuse(refused.sender, refused.reason, now)
        member = self._members.get(refused.sender)
        if member is None or refused.reason != "incompatible":
            return effects
        change = self.roster.incompatible(member, refused.detail, now)
        return effects if change is None else (*effects, *self._tell((change,), now))

    def _refuse(self, sender: str, reason: str, now: int) -> Effects:
        return self._refusals.add(sender, reason, now)

    # ---- the driver itself -------------------------------------------------------------------------------

    def _wall_time(self, sender: str, wall: WallTime, now: int) -> Effects:
        step = self.wall.tell(wall.wall_ns, now)
        return (Note("warning", "wall-jump", {"step": show_duration(step)}),) if step else ()

    def _reconfigured(self, sender: str, message: Reconfigured, now: int) -> Effects:
        """The config was read again: new nodes start never-seen, the others keep all they have."""
        config: LeaderConfig = message.config
        wanted = {node: None for nodes in config.racks.values() for node in nodes}
        gone = [node for node in self._members if node not in wanted]
        added = [node for node in wanted if node not in self._members]
        self._config = config
        self.roster.reconfigure(config)
        for node in gone:
            self.roster.remove(node, now)
            self._stories.pop(node, None)
            self._accounts.forget(node)
        for node in added:
            self.roster.add(node, now)
        self._summary_at = {rack: self._summary_at.get(rack, now) for rack in config.racks}
        self._reports_due = {rack: self._reports_due.get(rack, {}) for rack in config.racks}
        all_at = now + config.report_interval_ns
        self._reports_all_at = {rack: self._reports_all_at.get(rack, all_at) for rack in config.racks}
        self._summary_next = now
        return (Note("info", "membership", {"added": len(added), "removed": len(gone)}), self.memory.rewrite())

    def _terminate(self, sender: str, message: Terminate, now: int) -> Effects:
        self._done = True
        return (*self._send_outbox(now), self.memory.rewrite(), Exit())

    # ---- questions ---------------------------------------------------------------------------------------

    def _query(self, sender: str, query: Query, now: int) -> Effects:
        asker = sender.encode("latin-1")
        if query.what == "ping":
            return (Answer(asker, query.id, {"name": self._config.name, "role": "leader"}),)
        if query.what == "status":
            view = brief_view if query.brief else status_view
            return (Answer(asker, query.id, view(self, self._config, now)),)
        if query.what == "cells":
            return (Answer(asker, query.id, cells_view(self, self._config, query, now)),)
        if query.what == "evidence":
            wanted = EvidenceWanted(number=0, node=query.node, app=query.app, bundle=query.bundle)
            return self._ask_evidence(sender, query.id, wanted, now)
        if query.what == "explain":
            member = self._members.get(query.node)
            if member is None:
                return (Answer(asker, query.id, None, f"no node {query.node!r} in {', '.join(self._config.racks)}"),)
            return (Answer(asker, query.id, explain_view(self, self._config, member, now)),)
        return (Answer(asker, query.id, None, f"a leader cannot answer {query.what!r}; ask the root"),)

    def story(self, node: str) -> list[Transition]:
        """The newest verdicts about `node`, oldest first."""
        return self._stories.get(node, [])

    _HANDLERS: ClassVar[dict[type, Callable[[Any, str, Any, int], Effects]]] = {
        Answered: _answered,
        Pong: _pong,
        Relayed: _relayed,
        HeardWanted: _heard_wanted,
        LastHeard: _last_heard,
        Account: _account,
        EvidenceWanted: _evidence_wanted,
        EvidencePage: _evidence_page,
        DrillWanted: _drill_wanted,
        DrillBegun: _drill_begun,
        Ping: _ping,
        Located: _located,
        Disconnected: _disconnected,
        Suspended: _suspended,
        TransitionsAck: _acknowledged,
        Linked: _linked,
        Kept: _kept,
        KeepFailed: _keep_failed,
        Report: _report,
        Hello: _hello,
        Farewell: _farewell,
        Refused: _refused,
        WallTime: _wall_time,
        Reconfigured: _reconfigured,
        Terminate: _terminate,
        Query: _query,
    }


def _happened(transition: Transition) -> Happened:
    """A verdict for the log: of the axis that changed."""
    if transition.kind is Kind.HEALTH_CHANGED:
        before, after = transition.health_before.value, transition.health_after.value
    else:
        before, after = transition.before.value, transition.after.value
    return Happened(transition.node, transition.kind, before, after, transition.cause)
