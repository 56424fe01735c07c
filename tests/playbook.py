"""A core's behaviour as a conversation: what it is told (`>>`), and what it then orders, one line an effect (`<<`).

    assert (
        Playbook(core)
        >> (LEADER, transitions(transition(1)))     # from an authenticated peer
        << "node-joined node1 UNKNOWN>ALIVE"
        << "persist 1: node-joined node1; mark 1"
        >> Kept(1)                                  # from the driver itself
        << f"ack {LEADER} 1"
        >> 2.5                                      # seconds pass; the core is woken whenever it wants
    )

Every effect has to be expected, in its order, but for those whose first word is in `quiet`. What differs is shown as
a diff of the two conversations.
"""

from __future__ import annotations

import difflib
from typing import Any, Protocol

import msgspec

from hbagent.core.effects import (
    Answer,
    Effect,
    Effects,
    Exit,
    Fetch,
    Happened,
    Keep,
    Note,
    Persist,
    Publish,
    PublishBeat,
    Rewrite,
    RunHook,
    Send,
    StartProber,
    Witness,
)
from hbagent.core.messages import RackSummary, Transitions, TransitionsAck
from hbagent.core.names import short_of
from hbagent.core.records import Batch
from hbagent.core.units import SECOND, seconds

#: A core that is woken more often than this in one second turns in place.
WAKES_MAX = 400


class Core(Protocol):
    """What every core has."""

    def receive(self, sender: str, message: object, now: int) -> Effects: ...

    def wake(self, now: int) -> Effects: ...

    def deadline(self) -> int | None: ...


class Playbook:
    """One conversation with one core."""

    def __init__(self, core: Any, now: int = 0, quiet: tuple[str, ...] = ()) -> None:
        self.core: Core = core
        self.now = now
        self.effects: list[Effect] = []
        self._quiet = quiet
        self._said: list[str] = []
        self._expected: list[str] = []

    def __rshift__(self, step: object) -> Playbook:
        if isinstance(step, (int, float)):
            self._head(f">> {step} s")
            self.wait(seconds(step))
        elif isinstance(step, tuple):
            sender, message = step
            self._head(f">> {type(message).__name__} from {sender}")
            self.take(self.core.receive(sender, message, self.now))
        else:
            self._head(f">> {type(step).__name__}")
            self.take(self.core.receive("", step, self.now))
        return self

    def __lshift__(self, line: str) -> Playbook:
        self._add(self._expected, line)
        return self

    def __bool__(self) -> bool:
        if self._said != self._expected:
            diff = difflib.unified_diff(self._expected, self._said, "expected", "said", lineterm="", n=20)
            raise AssertionError("\n" + "\n".join(diff))
        return True

    def _head(self, line: str) -> None:
        self._said.append(line)
        self._expected.append(line)

    def take(self, effects: Effects) -> None:
        """Note what a call of the core returned."""
        for effect in effects:
            self.effects.append(effect)
            self._add(self._said, show(effect))

    def _add(self, lines: list[str], line: str) -> None:
        if line.split(" ", 1)[0] not in self._quiet:
            lines.append(f"    << {line}")

    def wait(self, length_ns: int) -> None:
        """Let the time pass."""
        end = self.now + length_ns
        for _ in range(WAKES_MAX * (1 + length_ns // SECOND)):
            deadline = self.core.deadline()
            if deadline is None or deadline > end:
                self.now = end
                return
            self.now = max(self.now, deadline)
            self.take(self.core.wake(self.now))
        raise AssertionError("the core turns in place")

    def newest(self, kind: type) -> Any:
        """The newest effect of a kind."""
        return next(effect for effect in reversed(self.effects) if isinstance(effect, kind))


def show(effect: Effect) -> str:
    """One effect in one line."""
    shown = _SHOWN.get(type(effect))
    return shown(effect) if shown is not None else str(effect)


def _send(effect: Send) -> str:
    message = effect.message
    if isinstance(message, TransitionsAck):
        return f"ack {effect.peer} {message.number}"
    if isinstance(message, Transitions):
        return f"tell {effect.peer} {','.join(str(item.number) for item in message.items)}"
    if isinstance(message, RackSummary):
        return f"summary {message.number} to {effect.peer}"
    return f"send {effect.peer} {type(message).__name__}"


def _persist(effect: Persist) -> str:
    batch: Batch = effect.batch
    words = [f"{e.kind.value} {short_of(e.node or e.leader)}{' (late)' if e.late else ''}" for e in batch.events]
    words += [f"mark {mark.number}" for mark in batch.marks]
    words += [f"{run.state.value} {run.hook}" for run in batch.runs]
    words += [f"forget {short_of(node)}" for node in batch.forgotten]
    return f"persist {effect.token}: {'; '.join(words)}"


def _happened(effect: Happened) -> str:
    cause = f" {effect.cause.value}" if effect.cause is not None else ""
    change = f" {effect.before}>{effect.after}" if effect.after else ""
    return f"{effect.kind.value} {short_of(effect.node)}{change}{cause}"


def _run(effect: RunHook) -> str:
    document = msgspec.json.decode(effect.input)
    return f"run {effect.hook} {document.get('kind')} {short_of(str(document.get('node') or document.get('leader')))}"


def _publish(effect: Publish) -> str:
    message = effect.message
    return f"summary {message.number}" if isinstance(message, RackSummary) else type(message).__name__.lower()


_SHOWN: dict[type, Any] = {
    Answer: lambda effect: f"answer {effect.id} {effect.error}".rstrip(),
    Exit: lambda effect: "exit",
    Fetch: lambda effect: f"fetch {effect.id}",
    Happened: _happened,
    Keep: lambda effect: f"keep {effect.token}",
    Note: lambda effect: f"note {effect.what}",
    Persist: _persist,
    Publish: _publish,
    PublishBeat: lambda effect: f"beat {effect.beat.sequence}{' leaving' if effect.beat.leaving else ''}",
    Rewrite: lambda effect: f"rewrite {effect.token}",
    RunHook: _run,
    Send: _send,
    StartProber: lambda effect: "start-prober",
    Witness: lambda effect: f"witness {effect.peer}",
}
