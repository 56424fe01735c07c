"""Consoles ask through a real unix socket, and get pages, or at least a reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq

from hbagent.core.effects import Answer
from hbagent.core.messages import AnswerPage, Order, Ordered, Query, Refused
from hbagent.core.units import SECOND
from hbagent.role import questions as questions_module
from hbagent.role.questions import Desks, Questions
from hbagent.role.visitors import Visitor
from hbagent.transport.sockets import Context, Socket, query_dealer, query_router
from hbagent.wire import codec
from hbagent.wire.pages import AnswerAssembly
from hbagent.wire.version import MINOR, MINOR_AT
from tests.role.parts import Lines, until
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
        assert console.poll(20_000), "no answer"
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


def test_an_answer_is_written_for_the_minor_of_its_question(desk: Desk, console: Socket) -> None:
    for minor in (MINOR - 1, MINOR, MINOR + 1):
        frame = codec.encode(Query(id=minor, what="nodes"))
        console.send(frame[:MINOR_AT] + bytes([minor]) + frame[MINOR_AT + 1 :])
        desk.wait_for(minor - MINOR + 2)
        desk.questions.answer(Answer(desk.asker(), minor, {"schema": 1}))
        assert console.poll(20_000)
        assert console.recv()[MINOR_AT] == min(minor, MINOR)


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
    others = [message for message in samples.MESSAGES.values() if not isinstance(message, (Query, Order))]
    for message in others:
        console.send(codec.encode(message))
    ask(console, 5)
    assert [query.id for _, query in desk.wait_for(1)] == [5]
    assert desk.questions.refused == 4 + len(others)


# ---- orders ----------------------------------------------------------------------------------------------


class Named:
    """A door at which everybody is somebody, later: the test lets them in."""

    mark = b"t"
    changing = frozenset(("drill",))

    def __init__(self, visitor: Visitor) -> None:
        self.who = visitor
        self.waiting: list[Callable[[str], None]] = []
        self.deaf_ones: list[bytes] = []

    def visitor(self, frames: list[zmq.Frame]) -> Visitor | None:
        return self.who

    def named(self, visitor: Visitor, then: Callable[[str], None]) -> None:
        self.waiting.append(then)

    def deaf(self, route: bytes) -> None:
        self.deaf_ones.append(route)


class Post:
    """A query socket behind a door, what a core was fed there, and what the log was told."""

    def __init__(self, context: Context, directory: Path, visitor: Visitor) -> None:
        self.door = Named(visitor)
        self.fed: list[tuple[str, object]] = []
        self.lines = Lines()
        endpoint = f"ipc://{directory}/post.sock"
        self.questions = Questions(
            query_router(context, endpoint), lambda *news: self.fed.append(news), self.door, self.lines
        )
        self.console = query_dealer(context, endpoint)

    def send(self, message: Query | Order) -> None:
        self.console.send(codec.encode(message))
        assert until(self.questions.drain)


SILENCE = Order(id=7, what="silence", reason="moving it", nodes=("*",), length_ns=SECOND)


def test_an_order_reaches_the_core_with_who_gave_it_once_that_is_known(context: Context, socket_dir: Path) -> None:
    post = Post(context, socket_dir, Visitor(uid=1000))
    post.send(SILENCE)
    assert post.fed == []
    post.door.waiting[0]("alice (uid 1000)")
    ((asker, ordered),) = post.fed
    assert ordered == Ordered(SILENCE, "alice (uid 1000)")
    assert asker.encode("latin-1")[:1] == b"t", "the mark of the door"
    post.questions.answer(Answer(asker.encode("latin-1"), 7, {"silence": "s1"}))
    assert read(post.console, 7) == (b'{"silence":"s1"}', "")


def test_who_may_only_read_is_told_so_and_asks_on(context: Context, socket_dir: Path) -> None:
    post = Post(context, socket_dir, Visitor(name="bob", reads_only="bob may only read"))
    post.send(SILENCE)
    assert read(post.console, 7) == (b"", "bob may only read")
    assert post.fed == [("", Refused("bob", "read-only", "silence"))]
    post.send(Query(id=8, what="drill", node="demo/rack1/node1", drill="crash"))
    assert read(post.console, 8) == (b"", "bob may only read")
    post.send(Query(id=9, what="status"))
    assert post.fed[-1][1] == Query(id=9, what="status")
    assert post.door.waiting == []


def test_who_ordered_a_drill_is_logged(context: Context, socket_dir: Path) -> None:
    post = Post(context, socket_dir, Visitor(name="alice"))
    drill = Query(id=8, what="drill", node="demo/rack1/node1", drill="crash")
    post.send(drill)
    post.door.waiting[0]("alice")
    assert post.fed[0][1] == drill
    assert post.lines.of("operator") == [{"by": "alice", "did": "drill", "to": "demo/rack1/node1"}]


def test_an_objection_is_the_answer_to_everything(context: Context, socket_dir: Path) -> None:
    post = Post(context, socket_dir, Visitor(name="bob", objection="ask less often"))
    for message in (Query(id=7, what="status"), SILENCE):
        post.send(message)
        assert read(post.console, 7) == (b"", "ask less often")
    assert post.fed == []


def test_a_leader_takes_no_order(desk: Desk, console: Socket) -> None:
    console.send(codec.encode(SILENCE))
    assert until(desk.questions.drain)
    assert read(console, 7) == (b"", "only the root changes anything: give this order to the root")
    console.send(codec.encode(Query(id=8, what="drill")))
    desk.wait_for(1)


def test_who_does_not_read_is_told_to_the_door(context: Context, socket_dir: Path) -> None:
    post = Post(context, socket_dir, Visitor())
    post.send(Query(id=1, what="status"))
    asker = post.fed[0][0].encode("latin-1")
    begun = time.monotonic()
    while not post.door.deaf_ones and time.monotonic() - begun < 20:
        post.questions.answer(Answer(asker, 1, ["x" * 1_000] * 10_000))
    assert post.door.deaf_ones == [asker[2:]]


def test_an_answer_leaves_by_the_port_that_its_question_came_in_by(
    desk: Desk, console: Socket, context: Context, socket_dir: Path
) -> None:
    post = Post(context, socket_dir, Visitor())
    desks = Desks()
    for questions in (desk.questions, post.questions):
        desks.add(questions.mark, questions.answer)
    ask(console)
    desk.wait_for(1)
    post.send(Query(id=1, what="status"))
    desks.answer(Answer(desk.asker(), 1, "here"))
    desks.answer(Answer(post.fed[0][0].encode("latin-1"), 1, "there"))
    assert read(console)[0] == b'"here"'
    assert read(post.console)[0] == b'"there"'
    with pytest.raises(KeyError):
        desks.answer(Answer(b"?nobody", 1, "lost"))


def test_one_draining_takes_no_more_than_its_bound(
    desk: Desk, console: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions_module, "DRAIN_MAX", 5)
    counts: list[int] = []

    def drained() -> bool:
        # More come than are taken, so that there are too many sooner or later, however slowly they arrive.
        for number in range(20):
            ask(console, number)
        counts.append(desk.questions.drain())
        return max(counts) >= 5

    assert until(drained)
    assert max(counts) == 5
