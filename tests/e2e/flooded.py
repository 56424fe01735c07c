"""A leader's doors while no descriptor is left: `python -m tests.e2e.flooded HOW AGENT_KEY SECONDS`.

libzmq then tries to accept whoever waits, in vain, as often as it can. HOW is

- `shipped`: the doors have the monitor that a leader has;
- `every-event`: another monitor beside it is told of each attempt, and counts;
- `unread`: that one is read by nobody.

Its first line of output says where it listens and under which key. After SECONDS come the longest time without a
message, how many there were, and how many attempts a second were counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time

import zmq

from hbagent.transport.allow import AllowList, Role
from hbagent.transport.monitor import LinkEvent, Monitor
from tests.transport.doors import ANY_PORT, Door, new_keys

DESCRIPTORS = 256


class Count:
    """Reads a monitor and counts what it tells."""

    def __init__(self, reader: zmq.Socket[bytes]) -> None:
        self.events = 0
        self._reader = reader
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._reader.recv_multipart()
            self.events += 1


def use_up() -> None:
    """Leave no descriptor."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            os.dup(0)
    except OSError:
        pass


def main(how: str, agent_key: str, seconds: str) -> None:
    allow = AllowList().allow(Role.AGENT, "demo/rack1/node1", agent_key)
    door = Door(allow, keys=new_keys("demo/leader"), domains={"agents": Role.AGENT}, endpoint=ANY_PORT)
    Monitor({"control": door.control}, lambda link: None, (LinkEvent.LOST,))
    count = None
    if how != "shipped":
        reader = door.intake.get_monitor_socket(zmq.EVENT_ACCEPT_FAILED)
        count = Count(reader) if how == "every-event" else None
    target = door.publish
    print(json.dumps({"endpoint": target.endpoint, "key": target.server_key}), flush=True)
    door.intake.recv()
    use_up()
    print(json.dumps({}), flush=True)
    begun = heard = time.monotonic()
    gap, messages = 0.0, 0
    while time.monotonic() - begun < float(seconds):
        if door.intake.poll(1000) and door.intake.recv():
            now = time.monotonic()
            gap, heard = max(gap, now - heard), now
            messages += 1
    gap = max(gap, time.monotonic() - heard)
    events = count.events if count is not None else 0
    answer = {"gap": gap, "messages": messages, "attempts": events / (time.monotonic() - begun)}
    print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
