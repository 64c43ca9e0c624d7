"""Runs CPython's tests of the process pool, of one start method, and of futures; writes counts, as JSON, to a file.

usage: suite.py METHOD REPORT    REPORT: the file for the counts
"""

import concurrent.futures as cf
import faulthandler
import importlib.util
import json
import sys
import tomllib
import unittest
from collections.abc import Iterator
from concurrent.futures import process
from pathlib import Path
from typing import Any

PACKAGE = "test.test_concurrent_futures"
FILES = ("process_pool", "shutdown", "deadlock", "init", "wait", "as_completed", "future")
CLASSES = ("ProcessPoolExecutor", "Shutdown", "Deadlock", "Initializer", "Wait", "AsCompleted", "Future")
LIMIT = 900.0  # seconds; then all threads' stacks are printed


def modules() -> list[str]:
    """Up to Python 3.11 the suite is one file."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise SystemExit(f"{PACKAGE} is not there")
    if spec.submodule_search_locations is None:
        return [PACKAGE]
    return [f"{PACKAGE}.test_{name}" for name in FILES]


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from flatten(one)
        else:
            yield one


def has_method(test: unittest.TestCase, method: str) -> bool:
    """Is it a test of process pools with this start method? Tests of futures alone have none, and go with each."""
    own: Any = getattr(test, "ctx", None)
    return own == method or (own is None and type(test).__name__ in ("FutureTests", "FutureTest"))


def excluded_names() -> set[str]:
    version = sys.version_info[:2]
    entries = tomllib.loads(Path(__file__).with_name("exclusions.toml").read_text())["excluded"]
    return {entry["test"] for entry in entries if version >= tuple(map(int, entry["since"].split(".")))}


def name_of(test: unittest.TestCase) -> str:
    return test.id().rsplit(".", 1)[1]


def check_what_is_tested() -> None:
    """The shim is imported by `site`, which goes on without it if it fails."""
    for cls in (cf.ProcessPoolExecutor, process.ProcessPoolExecutor, cf.Future):
        if not any(base.__module__.startswith("weirpool") for base in cls.__mro__):
            raise SystemExit(f"{cls} is not weirpool's")


def load(method: str) -> tuple[unittest.TestSuite, int, set[str]]:
    """The tests to run, how many are excluded, and exclusions of tests that are not there."""
    found = unittest.defaultTestLoader.loadTestsFromNames(modules())
    if unittest.defaultTestLoader.errors:
        raise SystemExit("\n".join(unittest.defaultTestLoader.errors))
    tests = [test for test in flatten(found) if has_method(test, method)]
    lacking = {name for name in CLASSES if not any(name in type(test).__name__ for test in tests)}
    if lacking:
        raise SystemExit(f"no tests with {' nor '.join(sorted(lacking))} in the names of their classes")
    excluded = excluded_names()
    gone = excluded - {name_of(test) for test in tests}
    chosen = [test for test in tests if name_of(test) not in excluded]
    return unittest.TestSuite(chosen), len(tests) - len(chosen), gone


def main(method: str, report: str) -> int:
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    check_what_is_tested()
    suite, excluded, gone = load(method)  # nothing else may keep a test: it would keep its pools and queues
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    failed = {test.id().split(" ")[0] for test, _ in result.failures + result.errors}
    counts = {
        "passed": result.testsRun - len(failed) - len(result.skipped),
        "failed": sorted(failed) + sorted(f"{name}: excluded, but not there" for name in gone),
        "excluded": excluded,
        "skipped": sorted(f"{test.id()}: {why}" for test, why in result.skipped),
    }
    Path(report).write_text(json.dumps(counts))
    return 1 if failed or gone or result.unexpectedSuccesses or counts["passed"] < len(result.skipped) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
