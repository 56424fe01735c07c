"""The loop: it wakes its core in time, drains before it judges, and nothing that goes wrong once stops it."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import pytest

from hbagent.core.effects import Effect, Exit, Note, TakeFacts
from hbagent.core.messages import FactsTaken, HostFacts, Linked, Query, Refused, Suspended, Terminate, WallTime
from hbagent.core.units import HOUR, MILLISECOND, SECOND
from hbagent.role import driver as driver_module
from hbagent.role.defects import COUNTED_A_SENDER, DEFECTS_MAX, Hopeless
from hbagent.role.driver import DRAIN_ROUNDS_MAX, SUSPENDED_MIN_NS, Driver
from hbagent.role.sdnotify import Notifier
from tests.descriptors import descriptors
from tests.role.parts import BOUND_S, Lines, PipePort, SmallCore, Systemd, Turning, until


@pytest.fixture
def port(core: SmallCore) -> Iterator[PipePort]:
    """Each byte written to it becomes a message to the core."""
    made = PipePort(lambda data: core.story.append(("port", data)))
    yield made
    made.close()


def turn_until(driver: Driver, condition: Callable[[], object], bound_s: float = BOUND_S) -> bool:
    end = time.monotonic() + bound_s
    while not condition():
        if time.monotonic() > end:
            return False
        driver.turn()
    return True


@pytest.fixture
def resting(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver that does not look up by itself for longer than a test may take."""
    monkeypatch.setattr(driver_module, "IDLE_NS", 300 * SECOND)
    monkeypatch.setattr(driver_module, "WALL_SLACK_NS", 300 * SECOND)
    return driver


def words(core: SmallCore) -> list[object]:
    """What happened, without the wall clock."""
    return [message for _, message in core.story if not isinstance(message, WallTime)]


# ---- suspended -------------------------------------------------------------------------------------------


