"""No block of a document is there for show: each has a test that runs or reads it, and here it is said which.

What runs where is in `tests/documents.py`. This file also runs what needs neither a demo nor a host.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

from tests.documents import DOCS, DOCUMENTS, PLACES, READ, ROOT, SHELL, TYPED, Block, blocks, typed
from tests.store.server import Server, running
from tests.test_docs import PICTURES, is_heading

EXTRAS = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
INDEX = DOCS / "README.md"


def complaint(block: Block) -> str:
    """Why no test runs or reads a block; "" for one that a test does."""
    if block.section in PICTURES:
        return "" if PICTURES[block.section] == block.document else "a picture of another document"
    if block.language in SHELL:
        return "" if block.place in PLACES else f"there is no place {block.place}"
    if block.language in READ:
        return ""
    if block.language:
        return f"nobody reads {block.language}"
    lines = [line for line in block.text.splitlines() if TYPED.match(line)]
    return f"this is typed: make it a block of sh: {lines[0]}" if lines and block.mark != "output" else ""


# ---- the rule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_run_or_read_by_a_test(document: Path) -> None:
    assert {block.name: complaint(block) for block in blocks(document) if complaint(block)} == {}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_a_test_that_runs_all_blocks_of_it(place: str) -> None:
    assert f'typed("{place}"' in (ROOT / PLACES[place]).read_text()


def test_a_block_that_nobody_runs_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "<!-- nowhere -->\n```sh\nls\n```\n\n```\nhbagent status\n```\n\n```rust\nfn\n```\n\n```\nplain\n```\n"
        "<!-- host -->\n\n```sh\nls\n```\n"
    )
    found = [complaint(block) for block in blocks(document)]
    assert [bool(text) for text in found] == [True, True, True, False, False]
    assert [block.place for block in typed("host", document)] == ["host"]


def test_the_index_leads_to_every_document() -> None:
    links = {(INDEX.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", INDEX.read_text())}
    documents = {*DOCUMENTS, ROOT / "ARCHITECTURE.md"} - {INDEX}
    assert sorted(str(path.relative_to(ROOT)) for path in documents - links) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", document.read_text())
    files = [link for link in links if not (document.parent / link.partition("#")[0]).exists()]
    assert files == []
    assert [link for link in links if "#" in link and ".md" in f"{link}.md" and not is_heading(document, link)] == []


# ---- in the clone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in typed("clone")])
def test_what_is_typed_in_the_clone_goes_as_far_as_it_may_here(block: Block) -> None:
    # Or each looks for all Pythons of this host.
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONS": sys.executable}
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            done = subprocess.run(
                ["make", "--dry-run", *words[1:]], cwd=ROOT, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        elif words[:2] == ["pip", "install"] or words[:2] == ["pipx", "install"]:
            assert [word for word in words[2:] if not is_of_this_project(word)] == []
        else:
            assert words == [], f"nobody runs {line}"


def is_of_this_project(requirement: str) -> bool:
    """True for "hbagent" and for it with extras that there are."""
    match = re.fullmatch(r"hbagent(?:\[([a-z,]+)\])?", requirement)
    return match is not None and set((match[1] or "console").split(",")) <= set(EXTRAS)


# ---- in a network of its own ----------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.needs("nft", "unshare")
def test_what_is_typed_for_a_packet_filter_is_taken_by_one() -> None:
    for block in typed("network"):
        script = block.text.replace("/etc/hbagent/", f"{ROOT}/deploy/")
        done = subprocess.run(["unshare", "--net", "bash", "-ec", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block.name}: {done.stderr}"
        assert "5711" in done.stdout


# ---- beside a database server ----------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[Server]:
    """A server of its own: what is typed makes users and databases."""
    with running() as server:
        yield server


@pytest.mark.slow
@pytest.mark.paired
def test_what_is_typed_beside_a_database_server_is_taken_by_it(database: Server) -> None:
    environment = {"PATH": os.environ["PATH"], "PGHOST": str(database.directory), "PGUSER": "root"}
    for block in typed("postgres"):
        assert shutil.which("createuser", path=environment["PATH"])
        done = subprocess.run(["bash", "-ec", block.text], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert [row[0] for row in database.ask("SELECT datname FROM pg_database WHERE datname = 'hbagent'")] == ["hbagent"]
