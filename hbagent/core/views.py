"""What a console is shown: the JSON contract of `hbagent status`, as structs.

Root and leader build the same shapes, so every command works against either. Times are RFC 3339 UTC with
milliseconds, names are full, lists are always present. Readers ignore keys they do not know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .messages import Evidence, HostFacts, ProbeResult
from .states import Health, Liveness, RackState

SCHEMA = 1


class ObserverView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How one leader sees a node."""

    leader: str
    liveness: Liveness
    cause: str | None
    #: Seconds since that leader had proof of life; None when it never had, in its own life.
    age_s: float | None
    #: False when the leader has no right to speak: its lease lapsed, or it has not heard the node itself.
    speaks: bool


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node, merged over its observers."""

    node: str
    rack: str
    liveness: Liveness
    health: Health
    cause: str | None
    #: Since when the liveness has this value.
    since: str
    #: Seconds since the last proof of life by any observer; None when there never was one.
    age_s: float | None
    observers: list[ObserverView]
    probes: list[ProbeResult]
    facts: HostFacts | None = None
    #: Since the agent took them.
    facts_age_s: float | None = None
    lost: int = 0
    late: int = 0


class LeaderView(msgspec.Struct, frozen=True, kw_only=True):
    """One leader as the root sees it."""

    leader: str
    #: ALIVE while its lease is held, UNKNOWN in the grace before it was ever heard, else DEAD.
    state: Liveness
    age_s: float | None
    uptime_s: float | None = None
    lag_max_ms: float | None = None
    degraded: str = ""
    version: str = ""
    outbox: int = 0
    refused: dict[str, int] = {}


class RackView(msgspec.Struct, frozen=True, kw_only=True):
    """One rack in numbers."""

    rack: str
    state: RackState
    leaders: list[LeaderView]
    #: Nodes by liveness; every liveness is present.
    counts: dict[str, int]


class RootView(msgspec.Struct, frozen=True, kw_only=True):
    """The answering process itself."""

    name: str
    role: str
    version: str
    at: str
    uptime_s: float
    #: False when a leader answers in the root's stead.
    reachable: bool = True
    degraded: str = ""
    newest_event: int = 0
    hooks_waiting: int = 0
    hooks_dead: int = 0
    refused: dict[str, int] = {}


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to `status`."""

    root: RootView
    racks: list[RackView]
    nodes: list[NodeView]
    incidents: list[dict[str, Any]] = []
    schema: int = SCHEMA


class ExplainView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node is in the state it is in. `events` is filled in by the store, newest first."""

    node: NodeView
    rack: RackView
    #: Verdicts with their evidence, newest first.
    story: list[dict[str, Any]]
    events: list[dict[str, Any]] = []
    schema: int = SCHEMA


def shown_health(health: Health, liveness: Liveness) -> Health:
    """What is shown of a node's health: what it last said, while somebody reaches it; then nobody knows."""
    return health if liveness in (Liveness.ALIVE, Liveness.SUSPECT) else Health.UNKNOWN


def count_liveness(values: list[Liveness]) -> dict[str, int]:
    """Nodes by liveness, every liveness present."""
    counts = {liveness.value: 0 for liveness in Liveness}
    for value in values:
        counts[value.value] += 1
    return counts


def seconds_of(value_ns: int | None) -> float | None:
    """Nanoseconds as seconds with three decimals, None stays None."""
    return None if value_ns is None else round(value_ns / 1e9, 3)


def incarnation_view(incarnation: int | None) -> str | None:
    """An incarnation as 16 hexadecimal digits: readers of JSON lose the last bits of numbers above 2^53."""
    return None if incarnation is None else f"{incarnation:016x}"


def evidence_view(evidence: Evidence) -> dict[str, Any]:
    """Evidence as people and hooks are shown it."""
    return {**msgspec.to_builtins(evidence), "incarnation": incarnation_view(evidence.incarnation)}
