"""The daemon's side of the sd_notify protocol: one datagram each, to the socket that systemd names.

Without `NOTIFY_SOCKET` every call does nothing, so a daemon started by hand behaves the same. Format: sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

from hbagent.core.units import MICROSECOND


class Notifier:
    """Tells systemd how this daemon is. Never raises and never blocks."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        #: How often systemd hears of us: a quarter of its limit, so that a pause of three quarters of it, whenever it
        #: begins, is not the end; 0 for never.
        self.watchdog_ns = _watchdog_ns(environment) // 4

    def ready(self, status: str) -> None:
        """Sockets are bound and the config is valid."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def alive(self) -> None:
        """The loop has just gone round."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_one_line(text)}")

    def reloading(self) -> None:
        """A new config is being read; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon is leaving on purpose."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode("utf-8", "replace"), self._address)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")[:500]


def _watchdog_ns(environment: Mapping[str, str]) -> int:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    try:
        return max(0, int(environment.get("WATCHDOG_USEC", "0"))) * MICROSECOND
    except ValueError:
        return 0
