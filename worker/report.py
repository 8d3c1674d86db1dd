"""What a job found out, as plain values: the column `report`, `muka.json`, and the card."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from app.domain.recipe import Recipe, Resolved, ResolvedStudent, ResolvedTeacher
from app.persistence import events
from worker.assignment import Assignment
from worker.muka import DistilReport, Supervision, TeacherChoice, agreement, choice_statistics
from worker.muka.evaluate import best_counts
from worker.plots import Picture
from worker.scores import Scores
from worker.text_table import ORPHAN_BELOW, orphans
from worker.versions import version_of


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
    """As `of_answers` with the student's, and what it learned.

    Args:
        work: the job.
        texts: the n texts of the corpus.
        scores: of each teacher.
        supervision: what the student was taught.
        choice: whom the method chose; where it chooses nobody, whom the teachers' certainty would.
        trained: how the training went.
        predictions: the student's probabilities for the corpus, [n, |L|].
    """
    decides = supervision.choice is not None
    told = of_answers(
        work, texts=texts, scores=scores, choice=choice, decides=decides, predictions=predictions
    )
    told["training"] = asdict(trained)
    if "q" in supervision.columns:
        told["taught_labels"] = _counts(supervision.columns["q"], work.resolved.labels)
        told["agreement"] = asdict(agreement(predictions, supervision.columns["q"], supervision.temperature))
    return told


def of_answers(
    work: Assignment,
    *,
    texts: Sequence[str],
    scores: Sequence[Scores],
    choice: TeacherChoice,
    decides: bool,
    predictions: Tensor,
) -> dict[str, Any]:
    """Everything but a training, the evaluation and the times.

    Args:
        work: the job.
        texts: the n texts of the corpus.
        scores: of each teacher.
        choice: whom the teachers' certainty chooses, or the method.
        decides: whether the answers follow from that choice.
        predictions: the answers' probabilities for the corpus, [n, |L|].
    """
    return {
        "labels": work.resolved.labels,
        "teachers": [_teacher(work, index, found) for index, found in enumerate(scores)],
        "corpus": {
            "id": work.corpus.id,
            "texts": len(texts),
            "content_sha256": work.corpus.content_sha256,
        },
        "method": work.recipe.method.model_dump(),
        "choice": {"decides": decides, **asdict(choice_statistics(choice))},
        "orphans": _orphans(choice, texts=len(texts)),
        "predicted_labels": _counts(predictions, work.resolved.labels),
        "versions": _versions(),
    }


def of_checkpoint(work: Assignment, place: Mapping[str, Any]) -> dict[str, Any]:
    """What is known in the middle of a training; `place`: `step`, `total_steps`, `epoch`, `loss`."""
    teachers = work.resolved.teachers
    told: dict[str, Any] = {
        "labels": work.resolved.labels,
        "teachers": [
            {"name": each.reference, "architecture": each.architecture, "revision": each.commit}
            | {"digest": each.digest, "labels": each.labels}
            for each in teachers
        ],
        "corpus": {
            "id": work.corpus.id,
            "texts": work.corpus.texts,
            "content_sha256": work.corpus.content_sha256,
        },
        "method": work.recipe.method.model_dump(),
        "training": dict(place),
        "versions": _versions(),
    }
    if place["step"] < place["total_steps"]:
        told["unfinished"] = {name: place[name] for name in ("step", "total_steps")}
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
        "passes_per_text": passes.mean(dtype=torch.float64).item(),
        # Without dropout layers there is nothing to sample: the single pass was scored.
        "sampled": bool(passes.any()),
        "shards": scores.shards,
        "shards_reused": scores.reused,
        "passes_computed": scores.passes,
    }


def _orphans(choice: TeacherChoice, *, texts: int) -> dict[str, Any]:
    """How many there are, and by which bound; `texts.parquet` says which."""
    found = int(orphans(choice).sum())
    return {"texts": found, "share": found / texts, "certainty_below": ORPHAN_BELOW}


def _counts(predictions: Tensor, labels: Sequence[str]) -> dict[str, int]:
    """How many texts of the corpus have each label as their most probable one, none left out."""
    return dict(zip(labels, best_counts(predictions).tolist(), strict=True))


def of_times(told: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Seconds of each stage of this attempt, and what was done in a second of it."""
    passes = sum(teacher["passes_computed"] for teacher in told["teachers"])
    texts, trained = told["corpus"]["texts"], told.get("training")
    answered = texts + told.get("evaluation", {}).get("texts", 0)
    return {
        "seconds": dict(seconds),
        "throughput": {
            "scoring_passes_per_second": _rate(passes, seconds["scoring"]),
            "training_texts_per_second": _trained_per_second(trained, texts) if trained else None,
            "evaluating_texts_per_second": _rate(answered, seconds["evaluating"]),
        },
    }


def _trained_per_second(trained: Mapping[str, Any], texts: int) -> float | None:
    steps = (trained["steps"] - trained["resumed_from"]) / trained["steps"]
    return _rate(steps * len(trained["epoch_losses"]) * texts, trained["seconds"])


def _rate(amount: float, seconds: float) -> float | None:
    """None where nothing was done, or in no time."""
    return round(amount / seconds, 1) if amount and seconds else None


def story(work: Assignment, told: Mapping[str, Any]) -> dict[str, Any]:
    """What `muka.json` holds: everything that is known of the job, for machines."""
    return {
        "recipe": exact_recipe(work.recipe, work.resolved),
        "resolved": work.resolved.model_dump(mode="json"),
        "report": dict(told),
    }


def exact_recipe(recipe: Recipe, resolved: Resolved) -> dict[str, Any]:
    """The recipe with what its names stood for: sent again, it repeats the job even if they have moved on.

    Models of the Hub are pinned to their commits, and a data set is the corpus that was made of it.
    """
    exact = recipe.model_dump(mode="json")
    exact["corpus"] = resolved.corpus_id
    for spec, teacher in zip(exact["teachers"], resolved.teachers, strict=True):
        spec["model"] = _pinned(teacher) or spec["model"]
    exact["student"]["init_from"] = _pinned(resolved.student) or exact["student"]["init_from"]
    return exact


def _pinned(model: ResolvedTeacher | ResolvedStudent) -> str | None:
    return f"{model.repo_id}@{model.commit}" if model.repo_id and model.commit else None


def training_curve(work: Assignment) -> list[dict[str, Any]]:
    """The points of the training, over all attempts."""

    def read() -> list[dict[str, Any]]:
        with work.database.read() as session:
            return events.metric_points(session, work.lease.job_id)

    return work.lease.patiently(read)


def for_card(work: Assignment, told: Mapping[str, Any], pictures: Sequence[Picture]) -> dict[str, Any]:
    """The report with the recipe, as `worker.muka.model_card` wants it."""
    training = work.recipe.training.model_dump()
    start, teachers = work.resolved.student, work.resolved.teachers
    bases = dict.fromkeys([start.repo_id, *(teacher.repo_id for teacher in teachers)])
    return {
        **told,
        "name": work.name or "student",
        "recipe": exact_recipe(work.recipe, work.resolved),
        "training": {**training, **told["training"]},
        "base_model": [repo_id for repo_id in bases if repo_id],
        "evaluation_corpus": work.resolved.evaluation_corpus_id,
        "pictures": [
            {"title": each.title, "caption": each.caption, "png": each.png, "svg": each.svg}
            for each in pictures
        ],
    }


def _versions() -> dict[str, str]:
    names = ("muka", "torch", "transformers", "tokenizers", "safetensors")
    return {"python": platform.python_version(), **{name: version_of(name) for name in names}}
