"""What it takes until a file is on the disk, and not only in the kernel's memory.

A new or renamed file is safe when its content is synced *and* the directory that holds its name is. A write may stop
half-way without an error, so it is repeated until everything is out.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises OSError; part of the data may then be in the file."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Make creations, renames and deletions in `directory` survive a power loss. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
