"""A leader's intake that stops reading for a while: `python -m tests.e2e.stalling HOW AGENT_KEY ADDRESS`.

It reads one message, then none for `STALL_SECONDS`, then all there are. HOW is

- `shipped`: what `transport.sockets` makes;
- `heartbeats`: the same with ZMTP heartbeats;
- `calling`: a bare SUB with ZMTP heartbeats and libzmq's default queue, that calls ADDRESS.

Its first line of output says where it listens and under which key, its last how many messages it took and which was
the last of them.
"""

from __future__ import annotations

import json
import sys
import time

import zmq

from hbagent.transport import sockets
from hbagent.transport.allow import AllowList, Role
from tests.transport.doors import ANY_PORT, Door, new_keys

STALL_SECONDS = 9.0
#: Silence of this length says that nothing more comes.
SILENCE_MS = 3_000
#: The setting that was measured: libzmq 4.3.5 aborts in 5 of 5 runs (libzmq issues #3937, #4767).
HEARTBEATS = {zmq.HEARTBEAT_IVL: 1_000, zmq.HEARTBEAT_TIMEOUT: 3_000, zmq.HEARTBEAT_TTL: 5_000}


def calling(address: str) -> sockets.Socket:
    """A SUB as libzmq makes it, with heartbeats."""
    socket: sockets.Socket = zmq.Context.instance().socket(zmq.SUB)
    for option, value in HEARTBEATS.items():
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(address)
    print(json.dumps({}), flush=True)
    return socket


def listening(how: str, agent_key: str) -> sockets.Socket:
    """A leader's SUB, behind its doorkeeper."""
    if how == "heartbeats":
        bound = sockets._bounded

        def bound_with_heartbeats(context: sockets.Context, kind: int) -> sockets.Socket:
            socket = bound(context, kind)
            for option, value in HEARTBEATS.items():
                socket.setsockopt(option, value)
            return socket

        sockets._bounded = bound_with_heartbeats
    allow = AllowList().allow(Role.AGENT, "demo/rack1/node1", agent_key)
    door = Door(allow, keys=new_keys("demo/leader"), domains={"agents": Role.AGENT}, endpoint=ANY_PORT)
    target = door.publish
    print(json.dumps({"endpoint": target.endpoint, "key": target.server_key}), flush=True)
    return door.intake


def main(how: str, agent_key: str, address: str) -> None:
    intake = calling(address) if how == "calling" else listening(how, agent_key)
    intake.recv()
    time.sleep(STALL_SECONDS)
    count, last = 1, b""
    while intake.poll(SILENCE_MS):
        last = intake.recv()
        count += 1
    print(json.dumps({"count": count, "last": last.decode()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
