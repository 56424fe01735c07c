"""The words for what is known of a node: two axes, a cause, and the kinds of event that a change makes.

Liveness asks "can anyone reach the node's agent?", health asks "do its applications make progress?". They never
mix: no health value moves liveness, and no liveness value is a health value.
"""

from __future__ import annotations

import enum


class Liveness(str, enum.Enum):
    """Can anyone reach the node's agent?"""

    ALIVE = "ALIVE"
    SUSPECT = "SUSPECT"
    DEAD = "DEAD"
    LEFT = "LEFT"
    UNKNOWN = "UNKNOWN"


class Health(str, enum.Enum):
    """Do the node's applications make progress?"""

    OK = "OK"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"
    STALLED = "STALLED"
    DEADLOCKED = "DEADLOCKED"
    UNKNOWN = "UNKNOWN"


class Stall(str, enum.Enum):
    """What a process is doing, as seen from outside. `HEALTH_OF` says what each means for health."""

    #: A cycle of lock owners, proved.
    DEADLOCKED = "DEADLOCKED"
    #: It waits for a lock or a condition, nothing moves, and no cycle is proved.
    LOCK_WAIT = "LOCK-WAIT"
    #: It burns CPU and nothing moves.
    BUSY_LOOP = "BUSY-LOOP"
    #: It wants to run and gets no CPU, or is held back by a quota.
    STARVED = "STARVED"
    #: It waits in the kernel for a disk or a filesystem.
    IO_BLOCKED = "IO-BLOCKED"
    #: It was stopped or frozen by somebody.
    PAUSED = "PAUSED"
    #: It waits for work.
    IDLE = "IDLE"
    #: It moves, and too slowly.
    SLOW = "SLOW"
    RUNNING = "RUNNING"
    #: This host does not let us look, or the process is gone.
    UNKNOWN = "UNKNOWN"


class AppState(str, enum.Enum):
    """Where an application that reports itself stands; the words of systemd."""

    STARTING = "starting"
    READY = "ready"
    RELOADING = "reloading"
    STOPPING = "stopping"
    #: Ended on purpose or with exit status 0.
    STOPPED = "stopped"
    #: Ended otherwise.
    FAILED = "failed"
    #: Work is queued and nothing moves, or its watchdog was not fed.
    STUCK = "stuck"
    #: A job that should have reported by now and has not.
    EXPIRED = "expired"


class Cause(str, enum.Enum):
    """Why a liveness value is not a plain ALIVE."""

    PROCESS_EXIT = "process-exit"
    HOST_GONE = "host-gone"
    PROCESS_FROZEN = "process-frozen"
    SILENCE = "silence"
    LINK_CUT = "link-cut"
    LEADER_LOST = "leader-lost"
    OBSERVER_STALLED = "observer-stalled"
    RACK_DARK = "rack-dark"
    ROOT_ISOLATED = "root-isolated"
    NEVER_SEEN = "never-seen"
    INCOMPATIBLE = "incompatible"
    DUPLICATE_ID = "duplicate-id"
    LEFT = "left"


class Kind(str, enum.Enum):
    """What an event tells. Every kind but NODE_JOINED and NODE_ACCOUNTED may stand in a hook's `on` list."""

    NODE_SUSPECT = "node-suspect"
    NODE_DEAD = "node-dead"
    NODE_RECOVERED = "node-recovered"
    NODE_RESTARTED = "node-restarted"
    NODE_LEFT = "node-left"
    #: It said goodbye, and stays away longer than `left_warn_after`.
    NODE_AWAY = "node-away"
    NODE_JOINED = "node-joined"
    NODE_UNKNOWN = "node-unknown"
    #: A node that was silent and is back says why it was.
    NODE_ACCOUNTED = "node-accounted"
    HEALTH_CHANGED = "health-changed"
    #: A node's liveness or health changes so often that each change is told no more, and that this is over.
    NODE_FLAPPING = "node-flapping"
    NODE_STEADY = "node-steady"
    RACK_DARK = "rack-dark"
    RACK_RECOVERED = "rack-recovered"
    LEADER_LOST = "leader-lost"
    LEADER_RECOVERED = "leader-recovered"
    ROOT_ISOLATED = "root-isolated"
    #: Each minute, that the alarm path itself works. It is no line of history.
    WATCHDOG = "watchdog"
    #: In place of many notifications: a mass of troubles, or the end of one. Who is told of what it stands for is told.
    SUMMARY = "summary"


class Axis(str, enum.Enum):
    """What a trouble is about. A subject has at most one trouble on each axis."""

    LIVENESS = "liveness"
    HEALTH = "health"
    #: What a drill does to a node's health: no trouble of it, and told beside what is.
    DRILL = "drill"
    #: A rack is dark, a leader is lost, the root is isolated.
    RACK = "rack"
    LEADER = "leader"
    ROOT = "root"


#: Axes on which the subject is a node.
NODE_AXES = (Axis.LIVENESS, Axis.HEALTH, Axis.DRILL)


