"""Writes the reference pages of docs/: every setting, every command, every message on the wire, each from the code.

A setting's type, range and default come from the reader that takes it and the struct that keeps it; what it means is
the comment of its line in etc/, which is what its reader sees first. A field of a message has the comment that stands
above it in `core/messages.py`. `tools/manual.py` writes these pages beside the manual's.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from hbagent.cli.tree import Argument, Command
from hbagent.core import messages
from hbagent.core.config import (
    AgentConfig,
    AppConfig,
    BrakeConfig,
    DetectorConfig,
    FlapConfig,
    HookConfig,
    LeaderConfig,
    ProbeConfig,
    ProberConfig,
    RackConfig,
    RootConfig,
    SinkConfig,
)
from hbagent.core.units import DAY, HOUR, MICROSECOND, MILLISECOND, MINUTE, SECOND
from hbagent.role.settings import load, values
from hbagent.role.settings.document import Key, Shape
from hbagent.role.settings.operators import OPERATOR_SHAPES, Operator, OperatorSettings
from hbagent.role.settings.probing import KINDS
from hbagent.role.settings.schema import AGENT_SHAPES, LEADER_SHAPES, ROOT_SHAPES
from hbagent.wire import codec
from hbagent.wire.version import MAJOR, MINOR

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

SHAPES: Mapping[str, Mapping[str, Shape]] = {
    "agent": AGENT_SHAPES,
    "leader": LEADER_SHAPES,
    "root": ROOT_SHAPES,
    "operator": OPERATOR_SHAPES,
}
#: Where the defaults are that no shipped file shows, by table.
KEEPERS: Mapping[str, tuple[type[Any], ...]] = {
    "agent": (AgentConfig, load.AgentSettings),
    "leader": (LeaderConfig, load.LeaderSettings),
    "root": (RootConfig, load.RootSettings),
    "security": (load.Security,),
    "log": (load.Logging,),
    "web": (load.Web,),
    "prober": (ProberConfig,),
    "probe": (ProbeConfig,),
    "app": (AppConfig,),
    "detector": (DetectorConfig,),
    "doubt": (LeaderConfig,),
    "rack": (RackConfig,),
    "hook": (HookConfig,),
    "alertmanager": (SinkConfig,),
    "flap": (FlapConfig,),
    "brake": (BrakeConfig,),
    "operator": (Operator, OperatorSettings),
}

SECTION = re.compile(r"#? *(\[\[?[a-z_.]+\]?\])$")
KEY = re.compile(r"(?:#(?P<optional>  )?)?(?P<key>[a-z_]+) = (?P<value>.*)$")


class Entry(NamedTuple):
    """One key as a shipped file shows it."""

    table: str
    key: str
    value: str
    #: The line is "#key = value": the value is the default.
    is_default: bool
    #: The comment above it; "" when it shares that of the key before it.
    told: str
    #: The kind that the lines above name, of tables that have kinds.
    kind: str


class Setting(NamedTuple):
    """One row of the reference."""

    key: str
    type: str
    range: str
    default: str
    meaning: str


# ---- settings --------------------------------------------------------------------------------------------


def entries(source: str) -> Iterator[Entry]:
    """Every key of a shipped file, in order, with the comment that belongs to it."""
    table = kind = ""
    told: list[str] = []
    for line in source.splitlines():
        section, key = SECTION.match(line), KEY.match(line)
        if section:
            table, kind = section[1].strip("[]"), ""
            told.clear()
        elif key and (line.startswith("#  ") or not line.startswith("# ")):
            kind = key["value"].strip('"') if key["key"] == "kind" else kind
            is_default = line.startswith("#") and not key["optional"]
            yield Entry(table, key["key"], key["value"], is_default, _sentence(told), kind)
            told.clear()
        elif line.startswith("# "):
            told.append(line[1:])
        else:
            told.clear()


def heads(source: str) -> dict[str, str]:
    """What is said of each table above its first line; "" where nothing is."""
    found: dict[str, str] = {}
    told: list[str] = []
    for line in source.splitlines():
        section = SECTION.match(line)
        if section:
            found.setdefault(section[1].strip("[]"), _sentence(told))
            told.clear()
        elif line.startswith("# "):
            told.append(line[1:])
        else:
            told.clear()
    return found


def _sentence(told: Sequence[str]) -> str:
    """Comment lines as one text; lists that keep their form stay apart by semicolons."""
    text = ""
    for line in told:
        apart = ";" if line.startswith("   ") and text and text[-1] not in ":;." else ""
        text += f"{apart} {line.strip()}"
    return text.strip()


def settings(role: str, table: str, kind: str = "") -> list[Setting]:
    """The rows of one table of a file; with `kind`, those that only tables of this kind have."""
    shape = SHAPES[role][table]
    shown = [entry for entry in _shipped(role) if entry.table == table]
    rows: list[Setting] = []
    keys = shape.kinds[kind] if kind else shape.keys
    of_kind = [entry for entry in shown if entry.kind == kind] if kind else shown
    # What is said of a kind is said of its first key.
    before, opening = "", next((entry.told for entry in of_kind if entry.key == "kind" and kind and entry.told), "")
    for name in _ordered(keys, [entry.key for entry in of_kind]):
        key = keys[name]
        here = [entry for entry in of_kind if entry.key == name]
        meaning = next((entry.told for entry in here if entry.told), "") or opening or _kept_comment(table, name, key)
        opening = ""
        type_, range_ = type_and_range(key)
        rows.append(Setting(name, type_, range_, _default(table, name, key, here, kind), meaning or f"see `{before}`"))
        before = name if meaning else before
    return rows


def _ordered(keys: Mapping[str, Key], shown: Sequence[str]) -> list[str]:
    """Keys in the order of the shipped file, which is that of its comments; then those that it does not show."""
    return [name for name in dict.fromkeys([*shown, *keys]) if name in keys]


@cache
def _shipped(role: str) -> tuple[Entry, ...]:
    file = ROOT / "etc" / f"{role}.toml"
    return tuple(entries(file.read_text("utf-8"))) if file.exists() else ()


def _kept_comment(table: str, name: str, key: Key) -> str:
    """What the struct that keeps it says of a key that no shipped file explains."""
    for keeper in KEEPERS.get(table, ()):
        told = comments(Path(inspect.getfile(keeper))).get(keeper.__name__, {})
        if told.get(key.into or name):
            return told[key.into or name]
    return ""


def type_and_range(key: Key) -> tuple[str, str]:
    """What a key takes: what it is, and which of those; the second may be ""."""
    name, limits = _type_and_range(key.read)
    if key.items is None:
        return name, limits
    counted = f"{key.items.least} to {key.items.most:,}"
    return f"list of {counted}: {name}", limits


def _type_and_range(read: values.Reader) -> tuple[str, str]:
    held = inspect.getclosurevars(read).nonlocals
    made_by = read.__qualname__.partition(".")[0]
    if made_by == "duration":
        return "duration", f"{held['least']} to {held['most']}"
    if made_by == "whole":
        return "whole number", f"{held['least']:,} to {held['most']:,}"
    if made_by == "number":
        return "number", f"{held['least']:g} to {held['most']:g}"
    words = _words(read)
    if words:
        return "word", ", ".join(f"`{word}`" for word in words)
    if read is values.flag:
        return "true or false", ""
    if read is values.argument:
        return "text", ""
    first = " ".join((inspect.getdoc(read) or made_by).split("\n\n")[0].split())
    type_, _, range_ = first.removesuffix(".").partition(". ")[0].partition(": ")
    return re.sub(r"^(An?|Any|One) ", "", type_), f"as in {range_}" if range_.startswith('"') else range_


def _words(read: values.Reader) -> list[str]:
    """The words that a reader knows, as it tells them itself; none where it takes something else."""
    try:
        read(object())
    except ValueError as error:
        _, found, words = str(error).partition("must be one of ")
        return words.split(", ") if found else []
    return []


def _default(table: str, name: str, key: Key, shown: Sequence[Entry], kind: str) -> str:
    if key.required:
        return "required"
    if table == "security" and name in ("key", "allow"):
        return "required without `plain`"
    for entry in shown:
        if entry.is_default:
            return f"`{entry.value}`"
    into = key.into or name
    keepers: tuple[type[Any], ...] = (KINDS[kind][0],) if kind else KEEPERS.get(table, ())
    for keeper in keepers:
        for field in msgspec.structs.fields(keeper):
            if field.name == into and not field.required:
                value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
                return _toml(value, key, into.endswith("_ns"))
    return "none"


def _toml(value: Any, key: Key, is_duration: bool) -> str:
    """A default as it would be written; "none" for what stands for nothing and could not be written."""
    written = _written(value, is_duration)
    try:
        if value is None or (isinstance(value, (tuple, dict)) and not value):
            return "none"
        for item in value if key.items is not None else (value,):
            key.read(_span(item) if is_duration else item.value if isinstance(item, enum.Enum) else item)
    except (ValueError, TypeError):
        return "none"
    return f"`{written}`"


def _written(value: Any, is_duration: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_written(item, is_duration) for item in value)}]"
    if isinstance(value, enum.Enum):
        return f'"{value.value}"'
    if is_duration:
        return f'"{_span(value)}"'
    return f'"{value}"' if isinstance(value, str) else str(value)


def _span(span_ns: int) -> str:
    """A duration in the largest unit that makes it a whole number."""
    units = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND, "us": MICROSECOND, "ns": 1}
    unit = next((unit for unit, size in units.items() if span_ns and span_ns % size == 0), "s")
    return f"{span_ns // units[unit]}{unit}"


def config_page() -> str:
    """docs/reference-config.md."""
    lines = [
        "# Reference of the config files",
        "",
        *_filled(
            "Every key of every file that hbagent reads, printed from the code by `python tools/manual.py`. What "
            "follows from one setting for another is told in the files of `etc/`, in the same words; the manual has "
            "them as hbagent.toml(5). `hbagent check-config FILE` tells everything that is wrong with a file."
        ),
        "",
        *_filled(
            'A duration is `"250ms"`, `"1.5s"` or `"1h30m"` (ns us ms s m h d), or a bare number of seconds. A '
            "relative path starts at the directory of its file. A key that is not known is a mistake, and so is one "
            "in the wrong table. `[[name]]` may stand there several times."
        ),
        "",
        _contents(SHAPES),
        "",
    ]
    for role in SHAPES:
        lines += [f"## {role}.toml", "", *_config_tables(role)]
    return "\n".join(lines)


def _contents(roles: Iterable[str]) -> str:
    return "- " + " · ".join(f"[{role}.toml](#{role}toml)" for role in roles)


def _config_tables(role: str) -> Iterator[str]:
    file = ROOT / "etc" / f"{role}.toml"
    above = heads(file.read_text("utf-8")) if file.exists() else {}
    if not above:
        yield from _filled(
            "Where an operator reaches the root from; usually `~/.config/hbagent/operator.toml`. See "
            "[operators](operators.md#from-elsewhere)."
        )
        yield ""
    for table, shape in SHAPES[role].items():
        brackets = f"[[{table}]]" if shape.repeated else f"[{table}]"
        yield from (f"### {role}.toml: {brackets}", "")
        words = [above.get(table, ""), "It must be there." if shape.required else ""]
        if any(words):
            yield from (*_filled(" ".join(filter(None, words))), "")
        yield from _setting_table(settings(role, table))
        for kind in shape.kinds:
            yield from (f'Of `kind = "{kind}"`, see [probes](probes.md#{kind}):', "")
            yield from _setting_table(settings(role, table, kind))


def _setting_table(rows: Iterable[Setting]) -> Iterator[str]:
    yield from ("| key | type | range | default | meaning |", "|---|---|---|---|---|")
    for row in rows:
        yield _row(f"`{row.key}`", row.type, row.range, row.default, row.meaning)
    yield ""


#: Ports that a daemon binds: role, table, key, protocol, who calls, what for.
_PORTS = (
    ("root", "root", "publish", "TCP", "leaders", "summaries and reports"),
    ("root", "root", "control", "TCP", "leaders", "changes, acknowledged; questions"),
    ("leader", "leader", "publish", "TCP", "agents of its racks", "beats and reports"),
    ("leader", "leader", "control", "TCP", "agents of its racks, other leaders of them", "everything with an answer"),
    ("agent", "echo", "port", "UDP, TCP", "leaders and hosts of its rack", "signed questions of 48 bytes"),
    ("root", "rotation", "publish", "TCP", "leaders", "while the root's key is changed"),
    ("root", "rotation", "control", "TCP", "leaders", "the same"),
    ("leader", "rotation", "publish", "TCP", "agents", "while the leader's key is changed"),
    ("leader", "rotation", "control", "TCP", "agents, other leaders", "the same"),
    ("root", "operators", "listen", "TCP", "operators", "commands from elsewhere; off until it is written"),
    ("root", "web", "listen", "TCP", "browsers, Prometheus", "HTTP without a login; off until it is written"),
    ("leader", "web", "listen", "TCP", "Prometheus", "the same"),
)


def port_table() -> str:
    """Every port that a daemon listens at, with its default or the example of its shipped file."""
    lines = ["| port | of | who calls | what for | setting |", "|---|---|---|---|---|"]
    for role, table, key, protocol, who, what in _PORTS:
        if table not in SHAPES[role]:
            continue
        shown = [entry.value for entry in _shipped(role) if (entry.table, entry.key) == (table, key)]
        (port,) = re.findall(r"(\d{4,5})\"?$", shown[0])
        lines.append(_row(f"{port} {protocol}", role, who, what, f"`{key}` of `[{table}]`"))
    return "\n".join([*lines, ""])


# ---- commands --------------------------------------------------------------------------------------------


def cli_page(
    every: Sequence[Command], plugin: Command, codes: Sequence[tuple[str, str]], exits: Mapping[str, str]
) -> str:
    """docs/reference-cli.md."""
    lines = [
        "# Reference of the command line",
        "",
        *_filled(
            "Every command with its options, printed from the parsers by `python tools/manual.py`; the manual has "
            "them as hbagent(1). `hbagent COMMAND --help` says the same. Options are written out in full."
        ),
        "",
        *_filled("- [Exit codes](#exit-codes)"),
        *_filled("- " + " · ".join(f"[{c.name}](#hbagent-{c.name})" for c in every), "  "),
        f"- [{plugin.name}](#{plugin.name})",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(_row(code, meaning) for code, meaning in codes),
        "",
    ]
    for command in every:
        lines += _command("hbagent ", command, exits, "##")
    lines += _command("", plugin, exits, "##")
    return "\n".join(lines)


def _command(before: str, command: Command, exits: Mapping[str, str], level: str) -> Iterator[str]:
    name = f"{before}{command.name}"
    yield from (f"{level} {name}", "")
    yield from (*_filled(f"{command.line[:1].upper()}{command.line[1:]}."), "")
    if not command.below:
        yield from (f"`{_usage(name, command)}`", "")
    told = [argument for argument in (*command.values, *command.options) if argument.words != ("-h", "--help")]
    if told and not command.below:
        yield from ("| argument | meaning |", "|---|---|")
        for argument in told:
            yield _row(f"`{_label(argument)}`", _choices(argument) + " ".join(argument.help.split()))
        yield ""
    if command.epilog and "\n  " in command.epilog:
        yield from ("```", *command.epilog.strip("\n").splitlines(), "```", "")
    elif command.epilog:
        yield from (*_filled(" ".join(command.epilog.split())), "")
    if command.name in exits:
        yield from (*_filled(f"Exit codes: {exits[command.name]}."), "")
    for below in command.below:
        yield from _command(before, below, exits, "###")


def _usage(name: str, command: Command) -> str:
    parts = [name, *(["[OPTIONS]"] if len(command.options) > 1 else [])]
    parts += [_label(option) for option in command.options if option.required]
    parts += [f"{value.value}{' ...' * value.many}" for value in command.values]
    return " ".join([*parts, *(["-- COMMAND ..."] if command.takes_rest else [])])


def _label(argument: Argument) -> str:
    return " ".join(filter(None, [", ".join(argument.words), argument.value]))


def _choices(argument: Argument) -> str:
    required = "required; " if argument.required and argument.words else ""
    again = "may be repeated; " if argument.many and argument.words and "repeated" not in argument.help else ""
    words = f"one of {', '.join(argument.choices)}; " if argument.choices and argument.choices[0] else ""
    return required + again + words


# ---- messages --------------------------------------------------------------------------------------------


@cache
def comments(file: Path) -> dict[str, dict[str, str]]:
    """Class -> field -> the "#:" comment above it, of the structs of a file."""
    source = file.read_text("utf-8")
    lines, found = source.splitlines(), dict[str, dict[str, str]]()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        found[node.name] = {item.target.id: _above(lines, item.lineno) for item in fields}  # type: ignore[union-attr]
    return found


def _above(lines: Sequence[str], number: int) -> str:
    told: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.lstrip().startswith("#:"):
            break
        told.insert(0, line.lstrip()[2:].strip())
    return " ".join(told)


def version_line() -> str:
    """Which protocol this is."""
    return f"This is major {MAJOR}, minor {MINOR}.\n"


def type_table() -> str:
    """Every type byte, in order."""
    lines = ["| type | message | what it is |", "|---|---|---|"]
    for code, message in sorted(codec.TYPES.items()):
        lines.append(_row(f"`0x{code:02x}`", f"[{message.__name__}](#{message.__name__.lower()})", _purpose(message)))
    return "\n".join([*lines, ""])


def field_tables() -> str:
    """Every message with its fields, and then every struct that stands in one."""
    lines: list[str] = []
    for code, message in sorted(codec.TYPES.items()):
        lines += [f"#### {message.__name__}", "", *_filled(f"`0x{code:02x}`. {_purpose(message)}"), ""]
        lines += _field_table(message)
    for struct in _inner():
        lines += [f"#### {struct.__name__}", "", *_filled(_purpose(struct)), "", *_field_table(struct)]
    return "\n".join(lines)


def word_tables() -> str:
    """Every vocabulary, with all of its words."""
    lines = ["| vocabulary | words |", "|---|---|"]
    for words in sorted(_vocabularies(), key=lambda words: words.__name__):
        lines.append(_row(f"`{words.__name__}`", ", ".join(f"`{word.value}`" for word in words)))
    return "\n".join([*lines, ""])


def _purpose(struct: type[Any]) -> str:
    return " ".join((inspect.getdoc(struct) or "").split())


def _field_table(struct: type[Any]) -> Iterator[str]:
    told = comments(Path(inspect.getfile(struct)))[struct.__name__]
    hints = get_type_hints(struct)
    fields = msgspec.structs.fields(struct)
    if not fields:
        return
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    for field in fields:
        default = "required" if field.required else f"`{_wire_default(field)}`"
        yield _row(f"`{field.encode_name}`", _wire_type(hints[field.name]), default, told.get(field.name, ""))
    yield ""


def _wire_default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, enum.Enum):
        return f'"{value.value}"'
    if isinstance(value, msgspec.Struct):
        return "{}"
    if isinstance(value, bytes):
        return "empty"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, tuple):
        return "[]"
    if value is None:
        return "nil"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _wire_type(hint: Any) -> str:
    """A field's type as msgpack has it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"array of {_wire_type(inner[0])}"
    if origin is dict:
        return f"map of {_wire_type(inner[0])} to {_wire_type(inner[1])}"
    if type(None) in inner:
        return f"{_wire_type(Union[tuple(one for one in inner if one is not type(None))])} or nil"
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return f"word of `{hint.__name__}`"
    if inspect.isclass(hint) and issubclass(hint, msgspec.Struct):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return {int: "integer", float: "float", str: "text", bytes: "binary", bool: "boolean"}.get(hint, str(hint))


def _hinted() -> Iterator[Any]:
    """Every type that a field of a message has, messages and what stands in them alike."""
    waiting, seen = list[type[Any]](codec.TYPES.values()), set[type[Any]]()
    while waiting:
        struct = waiting.pop(0)
        if struct in seen:
            continue
        seen.add(struct)
        hints = list(get_type_hints(struct).values())
        while hints:
            hint = hints.pop(0)
            hints += get_args(hint)
            if inspect.isclass(hint) and hint.__module__.startswith("hbagent."):
                yield hint
                if issubclass(hint, msgspec.Struct):
                    waiting.append(hint)


def _inner() -> list[type[Any]]:
    """Structs that stand in messages, in the order of the source."""
    order = list(vars(messages).values())
    found = {hint for hint in _hinted() if issubclass(hint, msgspec.Struct)}
    return sorted(found, key=order.index)


def _vocabularies() -> set[type[enum.Enum]]:
    return {hint for hint in _hinted() if issubclass(hint, enum.Enum)}


# ---- Markdown --------------------------------------------------------------------------------------------


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _filled(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def replaced(text: str, name: str, content: str) -> str:
    """`text` with another content between the marks of a section."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = text.partition(start)
    return before + start + content + end + rest.partition(end)[2]
