"""Whom a command asks, and what it says when the answer does not come or makes no sense."""

from __future__ import annotations

import argparse
import grp
import itertools
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq

from hbagent.cli import query
from hbagent.cli.query import Asker, Denied, NoTarget, Target, Unanswered, find_target, why_closed
from hbagent.core.messages import AnswerPage, Query
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.role.settings import ConfigError
from hbagent.transport.sockets import Context, query_router
from hbagent.wire import codec
from hbagent.wire.pages import answer_pages
from tests.cli.answering import RACK1, Daemon, calm_root, leader_core, without_rights

ROOT = """
[root]
name = "demo/root"
query = "ipc://run/root.sock"
[security]
plain = true
[[rack]]
name = "demo/rack1"
leaders = ["demo/rack1-leader1"]
"""
LEADER = """
[leader]
name = "demo/rack1-leader1"
query = "ipc://leader.sock"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
[security]
plain = true
[root]
name = "demo/root"
publish = "tcp://127.0.0.1:5711"
control = "tcp://127.0.0.1:5712"
[[rack]]
name = "demo/rack1"
nodes = ["node1"]
"""
ROOT_WITH_PORTS = ROOT.replace("query =", 'publish = "tcp://127.0.0.1:5711"\ncontrol = "tcp://127.0.0.1:5712"\nquery =')
#: Longer than a busy machine stands still.
BOUND_NS = 30 * SECOND


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# ---- whom to ask -----------------------------------------------------------------------------------------


def test_a_roots_file_and_a_leaders_file_name_their_sockets(tmp_path: Path) -> None:
    root = written(tmp_path / "root.toml", ROOT_WITH_PORTS)
    leader = written(tmp_path / "leader.toml", LEADER)
    assert find_target(root, None, {}) == Target(endpoint=f"ipc://{tmp_path}/run/root.sock", role="root", config=root)
    assert find_target(leader, None, {}) == Target(
        endpoint=f"ipc://{tmp_path}/leader.sock", role="leader", config=leader
    )


def test_an_option_wins_over_the_environment_and_that_over_the_default_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [written(tmp_path / f"{name}.toml", ROOT_WITH_PORTS.replace("root.sock", f"{name}.sock")) for name in "abc"]
    monkeypatch.setattr(query, "DEFAULT_CONFIGS", (tmp_path / "none.toml", files[2]))
    environment = {"HBAGENT_CONFIG": str(files[1])}
    assert find_target(files[0], None, environment).endpoint.endswith("a.sock")
    assert find_target(None, None, environment).endpoint.endswith("b.sock")
    assert find_target(None, None, {}).endpoint.endswith("c.sock")
    assert find_target(None, "ipc:///run/x.sock", environment) == Target(endpoint="ipc:///run/x.sock")


def test_without_any_hint_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "DEFAULT_CONFIGS", (tmp_path / "root.toml", tmp_path / "leader.toml"))
    with pytest.raises(NoTarget, match=r"neither .*root\.toml nor .*leader\.toml; name .* --config FILE"):
        find_target(None, None, {})


@pytest.mark.root
def test_who_may_not_look_into_the_default_place_is_told_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where every user gets: a directory of a test is closed to others above it.
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as name:
        os.chown(name, 0, 7)
        os.chmod(name, 0o750)
        monkeypatch.setattr(query, "DEFAULT_CONFIGS", (Path(name, "root.toml"),))
        with pytest.raises(NoTarget, match="There is neither"):
            find_target(None, None, {})
        with without_rights(), pytest.raises(NoTarget, match=f"{name} is open to its owner and the group"):
            find_target(None, None, {})
        # Whoever may pass through it still may not read what others may.
        os.chmod(name, 0o751)
        file = Path(name, "root.toml")
        file.write_text("")
        file.chmod(0o640)
        os.chown(file, 0, 7)
        with without_rights(), pytest.raises(NoTarget, match=f"{file} is open to its owner and the group"):
            find_target(None, None, {})


def test_an_agent_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(NoTarget, match="only a root or a leader can be asked"):
        find_target(Path(__file__).parents[2] / "etc" / "agent.toml", None, {})


