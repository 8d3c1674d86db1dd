"""Checkpoints of the training: each a folder in the store and a row that publishes it as a model."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.domain.revisions import revision_of
from app.persistence import checkpoints
from worker import report
from worker.checkpoints import RESUME_FILES, Checkpoints
from worker.lease import StopReason
from worker.muka import Checkpoint, DistilReport, Student
from worker.publishing import columns_of, describe
from worker.stages.run import Run


class Saving:
    """What one attempt saves, and what becomes of it when newer ones come, or the job has its student."""

    def __init__(self, run: Run) -> None:
        self._run, self._lease = run, run.assignment.lease
        self._stored = Checkpoints(run.assignment.store, self._lease.job_id, self._lease.attempt)
        self._insist = run.assignment.patience.insist
        self._saved = 0

    @property
    def every_steps(self) -> int | None:
        """How often the recipe asks for a checkpoint."""
        every = self._run.assignment.recipe.checkpoints.every
        if every == "epoch":
            return math.ceil(len(self._run.texts) / self._run.training.batch_size)
        return every

    def resumable(self) -> list[Path]:
        """Where the training may go on, most steps first."""
        return self._insist(self._stored.resumable)

    def save(self, checkpoint: Checkpoint, student: Student) -> None:
        """In the middle of the training, or where it is asked to stop. Raises `LeaseLostError`."""
        if checkpoint.step in (0, self._saved) or self._lease.stop_reason == StopReason.LOST:
            return

        def write(folder: Path) -> None:
            checkpoint.write(folder)
            student.save_without_weights(folder)

        newest = self._put(self._place(checkpoint), student, write)
        self._saved = checkpoint.step
        self._tidy(newest)

    def save_trained(self, student: Student, trained: DistilReport) -> None:
        """Trained to its end, and then cancelled, out of time, or failing: it stays as a model.

        Raises:
            LeaseLostError: another attempt has the job.
        """
        if self._lease.stop_reason in (None, StopReason.CANCELLED, StopReason.TIMEOUT):
            place = {"step": trained.steps, "total_steps": trained.steps}
            epochs = {"epoch": float(len(trained.epoch_losses)), "loss": trained.epoch_losses[-1]}
            self._put(place | epochs, student, student.save)

    def finish(self) -> None:
        """The student is published: leave the models that the recipe asks to keep."""
        job_id, keep = self._lease.job_id, self._run.assignment.recipe.checkpoints.keep

        def prune(session: Session) -> set[str]:
            checkpoints.prune(session, job_id, keep)
            return checkpoints.kept_files(session, job_id)

        kept = self._lease.write(prune)
        self._insist(lambda: self._stored.forget(kept))

    def _place(self, checkpoint: Checkpoint) -> dict[str, Any]:
        position, epochs = checkpoint.position, self._run.training.epochs
        done = position.step - len(position.epoch_losses) * checkpoint.total_steps // epochs
        return {
            "step": position.step,
            "total_steps": checkpoint.total_steps,
            "epoch": round(position.step * epochs / checkpoint.total_steps, 4),
            "loss": position.epoch_sum / done if done else position.epoch_losses[-1],
        }

    def _put(self, place: dict[str, Any], student: Student, write: Callable[[Path], None]) -> str:
        return self._insist(lambda: self._put_once(place, student, write))

    def _put_once(self, place: dict[str, Any], student: Student, write: Callable[[Path], None]) -> str:
        work, job_id, step = self._run.assignment, self._lease.job_id, place["step"]
        told = report.of_checkpoint(work, place)
        with work.store.staging() as staged:
            folder = staged / "checkpoint"
            write(folder)
            card, story = report.for_card(work, told, ()), report.story(work, told)
            files = describe(folder, card=card, story=story, hidden=RESUME_FILES)
            prefix = self._stored.put(step, folder)
        row = {**place, **columns_of(prefix, files, student), "attempt": self._lease.attempt}

        def publish(session: Session) -> None:
            checkpoints.add(session, job_id, row)

        facts = {"step": step, "revision": revision_of(step)}
        self._lease.tell("checkpoint", f"checkpoint at step {step}", facts, also=publish)
        return prefix

    def _tidy(self, newest: str) -> None:
        job_id, keep = self._lease.job_id, max(1, self._run.assignment.recipe.checkpoints.keep)
        left = self._lease.write(lambda session: checkpoints.prune(session, job_id, keep))
        kept = {checkpoint.storage_prefix for checkpoint in left}
        self._insist(lambda: self._stored.tidy(newest, kept))
