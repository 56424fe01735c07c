"""The store's promise: what `commit` returned for is there after any crash, and nothing else ever appears."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.messages import Evidence
from hbagent.core.records import (
    MARKS_MAX,
    Batch,
    Conviction,
    Event,
    HookRun,
    Mark,
    NodeState,
    Restored,
    RunState,
    Tally,
)
from hbagent.core.states import Cause, Health, Kind, Liveness
from hbagent.core.units import SECOND
from hbagent.store import sqlite as history_module
from hbagent.store.failpoint import EXIT_STATUS, POINTS
from hbagent.store.history import EVENTS_READ_MAX, VERDICTS_PER_RACK_MAX, HistoryError
from hbagent.store.sqlite import SqliteHistory as History

ROOT = Path(__file__).parents[2]

#: Commits event, node, mark and run number 1, 2, 3... up to a number; prints each once it is promised.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/store")
from test_history import History, batch
history = History(Path(sys.argv[1]))
number = history.restore().newest_sequence
while number < int(sys.argv[2]):
    number += 1
    history.commit(batch(number))
    print(number, flush=True)
"""


def event(number: int, node: str = "dc1/rack1/node1") -> Event:
    return Event(
        event_id=f"event-{number}",
        sequence=number,
        kind=Kind.NODE_DEAD,
        at_wall_ns=number * SECOND,
        node=node,
        rack="dc1/rack1",
        liveness_from=Liveness.SUSPECT,
        liveness_to=Liveness.DEAD,
        cause=Cause.SILENCE,
        evidence=Evidence(text="silent for 2.5s", incarnation=2**64 - 1, silent_ns=2_500_000_000),
    )


def state(number: int) -> NodeState:
    return NodeState(
        node=f"dc1/rack1/node{number}",
        rack="dc1/rack1",
        liveness=Liveness.DEAD,
        cause=Cause.SILENCE,
        health=Health.OK,
        since_wall_ns=number * SECOND,
        incarnation=2**64 - number,
        sequence=number,
        open="node-dead",
    )


def mark(number: int) -> Mark:
    return Mark(leader="dc1/rack1-leader1", epoch=2**63 + 5, number=number)


def run(number: int, state: RunState = RunState.PENDING) -> HookRun:
    return HookRun(
        run_id=f"run-{number}",
        event_id=f"event-{number}",
        hook="page",
        node="dc1/rack1/node1",
        state=state,
        input=b'{"schema":1,"text":"\xc3\xbc\\n"}',
        queued=number,
    )


def conviction(number: int) -> Conviction:
    return Conviction(
        event_id=f"event-{number}",
        node="dc1/rack1/node1",
        cause=Cause.PROCESS_EXIT,
        at_wall_ns=number * SECOND,
        detection_ns=3_000_000,
        incarnation=2**64 - number,
    )


def tally(number: int = 1, life: int = 2**32 - 1) -> Tally:
    return Tally(life=life, watched_ns=number * SECOND, told={"silence": number}, wrong={"silence": 1})


def batch(number: int) -> Batch:
    return Batch(
        events=(event(number),),
        nodes=(state(number),),
        marks=(mark(number),),
        runs=(run(number),),
        convictions=(conviction(number),),
        tally=tally(number),
    )


@pytest.fixture
def path(quick_disk: Path) -> Path:
    return quick_disk / "state" / "root.db"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    history = History(path)
    history.restore()
    yield history
    history.close()


def fill(path: Path, numbers: Iterable[int]) -> None:
    history = History(path)
    history.restore()
    for number in numbers:
        history.commit(batch(number))
    history.close()


def restore(path: Path) -> Restored:
    history = History(path)
    restored = history.restore()
    history.close()
    return restored


