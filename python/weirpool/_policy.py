"""What bounds an executor's tasks, and what ``submit()`` does where one of the bounds is reached."""

from __future__ import annotations

import operator
import warnings
from typing import Final, Literal, TypeGuard

AUTO_BACKLOG: Final[Literal[True]] = True
"""As ``max_submit_backlog``: twice as many tasks as there are workers."""

_MOST = 2**62  # what the engine can count to, and more than anybody has
_MOST_RETRIES = 2**32 - 1


def is_count(value: object) -> TypeGuard[int]:
    """Is it a positive int? A bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_size(name: str, size: object) -> None:
    """Raise ValueError unless it is None, True or a positive int. Nothing is converted."""
    if not (size is None or size is True or is_count(size)):
        raise ValueError(f"{name} must be None, True, or a positive int")


def tasks(size: int | Literal[True] | None, workers: int) -> int | None:
    """A bound on tasks as a number: True is twice the workers."""
    return 2 * workers if size is True else None if size is None else min(size, _MOST)


def check_bytes(name: str, size: object) -> int | None:
    """Return a number of bytes as the engine takes it. ValueError unless it is None or a positive int."""
    if size is None:
        return None
    if not is_count(size):
        raise ValueError(f"{name} must be None or a positive int")
    return min(size, _MOST)


def check_retries(retries: object) -> int:
    """Return ``retries`` as the engine takes it, which is more than anybody has time for."""
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ValueError("retries must be an int >= 0")
    return min(retries, _MOST_RETRIES)


def limit(timeout: float | None) -> int:
    """Return the ``timeout`` of a task in nanoseconds; 0: there is none."""
    if timeout is None:
        return 0
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:  # nor NaN
        raise ValueError("timeout must be None or a number of seconds, more than 0")
    return max(1, int(min(timeout, _MOST / 10**9) * 10**9))


def check_int(name: str, value: object) -> int:
    """Return it as an int. TypeError: it is none; a bool is none, either."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be an int, not {value!r}")
    return operator.index(value)  # type: ignore[arg-type]


def check_timeout(name: str, timeout: object) -> None:
    """Raise ValueError unless it is None or a number of seconds, 0 or more."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:  # nor NaN
        raise ValueError(f"{name} must be None or a number of seconds, 0 or more")


def patience(timeout: float | None, block: bool, names: tuple[str, str]) -> float | None:
    """How many seconds ``submit()`` waits for room: None: without end; -1: not at all. ``names`` are for errors."""
    if not isinstance(block, bool):
        raise TypeError(f"{names[1]} must be True or False")
    check_timeout(names[0], timeout)
    if timeout is None:
        return None if block else -1
    if not block:
        raise ValueError(f"choose one: {names[0]}, or {names[1]}=False, which does not wait at all")
    return float(min(timeout, _MOST))


def warn_of_low_bound(bound: int, workers: int, *, hint: str = "", stacklevel: int) -> None:
    """A bound that is meant to be the number of workers is a usual slip."""
    if bound < workers:
        warnings.warn(
            f"max_queue_size={bound} is less than the {workers} workers, some of which will never have work{hint}",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
