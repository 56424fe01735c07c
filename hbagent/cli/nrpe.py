"""Reads what NRPE's daemon is configured with: the commands that it may run, each with its file and line.

NRPE hands a command to a shell and lets the caller fill in arguments; an exec probe is a list of words that nobody
fills in. So a command line is taken apart as a POSIX shell would, and one that needs the shell for more than quotes,
or the caller for its arguments, is refused with the word that needs it. Nothing is run and nothing expanded.

Format: `nrpe.cfg` as NRPE 2 to 4 read it: one `name=value` a line, blanks around the line dropped, "#" begins a comment
only at its start, `include`, `include_file` and `include_dir` (files that end in .cfg, and directories, of it).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

#: Largest file that is read, how deep files may name files, and how many there may be: what people write by hand.
FILE_SIZE_MAX = 1 << 20
DEPTH_MAX = 16
FILES_MAX = 1_000

_COMMAND = re.compile(r"command\[([^\]]*)\]")
_ARGUMENT = re.compile(r"\$ARG[0-9]+\$")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_INCLUDES = ("include", "include_file")
#: What means something to a shell where it is not quoted.
_OPERATORS = "|&;<>()\n"
_PATTERNS = "*?["
#: What a backslash quotes between double quotes.
_QUOTABLE = '$`"\\\n'


class Unfit(Exception):
    """A command line that no list of words can stand for; the text says why."""


class Line(msgspec.Struct, frozen=True):
    """Where something is written."""

    file: Path
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


class Command(msgspec.Struct, frozen=True):
    """One `command[name]=line`, with the prefix that NRPE puts before it."""

    name: str
    line: str
    at: Line


class Config(msgspec.Struct):
    """What was read: commands by name, and what could not be read."""

    commands: dict[str, Command] = {}
    #: Where, and what is wrong there.
    problems: list[tuple[Line, str]] = []
    #: Words of `command_prefix`, and seconds of `command_timeout`; "" and None when they are not set.
    prefix: str = ""
    timeout_s: int | None = None


def read(path: Path) -> Config:
    """Everything that a config file and those that it includes say of commands. Raises OSError for that file alone."""
    config = Config()
    _Reader(config).take(path, _text(path), ())
    return config


class _Reader:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._read = 0

    def take(self, path: Path, text: str, above: tuple[Path, ...]) -> None:
        """Take one file in; `above` are those that led to it."""
        self._read += 1
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.strip()
            if line and not line.startswith("#"):
                self._setting(Line(path, number), line, (*above, path))

    def _setting(self, at: Line, line: str, above: tuple[Path, ...]) -> None:
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            self._say(at, "no name=value")
            return
        match = _COMMAND.fullmatch(name)
        if match:
            self._command(at, match[1].strip(), value)
        elif name in _INCLUDES:
            self._include(at, Path(value), above)
        elif name == "include_dir":
            for file in self._files(at, Path(value), 0):
                self._include(at, file, above)
        elif name == "command_prefix":
            self._config.prefix = value
        elif name == "command_timeout":
            if value.isdecimal() and len(value) < 7 and int(value) > 0:
                self._config.timeout_s = int(value)
            else:
                self._say(at, f"command_timeout: {value!r} is no number of seconds")

    def _command(self, at: Line, name: str, line: str) -> None:
        if not name or not line:
            self._say(at, "a command needs a name and a command line")
            return
        before = self._config.commands.pop(name, None)
        if before is not None:
            self._say(before.at, f"command[{name}] is defined again at {at}, and that one counts")
        self._config.commands[name] = Command(name, line, at)

    def _include(self, at: Line, path: Path, above: tuple[Path, ...]) -> None:
        if path in above:
            self._say(at, f"{path} is included by itself")
        elif len(above) > DEPTH_MAX or self._read >= FILES_MAX:
            self._say(at, f"{path} is not read: files include files too often")
        else:
            try:
                text = _text(path)
            except OSError as error:
                self._say(at, f"{path} cannot be read: {error.strerror or error}")
            else:
                self.take(path, text, above)

    def _files(self, at: Line, directory: Path, depth: int) -> Iterator[Path]:
        """The config files below a directory, in the order of their names."""
        try:
            entries = sorted(directory.iterdir())
        except OSError as error:
            self._say(at, f"{directory} cannot be read: {error.strerror or error}")
            return
        for entry in entries:
            if entry.is_dir() and depth < DEPTH_MAX:
                yield from self._files(at, entry, depth + 1)
            elif entry.suffix == ".cfg":
                yield entry

    def _say(self, at: Line, text: str) -> None:
        self._config.problems.append((at, text))


def _text(path: Path) -> str:
    """Raises OSError."""
    # Without waiting for whoever may write to a named pipe.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        data = file.read(FILE_SIZE_MAX + 1)
    if len(data) > FILE_SIZE_MAX:
        raise OSError(0, f"larger than {FILE_SIZE_MAX:,} bytes", str(path))
    return data.decode("utf-8", "surrogateescape")


# ---- a command line --------------------------------------------------------------------------------------


def words_of(line: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command line sets for its program, and the words of the program. Raises Unfit."""
    argument = _ARGUMENT.search(line)
    if argument:
        raise Unfit(f"{argument[0]} is filled in by whoever calls (dont_blame_nrpe); write the value itself")
    if any("\udc80" <= character <= "\udcff" for character in line):
        raise Unfit("is not UTF-8 text")
    words = _split(line)
    variables: dict[str, str] = {}
    while words and (match := _ASSIGNMENT.fullmatch(words[0])):
        variables[match[1]] = match[2]
        words = words[1:]
    if not words:
        raise Unfit("runs no program")
    return variables, words


def _split(line: str) -> list[str]:
    """The words of a command line. Raises Unfit for what only a shell could make of it."""
    words: list[str] = []
    word: list[str] | None = None
    rest = iter(line)
    for character in rest:
        if character in " \t":
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        if character in _OPERATORS or character in _PATTERNS or character in "$`":
            raise Unfit(f"{character} needs a shell: put it into a script, or quote it")
        if word is None and character in "~#":
            raise Unfit(f"{character} at the start of a word needs a shell: put it into a script, or quote it")
        word = [] if word is None else word
        if character == "\\":
            word.append(_next(rest, "a backslash at the end quotes nothing"))
        elif character == "'":
            while (quoted := _next(rest, "a ' is not closed")) != "'":
                word.append(quoted)
        elif character == '"':
            word.extend(_between_double_quotes(rest))
        else:
            word.append(character)
    return words if word is None else [*words, "".join(word)]


def _between_double_quotes(rest: Iterator[str]) -> Iterator[str]:
    while (quoted := _next(rest, 'a " is not closed')) != '"':
        if quoted in "$`":
            raise Unfit(f"{quoted} needs a shell: put it into a script, or quote it with '")
        if quoted == "\\":
            following = _next(rest, 'a " is not closed')
            yield following if following in _QUOTABLE else f"\\{following}"
        else:
            yield quoted


def _next(rest: Iterator[str], otherwise: str) -> str:
    character = next(rest, None)
    if character is None:
        raise Unfit(otherwise)
    return character
