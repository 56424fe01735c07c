"""The rules of the tree that a reader would otherwise have to remember, read from the source with `ast`.

Each rule is a function from source to complaints; the first half of the file holds the rules, the second shows each
of them a tree that breaks it and then the tree itself.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

EDGES = ("transport", "probes", "diagnosis", "hooks", "store", "web")
#: What each package may import of hbagent, itself apart.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "core": (),
    "wire": ("core",),
    # What several pieces of the world must judge alike, and processes that may do whatever they like.
    "trust": (),
    "offspring": ("core",),
    **dict.fromkeys(EDGES, ("core", "wire", "trust", "offspring")),
    "role": ("core", "wire", "trust", "offspring", *EDGES),
    "sim": ("core", "wire", *EDGES),
    "demo": ("core", "wire", "offspring", *EDGES, "role", "sim"),
    "bench": ("core", "wire", "offspring", *EDGES, "role", "sim", "demo"),
    "cli": ("core", "wire", "offspring", *EDGES, "role", "sim", "demo", "bench"),
    # A command of its own floor, which `cli` knows by name only: it is an extra, and nothing may need it.
    "console": ("core", "cli"),
    "__main__": ("cli",),
    "__init__": (),
    # For other people's programs: it needs nothing of ours.
    "progress": (),
}
PURE = ("core", "wire")
#: What a pure package may import from elsewhere: nothing here has a clock, a file, a thread or a log.
PURE_IMPORTS = (
    *("_blake2", "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "dataclasses", "enum"),
    *("functools", "hashlib", "heapq", "hmac", "itertools", "json", "math", "msgspec", "operator", "random", "re"),
    *("string", "struct", "types", "typing", "zlib"),
)
REMEDY = {
    "time": "take `now` as an argument",
    "datetime": "take wall time as a message",
    "logging": "return a Note effect",
    "loguru": "return a Note effect",
    "os": "let an edge touch the system",
    "socket": "return an effect and let the driver send",
    "zmq": "return an effect and let the driver send",
    "pathlib": "return an effect and let the store write",
    "threading": "return an effect and let a worker do it",
    "asyncio": "there is one driver loop, in role",
    "secrets": "take a random.Random as an argument",
    "uuid": "take a random.Random as an argument",
}
#: Built-in functions that a pure package may not call, and why.
IMPURE_CALLS = {
    "open": "touches a file",
    "print": "touches the terminal",
    "input": "touches the terminal",
    "hash": "differs from process to process for strings",
    "id": "differs from run to run",
}
#: Modules that run or build objects from what they read.
DANGEROUS_IMPORTS = ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle")
#: Calls that turn text into code or commands.
DANGEROUS_CALLS = {"eval", "exec", "yaml.load", "os.system", "os.popen", "subprocess.getoutput", "commands.getoutput"}
#: Packages each of whose files has a test file at the mirrored path.
MIRRORED = ("core", "wire", "transport", "store", "hooks", "probes", "diagnosis", "offspring")

LEFTOVERS = re.compile(r"\b(FIXME|TODO|XXX|HACK)\b")
#: Absolute paths of somebody's machine: the first directory alone is enough to tell.
MACHINE_PATHS = re.compile(r"(?<![\w.$}~*-])/(?:work|root|home|farm)/\w")
#: Where packages come from is the affair of whoever installs them.
REGISTRIES = re.compile(r"pypi\.\w|pythonhosted|npmjs|deb\.debian|index-url")
Rule = Callable[[str, str], Iterator[str]]
PASSED_OVER = {".git", ".venv", "__pycache__", "build", "dist"}


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def files(*suffixes: str) -> list[Path]:
    """Files of the tree with one of these suffixes, or all text files."""
    found = []
    for directory, inner, names in os.walk(ROOT):
        inner[:] = sorted(
            d for d in inner if d not in PASSED_OVER and not d.endswith(("_cache", ".egg-info", "othesis"))
        )
        found += [Path(directory, name) for name in sorted(names) if not suffixes or name.endswith(suffixes)]
    return found


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def package_of(file: str) -> str:
    """ "core" of "hbagent/core/roster.py", "__main__" of "hbagent/__main__.py"."""
    return Path(file).parts[1].removesuffix(".py")


def imports(tree: ast.Module, file: str) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(Path(file).parts[: -node.level]) if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def dotted(node: ast.expr) -> str:
    """ "os.path.join" of the expression os.path.join; "" of what is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


