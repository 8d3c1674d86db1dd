"""Queries over the shards of a job's scoring that other workers may take.

They live within one attempt at the job: the worker that holds the job opens them, and another attempt finds
them of no use. A helper holds one shard at a time by a lease of its own; `claims` is the fencing token of it.
What a helper stores is named by its content, so a stale one can do no harm but that of being late.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, not_, or_, select, update
from sqlalchemy.orm import Session

from app.domain.recipe import RECIPE_VERSION
from app.domain.shards import ShardStatus, Unit
from app.domain.status import Status
from app.domain.stored_outputs import Computation
from app.persistence.amalgamations import LEASED
from app.persistence.tables import Amalgamation, Shard
from app.persistence.time import now


@dataclass(frozen=True)
class Claim:
    """A shard in somebody's hands."""

    job_id: str
    attempt: int
    unit: Unit
    claims: int


def open_all(
    session: Session, job_id: str, attempt: int, units: Sequence[Unit], computation: Computation
) -> bool:
    """Let other workers take these, and nothing that an earlier attempt opened. False: a stale attempt."""
    held = (Amalgamation.id == job_id, Amalgamation.attempt == attempt, Amalgamation.status.in_(LEASED))
    if session.scalar(select(Amalgamation.id).where(*held).with_for_update()) is None:
        return False
    close(session, job_id, attempt)
    same = {"amalgamation_id": job_id, "attempt": attempt, "status": ShardStatus.OPEN, "claims": 0}
    same |= {"precision": computation.precision, "software": computation.software}
    rows = [{**same, "teacher": unit.teacher, "shard": unit.shard} for unit in units]
    session.execute(insert(Shard), rows)
    return True


def close(session: Session, job_id: str, attempt: int) -> bool:
    """Nothing that this attempt, or one before it, has opened is shared any more. True, always."""
    session.execute(delete(Shard).where(Shard.amalgamation_id == job_id, Shard.attempt <= attempt))
    return True


def take_back(session: Session, job_id: str, attempt: int, *, worker: str) -> Claim | None:
    """For the holder of the job: the first shard that is open, or that was taken and lost.

    A helper loses one with its lease; the holder, who has one at a time, when the answer to its taking was.
    """
    is_lost = or_(Shard.lease_until < now(), Shard.lease_until.is_(None))
    lost = and_(Shard.status == ShardStatus.TAKEN, is_lost)
    of_mine = and_(Shard.amalgamation_id == job_id, Shard.attempt == attempt)
    free = or_(Shard.status == ShardStatus.OPEN, lost)
    return _take(session, and_(of_mine, free), worker=worker, lease_seconds=None, backwards=False)


def take(
    session: Session,
    job_id: str,
    attempt: int,
    computation: Computation,
    *,
    worker: str,
    lease_seconds: float,
) -> Claim | None:
    """For a helper: the last open shard, so that it meets the holder in the middle of the work.

    None: there is none that this computation may do, or a job waits, which goes before.
    """
    wanted = and_(
        Shard.amalgamation_id == job_id,
        Shard.attempt == attempt,
        Shard.status == ShardStatus.OPEN,
        Shard.precision == computation.precision,
        Shard.software == computation.software,
        _is_held(),
        _no_job_waits(),
    )
    return _take(session, wanted, worker=worker, lease_seconds=lease_seconds, backwards=True)


def _take(
    session: Session,
    wanted: ColumnElement[bool],
    *,
    worker: str,
    lease_seconds: float | None,
    backwards: bool,
) -> Claim | None:
    order = [column.desc() if backwards else column for column in (Shard.teacher, Shard.shard)]
    # Two that look at once find two shards, and neither waits for the other. On SQLite nobody looks at once.
    query = select(Shard).where(wanted).order_by(*order).limit(1)
    shard = session.scalar(query.with_for_update(of=Shard, skip_locked=True))
    if shard is None:
        return None
    shard.status, shard.worker, shard.claims = ShardStatus.TAKEN, worker, shard.claims + 1
    shard.lease_until = None if lease_seconds is None else now(lease_seconds)
    session.flush()
    unit = Unit(shard.teacher, shard.shard)
    return Claim(shard.amalgamation_id, shard.attempt, unit, shard.claims)


