"""What runs, what is skipped and what a skip means, shown by running pytest on a small suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Each runs a whole pytest.
pytestmark = [pytest.mark.slow, pytest.mark.paired]

HERE = Path(__file__).resolve().parent
SUITE = """
import socket, warnings
import pytest

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.e2e
def test_e2e(): pass

@pytest.mark.e2e
@pytest.mark.paired
def test_beside_another(figures):
    figures("F00", "what a worker measured")

@pytest.mark.needs("sh")
def test_with_a_shell(): pass

@pytest.mark.needs("sh", "no-such-program")
def test_with_a_program_that_is_missing(): pass

@pytest.mark.xfail(raises=UserWarning)
def test_a_warning_fails(): warnings.warn("careless")

def test_a_socket_below_socket_dir(socket_dir):
    (socket_dir / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_dir / "run" / "rack07-leader1-query.sock"))
"""


def run(directory: Path, *arguments: str, ci: bool) -> tuple[int, dict[str, int], str]:
    """Exit status, counts and output of pytest on the suite, under this project's conftest and settings."""
    (directory / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (directory / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-c", str(HERE.parent / "pyproject.toml"), "--rootdir", str(directory)]
    command += ["-p", "no:cacheprovider", "--basetemp", str(directory / "t"), str(directory / "test_it.py"), *arguments]
    environment = {**os.environ, "CI": "true" if ci else ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory, env=environment, timeout=50)
    last = done.stdout.strip().splitlines()[-1]
    return done.returncode, {word: int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", last)}, done.stdout


def test_a_missing_program_is_a_counted_skip_and_slow_tests_wait_to_be_asked_for(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    status, counts, output = run(deep, ci=False)
    assert (status, {**counts, "in": 0}) == (0, {"passed": 2, "skipped": 1, "deselected": 3, "xfailed": 1, "in": 0})
    assert "needs no-such-program (make deps)" in output
    assert "1 skipped: these things were not tested here" in output


def test_a_skip_fails_in_ci_and_slow_runs_all(tmp_path: Path) -> None:
    status, counts, output = run(tmp_path, "--slow", ci=True)
    assert status == 1
    assert (counts["passed"], counts["skipped"], "failed" in counts) == (5, 1, False)
    assert "1 skipped: a failure under CI=true" in output


def test_a_skip_in_a_worker_fails_as_well(tmp_path: Path) -> None:
    status, counts, output = run(tmp_path, "--slow", "--numprocesses", "2", ci=True)
    assert status == 1
    assert (counts["passed"], counts["skipped"], "failed" in counts) == (5, 1, False)
    assert output.count("F00    what a worker measured") == 1
    assert "1 skipped: a failure under CI=true" in output


def test_a_marker_expression_asks_for_slow_tests(tmp_path: Path) -> None:
    for expression, count in (("slow or e2e", 3), ("alone", 2), ("paired", 1)):
        status, counts, _ = run(tmp_path, "-m", expression, ci=True)
        assert (status, counts["passed"], counts["deselected"]) == (0, count, 7 - count)
