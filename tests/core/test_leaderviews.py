"""What a leader shows of itself, to a console that cannot reach the root."""

from __future__ import annotations

import msgspec

from hbagent.core.effects import Answer
from hbagent.core.leader import STORY_LENGTH, LeaderCore
from hbagent.core.leaderviews import explain_view, status_view
from hbagent.core.messages import HostFacts, KeepFailed, Query, Reconfigured, Report
from hbagent.core.states import Cause, Health, Liveness, RackState
from hbagent.core.views import StatusView
from tests.build import INCARNATION, LEADER, NODE, NODE2, RACK, T, beat, give, leader_config, leader_core
from tests.playbook import Playbook

CONFIG = leader_config()


def watched() -> tuple[LeaderCore, Playbook]:
    """A leader at 10 s; node1 beats, node2 was never seen."""
    core = leader_core(version="1.2.3")
    book = Playbook(core)
    for second in range(1, 11):
        book.wait(T(second) - book.now)
        book.take(give(core, beat(second), T(second)))
    return core, book


def test_a_leader_answers_in_the_roots_stead_and_says_so() -> None:
    core, book = watched()
    core.receive("", KeepFailed(1, "no space"), book.now)
    status = status_view(core, CONFIG, book.now)
    assert (status.root.role, status.root.reachable, status.root.degraded) == ("leader", False, "journal: no space")
    assert status.root.at == "2026-11-21T12:00:10.000Z"
    (rack,) = status.racks
    assert (rack.rack, rack.state) == (RACK, RackState.DEGRADED), "one node was never seen"
    assert (rack.counts["ALIVE"], rack.counts["UNKNOWN"]) == (1, 1)
    assert (rack.leaders[0].leader, rack.leaders[0].uptime_s, rack.leaders[0].outbox) == (LEADER, 10.0, 1)


def test_each_node_is_shown_with_its_age_and_by_whom_it_was_seen() -> None:
    core, book = watched()
    core.receive(NODE, Report(incarnation=INCARNATION, number=1, facts=HostFacts(load_1m=2.0)), book.now)
    book.wait(T(0.5))
    alive, never = status_view(core, CONFIG, book.now).nodes
    assert (alive.node, alive.liveness, alive.cause, alive.age_s) == (NODE, Liveness.ALIVE, None, 0.5)
    assert alive.since == "2026-11-21T12:00:01.000Z"
    assert alive.facts == HostFacts(load_1m=2.0)
    assert [(seen.leader, seen.speaks) for seen in alive.observers] == [(LEADER, True)]
    assert (never.node, never.liveness, never.cause) == (NODE2, Liveness.UNKNOWN, "never-seen")
    assert (never.age_s, never.health, never.facts) == (None, Health.UNKNOWN, None)
    assert [seen.speaks for seen in never.observers] == [False]


def test_a_leader_says_whether_an_end_could_be_proved() -> None:
    core, book = watched()
    member = core.roster.members[NODE]
    seen = []
    for incarnation in (None, INCARNATION - 1, INCARNATION):
        member.tcp_proved = incarnation
        seen.append(status_view(core, CONFIG, book.now).nodes[0].observers[0].echo)
    assert seen == [False, False, True], "what a former life answered proves nothing of this one"


def test_a_rack_in_which_everybody_lives_or_has_left_is_well() -> None:
    core, book = watched()
    book.take(give(core, beat(1, leaving=True), book.now, NODE2))
    (rack,) = status_view(core, CONFIG, book.now).racks
    assert (rack.state, rack.counts["LEFT"]) == (RackState.OK, 1)


def test_a_verdict_is_explained_by_its_evidence_newest_first() -> None:
    core, book = watched()
    book.wait(T(8))
    member = core.roster.members[NODE]
    explained = explain_view(core, CONFIG, member, book.now)
    assert [line["kind"] for line in explained.story] == ["node-dead", "node-suspect", "node-joined"]
    dead = explained.story[0]
    assert dead["liveness"] == {"from": "SUSPECT", "to": "DEAD"}
    assert (dead["cause"], dead["leader"]) == (Cause.SILENCE.value, LEADER)
    assert dead["at"] == "2026-11-21T12:00:15.000Z"
    assert dead["evidence"]["incarnation"] == f"{INCARNATION:016x}"
    assert 4_900_000_000 < dead["evidence"]["silent_ns"] < 5_100_000_000
    assert explained.rack.rack == RACK


def test_only_the_newest_verdicts_are_remembered_and_those_of_a_node_that_is_gone_are_not() -> None:
    core, book = watched()
    for life in range(STORY_LENGTH + 5):
        book.take(give(core, beat(1, incarnation=life), book.now))
    assert len(core.story(NODE)) == STORY_LENGTH
    assert core.story(NODE)[-1].incarnation == STORY_LENGTH + 4
    core.receive("", Reconfigured(leader_config("node2")), book.now)
    core.receive("", Reconfigured(CONFIG), book.now)
    assert core.story(NODE) == []


def test_every_answer_can_be_written_as_json() -> None:
    core, book = watched()
    for query in (Query(id=1, what="status"), Query(id=2, what="explain", node=NODE), Query(id=3, what="ping")):
        (answer,) = core.receive("asker", query, book.now)
        assert isinstance(answer, Answer) and not answer.error
        assert (answer.asker, answer.id) == (b"asker", query.id)
        assert msgspec.json.encode(answer.view)
    status = msgspec.json.decode(msgspec.json.encode(status_view(core, CONFIG, book.now)), type=StatusView)
    assert status == status_view(core, CONFIG, book.now)


def test_what_a_leader_does_not_know_it_says() -> None:
    core, book = watched()
    for query, words in (
        (Query(id=1, what="explain", node=f"{RACK}/node9"), "no node"),
        (Query(id=2, what="events"), "ask the root"),
    ):
        (answer,) = core.receive("asker", query, book.now)
        assert isinstance(answer, Answer) and words in answer.error
