"""Config files to settings: the tables of a file, read one by one, and what must fit together across them.

Defaults are those of `core.config` and of the Structs here: a key that is not written is not passed on, so no
default is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Union

import msgspec

from hbagent.core.config import (
    AgentConfig,
    BrakeConfig,
    DetectorConfig,
    FlapConfig,
    HookConfig,
    LeaderConfig,
    ProberConfig,
    RackConfig,
    RootConfig,
    SinkConfig,
)
from hbagent.core.states import Kind
from hbagent.core.units import DAY, SECOND, show_duration

from . import values
from .document import Document, parse, read_text
from .keys import public_key, secret_key
from .lines import Place
from .operators import Operator, OperatorSettings, read_operator, read_operators
from .probing import read_prober
from .problems import ConfigError, Problem, did_you_mean
from .rotation import Rotation, read_rotation
from .schema import AGENT_SHAPES, LEADER_SHAPES, LEADERS_MAX, ROOT_SHAPES
from .storage import read_store

DEFAULT_ECHO_PORT = 5703


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Someone to connect to: a leader, for an agent; the root or another leader, for a leader."""

    name: str
    #: Empty for another leader: nothing is published to it.
    publish: str = ""
    control: str
    #: 40 characters of Z85; empty on a plain-text connection.
    public_key: str
    #: Another leader's other key while its key is changed: it may call with both; "" for none.
    next_public_key: str = ""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """Who this daemon is and who may speak to it."""

    #: File of the own secret key, or `credential:NAME`; None only with `plain`.
    key: Path | None = None
    #: File of the allow-list; None for an agent, which accepts no connection, or with `plain`.
    allow: Path | None = None
    #: No encryption and no authentication; every address is then on this host.
    plain: bool = False


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to standard error, and how."""

    level: str = "info"
    #: text | json
    format: str = "text"


class Web(msgspec.Struct, frozen=True, kw_only=True):
    """Where browsers and scrapers may connect."""

    #: ADDRESS:PORT
    listen: str
    #: Names by which they may call it, beside those of this host where only this host is listened to.
    hosts: tuple[str, ...] = ()


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in an agent's config file."""

    core: AgentConfig
    leaders: tuple[Endpoint, ...]
    security: Security
    logging: Logging
    #: Address of the echo responder; empty when it is off, and `core.echo_port` is then 0.
    echo_bind: str
    echo_port: int
    #: A connection that broke is tried again after a wait drawn from this range once per process, so that a leader
    #: that restarts is not met by its whole rack at once.
    reconnect_ns: tuple[int, int]
    #: For the prober's process; `core.prober` says whether there is one.
    prober: ProberConfig


class LeaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in a leader's config file."""

    core: LeaderConfig
    #: Where agents' beats and reports come in.
    publish: str
    #: Where agents' control connections come in.
    control: str
    #: Unix socket for the command line.
    query: str
    #: Whose file that socket is, beside its owner; empty for the group of the process.
    group: str = ""
    state_dir: Path
    #: None: nowhere.
    web: Web | None = None
    root: Endpoint
    #: The other leaders of its racks.
    peers: tuple[Endpoint, ...] = ()
    #: None: the key is not being changed.
    rotation: Rotation | None = None
    security: Security
    logging: Logging


class RootSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the root's config file."""

    core: RootConfig
    #: Where leaders' summaries come in.
    publish: str
    #: Where leaders' control connections come in.
    control: str
    #: Unix socket for the command line.
    query: str
    #: Whose file that socket is, beside its owner; empty for the group of the process.
    group: str = ""
    #: Where operators' connections come in; empty for nowhere.
    operators_port: str = ""
    operators: tuple[Operator, ...] = ()
    state_dir: Path
    #: "sqlite", a file's name or path, or the address of a PostgreSQL server, which may hold a password.
    store: str = "sqlite"
    #: Events that are older than this are deleted.
    retention_ns: int = 90 * DAY
    #: None: nowhere.
    web: Web | None = None
    #: Which hosts have metrics of their own: all, problems or none.
    metric_hosts: str = "all"
    #: None: the key is not being changed.
    rotation: Rotation | None = None
    security: Security
    logging: Logging


Settings = Union[AgentSettings, LeaderSettings, RootSettings]
#: What may stand in a config file: those of a daemon, or how an operator reaches the root.
AnySettings = Union[Settings, OperatorSettings]


def load_agent(path: Path | str) -> AgentSettings:
    """The settings in an agent's config file. Raises ConfigError with every problem of the file."""
    return read_agent(Path(path), read_text(Path(path)))


def load_leader(path: Path | str) -> LeaderSettings:
    """The settings in a leader's config file. Raises ConfigError with every problem of the file."""
    return read_leader(Path(path), read_text(Path(path)))


