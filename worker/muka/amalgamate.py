"""The whole amalgamation in one call, for notebooks and benchmarks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from worker.muka.adaptive import score_shard_adaptively
from worker.muka.ahead import TokenisedAhead, Upcoming
from worker.muka.columns import Columns
from worker.muka.distil import DistilReport, StepReport, distil
from worker.muka.errors import CorpusEmptyError
from worker.muka.evaluate import agreement, choice_statistics
from worker.muka.fine_tune import advance, default_device
from worker.muka.forward import feature_width
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, Method, Need, Supervision, get_method
from worker.muka.model_card import write_model_card
from worker.muka.parts import answered, supervise
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
    scratch: Path | str | None = None,
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
        scratch: Folder on whose disk everything lies meanwhile that has a row for each text; None keeps it in
            memory.

    Returns:
        The trained student; its `report` tells how it came about.

    Raises:
        ValueError: Fewer than two teachers, or a method that trains no student.
        MukaLibraryError: See `worker.muka.errors`.
    """
    method, training, device = method or get_method(), training or Training(), device or default_device()
    _check(teachers, texts, method)
    folder = None if scratch is None else Path(scratch)
    start = Path(student) if student is not None else _folder(teachers[0])
    asked = [_Asked(teacher, device) for teacher in teachers]
    space = LabelSpace.union([each.labels for each in asked])
    pupil = create_student(start, space.labels, layers=layers, seed=training.seed).to(device)
    columns = _score(
        asked,
        texts,
        _Asking(
            method.sampling, training.max_length, Need.TEACHER_FEATURES in method.needs, progress, folder
        ),
    )

    def on_block() -> None:
        for mine in columns:
            mine.let_go()

    evidence = Evidence(
        space,
        [TeacherOutputs(**mine) for mine in columns],
        student_width=feature_width(pupil.model),
        seed=training.seed,
        on_block=on_block,
    )
    supervision = supervise(method, evidence, folder)
    done = _distil(pupil, texts, supervision, training, progress=progress, scratch=folder)
    pupil.report = _report(asked, evidence, supervision, method=method, training=training, done=done)
    pupil.report |= _agreement(pupil, texts, supervision, training, folder)
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
    scratch: Path | None = None,
) -> list[TeacherOutputs]:
    """Every teacher's outputs for the whole corpus, scored shard by shard, in the order of the teachers.

    Args:
        teachers: N of them.
        texts: n texts.
        sampling: How they are asked.
        training: Tells the number of tokens.
        features: Whether pooled features are wanted as well.
        progress: Whether to show a bar.
        scratch: Folder on whose disk the outputs lie; None keeps them in memory.
    """
    asking = _Asking(sampling, training.max_length, features, progress, scratch)
    asked = [_Asked(teacher, teacher.device) for teacher in teachers]
    return [TeacherOutputs(**columns) for columns in _score(asked, texts, asking)]


@dataclass(frozen=True)
class _Asking:
    """How teachers are asked; see `score_corpus`."""

    sampling: Sampling
    max_length: int
    features: bool
    progress: bool
    scratch: Path | None


class _Asked:
    """A teacher that is loaded when it is asked, and what is known of it: that it loads was tried.

    Attributes:
        labels: Names of its classes.
        facts: For the report.
    """

    def __init__(self, given: Path | str | Teacher, device: torch.device) -> None:
        self._given = given
        self._device = device
        teacher = self.load()
        self.labels = teacher.labels
        self.facts: dict[str, Any] = {
            "name": teacher.name,
            "architecture": type(teacher.model).__name__,
            "labels": list(teacher.labels),
            "digest": teacher.digest,
            "sampled": teacher.has_dropout,
        }

    def load(self) -> Teacher:
        """The teacher; whoever calls holds it."""
        given = self._given
        return given if isinstance(given, Teacher) else Teacher.load(Path(given), device=self._device)


def _score(asked: Sequence[_Asked], texts: Sequence[str], asking: _Asking) -> list[Columns]:
    """One teacher after the other, so that one is in memory; all together where they are compared."""
    if asking.sampling.adaptive_bound is not None:
        return _ask([each.load() for each in asked], texts, asking)
    return [columns for each in asked for columns in _ask([each.load()], texts, asking)]


