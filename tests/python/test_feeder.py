"""Feeder: many producers, one place that submits, a bound that holds, an end that loses nothing."""

import concurrent.futures as cf
import itertools
import pickle
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
import tasks
from executors import KINDS, ByHand
from support import Gate, Pools, Threads, in_forked_child, wait_until

import weirpool
from weirpool import Feeder, _feeder

EXECUTORS: dict[str, Callable[[], Any]] = {
    "standard threads": lambda: cf.ThreadPoolExecutor(2),
    "standard processes": lambda: cf.ProcessPoolExecutor(2),
    "unbounded": lambda: KINDS["weirpool"](None),
    "bounded": lambda: KINDS["weirpool"](2),
}


@pytest.fixture(params=list(EXECUTORS))
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    with EXECUTORS[request.param]() as made:
        yield made


class Attempts:
    """Fails so often for each item, then succeeds. For threads."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.made: Counter[Any] = Counter()

    def __call__(self, item: Any) -> Any:
        self.made[item] += 1
        if self.made[item] <= self.failures:
            raise tasks.OddError(item)
        return item


def add_up(feeder: Any) -> None:
    stats = feeder.stats()
    assert stats.accepted == stats.succeeded + stats.failed + stats.outstanding
    assert stats.failed == len(feeder.failures)


# ---- What it is for ------------------------------------------------------------------------------


def test_every_item_of_every_producer_is_done_once(executor: Any, threads: Threads) -> None:
    results: list[tuple[int, int]] = []
    with Feeder(executor, tasks.square, maxsize=3, on_result=lambda *pair: results.append(pair)) as feeder:
        for start in range(0, 200, 20):
            threads.start(lambda start=start: [feeder.put(n) for n in range(start, start + 20)])
        threads.join()
    assert not threads.errors
    assert sorted(results) == [(n, n * n) for n in range(200)]
    stats = feeder.stats()
    assert (stats.accepted, stats.succeeded, stats.failed, stats.outstanding) == (200, 200, 0, 0)
    assert stats.peak_outstanding <= 3
    assert stats.admitted_over_bound == 0
    assert stats.blocked_producers == 0


def test_the_bound_counts_what_is_outstanding(threads: Threads) -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, maxsize=3)
    for number in range(8):
        threads.start(feeder.put, number)
        wait_until(lambda number=number: sum(_in_sight(feeder)) == number + 1, "it came")
    assert len(by_hand.futures) == 3
    assert feeder.stats().blocked_producers == 5
    threads.start(by_hand.run)
    wait_until(lambda: len(by_hand.futures) == 4, "the next one is submitted")
    assert by_hand.calls[-1] == (3,), "first come, first served"
    threads.start(_run_until, by_hand, 8)
    threads.join()
    assert [args[0] for args in by_hand.calls] == list(range(8))
    assert feeder.stats().peak_outstanding == 3
    assert feeder.stats().blocked_seconds > 0
    add_up(feeder)


def _in_sight(feeder: Any) -> tuple[int, int]:
    stats = feeder.stats()
    return stats.accepted, stats.blocked_producers


def _run_until(by_hand: ByHand, count: int) -> None:
    wait_until(lambda: by_hand.waiting and not by_hand.run() and len(by_hand.calls) == count, "all were submitted")
    by_hand.run_all()


def test_only_the_producer_waits_for_an_executor_that_is_bounded_itself(
    pools: Pools, gate: Gate, threads: Threads
) -> None:
    pool = pools.bounded(2)
    feeder = Feeder(pool, tasks.apply, maxsize=4)
    for _ in range(3):
        threads.start(feeder.put, (tasks.hold, gate.folder))
    wait_until(lambda: pool.stats().blocked_producers == 1, "one waits in submit()")
    assert feeder.stats().accepted == 2
    assert feeder.stats().outstanding == 3
    gate.open()
    feeder.close()
    threads.join()
    assert feeder.stats().succeeded == 3


# ---- Arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("maxsize", [0, -1, False, None, 1.5, "4"])
def test_bad_sizes(maxsize: Any) -> None:
    with pytest.raises(ValueError, match="maxsize must be True or a positive int"):
        Feeder(ByHand(), tasks.echo, maxsize=maxsize)


@pytest.mark.parametrize("retries", [-1, True, None, 1.5, "4"])
def test_bad_retries(retries: Any) -> None:
    with pytest.raises(ValueError, match="retries must be an int >= 0"):
        Feeder(ByHand(), tasks.echo, retries=retries)


@pytest.mark.parametrize("timeout", [-1, -0.1, True, float("nan"), "1"])
def test_bad_timeouts(timeout: Any) -> None:
    feeder = Feeder(ByHand(), tasks.echo)
    with pytest.raises(ValueError, match="timeout must be None or a number of seconds, 0 or more"):
        feeder.put(1, timeout)
    assert feeder.stats().accepted == 0


class Known(cf.Executor):
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Client:
    def nthreads(self) -> dict[str, int]:
        return {"one": 4, "two": 2}


@pytest.mark.parametrize(
    ("other", "workers"),
    [
        (Known(_max_workers=3), 3),
        (Known(max_workers=4), 4),
        (Known(num_workers=5), 5),
        (Known(_max_workers=None, num_workers=5), 5),
        (Known(_client=Client()), 6),
        (ByHand(workers=7), 7),
    ],
)
def test_true_is_twice_the_workers(other: Any, workers: int) -> None:
    assert Feeder(other, tasks.echo)._maxsize == 2 * workers


@pytest.mark.parametrize("other", [Known(), Known(_max_workers=0), Known(_max_workers=True), Known(_client=None)])
def test_an_executor_that_does_not_tell_its_workers(other: Any) -> None:
    with pytest.raises(ValueError, match="give it a number"):
        Feeder(other, tasks.echo)
    Feeder(other, tasks.echo, maxsize=4)


# ---- Waiting -------------------------------------------------------------------------------------


def test_a_timeout(threads: Threads) -> None:
    feeder = Feeder(ByHand(), tasks.echo, maxsize=1)
    feeder.put(0)
    for timeout in (0, 0.0, 0.02):
        with pytest.raises(weirpool.SubmitTimeout):
            feeder.put(1, timeout)
    stats = feeder.stats()
    assert (stats.accepted, stats.outstanding, stats.blocked_producers) == (1, 1, 0)
    assert stats.blocked_seconds >= 0.02


def test_a_timeout_of_one_does_not_cost_the_turn_of_others(threads: Threads) -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, maxsize=1)
    feeder.put(0)
    threads.start(feeder.put, 1, 0.05)
    wait_until(lambda: feeder.stats().blocked_producers == 1, "it waits")
    threads.start(feeder.put, 2)
    wait_until(lambda: threads.errors, "the first gives up")
    threads.start(by_hand.run)
    threads.join()
    assert by_hand.calls == [(0,), (2,)]


def test_an_endless_timeout(threads: Threads) -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, maxsize=1)
    feeder.put(0)
    threads.start(feeder.put, 1, float("inf"))
    wait_until(lambda: feeder.stats().blocked_producers == 1, "it waits")
    threads.start(by_hand.run)
    threads.join()
    assert not threads.errors


class InterruptedByTestError(BaseException):
    """As Ctrl-C."""


def test_a_signal_handler_that_raises_while_it_waits(threads: Threads) -> None:
    def handler(*_: Any) -> None:
        raise InterruptedByTestError

    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, maxsize=1)
    feeder.put(0)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(InterruptedByTestError):
                feeder.put("interrupted")
    finally:
        signal.signal(signal.SIGALRM, before)
    stats = feeder.stats()
    assert (stats.accepted, stats.outstanding, stats.blocked_producers) == (1, 1, 0)
    threads.start(feeder.put, 1)
    wait_until(lambda: feeder.stats().blocked_producers == 1, "it waits")
    threads.start(by_hand.run)
    threads.join()
    assert by_hand.calls == [(0,), (1,)]


@pytest.mark.race
def test_signal_handlers_that_raise_anywhere_in_put_lose_no_room() -> None:
    """Anywhere in the feeder's own code: standard executors cannot stand it in theirs."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)

    def handler(_: int, frame: Any) -> None:
        if frame.f_code.co_filename == _feeder.__file__:
            raise InterruptedByTestError

    done: Counter[int] = Counter()
    put: list[int] = []
    interrupted = 0
    before = signal.signal(signal.SIGALRM, handler)
    with cf.ThreadPoolExecutor(2) as pool:
        feeder = Feeder(pool, tasks.echo, maxsize=2, on_result=lambda item, _: done.update([item]))
        try:
            for number in range(2000):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-4))
                try:
                    feeder.put(number)
                    put.append(number)
                except InterruptedByTestError:
                    interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, before)
        feeder.close()
    stats = feeder.stats()
    print("interrupted", interrupted)
    assert stats.outstanding == 0
    assert stats.accepted == stats.succeeded + stats.failed
    failed = [failure.item for failure in feeder.failures]
    assert set(put) <= {*done, *failed}, "what was put was done"
    assert all(count == 1 for count in done.values()), "and once"
    assert stats.peak_outstanding <= 2


