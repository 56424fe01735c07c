"""The shipped hooks do what their first lines say, run as the root runs them: JSON on stdin, a bare environment."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOOKS = Path(__file__).parents[2] / "etc" / "hooks.d"
EVENT: dict[str, Any] = {
    "schema": 1,
    "event_id": "e-17",
    "attempt": 1,
    "kind": "node-dead",
    "at": "2026-01-02T03:04:05.678Z",
    "node": "dc1/rack1/node1",
    "rack": "dc1/rack1",
    "liveness": {"from": "SUSPECT", "to": "DEAD"},
    "health": {"from": "OK", "to": "OK"},
    "cause": "silence",
    "host": "unknown",
    "evidence": {"last_sequence": 12},
}


def run(name: str, *arguments: str, event: dict[str, Any] = EVENT) -> subprocess.CompletedProcess[bytes]:
    # The interpreter is named, as the host's own python3 may be older than any that hbagent knows.
    command = [sys.executable, str(HOOKS / name), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    return subprocess.run(
        command, input=json.dumps(event).encode(), env=environment, cwd="/", capture_output=True, timeout=30
    )


# ---- log-to-syslog ---------------------------------------------------------------------------------------


def log_to_syslog() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("log_to_syslog", str(HOOKS / "log-to-syslog"))
    spec = importlib.util.spec_from_loader("log_to_syslog", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def line() -> Any:
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        return log_to_syslog().line
    finally:
        sys.dont_write_bytecode = before


def test_a_logged_line_says_what_happened_to_whom_and_why(line: Any) -> None:
    assert line(EVENT) == (
        "node-dead dc1/rack1/node1 liveness SUSPECT -> DEAD "
        "cause=silence host=unknown at=2026-01-02T03:04:05.678Z event_id=e-17"
    )


def test_a_logged_line_of_a_rack_names_the_rack(line: Any) -> None:
    assert line({"kind": "rack-dark", "rack": "dc1/rack1", "node": None}) == "rack-dark dc1/rack1"


def test_a_logged_line_is_one_short_printable_line(line: Any) -> None:
    made = line({**EVENT, "cause": "a\nb\x1b[31m" + "c" * 5000})
    assert made.isprintable()
    assert len(made) == 1000


def test_logging_ends_well_even_where_no_log_daemon_runs() -> None:
    done = run("log-to-syslog")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# ---- webhook ---------------------------------------------------------------------------------------------


@contextmanager
def service(status: int, location: str = "") -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A web service on loopback that answers everything with `status`; yields its URL and what it got."""
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            got.append((f"{self.command} {self.path}", dict(self.headers.items()), body))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_event_is_posted_as_it_came_with_its_id_and_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with service(204) as (url, got):
        done = run("webhook", "--token-file", str(tmp_path / "token"), f"{url}/in")
    assert (done.returncode, done.stderr) == (0, b"")
    ((request, headers, body),) = got
    assert (request, json.loads(body)) == ("POST /in", EVENT)
    assert headers["Idempotency-Key"] == "e-17"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_refused_event_is_left_to_be_tried_again(status: int) -> None:
    with service(status) as (url, _):
        done = run("webhook", url)
    assert done.returncode == 1
    assert str(status).encode() in done.stderr


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with service(200) as (elsewhere, stolen), service(status, location=elsewhere) as (url, got):
        done = run("webhook", "--token-file", str(tmp_path / "token"), url)
    assert (done.returncode, len(got), stolen) == (1, 1, [])


def test_a_service_that_is_away_is_told() -> None:
    with service(200) as (url, _):
        pass
    done = run("webhook", url)
    assert done.returncode == 1
    assert b"refused" in done.stderr


def test_a_url_that_would_read_a_file_is_refused() -> None:
    done = run("webhook", "file:///etc/passwd")
    assert done.returncode == 2
    assert b"https://" in done.stderr
