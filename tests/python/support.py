"""What several test files need: gates, deadlines, processes, threads and scripts."""

import contextlib
import faulthandler
import gc
import inspect
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tasks

import weirpool

START_METHODS = ("fork", "forkserver", "spawn")
CAN_REPLACE = "on_worker_death" in inspect.signature(weirpool.ProcessPoolExecutor).parameters
DEATH_MODES = ("break", "replace") if CAN_REPLACE else ("break",)
PATIENCE = 60.0  # seconds; only a hang takes so long
FLAGS = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # -X dev -W error reach scripts, too


def show(value: Any) -> str:
    """For the names of tests, which are the same in every process: as repr(), without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Looks until `condition` holds, and returns what it said."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {patience:.0f} s: {what}")
        time.sleep(0.005)
    return found


class Gate:
    """Holds the tasks `tasks.hold(gate.folder)` until it is opened, and knows how many have started."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = str(folder)

    @property
    def started(self) -> int:
        return sum(name.startswith("started-") for name in os.listdir(self.folder))

    def wait_started(self, count: int) -> None:
        wait_until(lambda: self.started >= count, f"{count} tasks start")

    def open(self) -> None:
        (Path(self.folder) / "open").touch()


# ---- Pools ---------------------------------------------------------------------------------------


class Pools:
    """Makes pools, and at the end of a test shuts them down and asks each whether it is sound."""

    def __init__(self) -> None:
        self.made: list[weirpool.ProcessPoolExecutor] = []

    def unbounded(self, workers: int = 2, method: str | None = None, **options: Any) -> weirpool.ProcessPoolExecutor:
        return self.keep(weirpool.ProcessPoolExecutor(workers, context(method), **options))

    def bounded(
        self, bound: int | bool | None, workers: int = 2, method: str | None = None, **options: Any
    ) -> weirpool.BoundedProcessPoolExecutor:
        return self.keep(weirpool.BoundedProcessPoolExecutor(bound, workers, context(method), **options))

    def keep(self, pool: Any) -> Any:
        self.made.append(pool)
        return pool

    def close(self) -> None:
        for pool in self.made:
            pool._check()
            end_soon(pool)
            wait_until(lambda pool=pool: pool.stats().outstanding == 0, "every permit is back")
            pool._check()
        self.made.clear()


def end_soon(pool: Any) -> None:
    """Shuts a pool down in a thread of its own: a pool that hangs costs one test, not the run."""
    ending = Threads()
    ending.start(lambda: pool.shutdown(wait=True, cancel_futures=True))
    ending.join()
    if ending.errors:
        raise ending.errors[0]


def context(method: str | None) -> Any:
    return method and multiprocessing.get_context(method)


# How an executor is started, and what a dead worker means to it; "replace" refuses fork.
MODES = [(method, mode) for mode in DEATH_MODES for method in START_METHODS if (method, mode) != ("fork", "replace")]
every_mode = pytest.mark.parametrize(("method", "mode"), MODES, ids=["-".join(both) for both in MODES])


def options_of(mode: str) -> dict[str, Any]:
    """The keywords of a mode."""
    return {} if mode == "break" else {"on_worker_death": mode}


def executor_text(bound: int, workers: int, method: str, mode: str) -> str:
    """For a script: the expression that makes a bounded executor."""
    options = "".join(f", {name}={value!r}" for name, value in options_of(mode).items())
    get_context = f"multiprocessing.get_context({method!r})"
    return f"weirpool.BoundedProcessPoolExecutor({bound}, {workers}, {get_context}{options})"


def start_workers(pool: weirpool.ProcessPoolExecutor, gate: Gate, count: int) -> list[int]:
    """Makes every worker run a held task, and returns their pids."""
    before = gate.started
    for _ in range(count):
        pool.submit(tasks.hold, gate.folder)
    gate.wait_started(before + count)
    return list(pool._processes)


