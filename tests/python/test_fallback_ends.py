"""The fall-back when something comes in between: signal handlers, Ctrl-C, deaths, calls that nobody will read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import Gate, Script, wait_asleep

Start = Callable[..., Script]


@pytest.fixture(autouse=True)
def on_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIRPOOL_ENGINE", "stdlib")


# ---- signal handlers, and Ctrl-C -----------------------------------------------------------------


@pytest.mark.parametrize("held", ["pool._weir._gate._lock", "second._condition"], ids=["gate", "future"])
def test_a_signal_handler_that_submits_while_a_task_is_handed_over(script: Start, gate: Gate, held: str) -> None:
    """It may come upon whatever lock its thread holds, one that the keeper wants meanwhile."""
    lines = script(
        f"""
        from weirpool import _gate, process
        pool = weirpool.BoundedProcessPoolExecutor(8, 1)
        first = pool.submit(tasks.hold, sys.argv[1])
        second = pool.submit(tasks.square, 2)
        soon(first.running, "the first runs")
        reached = threading.Event()

        def announced(function):
            def call(self, *args):
                reached.set()
                return function(self, *args)
            return call

        _gate.Gate._start = announced(_gate.Gate._start)
        process.Future.set_running_or_notify_cancel = announced(process.Future.set_running_or_notify_cancel)
        with {held}:
            open(os.path.join(sys.argv[1], "open"), "w").close()
            reached.wait()
            third = pool.submit(tasks.square, 3)  # a handler does so
        say(second.result(), third.result())
        pool.shutdown()
        say(pool.stats().outstanding)
        """,
        gate.folder,
    ).finish()
    assert lines == ["4 9", "0"]


# Raises KeyboardInterrupt where a signal handler could: when a function is entered, or one in C has returned.
INTERRUPT = """
        class Interrupt:
            def __init__(self, moment):
                self.left = moment

            def __enter__(self):
                sys.setprofile(self.look)

            def __exit__(self, *_):
                sys.setprofile(None)

            def look(self, frame, event, what):
                if event not in ("call", "c_return") or frame.f_code is Interrupt.__exit__.__code__:
                    return
                if frame.f_code.co_filename == __file__ or is_within(frame, "__del__"):
                    return
                self.left -= 1
                if self.left == 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        def is_within(frame, name):
            while frame is not None and frame.f_code.co_name != name:
                frame = frame.f_back
            return frame is not None  # what is raised there is printed and dropped, by Python

        def at_each_moment(action, check):
            moment = 0
            while True:
                moment += 1
                interrupt = Interrupt(moment)
                result = None
                try:
                    with interrupt:
                        result = action()
                except KeyboardInterrupt:
                    pass
                try:
                    check(result)
                except BaseException:
                    say("moment", moment)
                    raise
                if interrupt.left > 0:
                    return moment