def load_root(path: Path | str) -> RootSettings:
    """The settings in the root's config file. Raises ConfigError with every problem of the file."""
    return read_root(Path(path), read_text(Path(path)))


def load_any(path: Path | str) -> AnySettings:
    """The settings in a config file of whichever daemon, or of an operator.

    Raises ConfigError with every problem of the file.
    """
    return read_any(Path(path), read_text(Path(path)))


def read_any(path: Path, text: str) -> AnySettings:
    """As `load_any`, from `text` that was read from `path`."""
    readers: dict[str, Callable[[Path, str], AnySettings]] = {
        "agent": read_agent,
        "leader": read_leader,
        "root": read_root,
        "operator": read_operator,
    }
    content = parse(path, text)
    for name, read in readers.items():
        # An agent's file has [[leader]] and a leader's has [root]: the first that fits in this order decides.
        if isinstance(content.get(name), dict):
            return read(path, text)
    if "leader" in content:
        return read_agent(path, text)
    near = [did_you_mean(name, readers) for name in content]
    hint = next(filter(None, near), "")
    text = f"whose file is this? It has no section [agent], [leader] or [root]{hint}"
    raise ConfigError([Problem(file=str(path), line=0, where="", text=text)])


def read_agent(path: Path, text: str) -> AgentSettings:
    """As `load_agent`, from `text` that was read from `path`."""
    document = Document(path, text, AGENT_SHAPES)
    core = document.table("agent")
    logging = document.table("log")
    echo = document.table("echo")
    network = document.table("network")
    security = _security(document, needed=("key",))
    leaders = _leaders(document, security)
    enabled, prober = read_prober(document)
    textfile = _textfile(document, enabled)
    reconnect = network.get("reconnect_min", SECOND), network.get("reconnect_max", 3 * SECOND)
    if reconnect[0] > reconnect[1]:
        document.say(("network",), "reconnect_min is longer than reconnect_max")
    document.finish()
    echo_bind = echo.get("bind", "0.0.0.0") if echo.get("enabled", True) else ""
    echo_port = echo.get("port", DEFAULT_ECHO_PORT) if echo_bind else 0
    return AgentSettings(
        core=AgentConfig(leaders=tuple(leader.name for leader in leaders), echo_port=echo_port, prober=enabled, **core),
        leaders=leaders,
        security=security,
        logging=Logging(**logging),
        echo_bind=echo_bind,
        echo_port=echo_port,
        reconnect_ns=reconnect,
        prober=msgspec.structs.replace(prober, textfile=textfile, node=core["node"]) if textfile else prober,
    )


def _textfile(document: Document, enabled: bool) -> str:
    """Where the agent's metrics are written; "" for nowhere."""
    text = document.table("metrics").get("textfile", "")
    if not text:
        return ""
    place = ("metrics", "textfile")
    if not text.endswith(".prom"):
        document.say_value(place, text, 'must end in ".prom": node_exporter reads no other files')
    if not enabled:
        document.say_value(place, text, "is written by the prober, which [prober] does not enable")
    return str(document.absolute(text))


def read_leader(path: Path, text: str) -> LeaderSettings:
    """As `load_leader`, from `text` that was read from `path`."""
    document = Document(path, text, LEADER_SHAPES)
    core = document.table("leader")
    logging = document.table("log")
    core |= document.table("doubt")
    detector = _detector(document)
    racks = document.tables("rack")
    security = _security(document, needed=("key", "allow"))
    place = _server(document, "leader", core, security, ports=(5701, 5702))
    root = _endpoint(document, ("root",), document.table("root"), security)
    if core.get("name") and root and root.name == core["name"]:
        document.say(("root", "name"), "the root has the name of this leader")
    peers = _peers(document, core.get("name", ""), root, security)
    web = _web(document)
    rotation = _rotation(document, place, security)
    document.finish()
    assert root is not None
    return LeaderSettings(
        core=LeaderConfig(
            racks={rack["name"]: tuple(f"{rack['name']}/{node}" for node in rack["nodes"]) for rack in racks},
            root=root.name,
            detector=detector,
            peers=tuple(peer.name for peer in peers),
            **core,
        ),
        root=root,
        peers=peers,
        rotation=rotation,
        security=security,
        logging=Logging(**logging),
        web=web,
        **place,
    )


