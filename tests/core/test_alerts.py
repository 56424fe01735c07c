"""Who is told of what, when, and why not: scenarios, and a property over random lives of the root."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.alerts import Alerts
from hbagent.core.chronicle import Chronicle
from hbagent.core.config import BrakeConfig, HookConfig, RackConfig, RootConfig, SinkConfig
from hbagent.core.health import worst
from hbagent.core.ledger import Ledger
from hbagent.core.messages import CHANGES_MAX, Evidence, Order
from hbagent.core.records import Batch, Event, HookRun, Incident, Restored, RunState, Silence, Trouble
from hbagent.core.states import Axis, Cause, Health, IncidentState, Kind, Liveness, Reason
from hbagent.core.units import MINUTE, SECOND
from hbagent.core.wallclock import WallClock
from tests.build import WALL_NS, hook, part
from tests.examples import examples

R1, R2 = "dc1/rack1", "dc1/rack2"
RACKS = tuple(RackConfig(name=rack, leaders=(f"{rack}-leader1", f"{rack}-leader2")) for rack in (R1, R2))
DEAD, BACK = Kind.NODE_DEAD, Kind.NODE_RECOVERED
ALL_TROUBLES = (Kind.NODE_SUSPECT, DEAD, BACK, Kind.HEALTH_CHANGED, Kind.NODE_FLAPPING, Kind.NODE_STEADY)
WAITS: dict[str, Any] = {"doubt_wait_ns": SECOND, "settle_ns": 4 * SECOND}


class Disk:
    """What a store would have: the newest of each row."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.runs: dict[str, HookRun] = {}
        self.troubles: dict[tuple[str, Axis], Trouble] = {}
        self.incidents: dict[str, Incident] = {}
        self.silences: dict[str, Silence] = {}

    def write(self, batch: Batch) -> None:
        self.events.update((event.event_id, event) for event in batch.events)
        self.runs.update((run.run_id, run) for run in batch.runs)
        for key in batch.ended:
            self.troubles.pop(key, None)
        self.troubles.update(((one.subject, one.axis), one) for one in batch.troubles)
        self.incidents.update((one.incident_id, one) for one in batch.incidents)
        self.silences.update((one.silence_id, one) for one in batch.silences)

    def restored(self) -> Restored:
        named = {told.run_id for trouble in self.troubles.values() for told in trouble.told.values()}
        runs = [
            run
            for run in self.runs.values()
            if run.state in (RunState.PENDING, RunState.HELD, RunState.DEAD)
            or (run.state is RunState.SUPPRESSED and run.run_id in named)
        ]
        return Restored(
            runs=tuple(sorted(runs, key=lambda run: run.queued)),
            troubles=tuple(self.troubles.values()),
            incidents=tuple(one for one in self.incidents.values() if one.state is not IncidentState.RESOLVED),
            silences=tuple(self.silences.values()),
            newest_sequence=max((event.sequence for event in self.events.values()), default=0),
        )


class Life:
    """Alerts with a clock and a disk; `hear` is what receivers were handed, in order."""

    def __init__(self, *hooks: HookConfig, sinks: tuple[SinkConfig, ...] = (), **more: Any) -> None:
        waits = {"doubt_wait_ns": 0, "settle_ns": 0}
        self.config = RootConfig(
            name="dc1/root", racks=RACKS, hooks=hooks or (hook("page"),), sinks=sinks, **{**waits, **more}
        )
        self.disk = Disk()
        self.now = 0
        self.lives = 0
        self.wall = WallClock()
        self.told: list[tuple[str, str, str]] = []
        #: What leaders say of every node.
        self.observers: tuple[tuple[str, Liveness, Cause | None], ...] = ()
        self._given: set[str] = set()
        self._apps: dict[str, dict[str, Health]] = {}
        self.start()

    def start(self, heard: bool = True) -> None:
        """Begin a life of the root with what the disk has; its leaders are `heard` at once."""
        self.lives += 1
        restored = self.disk.restored()
        self.ledger = Ledger()
        self.chronicle = Chronicle(self.lives)
        self.chronicle.newest = restored.newest_sequence
        self.wall.tell(WALL_NS + self.now, self.now)
        kept = (self.config, self.ledger, self.chronicle, self.wall, self.lives, self.now, restored)
        self.alerts = Alerts(*kept, lambda node: self.observers)
        for rack in (R1, R2) if heard and self.lives > 1 else ():
            self.alerts.settle(rack, self.now)

    def commit(self) -> None:
        order = self.ledger.write(self.now)
        if order is None:
            return
        self.disk.write(order.batch)
        self.ledger.kept(order.token)
        for run in order.batch.runs:
            if run.state is RunState.PENDING and run.run_id not in self._given:
                self._given.add(run.run_id)
                document = msgspec.json.decode(run.input)
                self.told.append((run.hook, document["kind"], (document["node"] or document["rack"] or "root")[-2:]))

    def pass_time(self, seconds: float) -> Life:
        """Wake whenever it is due."""
        until = self.now + int(seconds * SECOND)
        while (due := self.alerts.deadline()) <= until:
            self.now = max(self.now, due)
            self.alerts.wake(self.now)
            self.alerts.watchdog(self.now)
            self.commit()
        self.now = until
        self.alerts.wake(self.now)
        self.commit()
        return self

    def say(self, kind: Kind, node: str = "n1", rack: str = R1, **fields: Any) -> Event:
        """Something happens to a node, or with "" to its rack."""
        to = {DEAD: Liveness.DEAD, BACK: Liveness.ALIVE, Kind.NODE_SUSPECT: Liveness.SUSPECT}.get(kind)
        cause = {DEAD: Cause.HOST_GONE, Kind.NODE_SUSPECT: Cause.SILENCE, Kind.RACK_DARK: Cause.RACK_DARK}.get(kind)
        values = {"liveness_to": to, "cause": cause, "evidence": Evidence(text=f"{kind.value} of {node}"), **fields}
        event = self.alerts.tell(
            self.chronicle.make(
                kind, self.wall.at(self.now), node=f"{rack}/{node}" if node else "", rack=rack, **values
            ),
            self.now,
        )
        self.commit()
        return event

    def lose(self, kind: Kind, leader: str, rack: str = R1) -> Event:
        return self.say(kind, "", rack, leader=f"{rack}-{leader}")

    def sick(self, node: str, health: Health, rack: str = R1, app: str = "web") -> Event:
        apps = self._apps.setdefault(f"{rack}/{node}", {})
        change, apps[app] = part(app, health, apps.get(app, Health.OK)), health
        return self.say(
            Kind.HEALTH_CHANGED,
            node,
            rack,
            health_to=worst(apps.values()),
            evidence=Evidence(text=f"{app} is {health.value}", changes=(change,)),
        )

    def fresh(self) -> None:
        """Forget what receivers were told up to now."""
        self._given.clear()
        self._given.update(run.run_id for run in self.disk.runs.values() if run.state is RunState.PENDING)
        self.told.clear()

    def first(self, kind: Kind) -> Event:
        return next(event for event in self.disk.events.values() if event.kind is kind)

    def newest(self, kind: Kind) -> Event:
        return [event for event in self.disk.events.values() if event.kind is kind][-1]

    def end(self, event: Event, state: RunState, receiver: str = "page") -> None:
        """Its hook has done with it."""
        run = msgspec.structs.replace(self.disk.runs[f"{event.event_id}-{receiver}"], state=state)
        self.ledger.run(run)
        self.alerts.hook_ended(run, self.now)
        self.commit()

    def silence(self, seconds: int, **order: Any) -> str:
        values = {"what": "silence", "reason": "switch swap", "length_ns": seconds * SECOND, **order}
        silence = self.alerts.objections.silences.add(Order(id=1, **values), "ada", self.wall.at(self.now))
        self.ledger.silence(silence)
        self.alerts.silences_changed(self.now)
        self.commit()
        return silence.silence_id

    def why(self, event: Event, receiver: str = "page") -> tuple[RunState, Reason | None, str]:
        run = self.disk.runs[f"{event.event_id}-{receiver}"]
        return (run.state, run.reason, run.ref)

    def kinds(self, receiver: str = "page") -> list[str]:
        return [f"{kind} {whom}" for name, kind, whom in self.told if name == receiver]

    def last(self) -> dict[str, Any]:
        newest = max((run for run in self.disk.runs.values() if run.input), key=lambda run: run.queued)
        read: dict[str, Any] = msgspec.json.decode(newest.input)
        return read

    def check(self) -> None:
        """The ledger balances, and no incident stays open without a trouble."""
        rows = Counter(run.event_id for run in self.disk.runs.values())
        for event in self.disk.events.values():
            assert rows[event.event_id] == event.notices, event
        for run in self.disk.runs.values():
            assert (run.reason is not None) or run.state not in (RunState.HELD, RunState.SUPPRESSED)
        burning = {one.incident for one in self.disk.troubles.values() if not one.over}
        for incident in self.disk.incidents.values():
            assert incident.state is IncidentState.RESOLVED or incident.incident_id in burning


