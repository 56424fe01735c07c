"""HTTP over real sockets: what a stranger may say, for how long, how often, and under which name."""

from __future__ import annotations

import contextlib
import select
import socket
import time

import pytest

from hbagent.web import server as servers
from hbagent.web.answer import POLICY
from hbagent.web.server import Pace, listen
from tests.web.parts import Core, everything, running, until

HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"


def status(data: bytes) -> int:
    return int(data.split()[1])


def test_an_answer_carries_its_length_and_the_policy() -> None:
    with running() as server:
        found = server.get("/")
        assert found.status == 200
        assert int(found.headers["content-length"]) == len(found.body)
        assert found.headers["content-security-policy"] == POLICY
        assert found.headers["connection"] == "close"


def test_head_is_get_without_the_body() -> None:
    with running() as server:
        for path in ("/", "/style.css", "/api/v1/status", "/nothing", "/events"):
            found = server.get(path, method="HEAD")
            assert found.body == b""
            if path != "/events":
                assert found.headers["content-length"] == server.get(path).headers["content-length"]


def test_requests_on_one_connection_are_answered_in_order() -> None:
    paths = [b"/healthz", b"/nothing", b"/readyz", b"/style.css", b"/healthz"]
    raw = b"".join(HEAD % (path, b"") for path in paths) + HEAD % (b"/icon.svg", b"Connection: close\r\n")
    with running() as server:
        data = server.say(raw)
        assert [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 200, 200, 200]
        assert data.index(b"ok\n") < data.index(b"there is nothing") < data.index(b"ready\n") < data.index(b":root")
        assert server.server.answered == {200: 5, 404: 1}


def test_a_request_may_come_a_byte_at_a_time() -> None:
    with running() as server, server.connect() as made:
        for at in HEAD % (b"/healthz", b"Connection: close\r\n"):
            made.send(bytes([at]))
        assert everything(made).endswith(b"ok\n")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /" + b"x" * 50_000, 414),
        (b"x" * 50_000, 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 50_000, 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_told_why_and_ends_the_connection(raw: bytes, expected: int) -> None:
    with running() as server:
        data = server.say(raw)
        assert status(data) == expected
        assert b"Connection: close" in data
        assert POLICY.encode() in data
        assert server.get("/healthz").status == 200


def test_somebody_who_is_refused_may_finish_talking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LINGER_S", 300.0)
    with running() as server, server.connect() as made:
        made.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
        assert status(everything(made)) == 405
        for _ in range(20):
            # A closed connection would answer the first with a reset, and that would raise at one of the next.
            made.sendall(b"x")
            select.select([], [], [], 0.002)


def test_a_refused_connection_answers_nothing_more() -> None:
    with running() as server:
        data = server.say(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEAD % (b"/healthz", b""))
        assert data.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8780", "[::1]", "status.example.org"])
def test_the_names_of_this_host_are_its_own(host: str) -> None:
    with running(hosts=("Status.Example.org",)) as server:
        assert status(server.say(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode())) == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]", "127.1"])
def test_a_name_that_somebody_else_made_point_here_is_refused(host: str) -> None:
    with running() as server:
        data = server.say(b"GET /api/v1/status HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
        assert status(data) == 421
        assert server.core.asked == []


def test_a_head_that_does_not_end_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "HEAD_S", 0.1)
    with running() as server, server.connect() as made:
        # It may have been ended before anything was said.
        with contextlib.suppress(ConnectionError):
            made.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert everything(made) == b""
        until(lambda: server.server.ended["slow"] == 1)


def test_whoever_leaves_in_the_middle_is_forgotten() -> None:
    with running() as server:
        server.connect().close()
        with server.connect() as made:
            made.sendall(b"GET / HT")
        until(lambda: server.server.ended["half"] == 1 and not server.server._connections)


def test_the_connection_that_said_nothing_for_the_longest_makes_room() -> None:
    with running(connections_max=3) as server:
        idle = [server.connect() for _ in range(3)]
        until(lambda: len(server.server._idle) == 3)
        assert server.get("/healthz").status == 200
        assert idle[0].recv(1) == b""
        assert server.server.ended["evicted"] == 1
        idle[1].sendall(HEAD % (b"/healthz", b""))
        assert idle[1].recv(100).startswith(b"HTTP/1.1 200")


def test_connections_that_are_all_answered_leave_no_room() -> None:
    with running(connections_max=2) as server:
        for _ in range(2):
            server.connect().sendall(HEAD % (b"/events", b""))
        until(lambda: server.server.feed.listening == 2)
        assert server.get("/healthz").status == 503
        assert server.server.ended["full"] == 1


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Core:
    """A core of which one answer is larger than all buffers on the way, for clients who may take their time."""
    monkeypatch.setattr(servers, "SLICE_S", 300.0)
    monkeypatch.setattr(servers, "STALL_S", 300.0)
    monkeypatch.setattr(servers, "LOOK_S", 0.02)
    core = Core()
    core.metric_text = "# " + "x" * 20_000_000 + "\n"
    return core


