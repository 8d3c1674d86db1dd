"""How good a student is, and what the teachers were like on the corpus."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.muka.columns import spans
from worker.muka.label_space import LabelSpace, normalise
from worker.muka.losses import kl_to_golden
from worker.muka.methods.interface import TeacherChoice
from worker.muka.scoring import TeacherOutputs
from worker.muka.uncertainty import entropy

_CONFIDENCE_BINS = 15
ORPHAN_BELOW = 0.5
"""A text on which no teacher's certainty by entropy reaches this is an orphan: its label may be missing."""


@dataclass(frozen=True)
class LabelMetrics:
    """Of one label.

    Attributes:
        label: Its name.
        support: Texts that have it by the gold names.
        predicted: Texts that were given it.
        precision: Right among the predicted; 0 if there are none.
        recall: Right among the gold ones; 0 if there are none.
        f1: Harmonic mean of both.
    """

    label: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Predictions against gold names.

    Attributes:
        texts: How many.
        accuracy: Share of texts whose predicted name is the gold name.
        macro_f1: Mean F1 over the labels that are gold or predicted anywhere, as scikit-learn has it.
        per_label: Those labels, in the order of the label space, names outside of it last.
        confusion: (gold, predicted) to the number of texts, for the pairs that occur.
        unknown_labels: Gold names that no student can predict; their texts count as wrong.
    """

    texts: int
    accuracy: float
    macro_f1: float
    per_label: tuple[LabelMetrics, ...]
    confusion: dict[tuple[str, str], int]
    unknown_labels: tuple[str, ...]


def evaluate(predictions: Tensor, gold: Sequence[str], labels: Sequence[str]) -> Evaluation:
    """Compare predictions with gold label names.

    Args:
        predictions: Probabilities [n, |L|] or class indices [n].
        gold: n names.
        labels: Names of the classes.

    Raises:
        ValueError: Other numbers of predictions and names, or none.
    """
    indices = predictions.argmax(-1) if predictions.ndim == 2 else predictions
    if len(indices) != len(gold) or not gold:
        raise ValueError(f"gold has {len(gold)} names; allowed: {len(indices)}, one a prediction, at least 1")
    confusion = Counter(zip(map(normalise, gold), (labels[i] for i in indices.tolist()), strict=True))
    right = sum(count for (truth, guess), count in confusion.items() if truth == guess)
    unknown = sorted({truth for truth, _ in confusion} - set(labels))
    per_label = tuple(_per_label(confusion, (*labels, *unknown)))
    macro_f1 = sum(metrics.f1 for metrics in per_label) / len(per_label)
    return Evaluation(len(gold), right / len(gold), macro_f1, per_label, dict(confusion), tuple(unknown))


def _per_label(confusion: Counter[tuple[str, str]], labels: Sequence[str]) -> list[LabelMetrics]:
    support: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    for (truth, guess), count in confusion.items():
        support[truth] += count
        predicted[guess] += count
    seen = [label for label in labels if support[label] or predicted[label]]
    return [_metrics(label, support[label], predicted[label], confusion[label, label]) for label in seen]


def _metrics(label: str, support: int, predicted: int, right: int) -> LabelMetrics:
    precision = right / predicted if predicted else 0.0
    recall = right / support if support else 0.0
    f1 = 2 * right / (support + predicted)
    return LabelMetrics(label, support, predicted, precision, recall, f1)


def calibration_error(confidence: Tensor, guess: Tensor, gold: Sequence[str], labels: Sequence[str]) -> float:
    """Expected calibration error over 15 equal bins of confidence (Guo et al. 2017, arXiv 1706.04599).

    Args:
        confidence: Probability of the answer [n].
        guess: The answer [n], as the index of its class.
        gold: n names.
        labels: Names of the classes.

    Returns:
        The mean distance of confidence and share of right answers, bins weighted by their texts: in [0, 1].
    """
    confidence = confidence.double()
    names = [labels[i] for i in guess.tolist()]
    right = torch.tensor([float(a == normalise(b)) for a, b in zip(names, gold, strict=True)])
    places = (confidence * _CONFIDENCE_BINS).ceil().long().clamp(1, _CONFIDENCE_BINS) - 1
    surplus = torch.zeros(_CONFIDENCE_BINS, dtype=torch.float64).index_add(0, places, confidence - right)
    return float(surplus.abs().sum() / len(gold))


@dataclass(frozen=True)
class Agreement:
    """How well the student learned what it was taught.

    Attributes:
        top1: Share of texts on which student and golden supervision have the same best label.
        mean_kl: Mean KL(q ‖ student) in nats, unweighted.
    """

    top1: float
    mean_kl: float


def agreement(probabilities: Tensor, q: Tensor, temperature: float = 1.0) -> Agreement:
    """Compare the student's probabilities [n, |L|] with golden supervision [n, |L|] of that temperature."""
    same, divergence = 0, 0.0
    for span in spans(len(q)):
        p, taught = probabilities[span], q[span]
        log_p = p.clamp_min(torch.finfo(torch.float32).tiny).log()
        same += int((p.argmax(-1) == taught.argmax(-1)).sum())
        divergence += kl_to_golden(log_p, taught, temperature).sum(dtype=torch.float64).item()
    return Agreement(same / len(q), divergence / len(q))


