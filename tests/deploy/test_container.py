"""The container file names what there is, fetches nothing, and runs as nobody in particular.

That an image of it builds and runs is seen in tests/hosts/test_packages.py, where a base for it is at hand.
"""

from __future__ import annotations

import re
from pathlib import Path

import tomli

ROOT = Path(__file__).parents[2]
FILE = (ROOT / "deploy" / "Containerfile").read_text("utf-8")
STEPS = [line for line in FILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def values(instruction: str) -> list[str]:
    return [line.partition(" ")[2] for line in STEPS if line.startswith(f"{instruction} ")]


def test_nothing_is_fetched_but_the_base() -> None:
    installs = re.findall(r"pip --python \S+ install [^&]*", " ".join(values("RUN")))
    assert installs and all("--no-index" in install and "--no-deps" in install for install in installs)
    assert "--require-hashes" in installs[0]
    assert not re.search(r"apt|curl|wget|ADD", " ".join(STEPS))


def test_it_runs_as_a_number_that_owns_nothing_but_its_state() -> None:
    (user,) = values("USER")
    uid, gid = user.split(":")
    assert uid == gid != "0"
    (owned,) = re.findall(r"install -d -m 0700 -o (\d+) -g (\d+) (.*)", " ".join(values("RUN")))
    assert owned[:2] == (uid, gid)
    # Said to people as well, who have to give the key to it.
    assert f"uid={uid}" in FILE


def settings(role: str) -> dict[str, str]:
    """The shipped settings of a role's first table, with its defaults."""
    text = (ROOT / "etc" / f"{role}.toml").read_text("utf-8")
    table: dict[str, str] = tomli.loads(re.sub(r"^#(publish|control|query) =", r"\1 =", text, flags=re.M))[role]
    return table


def test_its_ports_are_those_of_the_shipped_configs() -> None:
    tables = [settings(role) for role in ("leader", "root")]
    ports = {table[key].rpartition(":")[2] for table in tables for key in ("publish", "control")}
    assert set(values("EXPOSE")[0].split()) == ports


def test_its_health_is_asked_where_the_daemons_answer() -> None:
    (check,) = values("HEALTHCHECK")
    (asked,) = re.findall(r"--socket (\S+?);", check)
    for role in ("root", "leader"):
        socket = asked.replace("$role", role)
        assert socket == settings(role)["query"]
        # Nobody else makes the directory where there is no unit.
        assert str(Path(socket.removeprefix("ipc://")).parent) in " ".join(values("RUN")).split()
