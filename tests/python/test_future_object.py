"""The Future as an object. What the standard class can do as well is asked of both."""

import copy
import gc
import inspect
import logging
import pickle
import re
import signal
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError, as_completed, wait
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, RUNNING
from typing import Any, Protocol

import pytest
import tasks
from support import Gate, Pools, Threads, wait_until

SOON = 60.0
PUBLIC = [name for name in dir(Future) if not name.startswith("_")]


class Maker(Protocol):
    """Makes futures in a given state."""

    def pending(self) -> Any: ...
    def cancelled(self) -> Any: ...
    def returned(self, value: Any) -> Any: ...
    def raised(self, error: Exception) -> Any: ...


class Standard:
    def pending(self) -> Any:
        return Future()

    def cancelled(self) -> Any:
        future = self.pending()
        future.cancel()
        future.set_running_or_notify_cancel()  # as the manager of the standard pool does
        return future

    def returned(self, value: Any) -> Any:
        future = self.pending()
        future.set_result(value)
        return future

    def raised(self, error: Exception) -> Any:
        future = self.pending()
        future.set_exception(error)
        return future


class Weirpool:
    """One pool whose only worker is held, one that works."""

    def __init__(self, pools: Pools, gate: Gate) -> None:
        self._working, self._held = pools.unbounded(1), pools.unbounded(1)
        self._held.submit(tasks.hold, gate.folder)
        gate.wait_started(1)

    def pending(self) -> Any:
        return self._held.submit(tasks.nothing)

    def cancelled(self) -> Any:
        future = self.pending()
        future.cancel()
        return future

    def returned(self, value: Any) -> Any:
        return self._ended(self._working.submit(tasks.echo, value))

    def raised(self, error: Exception) -> Any:
        return self._ended(self._working.submit(tasks.fail, error))

    def _ended(self, future: Any) -> Any:
        wait([future], SOON)
        return future


@pytest.fixture(params=["standard", "weirpool"])
def make(request: pytest.FixtureRequest, pools: Pools, gate: Gate) -> Maker:
    return Standard() if request.param == "standard" else Weirpool(pools, gate)


@pytest.fixture
def ours(pools: Pools, gate: Gate) -> Maker:
    return Weirpool(pools, gate)


@pytest.fixture
def without_gc() -> Iterator[None]:
    """What is freed then is freed because nothing refers to it any more."""
    gc.disable()
    yield
    gc.enable()


# ---- The type ------------------------------------------------------------------------------------


def test_the_type(make: Maker) -> None:
    kind = type(make.pending())
    assert issubclass(kind, Future)
    assert (kind.__name__, kind.__qualname__) == ("Future", "Future")
    assert isinstance(kind[int], types.GenericAlias)
    assert (kind[int].__origin__, kind[int].__args__) == (kind, (int,))


def test_no_public_name_is_missing_or_new(ours: Maker) -> None:
    assert [name for name in dir(type(ours.pending())) if not name.startswith("_")] == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_methods_take_what_the_standard_ones_take(ours: Maker, name: str) -> None:
    def parameters(method: Callable[..., Any]) -> list[tuple[str, Any]]:
        """Without `self`, which one can pass by name in Python's functions only."""
        return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()][1:]

    method = getattr(type(ours.pending()), name)
    own = [("force", inspect.Parameter.KEYWORD_ONLY, False)] if name == "cancel" else []
    assert parameters(method) == parameters(getattr(Future, name)) + own
    assert inspect.getdoc(method)


def test_arguments_may_be_named(make: Maker) -> None:
    future = make.returned(5)
    seen: list[Any] = []
    future.add_done_callback(fn=seen.append)
    assert (future.result(timeout=1), future.exception(timeout=1), seen) == (5, None, [future])


def test_one_that_is_made_by_hand_is_ended_by_hand(make: Maker) -> None:
    """CPython's own tests of futures, which tests/conformance runs, look at more."""
    future: Any = type(make.pending())()
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    assert future.set_running_or_notify_cancel()
    assert future.running() and not future.cancel()
    future.set_result(5)
    assert (future.result(), future.exception(), seen) == (5, None, [future])
    cancelled: Any = type(future)()
    assert cancelled.cancel() and not cancelled.set_running_or_notify_cancel()
    with pytest.raises(CancelledError):
        cancelled.result()
    with pytest.raises(TypeError):
        type(future)(1)


