"""`hbagent keys`, as a user calls it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hbagent.cli import main
from hbagent.role.settings import Operator
from hbagent.role.settings.load import read_root
from hbagent.transport.allow import Role, load
from hbagent.transport.keys import fingerprint, load_public, load_secret, public_path, secret_path

NODE, LEADER = "dc1/r/n1", "dc1/l1"


def test_init_makes_keys_and_enrols_them_by_the_shape_of_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allow = tmp_path / "allow.toml"
    assert main(["keys", "init", NODE, LEADER, "--dir", str(tmp_path / "k"), "--allow", str(allow)]) == 0
    secrets = [load_secret(secret_path(name, tmp_path / "k")) for name in (NODE, LEADER)]
    assert load(allow).senders(Role.AGENT) == {secrets[0].public: NODE}
    assert load(allow).senders(Role.LEADER) == {secrets[1].public: LEADER}
    assert stat.S_IMODE(secret_path(NODE, tmp_path / "k").stat().st_mode) == 0o600
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == [NODE, LEADER]
    assert shown.out.count("(new)") == 2
    for pair in secrets:
        assert pair.public in shown.out
        assert pair.secret not in shown.out + shown.err


def test_init_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allow = tmp_path / "allow.toml"
    words = ["keys", "init", NODE, "--dir", str(tmp_path), "--allow", str(allow)]
    assert main(words) == 0
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    assert main(words) == 0
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    assert "(kept)" in capsys.readouterr().out


def test_show_prints_the_public_part_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "init", NODE, "--dir", str(tmp_path), "--allow", str(tmp_path / "allow.toml")])
    capsys.readouterr()
    secret, public = secret_path(NODE, tmp_path), public_path(NODE, tmp_path)
    assert main(["keys", "show", str(secret), str(public), "--allow", str(tmp_path / "allow.toml")]) == 0
    shown = capsys.readouterr().out
    key = load_public(public).key
    line = f"{NODE}  {key}  {fingerprint(key)}"
    assert shown.splitlines() == [line, line, f"{line}  agents"]
    assert load_secret(secret).secret not in shown


def test_revoke_takes_every_key_of_a_name_or_just_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allow = str(tmp_path / "allow.toml")
    for directory in ("old", "new"):
        assert main(["keys", "init", NODE, "--dir", str(tmp_path / directory), "--allow", allow]) == 0
    old, new = (load_public(public_path(NODE, tmp_path / directory)).key for directory in ("old", "new"))
    assert main(["keys", "revoke", NODE, "--allow", allow, "--key", fingerprint(old)]) == 0
    assert load(Path(allow)).senders(Role.AGENT) == {new: NODE}
    assert main(["keys", "revoke", NODE, "--allow", allow]) == 0
    assert load(Path(allow)).peers == ()
    assert capsys.readouterr().out.count("revoked") == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["init", "../x", "--dir", "{dir}"], "'../x': not a name"),
        (["init", NODE, "--dir", "{dir}", "--role", "agent"], "no --allow FILE to enrol in"),
        (
            ["init", NODE, "--dir", "{dir}", "--allow", "{dir}/new.toml", "--role", "leader"],
            "is not a name for [leaders]",
        ),
        (["show"], "needs a key file"),
        (["show", "{dir}/missing.key"], "missing.key: No such file"),
        (["show", "--allow", "{dir}/broken.toml"], "broken.toml:1: 'agnets' is none of the tables"),
        (["revoke", NODE, "--allow", "{dir}/good.toml"], f"has no key of {NODE}"),
        (["revoke", LEADER, "--allow", "{dir}/good.toml", "--key", "abc"], "has no such fingerprint; it has "),
        (["revoke", LEADER, "--allow", "{dir}/nowhere/allow.toml"], "nowhere: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_on_standard_error_with_64(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.toml").write_text("[agnets]\n")
    main(["keys", "init", LEADER, "--dir", str(tmp_path / "k"), "--allow", str(tmp_path / "good.toml")])
    capsys.readouterr()
    assert main(["keys", *(word.replace("{dir}", str(tmp_path)) for word in words)]) == 64
    shown = capsys.readouterr()
    assert shown.err.startswith("hbagent: ")
    assert reason in shown.err


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "init", NODE, "--dir", str(tmp_path)])
    secret_path(NODE, tmp_path).chmod(0o644)
    assert main(["keys", "show", str(secret_path(NODE, tmp_path))]) == 64
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["keys"], ["keys", "init"], ["keys", "revoke", NODE], ["keys", "burn"]])
def test_a_wrong_call_is_64(words: list[str]) -> None:
    assert main(words) == 64


def test_init_of_one_word_makes_an_operator_and_says_how_to_let_them_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "init", "alice", "--dir", str(tmp_path)]) == 0
    pair = load_secret(tmp_path / "alice.key")
    told = capsys.readouterr().err
    root = 'name = "dc1/root"\n[security]\nkey = "k"\nallow = "a"\n[[rack]]\nname = "dc1/r"\nleaders = ["dc1/l"]\n'
    table = told.partition("\n")[2]
    read = read_root(tmp_path / "root.toml", f'[root]\n{root}[operators]\nlisten = "tcp://*:5713"\n{table}')
    assert read.operators == (Operator(name="alice", public_key=pair.public, right="read"),)
    assert main(["keys", "init", "alice", "--dir", str(tmp_path), "--allow", str(tmp_path / "allow.toml")]) == 0
    assert "public_key" not in capsys.readouterr().err, "the allow-list has it"
    assert load(tmp_path / "allow.toml").senders(Role.OPERATOR) == {pair.public: "alice"}
