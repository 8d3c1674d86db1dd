"""What is told of a job that waits in the queue, by somebody who does not hold it."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.domain.status import Status
from app.persistence import events
from app.persistence.tables import Amalgamation, Event


def warn_once(session: Session, job_id: str, message: str) -> bool:
    """Append a warning to a queued job, unless it was told since it is queued; True when it was new."""
    of_job = Event.amalgamation_id == job_id
    queued = select(func.max(Event.sequence)).where(of_job, Event.type == "status").scalar_subquery()
    told = select(Event.sequence).where(of_job, Event.sequence > queued, Event.message == message)
    # The row first: whoever else has something to tell waits until this is told.
    sequence = session.execute(
        update(Amalgamation)
        .where(Amalgamation.id == job_id, Amalgamation.status == Status.QUEUED, ~told.exists())
        .values(events=Amalgamation.events + 1)
        .returning(Amalgamation.events),
        execution_options={"synchronize_session": False},
    ).scalar_one_or_none()
    if sequence is None:
        return False
    events.insert_all(session, [events.row(job_id, sequence, kind="warning", message=message, data={})])
    return True
