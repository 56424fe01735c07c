"""`hbagent status` against a root, against a leader, and against nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hbagent.cli import main
from hbagent.core.states import Cause, Health, Liveness
from hbagent.core.units import SECOND
from tests.cli.answering import (
    LEADER1,
    LEADER2,
    RACK1,
    RACK2,
    Daemon,
    calm_root,
    dying,
    joined,
    leader_core,
    node_row,
    root_core,
    summary,
    tell,
)

NOW = 100 * SECOND


@pytest.fixture
def daemon(socket_dir: Path) -> Iterator[Daemon]:
    """A root of two racks of two nodes, all well."""
    with Daemon(calm_root(), socket_dir, NOW) as running:
        yield running


def status(daemon: Daemon, *options: str) -> int:
    return main(["status", "--socket", daemon.endpoint, *options])


def kill_node1(daemon: Daemon) -> None:
    daemon.tell(LEADER1, dying())


# ---- exit codes ------------------------------------------------------------------------------------------


def test_all_well_is_0(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(daemon) == 0
    out, err = capsys.readouterr()
    assert out.startswith("✓ OK: all 4 nodes ALIVE\n")
    assert err == ""


def test_a_dead_node_is_2_and_is_named_with_its_cause(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    kill_node1(daemon)
    assert status(daemon) == 2
    out = capsys.readouterr().out
    assert out.startswith("✗ CRITICAL: 1 of 4 nodes DEAD; 1 of 2 racks DEGRADED\n")
    assert [line.split()[:6] for line in out.splitlines() if line.startswith(f"{RACK1}/node1")] == [
        [f"{RACK1}/node1", "✗", "DEAD", "?", "UNKNOWN", "silence"]
    ]


def test_a_suspect_node_is_1(daemon: Daemon) -> None:
    suspected = dying()
    daemon.tell(LEADER1, type(suspected)(epoch=1, base=1, after=2, items=suspected.items[:1]))
    assert status(daemon) == 1


def test_a_warning_is_1_and_a_critical_is_2(daemon: Daemon) -> None:
    for exit_code, health in ((1, Health.WARNING), (2, Health.CRITICAL), (2, Health.DEADLOCKED), (1, Health.STALLED)):
        for _ in range(4):
            daemon.pass_time(daemon.now + SECOND)
            daemon.tell(LEADER1, summary(RACK1, node_row("node1", health=health, version=1), newest=2))
            daemon.tell(LEADER2, summary(RACK2, newest=2))
        assert status(daemon) == exit_code


def test_a_root_that_has_heard_nobody_is_3(socket_dir: Path) -> None:
    with Daemon(root_core(), socket_dir, NOW) as daemon:
        assert status(daemon) == 3


def test_a_lost_leader_makes_its_nodes_unknown_and_3(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(calm_root(), socket_dir, NOW) as daemon:
        for second in range(1, 21):
            daemon.pass_time(NOW + second * SECOND)
            daemon.tell(LEADER2, summary(RACK2, newest=2))
        assert status(daemon) == 3
    out = capsys.readouterr().out
    assert "2 of 4 nodes UNKNOWN; 1 of 2 racks LEADER-LOST; 1 of 2 leaders DEAD" in out
    assert f"! leader {LEADER1} is DEAD (leader-lost), last heard 20.0s ago" in out
    assert "(STALE)" in out


def test_a_root_that_hears_no_leader_at_all_says_so_of_itself_and_3(
    socket_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Daemon(calm_root(), socket_dir, NOW) as daemon:
        daemon.pass_time(NOW + 20 * SECOND)
        assert status(daemon) == 3
    out = capsys.readouterr().out
    assert "4 of 4 nodes UNKNOWN; 2 of 2 racks UNKNOWN; 2 of 2 leaders UNKNOWN" in out
    assert "! demo/root hears none of its leaders: it is cut off, or all of them are" in out
    assert "root-isolated" in out


def test_a_node_that_left_is_0(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    item = dying().items[0]
    left = type(item)(
        **{name: getattr(item, name) for name in item.__struct_fields__} | {"after": Liveness.LEFT, "cause": Cause.LEFT}
    )
    daemon.tell(LEADER1, type(dying())(epoch=1, base=1, after=2, items=(left,)))
    assert status(daemon) == 0
    assert "1 of 4 nodes LEFT" in capsys.readouterr().out


def test_nobody_there_is_3_with_one_sentence(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--socket", f"ipc://{socket_dir}/none.sock"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"hbagent: cannot reach ipc://{socket_dir}/none.sock: there is no such socket; ")
    assert err.count("\n") == 1


def test_nobody_there_is_a_whole_document_in_json(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-o", "json", "--socket", f"ipc://{socket_dir}/none.sock"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["root"] == {"reachable": False}
    assert (document["schema"], document["racks"], document["nodes"], document["incidents"]) == (1, [], [], [])


@pytest.mark.parametrize(
    "options",
    [["--state", "BROKEN"], ["-o", "yaml"], ["--rack", "rack9"], ["--timeout", "never"], ["--config", "none.toml"]],
)
def test_a_wrong_call_is_64(daemon: Daemon, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    where = [] if "--config" in options else ["--socket", daemon.endpoint]
    assert main(["status", *where, *options]) == 64
    assert capsys.readouterr().err


def test_socket_and_config_exclude_each_other(daemon: Daemon) -> None:
    assert status(daemon, "--config", "root.toml") == 64


# ---- forms -----------------------------------------------------------------------------------------------


def test_json_is_the_whole_answer(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    kill_node1(daemon)
    assert status(daemon, "-o", "json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    (incident,) = document["incidents"]
    assert (incident["state"], incident["rack"], incident["cause"]) == ("firing", RACK1, "silence")
    assert [rack["state"] for rack in document["racks"]] == ["DEGRADED", "OK"]
    assert document["racks"][0]["counts"] == {"ALIVE": 1, "SUSPECT": 0, "DEAD": 1, "LEFT": 0, "UNKNOWN": 0}
    dead, alive = document["nodes"][:2]
    assert (dead["liveness"], dead["cause"], dead["probes"]) == ("DEAD", "silence", [])
    assert (alive["liveness"], alive["cause"], alive["facts"]["cpu_percent"]) == ("ALIVE", None, 12.5)


def test_jsonl_and_name_have_a_line_for_each_node(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{rack}/{node}" for rack in (RACK1, RACK2) for node in ("node1", "node2")]
    assert status(daemon, "-o", "jsonl") == 0
    assert [json.loads(line)["node"] for line in capsys.readouterr().out.splitlines()] == names
    assert status(daemon, "-o", "name") == 0
    assert capsys.readouterr().out.splitlines() == names


def test_wide_tells_each_observer(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    kill_node1(daemon)
    assert status(daemon, "-o", "wide") == 2
    out = capsys.readouterr().out
    assert "rack1-leader1:DEAD/2.5s" in out
    assert f"{LEADER1} ALIVE 0ms up 1m40s lag 3ms outbox 0" in out


def test_a_rack_narrows_the_question_and_the_exit_code(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    kill_node1(daemon)
    assert status(daemon, "--rack", "rack2", "-o", "name") == 0
    assert capsys.readouterr().out.splitlines() == [f"{RACK2}/node1", f"{RACK2}/node2"]


def test_a_state_narrows_what_is_shown_and_not_the_exit_code(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_node1(daemon)
    assert status(daemon, "--state", "alive,suspect", "-o", "name") == 2
    assert capsys.readouterr().out.splitlines() == [f"{RACK1}/node2", f"{RACK2}/node1", f"{RACK2}/node2"]
    assert status(daemon, "--state", "ALIVE") == 2
    table = capsys.readouterr().out.partition("NODE")[2]
    assert table.count("ALIVE") == 3
    assert "DEAD" not in table


def test_a_leader_answers_when_the_root_is_gone(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(leader_core(), socket_dir, 3 * SECOND) as daemon:
        assert status(daemon) == 3
        out = capsys.readouterr().out
        assert "1 of 2 nodes UNKNOWN" in out
        assert f"leader {LEADER1} 1.0.0" in out


def test_a_pipe_gets_no_colour_unless_it_asks(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert status(daemon) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert status(daemon, "--color", "always") == 0
    assert capsys.readouterr().out.startswith("\x1b[32m✓ OK")


# ---- the process -----------------------------------------------------------------------------------------


def test_an_ascii_terminal_is_served_and_nothing_heavy_is_loaded(daemon: Daemon) -> None:
    program = (
        "import sys; from hbagent.cli import main; code = main(sys.argv[1:]);"
        " heavy = {'psutil', 'loguru', 'asyncio', 'sqlite3', 'ssl', 'difflib', 'hypothesis'} & set(sys.modules);"
        " print('heavy:', sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "--socket", daemon.endpoint],
        capture_output=True,
        timeout=20,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.stderr == b"heavy: []\n"
    assert done.returncode == 0
    assert done.stdout.startswith(b"+ OK: all 4 nodes ALIVE\n")


def test_a_daemon_that_ended_is_3(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Daemon(calm_root(), socket_dir, NOW) as daemon:
        assert status(daemon) == 0
    assert status(daemon) == 3
    assert "hbagent: cannot reach" in capsys.readouterr().err


def test_a_thousand_nodes_come_in_many_pages(socket_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    core = root_core()
    names = [f"node{at:04d}" for at in range(1000)]
    tell(core, LEADER2, summary(RACK2), NOW)
    tell(core, LEADER2, joined(RACK2, names), NOW)
    tell(core, LEADER2, summary(RACK2, *(node_row(name, version=at) for at, name in enumerate(names, 1))), NOW)
    with Daemon(core, socket_dir, NOW) as daemon:
        assert status(daemon, "--rack", RACK2, "-o", "json") == 0
    nodes: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["nodes"]
    assert len(nodes) == 1000
