"""Every metric that there is: a root, a leader and a host in trouble of all kinds, asked once."""

from __future__ import annotations

import re
from functools import cache

from hbagent.core.agentmetrics import render
from hbagent.core.config import SinkConfig
from hbagent.core.drill import PREFIX
from hbagent.core.exposition import ProcessFacts
from hbagent.core.leadermetrics import LeaderMetrics
from hbagent.core.messages import (
    AppRow,
    HookFinished,
    Kept,
    MarkRow,
    Measure,
    NodeReport,
    ProbeResult,
    RackReports,
    Refused,
    Report,
    Vitals,
)
from hbagent.core.records import Trouble
from hbagent.core.rootmetrics import RootMetrics
from hbagent.core.states import AppState, Axis, Cause, Health, Kind, Liveness
from hbagent.web.server import Server
from tests.build import (
    EPOCH,
    INCARNATION,
    LEADER,
    NODE,
    NODE2,
    RACK,
    WALL_NS,
    T,
    beat,
    became,
    give,
    hook,
    leader_core,
    part,
    root_core,
    row,
    summary,
    transition,
    transitions,
)
from tests.web.parts import Core

_FACTS = ProcessFacts(
    cpu_s=1.0,
    resident_bytes=1,
    virtual_bytes=1,
    open_fds=1,
    fds_max=1,
    threads=1,
    started_s=1.0,
    commit_s=0.1,
    reads=(2, 1),
    rotation=(2, 1),
)
#: What node_exporter tells of the file that an agent writes.
_OTHERS = ("node_textfile_mtime_seconds",)


@cache
def everything(openmetrics: bool = False) -> dict[str, bytes]:
    """The answers by role."""
    own = Server(Core(), pages=False, tell=lambda level, what, fields: None).metrics(openmetrics)
    return {
        "root": own + _root(openmetrics),
        "leader": own + _leader(openmetrics),
        "agent": render(Vitals(health=Health.CRITICAL, probes=_probes(), apps=_apps()), NODE, WALL_NS),
    }


def names_in(*answers: bytes) -> frozenset[str]:
    """Names of the samples in these answers."""
    found = {name for answer in answers for name in re.findall(r"^([a-z_]+)[{ ]", answer.decode(), re.MULTILINE)}
    return frozenset(found | {*_OTHERS})


def _probes() -> tuple[ProbeResult, ...]:
    measure = Measure(label="/", value=99.0, unit="%")
    return (ProbeResult(name="disk", kind="host", health=Health.CRITICAL, measures=(measure,)),)


def _apps() -> tuple[AppRow, ...]:
    return (
        AppRow(name="web", health=Health.STALLED, state=AppState.STUCK, marks=(MarkRow(name="w", count=1, queued=1),)),
    )


def _root(openmetrics: bool) -> bytes:
    core = root_core(hook(), sinks=(SinkConfig(name="am", urls=("http://127.0.0.1:9093",)),))
    metrics = RootMetrics(core)
    core.receive("", Refused("x", "malformed"), T(1))
    core.receive(LEADER, summary(1, newest=2), T(1))
    dead = transition(2, Liveness.DEAD, Liveness.ALIVE, NODE2, cause=Cause.HOST_GONE)
    core.receive(LEADER, transitions(transition(1), dead), T(1))
    core.receive(LEADER, summary(2, row("node1"), newest=2), T(1))
    drill = part(f"{PREFIX}ab12cd", Health.DEADLOCKED)
    core.receive(LEADER, transitions(became(3, Health.DEADLOCKED, Health.OK, drill)), T(1))
    report = Report(incarnation=INCARNATION, number=1, health=Health.CRITICAL, probes=_probes(), apps=_apps())
    core.receive(LEADER, RackReports(rack=RACK, epoch=EPOCH, reports=(NodeReport(node="node1", report=report),)), T(1))
    key = (NODE, Axis.LIVENESS)
    core.alerts.troubles[key] = Trouble(
        subject=NODE, axis=Axis.LIVENESS, rack=RACK, incident="", kind=Kind.NODE_DEAD, flapping="e-1", over=True
    )
    core.alerts.unsent["silence"] = 1
    for effect in core.receive("", Kept(1), T(1)):
        if type(effect).__name__ == "RunHook":
            core.receive("", HookFinished(run_id=effect.run_id, exit_code=0, duration_ns=T(1)), T(1))  # type: ignore[union-attr]
    return metrics.render(T(2), _FACTS, openmetrics)


def _leader(openmetrics: bool) -> bytes:
    core = leader_core()
    give(core, beat(1), T(1))
    core.receive("", Refused("x", "malformed"), T(1))
    return LeaderMetrics(core).render(T(2), _FACTS, openmetrics)
