"""What the tests run in worker processes: importable there, whatever the start method."""

import asyncio
import ctypes
import dataclasses
import itertools
import logging
import logging.handlers
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import types
import uuid
import zlib
from collections.abc import Callable
from multiprocessing import reduction, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

PATIENCE = 90.0  # seconds after which a task that waits for its test gives up


# ---- Plain results -------------------------------------------------------------------------------


def nothing() -> None:
    pass


def nothing_with(_: Any) -> None:
    pass


def send(connection: Any, message: Any) -> None:
    with connection:
        connection.send(message)


def echo(value: Any = None) -> Any:
    return value


def square(number: int) -> int:
    return number * number


def add(left: int, right: int) -> int:
    return left + right


def everything(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def apply(call: tuple[Any, ...]) -> Any:
    return call[0](*call[1:])


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def pid(_: Any = None) -> int:
    return os.getpid()


def log(path: str, line: Any) -> Any:
    """Appends a line; one write, so that lines of several processes do not mix."""
    with open(path, "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())
    return line


def log_with(path: str, line: Any, _: Any) -> Any:
    return log(path, line)


def nap_and_echo(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


def nap_and_log(seconds: float, path: str, line: Any) -> Any:
    time.sleep(seconds)
    return log(path, line)


def changeable() -> str:
    return "as it was"


def change() -> None:
    global changeable

    def changeable() -> str:
        return "changed"


def changeable_too(value: Any) -> Any:
    return value


def call_changeable(name: str) -> None:
    """From now on `changeable_too` means another function of this module."""
    globals()["changeable_too"] = globals()[name]


def remove_changeable() -> None:
    del globals()["changeable"]


def import_anew(name: str, body: str) -> None:
    del sys.modules[name]
    module = types.ModuleType(name)
    exec(f"def version():\n    {body}\n", module.__dict__)
    sys.modules[name] = module


@dataclasses.dataclass
class Circle:
    radius: int

    def area(self) -> int:
        return 3 * self.radius**2


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, number: int) -> int:
        return number * self.factor

    __call__ = times


# ---- Tasks that a test holds and lets go ---------------------------------------------------------


def hold(folder: str, value: Any = None) -> Any:
    """Leaves a file that says it has started, then waits until the test opens the gate (support.Gate)."""
    (Path(folder) / f"started-{uuid.uuid4()}").touch()
    deadline = time.monotonic() + PATIENCE
    while not (Path(folder) / "open").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the test never opened the gate")
        time.sleep(0.002)
    return value


def hold_and_tell(folder: str, path: str) -> int:
    """As hold(), by a worker that is known by then."""
    log(path, os.getpid())
    hold(folder)
    return os.getpid()


def hold_whatever_comes(folder: str) -> None:
    """As hold(), and Ctrl-C does not end it."""
    while True:
        try:
            hold(folder)
            return
        except KeyboardInterrupt:
            pass


def hold_and_log(folder: str, path: str, line: Any) -> Any:
    hold(folder)
    return log(path, line)


# ---- Errors --------------------------------------------------------------------------------------


class OddError(Exception):
    """An exception of the user's own."""


class NoExceptionError(BaseException):
    """One that ``except Exception`` does not catch."""


def raise_it(error: BaseException) -> Callable[[], NoReturn]:
    def raise_it() -> NoReturn:
        raise error

    return raise_it


class FalsyError(Exception):
    def __bool__(self) -> bool:
        return False


class HalfPickledError(Exception):
    """Can be pickled, cannot be rebuilt: the arguments that it hands on are not those it takes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class SecretiveError(Exception):
    """Cannot be pickled."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("nobody may pickle this")


def fail(error: BaseException) -> NoReturn:
    raise error


def fail_with(kind: type[BaseException], *args: Any) -> NoReturn:
    raise kind(*args)


def fail_on(bad: int, number: int) -> int:
    if number == bad:
        raise OddError(number)
    return number


def return_error() -> Exception:
    return OddError("returned, not raised")


def unpicklable_result() -> Any:
    return threading.Lock()


# ---- Objects that do something when they are pickled or rebuilt ----------------------------------


class RefusesPickling:
    def __reduce__(self) -> NoReturn:
        raise OddError("not this one")


class CallsWhenPickled:
    """Runs `call` in the process that pickles it; travels as None."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        self.call()
        return echo, ()


class DiesWhenPickled:
    def __reduce__(self) -> NoReturn:
        die()


class DiesWhenRebuilt:
    def __reduce__(self) -> tuple[Any, ...]:
        return die, ()


class FailsWhenRebuilt:
    def __reduce__(self) -> tuple[Any, ...]:
        return fail, (OddError("cannot be rebuilt"),)


class FailsWhenRebuiltAs:
    """Where it is unpickled this kind of error is raised, each time."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return fail_with, (self.error, "cannot be rebuilt")


def make_failing_to_rebuild(error: type[BaseException]) -> FailsWhenRebuiltAs:
    return FailsWhenRebuiltAs(error)


def echo_failing_to_rebuild() -> FailsWhenRebuilt:
    return FailsWhenRebuilt()


class Counted:
    """Counts how often it was rebuilt in this process."""

    rebuilt = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_counted, ()


def rebuild_counted() -> Counted:
    Counted.rebuilt += 1
    return Counted()


class Box:
    """Can be weakly referenced, and holds what it is given."""

    def __init__(self, content: Any = None) -> None:
        self.content = content


def dying_result(size: int) -> list[Any]:
    return [bytes(size), DiesWhenPickled()]


# ---- Bytes ---------------------------------------------------------------------------------------


def checked(data: Any, crc: int) -> Any:
    """Returns the data if they arrived as they were sent."""
    if zlib.crc32(data) != crc:
        raise ValueError(f"{len(data)} bytes arrived damaged")
    return data


def log_damage(path: str, data: bytes, crc: int) -> None:
    if zlib.crc32(data) != crc:
        log(path, f"{len(data)} bytes, {data.count(0)} of them 0")


def size_of(data: Any) -> int:
    return len(data)


def zeros(size: int) -> bytes:
    return bytes(size)


def start_then_return(folder: str, size: int) -> bytes:
    """Says that it has started, then returns much at once."""
    (Path(folder) / f"started-{uuid.uuid4()}").touch()
    return bytes(size)


def tell_then_return(path: str, size: int) -> bytes:
    """Says who it is, then returns much at once."""
    log(path, os.getpid())
    return bytes(size)


def copies(size: int, count: int) -> list[bytes]:
    """Of one object, so that it takes less memory here than in a pickle."""
    return [b"%d" % number * (size // len(b"%d" % number)) for number in range(count)]


def double_in_place(array: Any) -> Any:
    array *= 2
    return array


# ---- Ends of processes ---------------------------------------------------------------------------


def die(_: Any = None) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def kill_me(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int = 0) -> NoReturn:
    os._exit(code)


def note_attempt(folder: str) -> int:
    """Leaves a file for each time that it is called, and returns how many there are."""
    (Path(folder) / f"attempt-{uuid.uuid4()}").touch()
    return sum(name.startswith("attempt-") for name in os.listdir(folder))


def die_before(attempt: int, folder: str, value: Any = None) -> Any:
    """Kills its worker at every attempt before that one."""
    if note_attempt(folder) < attempt:
        die()
    return value


def nap_before(attempt: int, folder: str, value: Any = None) -> Any:
    """Runs over its time at every attempt before that one."""
    if note_attempt(folder) < attempt:
        time.sleep(PATIENCE)
    return value


def note_and_hold(folder: str, gate: str) -> None:
    note_attempt(folder)
    hold(gate)


def log_attempt(folder: str, call: Callable[[], Any]) -> Any:
    note_attempt(folder)
    return call()


def never_return_to_the_interpreter() -> bool:
    """No signal handler of Python's runs meanwhile."""
    return any(itertools.repeat(0))


def stop_myself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


_kept: list[bytes] = []


def keep_memory(size: int) -> int:
    """As a task that leaks."""
    _kept.append(b"x" * size)
    return os.getpid()


def fork_and_both_return() -> int:
    """The forked child runs on as if it were the worker."""
    os.fork()
    return os.getpid()


def fork_and_reap() -> int:
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---- Initializers --------------------------------------------------------------------------------

_initialized: Any = None


def initialize(value: Any) -> None:
    global _initialized
    _initialized = value


def initialized() -> Any:
    return _initialized


def fail_to_initialize() -> NoReturn:
    raise OddError("this worker does not start")


def linger_and_fail() -> NoReturn:
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    fail_to_initialize()


def hold_at_exit(seconds: float, folder: str) -> None:
    """So long that others run, too; then, when this process leaves, as hold()."""
    util.Finalize(None, hold, (folder,), exitpriority=1)
    time.sleep(seconds)


def hold_and_fail(folder: str) -> NoReturn:
    hold(folder)
    raise OddError("this worker does not start")


# ---- Pools in workers ----------------------------------------------------------------------------

inherited: dict[str, Any] = {}  # what a test leaves for forked processes


def use_inherited_pool() -> None:
    inherited["pool"].submit(nothing)


def run_own_pool(method: str) -> int:
    import multiprocessing

    import weirpool

    with weirpool.BoundedProcessPoolExecutor(2, 1, multiprocessing.get_context(method)) as pool:
        return sum(pool.map(square, range(5)))


def run_in_process(fn: Callable[..., Any], *args: Any) -> Any:
    """Returns what a process that this one spawns returns."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(fn, *args).result()


# ---- Other libraries -----------------------------------------------------------------------------


def say(text: str) -> None:
    """Through Python's output, and past it."""
    print(f"printed {text}", flush=True)
    os.write(1, f"written {text}\n".encode())


def answer(endpoint: socket.socket) -> bytes:
    with endpoint:
        question = endpoint.recv(100)
        endpoint.sendall(b"answer")
    return question


class HandedOver:
    """A socket that is closed here once it has been pickled; what arrives is a socket."""

    def __init__(self, sent: socket.socket) -> None:
        self.sent = sent

    def __reduce__(self) -> Any:
        with self.sent:
            return reduction._reduce_socket(self.sent)  # type: ignore[attr-defined]


def open_socket() -> HandedOver:
    left, right = socket.socketpair()
    with right:
        right.sendall(b"hello")
    return HandedOver(left)


def open_pipe() -> Connection:
    reader, writer = multiprocessing.Pipe(duplex=False)
    with writer:
        writer.send("hello")
    return reader


def hand_logging_over(queue: Any) -> None:
    """An initializer: the parent's handlers get what is logged here."""
    root = logging.getLogger()
    root.handlers = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.INFO)


def log_info(text: str) -> None:
    logging.getLogger("tasks").info("%s from %d", text, os.getpid())


def put_under_lock(lock: Any, mapping: Any, queue: Any, key: Any) -> int:
    with lock:
        mapping[key] = os.getpid()
    queue.put(key)
    return os.getpid()


def advance_a_bar(number: int) -> int:
    """Draws under the lock that all processes share."""
    from tqdm import tqdm

    for _ in tqdm(range(3), desc=f"task {number}"):
        pass
    return number * number


def increment_frame(frame: Any) -> Any:
    """In place."""
    frame.loc[:, "a"] += 1
    return frame


# ---- What a task leaves behind, and what it does to its process ----------------------------------


def leave_sleeper(path: str, value: Any = None) -> Any:
    """Leaves a daemon that holds every descriptor of this process, and logs its pid."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            log(path, os.getpid())
            time.sleep(PATIENCE)
        os._exit(0)
    os.waitpid(child, 0)
    while not Path(path).exists():
        time.sleep(0.002)
    return value


def leave_sleeper_and(path: str, fn: Callable[..., Any], *args: Any) -> Any:
    leave_sleeper(path)
    return fn(*args)


def leave_child(path: str, value: Any = None) -> Any:
    """Leaves a child that nobody waits for, and that holds every descriptor of this process."""
    child = os.fork()
    if child == 0:
        time.sleep(PATIENCE)
        os._exit(0)
    log(path, child)
    return value


def segfault() -> None:
    ctypes.string_at(0)


def limit(resource_name: str, room: int) -> None:
    """From now on this process may have so much more of it than it has."""
    import resource

    which = getattr(resource, resource_name)
    soft = address_space() + room if resource_name == "RLIMIT_AS" else free_descriptors(room + 1)[-1]
    resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))


def address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


def free_descriptors(count: int) -> list[int]:
    """The next ones that will be used."""
    used = set(map(int, os.listdir("/proc/self/fd")))
    return [number for number in range(len(used) + count) if number not in used][:count]


def fill_memory(size: int) -> int:
    """Touches every page of so many bytes."""
    return len(b"x" * size)


class CallsWhenRebuilt:
    """Where `call_when_rebuilt` is set it is called by the process that unpickles this."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if call_when_rebuilt is not None:
            call_when_rebuilt()


class CallsWhenDropped:
    """Where `call_when_dropped` is set it is called by the process that forgets this."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        if call_when_dropped is not None:
            call_when_dropped()


call_when_rebuilt: Callable[[], object] | None = None  # tests set them, in their own process
call_when_dropped: Callable[[], object] | None = None


# ---- In the program's own process ----------------------------------------------------------------


async def run_together(pool: Any, count: int, fn: Callable[..., Any], *args: Any) -> list[Any]:
    """So many calls in a pool, which is shut down when they have ended or one has failed."""
    async with pool:
        return await asyncio.gather(*(pool.arun(fn, *args) for _ in range(count)))
