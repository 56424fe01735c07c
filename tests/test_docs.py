"""The documents say what is so: what can be printed from the source is compared with it, what can be run is run.

`python -m tests.test_docs --rewrite` writes anew what is printed from the source (the map of ARCHITECTURE.md, its
diagram and that of docs/concepts.md, the series of docs/metrics.md); with `--picture` it also runs the demo and writes
what was seen into README.md and docs/alerts.md. Read the difference before it is committed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import hbagent
from hbagent.cli import COMMANDS
from hbagent.core.config import AgentConfig, BrakeConfig, LeaderConfig, ProberConfig, RootConfig
from hbagent.core.states import NEXT
from hbagent.core.units import HOUR, MILLISECOND, MINUTE, SECOND
from hbagent.demo.datacenter import free_ports, wait_until
from tests import documents
from tests.documents import ROOT, typed

PACKAGE = ROOT / "hbagent"
README, ARCHITECTURE = ROOT / "README.md", ROOT / "ARCHITECTURE.md"
DOCUMENTS = (ARCHITECTURE, *documents.DOCUMENTS)

#: Where the diagram of liveness is.
STATES = (ARCHITECTURE, ROOT / "docs" / "concepts.md")

#: Packages that run in a daemon or for one: each bound in them is in the table of limits.
BOUNDED = ("core", "wire", "transport", "probes", "hooks", "store", "diagnosis", "offspring", "web", "role")
#: Ends of a number's range, not bounds of memory, time or work.
RANGES = ("DURATION_MAX_NS", "DEVIATIONS_MAX", "THRESHOLD_MAX", "SEQUENCE_MAX")
UNITS_NS = {"ms": MILLISECOND, "s": SECOND, "min": MINUTE, "h": HOUR}
SIZES = {"KiB": 1 << 10, "MiB": 1 << 20}


# ---- reading documents -----------------------------------------------------------------------------------


def section(text: str, name: str) -> str:
    """What stands between the marks of a generated or checked section."""
    return text.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


def replaced(text: str, name: str, content: str) -> str:
    """`text` with another content between those marks."""
    return text.replace(f"<!-- {name} -->\n{section(text, name)}", f"<!-- {name} -->\n{content}")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, as cells, without heads and rulers."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"\|[-|: ]+\|", line):
            found.pop()
        elif line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


# ---- printed from the source -----------------------------------------------------------------------------


def docstring_of(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def floors() -> dict[str, tuple[int, str]]:
    """Package -> (floor, caption), as the docstring of `hbagent` tells them, from the top."""
    told, floor = {}, -1
    for line in (hbagent.__doc__ or "").splitlines():
        match = re.fullmatch(r" {4}(?:(\d)  | {3})(\w+(?:, \w+)*) {2,}(\S.*)", line)
        if match and match[1]:
            floor = int(match[1])
        if match and floor >= 0:
            told.update(dict.fromkeys(match[2].split(", "), (floor, match[3])))
    return told


def the_map() -> str:
    """Every package and file with its caption: the first paragraph of the file's own docstring."""
    lines = []
    for package, (floor, caption) in floors().items():
        lines += [f"### `{package}`, floor {floor}: {caption}", "", "| file | what it is |", "|---|---|"]
        for file in sorted((PACKAGE / package).rglob("*.py")):
            first = " ".join(docstring_of(file).partition("\n\n")[0].split()).replace("|", "\\|")
            if first:
                lines.append(f"| `{file.relative_to(PACKAGE)}` | {first.removesuffix(':')} |")
        lines.append("")
    return "\n".join(lines)


