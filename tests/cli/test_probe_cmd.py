"""`hbagent probe`: runs one probe as the prober would, leaves nothing behind, and lists what there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.probes import defaults
from hbagent.probes.host import MEASURES

CONFIG = """\
[agent]
node = "dc1/rack1/node1"
[security]
plain = true
[[leader]]
name = "dc1/rack1-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""
PROBE = """\
[[probe]]
name = "{name}"
kind = "exec"
command = ["/bin/sh", "-c", {script}]
timeout = "{timeout}"
app = "web"
"""
#: No other process has these words.
HANGS_S = 4715_4715
SCRIPTS = {
    "ok": "echo \"fine | 'b c'=4.5ms;5;6\"",
    "warning": "echo so; exit 1",
    "critical": "echo bad; exit 2",
    "unknown": "echo odd; exit 42",
    "hangs": f"setsid sleep {HANGS_S} & sleep {HANGS_S}",
    "escapes": "printf 'a\\033[2Jb'",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An agent's file with a probe of each kind of outcome."""
    file = tmp_path / "agent.toml"
    probes = [
        # What ends by itself may take longer on a busy machine.
        PROBE.format(name=name, script=json.dumps(script), timeout="500ms" if name == "hangs" else "9s")
        for name, script in SCRIPTS.items()
    ]
    file.write_text(CONFIG + "".join(probes))
    return file


def probe(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """It ends all children of its process, so it runs in one of its own."""
    command = [sys.executable, "-m", "hbagent", "probe", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("ok", 0, "OK  ok (exec): fine"),
        ("warning", 1, "WARNING  warning (exec): so"),
        ("critical", 2, "CRITICAL  critical (exec): bad"),
        ("unknown", 3, "UNKNOWN  unknown (exec): "),
    ],
)
def test_a_run_says_what_it_found_and_ends_as_a_plugin_would(config: Path, name: str, code: int, line: str) -> None:
    ran = probe(config, "run", name)
    assert ran.returncode == code
    assert ran.stdout.startswith(line)
    assert "  took " in ran.stdout


def test_measures_are_shown_and_are_there_for_programs(config: Path) -> None:
    lines = [line.split() for line in probe(config, "run", "ok").stdout.splitlines()]
    assert ["b", "c", "4.5", "ms", "5", "6"] in lines
    found = json.loads(probe(config, "run", "ok", "-o", "json").stdout)["probe"]
    assert (found["name"], found["kind"], found["health"], found["app"]) == ("ok", "exec", "OK", "web")
    assert found["measures"] == [
        {"label": "b c", "value": 4.5, "unit": "ms", "warning": "5", "critical": "6", "least": None, "most": None}
    ]
    assert 0 < found["duration_s"] < 30


def test_what_hangs_ends_in_time_and_nothing_of_it_stays(config: Path) -> None:
    ran = probe(config, "run", "hangs")
    assert ran.returncode == 2
    assert ran.stdout.count("within") == ran.stdout.count("no answer within 500ms") == 1
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            assert b"%d" % HANGS_S not in Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue


def test_nothing_that_a_probe_prints_moves_a_cursor(config: Path) -> None:
    assert "\x1b" not in probe(config, "run", "escapes").stdout


def test_a_probe_that_is_not_there_is_a_mistake_of_the_call(config: Path) -> None:
    ran = probe(config, "run", "critcal")
    assert (ran.returncode, ran.stdout) == (64, "")
    assert 'did you mean "critical"?' in ran.stderr


def test_the_list_has_the_default_probes_and_those_of_the_file(config: Path) -> None:
    lines = probe(config, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["PROBE", *defaults.NAMES, *SCRIPTS]
    assert lines[-2].split() == ["hangs", "exec", "10.0s", "500ms", "web", "/bin/sh", "-c", *SCRIPTS["hangs"].split()]
    found = json.loads(probe(config, "list", "-o", "json").stdout)["probes"]
    assert [one["name"] for one in found if one["default"]] == list(MEASURES)
    assert found[-1]["check"]["argv"] == ["/bin/sh", "-c", SCRIPTS["escapes"]]


def test_a_bad_file_is_told_as_everywhere(config: Path) -> None:
    config.write_text(config.read_text() + "[prober]\nconcurency = 3\n")
    ran = probe(config, "list")
    assert ran.returncode == 64
    assert 'did you mean "concurrency"?' in ran.stderr