# ---- the rules -------------------------------------------------------------------------------------------


def floors(file: str, source: str) -> Iterator[str]:
    """An import goes down only."""
    package = package_of(file)
    allowed = MAY_IMPORT.get(package)
    if allowed is None:
        yield f"{file}: hbagent.{package} stands on no floor; give it one in MAY_IMPORT"
        return
    for name in imports(parsed(source), file):
        parts = name.split(".")
        if parts[0] == "hbagent" and len(parts) > 1 and parts[1] not in (package, "__version__", *allowed):
            yield f"{file} imports hbagent.{parts[1]}: {package} may not; it may import {', '.join(allowed) or 'none'}"


def purity(file: str, source: str) -> Iterator[str]:
    """Floor 0 has no clock, socket, file, thread or log, and nothing that differs from run to run."""
    if package_of(file) not in PURE:
        return
    tree = parsed(source)
    for name in imports(tree, file):
        top = name.split(".")[0]
        if top != "hbagent" and top not in PURE_IMPORTS:
            yield f"{file} imports {top}: floor 0 may not; {REMEDY.get(top, 'keep it to an edge')}"
        if top == "random" and name not in ("random", "random.Random"):
            yield f"{file} imports {name}: floor 0 may not; take a random.Random as an argument"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node.value) == "random" and node.attr != "Random":
            yield f"{file}:{node.lineno} uses random.{node.attr}: floor 0 may not; take a random.Random as an argument"
    for name, call in calls(tree):
        if name in IMPURE_CALLS:
            yield f"{file}:{call.lineno} calls {name}(): floor 0 may not, for it {IMPURE_CALLS[name]}"