# ---- Failures and retries ------------------------------------------------------------------------


def test_failures_item_by_item(executor: Any) -> None:
    calls = [(tasks.echo, 1), (tasks.fail_with, tasks.OddError, "two"), (tasks.echo, 3), (tasks.fail_with, KeyError, 4)]
    with Feeder(executor, tasks.apply) as feeder:
        for call in calls:
            feeder.put(call)
    failed = {failure.item: failure for failure in feeder.failures}
    assert set(failed) == {calls[1], calls[3]}
    assert isinstance(failed[calls[1]].exception, tasks.OddError)
    assert isinstance(failed[calls[3]].exception, KeyError)
    assert [failure.attempts for failure in feeder.failures] == [1, 1]
    item, exception, attempts = feeder.failures[0]
    assert (item, attempts) in {(calls[1], 1), (calls[3], 1)}
    assert isinstance(pickle.loads(pickle.dumps(exception)), type(exception))
    assert feeder.stats().succeeded == 2
    add_up(feeder)


@pytest.mark.parametrize(("retries", "fails", "ok"), [(0, 0, True), (0, 1, False), (3, 3, True), (3, 4, False)])
def test_retries(retries: int, fails: int, ok: bool) -> None:
    fn = Attempts(fails)
    with cf.ThreadPoolExecutor(3) as pool, Feeder(pool, fn, retries=retries, maxsize=4) as feeder:
        for number in range(30):
            feeder.put(number)
    attempts = min(fails, retries) + 1
    assert fn.made == dict.fromkeys(range(30), attempts)
    assert feeder.stats().retried == 30 * (attempts - 1)
    assert feeder.stats().succeeded == (30 if ok else 0)
    assert [failure.attempts for failure in feeder.failures] == ([] if ok else [attempts] * 30)
    assert feeder.stats().peak_outstanding <= 4
    add_up(feeder)


