"""Whoever asks about history does not wait for a long commit, and finds what a short one wrote."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.effects import Answer, Fetch
from hbagent.core.records import Batch
from hbagent.core.units import SECOND
from hbagent.role import readingroom, reads
from hbagent.role.driver import Driver
from hbagent.role.readingroom import READS_MAX, ReadingRoom
from hbagent.role.worker import Worker
from hbagent.store import sqlite as sqlite_module
from hbagent.store.sqlite import SqliteHistory
from tests.role.conftest import StartWorker
from tests.role.test_driver import turn_until
from tests.store.holding import held_up
from tests.store.samples import batch, event, incident

Back = Callable[[], int]


class Counter:
    """Where questions come in and answers go out."""

    def __init__(self, driver: Driver, worker: Worker, history: SqliteHistory) -> None:
        self.driver = driver
        self.answers: list[Answer] = []
        self.failures: list[BaseException] = []
        self.room = ReadingRoom(driver, worker, history, self.answers.append, self.failures.append)
        self._asked = 0

    def ask(self, what: str = "events", view: Any = None, **fields: Any) -> int:
        self._asked += 1
        self.room.fetch(Fetch(b"me", self._asked, 10, 0, "", view, what=what, **fields))
        return self._asked

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to a question, once it is there; {} when it does not come in time."""
        if not turn_until(self.driver, lambda: any(answer.id == number for answer in self.answers)):
            return {}
        (answer,) = (answer for answer in self.answers if answer.id == number)
        return {"error": answer.error} if answer.error else dict(msgspec.to_builtins(answer.view))

    def events(self, number: int) -> list[int]:
        return [row["sequence"] for row in self.answer(number).get("events", ())]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture
def history(path: Path) -> Iterator[SqliteHistory]:
    opened = SqliteHistory(path)
    opened.commit(batch(1))
    yield opened
    opened.close()


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    return start_worker()


@pytest.fixture
def counter(driver: Driver, worker: Worker, history: SqliteHistory) -> Iterator[Counter]:
    made = Counter(driver, worker, history)
    yield made
    made.room.stop(2.0)
    assert made.failures == []


