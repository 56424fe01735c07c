"""`site.yml` on bare hosts, again, and as a question what it would change."""

from __future__ import annotations

import re
import time

from tests.conftest import Figures
from tests.hosts.deployment import BOUND_S, Deployment, Play
from tests.hosts.lab import Host, wait_until

#: What is promised; half a minute when nothing else runs.
SITE_SECONDS = 120.0
#: For so long the root believes in a leader that it does not hear.
LEASE_S = 5.0


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


def test_what_broke_off_or_was_done_by_hand_is_made_good_by_the_next_run(fleet: Deployment) -> None:
    broken, stale, behind, wrong = (fleet.host(number) for number in (6, 5, 4, 3))
    broken.shell("rm /opt/hbagent/current/complete.json /opt/hbagent/current/bin/hbagent")
    # As after an upgrade of the system: packages of a Python that nothing has any more.
    stale.shell("cd /opt/hbagent/current/lib; mv python3.* python3.2")
    # Files as they were, with their times: only the daemons know that they read others.
    _edit(behind, "s/^port = .*/port = 5799/")
    _edit(wrong, "1i nonsense")
    _reload(behind)
    assert _words(behind)[-2:] == ["needs-restart", "reloaded"]
    assert _words(wrong)[-1] == "config-refused"
    before = {host.name: _invocation(host) for host in (behind, wrong)}
    again = fleet.play("site")
    assert again.code == 0, again.output[-5000:]
    hosts = {host.name for host in (broken, stale, behind, wrong)}
    assert {name for name, counts in again.recap.items() if counts["changed"]} == hosts
    for host in (broken, stale):
        chosen = host.shell("basename $(readlink /opt/hbagent/current)").strip()
        assert host.shell("ls -A /opt/hbagent/releases").split() == [chosen]
        assert host.run("hbagent", "--version").returncode == 0
    assert _invocation(behind) != before[behind.name]
    assert (_invocation(wrong), _words(wrong)[-1]) == (before[wrong.name], "reloaded")
    fleet.wait_alive()


def _edit(host: Host, script: str) -> None:
    """Have an agent read its file with a change that is gone afterwards."""
    file = "/etc/hbagent/agent.toml"
    host.shell(f"cp -p {file} {file}.kept; sed -i '{script}' {file}")
    _reload(host)
    host.shell(f"mv {file}.kept {file}")


def _reload(host: Host) -> None:
    """Have an agent read its file again."""
    said = len(_words(host))
    host.shell("systemctl reload hbagent-agent")
    assert wait_until(lambda: set(_words(host)[said:]) & {"reloaded", "config-refused"}, BOUND_S), _words(host)


def _words(host: Host) -> list[str]:
    """What the agent of a host said of its file since it started, the oldest first."""
    run = f"_SYSTEMD_INVOCATION_ID={_invocation(host)}"
    text = host.shell(f"journalctl --no-pager -o cat {run}")
    found: list[str] = re.findall(r"^agent (reloaded|needs-restart|config-refused)\b", text, re.MULTILINE)
    return found


def _invocation(host: Host) -> str:
    """systemd's id of the agent's run."""
    return host.shell("systemctl show --property=InvocationID --value hbagent-agent").strip()


def test_a_leader_is_taken_away_and_put_back_and_nobody_is_told(fleet: Deployment) -> None:
    away, name = fleet.host(3), f"{fleet.rack_of(fleet.host(3))}-{fleet.host(3).name}"
    everybody = fleet.leaders

    def leaders() -> set[str]:
        return {row["leader"] for rack in fleet.ask("status")["racks"] for row in rack["leaders"]}

    with fleet.quiet() as seen:
        for chosen in ([number for number in everybody if number != away.number], everybody):
            fleet.leaders = chosen
            play = fleet.play("site", "--limit", ":".join(fleet.host(number).name for number in (1, 2, 3, 4)))
            assert play.code == 0, play.output[-5000:]
            leads = away.number in chosen
            assert (name in leaders()) == leads
            assert (away.run("systemctl", "is-active", "hbagent-leader", check=False).returncode == 0) == leads
            # A leader that is missing is told within this: `seen` would have it.
            time.sleep(LEASE_S + 1)
            fleet.wait_alive()
    assert (seen.alarms, seen.departures) == ([], [])
    silences = fleet.ask("silences", "--all")["silences"]
    assert silences and all(each["state"] == "ended" for each in silences), silences
