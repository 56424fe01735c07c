"""What a leader finds out by asking, and how fast: real LeaderCore, nodes that answer as theirs would."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from hbagent.core.config import DetectorConfig
from hbagent.core.effects import Ask, Send, Witness
from hbagent.core.messages import (
    STEPS_MAX,
    Account,
    AccountWanted,
    Answered,
    Disconnected,
    Hello,
    LastHeard,
    Linked,
    Located,
    Ping,
    Pong,
    Relay,
    Relayed,
    Transitions,
)
from hbagent.core.states import Cause, Kind, Outcome, Path
from hbagent.core.units import MILLISECOND, SECOND, seconds
from tests.answering import Condition, Rack
from tests.build import LEADER2, NODE, NODE2, RACK

FIVE = ("node1", "node2", "node3", "node4", "node5")


def settled(*names: str, **options: Any) -> Rack:
    """A rack in which everybody has been heard for a while and every echo path was tried."""
    rack = Rack(*(names or FIVE), **options)
    rack.run(5.0)
    assert all(member.tcp_proved == member.order.incarnation for member in rack.core.roster.members.values())
    return rack


# ---- quiet -----------------------------------------------------------------------------------------------


def test_nobody_is_asked_while_beats_come_in_time() -> None:
    rack = settled()
    before = rack.core.inquiry.asked
    rack.run(60.0)
    assert rack.core.inquiry.asked == before
    assert rack.core.inquiry.doubts == 0


def test_a_lost_beat_is_asked_about_once_and_nobody_is_told() -> None:
    rack = settled()
    rack.nodes["node1"].lose = 1
    rack.run(3.0)
    assert rack.told("node1") == []
    assert (rack.core.inquiry.doubts, rack.core.inquiry.cleared) == (1, 1)
    assert rack.asked(Ping, 5.0) == 1


def test_nobody_is_suspected_without_a_chance_to_answer_also_when_his_doubt_begins_late() -> None:
    rack = settled()
    rack.run(0.5)
    roster, member = rack.core.roster, rack.core.roster.members[NODE]
    # Ordinary beats bring no look nearer, so after a burst of lateness it may come when the margin is over already.
    member.queued_for = 0
    roster._queue(member, member.suspect_at + 10 * MILLISECOND)
    rack.nodes["node1"].lose = 1
    rack.run(3.0)
    assert rack.told("node1") == []
    assert rack.core.inquiry.cleared == 1


def test_a_node_whose_beats_are_lost_for_long_is_never_suspected_while_it_answers() -> None:
    rack = settled()
    rack.nodes["node1"].lose = 30
    rack.run(40.0)
    assert rack.told("node1") == []
    assert rack.core.inquiry.cleared >= 25


def test_without_doubt_only_silence_decides() -> None:
    rack = Rack(*FIVE, settings={"doubt": False})
    rack.run(5.0)
    rack.become("node1", Condition.GONE)
    rack.run(10.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "silence")]
    assert rack.asked(Ping) == rack.asked(Ask) == 0


# ---- causes ----------------------------------------------------------------------------------------------


def test_an_ended_agent_is_dead_as_soon_as_its_host_has_refused() -> None:
    rack = settled()
    rack.become("node1", Condition.EXITED)
    rack.run(5.0)
    assert rack.told("node1") == [("DEAD", "process-exit")]
    assert rack.when("node1", "DEAD") - 5.0 < 0.002


def test_what_an_ended_agent_had_sent_revives_nobody_when_its_kernel_delivers_it() -> None:
    rack = settled()
    node = rack.nodes["node1"]
    rack.become("node1", Condition.EXITED)
    sent, sequence = rack.now - MILLISECOND, node.sequence + 1
    rack.run(0.3)
    numbers = (node.incarnation, sequence, sent, node.interval_ns, node.interval_ns, 0, 0, 0, False)
    rack.take(rack.core.beat(node.name, *numbers, rack.now))
    assert rack.told("node1") == [("DEAD", "process-exit")]
    # What it sends later shows that it lives after all.
    numbers = (node.incarnation, sequence + 1, rack.now, node.interval_ns, node.interval_ns, 0, 0, 0, False)
    rack.take(rack.core.beat(node.name, *numbers, rack.now + MILLISECOND))
    assert rack.told("node1")[-1] == ("ALIVE", None)


def test_a_last_beat_that_arrives_after_the_end_of_the_connection_puts_the_verdict_off_by_nothing() -> None:
    rack = settled()
    node = rack.nodes["node1"]
    rack.run(0.5)
    sent = rack.now
    numbers = (node.incarnation, node.sequence + 1, sent, node.interval_ns, node.interval_ns, 0, 0, 0, False)
    rack.become("node1", Condition.EXITED)
    # The connection's end has been told, and the refusal is still on its way.
    rack.run(0.0003)
    doubt = rack.core.roster.members[NODE].doubt
    assert doubt is not None and doubt.closed and not doubt.refused_tcp
    rack.take(rack.core.beat(node.name, *numbers, rack.now))
    assert rack.core.roster.members[NODE].order.sequence == node.sequence + 1
    rack.run(0.02)
    assert rack.told("node1") == [("DEAD", "process-exit")]


def test_an_ended_agent_whose_echo_never_answered_is_not_called_ended() -> None:
    rack = Rack(*FIVE)
    for node in rack.nodes.values():
        node.echo = False
        rack.admit(node)
    rack.run(5.0)
    rack.become("node1", Condition.EXITED)
    rack.run(10.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "silence")]


def test_a_closed_connection_alone_convicts_nobody() -> None:
    rack = settled()
    rack.tell("", Disconnected(NODE))
    rack.run(5.0)
    assert rack.told("node1") == []


def test_a_refusing_port_alone_convicts_nobody() -> None:
    # As a firewall that answers with a reset would do; its connection lives.
    rack = settled()
    rack.become("node1", Condition.FROZEN)
    rack.run(1.05)
    numbers = [e.number for at, e in rack.effects if isinstance(e, Ask) and at > 5 * SECOND]
    for number in numbers:
        for path in (Path.UDP, Path.TCP):
            rack.tell("", Answered(peer=NODE, number=number, path=path, outcome=Outcome.REFUSED))
    asked = [e for at, e in rack.effects if isinstance(e, Ask) and e.path is Path.TCP and at > 5 * SECOND]
    for ask in asked:
        rack.tell("", Answered(peer=NODE, number=ask.number, path=Path.TCP, outcome=Outcome.REFUSED))
    rack.run(3.0)
    assert ("DEAD", "process-exit") not in rack.told("node1")


def test_a_restarted_agent_is_tried_before_its_first_beat() -> None:
    rack = settled()
    rack.become("node1", Condition.EXITED)
    rack.run(1.0)
    rack.restart("node1")
    rack.run(0.5)
    assert rack.core.roster.members[NODE].tcp_proved == rack.nodes["node1"].incarnation
    rack.run(1.0)
    rack.become("node1", Condition.EXITED)
    rack.run(0.1)
    assert rack.told("node1")[-2:] == [("ALIVE", None), ("DEAD", "process-exit")]


def test_a_port_that_was_told_since_and_refuses_ends_no_agent() -> None:
    # Two with one key: the one greets with a port of its own, and goes.
    rack = settled()
    hello = Hello(incarnation=4711, interval_ns=SECOND, version="1", echo_port=7001)
    rack.tell(NODE, hello)
    rack.nodes["node1"].resets = True
    rack.tell("", Disconnected(NODE))
    asked = [e for at, e in rack.effects if isinstance(e, Ask) and at == rack.now]
    for ask in asked:
        rack.tell("", Answered(peer=NODE, number=ask.number, path=ask.path, outcome=Outcome.REFUSED))
    assert asked and not [v for v in rack.verdicts if v[3] == "DEAD"]


def test_an_exit_proved_in_an_earlier_life_proves_nothing_about_this_one() -> None:
    rack = settled()
    node = rack.nodes["node1"]
    node.echo = False
    rack.restart("node1")
    node.echo = True
    rack.run(3.0)
    rack.become("node1", Condition.EXITED)
    rack.run(1.0)
    assert ("DEAD", "process-exit") not in rack.told("node1")


def test_a_vanished_host_is_dead_an_interval_and_half_a_second_after_its_last_beat() -> None:
    rack = settled()
    last = rack.core.roster.members[NODE].heard_at
    assert last is not None
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "host-gone")]
    assert rack.when("node1", "DEAD") == pytest.approx(last / SECOND + 1.5, abs=0.03)


def test_a_vanished_host_whose_beats_may_be_very_late_is_dead_no_later() -> None:
    rack = settled(settings={"detector": DetectorConfig(margin_ns=3 * SECOND)})
    last = rack.core.roster.members[NODE].heard_at
    assert last is not None
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "host-gone")]
    assert rack.when("node1", "DEAD") == pytest.approx(last / SECOND + 1.5, abs=0.03)


def test_a_vanished_host_that_has_answered_a_trial_since_its_last_beat_is_dead_that_much_later() -> None:
    rack = settled()
    rack.run(0.5)
    # A trial in the middle between two beats, and the host is away before the next.
    rack.core.inquiry.check_soon(rack.core.roster.members[NODE], rack.now)
    rack.run(0.3)
    tried = max(at for at, effect in rack.effects if isinstance(effect, Ask) and effect.peer == NODE)
    assert tried > 5.5 * SECOND
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "host-gone")]
    assert tried / SECOND + 1.49 < rack.when("node1", "DEAD") < tried / SECOND + 1.6


def test_a_beat_that_comes_after_an_answer_and_was_sent_before_it_takes_back_nothing() -> None:
    rack = settled()
    node, member = rack.nodes["node1"], rack.core.roster.members[NODE]
    node.lose = 1
    while not member.answers:
        rack.run(0.001)
    proved = member.silent_from
    # The beat that was missed was only slow.
    numbers = (node.incarnation, node.sequence, proved - 50 * MILLISECOND, node.interval_ns, node.interval_ns)
    rack.take(rack.core.beat(node.name, *numbers, 0, 0, 0, False, rack.now))
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "host-gone")]
    assert rack.when("node1", "DEAD") >= proved / SECOND + 1.499


def test_a_vanished_host_without_a_known_second_path_is_dead_by_silence_only() -> None:
    rack = Rack(*FIVE)
    for node in rack.nodes.values():
        node.echo = False
        rack.admit(node)
    rack.run(5.0)
    rack.become("node1", Condition.GONE)
    rack.run(10.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "silence")]
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None and "no second path" in verdict.text


def test_a_stopped_process_is_frozen_for_half_a_minute_however_often_it_is_asked() -> None:
    rack = settled()
    rack.become("node1", Condition.FROZEN)
    rack.run(29.0)
    assert rack.told("node1") == [("SUSPECT", "process-frozen")]
    rack.run(3.0)
    assert rack.told("node1") == [("SUSPECT", "process-frozen"), ("DEAD", "process-frozen")]
    assert not [e for at, e in rack.effects if isinstance(e, Ask) and e.path is Path.TCP and at > 5 * SECOND]


def test_a_stopped_process_that_goes_on_is_alive_again() -> None:
    rack = settled()
    rack.become("node1", Condition.FROZEN)
    rack.run(10.0)
    rack.become("node1", Condition.WELL)
    rack.run(3.0)
    assert rack.told("node1") == [("SUSPECT", "process-frozen"), ("ALIVE", None)]


def test_a_stopped_process_whose_host_goes_as_well_is_gone() -> None:
    rack = settled()
    rack.become("node1", Condition.FROZEN)
    rack.run(10.0)
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    assert rack.told("node1")[-1] == ("DEAD", "host-gone")


def test_a_node_that_neighbours_reach_is_cut_off_and_never_dead() -> None:
    rack = settled()
    rack.become("node1", Condition.CUT)
    rack.run(120.0)
    assert rack.told("node1") == [("SUSPECT", "link-cut")]
    rack.become("node1", Condition.WELL)
    rack.run(2.0)
    assert rack.told("node1")[-1] == ("ALIVE", None)


def test_a_node_that_neighbours_reach_no_longer_is_dead_after_all() -> None:
    rack = settled()
    rack.become("node1", Condition.CUT)
    rack.run(20.0)
    rack.become("node1", Condition.GONE)
    rack.run(10.0)
    assert rack.told("node1")[-1] == ("DEAD", "host-gone")


@pytest.mark.parametrize("lives", [True, False])
def test_a_node_that_others_reached_does_not_die_of_one_that_did_not_while_more_are_asked(lives: bool) -> None:
    rack = settled()
    rack.become("node1", Condition.CUT)
    rack.run(20.0)
    doubt = rack.core.roster.members[NODE].doubt
    assert doubt is not None and doubt.elsewhere_at is not None
    # For longer than a host is given that is gone, nobody has a word of it; then a neighbour says that it refuses.
    rack.mute = {f"{RACK}/{name}" for name in FIVE}
    known_at = doubt.elsewhere_at
    while not (relays := _relays(rack, known_at + 2 * SECOND)):
        rack.run(0.001)
    rack.mute = set()
    if not lives:
        rack.become("node1", Condition.GONE)
    said_at = rack.now
    helper, relay = relays[0]
    rack.tell(helper, Relayed(number=relay.number, outcome=Outcome.REFUSED))
    assert rack.told("node1") == [("SUSPECT", "link-cut")]
    asked = [e.peer for at, e in rack.effects if at == said_at and isinstance(e, Send) and isinstance(e.message, Ping)]
    assert asked == [NODE], "it is asked once more"
    rack.run(0.3)
    assert "DEAD" not in dict(rack.told("node1"))
    rack.run(60.0)
    assert rack.told("node1")[-1] == (("SUSPECT", "link-cut") if lives else ("DEAD", "host-gone"))


def test_a_node_that_the_other_leader_hears_is_cut_off() -> None:
    rack = Rack("node1", "node2", settings={"peers": (LEADER2,), "neighbours": 0})
    rack.run(5.0)
    rack.other = lambda name: (50 * MILLISECOND, rack.nodes[name].sequence)
    rack.become("node1", Condition.CUT)
    rack.run(20.0)
    assert rack.told("node1") == [("SUSPECT", "link-cut")]
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None and LEADER2 in verdict.text


def test_what_the_other_leader_heard_before_proves_nothing() -> None:
    rack = Rack("node1", "node2", settings={"peers": (LEADER2,), "neighbours": 0})
    rack.run(5.0)
    known = rack.nodes["node1"].sequence
    rack.other = lambda name: (50 * MILLISECOND, known)
    rack.become("node1", Condition.GONE)
    rack.run(20.0)
    assert rack.told("node1")[-1] == ("DEAD", "host-gone")


def test_a_host_that_nobody_else_could_look_for_is_dead_by_silence_only() -> None:
    # Two nodes that vanish together, or a leader that was cut off: from here it looks the same.
    rack = settled("node1", "node2")
    for name in ("node1", "node2"):
        rack.become(name, Condition.GONE)
    rack.run(10.0)
    for name in ("node1", "node2"):
        assert rack.told(name)[-1] == ("DEAD", "silence")
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None and "nobody else could look" in verdict.text


def test_a_leader_without_its_root_that_hears_nobody_calls_nobody_dead() -> None:
    rack = settled("node1", "node2")
    rack.tell("", Linked("dc1/root", True))
    for name in ("node1", "node2"):
        rack.become(name, Condition.CUT)
    rack.mute = {NODE, NODE2}
    rack.run(1.0)
    rack.tell("", Linked("dc1/root", False))
    rack.run(30.0)
    assert not [v for v in rack.verdicts if v[3] == "DEAD"]
    for name in ("node1", "node2"):
        rack.become(name, Condition.WELL)
    rack.tell("", Linked("dc1/root", True))
    rack.run(5.0)
    assert [rack.told(name)[-1] for name in ("node1", "node2")] == [("ALIVE", None)] * 2
    rack.become("node1", Condition.EXITED)
    rack.run(1.0)
    assert rack.told("node1")[-1] == ("DEAD", "process-exit")


def test_a_firewall_that_resets_tcp_ends_no_agent() -> None:
    rack = settled()
    rack.nodes["node1"].resets = True
    rack.tell("", Disconnected(NODE))
    rack.run(10.0)
    assert not [v for v in rack.verdicts if v[3] == "DEAD"]


# ---- what an answer proves -------------------------------------------------------------------------------


def test_a_late_answer_proves_life_only_at_the_time_of_the_question() -> None:
    rack = settled()
    rack.become("node1", Condition.GONE)
    rack.run(1.2)
    number = next(e.message.number for at, e in rack.effects if isinstance(e, Send) and isinstance(e.message, Ping))
    rack.run(3.0)
    member = rack.core.roster.members[NODE]
    assert member.liveness.value == "DEAD"
    pong = Pong(number=number, incarnation=rack.nodes["node1"].incarnation, sequence=9)
    rack.tell(NODE, pong)
    assert rack.told("node1")[-1] == ("DEAD", "host-gone")


def test_an_answer_of_another_life_proves_nothing() -> None:
    rack = settled()
    rack.become("node1", Condition.FROZEN)
    rack.run(1.3)
    number = max(e.message.number for _, e in rack.effects if isinstance(e, Send) and isinstance(e.message, Ping))
    rack.tell(NODE, Pong(number=number, incarnation=4711, sequence=9))
    assert rack.told("node1")[-1] == ("SUSPECT", "process-frozen")


def test_nobody_answers_for_another_node() -> None:
    rack = settled()
    rack.become("node1", Condition.FROZEN)
    rack.run(1.3)
    number = max(e.message.number for _, e in rack.effects if isinstance(e, Send) and isinstance(e.message, Ping))
    rack.tell(NODE2, Pong(number=number, incarnation=rack.nodes["node1"].incarnation, sequence=9))
    assert rack.told("node1")[-1] == ("SUSPECT", "process-frozen")


def test_a_neighbour_that_makes_up_an_answer_is_not_believed() -> None:
    rack = settled()
    rack.mute = {f"{RACK}/{name}" for name in FIVE}
    rack.become("node1", Condition.GONE)
    rack.run(1.2)
    relays = _relays(rack)
    assert relays
    for helper, relay in relays:
        rack.tell(helper, Relayed(number=relay.number, outcome=Outcome.ANSWERED, answer=bytes(48)))
    rack.run(5.0)
    assert rack.told("node1")[-1] == ("DEAD", "silence")


def test_a_host_that_refuses_a_neighbour_is_there_and_not_called_gone() -> None:
    rack = settled()
    rack.mute = {f"{RACK}/{name}" for name in FIVE}
    rack.become("node1", Condition.GONE)
    rack.run(0.3)
    for helper, relay in _relays(rack):
        rack.tell(helper, Relayed(number=relay.number, outcome=Outcome.REFUSED))
    rack.run(5.0)
    assert rack.told("node1")[-1] == ("DEAD", "silence")


def test_what_a_stranger_says_it_heard_is_refused() -> None:
    rack = settled()
    rack.tell(NODE2, LastHeard(number=1, node=NODE, age_ns=0, incarnation=1, sequence=99))
    assert rack.core.refused["forged-id"] == 1


def test_beats_that_the_network_held_back_do_not_revive_an_agent_that_has_ended() -> None:
    rack = settled()
    node = rack.nodes["node1"]
    rack.run(0.5)
    held = node.sequence + 1
    sent = rack.now
    rack.become("node1", Condition.EXITED)
    rack.run(0.3)
    assert rack.told("node1")[-1] == ("DEAD", "process-exit")
    numbers = (node.incarnation, held, sent, node.interval_ns, node.interval_ns, 0, 0, 0, False)
    rack.take(rack.core.beat(node.name, *numbers, rack.now))
    assert rack.told("node1")[-1] == ("DEAD", "process-exit")
    assert rack.core.refused["old"] == 1


def test_an_agent_that_was_wrongly_called_ended_is_alive_with_its_next_beat() -> None:
    rack = settled()
    rack.become("node1", Condition.EXITED)
    rack.run(0.3)
    rack.nodes["node1"].condition = Condition.WELL
    rack.run(1.5)
    assert rack.told("node1")[-1] == ("ALIVE", None)


def test_a_node_that_answers_while_no_beat_comes_is_alive_and_marked() -> None:
    rack = settled()
    rack.nodes["node1"].lose = 10
    rack.run(8.0)
    member = rack.core.roster.members[NODE]
    assert (member.liveness.value, member.cause) == ("ALIVE", Cause.LINK_CUT)
    rack.run(5.0)
    assert (member.liveness.value, member.cause) == ("ALIVE", None)


def test_whoever_may_not_speak_any_more_is_not_asked_either() -> None:
    rack = settled()
    rack.tell("", Located(NODE, ""))
    rack.nodes["node1"].lose = 100
    since = rack.now / SECOND
    rack.run(10.0)
    assert rack.told("node1")[-1] == ("DEAD", "silence")
    assert rack.asked(Ask, since) == rack.asked(Ping, since) == 0


def test_a_margin_that_was_learned_puts_off_no_verdict_that_an_operator_has_set() -> None:
    rack = Rack(*FIVE, interval=0.25, settings={"detector": DetectorConfig(margin_ns=3 * SECOND)})
    for node in rack.nodes.values():
        node.echo = False
        rack.admit(node)
    rack.run(5.0)
    rack.become("node1", Condition.GONE)
    rack.run(3.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "silence")]


# ---- who is asked, and how often -------------------------------------------------------------------------


def test_a_doubt_asks_six_times_eight_milliseconds_apart_and_then_ever_less_often() -> None:
    rack = settled("node1")
    rack.become("node1", Condition.GONE)
    rack.run(1.4)
    times = sorted(
        {at for at, e in rack.effects if at > 5 * SECOND and (isinstance(e, Ask) or _is_ping(e))},
    )
    gaps = [round((b - a) / MILLISECOND) for a, b in pairwise(times)]
    assert gaps[:5] == [8, 8, 8, 8, 8]
    assert gaps[5:] == sorted(gaps[5:]) and gaps[5] >= 40


def _relays(rack: Rack, since: int = 0) -> list[tuple[str, Relay]]:
    """Who was asked to pass a question on after `since`, and what."""
    sent = [e for at, e in rack.effects if at > since and isinstance(e, Send)]
    return [(e.peer, e.message) for e in sent if isinstance(e.message, Relay)]


def _is_ping(effect: object) -> bool:
    return isinstance(effect, Send) and isinstance(effect.message, Ping)


def test_two_neighbours_are_asked_and_report_before_the_verdict() -> None:
    rack = settled()
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None and verdict.silent_ns is not None
    reports = [step for step in verdict.steps if "got nothing from it" in step.text]
    assert len({step.text for step in reports}) >= 2
    assert all(step.after_ns < verdict.silent_ns for step in reports)


def test_a_storm_of_doubts_stays_within_its_budget() -> None:
    names = tuple(f"node{n}" for n in range(1, 201))
    rack = settled(*names, settings={"ask_burst": 500})
    before = rack.core.inquiry.asked
    for name in names[:40]:
        rack.become(name, Condition.GONE)
    rack.run(3.0)
    assert rack.core.inquiry.unasked > 0
    assert rack.core.inquiry.asked - before <= 500 + 4 * 21


def test_a_node_that_could_not_be_asked_is_judged_by_its_silence_alone() -> None:
    rack = settled(settings={"ask_burst": 100})
    rack.core.inquiry._tokens = 0
    rack.core._config = rack.core._config
    rack.become("node1", Condition.GONE)
    rack.core.inquiry.refill = lambda beats: None  # type: ignore[method-assign]
    rack.run(10.0)
    assert rack.told("node1") == [("SUSPECT", "silence"), ("DEAD", "silence")]


def test_a_stopped_process_is_not_tried_by_tcp_either() -> None:
    rack = Rack("node1", "node2")
    rack.run(3.0)
    rack.restart("node1")
    rack.become("node1", Condition.FROZEN)
    rack.run(60.0)
    assert sum(isinstance(e, Ask) and e.path is Path.TCP and at > 3 * SECOND for at, e in rack.effects) <= 2


def test_the_echo_path_is_tried_again_from_time_to_time_and_no_more() -> None:
    rack = settled("node1", settings={"echo_check_ns": 60 * SECOND})
    before = rack.asked(Ask)
    rack.run(600.0)
    assert 2 * 9 <= rack.asked(Ask) - before <= 2 * 11


def test_a_doubt_that_lasts_for_an_hour_holds_few_questions() -> None:
    rack = Rack("node1", "node2", settings={"peers": (LEADER2,)})
    rack.run(5.0)
    rack.other = lambda name: (None, None)
    rack.become("node1", Condition.CUT)
    rack.mute = {NODE2}
    rack.core.inquiry.refill = lambda beats: setattr(rack.core.inquiry, "_tokens", 500)  # type: ignore[method-assign]
    rack.run(3600.0)
    assert len(rack.core.inquiry._questions) <= 64


def test_a_closed_connection_is_part_of_the_story_at_its_time() -> None:
    rack = settled()
    rack.become("node1", Condition.EXITED)
    rack.run(1.0)
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None
    times = [step.after_ns for step in verdict.steps]
    assert times == sorted(times)
    assert any("closed" in step.text for step in verdict.steps)


# ---- the rack --------------------------------------------------------------------------------------------


def test_a_rack_that_loses_its_power_is_one_thing_and_not_five_deaths() -> None:
    rack = settled()
    for name in FIVE:
        rack.become(name, Condition.GONE)
    rack.run(20.0)
    assert {(to, cause) for _, _, _, to, cause in rack.verdicts[5:]} <= {
        ("SUSPECT", "silence"),
        ("UNKNOWN", "rack-dark"),
    }
    assert rack.core.roster.dark_ns(RACK, rack.now) is not None
    assert all(member.cause is Cause.RACK_DARK for member in rack.core.roster.members.values())


def test_a_rack_that_goes_dark_takes_all_along_who_are_missed_by_then() -> None:
    names = tuple(f"node{number}" for number in range(1, 21))
    rack = settled(*names)
    for name in names:
        rack.become(name, Condition.GONE)
    rack.run(20.0)
    went = [at for at, _, _, _, cause in rack.verdicts if cause == "rack-dark"]
    assert (len(went), len(set(went))) == (20, 1), "their last beats were spread over an interval"
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None and verdict.text.startswith("20 of 20 nodes")


def test_who_stays_silent_after_the_rack_has_come_back_is_judged_alone() -> None:
    rack = settled()
    for name in FIVE:
        rack.become(name, Condition.GONE)
    rack.run(20.0)
    for name in FIVE[1:]:
        rack.become(name, Condition.WELL)
    rack.run(20.0)
    assert rack.core.roster.dark_ns(RACK, rack.now) is None
    assert rack.told("node1")[-2:] == [("SUSPECT", "silence"), ("DEAD", "host-gone")]
    assert all(rack.told(name)[-1] == ("ALIVE", None) for name in FIVE[1:])


def test_who_stays_silent_after_the_rack_has_come_back_is_asked_anew_before_he_is_judged() -> None:
    # So many that what was asked while all were silent has spent the budget.
    names = tuple(f"node{number}" for number in range(1, 41))
    rack = settled(*names)
    for name in names:
        rack.become(name, Condition.GONE)
    rack.run(60.0)
    back_at = rack.now / SECOND
    for name in names[12:]:
        rack.become(name, Condition.WELL)
    rack.run(4.0)
    for name in names[6:12]:
        # Its host is there again, and its agent is still finding its way.
        rack.become(name, Condition.CUT)
    rack.run(4.0)
    for name in names[:12]:
        suspected_at = next(
            at for at, node, _, to, _ in rack.verdicts if (node, to) == (name, "SUSPECT") and at > back_at
        )
        asked = [
            effect
            for at, effect in rack.effects
            if back_at < at / SECOND <= suspected_at
            and isinstance(effect, (Ask, Witness))
            and effect.peer == f"{RACK}/{name}"
        ]
        assert (suspected_at >= back_at + 5, len(asked) >= 3) == (True, True)
    assert {rack.told(name)[-1] for name in names[6:12]} == {("SUSPECT", "link-cut")}, "its neighbours reach it"
    assert {rack.told(name)[-1] for name in names[:6]} == {("DEAD", "host-gone")}


def test_a_pong_counts_although_nobody_could_watch_how_its_ping_was_delivered() -> None:
    rack = settled()
    rack.become("node1", Condition.GONE)
    while not rack.told("node1"):
        rack.run(0.05)
    number = next(effect.number for _, effect in reversed(rack.effects) if isinstance(effect, Witness))
    rack.tell("", Answered(peer=NODE, number=number, path=Path.KERNEL, outcome=Outcome.UNSENT))
    rack.tell(NODE, Pong(number=number, incarnation=rack.nodes["node1"].incarnation, sequence=5))
    assert rack.told("node1")[-1] == ("ALIVE", None)


def test_ended_agents_are_told_however_many_they_are() -> None:
    rack = settled()
    for name in FIVE:
        rack.become(name, Condition.EXITED)
    rack.run(1.0)
    assert all(rack.told(name) == [("DEAD", "process-exit")] for name in FIVE)


# ---- accounts --------------------------------------------------------------------------------------------


def test_a_node_that_is_back_is_asked_why_it_was_silent_until_it_says_so() -> None:
    rack = settled()
    asked: list[AccountWanted] = []

    def account(wanted: AccountWanted) -> Account | None:
        asked.append(wanted)
        if len(asked) < 3:
            return None
        gap = 4 * SECOND
        incarnation = rack.nodes["node1"].incarnation
        return Account(
            number=wanted.number,
            incarnation=incarnation,
            covered_ns=wanted.since_ns,
            loop_gap_max_ns=gap,
            loop_gap_ns=gap,
        )

    rack.account = account
    rack.become("node1", Condition.FROZEN)
    rack.run(5.0)
    rack.become("node1", Condition.WELL)
    rack.run(8.0)
    assert len(asked) == 3
    told = [e.message for _, e in rack.effects if isinstance(e, Send) and isinstance(e.message, Transitions)]
    assert told == []
    story = rack.core.story(NODE)
    assert [transition.kind for transition in story][-1] is Kind.NODE_ACCOUNTED
    assert story[-1].evidence.account is not None


# ---- the story -------------------------------------------------------------------------------------------


def test_a_verdict_tells_how_it_was_reached_in_the_order_of_time() -> None:
    rack = settled()
    rack.become("node1", Condition.GONE)
    rack.run(5.0)
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None
    times = [step.after_ns for step in verdict.steps]
    assert times == sorted(times)
    texts = " / ".join(step.text for step in verdict.steps)
    for word in ("the last that came", "asked on its control connection", "asked its echo port", "about it", "node"):
        assert word in texts
    assert len(verdict.steps) <= STEPS_MAX
    assert verdict.steps[0].after_ns == 0


def test_a_long_story_keeps_its_beginning_and_its_end() -> None:
    rack = settled()
    rack.become("node1", Condition.CUT)
    rack.run(60.0)
    rack.become("node1", Condition.GONE)
    rack.run(10.0)
    verdict = rack.core.roster.members[NODE].verdict
    assert verdict is not None
    assert len(verdict.steps) <= STEPS_MAX
    assert "the last that came" in verdict.steps[0].text


def test_a_vanished_rackmate_is_seen_within_its_time_at_five_beats_a_second() -> None:
    rack = settled(interval=0.2)
    at = rack.now / SECOND
    rack.become("node1", Condition.GONE)
    rack.run(3.0)
    assert rack.told("node1")[-1] == ("DEAD", "host-gone")
    assert rack.when("node1", "DEAD") - at <= 0.2 + 0.55
    assert rack.now == seconds(8.0)
