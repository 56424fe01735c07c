"""Hands: disposable processes for whatever may hang, burn, leak or hold the interpreter's lock.

Whoever wants something done that cannot be trusted to end gives it to a hand and gets exactly one outcome back, in
time, whatever the job does. A hand is a fork of this process that takes one job after the other; at a job's deadline
it is killed with all that it started, and the next job gets a new one. So the process that owns the hands never waits.

    owner (a subreaper) --- hand (a subreaper) --- whatever the job starts

All that a job leaves behind is below its hand, and the hand ends it before it answers. When the hand itself is killed
they become children of the owner, which knows its hands and ends everybody else. What does not even die of SIGKILL is
stuck in the kernel: it is *abandoned*, which means counted, named, and looked at again each second until it is gone.
Until then jobs of the same `key` are refused, so that one dead disk costs one process and not one each ten seconds.

An owner turns the crank like that of a core: `start`, then `ready` when `fileno()` is readable and `wake` at
`deadline()`; both hand out outcomes. It must be single-threaded, for it forks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from hbagent.core.units import MILLISECOND, MINUTE, SECOND, show_duration

from . import reaper
from .strays import Strays

#: A job or its result, encoded: an evidence bundle is 64 KiB. One datagram of a unix socket, whose default buffer
#: holds 208 KiB.
MESSAGE_MAX = 128 * 1024
#: Files that ride with a job.
FILES_MAX = 4
#: A hand ends when nothing was to be done for this long.
IDLE_NS = MINUTE
#: ...after this many jobs, for what a library leaks is gone with the process...
JOBS_MAX = 500
#: ...or when it has grown by this much.
GROWTH_MAX = 32 * 1024 * 1024
#: Jobs that wait for a free hand; each waits no longer than its own time limit.
WAITING_MAX = 64
#: Processes that are stuck in the kernel: beyond this the host is lost, and another fork would only make it worse.
ABANDONED_MAX = 64
#: The first look whether a killed hand is dead; the next ones come after twice the time each, up to this.
LOOK_NS = MILLISECOND
LOOK_MAX_NS = 50 * MILLISECOND
#: Whoever runs out of memory, a probe goes first; an ordinary process has 0.
OOM_SCORE = 500
#: Added to the owner's priority: a probe must not shake what is being probed, nor the owner that has to kill it.
NICE = 5

TIMED_OUT = "timed-out"
DIED = "died"
ABANDONED = "abandoned"
RAISED = "raised"
REFUSED = "refused"


class Job(msgspec.Struct, frozen=True):
    """What a hand can do: `run` gets one `takes` and returns one `gives`; both must be something that msgspec encodes.

    `run` is called in the hand, so it imports what it needs itself. Files that came with the job are its second
    argument; the hand closes them.
    """

    run: Callable[[Any, Sequence[int]], Any]
    takes: Any
    gives: Any


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job; exactly one for each `start`."""

    number: int
    job: str
    #: What the job gave; None with a failure.
    value: Any = None
    #: "" or one of
    #: timed-out: it was killed at its deadline, or no hand was free by then;
    #: died: its process ended by itself (a signal, an exit in C);
    #: abandoned: its process, or that of an earlier job of this key, does not die;
    #: raised: an exception escaped it;
    #: refused: it was never begun.
    failure: str = ""
    #: Why, for people.
    text: str = ""
    #: Processes that were left behind because they do not die.
    abandoned: int = 0
    duration_ns: int = 0


class _Order(msgspec.Struct):
    job: str
    body: msgspec.Raw


