"""The shipped hooks do what their first lines say, run as the root runs them: JSON on stdin, a bare environment."""

from __future__ import annotations

import ast
import email.message
import email.policy
import importlib.machinery
import importlib.util
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hbagent.core.wallclock import rfc3339
from hbagent.hooks.runner import check
from tests.ports import bound, port_of

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


#: What a fence acts on.
GONE: dict[str, Any] = {
    **EVENT,
    "cause": "host-gone",
    "host": "down",
    "drill": False,
    "test": False,
    "observers": [
        {"leader": f"dc1/rack1-leader{number}", "liveness": "DEAD", "cause": "host-gone"} for number in (1, 2)
    ],
}
NAMES = ("alertmanager", "chat", "fence", "heartbeat", "log-to-syslog", "mail", "webhook")
#: As a hook runner sets it: no interpreter is on the path.
ENVIRONMENT = {"PATH": "/nowhere", "LANG": "C.UTF-8", "HBAGENT_PYTHON": sys.executable}
HOSTILE = "\x1b[31m<!channel> @all\r\nBcc: victim@example.com\r\n\r\n.\r\n" + "x" * 10_000 + "\ud83d"


def run(name: str, *arguments: str, event: dict[str, Any] = EVENT) -> subprocess.CompletedProcess[bytes]:
    command = [str(HOOKS / name), *arguments]
    return subprocess.run(
        command, input=json.dumps(event).encode(), env=ENVIRONMENT, cwd="/", capture_output=True, timeout=30
    )


def loaded(name: str) -> ModuleType:
    """A hook as a module, for what is told better without a process."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(HOOKS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def now() -> str:
    return rfc3339(time.time_ns())


def secret(directory: Path, text: str) -> str:
    """A file with one line that no argument may hold."""
    path = directory / "secret"
    path.write_text(f"{text}\n")
    return str(path)


# ---- all of them -----------------------------------------------------------------------------------------


def test_every_hook_is_tried_here() -> None:
    assert sorted(path.name for path in HOOKS.iterdir()) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_may_be_run_and_says_what_it_takes_without_an_interpreter_on_the_path(name: str) -> None:
    assert check([str(HOOKS / name)]) == ""
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert name.encode() in done.stdout and done.stdout.count(b"\n") > 5


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_needs_nothing_but_the_standard_library(name: str) -> None:
    wanted = set()
    for node in ast.walk(ast.parse((HOOKS / name).read_text())):
        if isinstance(node, ast.Import):
            wanted |= {alias.name.partition(".")[0] for alias in node.names}
        assert not isinstance(node, ast.ImportFrom)
    assert wanted <= sys.stdlib_module_names


@pytest.mark.parametrize("name", NAMES)
def test_where_there_is_no_interpreter_at_all_a_hook_fails_and_says_so(name: str) -> None:
    done = subprocess.run([str(HOOKS / name)], env={"PATH": "/nowhere"}, input=b"{}", capture_output=True, timeout=30)
    assert done.returncode == 127
    assert b"python3" in done.stderr


# ---- log-to-syslog ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line() -> Any:
    return loaded("log-to-syslog").line


def test_a_logged_line_says_what_happened_to_whom_and_why(line: Any) -> None:
    assert line(EVENT) == (
        "node-dead dc1/rack1/node1 liveness SUSPECT -> DEAD "
        "cause=silence host=unknown at=2026-01-02T03:04:05.678Z event_id=e-17"
    )


def test_a_logged_line_of_a_rack_names_the_rack(line: Any) -> None:
    assert line({"kind": "rack-dark", "rack": "dc1/rack1", "node": None}) == "rack-dark dc1/rack1"
    assert line({**EVENT, "test": True}).startswith("test node-dead dc1/rack1/node1 ")


def test_a_logged_line_of_a_summary_says_what_it_stands_for(line: Any) -> None:
    summary = {"kind": "summary", "rack": "dc1/rack1", "evidence": {"text": "40 of rack dc1/rack1: DEAD"}}
    assert line(summary) == "summary dc1/rack1 40 of rack dc1/rack1: DEAD"


def test_a_logged_line_is_one_short_printable_line(line: Any) -> None:
    made = line({**EVENT, "cause": "a\nb\x1b[31m" + "c" * 5000})
    assert made.isprintable()
    assert len(made) == 1000


def test_logging_ends_well_even_where_no_log_daemon_runs() -> None:
    done = run("log-to-syslog", "--tag", "hbagent-test")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.root
@pytest.mark.needs("unshare")
def test_the_log_daemon_gets_a_line_of_the_right_priority(tmp_path: Path) -> None:
    # A /dev of its own, with a log daemon that writes what it gets.
    script = """
