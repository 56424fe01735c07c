"""A program in C that is compiled for a test, started, and ready when it says so."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

HEAD = """
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void ready(void) { puts("ready"); fflush(stdout); pause(); }
"""
#: Two threads cross two locks; `main` is ready when both have theirs and a hundred more sleep.
CROSSED = """
pthread_mutex_t till = PTHREAD_MUTEX_INITIALIZER, safe = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both;
static void *take(void *first) {
    pthread_mutex_t *second = first == &till ? &safe : &till;
    pthread_setname_np(pthread_self(), first == &till ? "teller" : "guard");
    pthread_mutex_lock(first);
    pthread_barrier_wait(&both);
    pthread_mutex_lock(second);
    return NULL;
}
static void *sleeper(void *nothing) { pause(); return nothing; }
int main(void) {
    pthread_t thread;
    pthread_barrier_init(&both, NULL, 3);
    for (int i = 0; i < 97; i++) pthread_create(&thread, NULL, sleeper, NULL);
    pthread_create(&thread, NULL, take, &till);
    pthread_create(&thread, NULL, take, &safe);
    pthread_barrier_wait(&both);
    ready();
}
"""
#: Two threads use two mutexes as semaphores, which a third one unlocks when it gets SIGUSR1: until then they wait in a
#: ring, and no look from outside can tell that from a deadlock.
HANDED_ON = """
#include <signal.h>
pthread_mutex_t till = PTHREAD_MUTEX_INITIALIZER, safe = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both;
static void *take(void *first) {
    pthread_mutex_t *second = first == &till ? &safe : &till;
    pthread_setname_np(pthread_self(), first == &till ? "teller" : "guard");
    pthread_mutex_lock(first);
    pthread_barrier_wait(&both);
    pthread_mutex_lock(second);
    puts("went on");
    fflush(stdout);
    pause();
    return NULL;
}
int main(void) {
    pthread_t thread;
    sigset_t asked;
    int number;
    sigemptyset(&asked);
    sigaddset(&asked, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &asked, NULL);
    pthread_barrier_init(&both, NULL, 3);
    pthread_create(&thread, NULL, take, &till);
    pthread_create(&thread, NULL, take, &safe);
    pthread_barrier_wait(&both);
    puts("ready");
    fflush(stdout);
    sigwait(&asked, &number);
    pthread_mutex_unlock(&till);
    pthread_mutex_unlock(&safe);
    pause();
}
"""


def waiting(pid: int, name: str) -> list[list[str]]:
    """The system calls of the threads of a name."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [(task / "syscall").read_text().split() for task in tasks if (task / "comm").read_text().strip() == name]


def locked_out(pid: int) -> bool:
    """Whether both threads of `CROSSED` wait, without a time limit, where they meet no more."""
    calls = [call for name in ("teller", "guard") for call in waiting(pid, name)]
    return len(calls) == 2 and all(call[:1] == ["202"] and call[4] == "0x0" for call in calls)


@contextlib.contextmanager
def victim(directory: Path, source: str, *flags: str) -> Iterator[int]:
    """The id of a process that runs `source` behind `HEAD`."""
    program = directory / "victim"
    (directory / "victim.c").write_text(HEAD + source)
    subprocess.run(["gcc", "-O1", "-pthread", *flags, "-o", program, directory / "victim.c"], check=True)
    with subprocess.Popen([program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()
