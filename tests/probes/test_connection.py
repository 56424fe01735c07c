"""Connections to real sockets: refused, taken, answered, and taken by a kernel whose program is stuck."""

from __future__ import annotations

import functools
import os
import socket
import struct
from pathlib import Path

import pytest

from hbagent.core.checks import TcpCheck, UnixCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes.check import run
from hbagent.probes.connection import ANSWER_MAX, listen
from hbagent.probes.outcome import Deadline
from tests.patience import patiently

from .serving import nothing, saying, server

LONG_NS = 20 * SECOND


def tcp(
    port: int, send: str = "", expect: str = "", timeout_ns: int = LONG_NS, host: str = "127.0.0.1"
) -> CheckFinished:
    return run(TcpCheck(host=host, port=port, send=send, expect=expect), timeout_ns)


def test_a_taken_connection_is_enough_when_nothing_is_expected() -> None:
    with server(nothing) as port:
        result = tcp(port)
    assert result.health is Health.OK
    assert [measure.label for measure in result.measures] == ["connect"]


def test_a_refused_connection_is_critical() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        result = tcp(bound.getsockname()[1])
    assert result.health is Health.CRITICAL
    assert "Connection refused" in result.text


def test_a_name_is_resolved_and_each_of_its_addresses_tried() -> None:
    # localhost may be ::1 first, where nobody listens.
    with server(nothing) as port:
        assert tcp(port, host="localhost").health is Health.OK


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 70 + ".invalid", "a..b"])
def test_a_name_without_an_address_says_nothing_about_the_service(name: str) -> None:
    result = tcp(80, host=name)
    assert result.health is Health.UNKNOWN
    assert "cannot resolve" in result.text


def test_an_answer_is_told_and_timed() -> None:
    with server(saying(b"+PONG\r\n")) as port:
        result = tcp(port, "PING\r\n", "+PONG")
    assert result.health is Health.OK
    assert result.text.endswith("ms: +PONG")
    assert {measure.label: measure.unit for measure in result.measures} == {"connect": "s", "time": "s"}


def test_an_expected_text_in_two_pieces_is_found() -> None:
    # Each piece of such a socket is read by itself.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for piece in (b"220 ", b"rea", b"dy", b" to serve", b"never read"):
            theirs.send(piece)
        heard = listen(ours, b"ready to", Deadline(LONG_NS), "x")
    assert heard == (b"220 ready to serve", False)


def test_another_answer_is_critical_and_shown_clean() -> None:
    with server(saying(b"-LOADING\x1b[31m dataset\r\n")) as port:
        result = tcp(port, "PING\r\n", "+PONG")
    assert result.health is Health.CRITICAL
    assert "said '-LOADING [31m dataset' and closed; expected '+PONG'" in result.text


def test_a_program_that_does_not_answer_is_told_from_one_that_stops_in_the_middle() -> None:
    told = []
    for handle, words in (
        (nothing, "the kernel took the connection, and the program did not answer"),
        (saying(b"+PO", nothing), "said only '+PO'"),
    ):
        with server(handle) as port:
            ask = functools.partial(tcp, port, "PING\r\n", "+PONG")
            result = patiently(ask, lambda result, words=words: words in result.text, SECOND // 5)  # type: ignore[misc]
        told.append((result.timed_out, words in result.text))
    assert told == [(True, True)] * 2


def test_a_flood_is_read_to_its_limit_only() -> None:
    def flood(link: socket.socket) -> None:
        while True:
            link.sendall(b"x" * 4096)

    with server(flood) as port:
        result = tcp(port, expect="never")
    assert result.health is Health.CRITICAL
    assert f"in its first {ANSWER_MAX // 1024} KiB" in result.text
    assert len(result.text) <= 300


def test_a_drop_at_a_time_ends_at_the_time_limit() -> None:
    def drip(link: socket.socket) -> None:
        link.settimeout(0.02)
        while True:
            link.sendall(b".")
            try:
                link.recv(1)
                return
            except TimeoutError:
                pass

    with server(drip) as port:
        result = tcp(port, expect="never", timeout_ns=SECOND // 3)
    # Without it there would be no end.
    assert result.timed_out


def test_a_connection_broken_off_is_critical() -> None:
    def reset(link: socket.socket) -> None:
        link.recv(1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(reset) as port:
        result = tcp(port, "PING\r\n", "+PONG")
    assert result.health is Health.CRITICAL
    assert "broke the connection off" in result.text


def test_a_listener_that_is_stuck_still_connects_until_its_queue_is_full(socket_dir: Path) -> None:
    path = str(socket_dir / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        check = UnixCheck(path=path)
        assert run(check, LONG_NS).health is Health.OK
        # The closed connection stays in the queue until somebody accepts it.
        result = patiently(functools.partial(run, check), lambda result: "its queue" in result.text, SECOND // 5)
    assert result.timed_out
    assert "its queue stayed full" in result.text


def test_a_unix_socket_answers(socket_dir: Path) -> None:
    path = str(socket_dir / "s")
    with server(saying(b"pong"), socket.AF_UNIX, path):
        result = run(UnixCheck(path=path, send="ping", expect="pong"), LONG_NS)
    assert result.health is Health.OK
    assert run(UnixCheck(path=path), LONG_NS).health is Health.CRITICAL


def test_an_abstract_name_begins_with_an_at() -> None:
    name = f"hbagent-test-abstract-{os.getpid()}"
    with server(nothing, socket.AF_UNIX, f"\0{name}"):
        assert run(UnixCheck(path=f"@{name}"), LONG_NS).health is Health.OK


@pytest.mark.parametrize("path", ["/nonexistent/s", "/dev/null"])
def test_no_socket_is_critical(path: str) -> None:
    assert run(UnixCheck(path=path), LONG_NS).health is Health.CRITICAL


def test_a_path_that_no_socket_can_have_is_unknown() -> None:
    result = run(UnixCheck(path="/" + "x" * 200), LONG_NS)
    assert result.health is not Health.OK
