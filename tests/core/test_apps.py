"""Whose datagram is it, and may they?"""

from __future__ import annotations

from typing import Any

import pytest

from hbagent.core.apps import FORBIDDEN, FULL, MALFORMED, STRANGER, Apps
from hbagent.core.config import ProberConfig
from hbagent.core.effects import Note, Watch
from hbagent.core.messages import Notified
from tests.probing import APP_PID, APP_UID, app, probe, registered, said


def apps(*known: Any, **settings: Any) -> Apps:
    return Apps(ProberConfig(apps=known, **settings), 0)


def names(found: Apps) -> list[str]:
    return [one.config.name for one in found.sorted()]


def test_who_registered_is_known_by_its_process_and_so_are_its_children() -> None:
    found = apps()
    assert found.notified(registered(), 0) == [Watch(APP_PID, APP_PID * 10)]
    found.notified(said("STATUS=direct"), 0)
    assert found.by_name["web"].status == "direct"
    found.notified(said("STATUS=by a grandchild", pid=777, ancestors=(776, APP_PID, 1)), 0)
    assert found.by_name["web"].status == "by a grandchild"
    assert names(found) == ["web"]


def test_a_process_that_has_got_the_id_of_an_ended_one_is_not_taken_for_it() -> None:
    found = apps()
    found.notified(registered(), 0)
    found.notified(said("STATUS=other", start=99), 0)
    assert found.by_name["web"].status == "" and found.refused == {STRANGER: 1}


def test_a_unit_speaks_for_the_application_that_has_it_configured_or_becomes_a_guest() -> None:
    found = apps(app("shop", unit="nginx.service"))
    assert found.notified(said("READY=1", unit="nginx.service"), 0) == [Watch(APP_PID, APP_PID * 10)]
    found.notified(said("READY=1", pid=900, unit="redis.service"), 0)
    assert names(found) == ["redis", "shop"]
    assert found.by_name["shop"].pid == APP_PID and not found.by_name["shop"].pid_told


def test_a_stranger_without_unit_and_name_is_refused() -> None:
    found = apps()
    (note,) = found.notified(said("READY=1"), 0)
    assert isinstance(note, Note) and note.fields["reason"] == STRANGER
    assert found.refused == {STRANGER: 1} and names(found) == []


@pytest.mark.parametrize(
    ("users", "uid", "believed"),
    [((), APP_UID, True), ((), 0, True), ((), 7, False), ((7, 8), 8, True), ((7, 8), APP_UID, False), ((7,), 0, True)],
)
def test_a_name_is_believed_of_root_of_the_configured_users_and_of_who_spoke_first(
    users: tuple[int, ...], uid: int, believed: bool
) -> None:
    found = apps(app(users=users))
    first = users[0] if users else APP_UID
    found.notified(said("X_HBAGENT_APP=web", "STATUS=first", uid=first), 0)
    found.notified(said("X_HBAGENT_APP=web", "STATUS=second", uid=uid), 0)
    assert found.by_name["web"].status == ("second" if believed else "first")
    assert found.refused == ({} if believed else {FORBIDDEN: 1})


BILLING: dict[str, Any] = {"unit": "billing.service", "restart": True}


@pytest.mark.parametrize("how", ["by its name", "by its name and a main process", "by its process", "as a guest was"])
def test_one_of_a_unit_is_spoken_for_by_that_unit_and_never_by_just_any_user(how: str) -> None:
    found = apps(app("billing", **BILLING))
    lines: tuple[str, ...] = ("X_HBAGENT_APP=billing", "WATCHDOG=trigger")
    if how == "by its name and a main process":
        lines = (*lines, f"X_HBAGENT_MAIN={APP_PID}")
    if how == "by its process":
        # Its process, by the word of root, and a child of it that has left the unit.
        found.notified(said("X_HBAGENT_APP=billing", "X_HBAGENT_MAIN=900", uid=0, main_uid=APP_UID), 0)
        lines = ("WATCHDOG=trigger",)
    others: dict[str, Any] = {"unit": "cron.service"} if how == "as a guest was" else {}
    found.notified(said(*lines, uid=65534, main_uid=65534, ancestors=(900, 1), **others), 0)
    assert found.refused == {FORBIDDEN: 1}
    billing = found.by_name["billing"]
    billing.look(5)
    assert billing.trouble(5) == "" and billing.pid == (900 if how == "by its process" else 0) and billing.uid is None
    # And its own processes are heard all the same, as whichever user they run.
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=mine", unit="billing.service"), 0)
    assert billing.status == "mine"
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=a worker's", uid=33, unit="billing.service"), 0)
    assert billing.status == "a worker's"
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=root's", uid=0), 0)
    assert billing.status == "root's" and found.refused == {FORBIDDEN: 1}


