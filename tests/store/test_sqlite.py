"""A store in a file: it survives crashes, damage and full disks, and sets aside what it cannot use."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hbagent.core.records import Batch, Restored
from hbagent.store import sqlite as sqlite_module
from hbagent.store.failpoint import EXIT_STATUS, POINTS
from hbagent.store.history import EVENTS_READ_MAX, HistoryError
from hbagent.store.sqlite import SqliteHistory
from tests.store.crashing import WRITER, run_writer
from tests.store.samples import (
    balanced,
    batch,
    change,
    event,
    fill,
    mark,
    restore,
    restored_of,
    run,
    sequences,
    state,
    tally,
    without_problems,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def history(path: Path) -> Iterator[SqliteHistory]:
    history = SqliteHistory(path)
    history.restore()
    yield history
    history.close()


def test_a_missing_store_is_an_empty_one_for_its_owner_alone(path: Path) -> None:
    assert restore(path) == Restored()
    assert path.stat().st_mode & 0o777 == 0o600


def test_each_commit_is_synced(history: SqliteHistory) -> None:
    """With synchronous=NORMAL a power loss could take back what was acknowledged; no test can pull the plug."""
    assert history._open_database is not None
    assert history._open_database.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert history._open_database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_two_processes_cannot_use_one_store(history: SqliteHistory, path: Path) -> None:
    with pytest.raises(HistoryError, match=r"root\.db: another process"):
        SqliteHistory(path).restore()
    history.close()
    restore(path)


def test_a_lock_of_somebody_else_is_an_error_that_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.01)
    fill(path, [1])
    history = SqliteHistory(path)
    history.restore()
    operator = sqlite3.connect(path, isolation_level=None)
    operator.execute("BEGIN IMMEDIATE")
    with pytest.raises(HistoryError, match="locked"):
        history.commit(batch(2))
    operator.execute("ROLLBACK")
    operator.close()
    history.commit(batch(2))
    assert sequences(history.events(10)) == [2, 1]
    history.close()


# ---- damage ----------------------------------------------------------------------------------------------------

#: With the long runs every byte is flipped: four minutes a mask. Else one of so many, each mask others.
THOROUGH = int(os.environ.get("HBAGENT_SEEDS", "0")) >= 1000
WRITTEN = range(1, 6)
TRUE = restored_of(WRITTEN)
TRUE_EVENTS = {number: msgspec.to_builtins(event(number, notices=2)) for number in WRITTEN}


def check_after_damage(path: Path) -> Restored:
    """Start on a damaged store, look at what a start owes, and return what came back."""
    history = SqliteHistory(path)
    restored = history.restore()
    for name in ("nodes", "runs", "troubles", "incidents", "silences", "convictions", "marks"):
        phantoms = [one for one in getattr(restored, name) if one not in getattr(TRUE, name)]
        assert not phantoms or name == "marks"
    assert all(one in map(mark, WRITTEN) for one in restored.marks)
    assert all(one in map(tally, WRITTEN) for one in restored.tallies)
    assert restored.newest_sequence in (0, *WRITTEN)
    for found in history.events(100):
        assert found == TRUE_EVENTS[found["sequence"]]
    history.commit(batch(9))
    assert history.events(1) == [msgspec.to_builtins(event(9, notices=2))]
    history.close()
    again = restore(path)
    assert state(9) in again.nodes
    assert run(9) in again.runs
    assert again.problems == ()
    return restored


def put(path: Path, content: bytes, log: bytes | None = None) -> None:
    for entry in path.parent.iterdir():
        entry.unlink()
    path.write_bytes(content)
    if log is not None:
        path.with_name(path.name + "-wal").write_bytes(log)


def places(content: bytes, every: int) -> list[int]:
    """All of the file's header, and every so many of the bytes that are in use."""
    return [*range(100), *[place for place in range(100, len(content)) if content[place]][::every]]


def check_flips(path: Path, every: int, mask: int) -> None:
    fill(path, WRITTEN)
    content = path.read_bytes()
    for place in places(content, every):
        damaged = bytearray(content)
        damaged[place] ^= mask
        put(path, bytes(damaged))
        restored = check_after_damage(path)
        aside = path.with_name(path.name + ".corrupt-1")
        if restored.problems:
            assert aside.exists()
        else:
            assert restored == TRUE, f"silent loss, byte {place}"


def test_with_a_byte_flipped_it_starts_without_phantoms_or_silent_loss(path: Path) -> None:
    check_flips(path, 797, 0xFF)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("mask", "step"), [(0x01, 11), (0x80, 13), (0xFF, 17)])
