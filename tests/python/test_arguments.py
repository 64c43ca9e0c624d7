"""Wrong arguments: an error at once, of the right kind, that says what to do."""

import asyncio
import concurrent.futures as cf
import functools
import math
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

import weirpool
from weirpool import Feeder, advise, bounded

NOT_INTS = [True, False, "2", 2.0, [2]]
NO_EXECUTORS = [None, 5, "x", abs, multiprocessing]


@pytest.fixture(scope="module", params=["processes", "threads", "bounded"])
def pool(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Any = {
        "processes": lambda: weirpool.ProcessPoolExecutor(1),
        "threads": lambda: weirpool.ThreadPoolExecutor(1),
        "bounded": lambda: bounded(cf.ThreadPoolExecutor(1), 4),
    }[request.param]()
    with made:
        yield made


@pytest.mark.parametrize("workers", NOT_INTS, ids=repr)
@pytest.mark.parametrize(
    "executor",
    [
        weirpool.ProcessPoolExecutor,
        functools.partial(weirpool.BoundedProcessPoolExecutor, 2),
        weirpool.ThreadPoolExecutor,
        functools.partial(weirpool.BoundedThreadPoolExecutor, 2),
    ],
)
def test_numbers_of_workers(executor: Any, workers: Any) -> None:
    with pytest.raises(TypeError, match="max_workers must be an int, not"):
        executor(workers)


@pytest.mark.parametrize("what", NO_EXECUTORS, ids=repr)
def test_what_is_no_executor(what: Any) -> None:
    with pytest.raises(TypeError, match=r"bounded\(\) takes an executor"):
        bounded(what)
    with pytest.raises(TypeError, match=r"Feeder\(\) takes an executor"):
        Feeder(what, abs)


def test_a_class_instead_of_an_executor() -> None:
    with pytest.raises(TypeError, match=r"not a class: make one, ThreadPoolExecutor\(\.\.\.\)"):
        bounded(cf.ThreadPoolExecutor)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not a class: make one, ThreadPoolExecutor\(\.\.\.\)"):
        Feeder(cf.ThreadPoolExecutor, abs)  # type: ignore[arg-type]


def test_a_client_of_dask_instead_of_its_executor() -> None:
    class Client:
        submit = shutdown = get_executor = abs

    with pytest.raises(TypeError, match=r"not a Client: pass its get_executor\(pure=False\)"):
        bounded(Client())  # type: ignore[arg-type]


def test_whatever_looks_like_an_executor_is_taken() -> None:
    class Executor:
        def __init__(self, inner: cf.Executor) -> None:
            self.submit, self.shutdown = inner.submit, inner.shutdown

    with bounded(Executor(cf.ThreadPoolExecutor(1)), 2) as pool:  # type: ignore[arg-type]
        assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("fn", [None, "abs", 5])
def test_what_a_feeder_cannot_call(fn: Any) -> None:
    with cf.ThreadPoolExecutor(1) as pool:
        with pytest.raises(TypeError, match="fn must be callable"):
            Feeder(pool, fn)
        if fn is not None:
            with pytest.raises(TypeError, match="on_result must be callable"):
                Feeder(pool, abs, on_result=fn)


@pytest.mark.parametrize("method", ["map", "map_unordered"])
@pytest.mark.parametrize("name", ["chunksize", "buffersize"])
@pytest.mark.parametrize("size", [True, False, 2.5, [2]], ids=repr)
def test_sizes_of_maps(pool: Any, method: str, name: str, size: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be an int"):
        getattr(pool, method)(abs, [1], **{name: size})


@pytest.mark.parametrize("size", [True, False, "2", 2.5], ids=repr)
def test_sizes_of_amap_and_as_completed(pool: Any, size: Any) -> None:
    with pytest.raises(TypeError, match="buffersize must be an int"):
        pool.amap(abs, [1], buffersize=size)
    with pytest.raises(TypeError, match="buffersize must be an int"):
        weirpool.as_completed([], buffersize=size)


@pytest.mark.parametrize("timeout", [math.nan, True, False], ids=repr)
def test_timeouts_of_iterators(pool: Any, timeout: Any) -> None:
    for start in (pool.map, pool.map_unordered):
        with pytest.raises(ValueError, match="timeout must be None or a number of seconds"):
            start(abs, [1], timeout=timeout)
    with pytest.raises(ValueError, match="timeout must be None or a number of seconds"):
        weirpool.as_completed([], timeout=timeout)


def test_a_negative_timeout_of_an_iterator_is_over_as_in_the_standard_library(pool: Any) -> None:
    never: cf.Future[Any] = cf.Future()
    with pytest.raises(TimeoutError):
        next(weirpool.as_completed([never], timeout=-1))


def test_what_as_completed_cannot_wait_for() -> None:
    with pytest.raises(TypeError, match=r"as_completed\(\) takes futures of executors, not 5"):
        weirpool.as_completed([5])  # type: ignore[list-item]
    lazy = weirpool.as_completed(iter([5]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"as_completed\(\) takes futures of executors, not 5"):
        next(lazy)


def test_futures_of_asyncio_belong_to_its_own_function() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(TypeError, match=r"asyncio\.as_completed"):
            weirpool.as_completed([loop.create_future()])  # type: ignore[list-item]
    finally:
        loop.close()


@pytest.mark.parametrize("name", ["run_p50", "run_p95", "refill_lag"])
@pytest.mark.parametrize("value", [True, "1", [1]], ids=repr)
def test_advice_takes_numbers_of_seconds(name: str, value: Any) -> None:
    given: dict[str, Any] = {"run_p50": 0.1, "run_p95": 2.0, "workers": 2, "refill_lag": 0.0, name: value}
    with pytest.raises(TypeError, match=f"{name} must be a number of seconds, not"):
        advise(**given)


@pytest.mark.parametrize("workers", NOT_INTS, ids=repr)
def test_advice_takes_a_number_of_workers(workers: Any) -> None:
    with pytest.raises(TypeError, match="workers must be an int, not"):
        advise(run_p50=1.0, run_p95=1.0, workers=workers)
