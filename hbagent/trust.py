"""Which programs this daemon runs for whoever configured it: hooks at the root, checks of a prober.

Whoever can write the file runs commands as this daemon, so only root and the daemon's own user may.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path


def distrust(argv: Sequence[str], what: str) -> str:
    """Why this command may not be run; "" when it may. `what` is what the reader calls it."""
    if not argv or not os.path.isabs(argv[0]):
        return f"the {what} must be an absolute path"
    path = Path(argv[0])
    try:
        found = path.stat()
        directory = path.resolve().parent.stat()
    except (OSError, ValueError, RuntimeError) as error:
        return f"{path}: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path}: not a regular file"
    if found.st_uid not in (0, os.geteuid()):
        return f"{path}: owned by user {found.st_uid}; must be owned by root or by the user of this process"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path}: writable by group or others; chmod go-w it"
    if directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
        return f"{path}: its directory is writable by everybody; chmod o-w it"
    if not os.access(path, os.X_OK):
        return f"{path}: not executable; chmod +x it"
    return ""
