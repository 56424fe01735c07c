"""What the root knows of each node: one view per leader, and one merged value over those that may speak.

A leader speaks for a node while its lease is held and it has itself heard the node, or judged it, in its own life. A
fresh leader vetoes nothing, and a wedged one loses its lease. Any observer that hears a node proves life, and so does
anybody who heard it for an observer that does not: SUSPECT(`link-cut`) is the word for that, and it means ALIVE. But a
DEAD of one is contradicted only by a *later* (incarnation, sequence) of another, or an old ALIVE would raise the dead.

`told` is what people were last told; it outlives the root's process. `merge` says what should be told now.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .healthrecord import HealthRecord
from .messages import Evidence, NodeRow, Report, Transition
from .records import NodeState
from .states import Cause, Health, Kind, Liveness

#: Among observers of which none says DEAD: who hears the node wins, then who heard it say goodbye.
_RANK = {Liveness.ALIVE: 0, Liveness.LEFT: 1, Liveness.SUSPECT: 2, Liveness.UNKNOWN: 3, Liveness.DEAD: 4}
#: What a node comes back from when nobody had called it anything: its rack was silent, or nobody could be asked.
_OUTAGES = (Cause.RACK_DARK, Cause.ROOT_ISOLATED, Cause.LEADER_LOST, Cause.OBSERVER_STALLED)
#: Among observers that say DEAD: the cause of whoever knows more.
_TELLING = {Cause.PROCESS_EXIT: 3, Cause.HOST_GONE: 2, Cause.PROCESS_FROZEN: 1}
_TROUBLE = {Liveness.SUSPECT: Kind.NODE_SUSPECT, Liveness.DEAD: Kind.NODE_DEAD, Liveness.LEFT: Kind.NODE_LEFT}


class Seen:
    """One node as one leader last described it; times on the root's clock."""

    __slots__ = (
        "accounted",
        "ahead_since",
        "cause",
        "described_at",
        "epoch",
        "evidence",
        "heard_at",
        "incarnation",
        "late",
        "leader",
        "liveness",
        "loop_gap_ns",
        "lost",
        "sequence",
        "since",
        "version",
    )

    def __init__(self, leader: str, now: int) -> None:
        self.leader = leader
        #: When the leader last said anything about the node.
        self.described_at = now
        self.epoch = 0
        self.liveness = Liveness.UNKNOWN
        self.cause: Cause | None = Cause.NEVER_SEEN
        self.since = now
        self.heard_at: int | None = None
        self.incarnation: int | None = None
        self.sequence: int | None = None
        #: Number of the leader's transition that made this value, in `epoch`; 0 when none did.
        self.version = 0
        self.lost = 0
        self.late = 0
        self.loop_gap_ns = 0
        self.evidence: Evidence | None = None
        #: What the node last said of a silence, once it was back.
        self.accounted: Evidence | None = None
        #: Since when summaries have been ahead of the transitions; None when they agree.
        self.ahead_since: int | None = None

    @property
    def speaks(self) -> bool:
        """True when the leader heard or judged the node in its own life."""
        return self.heard_at is not None or self.version > 0

    @property
    def hears(self) -> bool:
        """True when the leader hears the node, or knows of somebody who does."""
        return self.liveness is Liveness.ALIVE or (self.liveness is Liveness.SUSPECT and self.cause is Cause.LINK_CUT)

    def follow(self, row: NodeRow, now: int) -> None:
        """Take the numbers of a row that agrees in its version: age, sequence, counts.

        A DEAD keeps the sequence that it was judged at: old beats that trickle in afterwards, and prove nothing there,
        must not outweigh what another observer has heard meanwhile.
        """
        self.heard_at = None if row.age_ns is None else now - row.age_ns
        if self.liveness is not Liveness.DEAD or self.incarnation is None:
            self.incarnation = row.incarnation
            self.sequence = row.sequence
        self.lost = row.lost
        self.late = row.late
        self.loop_gap_ns = row.loop_gap_ns

    def believe(self, row: NodeRow, epoch: int, now: int) -> None:
        """Take a whole row: the summary is right and the transitions will not come, or not in time."""
        self.follow(row, now)
        self.incarnation = row.incarnation
        self.sequence = row.sequence
        self.epoch = epoch
        self.version = row.version
        self.liveness = row.liveness
        self.cause = row.cause
        self.since = now - row.since_ns
        self.evidence = None
        self.ahead_since = None

    def apply(self, transition: Transition, epoch: int, present: int, now: int) -> bool:
        """Take a transition; False when a summary already told as much or more.

        `present` is the epoch of the leader's present life: what it says of a node that it heard or judged itself is
        newer than anything that an earlier life left behind.
        """
        if epoch == self.epoch and transition.number <= self.version:
            return False
        if self.speaks and epoch != present == self.epoch:
            return False
        self.epoch = epoch
        self.version = transition.number
        self.liveness = transition.after
        self.cause = transition.cause
        self.since = now
        self.incarnation = transition.incarnation
        self.sequence = transition.sequence
        self.evidence = transition.evidence
        self.ahead_since = None
        if transition.after is Liveness.ALIVE:
            self.heard_at = now
        elif transition.evidence.silent_ns is not None:
            self.heard_at = now - transition.evidence.silent_ns
        return True


