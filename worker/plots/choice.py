"""Whom the method, or the teachers' certainty, chose."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from worker.plots.canvas import BLUE, INK, ORANGE, TEACHERS, blank, shortened

Report = Mapping[str, Any]

_HINT_CHARACTERS = 30


def draw_shares(report: Report) -> Figure:
    """A bar a teacher."""
    choice, names = report["choice"], _names(report)
    figure, axes = blank(8, 1.6 + 0.48 * len(names))
    rows = range(len(names))
    axes.barh(rows, choice["chosen_share"], color=_colours(len(names)), height=0.7)
    axes.plot(choice["mean_weight"], rows, "o", color="white", markeredgecolor=INK, label="mean weight")
    for row, share in enumerate(choice["chosen_share"]):
        axes.text(1.01, row, f"{share:.1%}", va="center", transform=axes.get_yaxis_transform())
    _name_rows(axes, names)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    title = "Chosen teacher" if choice.get("decides", True) else "Most certain teacher"
    axes.set(title=title, xlabel="share of the corpus", xlim=(0, None))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    return figure


def draw_certainty(report: Report) -> Figure:
    """A histogram a teacher, one above the other over one scale."""
    histograms, names = report["choice"]["score_histogram"], _names(report)
    figure, axes = blank(8, 1.6 + 0.55 * len(names))
    highest = max(map(max, histograms)) or 1
    for row, (counts, colour) in enumerate(zip(histograms, _colours(len(names)), strict=True)):
        tops = [row - 0.85 * count / highest for count in counts]
        axes.stairs(tops, _edges(len(counts)), baseline=row, fill=True, color=colour, alpha=0.75)
        axes.stairs(tops, _edges(len(counts)), baseline=row, color=INK, linewidth=0.6)
    _name_rows(axes, names)
    if _score(report) == "entropy":
        bound = report["orphans"]["certainty_below"]
        axes.axvline(bound, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.set(title="Uncertainty per teacher", xlim=(0, 1), ylim=(len(names) - 0.8, -1))
    axes.set_xlabel(f"certainty u ({_score(report)}), 1 = sure; tallest bar: {highest:,} texts")
    return figure


def draw_margin(report: Report) -> Figure:
    """One histogram."""
    counts = report["choice"]["margin_histogram"]
    figure, axes = blank(8, 3.6)
    axes.stairs(counts, _edges(len(counts)), fill=True, color=BLUE, alpha=0.8)
    axes.stairs(counts, _edges(len(counts)), color=INK, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set(title="Margin", xlabel="margin m: lead of the best teacher over the second", ylabel="texts")
    axes.set(xlim=(0, 1), ylim=(0, None))
    return figure


def _names(report: Report) -> list[str]:
    """Two lines a teacher: its name, and what it knows."""
    return [
        f"{shortened(teacher['name'].partition('@')[0])}\n{_hint(teacher['labels'])}"
        for teacher in report["teachers"]
    ]


def _hint(labels: Sequence[str | None]) -> str:
    known = ", ".join(label for label in labels if label is not None)
    return shortened(known, _HINT_CHARACTERS, tail=0)


def _colours(count: int) -> list[str]:
    return [TEACHERS[i % len(TEACHERS)] for i in range(count)]


def _edges(bins: int) -> list[float]:
    return [i / bins for i in range(bins + 1)]


def _score(report: Report) -> str:
    return str(report["method"].get("score", "entropy"))


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """The first teacher on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