"""


def test_ctrl_c_at_any_moment_of_cancel(script: Start, gate: Gate) -> None:
    """Nothing was done, or: it is cancelled, its callback was called, who waits is told, and its permit is back."""
    *_, last = script(
        f"""
        {INTERRUPT}
        pool = weirpool.BoundedProcessPoolExecutor(3, 1)
        pool.submit(tasks.hold, sys.argv[1])
        soon(lambda: pool.stats().running == 1, "it runs")
        told = []
        futures = []

        def action():
            futures[-1].cancel()

        def prepare():
            futures.append(pool.submit(tasks.nothing))
            futures[-1].add_done_callback(told.append)

        def check(_):
            future = futures[-1]
            if not future.cancelled():
                assert future.cancel()
            assert not wait([future], 60).not_done, "who waits is told"
            soon(lambda: pool.stats().outstanding == 1, "its permit is back")
            soon(lambda: told == futures, "its callback was called")
            prepare()

        prepare()
        moments = at_each_moment(action, check)
        pool._check()
        open(os.path.join(sys.argv[1], "open"), "w").close()
        pool.shutdown()
        say(moments > 10, pool.stats().outstanding, pool.stats().cancelled == moments)
        """,
        gate.folder,
    ).finish()
    assert last == "True 0 True"


@pytest.mark.parametrize("room", [True, False], ids=["room", "no room"])
def test_ctrl_c_at_any_moment_of_submit(script: Start, gate: Gate, room: bool) -> None:
    """No permit is lost. A task whose future nobody got does not wait for a worker."""
    lines = script(
        f"""
        {INTERRUPT}
        room = {room}
        pool = weirpool.BoundedProcessPoolExecutor(3 if room else 1, 1)
        if room:
            pool.submit(tasks.hold, sys.argv[1])
            soon(lambda: pool.stats().running == 1, "it runs")

        def action():
            if not room:
                pool.submit(tasks.nap, 0.02)
            return pool.submit(tasks.nothing)

        def check(future):
            if room:
                if future is not None:
                    assert future.cancel()
                soon(lambda: pool.stats().outstanding == 1, "the permit is back")
                soon(lambda: len(pool._engine._waiting) == 0, "nothing waits")
            else:
                soon(lambda: pool.stats().outstanding == 0, "the permits are back")
            pool._check()

        if not room:
            pool.submit(tasks.nothing).result()
            soon(lambda: pool.stats().outstanding == 0, "the first permit is back")
        moments = at_each_moment(action, check)
        open(os.path.join(sys.argv[1], "open"), "w").close()
        pool.shutdown()
        say(moments > 20, pool.stats().outstanding, pool.stats().blocked_producers)
        """,
        gate.folder,
    ).finish()
    assert lines[-1] == "True 0 0"


def test_who_catches_ctrl_c_can_submit_at_once(script: Start) -> None:
    """While it is handled its traceback keeps what the frames of the submission held."""
    lines = script(
        f"""
        {INTERRUPT}
        pool = weirpool.BoundedProcessPoolExecutor(1, 1)
        pool.submit(tasks.nothing).result()
        moment = 0
        while True:
            moment += 1
            interrupt = Interrupt(moment)
            soon(lambda: pool.stats().outstanding == 0, "the permit is back")
            try:
                with interrupt:
                    pool.submit(tasks.nothing)
            except KeyboardInterrupt:
                assert pool.submit(tasks.square, 3).result(60) == 9
            if interrupt.left > 0:
                break
        pool.shutdown()
        say(moment > 20)
        """
    ).finish()
    assert lines == ["True"]


@pytest.mark.race
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_one_ctrl_c_ends_the_program(script: Start, gate: Gate, method: str) -> None:
    """What waits is not handed over to a worker whose task it has interrupted: the program is about to cancel it."""
    program = script(
        f"""
        try:
            with weirpool.BoundedProcessPoolExecutor(3, 2, multiprocessing.get_context({method!r})) as pool:
                held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(3)]
                soon(lambda: len(os.listdir(sys.argv[1])) == 2, "two run")
                say("ready")
                held[0].result()
        except KeyboardInterrupt:
            say("interrupted", held[-1].cancelled())
        """,
        gate.folder,
    )
    assert program.line() == "ready"
    wait_asleep(program.pid)
    program.ctrl_c()
    assert program.finish() == ["interrupted True"]
    program.leaves_nothing()


# ---- order ---------------------------------------------------------------------------------------


def test_tasks_run_in_the_order_in_which_they_were_admitted(script: Start, gate: Gate, tmp_path: Path) -> None:
    """Although the threads that were may go on in another."""
    script(
        """
        with weirpool.BoundedProcessPoolExecutor(9, 1) as pool:
            pool.submit(tasks.hold, sys.argv[1])
            soon(lambda: pool.stats().running == 1, "it runs")
            permits = [pool._admit() for _ in range(6)]
            for number in 0, 3, 1, 5, 2, 4:
                pool._submit_with(permits[number], tasks.log, (sys.argv[2], number), {})
            open(os.path.join(sys.argv[1], "open"), "w").close()
        """,
        gate.folder,
        tmp_path / "log",
    ).finish()
    assert (tmp_path / "log").read_text().split() == list("012345")


# ---- coroutines ----------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_twelve_coroutines_learn_at_once_of_a_killed_worker(script: Start, gate: Gate, method: str) -> None:
    lines = script(
        f"""
        import asyncio
        pool = weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context({method!r}))
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(2)]
        soon(lambda: len(os.listdir(sys.argv[1])) == 2, "both run")
        *_, victim = pool._processes

        async def main():
            calls = [asyncio.ensure_future(pool.arun(tasks.nothing)) for _ in range(12)]
            while pool.stats().blocked_producers < 12:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            ends = await asyncio.gather(*calls, return_exceptions=True)
            return ends, time.monotonic() - began

        ends, seconds = asyncio.run(main())
        say(len(ends), {{type(error).__name__ for error in ends}}, seconds)
        say(*{{(error.__cause__.pid == victim, error.__cause__.signal, "signal 9" in str(error.__cause__))
              for error in ends}})
        pool.shutdown()
        say(pool.stats().outstanding, pool.stats().blocked_producers)
        """,
        gate.folder,
    ).finish()
    count, kinds, seconds = lines[0].split()
    assert (count, kinds) == ("12", "{'BrokenProcessPool'}")
    assert float(seconds) < 1
    assert lines[1:] == ["(True, 'SIGKILL', True)", "0 0"]


def test_a_coroutine_that_comes_when_the_pool_has_broken(script: Start) -> None:
    lines = script("""
        import asyncio
        pool = weirpool.BoundedProcessPoolExecutor(2, 2)
        running = pool.submit(tasks.nap, 60)
        victim = next(iter(pool._processes))
        os.kill(victim, signal.SIGKILL)
        running.exception()
        soon(lambda: pool._executor_manager_thread is None, "it has ended")

        async def come():
            return await asyncio.gather(pool.arun(tasks.nothing), return_exceptions=True)

        (error,) = asyncio.run(come())
        say(type(error).__name__, error.__cause__.pid == victim)
        pool.shutdown()
        (error,) = asyncio.run(come())
        say(type(error).__name__, error.__cause__.pid == victim)
    """).finish()
    assert lines == ["BrokenProcessPool True"] * 2


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_stopped_loop_keeps_nobody_waiting(script: Start, gate: Gate, size: int) -> None:
    lines = script(
        f"""
        import asyncio
        pool = weirpool.BoundedProcessPoolExecutor(1, 1)
        pool.submit(tasks.hold, sys.argv[1])
        loop = asyncio.new_event_loop()
        calls = [loop.create_task(pool.arun(len, bytes({size}))) for _ in range(3)]
        while pool.stats().blocked_producers < 3:
            loop.run_until_complete(asyncio.sleep(0.01))
        results = []

        def produce():
            results.append(pool.submit(tasks.square, 3).result())

        threads = [threading.Thread(target=produce) for _ in range(3)]
        for thread in threads:
            thread.start()
        soon(lambda: pool.stats().blocked_producers == 6, "threads wait behind it")
        open(os.path.join(sys.argv[1], "open"), "w").close()
        for thread in threads:
            thread.join(60)
        say(*results, *loop.run_until_complete(asyncio.gather(*calls)))
        loop.close()
        pool.shutdown()
        """,
        gate.folder,
    ).finish()
    assert lines == [f"9 9 9 {size} {size} {size}"]


def test_a_shutdown_that_stops_its_loop_waits_for_no_coroutine(script: Start, gate: Gate) -> None:
    """Each call was admitted and runs, or is turned away."""
    lines = script(
        """
        import asyncio
        pool = weirpool.BoundedProcessPoolExecutor(2, 2)
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(2)]

        async def main():
            calls = [asyncio.ensure_future(pool.arun(len, bytes(100_000))) for _ in range(8)]
            while pool.stats().blocked_producers < 8:
                await asyncio.sleep(0.01)
            open(os.path.join(sys.argv[1], "open"), "w").close()
            pool.shutdown(wait=True)
            return await asyncio.gather(*calls, return_exceptions=True)

        ends = asyncio.run(main())
        done = [end for end in ends if end == 100_000]
        away = [end for end in ends if type(end) is RuntimeError and "after shutdown" in str(end)]
        say(len(done) + len(away), pool.stats().outstanding)
        """,
        gate.folder,
    ).finish()
    assert lines == ["8 0"]


# ---- deaths, and calls that nobody will read -----------------------------------------------------

MUCH = 10_000_000


def test_a_large_call_that_no_worker_is_left_for(script: Start) -> None:
    """Its pipe is full, and nobody reads it any more."""
    lines = script(f"""
        from unittest import mock
        context = multiprocessing.get_context("forkserver")
        pool = weirpool.BoundedProcessPoolExecutor(4, 1, context, max_tasks_per_child=1)
        first = pool.submit(tasks.nap, 0.3)
        with mock.patch.object(context, "Process", side_effect=OSError("no more processes")):
            second = pool.submit(tasks.size_of, bytes({MUCH}))
            say(first.result())
            say(type(second.exception(60)).__name__)
            pool.shutdown()
        say("ended")
    """).finish()
    assert lines == ["0.3", "BrokenProcessPool", "ended"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_that_dies_with_a_large_call_on_its_way(
    script: Start, gate: Gate, tmp_path: Path, method: str
) -> None:
    """A child of its has all descriptors, so that the pipe of calls stays open."""
    lines = script(
        f"""
        folder, sleeper = sys.argv[1:]
        pool = weirpool.BoundedProcessPoolExecutor(4, 1, multiprocessing.get_context({method!r}))
        pool.submit(tasks.leave_child, sleeper).result()
        held = pool.submit(tasks.hold, folder)
        soon(lambda: len(os.listdir(folder)) == 1, "it runs")
        (worker,) = pool._processes
        large = threading.Thread(target=pool._engine.standard.submit, args=(tasks.size_of, bytes({MUCH})))
        large.start()  # as the standard pool is given one more where a worker has just become free
        large.join()
        soon(lambda: pool._engine.standard._calls._thread is not None, "it is written")
        time.sleep(0.3)
        os.kill(worker, signal.SIGKILL)
        say(type(held.exception(60)).__name__, held.exception().__cause__.signal)
        pool.shutdown()
        say("ended")
        """,
        gate.folder,
        tmp_path / "sleeper",
    ).finish()
    assert lines == ["BrokenProcessPool SIGKILL", "ended"]


@pytest.mark.race
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_youngest_worker_dies(script: Start, gate: Gate, method: str) -> None:
    """The standard pool's thread watches those workers that were there when it last woke."""
    lines = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(4, 2, multiprocessing.get_context({method!r}))
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(2)]
        soon(lambda: len(os.listdir(sys.argv[1])) == 2, "both run")
        *_, youngest = pool._processes
        os.kill(youngest, signal.SIGKILL)
        for future in held:
            say(type(future.exception(60)).__name__, future.exception().__cause__.pid == youngest)
        pool.shutdown()
        """,
        gate.folder,
    ).finish()
    assert lines == ["BrokenProcessPool True"] * 2


def test_a_task_that_is_handed_over_while_the_pool_breaks(script: Start, gate: Gate) -> None:
    """The thread of Python 3.11's pool goes over its tasks without a lock."""
    lines = script(
        """
        from concurrent.futures import process as standard
        pool = weirpool.BoundedProcessPoolExecutor(4, 3)
        first = pool.submit(tasks.hold, sys.argv[1])
        soon(lambda: len(os.listdir(sys.argv[1])) == 1, "it runs")
        victim = next(iter(pool._processes))
        inner = pool._engine.standard

        class Base:
            def __getattr__(self, name):
                return getattr(base, name)

            def Future(self):
                os.kill(victim, signal.SIGKILL)
                deadline = time.monotonic() + 1
                while not inner._broken and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.1)
                return base.Future()

        base, standard._base = standard._base, Base()
        second = pool.submit(tasks.nap, 60)
        for future in first, second:
            say(type(future.exception(60)).__name__, future.exception().__cause__.pid == victim)
        pool.shutdown()
        """,
        gate.folder,
    ).finish()
    assert lines == ["BrokenProcessPool True"] * 2


