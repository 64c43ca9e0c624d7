"""The pictures: what a table cannot show."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Taken
from bench.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "weirpool": "#1769aa",
    "standard": "#c8553d",
    "recipe": "#5c8a3a",
    "Pool": "#8a5a9e",
    "loky": "#d19a2a",
    "joblib": "#7a7a7a",
    "pebble": "#2a9d8f",
    "mpire": "#b5658d",
    "deadpool": "#8c6d46",
}
INK = "#333333"


def draw(report: Report, folder: Path) -> list[tuple[str, Path]]:
    """Draws what was measured. Returns what each picture shows, and where it is."""
    drawn = []
    for name, workload, title, paint in PICTURES:
        if any(of == workload and taken.outcomes for (of, _), taken in report.results.items()):
            path = folder / f"performance-{name}.png"
            draw_one(report, workload, title, paint, path)
            drawn.append((title, path))
    return drawn


Paint = Callable[["Axes", Report, str], None]


def draw_one(report: Report, workload: str, title: str, paint: Paint, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context({"font.size": 11, "text.color": INK, "axes.labelcolor": INK}):
        figure, axes = pyplot.subplots(figsize=(9, 4.5), dpi=160, layout="constrained")
        paint(axes, report, workload)
        axes.set_title(title, loc="left", fontsize=13)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, colors=INK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        figure.savefig(path)
        pyplot.close(figure)


def paint_sizes(axes: Axes, report: Report, workload: str) -> None:
    plot(axes, report, workload, median_series)
    axes.set(xscale="log", yscale="log", xlabel="bytes of the argument", ylabel="tasks/s")
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 1 << 10, 1 << 16, 1 << 20, 1 << 24], ["1 B", "1 KiB", "64 KiB", "1 MiB", "16 MiB"])


def paint_roundtrips(axes: Axes, report: Report, workload: str) -> None:
    plot(axes, report, workload, median_series)
    axes.set(yscale="log", xlabel="% of the round trips are faster", ylabel="µs", xlim=(0, 100))


def paint_memory(axes: Axes, report: Report, workload: str) -> None:
    plot(axes, report, workload, last_series)
    axes.set(yscale="log", xlabel="seconds", ylabel="MB more than before, workers and segment included", xlim=(0, None))
    axes.set_ylim(bottom=1)


Series = list[list[float]]


def plot(axes: Axes, report: Report, workload: str, choose: Callable[[list[Series]], Series]) -> None:
    for contender in report.plan.contenders:
        taken = report.results.get((workload, contender), Taken())
        series = [outcome.series for outcome in taken.outcomes if outcome.series]
        if series:
            x, y = zip(*choose(series), strict=True)
            mine = contender == "weirpool"
            axes.plot(
                x,
                y,
                label=contender,
                color=COLOURS.get(contender),
                linewidth=2.6 if mine else 1.4,
                zorder=3 if mine else 2,
            )


def median_series(rounds: list[Series]) -> Series:
    """Point by point: all rounds have the same x."""
    return [[points[0][0], statistics.median(y for _, y in points)] for points in zip(*rounds, strict=True)]


def last_series(rounds: list[Series]) -> Series:
    return rounds[-1]


PICTURES: list[tuple[str, str, str, Paint]] = [
    ("sizes", "sizes", "Tasks per second by size of the argument, 2 workers", paint_sizes),
    ("roundtrip", "roundtrip", "Round trips: submit().result(), 2 workers", paint_roundtrips),
    ("memory", "mixed", "Memory: 128 producers x 160 tasks of 2 ms and 100 kB, 8 workers", paint_memory),
]
