"""The Debian package on a bare host: a small datacenter is installed, upgraded and removed without an alarm.

One host is agent, leader and root at once. All of it is one life, in the order of the file, so the tests build on each
other as the packages do. At the end stands the container file, for whose base image the hosts' disk serves.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Figures
from tests.deploy.tree import ROOT, as_version, copy_of_the_tree, tool
from tests.hosts.lab import Host, Lab, wait_until
from tests.hosts.rootfs import rootfs

ROLES = ("root", "leader", "agent")
#: Longer than anything here takes on a busy machine.
BOUND_S = 60.0
#: What somebody would be woken for.
ALARMS = ("node-suspect", "node-dead", "node-unknown", "leader-lost", "rack-dark", "root-isolated")

CONFIGS = {
    "root": """
[root]
name = "dc1/root"
[security]
key = "credential:root.key"
allow = "/etc/hbagent/root-allow.toml"
[[rack]]
name = "dc1/a"
leaders = ["dc1/a-leader"]
""",
    "leader": """
[leader]
name = "dc1/a-leader"
[security]
key = "credential:leader.key"
allow = "/etc/hbagent/leader-allow.toml"
[root]
name = "dc1/root"
publish = "tcp://127.0.0.1:5711"
control = "tcp://127.0.0.1:5712"
public_key = "dc1.root.pub"
[[rack]]
name = "dc1/a"
nodes = ["host1"]
""",
    "agent": """
