"""Does a web server answer as it should?

One request, no redirect followed: where it points to is told, and is another probe's affair. Of the body only so much
is read as is asked for or announced, up to 64 KiB: a server that sends its headers and then hangs is found, and a
stream that never ends is not waited for. No proxy is used, whatever the environment says.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import socket
import ssl
import time
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from hbagent.core.checks import HttpCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health

from . import certificate
from .connection import Unresolved, dial
from .outcome import Deadline, clean, failed, finished, reason

#: Bytes of a body that are read and searched.
BODY_MAX = 64 * 1024
DAY_S = 86400
PORTS = {"http": 80, "https": 443}


def look(check: HttpCheck, timeout_ns: int, memory: dict[str, Any]) -> CheckFinished:
    """Ask once."""
    deadline = Deadline(timeout_ns)
    url = urlsplit(check.url)
    if url.scheme not in PORTS or not url.hostname:
        return finished(Health.UNKNOWN, f"{check.url}: not an http or https address")
    port = url.port or PORTS[url.scheme]
    place = f"{url.hostname}:{port}"
    try:
        link = dial(url.hostname, port, deadline)
    except Unresolved as error:
        return finished(Health.UNKNOWN, str(error))
    except OSError as error:
        return failed(error, f"cannot connect to {place}")
    with link:
        try:
            context = _context(check) if url.scheme == "https" else None
        except OSError as error:
            return finished(Health.UNKNOWN, f"cannot read certificates of {check.ca}: {reason(error)}")
        measures = [_seconds("connect", deadline)]
        try:
            return _ask(check, context, _Timed(link, deadline, place), measures)
        except ssl.SSLCertVerificationError as error:
            return finished(Health.CRITICAL, f"{place}: certificate: {error.verify_message}", measures)
        except ssl.SSLError as error:
            return finished(Health.CRITICAL, f"{place}: TLS: {error.reason or error}", measures)
        except http.client.InvalidURL:
            raise
        except http.client.RemoteDisconnected:
            return finished(Health.CRITICAL, f"{place} took the request and closed without an answer", measures)
        except http.client.HTTPException as error:
            return finished(Health.CRITICAL, f"{place} speaks no HTTP: {type(error).__name__}: {error}", measures)
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, None):
                raise
            return finished(Health.CRITICAL, f"{place} broke the connection off", measures)


def _context(check: HttpCheck) -> ssl.SSLContext:
    trusted = check.ca or ssl.get_default_verify_paths().cafile
    return _trusting(check.verify, check.ca, os.stat(trusted).st_mtime_ns if check.verify and trusted else 0)


# Reading the system's certificates takes 35 ms of a processor and 3 MiB, which a hand that goes on has spent already;
# when the file was written, so that a new one is read.
@lru_cache(maxsize=4)
def _trusting(verify: bool, ca: str, written_ns: int) -> ssl.SSLContext:
    if verify:
        return ssl.create_default_context(cafile=ca or None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Timed:
    """A connection all of whose waiting together ends at the deadline; as much of a socket as `http.client` uses."""

    def __init__(self, link: socket.socket, deadline: Deadline, place: str) -> None:
        self.link = link
        self.deadline = deadline
        self.place = place
        self.heard = 0

    def _arm(self) -> str:
        what = "stopped in the middle of its answer" if self.heard else "took the connection and did not answer"
        waiting = f"{self.place} {what}"
        self.link.settimeout(self.deadline.left_s(waiting))
        return waiting

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Speak TLS from here on."""
        waiting = self._arm()
        try:
            self.link = context.wrap_socket(self.link, server_hostname=name)
        except TimeoutError:
            raise self.deadline.over(waiting) from None

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        waiting = self._arm()
        try:
            self.link.sendall(data)
        except TimeoutError:
            raise self.deadline.over(waiting) from None

    def makefile(self, mode: str) -> io.BufferedReader:
        """What comes, as a file."""
        return io.BufferedReader(_Incoming(self))

    def receive_into(self, buffer: memoryview) -> int:
        """Read some bytes, 0 at the end."""
        waiting = self._arm()
        try:
            count = self.link.recv_into(buffer)
        except TimeoutError:
            raise self.deadline.over(waiting) from None
        self.heard += count
        return count

    def close(self) -> None:
        """Leave it open: who made it closes it."""


