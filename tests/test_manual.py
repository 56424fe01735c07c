"""Pages that are printed from the code, in the manual and in docs/: they say what the tree says, and every roff renders
the manual's without a warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hbagent.cli import COMMANDS
from hbagent.core.states import Kind
from hbagent.role.settings import values
from hbagent.role.settings.document import Items, Key
from hbagent.wire import codec
from tools import reference
from tools.manual import DAEMON_ENVIRONMENT, PAGES, ROLES, UNIT_LINES, pages, references, settings_page, text

ROOT = Path(__file__).parents[1]
NAMES = ("hbagent.1", "hbagent.toml.5", *(f"hbagent-{role}.8" for role in ROLES))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_as_it_would_be_written_now(name: str) -> None:
    assert pages()[name] == (PAGES / name).read_text("utf-8"), "python tools/manual.py mends it"


def test_every_page_on_disk_is_written_by_the_tool() -> None:
    assert sorted(path.name for path in PAGES.iterdir()) == sorted(pages())


def test_a_reference_is_as_it_would_be_written_now() -> None:
    stale = [file.name for file, page in references().items() if page != file.read_text("utf-8")]
    assert stale == [], "python tools/manual.py mends it"


@pytest.mark.needs("groff")
@pytest.mark.parametrize("name", NAMES)
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


# ---- references ------------------------------------------------------------------------------------------


def test_every_key_of_every_file_is_explained() -> None:
    for role, shapes in reference.SHAPES.items():
        for table, shape in shapes.items():
            for kind in ("", *shape.kinds):
                rows = reference.settings(role, table, kind)
                assert {row.key for row in rows} == set(shape.kinds[kind] if kind else shape.keys)
                unexplained = [row.key for row in rows if not row.type or not row.default or row.meaning == "see ``"]
                assert unexplained == [], f"{role}.toml [{table}] {kind}: give it a comment in etc/"


def test_what_a_key_takes_is_told_by_its_reader() -> None:
    assert reference.type_and_range(Key(values.duration("50ms", "5m"))) == ("duration", "50ms to 5m")
    assert reference.type_and_range(Key(values.whole(1, 65535))) == ("whole number", "1 to 65,535")
    assert reference.type_and_range(Key(values.word("a", "b"), items=Items(1, 9))) == (
        "list of 1 to 9: word",
        "`a`, `b`",
    )
    assert reference.type_and_range(Key(values.rack_name))[1] == 'as in "dc1/rack07"'


def test_a_default_stands_in_the_shipped_file_or_in_the_struct_that_keeps_it() -> None:
    agent = {row.key: row.default for row in reference.settings("agent", "agent")}
    assert (agent["node"], agent["interval"], agent["drills"]) == ("required", '`"1s"`', "`false`")
    probe = {row.key: row.default for row in reference.settings("agent", "probe")}
    assert (probe["interval"], probe["rise"], probe["app"]) == ('`"10s"`', "`2`", "none")
    hook = {row.key: row.default for row in reference.settings("root", "hook")}
    assert Kind.NODE_DEAD.value in hook["on"]


def test_a_comment_belongs_to_the_keys_below_it_and_to_no_others() -> None:
    source = "# Head.\n[a]\n# Both,\n# of them.\n#x = 1\n#y = 2\n\n# Prose.\n\n#z = 3\n"
    assert [(entry.key, entry.told) for entry in reference.entries(source)] == [
        ("x", "Both, of them."),
        ("y", ""),
        ("z", ""),
    ]
    assert reference.heads(source) == {"a": "Head."}


def test_every_message_of_the_wire_has_its_table() -> None:
    page = (ROOT / "docs" / "wire.md").read_text("utf-8")
    for code, message in codec.TYPES.items():
        assert f"\n#### {message.__name__}\n\n`0x{code:02x}`" in page


def test_what_the_page_of_a_daemon_says_of_its_surroundings_is_so() -> None:
    source = "".join(file.read_text("utf-8") for file in (ROOT / "hbagent").rglob("*.py"))
    words = [word for names, _ in DAEMON_ENVIRONMENT for word in names.split(", ")]
    assert [word for word in words if f'"{word}"' not in source] == []
    units = "".join(file.read_text("utf-8") for file in (ROOT / "deploy").glob("hbagent-*.service"))
    assert [key for key in UNIT_LINES if f"\n{key}=" not in units] == []
