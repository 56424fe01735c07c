"""Who only reads disturbs nobody and sees what is there, whoever writes meanwhile."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hbagent.core.records import Batch
from hbagent.core.units import SECOND
from hbagent.store import archive as archive_module
from hbagent.store.archive import open_archive
from hbagent.store.history import HistoryError
from hbagent.store.postgres import PostgresHistory
from hbagent.store.sqlite import SqliteHistory
from tests.store import older
from tests.store.samples import batch, event, fill
from tests.store.server import Server


def numbers(path: Path, since: int = 0, until: int = 2**62) -> list[int]:
    with open_archive(str(path), path.parent) as archive:
        return [one.sequence for one in archive.events(since, until)]


def test_events_of_a_time_come_oldest_first_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "PAGE_ROWS", 3)
    fill(path, range(1, 11))
    assert numbers(path) == list(range(1, 11))
    assert numbers(path, 3 * SECOND, 9 * SECOND) == [3, 4, 5, 6, 7, 8]
    assert numbers(path, 11 * SECOND) == []


def test_a_reader_sees_what_is_written_meanwhile_and_holds_nobody_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "PAGE_ROWS", 2)
    history = SqliteHistory(path)
    for number in (1, 2, 3):
        history.commit(batch(number))
    with open_archive(str(path), path.parent) as archive:
        events = archive.events()
        assert next(events).sequence == 1
        history.commit(batch(4))
        assert history._open_database is not None
        busy = history._open_database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        assert busy == 0, "between two pages nothing is held"
        assert [one.sequence for one in events] == [2, 3, 4]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            archive.database.run("DELETE FROM events", ())
    history.close()


def test_a_closed_store_is_read_and_left_as_it_was(path: Path) -> None:
    fill(path, [1, 2])
    before = path.read_bytes()
    assert numbers(path) == [1, 2]
    assert path.read_bytes() == before


def test_a_damaged_event_is_left_out(path: Path) -> None:
    fill(path, [1, 2, 3])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE events SET crc = 0 WHERE sequence = 2")
        connection.commit()
    assert numbers(path) == [1, 3]


def test_what_is_no_history_of_this_version_is_refused_and_left_alone(path: Path) -> None:
    with pytest.raises(HistoryError, match="No such file"):
        numbers(path)
    assert not path.exists()
    path.parent.mkdir()
    path.write_bytes(b"hello\n" * 1000)
    with pytest.raises(HistoryError, match="not a database"):
        numbers(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(HistoryError, match=r"root\.db: "):
        numbers(path)
    path.unlink()
    older.write(path, 2, [1])
    with pytest.raises(HistoryError, match="version 2, not 3"):
        numbers(path)


@pytest.mark.slow
def test_a_server_is_read_beside_its_root(server: Server) -> None:
    address = server.address(server.new_schema())
    with pytest.raises(HistoryError, match="store_version"), open_archive(address, Path()) as archive:
        pass
    history = PostgresHistory(address)
    history.commit(Batch(events=tuple(map(event, range(1, 2501)))))
    with open_archive(address, Path()) as archive:
        assert [one.sequence for one in archive.events(2 * SECOND)] == list(range(2, 2501))
    with pytest.raises(HistoryError, match="read-only"), open_archive(address, Path()) as archive:
        archive.database.run("DELETE FROM events", ())
    history.close()
