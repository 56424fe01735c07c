"""The privileged helper: what the agent may not read, a process without network reads for it.

The agent talks to the network and has no capability. What only CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH let one see,
such as the system calls and lock words of another user's process, is read by a helper that talks to nobody but through
one unix socket: systemd starts one for each request and ends it after. It believes the kernel about who asks, takes
one line, answers one document, and stops no process: it has no right to set right again what went wrong.

Both sides are here, so that they agree: `serve` and `ask_helper`. A request is one line of JSON, an answer is JSON up
to the end of the connection.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from hbagent.core.states import Stall

#: A process id, a start time, the names of an application and of what found it stuck.
REQUEST_MAX = 4096
#: A document before it is cut to a bundle of 64 KiB.
ANSWER_MAX = 1 << 20
#: Both ends are on this host; whoever takes longer is not the agent.
REQUEST_S = 2.0
#: Whose members' requests are served beside root's: a group, for the agent may run as a user that exists only while it
#: runs.
GROUP = "hbagent-diagnose"
#: Groups of one process. Python reads no more of a socket's option than this many, and no daemon has as many.
GROUPS_MAX = 256
#: Of socket(7), in asm-generic/socket.h: the supplementary groups of the peer.
_SO_PEERGROUPS = 59
#: systemd gives the connection as standard input, or as the first file after the three.
_FIRST_PASSED = 3


class HelperError(Exception):
    """The helper gave no answer; the text is for people."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Examine a process."""

    pid: int
    #: Field 22 of its `stat`, so that nobody else is looked at; 0: not known.
    start: int = 0
    #: A probe or mark says that nothing moves.
    stuck: bool = False
    app: str = ""
    #: Which probe or mark.
    why: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    document: dict[str, Any] | None = None
    error: str = ""


class _Core(msgspec.Struct):
    """What every document holds."""

    pid: int
    verdict: Stall
    text: str
    details: list[str]
    pause_ns: int
    left_out: list[str]


class Sender(msgspec.Struct, frozen=True):
    """Who connected, by the kernel's word."""

    user: int
    #: Of the moment in which it connected.
    groups: frozenset[int]


def served_groups(name: str = GROUP) -> tuple[int, ...]:
    """Group ids whose members are served beside root and ourselves: that of the agent's unit, where there is one."""
    try:
        return (grp.getgrnam(name).gr_gid,)
    except KeyError:
        return (int(name),) if name.isdecimal() else ()


# ---- the helper ------------------------------------------------------------------------------------------


def passed_connection() -> socket.socket:
    """The connection that systemd (`Accept=yes`), inetd or a caller handed over. Raises HelperError."""
    fd = _FIRST_PASSED if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise HelperError("there is no connection on standard input: systemd starts this for each request")
    link = socket.socket(fileno=os.dup(fd))
    if link.family != socket.AF_UNIX or link.type != socket.SOCK_STREAM:
        raise HelperError("the connection is not that of a unix stream socket")
    return link


def serve(link: socket.socket, groups: Collection[int], investigate: Callable[[Request], dict[str, Any]]) -> str:
    """Answer the one request of a connection; what was refused, for the log, or "".

    Served are root, ourselves, and the members of `groups`.
    """
    link.settimeout(REQUEST_S)
    refusal = ""
    try:
        sender = sender_of(link)
        if sender.user not in (0, os.geteuid()) and sender.groups.isdisjoint(groups):
            refusal = f"user {sender.user} may not ask"
            reply = Reply(error=refusal)
        else:
            reply = Reply(document=investigate(read_request(link)))
    except (HelperError, OSError) as error:
        refusal = str(error)
        reply = Reply(error=refusal)
    try:
        link.settimeout(REQUEST_S)
        link.sendall(msgspec.json.encode(reply))
        link.shutdown(socket.SHUT_WR)
    except OSError as error:
        refusal = refusal or f"nobody takes the answer: {error.strerror or error}"
    return refusal


def sender_of(link: socket.socket) -> Sender:
    """The process that connected, by the kernel's word. Raises HelperError, OSError."""
    _, uid, gid = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        raw = link.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, GROUPS_MAX * struct.calcsize("I"))
    except OSError as error:
        if error.errno == errno.ERANGE:
            raise HelperError(f"a process of more than {GROUPS_MAX} groups may not ask") from None
        raise
    return Sender(int(uid), frozenset((int(gid), *struct.unpack(f"{len(raw) // struct.calcsize('I')}I", raw))))


def read_request(link: socket.socket) -> Request:
    """The one line of a request. Raises HelperError for anything else and when none comes in time, OSError."""
    deadline = time.monotonic() + REQUEST_S
    data = b""
    while b"\n" not in data:
        left_s = deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            link.settimeout(left_s)
            more = link.recv(REQUEST_MAX + 1 - len(data))
        except TimeoutError:
            raise HelperError("no request came in time") from None
        data += more
        if not more or len(data) > REQUEST_MAX:
            raise HelperError(f"a request is one line of at most {REQUEST_MAX} bytes")
    try:
        request = msgspec.json.decode(data, type=Request)
    except msgspec.DecodeError as error:
        raise HelperError(f"not a request: {error}") from None
    # Of init and of threads of the kernel there is nothing to tell that could be stuck.
    if not 1 < request.pid < 1 << 31 or request.start < 0:
        raise HelperError(f"no process {request.pid}")
    return request


# ---- who asks --------------------------------------------------------------------------------------------


def ask_helper(path: str, request: Request, seconds: float) -> dict[str, Any]:
    """The document about a process from the helper behind the socket `path`. Raises HelperError."""
    deadline = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(seconds)
            link.connect(path)
            # One that refuses us may have answered and gone before it read a word.
            with contextlib.suppress(BrokenPipeError):
                link.sendall(msgspec.json.encode(request) + b"\n")
            answer = bytearray()
            while len(answer) <= ANSWER_MAX:
                link.settimeout(max(0.001, deadline - time.monotonic()))
                try:
                    data = link.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return _document(bytes(answer))
                answer += data
    except TimeoutError:
        raise HelperError(f"no answer from {path} within {seconds:.0f} s") from None
    except OSError as error:
        raise HelperError(f"{path}: {error.strerror or error}") from None
    raise HelperError(f"an answer of more than {ANSWER_MAX} bytes")


def _document(answer: bytes) -> dict[str, Any]:
    try:
        reply = msgspec.json.decode(answer, type=Reply)
        if reply.document is None:
            raise HelperError(reply.error or "it answered nothing")
        msgspec.convert(reply.document, _Core)
    except msgspec.MsgspecError as error:
        raise HelperError(f"its answer makes no sense: {error}") from None
    return reply.document