def _ask(teachers: Sequence[Teacher], texts: Sequence[str], asking: _Asking) -> list[Columns]:
    passes = sum(1 + (asking.sampling.passes if teacher.has_dropout else 0) for teacher in teachers)
    names = ", ".join(teacher.name for teacher in teachers)
    columns = [Columns(len(texts), asking.scratch) for _ in teachers]
    ahead = TokenisedAhead(asking.max_length)
    with tqdm(
        total=passes * len(texts), disable=not asking.progress, desc=f"asking {names}", unit="text"
    ) as bar:
        for shard in range(math.ceil(len(texts) / SHARD_SIZE)):
            answers = _score_shard(teachers, ahead, texts, shard, asking, on_batch=bar.update)
            for mine, outputs in zip(columns, answers, strict=True):
                mine.put(shard * SHARD_SIZE, outputs.tensors)
                mine.let_go()
    return columns


def _score_shard(
    teachers: Sequence[Teacher],
    ahead: TokenisedAhead,
    corpus: Sequence[str],
    shard: int,
    asking: _Asking,
    *,
    on_batch: Callable[[int], object],
) -> list[TeacherOutputs]:
    texts, following = _shard(corpus, shard), shard + 1
    upcoming = None
    if following * SHARD_SIZE < len(corpus):
        upcoming = Upcoming(following, lambda: _shard(corpus, following))
    tokens = [ahead.take(teacher, shard, texts, upcoming) for teacher in teachers]
    settings: dict[str, Any] = {
        "sampling": asking.sampling,
        "shard": shard,
        "max_length": asking.max_length,
        "features": asking.features,
        "on_batch": on_batch,
    }
    if asking.sampling.adaptive_bound is not None:
        return score_shard_adaptively(teachers, texts, tokens=tokens, **settings)
    return [
        score_shard(teacher, texts, tokens=mine, **settings)
        for teacher, mine in zip(teachers, tokens, strict=True)
    ]


def _shard(corpus: Sequence[str], number: int) -> Sequence[str]:
    return corpus[number * SHARD_SIZE : (number + 1) * SHARD_SIZE]


def _distil(
    student: Student,
    texts: Sequence[str],
    supervision: Supervision,
    training: Training,
    *,
    progress: bool,
    scratch: Path | None,
) -> DistilReport:
    with tqdm(disable=not progress, desc="training the student", unit="step") as bar:

        def on_step(done: StepReport) -> None:
            advance(bar, done.total_steps)

        return distil(student, texts, supervision, training, on_step=on_step, scratch=scratch)


def _report(
    asked: Sequence[_Asked],
    evidence: Evidence,
    supervision: Supervision,
    *,
    method: Method,
    training: Training,
    done: DistilReport,
) -> dict[str, Any]:
    """Plain values only: it can be written as JSON."""
    sampled = method.sampling.passes > 0
    report: dict[str, Any] = {
        "labels": list(evidence.label_space.labels),
        "teachers": [
            each.facts
            | {
                "sampled": each.facts["sampled"] and sampled,
                "passes_per_text": outputs.passes.float().mean().item(),
            }
            for each, outputs in zip(asked, evidence.outputs, strict=True)
        ],
        "corpus": {"texts": len(supervision)},
        "method": method.settings(),
        "training": {**asdict(training), **asdict(done)},
    }
    if supervision.choice is not None:
        report["choice"] = asdict(choice_statistics(supervision.choice))
    return report


def _agreement(
    student: Student,
    texts: Sequence[str],
    supervision: Supervision,
    training: Training,
    scratch: Path | None,
) -> dict[str, Any]:
    if "q" not in supervision.columns:
        return {}
    predict = partial(student.predict, max_length=training.max_length, precision=training.precision)
    probabilities = answered(predict, texts, scratch)
    return {"agreement": asdict(agreement(probabilities, supervision.columns["q"], supervision.temperature))}
