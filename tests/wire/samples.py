"""One of each wire message, with every field away from its default, and frames that other versions would send."""

from __future__ import annotations

from typing import Any

import msgspec

from hbagent.core import echo
from hbagent.core import messages as m
from hbagent.core.states import AppState, Cause, Health, Kind, Liveness, Outcome, Stall
from hbagent.wire import beat, codec
from hbagent.wire.version import MAGIC

BEAT = m.Beat(
    incarnation=0xFEDCBA9876543210,
    sequence=81723,
    sent_mono_ns=5_000_000_123,
    due_in_ns=1_000_000_000,
    interval_ns=1_000_000_000,
    loop_gap_ns=1_234_000,
    progress=77,
    health_digest=0xDEADBEEF,
    leaving=True,
)

FACTS = m.HostFacts(
    cpu_count=8,
    cpu_percent=12.5,
    load_1m=0.75,
    memory_total_bytes=64 * 2**30,
    memory_used_percent=41.5,
    swap_used_percent=0.0,
    disks=(
        m.Disk(mount="/", total_bytes=2**40, used_percent=73.25),
        m.Disk(mount="/srv/ä", total_bytes=1, used_percent=0.0),
    ),
    psi_cpu=0.5,
    psi_memory=None,
    psi_io=1.25,
    uptime_s=86_400,
    hostname="host12",
    kernel="6.1.0",
    errors=("/proc/pressure/memory: permission denied",),
)

#: As minor 0 had them.
PROBE_0 = m.ProbeResult(name="pg", health=Health.STALLED, text="no progress for 12 s", age_ns=1_500_000_000)
REPORT_0 = m.Report(incarnation=17, number=3, facts=FACTS, health=Health.WARNING, probes=(PROBE_0,), digest=0xDEADBEEF)

PROBE = msgspec.structs.replace(
    PROBE_0,
    kind="exec",
    soft=Health.CRITICAL,
    attempts=2,
    since_ns=90_000_000_000,
    app="db",
    measures=(
        m.Measure(label="time", value=0.25, unit="s", warning="1", critical="~:2", least=0.0, most=10.0),
        m.Measure(label="used space", value=None),
    ),
)
APP = m.AppRow(
    name="web",
    health=Health.DEADLOCKED,
    state=AppState.STUCK,
    text="thread worker-1 holds 0x55d0 and waits for 0x55f8, held by worker-2",
    status="serving 12 requests",
    stall=Stall.DEADLOCKED,
    details=("worker-1 waits for 0x55f8", "worker-2 waits for 0x55d0"),
    pid=4711,
    since_ns=3_000_000_000,
    bundle="web-20261121T120000Z-1",
    marks=(m.MarkRow(name="worker-1", count=81723, queued=4, age_ns=12_000_000_000, window_ns=10_000_000_000),),
)
REPORT = msgspec.structs.replace(REPORT_0, probes=(PROBE,), apps=(APP,), window_ns=10_000_000_000)

ACCOUNT = m.Account(
    number=12,
    incarnation=17,
    covered_ns=60_000_000_000,
    loop_gap_max_ns=4_100_000_000,
    loop_gap_ns=5_200_000_000,
    run_delay_ns=3_000_000_000,
    throttled_ns=900_000_000,
    suspended_ns=250_000_000,
    beats=57,
    links_lost=2,
)

EVIDENCE = m.Evidence(
    text="silent for 5.2 s, 5 intervals of 1.0 s are allowed",
    incarnation=17,
    sequence=81723,
    silent_ns=5_200_000_000,
    interval_ns=1_000_000_000,
    allowed_ns=150_000_000,
    lag_credit_ns=2_000_000,
    detector="adaptive",
    lost=2,
    late=1,
    steps=(
        m.Step(after_ns=1_150_000_000, text="its beat is 150 ms late: asked"),
        m.Step(after_ns=1_152_000_000, text="its kernel acknowledged"),
    ),
    account=ACCOUNT,
)

ROW = m.NodeRow(
    node="host12",
    liveness=Liveness.DEAD,
    cause=Cause.SILENCE,
    health=Health.UNKNOWN,
    since_ns=30_000_000_000,
    age_ns=35_000_000_000,
    incarnation=17,
    sequence=81723,
    version=9,
    lost=2,
    late=1,
    loop_gap_ns=4_000_000,
    margin_ns=35_000_000,
    report=12,
)

STATS = m.LeaderStats(
    uptime_ns=3_600_000_000_000,
    lag_max_ns=3_000_000,
    beats=36_000,
    refused={"forged-id": 2, "stale": 1},
    doubts=6,
    asked=40,
    cleared=5,
    stalls=1,
    suspended_ns=7_000_000_000,
    outbox=4,
    degraded="state directory is not writable",
    version="0.1.0",
)

