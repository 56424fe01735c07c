"""For other people's programs: tell hbagent that the threads which matter get on with their work.

A thread that only says "I am here" says so while every other one is stuck. So each critical thread raises a number of
its own as it finishes pieces of work, and says how much is waiting for it::

    from hbagent.progress import Progress

    progress = Progress(app="web")
    mark = progress.mark("worker-3", window=10.0)
    progress.ready()
    while True:
        job = jobs.get()
        with mark.working():
            handle(job)

or, where the queue is at hand, `mark.queued(jobs.qsize())` and `mark.tick()` after each job. Work that waits for
`window` seconds while the number stands still is what hbagent calls STALLED; with nothing to do it may stand still for
ever, and so may a mark that was not used yet. One that ticks and never says how much waits is taken to have work
always, from its first `tick()` on; `tick(0)` is one as well.

The numbers are sent by one sleeping thread, which starts with the first mark and cannot raise them: it can only repeat
what the others have done. It feeds the watchdog, too (`WATCHDOG_USEC`), for as long as no mark stands still with work
waiting, so that a stuck program is not kept alive by a thread that is not. When a mark stands still it writes the
Python stacks of all threads into a memory file that the agent was given. C code that holds the interpreter holds this
thread, too: then nothing is told, and the agent looks from outside. Nobody may write the stacks at such a time, for
the frames of a thread that runs meanwhile cannot be read: `faulthandler.dump_traceback_later` does it, and a program
that is stopped and continued dies of that.

A program that ends as programs do, by the end of its script or by `sys.exit(0)`, or because it was interrupted
(SIGINT), says that it stops. One that ends by an exception, by `sys.exit` with anything else, by a signal or by
`os._exit` says nothing, and the agent says that it failed, unless systemd knows better. With which status a program
ends by `raise SystemExit(...)`, by the `exit(...)` of the interactive shell, or by an `exit` that was imported from
`sys` before this module was, cannot be seen from inside, so then nothing is said either, be it 0: call `sys.exit`, say
`stopping()` before, or start the program by `hbagent run-app`, which knows each exit status; then nothing is said here.

Nothing here raises into the program, waits for anything, or needs hbagent to run. Nothing else of hbagent is imported,
and CPython 3.8 is enough: the file may be copied into a program.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

#: The usual time in which a number must move while work waits.
WINDOW_S = 30.0
#: A window is looked at four times, but the marks are sent no more often and no more rarely than this.
_PERIOD_MIN_S, _PERIOD_MAX_S = 0.2, 5.0
#: Who is meant, and the memory file, are told again so often: the agent may have been restarted.
_INTRODUCE_S = 30.0
#: As much as one datagram may hold, whoever reads it.
_DATAGRAM_SIZE = 4096
#: Marks sent; beyond, the rest is not. The agent takes as many of one application.
MARKS_MAX = 64
#: Words that found no room at once are kept for the next time, as many.
_UNSENT_MAX = 16
#: Time for the last word, where the one who listens is busy: a program that ends ends.
_LAST_WORD_S = 0.2


class Mark:
    """The number that one thread raises as it works. Made by `Progress.mark`."""

    __slots__ = (
        *("__weakref__", "_count", "_name", "_progress", "_queued", "_resting", "_seen", "_seen_at", "_tells_queue"),
        "_window_s",
    )

    def __init__(self, progress: Progress, name: str, window_s: float) -> None:
        self._progress = progress
        self._name = name
        self._window_s = window_s
        self._count = 0
        #: None: it does not say, and is taken to have work always.
        self._queued: int | None = 0
        self._tells_queue = False
        #: A process that was forked off begins with none of its parent's marks, until it uses one.
        self._resting = False
        self._seen: object = None
        self._seen_at = 0.0

    def tick(self, n: int = 1) -> None:
        """So many pieces of work are done."""
        if not self._tells_queue:
            self._queued = None
        self._count += n
        if self._resting:
            self._progress._wake(self)

    def queued(self, n: int) -> None:
        """So many pieces of work wait for this thread; with 0 it need not move."""
        self._queued = max(0, int(n))
        self._tells_queue = True
        if self._resting:
            self._progress._wake(self)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around one piece of work: there is something to do now, and afterwards it is done."""
        self.queued(1)
        try:
            yield
        finally:
            # A process that was forked off meanwhile has forgotten that it was told.
            self._queued = 0
            self._tells_queue = True
            self.tick()

    def close(self) -> None:
        """The thread ends: it need not move any more, and is told of no longer."""
        self._queued = 0
        self._progress._forget(self)

    def _stands(self, now: float) -> float:
        """For how long it has stood still with work waiting, in the eyes of the sampler."""
        seen = (self._count, self._queued == 0)
        if seen != self._seen or self._queued == 0:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at

    def _line(self) -> str:
        queued = self._queued
        text = "" if queued is None else f" queued={queued}"
        return f"X_HBAGENT_PROGRESS={self._name} {self._count}{text} window={self._window_s:g}"


