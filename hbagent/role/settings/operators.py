"""Operators on other hosts: in the root's file who may come and what they may, in their own where they go.

Their own file is small, and usually `~/.config/hbagent/operator.toml`::

    [operator]
    connect = "tcp://root.example:5713"
    server_key = "dc1.root.pub"
    key = "alice.key"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from . import values
from .document import Document, Key, Shape
from .keys import public_key

OPERATOR_SHAPES = {
    "operator": Shape(
        {
            "connect": Key(values.tcp_connect_address, required=True),
            "server_key": Key(values.text, required=True),
            "key": Key(values.text, required=True),
        },
        required=True,
    )
}


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may reach the root at its operators' port."""

    name: str
    #: 40 characters of Z85; empty: whatever keys the allow-list has for this name, or in plain mode none.
    public_key: str = ""
    #: read: may ask; write: may change things as well.
    right: str = "read"


class OperatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How an operator reaches the root."""

    #: The operators' port.
    connect: str
    #: The root's public key, 40 characters of Z85.
    server_key: str
    #: File of the operator's own secret key.
    key: Path


def read_operator(path: Path, text: str) -> OperatorSettings:
    """The settings in an operator's own file. Raises ConfigError with every problem of the file."""
    document = Document(path, text, OPERATOR_SHAPES)
    table = document.table("operator")
    if "server_key" in table:
        table["server_key"] = public_key(document, ("operator", "server_key"), table["server_key"], "")
    document.finish()
    table["key"] = document.absolute(table["key"])
    return OperatorSettings(**table)


def read_operators(document: Document, place: dict[str, Any], plain: bool) -> tuple[str, tuple[Operator, ...]]:
    """The operators' port, and who may use it."""
    table, tables = document.table("operators"), document.tables("operator")
    port = table.get("listen", "")
    if tables and not document.has(("operators",)):
        document.say(("operator", 0), 'nobody listens for operators: write listen = "tcp://..." below [operators]')
    if port and plain and not values.is_local(port):
        document.say_value(("operators", "listen"), port, "plain text stays on this host: write tcp://127.0.0.1:PORT")
    for other in ("publish", "control"):
        if port and place[other] == port:
            document.say_value(("operators", "listen"), port, f"[root] has this address for {other}")
    owners: dict[str, str] = {}
    found = []
    for at, operator in enumerate(tables):
        key = ""
        if "public_key" in operator and not plain:
            here = ("operator", at, "public_key")
            key = public_key(document, here, operator["public_key"], operator.get("name", ""))
            if key and owners.setdefault(key, operator.get("name", "")) != operator.get("name", ""):
                document.say_value(here, operator["public_key"], f"this is the key of {owners[key]}")
        if "name" in operator:
            found.append(Operator(**{**operator, "public_key": key}))
    return port, tuple(found)
