"""What the documents have people type on real hosts and at the controller, typed there.

On a host the blocks of one document are one session of root's, on the host of the root of a fleet. At the controller
the inventories are read by Ansible, and each play is looked through as far as it can be without a host: what it does
to hosts is what the other tests here are about.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, ROOT, Block, blocks, typed
from tests.hosts.deployment import CONTROLLER, Deployment

#: What a reader of a document has by then, and what is taken away after.
BEFORE = {
    # It installs over what is there, as it would on a host of its own.
    "deploy/README.md": "tar -C / -cf /var/tmp/before.tar etc/hbagent etc/systemd/system etc/sysusers.d",
    "docs/operators.md": "groupadd --force oncall; id alice >/dev/null 2>&1 || useradd alice",
}
AFTER = {
    "docs/operators.md": "userdel alice; groupdel oncall",
    "docs/store.md": "rm -f /var/backups/hbagent.sqlite",
    "deploy/README.md": """
        rm -rf /etc/hbagent /etc/systemd/system /etc/sysusers.d/hbagent.conf ~/hbagent-keys
        tar -C / -xf /var/tmp/before.tar
        rm /var/tmp/before.tar
        systemctl daemon-reload
        systemctl restart hbagent-agent
    """,
}
HELPER = "hbagent-diagnose.socket"
#: 1 to 3 is the state of the fleet; all else is a call that was wrong.
TELLING = """trap 'code=$?; [ $code -le 3 ] || { echo "$BASH_COMMAND: $code" >&2; exit $code; }' ERR
"""


def named(document: Path) -> str:
    """ "docs/store.md"."""
    return str(document.relative_to(ROOT))


SESSIONS = [named(document) for document in DOCUMENTS if typed("host", document)]
INVENTORIES = [block for block in blocks() if block.language == "ini"]


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_on_a_host_is_taken_by_it(fleet: Deployment, name: str) -> None:
    host = fleet.root
    session = "\n".join(block.text for block in typed("host", ROOT / name))
    had_helper = host.run("systemctl", "is-enabled", HELPER, check=False).stdout.strip() == "enabled"
    # Whoever reads has the sources, and stands in them.
    for part in ("deploy", "etc"):
        shutil.copytree(ROOT / part, host.root / "var/tmp/source" / part, dirs_exist_ok=True)
    host.shell(BEFORE.get(name, "true"))
    try:
        done = host.run("bash", "-c", f"{TELLING}cd /var/tmp/source\n{session}\ntrue", check=False, timeout=300)
        assert done.returncode == 0, f"{name}: {done.stderr}{done.stdout}"
    finally:
        host.shell(AFTER.get(name, "true"))
        host.shell("rm -rf /var/tmp/source")
        if not had_helper:
            host.run("systemctl", "disable", "--now", HELPER, check=False)
    fleet.wait_alive()


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in INVENTORIES])
def test_an_inventory_is_read_by_ansible_as_it_is_meant(block: Block, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(block.text)
    command = [str(CONTROLLER / "ansible-inventory"), "-i", str(inventory), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    groups = json.loads(done.stdout)
    assert len(groups["hbagent_root"]["hosts"]) == 1
    racks = [set(group["hosts"]) for name, group in groups.items() if name.startswith("rack_")]
    assert set().union(*racks) == set(groups["_meta"]["hostvars"])
    assert set(groups["hbagent_leaders"]["hosts"]) <= set().union(*racks)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in typed("controller")])
def test_what_is_typed_at_the_controller_is_a_call_that_is_right(bare: Deployment, block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["ansible-playbook"]:
            play, arguments = play_of(words[1:])
            looked = bare.play(play, "--syntax-check", *arguments)
            assert looked.code == 0, f"{line}: {looked.output}"
        elif words[:1] == ["make"]:
            done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            # `bare` has the collection installed and the wheelhouse made already.
            assert not words or words[:3] == ["ansible-galaxy", "collection", "install"], f"nobody runs {line}"


def play_of(words: list[str]) -> tuple[str, list[str]]:
    """The playbook of our collection that a call names, and its other arguments, without the inventory."""
    rest = list(words)
    if "-i" in rest:
        at = rest.index("-i")
        del rest[at : at + 2]
    (name,) = (word for word in rest if word.startswith("hbagent.hbagent."))
    return name.removeprefix("hbagent.hbagent."), [word for word in rest if word != name]
