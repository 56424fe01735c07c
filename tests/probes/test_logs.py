"""Logs that go on, fall silent, are rotated, cut and overwritten, on a real filesystem."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbagent.core.checks import LogCheck
from hbagent.core.messages import CheckFinished
from hbagent.core.states import Health
from hbagent.core.units import MINUTE, SECOND
from hbagent.probes.check import run
from hbagent.probes.logs import LINE_MAX, READ_MAX


class Reader:
    """Runs one check again and again with its memory."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self.check = LogCheck(path=str(path), **fields)
        self.memory: dict[str, Any] = {}

    def run(self) -> CheckFinished:
        result = run(self.check, 20 * SECOND, self.memory)
        self.memory = result.memory
        return result

    def earlier(self, duration_ns: int) -> None:
        """Let so much time pass: what is remembered was so much earlier."""
        for name in ("seen_ns", "warning_until_ns", "critical_until_ns"):
            self.memory[name] -= duration_ns


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_text("ERROR long ago\n")
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def value(result: CheckFinished, label: str) -> float | None:
    return {measure.label: measure.value for measure in result.measures}[label]


def test_what_stood_there_before_is_nobodys_news(log: Path) -> None:
    reader = Reader(log, critical="ERROR")
    assert reader.run().health is Health.OK
    append(log, "fine\n")
    assert reader.run().health is Health.OK


def test_a_bad_line_counts_for_a_while_and_then_no_more(log: Path) -> None:
    reader = Reader(log, warning="slow", critical="ERROR", hold_ns=5 * MINUTE)
    reader.run()
    append(log, "a\nslow query\nERROR: disk\x1b[31m on fire\nb\n")
    first = reader.run()
    assert first.health is Health.CRITICAL
    assert first.text.endswith("ERROR: disk [31m on fire")
    assert [value(first, name) for name in ("lines", "warning", "critical")] == [4, 1, 1]
    again = reader.run()
    assert again.health is Health.CRITICAL and value(again, "critical") == 0
    reader.earlier(6 * MINUTE)
    assert reader.run().health is Health.OK


def test_an_unfinished_line_is_read_once_when_it_is_finished(log: Path) -> None:
    reader = Reader(log, critical="ERROR")
    append(log, "ERR")
    reader.run()
    append(log, "OR half")
    assert reader.run().health is Health.OK
    append(log, " and half\n")
    result = reader.run()
    assert value(result, "critical") == 1
    assert result.text.endswith("ERROR half and half")


def test_silence_is_critical_and_a_line_ends_it(log: Path) -> None:
    reader = Reader(log, silence_ns=MINUTE)
    assert reader.run().health is Health.OK
    reader.earlier(2 * MINUTE)
    silent = reader.run()
    assert silent.health is Health.CRITICAL and "no line for 2m" in silent.text
    append(log, "back\n")
    assert reader.run().health is Health.OK


def test_a_log_that_was_silent_before_the_first_run_is_silent(log: Path) -> None:
    then = time.time() - 3600
    os.utime(log, (then, then))
    assert Reader(log, silence_ns=MINUTE).run().health is Health.CRITICAL
    # When a matching line came last is not known.
    assert Reader(log, silence_ns=MINUTE, match="x").run().health is Health.OK


def test_only_matching_lines_break_the_silence(log: Path) -> None:
    reader = Reader(log, silence_ns=MINUTE, match="served")
    reader.run()
    reader.earlier(2 * MINUTE)
    append(log, "noise\n")
    assert reader.run().health is Health.CRITICAL
    append(log, "served 1\n")
    assert reader.run().health is Health.OK


def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(log: Path) -> None:
    reader = Reader(log, critical="ERROR", match="line")
    reader.run()
    append(log, "line 1\nERROR in the old one\n")
    log.rename(log.with_suffix(".log.1"))
    log.write_text("line 2\n")
    result = reader.run()
    assert result.health is Health.CRITICAL
    assert value(result, "match") == 2
    append(log, "line 3\n")
    assert value(reader.run(), "match") == 1


