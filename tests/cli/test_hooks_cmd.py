"""`hbagent hooks`: what came of each hook, whether one works, and what was given up, asked of a real root."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hbagent.cli import main
from hbagent.cli.grid import Screen
from hbagent.cli.hooks_cmd import FAILED, LINES_SHOWN_MAX, dead_lines, hook_lines, trial_lines
from hbagent.core.effects import RunHook
from hbagent.core.messages import HookFinished
from hbagent.core.records import Batch, HookRun, RunState, Trouble
from hbagent.core.root import RootCore
from hbagent.core.states import Axis, Kind
from hbagent.core.units import MILLISECOND
from hbagent.store.sqlite import SqliteHistory
from tests.cli.answering import WALL_NS, Daemon

NOW = "2026-11-21T12:00:05.000Z"
PLAIN = Screen()
NARROW = Screen(width=60)
HOSTILE = "a\x1b[31mb\nc\u202ed"


def call(daemon: Daemon, *words: str) -> int:
    return main(["hooks", *words, "--socket", daemon.endpoint])


def answer(order: RunHook, exit_code: int = 0, output: bytes = b"") -> HookFinished:
    error = f"exit {exit_code}" if exit_code else ""
    return HookFinished(
        run_id=order.run_id, exit_code=exit_code, error=error, duration_ns=7 * MILLISECOND, output=output
    )


# ---- list ------------------------------------------------------------------------------------------------


def test_each_hook_is_listed(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(paging, "list") == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["HOOK", "LAST", "WAITING", "RUNNING", "DONE", "FAILED", "DEAD", "AT", "SAID"]
    assert line.split() == ["page", "-", "0", "0", "0", "0", "0", "-"]
    assert call(paging, "list", "-o", "name") == 0
    assert capsys.readouterr().out == "page\n"
    assert call(paging, "list", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["hooks"][0]["hook"], document["hooks"][0]["last"]) == (1, "page", None)
    assert call(paging, "list", "-o", "jsonl") == 0
    assert json.loads(capsys.readouterr().out)["command"] == ["/bin/true"]


def hook(**fields: object) -> dict[str, object]:
    last = {"at": "2026-11-21T12:00:03.250Z", "event_id": "e-1", "error": "", "output": "sent\n", "took_ms": 5.0}
    return {"hook": "page", "waiting": 1, "running": 2, "done": 3, "failed": 4, "dead": 5, "last": last, **fields}


def test_a_hook_is_shown_with_what_it_said_last() -> None:
    _, line = hook_lines({"hooks": [hook()]}, NOW, "table", PLAIN)
    assert line.split() == ["page", "✓", "ok", "1", "2", "3", "4", "5", "12:00:03Z", "sent"]
    failed = hook(last={"at": NOW, "error": "exit 1: no route", "output": "no route"}, configured=False)
    _, line = hook_lines({"hooks": [failed]}, NOW, "table", Screen(unicode=False))
    assert line.startswith("page (not in the config)  x failed")
    assert line.endswith("exit 1: no route")
    assert hook_lines({"hooks": []}, NOW, "table", PLAIN) == ["no hook is configured"]


def test_a_narrow_screen_keeps_the_hook_and_whether_it_works() -> None:
    lines = hook_lines({"hooks": [hook(last={"at": NOW, "error": "exit 1: " + "x" * 300})]}, NOW, "table", NARROW)
    assert all(len(line) <= 60 for line in lines)
    assert "✗ failed" in lines[1]


def test_hostile_text_is_escaped_everywhere() -> None:
    last = {"at": HOSTILE, "error": HOSTILE, "output": HOSTILE}
    letter = dict.fromkeys(("run_id", "receiver", "at", "kind", "subject", "error"), HOSTILE)
    document = {"hook": HOSTILE, "error": HOSTILE, "output": HOSTILE, "sent": {"kind": HOSTILE}}
    shown = [
        *hook_lines({"hooks": [hook(hook=HOSTILE, last=last)]}, NOW, "table", PLAIN),
        *hook_lines({"hooks": [hook(hook=HOSTILE)]}, NOW, "name", PLAIN),
        *hook_lines({"hooks": [hook(hook=HOSTILE)]}, NOW, "jsonl", PLAIN),
        *dead_lines({"dead_letters": [letter]}, NOW, "table", PLAIN),
        *dead_lines({"dead_letters": [letter]}, NOW, "name", PLAIN),
        *trial_lines(document, PLAIN),
    ]
    assert len(shown) >= 8
    assert all(line.isprintable() for line in shown)


# ---- test ------------------------------------------------------------------------------------------------


def test_a_hook_that_works_is_tried_with_a_marked_sample(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    ordered: list[RunHook] = []

    def ran(order: RunHook) -> HookFinished:
        ordered.append(order)
        return answer(order, 0, b"sent to three\n")

    paging.hook = ran
    assert call(paging, "test", "page", "--kind", "rack-dark") == 0
    assert capsys.readouterr().out == "✓ ok  page: a test of kind rack-dark took 7ms\n  sent to three\n"
    document = msgspec.json.decode(ordered[0].input)
    assert (document["kind"], document["test"]) == ("rack-dark", True)
    assert ordered[0].argv == ("/bin/true",)
    assert call(paging, "list", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["hooks"][0]["done"] == 0, "a test is no run"


def test_a_hook_that_fails_its_test_is_told_by_the_exit_code(
    paging: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    paging.hook = lambda order: answer(order, 3, b"no route\n")
    assert call(paging, "test", "page") == FAILED
    assert capsys.readouterr().out.splitlines() == [
        "✗ failed  page: a test of kind node-dead took 7ms: exit 3",
        "  no route",
    ]
    assert call(paging, "test", "page", "-o", "json") == FAILED
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["error"], document["output"]) == (False, "exit 3", "no route\n")


def test_a_hook_that_does_not_exist_is_told_with_those_that_do(
    paging: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(paging, "test", "pager") == 64
    assert "there are: page" in capsys.readouterr().err
    assert call(paging, "test", "page", "--kind", "no-kind") == 64
    assert "node-dead" in capsys.readouterr().err


def test_a_long_output_is_cut_on_a_terminal() -> None:
    lines = trial_lines({"ok": True, "hook": "h", "sent": {}, "output": "x\n" * 500}, PLAIN)
    assert len(lines) == 2 + LINES_SHOWN_MAX
    assert "-o json" in lines[-1]


def root_file(directory: Path, *hooks: str) -> Path:
    """A config of a root with these lines of hooks."""
    text = (
        '[root]\nname = "dc1/root"\npublish = "tcp://127.0.0.1:5711"\ncontrol = "tcp://127.0.0.1:5712"\n'
        '[security]\nplain = true\n[[rack]]\nname = "dc1/rack1"\nleaders = ["dc1/rack1-leader1"]\n'
    )
    path = directory / "root.toml"
    path.write_text("\n".join([text, *hooks]))
    return path


def here(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for it ends all of its children."""
    command = [sys.executable, "-m", "hbagent", "hooks", "test", *words, "--local"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, FAILED)])
