"""Probes, applications and the prober in an agent's file: what they become, and what is told of a wrong one."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from hbagent.core import checks
from hbagent.core.config import AppConfig, ProbeConfig, ProberConfig
from hbagent.core.states import Health
from hbagent.core.units import DAY, HOUR, MINUTE, SECOND
from hbagent.probes import defaults
from hbagent.role.settings.load import read_agent
from hbagent.role.settings.probing import APPS_MAX, KINDS, PROBES_MAX
from tests.role.settings.test_load import AGENT, HERE, problems

EXEC = '[[probe]]\nname = "p"\nkind = "exec"\ncommand = ["/bin/true"]\n'
APP = '[[app]]\nname = "a"\n'


def prober_of(text: str) -> ProberConfig:
    return read_agent(HERE, f"{AGENT}[prober]\ndefaults = false\n{text}").prober


def probe_of(text: str) -> ProbeConfig:
    (probe,) = prober_of(f'[[probe]]\nname = "p"\n{text}').probes
    return probe


def told(text: str) -> list[str]:
    """What is wrong with a file that has this after an agent's tables, without the line numbers."""
    return [line.partition(": ")[2] for line in problems(read_agent, AGENT + text)]


# ---- the prober ------------------------------------------------------------------------------------------


def test_every_key_of_the_prober_reaches_its_setting() -> None:
    prober = read_agent(
        HERE,
        f"""{AGENT}
[prober]
defaults = false
notify = "run/n.sock"
state_dir = "state"
helper = ""
concurrency = 3
facts_interval = "30s"
quorum = 0.5
guests_max = 9
restarts_max = 1
restart_window = "1h"
bundles_max = 5
bundles_age = "1d"
""",
    ).prober
    assert prober == ProberConfig(
        notify="/etc/hbagent/run/n.sock",
        state_dir="/etc/hbagent/state",
        concurrency=3,
        facts_interval_ns=30 * SECOND,
        quorum=0.5,
        guests_max=9,
        restarts_max=1,
        restart_window_ns=HOUR,
        bundles_max=5,
        bundles_age_ns=DAY,
    )


def test_a_host_that_is_told_nothing_has_the_default_probes_and_one_of_their_name_takes_the_place_of_one() -> None:
    assert read_agent(HERE, AGENT).prober.probes == defaults.PROBES
    own = '[[probe]]\nname = "disk"\nkind = "host"\nmeasure = "disk"\nwarning = 50\n'
    probes = read_agent(HERE, AGENT + own).prober.probes
    assert len(probes) == len(defaults.PROBES)
    (disk,) = [probe for probe in probes if probe.name == "disk"]
    assert disk.check == checks.HostCheck(what="disk", warning=50)
    assert not disk.default
    assert prober_of("").probes == ()


def test_nowhere_is_an_empty_text_and_an_abstract_socket_is_no_path() -> None:
    prober = read_agent(HERE, AGENT + '[prober]\nnotify = "@app"\nstate_dir = ""\n').prober
    assert (prober.notify, prober.state_dir) == ("@app", "")


def test_a_path_that_no_socket_can_have_is_told() -> None:
    (line,) = told(f'[prober]\nnotify = "/{"x" * 120}"\n')
    assert "must be at most 107 bytes long" in line


def test_a_key_that_has_moved_says_where_it_is_now() -> None:
    (line,) = problems(read_agent, AGENT.replace("[security]", 'facts_interval = "10s"\n[security]', 1))
    assert 'unknown key "facts_interval"; it belongs to [prober]' in line


# ---- probes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "check"),
    [
        (
            'kind = "exec"\ncommand = ["/bin/x", "-w", "5"]\nenv = { A = "b" }',
            checks.ExecCheck(argv=("/bin/x", "-w", "5"), env={"A": "b"}),
        ),
        (
            'kind = "http"\nurl = "https://h:8443/x"\nmethod = "HEAD"\nheaders = { H = "v" }\nstatus = [200, 204]\n'
            'expect = "ok"\nverify = true\nca = "ca.pem"\ncertificate_days = 14',
            checks.HttpCheck(
                url="https://h:8443/x",
                method="HEAD",
                headers={"H": "v"},
                status=(200, 204),
                expect="ok",
                ca="/etc/hbagent/ca.pem",
                certificate_days=14,
            ),
        ),
        (
            'kind = "tcp"\nhost = "::1"\nport = 25\nsend = "QUIT\\r\\n"\nexpect = "220"',
            checks.TcpCheck(host="::1", port=25, send="QUIT\r\n", expect="220"),
        ),
        ('kind = "unix"\npath = "run/x.sock"', checks.UnixCheck(path="/etc/hbagent/run/x.sock")),
        ('kind = "process"\nprocess = "sshd"', checks.ProcessCheck(process="sshd")),
        (
            'kind = "process"\ncmdline = "a.*b"\nleast = 2\nmost = 3',
            checks.ProcessCheck(cmdline="a.*b", least=2, most=3),
        ),
        ('kind = "process"\npidfile = "/run/x.pid"', checks.ProcessCheck(pidfile="/run/x.pid")),
        ('kind = "unit"\nunit = "x.service"', checks.UnitCheck(unit="x.service")),
        (
            'kind = "file"\npath = "/f"\nwarning_age = "1h"\ncritical_age = "2h"\nsize_min = 3',
            checks.FileCheck(path="/f", warning_age_ns=HOUR, critical_age_ns=2 * HOUR, size_min=3),
        ),
        ('kind = "file"\npath = "/f"\nabsent = true', checks.FileCheck(path="/f", absent=True)),
        (
            'kind = "log"\npath = "/l"\nsilence = "10m"\nmatch = "ok"\nwarning = "w+"\ncritical = "c|d"\nhold = "1m"',
            checks.LogCheck(
                path="/l", silence_ns=10 * MINUTE, match="ok", warning="w+", critical="c|d", hold_ns=MINUTE
            ),
        ),
        (
            'kind = "host"\nmeasure = "inodes"\nwarning = 80\ncritical = 90.5\nmounts = ["/var"]',
            checks.HostCheck(what="inodes", warning=80, critical=90.5, mounts=("/var",)),
        ),
        (
            'kind = "neighbours"\nwindow = "20s"\nleast = 2\nonly = ["10.0.0.5:5432"]',
            checks.NeighboursCheck(window_ns=20 * SECOND, least=2, only=("10.0.0.5:5432",)),
        ),
    ],
)
def test_each_kind_reaches_its_check(text: str, check: Any) -> None:
    assert probe_of(text).check == check


