"""A worker does one job after the other, outlives those that raise, and can be left behind when one hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hbagent.role.worker import Worker
from tests.role.parts import BOUND_S


def hold(taken: threading.Event, release: threading.Event) -> Callable[[], None]:
    """A job that says when it began and goes on until it may end."""

    def job() -> None:
        taken.set()
        release.wait(300)

    return job


def test_jobs_run_in_order_and_not_in_the_callers_thread() -> None:
    worker = Worker("test", lambda error: None)
    done: list[tuple[int, str]] = []
    for number in range(50):
        assert worker.submit(lambda number=number: done.append((number, threading.current_thread().name)))  # type: ignore[misc]
    assert worker.stop(BOUND_S)
    assert done == [(number, "test") for number in range(50)]


def test_a_job_that_raises_is_told_and_the_next_goes_on() -> None:
    told: list[BaseException] = []
    worker = Worker("test", told.append)
    done = threading.Event()
    worker.submit(lambda: [][0])
    worker.submit(done.set)
    assert done.wait(BOUND_S)
    assert [type(error) for error in told] == [IndexError]
    assert worker.stop(BOUND_S)


def test_a_worker_that_is_stuck_takes_so_many_jobs_and_refuses_the_rest_at_once() -> None:
    release = threading.Event()
    started = threading.Event()
    worker = Worker("test", lambda error: None, jobs_max=3)
    worker.submit(hold(started, release))
    assert started.wait(BOUND_S)
    # Who waited for room would wait for ever.
    assert [worker.submit(lambda: None) for _ in range(5)] == [True, True, True, False, False]
    release.set()
    assert worker.stop(BOUND_S)


def test_stopping_a_stuck_worker_takes_no_longer_than_allowed() -> None:
    release = threading.Event()
    # Longer than the test may take; a full queue is another place to wait at than the job under way.
    for waiting in (0, 2):
        worker = Worker("test", lambda error: None, jobs_max=2)
        taken = threading.Event()
        worker.submit(hold(taken, release))
        assert taken.wait(BOUND_S)
        for _ in range(waiting):
            worker.submit(lambda: None)
        assert not worker.stop(0.1)
    release.set()
