"""What a job tells of itself when it trains and when it is done."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

_ABSCISSA = "step"


class Metrics(BaseModel):
    """The training as series of equal length, ready to plot."""

    steps: list[int] = Field(description="Optimizer steps, from 1; at most about 400 of all steps.")
    series: dict[str, list[float | None]] = Field(
        description="`loss`, `learning_rate`, `grad_norm`, `epoch`, or a newer one: a value for each step."
    )

    @classmethod
    def of(cls, points: Sequence[Mapping[str, Any]]) -> Self:
        """From the points, one a step."""
        names = dict.fromkeys(name for point in points for name in point if name != _ABSCISSA)
        return cls(
            steps=[point[_ABSCISSA] for point in points],
            series={name: [point.get(name) for point in points] for name in names},
        )


class Report(BaseModel):
    """What a job found out. Newer jobs may tell more, older ones less."""

    model_config = ConfigDict(extra="allow")

    labels: list[str] = Field([], description="The classes of the answer.")
    teachers: list[dict[str, Any]] = Field(
        [], description="Commit, labels, dropout passes a text, and what was reused, of each."
    )
    corpus: dict[str, Any] = Field(
        {},
        description="Number of texts, and the sha256 of their content; where it was read from the Hub, "
        "`dataset` with its commit as `revision`, `config`, `split` and `text_column`.",
    )
    method: dict[str, Any] = Field({}, description="With all its settings.")
    training: dict[str, Any] = Field(
        {},
        description="Steps, mean loss of each epoch, seconds, precision. Not there where the method trains "
        "no student; nor are `taught_labels`, `agreement` and the student's figures.",
    )
    choice: dict[str, Any] = Field(
        {},
        description="Over the corpus, a value for each teacher: `chosen_share`, `mean_weight`, `mean_score`, "
        "`score_histogram`; and `margin_histogram`. A bin holds its lower one of `bin_edges`. Where "
        "`decides` is false the method chooses nobody: this is whom the teachers' certainty would.",
    )
    orphans: dict[str, Any] = Field(
        {},
        description="`texts` and `share` of the corpus on which every teacher's certainty by entropy, "
        "whatever the method's score, is below `certainty_below`: their label may be missing. "
        "`/amalgamations/{id}/texts?orphans=true` has them.",
    )
    predicted_labels: dict[str, int] = Field(
        {},
        description="Texts of the corpus by the student's label; without one, that of the teachers together.",
    )
    taught_labels: dict[str, int] | None = Field(
        None,
        description="Texts of the corpus by the most probable label of the golden supervision. Not there, "
        "nor is `agreement`, with `uhc`, which teaches no distribution over all labels.",
    )
    agreement: dict[str, Any] | None = Field(
        None,
        description="Of student and golden supervision: share of equal labels `top1`, and `mean_kl` in nats.",
    )
    evaluation: dict[str, Any] | None = Field(
        None,
        description="On the labelled corpus: `student`, each of `teachers`, `ensemble` (all teachers by "
        "certainty) and `naive_ensemble` (the largest probability of all teachers) have `accuracy`, "
        "`macro_f1`, `calibration_error`, `accuracy_by_teacher` (on the texts whose label a teacher knows), "
        "`per_label`, and the largest cells of `confusion`. `unknown_labels` are gold labels that nobody "
        "knows; `corpus` says which texts these are, `passes_computed` how many passes of teachers they "
        "took; `right_teacher_chosen` is the share of the other texts whose most certain teacher knows the "
        "gold label.",
    )
    seconds: dict[str, float] = Field({}, description="Of each stage of the last attempt.")
    throughput: dict[str, float | None] = Field(
        {},
        description="Text passes of the teachers in a second of scoring, texts in one of training, and "
        "texts in one of answering the corpus (of an ensemble: of combining what the teachers said); null "
        "where nothing was done.",
    )
    versions: dict[str, str] = Field({}, description="Of the software that did it.")


class TextRow(BaseModel):
    """One text of the corpus."""

    row: int = Field(description="Place in the corpus, from 0.")
    text: str | None = Field(description="null when the corpus was deleted or has expired.")
    chosen_teacher: int = Field(description="Index of the teacher with the largest weight.")
    weights: list[float] = Field(description="Of each teacher; they sum to 1.")
    certainty: list[float] = Field(description="Score u of each teacher in [0, 1]; 1 is certain.")
    entropy: list[float] = Field(description="Of each teacher's answer, in nats.")
    margin: float = Field(
        description="Lead of the best teacher over the second: of certainty or, with `consensus`, of weight."
    )
    label: str = Field(description="The student's; of a job without one, that of the teachers together.")
    probability: float = Field(description="Of that label, by who gives it.")
    orphan: bool = Field(description="No teacher is sure, by entropy: the text's label may be missing.")
