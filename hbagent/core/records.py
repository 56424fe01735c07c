"""What the root keeps: events for history, and the state that must outlive the root's process.

The core builds a `Batch`, the store writes it in one transaction, and at the next start the store hands back a
`Restored`. Between the two lies a disk, so everything here is plain data: frozen, comparable, and encodable as it is.
Fields may be added with a default, so that a newer program reads an older file.
"""

from __future__ import annotations

import enum

import msgspec

from .messages import Evidence
from .states import Axis, Cause, Health, IncidentState, Kind, Liveness, Reason


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to a node, a rack, a leader or the root: one line of history, one input for hooks."""

    #: The same for every copy of this event, so that a receiver can drop duplicates.
    event_id: str
    #: Given out by the core, rising, also across restarts (`Restored.newest_sequence`). A lost store begins again at 1;
    #: `event_id` never repeats.
    sequence: int
    kind: Kind
    #: Root's wall clock, Unix ns; for display, and for the age limit of the history.
    at_wall_ns: int
    #: Full node name; "" when the event is about a rack, a leader or the root itself.
    node: str = ""
    rack: str = ""
    #: The leader that reported it, or that it is about; "" when the root found out by itself.
    leader: str = ""
    #: None for an event that is about no node.
    liveness_from: Liveness | None = None
    liveness_to: Liveness | None = None
    health_from: Health | None = None
    health_to: Health | None = None
    cause: Cause | None = None
    #: up | down | unknown: a dead agent on a living host is no reason to power-cycle it.
    host: str = "unknown"
    evidence: Evidence | None = None
    #: It was reported so long after it happened that only history is told, no hook.
    late: bool = False
    #: Why only history is told, in a word, and no hook: "rack-dark", "refined", "accounted"; "" when hooks are.
    withheld: str = ""
    #: The incident that it belongs to; "" for none.
    incident: str = ""
    #: Of node-flapping and node-steady: what changes too often.
    axis: Axis | None = None
    #: Of a summary: how many notifications it stands for, and about whom; at most `MEMBERS_TOLD_MAX` are named.
    count: int = 0
    members: tuple[str, ...] = ()
    #: Of an event about a node: each leader that speaks for it, and what that one says.
    observers: tuple[tuple[str, Liveness, Cause | None], ...] = ()
    #: Receivers that are told of events of this kind: so many notifications were sent, wait, or have a reason.
    notices: int = 0


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """What the root last believed of a node: where it takes up again after its own restart.

    Leaders, racks and the root itself have one too, for the trouble that was told of them.
    """

    #: Full name.
    node: str
    rack: str
    liveness: Liveness
    cause: Cause | None = None
    health: Health = Health.UNKNOWN
    #: When the liveness got this value; Unix ns, for display.
    since_wall_ns: int = 0
    incarnation: int | None = None
    sequence: int | None = None
    #: Kind of the trouble that was told and has not been resolved yet; "" when there is none.
    open: str = ""
    #: An operator said that it is gone for good: nothing is told of it until it is heard again.
    forgotten: bool = False
    #: The report and the beat that the health goes by, and the parts that are not OK: subject, name, hard state.
    health_incarnation: int | None = None
    health_report: int = 0
    health_sequence: int = 0
    parts: tuple[tuple[str, str, Health], ...] = ()


#: Lives of one leader of which marks are kept. A leader sends what an earlier life could not deliver, and one that
#: was started eight times before it could is in a crash loop; forgetting its oldest life may tell a thing twice.
MARKS_MAX = 8


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a leader's transitions are taken in: everything of `epoch` up to and including `number`."""

    leader: str
    epoch: int
    number: int
    #: Counts the lives of this leader as the root met them, from 0; the newest `MARKS_MAX` are kept.
    life: int = 0

    @property
    def slot(self) -> int:
        """Where this mark is kept: in the place of the one `MARKS_MAX` lives ago."""
        return self.life % MARKS_MAX