def test_retries_on_a_full_bounded_pool(pools: Pools, threads: Threads) -> None:
    """They are submitted by the thread that delivers, which must not wait for room."""
    pool = pools.bounded(2)
    with Feeder(pool, tasks.apply, maxsize=6, retries=2) as feeder:
        for _ in range(5):
            threads.start(lambda: [feeder.put((tasks.fail_with, tasks.OddError, n)) for n in range(10)])
        threads.join()
    assert not threads.errors
    assert [failure.attempts for failure in feeder.failures] == [3] * 50
    assert feeder.stats().retried == 100


def test_an_item_being_retried_keeps_its_room(threads: Threads) -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.fail_with, maxsize=1, retries=1)
    feeder.put(tasks.OddError)
    threads.start(feeder.put, KeyError)
    wait_until(lambda: feeder.stats().blocked_producers == 1, "the second waits")
    threads.start(by_hand.run).join()
    assert by_hand.calls == [(tasks.OddError,)] * 2
    threads.start(by_hand.run).join()
    wait_until(lambda: len(by_hand.calls) == 3, "now it is the turn of the second")
    threads.join()
    add_up(feeder)


def test_cancelled_items_are_failures_and_not_retried() -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, retries=5, maxsize=4)
    feeder.put(1)
    by_hand.futures[0].cancel()
    (failure,) = feeder.failures
    assert (failure.item, failure.attempts) == (1, 1)
    assert isinstance(failure.exception, cf.CancelledError)
    feeder.put(2)
    assert feeder.stats().outstanding == 1


