"""A file for others to read: whole or as before, readable by everybody, and never through what somebody put there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hbagent.store import textfile
from hbagent.store.textfile import replace_text


def test_it_is_replaced_and_everybody_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "hbagent.prom"
    before = os.umask(0o077)
    try:
        replace_text(path, b"one\n")
        replace_text(path, b"two\n")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two\n" and path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["hbagent.prom"]


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "hbagent.prom"
    texts = [bytes([letter]) * 200_000 for letter in b"ab"]
    replace_text(path, texts[0])
    done = threading.Event()

    def write() -> None:
        for number in range(100):
            replace_text(path, texts[number % 2])
        done.set()

    threading.Thread(target=write).start()
    seen = 0
    while not done.is_set() or not seen:
        assert path.read_bytes() in texts
        seen += 1


@pytest.mark.parametrize("kind", ["link", "hard link", "left behind"])
def test_what_lies_in_the_drafts_place_is_not_written_to(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    draft = tmp_path / ".hbagent.prom.draft"
    if kind == "link":
        draft.symlink_to(other)
    elif kind == "hard link":
        draft.hardlink_to(other)
    else:
        draft.write_text("half of")
    replace_text(tmp_path / "hbagent.prom", b"text\n")
    assert other.read_text() == "precious"
    assert (tmp_path / "hbagent.prom").read_bytes() == b"text\n" and not draft.exists()


def test_what_cannot_be_written_leaves_the_old_one_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hbagent.prom"
    replace_text(path, b"old\n")

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(textfile, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(path, b"new\n")
    assert path.read_bytes() == b"old\n" and len(list(tmp_path.iterdir())) == 1


def test_a_directory_that_is_missing_and_a_text_that_is_too_large_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_text(tmp_path / "gone" / "hbagent.prom", b"")
    with pytest.raises(OSError, match="more than"):
        replace_text(tmp_path / "hbagent.prom", b"x" * (textfile.TEXTFILE_SIZE_MAX + 1))
