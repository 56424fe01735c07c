"""Copies of this tree, so that what is built of it is built of one state, and leaves nothing here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What packages are made of.
DIRECTORIES = ("ansible", "deploy", "docs", "etc", "hbagent", "packaging", "tools")
FILES = ("*.md", "*.txt", "LICENSE", "Makefile", "pyproject.toml")


def copy_of_the_tree(to: Path) -> Path:
    """Copy everything into the directory `to`, which is there; `to` again."""
    for name in DIRECTORIES:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in FILES:
        for file in ROOT.glob(pattern):
            shutil.copy(file, to)
    return to


def tool(tree: Path, name: str, *words: str) -> str:
    """What a program of a tree's tools/ prints. Raises AssertionError when it fails."""
    command = [sys.executable, "-m", f"tools.{name}", *words]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def as_version(tree: Path, version: str) -> None:
    """Let a tree call itself another version."""
    file = tree / "hbagent" / "__init__.py"
    lines = file.read_text("utf-8").splitlines(keepends=True)
    assert lines[-1].startswith("__version__")
    file.write_text("".join([*lines[:-1], f'__version__ = "{version}"\n']), "utf-8")