def test_a_death_is_told_at_once_and_its_end_as_well() -> None:
    life = Life()
    life.say(DEAD)
    assert life.kinds() == ["node-dead n1"]
    life.say(BACK)
    assert life.kinds() == ["node-dead n1", "node-recovered n1"]
    life.check()
    assert [one.state for one in life.disk.incidents.values()] == [IncidentState.RESOLVED]


def test_an_end_within_the_hold_is_nobodys_business() -> None:
    life = Life(hook("page", hold_ns=10 * SECOND), hook("log"))
    died = life.say(DEAD)
    life.pass_time(9)
    back = life.say(BACK)
    life.pass_time(60)
    assert life.kinds() == []
    assert life.kinds("log") == ["node-dead n1", "node-recovered n1"]
    assert life.why(died) == (RunState.SUPPRESSED, Reason.HOLD, "")
    assert life.why(back) == (RunState.SUPPRESSED, Reason.NEVER_TOLD, "")
    life.check()


def test_a_hold_goes_on_over_a_restart_of_the_root_and_does_not_begin_anew() -> None:
    life = Life(hook("page", hold_ns=10 * SECOND))
    life.say(DEAD, cause=Cause.PROCESS_EXIT)
    for _ in range(3):
        life.pass_time(3).start()
    assert life.pass_time(0.5).kinds() == []
    assert life.pass_time(0.6).kinds() == ["node-dead n1"]


def test_who_had_to_wait_is_told_what_the_leaders_say_by_then() -> None:
    life = Life(hook("page", hold_ns=2 * SECOND), hook("log"))
    life.observers = (("l1", Liveness.DEAD, Cause.HOST_GONE), ("l2", Liveness.SUSPECT, Cause.SILENCE))
    died = life.say(DEAD, observers=life.observers)
    life.observers = (("l1", Liveness.DEAD, Cause.HOST_GONE), ("l2", Liveness.DEAD, Cause.HOST_GONE))
    life.pass_time(3)
    told = {
        name: [
            one["liveness"] for one in msgspec.json.decode(life.disk.runs[f"{died.event_id}-{name}"].input)["observers"]
        ]
        for name in ("page", "log")
    }
    assert told == {"page": ["DEAD", "DEAD"], "log": ["DEAD", "SUSPECT"]}


def test_what_outlasts_the_hold_is_told_when_it_ends() -> None:
    life = Life(hook("page", hold_ns=10 * SECOND))
    life.say(DEAD)
    assert life.pass_time(9.9).kinds() == []
    assert life.pass_time(0.2).kinds() == ["node-dead n1"]


def test_a_silence_keeps_back_what_burns_until_it_ends() -> None:
    life = Life()
    silence = life.silence(60, nodes=("dc1/rack1/n1",))
    died = life.say(DEAD)
    life.say(DEAD, "n2")
    assert life.kinds() == ["node-dead n2"]
    assert life.why(died) == (RunState.SUPPRESSED, Reason.SILENCE, silence)
    assert life.pass_time(58).kinds() == ["node-dead n2"]
    assert life.pass_time(3).kinds() == ["node-dead n2", "node-dead n1"]
    life.check()


def test_a_silence_that_is_lifted_lets_go_at_once_what_burns_and_nothing_else() -> None:
    life = Life()
    silence = life.silence(3600, racks=(R1,))
    life.say(DEAD, "n1")
    life.say(DEAD, "n2")
    life.say(BACK, "n2")
    life.alerts.objections.silences.end(silence, "ada", life.wall.at(life.now))
    life.alerts.silences_changed(life.now)
    life.commit()
    assert life.kinds() == ["node-dead n1"]
    life.check()


def test_the_end_of_what_was_told_is_told_under_a_silence_too() -> None:
    life = Life()
    life.say(DEAD)
    life.silence(3600, racks=(R1,), maintenance=True)
    life.say(BACK)
    assert life.kinds() == ["node-dead n1", "node-recovered n1"]


