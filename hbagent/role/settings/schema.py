"""What each config file may hold: its tables, their keys, and the range of each value.

Ranges are wide: they refuse what cannot work, not what is unusual. Defaults are not here (see `load`), nor is
what must fit together across keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hbagent.core.states import Kind

from . import values
from .document import Items, Key, Shape
from .probing import APP, PROBE, PROBER
from .rotation import ROTATION

#: A rack has one to three leaders: a second is a hot standby and a second observer, a third outvotes; each one more
#: costs every agent of the rack one more connection and tells nothing new.
LEADERS_MAX = 3
#: Nodes of one rack; the largest rack that a leader's intake was sized for.
NODES_MAX = 10_000
#: Arguments of a hook's command; the rest of what a hook needs to know comes on its standard input.
ARGUMENTS_MAX = 64

_LOG = Shape(
    {
        "level": Key(values.word("debug", "info", "warning", "error")),
        "format": Key(values.word("text", "json")),
    }
)
_ENDPOINT = {
    "name": Key(values.rack_name, required=True),
    "publish": Key(values.connect_address, required=True),
    "control": Key(values.connect_address, required=True),
    "public_key": Key(values.text),
}
#: Names by which browsers may call a daemon; a name each for a handful of proxies.
HOSTS_MAX = 16
_WEB = Shape({"listen": Key(values.web_address, required=True), "hosts": Key(values.host, items=Items(0, HOSTS_MAX))})
_SERVER_SECURITY = Shape({"key": Key(values.text), "allow": Key(values.text), "plain": Key(values.flag)})

AGENT_SHAPES: Mapping[str, Shape] = {
    "agent": Shape(
        {
            "node": Key(values.node_name, required=True),
            "interval": Key(values.duration("50ms", "5m"), "interval_ns"),
            "report_interval": Key(values.duration("1s", "1h"), "report_interval_ns"),
            "farewell": Key(values.duration("0s", "30s"), "farewell_ns"),
            "drills": Key(values.flag),
        },
        required=True,
    ),
    "security": Shape({"key": Key(values.text), "plain": Key(values.flag)}),
    "log": _LOG,
    "echo": Shape(
        {
            "enabled": Key(values.flag),
            "bind": Key(values.ip_address),
            "port": Key(values.whole(1, 65535)),
        }
    ),
    "network": Shape(
        {
            "reconnect_min": Key(values.duration("100ms", "1m")),
            "reconnect_max": Key(values.duration("100ms", "1m")),
        }
    ),
    "metrics": Shape({"textfile": Key(values.text)}),
    "prober": PROBER,
    "probe": PROBE,
    "app": APP,
    "leader": Shape(_ENDPOINT, required=True, repeated=True),
}

LEADER_SHAPES: Mapping[str, Shape] = {
    "leader": Shape(
        {
            "name": Key(values.rack_name, required=True),
            "publish": Key(values.bind_address),
            "control": Key(values.bind_address),
            "query": Key(values.query_address),
            "group": Key(values.place),
            "state_dir": Key(values.text),
            "summary_interval": Key(values.duration("100ms", "1m"), "summary_interval_ns"),
            "report_interval": Key(values.duration("1s", "1h"), "report_interval_ns"),
            "join_grace": Key(values.duration("100ms", "1h"), "join_grace_ns"),
            "dead_after_intervals": Key(values.whole(2, 1000)),
            "dead_after_min": Key(values.duration("100ms", "1h"), "dead_after_min_ns"),
            "dead_after": Key(values.duration("100ms", "1d"), "dead_after_ns"),
            "host_gone_slack": Key(values.duration("50ms", "1h"), "host_gone_slack_ns"),
            "gate_share": Key(values.number(0.01, 1)),
            "gate_min": Key(values.whole(2, NODES_MAX)),
            "gate_hold": Key(values.duration("0s", "1m"), "gate_hold_ns"),
            "dark_share": Key(values.number(0.01, 1)),
            "outbox_max": Key(values.whole(100, 1_000_000)),
        },
        required=True,
    ),
    "security": _SERVER_SECURITY,
    "rotation": ROTATION,
    "log": _LOG,
    "web": _WEB,
    "detector": Shape(
        {
            "kind": Key(values.word("adaptive", "phi", "fixed")),
            "margin": Key(values.duration("1ms", "1m"), "margin_ns"),
            "mistakes_per_day": Key(values.number(0, 1000)),
            "margin_min": Key(values.duration("1ms", "1m"), "margin_min_ns"),
            "margin_max": Key(values.duration("1ms", "1m"), "margin_max_ns"),
            "phi_threshold": Key(values.number(0.1, 100)),
            "window_samples": Key(values.whole(10, 10_000)),
            "deviation_min": Key(values.duration("1ms", "1m"), "deviation_min_ns"),
            "pause": Key(values.duration("0s", "1m"), "pause_ns"),
        }
    ),
    "doubt": Shape(
        {
            "enabled": Key(values.flag, "doubt"),
            "pings": Key(values.whole(1, 20)),
            "ping_spacing": Key(values.duration("1ms", "1s"), "ping_spacing_ns"),
            "neighbours": Key(values.whole(0, 8)),
            "echo_check": Key(values.duration("1s", "1d"), "echo_check_ns"),
            "share": Key(values.number(0.0001, 1), "ask_share"),
            "burst": Key(values.whole(10, 100_000), "ask_burst"),
        }
    ),
    "root": Shape(_ENDPOINT, required=True),
    "peer": Shape(
        {
            **{name: key for name, key in _ENDPOINT.items() if name != "publish"},
            "next_public_key": Key(values.text),
        },
        repeated=True,
    ),
    "rack": Shape(
        {
            "name": Key(values.rack_name, required=True),
            "nodes": Key(values.part_name, required=True, items=Items(0, NODES_MAX)),
        },
        required=True,
        repeated=True,
    ),
}

#: What a hook may be told of. A node that joins, or accounts for a silence that is over, is no trouble; `hbagent
#: events` shows it.
HOOK_KINDS = tuple(kind for kind in Kind if kind not in (Kind.NODE_JOINED, Kind.NODE_ACCOUNTED))


#: What a sink may be told of: it has a state, and these are troubles, each with an end.
SINK_KINDS = (
    Kind.NODE_SUSPECT,
    Kind.NODE_DEAD,
    Kind.NODE_AWAY,
    Kind.HEALTH_CHANGED,
    Kind.NODE_FLAPPING,
    Kind.RACK_DARK,
    Kind.LEADER_LOST,
    Kind.ROOT_ISOLATED,
)
#: Members of one Alertmanager cluster: three are usual, and each costs a thread and a post for each change.
MEMBERS_MAX = 8


def _sink_kind(value: Any) -> Kind:
    return Kind(values.word(*(kind.value for kind in SINK_KINDS))(value))


def _hook_kind(value: Any) -> Kind:
    return Kind(values.word(*(kind.value for kind in HOOK_KINDS))(value))


ROOT_SHAPES: Mapping[str, Shape] = {
    "root": Shape(
        {
            "name": Key(values.rack_name, required=True),
            "publish": Key(values.bind_address),
            "control": Key(values.bind_address),
            "query": Key(values.query_address),
            "group": Key(values.place),
            "state_dir": Key(values.text),
            "store": Key(values.store),
            "retention": Key(values.duration("1h", "3650d"), "retention_ns"),
            # Below 2.5 s one lost summary and one pause of a virtual machine already make a leader-lost.
            "lease": Key(values.duration("2500ms", "10m"), "lease_ns"),
            "start_grace": Key(values.duration("100ms", "1h"), "start_grace_ns"),
            "join_grace": Key(values.duration("100ms", "1h"), "join_grace_ns"),
            "hook_concurrency": Key(values.whole(1, 64)),
            "hook_queue_max": Key(values.whole(100, 1_000_000)),
            "left_warn_after": Key(values.duration("1s", "365d"), "left_warn_after_ns"),
            "doubt_wait": Key(values.duration("0s", "1m"), "doubt_wait_ns"),
            "settle": Key(values.duration("0s", "10m"), "settle_ns"),
            "watchdog": Key(values.duration("1s", "1h"), "watchdog_ns"),
        },
        required=True,
    ),
    "security": _SERVER_SECURITY,
    "rotation": ROTATION,
    "log": _LOG,
    "web": _WEB,
    "operators": Shape({"listen": Key(values.tcp_bind_address, required=True)}),
    "operator": Shape(
        {
            "name": Key(values.part_name, required=True),
            "public_key": Key(values.text),
            "right": Key(values.word("read", "write")),
        },
        repeated=True,
    ),
    "rack": Shape(
        {
            "name": Key(values.rack_name, required=True),
            "leaders": Key(values.rack_name, required=True, items=Items(1, LEADERS_MAX)),
            "nodes": Key(values.part_name, items=Items(0, NODES_MAX)),
        },
        required=True,
        repeated=True,
    ),
    "hook": Shape(
        {
            "name": Key(values.part_name, required=True),
            "command": Key(values.argument, "argv", required=True, items=Items(1, ARGUMENTS_MAX, distinct=False)),
            "on": Key(_hook_kind, items=Items(1, len(HOOK_KINDS))),
            "timeout": Key(values.duration("100ms", "1h"), "timeout_ns"),
            "drills": Key(values.flag),
            "hold": Key(values.duration("0s", "1h"), "hold_ns"),
        },
        repeated=True,
    ),
    "alertmanager": Shape(
        {
            "name": Key(values.part_name, required=True),
            "urls": Key(values.base_url, required=True, items=Items(1, MEMBERS_MAX)),
            "on": Key(_sink_kind, items=Items(1, len(SINK_KINDS))),
            "drills": Key(values.flag),
            "hold": Key(values.duration("0s", "1h"), "hold_ns"),
            "resend": Key(values.duration("5s", "10m"), "resend_ns"),
        },
        repeated=True,
    ),
    "metrics": Shape({"hosts": Key(values.word("all", "problems", "none"))}),
    "flap": Shape(
        {
            "start": Key(values.number(1, 1000)),
            "stop": Key(values.number(0.01, 1000)),
            "half_life": Key(values.duration("1s", "1d"), "half_life_ns"),
        }
    ),
    "brake": Shape(
        {
            "window": Key(values.duration("100ms", "1h"), "window_ns"),
            "node_max": Key(values.whole(1, 1000)),
            "rack_max": Key(values.whole(1, 1000)),
            "all_max": Key(values.whole(1, 10_000)),
            "group_min": Key(values.whole(2, 1000)),
        }
    ),
}
