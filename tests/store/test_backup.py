"""A copy that has its name is whole; a root that is started on it goes on."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from hbagent.core.records import Batch, RunState
from hbagent.store import failpoint
from hbagent.store.backup import Backup, back_up, verify
from hbagent.store.failpoint import EXIT_STATUS
from hbagent.store.history import HistoryError
from hbagent.store.sqlite import SqliteHistory
from tests.store import older
from tests.store.crashing import ROOT
from tests.store.samples import balanced, batch, event, fill, restore, restored_of, run, sequences

BACK_UP = (
    "import sys; from pathlib import Path; from hbagent.store.backup import back_up; "
    "back_up(Path(sys.argv[1]), Path(sys.argv[2]))"
)


@pytest.fixture
def copy(path: Path) -> Path:
    return path.with_name("copy.sqlite")


def test_a_copy_of_a_store_in_use_has_all_that_was_committed(path: Path, copy: Path) -> None:
    history = SqliteHistory(path)
    for number in (1, 2, 3):
        history.commit(batch(number))
    found = back_up(path, copy)
    assert (found.rows["events"], found.rows["hook_runs"], found.rows["unsent"]) == (3, 3, 3)
    assert (found.newest_sequence, found.newest_wall_ns, found.problems) == (3, 3_000_000_000, ())
    history.commit(batch(4))
    history.close()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith("copy")] == ["copy.sqlite"]
    assert restore(copy) == restored_of([1, 2, 3])


def test_a_root_that_is_started_on_a_copy_goes_on(path: Path, copy: Path) -> None:
    fill(path, [1, 2, 3])
    back_up(path, copy)
    fill(path, [4])
    os.replace(copy, path)
    history = SqliteHistory(path)
    assert history.restore() == restored_of([1, 2, 3])
    history.commit(batch(5))
    assert sequences(history.events(10)) == [5, 3, 2, 1]
    assert balanced(history)
    history.close()


def test_a_copy_that_is_taken_while_much_is_written_is_of_one_moment(path: Path) -> None:
    history = SqliteHistory(path)
    history.restore()
    enough = threading.Event()

    def write() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            history.commit(batch(number))
        history.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [path.with_name(f"copy{at}") for at in range(5)]
        found = [back_up(path, copy) for copy in copies]
    finally:
        enough.set()
        writer.join()
    for copy, told in zip(copies, found, strict=True):
        newest = told.newest_sequence
        assert told.problems == ()
        assert newest == 0 or restore(copy) == restored_of(range(1, newest + 1))


def test_what_is_there_already_is_not_written_over(path: Path, copy: Path) -> None:
    fill(path, [1])
    copy.write_text("precious")
    with pytest.raises(HistoryError, match="something already"):
        back_up(path, copy)
    assert copy.read_text() == "precious"


def test_what_came_there_meanwhile_is_not_written_over(path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, [1])
    monkeypatch.setattr(failpoint, "hit", lambda name: copy.write_text("precious"))
    with pytest.raises(HistoryError, match="File exists"):
        back_up(path, copy)
    assert copy.read_text() == "precious"


@pytest.mark.parametrize("place", ["nowhere/copy", "file/copy"])
def test_a_place_that_cannot_be_written_is_told(path: Path, place: str) -> None:
    fill(path, [1])
    (path.parent / "file").touch()
    with pytest.raises(HistoryError, match=r"copy: (No such|Not a) "):
        back_up(path, path.parent / place)


def test_damage_is_told_and_copied(path: Path, copy: Path) -> None:
    fill(path, [1, 2])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node1'")
        connection.execute("DELETE FROM unsent WHERE queued = 1")
        connection.commit()
    assert back_up(path, copy).problems == (
        "1 rows of nodes do not match their checksum",
        "event-1 (node-dead) has 2 notices and 1 rows",
    )


def test_what_a_root_would_not_take_is_no_backup(path: Path, copy: Path) -> None:
    older.write(path, 2, [1])
    with pytest.raises(HistoryError, match="version 2"):
        back_up(path, copy)
    assert not copy.exists()
    path.unlink()
    fill(path, [1])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE marks")
        connection.commit()
    with pytest.raises(HistoryError, match="tables"):
        back_up(path, copy)
    assert not list(path.parent.glob("copy*"))


def test_a_copy_that_a_crash_has_stopped_has_not_its_name(path: Path, copy: Path) -> None:
    fill(path, [1])
    ended = subprocess.run(
        [sys.executable, "-c", BACK_UP, str(path), str(copy)],
        env={**os.environ, "HBAGENT_FAILPOINT": "backup-written"},
        cwd=ROOT,
        check=False,
    )
    assert ended.returncode == EXIT_STATUS
    assert not copy.exists()
    assert back_up(path, copy) == verify(copy), "and the next one is made all the same"
    assert isinstance(verify(copy), Backup)


def test_a_large_store_is_copied_row_by_row(path: Path, copy: Path) -> None:
    history = SqliteHistory(path)
    runs = tuple(run(number, RunState.DONE) for number in range(1, 2001))
    history.commit(Batch(events=tuple(map(event, range(1, 2001))), runs=runs))
    history.close()
    assert back_up(path, copy).rows["events"] == 2000
