"""The agent: beats that wait for nothing, greetings, reports and a goodbye."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.core.agent import (
    ACCOUNTS_PER_MINUTE,
    EVIDENCE_PAGE_SIZE,
    FAREWELL_RETRY_NS,
    LINKS_LOST_MAX,
    RECALLS_MAX,
    REPORT_GAP_NS,
    AgentCore,
)
from hbagent.core.config import AgentConfig
from hbagent.core.echo import request
from hbagent.core.effects import (
    Ask,
    Effects,
    KillProber,
    Note,
    Publish,
    PublishBeat,
    Recall,
    Send,
    StartDrill,
    StartProber,
)
from hbagent.core.messages import (
    RELAY_TIME_NS,
    Account,
    AccountWanted,
    Admission,
    Answered,
    AppRow,
    Beat,
    Disk,
    DrillBegun,
    DrillWanted,
    Effort,
    EvidencePage,
    EvidenceWanted,
    Farewell,
    FarewellAck,
    Hello,
    HostFacts,
    Linked,
    Mark,
    Ping,
    Pong,
    ProberEnded,
    ProbeResult,
    Query,
    Recalled,
    Reconfigured,
    Refused,
    Relay,
    Relayed,
    Report,
    ReportWanted,
    Suspended,
    Terminate,
    Vitals,
    WallTime,
)
from hbagent.core.states import AppState, Health, Outcome, Path, Stall
from hbagent.core.units import SECOND
from tests.build import LEADER, LEADER2, NODE, WALL_NS, T, agent_core
from tests.playbook import Playbook

BOTH = (LEADER, LEADER2)
FACTS = HostFacts(cpu_percent=10.0, load_1m=0.5, disks=(Disk(mount="/", total_bytes=1000, used_percent=40.0),))


def vitals(**fields: object) -> Vitals:
    """What a prober tells."""
    return Vitals(**{"health": Health.OK, "facts": FACTS, **fields})  # type: ignore[arg-type]


VITALS = vitals()


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


def test_a_beat_waits_for_no_leader_no_prober_and_no_admission() -> None:
    book = Playbook(agent_core(prober_patience_ns=T(100)))
    book.wait(T(30))
    assert len(beats(tuple(book.effects))) == 30
    assert sum(isinstance(effect, StartProber) for effect in book.effects) == 1, "the one that says nothing"


def test_a_beat_carries_the_progress_of_the_prober_and_the_digest_of_the_newest_report() -> None:
    agent = agent_core()
    agent.wake(0)
    (report,) = reported(agent.receive("", VITALS, 0))
    for count in (1, 2, 2, 3):
        agent.receive("", Mark(count), 0)
    first = lived(agent, 1)[0]
    assert (first.progress, first.health_digest) == (3, report.digest)


def test_the_progress_goes_on_over_the_lives_of_the_prober() -> None:
    agent = agent_core()
    agent.wake(0)
    agent.receive("", Mark(1), 0)
    agent.receive("", ProberEnded("killed"), 0)
    agent.wake(T(2))
    agent.receive("", Mark(1), T(2))
    assert woken_at(agent, T(3))[0].progress == 2


# ---- reports ---------------------------------------------------------------------------------------------


def reported(effects: Effects) -> list[Report]:
    return [e.message for e in effects if isinstance(e, Publish) and isinstance(e.message, Report)]


def test_facts_that_say_something_new_are_reported_at_once() -> None:
    agent = agent_core()
    first = reported(agent.receive("", VITALS, 0))
    second = reported(agent.receive("", vitals(facts=msgspec.structs.replace(FACTS, cpu_percent=60.0)), T(1)))
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
    agent.receive("", VITALS, 0)
    changed = msgspec.structs.replace(FACTS, **change)
    assert bool(reported(agent.receive("", vitals(facts=changed), T(1)))) is news


def test_noise_that_adds_up_is_reported_when_it_has() -> None:
    agent = agent_core()
    agent.receive("", VITALS, 0)
    quiet = msgspec.structs.replace(FACTS, cpu_percent=18.0)
    assert reported(agent.receive("", vitals(facts=quiet), T(1))) == []
    assert reported(agent.receive("", vitals(facts=msgspec.structs.replace(quiet, cpu_percent=26.0)), T(2)))


def test_the_newest_report_goes_out_again_every_half_minute_and_whenever_a_leader_wants_it() -> None:
    agent = agent_core()
    (report,) = reported(agent.receive("", VITALS, 0))
    book = Playbook(agent)
    book.wait(T(61))
    assert reported(tuple(book.effects)) == [report, report]
    assert reported(agent.receive(LEADER, ReportWanted(have=0), T(61))) == [report]
    assert agent_core().receive(LEADER, ReportWanted(have=0), 0) == (), "there is none yet"


PROBE = ProbeResult(name="disk", health=Health.OK, text="all is well", age_ns=T(3), since_ns=T(9))
APP = AppRow(name="web", health=Health.OK, state=AppState.READY, since_ns=T(5))


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"probes": (msgspec.structs.replace(PROBE, text="still well", age_ns=T(4), attempts=1),)}, False),
        ({"probes": (msgspec.structs.replace(PROBE, health=Health.WARNING),)}, True),
        ({"probes": ()}, True),
        ({"apps": (msgspec.structs.replace(APP, status="42 requests", since_ns=T(6)),)}, False),
        ({"apps": (msgspec.structs.replace(APP, state=AppState.STOPPING),)}, True),
        ({"apps": (msgspec.structs.replace(APP, health=Health.STALLED, stall=Stall.LOCK_WAIT),)}, True),
        ({"apps": (msgspec.structs.replace(APP, bundle="b2"),)}, True),
        ({"health": Health.WARNING}, True),
    ],
)
def test_a_verdict_is_news_and_a_sentence_goes_with_the_next_report(change: dict[str, object], news: bool) -> None:
    agent = agent_core()
    before = vitals(probes=(PROBE,), apps=(APP,))
    (first,) = reported(agent.receive("", before, 0))
    changed = msgspec.structs.replace(before, **change)
    told = reported(agent.receive("", changed, T(1)))
    assert bool(told) is news
    book = Playbook(agent, T(1))
    book.wait(T(35))
    newest = (*told, *reported(tuple(book.effects)))[-1]
    assert newest.number == 2
    assert (newest.digest != first.digest) is news


def test_what_is_told_grows_older_when_the_prober_tells_no_more() -> None:
    agent = agent_core()
    agent.receive("", vitals(probes=(PROBE,), apps=(APP,)), 0)
    (report,) = reported(agent.receive(LEADER, ReportWanted(have=0), T(10)))
    assert (report.probes[0].age_ns, report.probes[0].since_ns, report.apps[0].since_ns) == (T(13), T(19), T(15))


def test_an_application_that_changes_its_mind_all_the_time_is_told_ten_times_a_second() -> None:
    agent = agent_core()
    book = Playbook(agent)
    for number in range(1000):
        health = (Health.OK, Health.STALLED)[number % 2]
        book.take(agent.receive("", vitals(health=health), book.now))
        book.wait(T(0.001))
    assert 9 <= len(reported(tuple(book.effects))) <= 11
    book.wait(REPORT_GAP_NS)
    assert reported(tuple(book.effects))[-1].health is Health.STALLED, "the last word counts"


def test_a_leader_is_told_for_how_long_the_mark_may_stand_still() -> None:
    for settings, window_ns in (({"prober_window_ns": T(7)}, T(7)), ({"prober": False}, 0)):
        agent = agent_core(**settings)
        assert reported(agent.receive("", VITALS, 0))[0].window_ns == window_ns


def test_without_a_prober_a_report_says_that_nothing_is_wrong_that_anybody_looked_at() -> None:
    agent = agent_core(prober=False)
    effects = agent.wake(0)
    assert [(report.health, report.facts, report.probes) for report in reported(effects)] == [(Health.OK, None, ())]
    assert not any(isinstance(effect, StartProber) for effect in effects)


# ---- the prober ------------------------------------------------------------------------------------------


def test_a_prober_that_ends_is_started_again_ever_more_slowly() -> None:
    agent = agent_core()
    book = Playbook(agent)
    starts: list[list[StartProber]] = []
    for _ in range(9):
        book.wait(T(61))
        started = [effect for effect in book.effects if isinstance(effect, StartProber)]
        assert len(started) == len(starts) + 1
        starts.append(started)
        book.take(agent.receive("", ProberEnded("exit status 1"), book.now))
        ended_at = book.now
    book.wait(T(59))
    assert sum(isinstance(effect, StartProber) for effect in book.effects) == len(starts)
    assert book.now == ended_at + T(59), "a minute at most, and no less after so many"


def test_a_prober_whose_mark_stands_still_is_killed_and_one_that_moves_is_not() -> None:
    agent = agent_core(prober_patience_ns=T(30))
    book = Playbook(agent)
    for count in range(1, 60):
        book.wait(T(1))
        book.take(agent.receive("", Mark(count), book.now))
    assert not [effect for effect in book.effects if isinstance(effect, KillProber)]
    book.wait(T(31))
    assert len([effect for effect in book.effects if isinstance(effect, KillProber)]) == 1
    book.wait(T(30))
    assert len([effect for effect in book.effects if isinstance(effect, KillProber)]) == 2, "should it not have died"


def test_a_prober_that_was_stopped_together_with_the_agent_is_not_killed() -> None:
    agent = agent_core(prober_patience_ns=T(30))
    book = Playbook(agent)
    book.wait(T(1))
    book.take(agent.receive("", Mark(1), book.now))
    book.now += T(60)
    book.wait(T(20))
    assert not [effect for effect in book.effects if isinstance(effect, KillProber)]


# ---- evidence --------------------------------------------------------------------------------------------


def pages(effects: Effects) -> list[EvidencePage]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, EvidencePage)]


def wanted(number: int = 7, app: str = "", bundle: str = "") -> EvidenceWanted:
    return EvidenceWanted(number=number, node=NODE, app=app, bundle=bundle)


@pytest.mark.parametrize("size", [0, 1, EVIDENCE_PAGE_SIZE, EVIDENCE_PAGE_SIZE + 1, 2 * EVIDENCE_PAGE_SIZE])
def test_a_bundle_goes_to_the_leader_that_wants_it_in_pages(size: int) -> None:
    agent = agent_core(leaders=BOTH)
    assert agent.receive(LEADER2, wanted(app="web", bundle="b1"), 0) == (Recall(1, "web", "b1"),)
    effects = agent.receive("", Recalled(number=1, body=bytes(size)), T(1))
    assert {effect.peer for effect in effects if isinstance(effect, Send)} == {LEADER2}
    sent = pages(effects)
    assert b"".join(page.body for page in sent) == bytes(size)
    assert [page.page for page in sent] == list(range(len(sent)))
    assert [page.last for page in sent] == [False] * (len(sent) - 1) + [True]
    assert {(page.number, page.node) for page in sent} == {(7, NODE)}
    assert agent.receive("", Recalled(number=1, body=b"again"), T(1)) == ()


def test_why_there_is_no_bundle_is_told() -> None:
    agent = agent_core()
    agent.receive(LEADER, wanted(), 0)
    (page,) = pages(agent.receive("", Recalled(number=1, error="no bundle of web"), 0))
    assert (page.error, page.last) == ("no bundle of web", True)
    (page,) = pages(agent_core(prober=False).receive(LEADER, wanted(), 0))
    assert page.error == "this agent runs no prober"


def test_few_bundles_are_under_way_at_once_and_one_that_never_comes_is_given_up() -> None:
    agent = agent_core()
    for number in range(RECALLS_MAX):
        assert isinstance(agent.receive(LEADER, wanted(number), 0)[0], Recall)
    (page,) = pages(agent.receive(LEADER, wanted(99), T(4.9)))
    assert page.error.startswith("busy")
    assert isinstance(agent.receive(LEADER, wanted(100), T(5.1))[0], Recall)


def test_a_stranger_gets_no_evidence() -> None:
    assert agent_core().receive("dc1/other", wanted(), 0) == ()


# ---- drills ----------------------------------------------------------------------------------------------


def drill(number: int = 1, what: str = "deadlock", app: str = "hbagent-drill-1") -> DrillWanted:
    return DrillWanted(number=number, node=NODE, drill=what, app=app)


def begun(effects: Effects) -> list[DrillBegun]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, DrillBegun)]


def test_a_drill_is_started_where_that_is_allowed_and_one_at_a_time() -> None:
    agent = agent_core(drills=True)
    effects = agent.receive(LEADER, drill(), 0)
    assert StartDrill("deadlock", "hbagent-drill-1") in effects and begun(effects)[0].error == ""
    assert "under way" in begun(agent.receive(LEADER, drill(2), T(10)))[0].error
    assert begun(agent.receive(LEADER, drill(3), T(60)))[0].error == ""


@pytest.mark.parametrize(
    ("settings", "wanted", "error"),
    [
        ({}, drill(), "drills are off"),
        ({"drills": True, "prober": False}, drill(), "no prober"),
        ({"drills": True}, drill(what="rm -rf"), "no drill"),
        ({"drills": True}, drill(app="web"), "no drill"),
    ],
)
def test_nothing_but_a_drill_is_started_and_nowhere_else(
    settings: dict[str, bool], wanted: DrillWanted, error: str
) -> None:
    effects = agent_core(**settings).receive(LEADER, wanted, 0)
    assert error in begun(effects)[0].error and not any(isinstance(effect, StartDrill) for effect in effects)


def test_a_stranger_starts_no_drill() -> None:
    assert agent_core(drills=True).receive("dc1/other", drill(), 0) == ()


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
    agent.receive("", VITALS, 0)
    admitted(agent)
    assert reported(agent.receive(LEADER, Admission(accepted=True, epoch=5), T(1))) == []
    assert reported(agent.receive(LEADER, Admission(accepted=True, epoch=6), T(1)))


def test_a_new_link_is_greeted_at_once_and_gets_the_report() -> None:
    agent = agent_core()
    agent.receive("", VITALS, 0)
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
    book = Playbook(agent, quiet=("beat", "start-prober", "send"))
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


def test_a_connection_that_is_called_elsewhere_meanwhile_was_not_lost_and_is_greeted() -> None:
    agent = agent_core(leaders=BOTH)
    agent.receive("", Linked(LEADER, True), T(1))
    agent.receive(LEADER, Admission(accepted=True, epoch=1), T(2))
    agent.wake(T(2))
    agent.receive("", Linked(LEADER, True, moved=True), T(3))
    assert account(agent, T(10), 10).links_lost == 0
    greeted = [effect.peer for effect in agent.wake(T(3)) if isinstance(effect, Send) and effect.peer == LEADER]
    assert greeted == [LEADER], "the new connection is one that its leader knows nothing of"


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
