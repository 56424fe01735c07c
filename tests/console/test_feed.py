"""Asking in threads, of real daemons."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli.answers import Row, rows, word
from hbagent.cli.query import Target
from hbagent.console import feed as feeding
from hbagent.console.feed import Feed
from hbagent.core.units import SECOND
from tests.cli.answering import LEADER1, RACK1, Daemon, calm_root, dying, leader_core

Heard = queue.Queue[tuple[Row | None, str]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PERIOD_S", 0.02)
    monkeypatch.setattr(feeding, "RETRY_S", 0.05)


@pytest.fixture
def daemon(socket_dir: Path) -> Iterator[Daemon]:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as running:
        yield running


def started(*endpoints: str, timeout_ns: int = SECOND) -> tuple[Feed, Heard]:
    heard: Heard = queue.Queue()
    feed = Feed([Target(endpoint=one) for one in endpoints], timeout_ns, lambda answer, why: heard.put((answer, why)))
    feed.start()
    return feed, heard


def until(heard: Heard, wanted: str) -> Row:
    """The first answer of a daemon of this role, within the time."""
    while True:
        answer, _ = heard.get(timeout=30)
        if answer is not None and word(answer.get("root"), "role") == wanted:
            return answer


def test_first_everything_then_only_what_changed(daemon: Daemon, quick: None) -> None:
    feed, heard = started(daemon.endpoint)
    first = until(heard, "root")
    assert first["whole"] is True and len(first["cells"]) == 4
    second = until(heard, "root")
    assert second["whole"] is False and second["cells"] == []
    daemon.tell(LEADER1, dying())
    while not (answer := until(heard, "root"))["cells"]:
        pass
    assert [cell[:2] for cell in answer["cells"]] == [[f"{RACK1}/node1", "DEAD"]]
    assert rows(answer, "racks")
    feed.close()


def test_nobody_is_said_to_answer_and_who_comes_is_heard(socket_dir: Path, quick: None) -> None:
    feed, heard = started(f"ipc://{socket_dir}/q.sock")
    answer, why = heard.get(timeout=30)
    assert answer is None
    assert "cannot reach" in why
    with Daemon(calm_root(), socket_dir, 100 * SECOND):
        assert until(heard, "root")["whole"] is True
    feed.close()


def test_a_leader_stands_in_until_the_root_is_back(tmp_path: Path, socket_dir: Path, quick: None) -> None:
    (socket_dir / "l").mkdir()
    with Daemon(leader_core(), socket_dir / "l", 3 * SECOND) as leader:
        feed, heard = started(f"ipc://{socket_dir}/q.sock", leader.endpoint)
        assert until(heard, "leader")["whole"] is True
        with Daemon(calm_root(), socket_dir, 100 * SECOND):
            assert until(heard, "root")["whole"] is True
        assert until(heard, "leader")["whole"] is True
        feed.close()


def test_errands_are_run_beside_and_their_errors_told(daemon: Daemon) -> None:
    feed, heard = started(daemon.endpoint, timeout_ns=30 * SECOND)
    until(heard, "root")
    feed.run(lambda asker: asker.ask("status"), lambda answer, why: heard.put((answer, why)))
    answer, why = heard.get(timeout=30)
    while answer is not None and "nodes" not in answer:
        answer, why = heard.get(timeout=30)
    assert answer is not None
    assert (len(answer["nodes"]), why) == (4, "")
    told: Heard = queue.Queue()
    feed.run(lambda asker: asker.ask("explain", node="a/b/c"), lambda answer, why: told.put((answer, why)))
    assert told.get(timeout=30)[0] is None
    feed.run(lambda asker: asker.ask("status"), lambda answer, why: told.put((answer, why)))
    assert told.get(timeout=30)[0] is not None
    feed.close()


def test_who_wants_too_much_at_once_loses_the_oldest_wish(socket_dir: Path) -> None:
    # Not started: nothing is taken from the queue.
    told: list[str] = []
    feed = Feed([Target(endpoint=f"ipc://{socket_dir}/none.sock")], SECOND, lambda answer, why: None)
    for at in range(feeding.ERRANDS_MAX + 2):
        feed.run(lambda asker: None, lambda answer, why, at=at: told.append(f"{at}: {why}"))  # type: ignore[misc]
    assert told == ["0: too much was asked for at once", "1: too much was asked for at once"]


def test_closing_does_not_wait_for_the_next_second(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "PERIOD_S", 300.0)
    monkeypatch.setattr(feeding, "CLOSE_S", 20.0)
    feed, heard = started(daemon.endpoint)
    until(heard, "root")
    feed.close()
    assert not any(thread.is_alive() for thread in feed._threads)