def sequences(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence"] for event in events]


# ---- what is kept ----------------------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was_written(path: Path) -> None:
    fill(path, [1, 2, 3])
    assert restore(path) == Restored(
        nodes=(state(1), state(2), state(3)),
        marks=(mark(3),),
        runs=(run(1), run(2), run(3)),
        convictions=(conviction(1), conviction(2), conviction(3)),
        tallies=(tally(3),),
        newest_sequence=3,
    )


def test_each_of_the_newest_lives_of_a_leader_keeps_its_mark(path: Path, history: History) -> None:
    marks = [Mark(leader="dc1/rack1-leader1", epoch=2**63 - life, number=7, life=life) for life in range(MARKS_MAX + 2)]
    for mark in marks:
        history.commit(Batch(marks=(mark,)))
    newest = msgspec.structs.replace(marks[-1], number=8)
    other = Mark(leader="dc1/rack1-leader2", epoch=5, number=1)
    history.commit(Batch(marks=(newest, other)))
    history.close()
    assert restore(path).marks == (*marks[2:-1], newest, other)


def test_a_missing_store_is_an_empty_one_for_its_owner_alone(path: Path) -> None:
    assert restore(path) == Restored()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_newest_state_of_a_node_leader_or_run_replaces_the_older(history: History, path: Path) -> None:
    history.commit(batch(1))
    left = msgspec.structs.replace(state(1), liveness=Liveness.LEFT)
    again = msgspec.structs.replace(run(1), attempt=3, error="exit 1")
    history.commit(Batch(nodes=(left,), marks=(mark(7),), runs=(again,)))
    history.close()
    restored = restore(path)
    assert (restored.nodes, restored.marks, restored.runs) == ((left,), (mark(7),), (again,))


def test_a_forgotten_node_is_gone_and_its_events_stay(history: History, path: Path) -> None:
    history.commit(batch(1))
    history.commit(Batch(forgotten=(state(1).node, "dc1/rack1/nobody")))
    assert sequences(history.events(10)) == [1]
    history.close()
    assert restore(path).nodes == ()


def test_runs_that_are_over_are_not_owed_any_more(history: History, path: Path) -> None:
    history.commit(Batch(runs=(run(3), run(1), run(2, RunState.DONE), run(4, RunState.DEAD))))
    history.close()
    assert restore(path).runs == (run(1), run(3))


def test_writing_a_batch_again_changes_nothing(history: History, path: Path) -> None:
    history.commit(batch(1))
    history.commit(batch(1))
    assert len(history.events(10)) == 1
    history.close()
    fill(path.with_name("once.db"), [1])
    assert restore(path) == restore(path.with_name("once.db"))


def test_a_batch_is_written_wholly_or_not_at_all(history: History, path: Path) -> None:
    unwritable = msgspec.structs.replace(run(1), queued=2**70)
    with pytest.raises(OverflowError):
        history.commit(Batch(events=(event(1),), nodes=(state(1),), runs=(unwritable,)))
    history.commit(Batch(marks=(mark(1),)))
    history.close()
    assert restore(path) == Restored(marks=(mark(1),))


def test_events_are_read_newest_first_and_filtered(history: History) -> None:
    history.commit(Batch(events=tuple(event(number, f"dc1/rack1/node{number % 2}") for number in range(1, 9))))
    assert sequences(history.events(3)) == [8, 7, 6]
    assert sequences(history.events(10, after=5)) == [8, 7, 6]
    assert sequences(history.events(10, node="dc1/rack1/node1")) == [7, 5, 3, 1]
    assert sequences(history.events(2, after=1, node="dc1/rack1/node1")) == [7, 5]
    assert history.events(10, node="dc1/rack1/node") == []
    assert history.events(0) == history.events(-1) == []


def test_the_hook_runs_of_one_event_are_read(history: History) -> None:
    runs = [
        msgspec.structs.replace(run(number), run_id=f"{event_id}-{name}", event_id=event_id, hook=name, state=state)
        for number, (event_id, name, state) in enumerate(
            [("e-1", "page", RunState.DONE), ("e-1", "ticket", RunState.DEAD), ("e-10", "page", RunState.PENDING)]
        )
    ]
    history.commit(Batch(runs=tuple(runs)))
    assert [(row["hook"], row["state"]) for row in history.runs_of("e-1")] == [("page", "done"), ("ticket", "dead")]
    assert history.runs_of("e") == history.runs_of("") == history.runs_of("e-1'--") == []
    assert "input" not in history.runs_of("e-10")[0]


def test_an_event_is_read_as_plain_values(history: History) -> None:
    history.commit(Batch(events=(event(1),)))
    found = history.events(1)[0]
    assert found == msgspec.to_builtins(event(1))
    assert (found["kind"], found["liveness_to"], found["cause"]) == ("node-dead", "DEAD", "silence")
    assert msgspec.convert(found, Event) == event(1)


def test_the_oldest_events_make_room(path: Path) -> None:
    history = History(path, events_max=10)
    history.restore()
    for number in range(1, 31):
        history.commit(Batch(events=(event(number),)))
    assert sequences(history.events(100)) == list(range(30, 20, -1))
    history.close()


def test_no_reading_is_unbounded(history: History) -> None:
    history.commit(Batch(events=tuple(event(number) for number in range(1, EVENTS_READ_MAX + 11))))
    assert len(history.events(10**9)) == EVENTS_READ_MAX


def test_runs_that_are_over_make_room_and_owed_ones_never(path: Path) -> None:
    history = History(path, runs_over_max=5)
    history.restore()
    for number in range(1, 21):
        history.commit(Batch(runs=(run(number), run(100 + number, RunState.DONE), run(200 + number, RunState.DEAD))))
    history.close()
    with sqlite3.connect(path) as connection:
        left = dict(connection.execute("SELECT state, count(*) FROM hook_runs GROUP BY state"))
        newest = connection.execute("SELECT min(queued) FROM hook_runs WHERE state = 'done'").fetchone()[0]
    connection.close()
    assert left == {"pending": 20, "done": 5, "dead": 5}
    assert newest == 116


def test_each_commit_is_synced(history: History) -> None:
    """With synchronous=NORMAL a power loss could take back what was acknowledged; no test can pull the plug."""
    assert history._open_database is not None
    assert history._open_database.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert history._open_database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_two_processes_cannot_use_one_store(history: History, path: Path) -> None:
    with pytest.raises(HistoryError, match=r"root\.db: another process"):
        History(path).restore()
    history.close()
    restore(path)


def test_a_lock_of_somebody_else_is_an_error_that_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "BUSY_S", 0.01)
    fill(path, [1])
    history = History(path)
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


