"""The prober as a process: light, single-threaded, bound to its agent, and going round whatever its probes do."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hbagent.core.checks import ExecCheck
from hbagent.core.config import AppConfig, ProbeConfig, ProberConfig
from hbagent.core.effects import Recall
from hbagent.core.messages import AppRow, Mark, ProbeResult, Recalled, Vitals
from hbagent.core.states import AppState, Health
from hbagent.core.units import MILLISECOND, SECOND
from hbagent.offspring import reaper
from hbagent.role.link import Configure, Line, Word
from tests.role.parts import until

#: What only hands may load, and what nobody beside an agent needs.
FORBIDDEN = (
    "zmq",
    "psutil",
    "loguru",
    "asyncio",
    "ssl",
    "tomli",
    "multiprocessing",
    "subprocess",
    "pathlib",
    "sqlite3",
)
#: A bare interpreter with msgspec has 12 MiB; beyond this something heavy has crept in.
RSS_MAX_MIB = 20


class Probing:
    """A prober process, and the test as its agent."""

    def __init__(self, *changed: str, **environment: str) -> None:
        """With settings of its modules that are `changed` before it begins."""
        self.link, theirs = socket.socketpair()
        self.link.setblocking(False)
        with theirs:
            command = [sys.executable, "-m", "hbagent.role.prober"]
            if changed:
                lines = ["import hbagent.role.probing as probing, hbagent.role.prober as prober", *changed]
                command = [sys.executable, "-c", "\n".join([*lines, "prober.main()"])]
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=theirs.fileno(), env={**os.environ, **environment}
            )
        self.words: list[Word] = []
        self._input = b""
        self._decoder: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(Word)

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def order(self, message: Any) -> None:
        body = msgspec.msgpack.encode(message)
        self.link.sendall(len(body).to_bytes(4, "big") + body)

    def configure(self, *probes: ProbeConfig, **settings: Any) -> None:
        self.order(Configure(ProberConfig(probes=probes, **{"facts_interval_ns": SECOND, **settings})))

    def hear(self) -> list[Word]:
        """Everything that it said until now."""
        while select.select([self.link], [], [], 0)[0]:
            try:
                data = self.link.recv(1 << 20)
            except ConnectionResetError:
                break
            if not data:
                break
            self._input += data
        while len(self._input) >= 4 and len(self._input) - 4 >= (size := int.from_bytes(self._input[:4], "big")):
            self.words.append(self._decoder.decode(self._input[4 : 4 + size]))
            self._input = self._input[4 + size :]
        return self.words

    def marks(self) -> int:
        return sum(isinstance(word, Mark) for word in self.hear())

    def vitals(self) -> Vitals:
        """The newest; one without anything when there is none yet."""
        told = [word for word in self.hear() if isinstance(word, Vitals)]
        return told[-1] if told else Vitals(health=Health.UNKNOWN)

    def probe(self, name: str) -> ProbeResult | None:
        return next((probe for probe in self.vitals().probes if probe.name == name), None)

    def app(self, name: str) -> AppRow | None:
        return next((app for app in self.vitals().apps if app.name == name), None)

    def lines(self, what: str) -> list[dict[str, Any]]:
        return [word.fields for word in self.hear() if isinstance(word, Line) and word.what == what]

    def family(self) -> list[int]:
        return [self.pid, *below(self.pid)]

    def wait(self, seconds: float = 20.0) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        for pid in self.family():
            reaper.fell([pid])
        self.process.kill()
        self.process.wait()
        self.link.close()


def below(pid: int) -> list[int]:
    found = []
    for child in reaper.children(pid):
        found += [child, *below(child)]
    return found


def shell(name: str, script: str, **settings: Any) -> ProbeConfig:
    times: dict[str, Any] = {
        "interval_ns": SECOND,
        "timeout_ns": 500 * MILLISECOND,
        "retry_interval_ns": SECOND,
        "rise": 1,
        "fall": 1,
    }
    return ProbeConfig(name=name, check=ExecCheck(argv=("/bin/sh", "-c", script)), **{**times, **settings})


def say(path: Path | str, text: str) -> None:
    """One datagram to a notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), str(path))


