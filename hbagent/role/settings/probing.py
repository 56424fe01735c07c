"""What is probed on a host: the tables `[prober]`, `[[probe]]` and `[[app]]` of an agent's file.

What a probe may be told depends on its kind; a key of another kind is a mistake and is named as one. What would only
show when the probe runs for the first time, in the night, is looked at here: a regular expression, a program's path, a
time limit longer than the interval.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hbagent.core import checks
from hbagent.core.config import AppConfig, ProbeConfig, ProberConfig
from hbagent.core.states import Health
from hbagent.core.units import show_duration
from hbagent.probes import defaults

from . import values
from .document import Document, Items, Key, Shape
from .lines import Place

#: Most probes of one host; each has some 300 bytes in a report, of which a frame holds 64 KiB.
PROBES_MAX = 500
#: Most applications that one file may name; each may have a watched process and a memory file.
APPS_MAX = 64
#: Arguments of a command, and other things that are listed.
LISTED_MAX = 64

DEFAULT_NOTIFY = "/run/hbagent/notify"
DEFAULT_STATE_DIR = "/var/lib/hbagent/agent"
DEFAULT_HELPER = "/run/hbagent-diagnose.sock"


def _health(*words: Health) -> values.Reader:
    read = values.word(*(word.value for word in words))
    return lambda value: Health(read(value))


_BAD = (Health.WARNING, Health.CRITICAL, Health.STALLED, Health.DEADLOCKED, Health.UNKNOWN)
_WEIGHT = Key(values.number(0, 1000))
_EXPECTING = {"send": Key(values.argument), "expect": Key(values.argument)}

PROBER = Shape(
    {
        "enabled": Key(values.flag),
        "notify": Key(values.place),
        "state_dir": Key(values.place),
        "helper": Key(values.place),
        "defaults": Key(values.flag),
        "concurrency": Key(values.whole(1, 64)),
        "facts_interval": Key(values.duration("1s", "1h"), "facts_interval_ns"),
        "quorum": Key(values.number(0, 1)),
        "guests_max": Key(values.whole(0, 1000)),
        "restarts_max": Key(values.whole(0, 100)),
        "restart_window": Key(values.duration("1m", "1d"), "restart_window_ns"),
        "bundles_max": Key(values.whole(1, 1000)),
        "bundles_age": Key(values.duration("1h", "365d"), "bundles_age_ns"),
    }
)

#: What each kind of probe needs to know, and the struct that holds it.
KINDS: Mapping[str, tuple[type[Any], Mapping[str, Key]]] = {
    "exec": (
        checks.ExecCheck,
        {
            "command": Key(values.argument, "argv", required=True, items=Items(1, LISTED_MAX, distinct=False)),
            "env": Key(values.texts),
        },
    ),
    "http": (
        checks.HttpCheck,
        {
            "url": Key(values.url, required=True),
            "method": Key(values.word("GET", "HEAD", "POST", "PUT", "OPTIONS")),
            "headers": Key(values.texts),
            "status": Key(values.whole(100, 599), items=Items(1, LISTED_MAX)),
            "expect": Key(values.argument),
            "verify": Key(values.flag),
            "ca": Key(values.text),
            "certificate_days": Key(values.whole(1, 3650)),
        },
    ),
    "tcp": (
        checks.TcpCheck,
        {"host": Key(values.host, required=True), "port": Key(values.whole(1, 65535), required=True), **_EXPECTING},
    ),
    "unix": (checks.UnixCheck, {"path": Key(values.text, required=True), **_EXPECTING}),
    "process": (
        checks.ProcessCheck,
        {
            "process": Key(values.text),
            "pidfile": Key(values.text),
            "cmdline": Key(values.pattern),
            "unit": Key(values.text),
            "least": Key(values.whole(0, 100_000)),
            "most": Key(values.whole(1, 100_000)),
        },
    ),
    "unit": (checks.UnitCheck, {"unit": Key(values.text, required=True)}),
    "file": (
        checks.FileCheck,
        {
            "path": Key(values.text, required=True),
            "warning_age": Key(values.duration("1s", "3650d"), "warning_age_ns"),
            "critical_age": Key(values.duration("1s", "3650d"), "critical_age_ns"),
            "size_min": Key(values.whole(0, 1 << 60)),
            "absent": Key(values.flag),
        },
    ),
    "log": (
        checks.LogCheck,
        {
            "path": Key(values.text, required=True),
            "silence": Key(values.duration("1s", "365d"), "silence_ns"),
            "match": Key(values.pattern),
            "warning": Key(values.pattern),
            "critical": Key(values.pattern),
            "hold": Key(values.duration("1s", "1d"), "hold_ns"),
        },
    ),
    "host": (
        checks.HostCheck,
        {
            "measure": Key(values.word(*defaults.NAMES), "what", required=True),
            "warning": Key(values.number(0, 1e15)),
            "critical": Key(values.number(0, 1e15)),
            "mounts": Key(values.text, items=Items(1, LISTED_MAX)),
        },
    ),
    "neighbours": (
        checks.NeighboursCheck,
        {
            "window": Key(values.duration("1s", "1h"), "window_ns"),
            "least": Key(values.whole(1, 10_000)),
            "only": Key(values.text, items=Items(1, LISTED_MAX)),
        },
    ),
}

#: Where what runs out of time is the looking, on this host, and not an answer of the thing that is looked at.
LOOKING = ("process", "unit", "file", "log", "host", "neighbours")

PROBE = Shape(
    {
        "name": Key(values.part_name, required=True),
        "kind": Key(values.word(*KINDS), required=True),
        "interval": Key(values.duration("1s", "1d"), "interval_ns"),
        "timeout": Key(values.duration("10ms", "1h"), "timeout_ns"),
        "retry_interval": Key(values.duration("1s", "1d"), "retry_interval_ns"),
        "rise": Key(values.whole(1, 100)),
        "fall": Key(values.whole(1, 100)),
        "start_grace": Key(values.duration("0s", "1d"), "start_grace_ns"),
        "on_timeout": Key(_health(Health.CRITICAL, Health.WARNING, Health.UNKNOWN)),
        "app": Key(values.part_name),
        "weight": _WEIGHT,
    },
    repeated=True,
    kinds={kind: keys for kind, (_, keys) in KINDS.items()},
)

APP = Shape(
    {
        "name": Key(values.part_name, required=True),
        "unit": Key(values.text),
        "pidfile": Key(values.text),
        "users": Key(values.user, items=Items(1, LISTED_MAX)),
        "watchdog": Key(values.duration("100ms", "1d"), "watchdog_ns"),
        "window": Key(values.duration("100ms", "1d"), "window_ns"),
        "start_timeout": Key(values.duration("1s", "1d"), "start_timeout_ns"),
        "ttl": Key(values.duration("1s", "365d"), "ttl_ns"),
        "overdue": Key(_health(*_BAD)),
        "restart": Key(values.flag),
        "restart_on": Key(_health(*_BAD), items=Items(1, len(_BAD))),
        "weight": _WEIGHT,
    },
    repeated=True,
)


def read_prober(document: Document) -> tuple[bool, ProberConfig]:
    """Whether the agent runs a prober, and what that one does. What is wrong is noted in the document."""
    table = document.table("prober")
    enabled = table.pop("enabled", True)
    with_defaults = table.pop("defaults", True)
    table |= _places(document, table)
    probes = _probes(document)
    if with_defaults:
        named = dict.fromkeys(probe.name for probe in probes)
        probes = [*(probe for probe in defaults.PROBES if probe.name not in named), *probes]
    return enabled, ProberConfig(probes=tuple(probes), apps=tuple(_apps(document)), **table)


def _places(document: Document, table: dict[str, Any]) -> dict[str, str]:
    places = {
        "notify": table.get("notify", DEFAULT_NOTIFY),
        "state_dir": table.get("state_dir", DEFAULT_STATE_DIR),
        "helper": table.get("helper", DEFAULT_HELPER),
    }
    for name, text in places.items():
        if text and not (name == "notify" and text.startswith("@")):
            places[name] = str(document.absolute(text))
    for name in ("notify", "helper"):
        if len(os.fsencode(places[name])) > values.SOCKET_PATH_MAX:
            text = f"the whole path must be at most {values.SOCKET_PATH_MAX} bytes long: {places[name]}"
            document.say_value(("prober", name), table.get(name, places[name]), text)
    return places


# ---- probes ----------------------------------------------------------------------------------------------


def _probes(document: Document) -> list[ProbeConfig]:
    tables = document.tables("probe")
    if len(tables) > PROBES_MAX:
        document.say(("probe", PROBES_MAX), f"a host has at most {PROBES_MAX} probes")
    return [probe for at, table in enumerate(tables) if (probe := _probe(document, ("probe", at), table)) is not None]


def _probe(document: Document, place: Place, table: dict[str, Any]) -> ProbeConfig | None:
    """One probe; None when it is not whole, which the document then knows."""
    kind = table.pop("kind", "")
    if kind not in KINDS:
        return None
    make, keys = KINDS[kind]
    # A check and its probe share no key, so each takes its own.
    settings = {key.into or name: table.pop(key.into or name) for name, key in keys.items() if _held(table, name, key)}
    if any(key.required and (key.into or name) not in settings for name, key in keys.items()):
        return None
    _whole_paths(document, settings)
    check = make(**settings)
    _check_kind(document, place, check)
    if "name" not in table:
        return None
    _limit_times(document, place, table)
    if kind in LOOKING:
        table.setdefault("on_timeout", Health.UNKNOWN)
    return ProbeConfig(check=check, **table)


def _held(table: dict[str, Any], name: str, key: Key) -> bool:
    return (key.into or name) in table


def _whole_paths(document: Document, settings: dict[str, Any]) -> None:
    for name in ("path", "pidfile", "ca"):
        if settings.get(name):
            settings[name] = str(document.absolute(settings[name]))


def _limit_times(document: Document, place: Place, table: dict[str, Any]) -> None:
    """A run must be over before the next is due. What is not written gives way to what is."""
    usual = ProbeConfig(name="", check=checks.UnitCheck(unit=""))
    interval = table.get("interval_ns", usual.interval_ns)
    if "timeout_ns" not in table:
        table["timeout_ns"] = min(usual.timeout_ns, interval * 4 // 5)
    elif table["timeout_ns"] >= interval:
        _say(document, place, "timeout", f"must be shorter than the interval, {show_duration(interval)}")
    if "retry_interval_ns" not in table:
        table["retry_interval_ns"] = min(usual.retry_interval_ns, interval)
    elif table["retry_interval_ns"] > interval:
        _say(document, place, "retry_interval", f"must not be longer than the interval, {show_duration(interval)}")


def _check_kind(document: Document, place: Place, check: Any) -> None:
    """What must fit together within one kind."""
    if isinstance(check, checks.ExecCheck):
        program = _written(document, (*place, "command"))[0]
        if isinstance(program, str) and not os.path.isabs(program):
            text = "must be the absolute path of a program: no search path is looked through"
            document.say_value((*place, "command", 0), program, text)
    elif isinstance(check, checks.HttpCheck):
        _check_http(document, place, check)
    elif isinstance(check, checks.ProcessCheck):
        _check_process(document, place, check)
    elif isinstance(check, checks.FileCheck):
        _check_file(document, place, check)
    elif isinstance(check, checks.LogCheck):
        if not any(document.has((*place, key)) for key in ("silence", "warning", "critical")):
            document.say(place, "a log needs silence, warning or critical: nothing else can be wrong with it")
        elif check.match and not document.has((*place, "silence")):
            _say(document, place, "match", "says which lines break a silence, and there is no silence")
    elif isinstance(check, checks.HostCheck):
        if check.mounts and check.what not in ("disk", "inodes", "readonly"):
            _say(document, place, "mounts", f"{check.what} is not measured by mount")
        if check.warning is not None and check.critical is not None and check.warning > check.critical:
            _say(document, place, "warning", f"is more than critical, {check.critical:g}")


def _check_http(document: Document, place: Place, check: checks.HttpCheck) -> None:
    if check.url.startswith("https://"):
        if check.ca and not check.verify:
            _say(document, place, "ca", "with verify = false no certificate is looked at")
        return
    for name in ("verify", "ca", "certificate_days"):
        if document.has((*place, name)):
            _say(document, place, name, "http:// has no certificate; write https://")


def _check_process(document: Document, place: Place, check: checks.ProcessCheck) -> None:
    ways = ("process", "pidfile", "cmdline", "unit")
    if sum(document.has((*place, way)) for way in ways) != 1:
        document.say(place, f"processes are found by exactly one of {', '.join(ways)}")
    if check.most and check.most < check.least:
        _say(document, place, "most", f"is less than least, {check.least}")
    if check.least == 0 and not check.most:
        _say(document, place, "least", "with 0 and no most, nothing is ever wrong")


def _check_file(document: Document, place: Place, check: checks.FileCheck) -> None:
    if check.absent:
        for name in ("warning_age", "critical_age", "size_min"):
            if document.has((*place, name)):
                _say(document, place, name, "a file that must be absent has none")
    elif check.warning_age_ns and check.critical_age_ns and check.warning_age_ns > check.critical_age_ns:
        _say(document, place, "warning_age", f"is longer than critical_age, {show_duration(check.critical_age_ns)}")


def _say(document: Document, place: Place, key: str, text: str) -> None:
    """Note a problem with a value that is written in the file."""
    document.say_value((*place, key), _written(document, (*place, key)), text)


def _written(document: Document, place: Place) -> Any:
    here: Any = document.content
    for step in place:
        here = here[step]
    return here


# ---- applications ----------------------------------------------------------------------------------------


def _apps(document: Document) -> list[AppConfig]:
    tables = document.tables("app")
    if len(tables) > APPS_MAX:
        document.say(("app", APPS_MAX), f"a file names at most {APPS_MAX} applications")
    for at, table in enumerate(tables):
        place = ("app", at)
        if table.get("pidfile"):
            table["pidfile"] = str(document.absolute(table["pidfile"]))
        if table.get("restart") and "unit" not in table and not document.has((*place, "unit")):
            document.say(place, "restart needs a unit: systemd restarts it")
        if "restart_on" in table and not table.get("restart"):
            document.say((*place, "restart_on"), "restart_on does nothing without restart = true")
    return [AppConfig(**table) for table in tables if "name" in table]
