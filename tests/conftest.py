"""Which tests run, what is missing here, and what a skip means.

Slow tests and those with real processes run when asked for (`--slow`, or any `-m`). A test that needs a program or
the rights of root says so by a marker, is skipped where they are missing, and each skip is named at the end. Under
CI=true nothing may be missing: there a skip fails the run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

IN_CI = os.environ.get("CI") == "true"
#: Packages whose slow tests compute, measure no time and share nothing, so that another may run beside them.
SOCIABLE = ("core", "wire", "sim", "console", "store")
#: A unix socket's path ends at 107 bytes; this leaves room for a few directories below.
SOCKET_DIRECTORY_MAX = 60

#: Call it with a row of the table of faults, or a word for what was looked at, and what was measured there.
Figures = Callable[[str, str], None]
_FIGURES: pytest.StashKey[list[tuple[str, str]]] = pytest.StashKey()
#: The property of a report that carries one of them from a worker to the summary.
_FIGURE = "figure"

# No deadline, and no look at how long the making of examples takes: a shared machine pauses any process for longer than
# either allows. In CI the examples are the same for the same code, so that what lands does not depend on luck. A third
# of them will do for the fast tests; all of them are tried with the slow ones.
hypothesis.settings.register_profile(
    "here",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
    derandomize=IN_CI,
    max_examples=100 if os.environ.get("HBAGENT_EXAMPLES") == "all" else 33,
)
hypothesis.settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know `--slow`."""
    parser.addoption("--slow", action="store_true", help="run the slow tests and those with real processes too")


def pytest_configure(config: pytest.Config) -> None:
    """Know the markers that name programs and company, and the one that `pytest_collection_modifyitems` gives."""
    config.stash[_FIGURES] = []
    config.addinivalue_line("markers", "needs(*programs): programs without which the test is skipped")
    config.addinivalue_line("markers", "paired: slow, but it waits more than it works: one like it may run beside it")
    config.addinivalue_line("markers", "alone: slow, and no other test may run at the same time")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Each worker that is to read all tests begins with others than its fellows. What pytest makes of a file is kept
    beside it, and costs four times as much as to read that: so each file is made once, and not by all at a time."""
    config = session.config
    worker = getattr(config, "workerinput", None)
    if worker is None or [*config.args] != config.getini("testpaths"):
        return
    here = Path(__file__).parent
    files = sorted(file for file in here.rglob("test_*.py") if "__pycache__" not in file.parts)
    first = int(worker["workerid"].removeprefix("gw")) * len(files) // worker["workercount"]
    for file in files[first:] + files[:first]:
        # A file that cannot be imported, or warns, is reported when it is collected.
        with warnings.catch_warnings(), contextlib.suppress(Exception, pytest.skip.Exception):
            warnings.simplefilter("error")
            importlib.import_module(".".join(file.relative_to(here.parent).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for, and skip what cannot run here."""
    for item in items:
        slow = item.get_closest_marker("slow") and item.path.parent.name not in SOCIABLE
        if (slow or item.get_closest_marker("e2e")) and not item.get_closest_marker("paired"):
            item.add_marker("alone")
    if not config.option.markexpr:
        unasked = ("hosts",) if config.option.slow else ("slow", "e2e", "hosts")
        left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in unasked)]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        reason = missing(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """What was collected stays until the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


def missing(item: pytest.Item) -> str:
    """Why `item` cannot run on this machine; "" when it can."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs the rights of root"
    programs = [program for mark in item.iter_markers("needs") for program in mark.args]
    absent = [program for program in programs if shutil.which(program) is None]
    return f"needs {', '.join(absent)} (make deps)" if absent else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report has with it what was measured since the last one."""
    report = yield
    figures = item.config.stash[_FIGURES]
    report.user_properties = [*report.user_properties, *((_FIGURE, figure) for figure in figures)]
    figures.clear()
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI=true a skip fails the run."""
    if IN_CI and skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was measured; and how many tests were skipped, which is no pass where everything must run."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    figures = [told for report in reports for key, told in getattr(report, "user_properties", ()) if key == _FIGURE]
    if figures:
        terminalreporter.section("figures of the rows")
        for row, text in figures:
            terminalreporter.write_line(f"{row:<6} {text}")
    count = skipped(config)
    if count:
        verdict = "a failure under CI=true" if IN_CI else "these things were not tested here"
        terminalreporter.write_line(f"{count} skipped: {verdict}", red=IN_CI, yellow=not IN_CI)


def skipped(config: pytest.Config) -> int:
    """How many tests were skipped in this run."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter else 0


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """Call it with a row and what was measured there."""
    return lambda row, text: pytestconfig.stash[_FIGURES].append((row, text))


@pytest.fixture
def socket_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory whose path is short enough for unix sockets, wherever the tree lies."""
    if len(os.fsencode(tmp_path)) <= SOCKET_DIRECTORY_MAX:
        yield tmp_path
        return
    short = Path(tempfile.mkdtemp(prefix="hb", dir="/tmp"))
    try:
        yield short
    finally:
        remove(short)


def remove(directory: Path, bound_s: float = 15.0) -> None:
    """Remove a directory with all that is in it; what a test has ended may write a last file, or remove one."""
    end = time.monotonic() + bound_s
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except OSError:
            if time.monotonic() > end:
                raise
            threading.Event().wait(0.05)
