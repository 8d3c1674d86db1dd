"""Queries of the sweeper: what the rows say about files, and rows whose time is over."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session

from app.domain.status import TERMINAL, Status
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Checkpoint, Corpus, Model, StoredOutput, Student
from app.persistence.time import now


@dataclass(frozen=True)
class JobState:
    """What decides over the files of a job."""

    status: Status
    attempt: int
    is_over: bool
    """Ended, and so long ago that nobody goes on from its files."""

    @property
    def is_live(self) -> bool:
        """An attempt may still write."""
        return self.status not in TERMINAL


def knows_anything(session: Session) -> bool:
    """False in a database without a single object."""
    tables = (Amalgamation, Corpus, Model, Student)
    return any(session.scalar(select(exists(select(table.id)))) for table in tables)


def names_no_file(database: Database) -> bool:
    """Whether no row names a file of the store, so that an empty one is a new one."""
    of_others = (Corpus.id, Model.id, Student.id, Checkpoint.amalgamation_id, StoredOutput.key)
    named = (*map(select, of_others), select(Amalgamation.id).where(Amalgamation.text_table.is_not(None)))
    with database.read() as session:
        return not any(session.scalar(select(exists(rows))) for rows in named)


def has_row(session: Session, table: type[Corpus | Model], object_id: str) -> bool:
    """True when a row names this object's files."""
    return bool(session.scalar(select(exists().where(table.id == object_id))))


def published_prefix(session: Session, student_id: str) -> str | None:
    """Where the files of a published student are."""
    return session.scalar(select(Student.storage_prefix).where(Student.id == student_id))


def job_state(session: Session, job_id: str, kept_seconds: float) -> JobState | None:
    """None: there is no such job. What has succeeded is over at once, the rest `kept_seconds` later."""
    over = (Amalgamation.status == Status.SUCCEEDED) | and_(
        Amalgamation.status.in_(TERMINAL), Amalgamation.finished_at < now(-kept_seconds)
    )
    row = session.execute(
        select(Amalgamation.status, Amalgamation.attempt, func.coalesce(over, False)).where(
            Amalgamation.id == job_id
        )
    ).one_or_none()
    return None if row is None else JobState(Status(row[0]), row[1], bool(row[2]))


def expired_corpora(session: Session) -> Sequence[Corpus]:
    """Those whose time is over, also where a job that has not ended still reads them."""
    return session.scalars(select(Corpus).where(Corpus.expires_at < now()).order_by(Corpus.id)).all()
