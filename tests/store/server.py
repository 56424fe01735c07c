"""A PostgreSQL server of the tests' own: Debian's programs, a directory, a unix socket, and nothing that stays."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hbagent.demo.datacenter import wait_until

#: Who may connect how: one user has a password.
_ACCESS = "local all secretive,careful scram-sha-256\nlocal all all trust\n"
_numbers = itertools.count(1)


def programs() -> Path | None:
    """Where the newest installed server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server that answers, until the end; skips the test where none is installed."""
    if programs() is None:
        pytest.skip("needs postgresql (make deps)")
    # In /tmp itself: the server has a user of its own, which may not enter the tests' directories.
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as directory:
        server = Server(Path(directory))
        server.start()
        yield server
        server.stop()


class Server:
    """A server in `directory`, which must be short enough for a socket's path."""

    def __init__(self, directory: Path) -> None:
        bin_directory = programs()
        assert bin_directory is not None
        self._bin = bin_directory
        self.directory = directory
        self._data = directory / "data"
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        # It refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            os.chown(directory, pwd.getpwnam(self._user).pw_uid, -1)
        subprocess.run(
            [self._bin / "initdb", "-D", self._data, "-U", "root", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as_user(),
        )
        (self._data / "pg_hba.conf").write_text(_ACCESS)

    def _as_user(self) -> dict[str, Any]:
        return {"user": self._user, "cwd": self.directory, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}

    def start(self) -> None:
        """Returns when the server answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.directory), "shared_buffers": "16MB"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, *options], stdout=log, stderr=log, **self._as_user()
            )
        assert wait_until(self._answers, 50, step=0.02), self._log.read_text()[-2000:]

    def _answers(self) -> bool:
        try:
            return bool(self.ask("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Every connection is lost; what was committed is not."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def pause(self) -> None:
        """Have it hang, with all its processes."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *map(int, children.split())]

    def cut_off(self, application: str) -> None:
        """End the connections of an application."""
        self.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{application}'")
        count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'"
        assert wait_until(lambda: self.ask(count) == [(0,)], 30, step=0.01)

    def address(self, schema: str, user: str = "root", password: str = "") -> str:
        """An address of a store in a schema."""
        who = f"{user}:{password}@" if password else f"{user}@"
        return f"postgresql://{who}/postgres?host={self.directory}&options=-csearch_path%3D{schema}"

    def new_schema(self) -> str:
        """The name of an empty schema."""
        name = f"store{next(_numbers)}"
        self.ask(f"CREATE SCHEMA {name}")
        return name

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as an operator would."""
        with psycopg.connect(f"postgresql://root@/postgres?host={self.directory}", autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []
