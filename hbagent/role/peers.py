"""The other leaders of this leader's racks: each calls each, asks what it has heard of a node, and is answered.

Two leaders have two connections between them, and a question goes out by the own one: so neither waits for the other
to call first, and a wall that lets only one of them call costs only that one its questions.

What a leader may say to another is a question, and what it may answer is one; which of its connections is a leader's
is a matter of the key in its `[[peer]]` table, or of either of two while its key is changed. Such a key opens the
control path alone: nothing is published to a leader by another one, so it proves nobody's life by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from hbagent.core.messages import HeardWanted, LastHeard, WireMessage
from hbagent.transport import sockets

from .calls import Calls
from .defects import Tell
from .driver import Driver
from .settings import Endpoint

#: What another leader asks at the control path's bound end, and answers at the calling one.
QUESTIONS = (HeardWanted,)
ANSWERS = (LastHeard,)


class Peers:
    """The calls to the other leaders, changed with the config."""

    def __init__(
        self, context: sockets.Context, caller: sockets.Caller, driver: Driver, random: Random, tell: Tell
    ) -> None:
        self._tell = tell
        self._up: dict[str, None] = {}
        self._calls = Calls(
            context, caller, driver, random, tell, heard=driver.feed, accepts=ANSWERS, linked=self._linked
        )

    def use(self, peers: Iterable[Endpoint]) -> None:
        """Call these and no other; who is called already under the same address and key is not disturbed.

        Raises EndpointError.
        """
        wanted = tuple(peers)
        names = [peer.name for peer in wanted]
        self._up = {name: None for name in self._up if name in names}
        self._calls.use(wanted)

    def send(self, name: str, message: WireMessage) -> None:
        """To that leader, if it is called and connected; a question in vain is one without an answer."""
        self._calls.send(name, message)

    def close(self) -> None:
        """End all calls; before the context ends."""
        self._calls.close()

    def _linked(self, name: str, up: bool, refused: bool, moved: bool) -> None:
        if up:
            self._up[name] = None
            # So that it knows that it is called, and by which of its keys. Nobody has this name, and nobody waits.
            self._calls.send(name, HeardWanted(number=0, node=f"{name}/nobody"))
            self._tell("info", "peer-connected", {"leader": name})
        elif refused:
            remedy = "its config needs a [[peer]] with this leader's name and public key"
            self._tell("warning", "peer-refused-our-key", {"leader": name, "remedy": remedy})
        elif name in self._up:
            # A refused connection is lost as well.
            del self._up[name]
            self._tell("warning", "peer-lost", {"leader": name})


def user_ids(peers: Iterable[Endpoint]) -> dict[str, tuple[str, ...]]:
    """Name to user ids of other leaders: their key or keys, or in plain mode their name."""
    return {peer.name: tuple(filter(None, (peer.public_key, peer.next_public_key))) or (peer.name,) for peer in peers}
