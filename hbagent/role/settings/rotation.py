"""The second pair of ports, while the key of a leader or of the root is changed.

A client knows a server by its key, so two keys cannot share a port. `[rotation]` names the next key and two ports that
are served with it, exactly as the first two; one by one the clients move there, and then the next key and its ports
become the daemon's own::

    [rotation]
    key = "leader-next.key"
    publish = "tcp://*:5721"
    control = "tcp://*:5722"
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from . import values
from .document import Document, Key, Shape
from .keys import secret_key

ROTATION = Shape(
    {
        "key": Key(values.text, required=True),
        "publish": Key(values.tcp_bind_address, required=True),
        "control": Key(values.tcp_bind_address, required=True),
    }
)


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """The next key, and where it is served beside the present one."""

    #: File of the next secret key, or `credential:NAME`.
    key: Path
    publish: str
    control: str


def read_rotation(document: Document, taken: Mapping[str, str], key: Path | None, plain: bool) -> Rotation | None:
    """What `[rotation]` says, if it is there and whole. `taken` are the other addresses listened at, by what they are
    for; `key` is the file of the present key."""
    table = document.table("rotation")
    if not table:
        return None
    if plain:
        document.say(("rotation",), "plain text has no key that could be changed: remove it, or plain = true")
    ports = {_port(address): name for name, address in taken.items() if address.startswith("tcp://")}
    for name in ("publish", "control"):
        if name not in table:
            continue
        port = _port(table[name])
        if port in ports:
            text = f"this port is already that of {ports[port]}: each key needs ports of its own"
            document.say_value(("rotation", name), table[name], text)
        ports[port] = f"[rotation] {name}"
    if "key" not in table:
        return None
    file = secret_key(document, ("rotation", "key"), table["key"])
    if file == key:
        document.say_value(("rotation", "key"), table["key"], "this is the present key, of [security]; name the next")
    return Rotation(**{**table, "key": file}) if len(table) == len(ROTATION.keys) else None


def _port(address: str) -> str:
    return address.rpartition(":")[2]
