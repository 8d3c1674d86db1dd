"""New jobs, committed together: each with its first event and its answer, all or nothing.

A transaction costs about as much for thirty jobs as for one: the ways to the database and back, and a disk
that must have it all before anybody is answered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.domain.errors import Fault, InvalidRequestError
from app.domain.recipe import Resolved
from app.domain.revisions import own_id
from app.persistence import amalgamations, owned
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.services.idempotency import Answer, Once, keep_all


@dataclass(frozen=True)
class Entry:
    """A job that was checked and wants to be queued."""

    job: Amalgamation
    once: Once | None
    """The idempotency key, claimed, when the client sent one."""
    render: Callable[[Amalgamation, int], dict[str, Any]]
    """Makes the answer from the new job and its place in the queue, inside the transaction."""


def admit_all(database: Database, entries: Sequence[Entry], *, wait: bool) -> list[Answer]:
    """Commit them. `wait`: for whoever has something locked that they need; False: it fails at once.

    Raises:
        InvalidRequestError: what a job needs was deleted while it was checked.
        RequestInFlightError: a request was taken for dead, and another one is carried out.
        SQLAlchemyError: the database failed.
    """
    jobs = [entry.job for entry in entries]
    if not jobs:
        return []
    with database.write() as session:
        faults = lock_inputs(session, jobs, "was deleted while the request was checked", wait=wait)
        if faults:
            raise InvalidRequestError(
                f"the job cannot be created: {faults[0].detail}; create it with what there is now",
                faults=faults,
            )
        before = amalgamations.add_all(session, jobs)
        answers = [
            Answer(entry.job.id, entry.render(entry.job, before[entry.job.id]), 202) for entry in entries
        ]
        keep_all(session, [(entry.once, answer) for entry, answer in zip(entries, answers, strict=True)])
    return answers


def lock_inputs(
    session: Session, jobs: Sequence[Amalgamation], what_happened: str, *, wait: bool = True
) -> list[Fault]:
    """Hold what the jobs need until they are committed, so that nobody deletes it in between.

    Answers a fault for each thing that is gone, which says what happened. `wait`: for whoever has it locked;
    False: an `OperationalError` at once.
    """
    needed = [(job.owner, pointer, each) for job in jobs for pointer, each in _needed(job)]
    held = owned.hold_all(session, {(owner, object_id) for owner, _, object_id in needed}, wait=wait)
    return [
        Fault(pointer, "deleted", f"{object_id} {what_happened}")
        for owner, pointer, object_id in needed
        if (owner, object_id) not in held
    ]


def _needed(job: Amalgamation) -> list[tuple[str, str]]:
    """Ids of stored objects, each with the pointer to where the recipe names it."""
    resolved = Resolved.model_validate(job.resolved)
    needed = [("/corpus", resolved.corpus_id)]
    if resolved.evaluation_corpus_id:
        needed.append(("/evaluation/corpus", resolved.evaluation_corpus_id))
    for index, teacher in enumerate(resolved.teachers):
        if teacher.object_id:
            needed.append((f"/teachers/{index}/model", teacher.object_id))
    if resolved.student.storage_prefix:
        needed.append(("/student/init_from", own_id(job.recipe["student"]["init_from"])))
    return needed
