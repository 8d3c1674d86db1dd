"""New jobs of requests that come at the same time, committed together.

A transaction costs about as much for thirty jobs as for one: the ways to the database and back, and a disk
that must have it all before anybody is answered.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, make_transient

from app.domain.errors import Fault, InvalidRequestError
from app.domain.recipe import Resolved
from app.domain.revisions import own_id
from app.persistence import amalgamations, owned
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.services.idempotency import Answer, Once, keep_all

MOST_AT_ONCE = 50
_BEFALLS_ALL = (OperationalError, InterfaceError, PoolTimeoutError)
"""The database does not answer: no use in asking it once for each."""


@dataclass(frozen=True)
class Entry:
    """A job that was checked and wants to be queued."""

    job: Amalgamation
    once: Once | None
    """The idempotency key, claimed, when the client sent one."""
    render: Callable[[Amalgamation, int], dict[str, Any]]
    """Makes the answer from the new job and its place in the queue, inside the transaction."""
    answer: Future[Answer] = field(default_factory=Future)


class Admissions:
    """Group commit: who comes while a transaction is under way shares the next one with all who wait.

    A group that cannot be admitted as a whole is admitted one by one: nobody fails by another's fault.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._waiting: deque[Entry] = deque()

    def admit(self, entry: Entry) -> Answer:
        """Store the job, its first event and the answer, all or nothing; returns when that is committed.

        Raises:
            InvalidRequestError: what the job needs was deleted while it was checked.
            RequestInFlightError: its request was taken for dead, and another one is carried out.
            SQLAlchemyError: the database failed.
        """
        self._waiting.append(entry)
        while not entry.answer.done():
            with self._turn:
                self._admit([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))])
        return entry.answer.result()

    def _admit(self, group: Sequence[Entry]) -> None:
        """None of the group has no answer afterwards."""
        if not group:
            return  # whoever had the turn before took us along
        try:
            answers = self._commit(group)
        except Exception as error:  # noqa: BLE001  (told to each of those who wait)
            is_shared = len(group) == 1 or isinstance(error, _BEFALLS_ALL)
            for entry in group:
                if is_shared:
                    entry.answer.set_exception(error)
                else:
                    make_transient(entry.job)  # what was rolled back is not there to be updated
                    self._admit([entry])
        else:
            for entry, answer in zip(group, answers, strict=True):
                entry.answer.set_result(answer)

    def _commit(self, group: Sequence[Entry]) -> list[Answer]:
        jobs = [entry.job for entry in group]
        with self._database.write() as session:
            if faults := lock_inputs(session, jobs, "was deleted while the request was checked"):
                raise InvalidRequestError(
                    f"the job cannot be created: {faults[0].detail}; create it with what there is now",
                    faults=faults,
                )
            before = amalgamations.add_all(session, jobs)
            answers = [
                Answer(entry.job.id, entry.render(entry.job, before[entry.job.id]), 202) for entry in group
            ]
            keep_all(session, [(entry.once, answer) for entry, answer in zip(group, answers, strict=True)])
        return answers


def lock_inputs(session: Session, jobs: Sequence[Amalgamation], what_happened: str) -> list[Fault]:
    """Hold what the jobs need until they are committed, so that nobody deletes it in between.

    Answers a fault for each thing that is gone, which says what happened.
    """
    needed = [(job.owner, pointer, each) for job in jobs for pointer, each in _needed(job)]
    held = owned.hold_all(session, {(owner, object_id) for owner, _, object_id in needed})
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
