"""Signals at moments at which what their handlers raise would be lost, or leave half of something: they are put off."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from weirpool import _engine

_Handler = Callable[[int, FrameType | None], Any]

_PATIENCE_SECONDS = 1.0  # from then on a signal that comes again takes effect at once

_block: _Block | None = None  # that the main thread is in


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Within this block no handler of Python's runs; at its end those run whose signals have come.

    For the main thread, where handlers run; in others, and within another such block, this does nothing. A second
    Ctrl-C takes effect at once, and so does any other signal that comes again a second later: what the block waits for
    may be stopped.
    """
    global _block
    if threading.current_thread() is not threading.main_thread() or _block is not None:
        yield
        return
    block = _Block()
    try:
        block.begin()
        _block = block
        yield
    finally:
        try:
            _leave(block)
        finally:
            _leave(block)  # a handler that is not put off any more may have raised in the midst of the first one


def _leave(block: _Block) -> None:
    """Harmless when it is called again."""
    global _block
    if os.getpid() == block.owner:
        if _block is block:
            _block = None
        block.end()


def resume() -> None:
    """Handle signals again, and those that have come: in a child that was forked within the block."""
    global _block
    block, _block = _block, None
    if block is not None:
        block.end()


class _Block:
    """Stands in the place of every handler. Once it is over it only passes on, should it be left there."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.thread = threading.get_ident()
        self.came: dict[int, float] = {}  # when first
        self._handlers: dict[int, _Handler] = {}
        self._actions: dict[int, bytes] = {}  # what signal.signal() forgets of them
        choice = _engine.choice()
        self._core: Any = choice.core if choice.name == "native" else None
        self._is_over = False

    def begin(self) -> None:
        for number in range(1, signal.NSIG):
            handler = signal.getsignal(number)
            if callable(handler):
                if self._core is not None:
                    self._actions[number] = self._core.signal_action(number)
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._is_over or self._comes_again(number):
            self._handlers[number](number, frame)

    def _comes_again(self, number: int) -> bool:
        now = time.monotonic()
        if number not in self.came:
            self.came[number] = now
            return False
        return number == signal.SIGINT or now - self.came[number] >= _PATIENCE_SECONDS

    def end(self) -> None:
        self._is_over = True
        try:
            self.restore()
        finally:
            self._catch_up()

    def restore(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
                if number in self._actions:
                    self._core.set_signal_action(number, self._actions[number])

    def _catch_up(self) -> None:
        """All of them, whatever they raise."""
        if self.came:
            number, _ = self.came.popitem()
            try:
                self._handlers[number](number, sys._getframe())
            finally:
                self._catch_up()


def _begin_child() -> None:
    """In a forked child: what came was the parent's. A child that is not a worker has its handlers back."""
    global _block
    if _block is None:
        return
    _block.came.clear()
    if threading.get_ident() != _block.thread:
        _block.restore()
        _block = None


if hasattr(os, "register_at_fork"):  # not where there is no fork()
    os.register_at_fork(after_in_child=_begin_child)
