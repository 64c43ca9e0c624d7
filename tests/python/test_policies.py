"""What bounds tasks beside their number, and what submit() does where there is no room."""

import itertools
import math
import multiprocessing as mp
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from unittest import mock

import pytest
from support import wait_until

from weirpool import (
    AUTO_BACKLOG,
    BoundedProcessPoolExecutor,
    ProcessPoolExecutor,
    RejectedSubmission,
    SubmitTimeout,
)
from weirpool._crew import Crew

MB = 1_000_000


def eventually(condition: Callable[[], object]) -> None:
    wait_until(condition, "the pool to get there")


def wait_for(path: str) -> None:
    """Run until the file is there."""
    import os

    while not os.path.exists(path):
        time.sleep(0.001)


class Dam:
    """Tasks that run until it opens."""

    def __init__(self, path: str) -> None:
        self.path = path

    def fill(self, pool: ProcessPoolExecutor, count: int) -> list[Future[None]]:
        return [pool.submit(wait_for, self.path) for _ in range(count)]

    def open(self) -> None:
        with open(self.path, "w"):
            pass


@pytest.fixture
def dam(tmp_path: Any) -> Iterator[Dam]:
    dam = Dam(str(tmp_path / "open"))
    yield dam
    dam.open()


def length(data: bytes) -> int:
    return len(data)


def hold(path: str, data: bytes) -> None:
    wait_for(path)


def started(pool: ProcessPoolExecutor, count: int) -> None:
    eventually(lambda: pool.stats().running == count)


# ---- not-started tasks ----


@pytest.mark.parametrize("size", [1, 3, True])
def test_backlog_counts_what_has_not_started(dam: Dam, size: Any) -> None:
    room = 4 if size is True else size
    with ProcessPoolExecutor(2, max_submit_backlog=size, block_on_submit=False) as pool:
        futures: list[Future[None]] = []
        while len(futures) < 2:  # refused as long as the first has not been started
            try:
                futures += dam.fill(pool, 1)
            except RejectedSubmission:
                time.sleep(0.001)
        started(pool, 2)
        futures += dam.fill(pool, room)
        with pytest.raises(RejectedSubmission):
            dam.fill(pool, 1)
        stats = pool.stats()
        assert (stats.outstanding, stats.waiting, stats.running) == (2 + room, room, 2)
        assert stats.rejected >= 1
        dam.open()
        assert [future.result() for future in futures] == [None] * (2 + room)


def test_a_start_makes_room(dam: Dam) -> None:
    """The producer is woken when a task is started, not when one ends."""
    with ProcessPoolExecutor(2, max_submit_backlog=1) as pool:
        for _ in range(3):  # the third waits until the second has been started
            dam.fill(pool, 1)
        producer = threading.Thread(target=dam.fill, args=(pool, 1))
        producer.start()
        eventually(lambda: pool.stats().blocked_producers == 1)
        dam.open()
        producer.join()


def test_all_workers_come_behind_a_short_backlog(dam: Dam) -> None:
    with ProcessPoolExecutor(4, max_submit_backlog=1) as pool:
        dam.fill(pool, 5)
        started(pool, 4)
        assert len(pool.stats().workers) == 4
        dam.open()


def test_cancelling_makes_room_in_the_backlog(dam: Dam) -> None:
    with ProcessPoolExecutor(1, max_submit_backlog=1, block_on_submit=False) as pool:
        dam.fill(pool, 1)
        started(pool, 1)
        (waiting,) = dam.fill(pool, 1)
        with pytest.raises(RejectedSubmission):
            dam.fill(pool, 1)
        assert waiting.cancel()
        dam.fill(pool, 1)
        dam.open()


def test_a_worker_that_cannot_be_started_costs_no_task_that_waited(dam: Dam) -> None:
    """A second worker is missing when the task that waited is published: the first one runs it."""
    with ProcessPoolExecutor(2, mp.get_context("forkserver"), max_submit_backlog=1) as pool:
        dam.fill(pool, 1)
        with mock.patch.object(Crew, "_start", side_effect=OSError("no more processes")):
            waited = pool.submit(abs, -1)
        dam.open()
        assert waited.result() == 1
        pool._check()


@pytest.mark.race
def test_backlog_under_load() -> None:
    with ProcessPoolExecutor(2, max_submit_backlog=1) as pool:
        results: list[Future[int]] = []

        def produce() -> None:
            for number in range(200):
                results.append(pool.submit(abs, -number))

        producers = [threading.Thread(target=produce) for _ in range(8)]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        assert sorted(future.result() for future in results) == sorted(list(range(200)) * 8)
        pool._check()


