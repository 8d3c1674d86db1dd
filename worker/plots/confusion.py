"""What the student takes for what."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from worker.plots.canvas import blank, shortened

Report = Mapping[str, Any]

MOST_NAMED = 300
"""More labels than this cannot be read however large the picture is: they get numbers."""
_MOST_WRITTEN = 20
"""Labels up to which every cell says its texts."""
_RIGHT = LinearSegmentedColormap.from_list("right", ["#e8f1f8", "#0072b2", "#003a5c"])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["#fdeee0", "#e8742a", "#7a2e00"])


def draw(report: Report) -> Figure:
    """Rows are gold labels, columns the student's; cells are shares of their row."""
    student = report["evaluation"]["student"]
    labels, texts = matrix(student)
    support = {metrics["label"]: metrics["support"] for metrics in student["per_label"]}
    shares = texts / np.maximum([[support[label]] for label in labels], 1)
    figure, axes = _sheet(labels)
    axes.set_title(_title(student))
    right = np.eye(len(labels), dtype=bool)
    # Errors are few: the root makes small shares visible.
    for where, colours, power in ((right, _RIGHT, 1.0), (~right, _WRONG, 0.5)):
        cells = np.ma.masked_where(~where | (texts == 0), shares)
        axes.imshow(cells, cmap=colours, norm=PowerNorm(power, 0, 1), interpolation="none")
    _part_teachers(axes, report, labels)
    if len(labels) <= _MOST_WRITTEN:
        _write_texts(axes, texts, shares)
    return figure


def _title(student: Report) -> str:
    shown, cells = len(student["confusion"]), student["confusion_cells"]
    return "Confusion matrix" + (f" (the largest {shown:,} of {cells:,} cells)" if shown < cells else "")


def matrix(student: Report) -> tuple[list[str], "np.ndarray[Any, np.dtype[np.int64]]"]:
    """The student's confusion: names, and texts [gold, predicted].

    Of a matrix of which the largest cells are known alone, the labels that have one: however many labels
    there are, it stays of a size that fits into memory.
    """
    labels = [metrics["label"] for metrics in student["per_label"]]
    if len(student["confusion"]) < student["confusion_cells"]:
        has_cell = {cell[key] for cell in student["confusion"] for key in ("gold", "predicted")}
        labels = [label for label in labels if label in has_cell]
    places = {label: i for i, label in enumerate(labels)}
    texts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for cell in student["confusion"]:
        texts[places[cell["gold"]], places[cell["predicted"]]] = cell["texts"]
    return labels, texts


def _sheet(labels: Sequence[str]) -> tuple[Figure, Axes]:
    """Large enough that every label can be read."""
    count, longest = len(labels), min(28, max(map(len, labels)))
    cell = 0.5 if count <= 12 else 0.3 if count <= 40 else 0.14 if count <= MOST_NAMED else 20 / count
    points = 9.0 if cell > 0.2 else 6.5
    around = 1.2 + longest * points / 110 * (2 if count > _MOST_WRITTEN else 1)
    figure, axes = blank(count * cell + around, count * cell + around + 0.3)
    names = [shortened(label) for label in labels] if count <= MOST_NAMED else None
    step = 1 if names else max(1, count // 20)
    ticks = range(0, count, step)
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    large = count > _MOST_WRITTEN
    axes.tick_params(axis="x", labelrotation=90)
    axes.tick_params(labelsize=points, length=0, labeltop=large, labelright=large)
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    axes.set(xlabel="the student's label", ylabel="gold label")
    return figure, axes


def _part_teachers(axes: Axes, report: Report, labels: Sequence[str]) -> None:
    """A line where the labels of the next teacher begin."""
    known: set[str] = set()
    for teacher in report["teachers"]:
        known |= {label for label in teacher["labels"] if label is not None}
        border = sum(label in known for label in labels) - 0.5
        if border < len(labels) - 1:
            axes.axhline(border, color="#8c8c8c", linewidth=0.8)
            axes.axvline(border, color="#8c8c8c", linewidth=0.8)


def _write_texts(axes: Axes, texts: "np.ndarray[Any, Any]", shares: "np.ndarray[Any, Any]") -> None:
    for row, column in zip(*np.nonzero(texts), strict=True):
        colour = "white" if shares[row, column] > 0.4 else "#222222"
        axes.text(column, row, f"{texts[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
