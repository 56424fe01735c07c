"""What the module that takes hbagent away stops and removes, and what it says of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ansible.plugins import host_module

wiped = host_module("wiped")
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{calls}
case $1 in
show) printf 'ActiveState=%s\\nUnitFileState=%s\\n' {active} {enabled} ;;
stop) {stop} ;;
esac
"""


class Module:
    """What is asked of the module that Ansible makes."""

    def __init__(self, directory: Path, *, check_mode: bool = False) -> None:
        self.check_mode = check_mode
        self.directory = directory

    def get_bin_path(self, name: str, required: bool) -> str:
        """Nothing of this machine is run."""
        return str(self.directory / name)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


def systemctl(directory: Path, active: str, enabled: str, stop: str = "true") -> None:
    """One that writes down what it is told, and says this of every unit."""
    script = directory / "systemctl"
    script.write_text(SYSTEMCTL.format(calls=directory / "calls", active=active, enabled=enabled, stop=stop))
    script.chmod(0o755)


def test_a_unit_is_disabled_before_it_is_stopped_and_one_that_is_neither_is_left_alone(
    tmp_path: Path, calls: Path
) -> None:
    systemctl(tmp_path, "active", "enabled")
    host = wiped.Host(Module(tmp_path))
    host.stop("hbagent-agent.service")
    assert host.changes == ["stopped hbagent-agent.service"]
    assert calls.read_text().splitlines()[1:] == ["disable hbagent-agent.service", "stop hbagent-agent.service"]
    systemctl(tmp_path, "inactive", "disabled")
    host.stop("hbagent-leader.service")
    assert host.changes == ["stopped hbagent-agent.service"]


def test_a_unit_that_cannot_be_stopped_is_told_with_what_systemd_said(tmp_path: Path) -> None:
    systemctl(tmp_path, "active", "disabled", "echo 'Transport endpoint is not connected' >&2; exit 1")
    host = wiped.Host(Module(tmp_path))
    with pytest.raises(wiped.Failed) as told:
        host.stop("hbagent-root.service")
    assert str(told.value) == "systemctl stop hbagent-root.service: Transport endpoint is not connected"
    assert host.changes == ["stopped hbagent-root.service"]


def test_a_dry_run_says_what_would_go_and_takes_nothing(tmp_path: Path, calls: Path) -> None:
    systemctl(tmp_path, "active", "enabled")
    (tmp_path / "gone/below").mkdir(parents=True)
    for dry in (True, False):
        host = wiped.Host(Module(tmp_path, check_mode=dry))
        host.remove(str(tmp_path / "gone"))
        host.stop("hbagent-agent.service")
        assert host.changes == [f"removed {tmp_path / 'gone'}", "stopped hbagent-agent.service"]
        assert (tmp_path / "gone").exists() is dry
        assert any(line.startswith("stop ") for line in calls.read_text().splitlines()) is not dry
