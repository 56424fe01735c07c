"""A hook may do anything; the runner's promises hold all the same. Real processes, each bounded by seconds.

Each run has a fork of its own that is a subreaper, as a hand is.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hbagent.core.effects import RunHook
from hbagent.core.messages import HookFinished
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.hooks import runner
from hbagent.hooks.runner import (
    FILE_SIZE_MAX,
    FILES_MAX,
    MEMORY_MAX,
    OUTPUT_MAX,
    PROCESSES_MAX,
    TASKS_MAX,
    check,
    perform,
    tasks_allowed,
)
from hbagent.offspring import reaper
from tests.descriptors import descriptors
from tests.offspring.owning import apart, gone, lonely_user, new_tag, tagged
from tests.patience import patiently
from tests.reporting import wait_for

LONG_NS = 20 * SECOND


@pytest.fixture
def quick_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time from SIGTERM to SIGKILL that a test can afford."""
    monkeypatch.setattr(runner, "GRACE_NS", 100 * MILLISECOND)


def in_hand(function: Callable[[], HookFinished]) -> HookFinished:
    """What `function` returns, called in a process that ends afterwards all that it started."""

    def work() -> HookFinished:
        finished = function()
        assert reaper.clear() == []
        return finished

    return msgspec.convert(apart(work), HookFinished)


def run(
    argv: Sequence[str],
    input: bytes,
    timeout_ns: int,
    env_extra: Mapping[str, str] | None = None,
    run_id: str = "",
    tasks_max: int | None = None,
) -> HookFinished:
    return in_hand(lambda: runner.run(argv, input, timeout_ns, env_extra, run_id, tasks_max))


def shell(script: str, input: bytes = b"", timeout_ns: int = LONG_NS, run_id: str = "run-1") -> HookFinished:
    return run(["/bin/sh", "-c", script], input, timeout_ns, {}, run_id)


def hanging(script: str, lines: int = 1) -> tuple[HookFinished, int]:
    """What comes of a script that does not end by itself and has printed so many lines at its time limit, and what that
    was in the end."""
    limits = []

    def attempt(limit_ns: int) -> HookFinished:
        limits.append(limit_ns)
        return shell(script, timeout_ns=limit_ns)

    return patiently(attempt, lambda finished: finished.output.count(b"\n") >= lines, 150 * MILLISECOND), limits[-1]