class NodeRecord:
    """One node at the root."""

    __slots__ = (
        "cause",
        "incarnation",
        "name",
        "open",
        "rack",
        "report",
        "report_at",
        "seen",
        "sequence",
        "since_wall_ns",
        "told",
        "told_health",
        "version",
        "watched_at",
    )

    def __init__(self, name: str, rack: str) -> None:
        self.name = name
        self.rack = rack
        self.seen: dict[str, Seen] = {}
        #: Merged liveness that was last told; None before anything was.
        self.told: Liveness | None = None
        self.cause: Cause | None = None
        self.told_health = HealthRecord()
        self.since_wall_ns = 0
        self.incarnation: int | None = None
        self.sequence: int | None = None
        #: Kinds of trouble told and not yet resolved, joined by a comma: what a recovery must be told to.
        self.open = ""
        self.report: Report | None = None
        self.report_at = 0
        #: That its agent runs; "" when no leader has told it.
        self.version = ""
        #: Up to when it is counted as watched; None while it is not.
        self.watched_at: int | None = None

    def restore(self, state: NodeState) -> None:
        """Take up what an earlier life of the root last told."""
        self.told = state.liveness
        self.cause = state.cause
        self.told_health.restore(state)
        self.since_wall_ns = state.since_wall_ns
        self.incarnation = state.incarnation
        self.sequence = state.sequence
        self.open = state.open

    def state(self) -> NodeState:
        """What a next life of the root must know."""
        state = NodeState(
            node=self.name,
            rack=self.rack,
            liveness=self.told or Liveness.UNKNOWN,
            cause=self.cause,
            since_wall_ns=self.since_wall_ns,
            incarnation=self.incarnation,
            sequence=self.sequence,
            open=self.open,
        )
        return self.told_health.fill(state)

    @property
    def away(self) -> bool:
        """True when people were told that it stays away for too long."""
        return self.open == Kind.NODE_AWAY.value

    @property
    def health(self) -> Health:
        """The health that was told last."""
        return self.told_health.value

    def seen_by(self, leader: str, now: int) -> Seen:
        """The view of a leader that says something about the node now."""
        seen = self.seen.get(leader)
        if seen is None:
            seen = self.seen[leader] = Seen(leader, now)
        seen.described_at = now
        return seen

    def kind_of(self, merged: Merged, known: int | None) -> Kind:
        """What a change from `told` to `merged` is called; `known` is the incarnation before it."""
        if merged.liveness is not Liveness.ALIVE:
            return _TROUBLE.get(merged.liveness, Kind.NODE_UNKNOWN)
        out = self.told is Liveness.UNKNOWN and self.cause in _OUTAGES
        if self.told not in (Liveness.SUSPECT, Liveness.DEAD) and not self.open and not out:
            return Kind.NODE_JOINED
        same = known in (None, merged.basis.incarnation)
        return Kind.NODE_RECOVERED if same else Kind.NODE_RESTARTED

    def tell(self, liveness: Liveness, kind: Kind, at_wall_ns: int) -> None:
        """Take note of what people are told now, and of the trouble that is open from now on."""
        if liveness in (Liveness.SUSPECT, Liveness.DEAD):
            self.open = ",".join(dict.fromkeys([*filter(None, self.open.split(",")), kind.value]))
        elif liveness in (Liveness.ALIVE, Liveness.LEFT):
            self.open = ""
        self.told = liveness
        self.since_wall_ns = at_wall_ns


class Shown(msgspec.Struct, frozen=True):
    """A liveness and its cause."""

    liveness: Liveness
    cause: Cause | None


class Merged(Shown, frozen=True):
    """What the speaking observers say together."""

    #: The view that decided.
    basis: Seen
    #: Those who hear the node, while another calls it dead who has heard as much: one of them may know better by now.
    doubters: tuple[Seen, ...] = ()


def is_later(one: Seen, other: Seen) -> bool:
    """True when `one` knows of a later beat than `other`: by sequence within an incarnation, else by when heard."""
    if one.incarnation == other.incarnation:
        return (one.sequence or 0) > (other.sequence or 0)
    if one.heard_at is None or other.heard_at is None:
        return one.heard_at is not None
    return one.heard_at > other.heard_at


def _latest(views: list[Seen]) -> Seen:
    latest = views[0]
    for view in views[1:]:
        if is_later(view, latest):
            latest = view
    return latest


def merge(views: Iterable[Seen]) -> Merged | None:
    """The merged value of those that speak; None when nobody does."""
    speaking = [view for view in views if view.speaks]
    if not speaking:
        return None
    dead = [view for view in speaking if view.liveness is Liveness.DEAD]
    others = [view for view in speaking if view.liveness is not Liveness.DEAD]
    if dead:
        others = [view for view in others if view.liveness is not Liveness.UNKNOWN]
        later = [view for view in others if all(is_later(view, one) for one in dead)]
        if not later:
            # What one observer has proved is not unsaid by another that knows only of silence.
            latest = _latest([view for view in dead if _telling(view) == max(map(_telling, dead))])
            proved = any(view.cause is Cause.PROCESS_EXIT for view in dead)
            doubters = () if proved else tuple(view for view in others if view.hears)
            return Merged(Liveness.DEAD, latest.cause, latest, doubters)
        others = later
    rank = min(_rank(view) for view in others)
    best = _latest([view for view in others if _rank(view) == rank])
    if not best.hears:
        return Merged(best.liveness, best.cause, best)
    deaf = any(view.liveness in (Liveness.SUSPECT, Liveness.DEAD) for view in speaking)
    return Merged(Liveness.ALIVE, Cause.LINK_CUT if deaf else best.cause, best)


def _telling(view: Seen) -> int:
    """How much is known of why a node is DEAD."""
    return _TELLING.get(view.cause, 0) if view.cause is not None else 0


def _rank(view: Seen) -> int:
    return _RANK[Liveness.ALIVE if view.hears else view.liveness]
