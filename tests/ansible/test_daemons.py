"""What the module that runs daemons decides: from times of files, from processes, and from what a daemon said."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.ansible.plugins import host_module, running_from

daemons = host_module("daemons")
JSON = '{"at": "2026-01-01T00:00:00.000Z", "level": "warning", "role": "agent", "what": "%s", "setting": "x"}'


class Module:
    """What is asked of the module that Ansible makes."""

    def __init__(self, *, check_mode: bool = False) -> None:
        self.check_mode = check_mode
        self.params: dict[str, object] = {}

    def get_bin_path(self, name: str, required: bool) -> str:
        """Nothing is run here."""
        return name


@pytest.mark.parametrize("form", ["agent %s setting=x", "agent %s", JSON])
def test_what_a_daemon_said_is_read_from_its_lines(form: str) -> None:
    text = "\n".join(form % word for word in ("config-refused", "reloaded", "needs-restart", "reloaded"))
    assert daemons.words("agent", text) == ["config-refused", "reloaded", "needs-restart", "reloaded"]
    assert daemons.words("leader", text) == []


@pytest.mark.parametrize(
    "line",
    [
        "agent node-lost cause=agent needs-restart setting=x",
        "agent reloaded-twice",
        "prober needs-restart setting=x",
        JSON.replace('"x"', '"\\"what\\": \\"needs-restart\\""') % "noted",
        '{"text": "agent needs-restart"}',
    ],
)
def test_no_value_passes_for_what_it_said(line: str) -> None:
    assert daemons.words("agent", line) == []


def test_a_daemon_that_refused_its_config_keeps_being_known_for_it() -> None:
    assert daemons.refused(["reloaded", "config-refused"])
    assert daemons.refused(["reload-failed"])
    assert not daemons.refused(["config-refused", "reloaded"])
    assert not daemons.refused([])


def test_a_daemon_below_a_link_runs_from_its_release(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "opt"
    (real / "releases/1/bin").mkdir(parents=True)
    (real / "releases/11/bin").mkdir(parents=True)
    link.symlink_to(real)
    with running_from(link / "releases/1/bin") as pid:
        for prefix in (real, link):
            assert daemons.runs_from(str(pid), os.path.realpath(prefix / "releases/1"))
            assert not daemons.runs_from(str(pid), os.path.realpath(prefix / "releases/11"))


def test_a_pause_of_the_host_makes_no_daemon_older_than_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = iter([1000.0, 102.5, 1002.5, 102.5, 1002.5, 102.5])
    paused = SimpleNamespace(time=lambda: next(clocks), monotonic=lambda: next(clocks))
    monkeypatch.setattr(daemons, "time", paused)
    assert daemons.since({"StateChangeTimestampMonotonic": "100000000"}, "StateChangeTimestampMonotonic") == 1000.0


def test_a_file_of_the_future_counts_once(tmp_path: Path) -> None:
    file, gone = tmp_path / "agent.toml", str(tmp_path / "gone")
    file.write_text("")
    ahead = time.time() + 3600
    os.utime(file, (ahead, ahead))
    started = time.time() - 60
    daemons.Host(Module(check_mode=True)).settle_times([str(file), gone])
    assert file.stat().st_mtime == pytest.approx(ahead)
    daemons.Host(Module()).settle_times([str(file), gone])
    assert daemons.newer([str(file)], started)
    assert not daemons.newer([str(file)], time.time() + 0.1), "a daemon that started since is not behind"


def test_a_file_of_the_past_keeps_its_time(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("")
    os.utime(file, (1000, 1000))
    daemons.Host(Module()).settle_times([str(file)])
    assert file.stat().st_mtime == 1000
