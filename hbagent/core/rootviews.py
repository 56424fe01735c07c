"""The root's answers to a console: pure functions from its records to the shapes of `views`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .accuracy import NODE_YEAR_NS, Accuracy, percentile
from .alertviews import incident_views, node_marks
from .changes import beside_drills
from .config import RootConfig
from .fleet import NodeRecord
from .leaderrecord import LeaderRecord, Standing
from .messages import Query
from .names import rack_of
from .rootcells import Marking
from .states import Cause, Liveness, RackState
from .units import HOUR, MILLISECOND, SECOND
from .views import (
    AccuracyView,
    BriefView,
    CauseView,
    CellsView,
    ExplainView,
    IncidentView,
    LeaderView,
    MistakeView,
    NodeView,
    ObserverView,
    RackView,
    RootView,
    SilenceView,
    StatusView,
    app_views,
    count_liveness,
    evidence_view,
    probe_views,
    seconds_of,
    shown_health,
)
from .wallclock import rfc3339

if TYPE_CHECKING:
    from .root import RootCore

#: Wrong verdicts shown one by one: a screen of them.
MISTAKES_SHOWN = 20
_TROUBLED = (Liveness.SUSPECT, Liveness.DEAD, Liveness.UNKNOWN)


def status_view(root: RootCore, config: RootConfig, now: int) -> StatusView:
    """Everything the root knows."""
    return StatusView(
        root=root_view(root, config, now),
        racks=[rack_view(root, rack, now) for rack in root.racks],
        nodes=[node_view(root, record, now) for rack in root.racks for record in root.rack_nodes[rack]],
        incidents=incident_views(root, now),
    )


def brief_view(root: RootCore, config: RootConfig, now: int, markings: Mapping[str, Marking]) -> BriefView:
    """The same without the nodes that are plainly well: of ten thousand, nearly all."""
    root.cells.look(root.datacenter, markings)
    troubled = (root.nodes[node] for node in root.cells.troubled())
    return BriefView(
        root=root_view(root, config, now),
        racks=[rack_view(root, rack, now, root.cells.counts[rack]) for rack in root.racks],
        nodes=[node_view(root, record, now) for record in troubled],
        incidents=incident_views(root, now),
    )


def cells_view(
    root: RootCore,
    config: RootConfig,
    query: Query,
    now: int,
    markings: Mapping[str, Marking],
    incidents: list[IncidentView],
    silences: list[SilenceView],
) -> CellsView:
    """What changed since the asker's version. `markings` has the nodes that are covered or flap."""
    root.cells.look(root.datacenter, markings)
    delta = root.cells.since(query, root.datacenter, now)
    return CellsView(
        life=root.cells.cells.life,
        version=root.cells.cells.version,
        whole=delta.whole,
        root=root_view(root, config, now),
        racks=[rack_view(root, rack, now, root.cells.counts[rack]) for rack in root.racks],
        cells=delta.cells,
        gone=delta.gone,
        incidents=incidents,
        silences=silences,
    )


def root_view(root: RootCore, config: RootConfig, now: int) -> RootView:
    """The root itself."""
    return RootView(
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
        isolated=root.leases.isolated,
        suspended_s=round(root.leases.suspended_ns / SECOND, 3),
    )


def rack_view(root: RootCore, rack: str, now: int, counts: dict[str, int] | None = None) -> RackView:
    """One rack: its leaders, its nodes in numbers, and both in one word."""
    leaders = [root.leaders[name] for name in root.racks[rack]]
    if counts is None:
        counts = count_liveness([root.shown(record).liveness for record in root.rack_nodes[rack]])
    held = [leader.lease.held for leader in leaders]
    if not any(held):
        unjudged = all(leader.standing in (Standing.WAITED, Standing.ISOLATED) for leader in leaders)
        state = RackState.UNKNOWN if unjudged else RackState.LEADER_LOST
    elif root.datacenter.rack_records[rack].dark:
        state = RackState.DARK
    elif all(held) and all(counts[liveness.value] == 0 for liveness in _TROUBLED):
        state = RackState.OK
    else:
        state = RackState.DEGRADED
    return RackView(
        rack=rack,
        state=state,
        leaders=[leader_view(leader, now) for leader in leaders],
        counts=counts,
    )


