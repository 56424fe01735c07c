"""Control groups of both versions, as files in a directory that a table of mounts points at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbagent.diagnosis.groups import Groups
from hbagent.diagnosis.procfs import Mount, Process


class Host:
    """A `/proc` with one process in it, and the hierarchies that it is in."""

    def __init__(self, directory: Path, cgroup: str = "3:freezer:/a/b\n2:cpu,cpuacct:/a/b\n0::/a/b\n") -> None:
        self.directory = directory
        (directory / "7" / "task").mkdir(parents=True)
        (directory / "7" / "cgroup").write_text(cgroup)
        self.mounts = [
            self.mount("cgroup2", "unified", "rw"),
            self.mount("cgroup", "frozen", "rw,freezer"),
            self.mount("cgroup", "cpu", "rw,cpu,cpuacct"),
        ]

    def mount(self, type: str, name: str, options: str, root: str = "/") -> Mount:
        return Mount((0, 30), root, str(self.directory / name), type, options)

    def write(self, path: str, text: str) -> None:
        (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / path).write_text(text)

    def groups(self) -> Groups:
        with Process(7, str(self.directory)) as process:
            return Groups(process, self.mounts)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("state", ["FROZEN\n", "FREEZING\n"])
def test_a_frozen_group_of_version_1_is_frozen(host: Host, state: str) -> None:
    host.write("frozen/a/b/freezer.state", state)
    assert host.groups().frozen() == "its control group /a/b is frozen"


def test_a_frozen_group_of_version_2_is_frozen(host: Host) -> None:
    host.write("unified/a/b/cgroup.events", "populated 1\nfrozen 1\n")
    assert host.groups().frozen() == "its control group /a/b is frozen"


def test_a_group_that_is_not_frozen_says_so(host: Host) -> None:
    host.write("frozen/a/b/freezer.state", "THAWED\n")
    host.write("unified/a/b/cgroup.events", "populated 1\nfrozen 0\n")
    assert host.groups().frozen() == ""


def test_time_held_back_by_a_quota_is_told_by_either_version(host: Host) -> None:
    assert host.groups().throttled_ns() is None
    host.write("cpu/a/b/cpu.stat", "nr_periods 9\nthrottled_time 5000\n")
    assert host.groups().throttled_ns() == 5000
    host.write("unified/a/b/cpu.stat", "usage_usec 1\nthrottled_usec 7\n")
    assert host.groups().throttled_ns() == 7000
    host.write("unified/a/b/cpu.stat.local", "throttled_usec 8\n")
    assert host.groups().throttled_ns() == 8000


def test_a_mount_of_a_part_shows_what_is_below_it(host: Host) -> None:
    host.mounts = [host.mount("cgroup2", "unified", "rw", root="/a")]
    host.write("unified/b/cgroup.events", "frozen 1\n")
    assert host.groups().frozen()


@pytest.mark.parametrize("cgroup", ["0::/../x\n", "0::/aa\n", "", "nonsense\n", "0::relative\n"])
def test_a_group_that_cannot_be_seen_says_nothing(tmp_path: Path, cgroup: str) -> None:
    host = Host(tmp_path, cgroup)
    host.mounts = [host.mount("cgroup2", "unified", "rw", root="/a")]
    host.write("unified/cgroup.events", "frozen 1\n")
    (tmp_path / "x").mkdir()
    host.write("x/cgroup.events", "frozen 1\n")
    assert (host.groups().frozen(), host.groups().throttled_ns()) == ("", None)


def test_evidence_has_the_pressure_of_the_group(host: Host) -> None:
    host.write("unified/a/b/io.pressure", "some avg10=12.50 avg60=0 avg300=0 total=1\n")
    host.write("unified/a/b/cpu.pressure", "some avg10=often\n")
    facts = host.groups().facts()
    assert facts == {"path": "/a/b", "frozen": False, "throttled_ns": None, "pressure": {"io": {"some": 12.5}}}


def test_a_process_that_ended_has_no_groups(host: Host) -> None:
    os.unlink(host.directory / "7" / "cgroup")
    assert host.groups().facts()["path"] == ""
