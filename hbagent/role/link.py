"""The stream between a daemon and its companion: frames of msgpack over a pair of sockets.

Each side is the other's child or parent and of the same program, and is still not believed: a frame has a bound, what
cannot be read ends the link, and what the other side does not take in is held only up to a bound. A newer word about
the same thing replaces an older one that still waits, so that an agent which was stopped for an hour reads one report
and not a thousand. Sending never waits.

A frame is four bytes of length, big-endian, and the message.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Union

import msgspec

from hbagent.core.config import ProberConfig
from hbagent.core.effects import Recall, RunHook, StartDrill
from hbagent.core.messages import HookFinished, Mark, Recalled, Vitals
from hbagent.core.units import MILLISECOND

from .driver import Driver

#: A report of a thousand probes, or the config of as many, has some 300 kB.
FRAME_MAX = 1 << 20
#: Bytes that wait for a reader who does not read, the frame on its way not counted: four bundles and a report fit.
WAITING_MAX = 1 << 20
#: Log lines that wait; they tell the same thing again and again when somebody does not read.
LINES_WAITING_MAX = 100
#: Taken in one go, before the loop looks at its deadlines again.
READ_SIZE = 64 * 1024
READS_MAX = 16
#: What the kernel did not take is offered again after this, doubling to the second: a reader that is there needs a
#: millisecond, one that is stopped must not cost a loop its rest.
FLUSH_MIN_NS = 2 * MILLISECOND
FLUSH_MAX_NS = 200 * MILLISECOND


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """Agent to prober, first of all and again whenever the config file was read anew."""

    config: ProberConfig


class Line(msgspec.Struct, frozen=True, tag="line"):
    """Companion to daemon: a line for the log, which the daemon writes."""

    level: str
    what: str
    fields: dict[str, Any] = {}


#: What an agent says, and what a prober says.
Order = Union[Configure, Recall, StartDrill]
Word = Union[Mark, Vitals, Recalled, Line]
#: What a root says to its hook runner, and what that one says.
HookOrder = RunHook
HookWord = Union[HookFinished, Line]

#: A newer one of these says all that an older one said.
_REPLACED = (Mark, Vitals, Configure)


class Link:
    """One end, as a port. `heard` is called with each message, `ended` once with the reason when there will be none.

    `messages` is the union of what the other side may say. The descriptor is the link's from now on.
    """

    def __init__(
        self,
        fd: int,
        messages: Any,
        driver: Driver,
        heard: Callable[[Any], None],
        ended: Callable[[str], None],
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self.source = fd
        self._driver = driver
        self._heard = heard
        self._ended = ended
        self._encoder = msgspec.msgpack.Encoder(enc_hook=str)
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(messages)
        self._input = bytearray()
        #: The frame on its way, and those after it with the kind of each.
        self._sending = memoryview(b"")
        self._waiting: list[tuple[type, bytes]] = []
        self._waiting_size = 0
        self._waiting_max = waiting_max
        self._flush_ns = FLUSH_MIN_NS
        self._flush_planned = False
        self.is_open = True
        #: Messages that were not sent, for too many were waiting.
        self.dropped = 0

    # ---- out ---------------------------------------------------------------------------------------------

    def send(self, message: Order | Word | HookOrder | HookWord) -> bool:
        """Send, now or as soon as the other side reads; False, and counted, when too much is waiting already.

        Raises ValueError for a message of more than `FRAME_MAX`.
        """
        body = self._encoder.encode(message)
        if len(body) > FRAME_MAX:
            raise ValueError(f"{type(message).__name__} of {len(body):,} bytes; a frame has {FRAME_MAX:,} at most")
        if not self.is_open:
            return False
        kind = type(message)
        if kind in _REPLACED:
            self._forget(kind)
        size = len(body) + 4
        full = self._waiting_size + size > self._waiting_max + FRAME_MAX * (kind in _REPLACED)
        if full or (kind is Line and sum(waits is Line for waits, _ in self._waiting) >= LINES_WAITING_MAX):
            self.dropped += 1
            return False
        self._waiting.append((kind, len(body).to_bytes(4, "big") + body))
        self._waiting_size += size
        if not self._flush_planned:
            self._flush()
        return True

    def _forget(self, kind: type) -> None:
        for at, (waits, frame) in enumerate(self._waiting):
            if waits is kind:
                del self._waiting[at]
                self._waiting_size -= len(frame)
                return

    def _flush(self) -> None:
        """Give the kernel what it takes, and come back for the rest."""
        self._flush_planned = False
        try:
            while self.is_open and (self._sending or self._waiting):
                if not self._sending:
                    _, frame = self._waiting.pop(0)
                    self._waiting_size -= len(frame)
                    self._sending = memoryview(frame)
                self._sending = self._sending[self._socket.send(self._sending) :]
                self._flush_ns = FLUSH_MIN_NS
        except BlockingIOError:
            self._flush_planned = True
            self._driver.call_later(time.monotonic_ns() + self._flush_ns, self._flush)
            self._flush_ns = min(2 * self._flush_ns, FLUSH_MAX_NS)
        except OSError:
            # What the other side said before it went is still to be read; the end is found there.
            self._waiting.clear()
            self._waiting_size = 0
            self._sending = memoryview(b"")

    # ---- in ----------------------------------------------------------------------------------------------

    def drain(self) -> int:
        """Take in what has come, up to a bound."""
        count = 0
        for _ in range(READS_MAX):
            try:
                data = self._socket.recv(READ_SIZE)
            except BlockingIOError:
                break
            except ConnectionResetError:
                # It ended without having read all.
                data = b""
            except OSError as error:
                self._end(error.strerror or repr(error))
                break
            if not data:
                self._end("closed")
                break
            self._input += data
            count += self._take_frames()
            if not self.is_open or len(data) < READ_SIZE:
                break
        return count

    def _take_frames(self) -> int:
        count = start = 0
        while len(self._input) - start >= 4:
            size = int.from_bytes(self._input[start : start + 4], "big")
            if size > FRAME_MAX:
                self._end(f"a frame of {size:,} bytes")
                break
            if len(self._input) - start - 4 < size:
                break
            body = bytes(self._input[start + 4 : start + 4 + size])
            start += 4 + size
            message = self._read(body)
            if message is None:
                break
            count += 1
            self._heard(message)
            if not self.is_open:
                break
        del self._input[:start]
        return count

    def _read(self, body: bytes) -> Any:
        """The message in a frame; None, and the link is ended, when there is none."""
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError, TypeError) as error:
            self._end(f"not readable: {str(error)[:200]}")
            return None

    # ---- the end -----------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self._ended(reason)

    def close(self) -> None:
        """Say and hear no more; harmless when repeated."""
        if self.is_open:
            self.is_open = False
            self._driver.remove(self)
            with contextlib.suppress(OSError):
                self._socket.close()