@pytest.fixture
def back(counter: Counter, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Back:
    """How many questions the reader has given back to the worker."""
    given: list[object] = []
    submit = worker.submit

    def note(job: Callable[[], object]) -> bool:
        taken = submit(job)
        given.append(getattr(job, "func", None))
        return taken

    monkeypatch.setattr(worker, "submit", note)
    return lambda: given.count(counter.room._read_now)


@contextlib.contextmanager
def busy(worker: Worker) -> Iterator[threading.Event]:
    """Within, the store's worker is at a job, until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go_on.wait(20)

    worker.submit(job)
    assert begun.wait(20)
    try:
        yield go_on
    finally:
        go_on.set()


# ---- a long commit ---------------------------------------------------------------------------------------------


def test_a_question_is_answered_while_a_commit_waits_for_the_disk(
    counter: Counter, worker: Worker, history: SqliteHistory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_S", 20.0)
    history.restore()
    written = threading.Event()

    def commit() -> None:
        history.commit(batch(2))
        written.set()

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as operator:
        operator.execute("BEGIN IMMEDIATE")
        worker.submit(commit)
        for _ in range(READS_MAX + 1):
            assert counter.events(counter.ask()) == [1]
        assert not written.is_set()
        operator.execute("ROLLBACK")
    assert turn_until(counter.driver, written.is_set)
    monkeypatch.setattr(readingroom, "PATIENCE_NS", 60 * SECOND)
    assert counter.events(counter.ask()) == [2, 1]
    assert counter.room.by_reader == READS_MAX + 1


def test_of_a_commit_under_way_the_answer_has_all_or_nothing(
    counter: Counter, worker: Worker, history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    storm = Batch(events=tuple(event(number) for number in range(2, 200)))
    with busy(worker), held_up(history, storm, monkeypatch):
        assert counter.events(counter.ask()) == [1]
    assert counter.events(counter.ask()) == list(range(199, 189, -1))


def test_what_hangs_collects_no_questions(counter: Counter, worker: Worker) -> None:
    with busy(worker):
        assert counter.events(counter.ask()) == [1]
        left = worker._jobs.qsize()
        assert left <= 1, "the one that had waited"
        for _ in range(10):
            assert counter.events(counter.ask()) == [1]
        assert worker._jobs.qsize() == left


def test_no_more_questions_than_so_many_wait_and_each_is_answered_once(
    counter: Counter, worker: Worker, history: SqliteHistory, back: Back
) -> None:
    with busy(worker), history.reader().moment():
        numbers = [counter.ask() for _ in range(2 * READS_MAX)]
        refused = {answer.id for answer in counter.answers}
        assert refused == set(numbers[READS_MAX:])
        assert {answer.error for answer in counter.answers} == {"the store is busy; ask again in a moment"}
        # The reader is taken, so they go back to the worker, beside what is left of them there.
        assert turn_until(counter.driver, lambda: back() == READS_MAX)
    assert [counter.events(number) for number in numbers[:READS_MAX]] == READS_MAX * [[1]]
    assert counter.events(counter.ask()) == [1], "and the next one is taken"
    assert len(counter.answers) == 2 * READS_MAX + 1


# ---- a short one -----------------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit is a short one."""
    monkeypatch.setattr(readingroom, "PATIENCE_NS", 60 * SECOND)


def test_what_was_given_to_the_store_before_the_question_is_in_the_answer(
    patient: None, counter: Counter, worker: Worker, history: SqliteHistory
) -> None:
    with busy(worker):
        worker.submit(lambda: history.commit(batch(2)))
        number = counter.ask()
    assert counter.events(number) == [2, 1]
    assert (counter.room.by_worker, counter.room.by_reader) == (1, 0)


def test_a_question_to_an_idle_store_opens_no_second_connection(
    patient: None, counter: Counter, history: SqliteHistory
) -> None:
    assert counter.events(counter.ask()) == [1]
    assert history.reader()._open_database is None


# ---- what the reader cannot say --------------------------------------------------------------------------------


def unreadable(history: SqliteHistory) -> None:
    with history.reader().away():
        pass


def gone(history: SqliteHistory) -> None:
    history.path.rename(history.path.with_name("moved"))


@pytest.mark.parametrize("spoil", [unreadable, gone])
def test_a_reader_that_fails_leaves_the_question_to_the_worker(
    counter: Counter, worker: Worker, history: SqliteHistory, back: Back, spoil: Callable[[SqliteHistory], None]
) -> None:
    spoil(history)
    with busy(worker) as go_on:
        number = counter.ask()
        assert turn_until(counter.driver, lambda: back() == 1)
        go_on.set()
        assert counter.events(number) == [1]
    assert (counter.room.by_worker, counter.room.by_reader) == (1, 0)


def test_that_nothing_is_known_is_for_the_worker_to_say(
    counter: Counter, worker: Worker, history: SqliteHistory, back: Back
) -> None:
    """What is asked about may be in the very commit that takes so long."""
    with busy(worker) as go_on:
        worker.submit(lambda: history.commit(Batch(incidents=(incident(8),))))
        known = counter.ask("unsent", {"burning": []}, incident=incident(8).incident_id)
        unknown = counter.ask("unsent", {"burning": []}, incident="i999")
        assert turn_until(counter.driver, lambda: back() == 2)
        go_on.set()
        assert counter.answer(known) == {"burning": [], "unsent": []}
        assert "no incident 'i999' is known" in counter.answer(unknown)["error"]


# ---- between busy threads --------------------------------------------------------------------------------------


@pytest.fixture
def usual_s() -> Iterator[float]:
    """How soon threads change otherwise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


def test_threads_change_quickly_while_a_question_is_answered_and_only_then(
    usual_s: float, counter: Counter, worker: Worker, history: SqliteHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    answer_of = reads.answer_of

    def look(*asked: Any) -> object:
        seen.append(sys.getswitchinterval())
        return answer_of(*asked)

    monkeypatch.setattr(reads, "answer_of", look)
    assert counter.events(counter.ask()) == [1]
    with busy(worker):
        assert counter.events(counter.ask()) == [1]
    assert "no incident" in counter.answer(counter.ask("unsent", {"burning": []}, incident="i999"))["error"]
    assert all(abs(each - readingroom.SWITCH_S) < 1e-6 for each in seen)
    assert len(seen) >= 3
    assert sys.getswitchinterval() == usual_s
