"""A program that does no harm and can really deadlock: `python -m hbagent.demo.victim`.

Two native threads, `clerk-buy` and `clerk-sell`, serve customers; each needs two pthread mutexes, the stock's and the
till's, and takes them in the same order. Told so by SIGUSR1, each takes one of the two and then asks for the other,
and neither comes back. The main thread lives on: customers keep coming and queue up, and the marks are still sent,
which is what an application looks like that is up and yet stuck.

It needs no compiler and nothing of hbagent. When `NOTIFY_SOCKET` is set it reports there: READY=1, and for each clerk a
mark with the customers served and those that wait. It ends when whoever started it ends, or after `--for` seconds.

As a drill (`--drill KIND --app NAME`) it registers under that name, works for some seconds, and then deadlocks, freezes
(SIGSTOP) or crashes (SIGKILL) by itself; a parent of its own sees to its end, and has it forgotten.

Standard output tells, one line each: `READY pid=… clerk-buy=… clerk-sell=…` (thread ids) and, once both clerks are
about to ask for the second mutex, `DEADLOCK stock=0x… till=0x…` (addresses).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import queue
import signal
import socket
import threading
import time

#: pthread_mutex_t takes 40 bytes on x86-64 and 48 on aarch64 (glibc); musl's is no larger.
_MUTEX_BYTES = 64
_PR_SET_NAME = 15
_PR_SET_PDEATHSIG = 1
#: What a drill can do.
DRILLS = ("deadlock", "freeze", "crash")
#: A customer for each clerk.
PACE_SECONDS = 0.05
MARKS_SECONDS = 0.2
#: Whoever comes then goes elsewhere.
QUEUE_MAX = 1_000
FOR_SECONDS = 3600.0
#: A stack of 8 MiB (glibc's default) is only address space, but some limits count it.
_STACK_BYTES = 256 * 1024

#: The calls let go of the interpreter's lock, so a thread that waits in one of them holds up no other.
_libc = ctypes.CDLL(None, use_errno=True)


class Mutex:
    """A plain pthread mutex in this process's heap."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(_MUTEX_BYTES)
        self.address = ctypes.addressof(self._memory)
        _libc.pthread_mutex_init(ctypes.c_void_p(self.address), None)

    def lock(self) -> None:
        """Wait until it is ours; without end in a deadlock."""
        _libc.pthread_mutex_lock(ctypes.c_void_p(self.address))

    def unlock(self) -> None:
        """Give it back."""
        _libc.pthread_mutex_unlock(ctypes.c_void_p(self.address))


class Clerk(threading.Thread):
    """Serves one customer after the other, and holds both mutexes meanwhile.

    `fatal` is the order in which it takes them when it is told to deadlock.
    """

    def __init__(self, name: str, healthy: tuple[Mutex, Mutex], fatal: tuple[Mutex, Mutex], both: threading.Barrier):
        super().__init__(name=name, daemon=True)
        self.served = 0
        #: True: a customer. False: the order to deadlock.
        self.customers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._healthy = healthy
        self._fatal = fatal
        self._both = both

    def run(self) -> None:
        """Serve; told so, deadlock."""
        name_thread(self.name)
        while self.customers.get():
            first, second = self._healthy
            first.lock()
            second.lock()
            self.served += 1
            second.unlock()
            first.unlock()
        first, second = self._fatal
        self._both.wait()  # the other serves nobody any more, so it gives the first one up to nobody
        first.lock()
        self._both.wait()
        second.lock()


class Shop:
    """Two clerks, their mutexes, and threads that only wait."""

    def __init__(self, idle: int = 0) -> None:
        self.stock, self.till = Mutex(), Mutex()
        both = threading.Barrier(3)
        healthy = (self.stock, self.till)
        self.clerks = (
            Clerk("clerk-buy", healthy, (self.stock, self.till), both),
            Clerk("clerk-sell", healthy, (self.till, self.stock), both),
        )
        self._both = both
        self._never = threading.Event()
        self._idle = [threading.Thread(target=self._wait, args=(f"idle-{n}",), daemon=True) for n in range(idle)]

    def open(self) -> None:
        """Start all threads."""
        threading.stack_size(_STACK_BYTES)
        for thread in (*self.clerks, *self._idle):
            thread.start()

    def _wait(self, name: str) -> None:
        name_thread(name)
        self._never.wait()

    def customers_come(self) -> None:
        """One to each clerk."""
        for clerk in self.clerks:
            if clerk.customers.qsize() < QUEUE_MAX:
                clerk.customers.put(True)

    def deadlock(self) -> None:
        """Return when each clerk holds the mutex that the other is about to ask for. Call it once."""
        for clerk in self.clerks:
            clerk.customers.put(False)
        self._both.wait()
        self._both.wait()

    def marks(self, window: float = 0) -> str:
        """Customers served and waiting, as a datagram for the notify socket; `window` in seconds, 0: not told."""
        more = f" window={window:g}" if window else ""
        marks = (f"X_HBAGENT_PROGRESS={c.name} {c.served} queued={c.customers.qsize()}{more}" for c in self.clerks)
        return "\n".join(marks)


