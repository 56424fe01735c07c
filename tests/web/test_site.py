"""What is where: pages, JSON and what machines ask, each asked of the core no more than it must be."""

from __future__ import annotations

import threading

import pytest

from hbagent.core.views import StatusView
from hbagent.web import feed as feeds
from hbagent.web import site as sites
from hbagent.web.source import Reply
from tests.web.parts import Core, Listener, Running, cell, leader, rack, root, running, view


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/node/dc/r1/n1", "text/html"),
        ("/style.css", "text/css"),
        ("/live.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/api/v1/status", "application/json"),
        ("/api/v1/nodes", "application/json"),
        ("/api/v1/node/dc/r1/n1", "application/json"),
        ("/api/v1/racks", "application/json"),
        ("/api/v1/events", "application/json"),
        ("/api/v1/incidents", "application/json"),
        ("/api/v1/silences", "application/json"),
        ("/healthz", "text/plain"),
        ("/readyz", "text/plain"),
        ("/metrics", "text/plain; version=0.0.4"),
    ],
)
def test_everything_that_is_promised_is_there(path: str, kind: str) -> None:
    with running() as server:
        found = server.get(path)
        assert found.status == 200
        assert found.headers["content-type"].startswith(kind)
        assert found.body


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/node/", "/node/dc/r1", "/node/dc/r1/n1/x", "/node/..%2f..%2fx", "/api/v1/node/x", "/static/live.js"],
)
def test_what_is_not_there_is_not(path: str) -> None:
    with running() as server:
        assert server.get(path).status == 404


def test_a_name_in_an_address_is_shown_as_text() -> None:
    with running() as server:
        found = server.get("/node/%3Cscript%3Ealert(1)%3C/script%3E")
        assert found.status == 404
        assert "&lt;script&gt;alert(1)" in found.text


def test_lists_are_cut_out_of_one_status(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "KEPT_S", 60.0)
    with running(core) as server:
        nodes, racks = server.get("/api/v1/nodes").json, server.get("/api/v1/racks").json
        assert nodes["nodes"][0]["node"] == "dc/r1/n1"
        assert racks["racks"][0]["rack"] == "dc/r1"
        assert nodes["root"] == racks["root"]
        assert nodes["schema"] == 1
        assert [what for what, _ in core.asked] == ["status"], "asked once, for all who ask within some time"