def test_calls_that_cannot_be_pickled_while_the_pool_breaks(script: Start, gate: Gate) -> None:
    """The thread that pickles takes them from those that the pool's own thread goes over."""
    lines = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(40, 20)
        held = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(10)]
        soon(lambda: len(os.listdir(sys.argv[1])) == 10, "they run")
        inner = pool._engine.standard
        first = next(iter(inner._pending_work_items.values())).future

        def take_one(_):
            number = next(reversed(inner._pending_work_items))
            item = inner._pending_work_items.pop(number)  # as it does
            item.future.set_exception(ValueError("of a pickling"))

        first.add_done_callback(take_one)
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        say(*(type(future.exception(60)).__name__ for future in held))
        pool.shutdown()
        """,
        gate.folder,
    ).finish()
    assert sorted(lines[0].split()) == ["BrokenProcessPool"] * 9 + ["ValueError"]


def test_a_callback_that_exits_harms_nobody(script: Start) -> None:
    """Nor does one that raises KeyboardInterrupt: it runs in the standard pool's only thread."""
    program = script("""
        import logging
        logging.basicConfig(level=logging.ERROR, stream=sys.stdout, format="%(message)s")
        called = []
        with weirpool.BoundedProcessPoolExecutor(4, 1) as pool:
            future = pool.submit(tasks.nap, 0.2)
            for error in SystemExit, KeyboardInterrupt, ValueError:
                future.add_done_callback(lambda _, error=error: (_ for _ in ()).throw(error("of a callback")))
            future.add_done_callback(called.append)
            future.result()
            say(pool.submit(tasks.square, 3).result(60))
            soon(lambda: pool.stats().outstanding == 0, "permits are back")
        assert called == [future]
        say("ended")
    """)
    lines = program.finish()
    assert [line for line in lines if line in ("9", "ended")] == ["9", "ended"]
    assert sum("exception calling callback" in line for line in lines) == 3
    assert program.err.read_text() == ""


