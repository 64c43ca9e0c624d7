"""The ways in which a round ends its executor, most of them while producers still submit."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from random import Random

from scene import Scene
from weather import Weather


class Troupe:
    """The threads of a round that submit."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def start(self, scene: Scene, name: str, run: Callable[[Scene, Random], None], rng: Random) -> None:
        """Start one."""

        def body() -> None:
            try:
                run(scene, rng)
            except BaseException as error:
                scene.account.fault(f"a producer ({name}) ended with {error!r}")

        thread = threading.Thread(target=body, name=name)
        self.threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait for all."""
        for thread in self.threads:
            thread.join()


def _drain(scene: Scene, troupe: Troupe, weather: Weather) -> None:
    scene.over.set()
    troupe.join()


def _shut(wait: bool, cancel: bool) -> Callable[[Scene, Troupe, Weather], None]:
    def end(scene: Scene, troupe: Troupe, weather: Weather) -> None:
        assert scene.pool is not None
        scene.damage.shut = True
        scene.damage.cancelled |= cancel
        scene.pool.shutdown(wait=wait, cancel_futures=cancel)

    return end


def _from_callback(scene: Scene, troupe: Troupe, weather: Weather) -> None:
    """The collector itself shuts down."""
    pool = scene.pool
    assert pool is not None
    scene.damage.shut = True
    done = threading.Event()

    def shut_down(_: object) -> None:
        pool.shutdown()
        done.set()

    task = scene.submit(Random(0), depth=9)
    if task is not None and task.future is not None:
        task.future.add_done_callback(shut_down)
        done.wait()


def _force(terminate: bool) -> Callable[[Scene, Troupe, Weather], None]:
    def end(scene: Scene, troupe: Troupe, weather: Weather) -> None:
        assert scene.pool is not None
        scene.damage.shut = scene.damage.forced = True
        scene.damage.died(-signal.SIGTERM if terminate else -signal.SIGKILL)
        scene.pool.terminate_workers() if terminate else scene.pool.kill_workers()

    return end


def _collect(scene: Scene, troupe: Troupe, weather: Weather) -> None:
    """The executor is let go while its tasks run."""
    _drain(scene, troupe, weather)
    weather.end()
    scene.damage.shut = scene.damage.collected = True
    scene.pool = None
    gc.collect()


KINDS: dict[str, Callable[[Scene, Troupe, Weather], None]] = {
    "drain": _drain,
    "shutdown": _shut(wait=True, cancel=False),
    "cancel": _shut(wait=True, cancel=True),
    "no wait": _shut(wait=False, cancel=False),
    "callback": _from_callback,
    "kill": _force(terminate=False),
    "terminate": _force(terminate=True),
    "collect": _collect,
}
