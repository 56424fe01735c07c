"""The fingerprint of a run: everything that happened, in order, folded into one hash.

Two runs with the same hash did the same thing to the nanosecond. Beats are folded by a checksum that enters the hash
with the next thing that is not a beat, for there are a hundred beats to everything else.
"""

from __future__ import annotations

from hashlib import blake2b
from zlib import crc32


class Trace:
    """A running hash, and the newest lines for a failing run."""

    __slots__ = ("_beats", "_hash", "_keep", "lines")

    def __init__(self, keep: bool = False) -> None:
        self._hash = blake2b(digest_size=16)
        self._beats = 0
        self._keep = keep
        #: What happened as text, when it was asked for.
        self.lines: list[str] = []

    def beat(self, at: int, data: bytes) -> None:
        """A beat was taken in."""
        self._beats = crc32(data, self._beats ^ (at & 0xFFFF_FFFF))

    def add(self, at: int, *words: object) -> None:
        """Something else happened."""
        line = f"{at} {' '.join(map(str, words))}"
        self._hash.update(f"{self._beats:x} {line}\n".encode())
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        """The hash so far, in hexadecimal."""
        final = self._hash.copy()
        final.update(f"{self._beats:x}".encode())
        return final.hexdigest()
