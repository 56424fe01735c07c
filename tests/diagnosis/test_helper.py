"""The privileged helper: whom it serves, what it takes for a request, and what it may with two capabilities alone."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.demo.datacenter import wait_until
from hbagent.diagnosis import helper
from hbagent.diagnosis.helper import (
    HelperError,
    Reply,
    Request,
    ask_helper,
    read_request,
    sender_of,
    serve,
    served_groups,
)
from tests.diagnosis.victim import CROSSED, locked_out, victim

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = {
    "pid": 7,
    "verdict": "DEADLOCKED",
    "text": "two",
    "details": ["a"],
    "pause_ns": 0,
    "left_out": [],
    "more": 1,
}


def answered(data: bytes) -> tuple[Reply, list[Request]]:
    """The reply to what somebody sends, and the requests that were looked into."""
    ours, theirs = socket.socketpair()
    requests: list[Request] = []

    def investigate(request: Request) -> dict[str, Any]:
        requests.append(request)
        return DOCUMENT

    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        serve(theirs, served_groups(), investigate)
        theirs.close()
        answer = b""
        # What was not read is told by a reset instead of an end.
        with contextlib.suppress(ConnectionResetError):
            while data := ours.recv(1 << 16):
                answer += data
    return msgspec.json.decode(answer, type=Reply), requests


def test_a_request_is_answered_with_a_document() -> None:
    request = Request(pid=4711, start=12, stuck=True, app="billing", why="mark")
    reply, requests = answered(msgspec.json.encode(request) + b"\n")
    assert (reply.document, reply.error) == (DOCUMENT, "")
    assert requests == [request]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "one line"),
        (b'{"pid":4711}', "one line"),
        (b"x" * 5000, "one line"),
        (b"\n", "not a request"),
        (b"{}\n", "not a request"),
        (b'{"pid":"4711"}\n', "not a request"),
        (b'{"pid":4711,"command":"rm"}\n', "not a request"),
        (b'{"pid":4711}\n{"pid":4712}\n', "not a request"),
        (b'{"pid":1}\n', "no process 1"),
        (b'{"pid":-1}\n', "no process -1"),
        (b'{"pid":4294967296}\n', "no process"),
        (b'{"pid":4711,"start":-1}\n', "no process"),
    ],
)
def test_anything_else_is_refused(data: bytes, error: str) -> None:
    reply, requests = answered(data)
    assert error in reply.error
    assert requests == []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data + b"\n")
        with contextlib.suppress(HelperError):
            assert read_request(theirs).pid > 1


def test_one_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "REQUEST_S", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b'{"pid":')
        assert serve(theirs, served_groups(), lambda request: DOCUMENT)


def test_one_who_says_little_at_a_time_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "REQUEST_S", 0.2)
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(0.02):
                ours.sendall(b" ")

    with ours, theirs:
        dripping = threading.Thread(target=drip)
        dripping.start()
        assert "in time" in serve(theirs, served_groups(), lambda request: DOCUMENT)
        stop.set()
        dripping.join()


def test_one_who_does_not_take_the_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "REQUEST_S", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b'{"pid":4711}\n')
        refusal = serve(theirs, served_groups(), lambda request: {**DOCUMENT, "more": "x" * (1 << 20)})
    assert "nobody takes the answer" in refusal


def test_members_of_a_group_are_served_by_its_name_or_number() -> None:
    assert served_groups("no-such-group") == ()
    assert served_groups("root") == (0,)
    assert served_groups("4242") == (4242,)


def test_the_kernel_says_who_connected_with_all_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = sender_of(theirs)
    assert sender.user == os.geteuid()
    assert sender.groups == {os.getegid(), *os.getgroups()}


#: Connects as a user, a group and further groups.
CONNECT = """
import os, socket, sys
link = socket.socket(socket.AF_UNIX)
os.setgroups(list(map(int, sys.argv[4:])))
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
link.connect(sys.argv[1])
try:
    link.sendall(b'{"pid":4711}\\n')
except BrokenPipeError:
    pass
print(link.recv(1 << 16).decode())
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("who", "served"),
    [
        (("65534", "65534"), False),
        (("65534", "4242"), True),
        (("65534", "65534", "7", "4242"), True),
        (("65534", "65534", *(str(gid) for gid in range(10_000, 10_000 + helper.GROUPS_MAX + 1)), "4242"), False),
    ],
    ids=["nobody", "group", "further group", "too many groups"],
)
def test_who_is_not_in_the_group_gets_nothing(who: tuple[str, ...], served: bool, open_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(open_dir / "s"))
        (open_dir / "s").chmod(0o666)
        listener.listen()
        asks = [sys.executable, "-I", "-S", "-c", CONNECT, str(open_dir / "s"), *who]
        with subprocess.Popen(asks, stdout=subprocess.PIPE, cwd="/") as asking:
            link, _ = listener.accept()
            with link:
                serve(link, (4242,), lambda request: DOCUMENT)
            answer, _ = asking.communicate(timeout=50)
    assert (msgspec.json.decode(answer, type=Reply).document == DOCUMENT) is served