def test_however_many_ask_the_core_is_asked_once(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "KEPT_S", 60.0)
    with running(core) as server:
        threads = [threading.Thread(target=server.get, args=("/api/v1/status",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(core.asked) == 1


def test_answers_that_are_kept_are_few_and_not_kept_long(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "KEPT_MAX", 2)
    with running(core) as server:
        for number in range(5):
            server.get(f"/api/v1/events?after={number}")
        assert len(server.server._site._kept) <= 2
        monkeypatch.setattr(sites, "KEPT_S", 0.0)
        monkeypatch.setattr(sites, "KEPT_TIMES", 0)
        server.get("/api/v1/events")
        server.get("/api/v1/events")
        assert len(core.asked) == 7


def test_an_error_is_not_kept(core: Core) -> None:
    with running(core) as server:
        status, core.says["status"] = core.says["status"], "a defect"
        assert server.get("/api/v1/status").status == 503
        core.says["status"] = status
        assert server.get("/api/v1/status").status == 200


def test_events_are_asked_for_as_a_console_does(core: Core) -> None:
    with running(core) as server:
        assert server.get("/api/v1/events?limit=5&after=7&node=dc/r1/n1").status == 200
        assert core.asked == [("events", {"limit": 5, "after": 7, "node": "dc/r1/n1"})]
        for bad in ("limit=0", "limit=10001", "limit=x", "after=-1", "limit=1e3", "nodes=x", "limit=" + "9" * 99):
            assert server.get(f"/api/v1/events?{bad}").status == 400
        assert len(core.asked) == 1


def test_a_node_that_is_not_known_is_404_and_a_core_that_does_not_answer_503(core: Core) -> None:
    with running(core) as server:
        core.says["explain"] = "no node 'dc/r1/n9' is known; see: hbagent nodes"
        assert server.get("/node/dc/r1/n9").status == 404
        assert server.get("/api/v1/node/dc/r1/n9").json["error"].startswith("no node")
        core.silent = True
        assert server.get("/node/dc/r1/n8").status == 503
        assert server.get("/api/v1/node/dc/r1/n8").status == 503


def test_health_is_whether_the_loop_answers(core: Core) -> None:
    with running(core) as server:
        assert server.get("/healthz").text == "ok\n"
        core.silent = True
        core.says.clear()
        assert _later(server, "/healthz") == (503, "no: no answer within 5 s\n")


def _later(server: Running, path: str) -> tuple[int, str]:
    """The answer once what was kept has been forgotten."""
    server.do(server.server._site._kept.clear)
    found = server.get(path)
    return found.status, found.text


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (view(cell(), root=root(degraded="disk full")), "what must be durable is not: disk full"),
        (view(cell(), racks=[rack(leaders=[leader(state="DEAD")])]), "nobody speaks for dc/r1"),
        (view(cell(), racks=[rack(leaders=[leader(state="UNKNOWN"), leader("dc/l2", "SUSPECT")])]), "nobody speaks"),
    ],
)
def test_ready_is_whether_everybody_is_spoken_for_and_kept(core: Core, said: object, reason: str) -> None:
    with running(core) as server:
        core.says["cells"] = view(cell(), racks=[rack(leaders=[leader(), leader("dc/l2", "DEAD")])])
        assert server.get("/readyz").text == "ready\n"
    core.says["cells"] = said
    with running(core) as server:
        found = server.get("/readyz")
        assert found.status == 503
        assert reason in found.text


def test_nobody_is_ready_of_whom_nothing_is_known(core: Core) -> None:
    core.silent = True
    with running(core) as server:
        assert server.get("/readyz").status == 503
        found = server.get("/")
        assert found.status == 503
        assert "The root does not answer" in found.text


def test_a_root_that_falls_silent_leaves_no_green_page(core: Core) -> None:
    with running(core) as server:
        assert " class=old>" not in server.get("/").text
        core.silent = True
        server.server.feed._taken_at -= 30
        server.server.feed._index = (0.0, b"")
        assert " class=old>" in server.get("/").text


def test_a_leader_has_what_programs_read_and_no_pages(core: Core) -> None:
    with running(core, pages=False) as server:
        for path in ("/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/node/dc/r1/n1"):
            assert server.get(path).status == 200, path
        for path in ("/events", "/live.js", "/node/dc/r1/n1"):
            assert server.get(path).status == 404, path
        core.says["events"] = "a leader cannot answer 'events'; ask the root"
        assert server.get("/api/v1/events").status == 404


def test_what_a_browser_has_already_is_not_sent_again() -> None:
    with running() as server:
        tag = server.get("/style.css").headers["etag"]
        found = server.get("/style.css", f'If-None-Match: "x", {tag}')
        assert (found.status, found.body) == (304, b"")
        assert server.get("/style.css", 'If-None-Match: "x"').status == 200


def test_the_api_says_what_the_core_said(core: Core) -> None:
    with running(core) as server:
        said = server.get("/api/v1/status").json
        status = core.says["status"]
        assert isinstance(status, StatusView)
        assert said["incidents"][0]["incident"] == status.incidents[0].incident
        assert server.get("/api/v1/silences").json["silences"][0]["silence"] == "s3"


def test_an_answer_that_costs_much_is_kept_longer(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "KEPT_S", 0.0)
    monkeypatch.setattr(sites, "KEPT_TIMES", 10**9)
    with running(core) as server:
        for _ in range(3):
            server.get("/api/v1/status")
        assert len(core.asked) == 1


def test_listeners_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LISTENERS_MAX", 2)
    with running() as server:
        for _ in range(2):
            Listener(server).next()
        assert server.get("/events").status == 503
        assert server.server.feed.listening == 2


def test_of_the_reads_that_the_store_allows_half_are_left_to_consoles() -> None:
    core = Slow()
    with running(core) as server:
        paths = [f"/api/v1/node/dc/r1/n{number}" for number in range(8)] + ["/api/v1/events", "/node/dc/r1/n9"]
        threads = [threading.Thread(target=server.get, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert core.most == 2


class Slow(Core):
    """Counts the reads that are under way together."""

    def __init__(self) -> None:
        super().__init__()
        self.takes_s = 0.02
        self.now = self.most = 0

    async def ask(self, what: str, **fields: str | int) -> Reply:
        reads = what in ("explain", "events")
        self.now += reads
        self.most = max(self.most, self.now)
        reply = await super().ask(what, **fields)
        self.now -= reads
        return reply


def test_however_many_open_the_page_one_board_is_asked_for(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever comes when the answer is there finds it, too.
    monkeypatch.setattr(feeds.Feed.fresh, "__defaults__", (60.0,))
    core.takes_s = 0.1
    with running(core) as server:
        threads = [threading.Thread(target=server.get, args=("/",)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [what for what, _ in core.asked] == ["cells"]
