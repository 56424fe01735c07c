"""`hbagent doctor`: what it looks at, how it says it, and its exit code."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from hbagent.cli import doctor_cmd, main
from hbagent.cli.checks import FAIL, OK, WARN, Finding
from hbagent.cli.doctor_cmd import configs, finding_lines
from hbagent.cli.grid import Screen
from hbagent.core.units import SECOND
from tests.cli.answering import Daemon, calm_root, without_rights
from tests.cli.test_checks import closed, listening, root_settings


def test_a_running_root_is_well(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND), listening(2) as ports:
        root_settings(socket_dir, *ports)
        code = main(["doctor", "--config", str(socket_dir / "daemon.toml"), "-o", "json"])
    document = json.loads(capsys.readouterr().out)
    grades = {finding["what"]: finding["grade"] for finding in document["findings"]}
    # Whether this host's clock is kept in step is not the test's affair.
    clock = grades.pop("clock")
    assert grades == dict.fromkeys(
        ("libzmq", "config", "key", "open files", "state", "query", "publish", "control", "operators"), OK
    )
    assert (document["schema"], code) == (1, 0 if clock == OK else 1)


def test_what_fails_makes_2_and_each_line_says_what_to_do(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closed(2) as ports:
        root_settings(socket_dir, *ports)
        assert main(["doctor", "--config", str(socket_dir / "daemon.toml")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} <= {OK, WARN, FAIL}
    (failed,) = [line for line in lines if line.startswith(FAIL)]
    assert f"start it with hbagent root --config {socket_dir}/daemon.toml" in failed


def test_every_problem_of_a_config_file_is_a_line_and_the_rest_is_still_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[root]\nname = "x"\nnome = 3\n')
    assert main(["doctor", "--config", str(bad), "--config", str(tmp_path / "none.toml")]) == 2
    out = capsys.readouterr().out
    assert f"fail  config      {bad}:2:" in out
    assert f"fail  config      {bad}:3:" in out
    assert f"fail  config      {tmp_path}/none.toml: cannot be read" in out
    assert out.startswith("ok    libzmq")


def test_without_any_config_the_host_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HBAGENT_CONFIG", raising=False)
    monkeypatch.setattr(doctor_cmd, "DEFAULT_CONFIGS", (tmp_path / "root.toml",))
    assert main(["doctor"]) == 1
    assert "name one with --config FILE" in capsys.readouterr().out


def test_all_daemons_of_a_host_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{role}.toml" for role in ("root", "leader", "agent")]
    monkeypatch.setattr(doctor_cmd, "DEFAULT_CONFIGS", tuple(files))
    files[0].touch()
    files[2].touch()
    assert configs(None, {}) == [files[0], files[2]]
    assert configs(None, {"HBAGENT_CONFIG": "x.toml"}) == [Path("x.toml")]
    assert configs([files[1]], {"HBAGENT_CONFIG": "x.toml"}) == [files[1]]


def test_a_finding_is_wrapped_to_its_screen_and_cleaned() -> None:
    finding = Finding(FAIL, "key", "a reason of some length \x1b[2J that says what to do")
    assert finding_lines(finding, Screen(width=44)) == [
        "fail  key         a reason of some length",
        "                  \\x1b[2J that says what to",
        "                  do",
    ]
    assert finding_lines(Finding(OK, "key", "fine"), Screen(colour=True)) == ["\x1b[32mok  \x1b[0m  key         fine"]


@pytest.mark.root
def test_a_file_that_is_for_others_is_no_fault() -> None:
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as name:
        os.chmod(name, 0o751)
        file = Path(name, "agent.toml")
        file.write_text("")
        file.chmod(0o640)
        os.chown(file, 0, 7)
        with without_rights():
            found = [finding for finding in doctor_cmd.examine([file]) if finding.what == "config"]
    assert [finding.grade for finding in found] == [WARN]
    assert f"{file}: not readable by this user" in found[0].text
