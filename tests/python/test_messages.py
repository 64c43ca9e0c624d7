"""What travels to a worker and back arrives as it was sent, whichever way it takes: pickled or not."""

import collections
import decimal
import enum
import gc
import importlib
import math
import operator
import os
import pickle
import sys
import types
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
import tasks
from support import PATIENCE, Pools

import weirpool


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


Point = collections.namedtuple("Point", "x y")


def nested(depth: int) -> tuple[Any, ...]:
    value: tuple[Any, ...] = ()
    for _ in range(depth):
        value = (value,)
    return value


VALUES: list[Any] = [
    None,
    True,
    False,
    *(sign * (2**bits + step) for sign in (1, -1) for bits in (0, 8, 31, 62, 63, 64, 200) for step in (-1, 0, 1)),
    *(0.0, -0.0, 1.5, math.inf, -math.inf, sys.float_info.min, sys.float_info.max, 5e-324),
    *("", "a", "text", "\0", "\x7f", "\x80", "é", "€uro", "\U0001f600", "\ud800"),
    *("x" * n for n in (100, 205, 206, 207, 208, 238, 239, 240, 254, 255, 256, 1000, 100_000)),
    *(b"", b"\0\xff", bytearray(b"abc")),
    *(b"x" * n for n in (205, 206, 207, 208, 238, 239, 240, 255, 256, 70_000)),
    *((), (1,), (1, "a", None, 2.5, b"b"), ((), ((),)), tuple(range(20)), tuple(range(30)), tuple(range(300))),
    *(nested(depth) for depth in (1, 50, 100, 110, 120, 130)),
    *([], [1], {}, {"a": 1}, {1, 2}, frozenset({1}), 1j, range(3), slice(1), decimal.Decimal("1.5")),
    *(Colour.RED, Text("a"), Point(1, 2), (Colour.RED, Text("a")), type, Colour, len, tasks.square, ValueError("a")),
]


@pytest.fixture(scope="module", autouse=True)  # before anything is counted that a test may leave behind
def pool() -> Iterator[weirpool.ProcessPoolExecutor]:
    with weirpool.ProcessPoolExecutor(1) as made:
        made.submit(tasks.nothing).result(PATIENCE)
        yield made


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all through."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and left == right
    return repr(left) == repr(right) if isinstance(left, (slice, Exception)) else bool(left == right)


@pytest.mark.parametrize("value", VALUES, ids=[f"{i}-{type(v).__name__}" for i, v in enumerate(VALUES)])
def test_values_there_and_back(pool: Any, value: Any) -> None:
    for sent in (value, (value, value)):
        assert same(pool.submit(tasks.echo, sent).result(PATIENCE), sent)
    assert same(pool.submit(tasks.everything, value, 1, key=value).result(PATIENCE), ((value, 1), {"key": value}))
    assert same(pool.submit(tasks.everything, value, value).result(PATIENCE), ((value, value), {}))


