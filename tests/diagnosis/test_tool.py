"""A foreign program cannot be chosen by anybody else, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbagent.core.units import MILLISECOND, SECOND
from hbagent.demo.datacenter import wait_until
from hbagent.diagnosis import apart, tool
from tests.patience import patiently

SH = "/bin/sh"


def script(path: Path, text: str = "exit 0", mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{SH}\n{text}\n")
    path.chmod(mode)
    return path


def test_an_installed_program_is_found_in_the_first_of_its_places(tmp_path: Path) -> None:
    script(tmp_path / "b" / "look")
    wanted = script(tmp_path / "a" / "look")
    assert tool.find("look", (str(tmp_path / "none"), str(tmp_path / "a"), str(tmp_path / "b"))) == str(wanted)
    assert tool.find("look", (f"{tmp_path}/*",)) == str(tmp_path / "b" / "look")
    assert tool.find("other", (str(tmp_path),)) == ""


@pytest.mark.parametrize("mode", [0o757, 0o775, 0o644])
def test_a_program_that_others_may_write_to_or_nobody_may_run_is_not_found(tmp_path: Path, mode: int) -> None:
    script(tmp_path / "a" / "look", mode=mode)
    assert tool.find("look", (str(tmp_path / "a"),)) == ""


def test_a_program_in_a_directory_that_others_may_write_to_is_not_found(tmp_path: Path) -> None:
    script(tmp_path / "a" / "look")
    (tmp_path / "a").chmod(0o777)
    assert tool.find("look", (str(tmp_path / "a"),)) == ""


@pytest.mark.root
def test_a_program_of_another_user_is_not_found_even_behind_a_link(tmp_path: Path) -> None:
    theirs = script(tmp_path / "theirs" / "look")
    os.chown(theirs, 65534, 65534)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "look").symlink_to(theirs)
    assert tool.find("look", (str(tmp_path / "a"),)) == ""


def test_it_has_a_clean_environment_and_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    done = tool.run([SH, "-c", "env; cat; pwd"], 30, 4096)
    assert b"SECRET" not in done.output
    assert done.output.endswith(b"/\n")
    assert (done.error, done.took_ns > 0) == ("", True)


def test_what_went_wrong_is_told_in_its_own_words() -> None:
    assert tool.run([SH, "-c", "echo no such thing >&2; exit 3"], 30, 4096).error == "exit 3: no such thing"
    assert tool.run([SH, "-c", "kill -9 $$"], 30, 4096).error == "signal 9"
    assert tool.run(["/nonexistent"], 30, 4096).error.startswith("not started: ")


def test_one_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    def attempt(limit_ns: int) -> tool.Outcome:
        return tool.run([SH, "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait"], limit_ns / SECOND, 4096)

    done = patiently(attempt, lambda _: said(tmp_path / "pid"), 300 * MILLISECOND)
    assert done.error == "timeout"
    assert wait_until(lambda: is_gone(int(said(tmp_path / "pid"))), 30)


def test_one_that_only_closes_its_output_is_killed_too() -> None:
    assert tool.run([SH, "-c", "exec >&- 2>&-; sleep 60"], 0.3, 4096).error == "timeout"


def test_one_that_prints_without_end_is_ended() -> None:
    done = tool.run([SH, "-c", "yes"], 30, 1 << 20)
    assert (done.error, len(done.output)) == ("more than 1 MiB", 1 << 20)


def test_it_dies_with_whoever_started_it(tmp_path: Path) -> None:
    command = f"echo $$ > {tmp_path}/pid; exec sleep 60"

    def work() -> bytes:
        tool.run([SH, "-c", command], 60, 4096)
        return b""

    patiently(lambda limit_ns: apart.run(work, limit_ns), lambda _: said(tmp_path / "pid"), 300 * MILLISECOND)
    assert wait_until(lambda: is_gone(int(said(tmp_path / "pid"))), 30)


def test_a_watcher_is_called_meanwhile(tmp_path: Path) -> None:
    calls: list[int] = []

    def watch() -> None:
        calls.append(1)
        if len(calls) == 20:
            (tmp_path / "end").touch()

    done = tool.run([SH, "-c", f"until [ -e {tmp_path}/end ]; do sleep 0.01; done"], 30, 4096, watch)
    assert (done.error, len(calls) >= 20) == ("", True)


def said(path: Path) -> str:
    """What is in a file; "" when it is not there."""
    return path.read_text().strip() if path.exists() else ""


def is_gone(pid: int) -> bool:
    """Ended, or a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
