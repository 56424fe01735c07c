"""Releases on a host's disk: which count as complete, which wait aside, and which are taken away."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from tests.ansible.plugins import host_module, running_from

release = host_module("release")
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
OTHER = "lib/python3.2/site-packages"


class Refused(Exception):
    """The module failed; the text is what it says."""


class Module:
    """What is asked of the module that Ansible makes."""

    def __init__(self, **params: Any) -> None:
        self.check_mode = False
        self.params = {"digest": "", "packages": [], "python": sys.executable, **params}
        self.tmpdir = str(params.get("prefix"))

    def fail_json(self, msg: str) -> NoReturn:
        """As Ansible's, it does not return."""
        raise Refused(msg)


def host(prefix: Path, version: str = "4", **params: Any) -> Any:
    """The module's view of the releases below a prefix."""
    return release.Host(Module(prefix=str(prefix), version=version, **params))


def put(prefix: Path, name: str, *, used: float = 0.0, site: str = SITE, **mark: Any) -> Path:
    """A release on the disk, in use until `used`."""
    directory = prefix / "releases" / name
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/python").symlink_to(sys.executable)
    (directory / site / "hbagent").mkdir(parents=True)
    (directory / "complete.json").write_text(json.dumps({"version": name, **mark}))
    os.utime(directory, (used, used))
    return directory


def choose(prefix: Path, version: str, keep: int = 2) -> list[str]:
    """Make a release the one in use as the module does; what is there afterwards."""
    there = host(prefix, version)
    there.choose()
    there.prune(keep)
    return sorted(os.listdir(prefix / "releases"))


def test_a_release_whose_python_became_another_is_not_complete(tmp_path: Path) -> None:
    put(tmp_path, "4")
    assert host(tmp_path).complete() == ["4"]
    (tmp_path / "releases/4" / SITE).parent.rename(tmp_path / "releases/4/lib/python3.2")
    assert host(tmp_path).complete() == []


def test_a_release_whose_python_is_gone_or_of_another_machine_is_not_complete(tmp_path: Path) -> None:
    put(tmp_path, "3", machine=platform.machine())
    put(tmp_path, "2", machine="pdp11")
    (put(tmp_path, "1") / "bin/python").unlink()
    assert host(tmp_path).complete() == ["3"]


def test_another_python_is_asked_for_and_the_release_is_made_anew(tmp_path: Path) -> None:
    there = str(put(tmp_path, "4", digest="aa", python="/usr/bin/python3"))
    assert host(tmp_path, digest="aa").wanted(there), "the same interpreter by another name"
    assert host(tmp_path, digest="aa", python="/usr/bin/python3").wanted(there)
    assert not host(tmp_path, digest="aa", python="/opt/python/bin/python3").wanted(there)
    assert not host(tmp_path, digest="bb").wanted(there), "other files"
    assert host(tmp_path, digest="", python="/opt/python/bin/python3").wanted(there), "no wheels to make it with"


def test_a_release_is_made_anew_when_the_wheelhouse_has_more_for_it(tmp_path: Path) -> None:
    there = put(tmp_path, "4", digest="aa", python=sys.executable)
    fuller = host(tmp_path, digest="aa", packages=["psycopg-binary"])
    assert not fuller.wanted(str(there))
    (there / SITE / "psycopg_binary-3.3.9.dist-info").mkdir()
    assert fuller.wanted(str(there))


def test_what_was_in_use_last_stays(tmp_path: Path) -> None:
    # 2 and 3 were bad; it went back to 1 each time.
    put(tmp_path, "1", used=1)
    put(tmp_path, "2", used=2)
    put(tmp_path, "3", used=3)
    put(tmp_path, "4", used=4)
    (tmp_path / "current").symlink_to("releases/1")
    assert choose(tmp_path, "4") == ["1", "3", "4"]
    # For the next daemon of this host: nothing is left of which release was before.
    assert choose(tmp_path, "4") == ["1", "3", "4"]
    assert choose(tmp_path, "4", keep=1) == ["1", "4"]


def test_what_a_process_runs_from_stays(tmp_path: Path) -> None:
    oldest = put(tmp_path, "1", used=1)
    for number in (2, 3, 4):
        put(tmp_path, str(number), used=number)
    (tmp_path / "current").symlink_to("releases/3")
    with running_from(oldest / "bin"):
        assert choose(tmp_path, "4", keep=0) == ["1", "3", "4"]
    assert choose(tmp_path, "4", keep=0) == ["4"]


def test_a_release_that_lost_its_place_is_put_back(tmp_path: Path) -> None:
    put(tmp_path, ".4.old")
    (tmp_path / "current").symlink_to("releases/4")
    there = host(tmp_path)
    there.recover()
    assert there.complete() == ["4"]
    there.recover()
    assert there.changes == ["put 4 back"]


