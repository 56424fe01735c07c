"""Plain values as TOML: tables and lists of tables at the top, everything below them in line.

Ansible has a reader of TOML and no writer. This one writes what a config file of hbagent may hold, in the order in
which it is given, so that a file changes when its content does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def to_toml(content: Mapping[str, Any]) -> str:
    """A whole document. None is left out; what TOML has no word for raises ValueError."""
    plain = {key: value for key, value in content.items() if value is not None and not _is_table(value)}
    parts = [_lines(plain)] if plain else []
    for key, value in content.items():
        if isinstance(value, Mapping):
            parts.append(f"[{_key(key)}]\n{_lines(value)}")
        elif value is not None and _is_table(value):
            parts += [f"[[{_key(key)}]]\n{_lines(row)}" for row in value]
    return "\n".join(parts)


def _is_table(value: Any) -> bool:
    rows = isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(row, Mapping) for row in value)
    return rows or isinstance(value, Mapping)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items() if value is not None)


def _key(key: Any) -> str:
    text = str(key)
    return text if _BARE.fullmatch(text) else _string(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(float(value)), repr(float(value)))
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    raise ValueError(f"{value!r} has no form in TOML: write a text, a number, true or false, a list or a mapping.")


def _string(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(c) or (c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}") for c in text) + '"'


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"to_toml": to_toml}
