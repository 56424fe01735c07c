"""The config files of a host's daemons, as plain values: what follows from the topology, and what a site adds.

Each function gives the tables of one file; `to_toml` writes them. A site adds what it likes, but for what the inventory
decides: a name or an address that is written twice is wrong in one place some day.

A key that is being rotated has a phase. While its next key is *offered* both are accepted and others still call the
old; once it is *used* both are accepted and others call the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ETC = "/etc/hbagent"
SHIPPED_HOOKS = "/opt/hbagent/current/share/hbagent/hooks.d"
#: Tables and keys that the inventory decides.
DECIDED: Mapping[str, tuple[str, ...]] = {
    "agent": ("agent.node", "security", "leader", "echo.bind"),
    "leader": ("leader.name", "leader.publish", "leader.control", "security", "rotation", "root", "peer", "rack"),
    "root": ("root.name", "root.publish", "root.control", "security", "rotation", "rack"),
}
#: Stands for the public key of a host whose key a dry run did not make.
UNMADE = "0" * 40


def agent_settings(
    topology: Mapping[str, Any],
    host: str,
    keys: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    probes: Sequence[Any] = (),
    echo_port: int = 5703,
    textfile: str = "",
) -> dict[str, Any]:
    """The tables of agent.toml."""
    me = topology["hosts"][host]
    content: dict[str, Any] = {
        "agent": {"node": me["names"]["agent"]},
        "security": {"key": "credential:agent.key"},
        "echo": {"bind": "::" if topology["ipv6"] else "0.0.0.0", "port": int(echo_port)},
    }
    if textfile:
        content["metrics"] = {"textfile": textfile}
    content["leader"] = [
        {"name": name, **_called(topology, name, keys)} for name in topology["racks"][me["rack"]]["leaders"]
    ]
    return _with(content, "agent", extra, probe=probes)


def leader_settings(
    topology: Mapping[str, Any],
    host: str,
    keys: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    web: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The tables of leader.toml."""
    me = topology["hosts"][host]
    name = me["names"]["leader"]
    content: dict[str, Any] = {
        "leader": {"name": name, **_bound(topology, name, "own")},
        "security": {"key": "credential:leader.key", "allow": f"{ETC}/leader-allow.toml"},
        **_rotation(topology, name, "leader"),
        "root": {"name": topology["root"]["name"], **_called(topology, topology["root"]["name"], keys)},
    }
    if web:
        content["web"] = dict(web)
    peers = dict.fromkeys(other for rack in me["leads"] for other in topology["racks"][rack]["leaders"])
    content["peer"] = [_peer(topology, other, keys) for other in peers if other != name]
    content["rack"] = [{"name": rack, "nodes": topology["racks"][rack]["nodes"]} for rack in me["leads"]]
    return _with(content, "leader", extra)


def root_settings(
    topology: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    store: str = "",
    web: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    operators_listen: str = "",
    operators: Sequence[Any] = (),
    hooks: Sequence[Any] = (),
    alertmanagers: Sequence[Any] = (),
) -> dict[str, Any]:
    """The tables of root.toml."""
    name = topology["root"]["name"]
    content: dict[str, Any] = {
        "root": {"name": name, **_bound(topology, name, "own")},
        "security": {"key": "credential:root.key", "allow": f"{ETC}/root-allow.toml"},
        **_rotation(topology, name, "root"),
    }
    if store:
        content["root"]["store"] = store
    if web:
        content["web"] = dict(web)
    if metrics:
        content["metrics"] = dict(metrics)
    if operators_listen:
        content["operators"] = {"listen": operators_listen}
    content["rack"] = [
        {"name": rack, "leaders": found["leaders"], "nodes": found["nodes"]}
        for rack, found in topology["racks"].items()
    ]
    hooks = [{**hook, "command": _command(hook)} if "command" in hook else dict(hook) for hook in hooks]
    return _with(content, "root", extra, operator=operators, hook=hooks, alertmanager=alertmanagers)


