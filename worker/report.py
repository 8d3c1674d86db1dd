"""What a job found out, as plain values: the column `report`, `muka.json`, and the card's tables."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from worker.assignment import Assignment
from worker.muka import DistilReport, Supervision, agreement, choice_statistics
from worker.scores import Scores


def of_training(
    work: Assignment,
    *,
    texts: Sequence[str],
    scores: Sequence[Scores],
    supervision: Supervision,
    trained: DistilReport,
    predictions: torch.Tensor,
) -> dict[str, Any]:
    """Everything but the evaluation.

    Args:
        work: the job.
        texts: the n texts of the corpus.
        scores: of each teacher.
        supervision: what the student was taught.
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
        "training": asdict(trained),
        "versions": _versions(),
    }
    if supervision.choice is not None:
        told["choice"] = asdict(choice_statistics(supervision.choice))
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


def for_card(work: Assignment, told: dict[str, Any]) -> dict[str, Any]:
    """The report as `worker.muka.model_card` wants it: flat tables."""
    recipe = work.recipe
    card = {
        **told,
        "name": work.name or "student",
        "method": recipe.method.model_dump(),
        "training": {**recipe.training.model_dump(), **told["training"]},
    }
    if "evaluation" in told:
        card["evaluation"] = _flat(
            told["evaluation"], [teacher.reference for teacher in work.resolved.teachers]
        )
    return card


def _flat(evaluation: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {"held-out texts": evaluation["texts"]}
    rows = [
        ("student", evaluation["student"]),
        ("naive ensemble of the teachers", evaluation["naive_ensemble"]),
    ]
    rows += [(f"teacher {name}", scores) for name, scores in zip(names, evaluation["teachers"], strict=True)]
    for name, scores in rows:
        flat[f"{name}, accuracy"] = scores["accuracy"]
        flat[f"{name}, macro-F1"] = scores["macro_f1"]
    return flat


def _versions() -> dict[str, str]:
    names = ("muka", "torch", "transformers", "tokenizers", "safetensors")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"
