"""Each check of the doctor against the real thing, well and broken."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from hbagent.cli import checks
from hbagent.cli.checks import FAIL, OK, WARN, Finding
from hbagent.core.states import Kind
from hbagent.core.units import SECOND
from hbagent.diagnosis import helper
from hbagent.role.settings import AgentSettings, Endpoint, LeaderSettings, RootSettings, load_any
from hbagent.role.settings.load import AnySettings
from hbagent.transport import allow, keys
from tests.cli.answering import LEADER1, RACK1, Daemon, calm_root, leader_core, without_rights
from tests.ports import bound, port_of

NODES = [f"{RACK1}/node1", f"{RACK1}/node2"]


def config(directory: Path, text: str, *, plain: bool = True) -> AnySettings:
    """The settings of a config file below a directory, with the security section that is wanted."""
    security = "plain = true" if plain else 'key = "my.key"\nallow = "allow.toml"'
    path = directory / "daemon.toml"
    path.write_text(text.replace("SECURITY", f"[security]\n{security}").replace("DIR", str(directory)))
    return load_any(path)


def root_settings(directory: Path, publish: int = 5711, control: int = 5712, *, plain: bool = True) -> RootSettings:
    settings = config(
        directory,
        f"""
[root]
name = "demo/root"
publish = "tcp://127.0.0.1:{publish}"
control = "tcp://127.0.0.1:{control}"
query = "ipc://DIR/q.sock"
state_dir = "state"
SECURITY
[[rack]]
name = "{RACK1}"
leaders = ["{LEADER1}"]
""",
        plain=plain,
    )
    assert isinstance(settings, RootSettings)
    return settings


def leader_settings(directory: Path, root: Sequence[int] = (5711, 5712), *, plain: bool = True) -> LeaderSettings:
    settings = config(
        directory,
        f"""
