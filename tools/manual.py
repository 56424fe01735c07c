"""Writes the manual pages: hbagent(1) from the parsers of the command line, hbagent.toml(5) from the files in etc/.

`python tools/manual.py` writes deploy/man anew. Whoever changes an option or a setting's comment has changed a page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hbagent.cli.tree import Argument, Command, commands  # noqa: E402

PAGES = ROOT / "deploy" / "man"

EXIT_CODES = (
    ("0", "all is well; for commands other than status: done"),
    ("1", "a node is SUSPECT, WARNING or STALLED"),
    ("2", "a node is DEAD, CRITICAL or DEADLOCKED, or a rack is DARK"),
    ("3", "a node or rack is UNKNOWN, or nobody answers"),
    ("64", "the call or a config file is wrong"),
    ("69", "the command is not in this installation"),
    ("70", "a defect of hbagent"),
    ("130, 141", "ended by Ctrl-C; the reader of its output went away"),
)
ENVIRONMENT = (
    ("HBAGENT_CONFIG", "the config file of the daemon to ask, where --config is not given"),
    ("HBAGENT_NOTIFY", "the socket of the agent that applications report to"),
    ("NO_COLOR, FORCE_COLOR, TERM", "no colours, colours also on a pipe, and dumb for a terminal without"),
    ("XDG_CACHE_HOME", "below it, hbagent/nodes has the names that shells complete (else ~/.cache)"),
)
FILES = (
    ("/etc/hbagent/root.toml, leader.toml, agent.toml", "the settings of each role; see hbagent.toml(5)"),
    ("/run/hbagent", "the sockets that commands and applications use"),
    ("/var/lib/hbagent", "what a root, leader or agent must not forget"),
)
ROLES = ("agent", "leader", "root")

_SECTION = re.compile(r"#? *(\[\[?[a-z_.]+\]?\])$")
_KEY = re.compile(r"(?:#(?:  )?)?([a-z_]+) = (.*)$")


def pages() -> dict[str, str]:
    """Each page by its file name."""
    files = {role: (ROOT / "etc" / f"{role}.toml").read_text("utf-8") for role in ROLES}
    return {"hbagent.1": command_page(commands()), "hbagent.toml.5": settings_page(files)}


def text(words: str) -> str:
    """Words as roff takes them: nothing in them is a request or an escape."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha")
    escaped = escaped.replace("~", "\\(ti").replace("`", "\\(ga")
    # A path or an address may be broken after any of its parts.
    escaped = escaped.replace("/", "/\\:")
    escaped = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def bold(words: str) -> str:
    """Words as they are typed."""
    return f"\\fB{text(words)}\\fR"


