"""One job from recipe to student: prepare, score, train, evaluate, publish. Knows no queue."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.domain.recipe import ResolvedStudent, ResolvedTeacher
from app.domain.status import Stage
from worker import report
from worker.assignment import Assignment
from worker.checkpoints import Checkpoints
from worker.corpus import read_labelled, read_texts
from worker.evaluation import evaluate_all
from worker.lease import StopReason
from worker.muka import (
    Checkpoint,
    DistilReport,
    Ensemble,
    Evidence,
    LabelSpace,
    Method,
    Need,
    StepReport,
    StoppedError,
    Student,
    Supervision,
    TeacherChoice,
    Training,
    create_student,
    distil,
    get_method,
)
from worker.muka.forward import feature_width
from worker.progress import Progress
from worker.publishing import publish, write_folder
from worker.scores import Asked, Scores, Scoring
from worker.stored_outputs import Conditions
from worker.teachers import folder_of, load_teacher
from worker.text_table import write_text_table


@dataclass
class Run:
    """What is known so far; each stage adds to it."""

    assignment: Assignment
    progress: Progress
    device: torch.device
    texts: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def method(self) -> Method:
        """The recipe's, as the library has it."""
        return get_method(**self.assignment.recipe.method.model_dump())

    @property
    def training(self) -> Training:
        """The recipe's, as the library has it."""
        return Training(**self.assignment.recipe.training.model_dump())

    @property
    def labels(self) -> LabelSpace:
        """The union of the teachers' labels."""
        return LabelSpace.union([teacher.labels for teacher in self.assignment.resolved.teachers])

    def should_stop(self) -> bool:
        """Asked by the library before every step and batch."""
        return self.assignment.lease.should_stop()

    def stop_if_asked(self) -> None:
        """Raises `StoppedError` when there is a reason to stop."""
        if self.should_stop():
            raise StoppedError


@dataclass(frozen=True)
class Findings:
    """What is known of a trained student."""

    report: dict[str, Any]
    choice: TeacherChoice
    predictions: torch.Tensor
    """Its probabilities for the corpus [n, |L|]."""


