"""What a core asks its driver to do. Frozen orders without a result; a result comes back as a message.

A core returns a tuple of these; `()` is the common case. The driver performs them in order. The simulator performs
the same effects on its own network and disks, so nothing but these may leave a core.
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from .checks import Check
from .messages import Beat, Mark, RackReports, RackSummary, Recalled, Report, Vitals, WireMessage
from .states import Cause, Kind, Path
from .units import MILLISECOND


class PublishBeat(msgspec.Struct, frozen=True, gc=False):
    """Agent: send one beat to every leader of the rack."""

    beat: Beat


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Agent or leader: send a report, or a summary, to every leader, or root. May be lost; the next one repairs."""

    message: Report | RackSummary | RackReports


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send on the control path to one named peer. Lost when the peer is not connected; the core sends again."""

    peer: str
    message: WireMessage


class Witness(msgspec.Struct, frozen=True, gc=False):
    """Leader or root: look whether the kernel at `peer` acknowledges what is sent next on its control connection.

    Comes before the `Send` of the ping that it watches. Comes back as one `Answered` of path KERNEL: ACKED as soon as
    it is so, CLOSED when that connection is gone, SILENT after `WITNESS_NS`, UNSENT when there never was one.
    """

    peer: str
    number: int


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Leader, or agent as a neighbour: send a signed echo request. Comes back as one `Answered` of that path.

    UDP: ANSWERED, REFUSED (ICMP port unreachable) or SILENT after `ASK_NS`; TCP: also CLOSED; UNSENT when nothing
    could be sent.
    """

    peer: str
    number: int
    #: UDP or TCP.
    path: Path
    address: str
    port: int
    request: bytes


class StartProber(msgspec.Struct, frozen=True, gc=False):
    """Agent: start the prober's process. Comes back as `ProberEnded` when it has ended, or could not be started."""


class KillProber(msgspec.Struct, frozen=True, gc=False):
    """Agent: kill the prober's process, which is stuck; comes back as `ProberEnded`, also when it does not die."""


class Recall(msgspec.Struct, frozen=True, gc=False, tag="recall"):
    """Agent to prober: read an evidence bundle; comes back as `Recalled`."""

    number: int
    app: str = ""
    bundle: str = ""


class StartDrill(msgspec.Struct, frozen=True, gc=False, tag="start-drill"):
    """Agent to prober: start a drill; it reports as an application does, and ends by itself."""

    drill: str
    app: str


class TakeFacts(msgspec.Struct, frozen=True, gc=False):
    """Prober: read the host's facts; comes back as `FactsTaken`."""


class RunCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Prober: run one check in a process of its own; comes back as `CheckFinished`, a grace after `timeout_ns` at the
    latest, whatever the check does."""

    run: int
    name: str
    check: Check
    timeout_ns: int
    #: What the last run left behind.
    memory: dict[str, Any] = {}


class Examine(msgspec.Struct, frozen=True, kw_only=True):
    """Prober: find out what a process is doing, and store an evidence bundle; comes back as `Examined`."""

    run: int
    app: str
    pid: int
    #: Its start time, so that nobody else is looked at; 0: not known.
    start: int = 0
    #: Where its process is found when `pid` is 0: the main process of a systemd unit, or the one named in a file.
    unit: str = ""
    pidfile: str = ""
    #: A probe or mark says that nothing moves.
    stuck: bool = True
    #: Which, for the bundle.
    why: str = ""
    #: Number of the memory file with its own stacks; 0: none.
    stacks: int = 0
    #: Numbers of the bundles that make no room for a new one.
    spared: tuple[int, ...] = ()


class LookForBundles(msgspec.Struct, frozen=True, gc=False):
    """Prober: are the bundles with these numbers still there; comes back as `BundlesGone`."""

    numbers: tuple[int, ...]


class Watch(msgspec.Struct, frozen=True, gc=False):
    """Prober: tell by `ProcessGone` when this process ends."""

    pid: int
    start: int


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Prober: this memory file for stacks is not needed any more."""

    stacks: int


class Remember(msgspec.Struct, frozen=True):
    """Prober: keep `state` on disk, in place of what was kept before; comes back as `Remembered` in the next life."""

    state: dict[str, Any]


