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

import msgspec

from .accuracy import WRITE_NS, Accuracy
from .alerts import Alerts
from .changes import sentence, told
from .chronicle import Chronicle
from .config import RootConfig
from .datacenter import FORGET_NS, Datacenter
from .desk import Desk
from .dispatch import Dispatch
from .effects import WITNESS_NS, Effect, Effects, Exit, Happened, Note, Send, Witness
from .fleet import Merged, NodeRecord, Shown, merge
from .healthrecord import News
from .isolation import decide, patience_ends
from .leaderrecord import LeaderRecord, Standing
from .ledger import Ledger
from .messages import (
    Answered,
    Disconnected,
    DrillBegun,
    Evidence,
    EvidencePage,
    HookFinished,
    KeepFailed,
    Kept,
    NodeRow,
    Ordered,
    Ping,
    Pong,
    Posted,
    Query,
    RackReports,
    RackSummary,
    Reconfigured,
    Refused,
    Revived,
    Suspended,
    Terminate,
    Transition,
    Transitions,
    TransitionsAck,
    WallTime,
)
from .names import is_part, rack_of
from .observer import OwnLag
from .order import Verdict
from .rackrecord import is_dark
from .records import Conviction, Event, HookRun, NodeState, Restored, RunState
from .refusals import Refusals
from .rootcells import RootCells
from .states import Cause, Health, Kind, Liveness, Outcome, Path
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
        self.config = config
        self._rng = rng
        self.started = now
        self.wall = WallClock()
        self._lag = OwnLag()
        self._tick_at = now + TICK_NS
        #: No leader needs this core before; None when that must be worked out. A summary, by far the most frequent
        #: message, changes it for its own leader only: with 250 of them, to look at all took a tenth of the time.
        self._leaders_at: int | None = None
        self._forget_at = now + FORGET_NS
        self.datacenter = Datacenter(config, now)
        self.leaders = self.datacenter.leaders
        self.racks = self.datacenter.racks
        self.nodes = self.datacenter.nodes
        self.rack_nodes = self.datacenter.rack_nodes
        self.dispatch = Dispatch(config.hooks, config.hook_concurrency, config.hook_retries_ns, config.hook_queue_max)
        self.ledger = Ledger()
        life = rng.getrandbits(32)
        self.chronicle = Chronicle(life)
        self.accuracy = Accuracy(life, restored)
        self.cells = RootCells(life)
        self.desk = Desk(self, life)
        self._tally_at = now + WRITE_NS
        #: True while people believe that this root is cut off from all its leaders.
        self.isolated = False
        #: Time that its own host was suspended.
        self.suspended_ns = 0
        #: Until when a death waits, by node: one leader tells it, and another that hears the node may know better.
        self._doubted: dict[str, int] = {}
        #: Racks of which a node has gone dark, or come back, since they were last looked at.
        self._stirred: dict[str, None] = {}
        self._questions = 0
        self._refusals = Refusals()
        #: What was refused, by reason.
        self.refused = self._refusals.counts
        self._done = False
        restored = restored or Restored()
        self.chronicle.newest = restored.newest_sequence
        self.alerts = Alerts(config, self.ledger, self.chronicle, self.wall, life, now, restored)
        #: Nodes that said goodbye, in the order in which they did, and the wall time of it.
        self._left: dict[str, int] = {}
        self._restore(restored, now)

    def _restore(self, restored: Restored, now: int) -> None:
        for state in restored.nodes:
            if state.forgotten:
                self.datacenter.forgotten[state.node] = None
                continue
            leader = self.leaders.get(state.node)
            if leader is not None:
                if state.open:
                    leader.standing = Standing.LOST
                    leader.cause = state.cause or Cause.LEADER_LOST
            elif state.node in self.racks:
                self.datacenter.rack_records[state.node].dark = bool(state.open)
            elif state.node == self.config.name:
                self.isolated = bool(state.open)
            elif state.rack in self.racks:
                record = self.datacenter.record(state.node, state.rack)
                if record is not None:
                    record.restore(state)
                    self._mind_left(record)
        self._left = dict(sorted(self._left.items(), key=lambda item: item[1]))
        for mark in restored.marks:
            owner = self.leaders.get(mark.leader)
            if owner is not None:
                owner.restore(mark)
        for run in restored.runs:
            if run.state is RunState.PENDING:
                self._owe(run, now)
        if self.isolated:
            for leader in self.leaders.values():
                if leader.standing is not Standing.LOST:
                    leader.standing, leader.cause = Standing.ISOLATED, Cause.ROOT_ISOLATED

    # ---- the crank ---------------------------------------------------------------------------------------

    def receive(self, sender: str, message: object, now: int) -> Effects:
        """Something arrived from the authenticated `sender`, or from the driver itself ("")."""
        handler = self._HANDLERS.get(type(message))
        if handler is None:
            return self._refuse(sender, "unexpected-type", now)
        effects = handler(self, sender, message, now)
        if not isinstance(message, (RackSummary, RackReports)):
            self._leaders_at = None
        if self._stirred:
            effects = (*effects, *self._look_at_racks(now))
        return (*effects, *self._progress(now))

    def wake(self, now: int) -> Effects:
        """The deadline came, and all sockets have been drained."""
        if self._done:
            return ()
        self._leaders_at = None
        effects: list[Effect] = []
        if now >= self._tick_at:
            self._tick(now)
        if now >= self._forget_at:
            self._forget_at = now + SECOND
            for record in self.datacenter.unexpected(now):
                self.datacenter.forget(record)
                self._doubted.pop(record.name, None)
                self.ledger.forget(record.name)
                self.alerts.forget(record.name)
                effects.append(Note("info", "forgotten", {"node": record.name}))
        self._look_at_left(now)
        effects.extend(self._ask_leaders(now))
        effects.extend(self._expire(now))
        for node in [node for node, until in self._doubted.items() if until <= now]:
            effects.extend(self._judge(self.nodes[node], None, None, now))
        if now >= self._tally_at and self.accuracy.watched_ns:
            self._tally_at = now + WRITE_NS
            self._write_tally()
        if self._stirred:
            effects.extend(self._look_at_racks(now))
        again = self.ledger.retry(now)
        if again is not None:
            effects.append(again)
        if self.ledger.stuck(now):
            effects.append(Note("error", "store-stuck", {"consequence": "hooks run, but a crash may repeat them"}))
        effects.extend(self.desk.expired(now))
        effects.extend(self.alerts.wake(now))
        for run in self.alerts.watchdog(now):
            self.dispatch.add(run, now)
        effects.extend(self._progress(now))
        return tuple(effects)

    def deadline(self) -> int | None:
        """When `wake` wants to be called."""
        if self._done:
            return None
        if self._leaders_at is None:
            self._leaders_at = min(map(self._leader_deadline, self.leaders.values()), default=self._tick_at)
        times = [self._tick_at, self._leaders_at]
        times.extend(self._doubted.values())
        others = (self.ledger.deadline(), self.dispatch.deadline(), self.desk.deadline(), self.alerts.deadline())
        times.extend(due for due in others if due is not None)
        return min(times)

    @property
    def lag_max_ns(self) -> int:
        """Largest lag of its own loop in the last half to whole minute."""
        return self._lag.lag_max_ns

    def _leader_deadline(self, leader: LeaderRecord) -> int:
        """When there is something to ask of a leader, or to tell of it; the next tick when there is not."""
        at = self._tick_at
        if leader.ask_at is not None:
            at = min(at, leader.ask_at)
        if leader.standing in (Standing.HELD, Standing.WAITED):
            at = min(at, leader.lease.expires_at)
        elif leader.standing is Standing.LAPSED:
            at = min(at, patience_ends(leader, self.config.lease_ns))
        return at

    def _tick(self, now: int) -> None:
        """Add this loop's own lag to the leases: while it stood still, nobody could be heard."""
        lag = self._lag.tick(self._tick_at, now)
        self._tick_at = now + TICK_NS
        if lag:
            for leader in self.leaders.values():
                leader.lease.extend(lag, now - lag)
                leader.lapsed_at += lag

    def _progress(self, now: int) -> Effects:
        """Start hooks whose turn it is, and send the next batch to disk when none is on its way."""
        if self._done:
            return ()
        for run in self.ledger.due_from_memory():
            self._owe(run, now)
        starting = self.dispatch.ready(now)
        writing = self.ledger.write(now)
        if writing is None:
            return starting
        self.desk.written(writing.token)
        return (*starting, writing)

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
        effects.extend(self.desk.kept(kept.token))
        return tuple(effects)

    def _keep_failed(self, sender: str, failed: KeepFailed, now: int) -> Effects:
        first = not self.ledger.degraded
        if not self.ledger.failed(failed.token, failed.reason, now):
            return ()
        told = self.desk.not_kept(failed.token, failed.reason)
        return (Note("error", "store-failed", {"reason": failed.reason}), *told) if first else told

    def _owe(self, run: HookRun, now: int) -> None:
        for given_up in self.dispatch.add(run, now):
            self.ledger.run(given_up)

    # ---- leaders -----------------------------------------------------------------------------------------

    def _ask_leaders(self, now: int) -> Iterable[Effect]:
        """Ask each leader that is late whether it is there: its kernel and its process may answer differently."""
        for leader in self.leaders.values():
            if leader.ask_at is None or leader.ask_at > now:
                continue
            held = leader.lease.held
            leader.ask_at = now + (self.config.lease_ns // 4 if held else self.config.lease_ns)
            if held and now + WITNESS_NS > leader.lease.expires_at:
                # Its answer would come too late to be counted, and the one before would be forgotten.
                continue
            self._questions += 1
            leader.ask(self._questions, now)
            yield Witness(leader.name, self._questions)
            yield Send(leader.name, Ping(number=self._questions))

    def _pong(self, sender: str, pong: Pong, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender)
        if leader is None:
            return self._refuse(sender, "forged-id", now)
        leader.answer(pong.number, now)
        return ()

    def _answered(self, sender: str, answered: Answered, now: int) -> Effects:
        leader = self.leaders.get(answered.peer)
        if leader is None or answered.path is not Path.KERNEL or answered.number != leader.asked:
            return ()
        leader.witness(answered.outcome, now)
        return self._not_stalled(leader, now)

    def _disconnected(self, sender: str, lost: Disconnected, now: int) -> Effects:
        leader = self.leaders.get(lost.peer)
        if leader is None:
            return ()
        leader.witness(Outcome.CLOSED, now)
        return self._not_stalled(leader, now)

    def _not_stalled(self, leader: LeaderRecord, now: int) -> Effects:
        """A leader that was told as stalled is gone: nobody is told twice that it is lost."""
        if leader.cause is not Cause.OBSERVER_STALLED or leader.witnessed is Outcome.ACKED:
            return ()
        leader.cause = Cause.LEADER_LOST
        leader.ask_at = None
        evidence = Evidence(text=leader.steps[-1].text if leader.steps else "its connection is closed")
        return self._leader_event(leader, Kind.LEADER_LOST, leader.cause, evidence, now, withheld="refined")

    def _expire(self, now: int) -> Effects:
        """Leases that have run out: who is lost, or whether it is the root that is cut off."""
        for leader in self.leaders.values():
            if leader.standing in (Standing.HELD, Standing.WAITED) and leader.lease.lapsed(now):
                leader.lease.drop()
                leader.standing = Standing.LAPSED
                leader.lapsed_at = now
                leader.ask_at = None
        lapses = decide(self.leaders.values(), self.config.lease_ns, now)
        effects: list[Effect] = []
        for leader in lapses.lost:
            effects.extend(self._lose(leader, now))
        if lapses.isolated:
            effects.extend(self._isolate(lapses.isolated, now))
        return tuple(effects)

    def _lose(self, leader: LeaderRecord, now: int) -> Effects:
        silent = now - (leader.lease.renewed_at if leader.lease.renewed_at is not None else self.started)
        text = f"no summary for {show_duration(silent)}; its lease was {show_duration(self.config.lease_ns)}"
        if leader.lease.renewed_at is None:
            text = f"not heard in the {show_duration(silent)} since this root started"
        leader.standing = Standing.LOST
        leader.cause = Cause.LEADER_LOST
        if leader.stalled:
            leader.cause = Cause.OBSERVER_STALLED
            leader.ask_at = now + self.config.lease_ns
            text += "; its host's kernel answers, its process does not"
        evidence = Evidence(text=text, silent_ns=silent, steps=tuple(leader.steps))
        effects = self._leader_event(leader, Kind.LEADER_LOST, leader.cause, evidence, now)
        return (*effects, *self._judge_racks(leader, now))

    def _isolate(self, leaders: list[LeaderRecord], now: int) -> Effects:
        """All leaders fell silent together."""
        for leader in leaders:
            leader.standing, leader.cause = Standing.ISOLATED, Cause.ROOT_ISOLATED
        silent = now - max(
            (leader.lease.renewed_at for leader in leaders if leader.lease.renewed_at is not None),
            default=self.started,
        )
        count = f"{len(leaders)} of {len(self.leaders)} leaders"
        text = f"{count} fell silent together {show_duration(silent)} ago: this root is cut off, or all its racks are"
        return self._root_event(Kind.ROOT_ISOLATED, Evidence(text=text, silent_ns=silent), now)

    def _rejoin(self, leader: LeaderRecord, now: int) -> Effects:
        """A leader is heard: the others, who fell silent with it, have a lease's length to follow."""
        self._leaders_at = None
        for other in self.leaders.values():
            if other.standing is Standing.ISOLATED:
                other.standing = Standing.WAITED
                other.lease.expires_at = now + self.config.lease_ns
        return self._root_event(Kind.LEADER_RECOVERED, Evidence(text=f"{leader.name} is heard again"), now)

    def _root_event(self, kind: Kind, evidence: Evidence, now: int) -> Effects:
        self.isolated = kind is Kind.ROOT_ISOLATED
        self.ledger.node(
            NodeState(
                node=self.config.name,
                rack="",
                liveness=Liveness.UNKNOWN if self.isolated else Liveness.ALIVE,
                cause=Cause.ROOT_ISOLATED if self.isolated else None,
                since_wall_ns=self.wall.at(now),
                open=kind.value if self.isolated else "",
            )
        )
        cause = Cause.ROOT_ISOLATED
        self._tell(kind, self.wall.at(now), now, cause=cause, evidence=evidence)
        return (Happened(self.config.name, kind, "", "", cause),)

    def _suspended(self, sender: str, suspended: Suspended, now: int) -> Effects:
        """This host slept, and its leaders gave up their connections: they have a whole lease to come back."""
        self.suspended_ns += suspended.suspended_ns
        lease_ns = self.config.lease_ns
        for leader in self.leaders.values():
            if leader.standing in (Standing.HELD, Standing.WAITED):
                leader.lease.expires_at = max(leader.lease.expires_at, now + lease_ns)
            elif leader.standing is Standing.LAPSED:
                leader.lapsed_at = now
            if leader.ask_at is not None:
                leader.ask_at = max(leader.ask_at, now + lease_ns // 2)
        return (Note("warning", "suspended", {"for": show_duration(suspended.suspended_ns)}),)

    def _renew(self, leader: LeaderRecord, summary: RackSummary, now: int) -> Effects:
        leader.stats = summary.stats
        leader.stats_at = now
        restarted = summary.epoch != leader.lease.epoch
        if restarted:
            leader.newest = 0
        leader.newest = max(leader.newest, summary.newest)
        leader.lease.renew(summary.epoch, now)
        before = leader.standing
        if restarted or before is not Standing.HELD:
            self._settle(leader, now)
        leader.heard(now + self.config.lease_ns // 2)
        if self._leaders_at is not None:
            self._leaders_at = min(self._leaders_at, self._leader_deadline(leader))
        effects: Effects = ()
        if before is Standing.LOST:
            evidence = Evidence(text=f"summaries again; up for {show_duration(summary.stats.uptime_ns)}")
            effects = self._leader_event(leader, Kind.LEADER_RECOVERED, None, evidence, now)
        return (*effects, *self._rejoin(leader, now)) if self.isolated else effects

    def _settle(self, leader: LeaderRecord, now: int) -> None:
        """A leader begins to listen: where nobody else has listened until now, its first silences wait."""
        for rack in leader.racks:
            others = (self.leaders[name] for name in self.racks[rack] if name != leader.name)
            if not any(other.standing is Standing.HELD for other in others):
                self.alerts.settle(rack, now)

    def _tell(self, kind: Kind, at_wall_ns: int, now: int, **fields: Any) -> Event:
        """Something happened: a line of history, and a decision for everybody who may want to be told."""
        return self.alerts.tell(self.chronicle.make(kind, at_wall_ns, **fields), now)

    def _leader_event(
        self,
        leader: LeaderRecord,
        kind: Kind,
        cause: Cause | None,
        evidence: Evidence,
        now: int,
        withheld: str = "",
    ) -> Effects:
        lost = kind is Kind.LEADER_LOST
        rack = leader.racks[0] if len(leader.racks) == 1 else ""
        self.ledger.node(
            NodeState(
                node=leader.name,
                rack=rack,
                liveness=Liveness.DEAD if lost else Liveness.ALIVE,
                cause=cause,
                since_wall_ns=self.wall.at(now),
                open=kind.value if lost else "",
            )
        )
        self._tell(
            kind,
            self.wall.at(now),
            now,
            rack=rack,
            leader=leader.name,
            cause=cause,
            evidence=evidence,
            withheld=withheld,
        )
        return () if withheld else (Happened(leader.name, kind, "", "", cause),)

    # ---- racks -------------------------------------------------------------------------------------------

    def _look_at_racks(self, now: int) -> Effects:
        """Racks of which nodes have gone dark or come back: one event for all of a rack."""
        effects: list[Effect] = []
        for name in self._stirred:
            rack = self.datacenter.rack_records.get(name)
            speaking = [leader for leader in map(self.leaders.get, self.racks.get(name, ())) if leader is not None]
            said = [name in leader.dark_ns for leader in speaking if leader.lease.held]
            counts = rack.look(self.rack_nodes[name], bool(said) and all(said)) if rack is not None else None
            if rack is None or counts is None:
                continue
            dark, total = counts
            kind, cause = (Kind.RACK_DARK, Cause.RACK_DARK) if rack.dark else (Kind.RACK_RECOVERED, None)
            leaders = [self.leaders[leader] for leader in self.racks[name]]
            told_by = next((leader for leader in leaders if leader.lease.held), leaders[0])
            text = f"{dark} of {total} nodes fell silent at once, and no leader hears them"
            if not rack.dark:
                text = f"{total - dark} of {total} nodes are heard again"
            silent = told_by.dark_ns.get(name) if rack.dark else None
            self.ledger.node(
                NodeState(
                    node=name,
                    rack=name,
                    liveness=Liveness.UNKNOWN if rack.dark else Liveness.ALIVE,
                    cause=cause,
                    since_wall_ns=self.wall.at(now),
                    open=kind.value if rack.dark else "",
                )
            )
            evidence = Evidence(text=text, silent_ns=silent)
            self._tell(kind, self.wall.at(now), now, rack=name, leader=told_by.name, cause=cause, evidence=evidence)
            effects.append(Happened(name, kind, "", "", cause))
        self._stirred.clear()
        return tuple(effects)

    # ---- summaries ---------------------------------------------------------------------------------------

    def _summary(self, sender: str, summary: RackSummary, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender, summary.rack)
        if leader is None:
            return self._refuse(sender, "forged-rack", now)
        verdict = leader.order.judge(summary.epoch, summary.number << PAGE_BITS | summary.page)
        if verdict not in (Verdict.FRESH, Verdict.RESTART):
            return self._refuse(sender, verdict.value, now)
        effects = list(self._renew(leader, summary, now))
        if summary.dark_ns is None:
            leader.dark_ns.pop(summary.rack, None)
        else:
            leader.dark_ns[summary.rack] = summary.dark_ns
        if summary.rack in leader.dark_ns or self.datacenter.rack_records[summary.rack].dark:
            self._stirred[summary.rack] = None
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
        node = f"{summary.rack}/{row.node}"
        if node in self.datacenter.forgotten and not self._remembered(node, row.liveness):
            return ()
        record = self.datacenter.record(node, summary.rack)
        if record is None:
            return self._refuse(leader.name, "too-many-nodes", now)
        told: Effects = ()
        if row.age_ns is not None:
            told = self._health_row(record, row, leader, now)
            self._watch(record, now)
        return (*told, *self._liveness_row(record, leader, summary, row, complete, now))

    def _liveness_row(
        self,
        record: NodeRecord,
        leader: LeaderRecord,
        summary: RackSummary,
        row: NodeRow,
        complete: bool,
        now: int,
    ) -> Effects:
        seen = record.seen_by(leader.name, now)
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
            if not complete and now - seen.ahead_since < self.config.patience_ns:
                return ()
            seen.believe(row, summary.epoch, now)
        else:
            return ()
        if seen.liveness is record.told and seen.cause is record.cause and seen.speaks and len(record.seen) == 1:
            record.incarnation, record.sequence = seen.incarnation, seen.sequence
            return ()
        return self._judge(record, None, leader, now)

    def _reports(self, sender: str, reports: RackReports, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender, reports.rack)
        if leader is None:
            return self._refuse(sender, "forged-rack", now)
        for item in reports.reports:
            record = self.nodes.get(f"{reports.rack}/{item.node}")
            if record is None:
                continue
            old = record.report
            if old is not None and old.incarnation == item.report.incarnation and old.number > item.report.number:
                continue
            record.report = item.report
            record.report_at = now - item.age_ns
            record.told_health.passed_on(item.report, now)
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
        if transition.node in self.datacenter.forgotten and not self._remembered(transition.node, transition.after):
            return ()
        record = self.datacenter.record(transition.node, rack_of(transition.node))
        if record is None:
            return self._refuse(leader.name, "too-many-nodes", now)
        if transition.kind is Kind.NODE_ACCOUNTED:
            self._accounted(leader, record, transition, now)
            return ()
        if transition.kind is Kind.HEALTH_CHANGED:
            news = record.told_health.take(transition)
            return self._tell_health(record, news, leader, transition, now) if news is not None else ()
        seen = record.seen_by(leader.name, now)
        if not seen.apply(transition, batch.epoch, batch.present, now - _age_of(transition, batch)):
            self._tell(
                transition.kind,
                transition.at_wall_ns or self.wall.at(now),
                now,
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

    # ---- health ------------------------------------------------------------------------------------------

    def _health_row(self, record: NodeRecord, row: NodeRow, leader: LeaderRecord, now: int) -> Effects:
        """What a summary says of a node's health: believed when it goes on saying what no transition has told."""
        health = record.told_health
        if row.liveness not in (Liveness.ALIVE, Liveness.SUSPECT):
            return ()
        health.row(row.health, record.report, now)
        if not health.overdue(self.config.patience_ns, now):
            return ()
        news = health.believe(row.health, record.report)
        return self._tell_health(record, news, leader, None, now) if news is not None else ()

    def _tell_health(
        self, record: NodeRecord, news: News, leader: LeaderRecord, said: Transition | None, now: int
    ) -> Effects:
        """The health of a node, or of a part of it, is another. Whether it lives is another matter."""
        text = sentence(news.changes, news.before, news.after)
        if said is not None:
            evidence = msgspec.structs.replace(said.evidence, text=text, changes=told(news.changes))
        else:
            text += " (told by a summary; the transition itself was lost)"
            evidence = Evidence(text=text, incarnation=record.told_health.incarnation, changes=told(news.changes))
        shown = self.shown(record)
        self._tell(
            Kind.HEALTH_CHANGED,
            (said.at_wall_ns if said is not None else 0) or self.wall.at(now),
            now,
            node=record.name,
            rack=record.rack,
            leader=leader.name,
            liveness_from=shown.liveness,
            liveness_to=shown.liveness,
            health_from=news.before,
            health_to=news.after,
            cause=shown.cause,
            evidence=evidence,
        )
        self.ledger.node(record.state())
        return (Happened(record.name, Kind.HEALTH_CHANGED, news.before.value, news.after.value, shown.cause),)

    # ---- what was asked of a node ------------------------------------------------------------------------

    def _drill_begun(self, sender: str, begun: DrillBegun, now: int) -> Effects:
        told = self.desk.drill_begun(sender, begun)
        return told if told is not None else self._refuse(sender, "unasked", now)

    def _evidence_page(self, sender: str, page: EvidencePage, now: int) -> Effects:
        told = self.desk.evidence_page(sender, page)
        return told if told is not None else self._refuse(sender, "unasked", now)

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
        self, record: NodeRecord, transition: Transition | None, leader: LeaderRecord | None, now: int
    ) -> Effects:
        """Merge the views of a node, and tell when that is news."""
        views = self.datacenter.observers(record)
        merged = merge(views)
        if merged is None:
            self._doubted.pop(record.name, None)
            return self._absent(record, leader, now)
        if self._is_doubted(record, merged, now):
            return ()
        basis = merged.basis
        restarted = (
            transition is not None
            and transition.kind is Kind.NODE_RESTARTED
            and merged.liveness is Liveness.ALIVE
            and transition.incarnation != record.incarnation
        )
        kind = Kind.NODE_RESTARTED if restarted else record.kind_of(merged, record.incarnation)
        was_dark, cause_before = is_dark(record), record.cause
        record.cause = merged.cause
        record.incarnation, record.sequence = basis.incarnation, basis.sequence
        if merged.liveness is record.told and not restarted:
            if merged.cause is not cause_before:
                self.ledger.node(record.state())
                if transition is not None and leader is not None and record.told is Liveness.SUSPECT:
                    self._history(record, transition, leader, now, "refined")
            if was_dark is not is_dark(record):
                self._stirred[record.rack] = None
            return ()
        evidence = transition.evidence if transition is not None else basis.evidence
        if evidence is None:
            age = None if basis.heard_at is None else now - basis.heard_at
            evidence = Evidence(text="told by a summary; the transition itself was lost", silent_ns=age)
        told_by = leader.name if leader is not None and transition is not None else basis.leader
        # That another observer does not hear it, or not yet, is no reason for its return.
        cause = None if basis.liveness is Liveness.ALIVE else merged.cause
        value = Shown(merged.liveness, cause)
        return self._change(record, kind, value, evidence, transition, told_by, now, was_dark)

    def _is_doubted(self, record: NodeRecord, merged: Merged, now: int) -> bool:
        """True while a death waits for the next word of an observer that hears the node.

        Summaries come five times in a lease. Who has missed one and a half of them may have no next word.
        """
        patience_ns = 3 * self.config.lease_ns // 10
        until = 0
        if record.told is not Liveness.DEAD:
            for view in merged.doubters:
                renewed_at = self.leaders[view.leader].lease.renewed_at
                if renewed_at is not None and view.described_at < merged.basis.since:
                    until = max(until, renewed_at + patience_ns)
        if until <= now:
            self._doubted.pop(record.name, None)
            return False
        self._doubted[record.name] = until
        if record.told is Liveness.ALIVE:
            record.cause = Cause.LINK_CUT
        return True

    def _history(self, record: NodeRecord, said: Transition, leader: LeaderRecord, now: int, withheld: str) -> None:
        """More is known of a node that stays what it was told to be: a line of history, and nobody is told."""
        told = record.told or Liveness.UNKNOWN
        self._tell(
            said.kind,
            said.at_wall_ns or self.wall.at(now),
            now,
            node=record.name,
            rack=record.rack,
            leader=leader.name,
            liveness_from=told,
            liveness_to=told,
            health_from=record.health,
            health_to=record.health,
            cause=said.cause,
            evidence=said.evidence,
            withheld=withheld,
        )

    def _absent(self, record: NodeRecord, leader: LeaderRecord | None, now: int) -> Effects:
        """Nobody speaks for the node. If it was alive and every leader has listened long enough, it is dead."""
        if record.told not in (Liveness.ALIVE, Liveness.SUSPECT) or self.datacenter.someone_is_lost(record.rack):
            return ()
        listened = self.datacenter.listened_ns(record.rack)
        if min(listened, now - self.started) < self.config.join_grace_ns + ABSENCE_SLACK_NS:
            return ()
        since = show_duration(listened)
        text = f"known alive, and no leader of its rack has heard it since its start {since} ago"
        record.cause = Cause.SILENCE
        dead = Shown(Liveness.DEAD, record.cause)
        told_by = leader.name if leader is not None else ""
        return self._change(record, Kind.NODE_DEAD, dead, Evidence(text=text), None, told_by, now)

    def _change(
        self,
        record: NodeRecord,
        kind: Kind,
        value: Shown,
        evidence: Evidence,
        transition: Transition | None,
        leader: str,
        now: int,
        was_dark: bool = False,
    ) -> Effects:
        before = record.told
        outage = was_dark and value.liveness is Liveness.ALIVE
        goes_dark = value.liveness is Liveness.UNKNOWN and value.cause is Cause.RACK_DARK
        at_wall_ns = transition.at_wall_ns if transition is not None else 0
        event = self._tell(
            kind,
            at_wall_ns or self.wall.at(now),
            now,
            node=record.name,
            rack=record.rack,
            leader=leader,
            liveness_from=before or Liveness.UNKNOWN,
            liveness_to=value.liveness,
            health_from=record.health,
            health_to=record.health,
            cause=value.cause,
            evidence=evidence,
            withheld=Cause.RACK_DARK.value if outage or goes_dark else "",
            observers=tuple(
                (view.leader, view.liveness, view.cause) for view in self.datacenter.observers(record) if view.speaks
            ),
        )
        self._book(record, event, value)
        record.tell(value.liveness, kind, event.at_wall_ns)
        self._mind_left(record)
        if was_dark or goes_dark:
            self._stirred[record.rack] = None
        self.ledger.node(record.state())
        before_word = before.value if before is not None else Liveness.UNKNOWN.value
        return (Happened(record.name, kind, before_word, value.liveness.value, value.cause),)

    def _mind_left(self, record: NodeRecord) -> None:
        """Remember who said goodbye, and is not yet told to have been away for too long."""
        if record.told is Liveness.LEFT and not record.open:
            self._left[record.name] = record.since_wall_ns
        else:
            self._left.pop(record.name, None)

    def _look_at_left(self, now: int) -> None:
        """Tell of nodes that said goodbye and stay away."""
        wall = self.wall.at(now)
        for node, since in list(self._left.items()):
            if not wall or wall - since < self.config.left_warn_after_ns:
                break
            del self._left[node]
            record = self.nodes.get(node)
            if record is None:
                continue
            text = f"it said goodbye {show_duration(wall - since)} ago, is expected, and has not come back"
            self._tell(
                Kind.NODE_AWAY,
                wall,
                now,
                node=node,
                rack=record.rack,
                liveness_from=Liveness.LEFT,
                liveness_to=Liveness.LEFT,
                health_from=record.health,
                health_to=Health.WARNING,
                cause=Cause.LEFT,
                evidence=Evidence(text=text),
            )
            record.open = Kind.NODE_AWAY.value
            self.ledger.node(record.state())

    def forget(self, node: str, by: str, now: int) -> None:
        """An operator says that a node is gone for good: nothing is shown or told of it until it is heard again.

        Raises ValueError for one that nobody knows, or that lives.
        """
        record = self.nodes.get(node)
        if record is None:
            raise ValueError(f"no node {node!r} is known; see: hbagent nodes")
        shown = self.shown(record)
        if shown.liveness in (Liveness.ALIVE, Liveness.SUSPECT):
            raise ValueError(f"{node} is {shown.liveness.value}: end its agent first, or it comes back at once")
        self._tell(
            Kind.NODE_LEFT,
            self.wall.at(now),
            now,
            node=node,
            rack=record.rack,
            liveness_from=shown.liveness,
            liveness_to=Liveness.LEFT,
            health_from=record.health,
            health_to=record.health,
            cause=Cause.LEFT,
            evidence=Evidence(text=f"{by} said that it is gone for good"),
        )
        self.datacenter.forget(record)
        self.datacenter.forgotten[node] = None
        self.alerts.forget(node)
        self._doubted.pop(node, None)
        self._left.pop(node, None)
        self._stirred[record.rack] = None
        self.ledger.node(NodeState(node=node, rack=record.rack, liveness=Liveness.LEFT, forgotten=True))

    def _remembered(self, node: str, liveness: Liveness) -> bool:
        """True when a node that was forgotten lives, and is to be shown again."""
        if liveness is not Liveness.ALIVE:
            return False
        del self.datacenter.forgotten[node]
        return True

    # ---- accuracy ----------------------------------------------------------------------------------------

    def _watch(self, record: NodeRecord, now: int) -> None:
        """A leader spoke for the node: the time since it last did was watched, if the node is held to live."""
        since, record.watched_at = record.watched_at, now
        if since is None or now - since > self.config.lease_ns:
            return
        if record.told in (Liveness.ALIVE, Liveness.SUSPECT):
            self.accuracy.watch(now - since)

    def _book(self, record: NodeRecord, event: Event, value: Shown) -> None:
        """A death, or the return of somebody who was called dead."""
        if value.liveness is Liveness.DEAD:
            silent = event.evidence.silent_ns if event.evidence is not None else None
            conviction = Conviction(
                event_id=event.event_id,
                node=record.name,
                cause=value.cause or Cause.SILENCE,
                at_wall_ns=event.at_wall_ns,
                detection_ns=silent,
                incarnation=record.incarnation,
            )
            for event_id in self.accuracy.convict(conviction):
                self.ledger.fold(event_id)
            self.ledger.conviction(conviction)
            self._write_tally()
        elif value.liveness in (Liveness.ALIVE, Liveness.LEFT):
            wrong = self.accuracy.back(record.name, record.incarnation, event.at_wall_ns)
            if wrong is not None:
                self.ledger.conviction(wrong)

    def _accounted(self, leader: LeaderRecord, record: NodeRecord, transition: Transition, now: int) -> None:
        """A node says why it was silent: for the history, and for the verdict that was wrong about it."""
        record.seen_by(leader.name, now).accounted = transition.evidence
        self._history(record, transition, leader, now, "accounted")
        wrong = self.accuracy.account(record.name, transition.incarnation, transition.evidence.text)
        if wrong is not None:
            self.ledger.conviction(wrong)

    def _write_tally(self) -> None:
        if not self.accuracy.since_wall_ns:
            self.accuracy.since_wall_ns = self.wall.at(self.started)
        self.ledger.tally(self.accuracy.tally())

    # ---- hooks -------------------------------------------------------------------------------------------

    def _hook_finished(self, sender: str, result: HookFinished, now: int) -> Effects:
        tested = self.desk.hook_tested(result)
        if tested is not None:
            return tested
        run = self.dispatch.finished(result, now, self.wall.at(now))
        if run is None:
            return ()
        if run.kind is not Kind.WATCHDOG:
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
        self.config = config
        self.alerts.use(config)
        self.dispatch.reconfigure(config.hooks, config.hook_concurrency, config.hook_retries_ns, config.hook_queue_max)
        gone = self.datacenter.reconfigure(config, now)
        for name in gone:
            self._doubted.pop(name, None)
            self.ledger.forget(name)
            self.alerts.forget(name)
        return (Note("info", "membership", {"racks": len(self.racks), "forgotten": len(gone)}),)

    def _terminate(self, sender: str, message: Terminate, now: int) -> Effects:
        self._done = True
        if self.accuracy.watched_ns:
            self._write_tally()
        writing = self.ledger.write(now)
        return (Exit(),) if writing is None else (writing, Exit())

    def _query(self, sender: str, query: Query, now: int) -> Effects:
        return self.desk.query(sender, query, now)

    def _ordered(self, sender: str, ordered: Ordered, now: int) -> Effects:
        return self.desk.order(sender, ordered, now)

    def _revived(self, sender: str, revived: Revived, now: int) -> Effects:
        return self.desk.revived(revived, now)

    def _posted(self, sender: str, posted: Posted, now: int) -> Effects:
        self.alerts.sinks.posted(posted, now)
        return ()

    _HANDLERS: ClassVar[dict[type, Callable[[Any, str, Any, int], Effects]]] = {
        RackSummary: _summary,
        RackReports: _reports,
        Transitions: _transitions,
        EvidencePage: _evidence_page,
        DrillBegun: _drill_begun,
        Pong: _pong,
        Answered: _answered,
        Disconnected: _disconnected,
        Suspended: _suspended,
        Kept: _kept,
        KeepFailed: _keep_failed,
        HookFinished: _hook_finished,
        Refused: _refused,
        WallTime: _wall_time,
        Reconfigured: _reconfigured,
        Terminate: _terminate,
        Query: _query,
        Ordered: _ordered,
        Revived: _revived,
        Posted: _posted,
    }


def _age_of(transition: Transition, batch: Transitions) -> int:
    """How long the leader had kept a transition when it sent it; 0 when that is not known.

    What waited for this root to be reached again must not pass for news beside what another leader has heard since.
    """
    if batch.epoch != batch.present or not transition.at_mono_ns or not batch.sent_mono_ns:
        return 0
    return max(0, batch.sent_mono_ns - transition.at_mono_ns)
