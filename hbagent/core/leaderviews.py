"""A leader's answers to a console: pure functions from its members to the shapes of `views`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .changes import bad_parts, beside_drills
from .config import LeaderConfig
from .member import Member
from .messages import Query
from .states import Liveness, RackState
from .units import MILLISECOND, SECOND
from .views import (
    BriefView,
    CellsView,
    ExplainView,
    LeaderView,
    NodeView,
    ObserverView,
    RackView,
    RootView,
    StatusView,
    app_views,
    count_liveness,
    evidence_view,
    is_plain,
    probe_views,
    seconds_of,
    shown_health,
)
from .wallclock import rfc3339

if TYPE_CHECKING:
    from .leader import LeaderCore


def status_view(leader: LeaderCore, config: LeaderConfig, now: int) -> StatusView:
    """Everything this leader knows, for a console that cannot reach the root."""
    return StatusView(
        root=_root_view(leader, config, now),
        racks=[rack_view(leader, config, rack, now) for rack in config.racks],
        nodes=[node_view(leader, config, member, now) for member in leader.roster.members.values()],
    )


def brief_view(leader: LeaderCore, config: LeaderConfig, now: int) -> BriefView:
    """The same without the nodes that are plainly well."""
    members = leader.roster.members
    leader.cells.look(members, leader.wall, now)
    cells = ((member, leader.cells.cells.get(member.name)) for member in members.values())
    return BriefView(
        root=_root_view(leader, config, now),
        racks=[rack_view(leader, config, rack, now) for rack in config.racks],
        nodes=[node_view(leader, config, member, now) for member, cell in cells if cell is None or not is_plain(cell)],
    )


def cells_view(leader: LeaderCore, config: LeaderConfig, query: Query, now: int) -> CellsView:
    """What changed since the asker's version. Of incidents and silences a leader knows nothing."""
    members = leader.roster.members
    leader.cells.look(members, leader.wall, now)
    delta = leader.cells.since(query, members, now)
    return CellsView(
        life=leader.cells.cells.life,
        version=leader.cells.cells.version,
        whole=delta.whole,
        root=_root_view(leader, config, now),
        racks=[rack_view(leader, config, rack, now) for rack in config.racks],
        cells=delta.cells,
        gone=delta.gone,
        incidents=[],
        silences=[],
    )


def _root_view(leader: LeaderCore, config: LeaderConfig, now: int) -> RootView:
    """This leader in the root's place."""
    return RootView(
        name=config.name,
        role="leader",
        version=config.version,
        at=rfc3339(leader.wall.at(now)),
        uptime_s=round((now - leader.started) / SECOND, 3),
        reachable=False,
        degraded=leader.memory.degraded,
        refused=dict(leader.refused),
    )


def rack_view(leader: LeaderCore, config: LeaderConfig, rack: str, now: int) -> RackView:
    """One rack in numbers; its other leaders are not known here."""
    values = [leader.roster.members[node].liveness for node in config.racks[rack]]
    calm = all(value in (Liveness.ALIVE, Liveness.LEFT) for value in values)
    stats = leader.stats(now)
    me = LeaderView(
        leader=config.name,
        state=Liveness.ALIVE,
        age_s=0.0,
        uptime_s=seconds_of(stats.uptime_ns),
        lag_max_ms=stats.lag_max_ns / MILLISECOND,
        degraded=stats.degraded,
        version=stats.version,
        outbox=stats.outbox,
        folded=leader.folded,
        refused=stats.refused,
    )
    state = RackState.OK if calm else RackState.DEGRADED
    if leader.roster.dark_ns(rack, now) is not None:
        state = RackState.DARK
    return RackView(rack=rack, state=state, leaders=[me], counts=count_liveness(values))


def node_view(leader: LeaderCore, config: LeaderConfig, member: Member, now: int) -> NodeView:
    """One node as this leader alone sees it."""
    age = None if member.heard_at is None else now - member.heard_at
    cause = member.cause.value if member.cause is not None else None
    seen = ObserverView(
        leader=config.name,
        liveness=member.liveness,
        cause=cause,
        age_s=seconds_of(age),
        speaks=member.heard_at is not None,
        echo=member.tcp_proved is not None and member.tcp_proved == member.order.incarnation,
    )
    return NodeView(
        node=member.name,
        rack=member.rack,
        liveness=member.liveness,
        health=shown_health(member.health, member.liveness),
        cause=cause,
        since=rfc3339(leader.wall.at(member.since)),
        age_s=seconds_of(age),
        observers=[seen],
        probes=probe_views(member.report, now - member.report_at),
        apps=app_views(member.report, now - member.report_at),
        facts=member.report.facts if member.report is not None else None,
        facts_age_s=seconds_of(now - member.report_at) if member.report is not None else None,
        lost=member.order.lost,
        late=member.late,
        version=member.agent_version,
        health_beside_drill=beside_drills(member.health, bad_parts(member.report)) if member.report else None,
    )


def explain_view(leader: LeaderCore, config: LeaderConfig, member: Member, now: int) -> ExplainView:
    """Why a node is in its state: this leader's verdicts with their evidence, newest first."""
    story = [
        {
            "at": rfc3339(verdict.at_wall_ns),
            "kind": verdict.kind.value,
            "leader": config.name,
            "liveness": {"from": verdict.before.value, "to": verdict.after.value},
            "health": {"from": verdict.health_before.value, "to": verdict.health_after.value},
            "cause": verdict.cause.value if verdict.cause is not None else None,
            "evidence": evidence_view(verdict.evidence),
        }
        for verdict in reversed(leader.story(member.name))
    ]
    return ExplainView(
        node=node_view(leader, config, member, now), rack=rack_view(leader, config, member.rack, now), story=story
    )
