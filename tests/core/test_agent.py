"""The agent: beats that wait for nothing, greetings, reports and a goodbye."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.agent import FAREWELL_RETRY_NS, AgentCore
from hbagent.core.config import AgentConfig
from hbagent.core.effects import Effects, Note, Publish, PublishBeat, Send, TakeFacts
from hbagent.core.messages import (
    Admission,
    Beat,
    Disk,
    FactsTaken,
    Farewell,
    FarewellAck,
    Hello,
    HostFacts,
    Linked,
    Query,
    Reconfigured,
    Refused,
    Report,
    ReportWanted,
    Terminate,
    WallTime,
)
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
