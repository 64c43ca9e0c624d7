"""The fall-back: when it is chosen, what it refuses, and that it does all else that the native engine does."""

import inspect
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sandbox
from support import FLAGS, Script

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The rest takes minutes: `make test-fallback`.
FILES: tuple[str, ...] = (
    "test_traps.py",
    "test_policies.py",
    "test_backpressure.py",
    "test_threads.py",
)
MORE_FILES = (
    "test_bounded.py",
    "test_feeder.py",
    "test_map.py",
    "test_map_unordered.py",
    "test_as_completed.py",
    "test_asyncio.py",
    "test_submit.py",
    "test_shutdown.py",
    "test_constructor.py",
)

if os.environ.get("WEIRPOOL_FALLBACK") == "all":
    FILES += MORE_FILES

Start = Callable[..., Script]

HIDE = 'sys.modules["weirpool._core"] = None'
LISTEN = """
        import logging
        heard = []
        class Ear(logging.Handler):
            def emit(self, record):
                heard.append(record)
        logging.getLogger("weirpool").addHandler(Ear())
        logging.getLogger("weirpool").setLevel(logging.DEBUG)
"""


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Sets the variable for the scripts of a test."""

    def choose(name: str | None) -> None:
        if name is None:
            monkeypatch.delenv("WEIRPOOL_ENGINE", raising=False)
        else:
            monkeypatch.setenv("WEIRPOOL_ENGINE", name)

    return choose


@pytest.fixture(autouse=True)
def as_chosen(on: Any) -> None:
    on(None)


# ---- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["native", "stdlib"])
def test_the_variable_chooses_the_engine(script: Start, on: Any, name: str) -> None:
    on(name)
    lines = script("""
        with weirpool.BoundedProcessPoolExecutor(4, 2) as pool:
            say(pool.submit(abs, -3).result(), pool.stats().engine)
    """).finish()
    assert lines == [f"3 {name}"]


def test_without_the_variable_the_native_engine_runs(script: Start) -> None:
    lines = script(f"""
        {LISTEN}
        with weirpool.ProcessPoolExecutor(1) as pool:
            pool.submit(abs, -3).result()
            say(pool.stats().engine, heard)
    """).finish()
    assert lines == ["native []"]


@pytest.mark.parametrize("what", ["weirpool.ProcessPoolExecutor", "weirpool.BoundedThreadPoolExecutor"])
def test_another_word_is_an_error_that_says_the_two(script: Start, on: Any, what: str) -> None:
    on("fast")
    lines = script(f"""
        try:
            {what}
        except ValueError as error:
            say(error)
    """).finish()
    assert lines == ['WEIRPOOL_ENGINE must be "native" or "stdlib", not \'fast\'']


def test_a_native_engine_that_cannot_run_is_an_error_where_it_is_asked_for(script: Start, on: Any) -> None:
    on("native")
    lines = script(f"""
        {HIDE}
        try:
            from weirpool import ProcessPoolExecutor
        except ImportError as error:
            say(error)
    """).finish()
    assert len(lines) == 1
    assert lines[0].startswith("WEIRPOOL_ENGINE=native, but the native engine cannot run here: its extension")


def test_one_warning_in_a_process_says_that_the_native_engine_cannot_run(script: Start) -> None:
    running = script(f"""
        {LISTEN}
        {HIDE}
        for name in "ThreadPoolExecutor", "ProcessPoolExecutor", "BoundedProcessPoolExecutor":
            with getattr(weirpool, name)(max_workers=1) as pool:
                pool.submit(abs, -3).result()
                say(pool.stats().engine)
        say(*(record.levelname for record in heard))
        say(heard[0].getMessage())
    """)
    *engines, levels, text = running.finish()
    assert engines == ["threads", "stdlib", "stdlib"]
    assert levels == "WARNING"
    assert "python -m weirpool doctor" in text
    assert "extension" in text
    assert running.err.read_text() == ""


def test_who_asks_for_the_fall_back_is_not_warned(script: Start, on: Any) -> None:
    on("stdlib")
    lines = script(f"""
        {LISTEN}
        weirpool.ProcessPoolExecutor
        say(*(record.levelname for record in heard))
    """).finish()
    assert lines == ["INFO"]


def test_workers_that_import_the_program_do_not_repeat_the_warning(script: Start, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import sys\nsys.modules['weirpool._core'] = None\nfrom weirpool import ProcessPoolExecutor\n\n\n"
        "def engine():\n    return ProcessPoolExecutor.__module__\n"
    )
    running = script("""
        import user
        with user.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            say(pool.submit(user.engine).result(), pool.stats().engine)
    """)
    assert running.finish() == ["weirpool.process stdlib"]
    assert running.err.read_text().count("native engine cannot run") == 1  # where no handler is, logging prints it


@pytest.mark.skipif(not sandbox.is_possible(), reason="system calls have other numbers on this machine")
@pytest.mark.parametrize(
    ("calls", "said"),
    [
        (["memfd_create", "openat"], "memfd with seals"),
        (["pidfd_open"], "pidfd"),
        (["eventfd2"], "eventfd"),
        (["futex"], "Error"),
    ],
    ids=["memory", "pidfd", "eventfd", "futex"],
)
def test_a_sandbox_that_refuses_what_the_engine_needs(script: Start, calls: list[str], said: str) -> None:
    engine, text, *results = script(f"""
        {LISTEN}
        import sandbox
        sandbox.refuse(*{calls!r})
        with weirpool.BoundedProcessPoolExecutor(4, 2) as pool:
            say(pool.stats().engine)
            say(heard[0].getMessage())
            for result in pool.map(tasks.square, range(10)):
                say(result)
    """).finish()
    assert engine == "stdlib"
    assert said in text
    assert results == [str(number * number) for number in range(10)]


@pytest.mark.skipif(not sandbox.is_possible(), reason="system calls have other numbers on this machine")
def test_a_sandbox_that_refuses_memfd_alone_has_the_native_engine(script: Start) -> None:
    lines = script("""
        import sandbox
        sandbox.refuse("memfd_create")
        with weirpool.BoundedProcessPoolExecutor(4, 2) as pool:
            say(pool.submit(abs, -3).result(), pool.stats().engine)
    """).finish()
    assert lines == ["3 native"]


def test_a_lack_of_descriptors_that_passes_is_no_reason(script: Start) -> None:
    lines = script("""
        import resource
        from weirpool import _engine
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        import weirpool._core
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), most[1]))
        name = _engine.choice().name
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
        say(name)
    """).finish()
    assert lines == ["native"]


def test_a_system_without_what_linux_has(script: Start) -> None:
    """As another system's Python, as far as it can be told to be one: neither the extension nor such functions."""
    lines = script(f"""
        {HIDE}
        import asyncio
        for name in ("eventfd", "eventfd_read", "eventfd_write", "memfd_create", "pidfd_open", "register_at_fork"):
            delattr(os, name)

        async def main():
            async with weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context("spawn")) as pool:
                return await asyncio.gather(*(pool.arun(tasks.square, number) for number in range(20)))

        say(sum(asyncio.run(main())))
        with weirpool.BoundedThreadPoolExecutor(1, 1) as pool:
            say(sum(pool.map(tasks.square, range(20))))
    """).finish()
    assert lines == ["2470", "2470"]


