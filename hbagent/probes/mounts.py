"""Which filesystems this host has mounted, and whether the agent sees the same ones.

A sandboxed service lives in a mount namespace of its own: under ProtectSystem everything looks read-only to it, under
ProtectHome another filesystem answers for `/home`, under PrivateTmp its `/tmp` is not the host's. So the mounts of
process 1 are read (`/proc/1/mountinfo` is open to all), and before a path is looked at, both views of it are compared.

Of a mount there are two sets of options (proc_pid_mountinfo(5)): its own, and the filesystem's. A filesystem that the
kernel turned read-only after an error is `rw` in the first and `ro` in the second; who mounts something read-only
himself gets `ro` in both, and a read-only bind mount is `ro` in the first alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import msgspec

from .outcome import read

PROC = "/proc"
#: Bytes of a mount table: 4 MiB are twenty thousand mounts, more than a crowded container host has.
TABLE_MAX = 4 << 20
#: Filesystems without a device under /dev that hold a host's data all the same.
POOLS = ("zfs", "btrfs", "bcachefs")
#: Images that cannot be written and are therefore always full and always read-only.
IMAGES = ("squashfs", "erofs", "iso9660", "udf", "cramfs", "romfs")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(msgspec.Struct, frozen=True, gc=False):
    """One line of a mount table."""

    #: Where it is, in the namespace of the table.
    path: str
    #: Which directory of the filesystem is mounted there.
    root: str
    #: Major and minor number: one for each filesystem.
    device: str
    kind: str
    source: str
    options: tuple[str, ...]
    super_options: tuple[str, ...]


def parse(data: bytes) -> list[Mount]:
    """The lines of a mountinfo file. Raises ValueError when it reads otherwise than the kernel writes it."""
    mounts = []
    for line in data.decode(errors="surrogateescape").split("\n"):
        if not line:
            continue
        head, dash, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 3:
            raise ValueError(f"a line of mountinfo reads {line[:80]!r}")
        mounts.append(
            Mount(
                path=_plain(fields[4]),
                root=_plain(fields[3]),
                device=fields[2],
                kind=rest[0],
                source=_plain(rest[1]),
                options=tuple(fields[5].split(",")),
                super_options=tuple(rest[-1].split(",")),
            )
        )
    return mounts


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text


def host_mounts(proc: str = PROC) -> list[Mount]:
    """The mounts of process 1, or this process's own where that one is hidden."""
    try:
        data = read(f"{proc}/1/mountinfo", TABLE_MAX)
    except OSError:
        data = read(f"{proc}/self/mountinfo", TABLE_MAX)
    return parse(data)


def holding(path: str, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that an absolute path without links lies on."""
    found = None
    for mount in mounts:
        below = mount.path.rstrip("/") + "/"
        # A later mount at the same place covers the earlier one.
        if (path == mount.path or path.startswith(below)) and (found is None or len(mount.path) >= len(found.path)):
            found = mount
    return found


def hidden(path: str, proc: str = PROC) -> str:
    """Why the agent does not see at `path` what the host has there; "" when it does, or that cannot be told."""
    try:
        theirs = parse(read(f"{proc}/1/mountinfo", TABLE_MAX))
        ours = parse(read(f"{proc}/self/mountinfo", TABLE_MAX))
    except OSError:
        return ""
    real = os.path.realpath(path)
    if _place(real, theirs) == _place(real, ours):
        return ""
    return f"the agent's sandbox has another {path} than the host (ProtectHome, PrivateTmp or the like)"


def _place(path: str, mounts: Sequence[Mount]) -> tuple[str, str] | None:
    """Which file of which filesystem a path means."""
    mount = holding(path, mounts)
    if mount is None:
        return None
    return mount.device, os.path.normpath(f"{mount.root}/{path[len(mount.path.rstrip('/')) :]}")


def on_devices(mounts: Sequence[Mount]) -> list[Mount]:
    """One mount of each local filesystem that can be written, at the shortest path, and whatever holds `/`; by path."""
    chosen: dict[str, Mount] = {}
    for mount in mounts:
        local = mount.source.startswith("/dev/") or mount.kind in POOLS
        if mount.kind in IMAGES or not (local or mount.path == "/"):
            continue
        visible = holding(mount.path, mounts)
        known = chosen.get(mount.device)
        if visible is mount and (known is None or len(mount.path) < len(known.path)):
            chosen[mount.device] = mount
    return sorted(chosen.values(), key=lambda mount: mount.path)


def broken(mount: Mount) -> bool:
    """The kernel turned it read-only after an error, or shut it down."""
    if any(word in mount.super_options for word in ("emergency_ro", "shutdown")):
        return True
    return "rw" in mount.options and "ro" in mount.super_options
