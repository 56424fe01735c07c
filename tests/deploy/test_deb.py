"""The Debian package holds what it should and nothing that tells where it was built; on a host it is tried elsewhere.

Installing, upgrading and purging it: tests/hosts/test_packages.py.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hbagent import __version__
from tests.deploy.tree import ROOT, copy_of_the_tree, tool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.paired,
    pytest.mark.needs("dpkg-deb", "/usr/bin/python3"),
    pytest.mark.timeout(300),
]


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    first = copy_of_the_tree(tmp_path_factory.mktemp("first"))
    return first, Path(shutil.copytree(first, tmp_path_factory.mktemp("second") / "somewhere-else"))


@pytest.fixture(scope="module")
def package(trees: tuple[Path, Path]) -> Path:
    return trees[0] / tool(trees[0], "deb", "dist")


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--raw-extract", package, to)
    return to


def test_the_same_tree_makes_the_same_package_anywhere(package: Path, trees: tuple[Path, Path]) -> None:
    again = trees[1] / tool(trees[1], "deb", "dist")
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(package.read_bytes()).digest()


def test_nothing_in_it_tells_where_it_was_built(trees: tuple[Path, Path], unpacked: Path) -> None:
    traces = [str(trees[0]).encode(), str(ROOT).encode(), b"/tmp/tmp"]
    found = [
        str(file.relative_to(unpacked))
        for file in unpacked.rglob("*")
        if file.is_file() and not file.is_symlink() and any(trace in file.read_bytes() for trace in traces)
    ]
    assert found == []


def test_it_asks_for_the_python_whose_bytecode_it_holds(unpacked: Path) -> None:
    control = (unpacked / "DEBIAN/control").read_text()
    asked = re.search(r"python3 \(>= 3\.(\d+)\), python3 \(<< 3\.(\d+)\)", control)
    assert asked and int(asked[2]) == int(asked[1]) + 1
    release = unpacked / "opt/hbagent/package" / __version__
    assert (release / "bin/python").readlink() == Path(f"/usr/bin/python3.{asked[1]}")
    sources = set(release.rglob("*.py"))
    compiled = {file.parent.parent / f"{file.name.partition('.')[0]}.py" for file in release.rglob("*.pyc")}
    assert sources and sources - compiled == set()
    assert {file.name.split(".")[-2] for file in release.rglob("*.pyc")} == {f"cpython-3{asked[1]}"}


def test_a_script_names_its_release_and_not_what_is_current(unpacked: Path) -> None:
    for name in ("hbagent", "check_hbagent"):
        first = (unpacked / "opt/hbagent/package" / __version__ / "bin" / name).read_text().splitlines()[0]
        assert first == f"#!/opt/hbagent/releases/{__version__}/bin/python"


def test_units_groups_pages_and_examples_are_those_of_the_tree(trees: tuple[Path, Path], unpacked: Path) -> None:
    for file in (trees[0] / "deploy").glob("hbagent-*.s*"):
        assert (unpacked / "usr/lib/systemd/system" / file.name).read_bytes() == file.read_bytes()
    sysusers = (unpacked / "usr/lib/sysusers.d/hbagent.conf").read_bytes()
    assert sysusers == (trees[0] / "deploy/hbagent.sysusers").read_bytes()
    pages = {file.name.removesuffix(".gz") for file in unpacked.glob("usr/share/man/man*/*")}
    assert pages == {file.name for file in (trees[0] / "deploy/man").iterdir()}
    examples = {file.name for file in (unpacked / "usr/share/doc/hbagent/examples").iterdir()}
    assert {"agent.toml", "leader.toml", "root.toml", "nftables.conf", "nginx.conf"} <= examples
    assert "_hbagent" in (unpacked / "usr/share/bash-completion/completions/hbagent").read_text()


def test_what_an_administrator_may_change_is_left_alone_by_upgrades(trees: tuple[Path, Path], unpacked: Path) -> None:
    conffiles = (unpacked / "DEBIAN/conffiles").read_text().split()
    assert conffiles == sorted(f"/etc/hbagent/hooks.d/{file.name}" for file in (trees[0] / "etc/hooks.d").iterdir())


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_a_maintainer_script_is_plain_shell_and_stops_at_an_error(unpacked: Path, name: str) -> None:
    script = unpacked / "DEBIAN" / name
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh" and "set -e" in lines
    assert "@" not in script.read_text().replace('"$@"', "")
    run("dash", "-n", script)


@pytest.mark.needs("lintian")
def test_lintian_has_nothing_to_say_that_is_not_explained(package: Path) -> None:
    assert run("lintian", "--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning", package) == ""
