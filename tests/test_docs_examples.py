"""What `docs/` shows works: files are read by the reader of agents, programs run, tables hold what the code holds."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from hbagent.cli import COMMANDS, main
from hbagent.cli.drill_cmd import EXIT_BROKEN
from hbagent.cli.grid import Screen
from hbagent.console.lines import legend
from hbagent.console.pages import KEYS
from hbagent.core import labels
from hbagent.core.config import AppConfig, HookConfig, ProbeConfig, RootConfig
from hbagent.core.messages import Notified
from hbagent.core.notice import content
from hbagent.core.records import Event
from hbagent.core.states import HEALTH_OF, AppState, Axis, Health, Kind, Reason, Stall
from hbagent.core.units import parse_duration
from hbagent.hooks import runner
from hbagent.probes import defaults
from hbagent.probes.host import MEASURES
from hbagent.role.settings import load_agent, load_any
from hbagent.role.settings.load import AgentSettings
from hbagent.role.settings.probing import APP, KINDS, LOOKING, PROBE, PROBER
from hbagent.transport.notify import NotifySocket
from tests.documents import DOCUMENTS, ROOT, Block, typed
from tests.test_docs import README, Shell, as_printed, blocks, rows, section, shells

DOCS = ROOT / "docs"
PROBES, APPLICATIONS, DIAGNOSIS = (DOCS / f"{name}.md" for name in ("probes", "applications", "diagnosis"))
WIRE = DOCS / "wire.md"
ALERTS, HOOKS, CONSOLE = (DOCS / f"{name}.md" for name in ("alerts", "hooks", "console"))
#: What every agent's file must have besides.
LEADER = """
[[leader]]
name = "dc1/rack07-leader1"
publish = "tcp://127.0.0.1:5701"
control = "tcp://127.0.0.1:5702"
"""
AGENT = '[agent]\nnode = "dc1/rack07/host12"\n'
SECURITY = "[security]\nplain = true\n"
#: What every root's file must have besides.
RACK = """
[security]
key = "keys/dc1.root.key"
allow = "allow.toml"
[[rack]]
name = "dc1/rack07"
leaders = ["dc1/rack07-leader1"]
"""
#: Tables that only a root's file has, and the one key of a root in a table that agents have too.
OF_A_ROOT = re.compile(r"^(\[\[?(root|web|hook|alertmanager|operators|operator|flap|brake)\]|hosts = )", re.MULTILINE)


def files() -> Iterator[tuple[str, str]]:
    """Each example of an agent's file, with where it stands."""
    for document in DOCUMENTS:
        for number, text in enumerate(blocks(document.read_text(), "toml")):
            yield f"{document.name}-{number}", text


def read(directory: Path, text: str) -> AgentSettings:
    path = directory / "agent.toml"
    path.write_text(SECURITY + ("" if "[agent]" in text else AGENT) + text + LEADER)
    return load_agent(path)


def is_of_an_agent(text: str) -> bool:
    return OF_A_ROOT.search(text) is None


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in files() if not is_of_an_agent(text)])
def test_every_example_of_a_file_is_one_that_a_root_or_an_operator_takes(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    name = 'name = "dc1/root"\n'
    if "[operator]\n" not in text:
        text = text.replace("[root]\n", f"[root]\n{name}") if "[root]" in text else f"[root]\n{name}{text}"
        text += RACK
    path.write_text(text)
    load_any(path)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in files() if is_of_an_agent(text)])
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
        shown = ""
        for action in ([], words[2:3]):
            with contextlib.suppress(SystemExit):
                main([words[1], *action, "--help"])
            shown += capsys.readouterr().out
        assert [option for option in options if option not in shown] == [], line


# ---- alerts, hooks, console --------------------------------------------------------------------------------


def told(document: Path, name: str, column: int = 0) -> list[str]:
    """The words in a column of a table of a document, in order."""
    return [word for row in rows(section(document.read_text(), name)) for word in re.findall(r"`([^`]+)`", row[column])]


def test_the_table_of_kinds_has_all() -> None:
    assert sorted(told(ALERTS, "kinds")) == sorted(kind.value for kind in Kind)
    assert set(told(ALERTS, "kinds", 2)) <= {kind.value for kind in Kind}


def test_every_reason_for_not_telling_is_explained() -> None:
    text = ALERTS.read_text().split("\n## From an event to a hook\n")[1].split("\n## ")[0]
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in text] == []
    assert [word for word in told(ALERTS, "reasons", 1) if word not in [reason.value for reason in Reason]] == []
    for name in ("settle", "doubt_wait"):
        ((shown, _),) = re.findall(rf"waits (\w+) (\w+) \(`{name}`\)", text)
        assert int(shown) * 1_000_000_000 == getattr(RootConfig(name="dc1/root", racks=()), f"{name}_ns")


