"""The notify socket: where applications of this host say how they are, as they would say it to systemd.

Whatever speaks sd_notify(3) needs no change: one datagram, lines of KEY=VALUE, to the unix socket that NOTIFY_SOCKET
names. Everybody on the host may write to it, so what arrives is believed only as far as the kernel vouches for it: the
sender is who the kernel says, and everything that it could use up (time, memory, descriptors) has an end.

Each datagram is looked at before it is taken. Descriptors that come with it then never become ours: a control buffer
without room for them makes the kernel let go of them. That is what a sender of BARRIER=1 waits for, and by then
everything it said before has been dealt with. Closing them here instead would call the filesystem that they are
from, which may be a dead one of the sender's own, and that would be the end of this loop. The one that is wanted, a
memory file for stacks, is taken only when the datagram says so, and kept only when it is one. Where the kernel's own
letting go waits (for a TCP connection that lingers), a timer interrupts it.

The loop turns it: register `fileno()`, call `read` when it is readable, `wake` at `deadline`; `NotifyPort` does so for
a driver.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from types import FrameType

import msgspec

from hbagent.core.allowance import Allowance
from hbagent.core.messages import Notified
from hbagent.core.units import MILLISECOND, SECOND

from .senders import Senders
from .teller import DATAGRAM_SIZE_MAX

#: Taken in one turn of the loop: 2 ms of a flood that is dropped, 20 ms of new senders.
DATAGRAMS_PER_TURN = 200
#: Looked at in a second, dropped or not. Measured 33 us for one with 60 descriptors that is dropped: such a flood costs
#: 7 % of a processor, and then waits in the kernel, which keeps no more than `net.unix.max_dgram_qlen` (10, or what
#: systemd makes of it, 512) and has its senders wait; SO_RCVBUF changes nothing about that.
DATAGRAMS_PER_SECOND = 2_000
#: So many at once.
DATAGRAMS_BURST = 1_000
#: While the work of this second is used up, the socket is not looked at for this long.
PAUSE_NS = 20 * MILLISECOND
#: A turn ends after this in any case, and the loop then has four times as long for everything else.
TURN_TIME_NS = 20 * MILLISECOND
#: What one user may say in a second, and at once: a hundred applications that say something twice a second.
USER_PER_SECOND, USER_BURST = 200, 1_000
#: And one process, so that a single one that has gone mad leaves something to the others of its user.
PROCESS_PER_SECOND, PROCESS_BURST = 50, 250
#: Users and processes whose allowance is remembered; beyond, the one that was new first is forgotten.
USERS_MAX, PROCESSES_MAX = 1_024, 1_024
#: Memory files held, one a process: as many as there are applications (64 that nobody configured, and as many that
#: somebody did). One user has at most a quarter.
STACKS_MAX = 128
STACKS_PER_USER_MAX = 32
#: Descriptors that were promised to be memory files and are none stay open, for closing them may hang: one of a user,
#: of whom no other is taken then.
SUSPECTS_MAX = 16
#: What is read of a memory file: more than a bundle can hold.
STACKS_SIZE_MAX = 64 * 1024

#: The last descriptor of a TCP connection with SO_LINGER waits as long as its sender has said for what was not yet
#: acknowledged, unless a signal comes: seen to hold the loop up for any number of seconds.
_LINGER_S = 0.001
#: socket(7), on x86, ARM and RISC-V; Python has no name for it. Where it is another option, no time comes.
_SO_TIMESTAMPNS = 35
_CREDENTIALS = struct.Struct("3i")
_TIMESTAMP = struct.Struct("2q")
#: Room for the sender and the time, and none for a descriptor.
_CONTROL = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_TIMESTAMP.size)
#: Room for one descriptor: CMSG_SPACE would have room for two.
_CONTROL_ONE = _CONTROL + socket.CMSG_LEN(4)
#: What would move the cursor, or end the line, of whoever reads a value.
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], "?")
#: What becomes of a datagram, or of what comes with it, in the ordinary course of things.
_ORDINARY = ("taken", "barrier", "descriptors")


class NotifySocket:
    """Takes datagrams at `path` ("@name": an abstract one) without ever waiting.

    Raises OSError from the constructor when the address cannot be had: EADDRINUSE while another process listens there,
    EEXIST when something else than a socket is in the way.
    """

    def __init__(self, path: str, now: int, senders: Senders | None = None) -> None:
        self._senders = senders if senders is not None else Senders()
        #: Datagrams and descriptors by what became of them.
        self.counts: dict[str, int] = {}
        self._stacks: dict[int, _Stacks] = {}
        self._stacks_made = 0
        #: By user.
        self._suspects: dict[int, int] = {}
        self._work = Allowance(SECOND // DATAGRAMS_PER_SECOND, DATAGRAMS_BURST)
        self._users: dict[int, Allowance] = {}
        self._processes: dict[int, Allowance] = {}
        self._resume_at: int | None = None
        self._interruptible = _interruptible()
        self._address = _Address(path)
        self._socket = self._address.listen()
        self._poller = select.epoll()
        self._poller.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        """The one descriptor that becomes readable when there is something to do."""
        return self._poller.fileno()

    def deadline(self) -> int | None:
        """When `wake` must be called; None when there is no need."""
        return self._resume_at

    def wake(self, now: int) -> None:
        """Look at the socket again after a pause."""
        if self._resume_at is not None and now >= self._resume_at:
            self._resume_at = None
            self._poller.register(self._socket, select.EPOLLIN)

    def read(self, now: int) -> list[Notified]:
        """What has arrived, at most `DATAGRAMS_PER_TURN`; what is left keeps `fileno` readable. Never waits."""
        found: list[Notified] = []
        began = time.monotonic_ns()
        for _ in range(DATAGRAMS_PER_TURN):
            if not self._work.take(now):
                self._pause(now + PAUSE_NS)
                break
            if time.monotonic_ns() - began > TURN_TIME_NS:
                self._pause(now + 5 * TURN_TIME_NS)
                break
            try:
                data, control, flags, _ = self._socket.recvmsg(
                    DATAGRAM_SIZE_MAX + 1, _CONTROL, socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC
                )
            except OSError:  # nothing more, or no memory for it
                break
            stacks: tuple[int, int, int] | None = None
            try:
                notified = self._understand(data, control, flags, now)
                if notified is not None and flags & socket.MSG_CTRUNC and ("X_HBAGENT_STACKS", "1") in notified.fields:
                    stacks = (notified.pid, notified.start, notified.uid)
            finally:
                number = self._remove(stacks, bool(flags & socket.MSG_CTRUNC))
            if notified is not None:
                found.append(msgspec.structs.replace(notified, stacks=number) if number else notified)
        return found

    def refused(self) -> dict[str, int]:
        """Of `counts` those that somebody should know of."""
        return {what: count for what, count in self.counts.items() if what not in _ORDINARY}

    def stacks(self, number: int) -> int | None:
        """The descriptor of a memory file, which stays this socket's; None when it is held no longer."""
        held = self._stacks.get(number)
        return held.fd if held is not None else None

    def stacks_text(self, number: int) -> bytes:
        """What the application has written into it, at most `STACKS_SIZE_MAX`; b"" for nothing.

        It is empty while the application is well (see `hbagent.progress`).
        """
        held = self._stacks.get(number)
        if held is None:
            return b""
        with contextlib.suppress(OSError):
            return os.pread(held.fd, STACKS_SIZE_MAX, 0).rstrip(b"\0")
        return b""

    def drop(self, number: int) -> None:
        """This memory file is not needed any more. Harmless when repeated."""
        held = self._stacks.pop(number, None)
        if held is not None:
            os.close(held.fd)

    def close(self) -> None:
        """Close everything; the path goes, when it is still that of this socket. Harmless when repeated."""
        for number in list(self._stacks):
            self.drop(number)
        while self._suspects:
            os.close(self._suspects.popitem()[1])
        self._poller.close()
        self._socket.close()
        self._address.leave()

    # ---- one datagram ------------------------------------------------------------------------------------

    def _understand(self, data: bytes, control: list[tuple[int, int, bytes]], flags: int, now: int) -> Notified | None:
        pid, uid, gid, sent_boot_ns = _origin(control)
        if flags & socket.MSG_CTRUNC:
            self._count("descriptors")
        if pid <= 0:
            # In another process namespace: nobody here knows it.
            return self._refused("no-sender")
        if not self._allowed(pid, uid, now):
            return self._refused("limited")
        if flags & socket.MSG_TRUNC or len(data) > DATAGRAM_SIZE_MAX:
            return self._refused("too-long")
        fields = parse(data)
        if fields is None:
            return self._refused("malformed")
        if fields == (("BARRIER", "1"),):
            # All that it is for is that it was taken off the queue.
            self._count("barrier")
            return None
        process = self._senders.look(pid, sent_boot_ns, now)
        named = dict(fields)
        main = named.get("X_HBAGENT_MAIN") or named.get("MAINPID", "")
        main_uid, main_start = self._senders.user(int(main)) if _is_pid(main) else (-1, 0)
        self._count("taken")
        return Notified(
            pid=pid,
            uid=uid,
            gid=gid,
            ancestors=process.ancestors,
            start=process.start,
            unit=process.unit,
            main_uid=main_uid,
            main_start=main_start,
            fields=fields,
        )

    def _remove(self, stacks: tuple[int, int, int] | None, descriptors: bool) -> int:
        """Take the datagram that was looked at off the queue, and with it one descriptor when it is wanted."""
        if stacks is not None and (stacks[2] in self._suspects or len(self._suspects) >= SUSPECTS_MAX):
            self._count("stacks-refused")
            stacks = None
        interrupted = descriptors and self._interruptible
        before = signal.setitimer(signal.ITIMER_REAL, _LINGER_S, _LINGER_S) if interrupted else (0.0, 0.0)
        try:
            _, control, _, _ = self._socket.recvmsg(1, _CONTROL_ONE if stacks else 0, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return 0
        finally:
            if interrupted:
                signal.setitimer(signal.ITIMER_REAL, *before)
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and stacks is not None:
                fds = [fd for (fd,) in struct.iter_unpack("i", content[: len(content) // 4 * 4])]
                return self._hold(fds[0], *stacks) if fds else 0
        return 0

    def _hold(self, fd: int, pid: int, start: int, uid: int) -> int:
        """Keep a descriptor when it is a memory file; its number, or 0 when it is not kept or is held already."""
        if not _is_memory(fd):
            self._suspects[uid] = fd
            self._count("stacks-refused")
            return 0
        found = os.fstat(fd)
        for number, held in list(self._stacks.items()):
            if held.pid != pid:
                continue
            if (held.start, held.device, held.inode) == (start, found.st_dev, found.st_ino):
                os.close(fd)
                return 0
            self.drop(number)
        if len(self._stacks) >= STACKS_MAX or self._held_by(uid) >= STACKS_PER_USER_MAX:
            self._drop_orphans()
        if len(self._stacks) >= STACKS_MAX or self._held_by(uid) >= STACKS_PER_USER_MAX:
            os.close(fd)
            self._count("stacks-refused")
            return 0
        self._stacks_made += 1
        self._stacks[self._stacks_made] = _Stacks(fd, pid, start, uid, found.st_dev, found.st_ino)
        return self._stacks_made

    def _held_by(self, uid: int) -> int:
        return sum(held.uid == uid for held in self._stacks.values())

    def _drop_orphans(self) -> None:
        for number, held in list(self._stacks.items()):
            if self._senders.start(held.pid) != held.start:
                self.drop(number)

    # ---- bounds ------------------------------------------------------------------------------------------

    def _allowed(self, pid: int, uid: int, now: int) -> bool:
        process = _allowance(self._processes, pid, PROCESSES_MAX, PROCESS_PER_SECOND, PROCESS_BURST)
        user = _allowance(self._users, uid, USERS_MAX, USER_PER_SECOND, USER_BURST)
        return process.take(now) and user.take(now)

    def _pause(self, until: int) -> None:
        if self._resume_at is None:
            self._count("pauses")
            self._resume_at = until
            self._poller.unregister(self._socket)

    def _refused(self, reason: str) -> Notified | None:
        self._count(reason)
        return None

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


class NotifyPort:
    """The socket as a port of a driver: `deliver` gets each datagram, `call_later` wakes it after a pause."""

    def __init__(
        self,
        notify: NotifySocket,
        deliver: Callable[[Notified], object],
        call_later: Callable[[int, Callable[[], None]], object],
    ) -> None:
        self.source = notify.fileno()
        self._notify = notify
        self._deliver = deliver
        self._call_later = call_later
        self._timer_set = False

    def drain(self) -> int:
        """Deliver what waits, up to the socket's own bounds; how many there were."""
        found = self._notify.read(time.monotonic_ns())
        for notified in found:
            self._deliver(notified)
        self._set_timer()
        return len(found)

    def _set_timer(self) -> None:
        at = self._notify.deadline()
        if at is not None and not self._timer_set:
            self._timer_set = True
            self._call_later(at, self._wake)

    def _wake(self) -> None:
        self._timer_set = False
        self._notify.wake(time.monotonic_ns())
        self._set_timer()


def parse(data: bytes) -> tuple[tuple[str, str], ...] | None:
    """The fields of a datagram in its order, values without control characters; None when it has none or is no text.

    Lines without a key are passed over, as systemd does.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text.removesuffix("\0"):
        return None
    fields = []
    for line in text.removesuffix("\0").split("\n"):
        key, equals, value = line.partition("=")
        if equals and _is_key(key):
            fields.append((key, value.translate(_CONTROLS)))
    return tuple(fields) or None


class _Stacks:
    """A memory file that is held, and whose it is."""

    __slots__ = ("device", "fd", "inode", "pid", "start", "uid")

    def __init__(self, fd: int, pid: int, start: int, uid: int, device: int, inode: int) -> None:
        self.fd = fd
        self.pid = pid
        self.start = start
        self.uid = uid
        self.device = device
        self.inode = inode


class _Address:
    """Where the socket is; a path is had by one process at a time.

    Who has it holds a lock on the file beside it, which ends with the process and is not inherited by its children:
    one of those that cannot be killed keeps the old socket open, and must not keep the path. With the lock in hand,
    whatever socket is at the path is a dead one's, and makes room in one step, so that there is no moment without one.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock: int | None = None
        self._identity = (0, 0)

    def listen(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # Before it has an address: from then on there may be datagrams, and they must have a sender.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if self._path.startswith("@"):
                made.bind("\0" + self._path[1:])
            else:
                self._take(made)
        except BaseException:
            made.close()
            self.leave()
            raise
        return made

    def _take(self, made: socket.socket) -> None:
        self._lock = os.open(
            self._path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, "another process listens here", self._path) from None
        _must_be_socket(self._path)
        made_at = os.path.join(os.path.dirname(self._path), f".{os.getpid()}")
        if _must_be_socket(made_at):
            os.unlink(made_at)
        made.bind(made_at)
        try:
            found = os.lstat(made_at)
            # Applications of every user report here.
            os.chmod(made_at, 0o666)
            os.rename(made_at, self._path)
        except BaseException:
            os.unlink(made_at)
            raise
        self._identity = (found.st_dev, found.st_ino)

    def leave(self) -> None:
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)
        os.close(self._lock)
        self._lock = None


def _must_be_socket(path: str) -> bool:
    """True for a socket, False for nothing; raises OSError for anything else, which is not ours to delete."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "something that is no socket is in the way", path)
    return True


def _interruptible() -> bool:
    """True when a timer may interrupt this process: it has the one thread that signals go to, and SIGALRM to itself."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _interrupted)
    return signal.getsignal(signal.SIGALRM) is _interrupted


def _interrupted(number: int, frame: FrameType | None) -> None:
    """A signal that does no more than come."""


def _origin(control: list[tuple[int, int, bytes]]) -> tuple[int, int, int, int | None]:
    """Process, user and group of the sender, and when it sent on the clock since the host's start."""
    pid, uid, gid, sent_boot_ns = 0, -1, -1, None
    for level, kind, content in control:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(content) == _CREDENTIALS.size:
            pid, uid, gid = _CREDENTIALS.unpack(content)
        elif kind == _SO_TIMESTAMPNS and len(content) == _TIMESTAMP.size:
            seconds, nanoseconds = _TIMESTAMP.unpack(content)
            age_ns = time.time_ns() - seconds * SECOND - nanoseconds
            # A wall clock that was set back meanwhile.
            sent_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - max(0, age_ns)
    return pid, uid, gid, sent_boot_ns


def _allowance(known: dict[int, Allowance], key: int, size_max: int, per_second: int, burst: int) -> Allowance:
    found = known.get(key)
    if found is None:
        if len(known) >= size_max:
            del known[next(iter(known))]
        found = known[key] = Allowance(SECOND // per_second, burst)
    return found


def _is_memory(fd: int) -> bool:
    """A file in memory that can be read: neither reading nor closing it can hang."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_WRONLY
    except OSError:
        return False


def _is_key(text: str) -> bool:
    return 0 < len(text) <= 64 and text.isascii() and text.replace("_", "").isalnum() and text == text.upper()


def _is_pid(text: str) -> bool:
    return 0 < len(text) <= 10 and text.isascii() and text.isdecimal() and int(text) > 0