[leader]
name = "{LEADER1}"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
query = "ipc://DIR/q.sock"
SECURITY
[root]
name = "demo/root"
publish = "tcp://127.0.0.1:{root[0]}"
control = "tcp://127.0.0.1:{root[1]}"
public_key = "rq:rM>}}U?@Lns47E1%kR.o@n%FcmmsL/@{{H8]yf7"
[[rack]]
name = "{RACK1}"
nodes = ["node1", "node2"]
""",
        plain=plain,
    )
    assert isinstance(settings, LeaderSettings)
    return settings


@contextmanager
def listening(count: int) -> Iterator[list[int]]:
    """So many ports of loopback on which somebody listens."""
    with held(count) as ports:
        for port in ports:
            port.listen()
        yield [port_of(port) for port in ports]


@contextmanager
def closed(count: int) -> Iterator[list[int]]:
    """So many ports of loopback on which nobody listens."""
    with held(count) as ports:
        yield [port_of(port) for port in ports]


@contextmanager
def held(count: int) -> Iterator[list[socket.socket]]:
    """So many ports of loopback."""
    with ExitStack() as stack:
        yield [stack.enter_context(bound()) for _ in range(count)]


def graded(findings: Iterable[Finding]) -> list[str]:
    return [finding.grade for finding in findings]


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


# ---- this host -------------------------------------------------------------------------------------------


def test_the_installed_libzmq_is_fine() -> None:
    assert graded(checks.library()) == [OK]


def test_a_clock_of_another_age_is_told() -> None:
    finding = only(checks.clock(86400.0 * 365))
    assert (finding.grade, "says 1971-01-01" in finding.text) == (WARN, True)


def test_a_plausible_clock_is_judged_by_the_kernel_alone() -> None:
    finding = only(checks.clock(checks.EARLIEST_WALL_S + 1))
    assert finding.grade in (OK, WARN)
    assert "synchronized" in finding.text


# ---- keys ------------------------------------------------------------------------------------------------


def test_a_key_is_shown_by_its_fingerprint_and_never_itself(socket_dir: Path) -> None:
    settings = root_settings(socket_dir, plain=False)
    pair = keys.generate("demo/root", socket_dir)
    keys.secret_path("demo/root", socket_dir).rename(socket_dir / "my.key")
    finding = only(checks.key(settings))
    assert finding.grade == OK
    assert keys.fingerprint(pair.public) in finding.text
    assert pair.secret not in finding.text


def test_a_key_that_others_may_read_fails(socket_dir: Path) -> None:
    keys.generate("demo/root", socket_dir)
    os.chmod(keys.secret_path("demo/root", socket_dir).rename(socket_dir / "my.key"), 0o644)
    finding = only(checks.key(root_settings(socket_dir, plain=False)))
    assert (finding.grade, "chmod 600" in finding.text) == (FAIL, True)


def test_a_missing_key_fails_with_the_command_that_makes_it(socket_dir: Path) -> None:
    settings = root_settings(socket_dir, plain=False)
    assert only(checks.key(settings)).text.endswith("my.key: No such file or directory")
    security = msgspec.structs.replace(settings.security, key=keys.secret_path("demo/root", socket_dir))
    finding = only(checks.key(msgspec.structs.replace(settings, security=security)))
    assert finding.grade == FAIL
    assert finding.text.endswith(f"make it with: hbagent keys init demo/root --dir {socket_dir}")


def test_the_key_of_another_name_fails(socket_dir: Path) -> None:
    keys.generate("demo/other", socket_dir)
    keys.secret_path("demo/other", socket_dir).rename(socket_dir / "my.key")
    finding = only(checks.key(root_settings(socket_dir, plain=False)))
    assert (finding.grade, "is the key of demo/other, not of demo/root" in finding.text) == (FAIL, True)


def test_a_key_that_systemd_hands_over_is_looked_at_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = root_settings(tmp_path, plain=False)
    security = msgspec.structs.replace(settings.security, key=Path("credential:root.key"))
    settings = msgspec.structs.replace(settings, security=security)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    finding = only(checks.key(settings))
    assert (finding.grade, "as root: CREDENTIALS_DIRECTORY=" in finding.text) == (WARN, True)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert only(checks.key(settings)).grade == FAIL
    keys.generate("demo/root", tmp_path)
    keys.secret_path("demo/root", tmp_path).rename(tmp_path / "root.key")
    assert only(checks.key(settings)).grade == OK


def test_plain_text_needs_no_key(socket_dir: Path) -> None:
    assert graded(checks.key(root_settings(socket_dir))) == [OK]
    assert graded(checks.allow_list(root_settings(socket_dir))) == []


# ---- who may connect -------------------------------------------------------------------------------------


def enrolled(directory: Path, role: allow.Role, names: Iterable[str]) -> None:
    admitted = allow.AllowList()
    for name in names:
        admitted = admitted.allow(role, name, keys.generate(name, directory / "keys").public)
    allow.save(directory / "allow.toml", admitted)


def test_expected_nodes_without_a_key_are_named(socket_dir: Path) -> None:
    enrolled(socket_dir, allow.Role.AGENT, NODES[:1])
    finding = only(checks.allow_list(leader_settings(socket_dir, plain=False)))
    assert finding.grade == WARN
    assert f"1 of 2 expected agents have no key there ({NODES[1]})" in finding.text


def test_a_complete_allow_list_is_ok(socket_dir: Path) -> None:
    enrolled(socket_dir, allow.Role.AGENT, NODES)
    assert graded(checks.allow_list(leader_settings(socket_dir, plain=False))) == [OK]
    enrolled(socket_dir, allow.Role.LEADER, [LEADER1])
    assert graded(checks.allow_list(root_settings(socket_dir, plain=False))) == [OK]


def test_a_missing_allow_list_fails(socket_dir: Path) -> None:
    assert graded(checks.allow_list(leader_settings(socket_dir, plain=False))) == [FAIL]


# ---- hooks and files -------------------------------------------------------------------------------------


def test_a_hook_that_must_not_run_fails_and_a_sound_one_is_ok(socket_dir: Path) -> None:
    hook = socket_dir / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    path = socket_dir / "daemon.toml"
    root_settings(socket_dir)
    path.write_text(
        f'{path.read_text()}\n[[hook]]\nname = "pager"\ncommand = ["{hook}"]\non = ["{Kind.NODE_DEAD.value}"]\n'
    )
    settings = load_any(path)
    assert isinstance(settings, RootSettings)
    assert graded(checks.hooks(settings)) == [OK]
    hook.chmod(0o777)
    assert graded(checks.hooks(settings)) == [FAIL]


def test_too_few_open_files_are_told_with_the_number_that_is_needed(socket_dir: Path) -> None:
    settings = leader_settings(socket_dir)
    assert graded(checks.descriptors(settings)) == [OK]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = checks.DESCRIPTORS_BASE + 2 * checks.DESCRIPTORS_PER_PEER
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed - 1, hard))
    try:
        finding = only(checks.descriptors(settings))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (finding.grade, f"LimitNOFILE={needed}" in finding.text) == (WARN, True)


def test_a_state_directory_that_is_there_or_can_be_made_is_ok(tmp_path: Path) -> None:
    assert graded(checks.state_directory(tmp_path)) == [OK]
    finding = only(checks.state_directory(tmp_path / "a" / "b"))
    assert (finding.grade, f"it will be made in {tmp_path}" in finding.text) == (OK, True)


@pytest.mark.root
def test_a_state_directory_behind_a_closed_door_is_no_fault() -> None:
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as name:
        os.chmod(name, 0o755)
        closed, state = Path(name, "private"), Path(name, "state")
        (closed / "state").mkdir(parents=True)
        closed.chmod(0o700)
        state.symlink_to(closed / "state")
        with without_rights():
            finding = only(checks.state_directory(state))
    assert (finding.grade, "cannot be looked at" in finding.text) == (WARN, True)


def test_a_file_in_the_place_of_the_state_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert graded(checks.state_directory(tmp_path / "state")) == [FAIL]
    assert graded(checks.state_directory(tmp_path / "state" / "deeper")) == [FAIL]


def test_what_belongs_to_another_user_is_no_failure_but_not_well_either(socket_dir: Path) -> None:
    keys.generate("demo/root", socket_dir)
    keys.secret_path("demo/root", socket_dir).rename(socket_dir / "my.key")
    settings = root_settings(socket_dir, plain=False)
    if os.geteuid() != 0:
        socket_dir.chmod(0o500)
    with without_rights():
        state = only(checks.state_directory(socket_dir / "state"))
        key = graded(checks.key(settings)) if os.geteuid() == 65534 else [WARN]
    socket_dir.chmod(0o700)
    assert (state.grade, "run the doctor as the daemon's user" in state.text) == (WARN, True)
    assert key == [WARN]


@pytest.mark.parametrize(("limit", "grade"), [("FREE_WARN_BYTES", WARN), ("FREE_MIN_BYTES", FAIL)])
def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, grade: str) -> None:
    monkeypatch.setattr(checks, limit, 1 << 62)
    finding = only(checks.state_directory(tmp_path))
    assert (finding.grade, "make room" in finding.text) == (grade, True)


# ---- who answers -----------------------------------------------------------------------------------------


def test_a_running_root_answers_and_its_ports_are_reached(socket_dir: Path) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND), listening(2) as ports, closed(2) as others:
        settings = root_settings(socket_dir, *ports)
        finding = only(checks.answers(settings, Path("root.toml")))
        assert (finding.grade, "root demo/root answers" in finding.text) == (OK, True)
        assert graded(checks.own_ports(settings)) == [OK, OK]
        assert graded(checks.own_ports(root_settings(socket_dir, *others))) == [FAIL, FAIL]


def test_a_root_that_does_not_run_fails_with_the_command_that_starts_it(socket_dir: Path) -> None:
    with closed(2) as ports:
        settings = root_settings(socket_dir, *ports)
        finding = only(checks.answers(settings, Path("etc/root.toml")))
        assert finding.grade == FAIL
        assert finding.text.endswith("there is no such socket: start it with hbagent root --config etc/root.toml")
        assert graded(checks.own_ports(settings)) == [OK, OK]


def test_a_port_that_somebody_else_has_taken_fails_before_the_start(socket_dir: Path) -> None:
    with listening(1) as taken, closed(1) as free:
        findings = list(checks.own_ports(root_settings(socket_dir, *taken, *free)))
    assert graded(findings) == [FAIL, OK]
    assert "another process listens there" in findings[0].text


def test_another_daemon_on_the_socket_fails(socket_dir: Path) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND):
        finding = only(checks.answers(root_settings(socket_dir), Path("root.toml")))
    assert (finding.grade, f"'{LEADER1}' answers there, not demo/root" in finding.text) == (FAIL, True)


def test_a_daemon_that_is_stuck_is_not_to_be_started_again(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CONNECT_S", 0.1)
    stuck = socket.socket(socket.AF_UNIX)
    stuck.bind(str(socket_dir / "q.sock"))
    stuck.listen()
    with stuck:
        finding = only(checks.answers(root_settings(socket_dir), Path("root.toml")))
    assert finding.grade == FAIL
    assert finding.text.endswith("nobody answers within 100ms: it is stuck or starved; its log may say why")


def test_whom_a_leader_calls_is_tried(socket_dir: Path) -> None:
    with listening(1) as here, closed(1) as nobody:
        findings = list(checks.peers(leader_settings(socket_dir, (*here, *nobody))))
    assert graded(findings) == [OK, FAIL]
    assert "connection refused: is hbagent root running there" in findings[1].text


def test_another_leader_that_cannot_be_reached_is_a_warning(socket_dir: Path) -> None:
    with listening(3) as ports, closed(1) as nobody:
        settings = leader_settings(socket_dir, ports[:2])
        there = Endpoint(name="demo/rack1-leader2", control=f"tcp://127.0.0.1:{ports[2]}", public_key="")
        gone = Endpoint(name="demo/rack1-leader3", control=f"tcp://127.0.0.1:{nobody[0]}", public_key="")
        findings = list(checks.peers(msgspec.structs.replace(settings, peers=(there, gone))))
    assert graded(findings) == [OK, OK, OK, WARN]
    assert "demo/rack1-leader3" in findings[-1].text
    assert "is hbagent leader running there" in findings[-1].text


def test_the_echo_port_of_an_agent_is_tried(tmp_path: Path) -> None:
    text = """
