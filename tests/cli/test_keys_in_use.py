"""Who still uses a key that is being changed: what is said, and with which exit code."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from hbagent.cli import main
from hbagent.core.effects import Answer
from hbagent.core.messages import Query
from hbagent.role.questions import Questions
from hbagent.transport.keys import fingerprint
from hbagent.transport.sockets import Context, query_router

PRESENT, COMING = "R[&C4]+AHCkK>B<.=:zF@Vn[+Yo50-uxXD9{LoFz", "jMjFdF=XUD4k4f*4nVAJtJFi]T%Rh3i#cYT0(8?*"
View = Callable[[], dict[str, Any]]


def view(*names: str, more: int = 0) -> dict[str, Any]:
    old = {"key": PRESENT, "publish": "tcp://*:5701", "peers": len(names) + more, "names": list(names)}
    return {"rotating": True, "old": old, "new": {"key": COMING, "publish": "tcp://*:5721", "peers": 4}}


@contextmanager
def daemon(directory: Path, answer: View) -> Iterator[str]:
    """A daemon that answers only this."""
    context: Context = zmq.Context()
    endpoint = f"ipc://{directory}/q.sock"

    def feed(asker: str, message: object) -> None:
        assert isinstance(message, Query)
        known = message.what == "keys"
        said = answer() if known else None
        questions.answer(Answer(asker.encode("latin-1"), message.id, said, "" if known else "cannot answer"))

    questions = Questions(query_router(context, endpoint), feed)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            if questions.source.poll(20):
                questions.drain()

    thread = threading.Thread(target=serve)
    thread.start()
    yield endpoint
    ending.set()
    thread.join()
    questions.source.close()
    context.term()


def in_use(endpoint: str, *options: str) -> int:
    return main(["keys", "in-use", "--socket", endpoint, *options])


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        (view(), 0, f"nobody uses key {fingerprint(PRESENT)} at tcp://*:5701 any more; 4 use key"),
        (
            view("dc1/r/n1", "dc1/r/n2"),
            1,
            f"2 still use key {fingerprint(PRESENT)} at tcp://*:5701: dc1/r/n1, dc1/r/n2;",
        ),
        (view("dc1/r/n1", more=11), 1, "12 still use key"),
        (view("dc1/r/n1", more=11), 1, "dc1/r/n1 and 11 more; 4 use key"),
        ({"rotating": False, "old": None, "new": {"key": COMING}}, 0, "no key is being changed; key"),
        ({"rotating": False, "old": None, "new": {"key": None}}, 0, "no key is being changed; no key is in use"),
    ],
)
def test_nobody_is_0_and_somebody_is_1(
    socket_dir: Path, capsys: pytest.CaptureFixture[str], said: dict[str, Any], code: int, text: str
) -> None:
    with daemon(socket_dir, lambda: said) as endpoint:
        assert in_use(endpoint) == code
        assert text in capsys.readouterr().out
        assert in_use(endpoint, "-o", "json") == code
        assert json.loads(capsys.readouterr().out) == said


def test_nobody_who_could_answer_is_3(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_use(f"ipc://{socket_dir}/none.sock") == 3
    assert "there is no such socket" in capsys.readouterr().err


def test_a_daemon_that_knows_no_such_question_is_3(
    socket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with daemon(socket_dir, dict) as endpoint:
        monkeypatch.setattr("hbagent.cli.keys_in_use.WHAT", "unknown")
        assert in_use(endpoint) == 3
    assert "cannot answer" in capsys.readouterr().err


def test_the_last_one_is_waited_for(
    socket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hbagent.cli.keys_in_use.AGAIN_NS", 10_000_000)
    answers = iter([view("dc1/r/n1"), view("dc1/r/n1"), view()])
    with daemon(socket_dir, lambda: next(answers)) as endpoint:
        assert in_use(endpoint, "--wait", "20s") == 0
    assert capsys.readouterr().out.startswith("nobody uses")


def test_waiting_ends_with_the_time_and_says_who_is_left(
    socket_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hbagent.cli.keys_in_use.AGAIN_NS", 10_000_000)
    # Whoever goes on waiting waits for ever.
    with daemon(socket_dir, lambda: view("dc1/r/n1")) as endpoint:
        assert in_use(endpoint, "--wait", "50ms") == 1
    assert capsys.readouterr().out.count("still use") == 1
