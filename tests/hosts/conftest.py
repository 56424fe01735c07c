"""One datacenter of six real hosts for all tests here, which run in the order in which it would live.

The first that needs it boots it and deploys hbagent onto it; each leaves it as healthy as it found it. The whole takes
about as long as Ansible takes for its playbooks, so no test deploys anew what another has.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.deployment import CONTROLLER, ROOT, Deployment, Play
from tests.hosts.lab import PROGRAMS, Lab

#: In the order of a fleet's life.
ORDER = ("keys", "site", "units", "docs", "faults", "upgrade", "rotation", "remove", "six", "packages")
HERE = Path(__file__).parent


# Before that of all tests, which leaves out what is marked.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need real hosts, and run in their order."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.hosts)
        item.add_marker(pytest.mark.root)
        item.add_marker(pytest.mark.needs(*PROGRAMS))
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
    names = [f"test_{name}.py" for name in ORDER]
    ours.sort(key=lambda item: names.index(item.path.name))
    places = iter(ours)
    items[:] = [next(places) if HERE in item.path.parents else item for item in items]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Six hosts with nothing on them but Debian."""
    # A name of its own lets another run go on beside it.
    lab = Lab(os.environ.get("HBAGENT_LAB", "hb"), 6)
    lab.down()
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """What hosts install from, built from this tree."""
    subprocess.run(["make", "--silent", "wheelhouse"], cwd=ROOT, check=True)
    return ROOT / "dist/wheelhouse"


@pytest.fixture(scope="session")
def bare(lab: Lab, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """A fleet that is only written down: its inventory, and the collection as users install it."""
    directory = tmp_path_factory.mktemp("fleet")
    fleet = Deployment(lab, directory)
    galaxy = str(CONTROLLER / "ansible-galaxy")
    build = [galaxy, "collection", "build", "--output-path", str(directory), str(ROOT / "ansible")]
    subprocess.run(build, check=True, stdout=subprocess.PIPE)
    built = next(directory.glob("hbagent-hbagent-*.tar.gz"))
    install = [galaxy, "collection", "install", "--offline", "-p", str(directory / "collections"), str(built)]
    subprocess.run(install, check=True, stdout=subprocess.PIPE)
    return fleet


@pytest.fixture(scope="session")
def first_plays(bare: Deployment) -> tuple[Play, Play]:
    """A check of the bare hosts, and the deployment."""
    checked = bare.play("site", "--check")
    return checked, bare.play("site")


@pytest.fixture
def fleet(bare: Deployment, first_plays: tuple[Play, Play]) -> Deployment:
    """A datacenter in which all is well."""
    deployed = first_plays[1]
    assert deployed.code == 0, deployed.output[-5000:]
    bare.wait_alive()
    return bare
