"""The journal's promise: what `append` returned for is there after any crash, and nothing else ever appears."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from hbagent.store import journal as journal_module
from hbagent.store.failpoint import EXIT_STATUS, POINTS
from hbagent.store.journal import Journal, JournalError, line, scan

ROOT = Path(__file__).parents[2]
ENTRIES: list[dict[str, Any]] = [
    {"kind": "transition", "number": number, "node": f"dc1/rack1/node{number}", "text": 'ü "\n' * number}
    for number in range(1, 6)
]

#: Appends {"n": 0}, {"n": 1}... and rewrites after every third; prints each number once it is promised.
WRITER = """
import sys
from pathlib import Path
from hbagent.store.journal import Journal
journal = Journal(Path(sys.argv[1]))
kept = journal.load()
number = len(kept)
while len(kept) < int(sys.argv[2]):
    entry = {"n": number}
    journal.append([entry])
    kept.append(entry)
    print(number, flush=True)
    number += 1
    if number % 3 == 0:
        journal.rewrite(kept)
"""


@pytest.fixture
def path(quick_disk: Path) -> Path:
    return quick_disk / "state" / "leader.journal"


def write(path: Path, entries: list[dict[str, Any]]) -> bytes:
    """Make a sound journal and return its bytes."""
    journal = Journal(path)
    journal.load()
    journal.append(entries)
    journal.close()
    return path.read_bytes()


def load(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    journal = Journal(path)
    entries = journal.load()
    journal.close()
    return entries, journal.problems


def empty_directory(directory: Path) -> None:
    for entry in directory.iterdir():
        entry.unlink()


def is_subsequence(part: list[dict[str, Any]], whole: list[dict[str, Any]]) -> bool:
    rest = iter(whole)
    return all(entry in rest for entry in part)


def test_entries_come_back_in_order(path: Path) -> None:
    write(path, ENTRIES[:2])
    write(path, ENTRIES[2:])
    assert load(path) == (ENTRIES, [])


def test_a_missing_journal_is_an_empty_one_for_its_owner_alone(path: Path) -> None:
    assert load(path) == ([], [])
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_rewrite_replaces_everything_and_appends_go_on(path: Path) -> None:
    write(path, ENTRIES)
    journal = Journal(path)
    journal.load()
    journal.rewrite(ENTRIES[3:])
    journal.append(ENTRIES[:1])
    assert journal.size == path.stat().st_size
    journal.close()
    assert load(path) == (ENTRIES[3:] + ENTRIES[:1], [])


def test_two_processes_cannot_use_one_journal(path: Path) -> None:
    journal = Journal(path)
    journal.load()
    with pytest.raises(JournalError, match=r"leader\.journal: another process"):
        Journal(path).load()
    journal.close()
    load(path)


def test_a_journal_that_was_not_loaded_refuses_to_write(path: Path) -> None:
    with pytest.raises(JournalError, match="not loaded"):
        Journal(path).append([{}])
    with pytest.raises(JournalError, match="not loaded"):
        Journal(path).rewrite([{}])


# ---- damage --------------------------------------------------------------------------------------------------


def check_after_damage(path: Path, missing_max: int) -> list[str]:
    """Load a damaged journal, look at what a start owes, and return the problems told."""
    entries, problems = load(path)
    assert is_subsequence(entries, ENTRIES)
    assert len(entries) >= len(ENTRIES) - missing_max
    write(path, [{"after": 1}])
    assert load(path) == ([*entries, {"after": 1}], [])
    return problems


def test_truncated_at_every_byte_it_starts_with_every_whole_entry(path: Path) -> None:
    data = write(path, ENTRIES)
    ends = [len(data) - len(b"".join(map(line, ENTRIES[count:]))) for count in range(len(ENTRIES) + 1)]
    for size in range(len(data)):
        empty_directory(path.parent)
        path.write_bytes(data[:size])
        # One byte short of its end, an entry is whole but for the line end.
        whole = sum(1 for end in ends[1:] if size >= end - 1)
        problems = check_after_damage(path, len(ENTRIES) - whole)
        assert problems or size in ends, "only a cut between two entries leaves no trace"
        set_aside = path.with_name(path.name + ".corrupt-1").exists()
        assert set_aside == (size < ends[0] - 1), f"only a torn tail is healed in place; {size} bytes"


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF])
def test_with_any_byte_flipped_it_starts_and_loses_two_entries_at_most(path: Path, mask: int) -> None:
    """Two, because a flipped line end makes one line of two."""
    data = write(path, ENTRIES)
    for place in range(len(data)):
        empty_directory(path.parent)
        damaged = bytearray(data)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        assert check_after_damage(path, 2)
        aside = path.with_name(path.name + ".corrupt-1")
        # A last line without its line end looks like an unfinished write, whatever made it so.
        assert place == len(data) - 1 or aside.read_bytes() == damaged


def framed(body: bytes) -> bytes:
    """A line with a checksum that holds."""
    return b"%08x %s\n" % (zlib.crc32(body), body)


NO_JOURNAL = [b"", b"\n", b"\0" * 4096, b"\xff" * 100, b"{}\n", b"00000000 \n"]
NO_ENTRY = [b"[1]", b"null", b"{", b'"\xff"', b"[" * 100_000]


@pytest.mark.parametrize("content", [*NO_JOURNAL, *map(framed, NO_ENTRY)])
def test_a_file_that_is_no_journal_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    entries, problems = load(path)
    assert entries == []
    assert len(problems) == 1
    assert path.with_name(path.name + ".corrupt-1").read_bytes() == content
    assert load(path) == ([], [])


def test_another_version_is_set_aside_unread(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(line({"format": "hbagent-journal", "version": 2}) + line(ENTRIES[0]))
    entries, problems = load(path)
    assert entries == []
    assert "version 2" in problems[0]
    assert path.with_name(path.name + ".corrupt-1").exists()
    assert load(path) == ([], [])


@pytest.mark.parametrize("name", ["leader.journal", "leader.journal.tmp"])
@pytest.mark.parametrize("what", ["directory", "fifo", "link"])
def test_something_else_in_its_place_is_set_aside(path: Path, name: str, what: str) -> None:
    path.parent.mkdir()
    victim = path.parent.parent / "victim"
    victim.write_text("untouched")
    place = path.with_name(name)
    if what == "directory":
        place.mkdir()
        (place / "inside").touch()
    elif what == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(victim)
    assert load(path)[0] == []
    write(path, ENTRIES)
    assert load(path) == (ENTRIES, [])
    assert os.path.lexists(f"{place}.corrupt-1")
    assert victim.read_text() == "untouched"


def test_a_file_too_large_to_read_is_set_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, ENTRIES)
    monkeypatch.setattr(journal_module, "SIZE_MAX", 300)
    entries, problems = load(path)
    assert entries == []
    assert "larger than 300" in problems[0]


def test_no_journal_grows_too_large_to_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SIZE_MAX", 300)
    journal = Journal(path)
    journal.load()
    with pytest.raises(JournalError, match="full"):
        for _ in range(20):
            journal.append(ENTRIES[:1])
    with pytest.raises(JournalError, match="more than"):
        journal.rewrite(ENTRIES)
    journal.rewrite([])
    journal.append(ENTRIES[:1])
    journal.close()
    assert load(path) == (ENTRIES[:1], [])


def test_a_failing_disk_is_not_filled_with_copies(path: Path) -> None:
    path.parent.mkdir()
    for _ in range(20):
        path.write_bytes(b"garbage\n")
        load(path)
    assert len(list(path.parent.glob("*.corrupt-*"))) == 8


def test_scan_takes_any_bytes() -> None:
    assert scan(b"").entries == []
    assert scan(line({"a": 1})).entries == [{"a": 1}]
    assert scan(line({"a": 1})[:-1]).torn == len(line({"a": 1})) - 1


# ---- crashes -------------------------------------------------------------------------------------------------


def run_writer(path: Path, count: int, point: str = "") -> tuple[int, list[int], str]:
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), str(count)],
        env={**os.environ, "HBAGENT_FAILPOINT": point},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
    )
    return ended.returncode, [int(number) for number in ended.stdout.split()], ended.stderr


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("point", [name for name in POINTS if name.startswith("journal")])
def test_a_crash_at_any_point_loses_nothing_that_was_promised(path: Path, point: str, times: int) -> None:
    code, promised, errors = run_writer(path, 8, f"{point}:{times}")
    assert (code, errors) == (EXIT_STATUS, "")
    entries, problems = load(path)
    numbers = [entry["n"] for entry in entries]
    assert numbers in (promised, [*promised, len(promised)])
    assert problems == []
    code, promised, errors = run_writer(path, 8)
    assert (code, errors) == (0, "")
    assert load(path) == ([{"n": number} for number in range(8)], [])


@pytest.mark.parametrize("point", ["quarantine-begin", "quarantine-done", "journal-rewrite-renamed"])
def test_a_crash_while_healing_loses_no_readable_entry(path: Path, point: str) -> None:
    data = write(path, [{"n": number} for number in range(4)])
    path.write_bytes(data[:20].replace(data[10:11], b"?") + data[20:])
    code, _, errors = run_writer(path, 4, point)
    assert (code, errors) == (EXIT_STATUS, "")
    assert load(path)[0] == [{"n": number} for number in range(4)]


def test_kill_9_in_the_middle_of_the_work_loses_nothing_that_was_promised(path: Path) -> None:
    promised: list[int] = []
    for goal in (100, 200, 300):
        command = [sys.executable, "-c", WRITER, str(path), "1000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
            assert writer.stdout is not None
            for text in writer.stdout:
                promised.append(int(text))
                if len(promised) == goal:
                    os.kill(writer.pid, signal.SIGKILL)
        numbers = [entry["n"] for entry in load(path)[0]]
        assert numbers[: len(promised)] == sorted(set(promised))
        assert numbers == list(range(len(numbers)))
        promised = numbers


def test_a_promise_is_made_after_the_sync_and_a_new_name_is_synced_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test can pull the plug; this one watches the order of the real calls."""
    journal = Journal(path)
    journal.load()
    calls: list[str] = []
    for name in ("write", "fdatasync", "fsync", "rename"):
        watch(monkeypatch, name, calls)
    journal.append(ENTRIES)
    assert calls == ["write", "fdatasync"]
    calls.clear()
    journal.rewrite(ENTRIES)
    assert calls == ["write", "fsync", "rename", "fsync"]
    journal.close()


