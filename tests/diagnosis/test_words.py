"""Words are read from memory and local files, and from nowhere else: this process's own memory stands for another's."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.diagnosis import procfs
from hbagent.diagnosis.procfs import Mapping, Mount, Process
from hbagent.diagnosis.words import LAYERS_MAX, Places, Words

PAGE = mmap.PAGESIZE
Device = tuple[tuple[int, int], ...]
FUSE = Mount((0, 77), "/", "/srv", "fuse.sshfs", "rw")
ROOT = Mount((254, 0), "/", "/", "ext4", "rw,discard")


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def mapping_at(address: int) -> tuple[list[Mapping], int]:
    """This process's mappings, and which of them holds an address."""
    with Process(os.getpid()) as me:
        found = procfs.maps(me.read("maps", procfs.MAPS_SIZE_MAX))
    return found, next(at for at, one in enumerate(found) if one.start <= address < one.end)


def mounts() -> list[Mount]:
    return procfs.mountinfo(procfs.read_file("/proc/self/mountinfo", procfs.MOUNTINFO_SIZE_MAX))


def read(address: int, length: int = 8, *, by: list[Mount] | None = None, own: Device = (), **changed: Any) -> bytes:
    """What is read at an address of this process, when its mapping is changed in the list."""
    mappings, at = mapping_at(address)
    mappings[at] = msgspec.structs.replace(mappings[at], **changed)
    with Process(os.getpid()) as me, Words(me, mappings, Places(mounts() if by is None else by, own)) as words:
        return words.read(address, length)


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    """Two pages of anonymous memory that nobody else has a part of."""
    block = mmap.mmap(-1, 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block[:8] = b"12345678"
    yield block


def filled(fd: int, flags: int = mmap.MAP_PRIVATE) -> mmap.mmap:
    os.ftruncate(fd, PAGE)
    block = mmap.mmap(fd, PAGE, flags=flags)
    block[:8] = b"12345678"
    return block


def test_anonymous_memory_is_read(memory: mmap.mmap) -> None:
    assert read(address_of(memory)) == b"12345678"


@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED])
def test_memory_files_are_read(flags: int) -> None:
    fd = os.memfd_create("words")
    assert read(address_of(filled(fd, flags))) == b"12345678"
    os.close(fd)
    assert read(address_of(filled(os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR), flags))) == b"12345678"
    shared = mmap.mmap(-1, PAGE)
    shared[:8] = b"12345678"
    assert read(address_of(shared)) == b"12345678"


