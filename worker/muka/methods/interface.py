"""What every method takes and gives.

A method sees the whole corpus once (`supervise`) and answers with columns: tensors with one row a text.
The training loop cuts the rows of a batch out of every column and hands them, with what the student said
about these texts, to the method's objective. So a method may prepare whatever it likes (neighbours in the
corpus, concatenated logits, features), and its loss may want whatever it prepared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from torch import Tensor, nn

from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.losses import weighted_kl
from worker.muka.recipe import Method
from worker.muka.scoring import TeacherOutputs


class Need(StrEnum):
    """What a method wants to be in the evidence beside the teachers' logits and scores."""

    TEACHER_FEATURES = "teacher_features"
    """`TeacherOutputs.features`: score with features=True."""
    CORPUS_EMBEDDINGS = "corpus_embeddings"
    """`Evidence.embeddings`: the student's encoder over the corpus, before training."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a method may look at, for the n texts of the corpus.

    Attributes:
        label_space: The union of the N teachers' labels.
        outputs: What each teacher says; N of n rows.
        embeddings: [n, width] normalised, if needed.
        student_width: Width of the student's pooled features, for adapters.
    """

    label_space: LabelSpace
    outputs: Sequence[TeacherOutputs]
    embeddings: Tensor | None = None
    student_width: int | None = None


class Objective(nn.Module):
    """A loss; what parameters it has (adapters) are trained and checkpointed with the student.

    Attributes:
        wants_features: Whether `Answer.features` of the student must be there.
    """

    wants_features: bool = False

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of b texts.

        Args:
            student: What the student says, logits [b, |L|].
            columns: The rows of these texts of every column of the supervision, [b, ...].

        Returns:
            A float32 scalar.
        """
        raise NotImplementedError


class GoldenKL(Objective):
    """mean m·KL(q ‖ student) over the columns `q` [b, |L|] and `m` [b] (section 6)."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        """See `weighted_kl`."""
        return weighted_kl(student.logits, columns["q"], columns["m"], self.temperature)


@dataclass(frozen=True)
class TeacherChoice:
    """Whom a method believes, for the report.

    Attributes:
        u: Scores [n, N] in [0, 1].
        w: Weights [n, N]; rows sum to one.
        m: Margins [n], whether or not they weight the loss.
    """

    u: Tensor
    w: Tensor
    m: Tensor


@dataclass(frozen=True)
class Supervision:
    """What the student is to learn.

    Attributes:
        columns: Float32 tensors of n rows, by a name that the objective knows. A column `q` [n, |L|] is
            golden supervision; evaluation reads it where there is one.
        objective: The loss over the rows of a batch.
        choice: Whom the method believes, where it chooses at all.
    """

    columns: Mapping[str, Tensor]
    objective: Objective = field(default_factory=GoldenKL)
    choice: TeacherChoice | None = None

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) != 1:
            rows = {name: len(column) for name, column in self.columns.items()}
            raise ValueError(f"columns have {rows} rows; allowed: the same number, at least one column")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


class AmalgamationMethod(Protocol):
    """A way to make a student."""

    @property
    def name(self) -> str:
        """As in `Method.name`."""

    @property
    def needs(self) -> frozenset[Need]:
        """What the evidence must hold beside logits and scores."""

    @property
    def trains_student(self) -> bool:
        """False where the supervision, computed for a text at inference, is already the answer."""

    def supervise(self, evidence: Evidence, method: Method) -> Supervision:
        """Prepare the supervision of the whole corpus."""
