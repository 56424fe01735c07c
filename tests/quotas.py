"""Control groups with a CPU quota, where a test may make them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Version 2 has all controllers in one tree, version 1 a tree for each.
_TREES = (("/sys/fs/cgroup", "cpu.max"), ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"))


class Quota:
    """One such group; it has no limit until there is one."""

    def __init__(self, group: Path, file: str) -> None:
        self._group = group
        self._file = group / file

    def limit(self, quota_us: int, period_us: int) -> None:
        """Let it run for `quota_us` in each `period_us`, both 1 ms to 1 s."""
        if self._file.name == "cpu.max":
            self._file.write_text(f"{quota_us} {period_us}")
        else:
            (self._group / "cpu.cfs_period_us").write_text(str(period_us))
            self._file.write_text(str(quota_us))

    def hold(self, pid: int) -> None:
        """Put a process into it."""
        (self._group / "cgroup.procs").write_text(str(pid))

    def free(self) -> None:
        """Lift the limit and put all processes back; waits for those that are ending."""
        self._file.write_text("max" if self._file.name == "cpu.max" else "-1")
        for _ in range(500):
            pids = (self._group / "cgroup.procs").read_text().split()
            if not pids:
                return
            for pid in pids:
                try:
                    (self._group.parent / "cgroup.procs").write_text(pid)
                except OSError:  # it ends
                    threading.Event().wait(0.01)


@contextmanager
def quota() -> Iterator[Quota]:
    """A group that is empty again and removed at the end; skips the test where none can be made."""
    for tree, file in _TREES:
        group = Path(tree) / f"hbagent-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).exists():
                made = Quota(group, file)
                try:
                    yield made
                finally:
                    made.free()
                return
        finally:
            group.rmdir()
    pytest.skip("no control group with a quota can be made here")
