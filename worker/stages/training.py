"""The student's training, from the newest checkpoint of any attempt."""

from dataclasses import dataclass
from pathlib import Path

from worker.checkpoints import Checkpoints
from worker.lease import StopReason
from worker.muka import (
    Checkpoint,
    DistilReport,
    Evidence,
    StepReport,
    Student,
    Supervision,
    create_student,
    distil,
)
from worker.muka.forward import feature_width
from worker.scores import Scores
from worker.stages.run import Run


@dataclass(frozen=True)
class Trained:
    """A student, what it was taught, and how its training went."""

    student: Student
    supervision: Supervision
    report: DistilReport


def train(run: Run, scores: list[Scores]) -> Trained:
    """From the newest checkpoint of any attempt, if there is one for exactly this training."""
    lease = run.assignment.lease
    checkpoints = Checkpoints(run.assignment.store, lease.job_id, lease.attempt)
    newest = checkpoints.newest()
    if newest is not None:
        lease.tell("checkpoint", f"going on from step {newest.name}", {"step": int(newest.name)})
        try:
            return _distil(run, scores, checkpoints, newest)
        except ValueError as error:
            # Another device or library version computed other scores: those steps are of no use here.
            lease.tell("warning", f"the checkpoint is not used: {error}")
    return _distil(run, scores, checkpoints, None)


def _distil(run: Run, scores: list[Scores], checkpoints: Checkpoints, resume_from: Path | None) -> Trained:
    settings, lease, seed = run.assignment.settings, run.assignment.lease, run.training.seed
    student = _fresh_student(run)
    evidence = Evidence(
        run.labels,
        [found.outputs for found in scores],
        student_width=feature_width(student.model),
        seed=seed,
    )
    supervision = run.method.supervise(evidence)

    def save(checkpoint: Checkpoint) -> None:
        if lease.stop_reason in (None, StopReason.WARM_STOP):  # otherwise nobody will go on from it
            checkpoints.save(checkpoint)
            lease.tell("checkpoint", f"checkpoint at step {checkpoint.step}", {"step": checkpoint.step})

    report = distil(
        student,
        run.texts,
        supervision,
        run.training,
        on_step=lambda done: run.progress.step(done.step, done.total_steps, _metrics(done)),
        should_stop=run.should_stop,
        save_checkpoint=save,
        checkpoint_every_seconds=settings.checkpoint_seconds,
        resume_from=resume_from,
    )
    return Trained(student, supervision, report)


def _fresh_student(run: Run) -> Student:
    """From a teacher's encoder, or from the last folder, which is a model of its own."""
    start, spec = run.assignment.resolved.student, run.assignment.recipe.student
    folder = run.folders[start.teacher or 0] if start.source is None else run.folders[-1]
    student = create_student(folder, run.labels.labels, layers=spec.layers, seed=run.training.seed)
    return student.to(run.device)


def _metrics(done: StepReport) -> dict[str, float]:
    return {
        "loss": done.loss,
        "learning_rate": done.learning_rate,
        "grad_norm": done.grad_norm,
        "epoch": done.epoch,
    }
