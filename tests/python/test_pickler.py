"""`pickler=`: what a user's own pickler carries, and what happens when it does not."""

import array
import functools
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cloudpickle
import picklers
import pytest
import tasks
from support import Gate, Pools, Script, Threads, context, descendants, wait_until

import weirpool

CLASSES = [weirpool.ProcessPoolExecutor, weirpool.BoundedProcessPoolExecutor]
MIB = 1 << 20
HANG = 60.0


def module(name: str, **members: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(members)
    return made


# ---- Which picklers there are --------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("pickler", "error", "message"),
    [
        (7, TypeError, "7 has no dumps and no loads"),
        ("math", TypeError, "'math' has no dumps and no loads"),
        (types.SimpleNamespace(dumps=pickle.dumps), TypeError, "has no loads"),
        (types.SimpleNamespace(dumps=pickle.dumps, loads=None), TypeError, "has no loads"),
        (types.SimpleNamespace(dumps=b"", loads=pickle.loads), TypeError, "has no dumps"),
        ("", ValueError, "the full name of a module, not ''"),
        (".pickle", ValueError, "the full name of a module, not '.pickle'"),
        ("no_such_pickler", ModuleNotFoundError, "not installed: pip install no_such_pickler"),
        ("no_such.pickler", ModuleNotFoundError, "not installed: pip install no_such"),
    ],
    ids=repr,
)
def test_what_is_no_pickler_is_refused_and_starts_nothing(
    cls: type, pickler: Any, error: type[Exception], message: str
) -> None:
    before = descendants(os.getpid())
    with pytest.raises(error) as caught:
        cls(max_workers=2, pickler=pickler)
    assert message in str(caught.value)
    assert descendants(os.getpid()) == before


def test_the_error_of_a_module_that_lacks_another_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "incomplete_pickler.py").write_text("import what_it_lacks")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        weirpool.ProcessPoolExecutor(pickler="incomplete_pickler")
    assert caught.value.name == "what_it_lacks"


@pytest.mark.parametrize("pickler", ["pickle", pickle, "cloudpickle", cloudpickle], ids=str)
def test_a_module_or_its_name(pools: Pools, start_method: str, pickler: Any) -> None:
    pool = pools.bounded(4, 1, start_method, pickler=pickler)
    assert list(pool.map(tasks.square, range(5))) == [0, 1, 4, 9, 16]


def test_an_object_carries_tasks_results_and_exceptions(pools: Pools, start_method: str) -> None:
    pickler = picklers.Marking(b"mine")
    pool = pools.bounded(4, 1, start_method, pickler=pickler)
    assert pool.submit(tasks.everything, 1, key=[2]).result() == ((1,), {"key": [2]})
    failed = pool.submit(tasks.fail_with, tasks.OddError, 3).exception()
    assert isinstance(failed, tasks.OddError)
    assert failed.args == (3,)
    assert "in fail_with" in str(failed.__cause__)
    assert (pickler.dumped, pickler.loaded) == (2, 2)


def test_a_worker_that_takes_anothers_place_has_it_too(pools: Pools) -> None:
    pool = pools.unbounded(1, "spawn", max_tasks_per_child=1, pickler=picklers.Marking())
    assert len({pool.submit(tasks.pid).result() for _ in range(3)}) == 3


def test_an_object_that_cannot_be_handed_to_a_spawned_worker(pools: Pools) -> None:
    local = types.SimpleNamespace(dumps=lambda _: b"", loads=pickle.loads)
    pool = pools.unbounded(1, "spawn", pickler=local)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pool.submit(tasks.nothing)


def test_a_module_that_workers_do_not_find_breaks_the_pool(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module("only_in_the_parent", dumps=pickle.dumps, loads=pickle.loads)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    with pytest.raises(BrokenProcessPool):
        pools.unbounded(1, "spawn", pickler="only_in_the_parent").submit(tasks.nothing).result(HANG)


# ---- What dumps returns --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert", [bytes, bytearray, memoryview, pickle.PickleBuffer, functools.partial(array.array, "b")], ids=str
)
def test_any_buffer_will_do(pools: Pools, convert: Callable[[bytes], Any]) -> None:
    pool = pools.bounded(4, 1, "fork", pickler=picklers.Marking(convert=convert))
    for size in (0, 100, 1000, 100_000, 5 * MIB):
        assert pool.submit(tasks.echo, bytes(size)).result() == bytes(size)


def test_no_bytes_at_all(pools: Pools) -> None:
    """Everything is the same task, whose result is the pickler's."""
    task = types.SimpleNamespace(dumps=lambda _: b"", loads=lambda _: (tasks.nothing, (), {}))
    assert pools.unbounded(1, "fork", pickler=task).submit(tasks.square, 3).result() == (tasks.nothing, (), {})


