"""`hbagent run-app`: real programs below it, a real listener above."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.cli import EXIT_USAGE, run_app_cmd
from hbagent.cli.run_app_cmd import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from tests.reporting import BOUND_S, Listener, wait_for

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def listener(socket_dir: Path) -> Iterator[Listener]:
    made = Listener(socket_dir / "notify")
    yield made
    made.close()


@pytest.fixture
def run_app(socket_dir: Path) -> Iterator[Run]:
    """Starts `hbagent run-app web ...`, ended after the test together with what it started."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("HBAGENT", "NOTIFY", "WATCHDOG"))
        }
        # A dead one among the environment's would be the default.
        clean["HBAGENT_NOTIFY"] = str(socket_dir / "notify")
        started.append(
            subprocess.Popen(
                # As systemd does: WATCHDOG_PID is the process that it started.
                [
                    "sh",
                    "-c",
                    'WATCHDOG_PID=$$ exec "$@"',
                    "sh",
                    *(sys.executable, "-m", "hbagent", "run-app", "web"),
                    *arguments,
                ],
                cwd=ROOT,
                env={**clean, **environment},
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # A group of its own in this session: it can be stopped, and continued.
                preexec_fn=os.setpgrp,
            )
        )
        return started[-1]

    yield start
    for process in started:
        for number in (signal.SIGCONT, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=BOUND_S)
    return process.returncode, out, err


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ---- what the agent hears --------------------------------------------------------------------------------


def test_the_agent_knows_the_program_before_it_begins_and_how_it_ended(listener: Listener, run_app: Run) -> None:
    process = run_app("--watchdog", "30s", "--ttl", "25h", "--", "sh", "-c", "echo $$ $WATCHDOG_USEC $HBAGENT_APP")
    code, out, err = ended(process)
    assert (code, err) == (0, "")
    pid, usec, app = out.split()
    assert (usec, app) == ("30000000", "web")
    assert listener.until(lambda: len(listener.heard) == 2)
    first, last = listener.heard
    ttl = ("X_HBAGENT_TTL_USEC", str(25 * 3600 * 1_000_000))
    assert first.fields == (("X_HBAGENT_APP", "web"), ("X_HBAGENT_MAIN", pid), ("WATCHDOG_USEC", "30000000"), ttl)
    assert (first.main_uid, first.main_start > 0) == (os.getuid(), True)
    assert last.fields == (("X_HBAGENT_APP", "web"), ("X_HBAGENT_RESULT", "0"), ttl)
    assert first.pid == last.pid == process.pid


def test_a_program_that_speaks_to_systemd_speaks_to_the_agent(listener: Listener, run_app: Run) -> None:
    code = (
        "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])"
    )
    assert ended(run_app("--", sys.executable, "-c", code))[0] == 0
    assert listener.until(lambda: len(listener.heard) == 3)
    main = dict(listener.heard[0].fields)["X_HBAGENT_MAIN"]
    assert listener.heard[1].fields == (("READY", "1"),)
    assert str(listener.heard[1].pid) == main


def test_an_unsuccessful_job_does_not_say_when_it_succeeds_again(listener: Listener, run_app: Run) -> None:
    assert ended(run_app("--ttl", "25h", "--", "false"))[0] == 1
    assert listener.until(lambda: listener.said("X_HBAGENT_RESULT") == ["1"])
    assert len(listener.said("X_HBAGENT_TTL_USEC")) == 1


def test_without_an_agent_the_program_runs_all_the_same_and_it_is_said_once(run_app: Run, socket_dir: Path) -> None:
    code, out, err = ended(run_app("--", "echo", "hello"))
    assert (code, out) == (0, "hello\n")
    assert err.count("\n") == 1
    assert str(socket_dir / "notify") in err and "web runs without being watched" in err