# ---- verdicts --------------------------------------------------------------------------------------------------


def verdict(number: int, rack: int, liveness: Liveness = Liveness.DEAD) -> Event:
    name = f"dc1/rack{rack}"
    return msgspec.structs.replace(event(number, f"{name}/node1"), rack=name, liveness_to=liveness)


def test_the_newest_verdicts_of_a_quiet_rack_outlive_the_events_of_a_noisy_one(path: Path) -> None:
    history = History(path, events_max=50)
    history.restore()
    history.commit(Batch(events=(verdict(1, 1, Liveness.SUSPECT), verdict(2, 1), verdict(3, 1, Liveness.ALIVE))))
    for number in range(4, 400):
        history.commit(Batch(events=(verdict(number, 2),)))
    assert sequences(history.events(1000, node="dc1/rack1/node1")) == [2, 1], "what is no verdict is gone"
    noisy = sequences(history.events(1000, node="dc1/rack2/node1"))
    assert noisy == list(range(399, 399 - VERDICTS_PER_RACK_MAX, -1))
    assert sequences(history.events(1, node="dc1/rack1/node1")) == [2]
    assert sequences(history.events(1000, after=1, node="dc1/rack1/node1")) == [2]
    history.close()


def test_a_verdict_that_is_told_late_takes_the_place_of_none(history: History) -> None:
    history.commit(Batch(events=(verdict(1, 1), msgspec.structs.replace(verdict(2, 1), late=True))))
    assert history._open_database is not None
    assert history._open_database.connection.execute("SELECT sequence FROM verdicts").fetchall() == [(1,)]


def test_a_conviction_that_is_folded_is_in_the_tally_alone(history: History, path: Path) -> None:
    history.commit(batch(1))
    history.commit(batch(2))
    wrong = msgspec.structs.replace(conviction(2), back_after_ns=SECOND, reason="its loop stood still")
    history.commit(Batch(convictions=(wrong,), folded=("event-1",), tally=tally(9)))
    history.close()
    restored = restore(path)
    assert (restored.convictions, restored.tallies) == ((wrong,), (tally(9),))


def test_a_life_that_took_over_a_tally_replaces_it_and_one_that_could_not_read_it_does_not(
    history: History, path: Path
) -> None:
    history.commit(Batch(tally=tally(5, life=1)))
    history.commit(Batch(tally=tally(2, life=2)))
    history.close()
    assert restore(path).tallies == (tally(5, life=1), tally(2, life=2))
    history.restore()
    heir = msgspec.structs.replace(tally(8, life=3), replaces=(1, 2, 3))
    history.commit(Batch(tally=heir))
    history.commit(Batch(tally=heir))
    history.close()
    assert restore(path).tallies == (heir,)


