"""One process at a time may use a state file.

A second process would take the first one's half-written line for a torn tail and heal it away. So whoever opens a
state file first takes a lock on the file `<name>.lock` beside it. The lock is the kernel's: it ends with the process,
however that ends, and is never left behind.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class ClaimedError(Exception):
    """Another process uses the file."""


class Claim:
    """The exclusive right to use the state file `path`."""

    def __init__(self, path: Path) -> None:
        self._lock_path = path.with_name(path.name + ".lock")
        self._fd: int | None = None

    def take(self) -> None:
        """Take the claim; nothing happens when it is already held.

        Raises ClaimedError when another process (or another `Claim`) holds it, OSError when the lock file cannot
        be made.
        """
        if self._fd is not None:
            return
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ClaimedError(f"another process holds {self._lock_path}") from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Give the claim back. The lock file stays: removing it would race with the next one who takes it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