def is_gone(pid: int) -> bool:
    """True when no such process runs, or it has ended and nobody has waited for it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    """SIGKILL takes effect when the kernel gets to it; the bound is for a hang, not for speed."""
    assert wait_for(lambda: is_gone(pid)), f"process {pid} is still there"


# ---- what a hook gets ------------------------------------------------------------------------------------------


def test_a_hook_gets_its_input_and_its_output_comes_back() -> None:
    finished = run(["/bin/cat"], b'{"schema":1}', LONG_NS, {}, "run-7")
    assert (finished.run_id, finished.exit_code, finished.error) == ("run-7", 0, "")
    assert (finished.output, finished.truncated) == (b'{"schema":1}', False)
    assert 0 < finished.duration_ns < LONG_NS


def test_output_and_errors_come_in_one_stream() -> None:
    assert shell("echo one; echo two >&2; echo three").output == b"one\ntwo\nthree\n"


def test_a_hook_sees_only_the_environment_made_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "leak")
    extra = {"HBAGENT_EVENT_ID": "event-1", "HBAGENT_KIND": "node-dead"}
    finished = run(["/usr/bin/env"], b"", LONG_NS, extra, "run-1")
    assert sorted(finished.output.decode().split()) == [
        "HBAGENT_EVENT_ID=event-1",
        "HBAGENT_KIND=node-dead",
        f"HBAGENT_PYTHON={sys.executable}",
        "HBAGENT_RUN_ID=run-1",
        "HBAGENT_SCHEMA=1",
        "LANG=C.UTF-8",
        "PATH=/usr/bin:/bin",
    ]


def test_a_hook_runs_in_the_root_directory_and_its_own_session() -> None:
    words = shell("pwd; echo $$; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat").output.split()
    assert words[0] == b"/"
    assert words[1] == words[2]


def test_a_hook_inherits_no_open_file() -> None:
    with Path("/dev/null").open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        listing = shell("ls /proc/self/fd").output.split()
    # 3 is the directory that `ls` reads.
    assert listing == [b"0", b"1", b"2", b"3"]


# ---- how a hook may end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "exit_code", "error"),
    [("exit 0", 0, ""), ("exit 3", 3, "exit 3"), ("kill -9 $$", None, "signal 9"), ("kill -15 $$", None, "signal 15")],
)
def test_the_end_of_a_hook_is_told(script: str, exit_code: int | None, error: str) -> None:
    finished = shell(script)
    assert (finished.exit_code, finished.error) == (exit_code, error)


def test_a_hook_that_is_missing_is_a_failure_and_no_exception() -> None:
    finished = run(["/nonexistent/hook"], b"", LONG_NS, {}, "run-1")
    assert (finished.exit_code, finished.error) == (None, "not started: No such file or directory")


def test_a_hook_that_cannot_be_executed_is_a_failure_and_no_exception(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n")
    assert run([str(hook)], b"", LONG_NS).error == "not started: Permission denied"
    hook.write_bytes(b"\x7fELFnot")
    hook.chmod(0o755)
    assert run([str(hook)], b"", LONG_NS).error == "not started: Exec format error"


def test_a_value_that_no_environment_can_hold_is_a_failure_and_no_exception() -> None:
    assert run(["/bin/true"], b"", LONG_NS, {"HBAGENT_KIND": "a\0b"}).error.startswith("not started: ")


def test_a_hook_that_closes_its_output_early_is_waited_for() -> None:
    finished = shell("exec >&- 2>&-; read line; sleep 0.1; exit 5", b"x\n")
    assert (finished.exit_code, finished.error) == (5, "exit 5")
    assert finished.duration_ns >= 100 * MILLISECOND


# ---- what a hook may try ---------------------------------------------------------------------------------------


def test_a_hook_that_hangs_is_ended_at_its_time_limit() -> None:
    finished, limit_ns = hanging("echo begun; exec sleep 300")
    assert (finished.exit_code, finished.error) == (None, "timeout")
    assert finished.output == b"begun\n"
    assert finished.duration_ns >= limit_ns


def test_a_hook_can_tidy_up_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE_NS", LONG_NS)
    script = "trap 'echo tidied; exit 0' TERM; echo begun; while :; do sleep 0.01; done"
    finished, _ = hanging(script)
    assert (finished.exit_code, finished.error) == (None, "timeout")
    assert finished.output.endswith(b"tidied\n")


@pytest.mark.usefixtures("quick_grace")
def test_a_hook_that_ignores_sigterm_is_killed() -> None:
    finished, limit_ns = hanging("trap '' TERM; echo $$; while :; do sleep 1; done")
    assert finished.error == "timeout"
    assert finished.duration_ns >= limit_ns + runner.GRACE_NS
    wait_until_gone(int(finished.output))


@pytest.mark.usefixtures("quick_grace")
def test_a_flood_of_output_is_cut_and_costs_little() -> None:
    take = runner._Attendance._take

    def flooded(limit_ns: int) -> HookFinished:
        reads = []

        def count(attendance: Any) -> None:
            reads.append(1)
            take(attendance)

        # In a process of its own, like all that is called in a hand.
        runner._Attendance._take = count  # type: ignore[method-assign,assignment]
        finished = runner.run(["/bin/sh", "-c", "exec yes"], b"", limit_ns)
        # At full speed by a page at least, and then once in each pause.
        assert len(reads) < OUTPUT_MAX // 4096 + finished.duration_ns // runner.FLOOD_PAUSE_NS + 50
        return finished

    finished = patiently(
        lambda limit_ns: in_hand(lambda: flooded(limit_ns)), lambda finished: finished.truncated, 300 * MILLISECOND
    )
    assert finished.error == "timeout"
    assert finished.output == b"y\n" * (OUTPUT_MAX // 2)
    assert finished.truncated


def test_a_hook_that_prints_much_is_not_held_up() -> None:
    finished = shell("head -c 3000000 /dev/zero; exit 6")
    assert (finished.exit_code, len(finished.output), finished.truncated) == (6, OUTPUT_MAX, True)


def test_output_up_to_the_cap_is_whole() -> None:
    finished = shell(f"head -c {OUTPUT_MAX} /dev/zero")
    assert (len(finished.output), finished.truncated, finished.error) == (OUTPUT_MAX, False, "")


def test_a_hook_that_never_reads_its_input_blocks_nobody() -> None:
    finished = shell("exit 0", b"x" * 5_000_000)
    assert finished.error == ""


def test_a_large_input_arrives_whole() -> None:
    assert shell("wc -c", b"x" * 5_000_000).output.strip() == b"5000000"


def test_a_child_that_holds_the_output_open_is_neither_waited_for_nor_left() -> None:
    finished = shell("sleep 300 & echo $!")
    assert (finished.exit_code, finished.error) == (0, "")
    wait_until_gone(int(finished.output))


@pytest.mark.usefixtures("quick_grace")
def test_the_whole_tree_of_a_hook_that_hangs_is_killed() -> None:
    script = "trap '' TERM; (trap '' TERM; sleep 300 & echo $!; wait) & echo $!; wait"
    finished, _ = hanging(script, 2)
    assert finished.error == "timeout"
    pids = [int(word) for word in finished.output.split()]
    assert len(pids) == 2
    for pid in pids:
        wait_until_gone(pid)


#: Leaves its session twice, its parent and its environment, and ignores what a polite end is.
ESCAPE = """trap '' TERM
env -i X={tag} setsid sh -c 'trap "" TERM; setsid sh -c "trap \\"\\" TERM; sleep 300; sleep 300" & sleep 300' &
sleep 0.1; {end}"""


@pytest.mark.usefixtures("quick_grace")
@pytest.mark.parametrize(("end", "error"), [("wait", "timeout"), ("exit 0", ""), ("exit 3", "exit 3")])
def test_who_left_the_session_and_the_environment_dies_with_the_run(end: str, error: str) -> None:
    tag = new_tag()
    finished = shell(ESCAPE.format(tag=tag, end=end), timeout_ns=400 * MILLISECOND if end == "wait" else LONG_NS)
    assert finished.error == error
    assert gone(tag)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_grace")
def test_runs_at_once_are_told_apart_whatever_leaves_their_sessions(tmp_path: Path) -> None:
    own, other = new_tag(), new_tag()
    script = ESCAPE.format(tag=other, end=f"until [ -e {tmp_path}/end ]; do sleep 0.05; done")
    slow = threading.Thread(target=shell, args=(script,))
    slow.start()
    assert wait_for(lambda: bool(tagged(other)))
    assert shell(ESCAPE.format(tag=own, end="wait"), timeout_ns=400 * MILLISECOND).error == "timeout"
    assert gone(own)
    assert tagged(other), "the other run goes on"
    (tmp_path / "end").touch()
    slow.join(30)
    assert gone(other)


@pytest.mark.slow
def test_hooks_do_not_hold_up_one_another(tmp_path: Path) -> None:
    script = f"touch {tmp_path}/begun; until [ -e {tmp_path}/end ]; do sleep 0.05; done"
    slow = threading.Thread(target=shell, args=(script,))
    slow.start()
    assert wait_for((tmp_path / "begun").exists)
    assert shell("exit 0").error == ""
    assert slow.is_alive()
    (tmp_path / "end").touch()
    slow.join(30)
    assert not slow.is_alive()


def test_no_run_leaves_a_descriptor_or_a_zombie() -> None:
    def counted() -> HookFinished:
        before = descriptors()
        for script in ("exit 0", "exit 1", "kill -9 $$", "sleep 300 & exit 0"):
            runner.run(["/bin/sh", "-c", script], b"", LONG_NS)
        runner.run(["/bin/sleep", "300"], b"", 10 * MILLISECOND)
        finished = runner.run(["/nonexistent/hook"], b"", LONG_NS)
        # The group's children come to the subreaper as they die.
        assert reaper.clear() == []
        assert descriptors() <= before
        assert reaper.children(os.getpid()) == []
        return finished

    in_hand(counted)


# ---- what a hook may have ------------------------------------------------------------------------------------


def test_a_hook_that_multiplies_is_ended_long_before_its_time() -> None:
    tag = new_tag()
    bomb = f"export X={tag}; i=0; while [ $i -lt 200 ]; do sleep 300 & i=$((i+1)); done; echo 200; wait"
    finished = shell(bomb)
    assert (finished.exit_code, finished.error) == (None, f"more than {PROCESSES_MAX} processes")
    assert gone(tag)


def test_processes_that_have_ended_do_not_count() -> None:
    # Each has ended before the next begins: it would hold the pipe open that the shell reads to its end.
    script = f"i=0; while [ $i -lt {PROCESSES_MAX + 20} ]; do x=$( (setsid true &) ); i=$((i+1)); done; echo done"
    finished = shell(script)
    assert (finished.error, finished.output) == ("", b"done\n")


def test_a_hook_has_limits_and_leaves_no_core() -> None:
    words = (
        "import resource as r; "
        "print(*[r.getrlimit(n) for n in (r.RLIMIT_CORE, r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_AS)])"
    )
    finished = run([sys.executable, "-c", words], b"", LONG_NS)
    wanted = []
    for number, limit in zip(
        (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS),
        (0, FILES_MAX, FILE_SIZE_MAX, MEMORY_MAX),
        strict=True,
    ):
        hard = resource.getrlimit(number)[1]
        least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        wanted.append(f"({least}, {least})")
    assert finished.output.decode().strip() == " ".join(wanted)


def test_a_hook_that_opens_everything_gets_so_many_files() -> None:
    words = """