def test_the_table_of_alerts_has_the_names_of_all() -> None:
    names = (
        {labels._name_of(kind, None) for kind in labels._ALERT_NAMES}
        | set(labels._FLAPPING.values())
        | {labels.WATCHDOG}
    )
    names |= {labels._name_of(Kind.HEALTH_CHANGED, health) for health in Health if health is not Health.OK}
    assert set(told(ALERTS, "alertnames")) == names
    assert set(labels._FLAPPING) == set(Axis)


def test_the_table_of_a_hooks_input_has_every_key() -> None:
    event = Event(event_id="", sequence=0, kind=Kind.NODE_DEAD, at_wall_ns=0)
    assert sorted(told(HOOKS, "keys")) == sorted(content(event))


def test_the_table_of_a_hooks_environment_has_every_variable() -> None:
    extra = {"HBAGENT_EVENT_ID", "HBAGENT_KIND", runner.TAG}
    assert set(told(HOOKS, "environment")) == {*runner.ENVIRONMENT, *extra}


def test_the_table_of_a_hooks_settings_has_the_defaults_of_the_code() -> None:
    fields = {field.name.removesuffix("_ns").replace("argv", "command") for field in msgspec.structs.fields(HookConfig)}
    assert set(told(HOOKS, "settings")) >= fields
    shown = {row[0].strip("`"): row[1] for row in rows(section(HOOKS.read_text(), "settings"))}
    hook = HookConfig(name="", argv=())
    assert (parse_duration(shown["hold"].strip("`")), parse_duration(shown["timeout"].strip("`"))) == (
        hook.hold_ns,
        hook.timeout_ns,
    )


def test_every_shipped_hook_is_named() -> None:
    assert told(HOOKS, "samples") == sorted(path.name for path in (ROOT / "etc" / "hooks.d").iterdir())


def test_the_keys_of_the_console_are_those_of_its_help() -> None:
    assert [tuple(row) for row in rows(section(CONSOLE.read_text(), "keys"))] == list(KEYS)


def test_the_signs_of_the_console_are_those_of_its_help() -> None:
    shown = [[cell.strip("`") for cell in row] for row in rows(section(CONSOLE.read_text(), "signs"))]
    for column, screen in enumerate((Screen(), Screen(unicode=False))):
        spans = [line for line in legend(screen) if len(line) == 2]
        assert [(row[column], row[2]) for row in shown] == [
            (sign.text.strip(), text.text.strip()) for sign, text in spans
        ]


# ---- on a demo ---------------------------------------------------------------------------------------------

#: The document that has a node forgotten comes last.
LAST = "alerts.md"
_BUNDLE = "$(hbagent explain demo/rack1/node1 -o json | grep -o '[0-9]*-shop-[0-9a-f]*' | head -1)"
#: What they name, and what that is in the demo.
IN_THE_DEMO = {
    "dc1/rack07/host12": "demo/rack1/node2",
    "dc1/rack07": "demo/rack1",
    "rack07": "rack1",
    "pager": "demo",
    "/etc/hbagent/root.toml": "demo/etc/root.toml",
    "--config root.toml": "--config demo/etc/root.toml",
    "/var/backups/hbagent.sqlite": "hbagent.sqlite",
    "ipc:///run/hbagent-root/root.sock": "ipc://demo/run/root.sock",
    "i17": "$(hbagent incidents -o name | head -1)",
    "s1": "$(hbagent silences -o name | head -1)",
    # Programs of theirs.
    "/usr/bin/shop": "true",
    "/usr/local/bin/backup": "true",
    "4711": "$(cat demo/run/shop.pid)",
    "000017-shop-1f3a9c02d4e5b678": _BUNDLE,
    "hbagent console": "(sleep 2; printf q) | timeout 20 script -qec 'hbagent console' /dev/null",
}
#: What is examined must live.
LIVES = {"diagnosis.md": ("dc1/rack07/host12", "demo/rack1/node1")}
#: Goes on after 1 to 3, which is the state of the demo, and says which line ended otherwise: from 64 on its call was
#: wrong.
TELLING = """set +e
trap 'code=$?; [ $code -le 3 ] || { echo "$BASH_COMMAND: $code" >&2; exit $code; }' ERR
"""
_DATE = re.compile(r"--until 20\S+")
_WORD = re.compile("|".join(rf"(?<![\w/]){re.escape(word)}(?!\w)" for word in IN_THE_DEMO))