class _Reply(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""
    #: Processes that the job left and that do not die.
    left: list[int] = []
    #: The hand ends now.
    last: bool = False


class _Task(msgspec.Struct):
    """A job under way or waiting."""

    number: int
    job: str
    key: str
    message: bytes
    files: list[int]
    begun: int
    deadline: int


class _Hand:
    """The owner's side of one hand."""

    def __init__(self, pid: int, link: socket.socket, now: int) -> None:
        self.pid = pid
        self.link = link
        #: Readable when its process has ended. The end of the link is not enough: a child of the hand may hold it. -1
        #: on a kernel before 5.3: there such a job is over at its deadline.
        self.end = -1
        with contextlib.suppress(AttributeError, OSError):
            self.end = os.pidfd_open(pid)
        self.task: _Task | None = None
        self.idle_since = now


class _Ending(msgspec.Struct):
    """A hand that was killed or has closed its side: its end is being looked for."""

    pid: int
    task: _Task | None
    failure: str
    #: Why; "": it ended by itself, and its wait status says how.
    text: str
    #: All of its tree, so far as seen.
    family: list[int]
    patience: reaper.Patience
    look: int
    pause_ns: int = LOOK_NS
    status: int | None = None


class Hands:
    """A pool of at most `concurrency` hands for the jobs of a registry; `nice` is added to the owner's priority."""

    def __init__(self, jobs: Mapping[str, Job], concurrency: int, nice: int = NICE) -> None:
        self._jobs = jobs
        self._concurrency = concurrency
        self._nice = nice
        self._epoll = select.epoll()
        self._hands: dict[int, _Hand] = {}
        #: Descriptors of their processes, and which link each belongs to.
        self._ends: dict[int, int] = {}
        self._endings: list[_Ending] = []
        self._waiting: deque[_Task] = deque()
        self._outcomes: list[Outcome] = []
        #: What is left of jobs.
        self.strays = Strays()
        #: Since the start, for the owner's figures.
        self.forks = 0

    def fileno(self) -> int:
        """Readable when `ready` has something to do."""
        return self._epoll.fileno()

    def start(
        self,
        number: int,
        job: str,
        order: Any,
        timeout_ns: int,
        now: int,
        *,
        key: str = "",
        files: Sequence[int] = (),
    ) -> None:
        """Have a job done; its outcome carries `number`, and comes `timeout_ns` and a `reaper.Patience` later at most.

        While a process of an earlier job of the same `key` does not die, the job is refused as abandoned. `files` are
        duplicated at once, so that the caller may close its own. Never raises, never waits.
        """
        if job not in self._jobs:
            return self._refuse(number, job, REFUSED, f"there is no job {job}")
        stuck = next((stuck for stuck in self.strays.stuck(now) if key and stuck.key == key), None)
        if stuck is not None:
            who = f"{stuck.command} {stuck.pid}, for {show_duration(stuck.since_ns)}"
            return self._refuse(number, job, ABANDONED, f"an earlier run is stuck in the kernel: {who}")
        if len(self.strays) >= ABANDONED_MAX:
            return self._refuse(number, job, ABANDONED, f"{len(self.strays)} processes are stuck in the kernel")
        if len(self._waiting) >= WAITING_MAX:
            return self._refuse(number, job, REFUSED, f"{WAITING_MAX} jobs wait already")
        try:
            message = msgspec.msgpack.encode(_Order(job, msgspec.Raw(msgspec.msgpack.encode(order))))
            if len(message) > MESSAGE_MAX:
                return self._refuse(number, job, REFUSED, f"{len(message)} bytes are too much for a job")
            copies = [os.dup(fd) for fd in files[:FILES_MAX]]
        except (OSError, TypeError, ValueError, msgspec.MsgspecError) as error:
            return self._refuse(number, job, REFUSED, f"{type(error).__name__}: {error}")
        self._waiting.append(_Task(number, job, key, message, copies, now, now + timeout_ns))
        self._begin(now)

    def ready(self, now: int) -> list[Outcome]:
        """Take in what hands have answered; outcomes so far."""
        for fd, _ in self._epoll.poll(0):
            link = self._ends.get(fd, fd)
            hand = self._hands.get(link)
            if hand is not None:
                self._take(hand, now)
            if link != fd and hand is not None and self._hands.get(link) is hand:
                self._kill(hand, now, DIED, "")
        self._begin(now)
        return self._told()

    def wake(self, now: int) -> list[Outcome]:
        """Do what is due; outcomes so far. Harmless when called early."""
        for hand in list(self._hands.values()):
            if hand.task is not None and hand.task.deadline <= now:
                length = show_duration(hand.task.deadline - hand.task.begun)
                self._kill(hand, now, TIMED_OUT, f"given up after {length}")
            elif hand.task is None and hand.idle_since + IDLE_NS <= now:
                self._part(hand, now)
        while self._waiting and self._waiting[0].deadline <= now:
            self._fail(self._waiting.popleft(), now, TIMED_OUT, "no hand was free in time")
        for ending in [ending for ending in self._endings if ending.look <= now]:
            self._look(ending, now)
        due = self.strays.deadline()
        if due is not None and due <= now:
            self._tidy(now)
        self._begin(now)
        return self._told()

    def deadline(self) -> int | None:
        """When to call `wake`."""
        if self._outcomes:
            return 0
        times = [ending.look for ending in self._endings]
        for hand in self._hands.values():
            times.append(hand.task.deadline if hand.task else hand.idle_since + IDLE_NS)
        times += [task.deadline for task in self._waiting]
        due = self.strays.deadline()
        if due is not None:
            times.append(due)
        return min(times, default=None)

    def pids(self) -> tuple[int, ...]:
        """Process ids of the hands that can be given jobs or work."""
        return tuple(hand.pid for hand in self._hands.values())

    def close(self) -> None:
        """End all hands and what they started; waits a `reaper.Patience` at most. Jobs under way have no outcome.
        Harmless when repeated."""
        pids = [*self.pids(), *(ending.pid for ending in self._endings), *self.strays.pids()]
        for hand in list(self._hands.values()):
            self._drop(hand)
        reaper.fell(pids)
        patience = reaper.Patience(time.monotonic_ns())
        while pids and not patience.is_over(0, time.monotonic_ns(), pids):
            time.sleep(LOOK_NS / SECOND)
            pids = [pid for pid in pids if reaper.reap(pid) is None]
        if reaper.is_subreaper():
            reaper.clear()
        for task in self._waiting:
            _close(task.files)
        self._waiting.clear()
        self._endings.clear()
        self._epoll.close()

    # ---- giving jobs ---------------------------------------------------------------------------------------

    def _begin(self, now: int) -> None:
        while self._waiting:
            hand = next((hand for hand in self._hands.values() if hand.task is None), None)
            under_way = len(self._hands) + sum(ending.task is not None for ending in self._endings)
            if hand is None and under_way >= self._concurrency:
                return
            task = self._waiting.popleft()
            try:
                hand = hand or self._fork(now)
            except OSError as error:
                self._fail(task, now, REFUSED, f"no process could be made: {error.strerror}")
                continue
            try:
                socket.send_fds(hand.link, [task.message], task.files)
            except (BrokenPipeError, ConnectionResetError):  # it died while it was idle: another one takes the job
                self._part(hand, now)
                self._waiting.appendleft(task)
                continue
            except OSError as error:
                self._fail(task, now, REFUSED, f"the job could not be handed over: {error.strerror}")
                continue
            hand.task = task
            _close(task.files)

    def _fork(self, now: int) -> _Hand:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            owner = os.getpid()
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _be_a_hand(theirs, self._jobs, owner, self._nice)
        theirs.close()
        ours.setblocking(False)
        hand = _Hand(pid, ours, now)
        self._hands[ours.fileno()] = hand
        self._epoll.register(ours, select.EPOLLIN)
        if hand.end >= 0:
            self._ends[hand.end] = ours.fileno()
            self._epoll.register(hand.end, select.EPOLLIN)
        self.forks += 1
        return hand

    # ---- what comes back -----------------------------------------------------------------------------------

    def _take(self, hand: _Hand, now: int) -> None:
        try:
            data = hand.link.recv(MESSAGE_MAX + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        task = hand.task
        if not data:
            self._kill(hand, now, DIED, "")
            return
        if task is None:
            self._kill(hand, now, DIED, "it spoke without being asked")
            return
        try:
            reply = msgspec.msgpack.decode(data, type=_Reply)
            value = None if reply.error else msgspec.msgpack.decode(reply.body, type=self._jobs[task.job].gives)
        except msgspec.MsgspecError as error:
            self._kill(hand, now, DIED, f"it answered nonsense: {error}")
            return
        self.strays.name(reply.left, task.key)
        self._outcomes.append(
            Outcome(
                number=task.number,
                job=task.job,
                value=value,
                failure=RAISED if reply.error else "",
                text=reply.error,
                abandoned=len(reply.left),
                duration_ns=now - task.begun,
            )
        )
        hand.task = None
        hand.idle_since = now
        if reply.last:
            self._part(hand, now)

    def _part(self, hand: _Hand, now: int) -> None:
        """Let an idle hand go: it ends when it sees that we have."""
        self._drop(hand)
        self._endings.append(_Ending(hand.pid, None, "", "", [hand.pid], reaper.Patience(now), now + LOOK_NS))

    def _kill(self, hand: _Hand, now: int, failure: str, text: str) -> None:
        family = reaper.fell([hand.pid])
        self._drop(hand)
        task, hand.task = hand.task, None
        if task is not None:
            self.strays.name(family, task.key)
        self._endings.append(_Ending(hand.pid, task, failure, text, family, reaper.Patience(now), now + LOOK_NS))

    def _drop(self, hand: _Hand) -> None:
        self._epoll.unregister(hand.link)
        del self._hands[hand.link.fileno()]
        hand.link.close()
        if hand.end >= 0:
            self._epoll.unregister(hand.end)
            del self._ends[hand.end]
            os.close(hand.end)

    # ---- endings -------------------------------------------------------------------------------------------

    def _look(self, ending: _Ending, now: int) -> None:
        """Look whether a hand and its family are gone, or it is time to abandon them."""
        if ending.status is None:
            ending.status = reaper.reap(ending.pid)
        if ending.status is not None:
            self._tidy(now)
        left = [pid for pid in ending.family if pid != ending.pid and not reaper.is_dead(pid)]
        if ending.status is None:
            left.append(ending.pid)
        if left and not ending.patience.is_over(len(ending.family) - len(left), now, left):
            ending.pause_ns = min(2 * ending.pause_ns, LOOK_MAX_NS)
            ending.look = now + ending.pause_ns
            return
        self._endings.remove(ending)
        if ending.status is None:
            if ending.task is None:  # it was told to go, and has not gone
                reaper.fell([ending.pid])
            self.strays.abandon(ending.pid, ending.task.key if ending.task else "", now)
        if ending.task is not None:
            failure, text = ending.failure, ending.text
            if ending.status is None:
                failure = ABANDONED
                text = f"{text or 'it does not answer'}; its process {ending.pid} does not die"
            elif not text and os.WIFSIGNALED(ending.status):
                text = f"its process died of {_signal_name(os.WTERMSIG(ending.status))}"
            elif not text:
                text = f"its process ended with exit status {os.waitstatus_to_exitcode(ending.status)}"
            self._fail(ending.task, now, failure, text, len(left))

    def _tidy(self, now: int) -> None:
        hands = [hand.pid for hand in self._hands.values()]
        self.strays.tidy([*hands, *(ending.pid for ending in self._endings)], now)

    # ---- outcomes ------------------------------------------------------------------------------------------

    def _fail(self, task: _Task, now: int, failure: str, text: str, abandoned: int = 0) -> None:
        _close(task.files)
        self._outcomes.append(
            Outcome(
                number=task.number,
                job=task.job,
                failure=failure,
                text=text,
                abandoned=abandoned,
                duration_ns=now - task.begun,
            )
        )

    def _refuse(self, number: int, job: str, failure: str, text: str) -> None:
        self._outcomes.append(Outcome(number=number, job=job, failure=failure, text=text))

    def _told(self) -> list[Outcome]:
        told, self._outcomes = self._outcomes, []
        return told


def _close(files: list[int]) -> None:
    for fd in files:
        os.close(fd)
    files.clear()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# ---- in the hand -----------------------------------------------------------------------------------------------


def _be_a_hand(link: socket.socket, jobs: Mapping[str, Job], owner: int, nice: int) -> None:
    """What the child does instead of returning from `fork`: nothing of the owner's may run in it."""
    status = 1
    try:
        _settle(link, owner, nice)
        _serve(link, jobs)
        status = 0
    finally:
        os._exit(status)


def _settle(link: socket.socket, owner: int, nice: int) -> None:
    """Become a process of its own: no file, signal handler or garbage of the owner's."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    reaper.die_with_parent(owner)
    # Ctrl-C at a terminal is for the owner.
    os.setsid()
    reaper.become_subreaper()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    keep = link.fileno()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            # That of the directory itself is gone.
            with contextlib.suppress(OSError):
                os.close(int(name))
    # A collection would write to every page that is shared with the owner.
    gc.freeze()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < OOM_SCORE:
            file.seek(0)
            file.write(str(OOM_SCORE))
    # A sandbox may deny either; a probe that runs at the owner's priority is better than none.
    with contextlib.suppress(OSError):
        os.nice(nice)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(link: socket.socket, jobs: Mapping[str, Job]) -> None:
    """Take jobs until the owner closes its side, or it is better to begin anew."""
    grown_max = _peak() + GROWTH_MAX
    for done in range(1, JOBS_MAX + 1):
        data, files, _, _ = socket.recv_fds(link, MESSAGE_MAX + 1, FILES_MAX, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        reply = _do(jobs, data, files)
        _close(files)
        reply.left = reaper.clear()
        # A thread that a job left behind may still hold the interpreter's lock.
        reply.last = (
            bool(reply.left) or done == JOBS_MAX or _peak() > grown_max or len(os.listdir("/proc/self/task")) > 1
        )
        link.send(msgspec.msgpack.encode(reply))
        if reply.last:
            return


def _do(jobs: Mapping[str, Job], data: bytes, files: list[int]) -> _Reply:
    try:
        order = msgspec.msgpack.decode(data, type=_Order)
        job = jobs[order.job]
        given = job.run(msgspec.msgpack.decode(order.body, type=job.takes), files)
        body = msgspec.msgpack.encode(given)
        if len(body) > MESSAGE_MAX - 1024:
            return _Reply(error=f"its result of {len(body)} bytes is too long")
        return _Reply(body=msgspec.Raw(body))
    except BaseException as error:
        return _Reply(error=f"{type(error).__name__}: {error}"[:1000])


def _peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
