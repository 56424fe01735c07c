"""Alerts on their way to Alertmanager: HTTP, in a thread of its own for each address.

Whatever a member does (refuses, hangs, answers a byte a second, sends ten gigabytes, points elsewhere), the thread is
back within `POST_TIME_S` and says in one line what came of it. A member that hangs holds up itself alone.

The network is asked with the standard library, which is loaded with the first post only: a root without sinks needs
neither HTTP nor TLS. Certificates are checked as OpenSSL is set up on this host (`SSL_CERT_FILE` names another file).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from hbagent.core.effects import PostAlerts
from hbagent.core.labels import line
from hbagent.core.messages import Posted

#: One post, from the name to the last byte of the answer; an Alertmanager takes 500 alerts in 15 ms.
POST_TIME_S = 10.0
#: Of an answer so much is read: it is one sentence when something was wrong, and nothing else.
ANSWER_SIZE_MAX = 4096
#: So much of that sentence is told.
TOLD_MAX = 200
#: A thread without work for this long ends; what burns is repeated each minute.
REST_S = 300.0
PATH = "/api/v2/alerts"


class Poster:
    """Posts for each address one after the other. `done` is told what came of each, from the address's thread."""

    def __init__(self, done: Callable[[Posted], object], time_s: float = POST_TIME_S) -> None:
        self._done = done
        self._time_s = time_s
        self._lines: dict[str, _Line] = {}

    def post(self, effect: PostAlerts) -> None:
        """Post, and never wait for it. One that still waits for its turn gives way to a newer one."""
        found = self._lines.get(effect.url)
        if found is None:
            found = self._lines[effect.url] = _Line(effect.url, self._tell, self._time_s)
        replaced = found.put(effect)
        if replaced is not None:
            self._tell(replaced, "a newer one took its place")

    def stop(self) -> None:
        """Post nothing more. What is under way ends by itself."""
        for line_ in self._lines.values():
            line_.put(None)

    def _tell(self, effect: PostAlerts, error: str) -> None:
        self._done(Posted(sink=effect.sink, url=effect.url, token=effect.token, error=error))


class _Line:
    """One address, its thread while it has work now and then, and the place for one post that waits."""

    def __init__(self, url: str, tell: Callable[[PostAlerts, str], None], time_s: float) -> None:
        self._url = url
        self._tell = tell
        self._time_s = time_s
        self._something = threading.Condition()
        self._waiting: PostAlerts | None = None
        self._stopped = False
        self._running = False

    def put(self, effect: PostAlerts | None) -> PostAlerts | None:
        """Have `effect` posted next, or (None) end; returns the one that it replaced."""
        with self._something:
            replaced, self._waiting = self._waiting, effect
            self._stopped = effect is None
            self._something.notify()
            if effect is None or self._running:
                return replaced
            try:
                threading.Thread(target=self._run, name=f"post {self._url}"[:60], daemon=True).start()
            except RuntimeError as error:  # no more threads on this host
                self._waiting = None
                self._tell(effect, f"not posted: {error}")
            else:
                self._running = True
        return replaced

    def _run(self) -> None:
        while (effect := self._next()) is not None:
            try:
                error = post(self._url, effect.body, self._time_s)
            except Exception as caught:
                # A core waits for its answer for ever.
                error = line(f"a defect: {caught!r}")[:TOLD_MAX]
            self._tell(effect, error)

    def _next(self) -> PostAlerts | None:
        """What is to be posted next; None when the thread is to end."""
        with self._something:
            self._something.wait_for(lambda: self._waiting is not None or self._stopped, REST_S)
            effect, self._waiting = self._waiting, None
            self._running = effect is not None
            return effect


class _Watch:
    """Ends a post whose time is over, whatever it is doing, by closing the connection under it."""

    def __init__(self, time_s: float) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self.over = False
        self._timer = threading.Timer(time_s, self._end)
        self._timer.daemon = True
        self._timer.start()

    def guard(self, sock: socket.socket) -> None:
        """From now on end this one. Raises TimeoutError when the time is over already."""
        with self._lock:
            self._sock = sock
            if self.over:
                raise TimeoutError

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        """In the timer's thread: whoever reads or writes there meets the end."""
        with self._lock:
            self.over = True
            if self._sock is not None:
                with contextlib.suppress(OSError):
                    # Of a TLS connection too this is the one below it.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def post(url: str, body: bytes, time_s: float = POST_TIME_S) -> str:
    """Post `body` to the Alertmanager at `url`, within `time_s`; returns "" or why it was not taken.

    Only the look-up of a name can take longer, for that is the resolver's own time.
    """
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc)
    watch = _Watch(time_s)
    try:
        connection.sock = _connected(parts, time_s, watch)
        connection.request("POST", parts.path.rstrip("/") + PATH, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status == 200:
            return ""
        text = answer.read(ANSWER_SIZE_MAX).decode("utf-8", "replace")
        reason = "it points elsewhere, where nothing is posted" if 300 <= answer.status < 400 else text
        return line(f"HTTP {answer.status}: {reason}")[:TOLD_MAX]
    except (OSError, HTTPException, ValueError) as error:
        if watch.over or isinstance(error, TimeoutError):
            return f"no answer within {time_s:g} s"
        return line(str(error) or type(error).__name__)[:TOLD_MAX]
    finally:
        watch.cancel()
        connection.close()


def _connected(parts: SplitResult, time_s: float, watch: _Watch) -> socket.socket:
    """A connection, encrypted for https. Raises OSError."""
    secure = parts.scheme == "https"
    sock = socket.create_connection((parts.hostname or "", parts.port or (443 if secure else 80)), time_s)
    try:
        if secure:
            import ssl

            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=parts.hostname, do_handshake_on_connect=False)
        watch.guard(sock)
        if secure:
            sock.do_handshake()  # type: ignore[attr-defined]
    except BaseException:
        sock.close()
        raise
    return sock
