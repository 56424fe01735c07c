"""All keys of a fleet are changed while it runs: nobody is locked out, and nobody is told of it."""

from __future__ import annotations

from tests.conftest import Figures
from tests.hosts.deployment import Deployment


def _public(fleet: Deployment) -> dict[str, str]:
    return {path.stem: path.read_text().split()[-1] for path in (fleet.directory / "keys").glob("*.pub")}


def test_a_rotation_of_all_keys_is_told_nobody_and_leaves_no_old_key(fleet: Deployment, figures: Figures) -> None:
    before = _public(fleet)
    with fleet.quiet() as seen:
        play = fleet.play("rotate_keys", hbagent_upgrade_batches=["100%"])
        fleet.wait_alive()
    assert play.code == 0, play.output[-5000:]
    after = _public(fleet)
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    assert seen.alarms == []
    assert sorted(seen.departures) == sorted(("node-left", node, "left") for node in fleet.nodes())
    for host in fleet.lab.hosts:
        files = host.shell("cat /etc/hbagent/*.toml; ls /etc/hbagent/keys; find /etc/systemd/system")
        assert not [key for key in before.values() if key in files], host.name
        assert "next" not in host.shell("ls /etc/hbagent/keys")
        assert "rotation.conf" not in files
    checked = fleet.play("site", "--check", "--diff")
    assert checked.changed == 0, checked.tasks_changed()
    figures("hosts", f"all keys of six hosts changed in {play.seconds:.0f} s, {len(seen.alarms)} alarms")