# ---- Equality, repr ------------------------------------------------------------------------------


def test_a_future_equals_itself_only(make: Maker) -> None:
    one, other = make.returned(1), make.returned(1)
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2
    assert hash(one) == object.__hash__(one)


def test_repr(make: Maker) -> None:
    def text(future: Any, state: str) -> None:
        assert re.fullmatch(rf"<Future at 0x[0-9a-f]+ state={state}>", repr(future))
        assert str(future) == repr(future)

    text(make.pending(), "pending")
    text(make.cancelled(), "cancelled")
    text(make.returned(1), "finished returned int")
    text(make.returned(None), "finished returned NoneType")
    text(make.raised(tasks.OddError()), "finished raised OddError")


# ---- Copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [pickle.dumps, copy.deepcopy])
def test_a_future_cannot_travel(make: Maker, how: Callable[[Any], Any]) -> None:
    for future in (make.pending(), make.returned(1)):
        with pytest.raises(TypeError, match=r"cannot pickle '[\w.]+' object"):
            how(future)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_cannot_be_pickled_has_a_name(ours: Maker, protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot pickle 'Future' object"):
        pickle.dumps([ours.returned(1)], protocol)


def test_there_is_no_second_future_of_one_task(ours: Maker) -> None:
    """The standard class makes a copy that shares its lock and misses its result."""
    with pytest.raises(TypeError, match="cannot pickle 'Future' object"):
        copy.copy(ours.returned(1))


# ---- Attributes ----------------------------------------------------------------------------------


def test_attributes_of_the_users_own(make: Maker) -> None:
    future = make.pending()
    future.label = "mine"
    assert vars(future)["label"] == "mine"
    del future.label
    assert not hasattr(future, "label")
    future.result = lambda: "shadowed"  # as mocks do
    assert future.result() == "shadowed"


def test_private_names_can_be_set(make: Maker) -> None:
    future = make.pending()
    with future._condition:
        future._result, future._state = 3, FINISHED
    assert (future.done(), future.running(), future.cancelled(), future.result()) == (True, False, False, 3)
    error = tasks.OddError()
    with future._condition:
        future._exception = error
    assert future.exception() is error
    with future._condition:
        future._exception, future._state = None, CANCELLED_AND_NOTIFIED
    assert (future.done(), future.cancelled()) == (True, True)
    with pytest.raises(CancelledError):
        future.result()


def test_private_names_can_be_read(make: Maker) -> None:
    def outcome(future: Any) -> tuple[Any, Any, Any]:
        return future._state, future._result, type(future._exception)

    assert outcome(make.pending()) == ("PENDING", None, type(None))
    assert outcome(make.returned(1)) == ("FINISHED", 1, type(None))
    assert outcome(make.raised(tasks.OddError())) == ("FINISHED", None, tasks.OddError)
    assert outcome(make.cancelled()) == ("CANCELLED_AND_NOTIFIED", None, type(None))
    assert make.pending()._waiters == []


# ---- Ended by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["returned", "raised", "cancelled"])
def test_what_has_ended_is_not_ended_again(make: Maker, state: str) -> None:
    arguments = {"returned": (1,), "raised": (tasks.OddError(),), "cancelled": ()}[state]
    future = getattr(make, state)(*arguments)
    text = re.escape(f"{future._state}: {future!r}")
    with pytest.raises(InvalidStateError, match=f"^{text}$"):
        future.set_result(2)
    with pytest.raises(InvalidStateError, match=f"^{text}$"):
        future.set_exception(OSError())
    assert future.cancelled() or future._result in (1, None)


def test_a_pending_future_takes_a_result(make: Maker) -> None:
    future, seen = make.pending(), []
    for _ in range(2):
        future.add_done_callback(lambda done: seen.append(done.result()))
    future.set_result(9)
    future.add_done_callback(lambda done: seen.append("at once"))
    assert (future.result(), future.exception(), future.done(), future.cancel()) == (9, None, True, False)
    assert seen == [9, 9, "at once"]
    assert wait([future], 0).done == set(as_completed([future], 0)) == {future}


def test_a_pending_future_takes_an_exception(make: Maker) -> None:
    future, error = make.pending(), tasks.OddError()
    future.set_exception(error)
    assert future.exception() is error
    with pytest.raises(tasks.OddError):
        future.result()


def test_ending_by_hand_wakes_who_waits(make: Maker, threads: Threads) -> None:
    futures = [make.pending() for _ in range(3)]
    threads.start(futures[0].result)
    threads.start(lambda: wait([futures[1]], SOON).done.pop().result())
    threads.start(lambda: next(as_completed([futures[2]], SOON)).result())
    wait_until(lambda: all(future._waiters for future in futures[1:]), "the threads wait")
    for number, future in enumerate(futures):
        future.set_result(number)
    assert sorted(threads.join(30)) == [0, 1, 2]


def test_the_end_of_the_task_changes_nothing_that_was_set_by_hand(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    running = pool.submit(tasks.hold, gate.folder, "from the worker")
    gate.wait_started(1)
    futures: list[Any] = [running, *(pool.submit(tasks.nothing) for _ in range(5))]
    seen: list[Any] = []
    for future in futures:
        future.add_done_callback(seen.append)
        future.set_result("by hand")
    assert seen == futures
    gate.open()
    pool.shutdown()
    assert [future.result() for future in futures] == ["by hand"] * 6
    assert seen == futures, "each callback is called once"


def test_set_running_or_notify_cancel(make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    assert make.pending().set_running_or_notify_cancel() is True
    for future in (make.returned(1), make.raised(tasks.OddError()), make.cancelled()):
        with caplog.at_level(logging.CRITICAL), pytest.raises(RuntimeError, match="Future in unexpected state"):
            future.set_running_or_notify_cancel()
    assert "in unexpected state: CANCELLED_AND_NOTIFIED" in caplog.text
    caplog.clear()


def test_nobody_makes_a_task_run_by_saying_so(ours: Maker) -> None:
    future = ours.pending()
    future._state = RUNNING
    assert future.set_running_or_notify_cancel()
    assert (future.running(), future._state) == (False, "PENDING")
    assert future.cancel()


# ---- Weak references -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["returned", "raised", "cancelled"])
def test_weak_references_end_with_the_future(make: Maker, state: str, without_gc: None) -> None:
    arguments = {"returned": (1,), "raised": (tasks.OddError(),), "cancelled": ()}[state]
    future = getattr(make, state)(*arguments)
    ended: list[str] = []
    alive = weakref.ref(future, lambda _: ended.append("ref"))
    kept: weakref.WeakSet[Any] = weakref.WeakSet([future])
    labels: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary({future: "mine"})
    named: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary(mine=future)
    weakref.finalize(future, ended.append, "finalize")
    assert (alive() is future, future in kept, labels[future], named["mine"]) == (True, True, "mine", future)
    del future
    wait_until(lambda: alive() is None, "the future is freed")
    assert (len(kept), len(labels), len(named), sorted(ended)) == (0, 0, 0, ["finalize", "ref"])


def test_a_future_in_flight_stays_alive(pools: Pools, gate: Gate) -> None:
    pool = pools.unbounded(1)
    alive = weakref.ref(pool.submit(tasks.hold, gate.folder))
    gc.collect()
    assert alive() is not None
    gate.open()
    wait_until(lambda: alive() is None, "its end frees it")


# ---- Garbage -------------------------------------------------------------------------------------


def in_itself(future: Any) -> None:
    future.self = future


def in_a_callback(future: Any) -> None:
    future.add_done_callback(lambda _, keep=future: None)


def in_its_callbacks(future: Any) -> None:
    future._done_callbacks.append(lambda _, keep=future: None)


def in_its_result(future: Any) -> None:
    future.result().content = future.__dict__
    future.box = future.result()
    future.back = future


def in_its_waiters(future: Any) -> None:
    future._waiters.append(future)


@pytest.mark.parametrize("tie", [in_itself, in_a_callback, in_its_callbacks, in_its_result, in_its_waiters])
def test_a_cycle_is_garbage(make: Maker, tie: Callable[[Any], None]) -> None:
    future = make.returned(tasks.Box())
    tie(future)
    alive, box = weakref.ref(future), weakref.ref(future.result())
    del future
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the future is collected")
    assert box() is None


def test_a_cycle_through_the_exception_is_garbage(make: Maker) -> None:
    future = make.raised(tasks.OddError())
    future.exception().future = future
    alive = weakref.ref(future)
    del future
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the future is collected")


def test_a_raised_exception_does_not_tie_the_future(make: Maker, without_gc: None) -> None:
    """Its traceback holds the frames of result(), which refer to the future no more."""

    def ask(futures: list[Any]) -> None:
        with pytest.raises(tasks.OddError):
            futures.pop().result()

    futures = [make.raised(tasks.OddError())]
    alive = weakref.ref(futures[0])
    ask(futures)
    wait_until(lambda: alive() is None, "the future is freed")


def test_a_cycle_of_a_cancelled_future_is_garbage(make: Maker) -> None:
    future = make.pending()
    future.add_done_callback(lambda _, keep=future: None)
    future.cancel()
    alive = weakref.ref(future)
    del future
    wait_until(lambda: gc.collect() >= 0 and alive() is None, "the future is collected")


# ---- The condition, which the standard functions and some libraries use themselves ------------------


def test_the_condition_has_the_methods_of_the_standard_one(ours: Maker) -> None:
    standard = {name for name in dir(threading.Condition()) if not name.startswith("_")}
    assert standard - {"notifyAll"} <= set(dir(ours.pending()._condition))  # that one is deprecated since 3.10


def test_the_condition_is_a_lock_that_may_be_taken_twice(make: Maker, threads: Threads) -> None:
    condition = make.pending()._condition
    with condition:
        with condition:
            threads.start(condition.acquire, False)
            threads.start(condition.acquire, True, 0.01)
            assert threads.join() == [False, False]
        threads.start(condition.acquire, blocking=False)
        assert threads.join()[-1] is False
    assert condition.acquire(timeout=1) is True
    condition.release()
    with pytest.raises(RuntimeError):
        condition.release()


@pytest.mark.parametrize("method", ["wait", "notify", "notify_all"])
def test_the_condition_must_be_held(make: Maker, method: str) -> None:
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        getattr(make.pending()._condition, method)()


def test_who_waits_on_the_condition_is_told_of_the_end(make: Maker, threads: Threads) -> None:
    future = make.pending()

    def wait() -> bool:
        with future._condition:
            return bool(future._condition.wait_for(future.done, 60))

    for _ in range(3):
        threads.start(wait)
    with future._condition:
        assert future._condition.wait(timeout=0.01) is False
    future.set_result(1)
    assert threads.join() == [True] * 3


def test_ctrl_c_leaves_a_wait_with_the_lock(make: Maker, threads: Threads) -> None:
    condition = make.pending()._condition
    woken = threading.Event()

    def interrupt() -> None:
        with condition:
            condition.notify()
            woken.set()
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt), condition:
        threads.start(interrupt)
        condition.wait(60)
        woken.wait(60)
        time.sleep(1)
    assert not condition._is_owned()
    threads.join()


@pytest.mark.parametrize(("blocking", "timeout"), [(False, 1.0), (True, -5.0)])
def test_what_a_lock_refuses(make: Maker, blocking: bool, timeout: float) -> None:
    with pytest.raises(ValueError):
        make.pending()._condition.acquire(blocking, timeout)


def test_a_condition_can_be_referred_to_weakly(make: Maker) -> None:
    condition = make.pending()._condition
    assert weakref.ref(condition)() is condition


def test_nothing_breaks_when_the_condition_is_replaced(ours: Maker) -> None:
    future = ours.pending()
    with future._condition:
        pass
    future._own_condition = object()
    assert future.cancel()


def test_waiting_gives_a_lock_that_was_taken_twice_up(make: Maker, threads: Threads) -> None:
    future = make.pending()

    def end() -> None:
        with future._condition:
            future._condition.notify()

    with future._condition, future._condition:
        threads.start(end)
        assert future._condition.wait(60)
        assert future._condition._is_owned()
    threads.join()