def read_root(path: Path, text: str) -> RootSettings:
    """As `load_root`, from `text` that was read from `path`."""
    document = Document(path, text, ROOT_SHAPES)
    core = document.table("root")
    logging = document.table("log")
    racks = document.tables("rack")
    hooks = document.tables("hook")
    sinks = _sinks(document, hooks)
    security = _security(document, needed=("key", "allow"))
    place = _server(document, "root", core, security, ports=(5711, 5712))
    place |= read_store(document, path, core)
    port, operators = read_operators(document, place, security.plain)
    _check_root_name(document, core, racks)
    flap, brake = FlapConfig(**document.table("flap")), BrakeConfig(**document.table("brake"))
    if flap.stop >= flap.start:
        document.say(("flap",), "stop must be below start")
    for at, hook in enumerate(hooks):
        _check_command(document, ("hook", at, "command"), hook)
    web = _web(document)
    metrics = document.table("metrics")
    rotation = _rotation(document, place, security, port)
    document.finish()
    return RootSettings(
        core=RootConfig(
            racks=tuple(RackConfig(**rack) for rack in racks),
            hooks=tuple(HookConfig(**hook) for hook in hooks),
            sinks=sinks,
            flap=flap,
            brake=brake,
            **core,
        ),
        operators_port=port,
        operators=operators,
        rotation=rotation,
        security=security,
        logging=Logging(**logging),
        web=web,
        metric_hosts=metrics.get("hosts", "all"),
        **place,
    )


def _sinks(document: Document, hooks: list[dict[str, Any]]) -> tuple[SinkConfig, ...]:
    tables = document.tables("alertmanager")
    names = [hook.get("name") for hook in hooks]
    for at, table in enumerate(tables):
        if "name" in table and table["name"] in names:
            document.say_value(("alertmanager", at, "name"), table["name"], "there is a [[hook]] of this name")
        if "on" in table:
            # Whatever begins in an Alertmanager must end there too.
            table["on"] = (*table["on"], *_ENDS)
    return tuple(SinkConfig(**table) for table in tables if {"name", "urls"} <= table.keys())


_ENDS = (Kind.NODE_RECOVERED, Kind.NODE_STEADY, Kind.RACK_RECOVERED, Kind.LEADER_RECOVERED)


def _rotation(document: Document, place: dict[str, Any], security: Security, operators: str = "") -> Rotation | None:
    taken = {"publish": place["publish"], "control": place["control"], "[operators] listen": operators}
    return read_rotation(document, taken, security.key, security.plain)


def _web(document: Document) -> Web | None:
    table = document.table("web")
    # Without `listen` the document knows what is missing.
    return Web(**table) if "listen" in table else None


def _security(document: Document, needed: Iterable[str]) -> Security:
    security = document.table("security")
    plain = security.get("plain", False)
    for name in needed:
        if not plain and not document.has(("security", name)):
            document.say(("security",), _MISSING_FILE[name])
    key = secret_key(document, ("security", "key"), security["key"]) if "key" in security else None
    allow = document.absolute(security["allow"]) if "allow" in security else None
    return Security(key=key, allow=allow, plain=plain)


_MISSING_FILE = {
    "key": 'missing key "key", the file of the own secret key; "hbagent keys init" makes one',
    "allow": 'missing key "allow", the file of who may connect; "hbagent keys init --allow" makes one',
}


def _detector(document: Document) -> DetectorConfig:
    """When silence becomes suspicious. A margin that is written down stays as it is, unless learning is asked for."""
    table = document.table("detector")
    place = ("detector", "margin")
    written = document.has(place)
    if written and not document.has(("detector", "mistakes_per_day")):
        table["mistakes_per_day"] = 0.0
    config = DetectorConfig(**table)
    least, most = config.margin_min_ns, config.margin_max_ns
    if least > most:
        document.say(("detector",), "margin_min is longer than margin_max")
    elif config.mistakes_per_day and not least <= config.margin_ns <= most:
        if written:
            text = f"learning starts there: it must be from margin_min to margin_max, {show_duration(least)} to"
            document.say_value(place, document.content["detector"]["margin"], f"{text} {show_duration(most)}")
        config = msgspec.structs.replace(config, margin_ns=min(max(config.margin_ns, least), most))
    return config


def _leaders(document: Document, security: Security) -> tuple[Endpoint, ...]:
    tables = document.tables("leader")
    if len(tables) > LEADERS_MAX:
        document.say(("leader", LEADERS_MAX), f"a rack has at most {LEADERS_MAX} leaders")
    return tuple(filter(None, _distinct_endpoints(document, "leader", tables, security)))