def as_version_1(path: Path) -> None:
    """Make of the store what an older program would have left."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in ("verdicts", "convictions", "tallies"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version=1")
        connection.commit()


def test_a_store_of_the_first_version_is_brought_up_and_loses_nothing(path: Path) -> None:
    fill(path, [1, 2, 3])
    before = restore(path)
    as_version_1(path)
    expected = msgspec.structs.replace(before, convictions=(), tallies=())
    assert restore(path) == expected
    assert restore(path) == expected, "and stays so"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sequence, rack FROM verdicts").fetchall() == [
            (number, "dc1/rack1") for number in (1, 2, 3)
        ]
    fill(path, [4])
    assert restore(path).convictions == (conviction(4),)


def test_a_damaged_store_of_the_first_version_is_salvaged(path: Path) -> None:
    fill(path, WRITTEN)
    as_version_1(path)
    content = bytearray(path.read_bytes())
    place = content.index(b'"cause":"silence"')
    content[place] ^= 0x01
    put(path, bytes(content))
    restored = check_after_damage(path)
    assert restored.problems


# ---- damage ----------------------------------------------------------------------------------------------------

WRITTEN = range(1, 6)
TRUE_NODES = set(map(state, WRITTEN))
TRUE_RUNS = set(map(run, WRITTEN))
TRUE_MARKS = set(map(mark, WRITTEN))
TRUE_CONVICTIONS = set(map(conviction, WRITTEN))
TRUE_TALLIES = list(map(tally, WRITTEN))
TRUE_EVENTS = {number: msgspec.to_builtins(event(number)) for number in WRITTEN}


def check_after_damage(path: Path) -> Restored:
    """Start on a damaged store, look at what a start owes, and return what came back."""
    history = History(path)
    restored = history.restore()
    assert set(restored.nodes) <= TRUE_NODES
    assert set(restored.runs) <= TRUE_RUNS
    assert set(restored.convictions) <= TRUE_CONVICTIONS
    assert all(found in TRUE_TALLIES for found in restored.tallies)
    assert set(restored.marks) <= TRUE_MARKS
    assert restored.newest_sequence in (0, *WRITTEN)
    for found in history.events(100):
        assert found == TRUE_EVENTS[found["sequence"]]
    history.commit(batch(9))
    assert history.events(1) == [msgspec.to_builtins(event(9))]
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
            assert (set(restored.nodes), set(restored.runs)) == (TRUE_NODES, TRUE_RUNS), f"silent loss, byte {place}"


def test_with_a_byte_flipped_it_starts_without_phantoms_or_silent_loss(path: Path) -> None:
    check_flips(path, 29, 0xFF)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_with_any_byte_flipped_it_starts_without_phantoms_or_silent_loss(path: Path, mask: int) -> None:
    check_flips(path, 1, mask)


def check_truncations(path: Path, step: int) -> None:
    fill(path, WRITTEN)
    content = path.read_bytes()
    for size in [*range(0, 120, 7), *range(120, len(content), step), len(content) - 1]:
        put(path, content[:size])
        restored = check_after_damage(path)
        assert restored.problems or size == 0


def test_truncated_it_starts_without_phantoms(path: Path) -> None:
    check_truncations(path, 2003)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_truncated_anywhere_it_starts_without_phantoms(path: Path) -> None:
    check_truncations(path, 17)


def unclosed(path: Path) -> tuple[bytes, bytes]:
    """File and log as a crash leaves them."""
    history = History(path)
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
    check_log_damage(path, 5003)


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


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def test_another_version_is_set_aside_unread(path: Path) -> None:
    fill(path, WRITTEN)
    change(path, "PRAGMA user_version=3")
    restored = check_after_damage(path)
    assert (restored.nodes, restored.newest_sequence) == ((), 0)
    assert "version 3, not 2" in restored.problems[0]


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
    assert set(restored.nodes) == TRUE_NODES - {state(3)}
    assert set(restored.runs) == TRUE_RUNS
    assert "1 rows of nodes do not match their checksum" in restored.problems[0]
    assert "18 rows kept" not in restored.problems[0]
    assert "26 rows kept" in restored.problems[0]


def test_an_owed_run_cannot_vanish_behind_a_flipped_state(path: Path) -> None:
    fill(path, WRITTEN)
    change(path, "UPDATE hook_runs SET state = 'done' WHERE run_id = 'run-2'")
    assert "1 rows of hook_runs" in check_after_damage(path).problems[0]


@pytest.mark.parametrize("change_of", ["sequence = 1000", "node = CAST(x'ff' AS TEXT)", "body = x'00'"])
def test_a_damaged_event_is_left_out(path: Path, history: History, change_of: str) -> None:
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
    assert set(restored.nodes) == TRUE_NODES
    assert set(restored.runs) == TRUE_RUNS
    assert "of this program" in restored.problems[0]


@pytest.mark.parametrize("statement", ["SELECT 1", "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'"])
def test_a_store_that_somebody_locked_is_not_taken_for_an_empty_one(
    path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "BUSY_S", 0.01)
    fill(path, WRITTEN)
    change(path, statement)
    operator = sqlite3.connect(path, isolation_level=None)
    operator.execute("PRAGMA locking_mode=EXCLUSIVE")
    operator.execute("BEGIN EXCLUSIVE")
    history = History(path)
    with pytest.raises(HistoryError, match="locked"):
        history.restore()
    operator.execute("ROLLBACK")
    operator.close()
    assert set(history.restore().runs) == TRUE_RUNS
    history.close()


def test_damage_while_running_is_healed_by_the_next_try(path: Path) -> None:
    history = History(path)
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


def run_writer(path: Path, count: int, point: str = "") -> tuple[int, list[int], str]:
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), str(count)],
        env={**os.environ, "HBAGENT_FAILPOINT": point},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    return ended.returncode, [int(number) for number in ended.stdout.split()], ended.stderr


def check_whole(restored: Restored) -> int:
    """All parts of each batch are there, or none; returns how many batches."""
    count = restored.newest_sequence
    assert {state.sequence for state in restored.nodes} == set(range(1, count + 1))
    assert [run.queued for run in restored.runs] == list(range(1, count + 1))
    assert restored.marks == ((mark(count),) if count else ())
    assert restored.problems == ()
    return count


POINTS_OF_A_RUN = ["history-created", *[name for name in POINTS if name.startswith("history-commit")]]


@pytest.mark.parametrize("point", [*POINTS_OF_A_RUN, *[f"{name}:3" for name in POINTS_OF_A_RUN[1:]]])
def test_a_crash_at_any_point_loses_nothing_that_was_promised(path: Path, point: str) -> None:
    code, promised, errors = run_writer(path, 5, point)
    assert (code, errors) == (EXIT_STATUS, "")
    assert check_whole(restore(path)) in (len(promised), len(promised) + 1)
    code, _, errors = run_writer(path, 5)
    assert (code, errors) == (0, "")
    assert check_whole(restore(path)) == 5


POINTS_OF_A_SALVAGE = [name for name in POINTS if name.startswith(("history-salvage", "quarantine"))]


@pytest.mark.parametrize("point", [*POINTS_OF_A_SALVAGE, "history-created"])
def test_a_crash_while_salvaging_loses_no_sound_row(path: Path, point: str) -> None:
    fill(path, WRITTEN)
    change(path, "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'")
    damaged = path.read_bytes()
    code, _, errors = run_writer(path, 5, point)
    assert (code, errors) == (EXIT_STATUS, "")
    restored = restore(path)
    assert set(restored.nodes) == TRUE_NODES - {state(3)}
    assert set(restored.runs) == TRUE_RUNS
    assert restored.newest_sequence == 5
    assert [entry.read_bytes() for entry in path.parent.glob("*.corrupt-?")] == [damaged]
    assert restore(path).problems == ()


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
        assert check_whole(restore(path)) in (newest, newest + 1)


# ---- a full disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_is_an_error_that_passes_when_there_is_space_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200 * 1024))
    path = small_disk / "root.db"
    history = History(path)
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
    assert check_whole(restore(path)) == number + 1


@pytest.mark.root
def test_a_store_on_a_full_disk_can_be_restored(small_disk: Path) -> None:
    path = small_disk / "root.db"
    fill(path, WRITTEN)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    history = History(path)
    assert set(history.restore().runs) == TRUE_RUNS
    with pytest.raises(HistoryError):
        history.commit(batch(6))
    ballast.unlink()
    history.commit(batch(6))
    history.close()
    assert check_whole(restore(path)) == 6


def test_a_refused_write_leaves_the_store_as_it_was(path: Path) -> None:
    """The same with a limit on the size of files, which needs no rights."""
    history = History(path)
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
    assert check_whole(restore(path)) == 2


def test_a_full_disk_at_the_start_is_an_error_and_no_damage(path: Path) -> None:
    fill(path, WRITTEN)
    change(path, "UPDATE nodes SET crc = 0 WHERE node = 'dc1/rack1/node3'")
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    history = History(path)
    try:
        with pytest.raises(HistoryError, match=r"root\.db: "):
            history.restore()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == copy.read_bytes()
    assert not list(path.parent.glob("*.corrupt-*"))
    assert set(history.restore().runs) == TRUE_RUNS
    history.close()
