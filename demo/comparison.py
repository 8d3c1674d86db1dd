"""Who is right how often: each teacher, the teachers together, the student."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """What one model says about n texts."""

    labels: tuple[str, ...]
    """Its C classes."""
    probabilities: "Tensor"
    """[n, C]"""


@dataclass(frozen=True)
class Score:
    """How often a model, or several together, were right."""

    name: str
    classes: int
    """How many it knows."""
    own: float
    """Accuracy on the texts whose class it knows, of 1."""
    all: float
    """Accuracy on all texts, of 1."""
    models: int
    """Forward passes that one answer costs."""


def answers_of(folder: Path, texts: Sequence[str]) -> Answers:
    """Ask a model in a Hugging Face folder."""
    from worker.muka import Student  # noqa: PLC0415  (torch takes seconds to load)

    model = Student.load(folder)
    return Answers(model.labels, model.predict(texts))


def best(answers: Answers) -> list[str]:
    """The most probable class of each text."""
    return [answers.labels[index] for index in answers.probabilities.argmax(-1).tolist()]


def naive_combination(teachers: Sequence[Answers]) -> list[str]:
    """The class with the largest probability that any teacher gives."""
    import torch  # noqa: PLC0415

    labels = tuple(label for teacher in teachers for label in teacher.labels)
    return best(Answers(labels, torch.cat([teacher.probabilities for teacher in teachers], dim=-1)))


def score(
    name: str, predicted: Sequence[str], gold: Sequence[str], known: Sequence[str], models: int = 1
) -> Score:
    """Compare predictions with gold labels; the two are in the same order.

    Raises:
        ValueError: other numbers of predictions and labels.
    """
    right = [guess == truth for guess, truth in zip(predicted, gold, strict=True)]
    own = [hit for hit, truth in zip(right, gold, strict=True) if truth in set(known)]
    return Score(name, len(set(known)), _share(own), _share(right), models)


def compare(
    teachers: Sequence[tuple[str, Answers]], student: Answers, gold: Sequence[str]
) -> tuple[Score, ...]:
    """Teachers, their naive combination, student: in this order."""
    answers = [answer for _, answer in teachers]
    union = list(dict.fromkeys(label for answer in answers for label in answer.labels))
    return (
        *(score(name, best(answer), gold, answer.labels) for name, answer in teachers),
        score("all teachers together", naive_combination(answers), gold, union, models=len(teachers)),
        score("the student", best(student), gold, student.labels),
    )


def verdict(scores: Sequence[Score]) -> str:
    """The comparison in two sentences, also where it does not favour the student."""
    *teachers, together, student = scores
    lead = 100 * (student.all - max(teacher.all for teacher in teachers))
    gap = 100 * (student.all - together.all)
    first = (
        f"The student is {lead:.1f} points better on all classes than the best teacher, "
        "and learned from texts without labels."
    )
    if gap >= 0:
        return f"{first} Asking all {together.models} teachers for every text is {gap:.1f} points worse."
    return (
        f"{first} Asking all {together.models} teachers for every text is {-gap:.1f} points better, "
        f"and costs {together.models} models at every answer."
    )


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0
