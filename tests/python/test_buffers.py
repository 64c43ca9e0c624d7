"""Large buffers of arrays and the like travel beside the pickle, and nobody can tell, but by the time it takes."""

import os
import pickle
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import tasks
from support import Gate, Pools, memory_kib, wait_until

MIB = 1 << 20
LEAST = 64 * 1024  # a smaller buffer goes into the pickle

kept: list[Any] = []


def keep(value: Any) -> None:
    kept.append(value)


def first_bytes_of_kept() -> list[int]:
    return [value[0] for value in kept]


def fill(array: Any, value: int) -> Any:
    array[...] = value
    return array


def hash_of(data: bytes) -> int:
    return hash(data)


def types_of(*values: Any) -> list[str]:
    return [type(value).__name__ for value in values]


def is_writable(array: Any) -> bool:
    return bool(array.flags.writeable)


def are_same(pair: tuple[Any, Any]) -> bool:
    return pair[0] is pair[1]


def private_kib(pid: int) -> int:
    """Without what a worker has seen of the arena."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def own_pid(_: Any) -> int:
    return os.getpid()


def kill_myself(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


LARGE = numpy.arange(3 * MIB // 8, dtype=numpy.float64)
ARRAYS = {
    "empty": numpy.zeros((0, 7)),
    "small": numpy.arange(10),
    "large": LARGE,
    "Fortran": numpy.asfortranarray(LARGE.reshape(512, -1)),
    "not contiguous": LARGE.reshape(512, -1)[::2, ::3],
    "reversed": LARGE[::-1],
    "read-only": read_only(LARGE.copy()),
    "objects": numpy.array([1, "two", None], dtype=object),
    "structured": numpy.zeros(200_000, dtype=[("a", "i1"), ("b", "f8")]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_arrives_as_it_was(pools: Pools, name: str) -> None:
    array = ARRAYS[name]
    pool = pools.bounded(4, 1)
    back = pool.submit(tasks.echo, array).result()
    assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()
    assert back.flags.f_contiguous == array.copy(order="K").flags.f_contiguous
    assert back.flags.writeable == pickle.loads(pickle.dumps(array, 5)).flags.writeable
    assert pool.submit(is_writable, array).result() == back.flags.writeable


@pytest.mark.parametrize("size", [0, 1, 200, 240, LEAST - 1, LEAST, LEAST + 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 3])
def test_buffers_of_sizes_around_every_limit(pools: Pools, size: int) -> None:
    array = numpy.random.default_rng(size).integers(0, 255, size, dtype=numpy.uint8)
    pool = pools.bounded(4, 1)
    assert (pool.submit(tasks.echo, array).result() == array).all()
    args, kwargs = pool.submit(tasks.everything, array, (1, [array]), extra={"a": array}).result()
    assert (args[0] == array).all() and args[0] is args[1][1][0] and args[0] is kwargs["extra"]["a"]


def test_a_function_without_a_name_takes_buffers(pools: Pools) -> None:
    """Its task begins with no names: it is a pickle, and the buffers."""
    bound_method = LARGE.sum
    assert pools.bounded(4, 1).submit(bound_method).result() == LARGE.sum()


def test_more_buffers_than_one_write_takes(pools: Pools) -> None:
    arrays = [numpy.full(LEAST, number % 251, dtype=numpy.uint8) for number in range(1100)]
    back = pools.bounded(4, 1).submit(tasks.echo, arrays).result()
    assert all((one == other).all() for one, other in zip(back, arrays, strict=True))


def test_both_sides_can_change_what_is_theirs(pools: Pools) -> None:
    pool = pools.bounded(4, 1)
    array = numpy.zeros(2 * MIB, dtype=numpy.uint8)
    first = pool.submit(fill, array, 1).result()
    second = pool.submit(fill, first, 2).result()
    second[0] = 3
    assert (array[0], first[0], second[0], second[1]) == (0, 1, 3, 2)


def test_an_outcome_outlives_its_future_and_its_pool(pools: Pools) -> None:
    future = pools.bounded(4, 1).submit(tasks.echo, LARGE)
    array = future.result()
    assert future.result() is array
    del future
    pools.close()
    view = array[5:]
    del array
    assert (view == LARGE[5:]).all()


def test_what_a_task_keeps_is_not_written_over(pools: Pools) -> None:
    """A worker uses memory of large arguments again, but only what nobody else has."""
    pool = pools.bounded(4, 1)
    for number in range(5):
        pool.submit(keep, bytes([number]) * (2 * MIB)).result()
        pool.submit(keep, numpy.full(2 * MIB, number, dtype=numpy.uint8)[10:]).result()
        pool.submit(len, bytes([99]) * (2 * MIB)).result()
        pool.submit(numpy.sum, numpy.full(2 * MIB, 99, dtype=numpy.uint8)).result()
    assert pool.submit(first_bytes_of_kept).result() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_bytes_in_used_memory_are_as_new(pools: Pools) -> None:
    pool = pools.bounded(4, 1, "fork")  # one seed of hashes
    for number, size in enumerate([4 * MIB, 4 * MIB, 4 * MIB - 5, 4 * MIB, 3 * MIB + 1, 4 * MIB + 1, 200 * MIB]):
        data = bytes([number]) * size
        assert pool.submit(hash_of, data).result() == hash(data)
        assert pool.submit(tasks.echo, data).result() == data


def test_pickle_buffers_become_what_they_become_in_a_pickle(pools: Pools) -> None:
    pool = pools.bounded(4, 1)
    buffers = [pickle.PickleBuffer(kind(2 * LEAST)) for kind in (bytes, bytearray)]
    assert pool.submit(types_of, *buffers).result() == ["bytes", "bytearray"]
    assert pool.submit(are_same, (buffers[1], buffers[1])).result()
    assert not pool.submit(are_same, (buffers[1], pickle.PickleBuffer(bytearray(2 * LEAST)))).result()
    with pytest.raises(pickle.PicklingError):
        pool.submit(tasks.echo, pickle.PickleBuffer(memoryview(bytes(4 * LEAST))[::2])).result()
    released = pickle.PickleBuffer(bytes(2 * LEAST))
    released.release()
    with pytest.raises(ValueError, match="released"):
        pool.submit(tasks.echo, released).result()


def test_a_frame_arrives_as_it_was(pools: Pools) -> None:
    frame = pandas.DataFrame({"a": range(200_000), "b": numpy.linspace(0, 1, 200_000), "c": ["x"] * 200_000})
    back = pools.bounded(4, 1).submit(tasks.echo, frame).result()
    pandas.testing.assert_frame_equal(back, frame)
    back.loc[0, "a"] = 5
    assert frame.loc[0, "a"] == 0


def test_a_small_array_does_not_keep_a_large_result(pools: Pools) -> None:
    large, small = numpy.ones(64 * MIB, dtype=numpy.uint8), numpy.ones(16 * MIB, dtype=numpy.uint8)
    pool = pools.bounded(4, 1)
    pool.submit(tasks.echo, small).result()
    before = memory_kib(os.getpid())
    back = pool.submit(tasks.echo, (large, small)).result()[1]
    assert memory_kib(os.getpid()) - before < 32 * 1024
    assert (back == small).all()


def test_an_idle_worker_gives_memory_back(pools: Pools) -> None:
    pool = pools.bounded(4, 1)
    pid = pool.submit(own_pid, numpy.zeros(8)).result()
    before = private_kib(pid)
    assert pool.submit(own_pid, numpy.ones(100 * MIB, dtype=numpy.uint8)).result() == pid
    wait_until(lambda: private_kib(pid) < before + 20 * 1024, "the worker has given its memory back")


def test_tasks_with_large_buffers_can_be_cancelled_and_lost(pools: Pools, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    pool = pools.bounded(8, 1)
    held = pool.submit(tasks.hold, gate.folder)
    lost = [pool.submit(kill_myself, LARGE), *(pool.submit(tasks.echo, LARGE) for _ in range(4))]
    cancelled = pool.submit(tasks.echo, LARGE)
    gate.wait_started(1)
    assert cancelled.cancel()
    gate.open()
    held.result()
    for future in lost:
        with pytest.raises(BrokenProcessPool):
            future.result()
