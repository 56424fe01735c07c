"""Damaged state files are set aside, never deleted and never in the way of a start.

`leader.journal` becomes `leader.journal.corrupt-1`, the next one `.corrupt-2`: the number tells the order. A disk that
damages files at each start must not be filled by the copies, so only the newest few are kept.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from . import failpoint
from .durable import sync_directory

#: Files set aside that are kept of one state file. The first shows what happened, the last what happens now; more
#: only fill the disk. Something other than a regular file is never deleted: it was put there by a person.
KEPT_MAX = 8


def is_usable(path: Path) -> bool:
    """True when nothing is at `path`, or a regular file. A link is not followed: it could lead anywhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def set_aside(path: Path, companions: tuple[str, ...] = (), *, keep: bool = False) -> Path:
    """Rename `path` to the next free `.corrupt-N`, and with it each file whose name is `path`'s plus a companion.

    With `keep`, the file stays where it is too, so that a crash before its successor is written loses nothing.
    Returns the new path. Raises OSError.
    """
    failpoint.hit("quarantine-begin")
    numbers = _numbers(path)
    target = path.with_name(f"{path.name}.corrupt-{max(numbers, default=0) + 1}")
    for suffix in ("", *companions):
        source = path.with_name(path.name + suffix)
        if not os.path.lexists(source):
            continue
        if keep:
            _duplicate(source, target.with_name(target.name + suffix))
        else:
            os.rename(source, target.with_name(target.name + suffix))
    for number in numbers[: max(0, len(numbers) + 1 - KEPT_MAX)]:
        _forget(path.with_name(f"{path.name}.corrupt-{number}"), companions)
    sync_directory(path.parent)
    failpoint.hit("quarantine-done")
    return target


def _numbers(path: Path) -> list[int]:
    pattern = re.compile(re.escape(path.name) + r"\.corrupt-([0-9]{1,9})(?:-[a-z]+)?")
    found = (pattern.fullmatch(name) for name in os.listdir(path.parent))
    return sorted({int(match[1]) for match in found if match})


def _duplicate(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a filesystem without hard links
        shutil.copyfile(source, target, follow_symlinks=False)


def _forget(target: Path, companions: tuple[str, ...]) -> None:
    for suffix in ("", *companions):
        victim = target.with_name(target.name + suffix)
        if os.path.lexists(victim) and is_usable(victim):
            os.unlink(victim)
