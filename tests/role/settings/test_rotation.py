"""The next key and its ports: what is read, and what would leave clients without a door."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbagent.role.settings import Rotation
from hbagent.role.settings.load import read_leader, read_root
from tests.role.settings.test_load import HERE, KEY, LEADER, PEER_KEY, ROOT, problems
from tests.role.settings.test_operators import PLAIN

ROTATION = """\
[rotation]
key = "next.key"
publish = "tcp://*:5721"
control = "tcp://*:5722"
"""
PEER = f"""\
[[peer]]
name = "dc1/rack1-leader2"
control = "tcp://10.0.0.2:5702"
public_key = "{PEER_KEY}"
"""


def test_a_key_stays_unless_another_is_written() -> None:
    assert read_leader(HERE, LEADER).rotation is None
    assert read_root(HERE, ROOT).rotation is None


def test_the_next_key_and_its_ports_are_read() -> None:
    wanted = Rotation(key=Path("/etc/hbagent/next.key"), publish="tcp://*:5721", control="tcp://*:5722")
    assert read_leader(HERE, LEADER + ROTATION).rotation == wanted
    assert read_root(HERE, ROOT + ROTATION).rotation == wanted


def test_the_next_key_may_be_a_credential() -> None:
    read = read_leader(HERE, LEADER + ROTATION.replace("next.key", "credential:leader-next.key")).rotation
    assert read is not None
    assert read.key == Path("credential:leader-next.key")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ROTATION.replace("5721", "5711"), "this port is already that of publish"),
        (ROTATION.replace("*:5722", "10.0.0.1:5712"), "this port is already that of control"),
        (ROTATION.replace("5722", "5721"), "this port is already that of [rotation] publish"),
        (ROTATION.replace("5722", "5713") + '[operators]\nlisten = "tcp://*:5713"\n', "that of [operators] listen"),
        (ROTATION.replace("next.key", "root.key"), "this is the present key"),
        (ROTATION.replace('key = "next.key"\n', ""), 'missing key "key"'),
        (ROTATION.replace('control = "tcp://*:5722"\n', ""), 'missing key "control"'),
        (ROTATION.replace("tcp://*:5722", "ipc:///run/x.sock"), "must be an address as in"),
    ],
)
def test_what_would_leave_clients_without_a_door_is_refused(text: str, says: str) -> None:
    (said,) = problems(read_root, ROOT + text)
    assert says in said


def test_without_keys_there_is_none_to_change() -> None:
    (said,) = problems(read_root, PLAIN + ROTATION)
    assert "plain text has no key that could be changed" in said


def test_another_leader_may_have_two_keys() -> None:
    (peer,) = read_leader(HERE, LEADER + PEER + f'next_public_key = "{KEY[:-1]}A"\n').peers
    assert (peer.public_key, peer.next_public_key) == (PEER_KEY, f"{KEY[:-1]}A")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (PEER_KEY, "this is its public_key already"),
        (KEY, "this is the key of the root"),
        ("none.pub", "none.pub"),
    ],
)
def test_two_keys_are_two_and_of_nobody_else(key: str, says: str) -> None:
    (said,) = problems(read_leader, LEADER + PEER + f'next_public_key = "{key}"\n')
    assert says in said


def test_the_root_may_know_the_nodes_of_a_rack() -> None:
    (rack,) = read_root(HERE, ROOT).core.racks
    assert rack.nodes == ()
    (rack,) = read_root(HERE, ROOT.rstrip() + '\nnodes = ["node1", "node2"]\n').core.racks
    assert rack.nodes == ("node1", "node2")
