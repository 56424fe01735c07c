"""Who is who in a datacenter, read from the groups of an inventory.

Think of it as the one place that gives names, addresses and ports: whatever a config file says of another host comes
from here. It needs nothing of Ansible, and refuses an inventory with every sentence that is to be said about it.

A server (a leader, the root) has two pairs of ports. The generation of its key, counted by the rotations that ended,
says which pair is in use; the other is that of its next key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

LEADERS_MAX = 3
LEADER_PORTS = ((5701, 5702), (5721, 5722))
ROOT_PORTS = ((5711, 5712), (5731, 5732))
#: How far the rotation of a key has come: its next key is accepted beside it, or is the one that others call.
PHASES = ("", "offered", "used")
_RACK = "rack_"
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def topology(
    groups: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    datacenter: str,
    generations: Mapping[str, Any] | None = None,
    leader_ports: Any = LEADER_PORTS,
    root_ports: Any = ROOT_PORTS,
) -> dict[str, Any]:
    """Everything that follows from the inventory. Raises ValueError with a sentence for each mistake."""
    reader = _Reader(groups, hostvars, str(datacenter or ""), generations or {}, leader_ports, root_ports)
    found = reader.read()
    if reader.problems:
        raise ValueError(" ".join(reader.problems))
    return found


def topology_problems(*args: Any) -> list[str]:
    """A sentence for each mistake of an inventory; takes what `topology` takes."""
    try:
        topology(*args)
    except ValueError as error:
        return [str(error)]
    return []


def hosts_of(groups: Mapping[str, Any]) -> list[str]:
    """The hosts that are hbagent's: those of the group hbagent, or all when there is no such group."""
    return [str(host) for host in groups.get("hbagent", groups.get("all", ()))]


def generation_of(entry: Any) -> tuple[int, str]:
    """Generation and phase of a name in the file of generations."""
    if isinstance(entry, Mapping):
        number, phase = entry.get("generation", 0), entry.get("phase", "")
    else:
        number, phase = entry, ""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0 or phase not in PHASES:
        raise ValueError(f"{entry!r} is no generation: it is a number, or has generation and phase (offered or used)")
    return int(number), str(phase)


def bracketed(address: str) -> str:
    """An address as it stands in an endpoint."""
    return f"[{address}]" if ":" in address else address