import os, socket, subprocess, sys
daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
daemon.bind("/dev/log")
for event in sys.argv[2:]:
    subprocess.run([sys.argv[1]], input=event.encode(), env={"HBAGENT_PYTHON": sys.executable}, check=True)
    print(daemon.recv(4096).decode())
"""
    inner = 'mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && exec "$@"'
    events = [json.dumps(EVENT), json.dumps({**EVENT, "kind": "node-recovered"})]
    command = ["unshare", "-m", "/bin/sh", "-c", inner, "sh", sys.executable, "-c", script]
    done = subprocess.run([*command, str(HOOKS / "log-to-syslog"), *events], capture_output=True, timeout=30, text=True)
    assert done.returncode == 0, done.stderr
    trouble, end = done.stdout.splitlines()
    # Facility daemon (3) with err (3) and notice (5).
    assert trouble.startswith("<27>") and "hbagent: node-dead dc1/rack1/node1" in trouble
    assert end.startswith("<29>") and "node-recovered" in end


# ---- webhook ---------------------------------------------------------------------------------------------


def drip(file: Any) -> None:
    """A byte now and then, for as long as somebody reads: no single read ever takes long."""
    pause = threading.Event()
    try:
        while True:
            file.write(b"H")
            file.flush()
            pause.wait(0.05)
    except OSError:
        pass


@contextmanager
def service(status: int, location: str = "") -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A web service on loopback that answers everything with `status`, or for 0 never comes to an end of its answer;
    yields its URL and what it got."""
    got: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            got.append((f"{self.command} {self.path}", dict(self.headers.items()), body))
            if not status:
                drip(self.wfile)
                return
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
    with bound() as nobody:
        done = run("webhook", f"http://127.0.0.1:{port_of(nobody)}")
    assert done.returncode == 1
    assert b"refused" in done.stderr


def test_a_url_that_would_read_a_file_is_refused() -> None:
    done = run("webhook", "file:///etc/passwd")
    assert done.returncode == 2
    assert b"https://" in done.stderr


def test_a_url_that_is_a_secret_stands_in_a_file_and_in_no_error(tmp_path: Path) -> None:
    with service(500) as (url, got):
        done = run("webhook", "--url-file", secret(tmp_path, f"{url}/token-17"))
    assert (done.returncode, got[0][0]) == (1, "POST /token-17")
    assert b"token-17" not in done.stderr


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize("name", ["webhook", "heartbeat", "chat", "alertmanager"])
def test_an_answer_that_drips_without_end_is_given_up_in_time(name: str, tmp_path: Path) -> None:
    event = {**EVENT, "kind": "watchdog"} if name == "heartbeat" else {**EVENT, "at": now()}
    with service(0) as (url, got):
        where = ("--url-file", secret(tmp_path, url)) if name == "chat" else (url,)
        # Long enough to begin, on a busy machine; by itself the answer never ends.
        done = run(name, "--timeout", "1.5", *where, event=event)
        assert (done.returncode, len(got)) == (1, 1)
    assert b"out of time" in done.stderr


# ---- heartbeat -------------------------------------------------------------------------------------------


def test_a_service_outside_hears_of_each_watchdog_and_of_nothing_else(tmp_path: Path) -> None:
    watchdog = {**EVENT, "kind": "watchdog", "node": None}
    with service(200) as (url, got):
        file = secret(tmp_path, f"{url}/ping")
        assert run("heartbeat", "--url-file", file, event=watchdog).returncode == 0
        assert run("heartbeat", "--url-file", file, "--post", event=watchdog).returncode == 0
        assert run("heartbeat", "--url-file", file).returncode == 0
    (first, _, nothing), (second, _, body) = got
    assert (first, second) == ("GET /ping", "POST /ping")
    assert nothing == b"" and json.loads(body) == watchdog