def test_a_retry_that_is_refused_is_a_failure() -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.fail_with, retries=5, maxsize=4)
    feeder.put(tasks.OddError)
    by_hand.refuse = 1
    by_hand.run()
    (failure,) = feeder.failures
    assert isinstance(failure.exception, tasks.OddError)
    assert failure.attempts == 1
    assert any("RejectedSubmission" in note for note in failure.exception.__notes__)
    assert feeder.stats().retried == 0
    add_up(feeder)


def test_a_put_that_is_refused_gives_its_room_back() -> None:
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, maxsize=1)
    by_hand.refuse = 1
    with pytest.raises(weirpool.RejectedSubmission):
        feeder.put(1)
    assert feeder.stats().accepted == 0
    feeder.put(2)
    assert by_hand.calls == [(2,)]


# ---- on_result, and feeders that feed themselves -------------------------------------------------


def test_on_result_that_raises_makes_a_failure_that_is_not_tried_again(executor: Any) -> None:
    def on_result(item: int, _: int) -> None:
        if item == 3:
            raise tasks.OddError(item)

    with Feeder(executor, tasks.square, retries=5, on_result=on_result) as feeder:
        for number in range(6):
            feeder.put(number)
    ((item, error, attempts),) = feeder.failures
    assert (item, error.args, attempts) == (3, (3,), 1)
    assert feeder.stats().succeeded == 5
    add_up(feeder)


def test_on_result_that_exits_harms_nobody(executor: Any) -> None:
    def on_result(item: int, _: int) -> None:
        if item == 0:
            raise SystemExit

    feeder = Feeder(executor, tasks.square, maxsize=2, on_result=on_result)
    for number in range(10):
        feeder.put(number)
    feeder.close()
    assert feeder.stats().succeeded == 9
    assert isinstance(feeder.failures[0].exception, SystemExit)


def test_a_feeder_that_feeds_itself_from_on_result(executor: Any) -> None:
    """At maxsize 1, one item becomes 2 ** 7 - 1."""
    ended = threading.Event()
    count = itertools.count(1)

    def on_result(item: int, result: int) -> None:
        assert item == result
        if item < 64:
            feeder.put(2 * item)
            feeder.put(2 * item + 1)
        if next(count) == 127:
            ended.set()

    feeder = Feeder(executor, tasks.echo, maxsize=1, on_result=on_result)
    feeder.put(1)
    assert ended.wait(60)
    feeder.close()
    assert feeder.stats().succeeded == 127
    assert feeder.stats().admitted_over_bound == 126
    assert feeder.failures == ()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("wrap", [lambda pool: pool, lambda pool: weirpool.bounded(pool, 8)], ids=["bare", "bounded"])
def test_the_first_task_of_a_thread_may_feed_its_own_feeder(wrap: Callable[[Any], Any]) -> None:
    """The thread may not be known yet as one of the pool's."""

    def feed_itself() -> None:
        with wrap(cf.ThreadPoolExecutor(1)) as pool:
            feeder = Feeder(pool, lambda item: item and feeder.put(item - 1), maxsize=1)
            feeder.put(3)
            wait_until(lambda: feeder.stats().succeeded == 4, "all are done")

    for _ in range(50):
        feed_itself()


