"""What this process has open, for tests that leave nothing open."""

from __future__ import annotations

import contextlib
import os


def descriptors() -> frozenset[str]:
    """What this process has open, each with its number. To be compared as sets: what an earlier test left to the
    collector or to a thread may go at any moment, so their count may fall by itself."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that reads the directory
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return frozenset(found)
