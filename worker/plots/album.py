"""All pictures of one job."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Report = Mapping[str, Any]

FOLDER = "plots"
"""In the student's folder."""


@dataclass(frozen=True)
class Picture:
    """A picture in the student's folder, twice: `plots/NAME.svg` and `plots/NAME.png`."""

    name: str
    title: str
    caption: str

    @property
    def png(self) -> str:
        """Path relative to the student's folder."""
        return f"{FOLDER}/{self.name}.png"

    @property
    def svg(self) -> str:
        """Path relative to the student's folder."""
        return f"{FOLDER}/{self.name}.svg"


LOSS = Picture(
    "loss",
    "Training loss",
    "Loss of the steps (of some 400, where there are more), its running mean, and the mean of each epoch.",
)
SHARES = Picture(
    "teacher_shares",
    "Chosen teacher",
    "Bars: share of the corpus on which the teacher is the most trusted one. Dots: its mean weight. A method "
    "that chooses nobody is shown the most certain teachers.",
)
CERTAINTY = Picture(
    "uncertainty",
    "Uncertainty per teacher",
    "Texts of the corpus by the teacher's certainty u (1 = sure, 0 = knows nothing). A text on which every "
    "teacher is left of the dashed line is an orphan; there is no line where u is not by entropy.",
)
MARGIN = Picture(
    "margin",
    "Margin",
    "Texts of the corpus by the best teacher's lead over the second: of certainty or, with `consensus`, of "
    "weight. Texts on the left are claimed by two teachers.",
)
CONFUSION = Picture(
    "confusion",
    "Confusion matrix",
    "Share of each gold label's texts by the label that the student gives: right answers in blue, wrong "
    "ones in orange. Lines part the teachers' labels.",
)


def draw_all(folder: Path, report: Report, curve: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Write every picture for which there are figures into FOLDER/plots.

    Args:
        folder: of the student.
        report: of the job (`worker.report`).
        curve: points of the training, with `step` and `loss`, in the order of the steps.

    Returns:
        The pictures that there are.
    """
    from worker.plots.canvas import save, style  # noqa: PLC0415  (matplotlib takes a second to load)

    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    drawn = []
    with style():
        for picture, draw in _drawable(report, curve):
            save(draw(), target, picture.name)
            drawn.append(picture)
    return drawn


def _drawable(
    report: Report, curve: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Picture, Callable[[], "Figure"]]]:
    from worker.plots import choice, confusion, loss  # noqa: PLC0415

    if curve:
        yield LOSS, lambda: loss.draw(curve, report["training"])
    yield SHARES, lambda: choice.draw_shares(report)
    yield CERTAINTY, lambda: choice.draw_certainty(report)
    yield MARGIN, lambda: choice.draw_margin(report)
    if "evaluation" in report:
        yield CONFUSION, lambda: confusion.draw(report)