def set_order(file: str, source: str) -> Iterator[str]:
    """No set is iterated in floor 0: its order differs from process to process."""
    if package_of(file) not in PURE:
        return
    tree = parsed(source)
    sets = set_names(tree)

    def is_set(node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
            return is_set(node.left) or is_set(node.right)
        return set_value(node) or dotted(node).rpartition(".")[2] in sets

    for node in ast.walk(tree):
        iterated: list[ast.expr] = []
        if isinstance(node, (ast.For, ast.comprehension)):
            iterated = [node.iter]
        elif isinstance(node, ast.Call) and dotted(node.func) in ("list", "tuple", "iter", "enumerate", "next"):
            iterated = node.args[:1]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pop":
            iterated = [] if node.args else [node.func.value]
        for value in iterated:
            if is_set(value):
                yield f"{file}:{value.lineno} depends on the order of a set: use a dict, or sorted()"


def set_names(tree: ast.Module) -> frozenset[str]:
    """Names and attributes that a file annotates as sets or fills with one."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and set_value(node.value):
            names |= {dotted(target).rpartition(".")[2] for target in node.targets}
        elif isinstance(node, ast.AnnAssign) and set_annotation(node.annotation):
            names.add(dotted(node.target).rpartition(".")[2])
        elif isinstance(node, ast.arg) and node.annotation and set_annotation(node.annotation):
            names.add(node.arg)
    return frozenset(names - {""})


def set_value(node: ast.expr) -> bool:
    made = isinstance(node, ast.Call) and dotted(node.func) in ("set", "frozenset")
    return made or isinstance(node, (ast.Set, ast.SetComp))


def set_annotation(node: ast.expr) -> bool:
    base = node.value if isinstance(node, ast.Subscript) else node
    return dotted(base).rpartition(".")[2] in ("set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet")


def danger(file: str, source: str) -> Iterator[str]:
    """Nothing that was read becomes code or a shell command."""
    tree = parsed(source)
    for name in imports(tree, file):
        if name.split(".")[0] in DANGEROUS_IMPORTS:
            yield f"{file} imports {name.split('.')[0]}: it builds objects from what it reads; use msgspec"
    for name, call in calls(tree):
        if name in DANGEROUS_CALLS:
            yield f"{file}:{call.lineno} calls {name}(): nothing that was read may become code or a command"
        for keyword in call.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield f"{file}:{call.lineno} passes shell=: give an argument list"


def docstrings(file: str, source: str) -> Iterator[str]:
    """What is public says what it is; a command's two entries are told by the head of its file."""
    tree = parsed(source)
    if source.strip() and not ast.get_docstring(tree):
        yield f"{file} has no docstring: say why the file exists and how to think of it"
    entries = ("add_arguments", "run") if file.endswith("_cmd.py") else ()
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or ast.get_docstring(node):
            continue
        if not node.name.startswith("_") and node.name not in entries:
            yield f"{file}:{node.lineno} {node.name} has no docstring"


def naps(file: str, source: str) -> Iterator[str]:
    """A test waits for a condition with a bound; only tests of real processes and hosts may sleep."""
    if "/e2e/" in file or "/hosts/" in file or "sleep" not in source:
        return
    for name, call in calls(parsed(source)):
        if name.rpartition(".")[2] == "sleep":
            yield f"{file}:{call.lineno} sleeps: wait for a condition with a bound"


def traces(file: str, text: str) -> Iterator[str]:
    """Nothing left over, and nothing of one machine or one registry."""
    for pattern, what in (
        (LEFTOVERS, "is left over: do it, or say what is so"),
        (MACHINE_PATHS, "is a path of one machine"),
        (REGISTRIES, "names a registry"),
    ):
        for match in pattern.finditer(text):
            yield f"{file}:{text.count(chr(10), 0, match.start()) + 1} {match.group()!r} {what}"


def mirror(file: str, source: str, present: frozenset[str]) -> Iterator[str]:
    """What has a function has a test file at the mirrored path; a file of declarations alone has nothing to test."""
    parts = Path(file).parts
    if parts[1] not in MIRRORED or not any(isinstance(node, ast.FunctionDef) for node in ast.walk(parsed(source))):
        return
    wanted = "/".join(["tests", *parts[1:-1], f"test_{parts[-1]}"])
    if wanted not in present:
        yield f"{file} has no {wanted}"


# ---- each rule catches what it is for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("hbagent/core/a.py", "from hbagent.wire import codec", "imports hbagent.wire"),
        ("hbagent/core/a.py", "from ..wire import codec", "imports hbagent.wire"),
        ("hbagent/core/a.py", "def f():\n    import hbagent.store.history", "imports hbagent.store"),
        ("hbagent/wire/a.py", "from .. import role", "imports hbagent.role"),
        ("hbagent/probes/a.py", "from hbagent import transport", "imports hbagent.transport"),
        ("hbagent/role/settings/a.py", "from ...cli import main", "imports hbagent.cli"),
        ("hbagent/role/a.py", "from hbagent.sim import world", "imports hbagent.sim"),
        ("hbagent/sim/a.py", "from hbagent.role import driver", "imports hbagent.role"),
        ("hbagent/new/a.py", "", "stands on no floor"),
    ],
)
def test_an_import_that_goes_up_is_found(file: str, source: str, complaint: str) -> None:
    assert any(complaint in found for found in floors(file, source))


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("hbagent/role/settings/a.py", "from ...core import units\nfrom . import b\nfrom hbagent.store import history"),
        ("hbagent/wire/a.py", "from hbagent.core.messages import Beat\nfrom . import version"),
        ("hbagent/cli/a.py", "from hbagent import __version__\nimport hbagent.bench.intake"),
    ],
)
def test_an_import_that_goes_down_is_fine(file: str, source: str) -> None:
    assert list(floors(file, source)) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import time", "core/a.py imports time: floor 0 may not; take `now` as an argument"),
        ("from time import monotonic_ns", "imports time"),
        ("def f():\n    from loguru import logger", "return a Note effect"),
        ("import psutil", "imports psutil: floor 0 may not; keep it to an edge"),
        ("from random import choice", "take a random.Random as an argument"),
        ("import random\nrandom.random()", ":2 uses random.random"),
        ("open('x')", ":1 calls open()"),
        ("def f(name):\n    return hash(name) % 8", ":2 calls hash()"),
    ],
)
def test_an_impure_core_is_found(source: str, complaint: str) -> None:
    assert any(complaint in found for found in purity("hbagent/core/a.py", source))
    assert list(purity("hbagent/role/a.py", source)) == []


def test_a_random_that_is_passed_in_is_pure() -> None:
    assert (
        list(purity("hbagent/core/a.py", "import random\ndef f(r: random.Random) -> float:\n    return r.random()"))
        == []
    )


@pytest.mark.parametrize(
    "source",
    [
        "for x in {1, 2}: pass",
        "y = [x for x in set(items)]",
        "late = set()\nfor x in late: pass",
        "def f(self):\n    self.late: set[str] = a\n    return tuple(self.late)",
        "def f(late: frozenset[str]):\n    return [x for x in late]",
        "late = {x for x in y}\nfirst = late.pop()",
        "a = set()\nfor x in a | b: pass",
    ],
)
def test_the_order_of_a_set_is_found(source: str) -> None:
    assert any("order of a set" in found for found in set_order("hbagent/core/a.py", source))


