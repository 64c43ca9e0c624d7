"""The demo: what it prints, what it checks, and how it ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import tasks
from support import FLAGS, is_gone, stat_of

from weirpool.__main__ import main
from weirpool.demo import display, memory, options, producers, report, workload
from weirpool.demo import folder as folders
from weirpool.demo.errors import DemoError
from weirpool.demo.ledger import Ledger
from weirpool.demo.sampler import Sample
from weirpool.demo.work import Answer, compress

ENGINES = ("weirpool", "stdlib", "recipe")
SMALL_CREW = ("--producers", "4", "--workers", "2", "--repeat", "2")
AT_ONCE = 20.0  # seconds; it takes a fraction of one, but the machine that tests may be busy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six files: an empty one, one of several pieces, one in a folder of its own."""
    made = tmp_path / "files"
    (made / "below").mkdir(parents=True)
    (made / "empty").touch()
    # Of a fixed seed: no piece begins with a 1, which corrupt() looks for.
    (made / "large").write_bytes(random.Random(0).randbytes(2 * folders.PIECE_BYTES + 1))
    (made / "below" / "text").write_text("weir " * 1000)
    for number in range(3):
        (made / f"small-{number}").write_bytes(bytes([number]) * 100)
    return made


@pytest.fixture
def run(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs the demo in this process, and returns what it wrote as JSON."""

    def run(*arguments: str, code: int = 0) -> dict[str, Any]:
        path = tmp_path / "report.json"
        assert main(["demo", str(folder), *SMALL_CREW, *arguments, "--json", str(path)]) == code
        written: dict[str, Any] = json.loads(path.read_text())
        return written

    return run


def in_a_process(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs the demo as a user does."""
    command = [sys.executable, *FLAGS, "-m", "weirpool", "demo", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


# ---- A run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_accounts_for_every_byte(engine: str, run: Callable[..., dict[str, Any]]) -> None:
    result = run("--engine", engine)
    size = 2 * folders.PIECE_BYTES + 1 + 5000 + 300
    assert (result["engine"], result["files"], result["folder_bytes"], result["unreadable"]) == (engine, 6, size, 0)
    assert (result["tasks"], result["checked"], result["differing"], result["failed"]) == (16, 16, 0, 0)
    assert result["error"] is None
    assert result["bytes_in"] == 2 * size
    assert 2 * 2 * folders.PIECE_BYTES < result["bytes_out"] < 2 * size  # what is random cannot be compressed
    assert result["seconds"] > 0 and result["tasks_per_second"] == pytest.approx(16 / result["seconds"])
    assert result["memory_at_start"] > 0
    assert result["memory_growth"] == result["memory_peak"] - result["memory_at_start"] >= 0
    assert len(result["samples"]) >= 2 and result["samples"][-1]["outstanding"] == 0


@pytest.mark.parametrize(("bound", "most"), [("1", 1), ("3", 3), ("auto", 4)])
@pytest.mark.parametrize("engine", ["weirpool", "recipe"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a bound below the number of workers is worth one
def test_the_bound_holds(engine: str, bound: str, most: int, run: Callable[..., dict[str, Any]]) -> None:
    result = run("--engine", engine, "--bound", bound, "--repeat", "10")
    assert (result["bound"], result["checked"]) == (most, 80)
    assert 1 <= result["peak_outstanding"] <= most


def test_without_a_bound_nobody_waits(run: Callable[..., dict[str, Any]]) -> None:
    result = run("--bound", "none")
    assert result["bound"] is None and result["blocked_seconds"] == 0


def test_the_table_says_what_the_json_says(
    run: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run("--engine", "recipe")
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) > 1)
    assert rows["digests that are right"] == rows["tasks (at most 256 KiB each)"] == "16"
    assert rows["seconds"] == f"{result['seconds']:.1f}"
    assert rows["peak outstanding"] == str(result["peak_outstanding"])


def test_a_report_survives_its_file(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    written = run()
    assert report.load(tmp_path / "report.json").as_dict() == written


# ---- Wrong answers ---------------------------------------------------------------------------------------------------


def corrupt(data: bytes) -> Answer:
    """A worker that got other bytes than were sent, when they begin with 1."""
    return compress(data[:-1] + b"?" if data.startswith(b"\x01") else data)


def fail(data: bytes) -> Answer:
    raise tasks.OddError("two\nlines")


def die(data: bytes) -> Answer:
    tasks.die()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_corrupted_digest_is_found(
    engine: str,
    run: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(producers, "compress", corrupt)
    result = run("--engine", engine, code=1)
    assert (result["checked"], result["differing"]) == (16, 2)
    assert capsys.readouterr().err == "weirpool demo: 2 of 16 digests differ from those of what was submitted\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_task_that_fails_is_told(
    engine: str,
    run: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(producers, "compress", fail)
    assert run("--engine", engine, code=1)["failed"] == 16
    assert capsys.readouterr().err == "weirpool demo: 16 of 16 tasks came to nothing (OddError: two lines)\n"


def test_a_pool_that_breaks_ends_the_run(
    run: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Only weirpool: a standard pool that breaks under load may hang for ever in its shutdown() (gh-94777).
    monkeypatch.setattr(producers, "compress", die)
    assert run("--engine", "weirpool", code=1)["checked"] == 0
    assert "16 of 16 tasks came to nothing (BrokenProcessPool: " in capsys.readouterr().err


def test_the_ledger_compares() -> None:
    ledger = Ledger()
    for number, answered in enumerate([b"same", b"other"]):
        future: Future[Answer] = Future()
        future.add_done_callback(ledger.expect(number, b"same"))
        assert ledger.pending == 1
        future.set_result(compress(answered))
    assert (ledger.checked, ledger.differing, ledger.pending) == (2, 1, 0)
    assert ledger.first_error == "the digest of task 1 differs"


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_an_unreadable_file_is_skipped_and_counted(folder: Path, run: Callable[..., dict[str, Any]]) -> None:
    (folder / "dangling").symlink_to("nowhere")
    result = run()
    assert (result["files"], result["unreadable"], result["checked"]) == (6, 1, 16)


def test_a_file_that_vanishes_is_skipped_and_counted(folder: Path) -> None:
    work = workload.Workload(folders.scan(folder), repeat=2)
    (folder / "large").unlink()
    while dealt := work.next():
        try:
            dealt[1].read()
        except OSError:
            work.skip(dealt[1])
    assert (work.tasks, work.skipped, work.unreadable) == (16, 6, 1)


def test_a_file_is_cut_into_pieces_without_loss(folder: Path) -> None:
    pieces = [piece for piece in folders.scan(folder).pieces if piece.path.endswith("large")]
    pieces.sort(key=lambda piece: piece.offset)
    assert [piece.length for piece in pieces] == [folders.PIECE_BYTES, folders.PIECE_BYTES, 1]
    assert b"".join(piece.read() for piece in pieces) == (folder / "large").read_bytes()


def test_the_order_is_always_the_same(folder: Path) -> None:
    assert folders.scan(folder).pieces == folders.scan(folder).pieces


def test_pythons_library_comes_without_what_is_not_its_own() -> None:
    pieces = folders.scan(folders.python_library()).pieces
    assert len(pieces) > 100
    assert not any("__pycache__" in piece.path or "site-packages" in piece.path for piece in pieces)


def test_the_folder_is_read_until_it_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = folders.scan(folder)
    monkeypatch.setattr(memory, "available", lambda: 1 << 40)
    assert workload.choose_repeat(found, None, unbounded=True) == -(-workload.ENOUGH_BYTES // found.size)
    assert workload.choose_repeat(found, 3, unbounded=True) == 3
    monkeypatch.setattr(workload, "ENOUGH_TASKS", 80)
    assert workload.choose_repeat(found, None, unbounded=True) == 10


def test_an_unbounded_pool_gets_no_more_than_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = folders.scan(folder)
    monkeypatch.setattr(memory, "available", lambda: 10 * found.size)
    assert workload.choose_repeat(found, None, unbounded=True) == 5
    assert workload.choose_repeat(found, 6, unbounded=False) == 6
    with pytest.raises(DemoError, match="more than half of the memory there is"):
        workload.choose_repeat(found, 6, unbounded=True)


def test_the_limit_of_a_control_group_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 9000\n")
    assert memory._available_in_group(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._available_in_group(tmp_path) > 1 << 50
    assert 0 < memory.available() < 1 << 50


# ---- What is shown ---------------------------------------------------------------------------------------------------


def status(seconds: float, settled: int) -> display.Status:
    start = Sample(0.0, 20_000_000, 1_000_000, 0, 0)
    now = Sample(seconds, 30_000_000, 2_000_000, 16, 99)
    return display.Status(settled, 400, [start, now])


def test_plain_lines_come_each_second(capsys: pytest.CaptureFixture[str]) -> None:
    with display.Lines() as lines:
        for tenth in range(1, 31):
            lines.show(status(tenth / 10, tenth * 10))
        lines.show(status(3.05, 400))
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["1.0", "2.0", "3.0", "3.0"]
    figures = "100 of 400 100 tasks/s outstanding 16 blocked producers 99 memory 32 MB (+11)"
    assert " ".join(said[0].split()) == f"1.0 s {figures}"


def test_the_live_display_draws(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    from weirpool.demo.live import Live

    with Live() as live:
        live.show(status(2.0, 100))
    assert "blocked producers  99" in capsys.readouterr().out


@pytest.mark.skipif(not options.can_plot(), reason="needs matplotlib")
@pytest.mark.parametrize("kind", [".png", ".svg"])
def test_a_picture_is_drawn(kind: str, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / f"memory{kind}"
    ran = in_a_process(str(folder), *SMALL_CREW, "--plot", str(picture))
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, f"picture: {picture}")
    assert picture.read_bytes().startswith(b"\x89PNG" if kind == ".png" else b"<?xml")


def test_without_matplotlib_a_line_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(options, "can_plot", lambda: False)
    with pytest.raises(SystemExit):
        main(["demo", str(folder), "--plot", str(tmp_path / "memory.png")])
    assert 'pip install "weirpool[demo]"' in capsys.readouterr().err


# ---- Both engines side by side ---------------------------------------------------------------------------------------


def test_compare_runs_both_engines_on_the_same_work(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    arguments = [*SMALL_CREW, "--bound", "3", "--compare", "--json", str(path)]
    ran = subprocess.run(
        [sys.executable, *FLAGS, "-m", "weirpool", "demo", str(folder), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "weirpool  standard pool" in ran.stdout
    both = json.loads(path.read_text())
    assert [(name, both[name]["bound"]) for name in both] == [("weirpool", 3), ("stdlib", None)]
    for name in ("tasks", "checked", "bytes_in", "bytes_out", "start_method"):
        assert both["weirpool"][name] == both["stdlib"][name]
    if options.can_plot():
        assert "picture: weirpool-demo.png" in ran.stdout and (tmp_path / "weirpool-demo.png").exists()
    else:
        assert options.PLOT_HINT in ran.stdout


# ---- What cannot be done ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--producers", "0"], "'0' is not a whole number from 1 to 1,000"),
        (["--producers", "1.5"], "'1.5' is not a whole number from 1 to 1,000"),
        (["--workers", "-1"], "--workers: "),
        (["--workers", "many"], "'many' is not a whole number from 1 to 256"),
        (["--repeat", "0"], "'0' is not a whole number"),
        (["--bound", "0"], "'0' is neither auto nor none nor a whole number"),
        (["--bound", "full"], "'full' is neither auto nor none nor a whole number"),
        (["--engine", "fast"], "invalid choice: 'fast'"),
        (["--engine", "stdlib", "--bound", "4"], "the standard pool has no bound"),
        (["--engine", "recipe", "--bound", "none"], "choose --engine stdlib"),
        (["--engine", "stdlib", "--compare"], "leave out --engine"),
        (["--json", "/nowhere/report.json"], "/nowhere is not a folder"),
        (["--json", "/"], "cannot write /: that is a folder"),
        (["--plot", "memory.docx"], "the name must end in .png, .svg, .pdf"),
        (["--unheard-of"], "unrecognized arguments: --unheard-of"),
    ],
)
def test_bad_arguments_give_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["demo", *arguments])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert reason in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize("compared", [[], ["--compare"]])
def test_a_folder_without_files_gives_one_line(
    compared: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    for name, reason in [("missing", "is not a folder"), ("nothing", "no files")]:
        assert main(["demo", str(tmp_path / name), *compared]) == 2
        said = capsys.readouterr()
        assert reason in said.err and said.err.count("\n") == 1 and said.out == ""


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: python -m weirpool" in capsys.readouterr().out


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


class Demo:
    """The demo in a process group of its own."""

    def __init__(self, start_method: str | None, *arguments: str) -> None:
        code = "import sys, multiprocessing as mp; from weirpool.__main__ import main; "
        code += f"mp.set_start_method({start_method!r}); " * bool(start_method) + "sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, *FLAGS, "-c", code, "demo", "--workers", "4", "--repeat", "5", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until_it_runs(self) -> None:
        assert self.process.stdout
        while "outstanding" not in (line := self.process.stdout.readline()):
            assert line, "the demo ended before it showed anything"

    def processes(self) -> list[int]:
        """Those of the group that live."""
        found = [(pid, stat_of(pid)) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))]
        return [pid for pid, stat in found if stat and int(stat[2]) == self.process.pid and not is_gone(pid)]

    def kill(self) -> None:
        if self.processes():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(*arguments: Any) -> Demo:
        started.append(Demo(*arguments))
        return started[-1]

    yield start
    for demo in started:
        demo.kill()


def check_end(demo: Demo, pressed: float) -> None:
    """One line, no process, at once."""
    _, errors = demo.process.communicate(timeout=2 * AT_ONCE)
    assert time.monotonic() - pressed < AT_ONCE
    assert (demo.process.returncode, errors) == (130, "interrupted\n")
    while demo.processes() and time.monotonic() - pressed < AT_ONCE:
        time.sleep(0.01)
    assert demo.processes() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_ends_everything_at_once(engine: str, start_method: str, start: Callable[..., Demo]) -> None:
    demo = start(start_method, "--engine", engine)
    demo.wait_until_it_runs()
    assert len(demo.processes()) >= 5
    os.killpg(demo.process.pid, signal.SIGINT)
    check_end(demo, time.monotonic())


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_ends_a_comparison_at_once(whole_group: bool, start: Callable[..., Demo]) -> None:
    demo = start(None, "--compare")
    demo.wait_until_it_runs()
    (os.killpg if whole_group else os.kill)(demo.process.pid, signal.SIGINT)
    check_end(demo, time.monotonic())


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_during_the_start_ends_it_too(engine: str, start_method: str, start: Callable[..., Demo]) -> None:
    demo = start(start_method, "--engine", engine)
    assert demo.process.stdout and "files of" in demo.process.stdout.readline()
    os.killpg(demo.process.pid, signal.SIGINT)
    check_end(demo, time.monotonic())