def test_every_key_that_all_kinds_have_reaches_its_setting() -> None:
    text = """kind = "unit"
unit = "x.service"
interval = "1m"
timeout = "30s"
retry_interval = "5s"
rise = 1
fall = 4
start_grace = "2m"
on_timeout = "UNKNOWN"
app = "web"
weight = 0
"""
    assert probe_of(text) == ProbeConfig(
        name="p",
        check=checks.UnitCheck(unit="x.service"),
        interval_ns=MINUTE,
        timeout_ns=30 * SECOND,
        retry_interval_ns=5 * SECOND,
        rise=1,
        fall=4,
        start_grace_ns=2 * MINUTE,
        on_timeout=Health.UNKNOWN,
        app="web",
        weight=0,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_looking_that_takes_too_long_is_no_verdict_about_what_is_looked_at(kind: str) -> None:
    least = {
        "exec": 'command = ["/bin/x"]',
        "http": 'url = "http://h/"',
        "tcp": 'host = "h"\nport = 25',
        "unix": 'path = "/s"',
        "process": 'process = "sshd"',
        "unit": 'unit = "x.service"',
        "file": 'path = "/f"',
        "log": 'path = "/l"\ncritical = "(x+x+)+y"',
        "host": 'measure = "disk"',
        "neighbours": "",
    }
    text = f'kind = "{kind}"\n{least[kind]}\n'
    answering = kind in ("exec", "http", "tcp", "unix")
    assert probe_of(text).on_timeout is (Health.CRITICAL if answering else Health.UNKNOWN)
    assert probe_of(text + 'on_timeout = "WARNING"\n').on_timeout is Health.WARNING


def test_times_that_are_not_written_give_way_to_a_short_interval() -> None:
    probe = probe_of('kind = "unit"\nunit = "x.service"\ninterval = "1s"\n')
    assert (probe.timeout_ns, probe.retry_interval_ns) == (SECOND * 4 // 5, SECOND)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'missing key "kind"'),
        ('kind = "exe"\nurl = "x"', 'kind = "exe": must be one of exec, http, '),
        ('kind = "exec"', 'missing key "command"'),
        ('kind = "exec"\ncommand = ["/x"]\nurl = "http://x"', 'unknown key "url"; it belongs to kind http'),
        ('kind = "exec"\ncommand = ["/x"]\npath = "/x"', 'unknown key "path"; it belongs to kind unix or file or log'),
        ('kind = "unit"\nunit = "x"\nintervall = 5', 'unknown key "intervall", did you mean "interval"?'),
        ('kind = "exec"\ncommand = ["check_x"]', 'command[0] = "check_x": must be the absolute path of a program'),
        ('kind = "exec"\ncommand = []', "command = []: must be a list [...] of 1 to 64 items"),
        ('kind = "exec"\ncommand = ["/x"]\nenv = { "A=" = "b" }', "env = {...}: has a name that is empty, too long"),
        (
            'kind = "exec"\ncommand = ["/x"]\ntimeout = "10s"',
            'timeout = "10s": must be shorter than the interval, 10.0s',
        ),
        (
            'kind = "exec"\ncommand = ["/x"]\nretry_interval = "11s"',
            'retry_interval = "11s": must not be longer than the interval, 10.0s',
        ),
        ('kind = "http"\nurl = "ftp://x"', 'url = "ftp://x": must be an address as in'),
        ('kind = "http"\nurl = "http://x:99999/"', 'url = "http://x:99999/": must be an address as in'),
        ('kind = "http"\nurl = "http://x"\nverify = false', "verify = false: http:// has no certificate"),
        ('kind = "tcp"\nhost = "a b"\nport = 25', 'host = "a b": must be a host name'),
        ('kind = "process"\nleast = 1', "processes are found by exactly one of process, pidfile, cmdline, unit"),
        ('kind = "process"\nprocess = "a"\nunit = "b"', "processes are found by exactly one of"),
        ('kind = "process"\ncmdline = "a["', 'cmdline = "a[": is no regular expression: unterminated character set'),
        ('kind = "process"\nprocess = "a"\nleast = 3\nmost = 2', "most = 2: is less than least, 3"),
        ('kind = "process"\nprocess = "a"\nleast = 0', "least = 0: with 0 and no most, nothing is ever wrong"),
        ('kind = "file"\npath = "/f"\nabsent = true\nwarning_age = "1h"', "a file that must be absent has none"),
        ('kind = "file"\npath = "/f"\nwarning_age = "2h"\ncritical_age = "1h"', "is longer than critical_age, 1h00m"),
        ('kind = "log"\npath = "/l"', "a log needs silence, warning or critical"),
        ('kind = "log"\npath = "/l"\nwarning = "x"\nmatch = "y"', "there is no silence"),
        ('kind = "log"\npath = "/l"\nwarning = 5', "warning = 5: must be a regular expression"),
        ('kind = "host"\nmeasure = "dsk"', "must be one of disk, inodes, "),
        ('kind = "host"\nmeasure = "load"\nwarning = 9\ncritical = 3', "warning = 9: is more than critical, 3"),
        ('kind = "host"\nmeasure = "load"\nmounts = ["/"]', "load is not measured by mount"),
    ],
)
def test_what_is_wrong_with_a_probe_is_told_once_and_with_its_place(text: str, problem: str) -> None:
    (line,) = told(f'[[probe]]\nname = "p"\n{text}\n')
    assert line.startswith('probe "p": ')
    assert problem in line


