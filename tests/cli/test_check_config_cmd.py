"""`hbagent check-config` says everything, and its exit code says whether a daemon would start."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbagent.cli import main
from hbagent.transport import keys

ETC = Path(__file__).parents[2] / "etc"


def test_files_that_can_be_used_are_named_with_their_owners(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(ETC / name) for name in ("agent.toml", "leader.toml", "root.toml")]
    assert main(["check-config", *files]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"{files[0]}: ok (agent dc1/rack07/host12)",
        f"{files[1]}: ok (leader dc1/rack07-leader1)",
        f"{files[2]}: ok (root dc1/root)",
    ]


def test_what_is_seldom_meant_is_a_warning_and_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "root.toml"
    root = (ETC / "root.toml").read_text()
    file.write_text(root.replace('name = "syslog"\n', 'name = "syslog"\non = ["summary"]\n', 1))
    assert main(["check-config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{file}: ok (root dc1/root)\n"
    assert err.startswith(f'{file}: warning: hook "syslog": "summary" alone tells it nothing')


def test_all_problems_of_all_files_come_at_once_and_the_right_ones_are_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    leader = (ETC / "leader.toml").read_text()
    right = leader.splitlines().index("[detector]") + 1
    wrong = leader.replace("[detector]\n", '[detector]\nmargn = "20ms"\nkind = "adaptiv"\n')
    Path("leader.toml").write_text(wrong)
    root = (ETC / "root.toml").read_text()
    Path("root.toml").write_text(root.replace("[[hook]]\n", '[[hook]]\ntiemout = "3s"\n', 1))
    hook = Path("root.toml").read_text().splitlines().index('tiemout = "3s"') + 1
    assert main(["check-config", "leader.toml", str(ETC / "agent.toml"), "root.toml", "none.toml"]) == 64
    out, err = capsys.readouterr()
    assert out == f"{ETC / 'agent.toml'}: ok (agent dc1/rack07/host12)\n"
    assert err.splitlines() == [
        f'leader.toml:{right + 1}: [detector]: unknown key "margn", did you mean "margin"?',
        f'leader.toml:{right + 2}: [detector]: kind = "adaptiv": must be one of adaptive, phi, fixed, '
        'did you mean "adaptive"?',
        f'root.toml:{hook}: hook "syslog": unknown key "tiemout", did you mean "timeout"?',
        "none.toml: cannot be read: No such file or directory",
    ]


def test_keys_that_systemd_hands_over_are_looked_at_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    written = 'key = "keys/dc1.rack07.host12.key"'
    file.write_text((ETC / "agent.toml").read_text().replace(written, 'key = "credential:agent.key"', 1))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert main(["check-config", str(file)]) == 0
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    capsys.readouterr()
    assert main(["check-config", str(file)]) == 64
    assert capsys.readouterr().err == f"{file}: [security]: key: {tmp_path}/agent.key: No such file or directory\n"
    for name, code in (("dc1/rack07/other", 64), ("dc1/rack07/host12", 0)):
        keys.generate(name, tmp_path)
        keys.secret_path(name, tmp_path).replace(tmp_path / "agent.key")
        assert main(["check-config", str(file)]) == code


@pytest.mark.parametrize("written", ["credential:", "credential:..", "credential:a/b"])
def test_a_credential_is_one_name(written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "root.toml"
    file.write_text((ETC / "root.toml").read_text().replace("keys/dc1.root.key", written, 1))
    assert main(["check-config", str(file)]) == 64
    assert "must name a credential of the unit" in capsys.readouterr().err
