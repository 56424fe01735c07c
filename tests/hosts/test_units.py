"""The units under a real systemd: who they run as, what they weigh, and what happens to one that hangs or runs away."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Figures
from tests.hosts.deployment import ANSWER, DATACENTER, Deployment
from tests.hosts.lab import Host, wait_until

#: An agent that is nothing else, a leader beside which another leads its rack, and the root.
HOSTS = {"agent": 4, "leader": 3, "root": 1}
AGENT_RSS_MAX = 28_000_000
#: From the moment in which a loop hangs until systemd has its successor's word that it works. A machine that stands
#: still meanwhile has more goes.
BACK_S = 10.0
GOES = 3
#: A minute of life: what grows at first has grown.
SETTLED_S = 60.0
#: Agents know their leaders again within seconds; the root's view follows.
SOON_S = 60.0
PROBES = """
[[probe]]
name = "fat"
kind = "exec"
command = ["/usr/local/lib/probes/fat"]
interval = "5s"
timeout = "2s"

[[probe]]
name = "bomb"
kind = "exec"
command = ["/usr/local/lib/probes/bomb"]
interval = "5s"
timeout = "2s"
"""
FAT = '#!/usr/bin/python3 -IS\\nkept = []\\nwhile True:\\n    kept.append(b"x" * (8 << 20))\\n'
BOMB = "#!/bin/sh\\nwhile true; do sleep 60 & done\\n"
CONFIG = "/etc/hbagent/agent.toml"


def unit(role: str) -> str:
    return f"hbagent-{role}.service"


def shown(host: Host, role: str, name: str) -> str:
    """A property of a unit."""
    return host.shell(f"systemctl show --value -p {name} {unit(role)}").strip()


def status_of(host: Host, role: str) -> dict[str, str]:
    """What the kernel says of a unit's main process."""
    lines = host.shell(f"cat /proc/{shown(host, role, 'MainPID')}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def of_role(fleet: Deployment, role: str) -> Host:
    return fleet.host(HOSTS[role])


# ---- who they are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", HOSTS)
def test_a_daemon_runs_as_a_user_of_its_own_without_any_right(fleet: Deployment, role: str) -> None:
    host = of_role(fleet, role)
    status = status_of(host, role)
    assert status["Uid"].split()[0] not in ("0", "65534")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert shown(host, role, "DynamicUser") == "yes"
    # The key would lie in a core.
    assert re.search(r"^Max core file size +0 +0 ", host.shell(f"cat /proc/{status['Pid']}/limits"), re.MULTILINE)


def test_daemons_of_one_host_have_different_users_and_directories(fleet: Deployment) -> None:
    host = fleet.root
    users = {status_of(host, role)["Uid"].split()[0] for role in ("agent", "root")}
    assert len(users) == 2
    kept = host.shell("stat -c '%a %u' /var/lib/private /var/lib/private/hbagent/agent /var/lib/private/hbagent/root")
    modes, owners = zip(*(line.split() for line in kept.splitlines()), strict=True)
    assert modes == ("700", "700", "700")
    assert set(owners[1:]) == users
    # Where applications of every user report, and where the group's members ask.
    assert host.shell("stat -c %a /run/hbagent /run/hbagent/notify /run/hbagent-root").split() == ["755", "666", "755"]
    assert host.shell("stat -c '%a %G' /run/hbagent-root/root.sock").split() == ["660", "hbagent"]


@pytest.mark.parametrize("role", HOSTS)
def test_a_key_is_roots_and_the_daemon_alone_reads_its_copy(fleet: Deployment, role: str) -> None:
    host = of_role(fleet, role)
    key, copy = f"/etc/hbagent/keys/{role}.key", f"/run/credentials/{unit(role)}/{role}.key"
    assert host.shell(f"stat -c '%a %U' {key}").split() == ["400", "root"]
    host.shell(f"cmp {key} {copy}")
    uid, gid = (status_of(host, role)[name].split()[0] for name in ("Uid", "Gid"))
    reads = ["--clear-groups", "--", "cat", copy]
    assert host.run("setpriv", f"--reuid={uid}", f"--regid={gid}", *reads, check=False).returncode == 0
    members = ["setpriv", "--reuid=65534", "--regid=hbagent", "--groups=hbagent,hbagent-diagnose", "--", "cat"]
    for file in (key, copy):
        assert "Permission denied" in host.run(*members, file, check=False).stderr


def test_who_is_in_the_group_may_ask_and_others_are_told_so(fleet: Deployment) -> None:
    def status(*groups: str) -> tuple[int, str]:
        who = ["setpriv", "--reuid=65534", "--regid=65534", *groups, "env", "HOME=/nonexistent"]
        done = fleet.root.run(*who, "hbagent", "status", *ANSWER, check=False)
        return done.returncode, done.stdout + done.stderr

    code, text = status("--groups=hbagent")
    assert (code in (0, 1, 2), DATACENTER in text) == (True, True), text
    code, text = status("--clear-groups")
    assert "is open to its owner and the group hbagent alone" in text
    assert code not in (0, 1, 2)


def test_an_agent_and_what_it_runs_can_give_no_orders_and_read_no_other_file(fleet: Deployment) -> None:
    host = fleet.root
    status = status_of(host, "agent")
    groups = ",".join(status["Groups"].split())
    who = [
        "setpriv",
        f"--reuid={status['Uid'].split()[0]}",
        f"--regid={status['Gid'].split()[0]}",
        f"--groups={groups}",
    ]
    socket = "ipc:///run/hbagent-root/root.sock"
    order = ["hbagent", "maintenance", "--socket", socket, "--rack", "*", "--for", "1m", "--reason", "a test"]
    refused = host.run(*who, *order, check=False)
    assert refused.returncode not in (0, 1, 2)
    assert "permission denied" in refused.stderr
    for file in ("root.toml", "root-allow.toml", ""):
        reads = host.run(*who, "cat" if file else "ls", f"/etc/hbagent/{file}", check=False)
        assert "Permission denied" in reads.stderr
    host.run(*who, "cat", CONFIG)
    assert host.shell(f"stat -c '%a %G' /etc/hbagent {CONFIG}").split() == ["751", "hbagent", "640", "hbagent-agent"]
    # Whoever operates may not read it either, and is told.
    member = ["setpriv", "--reuid=4321", "--regid=4321", "--groups=hbagent", "env", "HOME=/nonexistent"]
    assert (
        f"{CONFIG}: not readable by this user"
        in host.run(*member, "hbagent", "doctor", "-o", "json", check=False).stdout
    )
    assert f"{CONFIG}: cannot be read" in host.run(*member, "hbagent", "probe", "list", check=False).stderr


# ---- what they weigh -----------------------------------------------------------------------------------------


def test_an_agent_is_small_after_a_minute(fleet: Deployment, figures: Figures) -> None:
    hosts = list(fleet.nodes().values())

    def age(host: Host) -> float:
        return float(host.shell(f"ps -o etimes= -p {shown(host, 'agent', 'MainPID')}"))

    assert wait_until(lambda: all(age(host) >= SETTLED_S for host in hosts), 2 * SETTLED_S)
    weights = {host.name: int(status_of(host, "agent")["VmRSS"].split()[0]) * 1024 for host in hosts}
    figures("hosts", f"agents in their units after a minute: at most {max(weights.values()) / 1e6:.1f} MB (28 MB)")
    # One of six may have had a hard time on a machine that does much else.
    assert statistics.median(weights.values()) <= AGENT_RSS_MAX, weights


# ---- what goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", HOSTS)
def test_a_loop_that_hangs_is_killed_and_back_within_ten_seconds(
    fleet: Deployment, role: str, figures: Figures
) -> None:
    host = of_role(fleet, role)
    took: list[float] = []
    while not took or (min(took) > BACK_S and len(took) < GOES):
        took.append(hang(host, role))
        fleet.wait_alive(SOON_S)
    figures("hosts", f"{role} whose loop hangs: killed and ready again after {min(took):.1f} s (10 s)")
    assert min(took) <= BACK_S, took


def hang(host: Host, role: str) -> float:
    """How long it takes systemd to have a daemon again that works instead of one that hangs."""
    restarts = int(shown(host, role, "NRestarts"))
    pid = shown(host, role, "MainPID")
    # The loop does not go round any more; systemd sees of that what it would see of any other reason.
    began = time.monotonic()
    host.run("kill", "-STOP", pid)

    def back() -> bool:
        lines = host.shell(f"systemctl show -p MainPID,ActiveState {unit(role)}").split()
        return "ActiveState=active" in lines and f"MainPID={pid}" not in lines

    assert wait_until(back, SOON_S), host.journal(unit(role))
    took = time.monotonic() - began
    assert int(shown(host, role, "NRestarts")) == restarts + 1
    assert f"{unit(role)}: Watchdog timeout" in host.journal(unit(role), None)
    return took


@contextlib.contextmanager
def wild_probes(host: Host) -> Iterator[None]:
    """A probe that wants all memory and one that forks without end, until the end of the block."""
    host.shell(f"mkdir -p /usr/local/lib/probes; cp -p {CONFIG} /var/tmp/agent.toml.kept")
    for name, text in (("fat", FAT), ("bomb", BOMB)):
        host.shell(f"printf '{text}' >/usr/local/lib/probes/{name}; chmod 755 /usr/local/lib/probes/{name}")
    try:
        host.run("sh", "-ec", f'printf "%s" "$1" >>{CONFIG}; systemctl reload {unit("agent")}', "sh", PROBES)
        yield
    finally:
        host.shell(f"cp -p /var/tmp/agent.toml.kept {CONFIG}; systemctl reload {unit('agent')}")
        host.shell("rm -r /usr/local/lib/probes /var/tmp/agent.toml.kept")


@contextlib.contextmanager
def bounded_memory(host: Host, role: str) -> Iterator[Path | None]:
    """The unit's MemoryMax for real: a host of the lab cannot bound memory itself, so this machine does it for its
    processes. None where it cannot, either."""
    controller = Path("/sys/fs/cgroup/memory")
    if not (controller / "memory.limit_in_bytes").exists():
        yield None
        return
    group = controller / f"hblab-{host.name}-{role}"
    group.mkdir(exist_ok=True)
    try:
        (group / "memory.limit_in_bytes").write_text(shown(host, role, "MemoryMax"))
        inside = f"system.slice/{unit(role)}/cgroup.procs"
        (procs,) = Path("/sys/fs/cgroup/systemd").glob(f"hblab-{host.name}/**/{inside}")
        # Whoever is started meanwhile by one that was not moved yet is moved after it.
        assert wait_until(lambda: not move(members(procs) - members(group / "cgroup.procs"), group), SOON_S)
        yield group
    finally:
        assert wait_until(lambda: not move(members(group / "cgroup.procs"), controller), SOON_S)
        group.rmdir()


def members(procs: Path) -> set[str]:
    """The processes of a group."""
    return set(procs.read_text().split())


def move(pids: set[str], group: Path) -> set[str]:
    """Move processes into a group; the same, of which some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(pid)
    return pids


def test_a_fat_probe_and_a_fork_bomb_leave_the_agent_beating(fleet: Deployment) -> None:
    host = of_role(fleet, "agent")
    node, pid = fleet.node(host), shown(host, "agent", "MainPID")

    def probes() -> dict[str, str]:
        found = fleet.root.run("hbagent", "explain", node, check=False).stdout
        return dict(re.findall(r"^  (fat|bomb) \(exec\): \S+ (.*)$", found, re.MULTILINE))

    with fleet.quiet() as seen, bounded_memory(host, "agent") as group, wild_probes(host):
        before = beats(host)

        def both_fail() -> bool:
            told = probes()
            forks = "fork" in told.get("bomb", "").lower()
            killed = group is None or "oom_kill 0" not in (group / "memory.oom_control").read_text()
            return forks and killed and "fat" in told and "OK" not in told["fat"]

        assert wait_until(both_fail, 2 * SOON_S), probes()
        # Both have run more than once by then, and the others run on.
        assert wait_until(lambda: beats(host) >= before + 10, SOON_S)
        fleet.wait_alive(SOON_S)
        assert shown(host, "agent", "MainPID") == pid
    assert "node-dead" not in [kind for kind, *_ in seen.alarms]
    assert wait_until(lambda: not probes(), SOON_S)
    fleet.wait_alive(SOON_S)


def beats(host: Host) -> int:
    """How many this life of the agent has sent, as it tells systemd."""
    found = re.search(r"sequence (\d+)", shown(host, "agent", "StatusText"))
    return int(found[1]) if found else 0


# ---- the helper ----------------------------------------------------------------------------------------------


def test_a_deadlock_of_another_users_program_is_proved_through_the_helper_and_told(fleet: Deployment) -> None:
    host = fleet.root
    assert host.shell("systemctl is-active hbagent-diagnose.socket").strip() == "active"
    # Neither the agent's user nor root; it may ask the root, which the drill does to watch.
    somebody = ["setpriv", "--reuid=4321", "--regid=4321", "--groups=hbagent", "env", "HOME=/nonexistent"]
    done = host.run(*somebody, "hbagent", "drill", "deadlock", "-o", "json", check=False, timeout=120)
    stages = {stage["stage"]: stage for stage in json.loads(done.stdout)["stages"]}
    assert stages["verdict"]["ok"], stages
    assert stages["verdict"]["text"].startswith("DEADLOCKED"), stages
    evidence = host.shell(f"hbagent evidence {fleet.node(host)}")
    assert "each waits for the next, the last for the first" in evidence
    assert "hbagent-diagnose" in host.shell("journalctl --no-pager -o cat -u 'hbagent-diagnose@*' -n 5")
    assert wait_until(fleet.all_alive, SOON_S), fleet.states()


def test_the_helper_answers_the_agents_group_and_nobody_else(fleet: Deployment) -> None:
    host = fleet.root
    asks = (
        "from hbagent.diagnosis.helper import HelperError, Request, ask_helper\n"
        "try:\n    print(ask_helper('/run/hbagent-diagnose.sock', Request(pid=PID), 5)['verdict'])\n"
        "except HelperError as error:\n    print(error)\n"
    ).replace("PID", shown(host, "root", "MainPID"))

    def told(groups: str) -> str:
        who = ["setpriv", "--reuid=4321", "--regid=4321", groups]
        return host.run(*who, "/opt/hbagent/current/bin/python", "-c", asks, check=False).stdout

    assert "Permission denied" in told("--groups=hbagent")
    assert "Permission denied" not in told("--groups=hbagent-diagnose")
    assert "may not ask" not in told("--groups=hbagent-diagnose")
