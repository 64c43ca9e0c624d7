"""Constructing a pool: what is accepted, what is refused and with which words, what help() shows."""

import concurrent.futures
import inspect
import multiprocessing
import os
import pydoc
import warnings
from typing import Any

import pytest
import tasks
from support import Pools, descendants, show

import weirpool

CLASSES = [weirpool.ProcessPoolExecutor, weirpool.BoundedProcessPoolExecutor]
STANDARD = ["max_workers", "mp_context", "initializer", "initargs", "max_tasks_per_child"]
BAD_BOUND = "max_queue_size must be None, True, or a positive int"


class Eight:
    """Would be 8 if it were converted."""

    def __index__(self) -> int:
        return 8

    __int__ = __index__


@pytest.mark.parametrize("cls", CLASSES)
def test_both_are_executors(cls: type) -> None:
    assert issubclass(cls, concurrent.futures.Executor)
    assert issubclass(cls, weirpool.ProcessPoolExecutor)


def test_signature_is_the_standard_one() -> None:
    mine = inspect.signature(weirpool.ProcessPoolExecutor).parameters
    standard = inspect.signature(concurrent.futures.ProcessPoolExecutor).parameters
    assert list(mine)[:5] == STANDARD
    for name in STANDARD:
        assert (mine[name].kind, mine[name].default) == (standard[name].kind, standard[name].default), name


def test_first_parameter_of_the_bounded_pool_is_the_bound() -> None:
    first = next(iter(inspect.signature(weirpool.BoundedProcessPoolExecutor).parameters.values()))
    assert first.name == "max_queue_size"
    assert first.default is None
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def submit(self, fn, /, *args, **kwargs): ...  # type: ignore[no-untyped-def]
def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None): ...  # type: ignore[no-untyped-def]  # noqa: A001
def shutdown(self, wait=True, *, cancel_futures=False): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize("expected", [submit, map, shutdown])
@pytest.mark.parametrize("cls", CLASSES)
def test_signatures_of_methods(cls: type, expected: Any) -> None:
    def shape(method: Any) -> list[Any]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()][1:]

    assert shape(getattr(cls, expected.__name__)) == shape(expected)


@pytest.mark.parametrize("cls", CLASSES)
def test_help_shows_every_parameter(cls: type) -> None:
    text = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    names = [
        *STANDARD,
        "pickler",
        "on_worker_death",
        "max_worker_memory",
        "timeout",
        "chunksize",
        "buffersize",
        "cancel_futures",
    ]
    if cls is weirpool.BoundedProcessPoolExecutor:
        names.append("max_queue_size")
    assert [name for name in names if name not in text] == []


def test_max_workers_defaults_to_the_cores_that_the_standard_pool_takes() -> None:
    count = getattr(os, "process_cpu_count", os.cpu_count)
    assert weirpool.ProcessPoolExecutor()._max_workers == count()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -3}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 7}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        (
            {"max_tasks_per_child": 2, "mp_context": multiprocessing.get_context("fork")},
            ValueError,
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
            "supply a different mp_context.",
        ),
    ],
)
def test_bad_arguments_are_refused_in_the_standard_words(
    cls: type, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        cls(**options)
    assert str(caught.value) == message


def test_max_tasks_per_child_alone_chooses_spawn() -> None:
    assert weirpool.ProcessPoolExecutor(1, max_tasks_per_child=3)._mp_context.get_start_method() == "spawn"


def test_the_default_start_method_is_the_interpreters() -> None:
    expected = multiprocessing.get_context().get_start_method()
    assert weirpool.ProcessPoolExecutor(1)._mp_context.get_start_method() == expected


@pytest.mark.parametrize("cls", CLASSES)
def test_constructing_starts_nothing(cls: type) -> None:
    before = descendants(os.getpid())
    pool = cls(max_workers=2)
    assert descendants(os.getpid()) == before
    pool.shutdown()


@pytest.mark.parametrize("bound", [None, True, 1, 16])
def test_good_bounds_work(pools: Pools, bound: int | bool | None) -> None:
    pool = pools.bounded(bound, workers=1)
    assert [pool.submit(tasks.square, number).result() for number in range(5)] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("bound", [False, 0, -1, 1.5, 8.0, "8", "True", b"8", [8], float("inf"), Eight()], ids=show)
def test_bad_bounds_are_refused_and_start_nothing(bound: Any) -> None:
    before = descendants(os.getpid())
    with pytest.raises(ValueError) as caught:
        weirpool.BoundedProcessPoolExecutor(bound, 2)
    assert str(caught.value) == BAD_BOUND
    assert descendants(os.getpid()) == before


@pytest.mark.parametrize("name", ["int64", "bool_", "float64"])
def test_numpy_numbers_are_no_bounds(name: str) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(ValueError) as caught:
        weirpool.BoundedProcessPoolExecutor(getattr(numpy, name)(8), 2)
    assert str(caught.value) == BAD_BOUND


def test_what_follows_the_bound_is_the_standard_constructors(pools: Pools) -> None:
    fork = multiprocessing.get_context("fork")
    pool = pools.keep(weirpool.BoundedProcessPoolExecutor(4, 1, fork, tasks.initialize, ("told",)))
    assert pool._max_workers == 1
    assert pool.submit(tasks.initialized).result() == "told"


def test_a_bound_below_the_workers_warns_once_at_the_callers_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        weirpool.BoundedProcessPoolExecutor(3, 4)
    assert [(one.category, one.filename) for one in caught] == [(RuntimeWarning, __file__)]


@pytest.mark.parametrize("bound", [None, True, 4, 5])
def test_other_bounds_do_not_warn(bound: int | bool | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weirpool.BoundedProcessPoolExecutor(bound, 4)


def test_a_subclass_can_add_its_own(pools: Pools) -> None:
    class Named(weirpool.BoundedProcessPoolExecutor):
        def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.name = name

    pool = pools.keep(Named("mine", 2, max_workers=1))
    assert pool.name == "mine"
    assert pool.submit(tasks.square, 3).result() == 9
