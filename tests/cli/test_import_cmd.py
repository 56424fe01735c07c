"""An NRPE config becomes probes that an agent takes, and what cannot is told with its file and line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from hbagent.cli import main
from hbagent.cli.nrpe import Unfit, words_of
from hbagent.core.checks import ExecCheck
from hbagent.core.units import SECOND
from hbagent.role.settings.load import read_agent

AGENT = """
[agent]
node = "dc1/rack1/host1"
[security]
plain = true
[prober]
defaults = false
[[leader]]
name = "dc1/rack1-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""
#: As a distribution ships it, with what a site adds.
NRPE = r"""
#############################################################################
# Sample NRPE Config File
#############################################################################
log_facility=daemon
pid_file=/run/nagios/nrpe.pid
server_port=5666
nrpe_user=nagios
allowed_hosts=127.0.0.1,::1,10.0.0.0/8
dont_blame_nrpe=0
allow_bash_command_substitution=0
# command_prefix=/usr/bin/sudo
debug=0
connection_timeout=300

# The following examples use hardcoded command arguments...
command[check_users]=/usr/lib/nagios/plugins/check_users -w 5 -c 10
command[check_load]=/usr/lib/nagios/plugins/check_load -r -w .15,.10,.05 -c .30,.25,.20
  command[check_hda1] = /usr/lib/nagios/plugins/check_disk -w 20% -c 10% -p /dev/hda1
command[check_zombie_procs]=/usr/lib/nagios/plugins/check_procs -w 5 -c 10 -s Z
command[check_log]=/usr/lib/nagios/plugins/check_log -F '/var/log/my app.log' -q "it said \"no\"" -e a\ b
command[check_lang]=LC_ALL=de_DE.UTF-8 TZ='Europe/Berlin' /opt/checks/zeit --größe
""".replace("/dev/hda1\n", "/dev/hda1 \t \n")


def imported(
    directory: Path, capsys: pytest.CaptureFixture[str], text: str, **more: str
) -> tuple[int, dict[str, ExecCheck], str]:
    """Exit code, the checks by name as an agent takes them, and what was said."""
    (directory / "nrpe.cfg").write_text(text)
    for name, content in more.items():
        (directory / f"{name}.cfg").write_text(content)
    code = main(["import", "nrpe", str(directory / "nrpe.cfg")])
    shown = capsys.readouterr()
    settings = read_agent(directory / "agent.toml", AGENT + shown.out)
    checks = {}
    for probe in settings.prober.probes:
        assert isinstance(probe.check, ExecCheck)
        checks[probe.name] = probe.check
    return code, checks, shown.err


def test_a_shipped_config_becomes_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, checks, said = imported(tmp_path, capsys, NRPE)
    assert (code, said) == (0, "")
    plugins = "/usr/lib/nagios/plugins"
    assert checks == {
        "check_users": ExecCheck(argv=(f"{plugins}/check_users", "-w", "5", "-c", "10")),
        "check_load": ExecCheck(argv=(f"{plugins}/check_load", "-r", "-w", ".15,.10,.05", "-c", ".30,.25,.20")),
        "check_hda1": ExecCheck(argv=(f"{plugins}/check_disk", "-w", "20%", "-c", "10%", "-p", "/dev/hda1")),
        "check_zombie_procs": ExecCheck(argv=(f"{plugins}/check_procs", "-w", "5", "-c", "10", "-s", "Z")),
        "check_log": ExecCheck(
            argv=(f"{plugins}/check_log", "-F", "/var/log/my app.log", "-q", 'it said "no"', "-e", "a b")
        ),
        "check_lang": ExecCheck(
            argv=("/opt/checks/zeit", "--größe"), env={"LC_ALL": "de_DE.UTF-8", "TZ": "Europe/Berlin"}
        ),
    }


def test_what_is_printed_may_be_appended_and_is_then_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nrpe.cfg").write_text(NRPE)
    assert main(["import", "nrpe", str(tmp_path / "nrpe.cfg")]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "agent.toml").write_text(AGENT + printed)
    assert main(["check-config", str(tmp_path / "agent.toml")]) == 0
    lines = printed.splitlines()
    at = lines.index('name = "check_users"')
    assert lines[at - 2 : at] == [f"# {tmp_path}/nrpe.cfg:17", "[[probe]]"]


