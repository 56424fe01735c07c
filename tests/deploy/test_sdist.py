"""From the source distribution everything can be built, and the wheel is all that a bare environment needs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hbagent import __version__
from tests.deploy.tree import DIRECTORIES, ROOT, copy_of_the_tree

pytestmark = [pytest.mark.slow, pytest.mark.paired, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist of a copy of the tree, and the wheel that is built of that sdist alone."""
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree"))
    target = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", target, cwd=tree)
    (sdist,) = target.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", target, sdist, cwd=target)
    return target


def test_the_source_holds_all_that_packages_are_made_of(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for directory in DIRECTORIES:
        tracked = run("git", "ls-files", directory, cwd=ROOT).split()
        present = [name for name in tracked if (ROOT / name).exists()]
        assert present and [name for name in present if name not in names] == []
    assert {"LICENSE", "Makefile", "README.md", "constraints.txt", "constraints-dev.txt", "pyproject.toml"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "dist"))]


def test_the_wheel_holds_the_program_its_licence_and_the_hooks_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    # The last are the hooks, which an installation puts into share/hbagent/hooks.d.
    here = f"hbagent-{__version__}"
    assert {name.partition("/")[0] for name in names} == {"hbagent", f"{here}.dist-info", f"{here}.data"}
    assert f"{here}.dist-info/licenses/LICENSE" in names
    data = {str(file.relative_to(ROOT)) for file in (ROOT / "hbagent").rglob("*") if file.is_file()}
    assert {name for name in data if "__pycache__" not in name} <= set(names)


def test_the_wheel_runs_in_a_bare_environment_without_a_network(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    wheels = tmp_path / "wheels"
    pip = (sys.executable, "-m", "pip", "--quiet")
    pins = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", ROOT / "constraints.txt")
    run(*pip, "download", *pins, "-d", wheels, cwd=tmp_path)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare", cwd=tmp_path)
    install = (*pip, "--python", tmp_path / "bare", "install", "--no-index", "--find-links", wheels, wheel)
    run(*install, cwd=tmp_path)
    assert run(tmp_path / "bare/bin/hbagent", "--version", cwd=tmp_path).split() == ["hbagent", __version__]
    assert "check_hbagent" in run(tmp_path / "bare/bin/check_hbagent", "--help", cwd=tmp_path)
    # Every command is there with what it needs.
    assert "agent" in run(tmp_path / "bare/bin/hbagent", "completion", "bash", cwd=tmp_path)
