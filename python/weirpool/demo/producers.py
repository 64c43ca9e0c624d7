"""The producer threads: each reads a piece, submits it, and takes the next."""

import threading
import time

from .engines import Engine
from .folder import Piece
from .ledger import Ledger
from .work import compress
from .workload import Workload


class Producers:
    """A crew of threads that share one workload."""

    def __init__(self, count: int, engine: Engine, workload: Workload, ledger: Ledger) -> None:
        self._engine = engine
        self._workload = workload
        self._ledger = ledger
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._produce, name=f"producer-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No producer takes another piece."""
        self._stopping = True

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self, patience: float) -> None:
        """Waits for the end of every thread, at most so many seconds for all of them."""
        deadline = time.monotonic() + patience
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _produce(self) -> None:
        while not self._stopping and (dealt := self._workload.next()):
            if not self._feed(*dealt):
                return

    def _feed(self, number: int, piece: Piece) -> bool:
        """Reads and submits one piece; False when the pool takes no more."""
        try:
            data = piece.read()
        except OSError:
            self._workload.skip(piece)
            return True
        done = self._ledger.expect(number, data)
        try:
            self._engine.submit(compress, data, done)
        except Exception as error:  # also what has no place here: the ledger tells of it
            self._ledger.withdraw(number, error)
            return False
        return True
