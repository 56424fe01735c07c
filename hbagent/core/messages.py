"""What the cores say to one another and what the driver tells them.

The first half travels: `wire.codec` turns each of these into bytes and back. The second half is local: results of
effects and signals, made by the driver (or the simulator) and never seen on a wire.

Nothing here says who sent it. The sender is the authenticated name that the transport found, handed to
`receive` beside the message; a name inside a message is never proof of anything.

Times that end in `_mono_ns` are the *sender's* monotonic clock and may only be compared with one another.
Fields may be added with a default; the meaning of a field never changes (see `wire.version`).
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from .states import AppState, Cause, Health, Kind, Liveness, Outcome, Path, Stall
from .units import MILLISECOND

#: A neighbour answers a `Relay` within this, also when nothing came back: the leader that asked decides half a second
#: after the beat was due, and an answer after that would be for nothing.
RELAY_TIME_NS = 200 * MILLISECOND
#: Steps in the story of a verdict; those in the middle are left out. At 100 bytes each this is 3 kB.
STEPS_MAX = 30
#: Lines of a proof that travel with a report; the bundle on the node has all of it.
DETAILS_MAX = 20
#: Parts named in one health-changed: a host of which everything fails must not fill a frame.
CHANGES_MAX = 20


class Beat(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One heartbeat. Fixed size on the wire (`wire.beat`); the only message that proves life."""

    #: 64 random bits chosen when the agent starts. Incarnations have no order: clocks of fresh hosts lie.
    incarnation: int
    #: Counts the beats of this incarnation, from 1. Only the agent raises it.
    sequence: int
    #: Sender's monotonic clock when the beat was handed to the socket.
    sent_mono_ns: int
    #: How long after `sent_mono_ns` the next beat is due.
    due_in_ns: int
    #: Configured beat interval.
    interval_ns: int
    #: Largest gap of the sender's own loop since its last beat: its share of the lateness.
    loop_gap_ns: int = 0
    #: Progress mark of the half that takes reports; stands still when that half is stuck.
    progress: int = 0
    #: Digest of the newest report's health part, so that a lost report is noticed.
    health_digest: int = 0
    #: The agent is leaving on purpose; this is its last beat.
    leaving: bool = False


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Agent to leader on the control path: who I am, until admitted and again after each reconnect."""

    incarnation: int
    interval_ns: int
    version: str
    boot_id: str = ""
    echo_port: int = 0
    #: Wire protocol majors that this agent can speak.
    protocol_low: int = 1
    protocol_high: int = 1
    #: The minor of the wire that its sender reads; 0: as the head of its frame says (see `wire.version`).
    reads: int = 0


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to agent: the answer to `Hello`."""

    accepted: bool
    #: The leader's own start, so that an agent notices a restarted leader and sends everything again.
    epoch: int
    #: Why not, when not accepted; for a log line.
    reason: str = ""
    #: 32 random bytes agreed for signed echo requests; empty when this leader asks none.
    echo_key: bytes = b""
    #: Wire protocol major to speak to this leader.
    protocol: int = 1
    #: The minor of the wire that its sender reads; 0: as the head of its frame says (see `wire.version`).
    reads: int = 0