@pytest.mark.parametrize("in_parent", [True, False], ids=["task", "result"])
def test_what_is_no_buffer_fails_the_future_alone(pools: Pools, in_parent: bool) -> None:
    def dumps(obj: Any) -> Any:
        return "text" if obj in (9, (tasks.square, (3,), {})) else picklers.Marking().dumps(obj)

    pool = pools.bounded(2, 1, "fork", pickler=picklers.InOneProcess(in_parent, dumps=dumps))
    error = pool.submit(tasks.square, 3).exception()
    assert isinstance(error, TypeError)
    assert "dumps() must return bytes, or another buffer, not str" in str(error)
    assert pool.submit(tasks.square, 4).result() == 16


def test_what_is_loaded_may_refer_to_its_bytes(pools: Pools) -> None:
    with pools.bounded(2, 1, "fork", pickler=picklers.Aliasing()) as pool:
        results = [pool.submit(bytes.replace, b"-" * size, b"-", b"+").result() for size in (10, 1000, MIB)]
    assert [bytes(result) for result in results] == [b"+" * size for size in (10, 1000, MIB)]


# ---- When it fails -------------------------------------------------------------------------------


def test_a_task_that_cannot_be_dumped_fails_its_future(pools: Pools) -> None:
    pool = pools.bounded(1, 1, "fork", pickler=picklers.InOneProcess(True, dumps=picklers.refuse))
    for _ in range(3):
        error = pool.submit(tasks.nothing).exception()
        assert isinstance(error, tasks.OddError)
        assert "in refuse" in str(error.__cause__)


def test_a_result_that_cannot_be_dumped_fails_its_future(pools: Pools, start_method: str) -> None:
    pool = pools.bounded(1, 1, start_method, pickler="cloudpickle")
    error = pool.submit(tasks.unpicklable_result).exception()
    assert isinstance(error, TypeError)
    assert pool.submit(tasks.square, 3).result() == 9


def test_an_exception_that_cannot_be_dumped(pools: Pools) -> None:
    pool = pools.bounded(1, 1, "fork", pickler="cloudpickle")
    assert "nobody may pickle this" in str(pool.submit(tasks.fail_with, tasks.SecretiveError).exception())
    assert pool.submit(tasks.square, 3).result() == 9


def test_ctrl_c_while_dumping_is_the_submitters(pools: Pools) -> None:
    pool = pools.bounded(1, 1, "fork", pickler=picklers.InOneProcess(True, dumps=picklers.interrupt))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            pool.submit(tasks.nothing)
    assert pool.stats().outstanding == 0


def test_ctrl_c_while_loading_is_the_askers(pools: Pools) -> None:
    interrupts = [picklers.interrupt]

    def loads(data: bytes) -> Any:
        return interrupts.pop()(data) if interrupts else picklers.Marking().loads(data)

    pool = pools.bounded(1, 1, "fork", pickler=picklers.InOneProcess(True, loads=loads))
    future = pool.submit(tasks.square, 3)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert future.result() == 9


@pytest.mark.parametrize("loads", [picklers.refuse, list], ids=["raises", "returns another type"])
def test_a_task_that_cannot_be_loaded_breaks_the_pool(pools: Pools, loads: Any) -> None:
    pool = pools.bounded(2, 1, "fork", pickler=picklers.InOneProcess(False, loads=loads))
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing).result(HANG)
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing)


def test_a_worker_that_can_send_nothing_back_breaks_the_pool(pools: Pools) -> None:
    pool = pools.bounded(2, 1, "fork", pickler=picklers.InOneProcess(False, dumps=picklers.refuse))
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing).result(HANG)


def test_a_result_that_cannot_be_loaded_breaks_the_pool(pools: Pools) -> None:
    pool = pools.bounded(2, 1, "fork", pickler=picklers.InOneProcess(True, loads=picklers.refuse))
    with pytest.raises(BrokenProcessPool) as caught:
        pool.submit(tasks.nothing).result(HANG)
    assert "this pickler refuses" in str(caught.value.__cause__)


# ---- Standing in line ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 3 * MIB], ids=["small", "large"])
def test_tasks_that_wait_for_room_arrive(pools: Pools, gate: Gate, threads: Threads, size: int) -> None:
    pool = pools.bounded(1, 1, "fork", pickler=picklers.Marking())
    pool.submit(tasks.hold, gate.folder)
    for number in range(4):
        threads.start(lambda number=number: pool.submit(tasks.echo, bytes([number]) * size).result())
    wait_until(lambda: pool.stats().blocked_producers == 4, "every producer waits")
    gate.open()
    assert sorted(threads.join()) == [bytes([number]) * size for number in range(4)]


def test_dumping_that_fails_while_the_pool_is_full(pools: Pools, gate: Gate) -> None:
    pool = pools.bounded(1, 1, "fork", pickler="cloudpickle")
    held = pool.submit(tasks.hold, gate.folder)
    assert isinstance(pool.submit(tasks.echo, tasks.RefusesPickling()).exception(), tasks.OddError)
    gate.open()
    held.result()


