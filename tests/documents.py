"""The documents as their readers meet them: fenced blocks, each with the place where a test runs it.

A block of `sh` is typed beside a demo, unless the line above it says where else: `<!-- host -->`. Blocks of one place
and document are one session, from top to bottom. Whoever writes a block has to say nothing more; whoever adds a place
gives it a runner and a line in `PLACES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = (
    *(ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"),
    *sorted(DOCS.glob("*.md")),
    *(ROOT / "deploy" / "README.md", ROOT / "ansible" / "README.md"),
)

#: Where shell blocks are run, and the file with the test that runs all of that place.
PLACES = {
    # Line by line beside a demo in which somebody is dead; 0 to 3 is the state of that demo.
    "demo": "tests/test_docs_examples.py",
    # What starts that demo.
    "started": "tests/test_docs.py",
    # The deployment by hand: one directory, files and three daemons.
    "hand": "tests/test_docs.py",
    # In the clone itself; "make" only as far as it would go.
    "clone": "tests/test_docs_blocks.py",
    # Beside a database server.
    "postgres": "tests/test_docs_blocks.py",
    # As root in a network of its own.
    "network": "tests/test_docs_blocks.py",
    # As root on the root's host of a fleet, which is an agent, too; beside the inventory of that fleet.
    "host": "tests/hosts/test_docs.py",
    "controller": "tests/hosts/test_docs.py",
}
SHELL = ("sh", "bash", "console")
#: Other languages, and who reads their blocks.
READ = {
    "toml": "tests/test_docs_examples.py",
    "python": "tests/test_docs_examples.py",
    "yaml": "tests/hosts/test_docs.py",
    "ini": "tests/hosts/test_docs.py",
    "mermaid": "tests/test_docs.py",
}
#: What begins a line that somebody is to type.
TYPED = re.compile(
    r"(?:\$ )?(?:sudo |[A-Z_]+=\S* )*(?:hbagent|check_hbagent|systemctl|systemd-\w+|journalctl|make|pip|pipx|apt|"
    r"apt-get|ansible(?:-\w+)?|curl|cp|install|chown|chmod|usermod|createuser|nft|docker|podman|dpkg|ssh|git)\s"
)


class Block(NamedTuple):
    """One fenced block."""

    document: Path
    line: int
    language: str
    #: The word of the comment above it; "" without.
    mark: str
    #: Name of the marked section that it stands in; "" for none.
    section: str
    text: str

    @property
    def place(self) -> str:
        """Where it is run, of one that is."""
        return self.mark or "demo"

    @property
    def name(self) -> str:
        """ "docs/store.md:40"."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(*documents: Path) -> Iterator[Block]:
    """Every fenced block of these documents, or of all, in order."""
    for document in documents or DOCUMENTS:
        yield from _blocks(document)


def _blocks(document: Path) -> Iterator[Block]:
    section = above = language = ""
    begun, lines = 0, list[str]()
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        if begun:
            if line.startswith("```"):
                mark = re.fullmatch(r"<!-- ([a-z]+) -->", above)
                is_mark = mark is not None and mark[1] != section
                yield Block(document, begun, language, mark[1] if mark and is_mark else "", section, "\n".join(lines))
                begun, above = 0, ""
            else:
                lines.append(line)
            continue
        if line.startswith("```"):
            begun, language, lines = number, line.removeprefix("```").strip(), []
            continue
        if line.strip():
            above = line
        comment = re.fullmatch(r"<!-- (/?)([a-z]+) -->", line)
        if comment and comment[1]:
            section = "" if comment[2] == section else section
        elif comment and f"<!-- /{comment[2]} -->" in document.read_text("utf-8"):
            section = comment[2]


def typed(place: str, *documents: Path) -> list[Block]:
    """The shell blocks that are run at a place, in order."""
    return [block for block in blocks(*documents) if block.language in SHELL and block.place == place]