class Progress:
    """What this program tells: to the agent its marks, and to whoever listens at NOTIFY_SOCKET how it is.

    `address`: the agent's socket (default: HBAGENT_NOTIFY, then NOTIFY_SOCKET; with neither nothing is sent).
    `app`: the name to be known by; not needed under `hbagent run-app`, or for a unit that the agent knows.
    `stacks`: hand the agent a memory file for stacks.
    """

    def __init__(self, app: str = "", address: str | None = None, *, stacks: bool = True) -> None:
        environment = os.environ
        outer = environment.get("NOTIFY_SOCKET", "")
        agent = address or environment.get("HBAGENT_NOTIFY", "") or outer
        #: The agent first; then systemd, or a relay to it, which hears what everybody may say.
        self._addresses = [_address(path) for path in dict.fromkeys((agent, outer)) if path]
        self._name = _word(app)
        #: Under `hbagent run-app` the agent knows the program's first process already.
        self._main = os.getpid() if app and app != environment.get("HBAGENT_APP") else 0
        self._period_s, self._feeds = _watchdog(environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID"))
        self._wants_stacks = stacks
        self._marks: tuple[Mark, ...] = ()
        #: By the number of the address.
        self._unsent: dict[int, list[str]] = {}
        self._socket: socket.socket | None = None
        self._stacks: int | None = None
        self._told_stuck = False
        self._introduced_at: float | None = None
        self._forked = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        _LIVING.add(self)
        _notice_exits()

    def mark(self, name: str, window: float = WINDOW_S) -> Mark:
        """A new mark: one for each thread that matters. `window`: seconds in which it must move while work waits."""
        mark = Mark(self, _word(name) or "main", min(86_400.0, max(0.2, float(window))))
        self._wake(mark)
        return mark

    def ready(self, status: str = "") -> None:
        """The program serves."""
        self._say(["READY=1", *_status(status)])

    def status(self, text: str) -> None:
        """One line for people."""
        self._say(_status(text))

    def reloading(self) -> None:
        """A new configuration is being read; `ready` follows."""
        self._say(["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"])

    def stopping(self) -> None:
        """The program is leaving on purpose."""
        self._say(["STOPPING=1"])

    def close(self) -> None:
        """Say no more. The marks rest from now on."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)
        self._rest()
        if thread is None or not thread.is_alive():
            self._release()

    # ---- marks ---------------------------------------------------------------------------------------------

    def _wake(self, mark: Mark) -> None:
        """Tell of this mark from now on, and start the sampler when there is none."""
        if not self._addresses:
            mark._resting = False
            return
        with self._lock:
            mark._resting = False
            if self._stop.is_set():
                return
            if mark not in self._marks and len(self._marks) < MARKS_MAX:
                if self._forked:
                    # Each process has marks of its own.
                    mark._name = f"{mark._name.partition('@')[0][:48]}@{os.getpid()}"
                self._marks = (*self._marks, mark)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="hbagent-progress", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is on its way out
                    return
                self._thread = thread

    def _forget(self, mark: Mark) -> None:
        with self._lock:
            if mark not in self._marks:
                return
            self._marks = tuple(one for one in self._marks if one is not mark)
        self._say([mark._line()], agent_only=True)

    def _rest(self) -> None:
        marks, self._marks = self._marks, ()
        for mark in marks:
            mark._queued = 0
        if marks:
            self._say([mark._line() for mark in marks], agent_only=True)

    def _release(self) -> None:
        self._addresses = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._stacks is not None:
            with contextlib.suppress(OSError):
                os.close(self._stacks)
            self._stacks = None

    # ---- the sampler ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(self._period()):
            # A program must not lose its sampler, or see its error, because of one turn.
            with contextlib.suppress(Exception):
                self._turn(time.monotonic())

    def _period(self) -> float:
        window = min((mark._window_s for mark in self._marks), default=WINDOW_S)
        return max(_PERIOD_MIN_S, min(_PERIOD_MAX_S, window / 4, self._period_s))

    def _turn(self, now: float) -> None:
        marks = self._marks
        still = [(mark, mark._stands(now)) for mark in marks]
        stuck = [(mark, still_s) for mark, still_s in still if still_s >= mark._window_s]
        self._introduce(now)
        self._say([mark._line() for mark in marks], agent_only=True)
        # Who never says how much waits may be idle: the agent decides, and nobody is killed for it.
        self._say(["WATCHDOG=1"] if self._feeds and not any(mark._queued for mark, _ in stuck) else [])
        if self._stacks is None:
            return
        if stuck:
            self._write_stacks(stuck)
        elif self._told_stuck:
            _empty(self._stacks)
            self._told_stuck = False

    def _introduce(self, now: float) -> None:
        if self._introduced_at is not None and now < self._introduced_at + _INTRODUCE_S:
            return
        if self._stacks is None and self._wants_stacks:
            self._stacks = _memory_file()
        fields = []
        if self._name and self._main and not self._forked:
            fields.append(f"X_HBAGENT_MAIN={self._main}")
        if self._stacks is not None:
            fields.append("X_HBAGENT_STACKS=1")
        if not fields or self._send(0, fields, self._stacks):
            self._introduced_at = now
            if self._name and self._main and not self._forked:
                _introduced[self._name] = self._addresses[0]

    def _write_stacks(self, stuck: list[tuple[Mark, float]]) -> None:
        """The stacks at the moment when it is found stuck; again when it was not, meanwhile."""
        if self._told_stuck or self._stacks is None:
            return
        _empty(self._stacks)
        for mark, still_s in stuck[:8]:
            text = f"mark {mark._name} has stood at {mark._count} for {still_s:.1f} s, queued: {mark._queued}\n"
            os.write(self._stacks, text.encode("utf-8", "replace"))
        faulthandler.dump_traceback(file=self._stacks, all_threads=True)
        self._told_stuck = True

    # ---- sending -------------------------------------------------------------------------------------------

    def _say(self, lines: list[str], agent_only: bool = False) -> None:
        """Send lines in as many datagrams as they need; what has no room now goes with the next."""
        with contextlib.suppress(Exception):
            for i in range(1 if agent_only else len(self._addresses)):
                for part in _parts([*self._unsent.pop(i, []), *lines], _DATAGRAM_SIZE - len(self._names(i))):
                    if not self._send(i, part):
                        # Marks and watchdogs are said again by themselves; the other words are said once.
                        once = [line for line in part if not line.startswith(("X_HBAGENT_", "WATCHDOG="))]
                        self._unsent[i] = [*self._unsent.get(i, []), *once][-_UNSENT_MAX:]

    def _send(self, number: int, lines: list[str], descriptor: int | None = None) -> bool:
        if number >= len(self._addresses):
            return False
        control = []
        if descriptor is not None:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        try:
            if self._socket is None:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                made.setblocking(False)
                self._socket = made
            text = "\n".join(lines).encode("utf-8", "replace")
            self._socket.sendmsg([self._names(number), text], control, 0, self._addresses[number])
        except OSError:
            return False
        return True

    def _names(self, number: int) -> bytes:
        """What stands before the words to this address."""
        return f"X_HBAGENT_APP={self._name}\n".encode("utf-8", "replace") if number == 0 and self._name else b""

    def _after_fork(self) -> None:
        """In a process that was forked off: the sampler is the parent's, and so are the numbers."""
        for mark in self._marks:
            mark._resting = True
            mark._queued = 0
            mark._tells_queue = False
        self._marks = ()
        self._unsent = {}
        self._thread = None
        self._introduced_at = None
        self._forked = True
        self._told_stuck = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        if self._stacks is not None:
            with contextlib.suppress(OSError):
                os.close(self._stacks)
            self._stacks = None


_LIVING: weakref.WeakSet[Progress] = weakref.WeakSet()
#: As whose main process this one is known, and where.
_introduced: dict[str, str] = {}
#: What `sys.exit` was called with last, by the thread whose exit is that of the program; False: it was not called.
_exit_called = False
_exit_code: object = None
_plain_exit: Callable[..., NoReturn] = sys.exit
#: The script itself as it runs: its end is seen by where it has come to.
_script: FrameType | None = None


def _notice_exits() -> None:
    """Know the script, whose end is that of the program, by its outermost frame."""
    global _script
    if _script is not None:
        return
    with contextlib.suppress(Exception):
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while frame is not None:
            if frame.f_globals.get("__name__") == "__main__":
                _script = frame
            frame = frame.f_back


def _exit(status: object = None, /) -> NoReturn:
    """In the place of `sys.exit`: nothing else tells a program that ends which status it ends with."""
    global _exit_called, _exit_code
    if threading.current_thread() is threading.main_thread():
        _exit_called, _exit_code = True, status
    _plain_exit(status)


def _came_to_its_end() -> bool:
    """The last that the script did was to return: no exception has ended it, and no SystemExit either."""
    with contextlib.suppress(Exception):
        from opcode import opname

        if _script is not None:
            return opname[_script.f_code.co_code[_script.f_lasti]].startswith("RETURN_")
    return False


def _ends_well() -> bool:
    """This is an end on purpose, as far as the program itself can know. In doubt it is none."""
    if _came_to_its_end():
        return True
    # Set for an exception that nobody caught, whatever is done with it.
    failed = getattr(sys, "last_value", None)
    if failed is not None:
        return isinstance(failed, KeyboardInterrupt)
    return _exit_called and (_exit_code is None or (isinstance(_exit_code, int) and _exit_code == 0))


def _after_fork() -> None:
    _introduced.clear()
    for progress in list(_LIVING):
        progress._after_fork()


def _at_exit() -> None:
    for progress in list(_LIVING):
        progress.close()
    if not _introduced or not _ends_well():
        return
    with contextlib.suppress(Exception), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(_LAST_WORD_S)
        for name, address in _introduced.items():
            with contextlib.suppress(OSError):
                text = f"X_HBAGENT_APP={name}\nSTOPPING=1\nX_HBAGENT_GUESS=1"
                made.sendto(text.encode("utf-8", "replace"), address)


# At once: a script that ends by `sys.exit(main())` looks it up before it calls main().
sys.exit = _exit
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def _address(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path


def _word(text: str) -> str:
    """A name without what would end it in a datagram."""
    return "".join(c if c.isprintable() and not c.isspace() and c != "=" else "_" for c in str(text))[:64]


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(str(text).split())[:500]}"] if text else []


def _parts(lines: list[str], room: int) -> Iterator[list[str]]:
    """Lines in groups of which each takes no more than `room` bytes."""
    part: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode("utf-8", "replace")) + 1
        if part and size + length > room:
            yield part
            part, size = [], 0
        part.append(line)
        size += length
    if part:
        yield part


def _watchdog(usec: str, pid: str | None) -> tuple[float, bool]:
    """How often to feed it at least, in seconds, and whether to: a third of its limit leaves room for two lost ones."""
    if not (usec.isascii() and usec.isdecimal()) or not int(usec) or pid not in (None, "", str(os.getpid())):
        return _PERIOD_MAX_S, False
    return min(int(usec), 10**9) / 3e6, True


def _memory_file() -> int | None:
    try:
        return os.memfd_create("hbagent-stacks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError):
        return None


def _empty(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.ftruncate(descriptor, 0)