def test_a_maintenance_covers_absence() -> None:
    life = Life()
    maintenance = life.silence(3600, racks=(R1,), maintenance=True)
    away = life.say(Kind.NODE_AWAY, liveness_to=Liveness.LEFT, cause=Cause.LEFT)
    assert life.kinds() == []
    assert life.why(away) == (RunState.SUPPRESSED, Reason.MAINTENANCE, maintenance)
    assert life.pass_time(3601).kinds() == ["node-away n1"]


def test_a_dark_rack_speaks_for_its_nodes_and_afterwards_who_stays_down_is_told_once() -> None:
    life = Life(**WAITS)
    dark = life.say(Kind.RACK_DARK, "")
    died = [life.say(DEAD, f"n{number}") for number in range(1, 5)]
    assert life.pass_time(30).kinds() == ["rack-dark k1"]
    assert life.why(died[0])[:2] == (RunState.SUPPRESSED, Reason.INHIBITED)
    assert life.why(died[0])[2] == dark.incident
    life.say(Kind.RACK_RECOVERED, "")
    assert life.pass_time(3.5).kinds() == ["rack-dark k1", "rack-recovered k1"]
    life.say(BACK, "n1", withheld="rack-dark")
    assert life.pass_time(1).kinds()[2:] == ["summary k1"]
    assert (life.last()["count"], life.last()["cause"]) == (3, "host-gone")
    life.check()


def test_a_lost_leader_speaks_for_its_rack_only_when_nobody_else_can() -> None:
    life = Life(**WAITS)
    life.lose(Kind.LEADER_LOST, "leader1")
    life.say(DEAD, "n1")
    assert life.kinds() == ["leader-lost k1", "node-dead n1"]
    life.lose(Kind.LEADER_LOST, "leader2")
    kept = life.say(DEAD, "n2")
    assert life.why(kept)[1] is Reason.INHIBITED
    life.lose(Kind.LEADER_RECOVERED, "leader1")
    assert life.why(kept)[0] is RunState.HELD
    assert life.pass_time(5).kinds()[-1] == "node-dead n2"


def test_an_isolated_root_speaks_for_everybody() -> None:
    life = Life()
    life.say(Kind.ROOT_ISOLATED, "", "", cause=Cause.ROOT_ISOLATED)
    life.say(DEAD)
    life.lose(Kind.LEADER_LOST, "leader1")
    assert life.kinds() == ["root-isolated ot"]
    life.say(Kind.LEADER_RECOVERED, "", "", cause=Cause.ROOT_ISOLATED)
    assert life.pass_time(1).kinds() == ["root-isolated ot", "leader-recovered ot", "node-dead n1", "leader-lost k1"]
    life.check()


def test_a_rack_that_settles_is_not_believed_about_silence_yet_but_about_an_exit() -> None:
    life = Life(**WAITS)
    life.alerts.settle(R1, life.now)
    silent = life.say(DEAD, "n1")
    life.say(DEAD, "n2", cause=Cause.PROCESS_EXIT)
    assert life.kinds() == ["node-dead n2"]
    assert life.why(silent)[:2] == (RunState.HELD, Reason.GRACE)
    life.say(BACK, "n1")
    assert life.why(silent)[:2] == (RunState.SUPPRESSED, Reason.RECOVERED)
    life.say(DEAD, "n3")
    assert life.pass_time(5).kinds() == ["node-dead n2", "node-dead n3"]
    life.check()


def test_while_others_of_the_rack_are_in_doubt_a_silence_waits_and_together_they_are_one() -> None:
    life = Life(**WAITS)
    for number in range(1, 6):
        life.say(Kind.NODE_SUSPECT, f"n{number}")
    for number in range(1, 6):
        life.pass_time(0.1).say(DEAD, f"n{number}")
    life.say(DEAD, "n9", cause=Cause.PROCESS_EXIT)
    assert life.kinds() == ["node-dead n9"], "a proved exit waits for nobody"
    assert life.pass_time(2).kinds() == ["node-dead n9", "summary k1"]
    read = life.last()
    assert (read["count"], len(read["members"]), read["rack"], read["cause"]) == (5, 5, R1, "host-gone")
    assert "5 of rack dc1/rack1: DEAD (host-gone)" in read["evidence"]["text"]
    for number in range(1, 6):
        life.say(BACK, f"n{number}")
    life.pass_time(20)
    assert life.kinds()[2:] == ["summary k1"]
    assert life.last()["liveness"]["to"] == "ALIVE"
    life.check()


def test_one_alone_in_doubt_waits_for_nobody() -> None:
    life = Life(**WAITS)
    life.say(Kind.NODE_SUSPECT)
    life.say(DEAD)
    assert life.kinds() == ["node-dead n1"]


def test_two_that_waited_together_are_told_one_by_one() -> None:
    life = Life(**WAITS)
    for kind in (Kind.NODE_SUSPECT, DEAD):
        for node in ("n1", "n2"):
            life.say(kind, node)
    assert sorted(life.pass_time(2).kinds()) == ["node-dead n1", "node-dead n2"]


def test_a_node_that_flaps_is_told_once_and_once_that_it_is_steady() -> None:
    life = Life(hook("page", *ALL_TROUBLES))
    for _ in range(20):
        life.pass_time(1).say(DEAD)
        life.pass_time(1).say(BACK)
    told = life.kinds()
    assert told == [
        *("node-dead n1", "node-recovered n1"),
        *("node-dead n1", "node-recovered n1"),
        "node-flapping n1",
    ]
    life.pass_time(3600)
    assert life.kinds()[len(told) :] == ["node-steady n1"]
    life.check()


def test_who_was_told_before_it_flapped_has_the_end_when_it_is_steady() -> None:
    life = Life()
    for kind in (DEAD, BACK, DEAD, BACK):
        life.say(kind)
    slow = Kind.NODE_SUSPECT
    life.say(slow)
    life.say(DEAD)
    told = life.kinds()
    assert told[-1] == "node-flapping n1"
    life.pass_time(3600)
    assert life.kinds()[len(told) :] == ["node-steady n1", "node-dead n1"], "it still burns"
    life.say(BACK)
    assert life.kinds()[-1] == "node-recovered n1"
    life.check()


