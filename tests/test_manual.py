"""The manual pages: they say what the tree says, and every roff renders them without a warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hbagent.cli import COMMANDS
from tools.manual import PAGES, ROLES, pages, settings_page, text

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["hbagent.1", "hbagent.toml.5"])
def test_a_page_is_as_it_would_be_written_now(name: str) -> None:
    assert pages()[name] == (PAGES / name).read_text("utf-8"), "python tools/manual.py mends it"


def test_every_page_on_disk_is_written_by_the_tool() -> None:
    assert sorted(path.name for path in PAGES.iterdir()) == sorted(pages())


@pytest.mark.needs("groff")
@pytest.mark.parametrize("name", ["hbagent.1", "hbagent.toml.5"])
@pytest.mark.parametrize("width", ["60n", "80n", "140n"])
def test_a_page_renders_without_warnings(name: str, width: str) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", f"-rLL={width}", str(PAGES / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("man")
def test_man_shows_a_page_without_warnings() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(PAGES / "hbagent.1")],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", "MANPAGER": "cat", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    for word, _, _ in COMMANDS:
        assert f"hbagent {word}" in done.stdout


def test_every_setting_of_a_shipped_file_is_on_the_page() -> None:
    page = pages()["hbagent.toml.5"]
    for role in ROLES:
        for line in (ROOT / "etc" / f"{role}.toml").read_text("utf-8").splitlines():
            key, equals, _ = line.lstrip("# ").partition(" = ")
            if equals and not line.startswith("# ") and key.isidentifier():
                assert f"\\fB{key}\\fR = " in page


def test_a_comment_cannot_become_a_request() -> None:
    page = settings_page({"agent": "# .so /etc/passwd\n# 'so x \\fBbold\n[agent]\n"})
    assert not any(line.startswith((".so", "'")) for line in page.splitlines())
    assert text("\\fB") == "\\efB"