@pytest.mark.slow
@pytest.mark.paired
def test_an_agent_that_comes_later_is_told(socket_dir: Path) -> None:
    code = (
        "import sys; from hbagent.cli import main, run_app_cmd as it; it.LOOK_AGAIN_S, it.RESULT_S = 0.2, 0.5;"
        "sys.exit(main(['run-app', 'web', '--socket', sys.argv[1], '--', 'sleep', '600']))"
    )
    path = str(socket_dir / "late")
    process = subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        assert "without being watched" in process.stderr.readline()
        for _ in range(2):
            late = Listener(path)
            assert late.until(lambda late=late: len(late.said("X_HBAGENT_MAIN")) == 1)  # type: ignore[misc]
            # And not again, while it is the same one.
            assert not late.until(lambda late=late: len(late.heard) > 1, 0.7)  # type: ignore[misc]
            late.close()
        process.send_signal(signal.SIGTERM)
        # Nobody hears the result; that takes its time and ends.
        assert process.wait(2 * BOUND_S) == 128 + signal.SIGTERM
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.slow
@pytest.mark.paired
def test_one_that_was_stopped_for_long_hands_each_signal_on_once(socket_dir: Path, listener: Listener) -> None:
    program = "trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    code = (
        "import sys; from hbagent.cli import main, run_app_cmd as it; it.LOOK_AGAIN_S = 0.2;"
        "sys.exit(main(['run-app', 'web', '--socket', sys.argv[1], '--', 'sh', '-c', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, listener.address, program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGUSR1)
        assert line(process) == "usr1"
        for _ in range(3):
            process.send_signal(signal.SIGSTOP)
            assert wait_for(lambda: state(process.pid) == "T")
            assert not wait_for(lambda: state(process.pid) != "T", 0.5)
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGHUP)
            assert line(process) == "hup"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=BOUND_S)[0] == ""
        assert process.returncode == 0


# ---- how it ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 0"], 0),
        (["sh", "-c", "exit 77"], 77),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -SEGV $$"], 139),
        (["/nonexistent/program"], EXIT_NOT_FOUND),
        (["no-such-program-anywhere"], EXIT_NOT_FOUND),
        (["/etc/passwd"], EXIT_NOT_EXECUTABLE),
        (["/etc"], EXIT_NOT_EXECUTABLE),
    ],
)
def test_the_exit_status_is_that_of_the_program(
    listener: Listener, run_app: Run, command: list[str], code: int
) -> None:
    assert ended(run_app("--", *command))[0] == code
    assert listener.until(lambda: listener.said("X_HBAGENT_RESULT") == [str(code)])


@pytest.mark.parametrize(
    "arguments", [["--"], [], ["true"], ["--watchdog", "soon", "--", "true"], ["--ttl", "1", "--", "true"]]
)
def test_what_makes_no_sense_starts_nothing(run_app: Run, arguments: list[str]) -> None:
    assert ended(run_app(*arguments))[0] == EXIT_USAGE


def test_arguments_reach_the_program_as_they_are(listener: Listener, run_app: Run) -> None:
    words = ["a b", "--ttl", "", "--", "-x", "$HOME", "*"]
    code, out, _ = ended(run_app("--", sys.executable, "-c", "import sys; print(sys.argv[1:])", *words))
    assert (code, out) == (0, f"{words!r}\n")


# ---- signals ---------------------------------------------------------------------------------------------

TELLS_SIGNALS = """
import os, signal, sys
def told(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(42)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, told)
print(os.getpid(), flush=True)
while True:
    signal.pause()
"""