class _Reader:
    def __init__(
        self,
        groups: Mapping[str, Any],
        hostvars: Mapping[str, Any],
        datacenter: str,
        generations: Mapping[str, Any],
        leader_ports: Any,
        root_ports: Any,
    ) -> None:
        self.problems: list[str] = []
        self._hostvars = hostvars
        self._datacenter = datacenter
        self._generations = generations
        self._ports = {"leader": leader_ports, "root": root_ports}
        self._hosts = hosts_of(groups)
        members = set(self._hosts)
        self._roots = [str(host) for host in groups.get("hbagent_root", ())]
        self._leaders = [str(host) for host in groups.get("hbagent_leaders", ())]
        self._racks = {
            str(group)[len(_RACK) :]: [str(host) for host in hosts]
            for group, hosts in sorted(groups.items())
            if str(group).startswith(_RACK) and len(hosts)
        }
        for group, hosts in (("hbagent_root", self._roots), ("hbagent_leaders", self._leaders)):
            self._outside(group, hosts, members)
        for rack, hosts in self._racks.items():
            self._outside(_RACK + rack, hosts, members)

    def _outside(self, group: str, hosts: list[str], members: set[str]) -> None:
        for host in hosts:
            if host not in members:
                self._say(f"Host {host} is in {group} and not in the group hbagent.")

    def _say(self, sentence: str) -> None:
        self.problems.append(sentence)

    def read(self) -> dict[str, Any]:
        self._check_names()
        rack_of = self._rack_of()
        leads = self._leads(rack_of)
        addresses = {host: self._address(host) for host in self._hosts}
        self._check_counts(leads)
        if self.problems:
            return {}
        return self._build(rack_of, leads, addresses)

    def _check_names(self) -> None:
        if not _PART.fullmatch(self._datacenter):
            self._say(f"hbagent_datacenter is {self._datacenter!r}: {_WORD}.")
        for rack in self._racks:
            if not _PART.fullmatch(rack):
                self._say(f"The group {_RACK}{rack} would make a rack named {rack!r}: {_WORD}.")
        for host in self._hosts:
            if not _PART.fullmatch(host):
                self._say(f"The host {host!r} cannot be a node's name: {_WORD}.")

    def _rack_of(self) -> dict[str, str]:
        """The rack of each host."""
        found: dict[str, str] = {}
        for host in self._hosts:
            mine = [rack for rack, hosts in self._racks.items() if host in hosts]
            if len(mine) == 1:
                found[host] = mine[0]
            elif mine:
                names = " and ".join(_RACK + rack for rack in mine)
                self._say(f"Host {host} is in {names}: a host stands in one rack.")
            elif host in self._leaders:
                self._say(f"Host {host} is in hbagent_leaders and in no group rack_NAME: a leader stands in a rack.")
            else:
                also = "in hbagent_root and " if host in self._roots else ""
                self._say(f"Host {host} is {also}in no group rack_NAME: put it into the group of its rack.")
        return found

    def _leads(self, rack_of: dict[str, str]) -> dict[str, list[str]]:
        """The racks that each leader leads: its own, unless hbagent_leads says others."""
        found: dict[str, list[str]] = {}
        for host in self._leaders:
            wanted = self._variable(host, "hbagent_leads")
            if wanted is None:
                found[host] = [rack_of[host]] if host in rack_of else []
                continue
            names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]
            for name in names:
                if name not in self._racks:
                    self._say(f"hbagent_leads of {host} names the rack {name}, and there is no group {_RACK}{name}.")
            if not names:
                self._say(f"Host {host} is in hbagent_leaders, and its hbagent_leads is empty.")
            found[host] = list(dict.fromkeys(names))
        return found

    def _check_counts(self, leads: dict[str, list[str]]) -> None:
        if not self._hosts:
            self._say("The inventory has no hosts.")
        if len(self._roots) != 1:
            have = " and ".join(self._roots) if self._roots else "no host"
            self._say(f"The group hbagent_root has {have}: it has exactly one host.")
        for rack in self._racks:
            mine = [host for host, racks in leads.items() if rack in racks]
            if not mine:
                hosts = ", ".join(self._racks[rack])
                self._say(f"The group {_RACK}{rack} ({hosts}) has no host of hbagent_leaders: a rack has 1 to 3.")
            elif len(mine) > LEADERS_MAX:
                self._say(
                    f"The group {_RACK}{rack} has {len(mine)} hosts of hbagent_leaders ({', '.join(mine)}): "
                    f"a rack has 1 to {LEADERS_MAX}."
                )
        for host, racks in leads.items():
            peers = [other for other, theirs in leads.items() if other != host and set(theirs) & set(racks)]
            if len(peers) >= LEADERS_MAX:
                self._say(
                    f"The leader {host} shares its racks with {', '.join(peers)}: with {LEADERS_MAX - 1} at most."
                )

    def _variable(self, host: str, name: str) -> Any:
        variables = self._hostvars.get(host, {})
        return variables.get(name)

    def _address(self, host: str) -> str:
        address = str(self._variable(host, "hbagent_address") or self._variable(host, "ansible_host") or host)
        address = address.removeprefix("[").removesuffix("]")
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            if _HOST_NAME.fullmatch(address):
                return address
            self._say(f"The address of {host} is {address!r}: it is neither an IP address nor a host's name.")
            return address
        if parsed.is_unspecified or parsed.is_multicast or "%" in address:
            self._say(f"The address of {host} is {address}: other hosts cannot connect to that.")
        return str(parsed)

    def _build(self, rack_of: dict[str, str], leads: dict[str, list[str]], addresses: dict[str, str]) -> dict[str, Any]:
        dc = self._datacenter
        root = self._roots[0]
        leader_name = {host: f"{dc}/{rack_of[host]}-{host}" for host in self._leaders}
        root_name = f"{dc}/root"
        racks = {
            f"{dc}/{rack}": {
                "nodes": list(hosts),
                "leaders": [leader_name[host] for host in self._leaders if rack in leads[host]],
            }
            for rack, hosts in self._racks.items()
        }
        self._check_clashes(racks, leader_name, root_name)
        servers = {name: self._server("leader", name, host, addresses) for host, name in leader_name.items()}
        servers[root_name] = self._server("root", root_name, root, addresses)
        hosts = {}
        for host in self._hosts:
            rack = f"{dc}/{rack_of[host]}"
            names = {"agent": f"{rack}/{host}"}
            if host in leader_name:
                names["leader"] = leader_name[host]
            if host == root:
                names["root"] = root_name
            hosts[host] = {
                "address": addresses[host],
                "rack": rack,
                "leads": [f"{dc}/{name}" for name in leads.get(host, ())],
                "daemons": list(names),
                "names": names,
            }
        return {
            "datacenter": dc,
            "hosts": hosts,
            "racks": racks,
            "root": {"name": root_name, "host": root},
            "servers": servers,
            # Whoever listens for one of those listens for all.
            "ipv6": any(":" in address for address in addresses.values()),
            "names": sorted(name for host in hosts.values() for name in host["names"].values()),
        }

    def _check_clashes(self, racks: Mapping[str, Any], leader_name: Mapping[str, str], root_name: str) -> None:
        owner: dict[str, str] = {root_name: "the root"}
        for host, name in leader_name.items():
            if name in owner:
                self._say(f"The leader {host} would be named {name}, as {owner[name]}: rename one of the hosts.")
            owner.setdefault(name, f"the leader {host}")
        nodes = {f"{rack}/{host}": f"the node {host}" for rack, found in racks.items() for host in found["nodes"]}
        files: dict[str, str] = {}
        for name in (*owner, *nodes):
            file = name.replace("/", ".")
            if file in files:
                self._say(f"The keys of {files[file]} and {name} would be the same file: rename one of them.")
            files[file] = name

    def _server(self, kind: str, name: str, host: str, addresses: Mapping[str, str]) -> dict[str, Any]:
        generation, phase = 0, ""
        try:
            generation, phase = generation_of(self._generations.get(name, 0))
        except ValueError as error:
            self._say(f"The generation of {name}: {error}.")
        first, second = (tuple(int(port) for port in pair) for pair in self._ports[kind])
        own, other = (first, second) if generation % 2 == 0 else (second, first)
        address = bracketed(addresses[host])
        return {
            "host": host,
            "address": addresses[host],
            "generation": generation,
            "phase": phase,
            "own": _endpoint(address, own),
            "next": _endpoint(address, other),
        }


_WORD = "a name has 1 to 64 letters, digits and . _ -, and begins and ends with a letter or digit"


def _endpoint(address: str, ports: tuple[int, ...]) -> dict[str, Any]:
    publish, control = ports
    return {
        "ports": [publish, control],
        "publish": f"tcp://{address}:{publish}",
        "control": f"tcp://{address}:{control}",
    }


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"topology": topology, "topology_problems": topology_problems}
