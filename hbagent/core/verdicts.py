"""What is told of each node: the views of its leaders merged, and a verdict when that is news.

A verdict is a row of the ledger and a matter for the alerts in one go. What is no news is kept in mind: who may know
better and has not spoken yet, who said goodbye and should be back by now, and how often verdicts were right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .accuracy import WRITE_NS
from .effects import Effect, Effects, Happened
from .fleet import Merged, NodeRecord, Shown, merge
from .leaderrecord import LeaderRecord
from .messages import Evidence, Transition
from .rackrecord import is_dark
from .records import Conviction, Event
from .states import Axis, Cause, Health, Kind, Liveness
from .units import SECOND, show_duration

if TYPE_CHECKING:
    from .root import RootCore

#: A root that finds no observer for a node waits this much longer than the leader itself would.
ABSENCE_SLACK_NS = 2 * SECOND


class Verdicts:
    """The nodes of one root."""

    def __init__(self, root: RootCore, now: int) -> None:
        self._root = root
        self._tally_at = now + WRITE_NS
        #: Until when a death waits, by node: one leader tells it, and another that hears the node may know better.
        self._doubted: dict[str, int] = {}
        #: Nodes that said goodbye, in the order in which the root heard it, and when it did: no wall clock moves that.
        self._left: dict[str, int] = {}
        #: Those that an earlier life heard it of, and the wall time at which it did, until the time is known.
        self._left_before: dict[str, int] = {}

    def wake(self, now: int) -> Effects:
        """Look at what is due."""
        self._look_at_left(now)
        told = [
            self.judge(self._root.nodes[node], None, None, now)
            for node in [node for node, until in self._doubted.items() if until <= now]
        ]
        if now >= self._tally_at and self._root.accuracy.watched_ns:
            self._tally_at = now + WRITE_NS
            self.write_tally()
        return tuple(effect for effects in told for effect in effects)

    def deadline(self) -> int | None:
        """When a death has waited for long enough."""
        return min(self._doubted.values(), default=None)

    def forget(self, node: str) -> None:
        """A node is known no longer."""
        self._doubted.pop(node, None)
        self._left.pop(node, None)
        self._left_before.pop(node, None)

    def judge_racks(self, leader: LeaderRecord, now: int) -> Effects:
        """A leader of these racks may speak, or may not any more."""
        effects: list[Effect] = []
        for rack in leader.racks:
            for record in self._root.rack_nodes[rack]:
                effects.extend(self.judge(record, None, leader, now))
        return tuple(effects)

    def judge(
        self, record: NodeRecord, transition: Transition | None, leader: LeaderRecord | None, now: int
    ) -> Effects:
        """Merge the views of a node, and tell when that is news."""
        views = self._root.datacenter.observers(record)
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
                self._root.alerts.refine(record.name, Axis.LIVENESS, merged.cause, now)
                self._root.ledger.node(record.state())
                if transition is not None and leader is not None and record.told is Liveness.SUSPECT:
                    self.history(record, transition, leader, now, "refined")
            if was_dark is not is_dark(record):
                self._root.stirred[record.rack] = None
            return ()
        evidence = transition.evidence if transition is not None else basis.evidence
        if evidence is None:
            age = None if basis.heard_at is None else now - basis.heard_at
            evidence = Evidence(text="told by a summary; no transition told of it", silent_ns=age)
        told_by = leader.name if leader is not None and transition is not None else basis.leader
        # That another observer does not hear it, or not yet, is no reason for its return.
        cause = None if basis.liveness is Liveness.ALIVE else merged.cause
        value = Shown(merged.liveness, cause)
        return self._change(record, kind, value, evidence, transition, told_by, now, was_dark)

    def _is_doubted(self, record: NodeRecord, merged: Merged, now: int) -> bool:
        """True while a death waits for the next word of an observer that hears the node.

        Summaries come five times in a lease. Who has missed one and a half of them may have no next word.
        """
        patience_ns = 3 * self._root.config.lease_ns // 10
        until = 0
        if record.told is not Liveness.DEAD:
            for view in merged.doubters:
                renewed_at = self._root.leaders[view.leader].lease.renewed_at
                if renewed_at is not None and view.described_at < merged.basis.since:
                    until = max(until, renewed_at + patience_ns)
        if until <= now:
            self._doubted.pop(record.name, None)
            return False
        self._doubted[record.name] = until
        if record.told is Liveness.ALIVE:
            record.cause = Cause.LINK_CUT
        return True

    def history(self, record: NodeRecord, said: Transition, leader: LeaderRecord, now: int, withheld: str) -> None:
        """More is known of a node that stays what it was told to be: a line of history, and nobody is told."""
        told = record.told or Liveness.UNKNOWN
        self._root.tell(
            said.kind,
            said.at_wall_ns or self._root.wall.at(now),
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
        if record.told not in (Liveness.ALIVE, Liveness.SUSPECT) or self._root.datacenter.someone_is_lost(record.rack):
            return ()
        listened = self._root.datacenter.listened_ns(record.rack)
        if min(listened, now - self._root.started) < self._root.config.join_grace_ns + ABSENCE_SLACK_NS:
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
        event = self._root.tell(
            kind,
            at_wall_ns or self._root.wall.at(now),
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
            observers=self._root.datacenter.say(record.name),
        )
        self._book(record, event, value)
        # For how long it is away is counted by the root's own clock, also after a restart.
        left_at = self._root.wall.at(now) if value.liveness is Liveness.LEFT else 0
        record.tell(value.liveness, kind, left_at or event.at_wall_ns)
        self._left_before.pop(record.name, None)
        self._left.pop(record.name, None)
        if value.liveness is Liveness.LEFT:
            self._left[record.name] = now
        if was_dark or goes_dark:
            self._root.stirred[record.rack] = None
        self._root.ledger.node(record.state())
        before_word = before.value if before is not None else Liveness.UNKNOWN.value
        return (Happened(record.name, kind, before_word, value.liveness.value, value.cause),)

    def restored(self, record: NodeRecord) -> None:
        """An earlier life of the root told of this node; one that left and is not told to be away yet is minded."""
        if record.told is Liveness.LEFT and not record.open:
            self._left_before[record.name] = record.since_wall_ns

    def _look_at_left(self, now: int) -> None:
        """Tell of nodes that said goodbye and stay away."""
        wall = self._root.wall.at(now)
        if not wall:
            return
        if self._left_before:
            # A clock that is behind by now gives a node all of its time again, and keeps it from no warning.
            heard = {node: now - max(wall - since, 0) for node, since in self._left_before.items()}
            self._left_before.clear()
            self._left = dict(sorted((heard | self._left).items(), key=lambda item: item[1]))
        for node, since in list(self._left.items()):
            if now - since < self._root.config.left_warn_after_ns:
                break
            del self._left[node]
            record = self._root.nodes.get(node)
            if record is None:
                continue
            text = f"it said goodbye {show_duration(now - since)} ago, is expected, and has not come back"
            self._root.tell(
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
            self._root.ledger.node(record.state())

    def watch(self, record: NodeRecord, now: int) -> None:
        """A leader spoke for the node: the time since it last did was watched, if the node is held to live."""
        since, record.watched_at = record.watched_at, now
        if since is None or now - since > self._root.config.lease_ns:
            return
        if record.told in (Liveness.ALIVE, Liveness.SUSPECT):
            self._root.accuracy.watch(now - since)

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
            for event_id in self._root.accuracy.convict(conviction):
                self._root.ledger.fold(event_id)
            self._root.ledger.conviction(conviction)
            self.write_tally()
        elif value.liveness in (Liveness.ALIVE, Liveness.LEFT):
            wrong = self._root.accuracy.back(record.name, record.incarnation, event.at_wall_ns)
            if wrong is not None:
                self._root.ledger.conviction(wrong)

    def accounted(self, leader: LeaderRecord, record: NodeRecord, transition: Transition, now: int) -> None:
        """A node says why it was silent: for the history, and for the verdict that was wrong about it."""
        record.seen_by(leader.name, now).accounted = transition.evidence
        self.history(record, transition, leader, now, "accounted")
        wrong = self._root.accuracy.account(record.name, transition.incarnation, transition.evidence.text)
        if wrong is not None:
            self._root.ledger.conviction(wrong)

    def write_tally(self) -> None:
        """Have the sums of the accuracy written."""
        if not self._root.accuracy.since_wall_ns:
            self._root.accuracy.since_wall_ns = self._root.wall.at(self._root.started)
        self._root.ledger.tally(self._root.accuracy.tally())
