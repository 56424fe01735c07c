"""Network: what a connection does with frames when it is cut, given up, or one of its ends dies."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from hbagent.core.messages import Disconnected, Linked
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.sim.host import Host
from hbagent.sim.network import GIVE_UP_NS, HANG_UP_NS, LISTENER_GIVES_UP_NS, Network, Route


class Line:
    """One agent and one leader without any core, and what arrives at either."""

    def __init__(self, loss: float = 0.0) -> None:
        self._heap: list[tuple[int, int, Callable[..., None], Any, Any, Any]] = []
        self._made = 0
        #: (arrival, frame, sent).
        self.arrived: list[tuple[int, bytes, int]] = []
        self.links: list[tuple[int, bool]] = []
        #: When the listening side was told that the connection of its peer is gone.
        self.hung_up: list[int] = []
        rng = random.Random(1)
        self.network = Network(self._push, self._tell, rng, loss)
        self.client = Host("agent", "agent", None, rng)
        self.server = Host("leader", "leader", None, rng)
        self.client.core = self.server.core = object()
        self.route = Route(self.client, self.server)
        self.client.routes_out.append(self.route)
        self.server.routes_in.append(self.route)
        self.client.route_to[self.server.name] = self.server.route_to[self.client.name] = self.route
        self.network.connect_soon(0, self.route)
        self.run(SECOND)

    def _push(self, at: int, action: Callable[..., None], one: Any = None, two: Any = None, three: Any = None) -> None:
        self._made += 1
        heapq.heappush(self._heap, (at, self._made, action, one, two, three))

    def _tell(self, at: int, host: Host, message: object) -> None:
        if isinstance(message, Disconnected):
            assert host is self.server and message.peer == self.client.name
            self.hung_up.append(at)
            return
        assert isinstance(message, Linked)
        self.links.append((at, message.up))

    def intake(self, at: int, route: Route, data: bytes, sent: int) -> None:
        """A frame arrives, as the world takes it in."""
        if sent >= route.valid_from:
            self.arrived.append((at, data, sent))

    def run(self, until: int) -> None:
        """Let the time pass."""
        while self._heap and self._heap[0][0] <= until:
            at, _, action, one, two, three = heapq.heappop(self._heap)
            action(at, one, two, three)

    def meet(self) -> None:
        """The listening process reads a first message of the connection."""
        self.route.known = self.route.connection

    def die(self, at: int) -> None:
        """The client's process ends."""
        self.client.core = None
        self.network.client_gone(at, self.client)

    def publish(self, at: int, data: bytes) -> None:
        """Send one lossy frame at `at`."""
        self.run(at)
        self.network.publish(at, self.route, self.intake, data)

    @property
    def frames(self) -> list[bytes]:
        """What arrived, in order."""
        return [data for _, data, _ in self.arrived]


def test_a_frame_arrives_within_milliseconds() -> None:
    line = Line()
    assert [up for _, up in line.links] == [True]
    line.publish(2 * SECOND, b"beat")
    line.run(3 * SECOND)
    ((at, data, sent),) = line.arrived
    assert data == b"beat" and sent == 2 * SECOND and 0 < at - sent < 25 * MILLISECOND


def test_a_stream_keeps_its_order_and_loses_nothing_where_lossy_frames_are_lost() -> None:
    line = Line(loss=0.3)
    for number in range(200):
        line.network.up(2 * SECOND, line.route, line.intake, number.to_bytes(2, "big"))
    line.run(4 * SECOND)
    assert line.frames == [number.to_bytes(2, "big") for number in range(200)]
    for number in range(200):
        line.publish(5 * SECOND + number, b"beat")
    line.run(6 * SECOND)
    assert 100 < len(line.frames) - 200 < 180


def test_what_was_sent_during_a_short_cut_arrives_all_at_once_and_old() -> None:
    line = Line()
    line.network.cut(2 * SECOND, line.route, True, True)
    for number in range(3):
        line.publish(2 * SECOND + number * 100 * MILLISECOND, bytes([number]))
    line.run(3 * SECOND)
    assert line.frames == []
    line.network.heal(3 * SECOND, line.route, True, True)
    line.run(5 * SECOND)
    assert line.frames == [b"\0", b"\1", b"\2"]
    first, *_, last = (at for at, _, _ in line.arrived)
    assert 3 * SECOND <= first <= last < first + MILLISECOND


def test_a_process_that_dies_during_a_cut_still_delivers_what_its_kernel_holds() -> None:
    line = Line()
    line.network.cut(2 * SECOND, line.route, True, True)
    line.publish(2 * SECOND, b"last words")
    line.client.core = None
    line.network.client_gone(2 * SECOND, line.client)
    line.network.heal(3 * SECOND, line.route, True, True)
    line.run(5 * SECOND)
    assert line.frames == [b"last words"]


def test_a_long_cut_costs_the_connection_and_all_that_waited_in_it() -> None:
    line = Line()
    line.network.cut(2 * SECOND, line.route, True, True)
    line.publish(2 * SECOND, b"lost")
    line.run(10 * SECOND)
    assert [up for _, up in line.links] == [True, False]
    assert line.links[-1][0] == 2 * SECOND + GIVE_UP_NS
    line.network.heal(10 * SECOND, line.route, True, True)
    line.run(12 * SECOND)
    assert [up for _, up in line.links] == [True, False, True]
    line.publish(12 * SECOND, b"new")
    line.run(13 * SECOND)
    assert line.frames == [b"new"]


