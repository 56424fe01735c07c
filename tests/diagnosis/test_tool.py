"""A foreign program cannot be chosen by anybody else, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from hbagent.demo.datacenter import wait_until
from hbagent.diagnosis import apart, tool

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
    done = tool.run([SH, "-c", "env; cat; pwd"], 10, 4096)
    assert b"SECRET" not in done.output
    assert done.output.endswith(b"/\n")
    assert (done.error, done.took_ns > 0) == ("", True)


def test_what_went_wrong_is_told_in_its_own_words() -> None:
    assert tool.run([SH, "-c", "echo no such thing >&2; exit 3"], 10, 4096).error == "exit 3: no such thing"
    assert tool.run([SH, "-c", "kill -9 $$"], 10, 4096).error == "signal 9"
    assert tool.run(["/nonexistent"], 10, 4096).error.startswith("not started: ")


def test_one_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = tool.run([SH, "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], 0.3, 4096)
    assert (done.error, time.monotonic() - begun < 5) == ("timeout", True)
    child = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: is_gone(child), 5)


def test_one_that_only_closes_its_output_is_killed_too() -> None:
    assert tool.run([SH, "-c", "exec >&- 2>&-; sleep 60"], 0.3, 4096).error == "timeout"


def test_one_that_prints_without_end_is_ended() -> None:
    done = tool.run([SH, "-c", "yes"], 10, 1 << 20)
    assert (done.error, len(done.output)) == ("more than 1 MiB", 1 << 20)


def test_it_dies_with_whoever_started_it(tmp_path: Path) -> None:
    command = f"echo $$ > {tmp_path}/pid; exec sleep 60"

    def work() -> bytes:
        tool.run([SH, "-c", command], 60, 4096)
        return b""

    apart.run(work, 500_000_000)
    assert wait_until(lambda: is_gone(int((tmp_path / "pid").read_text())), 5)


def test_a_watcher_is_called_meanwhile() -> None:
    calls: list[int] = []
    tool.run([sys.executable, "-c", "import time; time.sleep(0.1)"], 10, 4096, lambda: calls.append(1))
    assert len(calls) > 20


def is_gone(pid: int) -> bool:
    """Ended, or a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