def test_an_acknowledged_incident_tells_only_what_is_worse() -> None:
    life = Life()
    incident = life.sick("n1", Health.WARNING).incident
    life.alerts.incidents.acknowledge(incident, "ada", "on it", life.wall.at(life.now))
    same = life.sick("n1", Health.WARNING)
    assert life.why(same)[1] is Reason.ACKNOWLEDGED
    life.sick("n1", Health.DEADLOCKED)
    assert life.kinds() == ["health-changed n1", "health-changed n1"]
    assert life.disk.incidents[incident].state is IncidentState.FIRING
    life.sick("n1", Health.OK)
    assert life.kinds()[-1] == "health-changed n1"
    assert life.disk.incidents[incident].state is IncidentState.RESOLVED
    life.check()


def test_who_knows_of_one_application_is_told_of_another_one() -> None:
    life = Life()
    incident = life.sick("n1", Health.CRITICAL, app="billing").incident
    life.alerts.incidents.acknowledge(incident, "ada", "known", life.wall.at(life.now))
    life.sick("n1", Health.WARNING, app="disk")
    assert life.last()["evidence"]["text"] == "disk is WARNING"
    life.alerts.incidents.acknowledge(incident, "ada", "that too", life.wall.at(life.now))
    life.pass_time(600).sick("n1", Health.OK, app="disk")
    assert life.kinds() == 2 * ["health-changed n1"], "that is no worse"
    life.pass_time(600).sick("n1", Health.WARNING, app="disk")
    assert life.kinds() == 3 * ["health-changed n1"], "it was well in between"
    life.check()


def test_an_acknowledgement_holds_for_the_worst_that_was_known() -> None:
    life = Life()
    incident = life.sick("n1", Health.WARNING).incident
    life.pass_time(600).sick("n1", Health.CRITICAL)
    life.alerts.incidents.acknowledge(incident, "ada", "on it", life.wall.at(life.now))
    told = life.kinds()
    for health in 3 * (Health.WARNING, Health.CRITICAL):
        life.pass_time(3600).sick("n1", health)
    assert life.kinds() == told
    life.start()
    life.pass_time(60).sick("n1", Health.WARNING)
    life.pass_time(60).sick("n1", Health.CRITICAL)
    assert life.kinds() == told, "and a restart forgets none of it"
    life.pass_time(60).sick("n1", Health.DEADLOCKED)
    assert life.kinds() == [*told, "health-changed n1"]
    life.check()


def test_what_flaps_holds_down_no_other_part_of_its_node() -> None:
    life = Life(hook("page", *ALL_TROUBLES))
    for health in 4 * (Health.CRITICAL, Health.OK):
        life.pass_time(1).sick("n1", health, app="noisy")
    told = life.kinds()
    assert told == [*(4 * ["health-changed n1"]), "node-flapping n1"]
    life.pass_time(1).sick("n1", Health.CRITICAL, app="pay")
    assert life.last()["evidence"]["text"] == "pay is CRITICAL"
    life.start()
    for health in 2 * (Health.CRITICAL, Health.OK):
        life.pass_time(1).sick("n1", health, app="noisy")
    assert life.kinds() == [*told, "health-changed n1"], "the noisy one is still held down"
    life.sick("n1", Health.DEADLOCKED, app="pay")
    life.sick("n1", Health.WARNING, app="third")
    assert life.kinds() == [*told, *(3 * ["health-changed n1"])]
    for app in ("pay", "third"):
        life.sick("n1", Health.OK, app=app)
    life.pass_time(3600)
    assert life.kinds()[-2:] == ["node-steady n1", "health-changed n1"]
    assert life.disk.troubles == {}
    life.check()


def test_that_another_part_is_well_again_is_told_once_the_node_is_steady() -> None:
    life = Life(hook("page", *ALL_TROUBLES))
    life.sick("n1", Health.CRITICAL, app="pay")
    for health in 3 * (Health.OK, Health.WARNING):
        life.pass_time(12).sick("n1", health, app="noisy")
    well = life.sick("n1", Health.OK, app="pay")
    told = life.kinds()
    assert told[-1] == "node-flapping n1"
    life.pass_time(3600)
    assert life.kinds()[len(told) :] == ["node-steady n1", "health-changed n1"]
    assert life.why(well)[0] is RunState.PENDING
    life.check()


def test_a_part_of_which_a_crowded_event_said_nothing_is_news_when_it_breaks() -> None:
    life = Life()
    apps = [f"app{number}" for number in range(CHANGES_MAX + 5)]
    for app in apps:
        life.pass_time(600).sick("n1", Health.CRITICAL, app=app)
    healed = tuple(part(app, Health.OK, Health.CRITICAL) for app in apps[:CHANGES_MAX])
    fields: dict[str, Any] = {"health_to": Health.CRITICAL, "evidence": Evidence(text="", changes=healed)}
    incident = life.say(Kind.HEALTH_CHANGED, "n1", **fields).incident
    life.alerts.incidents.acknowledge(incident, "ada", "", life.wall.at(life.now))
    life.fresh()
    life._apps[f"{R1}/n1"][apps[-1]] = Health.OK
    life.pass_time(600).sick("n1", Health.CRITICAL, app=apps[-1])
    assert life.kinds() == ["health-changed n1"]


def test_a_trouble_that_an_older_release_kept_is_news_only_when_it_gets_worse() -> None:
    life = Life()
    incident = life.sick("n1", Health.CRITICAL).incident
    life.alerts.incidents.acknowledge(incident, "ada", "", life.wall.at(life.now))
    life.commit()
    key = (f"{R1}/n1", Axis.HEALTH)
    old = life.disk.troubles[key]
    told = {name: msgspec.structs.replace(said, parts={}) for name, said in old.told.items()}
    life.disk.troubles[key] = msgspec.structs.replace(old, parts={}, told=told)
    life.start()
    life.pass_time(60).fresh()
    life.sick("n1", Health.WARNING)
    assert life.kinds() == []
    life.sick("n1", Health.DEADLOCKED)
    assert life.kinds() == ["health-changed n1"]


def test_a_part_that_waits_to_be_told_is_told_although_another_one_flaps_meanwhile() -> None:
    life = Life(hook("page", *ALL_TROUBLES, hold_ns=5 * SECOND))
    for health in 4 * (Health.CRITICAL, Health.OK):
        life.pass_time(1).sick("n1", health, app="noisy")
    assert life.kinds() == ["node-flapping n1"]
    life.sick("n1", Health.CRITICAL, app="pay")
    life.pass_time(2).sick("n1", Health.CRITICAL, app="noisy")
    assert life.pass_time(4).kinds() == ["node-flapping n1", "health-changed n1"]
    life.check()


