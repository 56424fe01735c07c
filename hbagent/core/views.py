"""What a console is shown: the JSON contract of `hbagent status`, as structs.

Root and leader build the same shapes, so every command works against either. Times are RFC 3339 UTC with
milliseconds, names are full, lists are always present. Readers ignore keys they do not know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .messages import AppRow, Evidence, HostFacts, Measure, ProbeResult, Report
from .states import AppState, Health, Kind, Liveness, RackState, Stall
from .units import MILLISECOND
from .wallclock import rfc3339

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
    #: True once the echo port answered that leader in the node's present life: only then can its end be proved. None
    #: at the root, which is not told of it.
    echo: bool | None = None


class ProbeView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One probe's newest outcome. Ages grow until the answer is given."""

    name: str
    #: exec, http, tcp, unix, process, unit, file, log or host.
    kind: str
    #: Hard state, and how long it has had this value.
    health: Health
    since_s: float | None
    text: str
    #: Since the newest run ended.
    age_s: float | None
    #: What the newest run said, while that is not yet the hard state, and how many runs in a row have said so.
    soft: Health | None
    attempts: int
    #: The application that it looks at; "" for none.
    app: str
    measures: list[Measure]


class MarkView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One progress mark of an application."""

    name: str
    count: int
    queued: int | None
    #: Since it last moved, and within which time it must while work is queued.
    age_s: float | None
    window_s: float | None


class AppView(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One application as its host sees it."""

    name: str
    health: Health
    since_s: float | None
    state: AppState
    #: Why the health is what it is; what the application says of itself.
    text: str
    status: str
    #: What its process was found to be doing when it was looked at last; None: never looked at.
    stall: Stall | None
    #: The proof, or what was seen, a line each.
    details: list[str]
    pid: int
    #: Name of the newest evidence bundle on the node, for `hbagent evidence`; "" for none.
    bundle: str
    marks: list[MarkView]


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
    probes: list[ProbeView]
    apps: list[AppView] = []
    facts: HostFacts | None = None
    #: Since the agent took them.
    facts_age_s: float | None = None
    lost: int = 0
    late: int = 0
    #: Its incidents that are not resolved, and what covers it now: ids of silences and maintenances.
    incidents: list[str] = []
    covered_by: list[str] = []
    flapping: bool = False
    #: That its agent runs; "" when nobody has told it: it greeted no leader yet, or only some too old to tell.
    version: str = ""
    #: What its health would be without the drill that is under way there; None when there is none.
    health_beside_drill: Health | None = None


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
    #: Verdicts that nobody will be told of, for newer ones of the same nodes waited behind them in a full outbox.
    folded: int = 0
    refused: dict[str, int] = {}
    #: Why it does not speak: leader-lost, observer-stalled, root-isolated; None while it does.
    cause: str | None = None
    #: Doubts begun, questions sent to answer them, and doubts cleared without a suspicion.
    doubts: int = 0
    asked: int = 0
    cleared: int = 0
    #: Pauses of its own loop so long that judging was put off, and time that its host was suspended.
    stalls: int = 0
    suspended_s: float = 0.0


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
    #: True while all leaders are silent together: nothing is known of any node.
    isolated: bool = False
    suspended_s: float = 0.0


class IncidentView(msgspec.Struct, frozen=True, kw_only=True):
    """One incident: trouble of one rack, axis and cause, with everybody whom it has hit."""

    incident: str
    #: firing, acknowledged or resolved.
    state: str
    #: liveness, health, rack, leader or root.
    axis: str
    kind: str
    rack: str
    cause: str | None
    opened: str
    resolved: str | None
    age_s: float
    #: Members that still burn, members ever, and the names of some of those that still burn.
    burning: int
    count: int
    members: list[str]
    text: str
    acked_by: str
    comment: str
    #: Silences and maintenances that cover all that burns of it.
    silenced_by: list[str]
    #: The incident that explains it; "" for none.
    inhibited_by: str
    drill: bool