def test_whoever_does_not_read_his_answer_loses_it(large: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(large) as server:
        deaf = server.connect()
        deaf.sendall(HEAD % (b"/metrics", b""))
        until(lambda: len(server.server._blocked) == 1)
        assert server.get("/healthz").status == 200
        held: list[int] = []

        def look() -> None:
            held.extend(writer.transport.get_write_buffer_size() for writer in server.server._connections.values())

        server.do(look)
        assert max(held) < 300_000, "the rest of it waits where all share it"
        monkeypatch.setattr(servers, "SLICE_S", 0.1)
        until(lambda: server.server.ended["slow"] == 1)
        with contextlib.suppress(ConnectionError):
            assert len(everything(deaf)) < 20_000_000


def test_whoever_reads_nothing_is_cut_long_before_the_time_of_a_slice_is_over(
    large: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "STALL_S", 0.2)
    with running(large) as server:
        server.connect().sendall(HEAD % (b"/metrics", b""))
        until(lambda: server.server.ended["slow"] == 1)
        until(lambda: not server.server._connections)
        assert not server.server._blocked


class Clock:
    """In the place of the module `time`: it goes on when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now


def test_whoever_reads_slowly_gets_all_of_it(large: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(servers, "time", clock)
    monkeypatch.setattr(servers, "LOOK_S", 0.001)
    monkeypatch.setattr(servers, "SLICE_S", 1e9)
    large.metric_text = "# " + "x" * 6_000_000 + "\n"
    with running(large) as server, server.connect() as made:
        # What the kernel keeps for him is little, so what he takes is seen.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        made.sendall(HEAD % (b"/metrics", b"Connection: close\r\n"))
        until(lambda: server.server._blocked)
        taken = 0
        while data := made.recv(131_072, socket.MSG_WAITALL):
            taken += len(data)
            seen = clock.looks
            until(lambda seen=seen: clock.looks > seen + 1 or not server.server._connections)  # type: ignore[misc]
            clock.now += servers.STALL_S / 3
        assert taken > 6_000_000
        assert not server.server.ended["slow"]


def test_who_has_read_nothing_for_longest_makes_room_when_nobody_is_idle(large: Core) -> None:
    with running(large, connections_max=3) as server:
        for _ in range(3):
            # More than is ever answered, as who wants to keep a place for good would send.
            server.connect().sendall(HEAD % (b"/metrics", b"") * 20)
        until(lambda: len(server.server._blocked) == 3)
        first = next(iter(server.server._blocked))
        assert server.get("/healthz").status == 200
        until(lambda: first not in server.server._connections)
        assert server.server.ended == {"evicted": 1}
        until(lambda: len(server.server._connections) == 2)


def test_a_large_answer_arrives_whole(large: Core) -> None:
    with running(large) as server:
        found = server.get("/metrics")
        assert len(found.body) == int(found.headers["content-length"]) > 20_000_000


def test_a_defect_is_told_and_the_server_goes_on() -> None:
    core = Core()
    core.says["explain"] = {"node": 5}
    with running(core) as server:
        assert server.get("/node/dc/r1/n1").status == 500
        ((level, what, fields),) = server.told
        assert (level, what, fields["path"]) == ("error", "web-defect", "/node/dc/r1/n1")
        assert server.get("/healthz").status == 200


def test_requests_are_spread_over_time_once_they_are_too_many() -> None:
    pace = Pace(rate=10, burst=5)
    assert [pace.wait(100.0) for _ in range(7)] == pytest.approx([0, 0, 0, 0, 0, 0.1, 0.2])
    assert pace.wait(100.2) == pytest.approx(0.1)
    assert [pace.wait(200.0) for _ in range(6)][-1] == pytest.approx(0.1)


def test_a_client_that_asks_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "RATE", 20)
    monkeypatch.setattr(servers, "BURST", 1)
    with running() as server:
        began = time.monotonic()
        for _ in range(4):
            assert server.get("/healthz").status == 200
        assert time.monotonic() - began >= 0.14


def test_its_own_counters_are_told_as_metrics() -> None:
    with running() as server:
        server.get("/nothing")
        text = server.get("/metrics").text
        assert text.endswith("\nhbagent_nodes 1\n")
        assert 'hbagent_web_requests_total{status="404"} 1\n' in text
        assert "hbagent_web_connections 1\n" in text
        assert server.get("/metrics", "Accept: application/openmetrics-text").text.endswith("\n# EOF\n")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "*:0"])
def test_an_address_is_listened_at(address: str) -> None:
    try:
        with listen(address) as made:
            assert made.getsockname()[1] > 0
            assert made.family == (socket.AF_INET6 if "::" in address else socket.AF_INET)
    except OSError:
        assert address.startswith("["), "a host may have no IPv6"


def test_where_everybody_is_served_any_name_is_taken_unless_some_are_written() -> None:
    core = Core()
    for hosts, expected in (((), 200), (("a.example",), 421)):
        with running(core, address="*:0", hosts=hosts) as server:
            assert status(server.say(b"GET / HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n")) == expected