class IncidentState(str, enum.Enum):
    """Where an incident stands in its one life."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Reason(str, enum.Enum):
    """Why a notification was not sent, or not yet. `HookRun.ref` names what made it so."""

    #: Of the silence or maintenance `ref`; told when that ends, if it still burns.
    SILENCE = "silence"
    MAINTENANCE = "maintenance"
    #: A trouble of its rack, its leaders or the root explains it; `ref` is that incident.
    INHIBITED = "inhibited"
    #: It changes too often; `ref` is the event that said so.
    FLAPPING = "flapping"
    #: Too many at once: `ref` is the summary that stands for it.
    BRAKE = "brake"
    #: Several of one rack within an interval: `ref` is the summary that stands for it.
    GROUPED = "grouped"
    #: A root or leader has just started and does not know all its nodes yet.
    GRACE = "grace"
    #: Another node of the rack is in doubt: wait whether this is one trouble of the rack.
    DOUBT = "doubt"
    #: It was over within the receiver's `hold`, or within another wait: nobody was told, so nobody is told of its end.
    HOLD = "hold"
    RECOVERED = "recovered"
    #: The end of something that this receiver was never told of.
    NEVER_TOLD = "never-told"
    #: A newer event about the same trouble took its place while it waited; `ref` is that one.
    SUPERSEDED = "superseded"
    #: It was acknowledged, and this is no worse.
    ACKNOWLEDGED = "acknowledged"
    #: Only history: it is part of a dark rack, more is known of what was told, it was reported too late.
    RACK_DARK = "rack-dark"
    REFINED = "refined"
    LATE = "late"


#: Reasons that end: what they kept back is looked at again then.
RELEASED = (Reason.SILENCE, Reason.MAINTENANCE, Reason.INHIBITED, Reason.FLAPPING, Reason.ACKNOWLEDGED)


class Path(str, enum.Enum):
    """A way to ask about a node."""

    #: A message on the control connection, which the agent's loop must answer.
    CONTROL = "control"
    #: The acknowledgement of that message by the kernel of the node's host.
    KERNEL = "kernel"
    UDP = "udp"
    TCP = "tcp"
    #: UDP from a neighbour of the rack.
    NEIGHBOUR = "neighbour"
    #: What another leader of the rack has heard.
    LEADER = "leader"


class Outcome(str, enum.Enum):
    """What came of asking on one path."""

    ANSWERED = "answered"
    #: KERNEL: what was sent after the question began has been acknowledged.
    ACKED = "acked"
    #: The host's kernel says that nobody listens there.
    REFUSED = "refused"
    #: TCP: taken and closed without an answer. KERNEL: the connection that the node had is gone.
    CLOSED = "closed"
    #: Nothing came back in time.
    SILENT = "silent"
    #: It could not be asked: no connection, no route, or no more asking allowed at the moment.
    UNSENT = "unsent"


class RackState(str, enum.Enum):
    """A rack in one word."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    DARK = "DARK"
    LEADER_LOST = "LEADER-LOST"
    UNKNOWN = "UNKNOWN"


#: What each liveness may turn into, as one observer sees it. A pair that is not here is a defect of the caller.
#: The state diagram in the documentation is printed from this table.
NEXT: dict[Liveness, tuple[Liveness, ...]] = {
    Liveness.UNKNOWN: (Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT),
    # Straight to DEAD only when the death is proved (process-exit): nothing is left to wait for.
    Liveness.ALIVE: (Liveness.SUSPECT, Liveness.DEAD, Liveness.LEFT, Liveness.UNKNOWN),
    Liveness.SUSPECT: (Liveness.ALIVE, Liveness.DEAD, Liveness.LEFT, Liveness.UNKNOWN),
    Liveness.DEAD: (Liveness.ALIVE, Liveness.LEFT, Liveness.UNKNOWN),
    Liveness.LEFT: (Liveness.ALIVE, Liveness.UNKNOWN),
}

#: Worst first: the order in which problems are listed.
LIVENESS_ORDER = (Liveness.DEAD, Liveness.UNKNOWN, Liveness.SUSPECT, Liveness.LEFT, Liveness.ALIVE)
HEALTH_ORDER = (Health.DEADLOCKED, Health.CRITICAL, Health.STALLED, Health.UNKNOWN, Health.WARNING, Health.OK)

#: What a diagnosis means for the health of an application of which a probe or mark says that it is stuck. Of one that
#: is looked at for another reason IDLE and RUNNING are no trouble.
HEALTH_OF: dict[Stall, Health] = {
    Stall.DEADLOCKED: Health.DEADLOCKED,
    Stall.LOCK_WAIT: Health.STALLED,
    Stall.BUSY_LOOP: Health.STALLED,
    Stall.IO_BLOCKED: Health.STALLED,
    Stall.PAUSED: Health.STALLED,
    Stall.STARVED: Health.WARNING,
    Stall.SLOW: Health.WARNING,
    Stall.IDLE: Health.STALLED,
    Stall.RUNNING: Health.STALLED,
    Stall.UNKNOWN: Health.STALLED,
}
