"""The root's answers to a console: pure functions from its records to the shapes of `views`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import RootConfig
from .fleet import NodeRecord
from .names import rack_of
from .states import Liveness, RackState
from .units import SECOND
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
    shown_health,
)
from .wallclock import rfc3339

if TYPE_CHECKING:
    from .leaderrecord import LeaderRecord
    from .root import RootCore


def status_view(root: RootCore, config: RootConfig, now: int) -> StatusView:
    """Everything the root knows."""
    return StatusView(
        root=RootView(
            name=config.name,
            role="root",
            version=config.version,
            at=rfc3339(root.wall.at(now)),
            uptime_s=round((now - root.started) / SECOND, 3),
            degraded=root.ledger.degraded,
            newest_event=root.chronicle.newest,
            hooks_waiting=root.dispatch.waiting,
            hooks_dead=root.dispatch.dead,
            refused=dict(root.refused),
        ),
        racks=[rack_view(root, rack, now) for rack in root.racks],
        nodes=[node_view(root, record, now) for rack in root.racks for record in root.rack_nodes[rack]],
    )


def rack_view(root: RootCore, rack: str, now: int) -> RackView:
    """One rack: its leaders, its nodes in numbers, and both in one word."""
    leaders = [root.leaders[name] for name in root.racks[rack]]
    values = [root.shown(record).liveness for record in root.rack_nodes[rack]]
    held = [leader.lease.held for leader in leaders]
    if not any(held):
        never = all(leader.lease.renewed_at is None and not leader.lost_told for leader in leaders)
        state = RackState.UNKNOWN if never else RackState.LEADER_LOST
    elif all(held) and all(value in (Liveness.ALIVE, Liveness.LEFT) for value in values):
        state = RackState.OK
    else:
        state = RackState.DEGRADED
    return RackView(
        rack=rack,
        state=state,
        leaders=[leader_view(leader, now) for leader in leaders],
        counts=count_liveness(values),
    )


def leader_view(leader: LeaderRecord, now: int) -> LeaderView:
    """One leader and its own account of itself."""
    renewed = leader.lease.renewed_at
    state = Liveness.ALIVE if leader.lease.held else Liveness.DEAD if leader.lost_told else Liveness.UNKNOWN
    stats = leader.stats
    return LeaderView(
        leader=leader.name,
        state=state,
        age_s=None if renewed is None else seconds_of(now - renewed),
        uptime_s=None if renewed is None else seconds_of(stats.uptime_ns + now - leader.stats_at),
        lag_max_ms=round(stats.lag_max_ns / 1e6, 3),
        degraded=stats.degraded,
        version=stats.version,
        outbox=stats.outbox,
        refused=dict(stats.refused),
    )


def node_view(root: RootCore, record: NodeRecord, now: int) -> NodeView:
    """One node, merged, and as each of its leaders sees it."""
    shown = root.shown(record)
    observers = []
    newest: int | None = None
    lost = late = 0
    for name in root.racks[rack_of(record.name)]:
        seen = record.seen.get(name)
        if seen is None:
            continue
        if seen.heard_at is not None and (newest is None or seen.heard_at > newest):
            newest, lost, late = seen.heard_at, seen.lost, seen.late
        observers.append(
            ObserverView(
                leader=name,
                liveness=seen.liveness,
                cause=seen.cause.value if seen.cause is not None else None,
                age_s=None if seen.heard_at is None else seconds_of(now - seen.heard_at),
                speaks=seen.speaks and root.leaders[name].lease.held,
            )
        )
    return NodeView(
        node=record.name,
        rack=record.rack,
        liveness=shown.liveness,
        health=shown_health(record.health, shown.liveness),
        cause=shown.cause.value if shown.cause is not None else None,
        since=rfc3339(record.since_wall_ns),
        age_s=None if newest is None else seconds_of(now - newest),
        observers=observers,
        probes=list(record.report.probes) if record.report is not None else [],
        facts=record.report.facts if record.report is not None else None,
        facts_age_s=seconds_of(now - record.report_at) if record.report is not None else None,
        lost=lost,
        late=late,
    )


def explain_view(root: RootCore, record: NodeRecord, now: int) -> ExplainView:
    """Why a node is in its state; the events are added from the store."""
    story = []
    for seen in record.seen.values():
        evidence = seen.evidence
        story.append(
            {
                "leader": seen.leader,
                "liveness": seen.liveness.value,
                "cause": seen.cause.value if seen.cause is not None else None,
                "for_s": seconds_of(now - seen.since),
                "evidence": None if evidence is None else evidence.text,
            }
        )
    return ExplainView(node=node_view(root, record, now), rack=rack_view(root, record.rack, now), story=story)
