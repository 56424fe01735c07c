"""`hbagent console` for real: a terminal of tmux, a demo, an agent that is killed, and the keys."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hbagent.demo.datacenter import Plan, wait_until
from tests.conftest import Figures
from tests.e2e.fleet import Fleet

pytestmark = [pytest.mark.e2e, pytest.mark.needs("tmux"), pytest.mark.paired, pytest.mark.timeout(120)]


class Tmux:
    """A terminal of 80 columns and 24 lines in which one command runs."""

    def __init__(self, directory: Path, *command: str) -> None:
        self._socket = str(directory / "tmux")
        kept = ("PATH", "HOME", "PYTHONPATH", "TMPDIR")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        self._environment = {**environment, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
        #: How the command ended stands here.
        self.ended = directory / "ended"
        line = f"{shlex.join(command)}; echo $? >{shlex.quote(str(self.ended))}; sleep 60"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", line)

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", self._socket, *words],
            capture_output=True,
            text=True,
            timeout=20,
            env=self._environment,
            check=True,
        )
        return done.stdout

    def screen(self) -> list[str]:
        return self.tmux("capture-pane", "-p").splitlines()

    def press(self, *keys: str) -> None:
        """Keys by their names for tmux."""
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def shows(self, is_there: Callable[[list[str]], bool], seconds: float = 30) -> bool:
        return wait_until(lambda: is_there(self.screen()), seconds)

    def says(self, text: str, seconds: float = 30) -> bool:
        """Whether a text comes to be shown."""
        if self.shows(lambda lines: text in "\n".join(lines), seconds):
            return True
        print("\n".join(self.screen()))
        return False

    def has_ended(self) -> bool:
        """Whether the command comes to its end, and a good one."""
        return wait_until(lambda: self.ended.exists() and self.ended.read_text() == "0\n", 20)

    def kill(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, timeout=20)


@pytest.fixture
def site(socket_dir: Path) -> Iterator[Fleet]:
    """A root, a leader and three agents."""
    datacenter = Fleet(socket_dir / "d", Plan(racks=1, nodes=3))
    datacenter.write()
    datacenter.start()
    yield datacenter
    datacenter.stop()


@pytest.fixture
def terminal(site: Fleet, socket_dir: Path) -> Iterator[Tmux]:
    command = [sys.executable, "-m", "hbagent", "console", "--config", str(site.config("root"))]
    shown = Tmux(socket_dir, *command, "--else", str(site.config("rack1-leader1")))
    yield shown
    shown.kill()


def cells(lines: list[str]) -> str:
    """The cells of the one rack."""
    return next((line.split()[1] for line in lines if "rack1 " in line[:12] and len(line.split()) > 1), "")


def test_a_killed_agent_turns_its_cell_and_the_keys_do_what_they_say(
    site: Fleet, terminal: Tmux, figures: Figures
) -> None:
    assert terminal.says("all 3 nodes ALIVE", 40)
    assert terminal.says("rack1 ✓✓✓")
    site.prove()
    begun = time.monotonic()
    site.processes["rack1-node2"].kill()
    assert terminal.says("rack1 ✓✗✓")
    figures("console", f"a killed agent turned its cell after {time.monotonic() - begun:.2f} s (within 3 s)")
    assert terminal.says("process-exit")
    terminal.press("Enter")
    assert terminal.says("all racks › node2")
    assert terminal.says("Who observes")
    terminal.press("a")
    assert terminal.says("Acknowledge i")
    terminal.type("it is looked at")
    terminal.press("Enter")
    assert terminal.says("is acknowledged")
    terminal.press("Escape")
    assert terminal.says("! acknowledged")
    # Typed ahead of the dialog.
    terminal.press("s", "Enter")
    terminal.type("a new disk")
    terminal.press("Enter")
    assert terminal.says("silenced")
    terminal.press("S")
    assert terminal.says("a new disk")
    terminal.press("Down", "u")
    assert terminal.says("there is none")
    # Escape and what follows at once would be one key.
    terminal.press("Escape")
    assert terminal.says("Problems (1)")
    terminal.press("/")
    terminal.type("node9")
    terminal.press("Enter")
    assert terminal.says("none that the filter lets through")
    terminal.press("q")
    assert terminal.has_ended()


def test_a_root_that_hangs_makes_it_grey_and_a_leader_stands_in(site: Fleet, terminal: Tmux) -> None:
    assert terminal.says("root demo/root", 40)
    root = site.processes["root"]
    root.send_signal(signal.SIGSTOP)
    try:
        assert terminal.says("leader demo/rack1-leader1 stands in", 20)
        assert terminal.says("rack1 ✓✓✓")
        # While everybody hangs nothing that is shown counts as new.
        leader = site.processes["rack1-leader1"]
        leader.send_signal(signal.SIGSTOP)
        try:
            assert terminal.says("OLD DATA", 20)
            terminal.press("?")
            assert terminal.says("the next pane")
        finally:
            leader.send_signal(signal.SIGCONT)
    finally:
        root.send_signal(signal.SIGCONT)
    terminal.press("Escape")
    assert terminal.says("root demo/root", 30)
    assert terminal.shows(lambda lines: "OLD DATA" not in lines[0], 20)
    terminal.press("q")
    assert terminal.has_ended()
