"""What is where: paths to answers. Every answer of the core is asked for at most twice a second, whoever wants it.

A reader who reloads for ever, or two hundred of them, cost the core no more than one does, and no more than a tenth of
its time for each answer; and of the reads of history that the store allows at a time, half are left to consoles.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files

import msgspec

from hbagent.core.exposition import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from hbagent.core.names import is_node
from hbagent.core.states import Liveness
from hbagent.core.views import ExplainView

from .answer import HTML, JSON, TEXT, Answer, sentence
from .feed import Feed
from .nodepage import node_page
from .page import sorry_page
from .request import Request
from .source import Reply, Source

#: An answer is given again for this long, or for so many times as long as it took to come: of 10,000 nodes a status
#: takes the core a tenth of a second and more.
KEPT_S = 0.5
KEPT_TIMES = 10
#: Different answers that are kept: the pages that a room full of people looks at.
KEPT_MAX = 32
#: Reads of history at a time; the root's store allows four.
READS_MAX = 2
#: Events of one answer, as for a console.
EVENTS_MAX = 10_000

_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Events:
    """The answer that goes on: the live feed, from `position` on."""

    def __init__(self, position: str) -> None:
        self.position = position


class _Status(msgspec.Struct):
    """An answer to `status`, cut along its lists and not looked into."""

    root: msgspec.Raw
    racks: msgspec.Raw
    nodes: msgspec.Raw
    incidents: msgspec.Raw = msgspec.Raw(b"[]")


class Site:
    """Answers requests. `pages` is False for a leader, which has only what programs read."""

    def __init__(self, source: Source, feed: Feed, *, pages: bool, counters: Callable[[bool], bytes]) -> None:
        self._source = source
        self._feed = feed
        self._counters = counters
        #: Until when, and the answer.
        self._kept: dict[str, tuple[float, Reply]] = {}
        self._asking: dict[str, asyncio.Task[Reply]] = {}
        self._reads = asyncio.Semaphore(READS_MAX)
        self._static = {f"/{name}": _static(name, kind) for name, kind in _STATIC.items()}
        self._exact: dict[str, Callable[[Request], Awaitable[Answer | Events]]] = {
            "/api/v1/status": self._status,
            "/api/v1/nodes": self._nodes,
            "/api/v1/racks": self._racks,
            "/api/v1/events": self._history,
            "/api/v1/incidents": self._incidents,
            "/api/v1/silences": self._silences,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }
        self._pages = pages
        if pages:
            self._exact |= {"/": self._index, "/events": self._events}
        else:
            self._static.clear()
            self._exact["/"] = self._signpost

    async def answer(self, request: Request) -> Answer | Events:
        """The answer to a request."""
        path = request.path
        made = self._exact.get(path)
        if made is not None:
            return await made(request)
        if path in self._static:
            return _unless_known(self._static[path], request)
        if path.startswith("/api/v1/node/"):
            return await self._explain_json(path.removeprefix("/api/v1/node/"))
        if self._pages and path.startswith("/node/"):
            return await self._explain_page(path.removeprefix("/node/"))
        if path.startswith("/api/"):
            return _json_error(
                404, "there is nothing here; see /api/v1/status, nodes, racks, events, incidents, silences"
            )
        return sentence(404, "there is nothing here")

    # ---- asking ------------------------------------------------------------------------------------------

    async def _ask(self, what: str, *, reads: bool = False, **fields: str | int) -> Reply:
        """An answer that is not older than `KEPT_S`; one question, however many wait for it."""
        key = f"{what} {sorted(fields.items())}"
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._ask_now(key, what, reads, fields))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _ask_now(self, key: str, what: str, reads: bool, fields: dict[str, str | int]) -> Reply:
        began = time.monotonic()
        if reads:
            async with self._reads:
                began = time.monotonic()
                reply = await self._source.ask(what, **fields)
        elif what == "metrics":
            reply = await self._source.metrics(bool(fields["openmetrics"]))
        else:
            reply = await self._source.ask(what, **fields)
        if not reply.error:
            now = time.monotonic()
            kept_s = max(KEPT_S, KEPT_TIMES * (now - began))
            self._kept.pop(key, None)
            self._kept[key] = (now + kept_s, reply)
            asyncio.get_running_loop().call_later(kept_s, self._forget)
            while len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]
        return reply

    def _forget(self) -> None:
        now = time.monotonic()
        for key in [key for key, (until, _) in self._kept.items() if until <= now]:
            del self._kept[key]

    # ---- pages -------------------------------------------------------------------------------------------

    async def _index(self, request: Request) -> Answer:
        error = await self._feed.fresh()
        if self._feed.board.root is None:
            return _sorry(503, "No answer", f"The root does not answer: {error}", "")
        return Answer(kind=HTML, body=self._feed.index())

    async def _explain_page(self, node: str) -> Answer:
        base = "../" * (1 + node.count("/"))
        if not is_node(node):
            return _sorry(404, "No such node", f"A node is named as in dc1/rack07/host12, not {node}", base)
        await self._feed.fresh()
        reply = await self._ask("explain", reads=True, node=node)
        if reply.error:
            status = _status_of(reply)
            return _sorry(status, "No such node" if status == 404 else "No answer", reply.error, base)
        root, position = self._feed.board.root, self._feed.position
        view = msgspec.json.decode(reply.body, type=ExplainView)
        return Answer(kind=HTML, body=node_page(view, root.at if root else "", base, position, self._feed.age_s))

    async def _events(self, request: Request) -> Answer | Events:
        if self._feed.full:
            return sentence(503, "too many listen already")
        return Events(request.headers.get("last-event-id") or request.parameters.get("after", ""))

    async def _signpost(self, request: Request) -> Answer:
        return Answer(
            kind=TEXT,
            body=b"A leader of hbagent. The status page is the root's.\n"
            b"Here: /healthz /readyz /metrics /api/v1/status nodes racks node/NAME\n",
        )

    # ---- JSON --------------------------------------------------------------------------------------------

    async def _status(self, request: Request) -> Answer:
        return _json(await self._ask("status"))

    async def _nodes(self, request: Request) -> Answer:
        return _part(await self._ask("status"), "nodes")

    async def _racks(self, request: Request) -> Answer:
        return _part(await self._ask("status"), "racks")

    async def _incidents(self, request: Request) -> Answer:
        return _json(await self._ask("incidents"))

    async def _silences(self, request: Request) -> Answer:
        return _json(await self._ask("silences"))

    async def _history(self, request: Request) -> Answer:
        known = {"limit": "100", "after": "0", "node": ""}
        wanted = {**known, **request.parameters}
        numbers = [wanted[name] for name in ("limit", "after")]
        if wanted.keys() != known.keys() or not all(text.isdecimal() and len(text) < 18 for text in numbers):
            return _json_error(400, "events are asked for by limit, after (both whole numbers) and node")
        limit, after = map(int, numbers)
        if not 1 <= limit <= EVENTS_MAX:
            return _json_error(400, f"limit is 1 to {EVENTS_MAX}")
        return _json(await self._ask("events", reads=True, limit=limit, after=after, node=wanted["node"]))

    async def _explain_json(self, node: str) -> Answer:
        if not is_node(node):
            return _json_error(404, "a node is named as in dc1/rack07/host12")
        return _json(await self._ask("explain", reads=True, node=node))

    # ---- for machines ------------------------------------------------------------------------------------

    async def _healthz(self, request: Request) -> Answer:
        reply = await self._ask("ping")
        return sentence(503, f"no: {reply.error}") if reply.error else sentence(200, "ok")

    async def _readyz(self, request: Request) -> Answer:
        error = await self._feed.fresh()
        reasons = [error] if error else self._not_ready()
        return sentence(503, "\n".join(f"no: {reason}" for reason in reasons)) if reasons else sentence(200, "ready")

    def _not_ready(self) -> list[str]:
        board = self._feed.board
        assert board.root is not None
        reasons = [f"what must be durable is not: {board.root.degraded}"] if board.root.degraded else []
        silent = [
            rack.rack
            for rack in board.racks
            if rack.leaders and not any(leader.state is Liveness.ALIVE for leader in rack.leaders)
        ]
        return reasons + [f"nobody speaks for {rack}" for rack in silent[:10]]

    async def _metrics(self, request: Request) -> Answer:
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        reply = await self._ask("metrics", openmetrics=int(openmetrics))
        if reply.error:
            return sentence(503, reply.error)
        kind = OPENMETRICS_TYPE if openmetrics else TEXT_TYPE
        # The other one says where the text ends.
        return Answer(kind=kind, body=self._counters(openmetrics) + reply.body)


def _json(reply: Reply) -> Answer:
    if reply.error:
        return _json_error(_status_of(reply), reply.error)
    return Answer(kind=JSON, body=reply.body)


def _status_of(reply: Reply) -> int:
    """404 for a node or a question that is not known here, 503 for everything that may be otherwise in a moment."""
    return 404 if reply.error.startswith(("no node ", "a leader cannot answer ", "cannot answer ")) else 503


def _json_error(status: int, text: str) -> Answer:
    return Answer(status=status, kind=JSON, body=msgspec.json.encode({"schema": 1, "error": text}))


def _part(reply: Reply, name: str) -> Answer:
    """One list of a status, with who answers."""
    if reply.error:
        return _json(reply)
    status = msgspec.json.decode(reply.body, type=_Status)
    return Answer(kind=JSON, body=msgspec.json.encode({"schema": 1, "root": status.root, name: getattr(status, name)}))


def _sorry(status: int, title: str, text: str, base: str) -> Answer:
    return Answer(status=status, kind=HTML, body=sorry_page(title, text, base))


def _static(name: str, kind: str) -> Answer:
    body = files(__package__).joinpath("static").joinpath(name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Answer(kind=kind, body=body, headers=(("ETag", tag),), cache="no-cache")


def _unless_known(answer: Answer, request: Request) -> Answer:
    tag = dict(answer.headers)["ETag"]
    known = [word.strip() for word in request.headers.get("if-none-match", "").split(",")]
    return msgspec.structs.replace(answer, status=304) if tag in known else answer
