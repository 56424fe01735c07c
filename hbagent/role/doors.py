"""Where peers come in: a SUB for what they publish and a ROUTER for the control path, all with one key.

While that key is changed there are two such pairs, each with its own key and ports. They are served alike and share
what is known of the peers; what differs is only where somebody comes in. `usage` tells who still comes in at the first,
so that whoever changes the key knows when to take it away.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from hbagent.core.effects import Answer
from hbagent.core.messages import Query, WireMessage
from hbagent.core.units import MINUTE
from hbagent.transport.connections import Connections
from hbagent.transport.keys import KeyFileError, KeyPair, load_secret
from hbagent.transport.sockets import Socket

from .control import ControlRouter
from .driver import Driver
from .intake import Intake
from .settings import LeaderSettings, RootSettings

#: Who has published at the first pair and never had a control connection still uses it for this long.
RECENT_NS = MINUTE
#: Names in an answer; how many there are is told beside them.
NAMES_MAX = 10

Feed = Callable[[str, object], None]
Taker = Callable[..., bool]


class Place(NamedTuple):
    """One pair to be opened."""

    #: None in plain mode.
    keys: KeyPair | None
    publish: str
    control: str


class Usage(NamedTuple):
    """Who comes in where, while a key is changed."""

    #: Names of those who use the present key, sorted.
    old: list[str]
    #: How many use the next one alone.
    new: int


def places(settings: LeaderSettings | RootSettings) -> list[Place]:
    """The pair of the present key, and that of the next one while it is changed. Raises KeyFileError."""
    security, rotation = settings.security, settings.rotation
    keys = None if security.plain or security.key is None else load_secret(security.key, settings.core.name)
    found = [Place(keys, settings.publish, settings.control)]
    if rotation is not None and keys is not None:
        coming = load_secret(rotation.key)
        if coming.name != keys.name:
            raise KeyFileError(f"{rotation.key}: the next key is that of {coming.name}, not of {keys.name}")
        if coming.public == keys.public:
            raise KeyFileError(f"{rotation.key}: the next key is the present one; make another with hbagent keys init")
        found.append(Place(coming, rotation.publish, rotation.control))
    return found


class Doors:
    """The pairs of one process, the first of them that of its present key."""

    def __init__(self, driver: Driver, connections: Connections, all_places: list[Place]) -> None:
        self._driver = driver
        self._connections = connections
        self._places = all_places
        self._pairs: list[tuple[Intake, ControlRouter]] = []
        #: Where and when each peer last published something; only while there are two pairs.
        self._published: dict[str, tuple[int, int]] = {}

    # ---- wiring ------------------------------------------------------------------------------------------

    @property
    def first(self) -> ControlRouter | None:
        """The router that a further one is made `beside`; None while there is none."""
        return self._pairs[0][1] if self._pairs else None

    def add(self, intake: Intake, router: ControlRouter) -> None:
        """The next pair, open."""
        self._pairs.append((intake, router))

    def listening(self, feed: Feed) -> Feed:
        """`feed` for the intake that is to be added next."""
        return functools.partial(self._fed, len(self._pairs), feed) if len(self._places) > 1 else feed

    def taking(self, takers: Mapping[str, Taker]) -> Mapping[str, Taker]:
        """`takers` for the intake that is to be added next."""
        return _Noting(takers, functools.partial(self._note, len(self._pairs))) if len(self._places) > 1 else takers

    def __iter__(self) -> Iterator[Intake | ControlRouter]:
        for intake, router in self._pairs:
            yield intake
            yield router

    @property
    def routers(self) -> dict[str, Socket]:
        """For a monitor."""
        return {f"control {at}": router.source for at, (_, router) in enumerate(self._pairs)}

    # ---- at work -----------------------------------------------------------------------------------------

    def send(self, peer: str, message: WireMessage) -> None:
        """To a peer, at the door where it was last heard."""
        self._pairs[0][1].send(peer, message)

    def use(
        self,
        publishers: dict[str, str],
        speakers: Mapping[str, str],
        accepts_of: Mapping[str, Collection[type]] | None = None,
    ) -> None:
        """Another list of who may publish, and of who may speak."""
        for intake, router in self._pairs:
            intake.senders = publishers
            router.replace_senders(speakers, accepts_of)

    # ---- who uses which key ------------------------------------------------------------------------------

    def usage(self) -> Usage | None:
        """Who uses which key; None while there is only one."""
        if len(self._pairs) < 2:
            return None
        (_, present), (_, coming) = self._pairs
        old = dict.fromkeys(present.heard_here())
        new = dict.fromkeys(coming.heard_here())
        since = time.monotonic_ns() - RECENT_NS
        for name, (at, when) in self._published.items():
            if at == 0 and (name in new or (when >= since and not present.has_met(name))):
                old[name] = None
            elif at == 1 and when >= since:
                new[name] = None
        return Usage(sorted(old), sum(name not in old for name in new))

    def view(self) -> dict[str, Any]:
        """The same for a console."""
        usage = self.usage()
        keys = [self._view_of(place) for place in self._places]
        if usage is None:
            return {"rotating": False, "old": None, "new": keys[0]}
        old = {**keys[0], "peers": len(usage.old), "names": usage.old[:NAMES_MAX]}
        return {"rotating": True, "old": old, "new": {**keys[1], "peers": usage.new}}

    def counts(self) -> tuple[int, int] | None:
        """Peers of the present and of the next key, for metrics; None while there is only one key."""
        usage = self.usage()
        return None if usage is None else (len(usage.old), usage.new)

    def asked(self, answer: Callable[[Answer], None], asker: str, message: object) -> None:
        """A question: what is of keys is answered here, all else is the core's."""
        if isinstance(message, Query) and message.what == "keys":
            answer(Answer(asker.encode("latin-1"), message.id, self.view()))
        else:
            self._driver.feed(asker, message)

    @staticmethod
    def _view_of(place: Place) -> dict[str, Any]:
        key = place.keys.public if place.keys is not None else None
        return {"key": key, "publish": place.publish, "control": place.control}

    def _note(self, at: int, name: str) -> None:
        self._published[name] = (at, time.monotonic_ns())

    def _fed(self, at: int, feed: Feed, sender: str, message: object) -> None:
        if sender:
            self._note(at, sender)
        feed(sender, message)


class _Noting(Mapping[str, Taker]):
    """Takers of beats, which note for whom they were asked."""

    def __init__(self, takers: Mapping[str, Taker], note: Callable[[str], None]) -> None:
        self._takers = takers
        self._note = note

    def get(self, name: str, default: Any = None) -> Any:
        self._note(name)
        return self._takers.get(name, default)

    def __getitem__(self, name: str) -> Taker:
        return self._takers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._takers)

    def __len__(self) -> int:
        return len(self._takers)
