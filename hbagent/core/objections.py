"""Why somebody is not told now that something burns: a chain of questions, and the first that objects gives the reason.

The order is the promise: what people have said (a silence) before what the datacenter explains (a parent), that before
what may pass by itself (grace, flapping), and last what only spares the receiver (acknowledged, a doubt, his hold).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .config import RootConfig, SinkConfig
from .incidents import Incidents
from .notice import ROOT, Receiver, is_news
from .records import HookRun, Restored, Silence, Told, Trouble
from .settling import Settling
from .silences import Silences
from .states import NODE_AXES, Axis, Cause, Kind, Reason
from .waiting import Waiting, WaitingRoom
from .wallclock import WallClock

Key = tuple[str, Axis]


class Objection(NamedTuple):
    """Why a notification is not sent now."""

    reason: Reason
    ref: str = ""
    #: It waits until then; None: it is put aside.
    until: int | None = None


class Objections:
    """Everything that may object. `troubles` is what burns now; it is looked at and never changed here."""

    def __init__(
        self,
        config: RootConfig,
        restored: Restored,
        troubles: Mapping[Key, Trouble],
        incidents: Incidents,
        room: WaitingRoom,
        wall: WallClock,
    ) -> None:
        self.silences = Silences(restored.silences)
        self._troubles = troubles
        self._incidents = incidents
        self._room = room
        self._wall = wall
        self._settling = Settling()
        #: Nodes in doubt, by rack.
        self._suspects: dict[str, dict[str, None]] = {}
        self.use(config)
        for trouble in troubles.values():
            if trouble.kind is Kind.NODE_SUSPECT and not trouble.over:
                self.suspect(trouble.rack, trouble.subject)

    def use(self, config: RootConfig) -> None:
        """Another config."""
        self._config = config
        self._leaders = {rack.name: rack.leaders for rack in config.racks}

    def to_telling(
        self, waiting: Waiting, receiver: Receiver, trouble: Trouble, now: int, at: int | None = None
    ) -> Objection | None:
        """The first objection to telling `receiver` that `trouble` burns: now, or (of what only waits) at `at`.

        Silences are never looked at ahead of time: their clock would step back afterwards.
        """
        at = now if at is None else at
        silence = self.covering(trouble, now)
        if silence is not None:
            return Objection(reason_of(silence), silence.silence_id)
        parent = self.parent(trouble)
        # Who is not told of parents is told of what they would explain.
        if parent is not None and parent.kind in receiver.on:
            return Objection(Reason.INHIBITED, parent.incident or parent.subject)
        # A process that has ended is no silence: nothing that passes by itself explains it.
        silent = trouble.axis is Axis.LIVENESS and trouble.cause is not Cause.PROCESS_EXIT
        settling = self._settling.of(trouble.rack, at) if silent else None
        if settling is not None:
            return Objection(settling.reason, settling.ref, settling.until)
        if self.is_held_down(trouble, receiver):
            return Objection(Reason.FLAPPING, trouble.flapping)
        if self._incidents.is_acknowledged(trouble.incident):
            return Objection(Reason.ACKNOWLEDGED, trouble.incident)
        if silent and not waiting.doubted and not isinstance(receiver, SinkConfig):
            doubted = self._doubt(waiting, receiver, trouble, at)
            if doubted is not None:
                return doubted
        until = waiting.began + receiver.hold_ns
        return Objection(Reason.HOLD, "", until) if at < until else None

    @staticmethod
    def is_held_down(trouble: Trouble, receiver: Receiver) -> bool:
        """True when it flaps, and `receiver` was told so, or does not want to know it.

        Who was not told for a silence could not know what he is not told for. And what flaps says nothing of the other
        parts of a node's health: one of those that got worse is told.
        """
        if not Objections.knows_of_flapping(trouble, receiver):
            return False
        return not trouble.parts or not is_news(trouble, trouble.told.get(receiver.name, Told()), trouble.flap_parts)

    @staticmethod
    def knows_of_flapping(trouble: Trouble, receiver: Receiver) -> bool:
        """True when it flaps, and `receiver` was told so, or does not want to know it."""
        told = receiver.name in trouble.flap_told or Kind.NODE_FLAPPING not in receiver.on
        return bool(trouble.flapping) and told

    def _doubt(self, waiting: Waiting, receiver: Receiver, trouble: Trouble, now: int) -> Objection | None:
        """While others of the rack are in doubt, this may be one trouble of the rack."""
        until = waiting.began + self._config.doubt_wait_ns
        suspects = self._suspects.get(trouble.rack, {})
        if now < until and len(suspects) > (1 if trouble.subject in suspects else 0):
            return Objection(Reason.DOUBT, "", until)
        # The last one of them is in doubt alone, and belongs to those that wait already.
        others = self._room.doubted_until(receiver.name, trouble.rack, now)
        return None if others is None else Objection(Reason.DOUBT, "", others)

    def to_news(self, run: HookRun, now: int) -> Objection | None:
        """The silence that covers what neither burns nor ends."""
        silence = self.silences.covering(
            self._wall.at(now),
            node=run.subject if run.axis in NODE_AXES else "",
            rack=run.rack,
            cause=run.cause.value if run.cause is not None else "",
            kind=run.kind.value if run.kind is not None else "",
        )
        return None if silence is None else Objection(reason_of(silence), silence.silence_id)

    # ---- silences ----------------------------------------------------------------------------------------

    def covering(self, trouble: Trouble, now: int) -> Silence | None:
        """The silence or maintenance that is in force and covers a trouble."""
        return next(iter(self.all_covering(trouble, now)), None)

    def all_covering(self, trouble: Trouble, now: int) -> tuple[Silence, ...]:
        """All of them, the one that counts first."""
        if not self.silences.any():
            # Asked of each of ten thousand troubles by whoever wants to see them.
            return ()
        return self.silences.all_covering(
            self._wall.at(now),
            node=trouble.subject if trouble.axis in NODE_AXES else "",
            rack=trouble.rack,
            cause=trouble.cause.value if trouble.cause is not None else "",
            kind=trouble.kind.value,
        )

    # ---- parents -----------------------------------------------------------------------------------------

    def parent(self, trouble: Trouble) -> Trouble | None:
        """The trouble that explains another one: of the root, of its rack, of all leaders of its rack."""
        if trouble.axis is Axis.ROOT:
            return None
        isolated = self.burning((ROOT, Axis.ROOT))
        if isolated is not None or trouble.axis in (Axis.RACK, Axis.LEADER):
            return isolated
        dark = self.burning((trouble.rack, Axis.RACK))
        if dark is not None:
            return dark
        lost = [self.burning((leader, Axis.LEADER)) for leader in self._leaders.get(trouble.rack, ())]
        return lost[0] if lost and all(one is not None for one in lost) else None

    def burning(self, key: Key) -> Trouble | None:
        """The trouble of this key, if it is not over."""
        trouble = self._troubles.get(key)
        return None if trouble is None or trouble.over else trouble

    def parent_over(self, parent: Trouble, now: int) -> None:
        """What a parent explained is asked for again before anything is told of it."""
        racks = [parent.rack] if parent.axis is Axis.RACK else list(self._leaders)
        if parent.axis is Axis.LEADER:
            racks = [rack for rack in racks if self._was_silent(rack, parent.subject)]
        for rack in racks:
            self._settling.begin(rack, Reason.INHIBITED, parent.incident, now + self._config.settle_ns)

    def _was_silent(self, rack: str, leader: str) -> bool:
        """True when nobody but this leader, who is back, can speak for the rack."""
        leaders = self._leaders[rack]
        return leader in leaders and all(
            other == leader or self.burning((other, Axis.LEADER)) is not None for other in leaders
        )

    def settle(self, rack: str, now: int) -> None:
        """A leader of a rack, or this root, has just started: what it says of silence waits until it has listened."""
        self._settling.listen(rack, now + self._config.settle_ns)

    def await_leaders(self, now: int) -> None:
        """An earlier life left things to tell: of a rack that nobody has spoken for yet, none of it is told."""
        until = now + self._config.start_grace_ns + self._config.settle_ns
        for rack in self._leaders:
            self._settling.begin(rack, Reason.GRACE, "", until)

    # ---- doubts ------------------------------------------------------------------------------------------

    def suspect(self, rack: str, node: str) -> None:
        """A node is in doubt."""
        self._suspects.setdefault(rack, {})[node] = None

    def trust(self, rack: str, node: str) -> None:
        """A node is in doubt no more."""
        suspects = self._suspects.get(rack)
        if suspects is not None:
            suspects.pop(node, None)
            if not suspects:
                del self._suspects[rack]


def reason_of(silence: Silence) -> Reason:
    """The word for a silence or a maintenance."""
    return Reason.MAINTENANCE if silence.maintenance else Reason.SILENCE