class _Incoming(io.RawIOBase):
    def __init__(self, link: _Timed) -> None:
        self._link = link

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._link.receive_into(memoryview(buffer).cast("B"))


def _ask(check: HttpCheck, context: ssl.SSLContext | None, link: _Timed, measures: list[Measure]) -> CheckFinished:
    url = urlsplit(check.url)
    name = cast(str, url.hostname)
    ending = None
    try:
        if context:
            link.secure(context, name)
            measures.append(_seconds("tls", link.deadline))
            if check.certificate_days:
                ending = _ending(cast(ssl.SSLSocket, link.link), check.certificate_days, measures)
        connection = http.client.HTTPConnection(name, url.port)
        if context:
            connection.default_port = PORTS["https"]
            connection.port = url.port or PORTS["https"]
        connection.sock = cast(socket.socket, link)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"User-Agent": "hbagent", "Accept": "*/*", "Connection": "close", **check.headers}
        connection.request(check.method, target, headers=headers)
        response = connection.getresponse()
        measures.append(_seconds("first_byte", link.deadline))
        body, missing = _body(response, check.expect.encode())
    finally:
        # wrap_socket() detaches the plain socket, which the caller would close.
        link.link.close()
    measures.append(_seconds("time", link.deadline))
    measures.append(Measure(label="size", value=len(body), unit="B", least=0))
    status = f"{response.status} {response.reason}"
    took = f"in {link.deadline.elapsed_s() * 1000:.3g} ms"
    if response.status not in check.status and (check.status or not 200 <= response.status < 400):
        return finished(Health.CRITICAL, f"{status} {took}", measures)
    if missing:
        return finished(Health.CRITICAL, f"{status}, and {missing} bytes of its body are missing", measures)
    if check.expect.encode() not in body:
        return finished(Health.CRITICAL, f"{status} {took} without {clean(check.expect, 80)!r}", measures)
    if ending:
        return ending
    where = response.getheader("Location") if 300 <= response.status < 400 else None
    return finished(Health.OK, f"{status} {took}" + (f", to {where}" if where else ""), measures)


def _body(response: http.client.HTTPResponse, expect: bytes) -> tuple[bytes, int]:
    """As much of the body as is wanted, and how many bytes of what was announced did not come."""
    announced = response.length
    body = bytearray()
    if announced is None and not expect:
        return b"", 0
    wanted = BODY_MAX if announced is None else min(announced, BODY_MAX)
    while len(body) < wanted and not (expect and expect in body):
        chunk = response.read1(min(8192, wanted - len(body)))
        if not chunk:
            return bytes(body), max(0, (announced or 0) - len(body))
        body += chunk
    return bytes(body), 0


def _ending(link: ssl.SSLSocket, days: int, measures: list[Measure]) -> CheckFinished | None:
    """A WARNING when the certificate ends within so many days, CRITICAL when it has ended."""
    left = (certificate.ends(link.getpeercert(binary_form=True) or b"") - time.time()) / DAY_S
    measures.append(Measure(label="certificate", value=round(left, 2), unit="d", warning=f"{days}:", critical="0:"))
    if left <= 0:
        return finished(Health.CRITICAL, f"the certificate ended {-left:.3g} days ago", measures)
    if left <= days:
        return finished(Health.WARNING, f"the certificate ends in {left:.3g} days", measures)
    return None


def _seconds(label: str, deadline: Deadline) -> Measure:
    return Measure(label=label, value=round(deadline.elapsed_s(), 6), unit="s", least=0)
