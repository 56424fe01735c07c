"""What is done to a program, against what a diagnosis says of it: a matrix over all kinds of `tests.e2e.victims.kinds`.

Each run is a fresh process, looked at twice: as one that nobody complains of, and, where that could be, as one of
which a probe or mark says that nothing moves. The first run of each kind goes through the command, the others ask the
library, in a process of their own. A program may be called DEADLOCKED only where one is made: that holds for every
run; everything else for 95 of 100.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hbagent.core.states import Stall
from tests.conftest import Figures
from tests.e2e.victims.kinds import Kind, Ward, kinds

#: Of each kind.
RUNS = int(os.environ.get("HBAGENT_RUNS", "2"))
SHARE = 0.95
#: A machine that stands still looks like a program that does. Where there are too few runs to bear one that is wrong,
#: it is made again; a proof that is none counts all the same.
TRIES = 1 if RUNS >= 20 else 3
#: At a time, of those that wait; those that burn run one by one.
ABREAST = 6
#: An examination takes 2 s; more than that the machine had no time for us.
EXAMINED_SECONDS = 60.0
#: Processors that everybody else has used meanwhile: from here on whoever wants to run may be STARVED, which is right.
#: An examination with the start of its interpreter takes a fifth of one.
CROWDED = 0.5
KINDS = kinds()
_LIBRARY = """
import sys, time, msgspec
from hbagent.diagnosis.examine import examine
findings = examine(int(sys.argv[1]), stuck=sys.argv[2:] == ["--stuck"])
print(msgspec.json.encode(findings).decode())
"""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.needs("gcc"),
    pytest.mark.timeout(60 + 15 * RUNS * len(KINDS)),
]


class Answer(NamedTuple):
    """What was said of one run, once."""

    kind: Kind
    stuck: bool
    said: str
    document: dict[str, Any]
    took_s: float
    #: The threads that the program itself named as the ring.
    ring: frozenset[int]
    #: Processors that all but the program used.
    others: float = 0.0

    @property
    def right(self) -> bool:
        if self.said == Stall.STARVED and self.others >= CROWDED:
            return True
        return self.said in (self.kind.stuck if self.stuck else self.kind.plain)

    @property
    def proved(self) -> frozenset[int]:
        """The threads of the proof."""
        proof = self.document.get("proof") or {"cycle": ()}
        return frozenset(link["tid"] for link in proof["cycle"])

    def __str__(self) -> str:
        how = "--stuck " if self.stuck else ""
        return f"{self.kind.name} {how}-> {self.said}: {self.document.get('text')} {self.document.get('details')}"


def look(pid: int, stuck: bool, by_command: bool) -> tuple[dict[str, Any], float]:
    """What is said of a process, and how long that took."""
    how = ["-m", "hbagent", "diagnose", "-o", "json"] if by_command else ["-c", _LIBRARY]
    begun = time.monotonic()
    asked = subprocess.run(
        [sys.executable, *how, str(pid), *(("--stuck",) if stuck else ())],
        capture_output=True,
        text=True,
        timeout=EXAMINED_SECONDS,
    )
    took_s = time.monotonic() - begun
    if not asked.stdout:
        return {"verdict": "nothing", "text": asked.stderr}, took_s
    document: dict[str, Any] = json.loads(asked.stdout)
    return document, took_s


def others_busy(pid: int) -> float:
    """Seconds that all processes of this machine but one have had a processor; proc(5)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Without the time in which nobody ran, and in which somebody waited for a disk.
    busy = sum(ticks) - ticks[3] - ticks[4] - int(own[11]) - int(own[12])
    return busy / os.sysconf("SC_CLK_TCK")


