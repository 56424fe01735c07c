"""Installs a release on a host: asks the host what it has and sends it the wheels that fit its Python, and no others.

The module of the same name does the work there. A host that has the release already gets nothing sent.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

_WHEEL = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
PINS = "constraints.txt"


class ActionModule(ActionBase):
    """The controller's half."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        wheelhouse = str(args.pop("wheelhouse", "") or "")
        version = str(args.get("version", ""))
        house = Path(self._loader.path_dwim(wheelhouse)) if wheelhouse else None
        own = _own_wheel(house, version) if house else None
        args["digest"] = hashlib.sha256(own.read_bytes()).hexdigest() if own else ""
        first = self._ask(args, task_vars)
        if first.get("failed") or not first.get("needs_wheels"):
            result.update(first)
            return result
        if own is None or house is None:
            where = wheelhouse or "hbagent_wheelhouse, which is not set"
            raise AnsibleActionFail(
                f"release {version} is not on this host, and {where} has no wheel of it: run make wheelhouse, or set "
                f"hbagent_version to one that is there ({', '.join(first['releases']) or 'none is'})"
            )
        wheels = _fitting(house, own, first["python"], first["machine"], tuple(first["glibc"]))
        if self._task.check_mode:
            result.update(first)
            return result
        args["archive"] = self._send(house, wheels)
        result.update(self._ask(args, task_vars))
        return result

    def _ask(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module("hbagent.hbagent.release", module_args=args, task_vars=task_vars)
        return answer

    def _send(self, house: Path, wheels: list[Path]) -> str:
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        remote: str = shell.join_path(shell.tmpdir, "wheels.tar")
        descriptor, local = tempfile.mkstemp(prefix="hbagent-wheels-", suffix=".tar")
        try:
            with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
                for path in [*wheels, house / PINS]:
                    content = path.read_bytes()
                    entry = tarfile.TarInfo(path.name)
                    entry.size, entry.mode = len(content), 0o644
                    archive.addfile(entry, io.BytesIO(content))
            self._transfer_file(local, remote)
        finally:
            os.unlink(local)
        self._fixup_perms2((shell.tmpdir, remote))
        return remote


def _own_wheel(house: Path, version: str) -> Path | None:
    own = house / f"hbagent-{version}-py3-none-any.whl"
    return own if own.is_file() else None


def _fitting(house: Path, own: Path, python: str, machine: str, glibc: tuple[int, ...]) -> list[Path]:
    """One wheel for each pinned package. Raises AnsibleActionFail for a host that the wheelhouse was not made for."""
    if tuple(int(part) for part in python.split(".")) < (3, 10):
        raise AnsibleActionFail(f"this host has Python {python}; hbagent needs 3.10 or newer: set hbagent_python")
    pins = (house / PINS).read_text(encoding="utf-8")
    wanted = [_plain(name) for name in _PINNED.findall(pins)]
    found: dict[str, Path] = {}
    seen: dict[str, set[str]] = {}
    for path in sorted(house.glob("*.whl")):
        match = _WHEEL.fullmatch(path.name)
        if match is None:
            continue
        name = _plain(match["name"])
        seen.setdefault(name, set()).add(f"{match['python']}-{match['platform'].rpartition('.')[2]}")
        if fits(match["python"], match["abi"], match["platform"], python, machine, glibc):
            found[name] = path
    lacking = [name for name in wanted if name not in found]
    if lacking:
        has = ", ".join(sorted(seen.get(lacking[0], {"nothing"})))
        raise AnsibleActionFail(
            f"this host has Python {python} on {machine}, and the wheelhouse has no {' or '.join(lacking)} for it "
            f"(of {lacking[0]}: {has}): make one with make wheelhouse PYTHONS={python}, or set hbagent_python"
        )
    return [*(found[name] for name in wanted), own]


def fits(pythons: str, abi: str, platforms: str, python: str, machine: str, glibc: Iterable[int]) -> bool:
    """Whether a wheel with these tags serves a CPython of that version, machine and C library."""
    minor = int(python.split(".")[1])
    if not any(
        tag == "py3" or tag == f"cp3{minor}" or (abi == "abi3" and tag.startswith("cp3") and int(tag[3:]) <= minor)
        for tag in pythons.split(".")
    ):
        return False
    return any(tag == "any" or _runs_on(tag, machine, tuple(glibc)) for tag in platforms.split("."))


def _runs_on(tag: str, machine: str, glibc: tuple[int, ...]) -> bool:
    if not tag.endswith(f"_{machine}"):
        return False
    if tag == f"linux_{machine}":
        return True
    old = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
    stem = tag.removesuffix(f"_{machine}")
    needed = old.get(stem)
    if needed is None:
        match = re.fullmatch(r"manylinux_(\d+)_(\d+)", stem)
        if match is None:
            return False
        needed = (int(match[1]), int(match[2]))
    return needed <= glibc


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
