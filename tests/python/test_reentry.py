"""Signal handlers and collections of garbage that come upon a line while room is given away there."""

import concurrent.futures as cf
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from support import PATIENCE, wait_until

from weirpool import Feeder, _gate


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], Any]], None]]:
    before = signal.getsignal(signal.SIGUSR1)

    def handle(function: Callable[[], Any]) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: function())

    yield handle
    signal.signal(signal.SIGUSR1, before)


def raising_once(function: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """The function, with a signal at its first call."""
    left = [True]

    def call(*args: Any) -> Any:
        is_first = left.pop() if left else False
        if is_first and before:
            signal.raise_signal(signal.SIGUSR1)
        result = function(*args)
        if is_first and not before:
            signal.raise_signal(signal.SIGUSR1)
        return result

    return call


def in_line(count: int, function: Callable[[int], object], blocked: Callable[[], int]) -> list[threading.Thread]:
    threads = [threading.Thread(target=function, args=(number,)) for number in range(count)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda number=number: blocked() == number + 1, "it stands in line")
    return threads


@pytest.mark.parametrize(("owner", "name"), [(_gate._Turn, "ring"), (_gate.Gate, "_has_room")])
def test_a_permit_that_returns_while_another_is_given_away(on_signal: Any, owner: Any, name: str) -> None:
    gate = _gate.Gate(2, 0)
    first, second = (gate.admit(lambda: False, None) for _ in range(2))
    assert first is not None
    assert second is not None
    admitted: list[int] = []

    def produce(number: int) -> None:
        permit = gate.admit(lambda: False, PATIENCE)
        assert permit is not None
        admitted.append(number)
        permit.give_back()

    threads = in_line(3, produce, lambda: int(gate.stats()["blocked_producers"]))
    on_signal(second.give_back)
    with mock.patch.object(owner, name, raising_once(getattr(owner, name), before=False)):
        first.give_back()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(admitted) == [0, 1, 2]
    stats = gate.stats()
    assert (stats["outstanding"], stats["blocked_producers"]) == (0, 0)
    assert stats["peak_outstanding"] == 2


class ByHand(cf.Executor):
    """Whose tasks the test ends."""

    def __init__(self) -> None:
        self.futures: list[cf.Future[Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> cf.Future[Any]:
        self.futures.append(cf.Future())
        return self.futures[-1]


@pytest.mark.parametrize("before", [True, False])
def test_an_item_that_ends_while_room_is_given_away(on_signal: Any, before: bool) -> None:
    executor = ByHand()
    feeder = Feeder(executor, abs, maxsize=2)
    feeder.put(1)
    feeder.put(2)
    threads = in_line(3, feeder.put, lambda: feeder.stats().blocked_producers)
    on_signal(lambda: executor.futures[1].cancel())
    with mock.patch.object(Feeder, "_give_room", raising_once(Feeder._give_room, before=before)):
        executor.futures[0].cancel()

    def end_all() -> bool:
        for future in list(executor.futures):
            if not future.done() and future.set_running_or_notify_cancel():
                future.set_result(1)
        return not any(thread.is_alive() for thread in threads)

    wait_until(end_all, "every producer has put its item")
    end_all()
    feeder.close()
    assert (feeder.stats().outstanding, feeder.stats().accepted) == (0, 5)
