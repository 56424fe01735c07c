"""A file of an older version becomes one of this version, loses nothing, and may crash on the way."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.records import Restored
from hbagent.store.failpoint import EXIT_STATUS
from hbagent.store.sqlite import SqliteHistory
from tests.store import older
from tests.store.samples import (
    balanced,
    batch,
    conviction,
    event,
    mark,
    restore,
    run,
    sequences,
    state,
    tally,
)

ROOT = Path(__file__).parents[2]
NUMBERS = (1, 2, 3)

OPEN = "import sys, pathlib; from tests.store.samples import restore; restore(pathlib.Path(sys.argv[1]))"


def expected(version: int) -> Restored:
    # An older program knew less of a run.
    runs = tuple(
        run(number, subject="", axis=None, kind=None, incident="", at_wall_ns=0, queued=number) for number in NUMBERS
    )
    return Restored(
        nodes=tuple(map(state, NUMBERS)),
        marks=(mark(3),),
        runs=runs,
        convictions=tuple(map(conviction, NUMBERS)) if version == 2 else (),
        tallies=(tally(3),) if version == 2 else (),
        newest_sequence=3,
    )


def on_disk(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in tables}


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_file_is_brought_up_and_loses_nothing(path: Path, version: int) -> None:
    older.write(path, version, NUMBERS)
    assert restore(path) == expected(version)
    assert restore(path) == expected(version), "and stays so"
    history = SqliteHistory(path)
    found = history.events(10)
    assert sequences(found) == [3, 2, 1]
    assert found[0] == msgspec.to_builtins(event(3, notices=1, incident=""))
    assert sequences(history.events(10, node="dc1/rack1/node1")) == [3, 2, 1]
    assert [row["state"] for row in history.runs_of("event-2")] == ["pending"]
    assert balanced(history), "what was told by an older program is all that there was"
    history.commit(batch(4))
    assert balanced(history)
    history.close()
    assert [row[0] for row in on_disk(path)["verdicts"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("version", [1, 2])
def test_it_then_looks_as_if_it_had_never_been_old(path: Path, version: int) -> None:
    older.write(path, version, NUMBERS)
    restore(path)
    new = path.with_name("new.db")
    restore(new)
    statement = "SELECT name, sql FROM sqlite_master ORDER BY name"
    with closing(sqlite3.connect(path)) as first, closing(sqlite3.connect(new)) as second:
        assert first.execute(statement).fetchall() == second.execute(statement).fetchall()


@pytest.mark.parametrize("version", [1, 2])
def test_a_damaged_older_file_is_salvaged(path: Path, version: int) -> None:
    older.write(path, version, NUMBERS)
    content = bytearray(path.read_bytes())
    content[content.index(b'"hook":"page"') + 2] ^= 0x01
    path.write_bytes(bytes(content))
    restored = restore(path)
    assert "do not match their checksum" in restored.problems[0]
    left = msgspec.structs.replace(restored, problems=())
    runs = [one for one in expected(version).runs if one in left.runs]
    assert len(runs) == 2
    assert left == msgspec.structs.replace(expected(version), runs=tuple(runs))
    history = SqliteHistory(path)
    assert sequences(history.events(10)) == [3, 2, 1]
    assert balanced(history)
    history.close()


def test_a_file_without_some_of_its_tables_is_salvaged_as_what_it_is(path: Path) -> None:
    older.write(path, 2, NUMBERS)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE tallies")
        connection.commit()
    restored = restore(path)
    assert "of this program" in restored.problems[0]
    assert restored.runs == expected(2).runs


@pytest.mark.parametrize("point", ["history-upgrade-filled", "history-upgrade-done", "history-wrote-verdicts"])
def test_a_crash_on_the_way_loses_nothing(path: Path, point: str) -> None:
    older.write(path, 1, NUMBERS)
    ended = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)], env={**os.environ, "HBAGENT_FAILPOINT": point}, cwd=ROOT, check=False
    )
    assert ended.returncode == EXIT_STATUS
    assert restore(path) == expected(1)


@pytest.mark.slow
def test_a_large_older_file_is_brought_up_in_seconds(path: Path) -> None:
    older.write(path, 2, range(1, 3001))
    assert restore(path).newest_sequence == 3000
    history = SqliteHistory(path)
    assert balanced(history)
    assert sequences(history.events(1)) == [3000]
    history.close()
