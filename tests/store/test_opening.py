"""A setting names a store, and only what is asked for is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.store.opening import StoreUnavailableError, open_history
from hbagent.store.postgres import PostgresHistory
from hbagent.store.sqlite import SqliteHistory


@pytest.mark.parametrize(
    ("store", "file"), [("sqlite", "history.sqlite"), ("", "history.sqlite"), ("other.db", "other.db")]
)
def test_a_file_lies_in_the_directory_of_the_root(tmp_path: Path, store: str, file: str) -> None:
    history = open_history(store, tmp_path)
    assert isinstance(history, SqliteHistory)
    assert history.path == tmp_path / file
    assert not list(tmp_path.iterdir()), "nothing is touched yet"


def test_an_absolute_path_is_that_file(tmp_path: Path) -> None:
    history = open_history(str(tmp_path / "elsewhere.db"), Path("/nowhere"))
    assert isinstance(history, SqliteHistory)
    assert history.path == tmp_path / "elsewhere.db"


def test_an_address_is_a_server(tmp_path: Path) -> None:
    history = open_history("postgresql://u:hidden@db1.example:5433/hb", tmp_path)
    assert isinstance(history, PostgresHistory)
    assert history.name == "postgresql://db1.example:5433/hb"


def test_a_file_needs_no_database_driver() -> None:
    code = "import sys; sys.modules['psycopg'] = None; from hbagent.store.opening import open_history as o; " + (
        "import pathlib; o('sqlite', pathlib.Path('.')); o('postgresql://x', pathlib.Path('.'))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert StoreUnavailableError.__name__ in ended.stderr.splitlines()[-1]
    assert "install hbagent[postgres]" in ended.stderr