class RunState(str, enum.Enum):
    """Where a notification stands: one event for one receiver."""

    #: Not yet decided: it waits for `HookRun.reason` to end, at `HookRun.due_wall_ns` at the latest.
    HELD = "held"
    #: Decided: it is not sent, for `HookRun.reason`.
    SUPPRESSED = "suppressed"
    #: Owed: not yet run, or to be tried again at `HookRun.due_wall_ns`.
    PENDING = "pending"
    #: The hook was told and answered with exit status 0.
    DONE = "done"
    #: Given up after the last retry: the dead-letter.
    DEAD = "dead"


class HookRun(msgspec.Struct, frozen=True, kw_only=True):
    """One event owed to one hook. Written before the hook starts, so that a crash can repeat but never lose it."""

    run_id: str
    event_id: str
    hook: str
    #: Runs of one node stay in order; "" for events about no node.
    node: str = ""
    #: Attempts made so far.
    attempt: int = 0
    state: RunState = RunState.PENDING
    #: Not before this; Unix ns, because it must mean something after a reboot.
    due_wall_ns: int = 0
    #: The JSON document for the hook's standard input, as it is to be sent.
    input: bytes = b""
    #: Why the last attempt failed.
    error: str = ""
    #: Rising number that orders the runs of a queue.
    queued: int = 0
    #: Why it waits, or is not sent, and by what; kept when it is sent later all the same.
    reason: Reason | None = None
    ref: str = ""
    #: The trouble that it tells of, and what it says of it.
    subject: str = ""
    axis: Axis | None = None
    kind: Kind | None = None
    cause: Cause | None = None
    rack: str = ""
    incident: str = ""
    at_wall_ns: int = 0
    #: It tells that the trouble is over.
    end: bool = False
    #: Of a summary: everybody whom it tells of. What was told of them before comes before it, and what comes, after it.
    members: tuple[str, ...] = ()


#: Members of a summary that are named; the others are counted.
MEMBERS_TOLD_MAX = 100


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one receiver was told of one trouble."""

    #: It was told that it burns, so it is told of the end.
    sent: bool = False
    #: The summary that told it; "" when it was told by itself.
    via: str = ""
    #: How bad it was when it was told (`core.notice.severity`), and how bad each of its parts had been by then.
    level: int = 0
    parts: dict[str, int] = {}
    #: The newest notification of it that was kept back or waits; "" for none.
    run_id: str = ""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong with one subject and not over yet. `subject` and `axis` are its key."""

    #: Full name of a node, rack, leader or root.
    subject: str
    axis: Axis
    rack: str
    incident: str
    #: Of the event that told it last.
    kind: Kind
    cause: Cause | None = None
    health: Health | None = None
    event_id: str = ""
    since_wall_ns: int = 0
    at_wall_ns: int = 0
    text: str = ""
    drill: bool = False
    #: It is over, and kept only for what is still to be told of it: it flaps.
    over: bool = False
    #: The event that said that it flaps; "" while it does not. And the receivers that were told so.
    flapping: str = ""
    flap_told: tuple[str, ...] = ()
    #: Of a node's health: each part that is not well ("app web"; "" for one that nobody named), with the worst that it
    #: was since it broke. And those that flap.
    parts: dict[str, int] = {}
    flap_parts: tuple[str, ...] = ()
    #: By name of the receiver.
    told: dict[str, Told] = {}


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One life of trouble: of one rack, axis and cause. Its members are the troubles that name it."""

    #: "i" and the number of the event that opened it.
    incident_id: str
    state: IncidentState
    axis: Axis
    rack: str
    kind: Kind
    cause: Cause | None = None
    #: What its members have in common: a cause, the name of a probe or application, a rack, a leader.
    topic: str = ""
    opened_wall_ns: int = 0
    resolved_wall_ns: int = 0
    #: Members ever, and those named (the first ones).
    count: int = 0
    members: tuple[str, ...] = ()
    acked_by: str = ""
    acked_wall_ns: int = 0
    comment: str = ""
    text: str = ""
    drill: bool = False


class Matcher(msgspec.Struct, frozen=True, kw_only=True):
    """What a silence covers. Each is a list of globs of which one must fit; an empty list fits everything."""

    node: tuple[str, ...] = ()
    rack: tuple[str, ...] = ()
    cause: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody is told of what `matcher` covers, from `begins` until `ends`. A maintenance also says that it is planned.

    One that recurs is in force for `length_ns` at each time that `every` names, between `begins` and `ends`.
    """

    #: "s" and a number, given out by the root.
    silence_id: str
    matcher: Matcher
    begins_wall_ns: int
    ends_wall_ns: int
    reason: str
    author: str
    maintenance: bool = False
    #: "daily 02:00", "sun 02:00" or "mon,thu 22:30", UTC; "" for once.
    every: str = ""
    length_ns: int = 0
    created_wall_ns: int = 0
    #: Who ended it before its time.
    ended_by: str = ""


