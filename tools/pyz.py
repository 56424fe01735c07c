"""Makes the one-file program: `python -m tools.pyz dist/hbagent.pyz`.

It holds the packages of the Python that makes it, runs on that minor version, and unpacks itself at its first start
(see tools/pyz_start.py). The same tree and the same pins give the same file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.packing import EPOCH, fill

START = Path(__file__).resolve().parent / "pyz_start.py"
#: The line of START that says for whom the file is made.
UNSAID = "MADE_FOR = (sys.version_info[:2], os.uname().machine)"


def make(target: Path) -> None:
    """Write the program to `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    minor = sys.version_info[:2]
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch, "site-packages")
        fill(site, sys.executable)
        start = Path(scratch, "start.py")
        text = START.read_text("utf-8")
        assert text.count(UNSAID) == 1
        start.write_text(text.replace(UNSAID, f"MADE_FOR = {(minor, os.uname().machine)!r}"), "utf-8")
        start.chmod(0o644)
        # Bytecode is made where it is unpacked: it is larger than the source, and packs badly.
        command = [sys.executable, "-m", "shiv", "--site-packages", str(site), "--entry-point", "hbagent.cli:main"]
        command += ["--compile-pyc", "--reproducible", "--preamble", str(start)]
        command += ["--python", "/usr/bin/env python{}.{}".format(*minor), "--output-file", str(target)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
