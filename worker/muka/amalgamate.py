"""The whole amalgamation in one call, for notebooks and benchmarks."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from worker.muka.adaptive import score_shard_adaptively
from worker.muka.ahead import TokenisedAhead, Upcoming
from worker.muka.distil import DistilReport, distil
from worker.muka.errors import CorpusEmptyError
from worker.muka.evaluate import agreement, choice_statistics
from worker.muka.fine_tune import advance, default_device
from worker.muka.forward import feature_width
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, Method, Need, Supervision, get_method
from worker.muka.model_card import write_model_card
from worker.muka.recipe import Sampling, Training
from worker.muka.scoring import SHARD_SIZE, TeacherOutputs, score_shard
from worker.muka.student import Student, create_student
from worker.muka.teacher import Teacher


def amalgamate(
    teachers: Sequence[Path | str | Teacher],
    texts: Sequence[str],
    *,
    student: Path | str | None = None,
    layers: int | None = None,
    method: Method | None = None,
    training: Training | None = None,
    output_dir: Path | str | None = None,
    progress: bool = True,
    device: torch.device | None = None,
) -> Student:
    """Make one student over the union of the teachers' labels, from texts without labels.

    Args:
        teachers: At least two; folders, or teachers that are loaded (for renamed labels).
        texts: The corpus.
        student: Folder of the encoder to start from; by default that of the first teacher.
        layers: Keep only the first so many encoder layers.
        method: Consensus by default; the paper's is `get_method("muka")`.
        training: The paper's by default.
        output_dir: Where to save the student with its card, if anywhere.
        progress: Whether to show bars.
        device: A GPU where there is one, by default.

    Returns:
        The trained student; its `report` tells how it came about.

    Raises:
        ValueError: Fewer than two teachers, or a method that trains no student.
        MukaLibraryError: See `worker.muka.errors`.
    """
    method, training, device = method or get_method(), training or Training(), device or default_device()
    _check(teachers, texts, method)
    start = Path(student) if student is not None else _folder(teachers[0])
    loaded = [t if isinstance(t, Teacher) else Teacher.load(Path(t), device=device) for t in teachers]
    space = LabelSpace.union([teacher.labels for teacher in loaded])
    pupil = create_student(start, space.labels, layers=layers, seed=training.seed).to(device)
    features = Need.TEACHER_FEATURES in method.needs
    outputs = score_corpus(
        loaded, texts, sampling=method.sampling, training=training, features=features, progress=progress
    )
    evidence = Evidence(space, outputs, student_width=feature_width(pupil.model), seed=training.seed)
    supervision = method.supervise(evidence)
    done = _distil(pupil, texts, supervision, training, progress)
    pupil.report = _report(loaded, evidence, supervision, method=method, training=training, done=done)
    pupil.report |= _agreement(pupil, texts, supervision, training)
    if output_dir is not None:
        pupil.save(Path(output_dir))
        write_model_card(Path(output_dir), pupil.report)
    return pupil


def _check(teachers: Sequence[Path | str | Teacher], texts: Sequence[str], method: Method) -> None:
    if not method.trains_student:
        raise ValueError(f"{method.name} trains no student; allowed: its `supervise`, which is the answer")
    if len(teachers) < 2:
        raise ValueError(f"teachers has {len(teachers)}; allowed: [2, inf)")
    if not texts:
        raise CorpusEmptyError("there are no texts")


def _folder(teacher: Path | str | Teacher) -> Path:
    if isinstance(teacher, Teacher):
        return teacher.folder
    return Path(teacher)


def score_corpus(
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    *,
    sampling: Sampling,
    training: Training,
    features: bool = False,
    progress: bool = False,
) -> list[TeacherOutputs]:
    """Every teacher's outputs for the whole corpus, scored shard by shard, in the order of the teachers.

    Args:
        teachers: N of them.
        texts: n texts.
        sampling: How they are asked.
        training: Tells the number of tokens.
        features: Whether pooled features are wanted as well.
        progress: Whether to show a bar.
    """
    passes = sum(1 + (sampling.passes if teacher.has_dropout else 0) for teacher in teachers)
    with tqdm(
        total=passes * len(texts), disable=not progress, desc="asking the teachers", unit="text"
    ) as bar:
        settings: dict[str, Any] = {
            "sampling": sampling,
            "max_length": training.max_length,
            "features": features,
            "on_batch": bar.update,
        }
        ahead = TokenisedAhead(training.max_length)
        shards = [
            _score_shard(teachers, ahead, texts, shard, **settings)
            for shard in range(math.ceil(len(texts) / SHARD_SIZE))
        ]
    return [TeacherOutputs.cat(of_teacher) for of_teacher in zip(*shards, strict=True)]


def _score_shard(
    teachers: Sequence[Teacher],
    ahead: TokenisedAhead,
    corpus: Sequence[str],
    shard: int,
    *,
    sampling: Sampling,
    **settings: Any,
) -> list[TeacherOutputs]:
    texts, rest = _shard(corpus, shard), _shard(corpus, shard + 1)
    upcoming = Upcoming(shard + 1, lambda: rest) if rest else None
    tokens = [ahead.take(teacher, shard, texts, upcoming) for teacher in teachers]
    settings |= {"sampling": sampling, "shard": shard}
    if sampling.adaptive_bound is not None:
        return score_shard_adaptively(teachers, texts, tokens=tokens, **settings)
    return [
        score_shard(teacher, texts, tokens=mine, **settings)
        for teacher, mine in zip(teachers, tokens, strict=True)
    ]


def _shard(corpus: Sequence[str], number: int) -> Sequence[str]:
    return corpus[number * SHARD_SIZE : (number + 1) * SHARD_SIZE]


def _distil(
    student: Student, texts: Sequence[str], supervision: Supervision, training: Training, progress: bool
) -> DistilReport:
    with tqdm(disable=not progress, desc="training the student", unit="step") as bar:
        return distil(student, texts, supervision, training, on_step=lambda s: advance(bar, s.total_steps))


def _report(
    teachers: Sequence[Teacher],
    evidence: Evidence,
    supervision: Supervision,
    *,
    method: Method,
    training: Training,
    done: DistilReport,
) -> dict[str, Any]:
    """Plain values only: it can be written as JSON."""
    report: dict[str, Any] = {
        "labels": list(evidence.label_space.labels),
        "teachers": [
            {
                "name": teacher.name,
                "architecture": type(teacher.model).__name__,
                "labels": list(teacher.labels),
                "digest": teacher.digest,
                "sampled": teacher.has_dropout and method.sampling.passes > 0,
                "passes_per_text": outputs.passes.float().mean().item(),
            }
            for teacher, outputs in zip(teachers, evidence.outputs, strict=True)
        ],
        "corpus": {"texts": len(supervision)},
        "method": method.settings(),
        "training": {**asdict(training), **asdict(done)},
    }
    if supervision.choice is not None:
        report["choice"] = asdict(choice_statistics(supervision.choice))
    return report


def _agreement(
    student: Student, texts: Sequence[str], supervision: Supervision, training: Training
) -> dict[str, Any]:
    if "q" not in supervision.columns:
        return {}
    probabilities = student.predict(texts, max_length=training.max_length, precision=training.precision)
    return {"agreement": asdict(agreement(probabilities, supervision.columns["q"], supervision.temperature))}
