"""The packet filter's example lets a fleet through and nobody else, tried in network namespaces of their own."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.hosts.lab import wait_until

RULES = Path(__file__).parents[2] / "deploy" / "nftables.conf"
SERVER, CLIENT = "hbnft-s", "hbnft-c"
#: By family: the server, a client of the fleet, and one from elsewhere.
ADDRESSES = {4: ("10.9.0.1", "10.9.0.2", "192.0.2.2"), 6: ("fd09::1", "fd09::2", "2001:db8::2")}
BEATS, CONTROL, ECHO, OTHER = 5701, 5702, 5703, 9999
CLONE_NEWNET = 0x40000000
#: As the file has it.
OPEN_MAX, NEW_BURST = 64, 60

Some = TypeVar("Some")

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.needs("nft", "ip")]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inside(namespace: str, work: Callable[[], Some]) -> Some:
    """Do something in a namespace; sockets that it opens stay there."""

    def do() -> Some:
        with open(f"/run/netns/{namespace}") as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), namespace)
        return work()

    # A thread that entered a namespace ends with it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(do).result()


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def wire(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, str]]:
    """Two hosts on a wire, the rules at the first: its address, and two of the other, of which one is of the fleet."""
    family: int = request.param
    server, fleet, stranger = ADDRESSES[family]
    for name in (SERVER, CLIENT):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    try:
        for name in (SERVER, CLIENT):
            run("ip", "netns", "add", name)
            # Addresses count at once; nobody else is there to have one.
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", SERVER, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", CLIENT)
        length, nodad = ("24", ()) if family == 4 else ("64", ("nodad",))
        for name, addresses in ((SERVER, (server,)), (CLIENT, (fleet, stranger))):
            for address in addresses:
                run("ip", "-n", name, "addr", "add", f"{address}/{length}", "dev", "wire", *nodad)
            run("ip", "-n", name, "link", "set", "wire", "up")
        run("ip", "-n", SERVER, f"-{family}", "route", "add", stranger, "dev", "wire")
        run("ip", "netns", "exec", SERVER, "nft", "-f", RULES)
        yield server, fleet, stranger
    finally:
        for name in (SERVER, CLIENT):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Ends:
    """Sockets at both ends of the wire, all of which close with the test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def listen(self, address: str, port: int) -> None:
        """Have the server listen there."""

        def listening() -> socket.socket:
            return socket.create_server((address, port), family=family(address), backlog=4096)

        self._stack.enter_context(inside(SERVER, listening))

    def call(self, to: tuple[str, int], source: str, within_s: float = 15.0) -> socket.socket | None:
        """A connection of the client; None when there is none within the time."""

        def calling() -> socket.socket | None:
            with contextlib.suppress(TimeoutError):
                return socket.create_connection(to, timeout=within_s, source_address=(source, 0))
            return None

        opened = inside(CLIENT, calling)
        return self._stack.enter_context(opened) if opened is not None else None

    def flood(self, to: tuple[str, int], source: str, count: int, least: int) -> int:
        """Call so many times at once; how many were let in, a moment after it were as many as it must be."""
        calls = [self._stack.enter_context(self.port(CLIENT, source, 0, socket.SOCK_STREAM)) for _ in range(count)]
        for call in calls:
            call.setblocking(False)
            call.connect_ex(to)
        wait_until(lambda: sum(map(self._is_connected, calls)) >= least, 15)
        wait_until(lambda: False, 0.3)
        return sum(map(self._is_connected, calls))

    def port(self, namespace: str, address: str, number: int, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket that is bound there."""

        def bound() -> socket.socket:
            opened = socket.socket(family(address), kind)
            opened.bind((address, number))
            return opened

        return self._stack.enter_context(inside(namespace, bound))

    @staticmethod
    def _is_connected(call: socket.socket) -> bool:
        with contextlib.suppress(OSError):
            return bool(call.getpeername())
        return False


@pytest.fixture
def ends(wire: tuple[str, str, str]) -> Iterator[Ends]:
    server, *clients = wire
    with contextlib.ExitStack() as stack:
        made = Ends(stack)
        # That it is not the way that is missing: this port is nobody's affair.
        made.listen(server, OTHER)
        for client in clients:
            assert wait_until(lambda client=client: made.call((server, OTHER), client, 1.0), 30)  # type: ignore[misc]
        yield made


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def test_nft_takes_the_file() -> None:
    run("nft", "-c", "-f", RULES)


def test_it_can_be_loaded_again_and_leaves_other_tables_alone(wire: tuple[str, str, str]) -> None:
    at_server = ("ip", "netns", "exec", SERVER)
    run(*at_server, "nft", "add", "table", "inet", "other")
    run(*at_server, "nft", "-f", RULES)
    assert sorted(run(*at_server, "nft", "list", "tables").split()) == [
        "hbagent",
        "inet",
        "inet",
        "other",
        *["table"] * 2,
    ]


def test_an_agent_connects_and_a_stranger_does_not(wire: tuple[str, str, str], ends: Ends) -> None:
    server, fleet, stranger = wire
    for port in (BEATS, CONTROL):
        ends.listen(server, port)
    for port in (BEATS, CONTROL):
        assert ends.call((server, port), fleet)
        assert ends.call((server, port), stranger, 0.3) is None


def test_a_flood_from_one_source_ends_at_the_limit_and_leaves_others_alone(
    wire: tuple[str, str, str], ends: Ends
) -> None:
    server, fleet, stranger = wire
    admit = "fleet6" if ":" in server else "fleet4"
    run("ip", "netns", "exec", SERVER, "nft", "add", "element", "inet", "hbagent", admit, f"{{ {stranger} }}")
    for port in (BEATS, CONTROL):
        ends.listen(server, port)
    agent = ends.call((server, BEATS), fleet)
    # What comes again in the meantime is the rate's, which is 20 a second.
    assert NEW_BURST <= ends.flood((server, BEATS), stranger, 4 * NEW_BURST, NEW_BURST) <= OPEN_MAX
    assert agent is not None
    agent.sendall(b"beat")
    assert ends.call((server, CONTROL), fleet)


def test_a_source_has_so_many_connections_and_no_more(wire: tuple[str, str, str], ends: Ends) -> None:
    server, fleet, _ = wire
    # Without the rate, so that the number alone is seen.
    at_server = ("ip", "netns", "exec", SERVER)
    listed = run(*at_server, "nft", "-a", "list", "chain", "inet", "hbagent", "connection")
    for line in listed.splitlines():
        if "@new" in line:
            run(*at_server, "nft", "delete", "rule", "inet", "hbagent", "connection", "handle", line.split()[-1])
    ends.listen(server, BEATS)
    assert ends.flood((server, BEATS), fleet, 2 * OPEN_MAX, OPEN_MAX) == OPEN_MAX
    # Refused, not left to wait.
    with pytest.raises(ConnectionRefusedError):
        ends.call((server, BEATS), fleet)


def test_echo_requests_are_for_the_rack_alone(wire: tuple[str, str, str], ends: Ends) -> None:
    server, fleet, stranger = wire
    echo = ends.port(SERVER, server, ECHO)
    leader, other = ends.port(CLIENT, fleet, 0), ends.port(CLIENT, stranger, 0)
    echo.setblocking(False)
    other.sendto(b"stranger", (server, ECHO))
    leader.sendto(b"leader", (server, ECHO))
    assert wait_until(lambda: received(echo) == b"leader", 15)
    # Far more than any leader asks.
    for number in range(2000):
        leader.sendto(b"%d" % number, (server, ECHO))
    wait_until(lambda: False, 0.1)
    heard = len(list(iter(lambda: received(echo), b"")))
    assert 200 < heard < 1000


def received(port: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return port.recv(100)
    return b""
