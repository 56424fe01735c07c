"""Builders with defaults: a test names only what it is about.

One small datacenter everywhere: `dc1`, rack `dc1/rack1`, nodes `dc1/rack1/node1` and on, one or two leaders, a root.
Short node names are meant where a rack is known.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from hbagent.core.agent import AgentCore
from hbagent.core.config import AgentConfig, HookConfig, LeaderConfig, RackConfig, RootConfig
from hbagent.core.leader import LeaderCore
from hbagent.core.messages import (
    Beat,
    Evidence,
    HealthChange,
    HookFinished,
    LeaderStats,
    NodeRow,
    RackSummary,
    Transition,
    Transitions,
)
from hbagent.core.records import Event, HookRun, Restored
from hbagent.core.root import RootCore
from hbagent.core.states import Cause, Health, Kind, Liveness
from hbagent.core.units import MILLISECOND, SECOND, seconds

RACK = "dc1/rack1"
NODE = f"{RACK}/node1"
NODE2 = f"{RACK}/node2"
LEADER = "dc1/rack1-leader1"
LEADER2 = "dc1/rack1-leader2"
ROOT = "dc1/root"
INCARNATION = 0x7A11
EPOCH = 0xE1
#: 2026-11-21T12:00:00Z: the wall clock at the monotonic instant 0.
WALL_NS = 1_795_262_400 * SECOND

_CAUSES = {
    Liveness.SUSPECT: Cause.SILENCE,
    Liveness.DEAD: Cause.SILENCE,
    Liveness.LEFT: Cause.LEFT,
    Liveness.UNKNOWN: Cause.NEVER_SEEN,
}
_KINDS = {
    Liveness.SUSPECT: Kind.NODE_SUSPECT,
    Liveness.DEAD: Kind.NODE_DEAD,
    Liveness.LEFT: Kind.NODE_LEFT,
    Liveness.UNKNOWN: Kind.NODE_UNKNOWN,
}


def T(value: float) -> int:
    """Nanoseconds of `value` seconds."""
    return seconds(value)


# ---- cores -----------------------------------------------------------------------------------------------


def agent_core(*, seed: int = 1, now: int = 0, **settings: Any) -> AgentCore:
    """An agent of `NODE` with one leader."""
    return AgentCore(AgentConfig(**{"node": NODE, "leaders": (LEADER,), **settings}), random.Random(seed), now)


def leader_config(*nodes: str, **settings: Any) -> LeaderConfig:
    """A leader of one rack with these short node names, or node1 and node2."""
    racks = {RACK: tuple(f"{RACK}/{node}" for node in nodes or ("node1", "node2"))}
    return LeaderConfig(**{"name": LEADER, "racks": racks, "root": ROOT, **settings})


def leader_core(*nodes: str, seed: int = 1, now: int = 0, kept: Any = (), **settings: Any) -> LeaderCore:
    """A leader whose wall clock is told."""
    core = LeaderCore(leader_config(*nodes, **settings), random.Random(seed), now, kept)
    core.wall.tell(WALL_NS + now, now)
    return core


def hook(name: str = "page", *on: Kind, **settings: Any) -> HookConfig:
    """A hook for these kinds of events, or for those that it has by default."""
    chosen = {"on": on} if on else {}
    return HookConfig(**{"name": name, "argv": (f"/hooks/{name}",), **chosen, **settings})


def root_config(*hooks: HookConfig, leaders: tuple[str, ...] = (LEADER,), **settings: Any) -> RootConfig:
    """A root of one rack."""
    racks = (RackConfig(name=RACK, leaders=leaders),)
    # What is told is told at once, but where a test is about waiting.
    return RootConfig(**{"name": ROOT, "racks": racks, "hooks": hooks, "settle_ns": 0, "doubt_wait_ns": 0, **settings})


def root_core(
    *hooks: HookConfig,
    leaders: tuple[str, ...] = (LEADER,),
    seed: int = 1,
    now: int = 0,
    restored: Restored | None = None,
    **settings: Any,
) -> RootCore:
    """A root whose wall clock is told."""
    core = RootCore(root_config(*hooks, leaders=leaders, **settings), random.Random(seed), now, restored)
    core.wall.tell(WALL_NS + now, now)
    return core


# ---- messages --------------------------------------------------------------------------------------------


def beat(sequence: int = 1, **fields: Any) -> Beat:
    """A beat sent at `sequence` seconds."""
    defaults = {"incarnation": INCARNATION, "sent_mono_ns": sequence * SECOND, "due_in_ns": SECOND}
    return Beat(**{**defaults, "sequence": sequence, "interval_ns": SECOND, **fields})


def give(leader: LeaderCore, beat: Beat, now: int, node: str = NODE) -> Any:
    """Have `beat` of `node` arrive at `leader`; returns the effects."""
    return leader.beat(
        node,
        beat.incarnation,
        beat.sequence,
        beat.sent_mono_ns,
        beat.due_in_ns,
        beat.interval_ns,
        beat.loop_gap_ns,
        beat.progress,
        beat.health_digest,
        beat.leaving,
        now,
    )


def row(node: str = "node1", liveness: Liveness = Liveness.ALIVE, **fields: Any) -> NodeRow:
    """A node in a summary, heard a quarter of a second ago, its value made by the transition of number 1."""
    defaults = {"age_ns": 250 * MILLISECOND, "incarnation": INCARNATION, "sequence": 10, "version": 1}
    return NodeRow(**{"node": node, "liveness": liveness, "cause": _CAUSES.get(liveness), **defaults, **fields})


def summary(number: int, *rows: NodeRow, newest: int = 0, uptime_s: float = 100, **fields: Any) -> RackSummary:
    """A summary of `RACK`; one row for each of `rows`."""
    stats = LeaderStats(uptime_ns=seconds(uptime_s))
    defaults = {"rack": RACK, "epoch": EPOCH, "stats": stats, "newest": newest}
    return RackSummary(**{**defaults, "number": number, "nodes": rows, **fields})


def transition(
    number: int = 1,
    after: Liveness = Liveness.ALIVE,
    before: Liveness = Liveness.UNKNOWN,
    node: str = NODE,
    **fields: Any,
) -> Transition:
    """A verdict of a leader, of the kind that the two values make."""
    kind = _KINDS.get(after, Kind.NODE_JOINED if before is Liveness.UNKNOWN else Kind.NODE_RECOVERED)
    made = Transition(
        number=number,
        node=node,
        kind=kind,
        before=before,
        after=after,
        cause=_CAUSES.get(after),
        evidence=Evidence(text=f"verdict {number}", incarnation=INCARNATION, silent_ns=SECOND),
        incarnation=INCARNATION,
        sequence=10,
        at_wall_ns=WALL_NS + number * SECOND,
    )
    return msgspec.structs.replace(made, **fields)


def became(number: int, after: Health, before: Health = Health.OK, *changes: HealthChange, **fields: Any) -> Transition:
    """A leader's word that the health of a living node changed with the report of the same number."""
    evidence = Evidence(text=f"health {number}", incarnation=fields.get("incarnation", INCARNATION), changes=changes)
    made = {
        "kind": Kind.HEALTH_CHANGED,
        "cause": None,
        "evidence": evidence,
        "health_before": before,
        "health_after": after,
        "report": number,
    }
    return transition(number, Liveness.ALIVE, Liveness.ALIVE, **{**made, **fields})


