"""docs/wire.md is enough to write an agent from: its table makes a beat, and its program is an agent."""

from __future__ import annotations

import os
import re
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.demo.datacenter import wait_until
from hbagent.wire import beat, codec
from hbagent.wire.version import FRAME_SIZE_MAX, MAJOR, MINOR
from tests.documents import DOCS, typed
from tests.test_docs import Shell, blocks, by_hand, rows, section
from tests.wire.samples import BEAT

WIRE = DOCS / "wire.md"
WIDTHS = {1: "B", 4: "I", 8: "Q"}
#: What the table says in words.
VALUES = {
    "major": MAJOR,
    "minor": MINOR,
    "type": 0x01,
    "flags": 0x01,
    "incarnation": BEAT.incarnation,
    "sequence": BEAT.sequence,
    "sent": BEAT.sent_mono_ns,
    "due_in": BEAT.due_in_ns // 1000,
    "interval": BEAT.interval_ns // 1000,
    "loop_gap": BEAT.loop_gap_ns // 1000,
    "progress": BEAT.progress,
    "health_digest": BEAT.health_digest,
}
#: The program needs a key of its own, and addresses.
KEYS = """
import os
from pathlib import Path
import zmq
from zmq.utils import z85

def word(path):
    return Path(path).read_text().split()[-1].encode()

def make_key():
    secret = word("keys/dc1.rack07.host12.key")
    return zmq.curve_public(secret), secret, word("keys/dc1.rack07-leader1.pub")

Path("agent.pid").write_text(str(os.getpid()))
PUBLISH, CONTROL = {addresses}
"""


def fields() -> Iterator[tuple[int, int, str]]:
    """Offset, bytes and name of each field of the beat, as the table has them."""
    for offset, size, name, _ in rows(section(WIRE.read_text(), "beat")):
        yield int(offset), int(size), name.strip("`")


def test_a_beat_that_is_made_by_the_table_is_one() -> None:
    frame = bytearray(beat.BEAT_SIZE)
    for offset, size, name in fields():
        if name == "magic":
            frame[offset : offset + size] = b"HB"
        else:
            struct.pack_into(f"!{WIDTHS[size]}", frame, offset, VALUES[name])
    assert beat.decode(bytes(frame)) == BEAT
    assert bytes(frame) == beat.encode(BEAT)


def test_the_table_leaves_no_byte_out() -> None:
    ends = [0]
    for offset, size, _ in fields():
        assert offset == ends[-1]
        ends.append(offset + size)
    assert ends[-1] == beat.BEAT_SIZE


def test_the_sizes_that_are_told_are_those_of_the_code() -> None:
    text = WIRE.read_text()
    assert f"Over {FRAME_SIZE_MAX:,} bytes".lower() in text.lower()
    assert f"up to {beat.BEAT_SIZE_MAX} in all" in text


def program() -> str:
    """The agent of the document."""
    (text,) = blocks(WIRE.read_text(), "python")
    return text


def test_the_program_makes_frames_that_are_read() -> None:
    made: dict[str, object] = {}
    # Its functions alone: what is below them connects.
    exec(program().partition("\ndef called")[0], made)
    make_beat, make_frame = made["beat"], made["frame"]
    assert callable(make_beat)
    assert callable(make_frame)
    assert getattr(beat.decode(make_beat(7, 1_000_000_000, True)), "leaving", None) is True
    hello = make_frame(0x10, incarnation=made["INCARNATION"], interval_ns=1, version="mine 1")
    assert type(codec.decode(hello)) is codec.TYPES[0x10]


@pytest.fixture
def shell(socket_dir: Path) -> Iterator[Shell]:
    """A shell in an empty directory."""
    made = Shell(socket_dir)
    yield made
    made.close()


@pytest.mark.e2e
@pytest.mark.paired
@pytest.mark.timeout(120)
def test_the_program_is_an_agent_that_is_alive_and_leaves(shell: Shell) -> None:
    keys, files, daemons, question = by_hand(typed("hand")[0].document)
    for block in (keys, f"cd fleet\n{files}"):
        assert shell.run(block).returncode == 0
    fleet = shell.directory / "fleet"
    config = (fleet / "leader.toml").read_text()
    addresses = tuple(line.split('"')[1] for line in config.splitlines() if line.startswith(("publish", "control")))[:2]
    (fleet / "agent.py").write_text(KEYS.format(addresses=addresses) + program())
    ours = daemons.replace("hbagent agent --config agent.toml", f"{sys.executable} agent.py")
    assert ours != daemons
    shell.start(f"cd fleet\n{ours}\nwait")

    def said() -> str:
        return shell.run(f"cd fleet\n{question}").stdout

    assert wait_until(lambda: "the one node is ALIVE" in said(), 30), said()
    nodes = "cd fleet\nhbagent nodes --config root.toml -o "
    # Its version by the greeting, its health by the report.
    assert wait_until(lambda: "mine 1" in shell.run(f"{nodes} json").stdout, 30), shell.run(f"{nodes} json").stdout
    assert wait_until(lambda: re.search("ALIVE +✓ OK", shell.run(f"{nodes} table").stdout), 30)
    os.kill(int((fleet / "agent.pid").read_text()), signal.SIGTERM)
    assert wait_until(lambda: " LEFT" in shell.run(f"{nodes} table").stdout, 30)
