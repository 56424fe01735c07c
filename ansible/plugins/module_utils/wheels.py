"""Which wheels of a wheelhouse serve a host, told by their names and by its pins."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: The pins of what each host needs; what only some need has a file of its own beside it.
PINS = "constraints.txt"
_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==[^\s;]+(?: *; *([^\\\n]*))?", re.MULTILINE)
_MARKER = re.compile(r'python_version (<|>=) "3\.(\d+)"')
_OLD_NAMES = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


def pins_for(house: Path, extras: Iterable[str]) -> str:
    """The pins of what a host needs that needs `extras` as well. Raises ValueError when one was not thought of."""
    texts = [(house / PINS).read_text(encoding="utf-8")]
    for extra in extras:
        file = house / f"constraints-{extra}.txt"
        if not file.is_file():
            raise ValueError(f"{house} has nothing for {extra}: make it with make wheelhouse EXTRAS={extra}")
        texts.append(file.read_text(encoding="utf-8"))
    return "\n".join(texts)


def choose(names: Iterable[str], pins: str, python: str, machine: str, glibc: Iterable[int]) -> list[str]:
    """One wheel for each package of `pins`. Raises ValueError for a host that these were not made for."""
    if tuple(int(part) for part in python.split(".")) < (3, 10):
        raise ValueError(f"this host has Python {python}; hbagent needs 3.10 or newer: set hbagent_python")
    wanted = needed(pins, python)
    found: dict[str, str] = {}
    seen: dict[str, set[str]] = {}
    for file in sorted(names):
        match = _WHEEL.fullmatch(file)
        if match is None:
            continue
        name = _plain(match["name"])
        seen.setdefault(name, set()).add(f"{match['python']} {match['platform'].rpartition('.')[2]}")
        if fits(match["python"], match["abi"], match["platform"], python, machine, glibc):
            found[name] = file
    lacking = [name for name in wanted if name not in found]
    if lacking:
        has = ", ".join(sorted(seen.get(lacking[0], {"none"})))
        raise ValueError(
            f"this host has Python {python} on {machine}, and the wheelhouse has no {' or '.join(lacking)} for it "
            f"(of {lacking[0]} it has {has}): make one with make wheelhouse WHEELS_FOR={python}, or set hbagent_python"
        )
    return [found[name] for name in wanted]


def needed(pins: str, python: str = "") -> list[str]:
    """The packages of `pins` that a Python needs; without one, those that all do."""
    minor = int(python.split(".")[1]) if python else None
    found = []
    for name, marker in _PINNED.findall(pins):
        bounds = [(sign, int(bound)) for sign, bound in _MARKER.findall(marker)]
        if all(minor is not None and (minor < bound if sign == "<" else minor >= bound) for sign, bound in bounds):
            found.append(_plain(name))
    return found


def fits(pythons: str, abi: str, platforms: str, python: str, machine: str, glibc: Iterable[int]) -> bool:
    """Whether a wheel with these tags serves a CPython of that version, machine and C library."""
    minor = int(python.split(".")[1])
    if not any(
        tag == "py3"
        # Not for one that is built otherwise, as cp313t is: without the lock.
        or (tag == f"cp3{minor}" and abi in (tag, "none"))
        or (abi == "abi3" and tag.startswith("cp3") and int(tag[3:]) <= minor)
        for tag in pythons.split(".")
    ):
        return False
    return any(tag == "any" or _runs_on(tag, machine, tuple(glibc)) for tag in platforms.split("."))


def _runs_on(tag: str, machine: str, glibc: tuple[int, ...]) -> bool:
    if not tag.endswith(f"_{machine}"):
        return False
    if tag == f"linux_{machine}":
        return True
    stem = tag.removesuffix(f"_{machine}")
    needed = _OLD_NAMES.get(stem)
    if needed is None:
        match = re.fullmatch(r"manylinux_(\d+)_(\d+)", stem)
        if match is None:
            return False
        needed = (int(match[1]), int(match[2]))
    return needed <= glibc


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
