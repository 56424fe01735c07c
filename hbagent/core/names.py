"""Names of monitored things: `dc1` (datacenter), `dc1/rack07` (rack), `dc1/rack07/host12` (node).

A name is checked against the full grammar before anything else is done with it, so no name from a file or the
network can hold a path, an escape sequence or a shell character.
"""

from __future__ import annotations

import re

PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
_PART = re.compile(PART)
_NODE = re.compile(rf"{PART}/{PART}/{PART}")
_RACK = re.compile(rf"{PART}/{PART}")

#: Longest full name: three parts of 64 characters and two slashes.
NAME_LENGTH_MAX = 194


def is_part(text: str) -> bool:
    """True when `text` can be one part of a name."""
    return _PART.fullmatch(text) is not None


def is_rack(text: str) -> bool:
    """True for a name of two parts: a rack, a leader or a root."""
    return len(text) <= NAME_LENGTH_MAX and _RACK.fullmatch(text) is not None


def is_node(text: str) -> bool:
    """True for a name of three parts: a node."""
    return len(text) <= NAME_LENGTH_MAX and _NODE.fullmatch(text) is not None


def rack_of(node: str) -> str:
    """The rack of a node: "dc1/rack07" of "dc1/rack07/host12"."""
    return node.rpartition("/")[0]


def short_of(name: str) -> str:
    """The last part of a name: "host12" of "dc1/rack07/host12"."""
    return name.rpartition("/")[2]
