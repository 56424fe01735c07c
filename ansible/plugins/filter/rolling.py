"""In which order a fleet is changed while it runs, and whether it is well again.

Receivers go first: the root, then the leaders, then the agents. Of the leaders of one rack one is away at a time, so
that a rack with two is heard throughout. Agents on hosts that do nothing else come before those of leaders and the
root: the first of them is the canary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def leader_waves(topology: Mapping[str, Any], hosts: Iterable[str]) -> list[list[str]]:
    """Those of `hosts` that lead, in waves: no two in one wave share a rack."""
    waves: list[list[str]] = []
    racks: list[set[str]] = []
    wanted = set(hosts)
    for host, found in topology["hosts"].items():
        if host not in wanted or "leader" not in found["daemons"]:
            continue
        mine = set(found["leads"])
        for wave, taken in zip(waves, racks):  # noqa: B905 - they grow together
            if not mine & taken:
                wave.append(host)
                taken |= mine
                break
        else:
            waves.append([host])
            racks.append(mine)
    return waves


def agents_in_order(topology: Mapping[str, Any], hosts: Iterable[str]) -> list[str]:
    """Those of `hosts` that belong to the fleet, those with fewer daemons first."""
    wanted = set(hosts)
    mine = [host for host in topology["hosts"] if host in wanted]
    return sorted(mine, key=lambda host: len(topology["hosts"][host]["daemons"]))


def names_of(topology: Mapping[str, Any], hosts: Iterable[str], daemon: str) -> list[str]:
    """The names of one daemon of `hosts`."""
    found = (topology["hosts"].get(host, {}).get("names", {}).get(daemon) for host in hosts)
    return [name for name in found if name]


def covered(topology: Mapping[str, Any], hosts: Iterable[str], daemon: str, most: int = 100) -> list[list[str]]:
    """Arguments of `hbagent maintenance` for what the absence of one daemon of `hosts` may disturb, `most` at a time:
    an agent's is its node, a leader's are its racks, the root's is everything."""
    chosen = list(hosts)
    if daemon == "root":
        return [["--rack", "*"]]
    if daemon == "leader":
        names = sorted({rack for host in chosen for rack in topology["hosts"][host]["leads"]})
        option = "--rack"
    else:
        names, option = names_of(topology, chosen, "agent"), "--node"
    rows = [names[at : at + most] for at in range(0, len(names), most)]
    return [[word for name in row for word in (option, name)] for row in rows]


