"""A fleet comes to the next version and back while it runs, and nobody is told of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Figures
from tests.e2e import nextversion
from tests.hosts.deployment import BIN, ROOT, Deployment
from tests.hosts.lab import wait_until

NEXT = nextversion.VERSION
#: The next version does not take every farewell that this one takes.
STRICTER = ("role/settings/schema.py", 'values.duration("0s", "30s"), "farewell_ns"',
            'values.duration("0s", "10s"), "farewell_ns"')  # fmt: skip


@pytest.fixture(scope="module")
def both(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse with this version and the one after it, which has another minor of the wire and uses it."""
    house = tmp_path_factory.mktemp("both")
    shutil.copytree(wheelhouse, house, dirs_exist_ok=True)
    tree = tmp_path_factory.mktemp("next")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    for name in filter(None, listed.decode().split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    shutil.rmtree(tree / "hbagent")
    made = nextversion.make(tmp_path_factory.mktemp("changed"), STRICTER)
    shutil.copytree(made / "hbagent", tree / "hbagent")
    command = [str(BIN / "python"), "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(house), "."], cwd=tree, check=True)
    return house


def _version() -> str:
    from hbagent import __version__

    return __version__


def _running(fleet: Deployment) -> dict[str, str]:
    """The release of each daemon that runs, by host and daemon."""
    found = {}
    for host in fleet.lab.hosts:
        for unit in (f"hbagent-{role}.service" for role in ("root", "leader", "agent")):
            pid = host.run("systemctl", "show", "--property=MainPID", "--value", unit).stdout.strip()
            if pid == "0":
                continue
            program = host.shell(f"tr '\\0' '\\n' </proc/{pid}/cmdline | head -n1")
            found[f"{host.name} {unit}"] = program.split("/")[4]
    return found


def _started(fleet: Deployment, *numbers: int) -> dict[str, list[float]]:
    """When the daemons of these hosts, or of all, were started, in seconds of the clock that all hosts here share."""
    found: dict[str, list[float]] = {"root": [], "leader": [], "agent": []}
    for host in (fleet.host(number) for number in numbers or range(1, len(fleet.lab.hosts) + 1)):
        for role, moments in found.items():
            unit = f"hbagent-{role}.service"
            shown = host.shell(f"systemctl show -p ExecMainStartTimestampMonotonic --value {unit}").strip()
            if shown not in ("", "0"):
                moments.append(int(shown) / 1e6)
    return found


def test_a_release_that_does_not_take_a_file_stops_an_upgrade_before_anything_is_switched(
    fleet: Deployment, both: Path
) -> None:
    canary = fleet.host(4)

    def what_is() -> str:
        return canary.shell(
            "readlink /opt/hbagent/current; stat -c '%n %Y' /etc/hbagent/*.toml /etc/systemd/system/hbagent-*;"
            "systemctl show -p InvocationID hbagent-agent"
        )

    before, silences = what_is(), fleet.ask("silences", "--all")["silences"]
    asked: dict[str, Any] = {"hbagent_version": NEXT, "hbagent_wheelhouse": str(both)}
    asked["hbagent_agent_settings"] = {"agent": {"farewell": "20s"}}
    refused = fleet.play("upgrade", "--limit", canary.name, **asked)
    assert refused.code != 0
    text = " ".join(refused.output.split())
    assert f"hbagent {NEXT} refuses what {canary.name} is to have: agent.toml:" in text, refused.output[-5000:]
    assert "Nothing was changed that runs" in text
    assert (what_is(), fleet.ask("silences", "--all")["silences"]) == (before, silences)
    # It waits there for its turn.
    assert NEXT in canary.shell("ls /opt/hbagent/releases").split()


def test_an_upgrade_is_told_nobody(fleet: Deployment, both: Path, figures: Figures) -> None:
    house = str(both)
    with fleet.quiet() as seen:
        play = fleet.play("upgrade", hbagent_version=NEXT, hbagent_wheelhouse=house)
        fleet.wait_alive()
    assert play.code == 0, play.output[-5000:]
    assert set(_running(fleet).values()) == {NEXT}
    # Receivers first; and of a rack one leader after the other.
    started = _started(fleet)
    assert started["root"][0] < min(started["leader"]) and max(started["leader"]) < min(started["agent"])
    one, other = (_started(fleet, number)["leader"][0] for number in (2, 3))
    assert abs(one - other) > 1.0
    assert seen.alarms == []
    # Each agent left once, on purpose, and was announced.
    assert sorted(seen.departures) == sorted(("node-left", node, "left") for node in fleet.nodes())
    silences = fleet.ask("silences", "--all")["silences"]
    assert silences and all(each["state"] == "ended" for each in silences), silences
    # All speak the newer minor to one another now, and nobody was told anything that it could not read meanwhile.
    assert "leader weather" in fleet.host(2).journal("hbagent-leader", None)
    for host in fleet.lab.hosts:
        for unit in ("hbagent-leader", "hbagent-root"):
            assert not re.search("reason=(malformed|unknown-type|incompatible|too-large)", host.journal(unit, 500))
    figures("hosts", f"six hosts upgraded in {play.seconds:.0f} s, {len(seen.alarms)} alarms")


def test_site_does_not_change_the_version_of_a_fleet(fleet: Deployment, both: Path) -> None:
    refused = fleet.play("site", hbagent_version=_version(), hbagent_wheelhouse=str(both))
    assert refused.code != 0
    assert "run upgrade.yml" in " ".join(refused.output.split())
    assert refused.changed == 0, refused.tasks_changed()
    assert set(_running(fleet).values()) == {NEXT}


def test_a_canary_that_does_not_start_stops_the_way_back_before_anybody_else(
    fleet: Deployment, both: Path, figures: Figures
) -> None:
    canary = fleet.host(4)
    # The way there was the slow and careful one.
    asked: dict[str, Any] = {"hbagent_version": _version(), "hbagent_wheelhouse": str(both), "hbagent_settle": 1}
    canary.shell("mkdir -p /etc/systemd/system/hbagent-agent.service.d; printf '[Service]\\nExecStartPre=/bin/false\\n'"
                 " >/etc/systemd/system/hbagent-agent.service.d/broken.conf; systemctl daemon-reload")  # fmt: skip
    try:
        broken = fleet.play("upgrade", **asked, hbagent_start_timeout=5)
        assert broken.code != 0
        assert "run upgrade.yml with hbagent_version set to" in " ".join(broken.output.split())
        moved = {name for name, release in _running(fleet).items() if "hbagent-agent" in name and release != NEXT}
        assert {name for name in moved if not name.startswith(canary.name)} == set()
        silences = fleet.ask("silences", "--all")["silences"]
        assert all(each["state"] == "ended" for each in silences), silences
    finally:
        canary.shell("rm /etc/systemd/system/hbagent-agent.service.d/broken.conf; systemctl daemon-reload")
    back = fleet.play("upgrade", **asked, hbagent_upgrade_batches=["100%"])
    assert back.code == 0, back.output[-5000:]
    fleet.wait_alive()
    assert set(_running(fleet).values()) == {_version()}
    figures("hosts", f"stopped at a canary that did not start, then rolled back in {back.seconds:.0f} s")


def test_a_host_that_loses_its_cable_in_an_upgrade_is_named_and_leaves_no_maintenance(
    fleet: Deployment, figures: Figures
) -> None:
    lost = fleet.host(4)

    def pull() -> None:
        active = wait_until(lambda: fleet.ask("silences")["silences"], 180)
        lost.pull_cable()
        assert active

    with ThreadPoolExecutor(1) as beside:
        pulled = beside.submit(pull)
        try:
            # It restarts nothing but this agent, and waits for it to settle.
            play = fleet.play("upgrade", "--limit", lost.name, hbagent_restart=["agent"], hbagent_settle=5)
            pulled.result()
            silences = fleet.ask("silences", "--all")["silences"]
        finally:
            pulled.result()
            lost.plug_cable()
    assert play.code != 0
    text = " ".join(play.output.split())
    assert f"{lost.name} cannot be reached any more" in text, play.output[-5000:]
    assert f"--limit '{lost.name}:!{lost.name}'" in text
    # By itself ssh would wait for a quarter of an hour.
    assert play.seconds < 300
    assert all(each["state"] == "ended" for each in silences), silences
    fleet.wait_alive()
    figures("hosts", f"a host that lost its cable in an upgrade was named after {play.seconds:.0f} s")
