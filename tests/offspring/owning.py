"""What tests of hands share: an owner of hands in a process of its own, and ways to count what it leaves behind."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from hbagent.core.units import SECOND
from hbagent.offspring import reaper
from hbagent.offspring.hands import Hands, Outcome

FREEZER = Path("/sys/fs/cgroup/freezer")


def apart(function: Callable[[], Any]) -> Any:
    """What `function` returns, called in a fork of this process that is a subreaper, as the prober is.

    An owner ends all of its children that are no hands, so it must not be the process of the tests.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _apart(function, write)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        ready = select.select([file], [], [], 55)[0]
        if not ready:
            os.kill(pid, signal.SIGKILL)
        data = file.read()
    os.waitpid(pid, 0)
    assert data, "the owner died or hung"
    failed, result = msgspec.msgpack.decode(data)
    if failed:
        pytest.fail(result, pytrace=False)
    return result


def _apart(function: Callable[[], Any], write: int) -> NoReturn:
    try:
        reaper.become_subreaper()
        try:
            answer = [False, function()]
        except BaseException:
            answer = [True, traceback.format_exc()]
        os.write(write, msgspec.msgpack.encode(answer))
    finally:
        sys.stdout.flush()
        os._exit(0)


def turn(hands: Hands, seconds: float = 1.0) -> list[Outcome]:
    """Once around the owner's loop."""
    due = hands.deadline()
    left = seconds if due is None else (due - time.monotonic_ns()) / SECOND
    select.select([hands], [], [], min(seconds, max(0.0, left)))
    return hands.ready(time.monotonic_ns()) + hands.wake(time.monotonic_ns())


def outcomes(hands: Hands, count: int, seconds: float = 30.0) -> list[Outcome]:
    """The next `count` outcomes, by number; fewer when the time is over."""
    found: list[Outcome] = []
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        found += turn(hands)
    return sorted(found, key=lambda outcome: outcome.number)


def turn_until(hands: Hands, condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Turn the loop until the condition holds; fails when it does not within the time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        turn(hands, 0.02)


def new_tag() -> str:
    """A value that no other process has in its environment."""
    return uuid.uuid4().hex


def lonely_user() -> int:
    """A user id of which no other process of the tests is: what is counted of it does not change by itself."""
    return 100_000_000 + os.getpid()


def tagged(tag: str) -> list[int]:
    """Living processes that have the tag in their environment."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and tag.encode() in Path("/proc", name, "environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and not reaper.is_dead(pid)]


def gone(tag: str, seconds: float = 30.0) -> bool:
    """Whether nobody with this tag is left, soon."""
    until = time.monotonic() + seconds
    pause = threading.Event()
    while tagged(tag):
        if time.monotonic() > until:
            return False
        pause.wait(0.005)
    return True


@contextmanager
def freezer() -> Iterator[Path]:
    """A control group of version 1 whose processes do not even die of SIGKILL while it is FROZEN."""
    if not FREEZER.is_dir():
        pytest.skip("needs the freezer of control groups version 1")
    group = FREEZER / f"hbagent-{new_tag()}"
    group.mkdir()
    try:
        yield group
    finally:
        (group / "freezer.state").write_text("THAWED")
        until = time.monotonic() + 30
        pause = threading.Event()
        while True:
            try:
                group.rmdir()
                break
            except OSError:
                assert time.monotonic() < until, f"{group} is still in use"
                pause.wait(0.01)
