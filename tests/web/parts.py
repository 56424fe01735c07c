"""A site of its own to talk to: a core that says what a test has it say, and a client that says anything at all."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hbagent.core.states import Health, Liveness, RackState
from hbagent.core.views import (
    Cell,
    CellsView,
    ExplainView,
    IncidentView,
    LeaderView,
    NodeView,
    RackView,
    RootView,
    SilenceView,
    StatusView,
    count_liveness,
)
from hbagent.web.server import Server, listen
from hbagent.web.source import Reply

AT = "2026-11-20T12:00:03.000Z"
SINCE = "2026-11-20T11:59:00.000Z"
#: Longer than anything here takes on a busy machine.
BOUND_S = 30.0
#: What a node may write, if it is somebody else's by now.
HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\n\u202e" + "x" * 10_000


def cell(node: str = "dc/r1/n1", liveness: str = "ALIVE", health: str = "OK", **fields: Any) -> Cell:
    return Cell(
        node,
        Liveness(liveness),
        fields.get("cause"),
        Health(health),
        fields.get("since", SINCE),
        fields.get("age_s", 0.4),
        fields.get("text", ""),
        fields.get("covered", ""),
        fields.get("flapping", False),
    )


def leader(name: str = "dc/l1", state: str = "ALIVE", **fields: Any) -> LeaderView:
    return LeaderView(**{"leader": name, "state": Liveness(state), "age_s": 0.5, "version": "1.0", **fields})


def rack(name: str = "dc/r1", state: str = "OK", leaders: list[LeaderView] | None = None, nodes: int = 1) -> RackView:
    counts = count_liveness([Liveness.ALIVE] * nodes)
    return RackView(rack=name, state=RackState(state), leaders=leaders or [leader()], counts=counts)


def root(**fields: Any) -> RootView:
    return RootView(**{"name": "dc/root", "role": "root", "version": "1.0", "at": AT, "uptime_s": 60.0, **fields})


def view(*cells: Cell, **fields: Any) -> CellsView:
    """Everything, of one rack, unless told otherwise."""
    shown = {
        "life": "a",
        "version": 1,
        "whole": True,
        "root": root(),
        "racks": [rack(nodes=len(cells))],
        "cells": [*cells],
        "gone": [],
        "incidents": [],
        "silences": [],
        **fields,
    }
    return CellsView(**shown)


def incident(**fields: Any) -> IncidentView:
    usual = {
        "incident": "i17",
        "state": "firing",
        "axis": "liveness",
        "kind": "node-dead",
        "rack": "dc/r1",
        "cause": "host-gone",
        "opened": SINCE,
        "resolved": None,
        "age_s": 63.0,
        "burning": 2,
        "count": 3,
        "members": ["dc/r1/n1", "dc/r1/n2"],
        "text": "2 nodes are gone",
        "acked_by": "",
        "comment": "",
        "silenced_by": [],
        "inhibited_by": "",
        "drill": False,
    }
    return IncidentView(**{**usual, **fields})


def silence(**fields: Any) -> SilenceView:
    usual = {
        "silence": "s3",
        "maintenance": True,
        "state": "active",
        "nodes": ["dc/r1/*"],
        "racks": [],
        "causes": [],
        "kinds": [],
        "begins": SINCE,
        "ends": "2026-11-21T06:00:00.000Z",
        "next": None,
        "every": "",
        "length_s": 3600.0,
        "reason": "new disks",
        "author": "alice (uid 1000)",
        "ended_by": "",
        "covers": 2,
    }
    return SilenceView(**{**usual, **fields})


def explained(**fields: Any) -> ExplainView:
    node = NodeView(
        node="dc/r1/n1",
        rack="dc/r1",
        liveness=Liveness.ALIVE,
        health=Health.OK,
        cause=None,
        since=SINCE,
        age_s=0.4,
        observers=[],
        probes=[],
    )
    return ExplainView(**{"node": node, "rack": rack(), "story": [], "events": [], **fields})


async def later(seconds: float) -> None:
    """An answer comes from another thread, not at once."""
    loop = asyncio.get_running_loop()
    come = loop.create_future()
    loop.call_later(seconds, come.set_result, None)
    await come


class Core:
    """Answers as a core would. What it says may be changed at any time; `silent` has it say nothing."""

    def __init__(self) -> None:
        self.says: dict[str, object] = {
            "ping": {"name": "dc/root", "role": "root"},
            "cells": view(cell()),
            "status": StatusView(root=root(), racks=[rack()], nodes=[explained().node], incidents=[incident()]),
            "explain": explained(),
            "events": {"schema": 1, "events": []},
            "incidents": {"schema": 1, "incidents": [incident()]},
            "silences": {"schema": 1, "silences": [silence()]},
        }
        self.metric_text = "hbagent_nodes 1\n"
        self.asked: list[tuple[str, dict[str, str | int]]] = []
        self.silent = False
        self.takes_s = 0.0

    async def ask(self, what: str, **fields: str | int) -> Reply:
        """Of `cells` a change is told once, as a core does; a text is why there is no answer."""
        self.asked.append((what, fields))
        await later(self.takes_s)
        if self.silent:
            return Reply(error="no answer within 5 s")
        said = self.says[what]
        if isinstance(said, str):
            return Reply(error=said)
        if isinstance(said, CellsView) and (said.life, said.version) == (fields["life"], fields["after"]):
            said = msgspec.structs.replace(said, whole=False, cells=[], gone=[])
        return Reply(msgspec.json.encode(said))

    async def metrics(self, openmetrics: bool) -> Reply:
        return Reply(self.metric_text.encode() + (b"# EOF\n" if openmetrics else b""))

    def show(self, *cells: Cell, **fields: Any) -> None:
        """These cells are others now; the rest of the board is as it was."""
        shown = self.says["cells"]
        assert isinstance(shown, CellsView)
        changed = {"version": shown.version + 1, "whole": False, "cells": [*cells], **fields}
        self.says["cells"] = msgspec.structs.replace(shown, **changed)


class Running:
    """A server in a thread of its own, at a port of its own."""

    def __init__(self, core: Core, address: str = "127.0.0.1:0", **options: Any) -> None:
        self.core = core
        self.told: list[tuple[str, str, dict[str, object]]] = []
        self._made: list[socket.socket] = []
        self._socket = listen(address)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._ready = threading.Event()
        usual = {"pages": True, "tell": lambda *said: self.told.append(said)}
        self._options = {**usual, **options}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(BOUND_S)

    async def _serve(self) -> None:
        self.server = Server(self.core, **self._options)
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.server.serve(self._socket)

    def do(self, call: Callable[[], object]) -> None:
        """In its thread, and wait until it is done."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(call)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(BOUND_S)

    def stop(self) -> None:
        for made in self._made:
            made.close()
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()

    # ---- talking -----------------------------------------------------------------------------------------

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port))
        made.settimeout(BOUND_S)
        self._made.append(made)
        return made

    def say(self, data: bytes) -> bytes:
        """Everything that comes back for some bytes, until the other side closes."""
        with self.connect() as made:
            made.sendall(data)
            return everything(made)

    def get(self, path: str, *headers: str, method: str = "GET") -> Response:
        """One request on a connection of its own."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        return Response("\r\n".join([*lines, "", ""]).encode(), self)


class Response:
    """One answer, taken apart."""

    def __init__(self, request: bytes, running: Running) -> None:
        head, _, self.body = running.say(request).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def everything(made: socket.socket) -> bytes:
    """What comes until the end."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := made.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


