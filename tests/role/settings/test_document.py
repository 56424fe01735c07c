"""One pass over a file finds everything that is wrong with it, each at its line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from hbagent.role.settings import values
from hbagent.role.settings.document import FILE_SIZE_MAX, Document, Items, Key, Shape, read_text
from hbagent.role.settings.problems import PROBLEMS_MAX, ConfigError
from tests.descriptors import descriptors

SHAPES = {
    "main": Shape(
        {
            "name": Key(values.part_name, required=True),
            "wait": Key(values.duration("1s", "1m"), "wait_ns"),
            "hosts": Key(values.part_name, items=Items(1, 3)),
        },
        required=True,
    ),
    "probe": Shape(
        {"name": Key(values.part_name, required=True), "timeout": Key(values.duration("1s", "1m"), "timeout_ns")},
        repeated=True,
    ),
}


def problems(text: str) -> list[str]:
    """What is said of a file "t.toml" with this text."""
    with pytest.raises(ConfigError) as raised:
        document = Document(Path("t.toml"), text, SHAPES)
        document.table("main")
        document.tables("probe")
        document.finish()
    return str(raised.value).splitlines()


def test_a_right_file_gives_its_settings_and_nothing_else() -> None:
    main = '[main]\nname = "a"\nwait = "2s"\nhosts = ["x", "y"]\n'
    text = main + '[[probe]]\nname = "p"\n[[probe]]\nname = "q"\ntimeout = 3\n'
    document = Document(Path("t.toml"), text, SHAPES)
    assert document.table("main") == {"name": "a", "wait_ns": 2_000_000_000, "hosts": ("x", "y")}
    assert document.tables("probe") == [{"name": "p"}, {"name": "q", "timeout_ns": 3_000_000_000}]
    document.finish()


def test_an_unknown_key_brings_the_nearest_known_one() -> None:
    text = '[main]\nname = "a"\n\n[[probe]]\nname = "web"\n[[probe]]\nname = "pg"\ntiemout = "5s"\n'
    assert problems(text) == ['t.toml:8: probe "pg": unknown key "tiemout", did you mean "timeout"?']


def test_a_key_of_another_table_is_sent_there() -> None:
    text = '[main]\nname = "a"\ntimeout = "1s"\n'
    assert problems(text) == ['t.toml:3: [main]: unknown key "timeout"; it belongs to [[probe]]']


def test_all_problems_of_a_file_come_at_once_in_its_order() -> None:
    text = """\
top = 1
[main]
wait = "1h"
hosts = [
  "x",
  "a b",
  "x",
]
[[probe]]
timeout = "soon"
[[probe]]
name = "p"
[probe.deeper]
name = "p"
[[probe]]
name = "p"
[mian]
name = "a"
"""
    assert problems(text) == [
        't.toml:1: unknown key "top"',
        't.toml:2: [main]: missing key "name"',
        't.toml:3: [main]: wait = "1h": must be from 1s to 1m',
        't.toml:6: [main]: hosts[1] = "a b": must be a name of at most 64 letters, digits and . _ -, '
        "with a letter or digit at both ends",
        't.toml:7: [main]: hosts[2] = "x": stands here twice; the first is hosts[0]',
        't.toml:9: probe 1: missing key "name"',
        't.toml:10: probe 1: timeout = "soon": must be a duration as in "250ms", "1.5s" or "1h30m", '
        "or a bare number of seconds",
        't.toml:13: probe "p": unknown key "deeper"',
        't.toml:16: probe "p": name = "p": there is another [[probe]] of this name',
        't.toml:17: unknown section "mian", did you mean "main"?',
    ]


def test_a_missing_section_is_told() -> None:
    assert problems("") == ["t.toml: missing section [main]"]


@pytest.mark.parametrize("value", ["1", '"x"', "[]", "[1]", "{}", "[{}, 1]"])
def test_a_section_of_the_wrong_form_is_told_which_is_right(value: str) -> None:
    text = f'probe = {value}\n[main]\nname = "a"\n'
    assert problems(text) == [
        't.toml:1: "probe" must be a table under a line [[probe]], in double brackets, once for each'
    ]


def test_a_problem_below_a_section_of_the_wrong_form_is_not_invented() -> None:
    assert problems("main = [{ nam = 1 }]\n") == [
        't.toml:1: [main]: "main" must be a table under a line [main], in single brackets, once'
    ]


def test_single_and_double_brackets_are_not_the_same() -> None:
    assert problems('[[main]]\nname = "a"\n') == [
        't.toml:1: [main]: "main" must be a table under a line [main], in single brackets, once'
    ]


@pytest.mark.parametrize("hosts", ["[]", '["a", "b", "c", "d"]', '"a"', "{}"])
def test_a_list_has_its_length(hosts: str) -> None:
    (problem,) = problems(f'[main]\nname = "a"\nhosts = {hosts}\n')
    assert problem.endswith("must be a list [...] of 1 to 3 items")


def test_a_hostile_name_is_shown_without_its_control_characters() -> None:
    (problem,) = problems('[main]\nname = "a"\n"\\u001b[31m" = 1\n')
    assert problem == 't.toml:3: [main]: unknown key "\\u001b[31m"'


def test_what_the_parser_repeats_of_a_huge_key_is_cut() -> None:
    (problem,) = problems(f"[{'k' * 5000}]\n[{'k' * 5000}]\n")
    assert problem.startswith("t.toml:2: not valid TOML: ")
    assert len(problem) < 300


def test_a_file_of_the_wrong_kind_is_not_told_line_by_line() -> None:
    found = problems('[main]\nname = "a"\n' + "".join(f"wrong{number} = 1\n" for number in range(5000)))
    assert len(found) == PROBLEMS_MAX + 1
    assert found[-1] == f"t.toml: and {5000 - PROBLEMS_MAX:,} more problems"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[main]\nname = "a\n', 2),
        ("[main]\nname = 1\nname = 2\n", 3),
        ("\n\nname 1\n", 3),
        ("a = 1\n[a]\n", 2),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(text: str, line: int) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"t.toml:{line}: not valid TOML: ")


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a." * 5000 + "b = 1"])
def test_toml_that_breaks_the_parser_is_told(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(("t.toml: not valid TOML: ", "t.toml:1: not valid TOML: "))


# ---- reading the file ------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        read_text(path)
    return str(raised.value)


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes("é = 1\n".encode())
    (tmp_path / "marked").write_bytes("\ufeffé = 1\n".encode())
    assert read_text(tmp_path / "plain") == read_text(tmp_path / "marked") == "é = 1\n"


def test_a_missing_file_a_directory_and_a_bad_path_are_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == f"{tmp_path}/none: cannot be read: No such file or directory"
    assert refused(tmp_path) == f"{tmp_path}: is not a regular file"
    assert "cannot be read" in refused(Path("a\0b"))


def test_a_pipe_that_nobody_writes_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(refused(tmp_path / "pipe")), daemon=True)
    reader.start()
    reader.join(20)
    assert said == [f"{tmp_path}/pipe: is not a regular file"]


def test_a_huge_file_is_told_and_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(100 * FILE_SIZE_MAX)
    assert refused(tmp_path / "huge") == f"{tmp_path}/huge: is larger than 1,048,576 bytes"


def test_what_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a = 1\n# caf\xe9\n")
    assert refused(tmp_path / "latin") == f"{tmp_path}/latin:2: not UTF-8 text: byte 0xe9"


def test_a_refused_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = descriptors()
    for _ in range(20):
        refused(tmp_path)
    assert descriptors() <= before
