"""Asking at echo ports: the other end of `transport.echo`, many questions at once and none of them waited for.

Each question has a socket of its own that is connected, so that only an answer from there is heard, and so that the
kernel tells when nobody listens there. What comes back is not verified here, whoever asked has the key; but a
datagram that does not carry the nonce of the question is no answer to it and is not taken for one.

The loop turns it: register `fileno()`, call `ready` when it is readable and `wake` at `deadline`.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable

import msgspec

from hbagent.core.echo import ANSWER_MAGIC, FRAME_SIZE, NONCE_SIZE
from hbagent.core.effects import ASK_NS, Ask
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND

#: Questions at once, a descriptor each: over a thousand a second when none is answered. A process has 1,024
#: descriptors where nobody has raised that, and needs most of them for connections.
QUESTIONS_MAX = 256

#: Datagrams read of one question in a turn: whoever floods it does not hold the loop up.
_DATAGRAMS_PER_TURN = 16

#: Whoever looks so late stood still, perhaps with the host: an answer may not have been taken in yet.
_STOOD_STILL_NS = 50 * MILLISECOND

_NONCE = slice(4, 4 + NONCE_SIZE)
#: The kernel will not, or cannot, send it.
_UNSENT = frozenset(
    (
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
        errno.ENOBUFS,
        errno.ENOMEM,
    )
)

Done = Callable[[Ask, Outcome, bytes], None]


class _Question(msgspec.Struct):
    ask: Ask
    socket: socket.socket
    until: int
    #: TCP: connected, and the request sent.
    sent: bool = False
    #: TCP: what has come back so far.
    data: bytes = b""
    extended: bool = False


class Asker:
    """Asks, and tells `done` what came of each question, exactly once, unless it is closed before.

    `done` may be called before `ask` returns, and must not ask anything itself.
    """

    def __init__(self, done: Done) -> None:
        self._done = done
        self._questions: dict[int, _Question] = {}
        self._poller = select.epoll()

    def fileno(self) -> int:
        """The one descriptor that becomes readable when there is something to do."""
        return self._poller.fileno()

    def ask(self, ask: Ask, now: int) -> None:
        """Send one request. Never waits, never raises for what a network or an address is like."""
        if len(self._questions) >= QUESTIONS_MAX:
            self._done(ask, Outcome.UNSENT, b"")
            return
        try:
            made, address = _open(ask)
        except (OSError, UnicodeError):
            self._done(ask, Outcome.UNSENT, b"")
            return
        number = made.fileno()
        self._questions[number] = question = _Question(ask, made, now + ASK_NS)
        # Registered for reading alone, writing would be readiness at once; and closed is reported always.
        tcp = ask.path is Path.TCP
        self._poller.register(number, select.EPOLLOUT if tcp else select.EPOLLIN)
        problem = made.connect_ex(address)
        if tcp and problem == errno.EINPROGRESS:
            # On this host it is decided by now: no turn of the loop is waited for.
            problem = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self._failed(number, problem)
        elif not tcp:
            try:
                made.send(ask.request)
            except OSError as error:
                self._failed(number, error.errno or 0)
                return
            self._receive(number, question)

    def deadline(self) -> int | None:
        """When `wake` must be called; None when nothing is asked."""
        return min((question.until for question in self._questions.values()), default=None)

    def ready(self, now: int) -> None:
        """Take in what has come. Never waits."""
        for number, _ in self._poller.poll(0, QUESTIONS_MAX):
            question = self._questions[number]
            if question.ask.path is Path.TCP and not question.sent:
                self._send(number, question)
            else:
                self._receive(number, question)

    def wake(self, now: int) -> None:
        """Give up what was not answered in time, after a last look. Never waits."""
        self.ready(now)
        for number, question in [*self._questions.items()]:
            if now > question.until + _STOOD_STILL_NS and not question.extended:
                question.until = now + _STOOD_STILL_NS
                question.extended = True
            elif now >= question.until:
                self._end(number, Outcome.SILENT)

    def close(self) -> None:
        """Close everything; what is still open is never told."""
        for question in self._questions.values():
            question.socket.close()
        self._questions.clear()
        self._poller.close()

    def _send(self, number: int, question: _Question) -> None:
        problem = question.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self._failed(number, problem)
            return
        try:
            # 48 bytes into the empty buffer of a new connection: taken whole.
            question.socket.send(question.ask.request)
        except OSError as error:
            self._failed(number, error.errno or 0)
            return
        question.sent = True
        self._poller.modify(number, select.EPOLLIN)

    def _receive(self, number: int, question: _Question) -> None:
        tcp = question.ask.path is Path.TCP
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                # One byte more than an answer, so that a longer datagram is seen to be one.
                data = question.socket.recv(FRAME_SIZE - len(question.data) if tcp else FRAME_SIZE + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(number, error.errno or 0)
                return
            if tcp and not data:
                self._end(number, Outcome.CLOSED)
                return
            question.data = question.data + data if tcp else data
            if len(question.data) == FRAME_SIZE and (tcp or _answers(data, question.ask.request)):
                self._end(number, Outcome.ANSWERED, question.data)
                return

    def _failed(self, number: int, problem: int) -> None:
        question = self._questions[number]
        if question.sent:
            self._end(number, Outcome.CLOSED)
        elif problem == errno.ECONNREFUSED:
            self._end(number, Outcome.REFUSED)
        elif problem in _UNSENT:
            self._end(number, Outcome.UNSENT)
        else:
            # Reset as soon as it was connected; or the kernel has waited long enough.
            tcp_reset = problem in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
            self._end(number, Outcome.CLOSED if tcp_reset else Outcome.SILENT)

    def _end(self, number: int, outcome: Outcome, data: bytes = b"") -> None:
        question = self._questions.pop(number)
        self._poller.unregister(number)
        question.socket.close()
        self._done(question.ask, outcome, data)


def _open(ask: Ask) -> tuple[socket.socket, tuple[object, ...]]:
    """A socket and where to connect it. Raises OSError, UnicodeError."""
    kind = socket.SOCK_STREAM if ask.path is Path.TCP else socket.SOCK_DGRAM
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    # Given as text it would be encoded by idna, whose tables are a megabyte of an agent's 26.
    host = ask.address.encode("ascii")
    family, _, _, _, address = socket.getaddrinfo(host, ask.port, 0, kind, 0, numeric)[0]
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC), address


def _answers(data: bytes, request: bytes) -> bool:
    return data[:4] == ANSWER_MAGIC and data[_NONCE] == request[_NONCE]