TRANSITION = m.Transition(
    number=9,
    node="dc1/rack07/host12",
    kind=Kind.NODE_DEAD,
    before=Liveness.SUSPECT,
    after=Liveness.DEAD,
    cause=Cause.SILENCE,
    evidence=EVIDENCE,
    incarnation=17,
    sequence=81723,
    at_wall_ns=1_700_000_000_000_000_000,
    health_before=Health.OK,
    health_after=Health.UNKNOWN,
)

CHANGE = m.HealthChange(
    subject="app",
    name="web",
    before=Health.OK,
    after=Health.DEADLOCKED,
    text="two threads wait for each other",
    stall=Stall.DEADLOCKED,
    bundle="web-20261121T120000Z-1",
    details=APP.details,
)
HEALTH_TRANSITION = m.Transition(
    number=10,
    node="dc1/rack07/host12",
    kind=Kind.HEALTH_CHANGED,
    before=Liveness.ALIVE,
    after=Liveness.ALIVE,
    cause=None,
    evidence=m.Evidence(text="app web is DEADLOCKED: two threads wait for each other", changes=(CHANGE,)),
    incarnation=17,
    sequence=81723,
    at_wall_ns=1_700_000_000_000_000_000,
    at_mono_ns=5_000_000_000,
    health_before=Health.OK,
    health_after=Health.DEADLOCKED,
    report=3,
)

#: One of each, by the name of its golden vector.
MESSAGES: dict[str, m.WireMessage] = {
    "hello": m.Hello(
        incarnation=17,
        interval_ns=250_000_000,
        version="0.1.0",
        boot_id="b00t",
        echo_port=5799,
        protocol_high=2,
        reads=3,
    ),
    "admission": m.Admission(accepted=True, epoch=4, reason="welcome", echo_key=bytes(range(32)), protocol=1, reads=3),
    "farewell": m.Farewell(incarnation=17, sequence=81724),
    "farewell-ack": m.FarewellAck(incarnation=17),
    "ping": m.Ping(number=7),
    "pong": m.Pong(number=7, incarnation=17, sequence=81724),
    "relay": m.Relay(number=8, address="192.0.2.12", port=5799, request=echo.request(bytes(range(32)), b"n" * 12)),
    "relayed": m.Relayed(number=8, outcome=Outcome.ANSWERED, answer=bytes(range(48))),
    "heard-wanted": m.HeardWanted(number=9, node="dc1/rack07/host12", reads=3),
    "last-heard": m.LastHeard(
        number=9, node="dc1/rack07/host12", age_ns=40_000_000, incarnation=17, sequence=81723, reads=3
    ),
    "account-wanted": m.AccountWanted(number=12, since_ns=5_200_000_000),
    "account": ACCOUNT,
    "report-wanted": m.ReportWanted(have=4_000_000_000),
    "evidence-wanted": m.EvidenceWanted(number=13, node="dc1/rack07/host12", app="web", bundle="web-1"),
    "drill-wanted": m.DrillWanted(number=14, node="dc1/rack07/host12", drill="freeze", app="hbagent-drill-1f"),
    "drill-begun": m.DrillBegun(number=14, node="dc1/rack07/host12", error="drills are off here"),
    "evidence-page": m.EvidencePage(
        number=13, node="dc1/rack07/host12", page=1, last=True, body=b'"threads":[]}', error="the rest is missing"
    ),
    "report": REPORT,
    "rack-summary": m.RackSummary(
        rack="dc1/rack07",
        epoch=4,
        number=360,
        newest=9,
        page=1,
        pages=2,
        nodes=(ROW, m.NodeRow(node="host13", liveness=Liveness.ALIVE, health=Health.OK)),
        stats=STATS,
        dark_ns=3_500_000_000,
        reads=3,
    ),
    "rack-reports": m.RackReports(
        rack="dc1/rack07",
        epoch=4,
        reports=(m.NodeReport(node="host12", report=REPORT, age_ns=2_000_000, version="0.1.0"),),
    ),
    "transitions": m.Transitions(
        epoch=4,
        base=7,
        after=8,
        items=(TRANSITION, HEALTH_TRANSITION),
        dropped=1,
        sent_mono_ns=6_000_000_000,
        present=5,
    ),
    "transitions-ack": m.TransitionsAck(epoch=4, number=9),
    "welcome": m.Welcome(reads=3, version="0.1.0"),
    "query": m.Query(
        id=7,
        what="events",
        node="dc1/rack07/host12",
        app="web",
        bundle="web-1",
        drill="freeze",
        event="0d1f",
        rack="dc1/rack07",
        incident="i17",
        limit=20,
        after=1000,
        life="4f2a",
        brief=True,
    ),
    "order": m.Order(
        id=8,
        what="silence",
        target="s4",
        reason="new switch in the rack",
        nodes=("web*", "dc1/*/db?"),
        racks=("rack07",),
        causes=("host-gone",),
        kinds=("node-*",),
        maintenance=True,
        begins_wall_ns=1_795_262_400_000_000_000,
        ends_wall_ns=1_796_472_000_000_000_000,
        length_ns=7_200_000_000_000,
        every="sun 02:00",
    ),
    "answer-page": m.AnswerPage(id=7, page=2, last=True, body=b'{"schema":1}', error="half of it is missing"),
}