class Matrix:
    """All answers; the runs are made when the first test asks for one of them."""

    def __init__(self, ward: Ward, asked: tuple[Kind, ...]) -> None:
        self._ward = ward
        self._lock = threading.Lock()
        self.answers: dict[str, list[Answer]] = {kind.name: [] for kind in asked}
        #: Those of runs that were made again.
        self.again: list[Answer] = []
        #: Healthy programs that stood still, so that nothing can be said of them.
        self.void: list[str] = []
        for heavy, abreast in ((False, ABREAST), (True, 1)):
            rows = [(kind, number) for number in range(RUNS) for kind in asked if kind.heavy == heavy]
            # The threads stay until the end: a victim ends with the thread that started it.
            with ThreadPoolExecutor(abreast) as pool:
                for done in [pool.submit(self._try, kind, number) for kind, number in rows]:
                    done.result()

    def _try(self, kind: Kind, number: int) -> None:
        """One that cannot be arranged counts as wrong, and hides no other."""
        for left in reversed(range(TRIES)):
            try:
                answers, stood = self._run(kind, number)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                answers, stood = [Answer(kind, False, "not run", {"text": repr(error)}, 0.0, frozenset())], False
            well = not stood and all(answer.right for answer in answers)
            with self._lock:
                if left and not well:
                    self.again += answers
                    continue
                self.answers[kind.name] += answers
                self.void += [kind.name] if stood else []
                return

    def _run(self, kind: Kind, number: int) -> tuple[list[Answer], bool]:
        """What is said of it, and whether it stood still when it should not have."""
        with self._ward.victim(kind, number) as victim:
            ring = victim.ring()
            assert len(ring) == kind.ring or not kind.ring, f"{sorted(ring)} is no ring of {kind.ring}"
            answers = []
            for stuck in (False, True) if kind.stuck else (False,):
                busy_s = others_busy(victim.pid)
                document, took_s = look(victim.pid, stuck, by_command=number == 0)
                others = (others_busy(victim.pid) - busy_s) / took_s
                answer = Answer(kind, stuck, document["verdict"], document, took_s, ring, others)
                answers.append(answer)
            return answers, victim.standstill()

    def lines(self) -> list[str]:
        """One for each kind: how often it was called what."""
        lines = []
        for name, answers in self.answers.items():
            for stuck in (False, True):
                said = collections.Counter(answer.said for answer in answers if answer.stuck == stuck)
                words = ", ".join(f"{word} {count}" for word, count in said.most_common())
                wrong = "" if all(answer.right for answer in answers if answer.stuck == stuck) else "   <- wrong"
                if said:
                    lines.append(f"{name + (' --stuck' if stuck else ''):<28} {words}{wrong}")
        return lines


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, figures: Figures) -> Matrix:
    """Runs of the kinds whose tests were chosen."""
    specs = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [spec.params.get("kind") for spec in specs if spec is not None]
    names = {kind.name for kind in chosen if isinstance(kind, Kind)}
    asked = tuple(kind for kind in KINDS if kind.name in names or not names)
    made = Matrix(Ward(tmp_path_factory.mktemp("ward")), asked)
    for line in made.lines():
        figures("said", line)
    return made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_told_for_what_it_is(matrix: Matrix, kind: Kind) -> None:
    answers = matrix.answers[kind.name]
    wrong = [str(answer) for answer in answers if not answer.right]
    assert len(wrong) <= (1 - SHARE) * len(answers), wrong
    assert len(answers) == RUNS * (2 if kind.stuck else 1)


def test_nothing_is_called_deadlocked_but_what_is(matrix: Matrix) -> None:
    every = [*matrix.again, *(answer for answers in matrix.answers.values() for answer in answers)]
    said = [answer for answer in every if answer.said == Stall.DEADLOCKED]
    assert [str(answer) for answer in said if answer.kind.ring == 0] == []
    assert [str(answer) for answer in said if answer.proved != answer.ring] == [], "the wrong threads are named"


def test_healthy_programs_moved_while_they_were_looked_at(matrix: Matrix) -> None:
    assert matrix.void == []


def test_the_share_over_all_is_right(matrix: Matrix, figures: Figures) -> None:
    answers = [answer for answers in matrix.answers.values() for answer in answers]
    right = sum(answer.right for answer in answers)
    took = sorted(answer.took_s for answer in answers)
    times = f"half of them took {took[len(took) // 2]:.2f} s, the slowest {took[-1]:.2f} s"
    figures("said", f"{right} of {len(answers)} right; {times}")
    assert right >= SHARE * len(answers)


def test_the_harmless_victim_deadlocks_where_it_says() -> None:
    argv = [sys.executable, "-m", "hbagent.demo.victim", "--idle", "5"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            clerks = dict(word.split("=") for word in process.stdout.readline().split()[1:])
            for _ in range(TRIES):
                well, _ = look(process.pid, False, by_command=True)
                if well["verdict"] in (Stall.RUNNING, Stall.IDLE):
                    break
            process.send_signal(signal.SIGUSR1)
            locks = dict(word.split("=") for word in process.stdout.readline().split()[1:])
            stuck, _ = look(process.pid, False, by_command=True)
        finally:
            process.kill()
    assert well["verdict"] in (Stall.RUNNING, Stall.IDLE)
    assert stuck["verdict"] == Stall.DEADLOCKED
    waits = {(link["name"], link["tid"], link["address"]) for link in stuck["proof"]["cycle"]}
    assert waits == {
        ("clerk-buy", int(clerks["clerk-buy"]), locks["till"]),
        ("clerk-sell", int(clerks["clerk-sell"]), locks["stock"]),
    }


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 0.9, 1.1])
def test_a_program_that_is_killed_meanwhile_is_unknown_or_gone(after_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "hbagent.demo.victim", "--idle", "50"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        threading.Timer(after_s, process.kill).start()
        document, _ = look(process.pid, True, by_command=True)
    assert document["verdict"] in (Stall.UNKNOWN, Stall.SLOW, Stall.LOCK_WAIT), document
    assert "Traceback" not in document["text"]
