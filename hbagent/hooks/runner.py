"""Runs one hook: somebody's script, of which nothing may be believed.

It may hang, ignore SIGTERM, never read its input, write for ever, leave children behind that hold its output open.
None of that may hold the caller longer than the time limit plus two graces, or cost it more than 64 KiB of memory.
So the input is a file and not a pipe that could fill up; the output is read to the end but kept only up to the cap;
the end of the process counts, not the end of its output; and its whole process group dies with it.

`run` blocks and belongs into a worker thread. It never raises: whatever goes wrong is in the result.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hbagent.core.messages import HookFinished
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.trust import distrust

#: What a hook may print before the rest is thrown away: enough for any message, small enough for a log and a table.
OUTPUT_MAX = 64 * 1024

#: From SIGTERM to SIGKILL, and from SIGKILL until a process that does not die (stuck in the kernel) is left alone.
GRACE_NS = 2 * SECOND

#: How often the end of the process is looked for while it neither writes nor closes its output.
TICK_NS = 20 * MILLISECOND
#: The first look after the output closed: an ending process closes its files just before it can be waited for.
FIRST_LOOK_NS = MILLISECOND // 4
#: Between two readings of output beyond the cap. A pipe holds 64 KiB, so a hook that writes much still gets rid of
#: 16 MB/s, and one that writes for ever costs about one per cent of a core and not all of it.
FLOOD_PAUSE_NS = 4 * MILLISECOND

#: The whole environment, apart from what the caller adds. Nothing of the daemon's own leaks into a hook.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HBAGENT_SCHEMA": "1"}
#: Tells the processes of one run from all others, also those that left its process group.
TAG = "HBAGENT_RUN_ID"


def check(argv: Sequence[str]) -> str:
    """Why this command may not be a hook; "" when it may."""
    return distrust(argv, "command")


def run(
    argv: Sequence[str], input: bytes, timeout_ns: int, env_extra: Mapping[str, str] | None = None, run_id: str = ""
) -> HookFinished:
    """Run `argv` with `input` on its standard input, for `timeout_ns` at most; then all of its group is killed.

    A process that closes its output, or leaves children that hold it open, is waited for by its own end only.
    Standard output and standard error arrive in one stream. `error` is "" exactly when the exit status was 0 within
    the time limit.
    """
    started = time.monotonic_ns()
    environment = {**ENVIRONMENT, TAG: run_id, **(env_extra or {})}
    try:
        child = _start(argv, input, environment)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = f"not started: {getattr(error, 'strerror', None) or error}"
        return HookFinished(run_id=run_id, exit_code=None, error=reason, duration_ns=time.monotonic_ns() - started)
    with _Attendance(child) as attendance:
        in_time = attendance.until(started + timeout_ns)
        if not in_time:
            attendance.kill(signal.SIGTERM)
            attendance.until(time.monotonic_ns() + GRACE_NS)
        # Also after a clean end: what is left of the group must not outlive the run.
        attendance.kill(signal.SIGKILL)
        if not in_time:
            _kill_tagged(run_id)
        ended = attendance.until(time.monotonic_ns() + GRACE_NS)
        exit_code, error_text = attendance.verdict() if ended else (None, "not killable")
        return HookFinished(
            run_id=run_id,
            exit_code=exit_code if in_time else None,
            error=error_text if in_time else "timeout" if ended else "timeout, and not killable",
            duration_ns=time.monotonic_ns() - started,
            output=bytes(attendance.output),
            truncated=attendance.truncated,
        )


def _start(argv: Sequence[str], input: bytes, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
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
        )


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


class _Attendance:
    """Attends a running child: takes in its output and notices its end, without letting go of its process id.

    The id is freed only at the end, by waiting for it: until then it cannot be given to another process, so a
    signal to the group can hit nobody else.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self.output = bytearray()
        self.truncated = False
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

    def until(self, deadline: int) -> bool:
        """Attend until the child has ended (True) or the monotonic clock reaches `deadline` (False)."""
        look_ns = FIRST_LOOK_NS
        while not self._ended():
            left = deadline - time.monotonic_ns()
            if left <= 0:
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


def _kill_tagged(run_id: str) -> None:
    """Kill what a run left outside of its group, found by the tag in its environment.

    Looked for only after a timeout, because it reads all of /proc. What also cleaned its environment escapes.
    """
    if not run_id:
        return
    tag = f"{TAG}={run_id}".encode()
    for name in os.listdir("/proc"):
        # Processes come and go, and those of other users cannot be read.
        with contextlib.suppress(OSError):
            if name.isdecimal() and tag in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                os.kill(int(name), signal.SIGKILL)
