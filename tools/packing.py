"""Fills a directory with hbagent and all that it runs on, byte for byte the same wherever it is done.

Both packages that need no network where they are installed are made from such a directory: the one-file program
(tools/pyz.py) and the Debian package (tools/deb.py). It holds what the wheels hold, for one interpreter, and nothing
that tells where it was made: no paths of this machine, no times but one, no bytecode (a package that wants some
compiles it last, for the time of each file is part of it).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: The time of all files; hatchling gives the same to those of the wheel.
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "1580601600"))


def fill(site: Path, python: str) -> None:
    """Fill `site` with the pinned packages and hbagent itself, for that interpreter.

    Raises subprocess.CalledProcessError when pip does not get them.
    """
    pins = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(ROOT / "constraints.txt")]
    pip("--python", python, "install", "--no-compile", "--target", str(site), *pins)
    with tempfile.TemporaryDirectory() as scratch:
        pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", scratch, str(ROOT))
        (wheel,) = Path(scratch).glob("hbagent-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            # What else a wheel has, the hooks, each package puts where it belongs.
            archive.extractall(site, [name for name in archive.namelist() if ".data/" not in name])
    forget_where(site)
    level(site)


def pip(*words: str) -> None:
    """Run pip, which says what it does on standard error only."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True)


def forget_where(site: Path) -> None:
    """Take away what names this machine: scripts with the path of an interpreter, and records of them."""
    for script in (site / "bin").glob("*"):
        script.unlink()
    (site / "bin").rmdir() if (site / "bin").is_dir() else None
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "/bin/" not in line and ".data/" not in line]
        record.write_text("".join(kept), "utf-8")


def level(tree: Path) -> None:
    """Give every file and directory below `tree` the same time, and a mode by which everybody may read it."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            program = path.stat().st_mode & 0o100 and ".so" not in path.suffixes
            path.chmod(0o755 if path.is_dir() or program else 0o644)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
