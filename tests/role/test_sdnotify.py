"""What systemd hears of a daemon, on a real datagram socket."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from hbagent.core.units import MILLISECOND
from hbagent.role.sdnotify import Notifier
from tests.descriptors import descriptors
from tests.role.parts import Systemd


def test_each_word_is_one_datagram(systemd: Systemd) -> None:
    notifier = systemd.notifier()
    notifier.ready("4 of 4 nodes alive")
    notifier.alive()
    notifier.status("two\nlines")
    notifier.stopping()
    assert systemd.heard() == [
        "READY=1\nSTATUS=4 of 4 nodes alive",
        "WATCHDOG=1",
        "STATUS=two lines",
        "STOPPING=1",
    ]


def test_a_reload_is_told_with_the_monotonic_clock(systemd: Systemd) -> None:
    notifier = systemd.notifier()
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    (text,) = systemd.heard()
    first, second = text.splitlines()
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_an_abstract_socket_is_spoken_to_as_well() -> None:
    systemd = Systemd(f"@hbagent-test-{os.getpid()}")
    systemd.notifier().alive()
    assert systemd.heard() == ["WATCHDOG=1"]
    systemd.close()


def test_without_systemd_nothing_is_said_and_nothing_is_opened() -> None:
    before = descriptors()
    notifier = Notifier({})
    notifier.ready("x")
    notifier.alive()
    assert notifier.watchdog_ns == 0
    assert descriptors() <= before


def test_a_status_is_cut_and_may_hold_anything(systemd: Systemd) -> None:
    notifier = systemd.notifier()
    notifier.status("x" * 10_000)
    notifier.status("\udcff")
    long, odd = systemd.heard()
    assert len(long) <= 510
    assert odd == "STATUS=?"


def test_a_systemd_that_does_not_read_or_went_away_holds_nobody_up(systemd: Systemd) -> None:
    notifier = systemd.notifier()
    # More than any kernel keeps: who waited for room would wait for ever.
    for _ in range(5_000):
        notifier.alive()
    assert 0 < len(systemd.heard()) < 5_000
    systemd.close()
    notifier.alive()
    notifier.close()
    notifier.close()
    notifier.alive()


@pytest.mark.parametrize(
    ("environment", "fed_ms"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 2_500),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "own"}, 2_500),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "-5"}, 0),
        ({}, 0),
    ],
)
def test_the_watchdog_is_this_processs_and_fed_four_times_in_its_limit(
    environment: dict[str, str], fed_ms: int
) -> None:
    own = {name: str(os.getpid()) if value == "own" else value for name, value in environment.items()}
    assert Notifier(own).watchdog_ns == fed_ms * MILLISECOND


def test_the_socket_is_not_inherited_by_hooks(socket_dir: Path, systemd: Systemd) -> None:
    notifier = systemd.notifier()
    held = notifier._socket
    assert isinstance(held, socket.socket)
    assert not held.get_inheritable()