def test_a_part_that_goes_between_two_bad_states_flaps_too() -> None:
    life = Life(hook("page", *ALL_TROUBLES))
    for health in 40 * (Health.WARNING, Health.CRITICAL):
        life.pass_time(4).sick("n1", health)
    assert life.kinds() == [*(3 * ["health-changed n1"]), "node-flapping n1"]
    life.pass_time(3600)
    assert life.kinds()[4:] == ["node-steady n1"], "it is as bad as he knows"
    life.sick("n1", Health.OK)
    assert life.kinds()[5:] == ["health-changed n1"]
    life.check()


def test_each_part_that_flaps_is_named_and_it_is_over_with_the_last() -> None:
    life = Life(hook("page", *ALL_TROUBLES))
    for app in ("one", "two"):
        for health in 3 * (Health.CRITICAL, Health.OK):
            life.pass_time(1).sick("n1", health, app=app)
    flaps = [event.evidence for event in life.disk.events.values() if event.kind is Kind.NODE_FLAPPING]
    assert [said.text.split(" changes")[0] for said in flaps if said] == ["app one", "app two"]
    life.start()
    life.pass_time(3600)
    assert life.kinds().count("node-steady n1") == 1
    assert life.disk.troubles == {}
    life.check()


def test_incidents_are_one_for_each_rack_and_cause() -> None:
    life = Life()
    first = life.say(DEAD, "n1")
    again = life.say(DEAD, "n2")
    other = life.say(DEAD, "n3", cause=Cause.PROCESS_EXIT)
    elsewhere = life.say(DEAD, "n1", R2)
    assert first.incident == again.incident
    assert len({first.incident, other.incident, elsewhere.incident}) == 3
    incident = life.disk.incidents[first.incident]
    assert (incident.count, incident.members) == (2, (f"{R1}/n1", f"{R1}/n2"))


def test_a_suspicion_is_no_incident_before_it_is_a_death() -> None:
    life = Life()
    assert life.say(Kind.NODE_SUSPECT).incident == ""
    assert life.say(DEAD).incident != ""


def test_the_brake_lets_some_through_and_tells_the_rest_at_once() -> None:
    life = Life(brake=BrakeConfig(rack_max=2, all_max=3))
    for number in range(10):
        life.say(DEAD, f"n{number}", cause=Cause.PROCESS_EXIT)
    assert life.kinds() == ["node-dead n0", "node-dead n1"]
    life.pass_time(11)
    assert life.kinds()[2:] == ["summary k1"]
    assert life.last()["count"] == 8
    for number in range(10):
        life.say(BACK, f"n{number}")
    life.pass_time(11)
    assert life.kinds()[3:] == ["node-recovered n0", "node-recovered n1", "summary k1"]
    life.check()


def test_a_storm_of_a_whole_datacenter_is_a_handful_of_messages() -> None:
    life = Life()
    for number in range(1000):
        life.say(DEAD, f"n{number}", (R1, R2)[number % 2], cause=Cause.PROCESS_EXIT)
    life.pass_time(60)
    assert len(life.kinds()) == 11
    assert life.last()["count"] == 990
    assert life.last()["rack"] is None
    assert len(life.last()["members"]) == 100
    life.check()


def test_a_suspicion_that_waits_is_superseded_by_the_death() -> None:
    life = Life(hook("page", *ALL_TROUBLES, hold_ns=5 * SECOND))
    doubt = life.say(Kind.NODE_SUSPECT)
    died = life.pass_time(2).say(DEAD)
    assert life.why(doubt) == (RunState.SUPPRESSED, Reason.SUPERSEDED, died.event_id)
    assert life.pass_time(3.1).kinds() == ["node-dead n1"], "the hold counts from the first of it"


def test_late_and_refined_events_have_a_reason_each() -> None:
    life = Life()
    late = life.say(DEAD, late=True)
    assert life.why(late)[1] is Reason.LATE
    life.say(DEAD)
    refined = life.say(DEAD, withheld="refined", cause=Cause.PROCESS_EXIT)
    assert life.why(refined)[1] is Reason.REFINED
    assert life.disk.troubles[f"{R1}/n1", Axis.LIVENESS].cause is Cause.PROCESS_EXIT
    life.check()


def test_a_watchdog_goes_to_who_asks_for_it_and_into_no_history() -> None:
    life = Life(hook("dead-man", Kind.WATCHDOG), hook("page"))
    life.now = 60 * SECOND
    (sign,) = life.alerts.watchdog(life.now)
    assert (sign.hook, sign.kind) == ("dead-man", Kind.WATCHDOG)
    assert life.alerts.watchdog(life.now) == []
    assert life.alerts.deadline() <= life.now + MINUTE
    life.commit()
    assert life.disk.events == {}


def test_a_sink_that_asks_for_no_ends_has_them_all_the_same() -> None:
    life = Life(sinks=(SinkConfig(name="am", urls=("http://127.0.0.1:9093",), on=(DEAD,)),))
    life.say(DEAD)
    assert life.alerts.sinks.firing("am") == 1
    life.say(BACK)
    assert life.alerts.sinks.firing("am") == 0


def test_who_was_told_of_somebody_that_is_expected_no_more_is_told_of_the_end() -> None:
    life = Life()
    life.say(DEAD)
    life.sick("n1", Health.CRITICAL)
    life.lose(Kind.LEADER_LOST, "leader1")
    told = life.pass_time(11).kinds()
    life.alerts.retire(f"{R1}/n1", "it is in the config no more", life.now)
    life.alerts.retire(f"{R1}-leader1", "it is in the config no more", life.now)
    life.commit()
    assert life.kinds()[len(told) :] == ["node-left n1", "health-changed n1", "leader-recovered k1"]
    assert life.disk.troubles == {}
    life.check()


def test_a_hook_that_leaves_the_config_takes_nobody_elses_alarms_along() -> None:
    brake = BrakeConfig(rack_max=1)
    life = Life(hook("old"), hook("chat", hold_ns=10 * SECOND), brake=brake)
    for node in ("n1", "n2", "n3"):
        life.say(DEAD, node, cause=Cause.PROCESS_EXIT)
    life.alerts.use(msgspec.structs.replace(life.config, hooks=(hook("new"), hook("chat", hold_ns=10 * SECOND))))
    life.pass_time(30)
    assert life.kinds("chat") == ["summary k1"]
    assert life.last()["count"] == 3
    gone = [run.state for run in life.disk.runs.values() if run.hook == "old"]
    assert sorted(state.value for state in gone) == ["dead", "dead", "pending"]


