"""Doors and callers that are closed after the test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import pytest

from hbagent.transport.allow import AllowList, Role
from hbagent.transport.keys import KeyPair
from hbagent.transport.monitor import Link, LinkEvent, Monitor
from hbagent.transport.sockets import Context, Socket
from tests.transport.doors import ANY_PORT, CallersContext, Domains, Door, OpenDoor, Watch, new_keys


@pytest.fixture
def open_door() -> Iterator[OpenDoor]:
    """Opens doors that are closed after the test."""
    doors: list[Door] = []

    def open_one(
        allow: AllowList,
        *,
        plain: bool = False,
        domains: Domains | None = None,
        keys: KeyPair | None = None,
        endpoint: str = ANY_PORT,
    ) -> Door:
        keys = None if plain else keys or new_keys("t/leader")
        doors.append(Door(allow, keys=keys, domains=domains or {"agents": Role.AGENT}, endpoint=endpoint))
        return doors[-1]

    yield open_one
    for door in doors:
        if not door.context.closed:
            door.close()


@pytest.fixture
def context() -> Iterator[Context]:
    """The callers' context; every socket in it is closed after the test."""
    made = CallersContext()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def watch(context: Context) -> Iterator[Watch]:
    """Starts monitors, stopped after the test and before the sockets are closed."""
    monitors: list[Monitor] = []

    def start(
        sockets: Mapping[str, Socket],
        callback: Callable[[Link], None],
        events: Collection[LinkEvent] = tuple(LinkEvent),
    ) -> Monitor:
        monitors.append(Monitor(sockets, callback, events))
        return monitors[-1]

    yield start
    for monitor in monitors:
        monitor.stop()
