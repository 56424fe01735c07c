"""`hbagent notify`, as a script calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import EXIT_UNAVAILABLE, EXIT_USAGE, main
from tests.reporting import BOUND_S, Listener

ROOT = Path(__file__).parents[2]


@pytest.fixture
def listener(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    made = Listener(socket_dir / "notify")
    monkeypatch.setenv("HBAGENT_NOTIFY", made.address)
    yield made
    made.close()


def test_words_are_told_as_they_are_given(listener: Listener) -> None:
    assert main(["notify", "READY=1", "STATUS=copied 3 of 4"]) == 0
    assert listener.until(lambda: len(listener.heard) == 1)
    assert listener.heard[0].fields == (("READY", "1"), ("STATUS", "copied 3 of 4"))
    assert listener.socket.counts["barrier"] == 1


def test_a_job_names_itself_says_how_it_ended_and_when_it_comes_again(listener: Listener) -> None:
    assert main(["notify", "--app", "backup", "--ttl", "25h", "--result", "0", "--pid"]) == 0
    assert listener.until(lambda: len(listener.heard) == 1)
    assert listener.heard[0].fields == (
        ("X_HBAGENT_APP", "backup"),
        ("X_HBAGENT_RESULT", "0"),
        ("X_HBAGENT_TTL_USEC", str(25 * 3600 * 1_000_000)),
        ("MAINPID", str(os.getppid())),
    )


def test_a_command_that_has_ended_was_seen_with_its_ancestors(listener: Listener) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m hbagent notify WATCHDOG=1; true'], cwd=ROOT, timeout=BOUND_S, check=False
    )
    assert done.returncode == 0
    assert listener.until(lambda: len(listener.heard) == 1)
    assert listener.heard[0].start > 0
    assert os.getpid() in listener.heard[0].ancestors[:3]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to tell"),
        (["READY"], "KEY=VALUE"),
        (["STATUS=a\nREADY=1"], "KEY=VALUE"),
        (["STATUS=" + "x" * 5000], "5,007 bytes; the agent and systemd take 4,096"),
        (["READY=1", "--app", "a/b"], "cannot be a name"),
        (["--ttl", "tomorrow"], "not a duration"),
        (["--result", "256"], "0 to 255"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    listener: Listener, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(["notify", *arguments]) == EXIT_USAGE
    assert complaint in capsys.readouterr().err
    assert listener.heard == []


def test_nobody_there_is_said_and_is_no_success(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notify", "--socket", str(socket_dir / "none"), "READY=1"]) == EXIT_UNAVAILABLE
    assert str(socket_dir / "none") in capsys.readouterr().err


def test_it_starts_without_any_library() -> None:
    code = (
        "import sys; from hbagent.cli import main; main(['notify', '--socket', '/nonexistent/x', 'READY=1']);"
        "print([n for n in ('zmq', 'psutil', 'loguru', 'msgspec', 'hbagent.role', 'subprocess') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=BOUND_S)
    assert done.stdout == "[]\n"
