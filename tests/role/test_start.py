"""What goes wrong before a daemon runs: one clear line for each thing, the right exit code, and no waiting."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hbagent.cli import EXIT_UNAVAILABLE, EXIT_USAGE
from hbagent.demo.datacenter import Plan
from tests.e2e.fleet import Fleet
from tests.role.conftest import Build
from tests.role.parts import until

LEADER, NODE = "rack1-leader1", "rack1-node1"


@pytest.fixture
def fleet(build: Build) -> Fleet:
    """Files of a root, a leader and an agent; none runs."""
    made = build(Plan(racks=1, nodes=1))
    made.write()
    return made


def start(fleet: Fleet, name: str, seconds: float = 40.0) -> tuple[int, str]:
    """Exit status and standard error of a daemon that should not come up."""
    done = subprocess.run(fleet.command(name), capture_output=True, text=True, timeout=seconds, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def replace(fleet: Fleet, name: str, pattern: str, text: str) -> None:
    """Change a config file."""
    before = fleet.config(name).read_text()
    after = re.sub(pattern, text, before, flags=re.MULTILINE)
    assert after != before
    fleet.config(name).write_text(after)


def key_file(fleet: Fleet, name: str) -> Path:
    """As the config names it."""
    return fleet.config(name).parent / fleet.setting(name, "key")


@pytest.mark.parametrize("name", [NODE, LEADER, "root"])
def test_a_key_that_others_can_read_is_refused(fleet: Fleet, name: str) -> None:
    key_file(fleet, name).chmod(0o644)
    code, text = start(fleet, name)
    assert code == EXIT_USAGE
    (line,) = text.splitlines()
    assert line.startswith(f"hbagent: {key_file(fleet, name)}: ")
    assert "0644" in line
    assert "chmod" in line


def no_key(fleet: Fleet) -> str:
    key_file(fleet, LEADER).unlink()
    return str(key_file(fleet, LEADER))


def no_allow_list(fleet: Fleet) -> str:
    fleet.allow_file().unlink()
    return str(fleet.allow_file())


def bad_allow_list(fleet: Fleet) -> str:
    fleet.allow_file().write_text('[agents]\n"demo/rack1/node1" = ["short"]\n"x" = []\n')
    return f"{fleet.allow_file()}:2: "


def plain_text_in_the_open(fleet: Fleet) -> str:
    replace(fleet, LEADER, f'^publish = "{fleet.setting(LEADER, "publish")}"', 'publish = "tcp://0.0.0.0:5701"')
    replace(fleet, LEADER, r"^key = .*", "plain = true")
    return '[leader]: publish = "tcp://0.0.0.0:5701": plain text stays on th'


def a_typo(fleet: Fleet) -> str:
    replace(fleet, LEADER, r"^state_dir", "state_dirr")
    return 'unknown key "state_dirr", did you mean "state_dir"?'


@pytest.mark.parametrize("spoil", [no_key, no_allow_list, bad_allow_list, plain_text_in_the_open, a_typo])
def test_what_an_operator_must_change_first_is_named(fleet: Fleet, spoil: Callable[[Fleet], str]) -> None:
    named = spoil(fleet)
    code, text = start(fleet, LEADER)
    assert code == EXIT_USAGE
    assert named in text
    assert all(line.startswith("hbagent: ") for line in text.splitlines())


@pytest.mark.parametrize("name", [NODE, LEADER, "root"])
def test_a_key_of_another_name_is_refused(fleet: Fleet, name: str) -> None:
    """By its key it would be taken for that one, while it takes itself for another."""
    other = key_file(fleet, "root" if name == LEADER else LEADER)
    own = key_file(fleet, name)
    replace(fleet, name, own.name, other.name)
    code, text = start(fleet, name)
    assert code == EXIT_USAGE
    (line,) = text.splitlines()
    names = [file.stem.replace(".", "/") for file in (other, own)]
    assert (
        line
        == f"hbagent: {fleet.config(name).parent / '../keys' / other.name} is the key of {names[0]}, not of {names[1]}"
    )


def test_a_hook_that_may_not_be_run_is_named_before_anything_starts(fleet: Fleet) -> None:
    (fleet.directory / "etc" / "hook").chmod(0o722)
    code, text = start(fleet, "root")
    assert code == EXIT_USAGE
    assert 'hook "demo"' in text
    assert "writable by group or others" in text


@pytest.mark.parametrize(("name", "which"), [(LEADER, "publish"), (LEADER, "control"), ("root", "publish")])
def test_an_address_that_is_taken_is_named(fleet: Fleet, name: str, which: str) -> None:
    endpoint = fleet.setting(name, which)
    with socket.create_server(("127.0.0.1", int(endpoint.rpartition(":")[2]))):
        code, text = start(fleet, name)
    assert code == EXIT_UNAVAILABLE
    assert text.splitlines()[-1] == f"hbagent: {endpoint}: Address already in use"


def test_a_second_leader_on_the_same_state_is_turned_away(fleet: Fleet) -> None:
    fleet.start([LEADER])
    assert until(lambda: fleet.lines(LEADER, "started"))
    code, text = start(fleet, LEADER)
    assert code == EXIT_UNAVAILABLE
    assert "is another leader running?" in text
    assert fleet.processes[LEADER].poll() is None


def test_a_query_socket_that_is_no_socket_is_left_alone(fleet: Fleet) -> None:
    path = fleet.directory / "run" / f"{LEADER}.sock"
    path.write_text("precious")
    code, text = start(fleet, LEADER)
    assert code == EXIT_UNAVAILABLE
    assert f"hbagent: {path}: exists and is not a socket" in text
    assert path.read_text() == "precious"
