"""What the kernel knows of this process's trouble: no CPU, a quota used up, a host that slept.

Three counters, read once a second by the loop itself: they are in memory, so the reads never wait, and the files stay
open, so that a reading is two system calls and some microseconds. What a kernel does not offer is 0.

- `/proc/thread-self/schedstat` (kernel documentation, scheduler/sched-stats): second number, nanoseconds that this
  thread was ready to run and did not. A stopped or frozen one is not ready, so it does not grow: 0.01 ms in 3 s.
- `cpu.stat` of the control group: time throttled by a CPU quota, of all its processors together. `cpu.stat.local`,
  where there is one (Linux 6.6), has the quotas of the groups above in it as well. The kernel counts it as run delay,
  too: 3.52 s of either in 4 s at 5 % of a processor.
- `CLOCK_BOOTTIME` goes on while the host is suspended, `CLOCK_MONOTONIC` does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from hbagent.core.messages import Effort
from hbagent.core.units import MICROSECOND

SCHEDSTAT = "/proc/thread-self/schedstat"
CGROUP = "/proc/self/cgroup"
CGROUPS = "/sys/fs/cgroup"

#: `cpu.stat` with all that version 2 adds to it is 500 bytes.
_READ = 2048
#: What version 2 calls it and what version 1 does, and how many nanoseconds one of it is.
_THROTTLED = ((b"throttled_usec ", MICROSECOND), (b"throttled_time ", 1))


class EffortMeter:
    """Reads the counters of the thread that makes it and of its control group. Nothing here raises."""

    def __init__(self, schedstat: str = SCHEDSTAT, cgroup: str = CGROUP, cgroups: str = CGROUPS) -> None:
        self._schedstat = _open(schedstat)
        self._quota = _open_quota(cgroup, cgroups)
        # Once would do, were it not for a preemption: what is too little here is too much ever after.
        self._slept_ns = self._suspended_ns = max(_slept_ns() for _ in range(3))

    def read(self) -> Effort:
        """The counters now; `suspended_ns` is since this meter was made."""
        # Preempted between the two clocks it would look like a step back.
        self._suspended_ns = max(self._suspended_ns, _slept_ns())
        return Effort(
            run_delay_ns=_second_number(_read(self._schedstat)),
            throttled_ns=_throttled_ns(_read(self._quota)),
            suspended_ns=self._suspended_ns - self._slept_ns,
        )

    def close(self) -> None:
        """Close the files; from now on their counters are 0. Harmless when repeated."""
        for fd in (self._schedstat, self._quota):
            if fd is not None:
                os.close(fd)
        self._schedstat = self._quota = None


def _slept_ns() -> int:
    """How long the host has been suspended since it started; too little when preempted here, never too much."""
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boottime - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _read(fd: int | None) -> bytes:
    if fd is None:
        return b""
    try:
        return os.pread(fd, _READ, 0)
    except OSError:  # the control group was removed under us
        return b""


def _open_quota(cgroup: str, cgroups: str) -> int | None:
    """The first file of this process's control group that tells of throttling."""
    for directory in _directories(cgroup, cgroups):
        for name in ("cpu.stat.local", "cpu.stat"):
            fd = _open(f"{directory}/{name}")
            if fd is None:
                continue
            if any(_find(_read(fd), word) is not None for word, _ in _THROTTLED):
                return fd
            os.close(fd)
    return None


def _directories(cgroup: str, cgroups: str) -> Iterator[str]:
    """Where the control group of this process may be: by its path, or the mount itself inside a container."""
    try:
        with open(cgroup, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = [cgroups, f"{cgroups}/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [f"{cgroups}/{controllers}", f"{cgroups}/cpu"]
        else:
            continue
        for mount in mounts:
            yield f"{mount}{path}"
            yield mount


def _throttled_ns(data: bytes) -> int:
    for word, unit_ns in _THROTTLED:
        found = _find(data, word)
        if found is not None:
            return found * unit_ns
    return 0


def _find(data: bytes, word: bytes) -> int | None:
    """The number behind a word that stands at the beginning of a line."""
    _, found, rest = (b"\n" + data).partition(b"\n" + word)
    number = rest.partition(b"\n")[0]
    return int(number) if found and number.isdigit() else None


def _second_number(data: bytes) -> int:
    numbers = data.split()
    return int(numbers[1]) if len(numbers) > 1 and numbers[1].isdigit() else 0
