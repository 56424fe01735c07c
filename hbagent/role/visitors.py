"""Who asks at a query socket, and what they may: everybody who can open the unix socket, or whoever has a key.

At the unix socket the kernel says who it is (`SO_PEERCRED`, which libzmq puts on each frame), and the file's mode says
who may come; there, whoever may ask may also change things. At the operators' port it is the key of the connection,
looked up in the list of those who may speak now, with the right that the root's config gives to that name.
"""

from __future__ import annotations

import functools
import pwd
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import zmq

from hbagent.core.allowance import Allowance
from hbagent.core.messages import Refused
from hbagent.core.units import MILLISECOND, MINUTE, SECOND
from hbagent.transport.connections import Connections, Visits

from .driver import Driver
from .worker import Worker

#: First byte of the address that an answer goes to: which port it leaves by.
AT_SOCKET, AT_PORT = b"u", b"o"
#: Queries that change something at the root, for which the right to ask is not enough.
CHANGING = frozenset(("drill",))

#: Consoles of one operator at once. Each may have 16 MiB of answers waiting.
VISITS_MAX = 8
#: Questions of one operator: twenty a second, and a burst of a hundred. A console asks once a second; an answer about
#: 10,000 nodes costs a tenth of a second.
ASK_COST_NS = 50 * MILLISECOND
ASK_BURST = 100

#: Names of users that are remembered, and for how long: who asks is a handful of people, and a directory server may
#: give a number to somebody else.
NAMES_MAX = 256
NAME_KEPT_NS = 10 * MINUTE
#: A directory server that does not answer holds up an order for this long; it is then booked under the number alone.
NAME_WAIT_NS = SECOND
#: Orders that wait for a name.
WAITING_MAX = 100
#: Longest name of a user that is shown; useradd allows 32.
USER_LENGTH_MAX = 64

Named = Callable[[str], None]


class Visitor(msgspec.Struct, frozen=True):
    """Somebody who asks."""

    #: Name of a key, or "" for a user of this host.
    name: str = ""
    uid: int | None = None
    #: "", or why they may not ask now.
    objection: str = ""
    #: "", or why they may change nothing.
    reads_only: str = ""


class Door(Protocol):
    """Where visitors come in: one for each query socket."""

    #: Begins the address of everybody who came in here.
    mark: bytes
    #: Queries that are taken for orders here.
    changing: frozenset[str]

    def visitor(self, frames: list[zmq.Frame]) -> Visitor | None:
        """Who sent a message; None for nobody who may be answered."""

    def named(self, visitor: Visitor, then: Named) -> None:
        """Call `then` with who a visitor is, in words for people; now or later, once."""

    def deaf(self, route: bytes) -> None:
        """A visitor does not read what was sent to them."""


class Closed:
    """The unix socket of a daemon that takes no orders: everybody may ask."""

    mark = AT_SOCKET
    changing: frozenset[str] = frozenset()

    def __init__(self, refusal: str) -> None:
        self._visitor = Visitor(reads_only=refusal)

    def visitor(self, frames: list[zmq.Frame]) -> Visitor:
        return self._visitor

    def named(self, visitor: Visitor, then: Named) -> None:
        then("somebody at the unix socket")

    def deaf(self, route: bytes) -> None:
        """It loses its answer, and nothing else."""


class Local:
    """The unix socket of the root: everybody who may open it may ask and change."""

    mark = AT_SOCKET
    changing = CHANGING

    def __init__(self, users: Users) -> None:
        self._users = users

    def visitor(self, frames: list[zmq.Frame]) -> Visitor:
        return Visitor(uid=uid_of(frames[-1]))

    def named(self, visitor: Visitor, then: Named) -> None:
        if visitor.uid is None:
            then("an unknown user")
        else:
            self._users.name(visitor.uid, then)

    def deaf(self, route: bytes) -> None:
        """It loses its answer, and nothing else."""


