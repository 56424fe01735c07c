"""Which leaders may speak: each for a lease's length after its newest summary.

Who lets his lease lapse is lost, unless all of them are late: then it is the root that is cut off (`isolation`). A
leader whose host's kernel answers while its process does not is stalled, and not called gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .effects import WITNESS_NS, Effect, Effects, Happened, Note, Send, Witness
from .isolation import decide, patience_ends
from .leaderrecord import LeaderRecord, Standing
from .messages import Answered, Disconnected, Evidence, Ping, Pong, RackSummary, Suspended
from .records import NodeState
from .states import Cause, Kind, Liveness, Outcome, Path
from .units import show_duration

if TYPE_CHECKING:
    from .root import RootCore


class Leases:
    """The right to speak of each leader of one root."""

    def __init__(self, root: RootCore) -> None:
        self._root = root
        #: True while people believe that this root is cut off from all its leaders.
        self.isolated = False
        #: Time that its own host was suspended.
        self.suspended_ns = 0
        self._questions = 0
        #: When something is due, once that is worked out (`_known`); None: nothing is. A summary, by far the most
        #: frequent message, changes it for its own leader only: with 250 of them, to look at all took a tenth of the
        #: time.
        self._at: int | None = None
        self._known = False

    def changed(self) -> None:
        """Something happened to a leader, or to the time: `deadline` must be worked out anew."""
        self._known = False

    def deadline(self) -> int | None:
        """When there is something to ask of a leader, or to tell of one."""
        if not self._known:
            times = [at for at in map(self._due, self._root.leaders.values()) if at is not None]
            self._at, self._known = min(times, default=None), True
        return self._at

    def _due(self, leader: LeaderRecord) -> int | None:
        times = [] if leader.ask_at is None else [leader.ask_at]
        if leader.standing in (Standing.HELD, Standing.WAITED):
            times.append(leader.lease.expires_at)
        elif leader.standing is Standing.LAPSED:
            times.append(patience_ends(leader, self._root.config.lease_ns))
        return min(times, default=None)

    def extend(self, lag: int, since: int) -> None:
        """This loop stood still, and nobody could be heard: add that to the leases."""
        for leader in self._root.leaders.values():
            leader.lease.extend(lag, since)
            leader.lapsed_at += lag

    def ask_leaders(self, now: int) -> Iterable[Effect]:
        """Ask each leader that is late whether it is there: its kernel and its process may answer differently."""
        for leader in self._root.leaders.values():
            if leader.ask_at is None or leader.ask_at > now:
                continue
            held = leader.lease.held
            leader.ask_at = now + (self._root.config.lease_ns // 4 if held else self._root.config.lease_ns)
            if held and now + WITNESS_NS > leader.lease.expires_at:
                # Its answer would come too late to be counted, and the one before would be forgotten.
                continue
            self._questions += 1
            leader.ask(self._questions, now)
            yield Witness(leader.name, self._questions)
            yield Send(leader.name, Ping(number=self._questions))

    def pong(self, sender: str, pong: Pong, now: int) -> Effects:
        """The process of a leader answers."""
        leader = self._root.datacenter.leader_of(sender)
        if leader is None:
            return self._root.refuse(sender, "forged-id", now)
        leader.answer(pong.number, now)
        return ()

    def answered(self, answered: Answered, now: int) -> Effects:
        """The kernel of a leader's host answers, or does not."""
        leader = self._root.leaders.get(answered.peer)
        if leader is None or answered.path is not Path.KERNEL or answered.number != leader.asked:
            return ()
        leader.witness(answered.outcome, now)
        return self._not_stalled(leader, now)

    def disconnected(self, lost: Disconnected, now: int) -> Effects:
        """The kernel closed the connection of a leader."""
        leader = self._root.leaders.get(lost.peer)
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

    def expire(self, now: int) -> Effects:
        """Leases that have run out: who is lost, or whether it is the root that is cut off."""
        for leader in self._root.leaders.values():
            if leader.standing in (Standing.HELD, Standing.WAITED) and leader.lease.lapsed(now):
                leader.lease.drop()
                leader.standing = Standing.LAPSED
                leader.lapsed_at = now
                leader.ask_at = None
        lapses = decide(self._root.leaders.values(), self._root.config.lease_ns, now)
        effects: list[Effect] = []
        for leader in lapses.lost:
            effects.extend(self._lose(leader, now))
        if lapses.isolated:
            effects.extend(self._isolate(lapses.isolated, now))
        return tuple(effects)

    def _lose(self, leader: LeaderRecord, now: int) -> Effects:
        silent = now - (leader.lease.renewed_at if leader.lease.renewed_at is not None else self._root.started)
        text = f"no summary for {show_duration(silent)}; its lease was {show_duration(self._root.config.lease_ns)}"
        if leader.lease.renewed_at is None:
            text = f"not heard in the {show_duration(silent)} since this root started"
        leader.standing = Standing.LOST
        leader.cause = Cause.LEADER_LOST
        if leader.stalled:
            leader.cause = Cause.OBSERVER_STALLED
            leader.ask_at = now + self._root.config.lease_ns
            text += "; its host's kernel answers, its process does not"
        evidence = Evidence(text=text, silent_ns=silent, steps=tuple(leader.steps))
        effects = self._leader_event(leader, Kind.LEADER_LOST, leader.cause, evidence, now)
        return (*effects, *self._root.verdicts.judge_racks(leader, now))

    def _isolate(self, leaders: list[LeaderRecord], now: int) -> Effects:
        """All leaders fell silent together."""
        for leader in leaders:
            leader.standing, leader.cause = Standing.ISOLATED, Cause.ROOT_ISOLATED
        silent = now - max(
            (leader.lease.renewed_at for leader in leaders if leader.lease.renewed_at is not None),
            default=self._root.started,
        )
        count = f"{len(leaders)} of {len(self._root.leaders)} leaders"
        text = f"{count} fell silent together {show_duration(silent)} ago: this root is cut off, or all its racks are"
        return self._root_event(Kind.ROOT_ISOLATED, Evidence(text=text, silent_ns=silent), now)

    def _rejoin(self, leader: LeaderRecord, now: int) -> Effects:
        """A leader is heard: the others, who fell silent with it, have a lease's length to follow."""
        self._known = False
        for other in self._root.leaders.values():
            if other.standing is Standing.ISOLATED:
                other.standing = Standing.WAITED
                other.lease.expires_at = now + self._root.config.lease_ns
        return self._root_event(Kind.LEADER_RECOVERED, Evidence(text=f"{leader.name} is heard again"), now)

    def _root_event(self, kind: Kind, evidence: Evidence, now: int) -> Effects:
        self.isolated = kind is Kind.ROOT_ISOLATED
        root = self._root
        root.ledger.node(
            NodeState(
                node=root.config.name,
                rack="",
                liveness=Liveness.UNKNOWN if self.isolated else Liveness.ALIVE,
                cause=Cause.ROOT_ISOLATED if self.isolated else None,
                since_wall_ns=self._root.wall.at(now),
                open=kind.value if self.isolated else "",
            )
        )
        cause = Cause.ROOT_ISOLATED
        self._root.tell(kind, self._root.wall.at(now), now, cause=cause, evidence=evidence)
        return (Happened(self._root.config.name, kind, "", "", cause),)

    def suspended(self, suspended: Suspended, now: int) -> Effects:
        """This host slept, and its leaders gave up their connections: they have a whole lease to come back."""
        self.suspended_ns += suspended.suspended_ns
        lease_ns = self._root.config.lease_ns
        for leader in self._root.leaders.values():
            if leader.standing in (Standing.HELD, Standing.WAITED):
                leader.lease.expires_at = max(leader.lease.expires_at, now + lease_ns)
            elif leader.standing is Standing.LAPSED:
                leader.lapsed_at = now
            if leader.ask_at is not None:
                leader.ask_at = max(leader.ask_at, now + lease_ns // 2)
        return (Note("warning", "suspended", {"for": show_duration(suspended.suspended_ns)}),)

    def renew(self, leader: LeaderRecord, summary: RackSummary, now: int) -> Effects:
        """A leader sends a summary: it may speak for a lease's length."""
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
        leader.heard(now + self._root.config.lease_ns // 2)
        if self._known:
            times = [at for at in (self._at, self._due(leader)) if at is not None]
            self._at = min(times, default=None)
        effects: Effects = ()
        if before is Standing.LOST:
            evidence = Evidence(text=f"summaries again; up for {show_duration(summary.stats.uptime_ns)}")
            effects = self._leader_event(leader, Kind.LEADER_RECOVERED, None, evidence, now)
        return (*effects, *self._rejoin(leader, now)) if self.isolated else effects

    def _settle(self, leader: LeaderRecord, now: int) -> None:
        """A leader begins to listen: where nobody else has listened until now, its first silences wait."""
        for rack in leader.racks:
            others = (self._root.leaders[name] for name in self._root.racks[rack] if name != leader.name)
            if not any(other.standing is Standing.HELD for other in others):
                self._root.alerts.settle(rack, now)

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
        self._root.ledger.node(
            NodeState(
                node=leader.name,
                rack=rack,
                liveness=Liveness.DEAD if lost else Liveness.ALIVE,
                cause=cause,
                since_wall_ns=self._root.wall.at(now),
                open=kind.value if lost else "",
            )
        )
        self._root.tell(
            kind,
            self._root.wall.at(now),
            now,
            rack=rack,
            leader=leader.name,
            cause=cause,
            evidence=evidence,
            withheld=withheld,
        )
        return () if withheld else (Happened(leader.name, kind, "", "", cause),)