# ---- what it is ----------------------------------------------------------------------------------


def test_the_classes_are_the_same_to_who_looks_at_them(script: Start, on: Any) -> None:
    on("stdlib")
    lines = script("""
        import inspect
        for name in "ProcessPoolExecutor", "BoundedProcessPoolExecutor":
            each = getattr(weirpool, name)
            say(each.__module__, each.__qualname__, inspect.signature(each))
            for method in "submit", "map", "shutdown", "asubmit", "stats", "kill_workers":
                say(inspect.signature(getattr(each, method)), bool(inspect.getdoc(getattr(each, method))))
        say(issubclass(weirpool.BoundedProcessPoolExecutor, weirpool.ProcessPoolExecutor))
        import weirpool.process
        say(weirpool.process.ProcessPoolExecutor is weirpool.ProcessPoolExecutor)
    """).finish()
    from weirpool import process  # here: the native ones, or whichever this run is about

    expected = []
    for each in process.ProcessPoolExecutor, process.BoundedProcessPoolExecutor:
        expected.append(f"weirpool.process {each.__qualname__} {inspect.signature(each)}")
        for method in "submit", "map", "shutdown", "asubmit", "stats", "kill_workers":
            expected.append(f"{inspect.signature(getattr(each, method))} True")
    assert lines == [*expected, "True", "True"]