def test_with_any_byte_flipped_it_starts_without_phantoms_or_silent_loss(path: Path, mask: int, step: int) -> None:
    check_flips(path, 1 if THOROUGH else step, mask)


def check_truncations(path: Path, step: int) -> None:
    fill(path, WRITTEN)
    content = path.read_bytes()
    for size in [*range(0, 120, 7), *range(120, len(content), step), len(content) - 1]:
        put(path, content[:size])
        restored = check_after_damage(path)
        # A page may be empty at its end.
        assert restored.problems or size == 0 or restored == TRUE


def test_truncated_it_starts_without_phantoms(path: Path) -> None:
    check_truncations(path, 2003)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_truncated_anywhere_it_starts_without_phantoms(path: Path) -> None:
    check_truncations(path, 17)


def unclosed(path: Path) -> tuple[bytes, bytes]:
    """File and log as a crash leaves them."""
    history = SqliteHistory(path)
    history.restore()
    for number in WRITTEN:
        history.commit(batch(number))
    content, log = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    history.close()
    return content, log


def check_log_damage(path: Path, step: int) -> None:
    content, log = unclosed(path)
    for place in range(0, len(log), step):
        put(path, content, log[:place])
        newest = check_after_damage(path).newest_sequence
        damaged = bytearray(log)
        damaged[place] ^= 0xFF
        put(path, content, bytes(damaged))
        assert check_after_damage(path).newest_sequence >= newest


def test_with_a_damaged_log_it_goes_back_to_a_whole_commit(path: Path) -> None:
    check_log_damage(path, 12007)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_with_a_log_damaged_anywhere_it_goes_back_to_a_whole_commit(path: Path) -> None:
    check_log_damage(path, 53)


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"\xff" * 8192, b"SQLite format 3\0", b"hello\n" * 1000])
def test_a_file_that_is_no_store_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert len(check_after_damage(path).problems) == (1 if content else 0)
    if content:
        assert path.with_name(path.name + ".corrupt-1").read_bytes() == content


def test_another_version_is_set_aside_unread(path: Path) -> None:
    fill(path, WRITTEN)
    change(path, "PRAGMA user_version=4")
    restored = check_after_damage(path)
    assert (restored.nodes, restored.newest_sequence) == ((), 0)
    assert "version 4, not 3" in restored.problems[0]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nodes SET node = 'dc1/rack1/phantom' WHERE node = 'dc1/rack1/node3'",
        "UPDATE nodes SET body = replace(body, 'DEAD', 'LEFT') WHERE node = 'dc1/rack1/node3'",
        "UPDATE nodes SET body = CAST(body AS TEXT), crc = 'x' WHERE node = 'dc1/rack1/node3'",
        "UPDATE nodes SET crc = NULL WHERE node = 'dc1/rack1/node3'",
    ],
)
def test_a_row_that_was_changed_is_dropped_and_told(path: Path, statement: str) -> None:
    fill(path, WRITTEN)
    change(path, statement)
    restored = check_after_damage(path)
    nodes = tuple(one for one in TRUE.nodes if one != state(3))
    assert without_problems(restored) == msgspec.structs.replace(TRUE, nodes=nodes)
    assert "1 rows of nodes do not match their checksum" in restored.problems[0]
    assert "46 rows kept" in restored.problems[0]


def test_an_owed_run_cannot_vanish_behind_a_flipped_state(path: Path) -> None:
    fill(path, WRITTEN)
    change(path, "UPDATE hook_runs SET state = 'done' WHERE run_id = 'event-2-page'")
    assert "1 rows of hook_runs" in check_after_damage(path).problems[0]


@pytest.mark.parametrize("change_of", ["sequence = 1000", "node = CAST(x'ff' AS TEXT)", "body = x'00'"])
def test_a_damaged_event_is_left_out(path: Path, history: SqliteHistory, change_of: str) -> None:
    for number in WRITTEN:
        history.commit(batch(number))
    change(path, f"UPDATE events SET {change_of} WHERE sequence = 2")
    assert sequences(history.events(10)) == [5, 4, 3, 1]
    history.close()
    assert restore(path).newest_sequence == 5


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA application_id=5",
        "CREATE TRIGGER foreign_work AFTER INSERT ON nodes BEGIN DELETE FROM nodes; END",
        "DROP TABLE marks",
    ],
)
def test_a_file_that_somebody_rebuilt_is_set_aside_and_its_rows_are_kept(path: Path, statement: str) -> None:
    fill(path, WRITTEN)
    change(path, statement)
    restored = check_after_damage(path)
    assert (restored.nodes, restored.runs, restored.troubles) == (TRUE.nodes, TRUE.runs, TRUE.troubles)
    assert "of this program" in restored.problems[0]


