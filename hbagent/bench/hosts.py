"""Hosts that can be cut off: each process of a datacenter in a network namespace of its own, all on one switch.

Think of a rack in miniature. Every host has one cable to a bridge, and the bridge has a namespace too, so that the
machine itself is not touched. What goes wrong goes wrong at the switch: what is dropped there is dropped without a
sound, as by a host that lost its power or by a cut cable, and the sender's kernel is told of no error.

A namespace lives as long as the process that holds it, and that one ends when its standard input closes. So nothing
is left behind, also when whoever made it is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from hbagent.demo.datacenter import Datacenter, Plan

#: Programs that this needs (packages util-linux, iproute2, nftables).
PROGRAMS = ("ip", "nft", "nsenter", "unshare")
#: An address nobody meets: it exists within the namespaces only.
_PREFIX = "10.77.0"
#: The last byte of an address, with room for what has a meaning of its own.
_HOSTS = 250
#: Against hanging: these commands take 5 ms.
_COMMAND_SECONDS = 10.0
_WAYS = ("iifname", "oifname")
#: In /proc/net/tcp.
_ESTABLISHED = "01"
_End = tuple[str, int]


def missing() -> str:
    """Why there can be no such hosts here; "" when there can."""
    if os.geteuid() != 0:
        return "network namespaces need the rights of root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


class Switch:
    """A bridge, a namespace for each host, and what is dropped between them. Use it in a `with`.

    A fault has a name, so that it can be taken back alone. Raises OSError or subprocess.SubprocessError when the
    kernel refuses.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        if len(hosts) > _HOSTS:
            raise ValueError(f"at most {_HOSTS} hosts, not {len(hosts)}")
        self._numbers = {host: number for number, host in enumerate(hosts, 1)}
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._faults: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        try:
            self._holders[""] = _hold()
            self._ip("", "link add br0 type bridge", "link set br0 up")
            for host in hosts:
                self._plug_in(host)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Switch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all namespaces back."""
        for holder in self._holders.values():
            holder.kill()
            holder.communicate()
        self._holders.clear()

    def address_of(self, host: str) -> str:
        """The address of a host."""
        return f"{_PREFIX}.{self._numbers[host]}"

    def enter(self, host: str) -> list[str]:
        """What to put before a command that is to run on a host; "" is the switch."""
        return ["nsenter", f"--net=/proc/{self._holders[host].pid}/ns/net", "--"]

    # ---- what goes wrong ---------------------------------------------------------------------------------

    def isolate(self, *hosts: str) -> None:
        """Drop all that these send and all that is sent to them, without any reset."""
        self._add({f"isolate {host}": tuple(f"{way} {self._port(host)} drop" for way in _WAYS) for host in hosts})

    def cut(self, sender: str, receiver: str) -> None:
        """Drop what one host sends another, in this direction only."""
        rule = f"iifname {self._port(sender)} oifname {self._port(receiver)} drop"
        self._add({f"cut {sender} {receiver}": (rule,)})

    def lose(self, percent: int, *hosts: str) -> None:
        """Drop so many of a hundred packets from and to these hosts, at random."""
        lottery = f"numgen random mod 100 < {percent} drop"
        self._add({f"lose {host}": tuple(f"{way} {self._port(host)} {lottery}" for way in _WAYS) for host in hosts})

    def mute(self, host: str, matching: str) -> None:
        """Drop what matches, from and to a host, as a firewall does: `matching` is in the words of nft."""
        self._add({f"mute {host}": tuple(f"{way} {self._port(host)} {matching} drop" for way in _WAYS)})

    def heal(self, *hosts: str) -> None:
        """Take back what goes wrong with these hosts, or with all."""
        with self._lock:
            for fault in list(self._faults):
                if not hosts or set(fault.split()[1:]) & set(hosts):
                    del self._faults[fault]
            self._write()

    def pull(self, host: str) -> None:
        """Pull a host's cable: the host itself sees that the link is down."""
        self._ip("", f"link set {self._port(host)} down")

    def plug(self, host: str) -> None:
        """Put a pulled cable back."""
        self._ip("", f"link set {self._port(host)} up")

    def lose_power(self, host: str) -> None:
        """Take a host away with its connections and its memory of them. Kill its processes first, isolated."""
        self._ip("", f"link del {self._port(host)}")
        holder = self._holders.pop(host)
        holder.kill()
        holder.communicate()

    def power_up(self, host: str) -> None:
        """Boot a host that lost its power: the same address, and a kernel that knows of nothing."""
        self._plug_in(host)
        self.heal(host)

    def _add(self, faults: dict[str, tuple[str, ...]]) -> None:
        with self._lock:
            self._faults.update(faults)
            self._write()

    def _write(self) -> None:
        """Replace all rules at once. The table is made before it is deleted, for it may not be there."""
        rules = "\n".join(rule for rules in self._faults.values() for rule in rules)
        table = f"table bridge faults {{\nchain forward {{\ntype filter hook forward priority 0\n{rules}\n}}\n}}\n"
        self._run("", ["nft", "-f", "-"], f"table bridge faults\ndelete table bridge faults\n{table}")

    def _port(self, host: str) -> str:
        return f"port{self._numbers[host]}"

    # ---- making them -------------------------------------------------------------------------------------

    def _plug_in(self, host: str) -> None:
        holder = self._holders[host] = _hold()
        port, number = self._port(host), self._numbers[host]
        # The address of the card is the same in each life, or the others would go on sending to the old one.
        mac = f"02:00:00:00:00:{number:02x}"
        self._ip(
            "",
            f"link add {port} type veth peer name eth0 address {mac} netns {holder.pid}",
            f"link set {port} master br0 up",
        )
        self._ip(host, "link set lo up", "link set eth0 up", f"address add {self.address_of(host)}/24 dev eth0")

    def _ip(self, host: str, *lines: str) -> None:
        self._run(host, ["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def _run(self, host: str, command: Sequence[str], text: str) -> None:
        done = subprocess.run(
            [*self.enter(host), *command], input=text, text=True, capture_output=True, timeout=_COMMAND_SECONDS
        )
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()} in:\n{text}")


def _hold() -> subprocess.Popen[bytes]:
    """A process that keeps a new network namespace until its standard input closes."""
    holder = subprocess.Popen(
        ["unshare", "--net", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert holder.stdin is not None and holder.stdout is not None
    # It answers once it is there.
    holder.stdin.write(b"\n")
    if holder.stdout.read(1) != b"\n":
        holder.kill()
        holder.communicate()
        raise OSError("no network namespace can be made here")
    return holder


class Apart(Datacenter):
    """A datacenter each of whose processes has a host of its own."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        super().__init__(directory, plan)
        self.switch = Switch(self.names)

    def address_of(self, name: str) -> str:
        return self.switch.address_of(name)

    def command(self, name: str) -> list[str]:
        return [*self.switch.enter(name), *super().command(name)]

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            super().__exit__()
        finally:
            self.switch.close()

    @contextlib.contextmanager
    def isolated(self, *names: str) -> Iterator[None]:
        """These hosts are not reached and reach nobody meanwhile."""
        self.switch.isolate(*names)
        try:
            yield
        finally:
            self.switch.heal(*names)

    @contextlib.contextmanager
    def paused(self, *names: str) -> Iterator[None]:
        """These hosts stand still as a paused virtual machine does, kernel and all."""
        self.switch.isolate(*names)
        for name in names:
            self.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self.signal(name, signal.SIGCONT)
            self.switch.heal(*names)

    def lose_power(self, *names: str) -> None:
        """These hosts are gone, with all that their kernels knew."""
        self.switch.isolate(*names)
        for name in names:
            self.kill(name)
            self.switch.lose_power(name)

    def power_up(self, *names: str) -> None:
        """Boot hosts that lost their power, and start what ran there."""
        for name in names:
            self.switch.power_up(name)
        self.start(names)

    def connections(self, name: str, *peers: str) -> int:
        """How many established TCP connections the kernel of a host has with these hosts."""
        addresses = {self.address_of(peer) for peer in peers}
        return sum(remote[0] in addresses for _, remote in self._established(name))

    def connected(self, name: str, other: str) -> int:
        """How many connections between two hosts are established for both of their kernels."""
        theirs = {(remote, local) for local, remote in self._established(other)}
        return sum(ends in theirs for ends in self._established(name))

    def _established(self, name: str) -> Iterator[tuple[_End, _End]]:
        """Both ends of each established TCP connection of a host, its own first."""
        for line in Path(f"/proc/{self.processes[name].pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state = line.split()[:4]
            if state == _ESTABLISHED:
                yield _end(local), _end(remote)


def _end(text: str) -> _End:
    """Address and port of "0100007F:1F90"."""
    address, _, port = text.partition(":")
    return ".".join(map(str, int(address, 16).to_bytes(4, sys.byteorder))), int(port, 16)
