"""With the libraries that people use: what the standard pool does with them, this one does, too."""

import asyncio
import concurrent.futures
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import queue
import random
import signal
import socket
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import dask
import numpy
import pandas
import pytest
import tasks
from support import Gate, Pools, Script, context, wait_until

import weirpool

SOON = 60.0
MIB = 1 << 20

Make = Callable[..., Executor]


@pytest.fixture(params=["standard", "weirpool", "bounded"])
def make(request: pytest.FixtureRequest, pools: Pools) -> Iterator[Make]:
    """Makes pools of one kind: make(workers, start method, **options)."""
    standard: list[Executor] = []

    def make_standard(workers: int, method: str | None = None, **options: Any) -> Executor:
        standard.append(concurrent.futures.ProcessPoolExecutor(workers, context(method), **options))
        return standard[-1]

    def make_bounded(workers: int, method: str | None = None, **options: Any) -> Executor:
        return pools.bounded(200, workers, method, **options)

    yield {"standard": make_standard, "weirpool": pools.unbounded, "bounded": make_bounded}[request.param]
    for pool in standard:
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def sharer(pools: Pools) -> Iterator[None]:
    """Ends the thread that hands descriptors to workers."""
    yield
    multiprocessing.resource_sharer.stop(timeout=10)


def hold_up(pool: Executor, gate: Gate) -> tuple[Future[Any], Future[Any]]:
    """A future that runs, and one that waits and can be cancelled: more are waiting than the standard pool calls up."""
    before = gate.started
    running = pool.submit(tasks.hold, gate.folder, "held")
    gate.wait_started(before + 1)
    return running, [pool.submit(tasks.nothing) for _ in range(6)][-1]


# ---- asyncio -------------------------------------------------------------------------------------


def test_asyncios_debug_mode_finds_nothing_to_complain_of(
    make: Make, start_method: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(2, start_method)

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = SOON / 2  # only what blocks is slow
        calls = [loop.run_in_executor(pool, tasks.fail_on, 7, number) for number in range(20)]
        wrapped = asyncio.wrap_future(pool.submit(tasks.square, 5))
        return [await wrapped, *await asyncio.gather(*calls, return_exceptions=True)]

    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        results = asyncio.run(main(), debug=True)
    assert isinstance(results[8], tasks.OddError)
    assert "in fail_on" in str(results[8].__cause__)
    assert results[:8] + results[9:] == [25, *range(7), *range(8, 20)]
    assert caplog.records == []


def test_cancelling_a_wrapped_future_cancels_what_waits_and_not_what_runs(make: Make, gate: Gate) -> None:
    running, waiting = hold_up(make(1), gate)

    async def main() -> None:
        for inner in (running, waiting):
            outer = asyncio.wrap_future(inner)
            assert outer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await outer

    asyncio.run(main(), debug=True)
    assert waiting.cancelled()
    assert not running.cancelled()
    gate.open()
    assert running.result(SOON) == "held"


def test_a_timeout_of_asyncio_cancels_what_waits(make: Make, gate: Gate) -> None:
    _, waiting = hold_up(make(1), gate)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(waiting), 0.01)

    asyncio.run(main(), debug=True)
    assert waiting.cancelled()


def test_a_future_that_is_cancelled_cancels_its_wrapper(make: Make, gate: Gate) -> None:
    _, waiting = hold_up(make(1), gate)

    async def main() -> None:
        outer = asyncio.wrap_future(waiting)
        assert waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    asyncio.run(main(), debug=True)


def test_a_task_group_ends_with_its_first_error(make: Make, gate: Gate) -> None:
    _, waiting = hold_up(make(1), gate)

    async def ask(future: Future[Any]) -> Any:
        return await asyncio.wrap_future(future)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(waiting))
            await asyncio.sleep(0)  # it is waited for
            raise tasks.OddError

    with pytest.raises(ExceptionGroup):
        asyncio.run(main(), debug=True)
    assert waiting.cancelled()