def the_diagram() -> str:
    """What each liveness may turn into."""
    arrows = [f"    {before.value} --> {after.value}" for before, nexts in NEXT.items() for after in nexts]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> UNKNOWN", *arrows, "```", ""])


#: Who tells of which series, in the order in which they are told.
TELLERS = {
    "Root": ("core/rootmetrics.py",),
    "Leader": ("core/leadermetrics.py",),
    "Agent, in its file": ("core/agentmetrics.py",),
    "Root and leader": ("web/server.py", "core/exposition.py"),
}
_SUFFIXES = {"counter": "_total", "info": "_info"}


def series_of(file: Path) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each family that a file tells of."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = [str(word.value) for word in node.args[:3] if isinstance(word, ast.Constant)]
            kind = words[-1] if words and node.func.attr == "lines" else node.func.attr
            if len(words) > 1 and kind in ("gauge", "counter", "info", "histogram"):
                yield f"{words[0]}{_SUFFIXES.get(kind, '')}", "gauge" if kind == "info" else kind, words[1]


def the_series() -> str:
    """Every series with its type and meaning, as the answer to a scrape says them."""
    lines = []
    for teller, files in TELLERS.items():
        lines += [f"{teller}:", "", "| series | type | what it is |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {kind} | {meaning.removesuffix('.')} |"
            for file in files
            for name, kind, meaning in series_of(PACKAGE / file)
        ]
        lines.append("")
    return "\n".join(lines)


def test_every_series_is_in_the_table_of_metrics() -> None:
    told = section((ROOT / "docs" / "metrics.md").read_text(), "series")
    assert told == the_series(), "python -m tests.test_docs --rewrite mends it"
    metrics = {file.name for file in PACKAGE.rglob("*.py") if re.search(r'"hbagent_\w+"', file.read_text())}
    assert metrics <= {Path(file).name for files in TELLERS.values() for file in files}


def test_the_map_has_every_package_and_file_with_the_caption_of_its_docstring() -> None:
    assert section(ARCHITECTURE.read_text(), "map") == the_map(), "python -m tests.test_docs --rewrite mends it"


def test_the_docstring_of_the_package_names_every_package() -> None:
    present = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert set(floors()) == present


def test_the_state_diagram_is_that_of_the_code() -> None:
    for document in STATES:
        told = section(document.read_text(), "states")
        assert told == the_diagram(), f"{document.name}: python -m tests.test_docs --rewrite mends it"


# ---- limits ----------------------------------------------------------------------------------------------


def limits() -> dict[tuple[str, str], str]:
    """(file, name) -> the value that the table of limits tells."""
    told = {}
    for row in rows(section(ARCHITECTURE.read_text(), "limits")):
        assert len(row) == 5 and all(row), row
        file, name = re.findall(r"`([^`]+)`", row[-1])
        told[file, name] = row[1]
    return told


def value_of(file: str, name: str) -> float:
    """The value that the code has; a default of a config is named by its class."""
    owner, _, field = name.rpartition(".")
    if owner:
        defaults: dict[str, object] = {}
        for config in (AgentConfig, ProberConfig, LeaderConfig, RootConfig, BrakeConfig):
            defaults |= {f"{config.__name__}.{f.name}": f.default for f in msgspec.structs.fields(config)}
        value = defaults[name]
    else:
        value = getattr(importlib.import_module(f"hbagent.{file.removesuffix('.py').replace('/', '.')}"), field)
    assert isinstance(value, (int, float))
    return value


def number_of(text: str, name: str) -> float:
    """The number in "64 KiB", "2 s", "10,000 nodes", in the unit of the constant `name`."""
    match = re.match(r"([\d,.]+)(?: (\w+))?", text)
    assert match, text
    number, unit = float(match[1].replace(",", "")), match[2] or ""
    if unit in UNITS_NS:
        return number * UNITS_NS[unit] / {"_MS": MILLISECOND, "_NS": 1}[name.upper()[-3:]]
    return number * SIZES.get(unit, 1)


def bounds_in_code() -> Iterator[tuple[str, str]]:
    """Every constant that is named as a bound, in the packages that a daemon runs."""
    for package in BOUNDED:
        for file in sorted((PACKAGE / package).rglob("*.py")):
            for node in ast.parse(file.read_text()).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                if isinstance(node, ast.AnnAssign):
                    targets = [node.target]
                for name in (target.id for target in targets if isinstance(target, ast.Name)):
                    if re.fullmatch(r"[A-Z]\w*_MAX(_NS|_MS)?", name) and name not in RANGES:
                        yield str(file.relative_to(PACKAGE)), name


def test_every_limit_of_the_table_has_the_value_of_the_code() -> None:
    wrong = [
        f"{file} {name}: the table says {text}, the code {value_of(file, name)}"
        for (file, name), text in limits().items()
        if number_of(text, name) != value_of(file, name)
    ]
    assert wrong == []


def test_every_bound_of_the_code_is_in_the_table() -> None:
    assert [bound for bound in bounds_in_code() if bound not in limits()] == [], "give each a row in ARCHITECTURE.md"


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [("64 KiB", "X_MAX", 65_536), ("2.5 s", "X_MAX_NS", 2_500_000_000), ("3 s", "X_MS", 3_000), ("10,000", "X", 1e4)],
)
def test_a_limit_is_read_in_the_unit_of_its_constant(text: str, name: str, number: float) -> None:
    assert number_of(text, name) == number


# ---- names -----------------------------------------------------------------------------------------------


def anchors(text: str) -> list[str]:
    """The anchors that a reader's browser finds: one for each heading, those that come again with a number."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE):
        anchor = "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


def is_heading(document: Path, link: str) -> bool:
    """True when a link leads to a heading, in this document or another."""
    file, _, anchor = link.partition("#")
    return anchor in anchors((document.parent / file if file else document).read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_commands_targets_and_files_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *blocks(text, r"\w*")])
    commands = {name: module for name, module, _ in COMMANDS}
    named = set(re.findall(r"\bhbagent ([a-z][a-z-]*)\b", code))
    assert {word for word in named if importlib.util.find_spec(commands.get(word, "hbagent.absent")) is None} == set()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets
    paths = {path for path in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|toml|md))`", text) if "<" not in path}
    assert {path for path in paths if not ((ROOT / path).exists() or (PACKAGE / path).exists())} == set()
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    places = [place for place in re.findall(r"\]\(([^)]*#[^)]*)\)", text) if not place.startswith("http")]
    assert [place for place in places if not is_heading(document, place)] == []


# ---- run -------------------------------------------------------------------------------------------------


class Shell:
    """Runs the lines of a document as a reader would, with `hbagent` on the path and a directory to spoil."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        programs = directory / "bin"
        programs.mkdir()
        program = programs / "hbagent"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hbagent "$@"\n')
        program.chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "110", "LC_ALL": "C.UTF-8"}
        self.environment.pop("HBAGENT_CONFIG", None)
        self.started: list[subprocess.Popen[str]] = []

    def run(self, script: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self.directory,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start it, in a process group of its own."""
        self.started.append(
            subprocess.Popen(
                ["bash", "-e", "-c", script],
                cwd=self.directory,
                env=self.environment,
                text=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return self.started[-1]

    def process(self, words: str) -> int:
        """The process that was started with these words."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if words in command and os.getpgid(int(process.name)) in [shell.pid for shell in self.started]:
                    return int(process.name)
        raise LookupError(words)

    def close(self) -> None:
        """End what was started."""
        ended, self.started = self.started, []
        for process in ended:
            os.killpg(process.pid, signal.SIGTERM)
        for process in ended:
            process.wait(30)


@pytest.fixture
def shell(socket_dir: Path) -> Iterator[Shell]:
    """A shell in an empty directory."""
    made = Shell(socket_dir)
    yield made
    made.close()


@contextlib.contextmanager
def shells(below: Path) -> Iterator[Callable[[], Shell]]:
    """Makes shells, each in an empty directory of its own."""
    made: list[Shell] = []

    def make() -> Shell:
        directory = below / str(len(made))
        directory.mkdir()
        made.append(Shell(directory))
        return made[-1]

    try:
        yield make
    finally:
        for shell in made:
            shell.close()


#: Where the deployment by hand is told.
BY_HAND = [document for document in documents.DOCUMENTS if typed("hand", document)]


def by_hand(document: Path) -> tuple[str, str, str, str]:
    """The blocks of a deployment by hand: keys, files, daemons, question; on ports that nobody uses now."""
    session = [block.text for block in typed("hand", document)]
    for port, free in zip(("5711", "5712", "5701", "5702", "5703"), free_ports(5), strict=True):
        session = [text.replace(port, str(free)) for text in session]
    keys, files, daemons, question = session
    return keys, files, daemons, question


@pytest.mark.e2e
@pytest.mark.paired
@pytest.mark.timeout(120)
@pytest.mark.parametrize("document", BY_HAND, ids=lambda path: path.name)
def test_the_deployment_by_hand_comes_up_and_tells_its_hook_of_a_death(shell: Shell, document: Path) -> None:
    keys, files, daemons, question = by_hand(document)
    for block in (keys, files):
        done = shell.run(block if block is keys else f"cd fleet\n{block}")
        assert done.returncode == 0, done.stderr
    # "wait" keeps the shell, and with it the process group that is ended in the end.
    shell.start(f"cd fleet\n{daemons}\nwait")
    ask = f"cd fleet\n{question}"
    answers: list[subprocess.CompletedProcess[str]] = []

    def asked() -> subprocess.CompletedProcess[str]:
        answers.append(shell.run(ask))
        return answers[-1]

    assert wait_until(lambda: asked().returncode == 0, 30), answers[-1].stdout
    assert "the one node is ALIVE" in answers[-1].stdout
    os.kill(shell.process("-m hbagent agent"), signal.SIGKILL)
    told = shell.directory / "fleet" / "told.jsonl"
    assert wait_until(lambda: told.exists() and '"kind":"node-dead"' in told.read_text(), 30)
    assert asked().returncode == 2


#: A host that dies, an application that gets stuck, a death that nobody is told of; and where that is shown.
PICTURES = {"picture": README, "stuck": README, "silent": ROOT / "docs" / "alerts.md"}


def picture_commands(name: str) -> list[str]:
    """What a picture types."""
    return re.findall(r"^\$ (.*)$", section(PICTURES[name].read_text(), name), re.MULTILINE)


def start_demo(shell: Shell) -> None:
    """Run the demo in the shell's directory until all of it is well."""
    shell.environment["HBAGENT_CONFIG"] = "demo/etc/root.toml"
    (block,) = {block.text for block in typed("started")}
    shell.start(f"exec {block}")
    # Health is known with the first report, and a report that was lost comes again after one report interval.
    assert wait_until(lambda: len(re.findall("ALIVE +✓ OK", shell.run("hbagent nodes").stdout)) == 8, 60)
    assert wait_until(lambda: "shop (ready)" in shell.run("hbagent explain demo/rack1/node1").stdout, 30)


def take_picture(shell: Shell, name: str) -> str:
    """Run the demo and, beside it, the commands of a picture; what a terminal would show."""
    start_demo(shell)
    lines = ["```"]
    for command in picture_commands(name):
        done = shell.run(command)
        shown = (done.stdout + done.stderr).rstrip()
        lines += [f"$ {command}", *([shown] if shown else []), ""]
    return "\n".join([*lines[:-1], "```", ""])


def masked(text: str) -> list[str]:
    """The words of a picture, without what differs from run to run: times, ages, ids and figures."""
    # Whether a host's facts have come by then differs too.
    text = re.sub(r"(?m)^ *host: .*\n", "", text)
    # And how far an ending process has come when it is asked, whether its beat was due just then, and whether it took
    # so long that neighbours were asked.
    passing = "was expected|closed without an answer|/udp: nobody listens there|about it|has not acknowledged .*"
    passing += r"|got nothing from it: \w+"
    text = re.sub(rf"(?m)^ *[\d.]+ ms  .*(?:{passing})\n", "", text)
    # By which of its names Python was started.
    text = re.sub(r"\(python[\d.]+\)", "(python)", text)
    # Who runs the tests, and the number of an incident, which is that of an event.
    text = re.sub(r"\S+ \(uid \d+\)", "somebody", re.sub(r"\bi\d+\b", "i#", text))
    without = re.sub(r"\b0x[0-9a-f]+|\b[0-9a-f]{8}-\d+|\b\d[\d:.TZ-]*(?:ns|us|ms|s|m)?\b", "#", text)
    return [" ".join(line.split()) for line in without.splitlines()]


def as_printed(make: Callable[[], Shell], name: str) -> Shell:
    """A shell beside a demo in which the commands of a picture looked as it is printed.

    A beat is late there after 150 ms, so on a machine that stands still for a moment something else is seen as well,
    and rightly: then another demo is looked at. What is wrong is wrong each time.
    """
    printed = masked(section(PICTURES[name].read_text(), name))
    for last in (False, False, True):
        shell = make()
        taken = masked(take_picture(shell, name))
        if taken == printed:
            return shell
        shell.close()
        assert not last or taken == printed
    raise AssertionError


@pytest.mark.e2e
@pytest.mark.paired
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", [name for name, document in PICTURES.items() if document is README])
def test_the_picture_is_what_a_death_or_a_deadlock_in_the_demo_looks_like(socket_dir: Path, name: str) -> None:
    with shells(socket_dir) as make:
        as_printed(make, name)


def rewrite(picture: bool) -> None:
    """Write anew what is printed from the source."""
    text = replaced(ARCHITECTURE.read_text(), "map", the_map())
    ARCHITECTURE.write_text(text)
    for document in STATES:
        document.write_text(replaced(document.read_text(), "states", the_diagram()))
    metrics = ROOT / "docs" / "metrics.md"
    metrics.write_text(replaced(metrics.read_text(), "series", the_series()))
    if picture:
        for name, document in PICTURES.items():
            with tempfile.TemporaryDirectory(prefix="hb") as directory:
                shell = Shell(Path(directory))
                try:
                    document.write_text(replaced(document.read_text(), name, take_picture(shell, name)))
                finally:
                    shell.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rewrite", action="store_true", required=True)
    parser.add_argument("--picture", action="store_true")
    rewrite(parser.parse_args().picture)
