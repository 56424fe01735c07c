"""`hbagent run-app NAME -- CMD...`: run any program so that the agent of this host knows it, and how it ended.

The program finds the agent's socket in NOTIFY_SOCKET, so whatever it would tell systemd goes to the agent. Started by
systemd itself as Type=notify, both hear it: then the program speaks to a relay here, which passes each datagram on to
either. `hbagent.progress` in the program reports to the agent directly (HBAGENT_NOTIFY).

It behaves as the program would: signals are handed on, the exit status is the program's (128 + n when signal n ended
it), and where no agent listens the program runs all the same. What the terminal or the kernel sends to the whole
process group has reached the program already and is not sent again; with systemd, KillMode=mixed does the same.

A signal that asks it to end is told to the agent: what ends by it was stopped on purpose, and has not failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Sequence

from hbagent.cli import EXIT_USAGE
from hbagent.core.names import is_part
from hbagent.core.units import MICROSECOND, parse_duration
from hbagent.transport.senders import Senders
from hbagent.transport.teller import DATAGRAM_SIZE_MAX, address_of, lines, send, settle

#: How long the program waits for the agent to hear of it before it starts.
REGISTER_S = 1.0
#: How long the result is tried to be delivered to an agent that listened before: a restart takes a second or two.
RESULT_S = 10.0
#: How long one who listens may take for it.
SEND_S = 2.0
#: An agent that has come back, or has come at last, is told within this.
LOOK_AGAIN_S = 10.0
#: As shells have it.
EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 126, 127

_HANDED_ON = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
    *(signal.SIGTSTP, signal.SIGCONT),
)
#: Of these the agent is told that the program was asked to end, or may have been: some programs read their
#: configuration at SIGHUP, and say what they do at SIGQUIT.
_ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
#: Whoever stops a whole group sends the signal to one after the other; the program may be first, and ended by now.
_COMES_S = 0.2
#: Sent by kill(2) and its like; anything above comes from the kernel (siginfo_t, sigaction(2)).
_FROM_A_PROCESS = 0


#: The program and its arguments stand after "--".
TAKES_REST = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "hbagent run-app [-h] NAME [--watchdog TIME] [--ttl TIME] [--socket PATH] -- CMD [ARG ...]"
    parser.add_argument("name", metavar="NAME", help="what the agent calls it")
    parser.add_argument("--watchdog", metavar="TIME", help='it must say WATCHDOG=1 within this ("30s")')
    parser.add_argument("--ttl", metavar="TIME", help='it is a job, and must succeed again within this ("25h")')
    parser.add_argument("--socket", metavar="PATH", help="of the agent (default: $HBAGENT_NOTIFY, /run/hbagent/notify)")


def run(args: argparse.Namespace) -> int:
    try:
        if not args.rest:
            raise ValueError('give the program after "--", as in: hbagent run-app web -- /usr/bin/web --port 80')
        if not is_part(args.name):
            raise ValueError(f"{args.name!r} cannot be a name")
        watchdog_ns = parse_duration(args.watchdog) if args.watchdog is not None else 0
        ttl_ns = parse_duration(args.ttl) if args.ttl is not None else 0
    except ValueError as error:
        print(f"hbagent: {error}", file=sys.stderr)
        return EXIT_USAGE
    agent = args.socket or address_of(os.environ)
    # What waits here is never ignored, whatever the parent ignores: a blocked signal waits for its reader.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*_HANDED_ON, signal.SIGCHLD])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    outer = os.environ.get("NOTIFY_SOCKET", "")
    relay = _Relay(args.name, agent, outer) if outer and outer != agent else None
    if relay is not None:
        watchdog_ns = min(filter(None, (watchdog_ns, _outer_watchdog_ns())), default=0)
    environment = _environment(args.name, agent, relay.address if relay is not None else agent, watchdog_ns)
    gate, pid = _fork(args.rest, environment, before)
    app = _App(args.name, pid, agent, watchdog_ns, ttl_ns)
    if not app.register(REGISTER_S):
        print(f"hbagent: {agent}: {app.error}; {args.name} runs without being watched for now", file=sys.stderr)
    if relay is not None:
        relay.start()
    os.write(gate, b"1")
    os.close(gate)
    code = _attend(app)
    if relay is not None:
        relay.finish()
    app.ended(code)
    return code


class _App:
    """What the agent is told of the program."""

    def __init__(self, name: str, pid: int, agent: str, watchdog_ns: int, ttl_ns: int) -> None:
        self.pid = pid
        self.error = ""
        self._agent = agent
        self._name = f"X_HBAGENT_APP={name}"
        self._watchdog = [f"WATCHDOG_USEC={watchdog_ns // MICROSECOND}"] if watchdog_ns else []
        self._ttl = [f"X_HBAGENT_TTL_USEC={ttl_ns // MICROSECOND}"] if ttl_ns else []
        self._listener: tuple[int, int, int] | None = None
        self._known = False
        self._asked: set[int] = set()

    def register(self, timeout_s: float) -> bool:
        """Tell that it runs; False when nobody listens, with the reason in `error`."""
        listener = _identity(self._agent)
        # A time to live counts from each time that it is told, so an agent that came back is not told again.
        fields = [self._name, f"X_HBAGENT_MAIN={self.pid}", *self._watchdog, *([] if self._known else self._ttl)]
        try:
            send(self._agent, lines(fields), timeout_s)
            # A program that ends at once would be gone before anybody looked whose it is.
            settle(self._agent, timeout_s)
        except OSError as error:
            self.error = error.strerror or str(error)
            return False
        self._listener = listener
        self._known = True
        return True

    def remind(self) -> None:
        """Tell it again when another one listens there now."""
        if not self._known or _identity(self._agent) not in (None, self._listener):
            self.register(SEND_S)

    def asked(self, number: int) -> None:
        """Tell that it was asked to end. If that is lost, its end will tell."""
        self._asked.add(number)
        with contextlib.suppress(OSError):
            send(self._agent, lines([self._name, f"X_HBAGENT_ASKED={number}"]), SEND_S)

    def ended(self, code: int) -> None:
        """Tell how it ended, and wait until that is taken: a job's success must not be lost."""
        number = code - 128
        asked = number in self._asked or (number in _ASKING and _comes(number))
        why = [f"X_HBAGENT_ASKED={number}"] if asked else []
        datagram = lines([self._name, *why, f"X_HBAGENT_RESULT={code}", *(self._ttl if code == 0 else [])])
        until = time.monotonic() + (RESULT_S if self._known else 0)
        while True:
            with contextlib.suppress(OSError):
                send(self._agent, datagram, SEND_S)
                settle(self._agent, SEND_S)
                return
            if time.monotonic() >= until:
                return
            time.sleep(0.25)


