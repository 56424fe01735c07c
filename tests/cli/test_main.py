"""The frame of the command line: what is loaded, and how a call ends."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hbagent import __version__, cli
from hbagent.cli import COMMANDS, main
from hbagent.role.settings import load_agent

ROOT = Path(__file__).parents[2]


def hbagent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hbagent", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=30
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Makes a command `try` of a function."""

    def add(run: Callable[[argparse.Namespace], int]) -> None:
        module = ModuleType("hbagent.cli.try_cmd")
        module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)  # type: ignore[attr-defined]
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(cli, "COMMANDS", (*COMMANDS, ("try", module.__name__, "try something")))

    return add


def test_help_loads_no_library_and_lists_every_command() -> None:
    heavy = ("zmq", "psutil", "loguru", "msgspec", "tomli", "asyncio", "ssl", "hbagent.core", "hbagent.role")
    code = (
        "import sys; from hbagent.cli import main; code = main(['--help']);"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert (done.returncode, done.stderr) == (0, "[]\n")
    for word, _, line in COMMANDS:
        assert f" {word}" in done.stdout
        assert line in done.stdout


def test_a_command_loads_only_its_own_module(command: Callable[..., None]) -> None:
    loaded = set(sys.modules)
    command(lambda args: 0)
    assert main(["try"]) == 0
    assert [name for name in set(sys.modules) - loaded if name.startswith("hbagent.cli.")] == ["hbagent.cli.try_cmd"]


def test_the_words_are_distinct_and_each_module_is_named_after_its_word() -> None:
    words = [word for word, _, _ in COMMANDS]
    assert len(set(words)) == len(words)
    for word, module, _ in COMMANDS:
        # The console has a package of its own.
        package = "console" if word == "console" else "cli"
        assert module == f"hbagent.{package}.{word.replace('-', '_')}_cmd"


@pytest.mark.parametrize("module", [module for _, module, _ in COMMANDS])
def test_each_command_has_its_two_functions(module: str) -> None:
    if importlib.util.find_spec(module) is not None:
        found = importlib.import_module(module)
        assert callable(found.add_arguments)
        assert callable(found.run)


def test_the_version_is_that_of_the_package() -> None:
    done = hbagent("--version")
    assert (done.returncode, done.stdout) == (0, f"hbagent {__version__}\n")


def test_a_command_gets_its_arguments_and_gives_the_exit_code(command: Callable[..., None]) -> None:
    command(lambda args: args.number)
    assert main(["try", "--number", "3"]) == 3


def test_without_arguments_the_process_is_asked(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    command(lambda args: args.number)
    monkeypatch.setattr(sys, "argv", ["hbagent", "try", "--number", "2"])
    assert main() == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["--colour"], "the following arguments are required: COMMAND"),
        (["statsu"], 'no command "statsu", did you mean "status"?'),
        (["frobnicate"], 'no command "frobnicate"; "hbagent --help" lists them'),
        (["check-config"], "hbagent check-config: the following arguments are required: FILE"),
        (["check-config", "--fast", "x"], "unrecognized arguments: --fast"),
        (["try", "--number", "three"], "hbagent try: argument --number: invalid int value: 'three'"),
        (["try", "--num", "3"], "unrecognized arguments: --num 3"),
    ],
)
def test_a_usage_error_can_not_be_taken_for_a_status(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    command(lambda args: 0)
    assert main(arguments) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err


def test_a_command_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", (("gone", "hbagent.cli.gone_cmd", "not here"),))
    assert main(["gone"]) == 69
    assert capsys.readouterr().err == "hbagent: gone needs hbagent.cli.gone_cmd, which is not installed\n"


def test_a_wrong_config_file_ends_any_command_with_its_problems(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.toml").write_text("[agent]\nnod = 1\n")
    command(lambda args: len(load_agent(tmp_path / "a.toml").leaders))
    assert main(["try"]) == 64
    lines = capsys.readouterr().err.splitlines()
    assert f'hbagent: {tmp_path}/a.toml:2: [agent]: unknown key "nod", did you mean "node"?' in lines
    assert all(line.startswith("hbagent: ") for line in lines)


def test_a_defect_is_shown_whole_and_can_not_be_taken_for_a_warning(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def divide(args: argparse.Namespace) -> int:
        return 1 // int(args.number)

    command(divide)
    assert main(["try"]) == 70
    err = capsys.readouterr().err
    assert "in divide" in err
    assert "ZeroDivisionError" in err


def test_an_interrupt_ends_quietly(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    command(interrupted)
    assert main(["try"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_went_away_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hbagent", "check-config", "etc/root.toml"],
            stdout=writing,
            # A pipe is written at the end, as in a shell; some machines set this to see output sooner.
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=30,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_closed_standard_output_is_no_defect() -> None:
    command = [sys.executable, "-m", "hbagent", "check-config", "etc/root.toml"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, cwd=ROOT, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")
