"""The page's thread and the loop's: what passes between them, and what keeps neither from its work."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgspec
import pytest

from hbagent.core.config import RackConfig, RootConfig
from hbagent.core.effects import Answer, Effect
from hbagent.core.messages import Query
from hbagent.core.root import RootCore
from hbagent.demo.datacenter import free_ports
from hbagent.role import web as web_module
from hbagent.role.driver import Driver
from hbagent.role.sdnotify import Notifier
from hbagent.role.settings import Web as Settings
from hbagent.role.web import AT_PAGE, Web
from hbagent.web.source import Reply
from tests.role.parts import own_address, until

Lines = list[tuple[str, str, dict[str, object]]]


class Loop:
    """A root's core and its driver, turned by a thread of its own, and the page of both."""

    def __init__(self, hears: bool = True) -> None:
        config = RootConfig(name="dc/root", racks=(RackConfig(name="dc/r1", leaders=("dc/l1",)),))
        core = RootCore(config, random.Random(1), time.monotonic_ns())
        self.lines: Lines = []
        self.port = free_ports(1)[0]
        self.at = (own_address(), self.port)
        self.url = f"http://{self.at[0]}:{self.port}/"
        performers: dict[type, Callable[[Any], None]] = dict.fromkeys(get_args(Effect), lambda effect: None)
        performers[Answer] = lambda effect: self.web.answer(effect)
        self.driver = Driver(core, performers, Notifier({}), self.tell)
        listen = f"{self.at[0]}:{self.port}"
        self.web = Web(Settings(listen=listen), self.driver, self.tell, pages=True, metrics=self.measure)
        self._over = threading.Event()
        self._hears = hears
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._hears:
                self.driver.turn()
            else:
                self._over.wait(0.01)

    def tell(self, level: str, what: str, fields: dict[str, object]) -> None:
        self.lines.append((level, what, fields))

    def measure(self, openmetrics: bool) -> bytes:
        assert threading.current_thread() is self._thread, "metrics are made where the core is"
        if openmetrics:
            raise RuntimeError("broken")
        return b"hbagent_nodes 1\n"

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def close(self) -> None:
        self.web.stop()
        self._over.set()
        self.driver.mailbox.post(lambda: None)
        self._thread.join(20)
        self.driver.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.web.start()
    assert until(lambda: any(what == "web-listens" for _, what, _ in made.lines))
    yield made
    made.close()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """A loop that does not turn."""
    monkeypatch.setattr(web_module, "ANSWER_S", 0.05)
    made = Loop(hears=False)
    yield made
    made.close()


def test_a_page_shows_what_the_core_says(loop: Loop) -> None:
    assert loop.get("healthz") == (200, b"ok\n")
    status, body = loop.get("api/v1/status")
    assert status == 200
    assert msgspec.json.decode(body)["root"]["name"] == "dc/root"
    status, body = loop.get("")
    assert status == 200
    assert b"dc/r1" in body
    assert loop.get("node/dc/r1/n1")[0] == 404
    assert loop.get("metrics")[1].endswith(b"hbagent_nodes 1\n")


def test_a_defect_of_the_metrics_is_booked_and_told(loop: Loop) -> None:
    status, body = loop.get("metrics", Accept="application/openmetrics-text")
    assert (status, body) == (503, b"a defect: RuntimeError('broken')\n")
    assert until(lambda: loop.driver.defects.count == 1)
    assert loop.get("healthz")[0] == 200


def test_what_cannot_be_encoded_is_a_defect_and_told(loop: Loop) -> None:
    with pytest.raises(TypeError):
        loop.web.answer(Answer(AT_PAGE, 999, object()))


def test_an_answer_that_nobody_waits_for_is_dropped(loop: Loop) -> None:
    loop.web.answer(Answer(AT_PAGE, 999, {"x": 1}))
    loop.driver.post(Query(id=998, what="ping"), AT_PAGE.decode())
    assert loop.get("healthz")[0] == 200


def test_an_answer_that_comes_as_its_asker_gives_up_is_dropped(deaf: Loop) -> None:
    async def give_up() -> None:
        future = deaf.web._asked[1] = asyncio.get_running_loop().create_future()
        future.cancel()
        deaf.web._arrived(1, Reply(b"late"))

    asyncio.run(give_up())


def test_a_loop_that_does_not_turn_is_told_in_time(deaf: Loop) -> None:
    reply = asyncio.run(deaf.web.ask("ping"))
    assert reply.error.startswith("no answer within")
    assert not deaf.web._asked


def test_questions_under_way_are_bounded(deaf: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "ASKED_MAX", 3)

    async def ask_five() -> list[str]:
        return [reply.error for reply in await asyncio.gather(*(deaf.web.ask("ping") for _ in range(5)))]

    errors = asyncio.run(ask_five())
    assert sorted(error[:8] for error in errors) == ["no answe"] * 3 + ["too many"] * 2


def test_a_full_mailbox_refuses_a_question(deaf: Loop) -> None:
    monkey = deaf.driver.mailbox
    while monkey.post(lambda: None):
        pass
    assert asyncio.run(deaf.web.ask("ping")).error.startswith("too much to do")


def test_a_port_that_is_taken_is_told_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "AGAIN_S", 0.05)
    made = Loop()
    try:
        with socket.create_server(made.at):
            made.web.start()
            assert until(lambda: made.lines)
            select_a_while()
        assert until(lambda: made.lines[-1][1] == "web-listens")
        assert [(level, what) for level, what, _ in made.lines[:-1]] == [("error", "web-failed")]
        assert made.get("healthz")[0] == 200
    finally:
        made.close()


def select_a_while() -> None:
    """Long enough for a few more tries."""
    threading.Event().wait(0.2)


def test_it_ends_at_once_whoever_listens(loop: Loop) -> None:
    with urllib.request.urlopen(loop.url + "events", timeout=20) as feed:
        assert feed.readline()
        loop.web.stop()
        assert until(lambda: not loop.web._thread.is_alive()), "and serves for ever otherwise"


def test_a_daemon_without_a_page_loads_none_of_it() -> None:
    code = (
        "import sys, hbagent.role.root, hbagent.role.leader, hbagent.role.agent\n"
        "sys.exit(any(name.startswith('hbagent.web') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
