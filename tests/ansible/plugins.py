"""Plugins of the collection, read from their files: what they decide needs no Ansible, and is tested without it."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

COLLECTION = Path(__file__).resolve().parents[2] / "ansible"
MODULE_UTILS = sorted((COLLECTION / "plugins/module_utils").glob("*.py"))
UTILS = "ansible_collections.hbagent.hbagent.plugins.module_utils"


def plugin(kind: str, name: str) -> ModuleType:
    """The plugin `name` of plugins/`kind`."""
    path = COLLECTION / "plugins" / kind / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"collection_{kind}_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def host_module(name: str) -> ModuleType:
    """A module that runs on hosts, without what Ansible gives it there."""
    basic = ModuleType("ansible.module_utils.basic")
    basic.AnsibleModule = None  # type: ignore[attr-defined]
    names = {"ansible": ModuleType("ansible"), "ansible.module_utils": ModuleType("ansible.module_utils")}
    # What is found by its full name needs nothing above it.
    shared = {f"{UTILS}.{path.stem}": plugin("module_utils", path.stem) for path in MODULE_UTILS}
    with mock.patch.dict(sys.modules, {**names, "ansible.module_utils.basic": basic, **shared}):
        return plugin("modules", name)


@contextlib.contextmanager
def running_from(directory: Path) -> Iterator[int]:
    """A process whose program lies in a directory; its pid."""
    program = directory / "daemon"
    program.symlink_to(str(shutil.which("sleep")))
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            # The kernel lets us go on before it shows what it runs.
            until = time.monotonic() + 10
            while str(program).encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                assert time.monotonic() < until
            yield process.pid
        finally:
            process.kill()


def inventory(
    racks: dict[str, list[str]], leaders: list[str], roots: list[str], **more: list[str]
) -> dict[str, list[str]]:
    """Groups as Ansible has them."""
    groups = {f"rack_{name}": hosts for name, hosts in racks.items()}
    every = list(dict.fromkeys(host for hosts in (*racks.values(), leaders, roots, *more.values()) for host in hosts))
    return {"all": every, "ungrouped": [], "hbagent_leaders": leaders, "hbagent_root": roots, **groups, **more}


def addresses(groups: dict[str, list[str]], *, six: bool = False) -> dict[str, dict[str, str]]:
    """An address for each host."""
    form = "2001:db8::{}" if six else "192.0.2.{}"
    return {host: {"ansible_host": form.format(number)} for number, host in enumerate(groups["all"], 1)}
