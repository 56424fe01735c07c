"""What is a request, and everything that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.web.request import HEADERS_MAX, LINE_SIZE_MAX, Refused, Request, host_of, read_head


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *(headers or ("Host: localhost",))]).encode("latin-1")


def refusal(raw: bytes) -> int:
    with pytest.raises(Refused) as refused:
        read_head(raw)
    return refused.value.status


def test_a_plain_request_is_read() -> None:
    raw = head("GET /node/dc/r%201?after=3&node= HTTP/1.1", "Host: LocalHost:8780", "Accept:  text/html  ")
    assert read_head(raw) == Request(
        method="GET",
        path="/node/dc/r 1",
        parameters={"after": "3", "node": ""},
        headers={"host": "LocalHost:8780", "accept": "text/html"},
    )
    assert read_head(raw).host == "localhost"


@pytest.mark.parametrize(
    ("line", "said", "stays"),
    [("1.1", "x", True), ("1.1", "Close", False), ("1.0", "x", False), ("1.0", "keep-alive", True)],
)
def test_a_connection_stays_as_the_version_and_the_client_say(line: str, said: str, stays: bool) -> None:
    assert read_head(head(f"GET / HTTP/{line}", "Host: a", f"Connection: {said}")).keep_alive is stays


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "CONNECT", "X-ANY"])
def test_whoever_wants_more_than_to_read_is_refused(method: str) -> None:
    assert refusal(head(f"{method} / HTTP/1.1")) == 405


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET /",
        b"GET / HTTP/2.0\r\nHost: a",
        b"GET  / HTTP/1.1\r\nHost: a",
        b"GET / HTTP/1.1 \r\nHost: a",
        b"GET /\x00 HTTP/1.1\r\nHost: a",
        b"GET /a b HTTP/1.1\r\nHost: a",
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a",
        b"GET /%ff HTTP/1.1\r\nHost: a",
        b"GET /%00 HTTP/1.1\r\nHost: a",
        b"GET /%0d%0aX: 1 HTTP/1.1\r\nHost: a",
        b"GET http://other/ HTTP/1.1\r\nHost: a",
        b"GET * HTTP/1.1\r\nHost: a",
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\nHost:",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"GET / HTTP/1.1\r\nHost: a\nX: 1",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded",
        b"GET / HTTP/1.1\r\nHost : a",
        b"GET / HTTP/1.1\r\nHost: a\x01",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        b"GET /?" + b"&".join(b"a%d=1" % at for at in range(11)) + b" HTTP/1.1\r\nHost: a",
        b"GET /?a=%ff HTTP/1.1\r\nHost: a",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    assert refusal(raw) == 400


def test_a_request_without_a_body_may_say_so() -> None:
    assert read_head(head("GET / HTTP/1.1", "Host: a", "Content-Length: 0")).path == "/"


def test_a_long_address_and_many_headers_are_refused() -> None:
    assert refusal(head(f"GET /{'x' * LINE_SIZE_MAX} HTTP/1.1")) == 414
    assert refusal(head("GET / HTTP/1.1", *["X: 1"] * (HEADERS_MAX + 1))) == 431


@pytest.mark.parametrize(
    ("value", "host"),
    [("a.b:80", "a.b"), ("A", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("127.0.0.1:1", "127.0.0.1"), ("", "")],
)
def test_the_host_is_named_without_its_port(value: str, host: str) -> None:
    assert host_of(value) == host


@pytest.mark.parametrize(
    "value",
    [
        "localhost:1@evil",
        "localhost@evil",
        "localhost:80:80",
        "localhost:x",
        "localhost:123456",
        "localhost/evil",
        "localhost, evil",
        "localhost evil",
        "evil\\localhost",
        "[::1]evil",
        "[::1]:1@evil",
        "[::1",
        "::1",
        "[localhost]",
        "[]",
        ":80",
        "l\xf6calhost",
    ],
)
def test_a_host_that_is_none_is_refused_as_a_whole(value: str) -> None:
    assert host_of(value) == ""
    assert refusal(b"GET / HTTP/1.1\r\nHost: " + value.encode("latin-1")) == 400
    assert refusal(b"GET / HTTP/1.0\r\nHost: " + value.encode("latin-1")) == 400


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(raw: bytes) -> None:
    for tried in (raw, b"GET /" + raw + b" HTTP/1.1\r\nHost: a", b"GET / HTTP/1.1\r\nHost: a\r\n" + raw):
        try:
            read = read_head(tried)
        except Refused as refused:
            assert refused.status in (400, 405, 414, 431)
        else:
            assert read.path.startswith("/")
            assert read.path.isprintable()
