"""Queries that the objects of owners share: one of them, and keyset pages."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import CompoundSelect, Select, bindparam, select, union_all
from sqlalchemy.orm import Session

from app.domain.identifiers import Prefix
from app.domain.revisions import parse_checkpoint
from app.persistence import checkpoints
from app.persistence.tables import Corpus, Model, Student, Webhook

Resource = TypeVar("Resource", Corpus, Model, Student, Webhook)
Owned = tuple[str, str]
"""An owner, and the id of one of its objects."""
_TABLES: dict[str, type[Corpus | Model | Student]] = {
    Prefix.CORPUS: Corpus,
    Prefix.MODEL: Model,
    Prefix.STUDENT: Student,
}


def find(
    session: Session, table: type[Resource], object_id: str, *, owner: str | None, lock: bool = False
) -> Resource | None:
    """The object, or None when there is none, or it is another owner's. `owner=None`: any (workers).

    `lock`: who deletes an object locks it before asking whether a job needs it; see `hold_all`.
    """
    if owner is not None and not lock:
        return find_all(session, table, {(owner, object_id)}).get((owner, object_id))
    query = select(table).where(table.id == object_id)
    if owner is not None:
        query = query.where(table.owner == owner)
    return session.scalar(query.with_for_update() if lock else query)


def find_all(session: Session, table: type[Resource], wanted: Collection[Owned]) -> dict[Owned, Resource]:
    """Those of the objects that there are, and are that owner's."""
    if not wanted:
        return {}
    owners, ids = ({each[part] for each in wanted} for part in (0, 1))
    rows = session.scalars(_all_of(table), {"ids": sorted(ids), "owners": sorted(owners)})
    found = {(row.owner, row.id): row for row in rows}
    return {each: found[each] for each in wanted if each in found}


@cache
def _all_of(table: type[Resource]) -> Select[Resource]:
    """Built once: to put a statement together takes as long as to have it answered."""
    return select(table).where(
        table.id.in_(bindparam("ids", expanding=True)), table.owner.in_(bindparam("owners", expanding=True))
    )


def hold_all(session: Session, needed: Collection[Owned], *, wait: bool = True) -> set[Owned]:
    """Keep objects that new jobs need from being deleted until the transaction ends.

    Answers those that are not gone already. On SQLite the write lock does the same for all rows.
    `stu-…@step-200` is a checkpoint. `wait`: for whoever is deleting one; False: an `OperationalError`.
    """
    # In the order in which `checkpoints.lock_all` takes them, or the two could wait for each other.
    saved = sorted((parsed, each) for each in needed if (parsed := parse_checkpoint(each[1])))
    held = {
        each
        for (job_id, step), each in saved
        if checkpoints.hold(session, job_id, step, owner=each[0], wait=wait)
    }
    plain = set(needed) - {each for _, each in saved}
    ids = sorted({object_id for _, object_id in plain})
    kinds = [kind for prefix, kind in _TABLES.items() if any(each.startswith(prefix) for each in ids)]
    if kinds:
        owners = sorted({owner for owner, _ in plain})
        found = session.execute(_holding(frozenset(kinds), wait=wait), {"ids": ids, "owners": owners})
        held |= plain & {(row.owner, row.id) for row in found}
    return held


@cache
def _holding(
    kinds: frozenset[type[Corpus | Model | Student]], *, wait: bool
) -> Select[Any] | CompoundSelect[Any]:
    """One statement for all: locks do not go with UNION, but what is united may hold them."""
    locked = [
        select(kind.id, kind.owner)
        .where(
            kind.id.in_(bindparam("ids", expanding=True)), kind.owner.in_(bindparam("owners", expanding=True))
        )
        .with_for_update(read=True, nowait=not wait)
        .cte(f"held_{kind.__tablename__}")
        for kind in sorted(kinds, key=lambda kind: kind.__tablename__)
    ]
    return union_all(*[select(each.c.id, each.c.owner) for each in locked])


def page(
    session: Session,
    table: type[Resource],
    owner: str,
    *,
    limit: int,
    after: str | None = None,
    descending: bool = True,
) -> Sequence[Resource]:
    """Up to `limit + 1` objects in id order (the one more tells that there is a next page)."""
    query = select(table).where(table.owner == owner)
    if after is not None:
        query = query.where(table.id < after if descending else table.id > after)
    order = table.id.desc() if descending else table.id.asc()
    return session.scalars(query.order_by(order).limit(limit + 1)).all()
