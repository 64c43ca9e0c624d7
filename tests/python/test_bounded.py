"""The weir before other executors."""

import concurrent.futures as cf
import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import Gate, Script, Threads, in_forked_child, show, wait_until

import weirpool
from weirpool import RejectedSubmission, SubmitTimeout, bounded
from weirpool._bounded import BoundedExecutor
from weirpool._gated import Ticket

KINDS: dict[str, Callable[[int], cf.Executor]] = {
    "threads": cf.ThreadPoolExecutor,
    "processes": cf.ProcessPoolExecutor,
    "our threads": weirpool.ThreadPoolExecutor,
    "our processes": weirpool.ProcessPoolExecutor,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[[int], cf.Executor]:
    return KINDS[request.param]


@pytest.fixture
def make(kind: Callable[[int], cf.Executor]) -> Iterator[Callable[..., BoundedExecutor]]:
    made: list[BoundedExecutor] = []

    def start(size: Any = True, workers: int = 1, **options: Any) -> BoundedExecutor:
        made.append(bounded(kind(workers), size, **options))
        return made[-1]

    yield start
    for pool in made:
        pool.shutdown()
        eventually(lambda pool=pool: is_idle(pool))


@pytest.fixture
def gate(make: object, tmp_path: Any) -> Iterator[Gate]:
    """Torn down before the executors, so that they can end."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()


def eventually(condition: Callable[[], object]) -> None:
    wait_until(condition, "the executor to get there")


def is_idle(pool: BoundedExecutor) -> bool:
    stats = pool.stats()
    return stats.outstanding == stats.waiting == stats.running == stats.blocked_producers == 0


Make = Callable[..., BoundedExecutor]
POLICIES: list[dict[str, Any]] = [{}, {"block_on_submit": False}, {"submit_timeout": 0}]


# ---- bounds, timeouts, policies ----


def test_blocks_and_goes_on(make: Make, gate: Gate, threads: Threads) -> None:
    pool = make(2)
    for _ in range(2):
        pool.submit(tasks.hold, gate.folder)
    threads.start(lambda: pool.submit(abs, -3).result())
    eventually(lambda: pool.stats().blocked_producers == 1)
    assert pool.stats().outstanding == 2
    gate.open()
    assert threads.join() == [3]
    eventually(lambda: is_idle(pool))
    assert pool.stats().completed == 3


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_times_out(make: Make, gate: Gate, timeout: float) -> None:
    pool = make(1, submit_timeout=timeout)
    pool.submit(tasks.hold, gate.folder)
    began = time.monotonic()
    with pytest.raises(SubmitTimeout, match="submit_timeout"):
        pool.submit(abs, -1)
    assert time.monotonic() - began >= timeout
    gate.open()
    eventually(lambda: is_idle(pool))
    assert pool.submit(abs, -1).result() == 1
    assert pool.stats().rejected == 1


def test_rejects(make: Make, gate: Gate) -> None:
    pool = make(1, block_on_submit=False)
    pool.submit(tasks.hold, gate.folder)
    with pytest.raises(RejectedSubmission, match="block_on_submit=False"):
        pool.submit(abs, -1)
    gate.open()
    eventually(lambda: is_idle(pool))
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("policy", POLICIES[1:], ids=str)
def test_without_a_bound_nothing_is_refused(make: Make, policy: dict[str, Any]) -> None:
    pool = make(None, **policy)
    assert [future.result() for future in [pool.submit(abs, -n) for n in range(200)]] == list(range(200))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_callback_that_submits_ten_at_bound_two(make: Make, gate: Gate, policy: dict[str, Any]) -> None:
    pool = make(2, **policy)
    children: list[cf.Future[int]] = []
    first = pool.submit(tasks.hold, gate.folder)
    first.add_done_callback(lambda _: children.extend(pool.submit(abs, -number) for number in range(10)))
    gate.open()
    eventually(lambda: len(children) == 10)
    assert [child.result() for child in children] == list(range(10))
    assert pool.stats().admitted_over_bound > 0


def test_who_cancels_still_waits_at_the_gate(make: Make, gate: Gate, threads: Threads) -> None:
    """Its thread has seen a permit return, and delivers nothing for all that."""
    pool = make(5)
    for _ in range(4):
        pool.submit(tasks.hold, gate.folder)

    def cancel_and_submit() -> int:
        assert pool.submit(abs, -1).cancel()
        pool.submit(tasks.hold, gate.folder)
        return pool.submit(abs, -2).result()

    threads.start(cancel_and_submit)
    eventually(lambda: pool.stats().blocked_producers == 1)
    gate.open()
    assert threads.join() == [2]
    assert pool.stats().admitted_over_bound == 0


def test_counts(make: Make) -> None:
    pool = make(4)
    assert pool.submit(abs, -1).result() == 1
    assert isinstance(pool.submit(abs, "x").exception(), TypeError)  # type: ignore[arg-type]
    eventually(lambda: is_idle(pool))
    stats = pool.stats()
    assert stats.engine == type(pool._inner).__name__
    assert (stats.bound, stats.submitted, stats.finished, stats.completed, stats.failed) == (4, 2, 2, 1, 1)


def test_tickets_for_who_does_not_wait(make: Make, gate: Gate) -> None:
    pool = make(1)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        assert isinstance(pool._submit_soon(tasks.hold, (gate.folder,), {}, bell), cf.Future)
        os.eventfd_read(bell)
        left, dropped, kept = (pool._submit_soon(abs, (-number,), {}, bell) for number in range(3))
        assert pool.stats().blocked_producers == 3
        assert isinstance(left, Ticket)
        assert left.poll() is None
        left.leave()
        del dropped
        assert pool.stats().blocked_producers == 1
        with pytest.raises(BlockingIOError):
            os.eventfd_read(bell)
        gate.open()
        eventually(lambda: select.select([bell], [], [], 0)[0])
        assert isinstance(kept, Ticket)
        future = kept.poll()
        assert future is not None
        assert future.result() == 2
        eventually(lambda: is_idle(pool))
    finally:
        os.close(bell)


def test_tickets_end_with_the_executor(make: Make, gate: Gate) -> None:
    pool = make(1)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        pool.submit(tasks.hold, gate.folder)
        tickets = [pool._submit_soon(abs, (-1,), {}, bell) for _ in range(2)]
        pool.shutdown(wait=False)
        for ticket in tickets:
            assert isinstance(ticket, Ticket)
            with pytest.raises(RuntimeError, match="after shutdown"):
                ticket.poll()
            ticket.leave()
    finally:
        os.close(bell)


# ---- order, and load ----


def test_first_come_first_served(gate: Gate, make: Make, threads: Threads, tmp_path: Path) -> None:
    pool = make(1)
    pool.submit(tasks.hold, gate.folder)
    path = tmp_path / "log"
    for number in range(10):
        threads.start(pool.submit, tasks.log, str(path), number)
        eventually(lambda number=number: pool.stats().blocked_producers == number + 1)
    gate.open()
    for future in threads.join():
        future.result(60)
    assert path.read_text().split() == [str(number) for number in range(10)]


@pytest.mark.race
def test_many_producers(make: Make, threads: Threads) -> None:
    pool = make(3, workers=2)
    for _ in range(8):
        threads.start(lambda: [pool.submit(abs, -n).result() for n in range(50)])
    assert threads.join() == [list(range(50))] * 8
    assert pool.stats().peak_outstanding <= 3


def test_map_is_lazy_and_exact(make: Make) -> None:
    pool = make(3)
    submitted = 0

    def numbers() -> Iterator[int]:
        nonlocal submitted
        for number in itertools.count():
            submitted += 1
            yield number

    for yielded, result in enumerate(itertools.islice(pool.map(abs, numbers()), 50)):
        assert result == yielded
        assert submitted - yielded <= 3


def test_map_beside_submit_with_rivals(make: Make, threads: Threads) -> None:
    pool = make(2, workers=2)
    for _ in range(5):
        threads.start(lambda: [pool.submit(abs, -n).result() for n in range(20)])
    for number in pool.map(abs, range(20)):
        pool.submit(abs, number)
    threads.join()


# ---- errors and ends ----


def test_a_submit_that_raises_returns_its_permit(make: Make) -> None:
    pool = make(1)
    pool._inner.shutdown()
    for _ in range(5):
        with pytest.raises(RuntimeError):
            pool.submit(abs, -1)
    assert is_idle(pool)


def test_shutdown_wakes_who_waits(make: Make, gate: Gate, threads: Threads) -> None:
    pool = make(1)
    pool.submit(tasks.hold, gate.folder)
    for _ in range(12):
        threads.start(pool.submit, abs, -1)
    eventually(lambda: pool.stats().blocked_producers == 12)
    pool.shutdown(wait=False)
    threads.join()
    assert [str(error) for error in threads.errors] == ["cannot schedule new futures after shutdown"] * 12


def test_shutdown_waits_and_can_cancel(make: Make, gate: Gate, threads: Threads) -> None:
    pool = make(20)
    futures = [pool.submit(tasks.hold, gate.folder) for _ in range(20)]
    gate.wait_started(1)
    threads.start(pool.shutdown, wait=True, cancel_futures=True)
    eventually(lambda: futures[-1].cancelled())
    gate.open()
    threads.join()
    assert all(future.done() for future in futures)
    assert pool.stats().cancelled == sum(future.cancelled() for future in futures)


@pytest.mark.parametrize("kind", [cf.ProcessPoolExecutor, weirpool.ProcessPoolExecutor])
def test_a_broken_pool_wakes_who_waits(kind: Any, make: Make, gate: Gate, threads: Threads) -> None:
    pool = make(1)
    pool.submit(tasks.hold, gate.folder)
    gate.wait_started(1)
    for _ in range(12):
        threads.start(pool.submit, abs, -1)
    eventually(lambda: pool.stats().blocked_producers == 12)
    os.kill(next(iter(pool._inner._processes)), 9)  # type: ignore[attr-defined]
    threads.join()
    assert [type(error) for error in threads.errors] == [cf.process.BrokenProcessPool] * 12
    with pytest.raises(cf.process.BrokenProcessPool):
        pool.submit(abs, -1)
    assert is_idle(pool)


@pytest.mark.parametrize("kind", [cf.ProcessPoolExecutor])
def test_a_callback_of_a_broken_pool_may_submit(kind: Any, make: Make, gate: Gate, threads: Threads) -> None:
    """Where the pool breaks it holds a lock that its own submit() takes."""
    pool = make(2)
    errors: list[BaseException] = []

    def submit(_: object) -> None:
        try:
            pool.submit(abs, -1)
        except BaseException as error:
            errors.append(error)

    held = pool.submit(tasks.hold, gate.folder)
    held.add_done_callback(submit)
    gate.wait_started(1)
    os.kill(next(iter(pool._inner._processes)), 9)  # type: ignore[attr-defined]
    eventually(lambda: errors)
    assert [type(error) for error in errors] == [cf.process.BrokenProcessPool]


def test_a_forked_child_is_refused(make: Make) -> None:
    pool = make(2)
    pool.submit(abs, -1).result()
    assert "forked child" in in_forked_child(lambda: pool.submit(abs, -1))
    assert "forked child" in in_forked_child(pool.shutdown)
    assert pool.submit(abs, -1).result() == 1


def test_as_a_context_manager(kind: Callable[[int], cf.Executor]) -> None:
    with bounded(kind(1), 2) as pool:
        future = pool.submit(abs, -1)
    assert future.done()
    with pytest.raises(RuntimeError):
        pool._inner.submit(abs, -1)


@pytest.mark.parametrize("inner", ["cf.ThreadPoolExecutor(1)", "cf.ProcessPoolExecutor(1)"])
def test_ctrl_c_and_exit_while_blocked(script: Callable[..., Script], tmp_path: Any, inner: str) -> None:
    running = script(f"""
        import concurrent.futures as cf
        os.mkdir("gate")
        pool = weirpool.bounded({inner}, 1)
        pool.submit(tasks.hold, "gate")
        say("blocking")
        try:
            pool.submit(abs, -1)
        except KeyboardInterrupt:
            say(pool.stats().blocked_producers, pool.stats().outstanding)

        def produce():
            try:
                pool.submit(abs, -1)
            except RuntimeError as error:
                say(error)
                open("gate/open", "w").close()

        threading.Thread(target=produce).start()
        soon(lambda: pool.stats().blocked_producers == 1, "the producer waits")
    """)
    assert running.line() == "blocking"
    time.sleep(0.1)  # what it does not wait for may come earlier, and is noticed all the same
    running.interrupt()
    assert running.line() == "0 1"
    assert running.finish() == ["cannot schedule new futures after shutdown"]


# ---- who must not wait ----


class Inline(cf.Executor):
    """Runs a task where it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        future: cf.Future[Any] = cf.Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_a_submission_within_another() -> None:
    pool = bounded(Inline(), 1)
    assert pool.submit(lambda: pool.submit(abs, -1).result()).result() == 1
    assert pool.stats().admitted_over_bound == 1
    assert is_idle(pool)


@pytest.mark.parametrize("kind", [cf.ThreadPoolExecutor, weirpool.ThreadPoolExecutor])
def test_a_task_that_submits_to_its_own_full_threads(kind: Any, make: Make) -> None:
    for _ in range(20):
        pool = make(1)
        futures = pool.submit(lambda pool=pool: [pool.submit(abs, -number) for number in range(10)]).result()
        assert [future.result() for future in futures] == list(range(10))


class Manual(cf.Executor):
    """Its tasks are ended by hand, in a thread of its own."""

    def __init__(self) -> None:
        self.futures: list[cf.Future[Any]] = []
        self.given: list[dict[str, Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        self.futures.append(cf.Future())
        return self.futures[-1]

    def shutdown(self, wait: bool = True) -> None:  # type: ignore[override]
        self.given.append({"wait": wait})


def test_a_thread_that_was_seen_delivering_does_not_wait(threads: Threads) -> None:
    inner = Manual()
    pool = bounded(inner, 1)
    pool.submit(abs, -1)

    def deliver() -> None:
        inner.futures[0].set_result(1)
        for _ in range(3):
            pool.submit(abs, -1)

    threads.start(deliver)
    threads.join()
    assert not threads.errors
    assert (pool.stats().outstanding, pool.stats().admitted_over_bound) == (3, 2)


def test_shutdown_passes_on_what_the_executor_knows() -> None:
    inner = Manual()
    pool = bounded(inner, 3)
    futures = [pool.submit(abs, -1) for _ in range(3)]
    futures[0].set_running_or_notify_cancel()
    pool.shutdown(wait=False, cancel_futures=True)
    assert inner.given == [{"wait": False}]
    assert [future.cancelled() for future in futures] == [False, True, True]
    assert pool.stats().outstanding == 1
    futures[0].set_result(1)
    assert is_idle(pool)


def test_what_is_dropped_returns_its_permit() -> None:
    inner = Manual()
    pool = bounded(inner, 1)
    pool.submit(abs, -1)
    inner.futures.clear()  # it will never end
    assert is_idle(pool)


# ---- arguments ----


class Sized(cf.Executor):
    def __init__(self, **sizes: Any) -> None:
        self.__dict__.update(sizes)


@pytest.mark.parametrize("name", ["_max_workers", "max_workers", "num_workers"])
def test_workers_by_their_usual_names(name: str) -> None:
    assert bounded(Sized(**{name: 3})).stats().bound == 6


def test_workers_as_an_argument() -> None:
    assert bounded(Sized(_max_workers=3), workers=4).stats().bound == 8
    assert bounded(Sized(), workers=lambda: 5).stats().bound == 10


class Client:
    def __init__(self, threads: dict[str, int]) -> None:
        self.nthreads = lambda: threads


def test_workers_of_dask() -> None:
    assert bounded(Sized(_client=Client({"a": 2, "b": 3}), _kwargs={"pure": False})).stats().bound == 10
    with pytest.raises(ValueError, match="wait for them"):
        bounded(Sized(_client=Client({}), _kwargs={"pure": False}))
    with pytest.warns(RuntimeWarning, match="pure=False"):
        bounded(Sized(_client=Client({"a": 2}), _kwargs={}))


@pytest.mark.parametrize("sizes", [{}, {"_max_workers": None}, {"num_workers": 0}], ids=str)
def test_unknown_workers(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pass workers="):
        bounded(Sized(**sizes))
    assert bounded(Sized(**sizes), 7).stats().bound == 7


WRONG: list[dict[str, Any]] = [
    {"max_queue_size": 0},
    {"max_queue_size": False},
    {"max_queue_size": 1.5},
    {"max_queue_size": "8"},
    {"workers": 0},
    {"workers": True},
    {"workers": 1.5},
    {"workers": lambda: -1},
    {"submit_timeout": -1},
    {"submit_timeout": True},
    {"submit_timeout": 1, "block_on_submit": False},
]


@pytest.mark.parametrize("wrong", WRONG, ids=show)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join(wrong)):
        bounded(Sized(_max_workers=1), **wrong)


def test_a_bound_below_the_workers_warns() -> None:
    with pytest.warns(RuntimeWarning, match="max_queue_size=2 is less than the 4 workers") as caught:
        bounded(Sized(max_workers=4), 2)
    assert caught[0].filename == __file__


def test_it_can_be_collected_while_its_futures_are_kept() -> None:
    import gc
    import weakref

    inner = Manual()
    pool = bounded(inner, 3)
    future = pool.submit(abs, -1)
    future.set_result(1)
    ref = weakref.ref(pool)
    del pool
    gc.collect()
    assert ref() is None


def test_threads_are_not_mistaken_for_others(threads: Threads) -> None:
    """A new thread may have the number of one that has ended and that delivered."""
    inner = Manual()
    pool = bounded(inner, 1, submit_timeout=0)
    pool.submit(abs, -1)
    courier = threading.Thread(target=lambda: inner.futures[0].set_result(1))
    courier.start()
    courier.join()
    pool.submit(abs, -1)
    for _ in range(5):
        threads.start(pool.submit, abs, -1)
        threads.join()
    assert [type(error) for error in threads.errors] == [SubmitTimeout] * 5
