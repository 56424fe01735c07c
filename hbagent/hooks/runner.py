"""Runs one hook: somebody's script, of which nothing may be believed.

It may hang, ignore SIGTERM, never read its input, write for ever, multiply, leave children behind that hold its output
open or have left its session. None of that may hold the caller longer than the time limit plus two graces, or cost it
more than 64 KiB of memory. So the input is a file and not a pipe that could fill up; the output is read to the end but
kept only up to the cap; the end of the process counts, not the end of its output; and all that it started dies with it.

`perform` and `run` block and must be called in a hand (`offspring.hands`): it is the one to which everybody below comes
back, whatever they do to get away, and it ends them before it answers. Neither ever raises: whatever goes wrong is in
the result.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from hbagent.core.effects import RunHook
from hbagent.core.messages import HookFinished
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.offspring import reaper
from hbagent.offspring.limits import confine, tasks_of_user
from hbagent.trust import distrust

#: What a hook may print before the rest is thrown away: enough for any message, small enough for a log and a table.
OUTPUT_MAX = 64 * 1024

#: From SIGTERM to SIGKILL; one that does not die of that is stuck in the kernel, and left alone after a
#: `reaper.PATIENCE_NS`.
GRACE_NS = 2 * SECOND
#: Beyond the time limit of a hook, whoever waits for `perform` waits so long: both, and a patience for the hand.
SLACK_NS = GRACE_NS + 2 * reaper.PATIENCE_NS + SECOND

#: How often the end of the process is looked for while it neither writes nor closes its output, and how often its
#: processes are counted.
TICK_NS = 20 * MILLISECOND
#: The first look after the output closed: an ending process closes its files just before it can be waited for.
FIRST_LOOK_NS = MILLISECOND // 4
#: Between two readings of output beyond the cap. A pipe holds 64 KiB, so a hook that writes much still gets rid of
#: 16 MB/s, and one that writes for ever costs about one per cent of a core and not all of it.
FLOOD_PAUSE_NS = 4 * MILLISECOND

#: Processes of one run at once: a script with pipes has five. Between two looks a bomb gets beyond it by what it can
#: fork in that time.
PROCESSES_MAX = 64
#: Tasks that all hooks may add to those of this user, where that is not root, whom the kernel does not limit.
TASKS_MAX = 4 * PROCESSES_MAX
#: Files that one process may have open, size of a file that it may write (a log that nobody rotates), its address space
#: (runtimes with a collector reserve several GiB that they never use).
FILES_MAX = 1024
FILE_SIZE_MAX = 1 << 30
MEMORY_MAX = 16 << 30

#: The whole environment, apart from what the caller adds. Nothing of the daemon's own leaks into a hook. The last is
#: for hooks in Python: a host need not have another interpreter than that of the daemon.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HBAGENT_SCHEMA": "1", "HBAGENT_PYTHON": sys.executable}
#: Tells one run from all others, for a hook that logs.
TAG = "HBAGENT_RUN_ID"

_LIMITS = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, FILES_MAX),
    (resource.RLIMIT_FSIZE, FILE_SIZE_MAX),
    (resource.RLIMIT_AS, MEMORY_MAX),
)


class _Named(msgspec.Struct):
    """What of a document stands in the environment as well."""

    event_id: str = ""
    kind: str = ""


def check(argv: Sequence[str]) -> str:
    """Why this command may not be a hook; "" when it may."""
    return distrust(argv, "command")


def perform(order: RunHook, tasks_max: int | None = None) -> HookFinished:
    """Run a hook as it was ordered, unless its file has become one that may not be run.

    `tasks_max`: tasks that this user may have, hooks included; None for no such limit.
    """
    refusal = check(order.argv)
    if refusal:
        return HookFinished(run_id=order.run_id, exit_code=None, error=f"not started: {refusal}")
    try:
        named = msgspec.json.decode(order.input, type=_Named)
    except msgspec.MsgspecError:
        named = _Named()
    extra = {"HBAGENT_EVENT_ID": named.event_id, "HBAGENT_KIND": named.kind}
    return run(order.argv, order.input, order.timeout_ns, extra, order.run_id, tasks_max)


def run(
    argv: Sequence[str],
    input: bytes,
    timeout_ns: int,
    env_extra: Mapping[str, str] | None = None,
    run_id: str = "",
    tasks_max: int | None = None,
) -> HookFinished:
    """Run `argv` with `input` on its standard input, for `timeout_ns` at most; then all that it started is killed.

    A process that closes its output, or leaves children that hold it open, is waited for by its own end only.
    Standard output and standard error arrive in one stream. `error` is "" exactly when the exit status was 0 within
    the time limit.
    """
    started = time.monotonic_ns()
    environment = {**ENVIRONMENT, TAG: run_id, **(env_extra or {})}
    try:
        child = _start(argv, input, environment, tasks_max)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = f"not started: {getattr(error, 'strerror', None) or error}"
        return HookFinished(run_id=run_id, exit_code=None, error=reason, duration_ns=time.monotonic_ns() - started)
    with _Attendance(child) as attendance:
        failure = "" if attendance.until(started + timeout_ns) else attendance.excess or "timeout"
        if failure == "timeout":
            attendance.kill(signal.SIGTERM)
            attendance.until(time.monotonic_ns() + GRACE_NS)
        # Also after a clean end: what is left must not outlive the run. Who has left the group is the hand's to end.
        attendance.kill(signal.SIGKILL)
        if failure:
            reaper.fell(reaper.children(os.getpid()))
        ended = attendance.until(time.monotonic_ns() + reaper.PATIENCE_NS, census=False)
        exit_code, error_text = attendance.verdict() if ended else (None, "not killable")
        return HookFinished(
            run_id=run_id,
            exit_code=None if failure else exit_code,
            error=error_text if not failure else failure if ended else f"{failure}, and not killable",
            duration_ns=time.monotonic_ns() - started,
            output=bytes(attendance.output),
            truncated=attendance.truncated,
        )


def _start(
    argv: Sequence[str], input: bytes, environment: Mapping[str, str], tasks_max: int | None
) -> subprocess.Popen[bytes]:
    with _input_file(input) as stdin:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd="/",
            env=dict(environment),
            close_fds=True,
            start_new_session=True,
            preexec_fn=functools.partial(_confine, os.getpid(), tasks_max),
        )


def _confine(parent: int, tasks_max: int | None) -> None:
    """In the child, before it becomes the hook: it ends with the hand, and has limits."""
    reaper.die_with_parent(parent)
    confine(_LIMITS if tasks_max is None else (*_LIMITS, (resource.RLIMIT_NPROC, tasks_max)))


def tasks_allowed() -> int | None:
    """How many tasks this user may have so that hooks can add `TASKS_MAX` to those of now; None for root.

    Reads all of /proc: some 10 ms.
    """
    count = tasks_of_user()
    return None if count is None else count + TASKS_MAX


@contextlib.contextmanager
def _input_file(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("hook-input")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


class _Census:
    """Whether there are too many processes below this one, for a small price a look.

    Ids are given out in turn, so there are at most as many new processes as ids were given out since they were counted.
    """

    def __init__(self, child: int) -> None:
        self._child = child
        self._known = 0
        self._newest = -1

    def too_many(self) -> bool:
        """Look."""
        newest = _newest_id()
        # Ids begin anew at the end of their range.
        made = newest - self._newest if 0 <= self._newest <= newest else PROCESSES_MAX + 1
        if self._known + made <= PROCESSES_MAX:
            return False
        self._newest = newest
        # Children of the hook's that have lost their parent and ended: nobody but this process asks for them.
        for orphan in reaper.children(os.getpid()):
            if orphan != self._child:
                reaper.reap(orphan)
        self._known = _count(os.getpid())
        return self._known > PROCESSES_MAX


def _newest_id() -> int:
    """The process id that was given out last; -1 when the kernel does not say."""
    try:
        with open("/proc/loadavg", "rb") as file:
            return int(file.read().split()[4])
    except (OSError, ValueError, IndexError):
        return -1


def _count(top: int) -> int:
    """Processes below `top`, as far as they matter here: one more than may be is enough."""
    ahead, count = [top], -1
    while ahead and count <= PROCESSES_MAX:
        count += 1
        ahead += reaper.children(ahead.pop())
    return count


class _Attendance:
    """Attends a running child: takes in its output and notices its end, without letting go of its process id.

    The id is freed only at the end, by waiting for it: until then it cannot be given to another process, so a
    signal to the group can hit nobody else.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self.output = bytearray()
        self.truncated = False
        #: Why it has to end before its time; "" while it has not.
        self.excess = ""
        self._census = _Census(child.pid)
        self._counted_at = 0
        self._child = child
        self._pipe = child.stdout
        self._fd = child.stdout.fileno()
        self._open = True
        self._status: tuple[int | None, str] | None = None
        os.set_blocking(self._fd, False)
        self._poller = select.poll()
        self._poller.register(self._fd, select.POLLIN)

    def __enter__(self) -> _Attendance:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        # Frees the process id. A child that could not be killed is left to Popen, which waits for it later.
        self._child.poll()

    def until(self, deadline: int, census: bool = True) -> bool:
        """Attend until the child has ended (True), or there are too many processes or the monotonic clock reaches
        `deadline` (False)."""
        look_ns = FIRST_LOOK_NS
        while not self._ended():
            now = time.monotonic_ns()
            left = deadline - now
            if left <= 0:
                return False
            if census and now >= self._counted_at + TICK_NS:
                self._counted_at = now
                if self._census.too_many():
                    self.excess = f"more than {PROCESSES_MAX} processes"
                    return False
            if self._open and self.truncated:
                time.sleep(min(left, FLOOD_PAUSE_NS) / SECOND)
            elif self._open:
                self._poller.poll(min(left, TICK_NS) / MILLISECOND)
            else:
                time.sleep(min(left, look_ns) / SECOND)
                look_ns = min(2 * look_ns, TICK_NS)
            self._take()
        self._take()
        return True

    def kill(self, number: signal.Signals) -> None:
        """Signal the child's whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)

    def verdict(self) -> tuple[int | None, str]:
        """Exit status (None after a signal) and why it is a failure ("" when it is none)."""
        assert self._status is not None
        return self._status

    def _ended(self) -> bool:
        if self._status is None:
            try:
                found = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # somebody else waited for it, or this process ignores SIGCHLD
                self._status = (None, "exit status lost")
                return True
            if found is not None:
                status = found.si_status
                if found.si_code == os.CLD_EXITED:
                    self._status = (status, f"exit {status}" if status else "")
                else:
                    self._status = (None, f"signal {status}")
        return self._status is not None

    def _take(self) -> None:
        """Take in what the pipe holds now, once around."""
        if not self._open:
            return
        try:
            data = os.read(self._fd, OUTPUT_MAX)
        except BlockingIOError:
            return
        if not data:
            self._open = False
        room = OUTPUT_MAX - len(self.output)
        self.output += data[:room]
        self.truncated = self.truncated or len(data) > room
