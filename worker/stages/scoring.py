"""What the teachers say about the corpus."""

from collections.abc import Callable

from worker.muka import Need
from worker.scores import Asked, Scores, Scoring
from worker.stages.run import Run
from worker.stored_outputs import Conditions
from worker.teachers import load_teacher


def score(run: Run) -> list[Scores]:
    """All teachers about all texts of the corpus, and what it took."""
    teachers = run.assignment.resolved.teachers
    counter = run.counter(len(teachers) * len(run.texts))
    scores = ask(run, run.texts, counter, features=Need.TEACHER_FEATURES in run.method.needs)
    for index, (teacher, found) in enumerate(zip(teachers, scores, strict=True)):
        computed = found.shards - found.reused
        message = f"{teacher.reference}: {computed} shards computed, {found.reused} reused"
        facts = {"teacher": index, "shards": found.shards, "reused": found.reused, "passes": found.passes}
        run.assignment.lease.tell("scores", message, facts)
    return scores


def ask(
    run: Run, texts: list[str], on_texts: Callable[[float], None], *, features: bool = False
) -> list[Scores]:
    """All teachers about these texts, with the method's number of passes."""
    teachers, training = run.assignment.resolved.teachers, run.training
    conditions = Conditions(
        sampling=run.method.sampling,
        max_length=training.max_length,
        precision=training.precision,
        device=run.device,
        company=tuple((teacher.digest, tuple(teacher.labels)) for teacher in teachers),
    )
    scoring = Scoring(run.assignment.store, conditions, features, on_texts, run.should_stop)
    return scoring.score([_asked(run, index) for index in range(len(teachers))], texts)


def _asked(run: Run, index: int) -> Asked:
    teacher, folder = run.assignment.resolved.teachers[index], run.folders[index]
    precision = run.training.precision
    return Asked(
        teacher.digest, lambda: load_teacher(teacher, folder, device=run.device, precision=precision)
    )
