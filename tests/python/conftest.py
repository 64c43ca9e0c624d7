"""Fixtures: start methods, pools that are checked, a watch over what a test leaves behind, repeats of races."""

import collections
import faulthandler
import math
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that workers find `tasks`

import fallback
from support import START_METHODS, Gate, Leaks, Pools, Script, Threads, complaint, last_resort

LIMIT = 120.0  # seconds a test; a marker `timeout` says otherwise
STDERR = pytest.StashKey[int]()
FAILED = pytest.StashKey[bool]()
SOAK = int(os.environ.get("WEIRPOOL_SOAK", "1"))  # how often each test runs that is marked `race`


def pytest_configure(config: pytest.Config) -> None:
    # Workers are forked while producers run; that is what users do, too.
    config.addinivalue_line("filterwarnings", "ignore:.*multi-threaded, use of fork:DeprecationWarning")
    config.stash[STDERR] = os.dup(2)  # before output is captured
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background: programs would inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.register_at_fork(after_in_child=complain_aloud)
    # Else each spawned worker imports pytest, as the program's main module.
    main = sys.modules["__main__"]
    main.__spec__ = None
    main.__file__ = None


def complain_aloud() -> None:
    """In a forked child: pytest's hooks would keep what they are told, and nobody reads it there."""
    sys.unraisablehook = sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__


def pytest_unconfigure(config: pytest.Config) -> None:
    # Threads that hang would keep the interpreter from ending; nothing cancels this.
    faulthandler.dump_traceback_later(60, exit=True, file=config.stash[STDERR])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("race"):
        metafunc.fixturenames.append("repeat")
        metafunc.parametrize("repeat", range(SOAK))


def spread_repeats(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test that has variants (start methods, modes, ...) each runs as often as makes SOAK runs of them all."""
    repeated = [item for item in items if isinstance(item, pytest.Function) and item.get_closest_marker("race")]
    counts = collections.Counter(test_of(item) for item in repeated)
    most = {test: math.ceil(SOAK * SOAK / count) for test, count in counts.items()}  # count: SOAK times the variants
    over = {item for item in repeated if item.callspec.params["repeat"] >= most[test_of(item)]}
    config.hook.pytest_deselected(items=list(over))
    items[:] = [item for item in items if item not in over]


def test_of(item: pytest.Function) -> tuple[Path, str]:
    return item.path, item.originalname


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SOAK > 1:
        spread_repeats(config, items)
    selects = config.option.keyword or any("::" in argument for argument in config.args)
    if os.environ.get("WEIRPOOL_ENGINE") == "stdlib":
        fallback.skip_excluded(items, complete=not selects)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    marker = item.get_closest_marker("timeout")
    limit = float(marker.args[0]) if marker and marker.args else LIMIT
    with last_resort(limit + 30, item.config.stash[STDERR]):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def multiprocessing_helpers() -> None:
    """The fork server and the resource tracker stay for good: start them before anything is counted."""
    multiprocessing.forkserver.ensure_running()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: pytest.TestReport = yield
    if report.when == "teardown" and report.passed and (found := complaint(report.capstderr)):
        report.outcome = "failed"
        report.longrepr = f"a process of the test complained: {found}"
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no process, no thread and no descriptor more than before."""
    leaks = Leaks()
    yield
    if request.node.stash.get(FAILED, False):
        return  # its traceback keeps its pools
    deadline = time.monotonic() + 20
    while (found := leaks.found()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not found, f"left behind: {found}"


@pytest.fixture(params=START_METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    method: str = request.param
    return method


@pytest.fixture
def pools(nothing_left_behind: None) -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path, pools: Pools) -> Iterator[Gate]:
    """Torn down before the pools, so that they can end."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


@pytest.fixture
def threads(pools: Pools) -> Threads:
    return Threads()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., Script]]:
    """Starts Python programs, and sees to it that none outlives the test."""
    started: list[Script] = []

    def start(body: str, *args: Any) -> Script:
        started.append(Script(tmp_path, body, *args))
        return started[-1]

    yield start
    for one in started:
        one.kill_all()