def leader_view(leader: LeaderRecord, now: int) -> LeaderView:
    """One leader and its own account of itself."""
    renewed = leader.lease.renewed_at
    stats = leader.stats
    return LeaderView(
        leader=leader.name,
        state=_state_of(leader),
        age_s=None if renewed is None else seconds_of(now - renewed),
        uptime_s=None if renewed is None else seconds_of(stats.uptime_ns + now - leader.stats_at),
        lag_max_ms=round(stats.lag_max_ns / 1e6, 3),
        degraded=stats.degraded,
        version=stats.version,
        outbox=stats.outbox,
        folded=leader.folded,
        refused=dict(stats.refused),
        cause=leader.cause.value if leader.standing in (Standing.LOST, Standing.ISOLATED) else None,
        doubts=stats.doubts,
        asked=stats.asked,
        cleared=stats.cleared,
        stalls=stats.stalls,
        suspended_s=round(stats.suspended_ns / SECOND, 3),
    )


def _state_of(leader: LeaderRecord) -> Liveness:
    """A leader in one word: one whose host's kernel answers is not called dead."""
    if leader.lease.held:
        return Liveness.ALIVE
    if not leader.lost_told:
        return Liveness.UNKNOWN
    return Liveness.SUSPECT if leader.cause is Cause.OBSERVER_STALLED else Liveness.DEAD


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
    incidents, covered_by, flapping = node_marks(root, record.name, record.rack, now)
    return NodeView(
        node=record.name,
        rack=record.rack,
        liveness=shown.liveness,
        health=shown_health(record.health, shown.liveness, record.away),
        cause=shown.cause.value if shown.cause is not None else None,
        since=rfc3339(record.since_wall_ns),
        age_s=None if newest is None else seconds_of(now - newest),
        observers=observers,
        probes=probe_views(record.report, now - record.report_at),
        apps=app_views(record.report, now - record.report_at),
        facts=record.report.facts if record.report is not None else None,
        facts_age_s=seconds_of(now - record.report_at) if record.report is not None else None,
        lost=lost,
        late=late,
        incidents=incidents,
        covered_by=covered_by,
        flapping=flapping,
        version=record.version,
        health_beside_drill=beside_drills(record.health, record.told_health.parts),
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
                "evidence": None if evidence is None else evidence_view(evidence),
                "account": None if seen.accounted is None else seen.accounted.text,
            }
        )
    return ExplainView(node=node_view(root, record, now), rack=rack_view(root, record.rack, now), story=story)


def accuracy_view(root: RootCore, now: int) -> AccuracyView:
    """How often the verdicts were right, since the first life of the root whose sums are kept."""
    accuracy = root.accuracy
    return AccuracyView(
        at=rfc3339(root.wall.at(now)),
        since=rfc3339(accuracy.since_wall_ns or root.wall.at(root.started)),
        node_years=round(accuracy.watched_ns / NODE_YEAR_NS, 6),
        node_hours=round(accuracy.watched_ns / HOUR, 3),
        all=_cause_view(accuracy, None),
        causes=[_cause_view(accuracy, cause) for cause in accuracy.causes()],
        kept=accuracy.kept,
        mistakes=[
            MistakeView(
                node=conviction.node,
                cause=conviction.cause.value,
                at=rfc3339(conviction.at_wall_ns),
                back_after_s=round((conviction.back_after_ns or 0) / SECOND, 3),
                reason=conviction.reason,
                event_id=conviction.event_id,
            )
            for conviction in accuracy.mistakes(MISTAKES_SHOWN)
        ],
    )


def _cause_view(accuracy: Accuracy, cause: Cause | None) -> CauseView:
    detections, wrong = accuracy.detections(cause), accuracy.wrong(cause)
    rate = accuracy.per_node_year(wrong)
    return CauseView(
        cause=cause.value if cause is not None else "all",
        verdicts=accuracy.told(cause),
        wrong=wrong,
        false_positives_per_node_year=None if rate is None else round(rate, 3),
        detection_p50_ms=_milliseconds(percentile(detections, 50)),
        detection_p99_ms=_milliseconds(percentile(detections, 99)),
    )


def _milliseconds(value_ns: int | None) -> float | None:
    return None if value_ns is None else round(value_ns / MILLISECOND, 3)
