"""Operators at a real root: what each key may, what is written down of them, and how one is shut out."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbagent.cli.query import Asker, Denied, Target, Unanswered
from hbagent.core.units import SECOND
from hbagent.demo.datacenter import Plan, held_ports
from hbagent.transport import keys
from tests.e2e.conftest import Build
from tests.e2e.fleet import Fleet
from tests.e2e.patient import PATIENT

pytestmark = [pytest.mark.e2e, pytest.mark.paired]

NODE = "rack1-node1"
HOUR_NS = 3600 * SECOND


class Operated(Fleet):
    """A datacenter with an operators' port."""

    port: int
    directory_of_keys: Path

    def key(self, name: str) -> Path:
        return self.directory_of_keys / f"{name}.key"

    def target(self, name: str) -> Target:
        return Target(
            endpoint=f"tcp://127.0.0.1:{self.port}",
            role="root",
            server_key=str(self.directory / "keys" / "demo.root.pub"),
            key=self.key(name),
        )

    def words(self, name: str) -> list[str]:
        """The options of a command that asks as somebody."""
        target = self.target(name)
        return ["--connect", target.endpoint, "--server-key", target.server_key, "--key", str(target.key)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hbagent", *words], capture_output=True, text=True, timeout=60, env=self.environment
        )

    def admit(self, text: str) -> None:
        """Other operators, from now on."""
        config = self.config("root")
        config.write_text(config.read_text().partition("[operators]")[0] + text)
        before = len(self.lines("root", "reloaded"))
        self.signal("root", signal.SIGHUP)
        self.until(lambda: len(self.lines("root", "reloaded")) > before, "reloaded")


def tables(port: int, **operators: tuple[str, str]) -> str:
    """The port, and who may what: public key and right by name."""
    return f'[operators]\nlisten = "tcp://127.0.0.1:{port}"\n' + "".join(
        f'[[operator]]\nname = "{name}"\npublic_key = "{key}"\nright = "{right}"\n'
        for name, (key, right) in operators.items()
    )


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("operators")
    made = {name: keys.generate(name, directory).public for name in ("alice", "bob", "eve")}
    return {**made, "directory": str(directory)}


@pytest.fixture(scope="module")
def fleet(build: Build, public: dict[str, str]) -> Iterator[Operated]:
    """One rack; alice may write, bob may read."""
    with held_ports(1) as (port,):
        operators = tables(port, alice=(public["alice"], "write"), bob=(public["bob"], "read"))
        made = build(Plan(racks=1, nodes=2, root_tables=operators, leader_tables=PATIENT))
        made.__class__ = Operated
        assert isinstance(made, Operated)
        made.port, made.directory_of_keys = port, Path(public["directory"])
        made.wake_up()
        yield made


def silence(asker: Asker, reason: str) -> Any:
    return asker.order("silence", nodes=("node9",), reason=reason, length_ns=HOUR_NS)


def test_who_may_read_asks_like_anybody_on_the_host_and_changes_nothing(fleet: Operated) -> None:
    status = fleet.run("status", *fleet.words("bob"))
    assert (status.returncode, status.stderr) == (0, "")
    assert "demo/rack1" in status.stdout
    refused = fleet.run("silence", "node", "node9", "--for", "1h", "--reason", "x", *fleet.words("bob"))
    assert refused.returncode == 64
    assert 'bob has the right "read" and may change nothing' in refused.stderr
    with Asker(fleet.target("bob"), 5 * SECOND) as asker, pytest.raises(Denied, match='has the right "read"'):
        asker.ask("drill", node="demo/rack1/node1", drill="crash")
    assert fleet.ask("silences")["silences"] == []
    fleet.until(lambda: fleet.lines("root", "refused", "sender=bob", "reason=read-only"), "it is logged")
    assert fleet.ask("status")["root"]["refused"]["read-only"] == 2


def test_who_may_write_changes_things_and_it_is_written_down_who_did_it(fleet: Operated) -> None:
    done = fleet.run("silence", "node", "node9", "--for", "1h", "--reason", "new disk", *fleet.words("alice"))
    assert (done.returncode, done.stderr) == (0, "")
    fleet.until(lambda: fleet.lines("root", "operator", "by=alice", "did=silence", "new disk"), "it is logged")
    (row,) = fleet.ask("silences")["silences"]
    assert (row["author"], row["reason"]) == ("alice", "new disk")


def test_at_the_unix_socket_it_is_the_user_who_did_it(fleet: Operated) -> None:
    with Asker(Target(endpoint=f"ipc://{fleet.directory}/run/root.sock"), 5 * SECOND) as asker:
        silence(asker, "by hand")
    me = pwd.getpwuid(os.getuid())
    named = f"{me.pw_name} (uid {me.pw_uid})"
    fleet.until(lambda: fleet.lines("root", "operator", named, "did=silence", "by hand"), "it is logged")


def test_a_leader_takes_no_orders(fleet: Operated) -> None:
    with (
        Asker(Target(endpoint=f"ipc://{fleet.directory}/run/rack1-leader1.sock"), 5 * SECOND) as asker,
        pytest.raises(Denied, match="only the root changes anything"),
    ):
        silence(asker, "x")


@pytest.mark.parametrize("who", ["eve", NODE])
def test_a_key_that_is_not_listed_gets_nothing(fleet: Operated, who: str) -> None:
    target = fleet.target("eve")
    if who == NODE:
        node = Target(
            endpoint=target.endpoint,
            server_key=target.server_key,
            role="root",
            key=fleet.directory / "keys" / "demo.rack1.node1.key",
        )
        target = node
    with Asker(target, 5 * SECOND) as asker, pytest.raises(Unanswered, match="it refuses this key"):
        asker.ask("status")
    fleet.until(lambda: fleet.lines("root", "handshake-refused"), "it is logged")


def test_the_plugin_asks_over_the_port_too(fleet: Operated) -> None:
    target = fleet.target("bob")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "hbagent.cli.check_hbagent", "-H", f"127.0.0.1:{fleet.port}"),
            *("--server-key", target.server_key, "--key", str(target.key)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HBAGENT OK - 2 nodes in 1 rack, 0 incidents | nodes=2;;;0 alive=2;;;0;2 ")


def test_who_is_shut_out_is_cut_at_once_and_another_right_counts_at_once(
    fleet: Operated, public: dict[str, str]
) -> None:
    with Asker(fleet.target("alice"), 5 * SECOND) as alice, Asker(fleet.target("bob"), 5 * SECOND) as bob:
        silence(alice, "before")
        assert bob.ask("ping")["name"] == "demo/root"
        fleet.admit(tables(fleet.port, bob=(public["bob"], "write")))
        with pytest.raises(Unanswered, match="it refuses this key"):
            while True:
                silence(alice, "after")
        silence(bob, "now I may")
    reasons = [row["reason"] for row in fleet.ask("silences")["silences"]]
    assert "now I may" in reasons
    assert "after" not in reasons
