"""Key files on a real disk: made once, durable, private, and refused when they are not."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from hbagent.transport.keys import (
    KeyFileError,
    KeyPair,
    PublicKey,
    fingerprint,
    generate,
    is_key,
    key_text,
    load_public,
    load_secret,
    public_path,
    raw_key,
    secret_path,
)

NODE = "dc1/rack07/host12"


def test_a_new_pair_is_private_and_can_be_loaded(tmp_path: Path) -> None:
    made = generate(NODE, tmp_path / "keys")
    path = secret_path(NODE, tmp_path / "keys")
    assert path.name == "dc1.rack07.host12.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert load_secret(path) == made
    assert load_public(public_path(NODE, tmp_path / "keys")) == PublicKey(NODE, made.public)
    assert zmq.curve_public(made.secret.encode()).decode() == made.public
    assert sorted(os.listdir(tmp_path / "keys")) == ["dc1.rack07.host12.key", "dc1.rack07.host12.pub"]


def test_the_umask_does_not_open_a_secret(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generate(NODE, tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret_path(NODE, tmp_path).stat().st_mode) == 0o600


def test_the_umask_does_not_hide_a_public_key(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        generate(NODE, tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(public_path(NODE, tmp_path).stat().st_mode) == 0o644


def test_an_existing_pair_is_kept(tmp_path: Path) -> None:
    assert generate(NODE, tmp_path) == generate(NODE, tmp_path)


def test_a_missing_public_file_is_made_again(tmp_path: Path) -> None:
    made = generate(NODE, tmp_path)
    public_path(NODE, tmp_path).unlink()
    assert generate(NODE, tmp_path) == made
    assert load_public(public_path(NODE, tmp_path)).key == made.public


def test_two_names_with_the_same_file_name_do_not_share_a_key(tmp_path: Path) -> None:
    generate("a.b/c", tmp_path)
    with pytest.raises(KeyFileError, match=r"holds the key of a\.b/c"):
        generate("a/b.c", tmp_path)


def test_a_public_file_of_another_key_is_noticed(tmp_path: Path) -> None:
    generate(NODE, tmp_path)
    generate(NODE, tmp_path / "other")
    public_path(NODE, tmp_path / "other").rename(public_path(NODE, tmp_path))
    with pytest.raises(KeyFileError, match="does not belong to"):
        generate(NODE, tmp_path)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a//b", "a/b/c/d", "a b", "-x", "a\n/b"])
def test_only_names_become_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="not a name"):
        generate(name, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_secret_that_others_can_touch_is_refused(mode: int, tmp_path: Path) -> None:
    generate(NODE, tmp_path)
    path = secret_path(NODE, tmp_path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o} lets others read or change the secret; chmod 600"):
        load_secret(path)


def test_a_secret_that_may_only_be_read_is_fine(tmp_path: Path) -> None:
    made = generate(NODE, tmp_path)
    secret_path(NODE, tmp_path).chmod(0o400)
    assert load_secret(secret_path(NODE, tmp_path)) == made


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A list of who may do what, as the kernel keeps it: tag, rights, whose."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


OWNER, USER, ITS_GROUP, GROUP, MASK, OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF


@pytest.mark.root
@pytest.mark.parametrize(
    ("entries", "fine"),
    [
        ([(USER, 4, 0), (ITS_GROUP, 0, NOBODY)], True),
        ([(USER, 4, 65534), (ITS_GROUP, 0, NOBODY)], False),
        ([(USER, 4, 0), (USER, 4, 65534), (ITS_GROUP, 0, NOBODY)], False),
        ([(USER, 4, 0), (ITS_GROUP, 4, NOBODY)], False),
        ([(USER, 4, 0), (ITS_GROUP, 0, NOBODY), (GROUP, 4, 7)], False),
    ],
    ids=["to this user", "to another", "to this user and another", "to its group", "to another group"],
)
def test_a_secret_of_root_may_be_lent_to_this_user_and_to_nobody_else(
    entries: list[tuple[int, int, int]], fine: bool, tmp_path: Path
) -> None:
    made = generate(NODE, tmp_path)
    path = secret_path(NODE, tmp_path)
    path.chmod(0o400)
    rest = [(MASK, 4, NOBODY), (OTHERS, 0, NOBODY)]
    os.setxattr(path, "system.posix_acl_access", acl((OWNER, 4, NOBODY), *entries, *rest))
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    if fine:
        assert load_secret(path) == made
    else:
        with pytest.raises(KeyFileError, match="mode 0440 lets others read"):
            load_secret(path)


def test_a_credential_is_looked_for_where_systemd_has_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generate(NODE, tmp_path)
    secret_path(NODE, tmp_path).rename(tmp_path / "agent.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_secret(Path("credential:agent.key")) == made
    with pytest.raises(KeyFileError, match=f"{tmp_path}/leader.key: No such file"):
        load_secret(Path("credential:leader.key"))


def test_without_systemd_a_credential_says_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(KeyFileError, match=r"\$CREDENTIALS_DIRECTORY is not set; .* LoadCredential=agent.key:FILE"):
        load_secret(Path("credential:agent.key"))


@pytest.mark.root
def test_a_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    generate(NODE, tmp_path)
    os.chown(secret_path(NODE, tmp_path), 12345, -1)
    with pytest.raises(KeyFileError, match="owned by uid 12345; chown it"):
        load_secret(secret_path(NODE, tmp_path))


def test_a_link_to_a_secret_is_refused(tmp_path: Path) -> None:
    generate(NODE, tmp_path)
    link = tmp_path / "link.key"
    link.symlink_to(secret_path(NODE, tmp_path))
    with pytest.raises(KeyFileError, match="is a symbolic link"):
        load_secret(link)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "curve-secret dc1/r/h\n",
        "curve-secret dc1/r/h tooshort\n",
        "curve-secret ../x " + "0" * 40 + "\n",
        "curve-secret dc1/r/h " + "#" * 40 + "\n",
        "curve-public dc1/r/h " + "0" * 40 + "\n",
        "curve-secret dc1/r/h " + "0" * 40 + "\ncurve-secret dc1/r/h " + "1" * 40 + "\n",
        "\x00" * 100,
        "x" * 10_000,
        "curve-secret dc1/r/h \u20ac\n",
        "curve-secret dc1/r/h " + "0" * 40 + "\n" + "# more than a key file has\n" * 200,
    ],
)
def test_a_malformed_key_file_is_refused_without_showing_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"bad\.key: ") as caught:
        load_secret(path)
    assert "0" * 40 not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        load_secret(tmp_path / "missing.key")
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_secret(tmp_path)
    os.mkfifo(tmp_path / "pipe.key", 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_secret(tmp_path / "pipe.key")


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match=r"file.*"):
        generate(NODE, tmp_path / "file" / "keys")


def test_a_pair_never_shows_its_secret() -> None:
    public, secret = zmq.curve_keypair()
    pair = KeyPair(name=NODE, public=public.decode(), secret=secret.decode())
    assert secret.decode() not in f"{pair!r} {pair} {pair.__rich_repr__()}"


@given(st.binary(min_size=32, max_size=32))
def test_key_text_and_raw_key_are_inverse(raw: bytes) -> None:
    assert raw_key(key_text(raw)) == raw


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_not_and_nothing_else_happens(text: str) -> None:
    raw = raw_key(text)
    assert raw is None or len(raw) == 32
    assert is_key(text) == (raw is not None)


def test_a_fingerprint_is_short_and_differs() -> None:
    keys = [zmq.curve_keypair()[0].decode() for _ in range(20)]
    assert len({fingerprint(key) for key in keys}) == 20
    assert len(fingerprint(keys[0])) == 16