def test_signals_are_handed_on(listener: Listener, run_app: Run) -> None:
    process = run_app("--", sys.executable, "-c", TELLS_SIGNALS)
    line(process)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        process.send_signal(number)
        assert line(process) == number.name
    process.send_signal(signal.SIGTERM)
    assert ended(process)[:2] == (42, "SIGTERM\n")
    assert listener.until(lambda: listener.said("X_HBAGENT_RESULT") == ["42"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_the_agent_is_told_of_the_signal_that_asks_the_program_to_end(
    listener: Listener, run_app: Run, number: signal.Signals
) -> None:
    process = run_app("--", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 4711")
    assert line(process) == "ready"
    process.send_signal(number)
    assert ended(process)[0] == 128 + number
    assert listener.until(lambda: bool(listener.said("X_HBAGENT_RESULT")))
    assert listener.said("X_HBAGENT_ASKED") == [str(number.value)] * 2, "at once, and with the result"
    assert listener.heard[-1].fields[-2:] == (
        ("X_HBAGENT_ASKED", str(number.value)),
        ("X_HBAGENT_RESULT", str(128 + number)),
    )


def test_of_a_signal_that_did_not_end_it_the_result_says_nothing(listener: Listener, run_app: Run) -> None:
    process = run_app("--", sys.executable, "-c", TELLS_SIGNALS)
    line(process)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(number)
        assert line(process) == number.name
    assert listener.until(lambda: listener.said("X_HBAGENT_ASKED") == ["1"])
    process.send_signal(signal.SIGTERM)
    ended(process)
    assert listener.until(lambda: bool(listener.said("X_HBAGENT_RESULT")))
    assert listener.said("X_HBAGENT_ASKED") == ["1", "15"]


def test_who_is_asked_a_moment_after_the_program_was_asked_too(listener: Listener, run_app: Run) -> None:
    # As the stop of a unit does without KillMode=mixed: one after the other, in any order.
    process = run_app("--", "sh", "-c", "echo $$; exec sleep 4711")
    pid = int(line(process))
    process.send_signal(signal.SIGSTOP)
    assert wait_for(lambda: state(process.pid) == "T")
    os.kill(pid, signal.SIGTERM)
    assert wait_for(lambda: state(pid) == "Z")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert ended(process)[0] == 128 + signal.SIGTERM
    assert listener.until(lambda: bool(listener.said("X_HBAGENT_RESULT")))
    assert set(listener.said("X_HBAGENT_ASKED")) == {"15"}


def test_of_a_program_that_nobody_asked_here_that_is_not_said(listener: Listener, run_app: Run) -> None:
    assert ended(run_app("--", "sh", "-c", "kill -TERM $$"))[0] == 128 + signal.SIGTERM
    assert listener.until(lambda: bool(listener.said("X_HBAGENT_RESULT")))
    assert listener.said("X_HBAGENT_ASKED") == []


def test_a_signal_that_comes_while_the_end_of_the_program_is_looked_at_has_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: Iterator[set[int]] = iter([set(), {signal.SIGCHLD}, {signal.SIGTERM}])
    monkeypatch.setattr(signal, "sigpending", lambda: next(looks))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(run_app_cmd, "_COMES_S", 60.0)
    assert run_app_cmd._comes(signal.SIGTERM)
    monkeypatch.setattr(signal, "sigpending", set)
    monkeypatch.setattr(run_app_cmd, "_COMES_S", 0.0)
    assert not run_app_cmd._comes(signal.SIGTERM)


def test_stop_and_continue_reach_the_program(run_app: Run, listener: Listener) -> None:
    process = run_app("--", sys.executable, "-c", TELLS_SIGNALS)
    pid = int(line(process))
    process.send_signal(signal.SIGTSTP)
    assert wait_for(lambda: state(pid) == "T" and state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    assert wait_for(lambda: state(pid) == "S" and state(process.pid) == "S")
    process.send_signal(signal.SIGUSR1)
    assert line(process) == "SIGUSR1"


def test_the_program_has_the_signals_of_a_program_that_was_started_by_a_shell(run_app: Run, listener: Listener) -> None:
    process = run_app("--", "grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status")
    plain = subprocess.run(["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"], capture_output=True, text=True)
    assert ended(process)[1] == plain.stdout


def test_what_the_terminal_sends_arrives_once(listener: Listener) -> None:
    # Blocked, so that none is missed. Two at once are one, so it takes a few rounds to see that there are no others.
    counts = (
        "import signal, time; wait = [signal.SIGINT]; signal.pthread_sigmask(0, wait); more = 0\n"
        "for i in range(10): print('go', i, flush=True); signal.sigwait(wait)\n"
        # Not `sigtimedwait`: of one that was stopped meanwhile it may find what nobody has sent.
        "time.sleep(0.5)\n"
        "while signal.sigpending() & set(wait): signal.sigwait(wait); more += 1; time.sleep(0.5)\n"
        "print('others', more, flush=True)"
    )
    arguments = ["-m", "hbagent", "run-app", "web", "--socket", listener.address, "--", sys.executable, "-c", counts]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, *arguments])
    try:
        seen = b""
        for i in range(10):
            while f"go {i}".encode() not in seen:
                seen += os.read(terminal, 1024)
            os.write(terminal, b"\x03")
        while b"others" not in seen or not seen.endswith(b"\n"):
            seen += os.read(terminal, 1024)
        assert b"others 0\r\n" in seen
    finally:
        os.kill(pid, signal.SIGKILL) if os.waitpid(pid, os.WNOHANG) == (0, 0) else None
        os.close(terminal)


def test_orphans_are_collected_by_the_first_process_of_a_container(listener: Listener, tmp_path: Path) -> None:
    script = (
        f"cd {ROOT} && exec {sys.executable} -m hbagent run-app web --socket {listener.address} -- sh -c "
        '\'for i in 1 2 3; do (sh -c "sleep 0.1 & exit 0" &) ; done; sleep 0.5; '
        # Those that have ended just now are collected a moment later.
        'for i in $(seq 200); do grep -qs "^State:.Z" /proc/[0-9]*/status || break; sleep 0.05; done; '
        'grep -ls "^State:.Z" /proc/[0-9]*/status; echo over\''
    )
    if os.geteuid() != 0:
        pytest.skip("needs the rights of root")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert done.stdout == "over\n", done.stderr


# ---- systemd above ---------------------------------------------------------------------------------------


def test_systemd_and_the_agent_both_hear_the_program(listener: Listener, run_app: Run, socket_dir: Path) -> None:
    systemd = Listener(socket_dir / "systemd")
    code = (
        "import os, socket, time; from hbagent.transport.teller import send, settle; to = os.environ['NOTIFY_SOCKET'];"
        "send(to, b'READY=1\\nSTATUS=up', 5); assert settle(to, 5); send(to, b'STOPPING=1', 5);"
        "print(os.environ['WATCHDOG_USEC'], 'WATCHDOG_PID' in os.environ)"
    )
    process = run_app(
        *("--watchdog", "30s", "--", sys.executable, "-c", code),
        NOTIFY_SOCKET=systemd.address,
        WATCHDOG_USEC="9000000",
    )
    assert ended(process)[:2] == (0, "9000000 False\n")
    for there in (listener, systemd):
        assert there.said("STATUS") == ["up"]
        assert there.said("STOPPING") == ["1"]
    # As NotifyAccess=main wants it; and the agent is told whose words these are.
    assert {notified.pid for notified in systemd.heard} == {process.pid}
    assert systemd.said("X_HBAGENT_APP") == []
    assert set(listener.said("X_HBAGENT_APP")) == {"web"}
    assert listener.said("WATCHDOG_USEC") == ["9000000"]
    assert systemd.socket.counts["barrier"] == 1
    systemd.close()


def test_what_has_room_for_systemd_alone_reaches_the_agent_in_two_and_what_has_none_is_said(
    listener: Listener, run_app: Run, socket_dir: Path
) -> None:
    systemd = Listener(socket_dir / "systemd")
    program = (
        "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); to = os.environ['NOTIFY_SOCKET'];"
        "tell = lambda text: s.sendto(text.encode(), chr(0) + to[1:] if to[0] == '@' else to);"
        "tell('A=' + 'a' * 2000 + '\\nB=' + 'b' * 2089 + '\\n'); tell('STATUS=' + 's' * 4089);"
        "tell('C=' + 'c' * 5000); tell('C=' + 'c' * 5000); tell('D=1')"
    )
    code, _, err = ended(run_app("--", sys.executable, "-c", program, NOTIFY_SOCKET=systemd.address))
    assert code == 0
    assert err == "hbagent: web said more than 4,096 bytes at once, which neither systemd nor the agent takes\n"
    assert listener.until(lambda: bool(listener.said("X_HBAGENT_RESULT")))
    assert [len(text) for text in listener.said("A") + listener.said("B")] == [2000, 2089]
    # A line that has no room beside the name of who says it is cut.
    assert [len(text) for text in listener.said("STATUS")] == [4089 - len("X_HBAGENT_APP=web\n")]
    assert listener.said("C") == systemd.said("C") == []
    assert [len(text) for text in systemd.said("A") + systemd.said("B")] == [2000, 2089]
    assert [len(text) for text in systemd.said("STATUS")] == [4089]
    assert listener.said("D") == systemd.said("D") == ["1"]
    assert set(listener.said("X_HBAGENT_APP")) == {"web"}
    assert "too-long" not in {**listener.socket.counts, **systemd.socket.counts}
    systemd.close()