def test_a_pool_that_breaks_ends_what_is_awaited(make: Make) -> None:
    pool: Any = make(1)

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(pool, tasks.nap, SOON) for _ in range(3)]
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(error) for error in asyncio.run(main(), debug=True)] == [BrokenProcessPool] * 3


# ---- wait and as_completed -----------------------------------------------------------------------


class Mixed:
    """Held and finished futures of three kinds of pools, and one that belongs to none."""

    def __init__(self, pools: list[Executor], gate: Gate) -> None:
        self.gate = gate
        self.held = [pool.submit(tasks.hold, gate.folder, number) for number, pool in enumerate(pools)]
        gate.wait_started(len(pools))
        self.finished = [pool.submit(tasks.square, number) for number, pool in enumerate(pools)]
        self.failed = [pool.submit(tasks.fail_with, tasks.OddError, number) for number, pool in enumerate(pools)]
        self.plain: Future[Any] = Future()
        for future in self.finished + self.failed:
            future.exception(SOON)
        # Their results are asked for above; these are done and nobody has looked yet.
        self.unread = [pool.submit(tasks.nothing) for pool in pools]
        wait_until(lambda: all(future.done() for future in self.unread), "the last ones end")


@pytest.fixture
def mixed(pools: Pools, gate: Gate) -> Iterator[Mixed]:
    with ThreadPoolExecutor(2) as threads, concurrent.futures.ProcessPoolExecutor(2) as standard:
        try:
            yield Mixed([pools.unbounded(2), pools.bounded(20, 2), standard, threads], gate)
        finally:
            gate.open()


@pytest.mark.parametrize("when", [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED])
def test_wait_for_what_has_ended(mixed: Mixed, when: str) -> None:
    ended = mixed.finished + mixed.failed + mixed.unread
    assert wait(ended + ended, SOON, when) == (set(ended), set())


def test_wait_for_the_first_to_end_when_some_have(mixed: Mixed) -> None:
    found = wait(mixed.held + mixed.unread + mixed.unread, SOON, FIRST_COMPLETED)
    assert found == (set(mixed.unread), set(mixed.held))


def test_wait_for_the_first_exception_when_there_is_one(mixed: Mixed) -> None:
    found = wait(mixed.held + mixed.failed[:1] + mixed.unread, SOON, FIRST_EXCEPTION)
    assert found == ({mixed.failed[0], *mixed.unread}, set(mixed.held))


@pytest.mark.parametrize("when", [FIRST_EXCEPTION, ALL_COMPLETED])
def test_wait_times_out(mixed: Mixed, when: str) -> None:
    found = wait([*mixed.held, mixed.plain, *mixed.finished, *mixed.finished], 0.01, when)
    assert found == (set(mixed.finished), {*mixed.held, mixed.plain})


@pytest.mark.parametrize("when", [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED])
def test_wait_for_nothing_times_out(mixed: Mixed, when: str) -> None:
    assert wait(mixed.held, 0.01, when) == (set(), set(mixed.held))


def test_wait_for_all_of_every_kind(mixed: Mixed) -> None:
    everything = mixed.held + mixed.finished + mixed.failed + mixed.unread
    mixed.gate.open()
    assert wait(everything + everything, SOON) == (set(everything), set())
    assert [future.result() for future in mixed.held] == [0, 1, 2, 3]


def test_wait_for_the_first_of_every_kind(mixed: Mixed) -> None:
    mixed.gate.open()
    waiting = {*mixed.held, mixed.plain}
    while len(waiting) > 1:
        done, waiting = wait(waiting, SOON, FIRST_COMPLETED)
        assert done
    assert waiting == {mixed.plain}


def test_as_completed_gives_each_once_and_the_ended_first(mixed: Mixed) -> None:
    ended = mixed.finished + mixed.unread + mixed.failed
    everything = mixed.held + ended
    random.shuffle(everything)
    found = as_completed(everything + everything, SOON)
    assert {next(found) for _ in ended} == set(ended)
    mixed.gate.open()
    assert sorted(future.result() for future in found) == [0, 1, 2, 3]