def test_without_a_root_a_hook_is_tried_from_here(tmp_path: Path, status: int, code: int) -> None:
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\ncat; echo; echo $HBAGENT_KIND; exit {status}\n")
    script.chmod(0o755)
    config = root_file(tmp_path, f'[[hook]]\nname = "page"\ncommand = ["{script}"]')
    done = here("page", "--config", str(config), "--kind", "leader-lost", "-o", "json")
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert (document["ok"], document["exit_code"]) == (not status, status)
    sent, _, kind = document["output"].strip().partition("\n")
    assert (json.loads(sent)["test"], kind) == (True, "leader-lost")


@pytest.mark.slow
@pytest.mark.paired
def test_from_here_a_hook_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    done = here("pager", "--config", str(root_file(tmp_path)))
    assert (done.returncode, "no hook 'pager'; there are: none" in done.stderr) == (64, True)


# ---- what was given up -----------------------------------------------------------------------------------


@pytest.fixture
def letters(paging: Daemon, tmp_path: Path) -> SqliteHistory:
    """The history of that root, with two runs that were given up and one that was not."""
    history = paging._history
    assert isinstance(history, SqliteHistory)
    runs = [
        HookRun(
            run_id=f"e-{number}-page",
            event_id=f"e-{number}",
            hook="page",
            node=f"demo/rack1/node{number}",
            subject=f"demo/rack1/node{number}",
            state=state,
            attempt=5,
            error="exit 1: no route",
            kind=Kind.NODE_DEAD,
            at_wall_ns=WALL_NS,
            queued=900 + number,
            input=b'{"attempt":0}',
        )
        for number, state in ((1, RunState.DEAD), (2, RunState.DEAD), (3, RunState.DONE))
    ]
    history.commit(Batch(runs=tuple(runs)))
    return history


@pytest.mark.usefixtures("letters")
def test_what_was_given_up_is_listed(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(paging, "dead") == 0
    header, second, first = capsys.readouterr().out.splitlines()
    assert header.split() == ["RUN", "HOOK", "AT", "KIND", "ABOUT", "TRIED", "ERROR"]
    assert first.split()[:2] == ["e-1-page", "page"]
    assert first.endswith("node-dead  demo/rack1/node1      5  exit 1: no route")
    assert second.startswith("e-2-page")
    assert call(paging, "dead", "-o", "name", "--limit", "1") == 0
    assert capsys.readouterr().out == "e-2-page\n"
    assert call(paging, "dead", "-o", "json") == 0
    assert [letter["run_id"] for letter in json.loads(capsys.readouterr().out)["dead_letters"]] == [
        "e-2-page",
        "e-1-page",
    ]


@pytest.mark.usefixtures("letters")
def test_one_or_all_of_them_are_owed_again(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(paging, "retry", "e-1-page") == 0
    assert capsys.readouterr().out == "owed again: e-1-page\n"
    assert call(paging, "dead", "-o", "name") == 0
    assert capsys.readouterr().out == "e-2-page\n"
    assert call(paging, "retry", "--all") == 0
    told = capsys.readouterr().out
    assert (
        told == "not told again, for what they tell of has passed: 1 (hbagent hooks retry RUN tells one all the same)\n"
    )
    assert isinstance(paging.core, RootCore)
    paging.core.alerts.troubles["demo/rack1/node2", Axis.LIVENESS] = Trouble(
        subject="demo/rack1/node2",
        axis=Axis.LIVENESS,
        rack="demo/rack1",
        incident="",
        kind=Kind.NODE_DEAD,
        event_id="e-2",
    )
    assert call(paging, "retry", "--all") == 0
    assert capsys.readouterr().out == "owed again: e-2-page\n"
    assert call(paging, "retry", "--all") == 0
    assert call(paging, "dead") == 0
    assert capsys.readouterr().out == "nothing was given up\nnothing was given up\n"
    assert call(paging, "retry", "e-3-page") == 64
    assert "no run 'e-3-page' was given up" in capsys.readouterr().err


def test_whom_to_try_again_must_be_said(paging: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(paging, "retry") == 64
    assert "--all" in capsys.readouterr().err