def _peers(document: Document, own_name: str, root: Endpoint | None, security: Security) -> tuple[Endpoint, ...]:
    tables = document.tables("peer")
    if len(tables) >= LEADERS_MAX:
        document.say(("peer", LEADERS_MAX - 1), f"a rack has at most {LEADERS_MAX} leaders, this one among them")
    # Whoever has the key of a name is believed to be it: one key is one name.
    owners = {root.public_key: "the root"} if root is not None else {}
    peers = _distinct_endpoints(document, "peer", tables, security)
    for at, peer in enumerate(peers):
        if peer is None:
            continue
        if peer.name == own_name:
            document.say_value(("peer", at, "name"), peer.name, "this leader itself; its peers are the other leaders")
        if root is not None and peer.name == root.name:
            document.say_value(("peer", at, "name"), peer.name, "the root leads no rack")
        for key in ("public_key", "next_public_key"):
            public = getattr(peer, key)
            if public and owners.setdefault(public, peer.name) != peer.name:
                document.say_value(("peer", at, key), public, f"this is the key of {owners[public]}")
        if peer.public_key and peer.next_public_key == peer.public_key:
            document.say_value(("peer", at, "next_public_key"), peer.public_key, "this is its public_key already")
    return tuple(filter(None, peers))


def _distinct_endpoints(
    document: Document, section: str, tables: list[dict[str, Any]], security: Security
) -> list[Endpoint | None]:
    """The endpoint in each table `[[section]]`. Two at one address are a problem."""
    for key in ("publish", "control"):
        seen: dict[str, int] = {}
        for at, table in enumerate(tables):
            if key in table and seen.setdefault(table[key], at) != at:
                document.say_value((section, at, key), table[key], f"another {section} has this address")
    return [_endpoint(document, (section, at), table, security) for at, table in enumerate(tables)]


def _endpoint(document: Document, place: Place, table: dict[str, Any], security: Security) -> Endpoint | None:
    """The endpoint in one table; None when it is not whole, which the document then knows."""
    if not table:
        return None
    addresses = _addresses(document, place, table, security)
    key = ""
    if "public_key" in table and not security.plain:
        key = public_key(document, (*place, "public_key"), table["public_key"], table.get("name", ""))
    elif not security.plain and not document.has((*place, "public_key")):
        document.say(place, 'missing key "public_key"; "hbagent keys show" prints it')
    other = ""
    if "next_public_key" in table and not security.plain:
        other = public_key(document, (*place, "next_public_key"), table["next_public_key"], table.get("name", ""))
    if "name" not in table or "control" not in addresses or ("publish" not in addresses and place[0] != "peer"):
        return None
    return Endpoint(name=table["name"], public_key=key, next_public_key=other, **addresses)


def _server(
    document: Document, section: str, table: dict[str, Any], security: Security, ports: tuple[int, int]
) -> dict[str, Any]:
    """Takes what a daemon that listens needs out of its own table, and returns it."""
    place = {
        "publish": table.pop("publish", f"tcp://*:{ports[0]}"),
        "control": table.pop("control", f"tcp://*:{ports[1]}"),
        "query": table.pop("query", f"ipc:///run/hbagent-{section}/{section}.sock"),
    }
    place.update(_addresses(document, (section,), place, security))
    place["group"] = table.pop("group", "")
    place["state_dir"] = document.absolute(table.pop("state_dir", f"/var/lib/hbagent/{section}"))
    return place


def _addresses(document: Document, place: Place, table: dict[str, Any], security: Security) -> dict[str, str]:
    """The addresses in a table, unix sockets with their whole path. Each may stand there once only."""
    found: dict[str, str] = {}
    for name in ("publish", "control", "query"):
        if name not in table:
            continue
        address = _whole_address(document, table[name])
        default = "" if document.has((*place, name)) else "(the default) "
        if security.plain and not values.is_local(address):
            text = "plain text stays on this host: write tcp://127.0.0.1:PORT or ipc://PATH, or drop plain = true"
            document.say_value((*place, name), table[name], default + text)
        elif address.startswith("ipc://") and len(address.encode()) - len("ipc://") > values.SOCKET_PATH_MAX:
            text = f"the whole path must be at most {values.SOCKET_PATH_MAX} bytes long: {address}"
            document.say_value((*place, name), table[name], text)
        elif address in found.values():
            document.say_value((*place, name), table[name], "another key of this table has the same address")
        found[name] = address
    return found


def _whole_address(document: Document, address: str) -> str:
    path = address.removeprefix("ipc://")
    return address if path == address else f"ipc://{document.absolute(path)}"


def _check_root_name(document: Document, core: dict[str, Any], racks: list[dict[str, Any]]) -> None:
    for at, rack in enumerate(racks):
        if core.get("name") in rack.get("leaders", ()):
            document.say(("rack", at, "leaders"), "the root's own name is among the leaders")


def _check_command(document: Document, place: Place, hook: dict[str, Any]) -> None:
    argv = hook.get("argv")
    if not argv:
        return
    if not argv[0]:
        document.say_value((*place, 0), argv[0], "must be the path of a program")
    hook["argv"] = (str(document.absolute(argv[0])), *argv[1:])
