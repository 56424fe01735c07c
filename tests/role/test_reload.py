"""SIGHUP: a good file is taken over in the loop, a bad one is told and changes nothing, a slow one stops nobody."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from hbagent.core.messages import Linked
from hbagent.role.driver import Driver
from hbagent.role.reload import Reload, needs_restart
from hbagent.role.settings import AgentSettings, load_agent
from hbagent.role.worker import Worker
from tests.role.conftest import StartWorker
from tests.role.parts import Lines, SmallCore
from tests.role.test_driver import turn_until
from tests.role.test_worker import hold

GOOD = """
[agent]
node = "demo/rack1/node1"
interval = "250ms"
[security]
plain = true
[[leader]]
name = "demo/rack1-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""


class Taken:
    """Settings that were taken over, and in which thread."""

    def __init__(self) -> None:
        self.settings: list[AgentSettings] = []
        self.threads: list[str] = []

    def __call__(self, settings: AgentSettings) -> None:
        self.settings.append(settings)
        self.threads.append(threading.current_thread().name)


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    return start_worker()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def done(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry each time that the driver was told that a reload is over."""
    found: list[int] = []
    monkeypatch.setattr(driver, "reload_done", lambda: found.append(1))
    return found


def test_a_good_file_is_read_by_the_worker_and_taken_over_by_the_loop(
    driver: Driver, worker: Worker, file: Path, lines: Lines, done: list[int]
) -> None:
    taken = Taken()
    reload = Reload(file, load_agent, taken, driver, lines)
    file.write_text(GOOD.replace("250ms", "500ms"))
    reload.start(worker)
    assert turn_until(driver, lambda: done)
    assert [settings.core.interval_ns for settings in taken.settings] == [500_000_000]
    assert taken.threads == [threading.current_thread().name]
    assert lines.of("reloaded") == [{"file": str(file)}]


def test_every_problem_of_a_bad_file_is_told_and_nothing_is_taken_over(
    driver: Driver, worker: Worker, file: Path, lines: Lines, done: list[int]
) -> None:
    taken = Taken()
    reload = Reload(file, load_agent, taken, driver, lines)
    file.write_text(GOOD.replace("interval", "intervall").replace("tcp://127.0.0.1:5701", "5701"))
    reload.start(worker)
    assert turn_until(driver, lambda: done)
    problems = [fields["problem"] for fields in lines.of("config-refused")]
    assert len(problems) >= 2
    assert any(f'{file}:4: [agent]: unknown key "intervall"' in problem for problem in problems), problems
    assert taken.settings == []
    assert lines.of("reloaded") == []


def test_settings_that_cannot_be_taken_over_are_told(
    driver: Driver, worker: Worker, file: Path, lines: Lines, done: list[int]
) -> None:
    def refuse(settings: AgentSettings) -> None:
        raise OSError("no such address")

    Reload(file, load_agent, refuse, driver, lines).start(worker)
    assert turn_until(driver, lambda: done)
    assert "no such address" in lines.of("reload-failed")[0]["error"]


def test_a_file_that_is_slow_to_read_stops_no_message(
    driver: Driver, core: SmallCore, worker: Worker, file: Path, lines: Lines, done: list[int]
) -> None:
    release = threading.Event()

    def slow(path: Path) -> AgentSettings:
        release.wait(20)
        return load_agent(path)

    taken = Taken()
    reload = Reload(file, slow, taken, driver, lines)
    reload.start(worker)
    driver.post(Linked("demo/rack1-leader1", True))
    assert turn_until(driver, lambda: core.messages(Linked))
    assert not done
    release.set()
    assert turn_until(driver, lambda: done)
    assert len(taken.settings) == 1


def test_what_is_asked_for_while_reading_reads_once_more(
    driver: Driver, worker: Worker, file: Path, lines: Lines, done: list[int]
) -> None:
    first, release = threading.Event(), threading.Event()

    def slow(path: Path) -> AgentSettings:
        settings = load_agent(path)
        first.set()
        release.wait(20)
        return settings

    taken = Taken()
    reload = Reload(file, slow, taken, driver, lines)
    reload.start(worker)
    assert first.wait(20)
    file.write_text(GOOD.replace("250ms", "750ms"))
    for _ in range(5):
        reload.start(worker)
    release.set()
    assert turn_until(driver, lambda: done)
    assert [settings.core.interval_ns for settings in taken.settings] == [750_000_000]


def test_a_worker_that_is_stuck_refuses_the_reload_and_says_so(
    driver: Driver, file: Path, lines: Lines, done: list[int]
) -> None:
    release = threading.Event()
    worker = Worker("test", lambda error: None, jobs_max=1)
    taken = threading.Event()
    worker.submit(hold(taken, release))
    assert taken.wait(20)
    # The worker is at that one, and this one is all that may wait.
    assert worker.submit(lambda: None)
    Reload(file, load_agent, Taken(), driver, lines).start(worker)
    assert done
    assert "stuck" in lines.of("reload-failed")[0]["error"]
    release.set()
    worker.stop(20.0)


def test_what_only_a_restart_changes_is_told_by_name(file: Path, lines: Lines) -> None:
    old = load_agent(file)
    new = msgspec.structs.replace(old, echo_port=1234, reconnect_ns=(1, 2))
    needs_restart(old, new, ("security", "echo_bind", "echo_port", "reconnect_ns"), lines)
    assert lines.of("needs-restart") == [{"setting": "echo_port"}, {"setting": "reconnect_ns"}]
