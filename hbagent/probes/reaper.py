"""Ends whole trees of processes: nobody is left, whatever they do to get away.

Three things make that hold. A process that exits leaves its children to the nearest *subreaper* above it
(`PR_SET_CHILD_SUBREAPER`), so neither a double fork nor a new session leads out of a tree whose top is one. A process
that was sent a signal cannot fork before it has taken it, so that once everybody is stopped the list of everybody is
complete, however fast they multiply. And one that has exited keeps its id until its parent asks for it, so that a
signal to one's own child hits nobody else.

What is stuck in the kernel does not die even of SIGKILL. It is told, never waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable

from hbagent.core.units import MILLISECOND

#: Numbers of `prctl(2)`, from linux/prctl.h.
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37

#: What one call of `fell` may take: 400 processes that fork without end take 20 ms on two cores.
FELL_NS = 50 * MILLISECOND
#: From SIGKILL until what does not die is taken for stuck in the kernel: hundreds that die together take 30 ms.
GRACE_NS = 200 * MILLISECOND
#: Between two looks whether somebody has died.
_LOOK_NS = MILLISECOND // 2

_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """From now on whoever loses its parent below this process becomes its child. Raises OSError."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def is_subreaper() -> bool:
    """Whether this process has called `become_subreaper`; a child does not inherit it."""
    answer = ctypes.c_int()
    _prctl(_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


def die_with_parent(parent: int) -> None:
    """Be killed when the thread that forked this process ends; at once when `parent` is gone already."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children(pid: int) -> list[int]:
    """Children of all threads of a process, the dead that nobody has asked for among them; [] when it is gone."""
    tasks = f"/proc/{pid}/task"
    found: list[int] = []
    try:
        for thread in os.listdir(tasks):
            with open(f"{tasks}/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        # It or one of its threads has gone; or the kernel was built without these files.
        return found if os.path.exists("/proc/thread-self/children") else _children_by_parent(pid)
    return found


def _children_by_parent(pid: int) -> list[int]:
    """The same from the parent that every process names; reads all of /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _stat(int(name))[1] == pid]


def _stat(pid: int) -> tuple[str, int]:
    """State letter and parent of a process; ("", 0) when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before them is in brackets and may hold anything.
            words = file.read().rpartition(b")")[2].split()
        return words[0].decode(), int(words[1])
    except (OSError, IndexError, ValueError):
        return "", 0


def is_dead(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    return _stat(pid)[0] in ("", "Z", "X")


def command(pid: int) -> str:
    """The name of a process for people; "" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def fell(roots: Iterable[int], limit_ns: int = FELL_NS) -> list[int]:
    """Stop, then kill these processes and all below them; returns whom. After `limit_ns` it kills whom it has found.

    It neither waits until they are dead nor asks for their ends. Those that may not be signalled are returned too.
    """
    until = time.monotonic_ns() + limit_ns
    tops = list(roots)
    known: dict[int, None] = {}
    grown = True
    while grown and time.monotonic_ns() < until:
        # Once more from the top, until nobody new is met: one thread may have forked while another was being stopped.
        grown = False
        ahead = list(tops)
        while ahead and time.monotonic_ns() < until:
            pid = ahead.pop()
            if pid not in known:
                known[pid] = None
                grown = True
                _signal(pid, signal.SIGSTOP)
            ahead += children(pid)
    for pid in known:
        _signal(pid, signal.SIGKILL)
    return list(known)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def reap(pid: int) -> int | None:
    """Wait status of a child that has ended, which frees its id; None while it runs. 0 when it is no child of ours."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if ended else None


def clear(limit_ns: int = GRACE_NS, pause: Callable[[float], None] = time.sleep) -> list[int]:
    """Kill all below this process, a subreaper, until none is left; returns the children that did not die in time.

    Kills *every* child, whoever made it. Blocks for `limit_ns` at most, and one `fell`.
    """
    me = os.getpid()
    until = time.monotonic_ns() + limit_ns
    while True:
        left = [pid for pid in children(me) if reap(pid) is None]
        if not left or time.monotonic_ns() >= until:
            return left
        fell(left)
        pause(_LOOK_NS / 1e9)