def test_dumping_that_submits(pools: Pools, start_method: str) -> None:
    pickler = picklers.Submitting()
    pool = pools.bounded(1, 1, start_method, pickler=pickler)
    pickler.pool = pool
    assert [pool.submit(tasks.echo, number).result() for number in range(5)] == list(range(5))
    pickler.pool = None
    assert [future.result() for future in pickler.futures] == [0, 1, 4, 9, 16]


# ---- cloudpickle ---------------------------------------------------------------------------------


def test_lambdas_closures_and_local_classes(pools: Pools, start_method: str) -> None:
    class Local:
        def __init__(self, number: int) -> None:
            self.number = number

    class LocalError(Exception):
        pass

    def fail(number: int) -> None:
        raise LocalError(number)

    factor = 5
    pool = pools.bounded(2, 1, start_method, pickler="cloudpickle")
    assert pool.submit(lambda number: number * factor, 3).result() == 15
    assert pool.submit(lambda make: make(2), lambda number: [number]).result() == [2]
    assert pool.submit(lambda: lambda: factor).result()() == factor
    back = pool.submit(lambda one: Local(one.number + 1), Local(1)).result()
    assert isinstance(back, Local)
    assert back.number == 2
    error = pool.submit(fail, 3).exception()
    assert isinstance(error, LocalError)
    assert error.args == (3,)
    assert "LocalError" in str(error.__cause__)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_mapping_a_lambda(pools: Pools, start_method: str, chunksize: int) -> None:
    pool = pools.bounded(2, 2, start_method, pickler="cloudpickle")
    assert list(pool.map(lambda *pair: sum(pair), range(10), range(10), chunksize=chunksize)) == list(range(0, 20, 2))


def test_an_initializer_and_what_only_multiprocessing_can_hand_over(pools: Pools, start_method: str) -> None:
    local = "told"
    lock = multiprocessing.get_context(start_method).Lock()

    def initialize(*given: Any) -> None:
        tasks.initialize((local, *given))

    pool = pools.bounded(2, 1, start_method, initializer=initialize, initargs=(lock, 7), pickler="cloudpickle")
    lock.acquire()
    assert pool.submit(lambda: (tasks.initialized()[0], tasks.initialized()[2])).result() == ("told", 7)
    assert pool.submit(lambda: tasks.initialized()[1].acquire(False)).result() is False
    lock.release()


def test_an_initializer_that_fails_breaks_the_pool(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(1, start_method, initializer=lambda: 1 / 0, pickler="cloudpickle")
    with pytest.raises(BrokenProcessPool):
        pool.submit(tasks.nothing).result(HANG)


def test_a_pickler_may_carry_closures_and_connections(pools: Pools, start_method: str) -> None:
    pool = pools.unbounded(1, start_method, pickler=picklers.WithConnections())
    reader, writer = multiprocessing.Pipe(duplex=False)
    said = ["hello"]
    try:
        with reader, writer:
            pool.submit(lambda connection: tasks.send(connection, said), writer).result()
            assert reader.poll(HANG)
            assert reader.recv() == said
    finally:
        multiprocessing.resource_sharer.stop(timeout=10)


# ---- __main__ ------------------------------------------------------------------------------------

IN_MAIN = """
    class Point:
        def __init__(self, x):
            self.x = x
    class PointError(Exception):
        pass
    def double(point):
        return Point(2 * point.x)
    def fail(point):
        raise PointError(point.x)
    def initialize():
        import builtins
        builtins.told = Point(4)
    with weirpool.BoundedProcessPoolExecutor(
        2, 1, multiprocessing.get_context(method), initialize, pickler="cloudpickle"
    ) as pool:
        assert type(pool.submit(double, Point(3)).result()) is Point
        assert [point.x for point in pool.map(double, map(Point, range(5)), chunksize=2)] == [0, 2, 4, 6, 8]
        assert type(pool.submit(fail, Point(3)).exception()) is PointError
        assert pool.submit(lambda: told.x).result() == 4
        print("done")
"""


def test_what_a_script_defines(script: Callable[..., Script], start_method: str) -> None:
    assert script(f"    method = '{start_method}'{IN_MAIN}").finish() == ["done"]


HEAD = "import multiprocessing, sys, weirpool\nmethod = sys.argv[1]\n"
NOTEBOOKS = {
    "python -c": "{code}",
    "console": """
        import code, sys
        console = code.InteractiveConsole(vars(sys.modules["__main__"]))
        console.runcode(compile({code!r}, "<input>", "exec"))
    """,
    "fake main": """
        import sys, types
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec({code!r}, vars(sys.modules["__main__"]))
    """,
}


@pytest.mark.parametrize("kind", NOTEBOOKS)
def test_what_a_notebook_defines(start_method: str, tmp_path: Path, kind: str) -> None:
    """Their main module has no file that another process could run."""
    program = textwrap.dedent(NOTEBOOKS[kind]).format(code=HEAD + textwrap.dedent(IN_MAIN))
    command = [sys.executable, "-c", program, start_method]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_pool_that_never_started_holds_nothing() -> None:
    weirpool.ProcessPoolExecutor(1, context("spawn"), pickler="cloudpickle").shutdown()
