"""Log lines: one line each whatever is in them, and a reader that stalls holds nobody up."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from hbagent.core.effects import Note
from hbagent.role import logs
from hbagent.role.logs import Log
from tests.role.parts import until

Open = Callable[..., "Piped"]


class Piped:
    """A log that writes into a pipe, and the reader's end."""

    def __init__(self, form: str = "text", level: str = "info", journal: bool = False) -> None:
        self.read_fd, self.write_fd = os.pipe()
        # The smallest that the kernel gives: it is full after a few lines.
        fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.read_fd, False)
        found = os.fstat(self.write_fd)
        environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}" if journal else "1:2"}
        self.log = Log("leader", level, form, self.write_fd, environment)
        self._text = b""

    def read(self) -> str:
        """All that has been written so far."""
        try:
            while data := os.read(self.read_fd, 65536):
                self._text += data
        except BlockingIOError:
            pass
        return self._text.decode()

    def lines(self, count: int) -> list[str]:
        """So many lines, as soon as they are there."""
        assert until(lambda: self.read().count("\n") >= count), self.read()
        return self.read().splitlines()

    def close(self) -> None:
        os.close(self.read_fd)
        self.log.close()
        os.close(self.write_fd)


@pytest.fixture
def open_log() -> Iterator[Open]:
    """Opens logs into pipes, closed after the test."""
    opened: list[Piped] = []

    def open_one(form: str = "text", level: str = "info", journal: bool = False) -> Piped:
        opened.append(Piped(form, level, journal))
        return opened[-1]

    yield open_one
    for piped in opened:
        piped.close()


def test_a_line_has_its_time_level_role_word_and_values(open_log: Open) -> None:
    piped = open_log()
    piped.log.write(
        "warning", "node-dead", {"node": "dc1/rack07/host12", "silent_s": 2.5, "nobody": (), "two": ("a", "b")}
    )
    (line,) = piped.lines(1)
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} WARNING leader node-dead"
        r" node=dc1/rack07/host12 silent_s=2\.5 nobody=none two=a,b",
        line,
    )


def test_a_cores_note_is_a_line(open_log: Open) -> None:
    piped = open_log()
    piped.log.note(Note("error", "journal-failed", {"reason": "No space left"}))
    assert piped.lines(1)[0].endswith('ERROR   leader journal-failed reason="No space left"')


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "evil",
    [
        "a\nERROR root node-dead node=x",
        "\x1b[2J\x1b]0;owned\x07",
        'quote" and \\ back',
        "\u202egnp.exe",
        "\udcff",
        "\x00\r\x85\u2028",
        "key=value",
    ],
)
def test_whatever_comes_from_outside_stays_within_its_line_and_its_value(open_log: Open, form: str, evil: str) -> None:
    piped = open_log(form)
    piped.log.write("info", "refused", {"detail": evil, "last": 1})
    piped.log.write("info", "end", {})
    first, second = piped.lines(2)
    assert second.endswith("end") or '"end"' in second
    assert all(" " <= character <= "~" for character in first)
    if form == "json":
        assert json.loads(first)["detail"] == evil
    else:
        value = re.fullmatch(r'.* refused detail=(".*") last=1', first)
        assert value is not None
        assert json.loads(value[1]) == evil


def test_a_json_line_is_one_document_whose_head_no_field_can_forge(open_log: Open) -> None:
    piped = open_log("json")
    piped.log.write("error", "defect", {"what": "calm", "level": "debug", "at": "never", "node": "n"})
    document = json.loads(piped.lines(1)[0])
    assert list(document) == ["at", "level", "role", "what", "node"]
    assert document["level"] == "error"
    assert document["what"] == "defect"
    assert document["node"] == "n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["at"])


def test_the_level_chooses_and_can_be_changed(open_log: Open) -> None:
    piped = open_log(level="warning")
    for level in ("debug", "info", "warning", "error"):
        piped.log.write(level, level, {})
    piped.log.set_level("debug")
    piped.log.write("debug", "later", {})
    assert [line.split()[-1] for line in piped.lines(3)] == ["warning", "error", "later"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_journal_is_given_the_level_as_it_wants_it(open_log: Open, form: str) -> None:
    piped = open_log(form, journal=True)
    for level in ("error", "warning", "info"):
        piped.log.write(level, "word", {"n": 1})
    found = [re.fullmatch(r"<(\d)>(.*)", line) for line in piped.lines(3)]
    assert [match[1] if match else None for match in found] == ["3", "4", "6"]
    if form == "text":
        assert found[0] is not None
        assert found[0][2] == "leader word n=1", "the journal has the time itself"


def test_a_journal_that_somebody_else_writes_to_changes_nothing(open_log: Open) -> None:
    piped = open_log(journal=False)
    piped.log.write("info", "word", {})
    assert not piped.lines(1)[0].startswith("<")


def test_a_reader_that_stalls_holds_nobody_up_and_what_is_lost_is_told(
    open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "QUEUE_MAX", 100)
    piped = open_log()
    # Nobody reads meanwhile: who waited for room would wait for ever.
    for number in range(400):
        piped.log.write("info", "line", {"n": number, "filler": "x" * 100})
    dropped = piped.log.dropped
    assert 200 < dropped <= 300
    assert until(lambda: piped.read().count(" line ") == 400 - dropped)
    piped.log.write("info", "afterwards", {})
    assert until(lambda: "afterwards" in piped.read())
    told = re.findall(r"WARNING leader log-lines-dropped count=(\d+)\n", piped.read())
    assert sum(map(int, told)) == dropped


def test_a_reader_that_went_away_is_no_trouble(open_log: Open) -> None:
    piped = open_log()
    os.close(piped.read_fd)
    for _ in range(3):
        piped.log.write("info", "line", {})
    assert until(lambda: piped.log.dropped == 3)
    piped.read_fd = os.open(os.devnull, os.O_RDONLY)


def test_a_terminal_that_somebody_made_non_blocking_loses_no_line(open_log: Open) -> None:
    piped = open_log()
    os.set_blocking(piped.write_fd, False)
    for number in range(100):
        piped.log.write("info", "line", {"n": number, "filler": "x" * 100})
    piped.log.write("info", "long", {"filler": "y" * 20_000})
    assert until(lambda: piped.read().count("\n") == 101)
    assert piped.read().count("y") == 20_000
    assert piped.log.dropped == 0


def test_closing_writes_what_waits_and_waits_for_no_stalled_reader(open_log: Open) -> None:
    piped = open_log()
    reader = threading.Thread(target=lambda: until(lambda: piped.read().count("\n") == 100))
    reader.start()
    for number in range(100):
        piped.log.write("info", "line", {"n": number, "filler": "x" * 100})
    piped.log.close(20.0)
    reader.join()
    assert piped.read().count("\n") == 100
    stalled = open_log()
    for _ in range(100):
        stalled.log.write("info", "line", {"filler": "x" * 100})
    # Nobody reads there until the test is over.
    stalled.log.close(0.1)
    assert stalled.log._thread.is_alive()


def test_a_process_with_a_stalled_reader_still_ends() -> None:
    script = (
        "from hbagent.role.logs import Log\n"
        "log = Log('agent', 'info', 'text')\n"
        "for number in range(3000): log.write('info', 'line', {'n': number, 'filler': 'x' * 100})\n"
        "log.close(0.1)\n"
    )
    read_fd, write_fd = os.pipe()
    try:
        process = subprocess.Popen([sys.executable, "-c", script], stderr=write_fd)
        assert process.wait(40) == 0
    finally:
        os.close(read_fd)
        os.close(write_fd)
