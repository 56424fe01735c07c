"""A foreign program that helps to look: found where only root can put it, run with a time limit, its output capped.

A diagnosis may run with rights that the looked-at process does not have, so nothing of that process chooses what is
started: no PATH, no directory beside its executable. The program gets a clean environment and no input, dies with us,
and is killed at its deadline, with all that it started.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from glob import iglob
from pathlib import Path

import msgspec

from hbagent.core.units import MILLISECOND

#: Of what a program prints to standard error, the beginning tells why it failed.
COMPLAINT_MAX = 4096
#: Where programs are looked for, in this order; the first is where the extras of this installation are.
PLACES = (str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin")
_PR_SET_PDEATHSIG = 1
_READ = 1 << 16


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of running a program."""

    output: bytes = b""
    #: "" or why it is of no use: "timeout", "exit 1: ...", "not started: ...", "more than 4 MiB".
    error: str = ""
    took_ns: int = 0


def find(name: str, places: Iterable[str] = PLACES) -> str:
    """Path of an installed program that nobody but root or ourselves could have put there; "" when there is none.

    A place may hold `*`; of several the last by name is taken.
    """
    for place in places:
        for path in sorted(iglob(f"{place}/{name}"), reverse=True):
            if os.access(path, os.X_OK) and _is_ours(path):
                return path
    return ""


def _is_ours(path: str) -> bool:
    """True when the file behind `path` belongs to root or to us and nobody else may write to it or to its place."""
    real = os.path.realpath(path)
    for place in (real, os.path.dirname(real), os.path.dirname(path)):
        status = os.stat(place)
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or writable:
            return False
    return True


def run(argv: list[str], seconds: float, output_max: int, watch: Callable[[], None] | None = None) -> Outcome:
    """Run a program until it ends, `seconds` are over or it printed `output_max` bytes; nothing of it stays behind.

    `watch` is called about every millisecond meanwhile.
    """
    begin_ns = time.monotonic_ns()
    deadline_ns = begin_ns + round(seconds * 1e9)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
            preexec_fn=_die_with_us,
        )
    except (OSError, subprocess.SubprocessError) as problem:
        return Outcome(error=f"not started: {problem}")
    assert process.stdout is not None and process.stderr is not None
    output, complaint = bytearray(), bytearray()
    sinks = {process.stdout.fileno(): output, process.stderr.fileno(): complaint}
    poll = select.poll()
    for fd in sinks:
        poll.register(fd, select.POLLIN)
    error = ""
    try:
        while sinks and not error:
            left_ns = deadline_ns - time.monotonic_ns()
            if left_ns <= 0:
                error = "timeout"
                break
            for fd, _ in poll.poll(1 if watch else left_ns / MILLISECOND):
                data = os.read(fd, _READ)
                if not data:
                    poll.unregister(fd)
                    del sinks[fd]
                elif fd == process.stderr.fileno():
                    complaint += data[: COMPLAINT_MAX - len(complaint)]
                else:
                    output += data[: output_max - len(output)]
                    if len(output) >= output_max:
                        error = f"more than {output_max >> 20} MiB"
            if watch:
                watch()
        status = None if error else _ended(process, deadline_ns)
        if status is None:
            error = error or "timeout"
    finally:
        _end(process)
    if not error and status:
        why = " ".join(complaint.decode(errors="replace").split())
        error = f"exit {status}: {why}" if status > 0 else f"signal {-status}"
    return Outcome(output=bytes(output), error=error, took_ns=time.monotonic_ns() - begin_ns)


def _ended(process: subprocess.Popen[bytes], deadline_ns: int) -> int | None:
    try:
        return process.wait(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of it. One that does not die, for it hangs in the kernel, is not waited for."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            process.kill()
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            # Popen would complain that it is still there.
            process.returncode = -signal.SIGKILL
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


_libc = ctypes.CDLL(None)


def _die_with_us() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
