"""What the tests of real processes share: their datacenters, their figures, and the logs behind a failure."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from hbagent.demo.datacenter import Plan
from tests.conftest import SOCKET_DIRECTORY_MAX
from tests.e2e.fleet import Fleet
from tests.e2e.lab import Lab

Build = Callable[[Plan], Fleet]
BuildLab = Callable[[Plan], Lab]
Some = TypeVar("Some", bound=Fleet)

_FLEETS: pytest.StashKey[list[Fleet]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FLEETS] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of every log."""
    report = yield
    if report.failed:
        for fleet in item.config.stash.get(_FLEETS, []):
            report.sections += [(f"log of {name}", text) for name, text in fleet.tails()]
    return report


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Build]:
    """Makes datacenters that end with the module; their logs are shown when a test fails."""
    with _builder(Fleet, tmp_path_factory, pytestconfig) as make:
        yield make


@pytest.fixture(scope="module")
def build_lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[BuildLab]:
    """The same, with a host for each process (see `lab.NEEDS`)."""
    with _builder(Lab, tmp_path_factory, pytestconfig) as make:
        yield make


@pytest.fixture
def healed(pytestconfig: pytest.Config) -> Iterator[None]:
    """Every test ends with all nodes alive, and with nothing that waits to be told: for `usefixtures`."""
    yield
    for fleet in pytestconfig.stash[_FLEETS]:
        fleet.heal()
        fleet.settle()


@pytest.fixture
def proved(healed: None, pytestconfig: pytest.Config) -> None:
    """The same, and it begins with echo paths that are known to work, so that an end can be proved."""
    for fleet in pytestconfig.stash[_FLEETS]:
        fleet.prove()


@contextlib.contextmanager
def _builder(
    kind: type[Some], factory: pytest.TempPathFactory, config: pytest.Config
) -> Iterator[Callable[[Plan], Some]]:
    fleets = config.stash[_FLEETS]
    with contextlib.ExitStack() as stack:

        def make(plan: Plan) -> Some:
            fleet = kind(stack.enter_context(short_directory(factory)), plan)
            fleets.append(fleet)
            stack.enter_context(fleet)
            return fleet

        yield make
    fleets.clear()


@contextlib.contextmanager
def short_directory(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which a unix socket's path fits, wherever the tree lies."""
    directory = factory.mktemp("f")
    if len(os.fsencode(directory)) <= SOCKET_DIRECTORY_MAX:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="hb", dir="/tmp") as short:
        yield Path(short)


@pytest.fixture(scope="session")
def clock_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that bends the wall clock."""
    library = tmp_path_factory.mktemp("shim") / "clock_shim.so"
    source = Path(__file__).with_name("clock_shim.c")
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
    return library
