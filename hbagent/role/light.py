"""What an agent does without: modules that its libraries import and that it never uses.

Every host carries the agent, so a megabyte here is gigabytes in a datacenter. Measured on CPython 3.11, resident:

- `ssl`, 4 MiB: asyncio imports it for TLS streams; CURVE is libsodium's.
- `asyncio`, 1.6 MiB more: loguru asks it whether a coroutine is running. In an agent none ever is, and that answer is
  all that the stand-in can give.
- `typing_extensions`, 0.5 MiB: msgspec uses it where something else happens to have installed it, and does without.
- `lzma` and `bz2`, 0.15 MiB: shutil looks whether there are such archives; an agent packs nothing.

Only for the agent's own process, before anything else is imported. Whoever needs one of these in an agent needs a
process of its own.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator


def lighten() -> None:
    """Keep what an agent never uses out of its memory; modules that are loaded already stay."""
    for name in ("ssl", "typing_extensions", "lzma", "bz2"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    stand_in = types.ModuleType("asyncio", "Stands in for asyncio where no coroutine ever runs.")
    stand_in.get_running_loop = _no_running_loop  # type: ignore[attr-defined]
    sys.modules.setdefault("asyncio", stand_in)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """What is imported inside finds no module of these names, where none is loaded yet."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    yield
    for name in hidden:
        del sys.modules[name]


def _no_running_loop() -> None:
    raise RuntimeError("no running event loop")