class ReportWanted(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to agent on the control path: the digest in your beats is not that of the newest report I have."""

    #: Digest of the newest report that arrived; 0 for none.
    have: int = 0


class Farewell(msgspec.Struct, frozen=True, kw_only=True):
    """Agent to leader on the control path: leaving on purpose. Repeated until acknowledged or time is up."""

    incarnation: int
    sequence: int


class FarewellAck(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to agent: the farewell is in the table."""

    incarnation: int


class Ping(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Leader to agent, or root to leader, on the control path: are you there?"""

    #: Chosen by the asker, never twice in its life.
    number: int


class Pong(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The answer to `Ping`: proves life at the time the ping was sent, whenever it arrives."""

    number: int
    #: An agent's incarnation and the sequence of its newest beat; a leader's epoch, and 0.
    incarnation: int
    sequence: int


class Relay(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Leader to a neighbour of a node on the control path: send these bytes there by UDP and tell what comes back.

    The bytes are a signed echo request (`core.echo`): the neighbour can neither read nor forge what they say.
    """

    number: int
    #: Numeric IP address.
    address: str
    port: int
    request: bytes


class Relayed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Neighbour to leader: what came of a `Relay`. Sent in any case, at the latest after `RELAY_TIME_NS`."""

    number: int
    outcome: Outcome
    answer: bytes = b""


class HeardWanted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Leader to another leader of the rack: when did you last hear this node?"""

    number: int
    node: str
    #: The minor of the wire that its sender reads; 0: as the head of its frame says (see `wire.version`).
    reads: int = 0


class LastHeard(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The answer to `HeardWanted`."""

    number: int
    node: str
    #: Since the last proof of life; None: not heard in this life of the leader.
    age_ns: int | None = None
    incarnation: int | None = None
    sequence: int | None = None
    #: The minor of the wire that its sender reads; 0: as the head of its frame says (see `wire.version`).
    reads: int = 0


class AccountWanted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Leader to agent on the control path: why were you silent during the last `since_ns`?"""

    number: int
    since_ns: int


class Account(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Agent to leader: what the agent knows of a time in which it was not heard. Durations in nanoseconds."""

    number: int
    incarnation: int
    #: How far back the agent's own records went; less than was asked when it started later.
    covered_ns: int
    #: Largest and summed lateness of its own loop.
    loop_gap_max_ns: int = 0
    loop_gap_ns: int = 0
    #: Time that its loop wanted to run and had no CPU.
    run_delay_ns: int = 0
    #: Time that its control group was throttled by a CPU quota.
    throttled_ns: int = 0
    #: Time that its host was suspended.
    suspended_ns: int = 0
    #: Beats handed to the socket.
    beats: int = 0
    #: Connections to this leader lost.
    links_lost: int = 0


class Disk(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One mounted filesystem."""

    mount: str
    total_bytes: int
    used_percent: float


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a host says of itself. A value that could not be read is None, never a guess."""

    cpu_count: int | None = None
    cpu_percent: float | None = None
    load_1m: float | None = None
    memory_total_bytes: int | None = None
    memory_used_percent: float | None = None
    swap_used_percent: float | None = None
    disks: tuple[Disk, ...] = ()
    #: Share of the last 10 s in which some task waited for CPU, memory, I/O (PSI "some avg10"), per cent.
    psi_cpu: float | None = None
    psi_memory: float | None = None
    psi_io: float | None = None
    uptime_s: int | None = None
    hostname: str = ""
    kernel: str = ""
    #: Facts that failed to be read, with the reason.
    errors: tuple[str, ...] = ()


class Measure(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One number that a probe measured: performance data of the Nagios plugin contract."""

    label: str
    #: None: the plugin could not tell ("U").
    value: float | None
    unit: str = ""
    #: Ranges as the plugin wrote them: "10", "10:", "~:10", "10:20", "@10:20"; "" for none.
    warning: str = ""
    critical: str = ""
    least: float | None = None
    most: float | None = None


class ProbeResult(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One probe's newest outcome."""

    name: str
    #: Hard state: it changes for the worse after `fall` failed runs in a row, for the better after `rise` good ones.
    health: Health
    text: str = ""
    #: Age of the result when the report was sent.
    age_ns: int = 0
    #: exec, http, tcp, unix, process, unit, file, log or host.
    kind: str = ""
    #: What the last run said, while that is not yet the hard state, and how many runs in a row have said so.
    soft: Health | None = None
    attempts: int = 0
    #: How long the hard state has had this value.
    since_ns: int = 0
    #: The application that it looks at; "" for none.
    app: str = ""
    measures: tuple[Measure, ...] = ()


class MarkRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One progress mark of an application: a number that its thread raises while it works."""

    name: str
    count: int
    #: Work that waits for this thread; None: it does not say, and is taken to have some.
    queued: int | None = None
    #: Since the mark last moved.
    age_ns: int = 0
    #: It must move within this while work is queued.
    window_ns: int = 0


class AppRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One application that reports itself, or that a probe looks at."""

    name: str
    health: Health
    state: AppState
    #: Why the health is what it is, in one sentence.
    text: str = ""
    #: What the application said of itself (`STATUS=`).
    status: str = ""
    #: What its process was found to be doing when it was looked at last; None: never looked at.
    stall: Stall | None = None
    #: The proof, or what was seen, a line each; at most `DETAILS_MAX`.
    details: tuple[str, ...] = ()
    pid: int = 0
    #: How long the health has had this value.
    since_ns: int = 0
    #: Name of the newest evidence bundle on the node; "" for none.
    bundle: str = ""
    marks: tuple[MarkRow, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Agent to leader over PUB, beside the beats: facts, probes and apps, on change and every `report_interval`."""

    incarnation: int
    #: Counts the reports of this incarnation, from 1.
    number: int
    facts: HostFacts | None = None
    health: Health = Health.OK
    probes: tuple[ProbeResult, ...] = ()
    apps: tuple[AppRow, ...] = ()
    #: The progress mark in the beats moves within this, or the agent's prober is stuck; 0: it is not watched.
    window_ns: int = 0
    #: Equal to `Beat.health_digest` of beats sent after this report.
    digest: int = 0


class EvidenceWanted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Root to leader to agent on the control path: send an evidence bundle."""

    #: Chosen by the asker, never twice in its life.
    number: int
    #: Full node name.
    node: str
    #: The newest bundle about this application; "" for the newest of all.
    app: str = ""
    #: This bundle; "" for the newest.
    bundle: str = ""


class EvidencePage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Agent to leader to root: a slice of an evidence bundle (JSON), in order, at most 32 KiB each."""

    number: int
    node: str
    page: int
    last: bool
    body: bytes = b""
    #: Not empty: there is none, and this is why.
    error: str = ""


class DrillWanted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Root to leader to agent on the control path: start one of the drills of `core.drill` on this node."""

    number: int
    #: Full node name.
    node: str
    #: deadlock, freeze or crash.
    drill: str
    #: Name of the application that it is to be; begins with `core.drill.PREFIX`.
    app: str


class DrillBegun(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Agent to leader to root: the answer to `DrillWanted`."""

    number: int
    node: str
    #: Not empty: it was not begun, and this is why.
    error: str = ""


class HealthChange(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The hard state of one part of a node's health changed."""

    #: app, probe, or agent: the agent's own prober.
    subject: str
    name: str
    before: Health
    after: Health
    text: str = ""
    stall: Stall | None = None
    bundle: str = ""
    details: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, gc=False):
    """One moment in the story of a verdict."""

    #: Since the last proof of life.
    after_ns: int
    #: One short sentence for people.
    text: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Why a verdict was reached, in numbers an operator can check. All durations in nanoseconds."""

    #: One sentence for people.
    text: str
    incarnation: int | None = None
    sequence: int | None = None
    #: Since the last proof of life, when the verdict was reached.
    silent_ns: int | None = None
    #: The interval that the sender had announced.
    interval_ns: int | None = None
    #: How much later than due a beat was allowed to be.
    allowed_ns: int | None = None
    #: Lag of the observer's own loop that was added to the deadline.
    lag_credit_ns: int | None = None
    detector: str = ""
    #: Beats lost (by sequence gap) and late in this incarnation.
    lost: int = 0
    late: int = 0
    #: From the last proof of life to the verdict: what was asked, who answered what. At most `STEPS_MAX`.
    steps: tuple[Step, ...] = ()
    #: What the node said of its silence, once it was back.
    account: Account | None = None
    #: Of a health-changed: what changed; the worst `CHANGES_MAX` of it.
    changes: tuple[HealthChange, ...] = ()


class NodeRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One node in a summary: its full state as one leader sees it."""

    #: Short name within the rack.
    node: str
    liveness: Liveness
    cause: Cause | None = None
    health: Health = Health.UNKNOWN
    #: How long the liveness has had this value.
    since_ns: int = 0
    #: Since the last proof of life; None when this leader never heard the node in its own life.
    age_ns: int | None = None
    incarnation: int | None = None
    sequence: int | None = None
    #: Number (`Transition.number`) of the transition that made this value; 0 when none did.
    version: int = 0
    lost: int = 0
    late: int = 0
    #: Largest loop gap that the agent reported in the last minute.
    loop_gap_ns: int = 0
    #: How much later than expected its beats may come; learned, see `core.tail`.
    margin_ns: int = 0
    #: Number of the node's report that its health goes by; 0 when there is none, or an older leader does not say.
    report: int = 0


class LeaderStats(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A leader's account of itself, in each summary."""

    uptime_ns: int = 0
    #: Largest lag of its own loop in the last minute.
    lag_max_ns: int = 0
    beats: int = 0
    #: What was refused, by reason: forged-id, revoked, stale, duplicate, malformed, incompatible, noisy...
    refused: dict[str, int] = {}
    #: Doubts begun, questions sent to answer them, and doubts cleared without a suspicion.
    doubts: int = 0
    asked: int = 0
    cleared: int = 0
    #: Pauses of its own loop so long that judging was put off, and time that its host was suspended.
    stalls: int = 0
    suspended_ns: int = 0
    outbox: int = 0
    #: "" or why promises are suspended (state directory not writable, ...).
    degraded: str = ""
    version: str = ""


class RackSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to root over PUB each second: the full state of one rack. State, not differences, is the truth.

    A rack too large for one frame travels as several pages of one `number`; each page stands for itself.
    """

    rack: str
    epoch: int
    number: int
    #: Newest transition number that this leader has given out; tells the root whether it has them all.
    newest: int
    page: int = 0
    pages: int = 1
    nodes: tuple[NodeRow, ...] = ()
    stats: LeaderStats = LeaderStats()
    #: For how long most of the rack has been silent at once; None when it is not dark.
    dark_ns: int | None = None
    #: The minor of the wire that its sender reads; 0: as the head of its frame says (see `wire.version`).
    reads: int = 0


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node's newest report, passed on by its leader."""

    node: str
    report: Report
    age_ns: int = 0
    #: That the agent runs, as it said in its `Hello`; "" when it said none to this leader.
    version: str = ""


class RackReports(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to root over PUB: reports that changed since the last time, and each of them every 30 s."""

    rack: str
    epoch: int
    reports: tuple[NodeReport, ...] = ()


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a node as one leader saw it, with its evidence."""

    #: Counts the transitions of a leader's epoch, from 1, without a gap.
    number: int
    #: Full node name.
    node: str
    kind: Kind
    before: Liveness
    after: Liveness
    cause: Cause | None
    evidence: Evidence
    incarnation: int | None = None
    sequence: int | None = None
    #: Leader's wall clock, Unix ns, for display only.
    at_wall_ns: int = 0
    #: Leader's monotonic clock; to be compared with `Transitions.sent_mono_ns` of the same life only. 0: not told.
    at_mono_ns: int = 0
    #: The node's health before and after: the worst of its parts. Kind health-changed also tells of a part that changed
    #: without changing it; for all other kinds they are equal.
    health_before: Health = Health.UNKNOWN
    health_after: Health = Health.UNKNOWN
    #: Of a health-changed: number of the report that it was derived from.
    report: int = 0


class Transitions(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to root on the acknowledged path: the oldest unacknowledged transitions of one epoch, in order."""

    epoch: int
    #: Everything below this number has been acknowledged (or fell out of a full outbox: see `dropped`).
    base: int
    #: Number of the transition sent just before the first of these. A root that has not got it answers nothing and
    #: waits: the leader sends again from `base`.
    after: int
    items: tuple[Transition, ...] = ()
    #: Transitions that a full outbox had to coalesce away since the leader started.
    dropped: int = 0
    #: Leader's monotonic clock when this was sent; 0: not told.
    sent_mono_ns: int = 0
    #: Epoch of the leader's present life; another than `epoch` for what an earlier life left behind. 0: not told.
    present: int = 0


class TransitionsAck(msgspec.Struct, frozen=True, kw_only=True):
    """Root to leader: everything of `epoch` up to and including `number` is on the root's disk."""

    epoch: int
    number: int


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """Root to leader: the answer to the first summary on the control path, where nothing else may have to be said."""

    #: The minor of the wire that the root reads.
    reads: int
    version: str = ""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Console to root or leader on the query socket."""

    #: Chosen by the asker; comes back on every page of the answer.
    id: int
    #: status | nodes | racks | events | explain | accuracy | evidence | drill | runs | ping | cells | incidents |
    #: keys | silences | why-silent | dead-letters | hooks
    what: str
    node: str = ""
    #: For evidence: of which application, and which bundle; "" for the newest. For drill: the name it is to have.
    app: str = ""
    bundle: str = ""
    #: For drill: which.
    drill: str = ""
    #: For runs: of which event the hook runs are wanted.
    event: str = ""
    rack: str = ""
    #: For why-silent: an incident, in place of a node or of the rack, leader or root `rack`.
    incident: str = ""
    #: For events: newest first, at most this many, and only those with a sequence above `after`. For cells: only what
    #: changed after the version `after`.
    limit: int = 100
    after: int = 0
    #: For cells: of which life `after` is; another one is answered with everything.
    life: str = ""
    #: For status: without the nodes of which there is nothing to tell but that they are well.
    brief: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Operator to root on the query socket or the operators' port: change something. Answered as a query is."""

    #: Chosen by the asker; comes back on every page of the answer.
    id: int
    #: silence | unsilence | ack | forget | hook-test | hook-retry
    what: str
    #: Of ack: an incident. Of unsilence: a silence. Of hook-test: a hook. Of hook-retry: a run, or "" for all that
    #: were given up. Of forget: a full node name.
    target: str = ""
    #: Why: shown to everybody who wonders later.
    reason: str = ""
    #: Of silence: globs, each list to be met by one; an empty list fits everything.
    nodes: tuple[str, ...] = ()
    racks: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    maintenance: bool = False
    #: Of silence: Unix ns; 0 for now, and for the end `begins` and `length_ns`.
    begins_wall_ns: int = 0
    ends_wall_ns: int = 0
    length_ns: int = 0
    #: Of silence: "daily 02:00", "sun 02:00" or "mon,thu 22:30", UTC; "" for once.
    every: str = ""


class AnswerPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of an answer: a slice of a JSON document."""

    id: int
    page: int
    last: bool
    body: bytes
    #: Not empty: the query failed, and this is why.
    error: str = ""


WireMessage = Union[
    Hello,
    Admission,
    Ping,
    Pong,
    Relay,
    Relayed,
    HeardWanted,
    LastHeard,
    AccountWanted,
    Account,
    Farewell,
    FarewellAck,
    Report,
    ReportWanted,
    EvidenceWanted,
    EvidencePage,
    DrillWanted,
    DrillBegun,
    RackSummary,
    RackReports,
    Transitions,
    TransitionsAck,
    Welcome,
    Query,
    Order,
    AnswerPage,
]


# ---- local: made by a driver, never on a wire ------------------------------------------------------------


class WallTime(msgspec.Struct, frozen=True, gc=False):
    """The wall clock, told about once a second. For display, silences and TTLs; liveness never looks at it."""

    wall_ns: int


class Linked(msgspec.Struct, frozen=True, gc=False):
    """A connection to `peer` was authenticated (up) or lost or refused (not up)."""

    peer: str
    up: bool
    #: True when the peer refused our key.
    refused: bool = False
    #: True when there was another connection all the while: nothing was lost, and the peer knows nothing of this one.
    moved: bool = False


class Located(msgspec.Struct, frozen=True, gc=False):
    """Leader: the address (numeric IP) that a peer's control connection comes from. Told before its first message."""

    peer: str
    #: Empty when the peer may not speak any more: what answers there must not count as its life.
    address: str


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """Leader or root: the kernel closed the control connection that `peer` had. Evidence, not a verdict."""

    peer: str


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a `Witness` or an `Ask`; exactly one for each."""

    peer: str
    number: int
    path: Path
    outcome: Outcome
    #: The bytes that came back, unverified.
    data: bytes = b""


class Suspended(msgspec.Struct, frozen=True, gc=False):
    """The host of this process was suspended: its monotonic clock stood still for this long meanwhile."""

    suspended_ns: int


class Effort(msgspec.Struct, frozen=True, gc=False):
    """Agent, with each `WallTime`: counters of its process since its start, for the account of a silence."""

    run_delay_ns: int
    throttled_ns: int
    suspended_ns: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A frame was refused before it became a message; counted, and `incompatible` shown for its sender."""

    sender: str
    #: A `wire.refusal.Reason` value.
    reason: str
    detail: str = ""


# ---- local: between an agent and its prober, and within the prober ---------------------------------------


class Mark(msgspec.Struct, frozen=True, gc=False, tag="mark"):
    """Prober to agent, each second: its loop goes round. Counts from 1 in each life of the prober."""

    count: int


class Vitals(msgspec.Struct, frozen=True, kw_only=True, tag="vitals"):
    """Prober to agent: all that it knows, when it changes and every `facts_interval`."""

    health: Health
    facts: HostFacts | None = None
    probes: tuple[ProbeResult, ...] = ()
    apps: tuple[AppRow, ...] = ()
    #: Examinations of applications in this life of the prober, and how often one had to wait for its turn.
    examinations: int = 0
    examinations_put_off: int = 0


class Recalled(msgspec.Struct, frozen=True, kw_only=True, tag="recalled"):
    """Prober to agent: the bundle that a `Recall` asked for, as JSON; at most 64 KiB."""

    number: int
    body: bytes = b""
    error: str = ""


class ProberEnded(msgspec.Struct, frozen=True, gc=False):
    """Agent: the prober's process is gone; `reason` is for people."""

    reason: str


class FactsTaken(msgspec.Struct, frozen=True):
    """The host's facts were read."""

    facts: HostFacts


class CheckFinished(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a `RunCheck`; exactly one for each."""

    run: int
    health: Health
    #: One line for people, cleaned and capped.
    text: str = ""
    measures: tuple[Measure, ...] = ()
    #: Handed to the next run of the same probe: where it stopped reading, what it counted.
    memory: dict[str, Any] = {}
    #: False: there is nothing on this host that it could look at (no systemd, no swap).
    applies: bool = True
    #: It ran out of time. The time limit makes it CRITICAL or UNKNOWN (`ProbeConfig.on_timeout`), not the check.
    timed_out: bool = False
    #: Processes that did not die of SIGKILL (stuck in the kernel) and were left behind.
    abandoned: int = 0
    duration_ns: int = 0


class Notified(msgspec.Struct, frozen=True, kw_only=True):
    """A datagram came to the notify socket; who sent it is what the kernel says, not what it says itself."""

    pid: int
    uid: int
    gid: int
    #: The sender's ancestors, nearest first, as far as they could be read.
    ancestors: tuple[int, ...] = ()
    #: Start time of the sender in clock ticks (`/proc/PID/stat`, field 22), so that its id is known to be its own.
    start: int = 0
    #: systemd unit of the sender; "" when it has none.
    unit: str = ""
    #: Of the process that it names by `MAINPID` or `X_HBAGENT_MAIN`: user and start time; -1 and 0: it is not there.
    main_uid: int = -1
    main_start: int = 0
    #: In the order of the datagram; a key may come again (`X_HBAGENT_PROGRESS`).
    fields: tuple[tuple[str, str], ...] = ()
    #: Key of a memory file for stacks that came with it, held by the driver under this number; 0: none.
    stacks: int = 0


class ProcessGone(msgspec.Struct, frozen=True, gc=False):
    """A process that the prober watches (`Watch`) has ended."""

    pid: int


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an `Examine`; exactly one for each."""

    run: int
    stall: Stall
    text: str = ""
    details: tuple[str, ...] = ()
    #: Name of the bundle that was stored; "" when none could be.
    bundle: str = ""
    #: For how long the process was stopped to be looked at.
    pause_ns: int = 0
    error: str = ""


class BundlesGone(msgspec.Struct, frozen=True):
    """What came of a `LookForBundles`: those that are not there any more."""

    numbers: tuple[int, ...] = ()


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a `RestartUnit`."""

    run: int
    error: str = ""


class UnitAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an `AskUnit`."""

    run: int
    #: None: systemd cannot tell, or there is none.
    stopped: bool | None = None
    #: Why it failed, as systemd calls it.
    text: str = ""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What the prober kept on disk in its last life (`Remember`); first of all messages. Empty when there is none."""

    state: dict[str, Any] = {}
    #: Processes named in `state` that still live, with their start time.
    alive: dict[int, int] = {}


class Kept(msgspec.Struct, frozen=True, gc=False):
    """The journal has entries up to `token` on disk."""

    token: int


class KeepFailed(msgspec.Struct, frozen=True, gc=False):
    """The journal or the store could not write; `reason` is for people. The effect may be tried again."""

    token: int
    reason: str


class HookFinished(msgspec.Struct, frozen=True, kw_only=True, tag="hook-finished"):
    """A hook process ended, was killed, or could not be started."""

    run_id: str
    #: Exit status; None when it was killed by the time limit, by a signal, or never started.
    exit_code: int | None
    #: "" or why it counts as failed: "timeout", "signal 9", "not started: ...", "exit 3".
    error: str = ""
    duration_ns: int = 0
    output: bytes = b""
    truncated: bool = False


class Ordered(msgspec.Struct, frozen=True):
    """Root: somebody who may change things orders something."""

    order: Order
    #: Who: "alice (uid 1000)" at the unix socket, the name of a key at the operators' port.
    by: str


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """Root: what came of a `PostAlerts` to one member of a sink."""

    sink: str
    url: str
    token: int
    #: "" or why it was not taken.
    error: str = ""


class Revived(msgspec.Struct, frozen=True):
    """Root: the runs that a `Revive` asked for, as the store has them, and who waits for an answer."""

    asker: bytes
    id: int
    #: `records.HookRun` each.
    runs: tuple[Any, ...] = ()
    error: str = ""
    #: It was asked for by its id.
    named: bool = False


class Terminate(msgspec.Struct, frozen=True, gc=False):
    """SIGTERM or SIGINT: leave cleanly."""


class Reconfigured(msgspec.Struct, frozen=True):
    """The config file was read again and is valid; `config` is the core's own kind of config."""

    config: Any