@pytest.mark.parametrize("in_one_step", [True, False])
def test_another_release_of_the_same_name_takes_its_place_in_one_step_where_that_can_be(
    tmp_path: Path, in_one_step: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "4", digest="old")
    put(tmp_path, ".4.draft", digest="new")
    (tmp_path / "current").symlink_to("releases/4")
    there = host(tmp_path)
    seen = []

    def looked(one: str, other: str) -> None:
        os.rename(one, other)
        mark = there.mark("4")
        seen.append(mark and mark["digest"])

    def traded(one: str, other: str) -> bool:
        if not in_one_step:
            return False
        for source, target in ((one, f"{one}.x"), (other, one), (f"{one}.x", other)):
            os.rename(source, target)
        return True

    monkeypatch.setattr(release, "exchange", traded)
    monkeypatch.setattr(release, "os", SimpleNamespace(**{**vars(os), "rename": looked}))
    there.place()
    # A power cut at the None is what `recover` is for.
    assert seen == (["new"] if in_one_step else [None, "new"])
    assert os.listdir(tmp_path / "releases") == ["4"]


def test_two_directories_trade_their_names_or_stay_as_they_are(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
        (directory / directory.name).touch()
    traded = release.exchange(str(one), str(other))
    assert [path.name for path in (*one.iterdir(), *other.iterdir())] == (
        ["other", "one"] if traded else ["one", "other"]
    )
    assert not release.exchange(str(one), str(tmp_path / "none")) and one.is_dir()


def test_the_same_version_with_other_files_waits_while_something_lives_by_those_that_are_there(tmp_path: Path) -> None:
    directory = put(tmp_path, "4")
    assert not host(tmp_path).serves()
    with running_from(directory / "bin"):
        assert host(tmp_path).serves()
    (tmp_path / "current").symlink_to("releases/4")
    assert host(tmp_path).serves()
    put(tmp_path, ".4.draft", digest="new")
    there = host(tmp_path, digest="new")
    assert there.wanted(there.draft) and not there.wanted(there.directory)
    there.place()
    assert there.wanted(there.directory)
    assert os.listdir(tmp_path / "releases") == ["4"]


@pytest.mark.parametrize("broken", ["a wheel that is not pinned", "a disk that is full"])
def test_an_install_that_fails_leaves_the_release_in_use_as_it_is(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = put(tmp_path, "4", digest="old")
    (tmp_path / "current").symlink_to("releases/4")
    others = ["loguru-1"] if broken == "a wheel that is not pinned" else []
    there, archive = _wheels(tmp_path, ["hbagent/__init__.py"], *others)
    if broken == "a disk that is full":
        monkeypatch.setattr(release.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    before = sorted(directory.rglob("*"))
    with pytest.raises(Refused, match=r"not the file that constraints\.txt pins|MiB left"):
        there.install(archive)
    assert sorted(directory.rglob("*")) == before
    assert os.listdir(tmp_path / "releases") == ["4"]
    assert host(tmp_path).chosen() == "4"


def test_an_error_of_the_disk_is_told_in_a_sentence_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    # A file where a directory has to be, found when half of it is unpacked.
    there, archive = _wheels(tmp_path, ["hbagent", "hbagent/__init__.py"])
    with pytest.raises(Refused, match=r"release 4 could not be made: .*hbagent"):
        there.install(archive)
    assert os.listdir(tmp_path / "releases") == []


def _wheels(prefix: Path, files: Iterable[str], *others: str) -> tuple[Any, str]:
    """A wheel of hbagent with these files, packed with others that nothing pins; who installs it, and from where."""
    own = prefix / "hbagent-4-py3-none-any.whl"
    with zipfile.ZipFile(own, "w") as wheel:
        for name in files:
            wheel.writestr(name, "#")
    (prefix / "constraints.txt").write_text("")
    with tarfile.open(prefix / "wheels.tar", "w") as archive:
        archive.add(prefix / "constraints.txt", "constraints.txt")
        for name in (own.name, *(f"{other}-py3-none-any.whl" for other in others)):
            archive.add(own, name)
    return host(prefix, digest=hashlib.sha256(own.read_bytes()).hexdigest()), str(prefix / "wheels.tar")


def test_what_is_in_the_way_is_told_before_the_first_change(tmp_path: Path) -> None:
    there = host(tmp_path)
    there.refuse({str(tmp_path / "hbagent"): "bin/hbagent"})
    (tmp_path / "hbagent").write_text("")
    with pytest.raises(Refused, match="is there and is no link"):
        there.refuse({str(tmp_path / "hbagent"): "bin/hbagent"})
    (tmp_path / "package").mkdir()
    with pytest.raises(Refused, match="dpkg --remove hbagent"):
        there.refuse({})


def test_leaving_a_release_marks_its_time(tmp_path: Path) -> None:
    old = put(tmp_path, "1", used=1)
    put(tmp_path, "4", used=2)
    (tmp_path / "current").symlink_to("releases/1")
    began = time.time() - 1
    host(tmp_path).choose()
    assert old.stat().st_mtime >= began
    assert os.readlink(tmp_path / "current") == "releases/4"
