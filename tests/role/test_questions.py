"""Consoles ask through a real unix socket, and get pages, or at least a reason."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from hbagent.core.effects import Answer
from hbagent.core.messages import AnswerPage, Query
from hbagent.role import questions as questions_module
from hbagent.role.questions import Questions
from hbagent.transport.sockets import Context, Socket, query_dealer, query_router
from hbagent.wire import codec
from hbagent.wire.pages import AnswerAssembly
from tests.role.parts import until
from tests.wire import samples


class Desk:
    """A root's query socket, and what was asked there."""

    def __init__(self, context: Context, directory: Path) -> None:
        self.endpoint = f"ipc://{directory}/root.sock"
        self.asked: list[tuple[str, Query]] = []
        self.socket = query_router(context, self.endpoint)
        self.questions = Questions(self.socket, self._feed)

    def _feed(self, asker: str, message: object) -> None:
        assert isinstance(message, Query)
        self.asked.append((asker, message))

    def wait_for(self, count: int) -> list[tuple[str, Query]]:
        def drained() -> bool:
            self.questions.drain()
            return len(self.asked) >= count

        assert until(drained)
        return self.asked

    def asker(self) -> bytes:
        return self.asked[-1][0].encode("latin-1")


@pytest.fixture
def desk(context: Context, socket_dir: Path) -> Desk:
    return Desk(context, socket_dir)


@pytest.fixture
def console(context: Context, desk: Desk) -> Socket:
    return query_dealer(context, desk.endpoint)


def ask(console: Socket, id: int = 1, what: str = "status") -> None:
    console.send(codec.encode(Query(id=id, what=what)))


def read(console: Socket, id: int = 1) -> tuple[bytes, str]:
    """The document of an answer, and its error."""
    assembly = AnswerAssembly(id)
    while True:
        assert console.poll(5_000), "no answer"
        page = codec.decode(console.recv())
        assert isinstance(page, AnswerPage)
        document = assembly.add(page)
        if document is not None:
            return document, assembly.error


def test_a_question_reaches_the_core_and_its_answer_the_asker(desk: Desk, console: Socket) -> None:
    ask(console, 17)
    ((_, query),) = desk.wait_for(1)
    assert query == Query(id=17, what="status")
    desk.questions.answer(Answer(desk.asker(), 17, {"schema": 1, "nodes": []}))
    assert read(console, 17) == (b'{"schema":1,"nodes":[]}', "")


def test_a_long_answer_travels_in_pages(desk: Desk, console: Socket) -> None:
    ask(console)
    desk.wait_for(1)
    view = {"nodes": [f"demo/rack1/node{number}" for number in range(50_000)]}
    desk.questions.answer(Answer(desk.asker(), 1, view))
    document, error = read(console)
    assert msgspec.json.decode(document) == view
    assert error == ""


def test_each_asker_gets_its_own_answer(desk: Desk, console: Socket, context: Context) -> None:
    other = query_dealer(context, desk.endpoint)
    ask(console, 1)
    desk.wait_for(1)
    ask(other, 1)
    desk.wait_for(2)
    first, second = (asker.encode("latin-1") for asker, _ in desk.asked)
    assert first != second
    desk.questions.answer(Answer(second, 1, "second"))
    desk.questions.answer(Answer(first, 1, "first"))
    assert read(console)[0] == b'"first"'
    assert read(other)[0] == b'"second"'


def test_a_question_without_an_answer_gets_the_reason(desk: Desk, console: Socket) -> None:
    ask(console)
    desk.wait_for(1)
    desk.questions.answer(Answer(desk.asker(), 1, None, "no node 'x' is known"))
    assert read(console) == (b"", "no node 'x' is known")


def test_an_answer_that_cannot_be_written_is_a_defect_that_the_asker_is_told_of(desk: Desk, console: Socket) -> None:
    ask(console)
    desk.wait_for(1)
    with pytest.raises(TypeError):
        desk.questions.answer(Answer(desk.asker(), 1, {"key": object()}))
    document, error = read(console)
    assert document == b""
    assert "a defect" in error
    desk.questions.answer(Answer(desk.asker(), 1, "next"))
    assert read(console) == (b'"next"', "")


def test_an_asker_that_went_away_or_does_not_read_costs_only_its_answer(desk: Desk, console: Socket) -> None:
    begun = time.monotonic()
    desk.questions.answer(Answer(b"\0nobody", 1, "x"))
    assert desk.questions.unsent == 1
    ask(console)
    desk.wait_for(1)
    while desk.questions.unsent < 2 and time.monotonic() - begun < 20:
        desk.questions.answer(Answer(desk.asker(), 1, ["x" * 1_000] * 10_000))
    assert desk.questions.unsent == 2, "a console that does not read loses an answer"
    console.close(linger=0)


def test_what_is_no_question_is_refused_and_counted(desk: Desk, console: Socket) -> None:
    console.send(b"")
    console.send(os.urandom(10_000))
    console.send_multipart([codec.encode(Query(id=1, what="status")), b"more"])
    console.send_multipart([b"more", codec.encode(Query(id=1, what="status"))])
    others = [message for message in samples.MESSAGES.values() if not isinstance(message, Query)]
    for message in others:
        console.send(codec.encode(message))
    ask(console, 5)
    assert [query.id for _, query in desk.wait_for(1)] == [5]
    assert desk.questions.refused == 4 + len(others)


def test_one_draining_takes_no_more_than_its_bound(
    desk: Desk, console: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions_module, "DRAIN_MAX", 5)
    for number in range(20):
        ask(console, number)
    counts: list[int] = []

    def drained() -> bool:
        counts.append(desk.questions.drain())
        return len(desk.asked) == 20

    assert until(drained)
    assert max(counts) == 5