class SilenceView(msgspec.Struct, frozen=True, kw_only=True):
    """One silence or maintenance."""

    silence: str
    maintenance: bool
    #: pending, active or ended; one that recurs is pending between its windows.
    state: str
    nodes: list[str]
    racks: list[str]
    causes: list[str]
    kinds: list[str]
    begins: str
    ends: str
    #: When the present window ends, or the next one begins; null when there is none.
    next: str | None
    every: str
    length_s: float
    reason: str
    author: str
    ended_by: str
    #: How many troubles that burn it covers now.
    covers: int


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to `status`."""

    root: RootView
    racks: list[RackView]
    nodes: list[NodeView]
    #: Those that are not resolved, the worst first.
    incidents: list[IncidentView] = []
    schema: int = SCHEMA


class BriefView(StatusView, frozen=True, kw_only=True):
    """The answer to `status` in brief: without the nodes of which there is nothing to tell but that they are well.

    They are counted in `racks`.
    """

    brief: bool = True


class Cell(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One node in a few bytes, for whoever shows all of them again and again."""

    node: str
    liveness: Liveness
    cause: str | None
    health: Health
    #: Since when the liveness has this value.
    since: str
    #: Since the last proof of life, when `CellsView.at` was taken; None when there never was one.
    age_s: float | None
    #: The worst that is known of its health, in a line; "" while it is OK.
    text: str = ""
    #: silence or maintenance; "" while nothing covers it.
    covered: str = ""
    flapping: bool = False


def is_plain(cell: Cell) -> bool:
    """True for a node of which there is nothing to tell but that it is well."""
    well = cell.liveness is Liveness.ALIVE and cell.health is Health.OK and cell.cause is None
    return well and not cell.covered and not cell.flapping