@pytest.mark.parametrize("statement", ["SELECT 1", "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'"])
def test_a_store_that_somebody_locked_is_not_taken_for_an_empty_one(
    path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.01)
    fill(path, WRITTEN)
    change(path, statement)
    operator = sqlite3.connect(path, isolation_level=None)
    operator.execute("PRAGMA locking_mode=EXCLUSIVE")
    operator.execute("BEGIN EXCLUSIVE")
    history = SqliteHistory(path)
    with pytest.raises(HistoryError, match="locked"):
        history.restore()
    operator.execute("ROLLBACK")
    operator.close()
    assert history.restore().runs == TRUE.runs
    history.close()


def test_damage_while_running_is_healed_by_the_next_try(path: Path) -> None:
    history = SqliteHistory(path)
    history.restore()
    # More than SQLite keeps in memory.
    history.commit(Batch(events=tuple(event(number) for number in range(1, 9_000)), nodes=(state(1),)))
    history.close()
    history.restore()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 1_000_000)
    with pytest.raises(HistoryError, match="malformed"):
        history.events(EVENTS_READ_MAX)
    history.commit(batch(20_000))
    assert "SQLite finds" in history.problems[0]
    kept = sequences(history.events(EVENTS_READ_MAX))
    assert (kept[:3], kept[-1]) == ([20_000, 8_999, 8_998], 1), "both sides of the damage"
    history.close()
    restored = restore(path)
    assert restored.nodes == (state(1), state(20_000))
    assert restored.problems == ()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".draft", ".salvaged"])
@pytest.mark.parametrize("what", ["directory", "fifo", "link"])
def test_something_else_in_its_place_is_set_aside(path: Path, suffix: str, what: str) -> None:
    fill(path, WRITTEN)
    # Damage enough to need the draft.
    change(path, "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'")
    victim = path.parent.parent / "victim"
    victim.write_text("untouched")
    place = path.with_name(path.name + suffix)
    place.unlink(missing_ok=True)
    if what == "directory":
        place.mkdir()
        (place / "inside").touch()
    elif what == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(victim)
    check_after_damage(path)
    assert victim.read_text() == "untouched"
    strange = [entry for entry in path.parent.iterdir() if ".corrupt-" in entry.name and not entry.is_file()]
    assert len(strange) == 1 or what == "link"


# ---- crashes ---------------------------------------------------------------------------------------------------


def check_whole(path: Path) -> int:
    """All parts of each batch are there, or none, and the ledger balances; returns how many batches."""
    history = SqliteHistory(path)
    restored = history.restore()
    count = restored.newest_sequence
    assert restored == (restored_of(range(1, count + 1)) if count else Restored())
    assert balanced(history)
    history.close()
    return count


POINTS_OF_A_COMMIT = [name for name in POINTS if name.startswith("history-commit")]
POINTS_WITHIN = [name for name in POINTS if name.startswith("history-wrote")]


def slowly(points: list[str]) -> list[object]:
    return [pytest.param(point, marks=pytest.mark.slow) for point in points]


@pytest.mark.parametrize(
    "point",
    [
        *("history-created", *POINTS_OF_A_COMMIT),
        *slowly([f"{name}:3" for name in POINTS_OF_A_COMMIT]),
        *slowly([f"{name}:{count}" for name in POINTS_WITHIN for count in (1, 3)]),
    ],
)
def test_a_crash_at_any_point_loses_nothing_that_was_promised(path: Path, point: str) -> None:
    code, promised, errors = run_writer(path, 5, point)
    assert (code, errors) == (EXIT_STATUS, "")
    assert check_whole(path) in (len(promised), len(promised) + 1)
    code, _, errors = run_writer(path, 5)
    assert (code, errors) == (0, "")
    assert check_whole(path) == 5