def test_nobody_hears_that_it_is_over_after_he_has_heard_that_it_burns_again() -> None:
    life = Life()
    for kind in (DEAD, BACK):
        for number in range(1, 9):
            if kind is DEAD or number != 7:
                life.say(kind, f"n{number}", cause=Cause.PROCESS_EXIT)
        life.pass_time(11 if kind is DEAD else 2)
    assert life.kinds()[5] == "summary k1", "of n6, n7 and n8; the end of n6 and n8 waits for that of n7"
    again = life.say(DEAD, "n8", cause=Cause.PROCESS_EXIT)
    (end,) = [run for run in life.disk.runs.values() if run.subject.endswith("n8") and run.end]
    assert (end.state, end.reason, end.ref) == (RunState.SUPPRESSED, Reason.SUPERSEDED, again.event_id)
    life.pass_time(30)
    told = [kind for kind in life.kinds() if kind.endswith("n8")]
    assert told == ["node-dead n8"]
    life.say(BACK, "n8")
    assert life.pass_time(30).kinds()[-1] == "node-recovered n8"
    life.check()


def test_what_begins_to_flap_under_a_silence_is_told_when_that_ends_if_it_still_does() -> None:
    life = Life()
    life.silence(60, nodes=("*/n1",))
    for kind in (DEAD, BACK, DEAD, BACK, DEAD):
        life.pass_time(1).say(kind)
    assert life.kinds() == []
    assert life.pass_time(60).kinds() == ["node-flapping n1"]
    for _ in range(20):
        life.pass_time(20).say(BACK)
        life.pass_time(20).say(DEAD)
    assert life.kinds() == ["node-flapping n1"]
    assert life.pass_time(3600).kinds() == ["node-flapping n1", "node-steady n1", "node-dead n1"]
    life.say(BACK)
    life.silence(7200, nodes=("*/n1",))
    for kind in (DEAD, BACK, DEAD, BACK, DEAD, BACK):
        life.pass_time(1).say(kind)
    told = life.kinds()
    assert life.pass_time(4000).kinds() == told, "neither the start nor the stop, which came while it was silenced"
    life.check()


def test_a_silence_for_a_cause_ends_with_that_cause() -> None:
    life = Life()
    life.silence(3600, causes=("silence",))
    life.say(DEAD, cause=Cause.SILENCE)
    life.say(DEAD, "n2", cause=Cause.SILENCE)
    assert life.kinds() == []
    life.say(DEAD, withheld="refined", cause=Cause.PROCESS_EXIT)
    assert life.kinds() == ["node-dead n1"]
    life.alerts.refine(f"{R1}/n2", Axis.LIVENESS, Cause.HOST_GONE, life.now)
    life.commit()
    assert life.kinds() == ["node-dead n1", "node-dead n2"]


def test_who_was_acknowledged_unseen_is_told_of_when_there_is_more() -> None:
    life = Life(hook("page", hold_ns=5 * SECOND))
    first = life.say(DEAD)
    life.alerts.incidents.acknowledge(first.incident, "ada", "", life.wall.at(life.now))
    assert life.pass_time(20).kinds() == []
    assert life.why(first)[:2] == (RunState.SUPPRESSED, Reason.ACKNOWLEDGED)
    life.say(DEAD, "n2")
    assert sorted(life.pass_time(20).kinds()) == ["node-dead n1", "node-dead n2"]
    life.check()


def test_the_end_of_a_mass_is_one_over_a_restart_too() -> None:
    life = Life(brake=BrakeConfig(rack_max=1))
    for number in range(6):
        life.say(DEAD, f"n{number}", cause=Cause.PROCESS_EXIT)
    life.pass_time(11)
    for number in range(1, 4):
        life.say(BACK, f"n{number}")
    life.start()
    for number in (4, 5):
        life.say(BACK, f"n{number}")
    life.pass_time(20)
    assert life.kinds() == ["node-dead n0", "summary k1", "summary k1"]
    assert life.last()["count"] == 5
    life.check()


def test_what_flaps_and_is_expected_no_more_stops() -> None:
    life = Life()
    for kind in (DEAD, BACK, DEAD, BACK, DEAD):
        life.pass_time(12).say(kind)
    assert life.kinds()[-1] == "node-flapping n1"
    life.alerts.retire(f"{R1}/n1", "it is in the config no more", life.now)
    life.pass_time(1)
    assert life.kinds()[-1] == "node-steady n1"
    assert life.disk.troubles == {}
    life.check()


def test_what_still_burns_when_a_hook_works_again_is_told_and_what_has_passed_is_not() -> None:
    life = Life()
    for node in ("n1", "n2", "n3"):
        event = life.say(DEAD, node)
        life.pass_time(158).end(event, RunState.DEAD)
    life.say(BACK, "n2")
    life.start()
    works = life.say(DEAD, "n4")
    life.fresh()
    life.end(works, RunState.DONE)
    assert life.kinds() == ["node-dead n1", "node-dead n3"]
    life.say(BACK, "n1")
    assert life.kinds()[-1] == "node-recovered n1"
    life.check()


def test_the_end_that_could_not_be_told_is_told_once_the_hook_works() -> None:
    life = Life()
    life.end(life.say(DEAD), RunState.DONE)
    back = life.say(BACK)
    life.end(back, RunState.DEAD)
    life.fresh()
    life.end(life.say(DEAD, "n2"), RunState.DONE)
    assert life.kinds() == ["node-dead n2", "node-recovered n1"]
    assert life.why(back)[0] is RunState.PENDING


def test_a_hook_that_works_again_and_has_nothing_new_to_tell_is_found_out() -> None:
    life = Life()
    dead = life.say(DEAD)
    life.end(dead, RunState.DEAD)
    life.fresh()
    assert life.pass_time(590).kinds() == []
    assert life.pass_time(20).kinds() == ["node-dead n1"]
    assert life.why(dead)[0] is RunState.PENDING


def test_a_letter_about_what_somebody_silenced_meanwhile_waits() -> None:
    life = Life()
    life.end(life.say(DEAD), RunState.DEAD)
    silence = life.silence(3600, nodes=("*/n1",))
    life.fresh()
    life.end(life.say(DEAD, "n2"), RunState.DONE)
    assert life.kinds() == ["node-dead n2"], silence
    assert "node-dead n1" in life.pass_time(7300).kinds()


