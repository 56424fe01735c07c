"""The allow-list: which key may speak, under which name, in which role.

`allow.toml` has a table to a role, and a list of keys to a name, so that a key can be rotated: enrol the new one
beside the old, move the node over, revoke the old::

    [agents]
    "dc1/rack07/host12" = ["<public key, 40 characters of Z85>"]

    [leaders]
    "dc1/rack07-leader1" = ["<public key>"]

    [operators]
    "alice" = ["<public key>"]

An `AllowList` never changes: a reload makes a new one, and whoever uses it swaps one reference. Think of it as
two indices over the same peers: by raw key for a handshake, by user id for each message afterwards.

The user id of a connection is its *key*, not its name. Were it the name, a stolen key that was revoked while its
successor is enrolled would keep its living connection for ever; a key that is gone from the list is gone.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hbagent.core.names import is_node, is_part, is_rack
from hbagent.transport.keys import is_key, raw_key

#: 100,000 peers with two keys each are about 12 MB.
ALLOW_FILE_SIZE_MAX = 16 * 1024 * 1024

#: Keys of one name: the old, the new, and one to spare. More is a mistake that nobody would notice.
KEYS_PER_NAME_MAX = 3

_HEADER = """\
# Who may speak: public keys by role and name. Written by `hbagent keys`; comments are not kept.
# A daemon reads this again when it changes. Whoever can write this file decides who may speak.
"""


class Role(str, enum.Enum):
    """What a key may be used for. The value is the name of the table in the file."""

    AGENT = "agents"
    LEADER = "leaders"
    OPERATOR = "operators"


_GRAMMAR = {Role.AGENT: is_node, Role.LEADER: is_rack, Role.OPERATOR: is_part}
_SHAPE = {
    Role.AGENT: "the three parts of a node, dc/rack/host",
    Role.LEADER: "the two parts of a leader, dc/leader",
    Role.OPERATOR: "one word, letters digits . _ -",
}


class AllowError(Exception):
    """An allow-list that cannot be used; `problems` has every one, as `FILE:LINE: what`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Peer(msgspec.Struct, frozen=True):
    """One admitted key."""

    role: Role
    name: str
    #: What libzmq puts on each message of the connection: the public key in Z85; in plain mode the name.
    user_id: str


class AllowList:
    """Who may speak. Immutable; `allow` and `revoke` return a new list."""

    __slots__ = ("_by_key", "_by_user_id", "peers")

    def __init__(self, peers: Iterable[Peer] = ()) -> None:
        self.peers: tuple[Peer, ...] = tuple(peers)
        self._by_user_id = {peer.user_id: peer for peer in self.peers}
        self._by_key = {raw: peer for peer in self.peers if (raw := raw_key(peer.user_id)) is not None}

    @classmethod
    def named(cls, role: Role, names: Iterable[str]) -> AllowList:
        """The list for plain mode, in which a peer is whoever it says it is: its user id is its name."""
        return cls(Peer(role, name, name) for name in names)

    def by_key(self, raw: bytes) -> Peer | None:
        """The peer of a 32-byte public key."""
        return self._by_key.get(raw)

    def by_user_id(self, user_id: str) -> Peer | None:
        """The peer of the user id that libzmq found on a message."""
        return self._by_user_id.get(user_id)

    def senders(self, role: Role) -> dict[str, str]:
        """User id to name, of one role: the dictionary that an intake looks each message up in."""
        return {peer.user_id: peer.name for peer in self.peers if peer.role is role}

    def with_leaders(self, leaders: Mapping[str, Iterable[str]]) -> AllowList:
        """With these leaders, by name and user ids, and no other; whoever else has such a user id has it no more."""
        added = [Peer(Role.LEADER, name, user_id) for name, user_ids in leaders.items() for user_id in user_ids]
        taken = {peer.user_id for peer in added}
        kept = [peer for peer in self.peers if peer.role is not Role.LEADER and peer.user_id not in taken]
        return AllowList((*kept, *added))

    def with_operators(self, operators: Mapping[str, str]) -> AllowList:
        """With these operators, by name and user id ("" for those that this list has for the name), and no other.

        A user id that is somebody else's stays theirs.
        """
        kept = [peer for peer in self.peers if peer.role is not Role.OPERATOR or operators.get(peer.name, "none") == ""]
        taken = {peer.user_id for peer in kept}
        added = [Peer(Role.OPERATOR, name, user_id) for name, user_id in operators.items() if user_id]
        return AllowList((*kept, *(peer for peer in added if peer.user_id not in taken)))

    def allow(self, role: Role, name: str, key: str) -> AllowList:
        """With one more key. Raises ValueError for a bad name or key, one that is taken, or too many for the name."""
        problem = _name_problem(role, name) or ("" if is_key(key) else f"{key!r} is not a key of 40 Z85 characters")
        if problem:
            raise ValueError(problem)
        known = self._by_user_id.get(key)
        if known is not None:
            if (known.role, known.name) == (role, name):
                return self
            raise ValueError(f"the key of {name} is already enrolled as {known.name} in [{known.role.value}]")
        if sum(peer.name == name and peer.role is role for peer in self.peers) >= KEYS_PER_NAME_MAX:
            raise ValueError(f"{name} has {KEYS_PER_NAME_MAX} keys already; revoke one first")
        return AllowList((*self.peers, Peer(role, name, key)))

    def revoke(self, name: str, key: str | None = None) -> AllowList:
        """Without the keys of `name`, or without that one. Raises KeyError when there is nothing to revoke."""
        kept = [peer for peer in self.peers if peer.name != name or (key is not None and peer.user_id != key)]
        if len(kept) == len(self.peers):
            raise KeyError(name)
        return AllowList(kept)


