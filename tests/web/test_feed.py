"""The live feed over real sockets: everything, then what changed; who comes back, and who does not read."""

from __future__ import annotations

import functools
import socket
import time
from typing import Any

import pytest

from hbagent.web import feed as feeds
from hbagent.web.page import index_page
from tests.web.parts import Core, Listener, Running, cell, rack, running, until, view


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks so short that no test waits for one."""
    monkeypatch.setattr(feeds, "TICK_S", 0.05)


def test_everything_comes_first_and_then_what_changed() -> None:
    core = Core()
    with running(core) as server:
        listener = Listener(server)
        assert b"text/event-stream" in listener.head
        kind, told = listener.next()
        assert kind == "all"
        assert told["cells"] == [["dc/r1/n1", "alive", "dc/r1/n1: ALIVE and OK", ""]]
        server.do(lambda: core.show(cell(liveness="DEAD", cause="process-exit")))
        told = listener.until(lambda told: told["cells"])
        assert told["cells"][0][:2] == ["dc/r1/n1", "dead"]
        listener.close()


def test_whoever_comes_back_is_told_only_what_he_missed() -> None:
    core = Core()
    with running(core) as server:
        first, stays = Listener(server), Listener(server)
        first.next()
        stays.next()
        first.close()
        server.do(lambda: core.show(cell(liveness="SUSPECT")))
        stays.until(lambda told: told["cells"])
        again = Listener(server, f"Last-Event-ID: {first.id}", path="/events?after=nonsense")
        kind, told = again.next()
        assert kind == "some"
        assert told["cells"][0][1] == "suspect" or again.until(lambda told: told["cells"])
        for listener in (stays, again):
            listener.close()


@pytest.mark.parametrize("position", ["", "nonsense", "abc-1", "abc-99999999999999999999", "{life}-999999", "{life}-x"])
def test_whoever_says_where_nobody_ever_was_gets_everything(position: str) -> None:
    with running() as server:
        first = Listener(server)
        for _ in range(3):
            first.next()
        said = position.replace("{life}", first.id.partition("-")[0])
        again = Listener(server, path=f"/events?after={said}")
        assert again.next()[0] == "all"
        for listener in (first, again):
            listener.close()


def test_a_page_that_was_made_at_a_tick_goes_on_from_there() -> None:
    core = Core()
    with running(core) as server:
        page = server.get("/").text
        position = page.partition('data-position="')[2].partition('"')[0]
        listener = Listener(server, path=f"/events?after={position}")
        kind, told = listener.next()
        assert (kind, told["cells"]) == ("some", [])
        listener.close()


def test_nothing_is_asked_while_nobody_listens() -> None:
    core = Core()
    with running(core) as server:
        listener = Listener(server)
        listener.next()
        listener.close()
        until(lambda: not server.server.feed.listening)
        # A question that was on its way to the core has come by then.
        server.do(lambda: None)
        asked = len(core.asked)
        assert server.get("/healthz").status == 200
        assert [what for what, _ in core.asked[asked:] if what == "cells"] == []


def test_a_hundred_listeners_cost_one_question_and_one_encoding_a_tick() -> None:
    core = Core()
    with running(core) as server:
        listeners = [Listener(server) for _ in range(100)]
        for listener in listeners:
            listener.next()
        began = time.monotonic()
        asked, number = counted(server)
        for listener in listeners:
            listener.until(lambda told: told["at"])
        asked, number = (now - before for now, before in zip(counted(server), (asked, number), strict=True))
        assert asked == number <= 2 + (time.monotonic() - began) / feeds.TICK_S
        for listener in listeners:
            listener.close()


def counted(server: Running) -> tuple[int, int]:
    """How many questions the core was asked, and how many ticks there were, at a moment at which no answer is due."""
    found: list[tuple[int, int]] = []

    def look() -> None:
        if server.server.feed._refreshing is None:
            found.append((len(server.core.asked), server.server.feed.number))

    while not found:
        server.do(look)
    return found[0]


def test_another_life_of_the_core_makes_all_pages_anew() -> None:
    core = Core()
    with running(core) as server:
        listener = Listener(server)
        listener.next()
        core.says["cells"] = view(cell("dc/r2/n5"), life="b", racks=[rack("dc/r2")])
        kind = ""
        while kind != "all":
            kind, told = listener.next()
        assert [spot[0] for spot in told["cells"]] == ["dc/r2/n5"]
        listener.close()


def test_a_silent_core_has_no_ticks_and_its_return_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "COMMENT_S", 0.1)
    core = Core()
    with running(core) as server:
        listener = Listener(server)
        listener.next()
        core.silent = True
        number = server.server.feed.number
        while b": nothing new" not in listener._until(b"\n\n"):
            pass
        assert server.server.feed.number <= number + 1
        core.silent = False
        assert listener.next()[0] == "some"
        listener.close()


def deaf(server: Running) -> socket.socket:
    """Somebody who asks for the feed and never reads it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", server.port))
    made.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return made