class CellsView(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `cells`: everything, or what changed since the asker's `version` of this `life`."""

    #: Of the answering process; a version of another life means nothing.
    life: str
    version: int
    #: True: this is everything, and whatever is not in it is gone.
    whole: bool
    root: RootView
    racks: list[RackView]
    #: Nodes of which anything but the age changed.
    cells: list[Cell]
    #: Nodes that are known no longer.
    gone: list[str]
    incidents: list[IncidentView]
    silences: list[SilenceView]
    schema: int = SCHEMA


class ExplainView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node is in the state it is in. `events` is filled in by the store, newest first."""

    node: NodeView
    rack: RackView
    #: Verdicts with their evidence, newest first.
    story: list[dict[str, Any]]
    events: list[dict[str, Any]] = []
    schema: int = SCHEMA


class EvidenceView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to `evidence`."""

    node: str
    #: Through whom it came.
    leader: str
    size_bytes: int
    #: The JSON object as the node sent it.
    bundle: msgspec.Raw
    schema: int = SCHEMA


class CauseView(msgspec.Struct, frozen=True, kw_only=True):
    """Deaths that were told, of one cause or of all."""

    cause: str
    verdicts: int
    #: The same incarnation came back.
    wrong: int
    #: Wrong verdicts per year that a living node was watched; None when none was.
    false_positives_per_node_year: float | None
    #: From the last proof of life to the verdict, of those that were right and are kept; None without any.
    detection_p50_ms: float | None
    detection_p99_ms: float | None


class MistakeView(msgspec.Struct, frozen=True, kw_only=True):
    """One death that was none."""

    node: str
    cause: str
    at: str
    #: From the verdict to the node's return.
    back_after_s: float
    #: Why it had been silent, by its own account; "" while that is not known.
    reason: str
    event_id: str


class AccuracyView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer to `accuracy`."""

    at: str
    #: Counted since then.
    since: str
    #: For how long living nodes were watched, summed over the nodes.
    node_years: float
    node_hours: float
    all: CauseView
    causes: list[CauseView]
    #: Verdicts that percentiles and mistakes are taken from; older ones are only counted.
    kept: int
    #: The newest, newest first.
    mistakes: list[MistakeView]
    schema: int = SCHEMA


def shown_health(health: Health, liveness: Liveness, away: bool = False) -> Health:
    """What is shown of a node's health: what it last said, while somebody reaches it; then nobody knows.

    `away`: it said goodbye, and stays away for too long.
    """
    if away:
        return Health.WARNING
    return health if liveness in (Liveness.ALIVE, Liveness.SUSPECT) else Health.UNKNOWN


def probe_views(report: Report | None, older_ns: int) -> list[ProbeView]:
    """The probes of a report that came `older_ns` ago."""
    return [_probe_view(row, older_ns) for row in report.probes] if report is not None else []


def _probe_view(row: ProbeResult, older_ns: int) -> ProbeView:
    return ProbeView(
        name=row.name,
        kind=row.kind,
        health=row.health,
        since_s=seconds_of(row.since_ns + older_ns),
        text=row.text,
        age_s=seconds_of(row.age_ns + older_ns),
        soft=row.soft,
        attempts=row.attempts,
        app=row.app,
        measures=list(row.measures),
    )


def app_views(report: Report | None, older_ns: int) -> list[AppView]:
    """The applications of a report that came `older_ns` ago."""
    return [_app_view(row, older_ns) for row in report.apps] if report is not None else []


def _app_view(row: AppRow, older_ns: int) -> AppView:
    marks = [
        MarkView(
            name=mark.name,
            count=mark.count,
            queued=mark.queued,
            age_s=seconds_of(mark.age_ns + older_ns),
            window_s=seconds_of(mark.window_ns),
        )
        for mark in row.marks
    ]
    return AppView(
        name=row.name,
        health=row.health,
        since_s=seconds_of(row.since_ns + older_ns),
        state=row.state,
        text=row.text,
        status=row.status,
        stall=row.stall,
        details=list(row.details),
        pid=row.pid,
        bundle=row.bundle,
        marks=marks,
    )


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


def evidence_view(evidence: Evidence | dict[str, Any]) -> dict[str, Any]:
    """Evidence, or its plain values as the history keeps them, as people and hooks are shown it.

    `steps` have their time in milliseconds since the last proof of life.
    """
    shown: dict[str, Any] = evidence if isinstance(evidence, dict) else msgspec.to_builtins(evidence)
    steps = [
        {"after_ms": round(step.get("after_ns", 0) / MILLISECOND, 3), "text": step.get("text", "")}
        for step in shown.get("steps") or ()
    ]
    account = shown.get("account")
    if account is not None:
        account = {**account, "incarnation": incarnation_view(account.get("incarnation"))}
    incarnation = incarnation_view(shown.get("incarnation"))
    return {**shown, "incarnation": incarnation, "steps": steps, "account": account}


def event_view(event: dict[str, Any]) -> dict[str, Any]:
    """An event of the history, in plain values, as a console is shown it: in the form of a hook's input."""
    event = dict(event)
    at = event.pop("at_wall_ns", 0)
    shown: dict[str, Any] = {"at": rfc3339(at if isinstance(at, int) else 0)}
    for axis in ("liveness", "health"):
        shown[axis] = {"from": event.pop(f"{axis}_from", None), "to": event.pop(f"{axis}_to", None)}
    if isinstance(event.get("evidence"), dict):
        shown["evidence"] = evidence_view(event["evidence"])
    return {**event, **shown}


def events_view(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events of the history, newest first, as a console is shown them.

    A node that came back and said why it had been silent has relabelled that silence: its SUSPECT and its DEAD have
    what it said as `account`.
    """
    shown = []
    #: What each node said of the silence that is being gone through, and whether the end of it has been met.
    said: dict[str, tuple[str, bool]] = {}
    for event in events:
        view = event_view(event)
        node, to = view.get("node") or "", view["liveness"]["to"]
        if view.get("kind") == Kind.NODE_ACCOUNTED.value:
            said[node] = (str((view.get("evidence") or {}).get("text", "")), False)
        elif node in said:
            text, met = said[node]
            if to in (Liveness.SUSPECT.value, Liveness.DEAD.value):
                view["account"] = text
            elif met:
                del said[node]
            else:
                said[node] = (text, True)
        shown.append(view)
    return shown
