"""Frames in from a bound SUB, each from an authenticated key, at tens of thousands a second.

The key that libzmq put on a frame is looked up in the list of those who may speak *now*: the next frame of a revoked
key is dropped, and ends its connection. A beat is unpacked here and handed on as numbers; nothing is made of it.
Every other frame goes through the codec, and goes on only if it is of a kind that is taken here: what is refused at
the door costs its sender's tick and nothing else.

Each frame stands for itself, also when its sender made several parts of one message: the key is on each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

import zmq

from hbagent.core.effects import Effect
from hbagent.core.messages import Beat, Refused
from hbagent.transport.connections import Connections
from hbagent.transport.sockets import Socket
from hbagent.wire import codec
from hbagent.wire.beat import BEAT_SIZE, HEADS, LAYOUT, LEAVING, SEQUENCE_MAX
from hbagent.wire.beat import decode as decode_beat
from hbagent.wire.refusal import Refusal

#: Frames taken before the loop looks at its deadlines again: about ten milliseconds' worth.
DRAIN_MAX = 2_000
_MICRO = 1_000


Perform = Callable[[Iterable[Effect], str], None]
Defect = Callable[[str, BaseException, str], None]


class Intake:
    """The port of a bound SUB. `senders` maps the user id of a connection to the name it stands for, `accepts` are
    the messages that are taken beside beats.

    `takers` is a core's short way for ordinary beats: a callable for each name, which says False to what it leaves
    to `beat`. What a core raises at a frame is told to `defect` with its sender. `connections` cuts those of revoked
    keys.
    """

    def __init__(
        self,
        socket: Socket,
        feed: Callable[[str, object], None],
        senders: dict[str, str],
        beat: Callable[..., Iterable[Effect]] | None = None,
        perform: Perform | None = None,
        takers: Mapping[str, Callable[..., bool]] | None = None,
        *,
        accepts: Collection[type] = (),
        defect: Defect | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.source = socket
        self._feed = feed
        self._beat = beat if beat is not None else self._no_beats_here
        self._perform = perform if perform is not None else _nothing
        self.senders = senders
        self._takers = takers if takers is not None else {}
        self._accepts = frozenset(accepts)
        self._defect = defect if defect is not None else _raise
        self._cut = connections.cut_sender if connections is not None else _keep

    def drain(self) -> int:
        """Take in what waits, at most `DRAIN_MAX` frames."""
        receive = self.source.recv
        senders = self.senders
        take = self._takers.get
        unpack = LAYOUT.unpack_from
        clock = time.monotonic_ns
        # Newest first: in a fleet of one version it is the first that is compared.
        heads = HEADS[::-1]
        flags = zmq.NOBLOCK
        count = 0
        name = ""
        while count < DRAIN_MAX:
            try:
                while count < DRAIN_MAX:
                    frame = receive(flags, False)
                    count += 1
                    try:
                        name = senders[frame.get(b"User-Id")]
                    except (KeyError, zmq.ZMQError):
                        self._cut(frame)
                        self._refuse("", "unknown-sender")
                        continue
                    data = frame.bytes
                    if len(data) == BEAT_SIZE:
                        head, bits, incarnation, sequence, sent, due_in, interval, gap, progress, digest = unpack(data)
                        if head in heads and 0 < sequence <= SEQUENCE_MAX and interval and sent <= SEQUENCE_MAX:
                            due_in *= _MICRO
                            interval *= _MICRO
                            gap *= _MICRO
                            now = clock()
                            taker = take(name)
                            if (
                                taker is None
                                or bits & LEAVING
                                or not taker(incarnation, sequence, sent, due_in, interval, gap, progress, digest, now)
                            ):
                                numbers = (incarnation, sequence, sent, due_in, interval, gap, progress, digest)
                                self._perform(self._beat(name, *numbers, bits & LEAVING == LEAVING, now), name)
                            continue
                    self._other(name, data)
            except zmq.Again:
                break
            except zmq.ZMQError:
                raise
            except Exception as error:
                self._defect("frame", error, name)
        return count

    def _other(self, name: str, data: bytes) -> None:
        """A frame that is no plain beat of this version or an older one."""
        message: object
        if codec.is_beat(data):
            message = decode_beat(data)
            if isinstance(message, Beat):
                self._perform(self._beat(name, *_numbers(message), time.monotonic_ns()), name)
                return
        else:
            message = codec.decode(data)
        if isinstance(message, Refusal):
            self._refuse(name, message.reason.value, message.detail)
        elif type(message) in self._accepts:
            self._feed(name, message)
        else:
            self._refuse(name, "unexpected-type", type(message).__name__)

    def _no_beats_here(self, name: str, *numbers: int) -> Iterable[Effect]:
        self._refuse(name, "unexpected-type", "Beat")
        return ()

    def _refuse(self, name: str, reason: str, detail: str = "") -> None:
        self._feed("", Refused(name, reason, detail))


def _nothing(effects: Iterable[Effect], sender: str) -> None:
    """What a port without beats performs."""


def _keep(frame: zmq.Frame) -> bool:
    """What a port without connections does to that of a revoked key."""
    return False


def _raise(where: str, error: BaseException, sender: str) -> None:
    raise error


def _numbers(beat: Beat) -> tuple[int, int, int, int, int, int, int, int, bool]:
    """A beat in the order in which a core takes it."""
    return (
        beat.incarnation,
        beat.sequence,
        beat.sent_mono_ns,
        beat.due_in_ns,
        beat.interval_ns,
        beat.loop_gap_ns,
        beat.progress,
        beat.health_digest,
        beat.leaving,
    )
