"""The units in deploy/ are what systemd accepts, and as closed as they are said to be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hbagent.cli import COMMANDS

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
ROLES = ("agent", "leader", "root")


def unit(role: str) -> Path:
    return DEPLOY / f"hbagent-{role}.service"


def values(role: str, key: str) -> list[str]:
    """Values of a key in the order of the file; systemd adds some of them up."""
    pairs = (line.partition("=") for line in unit(role).read_text().splitlines() if not line.startswith("#"))
    return [value for name, _, value in pairs if name == key]


def test_there_is_a_unit_for_each_role_and_it_runs_a_command_that_exists() -> None:
    assert sorted(path.name for path in DEPLOY.glob("*.service")) == [unit(role).name for role in ROLES]
    words = {command[0] for command in COMMANDS}
    for role in ROLES:
        (command,) = values(role, "ExecStart")
        assert command.split()[1:] == [role, "--config", f"/etc/hbagent/{role}.toml"]
        assert role in words


@pytest.mark.parametrize("role", ROLES)
def test_libzmq_may_set_its_thread_scheduling_after_all_else_is_denied(role: str) -> None:
    filters = values(role, "SystemCallFilter")
    denied = next(index for index, value in enumerate(filters) if value.startswith("~") and "@resources" in value)
    assert "sched_setscheduler" in filters[denied + 1 :]


@pytest.mark.parametrize("role", ROLES)
def test_no_sandbox_setting_makes_host_facts_lie(role: str) -> None:
    assert [values(role, key) for key in ("ProcSubset", "ProtectProc", "PrivateUsers")] == [[], [], []]


@pytest.mark.parametrize("role", ROLES)
def test_a_daemon_is_never_given_up(role: str) -> None:
    assert (values(role, "Restart"), values(role, "StartLimitIntervalSec")) == (["always"], ["0"])


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("role", ROLES)
def test_systemd_accepts_the_unit_and_finds_it_closed(role: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit(role))], capture_output=True, text=True, timeout=30
    )
    complaints = [line for line in done.stderr.splitlines() if unit(role).name in line]
    assert [line for line in complaints if "is not executable: No such file" not in line] == []
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(unit(role))]
    closed = subprocess.run(security, capture_output=True, text=True, timeout=30)
    assert closed.returncode == 0, closed.stdout
