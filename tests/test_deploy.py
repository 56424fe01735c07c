"""The units in deploy/ are what systemd accepts, and as closed as they are said to be."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hbagent.cli import COMMANDS
from hbagent.diagnosis.examination import HELPER_S
from hbagent.diagnosis.helper import GROUP as DEFAULT_GROUP
from hbagent.probes.program import PROCESSES_MAX
from hbagent.role.settings.probing import DEFAULT_HELPER, DEFAULT_NOTIFY, DEFAULT_STATE_DIR

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
ROLES = ("agent", "leader", "root")
HELPER = DEPLOY / "hbagent-diagnose@.service"
HELPER_SOCKET = DEPLOY / "hbagent-diagnose.socket"


def unit(role: str) -> Path:
    return DEPLOY / f"hbagent-{role}.service"


def values(role: str, key: str) -> list[str]:
    """Values of a key in the order of the file; systemd adds some of them up."""
    return values_of(unit(role), key)


def values_of(file: Path, key: str) -> list[str]:
    pairs = (line.partition("=") for line in file.read_text().splitlines() if not line.startswith("#"))
    return [value for name, _, value in pairs if name == key]


def test_there_is_a_unit_for_each_role_and_it_runs_a_command_that_exists() -> None:
    present = sorted(path.name for path in DEPLOY.glob("*.service"))
    assert present == sorted([*(unit(role).name for role in ROLES), HELPER.name])
    words = {command[0] for command in COMMANDS}
    for role in ROLES:
        (command,) = values(role, "ExecStart")
        assert command.split()[1:] == [role, "--config", f"/etc/hbagent/{role}.toml"]
        assert role in words


@pytest.mark.parametrize("role", ROLES)
def test_libzmq_may_set_its_thread_scheduling_after_all_else_is_denied(role: str) -> None:
    filters = values(role, "SystemCallFilter")
    denied = next(index for index, value in enumerate(filters) if value.startswith("~") and "@resources" in value)
    assert "sched_setscheduler" in " ".join(filters[denied + 1 :]).split()


def test_probes_may_give_way_and_applications_of_every_user_reach_their_socket() -> None:
    assert any("setpriority" in value for value in values("agent", "SystemCallFilter"))
    assert (values("agent", "RuntimeDirectory"), values("agent", "RuntimeDirectoryMode")) == (["hbagent"], ["0755"])
    # Kept over a restart, that of a dynamic user would lie where nobody else gets.
    assert values("agent", "RuntimeDirectoryPreserve") == []
    assert Path(DEFAULT_NOTIFY).parent == Path("/run/hbagent")
    assert values("agent", "StateDirectory") == [DEFAULT_STATE_DIR.removeprefix("/var/lib/")]


@pytest.mark.parametrize("role", ["leader", "root"])
def test_a_query_socket_is_the_groups_and_lies_where_its_daemon_may_make_it(role: str) -> None:
    assert (values(role, "Group"), values(role, "RuntimeDirectoryMode")) == (["hbagent"], ["0755"])
    text = re.search(r'^#query = "ipc://(.*)"$', (DEPLOY.parent / "etc" / f"{role}.toml").read_text(), re.MULTILINE)
    assert text
    assert values(role, "RuntimeDirectory") == [Path(text[1]).parent.name]


@pytest.mark.parametrize("role", ROLES)
def test_a_daemon_has_a_user_of_its_own_and_gets_its_key_from_root(role: str) -> None:
    assert (values(role, "DynamicUser"), values(role, "User")) == (["yes"], [f"hbagent-{role}"])
    assert values(role, "LoadCredential") == [f"{role}.key:/etc/hbagent/keys/{role}.key"]
    assert values(role, "LimitCORE") == ["0"]


def test_the_groups_that_units_name_are_made_and_the_agent_alone_may_ask_the_helper() -> None:
    lines = [line.split() for line in (DEPLOY / "hbagent.sysusers").read_text().splitlines() if line[0] != "#"]
    made = [words[1] for words in lines]
    assert made == ["hbagent", DEFAULT_GROUP, "hbagent-agent"]
    # Not hbagent: its members may give orders at the root, and an agent runs probes.
    assert values("agent", "SupplementaryGroups") == [DEFAULT_GROUP]
    assert values("agent", "Group") == []
    assert values_of(HELPER_SOCKET, "SocketGroup") == [DEFAULT_GROUP]
    assert not any(DEFAULT_GROUP in unit(role).read_text() for role in ("leader", "root"))


@pytest.mark.parametrize("role", ROLES)
def test_a_child_that_eats_all_memory_does_not_end_its_daemon(role: str) -> None:
    assert (values(role, "OOMPolicy"), values(role, "OOMScoreAdjust")) == (["continue"], ["-500"])


def test_one_probe_that_forks_without_end_leaves_room_for_the_others() -> None:
    (tasks,) = map(int, values("agent", "TasksMax"))
    assert tasks >= PROCESSES_MAX * 2


@pytest.mark.parametrize("role", ROLES)
def test_a_loop_that_hangs_is_over_soon_and_one_that_pauses_is_not(role: str) -> None:
    (watchdog,) = map(int, values(role, "WatchdogSec"))
    # Three seconds to die and to start on a busy host; a healthy daemon may stand still for five.
    assert watchdog == 7
    assert values(role, "RestartSec") == ["200ms"]


@pytest.mark.parametrize("role", ROLES)
def test_no_sandbox_setting_makes_host_facts_lie(role: str) -> None:
    assert [values(role, key) for key in ("ProcSubset", "ProtectProc", "PrivateUsers")] == [[], [], []]


@pytest.mark.parametrize("role", ROLES)
def test_a_daemon_is_never_given_up(role: str) -> None:
    assert (values(role, "Restart"), values(role, "StartLimitIntervalSec")) == (["always"], ["0"])


def test_the_helper_is_started_for_each_request_where_the_agent_asks() -> None:
    assert values_of(HELPER_SOCKET, "ListenStream") == [DEFAULT_HELPER]
    assert (values_of(HELPER_SOCKET, "Accept"), values_of(HELPER_SOCKET, "SocketMode")) == (["yes"], ["0660"])
    (command,) = values_of(HELPER, "ExecStart")
    assert command.split()[1:] == ["diagnose", "--serve"]
    assert values_of(HELPER, "StandardInput") == ["socket"]
    (limit,) = values_of(HELPER, "RuntimeMaxSec")
    assert int(limit) > HELPER_S


def test_the_helper_has_two_capabilities_and_no_network() -> None:
    capabilities = ["CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"]
    assert values_of(HELPER, "CapabilityBoundingSet") == values_of(HELPER, "AmbientCapabilities") == capabilities
    assert values_of(HELPER, "PrivateNetwork") == ["yes"]
    assert values_of(HELPER, "RestrictAddressFamilies") == ["AF_UNIX"]
    # It reads the memory of others, and may not write there.
    assert any("process_vm_readv" in value for value in values_of(HELPER, "SystemCallFilter"))
    assert not any("process_vm_writev" in value for value in values_of(HELPER, "SystemCallFilter"))
    assert [values_of(HELPER, key) for key in ("ProcSubset", "ProtectProc", "PrivateUsers")] == [[], [], []]


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("file", [*(unit(role) for role in ROLES), HELPER, HELPER_SOCKET], ids=lambda file: file.name)
def test_systemd_accepts_the_unit(file: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, timeout=30
    )
    # A template is read as an instance of itself.
    complaints = [line for line in done.stderr.splitlines() if file.name.partition("@")[0] in line]
    assert [line for line in complaints if "is not executable: No such file" not in line] == []


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("file", [*(unit(role) for role in ROLES), HELPER], ids=lambda file: file.name)
def test_systemd_finds_the_unit_closed(file: Path) -> None:
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(file)]
    closed = subprocess.run(security, capture_output=True, text=True, timeout=30)
    assert closed.returncode == 0, closed.stdout
