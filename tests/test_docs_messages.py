"""docs/troubleshooting.md quotes what the program says: each text is looked for in the source, and none is missing.

A quoted text has `…` where the program puts in a name or a figure, so a message that was changed or is said no more is
found here. What systemd, the kernel and libzmq say stands between marks of its own and is not looked for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hbagent.core.states import Cause
from tests.documents import ROOT
from tests.test_docs import rows, section

PAGE = ROOT / "docs" / "troubleshooting.md"
#: Not of what runs for people.
_APART = ("sim", "bench", "demo")
PYTHON = [
    *(file for file in sorted((ROOT / "hbagent").rglob("*.py")) if file.relative_to(ROOT).parts[1] not in _APART),
    *(file for place in ("ansible", "tools") for file in sorted((ROOT / place).rglob("*.py"))),
]
TEXTS = (*sorted((ROOT / "ansible").rglob("*.yml")), *sorted((ROOT / "packaging" / "debian").iterdir()))
#: What stands for a value in a task file, in a script.
_PUT_IN = re.compile(r"\{\{.*?\}\}|\$\{[^}]*\}|\$\w+", re.DOTALL)


@cache
def nodes(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text())))


def sayings(file: Path) -> Iterator[str]:
    """Every text of a Python file, with "…" for what is put in."""
    for node in nodes(file):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


@cache
def said() -> str:
    """All that the program can say, a text a line."""
    texts = [text for file in PYTHON for text in sayings(file)]
    texts += [_PUT_IN.sub("…", file.read_text()) for file in TEXTS]
    return "\n".join(" ".join(text.split()) for text in texts)


def quoted() -> list[str]:
    """The texts in the first columns of the page, but for what others say."""
    text = PAGE.read_text()
    ours = text.replace(section(text, "theirs"), "")
    tables = re.findall(r"^\| (?:message|word|reason) \|.*\n(?:\|.*\n)+", ours, re.MULTILINE)
    return [quote for table in tables for row in rows(table) for quote in re.findall(r"`([^`]+)`", row[0])]


def warnings() -> set[str]:
    """The words of all warnings and errors that a daemon logs."""
    found = set()
    for file in PYTHON:
        for node in nodes(file):
            if isinstance(node, ast.Call) and len(node.args) > 2:
                level, word = node.args[:2]
                if isinstance(level, ast.Constant) and level.value in ("warning", "error"):
                    found |= {word.value} if isinstance(word, ast.Constant) and isinstance(word.value, str) else set()
    return {word for word in found if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)}


def is_said(quote: str) -> bool:
    """Whether one text of the program has these words, in this order."""
    parts = re.split("…+", quote.strip())
    pattern = re.compile(".*".join(map(re.escape, parts)))
    # Looked for in those texts alone in which the longest part stands.
    longest, text = max(parts, key=len), said()
    at = text.find(longest)
    while at >= 0:
        end = text.find("\n", at) % (len(text) + 1)
        if pattern.search(text[text.rfind("\n", 0, at) + 1 : end]):
            return True
        at = text.find(longest, end)
    return False


def test_a_message_of_the_page_is_one_that_the_program_says() -> None:
    # One test: all that the program says is read once.
    assert [quote for quote in quoted() if not re.search(r"\w", quote) or not is_said(quote)] == []


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert is_said("…: mode … lets others decide who may speak; chmod 644 or less")
    assert not is_said("…: mode … lets others decide who may speak; chmod 640 or less")
    assert len(quoted()) > 150


def test_every_warning_of_a_daemon_is_explained() -> None:
    told = {
        word for row in rows(section(PAGE.read_text(), "log")) for word in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", row[0])
    }
    assert sorted(warnings() - told) == []


def test_every_cause_of_being_unknown_is_explained() -> None:
    text = PAGE.read_text().split("\n## A node is UNKNOWN\n")[1].split("\n## ")[0]
    told = {row[0].strip("`") for row in rows(text)}
    assert told <= {cause.value for cause in Cause}
    assert {"never-seen", "incompatible", "duplicate-id", "leader-lost", "rack-dark"} <= told