import os
opened = 0
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
        opened += 1
except OSError as error:
    print(opened, error.strerror)
"""
    finished = run([sys.executable, "-c", words], b"", LONG_NS)
    opened, _, why = finished.output.decode().strip().partition(" ")
    assert (int(opened) <= FILES_MAX, why) == (True, "Too many open files")


@pytest.mark.root
def test_a_user_who_is_not_root_is_limited_by_the_kernel_as_well() -> None:
    user = lonely_user()

    def limited() -> HookFinished:
        os.setuid(user)
        allowed = tasks_allowed()
        assert allowed is not None and allowed >= TASKS_MAX
        # As if hooks might add no more than three tasks.
        bomb = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 300 & done; echo all"
        return runner.run(["/bin/sh", "-c", bomb], b"", LONG_NS, tasks_max=allowed - TASKS_MAX + 3)

    finished = in_hand(limited)
    assert finished.error.startswith("exit")
    assert b"fork" in finished.output.lower()
    assert b"all" not in finished.output


def test_root_has_no_such_limit_for_the_kernel_would_not_hold_it() -> None:
    assert (tasks_allowed() is None) == (os.geteuid() == 0)


# ---- as the root orders it -----------------------------------------------------------------------------------


def order(*argv: str, input: bytes = b'{"event_id":"e-1","kind":"node-dead"}') -> RunHook:
    return RunHook(run_id="e-1-page", hook="page", argv=argv, timeout_ns=LONG_NS, input=input)


def test_an_order_is_carried_out_with_what_its_document_says_in_the_environment() -> None:
    finished = in_hand(lambda: perform(order("/bin/sh", "-c", "echo $HBAGENT_EVENT_ID $HBAGENT_KIND $HBAGENT_RUN_ID")))
    assert (finished.run_id, finished.output) == ("e-1-page", b"e-1 node-dead e-1-page\n")


@pytest.mark.parametrize("input", [b"", b"no json", b'{"event_id":7}', b"[]"])
def test_an_order_with_any_document_is_carried_out(input: bytes) -> None:
    assert in_hand(lambda: perform(order("/bin/cat", input=input))).output == input


def test_a_file_that_may_not_be_run_any_more_is_not_run(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\necho ran\n")
    hook.chmod(0o755)
    assert in_hand(lambda: perform(order(str(hook)))).output == b"ran\n"
    hook.chmod(0o777)
    finished = in_hand(lambda: perform(order(str(hook))))
    assert (finished.exit_code, finished.output) == (None, b"")
    assert finished.error.startswith("not started: ") and "writable" in finished.error


# ---- which files may be hooks ----------------------------------------------------------------------------------


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    path = tmp_path / "hook.sh"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


def test_an_executable_file_of_ours_may_be_a_hook(hook: Path) -> None:
    assert check([str(hook), "with", "arguments"]) == ""
    assert check([sys.executable]) == ""


@pytest.mark.parametrize(("mode", "reason"), [(0o775, "writable by group"), (0o757, "writable"), (0o644, "executable")])
def test_a_file_with_the_wrong_mode_may_not(hook: Path, mode: int, reason: str) -> None:
    hook.chmod(mode)
    assert reason in check([str(hook)])


def test_a_command_without_a_full_path_may_not() -> None:
    for argv in ([], ["hook.sh"], ["./hook.sh"], [""]):
        assert check(argv) == "the command must be an absolute path"


def test_what_is_no_regular_file_may_not(hook: Path, tmp_path: Path) -> None:
    assert "not a regular file" in check([str(tmp_path)])
    assert "not a regular file" in check(["/dev/null"])
    assert "No such file" in check([str(tmp_path / "absent")])
    assert " null " in check([f"{hook}\0"])
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert check([str(loop)]) != ""


def test_a_link_is_judged_by_what_it_leads_to(hook: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(hook)
    assert check([str(link)]) == ""
    hook.chmod(0o777)
    assert "writable" in check([str(link)])


def test_a_file_that_anybody_could_replace_may_not(hook: Path) -> None:
    hook.parent.chmod(0o777)
    assert f"its directory {hook.parent} is writable by everybody" in check([str(hook)])
    hook.parent.chmod(0o1777)
    assert check([str(hook)]) == ""


@pytest.mark.root
def test_a_file_of_another_user_may_not(hook: Path) -> None:
    os.chown(hook, 65534, -1)
    assert "owned by user 65534" in check([str(hook)])
