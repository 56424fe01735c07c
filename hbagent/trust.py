"""Which programs this daemon runs for whoever configured it: hooks at the root, checks of a prober.

Whoever can write the file runs commands as this daemon, and so does whoever can put another one in its place. So who
owns the file, every directory on the way to it, and every link on the way with the directories that lead to that: only
root and the daemon's own user may. Nobody else may be able to write to the file, and not everybody to a directory.

Groups are looked at for the file alone. A directory that its group may write to is believed, whatever that group is:
/usr/local is so on Debian (staff), and who is in it was decided by whoever owns the directory. Nor are lists of access
(ACLs) looked at beyond what they show in the mode, nor what is mounted where, nor what a script goes on to run.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

#: The kernel follows no more links in one path.
_LINKS = 40


def distrust(argv: Sequence[str], what: str) -> str:
    """Why this command may not be run; "" when it may. `what` is what the reader calls it."""
    if not argv or not os.path.isabs(argv[0]):
        return f"the {what} must be an absolute path"
    path = Path(argv[0])
    try:
        found = path.stat()
        places = {place: place.lstat() for place in _places(path)}
    except (OSError, ValueError, RuntimeError) as error:
        return f"{path}: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path}: not a regular file"
    if found.st_uid not in (0, os.geteuid()):
        return f"{path}: owned by user {found.st_uid}; must be owned by root or by the user of this process"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path}: writable by group or others; chmod go-w it"
    for place, status in places.items():
        link = stat.S_ISLNK(status.st_mode)
        # The owner of a directory can always write there, and in a sticky one the owner of a link can set another.
        if status.st_uid not in (0, os.geteuid()):
            if link:
                return (
                    f"{path}: the link {place} is owned by user {status.st_uid}; must be owned by root or by the user "
                    f"of this process: chown -h it to root, or put the {what} elsewhere"
                )
            return (
                f"{path}: its directory {place} is owned by user {status.st_uid}; must be owned by root or by the user "
                f"of this process: chown it to root, or put the {what} elsewhere"
            )
        if not link and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            return f"{path}: its directory {place} is writable by everybody; chmod o-w it"
    if not os.access(path, os.X_OK):
        return f"{path}: not executable; chmod +x it"
    return ""


def _places(path: Path) -> Iterator[Path]:
    """Every directory and every link of which whoever may change it decides what `path` means. Raises OSError."""
    here, links = Path("/"), 0
    ahead = list(path.parts[1:])
    yield here
    while ahead:
        part = ahead.pop(0)
        if part == "..":
            here = here.parent
            continue
        step = here / part
        if step.is_symlink():
            yield step
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = PurePath(os.readlink(step))
            if target.is_absolute():
                here = Path("/")
            ahead = [part for part in target.parts if part != "/"] + ahead
        elif ahead:
            here = step
            yield here
