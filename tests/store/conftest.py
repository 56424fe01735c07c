"""Where the store's tests keep their files, and a database server for those that want one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.store.history import History
from hbagent.store.postgres import PostgresHistory
from hbagent.store.sqlite import SqliteHistory
from tests.store.server import Server, running

#: Makes a store at the same place each time, with these limits.
Open = Callable[..., History]


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where the machine has one: thousands of syncs take minutes on a busy disk.

    Nothing but the time of a sync is different there, also for a process that is killed.
    """
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="hbagent-test-") as name:
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def path(quick_disk: Path) -> Path:
    """Where the tests' SQLite file is."""
    return quick_disk / "state" / "root.db"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running database server."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def open_store(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens one and the same store, again and again, and closes the last one."""
    opened: list[History] = []
    if request.param == "sqlite":
        path = request.getfixturevalue("path")

        def make(**limits: int) -> History:
            return SqliteHistory(path, **limits)

    else:
        server = request.getfixturevalue("server")
        address = server.address(server.new_schema())

        def make(**limits: int) -> History:
            return PostgresHistory(address, **limits)

    def open_store(**limits: int) -> History:
        if opened:
            opened.pop().close()
        opened.append(make(**limits))
        return opened[0]

    yield open_store
    if opened:
        opened.pop().close()
