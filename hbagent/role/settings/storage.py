"""Where a root keeps its history, and for how long.

An address of a database server may hold a password, so no problem here repeats what is written, and a file that holds
one must not be everybody's to read.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .document import Document

#: Characters of an address.
ADDRESS_MAX = 2_000


def read_store(document: Document, path: Path, table: dict[str, Any]) -> dict[str, Any]:
    """Take what is about the store out of the root's table, from the file `path`, and return it."""
    found: dict[str, Any] = {name: table.pop(name) for name in ("store", "retention_ns") if name in table}
    store = found.get("store", "")
    if "://" in store and (problem := _problem(store, path)):
        document.say(("root", "store"), f"store: {problem}")
    return found


def _problem(store: str, path: Path) -> str:
    """What is wrong with an address; "" when nothing is."""
    # Only a root's file gets here: an agent reads its own without carrying a database.
    from hbagent.store.opening import is_server

    if not is_server(store):
        return 'want "sqlite", the path of a file, or postgresql://USER@HOST:PORT/DATABASE'
    try:
        parts = urlsplit(store)
        # Several hosts, as libpq permits, are no port to urlsplit.
        parts.port if "," not in parts.netloc else None  # noqa: B018
        password = parts.password
    except ValueError:
        parts, password = None, None
    if parts is None or len(store) > ADDRESS_MAX or not store.isprintable() or any(c.isspace() for c in store):
        return "this is no PostgreSQL address; want postgresql://USER@HOST:PORT/DATABASE"
    if password and _is_public(path):
        return "this file holds a password and everybody may read it: chmod o-r, or name a passfile or a service"
    return ""


def _is_public(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
