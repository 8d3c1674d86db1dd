"""What every method takes and gives.

A method sees the whole corpus (`supervise`) and answers with columns: tensors with one row a text. One that
says so (`takes_parts`) is asked part by part, so that nothing as long as the corpus need be in memory.
The training loop cuts the rows of a batch out of every column and hands them, with what the student said
about these texts, to the method's objective. So a method may prepare whatever it likes (clusters of the
corpus, concatenated logits, features), and its loss may want whatever it prepared.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from worker.muka.columns import spans
from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.losses import weighted_kl
from worker.muka.parameters import Settings
from worker.muka.recipe import Sampling
from worker.muka.scoring import TeacherOutputs

Made = TypeVar("Made")


class Need(StrEnum):
    """What a method wants to be in the evidence beside the teachers' logits and scores."""

    TEACHER_FEATURES = "teacher_features"
    """`TeacherOutputs.features`: score with features=True."""


@dataclass(frozen=True)
class Evidence:
    """Everything that a method may look at, for the n texts of the corpus.

    Attributes:
        label_space: The union of the N teachers' labels.
        outputs: What each teacher says; N of n rows.
        student_width: Width of the student's pooled features, for adapters.
        seed: The training's, for the first weights of adapters.
        corpus: The evidence of the whole corpus, where this is a part of it.
        on_block: Called every now and then by what takes long; what it raises ends that.
    """

    label_space: LabelSpace
    outputs: Sequence[TeacherOutputs]
    student_width: int | None = None
    seed: int = 1
    corpus: "Evidence | None" = None
    on_block: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.outputs[0])

    @property
    def whole(self) -> "Evidence":
        """Of the whole corpus."""
        return self if self.corpus is None else self.corpus

    @cached_property
    def feature_moments(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and standard deviation [width_i] of each teacher's features, over these texts.

        Raises:
            ValueError: The evidence has no features.
        """
        return [_moments(outputs.features, self.on_block) for outputs in self.outputs]

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` makes of these texts; made at the first call with this key, and shared afterwards."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def rows(self, span: slice) -> "Evidence":
        """The part for some texts; it shares the memory of the whole."""
        outputs = [each.rows(span) for each in self.outputs]
        return replace(self, outputs=outputs, corpus=self.whole)


def _moments(features: Tensor | None, on_block: Callable[[], None]) -> tuple[Tensor, Tensor]:
    if features is None:
        raise ValueError("the evidence has no teacher features; allowed: outputs scored with features=True")
    n, width = features.shape
    mean, variance = torch.zeros(2, width, dtype=torch.float64)
    for span in spans(n):
        on_block()
        mean += features[span].double().sum(0) / n
    for span in spans(n):
        on_block()
        variance += (features[span].double() - mean).square().sum(0) / n
    return mean.float(), variance.sqrt().float()


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
    """scale · mean m·KL(q ‖ student) over the columns `q` [b, |L|] and `m` [b] (section 6).

    Attributes:
        temperature: T, on the student's logits.
        scale: 1 for MUKA. T² keeps the gradient's size whatever T is (Hinton et al. 2015).
    """

    def __init__(self, temperature: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        self.temperature, self.scale = temperature, scale

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        """See `weighted_kl`."""
        return self.scale * weighted_kl(student.logits, columns["q"], columns["m"], self.temperature)

    def extra_repr(self) -> str:
        """What the loss depends on beside its columns."""
        return f"temperature={self.temperature}, scale={self.scale}"


@dataclass(frozen=True)
class TeacherChoice:
    """Whom a method believes, for the report.

    Attributes:
        u: Scores [n, N] in [0, 1].
        w: Weights [n, N]; rows sum to one.
        m: Margins [n], whether or not they weight the loss: the best teacher's lead over the second, of u, or
            of w where u is not what the method chooses by.
    """

    u: Tensor
    w: Tensor
    m: Tensor


HeadStart: TypeAlias = Literal["random", "discriminant"]
"""Of a student's head: left to chance, or the discriminant of its features (`worker.muka.head`)."""


@dataclass(frozen=True)
class Supervision:
    """What the student is to learn.

    Attributes:
        columns: Float32 tensors of n rows, by a name that the objective knows. A column `q` [n, |L|] is
            golden supervision; evaluation reads it where there is one.
        objective: The loss over the rows of a batch.
        choice: Whom the method believes, where it chooses at all.
        temperature: T at which the student's answer is to be `q`.
        head: How the student's head is to start; `discriminant` takes columns `q` and `m`.
    """

    columns: Mapping[str, Tensor]
    objective: Objective = field(default_factory=GoldenKL)
    choice: TeacherChoice | None = None
    temperature: float = 1.0
    head: HeadStart = "random"

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) != 1:
            rows = {name: len(column) for name, column in self.columns.items()}
            raise ValueError(f"columns have {rows} rows; allowed: the same number, at least one column")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, kw_only=True)
class Method(Settings, ABC):
    """A way to make a student: its settings, and what it makes of the teachers' answers.

    Attributes:
        name: As users write it.
        source: Where it comes from.
        needs: What the evidence must hold beside logits and scores.
        trains_student: False where the supervision, computed for a text at inference, is the answer.
        takes_parts: Whether `supervise` gives the same rows when it is called for a part of the corpus
            (`Evidence.rows`): what it makes of a text depends on that text alone, or on `evidence.whole`.
            Then a corpus may be larger than the memory.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    trains_student: ClassVar[bool] = True
    takes_parts: ClassVar[bool] = False

    @property
    def sampling(self) -> Sampling:
        """How the teachers are asked: one pass without dropout, unless a method says otherwise."""
        return Sampling()

    @abstractmethod
    def supervise(self, evidence: Evidence) -> Supervision:
        """Prepare the supervision of all texts of the evidence."""

    def settings(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        return {"name": self.name, **asdict(self)}
