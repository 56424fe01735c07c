"""Writes the manual pages and the reference pages of docs/: commands from the parsers of the command line, settings
from the files in etc/ and the readers of each key, daemons from their units and what is said here, messages from the
code of the wire.

`python tools/manual.py` writes deploy/man and docs/ anew. Whoever changes an option, a setting's comment, a unit or a
message has changed a page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hbagent.cli import check_hbagent, tree  # noqa: E402
from hbagent.cli.drill_cmd import EXIT_BROKEN, EXIT_BUSY  # noqa: E402
from hbagent.cli.replay_cmd import EXIT_DATA, EXIT_IO  # noqa: E402
from hbagent.cli.tree import Argument, Command, commands  # noqa: E402
from tools import reference  # noqa: E402

PAGES = ROOT / "deploy" / "man"
DOCS = reference.DOCS

EXIT_CODES = (
    ("0", "all is well; for commands other than status: done"),
    ("1", "a node is SUSPECT, WARNING or STALLED"),
    ("2", "a node is DEAD, CRITICAL or DEADLOCKED, or a rack is DARK"),
    ("3", "a node or rack is UNKNOWN, or nobody answers"),
    ("64", "the call or a config file is wrong"),
    ("69", "the command is not in this installation, or what a daemon needs is not there"),
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
    ("/run/hbagent", "the socket that applications use"),
    ("/run/hbagent-leader, /run/hbagent-root", "the sockets that commands use"),
    ("/var/lib/hbagent", "what a root, leader or agent must not forget"),
)
#: Commands whose exit codes mean something else than those of status.
COMMAND_EXITS = {
    **dict.fromkeys(("agent", "leader", "root"), "0 when it ended as it was told to; 64, 69 and 70 as above"),
    "demo": "0; 69 when it could not be started",
    "diagnose": "0 when nothing is wrong, 1 for WARNING, 2 for a process that is stuck, 3 for UNKNOWN",
    "check-config": "0 when every file can be used, else 64",
    "import": "1 when something could not be turned into a probe",
    "drill": f"{EXIT_BROKEN} when a stage is broken, {EXIT_BUSY} when others have drills under way",
    "backup": "1 when something in the copy is damaged",
    "sim": "70 when an invariant broke",
    "replay": f"{EXIT_DATA} for a recording that is not one, {EXIT_IO} for a file that cannot be read",
    "check_hbagent": "0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, as of every Nagios plugin",
}
ROLES = ("agent", "leader", "root")
#: What each daemon is for, and the settings that say where it listens and what it calls.
DAEMONS = {
    "agent": (
        "beats for a host, and looks at its applications",
        "It runs on every host and beats to all leaders of its rack. It opens every connection itself; only its echo "
        "port is called from outside. Beside it, in a process of its own that may be killed at any moment, the prober "
        "takes facts, runs probes and listens to applications.",
        (("echo", "port"), ("prober", "notify"), ("prober", "helper"), ("metrics", "textfile")),
    ),
    "leader": (
        "hears the agents of its racks and judges their silence",
        "It takes beats and reports, asks at once about whoever is late, and tells the root what it found, with the "
        "evidence. A rack has one to three leaders, which ask one another and need no election. What the root has not "
        "confirmed is kept on disk.",
        (
            *(("leader", key) for key in ("publish", "control", "query")),
            *(("rotation", key) for key in ("publish", "control")),
            ("web", "listen"),
        ),
    ),
    "root": (
        "joins what leaders say, keeps the history, tells people",
        "There is one. It merges what the leaders of each rack say, writes each event to its store before it confirms "
        "it, and starts hooks and tells Alertmanager. Commands ask it at a unix socket.",
        (
            *(("root", key) for key in ("publish", "control", "query")),
            *(("rotation", key) for key in ("publish", "control")),
            *(("operators", "listen"), ("web", "listen")),
        ),
    ),
}
SIGNALS = (
    ("SIGTERM, SIGINT", "end; what must not be lost is written first, and an agent says goodbye to its leaders"),
    ("SIGHUP", "read the config file again; one with mistakes changes nothing, and the log says which"),
)
NOTICES = (
    ("READY=1", "the config is valid and every socket is bound; again after each reload"),
    ("STATUS=", "one line about what it does now"),
    ("WATCHDOG=1", "at half of WATCHDOG_USEC, from the loop that does the work and from nowhere else"),
    ("RELOADING=1, MONOTONIC_USEC=", "SIGHUP has come"),
    ("STOPPING=1", "it ends because it was told to"),
)
DAEMON_ENVIRONMENT = (
    ("NOTIFY_SOCKET", "where the notifications go; without it there are none"),
    ("WATCHDOG_USEC, WATCHDOG_PID", "how often systemd wants to hear of it"),
    ("CREDENTIALS_DIRECTORY", 'where a file lies that a config names as "credential:NAME"'),
    ("JOURNAL_STREAM", "standard error is the journal, which has times and levels of its own"),
)
#: What lines of a unit mean for whoever looks for a file or a right. The others stand in the unit with their reason.
UNIT_LINES = {
    "ExecStart": "what is run",
    "User": "as whom",
    "DynamicUser": "a user of its own, which is there while it runs",
    "SupplementaryGroups": "to ask the diagnosis helper",
    "LoadCredential": "the secret key: root's file, which this daemon alone sees",
    "RuntimeDirectory": "below /run: its sockets",
    "StateDirectory": "below /var/lib: what it must not forget",
    "WatchdogSec": "a loop that stands still for so long is killed and started again",
    "MemoryMax": "what grows past this leaks",
}

_SECTION = reference.SECTION
_KEY = reference.KEY


def pages() -> dict[str, str]:
    """Each page of the manual by its file name."""
    files = {role: (ROOT / "etc" / f"{role}.toml").read_text("utf-8") for role in ROLES}
    every = commands()
    return {
        "hbagent.1": command_page(every),
        "hbagent.toml.5": settings_page(files),
        **{f"hbagent-{role}.8": daemon_page(role, every) for role in ROLES},
    }


def references() -> dict[Path, str]:
    """Each page of docs/ that is printed from the code, by its file."""
    plugin = tree._command("check_hbagent", "all of it as a Nagios plugin", check_hbagent._parser(), False)
    wire, security = DOCS / "wire.md", DOCS / "security.md"
    text = wire.read_text("utf-8")
    sections = {
        "version": reference.version_line,
        "types": reference.type_table,
        "fields": reference.field_tables,
        "words": reference.word_tables,
    }
    for name, print_ in sections.items():
        text = reference.replaced(text, name, print_())
    return {
        DOCS / "reference-config.md": reference.config_page(),
        DOCS / "reference-cli.md": reference.cli_page(commands(), plugin, EXIT_CODES, COMMAND_EXITS),
        wire: text,
        security: reference.replaced(security.read_text("utf-8"), "ports", reference.port_table()),
    }


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


def _others(name: str) -> str:
    """All pages but one, for the end of it."""
    every = {"hbagent": 1, "hbagent.toml": 5, **{f"hbagent-{role}": 8 for role in ROLES}}
    return ",\n".join(f"{bold(other)}({section})" for other, section in every.items() if other != name)


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
    lines += [".SH FILES", *_terms(FILES), ".SH SEE ALSO", _others("hbagent")]
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
    return "\n".join([*lines, ".SH SEE ALSO", _others("hbagent.toml"), ""])


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
            yield from (".TP", f"{bold(key['key'])} = {text(key['value'])}", meaning or "\\&")
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


# ---- hbagent-agent(8), hbagent-leader(8), hbagent-root(8) -----------------------------------------------


def daemon_page(role: str, every: Sequence[Command]) -> str:
    """The page of a daemon: how it is told things, where it listens, what its unit gives it."""
    line, told, places = DAEMONS[role]
    (command,) = (command for command in every if command.name == role)
    lines = _head(f"hbagent-{role}", 8, line)
    lines += [".SH SYNOPSIS", _usage(command), ".SH DESCRIPTION", text(told), ".SH OPTIONS"]
    for option in command.options:
        if option.words != ("-h", "--help"):
            lines += [".TP", _label(option), text(option.help)]
    lines += [".SH SIGNALS", *_terms(SIGNALS)]
    lines += [".SH NOTIFICATIONS", text("What it tells systemd, as sd_notify(3) has it."), *_terms(NOTICES)]
    lines += [".SH SOCKETS", text("Each is a setting, shown with its default; see hbagent.toml(5).")]
    for table, key in places:
        if table in reference.SHAPES[role]:
            lines += [".TP", *_place(role, table, key)]
    lines += [".SH UNIT", text(f"What hbagent-{role}.service gives it."), *_terms(_unit_lines(role))]
    lines += [".SH FILES", *_terms([(f"/etc/hbagent/{role}.toml", "its settings")])]
    lines += [".SH ENVIRONMENT", *_terms(DAEMON_ENVIRONMENT)]
    lines += [".SH EXIT STATUS", text(f"{COMMAND_EXITS[role].partition(';')[0]}."), *_terms(_daemon_exits())]
    return "\n".join([*lines, ".SH SEE ALSO", _others(f"hbagent-{role}"), ""])


def _place(role: str, table: str, key: str) -> Iterator[str]:
    """One setting that names a place, with its default."""
    rows = {row.key: row for row in reference.settings(role, table)}
    row = rows[key]
    default = row.default.strip("`").strip('"')
    yield f"{bold(default if default not in ('none', 'required') else 'none by default')}, {text(f'[{table}] {key}')}"
    shared = re.fullmatch("see `(.*)`", row.meaning)
    yield text(rows[shared[1]].meaning if shared else row.meaning)


def _unit_lines(role: str) -> Iterator[tuple[str, str]]:
    """The lines of its unit that say as whom it runs and where it keeps things."""
    unit = (ROOT / "deploy" / f"hbagent-{role}.service").read_text("utf-8")
    for line in unit.splitlines():
        key = line.partition("=")[0]
        if key in UNIT_LINES:
            yield line, UNIT_LINES[key]


def _daemon_exits() -> Iterator[tuple[str, str]]:
    yield from (pair for pair in EXIT_CODES if pair[0] in ("64", "69", "70"))


if __name__ == "__main__":
    PAGES.mkdir(parents=True, exist_ok=True)
    written = {PAGES / name: page for name, page in pages().items()} | references()
    for file, page in written.items():
        file.write_text(page, "utf-8")
