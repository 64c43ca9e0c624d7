"""Executors behind a weir: what they submit with a permit, at once or when room comes."""

from __future__ import annotations

import _thread
import concurrent.futures as cf
import contextlib
import contextvars
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from weirpool._engine import core as _core
from weirpool._executor import Executor
from weirpool._weir import Weir, submitting

T = TypeVar("T")


class Gated(Executor):
    """The base of executors that stand behind a weir. A subclass submits, and answers three questions."""

    _weir: Weir

    @abstractmethod
    def _submit_with(
        self, permit: _core.Permit, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> cf.Future[T]:
        """Submit under a permit, which returns with the task's end, or if this raises; ``_submitting()`` meanwhile."""

    @contextlib.contextmanager
    def _submitting(self) -> Iterator[None]:
        """Room that is made within a submission is given away after it."""
        submitting.depth += 1
        try:
            yield
        finally:
            submitting.depth -= 1
            if self._weir.line:
                self._weir.serve()

    @abstractmethod
    def _must_not_wait(self) -> bool:
        """Could it stall the executor if the calling thread waited for room?"""

    @abstractmethod
    def _may_submit_for_others(self) -> bool:
        """May a thread that has made room submit what a coroutine waits with? Not while a lock may be held there."""

    @abstractmethod
    def _explain(self, error: RuntimeError) -> BaseException:
        """Why the weir is shut."""

    def _accept_nothing_more(self) -> None:
        self._weir.shut()  # the standard process pool waits only in the first of its shutdowns

    def _admit(self) -> _core.Permit:
        try:
            return self._weir.admit(self._must_not_wait)
        except RuntimeError as error:
            self._raise_why(error)

    def _raise_why(self, error: RuntimeError) -> NoReturn:
        why = self._explain(error)
        raise why from why.__cause__  # not from this one

    def _submit_soon(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], bell: int
    ) -> cf.Future[T] | Ticket:
        """Submit without waiting, or take a place in line. ``bell``, an eventfd, rings when the ticket wants a poll."""
        if self._patience is not None and self._patience <= 0:
            return self._submit_with(self._admit(), fn, args, kwargs)
        ticket = Ticket(self, self._weir, (fn, args, kwargs), bell)
        future = ticket.poll()
        if future is None and self._must_not_wait():  # nor may a loop that runs in such a thread
            future = ticket.leave() or self._submit_with(self._admit(), fn, args, kwargs)
        return future or ticket


class Ticket:
    """A call that awaits room without a thread: a place in line, and what to submit then.

    Whoever makes room submits the call, so that nobody waits for a loop that is busy, or stopped with coroutines in it.
    The loop, whose bell was rung, finds the future.
    """

    permitted = False
    """Nothing is waited for once it has left the line."""

    def __init__(
        self, executor: Gated, weir: Weir, call: tuple[Any, tuple[Any, ...], dict[str, Any]], bell: int
    ) -> None:
        self._executor = executor
        self._weir = weir
        self._call = call
        self._context = contextvars.copy_context()  # for an executor whose submit() looks into it
        # Of what follows; held while the call is submitted. An RLock: its coroutine may be collected meanwhile.
        self._lock = threading.RLock()
        self._waits = True
        self._advances = False
        self._future: cf.Future[Any] | None = None
        self._error: BaseException | None = None
        try:
            self._place = weir.queue(bell)
        except RuntimeError as error:
            executor._raise_why(error)
        weir.note_place(self)

    def poll(self) -> cf.Future[Any] | None:
        """Return the future, if there is room by now; None: not yet.

        Raises:
            RuntimeError, BrokenExecutor: There never will be.
            Whatever the executor's ``submit()`` raises.
        """
        with self._lock:
            self._advance()
            error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._future
        finally:
            del error  # else its traceback would keep it in a cycle

    def serve(self) -> bool:
        """Submit if there is room by now, in a thread that has made some. Returns whether it waits no longer."""
        if not self._executor._may_submit_for_others() or not self._lock.acquire(blocking=False):
            return False  # then its loop polls it at this moment
        try:
            self._advance()
            self._return_interrupt()
            return not self._waits
        finally:
            self._lock.release()

    def _return_interrupt(self) -> None:
        """A Ctrl-C that came upon the submission is raised again in the main thread, where it belongs.

        The executor may have taken the call or not: it is not submitted once more.
        """
        if isinstance(self._error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            self._error = RuntimeError("Ctrl-C came while this call was submitted: it may run or not")
            _thread.interrupt_main()

    def leave(self) -> cf.Future[Any] | None:
        """Give the place up: nothing is submitted. The future, if it was by then."""
        with self._lock:
            if self._waits:
                self._end()
                self._give_up_place()
            return self._future

    def expire(self) -> cf.Future[Any]:
        """As ``leave()``, but try once more, and raise SubmitTimeout where there is no room."""
        future = self.leave()
        if future is None and self._error is not None:
            raise self._error
        try:
            return future or self._submit(self._weir.admit_now())
        except RuntimeError as error:
            self._executor._raise_why(error)

    def _advance(self) -> None:
        """Lock held."""
        if not self._waits or self._advances:
            return
        self._advances = True
        try:
            permit = self._ask_for_permit()
            if permit is not None:
                self._end()
                self._future = self._context.run(self._submit, permit)
        except BaseException as error:  # it is its coroutine's
            self._end()
            self._error = error
        finally:
            self._advances = False

    def _submit(self, permit: _core.Permit) -> cf.Future[Any]:
        return self._executor._submit_with(permit, *self._call)

    def _ask_for_permit(self) -> _core.Permit | None:
        try:
            return self._place.poll()
        except RuntimeError as error:
            self._executor._raise_why(error)

    def _give_up_place(self) -> None:
        try:
            permit = self._place.leave()
        except RuntimeError:  # it was shut
            return
        if permit is not None:
            self._weir.give_back(permit)

    def _end(self) -> None:
        self._waits = False
        self._weir.forget_place(self)