def load(path: Path) -> AllowList:
    """The allow-list in a file. Raises AllowError with all its problems.

    A file that group or others can write is refused: who may speak would be their decision.
    """
    text = _read(path)
    import tomli  # an agent has no allow-list and does not pay for this

    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise AllowError([f"{path}: {error}"]) from error
    return _build(path, text, document)


def save(path: Path, allow: AllowList) -> None:
    """Replace the file by this list, atomically and durably; mode and owner of an existing file are kept.

    Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        before: os.stat_result | None = path.stat()
    except FileNotFoundError:
        before = None
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            if before is not None:
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
            file.write(show(allow))
            file.flush()
            os.fsync(descriptor)
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def editing(path: Path) -> Iterator[AllowList]:
    """Hold the file against other editors, give its list (empty when there is no file); `save` inside the block.

    Raises AllowError, OSError.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield load(path) if path.exists() else AllowList()
    finally:
        os.close(directory)


def show(allow: AllowList) -> str:
    """The list as TOML, sorted, so that two versions of the file can be compared."""
    parts = [_HEADER]
    for role in Role:
        parts.append(f"\n[{role.value}]\n")
        names: dict[str, list[str]] = {}
        for peer in allow.peers:
            if peer.role is role:
                names.setdefault(peer.name, []).append(peer.user_id)
        # Neither a name nor Z85 has a quote, a backslash or a control character.
        parts.extend(
            f'"{name}" = [{", ".join(f"{chr(34)}{key}{chr(34)}" for key in names[name])}]\n' for name in sorted(names)
        )
    return "".join(parts)


def _read(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & 0o022:
                mode = stat.S_IMODE(status.st_mode)
                raise AllowError([f"{path}: mode {mode:04o} lets others decide who may speak; chmod 644 or less"])
            data = file.read(ALLOW_FILE_SIZE_MAX + 1)
    except OSError as error:
        raise AllowError([f"{path}: {error.strerror}"]) from error
    if len(data) > ALLOW_FILE_SIZE_MAX:
        raise AllowError([f"{path}: larger than {ALLOW_FILE_SIZE_MAX} bytes"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AllowError([f"{path}: not UTF-8 text: {error.reason} at byte {error.start}"]) from error


def _build(path: Path, text: str, document: dict[str, Any]) -> AllowList:
    roles = {role.value: role for role in Role}
    lines = text.splitlines()
    problems: list[str] = []
    peers: list[Peer] = []
    owner: dict[str, str] = {}
    for table, entries in document.items():
        role = roles.get(table)
        if role is None or not isinstance(entries, dict):
            tables = ", ".join(f"[{value}]" for value in roles)
            problems.append(f"{path}:{_line_of(lines, table)}: {table!r} is none of the tables {tables}")
            continue
        for name, keys in entries.items():
            where = f"{path}:{_line_of(lines, name)}: [{table}] {name!r}"
            for problem in _entry_problems(role, name, keys):
                problems.append(f"{where}: {problem}")
            for key in keys if isinstance(keys, list) else ():
                if not isinstance(key, str) or not is_key(key):
                    continue
                if key in owner:
                    problems.append(f"{where}: has the key of {owner[key]}; every name needs a key of its own")
                owner.setdefault(key, name)
                peers.append(Peer(role, name, key))
    if problems:
        raise AllowError(problems)
    return AllowList(peers)


def _entry_problems(role: Role, name: str, keys: object) -> list[str]:
    problems = [problem] if (problem := _name_problem(role, name)) else []
    if not isinstance(keys, list):
        return [*problems, 'should be a list of keys, as in ["<40 characters>"]']
    if len(keys) > KEYS_PER_NAME_MAX:
        problems.append(f"has {len(keys)} keys; at most {KEYS_PER_NAME_MAX}")
    problems.extend(
        f"key {number} is not a text of 40 Z85 characters"
        for number, key in enumerate(keys, start=1)
        if not isinstance(key, str) or not is_key(key)
    )
    return problems


def _name_problem(role: Role, name: str) -> str:
    return "" if _GRAMMAR[role](name) else f"{name!r} is not a name for [{role.value}]: write {_SHAPE[role]}"


def _line_of(lines: list[str], word: str) -> int:
    """The first line that opens with this table or key; 1 when it is written in some rarer way."""
    for number, line in enumerate(lines, start=1):
        if line.lstrip().lstrip("[").lstrip("\"'").startswith(word):
            return number
    return 1
