"""A process with nothing but a prober beside it, for tests that break the one and look at the other.

`python -m tests.role.tender` reads a command a line on its standard input and writes what happens, a JSON document a
line, on its standard output. It adopts and kills what its probers leave, so it cannot be the test's own process.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hbagent.core.config import ProberConfig
from hbagent.core.effects import Effect, KillProber, Recall, StartProber
from hbagent.role.driver import Driver
from hbagent.role.probehalf import ProbeHalf
from hbagent.role.sdnotify import Notifier


def say(what: str, **fields: Any) -> None:
    """One thing that happened."""
    os.write(1, msgspec.json.encode({"what": what, **fields}, enc_hook=str) + b"\n")


class Tender:
    """The core, and the port of the commands."""

    source = 0

    def __init__(self) -> None:
        self.driver = Driver(self, {}, Notifier({}), self.tell, select.poll())
        self.half = ProbeHalf(self.driver, ProberConfig(), "demo/rack1/node1", self.tell)
        self._rest = b""

    def tell(self, level: str, what: str, fields: Mapping[str, object]) -> None:
        """A log line."""
        say("log", level=level, line=what, fields=dict(fields))

    def receive(self, sender: str, message: Any, now: int) -> Iterable[Effect]:
        say(type(message).__name__, message=message)
        return ()

    def wake(self, now: int) -> Iterable[Effect]:
        return ()

    def deadline(self) -> int | None:
        return None

    def drain(self) -> int:
        """Obey."""
        data = os.read(0, 65_536)
        if not data:
            self.driver.stop()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.obey(msgspec.json.decode(line))
        return len(lines)

    def obey(self, order: dict[str, Any]) -> None:
        """One command."""
        word = order["do"]
        if word == "configure":
            config = msgspec.convert(order["config"], ProberConfig)
            self.half.reconfigure(config, order.get("wanted", True))
        elif word == "start":
            self.half.start(StartProber())
        elif word == "kill":
            self.half.kill(KillProber())
        elif word == "recall":
            self.half.recall(Recall(order["number"]))
        elif word == "python":
            sys.executable = order["path"]
        elif word == "close":
            self.half.close()
            say("closed")
        say("obeyed", do=word, pid=self.half.pid)


if __name__ == "__main__":
    tender = Tender()
    tender.driver.add(tender)
    tender.driver.run()