[agent]
node = "demo/rack1/node1"
SECURITY
[echo]
bind = "127.0.0.1"
port = PORT
[[leader]]
name = "demo/rack1-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""
    with held(1) as (port,):
        settings = config(tmp_path, text.replace("PORT", str(port_of(port))))
        assert isinstance(settings, AgentSettings)
        refused = only(checks.echo(settings))
        assert (refused.grade, "connection refused" in refused.text) == (WARN, True)
        port.listen()
        assert only(checks.echo(settings)).grade == OK
    off = only(checks.echo(msgspec.structs.replace(settings, echo_bind="", echo_port=0)))
    assert (off.grade, off.text.startswith("off")) == (OK, True)


def test_what_a_prober_needs_is_looked_at(tmp_path: Path, socket_dir: Path) -> None:
    notify = socket_dir / "n"
    text = f"""
[agent]
node = "demo/rack1/node1"
SECURITY
[prober]
notify = "{notify}"
state_dir = "state"
[[probe]]
name = "good"
kind = "exec"
command = ["/bin/true"]
[[probe]]
name = "bad"
kind = "exec"
command = ["/nowhere/check_x"]
[[leader]]
name = "demo/rack1-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""
    settings = config(tmp_path, text)
    assert isinstance(settings, AgentSettings)
    found = [(finding.grade, finding.what) for finding in checks.prober(settings)]
    assert found == [(WARN, "notify"), (OK, "state"), (OK, "probe"), (FAIL, "probe")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(notify))
        for mode, grade in ((0o700, WARN), (0o755, OK)):
            socket_dir.chmod(mode)
            assert next(checks.prober(settings)).grade == grade
    off = msgspec.structs.replace(settings, core=msgspec.structs.replace(settings.core, prober=False))
    assert only(checks.prober(off)).text.startswith("switched off")


def test_names_and_unix_sockets_are_tried_too(socket_dir: Path) -> None:
    assert checks.unreachable("tcp://no-such-host.invalid:5701")
    assert checks.unreachable(f"ipc://{socket_dir}/none.sock") == "no such file or directory"
    with listening(1) as ports:
        assert checks.unreachable(f"tcp://*:{ports[0]}") == ""


# ---- diagnosis -------------------------------------------------------------------------------------------


def test_without_a_helper_it_is_told_what_cannot_be_seen(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "none")):
        findings = list(checks.diagnosis(path))
        assert {finding.what for finding in findings} == {"diagnosis"}
        (warning,) = [finding for finding in findings if "no helper" in finding.text]
        assert (warning.grade, "enable --now hbagent-diagnose.socket" in warning.text) == (WARN, True)
        assert [finding for finding in findings if "deadlock" in finding.text and finding.grade == OK]
        assert [finding.text.partition(":")[0] for finding in findings[-2:]] == ["py-spy", "jcmd"]


@pytest.mark.parametrize(
    ("scope", "helped", "grade", "text"),
    [
        ("0", True, None, ""),
        ("1", False, WARN, "may look into no process"),
        ("2", True, OK, "the helper may"),
        ("3", True, WARN, "nobody may look into any process"),
    ],
)
def test_what_yama_forbids_is_told(
    monkeypatch: pytest.MonkeyPatch, scope: str, helped: bool, grade: str | None, text: str
) -> None:
    told = checks.kernel_setting
    monkeypatch.setattr(checks, "kernel_setting", lambda path: scope if "yama" in path else told(path))
    findings = [finding for finding in checks._rights(helped) if "ptrace_scope" in finding.text]
    assert graded(findings) == ([grade] if grade else [])
    assert all(text in finding.text for finding in findings)


def test_hidden_processes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw,relatime 0 0\nproc /proc proc rw,hidepid=invisible,gid=5 0 0\n")
    assert checks.hidepid(str(mounts)) == "invisible"
    mounts.write_text("proc /proc proc rw,relatime 0 0\ntmp /tmp tmpfs rw,hidepid=2 0 0\n")
    assert checks.hidepid(str(mounts)) == checks.hidepid(str(tmp_path / "none")) == ""
    monkeypatch.setattr(checks, "hidepid", lambda: "invisible")
    assert any("hidepid=invisible" in finding.text and finding.grade == WARN for finding in checks._rights(False))


def test_a_helper_is_asked(socket_dir: Path) -> None:
    path = socket_dir / "s"
    document = {"pid": 7, "verdict": "RUNNING", "text": "it runs", "details": [], "pause_ns": 0, "left_out": []}
    for reply, grade, text in (
        (helper.Reply(document=document), OK, "answers"),
        (helper.Reply(error="user 7 may not ask"), WARN, "user 7 may not ask"),
    ):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            answer = threading.Thread(target=_answer, args=(listener, msgspec.json.encode(reply)))
            answer.start()
            (finding,) = checks._helper(str(path))
            answer.join()
        path.unlink()
        assert (finding.grade, text in finding.text) == (grade, True)


def _answer(listener: socket.socket, data: bytes) -> None:
    link, _ = listener.accept()
    with link:
        link.recv(4096)
        link.sendall(data)
