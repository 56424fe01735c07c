"""A TCP proxy between a caller and a port, that a test tells to hold, delay, spoil or reset, and that remembers.

What is held is taken from the sender all the same, as a network's buffers do: the sender notices nothing, may die
meanwhile, and is heard when the hold ends.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

#: How often a pump looks up from its socket.
LOOK_SECONDS = 0.02
CHUNK = 65536
#: Closing a socket that has this option resets its connection.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on `port` of loopback and passes everything on to `target`. Use it in a `with`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ending = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        #: While set, nothing from a caller is passed on.
        self.holding = threading.Event()
        #: While set, nothing that the port answers is passed on.
        self.holding_back = threading.Event()
        #: How long everything takes, in each direction.
        self.delay_seconds = 0.0
        #: What becomes of a piece that a caller sent.
        self.spoil: Callable[[bytes], bytes] = bytes
        self._resets = 0
        #: What each caller sent, by connection.
        self.recorded: list[bytearray] = []
        self.port: int = self._listener.getsockname()[1]
        self._run(self._accept)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def reset(self) -> None:
        """Reset all connections, to both sides; within `LOOK_SECONDS`. New ones are passed on as before."""
        self._resets += 1

    def _run(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(caller)
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 2.0)
            except OSError:
                caller.close()
                continue
            record = bytearray()
            self.recorded.append(record)
            self._sockets.append(server)
            self._run(self._pump, caller, server, record)
            self._run(self._pump, server, caller, None)

    def _pump(self, source: socket.socket, sink: socket.socket, record: bytearray | None) -> None:
        """Pass one direction on; `record` is given for what a caller sends."""
        hold = self.holding_back if record is None else self.holding
        waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        ended, resets = False, self._resets
        source.settimeout(LOOK_SECONDS)
        while not self._ending.is_set() and not (ended and not waiting):
            if self._resets != resets:
                with contextlib.suppress(OSError):
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                source.close()
                return
            if not ended:
                try:
                    data = source.recv(CHUNK)
                    ended = not data
                    if record is not None:
                        record += data
                        data = self.spoil(data)
                    waiting.append((time.monotonic() + self.delay_seconds, data))
                except TimeoutError:
                    pass
                except OSError:
                    ended = True
            else:
                self._ending.wait(LOOK_SECONDS)
            while waiting and not hold.is_set() and waiting[0][0] <= time.monotonic():
                try:
                    sink.sendall(waiting.popleft()[1])
                except OSError:
                    return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
