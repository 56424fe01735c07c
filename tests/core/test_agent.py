"""The agent: beats that wait for nothing, greetings, reports and a goodbye."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.agent import ACCOUNTS_PER_MINUTE, FAREWELL_RETRY_NS, LINKS_LOST_MAX, AgentCore
from hbagent.core.config import AgentConfig
from hbagent.core.echo import request
from hbagent.core.effects import Ask, Effects, Note, Publish, PublishBeat, Send, TakeFacts
from hbagent.core.messages import (
    RELAY_TIME_NS,
    Account,
    AccountWanted,
    Admission,
    Answered,
    Beat,
    Disk,
    Effort,
    FactsTaken,
    Farewell,
    FarewellAck,
    Hello,
    HostFacts,
    Linked,
    Ping,
    Pong,
    Query,
    Reconfigured,
    Refused,
    Relay,
    Relayed,
    Report,
    ReportWanted,
    Suspended,
    Terminate,
    WallTime,
)
from hbagent.core.states import Outcome, Path
from hbagent.core.units import SECOND
from tests.build import LEADER, LEADER2, NODE, WALL_NS, T, agent_core
from tests.playbook import Playbook

BOTH = (LEADER, LEADER2)
FACTS = HostFacts(cpu_percent=10.0, load_1m=0.5, disks=(Disk(mount="/", total_bytes=1000, used_percent=40.0),))


def beats(effects: Effects) -> list[Beat]:
    return [effect.beat for effect in effects if isinstance(effect, PublishBeat)]


def lived(agent: AgentCore, length: float, now: int = 0) -> list[Beat]:
    """The beats of `length` seconds, of an agent that is woken in time."""
    book = Playbook(agent, now)
    book.wait(T(length))
    return beats(tuple(book.effects))


def woken_at(agent: AgentCore, now: int) -> list[Beat]:
    return beats(agent.wake(now))


def admitted(agent: AgentCore, *leaders: str, now: int = 0, epoch: int = 5) -> None:
    for leader in leaders or (LEADER,):
        agent.receive(leader, Admission(accepted=True, epoch=epoch, echo_key=b"k" * 32), now)


# ---- beats -----------------------------------------------------------------------------------------------


def test_beats_are_numbered_from_one_and_stand_on_a_grid() -> None:
    heard = lived(agent_core(), 10)
    assert [beat.sequence for beat in heard] == list(range(1, 11))
    assert {after.sent_mono_ns - before.sent_mono_ns for before, after in pairwise(heard)} == {SECOND}
    assert {(beat.due_in_ns, beat.interval_ns, beat.loop_gap_ns) for beat in heard} == {(SECOND, SECOND, 0)}


def test_agents_started_together_do_not_beat_together() -> None:
    firsts = {lived(agent_core(seed=seed), 1)[0].sent_mono_ns for seed in range(20)}
    assert len(firsts) == 20
    assert max(firsts) - min(firsts) > SECOND // 2


def test_each_life_has_an_incarnation_of_its_own() -> None:
    assert len({agent_core(seed=seed).incarnation for seed in range(100)}) == 100


@given(st.lists(st.integers(0, T(5)), min_size=1, max_size=20))
def test_however_late_the_loop_is_each_beat_says_how_late_and_when_the_next_is_due(lags: list[int]) -> None:
    agent = agent_core()
    due = lived(agent, 1)[0].sent_mono_ns + SECOND
    for lag in lags:
        now = due + lag
        (beat,) = woken_at(agent, now)
        assert beat.loop_gap_ns == lag
        assert 0 < beat.due_in_ns <= SECOND
        assert (now + beat.due_in_ns - due) % SECOND == 0, "a late beat does not shift those after it"
        assert woken_at(agent, now) == [], "what was missed is not made up for"
        due = now + beat.due_in_ns


def test_a_beat_waits_for_no_leader_no_facts_and_no_admission() -> None:
    agent = agent_core(facts_interval_ns=T(1))
    book = Playbook(agent)
    book.wait(T(30))
    effects = tuple(book.effects)
    assert len(beats(effects)) == 30
    assert sum(isinstance(effect, TakeFacts) for effect in effects) == 1, "the one that does not come back"


def test_a_beat_carries_the_progress_of_the_half_that_takes_reports_and_the_digest_of_its_newest() -> None:
    agent = agent_core()
    (report,) = agent.receive("", FactsTaken(FACTS), 0)
    assert isinstance(report, Publish) and isinstance(report.message, Report)
    first = lived(agent, 1)[0]
    assert (first.progress, first.health_digest) == (1, report.message.digest)


# ---- reports ---------------------------------------------------------------------------------------------


def reported(effects: Effects) -> list[Report]:
    return [e.message for e in effects if isinstance(e, Publish) and isinstance(e.message, Report)]


def test_facts_that_say_something_new_are_reported_at_once() -> None:
    agent = agent_core()
    first = reported(agent.receive("", FactsTaken(FACTS), 0))
    second = reported(agent.receive("", FactsTaken(msgspec.structs.replace(FACTS, cpu_percent=60.0)), T(1)))
    assert [report.number for report in (*first, *second)] == [1, 2]
    assert {report.incarnation for report in (*first, *second)} == {agent.incarnation}


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"cpu_percent": 19.0}, False),
        ({"cpu_percent": 21.0}, True),
        ({"cpu_percent": None}, True),
        ({"uptime_s": 77}, False),
        ({"hostname": "other"}, True),
        ({"errors": ("disk: denied",)}, True),
        ({"disks": ()}, True),
        ({"disks": (Disk(mount="/", total_bytes=1000, used_percent=40.9),)}, False),
        ({"disks": (Disk(mount="/", total_bytes=1000, used_percent=41.1),)}, True),
        ({"disks": (Disk(mount="/home", total_bytes=1000, used_percent=40.0),)}, True),
    ],
)
def test_what_is_noise_makes_no_report_before_its_time(change: dict[str, object], news: bool) -> None:
    agent = agent_core()
    agent.receive("", FactsTaken(FACTS), 0)
    changed = msgspec.structs.replace(FACTS, **change)
    assert bool(reported(agent.receive("", FactsTaken(changed), T(1)))) is news


def test_noise_that_adds_up_is_reported_when_it_has() -> None:
    agent = agent_core()
    agent.receive("", FactsTaken(FACTS), 0)
    quiet = msgspec.structs.replace(FACTS, cpu_percent=18.0)
    assert reported(agent.receive("", FactsTaken(quiet), T(1))) == []
    assert reported(agent.receive("", FactsTaken(msgspec.structs.replace(quiet, cpu_percent=26.0)), T(2)))


def test_the_newest_report_goes_out_again_every_half_minute_and_whenever_a_leader_wants_it() -> None:
    agent = agent_core()
    (report,) = reported(agent.receive("", FactsTaken(FACTS), 0))
    book = Playbook(agent)
    book.wait(T(61))
    assert reported(tuple(book.effects)) == [report, report]
    assert reported(agent.receive(LEADER, ReportWanted(have=0), T(61))) == [report]
    assert agent_core().receive(LEADER, ReportWanted(have=0), 0) == (), "there is none yet"


def test_facts_are_read_again_some_time_after_they_came_back() -> None:
    agent = agent_core(facts_interval_ns=T(10))
    book = Playbook(agent, quiet=("beat", "send", "report"))
    assert book >> 5 << "take-facts" >> FactsTaken(FACTS) >> 9.9 >> 0.2 << "take-facts"


# ---- greetings -------------------------------------------------------------------------------------------


def hellos(effects: Effects, leader: str = LEADER) -> int:
    return sum(isinstance(e, Send) and isinstance(e.message, Hello) and e.peer == leader for e in effects)


def test_it_greets_ever_more_rarely_until_it_is_admitted() -> None:
    agent = agent_core(hello_min_ns=T(1), hello_max_ns=T(60))
    book = Playbook(agent)
    counts = []
    for _ in range(5):
        begun = len(book.effects)
        book.wait(T(60))
        counts.append(hellos(tuple(book.effects[begun:])))
    assert 4 <= counts[0] <= 8
    assert all(1 <= count <= 2 for count in counts[2:]), "but never stops"


def test_an_admitted_agent_greets_rarely_and_says_so_once() -> None:
    agent = agent_core(leaders=BOTH, hello_max_ns=T(60))
    (note,) = agent.receive(LEADER, Admission(accepted=True, epoch=5, echo_key=b"k" * 32), 0)
    assert isinstance(note, Note) and note.what == "admitted"
    assert agent.receive(LEADER, Admission(accepted=True, epoch=5), 0) == ()
    assert (agent.admitted_by, agent.echo_keys) == ((LEADER,), ())
    book = Playbook(agent)
    book.wait(T(299))
    assert hellos(tuple(book.effects)) == 0
    assert hellos(tuple(book.effects), LEADER2) > 0
    book.wait(T(2))
    assert hellos(tuple(book.effects)) == 1


def test_a_restarted_leader_gets_the_report_at_once() -> None:
    agent = agent_core()
    agent.receive("", FactsTaken(FACTS), 0)
    admitted(agent)
    assert reported(agent.receive(LEADER, Admission(accepted=True, epoch=5), T(1))) == []
    assert reported(agent.receive(LEADER, Admission(accepted=True, epoch=6), T(1)))


def test_a_new_link_is_greeted_at_once_and_gets_the_report() -> None:
    agent = agent_core()
    agent.receive("", FactsTaken(FACTS), 0)
    admitted(agent)
    agent.receive("", Linked(LEADER, False), T(1))
    assert not agent.admitted_by
    agent.receive("", Linked(LEADER, True), T(2))
    effects = agent.wake(T(2))
    admitted(agent, now=T(2))
    agent.receive("", Linked(LEADER, True), T(3))
    assert not agent.admitted_by, "also when nobody told of the end of the link before"
    assert (hellos(effects), len(reported(effects))) == (1, 1)


def test_a_refusal_is_said_and_nobody_else_is_listened_to() -> None:
    agent = agent_core()
    assert (
        Playbook(agent)
        >> (LEADER, Admission(accepted=False, epoch=5, reason="not expected here"))
        << "note not-admitted"
        >> Linked(LEADER, False, refused=True)
        << "note leader-refused-our-key"
        >> ("dc1/rack9-leader1", Admission(accepted=True, epoch=5))
        >> Linked("dc1/rack9-leader1", True)
        >> (LEADER, Query(id=1, what="status"))
        << "note unexpected-message"
    )
    assert not agent.admitted_by


def test_refused_frames_are_counted_and_said_once_a_second() -> None:
    agent = agent_core()
    refused = Refused(LEADER, "malformed", "no magic")
    assert Playbook(agent) >> refused << "note refused" >> refused >> refused
    assert agent.refused == {"malformed": 3}
    assert len(agent.receive("", refused, T(1))) == 1


def test_a_step_of_the_wall_clock_is_said_and_moves_no_beat() -> None:
    agent, other = agent_core(), agent_core()
    assert Playbook(agent) >> WallTime(WALL_NS) >> WallTime(WALL_NS - T(86400)) << "note wall-jump"
    assert lived(agent, 5) == lived(other, 5)


def test_a_suspension_is_no_step_of_the_wall_clock() -> None:
    agent = agent_core()
    agent.receive("", WallTime(WALL_NS), 0)
    assert agent.receive("", Suspended(T(300)), T(1)) == ()
    assert agent.receive("", WallTime(WALL_NS + T(301)), T(1)) == ()


# ---- questions -------------------------------------------------------------------------------------------


RELAY = Relay(number=3, address="10.0.0.2", port=7103, request=request(b"k" * 32, b"n" * 12))


def test_a_ping_is_answered_at_once_with_this_life_and_its_newest_beat() -> None:
    agent = agent_core()
    assert agent.receive(LEADER, Ping(number=8), 0) == (
        Send(LEADER, Pong(number=8, incarnation=agent.incarnation, sequence=0)),
    )
    lived(agent, 5)
    assert agent.receive(LEADER, Ping(number=9), T(5)) == (
        Send(LEADER, Pong(number=9, incarnation=agent.incarnation, sequence=5)),
    )


@pytest.mark.parametrize("message", [Ping(number=1), RELAY, AccountWanted(number=1, since_ns=SECOND)])
def test_nobody_is_answered_but_its_own_leaders(message: object) -> None:
    agent = agent_core()
    assert agent.receive(LEADER2, message, 0) == ()
    assert agent.receive("", message, 0) == ()
    assert agent.receive(LEADER, message, 0)


def test_a_relay_goes_out_and_its_answer_back_to_the_leader_that_asked() -> None:
    agent = agent_core(leaders=BOTH)
    (ask,) = agent.receive(LEADER2, RELAY, 0)
    assert isinstance(ask, Ask)
    assert (ask.path, ask.address, ask.port, ask.request) == (Path.UDP, "10.0.0.2", 7103, RELAY.request)
    answered = Answered(peer=ask.peer, number=ask.number, path=Path.UDP, outcome=Outcome.ANSWERED, data=b"a" * 48)
    assert agent.receive("", answered, T(0.001)) == (
        Send(LEADER2, Relayed(number=3, outcome=Outcome.ANSWERED, answer=b"a" * 48)),
    )


def test_a_relay_without_an_answer_is_answered_in_time() -> None:
    agent = agent_core()
    book = Playbook(agent, quiet=("beat", "take-facts", "send"))
    book >> (LEADER, RELAY)
    book.wait(RELAY_TIME_NS)
    assert [effect.number for effect in book.effects if isinstance(effect, Ask)] == [1, 2, 3]
    relayed = [e.message for e in book.effects if isinstance(e, Send) and isinstance(e.message, Relayed)]
    assert relayed == [Relayed(number=3, outcome=Outcome.SILENT)]


def test_an_agent_that_leaves_answers_the_relays_that_it_owes() -> None:
    agent = agent_core()
    agent.receive(LEADER, RELAY, 0)
    relayed = Send(LEADER, Relayed(number=3, outcome=Outcome.UNSENT))
    assert agent.receive("", Terminate(), T(0.01))[0] == relayed
    assert agent.receive(LEADER, RELAY, T(0.02)) == (relayed,)


# ---- accounts --------------------------------------------------------------------------------------------


def account(agent: AgentCore, now: int, since: float, leader: str = LEADER) -> Account:
    (send,) = agent.receive(leader, AccountWanted(number=4, since_ns=T(since)), now)
    assert isinstance(send, Send) and isinstance(send.message, Account)
    assert (send.peer, send.message.number, send.message.incarnation) == (leader, 4, agent.incarnation)
    return send.message


def second(agent: AgentCore, now: int, effort: Effort | None = None) -> None:
    """What the driver does each second or so."""
    if effort is not None:
        agent.receive("", effort, now)
    agent.receive("", WallTime(WALL_NS + now), now)


def test_an_agent_that_stood_still_says_how_late_its_beat_was() -> None:
    agent = agent_core()
    due = lived(agent, 5)[-1].sent_mono_ns + SECOND
    second(agent, T(5))
    woken_at(agent, due + T(3))
    told = account(agent, due + T(3), 4)
    assert (told.loop_gap_max_ns, told.loop_gap_ns, told.run_delay_ns) == (T(3), T(3), 0)
    assert told.covered_ns == T(4)


def test_one_that_is_asked_before_its_late_beat_went_out_says_so_too() -> None:
    agent = agent_core()
    due = lived(agent, 5)[-1].sent_mono_ns + SECOND
    assert account(agent, due + T(3), 4).loop_gap_ns == T(3)


def test_what_the_kernel_counted_in_that_time_is_told_and_what_it_had_counted_before_is_not() -> None:
    agent = agent_core()
    second(agent, 0, Effort(T(1), T(1), T(1)))
    for number in range(1, 6):
        second(agent, T(number), Effort(T(2), T(2), T(2)))
    second(agent, T(6), Effort(T(2.5), T(2.25), T(2)))
    told = account(agent, T(6), 3)
    assert (told.run_delay_ns, told.throttled_ns, told.suspended_ns) == (T(0.5), T(0.25), 0)


def test_a_suspension_is_part_of_the_time_that_is_asked_about() -> None:
    agent = agent_core()
    book = Playbook(agent)
    book.wait(T(10))
    agent.receive("", Suspended(T(60)), T(10))
    told = account(agent, T(10), 61)
    assert (told.covered_ns, told.suspended_ns, told.loop_gap_ns) == (T(61), T(60), 0)
    assert told.beats == 1


def test_an_agent_that_beat_all_the_while_says_how_often() -> None:
    agent = agent_core()
    for number in range(60):
        lived(agent, 1, T(number))
        second(agent, T(number + 1))
    told = account(agent, T(60), 30)
    assert (told.beats, told.loop_gap_ns, told.links_lost) == (30, 0, 0)


def test_lost_connections_are_counted_for_each_leader_in_that_time() -> None:
    agent = agent_core(leaders=BOTH)
    for at, leader, up in (
        (1, LEADER, False),
        (2, LEADER, True),
        (3, LEADER, False),
        (4, LEADER, False),
        (5, LEADER2, True),
        (6, LEADER, True),
        (7, LEADER, True),
        (8, LEADER2, True),
    ):
        agent.receive("", Linked(leader, up), T(at))
    assert account(agent, T(10), 10).links_lost == 2, "what was never up is not lost; what comes up again was"
    assert account(agent, T(10), 4).links_lost == 1
    assert account(agent, T(10), 10, LEADER2).links_lost == 1
    for _ in range(100):
        agent.receive("", Linked(LEADER, True), T(11))
    assert account(agent, T(11), 11).links_lost == LINKS_LOST_MAX


def test_a_life_that_began_within_the_silence_covers_no_more_than_itself() -> None:
    agent = agent_core(now=T(100))
    assert account(agent, T(102), 30).covered_ns == T(2)


def test_a_leader_that_asks_too_often_is_refused_and_the_other_is_not() -> None:
    agent = agent_core(leaders=BOTH)
    for _ in range(ACCOUNTS_PER_MINUTE):
        account(agent, T(1), 5)
    wanted = AccountWanted(number=4, since_ns=T(5))
    (note,) = agent.receive(LEADER, wanted, T(1))
    assert isinstance(note, Note) and note.what == "refused"
    assert agent.refused == {"too-often": 1}
    account(agent, T(1), 5, LEADER2)
    account(agent, T(7), 5)


# ---- reload ----------------------------------------------------------------------------------------------


def test_a_reload_keeps_incarnation_sequence_and_admissions() -> None:
    agent = agent_core()
    admitted(agent)
    before = lived(agent, 3)
    config = AgentConfig(node=NODE, leaders=BOTH, interval_ns=T(0.25))
    assert agent.receive("", Reconfigured(config), T(3)) == ()
    after = lived(agent, 2, now=T(3))
    assert {beat.incarnation for beat in (*before, *after)} == {agent.incarnation}
    assert [beat.sequence for beat in after] == list(range(len(before) + 1, len(before) + len(after) + 1))
    assert len(after) >= 7
    assert agent.admitted_by == (LEADER,)
    agent.receive("", Reconfigured(AgentConfig(node=NODE, leaders=(LEADER2,))), T(5))
    assert not agent.admitted_by


# ---- goodbye ---------------------------------------------------------------------------------------------


def test_a_goodbye_is_a_last_beat_and_a_farewell_to_each_leader_until_all_have_answered() -> None:
    agent = agent_core(leaders=BOTH)
    ack = FarewellAck(incarnation=agent.incarnation)
    assert (
        Playbook(agent)
        >> Terminate()
        << "beat 1 leaving"
        << f"send {LEADER} Farewell"
        << f"send {LEADER2} Farewell"
        >> Terminate()
        >> (LEADER, ack)
        >> FAREWELL_RETRY_NS / SECOND
        << "beat 2 leaving"
        << f"send {LEADER2} Farewell"
        >> (LEADER2, ack)
        << "note left"
        << "exit"
        >> 10
    )
    assert agent.deadline() is None


def test_an_agent_that_nobody_answers_leaves_when_its_time_is_up_and_says_whom_it_did_not_reach() -> None:
    agent = agent_core(leaders=BOTH, farewell_ns=T(1))
    book = Playbook(agent) >> Terminate()
    book = book >> (LEADER, FarewellAck(incarnation=agent.incarnation))
    book.wait(T(0.95))
    assert agent.deadline() == T(1)
    book.wait(T(0.05))
    assert book.newest(Note).fields == {"unacknowledged": (LEADER2,)}
    assert agent.deadline() is None
    assert all(beat.leaving for beat in beats(tuple(book.effects)))


def test_waking_a_leaving_agent_too_early_is_harmless() -> None:
    agent = agent_core()
    agent.receive("", Terminate(), 0)
    assert agent.wake(FAREWELL_RETRY_NS - 1) == ()
    assert len(agent.wake(FAREWELL_RETRY_NS)) == 2


def test_only_an_answer_to_this_goodbye_counts() -> None:
    agent = agent_core()
    ack = FarewellAck(incarnation=agent.incarnation)
    assert agent.receive(LEADER, ack, 0) == (), "nobody said goodbye yet"
    farewells = [e.message for e in agent.receive("", Terminate(), 0) if isinstance(e, Send)]
    assert farewells == [Farewell(incarnation=agent.incarnation, sequence=1)]
    assert agent.receive(LEADER, FarewellAck(incarnation=agent.incarnation + 1), 0) == ()
    assert agent.receive(LEADER2, ack, 0) == ()
    assert agent.receive(LEADER, ack, 0)[-1:] != ()
    assert agent.deadline() is None