def test_without_a_connection_it_says_what_it_is_for() -> None:
    command = [sys.executable, "-m", "hbagent", "diagnose", "--serve"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (ended.returncode, "systemd starts this" in ended.stderr) == (64, True)
    with socket.socket() as tcp:
        ended = subprocess.run(command, stdin=tcp.fileno(), capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (ended.returncode, "unix stream socket" in ended.stderr) == (64, True)


# ---- who asks --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(path: Path, answer: bytes, keep: bool = False) -> Iterator[None]:
    """Somebody who answers each caller with the same bytes; with `keep`, without an end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        kept = []

        def run() -> None:
            with contextlib.suppress(OSError):
                link, _ = listener.accept()
                link.recv(4096)
                link.sendall(answer)
                kept.append(link) if keep else link.close()

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()
        for link in kept:
            link.close()


def test_a_document_comes_back_whole(socket_dir: Path) -> None:
    with answering(socket_dir / "s", msgspec.json.encode(Reply(document=DOCUMENT))):
        assert ask_helper(str(socket_dir / "s"), Request(pid=7), 30) == DOCUMENT


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "makes no sense"),
        (b"[]", "makes no sense"),
        (b'{"document":{"pid":7}}', "makes no sense"),
        (msgspec.json.encode({"document": {**DOCUMENT, "verdict": "BAD"}}), "makes no sense"),
        (b'{"error":"user 7 may not ask"}', "user 7 may not ask"),
        (b"{}", "answered nothing"),
        (b" " * (helper.ANSWER_MAX + 2), "an answer of more than"),
    ],
)
def test_an_answer_that_is_no_document_is_an_error(socket_dir: Path, answer: bytes, error: str) -> None:
    with answering(socket_dir / "s", answer), pytest.raises(HelperError, match=error):
        ask_helper(str(socket_dir / "s"), Request(pid=7), 30)


def test_who_does_not_answer_is_given_up(socket_dir: Path) -> None:
    with answering(socket_dir / "s", b"{", keep=True), pytest.raises(HelperError, match="no answer from"):
        ask_helper(str(socket_dir / "s"), Request(pid=7), 0.2)
    with pytest.raises(HelperError, match="No such file"):
        ask_helper(str(socket_dir / "none"), Request(pid=7), 0.2)


# ---- for real --------------------------------------------------------------------------------------------

#: `__SO_ACCEPTCON` of <linux/net.h>.
ACCEPTS = 1 << 16
#: Asks as another user: path, process, user.
ASK = """
import os, sys
from hbagent.diagnosis.helper import HelperError, Request, ask_helper
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
try:
    print(ask_helper(sys.argv[1], Request(pid=int(sys.argv[2]), stuck=True), 50)["verdict"])
except HelperError as error:
    print(error)
"""
#: A user without any right of its own, and the two capabilities of the unit.
APART = [
    *("setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", "--no-new-privs"),
    *(f"--{which}-caps=-all,+sys_ptrace,+dac_read_search" for which in ("inh", "ambient")),
    "--bounding-set=-all,+sys_ptrace,+dac_read_search",
]


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user may enter, with a short path."""
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextlib.contextmanager
def activated(path: Path, *prefix: str) -> Iterator[None]:
    """What systemd does for hbagent-diagnose.socket, with a group whose members may ask."""
    serves = [*prefix, sys.executable, "-m", "hbagent", "diagnose", "--serve", "--serve-group", "65534"]
    command = ["systemd-socket-activate", "--accept", "--inetd", "-l", str(path), *serves]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as activator:
        try:
            assert wait_until(lambda: is_listening(path), 30)
            path.chmod(0o666)
            yield
        finally:
            activator.terminate()


def is_listening(path: Path) -> bool:
    """Before that there is a moment in which it is there and refuses."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(row[-1] == str(path) and int(row[3], 16) & ACCEPTS for row in rows)


def told(path: Path, pid: int, uid: int) -> str:
    command = [sys.executable, "-c", ASK, str(path), str(pid), str(uid)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.needs("gcc", "setpriv", "systemd-socket-activate")
def test_two_capabilities_prove_the_deadlock_of_another_user(open_dir: Path, tmp_path: Path) -> None:
    with victim(tmp_path, CROSSED) as pid, activated(open_dir / "s", *APART):
        assert wait_until(lambda: locked_out(pid), 30)
        assert told(open_dir / "s", pid, 65534) == "DEADLOCKED"
        assert told(open_dir / "s", pid, 0) == "DEADLOCKED"
        assert told(open_dir / "s", pid, 65532) == "user 65532 may not ask"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.needs("gcc", "setpriv", "systemd-socket-activate")
def test_who_may_not_look_gets_a_proof_through_the_helper(open_dir: Path, tmp_path: Path) -> None:
    code = """
import os, sys
from hbagent.core.effects import Examine
from hbagent.diagnosis import examination
from hbagent.diagnosis.examination import examine
examination.HELPER_S = 30
os.setgid(65534), os.setuid(65534)
for helper in sys.argv[2:]:
    print(examine(Examine(run=1, app="billing", pid=int(sys.argv[1])), helper, (), None).stall.value)
"""
    with victim(tmp_path, CROSSED) as pid, activated(open_dir / "s", *APART):
        assert wait_until(lambda: locked_out(pid), 30)
        ended = subprocess.run(
            [sys.executable, "-c", code, str(pid), "", str(open_dir / "s")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.stdout.split() == ["UNKNOWN", "DEADLOCKED"], ended.stderr
