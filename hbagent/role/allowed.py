"""Who may speak to this process: read once at start, again on SIGHUP, and whenever the file changed.

`hbagent keys revoke` only edits the file; looking at its status twice a second is what makes a revocation real within
a second, without anybody having to signal the daemon. Looking and reading are a worker's: the list of 2,000 nodes
takes half a second to read (measured), and a file system may hang.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hbagent.core.units import MILLISECOND
from hbagent.transport.allow import AllowError, AllowList, Role
from hbagent.transport.allow import load as load_allow

from .defects import Tell
from .settings import Operator, Security
from .worker import Worker

LOOK_EVERY_NS = 500 * MILLISECOND
#: Problems of a bad file that are written to the log; `hbagent keys show` tells all of them.
PROBLEMS_TOLD_MAX = 20

_Stamp = tuple[int, ...]


class Allowed:
    """The live allow-list of one role. Raises AllowError when there is none to start with.

    A leader also has `peers`, by name and user ids: the other leaders of its racks, who stand in its config. They and
    no other leaders are in the list, whatever the file says of leaders. A root has `operators`, likewise: those of its
    config and no others, with the key that stands there or else with those of the file.
    """

    def __init__(
        self,
        security: Security,
        role: Role,
        plain_names: Iterable[str],
        tell: Tell,
        peers: Mapping[str, tuple[str, ...]] | None = None,
        operators: Sequence[Operator] = (),
    ) -> None:
        self._path: Path | None = None if security.plain else security.allow
        self._role = role
        self._tell = tell
        self._stamp: _Stamp = ()
        self._looking = False
        self._force = False
        self._peers = peers
        self._operators = tuple(operators)
        #: As it was read, without `peers` and with all operators.
        self._read_last = AllowList.named(role, plain_names)
        #: Called in the loop's thread when there is another list.
        self.on_change: Callable[[], None] = lambda: None
        if self._path is not None:
            self._stamp = _stamp(self._path)
            self._read_last = load_allow(self._path)
        self.list = self._with_config()

    @property
    def senders(self) -> dict[str, str]:
        """User id of a connection to the name it stands for."""
        return self.list.senders(self._role)

    @property
    def senders_and_peers(self) -> dict[str, str]:
        """The same, and the other leaders."""
        return self.senders | self.list.senders(Role.LEADER)

    @property
    def operators(self) -> dict[str, tuple[str, bool]]:
        """User id of a connection to the operator that it stands for, and whether they may change things."""
        writes = {operator.name: operator.right == "write" for operator in self._operators}
        return {user_id: (name, writes[name]) for user_id, name in self.list.senders(Role.OPERATOR).items()}

    def use_operators(self, operators: Sequence[Operator]) -> None:
        """The config names other operators, or gives other rights."""
        if tuple(operators) != self._operators:
            self._operators = tuple(operators)
            self._change(self._read_last)

    def use_names(self, plain_names: Iterable[str]) -> None:
        """The config names other peers: in plain mode they are the list."""
        if self._path is None:
            self._change(AllowList.named(self._role, plain_names))

    def use_peers(self, peers: Mapping[str, tuple[str, ...]]) -> None:
        """The config names other leaders of the racks."""
        if peers != self._peers:
            self._peers = peers
            self._change(self._read_last)

    def look(self, worker: Worker, post: Callable[[Callable[[], None]], object], force: bool = False) -> None:
        """In the loop's thread: have the file read again if it changed, or anyway. A bad file keeps the old list.

        `post` has the loop make a call.
        """
        self._force = self._force or force
        if self._path is None or self._looking:
            return
        force, self._force = self._force, False
        self._looking = worker.submit(functools.partial(self._read, self._path, self._stamp, force, post))

    def _read(self, path: Path, known: _Stamp, force: bool, post: Callable[[Callable[[], None]], object]) -> None:
        """In the worker's thread."""
        found: AllowList | None = None
        problems: tuple[str, ...] = ()
        stamp = _stamp(path)
        if force or stamp != known:
            try:
                found = load_allow(path)
            except AllowError as error:
                problems = error.problems
            except Exception as error:
                problems = (f"{path}: {error!r}",)
        post(functools.partial(self._done, stamp, found, problems))

    def _done(self, stamp: _Stamp, found: AllowList | None, problems: tuple[str, ...]) -> None:
        self._looking = False
        self._stamp = stamp
        for problem in problems[:PROBLEMS_TOLD_MAX]:
            self._tell("error", "allow-list-refused", {"problem": problem})
        if len(problems) > PROBLEMS_TOLD_MAX:
            self._tell("error", "allow-list-refused", {"more_problems": len(problems) - PROBLEMS_TOLD_MAX})
        if found is not None:
            self._change(found)

    def _change(self, found: AllowList) -> None:
        self._read_last = found
        self.list = self._with_config()
        self.on_change()
        self._tell("info", "allow-list", {"keys": len(self.senders)})

    def _with_config(self) -> AllowList:
        """The list that was read, with whom the config names."""
        # In plain mode a name is all that there is of a key.
        keys = {one.name: one.public_key or ("" if self._path is not None else one.name) for one in self._operators}
        found = self._with_peers().with_operators(keys)
        for one in self._operators:
            other = found.by_user_id(one.public_key)
            if other is not None and (other.role, other.name) != (Role.OPERATOR, one.name):
                remedy = "every name needs a key of its own"
                self._tell("error", "key-of-another", {"operator": one.name, "key_of": other.name, "remedy": remedy})
        return found

    def _with_peers(self) -> AllowList:
        if self._peers is None:
            return self._read_last
        for name, user_id in ((name, user_id) for name, user_ids in self._peers.items() for user_id in user_ids):
            other = self._read_last.by_user_id(user_id)
            if other is not None and other.role is not Role.LEADER:
                remedy = "every name needs a key of its own"
                fields: dict[str, object] = {"key": user_id, "leader": name, "refused": other.name, "remedy": remedy}
                self._tell("error", "key-of-another-leader", fields)
        return self._read_last.with_leaders(self._peers)


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is written or replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
