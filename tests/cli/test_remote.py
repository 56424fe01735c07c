"""Asking a root over its operators' port: with the right keys it answers, and otherwise it is said whose are wrong."""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from hbagent.cli import query
from hbagent.cli.checks import FAIL, OK, WARN
from hbagent.cli.operator_checks import operator_findings, port_findings
from hbagent.cli.query import Asker, NoTarget, Target, Unanswered, find_target, target_of
from hbagent.cli.remote import unreachable
from hbagent.core.effects import Answer
from hbagent.core.messages import Query
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.role.questions import Questions
from hbagent.role.settings import OperatorSettings
from hbagent.role.settings.load import read_root
from hbagent.role.visitors import Operators
from hbagent.transport import allow, keys
from hbagent.transport.allow import AllowList, Role
from hbagent.transport.connections import Connections
from hbagent.transport.sockets import Context, Host, operator_router
from hbagent.transport.zap import ZapServer
from tests.loopback import OWN
from tests.ports import bound, port_of
from tests.transport.doors import until

#: Longer than a busy machine stands still; what is told at once comes before it.
BOUND_NS = 30 * SECOND


class Root:
    """An operators' port in a thread of its own, which answers each question with what was asked."""

    def __init__(self, directory: Path, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self.pair = keys.generate("t/root", directory)
        self.alice = keys.generate("alice", directory)
        self.directory = directory
        self._context: Context = zmq.Context()
        self._doorkeeper = ZapServer(self._context, AllowList(), {"operators": Role.OPERATOR})
        host = Host(keys=self.pair, domain="operators", peers_expected=4)
        router = operator_router(self._context, host, endpoint)
        bound = router.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self.endpoint = bound.rstrip(b"\0").decode()
        self._operators = Operators(Connections(), self._feed)
        self._questions = Questions(router, self._feed, self._operators)
        self.answers = True
        self._ending = threading.Event()
        self._admitted: list[keys.KeyPair] | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.admit(self.alice)

    def admit(self, *pairs: keys.KeyPair) -> None:
        """From now on these, once this returns."""
        self._admitted = [*pairs]
        assert until(lambda: self._admitted is None, 30)

    def _feed(self, asker: str, message: object) -> None:
        if self.answers and isinstance(message, Query):
            self._questions.answer(
                Answer(asker.encode("latin-1"), message.id, {"name": "t/root", "asked": message.what})
            )

    def _serve(self) -> None:
        while not self._ending.is_set():
            if self._admitted is not None:
                self._doorkeeper.replace(AllowList().with_operators({p.name: p.public for p in self._admitted}))
                self._operators.use({pair.public: (pair.name, True) for pair in self._admitted})
                self._admitted = None
            if self._questions.source.poll(10):
                self._questions.drain()

    def target(self, server_key: str = "", key: str = "alice") -> Target:
        return Target(
            endpoint=self.endpoint,
            role="root",
            server_key=server_key or self.pair.public,
            key=self.directory / f"{key}.key",
        )

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._questions.source.close()
        self._doorkeeper.stop()
        self._context.term()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.close()


def why(target: Target, timeout: int = BOUND_NS) -> str:
    with Asker(target, timeout) as asker, pytest.raises(Unanswered) as caught:
        asker.ask("ping")
    assert str(caught.value) == f"cannot reach root at {target.endpoint}: {caught.value.why}"
    return caught.value.why


# ---- asking ----------------------------------------------------------------------------------------------


def test_whoever_has_both_keys_is_answered_again_and_again(root: Root) -> None:
    with Asker(root.target(), BOUND_NS) as asker:
        for what in ("ping", "status", "events"):
            assert asker.ask(what) == {"name": "t/root", "asked": what}


def test_the_servers_key_may_be_a_file(root: Root, tmp_path: Path) -> None:
    with Asker(root.target(server_key=str(tmp_path / "t.root.pub")), BOUND_NS) as asker:
        assert asker.ask("ping")["name"] == "t/root"


def test_a_key_that_is_not_listed_is_refused_at_once_and_named(root: Root, tmp_path: Path) -> None:
    eve = keys.generate("eve", tmp_path)
    # After the timeout it would be told of that.
    said = why(root.target(key="eve"))
    assert said == (
        f"it refuses this key (eve, {eve.public}, fingerprint {keys.fingerprint(eve.public)}); "
        "whoever runs it lists it in an [[operator]] table of its root.toml"
    )


def test_a_key_that_is_listed_meanwhile_is_admitted_with_the_next_question(root: Root, tmp_path: Path) -> None:
    eve = keys.generate("eve", tmp_path)
    with Asker(root.target(key="eve"), BOUND_NS) as asker:
        for _ in range(2):
            with pytest.raises(Unanswered, match="it refuses this key"):
                asker.ask("ping")
        root.admit(eve)
        assert asker.ask("ping")["name"] == "t/root"


def test_a_key_that_is_revoked_meanwhile_is_told_and_not_waited_for(root: Root) -> None:
    with Asker(root.target(), BOUND_NS) as asker:
        asker.ask("ping")
        root.answers = False
        revoking = threading.Timer(0.2, root.admit)
        revoking.start()
        # After the timeout it would be told of that.
        with pytest.raises(Unanswered, match="it refuses this key"):
            asker.ask("ping")
        revoking.join()


def test_a_key_that_is_revoked_between_two_questions_is_told_with_the_next(root: Root) -> None:
    with Asker(root.target(), BOUND_NS) as asker:
        asker.ask("ping")
        root.admit()
        for _ in range(2):
            with pytest.raises(Unanswered, match="it refuses this key"):
                asker.ask("ping")


def test_the_wrong_servers_key_is_told(root: Root) -> None:
    assert "it does not have the key that it should have" in why(root.target(server_key=root.alice.public))


def test_a_root_that_does_not_answer_is_told_after_the_timeout(root: Root) -> None:
    root.answers = False
    assert why(root.target(), 100 * MILLISECOND) == "nobody answers within 100ms"


def test_where_nobody_listens_is_told_at_once(root: Root) -> None:
    with bound() as nobody:
        endpoint = f"tcp://127.0.0.1:{port_of(nobody)}"
        target = Target(endpoint=endpoint, role="root", server_key=root.pair.public, key=root.target().key)
        assert why(target) == "connection refused"
    assert unreachable("tcp://no-such-host.invalid:5713") != ""


def test_something_else_that_listens_is_told(root: Root) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        target = Target(
            endpoint=f"tcp://127.0.0.1:{other.getsockname()[1]}",
            role="root",
            server_key=root.pair.public,
            key=root.target().key,
        )
        assert "is no operators' port" in why(target)
        thread.join()


def test_a_root_that_comes_back_is_reached_again(tmp_path: Path) -> None:
    root = Root(tmp_path, f"tcp://{OWN}:*")
    with Asker(root.target(), BOUND_NS) as asker:
        asker.ask("ping")
        root.close()
        with pytest.raises(Unanswered):
            asker.ask("ping")
        back = Root(tmp_path, root.endpoint)
        try:
            assert until(lambda: answered(asker), 30)
        finally:
            back.close()


def answered(asker: Asker) -> bool:
    try:
        return bool(asker.ask("ping"))
    except Unanswered:
        return False


# ---- whom to ask -----------------------------------------------------------------------------------------


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    query.add_arguments(parser)
    return parser.parse_args(words)


def test_three_options_name_a_root_on_another_host() -> None:
    args = options("--connect", "tcp://root.example:5713", "--server-key", "x.pub", "--key", "alice.key")
    assert target_of(args) == Target(
        endpoint="tcp://root.example:5713", role="root", server_key="x.pub", key=Path("alice.key")
    )


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--connect", "tcp://h:1"], "--connect needs --server-key"),
        (["--connect", "tcp://h:1", "--key", "k"], "--connect needs --server-key"),
        (["--connect", "h:1", "--key", "k", "--server-key", "s"], "must be an address as in"),
        (["--connect", "tcp://*:1", "--key", "k", "--server-key", "s"], "can only be listened at"),
        (["--key", "k"], "--key is for --connect"),
        (["--socket", "ipc:///x", "--server-key", "s"], "--server-key is for --connect"),
    ],
)
def test_options_that_do_not_fit_are_told(words: list[str], wanted: str) -> None:
    with pytest.raises(NoTarget) as caught:
        target_of(options(*words))
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda at: (at / "alice.key").chmod(0o644), "the operator's key: .* lets others read"),
        (lambda at: (at / "alice.key").unlink(), "the operator's key: .*No such file"),
        (lambda at: (at / "t.root.pub").unlink(), "the root's public key: .*No such file"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_told(root: Root, spoil: Callable[[Path], object], wanted: str) -> None:
    spoil(root.directory)
    with pytest.raises(NoTarget, match=wanted):
        Asker(root.target(server_key=str(root.directory / "t.root.pub")), BOUND_NS)


def test_what_is_no_key_is_told(root: Root) -> None:
    with pytest.raises(NoTarget, match="needs the public key"):
        Asker(root.target(server_key="nonsense"), BOUND_NS)


def own_file(root: Root, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = root.directory
    keys_of_both = f'server_key = "{directory}/t.root.pub"\nkey = "{directory}/alice.key"\n'
    path.write_text(f'[operator]\nconnect = "{root.endpoint}"\n{keys_of_both}')
    return path


def test_an_operators_own_file_says_it_all_and_comes_before_those_of_the_host(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "DEFAULT_CONFIGS", (Path("/nonexistent/root.toml"),))
    file = own_file(root, tmp_path / ".config" / "hbagent" / "operator.toml")
    wanted = Target(
        endpoint=root.endpoint, role="root", config=file, server_key=root.pair.public, key=root.target().key
    )
    assert find_target(None, None, {"HOME": str(tmp_path)}) == wanted
    assert find_target(None, None, {"XDG_CONFIG_HOME": str(tmp_path / ".config"), "HOME": "/nonexistent"}) == wanted
    assert find_target(None, None, {"HBAGENT_CONFIG": str(file)}) == wanted
    with Asker(find_target(file, None, {}), BOUND_NS) as asker:
        assert asker.ask("ping")["name"] == "t/root"


# ---- what the doctor says --------------------------------------------------------------------------------


def test_the_doctor_tries_an_operators_own_way(root: Root, tmp_path: Path) -> None:
    settings = OperatorSettings(connect=root.endpoint, server_key=root.pair.public, key=tmp_path / "alice.key")
    assert [(one.grade, one.what) for one in operator_findings(settings, tmp_path)] == [(OK, "key"), (OK, "root")]
    root.admit()
    *_, refused = operator_findings(settings, tmp_path)
    assert refused.grade == FAIL
    assert "it refuses this key" in refused.text
    (tmp_path / "alice.key").unlink()
    (missing,) = operator_findings(settings, tmp_path)
    assert f"make one with: hbagent keys init NAME --dir {tmp_path}" in missing.text


def test_the_doctor_says_who_may_come_to_the_roots_port(socket_dir: Path) -> None:
    alice = keys.generate("alice", socket_dir)
    listed = AllowList().allow(Role.OPERATOR, "bob", keys.generate("bob", socket_dir).public)
    allow.save(
        socket_dir / "allow.toml", listed.allow(Role.OPERATOR, "carol", keys.generate("carol", socket_dir).public)
    )
    head = f"""
[root]
name = "t/root"
query = "ipc://{socket_dir}/root.sock"
[security]
key = "t.root.key"
allow = "allow.toml"
[[rack]]
name = "t/r"
leaders = ["t/l"]
"""
    tables = f"""
[[operator]]
name = "alice"
public_key = "{alice.public}"
right = "write"
[[operator]]
name = "bob"
[[operator]]
name = "dora"
"""

    def said(text: str) -> list[tuple[str, str]]:
        return [(one.grade, one.text) for one in port_findings(read_root(socket_dir / "root.toml", text))]

    assert said(head) == [(OK, f"no port: they ask on this host alone, at ipc://{socket_dir}/root.sock")]
    with bound() as held:
        port = port_of(held)
        port_table = f'[operators]\nlisten = "tcp://127.0.0.1:{port}"\n'
        free, nobody = said(head + port_table)
        assert free == (OK, f"tcp://127.0.0.1:{port}: free")
        assert nobody[0] == WARN
        assert [grade for grade, _ in said(head + port_table + tables)] == [OK, OK, OK, WARN, WARN]
        texts = [text for _, text in said(head + port_table + tables)]
        assert texts[1] == f"alice may write, fingerprint {keys.fingerprint(alice.public)}"
        assert texts[2] == "bob may read"
        assert texts[3].startswith("dora has no key, and is refused")
        assert texts[4].startswith("carol is in the allow-list and has no [[operator]] table")
        held.listen()
        assert said(head + port_table)[0][0] == FAIL
