"""Runs somebody's program as a check, under the contract of the Nagios plugins.

The exit status is the verdict: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; anything else, a signal, or a program that
cannot be started is UNKNOWN with the reason. What it prints is read by `probes.plugin`.

The program is believed in nothing else. It gets an argument list and never a shell, a clean environment, no input and
a session of its own; its output is read to its end and kept up to a cap; its own end counts, not that of its output,
which a child may hold open; and at the time limit it is killed with all that it has started. What it leaves behind
otherwise is ended by the hand that this runs in (`offspring.hands`), which is why it must run in one. Memory, files and
tasks have limits that are tighter than those of the agent, so that whoever runs away gets stuck before the agent does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from hbagent.core.checks import ExecCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import MILLISECOND, MINUTE, SECOND
from hbagent.offspring import reaper
from hbagent.offspring.limits import confine, tasks_of_user
from hbagent.trust import distrust

from . import plugin
from .outcome import clean

#: What a program may print before the rest is thrown away: performance data of a hundred disks.
OUTPUT_MAX = 8 * 1024
#: What is kept of its complaints, which are shown when it printed nothing else.
ERRORS_MAX = 1024
#: The whole environment, apart from what the configuration adds. Plugins print numbers as their locale has them.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C"}

#: Tasks that programs may add to those that this user has; the unit of the agent has room for twice as many. Not for
#: root, whom the kernel does not limit.
PROCESSES_MAX = 128
#: Memory that one process may fill with data; what runtimes reserve and never use is not counted.
DATA_MAX = 512 * 1024 * 1024
#: Files that one process may have open, and size of a file that it may write.
FILES_MAX = 1024
FILE_SIZE_MAX = 1 << 30

_LIMITS = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, FILES_MAX),
    (resource.RLIMIT_FSIZE, FILE_SIZE_MAX),
    (resource.RLIMIT_DATA, DATA_MAX),
)

VERDICTS = {0: Health.OK, 1: Health.WARNING, 2: Health.CRITICAL, 3: Health.UNKNOWN}
#: What shells and `env` say of a program that they could not run.
_ODD = {126: "cannot be executed", 127: "not found"}

#: Read at full speed up to this; then a pipe's 64 KiB each 4 ms, so that a program that prints without end costs one
#: per cent of a core, and one that prints 10 MB still gets rid of it in time.
FLOOD_MIN = 1024 * 1024
FLOOD_PAUSE_NS = 4 * MILLISECOND
#: The kernel reads no more of the line that names an interpreter.
FIRST_LINE_SIZE = 256
#: How often its end is looked for on a kernel that cannot tell by a descriptor (before 5.3).
TICK_NS = 10 * MILLISECOND


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ran."""

    #: Exit status; None when it did not exit by itself, or was never started.
    status: int | None = None
    #: "" or why there is no status.
    trouble: str = ""
    timed_out: bool = False
    output: bytes = b""
    errors: bytes = b""


#: Bytes that no plugin prints and a program that has gone astray does: control characters, but for those that move or
#: colour the text. Bytes beyond ASCII may be the degree sign of an old plugin.
_NOT_IN_TEXT = bytes(byte for byte in range(0x20) if byte not in b"\t\n\r\a\b\v\f\x1b")


_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)


def look(check: ExecCheck, timeout_ns: int, memory: Mapping[str, Any]) -> CheckFinished:
    """Run the program and read what it says, in `timeout_ns` and a grace; `run` of the result is 0. Never raises."""
    begun = time.monotonic_ns()
    why_not = refusal(check.argv)
    if why_not:
        return _finished(begun, Health.UNKNOWN, f"not started: {why_not}")
    done = run(check.argv, check.env, timeout_ns)
    said = plugin.parse(done.output.decode(errors="replace"))
    text = said.text or plugin.parse(done.errors.decode(errors="replace")).text
    if done.timed_out:
        return _finished(begun, Health.CRITICAL, f"it said: {text}" if text else "", timed_out=True)
    verdict = VERDICTS.get(done.status) if done.status is not None else None
    if verdict is None:
        odd = done.trouble or f"exit status {done.status}, which means nothing"
        if done.status in _ODD:
            odd = f"exit status {done.status}: {_ODD[done.status]}"
        return _finished(begun, Health.UNKNOWN, f"{odd}; it said: {text}" if text else odd)
    if verdict is Health.OK and done.output.translate(None, _NOT_IN_TEXT) != done.output:
        return _finished(begun, Health.UNKNOWN, f"exit status 0 with an output that is no text; it said: {text}")
    return _finished(begun, verdict, text or "it said nothing", said.measures)


