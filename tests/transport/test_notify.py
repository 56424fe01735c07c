"""The notify socket: real datagrams from real senders, the well-behaved and the others."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import random
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.messages import Notified
from hbagent.core.units import MILLISECOND, MINUTE, SECOND
from hbagent.transport import notify
from hbagent.transport.notify import NotifyPort, NotifySocket, parse
from hbagent.transport.senders import Process, Senders
from hbagent.transport.teller import DATAGRAM_SIZE_MAX
from tests.descriptors import descriptors
from tests.reporting import BOUND_S, Listener, wait_for

ROOT = Path(__file__).parents[2]
TURN_TIME_NS = notify.TURN_TIME_NS


@pytest.fixture
def server(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    """A socket that is read when the test says so, at a time of the test's own."""
    # On a busy machine a turn would end by its time before it ends by its number.
    monkeypatch.setattr(notify, "TURN_TIME_NS", MINUTE)
    made = NotifySocket(str(socket_dir / "notify"), 0)
    yield made
    made.close()


@pytest.fixture
def path(server: NotifySocket, socket_dir: Path) -> str:
    return str(socket_dir / "notify")


@pytest.fixture
def listener(socket_dir: Path) -> Iterator[Listener]:
    made = Listener(socket_dir / "listener")
    yield made
    made.close()


def tell(path: str, data: bytes, fds: Sequence[int] = ()) -> None:
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(BOUND_S)
        made.sendmsg([data], control, 0, path)


def memory_file(text: bytes = b"") -> int:
    fd = os.memfd_create("stacks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, text)
    return fd


def readable(server: NotifySocket) -> bool:
    return bool(select.select([server], [], [], 0)[0])


# ---- what is in a datagram -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"READY=1", (("READY", "1"),)),
        (b"READY=1\nSTATUS=a=b c\n", (("READY", "1"), ("STATUS", "a=b c"))),
        (b"WATCHDOG=1\0", (("WATCHDOG", "1"),)),
        (b"\n\nnonsense\n=1\nlower=1\nSTATUS=\n", (("STATUS", ""),)),
        (
            b"X_HBAGENT_PROGRESS=a 1\nX_HBAGENT_PROGRESS=b 2",
            (("X_HBAGENT_PROGRESS", "a 1"), ("X_HBAGENT_PROGRESS", "b 2")),
        ),
        (b"STATUS=\x1b[31mred\r\x7f\xc2\x9b", (("STATUS", "?[31mred???"),)),
        ("STATUS=äöü ✓".encode(), (("STATUS", "äöü ✓"),)),
        (b"", None),
        (b"STATUS=\xff", None),
        (b"READY=1\0STATUS=x", None),
        (b"\0", None),
        (b"=" * 4096, None),
    ],
)
def test_a_datagram_is_lines_of_key_and_value(data: bytes, fields: tuple[tuple[str, str], ...] | None) -> None:
    assert parse(data) == fields


@given(st.binary(max_size=DATAGRAM_SIZE_MAX))
def test_any_bytes_are_fields_or_nothing(data: bytes) -> None:
    fields = parse(data)
    assert fields is None or all(key and not set(value) & set("\n\r\x1b\0") for key, value in fields)


@given(st.lists(st.tuples(st.from_regex("[A-Z_][A-Z0-9_]{0,20}", fullmatch=True), st.text(max_size=20)), min_size=1))
def test_what_is_written_as_fields_is_read_as_these(pairs: list[tuple[str, str]]) -> None:
    pairs = [(key, value) for key, value in pairs if key.strip("_")]
    data = "\n".join(f"{key}={value}" for key, value in pairs).encode("utf-8", "replace")
    if all(value.isprintable() for _, value in pairs):
        assert parse(data) == (tuple(pairs) or None)


# ---- who sent it -----------------------------------------------------------------------------------------