def test_a_service_outside_that_refuses_is_told() -> None:
    with service(404) as (url, _):
        done = run("heartbeat", url, event={**EVENT, "kind": "watchdog"})
    assert done.returncode == 1 and b"404" in done.stderr


# ---- chat ------------------------------------------------------------------------------------------------


def posted(tmp_path: Path, event: dict[str, Any], *arguments: str) -> dict[str, Any]:
    with service(200) as (url, got):
        done = run("chat", "--url-file", secret(tmp_path, url), *arguments, event=event)
    assert (done.returncode, done.stderr) == (0, b"")
    document: dict[str, Any] = json.loads(got[0][2])
    return document


def test_a_message_says_who_is_how_and_why(tmp_path: Path) -> None:
    document = posted(tmp_path, {**EVENT, "evidence": {"text": "no beat for 2.5s"}}, "--channel", "#ops")
    assert document["text"].splitlines() == [
        "node-dead dc1/rack1/node1 is DEAD (silence, host unknown)",
        "no beat for 2.5s",
        "2026-01-02T03:04:05.678Z e-17",
    ]
    assert (document["channel"], document["mrkdwn"]) == ("#ops", False)


def test_a_message_of_a_test_or_a_summary_says_so(tmp_path: Path) -> None:
    assert posted(tmp_path, {**EVENT, "test": True})["text"].startswith("TEST node-dead ")
    summary = {**EVENT, "kind": "summary", "node": None, "cause": None, "evidence": {"text": "40 of rack dc1/rack1"}}
    assert posted(tmp_path, summary)["text"].splitlines()[:2] == ["summary", "40 of rack dc1/rack1"]


def test_a_message_calls_nobody_and_links_nowhere(tmp_path: Path) -> None:
    text = posted(tmp_path, {**EVENT, "node": HOSTILE, "evidence": {"text": HOSTILE}})["text"]
    assert "<!" not in text and "@all" not in text and "\x1b" not in text
    assert "&lt;!channel&gt;" in text
    assert len(text.splitlines()) == 3
    assert len(text) < 6000


def test_a_chat_that_refuses_is_tried_again_and_its_url_is_in_no_error(tmp_path: Path) -> None:
    with service(429) as (url, _):
        done = run("chat", "--url-file", secret(tmp_path, f"{url}/T0/B0/key"))
    assert done.returncode == 1
    assert b"429" in done.stderr and b"key" not in done.stderr


# ---- mail ------------------------------------------------------------------------------------------------


@pytest.fixture
def sendmail(tmp_path: Path) -> Path:
    """Writes its arguments and its input into files beside itself."""
    path = tmp_path / "sendmail"
    path.write_text(
        '#!/bin/sh\ndir=${0%/*}\nfor word in "$@"; do echo "$word"; done >"$dir/arguments"\n'
        'while IFS= read -r line; do printf "%s\\n" "$line"; done >"$dir/mail"\nread code <"$dir/code"\nexit $code\n'
    )
    path.chmod(0o755)
    (tmp_path / "code").write_text("0\n")
    return path


def sent(sendmail: Path, event: dict[str, Any]) -> tuple[email.message.EmailMessage, list[str]]:
    done = run("mail", "--to", "ops@example.com", "--to", "b@example.com", "--sendmail", str(sendmail), event=event)
    assert (done.returncode, done.stderr) == (0, b"")
    data = (sendmail.parent / "mail").read_bytes()
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message, (sendmail.parent / "arguments").read_text().splitlines()


