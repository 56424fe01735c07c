"""What an address in a process is called: a variable of a mapped file, where its symbol table says so.

A lock that is a global variable has a name that its programmers know at once; one on the heap or a stack has none.
The file is read only from a local filesystem, and only so much of it: a name is a convenience and may cost little.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from . import procfs
from .words import Places

#: Bytes of one table of symbols, of 24 each: 87,000 symbols, which take some 20 ms.
TABLE_SIZE_MAX: Final = 2 << 20
#: Section headers; programs have 30 to 40.
SECTIONS_MAX: Final = 256
#: Characters of a name; C++ makes long ones.
NAME_LENGTH_MAX: Final = 100

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOAD = 1
_SYMBOLS, _DYNAMIC_SYMBOLS = 2, 11
#: Type of a symbol: a variable.
_OBJECT = 1


def names_of(
    addresses: Iterable[int], mappings: Sequence[procfs.Mapping], places: Places, root: str = ""
) -> dict[int, str]:
    """Names of those addresses that have one, as "accounts (in server)". Nothing here raises.

    `root` is put before the paths of the files: where the process sees its `/`.
    """
    wanted: dict[int, list[int]] = {}
    for address in addresses:
        at = _home(address, mappings)
        if at is not None:
            wanted.setdefault(at, []).append(address)
    found = {}
    for at, inside in wanted.items():
        first = mappings[at]
        if not places.is_local(first):
            continue
        try:
            named = _names_in(root + first.path.removesuffix(" (deleted)"), first, inside)
        except (OSError, ValueError, struct.error, OverflowError):
            continue
        file = os.path.basename(first.path.removesuffix(" (deleted)"))
        found.update({address: f"{name} (in {file})" for address, name in named.items()})
    return found


def _home(address: int, mappings: Sequence[procfs.Mapping]) -> int | None:
    """Which mapping is the first of the file whose variables an address is one of.

    What is zero at the start of a program lies in anonymous memory right behind the mappings of its file.
    """
    path, first, end = "", None, 0
    for at, mapping in enumerate(mappings):
        if mapping.start > address:
            return None
        if mapping.path.startswith("/") and mapping.inode:
            if mapping.path != path or mapping.offset == 0:
                path, first = mapping.path, at
        elif mapping.path or mapping.start != end:
            path, first = "", None
        end = mapping.end
        if address < end:
            return first
    return None


def _names_in(file: str, first: procfs.Mapping, addresses: Sequence[int]) -> dict[int, str]:
    """Names of addresses in a file that is mapped from `first` on."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if found.st_ino != first.inode:  # another file by now
            return {}
        header = os.pread(fd, _HEADER.size, 0)
        if not header.startswith(_ELF64_LITTLE):
            return {}
        return _search(fd, _HEADER.unpack(header), first, addresses)
    finally:
        os.close(fd)


def _search(fd: int, header: tuple[int, ...], first: procfs.Mapping, addresses: Sequence[int]) -> dict[int, str]:
    _, _, _, _, segments_at, sections_at, _, _, _, segments, _, sections, _ = header
    if not 0 < sections <= SECTIONS_MAX or not 0 < segments <= SECTIONS_MAX:
        return {}
    loads = [load for load in _table(fd, segments_at, segments, _SEGMENT) if load[0] == _LOAD]
    if not loads:
        return {}
    # Of a load: type, flags, offset, address.
    bias = first.start - (loads[0][3] - loads[0][2] + first.offset)
    inside = {address - bias: address for address in addresses}
    names: dict[int, str] = {}
    table = _table(fd, sections_at, sections, _SECTION)
    for kind in (_SYMBOLS, _DYNAMIC_SYMBOLS):
        for section in table:
            if section[1] == kind and section[6] < len(table):
                strings = table[section[6]]
                _match(fd, section, strings, inside, names)
        if len(names) == len(inside):
            break
    return names


def _match(
    fd: int, section: tuple[int, ...], strings: tuple[int, ...], inside: Mapping[int, int], names: dict[int, str]
) -> None:
    # Of a section: name, type, flags, address, offset, size.
    size = min(section[5], TABLE_SIZE_MAX)
    data = os.pread(fd, size - size % _SYMBOL.size, section[4])
    data = data[: len(data) - len(data) % _SYMBOL.size]
    for name_at, info, _, index, value, length in _SYMBOL.iter_unpack(data):
        if info & 15 != _OBJECT or not index:
            continue
        for address, real in inside.items():
            if value <= address < value + max(length, 1) and real not in names:
                name = os.pread(fd, NAME_LENGTH_MAX, strings[4] + name_at).partition(b"\0")[0]
                offset = f"+{address - value}" if address > value else ""
                names[real] = name.decode("utf-8", "replace") + offset


def _table(fd: int, at: int, count: int, layout: struct.Struct) -> list[tuple[int, ...]]:
    data = os.pread(fd, count * layout.size, at)
    return list(layout.iter_unpack(data[: len(data) - len(data) % layout.size]))
