"""What `docs/` shows works: files are read by the reader of agents, programs run, tables hold what the code holds."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hbagent.cli import COMMANDS, main
from hbagent.cli.drill_cmd import EXIT_BROKEN
from hbagent.core.config import AppConfig, ProbeConfig
from hbagent.core.messages import Notified
from hbagent.core.states import HEALTH_OF, AppState, Stall
from hbagent.core.units import parse_duration
from hbagent.probes import defaults
from hbagent.probes.host import MEASURES
from hbagent.role.settings import load_agent
from hbagent.role.settings.load import AgentSettings
from hbagent.role.settings.probing import APP, KINDS, LOOKING, PROBE, PROBER
from hbagent.transport.notify import NotifySocket
from tests.test_docs import README, ROOT, blocks, rows, section

DOCS = ROOT / "docs"
PROBES, APPLICATIONS, DIAGNOSIS = (DOCS / f"{name}.md" for name in ("probes", "applications", "diagnosis"))
#: What every agent's file must have besides.
LEADER = """
[[leader]]
name = "dc1/rack07-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""
AGENT = '[agent]\nnode = "dc1/rack07/host12"\n'
SECURITY = "[security]\nplain = true\n"


def files() -> Iterator[tuple[str, str]]:
    """Each example of an agent's file, with where it stands."""
    for document in (README, *sorted(DOCS.glob("*.md"))):
        for number, text in enumerate(blocks(document.read_text(), "toml")):
            yield f"{document.name}-{number}", text


def read(directory: Path, text: str) -> AgentSettings:
    path = directory / "agent.toml"
    path.write_text(SECURITY + ("" if "[agent]" in text else AGENT) + text + LEADER)
    return load_agent(path)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in files()])
def test_every_example_of_a_file_is_one_that_an_agent_takes(text: str, tmp_path: Path) -> None:
    settings = read(tmp_path, text)
    named = re.findall(r'^name = "(.*)"', text, re.MULTILINE)
    known = [probe.name for probe in settings.prober.probes] + [app.name for app in settings.prober.apps]
    assert [name for name in named if name not in known] == []


def test_every_kind_of_probe_has_a_section_with_an_example() -> None:
    text = PROBES.read_text()
    for kind in KINDS:
        part = text.split(f"\n## {kind}\n")[1].split("\n## ")[0]
        assert any(f'kind = "{kind}"' in block for block in blocks(part, "toml")), kind


def test_every_key_of_a_probe_and_of_an_application_is_explained() -> None:
    probes, applications, diagnosis = (path.read_text() for path in (PROBES, APPLICATIONS, DIAGNOSIS))
    keys = {*PROBE.keys, *(key for _, keys in KINDS.values() for key in keys)}
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}\b", probes)] == []
    assert [key for key in APP.keys if f"`{key}`" not in applications] == []
    # These are told in the example file alone: where things lie, and how often facts are read.
    elsewhere = ("enabled", "facts_interval", "helper")
    everything = probes + applications + diagnosis
    assert [key for key in PROBER.keys if key not in elsewhere and not re.search(rf"\b{key}\b", everything)] == []


def test_the_defaults_in_the_tables_are_those_of_the_code() -> None:
    told = {row[0]: row[1] for row in rows(PROBES.read_text() + APPLICATIONS.read_text()) if row[0].startswith("`")}
    for config in (ProbeConfig, AppConfig):
        for field in msgspec.structs.fields(config):
            shown = told.get(f"`{field.name.removesuffix('_ns')}`", "")
            if field.name.endswith("_ns") and re.fullmatch(r"\d+\w", shown):
                assert parse_duration(shown) == field.default, field.name
    assert told["`rise`, `fall`"] == "2, 3"


def test_which_kinds_run_out_of_time_without_a_verdict_is_told_as_it_is() -> None:
    (text,) = (row[2] for row in rows(PROBES.read_text()) if row[0] == "`on_timeout`")
    answering, looking = (set(re.findall(r"`(\w+)`", part)) for part in text.split(";"))
    assert looking == set(LOOKING)
    assert answering == set(KINDS) - looking


def test_the_table_of_measures_has_their_thresholds() -> None:
    told = {row[0].strip("`"): row[2:] for row in rows(section(PROBES.read_text(), "measures"))}
    assert list(told) == list(MEASURES) == list(defaults.NAMES)
    for name, measured in MEASURES.items():
        shown = [float(cell.split()[0]) if cell else None for cell in told[name]]
        assert shown == [measured.warning, measured.critical], name


def test_the_table_of_verdicts_has_all_with_what_they_mean_for_health() -> None:
    told = {row[0]: row[3] for row in rows(section(DIAGNOSIS.read_text(), "verdicts"))}
    assert told == {stall.value: HEALTH_OF[stall].value for stall in Stall}


def test_the_table_of_states_has_all() -> None:
    text = APPLICATIONS.read_text().split("\n## States\n")[1].split("\n## ")[0]
    told = [word for row in rows(text) for word in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(state.value for state in AppState)


def test_a_broken_drill_exits_with_what_is_said() -> None:
    assert f"then it exits with {EXIT_BROKEN}" in DIAGNOSIS.read_text()


@pytest.mark.parametrize("document", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_every_command_line_that_is_shown_is_one(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name, _, _ in COMMANDS]
    for line in "\n".join(blocks(document.read_text(), "sh")).splitlines():
        # What stands after "--" is another program's.
        words = line.partition(" -- ")[0].split()
        if words[:1] != ["hbagent"]:
            continue
        assert words[1] in names
        options = {word for word in words[2:] if word.startswith("--")}
        with contextlib.suppress(SystemExit):
            main([words[1], "--help"])
        shown = capsys.readouterr().out
        assert [option for option in options if option not in shown] == [], line


# ---- programs ----------------------------------------------------------------------------------------------


def said(socket: NotifySocket, program: str, path: Path, tmp_path: Path) -> list[Notified]:
    """What a Python program says to a notify socket until it ends."""
    environment = {**os.environ, "NOTIFY_SOCKET": str(path), "PYTHONPATH": str(ROOT)}
    script = tmp_path / "program.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, text=True)
    found: list[Notified] = []
    while process.poll() is None:
        found += socket.read(time.monotonic_ns())
        select.select([socket], [], [], 0.1)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    found += socket.read(time.monotonic_ns())
    assert process.stderr is not None
    process.stderr.close()
    return found


def programs() -> Iterator[tuple[str, str]]:
    """The Python examples, each after those before it in its document."""
    for document in (README, APPLICATIONS):
        before = ""
        for number, text in enumerate(blocks(document.read_text(), "python")):
            before += text
            yield f"{document.name}-{number}", before


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in programs()])
def test_every_program_tells_the_agent_of_its_marks(text: str, socket_dir: Path, tmp_path: Path) -> None:
    # A queue of two jobs, as the reader has one; the last job takes until the mark was sent.
    around = """
import time
class Jobs(list):
    def qsize(self): return len(self)
jobs, handle = Jobs([0.0, 1.2]), time.sleep
"""
    path = socket_dir / "notify"
    listening = NotifySocket(str(path), time.monotonic_ns())
    try:
        found = said(listening, around + text, path, tmp_path)
    finally:
        listening.close()
    fields = [field for notified in found for field in notified.fields]
    assert ("READY", "1") in fields
    assert ("X_HBAGENT_APP", "shop") in fields
    assert any(key == "X_HBAGENT_PROGRESS" and value.startswith("worker-3 ") for key, value in fields)