class Conviction(msgspec.Struct, frozen=True, kw_only=True):
    """One node-dead that was told, and what became of it."""

    #: Of the event that told it.
    event_id: str
    node: str
    cause: Cause
    #: Root's wall clock, Unix ns; for display and for the order.
    at_wall_ns: int
    #: From the last proof of life to the verdict; None when nobody had heard the node in his own life.
    detection_ns: int | None = None
    incarnation: int | None = None
    #: The same incarnation came back, this long after the verdict: it had not been dead. None: that never happened.
    back_after_ns: int | None = None
    #: Why it had been silent, by its own account; "" while that is not known.
    reason: str = ""

    @property
    def wrong(self) -> bool:
        """True when the node was not dead."""
        return self.back_after_ns is not None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What a life of the root has counted for its accuracy, with what it took over from the lives before it."""

    #: Identifies the life; each writes a tally of its own, so that one which could not read the store spoils none.
    life: int
    #: Lives whose tallies are contained in this one and deleted with it.
    replaces: tuple[int, ...] = ()
    #: Time that nodes were watched, summed over the nodes.
    watched_ns: int = 0
    #: Wall time since which it has been counted, Unix ns; 0 when the root did not know it.
    since_wall_ns: int = 0
    #: Convictions too old to be kept one by one, by cause, and how many of them were wrong.
    told: dict[str, int] = {}
    wrong: dict[str, int] = {}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction: all of it is on disk, or none."""

    events: tuple[Event, ...] = ()
    #: Replaces what is kept under the same `node`.
    nodes: tuple[NodeState, ...] = ()
    #: Replaces what is kept under the same `leader` and `slot`.
    marks: tuple[Mark, ...] = ()
    #: Replaces what is kept under the same `run_id`.
    runs: tuple[HookRun, ...] = ()
    #: Full names of nodes whose kept state is deleted; their events stay.
    forgotten: tuple[str, ...] = ()
    #: Replaces what is kept under the same `event_id`.
    convictions: tuple[Conviction, ...] = ()
    #: Event ids of convictions that are deleted: a tally has them now.
    folded: tuple[str, ...] = ()
    tally: Tally | None = None
    #: Replaces what is kept under the same `subject` and `axis`.
    troubles: tuple[Trouble, ...] = ()
    #: Keys (subject, axis) of troubles that are over: deleted.
    ended: tuple[tuple[str, Axis], ...] = ()
    #: Replaces what is kept under the same `incident_id`.
    incidents: tuple[Incident, ...] = ()
    #: Replaces what is kept under the same `silence_id`.
    silences: tuple[Silence, ...] = ()


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a start finds on disk."""

    nodes: tuple[NodeState, ...] = ()
    #: Of each leader in the order of `life`.
    marks: tuple[Mark, ...] = ()
    #: Runs in state PENDING or HELD, and those that an open trouble names (`Told.run_id`), in the order of `queued`.
    runs: tuple[HookRun, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    #: Those that are not resolved, in the order in which they were opened.
    incidents: tuple[Incident, ...] = ()
    #: Those that have not ended, and the newest of all, so that no id is given out twice.
    silences: tuple[Silence, ...] = ()
    #: Oldest first.
    convictions: tuple[Conviction, ...] = ()
    #: Of each life that no later one has taken over.
    tallies: tuple[Tally, ...] = ()
    #: Largest `Event.sequence` ever written; 0 when there is none.
    newest_sequence: int = 0
    #: What was damaged and is therefore missing, one sentence for people each.
    problems: tuple[str, ...] = ()