def test_a_mail_says_who_is_how_and_why_and_has_the_whole_event(sendmail: Path) -> None:
    message, arguments = sent(sendmail, {**EVENT, "evidence": {"text": "no beat for 2.5s"}})
    assert arguments == ["-i", "-f", "hbagent@localhost", "ops@example.com", "b@example.com"]
    assert message["Subject"] == "hbagent: dc1/rack1/node1 is DEAD (silence)"
    assert message["To"] == "ops@example.com, b@example.com"
    assert message["Message-ID"] == "<e-17@hbagent.invalid>"
    assert message["Auto-Submitted"] == "auto-generated"
    first, _, rest = message.get_content().partition("\n\n")
    assert first == "no beat for 2.5s"
    assert json.loads(rest)["event_id"] == "e-17"


def test_nothing_in_an_event_adds_a_header_or_a_recipient(sendmail: Path) -> None:
    event = {**EVENT, "node": HOSTILE, "cause": HOSTILE, "event_id": HOSTILE, "evidence": {"text": HOSTILE}}
    message, arguments = sent(sendmail, event)
    assert set(message.keys()) == {
        *("From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted"),
        *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    }
    assert len(arguments) == 5
    assert len(message["Subject"]) <= 200 and message["Subject"].isprintable()
    assert len((sendmail.parent / "mail").read_bytes()) < 200_000


def test_a_mail_that_is_not_taken_is_tried_again(sendmail: Path) -> None:
    (sendmail.parent / "code").write_text("75\n")
    assert run("mail", "--to", "ops@example.com", "--sendmail", str(sendmail)).returncode == 1
    done = run("mail", "--to", "ops@example.com", "--sendmail", "/nowhere/sendmail")
    assert done.returncode == 1 and b"/nowhere/sendmail" in done.stderr


@pytest.mark.parametrize("to", ["-oQ/tmp", "a b@example.com", "a@b\nBcc: c@d", "ops"])
def test_what_is_no_address_is_refused(to: str, sendmail: Path) -> None:
    assert run("mail", f"--to={to}", "--sendmail", str(sendmail)).returncode == 2


@contextmanager
def mail_server(taken: bool = True) -> Iterator[tuple[str, list[bytes]]]:
    """An SMTP server on loopback; yields its address and what it was told."""
    told: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            letter = False
            for line in self.rfile:
                told.append(line)
                if letter:
                    letter = line != b".\r\n"
                    if not letter:
                        self.wfile.write(b"250 queued\r\n")
                    continue
                word = line[:4].upper()
                letter = word == b"DATA"
                refused = word == b"RCPT" and not taken
                answers = {b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}
                self.wfile.write(answers.get(word, b"550 no\r\n" if refused else b"250 ok\r\n"))
                if word == b"QUIT":
                    return

    server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_where_no_program_can_queue_mail_it_is_handed_to_a_server() -> None:
    with mail_server() as (address, told):
        done = run("mail", "--to", "ops@example.com", "--smtp", address)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"rcpt to:<ops@example.com>\r\n" in [line.lower() for line in told]
    assert b"Subject: hbagent: dc1/rack1/node1 is DEAD (silence)\r\n" in told
    with mail_server(taken=False) as (address, _):
        assert run("mail", "--to", "ops@example.com", "--smtp", address).returncode == 1
    with bound() as nobody:
        assert run("mail", "--to", "ops@example.com", "--smtp", f"127.0.0.1:{port_of(nobody)}").returncode == 1


# ---- alertmanager ----------------------------------------------------------------------------------------


def alerts(event: dict[str, Any]) -> list[dict[str, Any]]:
    with service(200) as (url, got):
        done = run("alertmanager", url, event=event)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not got or got[0][0] == "POST /api/v2/alerts"
    made: list[dict[str, Any]] = json.loads(got[0][2]) if got else []
    return made


