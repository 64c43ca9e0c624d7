"""The table at the end: one column of figures for each run."""

from .engines import EngineName
from .report import Report

TITLES: dict[EngineName, str] = {
    "weirpool": "weirpool",
    "stdlib": "standard pool",
    "recipe": "semaphore recipe",
}


def table(reports: list[Report]) -> str:
    """All figures of the runs, side by side."""
    rows = [["", *(TITLES[report.engine] for report in reports)]]
    columns = [_column(report) for report in reports]
    rows += [[name, *(column[name] for column in columns)] for name in columns[0]]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: list[str], widths: list[int]) -> str:
    name, *figures = row
    return "  ".join(
        [name.ljust(widths[0]), *(figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True))]
    )


def _column(report: Report) -> dict[str, str]:
    return {
        "bound": "none" if report.bound is None else f"{report.bound:,}",
        "producer threads": f"{report.producers:,}",
        "worker processes": f"{report.workers:,}",
        "start method": report.start_method,
        "files": f"{report.files:,}",
        "times read": f"{report.repeat:,}",
        "files unreadable": f"{report.unreadable:,}",
        "tasks (at most 256 KiB each)": f"{report.tasks:,}",
        "digests that are right": f"{report.checked - report.differing:,}",
        "MB in": megabytes(report.bytes_in),
        "MB out": megabytes(report.bytes_out),
        "seconds": f"{report.seconds:,.1f}",
        "tasks/s": f"{report.tasks_per_second:,.0f}",
        "peak outstanding": f"{report.peak_outstanding:,}",
        "memory at the start, MB *": megabytes(report.memory_at_start),
        "growth to its peak, MB": megabytes(report.memory_growth),
        "producers held back, s **": f"{report.blocked_seconds:,.1f}",
    }


FOOTNOTES = """\
*  the parent's resident set, and what the shared segment holds
** summed over the producer threads"""


def megabytes(count: int, digits: int = 1) -> str:
    """Bytes as millions of bytes."""
    return f"{count / 1e6:,.{digits}f}"