def test_the_sender_is_who_the_kernel_says(server: NotifySocket, path: str) -> None:
    tell(path, b"READY=1\nMAINPID=1")
    (notified,) = server.read(0)
    assert (notified.pid, notified.uid, notified.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert notified.ancestors[0] == os.getppid()
    assert notified.start == Senders().start(os.getpid())
    assert (notified.main_uid, notified.main_start) == Senders().user(1)
    assert notified.fields == (("READY", "1"), ("MAINPID", "1"))


@pytest.mark.root
def test_another_user_may_speak_and_is_told_apart() -> None:
    server = NotifySocket(f"@hbagent-test-user-{os.getpid()}", 0)
    code = (
        "import os, socket, sys; os.setgid(54321); os.setuid(54321);"
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', chr(0) + sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, f"hbagent-test-user-{os.getpid()}"], timeout=BOUND_S, check=True)
    (notified,) = server.read(0)
    assert (notified.uid, notified.gid) == (54321, 54321)
    server.close()


def test_every_user_may_write_whatever_the_umask(socket_dir: Path) -> None:
    before = os.umask(0o077)
    try:
        server = NotifySocket(str(socket_dir / "n"), 0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(socket_dir / "n").st_mode) == 0o666
    server.close()


def test_a_sender_that_is_gone_is_known_by_number_only(server: NotifySocket, path: str) -> None:
    code = "import socket,sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", code, path]) as child:
        assert child.wait(BOUND_S) == 0
    (notified,) = server.read(0)
    assert (notified.pid, notified.start, notified.ancestors, notified.unit) == (child.pid, 0, (), "")


# ---- the address -----------------------------------------------------------------------------------------


def test_a_path_left_by_a_dead_process_is_taken_over_and_goes_in_the_end(socket_dir: Path) -> None:
    path = socket_dir / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    server = NotifySocket(str(path), 0)
    tell(str(path), b"READY=1")
    assert len(server.read(0)) == 1
    assert sorted(os.listdir(socket_dir)) == ["notify", "notify.lock"]
    server.close()
    server.close()
    assert not path.exists()


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_deleted(socket_dir: Path, what: str) -> None:
    path = socket_dir / "notify"
    if what == "file":
        path.write_text("precious")
    elif what == "directory":
        path.mkdir()
    else:
        (socket_dir / "target").write_text("precious")
        path.symlink_to("target")
    before = descriptors()
    with pytest.raises(OSError, match="no socket") as caught:
        NotifySocket(str(path), 0)
    assert caught.value.errno == errno.EEXIST
    assert os.path.lexists(path)
    assert descriptors() <= before