def test_a_cut_in_one_direction_lets_the_other_pass_until_the_connection_is_given_up() -> None:
    line = Line()
    line.network.cut(2 * SECOND, line.route, False, True)
    line.publish(2 * SECOND, b"passes")
    line.network.down(2 * SECOND, line.route, line.intake, b"held")
    line.run(4 * SECOND)
    assert line.frames == [b"passes"]
    line.run(6 * SECOND)
    line.publish(6 * SECOND, b"refused")
    line.run(8 * SECOND)
    assert line.frames == [b"passes"]


def test_two_cuts_that_overlap_end_with_the_later() -> None:
    line = Line()
    line.network.cut(2 * SECOND, line.route, True, True)
    line.network.cut(2 * SECOND, line.route, True, False)
    line.network.heal(2 * SECOND, line.route, True, True)
    line.publish(2 * SECOND, b"beat")
    line.run(3 * SECOND)
    assert line.frames == []
    line.network.heal(3 * SECOND, line.route, True, False)
    line.run(5 * SECOND)
    assert line.frames == [b"beat"]


def test_a_listener_that_dies_is_told_to_the_other_end_and_takes_what_was_under_way_with_it() -> None:
    line = Line()
    line.publish(2 * SECOND, b"lost")
    line.server.core = None
    line.network.server_gone(2 * SECOND, line.server)
    line.run(3 * SECOND)
    assert [up for _, up in line.links] == [True, False]
    line.server.core = object()
    line.network.server_came(3 * SECOND, line.server)
    line.run(5 * SECOND)
    assert [up for _, up in line.links] == [True, False, True]
    assert line.frames == []


def test_a_doubled_frame_comes_again_later() -> None:
    line = Line()
    line.network.doubled = 1.0
    line.publish(2 * SECOND, b"beat")
    line.run(7 * SECOND)
    assert line.frames == [b"beat", b"beat"]


# ---- the listening side's half ---------------------------------------------------------------------------


def test_the_end_of_a_process_is_told_to_the_listener_in_a_millisecond() -> None:
    line = Line()
    line.meet()
    line.die(2 * SECOND)
    line.run(3 * SECOND)
    assert line.hung_up == [2 * SECOND + HANG_UP_NS]
    assert not line.route.server_open


def test_the_end_of_a_connection_on_which_nothing_was_read_is_told_of_nobody() -> None:
    line = Line()
    line.die(2 * SECOND)
    line.run(3 * SECOND)
    assert line.hung_up == []
    assert not line.route.server_open


def test_the_end_of_a_process_in_a_cut_is_told_after_its_last_words() -> None:
    line = Line()
    line.meet()
    line.network.cut(2 * SECOND, line.route, True, True)
    line.publish(2 * SECOND, b"last words")
    line.die(2 * SECOND)
    line.run(3 * SECOND)
    assert line.hung_up == []
    line.network.heal(3 * SECOND, line.route, True, True)
    line.run(5 * SECOND)
    assert line.frames == [b"last words"]
    assert line.hung_up and line.arrived[0][0] < line.hung_up[0]


def test_a_machine_that_is_away_says_nothing_of_its_end_and_loses_what_its_kernel_had() -> None:
    line = Line()
    line.meet()
    line.client.gone = 1
    line.network.cut(2 * SECOND, line.route, True, True)
    line.publish(2 * SECOND, b"lost")
    line.die(2 * SECOND)
    line.run(4 * SECOND)
    assert line.hung_up == [] and line.route.server_open
    line.client.gone = 0
    line.network.heal(4 * SECOND, line.route, True, True)
    line.run(8 * SECOND)
    assert line.frames == []
    assert len(line.hung_up) == 1


def test_a_long_cut_ends_both_halves_of_a_connection_and_not_at_once() -> None:
    line = Line()
    line.meet()
    line.network.cut(2 * SECOND, line.route, True, False)
    line.run(10 * SECOND)
    ((hung_up),) = line.hung_up
    assert 0 <= hung_up - 2 * SECOND - GIVE_UP_NS < LISTENER_GIVES_UP_NS
    assert [up for _, up in line.links] == [True, False]


def test_the_end_of_an_old_connection_is_told_of_nobody_once_there_is_a_new_one() -> None:
    line = Line()
    line.meet()
    line.client.gone = 1
    line.network.cut(2 * SECOND, line.route, True, True)
    line.die(2 * SECOND)
    line.run(5 * SECOND)
    line.client.gone = 0
    line.network.heal(5 * SECOND, line.route, True, True)
    line.client.core = object()
    line.run(8 * SECOND)
    assert line.route.server_open and line.route.connection == 2
    told = list(line.hung_up)
    line.meet()
    line.run(12 * SECOND)
    assert line.hung_up == told


def test_a_datagram_passes_between_neighbours_though_the_way_to_their_leader_is_cut() -> None:
    line = Line()
    neighbour = Host("neighbour", "agent", None, random.Random(2))
    line.network.cut(2 * SECOND, line.route, True, False)
    assert line.network.passes(line.server, line.client)
    assert not line.network.passes(line.client, line.server)
    assert line.network.passes(neighbour, line.client)
    line.client.gone = 1
    assert not line.network.passes(neighbour, line.client)