[agent]
node = "dc1/a/host1"
[security]
key = "credential:agent.key"
[[leader]]
name = "dc1/a-leader"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
public_key = "dc1.a-leader.pub"
""",
}
#: As an administrator would: keys stay root's, allow-lists and configs are for a group, public keys for all.
KEYS = """
cd /etc/hbagent/keys
hbagent keys init dc1/root --dir .
hbagent keys init dc1/a-leader --dir . --allow ../root-allow.toml
hbagent keys init dc1/a/host1 --dir . --allow ../leader-allow.toml
mv dc1.root.key root.key; mv dc1.a-leader.key leader.key; mv dc1.a.host1.key agent.key
chmod 0400 *.key
mv *.pub ..
chgrp hbagent ../*-allow.toml; chmod 0640 ../*-allow.toml; chmod 0644 ../*.pub
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package of this tree, and that of a next version."""
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    this = tree / tool(tree, "deb", "dist")
    as_version(tree, "99.1")
    return this, tree / tool(tree, "deb", "dist")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host with nothing on it but Debian."""
    # The six of the other tests live on beside it.
    lab = Lab(f"{os.environ.get('HBAGENT_LAB', 'hb')}p", 1)
    lab.down()
    try:
        lab.up()
        yield lab.hosts[0]
    finally:
        lab.down()


def put(host: Host, package: Path) -> str:
    """Copy a package there; its path there."""
    shutil.copy(package, host.root / "root")
    return f"/root/{package.name}"


def events(host: Host) -> list[Any]:
    """What the root wrote down."""
    lines = host.run("hbagent", "events", "--limit", "1000", "--timeout", "20s", "-o", "json").stdout
    found = json.loads(lines)
    return list(found["events"] if isinstance(found, dict) else found)


def alive(host: Host) -> bool:
    """Whether the root sees the host ALIVE, by a beat of the agent that runs now: what it was it remembers, too."""
    began = int(host.shell("systemctl show -p ExecMainStartTimestampMonotonic --value hbagent-agent")) / 1e6
    done = host.run("hbagent", "nodes", "--timeout", "20s", "-o", "json", check=False)
    # All hosts here share the clock of this machine.
    running_s = time.monotonic() - began
    with contextlib.suppress(json.JSONDecodeError):
        found = json.loads(done.stdout)
        nodes = found["nodes"] if isinstance(found, dict) else found
        ages = [node["age_s"] for node in nodes if node["liveness"] == "ALIVE"]
        return any(age is not None and age < running_s for age in ages)
    return False


def executables(host: Host) -> dict[str, str]:
    """By role, the release that the running daemon is of."""
    releases = {}
    for role in ROLES:
        pid = host.shell(f"systemctl show -p MainPID --value hbagent-{role}").strip()
        command = host.shell(f"tr '\\0' ' ' </proc/{pid}/cmdline")
        releases[role] = command.split()[0].removeprefix("/opt/hbagent/releases/").partition("/")[0]
    return releases


def test_a_host_of_the_playbooks_is_left_alone(host: Host, packages: tuple[Path, Path]) -> None:
    host.shell("mkdir -p /opt/hbagent/releases/0.1.0; ln -s releases/0.1.0 /opt/hbagent/current")
    refused = host.run("dpkg", "-i", put(host, packages[0]), check=False)
    assert refused.returncode != 0
    assert "/opt/hbagent/current is there and not of this package" in refused.stderr
    assert host.shell("readlink /opt/hbagent/current").strip() == "releases/0.1.0"
    host.shell("rm -rf /opt/hbagent; dpkg --purge hbagent 2>/dev/null || true")


def test_it_is_installed_without_a_network_and_starts_nothing(
    host: Host, packages: tuple[Path, Path], figures: Figures
) -> None:
    before = host.shell("date +%s.%N")
    host.run("ip", "link", "set", "host0", "down")
    host.run("dpkg", "-i", put(host, packages[0]))
    host.run("ip", "link", "set", "host0", "up")
    figures("deb", f"installed in {float(host.shell('date +%s.%N')) - float(before):.1f} s")
    for role in ROLES:
        state = host.run("systemctl", "is-enabled", f"hbagent-{role}", check=False).stdout.strip()
        assert (state, host.run("systemctl", "is-active", f"hbagent-{role}", check=False).returncode) == ("disabled", 3)
    assert host.shell("stat -c '%U:%G %a' /etc/hbagent /etc/hbagent/keys /etc/hbagent/hooks.d").splitlines() == [
        "root:hbagent 751",
        "root:root 700",
        "root:root 755",
    ]
    assert host.run("dpkg", "--verify", "hbagent").stdout == ""
    assert host.run("man", "-w", "hbagent", check=False).returncode in (0, 16, 127)


def test_its_daemons_run_once_they_are_configured(host: Host) -> None:
    host.shell(KEYS)
    for role, text in CONFIGS.items():
        (host.root / "etc/hbagent" / f"{role}.toml").write_text(text)
        group = "hbagent-agent" if role == "agent" else "hbagent"
        host.shell(f"chgrp {group} /etc/hbagent/{role}.toml; chmod 0640 /etc/hbagent/{role}.toml")
        host.shell(f"CREDENTIALS_DIRECTORY=/etc/hbagent/keys hbagent check-config /etc/hbagent/{role}.toml")
    host.run("systemctl", "enable", "--now", *(f"hbagent-{role}" for role in ROLES), "hbagent-diagnose.socket")
    assert wait_until(lambda: alive(host), BOUND_S), host.journal("hbagent-*")
    (release,) = set(executables(host).values())
    assert host.shell("readlink /opt/hbagent/current").strip() == f"releases/{release}"


def test_no_bytecode_is_missing_and_none_is_written(host: Host) -> None:
    site = "/opt/hbagent/current/lib/python3*/site-packages"
    sources = host.shell(f"find {site}/hbagent -name '*.py' | wc -l")
    compiled = host.shell(f"find {site}/hbagent -name '*.pyc' | wc -l")
    assert sources == compiled != "0\n"
    # Python would say that it compiles: each file is read as it was built.
    done = host.run("/opt/hbagent/current/bin/python", "-v", "-c", "import hbagent.role.driver")
    assert ".pyc matches /opt/hbagent/current/lib" in done.stderr
    assert "wrote " not in done.stderr and "could not create" not in done.stderr


