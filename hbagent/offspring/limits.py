"""What a program that is started from here may use: limits of the kernel, for each process and for each user.

They hold wherever the daemon runs, with a cgroup of its own or without. Only the number of tasks is the whole user's:
the kernel looks at it when somebody forks, so a program with a lower limit gets stuck before its daemon does.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable


def confine(limits: Iterable[tuple[int, int]]) -> None:
    """Give this process these limits (of `resource`), or the tighter ones that it has."""
    for number, limit in limits:
        # A sandbox may deny it, and its own limits then hold.
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(number)[1]
            least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(number, (least, least))


def tasks_of_user() -> int | None:
    """How many tasks this user has now; None for root, whom the kernel does not limit. Reads all of /proc: 10 ms."""
    uid = os.geteuid()
    if uid == 0:
        return None
    count = 0
    for name in os.listdir("/proc"):
        if name.isdecimal():
            # Processes come and go.
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
    return count