# ---- bytes ----


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_never_more_bytes_than_the_bound(kind: Callable[[bytes], Any]) -> None:
    peaks = {"held": 0, "segment": 0}
    done = threading.Event()
    item = bytes(40 * MB)
    with ProcessPoolExecutor(4, max_bytes=100 * MB) as pool:

        def watch() -> None:
            while not done.is_set():
                stats = pool.stats()
                peaks["held"] = max(peaks["held"], stats.bytes_held)
                peaks["segment"] = max(peaks["segment"], stats.segment_bytes)
                time.sleep(0.001)

        futures: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()
        numbers = iter(range(50))

        def produce() -> None:
            for _ in numbers:
                futures.put(pool.submit(length, kind(item)))

        watcher = threading.Thread(target=watch)
        producers = [threading.Thread(target=produce) for _ in range(20)]
        for thread in [watcher, *producers]:
            thread.start()
        for thread in producers:
            thread.join()
        assert [futures.get().result() for _ in range(50)] == [40 * MB] * 50
        done.set()
        watcher.join()
        pool._check()
        assert 40 * MB < peaks["held"] <= 100 * MB
        assert peaks["segment"] < 110 * MB  # with the tables and the rings
        assert pool.stats().bytes_held == 0


def test_what_is_larger_than_the_bound_runs_alone(dam: Dam) -> None:
    with ProcessPoolExecutor(2, max_bytes=10 * MB) as pool:
        small = pool.submit(wait_for, dam.path)
        large: list[int] = []
        producer = threading.Thread(target=lambda: large.append(pool.submit(length, bytes(30 * MB)).result()))
        producer.start()
        eventually(lambda: pool.stats().blocked_producers == 1)
        assert large == []
        dam.open()
        producer.join()
        assert large == [30 * MB]
        small.result()
        assert pool.stats().bytes_held == 0


def test_the_bytes_of_what_is_larger_than_the_bound_are_told(dam: Dam) -> None:
    with ProcessPoolExecutor(1, max_bytes=10 * MB) as pool:
        future = pool.submit(hold, dam.path, bytes(30 * MB))
        assert 30 * MB <= pool.stats().bytes_held < 31 * MB
        dam.open()
        future.result()
        assert pool.stats().bytes_held == 0


def test_light_tasks_do_not_keep_a_heavy_one_out() -> None:
    stop = threading.Event()
    with ProcessPoolExecutor(2, max_bytes=MB) as pool:

        def produce() -> None:
            while not stop.is_set():
                pool.submit(length, bytes(30_000)).result()

        producers = [threading.Thread(target=produce) for _ in range(8)]
        for producer in producers:
            producer.start()
        try:
            for _ in range(5):
                assert pool.submit(length, bytes(2 * MB)).result() == 2 * MB
        finally:
            stop.set()
            for producer in producers:
                producer.join()
        pool._check()


@pytest.mark.parametrize("size", [1000, 200_000])
def test_no_bytes_left_and_no_patience(dam: Dam, size: int) -> None:
    with ProcessPoolExecutor(1, max_bytes=size, submit_backlog_timeout=0) as pool:
        dam.fill(pool, 1)
        with pytest.raises(SubmitTimeout):
            pool.submit(length, bytes(size))
        assert pool.stats().outstanding == 1
        dam.open()
        eventually(lambda: pool.stats().outstanding == 0)
        assert pool.submit(length, bytes(size)).result() == size
        pool._check()


class Unpicklable:
    def __init__(self, size: int) -> None:
        self.data = bytes(size)

    def __reduce__(self) -> Any:
        raise ValueError("not me")


def test_a_task_that_cannot_be_pickled_returns_its_bytes() -> None:
    with ProcessPoolExecutor(1, max_bytes=MB, max_submit_backlog=1) as pool:
        for _ in range(5):
            with pytest.raises(ValueError, match="not me"):
                pool.submit(length, Unpicklable(10)).result()  # type: ignore[arg-type]
        assert pool.submit(length, bytes(2 * MB)).result() == 2 * MB
        assert pool.stats().bytes_held == 0
        pool._check()


class Shrinking:
    """Its pickle is large the first time, and small when it is made again."""

    def __init__(self) -> None:
        self.pickled = 0

    def __reduce__(self) -> Any:
        self.pickled += 1
        return bytes, (bytes(8 * MB if self.pickled == 1 else 100_000),)


