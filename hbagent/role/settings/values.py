"""Readers of single values: each takes what TOML gave and returns what a setting holds, or says what it must be.

A reader raises ValueError with a text that goes on from "interval = 5": `must be ...`, with an example of what is
right. It knows nothing of files and keys; `document` adds the place.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

from hbagent.core import names, units

from .problems import did_you_mean

#: Takes a TOML value; raises ValueError saying what it must be.
Reader = Callable[[Any], Any]

#: Longest text of any setting; the kernel's PATH_MAX, as paths are the longest of them.
TEXT_LENGTH_MAX = 4096
#: Longest path of a unix socket: `sun_path` has 108 bytes with its closing zero, and a longer one cannot be bound.
SOCKET_PATH_MAX = 107
#: Longest duration as text; the longest sensible one, "365d23h59m59s999ms", has half of it.
DURATION_LENGTH_MAX = 40
#: Bare seconds beyond this (30 years) overflow nothing but mean nothing either.
SECONDS_MAX = 1_000_000_000

#: Longest regular expression, and most names in a table of texts: what people write by hand.
PATTERN_LENGTH_MAX = 1000
TABLE_MAX = 64
#: Longest of those names.
NAME_LENGTH_MAX = 100

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TCP = re.compile(r"tcp://(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+|\*)):(?P<port>[0-9]{1,5})")

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})?")
_URL = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?][!-~]*)?")


def text(value: Any) -> str:
    """Any non-empty printable text."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text in quotes, and not empty")
    if len(value) > TEXT_LENGTH_MAX:
        raise ValueError(f"must be at most {TEXT_LENGTH_MAX:,} characters long")
    if not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


def argument(value: Any) -> str:
    """One argument of a command: as `text`, but it may be empty or hold a tab or a line feed."""
    if not isinstance(value, str) or len(value) > TEXT_LENGTH_MAX or "\0" in value:
        raise ValueError(f"must be a text in quotes, without a zero byte, of at most {TEXT_LENGTH_MAX:,} characters")
    return value


def place(value: Any) -> str:
    """A path, or "" for none."""
    return "" if value == "" else text(value)


def store(value: Any) -> str:
    """Where a root keeps its history. An address is looked at elsewhere: what is refused here is repeated to people,
    and an address may hold a password."""
    if isinstance(value, str) and "://" in value:
        return value
    return text(value)


def texts(value: Any) -> dict[str, str]:
    """Names and their texts: {A = "b"}."""
    if not isinstance(value, dict) or len(value) > TABLE_MAX:
        raise ValueError(f'must be a table of at most {TABLE_MAX} texts, as in {{ NAME = "text" }}')
    for name, item in value.items():
        if not name or not name.isprintable() or "=" in name or len(name) > NAME_LENGTH_MAX:
            raise ValueError("has a name that is empty, too long, or holds = or a control character")
        argument(item)
    return dict(value)


def pattern(value: Any) -> str:
    """A regular expression, as Python's `re` has it."""
    if not isinstance(value, str) or not value or len(value) > PATTERN_LENGTH_MAX:
        raise ValueError(f"must be a regular expression in quotes, of at most {PATTERN_LENGTH_MAX:,} characters")
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return value


def url(value: Any) -> str:
    """An address of a web server: "https://10.0.0.5:8443/health"."""
    match = _URL.fullmatch(value) if isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX else None
    if match is None or not 0 < int(match["port"] or 80) < 65536:
        raise ValueError('must be an address as in "http://127.0.0.1:8080/health" or "https://example.org/"')
    return str(value)


def base_url(value: Any) -> str:
    """An address of a web server that a path is added to: "http://10.0.0.5:9093"."""
    address = url(value).rstrip("/")
    if "?" in address or "#" in address:
        raise ValueError("must be an address that a path can be added to, without ? and #")
    return address


