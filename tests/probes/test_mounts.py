"""Mount tables as the kernel writes them, and namespaces that differ for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbagent.probes.mounts import broken, hidden, holding, host_mounts, on_devices, parse

TABLE = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 27 254:1 / /var rw shared:1 master:2 - xfs /dev/vdb rw,attr2
29 27 254:1 /lib /srv/with\040blank ro - xfs /dev/vdb rw,attr2
30 27 7:1 / /snap/x ro - squashfs /dev/loop1 ro
31 27 0:50 / /mnt/nfs rw - nfs4 server:/x rw
32 27 0:51 / /pool rw - zfs tank/data rw
33 27 0:52 / /tmp rw - tmpfs tmpfs rw
"""


def test_each_line_is_read_with_its_escapes_and_optional_fields() -> None:
    table = parse(TABLE)
    assert [mount.path for mount in table][1:4] == ["/", "/var", "/srv/with blank"]
    assert (table[2].kind, table[2].source, table[2].device) == ("xfs", "/dev/vdb", "254:1")
    assert table[3].root == "/lib"
    assert table[3].options == ("ro",) and table[3].super_options == ("rw", "attr2")


def test_local_filesystems_are_chosen_once_each() -> None:
    assert [mount.path for mount in on_devices(parse(TABLE))] == ["/", "/pool", "/var"]


def test_a_root_without_a_device_is_chosen_all_the_same() -> None:
    table = parse(b"1 0 0:30 / / rw - overlay overlay rw,lowerdir=/x\n")
    assert [mount.path for mount in on_devices(table)] == ["/"]


def test_what_is_covered_by_a_later_mount_is_not_chosen() -> None:
    table = parse(TABLE + b"40 27 254:9 / /var rw - ext4 /dev/vdc rw\n")
    assert [(mount.path, mount.source) for mount in on_devices(table)][-2:] == [
        ("/srv/with blank", "/dev/vdb"),
        ("/var", "/dev/vdc"),
    ]


@pytest.mark.parametrize(
    ("path", "mount"), [("/var", "/var"), ("/var/log/x", "/var"), ("/variable", "/"), ("/", "/"), ("/tmp/a", "/tmp")]
)
def test_a_path_lies_on_the_nearest_mount(path: str, mount: str) -> None:
    found = holding(path, parse(TABLE))
    assert found is not None and found.path == mount


@pytest.mark.parametrize(
    ("options", "super_options", "trouble"),
    [
        ("rw,relatime", "rw", False),
        ("rw,relatime", "ro", True),
        ("rw,relatime", "rw,errors=remount-ro,emergency_ro", True),
        ("rw", "rw,shutdown", True),
        # Mounted so by somebody.
        ("ro,relatime", "ro", False),
        # A read-only bind mount, or a sandbox.
        ("ro,relatime", "rw", False),
    ],
)
def test_what_the_kernel_turned_read_only_is_told_from_what_was_meant(
    options: str, super_options: str, trouble: bool
) -> None:
    table = parse(f"1 0 8:1 / /x {options} - ext4 /dev/sda {super_options}\n".encode())
    assert broken(table[0]) is trouble


def test_this_host_has_its_root(tmp_path: Path) -> None:
    assert holding(str(tmp_path), host_mounts()) is not None
    assert on_devices(host_mounts())[0].path == "/"


def test_where_process_1_is_hidden_ones_own_mounts_are_told(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_bytes(TABLE)
    assert len(host_mounts(str(tmp_path))) == 8
    assert hidden("/tmp", str(tmp_path)) == ""


def both(directory: Path, theirs: bytes, ours: bytes) -> str:
    """A /proc in which process 1 and this one see these mounts."""
    for name, table in (("1", theirs), ("self", ours)):
        (directory / name).mkdir()
        (directory / name / "mountinfo").write_bytes(table)
    return str(directory)


def test_a_sandbox_that_only_protects_hides_nothing(tmp_path: Path) -> None:
    ours = b"9 1 254:0 / / ro - ext4 /dev/vda rw\n10 9 254:0 /etc /etc ro - ext4 /dev/vda rw\n"
    proc = both(tmp_path, b"1 0 254:0 / / rw - ext4 /dev/vda rw\n", ours)
    assert hidden("/etc/passwd", proc) == ""


def test_a_directory_of_its_own_is_another(tmp_path: Path) -> None:
    ours = b"9 1 254:0 / / ro - ext4 /dev/vda rw\n10 9 254:0 /tmp/systemd-private-x/tmp /tmp rw - ext4 /dev/vda rw\n"
    proc = both(tmp_path, b"1 0 254:0 / / rw - ext4 /dev/vda rw\n", ours)
    assert "sandbox has another /tmp/x" in hidden("/tmp/x", proc)
    assert hidden("/usr", proc) == ""


@pytest.mark.root
@pytest.mark.needs("unshare", "mount")
def test_a_real_namespace_with_an_empty_home_is_seen(tmp_path: Path) -> None:
    code = "import sys; from hbagent.probes.mounts import hidden; print([hidden(path) for path in sys.argv[1:]])"
    covered = tmp_path / "home"
    covered.mkdir()
    apart = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {covered} && exec "$@"', "sh"]
    done = subprocess.run(
        [*apart, sys.executable, "-c", code, f"{covered}/x", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"sandbox has another {covered}/x" in done.stdout
    assert done.stdout.rstrip().endswith(", '']")


@pytest.mark.parametrize("line", ["x", "1 2 3:4 / /x rw ext4 /dev/x rw", "1 2 3:4 / /x rw - ext4", " - a b c"])
def test_a_line_that_is_none_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):
        parse(line.encode() + b"\n")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_value_error(data: bytes) -> None:
    try:
        on_devices(parse(data))
    except ValueError:
        return


@given(st.integers(0, len(TABLE)), st.binary(max_size=8))
def test_a_damaged_table_is_a_table_or_a_value_error(place: int, noise: bytes) -> None:
    try:
        table = parse(TABLE[:place] + noise + TABLE[place:])
    except ValueError:
        return
    assert all(os.fsencode(mount.path) is not None for mount in on_devices(table))