def test_of_one_whose_unit_cannot_be_seen_any_more_the_user_of_that_unit_is_believed() -> None:
    found = apps(app("billing", **BILLING))
    gone: dict[str, Any] = {"start": 0, "pid": 901}
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=gone", **gone), 0)
    assert found.refused == {FORBIDDEN: 1}, "nobody of the unit has spoken yet"
    found.notified(said("X_HBAGENT_APP=billing", "READY=1", unit="billing.service"), 0)
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=gone", **gone), 0)
    assert found.by_name["billing"].status == "gone"
    main = said("X_HBAGENT_APP=billing", "MAINPID=902", unit="billing.service", main_uid=APP_UID, main_start=9020)
    found.notified(main, 0)
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=ends", pid=902), 0)
    found.gone(902, 1)
    found.notified(said("X_HBAGENT_APP=billing", "STOPPING=1", pid=902), 1)
    assert (found.by_name["billing"].status, found.by_name["billing"].state.value) == ("ends", "stopped")
    found.by_name["billing"].status = "gone"
    found.notified(said("X_HBAGENT_APP=billing", "STATUS=a stranger's", uid=7, **gone), 0)
    assert found.by_name["billing"].status == "gone" and found.refused == {FORBIDDEN: 2}


def test_a_unit_may_be_written_without_its_suffix_and_users_that_are_listed_need_not_be_in_it() -> None:
    found = apps(app("billing", unit="billing"), app("web", unit="web.service", users=(33,)))
    found.notified(said("STATUS=by its unit", unit="billing.service"), 0)
    assert found.by_name["billing"].status == "by its unit" and names(found) == ["billing", "web"]
    found.notified(said("X_HBAGENT_APP=web", "STATUS=a user's", uid=33), 0)
    assert found.by_name["web"].status == "a user's"
    found.notified(said("X_HBAGENT_APP=web", "STATUS=of the unit", pid=700, uid=7, unit="web.service"), 0)
    assert found.by_name["web"].status == "a user's" and found.refused == {FORBIDDEN: 1}


def test_a_child_of_another_user_does_not_speak_for_the_application_by_its_ancestry() -> None:
    found = apps(app(users=(APP_UID,)))
    found.notified(registered(), 0)
    found.notified(said("STATUS=x", pid=777, uid=7, ancestors=(APP_PID,)), 0)
    assert found.refused == {FORBIDDEN: 1}


def test_a_name_wins_over_the_process_that_it_comes_from() -> None:
    found = apps()
    found.notified(registered(), 0)
    found.notified(said("X_HBAGENT_APP=backup", "STATUS=done", pid=777, ancestors=(APP_PID,)), 0)
    assert found.by_name["backup"].status == "done" and found.by_name["web"].status == ""
    assert found.by_name["backup"].pid == 0, "a script that reports for a job is not its process"


