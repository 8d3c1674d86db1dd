"""Shards of a job that another worker holds: computed as the holder computes them, and put on the shelf."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.domain.shards import TOGETHER, Unit
from app.persistence import stored_outputs
from app.storage import corpus_texts
from worker.asking import Asking, WaitingTeacher
from worker.assignment import Assignment
from worker.corpus import Texts, read_texts
from worker.progress import Progress
from worker.shard_lease import ShardLease
from worker.stages.run import Run
from worker.stages.scoring import asked_of, waiting
from worker.stored_outputs import Shelf, computation
from worker.teachers import folder_of

log = logging.getLogger(__name__)


def help_out(work: Assignment, lease: ShardLease) -> bool:
    """Until nothing is left to do, or a job waits: who is called to help never keeps one waiting for long.

    Returns:
        False where this machine would compute other numbers than the holder of the job.

    Raises:
        StoppedError: The lease has a reason to stop.
        LeaseLostError: The job has gone on without this helper.
    """
    progress = Progress(lease, work.stage_weights())
    lease.fresh_columns = progress.fresh_columns  # a sign that something moves; nobody reads it
    run = Run.of(work, progress)
    mine, wanted = computation(run.training.precision, run.device), lease.computation()
    if wanted is not None and wanted != mine:
        log.warning("cannot help: this worker computes with %s, the job's with %s", mine, wanted)
        return False
    helper: _Helper | None = None
    run.stop_if_asked()
    while (unit := lease.take(mine)) is not None:
        helper = helper or _Helper.of(run, Shelf(work.patience, mine))
        helper.compute(unit)
        lease.finish()
        run.stop_if_asked()
    return True


@dataclass(frozen=True)
class _Helper:
    run: Run
    asking: Asking
    teachers: list[WaitingTeacher]
    texts: Texts

    @classmethod
    def of(cls, run: Run, shelf: Shelf) -> "_Helper":
        work = run.assignment
        texts = work.patience.insist(lambda: read_texts(work.store, work.corpus, run.scratch))
        models = work.resolved.teachers

        def folder(index: int) -> Path:
            return folder_of(models[index], work.store)

        teachers = [waiting(run, index, folder) for index in range(len(models))]
        counter = run.counter(len(models) * len(texts))
        asking = Asking(shelf, asked_of(run), run.training.precision, counter, run.should_stop)
        return cls(run, asking, teachers, texts)

    def compute(self, unit: Unit) -> None:
        """Ask the teachers; those that are not asked now are released."""
        asked = self.teachers if unit.teacher == TOGETHER else [self.teachers[unit.teacher]]
        for teacher in self.teachers:
            if teacher not in asked:
                teacher.release()
        shard = self.texts.shard(unit.shard)
        texts, digest = shard.to_pylist(), corpus_texts.digest(shard)
        keys = [self.asking.keys(teacher, digest, unit.shard) for teacher in asked]
        there = self._present(key for of_teacher in keys for key in of_teacher.values())
        questions = [
            self.asking.question(teacher, unit.shard, texts, of_teacher, there)
            for teacher, of_teacher in zip(asked, keys, strict=True)
        ]
        if any(question.outputs() is None for question in questions):
            self.asking.answer(questions)

    def _present(self, keys: Iterable[str]) -> set[str]:
        """Those that the shelf has."""
        read, there = self.run.assignment.lease.read, set[str]()
        for chunk in stored_outputs.chunks(keys):
            there |= read(partial(stored_outputs.present, keys=chunk))
        return there