def test_all_mistakes_of_all_probes_come_at_once() -> None:
    wrong = '[[probe]]\nname = "p"\nkind = "tcp"\nhost = "h"\n[[probe]]\nname = "p"\nkind = "log"\npath = "/l"\n'
    assert told(wrong) == [
        'probe "p": missing key "port"',
        'probe "p": a log needs silence, warning or critical: nothing else can be wrong with it',
        'probe "p": name = "p": there is another [[probe]] of this name',
    ]


def test_no_file_makes_more_probes_or_applications_than_a_report_can_tell() -> None:
    many = "".join(EXEC.replace('"p"', f'"p{number}"') for number in range(PROBES_MAX + 1))
    assert told(many) == [f'probe "p{PROBES_MAX}": a host has at most {PROBES_MAX} probes']
    many = "".join(APP.replace('"a"', f'"a{number}"') for number in range(APPS_MAX + 1))
    assert told(many) == [f'app "a{APPS_MAX}": a file names at most {APPS_MAX} applications']


def test_each_kind_of_check_can_be_written() -> None:
    kinds = {make.__struct_config__.tag: kind for kind, (make, _) in KINDS.items()}
    assert kinds == {kind: kind for kind in KINDS}
    assert {make for make, _ in KINDS.values()} == set(checks.Check.__args__)  # type: ignore[attr-defined]


# ---- applications ----------------------------------------------------------------------------------------


def test_every_key_of_an_application_reaches_its_setting() -> None:
    root = pwd.getpwuid(0).pw_name
    text = f"""{APP}unit = "a.service"
pidfile = "a.pid"
users = [33, "{root}"]
watchdog = "10s"
window = "5s"
start_timeout = "1m"
ttl = "1d"
overdue = "WARNING"
restart = true
restart_on = ["DEADLOCKED"]
weight = 2
"""
    assert prober_of(text).apps == (
        AppConfig(
            name="a",
            unit="a.service",
            pidfile="/etc/hbagent/a.pid",
            users=(33, 0),
            watchdog_ns=10 * SECOND,
            window_ns=5 * SECOND,
            start_timeout_ns=MINUTE,
            ttl_ns=DAY,
            overdue=Health.WARNING,
            restart=True,
            restart_on=(Health.DEADLOCKED,),
            weight=2,
        ),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('users = ["no-such-user"]', "no user of this host has this name"),
        ("users = [-1]", "must be the number of a user"),
        ("restart = true", "restart needs a unit: systemd restarts it"),
        ('unit = "a.service"\nrestart_on = ["STALLED"]', "restart_on does nothing without restart = true"),
        ('overdue = "OK"', 'overdue = "OK": must be one of WARNING, CRITICAL, '),
        ("watchdog = 0", "watchdog = 0: must be from 100ms to 1d"),
    ],
)
def test_what_is_wrong_with_an_application_is_told(text: str, problem: str) -> None:
    (line,) = told(f"{APP}{text}\n")
    assert line.startswith('app "a": ')
    assert problem in line


def test_every_word_of_a_path_starts_at_the_files_directory() -> None:
    probe = probe_of('kind = "unix"\npath = "../x"')
    assert isinstance(probe.check, checks.UnixCheck)
    assert os.path.isabs(probe.check.path)
