"""One parsed config file: its tables are asked for by name and shape, and it notes every problem on the way.

Reading a value never raises. A wrong one is noted and left out of what the table returns; the caller goes on to
the next table and at last calls `finish`, which raises once with everything. So one run tells all there is to tell.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import tomli

from .lines import Lines, Place
from .problems import PROBLEMS_MAX, ConfigError, Problem, did_you_mean, show
from .values import Reader

#: Largest config file read. A rack of 10,000 nodes is some 100 kB; what is larger is not a config file.
FILE_SIZE_MAX = 1 << 20
#: Characters kept of what the TOML parser says; it repeats keys, however long they are.
MESSAGE_MAX = 200


class Items(NamedTuple):
    """A key holds a list: how many items it may have, and whether each may stand there once only."""

    least: int
    most: int
    distinct: bool = True


class Key(NamedTuple):
    """One key of a table."""

    #: Makes the setting of the value, or of each item when the key holds a list.
    read: Reader
    #: Name of the setting; empty when it is that of the key.
    into: str = ""
    required: bool = False
    items: Items | None = None


class Shape(NamedTuple):
    """One table of a file, or one array of tables."""

    keys: Mapping[str, Key]
    required: bool = False
    #: Written `[[name]]`, once for each of several things, each told apart by its key `name`.
    repeated: bool = False
    #: Further keys of those whose key `kind` is this word.
    kinds: Mapping[str, Mapping[str, Key]] = {}

    def keys_of(self, table: Mapping[str, Any]) -> Mapping[str, Key]:
        """The keys that one table may have."""
        kind = table.get("kind")
        return {**self.keys, **self.kinds.get(kind, {})} if isinstance(kind, str) else self.keys

    def kinds_with(self, key: str) -> list[str]:
        """The kinds that have a key."""
        return [kind for kind, keys in self.kinds.items() if key in keys]


class Document:
    """The TOML `text` of the file at `path`. Raises ConfigError at once when the text is not TOML."""

    def __init__(self, path: Path, text: str, shapes: Mapping[str, Shape]) -> None:
        self.path = path
        self.base = Path(os.path.abspath(path)).parent
        self._text = text
        self._shapes = shapes
        self._problems: list[Problem] = []
        self._unlisted = 0
        self._lines: Lines | None = None
        self.content = parse(path, text)
        self._check_sections()

    def say(self, place: Place, text: str) -> None:
        """Note a problem at a place of the file, `()` for the whole file."""
        if len(self._problems) >= PROBLEMS_MAX:
            self._unlisted += 1
            return
        if self._lines is None:
            self._lines = Lines(self._text)
        line = self._lines.of(place)
        self._problems.append(Problem(file=str(self.path), line=line, where=self._where(place), text=text))

    def say_value(self, place: Place, value: Any, text: str) -> None:
        """Note what is wrong with a value; `text` says what it must be."""
        key = str(place[-1]) if isinstance(place[-1], str) else f"{place[-2]}[{place[-1]}]"
        self.say(place, f"{key} = {show(value)}: {text}")

    def finish(self) -> None:
        """Raise ConfigError when anything was noted, in the order of the file."""
        if not self._problems:
            return
        problems = sorted(self._problems, key=lambda problem: problem.line)
        if self._unlisted:
            text = f"and {self._unlisted:,} more problems"
            problems.append(Problem(file=str(self.path), line=0, where="", text=text))
        raise ConfigError(problems)

    def table(self, name: str) -> dict[str, Any]:
        """The settings of the table `[name]`; what is not written there is not in the result."""
        table = self.content.get(name)
        return self._settings((name,), table, self._shapes[name]) if isinstance(table, dict) else {}

    def tables(self, name: str) -> list[dict[str, Any]]:
        """The settings of each table `[[name]]`. Two with the same `name` are a problem."""
        tables = self.content.get(name)
        if not _is_tables(tables):
            return []
        found = [self._settings((name, at), table, self._shapes[name]) for at, table in enumerate(tables)]
        seen: dict[str, int] = {}
        for at, settings in enumerate(found):
            first = seen.setdefault(settings.get("name", f"nameless {at}"), at)
            if first != at:
                self.say_value((name, at, "name"), settings["name"], f"there is another [[{name}]] of this name")
        return found

    def has(self, place: Place) -> bool:
        """True when something is written at a place, right or wrong."""
        here: Any = self.content
        try:
            for step in place:
                here = here[step]
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def absolute(self, text: str) -> Path:
        """A path of the file; a relative one starts at the directory of the file."""
        return self.base / text

    def _check_sections(self) -> None:
        for name, value in self.content.items():
            shape = self._shapes.get(name)
            if shape is None:
                self.say((name,), f"unknown {_kind_of(value)} {show(name)}{did_you_mean(name, self._shapes)}")
            elif not (_is_tables(value) if shape.repeated else isinstance(value, dict)):
                header = _header(name, shape)
                brackets = "double brackets, once for each" if shape.repeated else "single brackets, once"
                self.say((name,), f"{show(name)} must be a table under a line {header}, in {brackets}")
        for name, shape in self._shapes.items():
            if shape.required and name not in self.content:
                self.say((), f"missing section {_header(name, shape)}")

    def _settings(self, place: Place, table: dict[str, Any], shape: Shape) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        keys = shape.keys_of(table)
        for name, value in table.items():
            key = keys.get(name)
            if key is None:
                self._say_unknown((*place, name), keys, shape)
            elif key.items is not None:
                self._read_items((*place, name), value, key, settings)
            else:
                self._read((*place, name), value, key, settings)
        for name, key in keys.items():
            if key.required and name not in table:
                self.say(place, f'missing key "{name}"')
        return settings

    def _read(self, place: Place, value: Any, key: Key, settings: dict[str, Any]) -> None:
        try:
            settings[key.into or str(place[-1])] = key.read(value)
        except ValueError as error:
            self.say_value(place, value, str(error))

    def _read_items(self, place: Place, value: Any, key: Key, settings: dict[str, Any]) -> None:
        items = key.items
        assert items is not None
        if not isinstance(value, list) or not items.least <= len(value) <= items.most:
            self.say_value(place, value, f"must be a list [...] of {items.least:,} to {items.most:,} items")
            return
        read: dict[Any, int] = {}
        kept = []
        for at, item in enumerate(value):
            try:
                made = key.read(item)
            except ValueError as error:
                self.say_value((*place, at), item, str(error))
                continue
            if items.distinct and read.setdefault(made, at) != at:
                self.say_value((*place, at), item, f"stands here twice; the first is {place[-1]}[{read[made]}]")
            kept.append(made)
        settings[key.into or str(place[-1])] = tuple(kept)

    def _say_unknown(self, place: Place, keys: Mapping[str, Key], shape: Shape) -> None:
        name = str(place[-1])
        kinds = shape.kinds_with(name)
        if kinds:
            # Where the kind is missing or wrong, that is said of it, and nothing of its keys.
            if len(keys) > len(shape.keys):
                self.say(place, f"unknown key {show(name)}; it belongs to kind {' or '.join(kinds)}")
            return
        homes = [_header(home, other) for home, other in self._shapes.items() if name in other.keys]
        hint = f"; it belongs to {' or '.join(homes)}" if homes else did_you_mean(name, keys)
        self.say(place, f"unknown key {show(name)}{hint}")

    def _where(self, place: Place) -> str:
        """The table of a place as a reader would say it: `[agent]`, `hook "pager"`, `hook 2`; empty for none."""
        if not place or place[0] not in self._shapes:
            return ""
        section = str(place[0])
        if not self._shapes[section].repeated:
            return f"[{section}]" if section in self.content else ""
        if len(place) == 1 or not isinstance(place[1], int):
            return ""
        name = self.content[section][place[1]].get("name")
        return f"{section} {show(name) if isinstance(name, str) and name else place[1] + 1}"


def read_text(path: Path) -> str:
    """The text of a config file. Raises ConfigError when it cannot be read, is too large or is not UTF-8."""
    try:
        # Without waiting: opening a named pipe would block a daemon that reloads for as long as nobody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _whole_file_error(path, "is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                raw = file.read(FILE_SIZE_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _whole_file_error(path, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the path
        raise _whole_file_error(path, f"cannot be read: {error}") from error
    if len(raw) > FILE_SIZE_MAX:
        raise _whole_file_error(path, f"is larger than {FILE_SIZE_MAX:,} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem(file=str(path), line=line, where="", text=f"not UTF-8 text: byte 0x{raw[error.start]:02x}")
        raise ConfigError([problem]) from error


def parse(path: Path, text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ConfigError when it is not TOML."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        text = f"not valid TOML: {error.msg[:MESSAGE_MAX]} (column {error.colno})"
        raise ConfigError([Problem(file=str(path), line=error.lineno, where="", text=text)]) from error
    except (ValueError, RecursionError) as error:
        # An integer of more digits than Python converts, or brackets nested deeper than the parser goes.
        raise _whole_file_error(path, f"not valid TOML: {error}") from error


def _whole_file_error(path: Path, text: str) -> ConfigError:
    return ConfigError([Problem(file=str(path), line=0, where="", text=text)])


def _header(name: str, shape: Shape) -> str:
    return f"[[{name}]]" if shape.repeated else f"[{name}]"


def _kind_of(value: Any) -> str:
    return "section" if isinstance(value, dict) or _is_tables(value) else "key"


def _is_tables(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
