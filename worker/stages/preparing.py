"""Files of all models, and the texts: what is missing shows before the long work begins."""

from functools import partial

from app.domain.recipe import ResolvedStudent, ResolvedTeacher
from worker.corpus import read_labelled, read_texts
from worker.stages.run import Run
from worker.teachers import folder_of, patiently


def prepare(run: Run) -> None:
    """Fill the run's folders (the student's own last, if it has one), texts and held-out texts."""
    work = run.assignment
    models: list[ResolvedTeacher | ResolvedStudent] = [*work.resolved.teachers]
    if work.resolved.student.source is not None:
        models.append(work.resolved.student)
    for done, model in enumerate(models):
        run.stop_if_asked()
        find = partial(folder_of, model, work.store)
        run.folders.append(work.patience.insist(partial(patiently, find, run.wait)))
        run.progress.advance(done + 1, len(models) + 1)
    run.texts = work.patience.insist(lambda: read_texts(work.store, work.corpus, run.scratch))
    if work.evaluation_corpus is not None:
        run.gold = work.patience.insist(
            partial(read_labelled, work.store, work.evaluation_corpus, run.scratch)
        )