def test_tasks_in_threads_that_feed_their_own_feeder() -> None:
    """All the threads of the pool would wait for each other."""

    def fn(item: int) -> None:
        if item < 64:
            feeder.put(2 * item)
            feeder.put(2 * item + 1)

    with cf.ThreadPoolExecutor(2) as pool:
        feeder = Feeder(pool, fn, maxsize=2)
        feeder.put(1)
        wait_until(lambda: feeder.stats().succeeded == 127, "all are done")
        feeder.close()
    assert feeder.stats().admitted_over_bound > 0


def test_a_callback_of_another_task_that_puts(executor: Any) -> None:
    """It is run by the thread that delivers, which may never have delivered an item of the feeder before."""
    put = threading.Event()
    feeder = Feeder(executor, tasks.nap, maxsize=1)

    def callback(_: Any) -> None:
        for _ in range(3):
            feeder.put(0.0)
        put.set()

    other = executor.submit(tasks.nap, 0.2)
    other.add_done_callback(callback)
    feeder.put(0.0)
    assert put.wait(60)
    feeder.close()
    assert feeder.stats().succeeded == 4


def test_who_cancels_is_no_deliverer(threads: Threads) -> None:
    """It may wait afterwards like everybody."""
    by_hand = ByHand()
    feeder = Feeder(by_hand, tasks.echo, maxsize=1)
    feeder.put(1)
    by_hand.futures[0].cancel()
    feeder.put(2)
    with pytest.raises(weirpool.SubmitTimeout):
        feeder.put(3, 0)


def test_who_puts_what_ends_at_once_is_no_deliverer() -> None:
    by_hand = ByHand()
    by_hand.at_once = True
    feeder = Feeder(by_hand, tasks.echo, maxsize=1)
    feeder.put(1)
    by_hand.at_once = False
    feeder.put(2)
    with pytest.raises(weirpool.SubmitTimeout):
        feeder.put(3, 0)
    assert feeder.stats().succeeded == 1


# ---- The end -------------------------------------------------------------------------------------


def test_close_waits_for_what_was_accepted_and_accepts_no_more(pools: Pools, gate: Gate, threads: Threads) -> None:
    feeder = Feeder(pools.unbounded(2), tasks.apply, maxsize=2)
    for _ in range(2):
        feeder.put((tasks.hold, gate.folder))
    for _ in range(3):
        threads.start(feeder.put, (tasks.hold, gate.folder))
    wait_until(lambda: feeder.stats().blocked_producers == 3, "three wait")
    closing = threads.start(feeder.close)
    wait_until(lambda: len(threads.errors) == 3, "those that wait are turned away")
    assert {str(error) for error in threads.errors} == {"cannot put into a feeder that was closed"}
    assert closing.is_alive()
    gate.open()
    threads.join()
    assert feeder.stats().succeeded == 2
    with pytest.raises(RuntimeError, match=r"^cannot put into a feeder that was closed$"):
        feeder.put((tasks.nothing,))
    feeder.close()


def test_close_from_on_result_does_not_wait_for_itself(executor: Any) -> None:
    feeder = Feeder(executor, tasks.echo, on_result=lambda *_: feeder.close())
    feeder.put(1)
    feeder.close()
    assert feeder.stats().succeeded == 1


def test_the_executor_is_shut_down_under_blocked_producers(executor: Any, gate: Gate, threads: Threads) -> None:
    feeder = Feeder(executor, tasks.apply, maxsize=2, retries=3)
    for _ in range(2):
        feeder.put((tasks.hold, gate.folder))
    gate.wait_started(2)
    for _ in range(5):
        threads.start(feeder.put, (tasks.nothing,))
    wait_until(lambda: feeder.stats().blocked_producers == 5, "five wait")
    executor.shutdown(wait=False)
    gate.open()
    threads.join()
    assert [type(error) for error in threads.errors] == [RuntimeError] * 5
    assert all("cannot schedule new futures after shutdown" in str(error) for error in threads.errors)
    feeder.close()
    assert feeder.stats().succeeded == 2
    add_up(feeder)