@pytest.mark.parametrize("size", [64 * 1024 - 100, 64 * 1024, 64 * 1024 + 1, 5_000_000])
def test_bytes_alone(pools: Pools, size: int) -> None:
    """Also where they have to wait for room, and whatever is beside them."""
    pool = pools.bounded(1, 1)
    data = os.urandom(1000) * (size // 1000) + bytes(size % 1000)
    futures: list[Any] = []
    for args in ((data,), (data, 1), (data,), (bytearray(data),), (memoryview(data).tobytes(),)):
        futures.append(pool.submit(tasks.everything, *args))
        assert same(futures[-1].result(PATIENCE), (args, {}))
    assert same(pool.submit(tasks.echo, data).result(PATIENCE), data)
    assert same(pool.submit(tasks.echo, value=data).result(PATIENCE), data)


def test_a_future_is_hidden_from_the_collector_until_somebody_looks(pool: Any) -> None:
    future = pool.submit(tasks.echo, 5)
    assert not gc.is_tracked(future)
    assert future.result(PATIENCE) == 5 and not gc.is_tracked(future)
    future.note = "mine"
    assert gc.is_tracked(future)
    for look in (vars, lambda f: f.add_done_callback(print), lambda f: f._condition, lambda f: f._waiters):
        other = pool.submit(tasks.nap, 0.05)
        look(other)
        assert gc.is_tracked(other)
        other.result(PATIENCE)
    container = pool.submit(tasks.echo, [1])
    assert container.result(PATIENCE) == [1] and gc.is_tracked(container)
    failed = pool.submit(tasks.fail, ValueError())
    assert failed.exception(PATIENCE) is not None and gc.is_tracked(failed)


def test_not_a_number_keeps_its_bits(pool: Any) -> None:
    assert math.isnan(pool.submit(tasks.echo, math.nan).result(PATIENCE))


def test_what_is_shared_stays_shared(pool: Any) -> None:
    shared: list[Any] = []
    (left, right), _ = pool.submit(tasks.everything, shared, (shared,)).result(PATIENCE)
    assert right[0] is left


def test_any_number_of_arguments(pool: Any) -> None:
    for count in (0, 1, 22, 23, 24, 25, 120, 255, 256, 1000):
        assert pool.submit(tasks.everything, *range(count)).result(PATIENCE) == (tuple(range(count)), {})


# ---- Functions are sent by their names ------------------------------------------------------------


def test_more_functions_than_are_remembered(pool: Any) -> None:
    calls = [
        (tasks.echo, 1),
        (tasks.square, 2),
        (tasks.nothing_with, 3),
        (tasks.everything, 4),
        (len, "abc"),
        (abs, -1),
    ]
    calls += [(math.sqrt, 4.0), (math.floor, 1.5), (tasks.return_error,), (tasks.pid, 1), (tasks.size_of, b"ab")]
    calls += [(tasks.zeros, 3), (tasks.Circle, 5), (tasks.apply, (tasks.add, 1, 2)), (tasks.nap, 0.0)]
    for _ in range(3):
        for fn, *args in calls:
            result = pool.submit(fn, *args).result(PATIENCE)
            if fn not in (tasks.pid, tasks.return_error):
                assert result == fn(*args)


def test_a_name_that_has_come_to_mean_something_else(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    """pickle looks each time whether the function is what its name says, and so do we."""
    pool = pools.unbounded(1)
    square = tasks.square
    assert pool.submit(square, 3).result(PATIENCE) == 9
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "square", tasks.echo)
        with pytest.raises(pickle.PicklingError, match="not the same object"):
            pool.submit(square, 3).result(PATIENCE)
        assert pool.submit(tasks.square, 3).result(PATIENCE) == 3  # it is echo, and goes by that name
        patch.delattr(tasks, "square")
        with pytest.raises(pickle.PicklingError):
            pool.submit(square, 3).result(PATIENCE)
    assert pool.submit(square, 3).result(PATIENCE) == 9


def test_a_module_that_was_changed_in_the_worker(pools: Pools) -> None:
    pool = pools.unbounded(1)
    assert pool.submit(tasks.changeable).result(PATIENCE) == "as it was"
    pool.submit(tasks.change).result(PATIENCE)
    assert pool.submit(tasks.changeable).result(PATIENCE) == "changed"


def test_a_name_that_was_given_to_another_function_in_the_worker(pools: Pools) -> None:
    """And back."""
    pool = pools.unbounded(1)
    for name, expected in (("square", 9), ("echo", 3), ("square", 9), ("echo", 3)):
        pool.submit(tasks.call_changeable, name).result(PATIENCE)
        assert pool.submit(tasks.changeable_too, 3).result(PATIENCE) == expected


def test_a_module_that_was_imported_anew(pools: Pools, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "anew.py").write_text("import os\ndef version():\n    return os.environ.get('ANEW', 'old')\n")
    monkeypatch.syspath_prepend(tmp_path)
    anew = importlib.import_module("anew")
    version = anew.version
    pool = pools.unbounded(1)
    assert pool.submit(version).result(PATIENCE) == "old"
    pool.submit(tasks.import_anew, "anew", "return 'new'").result(PATIENCE)
    assert pool.submit(version).result(PATIENCE) == "new"
    monkeypatch.delitem(sys.modules, "anew")
    importlib.import_module("anew")
    with pytest.raises(pickle.PicklingError, match="not the same object"):
        pool.submit(version).result(PATIENCE)


def test_a_function_that_is_missing_in_the_worker(pools: Pools) -> None:
    """Breaks the pool, and the worker says why, as in the standard library."""
    pool = pools.unbounded(1)
    pool.submit(tasks.remove_changeable).result(PATIENCE)
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.changeable).result(PATIENCE)


def test_a_tuple_that_equals_only_itself(pool: Any) -> None:
    odd = (math.nan,)
    assert pool.submit(operator.eq, odd, odd).result(PATIENCE) is True
    left, right = pool.submit(tasks.echo, (odd, odd)).result(PATIENCE)
    assert left == right


@pytest.mark.parametrize("length", [50, 110, 118, 119, 120, 200])
def test_functions_with_long_names(pools: Pools, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    name = "f" * (length - len("tasks") - 1)

    def fn(value: int) -> int:
        return value + 1

    fn.__module__, fn.__qualname__ = "tasks", name
    monkeypatch.setattr(tasks, name, fn, raising=False)
    pool = pools.unbounded(1, "fork")
    assert pool.submit(fn, 1).result(PATIENCE) == 2
    assert pool.submit(fn, value=1).result(PATIENCE) == 2


def test_a_copy_with_other_globals_is_no_function_of_the_module(pools: Pools) -> None:
    pool = pools.unbounded(1)
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9
    copy = types.FunctionType(tasks.square.__code__, {"square": None}, "square")
    copy.__module__ = tasks.__name__
    with pytest.raises(pickle.PicklingError):
        pool.submit(copy, 3).result(PATIENCE)


@pytest.mark.parametrize("broken", [lambda: None, type("Local", (), {})], ids=["lambda", "local class"])
def test_what_has_no_name_cannot_be_sent(pool: Any, broken: Any) -> None:
    for _ in range(2):
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pool.submit(broken).result(PATIENCE)
    assert pool.submit(tasks.square, 3).result(PATIENCE) == 9


def test_methods_and_partials(pool: Any) -> None:
    circle = tasks.Circle(2)
    assert pool.submit(tasks.Circle.area, circle).result(PATIENCE) == circle.area()
    assert pool.submit(circle.area).result(PATIENCE) == circle.area()