class Operators:
    """The operators' port. `use` another list, and the connections of whoever is not on it any more are cut."""

    mark = AT_PORT
    changing = CHANGING

    def __init__(self, connections: Connections, feed: Callable[[str, object], None]) -> None:
        self._connections = connections
        self._feed = feed
        self._visits = Visits(VISITS_MAX)
        #: By user id: name, and whether it may change things.
        self._operators: Mapping[str, tuple[str, bool]] = {}
        self._allowances: dict[str, Allowance] = {}
        #: Connections that were ended: of revoked keys, of too many consoles, of those that do not read.
        self.cut = 0

    def use(self, operators: Mapping[str, tuple[str, bool]]) -> None:
        """Who may ask from now on: name and right to change, by user id."""
        before, self._operators = self._operators, operators
        self._connections.forget_cuts()
        for user_id in before:
            if user_id not in operators:
                self._allowances.pop(user_id, None)
                self.cut += self._visits.end_all(user_id)

    def visitor(self, frames: list[zmq.Frame]) -> Visitor | None:
        frame = frames[-1]
        try:
            user_id = str(frame.get("User-Id"))
            name, writes = self._operators[user_id]
        except (KeyError, zmq.ZMQError):
            self.cut += self._connections.cut_sender(frame)
            self._feed("", Refused("", "unknown-sender"))
            return None
        self.cut += self._visits.note(user_id, frames[0].bytes, frame.get(zmq.SRCFD))
        allowance = self._allowances.setdefault(user_id, Allowance(ASK_COST_NS, ASK_BURST))
        objection = ""
        if not allowance.take(time.monotonic_ns()):
            self._feed("", Refused(name, "noisy"))
            objection = f"{name} asks more than {SECOND // ASK_COST_NS} times a second; ask less often"
        return Visitor(name=name, objection=objection, reads_only="" if writes else _reads_only(name))

    def named(self, visitor: Visitor, then: Named) -> None:
        then(visitor.name)

    def deaf(self, route: bytes) -> None:
        """Its answers take memory here until it reads them, or is gone."""
        for user_id in self._operators:
            self.cut += self._visits.end(user_id, route)


def _reads_only(name: str) -> str:
    return (
        f'{name} has the right "read" and may change nothing; whoever runs the root gives right = "write" in its '
        f'[[operator]] table of "{name}"'
    )


def uid_of(frame: zmq.Frame) -> int | None:
    """The user at the other end of a unix socket, when it was connected; None when libzmq does not say.

    libzmq appends what SO_PEERCRED says to the peer's address: "localhost:UID:GID:PID".
    """
    try:
        _, uid, _, _ = str(frame.get("Peer-Address")).rsplit(":", 3)
        return int(uid)
    except (ValueError, zmq.ZMQError):
        return None


class Users:
    """Names of this host's users. They are looked up by a worker, since a directory server may be asked for them."""

    def __init__(self, worker: Worker, driver: Driver) -> None:
        self._worker = worker
        self._driver = driver
        #: Name, and until when it is believed.
        self._names: dict[int, tuple[str, int]] = {}
        self._waiting: dict[int, list[Named]] = {}

    def name(self, uid: int, then: Named) -> None:
        """Call `then` with "alice (uid 1000)", or with "uid 1000" when the name is not known within a second."""
        now = time.monotonic_ns()
        known, until = self._names.get(uid, ("", 0))
        if now < until:
            then(known)
        elif sum(map(len, self._waiting.values())) >= WAITING_MAX:
            then(f"uid {uid}")
        elif uid in self._waiting:
            self._waiting[uid].append(then)
        elif self._worker.submit(functools.partial(self._look_up, uid)):
            self._waiting[uid] = [then]
            self._driver.call_later(now + NAME_WAIT_NS, functools.partial(self._found, uid, ""))
        else:
            then(f"uid {uid}")

    def _look_up(self, uid: int) -> None:
        """In the worker's thread."""
        try:
            name = pwd.getpwuid(uid).pw_name
        except (KeyError, OSError):
            name = ""
        if not 0 < len(name) <= USER_LENGTH_MAX or not name.isprintable():
            name = ""
        self._driver.mailbox.post(functools.partial(self._found, uid, name), owed=True)

    def _found(self, uid: int, name: str) -> None:
        text = f"{name} (uid {uid})" if name else f"uid {uid}"
        if name:
            if len(self._names) >= NAMES_MAX:
                self._names.clear()
            self._names[uid] = (text, time.monotonic_ns() + NAME_KEPT_NS)
        for then in self._waiting.pop(uid, ()):
            then(text)
