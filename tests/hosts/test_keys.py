"""Keys of a datacenter on the controller, by the collection as it is installed there; no host is asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.hosts.deployment import BIN, CONTROLLER, Deployment

#: As many as a rack or two, and both halves of each are written to the disk.
NAMES = [f"dc1/a/host{number}" for number in range(60)]


def keys(fleet: Deployment, directory: Path, **asked: Any) -> str:
    """What Ansible says of one task that keeps the keys of `directory`."""
    arguments = json.dumps({"directory": str(directory / "keys"), "command": str(BIN / "hbagent"), **asked})
    command = [str(CONTROLLER / "ansible"), "localhost", "-m", "hbagent.hbagent.keys", "-a", arguments]
    environment = {
        "PATH": f"{CONTROLLER}:{os.environ['PATH']}",
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "TMPDIR": str(directory / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(fleet.directory / "collections"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(fleet.directory / "vault-password"),
        "ANSIBLE_NOCOLOR": "true",
    }
    (directory / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_many_keys_are_made_and_turned_in_one_go_and_lie_in_plain_nowhere(bare: Deployment, tmp_path: Path) -> None:
    # Their number is told by how often hbagent is asked.
    counting = tmp_path / "counting"
    counting.write_text(
        f'#!/bin/sh\necho "$5 $#" >>{tmp_path}/asked; find "$HOME" -name "hbagent-keys-*" >>{tmp_path}/at\n'
    )
    with counting.open("a") as file:
        file.write(f'exec {BIN}/hbagent "$@"\n')
    counting.chmod(0o755)
    steps: list[dict[str, Any]] = [{"names": NAMES}]
    steps += [{"phases": dict.fromkeys(NAMES, phase)} for phase in ("offered", "used", "done")]
    for asked in steps:
        assert "| CHANGED" in keys(bare, tmp_path, **{"command": str(counting), **asked})
        assert "| SUCCESS" in keys(bare, tmp_path, **{"command": str(counting), **asked})
    assert len((tmp_path / "asked").read_text().splitlines()) == 2
    generations = (tmp_path / "keys/generations.yml").read_text()
    assert [line for line in generations.splitlines() if line.endswith(": 1")] == [
        f"{name}: 1" for name in sorted(NAMES)
    ]
    secrets = list((tmp_path / "keys").glob("*.key"))
    assert len(secrets) == len(NAMES)
    assert all(path.read_text().startswith("$ANSIBLE_VAULT;") for path in secrets)
    # Below Ansible's own directory, which it takes away when it ends.
    places = (tmp_path / "at").read_text().splitlines()
    assert len(places) == 2 and all("/.ansible/tmp/ansible-local-" in place for place in places)
    assert not list((tmp_path / ".ansible/tmp").iterdir()) and not list((tmp_path / "tmp").iterdir())


def test_a_next_key_in_plain_text_is_refused(bare: Deployment, tmp_path: Path) -> None:
    name = "dc1/a/host1"
    keys(bare, tmp_path, names=[name], phases={name: "offered"})
    (tmp_path / "keys/dc1.a.host1.next.key").write_text("curve-secret")
    refused = keys(bare, tmp_path, names=[name])
    assert "dc1.a.host1.next.key: is a secret key in plain text" in refused


def test_keys_of_whom_the_inventory_does_not_name_are_told(bare: Deployment, tmp_path: Path) -> None:
    keys(bare, tmp_path, names=["dc1/a/host1", "dc1/a/host2", "dc2/a/host1"])
    assert "has keys of dc1/a/host2, whom the inventory does not name" in keys(bare, tmp_path, names=["dc1/a/host1"])
    keys(bare, tmp_path, absent=["dc1/a/host2"])
    assert "does not name" not in keys(bare, tmp_path, names=["dc1/a/host1"])