def worker_pids(pool: weirpool.ProcessPoolExecutor) -> list[int]:
    return list(pool._processes)


def kill_a_worker(pool: weirpool.ProcessPoolExecutor) -> None:
    os.kill(worker_pids(pool)[0], signal.SIGKILL)


# ---- Processes, descriptors, threads -------------------------------------------------------------


def stat_of(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_gone(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is None or stat[0] == "Z"


def descendants(of: int) -> set[int]:
    """Every live process below one, without the helpers that multiprocessing keeps for good."""
    children: dict[int, list[int]] = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if stat := stat_of(pid):
            children.setdefault(int(stat[1]), []).append(pid)
    found: set[int] = set()
    below = [of]
    while below:
        fresh = children.get(below.pop(), [])
        found.update(fresh)
        below += fresh
    return found - helper_pids()


def helper_pids() -> set[int]:
    forkserver = multiprocessing.forkserver._forkserver
    tracker = multiprocessing.resource_tracker._resource_tracker
    return {pid for pid in (forkserver._forkserver_pid, tracker._pid) if pid}


def in_session(leader: int) -> set[int]:
    """Every live process of a session: also those that have lost their parent."""
    stats = {pid: stat_of(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
    return {pid for pid, stat in stats.items() if stat and int(stat[3]) == leader and stat[0] != "Z"}


def wait_asleep(pid: int) -> None:
    """Until the main thread of a process sleeps, and keeps on sleeping."""
    naps = 0

    def sleeps() -> bool:
        nonlocal naps
        stat = stat_of(pid)
        naps = naps + 1 if stat is not None and stat[0] == "S" else 0
        return naps == 20

    wait_until(sleeps, "its main thread sleeps")


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: (stat_of(pid) or ["?"])[0] in "TtZ", "the process stops")


def proceed(pid: int) -> None:
    """SIGCONT; whoever was stopped may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def descriptors() -> dict[int, str]:
    """What each open descriptor of this process is."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    return found


def mapped_segments() -> set[str]:
    """Where this process has mapped the shared memory of a pool."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[0] for line in maps if "memfd:weirpool" in line}


def thread_names() -> dict[int, str]:
    return {thread.ident or 0: thread.name for thread in threading.enumerate()}


class Leaks:
    """Remembers what is there, and later says what is new."""

    def __init__(self) -> None:
        self.processes = descendants(os.getpid())
        self.descriptors = descriptors()
        self.threads = thread_names()
        self.segments = mapped_segments()

    def found(self) -> str:
        gc.collect()
        multiprocessing.active_children()  # reaps
        processes = {pid for pid in descendants(os.getpid()) - self.processes if not is_gone(pid)}
        fds = {number: link for number, link in descriptors().items() if self.descriptors.get(number) != link}
        fds = {number: link for number, link in fds.items() if not link.startswith("/proc/")}
        threads = {name for ident, name in thread_names().items() if ident not in self.threads}
        segments = mapped_segments() - self.segments
        parts = {"processes": processes, "descriptors": fds, "threads": threads, "segments": segments}
        return ", ".join(f"{what} {left}" for what, left in parts.items() if left)


def memory_kib(pid: int | str = "self") -> int:
    """The resident set of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


class Threads:
    """Threads of a test: their results and their errors, and no waiting for ever."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.results: list[Any] = []
        self.errors: list[BaseException] = []

    def start(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> threading.Thread:
        def body() -> None:
            try:
                self.results.append(run(*args, **kwargs))
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=body, name=f"test-{len(self.threads)}", daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def join(self, patience: float = PATIENCE) -> list[Any]:
        """Waits for all, and returns the results in the order in which threads ended."""
        deadline = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self.threads)
        assert not stuck, f"{stuck} of {len(self.threads)} threads are stuck"
        return self.results


# ---- Scripts and forked children -----------------------------------------------------------------


def complaint(stderr: str) -> str | None:
    """What a process says that dropped an exception or left a resource open: it has nobody else to tell."""
    return next(
        (line for line in stderr.splitlines() if "Exception ignored" in line or "ResourceWarning" in line), None
    )


class Script:
    """A Python program in a process group of its own, in the folder of a test."""

    PRELUDE = """
        import logging, os, signal, sys, threading, time
        from concurrent.futures import wait
        from concurrent.futures.process import BrokenProcessPool
        import multiprocessing
        import tasks, weirpool

        logging.getLogger("asyncio").setLevel(logging.ERROR)  # with -X dev it complains of slow callbacks

        def say(*words):
            sys.stdout.write(" ".join(map(str, words)) + "\\n")  # in one piece: threads say things, too
            sys.stdout.flush()

        def soon(condition, what):
            deadline = time.monotonic() + 60
            while not condition():
                if time.monotonic() > deadline:
                    raise AssertionError("not in 60 s: " + what)
                time.sleep(0.005)
    """

    def __init__(self, folder: Path, body: str, *args: object) -> None:
        self.path = folder / f"script{len(list(folder.glob('script*.py')))}.py"
        self.out = self.path.with_suffix(".out")
        self.err = self.path.with_suffix(".err")
        self.read = 0  # lines of `out` that line() has given
        main = textwrap.indent(textwrap.dedent(body).strip(), "    ")
        self.path.write_text(f"{textwrap.dedent(self.PRELUDE).strip()}\n\nif __name__ == '__main__':\n{main}\n")
        here = str(Path(__file__).parent)
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *FLAGS, "-X", "faulthandler", str(self.path), *map(str, args)],
                stdout=out,
                stderr=err,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that the script says."""

        def lines() -> list[str]:
            return self.out.read_text().split("\n")[self.read : -1]

        deadline = time.monotonic() + PATIENCE
        while not (ready := lines()):
            ended = self.process.poll() is not None and not lines()
            if ended or time.monotonic() > deadline:
                self.fail("the script said nothing more")
            time.sleep(0.005)
        self.read += 1
        return ready[0]

    def interrupt(self) -> None:
        """Ctrl-C, for the main process alone."""
        self.process.send_signal(signal.SIGINT)

    def ctrl_c(self) -> None:
        """As a terminal sends it: to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def leaves_nothing(self) -> None:
        """Waits until no process of its session is left, whoever started it."""
        wait_until(lambda: not in_session(self.pid), f"its processes end: {in_session(self.pid)}")

    def finish(self, patience: float = PATIENCE, *, may_complain: bool = False) -> list[str]:
        """Waits for the end, which must be a clean one; returns the lines that it said and nobody has read."""
        code = self.end(patience)
        if code != 0:
            self.fail(f"exit code {code}")
        if not may_complain and (found := complaint(self.err.read_text())):
            self.fail(f"it complained: {found}")
        return self.out.read_text().splitlines()[self.read :]

    def end(self, patience: float = PATIENCE) -> int:
        """Waits for the end; returns the exit code."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.fail(f"the script did not end in {patience:.0f} s")

    def fail(self, why: str) -> NoReturn:
        """Fails the test, with the script's stacks if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        raise AssertionError(f"{why}\n--- out\n{self.out.read_text()}\n--- err\n{self.err.read_text()}")

    def kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def in_forked_child(run: Callable[[], object], patience: float = PATIENCE) -> str:
    """Runs something in a fork of this process; returns its result, or its exception, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(run())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], patience)
        if not ready:
            os.kill(child, signal.SIGKILL)
            return f"stuck for {patience:.0f} s"
        return os.read(reader, 65536).decode()
    finally:
        os.close(reader)
        os.waitpid(child, 0)


@contextlib.contextmanager
def last_resort(seconds: float, out: int) -> Iterator[None]:
    """Ends the whole run, with all stacks, when something hangs so hard that no signal handler runs."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=out)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
