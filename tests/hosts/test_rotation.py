"""All keys of a fleet are changed while it runs: nobody is locked out, and nobody is told of it.

One host cannot be reached meanwhile by who changes them. It is named, it is waited for until it is left behind on
purpose, and it is brought back.
"""

from __future__ import annotations

import re
from typing import Any

from tests.conftest import Figures
from tests.hosts.deployment import Deployment
from tests.hosts.lab import wait_until

#: An agent and nothing else.
LEFT = 4
QUICK: dict[str, Any] = {"hbagent_upgrade_batches": ["100%"], "hbagent_settle": 1}
#: A moment for whoever still uses an old key, and the usual patience with everything else.
SHORT = "{{ 5 if ansible_play_name is search('nobody uses the old keys') else 60 }}"
#: A leader that was restarted gives those it knew half a minute.
SILENT_S = 120.0


def _public(fleet: Deployment) -> dict[str, str]:
    return {path.stem: path.read_text().split()[-1] for path in (fleet.directory / "keys").glob("*.pub")}


def test_a_rotation_of_all_keys_is_told_nobody_and_names_whom_it_waits_for(fleet: Deployment, figures: Figures) -> None:
    left = fleet.host(LEFT)
    before = _public(fleet)
    others = [node for node, host in fleet.nodes().items() if host is not left]
    with fleet.quiet() as seen:
        play = fleet.play("rotate_keys", "--limit", f"all:!{left.name}", hbagent_alive_timeout=SHORT, **QUICK)
        fleet.wait_alive()
    assert play.code != 0
    text = " ".join(play.output.replace("\\", "").split())
    named = set(re.findall(r"The old key at \S+ is still used by (.*?)\. Nobody", text))
    assert named == {fleet.node(left)}, text[-5000:]
    assert f"""-e '{{"hbagent_rotate_leave": ["{left.name}"]}}'""" in text
    # Everybody else has gone over, to keys that are accepted beside the old ones.
    assert seen.alarms == []
    assert sorted(seen.departures) == sorted(("node-left", node, "left") for node in others)
    after = _public(fleet)
    assert {f"{name}.next" for name in before} | set(before) == set(after)
    assert {name: after[name] for name in before} == before
    figures("hosts", f"all keys of six hosts offered and used in {play.seconds:.0f} s, {len(seen.alarms)} alarms")


def test_a_rotation_ends_without_whom_it_leaves_and_no_old_key_is_left(fleet: Deployment, figures: Figures) -> None:
    left = fleet.host(LEFT)
    node = fleet.node(left)
    before = _public(fleet)
    old = {name: key for name, key in before.items() if not name.endswith(".next")}
    assert len(before) == 2 * len(old)
    with fleet.quiet() as seen:
        play = fleet.play("rotate_keys", "--limit", f"all:!{left.name}", hbagent_rotate_leave=[left.name], **QUICK)
    assert play.code == 0, play.output[-5000:]
    assert _public(fleet) == {name: before[f"{name}.next"] for name in old}
    assert {about for _, about, _ in seen.alarms} <= {node}
    assert {about for _, about, _ in seen.departures} <= {node}
    # Nobody lets it in any more, as was said.
    assert wait_until(lambda: fleet.states()[node][0] in ("DEAD", "UNKNOWN"), SILENT_S), fleet.states()
    back = fleet.play("site")
    assert back.code == 0, back.output[-5000:]
    assert {name for name, counts in back.recap.items() if counts["changed"]} == {left.name}, back.tasks_changed()
    fleet.wait_alive()
    for host in fleet.lab.hosts:
        files = host.shell("cat /etc/hbagent/*.toml; ls /etc/hbagent/keys; find /etc/systemd/system")
        assert not [key for key in old.values() if key in files], host.name
        assert "next" not in host.shell("ls /etc/hbagent/keys")
        assert "rotation.conf" not in files
    figures("hosts", f"left the old keys in {play.seconds:.0f} s, and nobody was told but of one that was left behind")
