"""Ctrl-C: it reaches the main thread alone, and ends everything at once."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from .engines import Engine
from .producers import Producers

PATIENCE = 0.4  # seconds for a pool to end by itself


@contextmanager
def held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; processes that are started in it never see one."""
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # needed later anyway, and its start lets signals through
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def ignored() -> Iterator[None]:
    """No further Ctrl-C disturbs the block."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_at_once(engine: Engine, producers: Producers) -> None:
    """Drops what has not started and ends the workers; those that take too long are killed."""
    with ignored():
        producers.stop()
        closer = threading.Thread(target=engine.shutdown, kwargs={"cancel": True}, daemon=True)
        closer.start()
        closer.join(PATIENCE)
        if closer.is_alive():
            for child in multiprocessing.active_children():
                child.kill()
            closer.join(PATIENCE)
        producers.join(0.1)
