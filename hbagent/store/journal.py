"""An append-only file of small entries: a leader's memory across its own crash.

An entry that `append` returned for survives kill -9 and power loss. One line is one entry: the CRC-32 of the rest in
eight hex digits, a space, the entry as JSON. The first line names the format, so that a later program can tell an
older file from a damaged one.

Think of reading it as salvage. Whatever a crash or a bad disk made of the file, `load` returns every entry whose
line is whole, in order, and leaves a sound file behind. Two kinds of damage are told apart: a last line without its
end is what a power loss makes of an append that nobody was promised, and is healed in place; anything else is not
explained by a crash, and a copy is set aside (`quarantine`) for whoever wants to know why.

Not thread-safe: one worker owns a journal. Every failure of the disk surfaces as `JournalError`; what the journal
held before stays, and the next attempt starts afresh.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from . import failpoint
from .claim import Claim, ClaimedError
from .durable import sync_directory, write_all
from .quarantine import is_usable, set_aside

VERSION = 1
FORMAT = "hbagent-journal"

#: No journal grows beyond this: the whole of it is read into memory at a start. 10,000 waiting transitions are
#: about 4 MB, and the owner rewrites long before.
SIZE_MAX = 64 * 1024 * 1024


class JournalError(Exception):
    """The journal could not be read or written; the message names the file and the reason."""


class Scan(NamedTuple):
    """What the bytes of a journal hold."""

    entries: list[dict[str, Any]]
    #: Version that the first line names; None when the first line is damaged or missing.
    version: int | None
    #: Lines that are whole but not what was written.
    damaged: int
    #: Bytes after the last line end.
    torn: int


def line(entry: dict[str, Any]) -> bytes:
    """The bytes of one entry. Raises TypeError for what JSON cannot hold."""
    body = msgspec.json.encode(entry)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def scan(data: bytes) -> Scan:
    """Read the bytes of a journal, whatever they are; never raises."""
    pieces = data.split(b"\n")
    head = _entry(pieces[0])
    version = head.get("version") if head is not None and head.get("format") == FORMAT else None
    entries = []
    damaged = 0
    for piece in pieces[(0 if version is None else 1) : -1]:
        entry = _entry(piece)
        if entry is None:
            damaged += 1
        else:
            entries.append(entry)
    # A whole entry that lacks only its line end was written, though perhaps never promised.
    last = _entry(pieces[-1]) if len(pieces) > 1 else None
    if last is not None:
        entries.append(last)
    return Scan(entries, version if isinstance(version, int) else None, damaged, len(pieces[-1]))


def _entry(piece: bytes) -> dict[str, Any] | None:
    if len(piece) < 10 or piece[8:9] != b" " or piece[:8] != b"%08x" % zlib.crc32(piece[9:]):
        return None
    try:
        entry = msgspec.json.decode(piece[9:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


_HEAD = line({"format": FORMAT, "version": VERSION})


class Journal:
    """The journal at `path`. `load` comes first; the directory is made when it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: What the last `load` found wrong, one sentence for people each.
        self.problems: list[str] = []
        self._claim = Claim(path)
        self._fd: int | None = None
        self._size = 0
        self._tail_suspect = False
        self._name_suspect = False

    @property
    def size(self) -> int:
        """Bytes in the file: tells the owner when a `rewrite` is worth while."""
        return self._size

    def load(self) -> list[dict[str, Any]]:
        """Every readable entry, oldest first. Content never makes it raise; see `problems` for what was wrong.

        Raises JournalError when the disk or the permissions do not let it read or write, or when another process
        uses the journal.
        """
        self._close_file()
        self.problems = []
        with self._reported():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim.take()
            found = self._read()
            if found is None or self._is_sound(found):
                entries = [] if found is None else found.entries
            else:
                entries = self._salvage(found)
            if self._fd is None:
                self._replace(entries)
            return entries

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        """Add entries; when it returns, all of them are on disk. When it raises JournalError, none is kept."""
        data = b"".join(map(line, entries))
        if not data:
            return
        with self._reported():
            fd = self._sound_file()
            if self._size + len(data) > SIZE_MAX:
                raise JournalError(f"{self.path}: full: {self._size} of {SIZE_MAX} bytes used")
            try:
                failpoint.hit("journal-append-begin")
                write_all(fd, data)
                failpoint.hit("journal-append-written")
                os.fdatasync(fd)
            except OSError:
                # After a failed sync the kernel may call the same bytes clean and never write them: they are cut
                # off, so that the next attempt writes them anew.
                self._tail_suspect = True
                with contextlib.suppress(OSError):
                    self._cut_tail(fd)
                raise
            failpoint.hit("journal-append-synced")
            self._size += len(data)

    def rewrite(self, entries: Iterable[dict[str, Any]]) -> None:
        """Replace the whole content, atomically: a crash leaves the old content or the new, never a mixture.

        Raises JournalError; the journal then holds the old content, or, when only the last sync failed, the new.
        """
        with self._reported():
            if self._fd is None:
                raise JournalError(f"{self.path}: not loaded")
            self._replace(entries)

    def close(self) -> None:
        """Close the file and let another process use it."""
        self._close_file()
        self._claim.release()

    def _read(self) -> Scan | None:
        """Scan the file; opens it when it is sound. None: there is nothing, or nothing that can be read."""
        if not is_usable(self.path):
            aside = set_aside(self.path)
            self.problems.append(f"{self.path} was not a regular file; set aside as {aside.name}")
            return None
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb", closefd=False) as file:
            self._fd = fd
            self._size = os.fstat(fd).st_size
            if self._size <= SIZE_MAX:
                return scan(file.read())
        self._close_file()
        aside = set_aside(self.path)
        self.problems.append(f"{self.path} was larger than {SIZE_MAX} bytes; set aside as {aside.name}")
        return None

    @staticmethod
    def _is_sound(found: Scan) -> bool:
        return found.version == VERSION and not found.damaged and not found.torn

    def _salvage(self, found: Scan) -> list[dict[str, Any]]:
        """Set a damaged file aside and say which entries go into the new one."""
        self._close_file()
        if found.version not in (None, VERSION):
            aside = set_aside(self.path, keep=True)
            self.problems.append(f"{self.path} has version {found.version}, not {VERSION}; set aside as {aside.name}")
            return []
        if found.version is None or found.damaged:
            aside = set_aside(self.path, keep=True)
            what = f"{found.damaged} damaged lines" if found.damaged else "a damaged first line"
            kept = f"{len(found.entries)} entries kept"
            self.problems.append(f"{self.path} had {what}; {kept}, a copy set aside as {aside.name}")
        else:
            self.problems.append(f"{self.path} ended in {found.torn} bytes of an unfinished write; healed")
        return found.entries

    def _replace(self, entries: Iterable[dict[str, Any]]) -> None:
        data = _HEAD + b"".join(map(line, entries))
        if len(data) > SIZE_MAX:
            raise JournalError(f"{self.path}: {len(data)} bytes are more than the {SIZE_MAX} allowed")
        draft = self.path.with_name(self.path.name + ".tmp")
        if not is_usable(draft):
            set_aside(draft)
        failpoint.hit("journal-rewrite-begin")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(draft, flags, 0o600)
        try:
            write_all(fd, data)
            failpoint.hit("journal-rewrite-written")
            os.fsync(fd)
            failpoint.hit("journal-rewrite-synced")
            os.rename(draft, self.path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        self._close_file()
        self._fd = fd
        self._size = len(data)
        failpoint.hit("journal-rewrite-renamed")
        # Until the directory is synced, a power loss may bring the old file back, and with it lose every later
        # append.
        self._name_suspect = True
        self._sync_name()
        failpoint.hit("journal-rewrite-done")

    def _sound_file(self) -> int:
        """The open file, after whatever an earlier failure left undone."""
        if self._fd is None:
            raise JournalError(f"{self.path}: not loaded")
        if self._tail_suspect:
            self._cut_tail(self._fd)
        if self._name_suspect:
            self._sync_name()
        return self._fd

    def _cut_tail(self, fd: int) -> None:
        os.ftruncate(fd, self._size)
        self._tail_suspect = False

    def _sync_name(self) -> None:
        sync_directory(self.path.parent)
        self._name_suspect = False

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._tail_suspect = False
        self._name_suspect = False

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror or error}") from error
        except ClaimedError as error:
            raise JournalError(f"{self.path}: {error}") from error