@pytest.mark.parametrize("name", ["standard processes", "unbounded", "bounded"])
def test_the_executor_breaks_under_blocked_producers(name: str, gate: Gate, threads: Threads) -> None:
    """What was not finished is in failures, and every producer is told why."""
    with EXECUTORS[name]() as broken:
        feeder = Feeder(broken, tasks.apply, maxsize=2, retries=3)
        feeder.put((tasks.hold, gate.folder))
        gate.wait_started(1)
        feeder.put((tasks.nap, 0.3))
        for _ in range(5):
            threads.start(feeder.put, (tasks.nothing,))
        wait_until(lambda: feeder.stats().blocked_producers == 5, "five wait")
        next(iter(broken._processes.values())).kill()
        threads.join()
        feeder.close()
    told = [error for error in threads.errors if isinstance(error, BrokenProcessPool)]
    assert len(told) == len(threads.errors)
    stats = feeder.stats()
    assert stats.accepted + len(told) == 7, "each was accepted or refused"
    assert stats.accepted == stats.succeeded + stats.failed
    assert {failure.attempts for failure in feeder.failures} == {1}
    assert {type(failure.exception) for failure in feeder.failures} == {BrokenProcessPool}


def test_cancelling_at_shutdown_puts_what_had_not_started_into_failures(gate: Gate) -> None:
    with cf.ThreadPoolExecutor(1) as pool:
        feeder = Feeder(pool, tasks.apply, maxsize=5)
        for _ in range(5):
            feeder.put((tasks.hold, gate.folder))
        gate.wait_started(1)
        pool.shutdown(wait=False, cancel_futures=True)
        assert [type(failure.exception) for failure in feeder.failures] == [cf.CancelledError] * 4
        gate.open()
        feeder.close()
        assert feeder.stats().succeeded == 1


def test_in_a_forked_child_it_raises(pools: Pools) -> None:
    feeder = Feeder(pools.bounded(2), tasks.echo)
    for use in (lambda: feeder.put(1), feeder.close, feeder.stats, lambda: feeder.failures):
        assert "cannot be used in a forked child" in in_forked_child(use)


def test_it_keeps_no_item_that_succeeded(executor: Any) -> None:
    import gc
    import weakref

    with Feeder(executor, tasks.nothing_with) as feeder:
        item = tasks.Box()
        alive = weakref.ref(item)
        feeder.put(item)
        del item
    wait_until(lambda: gc.collect() is None or alive() is None, "nobody holds it")


@pytest.mark.race
def test_producers_timeouts_failures_and_the_end_at_once(executor: Any, threads: Threads) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    feeder = Feeder(executor, tasks.apply, maxsize=3, retries=1)
    outcomes: Counter[str] = Counter()
    plans = [[(rng.random(), rng.random()) for _ in range(30)] for _ in range(8)]

    def produce(plan: list[tuple[float, float]]) -> None:
        for fails, waits in plan:
            call = (tasks.fail_with, tasks.OddError) if fails < 0.2 else (tasks.nap, 0.0005)
            try:
                feeder.put(call, None if waits < 0.5 else waits * 0.002)
                outcomes["accepted"] += 1
            except weirpool.SubmitTimeout:
                outcomes["late"] += 1
            except RuntimeError:
                outcomes["closed"] += 1

    for plan in plans:
        threads.start(produce, plan)
    time.sleep(rng.uniform(0, 0.1))
    feeder.close()
    assert feeder.stats().outstanding == 0
    threads.join()
    assert not threads.errors
    stats = feeder.stats()
    assert sum(outcomes.values()) == 240
    assert stats.accepted == outcomes["accepted"] == stats.succeeded + stats.failed
    assert stats.peak_outstanding <= 3