def test_a_suspended_host_is_told_once_and_before_the_core_is_woken(
    driver: Driver, core: SmallCore, port: PipePort, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.add(port)
    turn_until(driver, lambda: core.messages(WallTime))
    driver.turn()
    assert core.messages(Suspended) == [], "no turn of a running host"
    slept = driver._asleep_ns + 3 * SECOND
    monkeypatch.setattr(driver_module, "_asleep_ns", lambda: slept)
    core.story.clear()
    core.due = time.monotonic_ns()
    port.write(b"a")
    assert turn_until(driver, lambda: core.due is None)
    (told,) = core.messages(Suspended)
    assert told == Suspended(3 * SECOND)
    assert words(core) == [told, b"a", "wake"], "and before what was late because of it"
    assert lines.of("suspended") == [{"seconds": 3.0}]
    driver.turn()
    assert len(core.messages(Suspended)) == 1


def test_what_is_too_short_to_tell_adds_up(driver: Driver, core: SmallCore, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = driver._asleep_ns
    for _ in range(3):
        slept += SUSPENDED_MIN_NS // 2
        monkeypatch.setattr(driver_module, "_asleep_ns", functools.partial(int, slept))
        driver.turn()
    assert len(core.messages(Suspended)) == 1


def test_a_pause_between_the_two_clocks_is_no_suspension(
    driver: Driver, core: SmallCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake = driver._asleep_ns
    for slept in (awake, awake - 5 * SECOND, awake):
        monkeypatch.setattr(driver_module, "_asleep_ns", functools.partial(int, slept))
        driver.turn()
    assert core.messages(Suspended) == []


# ---- in time ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_the_core_is_woken_at_its_deadline_and_not_before(resting: Driver, core: SmallCore) -> None:
    for _ in range(5):
        due = core.due = time.monotonic_ns() + 30 * MILLISECOND
        assert turn_until(resting, lambda: core.due is None)
        assert core.woken_at[-1] >= due
    assert len(core.woken_at) == 5


def test_a_waiting_loop_burns_no_time(driver: Driver, core: SmallCore) -> None:
    turn_until(driver, lambda: core.messages(WallTime))
    turns = 0
    for _ in range(20):
        core.due = time.monotonic_ns() + 10 * MILLISECOND + 500_000
        while core.due is not None:
            driver.turn()
            turns += 1
    assert turns <= 2 * 20, "not even in the last millisecond"


def test_news_of_another_thread_wake_a_loop_that_waits_for_nothing(resting: Driver, core: SmallCore) -> None:
    with Turning(resting):
        assert until(lambda: core.messages(WallTime))
        resting.post(FactsTaken(HostFacts()))
        assert until(lambda: core.messages(FactsTaken))


def test_the_wall_clock_is_told_before_anything_else(driver: Driver, core: SmallCore) -> None:
    driver.post(FactsTaken(HostFacts()))
    with Turning(driver):
        assert until(lambda: core.messages(FactsTaken))
    first = core.story[0][1]
    assert isinstance(first, WallTime)
    assert abs(first.wall_ns - time.time_ns()) < HOUR, "whatever is done to the clock of this host meanwhile"


def test_the_wall_clock_is_told_once_in_each_of_its_periods(
    driver: Driver, core: SmallCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "WALL_EVERY_NS", 120 * MILLISECOND)
    begun = core.due = time.monotonic_ns()
    driver.turn()
    assert len(core.messages(WallTime)) == 1
    assert turn_until(driver, lambda: len(core.messages(WallTime)) == 2)
    assert time.monotonic_ns() - begun >= 120 * MILLISECOND, "and not in each turn"


def test_timers_are_made_in_the_order_of_their_times(driver: Driver) -> None:
    now = time.monotonic_ns()
    made: list[str] = []
    for name, after in (("c", 30), ("a", 10), ("b", 20), ("b2", 20)):
        driver.call_later(now + after * MILLISECOND, lambda name=name: made.append(name))  # type: ignore[misc]
    driver.call_later(now + SECOND * 100, lambda: made.append("never"))
    assert turn_until(driver, lambda: len(made) == 4)
    assert made == ["a", "b", "b2", "c"]
    assert time.monotonic_ns() - now >= 30 * MILLISECOND


# ---- before judging --------------------------------------------------------------------------------------


def test_all_that_has_arrived_is_taken_in_before_the_core_judges(
    driver: Driver, core: SmallCore, port: PipePort
) -> None:
    driver.add(port)
    port.write(b"0123456789")
    core.due = time.monotonic_ns()
    driver.turn()
    assert words(core) == [*(bytes([byte]) for byte in b"0123456789"), "wake"]


def test_what_never_ends_does_not_put_a_verdict_off(driver: Driver, core: SmallCore, port: PipePort) -> None:
    driver.add(port)
    port.write(b"x" * 10 * DRAIN_ROUNDS_MAX)
    core.due = time.monotonic_ns()
    driver.turn()
    assert 1 < words(core).index("wake") <= 1 + DRAIN_ROUNDS_MAX


def test_a_port_that_was_removed_is_polled_no_more(driver: Driver, core: SmallCore, port: PipePort) -> None:
    driver.add(port)
    driver.remove(port)
    driver.remove(port)
    port.write(b"x")
    core.due = time.monotonic_ns()
    driver.turn()
    assert words(core) == ["wake"]


# ---- signals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_becomes_a_message_and_the_core_says_when(
    driver: Driver, core: SmallCore, handlers: None, number: int
) -> None:
    core.on_receive = lambda sender, message: (Exit(),) if isinstance(message, Terminate) else ()
    driver.catch_signals()
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    driver.run()
    assert core.messages(Terminate) == [Terminate()]


def test_a_hangup_reloads_and_systemd_is_told_of_both_ends(
    core: SmallCore, systemd: Systemd, handlers: None, lines: Lines
) -> None:
    driver = Driver(core, {}, systemd.notifier(), lines)
    reloads: list[int] = []
    driver.on_reload = lambda: reloads.append(1)
    driver.status = lambda: "well"
    driver.catch_signals()
    os.kill(os.getpid(), signal.SIGHUP)
    assert turn_until(driver, lambda: reloads)
    (reloading,) = [text for text in systemd.heard() if "RELOADING" in text]
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    driver.reload_done()
    assert systemd.heard() == ["READY=1\nSTATUS=well"]
    driver.close()


def test_signals_that_come_together_are_all_heard(driver: Driver, core: SmallCore, handlers: None) -> None:
    reloads: list[int] = []
    driver.on_reload = lambda: reloads.append(1)
    driver.catch_signals()
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert turn_until(driver, lambda: reloads and core.messages(Terminate))


# ---- the watchdog ----------------------------------------------------------------------------------------


def listen(systemd: Systemd, pings: list[str]) -> list[str]:
    pings += [text for text in systemd.heard() if text == "WATCHDOG=1"]
    return pings


def test_only_a_loop_that_turns_keeps_the_watchdog_calm(core: SmallCore, systemd: Systemd, lines: Lines) -> None:
    driver = Driver(core, {}, systemd.notifier(watchdog_us=40_000), lines)
    release = threading.Event()
    stuck = threading.Event()

    def stick(sender: str, message: object) -> Iterable[Effect]:
        if isinstance(message, Linked):
            stuck.set()
            release.wait(BOUND_S)
        return ()

    core.on_receive = stick
    pings: list[str] = []
    with Turning(driver):
        assert until(lambda: len(listen(systemd, pings)) >= 4)
        driver.post(Linked("", True))
        assert stuck.wait(BOUND_S)
        systemd.heard()
        assert not until(systemd.heard, 0.1), "a loop that stands still pings no watchdog"
        release.set()
        assert until(lambda: "WATCHDOG=1" in systemd.heard())
    driver.close()


# ---- what goes wrong -------------------------------------------------------------------------------------


def broken(what: str) -> NoReturn:
    raise LookupError(what)


def test_a_message_that_raises_costs_that_message_and_is_told(driver: Driver, core: SmallCore, lines: Lines) -> None:
    core.on_receive = lambda sender, message: broken("odd") if isinstance(message, Linked) else ()
    driver.feed("peer", Linked("", True))
    driver.feed("peer", Terminate())
    assert words(core) == [Linked("", True), Terminate()]
    (fields,) = lines.of("defect")
    assert (fields["where"], fields["sender"], fields["error"]) == ("receive Linked", "peer", "LookupError('odd')")


def test_an_order_that_raises_costs_that_order_only(core: SmallCore, lines: Lines) -> None:
    noted: list[str] = []
    driver = Driver(
        core, {TakeFacts: lambda order: broken("full"), Note: lambda note: noted.append(note.what)}, Notifier({}), lines
    )
    driver.perform((Note("info", "before"), TakeFacts(), Note("info", "after")), "peer")
    assert noted == ["before", "after"]
    assert [fields["where"] for fields in lines.of("defect")] == ["perform TakeFacts"]
    driver.close()


def test_news_that_raise_leave_those_behind_them_alone(driver: Driver, core: SmallCore, lines: Lines) -> None:
    made: list[int] = []
    driver.mailbox.post(lambda: made.append(1))
    driver.mailbox.post(lambda: broken("news"))
    driver.mailbox.post(lambda: made.append(2))
    driver.turn()
    assert made == [1, 2]
    assert [fields["where"] for fields in lines.of("defect")] == ["news"]


def test_a_timer_that_raises_comes_again_and_stops_no_other(driver: Driver, lines: Lines) -> None:
    made: list[int] = []

    def raise_once() -> None:
        made.append(1)
        if len(made) == 1:
            broken("timer")

    driver.call_every(5 * MILLISECOND, raise_once)
    assert turn_until(driver, lambda: len(made) == 3)
    assert [fields["where"] for fields in lines.of("defect")] == ["timer"]


def test_a_status_line_that_raises_stops_nothing(core: SmallCore, systemd: Systemd, lines: Lines) -> None:
    driver = Driver(core, {}, systemd.notifier(), lines)
    driver.status = lambda: str(broken("status"))
    for _ in range(2):
        core.due = time.monotonic_ns()
        driver.turn()
    assert len(core.woken_at) == 2
    assert [fields["where"] for fields in lines.of("defect")] == ["status"]
    driver.close()


def test_a_core_that_raises_at_every_wake_ends_the_loop_soon(driver: Driver, core: SmallCore, lines: Lines) -> None:
    def wake() -> Iterable[Effect]:
        core.due = time.monotonic_ns()
        broken("wake")

    core.on_wake = wake
    core.due = time.monotonic_ns()
    with pytest.raises(Hopeless, match="too many defects"):
        driver.run()
    assert len(core.woken_at) == DEFECTS_MAX + 1
    assert [fields["where"] for fields in lines.of("defect")] == ["wake"]
    assert len(lines.of("giving-up")) == 1


def test_a_core_without_a_deadline_to_give_ends_the_loop_too(
    driver: Driver, core: SmallCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "deadline", lambda: broken("deadline"))
    with pytest.raises(Hopeless):
        driver.run()


def test_a_port_that_raises_without_reading_cannot_spin_for_ever(driver: Driver, lines: Lines) -> None:
    port = PipePort(lambda data: None)
    read = port.source
    port.write(b"x")

    class Broken:
        source = read

        def drain(self) -> int:
            raise OSError("gone")

    driver.add(Broken())
    with pytest.raises(Hopeless):
        driver.run()
    assert [fields["where"] for fields in lines.of("defect")] == ["drain Broken"]
    port.close()


def test_the_messages_of_one_peer_cannot_end_the_loop(driver: Driver, core: SmallCore) -> None:
    core.on_receive = lambda sender, message: () if isinstance(message, WallTime) else broken("odd")
    for _ in range(100):
        driver.feed("dc1/rack07/host1", Linked("", True))
        driver.feed("", Refused("dc1/rack07/host1", "malformed"))
    assert not driver.defects.hopeless()
    for number in range(50):
        driver.feed(f"console {number}", Query(id=1, what="status"))
    assert not driver.defects.hopeless(), "all consoles are one"
    assert driver.defects.count == 250
    assert 2 * COUNTED_A_SENDER <= DEFECTS_MAX


def test_a_core_that_cannot_even_leave_is_left(driver: Driver, core: SmallCore, handlers: None) -> None:
    core.on_receive = lambda sender, message: broken("leaving") if isinstance(message, Terminate) else ()
    driver.catch_signals()
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Hopeless, match="orderly"):
        driver.run()


def test_without_a_log_the_loop_tells_standard_error(core: SmallCore, capfd: pytest.CaptureFixture[str]) -> None:
    driver = Driver(core, {}, Notifier({}))
    driver.perform((TakeFacts(),))
    assert "error defect" in capfd.readouterr().err
    driver.close()


def test_nothing_is_left_open(core: SmallCore, handlers: None) -> None:
    before = descriptors()
    driver = Driver(core, {}, Notifier({}))
    driver.catch_signals()
    driver.close()
    driver.close()
    assert descriptors() <= before
    assert signal.set_wakeup_fd(-1) == -1
