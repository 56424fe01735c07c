"""HTTP and HTTPS against real sockets, with servers that behave and servers that do not."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

import pytest

from hbagent.core.checks import HttpCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes.check import run
from tests.patience import patiently

from .serving import Handler, http, make_certificate, nothing, saying, securely, server

LONG_NS = 20 * SECOND


def get(handle: Handler, timeout_ns: int = LONG_NS, path: str = "/", **fields: object) -> CheckFinished:
    with server(handle) as port:
        return run(HttpCheck(url=f"http://127.0.0.1:{port}{path}", **fields), timeout_ns)  # type: ignore[arg-type]


def test_an_answer_is_ok_with_its_times_and_size() -> None:
    result = get(http(b"hello"))
    assert result.health is Health.OK
    assert result.text.startswith("200 OK in ")
    assert {measure.label for measure in result.measures} == {"connect", "first_byte", "time", "size"}
    assert {measure.label: measure.value for measure in result.measures}["size"] == 5


def test_a_request_carries_what_was_configured() -> None:
    asked: list[bytes] = []

    def note(link: socket.socket) -> None:
        asked.append(link.recv(4096))
        link.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    result = get(note, path="/a?b=c", method="HEAD", headers={"X-Token": "t", "Host": "other"})
    assert result.health is Health.OK
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == "HEAD /a?b=c HTTP/1.1"
    assert {"X-Token: t", "Host: other", "Connection: close", "User-Agent: hbagent"} <= set(lines)


@pytest.mark.parametrize(
    ("status", "wanted", "health"),
    [
        ("404 Not Found", (), Health.CRITICAL),
        ("503 Busy", (), Health.CRITICAL),
        ("503 Busy", (503,), Health.OK),
        ("200 OK", (204,), Health.CRITICAL),
        ("302 Found", (), Health.OK),
    ],
)
def test_which_status_is_good_is_configured(status: str, wanted: tuple[int, ...], health: Health) -> None:
    assert get(http(b"", status), status=wanted).health is health


def test_a_redirect_is_told_and_not_followed() -> None:
    result = get(http(b"", "301 Moved Permanently", "Location: http://127.0.0.1:1/"))
    assert result.health is Health.OK
    assert result.text.endswith(", to http://127.0.0.1:1/")


def test_an_expected_text_must_be_in_the_body() -> None:
    assert get(http(b'{"status":"ok"}'), expect='"status":"ok"').health is Health.OK
    missing = get(http(b'{"status":"bad"}'), expect='"status":"ok"')
    assert missing.health is Health.CRITICAL
    assert 'without \'"status":"ok"\'' in missing.text


def test_text_beyond_the_first_64_kib_is_not_looked_for() -> None:
    assert get(http(b"x" * 65_000 + b"end"), expect="end").health is Health.OK
    assert get(http(b"x" * 70_000 + b"end"), expect="end").health is Health.CRITICAL


def test_a_stream_without_end_is_not_waited_for() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert get(saying(head, nothing), LONG_NS).health is Health.OK
    assert get(saying(head + b"5\r\nhello\r\n", nothing), LONG_NS, expect="hello").health is Health.OK


def test_a_server_that_hangs_says_where() -> None:
    half = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", nothing)
    for handle, words in (
        (nothing, "took the connection and did not answer"),
        (half, "stopped in the middle of its answer"),
    ):
        ask = functools.partial(get, handle)
        result = patiently(ask, lambda result, words=words: words in result.text, SECOND // 5)  # type: ignore[misc]
        assert result.timed_out and words in result.text


def test_a_body_that_ends_early_is_critical() -> None:
    result = get(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"))
    assert result.health is Health.CRITICAL
    assert "95 bytes of its body are missing" in result.text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "speaks no HTTP"),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "speaks no HTTP"),
    ],
)
def test_what_is_no_http_is_critical(answer: bytes, words: str) -> None:
    result = get(saying(answer), expect="hello")
    assert result.health is Health.CRITICAL
    assert words in result.text


def test_a_refused_connection_is_critical_and_an_unknown_name_unknown() -> None:
    assert run(HttpCheck(url="http://127.0.0.1:1/"), LONG_NS).health is Health.CRITICAL
    assert run(HttpCheck(url="http://no-such-host.invalid/"), LONG_NS).health is Health.UNKNOWN
    assert run(HttpCheck(url="ftp://127.0.0.1/"), LONG_NS).health is Health.UNKNOWN


def test_a_header_that_cannot_be_sent_is_our_own_trouble() -> None:
    assert get(http(b""), headers={"X": "a\r\nb"}).health is Health.UNKNOWN
    assert get(http(b""), path="/a b").health is Health.UNKNOWN


@pytest.mark.needs("openssl")
def test_a_certificate_is_verified(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with server(securely(http(b"hello"), certificate, key)) as port:
        url = f"https://localhost:{port}/"
        trusted = run(HttpCheck(url=url, ca=str(certificate), certificate_days=14), LONG_NS)
        stranger = run(HttpCheck(url=url), LONG_NS)
        other = run(HttpCheck(url=f"https://127.0.0.1:{port}/", ca=str(certificate)), LONG_NS)
        unverified = run(HttpCheck(url=url, verify=False), LONG_NS)
        late = run(HttpCheck(url=url, verify=False, certificate_days=45), LONG_NS)
        no_file = run(HttpCheck(url=url, ca=str(tmp_path / "none")), LONG_NS)
    assert trusted.health is Health.OK
    measures = {measure.label: measure.value for measure in trusted.measures}
    assert measures["certificate"] == pytest.approx(30, abs=0.1)
    assert "tls" in measures
    assert stranger.health is Health.CRITICAL and "certificate: self" in stranger.text
    assert other.health is Health.CRITICAL and "IP address mismatch" in other.text
    assert unverified.health is Health.OK
    assert late.health is Health.WARNING and "the certificate ends in 30 days" in late.text
    assert no_file.health is Health.UNKNOWN


@pytest.mark.needs("openssl")
def test_certificates_that_are_replaced_are_read_again(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    other, _ = make_certificate(tmp_path, 60)
    trusted = tmp_path / "ca.pem"
    with server(securely(http(b"hello"), certificate, key)) as port:
        check = HttpCheck(url=f"https://localhost:{port}/", ca=str(trusted))
        trusted.write_bytes(other.read_bytes())
        assert run(check, LONG_NS).health is Health.CRITICAL
        trusted.write_bytes(certificate.read_bytes())
        assert run(check, LONG_NS).health is Health.OK


@pytest.mark.needs("openssl")
def test_a_plain_server_speaks_no_tls_and_one_that_says_nothing_runs_out_of_time() -> None:
    with server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        plain = run(HttpCheck(url=f"https://127.0.0.1:{port}/", verify=False), LONG_NS)
    with server(nothing) as port:
        silent = run(HttpCheck(url=f"https://127.0.0.1:{port}/", verify=False), SECOND // 5)
    assert plain.health is Health.CRITICAL and "TLS: " in plain.text
    assert silent.timed_out
