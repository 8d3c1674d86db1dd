"""One job from recipe to student: prepare, score, train, evaluate, publish. Knows no queue.

A method that trains no student has its answers from the teachers together: they are published instead.
"""

import contextlib
import logging
import time
from collections.abc import Iterator

from app.domain.status import Stage
from worker.assignment import Assignment
from worker.lease import LeaseLostError
from worker.muka import StoppedError
from worker.progress import Progress
from worker.scores import Scores
from worker.stages.evaluating import combine, evaluate
from worker.stages.preparing import prepare
from worker.stages.publishing import publish, publish_answers
from worker.stages.run import Run
from worker.stages.saving import Saving
from worker.stages.scoring import score
from worker.stages.training import Trained, train

log = logging.getLogger(__name__)


def run(assignment: Assignment) -> None:
    """Do the whole job; returns when its student is published, or what it has instead.

    Raises:
        StoppedError: The lease has a reason to stop.
        LeaseLostError: Another attempt has the job.
        Exception: Everything that `worker.failures` knows.
    """
    progress = Progress(assignment.lease, assignment.stage_weights())
    assignment.lease.fresh_columns = progress.fresh_columns
    left = assignment.seconds_left()
    assignment.lease.deadline = None if left is None else time.monotonic() + left
    this = Run.of(assignment, progress)
    saving = Saving(this)
    with _stage(this, Stage.PREPARING, "preparing models and texts"):
        prepare(this)
    with _stage(this, Stage.SCORING, "asking the teachers"):
        scores = score(this)
    if this.method.trains_student:
        _make_student(this, scores, saving)
    else:
        _let_teachers_answer(this, scores)
    saving.finish()


def _make_student(this: Run, scores: list[Scores], saving: Saving) -> None:
    with _stage(this, Stage.TRAINING, "training the student"):
        trained = train(this, scores, saving)
    with _saved_if_ended(saving, trained):
        with _stage(this, Stage.EVALUATING, "measuring the student"):
            findings = evaluate(this, scores, trained)
        with _stage(this, Stage.PUBLISHING, "publishing the student"):
            publish(this, trained.student, findings)


def _let_teachers_answer(this: Run, scores: list[Scores]) -> None:
    with _stage(this, Stage.EVALUATING, "combining the teachers"):
        findings = combine(this, scores)
    with _stage(this, Stage.PUBLISHING, "publishing what the teachers say together"):
        publish_answers(this, findings)


@contextlib.contextmanager
def _saved_if_ended(saving: Saving, trained: Trained) -> Iterator[None]:
    """What is trained already is kept, should the job be cancelled, run out of time or fail now."""
    try:
        yield
    except LeaseLostError:
        raise
    except StoppedError:
        saving.save_trained(trained.student, trained.report)
        raise
    except Exception:
        try:
            saving.save_trained(trained.student, trained.report)
        except Exception as error:  # noqa: BLE001  (why the job fails is told, whatever this is)
            log.warning("the trained student cannot be kept: %r", error)
        raise


@contextlib.contextmanager
def _stage(this: Run, stage: Stage, message: str) -> Iterator[None]:
    this.stop_if_asked()
    this.progress.begin(stage, message)
    started = time.monotonic()
    yield
    this.seconds[stage] = round(time.monotonic() - started, 3)
