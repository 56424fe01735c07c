"""Ends whole trees of processes: nobody is left, whatever they do to get away.

Three things make that hold. A process that exits leaves its children to the nearest *subreaper* above it
(`PR_SET_CHILD_SUBREAPER`), so neither a double fork nor a new session leads out of a tree whose top is one. A process
that was sent a signal cannot fork before it has taken it, so that once everybody is stopped the list of everybody is
complete, however fast they multiply. And one that has exited keeps its id until its parent asks for it, so that a
signal to one's own child hits nobody else.

What is stuck in the kernel does not die even of SIGKILL. It is told, never waited for. But whoever dies needs a
processor to do so, and locks of the kernel that another one of the same family may hold: on a busy host that is a wait,
and no sign of being stuck.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable

from hbagent.core.units import MILLISECOND, SECOND

#: Numbers of `prctl(2)`, from linux/prctl.h.
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37

#: What one call of `fell` may take, for the caller has other things to do: 300 processes take 15 ms of a core, 300 that
#: multiply without end 100 ms. Whoever is missed is met by the next call.
FELL_NS = 50 * MILLISECOND
#: After SIGKILL nobody has died for this long, and nobody waits for a processor: who is left is taken for stuck in the
#: kernel. On a busy host 300 processes of 10 MiB take half a second to end, one after the other.
GRACE_NS = 200 * MILLISECOND
#: ...but not longer than this altogether.
PATIENCE_NS = 2 * SECOND
#: Whoever has not looked for this long stood still, perhaps with the host: nobody else had that time either.
_STOOD_STILL_NS = 100 * MILLISECOND
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


def _stat(pid: int, of: int = 0) -> tuple[str, int]:
    """State letter and parent of a process, or of a thread `of` one; ("", 0) when it is gone."""
    try:
        with open(f"/proc/{of or pid}/task/{pid}/stat", "rb") as file:
            # The name before them is in brackets and may hold anything.
            words = file.read().rpartition(b")")[2].split()
        return words[0].decode(), int(words[1])
    except (OSError, IndexError, ValueError):
        return "", 0


def is_dead(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    return _stat(pid)[0] in ("", "Z", "X")


def is_runnable(pid: int) -> bool:
    """Whether a thread of a process runs or waits for a processor: after SIGKILL, in order to die."""
    try:
        return any(_stat(int(thread), pid)[0] == "R" for thread in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return False


def _turns(pids: Iterable[int]) -> dict[int, bytes]:
    """How often each of these has had a processor or given it up; who is stuck in the kernel does neither."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
            found[pid] = file.read().partition(b"\nvoluntary_ctxt_switches:")[2]
    return found


def command(pid: int) -> str:
    """The name of a process for people; "" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def fell(roots: Iterable[int], limit_ns: int = FELL_NS) -> list[int]:
    """Stop, then kill these processes and all below them; returns whom. After `limit_ns` it kills whom it has found:
    these at least.

    It neither waits until they are dead nor asks for their ends. Those that may not be signalled are returned too.
    """
    until = time.monotonic_ns() + limit_ns
    tops = list(roots)
    known = dict.fromkeys(tops)
    for pid in known:
        _signal(pid, signal.SIGSTOP)
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


class Patience:
    """How long to wait for processes that were killed: while they die, one after the other, or have their turns on a
    processor or wait for one, and a grace after that."""

    def __init__(self, now: int, grace_ns: int = GRACE_NS, patience_ns: int = PATIENCE_NS) -> None:
        self._grace_ns = grace_ns
        self._until = now + grace_ns
        self._latest = now + patience_ns
        self._looked_at = now
        self._stood_still = False
        self._gone = 0
        #: Turns of those who were left, half a grace ago.
        self._turns: dict[int, bytes] = {}

    def is_over(self, gone: int, now: int, left: Iterable[int] = ()) -> bool:
        """Whether the others will not die; `gone` is how many have since the beginning, `left` those who may live yet,
        with all below them."""
        if now > self._looked_at + _STOOD_STILL_NS:
            # What can die does so soon; of the end of all patience that is believed once.
            self._until = max(self._until, now + self._grace_ns // 2)
            self._latest = self._latest if self._stood_still else max(self._latest, self._until)
            self._stood_still = True
            self._turns = {}
        self._looked_at = now
        if gone > self._gone or (self._until <= now < self._latest and self._move(left)):
            self._gone = max(gone, self._gone)
            self._until = now + self._grace_ns
            self._turns = {}
        elif not self._turns and now >= self._until - self._grace_ns // 2:
            self._turns = _turns(left)
        return now >= min(self._until, self._latest)

    def _move(self, left: Iterable[int]) -> bool:
        # On a lock that hundreds want each of them waits as one does that is stuck, but not for long.
        return any(map(is_runnable, left)) or _turns(self._turns) != self._turns


def clear(grace_ns: int = GRACE_NS, patience_ns: int = PATIENCE_NS) -> list[int]:
    """Kill all below this process, a subreaper, until none is left; returns the children that do not die.

    Kills *every* child, whoever made it. Blocks as long as `Patience` lasts.
    """
    me = os.getpid()
    patience = Patience(time.monotonic_ns(), grace_ns, patience_ns)
    gone = 0
    family: list[int] = []
    while True:
        found = children(me)
        left = [pid for pid in found if reap(pid) is None]
        gone += len(found) - len(left)
        # Nobody is given up who was not killed yet, however long it took to look.
        if not found or (left and family and patience.is_over(gone, time.monotonic_ns(), family)):
            return left
        # Who ended between the two looks has left its own children here.
        if left:
            family = fell(left)
            time.sleep(_LOOK_NS / SECOND)
