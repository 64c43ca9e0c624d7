"""``with_options()``: the executor that says of its tasks how long they may run, and how often again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from weirpool._executor import Executor

if TYPE_CHECKING:
    import threading

    from weirpool import _core
    from weirpool.process import ProcessPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")


class WithOptions(Executor):
    """A view of a process pool, which it keeps alive; what is submitted through it counts as the pool's own."""

    def __init__(self, pool: ProcessPoolExecutor, limit: int, retries: int) -> None:
        """For ``ProcessPoolExecutor.with_options()``, which checks."""
        self._pool = pool
        self._limit = limit
        self._retries = retries
        self._patience = pool._patience

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> _core.Future[T]:
        """As the pool's ``submit()``, with these options."""
        engine = self._pool._engine or self._pool._start()
        return engine.submit(fn, args, kwargs, self._limit, self._retries)

    def with_options(self, *, timeout: float | None = None, retries: int = 0) -> WithOptions:
        """As the pool's ``with_options()``: these options are replaced, not added to."""
        return self._pool.with_options(timeout=timeout, retries=retries)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the pool is shut down by who made it."""

    def _submit_soon(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], bell: int
    ) -> _core.Future[T] | _core.Ticket[T]:
        engine = self._pool._engine or self._pool._start()
        return engine.submit_soon(fn, args, kwargs, bell, self._limit, self._retries)

    def _preparation(self) -> Callable[[], object] | None:
        return self._pool._preparation()

    def _window(self) -> int | None:
        return self._pool._window()

    def _worker_count(self) -> int:
        return self._pool._worker_count()

    @property
    def _broken(self) -> object:
        """Other libraries look for it."""
        return self._pool._broken

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        """Who submits for others looks for it: that thread must not wait."""
        return self._pool._executor_manager_thread
