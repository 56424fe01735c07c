"""What the kernel says of this very process, read from `/proc/self`: no library is needed for a few numbers."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from hbagent.core.exposition import ProcessFacts

_PROC = Path("/proc")
#: A start time of `stat` is in these.
_TICKS = os.sysconf("SC_CLK_TCK")


def process_facts(
    *,
    commit_s: float | None = None,
    reads: tuple[int, int] | None = None,
    defects: int = 0,
    rotation: tuple[int, int] | None = None,
    proc: Path = _PROC,
) -> ProcessFacts:
    """The facts of now; what cannot be read is None."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = _numbers(proc / "self/statm")
    page = os.sysconf("SC_PAGE_SIZE")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    stat = _read(proc / "self/stat").rpartition(")")[2].split()
    return ProcessFacts(
        cpu_s=round(usage.ru_utime + usage.ru_stime, 3),
        resident_bytes=pages[1] * page if len(pages) > 1 else None,
        virtual_bytes=pages[0] * page if pages else None,
        open_fds=_descriptors(proc / "self/fd"),
        fds_max=limit if limit != resource.RLIM_INFINITY else None,
        threads=int(stat[17]) if len(stat) > 19 else None,
        started_s=_started(stat, proc),
        commit_s=commit_s,
        reads=reads,
        defects=defects,
        rotation=rotation,
    )


def _started(stat: list[str], proc: Path) -> float | None:
    boot = [line.split()[1] for line in _read(proc / "stat").splitlines() if line.startswith("btime ")]
    return int(boot[0]) + int(stat[19]) / _TICKS if boot and len(stat) > 19 else None


def _descriptors(directory: Path) -> int | None:
    try:
        # The one that lists them is among them.
        return len(os.listdir(directory)) - 1
    except OSError:
        return None


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in _read(path).split()]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