def host(value: Any) -> str:
    """A host name or a numeric address: "db1", "10.0.0.5", "::1"."""
    if not isinstance(value, str) or not (_HOST.fullmatch(value) or _packed(socket.AF_INET6, value)):
        raise ValueError('must be a host name or an address as in "db1", "10.0.0.5" or "::1"')
    return value


def user(value: Any) -> int:
    """A user of this host, by number or name."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    if not isinstance(value, str) or not 0 < len(value) <= 256 or "\0" in value:
        raise ValueError('must be the number of a user, or a name as in "www-data"')
    import pwd

    try:
        return pwd.getpwnam(value).pw_uid
    except KeyError:
        raise ValueError("no user of this host has this name; on another host write its number") from None


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false, without quotes")
    return value


def node_name(value: Any) -> str:
    """A full name of a node: "dc1/rack07/host12"."""
    if not isinstance(value, str) or not names.is_node(value):
        raise ValueError('must be a full name as in "dc1/rack07/host12": three parts of letters, digits and . _ -')
    return value


def rack_name(value: Any) -> str:
    """A full name of a rack, a leader or a root: "dc1/rack07"."""
    if not isinstance(value, str) or not names.is_rack(value):
        raise ValueError('must be a full name as in "dc1/rack07": two parts of letters, digits and . _ -')
    return value


def part_name(value: Any) -> str:
    """One part of a name: "host12"."""
    if isinstance(value, str) and names.is_node(value):
        raise ValueError(f'must be the last part alone, "{names.short_of(value)}": the rack is already named')
    if not isinstance(value, str) or not names.is_part(value):
        raise ValueError("must be a name of at most 64 letters, digits and . _ -, with a letter or digit at both ends")
    return value


def z85_key(value: Any) -> str:
    """A public key as 40 characters of Z85 (ZeroMQ RFC 32)."""
    if not isinstance(value, str) or not is_z85_key(value):
        raise ValueError('must be a public key of 40 characters (Z85), or the path of a ".pub" file')
    return value


def is_z85_key(value: str) -> bool:
    """True for 40 characters of Z85 that stand for 32 bytes."""
    if len(value) != 40 or any(character not in _Z85 for character in value):
        return False
    # Five characters of base 85 reach a little higher than four bytes do.
    groups = (value[start : start + 5] for start in range(0, 40, 5))
    return all(_base85(group) <= 0xFFFFFFFF for group in groups)


def _base85(group: str) -> int:
    number = 0
    for character in group:
        number = number * 85 + _Z85.index(character)
    return number


def bind_address(value: Any) -> str:
    """An address to listen at: "tcp://*:5701", "tcp://10.0.0.5:5701", "tcp://[::1]:5701" or "ipc:///run/x.sock"."""
    if not isinstance(value, str) or not (_is_tcp(value) or _is_ipc(value)):
        raise ValueError('must be an address as in "tcp://*:5701", "tcp://[::1]:5701" or "ipc:///run/hbagent/x.sock"')
    return value


def tcp_bind_address(value: Any) -> str:
    """A port to listen at: "tcp://*:5713", "tcp://10.0.0.5:5713" or "tcp://[::1]:5713"."""
    if not isinstance(value, str) or not _is_tcp(value):
        raise ValueError('must be an address as in "tcp://*:5713", "tcp://10.0.0.5:5713" or "tcp://[::1]:5713"')
    return value


def web_address(value: Any) -> str:
    """Where a browser connects: "127.0.0.1:8780", "[::1]:8780", or "*:8780" for all addresses."""
    match = _TCP.fullmatch(f"tcp://{value}") if isinstance(value, str) else None
    numeric = match is not None and (match["host"] in (None, "*") or _packed(socket.AF_INET, match["host"]) is not None)
    if not numeric or not _is_tcp(f"tcp://{value}"):
        raise ValueError('must be a numeric address and a port as in "127.0.0.1:8780", "[::1]:8780" or "*:8780"')
    return str(value)


def connect_address(value: Any) -> str:
    """An address to connect to: "tcp://rack07-leader1:5701", "tcp://[::1]:5701" or "ipc:///run/x.sock"."""
    if not isinstance(value, str) or not (_is_tcp(value) or _is_ipc(value)):
        raise ValueError('must be an address as in "tcp://10.0.0.5:5701" or "ipc:///run/hbagent/x.sock"')
    if value.startswith(("tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:")):
        raise ValueError("must be the address of one host: this one can only be listened at")
    return value


def tcp_connect_address(value: Any) -> str:
    """A port to connect to: "tcp://10.0.0.5:5713", "tcp://root.example:5713" or "tcp://[::1]:5713"."""
    if not isinstance(value, str) or not _is_tcp(value):
        raise ValueError('must be an address as in "tcp://root.example:5713" or "tcp://[::1]:5713"')
    return str(connect_address(value))


def query_address(value: Any) -> str:
    """A unix socket for the command line: "ipc:///run/hbagent-root/root.sock"."""
    if not isinstance(value, str) or not _is_ipc(value):
        raise ValueError('must be a unix socket as in "ipc:///run/hbagent-root/root.sock"')
    return value


def _is_tcp(value: str) -> bool:
    match = _TCP.fullmatch(value)
    if match is None or not 0 < int(match["port"]) < 65536:
        return False
    return match["six"] is None or _packed(socket.AF_INET6, match["six"]) is not None


def _is_ipc(value: str) -> bool:
    # "@" would name a socket outside the file system, which has no owner and no mode that could guard it; "*" lets
    # libzmq choose a name that nobody else can know.
    path = value.removeprefix("ipc://")
    return path != value and path.isprintable() and path not in ("", "*") and not path.startswith("@")


def is_local(address: str) -> bool:
    """True when what is sent to `address` never leaves this host: a unix socket, 127.0.0.0/8 or ::1.

    "localhost" is not: which address it means is for a resolver to say.
    """
    match = _TCP.fullmatch(address)
    if match is None:
        return address.startswith("ipc://")
    if match["six"] is not None:
        return _packed(socket.AF_INET6, match["six"]) == bytes(15) + b"\x01"
    packed = _packed(socket.AF_INET, match["host"])
    return packed is not None and packed[0] == 127


def ip_address(value: Any) -> str:
    """A numeric address of this host: "0.0.0.0", "::", "10.0.0.5"."""
    families = (socket.AF_INET, socket.AF_INET6)
    if not isinstance(value, str) or not any(_packed(family, value) for family in families):
        raise ValueError('must be a numeric address as in "0.0.0.0", "10.0.0.5" or "::"')
    return value


def _packed(family: int, host: str) -> bytes | None:
    try:
        return socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None


def duration(least: str, most: str) -> Reader:
    """A reader of durations from `least` to `most`, as nanoseconds; "250ms", or a bare number of seconds."""
    least_ns, most_ns = units.parse_duration(least), units.parse_duration(most)

    def read(value: Any) -> int:
        value_ns = _nanoseconds(value)
        if value_ns is None:
            raise ValueError('must be a duration as in "250ms", "1.5s" or "1h30m", or a bare number of seconds')
        if not least_ns <= value_ns <= most_ns:
            raise ValueError(f"must be from {least} to {most}")
        return value_ns

    return read


def _nanoseconds(value: Any) -> int | None:
    if isinstance(value, str) and len(value) <= DURATION_LENGTH_MAX:
        try:
            return units.parse_duration(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= SECONDS_MAX:
        return units.seconds(value)
    return None


def whole(least: int, most: int) -> Reader:
    """A reader of whole numbers from `least` to `most`."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least:,} to {most:,}")
        return value

    return read


def number(least: float, most: float) -> Reader:
    """A reader of numbers from `least` to `most`."""

    def read(value: Any) -> float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
        if not fits:
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return float(value)

    return read


def word(*known: str) -> Reader:
    """A reader of one of the `known` words."""

    def read(value: Any) -> str:
        if value not in known:
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            raise ValueError(f"must be one of {', '.join(known)}{hint}")
        return str(value)

    return read
