"""hbagent goes as it came: from one host without an alarm, and from all without a trace."""

from __future__ import annotations

from tests.conftest import Figures
from tests.hosts.deployment import BOUND_S, Deployment, Play
from tests.hosts.lab import Host, wait_until

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
    asked = {"hbagent_remove": gone.name, "hbagent_remove_confirmed": True}
    with fleet.quiet() as seen:
        # The leaders' new files have a mistake: they keep the old ones, and go on expecting it.
        broken = fleet.play("remove", **asked, hbagent_leader_settings={"leader": {"nonsense": 1}})
        assert broken.code != 0
        text = " ".join(broken.output.split())
        for number in fleet.leaders:
            assert f"{fleet.host(number).name} still expects {gone.name}: " in text, broken.output[-5000:]
        assert f"run remove.yml once more with hbagent_remove={gone.name}" in text
        # As it says: stopped, and nothing of it deleted or forgotten.
        assert gone.run("systemctl", "is-active", "hbagent-agent", check=False).returncode == 3
        gone.shell("ls /etc/hbagent/keys/agent.key /var/lib/hbagent/agent /opt/hbagent/current/complete.json")
        assert list((fleet.directory / "keys").glob(f"*{gone.name}.key"))
        assert fleet.states()[fleet.node(gone)] == ("LEFT", "left")
        play = fleet.play("remove", **asked)
        assert play.code == 0, play.output[-5000:]
        assert wait_until(lambda: {state for state, _ in fleet.states().values()} == {"ALIVE"}, BOUND_S)
    gone.shell(f"ls {others} && rm {others}; systemctl daemon-reload")
    assert _traces(gone) == ""
    assert fleet.node(gone) not in fleet.states()
    assert seen.alarms == []
    # What the first run announced lasts as long as that said, and is over nobody else.
    active = fleet.ask("silences")["silences"]
    assert [each["nodes"] for each in active] == [[fleet.node(gone)]], active
    for number in (1, 2, 3):
        assert gone.name not in fleet.host(number).shell("cat /etc/hbagent/*.toml")
    assert not list((fleet.directory / "keys").glob(f"*{gone.name}*"))


def test_a_whole_fleet_goes_and_leaves_nothing_behind(
    bare: Deployment, first_plays: tuple[Play, Play], figures: Figures
) -> None:
    play = bare.play("remove", hbagent_remove="all", hbagent_remove_confirmed=True)
    assert play.code == 0, play.output[-5000:]
    # systemd forgets a unit when it gets round to it.
    wait_until(lambda: not any(_traces(host) for host in bare.lab.hosts), BOUND_S)
    assert {host.name: _traces(host) for host in bare.lab.hosts} == dict.fromkeys(bare.hosts, "")
    figures("hosts", f"removed from six hosts in {play.seconds:.0f} s")
