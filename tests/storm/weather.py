"""A thread that does to the pool what nobody asked for: kills, stops, cancels, looks."""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import signal
import threading
import time
from random import Random

from scene import Scene
from support import stat_of


class Weather:
    """Of one round."""

    def __init__(self, scene: Scene, rng: Random) -> None:
        self._scene = scene
        self._rng = rng
        self._calm = threading.Event()
        self._timers: list[threading.Timer] = []  # each lets a stopped worker go on, also while this thread waits
        self._next_kill = self._when(scene.plan.kill_every)
        self._next_stop = self._when(scene.plan.stop_every)
        self._completed = 0  # tasks, at the last kill
        self._kills_left = 1 if scene.plan.breaks else 1000
        self._thread = threading.Thread(target=self._blow, name="weather")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Do no more; every stopped worker goes on."""
        self._calm.set()
        self._thread.join()
        for timer in self._timers:
            timer.join()

    def _when(self, mean: float | None) -> float:
        return float("inf") if mean is None else time.monotonic() + self._rng.uniform(0, 2 * mean)

    def _blow(self) -> None:
        try:
            while not self._calm.wait(self._rng.uniform(0, 0.02)):
                self._once()
        except BaseException as error:
            self._scene.account.fault(f"the weather ended with {error!r}")

    def _once(self) -> None:
        plan, now = self._scene.plan, time.monotonic()
        if now > self._next_kill and self._kills_left > 0 and self._may_kill():
            for _ in range(1 if self._rng.random() < 0.9 else 8):
                self._kills_left -= self._kill()
            self._next_kill = self._when(plan.kill_every)
        if now > self._next_stop:
            for _ in range(self._rng.choice((1, 1, 1, 8))):
                self._stop()
            self._next_stop = self._when(plan.stop_every)
        dice = self._rng.random()
        if dice < 0.2:
            self._look()
        elif dice < 0.5:
            self._cancel()

    # ---- signals ----

    def _choose(self) -> int | None:
        """The pidfd of a worker; None: there is none."""
        pool = self._scene.pool
        pids = list(pool._processes or ()) if pool is not None else []
        if not pids:
            return None
        pid = self._rng.choice(pids)
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if _is_ours(pid):  # the number does not belong to somebody else by now
            self._pid = pid
            return fd
        os.close(fd)
        return None

    def _may_kill(self) -> bool:
        """Deaths in a row break a pool that replaces; mostly it shall live."""
        pool = self._scene.pool
        if self._scene.plan.breaks or pool is None or self._rng.random() < 0.02:
            return True
        completed = pool.stats().completed
        if completed == self._completed:
            return False
        self._completed = completed
        return True

    def _kill(self) -> bool:
        fd = self._choose()
        if fd is None:
            return False
        self._scene.damage.kill(self._pid, -signal.SIGKILL)
        self._send(fd, signal.SIGKILL)
        os.close(fd)
        self._scene.account.count("kills")
        return True

    def _stop(self) -> None:
        fd = self._choose()
        if fd is not None:
            self._send(fd, signal.SIGSTOP)
            self._timers.append(threading.Timer(self._rng.uniform(0, 0.5), self._let_go_on, [fd]))
            self._timers[-1].start()
            self._scene.account.count("stops")

    def _let_go_on(self, fd: int) -> None:
        self._send(fd, signal.SIGCONT)
        os.close(fd)

    def _send(self, fd: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)

    # ---- calls ----

    def _look(self) -> None:
        """Numbers and invariants hold at any moment."""
        pool = self._scene.pool
        if pool is None:
            return
        with contextlib.suppress(RuntimeError):  # it has just ended
            pool._check()
        stats = pool.stats()
        if stats.finished > stats.submitted:
            self._scene.account.fault(f"more tasks finished than submitted: {stats}")

    def _cancel(self) -> None:
        """A few of the last tasks."""
        account = self._scene.account
        for task in account.tasks[-self._rng.randrange(1, 20) :]:
            if task.future is not None and self._rng.random() < 0.3:
                task.cancel(force=not self._scene.plan.breaks and self._rng.random() < 0.3)
                account.count("cancels tried")


def _is_ours(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and int(stat[1]) in (os.getpid(), multiprocessing.forkserver._forkserver._forkserver_pid)
