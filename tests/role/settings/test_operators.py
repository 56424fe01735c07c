"""Who may reach the root at its operators' port, and what is wrong with a file that says so badly."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbagent.role.settings import Operator
from hbagent.role.settings.load import read_leader, read_root
from hbagent.transport import keys
from tests.role.settings.test_load import HERE, KEY, LEADER, PEER_KEY, ROOT, problems

PORT = '[operators]\nlisten = "tcp://*:5713"\n'
ALICE = f'[[operator]]\nname = "alice"\npublic_key = "{KEY}"\nright = "write"\n'
BOB = '[[operator]]\nname = "bob"\n'
PLAIN = ROOT.replace('key = "root.key"\nallow = "allow.toml"', "plain = true").replace(
    "[security]", 'publish = "tcp://127.0.0.1:5711"\ncontrol = "tcp://127.0.0.1:5712"\n[security]'
)


def test_there_is_no_port_unless_it_is_written() -> None:
    read = read_root(HERE, ROOT)
    assert (read.operators_port, read.operators, read.group) == ("", (), "")


def test_the_port_its_operators_and_the_group_of_the_socket_are_read() -> None:
    read = read_root(HERE, ROOT.replace("[security]", 'group = "ops"\n[security]') + PORT + ALICE + BOB)
    assert read.operators_port == "tcp://*:5713"
    assert read.operators == (Operator(name="alice", public_key=KEY, right="write"), Operator(name="bob"))
    assert read.operators[1].right == "read"
    assert read.group == "ops"
    assert read_leader(HERE, LEADER.replace("[security]", 'group = "ops"\n[security]')).group == "ops"


def test_the_key_of_an_operator_may_be_a_file(tmp_path: Path) -> None:
    pair = keys.generate("alice", tmp_path)
    text = ROOT + PORT + '[[operator]]\nname = "alice"\npublic_key = "alice.pub"\n'
    assert read_root(tmp_path / "root.toml", text).operators == (Operator(name="alice", public_key=pair.public),)
    (said,) = problems(read_root, text.replace('"alice"', '"bob"'), tmp_path / "root.toml")
    assert "is the key of alice, not of bob" in said


def test_in_plain_text_nobody_has_a_key_and_the_port_stays_on_this_host() -> None:
    read = read_root(HERE, PLAIN + PORT.replace("*", "127.0.0.1") + ALICE)
    assert read.operators == (Operator(name="alice", right="write"),)
    (said,) = problems(read_root, PLAIN + PORT + ALICE)
    assert "plain text stays on this host" in said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (ALICE, 'operator "alice": nobody listens for operators'),
        ("[operators]\n" + ALICE, 'missing key "listen"'),
        (PORT.replace("tcp://*:5713", "ipc:///run/x.sock"), "must be an address as in"),
        (PORT.replace("5713", "5711"), "[root] has this address for publish"),
        (PORT + ALICE.replace('"write"', '"admin"'), "must be one of read, write"),
        (PORT + ALICE.replace('"alice"', '"dc1/alice"'), "must be a name of at most 64"),
        (PORT + ALICE.replace(KEY, "none.pub"), "none.pub"),
        (PORT + ALICE + ALICE.replace(KEY, PEER_KEY), "there is another [[operator]] of this name"),
        (PORT + ALICE + BOB + f'public_key = "{KEY}"\n', "this is the key of alice"),
    ],
)
def test_what_does_not_fit_is_told(text: str, wanted: str) -> None:
    (said,) = problems(read_root, ROOT + text)
    assert wanted in said
