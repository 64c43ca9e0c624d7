"""The demo as a command: from the options to the last line."""

import signal
import sys
from pathlib import Path

from . import plot, report
from .compare import RunFailedError, compare
from .display import choose_display
from .errors import DemoError
from .folder import scan
from .options import PLOT_HINT, Options, can_plot
from .report import Report
from .run import run
from .table import FOOTNOTES, TITLES, table
from .workload import Workload, choose_repeat

INTERRUPTED = 130


def main(options: Options) -> int:
    """Runs the demo; returns the exit code: 0, 1 for wrong answers, 2 for what cannot be done, 130 after Ctrl-C."""
    if sys.platform != "linux":
        return _say("memory is read from /proc, which only Linux has", 2)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # compare starts its runs with it blocked
        return _compare(options) if options.compare else _run_one(options)
    except KeyboardInterrupt:
        if not options.part_of_compare:
            print("\r" * sys.stderr.isatty() + "interrupted", file=sys.stderr)
        return INTERRUPTED
    except RunFailedError as failure:
        return failure.exit_code
    except DemoError as error:
        return _say(error, 2)
    except (OSError, RuntimeError) as error:
        return _say(error, 1)


def _say(error: object, exit_code: int) -> int:
    print(f"weirpool demo: {error}", file=sys.stderr)
    return exit_code


def _run_one(options: Options) -> int:
    folder = scan(options.folder)
    workload = Workload(folder, choose_repeat(folder, options.repeat, unbounded=options.bound is None))
    print(_headline(options, workload), flush=True)
    result = run(options, workload, choose_display())
    if options.json:
        report.save(result.as_dict(), options.json)
    if not options.part_of_compare:
        _show([result], options.plot)
    return _say(result.problem, 1) if result.problem else 0


def _headline(options: Options, workload: Workload) -> str:
    folder = workload.folder
    times = "once" if workload.repeat == 1 else f"{workload.repeat:,} times"
    files = f"{folder.files:,} files of {folder.path} ({folder.size / 1e6:,.1f} MB)"
    return f"{TITLES[options.engine]}: {files}, read {times}, in {workload.tasks:,} tasks"


def _compare(options: Options) -> int:
    results = compare(options)
    if options.json:
        report.save({result.engine: result.as_dict() for result in results}, options.json)
    _show(results, options.plot or _usual_picture())
    return 0


def _usual_picture() -> Path:
    """In the build folder, where there is one."""
    if not Path("build").is_dir():
        return Path("weirpool-demo.png")
    folder = Path("build/demo")
    folder.mkdir(exist_ok=True)
    return folder / "memory.png"


def _show(results: list[Report], picture: Path | None) -> None:
    print(f"\n{table(results)}\n\n{FOOTNOTES}")
    if picture and can_plot():
        plot.draw(results, picture)
        print(f"\npicture: {picture}")
    elif picture:
        print(f"\n{PLOT_HINT}")