def test_while_dpkg_unpacks_the_running_release_stays_whole(host: Host, packages: tuple[Path, Path]) -> None:
    (before,) = set(executables(host).values())
    host.run("dpkg", "--unpack", put(host, packages[1]))
    assert host.shell("readlink /opt/hbagent/current").strip() == f"releases/{before}"
    assert set(executables(host).values()) == {before}
    host.run("/opt/hbagent/current/bin/hbagent", "--version")
    host.run("hbagent", "nodes", "--timeout", "20s")


def test_what_runs_goes_on_where_the_new_release_does_not_take_its_file(host: Host) -> None:
    before = executables(host)
    host.shell("echo 'nonsense = 1' >>/etc/hbagent/agent.toml")
    refused = host.run("dpkg", "--configure", "hbagent", check=False)
    assert refused.returncode != 0
    assert "99.1 does not take /etc/hbagent/agent.toml; what runs goes on as it is" in refused.stderr
    assert executables(host) == before
    host.shell("sed -i '/nonsense/d' /etc/hbagent/agent.toml")


def test_an_upgrade_restarts_what_runs_and_nobody_is_alarmed(host: Host) -> None:
    host.run("systemctl", "stop", "hbagent-diagnose.socket")
    seen = max((event["sequence"] for event in events(host)), default=0)
    host.run("dpkg", "--configure", "hbagent")
    assert set(executables(host).values()) == {"99.1"}
    assert wait_until(lambda: alive(host), BOUND_S), host.journal("hbagent-*")
    new = [event for event in events(host) if event["sequence"] > seen]
    assert [event for event in new if event["kind"] in ALARMS] == []
    # What did not run still does not; what is enabled still is.
    assert host.run("systemctl", "is-active", "hbagent-diagnose.socket", check=False).returncode == 3
    assert host.run("systemctl", "is-enabled", "hbagent-agent").stdout.strip() == "enabled"


def test_the_release_before_is_kept_and_the_package_before_goes_back_to_it(
    host: Host, packages: tuple[Path, Path]
) -> None:
    kept = host.shell("ls /opt/hbagent/releases").split()
    assert len(kept) == 2 and "99.1" in kept
    host.run("dpkg", "-i", put(host, packages[0]))
    assert set(executables(host).values()) == set(kept) - {"99.1"}
    assert wait_until(lambda: alive(host), BOUND_S), host.journal("hbagent-*")


def test_removed_it_says_goodbye_and_leaves_what_a_person_wrote(host: Host) -> None:
    host.run("dpkg", "--remove", "hbagent")
    units = [word for role in ROLES for word in ("-u", f"hbagent-{role}")]
    told = host.run("journalctl", "--no-pager", "-o", "cat", *units).stdout
    # Each has ended before those whom it tells so.
    steps = [f"{verb} hbagent-{role}.service" for role in reversed(ROLES) for verb in ("Stopping", "Stopped")]
    assert sorted(steps, key=told.rindex) == steps, told
    assert re.search(r"^leader node-left node=dc1/a/host1 ", told, re.MULTILINE), told
    assert host.run("pgrep", "-f", "/opt/hbagent", check=False).stdout == ""
    assert host.run("test", "-e", "/opt/hbagent", check=False).returncode == 1
    host.run("test", "-f", "/etc/hbagent/keys/agent.key")


def test_purged_it_leaves_nothing(host: Host) -> None:
    host.shell("mkdir -p /etc/systemd/system/hbagent-agent.service.d; systemctl daemon-reload")
    host.run("dpkg", "--purge", "hbagent")
    left = host.shell("find / -xdev -name '*hbagent*' -not -path '/root/*' -not -path '/proc/*' -not -path '/tmp/*'")
    assert left.split() == []
    assert host.shell("getent passwd; getent group").count("hbagent") == 0
    assert host.run("dpkg", "-l", "hbagent", check=False).returncode != 0
    units = host.run("systemctl", "list-units", "--all", "--no-legend", "hbagent*", check=False).stdout
    assert units == ""


