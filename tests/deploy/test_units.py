"""The units as a host has them: systemd finds each closed and each well written, with the drop-ins and without.

They are read below a root directory of their own, in which everything lies that they name, so no complaint has to be
explained away.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")])
SERVICES = [file for file in UNITS if file.suffix == ".service"]
# Apart from the units: beside them they would count as theirs.
DROP_INS = sorted(DEPLOY.glob("drop-ins/*/*.conf"))
#: Ten times the exposure that no unit may exceed.
THRESHOLD = 20
#: Programs, and what the units are ordered after or wanted by.
FILES = ("opt/hbagent/current/bin/hbagent", "bin/kill")
TARGETS = (
    *("basic", "multi-user", "network-online", "shutdown", "sockets", "sysinit", "time-set", "umount"),
    "initrd-switch-root",
)

pytestmark = [pytest.mark.slow, pytest.mark.paired, pytest.mark.needs("systemd-analyze")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A host's disk with all that the units name."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for file in UNITS:
        shutil.copy(file, units)
    for name in FILES:
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)
    for name in TARGETS:
        (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    for name in ("system", "-"):
        (units / f"{name}.slice").write_text(f"[Unit]\nDescription={name}\n")
    return tmp_path


def verified(tree: Path, *names: str) -> str:
    """What systemd has to say against units; "" is nothing."""
    command = ["systemd-analyze", "verify", f"--root={tree}", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit status {done.returncode}")


def test_systemd_has_nothing_against_any_unit(tree: Path) -> None:
    assert verified(tree, *(file.name.replace("@.", "@1.") for file in UNITS)) == ""


def test_what_is_wrong_with_a_unit_is_seen(tree: Path) -> None:
    file = tree / "etc/systemd/system/hbagent-agent.service"
    file.write_text(file.read_text().replace("WatchdogSec=7", "WatchdogSecs=7"))
    assert "WatchdogSecs" in verified(tree, file.name)


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_systemd_has_nothing_against_a_drop_in(tree: Path, drop_in: Path) -> None:
    there = tree / "etc/systemd/system" / drop_in.parent.name
    there.mkdir()
    shutil.copy(drop_in, there)
    assert verified(tree, drop_in.parent.name.removesuffix(".d")) == ""


@pytest.mark.parametrize("file", SERVICES, ids=lambda file: file.name)
def test_systemd_finds_each_unit_closed(file: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={THRESHOLD}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_an_open_unit_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "open.service"
    file.write_text("[Service]\nExecStart=/bin/true\n")
    command = ["systemd-analyze", "security", "--offline=true", "--json=short", f"--threshold={THRESHOLD}", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert json.loads(done.stdout)