def test_two_processes_cannot_have_one_path_and_an_orphan_of_the_first_does_not_hold_it(socket_dir: Path) -> None:
    path = str(socket_dir / "notify")
    # The first forks a child that keeps everything open, then waits.
    code = (
        "import os,sys,signal; from hbagent.transport.notify import NotifySocket; s=NotifySocket(sys.argv[1],0);"
        "pid=os.fork() or signal.pause(); print(pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdout is not None
        orphan = int(first.stdout.readline())
        with pytest.raises(OSError, match="another process") as caught:
            NotifySocket(path, 0)
        assert caught.value.errno == errno.EADDRINUSE
        first.kill()
        first.wait()
        try:
            second = NotifySocket(path, 0)
            tell(path, b"READY=1")
            assert len(second.read(0)) == 1
            second.close()
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_a_socket_that_took_the_path_since_is_left_alone(socket_dir: Path) -> None:
    path = str(socket_dir / "notify")
    server = NotifySocket(path, 0)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        server.close()
        assert os.path.exists(path)


def test_a_directory_that_is_not_there_is_an_error(socket_dir: Path) -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        NotifySocket(str(socket_dir / "none" / "notify"), 0)
    assert descriptors() <= before


# ---- bounds ----------------------------------------------------------------------------------------------


def test_a_datagram_may_have_4096_bytes_and_no_more(server: NotifySocket, path: str) -> None:
    tell(path, b"STATUS=".ljust(DATAGRAM_SIZE_MAX, b"x"))
    tell(path, b"STATUS=".ljust(DATAGRAM_SIZE_MAX + 1, b"x"))
    tell(path, b"STATUS=".ljust(100_000, b"x"))
    assert len(server.read(0)) == 1
    assert server.counts == {"taken": 1, "too-long": 2}


def test_what_is_no_text_and_what_says_nothing_is_counted(server: NotifySocket, path: str) -> None:
    for data in (b"", b"\xff=1", b"nothing", b"READY=1\0\0"):
        tell(path, data)
    assert server.read(0) == []
    assert server.counts == {"malformed": 4}


def flood(server: NotifySocket, path: str, count: int, now: int) -> int:
    """Send as many, reading whenever the queue is full; how many were taken."""
    taken = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        for _ in range(count):
            try:
                made.sendto(b"WATCHDOG=1", path)
            except BlockingIOError:
                server.wake(now)
                taken += len(server.read(now))
    return taken


def test_one_process_has_its_share_and_then_waits_for_more(server: NotifySocket, path: str) -> None:
    assert flood(server, path, 900, 0) == notify.PROCESS_BURST
    assert server.counts["limited"] > 500
    # Time passes, and it has its rate again.
    tell(path, b"STATUS=later")
    assert [notified.fields[0][1] for notified in server.read(SECOND)][-1] == "later"


def test_all_processes_of_a_user_have_their_share(server: NotifySocket) -> None:
    taken = sum(server._allowed(pid, 7, 0) for pid in range(1, 3_000))
    assert taken == notify.USER_BURST
    assert server._allowed(1, 8, 0)
    assert sum(server._allowed(pid, 7, SECOND) for pid in range(10_000, 12_000)) == notify.USER_PER_SECOND
    assert len(server._processes) == notify.PROCESSES_MAX


def test_a_flood_that_goes_on_is_looked_at_no_more_for_a_moment(server: NotifySocket, path: str) -> None:
    flood(server, path, notify.DATAGRAMS_BURST + 50, 0)
    assert server.deadline() == notify.PAUSE_NS
    assert not readable(server)
    server.wake(notify.PAUSE_NS - 1)
    assert not readable(server)
    server.wake(notify.PAUSE_NS)
    assert readable(server)
    assert server.deadline() is None


def test_a_turn_ends_after_a_bound(server: NotifySocket, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    assert limit < notify.DATAGRAMS_PER_TURN or flood(server, path, limit, 0) <= notify.DATAGRAMS_PER_TURN
    monkeypatch.setattr(notify, "TURN_TIME_NS", TURN_TIME_NS)
    slow = _SlowSenders()
    server._senders = slow
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        for _ in range(8):
            made.sendto(b"READY=1", path)
    assert 0 < len(server.read(MINUTE)) < 8
    assert server.deadline() == MINUTE + 5 * TURN_TIME_NS
    server.wake(2 * MINUTE)
    assert len(server.read(2 * MINUTE)) > 0


class _SlowSenders(Senders):
    """A host on which every look takes 15 ms."""

    def start(self, pid: int) -> int:
        select.select([], [], [], 0.015)
        return super().start(pid)

    def look(self, pid: int, sent_boot_ns: int | None, now: int) -> Process:
        self._known.clear()
        return super().look(pid, sent_boot_ns, now)


# ---- descriptors -----------------------------------------------------------------------------------------


def test_a_barrier_is_let_go_only_when_everything_before_was_taken(server: NotifySocket, path: str) -> None:
    ours, theirs = os.pipe()
    tell(path, b"READY=1")
    tell(path, b"BARRIER=1", [theirs])
    os.close(theirs)
    poller = select.poll()
    poller.register(ours, 0)
    assert poller.poll(0) == []
    assert [notified.fields for notified in server.read(0)] == [(("READY", "1"),)]
    assert poller.poll(0) == [(ours, select.POLLHUP)]
    assert server.counts["barrier"] == 1
    tell(path, b"nothing")
    server.read(0)
    assert server.refused() == {"malformed": 1}
    os.close(ours)


@pytest.mark.parametrize("count", [1, 2, 250, 253])
def test_no_descriptor_stays_however_many_come(server: NotifySocket, path: str, count: int) -> None:
    ours, theirs = os.pipe()
    before = descriptors()
    tell(path, b"FDSTORE=1\nFDNAME=x", [theirs] * count)
    tell(path, b"\xff", [theirs] * count)
    tell(path, b"READY=1\nX_HBAGENT_STACKS=0", [theirs] * count)
    os.close(theirs)
    assert len(server.read(0)) == 2
    assert descriptors() < before
    assert select.select([ours], [], [], 0)[0] == [ours]
    assert os.read(ours, 1) == b""
    os.close(ours)


def test_a_memory_file_is_held_under_a_number_until_it_is_dropped(server: NotifySocket, path: str) -> None:
    before = descriptors()
    fd = memory_file(b"Thread 1\n")
    tell(path, b"X_HBAGENT_STACKS=1", [fd])
    (notified,) = server.read(0)
    assert notified.stacks
    os.write(fd, b"Thread 2\n")
    assert server.stacks_text(notified.stacks) == b"Thread 1\nThread 2\n"
    held = server.stacks(notified.stacks)
    assert held is not None and os.fstat(held).st_ino == os.fstat(fd).st_ino
    # Told again by the same process it is no news.
    tell(path, b"X_HBAGENT_STACKS=1", [fd])
    assert server.read(0)[0].stacks == 0
    server.drop(notified.stacks)
    server.drop(notified.stacks)
    assert server.stacks(notified.stacks) is None
    assert server.stacks_text(notified.stacks) == b""
    os.close(fd)
    assert descriptors() <= before


def test_a_new_memory_file_of_a_process_takes_the_place_of_its_old_one(server: NotifySocket, path: str) -> None:
    numbers = []
    for text in (b"old", b"new"):
        fd = memory_file(text)
        tell(path, b"X_HBAGENT_STACKS=1", [fd, fd, fd])
        os.close(fd)
        numbers.append(server.read(0)[0].stacks)
    assert server.stacks(numbers[0]) is None
    assert server.stacks_text(numbers[1]) == b"new"


def test_what_is_no_memory_file_is_not_closed_and_its_user_hands_over_no_other(
    server: NotifySocket, path: str, tmp_path: Path
) -> None:
    before = descriptors()
    ours, theirs = os.pipe()
    tell(path, b"X_HBAGENT_STACKS=1", [ours])
    assert server.read(0)[0].stacks == 0
    os.close(theirs)
    os.close(ours)
    assert len(descriptors() - before) == 1
    for _ in range(5):
        fd = memory_file()
        tell(path, b"X_HBAGENT_STACKS=1", [fd])
        os.close(fd)
        assert server.read(0)[0].stacks == 0
    assert len(descriptors() - before) == 1
    assert server.counts["stacks-refused"] == 6


def test_a_memory_file_that_cannot_be_read_is_refused(server: NotifySocket, path: str) -> None:
    fd = memory_file()
    write_only = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    tell(path, b"X_HBAGENT_STACKS=1", [write_only])
    assert server.read(0)[0].stacks == 0
    os.close(fd)
    os.close(write_only)


def test_one_user_holds_a_quarter_and_the_dead_make_room(server: NotifySocket) -> None:
    start = Senders().start(os.getpid())
    numbers = [server._hold(memory_file(), os.getpid(), start, 7)]
    for i in range(notify.STACKS_PER_USER_MAX - 1):
        numbers.append(server._hold(memory_file(), 10_000_000 + i, 1, 7))
    assert all(numbers)
    assert server._hold(memory_file(), 11_000_000, 1, 8)
    # Nobody has those process ids, so the next one drops them all.
    assert server._hold(memory_file(), os.getppid(), Senders().start(os.getppid()), 7)
    assert [number for number in numbers if server.stacks(number) is not None] == numbers[:1]


def test_descriptors_at_the_limit_of_the_process_do_no_harm(socket_dir: Path) -> None:
    code = """
import array, os, resource, socket, sys
from hbagent.transport import notify
notify.TURN_TIME_NS = 60 * 10**9
server = notify.NotifySocket(sys.argv[1], 0)
fd = os.memfd_create("x")
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1,) * 2)
for data in (b"X_HBAGENT_STACKS=1", b"BARRIER=1", b"READY=1"):
    sender.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))], 0, sys.argv[1])
print([(n.fields, n.stacks) for n in server.read(0)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(socket_dir / "n")], capture_output=True, text=True, cwd=ROOT, timeout=BOUND_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[((('X_HBAGENT_STACKS', '1'),), 0), ((('READY', '1'),), 0)]\n"


def test_a_connection_that_lingers_does_not_hold_the_loop_up(socket_dir: Path) -> None:
    # In a process of its own: the timer of pytest-timeout is the one that would be used.
    code = """
import array, contextlib, os, signal, socket, struct, sys, time
from hbagent.transport.notify import NotifySocket
server = NotifySocket(sys.argv[1], 0)
took = []
for _ in range(5):
    with socket.create_server(("127.0.0.1", 0)) as there:
        here = socket.create_connection(there.getsockname())
        accepted, _ = there.accept()
        here.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                here.send(bytes(65536))
        here.setblocking(True)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [here.fileno()]))
            sender.sendmsg([b"READY=1"], [rights], 0, sys.argv[1])
        os.close(here.detach())
        before = time.monotonic()
        assert len(server.read(0)) == 1
        took.append(time.monotonic() - before)
        accepted.close()