def test_files_of_local_filesystems_are_read(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w+b") as file:
        block = filled(file.fileno())
        assert read(address_of(block)) == b"12345678"
        # Where the table of mounts shows another device, the file itself tells.
        device = os.stat(tmp_path).st_dev
        number = (os.major(device), os.minor(device))
        other = [msgspec.structs.replace(m, device=(0, 99)) if m.device == number else m for m in mounts()]
        assert read(address_of(block), by=other) == b"12345678"
        assert read(address_of(block), by=other, inode=1) == b""


@pytest.mark.parametrize(
    "type", ["fuse", "fuse.sshfs", "nfs", "nfs4", "cifs", "9p", "virtiofs", "overlay", "unheard-of"]
)
def test_files_of_other_filesystems_are_not(memory: mmap.mmap, type: str) -> None:
    by = [ROOT, msgspec.structs.replace(FUSE, type=type)]
    assert read(address_of(memory), by=by, device=(0, 77), inode=12, path="/srv/data") == b""


def test_what_this_program_itself_runs_from_is_read(memory: mmap.mmap) -> None:
    """Within a container the layers of its overlay cannot be seen."""
    overlay = Mount((0, 50), "/", "/", "overlay", "rw,lowerdir=/far/away")
    changed: dict[str, Any] = {"device": (0, 50), "inode": 12, "path": "/usr/lib/libc.so.6"}
    assert read(address_of(memory), by=[overlay], **changed) == b""
    assert read(address_of(memory), by=[overlay], own=((0, 50),), **changed) == b"12345678"
    assert read(address_of(memory), by=[], own=((0, 50),), **changed) == b"12345678"
    for type in ("fuse.sshfs", "nfs4"):
        served = msgspec.structs.replace(overlay, type=type)
        assert read(address_of(memory), by=[served], own=((0, 50),), **changed) == b""


def test_a_device_that_nobody_knows_is_not_read(memory: mmap.mmap) -> None:
    assert read(address_of(memory), device=(0, 999), inode=12, path="/srv/data") == b""
    assert read(address_of(memory), device=(0, 999), inode=12, path="/memfd:words (deleted)") == b""


def test_memory_of_devices_is_not_read(memory: mmap.mmap) -> None:
    for path in ("[vvar]", "[vsyscall]", "anon_inode:[io_uring]", "/dev/dri/card0"):
        assert read(address_of(memory), path=path) == b""


def test_a_file_below_a_served_mount_is_not_asked_for_itself(memory: mmap.mmap, tmp_path: Path) -> None:
    """A `stat` there could hang; the nearest mount above the path decides, and the later one at the same place."""
    served = Mount((0, 77), "/", str(tmp_path), "fuse", "rw")
    file = tmp_path / "data"
    file.write_bytes(b"")
    found = file.stat()
    mapping = Mapping(0, PAGE, "rw-p", 0, (os.major(found.st_dev), os.minor(found.st_dev)), found.st_ino, str(file))
    elsewhere = msgspec.structs.replace(ROOT, device=(0, 1234))
    assert Places([elsewhere], ()).is_local(mapping)
    assert not Places([elsewhere, served], ()).is_local(mapping)
    assert Places([elsewhere, served, msgspec.structs.replace(served, type="xfs")], ()).is_local(mapping)


@pytest.mark.parametrize(
    ("options", "local"),
    [
        ("rw,lowerdir=/a:/b,upperdir=/c,workdir=/w", True),
        ("rw,lowerdir=/a:/srv/b,upperdir=/c", False),
        ("rw,lowerdir=/srv", False),
        ("rw,lowerdir=a", False),
        ("rw", False),
        ("rw,lowerdir=" + ":".join(["/a"] * (LAYERS_MAX + 1)), False),
    ],
)
def test_an_overlay_is_as_local_as_its_layers(options: str, local: bool) -> None:
    mapping = Mapping(0, PAGE, "rw-p", 0, (0, 50), 3, "/usr/bin/x")
    overlay = Mount((0, 50), "/", "/containers/x", "overlay", options)
    assert Places([ROOT, FUSE, overlay], ()).is_local(mapping) is local


def test_a_read_ends_where_its_memory_does(memory: mmap.mmap) -> None:
    start = address_of(memory)
    mappings = [Mapping(start, start + 6, "rw-p", 0, (0, 0), 0, "")]
    with Process(os.getpid()) as me:
        with Words(me, mappings, Places([])) as words:
            assert words.read(start, 8) == b"123456"
            assert words.read(start - 1, 8) == b""
            assert words.read(start + 6, 8) == b""
        served = Mapping(start + 6, start + 8, "rw-p", 0, (0, 77), 1, "/srv/x")
        with Words(me, [*mappings, served], Places([FUSE])) as words:
            assert words.read(start, 8) == b"123456"
            assert list(words.refused.values()) == ["/srv/x"]
        following = msgspec.structs.replace(mappings[0], start=start + 6, end=start + 8)
        with Words(me, [*mappings, following], Places([])) as words:
            assert words.read(start, 8) == b"12345678"


@pytest.mark.parametrize(("flags", "own"), [(mmap.MAP_PRIVATE, True), (mmap.MAP_SHARED, False)])
def test_only_private_memory_is_a_process_s_own(flags: int, own: bool) -> None:
    with mmap.mmap(-1, 4096, flags | mmap.MAP_ANONYMOUS) as memory:
        address = address_of(memory)
        mappings, _ = mapping_at(address)
        with Process(os.getpid()) as me, Words(me, mappings, Places([])) as words:
            assert words.is_own(address) is own
            assert not words.is_own(0)
            assert not words.is_own(mappings[-1].end)


def test_nothing_is_read_where_nothing_is(memory: mmap.mmap) -> None:
    everywhere = [Mapping(0, 1 << 70, "rw-p", 0, (0, 0), 0, "")]
    with Process(os.getpid()) as me, Words(me, everywhere, Places([])) as words:
        for address in (0, 8, 1 << 63, (1 << 64) - 4, 1 << 65):
            assert words.read(address, 8) == b""
    with Process(os.getpid()) as me, Words(me, [], Places([])) as words:
        assert words.read(address_of(memory), 8) == b""
        words.close()
        words.close()
