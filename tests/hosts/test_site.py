"""`site.yml` on bare hosts, again, and as a question what it would change."""

from __future__ import annotations

from tests.conftest import Figures
from tests.hosts.deployment import Deployment, Play

#: What is promised; half a minute when nothing else runs.
SITE_SECONDS = 120.0


def test_a_check_of_bare_hosts_passes_and_changes_nothing(first_plays: tuple[Play, Play]) -> None:
    checked = first_plays[0]
    assert checked.code == 0, checked.output[-5000:]
    assert {counts["failed"] + counts["unreachable"] for counts in checked.recap.values()} == {0}


def test_six_bare_hosts_become_a_datacenter(
    first_plays: tuple[Play, Play], fleet: Deployment, figures: Figures
) -> None:
    deployed = first_plays[1]
    figures("hosts", f"six bare hosts in {deployed.seconds:.0f} s (within 120 s), all ALIVE at the root")
    assert fleet.all_alive()
    assert deployed.seconds <= SITE_SECONDS


def test_the_second_run_changes_nothing(fleet: Deployment) -> None:
    again = fleet.play("site")
    assert (again.code, again.changed) == (0, 0), again.tasks_changed() or again.output[-5000:]


def test_a_check_with_differences_shows_none(fleet: Deployment) -> None:
    checked = fleet.play("site", "--check", "--diff")
    assert (checked.code, checked.changed) == (0, 0), checked.tasks_changed() or checked.output[-5000:]


def test_an_install_that_broke_off_is_made_good_by_the_next_run(fleet: Deployment) -> None:
    host = fleet.host(6)
    host.shell("rm /opt/hbagent/current/complete.json /opt/hbagent/current/bin/hbagent")
    again = fleet.play("site")
    assert again.code == 0, again.output[-5000:]
    assert {name for name, counts in again.recap.items() if counts["changed"]} == {host.name}
    assert host.shell("ls -A /opt/hbagent/releases").split() == [
        host.shell("basename $(readlink /opt/hbagent/current)").strip()
    ]
    assert host.run("hbagent", "--version").returncode == 0
    fleet.wait_alive()