def name_thread(name: str) -> None:
    """Give the calling thread a name that the kernel shows; 15 bytes of it are kept."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def tell(text: str) -> None:
    """One datagram to the socket in `NOTIFY_SOCKET`, if there is one. Nobody there is no trouble of ours."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(OSError):
            sender.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)


def wait(seconds: float, *signals: int) -> int:
    """Sleep; then the blocked signal that is there, or 0."""
    # `sigtimedwait` with a time hands out what it finds on the stack when it was stopped and continued meanwhile, and
    # the time is over (seen with CPython 3.11); without one it never waits.
    time.sleep(seconds)
    caught = signal.sigtimedwait(signals, 0)
    return 0 if caught is None else caught.si_signo


def serve(shop: Shop, seconds: float, drill: str = "", after: float = 0, window: float = 0, names: str = "") -> None:
    """Let customers come until SIGTERM, the end of the parent, or of the time; SIGUSR1 deadlocks the clerks.

    With a `drill` that happens by itself after `after` seconds. Each datagram begins with `names`: whoever listens may
    have come later than this.
    """
    begun, parent = time.monotonic(), os.getppid()
    until, marks_at, told = begun + seconds, begun, False
    while time.monotonic() < until and os.getppid() == parent:
        shop.customers_come()
        if time.monotonic() >= marks_at:
            marks_at = time.monotonic() + MARKS_SECONDS
            tell(names + shop.marks(window))
        caught = wait(PACE_SECONDS, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        if caught not in (0, signal.SIGUSR1):
            return
        if told or (not caught and not (drill and time.monotonic() >= begun + after)):
            continue
        told = True
        if drill == "freeze":
            print("FREEZE", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        elif drill == "crash":
            print("CRASH", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            shop.deadlock()
            print(f"DEADLOCK stock={shop.stock.address:#x} till={shop.till.address:#x}", flush=True)


def see_to(child: int, app: str, seconds: float) -> None:
    """The parent of a drill: tell how it ended, and have it forgotten when the time is over or SIGTERM comes."""
    until, alive = time.monotonic() + seconds, True
    while time.monotonic() < until:
        if alive and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            alive = False
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            tell(f"X_HBAGENT_APP={app}\nX_HBAGENT_RESULT={status if status >= 0 else 128 - status}")
        left = max(0.0, min(until - time.monotonic(), 0.1))
        if wait(left, signal.SIGTERM, signal.SIGINT):
            break
    if alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    tell(f"X_HBAGENT_APP={app}\nX_HBAGENT_FORGET=1")


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m hbagent.demo.victim", description="deadlocks on SIGUSR1")
    parser.add_argument("--idle", type=int, default=0, metavar="N", help="threads that only wait, to hide among")
    parser.add_argument("--for", type=float, default=FOR_SECONDS, metavar="SECONDS", dest="seconds")
    parser.add_argument("--drill", choices=DRILLS, default="", help="do this by itself")
    parser.add_argument("--app", default="", metavar="NAME", help="register under this name")
    parser.add_argument("--after", type=float, default=4.0, metavar="SECONDS", help="work for so long before the drill")
    parser.add_argument("--window", type=float, default=0, metavar="SECONDS", help="its marks must move within this")
    options = parser.parse_args()
    # Blocked before any thread is made, so that none of them is interrupted and `wait` gets them all.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT))
    if options.drill:
        child = os.fork()
        if child:
            see_to(child, options.app, options.seconds)
            return
        # Frozen, it would not notice the end of its parent.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    shop = Shop(options.idle)
    shop.open()
    names = f"X_HBAGENT_APP={options.app}\nX_HBAGENT_MAIN={os.getpid()}\n" if options.app else ""
    tell(f"{names}READY=1\nSTATUS=open")
    clerks = " ".join(f"{clerk.name}={clerk.native_id}" for clerk in shop.clerks)
    print(f"READY pid={os.getpid()} {clerks}", flush=True)
    serve(shop, options.seconds, options.drill, options.after, options.window, names)
    # Threads that wait for a mutex cannot be joined.
    os._exit(0)


if __name__ == "__main__":
    main()
