"""What the teachers say about the corpus."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.domain.stored_outputs import Asked
from worker.asking import Asking, WaitingTeacher
from worker.corpus import Texts
from worker.muka import Teacher
from worker.scores import Scores, Scoring, Share
from worker.sharing import Sharing
from worker.stages.run import Run
from worker.stored_outputs import Shelf, computation
from worker.teachers import load_teacher


def score(run: Run) -> list[Scores]:
    """All teachers about all texts of the corpus, and what it took."""
    teachers = run.assignment.resolved.teachers
    counter = run.counter(len(teachers) * len(run.texts))
    if run.gold is not None:
        _of_held_out(run).reserve(_all_waiting(run), run.gold.texts)
    asking = _asking(run, asked_of(run), counter)
    scores = Scoring(asking, run.scratch, _with_helpers(run)).score(_all_waiting(run), run.texts)
    for index, (teacher, found) in enumerate(zip(teachers, scores, strict=True)):
        computed = found.shards - found.reused
        message = f"{teacher.reference}: {computed} shards computed, {found.reused} reused"
        facts = {"teacher": index, "shards": found.shards, "reused": found.reused, "passes": found.passes}
        run.assignment.lease.tell("scores", message, facts)
    return scores


def score_held_out(run: Run, texts: Texts, on_texts: Callable[[float], None]) -> list[Scores]:
    """All teachers about texts that nothing is trained on: what they answer and how sure they are."""
    return _of_held_out(run, on_texts).score(_all_waiting(run), texts)


def asked_of(run: Run) -> Asked:
    """What the job asks of its teachers."""
    teachers = run.assignment.resolved.teachers
    company = tuple((teacher.digest, tuple(teacher.labels)) for teacher in teachers)
    return Asked.by(run.assignment.recipe, run.assignment.corpus.owner, company)


def _of_held_out(run: Run, on_texts: Callable[[float], None] = lambda _: None) -> Scoring:
    """No method needs features of texts that nothing is trained on."""
    asking = _asking(run, replace(asked_of(run), features=False), on_texts)
    return Scoring(replace(asking, keeps_features=False), run.scratch)


def _with_helpers(run: Run) -> Share:
    work, by = run.assignment, computation(run.training.precision, run.device)
    return Sharing(work.settings, work.lease, by, run.stop_or_go_on).share


def _asking(run: Run, asked: Asked, on_texts: Callable[[float], None]) -> Asking:
    precision = run.training.precision
    shelf = Shelf(run.assignment.patience, computation(precision, run.device))
    return Asking(shelf, asked, precision, on_texts, run.should_stop)


def _all_waiting(run: Run) -> list[WaitingTeacher]:
    return [
        waiting(run, index, run.folders.__getitem__) for index in range(len(run.assignment.resolved.teachers))
    ]


def waiting(run: Run, index: int, folder: Callable[[int], Path]) -> WaitingTeacher:
    """A teacher, loaded with the labels and in the precision of the job when it is first asked."""
    teacher, precision = run.assignment.resolved.teachers[index], run.training.precision
    insist = run.assignment.patience.insist

    def load() -> Teacher:
        return insist(lambda: load_teacher(teacher, folder(index), device=run.device, precision=precision))

    return WaitingTeacher(teacher.digest, load)
