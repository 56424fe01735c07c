"""The one-file program is the same whoever makes it, runs wherever its Python is, and brings its own children along."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.tree import ROOT, copy_of_the_tree, tool

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [pytest.mark.slow, pytest.mark.paired, pytest.mark.timeout(120)]


def make(tree: Path) -> Path:
    tool(tree, "pyz", "dist/hbagent.pyz")
    return tree / "dist" / "hbagent.pyz"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    first = copy_of_the_tree(tmp_path_factory.mktemp("first"))
    return first, Path(shutil.copytree(first, tmp_path_factory.mktemp("second") / "somewhere-else"))


@pytest.fixture(scope="module")
def made(trees: tuple[Path, Path]) -> Path:
    return make(trees[0])


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """Run a copy of it that lies somewhere else, in an environment without anything of this tree."""
    copy = tmp_path / "elsewhere" / "hbagent.pyz"
    copy.parent.mkdir()
    shutil.copy(made, copy)
    environment = {"PATH": f"{Path(sys.base_prefix, 'bin')}:/usr/bin:/bin", "SHIV_ROOT": str(tmp_path / "unpacked")}

    def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [copy, *words], cwd="/", env={**environment, **more}, capture_output=True, text=True, timeout=60
        )

    return call


def test_the_same_tree_makes_the_same_file_anywhere(made: Path, trees: tuple[Path, Path]) -> None:
    assert hashlib.sha256(make(trees[1]).read_bytes()).digest() == hashlib.sha256(made.read_bytes()).digest()


def test_it_says_its_version_and_reads_a_config_file(run: Run, tmp_path: Path) -> None:
    version = run("--version")
    assert (version.returncode, version.stdout.split()[0]) == (0, "hbagent")
    wrong = tmp_path / "agent.toml"
    wrong.write_text('[agent]\nname = "dc1/rack07/host12"\nintervall = "1s"\n')
    found = run("check-config", str(wrong))
    assert found.returncode == 64
    assert "intervall" in found.stdout + found.stderr


def test_a_whole_datacenter_runs_from_it(run: Run, socket_dir: Path) -> None:
    demo = run("demo", "--racks", "1", "--nodes", "2", "--for", "8", "--dir", str(socket_dir / "demo"), "-o", "json")
    assert demo.returncode == 0, demo.stderr
    status = json.loads(demo.stdout[demo.stdout.index("{") :])
    # Both were heard. On a machine that stands still for a moment one may be late just then.
    assert len(status["nodes"]) == 2
    assert {node["liveness"] for node in status["nodes"]} <= {"ALIVE", "SUSPECT"}


def test_its_children_run_on_the_interpreter_that_knows_the_packages(run: Run, tmp_path: Path) -> None:
    assert run("--version").returncode == 0
    (home,) = (path for path in (tmp_path / "unpacked").iterdir() if path.is_dir())
    child = "import hbagent, sys; print(hbagent.__file__, 'shiv' in sys.modules, '_hashlib' in sys.modules)"
    python = home / "bin" / "python"
    done = subprocess.run([python, "-c", child], cwd="/", env={}, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == [f"{home}/lib/{home_python()}/site-packages/hbagent/__init__.py", "False", "False"]
    assert list(home.glob("site-packages/hbagent/__pycache__/*.pyc"))


def home_python() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def test_another_python_is_told_which_one_it_is_for(tmp_path: Path) -> None:
    # As another minor version would see it: the file says for whom it was made in one line.
    start = (ROOT / "tools" / "pyz_start.py").read_text()
    other = tmp_path / "start.py"
    line = next(line for line in start.splitlines() if line.startswith("MADE_FOR"))
    other.write_text(start.replace(line, f"MADE_FOR = ((2, 7), {os.uname().machine!r})\nsite_packages = 'none'"))
    done = subprocess.run([sys.executable, other], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "made for Python 2.7" in done.stderr and f"this is Python {home_python()[6:]}" in done.stderr
