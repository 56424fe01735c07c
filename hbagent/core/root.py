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

from .accuracy import Accuracy
from .alerts import Alerts
from .changes import apart, sentence, told
from .chronicle import Chronicle
from .config import RootConfig
from .datacenter import FORGET_NS, Datacenter
from .desk import Desk
from .dispatch import Dispatch
from .effects import Effect, Effects, Exit, Happened, Note, Send
from .fleet import NodeRecord, Shown
from .healthrecord import News
from .leaderrecord import LeaderRecord, Standing
from .leases import Leases
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
from .records import Event, HookRun, NodeState, Restored, RunState
from .refusals import Refusals
from .rootcells import RootCells
from .states import Cause, Kind, Liveness
from .units import SECOND, show_duration
from .verdicts import Verdicts
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
        self.leases = Leases(self)
        self.verdicts = Verdicts(self, now)
        #: Racks of which a node has gone dark, or come back, since they were last looked at.
        self.stirred: dict[str, None] = {}
        self._refusals = Refusals()
        #: What was refused, by reason.
        self.refused = self._refusals.counts
        self._done = False
        restored = restored or Restored()
        self.chronicle.newest = restored.newest_sequence
        self.alerts = Alerts(config, self.ledger, self.chronicle, self.wall, life, now, restored, self.datacenter.say)
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
                self.leases.isolated = bool(state.open)
            elif state.rack in self.racks:
                record = self.datacenter.record(state.node, state.rack)
                if record is not None:
                    record.restore(state)
                    self.verdicts.restored(record)
        self.datacenter.expect_nodes(self.config, 0)
        for mark in restored.marks:
            owner = self.leaders.get(mark.leader)
            if owner is not None:
                owner.restore(mark)
        for run in restored.runs:
            if run.state is RunState.PENDING:
                self._owe(run, now)
        if self.leases.isolated:
            for leader in self.leaders.values():
                if leader.standing is not Standing.LOST:
                    leader.standing, leader.cause = Standing.ISOLATED, Cause.ROOT_ISOLATED

    # ---- the crank ---------------------------------------------------------------------------------------

    def receive(self, sender: str, message: object, now: int) -> Effects:
        """Something arrived from the authenticated `sender`, or from the driver itself ("")."""
        handler = self._HANDLERS.get(type(message))
        if handler is None:
            return self.refuse(sender, "unexpected-type", now)
        effects = handler(self, sender, message, now)
        if not isinstance(message, (RackSummary, RackReports)):
            self.leases.changed()
        if self.stirred and not isinstance(message, Transitions):
            effects = (*effects, *self._look_at_racks(now))
        return (*effects, *self._progress(now))

    def wake(self, now: int) -> Effects:
        """The deadline came, and all sockets have been drained."""
        if self._done:
            return ()
        self.leases.changed()
        effects: list[Effect] = []
        if now >= self._tick_at:
            self._tick(now)
        if now >= self._forget_at:
            self._forget_at = now + SECOND
            for record in self.datacenter.unexpected(now):
                self.alerts.retire(record.name, "no leader expects it any more", now)
                self.datacenter.forget(record)
                self.verdicts.forget(record.name)
                self.ledger.forget(record.name)
                effects.append(Note("info", "forgotten", {"node": record.name}))
        effects.extend(self.leases.ask_leaders(now))
        effects.extend(self.leases.expire(now))
        effects.extend(self.verdicts.wake(now))
        if self.stirred:
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
        if self.stirred:
            # The verdicts about one rack come in several messages: all that waits is taken in, and then it is counted.
            return 0
        parts = (self.leases, self.verdicts, self.ledger, self.dispatch, self.desk, self.alerts)
        due = [at for part in parts if (at := part.deadline()) is not None]
        return min(self._tick_at, *due) if due else self._tick_at

    @property
    def lag_max_ns(self) -> int:
        """Largest lag of its own loop in the last half to whole minute."""
        return self._lag.lag_max_ns

    def _tick(self, now: int) -> None:
        """Add this loop's own lag to the leases: while it stood still, nobody could be heard."""
        lag = self._lag.tick(self._tick_at, now)
        self._tick_at = now + TICK_NS
        if lag:
            self.leases.extend(lag, now - lag)

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

    def tell(self, kind: Kind, at_wall_ns: int, now: int, **fields: Any) -> Event:
        """Something happened: a line of history, and a decision for everybody who may want to be told."""
        return self.alerts.tell(self.chronicle.make(kind, at_wall_ns, **fields), now)

    # ---- racks -------------------------------------------------------------------------------------------

    def _look_at_racks(self, now: int) -> Effects:
        """Racks of which nodes have gone dark or come back: one event for all of a rack."""
        effects: list[Effect] = []
        for name in self.stirred:
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
            self.tell(kind, self.wall.at(now), now, rack=name, leader=told_by.name, cause=cause, evidence=evidence)
            effects.append(Happened(name, kind, "", "", cause))
        self.stirred.clear()
        return tuple(effects)

    # ---- summaries ---------------------------------------------------------------------------------------

    def _summary(self, sender: str, summary: RackSummary, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender, summary.rack)
        if leader is None:
            return self._not_theirs(sender, summary.rack, "forged-rack", now)
        verdict = leader.order.judge(summary.epoch, summary.number << PAGE_BITS | summary.page)
        if verdict not in (Verdict.FRESH, Verdict.RESTART):
            return self.refuse(sender, verdict.value, now)
        effects = list(self.leases.renew(leader, summary, now))
        if summary.dark_ns is None:
            leader.dark_ns.pop(summary.rack, None)
        else:
            leader.dark_ns[summary.rack] = summary.dark_ns
        if summary.rack in leader.dark_ns or self.datacenter.rack_records[summary.rack].dark:
            self.stirred[summary.rack] = None
        complete = leader.taken(summary.epoch) >= summary.newest
        for row in summary.nodes:
            if not is_part(row.node):
                effects.extend(self.refuse(sender, "malformed", now))
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
            return self.refuse(leader.name, "too-many-nodes", now)
        # That it lives first: how it is counts for what is known of it then.
        told = self._liveness_row(record, leader, summary, row, complete, now)
        if row.age_ns is not None:
            told = (*told, *self._health_row(record, row, leader, now))
            self.verdicts.watch(record, now)
        return told

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
        return self.verdicts.judge(record, None, leader, now)

    def _reports(self, sender: str, reports: RackReports, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender, reports.rack)
        if leader is None:
            return self._not_theirs(sender, reports.rack, "forged-rack", now)
        for item in reports.reports:
            record = self.nodes.get(f"{reports.rack}/{item.node}")
            if record is None:
                continue
            old = record.report
            if old is not None and old.incarnation == item.report.incarnation and old.number > item.report.number:
                continue
            record.report = item.report
            record.report_at = now - item.age_ns
            # An older leader passes on none: of another life of the agent nobody knows it then.
            if item.version or old is None or old.incarnation != item.report.incarnation:
                record.version = item.version
            record.told_health.passed_on(item.report, now)
        return ()

    # ---- transitions -------------------------------------------------------------------------------------

    def _transitions(self, sender: str, batch: Transitions, now: int) -> Effects:
        leader = self.datacenter.leader_of(sender)
        if leader is None:
            rack = rack_of(batch.items[0].node) if batch.items else sender
            return self._not_theirs(sender, rack, "forged-id", now)
        if not leader.lease.held:
            # What it says could not be told now, and taken in it would not be sent again.
            return ()
        mark = max(leader.taken(batch.epoch), batch.base - 1)
        if batch.after > mark:
            return self.refuse(sender, "gap", now)
        effects: list[Effect] = []
        if batch.dropped > leader.folded:
            fields = {"leader": sender, "verdicts": batch.dropped - leader.folded}
            effects.append(Note("warning", "verdicts-folded", fields))
        leader.folded = batch.dropped
        for transition in batch.items:
            if transition.number <= mark:
                continue
            mark = transition.number
            rack = rack_of(transition.node)
            if rack not in leader.racks:
                effects.extend(self._not_theirs(sender, rack, "forged-rack", now))
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
            return self.refuse(leader.name, "too-many-nodes", now)
        if transition.kind is Kind.NODE_ACCOUNTED:
            self.verdicts.accounted(leader, record, transition, now)
            return ()
        if transition.kind is Kind.HEALTH_CHANGED:
            news = record.told_health.take(transition)
            return self._tell_health(record, news, leader, transition, now) if news is not None else ()
        seen = record.seen_by(leader.name, now)
        if not seen.apply(transition, batch.epoch, batch.present, now - _age_of(transition, batch)):
            self.tell(
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
        return self.verdicts.judge(record, transition, leader, now)

    # ---- health ------------------------------------------------------------------------------------------

    def _health_row(self, record: NodeRecord, row: NodeRow, leader: LeaderRecord, now: int) -> Effects:
        """What a summary says of a node's health: believed when it goes on saying what no transition has told."""
        health = record.told_health
        if row.liveness not in (Liveness.ALIVE, Liveness.SUSPECT):
            return ()
        if not health.counts(row, record.report):
            return ()
        health.row(row.health, now)
        if not health.overdue(self.config.patience_ns, now):
            return ()
        found = not health.known
        news = health.believe(row.health, record.report)
        how = "found so when it was first heard of" if found else "told by a summary; no transition told of it"
        return self._tell_health(record, news, leader, None, now, how) if news is not None else ()

    def _tell_health(
        self, record: NodeRecord, news: News, leader: LeaderRecord, said: Transition | None, now: int, how: str = ""
    ) -> Effects:
        """The health of a node, or of a part of it, is another. Whether it lives is another matter."""
        shown = self.shown(record)
        # Whoever tells how it is has heard it.
        cause = shown.cause if shown.cause is not Cause.NEVER_SEEN else None
        for before, after, changes in apart(news.changes, news.before, news.after, record.told_health.parts):
            text = sentence(changes, before, after)
            if said is not None:
                evidence = msgspec.structs.replace(said.evidence, text=text, changes=told(changes))
            else:
                text += f" ({how})"
                evidence = Evidence(text=text, incarnation=record.told_health.incarnation, changes=told(changes))
            self.tell(
                Kind.HEALTH_CHANGED,
                (said.at_wall_ns if said is not None else 0) or self.wall.at(now),
                now,
                node=record.name,
                rack=record.rack,
                leader=leader.name,
                liveness_from=shown.liveness,
                liveness_to=shown.liveness,
                health_from=before,
                health_to=after,
                cause=cause,
                evidence=evidence,
            )
        self.ledger.node(record.state())
        return (Happened(record.name, Kind.HEALTH_CHANGED, news.before.value, news.after.value, cause),)

    # ---- what was asked of a node ------------------------------------------------------------------------

    def _drill_begun(self, sender: str, begun: DrillBegun, now: int) -> Effects:
        told = self.desk.drill_begun(sender, begun)
        return told if told is not None else self.refuse(sender, "unasked", now)

    def _evidence_page(self, sender: str, page: EvidencePage, now: int) -> Effects:
        told = self.desk.evidence_page(sender, page)
        return told if told is not None else self.refuse(sender, "unasked", now)

    # ---- verdicts ----------------------------------------------------------------------------------------

    def shown(self, record: NodeRecord) -> Shown:
        """What a console is told of `record` now."""
        return self.datacenter.shown(record)

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
        self.tell(
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
        self.alerts.retire(node, f"{by} said that it is gone for good", now)
        self.datacenter.forget(record)
        self.datacenter.forgotten[node] = None
        self.verdicts.forget(node)
        self.stirred[record.rack] = None
        self.ledger.node(NodeState(node=node, rack=record.rack, liveness=Liveness.LEFT, forgotten=True))

    def _remembered(self, node: str, liveness: Liveness) -> bool:
        """True when a node that was forgotten lives, and is to be shown again."""
        if liveness is not Liveness.ALIVE:
            return False
        del self.datacenter.forgotten[node]
        return True

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
        self.alerts.hook_ended(run, now)
        fields = {"hook": run.hook, "event": run.event_id, "attempt": run.attempt}
        if run.state is RunState.DONE:
            return (Note("info", "hook-done", {**fields, "took": show_duration(result.duration_ns)}),)
        fields |= {"error": run.error, "output": result.output[-500:].decode("utf-8", "replace")}
        if run.state is RunState.DEAD:
            return (Note("error", "hook-given-up", fields),)
        return (Note("warning", "hook-failed", fields),)

    # ---- the rest ----------------------------------------------------------------------------------------

    def _refused(self, sender: str, refused: Refused, now: int) -> Effects:
        return self.refuse(refused.sender, refused.reason, now)

    def refuse(self, sender: str, reason: str, now: int) -> Effects:
        return self._refusals.add(sender, reason, now)

    def _not_theirs(self, leader: str, rack: str, reason: str, now: int) -> Effects:
        """A leader speaks for a rack that is not its own: of one that is in no config any more, or not yet, that is
        somebody's unfinished work and no attack."""
        if rack in self.racks:
            return self.refuse(leader, reason, now)
        if not self._refusals.add_once("unconfigured-rack", leader, rack):
            return ()
        remedy = "give it a [[rack]] in the root's file, or take it out of the leader's"
        return (Note("warning", "unconfigured-rack", {"leader": leader, "rack": rack, "remedy": remedy}),)

    def _wall_time(self, sender: str, wall: WallTime, now: int) -> Effects:
        first = not self.wall.at(now)
        step = self.wall.tell(wall.wall_ns, now)
        if first:
            self.datacenter.expect_nodes(self.config, wall.wall_ns)
        return (Note("warning", "wall-jump", {"step": show_duration(step)}),) if step else ()

    def _reconfigured(self, sender: str, message: Reconfigured, now: int) -> Effects:
        """The config was read again: other hooks, other racks. A leader that stays keeps its lease and its marks."""
        config: RootConfig = message.config
        self.config = config
        self._refusals.reconfigured()
        self.alerts.use(config)
        self.dispatch.reconfigure(config.hooks, config.hook_concurrency, config.hook_retries_ns, config.hook_queue_max)
        gone = self.datacenter.reconfigure(config, now)
        self.datacenter.expect_nodes(config, self.wall.at(now))
        for name in gone:
            self.verdicts.forget(name)
            self.ledger.forget(name)
            self.alerts.retire(name, "it is in the config no more", now)
        return (Note("info", "membership", {"racks": len(self.racks), "forgotten": len(gone)}),)

    def _terminate(self, sender: str, message: Terminate, now: int) -> Effects:
        self._done = True
        if self.accuracy.watched_ns:
            self.verdicts.write_tally()
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
        Pong: lambda self, sender, pong, now: self.leases.pong(sender, pong, now),
        Answered: lambda self, sender, answered, now: self.leases.answered(answered, now),
        Disconnected: lambda self, sender, lost, now: self.leases.disconnected(lost, now),
        Suspended: lambda self, sender, suspended, now: self.leases.suspended(suspended, now),
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