def allow_list(topology: Mapping[str, Any], host: str, daemon: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of the file that says who may connect to a leader (its nodes) or the root (all leaders)."""
    if daemon == "root":
        leaders = [name for name in topology["servers"] if name != topology["root"]["name"]]
        return {"leaders": {name: _accepted(name, keys) for name in sorted(leaders)}}
    nodes = [f"{rack}/{node}" for rack in topology["hosts"][host]["leads"] for node in topology["racks"][rack]["nodes"]]
    return {"agents": {name: _accepted(name, keys) for name in sorted(nodes)}}


def _bound(topology: Mapping[str, Any], name: str, which: str) -> dict[str, str]:
    """Where a server listens: at all addresses of its host."""
    publish, control = topology["servers"][name][which]["ports"]
    everywhere = "[::]" if topology["ipv6"] else "*"
    return {"publish": f"tcp://{everywhere}:{publish}", "control": f"tcp://{everywhere}:{control}"}


def _rotation(topology: Mapping[str, Any], name: str, daemon: str) -> dict[str, Any]:
    if not topology["servers"][name]["phase"]:
        return {}
    return {"rotation": {"key": f"credential:{daemon}-next.key", **_bound(topology, name, "next")}}


def _called(topology: Mapping[str, Any], name: str, keys: Mapping[str, Any]) -> dict[str, str]:
    """Where others call a server, and the key that they expect there."""
    server = topology["servers"][name]
    used = server["phase"] == "used"
    where = server["next" if used else "own"]
    return {
        "publish": where["publish"],
        "control": where["control"],
        "public_key": _key(name, keys, "next" if used else "public"),
    }


def _peer(topology: Mapping[str, Any], name: str, keys: Mapping[str, Any]) -> dict[str, str]:
    """Another leader. Until a rotation has ended it calls with its old key, wherever it is called itself."""
    called = _called(topology, name, keys)
    peer = {"name": name, "control": called["control"], "public_key": called["public_key"]}
    others = [key for key in _accepted(name, keys) if key != called["public_key"]]
    if topology["servers"][name]["phase"] and others:
        peer["next_public_key"] = others[0]
    return peer


def _accepted(name: str, keys: Mapping[str, Any]) -> list[str]:
    """The keys with which somebody may speak, sorted so that a change of phase alone changes no file."""
    entry = keys.get(name, {})
    return sorted({key for key in (entry.get("public"), entry.get("next")) if key}) or [UNMADE]


def _key(name: str, keys: Mapping[str, Any], which: str) -> str:
    return str(keys.get(name, {}).get(which) or UNMADE)


def _command(hook: Mapping[str, Any]) -> list[str]:
    """A hook's command. A bare word is a program that comes with hbagent; "hooks.d/NAME" is one of the site's."""
    program, *arguments = (str(word) for word in hook["command"])
    if not program.startswith("/"):
        program = f"{ETC}/{program}" if "/" in program else f"{SHIPPED_HOOKS}/{program}"
    return [program, *arguments]


def _with(content: dict[str, Any], daemon: str, extra: Mapping[str, Any] | None, **lists: Any) -> dict[str, Any]:
    """`content` with a site's own settings and lists of tables. Raises ValueError for what the inventory decides."""
    extra = extra or {}
    for place in DECIDED[daemon]:
        table, _, key = place.partition(".")
        if table in extra and (not key or key in extra[table]):
            raise ValueError(f"hbagent_{daemon}_settings sets {place}, which follows from the inventory: leave it out.")
    for table, value in extra.items():
        if isinstance(value, Mapping) and isinstance(content.get(table), Mapping):
            content[table] = {**content[table], **value}
        else:
            content[table] = value
    for table, rows in lists.items():
        if rows or table in content:
            content[table] = [*content.get(table, ()), *rows]
    return {table: value for table, value in content.items() if value != []}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {
            "agent_settings": agent_settings,
            "leader_settings": leader_settings,
            "root_settings": root_settings,
            "allow_list": allow_list,
        }
