"""Evidence of one application is taken at a pace, outlives what others leave, and is missed when it is gone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hbagent.core.app import EXAMINATION_NS
from hbagent.core.apps import SPARED_MAX
from hbagent.core.effects import Examine, LookForBundles
from hbagent.core.messages import BundlesGone, Examined
from hbagent.core.pace import AGAIN_MAX_NS, EXAMINED_MAX, WINDOW_NS, number_of
from hbagent.core.prober import LOOK_FOR_NS
from hbagent.core.states import AppState, Health, Stall
from hbagent.core.units import HOUR, MINUTE, SECOND
from tests.probing import APP_PID, Host, app, registered, said

CYCLE = "000004-web-0123456789abcdef"


def stuck(host: Host, name: str = "web", pid: int = APP_PID) -> Host:
    return host.give(said(f"X_HBAGENT_APP={name}", "WATCHDOG=trigger", pid=pid))


def moving(host: Host, name: str = "web", pid: int = APP_PID) -> Host:
    return host.give(said(f"X_HBAGENT_APP={name}", "WATCHDOG=1", pid=pid))


def bundle(number: int, name: str = "web") -> Examined:
    return Examined(run=0, stall=Stall.DEADLOCKED, bundle=f"{number:06d}-{name}-0123456789abcdef")


def examined_at(host: Host) -> list[int]:
    return [at for at, effect in host.effects if isinstance(effect, Examine)]


def test_one_that_stays_stuck_is_examined_ever_more_rarely() -> None:
    host = stuck(Host(apps=(app(),)).remember().give(registered())).wait(24 * 3600)
    made = examined_at(host)
    pauses = [(later - sooner) / MINUTE for sooner, later in pairwise(made)]
    assert pauses[:6] == [pytest.approx(minutes, abs=0.1) for minutes in (0.5, 5, 10, 20, 40, 60)]
    assert max(pauses) <= AGAIN_MAX_NS / MINUTE + 0.1 and len(made) < 30


def test_one_that_is_found_in_something_else_is_examined_sooner_again() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    stuck(host).wait(3 * 3600)
    host.found["web"] = Stall.BUSY_LOOP
    host.wait(3600)
    at = host.now
    host.wait(600)
    assert [when for when in examined_at(host) if when > at - HOUR][1] - examined_at(host)[-3] <= 11 * MINUTE


def test_one_that_gets_stuck_over_and_over_is_examined_a_few_times_and_then_told_of_without() -> None:
    host = Host().remember().give(registered("guest"))
    for _ in range(250):
        stuck(host, "guest").wait(1.5)
        moving(host, "guest").wait(1.5)
    made = examined_at(host)
    assert all(later - sooner >= WINDOW_NS for sooner, later in zip(made, made[EXAMINED_MAX:], strict=False))
    assert EXAMINED_MAX <= len(made) <= 3 * EXAMINED_MAX
    notes = host.notes("examination-put-off")
    assert 1 <= len(notes) <= len(made), "each put-off is said once, not each time"
    assert host.vitals.examinations == len(made) and host.vitals.examinations_put_off == len(notes)
    stuck(host, "guest").wait(EXAMINATION_NS / SECOND + 1)
    row = host.app("guest")
    assert (row.health, row.stall) == (Health.STALLED, None)
    assert f"it was examined {EXAMINED_MAX} times within 10m" in row.text


def test_who_is_stuck_for_good_is_examined_once_that_is_allowed_again() -> None:
    host = Host().remember().give(registered("guest"))
    for _ in range(EXAMINED_MAX + 3):
        stuck(host, "guest").wait(1.5)
        moving(host, "guest").wait(1.5)
    host.found["guest"] = Stall.DEADLOCKED
    stuck(host, "guest").wait(5)
    assert host.app("guest").health is Health.STALLED
    assert host.wait(WINDOW_NS / SECOND).app("guest").health is Health.DEADLOCKED


def test_other_applications_are_examined_at_once_all_the_same() -> None:
    host = Host(apps=(app(),)).remember().give(registered("guest", 900)).give(registered())
    for _ in range(EXAMINED_MAX + 3):
        stuck(host, "guest", 900).wait(1.5)
        moving(host, "guest", 900).wait(1.5)
    before = len(host.orders(Examine))
    stuck(host)
    assert [order.app for order in host.orders(Examine)][before:] == ["web"]


def test_an_examination_spares_the_newest_bundle_and_the_first_of_a_trouble_of_everybody() -> None:
    host = Host(apps=(app(),)).remember().give(registered()).give(registered("guest", 900))
    host.found["web"] = bundle(1)
    stuck(host).wait(10)
    host.found["web"] = bundle(7)
    host.wait(60)
    assert host.app().bundle.startswith("000007-") and host.app().details[-1].startswith(
        "evidence of its beginning: 000001-"
    )
    host.found["guest"] = bundle(8, "guest")
    stuck(host, "guest", 900).wait(10)
    assert host.orders(Examine)[-1].spared == (7, 1)
    moving(host).wait(10)
    stuck(moving(host, "guest", 900).wait(1), "guest", 900)
    assert host.orders(Examine)[-1].spared == (7, 8), "that trouble is over, and the newest is still named"


def test_the_first_bundle_of_a_trouble_is_known_after_a_restart_of_the_prober() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = bundle(1)
    stuck(host).wait(10)
    host.found["web"] = bundle(7)
    host.wait(60)
    kept = host.core.apps.keep(host.core._wall, host.now)
    later = Host(apps=(app(),)).remember({"apps": kept}, {APP_PID: APP_PID * 10}).wait(1)
    later.found["web"] = bundle(9)
    stuck(later).wait(5)
    assert later.orders(Examine)[-1].spared == (7, 1)
    assert later.app().details[-1] == "evidence of its beginning: 000001-web-0123456789abcdef"


def test_no_order_holds_more_numbers_than_fit() -> None:
    apps = tuple(app(f"a{number}") for number in range(SPARED_MAX))
    host = Host(apps=apps).remember()
    for number, one in enumerate(host.core.apps.by_name.values()):
        one.pace.newest = f"{2 * number + 1:06d}-x-0123456789abcdef"
    last = host.core.apps.by_name[f"a{SPARED_MAX - 1}"]
    last.state, last.pace.first = AppState.STUCK, CYCLE
    spared = host.core.apps.spared()
    assert len(spared) == SPARED_MAX and spared[:2] == (2 * SPARED_MAX - 1, 4), "those in trouble first"


def test_evidence_that_is_gone_is_missed() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = bundle(4)
    stuck(host).wait(10)
    assert host.app().bundle == CYCLE
    host.gone = {4}
    host.found["web"] = Examined(run=0, stall=Stall.DEADLOCKED, error="No space left on device")
    host.wait(LOOK_FOR_NS / SECOND + 1)
    assert host.orders(LookForBundles)[0].numbers == (4,)
    assert host.app().bundle == ""
    assert host.app().details[-1] == f"its evidence {CYCLE} is gone from its host: it was deleted there, or damaged"
    host.found["web"] = bundle(5)
    assert host.wait(3600).app().bundle.startswith("000005-")
    assert not any("is gone" in line for line in host.app().details)


def test_nobody_looks_for_bundles_where_none_is_named() -> None:
    host = Host(apps=(app(),)).remember().give(registered()).wait(600)
    assert host.orders(LookForBundles) == []


def test_what_was_looked_for_and_replaced_meanwhile_is_not_missed() -> None:
    host = Host(apps=(app(),)).remember().give(registered())
    host.found["web"] = bundle(4)
    stuck(host).wait(10)
    host.found["web"] = bundle(5)
    host.wait(40).give(BundlesGone((4,)))
    assert host.wait(11).app().bundle.startswith("000005-")


@pytest.mark.parametrize(
    ("name", "number"), [(CYCLE, 4), ("", 0), ("b7", 0), ("-1", 0), ("1" * 13 + "-x", 0), ("²-x", 0)]
)
def test_the_number_of_a_bundle_is_read_off_its_name(name: str, number: int) -> None:
    assert number_of(name) == number