def test_a_task_that_shrank_leaves_its_room_to_others(tmp_path: Any) -> None:
    first, others = Dam(str(tmp_path / "first")), Dam(str(tmp_path / "others"))
    with ProcessPoolExecutor(2, max_bytes=10 * MB) as pool:
        pool.submit(hold, first.path, bytes(9 * MB))
        threads = [
            threading.Thread(target=pool.submit, args=(hold, others.path, data))
            for data in (Shrinking(), bytes(5 * MB))
        ]
        for count, thread in enumerate(threads):
            thread.start()
            eventually(lambda count=count: pool.stats().blocked_producers == count + 1)
        first.open()
        threads[0].join()
        try:
            pool._check()
        finally:
            others.open()
            threads[1].join()


# ---- each combination of bound, timeout and policy ----

BOUNDS: dict[str, dict[str, Any]] = {
    "tasks": {"max_queue_size": 1},
    "backlog": {"max_submit_backlog": 1},
    "bytes": {"max_bytes": 1},
    "all": {"max_queue_size": 2, "max_submit_backlog": 1, "max_bytes": 1},
}


@pytest.fixture(params=BOUNDS)
def bounds(request: pytest.FixtureRequest) -> dict[str, Any]:
    return BOUNDS[request.param]


def fill_up(pool: ProcessPoolExecutor, dam: Dam, bounds: dict[str, Any]) -> None:
    """Afterwards there is no room."""
    dam.fill(pool, 1)
    started(pool, 1)
    if bounds.keys() == {"max_submit_backlog"}:
        dam.fill(pool, 1)


def test_blocks(dam: Dam, bounds: dict[str, Any]) -> None:
    with BoundedProcessPoolExecutor(**{"max_workers": 1, **bounds}) as pool:
        fill_up(pool, dam, bounds)
        producer = threading.Thread(target=dam.fill, args=(pool, 1))
        producer.start()
        eventually(lambda: pool.stats().blocked_producers == 1)
        dam.open()
        producer.join()
        assert pool.stats().rejected == 0
        pool._check()


def test_a_signal_handler_that_submits_does_not_wait_for_what_it_interrupts(
    script: Callable[..., Any], tmp_path: Any, bounds: dict[str, Any]
) -> None:
    """The turn of the submission below comes while the handler runs, and nobody can use its permit meanwhile."""
    script(
        """
        bounds, folder = eval(sys.argv[1]), sys.argv[2]
        os.mkdir(folder)
        inner = []
        with weirpool.BoundedProcessPoolExecutor(**{"max_workers": 1, **bounds}) as pool:
            pool.submit(tasks.hold, folder)
            soon(lambda: pool.stats().running == 1, "the first task starts")
            if bounds.keys() == {"max_submit_backlog"}:
                pool.submit(tasks.hold, folder)

            def submit(*_):
                open(folder + "/open", "w").close()
                inner.append(pool.submit(len, bytes(500_000)))

            def interrupt():
                soon(lambda: pool.stats().blocked_producers == 1, "the main thread waits")
                os.kill(os.getpid(), signal.SIGUSR1)

            signal.signal(signal.SIGUSR1, submit)
            thread = threading.Thread(target=interrupt)
            thread.start()
            outer = pool.submit(len, bytes(800_000))
            thread.join()
            assert [outer.result(), inner[0].result()] == [800_000, 500_000]
            pool._check()
        """,
        repr(bounds),
        tmp_path / "gate",
    ).finish(20)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("timeout", [0, 0.02])
def test_times_out(dam: Dam, bounds: dict[str, Any], timeout: float, size: int) -> None:
    with BoundedProcessPoolExecutor(**{"max_workers": 1, "submit_backlog_timeout": timeout, **bounds}) as pool:
        while True:  # where the first task's start has yet to make room
            try:
                fill_up(pool, dam, bounds)
                break
            except SubmitTimeout:
                pass
        began = time.monotonic()
        with pytest.raises(SubmitTimeout, match="submit again later") as caught:
            pool.submit(length, bytes(size))
        assert time.monotonic() - began >= timeout
        assert isinstance(caught.value, TimeoutError)
        stats = pool.stats()
        assert stats.blocked_producers == 0
        assert stats.rejected >= 1
        dam.open()
        eventually(lambda: pool.stats().outstanding == 0)
        assert pool.submit(length, bytes(size)).result() == size  # no permit was lost
        pool._check()


