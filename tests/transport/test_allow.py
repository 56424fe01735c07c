"""The allow-list as a value and as a file."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.transport.allow import AllowError, AllowList, Peer, Role, editing, load, save, show
from hbagent.transport.keys import raw_key
from tests.transport.doors import enrolled, new_keys

NODE = "dc1/r/n1"
FIRST, SECOND, THIRD, FOURTH = (new_keys(NODE).public for _ in range(4))


def raw(key: str) -> bytes:
    found = raw_key(key)
    assert found is not None
    return found


def test_a_peer_is_found_by_its_key_and_by_its_user_id() -> None:
    allow = AllowList().allow(Role.AGENT, NODE, FIRST)
    peer = Peer(Role.AGENT, NODE, FIRST)
    assert allow.by_key(raw(FIRST)) == allow.by_user_id(FIRST) == peer
    assert allow.by_key(raw(SECOND)) is None
    assert allow.by_user_id(NODE) is None


def test_rotation_has_old_and_new_side_by_side_and_revokes_one() -> None:
    both = AllowList().allow(Role.AGENT, NODE, FIRST).allow(Role.AGENT, NODE, SECOND)
    assert both.senders(Role.AGENT) == {FIRST: NODE, SECOND: NODE}
    assert both.revoke(NODE, FIRST).senders(Role.AGENT) == {SECOND: NODE}
    assert both.revoke(NODE).senders(Role.AGENT) == {}


def test_a_change_makes_a_new_list() -> None:
    before = AllowList().allow(Role.AGENT, NODE, FIRST)
    before.revoke(NODE)
    before.allow(Role.AGENT, NODE, SECOND)
    assert before.senders(Role.AGENT) == {FIRST: NODE}


def test_senders_are_of_one_role() -> None:
    allow = AllowList().allow(Role.AGENT, NODE, FIRST).allow(Role.LEADER, "dc1/l1", SECOND)
    allow = allow.allow(Role.OPERATOR, "alice", THIRD)
    assert allow.senders(Role.LEADER) == {SECOND: "dc1/l1"}
    assert allow.senders(Role.OPERATOR) == {THIRD: "alice"}


def test_leaders_from_elsewhere_are_the_only_ones_and_nobody_else_has_their_keys() -> None:
    file = AllowList().allow(Role.AGENT, NODE, FIRST).allow(Role.AGENT, "dc1/r/n2", SECOND)
    file = file.allow(Role.LEADER, "dc1/l1", THIRD)
    allow = file.with_leaders({"dc1/l2": (SECOND,), "dc1/l3": (FOURTH,)})
    assert allow.senders(Role.LEADER) == {SECOND: "dc1/l2", FOURTH: "dc1/l3"}
    assert allow.senders(Role.AGENT) == {FIRST: NODE}
    assert allow.by_key(raw(SECOND)) == Peer(Role.LEADER, "dc1/l2", SECOND)
    assert allow.by_key(raw(THIRD)) is None
    assert file.with_leaders({}).senders(Role.LEADER) == {}


def test_operators_from_a_config_are_the_only_ones_with_a_key_of_their_own_or_that_of_the_file() -> None:
    file = AllowList().allow(Role.LEADER, "dc1/l1", FIRST)
    file = file.allow(Role.OPERATOR, "alice", SECOND).allow(Role.OPERATOR, "bob", THIRD)
    allow = file.with_operators({"alice": "", "carol": FOURTH, "dora": ""})
    assert allow.senders(Role.OPERATOR) == {SECOND: "alice", FOURTH: "carol"}
    assert allow.senders(Role.LEADER) == {FIRST: "dc1/l1"}
    assert file.with_operators({"bob": FOURTH}).senders(Role.OPERATOR) == {FOURTH: "bob"}, "one key or the other"
    assert file.with_operators({"eve": FIRST}).by_user_id(FIRST) == Peer(Role.LEADER, "dc1/l1", FIRST)
    assert file.with_operators({}).senders(Role.OPERATOR) == {}


def test_revoking_what_is_not_there_is_told() -> None:
    allow = AllowList().allow(Role.AGENT, NODE, FIRST)
    with pytest.raises(KeyError):
        allow.revoke("dc1/r/n2")
    with pytest.raises(KeyError):
        allow.revoke(NODE, SECOND)


@pytest.mark.parametrize(
    ("role", "name", "key", "reason"),
    [
        (Role.AGENT, "dc1/l1", SECOND, "is not a name for"),
        (Role.LEADER, "dc1/r/n1", SECOND, "is not a name for"),
        (Role.OPERATOR, "a b", SECOND, "is not a name for"),
        (Role.AGENT, "dc1/r/n2", "short", "is not a key"),
        (Role.AGENT, "dc1/r/n2", FIRST, "already enrolled as dc1/r/n1"),
        (Role.LEADER, "dc1/l1", FIRST, "already enrolled as dc1/r/n1"),
    ],
    # Not by the keys, which are new in each run.
    ids=("an agent's", "a leader's", "an operator's", "short", "taken by an agent", "taken by a leader"),
)
def test_what_cannot_be_enrolled_is_refused(role: Role, name: str, key: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        AllowList().allow(Role.AGENT, NODE, FIRST).allow(role, name, key)


def test_enrolling_twice_changes_nothing_and_a_fourth_key_is_refused() -> None:
    allow = enrolled()
    for key in (FIRST, SECOND, THIRD, FIRST):
        allow = allow.allow(Role.AGENT, NODE, key)
    assert len(allow.peers) == 3
    with pytest.raises(ValueError, match="has 3 keys already; revoke one first"):
        allow.allow(Role.AGENT, NODE, FOURTH)


def test_plain_mode_goes_by_names() -> None:
    allow = AllowList.named(Role.AGENT, [NODE])
    assert allow.senders(Role.AGENT) == {NODE: NODE}
    assert allow.by_user_id(NODE) == Peer(Role.AGENT, NODE, NODE)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([(Role.AGENT, "d/r/a"), (Role.AGENT, "d/r/b"), (Role.LEADER, "d/l"), (Role.OPERATOR, "o")]),
            st.sampled_from([FIRST, SECOND, THIRD, FOURTH]),
        ),
        unique_by=lambda entry: entry[1],
        max_size=3,
    )
)
def test_what_is_shown_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[tuple[Role, str], str]]
) -> None:
    allow = AllowList()
    for (role, name), key in entries:
        allow = allow.allow(role, name, key)
    path = tmp_path_factory.mktemp("allow") / "allow.toml"
    save(path, allow)
    again = load(path)
    for role in Role:
        assert again.senders(role) == allow.senders(role)
    assert show(again) == show(allow)


def test_every_problem_of_a_file_comes_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    path.write_text(
        f"""\
