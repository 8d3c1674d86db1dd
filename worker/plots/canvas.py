"""A blank figure in muka's style, and how it becomes files."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#222222", "#d9d9d9"
BLUE, ORANGE = "#0072b2", "#d55e00"
TEACHERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")
"""Okabe and Ito's colours, which all kinds of colour vision tell apart (https://jfly.uni-koeln.de/color/)."""

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8c8c8c",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12.0,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",  # the one that comes with matplotlib: the same on every machine
    "font.size": 10.0,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "muka",
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
}
_DOTS_PER_INCH = 150
_MOST_DOTS = 4000
"""Of the longer side of a PNG."""


@contextmanager
def style() -> Iterator[None]:
    """Within it, figures are made and saved in muka's style, whatever the user's matplotlibrc says."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A label in a script that the font lacks shows boxes in the PNG, and is whole in the SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.svg and NAME.png, without date and program."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for both files: with 300 names that takes seconds
    dots = min(_DOTS_PER_INCH, int(_MOST_DOTS / max(figure.get_size_inches())))
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    figure.savefig(folder / f"{name}.png", dpi=dots, metadata={"Software": None})


def shortened(text: str, characters: int = 28, *, tail: int | None = None) -> str:
    """One line of at most so many characters.

    What is left out lies before the last `tail` characters; by default in the middle, since ids begin alike.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) <= characters:
        return line
    kept = characters // 2 if tail is None else tail
    return f"{line[: characters - kept - 1]}…{line[len(line) - kept :]}"