# ---- what the standard pool would not learn of ----------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("how", ["shutdown", "exit"])
@pytest.mark.parametrize("victim", [0, 1])
def test_an_idle_worker_dies_where_the_pool_ends(script: Start, gate: Gate, method: str, how: str, victim: int) -> None:
    """One of the two has the lock under which a call is awaited. Whoever learns of the end needs it."""
    program = script(
        f"""
        pool = weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context({method!r}))
        futures = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(2)]
        soon(lambda: len(os.listdir(sys.argv[1])) == 2, "both run")
        open(os.path.join(sys.argv[1], "open"), "w").close()
        wait(futures)
        workers = list(pool._processes)
        calls = pool._engine.standard._calls

        def has_lock_been_taken():
            if calls._rlock.acquire(timeout=0.01):
                calls._rlock.release()
                return False
            return True

        soon(has_lock_been_taken, "they wait for a call")
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)

        def kill():
            soon(lambda: calls._closed, "workers are told to leave")
            os.kill(workers[{victim}], signal.SIGKILL)
            os.kill(workers[{1 - victim}], signal.SIGCONT)

        threading.Thread(target=kill, daemon=True).start()
        if {how!r} == "shutdown":
            pool.shutdown()
        say("ends")
        """,
        gate.folder,
    )
    assert program.finish() == ["ends"]
    program.leaves_nothing()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_worker_that_takes_its_time_to_leave_is_left_alone(script: Start, gate: Gate, method: str) -> None:
    """Although the other one is killed meanwhile."""
    lines = script(
        f"""
        from weirpool import _standard
        _standard._GRACE_SECONDS = 0.2
        pool = weirpool.BoundedProcessPoolExecutor(2, 2, multiprocessing.get_context({method!r}))
        wait([pool.submit(tasks.hold_at_exit, 0.5, sys.argv[1]) for _ in range(2)])
        victim, other = pool._processes.values()
        ending = threading.Thread(target=pool.shutdown)
        ending.start()
        soon(lambda: len(os.listdir(sys.argv[1])) == 2, "both leave")
        victim.kill()
        ending.join(2)  # ten times the grace
        say(ending.is_alive(), other.is_alive())
        open(os.path.join(sys.argv[1], "open"), "w").close()
        ending.join()
        say(victim.exitcode, other.exitcode)
        """,
        gate.folder,
    ).finish()
    assert lines == ["True True", "-9 0"]


