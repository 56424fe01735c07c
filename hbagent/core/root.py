"""RootCore: what the whole datacenter looks like, what of it is news, and who must be told.

The order of things is the promise: a change is first a row on disk (event, node state, hook runs, and how far the
leader's transitions are taken in, all in one transaction), then an acknowledgement to the leader and a hook process.
Whatever dies in between, the leader sends again or the next root finds the run still owed. One batch is on its way to
the disk at a time; what happens meanwhile forms the next.

A disk that fails does not silence alarms: hooks then run from memory, the leaders keep their transitions, and the
status says that the promise is suspended.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from .chronicle import Chronicle
from .config import RootConfig
from .datacenter import FORGET_NS, Datacenter
from .dispatch import Dispatch
from .effects import Answer, Effect, Effects, Exit, Fetch, Happened, Note, Send
from .fleet import NodeRecord, Shown, merge
from .leaderrecord import LeaderRecord
from .ledger import Ledger
from .messages import (
    Evidence,
    HookFinished,
    KeepFailed,
    Kept,
    NodeRow,
    Query,
    RackReports,
    RackSummary,
    Reconfigured,
    Refused,
    Terminate,
    Transition,
    Transitions,
    TransitionsAck,
    WallTime,
)
from .names import is_part, rack_of
from .observer import OwnLag
from .order import Verdict
from .records import HookRun, NodeState, Restored, RunState
from .refusals import Refusals
from .rootviews import explain_view, status_view
from .states import Cause, Kind, Liveness
from .units import SECOND, show_duration
from .wallclock import WallClock

#: The loop is looked at this often to measure its own lag; a fraction of a lease.
TICK_NS = SECOND // 4
#: A root that finds no observer for a node waits this much longer than the leader itself would.
ABSENCE_SLACK_NS = 2 * SECOND
#: Pages of one summary are fewer than two to the power of this.
PAGE_BITS = 16


class RootCore:
    """The datacenter's root. Call `wake` no later than `deadline`, after all sockets have been drained."""

    def __init__(self, config: RootConfig, rng: random.Random, now: int, restored: Restored | None = None) -> None:
        self._config = config
        self._rng = rng
        self.started = now
        self.wall = WallClock()
        self._lag = OwnLag()
        self._tick_at = now + TICK_NS
        self._forget_at = now + FORGET_NS
        self.datacenter = Datacenter(config, now)
        self.leaders = self.datacenter.leaders
        self.racks = self.datacenter.racks
        self.nodes = self.datacenter.nodes
        self.rack_nodes = self.datacenter.rack_nodes
        self.dispatch = Dispatch(config.hooks, config.hook_concurrency, config.hook_retries_ns, config.hook_queue_max)
        self.ledger = Ledger()
        self.chronicle = Chronicle(self.ledger, config.hooks, rng.getrandbits(32))
        self._refusals = Refusals()
        #: What was refused, by reason.
        self.refused = self._refusals.counts
        self._done = False
        self._restore(restored or Restored(), now)

    def _restore(self, restored: Restored, now: int) -> None:
        self.chronicle.newest = restored.newest_sequence
        for state in restored.nodes:
            leader = self.leaders.get(state.node)
            if leader is not None:
                leader.lost_told = bool(state.open)
            elif state.rack in self.racks:
                record = self.datacenter.record(state.node, state.rack)
                if record is not None:
                    record.restore(state)
        for mark in restored.marks:
            owner = self.leaders.get(mark.leader)
            if owner is not None:
                owner.restore(mark)
        for run in restored.runs:
            self._owe(run, now)

    # ---- the crank ---------------------------------------------------------------------------------------

    def receive(self, sender: str, message: object, now: int) -> Effects:
        """Something arrived from the authenticated `sender`, or from the driver itself ("")."""
        handler = self._HANDLERS.get(type(message))
        if handler is None:
            return self._refuse(sender, "unexpected-type", now)
        return (*handler(self, sender, message, now), *self._progress(now))

    def wake(self, now: int) -> Effects:
        """The deadline came, and all sockets have been drained."""
        if self._done:
            return ()
        effects: list[Effect] = []
        if now >= self._tick_at:
            self._tick(now)
        if now >= self._forget_at:
            self._forget_at = now + SECOND
            for record in self.datacenter.unexpected(now):
                self.datacenter.forget(record)
                self.ledger.forget(record.name)
                effects.append(Note("info", "forgotten", {"node": record.name}))
        for leader in self.leaders.values():
            if leader.lease.lapsed(now) and (leader.lease.held or leader.lease.renewed_at is None):
                effects.extend(self._lapse(leader, now))
        again = self.ledger.retry(now)
        if again is not None:
            effects.append(again)
        if self.ledger.stuck(now):
            effects.append(Note("error", "store-stuck", {"consequence": "hooks run, but a crash may repeat them"}))
        effects.extend(self._progress(now))
        return tuple(effects)

    def deadline(self) -> int | None:
        """When `wake` wants to be called."""
        if self._done:
            return None
        times = [self._tick_at]
        times.extend(
            leader.lease.expires_at
            for leader in self.leaders.values()
            if leader.lease.held or (leader.lease.renewed_at is None and not leader.lost_told)
        )
        times.extend(due for due in (self.ledger.deadline(), self.dispatch.deadline()) if due is not None)
        return min(times)

    def _tick(self, now: int) -> None:
        """Add this loop's own lag to the leases: while it stood still, nobody could be heard."""
        lag = self._lag.tick(self._tick_at, now)
        self._tick_at = now + TICK_NS
        if lag:
            for leader in self.leaders.values():
                leader.lease.extend(lag, now - lag)

    def _progress(self, now: int) -> Effects:
        """Start hooks whose turn it is, and send the next batch to disk when none is on its way."""
        if self._done:
            return ()
        for run in self.ledger.due_from_memory():
            self._owe(run, now)
        starting = self.dispatch.ready(now)
        writing = self.ledger.write(now)
        return starting if writing is None else (*starting, writing)

    # ---- disk --------------------------------------------------------------------------------------------

    def _kept(self, sender: str, kept: Kept, now: int) -> Effects:
        troubled, lost = bool(self.ledger.degraded), self.ledger.lost
        batch = self.ledger.kept(kept.token)
        if batch is None:
            return ()
        effects: list[Effect] = [Note("info", "store-works-again", {"events_lost": lost})] if troubled else []
        for mark in batch.marks:
            leader = self.leaders.get(mark.leader)
            if leader is not None:
                leader.keep(mark)
                effects.append(Send(mark.leader, TransitionsAck(epoch=mark.epoch, number=mark.number)))
        for run in self.ledger.due(batch):
            self._owe(run, now)
        return tuple(effects)

    def _keep_failed(self, sender: str, failed: KeepFailed, now: int) -> Effects:
        first = not self.ledger.degraded
        if not self.ledger.failed(failed.token, failed.reason, now):
            return ()
        return (Note("error", "store-failed", {"reason": failed.reason}),) if first else ()

    def _owe(self, run: HookRun, now: int) -> None:
        for given_up in self.dispatch.add(run, now):
            self.ledger.run(given_up)

    # ---- leaders -----------------------------------------------------------------------------------------

    def _lapse(self, leader: LeaderRecord, now: int) -> Effects:
        was_held = leader.lease.held
        leader.lease.drop()
        leader.lease.expires_at = now + self._config.lease_ns
        if leader.lost_told:
            return ()
        leader.lost_told = True
        silent = now - (leader.lease.renewed_at if leader.lease.renewed_at is not None else self.started)
        text = f"no summary for {show_duration(silent)}; its lease was {show_duration(self._config.lease_ns)}"
        if not was_held:
            text = f"not heard in the {show_duration(silent)} since this root started"
        evidence = Evidence(text=text, silent_ns=silent)
        effects = self._leader_event(leader, Kind.LEADER_LOST, Cause.LEADER_LOST, evidence, now)
        return (*effects, *self._judge_racks(leader, now))

    def _renew(self, leader: LeaderRecord, summary: RackSummary, now: int) -> Effects:
        leader.stats = summary.stats
        leader.stats_at = now
        if summary.epoch != leader.lease.epoch:
            leader.newest = 0
        leader.newest = max(leader.newest, summary.newest)
        if not leader.lease.renew(summary.epoch, now):
            return ()
        if not leader.lost_told:
            return ()
        leader.lost_told = False
        evidence = Evidence(text=f"summaries again; up for {show_duration(summary.stats.uptime_ns)}")
        return self._leader_event(leader, Kind.LEADER_RECOVERED, None, evidence, now)

    def _leader_event(
        self, leader: LeaderRecord, kind: Kind, cause: Cause | None, evidence: Evidence, now: int
    ) -> Effects:
        lost = kind is Kind.LEADER_LOST
        rack = leader.racks[0] if len(leader.racks) == 1 else ""
        self.ledger.node(
            NodeState(
                node=leader.name,
                rack=rack,
                liveness=Liveness.DEAD if lost else Liveness.ALIVE,
                since_wall_ns=self.wall.at(now),
                open=kind.value if lost else "",
            )
        )
        self.chronicle.add(kind, self.wall.at(now), rack=rack, leader=leader.name, cause=cause, evidence=evidence)
        return (Happened(leader.name, kind, "", "", cause),)

    # ---- summaries ---------------------------------------------------------------------------------------

    def _summary(self, sender: str, summary: RackSummary, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender, summary.rack)
        if leader is None:
            return self._refuse(sender, "forged-rack", now)
        verdict = leader.order.judge(summary.epoch, summary.number << PAGE_BITS | summary.page)
        if verdict not in (Verdict.FRESH, Verdict.RESTART):
            return self._refuse(sender, verdict.value, now)
        effects = list(self._renew(leader, summary, now))
        complete = leader.taken(summary.epoch) >= summary.newest
        for row in summary.nodes:
            if not is_part(row.node):
                effects.extend(self._refuse(sender, "malformed", now))
                continue
            effects.extend(self._row(leader, summary, row, complete, now))
        return tuple(effects)

    def _row(
        self, leader: LeaderRecord, summary: RackSummary, row: NodeRow, complete: bool, now: int
    ) -> Iterable[Effect]:
        record = self.datacenter.record(f"{summary.rack}/{row.node}", summary.rack)
        if record is None:
            return self._refuse(leader.name, "too-many-nodes", now)
        seen = record.seen_by(leader.name, now)
        if row.age_ns is not None:
            record.health = row.health
        known = seen.version if seen.epoch == summary.epoch else 0
        if row.version == known:
            if seen.epoch != summary.epoch or (known == 0 and seen.liveness is not row.liveness):
                seen.believe(row, summary.epoch, now)
            else:
                seen.follow(row, now)
                seen.ahead_since = None
        elif row.version > known:
            if seen.ahead_since is None:
                seen.ahead_since = now
            if not complete and now - seen.ahead_since < self._config.patience_ns:
                return ()
            seen.believe(row, summary.epoch, now)
        else:
            return ()
        if seen.liveness is record.told and seen.speaks and len(record.seen) == 1:
            record.incarnation, record.sequence = seen.incarnation, seen.sequence
            record.cause = seen.cause
            return ()
        return self._judge(record, None, leader, now)

    def _reports(self, sender: str, reports: RackReports, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender, reports.rack)
        if leader is None:
            return self._refuse(sender, "forged-rack", now)
        for item in reports.reports:
            record = self.nodes.get(f"{reports.rack}/{item.node}")
            if record is not None:
                record.report = item.report
                record.report_at = now - item.age_ns
                record.health = item.report.health
        return ()

    # ---- transitions -------------------------------------------------------------------------------------

    def _transitions(self, sender: str, batch: Transitions, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender)
        if leader is None:
            return self._refuse(sender, "forged-id", now)
        if not leader.lease.held:
            # What it says could not be told now, and taken in it would not be sent again.
            return ()
        mark = max(leader.taken(batch.epoch), batch.base - 1)
        if batch.after > mark:
            return self._refuse(sender, "gap", now)
        effects: list[Effect] = []
        for transition in batch.items:
            if transition.number <= mark:
                continue
            mark = transition.number
            if rack_of(transition.node) not in leader.racks:
                effects.extend(self._refuse(sender, "forged-rack", now))
                continue
            effects.extend(self._transition(leader, transition, batch, now))
        if mark > leader.taken(batch.epoch):
            self.ledger.mark(leader.take(batch.epoch, mark))
        elif leader.kept(batch.epoch) >= mark:
            effects.append(Send(sender, TransitionsAck(epoch=batch.epoch, number=mark)))
        return tuple(effects)

    def _transition(
        self, leader: LeaderRecord, transition: Transition, batch: Transitions, now: int
    ) -> Iterable[Effect]:
        record = self.datacenter.record(transition.node, rack_of(transition.node))
        if record is None:
            return self._refuse(leader.name, "too-many-nodes", now)
        seen = record.seen_by(leader.name, now)
        if not seen.apply(transition, batch.epoch, batch.present, now):
            self.chronicle.add(
                transition.kind,
                transition.at_wall_ns or self.wall.at(now),
                node=record.name,
                rack=record.rack,
                leader=leader.name,
                liveness_from=transition.before,
                liveness_to=transition.after,
                cause=transition.cause,
                evidence=transition.evidence,
                late=True,
            )
            return ()
        return self._judge(record, transition, leader, now)

    # ---- verdicts ----------------------------------------------------------------------------------------

    def shown(self, record: NodeRecord) -> Shown:
        """What a console is told of `record` now."""
        return self.datacenter.shown(record)

    def _judge_racks(self, leader: LeaderRecord, now: int) -> Effects:
        effects: list[Effect] = []
        for rack in leader.racks:
            for record in self.rack_nodes[rack]:
                effects.extend(self._judge(record, None, leader, now))
        return tuple(effects)

    def _judge(
        self, record: NodeRecord, transition: Transition | None, leader: LeaderRecord, now: int
    ) -> Iterable[Effect]:
        """Merge the views of a node, and tell when that is news."""
        views = self.datacenter.observers(record)
        merged = merge(views)
        if merged is None:
            return self._absent(record, leader, now)
        basis = merged.basis
        restarted = (
            transition is not None
            and transition.kind is Kind.NODE_RESTARTED
            and merged.liveness is Liveness.ALIVE
            and transition.incarnation != record.incarnation
        )
        record.cause = merged.cause
        known = record.incarnation
        record.incarnation, record.sequence = basis.incarnation, basis.sequence
        if merged.liveness is record.told and not restarted:
            return ()
        kind = Kind.NODE_RESTARTED if restarted else record.kind_of(merged, known)
        evidence = transition.evidence if transition is not None else basis.evidence
        if evidence is None:
            age = None if basis.heard_at is None else now - basis.heard_at
            evidence = Evidence(text="told by a summary; the transition itself was lost", silent_ns=age)
        return self._change(record, kind, merged, evidence, transition, leader.name, now)

    def _absent(self, record: NodeRecord, leader: LeaderRecord, now: int) -> Effects:
        """Nobody speaks for the node. If it was alive and every leader has listened long enough, it is dead."""
        if record.told not in (Liveness.ALIVE, Liveness.SUSPECT) or self.datacenter.someone_is_lost(record.rack):
            return ()
        listened = self.datacenter.listened_ns(record.rack)
        if min(listened, now - self.started) < self._config.join_grace_ns + ABSENCE_SLACK_NS:
            return ()
        since = show_duration(listened)
        text = f"known alive, and no leader of its rack has heard it since its start {since} ago"
        record.cause = Cause.SILENCE
        dead = Shown(Liveness.DEAD, record.cause)
        return self._change(record, Kind.NODE_DEAD, dead, Evidence(text=text), None, leader.name, now)

    def _change(
        self,
        record: NodeRecord,
        kind: Kind,
        value: Shown,
        evidence: Evidence,
        transition: Transition | None,
        leader: str,
        now: int,
    ) -> Effects:
        before = record.told
        at_wall_ns = transition.at_wall_ns if transition is not None else 0
        event = self.chronicle.add(
            kind,
            at_wall_ns or self.wall.at(now),
            record.open,
            node=record.name,
            rack=record.rack,
            leader=leader,
            liveness_from=before or Liveness.UNKNOWN,
            liveness_to=value.liveness,
            health_from=record.health,
            health_to=record.health,
            cause=value.cause,
            evidence=evidence,
        )
        record.tell(value.liveness, kind, event.at_wall_ns)
        self.ledger.node(record.state())
        before_word = before.value if before is not None else Liveness.UNKNOWN.value
        return (Happened(record.name, kind, before_word, value.liveness.value, value.cause),)

    # ---- hooks -------------------------------------------------------------------------------------------

    def _hook_finished(self, sender: str, result: HookFinished, now: int) -> Effects:
        run = self.dispatch.finished(result, now, self.wall.at(now))
        if run is None:
            return ()
        self.ledger.run(run)
        fields = {"hook": run.hook, "event": run.event_id, "attempt": run.attempt}
        if run.state is RunState.DONE:
            return (Note("info", "hook-done", {**fields, "took": show_duration(result.duration_ns)}),)
        fields |= {"error": run.error, "output": result.output[-500:].decode("utf-8", "replace")}
        if run.state is RunState.DEAD:
            return (Note("error", "hook-given-up", fields),)
        return (Note("warning", "hook-failed", fields),)

    # ---- the rest ----------------------------------------------------------------------------------------

    def _refused(self, sender: str, refused: Refused, now: int) -> Effects:
        return self._refuse(refused.sender, refused.reason, now)

    def _refuse(self, sender: str, reason: str, now: int) -> Effects:
        return self._refusals.add(sender, reason, now)

    def _wall_time(self, sender: str, wall: WallTime, now: int) -> Effects:
        step = self.wall.tell(wall.wall_ns, now)
        return (Note("warning", "wall-jump", {"step": show_duration(step)}),) if step else ()

    def _reconfigured(self, sender: str, message: Reconfigured, now: int) -> Effects:
        """The config was read again: other hooks, other racks. A leader that stays keeps its lease and its marks."""
        config: RootConfig = message.config
        self._config = config
        self.chronicle.hooks = config.hooks
        self.dispatch.reconfigure(config.hooks, config.hook_concurrency, config.hook_retries_ns, config.hook_queue_max)
        gone = self.datacenter.reconfigure(config, now)
        for name in gone:
            self.ledger.forget(name)
        return (Note("info", "membership", {"racks": len(self.racks), "forgotten": len(gone)}),)

    def _terminate(self, sender: str, message: Terminate, now: int) -> Effects:
        self._done = True
        writing = self.ledger.write(now)
        return (Exit(),) if writing is None else (writing, Exit())

    def _query(self, sender: str, query: Query, now: int) -> Effects:
        asker = sender.encode("latin-1")
        if query.what == "ping":
            return (Answer(asker, query.id, {"name": self._config.name, "role": "root"}),)
        if query.what == "status":
            return (Answer(asker, query.id, status_view(self, self._config, now)),)
        if query.what == "events":
            return (Fetch(asker, query.id, min(query.limit, 10_000), query.after, query.node),)
        if query.what == "explain":
            record = self.nodes.get(query.node)
            if record is None:
                return (Answer(asker, query.id, None, f"no node {query.node!r} is known; see: hbagent nodes"),)
            view = explain_view(self, record, now)
            return (Fetch(asker, query.id, self._config.story_length, 0, query.node, view),)
        return (Answer(asker, query.id, None, f"cannot answer {query.what!r}"),)

    _HANDLERS: ClassVar[dict[type, Callable[[Any, str, Any, int], Effects]]] = {
        RackSummary: _summary,
        RackReports: _reports,
        Transitions: _transitions,
        Kept: _kept,
        KeepFailed: _keep_failed,
        HookFinished: _hook_finished,
        Refused: _refused,
        WallTime: _wall_time,
        Reconfigured: _reconfigured,
        Terminate: _terminate,
        Query: _query,
    }