def best_counts(values: Tensor) -> Tensor:
    """How often each column of [n, c] has a row's largest value: int64 [c]."""
    n, c = values.shape
    return torch.stack([torch.bincount(values[s].argmax(-1), minlength=c) for s in spans(n)]).sum(0)


def predictive_entropy(space: LabelSpace, outputs: Sequence[TeacherOutputs]) -> Tensor:
    """H(p̂_i) in nats of each teacher over its kept labels, for each text: [n, N]; 0 is certain."""
    kept = (space.project(i, each.mc_probabilities) for i, each in enumerate(outputs))
    return torch.stack([entropy(p_hat) for p_hat in kept], dim=-1)


def orphans(space: LabelSpace, entropies: Tensor) -> Tensor:
    """Whether no teacher is sure of a text, whatever score the method chooses by: bool [n].

    Sure is who has 1 - H(p̂)/log c of at least `ORPHAN_BELOW`. Other scores tell teachers apart, but not what
    nobody knows: passes that agree on a uniform answer have a `bald` of 1, and `energy` is above 1/2 wherever
    the logits sum to zero.

    Args:
        space: The union of the N teachers' labels.
        entropies: As `predictive_entropy` gives them [n, N].
    """
    most = space.known.sum(-1).log()
    return (1.0 - entropies / most).amax(-1) < ORPHAN_BELOW


@dataclass(frozen=True)
class ChoiceStatistics:
    """Whom the method believed, over the corpus.

    Attributes:
        chosen_share: For each teacher the share of texts for which its weight is the largest.
        mean_weight: For each teacher its mean weight.
        mean_score: For each teacher its mean u.
        score_histogram: For each teacher the texts in each of the equal bins of [0, 1] by u.
        margin_histogram: Texts in each of the equal bins of [0, 1] by m.
        bin_edges: Of both: a bin holds its lower edge, the last one its upper edge too.
    """

    chosen_share: tuple[float, ...]
    mean_weight: tuple[float, ...]
    mean_score: tuple[float, ...]
    score_histogram: tuple[tuple[int, ...], ...]
    margin_histogram: tuple[int, ...]
    bin_edges: tuple[float, ...]


def choice_statistics(choice: TeacherChoice, *, bins: int = 20) -> ChoiceStatistics:
    """Sum a teacher choice up."""
    n, N = choice.u.shape
    return ChoiceStatistics(
        chosen_share=tuple((best_counts(choice.w) / n).tolist()),
        mean_weight=tuple(choice.w.mean(0).tolist()),
        mean_score=tuple(choice.u.mean(0).tolist()),
        score_histogram=tuple(_histogram(choice.u[:, i], bins) for i in range(N)),
        margin_histogram=_histogram(choice.m, bins),
        bin_edges=tuple(edge / bins for edge in range(bins + 1)),
    )


def _histogram(values: Tensor, bins: int) -> tuple[int, ...]:
    places = ((values[span] * bins).long().clamp(0, bins - 1) for span in spans(len(values)))
    return tuple(torch.stack([torch.bincount(part, minlength=bins) for part in places]).sum(0).tolist())
