"""What runs in the workers, and what travels to and from them."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import ledger

MILD_ACTS = ("return", "raise", "secret")
"""What a task may do: return what it should, raise, return what cannot be pickled."""

EXITCODES = {
    "exit": 7,
    "abort": -signal.SIGABRT,
    "kill": -signal.SIGKILL,
    "once": -signal.SIGKILL,
    "midway": -signal.SIGKILL,
    "unreadable": 1,
}
"""What ends the worker, and how: three ways of ending itself; the third at the first attempt only; the third while the
result is being sent, or after that; and a task that cannot be unpickled."""

MAY_RETURN = ("return", "once", "midway")

REFUSAL = ("cannot be unpickled",)
"""The arguments of the error with which unpickling fails."""

CRUEL_ACTS = ("poison", *EXITCODES)
"""The same, and a result that cannot be unpickled, which breaks the pool."""
SPOILED = os.environ.get("WEIRPOOL_SPOIL")
"""What the storm has to notice, for its own test: each task notes its start "twice", or is "silent"; its result is
"wrong"; each round leaves a "leak" or ends in a "hang"."""


class StormError(Exception):
    """What tasks and callbacks raise."""


class Block:
    """Bytes that travel out of band, as an array's."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Block, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data),)

    def __bytes__(self) -> bytes:
        return bytes(self.data)


class CallsWhenPickled:
    """Runs ``call`` in the process that pickles it; arrives as None."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        self.call()
        return _nothing, ()


class Unsendable:
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise StormError("cannot be pickled")


class Unreadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse_silently, ()


class Poison:
    """The same, as a result."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _nothing() -> None:
    pass


def _refuse() -> NoReturn:
    raise StormError(*REFUSAL)


def _refuse_silently() -> NoReturn:
    _fall_silent()
    _refuse()


def content(number: int, size: int) -> bytes:
    """The bytes that belong to a task."""
    return (b"%016x" % number * (size // 16 + 1))[:size]


def run(path: str, number: int, act: str, seconds: float, size: int, payload: Any = None) -> Any:
    """One task: note that it starts, check what came, take its time, act. Returns its number and ``size`` bytes."""
    for _ in range({"twice": 2, "silent": 0}.get(SPOILED or "", 1)):
        ledger.note(path, number)
    if payload is not None:
        data = bytes(payload)
        if data != content(number, len(data)):
            raise AssertionError(f"the {len(data)} bytes of task {number} arrived damaged")
    if seconds:
        time.sleep(seconds)
    if act == "once" and len(ledger.read(path)[number]) > 1:
        act = "return"
    if act == "midway":
        threading.Timer(number % 8 / 1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif act != "return":
        return _misbehave(act, number)
    if SPOILED == "wrong":
        number += 1
    data = content(number, size)
    return number, Block(data) if number % 2 and size else data


def run_one(call: tuple[Any, ...]) -> Any:
    """As ``run``, for those that hand over one argument."""
    return run(*call)


def _misbehave(act: str, number: int) -> Any:
    if act == "raise":
        raise StormError(number)
    if act == "secret":
        return threading.Lock()
    if act == "poison":
        return Poison()
    _fall_silent()
    if act == "exit":
        os._exit(EXITCODES["exit"])
    os.kill(os.getpid(), -EXITCODES[act])
    raise AssertionError("unreachable")


def _fall_silent() -> None:
    """What this process says of its end is meant."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def fail_to_initialize() -> NoReturn:
    """An initializer."""
    logging.disable()
    raise StormError("this worker does not start")


def initialize(value: object) -> None:
    """An initializer that does its work."""
    assert value == "as it was given"