def test_an_option_of_the_native_engine_alone_says_why_and_what_to_do(script: Start, on: Any) -> None:
    on("stdlib")
    lines = script("""
        from weirpool import process, _stdlib

        def refused(call):
            try:
                call()
            except NotImplementedError as error:
                say(error)

        for each in weirpool.ProcessPoolExecutor, weirpool.BoundedProcessPoolExecutor:
            for options in {"max_bytes": 10**9}, {"adaptive_bound": True}, {"pickler": "pickle"}:
                refused(lambda: each(max_workers=1, **options))
        for options in {"on_worker_death": "replace"}, {"max_worker_memory": 10**9}:
            refused(lambda: _stdlib.refuse_what_is_native(options))
        _stdlib.refuse_what_is_native({"on_worker_death": "break", "max_worker_memory": None, "adaptive_bound": False})
        with weirpool.ProcessPoolExecutor(1) as pool:
            refused(lambda: pool.with_options(retries=1))
            future = pool.submit(abs, -3)
            refused(lambda: future.cancel(force=True))
            say(future.result())
    """).finish()
    names = ["max_bytes", "adaptive_bound", "pickler"] * 2 + ["on_worker_death", "max_worker_memory"]
    names += ["with_options()", "cancel(force=True)"]
    assert [line.split(" needs ")[0] for line in lines[:-1]] == names
    assert all("WEIRPOOL_ENGINE=stdlib asks for it" in line for line in lines[:-1])
    assert lines[-1] == "3"


def test_stats_have_the_workers_and_their_memory(script: Start, on: Any) -> None:
    on("stdlib")
    lines = script("""
        with weirpool.BoundedProcessPoolExecutor(4, 2) as pool:
            list(pool.map(abs, range(10)))
            soon(lambda: pool.stats().outstanding == 0, "permits are back")
            stats = pool.stats()
            say(stats.completed, stats.bound, {worker.pid for worker in stats.workers} == set(pool._processes))
            say(all(worker.rss > 2**20 for worker in stats.workers))
        say(pool.stats().workers, pool.stats().completed)
    """).finish()
    assert lines == ["10 4 True", "True", "() 10"]


# ---- deaths, and what the standard pool would wait for -------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_twelve_blocked_producers_learn_at_once_of_a_killed_worker(
    script: Start, on: Any, tmp_path: Path, method: str
) -> None:
    on("stdlib")
    lines = script(
        """
        method, folder = sys.argv[1:]
        os.mkdir(folder)
        pool = weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context(method))
        held = [pool.submit(tasks.hold, folder) for _ in range(2)]
        soon(lambda: len(os.listdir(folder)) == 2, "both run")
        ends = []

        def produce():
            try:
                pool.submit(tasks.nothing)
            except BrokenProcessPool as error:
                ends.append((time.monotonic(), error))

        producers = [threading.Thread(target=produce) for _ in range(12)]
        for producer in producers:
            producer.start()
        soon(lambda: pool.stats().blocked_producers == 12, "producers are blocked")
        victim = next(iter(pool._processes))
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        for producer in producers:
            producer.join()
        errors = [error for _, error in ends] + [future.exception() for future in held]
        say(len(ends), len({id(error) for error in errors}), max(when for when, _ in ends) - began)
        say(*{(error.__cause__.pid == victim, error.__cause__.signal, "signal 9" in str(error.__cause__))
              for error in errors})
        pool.shutdown()
        say(pool.stats().workers_died, pool.stats().outstanding)
        """,
        method,
        tmp_path / "held",
    ).finish()
    count, own, seconds = lines[0].split()
    assert (count, own) == ("12", "14")
    assert float(seconds) < 1
    assert lines[1:] == ["(True, 'SIGKILL', True)", "1 0"]