class Listener:
    """Follows the live feed as a browser would."""

    def __init__(self, running: Running, *headers: str, path: str = "/events") -> None:
        self._socket = running.connect()
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._data = b""
        self.head = self._until(b"\r\n\r\n")
        self.id = ""

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            part = self._socket.recv(1 << 16)
            assert part, "the feed has ended"
            self._data += part
        found, _, self._data = self._data.partition(end)
        return found

    def next(self) -> tuple[str, Any]:
        """The next event with news in it, and what it says."""
        while True:
            block = self._until(b"\n\n").decode()
            found = dict(re.findall(r"^(\w+): (.*)$", block, re.MULTILINE))
            if "data" in found:
                self.id = found["id"]
                return found["event"], msgspec.json.decode(found["data"])

    def until(self, condition: Callable[[Any], object]) -> Any:
        """What the first event says for which a condition holds. Any number of ticks may lie before it."""
        end = time.monotonic() + BOUND_S
        while True:
            _, told = self.next()
            if condition(told):
                return told
            assert time.monotonic() < end, "not told"

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def running(core: Core | None = None, **options: Any) -> Iterator[Running]:
    """A server for the length of a block."""
    made = Running(core or Core(), **options)
    try:
        yield made
    finally:
        made.stop()


def until(condition: Callable[[], object], seconds: float = BOUND_S) -> None:
    """Wait for a condition. Raises AssertionError."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        select.select([], [], [], 0.002)
