"""A program may do anything; the verdict comes in time all the same, and nothing is left. Real processes.

They run in a hand, as in life, where not said otherwise.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.checks import ExecCheck
from hbagent.core.effects import RunCheck
from hbagent.core.messages import CheckFinished, Measure
from hbagent.core.states import Health
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.offspring import reaper
from hbagent.offspring.hands import Hands, Job, Outcome
from hbagent.probes import plugin, program
from hbagent.probes.program import ERRORS_MAX, OUTPUT_MAX, look, refusal, run
from tests.offspring.owning import apart, freezer, gone, lonely_user, new_tag, outcomes, tagged, turn, turn_until
from tests.patience import patiently

LONG_NS = 20 * SECOND
PLUGINS = "/usr/lib/nagios/plugins"


def check(order: RunCheck, files: Sequence[int]) -> CheckFinished:
    assert isinstance(order.check, ExecCheck)
    return look(order.check, order.timeout_ns, order.memory)


JOBS = {"check": Job(check, RunCheck, CheckFinished)}


def shell(script: str, timeout_ns: int = LONG_NS, tag: str = "") -> CheckFinished:
    """What a shell script says, run here."""
    return look(ExecCheck(argv=("/bin/sh", "-c", script), env={"TAG": tag}), timeout_ns, {})


def start(hands: Hands, number: int, script: str, timeout_ns: int, tag: str = "", key: str = "") -> None:
    order = RunCheck(
        run=number,
        name=f"probe{number}",
        check=ExecCheck(argv=("/bin/sh", "-c", script), env={"TAG": tag}),
        timeout_ns=timeout_ns,
    )
    limit_ns = timeout_ns + 500 * MILLISECOND
    hands.start(number, "check", order, limit_ns, time.monotonic_ns(), key=key or f"probe{number}")


def in_hand(script: str, timeout_ns: int = LONG_NS, tag: str = "") -> Outcome:
    """What a shell script says, run in a hand of an owner of its own."""

    def own() -> Any:
        hands = Hands(JOBS, 2)
        start(hands, 1, script, timeout_ns, tag)
        (outcome,) = outcomes(hands, 1)
        hands.close()
        return outcome

    return convert(apart(own))


def hanging_in_hand(script: str, tag: str) -> tuple[Outcome, int]:
    """The same of a script that says "begun" and does not end by itself, and what its time limit was in the end."""
    limits = []

    def attempt(limit_ns: int) -> Outcome:
        limits.append(limit_ns)
        return in_hand(script, limit_ns, tag)

    def has_begun(outcome: Outcome) -> bool:
        return outcome.value is not None and "begun" in outcome.value.text

    return patiently(attempt, has_begun, 150 * MILLISECOND), limits[-1]


def convert(told: dict[str, Any]) -> Outcome:
    value = None if told["value"] is None else msgspec.convert(told["value"], CheckFinished)
    return msgspec.structs.replace(msgspec.convert(told, Outcome), value=value)


# ---- what a program gets -------------------------------------------------------------------------------------


def test_the_verdict_is_the_exit_status_and_the_rest_is_what_it_says() -> None:
    finished = shell("echo 'LOAD WARNING - 5.2 | load1=5.2;5;10;0'; exit 1")
    assert finished.health == Health.WARNING
    assert finished.text == "LOAD WARNING - 5.2"
    assert finished.measures == (Measure(label="load1", value=5.2, warning="5", critical="10", least=0.0),)
    assert (finished.run, finished.timed_out, finished.applies) == (0, False, True)
    assert 0 < finished.duration_ns < LONG_NS


@pytest.mark.parametrize(
    ("status", "health"),
    [(0, Health.OK), (1, Health.WARNING), (2, Health.CRITICAL), (3, Health.UNKNOWN)],
)
def test_each_status_has_its_meaning(status: int, health: Health) -> None:
    finished = shell(f"echo text; exit {status}")
    assert (finished.health, finished.text) == (health, "text")


def test_a_program_sees_only_the_environment_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "leak")
    done = run(["/usr/bin/env"], {"COLOUR": "blau", "LANG": "de"}, LONG_NS)
    assert sorted(done.output.decode().split()) == [
        "COLOUR=blau",
        "LANG=de",
        "LC_ALL=C",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def test_a_program_has_no_input_and_no_file_and_a_session_of_its_own() -> None:
    with open("/dev/null", "rb") as file:
        os.set_inheritable(file.fileno(), True)
        script = "pwd; cat; cut -d' ' -f6 /proc/$$/stat; echo $$; umask; exec ls /proc/self/fd"
        done = run(["/bin/sh", "-c", script], {}, LONG_NS)
    words = done.output.decode().split()
    assert (words[0], words[3]) == ("/", "0022")
    assert words[1] == words[2]
    # The last is the directory that `ls` reads.
    assert words[4:] == ["0", "1", "2", "3"]


def test_no_signal_is_ignored_or_blocked_in_a_program() -> None:
    said = run(["/bin/cat", "/proc/self/status"], {}, LONG_NS).output.decode()
    # Signals 32 and 33 are glibc's own: it lets no program change them, and whoever started the tests may ignore them.
    own = 1 << 31 | 1 << 32
    masks = {
        name: int(value, 16) & ~own for name, value in re.findall(r"^(Sig(?:Blk|Ign)):\s*(\w+)$", said, re.MULTILINE)
    }
    assert masks == {"SigBlk": 0, "SigIgn": 0}


def test_no_shell_reads_the_arguments() -> None:
    finished = look(ExecCheck(argv=("/bin/echo", "$HOME; `id` | x=1 > y")), LONG_NS, {})
    assert finished.text == "$HOME; `id`"


# ---- what makes it UNKNOWN -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 4", "exit status 4, which means nothing"),
        ("echo OK; exit 255", "exit status 255, which means nothing; it said: OK"),
        ("exec /nonexistent/x", "exit status 127: not found; it said: /bin/sh: 1: exec: /nonexistent/x: not found"),
        ("exec /dev/null", "exit status 126: cannot be executed"),
        ("echo half; kill -11 $$", "it died of SIGSEGV; it said: half"),
        ("kill -9 $$", "it died of SIGKILL"),
    ],
)
def test_any_other_end_is_unknown_with_the_reason(script: str, text: str) -> None:
    finished = shell(script)
    assert finished.health == Health.UNKNOWN
    assert finished.text.startswith(text)


def test_what_cannot_be_started_is_unknown_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELFnot")
    broken.chmod(0o755)
    for argv, text in (
        (("/nonexistent/x",), "not started: /nonexistent/x: No such file or directory"),
        ((str(broken),), "not started: Exec format error"),
        (("relative",), "not started: the program must be an absolute path"),
        (("/bin/echo", "a\0b"), "not started: a null byte in its arguments or environment"),
        (("/bin/echo", "x" * 3_000_000), "not started: Argument list too long"),
    ):
        finished = look(ExecCheck(argv=argv), LONG_NS, {})
        assert (finished.health, finished.text) == (Health.UNKNOWN, text)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("#!/nonexistent/pyhton3 -E\nprint(1)\n", "its interpreter '/nonexistent/pyhton3'"),
        ("#! /bin/sh\r\nexit 0\r\n", r"its interpreter '/bin/sh\r'"),
    ],
)
def test_an_interpreter_that_is_missing_is_named(tmp_path: Path, line: str, missing: str) -> None:
    script = tmp_path / "script"
    script.write_text(line)
    script.chmod(0o755)
    found = look(ExecCheck(argv=(str(script),)), LONG_NS, {})
    assert (found.health, found.text) == (
        Health.UNKNOWN,
        f"not started: {script}: {missing}: No such file or directory",
    )


def test_silence_is_told() -> None:
    assert shell("exit 0").text == "it said nothing"
    assert (shell("echo trouble >&2; exit 2").text, shell("echo a >&2; echo b").text) == ("trouble", "b")


@pytest.mark.parametrize(("mode", "reason"), [(0o775, "writable by group"), (0o757, "writable"), (0o644, "executable")])
def test_a_file_with_the_wrong_mode_is_not_run(tmp_path: Path, mode: int, reason: str) -> None:
    path = tmp_path / "check"
    path.write_text("#!/bin/sh\necho ran\n")
    path.chmod(0o755)
    assert look(ExecCheck(argv=(str(path),)), LONG_NS, {}).text == "ran"
    path.chmod(mode)
    assert reason in refusal([str(path)])
    assert look(ExecCheck(argv=(str(path),)), LONG_NS, {}).text.startswith("not started: ")


def test_what_anybody_could_replace_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    tmp_path.chmod(0o777)
    assert f"its directory {tmp_path} is writable by everybody" in refusal([str(path)])
    tmp_path.chmod(0o1777)
    assert refusal([str(path)]) == ""
    assert "not a regular file" in refusal([str(tmp_path)])
    assert " null " in refusal([f"{path}\0"])
    assert refusal([]) == "the program must be an absolute path"


@pytest.mark.root
def test_a_file_of_another_user_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    os.chown(path, 65534, -1)
    assert "owned by user 65534" in refusal([str(path)])


# ---- what it prints ------------------------------------------------------------------------------------------


def test_output_is_kept_up_to_its_cap_and_read_to_its_end() -> None:
    done = run(["/bin/sh", "-c", "head -c 700000 /dev/zero; head -c 700000 /dev/zero >&2; exit 2"], {}, LONG_NS)
    assert (len(done.output), len(done.errors), done.status) == (OUTPUT_MAX, ERRORS_MAX, 2)


def test_output_that_is_no_text_is_shown_as_far_as_it_is_one() -> None:
    assert shell(r"printf 'K\366ln\000 \033[31mrot\033[0m\a\n'; exit 1").text == "K�ln rot"


def test_a_program_that_floods_costs_little_and_is_over_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = new_tag()
    reads: list[int] = []
    take_in = program._Attendance._take_in

    def count(attendance: Any) -> None:
        reads[-1] += 1
        take_in(attendance)

    def flood(limit_ns: int) -> CheckFinished:
        reads.append(0)
        return shell("exec yes 'y | a=1'", limit_ns, tag)

    monkeypatch.setattr(program._Attendance, "_take_in", count)
    finished = patiently(flood, lambda finished: finished.text, 200 * MILLISECOND)
    assert (finished.timed_out, finished.text) == (True, "it said: y")
    # At full speed by a page at least, and then once in each pause.
    assert reads[-1] < program.FLOOD_MIN // 4096 + finished.duration_ns // program.FLOOD_PAUSE_NS + 50
    assert gone(tag)


def test_a_program_may_close_its_output_early() -> None:
    finished = shell("echo early; exec >&- 2>&-; sleep 0.1; exit 2")
    assert (finished.health, finished.text) == (Health.CRITICAL, "early")
    assert finished.duration_ns >= 100 * MILLISECOND


def test_without_descriptors_of_processes_its_end_is_noticed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_descriptor_of", lambda pid: None)
    assert shell("echo a; sleep 0.05; exit 1").health == Health.WARNING
    assert shell("exec >&- 2>&-; sleep 0.05; exit 2").health == Health.CRITICAL
    assert shell("sleep 50", 50 * MILLISECOND).timed_out


# ---- what it may try -----------------------------------------------------------------------------------------

#: Each hangs, or leaves somebody behind, and all have the tag in their environment.
HANGING = {
    "sleeps": "echo begun; exec sleep 300",
    "ignores signals": "trap '' TERM INT HUP; echo begun; while :; do sleep 1; done",
    "forks": "echo begun; for i in 1 2 3 4 5; do sleep 300 & done; wait",
    "leaves its session": "echo begun; setsid sleep 300 & setsid setsid sleep 300 & wait",
    "forks twice": "echo begun; (setsid sh -c 'sleep 300 & exec sleep 300' &) ; sleep 300",
    "stops itself": "echo begun; kill -STOP $$; echo never",
    "is restarted": "echo begun; while :; do setsid sleep 300; done",
    "floods": "echo begun; (yes >&2 &); exec head -c 1000000000 /dev/zero",
    "spins": "echo begun; while :; do :; done",
}


@pytest.mark.parametrize("script", HANGING.values(), ids=HANGING)
def test_whatever_hangs_is_ended_at_its_deadline_and_leaves_nobody(script: str) -> None:
    tag = new_tag()
    outcome, limit_ns = hanging_in_hand(script, tag)
    assert tagged(tag) == []
    assert (outcome.failure, outcome.abandoned) == ("", 0)
    assert outcome.value.timed_out
    assert outcome.value.text.startswith("it said: begun")
    assert outcome.duration_ns >= limit_ns


LEAVING = {
    "a child": "sleep 300 & echo left",
    "one with another session": "setsid sleep 300 & echo left",
    "one whose parent is gone": "(setsid sh -c 'sleep 300 & setsid sleep 300 &' &); echo left",
    "one that holds the output": "sleep 300 & setsid sleep 300 & echo left",
}


@pytest.mark.parametrize("script", LEAVING.values(), ids=LEAVING)
def test_who_is_left_by_a_clean_end_is_ended_too(script: str) -> None:
    tag = new_tag()
    outcome = in_hand(script, LONG_NS, tag)
    assert tagged(tag) == []
    # Nobody waits for those who sleep for 300 s, nor is its own time over.
    assert (outcome.value.health, outcome.value.text) == (Health.OK, "left")


BOMB = """
import os, sys, time
limit = time.monotonic() + 20
while time.monotonic() < limit:
    if len(os.listdir("/proc")) < int(sys.argv[1]) and os.fork() == 0:
        os.setsid()
