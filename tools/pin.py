"""Writes the constraints files: the exact versions that are tested and shipped, with the hashes of their files.

Version ranges stand in pyproject.toml; this resolves them with pip for every Python and machine that is served,
and keeps only name, version and sha256, so the result says nothing of where the files came from. The oldest Python
chooses, the others follow: one version of a package everywhere. Run it (`make pins`) to move to newer versions,
and read the difference. It needs an interpreter of each of PYTHONS, since pip judges environment markers by the
interpreter that it runs in.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
#: Newer than what hosts may have: Ansible's own demand on the machine that it runs on.
CONTROLLER_PYTHONS = PYTHONS[1:]
MACHINES = ("x86_64", "aarch64")
#: glibc 2.28 is RHEL 8 and Debian 10; nothing older has a Python that is new enough.
GLIBCS = ("manylinux_2_28", "manylinux_2_26", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010")
#: Asked for by the build backend when it makes an editable install.
BUILD_EXTRAS = ("editables",)


class Pin:
    """One package: its version, the hashes of its files, the Pythons that need it."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.hashes: set[str] = set()
        self.pythons: set[str] = set()


Pins = dict[str, Pin]


def interpreter(python: str) -> str:
    """A working interpreter of that version; the newest may be stood in for by the one before it."""
    candidates = [python, PYTHONS[-2]] if python == PYTHONS[-1] else [python]
    for version in candidates:
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return found
    raise SystemExit(f"pin: python{python} with pip is needed to judge its environment markers")


def resolve(requirements: Iterable[str], pins: Pins, pythons: Iterable[str] = PYTHONS) -> None:
    """Add to `pins` what pip chooses for each Python and machine, holding to the versions that are there."""
    for python in pythons:
        for machine in MACHINES:
            print(f"python {python} {machine}", file=sys.stderr)
            for item in chosen(requirements, python, machine, pins):
                name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
                pin = pins.setdefault(name, Pin(item["metadata"]["version"]))
                pin.hashes.add(item["download_info"]["archive_info"]["hashes"]["sha256"])
                pin.pythons.add(python)


def chosen(requirements: Iterable[str], python: str, machine: str, pins: Pins) -> list[Any]:
    """The entries of pip's report for one Python and machine."""
    with tempfile.TemporaryDirectory() as scratch:
        report, held = Path(scratch) / "report.json", Path(scratch) / "held.txt"
        held.write_text("".join(f"{name}=={pin.version}\n" for name, pin in pins.items()))
        command = [interpreter(python), "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--disable-pip-version-check", "--only-binary", ":all:", "--target", scratch]
        command += ["--report", str(report), "--constraint", str(held), "--python-version", python]
        for glibc in GLIBCS:
            command += ["--platform", f"{glibc}_{machine}"]
        done = subprocess.run([*command, *requirements], stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"pin: pip finds no answer for python {python} on {machine}:\n{done.stderr}")
        entries: list[Any] = json.loads(report.read_text())["install"]
        return entries


def marker(pythons: set[str]) -> str:
    """The environment marker of a package that only some Pythons need; "" when all do."""
    needed = [python in pythons for python in PYTHONS]
    first, end = needed.index(True), len(needed) - needed[::-1].index(True)
    if not all(needed[first:end]):
        raise SystemExit(f"pin: no simple marker for {sorted(pythons)}")
    bounds = [f'python_version >= "{PYTHONS[first]}"'] if first else []
    bounds += [f'python_version < "{PYTHONS[end]}"'] if end < len(PYTHONS) else []
    return f" ; {' and '.join(bounds)}" if bounds else ""


def write(file: Path, heading: str, pins: Pins, names: Iterable[str]) -> None:
    """Write the named pins to `file` as requirements with hashes."""
    lines = [heading]
    for name in sorted(names):
        pin = pins[name]
        hashes = [f"    --hash=sha256:{digest}" for digest in sorted(pin.hashes)]
        lines.append(" \\\n".join([f"{name}=={pin.version}{marker(pin.pythons)}", *hashes]))
    file.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Write constraints.txt (what a host runs), constraints-postgres.txt (that, and a store elsewhere),
    constraints-dev.txt (that, the checks and the build) and constraints-controller.txt (what Ansible is run and
    checked with)."""
    project = tomli.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["dependencies"]
    pins: Pins = {}
    resolve(needed, pins)
    runtime = list(pins)
    heading = (
        "# What hbagent runs on, each file by its hash; written by `make pins`. For Linux with glibc 2.28 or newer.\n"
    )
    write(
        ROOT / "constraints.txt", heading + "# Install: pip install --require-hashes -r constraints.txt", pins, runtime
    )
    extras = project["project"]["optional-dependencies"]
    resolve([*needed, *extras["postgres"]], pins)
    heading = "# What a root needs beside it to keep its history in PostgreSQL; written by `make pins`.\n"
    names = [name for name in pins if name not in runtime]
    write(ROOT / "constraints-postgres.txt", heading + "-r constraints.txt", pins, names)
    beside = extras["dev"] + project["build-system"]["requires"]
    resolve([*needed, *beside, *BUILD_EXTRAS], pins)
    heading = "# What the checks, the tests and the build need beside what hbagent runs on; written by `make pins`.\n"
    names = [name for name in pins if name not in runtime]
    write(ROOT / "constraints-dev.txt", heading + "-r constraints.txt", pins, names)
    controller: Pins = {}
    resolve(project["dependency-groups"]["controller"], controller, CONTROLLER_PYTHONS)
    heading = "# What the playbooks are run and checked with, on one machine of its own; written by `make pins`."
    write(ROOT / "constraints-controller.txt", heading, controller, controller)


if __name__ == "__main__":
    main()