def test_as_completed_times_out_after_what_has_ended(mixed: Mixed) -> None:
    found = as_completed(mixed.held + mixed.unread + mixed.held, 0.01)
    assert {next(found) for _ in mixed.unread} == set(mixed.unread)
    with pytest.raises(TimeoutError, match=r"4 \(of 8\) futures unfinished"):
        next(found)


# ---- Libraries that take an executor -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["concurrent.futures.ProcessPoolExecutor", "weirpool.ProcessPoolExecutor"])
@pytest.mark.parametrize("chunksize", [1, 5])
def test_tqdms_process_map(script: Callable[..., Script], start_method: str, kind: str, chunksize: int) -> None:
    """Its lock is made for the default start method; tasks draw bars of their own under it."""
    run = script(
        """
        import concurrent.futures
        from tqdm.contrib.concurrent import _executor_map
        multiprocessing.set_start_method(sys.argv[1])
        options = dict(max_workers=2, chunksize=int(sys.argv[3]), lock_name="mp_lock")
        print(_executor_map(eval(sys.argv[2]), tasks.advance_a_bar, range(12), **options))
        """,
        start_method,
        kind,
        chunksize,
    )
    assert run.finish() == [str([number * number for number in range(12)])]
    drawn = run.err.read_text()
    assert "0/12" in drawn  # the last one drawn depends on how far its thread has come
    assert "task 11: 100%" in drawn


def test_dask_computes_in_a_pool(make: Make, start_method: str) -> None:
    pool = make(2, start_method)
    square, add = dask.delayed(tasks.square), dask.delayed(tasks.add)
    total = square(1)
    for number in range(2, 6):
        total = add(total, square(number))
    local = dask.delayed(lambda number: number + 1)(total)  # dask pickles functions by itself
    pids = [dask.delayed(tasks.pid)(number) for number in range(3)]
    result, *found = dask.compute(local, *pids, scheduler="processes", pool=pool)
    assert result == 56
    assert set(found) <= set(pool._processes)


def test_an_error_in_a_dask_task_is_raised(make: Make) -> None:
    with pytest.raises(tasks.OddError):
        dask.compute(dask.delayed(tasks.fail_with)(tasks.OddError), scheduler="processes", pool=make(1))


INNER_TEST = """
    import concurrent.futures, multiprocessing
    import tasks, weirpool

    def test_that_prints():
        context = multiprocessing.get_context("{method}")
        with {kind}(1, context) as pool:
            pool.submit(tasks.say, "by a task").result()
            list(pool.map(tasks.say, ["by a map"] * 5))
        assert False
"""


def run_inner_pytest(folder: Path, capture: str, method: str, kind: str) -> list[str]:
    """What a run says of a test that fails: its outcome, and the lines of its workers."""
    (folder / "test_inner.py").write_text(textwrap.dedent(INNER_TEST).format(method=method, kind=kind))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--capture={capture}", "test_inner.py"]
    path = [str(Path(__file__).parent), *sys.path]
    run = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": ":".join(path)}, capture_output=True, text=True, timeout=SOON
    )
    assert "1 failed" in run.stdout, run.stdout + run.stderr
    # What passes by the capture of a test comes before the report on it.
    return [line for line in run.stdout.splitlines() if line.endswith(("by a task", "by a map", "stdout call ---"))]


@pytest.mark.parametrize("capture", ["fd", "sys", "no"])
def test_pytest_captures_what_workers_say(tmp_path: Path, start_method: str, capture: str) -> None:
    standard, mine = (
        run_inner_pytest(tmp_path, capture, start_method, kind)
        for kind in ("concurrent.futures.ProcessPoolExecutor", "weirpool.ProcessPoolExecutor")
    )
    assert sorted(mine) == sorted(standard)
    assert mine.count("written by a map") == 5


# ---- Arrays and frames ---------------------------------------------------------------------------


