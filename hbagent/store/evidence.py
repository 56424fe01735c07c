"""Evidence bundles on the node: what was seen of a process while it was stuck, kept until somebody asks.

A shelf is a directory of files that are written once and never changed. The name of a bundle says all that is needed
to find it, `000017-billing-1f3a9c02d4e5b678`: a number that rises, the application, and a digest of the content. The
number gives the order, for a wall clock may jump; the digest tells a damaged file from what was written, and that a
bundle fetched somewhere else is the one that a report spoke of.

A name that somebody asks for is never used as a path: it is looked for among the names that the directory holds.

Room is made by whoever has most: an application that gets stuck each minute throws away its own evidence, and nobody
else's. What the prober still speaks of is spared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

try:
    from _blake2 import blake2b  # hashlib would load OpenSSL: 5 MiB
except ImportError:  # another Python than CPython
    from hashlib import blake2b

from hbagent.core.names import PART, is_part

from . import failpoint
from .durable import sync_directory, write_all
from .quarantine import KEPT_MAX, is_usable, set_aside

#: A bundle travels as two pages of 32 KiB.
BUNDLE_MAX = 64 << 10
#: What the application is called when its name cannot be part of a file's.
NAMELESS = "process"
_SUFFIX = ".json"
_DIGEST_SIZE = 8
_NAME = re.compile(rf"([0-9]{{6,12}})-({PART})-([0-9a-f]{{{2 * _DIGEST_SIZE}}})")
_DAMAGED = re.compile(rf"{_NAME.pattern}\.json\.corrupt-[0-9]+")
_DRAFT = "draft"


class NoBundle(Exception):
    """There is no such bundle, or it is damaged; the message says which."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """One bundle of the shelf."""

    name: str
    number: int
    app: str
    size: int
    #: When it was written, by the wall clock of then.
    written_ns: int


class Shelf:
    """The bundles in `directory`, which is made when the first one comes; at most `count_max`, none much older than
    `age_max_ns`, beside those that are spared. Any number of processes may use it."""

    def __init__(self, directory: Path, count_max: int, age_max_ns: int) -> None:
        self.directory = directory
        self.count_max = max(1, count_max)
        self.age_max_ns = age_max_ns

    def put(self, app: str, body: bytes, spared: Collection[int] = ()) -> str:
        """Write a bundle and return its name; a crash leaves it whole or not at all. Those that have the numbers
        `spared` make no room for it.

        Raises ValueError for one over `BUNDLE_MAX`, OSError.
        """
        if len(body) > BUNDLE_MAX:
            raise ValueError(f"a bundle of {len(body)} bytes; {BUNDLE_MAX} are the most")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            number = max((kept.number for kept in self.list()), default=0) + 1
            name = f"{number:06d}-{app if is_part(app) else NAMELESS}-{digest(body)}"
            self._write(name, body)
            self._thin(spared)
        return name

    def list(self) -> list[Kept]:
        """Every bundle, newest first; empty when there is no directory. Raises OSError."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name.removesuffix(_SUFFIX))
                if not match or not entry.name.endswith(_SUFFIX):
                    continue
                with contextlib.suppress(FileNotFoundError):  # another process has just thinned the shelf
                    status = entry.stat(follow_symlinks=False)
                    kept = Kept(match[0], int(match[1]), match[2], status.st_size, status.st_mtime_ns)
                    found.append(kept)
        return sorted(found, key=lambda kept: (kept.number, kept.name), reverse=True)

    def gone(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Those of the numbers that no bundle has (any more). Raises OSError."""
        there = {kept.number for kept in self.list()}
        return tuple(number for number in numbers if number not in there)

    def find(self, app: str = "", name: str = "") -> Kept:
        """The bundle `name`, or the newest about `app`, or the newest of all. Raises NoBundle, OSError."""
        for kept in self.list():
            if (not app or kept.app == app) and (not name or kept.name == name):
                return kept
        which = f" {name!r}" if name else f" about {app!r}" if app else ""
        wanted = f"no evidence{which} is kept here"
        trouble = self._trouble()
        if trouble:
            raise NoBundle(f"{wanted}, and none can be: {trouble}")
        if name:
            wanted += ": it was never there, or has made room for newer ones"
        raise NoBundle(wanted if name or app else f"{wanted}: nothing was found stuck")

    def read(self, app: str = "", name: str = "") -> tuple[str, bytes]:
        """Name and content of what `find` finds; a damaged one is set aside. Raises NoBundle, OSError."""
        kept = self.find(app, name)
        path = self.directory / (kept.name + _SUFFIX)
        body = b""
        if is_usable(path) and kept.size <= BUNDLE_MAX:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise NoBundle(f"{kept.name} has just been deleted, for newer ones") from None
            with os.fdopen(fd, "rb") as file:
                body = file.read(BUNDLE_MAX + 1)
        if digest(body) == kept.name[-2 * _DIGEST_SIZE :]:
            return kept.name, body
        with self._alone():
            aside = set_aside(path)
            self._thin_damaged()
        raise NoBundle(f"{kept.name} was damaged, and set aside as {aside.name}")

    def _trouble(self) -> str:
        """Why no bundle can be written now; "" when one could be."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                draft = self._draft(bytes(BUNDLE_MAX))
                os.unlink(draft)
        except OSError as error:
            return f"{self.directory}: {error.strerror or error}"
        return ""

    def _write(self, name: str, body: bytes) -> None:
        draft = self._draft(body)
        try:
            os.rename(draft, self.directory / (name + _SUFFIX))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        failpoint.hit("evidence-renamed")
        sync_directory(self.directory)

    def _draft(self, body: bytes) -> Path:
        """Write a file that is no bundle yet. Raises OSError; then there is none."""
        draft = self.directory / _DRAFT
        if not is_usable(draft):
            set_aside(draft)
        failpoint.hit("evidence-begin")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            write_all(fd, body)
            failpoint.hit("evidence-written")
            os.fsync(fd)
            failpoint.hit("evidence-synced")
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        finally:
            os.close(fd)
        return draft

    def _thin(self, spared: Collection[int] = ()) -> None:
        """Delete what is too much or too old. The newest always stays: a clock that jumped must not take it away."""
        oldest_ns = time.time_ns() - self.age_max_ns
        every = self.list()
        kept = every[:1]
        for bundle in every[1:]:
            if bundle.written_ns < oldest_ns and bundle.number not in spared:
                self._delete(bundle.name + _SUFFIX)
            else:
                kept.append(bundle)
        for bundle in _too_many(kept, self.count_max, spared):
            self._delete(bundle.name + _SUFFIX)
        self._thin_damaged()
        failpoint.hit("evidence-thinned")

    def _thin_damaged(self) -> None:
        # Each damaged bundle has another name, so that their number is bounded here and not by `set_aside`.
        damaged = sorted(filter(_DAMAGED.fullmatch, os.listdir(self.directory)), reverse=True)
        for name in damaged[KEPT_MAX:]:
            self._delete(name)

    def _delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if is_usable(self.directory / name):
                os.unlink(self.directory / name)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process changes the shelf. The kernel ends the wait when that process dies."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _too_many(kept: list[Kept], count_max: int, spared: Collection[int]) -> Iterator[Kept]:
    """Those that make room, given all of them, newest first: the oldest of the application that has most, and of those
    that have as many the oldest; never the newest, nor the spared."""
    shares = Counter(bundle.app for bundle in kept)
    #: Oldest last.
    going = [bundle for bundle in kept[1:] if bundle.number not in spared]
    for _ in range(len(kept) - count_max):
        if not going:
            return
        most = max(shares[bundle.app] for bundle in going)
        goes = next(bundle for bundle in reversed(going) if shares[bundle.app] == most)
        going.remove(goes)
        shares[goes.app] -= 1
        yield goes


def digest(body: bytes) -> str:
    """What the name of a bundle ends in: 64 bits of BLAKE2b, against damage and mix-ups, not against forgery."""
    return blake2b(body, digest_size=_DIGEST_SIZE).hexdigest()
