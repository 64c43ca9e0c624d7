"""The picture: memory over time, a line for each run."""

from pathlib import Path
from typing import TYPE_CHECKING

from .report import Report
from .table import TITLES, megabytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"weirpool": "#1769aa", "stdlib": "#c8553d", "recipe": "#5c8a3a"}
INK = "#333333"


def draw(reports: list[Report], path: Path) -> None:
    """Writes the picture of one run or several."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 11, "text.color": INK, "axes.labelcolor": INK, "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(9, 4.5), dpi=160, layout="constrained")
        for report in reports:
            _draw_line(axes, report)
        _dress(axes, reports[0], lines=len(reports))
        figure.savefig(path)
        pyplot.close(figure)


def _draw_line(axes: "Axes", report: Report) -> None:
    seconds = [sample.seconds for sample in report.samples]
    memory = [sample.memory / 1e6 for sample in report.samples]
    colour = COLOURS[report.engine]
    axes.plot(seconds, memory, color=colour, linewidth=2.2, label=_label(report))
    axes.fill_between(seconds, memory, color=colour, alpha=0.08, linewidth=0)
    axes.plot(seconds[-1], memory[-1], "o", color=colour, markersize=5)


def _label(report: Report) -> str:
    bound = "no bound" if report.bound is None else f"at most {report.bound:,} tasks outstanding"
    return f"{TITLES[report.engine]}, {bound}: {megabytes(report.memory_growth, 0)} MB more at the peak"


def _dress(axes: "Axes", report: Report, *, lines: int) -> None:
    title = (
        f"Memory of a program whose {report.producers:,} threads submit {megabytes(report.bytes_in, 0)} MB of files "
        f"to {report.workers:,} workers"
    )
    axes.set_title(title, loc="left", fontsize=13, pad=16 + 18 * lines)
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB resident, shared segment included")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, borderpad=0, frameon=False)