print(max(took) < 15, signal.getitimer(signal.ITIMER_REAL))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(socket_dir / "n")], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True (0.0, 0.0)\n", "")


# ---- real senders ----------------------------------------------------------------------------------------


@pytest.mark.needs("systemd-notify")
def test_systemd_notify_is_understood_and_does_not_wait(listener: Listener) -> None:
    done = subprocess.run(
        ["systemd-notify", "--ready", "--status=4 workers", "--pid", "WATCHDOG_USEC=20000000"],
        env={**os.environ, "NOTIFY_SOCKET": listener.address},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    # Unless its barrier is let go, it waits for 5 s and fails.
    assert (done.returncode, done.stderr) == (0, "")
    assert listener.until(lambda: listener.said("READY") == ["1"])
    assert listener.said("STATUS") == ["4 workers"]
    assert listener.said("WATCHDOG_USEC") == ["20000000"]
    (notified,) = listener.heard
    assert os.getpid() in (notified.pid, *notified.ancestors)
    assert dict(notified.fields)["MAINPID"] == str(os.getpid())
    assert (notified.main_uid, notified.main_start) == (os.getuid(), Senders().start(os.getpid()))
    assert listener.socket.counts["barrier"] == 1


@pytest.fixture
def libsystemd(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libsystemd.so.0")
    except OSError:
        pytest.skip("needs libsystemd")
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    return library


def test_libsystemd_is_understood(libsystemd: ctypes.CDLL, listener: Listener) -> None:
    assert libsystemd.sd_notify(0, b"READY=1\nSTATUS=here") > 0
    for word in (b"WATCHDOG=1", b"WATCHDOG=trigger", b"RELOADING=1", b"EXTEND_TIMEOUT_USEC=5000000", b"STOPPING=1"):
        assert libsystemd.sd_notify(0, word) > 0
    assert libsystemd.sd_notify_barrier(0, ctypes.c_uint64(30_000_000)) > 0
    assert listener.until(lambda: len(listener.heard) == 6)
    assert listener.said("WATCHDOG") == ["1", "trigger"]
    assert all(notified.pid == os.getpid() for notified in listener.heard)


def test_libsystemd_may_store_descriptors_and_we_keep_none(libsystemd: ctypes.CDLL, listener: Listener) -> None:
    before = descriptors()
    ours, theirs = os.pipe()
    fds = (ctypes.c_int * 3)(theirs, theirs, theirs)
    assert libsystemd.sd_pid_notify_with_fds(0, 0, b"FDSTORE=1\nFDNAME=a", fds, 3) > 0
    os.close(theirs)
    assert listener.until(lambda: listener.said("FDSTORE") == ["1"])
    assert select.select([ours], [], [], BOUND_S)[0] == [ours]
    os.close(ours)
    assert descriptors() <= before


@pytest.mark.root
def test_root_may_speak_in_the_name_of_another_process(libsystemd: ctypes.CDLL, listener: Listener) -> None:
    assert libsystemd.sd_pid_notify(os.getppid(), 0, b"READY=1") > 0
    assert listener.until(lambda: len(listener.heard) == 1)
    assert listener.heard[0].pid == os.getppid()


# ---- the port --------------------------------------------------------------------------------------------


def test_the_port_delivers_and_has_itself_woken_after_a_pause(server: NotifySocket, path: str) -> None:
    heard: list[Notified] = []
    timers: list[int] = []
    calls: list[Callable[[], None]] = []

    def call_later(at: int, call: Callable[[], None]) -> None:
        timers.append(at)
        calls.append(call)

    port = NotifyPort(server, heard.append, call_later)
    assert port.source == server.fileno()
    tell(path, b"READY=1")
    assert port.drain() == 1
    assert [notified.fields for notified in heard] == [(("READY", "1"),)]
    assert timers == []
    server._pause(time.monotonic_ns() + MILLISECOND)
    port.drain()
    port.drain()
    assert len(timers) == 1
    assert wait_for(lambda: time.monotonic_ns() > timers[0])
    calls[0]()
    assert server.deadline() is None


# ---- floods and garbage ----------------------------------------------------------------------------------


def mangled(chance: random.Random) -> bytes:
    """A datagram that was once a good one, or never."""
    good = [b"READY=1", b"STATUS=" + chance.randbytes(chance.randrange(40)), b"X_HBAGENT_PROGRESS=a 1 queued=2"]
    good += [b"WATCHDOG=1", b"MAINPID=%d" % chance.randrange(1 << 34), b"BARRIER=1", b"X_HBAGENT_STACKS=1", b"\0", b""]
    data = bytearray(b"\n".join(chance.choices(good, k=chance.randrange(6))))
    for _ in range(chance.randrange(4) if data else 0):
        at = chance.randrange(len(data))
        data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        data = data or bytearray(b"\0")
    return bytes(data) * chance.choice([1, 1, 1, 1, 300])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_thousand_mangled_datagrams_leave_no_trace(server: NotifySocket, path: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    fd, (ours, theirs) = memory_file(), os.pipe()
    before, now, sent, taken = descriptors(), 0, 0, 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        while sent < 100_000:
            fds = chance.choices([fd, ours, theirs, 0], k=chance.choice([0, 0, 0, 1, 1, 2, 250]))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                made.sendmsg([mangled(chance)], rights, 0, path)
                sent += 1
            except BlockingIOError:
                now += MINUTE
                server.wake(now)
                taken += len(server.read(now))
        server.wake(now)
        taken += len(server.read(now + MINUTE))
    told = server.counts
    assert taken == told["taken"] > 10_000
    assert sum(told.get(name, 0) for name in ("taken", "malformed", "too-long", "barrier", "limited")) == 100_000
    # One memory file or one suspect, of this one process and user.
    assert len(descriptors() - before) <= 2
    os.close(fd)
    os.close(ours)
    os.close(theirs)


_FLOOD = """
import array, os, socket, sys
ours, theirs = os.pipe()
fd = os.memfd_create("x")
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours, theirs, fd] * 20))]
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
print(flush=True)
while True:
    sender.sendmsg([b"STATUS=" + b"x" * 3000 + b"\\nX_HBAGENT_STACKS=1"], rights)
"""


def _seen(server: NotifySocket) -> int:
    return sum(server.counts.get(name, 0) for name in ("taken", "limited"))


@pytest.mark.slow
def test_a_flood_from_several_with_descriptors_leaks_none_and_a_quiet_one_is_heard(
    server: NotifySocket, path: str
) -> None:
    before = descriptors()
    floods = [
        subprocess.Popen([sys.executable, "-c", _FLOOD, path], stdout=subprocess.PIPE, start_new_session=True)
        for _ in range(3)
    ]
    quiet = None
    try:
        for process in floods:
            assert process.stdout is not None
            process.stdout.readline()
        busy_ns, turns, heard = 0, [], 0
        start = time.monotonic()
        code = "import sys; from hbagent.transport.teller import *; send(sys.argv[1], b'STATUS=quiet', 60)"
        quiet = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT)
        quiet_heard = False
        while time.monotonic() < start + 3 or not (quiet_heard and _seen(server) > 1_000):
            assert time.monotonic() < start + 4 * BOUND_S
            select.select([server], [], [], 0.02)
            began = time.monotonic_ns()
            server.wake(began)
            found = server.read(began)
            turns.append(time.monotonic_ns() - began)
            busy_ns += turns[-1]
            heard += len(found)
            quiet_heard = quiet_heard or any(notified.fields == (("STATUS", "quiet"),) for notified in found)
    finally:
        for process in floods:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        length_s = time.monotonic() - start
        if quiet is not None:
            quiet.wait(BOUND_S)
    print(
        f"busy {busy_ns / length_s / 1e7:.1f} %, longest turn {max(turns) / 1e6:.1f} ms, {heard} taken, {server.counts}"
    )
    assert heard <= 3 * (notify.PROCESS_BURST + (length_s + 1) * notify.PROCESS_PER_SECOND) + 1
    assert len(descriptors() - before) <= 3 * 2 + 3


def test_a_control_message_of_another_length_is_no_sender() -> None:
    assert notify._origin([(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, b"\1" * 8)])[:3] == (0, -1, -1)
    now = time.time()
    stamp = struct.pack("2q", int(now) + 100, 0)
    sent = notify._origin([(socket.SOL_SOCKET, 35, stamp)])[3]
    # Sent in the future of a clock that was set back: now, at the latest.
    assert sent is not None and sent <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
