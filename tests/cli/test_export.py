"""`hbagent events export` and `hbagent backup`: the history for whoever keeps it elsewhere."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import EXIT_UNAVAILABLE, EXIT_USAGE, export, main
from hbagent.core.messages import Evidence
from hbagent.core.records import Batch
from hbagent.core.units import DAY, HOUR, MINUTE, SECOND
from hbagent.store.sqlite import SqliteHistory
from tests.store.samples import event, restore

CONFIG = """
[root]
name = "dc1/root"
publish = "tcp://127.0.0.1:5711"
control = "tcp://127.0.0.1:5712"
state_dir = "{directory}"
{store}
[security]
plain = true
[[rack]]
name = "dc1/rack1"
leaders = ["dc1/rack1-leader1"]
"""
#: 2026-11-21T00:00:00Z
DAY_NS = 1_795_219_200 * SECOND


def write_config(directory: Path, store: str = "") -> Path:
    file = directory / "root.toml"
    file.write_text(CONFIG.format(directory=directory, store=store))
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[SqliteHistory]:
    history = SqliteHistory(tmp_path / "history.sqlite")
    history.commit(Batch(events=tuple(event(n, at_wall_ns=DAY_NS + n * HOUR, notices=0) for n in range(1, 6))))
    yield history
    history.close()


def test_events_come_oldest_first_in_the_form_of_a_hooks_input(
    config: Path, history: SqliteHistory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["events", "export", "--config", str(config)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["at"] == "2026-11-21T01:00:00.000Z"
    assert rows[0]["liveness"] == {"from": "SUSPECT", "to": "DEAD"}


def test_events_of_a_time_are_chosen(config: Path, history: SqliteHistory, capsys: pytest.CaptureFixture[str]) -> None:
    times = ["--since", "2026-11-21T02:00", "--until", "2026-11-21T04:00:00Z"]
    assert main(["events", "export", "--config", str(config), *times, "-o", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["sequence"], row["at"]) for row in rows] == [
        ("2", "2026-11-21T02:00:00.000Z"),
        ("3", "2026-11-21T03:00:00.000Z"),
    ]
    assert (rows[0]["kind"], rows[0]["liveness_to"], rows[0]["text"]) == ("node-dead", "DEAD", "silent for 2.5s")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_a_node_says_is_obeyed_by_nobody(
    config: Path, history: SqliteHistory, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    for number, text in enumerate(["=cmd|' /C calc'!A0", "\x1b[2J\x07", 'a"b,c\nd', "@x" + "y" * 10_000], 10):
        history.commit(Batch(events=(event(number, evidence=Evidence(text=text), notices=0),)))
    assert main(["events", "export", "--config", str(config), "-o", form]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(line.isprintable() for line in out.splitlines())
    if form == "csv":
        texts = [row["text"] for row in csv.DictReader(io.StringIO(out))][5:]
        assert texts[0].startswith("'=cmd")
        assert texts[3].startswith("'@x")
        assert texts[2] == 'a"b,c\\x0ad'


def test_nothing_is_written_for_a_mistake(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["events", "export", "--config", str(config)]) == EXIT_UNAVAILABLE
    assert "history.sqlite: No such file" in capsys.readouterr().err
    assert main(["events", "export", "--config", str(tmp_path / "none.toml")]) == EXIT_USAGE
    assert main(["events", "export", "--config", str(config), "--since", "tomorrow"]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "neither a time as 2026-11-30T18:00 nor how long ago" in err
    monkeypatch.setenv("HBAGENT_CONFIG", str(config))
    assert main(["events", "export"]) == EXIT_UNAVAILABLE


def test_a_time_may_be_how_long_ago() -> None:
    assert abs(export.moment("2d") - (export.moment("1s") + SECOND - 2 * DAY)) < MINUTE
    assert export.moment("2026-11-21") == DAY_NS
    assert export.moment("2026-11-21T01:00:00.250+01:00") == DAY_NS + SECOND // 4


def test_a_password_is_not_told_when_the_server_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"postgresql://u:hidden@/x?host={tmp_path}"
    config = write_config(tmp_path, f'store = "{address}"')
    config.chmod(0o600)
    assert main(["events", "export", "--config", str(config)]) == EXIT_UNAVAILABLE
    assert main(["backup", "--config", str(config), str(tmp_path / "copy")]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert "hidden" not in out + err
    assert "pg_dump" in err


@pytest.mark.slow
@pytest.mark.paired
def test_a_hundred_thousand_events_go_through_a_few_megabytes(config: Path, history: SqliteHistory) -> None:
    for begin in range(10, 100_000, 5_000):
        history.commit(Batch(events=tuple(event(n, notices=0) for n in range(begin, begin + 5_000))))
    # Not ru_maxrss, which begins with that of the process it was forked off.
    code = "import sys; from hbagent.cli import main; main(sys.argv[1:]); " + (
        "print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM:')), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "events", "export", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.count("\n") > 99_000
    assert int(ended.stderr.split()[1]) < 80_000, "KiB"


# ---- backup ----------------------------------------------------------------------------------------------------


def test_a_backup_says_what_is_in_it(
    config: Path, tmp_path: Path, history: SqliteHistory, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.sqlite"
    assert main(["backup", "--config", str(config), str(copy)]) == 0
    told = "copy.sqlite: 5 events, the newest of 2026-11-21T05:00:00.000Z; 10 rows, looked through\n"
    assert capsys.readouterr().out.endswith(told)
    assert restore(copy).newest_sequence == 5
    assert main(["backup", "--config", str(config), str(copy)]) == EXIT_UNAVAILABLE
    assert "something already" in capsys.readouterr().err


def test_a_backup_in_which_something_is_wrong_is_a_warning(
    config: Path, tmp_path: Path, history: SqliteHistory, capsys: pytest.CaptureFixture[str]
) -> None:
    history.commit(Batch(events=(event(9, notices=1),)))
    assert main(["backup", "--config", str(config), str(tmp_path / "copy")]) == 1
    assert "event-9 (node-dead) has 1 notices and 0 rows" in capsys.readouterr().err