# ---- the container file ----------------------------------------------------------------------------------

#: Of the hosts' disk, what no Python needs.
LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/perl", "usr/lib/systemd", "var/cache",
            "var/lib/apt", "usr/share/zoneinfo", "usr/share/perl5", "usr/lib/openssh", "usr/lib/udev")  # fmt: skip
HEALTHY = re.compile(r"CMD (for role .*)")


@pytest.fixture(scope="module")
def image(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """The image of the container file; runs a command in a container of it."""
    store, context = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("context")
    shutil.copytree(wheelhouse, context / "dist" / "wheelhouse")
    options = ("--root", str(store / "graph"), "--runroot", str(store / "run"), "--storage-driver", "overlay")

    def buildah(*words: str) -> str:
        done = subprocess.run(["buildah", *options, *words], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"buildah {words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    try:
        base = buildah("from", "scratch")
        place = buildah("mount", base)
        leave = [f"--exclude=./{path}" for path in LEFT_OUT]
        with subprocess.Popen(["tar", "-C", rootfs(), *leave, "-c", "."], stdout=subprocess.PIPE) as disk:
            subprocess.run(["tar", "-C", place, "-x"], stdin=disk.stdout, check=True)
        buildah("umount", base)
        buildah("commit", "-q", base, "localhost/base")
        arguments = (
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--pull-never",
            "--build-arg",
            "BASE=localhost/base",
        )
        buildah(
            "build", *arguments, "-f", str(ROOT / "deploy" / "Containerfile"), "-t", "localhost/hbagent", str(context)
        )
        container = buildah("from", "--pull-never", "localhost/hbagent")
        yield lambda *words: buildah("run", "--isolation", "chroot", container, "--", *words)
    finally:
        subprocess.run(["buildah", *options, "umount", "--all"], capture_output=True, check=False)
        subprocess.run(["buildah", *options, "rm", "--all"], capture_output=True, check=False)
        subprocess.run(["umount", str(store / "graph" / "overlay")], capture_output=True, check=False)


@pytest.mark.needs("buildah", "tar")
def test_the_image_runs_hbagent_as_nobody_in_particular(image: Callable[..., str]) -> None:
    assert image("hbagent", "--version").startswith("hbagent ")
    assert image("id", "-u") == "64109"
    written = image(
        "sh", "-c", "touch /opt/hbagent/x /etc/x /x 2>/dev/null; ls /opt/hbagent/x /etc/x /x 2>/dev/null; true"
    )
    assert written == ""
    sources, compiled = (image("find", "/opt/hbagent/lib", "-name", f"*.{kind}").count("\n") for kind in ("py", "pyc"))
    assert sources == compiled > 0


@pytest.mark.needs("buildah", "tar")
def test_a_root_in_the_image_is_healthy_once_it_answers(image: Callable[..., str]) -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    (check,) = HEALTHY.findall(text)
    script = f"""
set -e
mkdir /run/hbagent-root/k; cd /run/hbagent-root/k; export CREDENTIALS_DIRECTORY=$PWD
hbagent keys init dc1/root --dir . >/dev/null; mv dc1.root.key root.key
hbagent keys init dc1/a-leader --dir . --allow allow.toml >/dev/null
cat >root.toml <<END
[root]
name = "dc1/root"
publish = "tcp://127.0.0.1:45711"
control = "tcp://127.0.0.1:45712"
[security]
key = "credential:root.key"
allow = "$PWD/allow.toml"
[[rack]]
name = "dc1/a"
leaders = ["dc1/a-leader"]
END
if sh -c '{check}' >/dev/null 2>&1; then echo healthy without a daemon; fi
hbagent root --config root.toml 2>log & root=$!
for i in $(seq 100); do if sh -c '{check}' >/dev/null 2>&1; then echo healthy; break; fi; sleep 0.1; done
kill $root; wait $root; echo ended $?
"""
    assert image("sh", "-c", script).split("\n") == ["healthy", "ended 0"]
