"""Installs a release on a host: asks the host what it has and sends it the wheels that fit its Python, and no others.

The module of the same name does the work there. A host that has the release already gets nothing sent.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.hbagent.hbagent.plugins.module_utils.wheels import PINS, choose, needed, pins_for

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The controller's half."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        wheelhouse = str(args.pop("wheelhouse", "") or "")
        extras = [str(name) for name in args.pop("extras", None) or ()]
        version = str(args.get("version", ""))
        house = Path(self._loader.path_dwim(wheelhouse)) if wheelhouse else None
        own = _own_wheel(house, version) if house else None
        # More than that release was made of, when the wheelhouse has become a fuller one.
        pins = _pins(house, extras) if house and own else ""
        args["packages"] = needed(pins)
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
        wheels = _fitting(house, own, pins, first["python"], first["machine"], tuple(first["glibc"]))
        if self._task.check_mode:
            result.update(first)
            return result
        args["archive"] = self._send(house, wheels, pins)
        result.update(self._ask(args, task_vars))
        return result

    def _ask(self, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module("hbagent.hbagent.release", module_args=args, task_vars=task_vars)
        return answer

    def _send(self, house: Path, wheels: list[Path], pins: str) -> str:
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        remote: str = shell.join_path(shell.tmpdir, "wheels.tar")
        descriptor, local = tempfile.mkstemp(prefix="hbagent-wheels-", suffix=".tar")
        try:
            with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
                for name in [*(path.name for path in wheels), PINS]:
                    content = pins.encode() if name == PINS else (house / name).read_bytes()
                    entry = tarfile.TarInfo(name)
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


def _pins(house: Path, extras: list[str]) -> str:
    try:
        return pins_for(house, extras)
    except ValueError as error:
        raise AnsibleActionFail(str(error)) from error


def _fitting(house: Path, own: Path, pins: str, python: str, machine: str, glibc: tuple[int, ...]) -> list[Path]:
    """One wheel for each pinned package, and hbagent's own."""
    names = [path.name for path in house.glob("*.whl")]
    try:
        chosen = choose(names, pins, python, machine, glibc)
    except ValueError as error:
        raise AnsibleActionFail(str(error)) from error
    return [*(house / name for name in chosen), own]