def flood(server: Running, nodes: int) -> None:
    """Have ticks tell so many changes each until somebody is dropped, while another reads along."""
    names = [f"dc/r1/n{number}" for number in range(nodes)]
    reader = Listener(server)
    reader.next()
    for number in range(2000):
        text = f"{number:09}" + "x" * 450
        server.do(functools.partial(server.core.show, *[cell(node, "DEAD", text=text) for node in names]))
        reader.until(functools.partial(_tells, text[:9]))
        if server.server.feed.dropped:
            break
    assert server.server.feed.dropped == 1
    until(lambda: server.server.feed.listening == 1)
    reader.next()


def _tells(text: str, told: Any) -> bool:
    return any(text in spot[2] for spot in told["cells"])


def test_a_listener_on_whom_too_much_piles_up_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "TICK_S", 0.001)
    monkeypatch.setattr(feeds, "PUSH_MAX", 10**6)
    with running() as server, deaf(server):
        flood(server, 200)


def test_a_listener_who_reads_too_slowly_to_ever_have_all_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "TICK_S", 0.001)
    monkeypatch.setattr(feeds, "PUSH_MAX", 100)
    monkeypatch.setattr(feeds, "BUFFER_MAX", 10**9)
    monkeypatch.setattr(feeds, "SLICE_S", 0.2)
    with running() as server, deaf(server):
        flood(server, 200)


def test_a_tick_too_large_to_push_reaches_everybody_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "PUSH_MAX", 100)
    core = Core()
    with running(core) as server:
        listener = Listener(server)
        listener.next()
        server.do(lambda: core.show(cell(liveness="DEAD", text="x" * 400)))
        told = listener.until(lambda told: told["cells"])
        assert told["cells"][0][1] == "dead"
        listener.close()


def test_ticks_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "TICK_S", 0.001)
    monkeypatch.setattr(feeds, "FRAMES_MAX", 5)
    with running() as server:
        first, reader = Listener(server), Listener(server)
        first.next()
        first.close()
        for _ in range(20):
            reader.next()
        assert len(server.server.feed._frames) <= 5
        late = Listener(server, f"Last-Event-ID: {first.id}")
        assert late.next()[0] == "all"
        for listener in (late, reader):
            listener.close()


def test_a_board_that_nobody_reads_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        assert server.get("/").status == 200
        with monkeypatch.context() as soon:
            soon.setattr(feeds, "FORGET_S", 0.05)
            # From here on, for it is asked when the last listener has gone.
            Listener(server).close()
            until(lambda: server.server.feed.board.root is None)
        assert server.get("/").status == 200


def test_an_answer_that_is_not_understood_is_an_error_and_not_the_end() -> None:
    core = Core()
    core.says["cells"] = {"life": 5}
    with running(core) as server:
        assert server.get("/").status == 503
        core.says["cells"] = view(cell())
        assert server.get("/").status == 200


def test_the_first_page_is_made_once_for_all_who_ask_in_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "TICK_S", 60.0)
    monkeypatch.setattr(feeds.Feed.fresh, "__defaults__", (60.0,))
    made: list[bytes] = []

    def make(*of: Any) -> bytes:
        made.append(index_page(*of))
        return made[-1]

    monkeypatch.setattr(feeds, "index_page", make)
    core = Core()
    with running(core) as server:
        pages = [server.get("/").body for _ in range(5)]
        assert pages == made * 5
        assert [what for what, _ in core.asked] == ["cells"]