@pytest.mark.parametrize("error", ["tasks.NoExceptionError('x')", "SystemExit('x')", "KeyboardInterrupt('x')"])
def test_a_pickling_that_raises_what_is_no_exception(script: Start, error: str) -> None:
    """It would end the thread that pickles."""
    lines = script(f"""
        import traceback
        with weirpool.BoundedProcessPoolExecutor(3, 2) as pool:
            for _ in range(3):
                found = pool.submit(tasks.echo, tasks.CallsWhenPickled(tasks.raise_it({error}))).exception(60)
                assert "in raise_it" in "".join(traceback.format_exception(found))
                say(repr(found), pool.submit(len, bytes({MUCH})).result(60))
            soon(lambda: pool.stats().outstanding == 0, "permits are back")
        say("ended")
    """).finish()
    assert lines == [f"{error.removeprefix('tasks.')} {MUCH}"] * 3 + ["ended"]


def test_a_thread_of_the_standard_pool_that_ends_breaks_the_pool(script: Start, gate: Gate) -> None:
    """As where fewer descriptors may be open than it has to watch."""
    lines = script(
        """
        import resource
        heard = []
        threading.excepthook = lambda error: heard.append(type(error.exc_value).__name__)
        pool = weirpool.BoundedProcessPoolExecutor(8, 8)
        running = [pool.submit(tasks.hold, sys.argv[1]) for _ in range(8)]
        soon(lambda: len(os.listdir(sys.argv[1])) == 8, "all run")
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (6, most[1]))
        pool._engine.standard._wakeup.wakeup()
        for error in [future.exception(60) for future in running]:
            say(type(error).__name__, "A thread of the standard library's process pool" in str(error))
        try:
            pool.submit(tasks.nothing)
        except BrokenProcessPool as error:
            say("not usable" in str(error))
        pool.shutdown()
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
        say(*heard, pool.stats().outstanding)
        """,
        gate.folder,
    ).finish()
    assert lines == ["BrokenProcessPool True"] * 8 + ["True", "OSError 0"]


