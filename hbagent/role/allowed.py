"""Who may speak to this process: read once at start, again on SIGHUP, and whenever the file changed.

`hbagent keys revoke` only edits the file; a look at its status once a second is what makes a revocation real within
that second, without anybody having to signal the daemon.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from hbagent.transport.allow import AllowError, AllowList, Role
from hbagent.transport.allow import load as load_allow

from .settings import Security


class Allowed:
    """The live allow-list of one role."""

    def __init__(self, security: Security, role: Role, plain_names: Iterable[str]) -> None:
        self._path: Path | None = None if security.plain else security.allow
        self._role = role
        self._stamp: tuple[int, ...] = ()
        self.list = AllowList.named(role, plain_names)
        if self._path is not None:
            self._stamp = _stamp(self._path)
            self.list = load_allow(self._path)

    @property
    def senders(self) -> dict[str, str]:
        """User id of a connection to the name it stands for."""
        return self.list.senders(self._role)

    def refresh(self, failed: Callable[[str], None], force: bool = False) -> bool:
        """Read the file again if it changed; True when there is another list. A bad file keeps the old one."""
        if self._path is None:
            return False
        stamp = _stamp(self._path)
        if stamp == self._stamp and not force:
            return False
        self._stamp = stamp
        try:
            self.list = load_allow(self._path)
        except AllowError as error:
            for problem in error.problems:
                failed(problem)
            return False
        return True


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