def test_a_letter_that_a_silence_covers_outlasts_any_number_of_good_runs() -> None:
    life = Life(brake=BrakeConfig(rack_max=100))
    life.end(life.say(DEAD), RunState.DEAD)
    life.silence(3600, nodes=("*/n1",))
    for number in range(2, 10):
        life.end(life.say(DEAD, f"n{number}"), RunState.DONE)
        life.pass_time(20)
    life.fresh()
    assert life.pass_time(7200).kinds() == ["node-dead n1"]


def test_a_letter_is_not_told_behind_a_newer_word() -> None:
    life = Life()
    older = life.sick("n1", Health.WARNING)
    newer = life.pass_time(60).sick("n1", Health.CRITICAL)
    other = life.say(DEAD, "n2")
    life.end(older, RunState.DEAD)
    life.fresh()
    life.end(other, RunState.DONE)
    assert life.kinds() == [], "the newer one waits for its turn"
    life.end(newer, RunState.DONE)
    life.start()
    assert life.pass_time(7200).kinds() == [], "nor after a restart"


def test_a_letter_about_another_part_of_a_nodes_health_is_told() -> None:
    life = Life()
    life.end(life.sick("n1", Health.CRITICAL, app="billing"), RunState.DEAD)
    other = life.sick("n1", Health.WARNING, app="disk")
    life.start()
    life.pass_time(30).fresh()
    life.end(other, RunState.DONE)
    assert life.kinds() == ["health-changed n1"]
    assert "billing" in life.disk.runs[f"{life.first(Kind.HEALTH_CHANGED).event_id}-page"].input.decode()


def test_letters_that_are_true_no_more_keep_none_that_is_waiting() -> None:
    life = Life(hook("page", DEAD))
    for number in range(6):
        life.end(life.say(DEAD, f"n{number}"), RunState.DEAD)
        life.pass_time(30)
    for number in range(5):
        life.say(BACK, f"n{number}")
    life.fresh()
    assert life.pass_time(610).kinds() == ["node-dead n5"]


def test_the_end_of_many_that_could_not_be_told_leaves_out_who_burns_again() -> None:
    life = Life(brake=BrakeConfig(rack_max=1))
    for number in range(4):
        life.say(DEAD, f"n{number}", cause=Cause.PROCESS_EXIT)
    life.end(life.pass_time(11).first(Kind.SUMMARY), RunState.DONE)
    for number in range(4):
        life.say(BACK, f"n{number}")
    life.pass_time(30)
    life.end(life.newest(Kind.SUMMARY), RunState.DEAD)
    again = life.pass_time(120).say(DEAD, "n1", cause=Cause.PROCESS_EXIT)
    life.fresh()
    life.end(again, RunState.DONE)
    assert life.kinds() == ["summary k1"]
    assert [name[-2:] for name in life.newest(Kind.SUMMARY).members] == ["n2", "n3"]
    assert "well again" in life.last()["evidence"]["text"]
    life.check()


def test_a_mass_that_could_not_be_told_is_told_of_those_that_are_left() -> None:
    life = Life(brake=BrakeConfig(rack_max=1))
    for number in range(5):
        life.say(DEAD, f"n{number}", cause=Cause.PROCESS_EXIT)
    life.end(life.pass_time(11).first(Kind.SUMMARY), RunState.DEAD)
    for number in (1, 2, 3):
        life.say(BACK, f"n{number}")
    life.pass_time(30).fresh()
    life.end(life.newest(Kind.SUMMARY), RunState.DONE)
    assert life.kinds() == ["summary k1"]
    assert [name[-2:] for name in life.newest(Kind.SUMMARY).members] == ["n4"]
    life.say(BACK, "n4")
    assert life.pass_time(30).kinds()[-1] == "node-recovered n4"
    life.check()


def test_what_flaps_is_told_when_it_stays_although_another_part_came_and_went() -> None:
    life = Life(hook("page", DEAD, Kind.HEALTH_CHANGED, hold_ns=20 * SECOND))
    life.sick("n1", Health.CRITICAL)
    life.pass_time(30)
    for health in 2 * (Health.WARNING, Health.CRITICAL):
        life.pass_time(1).sick("n1", health)
    life.pass_time(30).sick("n1", Health.OK)
    life.sick("n1", Health.CRITICAL, app="db")
    life.pass_time(5).sick("n1", Health.OK, app="db")
    life.fresh()
    life.pass_time(5).sick("n1", Health.CRITICAL)
    life.pass_time(7200)
    ends = [run for run in life.disk.runs.values() if run.end and run.state is RunState.PENDING]
    assert ends == [] or life.kinds() != [], "he was told of its end, so he is told that it burns"
    life.check()


def test_a_summary_that_could_not_be_told_is_told_while_any_of_it_burns() -> None:
    life = Life(brake=BrakeConfig(rack_max=1))
    for number in range(4):
        life.say(DEAD, f"n{number}", cause=Cause.PROCESS_EXIT)
    life.pass_time(11)
    (summary,) = [event for event in life.disk.events.values() if event.kind is Kind.SUMMARY]
    life.end(summary, RunState.DEAD)
    life.say(BACK, "n2")
    life.start()
    life.fresh()
    life.end(life.say(DEAD, "n8", R2), RunState.DONE)
    assert "summary k1" in life.kinds()
    life.check()


def test_a_sink_is_told_what_burns_and_of_its_end() -> None:
    sink = SinkConfig(name="am", urls=("http://127.0.0.1:9093",))
    life = Life(sinks=(sink,))
    life.say(DEAD)
    assert life.alerts.sinks.firing("am") == 1
    life.start()
    assert life.alerts.sinks.firing("am") == 1, "and after a restart"
    life.say(BACK)
    assert life.alerts.sinks.firing("am") == 0
    for kind in 3 * (DEAD, BACK):
        life.say(kind)
    assert life.alerts.sinks.firing("am") == 1, "that it flaps"
    life.start()
    assert life.alerts.sinks.firing("am") == 1
    life.pass_time(3600)
    assert life.alerts.sinks.firing("am") == 0
    life.check()


def test_a_drill_is_told_each_time_and_is_no_trouble_of_its_node() -> None:
    life = Life()
    real = life.sick("n1", Health.CRITICAL)

    def drill(after: Health) -> Event:
        changes = (part("hbagent-drill-1", after),)
        fields: dict[str, Any] = {"health_to": Health.CRITICAL, "evidence": Evidence(text="drill", changes=changes)}
        return life.pass_time(30).say(Kind.HEALTH_CHANGED, "n1", **fields)

    for _ in range(6):
        begun, over = drill(Health.DEADLOCKED), drill(Health.OK)
        assert life.why(begun)[0] is life.why(over)[0] is RunState.PENDING
    assert set(life.disk.troubles) == {(f"{R1}/n1", Axis.HEALTH)}
    assert life.disk.troubles[f"{R1}/n1", Axis.HEALTH].event_id == real.event_id
    life.check()


