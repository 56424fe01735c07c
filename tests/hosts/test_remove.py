"""hbagent goes as it came: from one host without an alarm, and from all without a trace."""

from __future__ import annotations

from tests.conftest import Figures
from tests.hosts.deployment import Deployment, Play
from tests.hosts.lab import Host

#: Not hbagent's: the journal is the host's, Ansible keeps its own files, and a backup is whose who made it.
KEPT = "/var/backups|/var/log/journal|/run/log/journal|/root/.ansible|/proc|/sys|/dev"


def _traces(host: Host) -> str:
    """Whatever has hbagent in its name: files, units, groups, users, processes."""
    return host.shell(
        f"find / -xdev -name '*hbagent*' 2>/dev/null | grep -Ev '^({KEPT})' || true;"
        f"find /run /tmp /var/tmp -name '*hbagent*' 2>/dev/null | grep -Ev '^({KEPT})' || true;"
        "systemctl list-units --all --plain --no-legend 'hbagent*' || true;"
        "systemctl list-unit-files --plain --no-legend 'hbagent*' || true;"
        "getent group hbagent hbagent-diagnose || true; getent passwd | grep hbagent || true;"
        "pgrep -af '/opt/[h]bagent' || true"
    )


def test_nothing_is_removed_without_being_confirmed(fleet: Deployment) -> None:
    refused = fleet.play("remove", hbagent_remove="all")
    assert refused.code != 0
    assert "hbagent_remove_confirmed=true" in refused.output
    assert fleet.all_alive()


def test_one_host_goes_and_the_others_forget_it_without_an_alarm(fleet: Deployment) -> None:
    gone = fleet.host(4)
    # The site's own, which begin with the same word.
    others = "/etc/systemd/system/hbagent-report.service /var/lib/hbagent-exporter /var/log/hbagent-hooks"
    gone.shell(f"touch {others}")
    with fleet.quiet() as seen:
        play = fleet.play("remove", hbagent_remove=gone.name, hbagent_remove_confirmed=True)
    assert play.code == 0, play.output[-5000:]
    gone.shell(f"ls {others} && rm {others}; systemctl daemon-reload")
    assert _traces(gone) == ""
    assert fleet.node(gone) not in fleet.states()
    assert {state for state, _ in fleet.states().values()} == {"ALIVE"}
    assert seen.alarms == []
    for number in (1, 2, 3):
        assert gone.name not in fleet.host(number).shell("cat /etc/hbagent/*.toml")
    assert not list((fleet.directory / "keys").glob(f"*{gone.name}*"))


def test_a_whole_fleet_goes_and_leaves_nothing_behind(
    bare: Deployment, first_plays: tuple[Play, Play], figures: Figures
) -> None:
    play = bare.play("remove", hbagent_remove="all", hbagent_remove_confirmed=True)
    assert play.code == 0, play.output[-5000:]
    assert {host.name: _traces(host) for host in bare.lab.hosts} == dict.fromkeys(bare.hosts, "")
    figures("hosts", f"removed from six hosts in {play.seconds:.0f} s")
