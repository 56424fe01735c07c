"""Each write is answered once and in time, whatever the disk does."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from hbagent.core.messages import KeepFailed, Kept
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.role.driver import Driver
from hbagent.role.keeper import Keeper
from hbagent.role.worker import Worker
from hbagent.store.journal import Journal, JournalError
from tests.role.conftest import StartWorker
from tests.role.parts import Lines, SmallCore
from tests.role.test_driver import turn_until


@pytest.fixture
def worker(start_worker: StartWorker) -> Worker:
    return start_worker()


def test_what_is_on_disk_is_kept(driver: Driver, core: SmallCore, worker: Worker, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.load()
    keeper = Keeper(driver, worker, JournalError)
    for token in (1, 2):
        keeper.write(token, lambda token=token: journal.append([{"n": token}]))  # type: ignore[misc]
    assert turn_until(driver, lambda: core.messages(Kept) == [Kept(1), Kept(2)])
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.load() == [{"n": 1}, {"n": 2}]
    again.close()


def test_a_disk_that_refuses_is_told_with_its_reason(
    driver: Driver, core: SmallCore, worker: Worker, tmp_path: Path, lines: Lines
) -> None:
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "journal")
    keeper = Keeper(driver, worker, JournalError)
    keeper.write(7, journal.load)
    assert turn_until(driver, lambda: core.messages(KeepFailed))
    (failed,) = core.messages(KeepFailed)
    assert failed.token == 7
    assert failed.reason == f"{tmp_path}/file/journal: {os.strerror(errno.EEXIST)}"
    assert lines.told == []


def test_a_job_that_raises_anything_else_is_a_defect_and_still_answered(
    driver: Driver, core: SmallCore, worker: Worker, lines: Lines
) -> None:
    keeper = Keeper(driver, worker, JournalError)
    keeper.write(7, lambda: [][0])
    assert turn_until(driver, lambda: core.messages(KeepFailed))
    assert "IndexError" in core.messages(KeepFailed)[0].reason
    assert [fields["where"] for fields in lines.of("defect")] == ["keep"]


def test_a_disk_that_hangs_fails_what_it_holds_and_what_comes_after(
    driver: Driver, core: SmallCore, worker: Worker
) -> None:
    release = threading.Event()
    keeper = Keeper(driver, worker, JournalError, 50 * MILLISECOND)
    keeper.write(1, lambda: release.wait(20))
    keeper.write(2, lambda: None)
    assert turn_until(driver, lambda: len(core.messages(KeepFailed)) == 2)
    for token in range(3, 3_000):
        keeper.write(token, lambda: None)
    assert turn_until(driver, lambda: len(core.messages(KeepFailed)) == 2_999)
    assert [failed.token for failed in core.messages(KeepFailed)] == list(range(1, 3_000))
    assert "has not answered for" in core.messages(KeepFailed)[-1].reason
    release.set()
    assert turn_until(driver, lambda: not keeper._pending)
    assert core.messages(Kept) == [], "each is answered once"
    keeper._patience_ns = 60 * SECOND
    keeper.write(3_000, lambda: None)
    assert turn_until(driver, lambda: core.messages(Kept) == [Kept(3_000)])


def test_a_slow_disk_that_answers_in_time_fails_nothing(driver: Driver, core: SmallCore, worker: Worker) -> None:
    pause = threading.Event()
    keeper = Keeper(driver, worker, JournalError, 60 * SECOND)
    for token in range(10):
        keeper.write(token, lambda: pause.wait(0.005))
    assert turn_until(driver, lambda: len(core.messages(Kept)) == 10)
    assert core.messages(KeepFailed) == []


def test_a_core_that_has_its_own_patience_is_told_when_the_disk_answers(
    driver: Driver, core: SmallCore, worker: Worker
) -> None:
    release = threading.Event()
    keeper = Keeper(driver, worker, JournalError, None)
    keeper.write(1, lambda: release.wait(20))
    end = threading.Timer(0.1, release.set)
    end.start()
    assert turn_until(driver, lambda: core.messages(Kept) == [Kept(1)])
    assert core.messages(KeepFailed) == []


def test_more_writes_than_the_worker_takes_are_answered_too(driver: Driver, core: SmallCore) -> None:
    release = threading.Event()
    worker = Worker("test", lambda error: None, jobs_max=2)
    keeper = Keeper(driver, worker, JournalError)
    for token in range(10):
        keeper.write(token, lambda: release.wait(20))
    assert turn_until(driver, lambda: len(core.messages(KeepFailed)) >= 7)
    release.set()
    assert turn_until(driver, lambda: len(core.messages(KeepFailed)) + len(core.messages(Kept)) == 10)
    assert worker.stop(20.0)