def firing(made: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Labels of those that begin."""
    return {alert["labels"]["alertname"]: alert["labels"] for alert in made if "startsAt" in alert}


def test_a_death_fires_and_its_end_resolves_the_very_same_alert() -> None:
    began = alerts({**GONE, "at": now()})
    assert firing(began) == {
        "HbagentHostDown": {
            "alertname": "HbagentHostDown",
            "severity": "critical",
            "host": "dc1/rack1/node1",
            "rack": "dc1/rack1",
        }
    }
    ended = alerts({**EVENT, "kind": "node-recovered", "cause": None, "host": "up", "at": now()})
    assert not firing(ended)
    assert firing(began)["HbagentHostDown"] in [alert["labels"] for alert in ended]


def test_a_dead_agent_on_a_living_host_is_a_ticket() -> None:
    made = firing(alerts({**EVENT, "cause": "process-exit", "host": "up", "at": now()}))
    assert {name: labels["severity"] for name, labels in made.items()} == {"HbagentAgentDown": "warning"}


@pytest.mark.parametrize(
    ("kind", "health", "name"),
    [
        ("health-changed", "DEADLOCKED", "HbagentHealthCritical"),
        ("health-changed", "WARNING", "HbagentHealthWarning"),
        ("rack-dark", None, "HbagentRackDown"),
        ("leader-lost", None, "HbagentLeaderLost"),
        ("root-isolated", None, "HbagentRootIsolated"),
        ("summary", None, "HbagentSummary"),
        ("watchdog", None, "HbagentWatchdog"),
    ],
)
def test_each_kind_has_its_alert(kind: str, health: str | None, name: str) -> None:
    event = {**EVENT, "kind": kind, "health": {"from": "OK", "to": health}, "at": now()}
    assert list(firing(alerts(event))) == [name]


def test_what_is_no_alert_is_not_posted() -> None:
    assert alerts({**EVENT, "kind": "node-unknown", "at": now()}) == []


def test_one_member_that_takes_it_is_enough() -> None:
    with service(200) as (url, got), service(500) as (other, _):
        done = run("alertmanager", other, url, event={**EVENT, "at": now()})
    assert (done.returncode, len(got)) == (0, 1)
    assert other.encode() in done.stderr
    with service(500) as (url, _):
        assert run("alertmanager", url, event={**EVENT, "at": now()}).returncode == 1


def test_a_hostile_event_is_one_line_in_an_alert() -> None:
    event = {**EVENT, "evidence": {"text": HOSTILE}, "at": now()}
    (alert,) = [alert for alert in alerts(event) if "startsAt" in alert]
    assert all(text.isprintable() and len(text) <= 1000 for text in alert["annotations"].values())


# ---- fence -----------------------------------------------------------------------------------------------


class Fence:
    """A fence with an ipmitool that only writes down how it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "password").write_text("hunter2\n")
        self.hosts = directory / "hosts.json"
        bmc = {"bmc": "10.0.9.1", "user": "fence", "password_file": str(directory / "password")}
        names = [f"dc1/rack1/node{number}" for number in range(1, 6)]
        self.hosts.write_text(json.dumps(dict.fromkeys(names, bmc)))
        self.ipmitool = directory / "ipmitool"
        self.ipmitool.write_text('#!/bin/sh\necho "$*" >>"${0%/*}/calls"\nread code <"${0%/*}/code"; exit $code\n')
        self.ipmitool.chmod(0o755)
        self.answer(0)

    def answer(self, code: int) -> None:
        (self.directory / "code").write_text(f"{code}\n")

    def run(self, *arguments: str, **fields: Any) -> subprocess.CompletedProcess[bytes]:
        """For an event of a host that is gone, but for these fields."""
        command = ["--hosts", str(self.hosts), "--state", str(self.directory / "state"), "--really"]
        command += ["--ipmitool", str(self.ipmitool), *arguments]
        return run("fence", *command, event={**GONE, "at": now(), **fields})

    def calls(self) -> list[str]:
        file = self.directory / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def fence(tmp_path: Path) -> Fence:
    return Fence(tmp_path)


def test_a_host_that_two_leaders_call_gone_is_power_cycled_once(fence: Fence) -> None:
    done = fence.run()
    assert (done.returncode, done.stdout) == (0, b"fenced: dc1/rack1/node1: power cycle at 10.0.9.1\n")
    (call,) = fence.calls()
    assert call == f"-I lanplus -H 10.0.9.1 -U fence -f {fence.directory}/password chassis power cycle"
    again = fence.run()
    assert (again.returncode, len(fence.calls())) == (0, 1), "the same event"
    assert b"already" in again.stdout
    other = fence.run(event_id="e-18")
    assert (other.returncode, len(fence.calls())) == (1, 1), "the same host within the hour"


