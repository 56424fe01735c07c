"""What a caller learns of its connections, over real sockets, and how a refused one comes back."""

from __future__ import annotations

import random
import time

import zmq

from hbagent.core.units import MILLISECOND
from hbagent.transport.allow import AllowList
from hbagent.transport.backoff import Backoff
from hbagent.transport.monitor import Link, LinkEvent
from hbagent.transport.sockets import Context, beat_publisher, connect, control_dealer, reconnect
from tests.transport.doors import OpenDoor, Watch, caller, enrolled, new_keys, publish_until, until

NODE = "t/r/n1"


def test_an_admission_and_a_loss_are_told_with_label_and_endpoint(
    open_door: OpenDoor, context: Context, watch: Watch
) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    target = door.control_target
    links: list[Link] = []
    control = control_dealer(context, caller(keys), [])
    watch({"control": control}, links.append)
    connect(control, caller(keys), target)
    assert until(lambda: links)
    assert links[0] == Link("control", LinkEvent.UP, target.endpoint, 0)
    door.close()
    assert until(lambda: len(links) > 1)
    assert (links[1].event, links[1].endpoint) == (LinkEvent.LOST, target.endpoint)


def test_a_refused_agent_is_told_and_joins_at_its_next_back_off_once_enrolled(
    open_door: OpenDoor, context: Context, watch: Watch
) -> None:
    keys, witness = new_keys(NODE), new_keys("t/r/n2")
    door, other = open_door(enrolled(witness)), open_door(enrolled(keys))
    target = door.publish
    links: list[Link] = []
    beats = beat_publisher(context, caller(keys), [])
    watch({"beats": beats}, links.append)
    for leader in (target, other.publish):
        connect(beats, caller(keys), leader)
    assert publish_until(beats, lambda: any(link.event is LinkEvent.REFUSED for link in links) and other.drain())
    refusal = next(link for link in links if link.event is LinkEvent.REFUSED)
    assert (refusal.endpoint, refusal.value) == (target.endpoint, 400)

    # Enrolled now. libzmq would never try again; the witness's beats are the bound on how long it is given.
    door.zap.replace(enrolled(keys, witness))
    good = beat_publisher(context, caller(witness), [target])
    assert publish_until(good, lambda: (beats.send(b"beat"), len(door.drain()) >= 50)[1])
    assert {user_id for user_id, _ in door.received} == {witness.public}

    backoff = Backoff(random.Random(1), 20 * MILLISECOND, 100 * MILLISECOND)
    backoff.refused(time.monotonic_ns())

    def come_back() -> bool:
        if backoff.due(time.monotonic_ns()):
            reconnect(beats, caller(keys), target)
        return any(user_id == keys.public for user_id, _ in door.drain())

    ups = sum(link.event is LinkEvent.UP for link in links)
    assert publish_until(beats, come_back)
    # The other leader kept its connection all the while.
    assert [link for link in links if link.event is LinkEvent.LOST and link.endpoint == other.publish.endpoint] == []
    assert until(lambda: sum(link.event is LinkEvent.UP for link in links) == ups + 1)


def test_a_failing_callback_does_not_stop_the_reading(open_door: OpenDoor, context: Context, watch: Watch) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))

    def fail(link: Link) -> None:
        raise RuntimeError("no room")

    beats = beat_publisher(context, caller(keys), [])
    monitor = watch({"beats": beats}, fail)
    connect(beats, caller(keys), door.publish)
    assert publish_until(beats, door.drain)
    reconnect(beats, caller(keys), door.publish)
    assert until(lambda: monitor.callback_errors >= 2)
    monitor.stop()


def test_a_leader_with_a_monitor_hears_its_agents_through_a_storm_of_refusals(
    open_door: OpenDoor, context: Context, watch: Watch
) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    links: list[Link] = []
    watch({"intake": door.intake, "control": door.control}, links.append)
    for _ in range(200):
        stranger = beat_publisher(context, caller(new_keys("t/r/x")), [door.publish])
        stranger.close()
    strangers = [beat_publisher(context, caller(new_keys("t/r/x")), [door.publish]) for _ in range(50)]
    beats = beat_publisher(context, caller(keys), [door.publish])
    assert publish_until(beats, lambda: len(door.drain()) > 10)
    assert until(lambda: sum(link.event is LinkEvent.REFUSED for link in links) >= len(strangers))


def test_only_what_is_asked_for_is_told(open_door: OpenDoor, context: Context, watch: Watch) -> None:
    keys = new_keys(NODE)
    door = open_door(enrolled(keys))
    links: list[Link] = []
    watch({"control": door.control}, links.append, (LinkEvent.LOST,))
    refused = [control_dealer(context, caller(new_keys("t/r/x")), [door.control_target]) for _ in range(5)]
    dealer = control_dealer(context, caller(keys), [door.control_target])
    assert dealer.poll(30_000, zmq.POLLOUT)
    dealer.send(b"word")
    assert door.control.poll(30_000)
    fd = door.control.recv_multipart(copy=False)[-1].get(zmq.SRCFD)
    dealer.close()
    assert until(lambda: any(link.value == fd for link in links)), "the number that its messages had"
    assert until(lambda: len(links) == 1 + len(refused)), "who is refused is hung up on"
    assert {link.event for link in links} == {LinkEvent.LOST}


def test_stopping_ends_every_monitor_and_the_sockets_close_cleanly(context: Context, watch: Watch) -> None:
    keys = new_keys(NODE)
    sockets = {label: control_dealer(context, caller(keys), []) for label in ("a", "b", "c")}
    monitor = watch(sockets, lambda link: None)
    monitor.stop()
    monitor.stop()
    for socket in sockets.values():
        socket.close()
    again = watch({}, lambda link: None)
    again.stop()


def test_it_ends_when_its_sockets_are_closed_without_it(watch: Watch) -> None:
    own: Context = zmq.Context()
    control = control_dealer(own, caller(new_keys(NODE)), [])
    monitor = watch({"control": control}, lambda link: None)
    control.close()
    monitor.stop()
    own.term()


def test_an_empty_allow_list_admits_nobody_and_says_so(open_door: OpenDoor, context: Context, watch: Watch) -> None:
    door = open_door(AllowList())
    links: list[Link] = []
    control = control_dealer(context, caller(new_keys(NODE)), [])
    watch({"control": control}, links.append)
    connect(control, caller(new_keys(NODE)), door.control_target)
    assert until(lambda: any(link.event is LinkEvent.REFUSED for link in links))
