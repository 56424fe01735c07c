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
from typing import Any, ClassVar, Union

import msgspec

from .config import LeaderConfig
from .effects import Answer, Effect, Effects, Exit, Happened, Keep, Note, Publish, Rewrite, Send
from .member import Member
from .messages import (
    Admission,
    Farewell,
    FarewellAck,
    Hello,
    KeepFailed,
    Kept,
    LeaderStats,
    Linked,
    NodeReport,
    NodeRow,
    Query,
    RackReports,
    RackSummary,
    Reconfigured,
    Refused,
    Report,
    Terminate,
    Transition,
    TransitionsAck,
    WallTime,
)
from .names import rack_of
from .observer import OwnLag
from .outbox import Outbox
from .roster import INTERVAL_ASSUMED_NS, Change, Heard, Roster
from .states import Cause, Liveness, RackState
from .units import SECOND, show_duration
from .views import (
    ExplainView,
    LeaderView,
    NodeView,
    ObserverView,
    RackView,
    RootView,
    StatusView,
    count_liveness,
    seconds_of,
)
from .wallclock import WallClock, rfc3339

#: The journal is rewritten when it holds this many entries beyond one for each node and waiting transition.
JOURNAL_SLACK = 2000
#: After a failed write the journal is tried again this often.
JOURNAL_RETRY_NS = 2 * SECOND
#: Verdicts remembered per node for `explain`.
STORY_LENGTH = 10
#: Refusals of one kind make one log line in this time, however many they are.
NOTE_EVERY_NS = SECOND

#: What the journal tells of a node: liveness, cause, incarnation, sequence and interval, as `Roster.recall` takes them.
Known = tuple[Liveness, Union[Cause, None], Union[int, None], int, int]


