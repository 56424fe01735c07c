"""Words of another process's memory, read only from where a read cannot hang for good.

A page of memory that belongs to a file has to come from the file's filesystem, and one that is served by a dead
process or a dead network never answers: the reader then sits in state D, and not even SIGKILL ends it. So a word is
read only from anonymous memory, from memory files (`/dev/shm`, memfd, shared anonymous memory), and from files on
filesystems of this host; anything else, and anything not known, is as if it were not there. Of unknown filesystems only
that is read which this very program runs from: were it dead, so would be we.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Final

from . import procfs

#: Filesystems whose pages come from a local disk or from memory.
LOCAL: Final = frozenset(
    (
        *("bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2"),
        *("ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs"),
    )
)
#: Layers of an overlay that are looked at; container images have up to some 120.
LAYERS_MAX: Final = 256


class Places:
    """Which devices hold files that can be read without waiting for anybody else.

    `own` are the devices of the files whose code this process runs; None: find out.
    """

    def __init__(self, mounts: Sequence[procfs.Mount], own: Collection[tuple[int, int]] | None = None) -> None:
        self._mounts = mounts
        self._devices = {mount.device for mount in mounts if mount.type in LOCAL}
        self._devices |= {mount.device for mount in mounts if mount.type == "overlay" and self._is_local_overlay(mount)}
        memory = _memory_device()
        if memory is not None:
            self._devices.add(memory)
        # Within a container nobody sees what its files lie on. From where our own code comes we read all the time.
        served = {mount.device for mount in mounts if mount.type not in LOCAL and mount.type != "overlay"}
        self._devices |= set(_own_devices() if own is None else own) - served

    def is_local(self, mapping: procfs.Mapping) -> bool:
        """True when a mapping's pages come from memory, swap or a local disk."""
        if not mapping.inode and mapping.device == (0, 0):
            return mapping.path == "" or mapping.path == "[heap]" or mapping.path.startswith(("[stack", "[anon"))
        return mapping.device in self._devices or self._is_at_path(mapping)

    def _is_at_path(self, mapping: procfs.Mapping) -> bool:
        """Btrfs shows another device in `maps` than in `mountinfo`; the file itself tells, if its mount is local."""
        if not mapping.path.startswith("/") or not self._is_local_path(mapping.path):
            return False
        try:
            found = os.stat(mapping.path, follow_symlinks=False)
        except OSError:
            return False
        return (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino) == (*mapping.device, mapping.inode)

    def _is_local_path(self, path: str) -> bool:
        holder = None
        for mount in self._mounts:
            # A later mount covers an earlier one at the same place.
            inside = path.startswith(mount.point.rstrip("/") + "/")
            if inside and (holder is None or len(mount.point) >= len(holder.point)):
                holder = mount
        return holder is not None and holder.type in LOCAL

    def _is_local_overlay(self, mount: procfs.Mount) -> bool:
        layers: list[str] = []
        for option in mount.options.split(","):
            name, _, value = option.partition("=")
            if name in ("lowerdir", "upperdir", "lowerdir+", "datadir+"):
                layers += filter(None, value.split(":"))
        return 0 < len(layers) <= LAYERS_MAX and all(self._is_local_path(f"{layer}/") for layer in layers)


def _memory_device() -> tuple[int, int] | None:
    """The device of memory files and of shared anonymous memory, which is mounted nowhere."""
    try:
        fd = os.memfd_create("device")
    except OSError:
        return None
    try:
        device = os.fstat(fd).st_dev
    finally:
        os.close(fd)
    return os.major(device), os.minor(device)


def _own_devices() -> set[tuple[int, int]]:
    """Devices of the files whose code this process runs."""
    try:
        mappings = procfs.maps(procfs.read_file(f"{procfs.PROC}/self/maps", procfs.MAPS_SIZE_MAX))
    except procfs.ProcError:
        return set()
    return {mapping.device for mapping in mappings if mapping.inode and "x" in mapping.permissions}


class Words:
    """Reads of the memory of one process, as it was mapped when this was made. Raises `procfs.ProcError`."""

    def __init__(self, process: procfs.Process, mappings: Sequence[procfs.Mapping], places: Places) -> None:
        self._mappings = mappings
        self._starts = [mapping.start for mapping in mappings]
        self._places = places
        self._judged: dict[int, bool] = {}
        #: Addresses that were not read because of where their pages come from, with the path.
        self.refused: dict[int, str] = {}
        self._fd = process.open("mem")

    def close(self) -> None:
        """Let go of the memory. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Words:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, address: int, length: int) -> bytes:
        """Up to `length` bytes; fewer, down to none, where there are none or where they may not be read."""
        allowed = self._allowed(address, length)
        if not allowed:
            return b""
        try:
            return os.pread(self._fd, allowed, address)
        except (OSError, OverflowError, ValueError):
            return b""

    def is_own(self, address: int) -> bool:
        """True for an address whose memory no other process can have: a shared mapping may be had by others."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._mappings[at].end:
            return False
        return self._mappings[at].permissions.endswith("p")

    def _allowed(self, address: int, length: int) -> int:
        """How many bytes from `address` on lie in mappings that may be read."""
        end = address
        at = bisect_right(self._starts, address) - 1
        while 0 <= at < len(self._mappings) and end < address + length:
            mapping = self._mappings[at]
            if not mapping.start <= end < mapping.end or not self._may_read(at):
                break
            end = mapping.end
            at += 1
        return min(end - address, length)

    def _may_read(self, at: int) -> bool:
        if at not in self._judged:
            mapping = self._mappings[at]
            self._judged[at] = self._places.is_local(mapping)
            if not self._judged[at]:
                self.refused[mapping.start] = mapping.path
        return self._judged[at]
