"""What the teachers say about the corpus."""

from collections.abc import Callable
from dataclasses import replace

from app.domain.stored_outputs import Asked
from worker.corpus import Texts
from worker.scores import Scores, Scoring, WaitingTeacher
from worker.stages.run import Run
from worker.stored_outputs import Shelf, computation
from worker.teachers import load_teacher


def score(run: Run) -> list[Scores]:
    """All teachers about all texts of the corpus, and what it took."""
    teachers = run.assignment.resolved.teachers
    counter = run.counter(len(teachers) * len(run.texts))
    scores = _ask(run, run.texts, _asked(run), counter)
    for index, (teacher, found) in enumerate(zip(teachers, scores, strict=True)):
        computed = found.shards - found.reused
        message = f"{teacher.reference}: {computed} shards computed, {found.reused} reused"
        facts = {"teacher": index, "shards": found.shards, "reused": found.reused, "passes": found.passes}
        run.assignment.lease.tell("scores", message, facts)
    return scores


def score_held_out(run: Run, texts: Texts, on_texts: Callable[[float], None]) -> list[Scores]:
    """All teachers about texts that nothing is trained on: what they answer and how sure they are."""
    return _ask(run, texts, replace(_asked(run), features=False), on_texts)


def _asked(run: Run) -> Asked:
    teachers = run.assignment.resolved.teachers
    company = tuple((teacher.digest, tuple(teacher.labels)) for teacher in teachers)
    return Asked.by(run.assignment.recipe, run.assignment.corpus.owner, company)


def _ask(run: Run, texts: Texts, asked: Asked, on_texts: Callable[[float], None]) -> list[Scores]:
    work, precision = run.assignment, run.training.precision
    shelf = Shelf(work.store, work.lease, computation(precision, run.device))
    scoring = Scoring(shelf, asked, precision, run.scratch, on_texts, run.should_stop)
    return scoring.score([_waiting(run, index) for index in range(len(work.resolved.teachers))], texts)


def _waiting(run: Run, index: int) -> WaitingTeacher:
    teacher, folder = run.assignment.resolved.teachers[index], run.folders[index]
    precision = run.training.precision
    return WaitingTeacher(
        teacher.digest, lambda: load_teacher(teacher, folder, device=run.device, precision=precision)
    )
