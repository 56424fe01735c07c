"""A process beside this one, of the same program: start it, hear what it tells, notice its end, leave nothing behind.

An agent has its prober in one, a root its hook runner. Nothing here holds the loop up. Starting a program reads a disk,
and ending one may wait for a kernel that is busy with it; both are done by a thread that lives as long as that takes.

A companion that was killed leaves its hands, and they what they had started. This process is the nearest ancestor that
adopts them (`PR_SET_CHILD_SUBREAPER`), so every child of it that is no companion is such a remainder, and killed. So a
process has one kind of companion, and no other children.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hbagent.offspring import reaper

from .driver import Driver
from .link import Link

#: A companion that is asked to end takes its hands with it; this is what it has for that.
END_SECONDS = 1.0
#: A process that was killed is gone within this, or it is stuck in the kernel and left behind. Whoever dies needs a
#: processor for that, and a host that stands still has none for a second.
KILL_SECONDS = 4.0
#: Rounds of killing what a companion left: each may uncover what the last one's dead had started.
SWEEPS_MAX = 50
_TICK_SECONDS = 0.01

#: What of the daemon's environment its companion gets, beside the variables that Python reads.
_PASSED_ON = ("PATH", "TZ", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "VIRTUAL_ENV")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Companion:
    """The process as its owner sees it.

    `command` is the module that is run, and its arguments; `words` the union of what it may say. `heard` is called with
    each word, `ended` once for each start with the reason, whenever that is.
    """

    def __init__(
        self,
        driver: Driver,
        command: Sequence[str],
        words: Any,
        heard: Callable[[Any], None],
        ended: Callable[[str], None],
    ) -> None:
        self._driver = driver
        self._command = command
        self._words = words
        self._on_heard = heard
        self._on_ended = ended
        #: The life that counts: what an earlier one still does or says is not heard.
        self._life: _Life | None = None
        #: Starts that have not come back; one that hangs on a dead disk is not joined by others.
        self._starting = 0
        self._family = Family()
        self._adopting = False

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return self._life.pid if self._life is not None else None

    @property
    def running(self) -> bool:
        """Whether it can be told something: it runs, or will as soon as its program has been read."""
        return self._life is not None and self._life.link is not None and self._life.link.is_open

    @property
    def absent(self) -> bool:
        """Whether it is not there at all, and its end has been told."""
        return self._life is None

    # ---- for the owner -----------------------------------------------------------------------------------

    def start(self, *words: Any) -> None:
        """Start the process, with these words waiting for it."""
        if self._starting:
            self._on_ended("not started: an earlier start still hangs")
            return
        if not self._adopting:
            self._adopting = True
            with contextlib.suppress(OSError):
                reaper.become_subreaper()
        ours, theirs = socket.socketpair()
        life = self._life = _Life()
        link = life.link = Link(
            ours.detach(),
            self._words,
            self._driver,
            functools.partial(self._heard, life),
            functools.partial(self._unlinked, life),
        )
        self._driver.add(link)
        for word in words:
            link.send(word)
        self._starting += 1
        self._in_thread(functools.partial(self._run, life, theirs), functools.partial(self._started, life))

    def send(self, word: Any) -> bool:
        """Tell it something; False when there is none, or it does not read. Raises ValueError as `Link.send`."""
        link = self._life.link if self._life is not None else None
        return link is not None and link.send(word)

    def kill(self) -> None:
        """Kill the process; whether or not it dies of it, it is told as ended soon."""
        life = self._life
        if life is None:
            return
        if life.pid is None:
            # Should it ever start, it is ended then.
            self._gone(life, "not started: its program cannot be read")
        else:
            self._end(life, "", 0.0)

    def dismiss(self, reason: str) -> None:
        """Have it end by itself, and told as ended for this reason."""
        life = self._life
        if life is not None and life.link is not None:
            life.link.close()
            self._unlinked(life, reason)

    def close(self) -> None:
        """End the process and everything that it started, within a second or two unless it is stuck in the kernel. The
        loop is over by now."""
        life, self._life = self._life, None
        if life is None:
            return
        if life.link is not None:
            life.link.close()
        if life.pid is not None and not life.ending:
            life.ending = True
            _bury(life.pid, END_SECONDS, self._family)

    # ---- in the loop's thread ----------------------------------------------------------------------------

    def _heard(self, life: _Life, word: Any) -> None:
        if life is self._life:
            self._on_heard(word)

    def _started(self, life: _Life, outcome: int | Exception) -> None:
        self._starting -= 1
        if isinstance(outcome, Exception):
            why = getattr(outcome, "strerror", None) or repr(outcome)
            self._gone(life, f"not started: {why}"[:200])
            return
        life.pid = outcome
        if life is not self._life:
            self._end(life, "", 0.0)
        elif life.left:
            self._end(life, life.reason, END_SECONDS)
        else:
            self._watch(life, outcome)

    def _watch(self, life: _Life, pid: int) -> None:
        """Notice its end also while a hand still holds the other end of the link."""
        # Without the call (a kernel before 5.3, a sandbox) the closed link alone tells.
        with contextlib.suppress(OSError):
            life.exit = _Exit(os.pidfd_open(pid), lambda: self._end(life, "", 0.0))
            self._driver.add(life.exit)

    def _unlinked(self, life: _Life, reason: str) -> None:
        """It closed its end and is about to end itself, or said what cannot be read and has to."""
        life.reason = "" if reason == "closed" else reason
        life.left = True
        # One that ended before its starter was back is waited for in _started.
        self._end(life, life.reason, END_SECONDS)

    def _end(self, life: _Life, reason: str, patience_s: float) -> None:
        if life.ending or life.pid is None:
            return
        life.ending = True
        self._unwatch(life)
        bury = functools.partial(_bury, life.pid, patience_s, self._family)
        self._in_thread(bury, lambda how: self._gone(life, reason or str(how)))

    def _unwatch(self, life: _Life) -> None:
        if life.exit is not None:
            self._driver.remove(life.exit)
            os.close(life.exit.source)
            life.exit = None

    def _gone(self, life: _Life, reason: str) -> None:
        if life.link is not None:
            # Its last words may still wait there.
            life.link.drain()
            life.link.close()
        if life is self._life:
            self._life = None
            self._on_ended(reason)

    # ---- in threads of their own -------------------------------------------------------------------------

    def _in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have a thread do `work`, and give what it returned or raised to `done` in the loop's thread."""

        def run() -> None:
            outcome: Any
            try:
                outcome = work()
            except Exception as error:
                outcome = error
            self._driver.mailbox.post(functools.partial(done, outcome), owed=True)

        threading.Thread(target=run, name=self._command[0].rpartition(".")[2], daemon=True).start()

    def _run(self, life: _Life, theirs: socket.socket) -> int:
        """Start the program; its process id. Raises OSError."""
        import subprocess  # 0.3 MiB that an agent has no other use for

        # A vforked child holds all threads of its parent until its program was read from disk.
        subprocess._USE_VFORK = False  # type: ignore[attr-defined]
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment(os.environ),
                start_new_session=True,
            )
        # It is waited for by its id from here on, and by nobody else.
        process.returncode = 0
        self._family.add(process.pid)
        return process.pid