"""


def bomb(path: Path) -> str:
    """A script that multiplies up to some hundred processes, each with a session of its own."""
    path.write_text(BOMB)
    return f"echo begun; exec /usr/bin/env python3 {path} {len(os.listdir('/proc')) + 200}"


def vfork(path: Path) -> str:
    """A script that waits without end for a child that was made by vfork, which blocks its parent in the kernel."""
    path.write_text(
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "if libc.syscall(58) == 0:\n"  # vfork on x86-64
        "    libc.sleep(300)\n"
    )
    return f"echo begun; exec /usr/bin/env python3 {path}"


@pytest.mark.slow
@pytest.mark.needs("python3")
@pytest.mark.parametrize("make", [bomb, vfork])
def test_who_multiplies_or_blocks_in_the_kernel_is_ended_at_the_deadline(
    tmp_path: Path, make: Callable[[Path], str]
) -> None:
    tag = new_tag()
    outcome = in_hand(make(tmp_path / "program.py"), SECOND, tag)
    assert gone(tag)
    assert outcome.value is None or outcome.value.timed_out
    # With hundreds of others a busy machine may take longer to end them than the patience of a hand lasts.
    assert outcome.abandoned == 0 or make is bomb


@pytest.mark.root
@pytest.mark.slow
def test_bad_programs_do_not_move_the_others(tmp_path: Path) -> None:
    tag, bad_tag = new_tag(), new_tag()
    with freezer() as group:
        unkillable = f"echo begun; echo $$ > {group}/tasks; echo FROZEN > {group}/freezer.state; exec sleep 300"
        bad = [*HANGING.values(), bomb(tmp_path / "program.py"), unkillable]

        def own() -> Any:
            hands = Hands(JOBS, 4)
            start(hands, 0, "exit 0", LONG_NS, tag)
            outcomes(hands, 1)
            took, lags, found = [], [], []
            scripts = list(enumerate(bad, 1000))
            running = 0
            end = time.monotonic() + 40
            for number in itertools.count(1):
                if number >= 150 and not scripts and not running:
                    break
                assert time.monotonic() < end
                due = time.monotonic() + 0.03
                if scripts and running < 2:
                    bad_number, script = scripts.pop(0)
                    # That one has to come to its point.
                    limit_ns = 2 * SECOND if script is unkillable else 400 * MILLISECOND
                    start(hands, bad_number, script, limit_ns, bad_tag)
                    running += 1
                start(hands, number, "echo fine", LONG_NS, tag)
                told: list[Outcome] = []
                while time.monotonic() < due or number not in [outcome.number for outcome in told]:
                    began = time.monotonic()
                    told += turn(hands, 0.005)
                    lags.append(time.monotonic() - began)
                for outcome in told:
                    if outcome.number >= 1000:
                        running -= 1
                        found.append(outcome)
                    else:
                        took.append(outcome.duration_ns / SECOND)
                        assert outcome.value.text == "fine", "none of them waited until its time was over"
            turn_until(hands, lambda: len(hands.strays) == 1)
            (group / "freezer.state").write_text("THAWED")
            turn_until(hands, lambda: len(hands.strays) == 0)
            hands.close()
            return [sorted(took), sorted(lags), [[outcome.number, outcome.abandoned] for outcome in found]]

        took, lags, found = apart(own)
    assert gone(bad_tag) and gone(tag)
    print(f"a good check beside bad ones: median {took[len(took) // 2]:.4f} s, longest {took[-1]:.3f} s")
    print(f"longest turn of the owner's loop {lags[-1]:.3f} s")
    assert sorted(number for number, _ in found) == [1000 + number for number in range(len(bad))]
    assert sum(abandoned for _, abandoned in found) == 1


# ---- real plugins --------------------------------------------------------------------------------------------

#: What makes each say something with performance data, as far as it can without a network.
ARGUMENTS: dict[str, list[str]] = {
    "check_disk": ["-w", "5%", "-c", "1%", "-W", "5%", "-K", "1%"],
    "check_load": ["-w", "5,4,3", "-c", "10,6,4"],
    "check_swap": ["-w", "20%", "-c", "10%"],
    "check_procs": ["-w", "1:500", "-c", "1:1000", "-m", "RSS"],
    "check_users": ["-w", "5", "-c", "10"],
    "check_ping": ["-H", "127.0.0.1", "-w", "100,20%", "-c", "500,60%", "-p", "1"],
    "check_dummy": ["0", "fine | 'a b'=1s;2;3"],
    "check_file_age": ["-w", "1", "-c", "2", "-f", "/etc/passwd"],
    "check_apt": ["-t", "5"],
    "check_cluster": ["-s", "-d", "0,1,2", "-w", "1", "-c", "@2:"],
    "check_log": ["-F", "/etc/passwd", "-O", "/dev/null", "-q", "root"],
    "check_udp": ["-H", "127.0.0.1", "-p", "9", "-s", "x", "-e", "y", "-t", "1"],
    "check_tcp": ["-H", "127.0.0.1", "-p", "9"],
    "check_sensors": [],
    "check_ide_smart": ["-d", "/dev/null"],
    "check_ups": ["-H", "127.0.0.1", "-u", "none"],
    # Neither asks anybody but this host.
    "check_dhcp": ["-h"],
    "check_by_ssh": ["-H", "127.0.0.1", "-C", "true", "-t", "1"],
}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir(PLUGINS), reason="needs monitoring-plugins-basic (make deps)")
def test_all_that_real_plugins_print_is_read() -> None:
    paths = sorted(glob.glob(f"{PLUGINS}/check_*"))
    assert len(paths) >= 40
    measured: dict[str, int] = {}
    for path in paths:
        name = os.path.basename(path)
        done = run([path, *ARGUMENTS.get(name, ["-H", "127.0.0.1", "-t", "1"])], {}, 3 * SECOND)
        output = done.output.decode(errors="replace")
        finished = look(ExecCheck(argv=(path, *ARGUMENTS.get(name, ["-H", "127.0.0.1", "-t", "1"]))), 3 * SECOND, {})
        assert (finished.text or finished.timed_out) and finished.text.isprintable(), name
        assert done.timed_out or done.status in (0, 1, 2, 3), name
        if done.status in (0, 1, 2):
            said = plugin.parse(output)
            assert said.skipped == 0, output
            # Each equals sign behind the bar is one measure.
            data = output.partition("|")[2]
            assert len(said.measures) == len(re.findall(r"=[-+0-9.U]", data)), output
            if said.measures:
                measured[name] = len(said.measures)
    print(f"{len(paths)} plugins; measures: {measured}")
    assert len(measured) >= 10


def test_a_hand_runs_a_program_twice_in_the_same_process() -> None:
    def own() -> Any:
        hands = Hands(JOBS, 2)
        for number in (1, 2):
            start(hands, number, "exit 0", LONG_NS)
            outcomes(hands, 1)
        forks = hands.forks
        hands.close()
        return [forks, reaper.children(os.getpid())]

    assert apart(own) == [1, []]


def test_a_program_dies_with_its_hand_and_a_hand_with_its_owner() -> None:
    tag, other = new_tag(), new_tag()

    def own() -> Any:
        hands = Hands(JOBS, 2)
        start(hands, 1, "exec sleep 300", LONG_NS, tag)
        turn_until(hands, lambda: bool(tagged(tag)))
        os.kill(hands.pids()[0], signal.SIGKILL)
        told = [outcome.failure for outcome in outcomes(hands, 1)]
        start(hands, 2, "exec sleep 300", LONG_NS, other)
        turn_until(hands, lambda: bool(tagged(other)))
        return told

    # It ends without closing its hands.
    assert apart(own) == ["died"]
    assert gone(tag)
    assert gone(other)


def test_a_crash_writes_no_core() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        assert in_hand("ulimit -c").value.text == "0"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.parametrize(
    ("printed", "health"),
    [
        ("OK\\000\\001", Health.UNKNOWN),
        ("\\177ELF\\002", Health.UNKNOWN),
        ("OK 21 \\260C", Health.OK),
        ("\\033[32mOK\\033[0m\\tfine\\r\\n", Health.OK),
    ],
)
def test_an_exit_status_of_0_is_not_believed_of_a_program_that_prints_no_text(printed: str, health: Health) -> None:
    found = look(ExecCheck(argv=("/bin/sh", "-c", f"printf '{printed}'")), LONG_NS, {})
    assert found.health is health, found.text


# ---- what it may use -----------------------------------------------------------------------------------------


def test_a_program_that_wants_more_memory_than_it_may_have_fails_alone() -> None:
    words = f"data = bytearray({program.DATA_MAX // 2}); print('half', flush=True); bytearray({program.DATA_MAX})"
    done = run([sys.executable, "-I", "-S", "-c", words], {}, LONG_NS)
    assert (done.status, done.output) == (1, b"half\n")
    assert b"MemoryError" in done.errors


def test_memory_that_a_runtime_reserves_and_does_not_fill_is_not_counted() -> None:
    words = f"import mmap; mmap.mmap(-1, {4 * program.DATA_MAX}, mmap.MAP_PRIVATE, mmap.PROT_READ); print('fine')"
    assert run([sys.executable, "-I", "-S", "-c", words], {}, LONG_NS).output == b"fine\n"


def test_a_program_gets_the_other_limits_too() -> None:
    done = run(["/bin/sh", "-c", "ulimit -c; ulimit -n; ulimit -f"], {}, LONG_NS)
    core, files, size = map(int, done.output.split())
    assert (core, files <= program.FILES_MAX) == (0, True)
    assert size * 512 <= program.FILE_SIZE_MAX


@pytest.mark.root
def test_one_that_forks_without_end_gets_stuck_before_its_user_does() -> None:
    user = lonely_user()

    def bomb(*_: object) -> CheckFinished:
        os.setgid(user)
        os.setuid(user)
        # What was counted as root.
        program._tasks.cache_clear()
        count = f"i=0; while [ $i -le {program.PROCESSES_MAX} ]; do sleep 300 & i=$((i+1)); done; echo all"
        found = shell(count)
        # The hand may go on.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return found

    def own() -> Any:
        hands = Hands({"bomb": Job(bomb, int, CheckFinished)}, 1)
        hands.start(1, "bomb", 0, LONG_NS, time.monotonic_ns())
        (outcome,) = outcomes(hands, 1)
        hands.close()
        return outcome

    outcome = convert(apart(own))
    assert outcome.failure == "", outcome.text
    assert "fork" in outcome.value.text.lower()
    assert "all" not in outcome.value.text
