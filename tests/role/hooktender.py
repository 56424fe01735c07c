"""A process with nothing but a queue of hook runs and a hook runner beside it, for tests that break the one and look
at the other.

`python -m tests.role.hooktender` reads a command a line on its standard input and writes what happens, a JSON document
a line, on its standard output. It adopts and kills what its runners leave, so it cannot be the test's own process. Its
loop is asked to go round each 5 ms; how late that ever was it tells as `lag_ms`.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hbagent.core.config import HookConfig
from hbagent.core.dispatch import Dispatch, revived
from hbagent.core.effects import Effect, RunHook
from hbagent.core.messages import HookFinished
from hbagent.core.records import HookRun, RunState
from hbagent.core.units import MILLISECOND
from hbagent.role.driver import Driver
from hbagent.role.hookhalf import HookHalf
from hbagent.role.sdnotify import Notifier

EVERY_NS = 5 * MILLISECOND
#: Before a failed run is tried again; as many as a root has, and shorter.
RETRIES_NS = (20 * MILLISECOND, 40 * MILLISECOND, 60 * MILLISECOND, 80 * MILLISECOND)


def say(what: str, **fields: Any) -> None:
    """One thing that happened."""
    os.write(1, msgspec.json.encode({"what": what, **fields}, enc_hook=str) + b"\n")


class Tender:
    """The core, and the port of the commands."""

    source = 0

    def __init__(self) -> None:
        self.driver: Driver = Driver(self, {RunHook: self.run}, Notifier({}), self.tell, select.poll())
        self.half = HookHalf(self.driver, "demo/root", self.tell)
        self.dispatch = Dispatch((), 4, RETRIES_NS, 1000)
        self.dead: dict[str, HookRun] = {}
        self._rest = b""
        self._due = time.monotonic_ns()
        self.lag_ns = 0

    def run(self, effect: RunHook) -> None:
        """One that is owed, and whose turn it is."""
        self.half.run(effect)

    def tell(self, level: str, what: str, fields: Mapping[str, object]) -> None:
        """A log line."""
        say("log", level=level, line=what, fields=dict(fields))

    def receive(self, sender: str, message: Any, now: int) -> Iterable[Effect]:
        if isinstance(message, HookFinished):
            output = message.output.decode(errors="replace")
            say("finished", **{**msgspec.structs.asdict(message), "output": output})
            run = self.dispatch.finished(message, now, time.time_ns())
            if run is not None:
                say("run", run=run)
            if run is not None and run.state is RunState.DEAD:
                self.dead[run.run_id] = run
        return self.dispatch.ready(now)

    def wake(self, now: int) -> Iterable[Effect]:
        self.lag_ns = max(self.lag_ns, now - self._due)
        self._due = now + EVERY_NS
        return self.dispatch.ready(now)

    def deadline(self) -> int | None:
        return self._due

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
        if word == "prepare":
            self.half.prepare()
        elif word == "run":
            self.half.run(msgspec.convert(order["order"], RunHook))
        elif word == "owe":
            hooks = tuple(HookConfig(name=name, argv=tuple(argv)) for name, argv in order["hooks"].items())
            self.dispatch.reconfigure(hooks, 4, RETRIES_NS, 1000)
            for run in order["runs"]:
                self.dispatch.add(msgspec.convert(run, HookRun), time.monotonic_ns())
        elif word == "retry":
            self.dispatch.add(revived(self.dead.pop(order["run_id"]), time.time_ns()), time.monotonic_ns())
        elif word == "python":
            sys.executable = order["path"]
        elif word == "forget-lag":
            self.lag_ns = 0
        elif word == "close":
            self.half.close()
            say("closed")
        say("obeyed", do=word, pid=self.half.pid, lag_ms=self.lag_ns / MILLISECOND)


if __name__ == "__main__":
    tender = Tender()
    tender.driver.add(tender)
    tender.driver.run()
