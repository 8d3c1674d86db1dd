"""What a job found out, as plain values: the column `report`, `muka.json`, and the card."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from app.domain.recipe import HubDataset, Recipe, Resolved, ResolvedStudent, ResolvedTeacher
from app.persistence import events
from app.persistence.tables import Corpus
from worker.assignment import Assignment
from worker.muka import (
    DistilReport,
    LabelSpace,
    Supervision,
    TeacherChoice,
    agreement,
    choice_statistics,
    orphans,
)
from worker.muka.columns import spans
from worker.muka.evaluate import ORPHAN_BELOW, best_counts
from worker.plots import Picture
from worker.scores import Scores
from worker.versions import version_of


def of_training(
    work: Assignment,
    *,
    texts: Sequence[str],
    scores: Sequence[Scores],
    supervision: Supervision,
    choice: TeacherChoice,
    entropy: Tensor,
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
        entropy: of each teacher's answer in nats [n, N].
        trained: how the training went.
        predictions: the student's probabilities for the corpus, [n, |L|].
    """
    decides = supervision.choice is not None
    told = of_answers(
        work,
        texts=texts,
        scores=scores,
        choice=choice,
        decides=decides,
        entropy=entropy,
        predictions=predictions,
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
    entropy: Tensor,
    predictions: Tensor,
) -> dict[str, Any]:
    """Everything but a training, the evaluation and the times.

    Args:
        work: the job.
        texts: the n texts of the corpus.
        scores: of each teacher.
        choice: whom the teachers' certainty chooses, or the method.
        decides: whether the answers follow from that choice.
        entropy: of each teacher's answer in nats [n, N].
        predictions: the answers' probabilities for the corpus, [n, |L|].
    """
    return {
        "labels": work.resolved.labels,
        "teachers": [_teacher(work, index, found) for index, found in enumerate(scores)],
        "corpus": corpus_facts(work.corpus, work.resolved.dataset) | {"texts": len(texts)},
        "method": work.recipe.method.model_dump(),
        "choice": {"decides": decides, **asdict(choice_statistics(choice))},
        "orphans": _orphans(work.resolved, entropy),
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
        "corpus": corpus_facts(work.corpus, work.resolved.dataset),
        "method": work.recipe.method.model_dump(),
        "training": dict(place),
        "versions": _versions(),
    }
    if place["step"] < place["total_steps"]:
        told["unfinished"] = {name: place[name] for name in ("step", "total_steps")}
    return told


def corpus_facts(corpus: Corpus, dataset: HubDataset | None = None) -> dict[str, Any]:
    """Which it is, and what it was read from on the Hub."""
    facts = {"id": corpus.id, "texts": corpus.texts, "content_sha256": corpus.content_sha256}
    if dataset is not None:
        where = {name: getattr(dataset, name) for name in ("revision", "config", "split", "text_column")}
        facts |= {"dataset": dataset.dataset, **where}
    return facts


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


def _orphans(resolved: Resolved, entropy: Tensor) -> dict[str, Any]:
    """How many there are, and by which bound; `texts.parquet` says which."""
    space = LabelSpace.union([teacher.labels for teacher in resolved.teachers])
    found = sum(int(orphans(space, entropy[span]).sum()) for span in spans(len(entropy)))
    return {"texts": found, "share": found / len(entropy), "certainty_below": ORPHAN_BELOW}


def _counts(predictions: Tensor, labels: Sequence[str]) -> dict[str, int]:
    """How many texts of the corpus have each label as their most probable one, none left out."""
    return dict(zip(labels, best_counts(predictions).tolist(), strict=True))


def of_times(
    told: Mapping[str, Any], seconds: Mapping[str, float], answering_seconds: float
) -> dict[str, Any]:
    """Seconds of each stage of this attempt, and what was done in a second of it.

    Args:
        told: as `of_training` or `of_answers` tells it.
        seconds: of each stage.
        answering_seconds: that the answers to the corpus took, out of those of evaluating.
    """
    passes = sum(teacher["passes_computed"] for teacher in told["teachers"])
    texts, trained = told["corpus"]["texts"], told.get("training")
    return {
        "seconds": dict(seconds),
        "throughput": {
            "scoring_passes_per_second": _rate(passes, seconds["scoring"]),
            "training_texts_per_second": _trained_per_second(trained, texts) if trained else None,
            "evaluating_texts_per_second": _rate(texts, answering_seconds),
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

    Models and data sets of the Hub are pinned to their commits.
    """
    exact = recipe.model_dump(mode="json")
    dataset = resolved.dataset
    exact["corpus"] = resolved.corpus_id if dataset is None else dataset.model_dump(mode="json")
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
    start, teachers, dataset = work.resolved.student, work.resolved.teachers, work.resolved.dataset
    bases = dict.fromkeys([start.repo_id, *(teacher.repo_id for teacher in teachers)])
    return {
        **told,
        "name": work.name or "student",
        "student": {"init_from": _start(work), "layers": work.recipe.student.layers},
        "recipe": exact_recipe(work.recipe, work.resolved),
        "training": {**training, **told["training"]},
        "datasets": [] if dataset is None else [dataset.dataset],
        "base_model": [repo_id for repo_id in bases if repo_id],
        "evaluation_corpus": work.resolved.evaluation_corpus_id,
        "pictures": [
            {"title": each.title, "caption": each.caption, "png": each.png, "svg": each.svg}
            for each in pictures
        ],
    }


def _start(work: Assignment) -> str:
    """What the student's encoder was first."""
    start = work.resolved.student
    if start.teacher is not None:
        return f"the encoder of {work.resolved.teachers[start.teacher].reference}"
    return _pinned(start) or work.recipe.student.init_from


def _versions() -> dict[str, str]:
    names = ("muka", "torch", "transformers", "tokenizers", "safetensors")
    return {"python": platform.python_version(), **{name: version_of(name) for name in names}}
