"""Questions beside the beats: what a kernel acknowledges, and what comes back from an echo port.

Four things may stand between a question and its answer, and each looks different from outside. A way that is cut, or
a machine that is away, says nothing. A process that is held still says nothing either, but its kernel acknowledges,
takes the connection, and keeps the question until the process runs again. Where there is no process, the kernel
refuses: at once by TCP, a few times by UDP. And a firewall swallows everything.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hbagent.core.echo import FRAME_SIZE, answer
from hbagent.core.effects import ASK_NS, WITNESS_NS, Ask, Witness
from hbagent.core.messages import Answered
from hbagent.core.states import Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND

from .host import Host
from .network import Network, Route

if TYPE_CHECKING:
    from .world import World

#: A driver looks for the acknowledgement after these, the last of them at the end of its patience.
LOOKS_NS = (*(ms * MILLISECOND for ms in (2, 5, 10, 20, 40, 80, 160)), WITNESS_NS)
#: A kernel whose process does not answer puts its acknowledgement off by this: measured 40 ms.
DELAYED_ACK_NS = 40 * MILLISECOND
#: Connections that a kernel takes for a process that does not: the responder's `listen`, and one.
BACKLOG = 17
#: ICMP refusals to one asker: so many, then one a second.
REFUSALS = 6
REFUSAL_AGAIN_NS = SECOND
#: A driver says so at once when a question cannot leave this host.
UNSENT_NS = MILLISECOND // 10
#: Share of questions that cannot leave their host while the network loses frames: buffers are full there, too.
UNSENT = 0.002


class Question:
    """One `Ask` or `Witness` until it has its one answer."""

    __slots__ = (
        "about",
        "ack_at",
        "answered_at",
        "asked_at",
        "asker",
        "connection",
        "done",
        "life",
        "number",
        "path",
        "peer",
        "request",
    )

    def __init__(self, at: int, asker: Host, peer: str, number: int, path: Path, request: bytes = b"") -> None:
        self.asked_at = at
        self.asker = asker
        self.life = asker.life
        self.peer = peer
        self.number = number
        self.path = path
        self.request = request
        self.done = False
        #: KERNEL: the connection that is looked at, and when its acknowledgement will be there.
        self.connection = 0
        self.ack_at: int | None = None
        #: The truth for the checker: whom it reaches, and when that answered.
        self.about = ""
        self.answered_at = -1


class Asking:
    """All questions of a world that are under way."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._network: Network = world.network
        self._rng = rng
        #: The hosts by their addresses.
        self.addresses: dict[str, Host] = {}

    # ---- what a kernel acknowledges ----------------------------------------------------------------------

    def witness(self, at: int, asker: Host, order: Witness) -> None:
        """Look whether what is sent next is acknowledged."""
        question = Question(at, asker, order.peer, order.number, Path.KERNEL)
        route = asker.route_to.get(order.peer)
        listens = route is not None and route.server is asker
        if route is None or not (route.known if listens else route.open):
            self._world.push(at + UNSENT_NS, self._conclude, question, Outcome.UNSENT, b"")
            return
        question.connection = route.known if listens else route.connection
        self._world.push(at + LOOKS_NS[0], self._look, question, route, 0)

    def _look(self, at: int, question: Question, route: Route, look: int) -> None:
        asker = question.asker
        if asker.core is None or asker.life != question.life:
            return
        if asker.paused:
            asker.inbox.append((self._look, question, route, look))
            return
        there = route.server_open if route.server is asker else route.open
        if not there or route.connection != question.connection:
            self._conclude(at, question, Outcome.CLOSED, b"")
            return
        other = route.client if route.server is asker else route.server
        if route.stuck or not route.open:
            # The way is cut, or what is there is half a connection.
            question.ack_at = None
        elif question.ack_at is None:
            # What was sent with the question has had this long; a way that is clear again takes a retransmission.
            sent = at - LOOKS_NS[0] if look == 0 else at
            delayed = DELAYED_ACK_NS if other.paused else 0
            question.ack_at = sent + self._network.delay() + self._network.delay() + delayed
        if question.ack_at is not None and question.ack_at <= at:
            self._conclude(at, question, Outcome.ACKED, b"")
        elif look + 1 < len(LOOKS_NS):
            wait = LOOKS_NS[look + 1] - LOOKS_NS[look]
            self._world.push(at + wait, self._look, question, route, look + 1)
        else:
            self._conclude(at, question, Outcome.SILENT, b"")

    # ---- what an echo port answers -----------------------------------------------------------------------

    def ask(self, at: int, asker: Host, order: Ask) -> None:
        """Send one echo request."""
        push, network = self._world.push, self._network
        question = Question(at, asker, order.peer, order.number, order.path, order.request)
        target = self.addresses.get(order.address)
        if network.loss and self._rng.random() < UNSENT:
            push(at + UNSENT_NS, self._conclude, question, Outcome.UNSENT, b"")
            return
        push(at + ASK_NS, self._over, question)
        question.about = target.name if target is not None else ""
        delay = network.datagram()
        # The second transmission of a SYN is a second later: too late for whoever asks.
        if target is None or not delay or not network.passes(asker, target):
            return
        if order.path is Path.TCP:
            # There, back, and there again with the request.
            delay += network.datagram() + network.datagram()
        push(at + delay, self._arrive, question, target, order.port)

    def _arrive(self, at: int, question: Question, target: Host, port: int) -> None:
        """A request reached a machine."""
        if target.gone or target.firewalled:
            return
        if target.core is None or target.config.echo_port != port:
            if question.path is Path.TCP or self._may_refuse(at, target, question.asker):
                self._back(at, question, target, Outcome.REFUSED, b"")
            return
        if not target.paused:
            self._take(at, question, target, target.life)
            return
        if question.path is Path.TCP:
            if target.backlog >= BACKLOG:
                return
            target.backlog += 1
        target.inbox.append((self._take, question, target, target.life))

    def _may_refuse(self, at: int, target: Host, asker: Host) -> bool:
        left, until = target.icmp.get(asker.name, (REFUSALS, 0))
        if at >= until:
            left = min(REFUSALS, left + max(1, (at - until) // REFUSAL_AGAIN_NS)) if until else REFUSALS
        if left == 0:
            return False
        target.icmp[asker.name] = (left - 1, at + REFUSAL_AGAIN_NS)
        return True

    def _take(self, at: int, question: Question, target: Host, life: int) -> None:
        """The agent's loop reads a request from its echo port."""
        core = target.core
        if question.path is Path.TCP:
            target.backlog = max(0, target.backlog - 1)
        if core is None or target.life != life:
            return
        assert len(question.request) == FRAME_SIZE
        data = answer(question.request, core.echo_keys, core.incarnation, core.sequence)
        if data is not None:
            question.answered_at = at
            self._back(at, question, target, Outcome.ANSWERED, data)
        elif question.path is Path.TCP:
            self._back(at, question, target, Outcome.CLOSED, b"")

    def _back(self, at: int, question: Question, target: Host, outcome: Outcome, data: bytes) -> None:
        delay = self._network.datagram()
        if delay and self._network.passes(target, question.asker):
            self._world.push(at + delay, self._conclude, question, outcome, data)

    # ---- the one answer ----------------------------------------------------------------------------------

    def _over(self, at: int, question: Question, *_: Any) -> None:
        """Nobody waits any longer."""
        asker = question.asker
        if question.done or asker.core is None or asker.life != question.life:
            return
        if asker.paused:
            asker.inbox.append((self._over_later, question, None, None))
            return
        self._conclude(at, question, Outcome.SILENT, b"")

    def _over_later(self, at: int, question: Question, *_: Any) -> None:
        """A process that stood still reads what its sockets hold before it finds that the time is over."""
        self._world.push(at, self._over, question)

    def _conclude(self, at: int, question: Question, outcome: Outcome, data: bytes) -> None:
        asker = question.asker
        if question.done or asker.core is None or asker.life != question.life:
            return
        if asker.paused:
            asker.inbox.append((self._conclude, question, outcome, data))
            return
        question.done = True
        self._world.trace.add(at, "answered", asker.name, question.peer, question.path.value, outcome.value)
        answered = Answered(peer=question.peer, number=question.number, path=question.path, outcome=outcome, data=data)
        self._world.answered(at, question, answered)
