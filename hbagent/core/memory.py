"""What a leader remembers of an earlier life: the state of each node, and what the root has not acknowledged.

Both are in one journal, as small maps with one letter keys, for they are written at every verdict. A verdict is one
entry that serves both: it waits for the root, and it is the newest state of its node. Once in a while, and whenever
appending has failed, the journal is written anew with nothing in it but what still counts.

    {"k": "t", "e": epoch, "t": transition}   a verdict
    {"k": "a", "e": epoch, "n": number}       the root has everything of `epoch` up to `number`
    {"k": "n", "m": node, "l": ..., ...}      the state of a node
    {"k": "d", "m": node, "h": [...]}         what its detector has learned of its lateness

A disk that fails delays no verdict: it suspends the promise, which is shown as `degraded`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .effects import Effect, Keep, Rewrite
from .member import Member
from .messages import Transition
from .outbox import Outbox
from .roster import INTERVAL_ASSUMED_NS, INTERVAL_MAX_NS, INTERVAL_MIN_NS
from .states import Cause, Liveness
from .units import SECOND

#: The journal is rewritten when it holds this many entries beyond one for each node and waiting transition.
SLACK = 2000
#: Numbers that a detector may remember of one node.
HISTORY_MAX = 512
#: After a failed write the journal is tried again after this.
RETRY_NS = 2 * SECOND

Entry = dict[str, Any]


class Known(msgspec.Struct, frozen=True):
    """What the journal tells of a node."""

    liveness: Liveness
    cause: Cause | None = None
    incarnation: int | None = None
    sequence: int = 0
    interval_ns: int = INTERVAL_ASSUMED_NS


class Recalled(msgspec.Struct, frozen=True):
    """All that the journal tells."""

    #: Newest state of each node.
    nodes: dict[str, Known]
    #: What each node's detector had learned.
    histories: dict[str, list[int]]
    #: Entries that made no sense.
    damaged: int


class Memory:
    """One leader's journal: what to write into it, and how the writing fares."""

    def __init__(self, members: Mapping[str, Member], outbox: Outbox) -> None:
        self._members = members
        self._outbox = outbox
        self._entries = 0
        self._token = 0
        self._failed_at: int | None = None
        #: "" or why what is decided now may be forgotten by the next life.
        self.degraded = ""

    # ---- an earlier life ---------------------------------------------------------------------------------

    def restore(self, entries: Iterable[Entry]) -> Recalled:
        """Fill the outbox; returns the rest."""
        known: dict[str, Known] = {}
        histories: dict[str, list[int]] = {}
        damaged = 0
        for entry in entries:
            try:
                self._take(entry, known, histories)
            except (KeyError, TypeError, ValueError, OverflowError, msgspec.ValidationError):
                damaged += 1
        return Recalled(known, histories, damaged)

    def _take(self, entry: Entry, known: dict[str, Known], histories: dict[str, list[int]]) -> None:
        if entry["k"] == "t":
            transition = msgspec.convert(entry["t"], Transition)
            self._outbox.add(int(entry["e"]), transition)
            known[transition.node] = Known(
                transition.after,
                transition.cause,
                transition.incarnation,
                transition.sequence or 0,
                _believable(transition.evidence.interval_ns),
            )
        elif entry["k"] == "a":
            self._outbox.acknowledge(int(entry["e"]), int(entry["n"]))
        elif entry["k"] == "d":
            histories[str(entry["m"])] = [int(number) for number in entry["h"][:HISTORY_MAX]]
        elif entry["k"] == "n":
            known[str(entry["m"])] = Known(
                Liveness(entry["l"]),
                None if entry["c"] is None else Cause(entry["c"]),
                None if entry["i"] is None else int(entry["i"]),
                int(entry["s"]),
                _believable(entry.get("v")),
            )

    # ---- writing -----------------------------------------------------------------------------------------

    def keep(self, entries: list[Entry]) -> Effect:
        """Append `entries`, or write everything anew when much of the journal no longer counts."""
        self._entries += len(entries)
        if self._entries > SLACK + 2 * len(self._members) + len(self._outbox):
            return self.rewrite()
        self._token += 1
        return Keep(self._token, tuple(entries))

    def rewrite(self) -> Effect:
        """Replace the journal by what counts now."""
        # A waiting transition is older than the state that it led to, so the states are read last.
        entries = [verdict_entry(epoch, transition) for epoch, transition in self._outbox.entries()]
        entries.extend(_state_entry(member) for member in self._members.values() if _is_known(member))
        for member in filter(_is_known, self._members.values()):
            history = member.detector.remember()
            if history:
                entries.append({"k": "d", "m": member.name, "h": history[:HISTORY_MAX]})
        self._entries = len(entries)
        self._token += 1
        return Rewrite(self._token, tuple(entries))

    def kept(self) -> bool:
        """A write reached the disk; True when that ends a trouble."""
        was, self.degraded = self.degraded, ""
        return bool(was)

    def failed(self, reason: str, now: int) -> bool:
        """A write did not reach the disk; True when that begins a trouble."""
        was, self.degraded = self.degraded, f"journal: {reason}"
        self._failed_at = now
        return not was

    def retry(self, now: int) -> Effect | None:
        """Some time after a failure: the whole journal once more."""
        if self._failed_at is None or now < self._failed_at + RETRY_NS:
            return None
        self._failed_at = None
        return self.rewrite()


def verdict_entry(epoch: int, transition: Transition) -> Entry:
    """A verdict that waits for the root."""
    return {"k": "t", "e": epoch, "t": msgspec.to_builtins(transition)}


def acknowledged_entry(epoch: int, number: int) -> Entry:
    """The root has everything of `epoch` up to `number`."""
    return {"k": "a", "e": epoch, "n": number}


def _state_entry(member: Member) -> Entry:
    return {
        "k": "n",
        "m": member.name,
        "l": member.liveness.value,
        "c": member.cause.value if member.cause is not None else None,
        "i": member.order.incarnation,
        "s": member.order.sequence,
        "v": member.interval_ns,
    }


def _believable(interval_ns: int | None) -> int:
    if interval_ns is None or not INTERVAL_MIN_NS <= interval_ns <= INTERVAL_MAX_NS:
        return INTERVAL_ASSUMED_NS
    return int(interval_ns)


def _is_known(member: Member) -> bool:
    return member.cause is not Cause.NEVER_SEEN
