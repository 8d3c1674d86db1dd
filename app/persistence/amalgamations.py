"""Queries over jobs.

Two rules keep every job whole, whoever dies and whenever:

* a status changes only through `change_status`, a compare-and-set on the status (and, for a worker, on
  its attempt), which appends the transition, its event and what webhooks are told in the same transaction;
* everything else that a worker writes goes through `write_fenced`, which carries `AND attempt = mine`.
  Nothing updated means that another attempt has the job: the caller stops at once.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, or_, select, type_coerce, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.domain.status import ALLOWED_TRANSITIONS, TERMINAL, Status
from app.persistence import checkpoints, events, outbox
from app.persistence.tables import Amalgamation
from app.persistence.time import now

LEASED = (Status.RUNNING, Status.CANCELLING)
"""The statuses in which a worker holds, or held, the lease."""


def add_all(session: Session, jobs: Iterable[Amalgamation]) -> dict[str, int]:
    """Insert queued jobs with their first transition and event. The caller commits, then enqueues.

    Answers for each of them how many queued jobs a worker takes before it.
    """
    added, at = list(jobs), _clock(session)
    for job in added:
        job.status = Status.QUEUED
        job.attempt = job.events = 0
        job.created_at = at
        job.transitions = []
        job.progress = {}
        _count(job, Status.QUEUED, at)
    session.add_all(added)
    session.flush()
    events.insert_all(session, [_status_event(job, Status.QUEUED, "the job is queued") for job in added])
    return queue_positions(session, added)


def find(
    session: Session, job_id: str, *, owner: str | None = None, lock: bool = False
) -> Amalgamation | None:
    """The job, or None when there is none, or it is another owner's. `owner=None`: any owner (workers).

    `lock`: nobody else changes it until the transaction ends.
    """
    query = select(Amalgamation).where(Amalgamation.id == job_id)
    if owner is not None:
        query = query.where(Amalgamation.owner == owner)
    return session.scalar(query.with_for_update() if lock else query)


def status_of(session: Session, job_id: str) -> tuple[Status, int] | None:
    """Status and attempt, nothing else."""
    row = session.execute(
        select(Amalgamation.status, Amalgamation.attempt).where(Amalgamation.id == job_id)
    ).one_or_none()
    return None if row is None else (Status(row[0]), row[1])


def find_all(session: Session, job_ids: Collection[str]) -> Sequence[Amalgamation]:
    """Those that there are, whoever owns them."""
    return session.scalars(select(Amalgamation).where(Amalgamation.id.in_(job_ids))).all()


def queue_positions(session: Session, jobs: Iterable[Amalgamation]) -> dict[str, int]:
    """For each of the jobs that is queued, how many queued jobs a worker takes before it.

    One walk over the queue: counted up to the first of them, numbered from there to the last.
    """
    queued = [job.id for job in jobs if job.status == Status.QUEUED]
    if not queued:
        return {}
    is_queued = Amalgamation.status == Status.QUEUED
    before = select(func.count()).where(is_queued, Amalgamation.id < min(queued)).scalar_subquery()
    number = func.row_number().over(order_by=Amalgamation.id) - 1
    between = Amalgamation.id.between(min(queued), max(queued))
    places = select(Amalgamation.id, (before + number).label("place")).where(is_queued, between).subquery()
    # Outside of the walk: all between two that are far apart would come over as well.
    rows = session.execute(select(places.c.id, places.c.place).where(places.c.id.in_(queued)))
    return dict(rows.all())


def count_queued(session: Session, owners: Collection[str]) -> dict[str, int]:
    """How many jobs are queued of each of the owners that have any."""
    return dict(session.execute(_COUNT_QUEUED, {"owners": sorted(owners)}).all())


_COUNT_QUEUED = (
    select(Amalgamation.owner, func.count())
    .where(Amalgamation.owner.in_(bindparam("owners", expanding=True)), Amalgamation.status == Status.QUEUED)
    .group_by(Amalgamation.owner)
)


def uses_corpus(session: Session, corpus_id: str) -> bool:
    """True while a job that has not ended reads this corpus."""
    resolved = Amalgamation.resolved
    return _live_job_where(
        session,
        or_(
            resolved["corpus_id"].as_string() == corpus_id,
            resolved["evaluation_corpus_id"].as_string() == corpus_id,
        ),
    )


def _live_job_where(session: Session, condition: ColumnElement[bool]) -> bool:
    query = select(Amalgamation.id).where(Amalgamation.status.not_in(TERMINAL), condition).limit(1)
    return session.scalar(query) is not None


# --- The one door for statuses ---------------------------------------------------------------------


def change_status(
    session: Session,
    job_id: str,
    to: Status,
    message: str,
    *,
    only_from: Iterable[Status],
    attempt: int | None = None,
    where: ColumnElement[bool] | None = None,
    values: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
) -> Amalgamation | None:
    """Compare-and-set the status, and tell it in the event log.

    Args:
        session: of `Database.write()`.
        job_id: the job.
        to: the new status.
        message: one sentence for the event.
        only_from: the statuses in which the change is right.
        attempt: the caller's fencing token; workers must give it.
        where: a further condition, checked in the same statement.
        values: other columns to set.
        data: details for the event.

    Returns:
        The job as it is now; None when the row did not match, and nothing was changed.
    """
    sources = [status for status in only_from if to in ALLOWED_TRANSITIONS[status]]
    conditions = [Amalgamation.id == job_id, Amalgamation.status.in_(sources)]
    if attempt is not None:
        conditions.append(Amalgamation.attempt == attempt)
    if where is not None:
        conditions.append(where)
    columns: dict[str, Any] = {"status": to, **(values or {})}
    if to in TERMINAL:
        columns |= {"finished_at": now(), "lease_owner": None, "lease_until": None}
    changed = session.execute(
        update(Amalgamation).where(*conditions).values(columns).returning(Amalgamation.id),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    if changed is None:
        return None
    job = session.get_one(Amalgamation, job_id, populate_existing=True)
    if to == Status.CANCELLED and job.keep_best:
        message = f"{message}; {checkpoints.keep_newest(session, job)}"
    _count(job, to, _clock(session))
    _tell_status(session, job, to, message, data)
    session.flush()
    return job


def _clock(session: Session) -> datetime:
    at: datetime = session.execute(select(now())).scalar_one()
    return at


def _count(job: Amalgamation, status: Status, at: datetime) -> None:
    """One transition and one event more, in the row."""
    job.transitions = [
        *job.transitions,
        {"status": str(status), "at": at.isoformat(), "attempt": job.attempt},
    ]
    job.events += 1


def _tell_status(
    session: Session, job: Amalgamation, status: Status, message: str, data: dict[str, Any] | None = None
) -> None:
    """The event of which the row knows already, and what webhooks are told."""
    events.insert_all(session, [_status_event(job, status, message, data)])
    outbox.announce(session, job, status)


def _status_event(
    job: Amalgamation, status: Status, message: str, data: dict[str, Any] | None = None
) -> dict[str, Any]:
    told = {"status": status, "attempt": job.attempt} | (data or {})
    return events.row(job.id, job.events, kind="status", message=message, data=told)


# --- What a worker does ----------------------------------------------------------------------------


def claim(session: Session, job_id: str, *, worker: str, lease_seconds: float) -> Amalgamation | None:
    """Take a queued job; None when it is not to be had (taken, ended, or deleted)."""
    return change_status(
        session,
        job_id,
        Status.RUNNING,
        f"claimed by {worker}",
        only_from=(Status.QUEUED,),
        values={
            "attempt": Amalgamation.attempt + 1,
            "lease_owner": worker,
            "lease_until": now(lease_seconds),
            "heartbeat_at": now(),
            "started_at": func.coalesce(Amalgamation.started_at, now()),
        },
        data={"worker": worker},
    )


def write_fenced(session: Session, job_id: str, attempt: int, values: dict[str, Any]) -> Status | None:
    """Write columns of a job that this attempt still holds.

    Returns:
        The status (`running` or `cancelling`); None when the attempt is stale: stop at once.
    """
    row = session.execute(
        update(Amalgamation)
        .where(Amalgamation.id == job_id, Amalgamation.attempt == attempt, Amalgamation.status.in_(LEASED))
        .values(values)
        .returning(Amalgamation.status),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    return None if row is None else Status(row[0])


def tell(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    kind: str,
    message: str,
    data: dict[str, Any] | None = None,
) -> bool:
    """Append an event for an attempt that still holds the job; False when it is stale."""
    status = write_fenced(session, job_id, attempt, {"events": Amalgamation.events + 1})
    if status is None:
        return False
    sequence = session.scalar(select(Amalgamation.events).where(Amalgamation.id == job_id))
    events.insert_all(
        session, [events.row(job_id, sequence or 0, kind=kind, message=message, data=data or {})]
    )
    return True


# --- What the caretaker looks for ------------------------------------------------------------------


def expired_leases(session: Session) -> Sequence[tuple[str, Status, int, int]]:
    """Jobs whose worker is silent: id, status, attempt, losses so far."""
    query = select(Amalgamation.id, Amalgamation.status, Amalgamation.attempt, Amalgamation.losses).where(
        Amalgamation.status.in_(LEASED), Amalgamation.lease_until < now()
    )
    return [(row[0], Status(row[1]), row[2], row[3]) for row in session.execute(query)]


def lease_expired() -> ColumnElement[bool]:
    """The condition for `change_status`, so that a lease renewed in between is left alone."""
    return Amalgamation.lease_until < now()


def undispatched(session: Session, again_after_seconds: float, limit: int = 100) -> Sequence[str]:
    """Queued jobs that were never sent to the broker, or so long ago that the message may be lost."""
    query = (
        select(Amalgamation.id)
        .where(
            Amalgamation.status == Status.QUEUED,
            or_(
                Amalgamation.dispatched_at.is_(None),
                Amalgamation.dispatched_at < now(-again_after_seconds),
            ),
        )
        .order_by(Amalgamation.id)
        .limit(limit)
    )
    return session.scalars(query).all()


def mark_dispatched(session: Session, job_ids: Sequence[str]) -> None:
    """Note that a message about each of these jobs was sent just now."""
    session.execute(
        update(Amalgamation).where(Amalgamation.id.in_(job_ids)).values(dispatched_at=now()),
        execution_options={"synchronize_session": False},
    )


def end_leases_of(session: Session, worker: str) -> int:
    """A supervisor saw this worker die: its leases need not run out first. Returns how many it held."""
    held = session.execute(
        update(Amalgamation)
        .where(Amalgamation.status.in_(LEASED), Amalgamation.lease_owner == worker)
        .values(lease_until=now(-1))
        .returning(Amalgamation.id),
        execution_options={"synchronize_session": False},
    )
    return len(held.all())


# --- Lists -----------------------------------------------------------------------------------------


def page(
    session: Session,
    owner: str,
    *,
    limit: int,
    after: str | None = None,
    descending: bool = True,
    status: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Sequence[Amalgamation]:
    """Up to `limit + 1` jobs in id order (the one more tells that there is a next page). Keyset."""
    query = select(Amalgamation).where(Amalgamation.owner == owner)
    if status is not None:
        query = query.where(Amalgamation.status == status)
    for key, value in (metadata or {}).items():
        query = query.where(_tagged(session, key, value))
    if after is not None:
        query = query.where(Amalgamation.id < after if descending else Amalgamation.id > after)
    order = Amalgamation.id.desc() if descending else Amalgamation.id.asc()
    return session.scalars(query.order_by(order).limit(limit + 1)).all()


def _tagged(session: Session, key: str, value: str) -> ColumnElement[bool]:
    """The user's metadata has this pair. Not by a JSON path, for SQLite's cannot name a key with a quote."""
    if session.get_bind().dialect.name == "postgresql":
        pair = type_coerce({key: value}, JSONB)
        return Amalgamation.user_metadata.op("@>", is_comparison=True)(pair)
    each = func.json_each(Amalgamation.user_metadata).table_valued("key", "value")
    return select(each.c.key).where(each.c.key == key, each.c.value == value).exists()


def remove(session: Session, job_id: str) -> None:
    """Delete the row of a job that has ended, and its events."""
    session.execute(delete(Amalgamation).where(Amalgamation.id == job_id, Amalgamation.status.in_(TERMINAL)))


def seconds_since(session: Session, moment: datetime) -> float:
    """How long ago, by the database's clock."""
    current = session.scalar(select(now()))
    return 0.0 if current is None else (current - moment).total_seconds()
