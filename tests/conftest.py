"""What every test shares: nothing leaks, and nothing of the machine's environment is used."""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import coverage
import pytest
from hypothesis import settings

from . import module_coverage
from .module_coverage import TESTS
from .support.examples import examples
from .support.garbage import set_aside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Sequence

# Otherwise each worker, and each command that tests run, would compile all its imports: 3 s each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("suite", examples(100))
settings.load_profile("suite")


# Every module has to be covered by its own tests, so the coverage of only those is measured:
# measuring adds half to what a test costs.
MEASURED = {
    file for module in module_coverage.modules() for file in module_coverage.tests_of(module)
}
CONTEXT = pytest.StashKey[str]()
TRIALS = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_xdist_auto_num_workers() -> int:
    """Run one worker more than there are cores: some tests wait for processes that they start."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Import the package, and have each worker import the modules of tests in another order.

    pytest rewrites the asserts of each module: that takes 7 s of CPU for all modules, and the
    result is cached. In a fresh clone all workers would import the modules in the same order at the
    same time, and each would rewrite them all. So each begins with a part of its own, and finds the
    rest in the cache.
    """
    if session.config.pluginmanager.has_plugin("dsession"):
        # This is the controller of pytest-xdist, which hands the tests out.
        return (yield)
    with _unmeasured():
        importlib.import_module("livekit.agents.cli")
    # What runs on import of the package is measured, but belongs to no test.
    from livekit.plugins import tiro

    pytest.register_assert_rewrite("livekit.plugins.tiro.testing.pytest_plugin")
    for found in pkgutil.walk_packages(tiro.__path__, f"{tiro.__name__}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    with _unmeasured():
        worker = getattr(session.config, "workerinput", None)
        if worker is not None and session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            number = int(worker["workerid"].removeprefix("gw"))
            names = sorted(f"{__package__}.{path.stem}" for path in TESTS.glob("test_*.py"))
            for name in share_first(names, number, worker["workercount"]):
                # pytest reports a module that fails to import when it collects it.
                with suppress(Exception, pytest.skip.Exception):
                    importlib.import_module(name)
        return (yield)


def share_first(names: Sequence[str], number: int, count: int) -> list[str]:
    """Return all names, beginning with those of one of `count` equal shares."""
    first = len(names) * number // count
    return [*names[first:], *names[:first]]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out nightly tests unless asked for; put last those that wait for network trials."""
    asked = "nightly" in config.option.markexpr
    nightly = [item for item in items if not asked and item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=nightly)
    items[:] = [item for item in items if item not in nightly]
    items.sort(key=_is_over_links)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have one worker start the trials over network links: they wait most of their time."""
    # Not at the top: importing the package is part of what is measured.
    from .support import netns

    set_aside()
    worker = getattr(session.config, "workerinput", {"workerid": "gw0"})["workerid"]
    wanted = not session.config.option.collectonly and any(map(_is_over_links, session.items))
    if wanted and worker == "gw0":
        session.config.stash[TRIALS] = netns.start()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if TRIALS in session.config.stash:
        from .support import netns

        netns.finish(session.config.stash[TRIALS])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which file of tests runs which lines: `python -m tests.module_coverage` reads it."""
    measured = coverage.Coverage.current()
    if measured is None:
        return (yield)
    if not _is_measured(item):
        with _unmeasured():
            return (yield)
    if item.session.stash.get(CONTEXT, "") != item.path.name:
        item.session.stash[CONTEXT] = item.path.name
        measured.switch_context(item.path.name)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep nothing of what a passed test has logged: to report it costs a tenth of the time."""
    report = yield
    if report.passed:
        report.sections.clear()
    return report


def _is_measured(item: pytest.Item) -> bool:
    """Return whether the coverage of a test counts: not with random input, nor if marked `many`."""
    skipped = ("hypothesis", "many")
    return item.path.name in MEASURED and not any(map(item.get_closest_marker, skipped))


@contextmanager
def _unmeasured() -> Iterator[None]:
    """Stop all measuring of coverage, and go on with it at the end.

    In a worker there are two measurements: one that pytest-cov starts in every pytest process, and
    one for the worker. If only the second stopped, the first would go on, at the same cost.
    """
    stopped: list[coverage.Coverage] = []
    while (measured := coverage.Coverage.current()) is not None:
        measured.stop()
        stopped.append(measured)
    try:
        yield
    finally:
        for measured in reversed(stopped):
            measured.start()


def _is_over_links(item: pytest.Item) -> bool:
    return item.path.name == "test_netns.py"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIRO_API_KEY", "TIRO_SPEECH_KEY", "TIRO_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def asyncio_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test in asyncio's debug mode, in virtual time too. It trebles what a test costs."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    asyncio.get_running_loop().set_debug(True)


@pytest.fixture(autouse=True)
def _no_key_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("DEBUG", logger="livekit.plugins.tiro")
    yield


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail if the test leaves a task behind."""
    yield
    deadline = asyncio.get_running_loop().time() + 2
    while asyncio.all_tasks() != {asyncio.current_task()}:
        left = [task.get_name() for task in asyncio.all_tasks()]
        assert asyncio.get_running_loop().time() < deadline, f"tasks left behind: {left}"
        await asyncio.sleep(0.01)
