"""Which store a setting names, and the same for whoever only reads.

`store = "sqlite"` is a file in the root's directory, a path is a file there, and `postgresql://...` a database server;
what that one needs is loaded only when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

from .history import History
from .sqlite import SqliteHistory

#: How the setting of a database server begins; libpq knows both words.
SERVERS = ("postgresql://", "postgres://")
FILE_NAME = "history.sqlite"


class StoreUnavailableError(Exception):
    """What the store needs is not installed; the message names it."""


def is_server(store: str) -> bool:
    """True when a setting names a database server."""
    return store.startswith(SERVERS)


def file_of(store: str, state_dir: Path) -> Path:
    """The SQLite file that a setting names."""
    return state_dir / (FILE_NAME if store in ("", "sqlite") else store)


def open_history(store: str, state_dir: Path, retention_ns: int = 0) -> History:
    """The store that a setting names. Nothing is touched yet. Raises StoreUnavailableError."""
    if not is_server(store):
        return SqliteHistory(file_of(store, state_dir), retention_ns=retention_ns)
    try:
        from .postgres import PostgresHistory
    except ImportError as error:
        raise StoreUnavailableError('store = "postgresql://..." needs psycopg: install hbagent[postgres]') from error
    return PostgresHistory(store, retention_ns=retention_ns)