def _terms(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in pairs:
        yield from (".TP", bold(term), text(meaning))


def _head(name: str, section: int, line: str) -> list[str]:
    # No date and no version: a page says what the tree beside it says.
    title = f'.TH {name.upper()} {section} "" "hbagent" ""'
    # Paths and lists of choices are long words, which leave holes in lines of equal length.
    return [title, ".ad l", ".nh", ".SH NAME", f"{text(name)} \\- {text(line)}"]


# ---- hbagent(1) ------------------------------------------------------------------------------------------


def command_page(every: Sequence[Command]) -> str:
    """hbagent(1): each command with its options."""
    lines = _head("hbagent", 1, "says within seconds that a host died, and why")
    lines += [".SH SYNOPSIS", f"{bold('hbagent')} \\fICOMMAND\\fR [\\fIoptions\\fR]"]
    lines += [".SH DESCRIPTION"]
    lines.append(
        text(
            "An agent on each host beats for the leaders of its rack; they judge, and a root joins what they say. One "
            "command runs each of them, and the others ask them. All options are written out in full."
        )
    )
    lines.append(".SH COMMANDS")
    for command in every:
        lines += _command_lines(command)
    lines += [
        ".SH EXIT STATUS",
        text("Those of status, which answers with them, and of every call."),
        *_terms(EXIT_CODES),
    ]
    lines += [".SH ENVIRONMENT", *_terms(ENVIRONMENT)]
    lines += [".SH FILES", *_terms(FILES), ".SH SEE ALSO", f"{bold('hbagent.toml')}(5)"]
    return "\n".join([*lines, ""])


def _command_lines(command: Command) -> Iterator[str]:
    yield f".SS {text(command.name)}"
    yield f"{text(command.line[:1].upper() + command.line[1:])}."
    yield ".PP"
    yield _usage(command)
    for argument in (*command.values, *command.options):
        if argument.words != ("-h", "--help"):
            yield from (".TP", _label(argument), text(" ".join(argument.help.split())) or "\\&")
    if command.epilog:
        yield from (".PP", text(" ".join(command.epilog.split())))
    for below in command.below:
        yield from _command_lines(below)


def _usage(command: Command) -> str:
    parts = [bold(f"hbagent {command.name}"), "[\\fIoptions\\fR]"]
    parts += [_label(option) for option in command.options if option.required]
    parts += [f"{_label(value)}{' ...' * value.many}" for value in command.values]
    if command.below:
        parts.append("|\\:".join(bold(below.name.rpartition(" ")[2]) for below in command.below))
    return " ".join([*parts, *([bold("--"), "\\fICOMMAND\\fR ..."] if command.takes_rest else [])])


def _label(argument: Argument) -> str:
    names = [bold(word) for word in argument.words]
    if not argument.value:
        return ", ".join(names)
    # A line may be broken between choices.
    choices = "|\\:".join(map(text, argument.choices))
    value = f"\\fI{choices or text(argument.value)}\\fR"
    return f"{', '.join(names)} {value}" if names else value


# ---- hbagent.toml(5) -------------------------------------------------------------------------------------


def settings_page(files: dict[str, str]) -> str:
    """hbagent.toml(5): every setting of each role, as its shipped file explains it."""
    lines = _head("hbagent.toml", 5, "settings of an hbagent agent, leader or root")
    lines += [".SH DESCRIPTION"]
    lines.append(
        text(
            "Each role reads one file of TOML: /etc/hbagent/agent.toml, leader.toml or root.toml. A setting that is "
            "not written has the value that is shown here. hbagent check-config FILE tells everything that is wrong "
            "with one, and a daemon that is told to read its file again (SIGHUP, systemctl reload) keeps the old "
            "settings when it has mistakes."
        )
    )
    for role, source in files.items():
        lines += [f".SH {role.upper()}.TOML", *_setting_lines(source)]
    return "\n".join([*lines, ".SH SEE ALSO", f"{bold('hbagent')}(1)", ""])


def _setting_lines(source: str) -> Iterator[str]:
    told: list[str] = []

    def flushed() -> Iterator[str]:
        for kept, group in _paragraphs(told):
            yield from ((".nf", *group, ".fi") if kept else (".PP", " ".join(group)))
        told.clear()

    for line in source.splitlines():
        section, key = _SECTION.match(line), _KEY.match(line)
        if section:
            words = list(flushed())
            yield from (f".SS {text(section.group(1))}", *words)
        elif key:
            meaning = " ".join(text(part.strip()) for part in told)
            told.clear()
            yield from (".TP", f"{bold(key.group(1))} = {text(key.group(2))}", meaning or "\\&")
        elif line.startswith("#"):
            told.append(line[1:])
        elif not line:
            yield from flushed()
        else:
            # The further lines of a value.
            yield from (".br", text(line.strip()))
    yield from flushed()


def _paragraphs(told: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    """Comment lines as runs of prose and of lines that keep their form, which are indented."""
    kept, group = False, list[str]()
    for line in [*told, ""]:
        indented = line.startswith("   ")
        if group and (indented != kept or not line.strip()):
            yield kept, group
            group = []
        kept = indented
        if line.strip():
            group.append(text(line.strip() if not indented else line[1:]))


if __name__ == "__main__":
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (PAGES / name).write_text(page, "utf-8")