def test_files_and_directories_that_are_included_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    below = tmp_path / "nrpe.d" / "site"
    below.mkdir(parents=True)
    (tmp_path / "nrpe.d" / "b.cfg").write_text("command[b]=/bin/b\n")
    (tmp_path / "nrpe.d" / "README").write_text("command[no]=/bin/no\n")
    (below / "c.cfg").write_text("command[c]=/bin/c\nbroken\n")
    text = f"include={tmp_path}/one.cfg\ninclude_dir={tmp_path}/nrpe.d\ninclude_file={tmp_path}/none.cfg\n"
    code, checks, said = imported(tmp_path, capsys, text, one=f"command[a]=/bin/a\ninclude={tmp_path}/nrpe.cfg\n")
    assert [*checks] == ["a", "b", "c"]
    assert code == 1
    assert said.splitlines() == [
        f"hbagent: {tmp_path}/one.cfg:2: {tmp_path}/nrpe.cfg is included by itself",
        f"hbagent: {below}/c.cfg:2: no name=value",
        f"hbagent: {tmp_path}/nrpe.cfg:3: {tmp_path}/none.cfg cannot be read: No such file or directory",
        "hbagent: 3 could not be turned, 3 could",
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/bin/check_disk -w $ARG1$ -c $ARG2$", "$ARG1$ is filled in by whoever calls (dont_blame_nrpe)"),
        ("/bin/check_disk -w '$ARG1$'", "$ARG1$ is filled in by whoever calls"),
        ("/bin/a | /bin/b", "| needs a shell"),
        ("/bin/a && /bin/b", "& needs a shell"),
        ("/bin/a; /bin/b", "; needs a shell"),
        ("/bin/a 2>/dev/null", "> needs a shell"),
        ("/bin/a `hostname`", "` needs a shell"),
        ("/bin/a $(hostname)", "$ needs a shell"),
        ('/bin/a "$HOME"', "$ needs a shell"),
        ("/bin/a /tmp/*.log", "* needs a shell"),
        ("/bin/a ~/x", "~ at the start of a word needs a shell"),
        ("/bin/a # every hour", "# at the start of a word needs a shell"),
        ("/bin/a 'unclosed", "a ' is not closed"),
        ('/bin/a "unclosed', 'a " is not closed'),
        ("/bin/a \\", "a backslash at the end quotes nothing"),
        ("LANG=C", "runs no program"),
        ("plugins/check_x", "'plugins/check_x' is no absolute path"),
        ("no-such-program-anywhere -w 1", "no program of that name is on this host"),
        ("/bin/a " + "x " * 100, "must be a list [...] of 1 to 64 items"),
    ],
)
def test_what_no_probe_can_do_is_told_and_the_rest_is_turned(
    line: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, checks, said = imported(tmp_path, capsys, f"\ncommand[bad]={line}\ncommand[good]=/bin/true\n")
    assert code == 1
    assert [*checks] == ["good"]
    first, last = said.splitlines()
    assert first.startswith(f"hbagent: {tmp_path}/nrpe.cfg:2: command[bad]: ")
    assert why in first
    assert last == "hbagent: 1 could not be turned, 1 could"


def test_a_program_without_its_directory_is_found_where_a_shell_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, checks, _ = imported(tmp_path, capsys, "command[x]=sh -c 'exit 0'\n")
    assert code == 0
    assert checks["x"].argv[0].startswith("/")
    assert checks["x"].argv[1:] == ("-c", "exit 0")


def test_sudo_never_asks_for_a_password_and_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "command_prefix=/usr/bin/sudo\ncommand[raid]=/usr/sbin/check_raid\n"
    code, checks, said = imported(tmp_path, capsys, text)
    assert code == 0
    assert checks["raid"].argv == ("/usr/bin/sudo", "-n", "/usr/sbin/check_raid")
    assert said == f"hbagent: {tmp_path}/nrpe.cfg:2: command[raid]: sudo gains nothing in the agent's sandbox\n"
    _, checks, _ = imported(tmp_path, capsys, "command[raid]=/usr/bin/sudo -n -u root /usr/sbin/check_raid\n")
    assert checks["raid"].argv[:4] == ("/usr/bin/sudo", "-n", "-u", "root")


def test_a_time_limit_is_kept_and_the_distance_gives_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setting, timeout, interval in (("", 10, 60), ("command_timeout=30", 30, 60), ("command_timeout=60", 60, 300)):
        (tmp_path / "nrpe.cfg").write_text(f"command[x]=/bin/true\n{setting}\n")
        assert main(["import", "nrpe", str(tmp_path / "nrpe.cfg")]) == 0
        (probe,) = read_agent(tmp_path / "agent.toml", AGENT + capsys.readouterr().out).prober.probes
        assert (probe.timeout_ns, probe.interval_ns) == (timeout * SECOND, interval * SECOND)
    code, _, said = imported(tmp_path, capsys, "command_timeout=soon\ncommand[x]=/bin/true\n")
    assert (code, "'soon' is no number of seconds" in said) == (1, True)


def test_names_are_made_to_fit_and_none_is_given_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "command[check disk /]=/bin/a\ncommand[check-disk]=/bin/b\ncommand[load]=/bin/c\ncommand[///]=/bin/d\n"
    code, checks, said = imported(tmp_path, capsys, text)
    assert [*checks] == ["check-disk", "load"]
    assert code == 1
    assert "command[check disk /] is now called check-disk" in said
    assert "would have the name 'check-disk', like command[check disk /]" in said
    assert "command[load] takes the place of hbagent's own probe load" in said
    assert "command[///]: no name for a probe can be made of this one" in said
    code, checks, said = imported(tmp_path, capsys, "command[x]=/bin/old\ncommand[x]=/bin/new\n")
    assert (code, checks["x"].argv) == (1, ("/bin/new",))
    assert f"nrpe.cfg:1: command[x] is defined again at {tmp_path}/nrpe.cfg:2, and that one counts" in said


def test_what_is_no_config_is_a_wrong_call_or_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "nrpe", str(tmp_path / "none.cfg")]) == 64
    assert "No such file" in capsys.readouterr().err
    code, _, said = imported(tmp_path, capsys, "server_port=5666\n")
    assert (code, "has no command[...]" in said) == (1, True)
    assert main(["import"]) == 64


