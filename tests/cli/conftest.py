"""What several commands are tried against: a root with a history and one hook. And patience with whom is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import checks, operator_checks, query
from hbagent.core.config import HookConfig
from hbagent.core.units import SECOND
from hbagent.store.sqlite import SqliteHistory
from tests.cli.answering import Daemon, calm_root


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers here is a thread of the test, and a machine may stand still for longer than a person waits."""
    monkeypatch.setattr(query, "TIMEOUT_DEFAULT", "20s")
    for module in (checks, operator_checks):
        monkeypatch.setattr(module, "CONNECT_S", 20.0)


@pytest.fixture
def paging(socket_dir: Path, tmp_path: Path) -> Iterator[Daemon]:
    """A root of two racks of two nodes, all well, that tells a hook named page."""
    history = SqliteHistory(tmp_path / "history.sqlite")
    history.restore()
    now = 100 * SECOND
    hooks = (HookConfig(name="page", argv=("/bin/true",)),)
    with Daemon(calm_root(now, history, hooks), socket_dir, now, history) as running:
        yield running
    history.close()