def test_a_stopped_worker_does_not_keep_a_broken_pool(script: Start, on: Any, tmp_path: Path) -> None:
    """The standard pool asks it politely to end, and waits."""
    on("stdlib")
    lines = script(
        """
        os.mkdir(sys.argv[1])
        pool = weirpool.BoundedProcessPoolExecutor(2, 2)
        futures = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(2)]
        soon(lambda: len(os.listdir(sys.argv[1])) == 2, "both run")
        stopped, killed = pool._processes
        os.kill(stopped, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        say(*(type(future.exception(60)).__name__ for future in futures))
        pool.shutdown(wait=True)
        say("ended")
        """,
        tmp_path / "held",
    ).finish()
    assert lines == ["BrokenProcessPool BrokenProcessPool", "ended"]


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_recycled_workers_strand_no_task(script: Start, on: Any, method: str) -> None:
    """The standard pool counts on a worker that was idle, and has left since."""
    on("stdlib")
    lines = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(
            4, 2, multiprocessing.get_context(sys.argv[1]), max_tasks_per_child=2
        )
        with pool:
            pids = [pool.submit(tasks.pid).result() for _ in range(7)]
            pids += [future.result() for future in [pool.submit(tasks.pid) for _ in range(14)]]
            say(len(pids), max(pids.count(pid) for pid in pids))
        """,
        method,
    ).finish()
    assert lines == ["21 2"]


def test_tasks_that_no_worker_is_left_for_end_with_the_reason(script: Start, on: Any) -> None:
    on("stdlib")
    lines = script("""
        from unittest import mock
        context = multiprocessing.get_context("forkserver")
        pool = weirpool.BoundedProcessPoolExecutor(4, 1, context, max_tasks_per_child=1)
        futures = [pool.submit(tasks.nap, 0.3)]
        with mock.patch.object(context, "Process", side_effect=OSError("no more processes")):
            futures += [pool.submit(tasks.nothing) for _ in range(3)]
            say(futures[0].result())
            for future in futures[1:]:
                error = future.exception(60)
                say(type(error).__name__, "could not be started" in str(error), "no more" in str(error.__cause__))
            pool.shutdown()
    """).finish()
    assert lines == ["0.3"] + ["BrokenProcessPool True True"] * 3


def test_a_worker_more_that_cannot_be_started_costs_no_task(script: Start, on: Any) -> None:
    on("stdlib")
    lines = script("""
        from unittest import mock
        context = multiprocessing.get_context("forkserver")
        with weirpool.BoundedProcessPoolExecutor(8, 4, context) as pool:
            pool.submit(tasks.nothing).result()
            with mock.patch.object(context, "Process", side_effect=OSError("no more processes")):
                futures = [pool.submit(tasks.square, number) for number in range(8)]
                say(sum(future.result(60) for future in futures), len(pool._processes))
    """).finish()
    assert lines == ["140 1"]


# ---- the tests of what both engines do ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.environ.get("WEIRPOOL_ENGINE") == "stdlib", reason="the whole run is on the fall-back")
@pytest.mark.parametrize("file", FILES)
def test_what_both_engines_do(on: Any, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """The file's tests, without those of which fallback.toml says why not."""
    on("stdlib")
    monkeypatch.setenv("WEIRPOOL_SOAK", "1")
    monkeypatch.setenv("WEIRPOOL_FLOOD", "5000")
    command = [sys.executable, *FLAGS, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]


# ---- a package without its extension --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["as asked", "without a compiler"])
def test_the_package_can_be_built_without_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    pytest.importorskip("mesonpy", reason="builds with meson-python, which is not here")
    if shutil.which("ninja", path=(path := f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")) is None:
        pytest.skip("builds with ninja, which is not here")
    monkeypatch.setenv("PATH", path)
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)  # pip's are not ours
    options = ["--config-settings=setup-args=-Dextension=disabled"] if how == "as asked" else []
    if how == "without a compiler":
        monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps"]
    built = subprocess.run(
        [*pip, "--no-cache-dir", f"--wheel-dir={tmp_path}", *options, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    doctor = subprocess.run(
        [sys.executable, "-m", "weirpool", "doctor"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "engine: stdlib (the native engine cannot run here: its extension" in doctor.stdout