def renew(session: Session, claim: Claim, lease_seconds: float) -> bool:
    """False: the claim is stale. Otherwise its row is locked until the transaction ends."""
    return _change(session, claim, lease_until=now(lease_seconds))


def finish(session: Session, claim: Claim) -> bool:
    """Its outputs are stored. False: the claim is stale. Said twice it is no more: an answer may be lost."""
    stages = (ShardStatus.TAKEN, ShardStatus.DONE)
    return _change(session, claim, only_from=stages, status=ShardStatus.DONE, lease_until=None)


def let_go(session: Session, claim: Claim) -> bool:
    """The worker stops: another one may take it. False: the claim is stale."""
    return _change(session, claim, status=ShardStatus.OPEN, worker=None, lease_until=None)


def _change(
    session: Session,
    claim: Claim,
    *,
    only_from: Sequence[ShardStatus] = (ShardStatus.TAKEN,),
    **values: object,
) -> bool:
    same = update(Shard).where(
        Shard.amalgamation_id == claim.job_id,
        Shard.teacher == claim.unit.teacher,
        Shard.shard == claim.unit.shard,
        Shard.attempt == claim.attempt,
        Shard.claims == claim.claims,
        Shard.status.in_(only_from),
    )
    changed = same.values(values).returning(Shard.shard)
    options = {"synchronize_session": False}
    return session.execute(changed, execution_options=options).one_or_none() is not None


def lose(session: Session, worker: str) -> None:
    """A helper has died or failed: what it had is left to the holder of the job, and at once."""
    had = (Shard.worker == worker, Shard.status == ShardStatus.TAKEN, Shard.lease_until.is_not(None))
    session.execute(update(Shard).where(*had).values(lease_until=now(-1)))


def help_wanted(session: Session, job_id: str) -> int | None:
    """The attempt that has open shards; None: there is none, or a job waits, which goes before."""
    wanted = (Shard.amalgamation_id == job_id, Shard.status == ShardStatus.OPEN, _is_held(), _no_job_waits())
    return session.scalar(select(Shard.attempt).where(*wanted).limit(1))


def computation_of(session: Session, job_id: str, attempt: int) -> Computation | None:
    """What all shards of this attempt are to be computed with; None: nothing is shared any more."""
    query = select(Shard.precision, Shard.software).where(
        Shard.amalgamation_id == job_id, Shard.attempt == attempt
    )
    row = session.execute(query.limit(1)).one_or_none()
    return None if row is None else Computation(*row)


def statuses(session: Session, job_id: str, attempt: int) -> dict[ShardStatus, int]:
    """How many shards there are of each status."""
    mine = (Shard.amalgamation_id == job_id, Shard.attempt == attempt)
    query = select(Shard.status, func.count()).where(*mine).group_by(Shard.status)
    found = {row[0]: row[1] for row in session.execute(query)}
    return {status: found.get(status, 0) for status in ShardStatus}


def done_by(session: Session, job_id: str, attempt: int) -> dict[Unit, str]:
    """The shards that are done, and by whom."""
    columns = (Shard.teacher, Shard.shard, Shard.worker)
    mine = (Shard.amalgamation_id == job_id, Shard.attempt == attempt, Shard.status == ShardStatus.DONE)
    return {
        Unit(teacher, shard): worker or ""
        for teacher, shard, worker in session.execute(select(*columns).where(*mine))
    }


def has_stale(session: Session) -> bool:
    """Whether `remove_stale` has anything to do."""
    return bool(session.scalar(select(select(Shard.shard).where(not_(_is_held())).exists())))


def remove_stale(session: Session) -> None:
    """Of attempts that have ended."""
    options = {"synchronize_session": False}
    session.execute(delete(Shard).where(not_(_is_held())), execution_options=options)


def _is_held() -> ColumnElement[bool]:
    """The attempt that opened the shard still has the job."""
    job = (Amalgamation.id == Shard.amalgamation_id, Amalgamation.attempt == Shard.attempt)
    return exists().where(*job, Amalgamation.status.in_(LEASED)).correlate(Shard)


def _no_job_waits() -> ColumnElement[bool]:
    """None that a worker of this version could take: what newer ones are needed for does not keep it idle."""
    known = Amalgamation.resolved["recipe_version"].as_integer() == RECIPE_VERSION
    return not_(exists().where(Amalgamation.status == Status.QUEUED, known))
