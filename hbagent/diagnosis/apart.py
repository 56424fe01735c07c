"""Work in a process of its own, which is left behind when it does not come back.

Reading about another process can hang in the kernel so that no signal ends it. Whoever must go on forks first, waits
with a deadline, and gives up the child instead of itself. The child has nothing of the caller's open but the pipe for
its answer, so that one left behind holds up no reader of the caller's output.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final

import msgspec

from hbagent.core.units import MILLISECOND
from hbagent.offspring import reaper

#: What a child may answer: a whole examination with its threads is 100 kB.
ANSWER_SIZE_MAX: Final = 4 << 20
#: How long a killed child may take to be gone, and longer while it waits for a processor; one that is in state D may
#: take for ever.
_GOING_NS: Final = 200 * MILLISECOND
#: First byte of what a child sends: its answer follows, or why it has none.
_DONE: Final = b"\x00"
_FAILED: Final = b"\x01"
#: Where the pipe is in the child: the first descriptor behind the standard ones.
_SENDER: Final = 3


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of work apart: an answer, or an error."""

    answer: bytes = b""
    #: "" or why there is no answer, for people.
    error: str = ""
    #: Id of a child that did not die of SIGKILL and was left behind; 0: none.
    abandoned: int = 0


def run(work: Callable[[], bytes], timeout_ns: int) -> Outcome:
    """Do `work` in a child; its answer, or why there is none. Call it in a process with one thread only."""
    receiver, sender = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _be_child(work, sender)
    os.close(sender)
    deadline = time.monotonic_ns() + timeout_ns
    try:
        answer, in_time = _read_all(receiver, deadline)
    finally:
        os.close(receiver)
        status = _end(child)
    if in_time and answer[:1] == _DONE:
        # It is whole, whatever becomes of the child.
        return Outcome(answer=answer[1:], abandoned=child if status is None else 0)
    if status is None:
        return Outcome(error="it hangs in the kernel and was left behind", abandoned=child)
    if not in_time:
        return Outcome(error=f"no answer within {timeout_ns // MILLISECOND} ms")
    return Outcome(error=answer[1:].decode("utf-8", "replace") or f"it ended with {_ending(status)}")


def _be_child(work: Callable[[], bytes], sender: int) -> None:
    """The rest of the child's life."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        _keep_only(sender)
        try:
            answer = _DONE + work()
        except Exception as error:
            answer = _FAILED + f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace")
        view = memoryview(answer)
        while view:
            view = view[os.write(_SENDER, view) :]
    finally:
        os._exit(0)


def _keep_only(sender: int) -> None:
    """Close every descriptor but the pipe, and have nothing where the standard ones were."""
    # First out of the way of the standard descriptors, which the caller may have closed.
    moved = fcntl.fcntl(sender, fcntl.F_DUPFD, _SENDER + 1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.dup2(moved, _SENDER)
    os.closerange(_SENDER + 1, os.sysconf("SC_OPEN_MAX"))


def _read_all(receiver: int, deadline: int) -> tuple[bytes, bool]:
    """What arrives until the other end is closed, and whether it was closed by the deadline."""
    poller = select.poll()
    poller.register(receiver, select.POLLIN)
    parts: list[bytes] = []
    size = 0
    while size <= ANSWER_SIZE_MAX:
        left = deadline - time.monotonic_ns()
        if left <= 0 or not poller.poll(left // MILLISECOND + 1):
            return b"".join(parts), False
        data = os.read(receiver, 65536)
        if not data:
            return b"".join(parts), True
        parts.append(data)
        size += len(data)
    return b"", False


def _end(child: int) -> int | None:
    """Kill the child and collect it: its wait status, or None when it does not go."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        return status
    # Its answer is complete when the pipe closes, so it may be killed on its way out; then that is no failure.
    os.kill(child, signal.SIGKILL)
    patience = reaper.Patience(time.monotonic_ns(), _GOING_NS)
    while not pid and not patience.is_over(0, time.monotonic_ns(), [child]):
        time.sleep(0.002)
        pid, status = os.waitpid(child, os.WNOHANG)
    return status if pid else None


def _ending(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