@pytest.mark.parametrize("what", ["a task that is pickled", "a result that is rebuilt"])
def test_a_shutdown_in_a_thread_of_the_standard_pool_does_not_wait(script: Start, what: str) -> None:
    lines = script(f"""
        pool = weirpool.BoundedProcessPoolExecutor(2, 1)
        if {what!r} == "a task that is pickled":
            future = pool.submit(tasks.echo, tasks.CallsWhenPickled(pool.shutdown))
        else:
            tasks.call_when_rebuilt = pool.shutdown
            future = pool.submit(tasks.CallsWhenRebuilt, 1)
        say(type(future.result(60)).__name__)
        pool.shutdown()
        say("ended")
    """).finish()
    assert lines == ["NoneType" if "pickled" in what else "CallsWhenRebuilt", "ended"]


def test_a_signal_handler_that_shuts_down_within_a_submission_does_not_wait(script: Start, gate: Gate) -> None:
    """Its thread may hold what the keeper waits for."""
    lines = script(
        """
        pool = weirpool.BoundedProcessPoolExecutor(1, 1)
        held = pool.submit(tasks.hold, sys.argv[1])
        signal.signal(signal.SIGUSR1, lambda *_: (pool.shutdown(), say("goes on")))
        blocked = lambda: pool.stats().blocked_producers == 1
        me = threading.get_ident()

        def send():
            soon(blocked, "it waits for room")
            signal.pthread_kill(me, signal.SIGUSR1)

        threading.Thread(target=send).start()
        try:
            pool.submit(tasks.nothing)
        except RuntimeError as error:
            say("shutdown" in str(error))
        open(os.path.join(sys.argv[1], "open"), "w").close()
        pool.shutdown()
        say(held.result())
        """,
        gate.folder,
    ).finish()
    assert lines == ["goes on", "True", "None"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_workers_that_come_back_are_no_workers(script: Start, method: str) -> None:
    """They would take what the workers wait for."""
    program = script(f"""
        context = multiprocessing.get_context({method!r})
        with weirpool.BoundedProcessPoolExecutor(2, 2, context, tasks.fork_and_both_return) as pool:
            pids = [pool.submit(tasks.fork_and_both_return).result(60) for _ in range(10)]
            say(set(pids) <= set(pool._processes))
        say("ended")
    """)
    assert program.finish() == ["True", "ended"]
    program.leaves_nothing()