def watch(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    call = getattr(os, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return call(*arguments, **options)

    monkeypatch.setattr(os, name, watched)


def test_after_a_failed_sync_the_bytes_are_written_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.load()
    journal.append(ENTRIES[:1])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(JournalError, match="Input/output error"):
            journal.append(ENTRIES[1:2])
    assert scan(path.read_bytes()).entries == ENTRIES[:1]
    journal.append(ENTRIES[1:])
    journal.close()
    assert load(path) == (ENTRIES, [])


def test_after_a_failed_sync_of_the_directory_it_is_synced_before_the_next_promise(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    journal.load()
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "sync_directory", fail)
        with pytest.raises(JournalError, match="Input/output error"):
            journal.rewrite(ENTRIES[:1])
        with pytest.raises(JournalError, match="Input/output error"):
            journal.append(ENTRIES[1:])
    journal.append(ENTRIES[1:])
    journal.close()
    assert load(path) == (ENTRIES, [])


def fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# ---- a full disk ---------------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_full_disk_is_an_error_that_passes_when_there_is_space_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40 * 1024))
    path = small_disk / "leader.journal"
    journal = Journal(path)
    journal.load()
    kept: list[dict[str, Any]] = []
    with pytest.raises(JournalError, match=r"leader\.journal: No space left on device"):
        while True:
            journal.append([{"n": len(kept), "text": "x" * 1000}])
            kept.append({"n": len(kept), "text": "x" * 1000})
    with pytest.raises(JournalError, match="No space left"):
        journal.rewrite(kept)
    assert scan(path.read_bytes()).entries == kept, "the refused entry left nothing behind"
    ballast.unlink()
    journal.append([{"n": -1}])
    journal.rewrite([*kept, {"n": -1}, {"n": -2}])
    journal.close()
    assert load(path) == ([*kept, {"n": -1}, {"n": -2}], [])


def test_a_refused_write_leaves_the_journal_as_it_was(path: Path) -> None:
    """The same with a limit on the size of files, which needs no rights."""
    journal = Journal(path)
    journal.load()
    journal.append(ENTRIES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 50, hard))
    try:
        with pytest.raises(JournalError, match="File too large"):
            journal.append([{"text": "x" * 100}])
        with pytest.raises(JournalError, match="File too large"):
            journal.rewrite([*ENTRIES, {"text": "x" * 100}])
        assert scan(path.read_bytes()) == (ENTRIES, 1, 0, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append([{"n": 1}])
    journal.close()
    assert load(path) == ([*ENTRIES, {"n": 1}], [])
    assert not path.with_name(path.name + ".tmp").exists()
