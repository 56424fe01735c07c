"""What goes wrong inside a Python interpreter: `python interpreter.py KIND`.

- `locks`: two threads hold a `threading.Lock` each and ask for the other's
- `regex`: a regular expression that backtracks without end, under the interpreter's lock; two threads wait for that
- `sleeping-c`: a C function sleeps and has kept the interpreter's lock; two threads wait for that
- `idle`: an HTTP server that nobody asks

It says READY when that is so.
"""

from __future__ import annotations

import ctypes
import http.server
import re
import sys
import threading
import time


def locks() -> None:
    """The threads are called `first` and `second`."""
    ours = threading.Lock(), threading.Lock()
    both = threading.Barrier(3)

    def cross(mine: threading.Lock, other: threading.Lock) -> None:
        with mine:
            both.wait()
            with other:
                pass

    for name, pair in (("first", ours), ("second", ours[::-1])):
        threading.Thread(target=cross, args=pair, name=name, daemon=True).start()
    both.wait()
    print("READY", flush=True)
    threading.Event().wait()


def _others_beat() -> None:
    def beat() -> None:
        while True:
            time.sleep(0.05)

    for _ in range(2):
        threading.Thread(target=beat, daemon=True).start()


def regex() -> None:
    """Each further `a` doubles the time."""
    _others_beat()
    print("READY", flush=True)
    re.match(r"(a+)+$", "a" * 60 + "b")


def sleeping_c() -> None:
    """What a library does that forgets to let go of the interpreter's lock."""
    _others_beat()
    libc = ctypes.PyDLL(None)
    print("READY", flush=True)
    libc.sleep(3600)


def idle() -> None:
    """A thread for each request, of which there are none."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    print("READY", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: it ends with who started it
    {"locks": locks, "regex": regex, "sleeping-c": sleeping_c, "idle": idle}[sys.argv[1]]()
