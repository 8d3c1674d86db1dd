"""What a job found out, as plain values: the column `report`, `muka.json`, and the card."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from worker.assignment import Assignment
from worker.muka import DistilReport, Supervision, TeacherChoice, agreement, choice_statistics
from worker.scores import Scores
from worker.text_table import ORPHAN_BELOW, orphans


def of_training(
    work: Assignment,
    *,
    texts: Sequence[str],
    scores: Sequence[Scores],
    supervision: Supervision,
    choice: TeacherChoice,
    trained: DistilReport,
    predictions: Tensor,
) -> dict[str, Any]:
    """Everything but the evaluation and the times.

    Args:
        work: the job.
        texts: the n texts of the corpus.
        scores: of each teacher.
        supervision: what the student was taught.
        choice: whom the teachers' certainty chooses, whether or not the method heeds it.
        trained: how the training went.
        predictions: the student's probabilities for the corpus, [n, |L|].
    """
    told: dict[str, Any] = {
        "labels": work.resolved.labels,
        "teachers": [_teacher(work, index, found) for index, found in enumerate(scores)],
        "corpus": {
            "id": work.corpus.id,
            "texts": len(texts),
            "content_sha256": work.corpus.content_sha256,
        },
        "method": work.recipe.method.model_dump(),
        "training": asdict(trained),
        "choice": {"decides": supervision.choice is not None, **asdict(choice_statistics(choice))},
        "orphans": {"texts": int(orphans(choice).sum()), "certainty_below": ORPHAN_BELOW},
        "predicted_labels": _counts(predictions, work.resolved.labels),
        "versions": _versions(),
    }
    if "q" in supervision.columns:
        told["agreement"] = asdict(agreement(predictions, supervision.columns["q"], supervision.temperature))
    return told


def _teacher(work: Assignment, index: int, scores: Scores) -> dict[str, Any]:
    teacher = work.resolved.teachers[index]
    passes = scores.outputs.passes
    return {
        "name": teacher.reference,
        "architecture": teacher.architecture,
        "revision": teacher.commit,
        "digest": teacher.digest,
        "labels": teacher.labels,
        "mc_samples": int(passes.max()),
        "passes_per_text": passes.float().mean().item(),
        # Without dropout layers there is nothing to sample: the single pass was scored.
        "sampled": bool(passes.any()),
        "shards": scores.shards,
        "shards_reused": scores.reused,
        "passes_computed": scores.passes,
    }


def _counts(predictions: Tensor, labels: Sequence[str]) -> dict[str, int]:
    """How many texts of the corpus the student gives each label, also those that it never gives."""
    counts = torch.bincount(predictions.argmax(-1), minlength=len(labels))
    return dict(zip(labels, counts.tolist(), strict=True))


def of_times(told: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Seconds of each stage of this attempt, and what was done in a second of it."""
    passes = sum(teacher["passes_computed"] for teacher in told["teachers"])
    trained, texts = told["training"], told["corpus"]["texts"]
    steps = (trained["steps"] - trained["resumed_from"]) / trained["steps"]
    seen = steps * len(trained["epoch_losses"]) * texts
    return {
        "seconds": dict(seconds),
        "throughput": {
            "scoring_passes_per_second": _rate(passes, seconds["scoring"]),
            "training_texts_per_second": _rate(seen, trained["seconds"]),
        },
    }


def _rate(amount: float, seconds: float) -> float | None:
    """None where nothing was done, or in no time."""
    return round(amount / seconds, 1) if amount and seconds else None


def for_card(work: Assignment, told: dict[str, Any]) -> dict[str, Any]:
    """The report with the recipe, as `worker.muka.model_card` wants it."""
    training = work.recipe.training.model_dump()
    return {
        **told,
        "name": work.name or "student",
        "recipe": work.recipe.model_dump(mode="json"),
        "training": {**training, **told["training"]},
    }


def _versions() -> dict[str, str]:
    names = ("muka", "torch", "transformers", "tokenizers", "safetensors")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"
