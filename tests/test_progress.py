"""What a program tells through `hbagent.progress`, and what it cannot tell when it is stuck.

The programs are real, each in a process of its own; the listener is the agent's own socket.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.progress import MARKS_MAX, Progress
from hbagent.transport.senders import Senders
from hbagent.transport.teller import send
from tests.descriptors import descriptors
from tests.reporting import BOUND_S, Listener

ROOT = Path(__file__).parents[1]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def listener(socket_dir: Path) -> Iterator[Listener]:
    made = Listener(socket_dir / "notify")
    yield made
    made.close()


@pytest.fixture
def progress(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Progress]:
    """One of this process."""
    for name in ("NOTIFY_SOCKET", "HBAGENT_NOTIFY", "HBAGENT_APP", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    made = Progress(app="web", address=listener.address)
    yield made
    made.close()


@pytest.fixture
def start(listener: Listener, tmp_path: Path) -> Iterator[Start]:
    """Starts programs, ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start_one(code: str, **environment: str) -> subprocess.Popen[str]:
        file = tmp_path / f"app{len(started)}.py"
        file.write_text(code)
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("HBAGENT", "NOTIFY", "WATCHDOG"))
        }
        started.append(
            subprocess.Popen(
                [sys.executable, str(file)],
                env={**clean, "HBAGENT_NOTIFY": listener.address, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def marks(listener: Listener) -> dict[str, str]:
    """What each mark said last."""
    return dict(value.split(" ", 1) for value in listener.said("X_HBAGENT_PROGRESS"))


def stacks(listener: Listener) -> str:
    """What is in the newest memory file."""
    numbers = [notified.stacks for notified in list(listener.heard) if notified.stacks]
    return listener.socket.stacks_text(numbers[-1]).decode() if numbers else ""


def next_turns(listener: Listener, count: int = 3) -> int:
    """Wait until the sampler has told so many more times."""
    before = len(listener.said("X_HBAGENT_PROGRESS"))
    assert listener.until(lambda: len(listener.said("X_HBAGENT_PROGRESS")) >= before + count)
    return before


def samplers() -> set[threading.Thread]:
    """Threads of this process that tell; what others leave behind is not counted."""
    return {thread for thread in threading.enumerate() if thread.name == "hbagent-progress"}


def everything_read(listener: Listener) -> None:
    """Wait until all that was sent so far has been heard."""
    word = f"read up to {time.monotonic_ns()}"
    send(listener.address, f"STATUS={word}".encode(), BOUND_S)
    assert listener.until(lambda: word in listener.said("STATUS"))


# ---- telling ---------------------------------------------------------------------------------------------


def test_it_needs_nothing_else_of_hbagent_and_python_3_8_is_enough() -> None:
    code = (
        "import sys; before = set(sys.modules); import hbagent.progress;"
        "print(sorted(n for n in set(sys.modules) - before if n.partition('.')[0] in ('hbagent', 'msgspec', 'zmq')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=BOUND_S)
    assert done.stdout == "['hbagent', 'hbagent.progress']\n"
    ast.parse((ROOT / "hbagent" / "progress.py").read_text(), feature_version=(3, 8))


def test_marks_are_told_with_what_waits_and_their_window(listener: Listener, progress: Progress) -> None:
    first, second = progress.mark("worker-1", window=0.8), progress.mark("worker 2\n=x", window=20)
    first.tick()
    first.tick(41)
    second.queued(3)
    wanted = {"worker-1": "42 window=0.8", "worker_2__x": "0 queued=3 window=20"}
    assert listener.until(lambda: marks(listener) == wanted)
    with second.working():
        assert listener.until(lambda: marks(listener)["worker_2__x"] == "0 queued=1 window=20")
    assert listener.until(lambda: marks(listener)["worker_2__x"] == "1 queued=0 window=20")
    assert listener.said("X_HBAGENT_MAIN") == [str(os.getpid())]
    assert set(listener.said("X_HBAGENT_APP")) == {"web"}


def test_a_mark_rests_until_it_is_used_and_from_a_tick_alone_on_it_has_work_always(
    listener: Listener, progress: Progress
) -> None:
    unused, ticks, works, begins = (progress.mark(name, window=0.8) for name in ("unused", "ticks", "works", "begins"))
    assert listener.until(lambda: len(marks(listener)) == 4)
    assert set(marks(listener).values()) == {"0 queued=0 window=0.8"}
    ticks.tick()
    begins.tick(0)
    with works.working():
        pass
    wanted = {"unused": "0 queued=0", "ticks": "1", "works": "1 queued=0", "begins": "0"}
    assert listener.until(lambda: marks(listener) == {name: f"{text} window=0.8" for name, text in wanted.items()})
    ticks.queued(0)
    ticks.tick()
    assert listener.until(lambda: marks(listener)["ticks"] == "2 queued=0 window=0.8")
    assert unused._stands(time.monotonic() + 100) < 1


def test_a_mark_that_is_closed_rests_and_is_told_no_more(listener: Listener, progress: Progress) -> None:
    kept, closed = progress.mark("kept", window=0.8), progress.mark("closed", window=0.8)
    closed.queued(5)
    assert listener.until(lambda: "closed" in marks(listener))
    closed.close()
    closed.close()
    assert listener.until(lambda: marks(listener)["closed"] == "0 queued=0 window=0.8")
    # A turn may have been under way, and say it once more.
    kept.tick()
    next_turns(listener, 2)
    count = [value.split()[0] for value in listener.said("X_HBAGENT_PROGRESS")].count("closed")
    next_turns(listener, 2)
    assert [value.split()[0] for value in listener.said("X_HBAGENT_PROGRESS")].count("closed") == count
    progress.close()
    assert listener.until(lambda: marks(listener)["kept"] == "1 queued=0 window=0.8")


def test_there_is_no_thread_before_the_first_mark_and_one_after(listener: Listener, progress: Progress) -> None:
    before = samplers()
    progress.ready("all there")
    progress.status("one\ntwo")
    progress.reloading()
    progress.stopping()
    assert samplers() <= before
    assert listener.until(lambda: listener.said("STOPPING") == ["1"])
    assert listener.said("STATUS") == ["all there", "one two"]
    for name in ("a", "b", "c"):
        progress.mark(name)
    assert len(samplers() - before) == 1


def test_more_marks_than_fit_one_datagram_are_told_in_several(listener: Listener, progress: Progress) -> None:
    made = [progress.mark(f"{'m' * 60}{i}", window=0.8) for i in range(MARKS_MAX + 5)]
    assert listener.until(lambda: len(marks(listener)) == MARKS_MAX)
    assert len(made) == MARKS_MAX + 5
    assert listener.socket.counts.get("too-long", 0) == 0


def test_a_long_name_leaves_less_room_in_each_datagram(listener: Listener) -> None:
    progress = Progress(app="\U0001d54f" * 64, address=listener.address, stacks=False)
    for number in range(MARKS_MAX):
        progress.mark(f"worker-{number:02d}-{'w' * 50}", window=1.0)
    assert listener.until(lambda: len({text.split()[0] for text in listener.said("X_HBAGENT_PROGRESS")}) == MARKS_MAX)
    progress.close()
    assert "too-long" not in listener.socket.counts


def test_without_anybody_to_tell_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "HBAGENT_NOTIFY"):
        monkeypatch.delenv(name, raising=False)
    before, threads = descriptors(), samplers()
    progress = Progress(app="web")
    progress.ready()
    with progress.mark("a").working():
        pass
    progress.close()
    assert descriptors() <= before and samplers() <= threads


@pytest.mark.parametrize("address", ["/nonexistent/notify", "@hbagent-nobody", "x" * 500, "a\0b", "/"])
def test_an_address_that_cannot_be_told_is_no_affair_of_the_program(address: str) -> None:
    progress = Progress(app="web", address=address)
    progress.ready()
    mark = progress.mark("a", window=0.2)
    mark.tick()
    progress._turn(time.monotonic())
    mark.close()
    progress.close()


def test_a_listener_that_does_not_read_holds_nobody_up_and_hears_what_is_said_once(
    socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(socket_dir / "late")
    progress = Progress(app="web", address=path)
    progress.ready("said before anybody listened")
    mark = progress.mark("a", window=0.8)
    late = Listener(path)
    assert late.until(lambda: late.said("READY") == ["1"])
    assert late.said("STATUS") == ["said before anybody listened"]
    mark.close()
    progress.close()
    late.close()


def test_systemd_hears_what_is_meant_for_everybody(
    listener: Listener, socket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = Listener(socket_dir / "systemd")
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    progress = Progress(address=listener.address)
    progress.ready("up")
    mark = progress.mark("a", window=0.8)
    for there in (listener, systemd):
        assert there.until(lambda there=there: there.said("STATUS") == ["up"] and bool(there.said("WATCHDOG")))  # type: ignore[misc]
    assert listener.until(lambda: "a" in marks(listener))
    assert marks(systemd) == {}
    assert systemd.said("X_HBAGENT_APP") == []
    mark.close()
    progress.close()
    systemd.close()


def test_a_watchdog_of_another_process_is_not_fed(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    progress = Progress(address=listener.address)
    progress.mark("a", window=0.8)
    next_turns(listener)
    assert listener.said("WATCHDOG") == []
    progress.close()


def test_under_run_app_the_main_process_is_known_already(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HBAGENT_APP", "web")
    monkeypatch.setenv("HBAGENT_NOTIFY", listener.address)
    progress = Progress(app="web")
    progress.mark("a", window=0.8)
    next_turns(listener)
    assert listener.said("X_HBAGENT_MAIN") == []
    progress.close()


# ---- stuck -----------------------------------------------------------------------------------------------

LOCK_CYCLE = """
import sys, threading
from hbagent.progress import Progress
progress = Progress(app="cycle")
first, second = threading.Lock(), threading.Lock()
here, there = threading.Event(), threading.Event()
def take_first_then_second(mark):
    with first:
        here.set(); there.wait()
        with second:
            mark.tick()
def take_second_then_first(mark):
    with second:
        there.set(); here.wait()
        with first:
            mark.tick()
for work in (take_first_then_second, take_second_then_first):
    mark = progress.mark(work.__name__, window=0.8)
    mark.queued(4)
    mark.tick()
    threading.Thread(target=work, args=[mark], daemon=True).start()
progress.ready()
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.paired
def test_a_cycle_of_locks_stops_marks_and_watchdog_and_the_stacks_name_both_functions(
    listener: Listener, start: Start
) -> None:
    start(LOCK_CYCLE, WATCHDOG_USEC="600000")
    # They are read while they are written.
    assert listener.until(lambda: all(f"in take_{order}" in stacks(listener) for order in ORDERS))
    text = stacks(listener)
    assert "mark take_first_then_second has stood at 1 for" in text
    assert "queued: 4" in text
    assert 'app0.py", line 10 in take_first_then_second' in text
    # The sampler lives and tells; it cannot raise a number, and does not feed the watchdog.
    everything_read(listener)
    fed = len(listener.said("WATCHDOG"))
    assert fed >= 1
    next_turns(listener, 10)
    assert len(listener.said("WATCHDOG")) == fed
    assert {value.split()[1] for value in listener.said("X_HBAGENT_PROGRESS")[-8:]} == {"1"}


ORDERS = ("first_then_second", "second_then_first")
GIL_HOLDER = """
import ctypes, sys, threading
from hbagent.progress import Progress
progress = Progress(app="holder")
mark = progress.mark("main", window=0.8)
mark.queued(0)
progress.ready()
libc = ctypes.PyDLL(None)
sys.stdin.readline()
sys.setswitchinterval(600)
mark.queued(1)
libc.puts(b"held")
libc.fflush(None)
libc.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.paired
def test_who_holds_the_interpreter_silences_the_sampler_and_lives_on(listener: Listener, start: Start) -> None:
    process = start(GIL_HOLDER, WATCHDOG_USEC="600000")
    assert listener.until(lambda: bool(listener.said("WATCHDOG")) and bool(listener.said("READY")))
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    everything_read(listener)
    fed = len(listener.said("WATCHDOG"))
    assert not listener.until(lambda: len(listener.said("WATCHDOG")) > fed, 1.0)
    assert (stacks(listener), process.poll()) == ("", None)


RECOVERS = """
import sys
from hbagent.progress import Progress
progress = Progress(app="slow")
mark = progress.mark("main", window=0.4)
mark.queued(1)
def wait_for_a_word():
    sys.stdin.readline()
wait_for_a_word()
mark.queued(0)
sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.paired
def test_the_stacks_go_when_it_moves_again_and_come_when_it_is_stuck_again(listener: Listener, start: Start) -> None:
    process = start(RECOVERS)
    assert listener.until(lambda: "in wait_for_a_word" in stacks(listener))
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert listener.until(lambda: stacks(listener) == "")
    # With nothing to do it may stand still for ever.
    next_turns(listener, 8)
    assert stacks(listener) == ""


FORKS = """
import os, sys
from hbagent.progress import Progress
progress = Progress(app="fork")
mark = progress.mark("worker", window=0.4)
mark.tick(7)
sys.stdin.readline()
child = os.fork()
if child == 0:
    sys.stdin.readline()
    mark.tick()
    sys.stdin.readline()
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.paired
def test_a_forked_child_has_marks_of_its_own_and_ends_as_it_wants(listener: Listener, start: Start) -> None:
    process = start(FORKS.replace("sys.stdin.readline()", "os.read(0, 1)"))
    assert process.stdin is not None and process.stdout is not None
    assert listener.until(lambda: bool(listener.said("X_HBAGENT_STACKS")))

    def go_on() -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    go_on()
    next_turns(listener, 6)
    assert {notified.pid for notified in listener.heard} == {process.pid}
    go_on()
    assert listener.until(lambda: len(marks(listener)) == 2)
    child = next(notified.pid for notified in listener.heard if notified.pid != process.pid)
    assert marks(listener)[f"worker@{child}"] == "8 window=0.4"
    assert marks(listener)["worker"] == "7 window=0.4"
    go_on()
    assert process.stdout.readline() == "3\n"
    assert listener.until(lambda: "queued=0" in marks(listener)[f"worker@{child}"])
    next_turns(listener)


def test_an_end_by_exit_lets_the_marks_rest(listener: Listener, start: Start) -> None:
    process = start(
        "from hbagent.progress import Progress\np = Progress(app='a')\nm = p.mark('m', window=0.8)\n"
        "m.queued(9)\nimport sys; sys.stdin.read(1); sys.exit(5)"
    )
    assert listener.until(lambda: "m" in marks(listener))
    process.communicate("x", timeout=BOUND_S)
    assert process.returncode == 5
    assert listener.until(lambda: marks(listener)["m"] == "0 queued=0 window=0.8")


ENDS = """
import os, signal, sys, threading
from sys import exit as early_exit
from hbagent.progress import Progress
progress = Progress(app="web")
mark = progress.mark("m", window=0.8)
mark.queued(9)
sys.stdin.read(1)
"""


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize(
    ("end", "on_purpose"),
    [
        ("", True),
        ("sys.exit()", True),
        ("sys.exit(0)", True),
        ("progress.close(); del progress, mark", True),
        ("os.kill(os.getpid(), signal.SIGINT); signal.pause()", True),
        ("threading.Thread(target=sys.exit, args=[3]).start()", True),
        ("child = os.fork()\nif child:\n    os.waitpid(child, 0)\n    os._exit(0)", False),
        ("try: sys.exit(3)\nexcept SystemExit: pass", True),
        ("def main(): sys.exit(0)\nsys.exit(main())", True),
        ("sys.exit(5)", False),
        ("raise SystemExit(3)", False),
        ("def main(): raise SystemExit(3)\nmain()", False),
        ("exit(3)", False),
        ("early_exit(3)", False),
        ("sys.exit('no database')", False),
        ("sys.excepthook = lambda *_: None; 1 / 0", False),
        ("os._exit(0)", False),
        ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", False),
    ],
)
def test_who_ends_as_a_program_ends_says_that_it_stops(
    listener: Listener, start: Start, end: str, on_purpose: bool
) -> None:
    process = start(ENDS + end)
    assert listener.until(lambda: listener.said("X_HBAGENT_MAIN") == [str(process.pid)])
    process.communicate("x", timeout=BOUND_S)
    everything_read(listener)
    assert listener.said("STOPPING") == listener.said("X_HBAGENT_GUESS") == (["1"] if on_purpose else [])


IN_MAIN = """
import sys
from hbagent.progress import Progress
def main():
    progress = Progress(app="web")
    mark = progress.mark("m", window=0.8)
    mark.queued(9)
    sys.stdin.read(1)
    return CODE
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_that_was_looked_up_before_the_work_began_is_noticed(
    listener: Listener, start: Start, code: int
) -> None:
    process = start(IN_MAIN.replace("CODE", str(code)))
    assert listener.until(lambda: listener.said("X_HBAGENT_MAIN") == [str(process.pid)])
    process.communicate("x", timeout=BOUND_S)
    everything_read(listener)
    assert listener.said("STOPPING") == ([] if code else ["1"])


def test_of_an_end_that_somebody_else_tells_nothing_is_said(listener: Listener, start: Start) -> None:
    process = start(ENDS, HBAGENT_APP="web")
    assert listener.until(lambda: "m" in marks(listener))
    process.communicate("x", timeout=BOUND_S)
    everything_read(listener)
    assert listener.said("STOPPING") == [], "run-app tells the exit status"


@pytest.mark.slow
@pytest.mark.paired
def test_a_program_that_was_stopped_goes_on_telling(listener: Listener, start: Start) -> None:
    process = start(RECOVERS.replace("queued(1)", "queued(0)"))
    assert listener.until(lambda: "main" in marks(listener))
    os.kill(process.pid, signal.SIGSTOP)
    assert listener.until(lambda: _state(process.pid) == "T")
    everything_read(listener)
    said = len(listener.heard)
    assert not listener.until(lambda: len(listener.heard) > said, 1.0)
    os.kill(process.pid, signal.SIGCONT)
    next_turns(listener)
    assert listener.until(lambda: stacks(listener) == "")
    assert Senders().start(process.pid)


RECURSES = """
import sys, threading
from hbagent.progress import Progress
progress = Progress(app="busy")
def fall(depth):
    return depth and fall(depth - 1)
def work(mark):
    while True:
        with mark.working():
            fall(400)
for name in ("first", "second"):
    threading.Thread(target=work, args=[progress.mark(name, window=0.2)], daemon=True).start()
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.paired
def test_nothing_reads_the_frames_of_running_threads_when_a_stopped_program_goes_on(
    listener: Listener, start: Start
) -> None:
    process = start(RECURSES)
    assert listener.until(lambda: len(marks(listener)) == 2)
    for _ in range(12):
        os.kill(process.pid, signal.SIGSTOP)
        assert listener.until(lambda: _state(process.pid) == "T")
        assert not listener.until(lambda: process.poll() is not None, 0.25)
        os.kill(process.pid, signal.SIGCONT)
        next_turns(listener, 2)
    assert process.poll() is None


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