def test_hostile_names_and_words_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nrpe.cfg").write_bytes(
        b"command[x]=/bin/true '\x1b[31m' \"a'b\" '\"]\\nname = 1' \x7f\n"
        b"command[\x1b[2J]=/bin/a\ncommand[y]=/bin/\xff\n"
    )
    assert main(["import", "nrpe", str(tmp_path / "nrpe.cfg")]) == 1
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    (probe,) = [one for one in tomli.loads(shown.out)["probe"] if one["name"] == "x"]
    assert probe["command"] == ["/bin/true", "\x1b[31m", "a'b", '"]\\nname = 1', "\x7f"]
    assert "command[y]: is not UTF-8 text" in shown.err


_PIECES = st.one_of(
    st.text("ab=%,.-:{}^!é", min_size=1),
    st.text('ab $|;*~#"\\`&<>()[]?\t', max_size=6).map(lambda text: f"'{text}'"),
    st.text("ab |;*~#'&<>()[]?\t", max_size=6).map(lambda text: f'"{text}"'),
    st.sampled_from(["\\ ", "\\$", '"\\$x"', '"\\a"', "\\'", '\\"', "\\\\"]),
)


@given(st.lists(st.lists(_PIECES, min_size=1, max_size=3).map("".join), max_size=4))
def test_words_are_those_of_a_real_shell(words: list[str]) -> None:
    line = " ".join(["/usr/bin/printf", "'%s\\0'", "x", *words])
    _, argv = words_of(line)
    assert argv[:3] == ["/usr/bin/printf", "%s\\0", "x"]
    shell = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, timeout=30)
    assert shell.stdout.decode().split("\0")[:-1] == argv[2:]


def test_no_line_at_all_breaks_it() -> None:
    for line in ("", " ", "'", "\\", "=", "=x", "A=", "''"):
        try:
            words_of(line)
        except Unfit as reason:
            assert str(reason)
