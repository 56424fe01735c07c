"""Does something answer at a TCP port or a unix socket?

A connection that is taken proves little: the kernel takes it as long as the queue of the listener has room, also for
a program that is stopped or deadlocked. That is told apart here from a program that answers: with `expect` the text
says that the kernel took the connection and nobody answered, and a unix socket whose queue is full says so.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from hbagent.core.checks import TcpCheck, UnixCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health

from .outcome import Deadline, clean, failed, finished

#: Bytes of an answer that are searched: a greeting or a status page is less.
ANSWER_MAX = 64 * 1024
#: A full queue of a unix socket refuses at once; it is tried again this often until time is up.
QUEUE_RETRY_S = 0.05


class Unresolved(Exception):
    """The host's name has no address, as far as this host can tell."""


def tcp(check: TcpCheck, timeout_ns: int, memory: dict[str, Any]) -> CheckFinished:
    """Connect, send, expect."""
    deadline = Deadline(timeout_ns)
    place = f"{check.host}:{check.port}"
    try:
        link = dial(check.host, check.port, deadline)
    except Unresolved as error:
        return finished(Health.UNKNOWN, str(error))
    except OSError as error:
        return failed(error, f"cannot connect to {place}")
    with link:
        return _talk(link, check.send, check.expect, deadline, place)


def unix(check: UnixCheck, timeout_ns: int, memory: dict[str, Any]) -> CheckFinished:
    """Connect to a stream socket, send, expect. A path that begins with @ is a name in the abstract namespace."""
    deadline = Deadline(timeout_ns)
    address = f"\0{check.path[1:]}" if check.path.startswith("@") else check.path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        while True:
            link.settimeout(deadline.left_s(f"nobody takes connections at {check.path}: its queue stayed full"))
            try:
                link.connect(address)
                break
            except BlockingIOError:
                time.sleep(QUEUE_RETRY_S)
            except TimeoutError:
                raise deadline.over(f"no connection to {check.path}") from None
            except OSError as error:
                return failed(error, f"cannot connect to {check.path}")
        return _talk(link, check.send, check.expect, deadline, check.path)


def dial(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address of `host` that takes one; each gets its share of the time that is left.

    Raises Unresolved, OutOfTime, or the OSError of the last address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "not a host name"
        raise Unresolved(f"cannot resolve {host}: {text}") from error
    refusal: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = deadline.left_s(f"no connection to {host}:{port}")
        try:
            link = socket.socket(family, kind, protocol)
        except OSError as error:  # no IPv6 on this host
            refusal = refusal or error
            continue
        link.settimeout(left / (len(found) - number))
        try:
            link.connect(address)
            return link
        except OSError as error:
            link.close()
            refusal = error
    if refusal is None:
        raise Unresolved(f"cannot resolve {host}: no address")
    if isinstance(refusal, TimeoutError) and refusal.errno is None:
        raise deadline.over(f"no connection to {host}:{port}")
    raise refusal


def _talk(link: socket.socket, send: str, expect: str, deadline: Deadline, place: str) -> CheckFinished:
    connected_s = deadline.elapsed_s()
    measures = [Measure(label="connect", value=round(connected_s, 6), unit="s", least=0)]
    try:
        if send:
            link.settimeout(deadline.left_s(f"{place} took the connection, and not what was sent to it"))
            try:
                link.sendall(send.encode())
            except TimeoutError:
                raise deadline.over(f"{place} took the connection, and not what was sent to it") from None
        if not expect:
            return finished(Health.OK, f"{place} took the connection in {connected_s * 1000:.3g} ms", measures)
        heard, ended = listen(link, expect.encode(), deadline, place)
    except OSError as error:
        if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
            raise
        return finished(Health.CRITICAL, f"{place} broke the connection off", measures)
    answered_s = deadline.elapsed_s()
    measures.append(Measure(label="time", value=round(answered_s, 6), unit="s", least=0))
    if expect.encode() in heard:
        return finished(Health.OK, f"{place} answered in {answered_s * 1000:.3g} ms: {_show(heard)}", measures)
    end = "and closed" if ended else f"in its first {ANSWER_MAX // 1024} KiB"
    said = f"said {_show(heard)!r}" if heard else "said nothing"
    return finished(Health.CRITICAL, f"{place} {said} {end}; expected {clean(expect, 80)!r}", measures)


def listen(link: socket.socket, expect: bytes, deadline: Deadline, place: str) -> tuple[bytes, bool]:
    """What came until `expect` was in it, it was too much, or the other side closed (True). Raises OutOfTime."""
    heard = bytearray()
    while len(heard) < ANSWER_MAX:
        waiting = f"{place}: the kernel took the connection, and the program did not answer"
        if heard:
            waiting = f"{place} said only {_show(bytes(heard))!r}"
        link.settimeout(deadline.left_s(waiting))
        try:
            chunk = link.recv(8192)
        except TimeoutError:
            raise deadline.over(waiting) from None
        if not chunk:
            return bytes(heard), True
        # The expected text may lie across two chunks.
        searched = max(0, len(heard) - len(expect))
        heard += chunk
        if heard.find(expect, searched) >= 0:
            break
    return bytes(heard), False


def _show(heard: bytes) -> str:
    return clean(heard[:400].decode(errors="replace"), 80)