def maintenance_seconds(base: str, hosts: int, forks: int) -> str:
    """How long a maintenance of a batch is: `base`, and a minute more for each `forks` hosts beyond the first."""
    found = _LENGTH.fullmatch(str(base).strip())
    if found is None:
        raise ValueError(f"hbagent_maintenance_for is {base!r}: a number and s, m, h or d, such as 10m.")
    more = max(0, -(-hosts // max(1, int(forks))) - 1) * 60
    return f"{int(float(found[1]) * _SECONDS[found[2]]) + more}s"


def dropped(status: Any, topology: Mapping[str, Any]) -> list[list[str]]:
    """Arguments of `hbagent maintenance` for racks of which the root knows a leader that the inventory has no more."""
    racks = {
        rack["rack"]
        for rack in _document(status).get("racks", ())
        for row in rack["leaders"]
        if row["leader"] not in topology["servers"]
    }
    return [[word for rack in sorted(racks) for word in ("--rack", rack)]] if racks else []


def alive(status: Any) -> list[str]:
    """The nodes and leaders that are ALIVE in an answer of `hbagent status -o json`."""
    document = _document(status)
    rows = [row for rack in document.get("racks", ()) for row in rack["leaders"]]
    leaders = [row["leader"] for row in rows if row["state"] == "ALIVE"]
    return leaders + [row["node"] for row in document.get("nodes", ()) if row["liveness"] == "ALIVE"]


def not_yet(
    status: Any,
    topology: Mapping[str, Any],
    hosts: Iterable[str],
    daemon: str,
    version: str = "",
    before: Sequence[str] = (),
) -> list[str]:
    """What the root does not see yet of one daemon of `hosts`: a sentence each, none when all is well.

    `before` are the nodes and leaders that were ALIVE before; whoever hears them must hear them again, and who was
    away then may be away still. `version` is that which the root and leaders must say that they run.
    """
    document = _document(status)
    leaders = {row["leader"] for rack in document.get("racks", ()) for row in rack["leaders"]}
    # A root that was not asked said of nobody that he was there.
    expected = sorted(leaders & set(before)) or sorted(leaders)
    root = document.get("root", {})
    if not root.get("reachable"):
        return ["The root does not answer."]
    if daemon == "root":
        return [
            *_old("The root", root.get("version", ""), version),
            *(f"The root does not hear the leader {name}." for name in _lost(document, expected)),
            *_away(document, [name for name in before if name not in leaders]),
        ]
    if daemon == "leader":
        names = names_of(topology, hosts, "leader")
        racks = {rack for host in hosts for rack in topology["hosts"][host]["leads"]}
        rows = {row["leader"]: row for rack in document.get("racks", ()) for row in rack["leaders"]}
        theirs = [row["node"] for row in document.get("nodes", ()) if row["rack"] in racks and row["node"] in before]
        return [
            *(f"The root does not hear the leader {name}." for name in _lost(document, names)),
            *(text for name in names if name in rows for text in _old(name, rows[name].get("version", ""), version)),
            *_away(document, theirs),
            *_unheard(document, theirs, names),
        ]
    nodes = names_of(topology, hosts, "agent")
    return [*_away(document, nodes), *_unheard(document, nodes, expected)]


def behind(hostvars: Mapping[str, Any], hosts: Iterable[str]) -> list[str]:
    """Those of `hosts` on which something would be restarted or reloaded, as a dry run of it said."""
    found = {host: hostvars[host].get("_hbagent_behind") or {} for host in hosts}
    return [host for host, answer in found.items() if answer.get("changes")]


def unreached(hostvars: Mapping[str, Any], hosts: Iterable[str], register: str) -> list[str]:
    """Those of `hosts` that could not be reached by the task that registered this."""
    return [host for host in hosts if (hostvars[host].get(register) or {}).get("unreachable")]


def of_another(
    hostvars: Mapping[str, Any], hosts: Iterable[str], register: str, version: str, most: int = 10
) -> list[str]:
    """Those of `hosts` that run another release than `version`, and which: its path is the first line of an answer."""
    lines = {host: (hostvars[host].get(register) or {}).get("stdout_lines") or [""] for host in hosts}
    release = {host: str(found[0]).rpartition("/")[2] for host, found in lines.items()}
    others = [f"{host} ({name})" for host, name in release.items() if name not in ("", version)]
    return others[:most] + ([f"{len(others) - most} more"] if len(others) > most else [])


def in_use(result: Mapping[str, Any], topology: Mapping[str, Any], leave: Iterable[str] = ()) -> list[str]:
    """Who still uses the old key, as `hbagent keys in-use -o json` says, but for what runs on the hosts in `leave`."""
    if result.get("skipped"):
        return []
    document = _document(result.get("stdout"))
    if not document:
        return ["(it does not answer: {})".format(result.get("stderr") or result.get("msg") or "no reason given")]
    old = document.get("old") if document.get("rotating", True) else None
    old = old if isinstance(old, Mapping) else {}
    left = {name for host in leave for name in topology["hosts"].get(host, {}).get("names", {}).values()}
    names = list(old.get("names") or ())
    # Of many not all are named.
    more = int(old.get("peers") or 0) - len(names)
    return [*(name for name in names if name not in left), *([f"{more} more"] if more > 0 else [])]


def hosts_of(topology: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The hosts on which these daemons run."""
    wanted = set(names)
    return [host for host, found in topology["hosts"].items() if wanted & set(found["names"].values())]


def begun(announced: Mapping[str, Any]) -> list[str]:
    """The ids of the maintenances that the task which announced them began."""
    answers = [_document(result.get("stdout")) for result in announced.get("results", ())]
    return [answer["silence"]["silence"] for answer in answers if "silence" in answer]


def rotating(topology: Mapping[str, Any], generations: Mapping[str, Any], phase: str, kinds: Any = None) -> list[str]:
    """The names of one kind (agents, leaders, root) or of all whose keys are in that phase; "" for at rest."""
    daemons = {"agents": "agent", "leaders": "leader", "root": "root"}
    wanted = [daemons[kind] for kind in (kinds or daemons)]
    found = []
    for host in topology["hosts"].values():
        for daemon in wanted:
            name = host["names"].get(daemon)
            entry = generations.get(name, 0)
            if name and (entry.get("phase", "") if isinstance(entry, Mapping) else "") == phase:
                found.append(name)
    return sorted(found)


def to_begin(topology: Mapping[str, Any], generations: Mapping[str, Any], kinds: Any) -> list[str]:
    """Whose rotation a run begins: all of `kinds`, and none while an earlier one is under way."""
    under_way = rotating(topology, generations, "offered") + rotating(topology, generations, "used")
    return [] if under_way else rotating(topology, generations, "", kinds)


def without(groups: Mapping[str, Any], hosts: Iterable[str]) -> dict[str, list[str]]:
    """Groups of an inventory without some hosts."""
    gone = set(hosts)
    return {str(group): [host for host in members if host not in gone] for group, members in groups.items()}


def touched(topology: Mapping[str, Any], hosts: Iterable[str]) -> list[str]:
    """Whose files change when `hosts` are taken out: the root, the leaders, and those whom one of `hosts` led."""
    gone = set(hosts)
    racks = {rack for host in gone for rack in topology["hosts"][host]["leads"]}
    return [
        host
        for host, found in topology["hosts"].items()
        if host not in gone and (set(found["daemons"]) != {"agent"} or found["rack"] in racks)
    ]


_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _document(status: Any) -> Mapping[str, Any]:
    if isinstance(status, Mapping):
        return status
    try:
        found = json.loads(status or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _old(name: str, version: str, wanted: str) -> list[str]:
    return [f"{name} says that it runs {version}."] if wanted and version != wanted else []


def _lost(document: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    rows = {row["leader"]: row["state"] for rack in document.get("racks", ()) for row in rack["leaders"]}
    return [name for name in names if rows.get(name) != "ALIVE"]


def _away(document: Mapping[str, Any], nodes: Sequence[str]) -> list[str]:
    rows = {row["node"]: row for row in document.get("nodes", ())}
    states = {name: rows[name]["liveness"] if name in rows else "not known" for name in nodes}
    return [f"{name} is {state} at the root." for name, state in states.items() if state != "ALIVE"]


def _unheard(document: Mapping[str, Any], nodes: Sequence[str], leaders: Sequence[str]) -> list[str]:
    """Nodes that not all of `leaders` that lead their rack hear."""
    racks = {rack["rack"]: [row["leader"] for row in rack["leaders"]] for rack in document.get("racks", ())}
    rows = {row["node"]: row for row in document.get("nodes", ())}
    problems = []
    for name in nodes:
        if name not in rows:
            continue
        wanted = [each for each in racks.get(rows[name]["rack"], ()) if each in leaders]
        hear = {each["leader"] for each in rows[name]["observers"] if each["liveness"] == "ALIVE" and each["speaks"]}
        problems += [f"The leader {each} does not hear {name}." for each in wanted if each not in hear]
    return problems


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {
            "leader_waves": leader_waves,
            "agents_in_order": agents_in_order,
            "names_of": names_of,
            "covered": covered,
            "maintenance_seconds": maintenance_seconds,
            "dropped": dropped,
            "unreached": unreached,
            "of_another": of_another,
            "in_use": in_use,
            "hosts_of": hosts_of,
            "alive": alive,
            "not_yet": not_yet,
            "behind": behind,
            "begun": begun,
            "rotating": rotating,
            "to_begin": to_begin,
            "without": without,
            "touched": touched,
        }