def prepared(made: Shell) -> Shell:
    """A shell with all that is typed beside a demo."""
    check = made.directory / "bin" / "check_hbagent"
    check.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hbagent.cli.check_hbagent "$@"\n')
    check.chmod(0o755)
    (made.directory / "nrpe.cfg").write_text("command[check_load]=/bin/true -w 5\n")
    made.environment |= {"HOME": str(made.directory), "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "TERM": "xterm"}
    made.environment["HBAGENT_NOTIFY"] = str(made.directory / "demo" / "run" / "rack1-node1.notify")
    return made


def in_the_demo(block: Block, page: str) -> str:
    """A block of a document as it is typed beside the demo: about its nodes, and with days that are still to come."""
    text = block.text.replace(*LIVES.get(block.document.name, ("", "")))
    text = _WORD.sub(lambda found: IN_THE_DEMO[found[0]], text)
    soon = datetime.date.today() + datetime.timedelta(days=30)
    text = _DATE.sub(f"--until {soon.isoformat()}", text).replace("127.0.0.1:8780", page)
    return f"{TELLING}{text}\ntrue"


@pytest.mark.e2e
@pytest.mark.paired
@pytest.mark.timeout(400)
def test_what_the_documents_have_people_type_is_taken_by_a_real_root(socket_dir: Path) -> None:
    with shells(socket_dir) as make:
        # Somebody is dead in it.
        type_all(as_printed(lambda: prepared(make()), "silent"))


def type_all(demo: Shell) -> None:
    """Type everything that is to be typed beside a demo."""
    config = (demo.directory / "demo" / "etc" / "root.toml").read_text()
    (page,) = re.findall(r'\[web\]\nlisten = "(.*)"', config)
    demo.run("kill -USR1 $(cat demo/run/shop.pid)")
    every = sorted(typed("demo"), key=lambda block: block.document.name == LAST)
    drills = [block for block in every if "hbagent drill" in block.text]
    wrong = {}

    def type_in(block: Block) -> None:
        done = demo.run(in_the_demo(block, page), timeout=90)
        if done.returncode:
            wrong[block.name] = done.stderr

    # A drill takes its time, and needs nobody.
    with ThreadPoolExecutor(1) as beside:
        drilled = [beside.submit(type_in, block) for block in drills]
        for block in every:
            if block not in drills and block.document.name != LAST:
                type_in(block)
        for drill in drilled:
            drill.result()
    for block in every:
        if block.document.name == LAST:
            type_in(block)
    assert wrong == {}


# ---- programs ----------------------------------------------------------------------------------------------


def said(socket: NotifySocket, program: str, path: Path, tmp_path: Path, marked: Path) -> list[Notified]:
    """What a Python program says to a notify socket until it ends; `marked` is there once it has told of a mark."""
    environment = {**os.environ, "NOTIFY_SOCKET": str(path), "PYTHONPATH": str(ROOT)}
    script = tmp_path / "program.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, text=True)
    found: list[Notified] = []
    while process.poll() is None:
        found += socket.read(time.monotonic_ns())
        if any(key == "X_HBAGENT_PROGRESS" for notified in found for key, _ in notified.fields):
            marked.touch()
        select.select([socket], [], [], 0.1)
    assert process.returncode == 0, process.stderr.read() if process.stderr else ""
    found += socket.read(time.monotonic_ns())
    assert process.stderr is not None
    process.stderr.close()
    return found


def programs() -> Iterator[tuple[str, str]]:
    """The Python examples, each after those before it in its document."""
    for document in (README, *sorted(DOCS.glob("*.md"))):
        before = ""
        if document == WIRE:
            continue
        for number, text in enumerate(blocks(document.read_text(), "python")):
            before += text
            yield f"{document.name}-{number}", before


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in programs()])
def test_every_program_tells_the_agent_of_its_marks(text: str, socket_dir: Path, tmp_path: Path) -> None:
    # A queue of two jobs, as the reader has one; the last job takes until the mark was sent.
    marked = tmp_path / "marked"
    around = f"""
import os, time
class Jobs(list):
    def qsize(self): return len(self)
def handle(job):
    while job and not os.path.exists(job):
        time.sleep(0.02)
jobs = Jobs(["", {str(marked)!r}])
"""
    path = socket_dir / "notify"
    listening = NotifySocket(str(path), time.monotonic_ns())
    try:
        found = said(listening, around + text, path, tmp_path, marked)
    finally:
        listening.close()
    fields = [field for notified in found for field in notified.fields]
    assert ("READY", "1") in fields
    assert ("X_HBAGENT_APP", "shop") in fields
    assert any(key == "X_HBAGENT_PROGRESS" and value.startswith("worker-3 ") for key, value in fields)
