"""`hbagent console` as it is called."""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.cli import main, query
from hbagent.console.console_cmd import add_arguments, targets

ROOT = Path(__file__).parents[2]


def test_without_textual_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    assert main(["console"]) == 69
    assert "pip install 'hbagent[console]'" in capsys.readouterr().err


def test_its_help_and_the_other_commands_need_no_textual(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; sys.modules['textual'] = sys.modules['rich'] = None; from hbagent.cli import main;"
        "from hbagent.cli.tree import commands; commands(); sys.exit(main(['console', '--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("stream", "name"), [("stdin", "standard input"), ("stdout", "standard output"), ("stderr", "standard error")]
)
def test_what_is_no_terminal_is_named(stream: str, name: str, tmp_path: Path) -> None:
    controller, follower = pty.openpty()
    command = [sys.executable, "-m", "hbagent", "console", "--socket", "ipc:///nowhere"]
    with (tmp_path / "elsewhere").open("w+b") as elsewhere:
        streams = {"stdin": follower, "stdout": follower, "stderr": follower} | {stream: elsewhere}
        done = subprocess.run(command, **streams, cwd=ROOT, timeout=30)  # type: ignore[call-overload]
        elsewhere.seek(0)
        os.close(follower)
        said = elsewhere.read() if stream == "stderr" else everything(controller)
    os.close(controller)
    assert done.returncode == 64
    assert f"needs a terminal, and {name} is none" in " ".join(said.decode().split())


def everything(controller: int) -> bytes:
    """What was written to a terminal that nobody writes to any more."""
    parts = []
    with contextlib.suppress(OSError):
        while part := os.read(controller, 10_000):
            parts.append(part)
    return b"".join(parts)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def write(path: Path, role: str) -> Path:
    text = (ROOT / "etc" / f"{role}.toml").read_text()
    path.write_text(text)
    return path


def test_a_leader_on_this_host_stands_in_for_its_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, leader = tmp_path / "root.toml", tmp_path / "leader.toml"
    for path, role in ((root, "root"), (leader, "leader")):
        path.write_text(f'[{role}]\nquery = "ipc:///run/hbagent-{role}/{role}.sock"\n')
    monkeypatch.setattr(query, "DEFAULT_CONFIGS", (root, leader))
    assert [one.role for one in targets(parsed("--config", str(root)))] == ["root", "leader"]
    assert [one.role for one in targets(parsed("--config", str(leader)))] == ["leader"]
    assert [one.role for one in targets(parsed("--config", str(root), "--else", str(leader)))] == ["root", "leader"]
    assert [one.endpoint for one in targets(parsed("--socket", "ipc:///x/y.sock"))] == ["ipc:///x/y.sock"]
    leader.unlink()
    assert [one.role for one in targets(parsed("--config", str(root)))] == ["root"]