class _Life:
    """One process, from its start to its end."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.exit: _Exit | None = None
        self.pid: int | None = None
        #: Whether its link is closed; that may be seen before it is known to have started.
        self.left = False
        #: Why it has to end, where that is not its own exit status.
        self.reason = ""
        self.ending = False


class _Exit:
    """The end of a process, as a port."""

    def __init__(self, pidfd: int, ended: Callable[[], None]) -> None:
        self.source = pidfd
        self._ended = ended

    def drain(self) -> int:
        """It is readable once only: when the process has ended."""
        self._ended()
        return 0


class Family:
    """Companions that this process started and that have not been waited for; its other children are remainders."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: list[int] = []

    def add(self, pid: int) -> None:
        """One was started."""
        with self._lock:
            self._pids.append(pid)

    def drop(self, pid: int) -> None:
        """One has ended."""
        with self._lock:
            self._pids.remove(pid)

    def orphans(self) -> list[int]:
        """Children that are none of these."""
        with self._lock:
            return [pid for pid in reaper.children(os.getpid()) if pid not in self._pids]


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """What a companion finds in its environment: nothing of systemd's, or its children would speak to systemd as us."""
    passed = {name: value for name, value in own.items() if name.startswith("PYTHON") or name in _PASSED_ON}
    if "PYTHONPATH" in passed:
        # Its working directory is another.
        passed["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, passed["PYTHONPATH"].split(os.pathsep)))
    return {**_ENVIRONMENT, **passed}


def _bury(pid: int, patience_s: float, family: Family) -> str:
    """See a companion off: wait for so long, then kill it with all that it started. Returns how it ended."""
    status = _reap(pid, patience_s)
    how = "" if status is None else ending(status)
    if status is None:
        reaper.fell([pid])
        if _reap(pid, KILL_SECONDS) is None:
            return "killed, and left behind: it is stuck in the kernel"
        how = "killed"
    family.drop(pid)
    _sweep(family)
    return how


def _reap(pid: int, seconds: float) -> int | None:
    """The wait status of a child once it has ended; None when it has not within so many seconds."""
    until = time.monotonic() + seconds
    while True:
        status = reaper.reap(pid)
        if status is not None or time.monotonic() >= until:
            return status
        time.sleep(_TICK_SECONDS)


def ending(status: int) -> str:
    """A wait status for people: "exit 1", "signal 9"."""
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}"


def _sweep(family: Family) -> None:
    """Kill and forget what a companion left behind. What is stuck in the kernel stays."""
    for _ in range(SWEEPS_MAX):
        orphans = family.orphans()
        if not orphans:
            return
        # Who ends between the two looks leaves its own children here: the list alone says that nobody is left.
        alive = [orphan for orphan in orphans if reaper.reap(orphan) is None]
        if alive:
            reaper.fell(alive)
            time.sleep(_TICK_SECONDS)
