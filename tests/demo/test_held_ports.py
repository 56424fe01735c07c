"""The ports of a datacenter are its own from its first moment to its last, also while nobody listens there."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest
import zmq

from hbagent.demo.datacenter import Datacenter, Plan, held_ports
from tests.descriptors import descriptors


def test_who_calls_a_held_port_is_refused() -> None:
    with held_ports(1) as (port,), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_held_port_is_given_to_nobody_who_wants_any() -> None:
    with held_ports(50) as held, held_ports(500) as others:
        assert not set(held) & set(others)
        with socket.socket() as anybody, pytest.raises(OSError, match="in use"):
            anybody.bind(("127.0.0.1", held[0]))


def test_a_daemon_may_listen_at_a_held_port_as_often_as_it_likes() -> None:
    with held_ports(1) as (port,):
        for _ in range(2):
            with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
                router.bind(f"tcp://127.0.0.1:{port}")


def test_a_datacenter_holds_its_ports_until_it_ends_or_is_forgotten(tmp_path: Path) -> None:
    before = descriptors()
    with Datacenter(tmp_path, Plan(page=True)) as made:
        port = int(made.page.rsplit(":", 1)[1].strip("/"))
        with socket.socket() as anybody, pytest.raises(OSError, match="in use"):
            anybody.bind(("127.0.0.1", port))
    assert descriptors() <= before
    forgotten = Datacenter(tmp_path, Plan())
    assert not descriptors() <= before
    del forgotten
    gc.collect()
    assert descriptors() <= before
