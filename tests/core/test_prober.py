"""The prober: schedules, what is told, who is stuck, who is restarted, what survives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.config import AppConfig
from hbagent.core.effects import AskUnit, Drop, Examine, Remember, RestartUnit, RunCheck, Tell, Watch
from hbagent.core.messages import (
    CheckFinished,
    Examined,
    Notified,
    ProcessGone,
    Query,
    Reconfigured,
    Suspended,
    UnitAnswered,
    WallTime,
)
from hbagent.core.prober import EXAMINATIONS_MAX
from hbagent.core.states import AppState, Health, Stall
from hbagent.core.units import SECOND, seconds
from tests.examples import examples
from tests.probing import APP_PID, APP_UID, Host, app, probe, registered, said

OK, CRIT = Health.OK, Health.CRITICAL
FAILED = CheckFinished(run=0, health=CRIT, text="broken")
HANGING = CheckFinished(run=0, health=Health.UNKNOWN, timed_out=True)


def marked(name: str, count: int, *words: str) -> str:
    return " ".join((f"X_HBAGENT_PROGRESS={name}", str(count), *words))


# ---- checks ----------------------------------------------------------------------------------------------


def test_probes_run_at_their_interval_spread_from_the_start() -> None:
    host = Host(*(probe(f"p{number}") for number in range(50))).remember().wait(100)
    firsts = [runs[0] for runs in host.runs.values()]
    assert len(firsts) == 50 and max(firsts) - min(firsts) > seconds(5)
    for runs in host.runs.values():
        assert all(seconds(9.5) <= after - before <= seconds(10.51) for before, after in pairwise(runs))


def test_no_more_checks_run_at_once_than_allowed_and_all_get_their_turn() -> None:
    host = Host(*(probe(f"p{number}", interval_ns=SECOND) for number in range(40)), concurrency=4)
    host.check_ns = seconds(0.2)
    host.remember().wait(60)
    assert host.under_way_most == 4
    # Forty probes of 0.2 s on four places take two seconds a round, whoever comes first.
    assert all(len(runs) >= 20 for runs in host.runs.values())
    assert host.core.waited_ns < seconds(3)


def test_a_hanging_probe_moves_no_other_probes_schedule() -> None:
    host = Host(*(probe(f"p{number}") for number in range(20)), probe("hangs", timeout_ns=seconds(9)))
    host.results["hangs"] = HANGING
    host.remember().wait(120)
    assert host.core.waited_ns < seconds(0.05)
    assert host.probe("hangs").health is CRIT and host.probe("p3").health is OK


def test_a_failure_is_looked_at_again_soon_and_told_once_it_is_hard() -> None:
    host = Host(probe())
    host.results["web"] = lambda run: FAILED if run > 3 else CheckFinished(run=0, health=OK)
    host.remember().wait(60)
    runs = host.runs["web"]
    assert seconds(1.9) <= runs[4] - runs[3] <= seconds(2.11)
    (hard,) = [at for at, vitals in host.told if vitals.health is CRIT][:1]
    assert hard == runs[5] + host.check_ns
    assert len(host.notes("probe-changed")) == 2, "to OK, to CRITICAL"
    assert host.vitals.probes[0].text == "broken"


def test_a_time_out_is_what_the_config_makes_of_it() -> None:
    host = Host(probe("a"), probe("b", on_timeout=Health.UNKNOWN))
    host.results.update(a=HANGING, b=HANGING)
    host.remember().wait(60)
    assert (host.probe("a").health, host.probe("b").health) == (CRIT, Health.UNKNOWN)
    assert host.probe("a").text == "no answer within 5.0s"


def test_a_default_probe_with_nothing_to_look_at_is_left_out_and_a_configured_one_is_unknown() -> None:
    host = Host(probe("a", default=True), probe("b"))
    nothing = CheckFinished(run=0, health=Health.UNKNOWN, text="no systemd here", applies=False)
    host.results.update(a=nothing, b=nothing)
    host.remember().wait(60)
    assert [row.name for row in host.vitals.probes] == ["b"]
    assert host.vitals.health is Health.UNKNOWN
    assert len(host.runs["a"]) == 1, "it looks again much later"


def test_what_a_run_leaves_behind_is_handed_to_the_next() -> None:
    host = Host(probe())
    host.results["web"] = lambda run: CheckFinished(run=0, health=OK, memory={"offset": run})
    host.remember().wait(30)
    handed = [order.memory for order in host.orders(RunCheck)]
    assert handed[:3] == [{}, {"offset": 1}, {"offset": 2}]


def test_processes_left_behind_in_the_kernel_are_counted_and_told() -> None:
    host = Host(probe())
    host.results["web"] = CheckFinished(run=0, health=CRIT, timed_out=True, abandoned=2)
    host.remember().wait(20)
    assert host.core.abandoned == 2 * len(host.notes("check-abandoned")) > 0


def test_nothing_runs_before_the_memory_of_an_earlier_life_has_come_but_it_is_not_waited_for_for_ever() -> None:
    host = Host(probe(interval_ns=SECOND)).wait(1.9)
    assert host.runs == {} and host.told == [] and host.marks == [1, 2]
    assert host.wait(3).runs["web"]


def test_a_reload_keeps_what_is_known_of_a_probe_that_stays_as_it_was() -> None:
    host = Host(probe("a"), probe("b"))
    host.results.update(a=FAILED, b=FAILED)
    host.remember().wait(40)
    changed = Host(probe("a"), probe("b", interval_ns=seconds(20)), probe("c")).config
    host.give(Reconfigured(changed)).wait(0.1)
    assert [(row.name, row.health) for row in host.vitals.probes] == [("a", CRIT)]
    host.wait(30)
    assert [(row.name, row.health) for row in host.vitals.probes] == [("a", CRIT), ("b", CRIT), ("c", OK)]


def test_a_run_of_a_probe_that_a_reload_dropped_gives_back_its_place() -> None:
    host = Host(probe("a"), concurrency=1)
    host.check_ns = seconds(4)
    host.remember()
    while not host.runs:
        host.wait(0.1)
    host.give(Reconfigured(Host(probe("b"), concurrency=1).config)).wait(60)
    assert [row.name for row in host.vitals.probes] == ["b"]


# ---- what is told ----------------------------------------------------------------------------------------


def test_its_loop_is_told_to_go_round_each_second() -> None:
    host = Host().remember().wait(10)
    assert host.marks == list(range(1, 12))


def test_everything_is_told_now_and_then_and_a_change_at_once() -> None:
    host = Host(facts_interval_ns=seconds(10)).remember().wait(30)
    times = [at for at, _ in host.told]
    assert all(after - before <= seconds(10.01) for before, after in pairwise(times))
    host.wait(3).give(registered())
    assert host.told[-1][0] == host.now


def test_a_stranger_among_the_messages_is_noted() -> None:
    assert Host().give(Query(id=1, what="ping")).notes("unexpected-message")


def test_weights_count_with_a_quorum_only() -> None:
    for quorum, health in ((0.0, CRIT), (0.5, Health.WARNING)):
        host = Host(probe("a", weight=1.0), probe("b", weight=3.0), quorum=quorum)
        host.results["a"] = FAILED
        assert host.remember().wait(60).vitals.health is health


# ---- stuck -----------------------------------------------------------------------------------------------


def working(host: Host, length_s: float, *, start: int = 0, pid: int = APP_PID) -> Host:
    """A mark that moves each half second."""
    for count in range(start, start + int(length_s * 2)):
        host.give(said(marked("worker", count, "queued=3", "window=5"), pid=pid)).wait(0.5)
    return host


def test_a_mark_that_stands_still_with_work_queued_is_examined_and_told_with_what_was_found() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = Examined(run=0, stall=Stall.DEADLOCKED, text="a cycle", details=("a waits for b",), bundle="b1")
    working(host, 10)
    moved_at = host.now - seconds(0.5)
    host.wait(20)
    (examine, *_) = host.orders(Examine)
    assert (examine.app, examine.pid, examine.start, examine.stuck) == ("web", APP_PID, APP_PID * 10, True)
    assert examine.why == "mark worker has stood at 19 for 5.0s with 3 queued"
    told_at = (moved_at + seconds(5) + host.examine_ns) / SECOND
    assert host.changes() == [(pytest.approx(0, abs=0.1), OK), (pytest.approx(told_at), Health.DEADLOCKED)]
    row = host.app()
    assert (row.state, row.stall, row.bundle) == (AppState.STUCK, Stall.DEADLOCKED, "b1")
    assert row.details == ("a waits for b",) and row.text.endswith("with 3 queued; a cycle")
    assert host.vitals.health is Health.DEADLOCKED


def test_an_empty_queue_is_idle_and_not_stalled() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.give(said(marked("worker", 7, "queued=0", "window=5"))).wait(600)
    assert host.orders(Examine) == [] and host.app().health is OK


def test_work_that_comes_after_a_rest_has_the_whole_window() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.give(said(marked("worker", 7, "queued=0", "window=5"))).wait(100)
    host.give(said(marked("worker", 7, "queued=1", "window=5"))).wait(4.9)
    assert host.orders(Examine) == []
    assert host.wait(0.2).orders(Examine)


def test_one_mark_that_stands_is_enough_among_many_that_move() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    for count in range(20):
        lines = marked("stuck", 1, "queued=1", "window=5"), marked("busy", count, "queued=1", "window=5")
        host.give(said(*lines)).wait(0.5)
    assert "mark stuck" in host.orders(Examine)[0].why


def test_the_first_mark_that_moves_again_makes_it_well() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    working(host, 5).wait(30)
    assert host.app().health is Health.STALLED
    host.give(said(marked("worker", 99, "queued=3", "window=5")))
    assert (host.app().health, host.app().state, host.app().stall) == (OK, AppState.READY, None)
    assert host.app().bundle, "the evidence stays"


def test_a_watchdog_that_is_not_fed_is_stuck_and_one_that_never_was_is_not_yet_expected() -> None:
    host = Host(apps=(app(watchdog_ns=seconds(3), start_timeout_ns=seconds(60)),)).remember().give(registered())
    host.wait(30)
    assert host.app().state is AppState.STARTING and not host.orders(Examine)
    for _ in range(10):
        host.give(said("WATCHDOG=1")).wait(2)
    assert host.app().health is OK
    host.wait(2)
    assert "watchdog" in host.orders(Examine)[0].why
    host.wait(2)
    assert host.app().health is Health.STALLED


def test_one_with_a_watchdog_that_never_becomes_ready_is_critical() -> None:
    host = Host(apps=(app(watchdog_ns=seconds(3), start_timeout_ns=seconds(20)),)).remember().give(registered())
    host.give(said(f"EXTEND_TIMEOUT_USEC={30_000_000}")).wait(25)
    assert host.app().health is OK
    host.wait(10)
    assert host.app().health is CRIT and "READY=1" in host.app().text
    assert host.give(said("READY=1")).app().health is OK


def test_the_watchdog_may_be_asked_for_extended_triggered_and_given_up() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.give(said("READY=1", "WATCHDOG_USEC=2000000")).give(said("EXTEND_TIMEOUT_USEC=20000000")).wait(19)
    assert not host.orders(Examine)
    assert host.wait(2).orders(Examine)
    host.give(said("WATCHDOG=1")).wait(2).give(said("WATCHDOG_USEC=0")).wait(100)
    assert host.app().health is OK
    host.give(said("WATCHDOG=trigger")).wait(3)
    assert host.app().health is Health.STALLED and "says itself" in host.app().text


@pytest.mark.parametrize(
    ("stall", "health"),
    [
        (Stall.DEADLOCKED, Health.DEADLOCKED),
        (Stall.LOCK_WAIT, Health.STALLED),
        (Stall.BUSY_LOOP, Health.STALLED),
        (Stall.IO_BLOCKED, Health.STALLED),
        (Stall.PAUSED, Health.STALLED),
        (Stall.STARVED, Health.WARNING),
        (Stall.SLOW, Health.WARNING),
        (Stall.IDLE, Health.STALLED),
        (Stall.RUNNING, Health.STALLED),
        (Stall.UNKNOWN, Health.STALLED),
    ],
)
def test_what_a_stuck_application_was_found_in_decides_its_health(stall: Stall, health: Health) -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = stall
    assert working(host, 5).wait(20).app().health is health


def test_one_that_moves_again_while_it_is_examined_is_not_blamed() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = Stall.DEADLOCKED
    working(host, 5).wait(4.7)
    assert host.orders(Examine)
    host.give(said(marked("worker", 99, "queued=3", "window=5"))).wait(4)
    assert [health for _, health in host.changes()] == [OK]


def test_an_examination_that_takes_too_long_holds_the_word_up_no_longer_than_three_seconds() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.examine_ns = seconds(60)
    working(host, 5).wait(4.6)
    stuck_at = host.now / SECOND
    assert host.wait(10).changes()[-1] == (pytest.approx(stuck_at + 3, abs=0.2), Health.STALLED)


def test_one_whose_process_nobody_knows_is_stalled_without_examination() -> None:
    host = Host(apps=(app("job"),)).remember()
    host.give(said("X_HBAGENT_APP=job", marked("worker", 1, "window=5"))).wait(5.1)
    assert host.orders(Examine) == [] and host.app("job").health is Health.STALLED


def test_a_stuck_application_is_examined_again_later() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = Stall.LOCK_WAIT
    working(host, 5).wait(12)
    host.found["web"] = Stall.DEADLOCKED
    host.wait(30)
    assert host.app().health is Health.DEADLOCKED
    host.wait(600)
    assert 3 <= len(host.orders(Examine)) <= 5


def test_a_later_examination_that_fails_takes_nothing_back_and_one_without_room_for_evidence_counts() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = Stall.LOCK_WAIT
    working(host, 5).wait(12)
    host.found["web"] = Examined(run=0, stall=Stall.UNKNOWN, error="denied")
    host.wait(40)
    assert host.app().stall is Stall.LOCK_WAIT
    host.found["web"] = Examined(run=0, stall=Stall.DEADLOCKED, error="No space left on device")
    assert host.wait(310).app().health is Health.DEADLOCKED


def test_examinations_are_few_at_once_and_all_get_one() -> None:
    host = Host().remember()
    for number in range(5):
        pid = APP_PID + 10 * number
        host.give(registered(f"app{number}", pid)).give(said(marked("m", 1, "window=5"), pid=pid))
    host.wait(5.1)
    assert len(host.orders(Examine)) == EXAMINATIONS_MAX
    host.wait(6)
    assert len({order.app for order in host.orders(Examine)}) == 5


def test_a_probe_that_gets_no_answer_has_its_application_examined() -> None:
    host = Host(probe("http", app="web")).remember().give(registered())
    host.found["web"] = Stall.DEADLOCKED
    host.results["http"] = HANGING
    host.wait(60)
    assert host.app().health is Health.DEADLOCKED and "probe http: no answer within 5.0s" in host.app().text
    host.results["http"] = OK
    assert host.wait(20).app().health is OK


def test_a_probe_that_fails_but_answers_says_nothing_of_being_stuck() -> None:
    host = Host(probe("http", app="web")).remember().give(registered())
    host.results["http"] = FAILED
    host.wait(60)
    assert host.orders(Examine) == [] and (host.app().health, host.probe("http").health) == (OK, CRIT)


# ---- own pauses ------------------------------------------------------------------------------------------


def test_nobody_is_blamed_for_what_was_not_heard_while_the_prober_was_stopped() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    working(host, 5).stop(60)
    host.wait(4.9)
    assert host.notes("prober-was-stopped") and not host.orders(Examine)
    working(host, 20, start=50)
    assert not host.orders(Examine)
    assert host.wait(6).orders(Examine)


def test_what_waits_in_the_queue_is_heard_before_anything_is_judged() -> None:
    host = Host(apps=(app(),)).remember().give(registered("a")).give(registered("b", 700))
    for pid in (APP_PID, 700):
        host.give(said(marked("m", 1, "window=5"), pid=pid))
    # Half a second late is no stop, and both deadlines have passed.
    host.stop(5.5).queue(said(marked("m", 2, "window=5")), said(marked("m", 2, "window=5"), pid=700)).wait(1)
    assert not host.orders(Examine)


def test_a_suspended_host_blames_nobody() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    working(host, 4).wait(4).give(Suspended(seconds(3600))).wait(4)
    assert not host.orders(Examine)


# ---- the end of an application ---------------------------------------------------------------------------


def test_an_application_whose_process_is_gone_without_a_word_is_critical() -> None:
    host = Host().remember().give(registered())
    assert host.orders(Watch) == [Watch(APP_PID, APP_PID * 10)]
    host.give(ProcessGone(APP_PID)).wait(0.9)
    assert host.app().health is OK, "whoever started it may still say how it ended"
    assert host.wait(0.2).app().health is CRIT and host.app().state is AppState.FAILED


@pytest.mark.parametrize(
    ("code", "state", "text"),
    [
        ("0", AppState.STOPPED, ""),
        ("3", AppState.FAILED, "it ended with exit status 3"),
        ("137", AppState.FAILED, "it ended by signal 9"),
    ],
)
def test_how_it_ended_is_what_run_app_says(code: str, state: AppState, text: str) -> None:
    host = Host().remember().give(registered()).give(ProcessGone(APP_PID))
    host.give(said("X_HBAGENT_APP=web", f"X_HBAGENT_RESULT={code}")).wait(5)
    assert (host.app().state, host.app().text) == (state, text)


def test_stopping_on_purpose_is_no_trouble() -> None:
    host = Host().remember().give(registered()).give(said("STOPPING=1")).give(ProcessGone(APP_PID)).wait(5)
    assert (host.app().state, host.app().health) == (AppState.STOPPED, OK)


def test_who_says_that_it_stops_and_is_heard_after_its_end_has_stopped_and_nobody_else_says_it_for_it() -> None:
    host = Host().remember().give(registered()).give(ProcessGone(APP_PID)).wait(0.5)
    host.give(said("X_HBAGENT_APP=web", "STOPPING=1")).wait(5)
    assert (host.app().state, host.app().health) == (AppState.STOPPED, OK)
    host = Host().remember().give(registered()).give(ProcessGone(APP_PID)).wait(0.5)
    host.give(said("X_HBAGENT_APP=web", "STOPPING=1", pid=777)).wait(5)
    assert host.app().state is AppState.FAILED
    host.give(said("X_HBAGENT_APP=web", "STOPPING=1")).wait(5)
    assert host.app().state is AppState.FAILED, "too late"


OLD, NEW = 100, APP_PID


def relieved() -> Host:
    """A host on which one process of an application has relieved another, which is about to end."""
    host = Host().remember()
    for pid in (OLD, NEW):
        host.give(registered(pid=pid)).wait(5)
    return host


@pytest.mark.parametrize(
    "words", [("STOPPING=1",), ("STOPPING=1", "X_HBAGENT_GUESS=1"), ("X_HBAGENT_ASKED=15",), ("X_HBAGENT_RESULT=143",)]
)
@pytest.mark.parametrize("pid", [OLD, OLD - 1, 777])
def test_the_end_of_a_process_that_was_relieved_is_none_of_its_successor(words: tuple[str, ...], pid: int) -> None:
    host = relieved().give(said("X_HBAGENT_APP=web", *words, pid=pid)).give(ProcessGone(OLD))
    assert working(host, 5).wait(20).app().health is Health.STALLED
    assert host.app().pid == NEW


def test_a_good_end_of_an_earlier_run_is_a_success_of_the_job_all_the_same() -> None:
    host = Host(apps=(app(ttl_ns=seconds(60)),)).remember()
    for pid in (OLD, NEW):
        host.give(registered(pid=pid))
    host.wait(50).give(said("X_HBAGENT_APP=web", "X_HBAGENT_RESULT=0", pid=OLD - 1)).wait(30)
    assert (host.app().state, host.app().health) == (AppState.READY, OK)


@pytest.mark.parametrize("sender", [{}, {"pid": 777, "ancestors": (776, NEW, 1)}, {"pid": NEW - 1}])
def test_it_says_itself_that_it_stops_or_a_child_does_or_whoever_started_it(sender: dict[str, Any]) -> None:
    host = relieved().give(said("X_HBAGENT_APP=web", "STOPPING=1", **sender))
    assert host.app().state is AppState.STOPPING


def test_the_parent_of_one_that_named_itself_tells_how_that_ended_and_not_that_it_stops() -> None:
    host = Host().remember().give(registered(pid=OLD))
    itself: dict[str, Any] = {"main_uid": APP_UID, "main_start": NEW * 10, "ancestors": (OLD, 1)}
    host.give(said("X_HBAGENT_APP=web", f"X_HBAGENT_MAIN={NEW}", **itself)).wait(5)
    host.give(said("X_HBAGENT_APP=web", "STOPPING=1", pid=OLD)).wait(1)
    assert host.app().state is AppState.READY
    host.give(said("X_HBAGENT_APP=web", "X_HBAGENT_RESULT=3", pid=OLD)).wait(1)
    assert (host.app().state, host.app().text) == (AppState.FAILED, "it ended with exit status 3")


def test_who_started_it_is_known_over_a_restart_of_the_prober() -> None:
    again = reborn(relieved(), 3).wait(5)
    again.give(said("X_HBAGENT_APP=web", "STOPPING=1", pid=OLD))
    assert again.app().state is AppState.READY
    again.give(asked(15)).wait(1)
    assert again.app().state is AppState.STOPPING


def test_who_says_that_it_stops_and_lives_on_is_judged_again_and_has_stopped_when_it_ends_at_last() -> None:
    host = Host().remember().give(registered())
    working(host, 5).give(said("STOPPING=1")).wait(240)
    assert (host.app().state, host.orders(Examine)) == (AppState.STOPPING, [])
    assert host.wait(90).app().health is Health.STALLED
    assert host.give(ProcessGone(APP_PID)).wait(5).app().state is AppState.STOPPED


def test_who_serves_again_after_it_said_that_it_stops_fails_when_it_ends_without_a_word() -> None:
    host = Host().remember().give(registered()).give(said("STOPPING=1")).give(said("READY=1"))
    assert host.give(ProcessGone(APP_PID)).wait(5).app().state is AppState.FAILED


# ---- systemd knows ---------------------------------------------------------------------------------------


def of_a_unit(stopped: bool | None, text: str = "", **settings: Any) -> Host:
    """A host on which systemd says this of the end of shop.service."""
    host = Host(**settings).remember()
    host.ends["shop.service"] = UnitAnswered(run=0, stopped=stopped, text=text)
    return host.give(registered("web", pid=APP_PID, unit="shop.service"))


@pytest.mark.parametrize("apps", [(), (app(unit="shop.service"),), (app(unit="shop"),)])
def test_a_unit_that_was_stopped_has_stopped_and_one_that_failed_has_failed(apps: tuple[AppConfig, ...]) -> None:
    host = of_a_unit(True, apps=apps).give(ProcessGone(APP_PID)).wait(10)
    assert host.orders(AskUnit) == [AskUnit(run=1, unit="shop.service", pid=APP_PID, start=APP_PID * 10)]
    assert (host.app().state, [health for _, health in host.changes()]) == (AppState.STOPPED, [OK])
    host = of_a_unit(False, "shop.service: core-dump", apps=apps).give(ProcessGone(APP_PID)).wait(10)
    assert (host.app().state, host.app().text) == (AppState.FAILED, "shop.service: core-dump")
    host = of_a_unit(None, apps=apps).give(ProcessGone(APP_PID)).wait(10)
    assert (host.app().state, host.app().text) == (AppState.FAILED, "its process is gone, and nobody said why")


@pytest.mark.parametrize(
    ("stopped", "state"), [(True, AppState.STOPPED), (False, AppState.FAILED), (None, AppState.STOPPED)]
)
@pytest.mark.parametrize("order", ["guessed first", "gone first", "a restart of the prober between"])
def test_what_it_guesses_of_its_own_end_systemd_knows_better(stopped: bool | None, state: AppState, order: str) -> None:
    host, guess = of_a_unit(stopped, "exit-code 3"), said("X_HBAGENT_APP=web", "STOPPING=1", "X_HBAGENT_GUESS=1")
    if order == "gone first":
        host.give(ProcessGone(APP_PID)).give(guess)
    elif order == "guessed first":
        host.give(guess).give(ProcessGone(APP_PID))
    else:
        again = Host()
        again.ends = host.ends
        host = again.remember(kept(host.give(guess).wait(5)))
    assert host.wait(10).app().state is state
    assert len(host.orders(AskUnit)) == 1
    assert [health for _, health in host.changes()] == ([OK] if state is AppState.STOPPED else [OK, CRIT])


def test_what_it_guesses_of_its_own_end_holds_where_no_unit_is_and_until_its_exit_status_is_told() -> None:
    guess = said("X_HBAGENT_APP=web", "STOPPING=1", "X_HBAGENT_GUESS=1")
    for first, then in ((guess, ProcessGone(APP_PID)), (ProcessGone(APP_PID), guess)):
        host = Host().remember().give(registered()).give(first).give(then).wait(0.1)
        assert host.app().state is AppState.STOPPED
        assert host.give(result(3)).wait(5).app().state is AppState.FAILED


def test_what_it_said_itself_systemd_is_not_asked_about() -> None:
    host = of_a_unit(False, "exit-code 3").give(said("STOPPING=1")).give(ProcessGone(APP_PID)).wait(10)
    assert (host.app().state, host.orders(AskUnit)) == (AppState.STOPPED, [])


def test_systemd_may_take_its_time_to_answer_and_is_not_waited_for_for_ever() -> None:
    host = of_a_unit(True)
    host.ask_ns = seconds(3)
    assert host.give(ProcessGone(APP_PID)).wait(10).app().state is AppState.STOPPED
    host = of_a_unit(True)
    host.ask_ns = seconds(8)
    host.give(ProcessGone(APP_PID)).wait(5)
    assert host.app().state is AppState.FAILED
    assert host.wait(20).app().state is AppState.FAILED


def test_what_was_said_of_its_end_or_of_a_new_process_is_not_contradicted_by_systemd() -> None:
    host = (
        of_a_unit(False, "exit-code").give(ProcessGone(APP_PID)).give(said("X_HBAGENT_APP=web", "X_HBAGENT_RESULT=0"))
    )
    assert host.wait(10).app().state is AppState.STOPPED
    host = of_a_unit(False, "exit-code").give(ProcessGone(APP_PID)).give(registered(pid=900, unit="shop.service"))
    assert (host.wait(10).app().state, host.app().pid) == (AppState.READY, 900)
    host = of_a_unit(True).give(ProcessGone(APP_PID)).give(registered(pid=900, unit="shop.service"))
    host.ends.clear()
    assert host.give(ProcessGone(900)).wait(10).app().state is AppState.FAILED, "that was about the one before"


def test_one_that_is_stuck_and_has_never_named_itself_was_stopped_when_systemd_says_so() -> None:
    host = Host(apps=(app(unit="shop.service"),)).remember()
    host.ends["shop.service"] = UnitAnswered(run=0, stopped=True)
    host.give(said("WATCHDOG=trigger", unit="shop.service")).wait(10)
    assert host.app().health is Health.STALLED
    assert host.give(ProcessGone(APP_PID)).wait(5).app().state is AppState.STOPPED


@pytest.mark.parametrize("unit", ["", "session-3.scope"])
def test_of_who_is_of_no_service_systemd_is_not_asked(unit: str) -> None:
    host = Host().remember().give(registered(unit=unit)).give(ProcessGone(APP_PID)).wait(5)
    assert host.app().state is AppState.FAILED and not host.orders(AskUnit)


def test_a_unit_that_was_stopped_while_no_prober_ran_is_asked_about() -> None:
    host = of_a_unit(True).wait(5)
    again = Host()
    again.ends["shop.service"] = UnitAnswered(run=0, stopped=True)
    again.remember(kept(host)).wait(10)
    assert (again.app().state, [health for _, health in again.changes()]) == (AppState.STOPPED, [OK])


# ---- asked to end ----------------------------------------------------------------------------------------


def asked(number: int, result: int | None = None) -> Notified:
    """What `hbagent run-app` says when it has handed a signal on, and when the program has ended."""
    more = () if result is None else (f"X_HBAGENT_RESULT={result}",)
    return said("X_HBAGENT_APP=web", f"X_HBAGENT_ASKED={number}", *more, pid=APP_PID - 1)


def result(code: int) -> Notified:
    return said("X_HBAGENT_APP=web", f"X_HBAGENT_RESULT={code}", pid=APP_PID - 1)


@pytest.mark.parametrize(
    ("number", "code", "state"),
    [
        (15, 143, AppState.STOPPED),
        (15, 0, AppState.STOPPED),
        (2, 130, AppState.STOPPED),
        (1, 129, AppState.STOPPED),
        (3, 131, AppState.STOPPED),
        (15, 139, AppState.FAILED),
        (15, 137, AppState.FAILED),
        (15, 1, AppState.FAILED),
        (1, 143, AppState.FAILED),
        (None, 143, AppState.FAILED),
    ],
)
@pytest.mark.parametrize("order", ["told first", "gone first", "told at the end only"])
def test_an_end_by_the_signal_that_asked_for_it_is_on_purpose_and_a_crash_is_none(
    number: int | None, code: int, state: AppState, order: str
) -> None:
    host = Host().remember().give(registered()).wait(5)
    if order == "told first" and number:
        host.give(asked(number)).wait(20)
        assert host.app().health is OK
    host.give(ProcessGone(APP_PID)).wait(0.1)
    if order == "gone first" and number:
        host.give(asked(number)).wait(0.1)
    host.give(asked(number, code) if number and order == "told at the end only" else result(code)).wait(5)
    assert host.app().state is state
    assert [health for _, health in host.changes()] == ([OK] if state is AppState.STOPPED else [OK, CRIT])


def test_who_is_asked_to_stop_need_not_move_and_who_lives_on_is_judged_again() -> None:
    host = Host().remember().give(registered())
    working(host, 5).give(asked(15)).wait(240)
    assert (host.app().state, host.orders(Examine)) == (AppState.STOPPING, [])
    assert host.wait(90).app().health is Health.STALLED
    host.give(asked(15)).give(result(143)).wait(2)
    assert (host.app().state, host.app().health) == (AppState.STOPPED, OK)


@pytest.mark.parametrize("number", [1, 3])
def test_a_signal_that_many_programs_survive_is_no_stop_until_they_end_by_it(number: int) -> None:
    host = Host().remember().give(registered())
    working(host, 5).give(asked(number)).wait(20)
    assert host.app().health is Health.STALLED


def test_who_serves_again_after_it_was_asked_to_stop_is_judged_from_then_on() -> None:
    host = Host().remember().give(registered()).give(asked(2)).wait(5).give(said("READY=1"))
    assert host.app().state is AppState.READY
    assert working(host, 5).wait(20).app().health is Health.STALLED


def test_one_that_is_stuck_is_not_well_because_it_was_asked_to_stop() -> None:
    host = Host().remember().give(registered())
    host.found["web"] = Stall.DEADLOCKED
    working(host, 5).wait(20).give(asked(15)).wait(30)
    assert host.app().health is Health.DEADLOCKED
    host.give(ProcessGone(APP_PID)).give(result(143)).wait(5)
    assert host.app().state is AppState.STOPPED


def test_that_it_was_asked_is_known_over_a_restart_of_the_prober() -> None:
    host = Host().remember().give(registered()).give(asked(15)).wait(5)
    again = reborn(host, 3).wait(5)
    assert again.app().state is AppState.STOPPING
    ended = reborn(host, 3).wait(5).give(result(143)).wait(5)
    assert ended.app().state is AppState.STOPPED
    assert again.wait(400).app().state is AppState.READY


def test_a_new_process_was_asked_nothing() -> None:
    host = Host().remember().give(registered()).give(asked(15)).give(registered(pid=900)).wait(1)
    assert host.app().state is AppState.READY
    host.give(said("X_HBAGENT_APP=web", "X_HBAGENT_RESULT=143", pid=899)).wait(2)
    assert host.app().state is AppState.FAILED


@pytest.mark.parametrize("value", ["", "0", "x", "-1", "65", "9" * 30])
def test_a_signal_that_is_none_asks_nobody(value: str) -> None:
    host = Host().remember().give(registered()).give(said("X_HBAGENT_APP=web", f"X_HBAGENT_ASKED={value}"))
    assert host.wait(1).app().state is AppState.READY and host.core.apps.refused == {"malformed": 1}


def test_a_stuck_application_that_is_killed_is_failed_and_one_that_starts_again_is_well() -> None:
    host = Host().remember().give(registered())
    working(host, 5).wait(20)
    assert host.give(ProcessGone(APP_PID)).wait(2).app().state is AppState.FAILED
    host.give(registered(pid=900)).wait(1)
    assert (host.app().health, host.app().pid, host.app().marks) == (OK, 900, ())


def test_a_guest_whose_name_is_free_again_makes_room_and_one_that_lives_does_not() -> None:
    host = Host(guests_max=8).remember()
    for number, name in enumerate("abc"):
        host.give(registered(name, 600 + 100 * number))
    assert host.core.apps.refused == {"too-many-apps": 1}, "a quarter is for one user"
    host.wait(1)
    row = host.probe("applications")
    assert row.health is Health.WARNING and "guests_max = 8" in row.text and host.vitals.health is Health.WARNING
    host.give(ProcessGone(600)).give(said("X_HBAGENT_APP=a", "X_HBAGENT_RESULT=0")).give(registered("c", 800)).wait(1)
    assert [row.name for row in host.vitals.apps] == ["b", "c"]
    assert host.wait(700).vitals.health is OK, "it is shown for a while"


# ---- jobs ------------------------------------------------------------------------------------------------


def test_a_job_that_does_not_report_in_time_is_overdue_until_it_does() -> None:
    host = Host(apps=(app("backup", ttl_ns=seconds(3600)),)).remember().wait(3599)
    assert host.app("backup").health is OK
    assert host.wait(2).app("backup").state is AppState.EXPIRED and host.app("backup").health is CRIT
    host.give(said("X_HBAGENT_APP=backup", "X_HBAGENT_RESULT=0"))
    assert host.app("backup").health is OK
    assert host.wait(3700).app("backup").health is CRIT


def test_a_job_that_fails_is_critical_at_once_and_its_time_goes_on() -> None:
    host = Host(apps=(app("backup", ttl_ns=seconds(3600)),)).remember().wait(10)
    host.give(said("X_HBAGENT_APP=backup", "X_HBAGENT_RESULT=2"))
    assert host.app("backup").text == "it ended with exit status 2"
    assert host.wait(3600).app("backup").state is AppState.EXPIRED


def job(pid: int, **fields: Any) -> Notified:
    """What `hbagent run-app --ttl 1h` says when it has started a job."""
    names = ("X_HBAGENT_APP=job", f"X_HBAGENT_MAIN={pid}", "X_HBAGENT_TTL_USEC=3600000000")
    return said(*names, main_uid=APP_UID, main_start=pid * 10, pid=pid - 1, **fields)


def ended_job(code: int, of: int = 900) -> Notified:
    return said("X_HBAGENT_APP=job", f"X_HBAGENT_RESULT={code}", pid=of - 1)


def test_a_job_that_failed_is_well_again_when_it_succeeds_and_not_when_it_starts_again() -> None:
    host = Host().remember().give(job(900)).wait(1).give(ended_job(1)).wait(100)
    for pid in (910, 920):
        host.give(job(pid)).wait(50)
        assert (host.app("job").state, host.app("job").health) == (AppState.READY, CRIT)
        assert host.app("job").text == "it ended with exit status 1, and is running again"
        host.give(ProcessGone(pid)).give(ended_job(1, pid)).wait(50)
    host.give(job(930)).wait(10).give(ProcessGone(930)).wait(5)
    assert host.app("job").state is AppState.FAILED, "nobody says how that one ended"
    host.give(job(940)).wait(10).give(said("X_HBAGENT_APP=job", "X_HBAGENT_ASKED=15", pid=939)).wait(1)
    host.give(ended_job(143, 940)).wait(10)
    assert (host.app("job").state, host.app("job").health) == (AppState.STOPPED, CRIT), "that was no success either"
    host.give(job(950)).wait(10).give(ended_job(0, 950)).wait(10)
    assert [health for _, health in host.changes("job")] == [OK, CRIT, OK]


def test_a_job_that_failed_is_well_when_it_says_so_itself_and_is_found_stuck_when_it_is() -> None:
    host = Host().remember().give(job(900)).give(ended_job(1)).wait(1).give(job(910)).wait(1)
    assert host.app("job").health is CRIT
    host.give(said("WATCHDOG=trigger", pid=910)).wait(5)
    assert host.app("job").health is Health.STALLED
    host.give(said("WATCHDOG=1", pid=910)).wait(5)
    assert host.app("job").health is CRIT, "it moves, and has not succeeded"
    assert host.give(said("READY=1", pid=910)).wait(1).app("job").health is OK


def test_a_failed_run_outlives_the_prober_and_what_is_forgotten_begins_anew() -> None:
    host = Host().remember().give(job(900)).give(ended_job(3)).wait(1).give(job(910)).wait(2)
    again = reborn(host, 3, alive=False).wait(0.5).give(job(920)).wait(5)
    assert again.app("job").health is CRIT
    assert again.give(ended_job(0, 920)).wait(1).app("job").health is OK
    failed = Host().remember().give(job(900)).give(ended_job(3)).wait(1)
    failed.give(said("X_HBAGENT_APP=job", "X_HBAGENT_FORGET=1")).give(job(910)).wait(1)
    assert failed.app("job").health is OK


def test_a_service_that_failed_is_well_when_it_runs_again() -> None:
    host = Host().remember().give(registered()).give(result(1)).wait(2).give(registered(pid=900)).wait(1)
    assert host.app().health is OK


def test_a_job_may_bring_its_own_time() -> None:
    host = Host().remember().give(said("X_HBAGENT_APP=rotate", "X_HBAGENT_TTL_USEC=5000000")).wait(4)
    assert host.app("rotate").health is OK
    assert host.wait(2).app("rotate").health is CRIT


def test_time_that_the_host_slept_counts_for_a_job() -> None:
    host = Host(apps=(app("backup", ttl_ns=seconds(3600)),)).remember().wait(100)
    assert host.give(Suspended(seconds(3600))).wait(1).app("backup").health is CRIT


def test_a_step_of_the_wall_clock_moves_no_job() -> None:
    host = Host(apps=(app("backup", ttl_ns=seconds(3600)),)).remember().wait(100)
    host.give(WallTime(host.wall_ns + seconds(7200))).wait(100)
    assert host.app("backup").health is OK


# ---- over restarts of the prober -------------------------------------------------------------------------


def kept(host: Host) -> dict[str, Any]:
    return host.orders(Remember)[-1].state  # type: ignore[no-any-return]


def reborn(
    before: Host, away_s: float, *probes: Any, alive: bool = True, found: Stall = Stall.LOCK_WAIT, **settings: Any
) -> Host:
    """The next life of a prober, after `away_s`."""
    host = Host(*probes, **settings)
    host.found["web"] = found
    host.give(WallTime(before.wall_ns + before.now + seconds(away_s)))
    return host.remember(kept(before), {APP_PID: APP_PID * 10} if alive else {})


def test_a_jobs_time_goes_on_over_a_restart() -> None:
    host = Host(apps=(app("backup", ttl_ns=seconds(3600)),)).remember().wait(600)
    again = reborn(host, 2000, apps=(app("backup", ttl_ns=seconds(3600)),)).wait(990)
    assert again.app("backup").health is OK
    assert again.wait(20).app("backup").health is CRIT


def test_a_wall_clock_set_back_meanwhile_grants_no_more_than_a_whole_term() -> None:
    host = Host(apps=(app("backup", ttl_ns=seconds(3600)),)).remember().wait(600)
    again = reborn(host, -1_000_000, apps=(app("backup", ttl_ns=seconds(3600)),)).wait(3601)
    assert again.app("backup").health is CRIT


def test_an_application_that_still_runs_is_known_again_and_watched() -> None:
    host = Host().remember().give(registered()).wait(5)
    again = reborn(host, 3)
    assert again.orders(Watch) == [Watch(APP_PID, APP_PID * 10)]
    again.give(said(marked("worker", 1, "window=5"))).wait(1)
    assert again.app().marks[0].count == 1, "by its process id, without a name"


def test_one_that_ended_while_nobody_watched_is_failed() -> None:
    host = Host().remember().give(registered()).wait(5)
    assert reborn(host, 3, alive=False).wait(2).app().state is AppState.FAILED


def test_a_restart_of_the_prober_is_no_recovery_of_who_is_stuck() -> None:
    host = Host().remember().give(registered())
    host.found["web"] = Stall.DEADLOCKED
    working(host, 5).wait(20)
    again = reborn(host, 3, found=Stall.DEADLOCKED)
    for _ in range(20):
        again.give(said(marked("worker", 9, "queued=1", "window=5"))).wait(1)
    assert [health for _, health in again.changes()] == [Health.DEADLOCKED]
    again.give(said(marked("worker", 10, "queued=1", "window=5"))).wait(1)
    assert again.app().health is OK


def test_who_was_stuck_stays_so_with_the_age_of_its_marks_until_one_moves() -> None:
    host = Host().remember().give(registered())
    working(host, 5).wait(20)
    again = reborn(host, 3).wait(120)
    assert again.app().health is Health.STALLED
    (mark,) = again.app().marks
    assert mark.count == 9 and mark.age_ns >= seconds(20 + 3 + 110)
    assert again.app().since_ns >= seconds(110 + 3)
    assert again.give(said(marked("worker", 10, "queued=1", "window=5"))).app().health is OK


def test_who_was_stuck_by_its_watchdog_is_judged_anew_after_a_while() -> None:
    host = Host().remember().give(registered()).give(said("WATCHDOG=trigger")).wait(5)
    assert host.app().health is Health.STALLED
    again = reborn(host, 3).wait(59)
    assert again.app().health is Health.STALLED
    assert again.wait(5).app().health is OK


def test_a_deadlocked_application_that_is_killed_is_never_told_to_be_well() -> None:
    host = Host().remember().give(registered())
    host.found["web"] = Stall.DEADLOCKED
    working(host, 5).wait(20)
    host.give(ProcessGone(APP_PID)).wait(5)
    assert [health for _, health in host.changes()] == [OK, Health.DEADLOCKED, CRIT]
    stuck = Host().remember().give(registered())
    stuck.found["web"] = Stall.DEADLOCKED
    working(stuck, 5).wait(20)
    again = reborn(stuck, 3, alive=False).wait(5)
    assert [health for _, health in again.changes()] == [Health.DEADLOCKED, CRIT]


def test_hard_states_of_probes_and_what_they_handed_on_survive() -> None:
    host = Host(probe())
    host.results["web"] = CheckFinished(run=0, health=CRIT, text="broken", memory={"offset": 7})
    host.remember().wait(90)
    again = reborn(host, 3, probe()).wait(0.1)
    assert (again.probe().health, again.probe().text) == (CRIT, "broken")
    assert again.wait(15).orders(RunCheck)[0].memory == {"offset": 7}


def test_memory_is_written_when_something_changed_and_otherwise_seldom() -> None:
    host = Host(probe(interval_ns=SECOND)).remember().wait(600)
    assert len(host.orders(Remember)) <= 13
    before = len(host.orders(Remember))
    host.give(registered()).wait(1.1)
    assert len(host.orders(Remember)) == before + 1


def test_without_a_state_directory_nothing_is_written() -> None:
    assert Host(probe(), state_dir="").remember().give(registered()).wait(200).orders(Remember) == []


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(max_size=3)
                | st.sampled_from(
                    [
                        "apps",
                        "probes",
                        "restarts",
                        "web",
                        "pid",
                        "start",
                        "state",
                        "health",
                        "due_wall_ns",
                        "ttl_ns",
                        "told",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_a_memory_that_makes_no_sense_is_passed_over(state: Any) -> None:
    for found in (
        {"apps": state, "probes": state, "restarts": state},
        {"apps": {"web": state}, "probes": {"web": state}},
    ):
        Host(probe(), apps=(app(ttl_ns=SECOND),)).remember(found).wait(15)


# ---- restarting units ------------------------------------------------------------------------------------


def stuck_again(host: Host, pid: int) -> None:
    """The unit has come back with another process, works a little and gets stuck again."""
    host.give(registered(pid=pid, unit="web.service"))
    for count in range(4):
        host.give(said(marked("worker", count, "queued=3", "window=5"), pid=pid, unit="web.service")).wait(0.5)
    host.wait(60)


def test_a_unit_is_restarted_after_evidence_was_taken_and_three_times_only() -> None:
    host = Host(apps=(app(unit="web.service", restart=True),)).remember()
    for pid in range(600, 660, 10):
        stuck_again(host, pid)
    assert [order.unit for order in host.orders(RestartUnit)] == ["web.service"] * 3
    order = [type(effect) if not hasattr(effect, "what") else effect.what for _, effect in host.effects]
    assert order.index("examined") < order.index(RestartUnit)
    assert len(host.notes("restart-given-up")) == 1
    assert "given up after 3 restarts" in host.app().text


def test_after_quiet_windows_a_unit_may_be_restarted_again() -> None:
    host = Host(apps=(app(unit="web.service", restart=True),)).remember()
    for pid in range(600, 640, 10):
        stuck_again(host, pid)
    host.give(registered(pid=700, unit="web.service")).wait(900)
    stuck_again(host, 710)
    assert len(host.orders(RestartUnit)) == 4


def test_restarts_of_an_earlier_life_count() -> None:
    host = Host(apps=(app(unit="web.service", restart=True),)).remember()
    for pid in range(600, 630, 10):
        stuck_again(host, pid)
    again = reborn(host, 1, apps=(app(unit="web.service", restart=True),), alive=False)
    stuck_again(again, 700)
    assert again.orders(RestartUnit) == [] and again.notes("restart-given-up")


def test_nothing_is_restarted_unless_asked_for_nor_without_evidence_nor_for_another_health() -> None:
    for settings_, found in (
        ({"restart": False}, Stall.DEADLOCKED),
        ({"restart": True}, Examined(run=0, stall=Stall.DEADLOCKED)),
        ({"restart": True, "restart_on": (Health.DEADLOCKED,)}, Stall.LOCK_WAIT),
    ):
        host = Host(apps=(app(unit="web.service", **settings_),)).remember()
        host.found["web"] = found
        stuck_again(host, 600)
        assert host.orders(RestartUnit) == []


def test_a_restart_that_fails_is_told() -> None:
    host = Host(apps=(app(unit="web.service", restart=True),)).remember()
    host.restart_error = "access denied"
    stuck_again(host, 600)
    assert host.notes("restart-failed")[0].fields["error"] == "access denied"


def test_each_episode_needs_evidence_of_its_own() -> None:
    host = Host(apps=(app(unit="web.service", restart=True),)).remember()
    stuck_again(host, 600)
    assert len(host.orders(RestartUnit)) == 1
    host.examine_ns = seconds(60)
    stuck_again(host, 610)
    assert host.app().health is Health.STALLED and len(host.orders(RestartUnit)) == 1, "the examination is not back"
    assert len(host.wait(20).orders(RestartUnit)) == 2


def test_where_evidence_cannot_be_kept_nothing_is_restarted_and_that_is_said_once() -> None:
    host = Host(apps=(app(unit="web.service", restart=True),)).remember()
    host.found["web"] = Examined(run=0, stall=Stall.DEADLOCKED, error="No space left on device")
    stuck_again(host, 600)
    host.wait(600)
    assert host.orders(RestartUnit) == [] and len(host.notes("restart-withheld")) == 1
    assert "not restarted: its evidence could not be kept" in host.app().text
    host.found["web"] = Stall.DEADLOCKED
    host.wait(400)
    assert len(host.orders(RestartUnit)) == 1, "it can be now"


# ---- whatever comes --------------------------------------------------------------------------------------

_LINES = st.sampled_from(
    [
        "READY=1",
        "WATCHDOG=1",
        "WATCHDOG=trigger",
        "WATCHDOG_USEC=1000000",
        "WATCHDOG_USEC=x",
        "STOPPING=1",
        "RELOADING=1",
        "STATUS=fine",
        "EXTEND_TIMEOUT_USEC=3000000",
        "X_HBAGENT_PROGRESS=m 1 queued=1 window=1",
        "X_HBAGENT_PROGRESS=m 2 queued=0 window=1",
        "X_HBAGENT_PROGRESS=m",
        "X_HBAGENT_TTL_USEC=2000000",
        "X_HBAGENT_RESULT=0",
        "X_HBAGENT_RESULT=9",
        "X_HBAGENT_ASKED=1",
        "X_HBAGENT_ASKED=15",
        "X_HBAGENT_RESULT=143",
        "X_HBAGENT_APP=web",
        "X_HBAGENT_APP=other",
        "MAINPID=500",
        "X_HBAGENT_MAIN=600",
    ]
)
_STEPS = st.one_of(
    st.floats(0, 8),
    st.builds(
        lambda lines, uid: said(*lines, uid=uid, main_uid=APP_UID),
        st.lists(_LINES, max_size=4),
        st.sampled_from([0, APP_UID, 7]),
    ),
    st.just(registered()),
    st.just(ProcessGone(APP_PID)),
    st.just(Suspended(seconds(5))),
    st.just("stop"),
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(_STEPS, max_size=25), st.sampled_from(Stall))
def test_whatever_comes_it_never_turns_in_place_and_every_examination_is_of_somebody_stuck(
    steps: list[Any], stall: Stall
) -> None:
    host = Host(probe("p", app="web"), apps=(app(watchdog_ns=seconds(4)), app("job", ttl_ns=seconds(9))))
    host.found["web"] = stall
    host.remember()
    for step in steps:
        if step == "stop":
            host.stop(3)
        elif isinstance(step, float):
            host.wait(step)
        else:
            host.give(step)
    host.wait(30)
    assert all(order.why for order in host.orders(Examine))
    assert all(isinstance(order.message.count, int) for order in host.orders(Tell) if hasattr(order.message, "count"))
    assert host.marks == list(range(1, len(host.marks) + 1))


def test_a_memory_file_that_is_not_needed_any_more_is_dropped() -> None:
    host = Host().remember().give(registered()).give(said("X_HBAGENT_STACKS=1", stacks=1))
    host.give(said("X_HBAGENT_STACKS=1", stacks=2)).give(said("READY=1", pid=9, stacks=3))
    assert host.orders(Drop) == [Drop(1), Drop(3)]
    assert host.give(ProcessGone(APP_PID)).orders(Drop)[-1] == Drop(2)