OTHER_LEADER = {"leader": "dc1/rack1-leader3", "liveness": "ALIVE", "cause": None}


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "node-suspect"},
        {"kind": "summary", "count": 40},
        {"kind": "rack-dark"},
        {"test": True},
        {"drill": True},
        {"test": None},
        {"liveness": {"from": "ALIVE", "to": "SUSPECT"}},
        {"cause": "process-exit", "host": "up"},
        {"cause": "process-frozen"},
        {"cause": "silence", "host": "unknown"},
        {"host": "up"},
        {"host": "unknown"},
        {"observers": []},
        {"observers": None},
        {"observers": GONE["observers"][:1]},
        {"observers": GONE["observers"][:1] * 2},
        {"observers": [*GONE["observers"], OTHER_LEADER]},
        {"observers": [*GONE["observers"], {**OTHER_LEADER, "liveness": "DEAD", "cause": "silence"}]},
        {"at": "2026-01-02T03:04:05.678Z"},
        {"at": "2099-01-02T03:04:05.678Z"},
    ],
    ids=str,
)
def test_everything_else_is_no_reason_to_cut_the_power(fields: dict[str, Any]) -> None:
    why_not = loaded("fence").why_not
    assert why_not({**GONE, "at": now()}, 2, 300, time.time()) == ""
    assert why_not({**GONE, "at": now(), **fields}, 2, 300, time.time()) != ""


@pytest.mark.parametrize("fields", [{"cause": "process-exit", "host": "up"}, {"node": "dc1/rack1/unknown"}])
def test_what_is_no_reason_to_cut_the_power_is_a_ticket(fence: Fence, fields: dict[str, Any]) -> None:
    done = fence.run(**fields)
    assert (done.returncode, fence.calls()) == (0, [])
    assert done.stdout.startswith(b"ticket, not fenced: ")


def test_one_observer_cannot_be_configured_to_be_enough(fence: Fence) -> None:
    fence.run("--observers", "1", observers=GONE["observers"][:1])
    assert fence.calls() == []


def test_without_being_told_to_do_it_really_it_says_what_it_would_do(fence: Fence) -> None:
    done = run("fence", "--hosts", str(fence.hosts), event={**GONE, "at": now()})
    assert done.returncode == 0
    assert done.stdout.startswith(b"would fence dc1/rack1/node1: /usr/bin/ipmitool ")
    assert fence.calls() == []


def test_only_so_many_hosts_an_hour_lose_their_power(fence: Fence) -> None:
    for number in (1, 2, 3):
        done = fence.run(node=f"dc1/rack1/node{number}", event_id=f"e-{number}")
    assert (done.returncode, len(fence.calls())) == (1, 2)
    assert b"2 hosts were fenced within the hour" in done.stdout


def test_an_ipmitool_that_fails_is_tried_again(fence: Fence) -> None:
    fence.answer(1)
    assert fence.run().returncode == 1
    fence.answer(0)
    assert fence.run().returncode == 0
    assert len(fence.calls()) == 2
    assert fence.run("--ipmitool", "/nowhere/ipmitool", node="dc1/rack1/node2", event_id="e-2").returncode == 1
    assert fence.run(node="dc1/rack1/node2", event_id="e-2").returncode == 0


def test_an_attempt_that_was_cut_short_is_not_repeated(fence: Fence) -> None:
    fence.ipmitool.write_text('#!/bin/sh\necho "$*" >>"${0%/*}/calls"\nexec /bin/sleep 30\n')
    assert fence.run("--timeout", "0.3").returncode == 1
    # On a busy machine it may have been cut short before it wrote anything down.
    before = fence.calls()
    again = fence.run()
    assert (again.returncode, fence.calls()) == (1, before)
    assert b"may have done it" in again.stdout


def test_no_password_is_an_argument(fence: Fence) -> None:
    fence.run()
    assert "hunter2" not in fence.calls()[0]
