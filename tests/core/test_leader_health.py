"""What a leader makes of reports: changes of health, and nothing else. And how it passes evidence on."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from hbagent.core.effects import Answer, Effects, Keep, Publish, Send
from hbagent.core.leader import STORY_LENGTH, LeaderCore
from hbagent.core.messages import (
    AppRow,
    DrillBegun,
    DrillWanted,
    EvidencePage,
    EvidenceWanted,
    HealthChange,
    Linked,
    NodeRow,
    ProbeResult,
    Query,
    RackReports,
    RackSummary,
    Report,
    Transition,
    Transitions,
    TransitionsAck,
)
from hbagent.core.states import AppState, Health, Kind, Liveness, Stall
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.core.views import EvidenceView
from tests.build import INCARNATION, LEADER, NODE, NODE2, ROOT, beat, give, leader_core

CONSOLE = "\x00abcd"


class Watch:
    """A leader that hears both of its nodes, and a root that acknowledges."""

    def __init__(self, **settings: Any) -> None:
        self.core: LeaderCore = leader_core(**settings)
        self.now = 0
        self.told: list[Transition] = []
        self.effects: list[Any] = []
        self.sequence = 0
        self.progress: dict[str, int] = {NODE: 1, NODE2: 1}
        self.beating = [NODE, NODE2]
        self.take(self.core.wake(0))
        self.take(self.core.receive("", Linked(ROOT, True), 0))
        self.run(3)
        self.told.clear()

    def take(self, effects: Effects) -> None:
        for effect in effects:
            self.effects.append(effect)
            message = effect.message if isinstance(effect, Send) else None
            if isinstance(message, Transitions):
                self.told += message.items
                ack = TransitionsAck(epoch=message.epoch, number=message.items[-1].number)
                self.take(self.core.receive(ROOT, ack, self.now))

    def receive(self, sender: str, message: object) -> Effects:
        effects = self.core.receive(sender, message, self.now)
        self.take(effects)
        return effects

    def run(self, seconds: float) -> None:
        """Beats once a second; the leader is woken in time."""
        until = self.now + round(seconds * SECOND)
        while self.now < until:
            if self.now % SECOND == 0:
                self.sequence += 1
                for node in self.beating:
                    self.take(
                        give(
                            self.core,
                            beat(self.sequence, sent_mono_ns=self.now, progress=self.progress[node]),
                            self.now,
                            node,
                        )
                    )
            self.now += 20 * MILLISECOND
            self.take(self.core.wake(self.now))

    def report(self, number: int, health: Health, *rows: Any, node: str = NODE, **fields: Any) -> None:
        self.receive(node, report(number, health, *rows, **fields))

    def rows(self, node: str) -> list[NodeRow]:
        summaries = [e.message for e in self.effects if isinstance(e, Publish) and isinstance(e.message, RackSummary)]
        return [row for summary in summaries for row in summary.nodes if node.endswith("/" + row.node)]

    @property
    def health(self) -> list[Transition]:
        return [one for one in self.told if one.kind is Kind.HEALTH_CHANGED]


def report(number: int, health: Health, *rows: Any, **fields: Any) -> Report:
    return Report(
        **{
            "incarnation": INCARNATION,
            "number": number,
            "health": health,
            "apps": tuple(row for row in rows if isinstance(row, AppRow)),
            "probes": tuple(row for row in rows if isinstance(row, ProbeResult)),
            **fields,
        }
    )


def web(health: Health, **fields: Any) -> AppRow:
    return AppRow(**{"name": "web", "health": health, "state": AppState.READY, **fields})


def disk(health: Health) -> ProbeResult:
    return ProbeResult(name="disk", health=health, text="93% used")


STUCK = web(
    Health.DEADLOCKED, text="thread worker-1 holds 0x1", stall=Stall.DEADLOCKED, details=("one", "two"), bundle="web-1"
)


# ---- changes ---------------------------------------------------------------------------------------------


def test_a_change_in_a_report_is_one_transition_that_leaves_the_liveness_alone_and_goes_at_once() -> None:
    watch = Watch()
    watch.report(1, Health.OK, web(Health.OK), disk(Health.OK))
    assert watch.health == []
    watch.report(2, Health.DEADLOCKED, STUCK, disk(Health.WARNING))
    (told,) = watch.health
    assert (told.before, told.after, told.cause) == (Liveness.ALIVE, Liveness.ALIVE, None)
    assert (told.health_before, told.health_after, told.report) == (Health.OK, Health.DEADLOCKED, 2)
    assert (told.incarnation, told.sequence, told.at_mono_ns) == (INCARNATION, watch.sequence, watch.now)
    assert told.evidence.text == "app web is DEADLOCKED: thread worker-1 holds 0x1; and 1 more changed"
    assert [(change.subject, change.name) for change in told.evidence.changes] == [("app", "web"), ("probe", "disk")]
    assert told.evidence.changes[0].details == ("one", "two")


def test_it_is_numbered_and_kept_as_every_transition_and_no_row_waits_for_it() -> None:
    watch = Watch()
    watch.report(1, Health.OK, web(Health.OK))
    before = watch.core.roster.members[NODE].version
    watch.effects.clear()
    watch.report(2, Health.CRITICAL, web(Health.CRITICAL))
    (told,) = watch.health
    assert told.number > before
    kept = [entry for effect in watch.effects if isinstance(effect, Keep) for entry in effect.entries]
    assert [entry["t"]["kind"] for entry in kept if entry["k"] == "t"] == ["health-changed"]
    watch.effects.clear()
    watch.run(1.1)
    published = [effect.message for effect in watch.effects if isinstance(effect, Publish)]
    row = next(message for message in published if isinstance(message, RackSummary)).nodes[0]
    assert (row.version, row.health) == (before, Health.CRITICAL)


def test_the_first_report_of_this_leaders_life_is_compared_with_nothing() -> None:
    watch = Watch()
    watch.report(9, Health.DEADLOCKED, STUCK)
    assert watch.health == []
    assert watch.core.roster.members[NODE].health is Health.DEADLOCKED


def test_a_report_that_comes_again_says_nothing_new() -> None:
    watch = Watch()
    watch.report(1, Health.OK, web(Health.OK))
    watch.report(2, Health.CRITICAL, web(Health.CRITICAL))
    watch.report(2, Health.CRITICAL, web(Health.CRITICAL))
    watch.report(3, Health.CRITICAL, web(Health.CRITICAL, text="another sentence"))
    assert len(watch.health) == 1


def test_a_part_that_changes_without_the_node_is_told_and_so_is_a_node_without_a_part() -> None:
    watch = Watch()
    watch.report(1, Health.CRITICAL, web(Health.CRITICAL), disk(Health.OK))
    watch.report(2, Health.CRITICAL, web(Health.CRITICAL), disk(Health.WARNING))
    watch.report(3, Health.WARNING, web(Health.CRITICAL), disk(Health.WARNING))
    first, second = watch.health
    assert (first.health_before, first.health_after) == (Health.CRITICAL, Health.CRITICAL)
    assert (second.health_before, second.health_after, second.evidence.changes) == (Health.CRITICAL, Health.WARNING, ())


def test_what_a_node_says_that_nobody_hears_is_told_when_somebody_does() -> None:
    watch = Watch()
    watch.report(1, Health.OK, web(Health.OK), disk(Health.OK))
    watch.beating.remove(NODE)
    watch.run(20)
    assert watch.core.roster.members[NODE].liveness is Liveness.DEAD
    watch.report(2, Health.WARNING, web(Health.OK), disk(Health.WARNING))
    watch.report(3, Health.CRITICAL, web(Health.CRITICAL), disk(Health.OK))
    watch.run(5)
    assert watch.health == []
    watch.beating.append(NODE)
    watch.run(2.1)
    (told,) = watch.health
    assert (told.health_before, told.health_after, told.report) == (Health.OK, Health.CRITICAL, 3)
    assert [change.name for change in told.evidence.changes] == ["web"]


def test_a_node_that_dies_and_returns_as_it_was_has_not_changed() -> None:
    watch = Watch()
    watch.report(1, Health.OK, web(Health.OK))
    watch.report(2, Health.CRITICAL, web(Health.CRITICAL))
    watch.beating.remove(NODE)
    watch.run(20)
    watch.beating.append(NODE)
    watch.run(5)
    watch.report(3, Health.CRITICAL, web(Health.CRITICAL))
    assert len(watch.health) == 1


def test_a_probe_that_wavers_does_not_push_the_verdicts_out_of_the_story() -> None:
    watch = Watch()
    joined = watch.core.story(NODE)
    assert [verdict.kind for verdict in joined] == [Kind.NODE_JOINED]
    for number in range(1, 40):
        watch.report(number, Health.OK, disk(Health.OK if number % 2 else Health.CRITICAL))
    story = watch.core.story(NODE)
    assert story[0].kind is Kind.NODE_JOINED
    assert len(story) == 1 + STORY_LENGTH


def test_a_root_that_is_reached_again_gets_every_report_soon_for_it_may_be_another_life_of_it() -> None:
    watch = Watch()
    watch.report(1, Health.CRITICAL, web(Health.CRITICAL))
    watch.run(5)
    watch.take(watch.core.receive("", Linked(ROOT, False), watch.now))
    watch.take(watch.core.receive("", Linked(ROOT, True), watch.now))
    watch.effects.clear()
    watch.run(2.1)
    published = [effect.message for effect in watch.effects if isinstance(effect, Publish)]
    (reports,) = [message for message in published if isinstance(message, RackReports)]
    assert [item.node for item in reports.reports] == ["node1"]


# ---- the prober ------------------------------------------------------------------------------------------


def test_a_prober_that_stands_still_while_its_agent_beats_is_stalled_until_it_moves() -> None:
    watch = Watch()
    watch.report(1, Health.OK, window_ns=10 * SECOND)
    watch.report(1, Health.OK, node=NODE2)
    watch.run(9.5)
    assert watch.health == []
    watch.run(3)
    (told,) = watch.health
    assert (told.node, told.health_before, told.health_after) == (NODE, Health.OK, Health.STALLED)
    assert told.evidence.changes == (
        HealthChange(
            subject="agent",
            name="prober",
            before=Health.OK,
            after=Health.STALLED,
            text="its mark has not moved for 10.0s while the agent beats",
        ),
    )
    assert watch.core.roster.members[NODE].liveness is Liveness.ALIVE
    watch.run(20)
    assert len(watch.health) == 1
    watch.progress[NODE] += 1
    watch.run(2.1)
    _, recovered = watch.health
    assert (recovered.health_before, recovered.health_after) == (Health.STALLED, Health.OK)
    assert recovered.evidence.text == "agent prober is OK again, and was STALLED"


def test_a_leader_that_was_just_started_does_not_say_that_a_prober_is_well_which_it_has_not_seen_move() -> None:
    watch = Watch()
    watch.report(1, Health.OK, window_ns=10 * SECOND)
    watch.run(9)
    # Another life of it, or another leader, may have told that it stands still: this row unsays nothing.
    assert {row.health for row in watch.rows(NODE)} == {Health.UNKNOWN}
    watch.progress[NODE] += 1
    watch.run(3)
    assert watch.rows(NODE)[-1].health is Health.OK
    assert watch.health == []


def test_what_is_worse_than_a_stalled_prober_stays_what_the_node_is() -> None:
    watch = Watch()
    watch.report(1, Health.CRITICAL, web(Health.CRITICAL), window_ns=10 * SECOND)
    watch.run(13)
    (told,) = watch.health
    assert (told.health_before, told.health_after) == (Health.CRITICAL, Health.CRITICAL)
    watch.report(2, Health.OK, web(Health.OK), window_ns=10 * SECOND)
    assert watch.health[1].health_after is Health.STALLED


def test_beats_too_old_to_prove_life_have_their_marks_all_the_same() -> None:
    watch = Watch()
    watch.report(1, Health.OK, window_ns=10 * SECOND)
    watch.beating.clear()
    watch.run(16)
    for late in range(1, 14):
        old = beat(watch.sequence - 15 + late, sent_mono_ns=(watch.sequence - 15 + late) * SECOND, progress=1 + late)
        watch.take(give(watch.core, old, watch.now, NODE))
    watch.run(3)
    assert watch.health == []


def test_a_prober_that_is_seen_to_stand_still_while_nobody_hears_its_node_is_told_when_somebody_does() -> None:
    watch = Watch()
    watch.report(1, Health.OK, window_ns=10 * SECOND)
    watch.beating = [NODE2]
    watch.run(30)
    assert watch.core.roster.members[NODE].liveness is Liveness.DEAD
    # Beats of that time come all at once: too old to prove life, and the mark in them has not moved.
    for sequence in range(watch.sequence - 25, watch.sequence):
        old = beat(sequence, sent_mono_ns=(sequence - 1) * SECOND, progress=1)
        watch.take(give(watch.core, old, watch.now))
    watch.run(2)
    assert watch.health == []
    watch.beating = [NODE, NODE2]
    watch.run(2)
    (told,) = watch.health
    assert (told.node, told.health_before, told.health_after) == (NODE, Health.OK, Health.STALLED)


def test_a_prober_that_moved_before_its_report_came_is_told_as_well_again_with_it() -> None:
    watch = Watch()
    watch.report(1, Health.OK, web(Health.OK), window_ns=10 * SECOND)
    watch.run(12.5)
    watch.progress[NODE] += 1
    watch.run(0.6)
    assert len(watch.health) == 1
    watch.report(2, Health.WARNING, web(Health.WARNING), window_ns=10 * SECOND)
    watch.run(3)
    _, both = watch.health
    assert (both.health_before, both.health_after, both.report) == (Health.STALLED, Health.WARNING, 2)
    assert [(change.name, change.after) for change in both.evidence.changes] == [
        ("web", Health.WARNING),
        ("prober", Health.OK),
    ]


# ---- health never touches liveness -----------------------------------------------------------------------


def trace(seed: int, reports: bool) -> list[tuple[Any, ...]]:
    """Every verdict of liveness in a minute of beats that come and fail to, with any reports among them, or none."""
    pick = random.Random(seed)
    say = random.Random(seed + 1000)
    watch = Watch()
    number = 0
    silent = {NODE: 0, NODE2: 0}
    for second in range(90):
        for node in (NODE, NODE2):
            if second >= silent[node] and pick.random() < 0.1:
                silent[node] = second + pick.choice((2, 4, 15))
        watch.beating = [node for node in (NODE, NODE2) if second >= silent[node]]
        if pick.random() < 0.5:
            watch.progress[NODE] += 1
        if reports:
            for _ in range(say.randrange(4)):
                number += 1
                health = say.choice(list(Health))
                rows = [web(say.choice(list(Health))), disk(say.choice(list(Health)))][: say.randrange(3)]
                window = say.choice([0, 2 * SECOND, 10 * SECOND])
                watch.report(number, health, *rows, node=say.choice([NODE, NODE2]), window_ns=window)
        watch.run(1)
    return [
        (told.node, told.kind, told.before, told.after, told.cause, told.sequence, told.at_mono_ns, told.evidence.text)
        for told in watch.told
        if told.kind is not Kind.HEALTH_CHANGED
    ]


@pytest.mark.parametrize("seed", range(6))
def test_no_report_and_no_health_moves_any_verdict_of_liveness(seed: int) -> None:
    silent = trace(seed, reports=False)
    assert any(kind is Kind.NODE_DEAD for _, kind, *_ in silent)
    assert trace(seed, reports=True) == silent


# ---- evidence --------------------------------------------------------------------------------------------


def wanted(effects: Effects) -> EvidenceWanted:
    (send,) = effects
    assert isinstance(send, Send)
    assert send.peer == NODE
    assert isinstance(send.message, EvidenceWanted)
    return send.message


def page(number: int, at: int, body: bytes, last: bool = False, error: str = "") -> EvidencePage:
    return EvidencePage(number=number, node=NODE, page=at, last=last, body=body, error=error)


def test_a_console_gets_a_bundle_of_a_node_in_pages() -> None:
    watch = Watch()
    asked = wanted(watch.receive(CONSOLE, Query(id=5, what="evidence", node=NODE, app="web", bundle="web-1")))
    assert (asked.node, asked.app, asked.bundle) == (NODE, "web", "web-1")
    assert watch.receive(NODE, page(asked.number, 0, b'{"verdict":')) == ()
    (answer,) = watch.receive(NODE, page(asked.number, 1, b'"IDLE"}', last=True))
    assert isinstance(answer, Answer)
    assert (answer.asker, answer.id, answer.error) == (b"\x00abcd", 5, "")
    assert isinstance(answer.view, EvidenceView)
    assert msgspec.json.decode(msgspec.json.encode(answer.view)) == {
        "node": NODE,
        "leader": LEADER,
        "size_bytes": 18,
        "bundle": {"verdict": "IDLE"},
        "schema": 1,
    }


def test_the_root_gets_each_page_as_it_comes_under_its_own_number() -> None:
    watch = Watch()
    asked = wanted(watch.receive(ROOT, EvidenceWanted(number=77, node=NODE)))
    assert asked.number != 77
    assert watch.receive(NODE, page(asked.number, 0, b"{")) == (Send(ROOT, page(77, 0, b"{")),)
    assert watch.receive(NODE, page(asked.number, 1, b"}", last=True)) == (Send(ROOT, page(77, 1, b"}", last=True)),)
    (over,) = watch.receive(NODE, page(asked.number, 2, b""))
    assert not isinstance(over, Send)


@pytest.mark.parametrize("asker", [CONSOLE, ROOT])
def test_whoever_asks_is_told_why_there_is_nothing(asker: str) -> None:
    watch = Watch()

    def ask(node: str) -> Effects:
        query = Query(id=5, what="evidence", node=node)
        return watch.receive(asker, query if asker is CONSOLE else EvidenceWanted(number=5, node=node))

    def error(effects: Effects) -> str:
        (effect,) = effects
        if isinstance(effect, Answer):
            assert (effect.asker, effect.id) == (CONSOLE.encode("latin-1"), 5)
            return effect.error
        assert isinstance(effect, Send)
        assert isinstance(effect.message, EvidencePage)
        assert (effect.peer, effect.message.number, effect.message.last) == (ROOT, 5, True)
        return effect.message.error

    assert error(ask("dc1/rack1/node9")) == "no node 'dc1/rack1/node9' in dc1/rack1"
    asked = wanted(ask(NODE))
    assert error(watch.receive(NODE, page(asked.number, 0, b"", True, "no bundle about web"))) == "no bundle about web"
    asked = wanted(ask(NODE))
    assert error(watch.receive(NODE, page(asked.number, 3, b"{"))) == "page 3 came where page 0 was due"
    for _ in range(4):
        wanted(ask(NODE))
    assert error(ask(NODE)) == "4 evidence bundles are under way already; ask again in a moment"
    watch.effects.clear()
    watch.run(5.1)
    late = [
        effect
        for effect in watch.effects
        if isinstance(effect, Answer) or (isinstance(effect, Send) and isinstance(effect.message, EvidencePage))
    ]
    assert [error((effect,)) for effect in late] == [f"{NODE} did not send it within 5 s"] * 4
    watch.beating.clear()
    watch.run(20)
    assert error(ask(NODE)) == f"{NODE} is DEAD: it cannot be asked"


def test_a_bundle_that_is_no_json_object_is_not_passed_on_to_a_console() -> None:
    watch = Watch()
    asked = wanted(watch.receive(CONSOLE, Query(id=5, what="evidence", node=NODE)))
    (answer,) = watch.receive(NODE, page(asked.number, 0, b"[]", last=True))
    assert isinstance(answer, Answer)
    assert answer.error == f"what {NODE} sent is no JSON object"


def test_only_the_root_may_ask_a_leader_and_only_the_node_may_answer() -> None:
    watch = Watch()
    watch.receive(NODE2, EvidenceWanted(number=1, node=NODE))
    assert watch.core.refused["forged-id"] == 1
    asked = wanted(watch.receive(ROOT, EvidenceWanted(number=1, node=NODE)))
    watch.receive(NODE2, page(asked.number, 0, b"{}", last=True))
    assert watch.core.refused["unasked"] == 1
    assert watch.receive(NODE, page(asked.number, 0, b"{}", last=True)) == (Send(ROOT, page(1, 0, b"{}", last=True)),)


# ---- drills ----------------------------------------------------------------------------------------------


def ordered(number: int = 77, node: str = NODE) -> DrillWanted:
    return DrillWanted(number=number, node=node, drill="freeze", app="hbagent-drill-1")


def test_an_order_for_a_drill_goes_to_the_node_and_its_answer_to_the_root() -> None:
    watch = Watch()
    (order,) = watch.receive(ROOT, ordered())
    assert isinstance(order, Send) and order.peer == NODE and isinstance(order.message, DrillWanted)
    assert (order.message.drill, order.message.app) == ("freeze", "hbagent-drill-1")
    begun = DrillBegun(number=order.message.number, node=NODE, error="off")
    watch.receive(NODE2, begun)
    assert watch.core.refused["unasked"] == 1
    assert watch.receive(NODE, begun) == (Send(ROOT, DrillBegun(number=77, node=NODE, error="off")),)


def test_only_the_root_orders_drills_and_is_told_why_there_is_none() -> None:
    watch = Watch()
    watch.receive(NODE2, ordered())
    assert watch.core.refused["forged-id"] == 1
    (answer,) = watch.receive(ROOT, ordered(node="dc1/rack1/node9"))
    assert isinstance(answer, Send) and isinstance(answer.message, DrillBegun)
    assert "no node" in answer.message.error