@pytest.mark.parametrize("size", [10, 100_000])
def test_rejects(dam: Dam, bounds: dict[str, Any], size: int) -> None:
    with BoundedProcessPoolExecutor(**{"max_workers": 1, "block_on_submit": False, **bounds}) as pool:
        fill_up(pool, dam, bounds)
        with pytest.raises(RejectedSubmission, match="block_on_submit=False") as caught:
            pool.submit(length, bytes(size))
        assert isinstance(caught.value, queue.Full)
        assert not isinstance(caught.value, TimeoutError)
        dam.open()
        eventually(lambda: pool.stats().outstanding == 0)
        assert pool.submit(length, bytes(size)).result() == size
        pool._check()


@pytest.mark.parametrize("policy", [{}, {"block_on_submit": False}, {"submit_backlog_timeout": 0}])
def test_a_callback_is_admitted_over_every_bound(bounds: dict[str, Any], policy: dict[str, Any]) -> None:
    with BoundedProcessPoolExecutor(**{"max_workers": 1, **bounds, **policy}) as pool:
        children: list[Future[int]] = []
        first = pool.submit(abs, -1)
        first.add_done_callback(lambda _: children.extend(pool.submit(abs, -number) for number in range(10)))
        eventually(lambda: len(children) == 10)
        assert [child.result() for child in children] == list(range(10))
        pool._check()


@pytest.mark.parametrize("policy", [{"block_on_submit": False}, {"submit_backlog_timeout": 0}])
def test_without_a_bound_nothing_is_refused(policy: dict[str, Any]) -> None:
    with ProcessPoolExecutor(1, **policy) as pool:
        assert [future.result() for future in [pool.submit(abs, -n) for n in range(500)]] == list(range(500))


@pytest.mark.parametrize("size", [10, 100_000])
def test_shutdown_wakes_who_waits(dam: Dam, bounds: dict[str, Any], size: int) -> None:
    pool = BoundedProcessPoolExecutor(**{"max_workers": 1, **bounds})
    fill_up(pool, dam, bounds)
    errors: list[BaseException] = []

    def produce() -> None:
        try:
            pool.submit(length, bytes(size))
        except BaseException as error:
            errors.append(error)

    producers = [threading.Thread(target=produce) for _ in range(5)]
    for producer in producers:
        producer.start()
    eventually(lambda: pool.stats().blocked_producers == 5)
    pool.shutdown(wait=False)
    for producer in producers:
        producer.join()
    assert [type(error) for error in errors] == [RuntimeError] * 5
    dam.open()
    pool.shutdown()


def test_map_is_lazy_behind_every_bound(bounds: dict[str, Any]) -> None:
    with BoundedProcessPoolExecutor(**{"max_workers": 1, **bounds}) as pool:
        assert list(itertools.islice(pool.map(abs, itertools.count()), 50)) == list(range(50))


# ---- arguments ----

WRONG: list[dict[str, Any]] = [
    {"max_submit_backlog": 0},
    {"max_submit_backlog": False},
    {"max_submit_backlog": 1.5},
    {"max_submit_backlog": "8"},
    {"max_bytes": 0},
    {"max_bytes": True},
    {"max_bytes": 1e9},
    {"submit_backlog_timeout": -1},
    {"submit_backlog_timeout": True},
    {"submit_backlog_timeout": math.nan},
    {"submit_backlog_timeout": "1"},
    {"submit_backlog_timeout": 1, "block_on_submit": False},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("executor", [ProcessPoolExecutor, BoundedProcessPoolExecutor])
def test_wrong_arguments(executor: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        executor(**wrong)


def test_block_on_submit_is_a_bool() -> None:
    with pytest.raises(TypeError, match="block_on_submit"):
        ProcessPoolExecutor(1, block_on_submit=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [math.inf, 10**30, 10**400])
def test_endless_timeouts(timeout: float) -> None:
    with ProcessPoolExecutor(1, max_submit_backlog=1, submit_backlog_timeout=timeout) as pool:
        assert [future.result() for future in [pool.submit(abs, -n) for n in range(20)]] == list(range(20))


def test_the_name_for_twice_the_workers() -> None:
    assert AUTO_BACKLOG is True


@pytest.mark.parametrize("error", [RejectedSubmission("full"), SubmitTimeout("late")])
def test_refusals_can_be_pickled(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.args == error.args
