"""A failpoint that does not fire would make every crash test pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hbagent.store import failpoint
from hbagent.store.tables import TABLES

PASS_TWICE = "from hbagent.store import failpoint; failpoint.hit('journal-append-begin'); print('once', flush=True); \
failpoint.hit('journal-append-begin'); print('twice', flush=True)"


def run_with(setting: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", PASS_TWICE],
        env={**os.environ, "HBAGENT_FAILPOINT": setting},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return ended.returncode, ended.stdout


def test_the_process_ends_at_the_first_pass() -> None:
    assert run_with("journal-append-begin") == (failpoint.EXIT_STATUS, "")


def test_the_process_ends_at_the_counted_pass() -> None:
    assert run_with("journal-append-begin:2") == (failpoint.EXIT_STATUS, "once\n")


def test_nothing_happens_without_the_setting() -> None:
    assert run_with("") == (0, "once\ntwice\n")


def test_nothing_happens_at_another_point() -> None:
    assert run_with("journal-append-synced") == (0, "once\ntwice\n")


@pytest.mark.parametrize("text", ["no-such-point", "journal-append-begin:x", "journal-append-begin:-1", ":2"])
def test_a_setting_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HBAGENT_FAILPOINT"):
        failpoint.parse(text)


def test_every_name_in_the_code_is_a_point_and_every_point_is_in_the_code() -> None:
    store = Path(failpoint.__file__).parent
    code = "".join(path.read_text() for path in store.glob("*.py") if path.name != "failpoint.py")
    named = re.findall(r'failpoint\.hit\("([\w-]+)"\)', code)
    # One for each table.
    families = re.findall(r'failpoint\.hit\(f"([\w-]+)\{table\.name\}"\)', code)
    named += [f"{family}{table.name}" for family in families for table in TABLES]
    assert sorted(named) == sorted(failpoint.POINTS)
    assert code.count("failpoint.hit(") == len(failpoint.POINTS) - len(families) * (len(TABLES) - 1)
