"""What the tests of the roles share: a small core, a place for log lines, a systemd that listens."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hbagent.core.effects import Effect
from hbagent.role.driver import Driver
from hbagent.role.sdnotify import Notifier

#: For what must happen: a machine that stalls for a second now and then has not failed, and one that is well waits for
#: none of it.
BOUND_S = 20.0


def until(condition: Callable[[], object], bound_s: float = BOUND_S) -> bool:
    """Wait for a condition; False when it does not come true within the bound."""
    end = time.monotonic() + bound_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(0.005)
    return True


def own_address() -> str:
    """A loopback address that no other process of the tests has: a port of it that is free stays free."""
    return f"127.{os.getpid() >> 16 & 63 | 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


class Lines:
    """Log lines as they are told: (level, what, fields)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, level: str, what: str, fields: Mapping[str, Any]) -> None:
        self.told.append((level, what, dict(fields)))

    def of(self, what: str) -> list[dict[str, Any]]:
        """The fields of the lines with this word."""
        return [fields for _, word, fields in self.told if word == what]


class SmallCore:
    """A core that remembers what it was told, and does what the test says."""

    def __init__(self) -> None:
        self.story: list[tuple[str, object]] = []
        self.due: int | None = None
        self.woken_at: list[int] = []
        self.on_receive: Callable[[str, object], Iterable[Effect]] = lambda sender, message: ()
        self.on_wake: Callable[[], Iterable[Effect]] = lambda: ()

    def receive(self, sender: str, message: object, now: int) -> Iterable[Effect]:
        self.story.append((sender, message))
        return self.on_receive(sender, message)

    def wake(self, now: int) -> Iterable[Effect]:
        self.story.append(("", "wake"))
        self.woken_at.append(now)
        self.due = None
        return self.on_wake()

    def deadline(self) -> int | None:
        return self.due

    def messages(self, kind: type) -> list[Any]:
        """What it received of one type."""
        return [message for _, message in self.story if isinstance(message, kind)]


class PipePort:
    """A port that reads a pipe, so many bytes in one draining."""

    def __init__(self, taken: Callable[[bytes], None], at_once: int = 1) -> None:
        self.source, self._write_fd = os.pipe2(os.O_NONBLOCK)
        self._taken = taken
        self._at_once = at_once

    def write(self, data: bytes) -> None:
        os.write(self._write_fd, data)

    def drain(self) -> int:
        data = os.read(self.source, self._at_once)
        self._taken(data)
        return len(data)

    def close(self) -> None:
        os.close(self.source)
        os.close(self._write_fd)


class Turning:
    """A driver that runs in a thread of its own, in a `with`; what `run` raised is in `error`."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Turning:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.driver.mailbox.post(lambda: self.driver.give_up("the test is over"))
        self._thread.join(BOUND_S)
        assert not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.driver.run()
        except BaseException as error:
            self.error = error


class Systemd:
    """The other end of `NOTIFY_SOCKET`."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": address}
        self._notifiers: list[Notifier] = []

    @classmethod
    def at(cls, directory: Path) -> Systemd:
        return cls(str(directory / "notify.sock"))

    def notifier(self, watchdog_us: int = 0) -> Notifier:
        extra = {"WATCHDOG_USEC": str(watchdog_us)} if watchdog_us else {}
        self._notifiers.append(Notifier({**self.environment, **extra}))
        return self._notifiers[-1]

    def heard(self) -> list[str]:
        """The datagrams since the last look."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()
        for notifier in self._notifiers:
            notifier.close()