def test_a_sorted_set_and_a_membership_test_are_fine() -> None:
    source = "late = {1}\nfor x in sorted(late): pass\nif 3 in late: late.discard(3)\nd = {}\nd.pop(3)"
    assert list(set_order("hbagent/core/a.py", source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from marshal import loads",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
    ],
)
def test_a_way_from_text_to_code_is_found(source: str) -> None:
    assert list(danger("hbagent/cli/a.py", source))


def test_a_missing_docstring_is_found() -> None:
    assert len(list(docstrings("hbagent/core/a.py", "def f(): pass\nclass C: pass\ndef _g(): pass"))) == 3
    assert list(docstrings("hbagent/cli/x_cmd.py", '"""X."""\ndef run(args): pass')) == []


def test_a_sleeping_test_is_found() -> None:
    assert list(naps("tests/core/test_a.py", "import time\ntime.sleep(0.1)"))
    assert list(naps("tests/e2e/test_a.py", "import time\ntime.sleep(0.1)")) == []


@pytest.mark.parametrize(
    "text",
    [
        "# FIXME later",
        "see /home/someone/x",
        "path=/root/x",
        "from pypi.org",
        "--index-url x",
    ],
)
def test_a_trace_of_one_machine_is_found(text: str) -> None:
    assert list(traces("README.md", text))


def test_a_name_or_a_placeholder_is_no_trace() -> None:
    assert list(traces("README.md", f"dc1/root/x, ~/home/x, {'/'.join(('$HERE', 'work', 'x'))}, etc/root.toml")) == []


def test_a_file_without_its_test_is_found() -> None:
    source = "def f(): pass"
    assert list(mirror("hbagent/core/a.py", source, frozenset())) == ["hbagent/core/a.py has no tests/core/test_a.py"]
    assert list(mirror("hbagent/core/a.py", source, frozenset({"tests/core/test_a.py"}))) == []
    assert list(mirror("hbagent/core/a.py", "LIMIT = 3", frozenset())) == []


# ---- the tree keeps the rules ----------------------------------------------------------------------------


def test_the_source_keeps_floors_purity_order_safety_docstrings_and_its_tests() -> None:
    # One test: each source is parsed once.
    present = frozenset(named(file) for file in files(".py"))
    rules: tuple[Rule, ...] = (floors, purity, set_order, danger, docstrings, partial(mirror, present=present))
    sources = [file for file in sorted(present) if file.startswith("hbagent/")]
    assert sources
    texts = {file: (ROOT / file).read_text() for file in sources}
    assert [complaint for rule in rules for file, text in texts.items() for complaint in rule(file, text)] == []


def test_no_test_sleeps() -> None:
    tests = [file for file in files(".py") if named(file).startswith("tests/")]
    assert [found for file in tests for found in naps(named(file), file.read_text())] == []


def test_the_tree_has_no_traces_of_a_machine() -> None:
    complaints = []
    for file in files():
        if named(file) == "tests/test_tidy.py" or b"\0" in (content := file.read_bytes()):
            continue
        complaints += list(traces(named(file), content.decode(errors="replace")))
    assert complaints == []


def test_the_constraints_pin_each_package_by_hash_and_name_no_source() -> None:
    names = sorted(path.name for path in ROOT.glob("constraints*.txt"))
    assert len(names) == 4
    for name in names:
        logical = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
        pins = [line for line in logical if line and not line.startswith("#") and line != "-r constraints.txt"]
        assert pins
        for pin in pins:
            assert re.fullmatch(
                r"[a-z0-9-]+==[\w.]+( (;|and) python_version [<>]=? \"3\.\d+\"){,2}( +--hash=sha256:[0-9a-f]{64})+", pin
            )


def test_every_variable_that_make_sets_for_the_tests_is_read_by_one() -> None:
    asked = set(re.findall(r"\bHBAGENT_[A-Z_]+", (ROOT / "Makefile").read_text()))
    read = "".join((ROOT / named(file)).read_text() for file in files(".py") if named(file) != "tests/test_tidy.py")
    assert asked and [name for name in sorted(asked) if f'"{name}"' not in read] == []