@pytest.mark.parametrize("endpoint", ["/run/root.sock", "tcp://127.0.0.1:5711", "ipc://@root", "ipc://"])
def test_a_socket_that_is_no_unix_socket_is_refused(endpoint: str) -> None:
    with pytest.raises(NoTarget, match="must be a unix socket as in"):
        find_target(None, endpoint, {})


def test_a_mistake_elsewhere_in_the_file_does_not_blind_the_console(
    socket_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(socket_dir / "root.toml", ROOT_WITH_PORTS + 'nods = ["typo"]\n')
    assert find_target(file, None, {}).endpoint == f"ipc://{socket_dir}/run/root.sock"
    assert capsys.readouterr().err == f"hbagent: {file} has 1 problem(s); try: hbagent check-config {file}\n"


@pytest.mark.parametrize("text", ["[root\n", "", '[root]\nquery = "tcp://127.0.0.1:1"\n', "[root]\nquery = 3\n"])
def test_a_file_that_says_nothing_about_its_socket_is_refused_with_its_problems(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        find_target(written(tmp_path / "root.toml", text), None, {})


@pytest.mark.parametrize(("text", "value"), [("2s", 2 * SECOND), ("500ms", 500 * MILLISECOND), ("0.5", SECOND // 2)])
def test_a_timeout_is_a_duration_or_seconds(text: str, value: int) -> None:
    assert query.timeout_ns(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-1", "0", "1h", "nan", "1e3"])
def test_a_timeout_that_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        query.timeout_ns(text)


# ---- asking ----------------------------------------------------------------------------------------------


def test_a_root_answers_with_plain_values(socket_dir: Path) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon, asking(daemon.endpoint) as asker:
        assert asker.ask("ping") == {"name": "demo/root", "role": "root"}
        document = asker.ask("status")
        assert [node["liveness"] for node in document["nodes"]] == ["ALIVE"] * 4


def test_a_leader_answers_the_same_question(socket_dir: Path) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as daemon, asking(daemon.endpoint) as asker:
        document = asker.ask("status")
        assert [node["node"] for node in document["nodes"]] == [f"{RACK1}/node1", f"{RACK1}/node2"]


def test_a_refusal_is_passed_on(socket_dir: Path) -> None:
    with (
        Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon,
        asking(daemon.endpoint) as asker,
        pytest.raises(Denied, match="no node 'demo/rack1/node9' is known"),
    ):
        asker.ask("explain", node="demo/rack1/node9")


def test_a_rack_that_is_not_there_is_denied_by_name(socket_dir: Path) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon, asking(daemon.endpoint) as asker:
        assert len(query.status(asker, ["rack1"])["nodes"]) == 2
        with pytest.raises(Denied, match="no rack 'rack7'; there is demo/rack1, demo/rack2"):
            query.status(asker, ["rack7"])


# ---- no answer -------------------------------------------------------------------------------------------


def test_a_socket_that_is_not_there_is_told_at_once_and_in_one_sentence(socket_dir: Path) -> None:
    target = Target(endpoint=f"ipc://{socket_dir}/root.sock", role="root", config=Path("etc/root.toml"))
    with Asker(target, BOUND_NS) as asker, pytest.raises(Unanswered) as caught:
        asker.ask("ping")
    assert str(caught.value) == (
        f"cannot reach root at ipc://{socket_dir}/root.sock: there is no such socket; "
        "is hbagent root running there? try: hbagent doctor --config etc/root.toml"
    )


def test_a_socket_that_was_left_behind_is_told_at_once(socket_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_dir / "q.sock"))
    with asking(f"ipc://{socket_dir}/q.sock") as asker, pytest.raises(Unanswered, match="nobody listens there"):
        asker.ask("ping")


def test_who_may_not_ask_is_told_who_may(socket_dir: Path) -> None:
    with Daemon(calm_root(), socket_dir, 100 * SECOND) as daemon:
        os.chmod(daemon.endpoint.removeprefix("ipc://"), 0)
        with without_rights():
            assert re.match("permission denied; it is open to its owner and", why_closed(daemon.endpoint))


def test_the_audience_of_a_socket_is_named_by_its_group(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    assert query.audience(str(written(tmp_path / "q.sock", ""))) == f"its owner and the group {group}"


def test_silence_is_told_after_the_timeout(socket_dir: Path) -> None:
    with answering(socket_dir, lambda query: ()) as endpoint, asking(endpoint, 50 * MILLISECOND) as asker:
        with pytest.raises(Unanswered) as caught:
            asker.ask("ping")
        assert str(caught.value) == (
            f"cannot reach {endpoint}: nobody answers within 50ms; "
            "is its hbagent root or leader running there? try: hbagent doctor"
        )


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(socket_dir: Path) -> None:
    asked: list[Query] = []

    def second_time(query: Query) -> Sequence[AnswerPage]:
        asked.append(query)
        if len(asked) == 1:
            return ()
        return [*answer_pages(asked[0].id, b'{"late": 1}'), *answer_pages(query.id, b'{"fresh": 1}')]

    with answering(socket_dir, second_time) as endpoint, asking(endpoint, 50 * MILLISECOND) as asker:
        with pytest.raises(Unanswered):
            asker.ask("ping")
        asker._timeout_ns = BOUND_NS
        assert asker.ask("ping") == {"fresh": 1}


@pytest.mark.parametrize(
    "pages",
    [
        lambda id: [AnswerPage(id=id, page=1, last=True, body=b"{}")],
        lambda id: [AnswerPage(id=id, page=0, last=True, body=b"{nonsense")],
        lambda id: [AnswerPage(id=id, page=0, last=True, body=b"[" * 5000)],
        lambda id: [AnswerPage(id=id, page=0, last=True, body=b'"\xff"')],
    ],
    ids=["a gap", "no JSON", "too deep", "no text"],
)
def test_an_answer_that_makes_no_sense_is_no_answer(
    socket_dir: Path, pages: Callable[[int], Sequence[AnswerPage]]
) -> None:
    with (
        answering(socket_dir, lambda query: pages(query.id)) as endpoint,
        asking(endpoint) as asker,
        pytest.raises(Unanswered, match="its answer cannot be read"),
    ):
        asker.ask("ping")


def test_an_answer_that_never_ends_is_given_up(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "ANSWER_TIME_MAX_NS", 100 * MILLISECOND)
    # It drips for as long as anybody waits.
    drip = (AnswerPage(id=1, page=at, last=False, body=b" ") for at in itertools.count())
    with (
        answering(socket_dir, lambda query: drip, pause_s=0.02) as endpoint,
        asking(endpoint) as asker,
        pytest.raises(Unanswered),
    ):
        asker.ask("ping")


def test_an_answer_that_is_no_object_is_no_status(socket_dir: Path) -> None:
    with (
        answering(socket_dir, lambda query: list(answer_pages(query.id, b"[1]"))) as endpoint,
        asking(endpoint) as asker,
        pytest.raises(Unanswered, match="is not an object"),
    ):
        query.status(asker)


# ---- helpers ---------------------------------------------------------------------------------------------


@contextmanager
def asking(endpoint: str, timeout: int = BOUND_NS) -> Iterator[Asker]:
    with Asker(Target(endpoint=endpoint), timeout) as asker:
        yield asker


@contextmanager
def answering(directory: Path, answer: Callable[[Query], Iterable[AnswerPage]], pause_s: float = 0.0) -> Iterator[str]:
    """Somebody on a query socket who answers as told, well or badly, a page each `pause_s`."""
    endpoint = f"ipc://{directory}/q.sock"
    context: Context = zmq.Context()
    router = query_router(context, endpoint)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            if not router.poll(20):
                continue
            asker, frame = router.recv_multipart()
            asked = codec.decode(frame)
            assert isinstance(asked, Query)
            for page in answer(asked):
                if ending.wait(pause_s) if pause_s else ending.is_set():
                    break
                # Whoever gave up is gone.
                with suppress(zmq.ZMQError):
                    router.send_multipart((asker, codec.encode(page)))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield endpoint
    finally:
        ending.set()
        thread.join()
        router.close()
        context.term()
