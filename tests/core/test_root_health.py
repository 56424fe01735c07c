"""What the root makes of changes of health: one event each, whoever tells it, and none of it touches liveness."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hbagent.core.drills import ROOT_TIME_NS
from hbagent.core.effects import Answer, Effects, Fetch, Persist, RunHook, Send
from hbagent.core.messages import (
    AppRow,
    DrillBegun,
    DrillWanted,
    EvidencePage,
    EvidenceWanted,
    Kept,
    NodeReport,
    Query,
    RackReports,
    Reconfigured,
    Report,
)
from hbagent.core.records import Event, NodeState, Restored, RunState
from hbagent.core.root import RootCore
from hbagent.core.states import AppState, Cause, Health, Kind, Liveness
from hbagent.core.units import SECOND
from hbagent.core.views import EvidenceView
from tests.build import (
    EPOCH,
    INCARNATION,
    LEADER,
    LEADER2,
    NODE,
    RACK,
    became,
    hook,
    part,
    root_core,
    row,
    summary,
    transition,
    transitions,
)

OK, WARNING, CRITICAL, DEADLOCKED, UNKNOWN = (
    Health.OK,
    Health.WARNING,
    Health.CRITICAL,
    Health.DEADLOCKED,
    Health.UNKNOWN,
)
ALIVE, DEAD = Liveness.ALIVE, Liveness.DEAD
CONSOLE = "\x00abcd"


class Site:
    """A root whose disk works, and leaders whose summaries say what they are told to."""

    def __init__(self, *leaders: str, core: RootCore | None = None) -> None:
        self.leaders = leaders or (LEADER,)
        self.core = core or root_core(hook(), leaders=self.leaders)
        self.now = 0
        self.health = dict.fromkeys(self.leaders, OK)
        self.liveness = ALIVE
        self.sequence = 10
        self.number = 0
        self.told = dict.fromkeys(self.leaders, 0)
        self.events: list[Event] = []
        self.states: list[NodeState] = []
        #: What hooks were given, and what they are to be given once they have done with that.
        self.inputs: list[dict[str, Any]] = []
        self.owed: dict[str, dict[str, Any]] = {}
        self.take(self.core.wake(0))

    def take(self, effects: Effects) -> Effects:
        for effect in effects:
            if isinstance(effect, Persist):
                self.events += effect.batch.events
                self.states += effect.batch.nodes
                for run in effect.batch.runs:
                    if run.state is RunState.PENDING:
                        self.owed.setdefault(run.run_id, msgspec.json.decode(run.input))
                self.take(self.core.receive("", Kept(effect.token), self.now))
            elif isinstance(effect, RunHook):
                self.inputs.append(msgspec.json.decode(effect.input))
        return effects

    def join(self) -> None:
        """Every leader hears the node."""
        self.seconds(1)
        for leader in self.leaders:
            self.say(leader, transition(1))
        self.seconds(1)
        self.events.clear()

    def say(self, leader: str, said: Any) -> Effects:
        self.told[leader] += 1
        said = msgspec.structs.replace(said, number=self.told[leader])
        return self.take(self.core.receive(leader, transitions(said), self.now))

    def seconds(self, count: int) -> list[Event]:
        """So many seconds of summaries; what was told in them."""
        begun = len(self.events)
        for _ in range(count):
            self.now += SECOND
            self.take(self.core.wake(self.now))
            for leader in self.leaders:
                self.number += 1
                said = row(liveness=self.liveness, health=self.health[leader], version=min(1, self.told[leader]))
                said = msgspec.structs.replace(said, sequence=self.sequence)
                heard = summary(self.number, said, newest=self.told[leader])
                self.take(self.core.receive(leader, heard, self.now))
        return self.events[begun:]

    def pass_on(self, leader: str, report: Report) -> None:
        reports = RackReports(rack=RACK, epoch=EPOCH, reports=(NodeReport(node="node1", report=report),))
        self.take(self.core.receive(leader, reports, self.now))


def joined(*leaders: str) -> Site:
    site = Site(*leaders)
    site.join()
    return site


def changes(events: list[Event]) -> list[tuple[Any, ...]]:
    return [
        (event.health_from, event.health_to, *[(c.subject, c.name, c.after) for c in event.evidence.changes])
        for event in events
        if event.kind is Kind.HEALTH_CHANGED and event.evidence is not None
    ]


def owed(site: Site) -> list[dict[str, Any]]:
    return list(site.owed.values())


STUCK = became(5, DEADLOCKED, OK, part("web", DEADLOCKED, text="thread worker-1 holds 0x1", details=("one", "two")))


def test_a_change_is_an_event_a_state_on_disk_and_a_run_of_the_hooks_that_want_it() -> None:
    site = joined()
    site.say(LEADER, STUCK)
    (event,) = site.events
    assert (event.kind, event.node, event.leader, event.cause) == (Kind.HEALTH_CHANGED, NODE, LEADER, None)
    assert (event.liveness_from, event.liveness_to, event.host) == (ALIVE, ALIVE, "up")
    assert changes(site.events) == [(OK, DEADLOCKED, ("app", "web", DEADLOCKED))]
    assert site.states[-1].health is DEADLOCKED
    (told,) = site.inputs
    assert (told["kind"], told["health"], told["liveness"]) == (
        "health-changed",
        {"from": "OK", "to": "DEADLOCKED"},
        {"from": "ALIVE", "to": "ALIVE"},
    )
    assert told["evidence"]["text"] == "app web is DEADLOCKED: thread worker-1 holds 0x1"
    assert told["evidence"]["changes"][0]["details"] == ["one", "two"]
    assert told["event_id"] == event.event_id


def test_two_leaders_that_tell_the_same_make_one_event_with_one_id() -> None:
    site = joined(LEADER, LEADER2)
    site.say(LEADER, STUCK)
    site.say(LEADER2, msgspec.structs.replace(STUCK, sequence=12))
    site.health = dict.fromkeys(site.leaders, DEADLOCKED)
    assert site.seconds(10) == []
    assert len(site.events) == len(site.inputs) == 1


def test_a_root_that_was_started_again_knows_what_was_told() -> None:
    site = joined(LEADER, LEADER2)
    site.say(LEADER, STUCK)
    state = next(state for state in reversed(site.states) if state.node == NODE)
    again = Site(LEADER, LEADER2, core=root_core(hook(), leaders=site.leaders, restored=Restored(nodes=(state,))))
    again.health = dict.fromkeys(again.leaders, DEADLOCKED)
    again.seconds(1)
    again.say(LEADER2, transition(1))
    again.say(LEADER2, STUCK)
    assert changes(again.seconds(10)) == []
    again.say(LEADER2, became(6, OK, DEADLOCKED, part("web", OK, DEADLOCKED)))
    assert changes(again.events) == [(DEADLOCKED, OK, ("app", "web", OK))]


def test_rows_tell_what_no_transition_did_once_they_have_said_it_for_a_while() -> None:
    site = joined()
    site.health[LEADER] = CRITICAL
    assert site.seconds(2) == []
    (event,) = site.seconds(5)
    assert changes([event]) == [(OK, CRITICAL)]
    assert event.evidence is not None
    assert event.evidence.text.endswith("(told by a summary; no transition told of it)")
    assert len(site.inputs) == 1


def ill_when_shown_again(site: Site) -> Event:
    """What is told of a node that was CRITICAL all the while."""
    site.health = dict.fromkeys(site.leaders, CRITICAL)
    told = site.seconds(10)
    (event,) = [event for event in told if event.kind is Kind.HEALTH_CHANGED]
    assert event.evidence is not None
    assert event.evidence.text.endswith("(found so when it was first heard of)")
    assert (event.liveness_from, event.liveness_to, event.cause) == (ALIVE, ALIVE, None)
    return event


def test_a_node_of_a_rack_that_was_taken_out_and_added_again_is_found_as_it_is_and_nothing_was_lost() -> None:
    site = joined()
    site.say(LEADER, became(5, CRITICAL, OK, part("shop", CRITICAL)))
    site.health[LEADER] = CRITICAL
    whole = site.core.config
    site.take(site.core.receive("", Reconfigured(msgspec.structs.replace(whole, racks=())), site.now))
    site.seconds(5)
    site.take(site.core.receive("", Reconfigured(whole), site.now))
    event = ill_when_shown_again(site)
    (incident,) = site.core.alerts.incidents.open.values()
    assert (event.health_from, event.health_to, incident.cause) == (UNKNOWN, CRITICAL, None)


def test_a_node_of_which_a_change_of_health_is_the_first_word_was_not_never_seen() -> None:
    site = Site()
    site.seconds(1)
    site.say(LEADER, STUCK)
    (event,) = [event for event in site.events if event.kind is Kind.HEALTH_CHANGED]
    assert event.cause is None


def test_a_node_that_comes_back_after_it_was_forgotten_is_found_as_it_is_and_nothing_was_lost() -> None:
    site = joined()
    site.liveness = DEAD
    site.say(LEADER, transition(2, DEAD, ALIVE))
    site.core.forget(NODE, "ada", site.now)
    site.seconds(2)
    site.liveness = ALIVE
    site.say(LEADER, transition(3, ALIVE, DEAD))
    ill_when_shown_again(site)


def test_a_deadlock_that_healed_while_the_leader_was_away_is_told_with_its_parts() -> None:
    site = joined()
    site.say(LEADER, STUCK)
    site.health[LEADER] = OK
    web = AppRow(name="web", health=OK, state=AppState.READY)
    site.pass_on(LEADER, Report(incarnation=INCARNATION, number=8, apps=(web,)))
    assert changes(site.seconds(6)) == [(DEADLOCKED, OK, ("app", "web", OK))]
    site.say(LEADER, became(9, DEADLOCKED, OK, part("web", DEADLOCKED)))
    assert len(changes(site.events)) == 3


def test_a_leader_that_does_not_know_yet_says_nothing_whatever_the_report_that_it_passes_on() -> None:
    site = joined()
    web = AppRow(name="web", health=WARNING, state=AppState.READY)
    site.say(LEADER, became(7, OK, OK))
    site.pass_on(LEADER, Report(incarnation=INCARNATION, number=8, health=WARNING, apps=(web,)))
    site.health[LEADER] = UNKNOWN
    assert site.seconds(6) == []
    site.health[LEADER] = WARNING
    assert changes(site.seconds(5)) == [(OK, WARNING, ("app", "web", WARNING))]


def test_a_report_that_was_overtaken_is_not_shown() -> None:
    site = joined()
    for number in (8, 7):
        app = AppRow(name=f"app{number}", health=OK, state=AppState.READY)
        site.pass_on(LEADER, Report(incarnation=INCARNATION, number=number, apps=(app,)))
    shown = site.core.nodes[NODE].report
    assert shown is not None
    assert [app.name for app in shown.apps] == ["app8"]


def test_a_node_shows_the_version_of_its_present_life() -> None:
    site = joined()

    def shown(version: str, incarnation: int, number: int = 7) -> str:
        report = NodeReport(node="node1", report=Report(incarnation=incarnation, number=number), version=version)
        site.take(site.core.receive(LEADER, RackReports(rack=RACK, epoch=EPOCH, reports=(report,)), site.now))
        return site.core.nodes[NODE].version

    assert shown("1.0.0", 7) == "1.0.0"
    assert shown("", 7) == "1.0.0", "passed on by an older leader"
    assert shown("", 8) == "", "nobody has told that of this life"
    assert shown("1.1.0", 8) == "1.1.0"


def test_a_leader_that_missed_a_report_does_not_take_back_what_another_told() -> None:
    site = joined(LEADER, LEADER2)
    site.say(LEADER, STUCK)
    site.health = {LEADER: DEADLOCKED, LEADER2: OK}
    assert site.seconds(10) == []
    assert site.core.nodes[NODE].health is DEADLOCKED


def test_a_leader_that_has_heard_no_beat_since_does_not_take_back_what_another_told() -> None:
    site = joined(LEADER, LEADER2)
    site.say(LEADER, became(7, Health.STALLED, OK, part("prober", Health.STALLED, subject="agent"), sequence=20))
    # The rows of both have the tenth: by asking they know that the node lives, and no more.
    site.health = {LEADER: OK, LEADER2: OK}
    assert site.seconds(10) == []
    assert site.core.nodes[NODE].health is Health.STALLED
    site.sequence = 20
    assert changes(site.seconds(5)) == [(Health.STALLED, OK, ("agent", "prober", OK))]


def test_a_node_that_joins_well_is_no_event_and_one_that_joins_ill_is() -> None:
    assert changes(joined().events) == []
    ill = Site()
    ill.health[LEADER] = CRITICAL
    ill.join()
    assert changes(ill.seconds(5)) == [(UNKNOWN, CRITICAL)]


def test_a_dead_node_has_no_news_of_its_health_and_none_when_it_returns_as_it_was() -> None:
    site = joined()
    site.say(LEADER, became(5, CRITICAL, OK, part("web", CRITICAL)))
    site.say(LEADER, transition(2, DEAD, ALIVE))
    site.liveness = DEAD
    site.told[LEADER] = 3
    site.health[LEADER] = WARNING
    site.seconds(10)
    site.liveness, site.health[LEADER] = ALIVE, CRITICAL
    site.say(LEADER, transition(3, ALIVE, DEAD))
    site.seconds(10)
    assert changes(site.events) == [(OK, CRITICAL, ("app", "web", CRITICAL))]


def test_no_health_moves_what_the_root_says_of_a_nodes_life() -> None:
    site = joined(LEADER, LEADER2)
    for number, health in enumerate((DEADLOCKED, OK, UNKNOWN, CRITICAL, WARNING, Health.STALLED), 2):
        site.say(LEADER, became(number, health, OK, part("web", health)))
        site.health = {LEADER: health, LEADER2: OK}
        site.seconds(4)
        shown = site.core.shown(site.core.nodes[NODE])
        assert (shown.liveness, shown.cause) == (ALIVE, None)
    # The two contradict one another, which is a matter of health as well.
    assert {event.kind for event in site.events} - {Kind.NODE_FLAPPING} == {Kind.HEALTH_CHANGED}


def test_a_hook_that_did_not_choose_health_is_not_told_of_it() -> None:
    site = Site(core=root_core(hook("page", Kind.NODE_DEAD)))
    site.join()
    site.say(LEADER, STUCK)
    assert len(changes(site.events)) == 1
    assert site.inputs == []


# ---- evidence --------------------------------------------------------------------------------------------


def ask(site: Site, node: str = NODE, **fields: Any) -> Effects:
    query = Query(**{"id": 5, "what": "evidence", "node": node, **fields})
    return site.take(site.core.receive(CONSOLE, query, site.now))


def wanted(effects: Effects) -> tuple[str, EvidenceWanted]:
    (send,) = effects
    assert isinstance(send, Send)
    assert isinstance(send.message, EvidenceWanted)
    return send.peer, send.message


def answered(effects: Effects) -> Answer:
    (answer,) = effects
    assert isinstance(answer, Answer)
    assert (answer.asker, answer.id) == (b"\x00abcd", 5)
    return answer


def page(number: int, at: int, body: bytes, last: bool = False, error: str = "") -> EvidencePage:
    return EvidencePage(number=number, node=NODE, page=at, last=last, body=body, error=error)


def test_evidence_is_fetched_through_the_leader_that_heard_the_node_last() -> None:
    site = joined(LEADER, LEADER2)
    site.core.nodes[NODE].seen[LEADER2].heard_at = site.now
    peer, message = wanted(ask(site, app="web", bundle="web-1"))
    assert (peer, message.node, message.app, message.bundle) == (LEADER2, NODE, "web", "web-1")
    assert site.core.receive(LEADER2, page(message.number, 0, b'{"verdict":'), site.now) == ()
    answer = answered(site.core.receive(LEADER2, page(message.number, 1, b'"IDLE"}', True), site.now))
    assert isinstance(answer.view, EvidenceView)
    assert (answer.view.leader, bytes(answer.view.bundle), answer.view.size_bytes) == (
        LEADER2,
        b'{"verdict":"IDLE"}',
        18,
    )


def test_whoever_asks_for_evidence_is_told_why_there_is_none() -> None:
    site = joined(LEADER, LEADER2)
    assert answered(ask(site, "dc1/rack1/node9")).error == ("no node 'dc1/rack1/node9' is known; see: hbagent nodes")
    peer, message = wanted(ask(site))
    refused = site.core.receive(peer, page(message.number, 0, b"", True, "no bundle about web"), site.now)
    assert answered(refused).error == "no bundle about web"
    peer, message = wanted(ask(site))
    assert "was due" in answered(site.core.receive(peer, page(message.number, 1, b"{}", True), site.now)).error
    peer, message = wanted(ask(site))
    assert "no JSON" in answered(site.core.receive(peer, page(message.number, 0, b"{", True), site.now)).error
    other = LEADER if peer == LEADER2 else LEADER2
    peer, message = wanted(ask(site))
    site.core.receive(other, page(message.number, 0, b"{}", True), site.now)
    assert site.core.refused["unasked"] == 1
    for _ in range(3):
        wanted(ask(site))
    assert answered(ask(site)).error == "4 evidence bundles are under way already; ask again in a moment"
    at = site.core.deadline()
    assert at is not None and at <= site.now + 5 * SECOND
    late = [one for one in site.core.wake(site.now + 5 * SECOND) if isinstance(one, Answer)]
    assert [answer.error for answer in late] == [f"{peer} did not send it within 5 s"] * 4


@pytest.mark.parametrize(("liveness", "cause"), [(DEAD, Cause.SILENCE), (Liveness.LEFT, Cause.LEFT)])
def test_a_node_that_no_leader_hears_cannot_be_asked(liveness: Liveness, cause: Cause) -> None:
    site = joined()
    site.say(LEADER, transition(2, liveness, ALIVE))
    assert answered(ask(site)).error == (
        f"{NODE} is {liveness.value} ({cause.value}): no leader hears it, so it cannot be asked"
    )


# ---- drills ----------------------------------------------------------------------------------------------


def test_a_drill_is_begun_through_the_leader_that_heard_the_node_last() -> None:
    site = joined(LEADER, LEADER2)
    site.core.nodes[NODE].seen[LEADER2].heard_at = site.now
    effects = ask(site, what="drill", drill="freeze", app="hbagent-drill-1")
    (order,) = [effect for effect in effects if isinstance(effect, Send)]
    assert order.peer == LEADER2 and isinstance(order.message, DrillWanted)
    assert (order.message.node, order.message.drill, order.message.app) == (NODE, "freeze", "hbagent-drill-1")
    begun = DrillBegun(number=order.message.number, node=NODE)
    site.core.receive(LEADER, begun, site.now)
    assert site.core.refused["unasked"] == 1
    assert answered(site.core.receive(LEADER2, begun, site.now)).view == {"schema": 1, "node": NODE}


def test_whoever_wants_a_drill_is_told_why_there_is_none() -> None:
    site = joined()
    assert "is known" in answered(ask(site, "dc1/rack1/node9", what="drill")).error
    (_, order) = ask(site, what="drill", drill="freeze")
    assert isinstance(order, Send) and isinstance(order.message, DrillWanted)
    off = DrillBegun(number=order.message.number, node=NODE, error="drills are off here")
    assert answered(site.core.receive(LEADER, off, site.now)).error == "drills are off here"
    ask(site, what="drill", drill="freeze")
    site.now += ROOT_TIME_NS
    late = [effect for effect in site.take(site.core.wake(site.now)) if isinstance(effect, Answer)]
    assert [answer.error for answer in late] == [f"{LEADER} did not answer within 1.5s"]


def test_the_end_of_a_trouble_is_told_as_its_end_while_a_drill_makes_its_node_bad() -> None:
    site = joined()
    site.say(LEADER, became(5, CRITICAL, OK, part("short", CRITICAL)))
    site.say(LEADER, became(6, DEADLOCKED, CRITICAL, part("hbagent-drill-1", DEADLOCKED)))
    site.say(LEADER, became(7, DEADLOCKED, DEADLOCKED, part("short", OK, CRITICAL)))
    assert [(said["drill"], said["health"]["from"], said["health"]["to"]) for said in owed(site)] == [
        (False, "OK", "CRITICAL"),
        (True, "CRITICAL", "DEADLOCKED"),
        (False, "CRITICAL", "OK"),
    ]
    assert [trouble.drill for trouble in site.core.alerts.troubles.values()] == [True]
    assert site.states[-1].health is DEADLOCKED, "that is what it shows"
    site.say(LEADER, became(8, OK, DEADLOCKED, part("hbagent-drill-1", OK, DEADLOCKED)))
    assert (owed(site)[-1]["drill"], site.core.alerts.troubles) == (True, {})


def test_a_drill_and_a_trouble_of_one_report_are_two_events() -> None:
    site = joined()
    site.say(LEADER, became(5, DEADLOCKED, OK, part("hbagent-drill-1", DEADLOCKED), part("shop", WARNING)))
    assert changes(site.events) == [
        (OK, WARNING, ("app", "shop", WARNING)),
        (OK, DEADLOCKED, ("app", "hbagent-drill-1", DEADLOCKED)),
    ]
    site.say(LEADER, became(6, OK, DEADLOCKED, part("hbagent-drill-1", OK, DEADLOCKED), part("shop", OK, WARNING)))
    assert [said["drill"] for said in owed(site)] == [False, True, False, True]
    assert site.core.alerts.troubles == {}


def test_who_was_told_of_a_trouble_is_told_of_its_end_when_its_node_is_forgotten() -> None:
    site = joined()
    site.say(LEADER, STUCK)
    site.say(LEADER, transition(6, Liveness.LEFT, ALIVE))
    site.liveness = Liveness.LEFT
    site.core.forget(NODE, "ada", site.now)
    site.seconds(1)
    ends = [said for said in owed(site) if said["kind"] == "health-changed"]
    assert [said["health"]["to"] for said in ends] == ["DEADLOCKED", "OK"]
    assert ends[1]["incident"] == ends[0]["incident"] != ""
    assert ends[1]["evidence"]["text"] == "ada said that it is gone for good"
    assert site.core.alerts.troubles == {}


def test_the_runs_of_an_event_are_read_by_the_store() -> None:
    (fetch,) = ask(joined(), "", what="runs", event="e-7")
    assert isinstance(fetch, Fetch) and fetch.event == "e-7"
