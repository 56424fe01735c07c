"""`hbagent demo` as a user meets it: a node is killed from another shell, and nothing is left when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbagent.demo.datacenter import wait_until
from tests.conftest import Figures
from tests.e2e.fleet import whole_lines

pytestmark = [pytest.mark.e2e, pytest.mark.paired, pytest.mark.timeout(300)]

Demo = subprocess.Popen[str]


def start(directory: Path, *options: str) -> Demo:
    command = [sys.executable, "-m", "hbagent", "demo", "--dir", str(directory), "--racks", "1", "--nodes", "3"]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed_signals
    )


def heed_signals() -> None:
    """In the child: what started the tests (nohup, a shell's background) may have had these ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def demo(socket_dir: Path) -> Iterator[Demo]:
    """A demo that runs until the test ends it."""
    process = start(socket_dir)
    yield process
    process.kill()
    process.communicate()
    nothing_is_left_of(socket_dir)


def left_of(directory: Path) -> list[str]:
    """Command lines of daemons and hooks that belong to a directory, the demo itself apart."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"demo" not in words and any(word.startswith(os.fsencode(directory)) for word in words):
            found.append(b" ".join(words).decode(errors="replace"))
    return found


def nothing_is_left_of(directory: Path) -> bool:
    """True soon after the demo has ended: the last of what its daemons started ends with them, not before."""
    return wait_until(lambda: not left_of(directory), 20)


def hbagent(directory: Path, *words: str, of: str = "root") -> tuple[int, str]:
    """Exit code and output of a command that asks the demo's root, or its leader."""
    command = [sys.executable, "-m", "hbagent", *words, "--config", str(directory / "etc" / f"{of}.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def status(directory: Path, of: str = "root") -> dict[str, Any]:
    """The answer of `hbagent status -o json`; empty while nobody answers."""
    _, text = hbagent(directory, "status", "-o", "json", of=of)
    document: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
    return document


def all_alive(directory: Path) -> bool:
    nodes = status(directory).get("nodes", [])
    return len(nodes) == 3 and all(node["liveness"] == "ALIVE" for node in nodes)


def provable(directory: Path) -> bool:
    """True when the leader could prove the end of each node."""
    nodes = status(directory, "rack1-leader1").get("nodes", [])
    return len(nodes) == 3 and all(seen["echo"] for node in nodes for seen in node["observers"])


def test_a_node_that_is_killed_is_seen_told_and_explained(demo: Demo, socket_dir: Path, figures: Figures) -> None:
    begun = time.monotonic()
    assert wait_until(lambda: all_alive(socket_dir), 45)
    figures("demo", f"all nodes ALIVE {time.monotonic() - begun:.1f} s after its start (within 15 s)")
    assert wait_until(lambda: provable(socket_dir), 30)
    assert wait_until(lambda: hbagent(socket_dir, "status")[0] == 0, 30)
    os.kill(int((socket_dir / "run" / "rack1-node1.pid").read_text()), signal.SIGKILL)
    assert wait_until(lambda: hbagent(socket_dir, "status")[0] == 2, 20), "status does not exit with 2"
    (dead,) = (node for node in status(socket_dir)["nodes"] if node["liveness"] == "DEAD")
    assert (dead["node"], dead["cause"]) == ("demo/rack1/node1", "process-exit")
    hooks = socket_dir / "hooks.jsonl"
    assert wait_until(lambda: any('"node-dead"' in line for line in whole_lines(hooks)), 30)
    (told,) = (json.loads(line) for line in whole_lines(hooks) if '"node-dead"' in line)
    assert told["node"] == "demo/rack1/node1"
    assert told["cause"] == "process-exit"
    code, text = hbagent(socket_dir, "explain", "demo/rack1/node1")
    assert code == 0
    assert "process-exit" in text
    demo.send_signal(signal.SIGINT)
    output, _ = demo.communicate(timeout=45)
    assert demo.returncode == 0, output
    assert "Traceback" not in output
    assert nothing_is_left_of(socket_dir)


@pytest.mark.parametrize("leaders", [1, 2])
def test_a_demo_for_some_seconds_ends_by_itself_and_says_how_all_was(socket_dir: Path, leaders: int) -> None:
    # A machine that is busy with others may take longer until all are heard, or stand still at the end.
    for seconds in (6, 20, 45):
        process = start(socket_dir, "--for", str(seconds), "-o", "json", "--leaders", str(leaders))
        output, _ = process.communicate(timeout=seconds + 60)
        assert process.returncode == 0, output
        document = json.loads(output)
        if all(seen["liveness"] == "ALIVE" for node in document["nodes"] for seen in (node, *node["observers"])):
            break
    assert [node["liveness"] for node in document["nodes"]] == ["ALIVE"] * 3
    assert [len(node["observers"]) for node in document["nodes"]] == [leaders] * 3
    assert [leader["state"] for leader in document["racks"][0]["leaders"]] == ["ALIVE"] * leaders
    connected = [path for path in (socket_dir / "log").iterdir() if "peer-connected" in path.read_text()]
    assert len(connected) == (leaders if leaders > 1 else 0)
    assert nothing_is_left_of(socket_dir)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_nothing_is_left_of_a_demo_that_is_killed(demo: Demo, socket_dir: Path, number: signal.Signals) -> None:
    assert wait_until(lambda: len(left_of(socket_dir)) == 5, 45)
    demo.send_signal(number)
    demo.communicate(timeout=45)
    assert nothing_is_left_of(socket_dir), left_of(socket_dir)
