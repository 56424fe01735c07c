"""Processes that wait for a filesystem: `python disk.py KIND DIRECTORY`, as root.

- `dead-file`: reads a file on a FUSE filesystem whose server never answers that read
- `dead-word`: waits for a futex that lies in such a file; the page went out of memory since, so whoever reads the word
  waits without end
- `frozen`: writes to a disk that was frozen (`fsfreeze`)

The filesystems live in a mount namespace of their own and go away with it. `READY pid` names the process that waits.
It ends, and lets the disk thaw, when its standard input ends: a process that waits for a frozen disk cannot be killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_NAME = 15
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
SYS_FUTEX = 202
SIZE = 8192
BUFFER = 1 << 17

# The FUSE protocol as linux/fuse.h has it: opcodes, and headers in native byte order.
LOOKUP, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, OPENDIR, ACCESS = 1, 3, 14, 15, 17, 18, 25, 26, 27, 34
FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
ENOSYS = 38
ROOT_NODE, FILE_NODE = 1, 2
_IN = struct.Struct("=IIQQIIII")
_OUT = struct.Struct("=IiQ")
_ATTRIBUTES = struct.Struct("=QQQQQQIIIIIIIIII")

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """A libc function; raises OSError where it says -1."""
    result: int = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


class DeadFiles(threading.Thread):
    """A FUSE server with one file, `file`. Once `dead` is set it answers no read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.dead = threading.Event()
        #: A read came that will never be answered.
        self.asked = threading.Event()
        #: Who waits for the filesystem closes its copy: the last one to be closed lets all waiters go.
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0".encode()
        call("mount", b"dead", os.fsencode(directory), b"fuse", 6, options)

    def run(self) -> None:
        """Answer until the filesystem is gone."""
        while True:
            try:
                request = os.read(self.device, BUFFER + 4096)
            except OSError:
                return
            _, operation, unique, node, *_ = _IN.unpack_from(request)
            answer = self._answer(operation, node, request[_IN.size :])
            if answer is None:
                continue
            error, body = answer
            os.write(self.device, _OUT.pack(_OUT.size + len(body), -error, unique) + body)

    def _answer(self, operation: int, node: int, body: bytes) -> tuple[int, bytes] | None:
        if operation == INIT:
            major, minor, ahead, _flags = struct.unpack_from("=IIII", body)
            return 0, struct.pack("=IIIIHHIIHHI28x", major, min(minor, 31), ahead, 0, 0, 0, BUFFER, 1, 0, 0, 0)
        if operation == LOOKUP:
            return 0, struct.pack("=QQQQII", FILE_NODE, 0, 3600, 3600, 0, 0) + _attributes(FILE_NODE)
        if operation == GETATTR:
            return 0, struct.pack("=QII", 3600, 0, 0) + _attributes(node)
        if operation in (OPEN, OPENDIR):
            return 0, struct.pack("=QII", 1, 0, 0)
        if operation in (RELEASE, FLUSH, ACCESS):
            return 0, b""
        if operation in (FORGET, BATCH_FORGET, INTERRUPT):
            return None
        if operation != READ:
            return ENOSYS, b""
        if self.dead.is_set():
            self.asked.set()
            return None
        _, offset, size = struct.unpack_from("=QQI", body)
        return 0, bytes(max(0, min(size, SIZE - offset)))


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == ROOT_NODE else 0o100644
    return _ATTRIBUTES.pack(node, SIZE, 16, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def fork() -> int:
    """0 in the child, which ends with us."""
    child = os.fork()
    if child == 0:
        call("prctl", 1, int(signal.SIGKILL), 0, 0, 0)
    return child


def dead_file(directory: Path) -> int:
    """A reader that waits."""
    files = DeadFiles(directory)
    files.dead.set()
    # Forked before there is a thread; it reads once the server runs.
    child = fork()
    if child == 0:
        os.close(files.device)
        with open(directory / "file", "rb") as file:
            file.read(10)
        os._exit(3)
    files.start()
    assert files.asked.wait(10), "nobody reads"
    return child


def dead_word(directory: Path) -> int:
    """A thread that waits for a futex whose page is gone."""
    files = DeadFiles(directory)
    ready, told = os.pipe()
    child = fork()
    if child == 0:
        os.close(files.device)
        descriptor = os.open(directory / "file", os.O_RDONLY)
        libc.mmap.restype = ctypes.c_void_p
        word = ctypes.c_void_p(libc.mmap(None, SIZE, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0))
        waiting = threading.Thread(target=libc.syscall, args=(SYS_FUTEX, word, 0, 0, None))
        waiting.start()
        while not _waits_for(waiting.native_id, word.value):
            time.sleep(0.01)
        # Out of our page table, then out of the page cache.
        call("madvise", word, SIZE, mmap.MADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.write(told, b".")
        threading.Event().wait()
    files.start()
    os.read(ready, 1)
    files.dead.set()
    return child


def _waits_for(thread: int | None, word: int | None) -> bool:
    """Asleep in the futex call: on its way there it waits for the interpreter, and for the page."""
    task = Path(f"/proc/self/task/{thread}")
    call, place = (task / "syscall").read_text().split(), (task / "wchan").read_text()
    return call[:2] == [str(SYS_FUTEX), hex(word or 0)] and place.startswith("futex")


def frozen(directory: Path) -> int:
    """A writer that waits."""
    image = directory.with_name(f"{directory.name}.img")
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    image.unlink()
    fcntl.ioctl(os.open(directory, os.O_RDONLY), FIFREEZE, 0)
    child = fork()
    if child == 0:
        with open(directory / "file", "wb") as file:
            file.write(b"x")
        os._exit(3)
    return child


def main(kind: str, directory: Path) -> None:
    """Arrange it, wait, clear up."""
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    directory.mkdir(parents=True, exist_ok=True)
    child = {"dead-file": dead_file, "dead-word": dead_word, "frozen": frozen}[kind](directory)
    try:
        print(f"READY {child}", flush=True)
        sys.stdin.read()
    finally:
        if kind == "frozen":
            fcntl.ioctl(os.open(directory, os.O_RDONLY), FITHAW, 0)
        os.kill(child, signal.SIGKILL)
        # A FUSE server that ends ends what waits for it; this is the last that holds its descriptor.
        os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main(sys.argv[1], Path(sys.argv[2]))
