"""The proxy's snippet before the page of a real root: what comes through, what does not, and to whom."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hbagent.demo.datacenter import Datacenter, Plan, free_ports, wait_until

SNIPPET = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NAME = "status.example.org"
#: What a browser sends for somebody who knows the password.
ALICE = "Basic " + base64.b64encode(b"alice:open sesame").decode()

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.needs("nginx", "openssl"), pytest.mark.timeout(120)]


class Site(NamedTuple):
    """A proxy that runs, and the datacenter behind it."""

    port: int
    certificate: Path
    datacenter: Datacenter

    def connect(self) -> http.client.HTTPSConnection:
        """A connection that trusts this certificate alone. Its socket is made here, for the name is no host's."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(NAME, self.port, timeout=10, context=context)
        connection._create_connection = lambda *_, **__: _dial(self.port)  # type: ignore[attr-defined]
        return connection

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of one answer."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def _dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def written(directory: Path, port: int, upstream: str) -> Path:
    """The snippet below a main file as Debian's, with the places of a test."""
    certificate, key = directory / "hbagent.crt", directory / "hbagent.key"
    run(*("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"),
        *("-addext", f"subjectAltName=DNS:{NAME}", "-out", certificate, "-keyout", key))  # fmt: skip
    hashed = run("openssl", "passwd", "-6", "open sesame").strip()
    (directory / "hbagent.passwd").write_text(f"alice:{hashed}\n")
    text = SNIPPET.read_text("utf-8")
    assert text.count("127.0.0.1:8780") == 2 and text.count("/etc/nginx/hbagent.") == 4
    text = text.replace("127.0.0.1:8780", upstream).replace("/etc/nginx/hbagent.", f"{directory}/hbagent.")
    text = re.sub(r"listen (\[::\]:)?443", lambda found: f"listen {found.group(1) or ''}{port}", text)
    (directory / "snippet.conf").write_text(text)
    lines = [
        "daemon off;",
        # Its workers must read files below a directory of this user.
        f"user {'root' if os.geteuid() == 0 else 'nobody'};",
        "worker_processes 1;",
        f"pid {directory}/nginx.pid;",
        f"error_log {directory}/error.log;",
        "events { worker_connections 256; }",
        "http {",
        "    default_type application/octet-stream;",
        "    gzip on;",
        *(f"    {kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
        f"    access_log {directory}/access.log;",
        f"    include {directory}/snippet.conf;",
        "}",
    ]
    file = directory / "nginx.conf"
    file.write_text("\n".join([*lines, ""]))
    return file


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        datacenter = stack.enter_context(Datacenter(tmp_path_factory.mktemp("dc"), Plan(racks=1, nodes=1, page=True)))
        datacenter.write()
        datacenter.start()
        directory = tmp_path_factory.mktemp("nginx")
        (port,) = free_ports(1)
        file = written(directory, port, datacenter.page.removeprefix("http://").rstrip("/"))
        assert "syntax is ok" in run("nginx", "-t", "-c", file, "-e", directory / "error.log")
        proxy = subprocess.Popen(["nginx", "-c", file, "-e", directory / "error.log"])
        stack.callback(proxy.wait, 20)
        stack.callback(proxy.send_signal, signal.SIGTERM)
        made = Site(port, directory / "hbagent.crt", datacenter)
        assert wait_until(lambda: answers(made), 30), (directory / "error.log").read_text()
        yield made


def answers(site: Site) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return site.ask("GET", "/readyz", Authorization=ALICE)[0] == 200
    return False


def test_the_page_comes_through_for_who_has_the_password(site: Site) -> None:
    status, headers, content = site.ask("GET", "/", Authorization=ALICE)
    assert status == 200
    assert b"demo/rack1/node1" in content
    # The root's own headers stay, and one is added.
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["strict-transport-security"].startswith("max-age=")
    assert site.ask("GET", "/api/v1/status", Authorization=ALICE)[0] == 200


@pytest.mark.parametrize("path", ["/", "/events", "/api/v1/status", "/healthz"])
def test_nobody_else_sees_anything(site: Site, path: str) -> None:
    assert site.ask("GET", path)[0] == 401
    wrong = "Basic " + base64.b64encode(b"alice:sesame").decode()
    assert site.ask("GET", path, Authorization=wrong)[0] == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/events", "/api/v1/status"])
def test_who_does_not_just_read_is_refused(site: Site, method: str, path: str) -> None:
    assert site.ask(method, path, Authorization=ALICE)[0] == 403


def test_reading_the_head_alone_is_reading(site: Site) -> None:
    status, _, content = site.ask("HEAD", "/", Authorization=ALICE)
    assert (status, content) == (200, b"")


def test_metrics_stay_inside(site: Site) -> None:
    assert site.ask("GET", "/metrics", Authorization=ALICE)[0] == 403


def test_news_come_as_they_happen(site: Site) -> None:
    with contextlib.closing(site.connect()) as connection:
        headers = {"Authorization": ALICE, "Accept": "text/event-stream", "Accept-Encoding": "gzip"}
        connection.request("GET", "/events", headers=headers)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type", "").startswith("text/event-stream")
        assert answer.getheader("Content-Encoding") is None
        assert event(answer)[0] == "all"
        killed = time.monotonic()
        site.datacenter.kill("rack1-node1")
        # The root needs two seconds at most; a buffer would hold it until more of it came, which takes longer.
        while b"DEAD" not in event(answer)[1]:
            assert time.monotonic() - killed < 15


def event(answer: http.client.HTTPResponse) -> tuple[str, bytes]:
    """Name and content of the next one."""
    name, data = "", b""
    for line in iter(answer.readline, b"\n"):
        assert line, "the feed ended"
        if line.startswith(b"event: "):
            name = line[7:].decode().strip()
        elif line.startswith(b"data: "):
            data += line[6:]
    return (name, data) if name else event(answer)


def test_plain_http_and_old_protocols_are_not_spoken(site: Site) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    with contextlib.closing(plain):
        plain.request("GET", "/", headers={"Authorization": ALICE})
        assert plain.getresponse().status == 400
    old = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-tls1_1"],
        capture_output=True,
        input=b"",
        timeout=20,
        check=False,
    )
    assert old.returncode != 0
