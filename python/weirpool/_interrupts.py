"""Ctrl-C at moments at which it would be lost, or leave half of something: it is put off until they are over."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any]

_put_off: _Handler | None = None  # what handles Ctrl-C otherwise, while it is put off
_came = False


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Within this block Ctrl-C does nothing, and at its end it does what it would have done.

    A second one takes effect at once. For the main thread, where handlers run; in others, and within another such
    block, this does nothing. Python prints and drops what a handler raises in a hook of fork()'s.
    """
    global _put_off, _came
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or _put_off is not None or not callable(handler):
        yield
        return
    owner = os.getpid()

    def remember(number: int, frame: FrameType | None) -> None:
        global _came
        if _came:  # who presses it again has waited long enough
            handler(number, frame)
        _came = True

    _came, _put_off = False, handler
    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        if os.getpid() == owner:
            resume()


def resume() -> None:
    """Handle Ctrl-C again, and that which has come: also in a child that was forked within the block."""
    global _put_off
    handler, _put_off = _put_off, None
    if handler is not None:
        signal.signal(signal.SIGINT, handler)
        if _came:
            handler(signal.SIGINT, None)