@pytest.fixture
def probing() -> Iterator[Probing]:
    """A prober that waits to be told what to do."""
    made = Probing()
    yield made
    made.end()


# ---- what it is ------------------------------------------------------------------------------------------


def test_it_loads_nothing_that_only_hands_need() -> None:
    # Of Python 3.10, what msgspec imports brings subprocess along.
    script = (
        "import sys, msgspec; before = set(sys.modules); import hbagent.role.prober, hbagent.role.probing;"
        "print(*(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert not [name for name in loaded.split() if name.partition(".")[0] in FORBIDDEN]


def test_it_is_small_and_stays_single_threaded_whatever_its_hands_load(probing: Probing) -> None:
    probing.configure(shell("p", "true"))
    assert until(lambda: probing.probe("p") and probing.vitals().facts)
    status = Path(f"/proc/{probing.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Threads"] == "1"
    assert int(fields["VmRSS"].split()[0]) < RSS_MAX_MIB * 1024
    libraries = Path(f"/proc/{probing.pid}/maps").read_text()
    assert not [name for name in ("libzmq", "_psutil", "libssl", "libcrypto") if name in libraries]


def test_before_it_is_told_what_to_do_it_does_nothing(probing: Probing) -> None:
    probing.order(Recall(1))
    assert until(lambda: probing.hear())
    assert probing.words == [Recalled(number=1, error="the prober is not configured yet")]


@pytest.mark.slow
@pytest.mark.paired
def test_its_mark_moves_each_second_and_facts_come_with_the_vitals(probing: Probing) -> None:
    probing.configure()
    assert until(lambda: probing.vitals().facts)
    begun, before = time.monotonic(), probing.marks()
    assert until(lambda: probing.marks() >= before + 3)
    assert time.monotonic() - begun > 1.5
    facts = probing.vitals().facts
    assert facts is not None
    assert facts.hostname == os.uname().nodename
    assert until(lambda: (found := probing.vitals().facts) is not None and found.cpu_percent is not None)


# ---- its end ---------------------------------------------------------------------------------------------

DEMON = "setsid sleep 4712 & sleep 4712"


@pytest.mark.parametrize("how", ["the link ends", "SIGTERM", "nonsense on the link"])
def test_it_ends_with_its_hands_and_all_that_they_started(probing: Probing, how: str) -> None:
    probing.configure(shell("hangs", DEMON, timeout_ns=60 * SECOND), shell("p", "true"))
    assert until(lambda: [pid for pid in probing.family() if reaper.command(pid) == "sleep"])
    family = probing.family()
    if how == "SIGTERM":
        os.kill(probing.pid, signal.SIGTERM)
    elif how == "the link ends":
        probing.link.close()
    else:
        probing.link.sendall(b"nonsense")
    assert probing.wait() == 0, "which would sleep for an hour by themselves"
    assert all(reaper.is_dead(pid) for pid in family)


def test_ctrl_c_at_a_terminal_is_for_the_agent(probing: Probing) -> None:
    probing.configure()
    assert until(probing.marks)
    os.kill(probing.pid, signal.SIGINT)
    before = probing.marks()
    assert until(lambda: probing.marks() > before)


# ---- its probes ------------------------------------------------------------------------------------------

NASTY = {
    "hangs": "sleep 4713",
    "deaf": "trap '' TERM INT; while :; do sleep 4713; done",
    "flees": "setsid sh -c 'sleep 4713 & sleep 4713' & exit 0",
    "floods": "yes",
    "forks": "for i in 1 2 3 4 5 6 7 8 9; do (sleep 4713 & sleep 4713 &) done; sleep 4713",
    "burns": "while :; do :; done",
    "garbage": "head -c 3000000 /dev/urandom; exit 1",
    "dies": "kill -9 $$",
    "stops": "kill -STOP $$",
}
FINE = (Health.OK, "fine")


@pytest.mark.slow
@pytest.mark.paired
def test_probes_that_hang_flee_flood_fork_or_die_move_no_mark_and_no_other_probe(probing: Probing) -> None:
    nasty = [shell(name, script) for name, script in NASTY.items()]
    probing.configure(*nasty, shell("good", "echo fine"), concurrency=16)
    # Found out by the first run of each, and some have run a few times more.
    assert until(lambda: all(probing.probe(name) for name in [*NASTY, "good"]))
    before = probing.marks()
    assert until(lambda: probing.marks() >= before + 5), "the loop goes round"
    for name in NASTY:
        probe = probing.probe(name)
        assert probe is not None
        assert probe.health is not Health.OK or name == "flees", (name, probe.text)
    # These two are run each second, and may meet one in which the machine stands still.
    assert until(lambda: (probe := probing.probe("flees")) is not None and probe.health is Health.OK)
    assert until(lambda: (probe := probing.probe("good")) is not None and (probe.health, probe.text) == FINE)
    assert not probing.lines("defect")
    family = probing.family()
    probing.link.close()
    assert probing.wait() == 0
    assert all(reaper.is_dead(pid) for pid in family)
    assert not [pid for pid in os.listdir("/proc") if pid.isdecimal() and arguments(int(pid)) == b"sleep\x004713\x00"]


def arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_other_settings_are_taken_over_and_a_probe_that_stays_keeps_its_state(probing: Probing) -> None:
    stays, goes, comes = shell("stays", "exit 2"), shell("goes", "true"), shell("comes", "true")
    probing.configure(stays, goes)
    assert until(lambda: probing.probe("stays") and probing.probe("goes"))
    probing.configure(stays, comes)
    assert until(lambda: probing.probe("comes"))
    assert probing.probe("goes") is None
    kept = probing.probe("stays")
    assert kept is not None
    assert kept.health is Health.CRITICAL


# ---- its applications ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.paired
def test_an_application_that_reports_itself_is_told_and_so_is_its_end(probing: Probing, socket_dir: Path) -> None:
    notify = socket_dir / "n"
    probing.configure(notify=str(notify))
    assert until(notify.exists)
    app = subprocess.Popen(["sleep", "60"])
    say(notify, f"X_HBAGENT_APP=web\nMAINPID={app.pid}\nREADY=1\nSTATUS=serving")
    assert until(lambda: (row := probing.app("web")) is not None and row.state is AppState.READY)
    row = probing.app("web")
    assert row is not None
    assert (row.pid, row.health, row.status) == (app.pid, Health.OK, "serving")
    app.kill()
    app.wait()
    assert until(lambda: (row := probing.app("web")) is not None and row.health is Health.CRITICAL)
    probing.link.close()
    probing.wait()
    assert not notify.exists(), "who reports now is told by the kernel that nobody listens"


class Reporting:
    """Programs that report to a prober, ended after the test."""

    def __init__(self, probing: Probing, notify: Path) -> None:
        self.probing, self.notify = probing, notify
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("HBAGENT", "NOTIFY", "WATCHDOG"))
        }
        environment = {**clean, "HBAGENT_NOTIFY": str(self.notify), "PYTHONPATH": str(Path(__file__).parents[2])}
        self.started.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True))
        return self.started[-1]

    def program(self, code: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-c", "import sys; from hbagent.progress import Progress\n" + code)

    def end(self) -> None:
        for process in self.started:
            for pid in (*below(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()

    def known(self, name: str) -> int:
        """Wait until the process of an application is known; which one it is."""
        assert until(lambda: (row := self.probing.app(name)) is not None and row.pid)
        row = self.probing.app(name)
        return row.pid if row is not None else 0

    def comes_to(self, name: str, state: AppState) -> bool:
        return until(lambda: (row := self.probing.app(name)) is not None and row.state is state)

    def healths(self, name: str) -> list[Health]:
        """All that was told of an application, each once."""
        told = [word for word in self.probing.hear() if isinstance(word, Vitals)]
        return list(dict.fromkeys(row.health for vitals in told for row in vitals.apps if row.name == name))


@pytest.fixture
def reporting(probing: Probing, socket_dir: Path) -> Iterator[Reporting]:
    made = Reporting(probing, socket_dir / "n")
    yield made
    made.end()


def _is_program(pid: int) -> bool:
    return reaper.command(pid) in ("sh", "sleep")


WORKER = """
progress = Progress(app=NAME)
mark = progress.mark("worker-3", window=0.5)
progress.ready()
"""


def worker(name: str) -> str:
    """The beginning of a program by that name."""
    return WORKER.replace("NAME", repr(name))


@pytest.mark.slow
@pytest.mark.paired
def test_a_worker_that_waits_for_its_first_job_is_idle(reporting: Reporting, probing: Probing) -> None:
    probing.configure(notify=str(reporting.notify))
    assert until(reporting.notify.exists)
    reporting.program(worker("idle") + "sys.stdin.read()")
    assert until(lambda: (row := probing.app("idle")) is not None and row.marks)
    reporting.program(worker("stuck") + "mark.queued(1); sys.stdin.read()")
    assert reporting.comes_to("stuck", AppState.STUCK)
    # The other one stands for longer.
    assert reporting.healths("idle") == [Health.OK]


@pytest.mark.slow
@pytest.mark.paired
def test_a_program_that_ends_as_programs_do_has_stopped_and_one_that_raises_has_failed(
    reporting: Reporting, probing: Probing
) -> None:
    probing.configure(notify=str(reporting.notify))
    assert until(reporting.notify.exists)
    for name, end in (("ends", ""), ("raises", "1 / 0"), ("exits", "sys.exit('no database')")):
        program = reporting.program(worker(name) + "sys.stdin.read(1)\n" + end)
        assert reporting.known(name)
        program.communicate("x", timeout=60)
    assert reporting.comes_to("ends", AppState.STOPPED)
    assert reporting.comes_to("raises", AppState.FAILED)
    assert reporting.comes_to("exits", AppState.FAILED)
    assert reporting.healths("ends") == [Health.OK]


@pytest.mark.slow
@pytest.mark.paired
def test_what_is_stopped_by_a_signal_to_run_app_has_stopped_and_what_crashes_has_failed(
    reporting: Reporting, probing: Probing
) -> None:
    probing.configure(notify=str(reporting.notify))
    assert until(reporting.notify.exists)
    planned = {"planned": "exec sleep 4714", "java": "trap 'exit 143' TERM; while :; do sleep 0.05; done"}
    programs = {**planned, "crash": "exec sleep 4714"}
    for name, script in programs.items():
        started = reporting.start(sys.executable, "-m", "hbagent", "run-app", name, "--", "sh", "-c", script)
        pid = reporting.known(name)
        # It is let go, and becomes the shell, once the agent knows it.
        assert until(functools.partial(_is_program, pid))
        os.kill(started.pid, signal.SIGTERM) if name in planned else os.kill(pid, signal.SIGSEGV)
        started.wait(60)
    for name in planned:
        assert reporting.comes_to(name, AppState.STOPPED)
        assert reporting.healths(name) == [Health.OK]
    assert reporting.comes_to("crash", AppState.FAILED)


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize(("result", "state"), [("success", AppState.STOPPED), ("core-dump", AppState.FAILED)])
def test_of_a_unit_that_ended_systemd_says_whether_it_was_stopped(
    socket_dir: Path, tmp_path: Path, result: str, state: AppState
) -> None:
    systemctl = tmp_path / "systemctl"
    active = "inactive" if result == "success" else "failed"
    systemctl.write_text(f"#!/bin/sh\necho ActiveState={active}; echo SubState=dead; echo Result={result}\n")
    systemctl.chmod(0o755)
    probing = Probing(PATH=f"{tmp_path}:{os.environ['PATH']}")
    reporting = Reporting(probing, socket_dir / "n")
    try:
        shop = AppConfig(name="shop", unit="shop.service", users=(os.getuid(),))
        probing.configure(notify=str(reporting.notify), apps=(shop,))
        assert until(reporting.notify.exists)
        program = reporting.program(worker("shop") + "sys.stdin.read()")
        assert reporting.known("shop")
        program.terminate()
        assert reporting.comes_to("shop", state)
        assert reporting.healths("shop") == ([Health.OK] if state is AppState.STOPPED else [Health.OK, Health.CRITICAL])
    finally:
        reporting.end()
        probing.end()


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.root
def test_a_user_who_is_not_of_its_unit_does_not_have_a_unit_restarted(probing: Probing, socket_dir: Path) -> None:
    notify = f"@hbagent-test-unit-{os.getpid()}"
    billing = AppConfig(name="billing", unit="billing.service", restart=True)
    probing.configure(notify=notify, apps=(billing,), state_dir=str(socket_dir / "state"))
    code = (
        "import os, socket, sys; os.setgid(54321); os.setuid(54321);"
        "text = 'X_HBAGENT_APP=billing\\nX_HBAGENT_MAIN=%d\\nWATCHDOG=trigger' % os.getpid();"
        "made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        "made.sendto(text.encode(), chr(0) + sys.argv[1]); sys.stdin.read()"
    )
    assert until(lambda: probing.app("billing") is not None)
    with subprocess.Popen([sys.executable, "-c", code, notify[1:]], stdin=subprocess.PIPE) as stranger:
        assert until(lambda: probing.lines("refused"))
        stranger.communicate()
    row = probing.app("billing")
    assert row is not None and (row.pid, row.state, row.health) == (0, AppState.READY, Health.OK)
    assert probing.lines("refused")[0]["reason"] == "forbidden"
    assert not probing.lines("examined") and not probing.lines("restarting-unit")


@pytest.mark.slow
@pytest.mark.paired
def test_a_socket_that_cannot_be_had_is_told_once_and_had_later(probing: Probing, socket_dir: Path) -> None:
    notify = socket_dir / "later" / "n"
    probing.configure(notify=str(notify))
    assert until(lambda: probing.lines("notify-unavailable"))
    assert probing.lines("notify-unavailable") == [{"path": str(notify), "error": "No such file or directory"}]
    notify.parent.mkdir()
    assert until(notify.exists)
    assert len(probing.lines("notify-unavailable")) == 1


@pytest.mark.slow
@pytest.mark.paired
def test_a_barrier_is_not_told_among_what_was_refused(socket_dir: Path) -> None:
    made = Probing(f"probing.TELL_REFUSED_NS = {100 * MILLISECOND}")
    try:
        notify = socket_dir / "n"
        made.configure(notify=str(notify))
        assert until(notify.exists)
        say(notify, "BARRIER=1")
        begun = made.marks()
        assert until(lambda: made.marks() > begun + 1)
        say(notify, "nothing")
        assert until(lambda: made.lines("notify-refused"))
        assert made.lines("notify-refused") == [{"malformed": 1}]
    finally:
        made.end()


def test_it_listens_where_the_new_settings_say(probing: Probing, socket_dir: Path) -> None:
    old, new = socket_dir / "old", socket_dir / "new"
    probing.configure(notify=str(old))
    assert until(old.exists)
    probing.configure(notify=str(new))
    assert until(new.exists)
    assert until(lambda: not old.exists())
    probing.configure()
    assert until(lambda: not new.exists())


@pytest.mark.slow
@pytest.mark.paired
def test_what_it_remembers_outlives_it(socket_dir: Path) -> None:
    settings: dict[str, Any] = {
        "notify": str(socket_dir / "n"),
        "state_dir": str(socket_dir / "state"),
        "apps": (AppConfig(name="job", ttl_ns=3600 * SECOND),),
    }
    state = socket_dir / "state" / "prober.json"
    first = Probing()
    try:
        first.configure(**settings)
        assert until((socket_dir / "n").exists)
        with subprocess.Popen(["sleep", "60"]) as app:
            say(socket_dir / "n", f"X_HBAGENT_APP=web\nMAINPID={app.pid}\nREADY=1")
            assert until(lambda: state.exists() and b"web" in state.read_bytes())
            first.end()
            second = Probing()
            try:
                second.configure(**settings)
                assert until(lambda: (row := second.app("web")) is not None and row.pid == app.pid)
                app.kill()
                assert until(lambda: (row := second.app("web")) is not None and row.health is Health.CRITICAL), (
                    "its end is seen by a prober that did not see its beginning"
                )
            finally:
                second.end()
    finally:
        first.end()


def test_a_directory_that_cannot_be_written_is_told_and_costs_nothing_else(probing: Probing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    probing.configure(shell("p", "true"), state_dir=str(tmp_path / "file" / "state"))
    assert until(lambda: probing.probe("p"))
    assert until(lambda: probing.lines("state-not-kept"))
