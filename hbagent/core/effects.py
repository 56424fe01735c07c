"""What a core asks its driver to do. Frozen orders without a result; a result comes back as a message.

A core returns a tuple of these; `()` is the common case. The driver performs them in order. The simulator performs
the same effects on its own network and disks, so nothing but these may leave a core.
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from .messages import Beat, RackReports, RackSummary, Report, WireMessage
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


class TakeFacts(msgspec.Struct, frozen=True, gc=False):
    """Agent: read the host's facts in a worker; comes back as `FactsTaken`."""


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


class RunHook(msgspec.Struct, frozen=True, kw_only=True):
    """Root: start one hook process; comes back as `HookFinished`."""

    run_id: str
    hook: str
    argv: tuple[str, ...]
    timeout_ns: int
    #: JSON document for its standard input.
    input: bytes


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
    TakeFacts,
    Keep,
    Rewrite,
    Persist,
    RunHook,
    Answer,
    Fetch,
    Note,
    Happened,
    Exit,
]
Effects = tuple[Effect, ...]
NOTHING: Effects = ()
