"""Completions, as real shells take them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hbagent.cli import COMMANDS, main
from hbagent.cli.completion import SHELLS, script
from hbagent.cli.names_cache import FRESH_S, place, remember
from hbagent.cli.tree import Argument, Command, commands

NODES = ["dc1/rack1/host1", "dc1/rack1/host2"]


@pytest.fixture(autouse=True)
def patient() -> None:
    """Nobody is asked here, and what is written for a shell says how long people wait."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a completion for each shell, and a cache of names."""
    directory = tmp_path_factory.mktemp("home")
    for shell in SHELLS:
        (directory / f"hbagent.{shell}").write_text(script(shell, commands()))
    remember(NODES, {"XDG_CACHE_HOME": str(directory / "cache")})
    return directory


def environment(home: Path) -> dict[str, str]:
    kept = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    return kept | {"XDG_CACHE_HOME": str(home / "cache")}


def run(home: Path, *command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment(home), cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def in_bash(home: Path, *words: str) -> list[str]:
    code = 'source hbagent.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hbagent; printf "%s\\n" "${COMPREPLY[@]}"'
    return run(home, "bash", "--norc", "-c", code, "bash", "hbagent", *words).split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["sta"], ["status"]),
        (["nodes", "--o"], ["--output"]),
        (["nodes", "-o", "j"], ["json", "jsonl"]),
        (["nodes", "--state", "D"], ["DEAD", "DEADLOCKED"]),
        (["nodes", "--watch", "--col"], ["--color"]),
        (["explain", "dc1/rack1/host1"], NODES[:1]),
        (["explain", "host2"], NODES[1:]),
        (["keys", "re"], ["revoke"]),
        (["keys", "init", "--d"], ["--dir"]),
        (["check-config", "hbagent.z"], ["hbagent.zsh"]),
        (["status", "--timeout", ""], []),
        (["completion", "f"], ["fish"]),
    ],
)
def test_bash_offers(home: Path, words: list[str], offered: list[str]) -> None:
    assert in_bash(home, *words) == offered


def test_bash_offers_every_command(home: Path) -> None:
    assert in_bash(home, "") == [*(word for word, _, _ in COMMANDS), "--help", "--version"]


def test_a_hostile_cache_is_shown_at_most_and_never_evaluated(home: Path, tmp_path: Path) -> None:
    names = place({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    names.parent.mkdir(parents=True)
    names.write_text("dc1/$(touch pwned)/`touch pwned`\ndc1/*/x\n")
    for shell in SHELLS:
        (tmp_path / f"hbagent.{shell}").write_text((home / f"hbagent.{shell}").read_text())
    code = 'source hbagent.bash; COMP_WORDS=(hbagent explain dc); COMP_CWORD=2; _hbagent; echo "${COMPREPLY[0]}"'
    assert run(tmp_path, "bash", "--norc", "-c", code) == "dc1/$(touch pwned)/`touch pwned`\n"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.needs("fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hbagent sta", ["status"]),
        ("hbagent explain dc", NODES),
        ("hbagent nodes --state DEAD", ["DEAD", "DEADLOCKED"]),
        ("hbagent keys ", ["init", "in-use", "revoke", "show"]),
        ("hbagent keys init --d", ["--dir"]),
    ],
)
def test_fish_offers(home: Path, line: str, offered: list[str]) -> None:
    out = run(home, "fish", "--no-config", "-c", f'source hbagent.fish; complete -C "{line}"')
    assert [found.split("\t")[0] for found in out.splitlines()] == offered


class Terminal:
    """An interactive zsh on a terminal of its own."""

    def __init__(self, home: Path) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            ["zsh", "-f", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(home),
            cwd=home,
            close_fds=True,
        )
        os.close(slave)
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def shows(self, wanted: str) -> bool:
        """Whether this comes to be shown within half a minute; what was shown until then is passed over."""
        until = time.monotonic() + 30
        while wanted not in self._seen and time.monotonic() < until:
            if select.select([self._master], [], [], 0.1)[0]:
                self._seen += os.read(self._master, 65536).decode(errors="replace")
        found, self._seen = wanted in self._seen, self._seen.partition(wanted)[2]
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def zsh(home: Path) -> Iterator[Terminal]:
    terminal = Terminal(home)
    terminal.type(
        "PS1=; setopt no_prompt_sp; autoload -U compinit && compinit -D -u && source hbagent.zsh; echo re''ady\n"
    )
    yield terminal
    terminal.close()


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.needs("zsh")
def test_zsh_completes_commands_options_choices_and_nodes(zsh: Terminal) -> None:
    assert zsh.shows("ready")
    zsh.type("echo hbagent-x; hbagent sta\t")
    assert zsh.shows("hbagent status ")
    zsh.type("--outp\t")
    assert zsh.shows("--output ")
    zsh.type("wi\t")
    assert zsh.shows("wide ")
    zsh.type("\x15hbagent keys rev\t")
    assert zsh.shows("revoke ")
    zsh.type("\x15hbagent explain host2\t")
    assert zsh.shows("dc1/rack1/host2 ")


def test_the_command_prints_what_is_written_for_a_shell(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out == (home / f"hbagent.{shell}").read_text()
    assert main(["completion", "tcsh"]) == 64


def test_words_with_quotes_and_brackets_stay_words(tmp_path: Path) -> None:
    odd = Argument(words=("--odd",), value="X", help='it\'s [a] "b": $(c) `d`', choices=("o'ne", "two"))
    tree = [Command(name="try", line="it's: $(odd)", epilog="", options=(odd,), values=())]
    for shell in SHELLS:
        (tmp_path / f"hbagent.{shell}").write_text(script(shell, tree))
    assert in_bash(tmp_path, "try", "--odd", "o") == ["o'ne"]
    for shell in ("zsh", "fish"):
        if any(Path(directory, shell).exists() for directory in os.environ["PATH"].split(":")):
            run(tmp_path, shell, "-n", f"hbagent.{shell}")


# ---- the cache -------------------------------------------------------------------------------------------


def test_only_names_by_the_grammar_are_remembered(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    remember([*NODES, "x", "$(reboot)", "a/b/c\nd", "../../etc"], cache)
    assert place(cache).read_text().split() == NODES
    assert place(cache).stat().st_mode & 0o77 == 0


def test_a_fresh_cache_is_left_alone_and_an_old_one_renewed(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    remember(NODES[:1], cache)
    remember(NODES, cache)
    assert place(cache).read_text().split() == NODES[:1]
    old = time.time() - FRESH_S - 1
    os.utime(place(cache), (old, old))
    remember(NODES, cache)
    assert place(cache).read_text().split() == NODES
    assert [path.name for path in place(cache).parent.iterdir()] == ["nodes"]


def test_a_cache_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "hbagent").write_text("a file where a directory should be")
    remember(NODES, {"XDG_CACHE_HOME": str(tmp_path)})