@pytest.mark.parametrize("name", ["../etc", "a b", "", "x" * 65, "ä"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    found = apps()
    found.notified(said(f"X_HBAGENT_APP={name}"), 0)
    assert found.refused in ({MALFORMED: 1}, {STRANGER: 1}) and names(found) == []


def living(name: str, pid: int, **fields: Any) -> Notified:
    return registered(name, pid, main_uid=fields.get("uid", APP_UID), **fields)


def test_guests_are_bounded_and_configured_ones_are_no_guests() -> None:
    found = apps(app("own"), guests_max=8)
    for number in range(4):
        found.notified(living(f"guest{number}", 600 + number), 0)
    found.notified(said("X_HBAGENT_APP=own", "READY=1"), 0)
    assert names(found) == ["guest0", "guest1", "own"] and found.refused == {FULL: 2}, "a quarter is for one user"
    for number in range(20):
        found.notified(living(f"root{number}", 800 + number, uid=0), 0)
    assert sum(app.guest for app in found.by_name.values()) == 8


def test_names_that_somebody_only_invents_keep_nobody_out() -> None:
    found = apps(guests_max=8)
    for number in range(100):
        found.notified(said(f"X_HBAGENT_APP=invented{number}", "READY=1"), number)
    assert found.refused == {} and len(names(found)) == 2
    found.notified(living("bank", 700), 200)
    assert "bank" in names(found)
    other = APP_UID + 1
    assert found.notified(living("shop", 900, uid=other), 300) == [Watch(900, 9000)]
    assert "shop" in names(found) and "bank" in names(found)


def test_who_lives_is_in_trouble_or_owes_something_is_not_forgotten_for_a_newcomer() -> None:
    found = apps(guests_max=8)
    found.notified(said("X_HBAGENT_APP=job", "X_HBAGENT_TTL_USEC=1000000"), 0)
    found.notified(said("X_HBAGENT_APP=failed", "X_HBAGENT_RESULT=3"), 0)
    found.by_name["failed"].look(0)
    found.notified(said("X_HBAGENT_APP=newcomer", "READY=1"), 1)
    assert names(found) == ["failed", "job"] and found.refused == {FULL: 1}


@pytest.mark.parametrize(
    ("uid", "main_uid", "believed"), [(APP_UID, APP_UID, True), (0, 7, True), (APP_UID, 7, False), (APP_UID, -1, False)]
)
def test_a_main_process_is_believed_when_it_is_of_the_senders_user(uid: int, main_uid: int, believed: bool) -> None:
    found = apps()
    order = found.notified(said("X_HBAGENT_APP=web", "MAINPID=900", uid=uid, main_uid=main_uid, main_start=5), 0)
    assert [effect for effect in order if isinstance(effect, Watch)] == ([Watch(900, 5)] if believed else [])
    assert found.by_name["web"].pid == (900 if believed else 0)


@pytest.mark.parametrize("pid", ["", "x", "-1", "0", "9" * 11, "½", "1 2"])
def test_a_main_process_that_is_no_number_is_refused(pid: str) -> None:
    found = apps()
    found.notified(said("X_HBAGENT_APP=web", f"MAINPID={pid}", main_uid=APP_UID), 0)
    assert found.by_name["web"].pid == 0


def test_lines_that_make_no_sense_are_counted_and_cost_the_others_nothing() -> None:
    found = apps()
    lines = ("X_HBAGENT_PROGRESS=m", "X_HBAGENT_PROGRESS=m x", "WATCHDOG_USEC=soon", "X_HBAGENT_RESULT=", "STATUS=fine")
    found.notified(said("X_HBAGENT_APP=web", *lines), 0)
    assert found.refused == {MALFORMED: 4} and found.by_name["web"].status == "fine"


def test_an_application_that_only_a_probe_names_exists() -> None:
    found = Apps(ProberConfig(probes=(probe("http", app="shop"),)), 0)
    assert names(found) == ["shop"]


def test_a_reload_keeps_guests_and_who_stays_configured_as_it_was() -> None:
    found = apps(app("a"), app("b"))
    for name in ("a", "b", "guest"):
        found.notified(said(f"X_HBAGENT_APP={name}", "STATUS=known"), 0)
    found.reconfigure(ProberConfig(apps=(app("a"), app("b", window_ns=7), app("c"))), 0)
    statuses: dict[str, str] = {one.config.name: one.status for one in found.sorted()}
    assert statuses == {"a": "known", "b": "", "c": "", "guest": "known"}


def test_a_datagram_of_nobody_that_brought_a_memory_file_gives_it_back() -> None:
    effects = apps().notified(Notified(pid=1, uid=1, gid=1, stacks=9), 0)
    assert [getattr(effect, "stacks", 0) for effect in effects] == [0, 9]


def test_what_is_over_and_done_with_is_forgotten() -> None:
    found = apps(app("own"))
    for name in ("own", "guest"):
        found.notified(said(f"X_HBAGENT_APP={name}", "X_HBAGENT_RESULT=3", stacks=5), 0)
        assert [getattr(effect, "stacks", 0) for effect in found.notified(forget(name), 0)] == [5]
    assert names(found) == ["own"] and not found.by_name["own"].stacks
    found.by_name["own"].look(0)
    assert found.by_name["own"].health.value == "OK"
    found.notified(said("X_HBAGENT_APP=own", "STATUS=mine"), 0)
    found.notified(forget("own", uid=7), 0)
    assert found.by_name["own"].status == "mine", "and not by anybody"


def forget(name: str, **fields: Any) -> Notified:
    return said(f"X_HBAGENT_APP={name}", "X_HBAGENT_FORGET=1", **fields)


def test_a_worker_that_is_killed_takes_its_marks_with_it() -> None:
    found = apps()
    found.notified(registered(), 0)
    found.notified(said("X_HBAGENT_PROGRESS=main 1"), 0)
    worker: dict[str, Any] = {"pid": 777, "ancestors": (APP_PID,)}
    assert found.notified(said("X_HBAGENT_PROGRESS=worker@777 1 queued=3", **worker), 0) == [Watch(777, 7770)]
    assert found.notified(said("X_HBAGENT_PROGRESS=worker@777 2 queued=3", **worker), 0) == [], "it is watched already"
    assert found.gone(777, 0) == []
    assert [row.name for row in found.by_name["web"].row(0).marks] == ["main"]
    assert found.by_name["web"].pid == APP_PID


def test_whoever_starts_a_job_sets_its_term_and_does_not_keep_it() -> None:
    found = apps()
    started = ("X_HBAGENT_APP=job", "X_HBAGENT_MAIN=900", "X_HBAGENT_TTL_USEC=10000000")
    found.notified(said(*started, main_uid=APP_UID, main_start=1), 0)
    due = found.by_name["job"].due_at
    found.notified(said(*started, main_uid=APP_UID, main_start=2), 5)
    assert found.by_name["job"].due_at == due, "a start is no success"
    found.notified(said("X_HBAGENT_APP=job", "X_HBAGENT_TTL_USEC=10000000"), 7)
    assert found.by_name["job"].due_at == (due or 0) + 7


def test_a_watchdog_that_comes_with_the_start_is_waited_for() -> None:
    found = apps()
    lines = ("X_HBAGENT_APP=web", "X_HBAGENT_MAIN=900", "WATCHDOG_USEC=1000000")
    found.notified(said(*lines, main_uid=APP_UID, main_start=1), 0)
    assert found.by_name["web"].state.value == "starting"
