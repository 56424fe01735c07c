"""Posts to Alertmanager: whatever the other side does, the thread is back in time and says what came of it."""

from __future__ import annotations

import contextlib
import queue
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.core.effects import PostAlerts
from hbagent.core.messages import Posted
from hbagent.transport import poster
from hbagent.transport.poster import Poster, post

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#: A body that is too large for what the kernel holds between two sockets of this host.
LARGE = b"x" * 8_000_000
Serve = Callable[[socket.socket], None]


class Server:
    """Hands each connection to `serve`, in a thread of its own."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._connections: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connections.append(self.listener.accept()[0])
                threading.Thread(target=self._one, args=self._connections[-1:], daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        """Nobody waits here any more, neither for a connection nor on one."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def serve() -> Iterator[Callable[[Serve], str]]:
    """Starts servers, closed after the test; returns the address of each."""
    servers: list[Server] = []

    def start(how: Serve) -> str:
        servers.append(Server(how))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


def request_of(connection: socket.socket) -> bytes:
    """The head and body of a request. Raises OSError when the other side goes first."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(row.split(b":")[1]) for row in head.split(b"\r\n") if row.lower().startswith(b"content-length"))
    while len(body) < length:
        body += some(connection)
    return head + b"\r\n\r\n" + body


def some(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionResetError
    return data


def answers(answer: bytes) -> Serve:
    def how(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(answer)

    return how


def test_a_post_is_what_alertmanager_documents(serve: Callable[[Serve], str]) -> None:
    seen: queue.Queue[bytes] = queue.Queue()

    def how(connection: socket.socket) -> None:
        seen.put(request_of(connection))
        connection.sendall(OK)

    url = serve(how)
    assert post(url + "/prefix/", b"[]") == ""
    head, _, body = seen.get(timeout=30).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/api/v2/alerts HTTP/1.1\r\n") and body == b"[]"
    assert b"\r\nContent-Type: application/json" in head
    assert f"Host: {url.removeprefix('http://')}".encode() in head


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\ninvalid \x1b[31mlabel\n", "HTTP 400: invalid [31mlabel"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "HTTP 302: it points elsewhere"),
        (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "HTTP 503: busy"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2"),
        (b"", "Remote end closed connection without response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "got more than 65536 bytes when reading header line"),
    ],
    ids=["refused", "redirect", "busy", "no web server", "nothing", "endless header"],
)
def test_what_is_not_taken_is_told_in_a_line(serve: Callable[[Serve], str], answer: bytes, told: str) -> None:
    error = post(serve(answers(answer)), b"[]")
    assert error.startswith(told) and error.isprintable()


def test_of_an_endless_answer_little_is_read(serve: Callable[[Serve], str]) -> None:
    def how(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 500 Oh\r\n\r\n")
        while True:
            connection.sendall(LARGE)

    assert len(post(serve(how), b"[]")) == poster.TOLD_MAX


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "refused" in post(f"http://127.0.0.1:{bound.getsockname()[1]}", b"[]")


def never_answers(connection: socket.socket) -> None:
    request_of(connection)
    connection.recv(1)


def reads_nothing(connection: socket.socket) -> None:
    """Until the connection is broken off, or the test is over."""
    poller = select.poll()
    poller.register(connection, 0)
    poller.poll()


def drips(connection: socket.socket) -> None:
    """Always something, and never all of it: no single read takes long."""
    request_of(connection)
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 1000:
        connection.sendall(bytes([byte]))
        threading.Event().wait(0.02)


@pytest.mark.parametrize("how", [never_answers, reads_nothing, drips])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_whoever_takes_his_time_gets_no_more_than_there_is(
    serve: Callable[[Serve], str], how: Serve, scheme: str
) -> None:
    url = serve(how).replace("http", scheme)
    # None of them would ever come to an end.
    assert post(url, LARGE, time_s=0.2) == "no answer within 0.2 s"


@pytest.mark.needs("openssl")
def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = shutil.which("openssl")
    assert openssl
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=alerts", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def how(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            request_of(secure)
            secure.sendall(OK)

    server = Server(how)
    url = server.url.replace("http", "https")
    assert "CERTIFICATE_VERIFY_FAILED" in post(url, b"[]")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert post(url, b"[]") == ""
    assert "not valid for 'localhost'" in post(url.replace("127.0.0.1", "localhost"), b"[]")
    server.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. Raises AssertionError."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def effect(url: str, token: int) -> PostAlerts:
    return PostAlerts(sink="am", url=url, token=token, body=b"[]")


def test_each_post_is_answered_once_and_one_that_waits_gives_way_to_a_newer_one(serve: Callable[[Serve], str]) -> None:
    told: queue.Queue[Posted] = queue.Queue()
    go = threading.Event()

    def how(connection: socket.socket) -> None:
        request_of(connection)
        go.wait(30)
        connection.sendall(OK)

    url = serve(how)
    posting = Poster(told.put)
    posting.post(effect(url, 1))
    wait_until(lambda: posting._lines[url]._waiting is None)
    posting.post(effect(url, 2))
    posting.post(effect(url, 3))
    assert told.get(timeout=30) == Posted(sink="am", url=url, token=2, error="a newer one took its place")
    go.set()
    assert [told.get(timeout=30) for _ in range(2)] == [Posted(sink="am", url=url, token=token) for token in (1, 3)]
    posting.stop()


def test_an_address_that_hangs_holds_up_no_other(serve: Callable[[Serve], str]) -> None:
    told: queue.Queue[Posted] = queue.Queue()
    posting = Poster(told.put, time_s=30)
    hung, works = serve(never_answers), serve(answers(OK))
    posting.post(effect(hung, 1))
    posting.post(effect(works, 2))
    assert told.get(timeout=30) == Posted(sink="am", url=works, token=2)
    posting.stop()


def test_a_thread_without_work_ends_and_the_next_post_has_another(
    serve: Callable[[Serve], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poster, "REST_S", 0.01)
    told: queue.Queue[Posted] = queue.Queue()
    url = serve(answers(OK))
    posting = Poster(told.put)
    for token in (1, 2):
        posting.post(effect(url, token))
        assert told.get(timeout=30) == Posted(sink="am", url=url, token=token)
        wait_until(lambda: not posting._lines[url]._running)