def test_kill_9_in_the_middle_of_the_work_loses_nothing_that_was_promised(path: Path) -> None:
    newest = 0
    for goal in (60, 120, 180):
        command = [sys.executable, "-c", WRITER, str(path), "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout is not None
            for text in writer.stdout:
                newest = int(text)
                if newest == goal:
                    os.kill(writer.pid, signal.SIGKILL)
        assert check_whole(path) in (newest, newest + 1)


# ---- a full disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_is_an_error_that_passes_when_there_is_space_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1024 * 1024))
    path = small_disk / "root.db"
    history = SqliteHistory(path)
    history.restore()
    number = 0
    with pytest.raises(HistoryError, match=r"root\.db: "):
        while True:
            history.commit(batch(number + 1))
            number += 1
    with pytest.raises(HistoryError):
        history.commit(batch(number + 1))
    assert sequences(history.events(1)) == [number], "reading goes on"
    ballast.unlink()
    history.commit(batch(number + 1))
    history.close()
    assert check_whole(path) == number + 1


@pytest.mark.root
def test_a_store_on_a_full_disk_can_be_restored(small_disk: Path) -> None:
    path = small_disk / "root.db"
    fill(path, WRITTEN)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    history = SqliteHistory(path)
    assert history.restore().runs == TRUE.runs
    with pytest.raises(HistoryError):
        history.commit(batch(6))
    ballast.unlink()
    history.commit(batch(6))
    history.close()
    assert check_whole(path) == 6


def test_a_refused_write_leaves_the_store_as_it_was(path: Path) -> None:
    """The same with a limit on the size of files, which needs no rights."""
    history = SqliteHistory(path)
    history.restore()
    history.commit(batch(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size, hard))
    try:
        for _ in range(3):
            with pytest.raises(HistoryError, match=r"root\.db: "):
                history.commit(batch(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    history.commit(batch(2))
    history.close()
    assert check_whole(path) == 2


def test_a_full_disk_at_the_start_is_an_error_and_no_damage(path: Path) -> None:
    fill(path, WRITTEN)
    change(path, "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'")
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    history = SqliteHistory(path)
    try:
        with pytest.raises(HistoryError, match=r"root\.db: "):
            history.restore()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == copy.read_bytes()
    assert not list(path.parent.glob("*.corrupt-*"))
    assert history.restore().runs == TRUE.runs
    history.close()


# ---- the reader ------------------------------------------------------------------------------------------------


def read(history: SqliteHistory) -> list[int]:
    with history.reader().moment():
        return sequences(history.reader().events(10))


def other_process(path: Path, statement: str) -> str:
    """What SQLite answers to somebody else, without patience."""
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "try: print(connection.execute(sys.argv[2]).fetchall())\n"
        "except sqlite3.Error as error: print(error)"
    )
    return subprocess.run([sys.executable, "-c", program, path, statement], capture_output=True, text=True).stdout


def test_a_reader_that_comes_and_goes_leaves_the_locks_of_the_history_alone(path: Path) -> None:
    """Without them the last other program to leave would take the log for its own, and delete it."""
    history = SqliteHistory(path)
    history.commit(batch(1))
    assert read(history) == [1]
    with history._reader.away():
        history._reader.let((path.stat().st_dev, path.stat().st_ino))
    for _ in range(2):
        assert "locked" in other_process(path, "PRAGMA journal_mode=DELETE")
        assert read(history) == [1]
        # It opens the file anew, which it first looks at.
        history.restore()
    history.commit(batch(2))
    assert read(history) == [2, 1]
    history.close()
    assert not path.with_name(path.name + "-wal").exists(), "the history is the last to leave"


def test_a_reader_follows_to_the_file_that_replaces_a_damaged_one(path: Path) -> None:
    history = SqliteHistory(path)
    history.commit(batch(1))
    assert read(history) == [1]
    history.close()
    change(path, "UPDATE nodes SET body = 'spoiled'")
    history.restore()
    assert history.problems
    assert path.with_name(path.name + ".corrupt-1").exists()
    history.commit(batch(2))
    assert read(history) == [2, 1]
    history.close()


def test_a_reader_does_not_read_another_file_that_was_put_there(path: Path) -> None:
    fill(path.with_name("other.db"), [7])
    history = SqliteHistory(path)
    history.commit(batch(1))
    path.rename(path.with_name("moved.db"))
    path.with_name("other.db").rename(path)
    with pytest.raises(HistoryError, match="another file"):
        read(history)
    history.close()


def test_a_file_is_not_opened_anew_while_somebody_reads_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.01)
    history = SqliteHistory(path)
    history.commit(batch(1))
    with history.reader().moment(), pytest.raises(HistoryError, match="still reading"):
        history.restore()
    assert history.restore() == restored_of([1])
    assert read(history) == [1]
    history.close()


@pytest.mark.root
def test_nobody_reads_beside_a_store_on_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "root.db"
    fill(path, [1])
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    history = SqliteHistory(path)
    history.restore()
    assert sequences(history.events(10)) == [1]
    with pytest.raises(HistoryError, match="not open to others"):
        read(history)
    ballast.unlink()
    history.commit(batch(2))
    history.restore()
    assert read(history) == [2, 1]
    history.close()
