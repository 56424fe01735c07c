"""Sinks: whatever is lost, each member ends up with what burns, and never sees a trouble stop that goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core import sinks
from hbagent.core.config import SinkConfig
from hbagent.core.effects import PostAlerts
from hbagent.core.messages import Posted
from hbagent.core.records import Event, Restored, Told, Trouble
from hbagent.core.root import RootCore
from hbagent.core.sinks import PROMISED, RETRY_MAX_NS, SKEW_NS, Sinks
from hbagent.core.states import Axis, Cause, Kind, Liveness
from hbagent.core.units import HOUR, MINUTE, SECOND
from hbagent.core.wallclock import rfc3339
from tests.build import LEADER, NODE, NODE2, RACK, WALL_NS, T, root_core, summary, transition, transitions

ONE, TWO = "http://127.0.0.1:9093", "http://127.0.0.1:9094"
CONFIG = SinkConfig(name="am", urls=(ONE,))
DOWN = f"HbagentHostDown {NODE}"
PAIR = SinkConfig(name="am", urls=(ONE, TWO))


class Member:
    """What one Alertmanager believes, by its own rules: an alert is its labels, and the newest end counts."""

    def __init__(self) -> None:
        #: By labels.
        self.alerts: dict[str, dict[str, Any]] = {}
        self.sizes: list[int] = []

    def take(self, post: PostAlerts) -> None:
        alerts = msgspec.json.decode(post.body)
        self.sizes.append(len(alerts))
        self.alerts.update((str(alert["labels"]), alert) for alert in alerts)

    def seen(self, name: str) -> dict[str, Any]:
        """The one alert of this name and host."""
        (alert,) = [alert for alert in self.alerts.values() if shown(alert) == name]
        return alert

    def firing(self, wall_ns: int) -> list[str]:
        names = [shown(alert) for alert in self.alerts.values() if alert["endsAt"] > rfc3339(wall_ns)]
        return sorted(name for name in names if name != "HbagentWatchdog")


def shown(alert: dict[str, Any]) -> str:
    return f"{alert['labels']['alertname']} {alert['labels'].get('host', '')}".strip()


class World:
    """Sinks with a clock, and members that are up or down."""

    def __init__(self, *configs: SinkConfig, now: int = 0) -> None:
        self.sinks = Sinks(configs or (CONFIG,), 7)
        self.now = now
        self.members = {url: Member() for config in configs or (CONFIG,) for url in config.urls}
        self.down: set[str] = set()

    @property
    def wall(self) -> int:
        return WALL_NS + self.now

    def fire(self, kind: Kind = Kind.NODE_DEAD, node: str = NODE, cause: Cause | None = Cause.HOST_GONE) -> None:
        told = Trouble(
            subject=node, axis=Axis.LIVENESS, rack=RACK, incident="i1", kind=kind, cause=cause, event_id="7-1"
        )
        event = Event(event_id="7-1", sequence=1, kind=kind, at_wall_ns=self.wall)
        self.sinks.fire("am", told, event, self.wall)

    def resolve(self, node: str = NODE) -> None:
        self.sinks.resolve("am", node, Axis.LIVENESS, self.wall)

    def answer(self, post: PostAlerts, error: str = "") -> None:
        if not error:
            self.members[post.url].take(post)
        self.sinks.posted(Posted(sink=post.sink, url=post.url, token=post.token, error=error), self.now)

    def step(self) -> int:
        """Post and answer what is due now; returns how many posts there were."""
        count = 0
        while posts := self.sinks.wake(self.now, self.wall):
            count += len(posts)
            for post in posts:
                self.answer(post, "refused" if post.url in self.down else "")
        return count

    def run(self, time_ns: int) -> None:
        """Let time pass."""
        end = self.now + time_ns
        while True:
            self.step()
            due = self.sinks.deadline()
            assert due is not None
            if due > end:
                break
            assert due > self.now, "a deadline that is not over after wake would spin"
            self.now = due
        self.now = end


def test_a_trouble_is_posted_at_once_and_its_end_too() -> None:
    world = World()
    world.step()
    world.fire()
    due = world.sinks.deadline()
    assert due is not None and due <= world.now
    world.step()
    assert world.members[ONE].firing(world.wall) == [DOWN]
    world.now += SECOND
    world.resolve()
    world.step()
    assert world.members[ONE].firing(world.wall) == []
    seen = world.members[ONE].seen(DOWN)
    assert seen["startsAt"] <= seen["endsAt"] == rfc3339(WALL_NS + SECOND - SKEW_NS)


def test_what_burns_is_repeated_and_ends_by_itself_when_the_root_dies() -> None:
    world = World()
    world.fire()
    world.run(10 * MINUTE)
    assert world.members[ONE].firing(world.wall) == [DOWN]
    assert len(world.members[ONE].sizes) == 11
    last = WALL_NS + 10 * MINUTE
    assert world.members[ONE].seen(DOWN)["endsAt"] == rfc3339(last + PROMISED * CONFIG.resend_ns)
    assert world.members[ONE].firing(last + PROMISED * CONFIG.resend_ns) == []


def test_the_watchdog_always_fires() -> None:
    world = World()
    world.run(HOUR)
    assert world.members[ONE].seen("HbagentWatchdog")["endsAt"] > rfc3339(world.wall)
    assert world.sinks.firing("am") == 0


def test_each_member_is_told_and_one_that_is_down_holds_up_nobody() -> None:
    world = World(PAIR)
    world.down.add(TWO)
    world.fire()
    world.run(30 * SECOND)
    assert world.members[ONE].firing(world.wall) == [DOWN]
    assert world.members[TWO].sizes == []
    assert world.sinks.errors == {("am", TWO): "refused"} and world.sinks.failed["am"] >= 3
    world.fire(node=NODE2)
    world.resolve()
    world.down.clear()
    world.run(RETRY_MAX_NS)
    for member in world.members.values():
        assert member.firing(world.wall) == [f"HbagentHostDown {NODE2}"]
    assert world.sinks.errors == {}


def test_a_member_that_is_down_for_long_is_asked_rarely() -> None:
    world = World()
    world.down.add(ONE)
    world.fire()
    world.run(5 * MINUTE)
    assert world.sinks.failed["am"] == pytest.approx(5 + 270 / 30, abs=2)


def test_an_end_reaches_a_member_that_was_down_when_it_came() -> None:
    world = World(PAIR)
    world.fire()
    world.run(SECOND)
    world.down.add(TWO)
    world.resolve()
    world.run(40 * MINUTE)
    world.down.clear()
    world.run(MINUTE)
    assert world.members[TWO].seen(DOWN)["endsAt"] == rfc3339(WALL_NS + SECOND - SKEW_NS)


def test_an_end_is_owed_for_an_hour_and_repeated_for_a_quarter_of_one() -> None:
    world = World(PAIR)
    world.fire()
    world.run(SECOND)
    world.down.add(TWO)
    world.resolve()
    world.run(16 * MINUTE)
    assert len(world.sinks._sinks["am"].alerts) == 2, "TWO does not have it yet"
    world.run(46 * MINUTE)
    assert len(world.sinks._sinks["am"].alerts) == 1, "nothing but the watchdog"
    assert not world.sinks._sinks["am"].ended


def test_a_trouble_that_becomes_another_one_ends_the_old_alert_in_the_post_that_begins_the_new_one() -> None:
    world = World()
    world.fire(Kind.NODE_SUSPECT, cause=Cause.SILENCE)
    world.step()
    world.now += SECOND
    world.fire(Kind.NODE_DEAD)
    (post,) = world.sinks.wake(world.now, world.wall)
    world.answer(post)
    begins, ends = msgspec.json.decode(post.body)
    assert (begins["labels"]["alertname"], ends["labels"]["alertname"]) == ("HbagentHostDown", "HbagentHostSuspect")
    assert (begins["startsAt"], ends["endsAt"]) == (rfc3339(world.wall), rfc3339(world.wall - SKEW_NS))
    world.resolve()
    world.step()
    assert world.members[ONE].firing(world.wall) == []


def test_a_trouble_that_becomes_what_it_was_before_burns_again() -> None:
    world = World()
    for cause in (Cause.SILENCE, Cause.HOST_GONE, Cause.SILENCE):
        world.fire(cause=cause)
        world.now += SECOND
    world.step()
    assert world.members[ONE].firing(world.wall) == [DOWN]
    ends = {alert["labels"].get("cause"): alert["endsAt"] for alert in world.members[ONE].alerts.values()}
    assert ends["host-gone"] <= rfc3339(world.wall) < ends["silence"]


def test_what_changes_while_a_post_is_under_way_is_in_the_next_one() -> None:
    world = World()
    world.fire()
    (post,) = world.sinks.wake(world.now, world.wall)
    world.resolve()
    world.fire(node=NODE2)
    assert world.sinks.wake(world.now, world.wall) == (), "one at a time"
    world.answer(post)
    world.step()
    assert world.members[ONE].firing(world.wall) == [f"HbagentHostDown {NODE2}"]
    assert world.members[ONE].sizes == [2, 2]


def test_an_answer_to_a_post_of_long_ago_changes_nothing() -> None:
    world = World()
    world.fire()
    (post,) = world.sinks.wake(world.now, world.wall)
    world.sinks.posted(Posted(sink="am", url=ONE, token=post.token + 1), world.now)
    world.sinks.posted(Posted(sink="other", url=ONE, token=post.token), world.now)
    world.sinks.posted(Posted(sink="am", url=TWO, token=post.token), world.now)
    assert world.sinks.taken == {"am": 0}
    world.answer(post)
    world.answer(post)
    assert world.sinks.taken == {"am": 2}


def test_a_storm_travels_in_posts_of_bounded_size_and_news_before_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "POST_MAX", 10)
    world = World()
    for number in range(35):
        world.fire(node=f"{RACK}/node{number}")
    world.step()
    assert world.members[ONE].sizes == [10, 10, 10, 6]
    world.now += CONFIG.resend_ns
    world.fire(node=f"{RACK}/new")
    (post,) = world.sinks.wake(world.now, world.wall)
    assert msgspec.json.decode(post.body)[0]["labels"]["host"] == f"{RACK}/new"


def test_of_what_is_over_so_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "ENDED_MAX", 5)
    world = World()
    for number in range(20):
        world.fire(node=f"{RACK}/node{number}")
        world.resolve(f"{RACK}/node{number}")
    assert len(world.sinks._sinks["am"].alerts) == 5
    world.run(MINUTE)
    assert world.members[ONE].firing(world.wall) == []


def test_what_an_earlier_life_told_is_told_on_and_can_end() -> None:
    world = World()
    told = Trouble(
        subject=NODE, axis=Axis.LIVENESS, rack=RACK, incident="i1", kind=Kind.NODE_DEAD, cause=Cause.HOST_GONE,
        event_id="6-1", at_wall_ns=WALL_NS - HOUR,
    )  # fmt: skip
    world.sinks.take_over("am", told)
    world.step()
    assert world.members[ONE].seen(DOWN)["startsAt"] == rfc3339(WALL_NS - HOUR)
    world.resolve()
    world.step()
    assert world.members[ONE].firing(world.wall) == []


def test_an_end_lies_in_the_past_for_a_member_whose_clock_is_a_little_behind() -> None:
    world = World()
    world.fire()
    world.step()
    world.resolve()
    world.step()
    assert world.members[ONE].firing(world.wall - 9 * SECOND) == []


def test_flapping_burns_beside_the_trouble_and_ends_alone() -> None:
    world = World()
    world.fire()
    world.sinks.flap("am", NODE, Axis.LIVENESS, RACK, "7-2", world.wall)
    world.step()
    assert world.members[ONE].firing(world.wall) == [DOWN, f"HbagentHostFlapping {NODE}"]
    world.sinks.steady("am", NODE, Axis.LIVENESS, world.wall)
    world.sinks.steady("am", NODE, Axis.HEALTH, world.wall)
    world.step()
    assert world.members[ONE].firing(world.wall) == [DOWN]


def test_a_subject_that_is_known_no_longer_flaps_no_more() -> None:
    world = World()
    world.sinks.flap("am", NODE, Axis.LIVENESS, RACK, "7-2", world.wall)
    world.resolve()
    world.step()
    assert world.members[ONE].firing(world.wall) == []


def root_with(*messages: object, **settings: Any) -> tuple[RootCore, World]:
    """A root that was told these by its leader, and a world that has its sinks."""
    core = root_core(**{"sinks": (CONFIG,), **settings})
    core.receive(LEADER, summary(1), T(1))
    for message in messages:
        core.receive(LEADER, message, T(1))
    world = World(now=T(1))
    world.sinks = core.alerts.sinks
    for _, member in world.sinks._members():
        # What the core itself has posted by now is taken as lost.
        member.token = 0
    world.step()
    return core, world


def test_a_cause_that_is_known_better_is_another_alert() -> None:
    silent = transition(1, Liveness.SUSPECT, Liveness.ALIVE, cause=Cause.SILENCE)
    frozen = transition(2, Liveness.SUSPECT, Liveness.SUSPECT, cause=Cause.PROCESS_FROZEN)
    config = msgspec.structs.replace(CONFIG, on=(Kind.NODE_SUSPECT, *CONFIG.on))
    _, world = root_with(transitions(silent), transitions(frozen), sinks=(config,))
    burning = [alert for alert in world.members[ONE].alerts.values() if alert["endsAt"] > rfc3339(world.wall)]
    assert [alert["labels"].get("cause") for alert in burning if "host" in alert["labels"]] == ["process-frozen"]


def test_a_root_that_is_started_again_goes_on_with_what_burns_and_what_flaps() -> None:
    told = Trouble(
        subject=NODE, axis=Axis.LIVENESS, rack=RACK, incident="i1", kind=Kind.NODE_DEAD, told={"am": Told(sent=True)}
    )
    flaps = msgspec.structs.replace(told, subject=NODE2, flapping="e-1", flap_told=("am",), over=True, told={})
    _, world = root_with(restored=Restored(troubles=(told, flaps)))
    assert world.members[ONE].firing(world.wall) == [DOWN, f"HbagentHostFlapping {NODE2}"]
    silenced = msgspec.structs.replace(flaps, flap_told=())
    _, world = root_with(restored=Restored(troubles=(told, silenced)))
    assert world.members[ONE].firing(world.wall) == [DOWN], "what it was not told before, for a silence"


def test_nothing_is_posted_before_the_wall_clock_is_known() -> None:
    world = World()
    told = Trouble(subject=NODE, axis=Axis.LIVENESS, rack=RACK, incident="i1", kind=Kind.NODE_DEAD)
    world.sinks.take_over("am", told)
    world.sinks.resolve("am", NODE, Axis.LIVENESS, 0)
    assert world.sinks.wake(0, 0) == ()
    due = world.sinks.deadline()
    assert due is not None and due > 0, "it must not spin meanwhile"
    world.run(2 * SECOND)
    assert world.members[ONE].firing(world.wall) == []


def test_a_wall_clock_that_is_set_back_ends_nothing_later_and_begins_nothing_in_the_future() -> None:
    world = World()
    world.fire()
    world.step()
    world.resolve()
    back = world.wall - HOUR
    (post,) = world.sinks.wake(world.now, back)
    (alert,) = msgspec.json.decode(post.body)
    assert alert["startsAt"] == alert["endsAt"] == rfc3339(back - SKEW_NS)


def test_other_settings_bring_what_burns_to_a_new_member_and_forget_sinks_that_are_gone() -> None:
    world = World()
    world.fire()
    world.step()
    world.sinks.use((PAIR, SinkConfig(name="other", urls=(ONE,))))
    world.members[TWO] = Member()
    world.step()
    assert world.members[TWO].firing(world.wall) == [DOWN]
    world.sinks.use((SinkConfig(name="other", urls=(ONE,)),))
    assert world.sinks.taken.keys() == {"other"}
    world.fire()
    world.resolve()
    assert world.sinks.firing("am") == 0
    world.sinks.use(())
    assert world.sinks.deadline() is None and world.sinks.wake(world.now, world.wall) == ()


_STEPS = st.one_of(
    st.tuples(st.just("fire"), st.integers(0, 2), st.sampled_from([Cause.SILENCE, Cause.HOST_GONE])),
    st.tuples(st.just("end"), st.integers(0, 2)),
    st.tuples(st.just("pass"), st.integers(1, 100)),
    st.tuples(st.sampled_from(["down", "up"]), st.sampled_from([ONE, TWO])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_STEPS, max_size=25))
def test_whatever_happens_each_member_ends_up_with_what_burns(steps: list[tuple[Any, ...]]) -> None:
    world = World(PAIR)
    burning: dict[str, Cause] = {}
    for what, *of in steps:
        if what == "fire":
            node = f"{RACK}/node{of[0]}"
            burning[node] = of[1]
            world.fire(node=node, cause=of[1])
        elif what == "end":
            node = f"{RACK}/node{of[0]}"
            burning.pop(node, None)
            world.resolve(node)
        elif what == "pass":
            world.run(T(of[0]))
        else:
            (world.down.add if what == "down" else world.down.discard)(of[0])
    world.down.clear()
    world.run(RETRY_MAX_NS + SECOND)
    for member in world.members.values():
        assert member.firing(world.wall) == sorted(f"HbagentHostDown {node}" for node in burning)
    assert world.sinks.firing("am") == len(burning)
