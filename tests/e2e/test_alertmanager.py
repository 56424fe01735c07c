"""Alerts reach real Alertmanagers: each member by itself, also one that was away, and nothing burns for longer."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.core.config import SinkConfig
from hbagent.core.messages import Posted
from hbagent.core.records import Event, Trouble
from hbagent.core.sinks import Sinks
from hbagent.core.states import Axis, Cause, Kind
from hbagent.core.units import SECOND
from hbagent.demo.datacenter import Plan, held_ports, wait_until
from hbagent.transport.poster import Poster
from tests.conftest import Figures
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet
from tests.e2e.watchers import ALERTMANAGER, Alertmanager, alertmanagers

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.needs(ALERTMANAGER), pytest.mark.timeout(120)]

RACK, NODE = "dc1/r1", "dc1/r1/n1"
WATCHDOG = ("HbagentWatchdog", "")
DOWN, DARK = ("HbagentHostDown", NODE), ("HbagentRackDown", RACK)


class Root:
    """As much of a root as posts: sinks, a poster, and clocks."""

    def __init__(self, *urls: str) -> None:
        self._posted: queue.SimpleQueue[Posted] = queue.SimpleQueue()
        self._poster = Poster(self._posted.put, time_s=2.0)
        self.sinks = Sinks((SinkConfig(name="am", urls=urls, resend_ns=5 * SECOND),), 7)

    def turn(self) -> None:
        while not self._posted.empty():
            self.sinks.posted(self._posted.get(), time.monotonic_ns())
        for effect in self.sinks.wake(time.monotonic_ns(), time.time_ns()):
            self._poster.post(effect)

    def fire(self, kind: Kind, axis: Axis, subject: str, cause: Cause) -> None:
        told = Trouble(subject=subject, axis=axis, rack=RACK, incident="i1", kind=kind, cause=cause, event_id="7-1")
        event = Event(event_id="7-1", sequence=1, kind=kind, at_wall_ns=time.time_ns())
        self.sinks.fire("am", told, event, time.time_ns())

    def resolve(self, axis: Axis, subject: str) -> None:
        self.sinks.resolve("am", subject, axis, time.time_ns())

    def until(self, member: Alertmanager, alerts: dict[tuple[str, str], str], seconds: float = 30.0) -> None:
        """Turn until a member has exactly these alerts."""

        def so() -> bool:
            self.turn()
            return member.alerts() == alerts

        assert wait_until(so, seconds), (member.alerts(), self.sinks.errors)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Alertmanager]]:
    with alertmanagers(tmp_path, 2) as made:
        yield made


def test_members_are_told_each_one_by_itself_and_a_dark_rack_mutes_its_hosts(members: list[Alertmanager]) -> None:
    one, two = members
    root = Root(one.url, two.url)
    root.fire(Kind.NODE_SUSPECT, Axis.LIVENESS, NODE, Cause.SILENCE)
    for member in members:
        root.until(member, {WATCHDOG: "active", ("HbagentHostSuspect", NODE): "active"})
    two.kill()
    root.fire(Kind.NODE_DEAD, Axis.LIVENESS, NODE, Cause.HOST_GONE)
    root.until(one, {WATCHDOG: "active", DOWN: "active"})
    root.fire(Kind.RACK_DARK, Axis.RACK, RACK, Cause.RACK_DARK)
    root.until(one, {WATCHDOG: "active", DOWN: "suppressed", DARK: "active"})
    # It has forgotten everything, as Alertmanager does.
    two.start()
    root.until(two, {WATCHDOG: "active", DOWN: "suppressed", DARK: "active"}, seconds=40.0)
    root.resolve(Axis.RACK, RACK)
    root.resolve(Axis.LIVENESS, NODE)
    for member in members:
        root.until(member, {WATCHDOG: "active"})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Alertmanager]]:
    with alertmanagers(tmp_path_factory.mktemp("alertmanagers"), 2) as made:
        yield made


@pytest.fixture(scope="module")
def fleet(build: Build, places: list[Alertmanager]) -> Iterator[Fleet]:
    with held_ports(1) as (nobody,):
        urls = ", ".join(f'"{url}"' for url in (*(place.url for place in places), f"http://127.0.0.1:{nobody}"))
        table = f'[[alertmanager]]\nname = "am"\nurls = [{urls}]\nresend = "5s"\n'
        made = build(Plan(racks=1, nodes=3, root_tables=table))
        made.wake_up()
        yield made


def test_a_killed_agent_burns_in_every_alertmanager_until_it_is_back(
    fleet: Fleet, places: list[Alertmanager], figures: Figures
) -> None:
    node = "demo/rack1/node1"
    down = ("HbagentHostDown", node)
    assert wait_until(lambda: all(WATCHDOG in place.alerts() for place in places), 30)
    fleet.prove()
    begun = time.monotonic()
    fleet.kill("rack1-node1")
    assert wait_until(lambda: down in places[0].alerts(), 30, step=0.01), places[0].alerts()
    figures("sinks", f"from kill -9 of an agent to its alert in Alertmanager: {time.monotonic() - begun:.2f} s")
    assert wait_until(lambda: down in places[1].alerts(), 30)
    alert = places[0].alert("HbagentHostDown")
    assert alert["labels"] == {
        "alertname": "HbagentHostDown",
        "host": node,
        "rack": "demo/rack1",
        "cause": "process-exit",
        "severity": "warning",
    }
    told = [event for event in fleet.events() if event["kind"] == "node-dead" and event["node"] == node]
    assert alert["annotations"]["event_id"] == told[-1]["event_id"]
    fleet.start(["rack1-node1"])
    for place in places:
        assert wait_until(lambda place=place: place.alerts() == {WATCHDOG: "active"}, 30), place.alerts()  # type: ignore[misc]


def test_a_root_that_is_killed_takes_up_what_burns_and_ends_it(fleet: Fleet, places: list[Alertmanager]) -> None:
    fleet.settle()
    down = ("HbagentHostDown", "demo/rack1/node2")
    fleet.kill("rack1-node2")
    assert wait_until(lambda: down in places[0].alerts(), 30), places[0].alerts()
    before = places[0].alert("HbagentHostDown")
    fleet.restart("root")
    assert wait_until(lambda: down in places[0].alerts(), 30), places[0].alerts()
    assert wait_until(lambda: places[0].alert("HbagentHostDown")["updatedAt"] > before["updatedAt"], 30)
    after = places[0].alert("HbagentHostDown")
    assert (after["fingerprint"], after["startsAt"]) == (before["fingerprint"], before["startsAt"])
    fleet.start(["rack1-node2"])
    assert wait_until(lambda: places[0].alerts() == {WATCHDOG: "active"}, 30), places[0].alerts()
