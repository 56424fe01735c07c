"""Agents that only beat: a thousand real connections with a thousand real keys, from one process.

Run as a process of its own (`python -m hbagent.bench.senders`), told what to do line by line on its standard input:
a JSON document with the endpoint and keys first, then `pace N` (beats a second, evenly spread), `flood`, or `stop`.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

import zmq

from hbagent.core.units import SECOND
from hbagent.transport import sockets
from hbagent.transport.keys import KeyPair
from hbagent.wire.beat import HEAD, LAYOUT

#: In a flood each turn sends this many before it looks at its orders.
_FLOOD_TURN = 512


class Senders:
    """Beating sockets, and the beat each will send next."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._interval_us = int(document["interval_us"])
        self._context: sockets.Context = zmq.Context()
        self._context.max_sockets = 65_000
        target = sockets.Target(document["endpoint"], document["server_key"])
        self._sockets = []
        for number, (public, secret) in enumerate(document["keys"]):
            keys = KeyPair(name=f"bench/rack/node{number}", public=public, secret=secret)
            caller = sockets.Caller(name=keys.name, keys=keys, reconnect_ms=1000)
            # Not conflating: in a flood every beat must arrive, or the receiver would not be flooded.
            self._sockets.append(sockets.report_publisher(self._context, caller, (), 1000))
            sockets.connect(self._sockets[-1], caller, target)
        self._sequences = [0] * len(self._sockets)
        self._incarnations = [int.from_bytes(os.urandom(8), "big") for _ in self._sockets]
        self._next = 0

    def send(self, count: int) -> None:
        """The next `count` beats, one socket after the other."""
        pack, interval = LAYOUT.pack, self._interval_us
        for _ in range(count):
            index = self._next
            self._next = (index + 1) % len(self._sockets)
            sequence = self._sequences[index] = self._sequences[index] + 1
            data = pack(HEAD, 0, self._incarnations[index], sequence, time.monotonic_ns(), interval, interval, 0, 0, 0)
            self._sockets[index].send(data, zmq.NOBLOCK)

    def run(self) -> None:
        """Obey the lines on standard input until it ends."""
        rate, flood = 0, False
        started, sent = time.monotonic_ns(), 0
        while True:
            waiting = not rate and not flood
            if select.select([0], [], [], 1.0 if waiting else 0.0)[0]:
                # Read past Python's buffer, in which a second line would be invisible to select.
                orders = os.read(0, 4096).decode()
                if not orders:
                    return
                line = orders.splitlines()[-1].split()
                rate, flood = (int(line[1]) if line[0] == "pace" else 0), line[0] == "flood"
                started, sent = time.monotonic_ns(), 0
            if flood:
                self.send(_FLOOD_TURN)
            elif rate:
                owed = (time.monotonic_ns() - started) * rate // SECOND - sent
                if owed > 0:
                    self.send(min(owed, rate // 10 + 1))
                    sent += min(owed, rate // 10 + 1)
                time.sleep(0.0002)


def main() -> None:
    """Entry point of the process."""
    document = b""
    while not document.endswith(b"\n"):
        document += os.read(0, 1)
    Senders(json.loads(document)).run()


if __name__ == "__main__":
    main()