def part(name: str, after: Health, before: Health = Health.OK, subject: str = "app", **fields: Any) -> HealthChange:
    """A part of a node's health that changed."""
    return HealthChange(**{"subject": subject, "name": name, "before": before, "after": after, **fields})


def transitions(*items: Transition, epoch: int = EPOCH, base: int | None = None, after: int | None = None) -> Any:
    """Verdicts in one message; by default they follow on what was acknowledged."""
    first = items[0].number if base is None else base
    before = items[0].number - 1 if after is None else after
    return Transitions(epoch=epoch, base=first, after=before, items=items)


def ended(run_id: str, exit_code: int | None = 0, error: str = "") -> HookFinished:
    """A hook process ended."""
    return HookFinished(run_id=run_id, exit_code=exit_code, error=error or (f"exit {exit_code}" if exit_code else ""))


# ---- records ---------------------------------------------------------------------------------------------


def event(sequence: int = 1, kind: Kind = Kind.NODE_DEAD, **fields: Any) -> Event:
    """An event about `NODE`."""
    defaults = {"event_id": f"e-{sequence}", "at_wall_ns": WALL_NS, "node": NODE, "rack": RACK, "leader": LEADER}
    return Event(**{**defaults, "sequence": sequence, "kind": kind, **fields})


def run(number: int = 1, node: str = NODE, **fields: Any) -> HookRun:
    """A run that is owed to the hook `page`."""
    defaults = {"event_id": f"e-{number}", "hook": "page", "queued": number, "input": b'{"attempt":0}'}
    return HookRun(**{"run_id": f"e-{number}-page", "node": node, **defaults, **fields})
