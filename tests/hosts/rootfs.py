"""The disk of a small Debian host with systemd and sshd, made once and kept outside of the tree.

It costs 50 s and 350 MB. Its name holds what it was made of, so a change makes another. Nobody writes to it: each host
lays a file system of its own over it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

#: Where it is kept between runs.
CACHE = Path(os.environ.get("HBAGENT_LAB_CACHE", "/var/cache/hbagent-lab"))
SUITE = "bookworm"
ATTEMPTS = 3
#: What every host of a datacenter has, and no more: python3 lacks the module `packaging`, as on real hosts.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-venv",
    "iproute2",
    "procps",
    "openssh-server",
)


def rootfs() -> Path:
    """The directory; made when there is none. Raises CalledProcessError, whose output says what is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    made = CACHE / f"rootfs-{SUITE}-{digest}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            draft = CACHE / f"{made.name}.draft"
            command = ("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(draft))
            # A mirror has its moments.
            for _ in range(ATTEMPTS):
                shutil.rmtree(draft, ignore_errors=True)
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                if not done.returncode:
                    break
            else:
                raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
            # Each host is told its name from outside.
            (draft / "etc/hostname").unlink(missing_ok=True)
            shutil.rmtree(draft / "var/cache/apt/archives", ignore_errors=True)
            draft.rename(made)
    return made
