"""bounded() over the standard pools, loky and a Dask cluster: the same for each."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import pytest
from conftest import WORKERS
from work import PATIENCE, Counted, fail, hold, release, square, submit_from_callback, wait_until

import weirpool


def bounded(inner: Any, bound: int, **options: Any) -> Any:
    return weirpool.bounded(inner, bound, workers=WORKERS, **options)


def fill(executor: Any, folder: Path, count: int) -> list[Any]:
    return [executor.submit(hold, str(folder), number) for number in range(count)]


def start_producer(executor: Any, outcome: list[Any]) -> threading.Thread:
    """One thread that submits one task, and notes its future or its error."""

    def produce() -> None:
        try:
            outcome.append(executor.submit(square, 3))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    return thread


def test_results_and_errors_arrive(engine: Any) -> None:
    executor = bounded(engine, 4)
    assert executor.submit(square, 7).result(PATIENCE) == 49
    with pytest.raises(ValueError, match="on purpose"):
        executor.submit(fail, "on purpose").result(PATIENCE)
    assert list(executor.map(square, range(50))) == [n * n for n in range(50)]


def test_never_more_outstanding_than_the_bound(engine: Any) -> None:
    counted = Counted(engine)
    executor = bounded(counted, 3)

    def produce() -> None:
        for number in range(25):
            executor.submit(square, number)

    producers = [threading.Thread(target=produce, daemon=True) for _ in range(4)]
    for thread in producers:
        thread.start()
    for thread in producers:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    wait_until(lambda: counted.outstanding == 0, "all tasks finish")
    assert counted.peak <= 3


def test_a_full_executor_blocks_its_producer_until_a_task_finishes(engine: Any, tmp_path: Path) -> None:
    executor = bounded(engine, 2)
    held = fill(executor, tmp_path, 2)
    outcome: list[Any] = []
    producer = start_producer(executor, outcome)
    wait_until(lambda: executor.stats().blocked_producers == 1, "the producer waits")
    assert not outcome
    release(tmp_path)
    producer.join(PATIENCE)
    assert outcome[0].result(PATIENCE) == 9
    assert [future.result(PATIENCE) for future in held] == [0, 1]


def test_producers_are_admitted_first_come_first_served(engine: Any, tmp_path: Path) -> None:
    executor = bounded(engine, 1)
    folders = [tmp_path / str(number) for number in range(5)]
    admitted: list[int] = []

    def produce(number: int) -> None:
        executor.submit(hold, str(folders[number]))
        admitted.append(number)

    for number, folder in enumerate(folders):
        folder.mkdir()
        threading.Thread(target=produce, args=(number,), daemon=True).start()
        wait_until(lambda n=number: len(admitted) + executor.stats().blocked_producers == n + 1, "it stands in line")
    for number, folder in enumerate(folders):
        wait_until(lambda n=number: len(admitted) == n + 1, "the next producer is admitted")
        release(folder)
    assert admitted == [0, 1, 2, 3, 4]
    wait_until(lambda: executor.stats().outstanding == 0, "permits are back")


def test_a_done_callback_submits_more_than_there_is_room_for(engine: Any) -> None:
    assert submit_from_callback(bounded(engine, 2), 10) == [n * n for n in range(10)]


def test_submit_after_shutdown_raises_and_keeps_no_permit(engine: Any) -> None:
    executor = bounded(engine, 2)
    executor.shutdown()
    for _ in range(5):
        with pytest.raises(RuntimeError):
            executor.submit(square, 1)
    assert executor.stats().outstanding == 0


def test_an_inner_executor_that_refuses_costs_no_permit(engine: Any) -> None:
    executor = bounded(engine, 2)
    engine.shutdown()
    for _ in range(5):
        with pytest.raises(RuntimeError):
            executor.submit(square, 1)
    assert executor.stats().outstanding == 0


def test_submit_timeout_and_refusal(engine: Any, tmp_path: Path) -> None:
    patient = bounded(engine, 2, submit_timeout=0.05)
    refusing = bounded(engine, 2, block_on_submit=False)
    held = fill(patient, tmp_path, 2) + fill(refusing, tmp_path, 2)
    with pytest.raises(weirpool.SubmitTimeout):
        patient.submit(square, 1)
    with pytest.raises(weirpool.RejectedSubmission):
        refusing.submit(square, 1)
    release(tmp_path)
    for future in held:
        future.result(PATIENCE)
    for executor in (patient, refusing):
        wait_until(lambda executor=executor: executor.stats().outstanding == 0, "permits are back")
        assert executor.submit(square, 2).result(PATIENCE) == 4


def test_cancelling_a_task_returns_its_permit(engine: Any, tmp_path: Path) -> None:
    executor = bounded(engine, 8)
    futures = fill(executor, tmp_path, 8)
    cancelled = [future.cancel() for future in futures]
    assert any(cancelled)
    release(tmp_path)
    wait_until(lambda: executor.stats().outstanding == 0, "permits are back")


def test_map_over_an_infinite_iterable(engine: Any) -> None:
    executor = bounded(engine, 4)
    results = executor.map(square, itertools.count())
    assert list(itertools.islice(results, 20)) == [n * n for n in range(20)]
    results.close()


def test_as_completed_sees_every_future(engine: Any) -> None:
    executor = bounded(engine, 4)
    futures = [executor.submit(square, number) for number in range(20)]
    assert sorted(future.result() for future in as_completed(futures, PATIENCE)) == [n * n for n in range(20)]


def test_shutdown_wakes_blocked_producers(engine: Any, tmp_path: Path) -> None:
    executor = bounded(engine, 2)
    fill(executor, tmp_path, 2)
    outcome: list[Any] = []
    producers = [start_producer(executor, outcome) for _ in range(5)]
    wait_until(lambda: executor.stats().blocked_producers == 5, "the producers wait")
    executor.shutdown(wait=False)
    for thread in producers:
        thread.join(PATIENCE)
    assert [type(error) for error in outcome] == [RuntimeError] * 5
    release(tmp_path)
