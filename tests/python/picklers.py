"""Picklers of a user's own: what the tests hand to pools, importable in workers."""

import collections
import io
import os
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar, NoReturn

import cloudpickle
import tasks


class Marking:
    """Marks what it dumps, and loads nothing else. `convert` makes its bytes another buffer."""

    def __init__(self, mark: bytes = b"marked", convert: Callable[[bytes], Any] = bytes) -> None:
        self.mark = mark
        self.convert = convert
        self.dumped = 0  # in this process
        self.loaded = 0

    def dumps(self, obj: Any) -> Any:
        self.dumped += 1
        return self.convert(self.mark + pickle.dumps(obj))

    def loads(self, data: bytes) -> Any:
        self.loaded += 1
        if not data.startswith(self.mark):
            raise ValueError("not mine")
        return pickle.loads(data[len(self.mark) :])


class InOneProcess(Marking):
    """Does something odd in the process that made it, or in all others."""

    def __init__(self, in_parent: bool, **odd: Callable[[Any], Any]) -> None:
        super().__init__()
        self.parent = os.getpid()
        self.in_parent = in_parent
        self.odd = odd

    def choose(self, name: str) -> Callable[[Any], Any]:
        here = (os.getpid() == self.parent) == self.in_parent
        return self.odd[name] if here and name in self.odd else getattr(super(), name)

    def dumps(self, obj: Any) -> Any:
        return self.choose("dumps")(obj)

    def loads(self, data: bytes) -> Any:
        return self.choose("loads")(data)


def refuse(_: Any) -> NoReturn:
    raise tasks.OddError("this pickler refuses")


def interrupt(_: Any) -> NoReturn:
    raise KeyboardInterrupt


class Aliasing:
    """What it loads refers to the bytes that it was given."""

    def dumps(self, obj: Any) -> bytes:
        return b"raw " + obj if isinstance(obj, bytes) else pickle.dumps(obj)

    def loads(self, data: bytes) -> Any:
        return memoryview(data)[4:] if data.startswith(b"raw ") else pickle.loads(data)


class Submitting(Marking):
    """Has another task executed for each task that it dumps."""

    pool: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.parent = os.getpid()
        self.futures: list[Any] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Marking, ()

    def dumps(self, obj: Any) -> Any:
        if self.pool is not None and os.getpid() == self.parent and obj[0] is not tasks.square:
            self.futures.append(self.pool.submit(tasks.square, len(self.futures)))
        return super().dumps(obj)


class ConnectionPickler(cloudpickle.CloudPickler):
    dispatch_table: ClassVar[Any] = collections.ChainMap(
        ForkingPickler._extra_reducers, cloudpickle.CloudPickler.dispatch_table
    )


class WithConnections:
    """Carries what cloudpickle carries, and what multiprocessing does."""

    def dumps(self, obj: Any) -> Any:
        file = io.BytesIO()
        ConnectionPickler(file).dump(obj)
        return file.getbuffer()

    loads = staticmethod(pickle.loads)