def _finished(
    begun: int, health: Health, text: str, measures: tuple[Any, ...] = (), timed_out: bool = False
) -> CheckFinished:
    return CheckFinished(
        run=0,
        health=health,
        text=clean(text),
        measures=measures,
        timed_out=timed_out,
        duration_ns=time.monotonic_ns() - begun,
    )


def refusal(argv: Sequence[str]) -> str:
    """Why this program may not be run; "" when it may."""
    return distrust(argv, "program")


def run(argv: Sequence[str], extra: Mapping[str, str], timeout_ns: int) -> Run:
    """Run `argv` in `ENVIRONMENT` and `extra`, for `timeout_ns` at most; then it and all below it is killed."""
    deadline = time.monotonic_ns() + timeout_ns
    try:
        arguments = [os.fsencode(word) for word in argv]
        environment = {os.fsencode(name): os.fsencode(value) for name, value in {**ENVIRONMENT, **extra}.items()}
        if any(b"\0" in word for word in [*arguments, *environment, *environment.values()]):
            return Run(trouble="not started: a null byte in its arguments or environment")
        attendance = _Attendance(*_start(arguments, environment))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return Run(trouble=f"not started: {_missing(argv[0]) if isinstance(error, FileNotFoundError) else ''}{why}")
    with attendance:
        if not attendance.until(deadline):
            reaper.fell([attendance.pid])
            attendance.until(time.monotonic_ns() + reaper.GRACE_NS)
            return Run(timed_out=True, output=attendance.output, errors=attendance.errors)
        # Its id is still its own, and so is that of its group: it has not been waited for.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(attendance.pid, signal.SIGKILL)
        status, trouble = attendance.verdict()
        return Run(status=status, trouble=trouble, output=attendance.output, errors=attendance.errors)


def _missing(program: str) -> str:
    """What the kernel did not find when it was to start a program that is there, with a colon behind it."""
    try:
        with open(program, "rb") as file:
            begin = file.readline(FIRST_LINE_SIZE)
    except OSError:
        return f"{program}: "
    if not begin.startswith(b"#!"):
        return f"{program}: its loader: "
    # As the kernel takes it, with the carriage return that another system's editor has left.
    words = begin[2:].rstrip(b"\n").lstrip(b" \t").replace(b"\t", b" ").split(b" ", 1)
    return f"{program}: its interpreter {os.fsdecode(words[0])!r}: "