def test_a_log_whose_old_file_is_gone_goes_on_with_the_new_one(log: Path) -> None:
    reader = Reader(log, match="line")
    reader.run()
    keeper = log.open()
    log.unlink()
    log.write_text("line 1\nline 2\n")
    assert value(reader.run(), "match") == 2
    keeper.close()


@pytest.mark.parametrize("content", ["line 1\n", "line 1, and longer than what stood there before it\n"])
def test_a_log_that_was_cut_or_overwritten_is_read_from_its_beginning(log: Path, content: str) -> None:
    reader = Reader(log, match="line")
    reader.run()
    log.write_text(content)
    assert value(reader.run(), "match") == 1


def test_a_missing_log_is_silent_and_its_place_is_kept(log: Path) -> None:
    reader = Reader(log, silence_ns=MINUTE)
    reader.run()
    log.rename(log.with_name("away"))
    assert reader.run().health is Health.CRITICAL
    log.with_name("away").rename(log)
    assert reader.run().health is Health.OK
    assert Reader(log.with_name("none"), critical="x").run().health is Health.UNKNOWN


def test_a_flood_is_skipped_and_counted(log: Path) -> None:
    reader = Reader(log, critical="ERROR")
    reader.run()
    append(log, "ERROR first\n" + "x" * 99 + "\n" + ("y" * 99 + "\n") * (2 * READ_MAX // 100) + "last\n")
    result = reader.run()
    assert result.health is Health.OK
    skipped = value(result, "skipped")
    assert skipped is not None and skipped > READ_MAX * 0.9
    assert "bytes skipped" in result.text
    assert value(reader.run(), "lines") == 0


def test_after_a_skip_only_whole_lines_are_read(log: Path) -> None:
    reader = Reader(log, match="^y")
    reader.run()
    # READ_MAX is no multiple of 100, so reading begins in the middle of a line.
    append(log, ("a" + "y" * 98 + "\n") * (2 * READ_MAX // 100))
    assert value(reader.run(), "match") == 0


def test_a_line_without_an_end_is_not_kept_for_ever(log: Path) -> None:
    reader = Reader(log, critical="ERROR")
    reader.run()
    append(log, "x" * (2 * LINE_MAX))
    assert value(reader.run(), "lines") == 1
    append(log, "y\nERROR\n")
    assert reader.run().health is Health.CRITICAL


def test_binary_garbage_and_a_strange_memory_do_no_harm(log: Path) -> None:
    reader = Reader(log, critical="ERROR")
    reader.memory = {"offset": "x", "inode": None}
    assert reader.run().health is Health.OK
    with log.open("ab") as file:
        file.write(bytes(range(256)) + b"\nERROR \xff\n")
    assert reader.run().health is Health.CRITICAL


def test_a_memory_of_before_the_last_boot_begins_anew(log: Path) -> None:
    reader = Reader(log, silence_ns=MINUTE)
    reader.run()
    reader.earlier(-(10**18))
    append(log, "x\n")
    assert reader.run().health is Health.OK


def test_lines_for_which_there_was_no_time_are_told(log: Path) -> None:
    reader = Reader(log, critical="ERROR")
    reader.run()
    append(log, "fine\n" * 1000)
    result = run(reader.check, 1, reader.memory)
    assert result.health is Health.UNKNOWN
    assert "no time for" in result.text


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["add", "rotate", "cut"]), st.integers(1, 5)), max_size=12))
def test_each_line_is_counted_once_whatever_is_done_to_the_log(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "app.log"
    path.write_text("begin\n")
    reader = Reader(path, match="^line")
    reader.run()
    written = counted = 0
    for what, count in steps:
        if what == "rotate":
            path.replace(f"{path}.1")
            path.write_text("")
        elif what == "cut":
            path.write_text("")
            counted += int(value(reader.run(), "match") or 0)
        append(path, "".join(f"line {written + number}\n" for number in range(count)))
        written += count
        counted += int(value(reader.run(), "match") or 0)
    assert counted == written
