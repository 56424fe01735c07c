"""The version after this one: a copy of the tree that has another minor, a field and a type more, and really uses them.

An agent of it says `Weather` to each leader that admits it, and `mood` in its reports; a leader of it writes both into
its log. So a test sees what was told to whom. It is made from the tree as it is by replacing text; what is not found is
a failure that says where.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import hbagent
from hbagent.wire.version import MINOR

VERSION = "99.0.0"
NEXT = MINOR + 1

#: File, what stands there, and what is put in its place.
CHANGES: tuple[tuple[str, str, str], ...] = (
    ("wire/version.py", f"\nMINOR = {MINOR}\n", f"\nMINOR = {NEXT}\n"),
    (
        "core/messages.py",
        "\nWireMessage = Union[\n",
        "\nclass Weather(msgspec.Struct, frozen=True, kw_only=True):\n"
        '    """Agent to leader."""\n\n    sky: str\n\n\nWireMessage = Union[\n    Weather,\n',
    ),
    ("core/messages.py", "    digest: int = 0\n", '    digest: int = 0\n    mood: str = ""\n'),
    ("wire/minors.py", "    m.Welcome: 3,\n", f"    m.Welcome: 3,\n    m.Weather: {NEXT},\n"),
    ("wire/minors.py", '    m.Report: {"apps": 1,', f'    m.Report: {{"mood": {NEXT}, "apps": 1,'),
    ("wire/codec.py", "    0x30: m.Query,\n", "    0x7E: m.Weather,\n    0x30: m.Query,\n"),
    ("wire/rules.py", "    m.Query: _query,\n", '    m.Weather: lambda weather: "",\n    m.Query: _query,\n'),
    ("core/agent.py", "from .messages import (\n", "from .messages import (\n    Weather,\n"),
    (
        "core/agent.py",
        "            digest=self._digest,\n",
        '            digest=self._digest,\n            mood="calm",\n',
    ),
    (
        "core/agent.py",
        "        return (note, *self._report_now(now)) if",
        '        note = Send(sender, Weather(sky="clear"))\n        return (note, *self._report_now(now)) if',
    ),
    ("core/leader.py", "from .messages import (\n", "from .messages import (\n    Weather,\n"),
    (
        "core/leader.py",
        "        Report: _report,\n",
        "        Weather: lambda self, sender, weather, now: (\n"
        '            Note("info", "weather", {"sky": weather.sky, "of": sender}),\n'
        "        ),\n"
        "        Report: lambda self, sender, report, now: (\n"
        '            Note("info", "mood", {"mood": report.mood or "none", "of": sender}),\n'
        "            *self._report(sender, report, now),\n"
        "        ),\n",
    ),
    ("role/leader.py", "hbagent.core.messages import (\n", "hbagent.core.messages import (\n    Weather,\n"),
    ("role/leader.py", "\nCONTROL = (", "\nCONTROL = (Weather, "),
)
#: It writes whatever it knows, whoever reads it: what this version must never do.
LOUD: tuple[tuple[str, str, str], ...] = (
    ("wire/version.py", "MINOR_ASSUMED = MINOR - 1", "MINOR_ASSUMED = MINOR"),
    ("wire/minors.py", "return max(0, min(minor, MINOR))", "return MINOR"),
)


def make(directory: Path, *more: tuple[str, str, str]) -> Path:
    """The tree of the next version, below `directory`; with more changes if there are any."""
    source = Path(hbagent.__file__).parent
    tree = directory / "tree"
    shutil.copytree(source, tree / "hbagent", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in (*CHANGES, *more):
        file = tree / "hbagent" / name
        text = file.read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        file.write_text(text.replace(old, new))
    file = tree / "hbagent" / "__init__.py"
    file.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{VERSION}"', file.read_text()))
    return tree


def command(tree: Path, given: list[str]) -> list[str]:
    """The same command with the tree's version; `python -m`, also of its children, looks where it stands first."""
    return ["/usr/bin/env", "-C", str(tree), *given]
