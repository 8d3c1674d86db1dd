"""The student's training, from the newest checkpoint of any attempt."""

from dataclasses import dataclass
from pathlib import Path

from worker.muka import (
    DistilReport,
    Evidence,
    StepReport,
    Student,
    Supervision,
    create_student,
    distil,
)
from worker.muka.checkpoint import CheckpointUnusableError
from worker.muka.forward import feature_width
from worker.muka.parts import supervise
from worker.scores import Scores
from worker.stages.run import Run
from worker.stages.saving import Saving


@dataclass(frozen=True)
class Trained:
    """A student, what it was taught, and how its training went."""

    student: Student
    supervision: Supervision
    report: DistilReport


def train(run: Run, scores: list[Scores], saving: Saving) -> Trained:
    """From the newest checkpoint of any attempt that is one of exactly this training."""
    lease = run.assignment.lease
    for newest in saving.resumable():
        lease.tell("checkpoint", f"going on from step {newest.name}", {"step": int(newest.name)})
        try:
            return _distil(run, scores, saving, newest)
        except CheckpointUnusableError as error:
            # Another device or library version computed other scores: those steps are of no use here.
            lease.tell("warning", f"the checkpoint is not used: {error}")
    return _distil(run, scores, saving, None)


def _distil(run: Run, scores: list[Scores], saving: Saving, resume_from: Path | None) -> Trained:
    settings, seed = run.assignment.settings, run.training.seed
    student = _fresh_student(run)

    def on_block() -> None:
        run.stop_or_go_on()
        for found in scores:
            found.columns.let_go()

    evidence = Evidence(
        run.labels,
        [found.outputs for found in scores],
        student_width=feature_width(student.model),
        seed=seed,
        on_block=on_block,
    )
    supervision = supervise(run.method, evidence, run.scratch)

    report = distil(
        student,
        run.texts,
        supervision,
        run.training,
        on_step=lambda done: run.progress.step(done.step, done.total_steps, _metrics(done)),
        should_stop=run.should_stop,
        save_checkpoint=lambda checkpoint: saving.save(checkpoint, student),
        checkpoint_every_seconds=settings.checkpoint_seconds,
        checkpoint_every_steps=saving.every_steps,
        resume_from=resume_from,
        scratch=run.scratch,
        on_block=run.stop_or_go_on,
    )
    return Trained(student, supervision, report)


def _fresh_student(run: Run) -> Student:
    """From a teacher's encoder, or from the last folder, which is a model of its own."""
    start, spec = run.assignment.resolved.student, run.assignment.recipe.student
    folder = run.folders[start.teacher or 0] if start.source is None else run.folders[-1]
    seed, insist = run.training.seed, run.assignment.patience.insist
    student = insist(lambda: create_student(folder, run.labels.labels, layers=spec.layers, seed=seed))
    return student.to(run.device)


def _metrics(done: StepReport) -> dict[str, float]:
    return {
        "loss": done.loss,
        "learning_rate": done.learning_rate,
        "grad_norm": done.grad_norm,
        "epoch": done.epoch,
    }