[agents]
"dc1/r/n1" = ["{FIRST}"]
"dc1/n2" = ["{SECOND}"]
"dc1/r/n3" = "{SECOND}"
"dc1/r/n4" = ["{FIRST}"]
"dc1/r/n5" = ["short", 7]

[leaders]
"dc1/l1" = ["{FIRST}"]

[agnets]
"""
    )
    with pytest.raises(AllowError) as caught:
        load(path)
    found = [problem.removeprefix(f"{path}:") for problem in caught.value.problems]
    assert found == [
        "3: [agents] 'dc1/n2': 'dc1/n2' is not a name for [agents]: write the three parts of a node, dc/rack/host",
        "4: [agents] 'dc1/r/n3': should be a list of keys, as in [\"<40 characters>\"]",
        "5: [agents] 'dc1/r/n4': has the key of dc1/r/n1; every name needs a key of its own",
        "6: [agents] 'dc1/r/n5': key 1 is not a text of 40 Z85 characters",
        "6: [agents] 'dc1/r/n5': key 2 is not a text of 40 Z85 characters",
        "9: [leaders] 'dc1/l1': has the key of dc1/r/n1; every name needs a key of its own",
        "11: 'agnets' is none of the tables [agents], [leaders], [operators]",
    ]
    assert str(caught.value).count("\n") == 6


def test_too_many_keys_of_one_name_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    path.write_text(f'[agents]\n"{NODE}" = ["{FIRST}", "{SECOND}", "{THIRD}", "{FOURTH}"]\n')
    with pytest.raises(AllowError, match="has 4 keys; at most 3"):
        load(path)


@pytest.mark.parametrize("content", [b"[agents", b"\xff\xfe", b"agents = 3", b"[[agents]]\nx = 1"])
def test_a_broken_file_is_one_error_and_never_a_traceback(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    path.write_bytes(content)
    with pytest.raises(AllowError, match=r"allow\.toml"):
        load(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AllowError, match="No such file"):
        load(tmp_path / "allow.toml")
    with pytest.raises(AllowError, match="directory"):
        load(tmp_path)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    save(path, AllowList())
    path.chmod(mode)
    with pytest.raises(AllowError, match="lets others decide who may speak"):
        load(path)


def test_saving_keeps_mode_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    save(path, AllowList())
    path.chmod(0o600)
    save(path, AllowList().allow(Role.AGENT, NODE, FIRST))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["allow.toml"]


@pytest.mark.root
def test_saving_keeps_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    save(path, AllowList())
    os.chown(path, 12345, 12345)
    save(path, AllowList().allow(Role.AGENT, NODE, FIRST))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "allow.toml"
    save(path, AllowList().allow(Role.AGENT, NODE, FIRST))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, AllowList())
    assert load(path).senders(Role.AGENT) == {FIRST: NODE}
    assert os.listdir(tmp_path) == ["allow.toml"]


def test_two_editors_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "allow.toml"
    keys = [new_keys(f"dc1/r/n{number}") for number in range(16)]
    together = threading.Barrier(len(keys))

    def enrol(number: int) -> None:
        together.wait()
        with editing(path) as allow:
            save(path, allow.allow(Role.AGENT, keys[number].name, keys[number].public))

    threads = [threading.Thread(target=enrol, args=(number,)) for number in range(len(keys))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load(path).senders(Role.AGENT) == {pair.public: pair.name for pair in keys}