class RestartUnit(msgspec.Struct, frozen=True, kw_only=True):
    """Prober: have systemd restart a unit; comes back as `Acted`."""

    run: int
    unit: str


class AskUnit(msgspec.Struct, frozen=True, kw_only=True):
    """Prober: ask systemd how a unit's process has ended; comes back as `UnitAnswered`."""

    run: int
    unit: str
    #: The process and its start time, in clock ticks.
    pid: int
    start: int


class Tell(msgspec.Struct, frozen=True, gc=False):
    """Prober: say this to the agent's process."""

    message: Mark | Vitals | Recalled


class Keep(msgspec.Struct, frozen=True):
    """Leader: append `entries` to the journal and fsync; comes back as `Kept(token)` or `KeepFailed`."""

    token: int
    entries: tuple[dict[str, Any], ...]


class Rewrite(msgspec.Struct, frozen=True):
    """Leader: replace the whole journal by `entries`, atomically; comes back as `Kept(token)` or `KeepFailed`."""

    token: int
    entries: tuple[dict[str, Any], ...]


class Persist(msgspec.Struct, frozen=True):
    """Root: write one batch in one transaction; comes back as `Kept(token)` or `KeepFailed`."""

    token: int
    batch: Any


class RunHook(msgspec.Struct, frozen=True, kw_only=True, tag="run-hook"):
    """Root: start one hook process; comes back as `HookFinished`."""

    run_id: str
    hook: str
    argv: tuple[str, ...]
    timeout_ns: int
    #: JSON document for its standard input.
    input: bytes


class PostAlerts(msgspec.Struct, frozen=True, kw_only=True):
    """Root: post alerts to one member of a sink; comes back as `Posted`. A newer one replaces one that still waits."""

    sink: str
    url: str
    token: int
    #: JSON array of Alertmanager's API v2.
    body: bytes


class Revive(msgspec.Struct, frozen=True):
    """Root: read runs that were given up, one or (run_id "") all; comes back as `Revived`."""

    asker: bytes
    id: int
    run_id: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Root or leader: answer a query. `view` is encoded as JSON and paged by the driver."""

    asker: bytes
    id: int
    view: Any
    error: str = ""


class Fetch(msgspec.Struct, frozen=True):
    """Root: read history for a query and answer it; done wholly by the store's worker and the driver."""

    asker: bytes
    id: int
    limit: int
    after: int
    node: str
    #: When given, the events go into its `events` instead of making the answer.
    view: Any = None
    #: When given, the hook runs of this event are wanted and no events.
    event: str = ""
    #: events; or unsent: notifications of `node`, or of the incident `incident`, that were not sent, newest first;
    #: dead-letters: runs that were given up; incidents: also those that are resolved, newest first.
    what: str = "events"
    incident: str = ""


class Note(msgspec.Struct, frozen=True):
    """A line for the log: `level` is debug, info, warning or error; `what` a stable word; `fields` the values."""

    level: str
    what: str
    fields: dict[str, Any] = {}


class Happened(msgspec.Struct, frozen=True):
    """A verdict changed: for the log and for a simulator's checker; already on its way by other effects."""

    node: str
    kind: Kind
    before: str
    after: str
    cause: Cause | None


class Exit(msgspec.Struct, frozen=True, gc=False):
    """The core has said goodbye; close sockets and end the process."""


#: Most that the kernel of a living host takes to acknowledge: measured 45 ms for a stopped process (a delayed
#: acknowledgement), 2 ms for a running one.
WITNESS_NS = 250 * MILLISECOND
#: Most that a living agent takes to answer an echo request: its loop may be in the middle of something.
ASK_NS = 200 * MILLISECOND

Effect = Union[
    PublishBeat,
    Publish,
    Send,
    Witness,
    Ask,
    StartProber,
    KillProber,
    Recall,
    StartDrill,
    TakeFacts,
    RunCheck,
    Examine,
    LookForBundles,
    Watch,
    Drop,
    Remember,
    RestartUnit,
    AskUnit,
    Tell,
    Keep,
    Rewrite,
    Persist,
    RunHook,
    PostAlerts,
    Revive,
    Answer,
    Fetch,
    Note,
    Happened,
    Exit,
]
Effects = tuple[Effect, ...]
NOTHING: Effects = ()
