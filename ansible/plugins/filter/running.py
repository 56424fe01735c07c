"""What the hosts of a batch said of their daemons, in the root's words: by node and by leader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def running(topology: Mapping[str, Any], hostvars: Mapping[str, Any], hosts: Iterable[str]) -> dict[str, Any]:
    """For how long the agents and leaders of `hosts` have run, by name; hosts that did not say are left out."""
    found: dict[str, Any] = {"nodes": {}, "leaders": {}}
    for host in hosts:
        said = (hostvars[host].get("_hbagent_running") or {}).get("running_s") or {}
        for daemon, table in (("agent", "nodes"), ("leader", "leaders")):
            if daemon in said:
                found[table][topology["hosts"][host]["names"][daemon]] = said[daemon]
    return found


def blame(topology: Mapping[str, Any], host: str, missing: Mapping[str, str]) -> dict[str, str]:
    """Why each daemon of a host is not as the root should see it; daemons that are are left out."""
    root = topology["root"]
    return {
        daemon: f"{name} is not ALIVE at {root['name']} on {root['host']}: {missing[name]}."
        for daemon, name in topology["hosts"][host]["names"].items()
        if name in missing
    }


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"running": running, "blame": blame}
