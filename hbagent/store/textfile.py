"""A file that others read at any moment: whole, or as it was before.

The draft lies beside it under a name that no reader takes for one, and a rename puts it in place. Nothing is synced: it
is written anew every few seconds, and means nothing after a power loss.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .durable import write_all

#: What is larger is a defect of whoever made it.
TEXTFILE_SIZE_MAX = 4 << 20


def replace_text(path: Path, text: bytes) -> None:
    """Put `text` in place of what is at `path`, for everybody to read. Raises OSError."""
    if len(text) > TEXTFILE_SIZE_MAX:
        raise OSError(f"{len(text):,} bytes are more than {TEXTFILE_SIZE_MAX:,}")
    draft = path.with_name(f".{path.name}.draft")
    # What lies there was left behind by a crash, or put there by somebody; nothing of it is written to.
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with open(fd, "wb", closefd=True) as file:
            os.fchmod(file.fileno(), 0o644)
            write_all(file.fileno(), text)
        draft.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
