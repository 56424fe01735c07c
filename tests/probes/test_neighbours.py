"""Other hosts' services as the kernel sees them: tables it wrote, and real connections in a network of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.checks import NeighboursCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import SECOND
from hbagent.probes import neighbours
from hbagent.probes.neighbours import REMEMBERED_MAX, address, parse

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(
    local: str = "0100000A:C350",
    remote: str = "0500000A:1538",
    state: int = 1,
    unsent: int = 0,
    timer: int = 0,
    again: int = 0,
) -> str:
    """One connection as the kernel writes it: 10.0.0.1:50000 to 10.0.0.5:5432."""
    times = f"{timer:02X}:00000014 {again:08X}"
    return (
        f"   0: {local} {remote} {state:02X} {unsent:08X}:00000000 {times}     0        0 4242 1 0000000000000000 20\n"
    )


class Host:
    """A /proc with these connections, looked at again and again."""

    def __init__(self, directory: Path, **fields: Any) -> None:
        (directory / "net").mkdir()
        self.proc = directory
        self.check = NeighboursCheck(**fields)
        self.memory: dict[str, Any] = {}

    def look(self, *lines: str, later_s: int = 0) -> CheckFinished:
        (self.proc / "net" / "tcp").write_text(HEAD + "".join(lines))
        for seen in self.memory.get("since", {}).values():
            seen[0] -= later_s * SECOND
        result = neighbours.look(self.check, 20 * SECOND, self.memory, str(self.proc))
        self.memory = result.memory
        return result


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        (line(state=2, unsent=1, timer=1, again=2), "10.0.0.5:5432 does not take connections from this host"),
        (line(unsent=100, timer=1, again=3), "10.0.0.5:5432 acknowledges nothing to this host"),
        (line(unsent=100, timer=4), "10.0.0.5:5432 does not read what it gets from this host"),
    ],
)
def test_a_sign_counts_when_it_has_stood_for_a_window(tmp_path: Path, connection: str, words: str) -> None:
    host = Host(tmp_path)
    assert host.look(connection).health is Health.OK
    assert host.look(connection, later_s=9).health is Health.OK
    result = host.look(connection, later_s=2)
    assert result.health is Health.WARNING
    assert words in result.text and "(1 connection)" in result.text
    assert host.look(line()).health is Health.OK
    assert host.look(connection).health is Health.OK


@pytest.mark.parametrize(
    "connection",
    [
        line(),
        line(unsent=100, timer=1, again=0),
        line(unsent=100, timer=1, again=1),
        line(state=2, timer=1, again=0),
        # A TIME_WAIT, and a keepalive that is waited for.
        line(state=6, timer=3),
        line(timer=2),
        # To this host itself.
        line(remote="0100007F:1538", state=2, timer=1, again=5),
    ],
)
def test_what_healthy_connections_show_is_no_sign(tmp_path: Path, connection: str) -> None:
    host = Host(tmp_path)
    host.look(connection)
    assert host.look(connection, later_s=60).health is Health.OK
    assert host.memory == {"since": {}}


def test_a_reader_that_reads_a_little_between_two_looks_is_not_stuck(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.look(line(unsent=100, timer=4))
    assert host.look(line(unsent=90, timer=4), later_s=60).health is Health.OK
    assert host.look(line(unsent=90, timer=4), later_s=60).health is Health.WARNING


def test_who_gives_up_and_tries_again_from_another_port_is_seen(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for port in ("C350", "C351", "C352"):
        result = host.look(line(local=f"0100000A:{port}", state=2, timer=1, again=1), later_s=6)
    assert result.health is Health.WARNING


def test_clients_of_this_host_are_no_services(tmp_path: Path) -> None:
    listening = line(local="00000000:C350", remote="00000000:0000", state=10)
    host = Host(tmp_path)
    host.look(listening, line(unsent=100, timer=4))
    assert host.look(listening, line(unsent=100, timer=4), later_s=60).health is Health.OK


def test_how_many_and_which_are_configured(tmp_path: Path) -> None:
    many = [line(local=f"0100000A:C35{number}", unsent=100, timer=4) for number in range(3)]
    (tmp_path / "a").mkdir()
    host = Host(tmp_path / "a", least=3)
    host.look(*many)
    assert host.look(*many[:2], later_s=60).health is Health.OK
    host.look(*many)
    result = host.look(*many, later_s=60)
    assert result.health is Health.WARNING and "(3 connections)" in result.text
    assert result.measures[-1].label == "10.0.0.5:5432" and result.measures[-1].value == 3
    (tmp_path / "b").mkdir()
    other = Host(tmp_path / "b", only=("10.0.0.6:5432",))
    other.look(*many)
    assert other.look(*many, later_s=60).health is Health.OK


def test_what_is_remembered_has_a_bound(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.look(*(line(local=f"0100000A:{port:04X}", unsent=100, timer=4) for port in range(2 * REMEMBERED_MAX)))
    assert len(host.memory["since"]) == REMEMBERED_MAX


@pytest.mark.skipif(sys.byteorder != "little", reason="the addresses are in the byte order of the host")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"0500000A:1538", "10.0.0.5:5432"),
        (b"000000FD000000000000000005000000:0050", "[fd00::5]:80"),
        (b"0000000000000000FFFF00000500000A:0050", "10.0.0.5:80"),
    ],
)
def test_addresses_are_shown_as_people_write_them(text: bytes, shown: str) -> None:
    assert address(text) == shown


@given(st.binary(max_size=200))
def test_any_bytes_are_connections_or_a_value_error(data: bytes) -> None:
    try:
        list(parse(HEAD.encode() + data))
    except ValueError:
        return


REAL = """
import socket, sys, threading, time
from hbagent.core.checks import NeighboursCheck
from hbagent.core.units import SECOND
from hbagent.probes import neighbours

# Its port is served here as well, so the far side of the check is the side that connects.
listener = socket.create_server(("10.99.0.1", 0), backlog=1)
stuck = socket.create_connection(listener.getsockname())
stuck.setblocking(False)
try:
    while True:
        stuck.send(b"x" * 65536)
except BlockingIOError:
    pass
lost = socket.socket()
lost.setblocking(False)
lost.connect_ex(("10.99.1.2", 5432))
check, memory, end = NeighboursCheck(window_ns=SECOND), {}, time.monotonic() + 40
while time.monotonic() < end:
    result = neighbours.look(check, 20 * SECOND, memory)
    memory = result.memory
    if result.text.count("connection)") == 2:
        break
    time.sleep(0.2)
print(result.health.value, result.text)
"""


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("unshare", "ip")
def test_a_service_that_does_not_read_and_a_host_that_is_gone_are_seen_for_real() -> None:
    setup = "ip link set lo up && ip address add 10.99.0.1/32 dev lo && ip link add gone type veth peer name away && "
    setup += "ip link set gone up && ip link set away up && ip address add 10.99.1.1/24 dev gone && "
    setup += 'ip neighbour add 10.99.1.2 lladdr 02:00:00:00:00:01 dev gone && exec "$@"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", setup, "sh", sys.executable, "-c", REAL],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("WARNING for 1.0s: ")
    assert "10.99.1.2:5432 does not take connections from this host (1 connection)" in done.stdout
    assert " does not read what it gets from this host (1 connection)" in done.stdout