def _start(arguments: list[bytes], environment: dict[bytes, bytes]) -> tuple[int, int, int]:
    """Process id, and where its output and its complaints can be read. Raises OSError with why it could not start."""
    parent = os.getpid()
    tasks = _tasks(time.monotonic_ns() // MINUTE)
    limits = _LIMITS if tasks is None else (*_LIMITS, (resource.RLIMIT_NPROC, tasks + PROCESSES_MAX))
    output, output_end = os.pipe()
    errors, errors_end = os.pipe()
    failure, failure_end = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _become(arguments, environment, limits, parent, output_end, errors_end, failure_end)
    except OSError:
        for fd in (output, errors, failure):
            os.close(fd)
        raise
    finally:
        for fd in (output_end, errors_end, failure_end):
            os.close(fd)
    try:
        # Closed without a word by a successful exec.
        number = os.read(failure, 16)
    finally:
        os.close(failure)
    if number:
        os.waitpid(pid, 0)
        os.close(output)
        os.close(errors)
        raise OSError(int(number), os.strerror(int(number)))
    return pid, output, errors


@functools.lru_cache(maxsize=1)
def _tasks(minute: int) -> int | None:
    """Tasks of this user, counted once in that minute."""
    return tasks_of_user()


def _become(
    arguments: list[bytes],
    environment: dict[bytes, bytes],
    limits: Sequence[tuple[int, int]],
    parent: int,
    output: int,
    errors: int,
    failure: int,
) -> NoReturn:
    """The child's side of `_start`: turn into the program."""
    try:
        os.setsid()
        reaper.die_with_parent(parent)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != failure:
                # That of the directory itself is gone.
                with contextlib.suppress(OSError):
                    os.close(int(name))
        os.chdir("/")
        os.umask(0o022)
        # The interpreter ignores these two, and a program inherits what is ignored.
        # Also what whoever started the agent had ignored: a shell's background, nohup.
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        confine(limits)
        os.execve(arguments[0], arguments, environment)
    except OSError as error:
        os.write(failure, str(error.errno or 0).encode())
    finally:
        os._exit(127)


class _Attendance:
    """Attends a running program: takes in what it prints and notices its end, without letting go of its process id."""

    def __init__(self, pid: int, output: int, errors: int) -> None:
        self.pid = pid
        self.output = b""
        self.errors = b""
        self._read = 0
        self._ended: Any = None
        self._poller = select.poll()
        self._pipes = [output, errors]
        self._places = {output: "output", errors: "errors"}
        for fd in self._pipes:
            os.set_blocking(fd, False)
            self._poller.register(fd, select.POLLIN)
        self._end = _descriptor_of(pid)
        if self._end is not None:
            self._poller.register(self._end, select.POLLIN)

    def __enter__(self) -> _Attendance:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in [*self._pipes, *([] if self._end is None else [self._end])]:
            os.close(fd)
        # One that does not die is left to whoever it becomes the child of.
        reaper.reap(self.pid)

    def until(self, deadline: int) -> bool:
        """Attend until the program has ended (True) or the monotonic clock reaches `deadline` (False)."""
        while True:
            left_ns = deadline - time.monotonic_ns()
            if self._has_ended():
                self._take_in()
                return True
            if left_ns <= 0:
                return False
            if self._read >= FLOOD_MIN:
                time.sleep(min(left_ns, FLOOD_PAUSE_NS) / SECOND)
            else:
                wait_ns = left_ns if self._end is not None else min(left_ns, TICK_NS)
                self._poller.poll(wait_ns / MILLISECOND)
            self._take_in()

    def verdict(self) -> tuple[int | None, str]:
        """Exit status, or None and why there is none."""
        if self._ended is True or self._ended is None:
            return None, "its exit status was lost"
        if self._ended.si_code == os.CLD_EXITED:
            return self._ended.si_status, ""
        try:
            name = signal.Signals(self._ended.si_status).name
        except ValueError:
            name = f"signal {self._ended.si_status}"
        return None, f"it died of {name}"

    def _has_ended(self) -> bool:
        if self._ended is None:
            try:
                self._ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._ended = True
        return self._ended is not None

    def _take_in(self) -> None:
        """Read once around what the pipes hold; each holds 64 KiB."""
        for fd in list(self._pipes):
            try:
                data = os.read(fd, 64 * 1024)
            except BlockingIOError:
                continue
            if not data:
                self._poller.unregister(fd)
                self._pipes.remove(fd)
                os.close(fd)
            self._read += len(data)
            if self._places[fd] == "output":
                self.output += data[: OUTPUT_MAX - len(self.output)]
            else:
                self.errors += data[: ERRORS_MAX - len(self.errors)]


def _descriptor_of(pid: int) -> int | None:
    """Becomes readable when the process ends; None where the kernel has no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
