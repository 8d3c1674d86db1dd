"""The student's files and its row; or the table of a job that makes none, and the job's row."""

from functools import partial

from worker import report
from worker.muka import Student
from worker.plots import draw_all
from worker.publishing import publish as publish_folder
from worker.publishing import publish_table, write_folder
from worker.stages.evaluating import Findings
from worker.stages.run import Run
from worker.text_table import write_text_table


def publish(run: Run, student: Student, findings: Findings) -> None:
    """Write the folder, move it into the store and name it in the database."""
    run.assignment.patience.insist(partial(_publish, run, student, findings))


def _publish(run: Run, student: Student, findings: Findings) -> None:
    work = run.assignment
    told = findings.report | report.of_times(findings.report, run.seconds, findings.answering_seconds)
    with work.store.staging() as staged:
        folder = staged / "student"
        folder.mkdir()
        write_text_table(folder, run.labels, findings.choice, findings.entropy, findings.predictions)
        pictures = draw_all(folder, told, report.training_curve(work))
        card, story = report.for_card(work, told, pictures), report.story(work, told)
        files = write_folder(folder, student, card=card, story=story)
        publish_folder(
            work.database,
            work.store,
            work.lease,
            folder=folder,
            files=files,
            student=student,
            report=told,
            progress=run.progress.finished(),
        )


def publish_answers(run: Run, findings: Findings) -> None:
    """Move the table of texts into the store and name it in the database."""
    run.assignment.patience.insist(partial(_publish_answers, run, findings))


def _publish_answers(run: Run, findings: Findings) -> None:
    work = run.assignment
    told = findings.report | report.of_times(findings.report, run.seconds, findings.answering_seconds)
    with work.store.staging() as staged:
        table = write_text_table(staged, run.labels, findings.choice, findings.entropy, findings.predictions)
        publish_table(
            work.database,
            work.store,
            work.lease,
            table=table,
            report=told,
            progress=run.progress.finished(),
        )