class _Relay:
    """Passes what the program and its children say on to the agent and to whoever started this process."""

    def __init__(self, name: str, agent: str, outer: str) -> None:
        self._name = name
        self._prefix = f"X_HBAGENT_APP={name}\n".encode()
        self._complained = False
        self._agent, self._outer = agent, outer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # The kernel finds a free name.
        self._socket.bind("")
        self.address = "@" + self._socket.getsockname()[1:].decode("ascii")
        self._senders = Senders()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._started = False

    def finish(self) -> None:
        """Pass on what was said up to now, then stop."""
        if self._started:
            with contextlib.suppress(OSError):
                send(self.address, b"", SEND_S)
            self._thread.join(2 * SEND_S)
        self._socket.close()

    def start(self) -> None:
        """Begin; only after the fork, which copies no thread."""
        self._started = True
        self._thread.start()

    def _run(self) -> None:
        room = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(253 * 4)
        while True:
            try:
                data, control, _, _ = self._socket.recvmsg(DATAGRAM_SIZE_MAX + 1, room, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            descriptors: list[int] = []
            pid, uid = 0, -1
            for _, kind, content in control:
                if kind == socket.SCM_RIGHTS:
                    descriptors = [fd for (fd,) in struct.iter_unpack("i", content[: len(content) // 4 * 4])]
                elif kind == socket.SCM_CREDENTIALS:
                    pid, uid, _ = struct.unpack("3i", content)
            if pid == os.getpid() and not data:
                return
            if uid in (0, os.getuid()) or os.getpid() in self._senders.look(pid, None, 0).ancestors:
                self._pass_on(data, descriptors)
            for fd in descriptors:
                os.close(fd)

    def _pass_on(self, data: bytes, descriptors: Sequence[int]) -> None:
        if len(data) > DATAGRAM_SIZE_MAX:
            self._complain()
            return
        if data != b"BARRIER=1":
            for part in self._parts(data):
                with contextlib.suppress(OSError):
                    send(self._agent, self._prefix + part, SEND_S)
        # The sender of a barrier waits for whoever has the descriptor last.
        with contextlib.suppress(OSError):
            send(self._outer, data, SEND_S, descriptors)

    def _parts(self, data: bytes) -> Iterable[bytes]:
        """What is said, in as many parts as it takes beside the name of who says it."""
        room = DATAGRAM_SIZE_MAX - len(self._prefix)
        if len(data) <= room:
            return [data]
        parts = [b""]
        for line in data.splitlines():
            if len(line) > room:
                # A status, of which people see the beginning; every other line has a number or a name.
                line = line[:room].decode("utf-8", "ignore").encode()
            if len(parts[-1]) + len(line) + 1 > room:
                parts.append(b"")
            parts[-1] += b"\n" * bool(parts[-1]) + line
        return filter(None, parts)

    def _complain(self) -> None:
        if not self._complained:
            self._complained = True
            most = f"more than {DATAGRAM_SIZE_MAX:,} bytes at once, which neither systemd nor the agent takes"
            print(f"hbagent: {self._name} said {most}", file=sys.stderr, flush=True)


def _fork(command: Sequence[str], environment: dict[str, str], mask: Iterable[int]) -> tuple[int, int]:
    """Start it, waiting at a gate: one byte into that descriptor lets it go, so the agent can be told first."""
    wait_here, gate = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(wait_here)
        return gate, pid
    code = EXIT_NOT_FOUND
    try:
        os.close(gate)
        if not os.read(wait_here, 1):
            os._exit(EXIT_NOT_FOUND)  # whoever wanted it is gone
        # What Python ignores for itself; every other disposition is kept by exec, or reset by it.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvpe(command[0], list(command), environment)
    except (OSError, ValueError) as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            code = EXIT_NOT_EXECUTABLE
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(2, f"hbagent: {command[0]}: {reason}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)
    raise AssertionError("unreachable: it has become the program, or has ended")


def _attend(app: _App) -> int:
    """Hand signals on until the program has ended; its exit status as a shell would say it."""
    # A timer, and no time limit of the wait: stopped beyond that and continued, `sigtimedwait` hands out what it finds
    # on the stack (seen with CPython 3.11), and that must not be taken for a signal.
    signal.setitimer(signal.ITIMER_REAL, LOOK_AGAIN_S, LOOK_AGAIN_S)
    while True:
        got = signal.sigwaitinfo([*_HANDED_ON, signal.SIGCHLD])
        if got.si_signo == signal.SIGALRM and got.si_code > _FROM_A_PROCESS:
            app.remind()
        elif got.si_signo == signal.SIGCHLD:
            code = _reap(app.pid)
            if code is not None:
                return code
        elif got.si_signo == signal.SIGTSTP:
            if got.si_code <= _FROM_A_PROCESS:
                _hand_on(app.pid, signal.SIGTSTP)
            _stop()
        else:
            if got.si_signo == signal.SIGCONT or got.si_code <= _FROM_A_PROCESS:
                _hand_on(app.pid, got.si_signo)
            if got.si_signo in _ASKING:
                app.asked(got.si_signo)


def _stop() -> None:
    """Stop as any program does, unless nobody could continue it: then the kernel stops neither of the two."""
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTSTP])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTSTP])


def _reap(main: int) -> int | None:
    """Collect who has ended, also orphans that this process inherits as the first of a container."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if not pid:
            return code
        if pid == main:
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _comes(number: int) -> bool:
    """This signal, which is blocked, has come here as well, or does so within a moment."""
    until = time.monotonic() + _COMES_S
    while number not in signal.sigpending():
        if time.monotonic() >= until:
            return False
        time.sleep(_COMES_S / 20)
    return True


def _hand_on(pid: int, number: int) -> None:
    # It is our child and not collected yet, so the id is its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _environment(name: str, agent: str, told: str, watchdog_ns: int) -> dict[str, str]:
    environment = {**os.environ, "NOTIFY_SOCKET": told, "HBAGENT_NOTIFY": agent, "HBAGENT_APP": name}
    # It names this process, and a program that finds another's id there takes the rest as not meant for it.
    environment.pop("WATCHDOG_PID", None)
    environment.pop("WATCHDOG_USEC", None)
    if watchdog_ns:
        environment["WATCHDOG_USEC"] = str(watchdog_ns // MICROSECOND)
    return environment


def _outer_watchdog_ns() -> int:
    value = os.environ.get("WATCHDOG_USEC", "")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return min(int(value), 1 << 50) * MICROSECOND if mine and value.isascii() and value.isdecimal() else 0


def _identity(address: str) -> tuple[int, int, int] | None:
    """Which socket is at a path; None when there is none, or it is an abstract one. Numbers of inodes come again."""
    try:
        found = os.stat(address)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