class LeaderCore:
    """One rack leader. Call `wake` no later than `deadline`, after all sockets have been drained."""

    def __init__(self, config: LeaderConfig, rng: random.Random, now: int, kept: Iterable[dict[str, Any]] = ()) -> None:
        self._config = config
        self._rng = rng
        self._started = now
        self.epoch = rng.getrandbits(63)
        self._number = 0
        self._wall = WallClock()
        self._lag = OwnLag()
        self.roster = Roster(config, self._lag, now)
        self._members = self.roster.members
        self._outbox = Outbox(config.outbox_max)
        self._resend_at: int | None = None
        self._journal_entries = 0
        self._journal_token = 0
        self._journal_failed_at: int | None = None
        self._degraded = ""
        self._tick_at = now + config.tick_ns
        self._count_at = now
        self._summary_number = 0
        racks = list(config.racks)
        step = config.summary_interval_ns // max(1, len(racks))
        self._summary_at = {rack: now + step * index for index, rack in enumerate(racks)}
        self._summary_next = now
        self._reports_due: dict[str, dict[str, int]] = {rack: {} for rack in racks}
        self._reports_all_at = dict.fromkeys(racks, now + config.report_interval_ns)
        self._echo_keys: dict[str, bytes] = {}
        self._stories: dict[str, list[Transition]] = {}
        self.beats = 0
        self.refused: dict[str, int] = {}
        self._noted: dict[tuple[str, str], int] = {}
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
        leaving: bool,
        now: int,
    ) -> Effects:
        """One beat of the authenticated `sender`; the fields of `messages.Beat`, not yet made an object."""
        member = self._members.get(sender)
        if member is None:
            return self._refuse(sender, "unexpected-node", now)
        if not leaving and member.beat(
            incarnation, sequence, sent_ns, due_in_ns, interval_ns, loop_gap_ns, progress, now
        ):
            return ()
        outcome = self.roster.unusual(
            member, incarnation, sequence, sent_ns, due_in_ns, interval_ns, loop_gap_ns, progress, leaving, now
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
        return effects

    def wake(self, now: int) -> Effects:
        """The deadline came, and all sockets have been drained."""
        if self._done:
            return ()
        effects: list[Effect] = self._first
        self._first = []
        if now >= self._tick_at:
            self._tick(now, effects)
        effects.extend(self._tell(self.roster.expire(now), now))
        if now >= self._summary_next:
            self._summaries(now, effects)
        if self._resend_at is not None and now >= self._resend_at:
            self._outbox.rewind()
            effects.extend(self._send_outbox(now))
        if self._journal_failed_at is not None and now >= self._journal_failed_at + JOURNAL_RETRY_NS:
            self._journal_failed_at = None
            effects.append(self._rewrite())
        return tuple(effects)

    def deadline(self) -> int | None:
        """When `wake` wants to be called."""
        if self._done:
            return None
        at = min(self._tick_at, self._summary_next)
        judged = self.roster.deadline()
        if judged is not None and judged < at:
            at = judged
        if self._resend_at is not None and self._resend_at < at:
            at = self._resend_at
        return at

    # ---- own lag -----------------------------------------------------------------------------------------

    def _tick(self, now: int, effects: list[Effect]) -> None:
        lag = self._lag.tick(self._tick_at, now)
        self._tick_at = now + self._config.tick_ns
        longest = max((m.interval_ns for m in self._members.values()), default=SECOND) if lag > SECOND // 20 else 0
        if longest and lag > longest // 2:
            self._lag.hold(now + longest + self._config.detector.margin_ns)
            effects.append(
                Note("warning", "stalled", {"lag": show_duration(lag), "judging_in": show_duration(longest)})
            )

    # ---- verdicts ----------------------------------------------------------------------------------------

    def _tell(self, changes: Iterable[Change], now: int) -> Effects:
        effects: list[Effect] = []
        entries: list[dict[str, Any]] = []
        for change in changes:
            transition = self._transition(change, now)
            self._outbox.add(self.epoch, transition)
            entries.append({"k": "t", "e": self.epoch, "t": msgspec.to_builtins(transition)})
            story = self._stories.setdefault(transition.node, [])
            story.append(transition)
            del story[:-STORY_LENGTH]
            effects.append(
                Happened(transition.node, change.kind, change.before.value, change.after.value, change.cause)
            )
        if not entries:
            return ()
        effects.append(self._keep(entries))
        effects.extend(self._send_outbox(now))
        return tuple(effects)

    def _transition(self, change: Change, now: int) -> Transition:
        member = change.member
        self._number += 1
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
            at_wall_ns=self._wall.at(now),
            health_before=member.health,
            health_after=member.health,
        )

    def _send_outbox(self, now: int) -> Effects:
        if not self._root_linked:
            return ()
        messages = self._outbox.take()
        if messages or self._outbox.waiting():
            self._resend_at = now + self._config.resend_ns
        return tuple(Send(self._config.root, message) for message in messages)

    def _acknowledged(self, sender: str, ack: TransitionsAck, now: int) -> Effects:
        if sender != self._config.root:
            return self._refuse(sender, "forged-id", now)
        if not self._outbox.acknowledge(ack.epoch, ack.number):
            return ()
        again = self._root_linked and self._outbox.waiting()
        self._resend_at = now + self._config.resend_ns if again else None
        return (self._keep([{"k": "a", "e": ack.epoch, "n": ack.number}]),)

    def _linked(self, sender: str, link: Linked, now: int) -> Effects:
        if link.peer != self._config.root:
            return ()
        was, self._root_linked = self._root_linked, link.up
        if link.refused:
            return (Note("error", "root-refused-our-key", {"root": link.peer}),)
        if not link.up:
            self._resend_at = None
            return (Note("warning", "root-link-lost", {"root": link.peer}),) if was else ()
        self._outbox.rewind()
        return (Note("info", "root-linked", {"root": link.peer}), *self._send_outbox(now))

    # ---- journal -----------------------------------------------------------------------------------------

    def _restore(self, kept: Iterable[dict[str, Any]], now: int) -> None:
        """Take up an earlier life: what each node was, and what the root has not acknowledged."""
        known: dict[str, Known] = {}
        for entry in kept:
            try:
                self._restore_entry(entry, known)
            except (KeyError, TypeError, ValueError, msgspec.ValidationError):
                self.refused["kept"] = self.refused.get("kept", 0) + 1
        for node, state in known.items():
            self.roster.recall(node, *state, now)
        self._first.append(self._rewrite())

    def _restore_entry(self, entry: dict[str, Any], known: dict[str, Known]) -> None:
        if entry["k"] == "t":
            transition = msgspec.convert(entry["t"], Transition)
            self._outbox.add(int(entry["e"]), transition)
            interval_ns = transition.evidence.interval_ns or INTERVAL_ASSUMED_NS
            state = (transition.after, transition.cause, transition.incarnation, transition.sequence or 0, interval_ns)
            known[transition.node] = state
        elif entry["k"] == "a":
            self._outbox.acknowledge(int(entry["e"]), int(entry["n"]))
        elif entry["k"] == "n":
            cause = None if entry["c"] is None else Cause(entry["c"])
            incarnation = None if entry["i"] is None else int(entry["i"])
            interval_ns = int(entry.get("v", INTERVAL_ASSUMED_NS))
            known[str(entry["m"])] = (Liveness(entry["l"]), cause, incarnation, int(entry["s"]), interval_ns)

    def _keep(self, entries: list[dict[str, Any]]) -> Effect:
        self._journal_entries += len(entries)
        if self._journal_entries > JOURNAL_SLACK + len(self._members) + len(self._outbox):
            return self._rewrite()
        self._journal_token += 1
        return Keep(self._journal_token, tuple(entries))

    def _rewrite(self) -> Effect:
        entries: list[dict[str, Any]] = [
            {
                "k": "n",
                "m": m.name,
                "l": m.liveness.value,
                "c": m.cause.value if m.cause is not None else None,
                "i": m.order.incarnation,
                "s": m.order.sequence,
                "v": m.interval_ns,
            }
            for m in self._members.values()
            if m.cause is not Cause.NEVER_SEEN
        ]
        states = len(entries)
        entries.extend({"k": "t", "e": e, "t": msgspec.to_builtins(t)} for e, t in self._outbox.entries())
        # A waiting transition is older than the state it led to, so the states are read last.
        entries = entries[states:] + entries[:states]
        self._journal_entries = len(entries)
        self._journal_token += 1
        return Rewrite(self._journal_token, tuple(entries))

    def _kept(self, sender: str, kept: Kept, now: int) -> Effects:
        if not self._degraded:
            return ()
        self._degraded = ""
        return (Note("info", "journal-works-again", {}),)

    def _keep_failed(self, sender: str, failed: KeepFailed, now: int) -> Effects:
        first = not self._degraded
        self._degraded = f"journal: {failed.reason}"
        self._journal_failed_at = now
        return (Note("error", "journal-failed", {"reason": failed.reason}),) if first else ()

    # ---- summaries ---------------------------------------------------------------------------------------

    def _summaries(self, now: int, effects: list[Effect]) -> None:
        config = self._config
        if now >= self._count_at:
            self._count_at = now + SECOND
            self._allow_beats(now)
        for rack, at in self._summary_at.items():
            if now < at:
                continue
            self._summary_at[rack] = max(at + config.summary_interval_ns, now)
            self._summary_number += 1
            effects.append(Publish(self._summary(rack, now)))
            reports = self._reports(rack, now)
            if reports is not None:
                effects.append(Publish(reports))
        self._summary_next = min(self._summary_at.values(), default=now + config.summary_interval_ns)

    def _allow_beats(self, now: int) -> None:
        """Once a second: each node may send so many beats until the next second."""
        factor = self._config.noisy_factor
        for member in self._members.values():
            member.beats_limit = member.beats + max(20, factor * SECOND // member.interval_ns)

    def _summary(self, rack: str, now: int) -> RackSummary:
        return RackSummary(
            rack=rack,
            epoch=self.epoch,
            number=self._summary_number,
            newest=self._number,
            nodes=tuple(self._row(self._members[node], now) for node in self._config.racks[rack]),
            stats=self._stats(now),
        )

    def _row(self, member: Member, now: int) -> NodeRow:
        heard_at = member.heard_at
        return NodeRow(
            node=member.short,
            liveness=member.liveness,
            cause=member.cause,
            health=member.health,
            since_ns=now - member.since,
            age_ns=None if heard_at is None else now - heard_at,
            incarnation=member.order.incarnation,
            sequence=member.order.sequence,
            version=member.version,
            lost=member.order.lost,
            late=member.late,
            loop_gap_ns=member.loop_gap_ns,
        )

    def _stats(self, now: int) -> LeaderStats:
        return LeaderStats(
            uptime_ns=now - self._started,
            lag_max_ns=self._lag.lag_max_ns,
            beats=sum(member.beats for member in self._members.values()),
            refused=dict(self.refused),
            outbox=len(self._outbox),
            degraded=self._degraded,
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
                reports.append(NodeReport(node=member.short, report=member.report, age_ns=now - member.report_at))
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
        member.health = report.health
        self._reports_due[member.rack][sender] = 0
        return ()

    def _hello(self, sender: str, hello: Hello, now: int) -> Effects:
        if sender not in self._members:
            racks = ", ".join(self._config.racks)
            reason = f"{sender} is not expected here; this leader leads {racks or 'no rack'}"
            refusal = Admission(accepted=False, epoch=self.epoch, reason=reason)
            return (*self._refuse(sender, "unexpected-node", now), Send(sender, refusal))
        key = self._echo_keys.get(sender)
        if key is None:
            key = self._echo_keys[sender] = self._rng.getrandbits(256).to_bytes(32, "big")
        return (Send(sender, Admission(accepted=True, epoch=self.epoch, echo_key=key)),)

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
        """Count it, and say so at most once a second for each sender and reason."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if now < self._noted.get((sender, reason), 0):
            return ()
        if len(self._noted) > 1000:
            self._noted.clear()
        self._noted[sender, reason] = now + NOTE_EVERY_NS
        level = "debug" if reason in ("duplicate", "stale") else "warning"
        return (Note(level, "refused", {"sender": sender, "reason": reason, "count": self.refused[reason]}),)

    # ---- the driver itself -------------------------------------------------------------------------------

    def _wall_time(self, sender: str, wall: WallTime, now: int) -> Effects:
        step = self._wall.tell(wall.wall_ns, now)
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
            self.roster.remove(node)
            self._stories.pop(node, None)
            self._echo_keys.pop(node, None)
        for node in added:
            self.roster.add(node, now)
        self._summary_at = {rack: self._summary_at.get(rack, now) for rack in config.racks}
        self._reports_due = {rack: self._reports_due.get(rack, {}) for rack in config.racks}
        all_at = now + config.report_interval_ns
        self._reports_all_at = {rack: self._reports_all_at.get(rack, all_at) for rack in config.racks}
        self._summary_next = now
        return (Note("info", "membership", {"added": len(added), "removed": len(gone)}), self._rewrite())

    def _terminate(self, sender: str, message: Terminate, now: int) -> Effects:
        self._done = True
        return (*self._send_outbox(now), self._rewrite(), Exit())

    # ---- questions ---------------------------------------------------------------------------------------

    def _query(self, sender: str, query: Query, now: int) -> Effects:
        asker = sender.encode("latin-1")
        if query.what == "ping":
            return (Answer(asker, query.id, {"name": self._config.name, "role": "leader"}),)
        if query.what == "status":
            return (Answer(asker, query.id, self._status(now)),)
        if query.what == "explain":
            member = self._members.get(query.node)
            if member is None:
                return (Answer(asker, query.id, None, f"no node {query.node!r} in {', '.join(self._config.racks)}"),)
            return (Answer(asker, query.id, self._explain(member, now)),)
        return (Answer(asker, query.id, None, f"a leader cannot answer {query.what!r}; ask the root"),)

    def _status(self, now: int) -> StatusView:
        return StatusView(
            root=RootView(
                name=self._config.name,
                role="leader",
                version=self._config.version,
                at=rfc3339(self._wall.at(now)),
                uptime_s=(now - self._started) / SECOND,
                reachable=False,
                degraded=self._degraded,
                refused=dict(self.refused),
            ),
            racks=[self._rack_view(rack, now) for rack in self._config.racks],
            nodes=[self._node_view(member, now) for member in self._members.values()],
        )

    def _rack_view(self, rack: str, now: int) -> RackView:
        values = [self._members[node].liveness for node in self._config.racks[rack]]
        calm = all(value in (Liveness.ALIVE, Liveness.LEFT) for value in values)
        me = LeaderView(
            leader=self._config.name,
            state=Liveness.ALIVE,
            age_s=0.0,
            uptime_s=seconds_of(now - self._started),
            lag_max_ms=self._lag.lag_max_ns / 1e6,
            degraded=self._degraded,
            version=self._config.version,
            outbox=len(self._outbox),
            refused=dict(self.refused),
        )
        state = RackState.OK if calm else RackState.DEGRADED
        return RackView(rack=rack, state=state, leaders=[me], counts=count_liveness(values))

    def _node_view(self, member: Member, now: int) -> NodeView:
        age = None if member.heard_at is None else now - member.heard_at
        cause = member.cause.value if member.cause is not None else None
        seen = ObserverView(
            leader=self._config.name,
            liveness=member.liveness,
            cause=cause,
            age_s=seconds_of(age),
            speaks=member.heard_at is not None,
        )
        return NodeView(
            node=member.name,
            rack=rack_of(member.name),
            liveness=member.liveness,
            health=member.health,
            cause=cause,
            since=rfc3339(self._wall.at(member.since)),
            age_s=seconds_of(age),
            observers=[seen],
            probes=list(member.report.probes) if member.report is not None else [],
            facts=member.report.facts if member.report is not None else None,
            lost=member.order.lost,
            late=member.late,
        )

    def _explain(self, member: Member, now: int) -> ExplainView:
        story = [
            {
                "at": rfc3339(t.at_wall_ns),
                "kind": t.kind.value,
                "leader": self._config.name,
                "liveness": {"from": t.before.value, "to": t.after.value},
                "cause": t.cause.value if t.cause is not None else None,
                "evidence": msgspec.to_builtins(t.evidence),
            }
            for t in reversed(self._stories.get(member.name, []))
        ]
        return ExplainView(node=self._node_view(member, now), rack=self._rack_view(member.rack, now), story=story)

    _HANDLERS: ClassVar[dict[type, Callable[[Any, str, Any, int], Effects]]] = {
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
