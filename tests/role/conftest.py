"""Drivers, workers, a systemd and log descriptors that are closed after the test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.core.effects import Note
from hbagent.core.units import MILLISECOND
from hbagent.demo.datacenter import Plan
from hbagent.role import driver as driver_module
from hbagent.role.driver import Driver
from hbagent.role.sdnotify import Notifier
from hbagent.role.worker import Worker
from tests.e2e.fleet import Fleet
from tests.role.parts import Lines, SmallCore, Systemd
from tests.transport.conftest import context, open_door, watch

__all__ = ["context", "open_door", "watch"]

Build = Callable[[Plan], Fleet]
StartWorker = Callable[[], Worker]


@pytest.fixture
def build(socket_dir: Path) -> Iterator[Build]:
    """Makes datacenters of real processes that end with the test; nothing is written or started yet."""
    fleets: list[Fleet] = []

    def make(plan: Plan) -> Fleet:
        fleets.append(Fleet(socket_dir / f"{len(fleets)}", plan))
        return fleets[-1]

    yield make
    for fleet in fleets:
        fleet.stop()


@pytest.fixture
def lines() -> Lines:
    """Takes log lines."""
    return Lines()


@pytest.fixture
def core() -> SmallCore:
    """A core to script."""
    return SmallCore()


@pytest.fixture
def driver(core: SmallCore, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Turns `core`; notes go to `lines`. An idle turn takes a twentieth of what it does in production."""
    monkeypatch.setattr(driver_module, "IDLE_NS", 50 * MILLISECOND)
    made = Driver(core, {Note: lambda note: lines(note.level, note.what, note.fields)}, Notifier({}), lines)
    yield made
    made.close()


@pytest.fixture
def systemd(socket_dir: Path) -> Iterator[Systemd]:
    """Listens as systemd would."""
    made = Systemd.at(socket_dir)
    yield made
    made.close()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts this process's own signal handlers back after the test."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Starts workers that are ended after the test."""
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker("test", lambda error: None))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop(20.0)