_REPORTED = m.RackReports(
    rack="dc1/rack07", epoch=4, reports=(m.NodeReport(node="host12", report=REPORT, age_ns=2_000_000),)
)
_SUMMARY = MESSAGES["rack-summary"]
assert isinstance(_SUMMARY, m.RackSummary)
_SUMMARY_2 = msgspec.structs.replace(
    _SUMMARY, reads=0, nodes=tuple(msgspec.structs.replace(row, report=0) for row in _SUMMARY.nodes)
)
#: What the vectors of an earlier minor mean, where it is not what this version would say.
EARLIER: dict[str, m.WireMessage] = {
    **{
        f"1.{minor}-{name}": msgspec.structs.replace(MESSAGES[name], reads=0)
        for name in ("hello", "admission", "heard-wanted", "last-heard")
        for minor in range(3)
    },
    **{f"1.{minor}-rack-summary": _SUMMARY_2 for minor in range(3)},
    "1.1-rack-reports": _REPORTED,
    "1.2-rack-reports": _REPORTED,
    "1.0-report": REPORT_0,
    "1.0-rack-reports": m.RackReports(
        rack="dc1/rack07", epoch=4, reports=(m.NodeReport(node="host12", report=REPORT_0, age_ns=2_000_000),)
    ),
    "1.0-transitions": m.Transitions(epoch=4, base=7, after=8, items=(TRANSITION,), dropped=1, present=5),
    "1.0-query": m.Query(id=7, what="events", node="dc1/rack07/host12", rack="dc1/rack07", limit=20, after=1000),
    "1.1-query": m.Query(
        id=7,
        what="events",
        node="dc1/rack07/host12",
        app="web",
        bundle="web-1",
        drill="freeze",
        event="0d1f",
        rack="dc1/rack07",
        limit=20,
        after=1000,
    ),
}

#: A minor that this version will not reach: what a far newer peer of the same major would say.
NEWER = 255


def frame(type_code: int, body: Any, *, major: int = 1, minor: int = 0) -> bytes:
    """A frame with any body, built without the codec."""
    return MAGIC + bytes([major, minor, type_code]) + msgspec.msgpack.encode(body)


def fields(message: Any) -> dict[str, Any]:
    """The fields of a message as plain maps, lists and text, to be changed by hand."""
    plain: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    return plain


def code_of(message: m.WireMessage) -> int:
    """The type byte of a message."""
    return next(code for code, cls in codec.TYPES.items() if cls is type(message))


def current() -> dict[str, bytes]:
    """Golden frames of this version, by name."""
    return {"beat": beat.encode(BEAT), **{name: codec.encode(message) for name, message in MESSAGES.items()}}


def foreign() -> dict[str, bytes]:
    """Golden frames of versions that do not exist yet, by name."""
    hello = fields(MESSAGES["hello"])
    summary = fields(MESSAGES["rack-summary"])
    summary["nodes"][0] |= {"liveness": "DROWSY", "cause": "gremlins", "health": "GREAT", "mood": [1, {"x": None}]}
    transitions = fields(MESSAGES["transitions"])
    transitions["items"][0] |= {"kind": "node-evaporated", "cause": "gremlins"}
    report = fields(MESSAGES["report"])
    report["probes"][0] |= {"kind": "quantum", "soft": "WOBBLY"}
    report["apps"][0] |= {"state": "dreaming", "stall": "BORED"}
    health = fields(MESSAGES["transitions"])
    health["items"][1]["evidence"]["changes"][0] |= {"before": "GREAT", "after": "AWFUL", "stall": "BORED"}
    newer_beat = beat.HEAD[:3] + bytes([NEWER, beat.BEAT_TYPE]) + beat.encode(BEAT)[5:]
    return {
        "newer-hello-with-unknown-fields": frame(0x10, hello | {"colour": "blue", "more": {"a": [1, 2]}}, minor=NEWER),
        "newer-summary-with-unknown-words": frame(0x20, summary, minor=NEWER),
        "newer-transitions-with-unknown-words": frame(0x22, transitions, minor=NEWER),
        "newer-report-with-unknown-words": frame(0x14, report, minor=NEWER),
        "newer-health-change-with-unknown-words": frame(0x22, health, minor=NEWER),
        "newer-type": frame(0xEE, {"anything": 1}, minor=NEWER),
        "newer-beat-of-64-bytes": newer_beat + bytes(range(64 - len(newer_beat))),
        "major-2-hello": frame(0x10, hello, major=2),
        "major-2-beat": beat.encode(BEAT)[:2] + b"\x02" + beat.encode(BEAT)[3:],
    }