def arrays() -> dict[str, Any]:
    dice = numpy.random.default_rng(7)
    return {
        "plain": dice.random(1000),
        "large": dice.random(3 * MIB // 8),
        "strided": dice.random((300, 40))[::3, ::-2],
        "Fortran": numpy.asfortranarray(dice.random((30, 400))),
        "large Fortran": numpy.asfortranarray(dice.random((300, 4000))),
        "transposed": dice.random((3, 4, 50)).transpose(2, 0, 1),
        "empty": numpy.zeros((0, 7)),
        "scalar": numpy.array(7),
        "structured": numpy.array([(1, 2.5, "x")] * 2000, dtype=[("a", "i4"), ("b", "f8"), ("c", "U3")]),
        "objects": numpy.array(["text", None, [1, 2], tasks.Circle(3)], dtype=object),
        "dates": numpy.arange("2000-01-01", "2010-01-01", dtype="datetime64[D]"),
        "big endian": numpy.arange(1000, dtype=">i4"),
        "broadcast": numpy.broadcast_to(numpy.arange(5), (100, 5)),
        "masked": numpy.ma.masked_less(dice.random(1000), 0.5),
    }


def look_of(array: Any) -> Any:
    return array.dtype, array.shape, array.flags.c_contiguous, array.flags.f_contiguous


def protocol_of(pool: Executor) -> int:
    """They differ before 3.14, also in the byte order and the layout of some arrays."""
    return pickle.HIGHEST_PROTOCOL if isinstance(pool, weirpool.ProcessPoolExecutor) else pickle.DEFAULT_PROTOCOL


@pytest.mark.parametrize("name", arrays())
def test_arrays_travel_as_by_pickle(make: Make, name: str) -> None:
    array = arrays()[name]
    pool = make(1)
    back = pool.submit(tasks.echo, array).result()
    assert type(back) is type(array)
    assert look_of(back) == look_of(pickle.loads(pickle.dumps(array, protocol_of(pool))))
    assert back.flags.writeable
    numpy.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("name", arrays())
def test_arrays_travel_by_cloudpickle(pools: Pools, name: str) -> None:
    array = arrays()[name]
    back = pools.bounded(4, 1, pickler="cloudpickle").submit(lambda array: array, array).result()
    assert look_of(back) == look_of(pickle.loads(pickle.dumps(array, pickle.HIGHEST_PROTOCOL)))
    assert back.flags.writeable
    numpy.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("pickler", [None, "cloudpickle"])
def test_64_mib_of_an_array(pools: Pools, start_method: str, pickler: str | None) -> None:
    array = numpy.random.default_rng(7).random(64 * MIB // 8)
    back = pools.bounded(4, 1, start_method, pickler=pickler).submit(tasks.double_in_place, array).result()
    assert numpy.array_equal(back, 2 * array)
    back[0] = 1


@pytest.mark.parametrize("pickler", [None, "cloudpickle"])
def test_a_read_only_array_is_what_the_newest_protocol_makes_of_it(pools: Pools, pickler: str | None) -> None:
    array = numpy.arange(1000)
    array.setflags(write=False)
    expected = pickle.loads(pickle.dumps(array, pickle.HIGHEST_PROTOCOL))
    back = pools.bounded(4, 1, pickler=pickler).submit(tasks.echo, array).result()
    assert numpy.array_equal(back, array)
    assert back.flags.writeable == expected.flags.writeable


def frame(rows: int) -> Any:
    dice = numpy.random.default_rng(7)
    return pandas.DataFrame(
        {
            "a": dice.random(rows),
            "text": [f"row {row}" for row in range(rows)],
            "kind": pandas.Categorical(["x", "y"] * (rows // 2)),
            "when": pandas.date_range("2000-01-01", periods=rows, freq="h", tz="Europe/Paris"),
            "perhaps": pandas.array([None, 3] * (rows // 2), dtype="Int64"),
        },
        index=pandas.Index(range(rows), name="row"),
    )


@pytest.mark.parametrize("rows", [0, 10, 100_000])
def test_frames_travel_and_can_be_written(make: Make, rows: int) -> None:
    sent = frame(rows)
    back = make(1).submit(tasks.increment_frame, sent).result()
    pandas.testing.assert_frame_equal(sent, frame(rows))
    expected = frame(rows)
    expected["a"] += 1
    pandas.testing.assert_frame_equal(back, expected)
    back.loc[:, "a"] = 0.0
    assert not back["a"].any()


def test_mapping_over_the_groups_of_a_frame(make: Make) -> None:
    pool = make(2)
    groups = [group for _, group in frame(1000).groupby("kind", observed=True)]
    parts = pandas.concat(pool.map(tasks.increment_frame, groups)).sort_index()
    numpy.testing.assert_array_equal(parts["a"], frame(1000)["a"] + 1)


# ---- What multiprocessing carries ----------------------------------------------------------------


def test_a_socket_as_an_argument(make: Make, sharer: None, start_method: str) -> None:
    pool = make(1, start_method)
    pool.submit(tasks.nothing).result()  # else a worker that is forked inherits both ends
    here, there = socket.socketpair()
    with here:
        here.settimeout(SOON)
        here.sendall(b"question")
        with there:
            assert pool.submit(tasks.answer, there).result(SOON) == b"question"
        assert here.recv(100) == b"answer"
        assert here.recv(100) == b"", "nobody keeps the other end open"


def test_a_socket_as_a_result(make: Make, sharer: None, start_method: str) -> None:
    with make(1, start_method).submit(tasks.open_socket).result(SOON) as back:
        back.settimeout(SOON)
        assert back.recv(100) == b"hello"


def test_a_connection_as_a_result(make: Make, sharer: None, start_method: str) -> None:
    with make(1, start_method).submit(tasks.open_pipe).result(SOON) as back:
        assert back.poll(SOON)
        assert back.recv() == "hello"


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "Event", "Condition", "Queue"])
def test_locks_and_queues_cannot_be_arguments(make: Make, start_method: str, kind: str) -> None:
    pool = make(1, start_method)
    shared = getattr(multiprocessing.get_context(start_method), kind)()
    error = pool.submit(tasks.echo, shared).exception(SOON)
    assert isinstance(error, RuntimeError)
    assert "should only be shared between processes through inheritance" in str(error)
    assert pool.submit(tasks.square, 3).result() == 9


def test_logging_through_a_queue(make: Make, start_method: str) -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    channel = multiprocessing.get_context(start_method).Queue()
    listener = logging.handlers.QueueListener(channel, logging.handlers.QueueHandler(records))
    listener.start()
    try:
        pool = make(2, start_method, initializer=tasks.hand_logging_over, initargs=(channel,))
        list(pool.map(tasks.log_info, ["one", "two", "three"]))
        found = [records.get(timeout=SOON).getMessage().split(" from ")[0] for _ in range(3)]
        assert sorted(found) == ["one", "three", "two"]
    finally:
        listener.stop()
        channel.close()
        channel.join_thread()


def test_proxies_of_a_manager(make: Make, start_method: str) -> None:
    pool = make(2, start_method)
    with multiprocessing.get_context(start_method).Manager() as manager:
        lock, mapping, line = manager.Lock(), manager.dict(), manager.Queue()
        futures = [pool.submit(tasks.put_under_lock, lock, mapping, line, key) for key in range(6)]
        pids = [future.result() for future in futures]
        assert dict(mapping) == dict(enumerate(pids))
        assert sorted(line.get(timeout=SOON) for _ in range(6)) == list(range(6))
        assert dict(pool.submit(tasks.echo, mapping).result()) == dict(enumerate(pids))
        del lock, mapping, line


def test_an_event_loop_wakes_for_each_of_many(pools: Pools) -> None:
    pool = pools.bounded(8, 2)

    async def main() -> set[int]:
        loop = asyncio.get_running_loop()
        found = set()
        for number in range(0, 400, 4):
            calls = [loop.run_in_executor(pool, tasks.echo, number + more) for more in range(4)]
            found.update([await done for done in asyncio.as_completed(calls)])
        return found

    assert asyncio.run(main(), debug=True) == set(range(400))


def test_it_is_what_libraries_ask_for() -> None:
    assert issubclass(weirpool.ProcessPoolExecutor, Executor)