@pytest.mark.parametrize("kind", [Kind.NODE_LEFT, Kind.NODE_RESTARTED])
def test_a_return_or_a_goodbye_ends_what_was_told_whichever_it_is(kind: Kind) -> None:
    life = Life()
    life.say(DEAD)
    life.say(kind, liveness_to=Liveness.LEFT if kind is Kind.NODE_LEFT else Liveness.ALIVE)
    assert life.kinds() == ["node-dead n1", f"{kind.value} n1"]
    life.check()


def test_a_root_that_starts_again_tells_nothing_of_silence_before_its_leaders_have_spoken() -> None:
    life = Life(hook("page", hold_ns=SECOND), settle_ns=4 * SECOND)
    died = life.pass_time(5).say(DEAD)
    life.start(heard=False)
    assert life.pass_time(9).kinds() == []
    assert life.why(died)[:2] == (RunState.HELD, Reason.GRACE)
    life.alerts.settle(R1, life.now)
    life.say(BACK)
    assert life.pass_time(30).kinds() == []
    life.say(DEAD, "n2")
    assert life.pass_time(2).kinds() == ["node-dead n2"]
    life.check()


def test_a_restart_of_the_root_forgets_no_silence_no_wait_and_no_trouble() -> None:
    life = Life(hook("page"), hook("slow", hold_ns=30 * SECOND))
    life.silence(60, nodes=(f"{R1}/n1",))
    life.say(DEAD, "n1")
    life.say(DEAD, "n2")
    life.pass_time(1)
    life.start()
    life.pass_time(50)
    assert life.kinds() == ["node-dead n2"]
    assert life.kinds("slow") == ["node-dead n2"]
    life.say(BACK, "n2")
    assert life.pass_time(20).kinds() == ["node-dead n2", "node-recovered n2", "node-dead n1"]
    life.check()


NODES = ("n1", "n2", "n3", "n4")
STEP = st.one_of(
    st.tuples(st.just("turn"), st.sampled_from(NODES), st.sampled_from((R1, R2))),
    st.tuples(st.just("doubt"), st.sampled_from(NODES), st.sampled_from((R1, R2))),
    st.tuples(st.just("sick"), st.sampled_from(NODES), st.sampled_from((Health.OK, Health.WARNING, Health.CRITICAL))),
    st.tuples(st.just("rack"), st.just(""), st.sampled_from((R1, R2))),
    st.tuples(st.just("silence"), st.sampled_from(NODES), st.sampled_from((5, 60))),
    st.tuples(st.just("wait"), st.just(""), st.sampled_from((0.3, 3, 30, 300))),
    st.tuples(st.just("restart"), st.just(""), st.just(0)),
)


@given(st.lists(STEP, max_size=40))
@settings(max_examples=examples(150), deadline=None)
def test_whatever_happens_everything_has_one_outcome_and_every_told_trouble_its_end(steps: list[Any]) -> None:
    life = Life(
        hook("page", *ALL_TROUBLES, *(Kind.RACK_DARK, Kind.RACK_RECOVERED)), hook("slow", hold_ns=SECOND), **WAITS
    )
    down: dict[tuple[str, str], Kind] = {}
    ill: dict[str, Health] = {}
    dark: dict[str, None] = {}
    for what, node, more in steps:
        if what == "turn" and down.get((node, more)) is DEAD:
            del down[node, more]
            life.say(BACK, node, more)
        elif what == "turn":
            down[node, more] = DEAD
            life.say(DEAD, node, more)
        elif what == "doubt" and (node, more) not in down:
            down[node, more] = Kind.NODE_SUSPECT
            life.say(Kind.NODE_SUSPECT, node, more)
        elif what == "sick" and ill.get(node, Health.OK) is not more:
            ill[node] = more
            life.sick(node, more)
        elif what == "rack" and more in dark:
            del dark[more]
            life.say(Kind.RACK_RECOVERED, "", more)
        elif what == "rack":
            dark[more] = None
            life.say(Kind.RACK_DARK, "", more)
        elif what == "silence":
            life.silence(more, nodes=(f"*/{node}",))
        elif what == "wait":
            life.pass_time(more)
        elif what == "restart":
            life.start()
        life.check()
    for rack in dark:
        life.say(Kind.RACK_RECOVERED, "", rack)
    life.pass_time(7200)
    burning = {(f"{rack}/{node}", Axis.LIVENESS) for node, rack in down}
    burning |= {(f"{R1}/{node}", Axis.HEALTH) for node, health in ill.items() if health is not Health.OK}
    assert {key for key, one in life.disk.troubles.items() if not one.over} == burning
    for (subject, axis), trouble in life.disk.troubles.items():
        # Nothing objects any more, so whoever asks for it knows of it.
        for receiver in life.config.hooks:
            assert trouble.kind not in receiver.on or trouble.told[receiver.name].sent, (subject, axis)
    for node, rack in down:
        life.say(BACK, node, rack)
    for node, health in ill.items():
        if health is not Health.OK:
            life.sick(node, Health.OK)
    life.pass_time(7200)
    life.check()
    assert life.disk.troubles == {}
    assert not any(run.state is RunState.HELD for run in life.disk.runs.values())
    for receiver in life.config.hooks:
        assert_begun_and_ended(life, receiver.name)


def assert_begun_and_ended(life: Life, receiver: str) -> None:
    """What was told to burn, by itself or by a summary, was told to be over: the last word on each is an end."""
    sent = {run.event_id: run for run in life.disk.runs.values() if run.state is RunState.PENDING}
    last: dict[tuple[str, Axis | None], tuple[int, bool]] = {}
    for run in life.disk.runs.values():
        if run.hook != receiver or run.kind in (Kind.NODE_FLAPPING, Kind.NODE_STEADY, Kind.SUMMARY):
            continue
        by = run if run.state is RunState.PENDING else sent.get(run.ref)
        if by is None or (by is not run and run.reason not in (Reason.BRAKE, Reason.GROUPED)):
            continue
        key = (run.subject, run.axis)
        if key not in last or last[key][0] < run.queued:
            last[key] = (run.queued, run.end)
    for key, (_, end) in last.items():
        assert end, (receiver, key)
