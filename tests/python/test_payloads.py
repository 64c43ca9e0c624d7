"""Arguments and results of every size come back as they were sent."""

import pickle
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import tasks
from support import Pools, Threads, memory_kib, wait_until

import weirpool

MIB = 1 << 20
core: Any = getattr(weirpool, "_core", None)
INLINE_PAYLOAD: int = getattr(core, "INLINE_PAYLOAD", 240)
INLINE_RESULT: int = getattr(core, "INLINE_RESULT", 208)
PARK_LIMIT = 64 * 1024


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def travel(pool: weirpool.ProcessPoolExecutor, data: Any) -> None:
    assert pool.submit(tasks.checked, data, zlib.crc32(data)).result() == data


def bytes_that_pickle_to(size: int, wrap: Any) -> bytes:
    """Bytes with which `wrap(bytes)` pickles to exactly so many bytes."""
    for length in range(max(0, size - 300), size + 1):
        if len(pickle.dumps(wrap(bytes(length)), pickle.HIGHEST_PROTOCOL)) == size:
            return noise(length)
    raise AssertionError(f"nothing pickles to {size} bytes")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 4 * MIB, 40_000_000])
def test_bytes_of_any_size(pools: Pools, start_method: str, size: int) -> None:
    pool = pools.bounded(4, 1, start_method)
    travel(pool, noise(size))
    travel(pool, bytearray(noise(size)))


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("limit", [INLINE_PAYLOAD, PARK_LIMIT])
def test_an_argument_whose_pickle_has_exactly_the_limit(pools: Pools, limit: int, offset: int) -> None:
    data = bytes_that_pickle_to(limit + offset, lambda data: (tasks.echo, (data,), {}))
    assert pools.bounded(4, 1).submit(tasks.echo, data).result() == data


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_result_whose_pickle_has_exactly_the_limit(pools: Pools, offset: int) -> None:
    data = bytes_that_pickle_to(INLINE_RESULT + offset, lambda data: data)
    assert pools.bounded(4, 1).submit(tasks.echo, data).result() == data


@pytest.mark.parametrize("limit", [INLINE_PAYLOAD, INLINE_RESULT, 1024, PARK_LIMIT, MIB])
def test_every_size_around_a_limit(pools: Pools, limit: int) -> None:
    """Whatever the pickle adds to the bytes, one of these has exactly the limit."""
    pool = pools.bounded(64, 2)
    sizes = range(max(0, limit - 200), limit + 20)
    everything = noise(limit + 20)
    futures = [pool.submit(tasks.checked, everything[:size], zlib.crc32(everything[:size])) for size in sizes]
    assert [size for size, future in zip(sizes, futures, strict=True) if future.result() != everything[:size]] == []


def test_every_size_that_is_small(pools: Pools) -> None:
    pool = pools.bounded(64, 2)
    everything = noise(600)
    for size, result in enumerate(pool.map(tasks.echo, (everything[:size] for size in range(600)))):
        assert result == everything[:size]


def test_arguments_and_results_of_different_sizes(pools: Pools) -> None:
    """Small in and large out, and the other way round."""
    pool = pools.bounded(8, 2)
    outs = [pool.submit(tasks.zeros, size) for size in (0, 5 * MIB, 1, 40_000_000, 300)]
    ins = [pool.submit(tasks.size_of, bytes(size)) for size in (0, 5 * MIB, 1, 40_000_000, 300)]
    assert [len(future.result()) for future in outs] == [future.result() for future in ins]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_sizes_mixed_from_sixteen_threads(pools: Pools, threads: Threads, start_method: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pool = pools.bounded(8, 4, start_method)
    sizes = [0, 1, INLINE_PAYLOAD - 1, INLINE_PAYLOAD, INLINE_PAYLOAD + 1, INLINE_RESULT, PARK_LIMIT, MIB, 40_000_000]
    data = {size: noise(size) for size in sizes}

    def produce(number: int) -> None:
        dice = random.Random(seed + number)
        for size in dice.sample(sizes, len(sizes)):
            travel(pool, data[size])

    for number in range(16):
        threads.start(produce, number)
    threads.join(280)
    assert threads.errors == []
    released(pool)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_300_mb_from_two_threads_at_once(pools: Pools, threads: Threads) -> None:
    pool = pools.bounded(4, 2)
    data = noise(MIB) * 300
    for _ in range(2):
        threads.start(travel, pool, data)
    threads.join(280)
    assert threads.errors == []
    released(pool)


def released(pool: weirpool.ProcessPoolExecutor) -> None:
    """Some of the shared memory stays warm; the rest goes back to the system."""
    wait_until(lambda: pool.stats().segment_bytes < 128 * MIB, "the shared memory is given back")


def test_unread_big_results_stop_nobody(pools: Pools) -> None:
    """Results that nobody asks for do not fill a pipe behind which the workers wait."""
    pool = pools.unbounded(2)
    futures = [pool.submit(tasks.zeros, 4_000_000) for _ in range(40)]
    wait_until(lambda: pool.stats().outstanding == 0, "every task has ended")
    assert {len(future.result()) for future in futures} == {4_000_000}


def test_memory_of_big_payloads_is_given_back(pools: Pools) -> None:
    pool = pools.bounded(4, 2)
    data = noise(8 * MIB)
    for _ in range(8):
        travel(pool, data)
    before = memory_kib()
    for _ in range(40):
        travel(pool, data)
    assert memory_kib() - before < 100 * 1024, "of 640 MB"
    released(pool)


# ---- Buffers -------------------------------------------------------------------------------------


def arrays() -> Iterator[Any]:
    numpy = pytest.importorskip("numpy")
    dice = numpy.random.default_rng(7)
    yield from (dice.random(size) for size in (0, 1, 30, 1000, 100_000, 3_000_000))
    yield dice.random((300, 400)).T
    yield dice.random(10_000)[::3]
    yield numpy.array(["text", None, 3], dtype=object)
    yield numpy.array(7)
    yield numpy.zeros(2000, dtype=[("a", "i4"), ("b", "f8")])


def test_arrays_travel(pools: Pools, start_method: str) -> None:
    numpy = pytest.importorskip("numpy")
    pool = pools.bounded(4, 1, start_method)
    for array in arrays():
        back = pool.submit(tasks.echo, array).result()
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert numpy.array_equal(back, array)


def test_arrays_can_be_written_by_the_task_and_by_the_reader(pools: Pools) -> None:
    numpy = pytest.importorskip("numpy")
    pool = pools.bounded(4, 2)
    array = numpy.arange(500_000)
    results = [pool.submit(tasks.double_in_place, array).result() for _ in range(5)]
    assert array[-1] == 499_999, "the sender's own array is untouched"
    results[0] += 1
    results[0][0] = -1
    assert [int(result[-1]) for result in results] == [999_999, *[999_998] * 4]
    assert int(results[1][0]) == 0


def test_a_read_only_buffer_arrives_read_only(pools: Pools) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000)
    array.setflags(write=False)
    back = pools.bounded(4, 1).submit(tasks.echo, array).result()
    assert numpy.array_equal(back, array)


def test_pickle_buffers_arrive(pools: Pools) -> None:
    pool = pools.bounded(4, 1)
    for size in (0, 10, 1000, 100_000, 5 * MIB):
        data = noise(size)
        assert pool.submit(zlib.crc32, pickle.PickleBuffer(data)).result() == zlib.crc32(data)
        assert pool.submit(zlib.crc32, pickle.PickleBuffer(bytearray(data))).result() == zlib.crc32(data)