def run(assignment: Assignment) -> None:
    """Do the whole job; returns when its student is published.

    Raises:
        StoppedError: The lease has a reason to stop.
        LeaseLostError: Another attempt has the job.
        Exception: Everything that `worker.failures` knows.
    """
    progress = Progress(assignment.lease, assignment.stage_weights())
    assignment.lease.fresh_columns = progress.fresh_columns
    left = assignment.seconds_left()
    assignment.lease.deadline = None if left is None else time.monotonic() + left
    this = Run(assignment, progress, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with _stage(this, Stage.PREPARING, "preparing models and texts"):
        _prepare(this)
    with _stage(this, Stage.SCORING, "asking the teachers"):
        scores = _score(this)
    with _stage(this, Stage.TRAINING, "training the student"):
        supervision, student, trained = _train(this, scores)
    with _stage(this, Stage.EVALUATING, "measuring the student"):
        findings = _evaluate(this, scores, supervision, student, trained)
    with _stage(this, Stage.PUBLISHING, "publishing the student"):
        _publish(this, student, findings)
    Checkpoints(assignment.store, assignment.lease.job_id, assignment.lease.attempt).forget()


@contextlib.contextmanager
def _stage(this: Run, stage: Stage, message: str) -> Iterator[None]:
    this.stop_if_asked()
    this.progress.begin(stage, message)
    started = time.monotonic()
    yield
    this.seconds[stage] = round(time.monotonic() - started, 3)


def _prepare(this: Run) -> None:
    """Files of all models, and the texts: what is missing shows before the long work begins."""
    work = this.assignment
    models: list[ResolvedTeacher | ResolvedStudent] = [*work.resolved.teachers]
    if work.resolved.student.source is not None:
        models.append(work.resolved.student)
    for done, model in enumerate(models):
        this.stop_if_asked()
        this.folders.append(folder_of(model, work.store))
        this.progress.advance(done + 1, len(models) + 1)
    this.texts = read_texts(work.store, work.corpus)


def _score(this: Run) -> list[Scores]:
    teachers = this.assignment.resolved.teachers
    counter = _counter(this, len(teachers) * len(this.texts))
    scores = _ask(this, this.texts, counter, features=Need.TEACHER_FEATURES in this.method.needs)
    for index, (teacher, found) in enumerate(zip(teachers, scores, strict=True)):
        computed = found.shards - found.reused
        message = f"{teacher.reference}: {computed} shards computed, {found.reused} reused"
        facts = {"teacher": index, "shards": found.shards, "reused": found.reused, "passes": found.passes}
        this.assignment.lease.tell("scores", message, facts)
    return scores


def _ask(
    this: Run, texts: list[str], on_texts: Callable[[float], None], *, features: bool = False
) -> list[Scores]:
    """All teachers, with the method's number of passes."""
    teachers, training = this.assignment.resolved.teachers, this.training
    conditions = Conditions(
        sampling=this.method.sampling,
        max_length=training.max_length,
        precision=training.precision,
        device=this.device,
        company=tuple((teacher.digest, tuple(teacher.labels)) for teacher in teachers),
    )
    scoring = Scoring(this.assignment.store, conditions, features, on_texts, this.should_stop)
    return scoring.score([_asked(this, index) for index in range(len(teachers))], texts)


def _asked(this: Run, index: int) -> Asked:
    teacher, folder = this.assignment.resolved.teachers[index], this.folders[index]
    precision = this.training.precision
    return Asked(
        teacher.digest, lambda: load_teacher(teacher, folder, device=this.device, precision=precision)
    )


def _train(this: Run, scores: list[Scores]) -> tuple[Supervision, Student, DistilReport]:
    """From the newest checkpoint of any attempt, if there is one for exactly this training."""
    lease = this.assignment.lease
    checkpoints = Checkpoints(this.assignment.store, lease.job_id, lease.attempt)
    newest = checkpoints.newest()
    if newest is not None:
        lease.tell("checkpoint", f"going on from step {newest.name}", {"step": int(newest.name)})
        try:
            return _distil(this, scores, checkpoints, newest)
        except ValueError as error:
            # Another device or library version computed other scores: those steps are of no use here.
            lease.tell("warning", f"the checkpoint is not used: {error}")
    return _distil(this, scores, checkpoints, None)


def _distil(
    this: Run, scores: list[Scores], checkpoints: Checkpoints, resume_from: Path | None
) -> tuple[Supervision, Student, DistilReport]:
    settings, lease, seed = this.assignment.settings, this.assignment.lease, this.training.seed
    student = _fresh_student(this)
    evidence = Evidence(
        this.labels,
        [found.outputs for found in scores],
        student_width=feature_width(student.model),
        seed=seed,
    )
    supervision = this.method.supervise(evidence)

    def save(checkpoint: Checkpoint) -> None:
        if lease.stop_reason in (None, StopReason.WARM_STOP):  # otherwise nobody will go on from it
            checkpoints.save(checkpoint)
            lease.tell("checkpoint", f"checkpoint at step {checkpoint.step}", {"step": checkpoint.step})

    trained = distil(
        student,
        this.texts,
        supervision,
        this.training,
        on_step=lambda done: this.progress.step(done.step, done.total_steps, _metrics(done)),
        should_stop=this.should_stop,
        save_checkpoint=save,
        checkpoint_every_seconds=settings.checkpoint_seconds,
        resume_from=resume_from,
    )
    return supervision, student, trained


def _fresh_student(this: Run) -> Student:
    """From a teacher's encoder, or from the last folder, which is a model of its own."""
    start, spec = this.assignment.resolved.student, this.assignment.recipe.student
    folder = this.folders[start.teacher or 0] if start.source is None else this.folders[-1]
    student = create_student(folder, this.labels.labels, layers=spec.layers, seed=this.training.seed)
    return student.to(this.device)


def _metrics(done: StepReport) -> dict[str, float]:
    return {
        "loss": done.loss,
        "learning_rate": done.learning_rate,
        "grad_norm": done.grad_norm,
        "epoch": done.epoch,
    }


def _evaluate(
    this: Run, scores: list[Scores], supervision: Supervision, student: Student, trained: DistilReport
) -> Findings:
    work = this.assignment
    gold = read_labelled(work.store, work.evaluation_corpus) if work.evaluation_corpus else None
    held_out = len(gold.texts) if gold else 0
    counter = _counter(this, len(this.texts) + held_out * (1 + len(this.folders)))

    def predict(texts: list[str]) -> torch.Tensor:
        training = this.training
        return student.predict(
            texts, max_length=training.max_length, precision=training.precision, on_batch=counter
        )

    ensemble, predictions = Ensemble.like(this.method), predict(this.texts)
    choice = ensemble.choose(Evidence(this.labels, [found.outputs for found in scores]))
    told = report.of_training(
        work,
        texts=this.texts,
        scores=scores,
        supervision=supervision,
        choice=choice,
        trained=trained,
        predictions=predictions,
    )
    if gold is not None:
        answers = [found.outputs for found in _ask(this, gold.texts, counter)]
        told["evaluation"] = evaluate_all(this.labels, gold, answers, predict(gold.texts), ensemble)
    return Findings(told, choice, predictions)


def _publish(this: Run, student: Student, findings: Findings) -> None:
    work = this.assignment
    told = findings.report | report.of_times(findings.report, this.seconds)
    story = {
        "recipe": work.recipe.model_dump(mode="json"),
        "resolved": work.resolved.model_dump(mode="json"),
        "report": told,
    }
    with work.store.staging() as staged:
        folder = staged / "student"
        folder.mkdir()
        write_text_table(folder, findings.choice, findings.predictions, student.labels)
        files = write_folder(folder, student, card=report.for_card(work, told), story=story)
        publish(
            work.database,
            work.store,
            work.lease,
            folder=folder,
            files=files,
            student=student,
            report=told,
            progress=this.progress.finished(),
        )


def _counter(this: Run, total: int) -> Callable[[float], None]:
    """Adds up what the library says is done, and is where long passes without `should_stop` end."""
    done = 0.0

    def count(more: float) -> None:
        nonlocal done
        this.stop_if_asked()
        done += more
        this.progress.advance(done, total)

    return count
